//! Which gateway a node belongs to, and what may be sent there.
//!
//! | named by | secrets that may go there |
//! |---|---|
//! | setup code | its one-time token only |
//! | `--host`, or the gateway of the last run | environment; `gateway.auth.*` if it is this machine; `gateway.remote.*` if it is the configured remote |
//! | config | what `openclaw_config::credentials` gives a node host |
//! | `--on` | environment, once the gateway proved to be the saved one |
//!
//! The node's own token comes before all of these; it is bound to its gateway by address or identity.

use std::sync::Mutex;

use openclaw_config::{
    Mode,
    credentials::{ClientFlags, Surface},
    env,
};
use openclaw_node::{
    host::Home,
    settings::{NodeSettings, SavedGateway},
};
use openclaw_protocol::{GatewayId, Secret, SetupCode};
use openclaw_remote::{
    Fingerprint, GatewayPath, GatewayUrl, Place, Route, Target,
    connect::Secrets,
    route::Tunnels,
    ssh::{SshSpec, SshTarget},
    tls,
};

use super::args::NodeOptions;
use crate::{
    context::{Context, Loaded},
    failure::Failure,
    output::inert,
};

/// A gateway's usual port.
const PORT: u16 = 18_789;

/// A gateway to be a node of.
pub struct Found {
    pub home: Home,
    pub place: Place,
    /// For the settings, so that the next run finds it; `None` where the config or a saved connection named it.
    pub saved: Option<SavedGateway>,
    /// For people.
    pub shown: String,
}

/// Settles it. Sends nothing.
pub fn find(
    context: &Context,
    loaded: &Loaded,
    options: &NodeOptions,
    settings: &NodeSettings,
    code: Option<(SetupCode, bool)>,
) -> Result<Found, Failure> {
    let given = options.host.is_some() || options.port.is_some() || options.context_path.is_some();
    let named = given || options.tls || options.no_tls || options.tls_fingerprint.is_some();
    match code {
        Some((code, only_if_needed)) => by_code(context, options, named, &code, only_if_needed),
        None if named => by_address(context, loaded, address(options, settings.gateway.as_ref())),
        None if context.on.is_none() => match settings.gateway.clone().filter(|gateway| gateway.host.is_some()) {
            Some(gateway) => by_address(context, loaded, gateway),
            None => by_config(context, loaded),
        },
        None => by_config(context, loaded),
    }
}

/// The options over what was saved. Another host or port is another gateway: nothing else of the old one holds then.
fn address(options: &NodeOptions, saved: Option<&SavedGateway>) -> SavedGateway {
    let moved = |saved: &SavedGateway| {
        options.host.as_ref().is_some_and(|host| saved.host.as_ref() != Some(host))
            || options.port.is_some_and(|port| saved.port != Some(port))
    };
    let base = saved.filter(|saved| !moved(saved)).cloned().unwrap_or_default();
    SavedGateway {
        host: options.host.clone().or(base.host),
        port: options.port.or(base.port),
        tls: !options.no_tls && (options.tls || options.tls_fingerprint.is_some() || base.tls),
        tls_fingerprint: options.tls_fingerprint.clone().or(base.tls_fingerprint).filter(|_| !options.no_tls),
        context_path: options.context_path.clone().or(base.context_path),
        gateway_id: base.gateway_id,
    }
}

fn by_config(context: &Context, loaded: &Loaded) -> Result<Found, Failure> {
    let flags = ClientFlags { on: context.on.clone(), ..ClientFlags::default() };
    let target = resolve(context, loaded, &flags)?;
    let mut secrets = secrets_of(&target)?;
    if target.route.name.is_some() && target.route.gateway.is_some() && secrets.is_empty() {
        // A saved gateway that has to prove itself first may be shown what was put into the environment for it.
        secrets = from_environment(context).unwrap_or_default();
    }
    let shown = inert(&target.shown()).into_owned();
    let (route, place) = (target.route, target.place);
    Ok(Found { home: home(context, route, secrets, None, false), place, saved: None, shown })
}

fn by_address(context: &Context, loaded: &Loaded, gateway: SavedGateway) -> Result<Found, Failure> {
    let host = gateway.host.clone().unwrap_or_else(|| "127.0.0.1".to_owned());
    let identity = gateway.gateway_id.as_deref().and_then(GatewayId::parse);
    let (path, secrets) = if SshTarget::is_url(&host) {
        let target: SshTarget = host.parse().map_err(|error| Failure::new(format!("--host: {error}.")))?;
        let mut spec = SshSpec::new(target);
        spec.gateway_port = gateway.port.unwrap_or(PORT);
        // The far end is the gateway's own host; its shared secret may have been put into the environment for it.
        (GatewayPath::Ssh(spec), from_environment(context).unwrap_or_default())
    } else {
        let url = url(&host, &gateway)?;
        let mut path = GatewayPath::direct(url.clone());
        if let GatewayPath::Direct(direct) = &mut path {
            direct.allow_private_names = context.env.process_flag(env::OPENCLAW_ALLOW_INSECURE_PRIVATE_WS);
            direct.pin = match &gateway.tls_fingerprint {
                Some(text) => Some(pin(text)?),
                // This machine's own gateway is known by its certificate file.
                None if url.is_loopback() && url.is_secure() => tls::local_pin(&loaded.gateway, &context.paths),
                None => None,
            };
        }
        let secrets = secrets_for(context, loaded, &url)?;
        (path, secrets)
    };
    let shown = inert(&path.shown()).into_owned();
    let place = place(&path);
    let route = Route { gateway: identity, ..Route::single(path) };
    let saved = SavedGateway { host: Some(host), ..gateway };
    Ok(Found { home: home(context, route, secrets, None, false), place, saved: Some(saved), shown })
}

fn by_code(
    context: &Context,
    options: &NodeOptions,
    named: bool,
    code: &SetupCode,
    only_if_needed: bool,
) -> Result<Found, Failure> {
    let expired = code.expires_at_ms.is_some_and(|at| at < crate::output::time::now_ms());
    if expired && !only_if_needed {
        return Err(Failure::new("This setup code has expired.")
            .detail("Nothing was sent. (If the clocks of the two machines differ much, set this one right.)"));
    }
    let mut gateway = SavedGateway {
        gateway_id: code.gateway_id.as_ref().map(|id| id.as_str().to_owned()),
        tls_fingerprint: code.tls_fingerprint.clone(),
        ..SavedGateway::default()
    };
    let mut urls = Vec::new();
    if named {
        // What stands on the command line comes before what the code says; its pin belongs to its own addresses.
        let over = SavedGateway { tls_fingerprint: None, ..gateway.clone() };
        gateway = address(options, Some(&over));
        let host = gateway.host.clone().unwrap_or_else(|| "127.0.0.1".to_owned());
        urls.push(url(&host, &gateway)?);
    } else {
        for text in &code.urls {
            let url = GatewayUrl::parse(text)
                .map_err(|error| Failure::new(format!("The setup code is unusable: {error}.")))?;
            urls.push(url);
        }
    }
    let pin = gateway.tls_fingerprint.as_deref().map(pin).transpose()?;
    let paths: Vec<GatewayPath> = urls
        .iter()
        .map(|url| {
            let mut path = GatewayPath::direct(url.clone());
            if let GatewayPath::Direct(direct) = &mut path {
                direct.pin = pin.filter(|_| url.is_secure());
                direct.allow_private_names = context.env.process_flag(env::OPENCLAW_ALLOW_INSECURE_PRIVATE_WS);
            }
            path
        })
        .collect();
    let first = urls.first().ok_or_else(|| Failure::new("The setup code names no gateway."))?;
    gateway.host = Some(first.host().to_string());
    gateway.port = Some(first.port());
    gateway.tls = first.is_secure();
    gateway.context_path = Some(first.path().to_owned()).filter(|path| path != "/");
    let place = paths.first().map(place).unwrap_or_default();
    let shown = inert(&first.to_string()).into_owned();
    let route = Route { name: None, gateway: code.gateway_id.clone(), paths };
    let token = Some(code.bootstrap_token.clone());
    let home = home(context, route, Secrets::default(), token, only_if_needed);
    Ok(Found { home, place, saved: Some(gateway), shown })
}

fn home(context: &Context, route: Route, secrets: Secrets, code: Option<Secret>, only_if_needed: bool) -> Home {
    Home {
        route,
        secrets,
        bootstrap: Mutex::new(code),
        code_only_if_needed: only_if_needed,
        tunnels: Tunnels::new(&context.paths),
        ssh_dir: context.paths.state_dir.join("ssh"),
    }
}

fn url(host: &str, gateway: &SavedGateway) -> Result<GatewayUrl, Failure> {
    let host = host.trim();
    // A bare IPv6 address is written without brackets everywhere else.
    let host = if host.parse::<std::net::Ipv6Addr>().is_ok() { format!("[{host}]") } else { host.to_owned() };
    if host.contains("://") || host.contains('/') {
        return Err(Failure::new(
            "--host takes a host name or address; a URL is given as --host, --port, --tls and --context-path.",
        ));
    }
    let scheme = if gateway.tls { "wss" } else { "ws" };
    let path = gateway.context_path.as_deref().map(str::trim).unwrap_or_default();
    let path = if path.is_empty() || path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let text = format!("{scheme}://{host}:{}{path}", gateway.port.unwrap_or(PORT));
    GatewayUrl::parse(&text).map_err(|error| Failure::new(format!("Unusable gateway address: {error}.")))
}

fn pin(text: &str) -> Result<Fingerprint, Failure> {
    text.parse().map_err(|error| Failure::new(format!("--tls-fingerprint: {error}.")))
}

fn resolve(context: &Context, loaded: &Loaded, flags: &ClientFlags) -> Result<Target, Failure> {
    let at = crate::args::PortTargetArgs::default();
    Target::resolve(Surface::NodeHost, flags, &loaded.gateway, context.secrets(&loaded.document))
        .map_err(|error| context.no_target(&error, &at))
}

fn secrets_of(target: &Target) -> Result<Secrets, Failure> {
    target.secrets().map_err(|error| Failure::new(error.to_string()).error_code(error.code()))
}

/// The shared secrets for an address that was given or saved. A secret of this machine's config goes to this machine or
/// to the remote gateway it is for, and nowhere else.
fn secrets_for(context: &Context, loaded: &Loaded, url: &GatewayUrl) -> Result<Secrets, Failure> {
    let at = crate::args::PortTargetArgs::default();
    if loaded.gateway.effective_mode() == Mode::Remote {
        let flags = ClientFlags::default();
        let remote =
            Target::configured_remote(Surface::NodeHost, &flags, &loaded.gateway, context.secrets(&loaded.document))
                .map_err(|error| context.no_target(&error, &at))?;
        if let Some(remote) = remote.filter(|remote| remote.url.origin() == url.origin()) {
            return secrets_of(&remote);
        }
    }
    if let Some(secrets) = from_environment(context) {
        return Ok(secrets);
    }
    if !url.is_loopback() {
        return Ok(Secrets::default());
    }
    secrets_of(&resolve(context, loaded, &ClientFlags { port: Some(url.port()), ..ClientFlags::default() })?)
}

fn from_environment(context: &Context) -> Option<Secrets> {
    let secret = |name: &str| context.env.get(name).and_then(Secret::from_input);
    let secrets =
        Secrets { token: secret(env::OPENCLAW_GATEWAY_TOKEN), password: secret(env::OPENCLAW_GATEWAY_PASSWORD) };
    (!secrets.is_empty()).then_some(secrets)
}

fn place(path: &GatewayPath) -> Place {
    let url = path.far_url();
    let direct = matches!(path, GatewayPath::Direct(_));
    Place {
        local: direct && url.is_loopback(),
        loopback: direct && url.is_loopback(),
        port: url.port(),
        remote_port: url.port(),
        ..Place::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(words: &[&str]) -> NodeOptions {
        use clap::{Args as _, FromArgMatches as _};
        let command = NodeOptions::augment_args(clap::Command::new("node"));
        let matches = command.try_get_matches_from(std::iter::once(&"node").chain(words)).expect("options");
        NodeOptions::from_arg_matches(&matches).expect("options")
    }

    #[test]
    fn another_host_is_another_gateway() {
        let saved = SavedGateway {
            host: Some("gw.lan".into()),
            port: Some(1),
            tls: true,
            tls_fingerprint: Some("aa".into()),
            context_path: Some("/x".into()),
            gateway_id: Some("id".into()),
        };
        let of = |words: &[&str]| address(&options(words), Some(&saved));
        assert_eq!(of(&["--host", "gw.lan"]), saved);
        assert_eq!(of(&["--display-name", "x"]), saved);
        let other = SavedGateway { host: Some("other".into()), ..SavedGateway::default() };
        assert_eq!(of(&["--host", "other"]), other);
        assert_eq!(of(&["--port", "2"]), SavedGateway { port: Some(2), ..SavedGateway::default() });
        let plain = of(&["--no-tls"]);
        assert_eq!((plain.tls, plain.tls_fingerprint), (false, None));
        assert!(of(&["--host", "new", "--tls-fingerprint", "bb"]).tls, "a pin means TLS");
    }

    #[test]
    fn addresses_become_urls() {
        let check = |host: &str, gateway: SavedGateway, expected: Option<&str>| {
            assert_eq!(url(host, &gateway).ok().map(|url| url.to_string()).as_deref(), expected, "{host}");
        };
        let plain = SavedGateway::default;
        check("10.0.0.2", plain(), Some("ws://10.0.0.2:18789"));
        check("::1", SavedGateway { port: Some(7), ..plain() }, Some("ws://[::1]:7"));
        check("gw", SavedGateway { tls: true, context_path: Some("gw".into()), ..plain() }, Some("wss://gw:18789/gw"));
        check("ws://gw", plain(), None);
        check("user@gw", plain(), None);
        check("", plain(), None);
    }
}
