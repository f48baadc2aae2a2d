//! All on one machine.

use doubles::bot_api::Person;
use lab::{
    client::{Login, put},
    node_bench::{Bench, allow},
    process::{Gateway, GatewayOptions, Process, wait_until},
    wire::Address,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::scene::{Desk, Doubles, ada, session};

/// Gateway, node and doubles on loopback.
pub struct Near {
    pub node: Process,
    pub bench: Bench,
    pub gateway: Gateway,
    pub doubles: Doubles,
    pub desk: Desk,
    _dir: TempDir,
}

impl Near {
    /// The node's owner lets the work run unasked, unless `asks`.
    #[track_caller]
    pub fn new(people: &[Person], asks: bool) -> Self {
        Self::with(people, asks, json!({}))
    }

    /// With more in the gateway's config, by JSON pointer.
    #[track_caller]
    pub fn with(people: &[Person], asks: bool, more: Value) -> Self {
        let dir = TempDir::with_prefix("openclaw-desk-").expect("a temporary directory");
        let desk = Desk::new(dir.path());
        let doubles = Doubles::start(&desk);
        let mut config = doubles.config(people, json!({}));
        for (pointer, value) in more.as_object().into_iter().flatten() {
            put(&mut config, pointer, value.clone());
        }
        let config = Some(config.to_string());
        let gateway = Gateway::start_with(GatewayOptions { config, ..GatewayOptions::default() });
        let bench = Bench::new(gateway.port(), gateway.token());
        bench.policy(&if asks { allow(&[]) } else { allow(&[&desk.script()]) });
        let mut node = bench.start();
        bench.wait_connected(&mut node);
        bench.approve();
        Self { node, bench, gateway, doubles, desk, _dir: dir }
    }

    /// A handshake with the shared token.
    pub fn login(&self) -> Login {
        Login::at(&Address::Port(self.gateway.port())).token(self.gateway.token())
    }
}

/// Texts of a conversation's messages by role, from the gateway.
pub fn transcript(history: &Value, role: &str) -> Vec<String> {
    let messages = history["messages"].as_array().expect("messages");
    let text = |message: &Value| match &message["content"] {
        Value::String(text) => text.clone(),
        parts => parts
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|part| part["text"].as_str())
            .collect::<Vec<_>>()
            .join("\n"),
    };
    messages.iter().filter(|message| message["role"] == role).map(text).collect()
}

#[test]
fn a_message_reaches_a_node_and_its_reply_comes_back_once() {
    let near = Near::new(&[ada()], false);
    let mut owner = near.login().scopes(&["operator.read", "operator.write"]).hello();
    near.doubles.bot.says(&ada(), "please do job-1");
    assert_eq!(near.doubles.reply(1), "done-1: ran");
    assert_eq!(near.desk.marks(1), 1);

    // The owner saw it happen: what the agent did, and what it said.
    let event = loop {
        let event = owner.event("chat")["payload"].clone();
        assert_eq!(event["sessionKey"], session(&ada()), "{event}");
        if event["state"] == "final" {
            break event;
        }
    };
    assert_eq!(event["message"]["content"][0]["text"], "done-1: ran", "{event}");
    let heard: Vec<Value> = owner.events.iter().filter(|event| event["event"] == "agent").cloned().collect();
    assert!(heard.iter().any(|event| event["payload"]["stream"] == "lifecycle"), "{heard:#?}");
    let history = owner.ok("chat.history", json!({"sessionKey": session(&ada())}));
    assert_eq!(transcript(&history, "user"), ["please do job-1"], "{history}");

    // Telegram was told that the message is taken, and the reply was not there twice in between.
    let last = near.doubles.bot.says(&ada(), "and say word-2");
    assert_eq!(near.doubles.reply(2), "done-2: said");
    wait_until("the offset", || (near.doubles.bot.offset() > last).then_some(()));
    assert_eq!((near.doubles.replies(1), near.desk.marks(1)), (1, 1));

    // The same from the owner's terminal.
    let said = near.bench.cli(&["agent", "-m", "do job-3", "--session-key", "agent:main:desk"]).run();
    assert_eq!(said.stdout, "done-3: ran\n", "{said:#?}");
    let shown = near.bench.cli(&["sessions", "history", &session(&ada())]).run();
    assert!(shown.stdout.contains("please do job-1") && shown.stdout.contains("done-1: ran"), "{shown:#?}");
}

#[test]
fn the_owner_is_asked_and_decides() {
    let near = Near::new(&[ada()], true);
    let next = |before: &str| {
        wait_until("a question", || {
            let pending = near.bench.says(&["approvals", "pending"]);
            let id = pending["approvals"][0]["id"].as_str()?.to_owned();
            (id != before).then_some((id, pending["approvals"][0].clone()))
        })
    };
    // Somebody who shows questions has to be there before they are asked.
    let scopes = ["operator.admin", "operator.read", "operator.approvals"];
    let mut owner = near.login().scopes(&scopes).set("/caps", json!(["exec-approvals"])).hello();
    near.doubles.bot.says(&ada(), "please do job-1");
    let (first, question) = next("");
    assert!(question.to_string().contains("work.sh 1 0.01"), "{question}");
    assert_eq!(owner.event("exec.approval.requested")["payload"]["id"], first);
    assert_eq!(near.desk.marks(1), 0, "nothing runs before the answer");
    near.bench.says(&["approvals", "resolve", &first, "allow-once"]);
    assert_eq!(near.doubles.reply(1), "done-1: ran");

    // Once is once: the next is asked for anew, and a refusal is a refusal.
    near.doubles.bot.says(&ada(), "please do job-2");
    let (second, _) = next(&first);
    near.bench.says(&["approvals", "resolve", &second, "deny"]);
    let reply = near.doubles.reply(2);
    assert!(reply.starts_with("done-2: failed") && reply.contains("denied"), "{reply}");
    assert_eq!((near.desk.marks(1), near.desk.marks(2)), (1, 0));
}

/// Whoever may chat and does not own the gateway gets no node through the agent.
#[test]
fn a_guest_gets_words_and_no_node() {
    let dir = TempDir::with_prefix("openclaw-desk-").expect("a temporary directory");
    let desk = Desk::new(dir.path());
    let doubles = Doubles::start(&desk);
    let config =
        doubles.config(&[ada(), Person::new(8, "Bob")], json!({"commands": {"ownerAllowFrom": ["telegram:7"]}}));
    let gateway = Gateway::start_with(GatewayOptions { config: Some(config.to_string()), ..GatewayOptions::default() });
    let bench = Bench::new(gateway.port(), gateway.token());
    bench.policy(&allow(&[&desk.script()]));
    let mut node = bench.start();
    bench.wait_connected(&mut node);
    bench.approve();
    doubles.bot.says(&Person::new(8, "Bob"), "please do job-1");
    let reply = doubles.reply(1);
    assert!(reply.contains("failed: ") && reply.contains("There is no tool"), "{reply}");
    assert_eq!(desk.marks(1), 0);
}
