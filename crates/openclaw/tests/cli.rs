//! What the commands print and how they exit.

mod common;

use common::{Capture, Does, Ran, World};
use serde_json::json;

fn refusing(code: &str, message: &str, details: serde_json::Value) -> Capture {
    Capture::start(Does::Refuse(json!({"code": code, "message": message, "details": details})))
}

#[test]
fn s_255_version_names_the_commit() {
    for flag in ["--version", "-V"] {
        let ran = World::new().run(&[flag]);
        let (name, commit) = ran.out.trim().rsplit_once(' ').expect("two parts");
        assert_eq!((ran.code, name), (0, concat!("OpenClaw ", env!("CARGO_PKG_VERSION"))));
        let commit = commit.trim_start_matches('(').trim_end_matches(')');
        assert!(
            commit == "unknown" || (commit.len() == 7 && commit.bytes().all(|b| b.is_ascii_hexdigit())),
            "{commit}"
        );
    }
}

#[test]
fn a_bad_profile_exits_2() {
    for line in
        [&["--profile", "a b", "health"][..], &["health", "--profile", "../x"], &["--profile=", "config", "file"]]
    {
        let ran = World::new().run(line);
        assert_eq!(ran.code, 2, "{line:?}: {ran:?}");
        assert!(ran.err.contains(r#"Invalid --profile (use letters, numbers, "_", "-" only)"#), "{ran:?}");
    }
}

#[test]
fn unknown_words_exit_1_in_the_references_words() {
    let check = |line: &[&str], expected: &str| {
        let ran = World::new().run(line);
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{line:?}");
        assert!(ran.err.contains(expected), "{line:?}: {ran:?}");
    };
    check(&["foo"], "OpenClaw does not know the command \"foo\".\nTry: openclaw --help");
    check(&["gateway", "fly"], "OpenClaw gateway has no command \"fly\".\nTry: openclaw gateway --help");
    check(&["gateway", "--bogus"], "OpenClaw does not recognize option \"--bogus\".\nTry: openclaw gateway --help");
    let ran = World::new().run(&["health", "--json", "--timeout", "abc"]);
    assert_eq!(
        ran.json()["error"],
        json!({"type": "cli_error", "message": "--timeout must be a positive integer (milliseconds)."})
    );
}

#[test]
fn s_221_s_225_profiles_have_their_own_files() {
    let file = |line: &[&str]| World::new().run(line).out;
    assert!(file(&["config", "file"]).ends_with("/home/.openclaw/openclaw.json\n"));
    assert!(file(&["--dev", "config", "file"]).ends_with("/home/.openclaw-dev/openclaw.json\n"));
    assert!(file(&["--profile", "x", "config", "file"]).ends_with("/home/.openclaw-x/openclaw.json\n"));
    let world = World::new().env("OPENCLAW_CONFIG_PATH", "/elsewhere/c.json");
    assert_eq!(world.run(&["config", "file"]).out, "/elsewhere/c.json\n");
    let status = World::new().run(&["--dev", "gateway", "status", "--no-probe", "--json"]).json();
    assert_eq!(status["gateway"]["port"], 19001, "S-222");
    let status = World::new().run(&["gateway", "status", "--no-probe", "--json"]).json();
    assert_eq!(
        (&status["gateway"]["port"], &status["gateway"]["bindMode"]),
        (&json!(18789), &json!("loopback")),
        "S-115"
    );
}

/// The stage codes of docs/cli.md.
#[test]
fn each_stage_has_its_exit_code() {
    let call = |url: &str| -> Ran {
        World::new().run(&["gateway", "call", "health", "--url", url, "--token", "T", "--timeout", "2000", "--json"])
    };
    let check = |ran: Ran, code: i32, stage: &str| {
        assert_eq!((ran.code, ran.json()["error"]["stage"].as_str()), (code, Some(stage)), "{ran:?}");
        assert_eq!(ran.json()["ok"], false);
    };
    check(call("ws://127.0.0.1:1"), 11, "connect");
    check(call("wss://gateway.invalid"), 10, "name");
    for (error, code, stage) in [
        (
            refusing(
                "INVALID_REQUEST",
                "unauthorized: gateway token mismatch (x)",
                json!({"code": "AUTH_TOKEN_MISMATCH"}),
            ),
            14,
            "auth",
        ),
        (refusing("NOT_PAIRED", "device identity required", json!({"code": "DEVICE_IDENTITY_REQUIRED"})), 14, "auth"),
        (
            refusing("NOT_PAIRED", "pairing required: x", json!({"code": "PAIRING_REQUIRED", "requestId": "r-1"})),
            15,
            "pairing",
        ),
        (refusing("INVALID_REQUEST", "protocol mismatch", json!({"expectedProtocol": 5})), 17, "protocol"),
        (
            refusing(
                "INVALID_REQUEST",
                "unauthorized: device token scope mismatch",
                json!({"code": "AUTH_SCOPE_MISMATCH"}),
            ),
            16,
            "scope",
        ),
    ] {
        check(call(&error.url()), code, stage);
    }
    // TLS: a server that speaks plain WebSocket is asked for TLS.
    let plain = Capture::start(Does::Hello(&[]));
    check(call(&format!("wss://127.0.0.1:{}", plain.port)), 12, "tls");
    // HTTP: a listener that answers like a web server.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("address").port();
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut stream, _) = listener.accept().expect("accept");
        let mut request = [0; 2048];
        let _ = stream.read(&mut request);
        let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    });
    check(call(&format!("ws://127.0.0.1:{port}")), 13, "http");
    // Timeout: a listener that never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let ran = call(&format!("ws://{}", silent.local_addr().expect("address")));
    assert_eq!((ran.code, ran.json()["error"]["kind"].as_str()), (18, Some("timeout")), "{ran:?}");
}

#[test]
fn errors_say_what_why_and_what_next() {
    let capture = refusing(
        "NOT_PAIRED",
        "pairing required: device is not approved yet",
        json!({"code": "PAIRING_REQUIRED", "reason": "not-paired", "requestId": "8a98d942-36c2"}),
    );
    let ran = World::new().run(&["devices", "list", "--url", &capture.url(), "--password", "P"]);
    assert_eq!(ran.out, "");
    let lines: Vec<&str> = ran.err.lines().collect();
    assert_eq!(lines[0], "✗ pairing required: device is not approved yet");
    assert!(lines[1].contains("owner has to approve it once"), "{lines:?}");
    assert_eq!(lines[2], "Request id: 8a98d942-36c2 (waits five minutes; trying again keeps it)");
    assert_eq!(lines[3], "Approve this device on the gateway host: openclaw devices approve 8a98d942-36c2");
}

#[test]
fn s_036_s_045_the_tunnel_hint_follows_the_port() {
    let hint = |config: &str, vars: &[(&str, &str)], line: &[&str]| {
        let world = vars.iter().fold(World::with(config), |world, (name, value)| world.env(name, value));
        world.run(line).err
    };
    let expect = |text: &str, port: u16| {
        assert!(text.contains(&format!("ssh -N -L {port}:127.0.0.1:{port} user@host")), "{text}")
    };
    let token = "auth: {token: 'T'}";
    expect(&hint(&format!("{{gateway: {{port: 28001, {token}}}}}"), &[], &["health"]), 28001);
    expect(&hint(&format!("{{gateway: {{{token}}}}}"), &[("OPENCLAW_GATEWAY_PORT", "28002")], &["health"]), 28002);
    expect(&hint(&format!("{{gateway: {{{token}}}}}"), &[], &["gateway", "health", "--port", "28003"]), 28003);
    // S-058: remote mode with a loopback URL means a tunnel that is not up.
    let remote = "{gateway: {mode: 'remote', remote: {url: 'ws://127.0.0.1:28004', token: 'R', remotePort: 18789}}}";
    let text = hint(remote, &[], &["health"]);
    assert!(text.contains("Open the tunnel on this machine: ssh -N -L 28004:127.0.0.1:18789 user@host"), "{text}");
}

#[test]
fn s_070_s_071_remote_mode_says_so() {
    let capture = Capture::start(Does::Hello(&["operator.read"]));
    let config = format!("{{gateway: {{mode: 'remote', remote: {{url: '{}', token: 'R'}}}}}}", capture.url());
    let ran = World::with(&config).run(&["gateway", "status"]);
    assert_eq!(ran.code, 0);
    assert!(ran.out.contains("Runtime: remote\n"), "{ran:?}");
    assert!(ran.out.contains(&format!("Probe target: {}", capture.url())), "{ran:?}");
    assert!(ran.out.contains("RPC probe: ok"), "{ran:?}");
    let ran = World::with(&config).run(&["status"]);
    assert!(ran.out.contains(&format!("remote · {} (config gateway.remote.url)", capture.url())), "{ran:?}");
    assert_eq!(capture.connects()[0]["auth"], json!({"token": "R"}));
}

#[test]
fn s_236_unreachable_is_said_and_exits_0() {
    for line in [&["status"][..], &["gateway", "status"]] {
        let ran = World::with("{gateway: {port: 1, auth: {token: 'T'}}}").run(line);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(
            ran.out.contains("RPC probe: failed") && ran.out.contains("ws://127.0.0.1:1 (local loopback)"),
            "{ran:?}"
        );
    }
    let ran = World::with("{gateway: {port: 1, auth: {token: 'T'}}}").run(&["gateway", "status", "--require-rpc"]);
    assert_eq!(ran.code, 11);
}

#[test]
fn json_stands_alone_on_stdout() {
    let capture = Capture::start(Does::Hello(&["operator.read", "operator.pairing"]));
    let world = World::with(&format!("{{gateway: {{port: {}, auth: {{token: 'T'}}}}}}", capture.port));
    for line in [
        &["health", "--json"][..],
        &["status", "--json"],
        &["status", "--deep", "--json"],
        &["gateway", "health", "--json"],
        &["gateway", "status", "--json"],
        &["gateway", "probe", "--json"],
        &["gateway", "call", "health", "--json"],
        &["devices", "list", "--json"],
        &["devices", "approve", "--latest", "--json"],
        &["pairing", "list", "--json"],
        &["dashboard", "--no-open", "--json"],
        &["doctor", "--json"],
        &["config", "file", "--json"],
        &["config", "validate", "--json"],
        &["config", "schema"],
        &["config", "get", "gateway", "--json"],
        &["config", "get", "no.such.key", "--json"],
    ] {
        world.run(line).json();
    }
    let ran = world.run(&["logs", "--json", "--tail", "1"]);
    let lines: Vec<serde_json::Value> =
        ran.out.lines().map(|line| serde_json::from_str(line).expect("JSON line")).collect();
    assert_eq!(
        (&lines[0]["type"], &lines[1]["type"], &lines[1]["message"]),
        (&json!("meta"), &json!("log"), &json!("hi"))
    );
    assert_eq!(capture.frames("logs.tail")[0]["limit"], 1, "S-240");
}

#[test]
fn s_167_config_get_shows_the_leaf_and_hides_in_dumps() {
    let world = World::with("{gateway: {port: 1, auth: {mode: 'token', token: 'sesame-sesame'}}}");
    assert_eq!(world.run(&["config", "get", "gateway.auth.token"]).out, "sesame-sesame\n");
    assert_eq!(world.run(&["config", "get", "gateway.auth.mode"]).out, "token\n", "S-168");
    assert_eq!(world.run(&["config", "get", "gateway.port", "--json"]).json(), json!(1));
    for dump in ["gateway", "gateway.auth"] {
        let ran = world.run(&["config", "get", dump]);
        assert!(ran.out.contains("__OPENCLAW_REDACTED__") && !ran.out.contains("sesame"), "{ran:?}");
    }
    let unset = world.run(&["config", "get", "gateway.bind"]);
    assert!(unset.code == 1 && unset.err.contains("valid but unset: gateway.bind"), "{unset:?}");
    let unknown = world.run(&["config", "get", "gateway.nope"]);
    assert!(unknown.code == 1 && unknown.err.contains("Unknown config path: gateway.nope"), "{unknown:?}");
}

#[test]
fn s_064_to_s_066_config_set_undo_and_comments() {
    let world = World::with("{\n  // mine\n  gateway: {port: 20000,},\n}\n");
    let text = || std::fs::read_to_string(world.state().join("openclaw.json")).expect("config");
    let before = text();
    let ran = world.run(&["config", "set", "gateway.mode", "remote"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.out.contains("Updated gateway.mode. Restart the gateway to apply.")
            && ran.out.contains("Undo: openclaw config undo"),
        "{ran:?}"
    );
    for (path, value) in [("gateway.remote.url", "ws://gw:18789"), ("gateway.remote.token", "your-token")] {
        assert_eq!(world.run(&["config", "set", path, value]).code, 0);
        assert_eq!(world.run(&["config", "get", path]).out, format!("{value}\n"));
    }
    assert!(text().contains("// mine"), "comments stay: {}", text());
    assert_eq!(world.run(&["config", "unset", "gateway.remote"]).code, 0);
    assert_eq!(world.run(&["config", "undo"]).code, 0);
    assert_eq!(world.run(&["config", "get", "gateway.remote.url"]).out, "ws://gw:18789\n");

    let kept = text();
    for line in [
        &["config", "set", "gateway.port", "abc"][..],
        &["config", "set", "gateway.port", "70000"],
        &["config", "set", "gateway.bind", "0.0.0.0"],
        &["config", "set", "gateway.port", "x", "--strict-json"],
        &["config", "unset", "nothing.here"],
    ] {
        let ran = world.run(line);
        assert_eq!((ran.code, text()), (1, kept.clone()), "{line:?}: {ran:?}");
    }
    let dry = world.run(&["config", "set", "gateway.port", "20001", "--dry-run", "--json"]);
    assert_eq!((dry.json()["changedPaths"].clone(), text()), (json!(["gateway.port"]), kept), "{dry:?}");
    assert_ne!(before, text());
}

#[test]
fn config_patch_from_file_and_stdin() {
    use std::io::Write as _;
    let world = World::with("{gateway: {port: 20000}}");
    let patch = world.dir.path().join("p.json5");
    std::fs::write(&patch, "{gateway: {port: null, bind: 'loopback'}}").expect("patch");
    let ran = world.run(&["config", "patch", "--file", patch.to_str().expect("path")]);
    assert!(ran.code == 0 && ran.out.contains("Applied 2 config update(s)."), "{ran:?}");
    let mut child = world
        .command(&["config", "patch", "--stdin"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("runs");
    child.stdin.take().expect("stdin").write_all(b"{gateway: {port: 20007}}").expect("write");
    assert!(child.wait().expect("ends").success());
    assert_eq!(world.run(&["config", "get", "gateway.port"]).out, "20007\n");
}

#[test]
fn an_invalid_config_stops_commands_and_not_diagnostics() {
    let capture = Capture::start(Does::Hello(&["operator.read"]));
    let world =
        World::with(&format!("{{gateway: {{port: {}, bind: 'everywhere', auth: {{token: 'T'}}}}}}", capture.port));
    for line in
        [&["devices", "list"][..], &["gateway", "call", "health"], &["dashboard", "--no-open"], &["config", "validate"]]
    {
        let ran = world.run(line);
        assert_eq!(ran.code, 1, "{line:?}: {ran:?}");
        assert!(
            ran.err.contains("OpenClaw config is invalid") && ran.err.contains("gateway.bind"),
            "{line:?}: {ran:?}"
        );
    }
    assert_eq!(capture.connections(), 0, "nothing goes to a guessed gateway");
    for line in [
        &["status"][..],
        &["gateway", "status"],
        &["config", "file"],
        &["config", "schema"],
        &["config", "get", "gateway.port"],
    ] {
        assert_eq!(world.run(line).code, 0, "{line:?}");
    }
    let doctor = world.run(&["doctor", "--json"]);
    assert_eq!(doctor.code, 1);
    assert!(
        doctor.json()["findings"].as_array().expect("list").iter().any(|finding| finding["path"] == "gateway.bind"),
        "{doctor:?}"
    );
}

#[test]
fn doctor_explains_and_never_shows_a_secret() {
    let world = World::with("{gateway: {port: 1, auth: {token: 'sesame-sesame'}, remote: {token: 'other-secret'}}}")
        .env("OPENCLAW_GATEWAY_PASSWORD", "third-secret");
    for line in [
        &["doctor", "--why"][..],
        &["doctor", "--json"],
        &["status", "--all"],
        &["gateway", "status"],
        &["gateway", "probe"],
    ] {
        let ran = world.run(line);
        for secret in ["sesame", "other-secret", "third-secret"] {
            assert!(!ran.out.contains(secret) && !ran.err.contains(secret), "{line:?}: {ran:?}");
        }
    }
    let rows = world.run(&["doctor", "--json"]).json()["credentials"].clone();
    let row =
        |source: &str| rows.as_array().expect("rows").iter().find(|row| row["source"] == source).expect(source).clone();
    assert_eq!(row("config:gateway.auth.token")["state"], "used");
    assert_eq!(row("config:gateway.remote.token")["state"], "ignored");
    assert_eq!(row("env:OPENCLAW_GATEWAY_TOKEN")["state"], "absent");
    assert_eq!(row("config:gateway.auth.token")["fingerprint"].as_str().map(str::len), Some(8));
}

#[test]
fn doctor_fix_only_tightens() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::with("{gateway: {port: 1, auth: {token: '0123456789abcdef0123456789abcdef'}}}");
    let mode = |path: std::path::PathBuf| std::fs::metadata(path).expect("metadata").permissions().mode() & 0o777;
    let config = world.state().join("openclaw.json");
    let loosen = || {
        std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o644)).expect("chmod");
        std::fs::set_permissions(world.state(), std::fs::Permissions::from_mode(0o755)).expect("chmod");
    };
    loosen();
    let text = std::fs::read(&config).expect("config");
    let ran = world.run(&["doctor"]);
    assert!(
        ran.code == 1 && ran.out.contains("is open to others (mode 644)") && ran.out.contains("openclaw doctor --fix"),
        "{ran:?}"
    );
    loosen();
    let ran = world.run(&["doctor", "--fix"]);
    assert_eq!((ran.code, mode(config.clone()), mode(world.state())), (0, 0o600, 0o700), "{ran:?}");
    assert_eq!(std::fs::read(&config).expect("config"), text);
}

#[test]
fn a_generated_token_is_written_once() {
    let world = World::new();
    let ran = world.run(&["doctor", "--generate-gateway-token"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let token = world.run(&["config", "get", "gateway.auth.token"]).out;
    assert!(token.trim().len() == 48 && token.trim().bytes().all(|b| b.is_ascii_hexdigit()), "S-164: {token}");
    assert!(!ran.out.contains(token.trim()) && !ran.err.contains(token.trim()));
    assert_eq!(world.run(&["doctor", "--generate-gateway-token"]).code, 1);
    assert_eq!(world.run(&["config", "get", "gateway.auth.token"]).out, token);
}

#[test]
fn s_187_the_dashboard_link() {
    let world = World::with("{gateway: {port: 28005, auth: {token: 'T&x'}, controlUi: {basePath: '/ui'}}}");
    let ran = world.run(&["dashboard", "--no-open"]);
    assert_eq!(ran.code, 0);
    assert!(ran.out.contains("Dashboard URL: http://127.0.0.1:28005/ui/#token=T%26x\n"), "{ran:?}");
    assert!(ran.err.contains("Nothing listens at ws://127.0.0.1:28005"), "{ran:?}");
}

#[test]
fn logs_fall_back_to_the_file() {
    let world = World::new();
    let log = world.dir.path().join("gateway.log");
    std::fs::create_dir_all(world.state()).expect("state");
    std::fs::write(
        world.state().join("openclaw.json"),
        format!("{{gateway: {{port: 1, auth: {{token: 'T'}}}}, logging: {{file: {log:?}}}}}"),
    )
    .expect("config");
    let missing = world.run(&["logs"]);
    assert!(missing.code == 1 && missing.err.contains("There is no log file at"), "{missing:?}");
    let line = |n: u32| {
        format!(
            r#"{{"time":"2026-11-21T05:49:46.{n:03}Z","_meta":{{"logLevelName":"INFO","name":"{{\"subsystem\":\"gateway\"}}"}},"message":"line {n}"}}"#
        )
    };
    std::fs::write(&log, (0..9).map(|n| line(n) + "\n").collect::<String>()).expect("log");
    for flag in ["--tail", "--limit"] {
        let ran = world.run(&["logs", flag, "2", "--utc"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(ran.err.contains("Local Gateway RPC unavailable; reading configured file log instead."), "{ran:?}");
        assert_eq!(
            ran.out,
            format!(
                "Log file: {}\n2026-11-21T05:49:46.007+00:00 info gateway line 7\n\
                 2026-11-21T05:49:46.008+00:00 info gateway line 8\n",
                log.display()
            )
        );
    }
    let ran = world.run(&["logs", "--url", "ws://127.0.0.1:1", "--token", "T"]);
    assert_eq!((ran.code, ran.out.as_str()), (11, ""), "a given URL is not replaced by a file");
}

#[test]
fn secrets_come_in_by_stdin() {
    use std::io::Write as _;
    let world = World::new();
    let mut child = world
        .command(&["secrets", "store", "set", "gw"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("runs");
    child.stdin.take().expect("stdin").write_all(b"kept-in-the-store\n").expect("write");
    let output = child.wait_with_output().expect("ends");
    assert!(output.status.success() && !String::from_utf8_lossy(&output.stdout).contains("kept-in"));
    assert_eq!(world.run(&["secrets", "store", "list"]).out, "gw\n");
    std::fs::write(
        world.state().join("openclaw.json"),
        "{gateway: {port: PORT, auth: {token: {source: 'store', id: 'gw'}}}}".replace("PORT", "1"),
    )
    .expect("config");
    assert_eq!(
        world.run(&["doctor", "--json"]).json()["credentials"]
            .as_array()
            .expect("rows")
            .iter()
            .find(|row| row["source"] == "config:gateway.auth.token")
            .expect("row")["state"],
        "used"
    );
    assert_eq!(world.run(&["secrets", "store", "delete", "gw"]).code, 0);
    assert_eq!(world.run(&["secrets", "store", "delete", "gw"]).code, 1);
}

#[test]
fn completion_for_four_shells_reads_no_config() {
    let world = World::with("{broken");
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let ran = world.run(&["completion", "-s", shell]);
        assert!(
            ran.code == 0 && ran.out.contains("openclaw") && ran.out.contains("devices") && ran.err.is_empty(),
            "{shell}"
        );
    }
    assert_eq!(world.run(&["completion", "-s", "elvish"]).code, 1);
}

#[test]
fn probes_leave_no_identity_behind() {
    let capture = Capture::start(Does::Hello(&[]));
    let world =
        World::with(&format!("{{gateway: {{port: {}, auth: {{mode: 'password', password: 'P'}}}}}}", capture.port));
    for line in [&["gateway", "probe"][..], &["gateway", "status"], &["status", "--deep"], &["health"], &["doctor"]] {
        world.run(line);
    }
    assert!(capture.connections() >= 5 && !world.state().join("identity").exists());
    assert!(capture.connects().iter().all(|connect| connect.get("device").is_none()));
    world.run(&["devices", "list"]);
    assert!(world.state().join("identity/device.json").exists(), "a password signs");
}

#[test]
fn p_86_debug_output_holds_no_secret() {
    let capture =
        refusing("INVALID_REQUEST", "unauthorized: gateway token mismatch", json!({"code": "AUTH_TOKEN_MISMATCH"}));
    let url = capture.url();
    for target in [
        url.as_str(),
        "ws://127.0.0.1:1",
        "ws://gw.example.com:1",
        "ws://user:sesame-secret@h",
        "ws://h/?token=sesame-secret",
    ] {
        for json in [&[][..], &["--json"]] {
            let line =
                ["--log-level", "trace", "gateway", "call", "health", "--url", target, "--token", "sesame-secret"];
            let ran = World::new().env("OPENCLAW_DEBUG", "1").run(&[&line[..], json].concat());
            assert_ne!(ran.code, 0, "{target}");
            assert!(!ran.out.contains("sesame") && !ran.err.contains("sesame"), "{target}: {ran:?}");
        }
    }
}
