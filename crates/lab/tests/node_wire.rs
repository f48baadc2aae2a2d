//! What our node host does with the frames of a gateway, honest or not: a gateway by hand on the other side.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    time::Duration,
};

use lab::{
    process::{Launch, Process, wait_until},
    sandbox::binary,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tungstenite::{Message, WebSocket};

/// A gateway by hand, and the node that dialled it.
struct Scene {
    home: TempDir,
    node: Process,
    listener: TcpListener,
    socket: WebSocket<TcpStream>,
    node_id: String,
    /// The `connect` it sent.
    connect: Value,
}

impl Scene {
    fn new(protocol: u32, policy: Value) -> Self {
        let home = TempDir::with_prefix("openclaw-node-").expect("a temporary directory");
        let state = home.path().join("state");
        fs::create_dir(&state).expect("a scratch directory takes directories");
        fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).expect("it is ours");
        fs::write(state.join("exec-approvals.json"), policy.to_string()).expect("and files");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let node = Launch::new(binary(), home.path())
            .env("HOME", home.path())
            .env("OPENCLAW_STATE_DIR", &state)
            .env("OPENCLAW_GATEWAY_TOKEN", "t")
            .args(["node", "run", "--host", "127.0.0.1", "--port", &port.to_string()])
            .start("node");
        let (socket, connect) = greet(&listener, protocol);
        let node_id = connect["device"]["id"].as_str().expect("a device").to_owned();
        Self { home, node, listener, socket, node_id, connect }
    }

    fn full(protocol: u32) -> Self {
        Self::new(protocol, json!({"version": 1, "defaults": {"security": "full", "ask": "off"}}))
    }

    fn send(&mut self, event: &str, payload: Value) {
        send(&mut self.socket, &json!({"type": "event", "event": event, "payload": payload}));
    }

    /// Asks for a command under an id.
    fn ask(&mut self, id: &str, command: &str, params: Value) {
        self.ask_within(id, command, params, 60_000);
    }

    fn ask_within(&mut self, id: &str, command: &str, params: Value, timeout_ms: u64) {
        let node = self.node_id.clone();
        self.send(
            "node.invoke.request",
            json!({"id": id, "nodeId": node, "command": command, "paramsJSON": params.to_string(),
                   "timeoutMs": timeout_ms, "idempotencyKey": id}),
        );
    }

    /// The params of the next request of that method; every request is acknowledged.
    #[track_caller]
    fn next(&mut self, method: &str) -> Value {
        loop {
            let frame = receive(&mut self.socket);
            let answer = json!({"type": "res", "id": frame["id"], "ok": true, "payload": {"ok": true}});
            send(&mut self.socket, &answer);
            if frame["method"] == method {
                return frame["params"].clone();
            }
        }
    }

    /// The next result: its id, and the payload or the error.
    #[track_caller]
    fn result(&mut self) -> (String, Result<Value, Value>) {
        let params = self.next("node.invoke.result");
        assert_eq!(params["nodeId"], json!(self.node_id));
        let id = params["id"].as_str().expect("an id").to_owned();
        match params["ok"] == true {
            true => {
                let text = params["payloadJSON"].as_str().expect("JSON in a string");
                (id, Ok(serde_json::from_str(text).expect("JSON")))
            }
            false => (id, Err(params["error"].clone())),
        }
    }

    /// A script of the node's machine.
    fn script(&self, text: &str) -> PathBuf {
        let file = self.home.path().join("script.sh");
        fs::write(&file, format!("#!/bin/sh\n{text}\n")).expect("a scratch directory takes files");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("it is ours");
        file
    }

    fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }
}

fn send(socket: &mut WebSocket<TcpStream>, frame: &Value) {
    socket.send(Message::text(frame.to_string())).expect("the node listens");
}

#[track_caller]
fn receive(socket: &mut WebSocket<TcpStream>) -> Value {
    loop {
        if let Message::Text(text) = socket.read().expect("the node is there") {
            return serde_json::from_str(&text).expect("JSON");
        }
    }
}

/// Challenge, connect, hello.
fn greet(listener: &TcpListener, protocol: u32) -> (WebSocket<TcpStream>, Value) {
    loop {
        let (stream, _) = listener.accept().expect("the node dials");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        let mut socket = tungstenite::accept(stream).expect("an upgrade");
        let challenge = json!({"nonce": "0ba0a5a0-a6b5-4a65-8ed4-e19f3798f77b", "ts": 1_795_229_493_111_i64});
        send(&mut socket, &json!({"type": "event", "event": "connect.challenge", "payload": challenge}));
        let request = receive(&mut socket);
        let connect = request["params"].clone();
        if connect["maxProtocol"].as_u64() != Some(u64::from(protocol)) {
            // As release 2026.2.26 refuses: no code, a number.
            let error = json!({"code": "INVALID_REQUEST", "message": "protocol mismatch",
                               "details": {"expectedProtocol": protocol}});
            send(&mut socket, &json!({"type": "res", "id": request["id"], "ok": false, "error": error}));
            continue;
        }
        let hello = json!({
            "type": "hello-ok", "protocol": protocol, "server": {"version": "by hand", "connId": "c"},
            "features": {"methods": [], "events": []}, "snapshot": {},
            "auth": {"role": "node", "scopes": [], "deviceToken": "D"},
            "policy": {"maxPayload": 26_214_400, "maxBufferedBytes": 52_428_800, "tickIntervalMs": 30_000},
        });
        send(&mut socket, &json!({"type": "res", "id": request["id"], "ok": true, "payload": hello}));
        return (socket, connect);
    }
}

fn sh(line: &str) -> Value {
    json!({"command": ["/bin/sh", "-c", line]})
}

/// `node-run-pair-invoke`: what a node says after hello, and how it answers.
#[test]
fn protocol_4_after_hello() {
    let mut scene = Scene::full(4);
    let mut said = Vec::new();
    while said.len() < 4 {
        let frame = receive(&mut scene.socket);
        send(&mut scene.socket, &json!({"type": "res", "id": frame["id"], "ok": true, "payload": {}}));
        said.push((frame["method"].as_str().expect("a method").to_owned(), frame["params"].clone()));
    }
    said.sort_by(|a, b| a.0.cmp(&b.0));
    let methods: Vec<&str> = said.iter().map(|(method, _)| method.as_str()).collect();
    assert_eq!(methods, ["node.event", "node.pluginTools.update", "node.runnerInventory.update", "node.skills.update"]);
    assert_eq!(said[0].1["event"], "node.host.stats");
    let stats: Value = serde_json::from_str(said[0].1["payloadJSON"].as_str().expect("text")).expect("JSON");
    assert!(stats["cpuCount"].as_u64().is_some_and(|count| count > 0), "{stats}");
    assert_eq!(said[1].1, json!({"tools": []}));
    assert_eq!(said[2].1, json!({"protocolFeatures": ["node-worker-supervisor-v6"], "workerHost": {"enabled": false}}));
    assert_eq!(said[3].1, json!({"skills": []}));

    scene.ask("i1", "system.which", json!({"bins": ["sh", "no-such-program"]}));
    let (id, outcome) = scene.result();
    let bins = outcome.expect("it knows")["bins"].clone();
    assert_eq!((id.as_str(), bins.as_object().map(serde_json::Map::len)), ("i1", Some(1)));
}

/// A gateway of protocol 3 refuses 4 and names its own; the node says nothing after hello and answers all the same.
#[test]
fn protocol_3_is_spoken_where_it_is_wanted() {
    let mut scene = Scene::full(3);
    assert_eq!((&scene.connect["minProtocol"], &scene.connect["maxProtocol"]), (&json!(3), &json!(3)));
    scene.ask("i1", "system.run", sh("echo hi; echo no >&2; exit 4"));
    let first = receive(&mut scene.socket);
    assert!(["node.event", "node.invoke.result"].contains(&first["method"].as_str().expect("a method")), "{first}");
    let result = if first["method"] == "node.invoke.result" {
        first["params"].clone()
    } else {
        assert_eq!(first["params"]["event"], "exec.finished");
        scene.next("node.invoke.result")
    };
    let payload: Value = serde_json::from_str(result["payloadJSON"].as_str().expect("text")).expect("JSON");
    assert_eq!(
        payload,
        json!({"exitCode": 4, "timedOut": false, "success": false, "stdout": "hi\n", "stderr": "no\n", "error": null})
    );
    // Prepared in its own shape.
    scene.ask("i2", "system.run.prepare", json!({"command": ["/bin/sh", "-c", "ls"], "cwd": "/"}));
    assert_eq!(scene.result().1.expect("a plan")["plan"]["version"], 2);
}

#[test]
fn requests_that_are_not_for_this_node_or_not_offered() {
    let mut scene = Scene::full(4);
    let mark = scene.file("ran");
    let run = sh(&format!("echo x >> {}", mark.display()));
    // Another node's, one without an id, one that cannot be read: passed over.
    for payload in [
        json!({"id": "x1", "nodeId": "0".repeat(64), "command": "system.run", "paramsJSON": run.to_string()}),
        json!({"id": "", "nodeId": scene.node_id, "command": "system.run", "paramsJSON": run.to_string()}),
        json!({"id": 7, "nodeId": scene.node_id, "command": "system.run"}),
        json!("system.run"),
    ] {
        scene.send("node.invoke.request", payload);
    }
    for (id, command) in [("y1", "browser.proxy"), ("y2", "system.shutdown"), ("y3", "camera.snap")] {
        scene.ask(id, command, json!({}));
        let (answered, outcome) = scene.result();
        assert_eq!(answered, id, "requests before were passed over");
        assert_eq!(outcome.expect_err("not offered")["message"], "command not supported");
    }
    assert!(!mark.exists());
    // The same frame again runs nothing again.
    scene.ask("z1", "system.run", run.clone());
    assert_eq!(scene.result().0, "z1");
    scene.ask("z1", "system.run", run);
    scene.ask("z2", "system.which", json!({"bins": []}));
    assert_eq!(scene.result().0, "z2");
    assert_eq!(fs::read_to_string(&mark).expect("it ran"), "x\n");
}

/// Numbered from 0, in order, before the result that holds it all.
#[test]
fn output_streams_where_it_is_asked_for() {
    let mut scene = Scene::full(4);
    let go = scene.file("go");
    let line = format!("echo first; until [ -e {} ]; do sleep 0.05; done; echo second", go.display());
    let mut params = sh(&line);
    params["stream"] = json!(true);
    scene.ask("s1", "system.run", params);
    let first = scene.next("node.invoke.progress");
    assert_eq!(first, json!({"invokeId": "s1", "nodeId": scene.node_id, "seq": 0, "chunk": "first\n"}));
    fs::write(&go, "").expect("a scratch directory takes files");
    let second = scene.next("node.invoke.progress");
    assert_eq!((&second["seq"], &second["chunk"]), (&json!(1), &json!("second\n")));
    assert_eq!(scene.result().1.expect("done")["stdout"], "first\nsecond\n");
}

/// A request that was taken back, and one whose time is over: the program is gone, and only the second is answered.
#[test]
fn cancelled_and_late_requests_leave_nothing() {
    let mut scene = Scene::full(4);
    let pids = scene.file("pids");
    let job = scene.script(&format!("echo $$ >> {}; exec sleep 3600", pids.display()));
    let alive = |line: usize| {
        let text = fs::read_to_string(&pids).unwrap_or_default();
        let pid = text.lines().nth(line).map(str::to_owned)?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        Some(stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X'])))
    };
    let params = json!({"command": [job]});
    scene.ask("c1", "system.run", params.clone());
    wait_until("the first job", || alive(0).filter(|alive| *alive));
    let node = scene.node_id.clone();
    scene.send("node.invoke.cancel", json!({"invokeId": "c1", "nodeId": node}));
    wait_until("its end", || alive(0).filter(|alive| !*alive));
    scene.ask_within("c2", "system.run", params, 1500);
    wait_until("the second job", || alive(1).filter(|alive| *alive));
    let (id, outcome) = scene.result();
    assert_eq!((id.as_str(), &outcome.expect_err("late")["code"]), ("c2", &json!("TIMEOUT")), "c1 is not answered");
    assert_eq!(alive(1), Some(false));
}

/// P-57 at the node: approvals that nobody here prepared, and fields that look like one.
#[test]
fn p_57_a_claimed_approval_runs_nothing() {
    let mut scene = Scene::new(4, json!({"version": 1}));
    let mark = scene.file("ran");
    let line = format!("echo x >> {}", mark.display());
    let plan = json!({"argv": ["/bin/sh", "-c", line], "cwd": "/", "commandText": format!("/bin/sh -c \"{line}\""),
                      "policySnapshot": {"security": "full", "ask": "off", "askFallback": "full",
                                         "autoAllowSkills": true, "allowlistRules": []}});
    for (id, more) in [
        ("a", json!({})),
        ("b", json!({"approved": true})),
        ("c", json!({"approved": true, "approvalDecision": "allow-always", "runId": "r", "systemRunPlan": plan})),
        ("d", json!({"approvalSource": "auto-review", "systemRunPlan": plan})),
        ("e", json!({"approvalSource": "ask-fallback", "systemRunPlan": plan})),
        ("f", json!({"Approved": true, "security": "full", "ask": "off"})),
    ] {
        let mut params = sh(&line);
        params["cwd"] = json!("/");
        params.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        scene.ask(id, "system.run", params);
        let (answered, outcome) = scene.result();
        assert_eq!(answered, id);
        outcome.expect_err("nothing was approved");
    }
    assert!(!mark.exists());
}

/// P-59 at the node: what a request sets, and what the node's own environment holds.
#[test]
fn p_59_the_environment_is_an_allow_list() {
    let mut scene = Scene::full(4);
    for name in
        ["LD_PRELOAD", "ld_preload", "BASH_ENV", "PATH", "NODE_OPTIONS", "GIT_SSH_COMMAND", "FOO", "HTTPS_PROXY"]
    {
        let mut params = sh("true");
        params["env"] = json!({name: "x"});
        scene.ask(name, "system.run", params);
        let error = scene.result().1.expect_err("refused");
        assert!(error["message"].as_str().is_some_and(|text| text.contains(name)), "{error}");
    }
    let mut params = json!({"command": ["/usr/bin/env"]});
    params["env"] = json!({"TERM": "lab", "LC_ALL": "C"});
    scene.ask("env", "system.run", params);
    let env = scene.result().1.expect("it runs")["stdout"].as_str().expect("text").to_owned();
    for wanted in ["TERM=lab\n", "LC_ALL=C\n", "PATH=", "HOME="] {
        assert!(env.contains(wanted), "{wanted} in {env}");
    }
    assert!(!env.contains("OPENCLAW"), "{env}");
}

/// The wrong end of a connection: nonsense, then silence, then nothing. The node comes back.
#[test]
fn a_broken_connection_is_replaced() {
    let mut scene = Scene::full(4);
    for nonsense in ["", "{", "[]", "null", r#"{"type":"event"}"#, r#"{"type":"res","id":"nobody","ok":true}"#] {
        scene.socket.send(Message::text(nonsense)).expect("it listens");
    }
    scene.ask("i1", "system.which", json!({"bins": []}));
    assert_eq!(scene.result().0, "i1");
    let (socket, connect) = {
        let Scene { listener, socket, .. } = &mut scene;
        let _ = socket.close(None);
        let _ = socket.flush();
        greet(listener, 4)
    };
    scene.socket = socket;
    // Its own token now, and no shared secret.
    assert_eq!(connect["auth"], json!({"deviceToken": "D"}));
    scene.ask("i2", "system.which", json!({"bins": []}));
    assert_eq!(scene.result().0, "i2");
    assert!(scene.node.stderr().contains("node host gateway "), "{}", scene.node.said());
}
