//! The process part of a tunnel: its lock, its near ends, and the loop around what keeps ssh up.

use std::{
    io,
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

use openclaw_config::files::{FileError, FileLock, create_private_dir};
use openclaw_protocol::GatewayId;
use tokio::{
    io::BufReader,
    net::{TcpListener, UnixListener, UnixStream},
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::{
    PortRefused, State, Status, TunnelDir,
    control::{Answer, Request, is_ours, read_request, write_answer},
    links::{Links, Message, Shared},
    listen::{self, Carrier},
    log::{Log, now_ms},
    machine::{DEAD, Input},
    network::Moves,
};
use crate::ssh::{Program, SshFailure, SshSpec};

/// Control connections served at the same time.
const MAX_CONTROLS: usize = 16;

/// What a supervisor is to keep up.
#[derive(Clone, Debug)]
pub struct Settings {
    pub dir: TunnelDir,
    pub spec: SshSpec,
    /// Who has to answer at the far end. Without it the first gateway that proves itself is kept to.
    pub gateway: Option<GatewayId>,
    /// The loopback port other programs are to get.
    pub port: Option<u16>,
    /// The ssh program; the first on `PATH` when unset.
    pub program: Option<Program>,
    /// Keep a second ssh ready.
    pub spare: bool,
}

impl Settings {
    pub const fn new(dir: TunnelDir, spec: SshSpec) -> Self {
        Self { dir, spec, gateway: None, port: None, program: None, spare: true }
    }
}

/// Why a supervisor did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the tunnel {name} is already kept up by another process; see `openclaw tunnel ls`")]
    Running { name: String },
    #[error(transparent)]
    Files(#[from] FileError),
    #[error("the near end of the tunnel {name} cannot be made: {source}")]
    Listen { name: String, source: io::Error },
    #[error(transparent)]
    Ssh(#[from] SshFailure),
}

/// A supervisor that has its lock and its listeners. [`Supervisor::run`] does the work.
#[derive(Debug)]
pub struct Supervisor {
    settings: Settings,
    program: Program,
    log: Log,
    socket: UnixListener,
    control: UnixListener,
    ports: Vec<TcpListener>,
    port: Option<u16>,
    refused: Option<PortRefused>,
    status: watch::Sender<Status>,
    /// Last: released after everything else is gone.
    _lock: FileLock,
}

impl Supervisor {
    /// Takes the tunnel's lock and opens its near ends.
    ///
    /// # Errors
    /// [`StartError::Running`] when another process keeps this tunnel; no ssh; directories or sockets that cannot be made.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        let name = || settings.dir.name().to_string();
        let listen = |source: io::Error| StartError::Listen { name: name(), source };
        let program = match &settings.program {
            Some(program) => program.clone(),
            None => Program::find()?,
        };
        create_private_dir(settings.dir.path())?;
        create_private_dir(settings.dir.sockets())?;
        let lock = FileLock::try_acquire(&settings.dir.lock_file())?;
        let lock = lock.ok_or_else(|| StartError::Running { name: name() })?;
        let log = Log::open(&settings.dir.log_file()).map_err(listen)?;
        let socket = listen::bind_socket(&settings.dir.socket()).map_err(listen)?;
        let control = listen::bind_socket(&settings.dir.control()).map_err(listen)?;
        let (ports, port, refused) = match settings.port {
            None => (Vec::new(), None, None),
            Some(wished) => {
                let (ports, port, refused) = listen::bind_port(wished).await.map_err(listen)?;
                (ports, Some(port), refused)
            }
        };
        let status = watch::Sender::new(first_status(&settings, port, refused.clone()));
        Ok(Self { settings, program, log, socket, control, ports, port, refused, status, _lock: lock })
    }

    /// The loopback port other programs use, and why it is not the wished one.
    pub const fn port(&self) -> (Option<u16>, Option<&PortRefused>) {
        (self.port, self.refused.as_ref())
    }

    /// The status and its changes.
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Keeps the tunnel up until `stop` resolves or somebody asks for `down`; then ends every ssh it started.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Self { settings, program, mut log, socket, control, ports, port, refused, status, _lock } = self;
        let sockets = [settings.dir.socket(), settings.dir.control()];
        let (messages, mut inbox) = mpsc::channel(256);
        let (target, targets) = watch::channel(None);
        let (gateway, gateways) = watch::channel(settings.gateway.clone());
        let count = Arc::new(AtomicU32::new(0));
        let carrier =
            Carrier { target: targets, messages: messages.clone(), gateway: gateways, count: Arc::clone(&count) };
        let (requests, mut asked) = mpsc::channel(MAX_CONTROLS);
        // Aborted when this function returns, and the listeners with them.
        let mut listeners = JoinSet::new();
        for port in ports {
            listeners.spawn(carrier.clone().serve_port(port));
        }
        listeners.spawn(carrier.serve_socket(socket));
        listeners.spawn(serve_control(control, requests));
        log.write(
            "start",
            [
                ("pid", std::process::id().into()),
                ("target", settings.spec.target.to_string().into()),
                ("port", port.into()),
                ("portRefused", refused.map(|refused| refused.reason).into()),
            ],
        );
        let mut links = Links::new(settings, program, log, Shared { messages, target, gateway, count, status });
        let mut moves = Moves::watch();
        tokio::pin!(stop);
        let mut message = Message::Input(Input::Tick);
        let down = loop {
            links.take(message);
            links.publish();
            let wake = links.wake().unwrap_or_else(|| Instant::now() + DEAD);
            message = tokio::select! {
                biased;
                () = &mut stop => break None,
                Some((request, stream)) = asked.recv() => match request {
                    Request::Down => break Some(stream),
                    Request::Status => {
                        let status = Box::new(links.status());
                        tokio::spawn(respond(stream, Some(status)));
                        Message::Input(Input::Tick)
                    }
                    Request::Retry => {
                        tokio::spawn(respond(stream, None));
                        links.note("retry", []);
                        Message::Input(Input::Retry)
                    }
                },
                Some(message) = inbox.recv() => message,
                change = moves.next() => {
                    links.note("moved", [("what", change.into())]);
                    Message::Input(Input::Moved)
                }
                () = sleep_until(wake) => Message::Input(Input::Tick),
            };
        };
        listeners.shutdown().await;
        for path in sockets {
            let _ = std::fs::remove_file(path);
        }
        links.end().await;
        if let Some(stream) = down {
            respond(stream, None).await;
        }
    }
}

/// Takes control connections; each asks one thing.
async fn serve_control(listener: UnixListener, requests: mpsc::Sender<(Request, BufReader<UnixStream>)>) {
    let busy = Arc::new(Semaphore::new(MAX_CONTROLS));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (Ok(true), Ok(permit)) = (is_ours(&stream), Arc::clone(&busy).try_acquire_owned()) else { continue };
        let requests = requests.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let mut stream = BufReader::new(stream);
            match read_request(&mut stream).await {
                Ok(request) => drop(requests.send((request, stream)).await),
                Err(error) => write_answer(&mut stream, &Answer { ok: false, status: None, error: Some(error) }).await,
            }
        });
    }
}

async fn respond(mut stream: BufReader<UnixStream>, status: Option<Box<Status>>) {
    write_answer(&mut stream, &Answer { ok: true, status, error: None }).await;
}

fn first_status(settings: &Settings, port: Option<u16>, port_refused: Option<PortRefused>) -> Status {
    let spec = &settings.spec;
    Status {
        name: settings.dir.name().to_string(),
        state: State::Connecting,
        since_ms: now_ms(),
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        target: spec.target.to_string(),
        origin: spec.origin(),
        identity: spec.identity.clone(),
        host_keys: spec.host_keys.as_str().to_owned(),
        gateway_port: spec.gateway_port,
        socket: settings.dir.socket(),
        port,
        port_refused,
        gateway_id: settings.gateway.clone(),
        rtt_ms: None,
        attempts: 0,
        next_try_ms: None,
        replaced: 0,
        connections: 0,
        last_failure: None,
        forwards: Vec::new(),
    }
}
