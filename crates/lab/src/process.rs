//! Processes that tests start and that never outlive them: peers, command lines, and gateways of our own.
//!
//! A [`Process`] leads its own process group and takes the whole group down when dropped. Should the test itself be
//! killed, the kernel ends the process too (`setpriv --pdeathsig`).

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{OnceLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;
use tungstenite::{Message, WebSocket, client::IntoClientRequest as _};

use crate::{require::program, sandbox::binary};

/// How long a state may take to come: far beyond any real wait, so that only a hang runs into it.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// How often a state is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// What a process asked to end may take before it is killed.
const GRACE: Duration = Duration::from_secs(20);

/// Waits until `look` gives a value; panics with `what` when [`PATIENCE`] runs out.
#[track_caller]
pub fn wait_until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    wait_at_most(PATIENCE, what, look)
}

/// Waits until `look` gives a value; panics with `what` when `patience` runs out.
#[track_caller]
pub fn wait_at_most<T>(patience: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(Instant::now() < deadline, "no {what} within {patience:?}");
        thread::sleep(LOOK);
    }
}

/// How to start a program: nothing of the test's own environment but `PATH` reaches it.
#[derive(Debug, Clone)]
pub struct Launch {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(String, OsString)>,
    dir: PathBuf,
    stdin: bool,
}

/// How a program ended, and all it said.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// The one JSON document on stdout.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("stdout is not JSON ({error}): {self:#?}"))
    }
}

impl Launch {
    /// A program run in `dir`.
    pub fn new(program: impl Into<PathBuf>, dir: impl Into<PathBuf>) -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let env =
            vec![("PATH".to_owned(), path), ("LANG".to_owned(), "C.UTF-8".into()), ("NO_COLOR".to_owned(), "1".into())];
        Self { program: program.into(), args: Vec::new(), env, dir: dir.into(), stdin: false }
    }

    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable; a later value replaces an earlier one.
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.to_owned(), value.into()));
        self
    }

    pub fn envs<'a>(self, variables: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        variables.into_iter().fold(self, |launch, (name, value)| launch.env(name, value))
    }

    /// The same program, started by another one that takes it as its last arguments (`ip netns exec NAME`, `timeout 5`).
    pub fn by<A: Into<OsString>>(mut self, starter: impl Into<PathBuf>, args: impl IntoIterator<Item = A>) -> Self {
        let program = std::mem::replace(&mut self.program, starter.into());
        let own = std::mem::take(&mut self.args);
        self.args =
            args.into_iter().map(Into::into).chain(std::iter::once(program.into_os_string())).chain(own).collect();
        self
    }

    /// The value it will find in a variable.
    pub fn variable(&self, name: &str) -> Option<&OsString> {
        self.env.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// Gives it a pipe for stdin, to be taken from [`Process::child`].
    pub fn piped_stdin(mut self) -> Self {
        self.stdin = true;
        self
    }

    /// The same as a shell script that passes its own arguments on. `PATH` is put before what it finds.
    pub fn script(&self) -> String {
        let quoted = |text: &std::ffi::OsStr| format!("'{}'", text.to_string_lossy().replace('\'', r"'\''"));
        let mut text = "#!/bin/sh\n".to_owned();
        for (name, value) in &self.env {
            let value = quoted(value);
            text.push_str(&match name.as_str() {
                "PATH" => format!("export PATH={value}:$PATH\n"),
                _ => format!("export {name}={value}\n"),
            });
        }
        let words = std::iter::once(self.program.as_os_str()).chain(self.args.iter().map(OsString::as_os_str));
        text.push_str(&format!("exec {} \"$@\"\n", words.map(quoted).collect::<Vec<_>>().join(" ")));
        text
    }

    /// Starts it; what it says goes to `<name>.out` and `<name>.err` in its directory.
    #[track_caller]
    pub fn start(&self, name: &str) -> Process {
        let stdout = self.dir.join(format!("{name}.out"));
        let stderr = self.dir.join(format!("{name}.err"));
        let mut command = match program("setpriv") {
            Ok(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "KILL", "--"]).arg(&self.program);
                command
            }
            Err(_) => Command::new(&self.program),
        };
        command
            .args(&self.args)
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.dir)
            .process_group(0)
            .stdin(if self.stdin { Stdio::piped() } else { Stdio::null() })
            .stdout(File::create(&stdout).expect("a scratch directory takes files"))
            .stderr(File::create(&stderr).expect("a scratch directory takes files"));
        let child = spawn_for_life(command).unwrap_or_else(|error| panic!("{}: {error}", self.program.display()));
        Process { name: name.to_owned(), child, stdout, stderr }
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// If it has not ended after [`PATIENCE`].
    #[track_caller]
    pub fn run(&self) -> Finished {
        static RUNS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let run = RUNS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut process = self.start(&format!("run-{run}"));
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = process.ended() {
                break status;
            }
            assert!(Instant::now() < deadline, "{:?} {:?} hangs: {}", self.program, self.args, process.said());
            thread::sleep(LOOK);
        };
        Finished { status, stdout: read(&process.stdout), stderr: read(&process.stderr) }
    }
}

/// Spawns from one thread that lives as long as the test process: the kernel's parent-death signal looks at the thread.
fn spawn_for_life(command: Command) -> io::Result<Child> {
    type Job = (Command, mpsc::Sender<io::Result<Child>>);
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, inbox) = mpsc::channel::<Job>();
        thread::spawn(move || {
            for (mut command, answer) in inbox {
                let _ = answer.send(command.spawn());
            }
        });
        jobs
    });
    let (answer, child) = mpsc::channel();
    spawner.clone().send((command, answer)).expect("the spawner thread lives");
    child.recv().expect("the spawner thread answers")
}

/// A running program; dropping it ends its whole process group.
#[derive(Debug)]
pub struct Process {
    name: String,
    pub child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// All it printed on stdout so far.
    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    /// All it printed on stderr so far.
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// Both, for the message of a failed test.
    pub fn said(&self) -> String {
        format!("--- {} stdout\n{}\n--- {} stderr\n{}", self.name, self.stdout(), self.name, self.stderr())
    }

    /// Sends a signal to the process and everything it started in its group.
    pub fn signal(&self, signal: Signal) {
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process has an id");
        // Nothing left in the group is what we want.
        let _ = kill_process_group(group, signal);
    }

    /// Asks it to end, and waits for that.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        wait_until("end of a stopped process", || self.ended())
    }

    /// Ends it without asking.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::TERM);
            let deadline = Instant::now() + GRACE;
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                thread::sleep(LOOK);
            }
        }
        self.kill();
        if thread::panicking() {
            eprintln!("{}", self.said());
        }
    }
}

fn read(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// A loopback port that is free now, below the range the kernel gives to clients, so that it likely stays free.
pub fn free_port() -> u16 {
    loop {
        let mut bytes = [0; 2];
        getrandom::fill(&mut bytes).expect("the system has randomness");
        let port = 20_000 + u16::from_le_bytes(bytes) % 12_000;
        // The real gateway takes a few ports above its own as well.
        if (port..port + 5).all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()) {
            return port;
        }
    }
}

/// A word of lower-case letters and digits nobody else has.
pub fn random_word(length: usize) -> String {
    let mut bytes = vec![0; length];
    getrandom::fill(&mut bytes).expect("the system has randomness");
    bytes.iter().map(|byte| char::from(b"abcdefghijklmnopqrstuvwxyz012345"[usize::from(byte % 32)])).collect()
}

/// `GET path` on loopback: status and body.
///
/// # Errors
/// If nobody listens or the answer is cut short.
pub fn http_get(port: u16, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "no HTTP answer");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(invalid)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(invalid)?;
    Ok((status, body.to_owned()))
}

/// Connects as a local backend with the shared token and reports whether the gateway said hello.
///
/// # Errors
/// What came instead: no listener, no upgrade, or the gateway's own refusal.
pub fn says_hello(port: u16, token: &str) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map_err(|error| text(&error))?;
    stream.set_read_timeout(Some(Duration::from_secs(15))).map_err(|error| text(&error))?;
    let request = format!("ws://127.0.0.1:{port}/").into_client_request().map_err(|error| text(&error))?;
    let (mut socket, _) = tungstenite::client(request, stream).map_err(|error| text(&error))?;
    next_frame(&mut socket, |frame| frame["event"] == "connect.challenge")?;
    let connect = json!({"type": "req", "id": "ready?", "method": "connect", "params": {
        "minProtocol": 3, "maxProtocol": 4, "role": "operator", "scopes": ["operator.read"], "caps": [],
        "client": {"id": "gateway-client", "mode": "backend", "version": "lab", "platform": "linux"},
        "auth": {"token": token},
    }});
    socket.send(Message::text(connect.to_string())).map_err(|error| text(&error))?;
    let answer = next_frame(&mut socket, |frame| frame["id"] == "ready?")?;
    let _ = socket.close(None);
    if answer["ok"] == true { Ok(()) } else { Err(answer["error"].to_string()) }
}

fn next_frame(socket: &mut WebSocket<TcpStream>, wanted: impl Fn(&Value) -> bool) -> Result<Value, String> {
    loop {
        let message = socket.read().map_err(|error| error.to_string())?;
        if let Message::Text(text) = message {
            let frame: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
            if wanted(&frame) {
                return Ok(frame);
            }
        }
    }
}

/// What our gateway is started with, beyond `gateway run --bind loopback --port <free>`.
#[derive(Debug, Clone)]
pub struct GatewayOptions {
    /// More arguments.
    pub args: Vec<String>,
    /// More variables.
    pub env: Vec<(String, String)>,
    /// The text of `openclaw.json`; none means no file.
    pub config: Option<String>,
    /// The shared secret, handed over by `OPENCLAW_GATEWAY_TOKEN`.
    pub token: String,
}

impl Default for GatewayOptions {
    fn default() -> Self {
        let token = format!("lab-{}", uuid::Uuid::new_v4().simple());
        Self { args: Vec::new(), env: Vec::new(), config: None, token }
    }
}

/// Our gateway as a real process, with a home and state directory of its own.
pub struct Gateway {
    process: Process,
    launch: Launch,
    home: TempDir,
    port: u16,
    token: String,
}

impl Gateway {
    /// Starts one with the defaults.
    #[track_caller]
    pub fn start() -> Self {
        Self::start_with(GatewayOptions::default())
    }

    /// Starts one; returns when `/healthz` is live and a client with the token is greeted.
    #[track_caller]
    pub fn start_with(options: GatewayOptions) -> Self {
        let home = TempDir::with_prefix("openclaw-lab-").expect("a temporary directory");
        let state = home.path().join("state");
        fs::create_dir(&state).expect("a scratch directory takes directories");
        if let Some(config) = &options.config {
            fs::write(state.join("openclaw.json"), config).expect("a scratch directory takes files");
        }
        let port = free_port();
        let launch = Launch::new(binary(), home.path())
            .args(["gateway", "run", "--bind", "loopback", "--port", &port.to_string()])
            .args(options.args)
            .env("HOME", home.path())
            .env("OPENCLAW_STATE_DIR", &state)
            .env("OPENCLAW_GATEWAY_TOKEN", &options.token);
        let launch = options.env.iter().fold(launch, |launch, (name, value)| launch.env(name, value));
        let process = launch.start("gateway");
        let mut gateway = Self { process, launch, home, port, token: options.token };
        gateway.wait_ready();
        gateway
    }

    #[track_caller]
    fn wait_ready(&mut self) {
        let (port, token) = (self.port, self.token.clone());
        wait_until("hello from our gateway", || {
            if let Some(status) = self.process.ended() {
                panic!("our gateway ended ({status})\n{}", self.process.said());
            }
            let live = http_get(port, "/healthz").is_ok_and(|(status, _)| status == 200);
            (live && says_hello(port, &token).is_ok()).then_some(())
        });
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("ws://127.0.0.1:{}", self.port)
    }

    pub fn token(&self) -> &str {
        &self.token
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    pub fn state_dir(&self) -> PathBuf {
        self.home.path().join("state")
    }

    /// What it printed in this life.
    pub fn said(&self) -> String {
        self.process.said()
    }

    /// Asks it to end; it has to end well.
    #[track_caller]
    pub fn stop(&mut self) {
        let status = self.process.stop();
        assert!(status.success(), "our gateway ended badly ({status})\n{}", self.process.said());
    }

    /// Asks it to end, does something once it has begun to, and waits for its end, which has to be a good one.
    #[track_caller]
    pub fn stop_while(&mut self, meanwhile: impl FnOnce()) {
        self.process.signal(Signal::TERM);
        wait_until("the beginning of the stop", || self.said().contains("stopping (SIGTERM)").then_some(()));
        meanwhile();
        let status = wait_until("end of a stopped process", || self.process.ended());
        assert!(status.success(), "our gateway ended badly ({status})\n{}", self.process.said());
    }

    /// Our command line as its owner types it on the same machine.
    pub fn cli<A: Into<OsString>>(&self, args: impl IntoIterator<Item = A>) -> Launch {
        our_cli(self.home(), self.port, &self.token).env("OPENCLAW_STATE_DIR", self.state_dir()).args(args)
    }

    /// Ends it without asking.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same port and state directory.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.begin_again();
        self.wait_ready();
    }

    /// As [`Self::start_again`], without waiting for anything.
    #[track_caller]
    pub fn begin_again(&mut self) {
        assert!(self.process.ended().is_some(), "our gateway still runs");
        self.process = self.launch.start("gateway-again");
    }
}

/// Our command line against a gateway on a loopback port, with a home of its own and the token in its environment.
pub fn our_cli(home: &Path, port: u16, token: &str) -> Launch {
    Launch::new(binary(), home)
        .env("HOME", home)
        .env("OPENCLAW_GATEWAY_PORT", port.to_string())
        .env("OPENCLAW_GATEWAY_TOKEN", token)
}
