//! Who is here: the gateway itself first, then interactive clients and nodes.

use std::sync::{Arc, Mutex};

use openclaw_protocol::{Protocol, event, method::system::PresenceEntry};
use serde_json::value::RawValue;

use crate::hub::{Connection, Hub};

/// Entries kept at once; the one updated longest ago goes first.
const MAX_ENTRIES: usize = 200;
/// A disconnected entry is shown this long, ms.
const GONE_AFTER_MS: i64 = 5 * 60 * 1000;

#[derive(Debug)]
struct Row {
    key: String,
    entry: PresenceEntry,
    connected: bool,
}

#[derive(Debug)]
struct State {
    this: PresenceEntry,
    rows: Vec<Row>,
    /// The list as JSON, made once per change.
    json: Arc<RawValue>,
}

/// The presence list.
#[derive(Debug)]
pub struct Presence(Mutex<State>);

impl Presence {
    pub fn new(this: PresenceEntry) -> Self {
        let json = to_json(&this, &[]);
        Self(Mutex::new(State { this, rows: Vec::new(), json }))
    }

    /// The list as JSON.
    pub fn json(&self) -> Arc<RawValue> {
        match self.0.lock() {
            Ok(state) => Arc::clone(&state.json),
            Err(poisoned) => Arc::clone(&poisoned.into_inner().json),
        }
    }

    /// A connection was admitted. CLI calls, probes and backends come and go by the hundred and are not shown; protocol 3
    /// hides only the mode `cli`.
    pub fn connected(&self, hub: &Hub, connection: &Connection, now_ms: i64) {
        if !is_shown(connection) {
            return;
        }
        let entry = entry_of(connection, "connect", now_ms);
        self.update(hub, now_ms, |rows| upsert(rows, Row { key: key_of(connection), entry, connected: true }));
    }

    /// A connection ended.
    pub fn disconnected(&self, hub: &Hub, connection: &Connection, now_ms: i64) {
        if !is_shown(connection) {
            return;
        }
        let entry = entry_of(connection, "disconnect", now_ms);
        self.update(hub, now_ms, |rows| upsert(rows, Row { key: key_of(connection), entry, connected: false }));
    }

    /// A line reported by `system-event`.
    pub fn reported(&self, hub: &Hub, key: String, entry: PresenceEntry, now_ms: i64) {
        self.update(hub, now_ms, |rows| upsert(rows, Row { key, entry, connected: false }));
    }

    fn update(&self, hub: &Hub, now_ms: i64, change: impl FnOnce(&mut Vec<Row>)) {
        let json = {
            let Ok(mut state) = self.0.lock() else { return };
            change(&mut state.rows);
            state.rows.retain(|row| row.connected || now_ms - row.entry.ts < GONE_AFTER_MS);
            if state.rows.len() > MAX_ENTRIES {
                let oldest = state.rows.iter().enumerate().min_by_key(|(_, row)| (row.connected, row.entry.ts));
                if let Some(index) = oldest.map(|(index, _)| index) {
                    state.rows.remove(index);
                }
            }
            state.json = to_json(&state.this, &state.rows);
            hub.bump_presence();
            Arc::clone(&state.json)
        };
        hub.broadcast_state(event::PRESENCE, format!("{{\"presence\":{}}}", json.get()).as_bytes());
    }
}

fn upsert(rows: &mut Vec<Row>, row: Row) {
    match rows.iter_mut().find(|known| known.key == row.key) {
        Some(known) => *known = row,
        None => rows.push(row),
    }
}

fn to_json(this: &PresenceEntry, rows: &[Row]) -> Arc<RawValue> {
    let list: Vec<&PresenceEntry> = std::iter::once(this).chain(rows.iter().map(|row| &row.entry)).collect();
    let raw = serde_json::value::to_raw_value(&list).unwrap_or_else(|_| RawValue::NULL.to_owned());
    Arc::from(raw)
}

fn is_shown(connection: &Connection) -> bool {
    match connection.protocol {
        Protocol::V4 => !matches!(connection.params.client.mode.as_str(), "cli" | "probe" | "backend"),
        Protocol::V3 => connection.params.client.mode != "cli",
    }
}

fn key_of(connection: &Connection) -> String {
    let client = &connection.params.client;
    match (&connection.device, &client.instance_id) {
        (Some(device), _) => format!("{device}/{}", connection.role),
        (None, Some(instance)) => instance.clone(),
        (None, None) => connection.id.clone(),
    }
}

fn entry_of(connection: &Connection, reason: &str, now_ms: i64) -> PresenceEntry {
    let client = &connection.params.client;
    let host = client.display_name.clone().unwrap_or_else(|| client.id.clone());
    PresenceEntry {
        text: format!("Node: {host} · mode {}", client.mode),
        host: Some(host),
        ip: Some(connection.address.clone()),
        version: Some(client.version.clone()),
        platform: Some(client.platform.clone()),
        device_family: client.device_family.clone(),
        model_identifier: client.model_identifier.clone(),
        time_zone: client.time_zone.clone(),
        mode: Some(client.mode.clone()),
        reason: Some(reason.to_owned()),
        ts: now_ms,
        client_id: Some(client.id.clone()),
        device_id: connection.device.clone(),
        roles: vec![connection.role.to_string()],
        scopes: connection.scopes.names().into_iter().map(str::to_owned).collect(),
        instance_id: client.instance_id.clone().or_else(|| connection.device.as_ref().map(|d| d.to_string())),
        online_since: (reason == "connect").then_some(connection.connected_at_ms),
        ..PresenceEntry::default()
    }
}
