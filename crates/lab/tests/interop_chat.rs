//! Real peers talk to our agent: the official CLIs and the reference client of both protocols, and a raw client that compares
//! every field with what real gateways were seen to send and every answer with the published JSON Schema.

use doubles::model::Model;
use lab::{
    peers::{
        Generation, Peers, driver,
        driver::{ReferenceClient, speaker},
        model_sections, prepare_home,
    },
    process::{Gateway, GatewayOptions, wait_until},
    require,
};
use serde_json::{Value, json};
use tempfile::TempDir;

const HELLO: &str = "Hello from the fake model.";
const MAIN: &str = "agent:main:main";

fn scratch() -> TempDir {
    TempDir::with_prefix("openclaw-chat-").expect("a temporary directory")
}

fn gateway(model: &Model) -> Gateway {
    let mut config = model_sections(&model.url());
    config["gateway"] = json!({"mode": "local"});
    Gateway::start_with(GatewayOptions { config: Some(config.to_string()), ..GatewayOptions::default() })
}

#[track_caller]
fn check_conversation(generation: Generation) {
    let peers = require!(Peers::find());
    let model = speaker();
    let gateway = gateway(&model);
    let home = scratch();
    let at = (gateway.url(), gateway.token().to_owned());
    let report = driver::conversation(&peers, generation, (&at.0, &at.1), home.path(), true);
    assert!(report.problems.is_empty(), "{}\n{}", report.problems.join("\n"), gateway.said());
    assert!(report.frames > 40, "only {} frames were looked at", report.frames);
}

#[test]
fn conversations_look_like_those_of_2026_9_6() {
    check_conversation(Generation::V4);
}

#[test]
fn conversations_look_like_those_of_2026_2_26() {
    check_conversation(Generation::V3);
}

#[track_caller]
fn check_official_cli(generation: Generation) {
    let peers = require!(Peers::find());
    let model = speaker();
    let gateway = gateway(&model);
    let home = scratch();
    prepare_home(home.path());
    let run = |words: &[&str]| {
        let ran =
            peers.cli_on(generation, home.path(), gateway.port(), gateway.token()).args(words.iter().copied()).run();
        assert!(ran.status.success(), "{words:?}: {ran:#?}\n{}", gateway.said());
        ran
    };
    let call = |method: &str, params: Value| {
        run(&["gateway", "call", method, "--json", "--params", &params.to_string()]).json()
    };

    // One turn, waited for, as scripts do it. (The CLI of protocol 3 cannot load its own `agent` command with the packages
    // that can be had today; its method is called instead.)
    let turn = |message: &str, id: &str| match generation {
        Generation::V4 => run(&["agent", "--agent", "main", "--message", message, "--json"]).json(),
        Generation::V3 => {
            let params = json!({"message": message, "sessionKey": "main", "idempotencyKey": id}).to_string();
            run(&["gateway", "call", "agent", "--expect-final", "--json", "--params", &params]).json()
        }
    };
    for (message, id) in [("say hello", "turn-1"), ("say hello again", "turn-2")] {
        let answer = turn(message, id);
        assert_eq!(
            (&answer["status"], &answer["summary"], &answer["result"]["payloads"][0]["text"]),
            (&json!("ok"), &json!("completed"), &json!(HELLO)),
            "{answer:#}"
        );
        assert_eq!(answer["result"]["meta"]["agentMeta"]["model"], "one");
    }

    // The same over single methods: sent, waited for, read, and stopped half-way.
    let sent = call("chat.send", json!({"sessionKey": "main", "message": "SLOW please", "idempotencyKey": "cli-1"}));
    assert_eq!(sent, json!({"runId": "cli-1", "status": "started"}));
    wait_until("the model's words", || (model.last().last_user.contains("SLOW")).then_some(()));
    let aborted = call("chat.abort", json!({"sessionKey": "main", "runId": "cli-1"}));
    assert_eq!(aborted, json!({"ok": true, "aborted": true, "runIds": ["cli-1"]}));
    let history = call("chat.history", json!({"sessionKey": "main"}));
    let texts = history["messages"].to_string();
    assert!(texts.contains("say hello again") && texts.contains(HELLO) && texts.contains("SLOW please"), "{history:#}");
    let sessions = call("sessions.list", json!({"limit": 5}));
    assert_eq!(sessions["sessions"][0]["key"], MAIN);
    if generation == Generation::V4 {
        let models = run(&["models", "list", "--json"]).stdout;
        assert!(models.contains("double/one") && models.contains("double/two"), "{models}");
    }
}

#[test]
fn the_official_cli_of_protocol_4_talks_to_our_agent() {
    check_official_cli(Generation::V4);
}

#[test]
fn the_official_cli_of_protocol_3_talks_to_our_agent() {
    check_official_cli(Generation::V3);
}

/// Streams, history, abort, and a connection that is lost while the model speaks: nothing is said twice and nothing is lost.
#[test]
fn the_reference_client_talks_reads_and_stops() {
    let peers = require!(Peers::find());
    let model = speaker();
    let mut gateway = gateway(&model);
    let home = scratch();
    let mut client = ReferenceClient::new(&peers, home.path(), &gateway.url());
    let scopes = json!(["operator.admin", "operator.read", "operator.write"]);
    client.connect(json!({"token": gateway.token(), "scopes": scopes, "role": "operator", "caps": ["tool-events"]}));
    client.hello();
    client.request("sessions.subscribe", json!({})).expect("may");

    let hello = json!({"sessionKey": "main", "message": "say hello", "idempotencyKey": "one"});
    let sent = client.request("chat.send", hello.clone()).expect("taken");
    assert_eq!(sent, json!({"runId": "one", "status": "started"}));
    let of = |run: &'static str, state: &'static str| {
        move |event: &Value| {
            event["event"] == "chat" && event["payload"]["runId"] == run && event["payload"]["state"] == state
        }
    };
    let delta = client.next("event", of("one", "delta"));
    assert!(HELLO.starts_with(delta["payload"]["deltaText"].as_str().expect("a text")), "{delta}");
    let ended = client.next("event", of("one", "final"));
    assert_eq!(ended["payload"]["message"]["content"][0]["text"], HELLO);
    let again = client.request("chat.send", hello).expect("the same request");
    assert_eq!(again["runId"], "one");
    assert_eq!(model.asks().len(), 1, "it was asked twice");

    // Stopped half-way: what was said stays.
    client
        .request("chat.send", json!({"sessionKey": "main", "message": "SLOW", "idempotencyKey": "two"}))
        .expect("taken");
    client.next("event", of("two", "delta"));
    let aborted = client.request("chat.abort", json!({"sessionKey": "main"})).expect("stopped");
    assert_eq!(aborted["runIds"], json!(["two"]));
    let partial = client.next("event", of("two", "aborted"));
    assert_eq!(partial["payload"]["stopReason"], "rpc");
    let kept = wait_until("the partial answer in the history", || {
        let history = client.request("chat.history", json!({"sessionKey": "main"})).expect("readable");
        history["messages"].as_array().and_then(|messages| messages.get(3).cloned())
    });
    let kept = kept["content"][0]["text"].as_str().expect("a text").to_owned();
    assert!(kept.starts_with("and on") && kept.len() < 7 * 400, "{kept}");

    // The gateway restarts in the middle of an answer: the client comes back by itself, and the run goes on without it.
    client
        .request("chat.send", json!({"sessionKey": "other", "message": "hello SLOW", "idempotencyKey": "three"}))
        .expect("taken");
    client.next("event", of("three", "delta"));
    model.play(doubles::model::Script::always(doubles::model::Reply::say("Back again.").pieces(3)));
    client.forget();
    gateway.stop();
    gateway.start_again();
    client.hello();
    let waited = client.request("agent.wait", json!({"runId": "three", "timeoutMs": 20_000})).expect("known");
    assert_eq!(
        (&waited["status"], &waited["terminalReply"]["text"]),
        (&json!("ok"), &json!("Back again.")),
        "{waited}"
    );
    let history = client.request("chat.history", json!({"sessionKey": "other"})).expect("readable");
    let roles: Vec<&Value> = history["messages"].as_array().expect("messages").iter().map(|m| &m["role"]).collect();
    assert_eq!(roles, ["user", "assistant"]);
    client.stop();
}
