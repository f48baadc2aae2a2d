//! Talking to an agent and to channels, against a gateway that plays a script: what goes on the wire, what is printed, and what
//! happens when the connection breaks at the worst moment (S-043, S-044).

mod common;

use std::{
    io::Write as _,
    process::{Child, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use common::{Ran, World};
use doubles::model::{Model as Double, Reply, Script};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_tungstenite::{accept_async, tungstenite::Message};

/// What the gateway does when it is asked.
enum Act {
    Answer(Value),
    Refuse(Value),
    Event(&'static str, Value),
    /// Breaks the connection without a word.
    Break,
}

type Play = Arc<dyn Fn(&str, &Value, usize) -> Vec<Act> + Send + Sync>;

struct Gateway {
    port: u16,
    requests: Arc<Mutex<Vec<Value>>>,
    _runtime: tokio::runtime::Runtime,
}

impl Gateway {
    /// `script` is given the method, its parameters, and the number of the connection from 1.
    fn playing(
        methods: &'static [&'static str],
        script: impl Fn(&str, &Value, usize) -> Vec<Act> + Send + Sync + 'static,
    ) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("bind");
        let port = listener.local_addr().expect("address").port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, script): (_, Play) = (Arc::clone(&requests), Arc::new(script));
        let count = Arc::new(AtomicUsize::new(0));
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = count.fetch_add(1, Ordering::SeqCst) + 1;
                let (seen, script) = (Arc::clone(&seen), Arc::clone(&script));
                tokio::spawn(async move {
                    let Ok(mut socket) = accept_async(stream).await else { return };
                    let challenge = json!({"type":"event","event":"connect.challenge","payload":{"nonce":"n","ts":1}});
                    let _ = socket.send(Message::text(challenge.to_string())).await;
                    while let Some(Ok(message)) = socket.next().await {
                        let Message::Text(text) = message else { continue };
                        let frame: Value = serde_json::from_str(&text).expect("JSON");
                        seen.lock().expect("lock").push(frame.clone());
                        let method = frame["method"].as_str().expect("method");
                        let acts = match method {
                            "connect" => vec![Act::Answer(json!({
                                "type": "hello-ok", "protocol": 4, "server": {"version": "2026.9.6", "connId": "c"},
                                "features": {"methods": methods, "events": []},
                                "auth": {"role": "operator", "scopes": frame["params"]["scopes"]},
                                "snapshot": {"presence": [], "health": {}, "uptimeMs": 1,
                                    "stateVersion": {"presence": 1, "health": 1}},
                                "policy": {"maxPayload": 26_214_400, "maxBufferedBytes": 52_428_800,
                                    "tickIntervalMs": 30_000}}))],
                            _ => script(method, &frame["params"], number),
                        };
                        for act in acts {
                            let frame = match act {
                                Act::Answer(payload) => {
                                    json!({"type":"res","id":frame["id"],"ok":true,"payload":payload})
                                }
                                Act::Refuse(error) => json!({"type":"res","id":frame["id"],"ok":false,"error":error}),
                                Act::Event(event, payload) => json!({"type":"event","event":event,"payload":payload}),
                                Act::Break => return,
                            };
                            if socket.send(Message::text(frame.to_string())).await.is_err() {
                                return;
                            }
                        }
                    }
                });
            }
        });
        Self { port, requests, _runtime: runtime }
    }

    fn line<'a>(&'a self, words: &[&'a str]) -> Vec<String> {
        let target = [format!("--url=ws://127.0.0.1:{}", self.port), "--token=t".to_owned()];
        words.iter().map(|word| (*word).to_owned()).chain(target).collect()
    }

    fn run(&self, words: &[&str]) -> Ran {
        let line = self.line(words);
        World::new().run(&line.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// A command with something to read.
    fn fed(&self, words: &[&str], input: &str) -> Ran {
        let (mut child, _world) = self.start(words);
        child.stdin.take().expect("stdin").write_all(input.as_bytes()).expect("reads");
        Ran::from(child.wait_with_output().expect("ends"))
    }

    fn start(&self, words: &[&str]) -> (Child, World) {
        let (world, line) = (World::new(), self.line(words));
        let mut command = world.command(&line.iter().map(String::as_str).collect::<Vec<_>>());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        (command.spawn().expect("starts"), world)
    }

    /// `params` of every call of a method so far.
    fn asked(&self, method: &str) -> Vec<Value> {
        let seen = self.requests.lock().expect("lock");
        seen.iter().filter(|frame| frame["method"] == method).map(|frame| frame["params"].clone()).collect()
    }

    /// Waits until a method was called.
    fn wait_for(&self, method: &str) {
        let end = Instant::now() + Duration::from_secs(20);
        while self.asked(method).is_empty() {
            assert!(Instant::now() < end, "{method} was never called");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

const METHODS: &[&str] = &[
    "agent",
    "agent.wait",
    "chat.abort",
    "chat.history",
    "chat.send",
    "message.action",
    "send",
    "sessions.list",
    "models.list",
];

fn chat(run: &Value, more: Value) -> Act {
    let mut payload = json!({"runId": run, "sessionKey": "agent:main:main"});
    payload.as_object_mut().expect("object").extend(more.as_object().expect("object").clone());
    Act::Event("chat", payload)
}

fn says(run: &Value, state: &str, text: &str) -> Act {
    chat(run, json!({"state": state, "message": {"role": "assistant", "content": [{"type": "text", "text": text}]}}))
}

fn accepted(params: &Value) -> Act {
    Act::Answer(json!({"runId": params["idempotencyKey"], "sessionKey": "agent:main:main", "status": "accepted"}))
}

fn done(params: &Value, text: &str) -> Act {
    Act::Answer(json!({"runId": params["idempotencyKey"], "status": "ok", "summary": "completed",
        "result": {"payloads": [{"text": text, "mediaUrl": null}], "meta": {"durationMs": 5}}}))
}

fn tool(run: &Value, data: Value) -> Act {
    Act::Event("agent", json!({"runId": run, "sessionKey": "agent:main:main", "stream": "tool", "data": data}))
}

/// `agent`, with the events of a run as 2026.9.6 sends them.
fn a_turn() -> Gateway {
    Gateway::playing(METHODS, |method, params, _| {
        let run = &params["idempotencyKey"];
        match method {
            "agent" => vec![
                accepted(params),
                says(run, "delta", "I will look."),
                tool(run, json!({"phase": "start", "name": "exec", "toolCallId": "c", "args": {"command": "ls"}})),
                tool(run, json!({"phase": "result", "name": "exec", "toolCallId": "c", "result": "x"})),
                says(run, "delta", "Found \u{1b}[2Jx."),
                says(run, "final", "Found \u{1b}[2Jx."),
                done(params, "Found \u{1b}[2Jx."),
            ],
            _ => Vec::new(),
        }
    })
}

#[test]
fn s_044_an_answer_is_printed() {
    for command in [&["agent"][..], &["gateway", "agent"]] {
        let gateway = a_turn();
        let ran = gateway.run(&[command, &["-m", "look", "--agent", "main"]].concat());
        assert_eq!((ran.code, ran.out.as_str()), (0, "I will look.\n\nFound \\u{1b}[2Jx.\n"), "{ran:?}");
        let asked = gateway.asked("agent");
        assert_eq!(asked.len(), 1);
        assert_eq!((&asked[0]["message"], &asked[0]["agentId"]), (&json!("look"), &json!("main")));
        assert_eq!((&asked[0]["deliver"], &asked[0]["timeout"]), (&json!(false), &json!(600)));
        let scopes = &gateway.asked("connect")[0]["scopes"];
        assert_eq!(scopes, &json!(["operator.read", "operator.write"]), "no more than it takes");
    }
}

#[test]
fn scripts_get_json() {
    let ran = a_turn().run(&["agent", "-m", "look", "--json"]);
    assert_eq!((ran.code, &ran.json()["result"]["payloads"][0]["mediaUrl"]), (0, &Value::Null), "{ran:?}");
    assert_eq!((&ran.json()["status"], &ran.json()["summary"]), (&json!("ok"), &json!("completed")));

    let ran = a_turn().run(&["agent", "-m", "look", "--json", "--stream"]);
    let lines: Vec<Value> = ran.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let kinds: Vec<&str> = lines.iter().filter_map(|line| line["type"].as_str()).collect();
    assert_eq!(kinds, ["delta", "tool", "tool", "delta", "result"], "{ran:?}");
    assert_eq!((&lines[1]["args"], &lines[3]["delta"]), (&json!({"command": "ls"}), &json!("Found \u{1b}[2Jx.")));
}

#[test]
fn the_message_may_come_from_elsewhere() {
    let gateway = a_turn();
    gateway.fed(&["agent", "-m", "-"], "from stdin\n");
    gateway.fed(&["agent"], "piped");
    let texts: Vec<Value> = gateway.asked("agent").iter().map(|params| params["message"].clone()).collect();
    assert_eq!(texts, ["from stdin\n", "piped"]);
    let ran = gateway.run(&["agent", "--json"]);
    assert_eq!((ran.code, &ran.json()["error"]["type"]), (1, &json!("cli_error")), "{ran:?}");
    assert_eq!(gateway.asked("agent").len(), 2, "silence is not sent");
}

/// The run was heard of: it is waited for, and not asked for again.
#[test]
fn a_broken_connection_does_not_repeat_the_run() {
    let gateway = Gateway::playing(METHODS, |method, params, connection| match (method, connection) {
        ("agent", 1) => vec![accepted(params), says(&params["idempotencyKey"], "delta", "Hel"), Act::Break],
        ("agent.wait", _) => {
            vec![Act::Answer(json!({"runId": params["runId"], "status": "ok", "startedAt": 1, "endedAt": 2,
            "terminalReply": {"disposition": "visible", "text": "Hello."}}))]
        }
        _ => Vec::new(),
    });
    let ran = gateway.run(&["agent", "-m", "hi", "--json"]);
    assert_eq!((ran.code, &ran.json()["result"]["payloads"][0]["text"]), (0, &json!("Hello.")), "{ran:?}");
    let asked = gateway.asked("agent");
    assert_eq!(asked.len(), 1, "one run");
    assert_eq!(gateway.asked("agent.wait")[0]["runId"], asked[0]["idempotencyKey"]);
}

/// Nothing was heard of it: the same key asks for the same run.
#[test]
fn a_broken_connection_does_not_lose_the_run() {
    let gateway = Gateway::playing(METHODS, |method, params, connection| match (method, connection) {
        ("agent", 1) => vec![Act::Break],
        ("agent", _) => vec![accepted(params)],
        ("agent.wait", _) => vec![Act::Answer(json!({"runId": params["runId"], "status": "ok", "endedAt": 2}))],
        ("chat.history", _) => vec![Act::Answer(json!({"sessionKey": "main", "messages": [
            {"role": "user", "content": "hi"}, {"role": "assistant", "content": [{"type": "text", "text": "Hello."}]}]}))],
        _ => Vec::new(),
    });
    let ran = gateway.run(&["agent", "-m", "hi"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "Hello.\n"), "{ran:?}");
    let keys: Vec<Value> = gateway.asked("agent").iter().map(|params| params["idempotencyKey"].clone()).collect();
    assert_eq!((keys.len(), &keys[0]), (2, &keys[1]), "the same key");
}

#[test]
fn a_run_that_failed_says_why() {
    let gateway = Gateway::playing(METHODS, |method, params, _| match method {
        "agent" => vec![
            accepted(params),
            chat(
                &params["idempotencyKey"],
                json!({"state": "error", "errorMessage": "429: slow down", "errorKind": "rate_limit"}),
            ),
            Act::Answer(json!({"runId": params["idempotencyKey"], "status": "error", "summary": "429: slow down"})),
        ],
        _ => Vec::new(),
    });
    let ran = gateway.run(&["agent", "-m", "hi"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{ran:?}");
    assert!(ran.err.contains("The run failed.") && ran.err.contains("429: slow down"), "{ran:?}");
    assert!(ran.err.contains("openclaw sessions history agent:main:main"), "{ran:?}");
    let ran = gateway.run(&["agent", "-m", "hi", "--json"]);
    let json = ran.json();
    assert_eq!(
        (&json["ok"], &json["origin"], &json["error"]),
        (&json!(false), &json!("gateway"), &json!("429: slow down"))
    );

    let refusing = Gateway::playing(METHODS, |_, _, _| {
        vec![Act::Refuse(json!({"code": "INVALID_REQUEST", "message": "unknown agent id \"x\""}))]
    });
    let ran = refusing.run(&["agent", "-m", "hi", "--agent", "x", "--json"]);
    assert_eq!((ran.code, &ran.json()["error"]["message"]), (1, &json!("unknown agent id \"x\"")), "{ran:?}");
}

/// Ctrl-C stops the run at the gateway, says so, and ends with 130.
#[test]
fn ctrl_c_stops_the_run() {
    let gateway = Gateway::playing(METHODS, |method, params, _| match method {
        "agent" => vec![accepted(params), says(&params["idempotencyKey"], "delta", "one two")],
        "chat.abort" => vec![
            chat(&params["runId"], json!({"state": "aborted", "stopReason": "rpc"})),
            Act::Answer(json!({"ok": true, "aborted": true, "runIds": [params["runId"]]})),
        ],
        _ => Vec::new(),
    });
    let (mut child, _world) = gateway.start(&["agent", "-m", "count"]);
    drop(child.stdin.take());
    gateway.wait_for("agent");
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).expect("a pid")).expect("a pid");
    // It watches for the signal before it sends anything.
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("signals");
    gateway.wait_for("chat.abort");
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("signals");
    let ran = Ran::from(child.wait_with_output().expect("ends"));
    assert_eq!(ran.code, 130, "{ran:?}");
    assert!(ran.err.contains("The run was stopped.") || ran.err.contains("Stopping the run"), "{ran:?}");
    let (agent, abort) = (&gateway.asked("agent")[0], &gateway.asked("chat.abort")[0]);
    assert_eq!(abort["runId"], agent["idempotencyKey"]);
}

#[test]
fn chat_through_a_pipe() {
    let gateway = Gateway::playing(METHODS, |method, params, _| {
        let (run, session) = (&params["idempotencyKey"], &params["sessionKey"]);
        let event = |state: &str, text: &str| {
            let message = json!({"role": "assistant", "content": [{"type": "text", "text": text}]});
            Act::Event("chat", json!({"runId": run, "sessionKey": session, "state": state, "message": message}))
        };
        match (method, params["message"].as_str()) {
            ("chat.send", Some(text)) => vec![
                Act::Answer(json!({"runId": run, "status": "started"})),
                event("delta", "You"),
                event("final", &format!("You said: {text}")),
            ],
            _ => Vec::new(),
        }
    });
    let ran = gateway.fed(&["chat"], "hello\n\ntwo \\\nlines\n/session agent:main:other\nthere\n/quit\nnever\n");
    assert_eq!(
        (ran.code, ran.out.as_str()),
        (0, "You said: hello\nYou said: two \nlines\nYou said: there\n"),
        "{ran:?}"
    );
    let sessions: Vec<Value> = gateway.asked("chat.send").iter().map(|params| params["sessionKey"].clone()).collect();
    assert_eq!(sessions, ["main", "main", "agent:main:other"]);
}

#[test]
fn chat_through_a_pipe_tells_scripts_what_failed() {
    let gateway = Gateway::playing(METHODS, |method, params, _| {
        let run = &params["idempotencyKey"];
        match method {
            "chat.send" => vec![
                Act::Answer(json!({"runId": run, "status": "started"})),
                chat(run, json!({"state": "error", "errorMessage": "no model"})),
            ],
            _ => Vec::new(),
        }
    });
    let ran = gateway.fed(&["chat", "--json"], "hello\n");
    assert_eq!(
        (ran.code, &ran.json()["status"], &ran.json()["error"]),
        (1, &json!("error"), &json!("no model")),
        "{ran:?}"
    );
}

#[test]
fn s_043_a_message_is_sent_once() {
    for command in [&["message", "send"][..], &["gateway", "send"]] {
        let gateway = Gateway::playing(METHODS, |method, _, connection| match (method, connection) {
            // The answer is lost on the way.
            ("message.action", 1) => vec![Act::Break],
            ("message.action", _) => vec![Act::Answer(json!({"ok": true, "messageId": "42", "channel": "telegram"}))],
            _ => Vec::new(),
        });
        let ran = gateway.run(&[command, &["--channel", "telegram", "-t", "7", "-m", "hi"]].concat());
        assert_eq!((ran.code, ran.out.as_str()), (0, "✓ Sent to 7 by telegram (message 42).\n"), "{ran:?}");
        let asked = gateway.asked("message.action");
        assert_eq!(asked.len(), 2);
        assert_eq!(asked[0], asked[1], "the same key, so the gateway sends it once");
        assert_eq!(gateway.asked("connect")[0]["scopes"], json!(["operator.write"]));
    }
}

#[test]
fn nobody_knows_whether_it_was_sent() {
    let gateway = Gateway::playing(METHODS, |_, _, _| Vec::new());
    let ran =
        gateway.run(&["message", "send", "--channel", "telegram", "-t", "7", "-m", "hi", "--timeout", "300", "--json"]);
    let json = ran.json();
    assert_eq!((ran.code, &json["outcome"]), (18, &json!("unknown")), "{ran:?}");
    let key = json["idempotencyKey"].as_str().expect("a key");
    assert_eq!(gateway.asked("message.action")[0]["idempotencyKey"], key);
    assert!(ran.err.contains("Whether the message was sent is not known") && ran.err.contains(key), "{ran:?}");
}

#[test]
fn older_gateways_are_asked_in_their_way() {
    let gateway = Gateway::playing(&["send", "agent"], |_, _, _| {
        vec![Act::Answer(json!({"messageId": "1", "channel": "telegram"}))]
    });
    let ran = gateway.run(&["message", "send", "--channel", "telegram", "-t", "7", "-m", "hi"]);
    assert_eq!((ran.code, gateway.asked("send").len()), (0, 1), "{ran:?}");
    let ran = gateway.run(&["sessions", "search", "words"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("This gateway cannot search conversations: it has no method sessions.search."), "{ran:?}");
    let world = World::new();
    let file = world.dir.path().join("x.jsonl");
    std::fs::write(&file, "{\"type\":\"session\"}\n").expect("writes");
    let ran = gateway.run(&["sessions", "import", file.to_str().expect("text"), "--json"]);
    assert_eq!((ran.code, &ran.json()["error"]["code"]), (1, &json!("method-not-supported")), "{ran:?}");
    let ran =
        gateway.run(&["message", "send", "--channel", "telegram", "-t", "7", "--media", file.to_str().expect("text")]);
    assert!(ran.code == 1 && ran.err.contains("takes media only by address"), "{ran:?}");
}

/// What is lost is asked for first, and not at all where nobody can be asked.
#[test]
fn nothing_is_deleted_unasked() {
    let gateway = Gateway::playing(METHODS, |method, params, _| match method {
        "sessions.list" => {
            vec![Act::Answer(json!({"sessions": [{"key": "agent:main:main"}, {"key": "agent:main:work"}]}))]
        }
        "sessions.delete" => vec![Act::Answer(json!({"ok": true, "key": params["key"], "deleted": true}))],
        "sessions.reset" => {
            vec![Act::Refuse(json!({"code": "INVALID_REQUEST", "message": "missing scope: operator.admin"}))]
        }
        _ => Vec::new(),
    });
    for line in
        [&["sessions", "delete", "work"][..], &["sessions", "reset", "work"], &["sessions", "delete", "work", "--json"]]
    {
        assert_eq!(gateway.run(line).code, 1, "{line:?}");
    }
    assert!(gateway.asked("sessions.delete").is_empty());
    let ran = gateway.run(&["sessions", "delete", "work", "--yes"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "✓ Deleted agent:main:work.\n"), "{ran:?}");
    assert_eq!(gateway.asked("sessions.delete"), [json!({"key": "agent:main:work", "deleteTranscript": true})]);
    // The scope the gateway names is asked for once, and only then.
    let ran = gateway.run(&["sessions", "reset", "work", "--yes"]);
    assert_eq!((ran.code, gateway.asked("sessions.reset").len()), (16, 2), "{ran:?}");
    let scopes: Vec<Value> =
        gateway.asked("connect").iter().rev().take(2).map(|connect| connect["scopes"].clone()).collect();
    assert_eq!(scopes, [json!(["operator.read", "operator.admin"]), json!(["operator.read"])]);
}

/// The model of this machine's gateway is chosen in its file, comments and all; no connection is needed.
#[test]
fn the_model_is_chosen_here() {
    let world =
        World::with("{\n  // mine\n  gateway: {mode: 'local', port: 1},\n  agents: {defaults: {model: 'a/b'}},\n}\n");
    let ran = world.run(&["models", "set", "c/d"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let text = std::fs::read_to_string(world.state().join("openclaw.json")).expect("config");
    assert!(text.contains("// mine") && text.contains("c/d") && !text.contains("a/b"), "{text}");
    for line in [
        &["models", "fallbacks", "add", "e/f"][..],
        &["models", "fallbacks", "add", "g/h"],
        &["models", "fallbacks", "remove", "e/f"],
    ] {
        let ran = world.run(line);
        assert_eq!(ran.code, 0, "{line:?} {ran:?}");
    }
    let ran = world.run(&["config", "get", "agents.defaults.model", "--json"]);
    assert_eq!(ran.json(), json!({"primary": "c/d", "fallbacks": ["g/h"]}), "{ran:?}");
    let ran = world.run(&["models", "set", "nonsense"]);
    assert!(ran.code == 1 && ran.err.contains("written provider/model"), "{ran:?}");
}

/// At another gateway it is chosen by the gateway, against the version that was read.
#[test]
fn the_model_is_chosen_elsewhere() {
    let gateway = Gateway::playing(METHODS, |method, _, _| match method {
        "config.get" => {
            vec![Act::Answer(json!({"hash": "h1", "path": "/x", "parsed": {"agents": {"defaults": {"model": {
            "primary": "a/b", "fallbacks": ["e/f"]}}}}}))]
        }
        "config.patch" => vec![Act::Answer(json!({"ok": true, "changedPaths": ["agents.defaults.model.primary"]}))],
        _ => Vec::new(),
    });
    let ran = gateway.run(&["models", "set", "c/d"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "✓ Agents use c/d from now on.\n"), "{ran:?}");
    let asked = gateway.asked("config.patch");
    let raw: Value = serde_json::from_str(asked[0]["raw"].as_str().expect("text")).expect("JSON");
    assert_eq!(
        (&raw, &asked[0]["baseHash"]),
        (&json!({"agents": {"defaults": {"model": {"primary": "c/d"}}}}), &json!("h1"))
    );
}

/// Explicit URLs borrow no credential, as everywhere.
#[test]
fn s_049_talk_with_url_needs_credentials() {
    let gateway = Gateway::playing(METHODS, |_, _, _| Vec::new());
    let url = format!("ws://127.0.0.1:{}", gateway.port);
    for line in [
        &["agent", "-m", "x"][..],
        &["gateway", "agent", "-m", "x"],
        &["gateway", "send", "-t", "1", "-m", "x"],
        &["message", "send", "-t", "1", "-m", "x"],
        &["chat"],
        &["sessions"],
        &["sessions", "history", "main"],
        &["models", "list"],
    ] {
        let world = World::with("{gateway: {auth: {token: 'CT'}}}").env("OPENCLAW_GATEWAY_TOKEN", "ET");
        let ran = world.run(&[line, &["--url", url.as_str(), "--json"][..]].concat());
        assert_eq!(
            (ran.code, ran.json()["error"]["code"].as_str()),
            (1, Some("explicit-credentials-required")),
            "{line:?}"
        );
    }
    assert!(gateway.requests.lock().expect("lock").is_empty(), "not one frame");
}

fn fed(world: &World, line: &[&str], input: &str) -> Ran {
    let mut command = world.command(line);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    child.stdin.take().expect("stdin").write_all(input.as_bytes()).expect("reads");
    Ran::from(child.wait_with_output().expect("ends"))
}

fn config_of(world: &World) -> String {
    std::fs::read_to_string(world.state().join("openclaw.json")).unwrap_or_default()
}

/// One step from nothing to a model that answers: provider, key, model and choice, tried before anything is written.
#[test]
fn a_model_is_added_in_one_step() {
    let model = Double::start(Script::always(Reply::say("OK")));
    model.demand_key("sk-good");
    let (world, url) = (World::with("{\n  // mine\n  gateway: {mode: 'local'},\n}\n"), model.url());
    let before = config_of(&world);
    let add = ["models", "add", "mine", "--base-url", &url, "--key", "-"];
    // A key that is not taken changes nothing, and is not kept.
    let ran = fed(&world, &add, "sk-bad\n");
    assert!(ran.code == 1 && ran.err.contains("nothing was changed") && !ran.err.contains("sk-bad"), "{ran:?}");
    assert_eq!(config_of(&world), before);
    assert_eq!(world.run(&["secrets", "store", "list", "--json"]).json(), json!({"ids": []}));

    let ran = fed(&world, &add, "sk-good\n");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("Agents use mine/double from the next message on."), "{ran:?}");
    let text = config_of(&world);
    assert!(text.contains("// mine") && !text.contains("sk-good"), "{text}");
    let get = |path: &str| world.run(&["config", "get", path, "--json"]).json();
    assert_eq!(get("agents.defaults.model"), json!({"primary": "mine/double"}));
    assert_eq!(world.run(&["secrets", "store", "list", "--json"]).json(), json!({"ids": ["mine-key"]}));
    assert_eq!(model.last().key.as_deref(), Some("sk-good"));

    // Another one does not push the first aside unless told to.
    let ran = world.run(&["models", "add", "mine/other", "--json"]);
    assert_eq!((ran.code, &ran.json()["default"]), (0, &json!(false)), "{ran:?}");
    assert_eq!(get("agents.defaults.model.primary"), json!("mine/double"));
    assert_eq!(world.run(&["models", "add", "mine/other", "--default"]).code, 0);
    assert_eq!(get("agents.defaults.model.primary"), json!("mine/other"));

    let probed = world.run(&["models", "status", "--probe", "--json"]).json();
    assert_eq!((&probed["ok"], &probed["probes"][0]["model"]), (&json!(true), &json!("mine/other")), "{probed}");
    let listed = world.run(&["models", "status", "--probe-provider", "mine", "--json"]).json();
    assert_eq!(listed["models"], json!(["double"]), "{listed}");
    // A key that was revoked is seen by the doctor, which asks for no answer.
    let asks = model.asks().len();
    model.demand_key("sk-new");
    let found = world.run(&["doctor", "--json"]).json();
    let findings = found["findings"].as_array().expect("findings");
    let model_finding = findings.iter().find(|finding| finding["checkId"] == "model").expect("a finding");
    assert!(model_finding["message"].as_str().is_some_and(|text| text.contains("does not accept the key")), "{found}");
    assert_eq!(model.asks().len(), asks);
    let ran = fed(&world, &["models", "auth", "paste-api-key", "--provider", "mine"], "sk-new\n");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(world.run(&["models", "status", "--probe"]).code, 0);
    assert_eq!(world.run(&["models", "auth", "logout", "mine"]).code, 0);
    assert_eq!(world.run(&["secrets", "store", "list", "--json"]).json(), json!({"ids": []}));
}

#[test]
fn a_model_that_cannot_be_added() {
    let world = World::new();
    let check = |line: &[&str], expected: &str| {
        let ran = world.run(&[&["models", "add"], line].concat());
        assert!(ran.code == 1 && ran.err.contains(expected), "{line:?}: {ran:?}");
    };
    check(&["nobody"], "openclaw models add nobody --base-url");
    check(&["no spaces"], "cannot be the name of a provider");
    check(&["anthropic"], "--key - < key.txt");
    check(&["anthropic", "--key", "sk-x"], "would be seen by others");
    check(&["mine", "--base-url", "http://127.0.0.1:1/v1"], "cannot be reached");
    check(&["mine", "--base-url", "http://example.com/v1"], "plain http");
    check(&["mine", "--base-url", "http://127.0.0.1:1/v1", "--model", "m"], "--no-verify");
    assert_eq!(config_of(&world), "");
    // Without a trial it is written as it was said; the variable may be the gateway's alone.
    let ran = world.run(&["models", "add", "anthropic", "--key-env", "MY_KEY", "--no-verify"]);
    assert!(ran.code == 0 && ran.err.contains("MY_KEY is not set here"), "{ran:?}");
    let get = |path: &str| world.run(&["config", "get", path, "--json"]).json();
    assert_eq!(get("models.providers.anthropic.apiKey"), json!({"source": "env", "id": "MY_KEY"}));
    assert_eq!(get("agents.defaults.model.primary"), json!("anthropic/claude-sonnet-5"));
    // Elsewhere it is the other machine's config.
    let remote = World::with("{gateway: {mode: 'remote', remote: {url: 'wss://gw.example', token: 't'}}}");
    for line in [&["models", "add", "ollama"][..], &["mcp", "list"], &["agents", "add", "x"]] {
        let ran = remote.run(line);
        assert!(ran.code == 1 && ran.err.contains("on another machine"), "{line:?}: {ran:?}");
    }
}

/// What stands in the config besides: short names, agents, servers of tools.
#[test]
fn names_agents_and_servers_are_kept_in_the_config() {
    let world = World::with("{\n  // mine\n  gateway: {mode: 'local', port: 1},\n}\n");
    let get = |path: &str| world.run(&["config", "get", path, "--json"]).json();
    let ok = |line: &[&str]| {
        let ran = world.run(line);
        assert_eq!(ran.code, 0, "{line:?}: {ran:?}");
        ran
    };
    ok(&["models", "aliases", "add", "fast", "a/b"]);
    ok(&["models", "aliases", "add", "quick", "fast"]);
    ok(&["models", "aliases", "add", "fast", "c/d"]);
    let aliases = ok(&["models", "aliases", "list", "--json"]).json();
    assert_eq!(aliases, json!({"aliases": {"fast": "c/d", "quick": "a/b"}}));
    ok(&["models", "set", "FAST"]);
    assert_eq!(get("agents.defaults.model.primary"), json!("c/d"));
    ok(&["models", "aliases", "remove", "fast"]);
    assert_eq!(world.run(&["models", "aliases", "remove", "fast"]).code, 1);

    ok(&["agents", "add", "Ops", "--name", "Operations", "--model", "quick"]);
    assert_eq!(get("agents.entries.ops"), json!({"name": "Operations", "model": "a/b"}));
    assert_eq!(get("agents.entries.main"), json!({}), "the agent that was there stays");
    assert_eq!(world.run(&["agents", "add", "ops"]).code, 1);
    ok(&["agents", "delete", "ops"]);
    assert_eq!(world.run(&["config", "get", "agents.entries.ops"]).code, 1);

    ok(&["mcp", "add", "files", "--command", "no-such-program", "--arg", "-y", "--env", "KEY=${K}", "--no-probe"]);
    assert_eq!(
        world.run(&["mcp", "show", "files"]).json(),
        json!({"command": "no-such-program", "args": ["-y"], "env": {"KEY": "${K}"}})
    );
    ok(&["mcp", "set", "web", r#"{"type":"http","url":"https://mcp.example/x?key=s3cr3t","enabled":false}"#]);
    let listed = ok(&["mcp", "list", "--json"]);
    assert!(!listed.out.contains("s3cr3t"), "{listed:?}");
    let servers = listed.json()["servers"].clone();
    assert_eq!((&servers[1]["name"], &servers[1]["enabled"]), (&json!("web"), &json!(false)), "{servers}");
    let probed = world.run(&["mcp", "probe", "files", "--json"]);
    assert_eq!((probed.code, &probed.json()["ok"]), (1, &json!(false)), "{probed:?}");
    ok(&["mcp", "unset", "web"]);
    assert_eq!(world.run(&["mcp", "unset", "web"]).code, 1);
    assert!(config_of(&world).contains("// mine"));
}

/// As the reference's command line sends them.
#[test]
fn messages_are_changed_and_reacted_to() {
    let methods = &["message.action"];
    let gateway = Gateway::playing(methods, |method, params, _| match (method, params["action"].as_str()) {
        ("message.action", Some("delete")) => {
            vec![Act::Refuse(json!({"code": "INVALID_REQUEST", "message": "Message action delete not supported."}))]
        }
        ("message.action", _) => vec![Act::Answer(json!({"ok": true, "messageId": "42"}))],
        _ => Vec::new(),
    });
    let at = ["-t", "telegram:7", "--thread", "9"];
    for (line, said) in [
        (&["edit", "--message-id", "42", "-m", "new"][..], "Changed in telegram:7 by telegram (message 42)."),
        (&["react", "--message-id", "42", "--emoji", "👍"], "Reacted in telegram:7 by telegram (message 42)."),
        (&["poll", "--poll-question", "Lunch?", "--poll-option", "Yes", "--poll-option", "No"], "Asked in telegram:7"),
    ] {
        let ran = gateway.run(&[&["message"], line, &at[..]].concat());
        assert!(ran.code == 0 && ran.out.contains(said), "{line:?}: {ran:?}");
    }
    let ran = gateway.run(&[&["message", "delete", "--message-id", "42"], &at[..]].concat());
    assert!(ran.code == 1 && ran.err.contains("not supported"), "{ran:?}");
    let mut asked = gateway.asked("message.action");
    asked.truncate(2);
    for params in &mut asked {
        params.as_object_mut().expect("object").remove("idempotencyKey").expect("a key");
    }
    let inner = json!({"channel": "telegram", "action": "edit", "target": "telegram:7", "to": "telegram:7",
        "threadId": "9", "messageId": "42", "message": "new"});
    assert_eq!(asked[0], json!({"channel": "telegram", "action": "edit", "params": inner}));
    assert_eq!((&asked[1]["params"]["emoji"], &asked[1]["params"]["remove"]), (&json!("👍"), &json!(false)));
    let ran = gateway.run(&["message", "edit", "-t", "7", "--message-id", "1", "-m", "x"]);
    assert!(ran.code == 1 && ran.err.contains("Which channel?"), "{ran:?}");
}

/// What the gateway says of a run that failed is shown whole, with what to type.
#[test]
fn a_run_that_fails_says_what_to_do() {
    let gateway = Gateway::playing(METHODS, |method, _, _| match method {
        "agent" => vec![Act::Refuse(
            json!({"code": "UNAVAILABLE", "message": "No model is configured.\n\n    openclaw models add anthropic\n"}),
        )],
        _ => Vec::new(),
    });
    let ran = gateway.run(&["agent", "-m", "hi"]);
    assert_eq!(ran.err, "✗ No model is configured.\n\n    openclaw models add anthropic\n", "{ran:?}");
    assert_ne!(ran.code, 0);
    let ran = gateway.run(&["agent", "-m", "hi", "--json"]);
    let message = ran.json()["error"]["message"].clone();
    assert_eq!(message, "No model is configured.\n\n    openclaw models add anthropic\n", "{ran:?}");
}
