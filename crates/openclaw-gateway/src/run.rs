//! Starting, serving, draining.
//!
//! Start order: state directory, lock, config, auth, database, listeners, tasks. Nothing is opened to the network before the
//! settings are known to be safe, and the lock precedes every write.

use std::{fs, io, net::SocketAddr, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc, time::Duration};

use openclaw_config::{
    document::Document,
    env::Env,
    files,
    gateway::AuthMode,
    identity,
    paths::Paths,
    settings::{self, Flags, ServerSettings, SettingsError},
    source::{Source, Sourced},
    tls::TlsFiles,
};
use openclaw_protocol::{CloseReason, event, limits};
use serde_json::json;
use tokio::{
    net::{TcpListener, UnixListener},
    signal::unix::{SignalKind, signal},
};
use tracing::Level;

use crate::{
    advertise,
    auth::{Peer, evidence::ClientKey},
    bind::{self, BindPlan},
    channels,
    clock::now_ms,
    gateway::{Gateway, Parts},
    health,
    http::{self, io::Stream},
    lock::{LockError, Owner, StateLock},
    log,
    nodes::Nodes,
    pairing::DeviceRegistry,
    ports, reload, runs,
    runtime::Runtime,
    sessions::Sessions,
    store::Store,
    tls::{self, Tls},
    tools,
};

/// How long accepted work may go on after a stop was asked for.
const DRAIN: Duration = Duration::from_secs(5);
/// How often expired pairing requests are swept.
const SWEEP: Duration = Duration::from_secs(60);
/// Exit code of a refusal for reasons of configuration.
pub const EXIT_CONFIG: u8 = 78;

/// What `openclaw gateway run` was asked for.
#[derive(Clone, Debug)]
pub struct Options {
    pub paths: Paths,
    pub env: Env,
    pub flags: Flags,
    pub version: &'static str,
    /// Free the port first.
    pub force: bool,
    /// Log more on stderr.
    pub verbose: bool,
    /// Starts programs that must not outlive what they were started for.
    pub guards: tools::Guards,
}

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration must be changed first.
    #[error("{0}")]
    Config(String),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The machine does not let us.
    #[error("{0}")]
    Failed(String),
}

impl StartError {
    /// 78 for configuration, 1 otherwise.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => EXIT_CONFIG,
            Self::Settings(error) => error.exit_code(),
            Self::Lock(_) | Self::Failed(_) => 1,
        }
    }
}

/// Settings read from flags, environment and file.
pub struct Loaded {
    pub document: Arc<Document>,
    pub settings: ServerSettings,
    pub runtime: Runtime,
}

/// Reads and checks everything that decides how the gateway behaves. The only thing it may write is a generated token.
///
/// # Errors
/// [`StartError`] naming the key, the reason and the cure.
pub fn load_settings(paths: &Paths, env: &Env, flags: &Flags) -> Result<Loaded, StartError> {
    let document = Document::load(paths, env).map_err(|error| StartError::Config(error.to_string()))?;
    settings_from(document, paths, env, flags)
}

/// Whether a gateway would start with this config.
///
/// # Errors
/// [`StartError`], as a start would say.
pub fn check_settings(document: Document, paths: &Paths, env: &Env, flags: &Flags) -> Result<(), StartError> {
    settings_from(document, paths, env, flags).map(|_| ())
}

fn settings_from(document: Document, paths: &Paths, env: &Env, flags: &Flags) -> Result<Loaded, StartError> {
    let mut settings = settings::effective_server(flags, env, &document, paths)?;
    if settings.needs_generated_token {
        let token = settings::generated_token(paths).map_err(|error| StartError::Failed(error.to_string()))?;
        settings.token = Some(Sourced::new(token, Source::Generated(paths.token_file())));
    }
    if !settings.config.nodes.auto_approve_cidrs.is_empty() {
        settings
            .warnings
            .push("gateway.nodes.pairing.autoApproveCidrs has no effect yet: nodes are approved by hand".into());
    }
    if settings.config.auth.allow_tailscale == Some(true) {
        settings.warnings.push("gateway.auth.allowTailscale has no effect yet: the shared secret is asked for".into());
    }
    let log_file = document.get("logging.file").and_then(|node| node.as_str()).map(str::to_owned);
    let document = Arc::new(document);
    let runtime = Runtime::new(&settings, log_file, Arc::clone(&document))
        .map_err(|error| StartError::Config(error.to_string()))?;
    Ok(Loaded { document, settings, runtime })
}

/// Runs the gateway until it is told to stop.
///
/// # Errors
/// [`StartError`] when it could not start. Once it serves, it ends well.
pub async fn run(options: Options) -> Result<(), StartError> {
    let paths = &options.paths;
    let failed = |error: &dyn std::fmt::Display| StartError::Failed(error.to_string());
    files::create_private_dir(&paths.state_dir).map_err(|error| failed(&error))?;
    let owner =
        Owner { pid: std::process::id(), started_at_ms: now_ms(), version: options.version.to_owned(), url: None };
    let mut lock = StateLock::acquire(&paths.lock_file(), owner)?;
    let loaded = load_or_last_good(&options)?;
    log::install(log::LogOptions {
        paths: paths.clone(),
        file: loaded.runtime.log_file.clone(),
        level: level(loaded.document.get("logging.level").and_then(|node| node.as_str())).unwrap_or(Level::INFO),
        console: Some(if options.verbose { Level::DEBUG } else { Level::INFO }),
    });
    let settings = &loaded.settings;
    settings.warnings.iter().for_each(|warning| tracing::warn!("config: {warning}"));
    let plan = bind::plan(settings.bind.value, settings.config.custom_bind_host, &bind::local_addresses())
        .map_err(|error| StartError::Config(error.to_string()))?;
    if plan.beyond_loopback && loaded.settings.auth_mode.value == AuthMode::None {
        return Err(SettingsError::Unauthenticated { bind: settings.bind.value }.into());
    }
    let store = Store::open(&paths.state_db()).map_err(|error| failed(&error))?;
    let pairing = DeviceRegistry::load(store.clone()).map_err(|error| failed(&error))?;
    let nodes = Nodes::load(&store).map_err(|error| failed(&error))?;
    let sessions = Sessions::load(&store).map_err(|error| failed(&error))?;
    let identity = identity::load_or_create(paths).map_err(|error| failed(&error))?;
    let tls = open_tls(settings, paths)?;
    let port = settings.port.value;
    let listeners = open_listeners(&plan, port, options.force).await?;
    let owner_socket = open_owner_socket(&paths.owner_socket()).map_err(|error| failed(&error))?;
    let sockets = settings.max_preauth_connections_per_ip;
    let gateway = Gateway::new(Parts {
        paths: paths.clone(),
        env: options.env.clone(),
        flags: options.flags.clone(),
        version: options.version,
        identity,
        runtime: loaded.runtime.clone(),
        store,
        pairing,
        nodes,
        sessions,
        per_client_sockets: sockets.unwrap_or(limits::PREAUTH_SOCKETS_PER_CLIENT),
        handshake_timeout: settings.handshake_timeout.unwrap_or(limits::HANDSHAKE_TIMEOUT),
        tls,
    });
    let port = listeners.first().and_then(|listener| listener.local_addr().ok()).map_or(port, |address| address.port());
    gateway.set_port(port);
    gateway.set_listening(plan.addresses.clone());
    channels::attach(&gateway);
    tools::attach(&gateway, options.guards.clone());
    runs::recover::load(&gateway).await.map_err(|error| failed(&error))?;
    health::refresh(&gateway);
    for listener in listeners {
        gateway.tracker.spawn(accept_tcp(Arc::clone(&gateway), listener));
    }
    gateway.tracker.spawn(accept_owner(Arc::clone(&gateway), owner_socket));
    gateway.tracker.spawn(runs::models::watch(Arc::clone(&gateway)));
    runs::recover::begin(&gateway);
    gateway.tracker.spawn(runs::heartbeat::run(Arc::clone(&gateway)));
    gateway.tracker.spawn(channels::registry::run(Arc::clone(&gateway)));
    gateway.tracker.spawn(channels::exec_approvals::run(Arc::clone(&gateway)));
    gateway.tracker.spawn(tick(Arc::clone(&gateway)));
    gateway.tracker.spawn(refresh_health(Arc::clone(&gateway)));
    gateway.tracker.spawn(sweep(Arc::clone(&gateway)));
    gateway.tracker.spawn(reload::watch(Arc::clone(&gateway)));
    gateway.tracker.spawn(advertise::run(Arc::clone(&gateway), gateway.reloads.subscribe()));
    gateway.tracker.spawn(tls::watch::watch(Arc::clone(&gateway)));
    lock.announce(&format!("{}://127.0.0.1:{port}", scheme(&gateway)))?;
    announce(&gateway, &plan, &loaded, port);
    wait_for_stop(&gateway).await;
    drain(&gateway).await;
    // Nobody is left to answer on it.
    let _ = fs::remove_file(paths.owner_socket());
    Ok(())
}

/// The config on disk; when that cannot be used, the last one that could. A gateway that never ran with a good config
/// does not start.
fn load_or_last_good(options: &Options) -> Result<Loaded, StartError> {
    let (paths, env, flags) = (&options.paths, &options.env, &options.flags);
    let broken = match load_settings(paths, env, flags) {
        Ok(loaded) => {
            openclaw_config::write::remember_good(paths, &loaded.document);
            return Ok(loaded);
        }
        // Only a file that cannot be used as such is replaced by its predecessor. What a valid file says stands, also when
        // it says something that must not start.
        Err(error @ (StartError::Config(_) | StartError::Settings(SettingsError::InvalidConfig(_)))) => error,
        Err(error) => return Err(error),
    };
    let Ok(Some(last_good)) = Document::load_last_good(paths, env) else { return Err(broken) };
    let Ok(mut loaded) = settings_from(last_good, paths, env, flags) else { return Err(broken) };
    let warning = format!("{broken}. Started with the last good config; the file is taken once it is valid");
    loaded.settings.warnings.insert(0, warning);
    Ok(loaded)
}

/// The certificate of the listeners, made if there is none yet; `None` without `gateway.tls`.
fn open_tls(settings: &ServerSettings, paths: &Paths) -> Result<Option<Arc<Tls>>, StartError> {
    let config = &settings.config;
    if !config.tls.enabled {
        return Ok(None);
    }
    let opened = Tls::open(TlsFiles::of(config, paths), config.tls.auto_generate, &tls::make::names());
    opened.map(|tls| Some(Arc::new(tls))).map_err(|error| StartError::Config(error.to_string()))
}

/// Scheme of the gateway's own URLs.
fn scheme(gateway: &Gateway) -> &'static str {
    if gateway.tls.is_some() { "wss" } else { "ws" }
}

fn level(text: Option<&str>) -> Option<Level> {
    match text? {
        "fatal" | "error" => Some(Level::ERROR),
        "warn" => Some(Level::WARN),
        "info" => Some(Level::INFO),
        "debug" => Some(Level::DEBUG),
        "trace" => Some(Level::TRACE),
        _ => None,
    }
}

async fn open_listeners(plan: &BindPlan, port: u16, force: bool) -> Result<Vec<TcpListener>, StartError> {
    let mut forced = false;
    let mut listeners: Vec<TcpListener> = Vec::new();
    let mut port = port;
    for address in &plan.addresses {
        let socket = SocketAddr::new(*address, port);
        let listener = match bind::listen(socket) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && force && !forced => {
                forced = true;
                let freed = ports::free(port).await.map_err(|error| StartError::Failed(error.to_string()))?;
                for holder in freed {
                    eprintln!("stopped {} to free port {port}", describe(&holder));
                }
                bind::listen(socket)
            }
            other => other,
        };
        let listener = listener.map_err(|error| cannot_listen(socket, &error))?;
        // Port 0 means any: the first listener chooses for all.
        port = listener.local_addr().map_or(port, |address| address.port());
        listeners.push(listener);
    }
    Ok(listeners)
}

fn cannot_listen(socket: SocketAddr, error: &io::Error) -> StartError {
    let port = socket.port();
    let mut text = format!("cannot listen on {socket}: {error}.");
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            for holder in ports::listeners(port) {
                text.push_str(&format!("\n  port {port} is held by {}", describe(&holder)));
            }
            text.push_str(&format!(
                "\nStop it, choose another port (openclaw gateway --port <port>), or take the port over: openclaw gateway \
                 --force\nSee who listens: ss -ltnp | grep {port}, or lsof -i :{port}"
            ));
        }
        io::ErrorKind::PermissionDenied => {
            text.push_str(" Ports below 1024 need special rights; choose a higher one (openclaw gateway --port 18789)");
        }
        io::ErrorKind::AddrNotAvailable => {
            text.push_str(" This machine has no such address; check gateway.bind and gateway.customBindHost");
        }
        _ => {}
    }
    StartError::Failed(text)
}

fn describe(holder: &ports::Listener) -> String {
    match (&holder.pid, &holder.command) {
        (Some(pid), Some(command)) => format!("pid {pid} ({}) on {}", log::escaped(command, 120), holder.address),
        (Some(pid), None) => format!("pid {pid} on {}", holder.address),
        (None, _) => format!("a process of uid {} on {}", holder.uid, holder.address),
    }
}

/// The owner's door: a unix socket nobody else can open.
fn open_owner_socket(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        files::create_private_dir(directory).map_err(io::Error::other)?;
    }
    // We hold the state directory's lock, so a socket found here has no owner.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn accept_tcp(gateway: Arc<Gateway>, listener: TcpListener) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = gateway.draining.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                // Small frames must not wait for each other.
                let _ = stream.set_nodelay(true);
                let peer = Peer::Tcp(address);
                admit(&gateway, Stream::Tcp(stream), peer, ClientKey::of(address.ip()));
            }
            Err(error) => pause_after(&error).await,
        }
    }
}

async fn accept_owner(gateway: Arc<Gateway>, listener: UnixListener) {
    let uid = rustix::process::geteuid().as_raw();
    loop {
        let accepted = tokio::select! {
            biased;
            () = gateway.draining.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => match stream.peer_cred() {
                Ok(peer) if peer.uid() == uid || peer.uid() == 0 => {
                    admit(&gateway, Stream::Unix(stream), Peer::Owner, ClientKey::Owner);
                }
                Ok(peer) => tracing::warn!(uid = peer.uid(), "a process of another user knocked at the owner's socket"),
                Err(error) => tracing::warn!("the owner's socket did not say who knocked: {error}"),
            },
            Err(error) => pause_after(&error).await,
        }
    }
}

fn admit(gateway: &Arc<Gateway>, stream: Stream, peer: Peer, key: ClientKey) {
    match gateway.admission.enter(now_ms(), key) {
        Some(slot) => {
            gateway.tracker.spawn(http::serve(Arc::clone(gateway), stream, peer, slot));
        }
        None => {
            // One attempt to say so; whoever floods does not read it anyway. Under TLS it would be noise.
            if let (Stream::Tcp(stream), None) = (&stream, &gateway.tls) {
                let _ = stream.try_write(http::NO_ROOM);
            }
        }
    }
}

/// Accepting fails when descriptors run out; trying again at once would only burn the CPU.
async fn pause_after(error: &io::Error) {
    tracing::warn!("cannot accept a connection: {error}");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

async fn every(gateway: &Gateway, period: Duration) -> bool {
    tokio::select! {
        biased;
        () = gateway.cancel.cancelled() => false,
        () = tokio::time::sleep(period) => true,
    }
}

async fn tick(gateway: Arc<Gateway>) {
    while every(&gateway, limits::TICK_INTERVAL).await {
        gateway.hub.broadcast(event::TICK, &json!({"ts": now_ms()}));
    }
}

async fn refresh_health(gateway: Arc<Gateway>) {
    while every(&gateway, health::REFRESH).await {
        health::refresh(&gateway);
    }
}

async fn sweep(gateway: Arc<Gateway>) {
    while every(&gateway, SWEEP).await {
        let swept =
            gateway.pairing.change(|state| Ok::<_, std::convert::Infallible>(((), state.expire(now_ms())))).await;
        // A failure has been logged and marked; the next sweep tries again.
        let _ = gateway.settle(swept, |never| match never {});
    }
}

/// Says where it listens and what to type next.
fn announce(gateway: &Gateway, plan: &BindPlan, loaded: &Loaded, port: u16) {
    let addresses: Vec<String> = plan
        .addresses
        .iter()
        .map(|address| format!("{}://{}", scheme(gateway), SocketAddr::new(*address, port)))
        .collect();
    let mode = loaded.runtime.policy.mode.name();
    tracing::info!("openclaw {} listening on {}", gateway.version, addresses.join(", "));
    tracing::info!("auth: {mode} ({})", auth_source(&loaded.settings));
    if let Some(tls) = &gateway.tls {
        let (certificate, file) = (tls.certificate(), tls.files.certificate.display());
        tracing::info!("tls: {file}, valid until {}", tls::date(certificate.valid_s.1));
        tracing::info!("tls: clients pin {} (or {})", certificate.fingerprint, certificate.key_fingerprint);
        tls.warnings(now_ms() / 1000).iter().for_each(|warning| tracing::warn!("tls: {warning}"));
    }
    tracing::info!("log file: {}", gateway.log_file().display());
    if mode == "none" {
        tracing::warn!("auth is off: every program on this machine may use this gateway");
    }
    let profile = gateway.paths.profile.name().map_or(String::new(), |name| format!(" --profile {name}"));
    let at =
        if port == gateway.paths.default_port() { String::new() } else { format!("OPENCLAW_GATEWAY_PORT={port} ") };
    tracing::info!("ready. Next, in another terminal: {at}openclaw{profile} status");
    tracing::info!(
        "from another machine: ssh -N -L {port}:127.0.0.1:{port} user@this-host, then the same command there"
    );
}

fn auth_source(settings: &ServerSettings) -> String {
    let secret = settings.token.as_ref().or(settings.password.as_ref());
    secret.map_or_else(|| settings.auth_mode.source.to_string(), |secret| secret.source.to_string())
}

async fn wait_for_stop(gateway: &Arc<Gateway>) {
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()))
    else {
        tracing::error!("cannot listen for signals; stopping");
        return;
    };
    loop {
        tokio::select! {
            _ = terminate.recv() => return tracing::info!("stopping (SIGTERM)"),
            _ = interrupt.recv() => return tracing::info!("stopping (SIGINT)"),
            () = gateway.cancel.cancelled() => return,
            _ = hangup.recv() => {
                // What failed has been said; the settings in force stay.
                let _ = reload::reload(gateway).await;
            }
        }
    }
}

/// Another signal to stop.
async fn again() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Lets runs and their replies end, tells everyone, lets the rest end, and closes the database last. What does not end in
/// time goes on after the next start; a second signal means that nobody wants to wait.
async fn drain(gateway: &Arc<Gateway>) {
    gateway.draining.cancel();
    tokio::select! {
        () = gateway.runs.quiet() => {}
        () = again() => tracing::info!("stopping at once (a second signal)"),
        () = tokio::time::sleep(DRAIN) => tracing::warn!("runs did not end in time; they go on after the next start"),
    }
    gateway.hub.broadcast(event::SHUTDOWN, &json!({"reason": "gateway stopping"}));
    gateway.hub.close_all(&CloseReason::SERVICE_RESTART);
    gateway.cancel.cancel();
    gateway.tracker.close();
    if tokio::time::timeout(DRAIN, gateway.tracker.wait()).await.is_err() {
        tracing::warn!("{} tasks did not end in time", gateway.tracker.len());
    }
    let store = gateway.store.clone();
    let _ = tokio::task::spawn_blocking(move || store.close()).await;
    tracing::info!("stopped");
}
