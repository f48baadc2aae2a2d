//! Conversations as JSON Lines: out, and back in.
//!
//! ```text
//! {"type":"session","version":1,"key":…,"sessionId":…,"createdAt":…,"settings":{…}}
//! {"type":"message","message":{"role":"user","content":…,"timestamp":…,"__openclaw":{"id":…}}}
//! ```
//!
//! The first line tells of the conversation, each further line is a message in the form of `chat.history`, oldest first. A
//! compaction is a `system` message that says how far it reaches.

use openclaw_protocol::{ErrorShape, method::sessions::SessionPatch};
use serde_json::{Map, Value, json};

use super::{
    Compaction, Draft, Record, SessionId, Sessions, Settings,
    message::NewMessage,
    patch,
    read::{Stored, Window},
};
use crate::{clock::now_ms, store::StoreError};

/// The version of the format that is written; all up to it are read.
const VERSION: u64 = 1;
/// Bytes of one page unless told otherwise, and at most.
pub const DEFAULT_PAGE_BYTES: usize = 4 << 20;
pub const MAX_PAGE_BYTES: usize = 16 << 20;
/// Messages read at once.
const BATCH: usize = 500;

/// A page of an export.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    pub jsonl: String,
    pub lines: usize,
    /// Number of the last message on it; `None` when it is the last page.
    pub after: Option<u64>,
}

impl Sessions {
    /// The messages after number `after`, with the head before the first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn export(&self, record: &Record, after: u64, max_bytes: usize) -> Result<Exported, StoreError> {
        let mut page = Exported::default();
        if after == 0 {
            page.push(&head(record));
        }
        let mut seq = after;
        loop {
            let window = Window::After { seq, limit: BATCH };
            let read = self.page(&record.session_id, window, max_bytes).await?;
            if read.messages.is_empty() {
                return Ok(page);
            }
            for message in &read.messages {
                // Messages that came after the export began are its next page's, or nobody's.
                if message.seq > record.last_seq {
                    return Ok(page);
                }
                let line = line_of(record, message).to_string();
                if page.jsonl.len() + line.len() > max_bytes && seq > after {
                    page.after = Some(seq);
                    return Ok(page);
                }
                page.jsonl.push_str(&line);
                page.jsonl.push('\n');
                page.lines += 1;
                seq = message.seq;
            }
        }
    }
}

impl Exported {
    fn push(&mut self, line: &Value) {
        self.jsonl.push_str(&line.to_string());
        self.jsonl.push('\n');
        self.lines += 1;
    }
}

fn head(record: &Record) -> Value {
    json!({
        "type": "session", "version": VERSION, "key": record.key.as_str(), "sessionId": record.session_id.as_str(),
        "createdAt": record.created_ms, "settings": record.settings,
    })
}

fn line_of(record: &Record, stored: &Stored) -> Value {
    let mut message = stored.body.clone();
    if let Some(compaction) = record.compaction.filter(|compaction| compaction.summary_seq == stored.seq)
        && let Some(Value::Object(marks)) = message.get_mut("__openclaw")
    {
        marks.insert("keptFrom".into(), compaction.kept_from.into());
    }
    json!({"type": "message", "message": message})
}

/// A conversation that was read and found in order.
#[derive(Clone, Debug)]
pub struct Import {
    /// As the head has it.
    pub key: String,
    pub session_id: Option<SessionId>,
    pub created_ms: Option<i64>,
    pub settings: Settings,
    pub messages: Vec<NewMessage>,
    /// The message that is the last compaction, counted from 1, and the first message it keeps.
    pub compaction: Option<(u64, u64)>,
}

/// Why lines are no conversation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct LineError {
    /// From 1.
    pub line: usize,
    pub why: String,
}

impl From<LineError> for ErrorShape {
    fn from(error: LineError) -> Self {
        ErrorShape::invalid(format!("nothing was imported: {error}")).with_details(json!({"line": error.line}))
    }
}

impl Import {
    /// Reads every line; empty ones are passed over.
    ///
    /// # Errors
    /// [`LineError`] for the first line that is wrong.
    pub fn parse(jsonl: &str) -> Result<Self, LineError> {
        let lines = jsonl.lines().enumerate().map(|(n, line)| (n + 1, line.trim()));
        let mut lines = lines.filter(|(_, line)| !line.is_empty());
        let (line, first) = lines.next().ok_or_else(|| wrong(1, "there is no line"))?;
        let mut import = Self::head(first).map_err(|why| wrong(line, why))?;
        let mut ids = std::collections::HashSet::new();
        for (line, text) in lines {
            let message = import.message(text).map_err(|why| wrong(line, why))?;
            if let Some(id) = &message.message_id
                && !ids.insert(id.clone())
            {
                return Err(wrong(line, format!("the message id {id:?} is there twice")));
            }
            import.messages.push(message);
        }
        Ok(import)
    }

    fn head(text: &str) -> Result<Self, String> {
        let head = json_object(text)?;
        let kind = head.get("type").and_then(Value::as_str);
        if kind != Some("session") {
            return Err("the first line must be {\"type\":\"session\", …}".into());
        }
        match head.get("version").and_then(Value::as_u64) {
            Some(1..=VERSION) => {}
            Some(version) => return Err(format!("version {version} is not known; this gateway reads up to {VERSION}")),
            None => return Err("must have a version".into()),
        }
        let key = head.get("key").and_then(Value::as_str).ok_or("must have a key")?.to_owned();
        let settings = match head.get("settings") {
            None => Settings::default(),
            Some(settings) => {
                serde_json::from_value(settings.clone()).map_err(|error| format!("settings cannot be read: {error}"))?
            }
        };
        let session_id = match head.get("sessionId") {
            None => None,
            Some(Value::String(id)) if id.len() <= 128 && !id.is_empty() && !id.chars().any(char::is_control) => {
                Some(SessionId::new(id))
            }
            Some(_) => return Err("sessionId must be a text of at most 128 characters".into()),
        };
        let created_ms = match head.get("createdAt") {
            None => None,
            Some(at) => Some(at.as_i64().filter(|at| *at >= 0).ok_or("createdAt must be milliseconds since 1970")?),
        };
        Ok(Self { key, session_id, created_ms, settings, messages: Vec::new(), compaction: None })
    }

    fn message(&mut self, text: &str) -> Result<NewMessage, String> {
        let mut line = json_object(text)?;
        if line.get("type").and_then(Value::as_str) != Some("message") {
            return Err("must be {\"type\":\"message\", …}".into());
        }
        let Some(Value::Object(body)) = line.shift_remove("message") else { return Err("must have a message".into()) };
        let mut message = NewMessage::from_wire(body)?;
        let number = self.messages.len() as u64 + 1;
        if let Some(kept) = message.marks.shift_remove("keptFrom") {
            let kept = kept.as_u64().filter(|kept| (1..=number).contains(kept));
            let kept = kept.ok_or("keptFrom must be the number of a message up to here")?;
            self.compaction = Some((number, kept));
        }
        Ok(message)
    }

    /// Puts everything into a draft of a conversation that does not exist yet. Returns how many messages. `free`: its id is
    /// nobody else's; `taken` says so of a label.
    ///
    /// # Errors
    /// `INVALID_REQUEST` when a message is too large, or a setting makes no sense.
    pub fn fill(self, draft: &mut Draft, free: bool, taken: impl Fn(&str) -> bool) -> Result<usize, ErrorShape> {
        let record = draft.record_mut();
        if let Some(id) = self.session_id.filter(|_| free) {
            record.session_id = id;
        }
        if let Some(at) = self.created_ms {
            record.created_ms = at;
            record.started_ms = at;
        }
        let given = self.settings;
        // Through the same gate as a patch: names without control characters, words that are known.
        let patch = SessionPatch {
            label: given.label.filter(|label| !taken(label)).map(Some),
            display_name: given.display_name.map(Some),
            icon: given.icon.map(Some),
            color: given.color.map(Some),
            category: given.category.map(Some),
            model: given.model.map(Some),
            context_window: given.context_window.map(Some),
            thinking_level: given.thinking_level.map(Some),
            fast_mode: given.fast_mode.map(Some),
            verbose_level: given.verbose_level.map(Some),
            trace_level: given.trace_level.map(Some),
            reasoning_level: given.reasoning_level.map(Some),
            response_usage: given.response_usage.map(Some),
            send_policy: given.send_policy.map(Some),
            group_activation: given.group_activation.map(Some),
            board_face: given.board_face,
            pinned: given.pinned_ms.map(|_| true),
            ..SessionPatch::default()
        };
        patch::apply(record, &patch, true, |_| false, now_ms()).map_err(|error| wrong(1, error.message))?;
        record.settings.archived_ms = given.archived_ms;
        record.settings.created_via = Some("operator".into());
        let count = self.messages.len();
        for (n, message) in self.messages.into_iter().enumerate() {
            draft.append(message).map_err(|error| ErrorShape::from(wrong(n + 2, error.to_string())))?;
        }
        if let Some((summary_seq, kept_from)) = self.compaction {
            draft.record_mut().compaction = Some(Compaction { summary_seq, kept_from });
            draft.record_mut().compactions = 1;
        }
        Ok(count)
    }
}

fn json_object(text: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("must be a JSON object".into()),
        Err(error) => Err(format!("is not JSON: {error}")),
    }
}

fn wrong(line: usize, why: impl Into<String>) -> LineError {
    LineError { line, why: why.into() }
}
