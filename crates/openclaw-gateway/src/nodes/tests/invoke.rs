//! Invocation, from the caller's request to the node's frame and back.

use std::time::Duration;

use openclaw_protocol::{
    ErrorShape, Scope,
    method::node::{InvokeProgressParams, InvokeResultParams, NodeInvokeParams, Receipt},
};
use serde_json::value::to_raw_value;
use tokio::task::JoinHandle;

use super::*;
use crate::{approvals::Approvals, nodes::policy::Lists, rpc::registry::Answer};

const TAKEN: Receipt = Receipt { ok: true, ignored: false };
const IGNORED: Receipt = Receipt { ok: true, ignored: true };

fn call(command: &str, params: Value, key: &str) -> NodeInvokeParams {
    NodeInvokeParams {
        node_id: id(1).to_string(),
        command: command.into(),
        params: Some(to_raw_value(&params).expect("JSON")),
        timeout_ms: None,
        idempotency_key: key.into(),
        session_key: None,
        progress: None,
    }
}

fn start(room: &Room, caller: &Arc<Connection>, params: NodeInvokeParams) -> JoinHandle<Answer> {
    let (nodes, caller) = (Arc::clone(&room.nodes), Arc::clone(caller));
    tokio::spawn(async move { nodes.invoke(&caller, Lists::default(), &Approvals::default(), params).await })
}

/// The next `node.invoke.request` of a node.
async fn asked(node: &LiveNode) -> Value {
    for turn in 0..1_000 {
        if let Some((name, payload)) = events(&node.connection).pop() {
            assert_eq!(name, "node.invoke.request");
            return payload;
        }
        // Others first; then let the paused clock go on, in case the asker waits for it.
        match turn {
            0..100 => tokio::task::yield_now().await,
            _ => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
    panic!("the node was not asked");
}

fn result(request: &Value, ok: bool, payload_json: Option<&str>) -> InvokeResultParams {
    InvokeResultParams {
        id: request["id"].as_str().expect("id").into(),
        node_id: request["nodeId"].as_str().expect("nodeId").into(),
        ok,
        payload: None,
        payload_json: payload_json.map(str::to_owned),
        error: None,
    }
}

fn value(answer: Answer) -> Value {
    serde_json::from_slice(&answer.expect("answered")).expect("JSON")
}

fn failure(answer: Answer) -> Value {
    serde_json::to_value(answer.expect_err("refused")).expect("serialises")
}

async fn failed(running: JoinHandle<Answer>) -> Value {
    failure(running.await.expect("runs"))
}

/// Frames and answer as captured (`pairing-node-events`, q8).
#[tokio::test(start_paused = true)]
async fn a_command_goes_there_and_back() {
    let (room, node) = Room::with_node(&["system.which"]).await;
    let caller = operator(ScopeSet::all());
    let running = start(&room, &caller, call("system.which", json!({"bins": ["sh"]}), "a1"));
    let request = asked(&node).await;
    assert!(uuid::Uuid::parse_str(request["id"].as_str().expect("id")).is_ok());
    let mut shape = request.clone();
    shape["id"] = json!("*");
    assert_eq!(
        shape,
        json!({"id": "*", "nodeId": id(1).as_str(), "command": "system.which", "paramsJSON": "{\"bins\":[\"sh\"]}",
               "timeoutMs": 30000, "idempotencyKey": "a1"})
    );
    let answer = result(&request, true, Some("{\"echo\":\"system.which\"}"));
    assert_eq!(room.nodes.answered(&node.connection, answer), TAKEN);
    assert_eq!(
        value(running.await.expect("runs")),
        json!({"ok": true, "nodeId": id(1).as_str(), "command": "system.which", "payload": {"echo": "system.which"},
               "payloadJSON": "{\"echo\":\"system.which\"}"})
    );
    assert_eq!(node.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn answers_in_every_form() {
    let (room, node) = Room::with_node(&["system.which"]).await;
    let caller = operator(ScopeSet::all());
    let raw = |text: &str| serde_json::value::RawValue::from_string(text.into()).expect("JSON");
    let rows = [
        (None, None, json!(null), json!(null)),
        (Some(raw("{\"a\":1}")), None, json!({"a": 1}), json!(null)),
        (Some(raw("1")), Some("2"), json!(2), json!("2")),
        (None, Some("not json"), json!({"payloadJSON": "not json"}), json!("not json")),
        (None, Some(""), json!(null), json!("")),
    ];
    for (n, (payload, payload_json, expected, expected_json)) in rows.into_iter().enumerate() {
        let running = start(&room, &caller, call("system.which", json!({}), &format!("k{n}")));
        let request = asked(&node).await;
        let answer = InvokeResultParams { payload, ..result(&request, true, payload_json) };
        assert_eq!(room.nodes.answered(&node.connection, answer), TAKEN);
        let answer = value(running.await.expect("runs"));
        assert_eq!((&answer["payload"], &answer["payloadJSON"]), (&expected, &expected_json), "row {n}");
    }
}

/// The failure table of the notes, with the answers of release 2026.9.6.
#[tokio::test(start_paused = true)]
async fn failures_before_the_node_is_asked() {
    let (room, node) = Room::with_node(&["system.which", "browser.proxy", "acme.do", "camera.snap"]).await;
    let everything = ScopeSet::all();
    let writer: ScopeSet = [Scope::Write].into_iter().collect();
    let check = async |scopes: ScopeSet, params: NodeInvokeParams, expected: Value| {
        let outcome = room.nodes.invoke(&operator(scopes), Lists::default(), &Approvals::default(), params).await;
        assert_eq!(failure(outcome), expected);
    };
    let with = |command: &str| call(command, json!({}), command);
    check(
        everything,
        with("acme.do"),
        json!({
            "code": "INVALID_REQUEST",
            "message": "node command not allowed: \"acme.do\" is not in the allowlist for platform \"linux\"",
            "details": {"reason": "command not allowlisted", "command": "acme.do"}
        }),
    )
    .await;
    check(everything, with("camera.snap"), json!({
        "code": "INVALID_REQUEST",
        "message": "node command not allowed: \"camera.snap\" requires explicit gateway.nodes.commands.allow opt-in",
        "details": {"reason": "command not allowlisted", "command": "camera.snap"}
    }))
    .await;
    check(
        everything,
        with("system.execApprovals.get"),
        json!({
            "code": "INVALID_REQUEST",
            "message": "node.invoke does not allow system.execApprovals.*; use exec.approvals.node.*",
            "details": {"command": "system.execApprovals.get"}
        }),
    )
    .await;
    check(everything, with(" "), json!({"code": "INVALID_REQUEST", "message": "nodeId and command required"})).await;
    let missing = ErrorShape::missing_scope(Scope::Admin);
    check(writer, with("browser.proxy"), serde_json::to_value(missing).expect("serialises")).await;
    let offline = json!({
        "code": "UNAVAILABLE", "message": "node not connected",
        "details": {"code": "NOT_CONNECTED",
                    "nodeError": {"code": "NOT_CONNECTED", "message": "node not connected"},
                    "nodeCommandDispatched": false}
    });
    for stranger in ["nope".to_owned(), id(2).to_string()] {
        check(everything, NodeInvokeParams { node_id: stranger, ..with("system.which") }, offline.clone()).await;
    }
    room.nodes.detach(&node.connection);
    check(everything, with("system.which"), offline).await;
    assert!(events(&node.connection).is_empty(), "the node heard nothing of all this");
}

#[tokio::test(start_paused = true)]
async fn failures_after_the_node_was_asked() {
    let (room, node) = Room::with_node(&["system.which"]).await;
    let caller = operator(ScopeSet::all());
    let running = start(&room, &caller, call("system.which", json!({}), "a2"));
    let refused = InvokeResultParams {
        error: Some(serde_json::from_value(json!({"code": "INVALID_REQUEST", "message": "boom"})).expect("reads")),
        ..result(&asked(&node).await, false, None)
    };
    room.nodes.answered(&node.connection, refused);
    assert_eq!(
        failed(running).await,
        json!({
            "code": "UNAVAILABLE", "message": "INVALID_REQUEST: boom",
            "details": {"nodeError": {"code": "INVALID_REQUEST", "message": "boom"}, "nodeCommandDispatched": true}
        })
    );

    let running =
        start(&room, &caller, NodeInvokeParams { timeout_ms: Some(1000), ..call("system.which", json!({}), "a3") });
    let request = asked(&node).await;
    assert_eq!(request["timeoutMs"], 1000);
    assert_eq!(
        failed(running).await,
        json!({
            "code": "UNAVAILABLE", "message": "TIMEOUT: node invoke timed out",
            "details": {"nodeError": {"code": "TIMEOUT", "message": "node invoke timed out"},
                        "nodeCommandDispatched": true}
        })
    );
    let cancel = json!({"invokeId": request["id"], "nodeId": id(1).as_str()});
    assert_eq!(events(&node.connection), [("node.invoke.cancel".to_owned(), cancel)]);
    assert_eq!(room.nodes.answered(&node.connection, result(&request, true, Some("{}"))), IGNORED, "too late");

    let running = start(&room, &caller, call("system.which", json!({}), "a9"));
    asked(&node).await;
    room.nodes.detach(&node.connection);
    assert_eq!(
        failed(running).await,
        json!({
            "code": "UNAVAILABLE", "message": "DISCONNECTED: node disconnected (system.which)",
            "details": {"nodeError": {"code": "DISCONNECTED", "message": "node disconnected (system.which)"},
                        "nodeCommandDispatched": true}
        })
    );
}

#[tokio::test(start_paused = true)]
async fn deadlines() {
    let (room, node) = Room::with_node(&["system.which"]).await;
    let rows = [(None, 30_000), (Some(0), 30_000), (Some(1), 1), (Some(90_000), 90_000), (Some(u64::MAX), 3_600_000)];
    for (n, (given, expected)) in rows.into_iter().enumerate() {
        let params = NodeInvokeParams { timeout_ms: given, ..call("system.which", json!({}), &format!("k{n}")) };
        let begun = tokio::time::Instant::now();
        let running = start(&room, &operator(ScopeSet::all()), params);
        assert_eq!(asked(&node).await["timeoutMs"], expected);
        failed(running).await;
        assert_eq!(begun.elapsed(), Duration::from_millis(expected));
        events(&node.connection);
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_is_cancelled_at_the_node() {
    let (room, node) = Room::with_node(&["system.which"]).await;
    let running = start(&room, &operator(ScopeSet::all()), call("system.which", json!({}), "k"));
    let request = asked(&node).await;
    running.abort();
    assert!(running.await.is_err_and(|error| error.is_cancelled()));
    let cancel = json!({"invokeId": request["id"], "nodeId": id(1).as_str()});
    assert_eq!(events(&node.connection), [("node.invoke.cancel".to_owned(), cancel)]);
    assert_eq!(node.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn p_60_no_command_runs_before_its_approval() {
    let room = Room::new(&[1]).await;
    let live = node(1, &["system.which", "system.run"]);
    room.nodes.attach(&live);
    let check = async |scopes: ScopeSet, command: &str| {
        failure(
            room.nodes
                .invoke(&operator(scopes), Lists::default(), &Approvals::default(), call(command, json!({}), command))
                .await,
        )
    };
    let changed = json!({
        "code": "UNAVAILABLE", "message": "node pairing changed while invocation was active", "retryable": true,
        "details": {"code": "PAIRING_CHANGED"}
    });
    let writer: ScopeSet = [Scope::Write].into_iter().collect();
    assert_eq!(check(writer, "system.which").await, changed);
    let told = check(ScopeSet::all(), "system.which").await;
    assert_eq!(told["details"]["remediation"], json!({"command": "openclaw nodes pending", "runOn": "gateway-host"}));
    // Approved for less than it declares: only that runs.
    room.approve(&node(1, &["system.which"])).await;
    assert_eq!(check(writer, "system.run").await["details"]["reason"], "command not approved");
    let running = start(&room, &operator(writer), call("system.which", json!({}), "now"));
    let request = asked(&live).await;
    assert_eq!(room.nodes.answered(&live.connection, result(&request, true, Some("{}"))), TAKEN);
    assert!(running.await.expect("runs").is_ok());
}

/// What the configuration denies stops at once, whatever was approved.
#[tokio::test(start_paused = true)]
async fn a_denied_command_stops_at_the_next_call() {
    let (room, node) = Room::with_node(&["system.which"]).await;
    let deny = names(&["system.which"]);
    let lists = Lists { allow: &deny, deny: &deny };
    let outcome = room
        .nodes
        .invoke(&operator(ScopeSet::all()), lists, &Approvals::default(), call("system.which", json!({}), "k"))
        .await;
    assert_eq!(failure(outcome)["details"]["reason"], "command not allowlisted");
    assert!(events(&node.connection).is_empty());
}

#[tokio::test(start_paused = true)]
async fn p_61_only_the_asked_connection_answers() {
    let (room, one) = Room::with_node(&["system.which"]).await;
    let room_has = |seed| room.nodes.live(&id(seed)).is_some();
    let two = node(2, &["system.which"]);
    room.nodes.attach(&two);
    assert!(room_has(1) && room_has(2));
    let running = start(&room, &operator(ScopeSet::all()), call("system.which", json!({}), "k"));
    let request = asked(&one).await;
    let stale = connection(Role::Node, Some(1), ScopeSet::EMPTY, &[]);
    let caller = operator(ScopeSet::all());
    // Another node, also under the right node's name; a connection of the same node that is not the live one; an
    // operator.
    for liar in [&two.connection, &stale, &caller] {
        assert_eq!(room.nodes.answered(liar, result(&request, true, Some("\"forged\""))), IGNORED);
        let progress = InvokeProgressParams {
            invoke_id: request["id"].as_str().expect("id").into(),
            node_id: id(1).to_string(),
            seq: 0,
            chunk: "forged".into(),
            stderr: false,
        };
        assert_eq!(room.nodes.progressed(liar, progress), IGNORED);
    }
    // The right connection with ids it was not given, or for somebody else.
    let guess = |id: &str| InvokeResultParams { id: id.into(), ..result(&request, true, Some("\"forged\"")) };
    for wrong in ["", "1", "00000000-0000-0000-0000-000000000000", "../../etc"] {
        assert_eq!(room.nodes.answered(&one.connection, guess(wrong)), IGNORED, "{wrong:?}");
    }
    let other_name = InvokeResultParams { node_id: id(2).to_string(), ..result(&request, true, None) };
    assert_eq!(room.nodes.answered(&one.connection, other_name), IGNORED);
    assert!(!running.is_finished());
    assert_eq!(room.nodes.answered(&one.connection, result(&request, true, Some("\"true\""))), TAKEN);
    assert_eq!(room.nodes.answered(&one.connection, result(&request, true, Some("\"again\""))), IGNORED);
    assert_eq!(value(running.await.expect("runs"))["payload"], "true");
}

/// What reaches the node of parameters with internal fields.
async fn sent(command: &str, params: Value) -> Result<Value, Value> {
    let (room, node) = Room::with_node(&["system.run", "system.run.prepare"]).await;
    let running = start(&room, &operator(ScopeSet::all()), call(command, params, "k"));
    loop {
        if let Some((_, request)) = events(&node.connection).pop() {
            return Ok(serde_json::from_str(request["paramsJSON"].as_str().expect("text")).expect("JSON"));
        }
        if running.is_finished() {
            return Err(failure(running.await.expect("runs")));
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn p_57_internal_fields_never_reach_the_node() {
    let honest = json!({"command": ["echo", "hi"], "rawCommand": "echo hi", "cwd": "/tmp", "env": {"LANG": "C"},
                        "timeoutMs": 5, "needsScreenRecording": false, "agentId": "main", "sessionKey": "main"});
    let injected = [
        json!({"runId": "mine"}),
        json!({"RunID": "mine"}),
        json!({"systemRunPlan": {"argv": ["rm"]}}),
        json!({"SYSTEMRUNPLAN": {"argv": ["rm"]}}),
        json!({"approved": false, "Approved": null}),
        json!({"approvalDecision": "deny"}),
        json!({"params": {"approved": true, "runId": "mine"}}),
        json!({"approval": {"decision": "allow-once"}}),
        json!({"execPolicy": {"security": "full"}, "policySnapshot": {}, "internal": [{"approved": true}]}),
    ];
    for fields in injected {
        let mut params = honest.clone();
        params.as_object_mut().expect("object").extend(fields.as_object().expect("object").clone());
        let mut seen = sent("system.run", params.clone()).await.expect("runs without them");
        let run_id = seen.as_object_mut().expect("object").remove("runId").expect("the gateway's own");
        assert!(uuid::Uuid::parse_str(run_id.as_str().expect("text")).is_ok(), "{fields}");
        assert_eq!(seen, honest, "{fields}");
        let seen = sent("system.run.prepare", params).await.expect("prepares without them");
        assert_eq!(seen, honest, "{fields}");
    }
    // A caller that claims an approval is refused, in any spelling.
    let claims = [
        (json!({"approved": true}), "MISSING_RUN_ID"),
        (json!({"APPROVED": true}), "MISSING_RUN_ID"),
        (json!({"approvalDecision": "allow-always"}), "MISSING_RUN_ID"),
        (json!({"ApprovalDecision": "allow-once", "runId": "r"}), "UNKNOWN_APPROVAL_ID"),
        (json!({"approved": true, "runid": "r"}), "UNKNOWN_APPROVAL_ID"),
    ];
    for (fields, code) in claims {
        let mut params = honest.clone();
        params.as_object_mut().expect("object").extend(fields.as_object().expect("object").clone());
        let refused = sent("system.run", params).await.expect_err("refused");
        assert_eq!(refused["details"]["code"], code, "{fields}");
    }
    // Nor does anything hide inside a field of another type.
    for params in [
        json!({"command": {"approved": true}}),
        json!({"command": [{"approved": true}]}),
        json!({"command": ["x"], "cwd": {"approved": true}}),
        json!({"command": ["x"], "env": {"a": {"approved": true}}}),
        json!([{"approved": true}]),
    ] {
        let refused = sent("system.run", params.clone()).await.expect_err("refused");
        assert_eq!(refused["code"], "INVALID_REQUEST", "{params}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_repeated_key_runs_once() {
    let (room, node) = Room::with_node(&["system.which", "system.run"]).await;
    let caller = operator(ScopeSet::all());
    let first = start(&room, &caller, call("system.which", json!({}), "k"));
    let request = asked(&node).await;
    let second = start(&room, &caller, call("system.which", json!({}), "k"));
    let other = call("system.run", json!({}), "k");
    let outcome = room.nodes.invoke(&caller, Lists::default(), &Approvals::default(), other).await;
    assert!(failure(outcome)["message"].as_str().expect("text").contains("idempotencyKey was used"));
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(events(&node.connection).is_empty(), "asked once");
    room.nodes.answered(&node.connection, result(&request, true, Some("1")));
    let answer = value(first.await.expect("runs"));
    assert_eq!(value(second.await.expect("runs")), answer);
    // Remembered, even when the node is gone, for five minutes; and only for its caller.
    room.nodes.detach(&node.connection);
    assert_eq!(
        value(
            room.nodes
                .invoke(&caller, Lists::default(), &Approvals::default(), call("system.which", json!({}), "k"))
                .await
        ),
        answer
    );
    let stranger = connection(Role::Operator, Some(9), ScopeSet::all(), &[]);
    let outcome = room
        .nodes
        .invoke(&stranger, Lists::default(), &Approvals::default(), call("system.which", json!({}), "k"))
        .await;
    assert_eq!(failure(outcome)["message"], "node not connected");
    tokio::time::sleep(Duration::from_secs(300)).await;
    let outcome =
        room.nodes.invoke(&caller, Lists::default(), &Approvals::default(), call("system.which", json!({}), "k")).await;
    assert_eq!(failure(outcome)["message"], "node not connected", "forgotten");
}

#[tokio::test(start_paused = true)]
async fn what_did_not_run_may_be_tried_again_under_its_key() {
    let (room, node) = Room::with_node(&["system.which"]).await;
    let caller = operator(ScopeSet::all());
    room.nodes.detach(&node.connection);
    let outcome =
        room.nodes.invoke(&caller, Lists::default(), &Approvals::default(), call("system.which", json!({}), "k")).await;
    assert_eq!(failure(outcome)["message"], "node not connected");
    let back = super::node(1, &["system.which"]);
    room.nodes.attach(&back);
    let running = start(&room, &caller, call("system.which", json!({}), "k"));
    let request = asked(&back).await;
    room.nodes.answered(&back.connection, result(&request, true, Some("1")));
    assert!(running.await.expect("runs").is_ok());
    // A timeout may have run: the same key does not run it again.
    let slow = NodeInvokeParams { timeout_ms: Some(10), ..call("system.which", json!({}), "slow") };
    failed(start(&room, &caller, slow.clone())).await;
    events(&back.connection);
    assert_eq!(
        failure(room.nodes.invoke(&caller, Lists::default(), &Approvals::default(), slow).await)["message"],
        "TIMEOUT: node invoke timed out"
    );
    assert!(events(&back.connection).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_not_ready_is_asked_again() {
    let (room, node) = Room::with_node(&["system.which"]).await;
    let caller = operator(ScopeSet::all());
    let not_ready = |request: &Value| InvokeResultParams {
        error: Some(serde_json::from_value(json!({"code": "NODE_NOT_READY"})).expect("reads")),
        ..result(request, false, None)
    };
    let running = start(&room, &caller, call("system.which", json!({}), "k"));
    let mut ids = std::collections::BTreeSet::new();
    for _ in 0..5 {
        let request = asked(&node).await;
        ids.insert(request["id"].to_string());
        room.nodes.answered(&node.connection, not_ready(&request));
    }
    assert_eq!(failed(running).await["message"], "NODE_NOT_READY: node invoke failed");
    assert_eq!(ids.len(), 5, "four retries, each under its own id");
    // Not after it has begun.
    let running = start(&room, &caller, call("system.which", json!({}), "k2"));
    let request = asked(&node).await;
    let text = |field: &str| request[field].as_str().expect("text").to_owned();
    let progress = InvokeProgressParams {
        invoke_id: text("id"),
        node_id: text("nodeId"),
        seq: 0,
        chunk: "working".into(),
        stderr: false,
    };
    // As the reference answers while nobody listens; it counts all the same.
    assert_eq!(room.nodes.progressed(&node.connection, progress), IGNORED);
    room.nodes.answered(&node.connection, not_ready(&request));
    assert_eq!(failed(running).await["message"], "NODE_NOT_READY: node invoke failed");
    assert!(events(&node.connection).is_empty());
}

/// A call that its queue could not take does not cost the node its connection.
#[tokio::test(start_paused = true)]
async fn oversized_and_piled_up_calls_are_refused() {
    let (room, node) = Room::with_node(&["system.which"]).await;
    let caller = operator(ScopeSet::all());
    let huge = json!({"x": "x".repeat(17 << 20)});
    let outcome =
        room.nodes.invoke(&caller, Lists::default(), &Approvals::default(), call("system.which", huge, "huge")).await;
    assert!(failure(outcome)["message"].as_str().expect("text").contains("larger than 16 MiB"));
    let big = json!({"x": "x".repeat(10 << 20)});
    let first = start(&room, &caller, call("system.which", big.clone(), "b1"));
    while node.waiting() == 0 {
        tokio::task::yield_now().await;
    }
    let outcome = failure(
        room.nodes.invoke(&caller, Lists::default(), &Approvals::default(), call("system.which", big, "b2")).await,
    );
    assert_eq!((&outcome["code"], &outcome["retryable"]), (&json!("UNAVAILABLE"), &json!(true)));
    assert!(!node.connection.outbound.is_closing());
    first.abort();
}

/// The reference's controller: by number from 0, kept while one before is missing, never twice.
#[tokio::test(start_paused = true)]
async fn output_comes_in_order_and_once() {
    let (room, node) = Room::with_node(&["system.run"]).await;
    let caller = operator(ScopeSet::all());
    let (pieces, mut heard) = tokio::sync::mpsc::channel(4);
    let nodes = Arc::clone(&room.nodes);
    let running = tokio::spawn(async move {
        let by = crate::nodes::invoke::By::connection(&caller);
        let params = call("system.run", json!({"command": ["ls"]}), "k");
        nodes.invoke_by(&by, Lists::default(), &Approvals::default(), params, Some(&pieces)).await
    });
    let request = asked(&node).await;
    let sent: Value = serde_json::from_str(request["paramsJSON"].as_str().expect("text")).expect("JSON");
    assert_eq!(sent["stream"], true);
    let piece = |seq: u64, text: &str| {
        let progress = InvokeProgressParams {
            invoke_id: request["id"].as_str().expect("id").into(),
            node_id: id(1).to_string(),
            seq,
            chunk: text.into(),
            stderr: text == "oops",
        };
        room.nodes.progressed(&node.connection, progress)
    };
    assert_eq!((piece(1, "b"), piece(1, "again"), piece(0, "a")), (TAKEN, IGNORED, TAKEN));
    assert_eq!((piece(0, "a"), piece(2, "oops")), (IGNORED, TAKEN));
    let mut texts = Vec::new();
    while let Ok(piece) = heard.try_recv() {
        texts.push((piece.seq, piece.text, piece.stderr));
    }
    assert_eq!(texts, [(0, "a".to_owned(), false), (1, "b".into(), false), (2, "oops".into(), true)]);
    // Nobody reads any more: the node is told all is well, and loses no time.
    for seq in 3..10 {
        assert_eq!(piece(seq, "x"), TAKEN);
    }
    // Too early to be kept.
    for seq in 11..11 + 64 {
        assert_eq!(piece(seq, "early"), TAKEN);
    }
    assert_eq!(piece(75, "early"), IGNORED);
    room.nodes.answered(&node.connection, result(&request, true, Some("{\"exitCode\":0}")));
    assert_eq!(value(running.await.expect("runs"))["payload"]["exitCode"], 0);
    assert_eq!(piece(10, "late"), IGNORED);
}
