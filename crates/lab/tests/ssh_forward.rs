//! Our ssh transport against the system's sshd: opening, measuring, ending, and every failure by its true cause.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::{Path, PathBuf},
    time::Duration,
};

use lab::{
    process::{free_port, wait_until},
    require,
    require::program,
    sshd::{SshClient, Sshd, SshdSetup},
};
use openclaw_config::gateway::HostKeyPolicy;
use openclaw_remote::{
    Deadline, Error, Stage,
    client::Client,
    ssh::{Forward, Interaction, Learned, Program, RemoteCommand, SshFailure, SshFailureKind, SshSpec},
};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// A far host, a person who may enter it, and a directory for sockets.
struct Scene {
    sshd: Sshd,
    me: SshClient,
    dir: TempDir,
    runtime: Runtime,
}

impl Scene {
    fn new() -> Self {
        Self::with(SshdSetup::new())
    }

    fn with(setup: SshdSetup) -> Self {
        let (sshd, me) = (setup.start(), SshClient::new());
        me.may_enter(&sshd, "box");
        let runtime = Runtime::new().expect("a runtime");
        Self { sshd, me, dir: TempDir::with_prefix("oc-").expect("a temporary directory"), runtime }
    }

    fn program(&self) -> Program {
        Program::at(self.me.bin().join("ssh")).expect("absolute")
    }

    fn spec(&self, port: u16) -> SshSpec {
        let target = self.sshd.target().parse().expect("a target");
        SshSpec { gateway_port: port, ..SshSpec::new(target) }
    }

    fn open(&self, spec: &SshSpec) -> Result<Forward, SshFailure> {
        self.open_with(spec, Learned::default())
    }

    fn open_with(&self, spec: &SshSpec, learned: Learned) -> Result<Forward, SshFailure> {
        let deadline = Deadline::after(Duration::from_secs(20));
        self.runtime.block_on(self.program().open(spec, self.dir.path(), Interaction::Batch, learned, deadline))
    }

    fn refused(&self, spec: &SshSpec) -> SshFailure {
        self.open(spec).expect_err("ssh fails")
    }

    fn run(&self, remote: RemoteCommand, stdin: &[u8]) -> Result<openclaw_remote::ssh::Output, SshFailure> {
        let deadline = Deadline::after(Duration::from_secs(20));
        let program = self.program();
        self.runtime.block_on(program.run_once(&self.spec(1), &remote, stdin, Interaction::Batch, deadline))
    }
}

/// A far service that sends back what it gets.
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

fn round_trip(socket: &Path, text: &str) -> String {
    let mut stream = UnixStream::connect(socket).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
    stream.write_all(text.as_bytes()).expect("writes");
    stream.shutdown(std::net::Shutdown::Write).expect("shuts");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("reads");
    answer
}

fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[test]
fn opens_measures_and_closes() {
    require!(program("sshd"));
    let scene = Scene::new();
    let forward = scene.open(&scene.spec(echo_service())).expect("opens");
    let time = wait_until("a beat after the login", || forward.round_trip());
    assert!(time > Duration::ZERO && time < Duration::from_secs(5));
    assert_eq!(forward.learned(), Learned::default());
    let mode = fs::symlink_metadata(forward.socket()).expect("socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(round_trip(forward.socket(), "hello through ssh"), "hello through ssh");
    // The heart goes on beating.
    let first = forward.pulse().borrow().last_echo;
    scene.runtime.block_on(async {
        let mut pulse = forward.pulse();
        forward.beat();
        pulse.wait_for(|pulse| pulse.last_echo != first).await.expect("another echo");
    });
    let (pid, socket) = (forward.pid().expect("a process"), forward.socket().to_owned());
    scene.runtime.block_on(forward.close());
    assert!(!is_alive(pid) && !socket.exists());
    assert_eq!(scene.me.running(), [] as [u32; 0]);
    wait_until("end of the far session", || scene.sshd.sessions().is_empty().then_some(()));
    assert_eq!(scene.me.starts().len(), 1, "one ssh was enough: {:?}", scene.me.starts());
}

#[test]
fn a_dropped_forward_leaves_nothing() {
    require!(program("sshd"));
    let scene = Scene::new();
    let forward = scene.open(&scene.spec(echo_service())).expect("opens");
    let socket = forward.socket().to_owned();
    drop(forward);
    wait_until("end of ssh", || scene.me.running().is_empty().then_some(()));
    assert!(!socket.exists());
    // Giving up half-way leaves nothing either.
    let (program, spec) = (scene.program(), scene.spec(1));
    for cancelled_after in [0, 20, 60, 120] {
        scene.runtime.block_on(async {
            let deadline = Deadline::after(Duration::from_secs(20));
            let open = program.open(&spec, scene.dir.path(), Interaction::Batch, Learned::default(), deadline);
            let _ = tokio::time::timeout(Duration::from_millis(cancelled_after), open).await;
        });
        wait_until("end of ssh", || scene.me.running().is_empty().then_some(()));
    }
}

#[test]
fn accounts_without_a_session() {
    require!(program("sshd"));
    for setup in [SshdSetup::new().no_sessions(), SshdSetup::new().nologin()] {
        let scene = Scene::with(setup);
        let forward = scene.open(&scene.spec(echo_service())).expect("opens");
        assert!(forward.learned().no_session);
        assert_eq!(forward.round_trip(), None);
        assert_eq!(round_trip(forward.socket(), "hello"), "hello");
        assert_eq!(scene.me.starts().len(), 2, "one to learn, one to stay: {:?}", scene.me.starts());
        // The next one begins with what was learned.
        let again = scene.open_with(&scene.spec(echo_service()), forward.learned()).expect("opens");
        assert_eq!(scene.me.starts().len(), 3);
        scene.runtime.block_on(forward.close());
        scene.runtime.block_on(again.close());
        assert_eq!(scene.me.running(), [] as [u32; 0]);
    }
}

#[test]
fn a_profile_that_prints_is_no_heartbeat_and_no_hindrance() {
    require!(program("sshd"));
    let scene = Scene::with(SshdSetup::new().line("ForceCommand printf 'Welcome to the box'; exec cat"));
    let forward = scene.open(&scene.spec(echo_service())).expect("opens");
    assert!(!forward.learned().no_session);
    wait_until("a beat after the login", || forward.round_trip());
}

#[test]
fn forwardings_of_the_persons_own_config_do_not_hinder() {
    require!(program("sshd"));
    let scene = Scene::new();
    // As the seeds' recipe has it (S-173), with the port taken by another program.
    let squatter = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = squatter.local_addr().expect("address").port();
    let _also = TcpListener::bind(("::1", taken));
    let config = fs::read_to_string(scene.me.config()).expect("config");
    fs::write(
        scene.me.config(),
        format!("LocalForward {taken} 127.0.0.1:18789\nRemoteCommand sleep 1\nSessionType none\n{config}"),
    )
    .expect("writes");
    let forward = scene.open(&scene.spec(echo_service())).expect("opens");
    assert!(forward.learned().other_forwards);
    assert_eq!(round_trip(forward.socket(), "hello"), "hello");
    let output = scene.run(RemoteCommand::new(["echo", "hi"]), b"").expect("runs");
    assert_eq!(output.stdout, b"hi\n");
}

#[test]
fn p_83_an_unknown_host_key_is_not_accepted() {
    require!(program("sshd"));
    let scene = Scene::new();
    scene.me.trust_nobody();
    for policy in [HostKeyPolicy::Strict, HostKeyPolicy::Openssh] {
        let spec = SshSpec { host_keys: policy, ..scene.spec(1) };
        let failure = scene.refused(&spec);
        assert_eq!((failure.kind, failure.is_fatal()), (SshFailureKind::HostUnknown, true), "{failure}");
        let remedy = failure.remedy().expect("advice").command;
        assert_eq!(remedy, format!("ssh -p {} {} true", scene.sshd.port(), spec.target.destination()));
        assert_eq!(fs::read(scene.me.known_hosts()).expect("file"), b"", "nothing was noted");
    }
}

#[test]
fn p_83_a_hashed_known_hosts_counts() {
    require!(program("sshd"));
    let scene = Scene::new();
    let hashed = std::process::Command::new("ssh-keygen").arg("-Hf").arg(scene.me.known_hosts()).output();
    assert!(hashed.expect("ssh-keygen").status.success());
    assert!(!fs::read_to_string(scene.me.known_hosts()).expect("file").contains("127.0.0.1"));
    scene.open(&scene.spec(1)).expect("opens");
}

#[test]
fn p_83_a_changed_host_key_is_shown_and_refused() {
    require!(program("sshd"));
    let mut scene = Scene::new();
    scene.sshd.rotate_host_key();
    let before = fs::read(scene.me.known_hosts()).expect("file");
    let failure = scene.refused(&scene.spec(1));
    assert_eq!(
        (failure.kind, failure.is_fatal(), failure.code()),
        (SshFailureKind::HostKeyChanged, true, "host_key_changed")
    );
    let key = failure.host_key.as_ref().expect("the keys");
    assert_eq!((key.algorithm.as_str(), &key.shown), ("ED25519", &scene.sshd.fingerprint()));
    assert_eq!(key.on_record, format!("{}:1", scene.me.known_hosts().display()));
    let text = failure.to_string();
    assert!(text.contains(&key.shown) && text.contains(&key.on_record), "{text}");
    let remedy = failure.remedy().expect("advice");
    assert_eq!(
        (remedy.command.as_str(), remedy.machine()),
        ("ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub", "on the gateway host")
    );
    assert_eq!(fs::read(scene.me.known_hosts()).expect("file"), before, "nothing was changed");
    assert_eq!(scene.me.starts().len(), 1, "it was not tried again");
}

#[test]
fn a_login_that_is_refused() {
    require!(program("sshd"));
    let scene = Scene::new();
    let other = scene.me.other_key("other");
    let spec = SshSpec { identity: Some(other), ..scene.spec(1) };
    // The config's own key is offered as well, so take that one away.
    scene.sshd.authorize_nobody();
    let failure = scene.refused(&spec);
    assert_eq!((failure.kind, failure.is_fatal()), (SshFailureKind::AuthRefused, true), "{failure}");
    assert!(failure.detail.contains("Permission denied"), "{failure}");
    let missing = SshSpec { identity: Some("/nonexistent/key".into()), ..scene.spec(1) };
    assert_eq!(scene.refused(&missing).kind, SshFailureKind::Identity);
}

#[test]
fn hosts_that_cannot_be_reached() {
    require!(program("sshd"));
    let scene = Scene::new();
    let spec = |target: &str| SshSpec::new(target.parse().expect("a target"));
    let closed = free_port();
    let refused = scene.refused(&spec(&format!("127.0.0.1:{closed}")));
    assert_eq!((refused.kind, refused.is_fatal()), (SshFailureKind::Refused, false), "{refused}");
    let name = scene.refused(&spec("nosuchhost.invalid"));
    assert_eq!(name.kind, SshFailureKind::Name, "{name}");
    assert_eq!(name.remedy().expect("advice").command, "getent hosts nosuchhost.invalid");
    // Somebody who accepts and hangs up, and somebody who accepts and says nothing.
    let rude = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = rude.local_addr().expect("address").port();
    std::thread::spawn(move || rude.incoming().for_each(drop));
    assert_eq!(scene.refused(&spec(&format!("127.0.0.1:{port}"))).kind, SshFailureKind::Handshake);
    let mute = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = mute.local_addr().expect("address").port();
    let failure = scene.refused(&spec(&format!("127.0.0.1:{port}")));
    assert_eq!(failure.kind, SshFailureKind::TimedOut, "{failure}");
}

#[test]
fn a_jump_host_that_cannot_go_on() {
    require!(program("sshd"));
    let scene = Scene::new();
    let closed = free_port();
    scene.me.alias("far", "127.0.0.1", closed, &["ProxyJump box"]);
    let failure = scene.refused(&SshSpec::new("far".parse().expect("target")));
    assert_eq!(failure.kind, SshFailureKind::Refused, "{failure}");
    assert!(failure.detail.contains("jump host"), "{failure}");
    // And one that can.
    scene.me.alias("near", "127.0.0.1", scene.sshd.port(), &["ProxyJump box"]);
    let spec = SshSpec { gateway_port: echo_service(), ..SshSpec::new("near".parse().expect("target")) };
    let forward = scene.open(&spec).expect("opens");
    assert_eq!(round_trip(forward.socket(), "hello"), "hello");
    scene.runtime.block_on(forward.close());
    wait_until("end of both ssh", || scene.me.running().is_empty().then_some(()));
}

#[test]
fn a_gateway_that_is_down_behind_ssh() {
    require!(program("sshd"));
    let scene = Scene::new();
    let forward = scene.open(&scene.spec(free_port())).expect("ssh itself is fine");
    let error = scene.runtime.block_on(async {
        let deadline = Deadline::after(Duration::from_secs(10));
        let error = Client::identify(&forward.endpoint(), deadline, None).await.expect_err("nobody there");
        forward.explain(error).await
    });
    let Error::Ssh(failure) = &error else { panic!("{error:?}") };
    assert_eq!((failure.kind, failure.is_fatal(), error.stage()), (SshFailureKind::GatewayDown, false, Stage::Ssh));
    assert!(error.to_string().contains("nothing listens on the gateway's port"), "{error}");
}

#[test]
fn forwarding_that_the_host_forbids() {
    require!(program("sshd"));
    let scene = Scene::with(SshdSetup::new().line("PermitOpen 127.0.0.1:1"));
    let forward = scene.open(&scene.spec(echo_service())).expect("the login is fine");
    let error = scene.runtime.block_on(async {
        let deadline = Deadline::after(Duration::from_secs(10));
        let error = Client::identify(&forward.endpoint(), deadline, None).await.expect_err("not let through");
        forward.explain(error).await
    });
    let Error::Ssh(failure) = &error else { panic!("{error:?}") };
    assert_eq!((failure.kind, failure.is_fatal()), (SshFailureKind::ForwardRefused, true), "{failure}");
}

#[test]
fn a_session_that_is_killed_ends_the_forward() {
    require!(program("sshd"));
    let scene = Scene::new();
    let forward = scene.open(&scene.spec(1)).expect("opens");
    scene.sshd.kill_sessions();
    let failure = scene.runtime.block_on(forward.ended());
    assert_eq!((failure.kind, failure.is_fatal()), (SshFailureKind::Lost, false), "{failure}");
    // And one whose ssh is killed here.
    let forward = scene.open(&scene.spec(1)).expect("opens");
    scene.me.kill_all();
    let failure = scene.runtime.block_on(forward.ended());
    assert_eq!(failure.kind, SshFailureKind::Lost, "{failure}");
    let socket = forward.socket().to_owned();
    drop(forward);
    assert!(!socket.exists(), "a killed ssh leaves its socket to us");
}

#[test]
fn silence_stops_the_echo() {
    require!(program("sshd"));
    let scene = Scene::new();
    let forward = scene.open(&scene.spec(1)).expect("opens");
    scene.sshd.signal_sessions(Signal::STOP);
    let quiet = scene.runtime.block_on(async {
        let mut pulse = forward.pulse();
        pulse.mark_unchanged();
        forward.beat();
        // An echo already under way may still come; after that there is none.
        let _ = tokio::time::timeout(Duration::from_millis(100), pulse.changed()).await;
        tokio::time::timeout(Duration::from_secs(2), pulse.changed()).await.is_err()
    });
    assert!(quiet);
    scene.sshd.signal_sessions(Signal::CONT);
    scene.runtime.block_on(async {
        let mut pulse = forward.pulse();
        let before = pulse.borrow().last_echo;
        pulse.wait_for(|pulse| pulse.last_echo != before).await.expect("it goes on");
    });
}

#[test]
fn one_command_on_the_far_host() {
    require!(program("sshd"));
    let scene = Scene::new();
    let output =
        scene.run(RemoteCommand::new(["sh", "-c", "cat; echo \"$0 $1\" >&2; exit 7", "a b", "$(id)"]), b"in\n");
    let output = output.expect("runs");
    assert_eq!((output.code, output.success(), output.stdout.as_slice()), (7, false, b"in\n".as_slice()));
    assert!(output.stderr.contains("a b $(id)"), "{}", output.stderr);
    // A command that does not read what it is given, and one that says very much.
    let big = vec![b'x'; 300_000];
    assert!(scene.run(RemoteCommand::new(["true"]), &big).expect("runs").success());
    let output = scene.run(RemoteCommand::new(["sh", "-c", "head -c 3000000 /dev/zero"]), b"").expect("runs");
    assert_eq!((output.code, output.stdout.len()), (0, 1024 * 1024));
    let missing = scene.run(RemoteCommand::new(["no-such-command-here"]), b"").expect("the far shell answers");
    assert_eq!(missing.code, 127);
    scene.sshd.authorize_nobody();
    assert_eq!(scene.run(RemoteCommand::new(["true"]), b"").expect_err("refused").kind, SshFailureKind::AuthRefused);
    assert_eq!(scene.me.running(), [] as [u32; 0]);
}

#[test]
fn a_long_state_directory_gets_a_short_socket() {
    require!(program("sshd"));
    let scene = Scene::new();
    let long: PathBuf = scene.dir.path().join("x".repeat(120)).join("a b:c%h");
    let deadline = Deadline::after(Duration::from_secs(20));
    let (program, spec) = (scene.program(), scene.spec(echo_service()));
    let open = program.open(&spec, &long, Interaction::Batch, Learned::default(), deadline);
    let forward = scene.runtime.block_on(open).expect("opens");
    assert!(forward.socket().as_os_str().len() < 104, "{}", forward.socket().display());
    assert_eq!(round_trip(forward.socket(), "hello"), "hello");
    let dir = forward.socket().parent().expect("dir").to_owned();
    let mode = fs::metadata(&dir).expect("dir").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    drop(forward);
    fs::remove_dir(&dir).expect("empty again");
}

#[test]
fn what_ssh_makes_of_an_alias() {
    require!(program("ssh"));
    require!(program("sshd"));
    let scene = Scene::new();
    scene.me.alias("nas", "192.0.2.7", 2222, &["ProxyJump box", "IdentityFile ~/.ssh/nas_key"]);
    let target = "nas".parse().expect("a target");
    let found = scene.runtime.block_on(scene.program().effective(&target)).expect("ssh -G");
    assert_eq!((found.host.as_str(), found.port), ("192.0.2.7", Some(2222)));
    assert_eq!(found.proxy_jump.as_deref(), Some("box"));
    assert_eq!(found.identity_files.first(), Some(&PathBuf::from("~/.ssh/nas_key")));
    assert!(found.known_hosts.contains(&scene.me.known_hosts()));
    assert_eq!(openclaw_remote::ssh::config_hosts(scene.me.home()), ["nas", "box"]);
}

#[test]
fn p_82_a_stub_sees_only_our_words() {
    let dir = TempDir::with_prefix("oc-").expect("a temporary directory");
    let (stub, record) = (dir.path().join("ssh"), dir.path().join("argv"));
    let text = format!("#!/bin/sh\nprintf '%s\\n' \"$@\" >'{}'\nexit 255\n", record.display());
    fs::write(&stub, text).expect("writes");
    fs::set_permissions(&stub, fs::Permissions::from_mode(0o755)).expect("sets the mode");
    let runtime = Runtime::new().expect("a runtime");
    let program = Program::at(&stub).expect("absolute");
    let mut spec = SshSpec::new("me@[::1]:2222".parse().expect("a target"));
    spec.identity = Some("/k/it's a $(key) 100%".into());
    let deadline = Deadline::after(Duration::from_secs(10));
    let open = program.open(&spec, dir.path(), Interaction::Batch, Learned::default(), deadline);
    let failure = runtime.block_on(open).expect_err("the stub fails");
    assert_eq!(failure.kind, SshFailureKind::Other);
    let argv = fs::read_to_string(&record).expect("it ran");
    let argv: Vec<&str> = argv.lines().collect();
    let dashes = argv.iter().position(|word| *word == "--").expect("dashes");
    assert_eq!(argv[dashes + 1..], ["me@::1", "cat"]);
    assert!(argv.windows(2).any(|pair| pair == ["-i", "/k/it's a $(key) 100%%"]), "{argv:?}");
    assert!(argv.windows(2).any(|pair| pair == ["-p", "2222"]));
    // S-054 and the options that keep the person's config from changing what this is.
    for option in [
        "ServerAliveInterval=60",
        "ServerAliveCountMax=3",
        "ExitOnForwardFailure=yes",
        "ControlMaster=no",
        "ControlPath=none",
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        "PermitLocalCommand=no",
        "ForwardAgent=no",
    ] {
        assert!(argv.windows(2).any(|pair| pair == ["-o", option]), "{option}: {argv:?}");
    }
    fs::remove_file(&record).expect("remove");
    let identity = SshSpec { identity: Some("-oProxyCommand=touch /tmp/x".into()), ..spec };
    let deadline = Deadline::after(Duration::from_secs(10));
    let open = program.open(&identity, dir.path(), Interaction::Batch, Learned::default(), deadline);
    assert_eq!(runtime.block_on(open).expect_err("refused").kind, SshFailureKind::Identity);
    assert!(!record.exists(), "P-81: refused before ssh starts");
}
