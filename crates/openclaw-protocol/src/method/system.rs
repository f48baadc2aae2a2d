//! Health, status, presence, heartbeats, identity, logs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Access, Done, NoParams};
use crate::{DeviceId, Scope, method};

method!(
    /// The one method that is open to every authenticated connection, nodes included.
    Health, "health", Access::Any, HealthParams => HealthReport
);
method!(Status, "status", Access::Operator(Scope::Read), StatusParams => StatusReport);
method!(SystemPresence, "system-presence", Access::Operator(Scope::Read), NoParams => Vec<PresenceEntry>);
method!(SystemEvent, "system-event", Access::Operator(Scope::Admin), SystemEventParams => Done);
method!(LastHeartbeat, "last-heartbeat", Access::Operator(Scope::Read), NoParams => Option<Heartbeat>);
method!(SetHeartbeats, "set-heartbeats", Access::Operator(Scope::Admin), SetHeartbeatsParams => HeartbeatsSet);
method!(GatewayIdentityGet, "gateway.identity.get", Access::Operator(Scope::Read), NoParams => GatewayIdentity);
method!(LogsTail, "logs.tail", Access::Operator(Scope::Read), LogsTailParams => LogsTailResult);
method!(SystemInfo, "system.info", Access::Operator(Scope::Read), NoParams => SystemInfoReport);
method!(SecretsReload, "secrets.reload", Access::Operator(Scope::Admin), NoParams => SecretsReloaded);

#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct HealthParams {
    /// Ask channels for a live answer instead of the last known one.
    #[serde(default)]
    pub probe: Option<bool>,
}

/// Result of `health`, also the payload of the `health` event and of `hello-ok.snapshot.health`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthReport {
    pub ok: bool,
    /// When the report was made, ms since the epoch.
    pub ts: i64,
    pub duration_ms: u64,
    #[serde(default)]
    pub plugins: Plugins,
    #[serde(default)]
    pub config_reload: ConfigReload,
    pub channels: BTreeMap<String, Value>,
    pub channel_order: Vec<String>,
    pub channel_labels: BTreeMap<String, String>,
    pub heartbeat_seconds: u64,
    pub default_agent_id: String,
    pub agents: Vec<AgentHealth>,
    pub sessions: SessionsHealth,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_loop: Option<Value>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Plugins {
    pub loaded: Vec<String>,
    pub errors: Vec<Value>,
    #[serde(default)]
    pub unavailable: Vec<Value>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigReload {
    /// `active`, or `rejected` while the file on disk does not validate and the last good one is in force.
    pub hot_reload_status: String,
}

impl Default for ConfigReload {
    fn default() -> Self {
        Self { hot_reload_status: "active".into() }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentHealth {
    pub agent_id: String,
    pub is_default: bool,
    pub heartbeat: AgentHeartbeat,
    pub sessions: SessionsHealth,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentHeartbeat {
    pub enabled: bool,
    pub every: String,
    pub every_ms: Option<u64>,
    #[serde(default)]
    pub prompt: String,
    #[serde(default)]
    pub target: String,
    #[serde(default)]
    pub ack_max_chars: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SessionsHealth {
    pub path: String,
    pub count: u64,
    pub recent: Vec<Value>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusParams {
    #[serde(default)]
    pub include_channel_summary: Option<bool>,
    #[serde(default)]
    pub include_cli_projection: Option<bool>,
}

/// Result of `status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusReport {
    pub runtime_version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cli_projection: Option<CliProjection>,
    pub heartbeat: HeartbeatStatus,
    pub channel_summary: Vec<String>,
    pub queued_system_events: Vec<String>,
    #[serde(default)]
    pub degraded_secret_owners: Vec<Value>,
    #[serde(default)]
    pub degraded_plugins: Vec<Value>,
    pub tasks: TasksStatus,
    pub task_audit: TaskAudit,
    pub sessions: SessionsStatus,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CliProjection {
    pub agents: ProjectedAgents,
    pub update_channel: Option<String>,
    pub memory_plugin: MemoryPlugin,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProjectedAgents {
    pub default_id: String,
    pub ownership: String,
    pub selection_required: bool,
    pub rows: Vec<ProjectedAgent>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProjectedAgent {
    pub id: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MemoryPlugin {
    pub enabled: bool,
    pub slot: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeartbeatStatus {
    pub default_agent_id: String,
    pub agents: Vec<AgentHeartbeatStatus>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentHeartbeatStatus {
    pub agent_id: String,
    pub enabled: bool,
    pub every: String,
    pub every_ms: Option<u64>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TasksStatus {
    pub total: u64,
    pub active: u64,
    pub terminal: u64,
    pub failures: u64,
    pub by_status: BTreeMap<String, u64>,
    pub by_runtime: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskAudit {
    pub total: u64,
    pub warnings: u64,
    pub errors: u64,
    pub by_code: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionsStatus {
    pub paths: Vec<String>,
    pub count: u64,
    pub defaults: SessionModelDefaults,
    pub recent: Vec<Value>,
    pub by_agent: Vec<AgentSessionsStatus>,
}

/// The sessions of one agent; `path` is redacted for callers without admin.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentSessionsStatus {
    pub agent_id: String,
    pub path: String,
    pub count: u64,
    pub recent: Vec<Value>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionModelDefaults {
    pub model: Option<String>,
    pub context_tokens: Option<u64>,
}

/// One entry of the presence list. The first is the gateway itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PresenceEntry {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_family: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_identifier: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_input_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    pub text: String,
    pub ts: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_id: Option<DeviceId>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub online_since: Option<i64>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SystemEventParams {
    pub text: String,
    #[serde(default)]
    pub device_id: Option<String>,
    #[serde(default)]
    pub instance_id: Option<String>,
    #[serde(default)]
    pub host: Option<String>,
    #[serde(default)]
    pub ip: Option<String>,
    #[serde(default)]
    pub mode: Option<String>,
    #[serde(default)]
    pub version: Option<String>,
    #[serde(default)]
    pub platform: Option<String>,
    #[serde(default)]
    pub device_family: Option<String>,
    #[serde(default)]
    pub last_input_seconds: Option<f64>,
    #[serde(default)]
    pub reason: Option<String>,
    #[serde(default)]
    pub tags: Option<Vec<String>>,
}

/// The last heartbeat run of the agent, also the payload of the `heartbeat` event.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Heartbeat {
    pub ts: i64,
    pub status: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub struct SetHeartbeatsParams {
    pub enabled: bool,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct HeartbeatsSet {
    pub ok: bool,
    pub enabled: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayIdentity {
    pub device_id: DeviceId,
    pub public_key: String,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogsTailParams {
    /// Byte offset returned by the call before.
    #[serde(default)]
    pub cursor: Option<u64>,
    /// Lines, 1 to 5000.
    #[serde(default)]
    pub limit: Option<usize>,
    /// Bytes, 1 to 1 000 000.
    #[serde(default)]
    pub max_bytes: Option<usize>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogsTailResult {
    pub file: String,
    /// Byte offset to continue from.
    pub cursor: u64,
    pub size: u64,
    /// Raw JSON log lines.
    pub lines: Vec<String>,
    /// Older lines were left out.
    pub truncated: bool,
    /// The cursor did not fit the file (rotated or truncated); reading began anew.
    pub reset: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SystemInfoReport {
    pub machine_name: String,
    pub hostname: String,
    pub platform: String,
    pub release: String,
    pub arch: String,
    pub os_label: String,
    pub port: u16,
    pub pid: u32,
    pub process_instance_id: String,
    pub uptime_ms: u64,
    pub cpu_count: usize,
    pub load_average: Vec<f64>,
    pub memory_total_bytes: u64,
    pub memory_free_bytes: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretsReloaded {
    pub ok: bool,
    pub warning_count: usize,
}
