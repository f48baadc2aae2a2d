//! Which credentials a client sends, and why: one pure function over every source (`reference/credentials.json`).
//!
//! | target | token | password |
//! |---|---|---|
//! | explicit `--token`/`--password` | only what was given | only what was given |
//! | `--url` without them | refused | refused |
//! | `--on`, current connection | this device's own token there | |
//! | `OPENCLAW_GATEWAY_URL` | env, else refused | env, else refused |
//! | local | env → auth.token → remote.token → generated | env → auth.password → remote.password |
//! | remote | remote.token → env → auth.token | env → remote.password → auth.password |
//! | remote, probe and status | remote.token only | as above |
//!
//! The target is the first of: `--url`, `--on`, `OPENCLAW_GATEWAY_URL`, the current connection, the config.
//! A node host in local mode never uses `gateway.remote.*`. Blank texts are unset. A configured secret that cannot be
//! read is never replaced by one of lower rank, save that in remote mode the environment follows an unreadable
//! `gateway.remote.token`.

mod gather;
mod inputs;
mod local;
mod remote;
mod report;

use openclaw_protocol::Secret;

pub use gather::{ClientFlags, On, gather};
pub use inputs::{Configured, ConnectionInput, EnvInputs, FlagInputs, Inputs, Reading, Surface};
pub use report::{Considered, State};

use crate::gateway::Mode;
use report::{Field, Table};

/// Where the URL came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UrlSource {
    Flag,
    Env,
    LocalLoopback,
    RemoteConfig,
    /// `gateway.remote.sshTarget` without a URL.
    SshTarget,
    /// A saved connection named by `--on`.
    On,
    /// The connection chosen by `openclaw connections use`.
    Current,
}

impl UrlSource {
    /// The label of the release's messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Flag => "cli --url",
            Self::Env => "env OPENCLAW_GATEWAY_URL",
            Self::LocalLoopback => "local loopback",
            Self::RemoteConfig => "config gateway.remote.url",
            Self::SshTarget => "config gateway.remote.sshTarget",
            Self::On => "cli --on",
            Self::Current => "openclaw connections use",
        }
    }
}

/// A configured secret that was passed over because it cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// `secretref-unresolved`.
    pub code: &'static str,
    /// `gateway.remote.token`.
    pub path: String,
    pub reason: String,
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is configured but unavailable and was not sent: {}", self.path, self.reason)
    }
}

/// What to connect to and what to send. `token` and `password` may both be absent.
#[derive(Clone, Debug)]
pub struct Resolution {
    /// For a saved connection its name, for an ssh target without a URL that target.
    pub url: String,
    pub url_source: UrlSource,
    pub token: Option<Secret>,
    /// `explicit`, `env:OPENCLAW_GATEWAY_TOKEN`, `config:gateway.auth.token`, `config:gateway.remote.token` or
    /// `generated`.
    pub token_source: Option<&'static str>,
    pub password: Option<Secret>,
    pub password_source: Option<&'static str>,
    pub warnings: Vec<Warning>,
    /// Every source in order: used, ignored or absent, and why.
    pub considered: Vec<Considered>,
}

/// Why nothing is sent at all. The text is the release's first line; [`CredentialError::fix`] is what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialErrorKind {
    #[error("gateway url override requires explicit credentials")]
    ExplicitCredentialsRequired { url_source_is_env: bool },
    #[error("{path} is configured as a secret reference but is unavailable in this command path.")]
    SecretRefUnresolved { path: String, reason: String },
    #[error("gateway remote mode misconfigured: gateway.remote.url missing")]
    RemoteUrlMissing,
}

/// A refusal, with the table that explains it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{kind}")]
pub struct CredentialError {
    pub kind: CredentialErrorKind,
    pub considered: Vec<Considered>,
}

impl CredentialError {
    /// `explicit-credentials-required`, `secretref-unresolved` or `remote-url-missing`.
    pub fn code(&self) -> &'static str {
        match self.kind {
            CredentialErrorKind::ExplicitCredentialsRequired { .. } => "explicit-credentials-required",
            CredentialErrorKind::SecretRefUnresolved { .. } => "secretref-unresolved",
            CredentialErrorKind::RemoteUrlMissing => "remote-url-missing",
        }
    }

    /// The config path at fault, if one is.
    pub fn path(&self) -> Option<&str> {
        match &self.kind {
            CredentialErrorKind::SecretRefUnresolved { path, .. } => Some(path),
            CredentialErrorKind::RemoteUrlMissing => Some("gateway.remote.url"),
            CredentialErrorKind::ExplicitCredentialsRequired { .. } => None,
        }
    }

    /// What to do, a line each.
    pub fn fix(&self) -> Vec<String> {
        match &self.kind {
            CredentialErrorKind::ExplicitCredentialsRequired { url_source_is_env: true } => vec![
                "Fix: set OPENCLAW_GATEWAY_TOKEN or OPENCLAW_GATEWAY_PASSWORD beside OPENCLAW_GATEWAY_URL, or pass \
                 --token or --password."
                    .to_owned(),
                "For the gateway in your config, unset OPENCLAW_GATEWAY_URL.".to_owned(),
            ],
            CredentialErrorKind::ExplicitCredentialsRequired { url_source_is_env: false } => vec![
                "Fix: pass --token or --password (or gatewayToken in tools).".to_owned(),
                "For the default local or SSH-tunneled Gateway, remove --url so that the configured credentials apply."
                    .to_owned(),
            ],
            CredentialErrorKind::SecretRefUnresolved { path, reason } => {
                let (variable, flag) = match path.ends_with("password") {
                    true => ("OPENCLAW_GATEWAY_PASSWORD", "--password"),
                    false => ("OPENCLAW_GATEWAY_TOKEN", "--token"),
                };
                vec![format!("Reason: {reason}."), format!("Fix: repair the reference, set {variable}, or pass {flag}.")]
            }
            CredentialErrorKind::RemoteUrlMissing => vec![
                "Fix: openclaw config set gateway.remote.url wss://host:port, or openclaw config set gateway.mode local."
                    .to_owned(),
            ],
        }
    }
}

/// Settles target and credentials. Reads nothing but `inputs`; a configured secret is only read when its turn comes.
pub fn resolve(inputs: &Inputs<'_>) -> Result<Resolution, Box<CredentialError>> {
    let mut table = Table::new(inputs);
    match settle(inputs, &mut table) {
        Ok(settled) => {
            let Settled { target: (url, url_source), token, password, warnings } = settled;
            let considered = table.finish();
            let (token, token_source) = token.unzip();
            let (password, password_source) = password.unzip();
            Ok(Resolution { url, url_source, token, token_source, password, password_source, warnings, considered })
        }
        Err(kind) => Err(Box::new(CredentialError { kind, considered: table.finish() })),
    }
}

/// A secret and the name of its source.
type Sent = Option<(Secret, &'static str)>;

struct Settled {
    target: (String, UrlSource),
    token: Sent,
    password: Sent,
    warnings: Vec<Warning>,
}

const ENV_URL: &str = "env:OPENCLAW_GATEWAY_URL";
const REMOTE_URL: &str = "config:gateway.remote.url";
const SSH_TARGET: &str = "config:gateway.remote.sshTarget";
const ON: &str = "flag:--on";
const CURRENT: &str = "connections use";
const LOCAL: &str = "local loopback";
const EXPLICIT: &str = "explicit";
const ENV_TOKEN: &str = "env:OPENCLAW_GATEWAY_TOKEN";
const ENV_PASSWORD: &str = "env:OPENCLAW_GATEWAY_PASSWORD";
const AUTH_TOKEN: &str = "config:gateway.auth.token";
const AUTH_PASSWORD: &str = "config:gateway.auth.password";
const REMOTE_TOKEN: &str = "config:gateway.remote.token";
const REMOTE_PASSWORD: &str = "config:gateway.remote.password";
const GENERATED: &str = "generated";

fn settle(inputs: &Inputs<'_>, table: &mut Table) -> Result<Settled, CredentialErrorKind> {
    let target = target(inputs)?;
    table.target(match target.1 {
        UrlSource::Flag => EXPLICIT,
        UrlSource::Env => ENV_URL,
        UrlSource::RemoteConfig => REMOTE_URL,
        UrlSource::SshTarget => SSH_TARGET,
        UrlSource::On => ON,
        UrlSource::Current => CURRENT,
        UrlSource::LocalLoopback => LOCAL,
    });
    let explicit_token = inputs.flags.token.as_ref().and_then(present);
    let explicit_password = inputs.flags.password.as_ref().and_then(present);
    let explicit = explicit_token.is_some() || explicit_password.is_some();
    if explicit {
        table.ignore_rest("explicit credentials were given, so nothing else is sent");
        let token = explicit_token.map(|secret| table.used(Field::Token, EXPLICIT, secret));
        let password = explicit_password.map(|secret| table.used(Field::Password, EXPLICIT, secret));
        return Ok(Settled { target, token, password, warnings: Vec::new() });
    }
    match target.1 {
        UrlSource::Flag => {
            table.ignore_rest("--url never inherits a credential");
            Err(CredentialErrorKind::ExplicitCredentialsRequired { url_source_is_env: false })
        }
        UrlSource::Env => {
            table.ignore_rest("OPENCLAW_GATEWAY_URL takes only the credentials beside it in the environment");
            let token = inputs.env.token.as_ref().and_then(present).map(|s| table.used(Field::Token, ENV_TOKEN, s));
            let password =
                inputs.env.password.as_ref().and_then(present).map(|s| table.used(Field::Password, ENV_PASSWORD, s));
            if token.is_none() && password.is_none() {
                return Err(CredentialErrorKind::ExplicitCredentialsRequired { url_source_is_env: true });
            }
            Ok(Settled { target, token, password, warnings: Vec::new() })
        }
        UrlSource::LocalLoopback => local::settle(inputs, table, target),
        UrlSource::RemoteConfig | UrlSource::SshTarget => remote::settle(inputs, table, target),
        UrlSource::On | UrlSource::Current => {
            table.ignore_rest("a saved connection uses this device's own token, or what --token or --password give");
            Ok(Settled { target, token: None, password: None, warnings: Vec::new() })
        }
    }
}

fn target(inputs: &Inputs<'_>) -> Result<(String, UrlSource), CredentialErrorKind> {
    let given = |text: &Option<String>| text.as_deref().map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned);
    if let Some(url) = given(&inputs.flags.url) {
        return Ok((url, UrlSource::Flag));
    }
    let connection = |by_flag| inputs.connection.as_ref().filter(|chosen| chosen.by_flag == by_flag);
    if let Some(chosen) = connection(true) {
        return Ok((chosen.name.to_string(), UrlSource::On));
    }
    if let Some(url) = given(&inputs.env.url) {
        return Ok((url, UrlSource::Env));
    }
    if let Some(chosen) = connection(false) {
        return Ok((chosen.name.to_string(), UrlSource::Current));
    }
    match inputs.mode {
        Mode::Local => Ok((inputs.local_url.clone(), UrlSource::LocalLoopback)),
        Mode::Remote => match (given(&inputs.remote_url), given(&inputs.ssh_target)) {
            (Some(url), _) => Ok((url, UrlSource::RemoteConfig)),
            (None, Some(target)) => Ok((target, UrlSource::SshTarget)),
            (None, None) => Err(CredentialErrorKind::RemoteUrlMissing),
        },
    }
}

/// Trimmed; blank is unset.
fn present(secret: &Secret) -> Option<Secret> {
    Secret::from_input(secret.expose())
}
