//! What a gateway will do: flag, then environment, then file, then default, for bind, port, token and password
//! (checklist S-114), and every reason not to start.

mod error;
mod generated;

use std::{path::PathBuf, time::Duration};

use openclaw_protocol::Secret;

pub use error::SettingsError;
pub use generated::{generated_token, read_generated_token};

use crate::{
    document::Document,
    env::{self, Env},
    gateway::{AuthMode, BindMode, GatewayConfig, Mode, TailscaleMode},
    paths::Paths,
    schema,
    secret_ref::{self, SecretContext, SecretInput},
    source::{Source, Sourced},
};

/// Flags of `openclaw gateway run`, unchecked. Empty texts count as not given.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    pub bind: Option<String>,
    /// `0` lets the system choose.
    pub port: Option<String>,
    pub auth: Option<String>,
    pub token: Option<Secret>,
    pub password: Option<Secret>,
    pub password_file: Option<PathBuf>,
    pub tailscale: Option<String>,
    pub tailscale_reset_on_exit: bool,
}

/// A gateway's settings, each with its source.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    pub bind: Sourced<BindMode>,
    pub port: Sourced<u16>,
    pub auth_mode: Sourced<AuthMode>,
    /// The shared token in mode token; `None` when one has to be generated.
    pub token: Option<Sourced<Secret>>,
    /// The shared password in mode password.
    pub password: Option<Sourced<Secret>>,
    /// Mode token on loopback with nothing configured: take [`generated_token`].
    pub needs_generated_token: bool,
    pub tailscale: Sourced<TailscaleMode>,
    pub handshake_timeout: Option<Duration>,
    pub max_preauth_connections_per_ip: Option<usize>,
    pub config: GatewayConfig,
    /// Unknown keys and the like, for the log.
    pub warnings: Vec<String>,
}

impl ServerSettings {
    /// Where the secret clients must know comes from; the mode's own source when there is none.
    pub fn auth_source(&self) -> &Source {
        self.token.as_ref().or(self.password.as_ref()).map_or(&self.auth_mode.source, |secret| &secret.source)
    }
}

/// Computes the settings, or says why the gateway does not start.
pub fn effective_server(
    flags: &Flags,
    env: &Env,
    doc: &Document,
    paths: &Paths,
) -> Result<ServerSettings, SettingsError> {
    let bind_flag = choice(flags.bind.as_deref(), "--bind", BindMode::parse, SettingsError::BindFlag)?;
    let auth_flag = choice(flags.auth.as_deref(), "--auth", AuthMode::parse, SettingsError::AuthFlag)?;
    let tailscale_flag =
        choice(flags.tailscale.as_deref(), "--tailscale", TailscaleMode::parse, SettingsError::TailscaleFlag)?;
    let port_flag = port_flag(flags.port.as_deref())?;

    let validation = schema::validate(doc);
    if !validation.is_valid() {
        return Err(SettingsError::InvalidConfig(validation.errors));
    }
    let config = GatewayConfig::from_valid(doc);
    if config.mode == Some(Mode::Remote) {
        return Err(SettingsError::RemoteMode);
    }

    let bind = match bind_flag {
        Some(bind) => bind,
        None => env_choice(env, env::OPENCLAW_GATEWAY_BIND, BindMode::parse, "loopback, lan, tailnet, custom or auto")?
            .or_else(|| from_config(config.bind, &config, "gateway.bind"))
            .unwrap_or(Sourced::new(BindMode::Loopback, Source::Default)),
    };
    if bind.value == BindMode::Custom && config.custom_bind_host.is_none() {
        return Err(SettingsError::CustomHostMissing);
    }
    let port = match port_flag {
        Some(port) => port,
        None => env_choice(
            env,
            env::OPENCLAW_GATEWAY_PORT,
            |t| t.parse().ok().filter(|p| *p > 0),
            "a port from 1 to 65535",
        )?
        .or_else(|| from_config(config.port, &config, "gateway.port"))
        .unwrap_or(Sourced::new(paths.default_port(), Source::Default)),
    };

    let secrets = Secrets::gather(flags, env, &config)?;
    let auth_mode = secrets.mode(auth_flag, &config)?;
    let context = SecretContext { env, doc, paths };
    let (mut token, mut password, mut needs_generated_token) = (None, None, false);
    match auth_mode.value {
        AuthMode::Token => {
            token = secrets.token.as_ref().map(|offer| offer.take(&context)).transpose()?;
            needs_generated_token = token.is_none() && !bind.value.leaves_loopback();
        }
        AuthMode::Password => {
            let offer = secrets.password.as_ref().ok_or(SettingsError::PasswordMissing)?;
            password = Some(offer.take(&context)?);
        }
        AuthMode::TrustedProxy if config.trusted_proxies.is_empty() => {
            return Err(SettingsError::TrustedProxiesMissing);
        }
        AuthMode::TrustedProxy if config.auth.trusted_proxy.is_none() => return Err(SettingsError::UserHeaderMissing),
        AuthMode::TrustedProxy | AuthMode::None => {}
    }
    let open = match auth_mode.value {
        AuthMode::None => true,
        AuthMode::Token => token.is_none(),
        AuthMode::Password | AuthMode::TrustedProxy => false,
    };
    if bind.value.leaves_loopback() && open {
        return Err(SettingsError::Unauthenticated { bind: bind.value });
    }

    let tailscale = tailscale_flag
        .or_else(|| config.source("gateway.tailscale.mode").map(|s| Sourced::new(config.tailscale.mode, s.clone())))
        .unwrap_or(Sourced::new(TailscaleMode::Off, Source::Default));
    if tailscale.value != TailscaleMode::Off && bind.value != BindMode::Loopback {
        return Err(SettingsError::TailscaleBind { mode: tailscale.value, bind: bind.value });
    }
    if tailscale.value == TailscaleMode::Funnel && auth_mode.value != AuthMode::Password {
        return Err(SettingsError::FunnelNeedsPassword);
    }
    refuse_shared_hook_token(doc, &context, [&token, &password])?;

    let mut config = config;
    config.tailscale.mode = tailscale.value;
    config.tailscale.reset_on_exit |= flags.tailscale_reset_on_exit;
    let millis = |name| env_choice(env, name, |t| t.parse::<u64>().ok().filter(|n| *n > 0), "milliseconds above 0");
    let handshake_timeout = millis(env::OPENCLAW_HANDSHAKE_TIMEOUT_MS)?
        .map(|found| Duration::from_millis(found.value))
        .or(config.handshake_timeout);
    let max_preauth = env_choice(
        env,
        env::OPENCLAW_MAX_PREAUTH_CONNECTIONS_PER_IP,
        |t| t.parse::<usize>().ok().filter(|n| *n > 0),
        "a number above 0",
    )?;
    Ok(ServerSettings {
        bind,
        port,
        auth_mode,
        token,
        password,
        needs_generated_token,
        tailscale,
        handshake_timeout,
        max_preauth_connections_per_ip: max_preauth.map(|found| found.value),
        config,
        warnings: validation.warnings.iter().map(ToString::to_string).collect(),
    })
}

/// The port clients on this machine use: environment, config, default. A broken variable is passed over here, since a
/// client says more by trying.
pub fn client_port(env: &Env, config: &GatewayConfig, paths: &Paths) -> Sourced<u16> {
    let from_env = env_choice(env, env::OPENCLAW_GATEWAY_PORT, |t| t.parse().ok().filter(|p| *p > 0), "");
    from_env
        .ok()
        .flatten()
        .or_else(|| from_config(config.port, config, "gateway.port"))
        .unwrap_or(Sourced::new(paths.default_port(), Source::Default))
}

/// One source of a secret, not read yet.
struct Offer {
    source: Source,
    given: Given,
}

enum Given {
    Value(Secret),
    Input(SecretInput),
}

impl Offer {
    fn is_blank(&self) -> bool {
        matches!(&self.given, Given::Input(input) if input.is_blank())
    }

    /// Reads the secret and refuses placeholders (security case P-17).
    fn take(&self, context: &SecretContext<'_>) -> Result<Sourced<Secret>, SettingsError> {
        let secret = match &self.given {
            Given::Value(secret) => Some(secret.clone()),
            Given::Input(input) => secret_ref::resolve(input, context).map_err(SettingsError::Secret)?,
        };
        match secret {
            None => Err(SettingsError::Placeholder { key: self.source.key(), what: "empty" }),
            Some(secret) if is_placeholder(secret.expose()) => {
                Err(SettingsError::Placeholder { key: self.source.key(), what: "a placeholder" })
            }
            Some(secret) => Ok(Sourced::new(secret, self.source.clone())),
        }
    }
}

struct Secrets {
    token: Option<Offer>,
    password: Option<Offer>,
}

impl Secrets {
    fn gather(flags: &Flags, env: &Env, config: &GatewayConfig) -> Result<Self, SettingsError> {
        let password_flag = match (trimmed(flags.password.as_ref()), &flags.password_file) {
            (Some(_), Some(_)) => return Err(SettingsError::TwoPasswords),
            (Some(password), None) => Some((password, "--password")),
            (None, Some(file)) => Some((generated::password_file(file)?, "--password-file")),
            (None, None) => None,
        };
        let token_flag = trimmed(flags.token.as_ref()).map(|token| (token, "--token"));
        let offer = |flag: Option<(Secret, &'static str)>, variable: &'static str, input: Option<&SecretInput>| {
            if let Some((secret, name)) = flag {
                return Some(Offer { source: Source::Flag(name), given: Given::Value(secret) });
            }
            if let (Some(value), Some(from)) = (env.get(variable), env.source(variable)) {
                let source = Source::Env { name: variable, from };
                return Some(Offer { source, given: Given::Value(Secret::new(value)) });
            }
            input.map(|input| Offer {
                source: Source::Config { path: input.path.clone(), at: input.provenance.clone() },
                given: Given::Input(input.clone()),
            })
        };
        Ok(Self {
            token: offer(token_flag, env::OPENCLAW_GATEWAY_TOKEN, config.auth.token.as_ref()),
            password: offer(password_flag, env::OPENCLAW_GATEWAY_PASSWORD, config.auth.password.as_ref()),
        })
    }

    /// The mode: flag, config, else what the secrets imply. Without any secret it is token, never none.
    fn mode(
        &self,
        flag: Option<Sourced<AuthMode>>,
        config: &GatewayConfig,
    ) -> Result<Sourced<AuthMode>, SettingsError> {
        if let Some(mode) = flag.or_else(|| from_config(config.auth.mode, config, "gateway.auth.mode")) {
            return Ok(mode);
        }
        let offered = |offer: &Option<Offer>| offer.as_ref().map(|o| (o.source.clone(), o.is_blank()));
        match (offered(&self.token), offered(&self.password)) {
            (Some((token, false)), Some((password, false))) => match (&token, &password) {
                // A flag says what its user wants now.
                (Source::Flag(_), Source::Flag(_)) => Err(SettingsError::AmbiguousAuth),
                (Source::Flag(_), _) => Ok(Sourced::new(AuthMode::Token, token)),
                (_, Source::Flag(_)) => Ok(Sourced::new(AuthMode::Password, password)),
                _ => Err(SettingsError::AmbiguousAuth),
            },
            (None | Some((_, true)), Some((password, false))) => Ok(Sourced::new(AuthMode::Password, password)),
            (None, Some((password, true))) => Ok(Sourced::new(AuthMode::Password, password)),
            (Some((token, _)), _) => Ok(Sourced::new(AuthMode::Token, token)),
            (None, None) => Ok(Sourced::new(AuthMode::Token, Source::Default)),
        }
    }
}

/// Refuses a hook token that is also the gateway's secret (security case P-20).
fn refuse_shared_hook_token(
    doc: &Document,
    context: &SecretContext<'_>,
    secrets: [&Option<Sourced<Secret>>; 2],
) -> Result<(), SettingsError> {
    let Some(input) = SecretInput::read(doc, "hooks.token") else { return Ok(()) };
    let Ok(Some(hook)) = secret_ref::resolve(&input, context) else { return Ok(()) };
    match secrets.into_iter().flatten().find(|secret| secret.value == hook) {
        Some(same) => Err(SettingsError::HookToken { key: same.source.key() }),
        None => Ok(()),
    }
}

/// Texts that stand where a secret should be: leftovers of templates and of failed substitution. Compared without
/// case and without the brackets people put around them.
fn is_placeholder(secret: &str) -> bool {
    const WORDS: &[&str] = &[
        "changeme",
        "change-me",
        "change_me",
        "change me",
        "change-this",
        "replaceme",
        "replace-me",
        "replace_me",
        "undefined",
        "null",
        "nil",
        "none",
        "nan",
        "true",
        "false",
        "[object object]",
        "todo",
        "tbd",
        "xxx",
        "placeholder",
        "your-token",
        "your_token",
        "your token",
        "yourtoken",
        "your-token-here",
        "your_token_here",
        "your-password",
        "your_password",
        "your password",
        "yourpassword",
        "your-secret",
        "your-gateway-token",
        "__openclaw_redacted__",
        "redacted",
    ];
    let text = secret.trim().to_lowercase();
    let bare = text.trim_matches(|c| matches!(c, '<' | '>' | '"' | '\'' | '`'));
    let substitution = text.starts_with("${") && text.ends_with('}') || text.starts_with("{{") && text.ends_with("}}");
    bare.is_empty() || WORDS.contains(&bare) || substitution || text.bytes().all(|b| b == b'*')
}

fn trimmed(secret: Option<&Secret>) -> Option<Secret> {
    secret.and_then(|secret| Secret::from_input(secret.expose()))
}

fn choice<T>(
    given: Option<&str>,
    flag: &'static str,
    parse: impl Fn(&str) -> Option<T>,
    error: SettingsError,
) -> Result<Option<Sourced<T>>, SettingsError> {
    match given.map(str::trim).filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => parse(text).map(|value| Some(Sourced::new(value, Source::Flag(flag)))).ok_or(error),
    }
}

fn port_flag(given: Option<&str>) -> Result<Option<Sourced<u16>>, SettingsError> {
    choice(given, "--port", |text| text.parse().ok(), SettingsError::PortFlag)
}

fn env_choice<T>(
    env: &Env,
    name: &'static str,
    parse: impl Fn(&str) -> Option<T>,
    expected: &'static str,
) -> Result<Option<Sourced<T>>, SettingsError> {
    let (Some(text), Some(from)) = (env.get(name), env.source(name)) else { return Ok(None) };
    let value = parse(text).ok_or(SettingsError::Variable { name, expected })?;
    Ok(Some(Sourced::new(value, Source::Env { name, from })))
}

fn from_config<T>(value: Option<T>, config: &GatewayConfig, path: &str) -> Option<Sourced<T>> {
    Some(Sourced::new(value?, config.source(path)?.clone()))
}

#[cfg(test)]
mod tests;
