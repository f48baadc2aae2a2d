//! Which gateway a command means, and what it may send there.
//!
//! Flags, environment, saved connections and config go through `openclaw_config::credentials`, the one place that decides;
//! this file turns the answer into a [`Route`]: the paths to try and the gateway that has to answer (see [`crate::path`]).

use std::path::PathBuf;

use openclaw_config::{
    Connections, EnvSource, GatewayConfig, Mode, SecretContext,
    connections::{Book, ConnectionName, ConnectionsError},
    credentials::{self, ClientFlags, CredentialError, Inputs, On, Resolution, Surface, UrlSource},
    env,
    paths::DEFAULT_PORT,
    secret_ref,
    settings::client_port,
    source::Source,
};
use openclaw_protocol::Secret;
use serde_json::Value;

use crate::{
    connect::Secrets,
    dial::is_owner_socket,
    path::{BadPath, GatewayPath, Route},
    remedy::Place,
    rules::{Means, RuleError, Rules},
    tls::{self, BadFingerprint, Fingerprint},
    url::GatewayUrl,
};

/// Why there is no target. Nothing was sent, not even a name look-up.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// `--url` and `--port` name two places.
    #[error("Use either --url or --port, not both.")]
    UrlAndPort,
    #[error(transparent)]
    Credentials(#[from] Box<CredentialError>),
    /// `--on` names a saved gateway and `--port` the one on this machine.
    #[error("Use either --on or --port, not both.")]
    OnAndPort,
    /// The URL itself may hold a secret and is not repeated.
    #[error("{error}")]
    Rule { from: UrlSource, error: RuleError },
    #[error("gateway.remote.tlsFingerprint: {0}")]
    Pin(BadFingerprint),
    #[error("gateway.remote.edgeAuth is configured but unavailable: {0}")]
    Edge(secret_ref::SecretError),
    #[error(transparent)]
    Connections(#[from] ConnectionsError),
    #[error("the saved connection \"{name}\" has no path to its gateway")]
    NoPath { name: ConnectionName },
    #[error("the saved connection \"{name}\" has a path that cannot be used ({path}): {error}")]
    BadPath { name: ConnectionName, path: String, error: BadPath },
}

/// A gateway to reach.
#[derive(Debug)]
pub struct Target {
    /// How the gateway is addressed: behind ssh the URL at the far host, for a saved connection that of its best path.
    pub url: GatewayUrl,
    /// The URL for people: for an `ssh://` URL that one.
    pub shown_url: String,
    pub source: UrlSource,
    /// The ways there, and who has to answer.
    pub route: Route,
    /// What a gateway behind ssh has to show: the configured pin, where the configured remote is reached so.
    pub pin_behind_ssh: Option<Fingerprint>,
    /// The owner's socket of this profile's gateway, when this call may take it: a local target, and no URL, port or
    /// credential given that would name something else.
    pub owner_socket: Option<PathBuf>,
    /// What to send to the URL. An error is kept only where the owner's socket may make it unnecessary.
    pub credentials: Result<Resolution, Box<CredentialError>>,
    /// For advice when it fails.
    pub place: Place,
    /// Port of the gateway on this machine, and who said so.
    pub local_port: LocalPort,
}

/// A local port and its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPort {
    pub value: u16,
    /// `cli --port`, `env OPENCLAW_GATEWAY_PORT`, `config gateway.port (…)`, `running gateway` or `default`.
    pub source: String,
}

impl Target {
    /// Settles the target of a command.
    ///
    /// # Errors
    /// See [`TargetError`].
    pub fn resolve(
        surface: Surface,
        flags: &ClientFlags,
        config: &GatewayConfig,
        context: SecretContext<'_>,
    ) -> Result<Self, TargetError> {
        let given = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.trim().is_empty());
        if given(&flags.url) && flags.port.is_some() {
            return Err(TargetError::UrlAndPort);
        }
        if matches!(flags.on, Some(On::Connection(_))) && flags.port.is_some() {
            return Err(TargetError::OnAndPort);
        }
        let local_port = local_port(flags, config, context);
        let by_url = given(&flags.url) || (flags.on.is_none() && context.env.get(env::OPENCLAW_GATEWAY_URL).is_some());
        // What names this machine or a URL does not depend on the saved connections, not even on a damaged file of them.
        let book = match by_url || flags.names_this_machine() {
            true => Book::default(),
            false => Connections::new(context.paths).load()?,
        };
        let mut inputs = credentials::gather(surface, flags, book.current.as_ref(), config, context);
        inputs.local_url = config.local_url(local_port.value);
        // Without a URL or a connection, local mode means this machine.
        let is_local = inputs.mode == Mode::Local
            && inputs.connection.is_none()
            && !given(&inputs.flags.url)
            && !given(&inputs.env.url);
        let owner_socket = if is_local { owner_socket(flags, config, context, local_port.value) } else { None };
        let target = Self::from_inputs(&inputs, owner_socket, &book, config, context)?;
        Ok(Self { local_port, ..target })
    }

    /// The configured remote gateway, whatever the mode; `None` without a `gateway.remote.url` or an ssh target in its place.
    /// For probes.
    ///
    /// # Errors
    /// See [`TargetError`].
    pub fn configured_remote(
        surface: Surface,
        flags: &ClientFlags,
        config: &GatewayConfig,
        context: SecretContext<'_>,
    ) -> Result<Option<Self>, TargetError> {
        let mut inputs = credentials::gather(surface, flags, None, config, context);
        if inputs.remote_url.is_none() && inputs.ssh_target.is_none() {
            return Ok(None);
        }
        (inputs.mode, inputs.flags.url, inputs.env.url, inputs.connection) = (Mode::Remote, None, None, None);
        let target = Self::from_inputs(&inputs, None, &Book::default(), config, context)?;
        Ok(Some(Self { local_port: local_port(flags, config, context), ..target }))
    }

    fn from_inputs(
        inputs: &Inputs<'_>,
        owner_socket: Option<PathBuf>,
        book: &Book,
        config: &GatewayConfig,
        context: SecretContext<'_>,
    ) -> Result<Self, TargetError> {
        let credentials = credentials::resolve(inputs);
        let (text, source) = match &credentials {
            Ok(resolution) => (resolution.url.clone(), resolution.url_source),
            Err(_) => (inputs.local_url.clone(), UrlSource::LocalLoopback),
        };
        let credentials = match credentials {
            Err(error) if owner_socket.is_none() => return Err(TargetError::Credentials(error)),
            other => other,
        };
        let mut pin_behind_ssh = None;
        let named = inputs.connection.as_ref().map(|chosen| &chosen.name);
        let (route, url, shown_url) = match (source, named) {
            (UrlSource::On | UrlSource::Current, Some(name)) => {
                let route = saved(name, book, context)?;
                let shown = route.best().map(GatewayPath::shown).unwrap_or_default();
                let url = route.best().map_or_else(|| GatewayUrl::loopback(DEFAULT_PORT), GatewayPath::far_url);
                (route, url, shown)
            }
            _ => {
                let transport_set = config.source("gateway.remote.transport").is_some();
                let rules = Rules { remote: &config.remote, transport_set, paths: context.paths };
                let means = match source {
                    UrlSource::RemoteConfig => rules.configured(&text),
                    UrlSource::SshTarget => rules.ssh_target(&text),
                    _ => rules.given(&text),
                };
                let Means { mut path, url, shown } =
                    means.map_err(|error| TargetError::Rule { from: source, error })?;
                match &mut path {
                    GatewayPath::Direct(direct) => {
                        direct.pin = pin(&url, source, config, context)?;
                        direct.allow_private_names = allow_private_names(context);
                        direct.edge = edge(&url, source, config, context)?;
                    }
                    GatewayPath::Ssh(_) if matches!(source, UrlSource::RemoteConfig | UrlSource::SshTarget) => {
                        pin_behind_ssh = pin(&url, source, config, context)?;
                    }
                    GatewayPath::Ssh(_) => {}
                }
                (Route::single(path), url, shown)
            }
        };
        Ok(Self {
            place: place(&url, &route, source, config),
            local_port: LocalPort { value: url.port(), source: String::new() },
            owner_socket,
            credentials,
            source,
            route,
            pin_behind_ssh,
            url,
            shown_url,
        })
    }

    /// Pin of the certificate of the best path.
    pub fn pin(&self) -> Option<Fingerprint> {
        match self.route.best()? {
            GatewayPath::Direct(path) => path.pin,
            GatewayPath::Ssh(_) => self.pin_behind_ssh,
        }
    }

    /// The target for people: the URL, `… through ssh me@box`, or the name of a connection and its paths.
    pub fn shown(&self) -> String {
        match (&self.route.name, self.route.best()) {
            (Some(name), _) => {
                let paths: Vec<String> = self.route.paths.iter().map(GatewayPath::label).collect();
                format!("{name} ({})", paths.join(", "))
            }
            (None, Some(GatewayPath::Ssh(spec))) if spec.target.url() != self.shown_url => {
                format!("{} through ssh {}", self.shown_url, spec.target)
            }
            _ => self.shown_url.clone(),
        }
    }

    /// Who named the target: `config gateway.remote.url`, `cli --on home`.
    pub fn named_by(&self) -> String {
        match &self.route.name {
            Some(name) => format!("{} {name}", self.source.as_str()),
            None => self.source.as_str().to_owned(),
        }
    }

    /// The shared secrets to prove.
    ///
    /// # Errors
    /// The kept credential error.
    pub fn secrets(&self) -> Result<Secrets, &CredentialError> {
        match &self.credentials {
            Ok(resolution) => Ok(Secrets { token: resolution.token.clone(), password: resolution.password.clone() }),
            Err(error) => Err(error),
        }
    }

    /// Whether a device token kept from an earlier connection may be sent: not where URL or credential were given on
    /// the command line, since those inherit nothing.
    pub fn may_use_stored_tokens(&self) -> bool {
        let explicit =
            |resolution: &Resolution| [resolution.token_source, resolution.password_source].contains(&Some("explicit"));
        self.source != UrlSource::Flag && !self.credentials.as_ref().is_ok_and(explicit)
    }

    /// What a device token for this gateway is kept under.
    pub fn token_origins(&self) -> Vec<String> {
        let of_path = |path: &GatewayPath| match path {
            GatewayPath::Direct(direct) => direct.url.origin(),
            GatewayPath::Ssh(spec) => spec.origin(),
        };
        let by_identity = self.route.gateway.as_ref().map(crate::connect::token_origin);
        by_identity.into_iter().chain(self.route.paths.iter().map(of_path)).collect()
    }

    /// True for the gateway of this machine, named by nothing but the local config.
    pub fn is_local(&self) -> bool {
        self.source == UrlSource::LocalLoopback
    }
}

/// `--port`, environment, config; without any of them where this profile's gateway says that it listens, else the
/// default.
fn local_port(flags: &ClientFlags, config: &GatewayConfig, context: SecretContext<'_>) -> LocalPort {
    if let Some(value) = flags.port {
        return LocalPort { value, source: "cli --port".to_owned() };
    }
    let chosen = client_port(context.env, config, context.paths);
    if chosen.source == Source::Default
        && is_owner_socket(&context.paths.owner_socket())
        && let Some(url) = running_gateway(context.paths).filter(GatewayUrl::is_loopback)
        && url.port() != chosen.value
    {
        return LocalPort { value: url.port(), source: "running gateway".to_owned() };
    }
    LocalPort { value: chosen.value, source: chosen.source.to_string() }
}

/// The pin belongs to `gateway.remote.url`: another origin has another certificate. The gateway of this machine is known
/// by its certificate file.
fn pin(
    url: &GatewayUrl,
    source: UrlSource,
    config: &GatewayConfig,
    context: SecretContext<'_>,
) -> Result<Option<Fingerprint>, TargetError> {
    if source == UrlSource::LocalLoopback {
        return Ok(tls::local_pin(config, context.paths));
    }
    let Some(text) = &config.remote.tls_fingerprint else { return Ok(None) };
    let configured = config.remote.url.as_deref().and_then(|text| GatewayUrl::parse(text).ok());
    let same = matches!(source, UrlSource::RemoteConfig | UrlSource::SshTarget)
        || configured.is_some_and(|remote| remote.origin() == url.origin());
    if !same {
        return Ok(None);
    }
    text.parse().map(Some).map_err(TargetError::Pin)
}

/// The paths of a saved connection, best first.
fn saved(name: &ConnectionName, book: &Book, context: SecretContext<'_>) -> Result<Route, TargetError> {
    let connection = book.find(name)?;
    let usable = |path| {
        GatewayPath::from_saved(path, context.paths, allow_private_names(context)).map_err(|error| {
            // A URL that is no URL may hold anything; its kind tells which one it is.
            let path = path.kind().as_str().to_owned();
            TargetError::BadPath { name: name.clone(), path, error }
        })
    };
    let mut paths = connection.paths.iter().map(usable).collect::<Result<Vec<_>, _>>()?;
    if paths.is_empty() {
        return Err(TargetError::NoPath { name: name.clone() });
    }
    // The order of equals is the owner's.
    paths.sort_by_key(GatewayPath::kind);
    Ok(Route { name: Some(name.clone()), gateway: connection.gateway_id.clone(), paths })
}

fn allow_private_names(context: SecretContext<'_>) -> bool {
    context.env.process_flag(env::OPENCLAW_ALLOW_INSECURE_PRIVATE_WS)
}

/// `gateway.remote.edgeAuth`, for the configured URL and over TLS only. A header that cannot be read stops everything: going
/// without it would only be refused by the edge, with less to say.
fn edge(
    url: &GatewayUrl,
    source: UrlSource,
    config: &GatewayConfig,
    context: SecretContext<'_>,
) -> Result<Vec<(String, Secret)>, TargetError> {
    if source != UrlSource::RemoteConfig || !url.is_secure() {
        return Ok(Vec::new());
    }
    let read = |(name, input): &(String, openclaw_config::SecretInput)| match secret_ref::resolve(input, &context) {
        Ok(secret) => secret.map(|secret| Ok((name.clone(), secret))),
        Err(error) => Some(Err(TargetError::Edge(error))),
    };
    config.remote.edge_auth.iter().filter_map(read).collect()
}

fn place(url: &GatewayUrl, route: &Route, source: UrlSource, config: &GatewayConfig) -> Place {
    // Behind ssh the loopback address is the far host's.
    let ssh = route.paths.iter().find_map(|path| match path {
        GatewayPath::Ssh(spec) => Some(spec),
        GatewayPath::Direct(_) => None,
    });
    let loopback = url.is_loopback() && !matches!(route.best(), Some(GatewayPath::Ssh(_)));
    Place {
        local: source == UrlSource::LocalLoopback,
        loopback,
        tunnel: source == UrlSource::RemoteConfig && loopback,
        port: url.port(),
        remote_port: ssh.map_or(config.remote.remote_port.unwrap_or(url.port()), |spec| spec.gateway_port),
        ssh_target: ssh.map(|spec| spec.target.to_string()).or_else(|| config.remote.ssh_target.clone()),
        source: Some(source),
    }
}

/// The socket, unless the caller named a place or a credential on purpose.
fn owner_socket(flags: &ClientFlags, config: &GatewayConfig, context: SecretContext<'_>, port: u16) -> Option<PathBuf> {
    let secret =
        |secret: &Option<openclaw_protocol::Secret>| secret.as_ref().is_some_and(|s| !s.expose().trim().is_empty());
    if secret(&flags.token) || secret(&flags.password) {
        return None;
    }
    let chosen = client_port(context.env, config, context.paths).source;
    let explicit = flags.port.is_some() || matches!(chosen, Source::Env { from: EnvSource::Process, .. });
    // A port given on purpose has to be the port of this profile's gateway.
    if explicit && running_gateway(context.paths).is_none_or(|url| url.port() != port) {
        return None;
    }
    Some(context.paths.owner_socket()).filter(|path| is_owner_socket(path))
}

/// Where this profile's gateway says that it listens: the note in its lock file. It may be gone by now.
pub fn running_gateway(paths: &openclaw_config::Paths) -> Option<GatewayUrl> {
    let note = openclaw_config::files::read_private(&paths.lock_file(), 4096).ok()??;
    let note: Value = serde_json::from_slice(&note).ok()?;
    GatewayUrl::parse(note.get("url")?.as_str()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use openclaw_config::{Document, Env, Paths, Profile};
    use openclaw_protocol::Secret;

    struct Machine {
        dir: tempfile::TempDir,
        env: Env,
        paths: Paths,
        document: Document,
    }

    impl Machine {
        fn new(config: &str, vars: &[(&str, &str)]) -> Self {
            let dir = tempfile::tempdir().expect("dir");
            let state = dir.path().to_str().expect("path");
            let vars = vars.iter().copied().chain([(env::OPENCLAW_STATE_DIR, state)]);
            let env = Env::from_pairs(vars);
            let paths = Paths::resolve(&env, Profile::Default).expect("paths");
            let document = Document::from_text(config, &paths, &env).expect("config");
            Self { dir, env, paths, document }
        }

        fn resolve(&self, flags: &ClientFlags) -> Result<Target, TargetError> {
            let config = GatewayConfig::read(&self.document).expect("gateway section");
            let context = SecretContext { env: &self.env, doc: &self.document, paths: &self.paths };
            Target::resolve(Surface::Call, flags, &config, context)
        }
    }

    fn url(text: &str) -> ClientFlags {
        ClientFlags { url: Some(text.into()), token: Some(Secret::new("X")), ..ClientFlags::default() }
    }

    #[test]
    fn sources_and_places() {
        let remote = r#"{gateway: {mode: "remote", remote: {url: "ws://127.0.0.1:28000", token: "R", remotePort: 18789,
            sshTarget: "me@box", transport: "direct"}}}"#;
        let target = Machine::new(remote, &[]).resolve(&ClientFlags::default()).expect("target");
        assert_eq!(
            (target.source.as_str(), target.url.to_string()),
            ("config gateway.remote.url", "ws://127.0.0.1:28000".into())
        );
        assert!(target.place.tunnel && !target.place.local && !target.is_local());
        assert_eq!(target.place.tunnel_command(), "ssh -N -L 28000:127.0.0.1:18789 me@box");

        let local = Machine::new("{}", &[]);
        let target = local.resolve(&ClientFlags::default()).expect("target");
        assert_eq!((target.source.as_str(), target.url.to_string()), ("local loopback", "ws://127.0.0.1:18789".into()));
        assert!(target.place.local && target.is_local());
        assert!(matches!(
            local.resolve(&ClientFlags { port: Some(1), ..url("ws://127.0.0.1:2") }),
            Err(TargetError::UrlAndPort)
        ));
        // An empty --url is none (cli.md section 1).
        let target = local.resolve(&ClientFlags { url: Some(" ".into()), port: Some(7), ..ClientFlags::default() });
        assert_eq!(target.expect("target").url.to_string(), "ws://127.0.0.1:7");
    }

    /// The saved connections of most tests.
    const BOOK: &str = r#"{"version":1,"current":"home","connections":{
        "home":{"gatewayId":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","paths":[
            {"kind":"ssh","target":"me@box","gatewayPort":19001},
            {"kind":"lan","url":"ws://192.168.77.10:18789"}]},
        "far":{"paths":[{"kind":"ssh","target":"me@far:2222","gatewayPort":18789}]},
        "empty":{"paths":[]},
        "odd":{"paths":[{"kind":"lan","url":"ws://user:s3cret@x"}]}}}"#;

    fn on(name: &str) -> ClientFlags {
        ClientFlags { on: Some(name.parse().expect(name)), ..ClientFlags::default() }
    }

    #[test]
    fn saved_connections_by_flag_and_as_the_current_one() {
        let remote = r#"{gateway: {mode: "remote", remote: {url: "ws://192.168.0.9:18789", token: "R"}}}"#;
        let machine = Machine::new(remote, &[(env::OPENCLAW_GATEWAY_TOKEN, "E")]);
        std::fs::write(machine.paths.connections_file(), BOOK).expect("book");
        let check = |flags: &ClientFlags, shown: &str, named_by: &str| {
            let target = machine.resolve(flags).expect("target");
            assert_eq!((target.shown().as_str(), target.named_by().as_str()), (shown, named_by));
            target
        };
        let both = "home (lan ws://192.168.77.10:18789, ssh me@box)";
        let current = check(&ClientFlags::default(), both, "openclaw connections use home");
        assert!(current.route.gateway.is_some() && !current.is_local() && !current.place.loopback);
        assert!(current.secrets().is_ok_and(|secrets| secrets.is_empty()) && current.may_use_stored_tokens());
        check(&on("home"), both, "cli --on home");
        let far = check(&on("far"), "far (ssh me@far:2222)", "cli --on far");
        assert_eq!(
            (far.shown_url.as_str(), far.url.to_string().as_str()),
            ("ssh://me@far:2222", "ws://127.0.0.1:18789")
        );
        assert_eq!(far.place.tunnel_command(), "ssh -N -L 18789:127.0.0.1:18789 -p 2222 me@far");
        let given = ClientFlags { token: Some(Secret::new("X")), ..on("far") };
        assert!(!machine.resolve(&given).expect("target").may_use_stored_tokens());
        // --url comes first, and this machine can always be named.
        check(&ClientFlags { on: on("home").on, ..url("ws://127.0.0.1:9") }, "ws://127.0.0.1:9", "cli --url");
        check(&on("local"), "ws://127.0.0.1:18789", "local loopback");
        check(&ClientFlags { port: Some(7), ..ClientFlags::default() }, "ws://127.0.0.1:7", "local loopback");
        assert!(matches!(machine.resolve(&ClientFlags { port: Some(7), ..on("home") }), Err(TargetError::OnAndPort)));
        let refused = |name: &str| machine.resolve(&on(name)).expect_err(name).to_string();
        assert_eq!(refused("hoem"), "no connection is called \"hoem\"; did you mean \"home\"?");
        assert_eq!(refused("empty"), "the saved connection \"empty\" has no path to its gateway");
        assert!(!refused("odd").contains("s3cret"), "a URL that is none is not repeated");
    }

    #[test]
    fn the_variable_stands_between_on_and_the_current_connection() {
        let vars = [(env::OPENCLAW_GATEWAY_URL, "ws://127.0.0.1:9"), (env::OPENCLAW_GATEWAY_TOKEN, "E")];
        let machine = Machine::new("{}", &vars);
        std::fs::write(machine.paths.connections_file(), BOOK).expect("book");
        let source = |flags: &ClientFlags| machine.resolve(flags).expect("target").source;
        assert_eq!(source(&ClientFlags::default()), UrlSource::Env);
        assert_eq!(source(&on("far")), UrlSource::On);
        assert_eq!(source(&on("local")), UrlSource::LocalLoopback);
    }

    /// A file that cannot be read might name another gateway, so it stops what would look there and nothing else.
    #[test]
    fn a_damaged_book_stops_what_depends_on_it() {
        let machine = Machine::new("{}", &[]);
        std::fs::write(machine.paths.connections_file(), "{").expect("book");
        assert!(matches!(machine.resolve(&ClientFlags::default()), Err(TargetError::Connections(_))));
        assert!(matches!(machine.resolve(&on("home")), Err(TargetError::Connections(_))));
        for flags in [on("local"), url("ws://127.0.0.1:9"), ClientFlags { port: Some(7), ..ClientFlags::default() }] {
            assert!(machine.resolve(&flags).is_ok(), "{flags:?}");
        }
    }

    #[test]
    fn s_058_s_059_remote_mode_through_ssh() {
        let machine =
            |remote: &str| Machine::new(&format!("{{gateway: {{mode: 'remote', remote: {{{remote}}}}}}}"), &[]);
        let target = |remote: &str| machine(remote).resolve(&ClientFlags::default()).expect("target");
        let by_target = target("url: 'ws://127.0.0.1:18789', sshTarget: 'me@box', token: 'R'");
        assert_eq!(by_target.shown(), "ws://127.0.0.1:18789 through ssh me@box");
        assert_eq!((by_target.source, by_target.place.tunnel), (UrlSource::RemoteConfig, false));
        assert!(by_target.secrets().is_ok_and(|secrets| secrets.token.is_some()));
        let alone = target("sshTarget: 'me@box', token: 'R'");
        assert_eq!((alone.shown().as_str(), alone.source), ("ssh://me@box", UrlSource::SshTarget));
        assert_eq!(target("url: 'ssh://me@box:2222'").shown(), "ssh://me@box:2222");
        let owners = target("url: 'ws://127.0.0.1:18789'");
        assert!(owners.place.tunnel, "a tunnel its owner keeps open");
        for (remote, expected) in [
            ("url: 'ssh://me@box', transport: 'direct'", "transport is \"direct\""),
            ("url: 'ws://10.0.0.1:1', transport: 'ssh'", "no gateway.remote.sshTarget"),
            ("transport: 'direct', sshTarget: 'me@box'", "gateway.remote.url missing"),
            ("token: 'R'", "gateway.remote.url missing"),
        ] {
            let error = machine(remote).resolve(&ClientFlags::default()).expect_err(remote).to_string();
            assert!(error.contains(expected), "{remote}: {error}");
        }
    }

    /// S-048…S-050 hold for ssh as well: the host is proven, the gateway behind it still asks.
    #[test]
    fn s_049_an_ssh_url_needs_its_own_credentials() {
        let machine = Machine::new("{gateway: {auth: {token: 'C'}}}", &[(env::OPENCLAW_GATEWAY_TOKEN, "E")]);
        let bare = ClientFlags { url: Some("ssh://me@box".into()), ..ClientFlags::default() };
        let refused = machine.resolve(&bare).expect_err("refused");
        assert!(matches!(&refused, TargetError::Credentials(error) if error.code() == "explicit-credentials-required"));
        assert_eq!(machine.resolve(&url("ssh://me@box")).expect("target").shown(), "ssh://me@box");
    }

    #[test]
    fn the_pin_goes_with_the_configured_remote_behind_ssh() {
        let pin = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let config = format!(
            r#"{{gateway: {{mode: "remote", remote: {{url: "wss://127.0.0.1:18789", sshTarget: "me@box", token: "R",
                tlsFingerprint: "{pin}"}}}}}}"#
        );
        let machine = Machine::new(&config, &[]);
        let behind = |flags: &ClientFlags| machine.resolve(flags).expect("target").pin_behind_ssh;
        assert_eq!(behind(&ClientFlags::default()).map(|pin| pin.to_string()).as_deref(), Some(pin));
        assert_eq!(behind(&url("ssh://other")), None);
    }

    #[test]
    fn edge_headers_are_for_the_configured_url_over_tls() {
        let config = |url: &str| {
            format!(
                r#"{{gateway: {{mode: "remote", remote: {{url: "{url}", token: "R",
                    edgeAuth: {{"CF-Access-Client-Id": "id", "CF-Access-Client-Secret": {{source: "env", id: "EDGE"}}}}}}}}}}"#
            )
        };
        let names = |target: &Target| match target.route.best() {
            Some(GatewayPath::Direct(path)) => {
                path.edge.iter().map(|(name, value)| format!("{name}={}", value.expose())).collect::<Vec<_>>()
            }
            _ => Vec::new(),
        };
        let wss = Machine::new(&config("wss://gw.example.com"), &[("EDGE", "es")]);
        let both = ["CF-Access-Client-Id=id", "CF-Access-Client-Secret=es"];
        assert_eq!(names(&wss.resolve(&ClientFlags::default()).expect("target")), both);
        assert!(names(&wss.resolve(&url("wss://gw.example.com")).expect("target")).is_empty(), "by flag");
        let plain = Machine::new(&config("ws://192.168.0.9:18789"), &[]);
        assert!(
            names(&plain.resolve(&ClientFlags::default()).expect("target")).is_empty(),
            "not over TLS, not even read"
        );
        let unset = Machine::new(&config("wss://gw.example.com"), &[]);
        assert!(matches!(unset.resolve(&ClientFlags::default()), Err(TargetError::Edge(_))));
    }

    #[test]
    fn s_045_to_s_047_the_port_moves_the_target() {
        let port = |config: &str, vars: &[(&str, &str)]| {
            Machine::new(config, vars).resolve(&ClientFlags::default()).expect("target").url.port()
        };
        assert_eq!(port("{gateway: {port: 20001}}", &[]), 20001);
        assert_eq!(port("{gateway: {port: 20001}}", &[(env::OPENCLAW_GATEWAY_PORT, "20002")]), 20002);
        assert_eq!(port("{}", &[("CLAWDBOT_GATEWAY_PORT", "20003")]), 18789);
    }

    #[test]
    fn the_pin_stays_with_its_url() {
        let pin = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let config = |pin: &str| {
            format!(
                r#"{{gateway: {{mode: "remote", remote: {{url: "wss://gw.example.com", tlsFingerprint: "{pin}"}}}}}}"#
            )
        };
        let machine = Machine::new(&config(pin), &[]);
        let shown = |flags: &ClientFlags| machine.resolve(flags).expect("target").pin().map(|pin| pin.to_string());
        assert_eq!(shown(&ClientFlags::default()).as_deref(), Some(pin));
        assert_eq!(shown(&url("https://gw.example.com/ui")).as_deref(), Some(pin), "the same origin");
        assert_eq!(shown(&url("wss://other.example.com")), None);
    }

    #[test]
    fn the_owners_socket_is_for_plain_local_calls() {
        let machine = |vars: &[(&str, &str)]| {
            let machine = Machine::new("{}", vars);
            let socket = std::os::unix::net::UnixListener::bind(machine.paths.owner_socket()).expect("socket");
            (machine, socket)
        };
        let taken =
            |machine: &Machine, flags: &ClientFlags| machine.resolve(flags).expect("target").owner_socket.is_some();
        let (plain, _socket) = machine(&[]);
        let none = ClientFlags::default;
        assert!(taken(&plain, &none()));
        assert!(!taken(&plain, &url("ws://127.0.0.1:18789")));
        assert!(!taken(&plain, &ClientFlags { token: Some(Secret::new("X")), ..none() }));
        assert!(taken(&plain, &ClientFlags { token: Some(Secret::new(" ")), ..none() }), "blank is none");
        assert!(!taken(&plain, &ClientFlags { port: Some(18789), ..none() }), "nobody says that it is there");

        std::fs::write(plain.paths.lock_file(), r#"{"pid":1,"url":"ws://127.0.0.1:18789"}"#).expect("note");
        assert!(taken(&plain, &ClientFlags { port: Some(18789), ..none() }));
        assert!(!taken(&plain, &ClientFlags { port: Some(18790), ..none() }));
        // Nobody configured a port: the gateway's own word is better than the default.
        std::fs::write(plain.paths.lock_file(), r#"{"pid":1,"url":"ws://127.0.0.1:20007"}"#).expect("note");
        let followed = plain.resolve(&none()).expect("target");
        assert_eq!((followed.url.port(), followed.local_port.source.as_str()), (20007, "running gateway"));
        drop(plain);

        let (elsewhere, _socket) = machine(&[(env::OPENCLAW_GATEWAY_PORT, "20002")]);
        assert!(!taken(&elsewhere, &none()));
        let (by_url, _socket) =
            machine(&[(env::OPENCLAW_GATEWAY_URL, "ws://127.0.0.1:18789"), (env::OPENCLAW_GATEWAY_TOKEN, "E")]);
        assert!(!taken(&by_url, &none()));
        assert!(by_url.dir.path().exists());
    }

    #[test]
    fn p_84_what_is_given_inherits_no_stored_token() {
        let machine = Machine::new(r#"{gateway: {auth: {token: "C"}}}"#, &[]);
        let may = |flags: &ClientFlags| machine.resolve(flags).expect("target").may_use_stored_tokens();
        assert!(may(&ClientFlags::default()));
        assert!(!may(&url("ws://127.0.0.1:18789")));
        assert!(!may(&ClientFlags { password: Some(Secret::new("X")), ..ClientFlags::default() }));
    }

    #[test]
    fn an_unreadable_secret_stops_all_but_the_owner() {
        let config = r#"{gateway: {auth: {token: {source: "env", id: "NOT_SET"}}, remote: {token: "R"}}}"#;
        let machine = Machine::new(config, &[]);
        let refused = machine.resolve(&ClientFlags::default()).expect_err("S-089: fails closed");
        assert!(matches!(&refused, TargetError::Credentials(error) if error.code() == "secretref-unresolved"));
        let _socket = std::os::unix::net::UnixListener::bind(machine.paths.owner_socket()).expect("socket");
        let target = machine.resolve(&ClientFlags::default()).expect("the owner still gets in");
        assert!(target.owner_socket.is_some() && target.secrets().is_err());
    }
}
