//! Who may call what: every advertised method by every kind of caller, against the published table.

use std::collections::BTreeMap;

use lab::{client::Client, sandbox::Setup};
use serde_json::json;

/// The published scope of each method, and what this gateway says about the ones whose scope depends on the call.
fn declared_scopes() -> BTreeMap<String, String> {
    let published: BTreeMap<String, Vec<String>> =
        serde_json::from_str(include_str!("../../fixtures/method-scopes.json")).expect("JSON");
    let mut table = BTreeMap::new();
    for (scope, methods) in published.into_iter().filter(|(scope, _)| scope != "dynamic") {
        table.extend(methods.into_iter().map(|method| (method, scope.clone())));
    }
    // Open to every authenticated connection of any role (handshake notes, section 2).
    table.insert("health".into(), "any".into());
    // Dynamic: write, and admin for some commands.
    table.insert("node.invoke".into(), "operator.write".into());
    // Dynamic: write, and admin for some parameters.
    for method in ["agent", "sessions.create", "sessions.delete", "sessions.patch", "sessions.patchMany"] {
        table.insert(method.into(), "operator.write".into());
    }
    // Dynamic: pairing, and admin to make an owner.
    table.insert("channels.pairing.approve".into(), "operator.pairing".into());
    // Ours.
    table.insert("device.pair.invite".into(), "operator.admin".into());
    table.insert("events.resume".into(), "any".into());
    // The list names its sibling alone.
    table.insert("sessions.unsubscribe".into(), "operator.read".into());
    table.insert("sessions.export".into(), "operator.admin".into());
    table.insert("sessions.import".into(), "operator.admin".into());
    // Protocol 3 only.
    table.insert("node.pair.request".into(), "operator.pairing".into());
    table.insert("node.pair.verify".into(), "operator.pairing".into());
    table
}

#[test]
fn p_49_scope_matrix() {
    let g = Setup::new().start();
    let table = declared_scopes();
    let scopes = ["read", "write", "approvals", "pairing", "questions", "talk", "admin"];
    let mut principals: Vec<(String, Client)> = vec![("none".into(), g.operator(&[]))];
    for scope in scopes {
        let name = format!("operator.{scope}");
        principals.push((name.clone(), g.paired(&[&name]).hello()));
        let v3 = g.with_token().protocol(3, 3).scopes(&[&name]).hello();
        principals.push((format!("{name} (v3)"), v3));
    }
    principals.push(("node".into(), g.node(&["system.which"]).1));
    let methods = principals[0].1.methods();
    assert!(methods.len() >= 20, "{methods:?}");
    for (_, client) in &principals {
        assert_eq!(client.methods(), methods, "everybody is told the same list");
    }
    // Answered without being named.
    let quiet = ["device.pair.setupCode", "device.pair.setupStatus"];
    assert!(quiet.iter().all(|method| !methods.iter().any(|named| named == method)), "{methods:?}");
    let unknown = ["no.such.method", "config.set ", "HEALTH", ""];
    for method in methods.iter().map(String::as_str).chain(quiet).chain(unknown) {
        for (who, client) in &mut principals {
            let holds = who.trim_end_matches(" (v3)");
            // A call in the right role in between: wrong ones in a row end a connection.
            client.ok("health", json!({}));
            // Without parameters; a method that does something on an empty object is asked for nonsense instead.
            let outcome = client.call(
                method,
                json!({"enabled": "x", "raw": 7, "requestId": 7, "deviceId": 7, "nodeId": 7, "triggers": 7}),
            );
            let got = match &outcome {
                Err(error) if error["message"].as_str().is_some_and(|text| text.starts_with("unknown method: ")) => {
                    "unknown".into()
                }
                Err(error)
                    if error["message"].as_str().is_some_and(|text| text.starts_with("invalid request frame")) =>
                {
                    "unknown".into()
                }
                Err(error) => match error["message"].as_str().unwrap_or("").split_once("missing scope: ") {
                    Some((_, scope)) => format!("needs {scope}"),
                    None if error["message"].as_str().is_some_and(|text| text.starts_with("unauthorized role")) => {
                        "wrong role".into()
                    }
                    None => "allowed".to_owned(),
                },
                Ok(_) => "allowed".to_owned(),
            };
            let expected = match table.get(method).map(String::as_str) {
                None => "unknown".to_owned(),
                Some("any") => "allowed".into(),
                Some("node") => {
                    if holds == "node" {
                        "allowed".into()
                    } else {
                        "wrong role".into()
                    }
                }
                Some(_) if holds == "node" => "wrong role".into(),
                Some(scope) if grants(holds, scope) => "allowed".into(),
                Some(scope) => format!("needs {scope}"),
            };
            assert_eq!(got, expected, "{method} by {who}: {outcome:?}");
        }
    }
    for method in &methods {
        assert!(table.contains_key(method), "{method} is not in the published table");
    }
}

/// Admin implies everything, write implies read and talk, nothing else implies anything (handshake notes, section 8).
fn grants(holds: &str, scope: &str) -> bool {
    holds == scope
        || holds == "operator.admin"
        || (holds == "operator.write" && ["operator.read", "operator.talk"].contains(&scope))
}
