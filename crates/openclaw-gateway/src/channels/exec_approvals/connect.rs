//! The monitor's own connection to the gateway, by the contract of every client: what to connect to and what to send is
//! decided by `openclaw_config::credentials` (checklist S-072, S-253). A secret that is configured and cannot be read is an
//! error and no reason to try another one.

use std::{sync::Arc, time::Duration};

use openclaw_config::{
    GatewayConfig, Paths,
    credentials::{self, ClientFlags, Surface, UrlSource},
    secret_ref::SecretContext,
    settings::Flags,
};
use openclaw_remote::{
    connect::{DeviceUse, Persona, Secrets},
    route::Tunnels,
    session::Setup,
    store::IdentityStore,
    target::Target,
};

/// For one attempt to connect.
const PATIENCE: Duration = Duration::from_secs(15);
/// Sees every question and may answer it.
const SCOPES: [&str; 2] = ["operator.admin", "operator.approvals"];

/// Settles target and credentials. `port` is that of this gateway, `flags` its own command line. Blocks: secrets may come
/// from programs.
///
/// # Errors
/// Why nothing is sent, and what to do, for the owner.
pub fn setup(context: SecretContext<'_>, flags: &Flags, port: u16) -> Result<Setup, String> {
    let config =
        GatewayConfig::read(context.doc).map_err(|_| "the section gateway of the config is not valid".to_owned())?;
    // The saved connection a person chose for the command line is not meant, hence `None`.
    let inputs = credentials::gather(Surface::Call, &ClientFlags::default(), None, &config, context);
    let resolution = credentials::resolve(&inputs).map_err(|error| {
        let fix = error.fix().join(" ");
        format!("{error} {fix}").trim_end().to_owned()
    })?;
    let local = resolution.url_source == UrlSource::LocalLoopback;
    // A secret given to this process on its command line is the one it asks for.
    let own = |secret: &Option<openclaw_protocol::Secret>| secret.clone().filter(|_| local);
    let given = ClientFlags {
        port: local.then_some(port),
        token: own(&flags.token),
        password: own(&flags.password).or_else(|| password_file(flags).filter(|_| local)),
        ..ClientFlags::default()
    };
    let target = Target::resolve(Surface::Call, &given, &config, context).map_err(|error| error.to_string())?;
    let secrets = target.secrets().map_err(ToString::to_string)?;
    let device = if local { DeviceUse::Never } else { DeviceUse::WhenNeeded };
    Ok(plan(target, secrets, device, context.paths))
}

fn plan(target: Target, secrets: Secrets, device: DeviceUse, paths: &Paths) -> Setup {
    let mut params = Persona::Backend("exec-approvals").params(&SCOPES);
    params.caps = vec!["exec-approvals".to_owned()];
    Setup {
        // The credential is proven on every connection, so the owner's socket, which asks for none, is not taken.
        owner: None,
        params,
        secrets: Ok(secrets),
        device,
        stored_tokens: target.may_use_stored_tokens(),
        store: Arc::new(IdentityStore::new(paths.clone())),
        tunnels: Tunnels::new(paths).expecting(target.pin_behind_ssh),
        patience: PATIENCE,
        route: target.route,
    }
}

fn password_file(flags: &Flags) -> Option<openclaw_protocol::Secret> {
    let bytes = openclaw_config::files::read_private(flags.password_file.as_ref()?, 4096).ok()??;
    openclaw_protocol::Secret::from_input(&String::from_utf8(bytes).ok()?)
}

#[cfg(test)]
mod tests {
    use openclaw_config::{Document, Env, Profile};
    use openclaw_protocol::Secret;

    use super::*;

    /// What would be sent, and where.
    fn resolve(config: &str, vars: &[(&str, &str)], flags: &Flags) -> Result<(String, Option<String>), String> {
        let dir = tempfile::tempdir().expect("dir");
        let state = dir.path().to_str().expect("path").to_owned();
        let env = Env::from_pairs(vars.iter().copied().chain([("OPENCLAW_STATE_DIR", state.as_str())]));
        let paths = Paths::resolve(&env, Profile::Default).expect("paths");
        let doc = Document::from_text(config, &paths, &env).expect("config");
        let setup = setup(SecretContext { env: &env, doc: &doc, paths: &paths }, flags, 19_001)?;
        let secrets = setup.secrets.expect("secrets");
        let sent = secrets.token.or(secrets.password).map(|secret| secret.expose().to_owned());
        Ok((setup.route.best().map(|path| path.shown()).unwrap_or_default(), sent))
    }

    #[test]
    fn s_253_the_monitor_sends_what_the_contract_says() {
        let none = Flags::default();
        let check = |config: &str, vars: &[(&str, &str)], flags: &Flags, url: &str, sent: Option<&str>| {
            let (to, secret) = resolve(config, vars, flags).expect(config);
            assert_eq!((to.trim_end_matches('/'), secret.as_deref()), (url, sent), "{config} {vars:?}");
        };
        let here = "ws://127.0.0.1:19001";
        check("{gateway:{auth:{token:'CT'}}}", &[], &none, here, Some("CT"));
        // S-077: the environment first.
        check("{gateway:{auth:{token:'CT'}}}", &[("OPENCLAW_GATEWAY_TOKEN", "ET")], &none, here, Some("ET"));
        check("{gateway:{auth:{mode:'password',password:'CP'}}}", &[], &none, here, Some("CP"));
        check("{gateway:{auth:{mode:'none'}}}", &[], &none, here, None);
        let flags = Flags { token: Some(Secret::new("FT")), ..Flags::default() };
        check("{}", &[], &flags, here, Some("FT"));
        check("{gateway:{auth:{token:'CT'}}}", &[], &flags, here, Some("FT"));
        // S-076: that URL takes only what is beside it, and never the command line's.
        let beside = [("OPENCLAW_GATEWAY_URL", "ws://127.0.0.1:7"), ("OPENCLAW_GATEWAY_TOKEN", "ET")];
        check("{gateway:{auth:{token:'CT'}}}", &beside, &flags, "ws://127.0.0.1:7", Some("ET"));
    }

    #[test]
    fn s_253_an_unresolved_credential_fails_closed() {
        let check = |config: &str, vars: &[(&str, &str)], flags: &Flags, words: &str| {
            let error = resolve(config, vars, flags).expect_err(config);
            assert!(error.contains(words) && error.contains("Fix:"), "{config}: {error}");
        };
        let reference = "{source:'env',provider:'default',id:'NOT_SET'}";
        let unresolved = format!("{{gateway:{{auth:{{mode:'token',token:{reference}}},remote:{{token:'RT'}}}}}}");
        let flags = Flags { token: Some(Secret::new("FT")), ..Flags::default() };
        for flags in [Flags::default(), flags] {
            check(
                &unresolved,
                &[],
                &flags,
                "gateway.auth.token is configured as a secret reference but is unavailable",
            );
        }
        let password = format!("{{gateway:{{auth:{{mode:'password',password:{reference}}}}}}}");
        check(&password, &[("OPENCLAW_GATEWAY_TOKEN", "ET")], &Flags::default(), "gateway.auth.password");
        let url = [("OPENCLAW_GATEWAY_URL", "wss://other.example")];
        check("{gateway:{auth:{token:'CT'}}}", &url, &Flags::default(), "requires explicit credentials");
    }
}
