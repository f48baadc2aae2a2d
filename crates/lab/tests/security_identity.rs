//! Which gateway answers: P-84 and P-85 with real gateways, and what a proof tells. The whole path: a one-time code is
//! redeemed, its device token kept under the gateway's identity, and then somebody else has the address.

use std::{
    fs,
    net::TcpListener,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use lab::{
    client::{Login, Outcome},
    process::{Finished, Launch},
    sandbox::{Sandbox, Setup, binary},
    wire::{Address, Conn, Frame},
};
use openclaw_config::{Env, Paths, Profile, device_tokens::DeviceTokens, identity};
use openclaw_protocol::{
    GatewayId, Role, Secret,
    gateway_proof::{self, GatewayProof, HEADER},
};
use openclaw_remote::{
    Deadline, Endpoint, Error, GatewayUrl,
    connect::{DeviceUse, Persona, Plan, Secrets, connect, token_origin},
    store::IdentityStore,
};
use serde_json::{Value, json};
use tempfile::TempDir;

const READ: &str = "operator.read";

/// Another machine: a home and a state directory of its own.
struct Laptop {
    dir: TempDir,
}

impl Laptop {
    fn new() -> Self {
        let laptop = Self { dir: TempDir::with_prefix("openclaw-laptop-").expect("a temporary directory") };
        fs::create_dir_all(laptop.paths().state_dir).expect("creates");
        laptop
    }

    fn paths(&self) -> Paths {
        let state = self.dir.path().join("state");
        let env = Env::from_pairs([("OPENCLAW_STATE_DIR", state.to_str().expect("text"))]);
        Paths::resolve(&env, Profile::Default).expect("paths")
    }

    /// Redeems a one-time token at this port, if the gateway there proves to be `gateway`.
    fn redeem(&self, port: u16, gateway: &GatewayId, token: &str) -> Result<(), Error> {
        let store = IdentityStore::new(self.paths());
        let url = GatewayUrl::loopback(port);
        let endpoint = Endpoint::Url { url, pin: None, allow_private_names: false, edge: Vec::new() };
        let plan = Plan {
            endpoint: &endpoint,
            params: Persona::Cli.params(&[READ]),
            secrets: Secrets::default(),
            device: DeviceUse::WhenNeeded,
            stored_tokens: true,
            store: &store,
            deadline: Deadline::after(Duration::from_secs(20)),
            gateway: Some(gateway.clone()),
            bootstrap: Some(Secret::new(token)),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { connect(plan, &|_| ()).await.map(|(client, _)| drop(client)) })
    }

    /// Saves a connection: this gateway, at these ports.
    fn save(&self, gateway: &GatewayId, ports: &[u16]) {
        let path = |port: &u16| json!({"kind": "lan", "url": format!("ws://127.0.0.1:{port}"), "tlsFingerprint": null});
        let paths: Vec<Value> = ports.iter().map(path).collect();
        let home = json!({"gatewayId": gateway, "deviceId": null, "paths": paths, "createdAtMs": 1});
        let text = json!({"version": 1, "current": null, "connections": {"home": home}}).to_string();
        let file = self.paths().state_dir.join("connections.json");
        fs::write(&file, text).expect("writes");
    }

    fn run(&self, args: &[&str]) -> Finished {
        let dir = self.dir.path();
        let launch = Launch::new(binary(), dir).env("HOME", dir).env("OPENCLAW_STATE_DIR", self.paths().state_dir);
        launch.args(args).run()
    }

    /// The device token kept for a gateway.
    fn held(&self, gateway: &GatewayId) -> Option<String> {
        let key = identity::load(&self.paths()).expect("readable")?;
        let tokens = DeviceTokens::new(&self.paths(), key.id());
        let token = tokens.get(&token_origin(gateway), Role::Operator).expect("readable")?;
        Some(token.token.expose().to_owned())
    }
}

fn id_of(g: &Sandbox) -> GatewayId {
    let identity = g.operator(&[READ]).ok("gateway.identity.get", json!({}));
    GatewayId::parse(identity["deviceId"].as_str().expect("an id")).expect("64 hex digits")
}

fn invite(g: &Sandbox) -> Value {
    let finished = g.setup.run(&["devices", "invite", "--scopes", "read", "--ttl", "2m", "--json"]);
    assert!(finished.status.success(), "{finished:#?}");
    assert_eq!(finished.stdout.lines().count(), 1, "one line, for whoever reads it over ssh");
    finished.json()
}

/// The challenge of an upgrade with these headers.
fn challenge(address: &Address, headers: &[(&str, &str)]) -> Value {
    let mut conn = Conn::open(address);
    conn.upgrade(headers).unwrap_or_else(|reply| panic!("HTTP {}", reply.status));
    match conn.message() {
        Frame::Text(text) => serde_json::from_str(&text).expect("JSON"),
        other => panic!("no challenge but {other:?}"),
    }
}

#[test]
fn a_gateway_proves_which_one_it_is_to_whoever_asks() {
    let mut g = Setup::new().start();
    let id = id_of(&g);
    let nonce = gateway_proof::nonce(&[3; 32]);
    let prove = |g: &Sandbox, nonce: &str| {
        let challenge = challenge(&g.address(), &[(HEADER, nonce)]);
        let proof: GatewayProof = serde_json::from_value(challenge["payload"]["gateway"].clone()).expect("a proof");
        proof.verify(nonce, challenge["payload"]["nonce"].as_str().expect("a nonce"))
    };
    assert_eq!(prove(&g, &nonce), Some(id.clone()));
    let own = GatewayId::parse(invite(&g)["gateway"]["id"].as_str().expect("an id"));
    assert_eq!(own, Some(id.clone()), "an invitation names the same");
    // Who does not ask, or asks for something else to be signed, gets the plain challenge.
    for headers in
        [&[][..], &[(HEADER, "")], &[(HEADER, "v3|id|cli|cli|operator")], &[(HEADER, &nonce), (HEADER, &nonce)]]
    {
        let payload = challenge(&g.address(), headers)["payload"].clone();
        let keys: Vec<&String> = payload.as_object().expect("an object").keys().collect();
        assert_eq!(keys, ["nonce", "ts"], "{headers:?}");
    }
    g.stop();
    g.start();
    assert_eq!(prove(&g, &nonce), Some(id.clone()), "the same after a restart");
    let other = Setup::new().start();
    assert_ne!(prove(&other, &nonce), Some(id), "and another gateway is another one");
}

#[test]
fn p_85_a_paired_device_tells_another_gateway_nothing() {
    let (home, stranger) = (Setup::new().start(), Setup::new().start());
    let (home_id, stranger_id) = (id_of(&home), id_of(&stranger));
    let laptop = Laptop::new();
    let code = invite(&home)["token"].as_str().expect("a token").to_owned();

    // The code itself goes to no other gateway, and is still good afterwards.
    let error = laptop.redeem(stranger.port, &home_id, &code).expect_err("another gateway");
    let Error::WrongGateway { expected, shown } = &error else { panic!("{error}") };
    assert_eq!((expected, shown.as_ref()), (&home_id, Some(&stranger_id)));
    laptop.redeem(home.port, &home_id, &code).expect("paired");
    assert!(laptop.held(&home_id).is_some() && laptop.held(&stranger_id).is_none());

    laptop.save(&home_id, &[home.port]);
    let health = laptop.run(&["--on", "home", "gateway", "call", "status", "--json"]);
    assert!(health.status.success(), "the stored token is enough: {health:#?}");

    // Somebody else has the address now.
    laptop.save(&home_id, &[stranger.port]);
    for args in [&["--on", "home", "health"][..], &["--on", "home", "gateway", "call", "status", "--token", "X"]] {
        let refused = laptop.run(args);
        assert_eq!(refused.status.code(), Some(21), "{refused:#?}");
        for id in [&home_id, &stranger_id] {
            assert!(refused.stderr.contains(id.short()), "it says who was expected and who came: {refused:#?}");
        }
    }
    assert!(laptop.held(&home_id).is_some(), "nothing was forgotten for that");
    assert!(!stranger.log().contains("refused"), "no connect frame came: {}", stranger.log());
    // With the right one among the paths it is found.
    laptop.save(&home_id, &[stranger.port, home.port]);
    assert!(laptop.run(&["--on", "home", "health"]).status.success());
}

/// A program that speaks like a gateway without being one; keeps every frame it is sent.
fn impostor() -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = listener.local_addr().expect("address").port();
    let frames = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&frames);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            let kept = Arc::clone(&kept);
            thread::spawn(move || {
                let Ok(mut socket) = tungstenite::accept(stream) else { return };
                let payload = json!({"nonce": uuid::Uuid::new_v4().to_string(), "ts": 1});
                let challenge = json!({"type": "event", "event": "connect.challenge", "payload": payload});
                let _ = socket.send(tungstenite::Message::text(challenge.to_string()));
                while let Ok(message) = socket.read() {
                    if let Ok(text) = message.to_text()
                        && !text.is_empty()
                        && !message.is_close()
                    {
                        kept.lock().expect("lock").push(text.to_owned());
                    }
                }
            });
        }
    });
    (port, frames)
}

#[test]
fn p_84_an_explicit_url_gets_no_stored_token() {
    let home = Setup::new().start();
    let id = id_of(&home);
    let laptop = Laptop::new();
    let code = invite(&home)["token"].as_str().expect("a token").to_owned();
    laptop.redeem(home.port, &id, &code).expect("paired");
    let held = laptop.held(&id).expect("a token");
    laptop.save(&id, &[home.port]);

    let (port, frames) = impostor();
    let url = format!("ws://127.0.0.1:{port}");
    // Given explicitly: only what was given goes there. Saved: nothing at all.
    let explicit = laptop.run(&["gateway", "call", "health", "--url", &url, "--token", "for-you", "--timeout", "2000"]);
    assert!(!explicit.status.success());
    laptop.save(&id, &[port]);
    let saved = laptop.run(&["--on", "home", "health", "--timeout", "2000"]);
    assert_eq!(saved.status.code(), Some(21), "{saved:#?}");
    let seen = frames.lock().expect("lock").clone();
    assert!(!seen.is_empty(), "{explicit:#?}");
    assert!(seen.iter().all(|frame| frame.contains("for-you")), "{seen:?}");
    for frame in &seen {
        assert!(!frame.contains(&held) && !frame.contains("deviceToken"), "{frame}");
    }
    // And the token alone is of no use to a thief without the device's key.
    let stolen = Login::at(&home.address()).scopes(&[READ]).device_token(&held);
    assert!(matches!(stolen.attempt(), Outcome::Refused(refused) if refused.code() == "DEVICE_IDENTITY_REQUIRED"));
}
