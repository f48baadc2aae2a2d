//! Which gateway a command means, and what it may send there.
//!
//! Flags, environment and config go through `openclaw_config::credentials`, the one place that decides; this file turns
//! the answer into something that can be dialled.

use std::path::PathBuf;

use openclaw_config::{
    EnvSource, GatewayConfig, Mode, SecretContext,
    credentials::{self, ClientFlags, CredentialError, Inputs, Resolution, Surface, UrlSource},
    env,
    settings::client_port,
    source::Source,
};
use serde_json::Value;

use crate::{
    connect::Secrets,
    dial::{Endpoint, is_owner_socket},
    remedy::Place,
    tls::{self, BadFingerprint, Fingerprint},
    url::{GatewayUrl, UrlError},
};

/// Why there is no target. Nothing was sent, not even a name look-up.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// `--url` and `--port` name two places.
    #[error("Use either --url or --port, not both.")]
    UrlAndPort,
    #[error(transparent)]
    Credentials(#[from] Box<CredentialError>),
    #[error("{error}")]
    Url { from: UrlSource, error: UrlError },
    #[error("gateway.remote.tlsFingerprint: {0}")]
    Pin(BadFingerprint),
}

/// A gateway to reach.
#[derive(Debug)]
pub struct Target {
    pub url: GatewayUrl,
    pub source: UrlSource,
    /// Pin of the certificate, when the URL is the configured remote one.
    pub pin: Option<Fingerprint>,
    /// The owner's socket of this profile's gateway, when this call may take it: a local target, and no URL, port or
    /// credential given that would name something else.
    pub owner_socket: Option<PathBuf>,
    /// What to send to the URL. An error is kept only where the owner's socket may make it unnecessary.
    pub credentials: Result<Resolution, Box<CredentialError>>,
    /// For advice when it fails.
    pub place: Place,
    /// Port of the gateway on this machine, and who said so.
    pub local_port: LocalPort,
    allow_private_names: bool,
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
        let local_port = local_port(flags, config, context);
        let mut inputs = credentials::gather(surface, flags, config, context);
        inputs.local_url = config.local_url(local_port.value);
        // Without --url or the variable, local mode means this machine.
        let is_local = inputs.mode == Mode::Local && !given(&inputs.flags.url) && !given(&inputs.env.url);
        let owner_socket = if is_local { owner_socket(flags, config, context, local_port.value) } else { None };
        let target = Self::from_inputs(&inputs, owner_socket, config, context)?;
        Ok(Self { local_port, ..target })
    }

    /// The configured remote gateway, whatever the mode; `None` without a `gateway.remote.url`. For probes.
    ///
    /// # Errors
    /// See [`TargetError`].
    pub fn configured_remote(
        surface: Surface,
        flags: &ClientFlags,
        config: &GatewayConfig,
        context: SecretContext<'_>,
    ) -> Result<Option<Self>, TargetError> {
        if config.remote.url.is_none() {
            return Ok(None);
        }
        let mut inputs = credentials::gather(surface, flags, config, context);
        (inputs.mode, inputs.flags.url, inputs.env.url) = (Mode::Remote, None, None);
        let target = Self::from_inputs(&inputs, None, config, context)?;
        Ok(Some(Self { local_port: local_port(flags, config, context), ..target }))
    }

    fn from_inputs(
        inputs: &Inputs<'_>,
        owner_socket: Option<PathBuf>,
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
        let url = GatewayUrl::parse(&text).map_err(|error| TargetError::Url { from: source, error })?;
        Ok(Self {
            pin: pin(&url, source, config, context)?,
            place: place(&url, source, config),
            local_port: LocalPort { value: url.port(), source: String::new() },
            allow_private_names: context.env.process_flag(env::OPENCLAW_ALLOW_INSECURE_PRIVATE_WS),
            owner_socket,
            credentials,
            source,
            url,
        })
    }

    /// The URL as an endpoint.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::Url {
            url: self.url.clone(),
            pin: self.pin,
            allow_private_names: self.allow_private_names,
            edge: Vec::new(),
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
    let same = source == UrlSource::RemoteConfig || configured.is_some_and(|remote| remote.origin() == url.origin());
    if !same {
        return Ok(None);
    }
    text.parse().map(Some).map_err(TargetError::Pin)
}

fn place(url: &GatewayUrl, source: UrlSource, config: &GatewayConfig) -> Place {
    let from_config = source == UrlSource::RemoteConfig;
    Place {
        local: source == UrlSource::LocalLoopback,
        loopback: url.is_loopback(),
        tunnel: from_config && url.is_loopback(),
        port: url.port(),
        remote_port: config.remote.remote_port.unwrap_or(url.port()),
        ssh_target: config.remote.ssh_target.clone(),
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
            sshTarget: "me@box"}}}"#;
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
        let shown = |flags: &ClientFlags| machine.resolve(flags).expect("target").pin.map(|pin| pin.to_string());
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
