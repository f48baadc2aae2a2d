//! `openclaw connect` with a real sshd and a real gateway: from nothing to a working gateway, or back to nothing.

use std::{collections::BTreeSet, fs, path::PathBuf};

use lab::{
    peers::{Generation, Peers, RealGateway},
    process::{Finished, Gateway, Launch, Process, wait_until},
    require::program,
    sandbox::{binary, walk},
    sshd::{SshClient, Sshd, SshdSetup},
};
use openclaw_protocol::{DeviceKey, GatewayId, Role, SetupCode, method::invite::Invited};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// What the steps are called, in their order.
const STEPS: [&str; 8] = ["ssh", "login", "gateway", "tunnel", "pair", "call", "save", "keep"];

/// A person with a clean machine, and a host they may log in to.
struct Me {
    ssh: SshClient,
    sshd: Sshd,
}

impl Me {
    fn new(far: SshdSetup) -> Self {
        let me = Self { ssh: SshClient::new(), sshd: far.start() };
        me.ssh.may_enter(&me.sshd, "box");
        me
    }

    fn state(&self) -> PathBuf {
        self.ssh.home().join("state")
    }

    fn openclaw<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Launch {
        Launch::new(binary(), self.ssh.home())
            .envs(self.ssh.env())
            .env("OPENCLAW_STATE_DIR", self.state())
            .args(args.into_iter().map(str::to_owned))
    }

    #[track_caller]
    fn run<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Finished {
        self.openclaw(args).run()
    }

    /// Everything that runs on this person's behalf, however it was started.
    fn processes(&self) -> Vec<(u32, String)> {
        let home = format!("HOME={}", self.ssh.home().display());
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").expect("procfs").flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            if environment.split(|byte| *byte == 0).any(|variable| variable == home.as_bytes()) {
                let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                // A process that has just ended has no command line any more.
                if !line.is_empty() {
                    found.push((pid, String::from_utf8_lossy(&line).replace('\0', " ")));
                }
            }
        }
        found
    }

    #[track_caller]
    fn nothing_runs(&self) {
        wait_until("end of every child", || self.processes().is_empty().then_some(()));
    }

    /// No key, no token, no saved gateway.
    #[track_caller]
    fn nothing_is_kept(&self, case: &str) {
        assert!(!self.state().join("identity/device.json").exists(), "{case}: a key is left");
        let text = |file: &str| fs::read_to_string(self.state().join(file)).unwrap_or_default();
        assert!(!text("identity/device-auth.json").contains("token\""), "{case}: a token is left");
        let book = text("connections.json");
        let book: Value = if book.is_empty() { Value::Null } else { serde_json::from_str(&book).expect("json") };
        assert!(book["connections"].as_object().is_none_or(serde_json::Map::is_empty), "{case}: {book}");
        assert!(book["current"].is_null(), "{case}: {book}");
    }
}

impl Drop for Me {
    fn drop(&mut self) {
        // The supervisor of a kept tunnel has left our process group on purpose.
        if self.state().join("tunnels").exists() {
            let _ = self.run(["tunnel", "down", "--all"]);
        }
        // One that was only just starting could not be asked.
        for (pid, _) in self.processes() {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

/// A session on the gateway's own account.
fn as_owner(gateway: &Gateway) -> SshdSetup {
    SshdSetup::new().with_openclaw(&binary(), gateway.home(), &gateway.state_dir())
}

fn owner(gateway: &Gateway, args: &[&str]) -> Finished {
    let cli = Launch::new(binary(), gateway.home()).env("HOME", gateway.home());
    cli.env("OPENCLAW_STATE_DIR", gateway.state_dir()).args(args.iter().copied()).run()
}

fn paired(gateway: &Gateway) -> BTreeSet<String> {
    let list = owner(gateway, &["devices", "list", "--json"]).json();
    let ids = list["paired"].as_array().expect("a list").iter().map(|device| device["deviceId"].as_str().expect("id"));
    ids.map(str::to_owned).collect()
}

#[track_caller]
fn error_of(finished: &Finished) -> Value {
    assert!(!finished.status.success(), "{finished:#?}");
    let envelope = finished.json();
    assert_eq!(envelope["ok"], false, "{envelope}");
    envelope
}

#[test]
fn one_command_from_nothing_to_a_verified_call() {
    lab::require!(program("sshd"));
    let gateway = Gateway::start();
    let me = Me::new(as_owner(&gateway));
    let connected = me.run(["connect", "box", "--json"]);
    assert!(connected.status.success(), "{connected:#?}");
    let report = connected.json();
    let steps: Vec<&str> =
        report["steps"].as_array().expect("steps").iter().filter_map(|s| s["step"].as_str()).collect();
    assert_eq!(steps, STEPS);
    assert_eq!((&report["name"], &report["current"], &report["tunnel"]), (&"box".into(), &true.into(), &true.into()));
    let total: u64 = report["steps"].as_array().expect("steps").iter().filter_map(|step| step["ms"].as_u64()).sum();
    eprintln!("connected in {total} ms: {}", connected.stderr);

    // The gateway knows this device by an invitation, with the rights that were asked for.
    let device = report["deviceId"].as_str().expect("an id").to_owned();
    assert_eq!(paired(&gateway), BTreeSet::from([device.clone()]));
    let list = owner(&gateway, &["devices", "list", "--json"]).json();
    assert_eq!(list["paired"][0]["approvedVia"], "bootstrap", "{list}");

    // Afterwards every command goes there by itself, over the tunnel that was kept.
    let health = me.run(["health", "--json"]);
    assert!(health.status.success() && health.json()["ok"] == true, "{health:#?}");
    let tunnels = me.run(["tunnel", "ls", "--json"]).json();
    assert_eq!(tunnels["tunnels"][0]["state"], "up", "{tunnels}");

    // The shared secret never came here, and the key is for nobody else.
    for file in walk(me.ssh.home()) {
        let text = lab::wire::read_lossy(&file);
        assert!(!text.contains(gateway.token()), "the shared secret is in {}", file.display());
    }
    let ours = ["identity/device.json", "identity/device-auth.json", "connections.json"];
    for file in ours.map(|file| me.state().join(file)) {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&file).expect("kept").permissions().mode() & 0o777, 0o600, "{}", file.display());
    }

    // The way back that it printed.
    let words = report["undo"].as_str().expect("a command").split(' ').skip(1);
    assert!(me.run(words).status.success());
    me.nothing_runs();
    assert!(!me.run(["--on", "box", "health"]).status.success());
}

#[test]
fn again_with_the_same_key_and_no_tunnel() {
    lab::require!(program("sshd"));
    let gateway = Gateway::start();
    let me = Me::new(as_owner(&gateway));
    let first = me.run(["connect", "box", "--json", "--no-keep", "--scopes", "read"]).json();
    assert_eq!((&first["ok"], &first["tunnel"]), (&true.into(), &false.into()), "{first}");
    me.nothing_runs();
    // The same target keeps its name and its device, and may get more rights.
    let second = me.run(["connect", "box", "--json", "--no-keep"]).json();
    assert_eq!((&second["name"], &second["deviceId"]), (&"box".into(), &first["deviceId"]), "{second}");
    assert_eq!(paired(&gateway).len(), 1);
    // A name is taken over only when that is said.
    let refused = me.run(["connect", "box", "--json", "--no-keep", "--name", "box"]);
    assert!(error_of(&refused)["error"]["message"].as_str().expect("text").contains("saved as \"box\" already"));
    assert!(me.run(["connect", "box", "--json", "--no-keep", "--name", "box", "--yes"]).status.success());

    // A failure takes back what it did and leaves what was there: the pairing, the key and the saved gateway.
    let before = fs::read_to_string(me.state().join("connections.json")).expect("kept");
    fs::create_dir_all(me.state().join("tunnels")).expect("a folder");
    fs::write(me.state().join("tunnels/box"), "in the way").expect("a file where the tunnel's folder has to be");
    let broken = me.run(["connect", "box", "--json"]);
    let envelope = error_of(&broken);
    assert_eq!((&envelope["step"], &envelope["left"]), (&"keep".into(), &serde_json::json!([])), "{envelope}");
    fs::remove_file(me.state().join("tunnels/box")).expect("still there");
    assert_eq!(paired(&gateway).len(), 1);
    assert_eq!(fs::read_to_string(me.state().join("connections.json")).expect("kept"), before);
    assert!(me.state().join("identity/device.json").exists());
}

#[test]
fn what_is_wrong_is_named_and_nothing_stays() {
    lab::require!(program("sshd"));
    let mut gateway = Gateway::start();
    let mut me = Me::new(as_owner(&gateway));
    let refused = |me: &Me, what: &str, exit: i32, step: &str, code: &str| {
        let finished = me.run(["connect", "box", "--json"]);
        let envelope = error_of(&finished);
        let error = &envelope["error"];
        let found = error["code"].as_str().or(error["kind"].as_str());
        assert_eq!(
            (finished.status.code(), &envelope["step"], found),
            (Some(exit), &step.into(), Some(code)),
            "{what}: {envelope}"
        );
        assert!(finished.stderr.contains("Nothing was changed, here or there."), "{what}: {}", finished.stderr);
        me.nothing_runs();
        me.nothing_is_kept(what);
        finished
    };
    me.sshd.authorize_nobody();
    refused(&me, "wrong key", 19, "login", "ssh_auth_refused");
    me.sshd.authorize(&me.ssh.public_key());

    me.ssh.trust_nobody();
    refused(&me, "unknown host", 19, "login", "host_key_unknown");
    me.ssh.trust(&me.sshd, &[]);

    me.sshd.rotate_host_key();
    let changed = refused(&me, "changed host key", 19, "login", "host_key_changed");
    assert!(changed.stderr.contains(&me.sshd.fingerprint()), "{}", changed.stderr);
    me.ssh.trust_nobody();
    me.ssh.trust(&me.sshd, &[]);

    gateway.kill();
    let down = refused(&me, "gateway down", 15, "gateway", "gateway_down");
    assert!(down.stderr.contains("openclaw gateway"), "{}", down.stderr);
    gateway.start_again();
    assert!(paired(&gateway).is_empty());
}

#[test]
fn a_host_without_openclaw_and_a_user_who_is_not_the_owner() {
    lab::require!(program("sshd"));
    let gateway = Gateway::start();
    let elsewhere = tempfile::tempdir().expect("a temporary directory");
    let bare = SshdSetup::new()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", elsewhere.path().display().to_string())
        .env("SHELL", "/bin/sh");
    let me = Me::new(bare);
    let missing = me.run(["connect", "box", "--json"]);
    assert_eq!(error_of(&missing)["error"]["code"], "not_installed", "{missing:#?}");
    me.nothing_runs();
    me.nothing_is_kept("not installed");

    // An account that may forward and nothing else.
    let me = Me::new(SshdSetup::new().nologin());
    let restricted = me.run(["connect", "box", "--json"]);
    assert_eq!(error_of(&restricted)["error"]["code"], "no_shell", "{restricted:#?}");
    me.nothing_runs();
    me.nothing_is_kept("no shell");

    // The same program, another account: its state directory holds no gateway, and the gateway knows it not.
    let other = SshdSetup::new()
        .with_openclaw(&binary(), elsewhere.path(), &elsewhere.path().join("state"))
        .env("OPENCLAW_GATEWAY_PORT", gateway.port().to_string());
    let me = Me::new(other);
    let stranger = me.run(["connect", "box", "--json"]);
    assert_eq!(error_of(&stranger)["error"]["code"], "not_owner", "{stranger:#?}");
    assert!(paired(&gateway).is_empty());
    me.nothing_runs();
    me.nothing_is_kept("not the owner");
}

/// Starts `connect box`, waits until that many steps have passed, and gives the process.
fn after_steps(me: &Me, steps: usize) -> Process {
    let mut process = me.openclaw(["connect", "box"]).start(&format!("connect-{steps}"));
    wait_until("steps that passed", || {
        let passed = process.stderr().matches('✓').count();
        (passed >= steps && process.stderr().contains("Connecting") || process.ended().is_some()).then_some(())
    });
    process
}

fn signal(process: &Process, signal: Signal) {
    let pid = i32::try_from(process.pid()).ok().and_then(Pid::from_raw).expect("an id");
    // To it alone: what it started is its own to end.
    let _ = kill_process(pid, signal);
}

#[test]
fn an_interruption_after_every_step_leaves_nothing() {
    lab::require!(program("sshd"));
    let gateway = Gateway::start();
    let me = Me::new(as_owner(&gateway));
    for (steps, by) in (0..STEPS.len()).zip([Signal::INT, Signal::TERM, Signal::HUP].into_iter().cycle()) {
        let mut process = after_steps(&me, steps);
        signal(&process, by);
        let status = wait_until("its end", || process.ended());
        let case = format!("after {steps} steps, by {by:?}: {}", process.stderr());
        assert_eq!(status.code(), Some(128 + by.as_raw()), "{case}");
        assert!(process.stderr().contains("interrupted"), "{case}");
        assert!(!process.stderr().contains("Left behind"), "{case}");
        me.nothing_runs();
        me.nothing_is_kept(&case);
        assert!(paired(&gateway).is_empty(), "{case}");
    }
    // And then it works.
    assert!(me.run(["connect", "box", "--no-keep"]).status.success());
}

#[test]
fn an_interruption_while_the_gateway_is_silent_finds_the_pairing_all_the_same() {
    lab::require!(program("sshd"));
    let gateway = Gateway::start();
    let me = Me::new(as_owner(&gateway));
    let freeze = |which| {
        let pid = i32::try_from(gateway.pid()).ok().and_then(Pid::from_raw).expect("an id");
        kill_process(pid, which).expect("it runs");
    };
    // Frozen after the code was given, so the tunnel's question hangs; then asked to stop, and awake again.
    let mut process = after_steps(&me, 3);
    freeze(Signal::STOP);
    signal(&process, Signal::INT);
    freeze(Signal::CONT);
    wait_until("its end", || process.ended());
    me.nothing_runs();
    me.nothing_is_kept(&process.stderr());
    assert!(paired(&gateway).is_empty(), "{}", process.stderr());
}

#[test]
fn killed_without_warning_it_leaves_no_child() {
    lab::require!(program("sshd"));
    let gateway = Gateway::start();
    let me = Me::new(as_owner(&gateway));
    for steps in 0..6 {
        let mut process = after_steps(&me, steps);
        signal(&process, Signal::KILL);
        wait_until("its end", || process.ended());
        // A step begins when the one before it has been told. Before it saves, nothing is on disk; the key that was only in
        // memory is gone with it. In the middle of saving nobody is there to take it back.
        let told = process.stderr();
        let (saving, keeping) = (told.contains("✓ call"), told.contains("✓ save"));
        wait_until("end of every child", || {
            let left = me.processes();
            // The background tunnel is meant to stay, once it was begun.
            left.iter().all(|(_, line)| keeping && (line.contains("tunnel") || line.contains("ssh"))).then_some(())
        });
        if !saving {
            me.nothing_is_kept(&format!("after {steps} steps"));
        }
    }
}

#[test]
fn a_setup_code_pairs_an_operator_once() {
    let gateway = Gateway::start();
    let me = Offline::new();
    let invite = |scopes: &str| -> Invited {
        let made = owner(&gateway, &["devices", "invite", "--json", "--scopes", scopes]);
        serde_json::from_str(&made.stdout).unwrap_or_else(|error| panic!("{error}: {made:#?}"))
    };
    let code = |invited: &Invited, gateway_id: GatewayId| {
        let code = SetupCode {
            urls: vec!["ws://127.0.0.1:1".to_owned(), gateway.url()],
            bootstrap_token: invited.token.clone(),
            expires_at_ms: Some(invited.expires_at_ms),
            tls_fingerprint: None,
            gateway_id: Some(gateway_id),
            role: Some(Role::Operator),
        };
        code.encode().expose().to_owned()
    };
    let invited = invite("read,write");

    // A code for another gateway is shown to nobody: it can still be used where it belongs.
    let other = GatewayId::of(DeviceKey::from_seed(&[9; 32]).id());
    let wrong = me.run(&["connect", &code(&invited, other), "--json"]);
    assert_eq!((wrong.status.code(), &error_of(&wrong)["step"]), (Some(21), &"reach".into()), "{wrong:#?}");
    me.nothing_is_kept("another gateway");

    let right = code(&invited, invited.gateway.id.clone());
    let connected = me.run(&["connect", &right, "--json", "--name", "home"]);
    assert!(connected.status.success(), "{connected:#?}");
    let report = connected.json();
    assert_eq!(report["gatewayId"].as_str(), Some(invited.gateway.id.as_str()));
    assert_eq!(paired(&gateway), BTreeSet::from([report["deviceId"].as_str().expect("id").to_owned()]));
    assert!(me.run(&["--on", "home", "health"]).status.success());

    // Used up: a second machine gets nothing and keeps nothing.
    let second = Offline::new();
    let refused = second.run(&["connect", &right, "--json"]);
    let envelope = error_of(&refused);
    assert_eq!((refused.status.code(), &envelope["step"]), (Some(14), &"pair".into()), "{envelope}");
    assert_eq!(envelope["left"], serde_json::json!([]), "{envelope}");
    second.nothing_is_kept("used up");
    assert!(!refused.stdout.contains(invited.token.expose()) && !refused.stderr.contains(invited.token.expose()));
    assert_eq!(paired(&gateway).len(), 1);
}

#[test]
fn a_setup_code_that_says_nothing_else_lends_this_machine() {
    let gateway = Gateway::start();
    let me = Offline::new();
    let made = owner(&gateway, &["devices", "invite", "--json", "--role", "node"]);
    let invited: Invited = serde_json::from_str(&made.stdout).unwrap_or_else(|error| panic!("{error}: {made:#?}"));
    let code = SetupCode {
        urls: vec![gateway.url()],
        bootstrap_token: invited.token.clone(),
        expires_at_ms: Some(invited.expires_at_ms),
        tls_fingerprint: None,
        gateway_id: Some(invited.gateway.id),
        role: None,
    };
    let code = code.encode();
    let mut node = me.launch(&["connect", code.expose(), "--display-name", "Bench"]).start("node");
    let device = wait_until("a paired node", || {
        assert!(node.ended().is_none(), "{}", node.said());
        let list = owner(&gateway, &["devices", "list", "--json"]).json();
        let paired = list["paired"].as_array()?.first()?.clone();
        (paired["connected"] == true).then_some(paired)
    });
    assert_eq!((&device["role"], &device["displayName"]), (&"node".into(), &"Bench".into()), "{device}");
    assert!(node.stop().success(), "{}", node.said());
}

/// A machine with no ssh to anywhere.
struct Offline(tempfile::TempDir);

impl Offline {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn launch(&self, args: &[&str]) -> Launch {
        let cli = Launch::new(binary(), self.0.path()).env("HOME", self.0.path());
        cli.env("OPENCLAW_STATE_DIR", self.0.path().join("state")).args(args.iter().copied())
    }

    fn run(&self, args: &[&str]) -> Finished {
        self.launch(args).run()
    }

    #[track_caller]
    fn nothing_is_kept(&self, case: &str) {
        let files = walk(&self.0.path().join("state"));
        let kept = |name: &str| files.iter().any(|file| file.file_name().is_some_and(|found| found == name));
        assert!(!kept("device.json") && !kept("connections.json"), "{case}: {files:?}");
    }
}

#[test]
fn goals_that_lead_nowhere_are_refused_before_anything_is_touched() {
    let me = Offline::new();
    for (goal, part) in [
        ("-oProxyCommand=touch pwned", "dash"),
        ("me@box;touch pwned", "character"),
        ("https://gw.example/j/abc", "join URL"),
        ("http://gw.example/j/abc", "join URL"),
        ("wss://gw.example", "gateway URL"),
        ("oc-pair://eyJ4IjoxfQ", "names no gateway"),
    ] {
        let refused = me.run(&["connect", "--json", "--", goal]);
        let message = error_of(&refused)["error"]["message"].as_str().expect("text").to_owned();
        assert!(message.contains(part), "{goal}: {message}");
        me.nothing_is_kept(goal);
        assert!(!me.0.path().join("pwned").exists());
    }
    let node = me.run(&["connect", "me@box", "--as", "node", "--json"]);
    assert_eq!(error_of(&node)["error"]["code"], "needs_code");
}

/// A session that finds the official CLI.
fn as_official_owner(peers: &Peers, generation: Generation, gateway: &RealGateway) -> SshdSetup {
    let bin = gateway.home().join("bin");
    peers.install_cli(generation, gateway.home(), &bin);
    SshdSetup::new()
        .env("PATH", format!("{}:/usr/bin:/bin", bin.display()))
        .env("HOME", gateway.home().display().to_string())
        .env("OPENCLAW_GATEWAY_PORT", gateway.port().to_string())
        .env("OPENCLAW_GATEWAY_TOKEN", gateway.token())
}

#[test]
fn official_cli_gives_a_one_time_code_over_ssh() {
    lab::require!(program("sshd"));
    let peers = lab::require!(Peers::find());
    let gateway = RealGateway::start(&peers, Generation::V4);
    let me = Me::new(as_official_owner(&peers, Generation::V4, &gateway));
    let port = gateway.port().to_string();
    let connected = me.run(["connect", "box", "--json", "--no-keep", "--remote-port", &port]);
    assert!(connected.status.success(), "{connected:#?}");
    let report = connected.json();
    assert!(report["gatewayId"].is_null() && report["version"] == "2026.9.6", "{report}");
    eprintln!("{}", connected.stderr);
    for file in walk(me.ssh.home()) {
        assert!(!lab::wire::read_lossy(&file).contains(gateway.token()), "the shared secret is in {}", file.display());
    }
    let called = me.run(["--on", "box", "health", "--json"]);
    assert!(called.status.success(), "{called:#?}");

    // A failure after the pairing takes it back there, too.
    let other = Me::new(as_official_owner(&peers, Generation::V4, &gateway));
    fs::create_dir_all(other.state().join("tunnels")).expect("a folder");
    fs::write(other.state().join("tunnels/box"), "in the way").expect("a file");
    let broken = other.run(["connect", "box", "--json", "--remote-port", &port]);
    let envelope = error_of(&broken);
    assert_eq!((&envelope["step"], &envelope["left"]), (&"keep".into(), &serde_json::json!([])), "{envelope}");
    let list = peers
        .cli_on(Generation::V4, gateway.home(), gateway.port(), gateway.token())
        .args(["devices", "list", "--json"]);
    let list = list.run().json();
    let ids: Vec<&str> =
        list["paired"].as_array().expect("list").iter().filter_map(|d| d["deviceId"].as_str()).collect();
    assert_eq!(ids, [report["deviceId"].as_str().expect("id")], "{list}");
}

#[test]
fn official_cli_of_the_older_generation_needs_its_token_typed_once() {
    lab::require!(program("sshd"));
    let peers = lab::require!(Peers::find());
    let gateway = RealGateway::start(&peers, Generation::V3);
    let me = Me::new(as_official_owner(&peers, Generation::V3, &gateway));
    let port = gateway.port().to_string();
    let refused = me.run(["connect", "box", "--json", "--no-keep", "--remote-port", &port]);
    let envelope = error_of(&refused);
    assert_eq!(envelope["error"]["code"], "no_codes", "{envelope}");
    assert!(refused.stderr.contains("openclaw connect box --token-file -"), "{}", refused.stderr);
    me.nothing_is_kept("no codes");

    // What it says to type works.
    let file = me.ssh.home().join("typed");
    fs::write(&file, format!("{}\n", gateway.token())).expect("writes");
    let path = file.to_str().expect("text");
    let connected = me.run(["connect", "box", "--json", "--no-keep", "--remote-port", &port, "--token-file", path]);
    assert!(connected.status.success(), "{connected:#?}");
    fs::remove_file(&file).expect("ours");
    for file in walk(&me.state()) {
        assert!(!lab::wire::read_lossy(&file).contains(gateway.token()), "the token is in {}", file.display());
    }
    let called = me.run(["--on", "box", "health", "--json"]);
    assert!(called.status.success(), "{called:#?}");
}

#[test]
fn a_gateway_on_another_port_is_found_without_being_told() {
    lab::require!(program("sshd"));
    let gateway = Gateway::start();
    let me = Me::new(as_owner(&gateway));
    let report = me.run(["connect", "box", "--json", "--no-keep"]).json();
    assert_eq!(
        report["paths"].as_array().and_then(|paths| paths.last()).map(|path| &path["gatewayPort"]),
        Some(&gateway.port().into()),
        "{report}"
    );
    // A port that was given is believed, even where nothing listens.
    let free = lab::process::free_port().to_string();
    let other = Me::new(as_owner(&gateway));
    let wrong = other.run(["connect", "box", "--json", "--no-keep", "--remote-port", &free]);
    let envelope = error_of(&wrong);
    assert_eq!(
        (&envelope["step"], &envelope["error"]["kind"]),
        (&"tunnel".into(), &"gateway_down".into()),
        "{envelope}"
    );
    other.nothing_is_kept("a wrong port");
    assert_eq!(paired(&gateway).len(), 1);
}
