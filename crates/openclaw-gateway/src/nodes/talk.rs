//! What nodes say to the agent (`voice.transcript`, `agent.request`), and the conversations they follow (`chat.subscribe`).
//!
//! Each of these is a wish of an approved node, and gives it no right: the run may do what a stranger in a chat may, and
//! what it hears is what the conversation says.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use openclaw_agent::provider::Thinking;
use openclaw_protocol::{
    DeviceId, ErrorShape,
    method::{
        agent::Attachment,
        node::{NodeEventParams, NodeEventResult},
    },
};
use serde::Deserialize;
use serde_json::Value;

use super::reports;
use crate::{
    clock::now_ms,
    gateway::Gateway,
    rpc::chat,
    runs::{self, NodeWish},
    sessions::SessionKey,
};

/// Longest text, as in release 2026.9.6.
const MAX_CHARS: usize = 20_000;
/// The same transcript within this time is the same words, sent twice (release 2026.9.6).
const TWICE_MS: i64 = 1500;
/// Conversations whose last transcript is remembered.
const MAX_REMEMBERED: usize = 200;

/// `voice.transcript`: what somebody said.
#[derive(Clone, Debug, PartialEq)]
pub struct Transcript {
    pub text: String,
    pub session: Option<String>,
    /// The same for the same words.
    pub fingerprint: String,
}

/// `agent.request`: a message somebody shared with the node, or typed there.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Request {
    message: Option<String>,
    session_key: Option<String>,
    thinking: Option<String>,
    deliver: Option<bool>,
    timeout_seconds: Option<f64>,
    attachments: Option<Vec<Attachment>>,
}

/// `chat.subscribe`, `chat.unsubscribe`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Follow {
    session_key: Option<String>,
}

/// Last transcripts by conversation: their fingerprints and when they came.
#[derive(Debug, Default)]
pub struct Recent(Mutex<HashMap<SessionKey, (String, i64)>>);

impl Recent {
    /// False for words that came a moment ago.
    fn is_new(&self, key: &SessionKey, fingerprint: &str, now: i64) -> bool {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.get(key).is_some_and(|(known, at)| known == fingerprint && now.saturating_sub(*at) <= TWICE_MS) {
            return false;
        }
        recent.insert(key.clone(), (fingerprint.to_owned(), now));
        if recent.len() > MAX_REMEMBERED {
            recent.retain(|_, (_, at)| now.saturating_sub(*at) <= TWICE_MS);
        }
        true
    }

    /// They were not taken: sent again they are new.
    fn forget(&self, key: &SessionKey) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

impl Transcript {
    /// Reads the payload; `None` without words.
    pub fn read(payload: &Value) -> Option<Self> {
        let word = |names: &[&str]| {
            let found = names.iter().filter_map(|name| payload.get(*name)?.as_str());
            found.map(str::trim).find(|text| !text.is_empty()).map(str::to_owned)
        };
        let number = |names: &[&str]| names.iter().find_map(|name| payload.get(*name)?.as_f64()).map(f64::trunc);
        let text = word(&["text"])?;
        let call = word(&["providerCallId", "callId"]);
        let at = number(&["timestamp", "ts", "eventTimestamp"]);
        let fingerprint = match (word(&["eventId", "providerEventId", "transcriptId"]), call, at) {
            (Some(id), ..) => format!("event:{id}"),
            (None, Some(call), at) => match (number(&["sequence", "seq"]), at) {
                (Some(seq), _) => format!("call-seq:{call}:{seq}"),
                (None, Some(at)) => format!("call-ts:{call}:{at}"),
                (None, None) => format!("text:{text}"),
            },
            (None, None, Some(at)) => format!("timestamp:{at}|text:{text}"),
            (None, None, None) => format!("text:{text}"),
        };
        Some(Self { text, session: word(&["sessionKey"]), fingerprint })
    }
}

/// Something for the agent.
#[derive(Debug)]
pub enum Wish {
    Transcript(Transcript),
    Request(Box<Request>),
}

/// Has the agent answer. Answers the node as soon as the words are kept.
///
/// # Errors
/// `INVALID_REQUEST` for what makes no sense, `UNAVAILABLE` when it was not kept: then the node may send it again.
pub async fn ask(
    gateway: &Arc<Gateway>,
    node: DeviceId,
    event: &str,
    wish: Wish,
) -> Result<NodeEventResult, ErrorShape> {
    let unused = |reason| Ok(reports::event_result(event, false, Some(reason)));
    let (key, wish, spoken) = match wish {
        Wish::Transcript(said) => {
            let key = gateway.runs.key(gateway, said.session.as_deref().unwrap_or(runs::settings::MAIN_KEY), None)?;
            if too_long(&said.text) {
                return unused("text_too_long");
            }
            if !gateway.nodes.recent.is_new(&key, &said.fingerprint, now_ms()) {
                return unused("duplicate");
            }
            let text = chat::clean(&said.text);
            // As in the reference: somebody waits for an answer by voice.
            let thinking = Some(Thinking::Low);
            (key, NodeWish { text, media: Vec::new(), thinking, timeout: None, deliver: false }, true)
        }
        Wish::Request(request) => {
            let written = request.session_key.as_deref().map(str::trim).filter(|key| !key.is_empty());
            let own = format!("node-{node}");
            let key = gateway.runs.key(gateway, written.unwrap_or(&own), None)?;
            let text = chat::clean(request.message.as_deref().unwrap_or_default().trim());
            let media = chat::attachments(request.attachments.as_deref().unwrap_or_default())?;
            if text.is_empty() && media.is_empty() {
                return unused("invalid_payload");
            }
            if too_long(&text) {
                return unused("text_too_long");
            }
            let seconds = request.timeout_seconds.filter(|seconds| *seconds > 0.0);
            let wish = NodeWish {
                text,
                media,
                thinking: chat::thinking(request.thinking.as_deref())?,
                timeout: seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
                deliver: request.deliver == Some(true),
            };
            (key, wish, false)
        }
    };
    match runs::from_node(gateway, node.clone(), key.clone(), wish).await {
        Ok(submitted) => {
            tracing::debug!(node = node.short(), session = %key, run = submitted.run_id.0, "asked by a node");
            Ok(reports::event_result(event, true, None))
        }
        Err(error) => {
            if spoken {
                gateway.nodes.recent.forget(&key);
            }
            Err(error)
        }
    }
}

fn too_long(text: &str) -> bool {
    text.encode_utf16().count() > MAX_CHARS
}

/// The node wants to hear a conversation, or no longer.
///
/// # Errors
/// `INVALID_REQUEST` for what is no session key, and when it follows too many.
pub fn follow(
    gateway: &Gateway,
    connection: u64,
    params: &NodeEventParams,
    asked: &Follow,
) -> Result<bool, ErrorShape> {
    let written = asked.session_key.as_deref().map(str::trim).filter(|key| !key.is_empty());
    let Some(written) = written else { return Ok(false) };
    let key = gateway.runs.key(gateway, written, None)?;
    let subscriptions = gateway.sessions.subscriptions();
    if params.event == "chat.unsubscribe" {
        subscriptions.unfollow_chat(connection, &key);
    } else if !subscriptions.follow_chat(connection, &key) {
        return Err(ErrorShape::invalid("too many conversations are followed on this connection"));
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_same_words_have_one_fingerprint() {
        let check = |payload: Value, expected: Option<&str>| {
            assert_eq!(Transcript::read(&payload).map(|said| said.fingerprint).as_deref(), expected, "{payload}");
        };
        check(json!({"text": " hi "}), Some("text:hi"));
        check(json!({"text": "hi", "ts": 7.9}), Some("timestamp:7|text:hi"));
        check(json!({"text": "hi", "callId": "c", "ts": 7}), Some("call-ts:c:7"));
        check(json!({"text": "hi", "callId": "c", "ts": 7, "seq": 2}), Some("call-seq:c:2"));
        check(json!({"text": "hi", "callId": "c", "seq": 2, "eventId": "e"}), Some("event:e"));
        check(json!({"text": "  "}), None);
        check(json!({"text": 7}), None);
        check(json!([]), None);
    }

    #[test]
    fn words_count_again_after_a_moment() {
        let (recent, key) = (Recent::default(), SessionKey::resolve("main", "main", "main").expect("a key"));
        assert!(recent.is_new(&key, "a", 0));
        assert!(!recent.is_new(&key, "a", 1500));
        assert!(recent.is_new(&key, "a", 1501));
        assert!(recent.is_new(&key, "b", 1502));
        recent.forget(&key);
        assert!(recent.is_new(&key, "b", 1503));
    }
}
