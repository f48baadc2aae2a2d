//! Tables of the nodes room: approved and waiting capability surfaces, protocol 3 node tokens, wake words.

use openclaw_protocol::DeviceId;
use rusqlite::{Connection, OptionalExtension as _, Row, params, types::Type};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    nodes::{
        legacy::{LegacyNode, LegacyPairing},
        registry::Remembered,
        surface::{Approved, Details, NodeChange, Pending, Record, Surface, Surfaces},
    },
    pairing::RequestId,
};

/// A node is gone with its device: whoever removes the one cannot forget the other.
pub(super) const SCHEMA_1: &str = "
    CREATE TABLE nodes (
        node_id        TEXT PRIMARY KEY REFERENCES devices ON DELETE CASCADE,
        display_name   TEXT,
        created_at_ms  INTEGER,
        approved_at_ms INTEGER,
        approved       TEXT, -- JSON, as is pending
        request_id     TEXT UNIQUE,
        requested_at_ms INTEGER,
        silent         INTEGER,
        pending        TEXT
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE legacy_nodes (
        node_id        TEXT PRIMARY KEY,
        token_hash     TEXT NOT NULL,
        offer          TEXT NOT NULL, -- JSON
        created_at_ms  INTEGER NOT NULL,
        approved_at_ms INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE voicewake (
        only_row       INTEGER PRIMARY KEY CHECK (only_row = 1),
        triggers       TEXT NOT NULL -- JSON
    ) STRICT;
";

/// What a node offers, in one column: nothing ever looks inside but this gateway.
#[derive(Serialize, Deserialize)]
struct Offer<S, D> {
    surface: S,
    details: D,
}

pub(super) fn apply(connection: &Connection, change: &NodeChange) -> rusqlite::Result<()> {
    match change {
        NodeChange::Put(record) => put(connection, record),
        NodeChange::Delete(id) => {
            connection.prepare_cached("DELETE FROM nodes WHERE node_id = ?1")?.execute([id.as_str()]).map(drop)
        }
        NodeChange::PutLegacy(node) => {
            connection.prepare_cached("INSERT OR REPLACE INTO legacy_nodes VALUES (?1,?2,?3,?4,?5)")?.execute(
                params![
                    node.node_id,
                    node.token_hash,
                    json(&Offer { surface: &node.surface, details: &node.details })?,
                    node.created_at_ms,
                    node.approved_at_ms,
                ],
            )?;
            Ok(())
        }
        NodeChange::DeleteLegacy(id) => {
            connection.prepare_cached("DELETE FROM legacy_nodes WHERE node_id = ?1")?.execute([id]).map(drop)
        }
        NodeChange::SetTriggers(triggers) => connection
            .prepare_cached("INSERT OR REPLACE INTO voicewake VALUES (1, ?1)")?
            .execute([json(triggers)?])
            .map(drop),
    }
}

fn put(connection: &Connection, record: &Record) -> rusqlite::Result<()> {
    let (approved, pending) = (record.approved.as_ref(), record.pending.as_ref());
    let offer = |surface: &Surface, details: &Details| json(&Offer { surface, details });
    connection
        .prepare_cached("INSERT OR REPLACE INTO nodes VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9)")?
        .execute(params![
            record.node_id.as_str(),
            record.display_name,
            approved.map(|a| a.created_at_ms),
            approved.map(|a| a.approved_at_ms),
            approved.map(|a| offer(&a.surface, &a.details)).transpose()?,
            pending.map(|p| p.id.as_str()),
            pending.map(|p| p.requested_at_ms),
            pending.map(|p| p.silent),
            pending.map(|p| offer(&p.surface, &p.details)).transpose()?,
        ])
        .map(drop)
}

/// Reads everything the nodes room remembers. As with devices, a row that makes no sense fails the load by name.
pub(crate) fn load(connection: &Connection) -> rusqlite::Result<Remembered> {
    let mut statement = connection.prepare("SELECT * FROM nodes")?;
    let records = statement.query_and_then([], record)?.collect::<rusqlite::Result<Vec<_>>>()?;
    let mut statement = connection.prepare("SELECT * FROM legacy_nodes")?;
    let legacy = statement.query_and_then([], legacy)?.collect::<rusqlite::Result<Vec<_>>>()?;
    let triggers = connection
        .query_row("SELECT triggers FROM voicewake", [], |row| parsed("triggers", &row.get::<_, String>(0)?))
        .optional()?;
    Ok(Remembered {
        surfaces: Surfaces::from_rows(records),
        legacy: LegacyPairing::from_rows(legacy),
        triggers: triggers.unwrap_or_default(),
    })
}

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    let id: String = row.get("node_id")?;
    let offer = |column: &'static str| -> rusqlite::Result<Option<Offer<Surface, Details>>> {
        row.get::<_, Option<String>>(column)?.map(|text| parsed(column, &text)).transpose()
    };
    let approved = match offer("approved")? {
        None => None,
        Some(Offer { surface, details }) => Some(Approved {
            surface,
            details,
            created_at_ms: row.get("created_at_ms")?,
            approved_at_ms: row.get("approved_at_ms")?,
        }),
    };
    let pending = match offer("pending")? {
        None => None,
        Some(Offer { surface, details }) => Some(Pending {
            id: RequestId::new(row.get::<_, String>("request_id")?),
            surface,
            details,
            silent: row.get("silent")?,
            requested_at_ms: row.get("requested_at_ms")?,
        }),
    };
    Ok(Record {
        node_id: DeviceId::parse(&id).ok_or_else(|| unreadable("node_id", &id))?,
        display_name: row.get("display_name")?,
        approved,
        pending,
    })
}

fn legacy(row: &Row<'_>) -> rusqlite::Result<LegacyNode> {
    let Offer { surface, details } = parsed("offer", &row.get::<_, String>("offer")?)?;
    Ok(LegacyNode {
        node_id: row.get("node_id")?,
        details,
        surface,
        token_hash: row.get("token_hash")?,
        created_at_ms: row.get("created_at_ms")?,
        approved_at_ms: row.get("approved_at_ms")?,
    })
}

fn json(value: &impl Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

fn parsed<T: DeserializeOwned>(column: &str, text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text).map_err(|_| unreadable(column, text))
}

fn unreadable(column: &str, text: &str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, format!("column {column} holds {text:?}").into())
}
