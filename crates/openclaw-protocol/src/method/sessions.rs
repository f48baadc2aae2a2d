//! Conversations: listing, describing, changing, searching, and what they used up.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::{Access, Done, NoParams};
use crate::{Scope, method};

const READ: Access = Access::Operator(Scope::Read);
const WRITE: Access = Access::Operator(Scope::Write);
const ADMIN: Access = Access::Operator(Scope::Admin);

method!(SessionsList, "sessions.list", READ, SessionsListParams => SessionsListing);
method!(SessionsDescribe, "sessions.describe", READ, SessionsDescribeParams => SessionDescribed);
method!(SessionsGet, "sessions.get", READ, SessionKeyParams => SessionDescribed);
method!(SessionsResolve, "sessions.resolve", READ, SessionsResolveParams => SessionResolved);
method!(SessionsPreview, "sessions.preview", READ, SessionsPreviewParams => SessionPreviews);
method!(
    /// Privileged fields need admin; the handler looks at them.
    SessionsCreate, "sessions.create", WRITE, SessionsCreateParams => SessionCreated
);
method!(SessionsSend, "sessions.send", WRITE, SessionsSendParams => SessionSent);
method!(SessionsAbort, "sessions.abort", WRITE, SessionsAbortParams => SessionAborted);
method!(
    /// Everything but organisation, model, thinking and speed needs admin; the handler looks at the fields.
    SessionsPatch, "sessions.patch", WRITE, SessionsPatchParams => SessionPatched
);
method!(
    /// As [`SessionsPatch`], for up to 100 conversations.
    SessionsPatchMany, "sessions.patchMany", WRITE, SessionsPatchManyParams => SessionsPatchOutcomes
);
method!(SessionsReset, "sessions.reset", ADMIN, SessionsResetParams => SessionReset);
method!(
    /// Admin, but for archived conversations with `archivedOnly`; the handler looks.
    SessionsDelete, "sessions.delete", WRITE, SessionsDeleteParams => SessionDeleted
);
method!(SessionsCompact, "sessions.compact", ADMIN, SessionsCompactParams => SessionCompacted);
method!(
    /// With parameters of `sessions.list`, the answer holds the list.
    SessionsSubscribe, "sessions.subscribe", READ, SessionsListParams => SessionsSubscribed
);
method!(SessionsUnsubscribe, "sessions.unsubscribe", READ, NoParams => SessionsSubscribed);
method!(
    SessionsMessagesSubscribe, "sessions.messages.subscribe", READ, MessagesSubscribeParams => MessagesSubscribed
);
method!(
    SessionsMessagesUnsubscribe, "sessions.messages.unsubscribe", READ, SessionKeyParams => MessagesSubscribed
);
method!(SessionsSearch, "sessions.search", READ, SessionsSearchParams => SessionsFound);
method!(SessionsUsage, "sessions.usage", READ, SessionsUsageParams => Value);
method!(UsageCost, "usage.cost", READ, UsageCostParams => CostSummary);
method!(UsageStatus, "usage.status", READ, NoParams => UsageStatusReport);
method!(
    /// A method of ours: everything of one conversation, page by page, one line of JSON per entry.
    SessionsExport, "sessions.export", ADMIN, SessionsExportParams => SessionsExported
);
method!(
    /// A method of ours: the way back. Never overwrites.
    SessionsImport, "sessions.import", ADMIN, SessionsImportParams => SessionsImported
);
method!(
    /// Always one branch: a conversation here is a line, not a tree.
    SessionsBranchesList, "sessions.branches.list", READ, SessionBranchesParams => SessionBranches
);
method!(SessionsGroupsList, "sessions.groups.list", READ, NoParams => SessionGroups);
method!(
    /// Always empty: groups have no working directories here.
    SessionsGroupsDefaults, "sessions.groups.defaults", WRITE, NoParams => SessionGroupsDefaults
);
method!(
    /// Always empty: no other program's conversations are read.
    SessionsCatalogList, "sessions.catalog.list", READ, NoParams => SessionCatalogs
);
method!(
    /// Always empty: there is no side chat.
    SessionsCompanionState, "sessions.companion.state", READ, SessionBranchesParams => CompanionState
);
method!(SessionsViewersSet, "sessions.viewers.set", READ, SessionsViewersParams => SessionsViewersParams);
method!(SessionsObserverVisibility, "sessions.observer.visibility", READ, ObserverVisibilityParams => Done);
method!(
    /// Always `none`: conversations are not mirrored anywhere.
    SessionDiscussionInfo, "session.discussion.info", READ, SessionBranchesParams => DiscussionInfo
);
method!(SessionsCompactionList, "sessions.compaction.list", READ, SessionKeyParams => CompactionList);

/// `null` and absent are told apart: `Some(None)` clears, `None` leaves alone.
#[allow(clippy::option_option)]
fn nullable<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// What a patch says of a field.
pub type Patch<T> = Option<Option<T>>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionsListParams {
    pub limit: Option<u64>,
    pub offset: Option<u64>,
    pub active_minutes: Option<u64>,
    pub require_last_interaction: bool,
    /// `updatedAt` (pinned first), `lastInteractionAt` or `activity`.
    pub sort_by: Option<String>,
    /// Accepted; there are no such rows here.
    pub include_global: Option<bool>,
    pub include_unknown: Option<bool>,
    pub configured_agents_only: Option<bool>,
    pub include_derived_titles: bool,
    pub include_last_message: bool,
    pub label: Option<String>,
    pub board_face: Option<String>,
    pub spawned_by: Option<String>,
    pub agent_id: Option<String>,
    pub search: Option<String>,
    /// A boolean or `"all"`.
    pub archived: Option<Value>,
    pub creator_id: Option<String>,
    pub owner_id: Option<String>,
    pub owner_first: Option<bool>,
    pub involving_me: Option<bool>,
    pub involving_profile_id: Option<String>,
    pub include_people: Option<bool>,
}

impl SessionsListParams {
    /// True for `{}`: `sessions.subscribe` then answers without a list.
    pub fn is_empty(&self) -> bool {
        let Self {
            limit,
            offset,
            active_minutes,
            require_last_interaction,
            sort_by,
            include_global,
            include_unknown,
            configured_agents_only,
            include_derived_titles,
            include_last_message,
            label,
            board_face,
            spawned_by,
            agent_id,
            search,
            archived,
            creator_id,
            owner_id,
            owner_first,
            involving_me,
            involving_profile_id,
            include_people,
        } = self;
        let numbers = [limit, offset, active_minutes].iter().all(|given| given.is_none());
        let texts =
            [sort_by, label, board_face, spawned_by, agent_id, search, creator_id, owner_id, involving_profile_id];
        let flags =
            [include_global, include_unknown, configured_agents_only, owner_first, involving_me, include_people];
        numbers
            && texts.iter().all(|given| given.is_none())
            && flags.iter().all(|given| given.is_none())
            && archived.is_none()
            && !(*require_last_interaction || *include_derived_titles || *include_last_message)
    }
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionsListing {
    pub ts: i64,
    pub path: String,
    pub count: usize,
    pub total_count: usize,
    pub limit_applied: usize,
    pub next_offset: Option<usize>,
    pub has_more: bool,
    pub owners: Vec<Value>,
    pub defaults: SessionModelDefaults,
    pub sessions: Vec<SessionRow>,
}

/// What a conversation uses that has chosen nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionModelDefaults {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_provider: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_tokens: Option<u64>,
    pub thinking_levels: Vec<ThinkingLevel>,
    pub thinking_options: Vec<String>,
    pub thinking_default: String,
    /// Always `session`.
    pub model_selection_target: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ThinkingLevel {
    pub id: String,
    pub label: String,
}

/// A conversation as lists show it.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionRow {
    pub key: String,
    pub session_id: String,
    /// `direct` or `group`.
    pub kind: &'static str,
    /// `main`, `channel`, `subagent` or `custom`.
    pub classification: &'static str,
    pub agent_id: String,
    pub is_main: bool,
    pub is_background: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery_context: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_channel: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icon: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub color: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub board_face: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_status: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub derived_title: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_message_preview: Option<String>,
    pub created_at: i64,
    pub updated_at: i64,
    pub archived: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archived_at: Option<i64>,
    pub pinned: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pinned_at: Option<i64>,
    pub unread: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_read_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marked_unread_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_interaction_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_activity_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_via: Option<String>,
    /// Always `shared`, and everyone who may read is `admin` or `viewer` of it.
    pub visibility: &'static str,
    pub sharing_role: &'static str,
    pub system_sent: bool,
    pub aborted_last_run: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thinking_level: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fast_mode: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verbose_level: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_level: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_level: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_usage: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send_policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_activation: Option<String>,
    pub thinking_levels: Vec<ThinkingLevel>,
    pub thinking_options: Vec<String>,
    pub thinking_default: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<u64>,
    /// Tokens of the last prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_tokens: Option<u64>,
    pub total_tokens_fresh: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimated_cost_usd: Option<f64>,
    pub compaction_count: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_provider: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// `user` when the conversation has a model of its own.
    pub model_override_source: Option<&'static str>,
    /// `queued`, `running`, `done`, `failed`, `killed` or `timeout`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_run_id: Option<String>,
    pub has_active_run: bool,
    pub active_run_ids: Vec<String>,
    /// Messages that wait for their turn; a field of ours.
    pub queued_runs: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_session_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spawned_by: Option<String>,
    pub lifecycle_revision: String,
    pub snapshot_at: i64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionKeyParams {
    pub key: String,
    pub agent_id: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionsDescribeParams {
    pub key: String,
    pub agent_id: Option<String>,
    #[serde(default)]
    pub include_derived_titles: bool,
    #[serde(default)]
    pub include_last_message: bool,
}

/// `session` is `null` when there is none under the key.
#[derive(Clone, Debug, Serialize)]
pub struct SessionDescribed {
    pub session: Option<Box<SessionRow>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
pub struct SessionsResolveParams {
    pub key: Option<String>,
    pub session_id: Option<String>,
    pub label: Option<String>,
    pub short_id: Option<String>,
    pub agent_id: Option<String>,
    pub allow_missing: bool,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionResolved {
    pub ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidates: Option<Vec<SessionCandidate>>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionCandidate {
    pub key: String,
    pub agent_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionsPreviewParams {
    pub keys: Vec<String>,
    pub limit: Option<u64>,
    pub max_chars: Option<u64>,
}

#[derive(Clone, Debug, Serialize)]
pub struct SessionPreviews {
    pub ts: i64,
    pub previews: Vec<SessionPreview>,
}

/// `status` is `ok`, `empty` or `missing`.
#[derive(Clone, Debug, Serialize)]
pub struct SessionPreview {
    pub key: String,
    pub status: &'static str,
    pub items: Vec<PreviewItem>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PreviewItem {
    pub role: String,
    pub text: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionsCreateParams {
    pub key: Option<String>,
    pub idempotency_key: Option<String>,
    pub agent_id: Option<String>,
    pub label: Option<String>,
    pub display_name: Option<String>,
    pub category: Option<String>,
    pub model: Option<String>,
    pub context_window: Option<String>,
    pub thinking_level: Option<String>,
    pub fast_mode: Option<Value>,
    pub permission_mode: Option<String>,
    pub tool_overrides: Option<Value>,
    pub incognito: bool,
    pub parent_session_key: Option<String>,
    pub fork: bool,
    pub worktree: bool,
    pub exec_node: Option<String>,
    pub cwd: Option<String>,
    /// The first message.
    pub message: Option<String>,
    pub task: Option<String>,
    pub attachments: Option<Vec<Value>>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionCreated {
    pub ok: bool,
    pub key: String,
    pub session_id: String,
    pub entry: Value,
    pub run_started: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_error: Option<Value>,
    pub resolved: ResolvedModel,
}

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedModel {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_provider: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionsSendParams {
    pub key: String,
    pub agent_id: Option<String>,
    pub message: String,
    pub thinking: Option<String>,
    pub attachments: Option<Vec<Value>>,
    pub timeout_ms: Option<u64>,
    pub idempotency_key: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionSent {
    pub run_id: String,
    pub status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_seq: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionsAbortParams {
    pub key: Option<String>,
    pub run_id: Option<String>,
    pub agent_id: Option<String>,
    pub clear_queued: bool,
}

/// `status` is `aborted` or `no-active-run`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionAborted {
    pub ok: bool,
    pub status: &'static str,
    pub aborted_run_id: Option<String>,
}

/// What can be changed of a conversation, by one call or of many.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionPatch {
    #[serde(deserialize_with = "nullable")]
    pub label: Patch<String>,
    #[serde(deserialize_with = "nullable")]
    pub display_name: Patch<String>,
    #[serde(deserialize_with = "nullable")]
    pub icon: Patch<String>,
    #[serde(deserialize_with = "nullable")]
    pub color: Patch<String>,
    #[serde(deserialize_with = "nullable")]
    pub category: Patch<String>,
    pub board_face: Option<String>,
    #[serde(deserialize_with = "nullable")]
    pub status_note: Patch<String>,
    #[serde(deserialize_with = "nullable")]
    pub attention: Patch<String>,
    pub ttl_minutes: Option<u64>,
    pub archived: Option<bool>,
    pub pinned: Option<bool>,
    pub unread: Option<bool>,
    #[serde(deserialize_with = "nullable")]
    pub model: Patch<String>,
    #[serde(deserialize_with = "nullable")]
    pub thinking_level: Patch<String>,
    #[serde(deserialize_with = "nullable")]
    pub fast_mode: Patch<Value>,
    #[serde(deserialize_with = "nullable")]
    pub context_window: Patch<String>,
    #[serde(deserialize_with = "nullable")]
    pub verbose_level: Patch<String>,
    #[serde(deserialize_with = "nullable")]
    pub trace_level: Patch<String>,
    #[serde(deserialize_with = "nullable")]
    pub reasoning_level: Patch<String>,
    #[serde(deserialize_with = "nullable")]
    pub response_usage: Patch<String>,
    #[serde(deserialize_with = "nullable")]
    pub send_policy: Patch<String>,
    #[serde(deserialize_with = "nullable")]
    pub group_activation: Patch<String>,
    /// Fields this gateway does not act upon, or does not know; it says so instead of pretending.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionsPatchParams {
    pub key: String,
    pub agent_id: Option<String>,
    pub expected_session_id: Option<String>,
    pub expected_lifecycle_revision: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub expected_marked_unread_at: Patch<i64>,
    #[serde(flatten)]
    pub patch: SessionPatch,
}

#[derive(Clone, Debug, Serialize)]
pub struct SessionPatched {
    pub ok: bool,
    pub path: String,
    pub key: String,
    pub entry: Value,
    pub resolved: ResolvedModel,
}

#[derive(Clone, Debug, Deserialize)]
pub struct SessionsPatchManyParams {
    pub targets: Vec<SessionTarget>,
    pub patch: SessionPatch,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionTarget {
    pub key: String,
    pub agent_id: Option<String>,
    pub expected_session_id: Option<String>,
    pub expected_lifecycle_revision: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct SessionsPatchOutcomes {
    pub outcomes: Vec<Value>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionsResetParams {
    pub key: String,
    pub agent_id: Option<String>,
    /// `new` or `reset`.
    pub reason: Option<String>,
    pub expected_session_id: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct SessionReset {
    pub ok: bool,
    pub key: String,
    pub entry: Value,
    pub resolved: ResolvedModel,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionsDeleteParams {
    pub key: String,
    pub agent_id: Option<String>,
    /// What was said too, for good; the default. `false` only forgets the conversation.
    pub delete_transcript: Option<bool>,
    pub expected_session_id: Option<String>,
    pub expected_lifecycle_revision: Option<String>,
    pub expected_session_updated_at: Option<f64>,
    pub emit_lifecycle_hooks: Option<bool>,
    #[serde(default)]
    pub archived_only: bool,
}

/// `archived` is always empty: transcripts are not moved to files.
#[derive(Clone, Debug, Serialize)]
pub struct SessionDeleted {
    pub ok: bool,
    pub key: String,
    pub deleted: bool,
    pub archived: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionsCompactParams {
    pub key: String,
    pub agent_id: Option<String>,
    /// Without a model: the model no longer sees more than this many of the last messages.
    pub max_lines: Option<u64>,
}

#[derive(Clone, Debug, Serialize)]
pub struct SessionCompacted {
    pub ok: bool,
    pub key: String,
    pub compacted: bool,
    /// Messages the model still sees as they were said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct SessionsSubscribed {
    pub subscribed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub list: Option<Box<SessionsListing>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessagesSubscribeParams {
    pub key: String,
    pub agent_id: Option<String>,
    #[serde(default)]
    pub include_approvals: bool,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MessagesSubscribed {
    pub subscribed: bool,
    pub key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval_replay: Option<ApprovalReplay>,
}

/// Always empty: approvals are told by `exec.approval.requested`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalReplay {
    pub session_key: String,
    pub updated_at_ms: i64,
    pub approvals: Vec<Value>,
    pub truncated: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionsSearchParams {
    pub query: String,
    pub agent_id: Option<String>,
    pub session_keys: Option<Vec<String>>,
    pub limit: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SessionsFound {
    pub results: Vec<SearchHit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncated: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SearchHit {
    pub session_key: String,
    pub session_id: String,
    pub message_id: String,
    /// `user` or `assistant`.
    pub role: String,
    pub timestamp: i64,
    pub snippet: String,
    /// Higher is better.
    pub score: f64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionsUsageParams {
    pub key: Option<String>,
    pub agent_id: Option<String>,
    /// `YYYY-MM-DD`.
    pub start_date: Option<String>,
    pub end_date: Option<String>,
    /// `utc`, `gateway` or `specific` (with `utcOffset` or `timeZone`).
    pub mode: Option<String>,
    /// `7d`, `30d`, `90d`, `1y` or `all`.
    pub range: Option<String>,
    /// `UTC+5:30`
    pub utc_offset: Option<String>,
    pub time_zone: Option<String>,
    pub limit: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UsageCostParams {
    pub days: Option<u64>,
    pub agent_id: Option<String>,
    pub start_date: Option<String>,
    pub end_date: Option<String>,
    pub mode: Option<String>,
    pub range: Option<String>,
    pub utc_offset: Option<String>,
    pub time_zone: Option<String>,
}

/// Tokens and US dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageTotals {
    pub input: u64,
    pub output: u64,
    pub cache_read: u64,
    pub cache_write: u64,
    pub total_tokens: u64,
    pub total_cost: f64,
    pub input_cost: f64,
    pub output_cost: f64,
    pub cache_read_cost: f64,
    pub cache_write_cost: f64,
    /// Answers of models without a price.
    pub missing_cost_entries: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DailyCost {
    pub date: String,
    #[serde(flatten)]
    pub totals: UsageTotals,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CostSummary {
    pub updated_at: i64,
    pub days: u64,
    pub daily: Vec<DailyCost>,
    pub totals: UsageTotals,
}

/// Always without providers: their quotas are not asked for.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageStatusReport {
    pub updated_at: i64,
    pub providers: Vec<Value>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionsExportParams {
    pub key: String,
    pub agent_id: Option<String>,
    /// From the last answer; absent for the first page.
    pub cursor: Option<String>,
    /// Bytes of text in one answer; 4 MiB unless given, at most 16 MiB.
    pub max_bytes: Option<u64>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionsExported {
    pub key: String,
    /// JSON Lines; the first line of the first page tells of the conversation.
    pub jsonl: String,
    pub lines: usize,
    /// Give it back for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionsImportParams {
    /// What `sessions.export` gave, of one conversation.
    pub jsonl: String,
    /// Under another name than it had.
    pub key: Option<String>,
    pub agent_id: Option<String>,
    /// Only look whether it could be imported.
    #[serde(default)]
    pub dry_run: bool,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionsImported {
    pub ok: bool,
    pub key: String,
    pub session_id: String,
    pub messages: usize,
    pub dry_run: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionBranchesParams {
    pub session_key: String,
    pub agent_id: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct SessionBranches {
    pub branches: Vec<SessionBranch>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionBranch {
    pub leaf_entry_id: String,
    pub headline: String,
    pub message_count: usize,
    pub updated_at: String,
    pub active: bool,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionGroups {
    pub groups: Vec<SessionGroup>,
    pub section_order: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct SessionGroup {
    pub name: String,
    pub position: usize,
}

#[derive(Clone, Debug, Serialize)]
pub struct SessionGroupsDefaults {
    pub defaults: Vec<Value>,
}

#[derive(Clone, Debug, Serialize)]
pub struct SessionCatalogs {
    pub catalogs: Vec<Value>,
}

#[derive(Clone, Debug, Serialize)]
pub struct CompanionState {
    pub exchanges: Vec<Value>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionsViewersParams {
    pub session_keys: Vec<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub struct ObserverVisibilityParams {
    pub visible: bool,
}

#[derive(Clone, Debug, Serialize)]
pub struct DiscussionInfo {
    pub state: &'static str,
}

#[derive(Clone, Debug, Serialize)]
pub struct CompactionList {
    pub ok: bool,
    pub key: String,
    pub checkpoints: Vec<Value>,
}
