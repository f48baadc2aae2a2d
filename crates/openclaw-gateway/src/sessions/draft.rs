//! A change of one conversation: prepared in memory, kept in one transaction, then in force.

use std::sync::Arc;

use serde_json::{Map, Value};
use tokio::sync::OwnedMutexGuard;

use super::{
    Record, SessionKey, Sessions,
    message::{MAX_MESSAGE_BYTES, NewMessage},
    record::{Compaction, SessionId},
    text::{self, PREVIEW_CHARS, TITLE_CHARS},
};
use crate::{
    clock::now_ms,
    store::{Change, MessageRow, SessionChange, StoreError},
};

/// A change under way. Nobody else changes the conversation meanwhile; dropping it changes nothing.
#[derive(Debug)]
#[must_use = "nothing is kept before `commit`"]
pub struct Draft {
    sessions: Sessions,
    before: Option<Arc<Record>>,
    record: Record,
    rows: Vec<MessageRow>,
    appended: Vec<Appended>,
    delete: Option<bool>,
    turn: OwnedMutexGuard<()>,
}

/// A message that was appended.
#[derive(Clone, Debug)]
pub struct Appended {
    pub session_id: SessionId,
    pub message_id: String,
    /// Counts from 1 in each stretch.
    pub seq: u64,
    pub role: &'static str,
    pub at_ms: i64,
    /// The wire form, `__openclaw` included.
    pub message: Arc<Value>,
}

/// What is in force now.
#[derive(Clone, Debug)]
pub struct Committed {
    pub key: SessionKey,
    /// `None` when it was deleted.
    pub record: Option<Arc<Record>>,
    pub created: bool,
    pub appended: Vec<Appended>,
}

/// Why a message cannot be appended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DraftError {
    #[error("the message is too large: {bytes} bytes, at most {MAX_MESSAGE_BYTES} are kept")]
    TooLarge { bytes: usize },
}

impl Draft {
    pub(super) fn new(
        sessions: Sessions,
        before: Option<Arc<Record>>,
        key: SessionKey,
        turn: OwnedMutexGuard<()>,
    ) -> Self {
        let record = before.as_deref().cloned().unwrap_or_else(|| Record::begin(key, now_ms()));
        Self { sessions, before, record, rows: Vec::new(), appended: Vec::new(), delete: None, turn }
    }

    /// False when the conversation is yet to be.
    pub fn exists(&self) -> bool {
        self.before.is_some()
    }

    /// True while the conversation is still at that stretch. A run that began in another one must not add to this: the
    /// person has moved on.
    pub fn is_at(&self, id: &SessionId) -> bool {
        self.exists() && self.record.session_id == *id
    }

    /// As it will be.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// To change what is known: settings, totals, the last run. Numbers of messages are this room's business.
    pub fn record_mut(&mut self) -> &mut Record {
        &mut self.record
    }

    /// Adds a message at the end.
    ///
    /// # Errors
    /// [`DraftError::TooLarge`]; the draft is as it was.
    pub fn append(&mut self, message: NewMessage) -> Result<Appended, DraftError> {
        let NewMessage { role, mut body, at_ms, message_id, run_id, idempotency_key, mut marks, spent } = message;
        let plain = text::plain(&body);
        let seq = self.record.last_seq + 1;
        let message_id = message_id.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
        marks.insert("id".into(), message_id.as_str().into());
        if let Some(key) = &idempotency_key {
            marks.insert("idempotencyKey".into(), key.as_str().into());
        }
        if let Some(run) = &run_id {
            marks.insert("runId".into(), run.as_str().into());
        }
        marks.insert("recordTimestampMs".into(), now_ms().into());
        marks.insert("seq".into(), seq.into());
        body.insert("__openclaw".into(), Value::Object(marks));
        let message = Value::Object(body);
        let json = message.to_string();
        if json.len() > MAX_MESSAGE_BYTES {
            return Err(DraftError::TooLarge { bytes: json.len() });
        }
        self.record.last_seq = seq;
        self.note(role, &plain, at_ms);
        let appended = Appended {
            session_id: self.record.session_id.clone(),
            message_id: message_id.clone(),
            seq,
            role,
            at_ms,
            message: Arc::new(message),
        };
        self.rows.push(MessageRow {
            key: self.record.key.clone(),
            session_id: self.record.session_id.clone(),
            seq,
            message_id,
            role,
            at_ms,
            run_id,
            idempotency_key,
            body: json,
            text: plain,
            spent,
        });
        self.appended.push(appended.clone());
        Ok(appended)
    }

    /// What lists show of a message.
    fn note(&mut self, role: &str, plain: &str, at_ms: i64) {
        let record = &mut self.record;
        match role {
            "user" => record.interacted_ms = record.interacted_ms.max(Some(at_ms)),
            "assistant" => record.answered_ms = record.answered_ms.max(Some(at_ms)),
            _ => return,
        }
        if plain.trim().is_empty() {
            return;
        }
        record.last_message = Some(text::line(plain, PREVIEW_CHARS).into());
        if role == "user" && record.title.is_none() {
            record.title = Some(text::line(plain, TITLE_CHARS).into());
        }
    }

    /// Begins a new stretch: what was said before stays on disk and is no longer part of the conversation.
    pub fn restart(&mut self) {
        self.record.restart(now_ms());
    }

    /// Lets a summary stand for everything before `kept_from`; without a summary that part is just no longer given to the
    /// model. Adds the row that shows where.
    ///
    /// # Errors
    /// [`DraftError::TooLarge`]
    pub fn compact(&mut self, summary: Option<&str>, kept_from: u64) -> Result<Appended, DraftError> {
        let mut message = NewMessage::system("Compaction").mark("kind", "compaction");
        if let Some(summary) = summary {
            message = message.with("summary", summary);
        }
        let appended = self.append(message)?;
        self.record.compaction = Some(Compaction { summary_seq: appended.seq, kept_from });
        self.record.compactions += 1;
        self.record.totals.context = None;
        Ok(appended)
    }

    /// Forgets the conversation; with `transcript` also all that was ever said under its key.
    pub fn delete(&mut self, transcript: bool) {
        self.delete = Some(transcript);
    }

    /// Keeps it, together with `extra`, in one transaction. When this returns `Ok` it is on disk and in force. Goes on when
    /// the asker hangs up.
    ///
    /// # Errors
    /// When it was not saved; then nothing changed.
    pub async fn commit(self, extra: Vec<Change>) -> Result<Committed, StoreError> {
        // As a task: dropped between disk and memory, the two would differ.
        let done = tokio::spawn(self.save(extra));
        done.await.unwrap_or(Err(StoreError::Closed))
    }

    async fn save(self, mut changes: Vec<Change>) -> Result<Committed, StoreError> {
        let Self { sessions, before, mut record, rows, appended, delete, turn } = self;
        let key = record.key.clone();
        let created = before.is_none();
        record.settings.tidy();
        let now = match delete {
            Some(transcript) => {
                if !created || transcript {
                    changes.push(SessionChange::Delete { key: key.clone(), transcript }.into());
                }
                None
            }
            None if created || !rows.is_empty() || before.as_deref() != Some(&record) => {
                record.updated_ms = now_ms().max(record.updated_ms);
                changes.extend(rows.into_iter().map(|row| SessionChange::Append(Box::new(row)).into()));
                changes.push(SessionChange::Put(Box::new(record.clone())).into());
                Some(Arc::new(record))
            }
            None => before,
        };
        if !changes.is_empty() {
            sessions.shared.store.commit(changes).await?;
        }
        sessions.publish(&key, now.clone());
        drop(turn);
        Ok(Committed { key, record: now, created, appended })
    }
}

/// The object of a stored message.
pub(super) fn object(text: &str) -> Option<Map<String, Value>> {
    serde_json::from_str(text).ok()
}
