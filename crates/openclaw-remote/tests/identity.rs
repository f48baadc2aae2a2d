//! Which gateway answers, and what it is trusted with (P-84, P-85), against gateways played by hand.

mod peer;

use std::{collections::BTreeMap, sync::Mutex};

use openclaw_protocol::{DeviceKey, GatewayId, Secret};
use openclaw_remote::{
    Client, Endpoint, Error, Stage,
    connect::{DeviceStore, DeviceUse, Persona, Plan, Secrets, StoredToken, connect, token_origin},
};
use peer::{Peer, hello_payload, listen, params, soon};
use serde_json::{Value, json};

fn home() -> DeviceKey {
    DeviceKey::from_seed(&[11; 32])
}

fn id(key: &DeviceKey) -> GatewayId {
    GatewayId::of(key.id())
}

/// Device tokens by origin.
#[derive(Default)]
struct Store(Mutex<BTreeMap<String, String>>);

impl Store {
    fn with(origin: &str, token: &str) -> Self {
        Self(Mutex::new(BTreeMap::from([(origin.to_owned(), token.to_owned())])))
    }

    fn held(&self) -> Vec<(String, String)> {
        self.0.lock().expect("lock").clone().into_iter().collect()
    }
}

impl DeviceStore for Store {
    fn key(&self, _create: bool) -> Result<Option<DeviceKey>, String> {
        Ok(Some(DeviceKey::from_seed(&[7; 32])))
    }
    fn token(&self, origin: &str, _role: &str) -> Option<StoredToken> {
        let held = self.0.lock().expect("lock");
        let scopes = vec!["operator.read".to_owned()];
        held.get(origin).map(|token| StoredToken { token: Secret::new(token.as_str()), scopes })
    }
    fn remember(&self, origin: &str, _role: &str, token: &Secret, _scopes: &[String]) {
        self.0.lock().expect("lock").insert(origin.to_owned(), token.expose().to_owned());
    }
    fn forget(&self, origin: &str, _role: &str) {
        self.0.lock().expect("lock").remove(origin);
    }
}

fn plan<'a>(endpoint: &'a Endpoint, store: &'a Store) -> Plan<'a> {
    Plan {
        endpoint,
        params: Persona::Cli.params(&["operator.read"]),
        secrets: Secrets::default(),
        device: DeviceUse::WhenNeeded,
        stored_tokens: true,
        store,
        deadline: soon(),
        gateway: Some(id(&home())),
        bootstrap: None,
    }
}

/// Who answers instead.
enum Answers {
    /// As the real OpenClaw does: no proof.
    Plain,
    /// Another gateway of ours.
    Other,
    /// A proof of the right gateway that somebody kept.
    Replayed,
}

#[tokio::test]
async fn p_85_another_gateway_at_the_saved_address_gets_nothing() {
    let other = DeviceKey::from_seed(&[12; 32]);
    for (answers, shown) in [(Answers::Plain, None), (Answers::Other, Some(id(&other))), (Answers::Replayed, None)] {
        let (listener, endpoint) = listen().await;
        let other = other.clone();
        let gateway = tokio::spawn(async move {
            let mut peer = Peer::accept(&listener).await;
            match answers {
                Answers::Plain => peer.challenge().await,
                Answers::Other => peer.proven_challenge(&other, None).await,
                Answers::Replayed => peer.proven_challenge(&home(), Some(&"A".repeat(43))).await,
            }
            peer.maybe_request().await
        });
        let store = Store::with(&token_origin(&id(&home())), "D");
        let secrets = Secrets { token: Some(Secret::new("T")), password: None };
        let bootstrap = Some(Secret::new("B"));
        let plan = Plan { secrets, bootstrap, ..plan(&endpoint, &store) };
        let error = connect(plan, &|_| ()).await.err().expect("refused");
        let Error::WrongGateway { expected, shown: instead } = &error else { panic!("{error:?}") };
        assert_eq!((expected, instead), (&id(&home()), &shown));
        assert_eq!((error.stage(), error.exit_code(), error.kind()), (Stage::Identity, 21, "wrong_gateway"));
        assert!(error.to_string().contains(id(&home()).short()), "{error}");
        assert_eq!(gateway.await.expect("gateway"), None, "no frame was sent");
        assert_eq!(store.held().len(), 1, "nothing is forgotten");
    }
}

/// A gateway that proves to be `home`, hears one connect request and issues `token`.
async fn proven(listener: tokio::net::TcpListener, token: &'static str) -> Value {
    let mut peer = Peer::accept(&listener).await;
    peer.proven_challenge(&home(), None).await;
    let request = peer.request().await;
    let mut hello = hello_payload(4, &["operator.read"]);
    hello["auth"]["deviceToken"] = json!(token);
    peer.answer(&request, hello).await;
    request["params"].clone()
}

#[tokio::test]
async fn p_84_a_token_belongs_to_the_gateway_that_proved_itself() {
    let (listener, endpoint) = listen().await;
    let gateway = tokio::spawn(proven(listener, "D2"));
    let store = Store::with(&token_origin(&id(&home())), "D1");
    let (client, _) = connect(plan(&endpoint, &store), &|_| ()).await.expect("connected");
    assert_eq!(client.gateway_id(), Some(&id(&home())));
    assert_eq!(gateway.await.expect("gateway")["auth"], json!({"deviceToken": "D1"}));
    assert_eq!(store.held(), [(token_origin(&id(&home())), "D2".to_owned())]);

    // The same gateway, but nobody said which it has to be: the token of the identity stays at home.
    let (listener, endpoint) = listen().await;
    let gateway = tokio::spawn(proven(listener, "D3"));
    let (client, _) = connect(Plan { gateway: None, ..plan(&endpoint, &store) }, &|_| ()).await.expect("connected");
    assert_eq!(client.gateway_id(), Some(&id(&home())), "it is asked all the same");
    assert_eq!(gateway.await.expect("gateway").get("auth"), None);
}

#[tokio::test]
async fn a_pairing_code_goes_alone_and_signed() {
    let (listener, endpoint) = listen().await;
    let gateway = tokio::spawn(proven(listener, "D"));
    let store = Store::with(&token_origin(&id(&home())), "old");
    let secrets = Secrets { token: Some(Secret::new("T")), password: Some(Secret::new("P")) };
    let code = Some(Secret::new("one-time"));
    let plan = Plan { secrets, bootstrap: code, device: DeviceUse::Never, ..plan(&endpoint, &store) };
    drop(connect(plan, &|_| ()).await.expect("connected"));
    let sent = gateway.await.expect("gateway");
    assert_eq!(sent["auth"], json!({"bootstrapToken": "one-time"}));
    assert!(sent["device"]["signature"].is_string());
    assert_eq!(store.held(), [(token_origin(&id(&home())), "D".to_owned())]);
}

#[tokio::test]
async fn the_owners_socket_is_not_asked_and_a_tunnel_is() {
    for tunnel in [false, true] {
        let dir = tempfile::tempdir().expect("dir");
        let socket = dir.path().join("s");
        let listener = tokio::net::UnixListener::bind(&socket).expect("bind");
        let endpoint = match tunnel {
            true => Endpoint::Tunnel { socket, origin: "ssh://me@box:22/18789".into(), pin: None },
            false => Endpoint::OwnerSocket(socket),
        };
        let gateway = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("accept");
            let mut peer = Peer::over(stream).await;
            peer.hello(4, &[]).await;
            peer.asked.is_some()
        });
        let (client, _) = Client::open(&endpoint, params(), None, soon(), None).await.expect("hello");
        assert_eq!(client.gateway_id(), None);
        assert_eq!(gateway.await.expect("gateway"), tunnel);
    }
}
