//! Reading what was said.

use openclaw_agent::{
    message::{Message, Part, Role},
    provider::ModelRef,
};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde_json::{Map, Value};

use super::{
    Record, SessionId, SessionKey, Sessions,
    draft::object,
    message::{model_of, to_agent},
};
use crate::store::{StoreError, int};

/// A stored message.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    pub session_key: String,
    pub session_id: SessionId,
    pub seq: u64,
    pub message_id: String,
    pub role: String,
    pub at_ms: i64,
    pub run_id: Option<String>,
    /// The wire form, `__openclaw` included.
    pub body: Map<String, Value>,
}

/// Which messages of a stretch, always in chronological order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Window {
    /// The newest `limit` after leaving out the newest `offset`.
    Newest { limit: usize, offset: usize },
    /// The first `limit` after a number.
    After { seq: u64, limit: usize },
    /// `limit` around a message, as much before as after it.
    Around { message_id: String, limit: usize },
}

/// What a window shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    pub messages: Vec<Stored>,
    /// Of the whole stretch.
    pub total: usize,
    /// Messages of the stretch that come after the last shown one.
    pub later: usize,
    /// Messages that come before the first shown one.
    pub earlier: usize,
}

/// A message for the model, with what is needed to choose.
#[derive(Clone, Debug, PartialEq)]
pub struct ContextRow {
    pub seq: u64,
    pub message_id: String,
    pub run_id: Option<String>,
    pub message: Message,
    /// Which model said it: thoughts are given back to that one only, see [`history`].
    pub model: Option<ModelRef>,
}

const COLUMNS: &str = "session_key, session_id, seq, message_id, role, at_ms, run_id, body";

impl Sessions {
    /// A window of a stretch. At most `max_bytes` of messages, the newest of the window are kept; a single larger one is
    /// given alone.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn page(&self, id: &SessionId, window: Window, max_bytes: usize) -> Result<Page, StoreError> {
        let id = id.clone();
        self.shared.reader.read(move |db| page(db, &id, &window, max_bytes)).await
    }

    /// What the model sees of a conversation: everything since the last reset, or the summary and what follows it. With
    /// `record` from [`Sessions::get`] or a [`super::Draft`], messages that were committed by then are seen.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn context(&self, record: &Record) -> Result<Vec<ContextRow>, StoreError> {
        let (id, compaction) = (record.session_id.clone(), record.compaction);
        self.shared
            .reader
            .read(move |db| {
                let from = compaction.map_or(0, |compaction| compaction.kept_from);
                let mut statement = db.prepare_cached(&format!(
                    "SELECT {COLUMNS} FROM message WHERE session_id = ?1 AND seq >= ?2 AND role != 'system' ORDER BY seq"
                ))?;
                let rows = statement.query_and_then(params![id.as_str(), int(from)], stored)?;
                let rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
                let summary = match compaction {
                    Some(compaction) => summary(db, &id, compaction.summary_seq)?,
                    None => None,
                };
                Ok(summary.into_iter().chain(rows.into_iter().filter_map(context_row)).collect())
            })
            .await
    }

    /// The messages of a run, in order.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn messages_of_run(&self, run_id: &str) -> Result<Vec<Stored>, StoreError> {
        let run_id = run_id.to_owned();
        self.shared
            .reader
            .read(move |db| {
                let mut statement =
                    db.prepare_cached(&format!("SELECT {COLUMNS} FROM message WHERE run_id = ?1 ORDER BY id"))?;
                statement.query_and_then([run_id], stored)?.collect()
            })
            .await
    }

    /// One message by its id, in whichever stretch under the key.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn message(&self, key: &SessionKey, message_id: &str) -> Result<Option<Stored>, StoreError> {
        let (key, message_id) = (key.clone(), message_id.to_owned());
        self.shared
            .reader
            .read(move |db| {
                db.prepare_cached(&format!(
                    "SELECT {COLUMNS} FROM message WHERE session_key = ?1 AND message_id = ?2 ORDER BY id DESC LIMIT 1"
                ))?
                .query_row([key.as_str(), &message_id], |row| Ok(stored(row)))
                .optional()?
                .transpose()
            })
            .await
    }

    /// True when the key ever had this stretch.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn owns(&self, key: &SessionKey, id: &SessionId) -> Result<bool, StoreError> {
        if self.get(key).is_some_and(|record| record.session_id == *id) {
            return Ok(true);
        }
        self.exists("session_id = ?1 AND session_key = ?2", id.as_str(), key.as_str()).await
    }

    /// True when no stretch has this id.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn is_free(&self, id: &SessionId) -> Result<bool, StoreError> {
        let known = self.by_id(id.as_str()).is_some();
        Ok(!known && !self.exists("session_id = ?1 AND ?2 = ''", id.as_str(), "").await?)
    }

    /// True when something was ever said under the key and is still kept.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn has_transcript(&self, key: &SessionKey) -> Result<bool, StoreError> {
        self.exists("session_key = ?1 AND ?2 = ''", key.as_str(), "").await
    }

    async fn exists(&self, condition: &'static str, first: &str, second: &str) -> Result<bool, StoreError> {
        let (first, second) = (first.to_owned(), second.to_owned());
        let sql = format!("SELECT EXISTS (SELECT 1 FROM message WHERE {condition})");
        self.shared.reader.read(move |db| db.prepare_cached(&sql)?.query_row([first, second], |row| row.get(0))).await
    }

    /// Which of these runs have their message in the conversation: run and message id.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn inputs_of(&self, key: &SessionKey, runs: Vec<String>) -> Result<Vec<(String, String)>, StoreError> {
        let (key, runs) = (key.clone(), serde_json::to_string(&runs).unwrap_or_default());
        self.shared
            .reader
            .read(move |db| {
                let mut statement = db.prepare_cached(
                    "SELECT run_id, message_id FROM message WHERE role = 'user' AND session_key = ?1
                     AND run_id IN (SELECT value FROM json_each(?2)) ORDER BY id",
                )?;
                statement.query_and_then([key.as_str(), &runs], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
            })
            .await
    }
}

/// The messages for a model: tool answers that belong together are one message, and thoughts stay with the provider and
/// model that thought them.
pub fn history(rows: Vec<ContextRow>, model: &ModelRef) -> Vec<Message> {
    let mut messages: Vec<Message> = Vec::with_capacity(rows.len());
    for row in rows {
        let mut message = row.message;
        if row.model.as_ref() != Some(model) {
            message.parts.retain(|part| !matches!(part, Part::Thinking { .. }));
        }
        match messages.last_mut() {
            Some(last) if last.role == Role::Tool && message.role == Role::Tool => last.parts.extend(message.parts),
            _ if message.parts.is_empty() => {}
            _ => messages.push(message),
        }
    }
    messages
}

fn context_row(stored: Stored) -> Option<ContextRow> {
    Some(ContextRow {
        seq: stored.seq,
        message: to_agent(&stored.body)?,
        model: model_of(&stored.body),
        message_id: stored.message_id,
        run_id: stored.run_id,
    })
}

/// The summary in the words the model is given.
fn summary(db: &Connection, id: &SessionId, seq: u64) -> rusqlite::Result<Option<ContextRow>> {
    let row = db
        .prepare_cached(&format!("SELECT {COLUMNS} FROM message WHERE session_id = ?1 AND seq = ?2"))?
        .query_row(params![id.as_str(), int(seq)], |row| Ok(stored(row)))
        .optional()?
        .transpose()?;
    Ok(row.and_then(|row| {
        let summary = row.body.get("summary")?.as_str()?;
        let text = format!("Summary of the conversation so far:\n\n{summary}");
        Some(ContextRow { seq, message_id: row.message_id, run_id: None, message: Message::user(text), model: None })
    }))
}

pub(super) fn stored(row: &Row<'_>) -> rusqlite::Result<Stored> {
    let message_id: String = row.get(3)?;
    let body: String = row.get(7)?;
    let body = object(&body).ok_or_else(|| {
        let text = format!("message {message_id} cannot be read");
        rusqlite::Error::FromSqlConversionFailure(7, rusqlite::types::Type::Text, text.into())
    })?;
    Ok(Stored {
        session_key: row.get(0)?,
        session_id: SessionId::new(&row.get::<_, String>(1)?),
        seq: row.get::<_, i64>(2)?.unsigned_abs(),
        message_id,
        role: row.get(4)?,
        at_ms: row.get(5)?,
        run_id: row.get(6)?,
        body,
    })
}

fn page(db: &Connection, id: &SessionId, window: &Window, max_bytes: usize) -> rusqlite::Result<Page> {
    let count = |condition: &str, seq: u64| -> rusqlite::Result<usize> {
        let sql = format!("SELECT count(*) FROM message WHERE session_id = ?1 AND {condition}");
        let count = db.prepare_cached(&sql)?.query_row(params![id.as_str(), int(seq)], |row| row.get::<_, i64>(0))?;
        Ok(usize::try_from(count).unwrap_or_default())
    };
    let total = count("seq > ?2", 0)?;
    let (order, from, limit, offset) = match window {
        Window::Newest { limit, offset } => ("seq > ?2 ORDER BY seq DESC", 0, *limit, *offset),
        Window::After { seq, limit } => ("seq > ?2 ORDER BY seq", *seq, *limit, 0),
        Window::Around { message_id, limit } => {
            let found: Option<i64> = db
                .prepare_cached("SELECT seq FROM message WHERE session_id = ?1 AND message_id = ?2")?
                .query_row(params![id.as_str(), message_id], |row| row.get(0))
                .optional()?;
            let Some(seq) = found else { return Ok(Page { total, ..Page::default() }) };
            let after = (limit.saturating_sub(1)) / 2;
            let last = seq.unsigned_abs().saturating_add(after as u64);
            ("seq <= ?2 ORDER BY seq DESC", last, *limit, 0)
        }
    };
    let sql = format!("SELECT {COLUMNS} FROM message WHERE session_id = ?1 AND {order} LIMIT ?3 OFFSET ?4");
    let mut statement = db.prepare_cached(&sql)?;
    let mut rows = statement.query(params![id.as_str(), int(from), int(limit), int(offset)])?;
    let (mut messages, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        bytes += row.get_ref(7)?.as_str().map_or(0, str::len);
        if bytes > max_bytes && !messages.is_empty() {
            break;
        }
        messages.push(stored(row)?);
    }
    if !matches!(window, Window::After { .. }) {
        messages.reverse();
    }
    let edge = |message: Option<&Stored>| message.map(|message| message.seq);
    let earlier = edge(messages.first()).map(|seq| count("seq < ?2", seq)).transpose()?.unwrap_or_default();
    let later = edge(messages.last()).map(|seq| count("seq > ?2", seq)).transpose()?.unwrap_or_default();
    Ok(Page { messages, total, later, earlier })
}
