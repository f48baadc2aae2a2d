//! Reading a conversation: its history, what a chat page starts with, and what it offers.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Access,
    sessions::{SessionModelDefaults, SessionRow},
};
use crate::{Scope, method};

const READ: Access = Access::Operator(Scope::Read);

method!(ChatHistory, "chat.history", READ, ChatHistoryParams => ChatHistoryAnswer);
method!(
    /// As [`ChatHistory`], for a page that opens.
    ChatStartup, "chat.startup", READ, ChatHistoryParams => ChatHistoryAnswer
);
method!(ChatMetadata, "chat.metadata", READ, ChatMetadataParams => ChatMetadataReport);
method!(ChatMessageGet, "chat.message.get", READ, ChatMessageGetParams => ChatMessageFound);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChatHistoryParams {
    pub session_key: String,
    pub agent_id: Option<String>,
    /// `deltaCursor` of an earlier answer: only what came since.
    pub cursor: Option<String>,
    /// 1 to 1000.
    pub limit: Option<u64>,
    /// Newest messages to leave out.
    pub offset: Option<u64>,
    pub pending_before: Option<u64>,
    pub input_run_ids: Option<Vec<String>>,
    /// The messages around this one.
    pub message_id: Option<String>,
    /// An earlier stretch of the conversation; with `messageId` only.
    pub session_id: Option<String>,
    /// Of one text, 1 to 500,000; 8,000 unless given.
    pub max_chars: Option<u64>,
    /// Of all messages, as JSON.
    pub max_bytes: Option<u64>,
}

/// A page, or what came since a cursor.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum ChatHistoryAnswer {
    Page(Box<ChatHistoryPage>),
    Delta(Box<ChatHistoryDelta>),
    Reset(ChatHistoryReset),
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChatHistoryPage {
    /// As it was asked for.
    pub session_key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// Oldest first.
    pub messages: Vec<Value>,
    pub pending_inputs: PendingInputs,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_receipts: Option<Vec<InputReceipt>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta_cursor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_offset: Option<usize>,
    pub has_more: bool,
    pub total_messages: usize,
    pub defaults: SessionModelDefaults,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_info: Option<Box<SessionRow>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thinking_level: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fast_mode: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verbose_level: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChatHistoryDelta {
    /// Always `delta`.
    pub kind: &'static str,
    /// Payloads of `session.message`.
    pub messages: Vec<Value>,
    pub delta_cursor: String,
    pub pending_inputs: PendingInputs,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_receipts: Option<Vec<InputReceipt>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_consumptions: Option<Vec<InputConsumption>>,
    pub session_info: Option<Box<SessionRow>>,
}

/// The cursor is of no use any more: ask without it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ChatHistoryReset {
    /// Always `reset`.
    pub kind: &'static str,
}

/// What was kept and is not yet part of the conversation.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PendingInputs {
    pub items: Vec<PendingInput>,
    pub total: usize,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PendingInput {
    pub id: String,
    pub run_id: String,
    pub message: Value,
    pub accepted_at: i64,
    /// `queued`, `cancelled` or `interrupted`.
    pub state: &'static str,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InputReceipt {
    pub run_id: String,
    /// `pending` or `consumed`.
    pub state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumed_by_event_id: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InputConsumption {
    pub run_id: String,
    pub consumed_by_event_id: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ChatMetadataParams {
    pub agent_id: Option<String>,
    pub session_key: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChatMetadataReport {
    pub models: Value,
    pub commands: Value,
    pub swarm_enabled: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChatMessageGetParams {
    pub session_key: String,
    pub agent_id: Option<String>,
    pub message_id: String,
    /// 1 to 2,000,000.
    pub max_chars: Option<u64>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChatMessageFound {
    pub ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unavailable_reason: Option<&'static str>,
}
