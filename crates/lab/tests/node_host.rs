//! Our node host as a real process: at our gateway, and at the real ones of both generations.

use std::{
    collections::BTreeSet,
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use lab::{
    node_bench::{Bench, NAME, allow},
    peers::{Generation, Peers, RealGateway},
    process::{Gateway, GatewayOptions, Launch, Process, wait_until},
    require,
    require::program,
    sandbox::binary,
    sshd::{SshClient, Sshd},
};
use openclaw_protocol::{GatewayId, Secret, SetupCode};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tungstenite::Message;

fn alive(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
        .is_ok_and(|stat| !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['Z', 'X'])))
}

/// A script with two processes that would run for an hour: one in its group, one in a session of its own.
fn long_lived(dir: &Path) -> (PathBuf, PathBuf) {
    let (script, pids) = (dir.join("long.sh"), dir.join("pids"));
    let file = pids.display();
    let text = format!(
        "#!/bin/sh\nsleep 3600 &\necho $! >> {file}\nsetsid sh -c 'echo $$ >> {file}; exec sleep 3600' &\nwait\n"
    );
    fs::write(&script, text).expect("a scratch directory takes files");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("it is ours");
    (script, pids)
}

fn wait_pids(file: &Path) -> Vec<String> {
    wait_until("two process ids", || {
        let text = fs::read_to_string(file).ok()?;
        let pids: Vec<String> = text.lines().map(str::to_owned).collect();
        (pids.len() == 2 && text.ends_with('\n')).then_some(pids)
    })
}

fn kill_9(process: &Process) {
    let pid = i32::try_from(process.pid()).ok().and_then(Pid::from_raw).expect("a process has an id");
    kill_process(pid, Signal::KILL).expect("it runs");
}

/// Pairs, is approved, answers, asks for leave, and comes back after the gateway was away.
#[test]
fn a_node_lends_its_machine() {
    let mut gateway = Gateway::start();
    let bench = Bench::new(gateway.port(), gateway.token());
    bench.policy(&allow(&["echo"]));
    let mut node = bench.start();
    let seen = bench.wait_connected(&mut node);
    assert_eq!(seen["displayName"], NAME);
    assert_eq!((&seen["clientId"], &seen["clientMode"]), (&json!("node-host"), &json!("node")));
    wait_until("the node's word about approval", || node.stderr().contains("openclaw nodes approve ").then_some(()));
    bench.approve();
    wait_until("the node hears of it", || node.stderr().contains("owner approved").then_some(()));

    let which = bench.invoke("system.which", &json!({"bins": ["sh", "no-such-program-anywhere"]}));
    assert!(which["bins"]["sh"].as_str().is_some_and(|path| path.ends_with("/sh")), "{which}");
    assert_eq!(which["bins"].as_object().map(serde_json::Map::len), Some(1));
    let listed = bench.invoke("fs.listDir", &json!({"path": bench.node_home.path()}));
    assert_eq!(listed["entries"][0]["name"], "state");
    wait_until("stats of the machine", || {
        bench.node().filter(|node| node["hostStats"]["memoryTotalBytes"].as_u64().is_some_and(|bytes| bytes > 0))
    });

    // On the allow-list, alone and in a shell's line.
    let run = bench.run(&["--", "echo", "hi"]);
    assert_eq!((run.status.code(), run.stdout.as_str()), (Some(0), "hi\n"), "{run:#?}");
    let run = bench.run(&["--raw", "echo one && echo two"]);
    assert_eq!(run.stdout, "one\ntwo\n", "{run:#?}");
    // Not on it: leave is asked for, given once, and used up.
    let script = bench.node_home.path().join("job.sh");
    fs::write(&script, "echo job; exit 3\n").expect("a scratch directory takes files");
    let job = script.to_str().expect("a path");
    let run = bench.run(&["--approve", "once", "--", "sh", job]);
    assert_eq!((run.status.code(), run.stdout.as_str()), (Some(3), "job\n"), "{run:#?}");
    // For always: the same words run unasked, others do not.
    let run = bench.run(&["--approve", "always", "--", "expr", "1", "+", "1"]);
    assert_eq!(run.stdout, "2\n", "{run:#?}");
    let direct = |words: Value| {
        let id = seen["nodeId"].as_str().expect("an id");
        let params = json!({"nodeId": id, "command": "system.run", "params": {"command": words},
                            "idempotencyKey": uuid::Uuid::new_v4().to_string()});
        bench.cli(&["gateway", "call", "node.invoke", "--json", "--params", &params.to_string()]).run()
    };
    assert_eq!(direct(json!(["expr", "1", "+", "1"])).json()["payload"]["stdout"], "2\n");
    let refused = direct(json!(["expr", "1", "+", "2"]));
    assert!(!refused.status.success() && refused.stdout.contains("approval required"), "{refused:#?}");

    gateway.stop();
    wait_until("the node notices", || node.stderr().contains("connect failed").then_some(()));
    gateway.start_again();
    bench.wait_connected(&mut node);
    let which = bench.invoke("system.which", &json!({"bins": ["sh"]}));
    assert!(which["bins"]["sh"].is_string());

    assert!(node.stop().success(), "{}", node.said());
    wait_until("the node gone", || bench.node().filter(|node| node["connected"] == false));
}

/// The paired node needs the shared secret no more.
#[test]
fn s_208_a_paired_node_comes_back_with_its_own_token() {
    let gateway = Gateway::start();
    let bench = Bench::new(gateway.port(), gateway.token());
    let mut node = bench.start();
    bench.wait_connected(&mut node);
    node.stop();
    let mut node = bench.launch().start("node-again");
    wait_until("the node connected again", || {
        assert!(node.ended().is_none(), "{}", node.said());
        node.stderr().contains("gateway connected").then_some(())
    });
    bench.wait_connected(&mut node);
}

/// No program outlives its node, whatever way the node ends; nor its request.
#[test]
fn nothing_outlives_the_node() {
    let gateway = Gateway::start();
    let bench = Bench::new(gateway.port(), gateway.token());
    bench.policy(&json!({"version": 1, "defaults": {"security": "full", "ask": "off"}}));
    for way in ["kill -9", "terminate", "cancel"] {
        let mut node = bench.start();
        let seen = bench.wait_connected(&mut node);
        if seen["approvalState"] != "approved" {
            bench.approve();
        }
        let scratch = TempDir::with_prefix("openclaw-job-").expect("a temporary directory");
        let (script, file) = long_lived(scratch.path());
        let limit = if way == "cancel" { "3000" } else { "600000" };
        let job =
            bench.cli(&["nodes", "run", "--node", NAME, "--invoke-timeout", limit, "--"]).arg(&script).start("job");
        let pids = wait_pids(&file);
        assert!(pids.iter().all(|pid| alive(pid)), "{way}");
        match way {
            "kill -9" => kill_9(&node),
            "terminate" => assert!(node.stop().success(), "{}", node.said()),
            // The gateway's deadline passes, and it takes the request back.
            _ => {}
        }
        wait_until("end of what the node ran", || (!pids.iter().any(|pid| alive(pid))).then_some(()));
        drop(job);
        drop(node);
        wait_until("the node gone", || bench.node().filter(|node| node["connected"] == false));
    }
}

/// S-010, S-011: a node is a client and nothing else.
#[test]
fn s_011_a_node_listens_nowhere() {
    let gateway = Gateway::start();
    let bench = Bench::new(gateway.port(), gateway.token());
    let mut node = bench.start();
    bench.wait_connected(&mut node);
    let sockets: Vec<String> = fs::read_dir(format!("/proc/{}/fd", node.pid()))
        .expect("our own process")
        .flatten()
        .filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            Some(target.to_str()?.strip_prefix("socket:[")?.trim_end_matches(']').to_owned())
        })
        .collect();
    assert!(!sockets.is_empty(), "it is connected");
    for table in ["tcp", "tcp6"] {
        let lines = fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
        for fields in lines.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>()) {
            let listening = fields.get(3) == Some(&"0A");
            assert!(!(listening && sockets.iter().any(|inode| fields.get(9) == Some(&inode.as_str()))), "{fields:?}");
        }
    }
}

/// Nobody is let in silently: the node says what to approve, waits, and goes on by itself. Removed, it asks again.
#[test]
fn a_node_waits_for_its_owner() {
    let config = json!({"gateway": {"mode": "local", "nodes": {"pairing": {"autoApproveLocal": false}}}}).to_string();
    let gateway = Gateway::start_with(GatewayOptions { config: Some(config), ..GatewayOptions::default() });
    let bench = Bench::new(gateway.port(), gateway.token());
    let mut node = bench.start();
    let approve_next = |node: &mut Process, before: usize| {
        wait_until("the node's word about its request", || {
            assert!(node.ended().is_none(), "{}", node.said());
            (node.stderr().matches("openclaw devices approve ").count() > before).then_some(())
        });
        let said = node.stderr();
        let id = said.rsplit("openclaw devices approve ").next().and_then(|rest| rest.split_whitespace().next());
        bench.says(&["devices", "approve", id.expect("an id")]);
    };
    approve_next(&mut node, 0);
    let seen = bench.wait_connected(&mut node);
    assert!(node.stderr().contains("Its list shows this request as: "), "{}", node.said());

    bench.says(&["nodes", "remove", "--node", seen["nodeId"].as_str().expect("an id")]);
    approve_next(&mut node, 1);
    bench.wait_connected(&mut node);
}

/// Without any secret a removed node has nothing to show: it stops, and says what to do.
#[test]
fn a_revoked_node_stops_with_a_word() {
    let gateway = Gateway::start();
    let bench = Bench::new(gateway.port(), gateway.token());
    let mut node = bench.start();
    bench.wait_connected(&mut node);
    node.stop();
    let mut node = bench.launch().start("node-again");
    let seen = bench.wait_connected(&mut node);
    bench.says(&["nodes", "remove", "--node", seen["nodeId"].as_str().expect("an id")]);
    let status = wait_until("end of the node", || node.ended());
    assert_eq!(status.code(), Some(14), "{}", node.said());
    assert!(node.stderr().contains("openclaw node run --pair"), "{}", node.said());
}

#[test]
fn a_wrong_secret_is_sent_once() {
    let gateway = Gateway::start();
    let bench = Bench::new(gateway.port(), "not-the-token");
    let mut node = bench.start();
    let status = wait_until("end of the node", || node.ended());
    assert_eq!(status.code(), Some(14), "{}", node.said());
    assert!(!node.stderr().contains("trying again"), "{}", node.said());
}

/// At a real gateway: paired, approved where the protocol asks for it, seen, asked, and back after a restart of its own.
#[track_caller]
fn check_real_gateway(generation: Generation) {
    let peers = require!(Peers::find());
    let gateway = RealGateway::start(&peers, generation);
    let bench = Bench::new(gateway.port(), gateway.token());
    bench.policy(&allow(&["echo"]));
    let mut node = bench.start();
    let seen = bench.wait_connected(&mut node);
    assert_eq!(seen["displayName"], NAME);
    if generation == Generation::V4 {
        wait_until("the node's word about approval", || {
            node.stderr().contains("openclaw nodes approve ").then_some(())
        });
        bench.approve();
        wait_until("the node hears of it", || node.stderr().contains("owner approved").then_some(()));
    }
    let which = bench.invoke("system.which", &json!({"bins": ["sh", "no-such-program-anywhere"]}));
    assert!(which["bins"]["sh"].as_str().is_some_and(|path| path.ends_with("/sh")), "{which}");
    let run = bench.run(&["--", "echo", "hi"]);
    assert_eq!((run.status.code(), run.stdout.as_str()), (Some(0), "hi\n"), "{run:#?}");
    // Leave, kept by the real gateway: the node's own plan comes back, and holds once.
    let run = bench.run(&["--approve", "once", "--raw", "echo three; exit 3"]);
    assert_eq!((run.status.code(), run.stdout.as_str()), (Some(3), "three\n"), "{run:#?}\n{}", node.said());

    assert!(node.stop().success(), "{}", node.said());
    // Only with its own token now.
    let mut node = bench.launch().start("node-again");
    bench.wait_connected(&mut node);
    let run = bench.run(&["--", "echo", "again"]);
    assert_eq!(run.stdout, "again\n", "{run:#?}");
}

#[test]
fn our_node_at_the_real_gateway_of_protocol_4() {
    check_real_gateway(Generation::V4);
}

#[test]
fn our_node_at_the_real_gateway_of_protocol_3() {
    check_real_gateway(Generation::V3);
}

/// A one-time code of the gateway's owner, for a node.
fn code(bench: &Bench) -> SetupCode {
    let invited = bench.says(&["devices", "invite", "--role", "node"]);
    let text = |pointer: &str| invited.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    SetupCode {
        urls: vec![format!("ws://127.0.0.1:{}", bench.port)],
        bootstrap_token: Secret::new(text("/token")),
        expires_at_ms: invited["expiresAtMs"].as_i64(),
        tls_fingerprint: None,
        gateway_id: GatewayId::parse(&text("/gateway/id")),
        role: None,
    }
}

fn by_code(bench: &Bench, code: &SetupCode) -> Launch {
    Launch::new(binary(), bench.node_home.path())
        .env("HOME", bench.node_home.path())
        .env("OPENCLAW_STATE_DIR", bench.state())
        .args(["node", "run", "--display-name", NAME, "--pair"])
        .arg(format!("oc-pair://{}", code.encode().expose()))
}

/// No secret but the code; afterwards the node's own token, for the gateway that proved itself and no other.
#[test]
fn a_node_pairs_by_a_code() {
    let mut gateway = Gateway::start();
    let bench = Bench::new(gateway.port(), gateway.token());
    let code = code(&bench);
    let mut node = by_code(&bench, &code).start("node");
    bench.wait_connected(&mut node);
    node.stop();
    // Used up: another machine gets nothing for it.
    let other = Bench::new(gateway.port(), gateway.token());
    let mut thief = by_code(&other, &code).start("thief");
    let status = wait_until("end of the thief", || thief.ended());
    assert_eq!(status.code(), Some(14), "{}", thief.said());
    assert!(thief.stderr().contains("setup code"), "{}", thief.said());
    // It remembers where it belongs.
    let again = Launch::new(binary(), bench.node_home.path())
        .env("HOME", bench.node_home.path())
        .env("OPENCLAW_STATE_DIR", bench.state())
        .args(["node", "run"]);
    let mut node = again.start("node-again");
    bench.wait_connected(&mut node);
    node.stop();
    // Another gateway at the same address is told nothing.
    let state = gateway.state_dir();
    gateway.stop();
    let identity = state.join("identity").join("device.json");
    fs::remove_file(&identity).unwrap_or_else(|error| panic!("{}: {error}", identity.display()));
    gateway.start_again();
    let mut node = again.start("node-elsewhere");
    let status = wait_until("end of the node", || node.ended());
    assert_eq!(status.code(), Some(21), "{}", node.said());
}

/// Through ssh, over an ssh that dies and is replaced, and that ends with the node.
#[test]
fn a_node_reaches_its_gateway_through_ssh() {
    require!(program("sshd"));
    let (gateway, sshd, me) = (Gateway::start(), Sshd::start(), SshClient::new());
    me.may_enter(&sshd, "box");
    let bench = Bench::new(gateway.port(), gateway.token());
    let launch = Launch::new(binary(), bench.node_home.path())
        .envs(me.env())
        .env("OPENCLAW_STATE_DIR", bench.state())
        .env("OPENCLAW_GATEWAY_TOKEN", gateway.token())
        .args(["node", "run", "--host", "ssh://box", "--port", &gateway.port().to_string(), "--display-name", NAME]);
    let mut node = launch.start("node");
    let first = bench.wait_connected(&mut node);
    assert!(node.stderr().contains("ssh"), "{}", node.said());
    sshd.kill_sessions();
    wait_until("another connection", || {
        assert!(node.ended().is_none(), "{}", node.said());
        bench.node().filter(|node| node["connected"] == true && node["connectedAtMs"] != first["connectedAtMs"])
    });
    kill_9(&node);
    wait_until("end of every ssh", || me.running().is_empty().then_some(()));
}

/// The machine commands the gateway already; lending itself to it is another role, and the owner's to give.
#[test]
fn a_node_takes_the_paths_of_a_saved_connection() {
    let gateway = Gateway::start();
    let bench = Bench::new(gateway.port(), gateway.token());
    let invited = bench.says(&["devices", "invite", "--role", "operator"]);
    let text = |pointer: &str| invited.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let code = SetupCode { bootstrap_token: Secret::new(text("/token")), ..code(&bench) };
    let here = |args: &[&str]| {
        Launch::new(binary(), bench.node_home.path())
            .env("HOME", bench.node_home.path())
            .env("OPENCLAW_STATE_DIR", bench.state())
            .args(args)
    };
    let connected =
        here(&["connect", "--as", "operator", "--name", "home", "--yes", "--json"]).arg(code.encode().expose()).run();
    assert!(connected.status.success(), "{connected:#?}");
    let launch = here(&["node", "run", "--on", "home", "--display-name", NAME]);
    let mut node = launch.env("OPENCLAW_GATEWAY_TOKEN", gateway.token()).start("node");
    wait_until("the node's word about its request", || {
        assert!(node.ended().is_none(), "{}", node.said());
        node.stderr().contains("openclaw devices approve ").then_some(())
    });
    let said = node.stderr();
    let id = said.rsplit("openclaw devices approve ").next().and_then(|rest| rest.split_whitespace().next());
    let owner = Launch::new(binary(), gateway.home())
        .env("HOME", gateway.home())
        .env("OPENCLAW_STATE_DIR", gateway.state_dir());
    let approved = owner.args(["devices", "approve", id.expect("an id"), "--json"]).run();
    assert!(approved.status.success(), "{approved:#?}");
    bench.wait_connected(&mut node);
}

/// Stands where a gateway should be, and hands over the `connect` it is sent.
fn overhear(listener: &TcpListener) -> Value {
    let (stream, _) = listener.accept().expect("the node dials");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let mut socket = tungstenite::accept(stream).expect("an upgrade");
    let challenge = json!({"type": "event", "event": "connect.challenge",
                           "payload": {"nonce": "0ba0a5a0-a6b5-4a65-8ed4-e19f3798f77b", "ts": 1_795_229_493_111_i64}});
    socket.send(Message::text(challenge.to_string())).expect("it listens");
    loop {
        if let Message::Text(text) = socket.read().expect("it answers") {
            return serde_json::from_str::<Value>(&text).expect("JSON")["params"].clone();
        }
    }
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect()
}

/// S-083, S-084, and the frame itself beside the captured one (`node-run-pair-invoke`).
#[test]
fn s_083_s_084_which_secret_a_node_sends() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let here = ["--host", "127.0.0.1", "--port"];
    let local = json!({"gateway": {"mode": "local", "remote": {"token": "RT"}}});
    let own = json!({"gateway": {"mode": "local", "auth": {"token": "CT"}, "remote": {"token": "RT"}}});
    let remote = json!({"gateway": {"mode": "remote", "auth": {"token": "CT"},
                        "remote": {"url": format!("ws://127.0.0.1:{port}"), "token": "RT"}}});
    for (config, env, named, sent) in [
        (&local, None, true, Value::Null),
        (&own, None, true, json!({"token": "CT"})),
        (&own, Some("ET"), true, json!({"token": "ET"})),
        (&remote, Some("ET"), false, json!({"token": "RT"})),
        (&remote, Some("ET"), true, json!({"token": "RT"})),
    ] {
        let bench = Bench::new(port, "");
        fs::create_dir(bench.state()).expect("a scratch directory takes directories");
        fs::write(bench.state().join("openclaw.json"), config.to_string()).expect("and files");
        let mut launch = Launch::new(binary(), bench.node_home.path())
            .env("HOME", bench.node_home.path())
            .env("OPENCLAW_STATE_DIR", bench.state())
            .args(["node", "run"]);
        if named {
            launch = launch.args(here).arg(port.to_string());
        }
        if let Some(token) = env {
            launch = launch.env("OPENCLAW_GATEWAY_TOKEN", token);
        }
        let node = launch.start("node");
        let connect = overhear(&listener);
        drop(node);
        assert_eq!(connect["auth"], sent, "{config} {env:?} {named}");
        let captured =
            ["minProtocol", "maxProtocol", "client", "caps", "commands", "pathEnv", "role", "scopes", "device"];
        let auth = (!sent.is_null()).then_some("auth");
        assert_eq!(keys(&connect), captured.into_iter().chain(auth).collect());
        let client = ["id", "displayName", "version", "platform", "deviceFamily", "mode", "instanceId"];
        assert_eq!(keys(&connect["client"]), client.into_iter().collect());
        assert_eq!(
            keys(&connect["device"]),
            ["id", "publicKey", "signature", "signedAt", "nonce"].into_iter().collect()
        );
        assert_eq!((&connect["minProtocol"], &connect["maxProtocol"]), (&json!(4), &json!(4)));
        assert_eq!((&connect["role"], &connect["scopes"]), (&json!("node"), &json!([])));
        // Signed by the gateway's clock, as the reference does.
        assert_eq!(connect["device"]["signedAt"], 1_795_229_493_111_i64);
    }
}

/// The service's text can be looked at, and is written once.
#[test]
fn the_service_is_written_down() {
    let bench = Bench::new(18_789, "t");
    let cli = |args: &[&str]| {
        let home = bench.node_home.path();
        Launch::new(binary(), home).env("HOME", home).env("OPENCLAW_GATEWAY_TOKEN", "hush").args(args).run()
    };
    let options = ["node", "install", "--manager", "systemd", "--host", "gw.lan", "--display-name", "My Box"];
    let printed = cli(&[&options[..], &["--print"]].concat());
    assert!(printed.stdout.contains(" node run --host gw.lan --display-name \"My Box\"\n"), "{printed:#?}");
    let file = bench.node_home.path().join(".config/systemd/user/openclaw-node.service");
    assert!(!file.exists(), "printing writes nothing");
    let written = cli(&[&options[..], &["--no-start"]].concat());
    assert!(written.status.success(), "{written:#?}");
    let text = fs::read_to_string(&file).expect("the unit");
    assert_eq!(text, printed.stdout);
    assert!(!text.contains("hush") && written.stdout.contains("OPENCLAW_GATEWAY_TOKEN"), "{written:#?}");
    let other = cli(&["node", "install", "--manager", "systemd", "--host", "other", "--no-start"]);
    assert!(!other.status.success() && other.stderr.contains("--force"), "{other:#?}");
    assert_eq!(fs::read_to_string(&file).expect("the unit"), text);
    let status = cli(&["node", "status", "--json"]).json();
    assert_eq!(
        keys(&status["service"]),
        ["label", "loaded", "loadedText", "notLoadedText", "command", "runtime"].into()
    );
}
