//! Remote mode, saved connections and the paths a command takes, with servers that record and an ssh that only notes how it
//! was called (checklist S-020, S-057…S-062, S-069…S-071, S-141…S-149).

mod common;

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use common::{Capture, Does, Ran, World};
use serde_json::{Value, json};

const READ: Does = Does::Hello(&["operator.read", "operator.pairing"]);
/// A port nobody listens on.
const NOBODY: &str = "ws://127.0.0.1:1";

/// A world whose `ssh` notes its arguments, says that the host refuses, and fails.
struct WithSsh {
    world: World,
    notes: PathBuf,
}

impl WithSsh {
    fn new(config: &str) -> Self {
        let world = World::with(config);
        let (bin, notes) = (world.dir.path().join("bin"), world.dir.path().join("ssh-calls"));
        fs::create_dir(&bin).expect("bin");
        let script = format!(
            "#!/bin/sh\nprintf '%s\\n' \"$*\" >>'{}'\n\
             echo 'ssh: connect to host box port 22: Connection refused' >&2\nexit 255\n",
            notes.display()
        );
        fs::write(bin.join("ssh"), script).expect("ssh");
        fs::set_permissions(bin.join("ssh"), fs::Permissions::from_mode(0o755)).expect("mode");
        let world = world.env("PATH", &format!("{}:/usr/bin:/bin", bin.display()));
        Self { world, notes }
    }

    fn run(&self, line: &[&str]) -> Ran {
        self.world.run(line)
    }

    /// The calls that open a tunnel.
    fn tunnels(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.notes).unwrap_or_default();
        text.lines().filter(|line| line.contains(" -L ")).map(str::to_owned).collect()
    }
}

fn remote(section: &str) -> String {
    format!("{{gateway: {{mode: 'remote', remote: {{{section}}}}}}}")
}

fn connections(world: &World, book: &Value) {
    fs::create_dir_all(world.state()).expect("state");
    fs::write(world.state().join("connections.json"), book.to_string()).expect("book");
}

fn lan(url: &str) -> Value {
    json!({"kind": "lan", "url": url})
}

/// A book with one connection called home.
fn home(paths: &[Value], gateway: Option<&str>) -> Value {
    json!({"version": 1, "connections": {"home": {"gatewayId": gateway, "paths": paths, "createdAtMs": 1}}})
}

#[test]
fn s_020_remote_mode_refuses_gateway_run() {
    let world = World::with(&remote("url: 'ws://127.0.0.1:1', token: 'R'"));
    for line in [&["gateway", "run"][..], &["gateway"]] {
        let ran = world.run(line);
        assert!(ran.code != 0 && ran.err.contains("remote"), "{ran:?}");
        assert!(!world.state().join("gateway.sock").exists());
    }
}

#[test]
fn s_057_s_069_every_command_goes_to_the_remote_and_starts_nothing() {
    for line in [
        &["health"][..],
        &["status"],
        &["gateway", "status"],
        &["gateway", "health"],
        &["gateway", "probe"],
        &["gateway", "call", "health"],
        &["logs"],
        &["devices", "list"],
        &["pairing", "list"],
        &["doctor"],
    ] {
        let capture = Capture::start(READ);
        let world = World::with(&remote(&format!("url: '{}', token: 'R'", capture.url())));
        let ran = world.run(line);
        assert_eq!(capture.auth(), json!({"token": "R"}), "{line:?}: {ran:?}");
        for trace in ["gateway.sock", "gateway.lock", "gateway.token"] {
            assert!(!world.state().join(trace).exists(), "{line:?} left {trace}");
        }
    }
}

#[test]
fn s_059_s_060_the_ssh_target_carries_the_remote_port() {
    for (section, port, destination) in [
        ("url: 'ws://127.0.0.1:18789', sshTarget: 'me@box', token: 'R'", 18789, "-- me@box cat"),
        ("url: 'ws://127.0.0.1:28000', sshTarget: 'me@box', remotePort: 19001, token: 'R'", 19001, "-- me@box cat"),
        ("url: 'ws://192.168.0.9:18789', transport: 'ssh', sshTarget: 'me@box', token: 'R'", 18789, "-- me@box cat"),
        ("sshTarget: 'me@box:2222', token: 'R'", 18789, "-- me@box cat"),
        ("url: 'ssh://me@box', remotePort: 19001, token: 'R'", 19001, "-- me@box cat"),
    ] {
        let world = WithSsh::new(&remote(section));
        let ran = world.run(&["health"]);
        assert_eq!(ran.code, 19, "{section}: {ran:?}");
        let calls = world.tunnels();
        assert_eq!(calls.len(), 1, "{section}: {calls:?}");
        assert!(calls[0].contains(&format!(":127.0.0.1:{port} ")) && calls[0].ends_with(destination), "{calls:?}");
        assert_eq!(calls[0].contains("-p 2222"), section.contains("2222"), "{calls:?}");
    }
}

#[test]
fn s_061_s_062_direct_needs_no_ssh() {
    for section in ["transport: 'direct', sshTarget: 'me@box',", "transport: 'direct',", ""] {
        let capture = Capture::start(READ);
        let world = WithSsh::new(&remote(&format!("{section} url: '{}', token: 'R'", capture.url())));
        let ran = world.run(&["health"]);
        assert_eq!((ran.code, world.tunnels().len()), (0, 0), "{section}: {ran:?}");
    }
    // S-062: unset is ssh, where there is a target to go through.
    let capture = Capture::start(READ);
    let world = WithSsh::new(&remote(&format!("sshTarget: 'me@box', url: '{}', token: 'R'", capture.url())));
    assert_eq!(world.run(&["health"]).code, 19);
    assert_eq!((world.tunnels().len(), capture.connections()), (1, 0));
}

#[test]
fn s_049_an_ssh_url_without_credentials_starts_no_ssh() {
    let world = WithSsh::new("{gateway: {auth: {token: 'C'}}}");
    let ran = world.run(&["gateway", "call", "health", "--url", "ssh://me@box"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("gateway url override requires explicit credentials"), "{ran:?}");
    assert!(!world.notes.exists());
    let ran = world.run(&["gateway", "call", "health", "--url", "ssh://me@box:2222", "--token", "X"]);
    assert_eq!((ran.code, world.tunnels().len()), (19, 1), "{ran:?}");
    assert!(world.tunnels()[0].contains("-p 2222"));
    assert!(ran.err.contains("ssh://me@box:2222 (cli --url)") || ran.err.contains("Source: cli --url"), "{ran:?}");
}

#[test]
fn the_variable_takes_an_ssh_url_too() {
    let world = WithSsh::new("{}");
    let world = WithSsh { world: world.world.env("OPENCLAW_GATEWAY_URL", "ssh://me@box"), notes: world.notes };
    assert_eq!(world.run(&["health"]).code, 1, "no credential beside it");
    assert!(!world.notes.exists());
    let world = WithSsh { world: world.world.env("OPENCLAW_GATEWAY_TOKEN", "E"), notes: world.notes };
    assert_eq!(world.run(&["health"]).code, 19);
    assert_eq!(world.tunnels().len(), 1);
}

#[test]
fn s_070_s_071_status_names_the_remote_and_the_path() {
    let capture = Capture::start(READ);
    let world = World::with(&remote(&format!("url: '{}', token: 'R'", capture.url())));
    let ran = world.run(&["gateway", "status"]);
    assert!(ran.out.contains("Runtime: remote\n"), "{ran:?}");
    assert!(ran.out.contains(&format!("Probe target: {} (config gateway.remote.url)", capture.url())), "{ran:?}");
    assert!(ran.out.contains(&format!("Path: loopback {} (", capture.url())), "{ran:?}");
    let ran = world.run(&["status"]);
    assert!(ran.out.contains(&capture.url()), "{ran:?}");
    let path = |ran: &Ran| ran.json()["gateway"]["path"].clone();
    let found = path(&world.run(&["status", "--json"]));
    assert_eq!(
        (&found["kind"], &found["address"], &found["carrier"]),
        (&json!("loopback"), &json!(capture.url()), &json!("direct"))
    );
    assert!(found["roundTripMs"].as_f64().is_some(), "{found}");
    let ran = world.run(&["health", "--verbose"]);
    assert!(ran.out.contains(&format!("loopback {} (", capture.url())), "{ran:?}");
}

/// S-149: no config key stands for the variable; it belongs to the process that opens the socket.
#[test]
fn s_149_the_plaintext_switch_has_no_config_twin() {
    for key in ["gateway.remote.allowInsecurePrivateWs", "gateway.allowInsecurePrivateWs", "gateway.remote.insecure"] {
        let world = World::with("{gateway: {mode: 'remote', remote: {url: 'ws://nas:18789', token: 'R'}}}");
        let ran = world.run(&["config", "set", key, "true"]);
        assert!(ran.err.contains("Unrecognized key"), "{key}: {ran:?}");
        let ran = world.run(&["health"]);
        assert!(ran.code == 1 && ran.err.contains("SECURITY ERROR"), "{key}: {ran:?}");
    }
    let config = "{env: {vars: {OPENCLAW_ALLOW_INSECURE_PRIVATE_WS: '1'}},
        gateway: {mode: 'remote', remote: {url: 'ws://nas:18789', token: 'R'}}}";
    let ran = World::with(config).run(&["health"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("SECURITY ERROR"), "{ran:?}");
}

/// S-148 and its limits: the switch admits names, and never a public address.
#[test]
fn s_148_the_switch_admits_private_names_only() {
    for (url, switch, refused) in [
        ("ws://nas.example:18789", false, true),
        ("ws://8.8.8.8:18789", true, true),
        ("ws://nas.invalid:18789", true, false),
    ] {
        let world = World::with(&remote(&format!("url: '{url}', token: 'R'")));
        let world = if switch { world.env("OPENCLAW_ALLOW_INSECURE_PRIVATE_WS", "1") } else { world };
        let ran = world.run(&["health", "--timeout", "5000"]);
        assert_eq!(ran.err.contains("SECURITY ERROR"), refused, "{url}: {ran:?}");
        assert_ne!(ran.code, 0);
    }
}

#[test]
fn on_names_a_saved_gateway_for_any_command() {
    for line in [
        &["health", "--on", "home"][..],
        &["--on", "home", "status"],
        &["gateway", "--on=home", "call", "health"],
        &["logs", "--on", "home"],
        &["devices", "list", "--on", "home"],
        &["gateway", "status", "--on", "home"],
    ] {
        let (saved, configured) = (Capture::start(READ), Capture::start(READ));
        let world = World::with(&remote(&format!("url: '{}', token: 'R'", configured.url())));
        let world = world.env("OPENCLAW_GATEWAY_TOKEN", "E");
        connections(&world, &home(&[lan(&saved.url())], None));
        let ran = world.run(line);
        assert_eq!(ran.code, 0, "{line:?}: {ran:?}");
        assert!(saved.connections() > 0 && configured.connections() == 0, "{line:?}");
        // P-84: secrets of the config and the environment are other gateways' secrets.
        for connect in saved.connects() {
            let text = connect["auth"].to_string();
            assert!(!text.contains("\"R\"") && !text.contains("\"E\""), "{line:?}: {text}");
        }
    }
}

#[test]
fn the_current_connection_is_meant_until_something_else_is() {
    let (saved, local) = (Capture::start(READ), Capture::start(READ));
    let world = World::with(&format!("{{gateway: {{port: {}, auth: {{token: 'T'}}}}}}", local.port));
    connections(&world, &home(&[lan(&saved.url())], None));
    let ran = world.run(&["connections", "use", "home"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("Undo: openclaw connections use --none"), "{ran:?}");
    assert_eq!(world.run(&["health"]).code, 0);
    assert_eq!((saved.connections(), local.connections()), (1, 0));
    let ran = world.run(&["gateway", "status"]);
    assert!(ran.out.contains("Runtime: remote") && ran.out.contains("(openclaw connections use home)"), "{ran:?}");
    assert_eq!(world.run(&["health", "--on", "local"]).code, 0);
    assert_eq!(local.auth(), json!({"token": "T"}));
    assert_eq!(world.run(&["connections", "use", "--none"]).code, 0);
    assert_eq!(world.run(&["health"]).code, 0);
    assert_eq!(local.connections(), 2);
}

/// P-85: whoever does not prove to be the saved gateway gets nothing, not even a `connect`.
#[test]
fn p_85_another_gateway_at_a_saved_address_is_sent_nothing() {
    let stranger = Capture::start(READ);
    let world = World::with("{}");
    connections(&world, &home(&[lan(&stranger.url())], Some(&"a".repeat(64))));
    for line in [&["health", "--on", "home"][..], &["gateway", "call", "health", "--token", "X", "--on", "home"]] {
        let ran = world.run(line);
        assert_eq!(ran.code, 21, "{ran:?}");
        assert!(ran.err.contains("did not prove to be the saved gateway aaaaaaaa"), "{ran:?}");
    }
    assert!(stranger.connections() > 0 && stranger.requests.lock().expect("lock").is_empty(), "not one frame");
}

#[test]
fn the_next_path_is_taken_when_one_fails() {
    let capture = Capture::start(READ);
    let world = World::with("{}");
    connections(&world, &home(&[lan(NOBODY), json!({"kind": "tailnet", "url": capture.url()})], None));
    let ran = world.run(&["status", "--json", "--on", "home"]);
    assert_eq!(ran.json()["gateway"]["path"]["kind"], "tailnet", "{ran:?}");
    let ran = world.run(&["connections", "show", "home", "--json"]);
    assert_eq!((ran.json()["lastPath"].as_str(), ran.json()["lastUsedAtMs"].is_i64()), (Some("tailnet"), true));
}

#[test]
fn when_every_path_fails_each_says_why_and_one_command_follows() {
    let world = WithSsh::new("{}");
    let ssh = json!({"kind": "ssh", "target": "me@box", "gatewayPort": 18789});
    let public = json!({"kind": "public", "url": "ws://8.8.8.8:18789"});
    connections(&world.world, &home(&[lan(NOBODY), public, ssh], None));
    let ran = world.run(&["health", "--on", "home"]);
    let lines: Vec<&str> = ran.err.lines().collect();
    assert_eq!(lines[0], "✗ none of the 3 paths to \"home\" works", "{ran:?}");
    assert!(ran.err.contains("  lan ws://127.0.0.1:1: ECONNREFUSED. "), "{ran:?}");
    assert!(ran.err.contains("  public ws://8.8.8.8:18789: ") && ran.err.contains("plaintext"), "{ran:?}");
    assert!(ran.err.contains("  ssh me@box: "), "{ran:?}");
    let advice =
        lines.iter().filter(|line| line.contains("on this machine: ") || line.contains("on the gateway host: "));
    assert_eq!(advice.count(), 1, "{ran:?}");
    assert!(ran.err.contains("Source: cli --on home"), "{ran:?}");
    let ran = world.run(&["gateway", "call", "health", "--json", "--on", "home"]);
    let paths = &ran.json()["error"]["paths"];
    let stages: Vec<_> = paths.as_array().expect("paths").iter().map(|path| path["stage"].as_str()).collect();
    assert_eq!(stages, [Some("connect"), Some("target"), Some("ssh")], "{ran:?}");
}

/// What the gateway itself says holds for every path, and its advice comes first.
#[test]
fn a_refusal_by_the_gateway_is_told_as_such() {
    let error = json!({"code": "NOT_PAIRED", "message": "pairing required: device is not approved yet",
        "details": {"code": "PAIRING_REQUIRED", "reason": "not-paired", "requestId": "8a98d942-36c2"}});
    let capture = Capture::start(Does::Refuse(error));
    let world = World::with("{}");
    connections(&world, &home(&[lan(&capture.url()), lan(NOBODY)], None));
    let ran = world.run(&["devices", "list", "--on", "home"]);
    assert_eq!(ran.code, 15, "{ran:?}");
    assert!(ran.err.starts_with("✗ pairing required: device is not approved yet"), "{ran:?}");
    assert!(ran.err.contains("openclaw devices approve 8a98d942-36c2"), "{ran:?}");
}

#[test]
fn names_that_are_none() {
    let world = World::with("{}");
    connections(&world, &home(&[lan(NOBODY)], None));
    for (line, expected) in [
        (&["health", "--on", "hom"][..], "did you mean \"home\"?"),
        (&["health", "--on", "../x"], "--on: the name of a connection"),
        (&["gateway", "health", "--on", "home", "--port", "1"], "either --on or --port"),
        (&["connections", "show", "work"], "No connection is called \"work\""),
        (&["connections", "rm", "work"], "No connection is called \"work\""),
        (&["connections", "use", "local"], "--on local"),
        (&["connections", "rename", "home", "local"], "always means the gateway of this machine"),
        (&["connections", "rename", "home", "A"], "lower-case"),
    ] {
        let ran = world.run(line);
        assert_eq!(ran.code, 1, "{line:?}: {ran:?}");
        assert!(ran.err.contains(expected), "{line:?}: {ran:?}");
    }
    fs::write(world.state().join("connections.json"), "{").expect("damage");
    let ran = world.run(&["health"]);
    assert!(ran.code == 1 && ran.err.contains("cannot be read"), "{ran:?}");
    assert!(world.run(&["status", "--on", "local"]).code == 0);
    assert_eq!(fs::read_to_string(world.state().join("connections.json")).expect("kept"), "{");
}

#[test]
fn connections_are_listed_renamed_and_forgotten() {
    let world = World::new();
    let ran = world.run(&["connections"]);
    assert!(ran.code == 0 && ran.out.contains("openclaw connect user@host"), "{ran:?}");
    let (gateway, device) = ("b".repeat(64), "c".repeat(64));
    let mut book = home(&[lan("ws://192.168.77.10:18789")], Some(&gateway));
    book["connections"]["home"]["deviceId"] = json!(device);
    book["current"] = json!("home");
    connections(&world, &book);
    let ran = world.run(&["connections", "ls"]);
    assert!(ran.out.contains("home") && ran.out.contains("current") && ran.out.contains("bbbbbbbb"), "{ran:?}");
    let ran = world.run(&["connections", "ls", "--json"]);
    assert_eq!((&ran.json()["current"], &ran.json()["connections"][0]["name"]), (&json!("home"), &json!("home")));
    assert_eq!(world.run(&["connections", "ls", "--names"]).out, "home\nlocal\n");
    let ran = world.run(&["connections", "show", "home"]);
    assert!(ran.out.contains(&gateway) && ran.out.contains("lan ws://192.168.77.10:18789"), "{ran:?}");
    let ran = world.run(&["connections", "rename", "home", "flat"]);
    assert!(ran.out.contains("Undo: openclaw connections rename flat home"), "{ran:?}");
    let ran = world.run(&["connections", "rm", "flat"]);
    assert!(ran.out.contains(&format!("openclaw devices remove {device}")), "{ran:?}");
    let book: Value =
        serde_json::from_slice(&fs::read(world.state().join("connections.json")).expect("kept")).expect("JSON");
    assert_eq!((&book["current"], &book["connections"]), (&Value::Null, &json!({})));
}

/// The token goes with the last name of its gateway, and not before.
#[test]
fn forgetting_a_connection_forgets_its_token() {
    let world = World::new();
    let capture = Capture::start(READ);
    connections(&world, &home(&[lan(&capture.url())], None));
    // Makes this machine's device identity, whose id the cache has to name.
    assert_eq!(world.run(&["devices", "list", "--on", "home"]).code, 0);
    let device: Value =
        serde_json::from_slice(&fs::read(world.state().join("identity/device.json")).expect("identity")).expect("JSON");
    let gateway = "b".repeat(64);
    let entry = json!({"operator": {"token": "D", "role": "operator", "scopes": ["operator.read"], "updatedAtMs": 1}});
    let tokens = json!({"version": 1, "deviceId": device["deviceId"], "tokens": {
        format!("gateway:{gateway}"): entry, "wss://other:443": entry}});
    let file = world.state().join("identity/device-auth.json");
    fs::write(&file, tokens.to_string()).expect("cache");
    let saved = json!({"gatewayId": gateway, "paths": [lan(NOBODY)]});
    connections(&world, &json!({"version": 1, "connections": {"home": saved, "flat": saved}}));
    let held = || fs::read_to_string(&file).expect("cache").contains(&gateway);
    let ran = world.run(&["connections", "show", "home"]);
    assert!(ran.out.contains("operator (sha256:") && !ran.out.contains("\"D\""), "{ran:?}");
    world.run(&["connections", "rm", "home"]);
    assert!(held(), "flat is the same gateway");
    let ran = world.run(&["connections", "rm", "flat", "--json"]);
    assert_eq!(ran.json()["tokensForgotten"].as_array().map(Vec::len), Some(1), "{ran:?}");
    assert!(!held() && fs::read_to_string(&file).expect("cache").contains("wss://other:443"));
}

#[test]
fn p_85_the_dashboard_link_never_points_at_a_port_somebody_else_may_have() {
    let local = Capture::start(READ);
    let world = World::with(&remote(&format!("url: '{}', sshTarget: 'me@box', token: 'R'", local.url())));
    let ran = world.run(&["dashboard", "--no-open"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(!ran.out.contains("#token") && ran.err.contains("openclaw tunnel up"), "{ran:?}");
}

/// The script in a real bash, with the real program behind it.
#[test]
fn names_are_completed() {
    let world = World::with("{broken");
    connections(
        &world,
        &json!({"version": 1, "connections": {"home": {"paths": []}, "hotel": {"paths": []}, "work": {"paths": []}}}),
    );
    let script = world.run(&["completion", "-s", "bash"]).out;
    fs::write(world.dir.path().join("script"), script).expect("script");
    let bin = PathBuf::from(env!("CARGO_BIN_EXE_openclaw"));
    let complete = |words: &[&str]| {
        let count = words.len();
        let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
        let text = format!(
            "source ./script\nCOMP_WORDS=(openclaw {})\nCOMP_CWORD={count}\n_openclaw openclaw '{}' '{}'\n\
             printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            quoted.join(" "),
            words[count - 1],
            if count > 1 { words[count - 2] } else { "openclaw" },
        );
        let path = format!("{}:/usr/bin:/bin", bin.parent().expect("a folder").display());
        let output = std::process::Command::new("bash")
            .args(["--norc", "-c", &text])
            .current_dir(world.dir.path())
            .env_clear()
            .env("HOME", world.dir.path().join("home"))
            .env("PATH", path)
            .output()
            .expect("bash");
        String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(complete(&["--on", "ho"]), ["home", "hotel"]);
    assert_eq!(complete(&["status", "--on", "w"]), ["work"]);
    assert_eq!(complete(&["status", "--on", ""]), ["home", "hotel", "work", "local"]);
    assert_eq!(complete(&["connections", "show", "hot"]), ["hotel"]);
    assert_eq!(complete(&["connections", "rm", "w"]), ["work"]);
}
