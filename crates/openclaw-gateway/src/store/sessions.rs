//! Tables of the sessions room: what is known of each conversation, what was said, its words for searching, and what it
//! used up.

use openclaw_agent::usage::Usage;
use rusqlite::{Connection, Row, params, types::Type};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::sessions::{
    SessionKey,
    record::{Record, SessionId},
    text::{plain, words},
};

/// Messages are only ever added; a conversation that starts anew gets a new `session_id`. `message_words` holds no text, only
/// an index of it; see [`words`]. Usage is added up per quarter of an hour, so that a day can begin in any time zone.
pub(super) const SCHEMA_1: &str = "
    CREATE TABLE session (
        key           TEXT PRIMARY KEY,
        session_id    TEXT NOT NULL UNIQUE,
        agent         TEXT NOT NULL,
        created_ms    INTEGER NOT NULL,
        updated_ms    INTEGER NOT NULL,
        record        TEXT NOT NULL -- JSON
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE message (
        id            INTEGER PRIMARY KEY AUTOINCREMENT,
        session_key   TEXT NOT NULL,
        session_id    TEXT NOT NULL,
        seq           INTEGER NOT NULL,
        message_id    TEXT NOT NULL,
        role          TEXT NOT NULL,
        at_ms         INTEGER NOT NULL,
        run_id        TEXT,
        idempotency_key TEXT,
        body          TEXT NOT NULL -- JSON
    ) STRICT;
    CREATE UNIQUE INDEX message_seq ON message (session_id, seq);
    CREATE UNIQUE INDEX message_id ON message (session_id, message_id);
    CREATE INDEX message_key ON message (session_key);
    CREATE INDEX message_run ON message (run_id) WHERE run_id IS NOT NULL;
    CREATE VIRTUAL TABLE message_words USING fts5 (
        words, content = '', tokenize = 'unicode61 remove_diacritics 2'
    );
    INSERT INTO message_words (message_words, rank) VALUES ('secure-delete', 1);
    CREATE TABLE usage (
        session_key   TEXT NOT NULL,
        session_id    TEXT NOT NULL,
        quarter       INTEGER NOT NULL, -- at_ms / 900000
        provider      TEXT NOT NULL,
        model         TEXT NOT NULL,
        users         INTEGER NOT NULL,
        assistants    INTEGER NOT NULL,
        tool_calls    INTEGER NOT NULL,
        tool_results  INTEGER NOT NULL,
        errors        INTEGER NOT NULL,
        input         INTEGER NOT NULL,
        output        INTEGER NOT NULL,
        cache_read    INTEGER NOT NULL,
        cache_write   INTEGER NOT NULL,
        cost_input    REAL NOT NULL,
        cost_output   REAL NOT NULL,
        cost_cache_read  REAL NOT NULL,
        cost_cache_write REAL NOT NULL,
        unpriced      INTEGER NOT NULL, -- answers whose model has no price
        PRIMARY KEY (quarter, session_id, provider, model)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX usage_key ON usage (session_key);
    CREATE TABLE usage_tool (
        session_key   TEXT NOT NULL,
        session_id    TEXT NOT NULL,
        quarter       INTEGER NOT NULL,
        tool          TEXT NOT NULL,
        calls         INTEGER NOT NULL,
        PRIMARY KEY (quarter, session_id, tool)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX usage_tool_key ON usage_tool (session_key);
";

/// Milliseconds of a row of `usage`.
pub(crate) const QUARTER_MS: i64 = 900_000;

/// A change of what is remembered of conversations. Made by [`crate::sessions::Draft`] only.
#[derive(Clone, Debug)]
pub enum SessionChange {
    Put(Box<Record>),
    Append(Box<MessageRow>),
    /// With all that was ever said under the key when `transcript`; otherwise only the conversation is forgotten.
    Delete {
        key: SessionKey,
        transcript: bool,
    },
}

/// One message on its way to the disk.
#[derive(Clone, Debug)]
pub struct MessageRow {
    pub key: SessionKey,
    pub session_id: SessionId,
    pub seq: u64,
    pub message_id: String,
    pub role: &'static str,
    pub at_ms: i64,
    pub run_id: Option<String>,
    pub idempotency_key: Option<String>,
    /// The wire form.
    pub body: String,
    /// What can be searched.
    pub text: String,
    pub spent: Spent,
}

/// What a message adds to the usage figures.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spent {
    pub provider: String,
    pub model: String,
    pub users: u32,
    pub assistants: u32,
    pub tool_results: u32,
    pub errors: u32,
    pub usage: Usage,
    /// US dollars: input, output, cache read, cache write. `None` when the model has no price.
    pub cost: Option<[f64; 4]>,
    /// Names of the tools that were called, one per call.
    pub tools: Vec<String>,
}

pub(super) fn apply(connection: &Connection, change: &SessionChange) -> rusqlite::Result<()> {
    match change {
        SessionChange::Put(record) => put(connection, record),
        SessionChange::Append(row) => append(connection, row),
        SessionChange::Delete { key, transcript } => delete(connection, key, *transcript),
    }
}

fn put(connection: &Connection, record: &Record) -> rusqlite::Result<()> {
    let body = serde_json::to_string(record).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    connection
        .prepare_cached(
            "INSERT INTO session VALUES (?1,?2,?3,?4,?5,?6) ON CONFLICT (key) DO UPDATE SET
                session_id = excluded.session_id, created_ms = excluded.created_ms, updated_ms = excluded.updated_ms,
                record = excluded.record",
        )?
        .execute(params![
            record.key.as_str(),
            record.session_id.as_str(),
            record.key.agent(),
            record.created_ms,
            record.updated_ms,
            body
        ])
        .map(drop)
}

fn append(connection: &Connection, row: &MessageRow) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO message (session_key, session_id, seq, message_id, role, at_ms, run_id, idempotency_key, body)
             VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9)",
        )?
        .execute(params![
            row.key.as_str(),
            row.session_id.as_str(),
            int(row.seq),
            row.message_id,
            row.role,
            row.at_ms,
            row.run_id,
            row.idempotency_key,
            row.body
        ])?;
    let id = connection.last_insert_rowid();
    if let Some(words) = indexed(row.role, &row.text) {
        connection
            .prepare_cached("INSERT INTO message_words (rowid, words) VALUES (?1, ?2)")?
            .execute(params![id, words])?;
    }
    spend(connection, row)
}

/// What the index gets of a message. What tools answer is long and not what people look for.
///
/// The index forgets a message only when it is told the same words again: a change here needs a migration that fills it anew.
fn indexed(role: &str, text: &str) -> Option<String> {
    let words = matches!(role, "user" | "assistant").then(|| words(text))?;
    (!words.trim().is_empty()).then_some(words)
}

fn spend(connection: &Connection, row: &MessageRow) -> rusqlite::Result<()> {
    let (spent, quarter) = (&row.spent, row.at_ms.div_euclid(QUARTER_MS));
    if *spent == Spent::default() {
        return Ok(());
    }
    let [input, output, cache_read, cache_write] = spent.cost.unwrap_or_default();
    let unpriced = u32::from(spent.cost.is_none() && spent.usage.total() > 0);
    connection
        .prepare_cached(
            "INSERT INTO usage VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19)
             ON CONFLICT DO UPDATE SET
                users = users + excluded.users, assistants = assistants + excluded.assistants,
                tool_calls = tool_calls + excluded.tool_calls, tool_results = tool_results + excluded.tool_results,
                errors = errors + excluded.errors, input = input + excluded.input, output = output + excluded.output,
                cache_read = cache_read + excluded.cache_read, cache_write = cache_write + excluded.cache_write,
                cost_input = cost_input + excluded.cost_input, cost_output = cost_output + excluded.cost_output,
                cost_cache_read = cost_cache_read + excluded.cost_cache_read,
                cost_cache_write = cost_cache_write + excluded.cost_cache_write,
                unpriced = unpriced + excluded.unpriced",
        )?
        .execute(params![
            row.key.as_str(),
            row.session_id.as_str(),
            quarter,
            spent.provider,
            spent.model,
            spent.users,
            spent.assistants,
            int(spent.tools.len()),
            spent.tool_results,
            spent.errors,
            int(spent.usage.input),
            int(spent.usage.output),
            int(spent.usage.cache_read),
            int(spent.usage.cache_write),
            input,
            output,
            cache_read,
            cache_write,
            unpriced
        ])?;
    for tool in &spent.tools {
        connection
            .prepare_cached(
                "INSERT INTO usage_tool VALUES (?1,?2,?3,?4,1) ON CONFLICT DO UPDATE SET calls = calls + 1",
            )?
            .execute(params![row.key.as_str(), row.session_id.as_str(), quarter, tool])?;
    }
    Ok(())
}

fn delete(connection: &Connection, key: &SessionKey, transcript: bool) -> rusqlite::Result<()> {
    let key = key.as_str();
    connection.prepare_cached("DELETE FROM session WHERE key = ?1")?.execute([key])?;
    if transcript {
        forget_words(connection, key)?;
        for sql in [
            "DELETE FROM message WHERE session_key = ?1",
            "DELETE FROM usage WHERE session_key = ?1",
            "DELETE FROM usage_tool WHERE session_key = ?1",
        ] {
            connection.prepare_cached(sql)?.execute([key])?;
        }
    }
    Ok(())
}

fn forget_words(connection: &Connection, key: &str) -> rusqlite::Result<()> {
    let mut messages = connection.prepare_cached("SELECT id, role, body FROM message WHERE session_key = ?1")?;
    let mut messages = messages.query([key])?;
    let sql = "INSERT INTO message_words (message_words, rowid, words) VALUES ('delete', ?1, ?2)";
    let mut forget = connection.prepare_cached(sql)?;
    while let Some(row) = messages.next()? {
        let id: i64 = row.get(0)?;
        let body: Map<String, Value> = parsed(&format!("message {id}"), row.get_ref(2)?.as_str()?)?;
        if let Some(words) = indexed(row.get_ref(1)?.as_str()?, &plain(&body)) {
            forget.execute(params![id, words])?;
        }
    }
    Ok(())
}

/// SQLite's integers have a sign; no count comes near the end of it.
pub(crate) fn int(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// All conversations. A row that makes no sense fails the load by name, as with devices.
pub(crate) fn load(connection: &Connection) -> rusqlite::Result<Vec<Record>> {
    let mut statement = connection.prepare("SELECT key, record FROM session")?;
    statement.query_and_then([], record)?.collect()
}

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    let (key, body): (String, String) = (row.get(0)?, row.get(1)?);
    parsed(&format!("record of session {key}"), &body)
}

pub(crate) fn parsed<T: DeserializeOwned>(what: &str, text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, Type::Text, format!("{what} cannot be read: {error}").into())
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Store, bootstrap, devices, nodes},
        *,
    };

    #[test]
    fn a_database_from_before_conversations_is_brought_up_to_date() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("db.sqlite");
        let before = Connection::open(&path).expect("opens");
        for sql in [devices::SCHEMA_1, nodes::SCHEMA_1, bootstrap::SCHEMA_1, bootstrap::SCHEMA_2] {
            before.execute_batch(sql).expect("as it was");
        }
        before.pragma_update(None, "application_id", 0x4f43_6777).expect("ours");
        before.pragma_update(None, "user_version", 4).expect("four steps");
        before.execute("INSERT INTO voicewake VALUES (1, '[\"lobster\"]')", []).expect("remembers something");
        drop(before);
        let store = Store::open(&path).expect("opens, and is brought up to date");
        assert_eq!(store.load_nodes().expect("loads").triggers, ["lobster"], "nothing is lost");
        assert_eq!(store.load_sessions().expect("loads"), []);
        let record = Record::begin(SessionKey::resolve("main", "main", "main").expect("a key"), 1);
        store.commit_blocking([SessionChange::Put(Box::new(record.clone()))]).expect("saves");
        store.close();
        assert_eq!(Store::open(&path).expect("opens").load_sessions().expect("loads"), [record]);
    }

    #[test]
    fn a_record_that_makes_no_sense_fails_the_load_by_name() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("db.sqlite");
        drop(Store::open(&path).expect("opens"));
        let connection = Connection::open(&path).expect("opens");
        let row = "INSERT INTO session VALUES ('agent:main:odd', 'i', 'main', 1, 1, '{\"key\":3}')";
        connection.execute(row, []).expect("breaks it");
        drop(connection);
        let error = Store::open(&path).expect("opens").load_sessions().expect_err("refused").to_string();
        assert!(error.contains("agent:main:odd"), "{error}");
    }
}
