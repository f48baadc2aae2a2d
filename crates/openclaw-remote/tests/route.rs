//! Racing the paths of one gateway, each played by hand on loopback.

mod peer;

use std::time::Duration;

use openclaw_config::{Env, Paths, Profile, connections::PathKind};
use openclaw_protocol::{DeviceKey, GatewayId, Secret};
use openclaw_remote::{
    Endpoint, Error, GatewayUrl, Stage,
    connect::{DeviceStore, DeviceUse, Secrets, StoredToken},
    path::{Direct, GatewayPath, Route},
    route::{self, Ask, Carrier, Tunnels},
};
use peer::{Peer, hello_payload, listen, params, soon};
use serde_json::json;
use tokio::{io::AsyncReadExt as _, net::TcpListener, time::timeout};

const PATIENCE: Duration = Duration::from_secs(60);

struct NoDevice;

impl DeviceStore for NoDevice {
    fn key(&self, _: bool) -> Result<Option<DeviceKey>, String> {
        Ok(None)
    }
    fn token(&self, _: &str, _: &str) -> Option<StoredToken> {
        None
    }
    fn remember(&self, _: &str, _: &str, _: &Secret, _: &[String]) {}
    fn forget(&self, _: &str, _: &str) {}
}

struct World {
    dir: tempfile::TempDir,
    gateway: Option<GatewayId>,
    paths: Vec<GatewayPath>,
}

impl World {
    fn new(gateway: Option<&DeviceKey>) -> Self {
        let dir = tempfile::tempdir().expect("dir");
        Self { dir, gateway: gateway.map(|key| GatewayId::of(key.id())), paths: Vec::new() }
    }

    fn path(mut self, kind: PathKind, endpoint: &Endpoint) -> Self {
        let Endpoint::Url { url, .. } = endpoint else { panic!("a URL") };
        let (url, edge) = (url.clone(), Vec::new());
        self.paths.push(GatewayPath::Direct(Box::new(Direct {
            kind,
            url,
            pin: None,
            allow_private_names: false,
            edge,
        })));
        self
    }

    async fn open(&self) -> Result<route::Link, Error> {
        let env = Env::from_pairs([("OPENCLAW_STATE_DIR", self.dir.path().to_str().expect("path"))]);
        let tunnels = Tunnels::new(&Paths::resolve(&env, Profile::Default).expect("paths"));
        let name = Some("home".parse().expect("name"));
        let route = Route { name, gateway: self.gateway.clone(), paths: self.paths.clone() };
        let ask = Ask {
            params: params(),
            secrets: Secrets { token: Some(Secret::new("T")), password: None },
            device: DeviceUse::Never,
            stored_tokens: false,
            store: &NoDevice,
            deadline: soon(),
            bootstrap: None,
            tunnels: &tunnels,
        };
        route::open(&route, &ask, &|_| ()).await.map(|(link, _)| link)
    }
}

async fn serve(listener: TcpListener) {
    let mut peer = Peer::accept(&listener).await;
    peer.hello(4, &["operator.read"]).await;
    while peer.maybe_request().await.is_some() {}
}

#[tokio::test]
async fn a_path_that_says_nothing_costs_its_head_start_and_is_hung_up_on() {
    let ((silent, first), (good, second)) = (listen().await, listen().await);
    let world = World::new(None).path(PathKind::Lan, &first).path(PathKind::Tailnet, &second);
    let served = tokio::spawn(serve(good));
    let hung_up = tokio::spawn(async move {
        let (mut stream, _) = silent.accept().await.expect("a client");
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.map(|_| all)
    });
    let link = world.open().await.expect("by the second");
    let taken = link.taken.clone().expect("a path");
    assert_eq!((taken.index, taken.path.kind(), taken.carrier), (1, PathKind::Tailnet, Carrier::Direct));
    let sent = timeout(PATIENCE, hung_up).await.expect("the loser is dropped").expect("runs").unwrap_or_default();
    assert!(!String::from_utf8_lossy(&sent).contains("connect"), "it never came so far as to send a credential");
    link.close().await;
    timeout(PATIENCE, served).await.expect("closed").expect("served");
}

#[tokio::test]
async fn the_best_of_two_that_work_is_taken() {
    let ((one, first), (other, second)) = (listen().await, listen().await);
    // Saved in the wrong order; head starts decide.
    let world = World::new(None).path(PathKind::Public, &second).path(PathKind::Lan, &first);
    let (_one, _other) = (tokio::spawn(serve(one)), tokio::spawn(serve(other)));
    let link = world.open().await.expect("connects");
    assert_eq!(link.taken.clone().expect("a path").path.kind(), PathKind::Lan);
}

#[tokio::test]
async fn p_85_a_stranger_at_one_address_does_not_stop_the_gateway_at_another() {
    let key = DeviceKey::from_seed(&[7; 32]);
    let ((strange, first), (good, second)) = (listen().await, listen().await);
    let world = World::new(Some(&key)).path(PathKind::Lan, &first).path(PathKind::Tailnet, &second);
    let stranger = tokio::spawn(async move {
        let mut peer = Peer::accept(&strange).await;
        peer.proven_challenge(&DeviceKey::from_seed(&[8; 32]), None).await;
        peer.maybe_request().await
    });
    tokio::spawn(async move {
        let mut peer = Peer::accept(&good).await;
        peer.proven_challenge(&key, None).await;
        let connect = peer.request().await;
        peer.answer(&connect, hello_payload(4, &["operator.read"])).await;
        while peer.maybe_request().await.is_some() {}
    });
    let link = world.open().await.expect("the gateway");
    assert_eq!(link.taken.clone().expect("a path").path.kind(), PathKind::Tailnet);
    assert!(timeout(PATIENCE, stranger).await.expect("hung up on").expect("runs").is_none(), "it was sent nothing");
}

#[tokio::test]
async fn what_the_proven_gateway_says_ends_the_race() {
    let key = DeviceKey::from_seed(&[7; 32]);
    let ((one, first), (other, second)) = (listen().await, listen().await);
    let world = World::new(Some(&key)).path(PathKind::Lan, &first).path(PathKind::Public, &second);
    tokio::spawn(async move {
        let mut peer = Peer::accept(&one).await;
        peer.proven_challenge(&key, None).await;
        let connect = peer.request().await;
        let details = json!({"code": "AUTH_TOKEN_MISMATCH"});
        peer.refuse(&connect, json!({"code": "INVALID_REQUEST", "message": "unauthorized", "details": details})).await;
        peer.close(1008, "unauthorized").await;
    });
    let Err(error) = world.open().await else { panic!("refused") };
    assert_eq!((error.stage(), error.kind(), error.to_string().as_str()), (Stage::Auth, "auth", "unauthorized"));
    let Error::Paths(all) = &error else { panic!("{error:?}") };
    assert_eq!(all.failures.len(), 1, "a wrong token is not tried again elsewhere");
    assert!(timeout(Duration::ZERO, other.accept()).await.is_err(), "nobody came by the other path");
}

#[tokio::test]
async fn every_path_has_its_reason_and_the_furthest_leads() {
    let (one, first) = listen().await;
    let nobody =
        Endpoint::Url { url: GatewayUrl::loopback(1), pin: None, allow_private_names: false, edge: Vec::new() };
    let world = World::new(None).path(PathKind::Lan, &nobody).path(PathKind::Tailnet, &first);
    tokio::spawn(async move {
        let mut peer = Peer::accept(&one).await;
        peer.send(json!({"type": "event", "event": "greeting", "payload": {}})).await;
    });
    let Err(error) = world.open().await else { panic!("refused") };
    let Error::Paths(all) = &error else { panic!("{error:?}") };
    let stages: Vec<Stage> = all.failures.iter().map(|failure| failure.error.stage()).collect();
    assert_eq!(stages, [Stage::Connect, Stage::Protocol]);
    assert_eq!((error.stage(), error.to_string().as_str()), (Stage::Protocol, "none of the 2 paths to \"home\" works"));
}
