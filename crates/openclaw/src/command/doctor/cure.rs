//! The one command that cures what was found, with what only the whole picture tells: which source the credential came
//! from, whether ssh leads to the host, what is saved. Each is to be typed as it stands.

use std::time::Duration;

use openclaw_config::{
    AuthMode, BindMode,
    connections::ConnectionName,
    credentials::{Considered, CredentialErrorKind, State},
    settings::SettingsError,
};
use openclaw_protocol::error::Machine;
use openclaw_remote::{
    Deadline, Error as RemoteError, Remedy, TargetError,
    path::GatewayPath,
    rules::RuleError,
    ssh::{Interaction, RemoteCommand, SshFailureKind, SshSpec, run_once},
};
use serde_json::Value;

use crate::{
    command::paths::Entry,
    context::{Context, Loaded},
};

/// How long the far host may take to tell where its gateway listens.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

fn here(what: &str, command: impl Into<String>) -> Option<Remedy> {
    Some(Remedy { what: what.to_owned(), command: command.into(), run_on: Machine::ThisClient })
}

fn there(what: &str, command: impl Into<String>) -> Option<Remedy> {
    Some(Remedy { what: what.to_owned(), command: command.into(), run_on: Machine::GatewayHost })
}

/// For a path that does not work.
pub async fn of_path(loaded: &Loaded, considered: &[Considered], entry: &Entry, error: &RemoteError) -> Option<Remedy> {
    let leading = error.leading();
    let ssh = ssh_target(loaded, entry);
    let saved = entry.name.as_ref();
    let connect = || {
        let spec = ssh.as_ref()?;
        let port = if spec.gateway_port == openclaw_config::paths::DEFAULT_PORT {
            String::new()
        } else {
            format!(" --remote-port {}", spec.gateway_port)
        };
        Some(match saved {
            Some(name) => format!("openclaw connect {}{port} --name {name} --yes", spec.target),
            // The config stays as it is; the connection is chosen over it.
            None => {
                let name = ConnectionName::suggest(spec.target.host())?;
                format!("openclaw connect {}{port} --name {name} && openclaw connections use {name}", spec.target)
            }
        })
    };
    match leading {
        RemoteError::Auth(shape) => {
            let code = shape.detail_code().unwrap_or_default();
            if let Some(variable) = overriding_variable(considered, code) {
                return here("the environment overrides what is configured", format!("unset {variable}"));
            }
            let refused =
                ["AUTH_TOKEN_MISMATCH", "AUTH_TOKEN_MISSING", "AUTH_PASSWORD_MISMATCH", "AUTH_PASSWORD_MISSING"];
            let unknown = ["DEVICE_IDENTITY_REQUIRED", "AUTH_REQUIRED", "AUTH_DEVICE_TOKEN_MISMATCH"];
            if refused.contains(&code) || unknown.contains(&code) {
                return match connect() {
                    Some(command) => here("pair this machine; no shared secret is needed then", command),
                    None => there("get a code that pairs this machine", "openclaw devices invite"),
                };
            }
        }
        RemoteError::WrongGateway { .. } if saved.is_some() => {
            if let Some(command) = connect() {
                return here("if the gateway was set up anew, pair this machine with it again", command);
            }
        }
        RemoteError::Insecure(_) => {
            if let Some(GatewayPath::Direct(direct)) = entry.path() {
                let url = direct.url.with_security(true, direct.url.port());
                return here("use TLS", format!("openclaw config set gateway.remote.url {url}"));
            }
        }
        RemoteError::Ssh(failure) => match failure.kind {
            SshFailureKind::Identity if loaded.gateway.remote.ssh_identity.is_some() => {
                return here("let ssh choose its key", "openclaw config unset gateway.remote.sshIdentity");
            }
            SshFailureKind::GatewayDown => {
                let Some(GatewayPath::Ssh(spec)) = entry.path() else { return None };
                return Some(far_gateway(spec, saved.is_some(), connect()).await);
            }
            _ => {}
        },
        RemoteError::Connect { .. } if entry.target.place.tunnel => {
            if let Some(spec) = &ssh {
                let port = entry.target.url.port();
                let far = if spec.gateway_port == 18789 {
                    String::new()
                } else {
                    format!(" --gateway-port {}", spec.gateway_port)
                };
                return here("open the tunnel", format!("openclaw tunnel up {} --port {port}{far}", spec.target));
            }
        }
        _ => {}
    }
    error.remedy(&entry.target.place)
}

/// ssh to the gateway's host, where the path or the config knows it.
fn ssh_target(loaded: &Loaded, entry: &Entry) -> Option<SshSpec> {
    if let Some(spec) = entry.siblings.iter().chain(entry.path()).find_map(|path| match path {
        GatewayPath::Ssh(spec) => Some(spec.clone()),
        GatewayPath::Direct(_) => None,
    }) {
        return Some(spec);
    }
    let remote = &loaded.gateway.remote;
    let target = remote.ssh_target.as_deref()?.parse().ok()?;
    let port = remote.remote_port.unwrap_or(openclaw_config::paths::DEFAULT_PORT);
    Some(SshSpec { gateway_port: port, ..SshSpec::new(target) })
}

/// The variable whose secret was refused while another, different one is configured.
fn overriding_variable(considered: &[Considered], code: &str) -> Option<&'static str> {
    let field = match code {
        "AUTH_TOKEN_MISMATCH" => "token",
        "AUTH_PASSWORD_MISMATCH" => "password",
        _ => return None,
    };
    let rows = || considered.iter().filter(|row| row.field == field);
    let used = rows().find(|row| row.state == State::Used)?;
    let variable = used.name.strip_prefix("env:")?;
    let other = rows().any(|row| {
        matches!(row.state, State::Ignored(_)) && row.fingerprint.is_some() && row.fingerprint != used.fingerprint
    });
    other.then_some(variable)
}

/// ssh works and the port does not: the far host is asked where its gateway is.
async fn far_gateway(spec: &SshSpec, saved: bool, connect: Option<String>) -> Remedy {
    let start = Remedy {
        what: "start the gateway".to_owned(),
        command: match spec.gateway_port {
            openclaw_config::paths::DEFAULT_PORT => "openclaw gateway".to_owned(),
            port => format!("openclaw gateway --port {port}"),
        },
        run_on: Machine::GatewayHost,
    };
    let ask = RemoteCommand::new(["openclaw", "gateway", "status", "--json", "--no-probe"]);
    let Ok(output) = run_once(spec, &ask, b"", Interaction::Batch, Deadline::after(ASK_TIMEOUT)).await else {
        return start;
    };
    let Ok(status) = serde_json::from_slice::<Value>(&output.stdout) else { return start };
    let port = status["gateway"]["port"].as_u64().filter(|_| status["runtime"]["status"] == "running");
    let Some(port) = port.filter(|port| *port != u64::from(spec.gateway_port)) else { return start };
    let what = format!("the gateway there listens on port {port}");
    let command = match connect {
        Some(_) if saved => format!("openclaw connect {} --remote-port {port} --yes", spec.target),
        _ => format!("openclaw config set gateway.remote.remotePort {port}"),
    };
    Remedy { what, command, run_on: Machine::ThisClient }
}

/// For a target that cannot even be settled.
pub fn of_target(context: &Context, loaded: &Loaded, error: &TargetError) -> Option<Remedy> {
    match error {
        TargetError::Credentials(error) => match &error.kind {
            CredentialErrorKind::ExplicitCredentialsRequired { url_source_is_env: true } => {
                here("leave the URL to the config", "unset OPENCLAW_GATEWAY_URL")
            }
            CredentialErrorKind::SecretRefUnresolved { path, .. } => {
                here("do without it: this machine can be paired instead", format!("openclaw config unset {path}"))
            }
            CredentialErrorKind::RemoteUrlMissing => {
                let saved = openclaw_config::Connections::new(&context.paths).load().ok();
                let name = saved.and_then(|book| book.connections.into_keys().next());
                match name {
                    Some(name) => here("take the gateway that is saved", format!("openclaw connections use {name}")),
                    None => here("this machine's own gateway is meant", "openclaw config set gateway.mode local"),
                }
            }
            _ => None,
        },
        TargetError::Rule { error, .. } => match error {
            RuleError::SshUrlDirect => here("let ssh carry it", "openclaw config set gateway.remote.transport ssh"),
            RuleError::NoSshTarget => here("connect to the URL", "openclaw config set gateway.remote.transport direct"),
            RuleError::Url(_) if loaded.gateway.remote.ssh_target.is_some() => {
                here("the ssh target alone is enough", "openclaw config unset gateway.remote.url")
            }
            RuleError::SshTarget(_) if loaded.gateway.remote.url.is_some() => {
                here("do without it", "openclaw config unset gateway.remote.sshTarget")
            }
            _ => None,
        },
        TargetError::Pin(_) => here("do without a pin", "openclaw config unset gateway.remote.tlsFingerprint"),
        TargetError::Connections(openclaw_config::connections::ConnectionsError::Unknown { .. }) => {
            here("go back to what the config says", "openclaw connections use --none")
        }
        TargetError::NoPath { name } | TargetError::BadPath { name, .. } => {
            here("forget it, then connect anew", format!("openclaw connections rm {name}"))
        }
        _ => None,
    }
}

/// For a gateway of this machine that would not start.
pub fn of_settings(loaded: &Loaded, error: &SettingsError) -> Option<Remedy> {
    let set = |key: &str, value: &str| here("", format!("openclaw config set {key} {value}"));
    match error {
        SettingsError::RemoteMode => set("gateway.mode", "local"),
        SettingsError::Unauthenticated { .. } if loaded.gateway.auth.mode == Some(AuthMode::None) => {
            set("gateway.auth.mode", "token")
        }
        SettingsError::Unauthenticated { .. } => set("gateway.auth.token", "\"$(openssl rand -hex 32)\""),
        SettingsError::PasswordMissing | SettingsError::AmbiguousAuth | SettingsError::UserHeaderMissing => {
            set("gateway.auth.mode", "token")
        }
        SettingsError::TrustedProxiesMissing => set("gateway.auth.mode", "token"),
        SettingsError::CustomHostMissing | SettingsError::TailscaleBind { .. } => set("gateway.bind", "loopback"),
        SettingsError::FunnelNeedsPassword => set("gateway.tailscale.mode", "serve"),
        SettingsError::Placeholder { key, .. } if key.starts_with("gateway.") => {
            here("", format!("openclaw config set {key} \"$(openssl rand -hex 32)\""))
        }
        SettingsError::Secret(secret) => here("", format!("openclaw config unset {}", secret.path)),
        SettingsError::Variable { name, .. } => here("", format!("unset {name}")),
        SettingsError::InvalidConfig(_) => here("", "openclaw config undo"),
        _ => None,
    }
}

/// For a bind mode that this machine cannot carry out.
pub fn of_bind(mode: BindMode) -> Option<Remedy> {
    if mode == BindMode::Loopback { None } else { here("", "openclaw config set gateway.bind loopback") }
}
