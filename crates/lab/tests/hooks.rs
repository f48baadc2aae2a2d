//! Webhooks reach the agent: woken now or with its next turn, given work, by mappings of the owner's.

use doubles::model::{Model, Reply, Script};
use lab::{
    peers::model_sections,
    sandbox::{Sandbox, Setup},
    wire::{Conn, Reply as Answer},
};
use serde_json::{Value, json};

const HOOK: &str = "a-hook-token-of-its-own-4711";

fn start(model: &Model, hooks: Value) -> Sandbox {
    let mut config = model_sections(&model.url());
    config["hooks"] = json!({"enabled": true, "token": HOOK});
    Setup::new().config(config).config(json!({"hooks": hooks})).start()
}

fn hook(g: &Sandbox, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
    let token = format!("Bearer {HOOK}");
    let usual = [("Content-Type", "application/json"), ("Authorization", token.as_str())];
    let headers = [&usual[..], headers].concat();
    Conn::open(&g.address()).ask("POST", &format!("/hooks/{path}"), &headers, body.to_string().as_bytes())
}

/// What a woken agent says: nothing to tell.
fn quiet() -> Model {
    Model::start(Script::always(Reply::say("HEARTBEAT_OK")))
}

#[test]
fn a_wake_now_is_a_turn_and_a_later_one_waits_for_it() {
    let model = quiet();
    let g = start(&model, json!({}));
    let later = json!({"text": "The backup is done", "mode": "next-heartbeat"});
    let answer = hook(&g, "wake", &[], &later);
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({"ok": true, "mode": "next-heartbeat", "eventOutcome": "queued"}))
    );
    assert_eq!(hook(&g, "wake", &[], &later).json()["eventOutcome"], "coalesced", "the same once more");
    assert_eq!(g.admin().ok("status", json!({}))["queuedSystemEvents"], json!(["The backup is done"]));
    assert_eq!(model.asks().len(), 0, "nobody was woken");

    let answer = hook(&g, "wake", &[], &json!({"text": "The door is open"}));
    assert_eq!(answer.json(), json!({"ok": true, "mode": "now", "eventOutcome": "queued"}));
    let asks = model.wait_for(1);
    for text in ["The backup is done", "The door is open"] {
        assert!(asks[0].system.contains(text), "{}", asks[0].system);
    }
    assert!(asks[0].system.contains("EXTERNAL_UNTRUSTED_CONTENT"), "marked as somebody else's words");
    assert_eq!(g.admin().ok("status", json!({}))["queuedSystemEvents"], json!([]), "told once");
    lab::wire::wait_for("the heartbeat's record", || {
        let last = g.admin().ok("last-heartbeat", json!({}));
        (last["status"] == "ok-empty").then_some(())
    });
    for (body, status) in [
        (json!({"text": " "}), 400),
        (json!({"text": "x", "mode": "soon"}), 400),
        (json!({"text": "x", "agentId": "nobody"}), 400),
    ] {
        assert_eq!(hook(&g, "wake", &[], &body).status, status, "{body}");
    }
    // A caller's conversation takes the owner's leave.
    assert_eq!(hook(&g, "wake", &[], &json!({"text": "x", "sessionKey": "hook:x"})).status, 400);
}

#[test]
fn a_wake_reaches_the_conversation_it_names() {
    let model = quiet();
    let g = start(&model, json!({"allowRequestSessionKey": true, "allowedSessionKeyPrefixes": ["hook:"]}));
    let answer = hook(&g, "wake", &[], &json!({"text": "Build 7 failed", "sessionKey": "hook:builds"}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let ask = &model.wait_for(1)[0];
    assert!(ask.system.contains("Build 7 failed"), "{}", ask.system);
    let list = g.admin().ok("sessions.list", json!({}));
    assert_eq!(list["sessions"][0]["key"], "agent:main:hook:builds");
    assert_eq!(hook(&g, "wake", &[], &json!({"text": "x", "sessionKey": "main"})).status, 400, "outside the fence");
}

#[test]
fn work_is_done_once_and_mappings_write_it() {
    let model = Model::echo();
    let mappings = json!([
        {"match": {"path": "github"}, "action": "agent", "name": "GitHub", "messageTemplate": "{{pull_request.title}} by {{sender.login}}"},
        {"match": {"path": "alarm"}, "action": "wake", "wakeMode": "next-heartbeat", "textTemplate": "Alarm: {{room}}"},
    ]);
    let g = start(&model, json!({"mappings": mappings}));
    let job = json!({"message": "Say good morning", "name": "Cron", "waitForCompletion": true});
    let first = hook(&g, "agent", &[("Idempotency-Key", "morning-1")], &job);
    assert_eq!(first.json()["completion"], json!({"status": "ok", "replyDisposition": "visible"}), "{}", first.text());
    let again = hook(&g, "agent", &[("Idempotency-Key", "morning-1")], &job);
    assert_eq!(again.json()["runId"], first.json()["runId"], "{}", again.text());
    assert_eq!(model.asks().len(), 1, "it ran twice");
    assert!(model.last().last_user.contains("Say good morning"));

    let event = json!({"pull_request": {"title": "Fix it"}, "sender": {"login": "ada"}});
    let run = hook(&g, "github", &[], &event);
    assert_eq!(run.status, 200, "{}", run.text());
    let asks = model.wait_for(2);
    assert!(asks[1].last_user.contains("Fix it by ada"), "{}", asks[1].last_user);
    assert_eq!(hook(&g, "alarm", &[], &json!({"room": "cellar"})).json()["mode"], "next-heartbeat");
    assert_eq!(g.admin().ok("status", json!({}))["queuedSystemEvents"], json!(["Alarm: cellar"]));
    assert_eq!(hook(&g, "nothing", &[], &json!({})).status, 404);
}
