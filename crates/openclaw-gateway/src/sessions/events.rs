//! What those who listen are told of a conversation.

use std::collections::HashSet;

use openclaw_protocol::{
    ScopeSet,
    event::{Event, SESSION_MESSAGE, SESSIONS_CHANGED},
};
use serde_json::{Value, json};

use super::{Appended, SessionKey, row::Rows};
use crate::{clock::now_ms, gateway::Gateway};

/// Why a conversation looks different.
#[derive(Clone, Copy, Debug)]
pub enum Changed<'a> {
    /// `send`, `patch`, `create`, `reset`, `delete`, `agent.run.started`, `agent.input.settled`, …
    Reason(&'a str),
    /// `start`, `model`, `end` or `error` of a run.
    Phase { phase: &'a str, run_id: &'a str },
}

/// `sessions.changed`, to those who follow the list or this conversation.
pub fn changed(gateway: &Gateway, key: &SessionKey, why: Changed<'_>) {
    let Some(hearers) = hearers(gateway, key) else { return };
    let mut payload = json!({"sessionKey": key.as_str(), "agentId": key.agent()});
    match why {
        Changed::Reason(reason) => payload["reason"] = reason.into(),
        Changed::Phase { phase, run_id } => {
            payload["phase"] = phase.into();
            payload["runId"] = run_id.into();
        }
    }
    payload["ts"] = now_ms().into();
    describe(gateway, key, &mut payload);
    tell(gateway, SESSIONS_CHANGED, &hearers, &payload);
}

/// `session.message` for each, to those who follow the list or this conversation.
pub fn messages(gateway: &Gateway, key: &SessionKey, appended: &[Appended]) {
    let Some(hearers) = hearers(gateway, key) else { return };
    for message in appended {
        let mut payload = message_payload(key, &message.message_id, message.seq, (*message.message).clone());
        describe(gateway, key, &mut payload);
        tell(gateway, SESSION_MESSAGE, &hearers, &payload);
    }
}

/// What `session.message` says of a message, as `chat.history` repeats it after a cursor.
pub fn message_payload(key: &SessionKey, message_id: &str, seq: u64, mut message: Value) -> Value {
    let owner = message.pointer("/__openclaw/senderIsOwner").cloned();
    // What only models need stays here.
    if let Some(message) = message.as_object_mut() {
        message.shift_remove("summary");
    }
    let mut payload = json!({
        "sessionKey": key.as_str(), "agentId": key.agent(), "message": message, "messageId": message_id,
        "messageSeq": seq,
    });
    if let Some(owner) = owner {
        payload["senderIsOwner"] = owner;
    }
    payload
}

/// The row as it is now, and those of its fields that the reference repeats beside it. `null` says that something is gone.
fn describe(gateway: &Gateway, key: &SessionKey, payload: &mut Value) {
    let Some(record) = gateway.sessions.get(key) else { return };
    let mut rows = Rows::new(gateway, ScopeSet::EMPTY);
    rows.titles = true;
    rows.last_message = true;
    let Ok(row) = serde_json::to_value(rows.row(&record)) else { return };
    for field in REPEATED {
        payload[*field] = row.get(*field).cloned().unwrap_or_default();
    }
    payload["session"] = row;
}

const REPEATED: &[&str] = &[
    "updatedAt",
    "sessionId",
    "kind",
    "visibility",
    "chatType",
    "archived",
    "archivedAt",
    "pinned",
    "pinnedAt",
    "unread",
    "markedUnreadAt",
    "agentStatus",
    "createdVia",
    "createdAt",
    "label",
    "displayName",
    "icon",
    "color",
    "category",
    "thinkingLevel",
    "hasActiveRun",
    "activeRunIds",
    "status",
];

fn hearers(gateway: &Gateway, key: &SessionKey) -> Option<HashSet<u64>> {
    let hearers = gateway.sessions.subscriptions().hearers(key);
    (!hearers.is_empty()).then_some(hearers)
}

fn tell(gateway: &Gateway, event: Event, hearers: &HashSet<u64>, payload: &Value) {
    gateway.hub.send_where(event, |_| payload, |connection| hearers.contains(&connection.number));
}
