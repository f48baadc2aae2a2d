//! Nodes over the wire: approval, invocation, what a node may not do. Expected frames are those of release 2026.9.6
//! (captures `pairing-node-events`, `node-run-pair-invoke`) and 2026.2.26 (`v3-node-on-v3-gateway`, `v3-rpc-sweep`).

use doubles::model::Model;
use lab::{
    client::{Client, Login, new_device},
    peers::model_sections,
    sandbox::{Sandbox, Setup},
    wire::wait_for,
};
use openclaw_protocol::DeviceKey;
use serde_json::{Value, json};

const EVERYTHING: &[&str] =
    &["operator.admin", "operator.read", "operator.write", "operator.approvals", "operator.pairing"];
const SURFACE: [&str; 3] = ["system.run", "system.run.prepare", "system.which"];

fn node_login(g: &Sandbox, key: &DeviceKey, commands: &[&str]) -> Login {
    g.with_token()
        .node()
        .device(key)
        .set("/client/displayName", "Node A")
        .set("/client/platform", "linux")
        .set("/client/deviceFamily", "Linux")
        .set("/caps", json!(["system"]))
        .set("/commands", json!(commands))
}

/// A node whose surface was approved.
fn approved(g: &Sandbox, operator: &mut Client, commands: &[&str]) -> (DeviceKey, String, Client) {
    let key = new_device();
    let id = key.id().to_string();
    let mut node = node_login(g, &key, commands).hello();
    let request = operator.event("node.pair.requested")["payload"]["requestId"].clone();
    operator.ok("node.pair.approve", json!({"requestId": request}));
    assert_eq!(node.event("node.pair.resolved")["payload"]["decision"], "approved");
    (key, id, node)
}

/// Starts a call of `command` and returns the operator's request id and what the node was asked.
fn ask(operator: &mut Client, node: &mut Client, id: &str, command: &str, key: &str) -> (String, Value) {
    let params = json!({"nodeId": id, "command": command, "params": {"command": ["true"]}, "idempotencyKey": key});
    let request = operator.send("node.invoke", params);
    let event = node.event("node.invoke.request");
    assert_eq!(event.get("seq"), None);
    (request, event["payload"].clone())
}

fn result(asked: &Value) -> Value {
    json!({"id": asked["id"], "nodeId": asked["nodeId"], "ok": true, "payloadJSON": "{\"echo\":true}"})
}

#[test]
fn a_node_is_approved_asked_renamed_and_removed() {
    let g = Setup::new().start();
    let mut operator = g.operator(EVERYTHING);
    let key = new_device();
    let id = key.id().to_string();
    let mut node =
        node_login(&g, &key, &["system.run", "system.run.prepare", "system.which", "camera.snap", "acme.do"])
            .set("/permissions", json!({"accessibility": false}))
            .set("/pathEnv", "/usr/bin:/bin")
            .hello();
    // What a node hears first, without numbers.
    for (name, payload) in [
        ("voicewake.changed", json!({"triggers": ["openclaw", "claude", "computer"]})),
        (
            "voicewake.routing.changed",
            json!({"config": {"version": 1, "defaultTarget": {"mode": "current"}, "routes": [], "updatedAtMs": 0}}),
        ),
    ] {
        let event = node.event(name);
        assert_eq!((&event["payload"], event.get("seq")), (&payload, None));
    }
    let mut pending = operator.event("node.pair.requested")["payload"].clone();
    assert_eq!(operator.ok("node.pair.list", json!({})), json!({"pending": [pending], "paired": []}));
    let request = pending["requestId"].clone();
    for varying in ["requestId", "ts", "version"] {
        assert!(pending.as_object_mut().expect("object").remove(varying).is_some(), "{varying}");
    }
    assert_eq!(
        pending,
        json!({"nodeId": id, "clientId": "node-host", "clientMode": "node", "displayName": "Node A",
               "platform": "linux", "deviceFamily": "Linux", "caps": ["system"], "commands": SURFACE,
               "requiredApproveScopes": ["operator.pairing", "operator.admin"],
               "permissions": {"accessibility": false}, "silent": true})
    );
    let waiting = node.err("node.runnerInventory.update", json!({"protocolFeatures": [], "workerHost": {}}));
    let words = format!("awaiting operator approval; run `openclaw nodes approve {}`", request.as_str().expect("id"));
    assert!(waiting["message"].as_str().expect("text").contains(&words), "{waiting}");
    let unapproved =
        operator.err("node.invoke", json!({"nodeId": id, "command": "system.which", "idempotencyKey": "a0"}));
    assert_eq!(unapproved["details"]["code"], "PAIRING_CHANGED");
    // Readers see that it waits, and not for what.
    let mut reader = g.operator(&["operator.read"]);
    let described = reader.ok("node.describe", json!({"nodeId": id}));
    assert_eq!((&described["approvalState"], &described["commands"]), (&json!("pending-approval"), &json!([])));
    assert_eq!(described.get("pendingRequestId"), None);
    let described = operator.ok("node.describe", json!({"nodeId": id}));
    assert_eq!((&described["pendingRequestId"], &described["pendingDeclaredCommands"]), (&request, &json!(SURFACE)));
    let device = operator.ok("device.pair.list", json!({}))["paired"][0].clone();
    assert_eq!(device["pendingNodeSurface"]["requestId"], request);

    let approved = operator.ok("node.pair.approve", json!({"requestId": request}));
    assert_eq!((&approved["requestId"], &approved["node"]["commands"]), (&request, &json!(SURFACE)));
    for side in [&mut node, &mut operator] {
        let resolved = side.event("node.pair.resolved")["payload"].clone();
        assert_eq!((&resolved["requestId"], &resolved["nodeId"]), (&request, &json!(id)));
        assert_eq!(resolved["decision"], "approved");
    }
    assert_eq!(operator.err("node.pair.approve", json!({"requestId": request}))["message"], "unknown requestId");
    let described = operator.ok("node.describe", json!({"nodeId": id}));
    assert_eq!((&described["approvalState"], &described["commands"]), (&json!("approved"), &json!(SURFACE)));
    assert_eq!((&described["pathEnv"], &described["connected"]), (&json!("/usr/bin:/bin"), &json!(true)));

    let (call, asked) = ask(&mut operator, &mut node, &id, "system.which", "a1");
    assert_eq!((&asked["timeoutMs"], &asked["paramsJSON"]), (&json!(30_000), &json!("{\"command\":[\"true\"]}")));
    assert_eq!(node.ok("node.invoke.result", result(&asked)), json!({"ok": true}));
    assert_eq!(node.ok("node.invoke.result", result(&asked)), json!({"ok": true, "ignored": true}));
    let answer = operator.answer(&call).expect("open").expect("ok");
    assert_eq!(
        answer,
        json!({"ok": true, "nodeId": id, "command": "system.which", "payload": {"echo": true},
               "payloadJSON": "{\"echo\":true}"})
    );

    let stats = json!({"cpuCount": 2, "memoryTotalBytes": 8, "memoryFreeBytes": 4}).to_string();
    let heard = node.ok("node.event", json!({"event": "node.host.stats", "payloadJSON": stats}));
    assert_eq!(heard, json!({"ok": true, "event": "node.host.stats", "handled": true}));
    assert_eq!(operator.event("node.hostStats")["payload"]["hostStats"]["cpuCount"], 2);
    let alive = json!({"event": "node.presence.alive", "payloadJSON": "{\"trigger\":\"manual\"}"});
    assert_eq!(node.ok("node.event", alive)["reason"], "persisted");
    assert_eq!(operator.ok("node.describe", json!({"nodeId": id}))["lastSeenReason"], "manual");
    for (method, params, key, expected) in [
        ("node.skills.update", json!({"skills": []}), "skills", json!([])),
        ("node.pluginTools.update", json!({"tools": []}), "tools", json!([])),
        ("node.pending.pull", json!({}), "actions", json!([])),
        ("skills.bins", json!({}), "bins", json!([])),
        ("node.runnerInventory.update", json!({}), "nodeId", json!(id)),
    ] {
        assert_eq!(node.ok(method, params)[key], expected, "{method}");
    }
    let queued = operator.ok("node.pending.enqueue", json!({"nodeId": id, "type": "status.request"}));
    assert_eq!((&queued["revision"], &queued["wakeTriggered"]), (&json!(1), &json!(false)));
    let drained = node.ok("node.pending.drain", json!({}));
    assert_eq!((&drained["items"][0], &drained["revision"]), (&queued["queued"], &json!(2)));

    assert_eq!(operator.ok("voicewake.set", json!({"triggers": [" alpha ", ""]})), json!({"triggers": ["alpha"]}));
    for (side, numbered) in [(&mut operator, true), (&mut node, false)] {
        let event = side.event("voicewake.changed");
        assert_eq!((&event["payload"], event.get("seq").is_some()), (&json!({"triggers": ["alpha"]}), numbered));
    }

    let renamed = json!({"nodeId": id, "displayName": "Renamed"});
    assert_eq!(operator.ok("node.rename", renamed.clone()), renamed);
    assert_eq!(operator.ok("node.list", json!({}))["nodes"][0]["displayName"], "Renamed");
    assert_eq!(operator.ok("node.pair.remove", json!({"nodeId": id})), json!({"nodeId": id}));
    assert!(node.closing().is_some());
    let removed = operator.event("node.pair.resolved")["payload"].clone();
    assert_eq!((&removed["requestId"], &removed["decision"]), (&json!(""), &json!("removed")));
    for (method, params) in [("node.describe", json!({"nodeId": id})), ("node.pair.remove", json!({"nodeId": id}))] {
        assert_eq!(operator.err(method, params)["message"], "unknown nodeId");
    }
}

#[test]
fn p_60_a_wider_declaration_waits_and_survives_a_crash() {
    let mut g = Setup::new().start();
    let mut operator = g.operator(EVERYTHING);
    let (key, id, node) = approved(&g, &mut operator, &["system.which"]);
    drop(node);
    let _wider = node_login(&g, &key, &["system.which", "system.run"]).hello();
    let request = operator.event("node.pair.requested")["payload"]["requestId"].clone();
    g.kill();
    g.start();
    let mut operator = g.operator(EVERYTHING);
    assert_eq!(operator.ok("node.pair.list", json!({}))["pending"][0]["requestId"], request);
    // The same wish finds its request; meanwhile only what was approved works, in either protocol.
    for protocol in [4, 3] {
        let _node = node_login(&g, &key, &["system.run", "system.which"]).protocol(protocol, protocol).hello();
        let described = wait_for("the node", || {
            let node = operator.ok("node.describe", json!({"nodeId": id}));
            (node["connected"] == true).then_some(node)
        });
        assert_eq!((&described["commands"], &described["pendingRequestId"]), (&json!(["system.which"]), &request));
        let params =
            json!({"nodeId": id, "command": "system.run", "params": {"command": ["x"]}, "idempotencyKey": "k"});
        assert_eq!(operator.err("node.invoke", params)["details"]["reason"], "command not approved");
    }
    // Approving it needs what the commands need.
    let mut weak = g.operator(&["operator.pairing", "operator.write"]);
    let refused = weak.err("node.pair.approve", json!({"requestId": request}));
    assert_eq!(refused["details"]["missingScope"], "operator.admin");
    operator.ok("node.pair.approve", json!({"requestId": request}));
}

#[test]
fn p_61_a_node_is_no_operator() {
    let g = Setup::new().start();
    let mut operator = g.operator(EVERYTHING);
    let (_, id, mut node) = approved(&g, &mut operator, &["system.which"]);
    let (_, _, mut liar) = approved(&g, &mut operator, &["system.which"]);
    for method in ["node.list", "node.invoke", "node.pair.approve", "device.pair.list", "config.get", "voicewake.set"] {
        assert_eq!(liar.err(method, json!({}))["message"], "unauthorized role: node", "{method}");
    }
    let (call, asked) = ask(&mut operator, &mut node, &id, "system.which", "k");
    assert_eq!(liar.ok("node.invoke.result", result(&asked)), json!({"ok": true, "ignored": true}));
    for event in ["exec.finished", "exec.approval.resolved", "node.pair.resolved", "device.pair.resolved", "shutdown"] {
        let payload = json!({"runId": "r", "requestId": "r", "decision": "approved"}).to_string();
        let heard = liar.ok("node.event", json!({"event": event, "payloadJSON": payload}));
        assert_eq!(heard["handled"], false, "{heard}");
    }
    assert_eq!(node.ok("node.invoke.result", result(&asked)), json!({"ok": true}));
    assert_eq!(operator.answer(&call).expect("open").expect("ok")["payload"], json!({"echo": true}));
    let unasked = ["exec.", "node.pair.resolved", "device.pair.resolved", "shutdown"];
    for event in &operator.events {
        let name = event["event"].as_str().expect("a name");
        let approval = event["payload"]["decision"] == "approved" && event["payload"]["requestId"] != "r";
        assert!(approval || !unasked.iter().any(|start| name.starts_with(start)), "{event}");
    }
}

/// Pain 21: a second connection of a node replaces the first.
#[test]
fn the_newest_connection_is_the_node() {
    let g = Setup::new().start();
    let mut operator = g.operator(EVERYTHING);
    let (key, id, mut old) = approved(&g, &mut operator, &["system.which"]);
    let (call, _) = ask(&mut operator, &mut old, &id, "system.which", "k1");
    let mut new = node_login(&g, &key, &["system.which"]).hello();
    let failed = operator.answer(&call).expect("open").expect_err("failed");
    assert_eq!(failed["message"], "DISCONNECTED: node disconnected (system.which)");
    assert_eq!(old.closing().map(|(code, _)| code), Some(1008));
    let (call, asked) = ask(&mut operator, &mut new, &id, "system.which", "k2");
    new.ok("node.invoke.result", result(&asked));
    assert!(operator.answer(&call).expect("open").is_ok());
    drop(new);
    wait_for("the disconnect", || {
        let node = operator.ok("node.describe", json!({"nodeId": id}));
        (node["connected"] == false).then_some(())
    });
    let offline = operator.err("node.invoke", json!({"nodeId": id, "command": "system.which", "idempotencyKey": "k3"}));
    assert_eq!(
        (&offline["message"], &offline["details"]["code"]),
        (&json!("node not connected"), &json!("NOT_CONNECTED"))
    );
}

/// In protocol 3 pairing the device was the only question.
#[test]
fn a_protocol_3_node_works_at_once() {
    let g = Setup::new().start();
    let mut operator = g.with_token().scopes(EVERYTHING).protocol(3, 3).hello();
    let key = new_device();
    let id = key.id().to_string();
    let mut node = node_login(&g, &key, &["system.run", "system.which", "acme.do"]).protocol(3, 3).hello();
    node.event("voicewake.changed");
    let (call, asked) = ask(&mut operator, &mut node, &id, "system.which", "k");
    node.ok("node.invoke.result", result(&asked));
    assert!(operator.answer(&call).expect("open").is_ok());
    let params = json!({"nodeId": id, "command": "acme.do", "idempotencyKey": "k2"});
    assert_eq!(operator.err("node.invoke", params)["details"]["reason"], "command not allowlisted");
    assert!(!node.events.iter().any(|event| event["event"] == "voicewake.routing.changed"));
}

#[test]
fn announcing_nodes_belongs_to_protocol_3() {
    let g = Setup::new().start();
    let mut now = g.operator(EVERYTHING);
    for method in ["node.pair.request", "node.pair.verify"] {
        assert!(!now.methods().contains(&method.to_owned()));
        let error = now.err(method, json!({"nodeId": "n1", "token": "x"}));
        assert_eq!(error["message"], format!("unknown method: {method}"));
    }
    let mut then = g.with_token().scopes(EVERYTHING).protocol(3, 3).hello();
    let asked = json!({"nodeId": "n1", "displayName": "N One", "platform": "ios", "commands": ["camera.list"]});
    let first = then.ok("node.pair.request", asked.clone());
    assert_eq!((&first["status"], &first["created"]), (&json!("pending"), &json!(true)));
    assert_eq!(then.ok("node.pair.request", asked)["created"], false);
    assert_eq!(then.event("node.pair.requested")["payload"]["nodeId"], "n1");
    assert_eq!(then.ok("node.pair.verify", json!({"nodeId": "n1", "token": "x"})), json!({"ok": false}));
    let approved = then.ok("node.pair.approve", json!({"requestId": first["request"]["requestId"]}));
    let token = &approved["node"]["token"];
    assert_eq!(then.ok("node.pair.verify", json!({"nodeId": "n1", "token": token}))["ok"], true);
    assert_eq!(then.err("node.pair.approve", json!({"requestId": "nope"}))["message"], "unknown requestId");
}

fn report(node: &mut Client, event: &str, payload: &Value) -> Value {
    node.ok("node.event", json!({"event": event, "payloadJSON": payload.to_string()}))
}

/// The reply of the next run of that conversation, as the connection hears it.
fn heard(client: &mut Client, key: &str) -> (String, Value) {
    loop {
        let event = client.event("chat");
        let payload = &event["payload"];
        if payload["sessionKey"] == key && payload["state"] == "final" {
            return (payload["message"]["content"][0]["text"].as_str().expect("text").to_owned(), event);
        }
    }
}

/// S-097: words said to a node reach the agent, once, and the answer goes to those who listen; a node gains no right by it.
#[test]
fn words_said_to_a_node_are_answered() {
    let model = Model::echo();
    let g = Setup::new().config(model_sections(&model.url())).start();
    let mut operator = g.operator(EVERYTHING);
    let key = new_device();
    let mut node = node_login(&g, &key, &["system.which"]).hello();
    let said = json!({"text": "what time is it", "eventId": "e1"});
    // Before the owner approved what it offers, nobody listens to it.
    for (event, payload) in
        [("voice.transcript", &said), ("agent.request", &said), ("chat.subscribe", &json!({"sessionKey": "main"}))]
    {
        let refused = node.err("node.event", json!({"event": event, "payloadJSON": payload.to_string()}));
        assert_eq!(refused["details"]["code"], "PAIRING_CHANGED", "{event}");
    }
    let request = operator.event("node.pair.requested")["payload"]["requestId"].clone();
    operator.ok("node.pair.approve", json!({"requestId": request}));

    let main = "agent:main:main";
    assert_eq!(report(&mut node, "chat.subscribe", &json!({"sessionKey": "main"}))["handled"], true);
    assert_eq!(report(&mut node, "voice.transcript", &said)["handled"], true);
    let again = report(&mut node, "voice.transcript", &said);
    assert_eq!((&again["handled"], &again["reason"]), (&json!(false), &json!("duplicate")));
    let (answer, event) = heard(&mut operator, main);
    assert!(answer.contains("what time is it"), "{answer}");
    assert!(event.get("seq").is_some());
    // The node follows the conversation: it hears the same, point to point.
    let (echo, event) = heard(&mut node, main);
    assert_eq!((&echo, event.get("seq")), (&answer, None));
    assert_eq!(node.event("agent").get("seq"), None);
    let history = operator.ok("chat.history", json!({"sessionKey": "main"}));
    let asked = history["messages"].as_array().expect("messages").iter().filter(|message| message["role"] == "user");
    assert_eq!(asked.count(), 1, "said twice, asked once: {history}");

    // What was typed there belongs to a conversation of its own; the node does not follow it.
    assert_eq!(report(&mut node, "chat.unsubscribe", &json!({"sessionKey": "main"}))["handled"], true);
    assert_eq!(report(&mut node, "agent.request", &json!({"message": "a shared page"}))["handled"], true);
    let own = format!("agent:main:node-{}", key.id());
    assert!(heard(&mut operator, &own).0.contains("a shared page"));
    assert_eq!(report(&mut node, "voice.transcript", &json!({"text": "once more"}))["handled"], true);
    assert!(heard(&mut operator, main).0.contains("once more"));
    // Nothing said is nothing asked.
    for nothing in [json!({"text": " "}), json!({"text": 7}), json!({"text": "x".repeat(20_001)})] {
        assert_eq!(report(&mut node, "voice.transcript", &nothing)["handled"], false, "{nothing}");
    }
    // All that happened is in what the node read by now: nothing of a conversation it does not follow.
    node.ok("node.event", json!({"event": "bogus"}));
    assert!(node.events.iter().all(|event| event["event"] != "chat"), "{:?}", node.events);
    model.wait_idle();
    assert_eq!(model.asks().len(), 3);
}
