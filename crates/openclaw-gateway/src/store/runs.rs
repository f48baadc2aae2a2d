//! Tables of the runs room: what was asked, how far it got, and which tools were started and have not answered.

use openclaw_channels::message::Address;
use rusqlite::{Connection, OptionalExtension as _, Row, params, types::Type};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    runs::{
        RunId, RunOutcome,
        record::{Delivery, RunChange, RunRow, StartedTool, State},
    },
    sessions::SessionKey,
};

/// `request` is emptied once it is answered: it may hold whole files.
pub(super) const SCHEMA_1: &str = "
    CREATE TABLE runs (
        run_id       TEXT PRIMARY KEY,
        session_key  TEXT NOT NULL,
        session_id   TEXT,
        state        TEXT NOT NULL CHECK (state IN ('queued', 'running', 'ended')),
        digest       TEXT NOT NULL,
        request      TEXT NOT NULL, -- JSON, as are outcome and delivery
        submitted_ms INTEGER NOT NULL,
        started_ms   INTEGER,
        ended_ms     INTEGER,
        outcome      TEXT,
        kind         TEXT NOT NULL CHECK (kind IN ('chat', 'command')),
        deliver      TEXT, -- where the reply goes, JSON
        delivery     TEXT NOT NULL,
        open         INTEGER NOT NULL -- 1 while something is left to do after a crash
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX runs_session ON runs (session_key, ended_ms);
    CREATE INDEX runs_open ON runs (submitted_ms) WHERE open = 1;
    CREATE INDEX runs_ended ON runs (ended_ms) WHERE open = 0;
    CREATE TABLE run_tools (
        run_id     TEXT NOT NULL REFERENCES runs ON DELETE CASCADE,
        call_id    TEXT NOT NULL,
        name       TEXT NOT NULL,
        started_ms INTEGER NOT NULL,
        PRIMARY KEY (run_id, call_id)
    ) STRICT, WITHOUT ROWID;
";

pub(super) fn apply(connection: &Connection, change: &RunChange) -> rusqlite::Result<()> {
    match change {
        RunChange::Insert(row) => insert(connection, row),
        RunChange::Started { run_id, session_id, at_ms } => connection
            .prepare_cached("UPDATE runs SET state = 'running', session_id = ?2, started_ms = ?3 WHERE run_id = ?1")?
            .execute(params![run_id.0, session_id, at_ms])
            .map(drop),
        RunChange::ToolStarted { run_id, call_id, name, at_ms } => connection
            .prepare_cached("INSERT OR REPLACE INTO run_tools VALUES (?1,?2,?3,?4)")?
            .execute(params![run_id.0, call_id, name, at_ms])
            .map(drop),
        RunChange::ToolEnded { run_id, call_id } => connection
            .prepare_cached("DELETE FROM run_tools WHERE run_id = ?1 AND call_id = ?2")?
            .execute(params![run_id.0, call_id])
            .map(drop),
        RunChange::Ended { run_id, outcome, delivery } => {
            connection.prepare_cached("DELETE FROM run_tools WHERE run_id = ?1")?.execute([&run_id.0])?;
            connection
                .prepare_cached(
                    "UPDATE runs SET state = 'ended', ended_ms = ?2, outcome = ?3, delivery = ?4, open = ?5,
                     request = CASE WHEN ?5 = 1 THEN request ELSE '' END WHERE run_id = ?1",
                )?
                .execute(params![run_id.0, outcome.ended_ms, json(outcome)?, json(delivery)?, delivery.is_open()])
                .map(drop)
        }
        RunChange::Delivery { run_id, delivery } => connection
            .prepare_cached(
                "UPDATE runs SET delivery = ?2, open = (state != 'ended' OR ?3 = 1),
                 request = CASE WHEN state != 'ended' OR ?3 = 1 THEN request ELSE '' END WHERE run_id = ?1",
            )?
            .execute(params![run_id.0, json(delivery)?, delivery.is_open()])
            .map(drop),
        RunChange::Prune { before_ms } => connection
            .prepare_cached("DELETE FROM runs WHERE open = 0 AND ended_ms < ?1")?
            .execute([before_ms])
            .map(drop),
    }
}

fn insert(connection: &Connection, row: &RunRow) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT INTO runs VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14)")?
        .execute(params![
            row.run_id.0,
            row.session.as_str(),
            row.session_id,
            row.state.as_str(),
            row.digest,
            row.request,
            row.submitted_ms,
            row.started_ms,
            row.ended_ms,
            row.outcome.as_ref().map(json).transpose()?,
            if row.command { "command" } else { "chat" },
            row.deliver.as_ref().map(json).transpose()?,
            json(&row.delivery)?,
            row.state != State::Ended || row.delivery.is_open(),
        ])
        .map(drop)
}

/// What a crash or a stop left undone, oldest first.
pub(crate) fn open(connection: &Connection) -> rusqlite::Result<Vec<(RunRow, Vec<StartedTool>)>> {
    let mut statement = connection.prepare("SELECT * FROM runs WHERE open = 1 ORDER BY submitted_ms, run_id")?;
    let rows = statement.query_and_then([], run)?.collect::<rusqlite::Result<Vec<_>>>()?;
    let mut tools = connection.prepare("SELECT call_id, name FROM run_tools WHERE run_id = ?1 ORDER BY started_ms")?;
    rows.into_iter()
        .map(|row| {
            let started = tools.query_map([&row.run_id.0], |tool| {
                Ok(StartedTool { call_id: tool.get("call_id")?, name: tool.get("name")? })
            })?;
            let started = started.collect::<rusqlite::Result<Vec<_>>>()?;
            Ok((row, started))
        })
        .collect()
}

/// One run.
pub(crate) fn get(connection: &Connection, id: &str) -> rusqlite::Result<Option<RunRow>> {
    connection
        .prepare_cached("SELECT * FROM runs WHERE run_id = ?1")?
        .query_and_then([id], run)?
        .next()
        .transpose()
        .optional()
        .map(Option::flatten)
}

/// The last answer of a session, for `/last`: in a chat of a channel, the last one to that chat.
pub(crate) fn last_reply(
    connection: &Connection,
    session: &str,
    to: Option<&Address>,
) -> rusqlite::Result<Option<RunOutcome>> {
    let to = to.map(json).transpose()?;
    let text: Option<Option<String>> = connection
        .prepare_cached(
            "SELECT outcome FROM runs WHERE session_key = ?1 AND state = 'ended' AND kind = 'chat'
             AND (?2 IS NULL OR deliver = ?2) ORDER BY ended_ms DESC, run_id LIMIT 1",
        )?
        .query_row(params![session, to], |row| row.get(0))
        .optional()?;
    text.flatten().map(|text| parsed("outcome", &text)).transpose()
}

fn run(row: &Row<'_>) -> rusqlite::Result<RunRow> {
    let key: String = row.get("session_key")?;
    let state: String = row.get("state")?;
    let outcome: Option<String> = row.get("outcome")?;
    Ok(RunRow {
        run_id: RunId(row.get("run_id")?),
        session: SessionKey::stored(key.clone()).ok_or_else(|| unreadable("session_key", &key))?,
        session_id: row.get("session_id")?,
        state: State::parse(&state).ok_or_else(|| unreadable("state", &state))?,
        digest: row.get("digest")?,
        request: row.get("request")?,
        submitted_ms: row.get("submitted_ms")?,
        started_ms: row.get("started_ms")?,
        ended_ms: row.get("ended_ms")?,
        outcome: outcome.map(|text| parsed("outcome", &text)).transpose()?,
        command: row.get::<_, String>("kind")? == "command",
        deliver: row.get::<_, Option<String>>("deliver")?.map(|text| parsed("deliver", &text)).transpose()?,
        delivery: parsed::<Delivery>("delivery", &row.get::<_, String>("delivery")?)?,
    })
}

fn json(value: &impl Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

fn parsed<T: DeserializeOwned>(column: &str, text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text).map_err(|_| unreadable(column, text))
}

fn unreadable(column: &str, text: &str) -> rusqlite::Error {
    let shown: String = text.chars().take(80).collect();
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, format!("column {column} holds {shown:?}").into())
}
