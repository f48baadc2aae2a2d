//! The inputs of the decision, from this machine.

use openclaw_protocol::Secret;

use super::{Configured, EnvInputs, FlagInputs, Inputs, Reading, Surface};
use crate::{
    env,
    gateway::{GatewayConfig, Mode},
    secret_ref::{self, SecretContext, SecretInput, SecretKind},
    settings,
};

/// Target flags of client commands. Blank texts count as not given.
#[derive(Clone, Debug, Default)]
pub struct ClientFlags {
    pub url: Option<String>,
    pub token: Option<Secret>,
    pub password: Option<Secret>,
    /// `--port`: the gateway on this machine at that port, whatever the mode.
    pub port: Option<u16>,
}

/// Collects flags, environment, config and the generated token. SecretRefs are not read yet. A token file that cannot
/// be read counts as absent here; the gateway and `doctor` complain about it.
pub fn gather<'a>(
    surface: Surface,
    flags: &ClientFlags,
    config: &'a GatewayConfig,
    context: SecretContext<'a>,
) -> Inputs<'a> {
    let SecretContext { env, paths, .. } = context;
    let mode = if flags.port.is_some() { Mode::Local } else { config.effective_mode() };
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
            // `--port` names the gateway on this machine; the variable would name another.
            url: text(env::OPENCLAW_GATEWAY_URL).filter(|_| flags.port.is_none()),
            token: secret(env::OPENCLAW_GATEWAY_TOKEN),
            password: secret(env::OPENCLAW_GATEWAY_PASSWORD),
        },
        auth_token: configured(&config.auth.token),
        auth_password: configured(&config.auth.password),
        remote_url: config.remote.url.clone(),
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
