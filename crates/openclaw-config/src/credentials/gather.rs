//! The inputs of the decision, from this machine.

use openclaw_protocol::Secret;

use super::{Configured, ConnectionInput, EnvInputs, FlagInputs, Inputs, Reading, Surface};
use crate::{
    connections::{self, BadName, ConnectionName},
    env,
    gateway::{GatewayConfig, Mode, Transport},
    secret_ref::{self, SecretContext, SecretInput, SecretKind},
    settings,
};

/// What `--on` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum On {
    /// `--on local`: the gateway of this machine, whatever config, environment and current connection say.
    Local,
    Connection(ConnectionName),
}

impl std::str::FromStr for On {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        if text == connections::LOCAL { Ok(Self::Local) } else { text.parse().map(Self::Connection) }
    }
}

/// Target flags of client commands. Blank texts count as not given.
#[derive(Clone, Debug, Default)]
pub struct ClientFlags {
    pub url: Option<String>,
    pub token: Option<Secret>,
    pub password: Option<Secret>,
    /// `--port`: the gateway on this machine at that port, whatever the mode.
    pub port: Option<u16>,
    /// `--on`.
    pub on: Option<On>,
}

impl ClientFlags {
    /// The gateway on this machine is meant, whatever else is set.
    pub fn names_this_machine(&self) -> bool {
        self.port.is_some() || self.on == Some(On::Local)
    }
}

/// Collects flags, environment, config and the generated token. SecretRefs are not read yet. A token file that cannot
/// be read counts as absent here; the gateway and `doctor` complain about it. `current` is the connection chosen by
/// `openclaw connections use`.
pub fn gather<'a>(
    surface: Surface,
    flags: &ClientFlags,
    current: Option<&ConnectionName>,
    config: &'a GatewayConfig,
    context: SecretContext<'a>,
) -> Inputs<'a> {
    let SecretContext { env, paths, .. } = context;
    let here = flags.names_this_machine();
    let mode = if here { Mode::Local } else { config.effective_mode() };
    let port = flags.port.unwrap_or_else(|| settings::client_port(env, config, paths).value);
    let text = |name: &str| env.get(name).map(str::to_owned);
    let secret = |name: &str| env.get(name).map(Secret::new);
    let configured = |input: &'a Option<SecretInput>| configured(input.as_ref(), context);
    let generated = if mode == Mode::Local { settings::read_generated_token(paths).ok().flatten() } else { None };
    Inputs {
        surface,
        mode,
        auth_mode: config.auth.mode,
        flags: FlagInputs { url: flags.url.clone(), token: flags.token.clone(), password: flags.password.clone() },
        env: EnvInputs {
            // `--port` and `--on local` name the gateway on this machine; the variable would name another.
            url: text(env::OPENCLAW_GATEWAY_URL).filter(|_| !here),
            token: secret(env::OPENCLAW_GATEWAY_TOKEN),
            password: secret(env::OPENCLAW_GATEWAY_PASSWORD),
        },
        auth_token: configured(&config.auth.token),
        auth_password: configured(&config.auth.password),
        connection: match &flags.on {
            Some(On::Connection(name)) => Some(ConnectionInput { name: name.clone(), by_flag: true }),
            _ => current.filter(|_| !here).map(|name| ConnectionInput { name: name.clone(), by_flag: false }),
        },
        remote_url: config.remote.url.clone(),
        ssh_target: config.remote.ssh_target.clone().filter(|_| config.remote.transport == Transport::Ssh),
        remote_token: configured(&config.remote.token),
        remote_password: configured(&config.remote.password),
        generated,
        local_url: config.local_url(port),
    }
}

fn configured<'a>(input: Option<&'a SecretInput>, context: SecretContext<'a>) -> Configured<'a> {
    match input {
        None => Configured::Unset,
        Some(SecretInput { kind: SecretKind::Blank, .. }) => Configured::Unset,
        Some(SecretInput { kind: SecretKind::Plain(secret), .. }) => Configured::Value(secret.clone()),
        Some(input) => Configured::Deferred(Box::new(move || match secret_ref::resolve(input, &context) {
            Ok(Some(secret)) => Reading::Value(secret),
            Ok(None) => Reading::Unset,
            Err(error) => Reading::Unresolved(error.reason),
        })),
    }
}
