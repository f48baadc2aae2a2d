//! Leave to run commands, over the wire: P-57, P-58, P-61 and what surrounds them. Expected frames are those of release
//! 2026.9.6 (capture `exec-approvals-system-run`).

use std::{fs, os::unix::fs::PermissionsExt as _};

use lab::{
    client::{Client, Login, new_device},
    sandbox::{Sandbox, Setup},
};
use serde_json::{Value, json};

const EVERYTHING: &[&str] =
    &["operator.admin", "operator.read", "operator.write", "operator.approvals", "operator.pairing"];
const RUN: &[&str] = &["system.run", "system.run.prepare", "system.execApprovals.get", "system.execApprovals.set"];
const ARGV: [&str; 3] = ["/bin/sh", "-c", "echo hi"];

/// A node whose surface was approved, and its id.
fn node(g: &Sandbox, operator: &mut Client) -> (String, Client) {
    let key = new_device();
    let login = g.with_token().node().device(&key).set("/commands", json!(RUN));
    let login = login.set("/client/platform", "linux").set("/client/deviceFamily", "Linux");
    let mut node = login.hello();
    let request = operator.event("node.pair.requested")["payload"]["requestId"].clone();
    operator.ok("node.pair.approve", json!({ "requestId": request }));
    assert_eq!(node.event("node.pair.resolved")["payload"]["decision"], "approved");
    (key.id().to_string(), node)
}

/// An operator that can show approvals.
fn reviewer(g: &Sandbox) -> Login {
    g.with_token().scopes(EVERYTHING).set("/caps", json!(["exec-approvals", "approvals"]))
}

fn plan() -> Value {
    json!({"argv": ARGV, "cwd": "/w", "commandText": "/bin/sh -c \"echo hi\"", "commandPreview": "echo hi",
           "agentId": "main", "sessionKey": "agent:main:main"})
}

fn asks(node: &str) -> Value {
    json!({"systemRunPlan": plan(), "nodeId": node, "host": "node", "timeoutMs": 60_000, "twoPhase": true,
           "requireDeliveryRoute": false})
}

/// Asks in two phases; gives the id of the approval, and of the request that will be answered again.
fn ask(operator: &mut Client, params: Value) -> (String, String) {
    let request = operator.send("exec.approval.request", params);
    let accepted = operator.answer(&request).expect("open").expect("accepted");
    assert_eq!(accepted["status"], "accepted", "{accepted}");
    (accepted["id"].as_str().expect("an id").to_owned(), request)
}

fn run(node: &str, id: &str, key: &str) -> Value {
    let params = json!({"command": ARGV, "rawCommand": "echo hi", "agentId": "main", "sessionKey": "agent:main:main",
                        "runId": id, "approved": true, "approvalDecision": "allow-once"});
    json!({"nodeId": node, "command": "system.run", "params": params, "idempotencyKey": key})
}

/// What a node is sent for an invocation, once it answers it; with what the caller gets.
fn answered(node: &mut Client, operator: &mut Client, request: &str) -> (Value, Value) {
    let asked = node.event("node.invoke.request")["payload"].clone();
    let params = serde_json::from_str(asked["paramsJSON"].as_str().expect("text")).expect("JSON");
    let result = json!({"id": asked["id"], "nodeId": asked["nodeId"], "ok": true, "payloadJSON": "{\"exitCode\":0}"});
    node.ok("node.invoke.result", result);
    (params, operator.answer(request).expect("open").expect("ok"))
}

#[test]
fn a_command_is_asked_for_shown_allowed_and_run_once() {
    let g = Setup::new().start();
    let mut operator = g.operator(EVERYTHING);
    let (id, mut node) = node(&g, &mut operator);
    let mut ui = reviewer(&g).hello();
    let (approval, waiting) = ask(&mut operator, asks(&id));
    let requested = ui.event("exec.approval.requested");
    assert!(requested["seq"].is_u64(), "{requested}");
    let shown = &requested["payload"];
    assert_eq!((&shown["approvalKind"], &shown["id"]), (&json!("exec"), &json!(approval)));
    let request = &shown["request"];
    assert_eq!(request["command"], "/bin/sh -c \"echo hi\"");
    assert_eq!(request["systemRunPlan"], plan());
    assert_eq!((&request["nodeId"], &request["cwd"], &request["host"]), (&json!(id), &json!("/w"), &json!("node")));
    assert_eq!(request["allowedDecisions"], json!(["allow-once", "allow-always", "deny"]));
    assert_eq!(shown["expiresAtMs"].as_i64().expect("ms") - shown["createdAtMs"].as_i64().expect("ms"), 60_000);
    let listed = ui.ok("exec.approval.list", json!({}));
    assert_eq!(listed, json!([shown]));
    let got = ui.ok("exec.approval.get", json!({ "id": approval }));
    assert_eq!(
        got,
        json!({"id": approval, "commandText": "/bin/sh -c \"echo hi\"", "commandPreview": "echo hi",
               "allowedDecisions": ["allow-once", "allow-always", "deny"], "host": "node", "nodeId": id,
               "agentId": "main", "expiresAtMs": shown["expiresAtMs"]})
    );
    // Nothing runs before the answer, and the attempt uses nothing up.
    let early = operator.err("node.invoke", run(&id, &approval, "k0"));
    assert_eq!(
        (&early["message"], &early["details"]["code"]),
        (&json!("approval required"), &json!("APPROVAL_REQUIRED"))
    );

    assert_eq!(ui.ok("exec.approval.resolve", json!({"id": approval, "decision": "allow-once"})), json!({"ok": true}));
    let outcome = operator.answer(&waiting).expect("open").expect("ok");
    let (created, expires) = (&shown["createdAtMs"], &shown["expiresAtMs"]);
    assert_eq!(
        outcome,
        json!({"id": approval, "decision": "allow-once", "createdAtMs": created, "expiresAtMs": expires})
    );
    let resolved = ui.event("exec.approval.resolved")["payload"].clone();
    assert_eq!((&resolved["id"], &resolved["decision"]), (&json!(approval), &json!("allow-once")));
    assert_eq!((&resolved["resolvedBy"], &resolved["request"]), (&json!("cli"), request));
    let waited = operator.ok("exec.approval.waitDecision", json!({ "id": approval }));
    assert_eq!((&waited["decision"], &waited["terminalReason"]), (&json!("allow-once"), &json!("user")));
    assert_eq!(ui.ok("exec.approval.list", json!({})), json!([]));

    let call = operator.send("node.invoke", run(&id, &approval, "k1"));
    let (sent, answer) = answered(&mut node, &mut operator, &call);
    assert_eq!(
        sent,
        json!({"command": ARGV, "rawCommand": "echo hi", "agentId": "main", "sessionKey": "agent:main:main",
               "cwd": "/w", "systemRunPlan": plan(), "runId": approval, "approved": true,
               "approvalDecision": "allow-once"})
    );
    assert_eq!(answer["payload"], json!({"exitCode": 0}));
    // The same request again is answered from memory; another one finds the leave used up.
    assert_eq!(operator.ok("node.invoke", run(&id, &approval, "k1")), answer);
    assert_eq!(operator.err("node.invoke", run(&id, &approval, "k2"))["details"]["code"], "APPROVAL_REQUIRED");
    // An answer is final.
    let conflict = ui.err("exec.approval.resolve", json!({"id": approval, "decision": "deny"}));
    assert_eq!(conflict["details"]["reason"], "APPROVAL_ALREADY_RESOLVED");
    assert_eq!(ui.ok("exec.approval.resolve", json!({"id": approval, "decision": "allow-once"})), json!({"ok": true}));
}

#[test]
fn p_57_no_field_of_a_caller_stands_for_an_approval() {
    let g = Setup::new().start();
    let mut operator = g.operator(EVERYTHING);
    let (id, mut node) = node(&g, &mut operator);
    let mut invoke = |fields: Value, expected: Result<Value, &str>| {
        let mut params = json!({"command": ["ls"]});
        params.as_object_mut().expect("object").extend(fields.as_object().expect("object").clone());
        let key = fields.to_string();
        let call = json!({"nodeId": id, "command": "system.run", "params": params, "idempotencyKey": &key[..key.len().min(100)]});
        match expected {
            Ok(expected) => {
                let request = operator.send("node.invoke", call);
                let (mut sent, _) = answered(&mut node, &mut operator, &request);
                let run_id = sent.as_object_mut().expect("object").remove("runId").expect("the gateway's own");
                assert_ne!(run_id, "mine");
                assert_eq!(sent, expected, "{fields}");
            }
            Err(code) => assert_eq!(operator.err("node.invoke", call)["details"]["code"], code, "{fields}"),
        }
    };
    let plain = json!({"command": ["ls"]});
    for stripped in [
        json!({"runId": "mine"}),
        json!({"approved": false, "approvalDecision": "deny"}),
        json!({"systemRunPlan": {"argv": ["rm"]}, "approval": {"approved": true}, "params": {"approved": true}}),
        json!({"execPolicy": {"security": "full"}, "policySnapshot": {"ask": "off"}}),
    ] {
        invoke(stripped, Ok(plain.clone()));
    }
    for (fields, code) in [
        (json!({"approved": true}), "MISSING_RUN_ID"),
        (json!({"Approved": true, "runId": "x"}), "UNKNOWN_APPROVAL_ID"),
        (json!({"approvalDecision": "allow-always", "RunId": "x"}), "UNKNOWN_APPROVAL_ID"),
        (json!({"approvalSource": "auto-review", "runId": "x"}), "INVALID_APPROVAL_SOURCE"),
        (json!({"approvalSource": "ask-fallback", "runId": "x"}), "UNKNOWN_APPROVAL_ID"),
        (json!({"approvalSource": "ask-fallback", "approved": false}), "APPROVAL_SOURCE_MISMATCH"),
    ] {
        invoke(fields, Err(code));
    }
}

/// An approval of one thing is worth nothing for another: command, directory, environment, session, node, caller.
#[test]
fn p_57_an_approval_is_worth_nothing_for_anything_else() {
    let g = Setup::new().start();
    let mut operator = g.operator(EVERYTHING);
    let (id, _node) = node(&g, &mut operator);
    let (other, _other) = node(&g, &mut operator);
    let (approval, _) = ask(&mut operator, asks(&id));
    operator.ok("exec.approval.resolve", json!({"id": approval, "decision": "allow-always"}));
    let mut n = 0;
    let mut refused = |who: &mut Client, pointer: &str, value: Value, code: &str| {
        n += 1;
        let mut call = run(&id, &approval, &format!("k{n}"));
        match call.pointer_mut(pointer) {
            Some(place) => *place = value,
            None => call["params"][pointer.trim_start_matches("/params/")] = value,
        }
        assert_eq!(who.err("node.invoke", call)["details"]["code"], code, "{pointer}");
    };
    refused(&mut operator, "/params/command", json!(["/bin/sh", "-c", "rm -rf /"]), "APPROVAL_REQUEST_MISMATCH");
    refused(&mut operator, "/params/command", json!(["/bin/sh", "-c", "echo hi "]), "APPROVAL_REQUEST_MISMATCH");
    refused(&mut operator, "/params/cwd", json!("/"), "APPROVAL_REQUEST_MISMATCH");
    refused(&mut operator, "/params/agentId", json!("other"), "APPROVAL_REQUEST_MISMATCH");
    refused(&mut operator, "/params/sessionKey", json!("agent:main:other"), "APPROVAL_REQUEST_MISMATCH");
    refused(&mut operator, "/params/env", json!({"LD_PRELOAD": "/tmp/x.so"}), "APPROVAL_ENV_BINDING_MISSING");
    refused(&mut operator, "/nodeId", json!(other), "APPROVAL_NODE_MISMATCH");
    let mut stranger = g.operator(EVERYTHING);
    refused(&mut stranger, "/params/runId", json!(approval), "APPROVAL_CLIENT_MISMATCH");
    // A script that was approved by content stays in the plan, whatever the caller says.
    let mut scripted = asks(&id);
    scripted["systemRunPlan"]["mutableFileOperand"] = json!({"argvIndex": 0, "path": "/w/x", "sha256": "aa"});
    scripted["env"] = json!({"LANG": "C"});
    let (approval, _) = ask(&mut operator, scripted);
    operator.ok("exec.approval.resolve", json!({"id": approval, "decision": "allow-once"}));
    let missing = operator.err("node.invoke", run(&id, &approval, "s1"));
    assert_eq!(missing["details"]["code"], "APPROVAL_ENV_MISMATCH");
    let mut call = run(&id, &approval, "s2");
    call["params"]["env"] = json!({"LANG": "C"});
    call["params"]["systemRunPlan"] = json!({"argv": ["rm"]});
    let (_, mut node) = (operator.send("node.invoke", call), _node);
    let asked = node.event("node.invoke.request")["payload"].clone();
    let sent: Value = serde_json::from_str(asked["paramsJSON"].as_str().expect("text")).expect("JSON");
    assert_eq!(sent["systemRunPlan"]["mutableFileOperand"], json!({"argvIndex": 0, "path": "/w/x", "sha256": "aa"}));
    assert_eq!((&sent["systemRunPlan"]["argv"], &sent["env"]), (&json!(ARGV), &json!({"LANG": "C"})));
}

#[test]
fn p_58_what_is_shown_is_what_runs() {
    let g = Setup::new().start();
    let mut operator = g.operator(EVERYTHING);
    let (id, _node) = node(&g, &mut operator);
    let mut ui = reviewer(&g).hello();
    let mut lie = asks(&id);
    lie["command"] = json!("ls");
    lie["systemRunPlan"]["argv"] = json!(["rm", "-rf", "/\u{202e}txt", "a\nb"]);
    lie["systemRunPlan"]["commandText"] = json!("ls");
    lie["systemRunPlan"]["commandPreview"] = json!("ls");
    let (approval, _) = ask(&mut operator, lie);
    let shown = ui.event("exec.approval.requested")["payload"]["request"].clone();
    assert_eq!(shown["command"], "rm -rf /\\u{202E}txt \"a\\u{A}b\"");
    assert_eq!(shown["systemRunPlan"]["commandPreview"], Value::Null);
    let got = ui.ok("exec.approval.get", json!({ "id": approval }));
    assert_eq!((&got["commandText"], &got["commandPreview"]), (&shown["command"], &Value::Null));
    for (raw, code) in [
        ("ls", "RAW_COMMAND_MISMATCH"),
        ("rm -rf", "RAW_COMMAND_MISMATCH"),
        ("rm -rf / ; ls", "RAW_COMMAND_MISMATCH"),
        ("rm\t-rf\t/", "RAW_COMMAND_MISMATCH"),
    ] {
        let call = json!({"nodeId": id, "command": "system.run", "idempotencyKey": raw,
                          "params": {"command": ["rm", "-rf", "/"], "rawCommand": raw}});
        assert_eq!(operator.err("node.invoke", call)["details"]["code"], code, "{raw}");
    }
    for params in [json!({"command": ["ls\u{0}", "x"]}), json!({"command": ["ls"], "cwd": "/a\u{0}b"})] {
        let call = json!({"nodeId": id, "command": "system.run", "idempotencyKey": "nul", "params": params});
        let message = operator.err("node.invoke", call)["message"].as_str().expect("text").to_owned();
        assert!(message.contains("NUL"), "{message}");
    }
    let long = json!({"command": "x".repeat(20_000), "requireDeliveryRoute": false});
    let refused = operator.err("exec.approval.request", long);
    assert_eq!(refused["details"]["reason"], "EXEC_APPROVAL_COMMAND_DISPLAY_LIMIT");
}

/// Who may ask, see and answer.
#[test]
fn p_61_only_operators_with_the_scope_ask_see_and_answer() {
    let g = Setup::new().start();
    let mut operator = g.operator(EVERYTHING);
    let (id, mut node) = node(&g, &mut operator);
    let (approval, _) = ask(&mut operator, asks(&id));
    let decide = json!({"id": approval, "decision": "allow-once"});
    let unified = json!({"id": approval, "kind": "exec", "decision": "allow-once"});
    let all = [
        ("exec.approval.request", asks(&id)),
        ("exec.approval.resolve", decide.clone()),
        ("exec.approval.list", json!({})),
        ("exec.approval.get", json!({"id": approval})),
        ("exec.approval.waitDecision", json!({"id": approval})),
        ("approval.get", json!({"id": approval})),
        ("approval.resolve", unified.clone()),
    ];
    let mut writer = g.operator(&["operator.write", "operator.pairing"]);
    for (method, params) in &all {
        assert_eq!(writer.err(method, params.clone())["details"]["missingScope"], "operator.approvals", "{method}");
        assert_eq!(node.err(method, params.clone())["message"], "unauthorized role: node", "{method}");
    }
    for method in ["exec.approvals.get", "exec.approvals.set", "exec.approvals.node.get", "exec.approvals.node.set"] {
        let mut approver = g.operator(&["operator.approvals", "operator.write"]);
        assert_eq!(approver.err(method, json!({}))["details"]["missingScope"], "operator.admin", "{method}");
    }
    // With the scope alone, what another device asked does not exist.
    let approver = g.paired(&["operator.approvals"]);
    let mut other = approver.login().set("/caps", json!(["exec-approvals"])).hello();
    assert_eq!(other.ok("exec.approval.list", json!({})), json!([]));
    for (method, params) in [("exec.approval.resolve", decide.clone()), ("exec.approval.get", json!({"id": approval}))]
    {
        assert_eq!(other.err(method, params)["details"]["reason"], "APPROVAL_NOT_FOUND", "{method}");
    }
    assert_eq!(other.err("approval.resolve", unified)["message"], "approval not found");
    // A node that says it was approved or finished changes nothing.
    for event in ["exec.approval.resolved", "exec.approval.requested", "exec.finished"] {
        let payload = json!({"id": approval, "decision": "allow-once", "runId": approval}).to_string();
        assert_eq!(node.ok("node.event", json!({"event": event, "payloadJSON": payload}))["handled"], false);
    }
    assert_eq!(operator.ok("exec.approval.list", json!({})).as_array().map(Vec::len), Some(1));
    assert_eq!(operator.ok("exec.approval.resolve", decide), json!({"ok": true}));
    // Not one event of it went to those who may not see it.
    other.ok("exec.approval.list", json!({}));
    for (who, client) in [("another device", &other), ("a writer", &writer), ("the node", &node)] {
        let heard =
            client.events.iter().filter(|e| e["event"].as_str().is_some_and(|n| n.starts_with("exec.approval")));
        assert_eq!(heard.count(), 0, "{who}");
    }
}

#[test]
fn nobody_there_time_up_and_restarts_all_mean_no() {
    let mut g = Setup::new().start();
    let mut operator = g.operator(EVERYTHING);
    let (id, _node) = node(&g, &mut operator);
    // Nobody can show it: the end comes at once, in one answer.
    let mut routed = asks(&id);
    routed.as_object_mut().expect("object").remove("requireDeliveryRoute");
    let ended = operator.ok("exec.approval.request", routed);
    assert_eq!(ended["decision"], Value::Null);
    let waited = operator.ok("exec.approval.waitDecision", json!({"id": ended["id"]}));
    assert_eq!(waited["terminalReason"], "no-route");
    let late = operator.err("exec.approval.resolve", json!({"id": ended["id"], "decision": "allow-once"}));
    assert_eq!(late["details"]["reason"], "APPROVAL_NOT_FOUND");
    // Time passes.
    let mut short = asks(&id);
    short["timeoutMs"] = json!(50);
    let (approval, waiting) = ask(&mut operator, short);
    let outcome = operator.answer(&waiting).expect("open").expect("ok");
    assert_eq!((&outcome["decision"], &outcome["id"]), (&Value::Null, &json!(approval)));
    let late = operator.err("exec.approval.resolve", json!({"id": approval, "decision": "allow-once"}));
    assert_eq!(late["details"]["reason"], "APPROVAL_NOT_FOUND");
    assert_eq!(operator.err("node.invoke", run(&id, &approval, "t"))["details"]["code"], "APPROVAL_REQUIRED");
    let expired = operator.ok("approval.get", json!({"id": approval}))["approval"].clone();
    assert_eq!((&expired["status"], &expired["reason"]), (&json!("expired"), &json!("timeout")));
    // What was allowed before a restart is not allowed after it.
    let (approval, _) = ask(&mut operator, asks(&id));
    operator.ok("exec.approval.resolve", json!({"id": approval, "decision": "allow-always"}));
    g.kill();
    g.start();
    let mut operator = g.operator(EVERYTHING);
    assert_eq!(operator.ok("exec.approval.list", json!({})), json!([]));
    let gone = operator.err("exec.approval.resolve", json!({"id": approval, "decision": "allow-once"}));
    assert_eq!(gone["details"]["reason"], "APPROVAL_NOT_FOUND");
    assert!(gone["details"]["remediation"].as_str().is_some_and(|text| text.contains("restart")), "{gone}");
}

/// A stopping gateway does not keep anybody waiting for an answer that cannot come.
#[test]
fn a_stop_ends_the_wait() {
    let mut g = Setup::new().start();
    let mut operator = g.operator(EVERYTHING);
    let request = operator.send("exec.approval.request", json!({"command": "x", "requireDeliveryRoute": false}));
    operator.ok("exec.approval.list", json!({}));
    assert!(g.stop().success());
    let answer = operator.answer(&request);
    assert!(answer.is_none_or(|answer| answer.is_err_and(|error| error["retryable"] == true)));
}

#[test]
fn any_surface_can_answer_by_the_unified_methods() {
    let g = Setup::new().start();
    let mut operator = g.operator(EVERYTHING);
    let (id, _node) = node(&g, &mut operator);
    let (approval, waiting) = ask(&mut operator, asks(&id));
    let record = operator.ok("approval.get", json!({ "id": approval }))["approval"].clone();
    assert_eq!((&record["status"], &record["urlPath"]), (&json!("pending"), &json!(format!("/approve/{approval}"))));
    assert_eq!(record["presentation"]["commandText"], "/bin/sh -c \"echo hi\"");
    for hidden in ["cwd", "systemRunPlan", "systemRunBinding"] {
        assert_eq!(record["presentation"].get(hidden), None);
    }
    let wrong = json!({"id": approval, "kind": "plugin", "decision": "allow-once"});
    assert!(operator.err("approval.resolve", wrong)["message"].as_str().is_some());
    let resolve = json!({"id": approval, "kind": "exec", "decision": "deny"});
    let first = operator.ok("approval.resolve", resolve.clone());
    assert_eq!((&first["applied"], &first["approval"]["status"]), (&json!(true), &json!("denied")));
    assert_eq!(first["approval"]["resolver"], json!({"kind": "runtime", "id": "cli"}));
    let again = operator.ok("approval.resolve", resolve);
    assert_eq!((&again["applied"], &again["approval"]), (&json!(false), &first["approval"]));
    let outcome = operator.answer(&waiting).expect("open").expect("ok");
    assert_eq!(outcome["decision"], "deny");
    for method in ["plugin.approval.list", "openclaw.approval.list"] {
        assert_eq!(operator.ok(method, json!({})), json!([]));
    }
}

/// Protocol 3: the same flow in its own shapes.
#[test]
fn protocol_3_asks_and_answers_as_it_did() {
    let g = Setup::new().start();
    let mut operator = g.with_token().scopes(EVERYTHING).protocol(3, 3).hello();
    let (id, _node) = node(&g, &mut operator);
    let mut ui = g.with_token().scopes(EVERYTHING).protocol(3, 3).hello();
    let params = json!({"host": "node", "nodeId": id, "commandArgv": ["ls"], "twoPhase": true,
        "systemRunPlanV2": {"version": 2, "argv": ["ls"], "cwd": null, "rawCommand": "ls", "agentId": null,
                            "sessionKey": null}});
    let request = operator.send("exec.approval.request", params);
    let accepted = operator.answer(&request).expect("open").expect("accepted");
    assert_eq!((&accepted["status"], accepted.get("deliveryRoute")), (&json!("accepted"), None));
    let wait = accepted["expiresAtMs"].as_i64().expect("ms") - accepted["createdAtMs"].as_i64().expect("ms");
    assert_eq!(wait, 120_000);
    let event = ui.event("exec.approval.requested")["payload"].clone();
    assert_eq!((event.get("approvalKind"), &event["request"]["command"]), (None, &json!("ls")));
    ui.ok("exec.approval.resolve", json!({"id": accepted["id"], "decision": "deny"}));
    assert_eq!(operator.answer(&request).expect("open").expect("ok")["decision"], "deny");
}

#[test]
fn the_policy_document_is_read_and_written_whole() {
    let g = Setup::new().start();
    let mut admin = g.admin();
    let before = admin.ok("exec.approvals.get", json!({}));
    assert_eq!((&before["exists"], &before["file"]), (&json!(false), &json!({"version": 1})));
    assert_eq!(
        before["resolvedDefaults"],
        json!({"security": "allowlist", "ask": "on-miss", "askFallback": "deny", "autoAllowSkills": false})
    );
    let file = json!({"version": 1, "defaults": {"security": "allowlist", "ask": "on-miss"},
                      "socket": {"path": "/run/a.sock", "token": "hush-hush"},
                      "agents": {"main": {"allowlist": [{"pattern": "/usr/bin/rg"}]}}});
    let written = admin.ok("exec.approvals.set", json!({"file": file, "baseHash": before["hash"]}));
    assert_eq!(written["file"]["agents"]["main"]["allowlist"][0]["pattern"], "/usr/bin/rg");
    assert_eq!(written["resolvedDefaults"]["security"], "allowlist");
    assert!(!written.to_string().contains("hush-hush"));
    let path = g.state_dir().join("exec-approvals.json");
    assert_eq!(written["path"], json!(path.display().to_string()));
    assert_eq!(fs::metadata(&path).expect("written").permissions().mode() & 0o777, 0o600);
    for (params, words) in [
        (json!({"file": file}), "exec approvals base hash required; re-run exec.approvals.get and retry"),
        (
            json!({"file": file, "baseHash": before["hash"]}),
            "exec approvals changed since last load; re-run exec.approvals.get and retry",
        ),
    ] {
        assert_eq!(admin.err("exec.approvals.set", params)["message"], words);
    }
    for wrong in [
        json!({"version": 1, "defaults": {"security": "none"}}),
        json!({"version": 2}),
        json!({"version": 1, "agents": {"main": {"ask": "maybe"}}}),
        json!([]),
    ] {
        let refused = admin.err("exec.approvals.set", json!({"file": wrong, "baseHash": written["hash"]}));
        assert_eq!(refused["code"], "INVALID_REQUEST", "{wrong}");
    }
    // A typing mistake in the file locks, and does not open.
    fs::write(&path, "{\"version\": 1, \"defaults\": {\"security\": \"ful\"}}").expect("writes");
    let damaged = admin.ok("exec.approvals.get", json!({}));
    assert_eq!(damaged["resolvedDefaults"]["security"], "deny");
    // The mended document is the one that is written; the other is kept.
    admin.ok("exec.approvals.set", json!({"file": file, "baseHash": damaged["hash"]}));
    assert!(g.state_dir().join("exec-approvals.json.damaged").exists());
}

#[test]
fn a_nodes_document_is_relayed() {
    let g = Setup::new().start();
    let mut operator = g.operator(EVERYTHING);
    let (id, mut node) = node(&g, &mut operator);
    let relayed = |node: &mut Client, operator: &mut Client, method: &str, params: Value, answer: &str| {
        let request = operator.send(method, params);
        let asked = node.event("node.invoke.request")["payload"].clone();
        let result = json!({"id": asked["id"], "nodeId": asked["nodeId"], "ok": true, "payloadJSON": answer});
        node.ok("node.invoke.result", result);
        let sent: Value = serde_json::from_str(asked["paramsJSON"].as_str().expect("text")).expect("JSON");
        (asked["command"].clone(), sent, operator.answer(&request).expect("open"))
    };
    let snapshot = json!({"path": "~/.openclaw/x", "exists": true, "hash": "h", "file": {"version": 1, "agents": {}}});
    let get = json!({ "nodeId": id });
    let (command, sent, answer) =
        relayed(&mut node, &mut operator, "exec.approvals.node.get", get.clone(), &snapshot.to_string());
    assert_eq!((command, sent, answer), (json!("system.execApprovals.get"), json!({}), Ok(snapshot.clone())));
    let set = json!({"nodeId": id, "file": {"version": 1, "future": [1]}, "baseHash": "h"});
    let (command, sent, answer) =
        relayed(&mut node, &mut operator, "exec.approvals.node.set", set, &snapshot.to_string());
    assert_eq!(command, "system.execApprovals.set");
    assert_eq!((sent, answer), (json!({"file": {"version": 1, "future": [1]}, "baseHash": "h"}), Ok(snapshot)));
    let native = json!({"nodeId": id, "native": {"rules": []}, "baseHash": "h"});
    let (_, sent, _) = relayed(&mut node, &mut operator, "exec.approvals.node.set", native, "{}");
    assert_eq!(sent, json!({"rules": [], "baseHash": "h"}));
    let (_, _, answer) = relayed(&mut node, &mut operator, "exec.approvals.node.get", get, "[1]");
    assert_eq!(answer.expect_err("refused")["message"], "node returned invalid exec approvals payload");
    for params in [json!({"nodeId": id}), json!({"nodeId": id, "native": {"rules": []}}), json!({"nodeId": " "})] {
        operator.err("exec.approvals.node.set", params);
    }
    // Not by the side door, and not where it was not approved.
    let side = json!({"nodeId": id, "command": "system.execApprovals.set", "idempotencyKey": "s", "params": {}});
    assert!(operator.err("node.invoke", side)["message"].as_str().is_some_and(|m| m.contains("exec.approvals.node.*")));
    let key = new_device();
    let _phone = g
        .with_token()
        .node()
        .device(&key)
        .set("/client/platform", "linux")
        .set("/client/deviceFamily", "Linux")
        .set("/commands", json!(["system.which"]))
        .hello();
    let request = operator.event("node.pair.requested")["payload"]["requestId"].clone();
    operator.ok("node.pair.approve", json!({ "requestId": request }));
    let refused = operator.err("exec.approvals.node.get", json!({"nodeId": key.id().to_string()}));
    assert_eq!(
        (&refused["message"], &refused["details"]["reason"]),
        (
            &json!("node command not allowed: system.execApprovals.get (command not declared by node)"),
            &json!("command not declared by node")
        )
    );
    drop(node);
    lab::wire::wait_for("the node to be gone", || {
        let error = operator.err("exec.approvals.node.get", json!({"nodeId": id}));
        (error["message"] == "node not connected").then_some(())
    });
}
