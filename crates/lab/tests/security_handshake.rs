//! Handshake: P-21 to P-31.

use std::time::{Duration, Instant};

use lab::{
    client::{Login, Outcome, Proof, new_device, now_ms, prove},
    sandbox::{Bystander, Sandbox, Setup, raise_file_limit},
    wire::{Address, Conn, Frame, frame},
};
use openclaw_protocol::{connect::CLIENT_IDS, limits};
use serde_json::{Value, json};

const ADMIN: &[&str] = &["operator.admin"];

/// An upgraded socket after its challenge.
fn challenged(address: &Address) -> Conn {
    let mut conn = Conn::open(address);
    conn.upgrade(&[]).expect("101");
    assert!(matches!(conn.message(), Frame::Text(text) if text.contains("connect.challenge")));
    conn
}

#[test]
fn p_21_first_frame() {
    let g = Setup::new().start();
    let text = |text: &str| frame(0x81, text.as_bytes());
    let cases: Vec<(&str, Vec<u8>, &[u16])> = vec![
        ("another request", text(r#"{"type":"req","id":"1","method":"health"}"#), &[1008]),
        ("connect without params", text(r#"{"type":"req","id":"1","method":"connect"}"#), &[1008]),
        ("an event", text(r#"{"type":"event","event":"tick","payload":{}}"#), &[1008]),
        ("a response", text(r#"{"type":"res","id":"1","ok":true,"payload":{}}"#), &[1008]),
        ("an array", text("[]"), &[1008]),
        ("an array of a request", text(r#"["req","1","connect",{}]"#), &[1008]),
        ("a number", text("7"), &[1008]),
        ("null", text("null"), &[1008]),
        ("garbage", text("{nope"), &[1000, 1008]),
        ("nothing", text(""), &[1000, 1008]),
        ("binary", frame(0x82, br#"{"type":"req","id":"1","method":"connect","params":{}}"#), &[1003, 1007, 1008]),
        ("invalid UTF-8", frame(0x81, &[b'{', 0xff, 0xfe, b'}']), &[1007]),
    ];
    for (name, bytes, codes) in &cases {
        let mut conn = challenged(&g.address());
        conn.send(bytes);
        let (code, _) = conn.closing().unwrap_or_else(|| panic!("{name}: no close frame"));
        assert!(codes.contains(&code), "{name}: closed with {code}");
    }
    // A crowd of them is not a crowd of log lines.
    for _ in 0..200 {
        let mut conn = challenged(&g.address());
        conn.send(&cases[0].1);
        assert_eq!(conn.closing().map(|(code, _)| code), Some(1008));
    }
    let lines = g.log().lines().count();
    assert!(lines < 150, "{lines} log lines");
}

#[test]
fn p_22_size_before_authentication() {
    let g = Setup::new().start();
    let limit = limits::PREAUTH_FRAME_BYTES;
    // A connect request of exactly so many bytes; what fills it up is a field nobody knows.
    let sized = |size: usize| {
        let request = |fill: usize| {
            let mut params = g.with_token().params;
            params["filler"] = json!("x".repeat(fill));
            json!({"type": "req", "id": "c1", "method": "connect", "params": params}).to_string()
        };
        let text = request(size - request(0).len());
        assert_eq!(text.len(), size);
        text
    };
    for size in [limit - 1, limit] {
        let mut conn = challenged(&g.address());
        conn.send_text(&sized(size));
        assert!(matches!(conn.message(), Frame::Text(text) if text.contains("hello-ok")), "{size} bytes");
    }
    let mut conn = challenged(&g.address());
    conn.send_text(&sized(limit + 1));
    assert_eq!(conn.closing().map(|(code, _)| code), Some(1009));
    // The header alone decides; nothing is reserved for what it promises.
    for promised in [(1_u64 << 63) - 1, u64::MAX, 1 << 32, 65_537] {
        let mut conn = challenged(&g.address());
        let mut header = vec![0x81, 0xff];
        header.extend_from_slice(&promised.to_be_bytes());
        header.extend_from_slice(&[0; 4]);
        conn.send(&header);
        let code = conn.closing().map(|(code, _)| code);
        assert!([Some(1009), Some(1002)].contains(&code), "{promised}: {code:?}");
    }
    let mut conn = challenged(&g.address());
    conn.send(&[frame(0x01, &[b' '; 40_000]), frame(0x00, &[b' '; 20_000]), frame(0x80, &[b' '; 40_000])].concat());
    assert_eq!(conn.closing().map(|(code, _)| code), Some(1009));
    assert!(g.peak_growth_kib() < 16 * 1024, "{} KiB", g.peak_growth_kib());
}

#[test]
fn p_23_idle_and_dripping() {
    let g = Setup::new().start();
    let opened = Instant::now();
    let silent_tcp = Conn::open(&g.address());
    let silent = challenged(&g.address());
    let drip = challenged(&g.address());
    let ping = challenged(&g.address());
    let mut head = Conn::open(&g.address());
    head.send(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ");
    let watch = |mut conn: Conn, mut feed: Option<Box<dyn FnMut() -> Vec<u8> + Send>>| {
        std::thread::spawn(move || {
            let mut sink = Vec::new();
            loop {
                // One byte, one ping, or nothing per second.
                if let Some(feed) = &mut feed
                    && conn.try_send(&feed()).is_err()
                {
                    return (opened.elapsed(), sink);
                }
                let next = Instant::now() + Duration::from_secs(1);
                while let Some(left) = next.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
                    conn.set_patience(left);
                    if conn.read_available(&mut sink) == Some(0) {
                        return (opened.elapsed(), sink);
                    }
                }
                assert!(opened.elapsed() < Duration::from_secs(20), "still open");
            }
        })
    };
    let mut text = frame(0x81, &[b' '; 4_000]).into_iter();
    let watched = [
        ("a silent TCP connection", watch(silent_tcp, None)),
        ("a silent WebSocket", watch(silent, None)),
        ("one byte per second", watch(drip, Some(Box::new(move || vec![text.next().expect("enough")])))),
        ("pings", watch(ping, Some(Box::new(|| frame(0x89, b""))))),
        ("one header byte per second", watch(head, Some(Box::new(|| b"a".to_vec())))),
    ];
    for (name, thread) in watched {
        let (lasted, received) = thread.join().expect("watched");
        // 15 s since accept, and the close handshake's second.
        assert!(lasted <= Duration::from_millis(16_500), "{name} lasted {lasted:?}");
        if name.contains("WebSocket") || name == "pings" {
            assert!(lasted >= Duration::from_secs(14), "{name} lasted only {lasted:?}");
            assert!(received.windows(4).any(|bytes| bytes == [0x88, 2, 0x03, 0xe8]), "{name}: no close 1000");
        }
    }
}

#[test]
fn p_24_socket_flood() {
    raise_file_limit(8_192);
    let g = Setup::new().start();
    let bystander = Bystander::start(&g);
    // Five hundred from one address, silent after the upgrade or before it.
    let crowd: Vec<Conn> = (0..500)
        .map(|n| {
            let mut conn = Conn::open(&g.address());
            if n % 2 == 0 {
                let _ = conn.try_send(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\n");
            }
            conn
        })
        .collect();
    assert_login_within(&g, Duration::from_secs(2));
    let refused = crowd.into_iter().filter(|conn| conn.is_over()).count();
    assert!(refused >= 500 - 40, "about 32 of 500 may wait, {} were turned away", refused);
    // Two thousand from many addresses.
    let mut crowd: Vec<Conn> = Vec::new();
    for n in 0..2_000_usize {
        let source = g.address_from(u8::try_from(10 + n % 80).expect("fits"));
        crowd.extend(Conn::try_open(&source));
    }
    assert_login_within(&g, Duration::from_secs(2));
    let waiting = crowd.iter().filter(|conn| !conn.is_over()).count();
    assert!(waiting <= 512, "{waiting} strangers hold sockets");
    drop(crowd);
    bystander.finish();
    assert!(g.peak_growth_kib() < 64 * 1024, "{} KiB", g.peak_growth_kib());
}

/// A fresh login succeeds within this time; being turned away (503) and trying again is part of it.
#[track_caller]
fn assert_login_within(g: &Sandbox, limit: Duration) {
    let began = Instant::now();
    loop {
        match g.with_token().attempt_if_open() {
            Some(Outcome::Hello(_)) => break,
            Some(Outcome::Refused(refused)) => panic!("{refused:?}"),
            Some(Outcome::Http(_)) | None => {}
        }
        assert!(began.elapsed() < limit, "no login for {:?}", began.elapsed());
    }
    assert!(began.elapsed() < limit, "{:?}", began.elapsed());
}

#[test]
fn p_25_device_proof_matrix() {
    let g = Setup::new().start();
    let (key, other) = (new_device(), new_device());
    let login = || g.with_token().device(&key);
    let old_nonce = login().open().expect("101").nonce;
    let open_elsewhere = login().open().expect("101");
    let bad_signature = "DEVICE_AUTH_SIGNATURE_INVALID";
    let cases: Vec<(&str, Login, &str)> = vec![
        ("nonce blank", login().nonce(" "), "DEVICE_AUTH_NONCE_REQUIRED"),
        ("nonce empty", login().nonce(""), "DEVICE_AUTH_NONCE_REQUIRED"),
        ("nonce old", login().nonce(&old_nonce), "DEVICE_AUTH_NONCE_MISMATCH"),
        ("nonce from another socket", login().nonce(&open_elsewhere.nonce), "DEVICE_AUTH_NONCE_MISMATCH"),
        ("nonce made up", login().nonce("abc"), "DEVICE_AUTH_NONCE_MISMATCH"),
        ("10 min behind", login().signed_at(now_ms() - 600_000), "DEVICE_AUTH_SIGNATURE_EXPIRED"),
        ("10 min ahead", login().signed_at(now_ms() + 600_000), "DEVICE_AUTH_SIGNATURE_EXPIRED"),
        ("1969", login().signed_at(-1), "DEVICE_AUTH_SIGNATURE_EXPIRED"),
        ("the first time", login().signed_at(i64::MIN), "DEVICE_AUTH_SIGNATURE_EXPIRED"),
        ("the last time", login().signed_at(i64::MAX), "DEVICE_AUTH_SIGNATURE_EXPIRED"),
        ("no nonce signed (v1)", login().proof(Proof::V1), bad_signature),
        (
            "device id of another key",
            login().after_signing({
                let id = other.id().to_string();
                move |params| params["device"]["id"] = json!(id)
            }),
            "DEVICE_AUTH_DEVICE_ID_MISMATCH",
        ),
        (
            "key of another device",
            login().after_signing({
                let wire = other.public().to_wire();
                move |params| params["device"]["publicKey"] = json!(wire)
            }),
            "DEVICE_AUTH_DEVICE_ID_MISMATCH",
        ),
        (
            "no key",
            login().after_signing(|params| params["device"]["publicKey"] = json!("!!!")),
            "DEVICE_AUTH_DEVICE_ID_MISMATCH",
        ),
        (
            "time after signing",
            login().after_signing(|params| {
                params["device"]["signedAt"] = json!(params["device"]["signedAt"].as_i64().expect("ms") + 1);
            }),
            bad_signature,
        ),
    ];
    for (name, case, code) in cases {
        let refused = case.refused();
        assert_eq!(refused.code(), code, "{name}: {}", refused.error);
        assert_eq!(refused.close.expect("a close frame").0, 1008, "{name}");
    }
    // Signed by somebody else, over the right words.
    let mut opened = g.with_token().open().expect("101");
    let mut params = g.with_token().params;
    prove(&mut params, &other, Proof::V3, &opened.nonce, now_ms());
    let stolen = params["device"]["signature"].clone();
    prove(&mut params, &key, Proof::V3, &opened.nonce, now_ms());
    params["device"]["signature"] = stolen;
    opened.conn.send_text(&json!({"type":"req","id":"c1","method":"connect","params":params}).to_string());
    match opened.outcome() {
        Outcome::Refused(refused) => assert_eq!(refused.code(), bad_signature),
        other => panic!("{other:?}"),
    }
    // A whole request, replayed on another socket.
    let mut recorded = login().open().expect("101");
    let request = recorded.request();
    let mut opened = login().open().expect("101");
    opened.conn.send_text(&request);
    match opened.outcome() {
        Outcome::Refused(refused) => assert_eq!(refused.code(), "DEVICE_AUTH_NONCE_MISMATCH"),
        other => panic!("{other:?}"),
    }
    // Fields of the wrong type are no device either.
    for field in ["id", "publicKey", "signature", "signedAt", "nonce"] {
        for wrong in [Value::Null, json!([]), json!({"a": 1}), json!(1.5)] {
            let case = login().after_signing(move |params| params["device"][field] = wrong);
            assert_eq!(case.word(), "INVALID_REQUEST", "{field}");
        }
    }
    assert_eq!(login().word(), "hello [operator.read]");
    assert_eq!(login().proof(Proof::V2).signed_at(now_ms() - 115_000).word(), "hello [operator.read]");
}

#[test]
fn p_26_signature_transplant() {
    let g = Setup::new().start();
    let key = new_device();
    let token = g.token().to_owned();
    type Bend = Box<dyn FnOnce(&mut Value)>;
    let bends: Vec<(&str, Bend)> = vec![
        ("role", Box::new(|params| params["role"] = json!("node"))),
        ("more scopes", Box::new(|params| params["scopes"] = json!(["operator.read", "operator.admin"]))),
        ("other scopes", Box::new(|params| params["scopes"] = json!(["operator.admin"]))),
        ("fewer scopes", Box::new(|params| params["scopes"] = json!([]))),
        ("client id", Box::new(|params| params["client"]["id"] = json!("gateway-client"))),
        ("client mode", Box::new(|params| params["client"]["mode"] = json!("backend"))),
        ("platform", Box::new(|params| params["client"]["platform"] = json!("windows"))),
        ("family", Box::new(|params| params["client"]["deviceFamily"] = json!("Mac"))),
        ("token", Box::new(move |params| params["auth"] = json!({"token": token}))),
        ("no token", Box::new(|params| params["auth"] = json!({"password": "x"}))),
    ];
    for (name, bend) in bends {
        let signed = g.login().token(if name == "token" { "another" } else { g.token() });
        let refused = signed.device(&key).after_signing(bend).refused();
        assert_eq!(refused.code(), "DEVICE_AUTH_SIGNATURE_INVALID", "{name}: {}", refused.error);
    }
    assert_eq!(g.admin().ok("device.pair.list", json!({})), json!({"pending": [], "paired": []}));
}

#[test]
fn p_27_present_but_invalid() {
    let g = Setup::new().start();
    let key = new_device();
    for garbage in ["", "x", "AAAA", &"A".repeat(86), &"A".repeat(10_000), "\u{0}", "====="] {
        let garbage = garbage.to_owned();
        let name = garbage.clone();
        let case = g.with_token().scopes(ADMIN).device(&key).after_signing(move |params| {
            params["device"]["signature"] = json!(garbage);
        });
        assert_eq!(case.word(), "DEVICE_AUTH_SIGNATURE_INVALID", "signature {name:.20}");
    }
    for device in [json!({}), json!([]), json!("x"), json!(true), json!({"id": key.id().to_string()})] {
        assert_eq!(g.with_token().set("/device", device.clone()).word(), "INVALID_REQUEST", "{device}");
    }
    // A bogus device token beside T is worth nothing, and takes nothing from T.
    for garbage in ["nope", "\u{1}", &"A".repeat(43), &"A".repeat(5_000)] {
        let from_afar = g.with_token().header("Origin", "http://localhost").device_token(garbage);
        assert_ne!(from_afar.scopes(ADMIN).word(), "hello [operator.admin]");
        let unsigned = g.login().device_token(garbage).scopes(ADMIN);
        assert_eq!(unsigned.word(), "DEVICE_IDENTITY_REQUIRED", "a device token without a device proves nothing");
        let with_t = g.with_token().device_token(garbage).device(&key).hello();
        assert_eq!(with_t.hello["auth"]["method"], "token");
        assert_eq!(with_t.scopes(), ["operator.read"]);
        let with_t = g.with_token().device_token(garbage).hello();
        assert!(with_t.hello["auth"].get("deviceToken").is_none(), "no device, no device token");
    }
}

#[test]
fn p_28_self_chosen_id() {
    let g = Setup::new().behind_proxy().start();
    let browsers = ["webchat-ui", "openclaw-control-ui", "openclaw-browser-copilot", "webchat"];
    for id in CLIENT_IDS.iter().filter(|id| **id != "openclaw-worker") {
        for mode in ["cli", "backend", "probe", "ui", "test"] {
            let direct = g.with_token().client(id, mode).scopes(ADMIN).word();
            let remote = g.through_proxy("198.51.100.7").token(g.token()).client(id, mode).scopes(ADMIN).word();
            if browsers.contains(id) {
                // A page has an Origin; something that only says it is a page is refused like a page without one.
                assert_eq!(
                    (direct.as_str(), remote.as_str()),
                    ("CONTROL_UI_ORIGIN_NOT_ALLOWED", "CONTROL_UI_ORIGIN_NOT_ALLOWED")
                );
            } else {
                assert_eq!((direct.as_str(), remote.as_str()), ("hello [operator.admin]", "hello []"), "{id}/{mode}");
            }
        }
    }
    for id in ["acme", "", "CLI", " cli", "cli\u{0}", "\u{1b}[31m", &"x".repeat(10_000)] {
        assert_eq!(g.with_token().client(id, "cli").scopes(ADMIN).word(), "INVALID_REQUEST", "{id:.20}");
    }
    for id in [json!(null), json!(1), json!(["cli"]), json!({})] {
        assert_eq!(g.with_token().set("/client/id", id.clone()).word(), "INVALID_REQUEST", "{id}");
    }
}

#[test]
fn p_29_role_and_provenance() {
    let g = Setup::new().start();
    for role in ["system", "gateway", "admin", "owner", "OPERATOR", "operator ", "node\u{0}", ""] {
        let refused = g.with_token().scopes(ADMIN).set("/role", role).refused();
        assert_eq!((refused.code(), refused.message()), ("INVALID_REQUEST", "invalid role"), "{role:?}");
    }
    for role in [json!(["operator"]), json!({"operator": true}), json!(1), json!(true)] {
        assert_eq!(g.with_token().set("/role", role.clone()).word(), "INVALID_REQUEST", "{role}");
    }
    // What a caller says of itself beside the known fields is not believed and not shown to others.
    let mut watcher = g.operator(&["operator.read"]);
    let liar = g.with_token().client("test", "test").scopes(&["operator.read"]);
    let liar = liar.set("/client/user", json!({"id": "gateway-owner", "name": "liar-mark"}));
    let liar =
        liar.set("/user", json!({"id": "gateway-owner", "name": "liar-mark"})).set("/scopesGranted", json!(ADMIN));
    let liar = liar.set("/client/roles", json!(["gateway"])).set("/client/deviceId", "f".repeat(64));
    let mut liar = liar.set("/auth/scopes", json!(ADMIN)).set("/senderIsOwner", true).hello();
    assert_eq!(liar.scopes(), ["operator.read"]);
    let presence = watcher.event("presence").to_string();
    assert!(presence.contains(r#""scopes":["operator.read"]"#), "{presence}");
    assert!(!presence.contains("liar-mark") && !presence.contains(&"f".repeat(64)), "{presence}");
    // Frames of nodes and of gateways mean nothing from an operator.
    let error = liar.err("node.invoke.result", json!({"id": "x", "nodeId": "y", "ok": true}));
    assert_eq!(error["message"], "unauthorized role: operator");
    liar.conn.send_text(r#"{"type":"event","event":"shutdown","payload":{"reason":"liar-mark"},"seq":1}"#);
    liar.conn.send_text(r#"{"type":"res","id":"q1","ok":true,"payload":{"reason":"liar-mark"}}"#);
    let forged = r#"{"type":"req","id":"p","method":"system-event","params":{"text":"x"},"scopes":["operator.admin"],"recipientProfileId":"owner"}"#;
    liar.conn.send_text(forged);
    let refused = liar.answer("p").expect("an answer").expect_err("no admin");
    assert_eq!(refused["message"], "missing scope: operator.admin");
    watcher.ok("health", json!({}));
    assert!(!format!("{:?}", watcher.events).contains("liar-mark"));
}

#[test]
fn p_30_second_connect() {
    let g = Setup::new().start();
    let mut client = g.operator(&["operator.read"]);
    let more = g.with_token().scopes(ADMIN).params;
    let error = client.err("connect", more.clone());
    assert_eq!(error["code"], "INVALID_REQUEST");
    assert_eq!(client.err("set-heartbeats", json!({"enabled": false}))["message"], "missing scope: operator.admin");
    // Nor does one that waits behind the first.
    let mut opened = g.with_token().open().expect("101");
    let first = opened.request();
    let second = json!({"type": "req", "id": "c2", "method": "connect", "params": more}).to_string();
    opened.conn.send(&[frame(0x81, first.as_bytes()), frame(0x81, second.as_bytes())].concat());
    let Outcome::Hello(mut client) = opened.outcome() else { panic!("no hello") };
    assert_eq!(client.answer("c2").expect("an answer").expect_err("refused")["code"], "INVALID_REQUEST");
    assert_eq!(client.err("set-heartbeats", json!({"enabled": false}))["message"], "missing scope: operator.admin");
}

#[test]
fn p_31_version_negotiation() {
    let g = Setup::new().start();
    let versions = |min: Value, max: Value| g.with_token().set("/minProtocol", min).set("/maxProtocol", max);
    for (min, max) in [(5_u64, 5_u64), (99, 99), (1, 2), (4, 3), (1 << 53, 1 << 53)] {
        let refused = versions(json!(min), json!(max)).refused();
        assert_eq!(refused.code(), "PROTOCOL_MISMATCH", "{min}..{max}: {}", refused.error);
        let details = &refused.error["details"];
        assert_eq!((&details["expectedProtocol"], &details["minimumProtocol"]), (&json!(4), &json!(3)), "{details}");
        assert_eq!(refused.close, Some((1002, "protocol mismatch".into())));
    }
    for odd in [json!(0), json!(-1), json!(3.5), json!("4"), json!(null), json!([4]), json!(1e300), json!(true)] {
        for login in [versions(odd.clone(), json!(4)), versions(json!(3), odd.clone())] {
            let refused = login.refused();
            assert!(["INVALID_REQUEST", "PROTOCOL_MISMATCH"].contains(&refused.code()), "{odd}: {}", refused.error);
        }
    }
    for (min, max, spoken) in [(3, 3, 3), (4, 4, 4), (3, 4, 4), (1, 99, 4), (1, 3, 3)] {
        assert_eq!(versions(json!(min), json!(max)).hello().hello["protocol"], spoken, "{min}..{max}");
    }
}
