//! The tunnel supervisor against the system's sshd: up, replaced, silent, gone, and who answers at the far end.
//!
//! The gateway behind ssh is played here, so that it can be another one, or none.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use lab::{
    process::{Launch, free_port, wait_until},
    require,
    require::program,
    sandbox::binary,
    sshd::{SshClient, Sshd, SshdSetup},
};
use openclaw_protocol::{
    DeviceKey, GatewayId,
    gateway_proof::{GatewayProof, HEADER},
};
use openclaw_remote::{
    Deadline, Endpoint,
    client::Client,
    ssh::{Program, SshSpec},
    tunnel::{
        self, ControlError, Role, Settings, StartError, State, Status, Supervisor, TunnelDir, TunnelName, control,
    },
};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{runtime::Runtime, sync::oneshot, task::JoinHandle};
use tungstenite::{
    Message,
    handshake::server::{Request, Response},
};

/// A gateway that greets, proves who it is, and sends back every text.
struct FakeGateway {
    port: u16,
    key: Arc<Mutex<DeviceKey>>,
    open: Arc<AtomicBool>,
}

impl FakeGateway {
    fn start() -> Self {
        let port = free_port();
        let gateway = Self {
            port,
            key: Arc::new(Mutex::new(DeviceKey::from_seed(&[1; 32]))),
            open: Arc::new(AtomicBool::new(false)),
        };
        gateway.listen();
        gateway
    }

    fn id(&self) -> GatewayId {
        GatewayId::of(self.key.lock().expect("lock").id())
    }

    /// Another gateway takes its place.
    fn becomes(&self, seed: u8) {
        *self.key.lock().expect("lock") = DeviceKey::from_seed(&[seed; 32]);
    }

    fn listen(&self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).expect("its port");
        let (open, key) = (Arc::clone(&self.open), Arc::clone(&self.key));
        open.store(true, Ordering::SeqCst);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if !open.load(Ordering::SeqCst) {
                    return;
                }
                let key = key.lock().expect("lock").clone();
                thread::spawn(move || greet(stream, &key));
            }
        });
    }

    /// Nothing listens on its port any more.
    fn stop(&self) {
        self.open.store(false, Ordering::SeqCst);
        // Lets the accepting thread look.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        wait_until("a closed port", || TcpStream::connect(("127.0.0.1", self.port)).is_err().then_some(()));
    }
}

fn greet(stream: TcpStream, key: &DeviceKey) {
    let mut asked = None;
    let callback = |request: &Request, response: Response| {
        asked = request.headers().get(HEADER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok(response)
    };
    let Ok(mut socket) = tungstenite::accept_hdr(stream, callback) else { return };
    let mut payload = json!({"nonce": "n0", "ts": 1});
    if let Some(proof) = asked.and_then(|nonce| GatewayProof::sign(key, &nonce, "n0")) {
        payload["gateway"] = serde_json::to_value(proof).expect("JSON");
    }
    let challenge = json!({"type": "event", "event": "connect.challenge", "payload": payload});
    let _ = socket.send(Message::text(challenge.to_string()));
    while let Ok(message) = socket.read() {
        if message.is_text() && socket.send(message).is_err() {
            return;
        }
    }
}

/// Far host, person, gateway, and a state directory.
struct Scene {
    sshd: Sshd,
    me: SshClient,
    gateway: FakeGateway,
    state: TempDir,
    runtime: Runtime,
}

/// A supervisor in this process.
struct Running {
    dir: TunnelDir,
    status: tokio::sync::watch::Receiver<Status>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Scene {
    fn new() -> Self {
        Self::with(SshdSetup::new())
    }

    fn with(setup: SshdSetup) -> Self {
        let (sshd, me) = (setup.start(), SshClient::new());
        me.may_enter(&sshd, "box");
        let runtime = Runtime::new().expect("a runtime");
        let state = TempDir::with_prefix("oc-").expect("a temporary directory");
        Self { sshd, me, gateway: FakeGateway::start(), state, runtime }
    }

    fn settings(&self) -> Settings {
        settings(self.state.path(), &self.me.bin(), &self.sshd.target(), self.gateway.port)
    }

    fn run(&self, settings: Settings) -> Running {
        let dir = settings.dir.clone();
        let supervisor = self.runtime.block_on(Supervisor::start(settings)).expect("starts");
        let (stop, stopped) = oneshot::channel();
        let status = supervisor.watch();
        let task = self.runtime.spawn(supervisor.run(async {
            let _ = stopped.await;
        }));
        Running { dir, status, stop: Some(stop), task }
    }

    /// Waits for a status.
    #[track_caller]
    fn until(&self, running: &mut Running, what: &str, wanted: impl FnMut(&Status) -> bool) -> Status {
        let found = self.runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(30), running.status.wait_for(wanted))
                .await
                .map(|s| s.map(|s| s.clone()))
        });
        match found {
            Ok(Ok(status)) => status,
            _ => panic!("no {what}: {:#?}\n{}", *running.status.borrow(), log(&running.dir)),
        }
    }

    #[track_caller]
    fn until_ready(&self, running: &mut Running) -> Status {
        let ready = |status: &Status| {
            let has = |role| status.forwards.iter().any(|forward| forward.role == role);
            status.state == State::Up && has(Role::Current) && has(Role::Spare)
        };
        self.until(running, "tunnel with a spare", ready)
    }

    fn stop(&self, mut running: Running) {
        drop(running.stop.take());
        self.runtime.block_on(&mut running.task).expect("ends well");
    }

    /// Speaks to the gateway through the near end.
    fn identify(&self, running: &Running) -> Option<GatewayId> {
        let endpoint = Endpoint::Tunnel { socket: running.dir.socket(), origin: "ssh://test".to_owned(), pin: None };
        let deadline = Deadline::after(Duration::from_secs(10));
        self.runtime.block_on(Client::identify(&endpoint, deadline, None)).expect("the gateway answers")
    }
}

fn settings(state: &Path, bin: &Path, target: &str, port: u16) -> Settings {
    let dir = TunnelDir::new(state, &TunnelName::parse("home").expect("a name"));
    let spec = SshSpec { gateway_port: port, ..SshSpec::new(target.parse().expect("a target")) };
    Settings { program: Program::at(bin.join("ssh")), ..Settings::new(dir, spec) }
}

fn log(dir: &TunnelDir) -> String {
    fs::read_to_string(dir.log_file()).unwrap_or_default()
}

fn events(dir: &TunnelDir) -> Vec<String> {
    let lines = log(dir);
    let event = |line: &str| serde_json::from_str::<Value>(line).expect("JSON lines")["event"].clone();
    lines.lines().map(|line| event(line).as_str().expect("an event").to_owned()).collect()
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    rustix::process::kill_process(pid, Signal::KILL).expect("it lives");
}

fn current(status: &Status) -> u32 {
    let current = status.forwards.iter().find(|forward| forward.role == Role::Current);
    current.and_then(|forward| forward.pid).expect("an ssh in use")
}

/// A WebSocket through a stream: reads the greeting.
fn websocket<S: std::io::Read + std::io::Write>(stream: S) -> tungstenite::WebSocket<S> {
    let (mut socket, _) = tungstenite::client("ws://localhost/", stream).map_err(|e| e.to_string()).expect("upgrade");
    assert!(socket.read().expect("greeting").is_text());
    socket
}

fn echoes<S: std::io::Read + std::io::Write>(socket: &mut tungstenite::WebSocket<S>, text: &str) -> bool {
    socket.send(Message::text(text)).is_ok()
        && socket.read().is_ok_and(|answer| answer.to_text().is_ok_and(|t| t == text))
}

#[test]
fn up_with_a_spare_and_down_without_a_trace() {
    require!(program("sshd"));
    let scene = Scene::new();
    let mut running = scene.run(scene.settings());
    let status = scene.until_ready(&mut running);
    assert_eq!(status.gateway_id, Some(scene.gateway.id()), "it proved itself, so it is known");
    assert!(status.rtt_ms.is_some_and(|rtt| rtt > 0.0), "{status:#?}");
    assert_eq!((status.name.as_str(), status.pid, status.attempts), ("home", std::process::id(), 0));
    assert_eq!(status.last_failure, None);
    assert_eq!(scene.identify(&running), Some(scene.gateway.id()));
    let mode = |path: PathBuf| {
        use std::os::unix::fs::PermissionsExt as _;
        fs::symlink_metadata(path).expect("it is there").permissions().mode() & 0o777
    };
    assert_eq!(
        (mode(running.dir.path().to_owned()), mode(running.dir.socket()), mode(running.dir.control())),
        (0o700, 0o600, 0o600)
    );
    // Others can see it and end it.
    let asked = scene.runtime.block_on(control::ask_status(&running.dir)).expect("an answer");
    assert_eq!(asked.state, State::Up);
    let found = scene.runtime.block_on(tunnel::find(scene.state.path(), &scene.settings().spec)).expect("found");
    assert_eq!(found.0, running.dir);
    let second = scene.runtime.block_on(Supervisor::start(scene.settings()));
    assert!(matches!(second, Err(StartError::Running { .. })));
    scene.runtime.block_on(control::ask_down(&running.dir)).expect("down");
    scene.runtime.block_on(&mut running.task).expect("ends well");
    assert_eq!(scene.me.running(), [] as [u32; 0]);
    assert_eq!(running.status.borrow().state, State::Stopped);
    let left: Vec<_> = fs::read_dir(running.dir.sockets()).expect("dir").flatten().map(|e| e.file_name()).collect();
    assert!(left.iter().all(|name| name == "lock" || name == "log"), "{left:?}");
    let gone = scene.runtime.block_on(control::ask_status(&running.dir));
    assert!(matches!(gone, Err(ControlError::NotRunning { .. })));
    assert_eq!(scene.runtime.block_on(tunnel::find(scene.state.path(), &scene.settings().spec)), None);
    let said = events(&running.dir);
    for event in ["start", "login", "up", "stop"] {
        assert!(said.iter().any(|said| said == event), "{said:?}");
    }
}

#[test]
fn a_killed_ssh_is_replaced_by_the_spare() {
    require!(program("sshd"));
    let scene = Scene::new();
    let mut running = scene.run(scene.settings());
    let mut times = Vec::new();
    for round in 1..=5 {
        let status = scene.until_ready(&mut running);
        let mut socket = websocket(UnixStream::connect(running.dir.socket()).expect("connects"));
        assert!(echoes(&mut socket, "before"));
        let started = Instant::now();
        kill(current(&status));
        assert!(!echoes(&mut socket, "after"), "what the killed ssh carried is cut");
        // A client comes back at once, as ours do.
        let mut socket = websocket(UnixStream::connect(running.dir.socket()).expect("connects"));
        assert!(echoes(&mut socket, "again"));
        times.push(started.elapsed());
        scene.until(&mut running, "replacement", |status| status.replaced == round);
    }
    eprintln!("killed ssh to an answer through the spare: {times:?}");
    scene.stop(running);
    assert_eq!(scene.me.running(), [] as [u32; 0]);
}

#[test]
fn killed_sessions_and_a_stopped_sshd() {
    require!(program("sshd"));
    let mut scene = Scene::new();
    let mut running = scene.run(scene.settings());
    scene.until_ready(&mut running);
    scene.sshd.kill_sessions();
    scene.until(&mut running, "loss", |status| {
        status.state != State::Up || status.replaced > 0 || status.last_failure.is_some()
    });
    scene.until_ready(&mut running);
    scene.sshd.stop();
    let status =
        scene.until(&mut running, "waiting", |status| status.state == State::Waiting && status.next_try_ms.is_some());
    let failure = scene.until(&mut running, "refusal", |status| {
        status.last_failure.as_ref().is_some_and(|failure| failure.code == "ssh_refused")
    });
    assert!(failure.attempts > 0 && status.forwards.iter().all(|forward| forward.role != Role::Current));
    scene.sshd.start_again();
    scene.runtime.block_on(control::ask_retry(&running.dir)).expect("retry");
    scene.until_ready(&mut running);
    scene.stop(running);
}

#[test]
fn a_silent_link_is_noticed_and_comes_back() {
    require!(program("sshd"));
    let scene = Scene::new();
    let mut running = scene.run(scene.settings());
    scene.until_ready(&mut running);
    let mut socket = websocket(UnixStream::connect(running.dir.socket()).expect("connects"));
    let started = Instant::now();
    scene.sshd.signal_sessions(Signal::STOP);
    // New logins work: somebody else answers there.
    let status = scene.until(&mut running, "replacement", |status| status.replaced == 1 && status.state == State::Up);
    eprintln!("silence noticed and replaced after {:?}", started.elapsed());
    assert!(status.forwards.iter().any(|forward| forward.role == Role::Silent), "{status:#?}");
    // What was silent is kept: its connection lives when it comes back in time.
    scene.sshd.signal_sessions(Signal::CONT);
    assert!(echoes(&mut socket, "still here"));
    assert_eq!(scene.identify(&running), Some(scene.gateway.id()));
    scene.stop(running);
}

#[test]
fn p_83_a_changed_host_key_stops_the_trying() {
    require!(program("sshd"));
    let mut scene = Scene::new();
    scene.sshd.rotate_host_key();
    let mut running = scene.run(scene.settings());
    let status = scene.until(&mut running, "failure", |status| status.state == State::Failed);
    let failure = status.last_failure.expect("a reason");
    assert_eq!(failure.code, "host_key_changed");
    assert!(failure.message.contains(&scene.sshd.fingerprint()), "{}", failure.message);
    assert!(failure.remedy.is_some_and(|remedy| remedy.command.starts_with("ssh-keygen -lf ")));
    assert_eq!(scene.me.starts().len(), 1);
    // The person has compared and noted the new key.
    scene.me.trust_nobody();
    scene.me.trust(&scene.sshd, &[]);
    scene.runtime.block_on(control::ask_retry(&running.dir)).expect("retry");
    scene.until_ready(&mut running);
    scene.stop(running);
}

#[test]
fn a_gateway_that_is_down_is_waited_for_behind_a_living_ssh() {
    require!(program("sshd"));
    let scene = Scene::new();
    scene.gateway.stop();
    let mut running = scene.run(scene.settings());
    let status = scene.until(&mut running, "waiting", |status| status.state == State::Waiting);
    assert_eq!(status.last_failure.expect("a reason").code, "gateway_down");
    // A client that comes now is held until the gateway is there.
    let socket = running.dir.socket();
    let early = thread::spawn(move || {
        let mut socket = websocket(UnixStream::connect(socket).expect("connects"));
        echoes(&mut socket, "early")
    });
    scene.gateway.listen();
    scene.until_ready(&mut running);
    assert!(early.join().expect("no panic"));
    assert_eq!(scene.me.starts().len(), 2, "one ssh and its spare: {:?}", scene.me.starts());
    // It goes down later, and comes back.
    scene.gateway.stop();
    drop(UnixStream::connect(running.dir.socket()).map(|mut stream| stream.write_all(b"GET / HTTP/1.1\r\n\r\n")));
    scene.until(&mut running, "loss of the gateway", |status| status.state != State::Up);
    scene.gateway.listen();
    scene.until_ready(&mut running);
    assert_eq!(scene.me.starts().len(), 2);
    scene.stop(running);
}

#[test]
fn p_85_another_gateway_is_refused_before_a_byte_of_a_client() {
    require!(program("sshd"));
    let scene = Scene::new();
    let expected = GatewayId::of(DeviceKey::from_seed(&[9; 32]).id());
    let mut running = scene.run(Settings { gateway: Some(expected), ..scene.settings() });
    let status = scene.until(&mut running, "failure", |status| status.state == State::Failed);
    assert_eq!(status.last_failure.expect("a reason").code, "wrong_gateway");
    wait_until("end of every ssh", || scene.me.running().is_empty().then_some(()));
    scene.stop(running);
}

#[test]
fn p_85_a_gateway_swapped_behind_the_port_gets_nothing() {
    require!(program("sshd"));
    let scene = Scene::new();
    let mut running = scene.run(Settings { port: Some(free_port()), ..scene.settings() });
    let status = scene.until_ready(&mut running);
    let port = status.port.expect("a port");
    let mut socket = websocket(TcpStream::connect(("127.0.0.1", port)).expect("connects"));
    assert!(echoes(&mut socket, "through the port"));
    scene.gateway.becomes(2);
    // The proof is asked for again when it is older than ten seconds: until then the old word counts.
    let status = {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
                let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
                let _ = stream.read(&mut [0; 64]);
            }
            let status = running.status.borrow().clone();
            if status.state == State::Failed {
                break status;
            }
            assert!(Instant::now() < deadline, "{status:#?}");
            thread::sleep(Duration::from_millis(200));
        }
    };
    assert_eq!(status.last_failure.expect("a reason").code, "wrong_gateway");
    scene.stop(running);
}

#[test]
fn p_84_a_squatted_port_is_told_and_not_used() {
    require!(program("sshd"));
    let scene = Scene::new();
    let squatter = TcpListener::bind("127.0.0.1:0").expect("a port");
    let wished = squatter.local_addr().expect("address").port();
    let mut running = scene.run(Settings { port: Some(wished), ..scene.settings() });
    let status = scene.until_ready(&mut running);
    let refused = status.port_refused.expect("it is told");
    assert_eq!(refused.port, wished);
    let port = status.port.expect("another one");
    assert_ne!(port, wished);
    let mut socket = websocket(TcpStream::connect(("127.0.0.1", port)).expect("connects"));
    assert!(echoes(&mut socket, "through the other port"));
    scene.stop(running);
}

#[test]
fn accounts_without_a_session_are_kept_up_too() {
    require!(program("sshd"));
    let scene = Scene::with(SshdSetup::new().nologin());
    let mut running = scene.run(scene.settings());
    let status = scene.until_ready(&mut running);
    assert!(status.forwards.iter().all(|forward| !forward.session) && status.rtt_ms.is_none(), "{status:#?}");
    kill(current(&status));
    scene.until(&mut running, "replacement", |status| status.replaced == 1 && status.state == State::Up);
    assert_eq!(scene.identify(&running), Some(scene.gateway.id()));
    scene.stop(running);
    assert_eq!(scene.me.running(), [] as [u32; 0]);
}

#[test]
fn kill_9_of_the_supervisor_leaves_no_ssh() {
    require!(program("sshd"));
    for no_session in [false, true] {
        if no_session {
            // Nothing else ends ssh there.
            require!(program("setpriv"));
        }
        let scene = Scene::with(if no_session { SshdSetup::new().nologin() } else { SshdSetup::new() });
        let mut supervisor = Launch::new(binary(), scene.state.path())
            .args(["tunnel", "run", &scene.sshd.target(), "--gateway-port", &scene.gateway.port.to_string()])
            .envs(scene.me.env())
            .env("OPENCLAW_STATE_DIR", scene.state.path())
            .start("supervisor");
        let dir = wait_until("a tunnel's directory", || TunnelDir::all(scene.state.path()).pop());
        let ready = || {
            let status = scene.runtime.block_on(control::ask_status(&dir)).ok()?;
            let spare = status.forwards.iter().any(|forward| forward.role == Role::Spare);
            (status.state == State::Up && spare).then_some(status)
        };
        let status = wait_until("a tunnel with a spare", ready);
        assert_eq!(scene.me.running().len(), 2);
        // With a connection under way.
        let mut socket = websocket(UnixStream::connect(dir.socket()).expect("connects"));
        assert!(echoes(&mut socket, "before"));
        kill(status.pid);
        wait_until("end of the supervisor", || supervisor.ended());
        wait_until("end of every ssh", || scene.me.running().is_empty().then_some(()));
        wait_until("end of the far sessions", || scene.sshd.sessions().is_empty().then_some(()));
        // Its leftovers do not hinder the next one.
        let mut running = scene.run(Settings { dir, ..scene.settings() });
        scene.until_ready(&mut running);
        scene.stop(running);
    }
}
