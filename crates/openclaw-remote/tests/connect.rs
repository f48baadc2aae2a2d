//! The retries of `connect`, against a gateway played by hand.

mod peer;

use std::sync::Mutex;

use openclaw_protocol::{DeviceKey, Secret};
use openclaw_remote::{
    Endpoint, Error,
    connect::{DeviceStore, DeviceUse, Persona, Plan, Secrets, StoredToken, connect},
};
use peer::{Peer, hello_payload, listen, soon};
use serde_json::{Value, json};

/// A store in memory that records what is asked of it.
#[derive(Default)]
struct Store {
    key: Option<DeviceKey>,
    token: Mutex<Option<StoredToken>>,
    log: Mutex<Vec<String>>,
}

impl Store {
    fn with(token: Option<&str>, scopes: &[&str]) -> Self {
        let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        Self {
            key: Some(DeviceKey::from_seed(&[7; 32])),
            token: Mutex::new(token.map(|token| StoredToken { token: Secret::new(token), scopes })),
            ..Self::default()
        }
    }
}

impl DeviceStore for Store {
    fn key(&self, create: bool) -> Result<Option<DeviceKey>, String> {
        if create && self.key.is_none() {
            self.log.lock().expect("lock").push("create".into());
            return Ok(Some(DeviceKey::from_seed(&[9; 32])));
        }
        Ok(self.key.clone())
    }
    fn token(&self, _origin: &str, _role: &str) -> Option<StoredToken> {
        self.token.lock().expect("lock").clone()
    }
    fn remember(&self, _origin: &str, role: &str, token: &Secret, scopes: &[String]) {
        self.log.lock().expect("lock").push(format!("remember {role} {} {}", token.expose(), scopes.join(",")));
    }
    fn forget(&self, _origin: &str, role: &str) {
        *self.token.lock().expect("lock") = None;
        self.log.lock().expect("lock").push(format!("forget {role}"));
    }
}

/// What the gateway does with each connection in turn.
enum Does {
    Hello(u32, &'static [&'static str]),
    HelloToken(&'static str),
    Refuse(Value),
}

/// Connects with these means; gives the outcome and the `params` of every connect request that was sent.
async fn run(
    store: &Store,
    secrets: Secrets,
    device: DeviceUse,
    scopes: &[&str],
    script: Vec<Does>,
) -> (Result<(), Error>, Vec<Value>) {
    let (listener, endpoint) = listen().await;
    let gateway = tokio::spawn(async move {
        let mut seen = Vec::new();
        for step in script {
            let mut peer = Peer::accept(&listener).await;
            peer.challenge().await;
            let request = peer.request().await;
            match step {
                Does::Hello(protocol, granted) => peer.answer(&request, hello_payload(protocol, granted)).await,
                Does::HelloToken(token) => {
                    let mut hello = hello_payload(4, &["operator.read"]);
                    hello["auth"]["deviceToken"] = json!(token);
                    peer.answer(&request, hello).await;
                }
                Does::Refuse(error) => {
                    peer.refuse(&request, error).await;
                    peer.close(1008, "refused").await;
                }
            }
            seen.push(request["params"].clone());
        }
        // One more connection would be a loop.
        let more = tokio::time::timeout(std::time::Duration::from_millis(50), listener.accept()).await;
        assert!(more.is_err(), "an attempt too many");
        seen
    });
    let plan = Plan {
        endpoint: &endpoint,
        params: Persona::Cli.params(scopes),
        secrets,
        device,
        stored_tokens: true,
        store,
        deadline: soon(),
        gateway: None,
        bootstrap: None,
    };
    let outcome = connect(plan, &|_| ()).await.map(|(client, _)| drop(client));
    (outcome, gateway.await.expect("gateway"))
}

fn token(text: &str) -> Secrets {
    Secrets { token: Some(Secret::new(text)), password: None }
}

fn mismatch(can_retry: bool) -> Does {
    Does::Refuse(json!({"code":"INVALID_REQUEST","message":"unauthorized: gateway token mismatch (x)",
        "details":{"code":"AUTH_TOKEN_MISMATCH","authReason":"token_mismatch","canRetryWithDeviceToken":can_retry}}))
}

fn stale_device_token() -> Does {
    Does::Refuse(
        json!({"code":"INVALID_REQUEST","message":"unauthorized: device token mismatch (rotate/reissue device token)",
        "details":{"code":"AUTH_DEVICE_TOKEN_MISMATCH","authReason":"device_token_mismatch"}}),
    )
}

#[tokio::test]
async fn a_token_on_loopback_needs_no_device() {
    let store = Store::default();
    let (outcome, seen) =
        run(&store, token("T"), DeviceUse::WhenNeeded, &["operator.read"], vec![Does::Hello(4, &["operator.read"])])
            .await;
    outcome.expect("connected");
    assert_eq!((seen[0].get("device"), &seen[0]["auth"]), (None, &json!({"token": "T"})));
    assert_eq!((&seen[0]["minProtocol"], &seen[0]["maxProtocol"]), (&json!(3), &json!(4)));
    assert!(store.log.lock().expect("lock").is_empty(), "no identity is made");
}

#[tokio::test]
async fn scopes_that_the_token_alone_did_not_give_are_asked_for_by_the_device() {
    let store = Store::default();
    let script = vec![Does::Hello(4, &[]), Does::HelloToken("D1")];
    let (outcome, seen) = run(&store, token("T"), DeviceUse::WhenNeeded, &["operator.read"], script).await;
    outcome.expect("connected");
    assert!(seen[1]["device"]["signature"].is_string());
    assert_eq!(seen[1]["auth"], json!({"token": "T"}));
    assert_eq!(*store.log.lock().expect("lock"), ["create", "remember operator D1 operator.read"]);
}

#[tokio::test]
async fn a_password_signs_and_a_probe_makes_no_identity() {
    let secrets = || Secrets { token: None, password: Some(Secret::new("P")) };
    let store = Store::default();
    let (_, seen) = run(&store, secrets(), DeviceUse::WhenNeeded, &[], vec![Does::HelloToken("D")]).await;
    assert!(seen[0]["device"].is_object());
    assert_eq!(seen[0]["auth"], json!({"password": "P"}));

    let store = Store::default();
    let (_, seen) = run(&store, secrets(), DeviceUse::IfKnown, &[], vec![Does::Hello(4, &[])]).await;
    assert_eq!(seen[0].get("device"), None);
    let (_, seen) = run(&store, Secrets::default(), DeviceUse::IfKnown, &[], vec![Does::Hello(4, &[])]).await;
    assert_eq!((seen[0].get("device"), seen[0].get("auth")), (None, None));
    assert!(store.log.lock().expect("lock").is_empty(), "no identity is made");
}

#[tokio::test]
async fn a_health_check_signs_only_when_there_is_nothing_else() {
    let store = Store::default();
    let (outcome, seen) =
        run(&store, token("T"), DeviceUse::WithoutSecret, &["operator.read"], vec![Does::Hello(4, &[])]).await;
    outcome.expect("cleared scopes do not matter");
    assert_eq!(seen[0].get("device"), None);
    let (_, seen) = run(&store, Secrets::default(), DeviceUse::WithoutSecret, &[], vec![Does::HelloToken("D")]).await;
    assert!(seen[0]["device"]["signature"].is_string());
    assert_eq!(*store.log.lock().expect("lock"), ["create", "remember operator D operator.read"]);
}

#[tokio::test]
async fn without_a_secret_the_device_token_is_used() {
    let store = Store::with(Some("D0"), &["operator.read"]);
    let (_, seen) = run(
        &store,
        Secrets::default(),
        DeviceUse::WhenNeeded,
        &["operator.read"],
        vec![Does::Hello(4, &["operator.read"])],
    )
    .await;
    assert_eq!(seen[0]["auth"], json!({"deviceToken": "D0"}));
}

#[tokio::test]
async fn a_rotated_shared_token_falls_back_to_the_device_token_once() {
    let store = Store::with(Some("D0"), &["operator.read"]);
    // Signed from the start, as with a password the gateway also takes the token.
    let secrets = || Secrets { token: None, password: Some(Secret::new("old")) };
    let (outcome, seen) =
        run(&store, secrets(), DeviceUse::WhenNeeded, &[], vec![mismatch(true), Does::Hello(4, &[])]).await;
    outcome.expect("connected");
    assert_eq!(seen[0]["auth"], json!({"password": "old"}));
    assert_eq!(seen[1]["auth"], json!({"password": "old", "deviceToken": "D0"}));

    let (outcome, seen) =
        run(&store, secrets(), DeviceUse::WhenNeeded, &[], vec![mismatch(true), mismatch(true)]).await;
    assert_eq!((outcome.expect_err("refused").exit_code(), seen.len()), (14, 2));
    let (outcome, seen) = run(&store, secrets(), DeviceUse::WhenNeeded, &[], vec![mismatch(false)]).await;
    assert_eq!((outcome.expect_err("refused").exit_code(), seen.len()), (14, 1));
}

#[tokio::test]
async fn a_stale_device_token_is_dropped_and_nothing_loops() {
    let store = Store::with(Some("old"), &["operator.read"]);
    let (outcome, seen) =
        run(&store, Secrets::default(), DeviceUse::WhenNeeded, &["operator.read"], vec![stale_device_token()]).await;
    assert_eq!((outcome.expect_err("refused").exit_code(), seen.len()), (14, 1));
    assert_eq!(*store.log.lock().expect("lock"), ["forget operator"]);

    // v3 answers the same when the token is good and more scopes are asked for: it is kept.
    let store = Store::with(Some("good"), &["operator.read"]);
    let (outcome, _) =
        run(&store, Secrets::default(), DeviceUse::WhenNeeded, &["operator.admin"], vec![stale_device_token()]).await;
    assert!(outcome.is_err());
    assert!(store.log.lock().expect("lock").is_empty());
}

#[tokio::test]
async fn the_version_the_gateway_expects() {
    for (expected, protocol) in [(3, 3), (4, 4)] {
        let refuse = Does::Refuse(json!({"code":"INVALID_REQUEST","message":"protocol mismatch",
            "details":{"expectedProtocol":expected}}));
        let (outcome, seen) =
            run(&Store::default(), token("T"), DeviceUse::Never, &[], vec![refuse, Does::Hello(protocol, &[])]).await;
        outcome.expect("connected");
        assert_eq!((&seen[1]["minProtocol"], &seen[1]["maxProtocol"]), (&json!(expected), &json!(expected)));
    }
    for details in [json!({"expectedProtocol": 5}), json!({"code": "PROTOCOL_MISMATCH"})] {
        let refuse = Does::Refuse(json!({"code":"INVALID_REQUEST","message":"protocol mismatch","details":details}));
        let (outcome, seen) = run(&Store::default(), token("T"), DeviceUse::Never, &[], vec![refuse]).await;
        assert_eq!((outcome.expect_err("refused").exit_code(), seen.len()), (17, 1));
    }
}

#[tokio::test]
async fn a_starting_gateway_is_waited_for() {
    let starting = || {
        Does::Refuse(json!({"code":"UNAVAILABLE","message":"gateway starting; retry shortly","retryable":true,
            "retryAfterMs":60,"details":{"reason":"startup-sidecars"}}))
    };
    let script = vec![starting(), starting(), Does::Hello(4, &[])];
    let (outcome, seen) = run(&Store::default(), token("T"), DeviceUse::Never, &[], script).await;
    outcome.expect("connected");
    assert_eq!(seen.len(), 3);
}

#[tokio::test]
async fn the_owners_socket_gets_no_secret_and_no_device() {
    let dir = tempfile::tempdir().expect("dir");
    let endpoint = Endpoint::OwnerSocket(dir.path().join("s"));
    let listener = tokio::net::UnixListener::bind(dir.path().join("s")).expect("bind");
    let gateway = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("accept");
        Peer::over(stream).await.hello(4, &["operator.admin"]).await
    });
    let store = Store::with(Some("D0"), &[]);
    let plan = Plan {
        stored_tokens: true,
        endpoint: &endpoint,
        params: Persona::Cli.params(&["operator.pairing"]),
        secrets: Secrets::default(),
        device: DeviceUse::WhenNeeded,
        store: &store,
        deadline: soon(),
        gateway: None,
        bootstrap: None,
    };
    drop(connect(plan, &|_| ()).await.expect("connected"));
    let request = gateway.await.expect("gateway");
    assert_eq!((request["params"].get("auth"), request["params"].get("device")), (None, None));
}
