//! After the connect: hello shapes, sequence numbers, events, errors, order.

use lab::{
    client::{Client, Outcome, new_device, now_ms},
    sandbox::Setup,
    wire::{Conn, Frame, frame},
};
use rustix::process::Signal;
use serde_json::json;

#[test]
fn hello_shapes_per_version() {
    let g = Setup::new().start();
    for (protocol, scopes) in [
        (3, &["operator.write", "operator.admin"][..]),
        (3, &["operator.read"]),
        (4, &["operator.write", "operator.admin"]),
        (4, &["operator.read"]),
    ] {
        let key = new_device();
        let client = g.with_token().protocol(protocol, protocol).scopes(scopes).device(&key).hello();
        let hello = &client.hello;
        let context = format!("protocol {protocol} with {scopes:?}: {hello}");
        for path in [
            "/type",
            "/protocol",
            "/server/version",
            "/server/connId",
            "/features/methods",
            "/features/events",
            "/snapshot/presence",
            "/snapshot/health",
            "/snapshot/stateVersion/presence",
            "/snapshot/stateVersion/health",
            "/snapshot/uptimeMs",
            "/snapshot/sessionDefaults/defaultAgentId",
            "/snapshot/sessionDefaults/mainKey",
            "/snapshot/sessionDefaults/mainSessionKey",
            "/snapshot/sessionDefaults/scope",
            "/auth/role",
            "/auth/scopes",
            "/auth/deviceToken",
            "/auth/issuedAtMs",
            "/policy/maxPayload",
            "/policy/maxBufferedBytes",
            "/policy/tickIntervalMs",
        ] {
            assert!(hello.pointer(path).is_some_and(|value| !value.is_null()), "{path} is missing in {context}");
        }
        assert_eq!(hello["protocol"], protocol);
        assert_eq!(
            hello["policy"],
            json!({"maxPayload": 26_214_400, "maxBufferedBytes": hello["policy"]["maxBufferedBytes"], "tickIntervalMs": 30_000})
        );
        let mut sorted = scopes.to_vec();
        sorted.sort_unstable();
        let order: Vec<&str> = if protocol == 3 { sorted } else { scopes.to_vec() };
        assert_eq!(client.scopes(), order, "as requested in 4, sorted in 3");
        assert_eq!(hello["auth"].get("method").is_some(), protocol == 4, "{context}");
        let admin = scopes.contains(&"operator.admin");
        for path in ["/snapshot/configPath", "/snapshot/stateDir", "/snapshot/authMode"] {
            assert_eq!(hello.pointer(path).is_some(), admin, "{path} in {context}");
        }
        let presence = hello["snapshot"]["presence"].as_array().expect("a list");
        assert_eq!((&presence[0]["mode"], &presence[0]["reason"]), (&json!("gateway"), &json!("self")));
        assert_eq!(hello["snapshot"]["health"]["ok"], true);
        assert_eq!(client.device_token().len(), 43);
    }
    // What a node is told.
    let (_, node) = g.node(&["system.which"]);
    assert_eq!(node.hello["auth"]["role"], "node");
    assert_eq!(node.hello["auth"]["scopes"], json!([]));
    // Every connection is one of its own, and every start of the gateway too.
    let (one, two) = (g.operator(&[]), g.operator(&[]));
    assert_ne!(one.hello["server"]["connId"], two.hello["server"]["connId"]);
    assert_eq!(one.hello["server"]["bootId"], two.hello["server"]["bootId"]);
    assert!(one.hello["auth"].get("deviceToken").is_none(), "no device, no token");
}

#[test]
fn sequence_numbers_per_version() {
    let g = Setup::new().start();
    let mut admin = g.admin();
    // Some events before anybody else listens.
    for _ in 0..5 {
        admin.ok("set-heartbeats", json!({"enabled": true}));
    }
    let mut four = g.operator(&["operator.read"]);
    let mut three = g.with_token().protocol(3, 3).hello();
    let mut deaf = g.operator(&[]);
    for _ in 0..5 {
        admin.ok("set-heartbeats", json!({"enabled": true}));
        // Presence needs the read scope: one of these listeners does not hear it.
        g.with_token().client("test", "test").hello();
    }
    for client in [&mut four, &mut three, &mut deaf] {
        client.ok("health", json!({}));
    }
    let numbers = |client: &Client| -> Vec<u64> {
        let broadcast = client.events.iter().filter(|event| event["event"] != "connect.challenge");
        broadcast.map(|event| event["seq"].as_u64().unwrap_or_else(|| panic!("no seq: {event}"))).collect()
    };
    let (four_seq, three_seq, deaf_seq) = (numbers(&four), numbers(&three), numbers(&deaf));
    assert!(four_seq.len() >= 10, "five health and five presence events at least: {four_seq:?}");
    assert_eq!(four_seq, (1..=four_seq.len() as u64).collect::<Vec<_>>(), "per connection from 1");
    assert_eq!(deaf_seq, (1..=deaf_seq.len() as u64).collect::<Vec<_>>(), "filtered events consume no number");
    assert!(deaf_seq.len() < four_seq.len());
    assert!(three_seq[0] > 5, "one counter for all: {three_seq:?}");
    assert!(three_seq.windows(2).all(|pair| pair[0] < pair[1]), "{three_seq:?}");
    // State versions only grow, and start from the snapshot of the hello.
    for (client, name, counter) in [(&four, "presence", "presence"), (&four, "health", "health")] {
        let mut last = client.hello["snapshot"]["stateVersion"][counter].as_u64().expect("a version");
        for event in client.events.iter().filter(|event| event["event"] == name) {
            let version = event["stateVersion"][counter].as_u64().expect("a version");
            assert!(version > last, "{name}: {version} after {last}");
            last = version;
        }
    }
}

#[test]
fn events_after_the_hello() {
    let mut g = Setup::new().start();
    let mut clients = [g.operator(&["operator.read"]), g.with_token().protocol(3, 3).hello(), g.node(&[]).1];
    g.with_token().client("test", "test").set("/client/displayName", "box").hello();
    loop {
        let presence = clients[0].event("presence");
        let entries = presence["payload"]["presence"].as_array().expect("a list");
        if entries.iter().any(|entry| entry["host"] == "box" && entry["reason"] == "connect") {
            break;
        }
    }
    let mut admin = g.admin();
    admin.ok("set-heartbeats", json!({"enabled": false}));
    for client in &mut clients {
        let health = client.event("health");
        assert_eq!(
            (&health["payload"]["ok"], &health["payload"]["agents"][0]["heartbeat"]["enabled"]),
            (&json!(true), &json!(false))
        );
        assert!(health["stateVersion"]["health"].is_u64(), "{health}");
    }
    let began = now_ms();
    for client in &mut clients {
        let tick = client.event("tick");
        assert!(tick["payload"]["ts"].as_i64().is_some_and(|ts| (ts - now_ms()).abs() < 5_000), "{tick}");
        assert!(tick["seq"].is_u64(), "{tick}");
    }
    assert!(now_ms() - began <= 31_000, "every 30 s");
    g.signal(Signal::TERM);
    for client in &mut clients {
        let shutdown = client.event("shutdown");
        assert_eq!(shutdown["payload"], json!({"reason": "gateway stopping"}));
        assert_eq!(client.closing(), Some((1012, "service restart".into())));
    }
    assert_eq!(g.wait().code(), Some(0));
}

#[test]
fn error_shapes_per_version() {
    let g = Setup::new().start();
    let mut four = g.operator(&[]);
    let mut three = g.with_token().protocol(3, 3).scopes(&[]).hello();
    assert_eq!(
        four.err("status", json!({})),
        json!({
            "code": "FORBIDDEN", "message": "missing scope: operator.read",
            "details": {"code": "MISSING_SCOPE", "missingScope": "operator.read", "requiredScopes": ["operator.read"]},
        })
    );
    assert_eq!(
        three.err("status", json!({})),
        json!({"code": "INVALID_REQUEST", "message": "missing scope: operator.read"})
    );
    for client in [&mut four, &mut three] {
        assert_eq!(
            client.err("nope", json!({})),
            json!({"code": "INVALID_REQUEST", "message": "unknown method: nope"})
        );
        // A broken frame is answered and the socket stays open.
        client.conn.send_text(r#"{"type":"req","id":"7"}"#);
        let error = client.answer("7").expect("an answer").expect_err("refused");
        assert!(error["message"].as_str().is_some_and(|text| text.starts_with("invalid request frame:")), "{error}");
        client.conn.send_text(r#"[1,2]"#);
        let error = client.answer("invalid").expect("an answer").expect_err("refused");
        assert_eq!(error["code"], "INVALID_REQUEST");
        // What is not JSON is ignored.
        client.conn.send_text("{nope");
        client.ok("health", json!({}));
    }
    let mut admin = g.admin();
    let error = admin.err("device.pair.approve", json!({}));
    assert_eq!(error["message"], "invalid device.pair.approve params: must have required property 'requestId'");
    // Parameters may be absent altogether.
    admin.conn.send_text(r#"{"type":"req","id":"bare","method":"health"}"#);
    admin.answer("bare").expect("an answer").expect("health");
    // Ten wrong roles are answered; the next one ends the connection.
    let (_, mut node) = g.node(&[]);
    for _ in 0..10 {
        assert_eq!(node.err("status", json!({}))["message"], "unauthorized role: node");
    }
    let id = node.send("status", json!({}));
    assert!(node.answer(&id).is_some_and(|answer| answer.is_err()));
    assert_eq!(node.closing(), Some((1008, "repeated unauthorized calls".into())));
}

#[test]
fn frames_behind_the_connect_wait_for_the_hello() {
    let g = Setup::new().start();
    let health = r#"{"type":"req","id":"early","method":"health"}"#;
    let pipelined = |count: usize| {
        let mut opened = g.with_token().open().expect("101");
        let request = opened.request();
        let mut bytes = frame(0x81, request.as_bytes());
        bytes.extend(frame(0x81, health.as_bytes()).repeat(count));
        opened.conn.send(&bytes);
        opened.outcome()
    };
    let Outcome::Hello(mut client) = pipelined(10) else { panic!("no hello") };
    for _ in 0..10 {
        client.answer("early").expect("an answer").expect("health");
    }
    // A browser that speaks before it is spoken to: the frame travels with the upgrade itself.
    let mut conn = Conn::open(&g.address());
    let head = format!(
        "GET / HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: 13eee9DHMIOHW+3mhsLdoQ==\r\n\r\n",
        g.port
    );
    let params = g.with_token().params;
    let connect = json!({"type": "req", "id": "c1", "method": "connect", "params": params}).to_string();
    conn.send(&[head.as_bytes(), &frame(0x81, connect.as_bytes())].concat());
    assert_eq!(conn.reply(false).map(|reply| reply.status), Some(101));
    assert!(matches!(conn.message(), Frame::Text(text) if text.contains("connect.challenge")));
    assert!(matches!(conn.message(), Frame::Text(text) if text.contains("hello-ok")));
}
