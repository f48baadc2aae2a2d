//! Running commands: the policy documents, and the approvals people give for one command at a time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value, value::RawValue};

use super::{Access, Done, NoParams};
use crate::{Scope, Secret, method};

const ADMIN: Access = Access::Operator(Scope::Admin);
const APPROVALS: Access = Access::Operator(Scope::Approvals);

method!(ExecApprovalsGet, "exec.approvals.get", ADMIN, NoParams => ApprovalsSnapshot);
method!(ExecApprovalsSet, "exec.approvals.set", ADMIN, ApprovalsSetParams => ApprovalsSnapshot);
method!(
    /// Passed on to the node's `system.execApprovals.get`; the answer is the node's.
    ExecApprovalsNodeGet, "exec.approvals.node.get", ADMIN, NodeApprovalsGetParams => Box<RawValue>
);
method!(
    /// Passed on to the node's `system.execApprovals.set`; the answer is the node's.
    ExecApprovalsNodeSet, "exec.approvals.node.set", ADMIN, NodeApprovalsSetParams => Box<RawValue>
);
method!(
    /// Answers once with the decision, or twice: "accepted", then the decision.
    ExecApprovalRequest, "exec.approval.request", APPROVALS, ApprovalRequestParams => ApprovalOutcome
);
method!(ExecApprovalWaitDecision, "exec.approval.waitDecision", APPROVALS, ApprovalIdParams => ApprovalOutcome);
method!(ExecApprovalResolve, "exec.approval.resolve", APPROVALS, ApprovalResolveParams => Done);
method!(ExecApprovalList, "exec.approval.list", APPROVALS, NoParams => Vec<PendingApproval>);
method!(ExecApprovalGet, "exec.approval.get", APPROVALS, ApprovalIdParams => ApprovalDetails);
method!(
    /// Any kind of approval by its whole id; so far all are of the kind `exec`.
    ApprovalGet, "approval.get", APPROVALS, ApprovalIdParams => ApprovalFound
);
method!(ApprovalResolve, "approval.resolve", APPROVALS, UnifiedResolveParams => ApprovalResolved);
method!(
    /// What ended lately, newest first.
    ApprovalHistory, "approval.history", APPROVALS, ApprovalHistoryParams => ApprovalHistoryPage
);
method!(
    /// Always empty: standing leave is minted by automations on a schedule, which there are none of here.
    ExecApprovalGrantsList, "exec.approval.grants.list", APPROVALS, GrantsListParams => StandingGrants
);
method!(ExecApprovalGrantsRevoke, "exec.approval.grants.revoke", APPROVALS, GrantsRevokeParams => GrantRevoked);
method!(
    /// Always empty: no plugin runs in this gateway that could ask.
    PluginApprovalList, "plugin.approval.list", APPROVALS, NoParams => Vec<PendingApproval>
);
method!(
    /// Always empty: there is no system agent here that could ask.
    SystemAgentApprovalList, "openclaw.approval.list", APPROVALS, NoParams => Vec<PendingApproval>
);

/// How much a host lets agents run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExecSecurity {
    Deny,
    /// What is on the allow-list.
    Allowlist,
    Full,
}

impl ExecSecurity {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Allowlist => "allowlist",
            Self::Full => "full",
        }
    }
}

/// When a person is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExecAsk {
    Off,
    /// When the allow-list has no entry for it.
    OnMiss,
    Always,
}

impl ExecAsk {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::OnMiss => "on-miss",
            Self::Always => "always",
        }
    }
}

/// A policy as written: what is absent comes from the next wider one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExecPolicy {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security: Option<ExecSecurity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ask: Option<ExecAsk>,
    /// What applies when nobody answers in time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ask_fallback: Option<ExecSecurity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_allow_skills: Option<bool>,
}

/// A policy with nothing left open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedPolicy {
    pub security: ExecSecurity,
    pub ask: ExecAsk,
    pub ask_fallback: ExecSecurity,
    pub auto_allow_skills: bool,
}

/// One line of an allow-list. Older files have bare patterns.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", from = "WrittenEntry")]
pub struct AllowlistEntry {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Glob over the program's path, or its bare name.
    pub pattern: String,
    /// `allow-always` when a decision wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// A regular expression over the arguments, or `sha256:cwd-argv:v1:<hex>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arg_pattern: Option<String>,
    /// Milliseconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_used_command: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_resolved_path: Option<String>,
    /// Keys of newer releases, kept.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenEntry {
    Pattern(String),
    Entry(FullEntry),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FullEntry {
    #[serde(default)]
    id: Option<String>,
    pattern: String,
    #[serde(default)]
    source: Option<String>,
    #[serde(default)]
    arg_pattern: Option<String>,
    #[serde(default)]
    last_used_at: Option<Number>,
    #[serde(default)]
    last_used_command: Option<String>,
    #[serde(default)]
    last_resolved_path: Option<String>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

impl From<WrittenEntry> for AllowlistEntry {
    fn from(written: WrittenEntry) -> Self {
        match written {
            WrittenEntry::Pattern(pattern) => Self { pattern, ..Self::default() },
            WrittenEntry::Entry(e) => Self {
                id: e.id,
                pattern: e.pattern,
                source: e.source,
                arg_pattern: e.arg_pattern,
                last_used_at: e.last_used_at,
                last_used_command: e.last_used_command,
                last_resolved_path: e.last_resolved_path,
                more: e.more,
            },
        }
    }
}

/// What holds where an agent's entry says nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DefaultApprovals {
    #[serde(flatten)]
    pub policy: ExecPolicy,
    /// Keys of newer releases, kept.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// Policy and allow-list of one agent; `*` stands for all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AgentApprovals {
    #[serde(flatten)]
    pub policy: ExecPolicy,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowlist: Option<Vec<AllowlistEntry>>,
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// Socket of the companion app that asks on a desktop. This program has none; what a file says is kept.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ApprovalsSocket {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(default, skip_serializing)]
    pub token: Option<Secret>,
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl PartialEq for ApprovalsSocket {
    fn eq(&self, other: &Self) -> bool {
        let token = |socket: &Self| socket.token.as_ref().map(|token| token.expose().to_owned());
        self.path == other.path && token(self) == token(other) && self.more == other.more
    }
}

/// The document: what may run on one host, `exec-approvals.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApprovalsFile {
    /// 1.
    pub version: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<ApprovalsSocket>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub defaults: Option<DefaultApprovals>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agents: Option<BTreeMap<String, AgentApprovals>>,
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl ApprovalsFile {
    /// The only version there is.
    pub const VERSION: u64 = 1;

    /// A document that says nothing: everything is as without one.
    pub fn empty() -> Self {
        Self { version: Self::VERSION, socket: None, defaults: None, agents: None, more: Map::new() }
    }

    /// What holds when a document cannot be read: nothing runs.
    pub fn deny_all() -> Self {
        let policy = ExecPolicy {
            security: Some(ExecSecurity::Deny),
            ask: Some(ExecAsk::Off),
            ask_fallback: Some(ExecSecurity::Deny),
            auto_allow_skills: Some(false),
        };
        Self { defaults: Some(DefaultApprovals { policy, more: Map::new() }), ..Self::empty() }
    }
}

/// Result of `exec.approvals.get` and `.set`. The socket's token is never in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalsSnapshot {
    pub path: String,
    pub exists: bool,
    /// Base hash for writes.
    pub hash: String,
    pub file: ApprovalsFile,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_defaults: Option<ResolvedPolicy>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalsSetParams {
    pub file: ApprovalsFile,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_hash: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeApprovalsGetParams {
    pub node_id: String,
}

/// `file` for a host with a document, `native` for one with a policy of its own; the node checks either.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeApprovalsSetParams {
    pub node_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<Map<String, Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_hash: Option<String>,
}

/// What a node answered to `system.run.prepare`: exactly what it would run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SystemRunPlan {
    pub argv: Vec<String>,
    #[serde(default)]
    pub cwd: Option<String>,
    /// Missing in the plans of protocol 3.
    #[serde(default)]
    pub command_text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_preview: Option<String>,
    #[serde(default)]
    pub agent_id: Option<String>,
    #[serde(default)]
    pub session_key: Option<String>,
    /// The node's own policy when it prepared; only the node understands it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_snapshot: Option<Value>,
    /// The script among the arguments, by content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mutable_file_operand: Option<FileOperand>,
}

/// A script that a command would run, and the digest of what is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileOperand {
    pub argv_index: u64,
    pub path: String,
    pub sha256: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApprovalRequestParams {
    pub id: Option<String>,
    pub command: Option<String>,
    pub command_argv: Option<Vec<String>>,
    /// Protocol 3 calls it `systemRunPlanV2`.
    #[serde(alias = "systemRunPlanV2")]
    pub system_run_plan: Option<SystemRunPlan>,
    pub env: Option<BTreeMap<String, String>>,
    pub cwd: Option<String>,
    pub node_id: Option<String>,
    pub host: Option<String>,
    pub security: Option<String>,
    pub ask: Option<String>,
    pub warning_text: Option<String>,
    pub unavailable_decisions: Option<Vec<String>>,
    pub agent_id: Option<String>,
    pub resolved_path: Option<String>,
    pub session_key: Option<String>,
    pub session_id: Option<String>,
    pub run_id: Option<String>,
    pub tool_call_id: Option<String>,
    pub turn_source_channel: Option<String>,
    pub turn_source_to: Option<String>,
    pub turn_source_account_id: Option<String>,
    pub turn_source_thread_id: Option<Value>,
    pub require_delivery_route: Option<bool>,
    pub suppress_delivery: Option<bool>,
    pub timeout_ms: Option<u64>,
    pub two_phase: Option<bool>,
}

/// What an approval is for, as it is shown. Everything in it comes from what would run, made harmless to display.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalRequest {
    pub command: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_preview: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_argv: Option<Vec<String>>,
    /// Names of the environment variables it sets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_keys: Option<Vec<String>>,
    pub system_run_binding: Option<SystemRunBinding>,
    pub system_run_plan: Option<SystemRunPlan>,
    pub cwd: Option<String>,
    pub node_id: Option<String>,
    pub host: Option<String>,
    pub security: Option<String>,
    pub ask: Option<String>,
    pub warning_text: Option<String>,
    pub scope: Option<Value>,
    pub command_analysis: Option<CommandAnalysis>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unavailable_decisions: Option<Vec<String>>,
    pub allowed_decisions: Vec<Decision>,
    pub agent_id: Option<String>,
    pub resolved_path: Option<String>,
    pub session_key: Option<String>,
    pub session_id: Option<String>,
    pub run_id: Option<String>,
    pub tool_call_id: Option<String>,
    pub turn_source_channel: Option<String>,
    pub turn_source_to: Option<String>,
    pub turn_source_account_id: Option<String>,
    pub turn_source_thread_id: Option<Value>,
    pub cron_execution_source: Option<Value>,
    pub cron_operation_binding: Option<Value>,
}

/// What an approval holds for, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SystemRunBinding {
    pub argv: Vec<String>,
    pub cwd: Option<String>,
    pub agent_id: Option<String>,
    pub session_key: Option<String>,
    /// SHA-256 over the sorted environment; `null` when none is set.
    pub env_hash: Option<String>,
}

/// What stands out in a command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommandAnalysis {
    pub command_count: u32,
    pub nested_command_count: u32,
    pub risk_kinds: Vec<String>,
    pub warning_lines: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    AllowOnce,
    AllowAlways,
    Deny,
}

impl Decision {
    pub const ALL: [Self; 3] = [Self::AllowOnce, Self::AllowAlways, Self::Deny];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AllowOnce => "allow-once",
            Self::AllowAlways => "allow-always",
            Self::Deny => "deny",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|decision| decision.as_str() == text)
    }

    pub const fn allows(self) -> bool {
        matches!(self, Self::AllowOnce | Self::AllowAlways)
    }
}

impl std::fmt::Display for Decision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// First of two answers to `exec.approval.request`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalAccepted {
    /// `accepted`.
    pub status: String,
    pub id: String,
    /// `approval-client`, or `none` when nobody is here to answer. Not in protocol 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery_route: Option<String>,
    pub created_at_ms: i64,
    pub expires_at_ms: i64,
}

/// The decision, or `null` when there will be none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalOutcome {
    pub id: String,
    pub decision: Option<Decision>,
    pub created_at_ms: i64,
    pub expires_at_ms: i64,
    /// Only in the answer to `exec.approval.waitDecision`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal_reason: Option<String>,
}

/// Parameters of `approval.history`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ApprovalHistoryParams {
    /// `nextCursor` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// 1 to 100; 50 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// `exec`, `plugin` or `system-agent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalHistoryPage {
    pub items: Vec<ApprovalRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GrantsListParams {
    /// 1 to 500.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// Result of `exec.approval.grants.list`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StandingGrants {
    pub grants: Vec<Value>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrantsRevokeParams {
    pub grant_id: String,
}

/// Result of `exec.approval.grants.revoke`: `revoked`, `already-revoked` or `not-found`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantRevoked {
    pub outcome: String,
}

/// Parameters that name one approval.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ApprovalIdParams {
    pub id: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ApprovalResolveParams {
    pub id: String,
    pub decision: String,
    /// Who decided, when the caller passes on what somebody pressed in a chat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reviewer: Option<ApprovalReviewer>,
}

/// A user of a chat channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalReviewer {
    pub channel: String,
    pub account_id: String,
    pub sender_id: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UnifiedResolveParams {
    pub id: String,
    pub kind: String,
    pub decision: String,
}

/// An entry of `exec.approval.list`; also the payload of the event `exec.approval.requested`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PendingApproval {
    /// `exec`. Protocol 3 has no other kind and does not say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval_kind: Option<String>,
    pub id: String,
    pub request: ApprovalRequest,
    pub created_at_ms: i64,
    pub expires_at_ms: i64,
}

/// Payload of the event `exec.approval.resolved`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalResolvedEvent {
    pub id: String,
    pub decision: Decision,
    pub resolved_by: Option<String>,
    pub ts: i64,
    pub request: ApprovalRequest,
}

/// Result of `exec.approval.get`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalDetails {
    pub id: String,
    pub command_text: String,
    pub command_preview: Option<String>,
    pub allowed_decisions: Vec<Decision>,
    pub host: Option<String>,
    pub node_id: Option<String>,
    pub agent_id: Option<String>,
    pub expires_at_ms: i64,
}

/// Result of `approval.get`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalFound {
    pub approval: ApprovalRecord,
}

/// Result of `approval.resolve`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalResolved {
    /// False when it had been decided before.
    pub applied: bool,
    pub approval: ApprovalRecord,
}

/// An approval as every surface shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalRecord {
    pub id: String,
    pub url_path: String,
    pub created_at_ms: i64,
    pub expires_at_ms: i64,
    pub presentation: ApprovalPresentation,
    /// `pending`, `allowed`, `denied`, `expired` or `cancelled`.
    pub status: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// `user`, `timeout`, `no-route` or `run-aborted`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_at_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<ApprovalSource>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolver: Option<ApprovalResolver>,
}

/// Where a decided approval came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalSource {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_key: Option<String>,
}

/// Who decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalResolver {
    /// `device` with its id, `runtime` with a client id, or `system`.
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// The part of a request that is fit for any reviewer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalPresentation {
    /// `exec`.
    pub kind: String,
    pub command_text: String,
    pub command_preview: Option<String>,
    pub warning_text: Option<String>,
    pub host: Option<String>,
    pub node_id: Option<String>,
    pub agent_id: Option<String>,
    pub allowed_decisions: Vec<Decision>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_keep_what_they_do_not_know_and_refuse_wrong_words() {
        let text = json!({
            "version": 1,
            "socket": {"path": "/run/x.sock"},
            "defaults": {"security": "allowlist", "ask": "on-miss", "askFallback": "deny", "autoAllowSkills": false},
            "agents": {"main": {"security": "full", "allowlist": [{"pattern": "/usr/bin/rg", "new": 1}],
                                "mcpTools": [{"server": "s", "tool": "t"}]}},
            "later": {"a": 1}
        });
        let file: ApprovalsFile = serde_json::from_value(text.clone()).expect("reads");
        assert_eq!(serde_json::to_value(&file).expect("writes"), text);
        let bare: ApprovalsFile =
            serde_json::from_value(json!({"version": 1, "agents": {"*": {"allowlist": ["/bin/ls"]}}})).expect("reads");
        let agents = bare.agents.expect("agents");
        assert_eq!(agents["*"].allowlist.as_ref().expect("list")[0].pattern, "/bin/ls");
        for wrong in [
            json!({"version": 1, "defaults": {"security": "alowlist"}}),
            json!({"version": 1, "agents": {"main": {"ask": "sometimes"}}}),
            json!({"version": 1, "agents": {"main": {"allowlist": [{"id": "x"}]}}}),
            json!({"defaults": {}}),
        ] {
            assert!(serde_json::from_value::<ApprovalsFile>(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_sockets_token_stays_here() {
        let file: ApprovalsFile =
            serde_json::from_value(json!({"version": 1, "socket": {"path": "p", "token": "hush"}})).expect("reads");
        assert_eq!(serde_json::to_value(&file).expect("writes"), json!({"version": 1, "socket": {"path": "p"}}));
    }

    /// The request of `exec-approvals-system-run`, q6; and that of protocol 3.
    #[test]
    fn plans_of_both_protocols() {
        let plan = json!({"argv": ["/bin/sh", "-c", "echo hi"], "cwd": "/w", "commandText": "/bin/sh -c \"echo hi\"",
            "commandPreview": "echo hi", "agentId": "main", "sessionKey": "agent:main:main",
            "policySnapshot": {"security": "full", "ask": "off", "askFallback": "deny", "autoAllowSkills": false,
                               "allowlistRules": []}});
        let read: SystemRunPlan = serde_json::from_value(plan.clone()).expect("reads");
        assert_eq!(serde_json::to_value(&read).expect("writes"), plan);
        let old = json!({"host": "node", "systemRunPlanV2": {"version": 2, "argv": ["ls"], "cwd": null,
                         "rawCommand": "ls", "agentId": null, "sessionKey": null}});
        let old: ApprovalRequestParams = serde_json::from_value(old).expect("reads");
        assert_eq!(old.system_run_plan.expect("plan").argv, ["ls"]);
    }
}
