//! The table of one-time pairing tokens. Of the tokens themselves only a hash is ever here.

use openclaw_protocol::ScopeSet;
use rusqlite::{Connection, Row, params};

use super::devices::{joined, parsed, scopes};
use crate::pairing::{Bootstrap, Rights, Sponsor, TokenDigest};

pub(super) const SCHEMA_1: &str = "
    CREATE TABLE bootstrap_tokens (
        digest           TEXT PRIMARY KEY, -- SHA-256 of the token, in hex
        setup_id         TEXT NOT NULL,
        node             INTEGER NOT NULL,
        operator_scopes  TEXT, -- absent: no operator; space separated
        label            TEXT,
        sponsor          TEXT NOT NULL,
        created_at_ms    INTEGER NOT NULL,
        expires_at_ms    INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
";

pub(super) const SCHEMA_2: &str = "
    ALTER TABLE bootstrap_tokens ADD COLUMN join_answer TEXT; -- what its join URL answers once, without the token
";

pub(super) fn put(connection: &Connection, bootstrap: &Bootstrap) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO bootstrap_tokens VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9)")?
        .execute(params![
            bootstrap.digest.as_str(),
            bootstrap.setup_id,
            bootstrap.rights.node,
            bootstrap.rights.operator.map(joined),
            bootstrap.label,
            bootstrap.sponsor.to_text(),
            bootstrap.created_at_ms,
            bootstrap.expires_at_ms,
            bootstrap.join,
        ])
        .map(drop)
}

pub(super) fn delete(connection: &Connection, digest: &TokenDigest) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM bootstrap_tokens WHERE digest = ?1")?.execute([digest.as_str()]).map(drop)
}

pub(super) fn load(connection: &Connection) -> rusqlite::Result<Vec<Bootstrap>> {
    let mut statement = connection.prepare("SELECT * FROM bootstrap_tokens")?;
    statement.query_and_then([], bootstrap)?.collect()
}

fn bootstrap(row: &Row<'_>) -> rusqlite::Result<Bootstrap> {
    let operator = match row.get::<_, Option<String>>("operator_scopes")? {
        Some(_) => Some(scopes(row, "operator_scopes")?),
        None => None::<ScopeSet>,
    };
    Ok(Bootstrap {
        digest: TokenDigest::new(row.get::<_, String>("digest")?),
        setup_id: row.get("setup_id")?,
        rights: Rights { node: row.get("node")?, operator },
        label: row.get("label")?,
        sponsor: parsed(row, "sponsor", Sponsor::parse)?,
        created_at_ms: row.get("created_at_ms")?,
        expires_at_ms: row.get("expires_at_ms")?,
        join: row.get("join_answer")?,
    })
}
