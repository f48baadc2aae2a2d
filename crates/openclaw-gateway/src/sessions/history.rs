//! Messages as `chat.history` shows them: bounded, and without what only models need.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Record, read::Stored, text};

/// Messages of one answer, unless told otherwise and at most.
pub const DEFAULT_MESSAGES: usize = 200;
pub const MAX_MESSAGES: usize = 1000;
/// All messages of one answer, as JSON: 6 MB.
pub const MAX_BYTES: usize = 6_000_000;
/// Characters of one text, unless told otherwise and at most.
pub const DEFAULT_CHARS: usize = 8_000;
pub const MAX_CHARS: usize = 500_000;
/// One message as JSON; what is larger even after cutting is left out with a word about it.
const MAX_MESSAGE_BYTES: usize = 131_072;
/// Messages and bytes a cursor may be behind.
pub const MAX_BEHIND: usize = 200;
pub const MAX_BEHIND_BYTES: usize = 1_000_000;
const TOO_LARGE: &str = "[chat.history omitted: message too large]";
/// An answer that says nothing: the model chose not to speak.
const SILENT: &str = "NO_REPLY";

/// A message as shown, or `None` for one that says nothing. `parts`: a text is given as a list of one part, as protocol 3 has
/// it.
pub fn shown(stored: &Stored, max_chars: usize, parts: bool) -> Option<Value> {
    let mut body = stored.body.clone();
    if stored.role == "assistant" && text::plain(&body).trim().eq_ignore_ascii_case(SILENT) {
        return None;
    }
    body.shift_remove("summary");
    match body.get_mut("content") {
        Some(Value::String(text)) => {
            cut(text, max_chars);
            if parts {
                let text = std::mem::take(text);
                body.insert("content".into(), json!([{"type": "text", "text": text}]));
            }
        }
        Some(Value::Array(content)) => content.iter_mut().for_each(|part| cut_part(part, max_chars)),
        _ => {}
    }
    let mut message = Value::Object(body);
    let limit = MAX_MESSAGE_BYTES.max(max_chars.saturating_mul(4));
    if size(&message) > limit {
        message.as_object_mut()?.shift_remove("details");
    }
    if size(&message) > limit {
        message = placeholder(&stored.body);
    }
    Some(message)
}

fn cut_part(part: &mut Value, max_chars: usize) {
    let Some(part) = part.as_object_mut() else { return };
    part.shift_remove("thinkingSignature");
    for key in ["text", "thinking"] {
        if let Some(Value::String(text)) = part.get_mut(key) {
            cut(text, max_chars);
        }
    }
    if let Some(arguments) = part.get_mut("arguments") {
        cut_deep(arguments, max_chars);
    }
    // Pictures beyond this would push everything else out of the answer.
    if let Some(Value::String(data)) = part.get("data")
        && data.len() > MAX_MESSAGE_BYTES / 2
    {
        let bytes = data.len() / 4 * 3;
        part.shift_remove("data");
        part.insert("omitted".into(), true.into());
        part.insert("bytes".into(), bytes.into());
    }
}

fn cut_deep(value: &mut Value, max_chars: usize) {
    match value {
        Value::String(text) => cut(text, max_chars),
        Value::Array(items) => items.iter_mut().for_each(|item| cut_deep(item, max_chars)),
        Value::Object(entries) => entries.values_mut().for_each(|item| cut_deep(item, max_chars)),
        _ => {}
    }
}

fn cut(text: &mut String, max_chars: usize) {
    if let Some((end, _)) = text.char_indices().nth(max_chars) {
        text.truncate(end);
        text.push_str("\n...(truncated)...");
    }
}

fn size(message: &Value) -> usize {
    serde_json::to_vec(message).map_or(usize::MAX, |bytes| bytes.len())
}

/// What is left of a message that is too large to show.
fn placeholder(body: &Map<String, Value>) -> Value {
    let mut left = Map::new();
    for key in [
        "role",
        "timestamp",
        "toolCallId",
        "toolName",
        "isError",
        "provider",
        "model",
        "usage",
        "stopReason",
        "__openclaw",
    ] {
        if let Some(value) = body.get(key) {
            left.insert(key.into(), value.clone());
        }
    }
    left.insert("content".into(), json!([{"type": "text", "text": TOO_LARGE}]));
    if let Some(Value::Object(marks)) = left.get_mut("__openclaw") {
        marks.insert("truncated".into(), true.into());
    }
    Value::Object(left)
}

/// Keeps the newest messages whose JSON fits; returns how many older ones were left out.
pub fn fit(messages: &mut Vec<Value>, max_bytes: usize) -> usize {
    let mut bytes = 2;
    let kept = messages.iter().rev().take_while(|message| {
        bytes += size(message) + 1;
        bytes <= max_bytes
    });
    let out = messages.len() - kept.count().max(1).min(messages.len());
    messages.drain(..out);
    out
}

/// `deltaCursor`: how far a client has read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The stretch.
    #[serde(rename = "s")]
    pub session_id: String,
    /// Compactions so far; the display begins anew with each.
    #[serde(rename = "c")]
    pub compactions: u32,
    /// Number of the last message.
    #[serde(rename = "q")]
    pub seq: u64,
}

impl Cursor {
    pub fn of(record: &Record, seq: u64) -> Self {
        Self { session_id: record.session_id.as_str().to_owned(), compactions: record.compactions, seq }
    }

    pub fn to_wire(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// `None` for text that is no cursor.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
    }
}
