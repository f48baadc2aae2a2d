//! The client against a gateway played by hand.

mod peer;

use std::{sync::Arc, time::Duration};

use openclaw_protocol::{DeviceKey, Protocol, Secret, connect::ConnectParams, device};
use openclaw_remote::{Client, Deadline, Endpoint, Error, Fingerprint, GatewayUrl, Notice, Stage, tls::TlsFailure};
use peer::{Peer, listen, params, soon};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

const LIMIT: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_request_and_its_answer() {
    let (listener, endpoint) = listen().await;
    let gateway = tokio::spawn(async move {
        let mut peer = Peer::accept(&listener).await;
        let connect = peer.hello(4, &["operator.read"]).await;
        let first = peer.request().await;
        let second = peer.request().await;
        // Answers may come in any order, with events between.
        peer.answer(&second, json!(null)).await;
        peer.send(json!({"type":"event","event":"tick","payload":{"ts":1},"seq":1})).await;
        peer.answer(&first, json!({"ok": true})).await;
        assert!(peer.maybe_request().await.is_none(), "then a close frame");
        (connect, first, second)
    });
    let mut params = params();
    params.auth.token = Some(Secret::new("T"));
    let (client, mut events) = Client::open(&endpoint, params, None, soon(), None).await.expect("hello");
    assert_eq!((client.protocol(), client.hello().server.version.as_str()), (Protocol::V4, "2026.9.6"));
    let (health, heartbeat) =
        tokio::join!(client.call("health", None, LIMIT), client.call("last-heartbeat", Some(json!({})), LIMIT));
    assert_eq!((health.expect("health"), heartbeat.expect("heartbeat")), (json!({"ok": true}), Value::Null));
    assert!(matches!(events.next().await, Some(Notice::Event(event)) if event.name == "tick"));
    client.close().await;

    let (connect, first, second) = gateway.await.expect("gateway");
    assert_eq!(connect["method"], "connect");
    assert_eq!(connect["params"]["auth"], json!({"token": "T"}));
    assert_eq!(connect["params"].get("device"), None);
    assert_eq!((&first["method"], first.get("params")), (&json!("health"), None), "no params means no key");
    assert_eq!(second["params"], json!({}));
}

#[tokio::test]
async fn the_device_signs_the_challenge() {
    let (listener, endpoint) = listen().await;
    let gateway = tokio::spawn(async move { Peer::accept(&listener).await.hello(3, &[]).await });
    let key = DeviceKey::from_seed(&[7; 32]);
    let (client, _) = Client::open(&endpoint, params(), Some(&key), soon(), None).await.expect("hello");
    assert_eq!(client.protocol(), Protocol::V3);
    let connect = gateway.await.expect("gateway");
    let parsed = ConnectParams::parse(&connect["params"]).expect("valid connect");
    let block = parsed.device.as_ref().expect("a device block");
    assert_eq!((block.nonce.as_str(), block.signed_at_ms), (peer::NONCE, 1_795_229_493_111));
    let payload = parsed.proof_payload().expect("payload");
    device::verify_proof(&block.public_key, &block.signature, &payload, peer::NONCE, 1_795_229_493_111)
        .expect("a proof the gateway accepts");
}

#[tokio::test]
async fn a_method_that_answers_twice() {
    let (listener, endpoint) = listen().await;
    tokio::spawn(async move {
        let mut peer = Peer::accept(&listener).await;
        peer.hello(4, &[]).await;
        for _ in 0..2 {
            let request = peer.request().await;
            peer.answer(&request, json!({"status": "accepted", "runId": "r"})).await;
            peer.answer(&request, json!({"status": "ok", "runId": "r"})).await;
        }
        peer.maybe_request().await
    });
    let (client, _) = Client::open(&endpoint, params(), None, soon(), None).await.expect("hello");
    let last = client.call_final("agent", Some(json!({})), LIMIT).await.expect("final");
    assert_eq!(last["status"], "ok");
    let first = client.call("agent", Some(json!({})), LIMIT).await.expect("first");
    assert_eq!(first["status"], "accepted");
}

/// What a refused connect becomes, with the refusal as captured (protocol/captures/handshake-errors).
async fn refusal(error: Value, code: u16) -> Error {
    let (listener, endpoint) = listen().await;
    tokio::spawn(async move {
        let mut peer = Peer::accept(&listener).await;
        peer.challenge().await;
        let connect = peer.request().await;
        let reason = error["message"].as_str().unwrap_or_default().to_owned();
        peer.refuse(&connect, error).await;
        peer.close(code, &reason).await;
    });
    Client::open(&endpoint, params(), None, soon(), None).await.err().expect("a refusal")
}

#[tokio::test]
async fn refusals_keep_the_gateways_words_and_have_a_stage() {
    let error = refusal(
        json!({"code":"INVALID_REQUEST","message":"unauthorized: gateway token mismatch (provide gateway auth token)",
            "details":{"code":"AUTH_TOKEN_MISMATCH","authReason":"token_mismatch","canRetryWithDeviceToken":false,
                "recommendedNextStep":"update_auth_credentials"}}),
        1008,
    )
    .await;
    assert_eq!(error.to_string(), "unauthorized: gateway token mismatch (provide gateway auth token)");
    assert_eq!((error.exit_code(), error.detail_code()), (14, Some("AUTH_TOKEN_MISMATCH")));

    let error = refusal(
        json!({"code":"NOT_PAIRED","message":"pairing required: device is not approved yet",
            "details":{"code":"PAIRING_REQUIRED","reason":"not-paired","requestId":"r-1"}}),
        1008,
    )
    .await;
    assert!(matches!(&error, Error::Pairing(pairing) if pairing.request_id.as_deref() == Some("r-1")));
    assert_eq!(error.exit_code(), 15);

    let error =
        refusal(json!({"code":"INVALID_REQUEST","message":"protocol mismatch","details":{"expectedProtocol":3}}), 1002)
            .await;
    assert!(matches!(error, Error::Protocol { expected: Some(3), .. }));
    assert_eq!(error.exit_code(), 17);
}

#[tokio::test]
async fn a_close_without_an_answer() {
    for (code, reason, exit) in [(1008, "invalid-handshake", 14), (1013, "gateway starting", 1), (1000, "", 14)] {
        let (listener, endpoint) = listen().await;
        tokio::spawn(async move {
            let mut peer = Peer::accept(&listener).await;
            peer.challenge().await;
            peer.request().await;
            peer.close(code, reason).await;
        });
        let error = Client::open(&endpoint, params(), None, soon(), None).await.err().expect("closed");
        assert_eq!(error.exit_code(), exit, "{code} {reason}: {error}");
    }
}

#[tokio::test]
async fn peers_that_are_no_gateway() {
    // Not HTTP at all, an ordinary web server, a web server that refuses, one that redirects.
    for (answer, expected) in [
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n", None),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", Some(200)),
        (
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 76\r\n\r\n{\"error\":{\"message\":\"undeclared\",\"type\":\"proxy_attribution_required\"}}       ",
            Some(403),
        ),
        ("HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1:9/\r\n\r\n", Some(302)),
        ("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", Some(503)),
    ] {
        let (listener, endpoint) = listen().await;
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("accept");
            let mut request = vec![0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        });
        let error = Client::open(&endpoint, params(), None, soon(), None).await.err().expect("no gateway");
        assert_eq!((error.stage(), error.exit_code()), (Stage::Http, 13), "{answer}: {error}");
        if let Some(expected) = expected {
            assert!(matches!(error, Error::Http { status, .. } if status == expected), "{error:?}");
        }
        if expected == Some(403) {
            assert!(error.to_string().contains("undeclared"), "{error}");
        }
    }
}

#[tokio::test]
async fn p_90_redirects_are_not_followed() {
    let (elsewhere, _) = listen().await;
    let target = elsewhere.local_addr().expect("address");
    for status in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect"] {
        let (listener, endpoint) = listen().await;
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("accept");
            let _ = stream.read(&mut vec![0; 4096]).await;
            let _ = stream.write_all(format!("HTTP/1.1 {status}\r\nLocation: ws://{target}/\r\n\r\n").as_bytes()).await;
        });
        let error = Client::open(&endpoint, params(), None, soon(), None).await.err().expect("no gateway");
        assert!(matches!(error, Error::Http { status: 301 | 302 | 307, .. }), "{error:?}");
    }
    let visit = tokio::time::timeout(Duration::from_millis(20), elsewhere.accept()).await;
    assert!(visit.is_err(), "nobody went there");
}

#[tokio::test(start_paused = true)]
async fn the_deadline_names_the_stage() {
    // Accepts and says nothing: the upgrade never ends.
    let (listener, endpoint) = listen().await;
    let silent = tokio::spawn(async move { (listener.accept().await.expect("accept"), listener) });
    let error = Client::open(&endpoint, params(), None, Deadline::after(Duration::from_secs(3)), None).await.err();
    assert!(matches!(error, Some(Error::Timeout { stage: Stage::Http, .. })), "{error:?}");
    assert_eq!(error.map(|error| error.exit_code()), Some(18));
    drop(silent);

    // Upgrades and sends no challenge.
    let (listener, endpoint) = listen().await;
    let silent = tokio::spawn(async move { Peer::accept(&listener).await.maybe_request().await });
    let error = Client::open(&endpoint, params(), None, Deadline::after(Duration::from_secs(3)), None).await.err();
    assert!(matches!(error, Some(Error::Timeout { stage: Stage::Protocol, .. })), "{error:?}");
    drop(silent);
}

#[tokio::test]
async fn missing_sequence_numbers_are_reported() {
    let (listener, endpoint) = listen().await;
    tokio::spawn(async move {
        let mut peer = Peer::accept(&listener).await;
        peer.hello(4, &[]).await;
        for seq in [1, 2, 5] {
            peer.send(json!({"type":"event","event":"tick","payload":{},"seq":seq})).await;
        }
        peer.maybe_request().await
    });
    let (_client, mut events) = Client::open(&endpoint, params(), None, soon(), None).await.expect("hello");
    let mut seen = Vec::new();
    while seen.len() < 4 {
        seen.push(match events.next().await.expect("more") {
            Notice::Event(event) => format!("{}", event.seq.unwrap_or_default()),
            Notice::Gap { expected, received } => format!("gap {expected}-{received}"),
            Notice::Dropped(count) => format!("dropped {count}"),
        });
    }
    assert_eq!(seen, ["1", "2", "gap 3-5", "5"]);
}

#[tokio::test]
async fn a_v3_connection_may_start_at_any_number() {
    let (listener, endpoint) = listen().await;
    tokio::spawn(async move {
        let mut peer = Peer::accept(&listener).await;
        peer.hello(3, &[]).await;
        peer.send(json!({"type":"event","event":"health","payload":{},"seq":21})).await;
        peer.maybe_request().await
    });
    let (_client, mut events) = Client::open(&endpoint, params(), None, soon(), None).await.expect("hello");
    assert!(matches!(events.next().await, Some(Notice::Event(event)) if event.seq == Some(21)));
}

#[tokio::test]
async fn a_closing_gateway_fails_what_waits_and_what_comes_after() {
    let (listener, endpoint) = listen().await;
    tokio::spawn(async move {
        let mut peer = Peer::accept(&listener).await;
        peer.hello(4, &[]).await;
        peer.request().await;
        peer.close(1012, "service restart").await;
    });
    let (client, mut events) = Client::open(&endpoint, params(), None, soon(), None).await.expect("hello");
    for _ in 0..2 {
        let error = client.call("health", None, LIMIT).await.expect_err("closed");
        assert!(
            matches!(&error, Error::Closed { code: Some(1012), reason, .. } if reason == "service restart"),
            "{error:?}"
        );
    }
    assert_eq!(events.next().await, None);
    assert_eq!(client.ending().code, Some(1012));
}

#[tokio::test(start_paused = true)]
async fn silence_longer_than_two_ticks_ends_the_connection() {
    let (listener, endpoint) = listen().await;
    let gateway = tokio::spawn(async move {
        let mut peer = Peer::accept(&listener).await;
        peer.hello(4, &[]).await;
        peer.maybe_request().await
    });
    let (client, mut events) = Client::open(&endpoint, params(), None, soon(), None).await.expect("hello");
    let before = tokio::time::Instant::now();
    assert_eq!(events.next().await, None);
    assert_eq!(before.elapsed().as_secs(), 60);
    assert_eq!((client.ending().code, client.ending().reason.as_str()), (Some(4000), "tick timeout"));
    drop(gateway);
}

const CERTIFICATE: &str = include_str!("fixtures/gateway.pem");
const KEY: &str = include_str!("fixtures/gateway.key");

/// A TLS listener with the fixture certificate; counts the bytes that came through the encryption.
async fn tls_gateway() -> (u16, Fingerprint, tokio::task::JoinHandle<usize>) {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
    let certificate = CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).expect("certificate");
    let pin = Fingerprint::of(&certificate);
    let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).expect("key");
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("server");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let port = listener.local_addr().expect("address").port();
    let gateway = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("accept");
        let Ok(tls) = tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(stream).await else { return 0 };
        let connect = Peer::over(tls).await.hello(4, &["operator.read"]).await;
        connect.to_string().len()
    });
    (port, pin, gateway)
}

fn wss(port: u16, pin: Option<Fingerprint>) -> Endpoint {
    let url = GatewayUrl::parse(&format!("wss://127.0.0.1:{port}")).expect("url");
    Endpoint::Url { url, pin, allow_private_names: false, edge: Vec::new() }
}

#[tokio::test]
async fn p_88_the_right_pin_connects() {
    let (port, pin, gateway) = tls_gateway().await;
    let (client, _) = Client::open(&wss(port, Some(pin)), params(), None, soon(), None).await.expect("hello over TLS");
    assert_eq!(client.hello().protocol, 4);
    assert!(gateway.await.expect("gateway") > 0);
}

#[tokio::test]
async fn p_88_a_wrong_pin_sends_nothing_and_shows_both() {
    let (port, shown, gateway) = tls_gateway().await;
    let pinned = Fingerprint::of(b"another certificate");
    let error = Client::open(&wss(port, Some(pinned)), params(), None, soon(), None).await.err().expect("refused");
    let Error::Tls { source: TlsFailure::Pin(mismatch), .. } = &error else { panic!("{error:?}") };
    assert_eq!((mismatch.pinned, mismatch.shown), (pinned, shown));
    assert!(mismatch.to_string().contains(&pinned.to_string()) && mismatch.to_string().contains(&shown.to_string()));
    assert_eq!(error.exit_code(), 12);
    assert_eq!(gateway.await.expect("gateway"), 0, "no application byte");
}

#[tokio::test]
async fn s_153_a_self_signed_gateway_needs_a_pin() {
    let (port, _, gateway) = tls_gateway().await;
    let error = Client::open(&wss(port, None), params(), None, soon(), None).await.err().expect("refused");
    assert!(matches!(&error, Error::Tls { source: TlsFailure::Untrusted(_), .. }), "{error:?}");
    assert_eq!(gateway.await.expect("gateway"), 0);
}

#[tokio::test]
async fn the_owners_socket() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("gateway.sock");
    let endpoint = Endpoint::OwnerSocket(path.clone());
    assert!(!openclaw_remote::dial::is_owner_socket(&path));
    assert_eq!(
        Client::open(&endpoint, params(), None, soon(), None).await.err().map(|error| error.exit_code()),
        Some(11)
    );

    let listener = tokio::net::UnixListener::bind(&path).expect("bind");
    assert!(openclaw_remote::dial::is_owner_socket(&path));
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("accept");
        let mut peer = Peer::over(stream).await;
        peer.hello(4, &["operator.admin"]).await;
        let request = peer.request().await;
        peer.answer(&request, json!({"ok": true})).await;
        peer.maybe_request().await
    });
    let (client, _) = Client::open(&endpoint, params(), None, soon(), None).await.expect("hello");
    assert_eq!(client.call("health", None, LIMIT).await.expect("health")["ok"], true);

    // A plain file in its place is not dialled.
    let file = dir.path().join("not-a-socket");
    std::fs::write(&file, "").expect("file");
    let error = Client::open(&Endpoint::OwnerSocket(file), params(), None, soon(), None).await.err().expect("refused");
    assert_eq!(error.exit_code(), 11);
}
