//! Nodes with a real database and connections without sockets.

mod invoke;
mod lifecycle;
mod surface;

use std::sync::{Arc, atomic::AtomicU64};

use openclaw_protocol::{DeviceId, DeviceKey, Protocol, Role, ScopeSet, connect::ConnectParams, hello::AuthMethod};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    live::LiveNode,
    registry::Nodes,
    surface::{Consent, Details, Surface},
};
use crate::{
    auth::evidence::ClientKey,
    connection::outbound::Outbound,
    hub::Connection,
    pairing::{ClientMeta, DeviceChange, PairedDevice, RequestId},
    store::Store,
};

static NUMBERS: AtomicU64 = AtomicU64::new(1);

fn key(seed: u8) -> DeviceKey {
    DeviceKey::from_seed(&[seed; 32])
}

fn id(seed: u8) -> DeviceId {
    key(seed).id()
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|&text| text.to_owned()).collect()
}

fn commands(list: &[&str]) -> Surface {
    Surface { commands: names(list), ..Surface::default() }
}

fn params(role: Role, commands: &[&str]) -> ConnectParams {
    let (id, mode) = if role == Role::Node { ("node-host", "node") } else { ("cli", "cli") };
    let params = json!({
        "minProtocol": 3, "maxProtocol": 4, "role": role.as_str(), "commands": commands,
        "client": {"id": id, "mode": mode, "version": "1", "platform": "linux", "deviceFamily": "Linux",
                   "displayName": "Node A"}
    });
    ConnectParams::parse(&params).expect("connect params")
}

fn connection(role: Role, device: Option<u8>, scopes: ScopeSet, commands: &[&str]) -> Arc<Connection> {
    let number = NUMBERS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    Arc::new(Connection {
        number,
        id: format!("conn-{number}"),
        role,
        scopes,
        protocol: Protocol::V4,
        method: AuthMethod::Token,
        device: device.map(id),
        params: params(role, commands),
        address: "192.0.2.7".into(),
        key: ClientKey::V4([192, 0, 2, 7]),
        direct_local: false,
        owner: false,
        browser: false,
        secret_generation: None,
        connected_at_ms: 1_000,
        outbound: Outbound::default(),
        joined: crate::history::Joined::default(),
        addressed: std::sync::atomic::AtomicU64::new(0),
    })
}

fn operator(scopes: ScopeSet) -> Arc<Connection> {
    connection(Role::Operator, None, scopes, &[])
}

fn node(seed: u8, commands: &[&str]) -> Arc<LiveNode> {
    LiveNode::new(&connection(Role::Node, Some(seed), ScopeSet::EMPTY, commands)).expect("has a device")
}

/// The event frames a connection was sent since the last look, as (name, payload).
fn events(connection: &Connection) -> Vec<(String, Value)> {
    let mut out = Vec::new();
    connection.outbound.drain(&mut out);
    let (mut rest, mut events) = (out.as_slice(), Vec::new());
    while let [first, length, tail @ ..] = rest {
        assert_eq!(*first, 0x81, "a whole text frame");
        let (length, tail) = match *length {
            126 => (usize::from(u16::from_be_bytes([tail[0], tail[1]])), &tail[2..]),
            127 => panic!("a frame too large for a test"),
            short => (usize::from(short), tail),
        };
        let mut frame: Value = serde_json::from_slice(&tail[..length]).expect("JSON");
        assert_eq!(frame.get("seq"), None, "point-to-point events carry no number");
        events.push((frame["event"].as_str().unwrap_or_default().to_owned(), frame["payload"].take()));
        rest = &tail[length..];
    }
    events
}

/// The nodes room over a database in which the devices `seeds` are paired.
struct Room {
    nodes: Arc<Nodes>,
    store: Store,
    _dir: TempDir,
}

impl Room {
    async fn new(seeds: &[u8]) -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        let store = Store::open(&dir.path().join("db.sqlite")).expect("opens");
        let devices = seeds.iter().map(|seed| DeviceChange::PutDevice(Box::new(paired_device(*seed))));
        store.commit(devices).await.expect("saves");
        let nodes = Arc::new(Nodes::load(&store).expect("loads"));
        Self { nodes, store, _dir: dir }
    }

    /// A room where one node is connected and may run `commands`.
    async fn with_node(commands: &[&str]) -> (Self, Arc<LiveNode>) {
        let room = Self::new(&[1]).await;
        let live = node(1, commands);
        room.approve(&live).await;
        assert!(room.nodes.attach(&live));
        (room, live)
    }

    /// The owner approves all that a node declares.
    async fn approve(&self, node: &LiveNode) {
        let (declared, details) = (node.declared.clone(), Details::of(&node.connection.params));
        let changed = self.nodes.change(|r| {
            let effects = r.surfaces.reconcile(1, RequestId::random(), &node.id, declared, details, Consent::Given);
            Ok::<_, std::convert::Infallible>(((), effects))
        });
        changed.await.expect("saves");
    }
}

fn paired_device(seed: u8) -> PairedDevice {
    PairedDevice {
        id: id(seed),
        public_key: key(seed).public(),
        client: ClientMeta::default(),
        label: None,
        role: Role::Node,
        roles: [Role::Node].into_iter().collect(),
        approved_scopes: ScopeSet::EMPTY,
        approved_via: None,
        tokens: Default::default(),
        created_at_ms: 1,
        approved_at_ms: 1,
        last_seen_at_ms: None,
        last_seen_reason: None,
    }
}
