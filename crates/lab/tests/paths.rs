//! The paths of one gateway with a real sshd: by `ssh://` URL, by saved connection, and a session that loses its ssh.

use std::fs;

use lab::{
    process::{Gateway, Launch, Process, our_cli, wait_until},
    require::program,
    sandbox::{Setup, binary},
    sshd::{SshClient, Sshd},
};
use serde_json::{Value, json};

/// A gateway, the sshd of its host, and a person who may log in as `box`.
struct World {
    gateway: Gateway,
    sshd: Sshd,
    me: SshClient,
}

impl World {
    fn new() -> Self {
        let (gateway, sshd, me) = (Gateway::start(), Sshd::start(), SshClient::new());
        me.may_enter(&sshd, "box");
        Self { gateway, sshd, me }
    }

    fn state(&self) -> std::path::PathBuf {
        self.me.home().join(".openclaw")
    }

    fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.state()).expect("state");
        fs::write(self.state().join(name), text).expect("writes");
    }

    /// The config points at the gateway through ssh.
    fn remote(&self) {
        let (port, token) = (self.gateway.port(), self.gateway.token());
        let remote = json!({"url": "ssh://box", "remotePort": port, "token": token});
        self.write("openclaw.json", &json!({"gateway": {"mode": "remote", "remote": remote}}).to_string());
    }

    /// A connection called home, by loopback address (which stands for a LAN here) and by ssh.
    fn saved(&self, url: &str, gateway: &str) {
        let paths = json!([
            {"kind": "lan", "url": url},
            {"kind": "ssh", "target": "box", "gatewayPort": self.gateway.port()},
        ]);
        let book =
            json!({"version": 1, "connections": {"home": {"gatewayId": gateway, "paths": paths, "createdAtMs": 1}}});
        self.write("connections.json", &book.to_string());
    }

    fn cli(&self, args: &[&str]) -> Launch {
        Launch::new(binary(), self.me.home()).envs(self.me.env()).args(args.iter().copied())
    }

    fn identity(&self) -> String {
        let found = our_cli(self.gateway.home(), self.gateway.port(), self.gateway.token())
            .args(["gateway", "call", "gateway.identity.get", "--json"])
            .run()
            .json();
        found["deviceId"].as_str().expect("an id").to_owned()
    }

    /// Makes the gateway tell its clients something, and log it: its config changes.
    fn stir(&self, word: &str) {
        let ran = our_cli(self.gateway.home(), self.gateway.port(), self.gateway.token())
            .env("OPENCLAW_STATE_DIR", self.gateway.state_dir())
            .args(["config", "set", "gateway.nodes.denyCommands", &format!("[\"{word}\"]")])
            .run();
        assert!(ran.status.success(), "{ran:?}");
    }

    fn no_ssh_left(&self) {
        wait_until("the end of ssh", || self.me.running().is_empty().then_some(()));
    }
}

/// The lines of a kind that a `--json` process printed so far.
fn lines(process: &Process, kind: &str) -> Vec<Value> {
    let text = process.stdout();
    // The last one may be half a line.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let all = whole.lines().map(|line| serde_json::from_str::<Value>(line).expect("a JSON line"));
    all.filter(|line| line["type"] == kind).collect()
}

#[test]
fn every_command_goes_through_an_ssh_of_its_own() {
    lab::require!(program("sshd"));
    let mut world = World::new();
    world.remote();
    for line in [
        &["health"][..],
        &["gateway", "call", "health"],
        &["gateway", "status", "--require-rpc"],
        &["logs", "--limit", "5"],
    ] {
        let ran = world.cli(line).run();
        assert!(ran.status.success(), "{line:?}: {ran:?}");
    }
    let path = world.cli(&["status", "--json"]).run().json()["gateway"]["path"].clone();
    assert_eq!((&path["kind"], &path["address"], &path["carrier"]), (&json!("ssh"), &json!("box"), &json!("ssh")));
    assert!(path["roundTripMs"].as_f64().is_some_and(|ms| ms > 0.0), "{path}");
    let text = world.cli(&["gateway", "status"]).run().stdout;
    assert!(text.contains("Path: ssh box (own ssh, ") && text.contains("Runtime: remote"), "{text}");
    world.no_ssh_left();

    // ssh is up and nobody listens behind it: said as such, not as a broken WebSocket.
    world.gateway.stop();
    let ran = world.cli(&["gateway", "call", "health"]).run();
    assert_eq!(ran.status.code(), Some(19), "{ran:?}");
    let ran = world.cli(&["gateway", "call", "health", "--json"]).run();
    assert_eq!(ran.json()["error"]["stage"], "ssh", "{ran:?}");
    world.no_ssh_left();
    world.sshd.stop();
    assert_eq!(world.cli(&["health"]).run().status.code(), Some(19));
    world.no_ssh_left();
}

#[test]
fn a_saved_connection_takes_the_path_that_works_to_the_gateway_that_was_saved() {
    lab::require!(program("sshd"));
    let world = World::new();
    let (token, id) = (world.gateway.token().to_owned(), world.identity());
    let call = ["--on", "home", "gateway", "call", "health", "--json", "--token", &token];
    let kind = || {
        let ran = world.cli(&["connections", "show", "home", "--json"]).run();
        ran.json()["lastPath"].as_str().map(str::to_owned)
    };
    world.saved(&world.gateway.url(), &id);
    assert_eq!(world.cli(&call).run().json()["ok"], true);
    assert_eq!(kind().as_deref(), Some("lan"));
    world.no_ssh_left();
    world.saved("ws://127.0.0.1:1", &id);
    assert_eq!(world.cli(&call).run().json()["ok"], true);
    assert_eq!(kind().as_deref(), Some("ssh"));

    // P-85, over both paths: another gateway answers there.
    world.saved(&world.gateway.url(), &"0".repeat(64));
    let ran = world.cli(&call).run();
    assert_eq!(ran.status.code(), Some(21), "{ran:?}");
    assert!(ran.stderr.contains(&id[..8]), "it says who answered: {ran:?}");
    world.no_ssh_left();
}

#[test]
fn watching_goes_on_when_ssh_is_killed() {
    lab::require!(program("sshd"));
    let world = World::new();
    world.remote();
    let mut watch = world.cli(&["watch", "--json", "--event", "config.changed"]).start("watch");
    wait_until("a path", || (lines(&watch, "path").len() == 1).then_some(()));
    world.stir("one");
    wait_until("an event", || (!lines(&watch, "event").is_empty()).then_some(()));

    world.me.kill_all();
    let path = wait_until("another path", || lines(&watch, "path").into_iter().nth(1));
    assert_eq!((&path["path"]["kind"], &path["cause"]), (&json!("ssh"), &json!("ended")), "{path}");
    assert!(path["path"]["roundTripMs"].as_f64().is_some(), "{path}");
    assert!(lines(&watch, "gap").is_empty(), "nothing is missing: {}", watch.said());
    let before = lines(&watch, "event").len();
    world.stir("two");
    wait_until("a later event", || (lines(&watch, "event").len() > before).then_some(()));

    // However it ends, its ssh ends with it.
    watch.kill();
    world.no_ssh_left();
}

#[test]
fn following_the_log_goes_on_when_the_sessions_at_the_far_host_die() {
    lab::require!(program("sshd"));
    let world = World::new();
    world.remote();
    let mut logs = world.cli(&["logs", "--follow", "--interval", "100", "--plain"]).start("logs");
    wait_until("the log", || (!logs.stdout().is_empty()).then_some(()));
    world.sshd.kill_sessions();
    wait_until("word of it", || logs.stderr().contains("ssh box (own ssh").then_some(()));
    let before = logs.stdout().len();
    world.stir("one");
    wait_until("more of the log", || (logs.stdout().len() > before).then_some(()));
    logs.kill();
    world.no_ssh_left();
}

/// The port behind ssh speaks TLS: the client learns so and goes on. A configured pin is held against it all the same.
#[test]
fn a_gateway_with_tls_is_reached_through_ssh_as_well() {
    lab::require!(program("sshd"));
    let gateway = Setup::new().config(json!({"gateway": {"tls": {"enabled": true}}})).start();
    let (sshd, me) = (Sshd::start(), SshClient::new());
    me.may_enter(&sshd, "box");
    let state = me.home().join(".openclaw");
    fs::create_dir_all(&state).expect("state");
    let health = |remote: Value| {
        let mut remote = remote;
        remote["remotePort"] = json!(gateway.port);
        remote["token"] = json!(gateway.token());
        let config = json!({"gateway": {"mode": "remote", "remote": remote}});
        fs::write(state.join("openclaw.json"), config.to_string()).expect("writes");
        Launch::new(binary(), me.home()).envs(me.env()).args(["gateway", "call", "health", "--json"]).run()
    };
    let plain = health(json!({"url": "ssh://box"}));
    assert_eq!(plain.json()["ok"], true, "{plain:?}");
    let shown = gateway.setup.run(&["gateway", "cert", "show", "--json"]).json();
    let pin = shown["fingerprintSha256"].as_str().expect("a fingerprint").to_owned();
    let behind = |pin: &str| json!({"url": "wss://127.0.0.1:18789", "sshTarget": "box", "tlsFingerprint": pin});
    let right = health(behind(&pin));
    assert_eq!(right.json()["ok"], true, "{right:?}");
    let wrong = health(behind(&"0".repeat(64)));
    assert_eq!(wrong.status.code(), Some(12), "{wrong:?}");
    wait_until("the end of ssh", || me.running().is_empty().then_some(()));
}
