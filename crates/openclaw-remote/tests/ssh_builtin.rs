//! The ssh client inside this program against the system's sshd.
#![cfg(feature = "builtin-ssh")]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use openclaw_remote::{
    Deadline,
    ssh::{Forward, Interaction, Learned, Program, RemoteCommand, SshFailure, SshFailureKind, SshSpec},
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// An sshd of this user, and a home that may enter it.
struct Scene {
    dir: TempDir,
    sshd: Child,
    port: u16,
    runtime: Runtime,
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = self.sshd.kill();
        let _ = self.sshd.wait();
    }
}

fn key(file: &Path) -> String {
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(file).status();
    assert!(made.expect("ssh-keygen").success());
    fs::read_to_string(file.with_extension("pub")).expect("public key").trim().to_owned()
}

impl Scene {
    /// `None`, said loudly, where there is no sshd.
    fn new(more: &str) -> Option<Self> {
        let program = ["/usr/sbin/sshd", "/usr/bin/sshd"].into_iter().find(|path| Path::new(path).exists());
        let Some(program) = program else {
            eprintln!("SKIPPED: there is no sshd on this machine");
            return None;
        };
        if rustix::process::geteuid().is_root() {
            fs::create_dir_all("/run/sshd").expect("root makes directories");
        }
        let dir = TempDir::with_prefix("oc-").expect("a temporary directory");
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at(".ssh")).expect("directory");
        let host = key(&at("host"));
        fs::write(at("authorized"), key(&at(".ssh/id_ed25519"))).expect("writes");
        // A port that was free a moment ago may be another test's by now.
        let (sshd, port) = (0..10).find_map(|_| Self::listen(program, dir.path(), &host, more)).expect("sshd listens");
        Some(Self { dir, sshd, port, runtime: Runtime::new().expect("runtime") })
    }

    /// Starts it on some port; `None` when it could not have that one.
    fn listen(program: &str, dir: &Path, host: &str, more: &str) -> Option<(Child, u16)> {
        let at = |name: &str| dir.join(name);
        let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("address").port();
        fs::write(at(".ssh/known_hosts"), format!("[127.0.0.1]:{port} {host}\n")).expect("writes");
        let config = format!(
            "{more}\nListenAddress 127.0.0.1\nPort {port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\n\
             StrictModes no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n",
            at("host").display(),
            at("authorized").display()
        );
        fs::write(at("sshd_config"), config).expect("writes");
        let log = fs::File::create(at("log")).expect("log");
        let mut sshd = Command::new(program);
        sshd.args(["-D", "-e", "-f"]).arg(at("sshd_config")).stderr(log).stdin(Stdio::null());
        let mut sshd = sshd.spawn().expect("sshd starts");
        let until = Instant::now() + Duration::from_secs(20);
        let says = |text: &str| fs::read_to_string(at("log")).is_ok_and(|log| log.contains(text));
        while !says("Server listening on 127.0.0.1") {
            if sshd.try_wait().expect("a child").is_some() {
                return None;
            }
            assert!(Instant::now() < until, "sshd does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        Some((sshd, port))
    }

    fn ssh(&self, name: &str) -> PathBuf {
        self.dir.path().join(".ssh").join(name)
    }

    fn spec(&self, gateway_port: u16) -> SshSpec {
        let target = format!("{}@127.0.0.1:{}", user(), self.port).parse().expect("target");
        SshSpec { gateway_port, ..SshSpec::new(target) }
    }

    fn program(&self) -> Program {
        Program::builtin(self.dir.path().to_owned())
    }

    fn open(&self, spec: &SshSpec) -> Result<Forward, SshFailure> {
        let deadline = Deadline::after(Duration::from_secs(20));
        let sockets = self.dir.path().join("sockets");
        self.runtime.block_on(self.program().open(spec, &sockets, Interaction::Batch, Learned::default(), deadline))
    }
}

/// The account this test runs as.
fn user() -> String {
    let output = Command::new("id").arg("-un").output().expect("id");
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

fn echo_service() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let (mut reader, mut writer) = (stream.try_clone().expect("clone"), stream);
                let _ = std::io::copy(&mut reader, &mut writer);
                let _ = writer.shutdown(std::net::Shutdown::Write);
            });
        }
    });
    port
}

fn round_trip(socket: &Path, bytes: &[u8]) -> Vec<u8> {
    let stream = UnixStream::connect(socket).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
    let mut writer = stream.try_clone().expect("clone");
    let sent = bytes.to_vec();
    let writing = std::thread::spawn(move || {
        writer.write_all(&sent).expect("writes");
        writer.shutdown(std::net::Shutdown::Write).expect("shuts");
    });
    let mut answer = Vec::new();
    (&stream).read_to_end(&mut answer).expect("reads");
    writing.join().expect("no panic");
    answer
}

#[test]
fn opens_carries_and_closes() {
    let Some(scene) = Scene::new("") else { return };
    let forward = scene.open(&scene.spec(echo_service())).expect("opens");
    assert!(!forward.learned().no_session);
    let mut pulse = forward.pulse();
    let measured = scene.runtime.block_on(pulse.wait_for(|pulse| pulse.round_trip.is_some())).is_ok();
    assert!(measured, "the heart goes on beating");
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|count| (count.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    assert!(round_trip(forward.socket(), &bytes) == bytes);
    let socket = forward.socket().to_owned();
    scene.runtime.block_on(forward.close());
    assert!(!socket.exists());
}

#[test]
fn commands_run() {
    let Some(scene) = Scene::new("") else { return };
    let remote = RemoteCommand::new(["sh", "-c", "cat; echo err >&2; exit 7"]);
    let deadline = Deadline::after(Duration::from_secs(20));
    let (program, spec) = (scene.program(), scene.spec(1));
    let run = program.run_once(&spec, &remote, b"in\n", Interaction::Batch, deadline);
    let output = scene.runtime.block_on(run).expect("runs");
    assert_eq!((output.code, output.stdout.as_slice(), output.stderr.as_str()), (7, b"in\n".as_slice(), "err\n"));
}

#[test]
fn accounts_without_a_session() {
    let Some(scene) = Scene::new("ForceCommand exit 1") else { return };
    let forward = scene.open(&scene.spec(echo_service())).expect("opens");
    assert!(forward.learned().no_session);
    assert_eq!(round_trip(forward.socket(), b"hello"), b"hello");
}

#[test]
fn p_83_host_keys_are_strict() {
    let Some(scene) = Scene::new("") else { return };
    let known = fs::read_to_string(scene.ssh("known_hosts")).expect("file");
    fs::write(scene.ssh("known_hosts"), "").expect("writes");
    assert_eq!(scene.open(&scene.spec(1)).expect_err("unknown").kind, SshFailureKind::HostUnknown);
    assert_eq!(fs::read(scene.ssh("known_hosts")).expect("file"), b"", "none is learned");
    let other = key(&scene.dir.path().join("other"));
    fs::write(scene.ssh("known_hosts"), format!("[127.0.0.1]:{} {other}\n", scene.port)).expect("writes");
    let changed = scene.open(&scene.spec(1)).expect_err("changed");
    assert_eq!(changed.kind, SshFailureKind::HostKeyChanged);
    assert!(changed.host_key.expect("keys").on_record.ends_with("known_hosts:1"));
    let body = known.split_once(' ').expect("key").1;
    fs::write(scene.ssh("known_hosts"), format!("{known}@revoked * {body}")).expect("writes");
    assert_eq!(scene.open(&scene.spec(1)).expect_err("revoked").kind, SshFailureKind::HostKeyRevoked);
    fs::write(scene.ssh("known_hosts"), &known).expect("writes");
    let hashed = Command::new("ssh-keygen").arg("-Hf").arg(scene.ssh("known_hosts")).output().expect("ssh-keygen");
    assert!(hashed.status.success());
    scene.open(&scene.spec(1)).expect("a hashed one counts");
}

#[test]
fn what_it_cannot_honour_is_refused() {
    let Some(scene) = Scene::new("") else { return };
    for line in ["ProxyJump gate", "ProxyCommand nc %h %p", "Match host x", "HostKeyAlias other"] {
        fs::write(scene.ssh("config"), format!("Host 127.*\n  {line}\n")).expect("writes");
        let failure = scene.open(&scene.spec(1)).expect_err(line);
        assert_eq!((failure.kind, failure.is_fatal()), (SshFailureKind::Config, true), "{line}: {failure}");
        let keyword = line.split(' ').next().expect("keyword").to_ascii_lowercase();
        assert!(failure.detail.contains(&keyword), "{failure}");
    }
    // For another host it does not matter, and what it can honour it does.
    let text = format!(
        "Host other\n  ProxyJump gate\nHost box\n  HostName 127.0.0.1\n  Port {}\n  User {}\n",
        scene.port,
        user()
    );
    fs::write(scene.ssh("config"), text).expect("writes");
    scene.open(&SshSpec::new("box".parse().expect("target"))).expect("opens");
}

#[test]
fn logins_and_gateways_that_fail() {
    let Some(scene) = Scene::new("") else { return };
    let missing = SshSpec { identity: Some("/nonexistent/key".into()), ..scene.spec(1) };
    assert_eq!(scene.open(&missing).expect_err("no key").kind, SshFailureKind::Identity);
    let locked = scene.ssh("locked");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "secret", "-f"]).arg(&locked).status();
    assert!(made.expect("ssh-keygen").success());
    let failure = scene.open(&SshSpec { identity: Some(locked), ..scene.spec(1) }).expect_err("a passphrase");
    assert_eq!(failure.kind, SshFailureKind::Identity, "{failure}");
    let stranger = scene.ssh("stranger");
    key(&stranger);
    let failure = scene.open(&SshSpec { identity: Some(stranger), ..scene.spec(1) }).expect_err("not let in");
    assert_eq!(failure.kind, SshFailureKind::AuthRefused, "{failure}");
    // Port 1 has no gateway.
    let forward = scene.open(&scene.spec(1)).expect("the login works");
    assert!(round_trip(forward.socket(), b"").is_empty());
    let mut pulse = forward.pulse();
    let told = scene.runtime.block_on(pulse.wait_for(|pulse| pulse.refusals > 0)).map(|pulse| pulse.refusal.clone());
    let refusal = told.expect("told");
    assert_eq!(refusal.expect("a reason").kind, SshFailureKind::GatewayDown);
}
