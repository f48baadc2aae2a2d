//! State, logs, process: P-76 to P-80.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
    path::Path,
};

use lab::{
    client::new_device,
    sandbox::{Rival, Sandbox, Setup, assert_no_process_shows, walk},
    wire::{self, Conn, get, read_lossy},
};
use serde_json::{Value, json};

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).mode() & 0o777
}

/// Everything in the state directory and the log are the owner's alone.
#[track_caller]
fn assert_private(g: &Sandbox) {
    let mut directories = vec![g.state_dir(), g.dir().join("logs")];
    for file in walk(&g.state_dir()).into_iter().chain(walk(&g.dir().join("logs"))) {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
        directories.extend(file.parent().map(Path::to_owned));
    }
    for directory in directories {
        assert_eq!(mode(&directory), 0o700, "{}", directory.display());
    }
    let socket = g.state_dir().join("gateway.sock");
    assert!(socket.exists() || g.state_dir().as_os_str().len() > 80, "the owner's socket is there");
}

/// Makes the gateway write every kind of file it has.
fn use_everything(g: &Sandbox) {
    let mut admin = g.admin();
    for port in [18_101, 18_102, 18_103] {
        let hash = admin.ok("config.get", json!({}))["hash"].clone();
        admin.ok("config.patch", json!({"raw": format!("{{gateway: {{port: {port}}}}}"), "baseHash": hash}));
    }
    let hash = admin.ok("config.get", json!({}))["hash"].clone();
    admin.err("config.patch", json!({"raw": "{gateway: {port: \"x\"}}", "baseHash": hash}));
    g.paired(&["operator.read"]);
    g.node(&["system.which"]);
}

#[test]
fn p_76_permissions() {
    // Whatever the umask.
    for umask in ["000", "022", "077", "0177"] {
        let mut g = Setup::new().umask(umask).start();
        use_everything(&g);
        assert_private(&g);
        g.kill();
        // A crash leaves a half-written copy behind; the next start has no looser files either.
        fs::write(g.state_dir().join(".openclaw.json.1.abc.tmp"), "{}").expect("writes");
        fs::remove_file(g.state_dir().join(".openclaw.json.1.abc.tmp")).expect("removes");
        g.start();
        use_everything(&g);
        assert_private(&g);
    }
    // What others left loose is tightened.
    let setup = Setup::new().umask("000");
    let config = setup.write_config();
    let state = setup.state_dir();
    fs::create_dir_all(state.join("state")).expect("creates");
    fs::create_dir_all(state.join("identity")).expect("creates");
    for (path, loose) in
        [(config.clone(), 0o644), (state.clone(), 0o755), (state.join("state"), 0o777), (state.join("identity"), 0o755)]
    {
        fs::set_permissions(&path, fs::Permissions::from_mode(loose)).expect("loosens");
    }
    let g = setup.start();
    use_everything(&g);
    assert_private(&g);
    drop(g);
    // References stay references in every copy.
    let setup = Setup::new().umask("000").env("LAB_REFERENCED", "lab-referenced-secret-1");
    let reference = json!({"gateway": {"remote": {"token": "${LAB_REFERENCED}"}}});
    let g = setup.config(reference).start();
    use_everything(&g);
    for file in walk(g.dir()) {
        assert!(!read_lossy(&file).contains("lab-referenced-secret-1"), "{}", file.display());
    }
    assert!(read_lossy(&g.config_file()).contains("${LAB_REFERENCED}"));
}

#[test]
fn p_77_foreign_ownership() {
    let nobody = 65_534;
    if !rustix::process::geteuid().is_root() {
        // Without the right to give files away, somebody else's directory is one of root's.
        let failure = Setup::new().env("OPENCLAW_STATE_DIR", "/etc").unwatched().refused();
        assert!(failure.console.contains("belongs to user id 0"), "{}", failure.console);
        return;
    }
    let refused = |setup: Setup, what: &str| {
        let failure = setup.refused_as_is();
        assert!(failure.status.code().is_some_and(|code| code != 0), "{what}: {}", failure.console);
        let reason = failure.console.contains("belongs to user id 65534") || failure.console.contains("symbolic link");
        assert!(reason, "{what}: {}", failure.console);
    };
    let setup = Setup::new();
    setup.write_config();
    chown(setup.state_dir(), Some(nobody), None).expect("gives away");
    refused(setup, "the state directory");
    let setup = Setup::new();
    let config = setup.write_config();
    chown(&config, Some(nobody), None).expect("gives away");
    refused(setup, "the config file");
    let setup = Setup::new();
    let config = setup.write_config();
    let theirs = setup.state_dir().with_file_name("theirs.json");
    fs::rename(&config, &theirs).expect("moves");
    chown(&theirs, Some(nobody), None).expect("gives away");
    symlink(&theirs, &config).expect("links");
    refused(setup, "a config that links to another's file");
    for file in ["gateway.lock", "gateway.token", "state/openclaw-rs.sqlite", "identity/device.json", ".env"] {
        let setup = Setup::new();
        // So that the generated token is read.
        let setup = setup.config(json!({"gateway": {"auth": {"token": null}}})).unwatched();
        setup.write_config();
        let path = setup.state_dir().join(file);
        let parent = path.parent().expect("a parent");
        fs::create_dir_all(parent).expect("creates");
        fs::set_permissions(parent, fs::Permissions::from_mode(0o700)).expect("sets the mode");
        fs::write(&path, "").expect("writes");
        chown(&path, Some(nobody), None).expect("gives away");
        refused(setup, file);
    }
}

#[test]
fn p_78_log_forging() {
    let g = Setup::new().arg("--verbose").config(json!({"logging": {"level": "debug"}})).start();
    let marks = ["\r\n", "\n", "\r", "\u{1b}[2J\u{1b}[31m", "\u{202e}", "\u{2028}", "\u{0}", "\u{7f}", "\u{9b}31m"];
    for mark in marks {
        let evil = format!("a{mark}2026-01-01T00:00:00Z [gateway] FORGED{mark}{}", "x".repeat(64 * 1024));
        let short = format!("a{mark}FORGED{mark}");
        // In what a device calls itself, and in every field of a connect.
        let named = g.with_token().set("/client/displayName", evil.clone()).set("/client/version", evil.clone());
        let named = named.set("/client/instanceId", evil.clone()).set("/client/deviceFamily", short.clone());
        let _ = named
            .set("/userAgent", short.clone())
            .set("/locale", short.clone())
            .device(&new_device())
            .attempt_if_open();
        for field in ["/client/id", "/client/mode", "/role"] {
            assert_eq!(g.with_token().set(field, short.clone()).word(), "INVALID_REQUEST", "{field}");
        }
        let _ = g.login().token(&short).word();
        let mut client = g.admin();
        let _ = client.call(&short, json!({}));
        let _ = client.call("device.pair.rename", json!({"deviceId": short, "label": short}));
        let _ = client.call("config.patch", json!({"raw": "{}", "note": evil, "baseHash": "x"}));
        client.ok("system-event", json!({"text": short, "host": short, "reason": short, "mode": "ui"}));
        // In headers and paths, as far as HTTP lets it through.
        if !mark.contains(['\r', '\n', '\0']) {
            for header in ["User-Agent", "Origin", "Referer", "X-Request-Id"] {
                let _ = Conn::open(&g.address()).get("/nope", &[(header, &short)]);
                let mut conn = Conn::open(&g.address());
                let _ = conn.upgrade(&[(header, &short)]);
            }
            let _ = Conn::open(&g.address()).get("/%0d%0aFORGED%1b%5b2J", &[]);
        }
        g.with_token().origin(&format!("http://{}", "o".repeat(20_000))).refused();
    }
    let mut reader = g.operator(&["operator.read"]);
    reader.ok("health", json!({}));
    let log = g.log();
    assert!(log.lines().count() > 5, "there is a log: {log}");
    for line in log.split('\n').filter(|line| !line.is_empty()) {
        let parsed: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let message = parsed["message"].as_str().expect("a message");
        assert!(
            !message.starts_with("FORGED") && !message.contains(['\r', '\n', '\u{1b}', '\u{202e}', '\u{0}', '\u{9b}']),
            "{message:?}"
        );
        assert!(line.len() < 16 * 1024, "a line of {} bytes", line.len());
    }
    for line in g.console().split('\n') {
        assert!(!line.contains(['\u{1b}', '\u{202e}', '\u{9b}', '\r']), "{line:?}");
        assert!(!line.trim_start().starts_with("2026-01-01T00:00:00Z"), "{line:?}");
    }
    let lines = reader.ok("logs.tail", json!({"limit": 5000}))["lines"].as_array().expect("lines").clone();
    assert!(lines.iter().all(|line| serde_json::from_str::<Value>(line.as_str().expect("text")).is_ok()));
}

#[test]
fn p_79_secrets_off_the_process_table() {
    // A helper program that hands out another secret says what it was given.
    let setup = Setup::new();
    let seen = setup.state_dir().with_file_name("seen-by-helper.txt");
    let helper = setup.state_dir().with_file_name("helper.sh");
    let script = format!(
        "#!/bin/sh\n{{ tr '\\0' '\\n' < /proc/$$/cmdline; env; cat; }} > {} 2>/dev/null\n\
         echo '{{\"protocolVersion\":1,\"values\":{{\"remote\":\"from-the-helper-0123456789\"}}}}'\n",
        seen.display()
    );
    fs::write(&helper, script).expect("writes");
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o700)).expect("sets the mode");
    let from_env = "lab-token-from-environment-0123456789";
    wire::never_receive(from_env);
    let g = setup
        .config(json!({
            "gateway": {
                "auth": {"mode": "password", "token": null, "password": {"source": "exec", "provider": "vault", "id": "remote"}},
            },
            "secrets": {"providers": {"vault": {"source": "exec", "command": helper, "passEnv": ["PATH"]}}},
        }))
        .env("OPENCLAW_GATEWAY_TOKEN", from_env)
        .env("ANTHROPIC_API_KEY", "lab-anthropic-key-0123456789")
        .unwatched()
        .start();
    let given = read_lossy(&seen);
    assert!(given.contains("PATH="), "the helper ran: {given}");
    for secret in [from_env, "lab-anthropic-key-0123456789", g.token()] {
        assert!(!given.contains(secret), "a child of the gateway was given {secret}: {given}");
    }
    assert_eq!(g.login().password("from-the-helper-0123456789").word(), "hello [operator.read]");
    assert_no_process_shows("from-the-helper-0123456789");
    drop(g);
    // A password file keeps the password off the table, and a generated token is nowhere but in its file.
    let setup = Setup::new().config(json!({"gateway": {"auth": {"mode": "password", "token": null}}}));
    let file = setup.state_dir().with_file_name("password.txt");
    let password = "lab-password-in-a-file-0123456789";
    wire::never_receive(password);
    fs::write(&file, format!("{password}\n")).expect("writes");
    let path = file.display().to_string();
    let g = setup.arg("--password-file").arg(&path).start();
    assert_eq!(g.login().password(password).word(), "hello [operator.read]");
    assert_no_process_shows(password);
    assert!(!g.console().contains(password) && !g.log().contains(password));
    drop(g);
    let g = Setup::new().config(json!({"gateway": {"auth": {"token": null, "mode": null}}})).start();
    let token = read_lossy(&g.state_dir().join("gateway.token")).trim().to_owned();
    assert_eq!(token.len(), 48);
    assert_eq!(g.login().token(&token).word(), "hello [operator.read]");
    assert_no_process_shows(&token);
    assert!(!g.console().contains(&token) && !g.log().contains(&token));
    assert_eq!(mode(&g.state_dir().join("gateway.token")), 0o600);
}

#[test]
fn p_80_two_gateways_one_state() {
    let mut g = Setup::new().start();
    let first = g.pid();
    let device = g.paired(&["operator.read"]);
    let mut connected = device.hello();
    // The second start on the same state is told who is there, and touches nobody.
    let second = g.setup.run(&["gateway", "run", "--port", "0"]);
    let told = second.stderr;
    assert!(!second.status.success());
    assert!(told.contains(&format!("pid {first}")) && told.contains("already owned"), "{told}");
    assert!(told.contains("openclaw status") && told.contains(&g.port.to_string()), "says what to do: {told}");
    // Not even with --force on another port.
    let forced = g.setup.run(&["gateway", "run", "--port", "0", "--force"]);
    assert!(!forced.status.success());
    connected.ok("health", json!({}));
    assert!(g.is_alive());
    // A stranger's port is not taken, and the stranger is named but left alone.
    let other = Setup::new().config(json!({"gateway": {"port": g.port}}));
    other.write_config();
    let busy = other.run(&["gateway", "run"]);
    let told = busy.stderr;
    assert!(!busy.status.success() && told.contains(&format!("pid {first}")), "{told}");
    assert!(!told.contains(g.token()), "{told}");
    connected.ok("health", json!({}));
    // Killed without warning, its successor takes over cleanly, with everything it knew.
    g.kill();
    assert!(g.state_dir().join("gateway.lock").exists(), "a killed gateway leaves its lock file");
    g.start();
    assert_ne!(g.pid(), first);
    assert_eq!(device.login_at(&g.address()).word(), "hello [operator.read]");
    assert_eq!(get(&g.address(), "/readyz", &[]).json()["ready"], true);
    // Eight at the same instant: one serves, the others say why they do not.
    g.kill();
    let mut rivals: Vec<_> = (0..8).map(|_| g.setup.spawn_beside(&["gateway", "run", "--port", "0"])).collect();
    let serving = rivals.iter_mut().map(Rival::serves_or_ends).filter(|serves| *serves).count();
    assert_eq!(serving, 1);
    drop(rivals);
    g.start();
    assert_eq!(g.stop().code(), Some(0), "a clean stop");
    assert!(!g.state_dir().join("gateway.sock").exists(), "a clean stop takes its socket along");
    g.start();
    assert_eq!(device.login_at(&g.address()).word(), "hello [operator.read]");
}
