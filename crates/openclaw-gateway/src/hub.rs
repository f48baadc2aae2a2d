//! Authenticated connections, and events to them.
//!
//! An event is serialised once; each receiver gets the shared bytes and its own sequence number. The audience comes with
//! the event's type ([`Gate`]), so an event without a stated audience cannot be sent.
//!
//! Broadcasts, and connections that come and go, take turns by the lock of [`History`]: so every connection hears events in
//! one order, and what it missed can be told afterwards.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use openclaw_protocol::{
    CloseReason, DeviceId, Protocol, Role, ScopeSet,
    connect::ConnectParams,
    event::{Event, Gate},
    frame::{EventHead, StateVersion, event_tail},
    hello::AuthMethod,
};
use serde::Serialize;

use crate::{
    auth::evidence::ClientKey,
    connection::outbound::Outbound,
    history::{Caller, Ears, History, Incomplete, Joined, Trace},
    pairing::IssuerGeneration,
};

/// An authenticated connection. What it may do was decided once, when it was admitted; taking rights away means closing it.
#[derive(Debug)]
pub struct Connection {
    /// Process-wide number, never reused.
    pub number: u64,
    /// `server.connId` of the hello.
    pub id: String,
    pub role: Role,
    pub scopes: ScopeSet,
    pub protocol: Protocol,
    pub method: AuthMethod,
    pub device: Option<DeviceId>,
    /// The connect request without its secrets.
    pub params: ConnectParams,
    /// Client address as text; `unix` for the owner's socket.
    pub address: String,
    pub key: ClientKey,
    /// Direct connection from this machine.
    pub direct_local: bool,
    /// Came over the owner's socket.
    pub owner: bool,
    /// Came from a browser (an `Origin` was sent).
    pub browser: bool,
    /// Generation of the shared secret that was proven, if one was.
    pub secret_generation: Option<IssuerGeneration>,
    pub connected_at_ms: i64,
    pub outbound: Outbound,
    /// Where in the stream of events it joined; set by [`Hub::add`].
    pub joined: Joined,
    /// Events that were addressed to it and not to a gate.
    pub addressed: AtomicU64,
}

impl Connection {
    /// Sends a point-to-point event: no sequence number.
    pub fn send_event(&self, name: &str, payload: &impl Serialize) {
        let Ok(payload) = serde_json::to_vec(payload) else { return };
        let mut frame = EventHead::new(name, &payload).bytes().to_vec();
        frame.extend_from_slice(event_tail(None, None).as_bytes());
        self.outbound.push(frame);
    }

    fn ears(&self) -> Ears {
        Ears { role: self.role, scopes: self.scopes }
    }

    fn hears(&self, gate: Gate) -> bool {
        self.ears().hear(gate)
    }

    fn trace(&self) -> Trace {
        Trace {
            number: self.number,
            caller: Caller { device: self.device.clone(), method: self.method, role: self.role },
            ears: self.ears(),
            protocol: self.protocol,
            joined: self.joined,
            addressed: self.addressed.load(Ordering::Relaxed),
        }
    }
}

/// The set of live connections.
#[derive(Debug, Default)]
pub struct Hub {
    connections: RwLock<HashMap<u64, Arc<Connection>>>,
    numbers: AtomicU64,
    /// Also the event counter shared by all protocol 3 connections. Locked before `connections`.
    history: Mutex<History>,
    presence_version: AtomicU64,
    health_version: AtomicU64,
}

impl Hub {
    pub fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn history(&self) -> MutexGuard<'_, History> {
        // A panic between two of its fields costs at worst an event that is said to be missing.
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on events are queued for it.
    pub fn add(&self, mut connection: Connection) -> Arc<Connection> {
        let history = self.history();
        connection.joined = history.join(connection.ears());
        let connection = Arc::new(connection);
        if let Ok(mut map) = self.connections.write() {
            map.insert(connection.number, Arc::clone(&connection));
        }
        connection
    }

    pub fn remove(&self, number: u64) {
        let mut history = self.history();
        if let Ok(mut map) = self.connections.write() {
            if let Some(gone) = map.remove(&number) {
                history.part(gone.id.clone(), gone.trace());
            }
            if map.capacity() > 4 * (map.len() + 16) {
                map.shrink_to_fit();
            }
        }
    }

    pub fn get(&self, number: u64) -> Option<Arc<Connection>> {
        self.connections.read().ok()?.get(&number).cloned()
    }

    pub fn count(&self) -> usize {
        self.connections.read().map_or(0, |map| map.len())
    }

    /// Connections that match, in no particular order.
    pub fn select(&self, wanted: impl Fn(&Connection) -> bool) -> Vec<Arc<Connection>> {
        self.connections.read().map_or_else(|_| Vec::new(), |map| map.values().filter(|c| wanted(c)).cloned().collect())
    }

    /// The newest live connection of a node.
    pub fn node(&self, id: &DeviceId) -> Option<Arc<Connection>> {
        let map = self.connections.read().ok()?;
        let mine = map.values().filter(|c| c.role == Role::Node && c.device.as_ref() == Some(id));
        mine.filter(|c| !c.outbound.is_closing()).max_by_key(|c| c.number).cloned()
    }

    /// True while the device has any live connection.
    pub fn is_connected(&self, id: &DeviceId) -> bool {
        self.connections.read().is_ok_and(|map| map.values().any(|c| c.device.as_ref() == Some(id)))
    }

    pub fn versions(&self) -> StateVersion {
        StateVersion {
            presence: self.presence_version.load(Ordering::Relaxed),
            health: self.health_version.load(Ordering::Relaxed),
        }
    }

    pub fn bump_presence(&self) {
        self.presence_version.fetch_add(1, Ordering::Relaxed);
    }

    pub fn bump_health(&self) {
        self.health_version.fetch_add(1, Ordering::Relaxed);
    }

    /// Sends an event to everyone its gate lets through.
    pub fn broadcast(&self, event: Event, payload: &impl Serialize) {
        if let Ok(bytes) = serde_json::to_vec(payload) {
            self.broadcast_bytes(event, &bytes, None);
        }
    }

    /// As [`Hub::broadcast`], to those connections within the gate that are wanted; the payload may differ by protocol.
    /// Returns how many there are.
    pub fn send_where<P: Serialize>(
        &self,
        event: Event,
        payload: impl Fn(Protocol) -> P,
        wanted: impl Fn(&Connection) -> bool,
    ) -> usize {
        let head =
            |protocol| serde_json::to_vec(&payload(protocol)).ok().map(|bytes| EventHead::new(event.name, &bytes));
        let (Some(v3), Some(v4)) = (head(Protocol::V3), head(Protocol::V4)) else { return 0 };
        let mut history = self.history();
        let hearers = self.select(|c| c.hears(event.gate) && !c.outbound.is_closing() && wanted(c));
        let seq = history.address(event.gate, hearers.iter().map(|c| c.number), [v3.clone(), v4.clone()]);
        for connection in &hearers {
            connection.addressed.fetch_add(1, Ordering::Relaxed);
            let head = if connection.protocol == Protocol::V3 { &v3 } else { &v4 };
            connection.outbound.push_event(head, None, seq, connection.protocol, event.drop_if_slow);
        }
        hearers.len()
    }

    /// As [`Hub::broadcast`], with `stateVersion`; for `presence` and `health`.
    pub fn broadcast_state(&self, event: Event, payload: &[u8]) {
        self.broadcast_bytes(event, payload, Some(self.versions()));
    }

    fn broadcast_bytes(&self, event: Event, payload: &[u8], version: Option<StateVersion>) {
        let head = EventHead::new(event.name, payload);
        let mut history = self.history();
        let seq = history.broadcast(event.gate, &head, version);
        let Ok(map) = self.connections.read() else { return };
        for connection in map.values().filter(|c| c.hears(event.gate)) {
            connection.outbound.push_event(&head, version, seq, connection.protocol, event.drop_if_slow);
        }
    }

    /// What `asker` missed on the connection `conn_id`, after the event it saw there last: event frames as JSON.
    ///
    /// # Errors
    /// [`Incomplete`] when something may be missing.
    pub fn missed(&self, asker: &Connection, conn_id: &str, last_seen: u64) -> Result<Vec<Vec<u8>>, Incomplete> {
        let history = self.history();
        let living = self.select(|c| c.id == conn_id).first().map(|c| c.trace());
        history.missed(&asker.trace(), conn_id, living, last_seen)
    }

    /// Closes at once every connection that matches. Returns how many there were.
    pub fn abort_where(&self, reason: &CloseReason, wanted: impl Fn(&Connection) -> bool) -> usize {
        let doomed = self.select(wanted);
        doomed.iter().for_each(|connection| connection.outbound.abort(reason.clone()));
        doomed.len()
    }

    /// Asks every connection to close after what is queued for it.
    pub fn close_all(&self, reason: &CloseReason) {
        self.select(|_| true).iter().for_each(|connection| connection.outbound.close(reason.clone()));
    }
}
