//! Chat channels: their accounts, who may write, and sending by hand.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Access;
use crate::{Scope, method};

const PAIRING: Access = Access::Operator(Scope::Pairing);
const ADMIN: Access = Access::Operator(Scope::Admin);
const WRITE: Access = Access::Operator(Scope::Write);

method!(ChannelsStatus, "channels.status", Access::Operator(Scope::Read), StatusParams => ChannelsReport);
method!(ChannelsStart, "channels.start", ADMIN, AccountParams => Started);
method!(ChannelsStop, "channels.stop", ADMIN, AccountParams => Stopped);
method!(ChannelsLogout, "channels.logout", ADMIN, AccountParams => LoggedOut);
method!(ChannelsPairingList, "channels.pairing.list", PAIRING, PairingListParams => PairingList);
method!(
    /// `bootstrapCommandOwner` needs admin besides; the handler checks that.
    ChannelsPairingApprove, "channels.pairing.approve", PAIRING, PairingApproveParams => PairingApproved
);
method!(ChannelsPairingDismiss, "channels.pairing.dismiss", PAIRING, PairingDismissParams => PairingDismissed);
method!(Send, "send", WRITE, SendParams => Delivered);
method!(MessageAction, "message.action", WRITE, MessageActionParams => Value);
method!(Poll, "poll", WRITE, PollParams => Delivered);

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatusParams {
    /// Ask each service, too.
    pub probe: bool,
    /// For all probes together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
}

/// Result of `channels.status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ChannelsReport {
    /// Milliseconds since 1970.
    pub ts: i64,
    pub channel_order: Vec<String>,
    pub channel_labels: BTreeMap<String, String>,
    pub channel_detail_labels: BTreeMap<String, String>,
    pub channel_system_images: BTreeMap<String, String>,
    pub channel_meta: Vec<ChannelMeta>,
    /// The default account of each channel, in short.
    pub channels: BTreeMap<String, Value>,
    pub channel_accounts: BTreeMap<String, Vec<AccountReport>>,
    pub channel_default_account_id: BTreeMap<String, String>,
    pub status_issues: Vec<StatusIssue>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChannelMeta {
    pub id: String,
    pub label: String,
    pub detail_label: String,
}

/// An account as `channels.status` shows it. Times are milliseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AccountReport {
    pub account_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub enabled: bool,
    pub configured: bool,
    pub running: bool,
    pub connected: bool,
    pub reconnect_attempts: u64,
    pub last_connected_at: Option<i64>,
    pub last_error: Option<String>,
    /// `starting`, `healthy`, `retrying`, `failed`, `stopped`, `disabled`.
    pub health_state: String,
    pub last_start_at: Option<i64>,
    pub last_stop_at: Option<i64>,
    pub last_inbound_at: Option<i64>,
    pub last_outbound_at: Option<i64>,
    pub last_probe_at: Option<i64>,
    /// `polling`, `webhook`, `gateway`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dm_policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_policy: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow_from: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
}

/// What a service said when it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    pub ok: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    pub elapsed_ms: u64,
}

/// Something a person should look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusIssue {
    pub channel: String,
    pub account_id: String,
    /// `config`, `auth`, `runtime`, `permissions`.
    pub kind: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// Parameters of `channels.start`, `.stop` and `.logout`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccountParams {
    pub channel: String,
    /// The default account when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_id: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Started {
    pub channel: String,
    pub account_id: String,
    pub started: bool,
    pub outcome: StartOutcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartOutcome {
    /// `handed-off`, `retry`, `skipped`.
    pub status: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stopped {
    pub channel: String,
    pub account_id: String,
    pub stopped: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoggedOut {
    pub channel: String,
    pub account_id: String,
    /// A credential was taken out of the config.
    pub cleared: bool,
    /// No credential is left, also not in the environment.
    pub logged_out: bool,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PairingListParams {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account_id: Option<String>,
}

/// Result of `channels.pairing.list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PairingList {
    /// Accounts whose direct messages are paired.
    pub accounts: Vec<PairingAccount>,
    pub requests: Vec<ChatPairing>,
    pub command_owner_configured: bool,
    pub limits: PairingLimits,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PairingAccount {
    pub channel: String,
    pub channel_label: String,
    pub account_id: String,
    pub notify_supported: bool,
}

/// Somebody who wants to write to an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChatPairing {
    pub request_id: String,
    pub channel: String,
    pub channel_label: String,
    pub account_id: String,
    pub sender_id: String,
    /// What the id is called.
    pub sender_label: String,
    /// `name`, `username`, and the `code` the sender was told.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// RFC 3339, as the two below.
    pub created_at: String,
    pub last_seen_at: String,
    pub expires_at: String,
    pub notify_supported: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PairingLimits {
    pub pending_per_account: u32,
    pub ttl_ms: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PairingApproveParams {
    pub channel: String,
    pub account_id: String,
    pub request_id: String,
    /// Tell the sender.
    #[serde(default)]
    pub notify: bool,
    /// Also make the sender the owner, if there is none.
    #[serde(default)]
    pub bootstrap_command_owner: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PairingApproved {
    pub request_id: String,
    pub sender_id: String,
    /// `not-requested`, `sent`, `unsupported`, `failed`.
    pub notification: String,
    /// `not-requested`, `configured`, `already-configured`, `unavailable`.
    pub command_owner_bootstrap: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PairingDismissParams {
    pub channel: String,
    pub account_id: String,
    pub request_id: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PairingDismissed {
    pub request_id: String,
    pub sender_id: String,
}

/// Parameters of `send`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SendParams {
    /// The chat: an id, `@name`, `telegram:<id>`, `<id>:topic:<n>`.
    pub to: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_urls: Option<Vec<String>>,
    /// A file in Base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buffer: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    #[serde(default)]
    pub as_voice: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread_id: Option<String>,
    #[serde(default)]
    pub force_document: bool,
    #[serde(default)]
    pub silent: bool,
    pub idempotency_key: String,
}

/// Result of `send` and `poll`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivered {
    /// The idempotency key.
    pub run_id: String,
    /// Of the last message.
    pub message_id: String,
    pub channel: String,
    pub chat_id: String,
    /// All of them, when there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub message_ids: Vec<String>,
}

/// Parameters of `message.action`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageActionParams {
    pub channel: String,
    /// `send`, `edit`, `delete`, `react`, `poll`.
    pub action: String,
    pub params: serde_json::Map<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_id: Option<String>,
    pub idempotency_key: String,
}

/// Parameters of `poll`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PollParams {
    pub to: String,
    pub question: String,
    /// 2 to 12.
    pub options: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_selections: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_hours: Option<u64>,
    #[serde(default)]
    pub silent: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_anonymous: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_id: Option<String>,
    pub idempotency_key: String,
}
