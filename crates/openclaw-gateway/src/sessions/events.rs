//! What those who listen are told of a conversation.

use openclaw_protocol::event::{SESSION_MESSAGE, SESSIONS_CHANGED};
use serde_json::{Value, json};

use super::{Appended, SessionKey};
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
    let mut payload = json!({"sessionKey": key.as_str(), "agentId": key.agent()});
    match why {
        Changed::Reason(reason) => payload["reason"] = reason.into(),
        Changed::Phase { phase, run_id } => {
            payload["phase"] = phase.into();
            payload["runId"] = run_id.into();
        }
    }
    payload["ts"] = now_ms().into();
    tell(gateway, SESSIONS_CHANGED, key, payload);
}

/// `session.message` for each, to those who follow the list or this conversation.
pub fn messages(gateway: &Gateway, key: &SessionKey, appended: &[Appended]) {
    for message in appended {
        let mut payload = json!({
            "sessionKey": key.as_str(), "agentId": key.agent(), "message": *message.message,
            "messageId": message.message_id, "messageSeq": message.seq,
        });
        if let Some(owner) = message.message.pointer("/__openclaw/senderIsOwner") {
            payload["senderIsOwner"] = owner.clone();
        }
        tell(gateway, SESSION_MESSAGE, key, payload);
    }
}

fn tell(gateway: &Gateway, event: openclaw_protocol::event::Event, key: &SessionKey, payload: Value) {
    let hearers = gateway.sessions.subscriptions().hearers(key);
    if hearers.is_empty() {
        return;
    }
    gateway.hub.send_where(event, |_| &payload, |connection| hearers.contains(&connection.number));
}
