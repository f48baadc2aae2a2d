//! A session over two wires to one gateway, both played on loopback: what it does when a wire is cut or falls silent, and what
//! becomes of calls, events and subscriptions.

mod peer;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use openclaw_config::{Env, Paths, Profile, connections::PathKind};
use openclaw_protocol::Secret;
use openclaw_remote::{
    Error, GatewayUrl, Session,
    connect::{DeviceStore, DeviceUse, Secrets, StoredToken},
    path::{Direct, GatewayPath, Route},
    route::Tunnels,
    session::{Cause, Notice, PathNotice, Setup},
};
use peer::{Peer, hello_payload, params};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{broadcast, mpsc, watch},
    time::timeout,
};

/// Far beyond any wait that is right, so that only a hang runs into it.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Flows,
    /// Bytes wait; nobody hangs up.
    Silent,
    /// What was connected is broken, and nobody gets in.
    Cut,
}

/// A stretch of network that can fail.
struct Wire {
    port: u16,
    mode: watch::Sender<Mode>,
}

impl Wire {
    async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let own = listener.local_addr().expect("address").port();
        let (mode, state) = watch::channel(Mode::Flows);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let mut state = state.clone();
                tokio::spawn(async move {
                    if *state.borrow() == Mode::Cut {
                        return;
                    }
                    let far = TcpStream::connect(("127.0.0.1", port)).await.expect("the gateway listens");
                    for stream in [&near, &far] {
                        stream.set_nodelay(true).expect("option");
                    }
                    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                    let (up, down) = (state.clone(), state.clone());
                    tokio::select! {
                        () = carry(near_in, far_out, up) => {}
                        () = carry(far_in, near_out, down) => {}
                        _ = state.wait_for(|mode| *mode == Mode::Cut) => {}
                    }
                });
            }
        });
        Self { port: own, mode }
    }

    fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut state: watch::Receiver<Mode>,
) {
    let mut buffer = [0; 4096];
    loop {
        let Ok(length @ 1..) = from.read(&mut buffer).await else { return };
        if state.wait_for(|mode| *mode != Mode::Silent).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

/// A gateway that numbers its connections and notes every call as `connection method`.
struct Gateway {
    port: u16,
    calls: Arc<Mutex<Vec<String>>>,
    events: broadcast::Sender<String>,
    /// Events of the gateway's history, for `events.resume`.
    history: Arc<Mutex<Vec<String>>>,
    /// Held calls are answered when it is true.
    release: watch::Sender<bool>,
}

impl Gateway {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let port = listener.local_addr().expect("address").port();
        let (events, _) = broadcast::channel(64);
        let gateway = Self {
            port,
            calls: Arc::default(),
            events: events.clone(),
            history: Arc::default(),
            release: watch::channel(false).0,
        };
        let (calls, history) = (Arc::clone(&gateway.calls), Arc::clone(&gateway.history));
        let (count, release) = (AtomicUsize::new(0), gateway.release.subscribe());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = count.fetch_add(1, Ordering::SeqCst) + 1;
                let (calls, history) = (Arc::clone(&calls), Arc::clone(&history));
                tokio::spawn(serve(stream, number, calls, history, events.subscribe(), release.clone()));
            }
        });
        gateway
    }

    fn say(&self, name: &str) {
        self.history.lock().expect("lock").push(name.to_owned());
        let _ = self.events.send(name.to_owned());
    }

    fn calls(&self) -> Vec<String> {
        self.calls.lock().expect("lock").clone()
    }
}

async fn serve(
    stream: TcpStream,
    number: usize,
    calls: Arc<Mutex<Vec<String>>>,
    history: Arc<Mutex<Vec<String>>>,
    mut events: broadcast::Receiver<String>,
    release: watch::Receiver<bool>,
) {
    let mut peer = Peer::over(stream).await;
    peer.challenge().await;
    let Some(connect) = peer.maybe_request().await else { return };
    let joined = history.lock().expect("lock").len();
    let mut hello = hello_payload(4, &["operator.read"]);
    hello["server"]["connId"] = json!(format!("c-{number}"));
    hello["features"]["methods"] = json!(["health", "events.resume"]);
    peer.answer(&connect, hello).await;
    let mut seq = 0;
    let (held, mut freed) = mpsc::channel::<Value>(16);
    loop {
        tokio::select! {
            event = events.recv() => {
                let Ok(name) = event else { return };
                seq += 1;
                peer.send(json!({"type": "event", "event": name, "payload": {}, "seq": seq})).await;
            }
            Some(request) = freed.recv() => peer.answer(&request, json!({"by": number})).await,
            request = peer.maybe_request() => {
                let Some(request) = request else { return };
                let method = request["method"].as_str().expect("method").to_owned();
                calls.lock().expect("lock").push(format!("{number} {method}"));
                match method.as_str() {
                    // Reads and writes that take their time.
                    "sessions.list" | "node.invoke" => {
                        let (held, mut release) = (held.clone(), release.clone());
                        tokio::spawn(async move {
                            if release.wait_for(|free| *free).await.is_ok() {
                                let _ = held.send(request).await;
                            }
                        });
                    }
                    // Every connection joined after what the history held then; numbers are those of the first one.
                    "events.resume" => {
                        let from = usize::try_from(request["params"]["seq"].as_u64().expect("seq")).expect("small");
                        let missed: Vec<Value> = history.lock().expect("lock")[from..joined.max(from)]
                            .iter()
                            .map(|name| json!({"type": "event", "event": name, "payload": {}, "seq": 1}))
                            .collect();
                        peer.answer(&request, json!({"complete": true, "events": missed})).await;
                    }
                    _ => peer.answer(&request, json!({"by": number})).await,
                }
            }
        }
    }
}

struct NoDevice;

impl DeviceStore for NoDevice {
    fn key(&self, _: bool) -> Result<Option<openclaw_protocol::DeviceKey>, String> {
        Ok(None)
    }
    fn token(&self, _: &str, _: &str) -> Option<StoredToken> {
        None
    }
    fn remember(&self, _: &str, _: &str, _: &Secret, _: &[String]) {}
    fn forget(&self, _: &str, _: &str) {}
}

fn path(kind: PathKind, wire: &Wire) -> GatewayPath {
    GatewayPath::Direct(Box::new(Direct {
        kind,
        url: GatewayUrl::loopback(wire.port),
        pin: None,
        allow_private_names: false,
        edge: Vec::new(),
    }))
}

/// A gateway, its LAN and its tailnet, and a session.
struct World {
    gateway: Gateway,
    lan: Wire,
    tailnet: Wire,
    session: Session,
    notices: mpsc::Receiver<Notice>,
    _dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let gateway = Gateway::start().await;
        let (lan, tailnet) = (Wire::to(gateway.port).await, Wire::to(gateway.port).await);
        let dir = tempfile::tempdir().expect("dir");
        let env = Env::from_pairs([("OPENCLAW_STATE_DIR", dir.path().to_str().expect("path"))]);
        let paths = Paths::resolve(&env, Profile::Default).expect("paths");
        let route = Route {
            name: Some("home".parse().expect("name")),
            gateway: None,
            paths: vec![path(PathKind::Lan, &lan), path(PathKind::Tailnet, &tailnet)],
        };
        let setup = Setup {
            route,
            owner: None,
            params: params(),
            secrets: Ok(Secrets { token: Some(Secret::new("T")), password: None }),
            device: DeviceUse::Never,
            stored_tokens: false,
            store: Arc::new(NoDevice),
            tunnels: Tunnels::new(&paths),
            patience: Duration::from_secs(10),
        };
        let (session, notices) = Session::open(setup, &|_| ()).await.expect("connects");
        let mut world = Self { gateway, lan, tailnet, session, notices, _dir: dir };
        let first = world.moved().await;
        assert_eq!((first.cause, kind(&first)), (Cause::First, PathKind::Lan));
        world
    }

    async fn next(&mut self) -> Notice {
        timeout(PATIENCE, self.notices.recv()).await.expect("a notice in time").expect("the session lives")
    }

    /// The next change of path; what comes before it is passed over.
    async fn moved(&mut self) -> PathNotice {
        loop {
            if let Notice::Path(notice) = self.next().await {
                return notice;
            }
        }
    }

    /// Names of the next events; anything else but being away is an error.
    async fn events(&mut self, count: usize) -> Vec<String> {
        let mut names = Vec::new();
        while names.len() < count {
            match self.next().await {
                Notice::Event(event) => names.push(event.name),
                Notice::Away { .. } | Notice::Path(_) => {}
                other => panic!("{other:?} after {names:?}"),
            }
        }
        names
    }
}

fn kind(notice: &PathNotice) -> PathKind {
    notice.taken.as_ref().expect("a path").path.kind()
}

#[tokio::test]
async fn a_cut_wire_is_left_for_the_other() {
    let mut world = World::new().await;
    world.lan.set(Mode::Cut);
    let notice = world.moved().await;
    assert_eq!((notice.cause, kind(&notice)), (Cause::Ended, PathKind::Tailnet));
    assert!(notice.round_trip.is_some(), "{notice:?}");
    let answer = world.session.call("health", None, PATIENCE).await.expect("answered");
    assert_eq!(answer["by"], 2);
    world.session.close().await;
}

#[tokio::test]
async fn a_silent_wire_is_left_for_the_other() {
    let mut world = World::new().await;
    world.lan.set(Mode::Silent);
    let notice = world.moved().await;
    assert_eq!((notice.cause, kind(&notice)), (Cause::Silent, PathKind::Tailnet));
    assert!(world.session.path().is_some_and(|(taken, _)| taken.is_some_and(|taken| taken.index == 1)));
}

#[tokio::test]
async fn a_read_is_sent_again_and_a_write_is_reported() {
    let mut world = World::new().await;
    let (reads, writes, keyed) = (
        world.session.call("sessions.list", None, PATIENCE),
        async { world.session.call("node.invoke", Some(json!({"command": "x"})), PATIENCE).await },
        async { world.session.call("node.invoke", Some(json!({"idempotencyKey": "k"})), PATIENCE).await },
    );
    let cut = async {
        while world.gateway.calls().len() < 3 {
            tokio::task::yield_now().await;
        }
        world.lan.set(Mode::Cut);
        world.gateway.release.send_replace(true);
    };
    let (read, write, keyed, ()) = tokio::join!(reads, writes, keyed, cut);
    assert_eq!(read.expect("sent again")["by"], 2);
    assert_eq!(keyed.expect("sent again")["by"], 2);
    assert!(matches!(write, Err(Error::OutcomeUnknown { method }) if method == "node.invoke"));
    let mut calls = world.gateway.calls();
    calls.retain(|call| !call.contains("resume"));
    calls.sort();
    assert_eq!(calls, ["1 node.invoke", "1 node.invoke", "1 sessions.list", "2 node.invoke", "2 sessions.list"]);
    let notice = world.moved().await;
    assert_eq!(kind(&notice), PathKind::Tailnet);
}

#[tokio::test]
async fn events_of_the_gap_come_late_once_and_in_order() {
    let mut world = World::new().await;
    world.gateway.say("one");
    assert_eq!(world.events(1).await, ["one"]);
    // Nobody gets in until both wires are back.
    world.tailnet.set(Mode::Cut);
    world.lan.set(Mode::Cut);
    loop {
        if let Notice::Away { .. } = world.next().await {
            break;
        }
    }
    world.gateway.say("two");
    world.gateway.say("three");
    world.tailnet.set(Mode::Flows);
    world.session.nudge();
    let notice = world.moved().await;
    assert_eq!((notice.resumed, kind(&notice)), (2, PathKind::Tailnet));
    world.gateway.say("four");
    assert_eq!(world.events(3).await, ["two", "three", "four"]);
}

#[tokio::test]
async fn subscriptions_are_made_again() {
    let mut world = World::new().await;
    let key = Some(json!({"key": "main"}));
    world.session.subscribe("sessions.messages.subscribe", key, PATIENCE).await.expect("subscribed");
    world.lan.set(Mode::Cut);
    world.moved().await;
    let calls = world.gateway.calls();
    assert_eq!(calls, ["1 sessions.messages.subscribe", "2 sessions.messages.subscribe", "2 events.resume"]);
}

#[tokio::test]
async fn a_better_path_is_taken_and_what_is_under_way_finishes_where_it_is() {
    let mut world = World::new().await;
    world.lan.set(Mode::Cut);
    assert_eq!(kind(&world.moved().await), PathKind::Tailnet);
    let session = &world.session;
    let slow = session.call("node.invoke", Some(json!({})), PATIENCE);
    let notices = &mut world.notices;
    let back = async {
        while !world.gateway.calls().iter().any(|call| call == "2 node.invoke") {
            tokio::task::yield_now().await;
        }
        world.lan.set(Mode::Flows);
        session.nudge();
        let notice = loop {
            match timeout(PATIENCE, notices.recv()).await.expect("in time") {
                Some(Notice::Path(notice)) => break notice,
                Some(_) => {}
                None => panic!("the session ended"),
            }
        };
        world.gateway.release.send_replace(true);
        notice
    };
    let (answer, notice) = tokio::join!(slow, back);
    assert_eq!((notice.cause, kind(&notice), notice.away), (Cause::Better, PathKind::Lan, Duration::ZERO));
    assert_eq!(answer.expect("not lost")["by"], 2);
    assert_eq!(session.call("health", None, PATIENCE).await.expect("answered")["by"], 3);
}

#[tokio::test]
async fn while_away_calls_wait_and_time_out_as_they_were_told() {
    let world = World::new().await;
    world.tailnet.set(Mode::Cut);
    world.lan.set(Mode::Cut);
    let late = world.session.call("health", None, Duration::from_millis(300)).await;
    assert!(matches!(late, Err(Error::Timeout { .. })), "{late:?}");
    let (answer, ()) = tokio::join!(world.session.call("health", None, PATIENCE), async {
        world.lan.set(Mode::Flows);
        world.session.nudge();
    });
    assert!(answer.is_ok(), "{answer:?}");
    world.session.close().await;
}
