//! Nodes: pairing of capabilities, the list, invocation, what a node reports, voice wake words.
//!
//! `*JSON` fields carry JSON text inside a JSON string, as the protocol has it; they are passed through, never rebuilt.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, value::RawValue};

use super::{Access, NoParams};
use crate::{Protocol, Scope, Secret, method};

const READ: Access = Access::Operator(Scope::Read);
const WRITE: Access = Access::Operator(Scope::Write);
const PAIRING: Access = Access::Operator(Scope::Pairing);

method!(NodePairList, "node.pair.list", PAIRING, NoParams => NodePairings);
method!(
    /// The scopes in `requiredApproveScopes` of the request are needed as well.
    NodePairApprove, "node.pair.approve", PAIRING, NodeRequestParams => NodeApproved
);
method!(NodePairReject, "node.pair.reject", PAIRING, NodeRequestParams => NodeRejected);
method!(NodePairRemove, "node.pair.remove", PAIRING, NodeParams => NodeRemoved);
method!(
    /// Protocol 3 only. Later versions make the request by connecting.
    NodePairRequest, "node.pair.request", PAIRING, NodePairRequestParams => NodePairRequested, last Protocol::V3
);
method!(
    /// Protocol 3 only.
    NodePairVerify, "node.pair.verify", PAIRING, NodePairVerifyParams => NodePairVerified, last Protocol::V3
);
method!(NodeRename, "node.rename", PAIRING, NodeRenameParams => NodeRenamed);
method!(NodeList, "node.list", READ, NoParams => Nodes);
method!(NodeDescribe, "node.describe", READ, NodeParams => NodeDescription);
method!(
    /// Some commands ask for `operator.admin` on top.
    NodeInvoke, "node.invoke", WRITE, NodeInvokeParams => NodeInvoked
);
method!(NodeInvokeResult, "node.invoke.result", Access::Node, InvokeResultParams => Receipt);
method!(NodeInvokeProgress, "node.invoke.progress", Access::Node, InvokeProgressParams => Receipt);
method!(NodeEvent, "node.event", Access::Node, NodeEventParams => NodeEventResult);
method!(
    NodeRunnerInventoryUpdate, "node.runnerInventory.update", Access::Node, RunnerInventoryParams => NodeParams
);
method!(NodeSkillsUpdate, "node.skills.update", Access::Node, NodeSkills => NodeSkillsAccepted);
method!(NodePluginToolsUpdate, "node.pluginTools.update", Access::Node, NodePluginTools => NodePluginToolsAccepted);
method!(SkillsBins, "skills.bins", Access::Node, NoParams => SkillBins);
method!(NodePendingEnqueue, "node.pending.enqueue", WRITE, PendingEnqueueParams => PendingEnqueued);
method!(NodePendingPull, "node.pending.pull", Access::Node, NoParams => PendingActions);
method!(NodePendingAck, "node.pending.ack", Access::Node, PendingAckParams => PendingAcked);
method!(NodePendingDrain, "node.pending.drain", Access::Node, PendingDrainParams => PendingDrained);
method!(VoicewakeGet, "voicewake.get", READ, NoParams => VoicewakeTriggers);
method!(VoicewakeSet, "voicewake.set", WRITE, VoicewakeTriggers => VoicewakeTriggers);
method!(VoicewakeRoutingGet, "voicewake.routing.get", READ, NoParams => VoicewakeRouting);

/// Parameters of `node.pair.approve` and `node.pair.reject`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeRequestParams {
    /// Early documents call it `pairingId`.
    #[serde(alias = "pairingId")]
    pub request_id: String,
}

/// `{nodeId}`, as parameters and as the result of `node.runnerInventory.update`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeParams {
    pub node_id: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeRenameParams {
    pub node_id: String,
    pub display_name: String,
}

/// Result of `node.rename`.
pub type NodeRenamed = NodeRenameParams;

/// Result of `node.pair.remove`.
pub type NodeRemoved = NodeParams;

/// Result of `node.pair.list`, newest first in both lists.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct NodePairings {
    #[serde(default)]
    pub pending: Vec<PendingNode>,
    #[serde(default)]
    pub paired: Vec<PairedNode>,
}

/// A capability surface that waits for approval; also the payload of the event `node.pair.requested`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PendingNode {
    pub request_id: String,
    pub node_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_mode: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_family: Option<String>,
    #[serde(default)]
    pub caps: Vec<String>,
    #[serde(default)]
    pub commands: Vec<String>,
    /// Scopes the approving operator needs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required_approve_scopes: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<BTreeMap<String, bool>>,
    /// The device was paired without asking the owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent: Option<bool>,
    /// Protocol 3 only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_repair: Option<bool>,
    pub ts: i64,
}

/// A node whose capabilities are approved.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PairedNode {
    pub node_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_mode: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_family: Option<String>,
    #[serde(default)]
    pub caps: Vec<String>,
    #[serde(default)]
    pub commands: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<BTreeMap<String, bool>>,
    #[serde(default)]
    pub created_at_ms: i64,
    #[serde(default)]
    pub approved_at_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_connected_at_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_at_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_reason: Option<String>,
    /// Only in the answer to the approval of a `node.pair.request`.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "deliver")]
    pub token: Option<Secret>,
}

/// Result of `node.pair.approve`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeApproved {
    pub request_id: String,
    pub node: PairedNode,
}

/// Result of `node.pair.reject`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeRejected {
    pub request_id: String,
    pub node_id: String,
}

/// Payload of the event `node.pair.resolved`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodePairResolved {
    /// Empty for a removal.
    pub request_id: String,
    pub node_id: String,
    pub decision: NodeDecision,
    pub ts: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeDecision {
    Approved,
    Rejected,
    Removed,
    /// A decision from a newer peer.
    #[serde(other)]
    Other,
}

/// Parameters of `node.pair.request`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodePairRequestParams {
    pub node_id: String,
    pub display_name: Option<String>,
    pub platform: Option<String>,
    pub version: Option<String>,
    pub device_family: Option<String>,
    pub caps: Option<Vec<String>>,
    pub commands: Option<Vec<String>>,
    pub silent: Option<bool>,
}

/// Result of `node.pair.request`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodePairRequested {
    pub status: String,
    pub request: PendingNode,
    /// False when the same request was waiting already.
    pub created: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodePairVerifyParams {
    pub node_id: String,
    pub token: Secret,
}

/// Result of `node.pair.verify`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodePairVerified {
    pub ok: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<PairedNode>,
}

/// Result of `node.list`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Nodes {
    pub ts: i64,
    pub nodes: Vec<Node>,
}

/// Result of `node.describe`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeDescription {
    pub ts: i64,
    #[serde(flatten)]
    pub node: Node,
}

/// A known node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Node {
    pub node_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_mode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_family: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_identifier: Option<String>,
    /// Absent for a node on the gateway's own machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_ip: Option<String>,
    /// Effective capabilities.
    pub caps: Vec<String>,
    /// Effective commands: declared, approved and allowed.
    pub commands: Vec<String>,
    pub session_host: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_stats: Option<HostStats>,
    /// Connected nodes only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_plugin_tools: Option<Vec<Value>>,
    /// Connected nodes only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_env: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permissions: Option<BTreeMap<String, bool>>,
    /// `approved`, `pending-approval`, `unapproved`.
    pub approval_state: String,
    /// For callers with the pairing scope, as are the two below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending_request_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending_declared_caps: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending_declared_commands: Option<Vec<String>>,
    /// The node that was used last, among those that report it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_active_at_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence_updated_at_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connected_at_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_connected_at_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen_at_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen_reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approved_at_ms: Option<i64>,
    pub paired: bool,
    pub connected: bool,
}

/// What a node says of its machine (`node.event` `node.host.stats`); the gateway adds when it heard it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostStats {
    pub cpu_count: u32,
    #[serde(default)]
    pub load_average: Vec<f64>,
    pub memory_total_bytes: u64,
    pub memory_free_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_total_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_available_bytes: Option<u64>,
    #[serde(default)]
    pub updated_at_ms: i64,
}

/// Payload of the event `node.hostStats`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeHostStats {
    pub node_id: String,
    pub host_stats: HostStats,
}

/// Payload of the event `node.presence`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodePresence {
    pub node_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_active_at_ms: Option<i64>,
    pub presence_updated_at_ms: i64,
}

/// Parameters of `node.invoke`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeInvokeParams {
    pub node_id: String,
    pub command: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub params: Option<Box<RawValue>>,
    /// Absent or 0: 30 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    pub idempotency_key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_key: Option<String>,
    /// Wants output as it comes, as events [`InvokeProgress`], and the call taken back when the connection ends. An addition
    /// of this program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<bool>,
}

/// Payload of the event `node.invoke.progress` to whoever asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InvokeProgress {
    /// Of the request it belongs to.
    pub idempotency_key: String,
    pub node_id: String,
    /// From 0; a gap means that something was lost on the way. The result has everything.
    pub seq: u64,
    pub chunk: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stderr: bool,
}

/// Result of `node.invoke`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeInvoked {
    pub ok: bool,
    pub node_id: String,
    pub command: String,
    #[serde(default)]
    pub payload: Option<Box<RawValue>>,
    /// `payload` as text. Left out (`null`) when it is very large.
    #[serde(default, rename = "payloadJSON")]
    pub payload_json: Option<String>,
}

/// Payload of the event `node.invoke.request`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InvokeRequest {
    pub id: String,
    pub node_id: String,
    pub command: String,
    #[serde(default, rename = "paramsJSON")]
    pub params_json: Option<String>,
    /// What remains of the caller's time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_key: Option<String>,
}

/// Payload of the event `node.invoke.cancel`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InvokeCancel {
    pub invoke_id: String,
    pub node_id: String,
}

/// Parameters of `node.invoke.result`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InvokeResultParams {
    pub id: String,
    pub node_id: String,
    pub ok: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Box<RawValue>>,
    /// Wins over `payload`.
    #[serde(default, rename = "payloadJSON", skip_serializing_if = "Option::is_none")]
    pub payload_json: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<NodeError>,
}

/// Why a node could not do it; also `details.nodeError`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeError {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Parameters of `node.invoke.progress`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InvokeProgressParams {
    pub invoke_id: String,
    pub node_id: String,
    pub seq: u64,
    /// At most 16,384 characters.
    pub chunk: String,
    /// From the program's error stream. Said only by nodes of this program, and only to gateways of this program, which
    /// are those that ask for output as it comes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stderr: bool,
}

/// `{ok:true}`, or `{ok:true, ignored:true}` for an id that waits for nothing from this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    pub ok: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ignored: bool,
}

/// Parameters of `node.event`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeEventParams {
    pub event: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Box<RawValue>>,
    /// Wins over `payload`.
    #[serde(default, rename = "payloadJSON", skip_serializing_if = "Option::is_none")]
    pub payload_json: Option<String>,
}

/// Result of `node.event`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEventResult {
    pub ok: bool,
    pub event: String,
    pub handled: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Parameters of `node.runnerInventory.update`. What a worker host adds to them has no reader here yet.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RunnerInventoryParams {
    pub protocol_features: Vec<String>,
}

/// Parameters of `node.skills.update`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeSkills {
    pub skills: Vec<NodeSkill>,
}

/// A skill that lives on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSkill {
    pub name: String,
    pub description: String,
    pub content: String,
}

/// A skill without its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkillName {
    pub name: String,
    pub description: String,
}

/// Result of `node.skills.update`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeSkillsAccepted {
    pub node_id: String,
    pub skills: Vec<SkillName>,
}

/// Parameters of `node.pluginTools.update`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodePluginTools {
    pub tools: Vec<NodePluginTool>,
}

/// A tool that an agent may call on a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodePluginTool {
    pub plugin_id: String,
    pub name: String,
    pub description: String,
    /// JSON Schema of its arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Value>,
    /// The node command that runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Run through `mcp.tools.call.v1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcp: Option<McpTool>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct McpTool {
    pub server: String,
    pub tool: String,
}

/// Result of `node.pluginTools.update`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodePluginToolsAccepted {
    pub node_id: String,
    pub tools: Vec<NodePluginTool>,
}

/// Result of `skills.bins`: programs the gateway's skills would like to find on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkillBins {
    pub bins: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkKind {
    #[serde(rename = "status.request")]
    Status,
    #[serde(rename = "location.request")]
    Location,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkPriority {
    /// Only in answers: what an empty queue offers.
    Default,
    Normal,
    High,
}

/// Parameters of `node.pending.enqueue`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PendingEnqueueParams {
    pub node_id: String,
    #[serde(rename = "type")]
    pub kind: WorkKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<WorkPriority>,
    /// 1,000 to 86,400,000; absent: the latter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_ms: Option<i64>,
}

/// Work that waits for a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PendingWork {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: WorkKind,
    pub priority: WorkPriority,
    pub created_at_ms: i64,
    pub expires_at_ms: Option<i64>,
}

/// Result of `node.pending.enqueue`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PendingEnqueued {
    pub node_id: String,
    /// Grows with each change of the node's queue.
    pub revision: u64,
    pub queued: PendingWork,
    /// True when the sleeping device was sent a push.
    pub wake_triggered: bool,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PendingDrainParams {
    /// 1 to 10; absent: 10.
    pub max_items: Option<u32>,
}

/// Result of `node.pending.drain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PendingDrained {
    pub node_id: String,
    pub revision: u64,
    pub items: Vec<PendingWork>,
    pub has_more: bool,
}

/// Result of `node.pending.pull`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PendingActions {
    pub node_id: String,
    pub actions: Vec<Value>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PendingAckParams {
    pub ids: Vec<String>,
}

/// Result of `node.pending.ack`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PendingAcked {
    pub node_id: String,
    pub acked_ids: Vec<String>,
    pub remaining_count: usize,
}

/// Wake words: parameters and result of `voicewake.set`, result of `voicewake.get`, payload of `voicewake.changed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoicewakeTriggers {
    pub triggers: Vec<String>,
}

/// Result of `voicewake.routing.get`, payload of `voicewake.routing.changed`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VoicewakeRouting {
    pub config: VoicewakeRoutes,
}

/// Where a wake word leads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VoicewakeRoutes {
    pub version: u32,
    pub default_target: Value,
    pub routes: Vec<Value>,
    pub updated_at_ms: i64,
}

/// The one place where a node token leaves through this family of methods.
fn deliver<S: Serializer>(token: &Option<Secret>, serializer: S) -> Result<S::Ok, S::Error> {
    token.as_ref().map(Secret::expose).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn round_trip<T: serde::de::DeserializeOwned + Serialize>(captured: Value) {
        // Through text: raw JSON can only be read from it.
        let read: T = serde_json::from_str(&captured.to_string()).expect("reads");
        assert_eq!(serde_json::to_value(read).expect("writes"), captured);
    }

    const NODE: &str = "d1ccef4b544db7be156ad2625208772b48eece60228d5ce4ee76d5fc59432336";

    /// Captured from release 2026.9.6 (`pairing-node-events`).
    #[test]
    fn pairing_keeps_the_captured_shapes() {
        let pending = json!({
            "requestId": "69a62405-af1b-44ec-aecc-0393292afb4d", "nodeId": NODE, "clientId": "node-host",
            "clientMode": "node", "displayName": "Node A", "platform": "linux", "version": "9.9.9",
            "deviceFamily": "Linux", "caps": ["system"],
            "commands": ["system.run", "system.run.prepare", "system.which"],
            "requiredApproveScopes": ["operator.pairing", "operator.admin"], "permissions": {"accessibility": false},
            "ts": 1795230942257_i64
        });
        round_trip::<PendingNode>(pending.clone());
        round_trip::<NodePairings>(json!({"pending": [pending], "paired": []}));
        round_trip::<NodeApproved>(json!({
            "requestId": "69a62405-af1b-44ec-aecc-0393292afb4d",
            "node": {
                "nodeId": NODE, "clientId": "node-host", "clientMode": "node", "displayName": "Node A",
                "platform": "linux", "version": "9.9.9", "deviceFamily": "Linux", "caps": ["system"],
                "commands": ["system.run", "system.run.prepare", "system.which"],
                "permissions": {"accessibility": false}, "createdAtMs": 1795230942826_i64,
                "approvedAtMs": 1795230942826_i64, "lastSeenAtMs": 1795230942238_i64, "lastSeenReason": "connect"
            }
        }));
        round_trip::<NodePairResolved>(
            json!({"requestId": "", "nodeId": NODE, "decision": "removed", "ts": 1795230955715_i64}),
        );
    }

    /// Captured from release 2026.9.6 (`pairing-node-events`).
    #[test]
    fn a_described_node_keeps_the_captured_shape() {
        round_trip::<NodeDescription>(json!({
            "ts": 1795230943162_i64, "nodeId": NODE, "displayName": "Node A", "platform": "linux", "version": "9.9.9",
            "clientId": "node-host", "clientMode": "node", "deviceFamily": "Linux", "caps": ["system"],
            "commands": ["system.run", "system.run.prepare", "system.which"], "sessionHost": false,
            "nodePluginTools": [], "permissions": {"accessibility": false}, "approvalState": "approved",
            "connectedAtMs": 1795230942282_i64, "lastConnectedAtMs": 1795230942282_i64,
            "lastSeenAtMs": 1795230942282_i64, "lastSeenReason": "connect", "approvedAtMs": 1795230942826_i64,
            "paired": true, "connected": true
        }));
    }

    /// Captured from release 2026.9.6 (`pairing-node-events`).
    #[test]
    fn invocation_keeps_the_captured_shapes() {
        round_trip::<NodeInvoked>(json!({
            "ok": true, "nodeId": NODE, "command": "system.which", "payload": {"echo": "system.which"},
            "payloadJSON": "{\"echo\":\"system.which\"}"
        }));
        round_trip::<InvokeRequest>(json!({
            "id": "8fa90e55-3b46-45b9-929d-33ad64a8bf2c", "nodeId": NODE, "command": "system.which",
            "paramsJSON": "{\"bins\":[\"sh\"]}", "timeoutMs": 30000, "idempotencyKey": "a1"
        }));
        round_trip::<InvokeResultParams>(json!({
            "id": "76c495a6-20c4-4ca3-9d6d-d02ffa4b1ed4", "nodeId": NODE, "ok": false,
            "error": {"code": "INVALID_REQUEST", "message": "boom"}
        }));
        round_trip::<Receipt>(json!({"ok": true}));
        round_trip::<Receipt>(json!({"ok": true, "ignored": true}));
    }

    /// Captured from release 2026.9.6 (`pairing-node-events`).
    #[test]
    fn pending_work_keeps_the_captured_shape() {
        round_trip::<PendingDrained>(json!({
            "nodeId": NODE, "revision": 0, "hasMore": false,
            "items": [{"id": "baseline-status", "type": "status.request", "priority": "default",
                       "createdAtMs": 1795230949524_i64, "expiresAtMs": null}]
        }));
    }

    #[test]
    fn the_old_name_of_a_request_id_is_understood() {
        let params: NodeRequestParams = serde_json::from_str(r#"{"pairingId":"x"}"#).expect("reads");
        assert_eq!(params.request_id, "x");
    }
}
