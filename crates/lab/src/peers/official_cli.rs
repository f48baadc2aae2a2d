//! What the real CLI prints when it talks to a gateway that works.
//!
//! The tables hold for the real CLI on its own gateway (a test shows that they do) and are then asked of ours.

use std::path::Path;

use super::{
    Generation, Peers,
    commands::{
        HEALTH,
        Output::{Json, LogLines, Says},
        Row,
        Want::{Bool, Is, List, Number, Object, Text},
        Wants, violations as violations_of,
    },
};

/// `status` where its text comes from the gateway.
const STATUS_V4: Wants = &[
    ("/runtimeVersion", Text),
    ("/heartbeat/defaultAgentId", Is("\"main\"")),
    ("/heartbeat/agents/0/agentId", Is("\"main\"")),
    ("/channelSummary", Is("[]")),
    ("/queuedSystemEvents", Is("[]")),
    ("/tasks/total", Number),
    ("/sessions/count", Is("0")),
    ("/sessions/byAgent/0/agentId", Is("\"main\"")),
    ("/gateway/mode", Is("\"local\"")),
    ("/gateway/misconfigured", Is("false")),
    ("/gateway/reachable", Is("true")),
    ("/gateway/connectLatencyMs", Number),
    ("/gateway/error", Is("null")),
    ("/gateway/authWarning", Is("null")),
    ("/agents/defaultId", Is("\"main\"")),
    ("/agents/ownership", Is("\"sole\"")),
    ("/agents/agents/0/id", Is("\"main\"")),
    ("/memoryPlugin", Object),
];

const STATUS_DEEP_V4: Wants = &[
    ("/health/ok", Is("true")),
    ("/health/agents/0/agentId", Is("\"main\"")),
    ("/health/sessions/count", Is("0")),
    ("/lastHeartbeat", Is("null")),
    ("/collection/source", Is("\"gateway\"")),
];

const STATUS_V3: Wants = &[
    ("/heartbeat/defaultAgentId", Is("\"main\"")),
    ("/sessions/count", Is("0")),
    ("/gateway/mode", Is("\"local\"")),
    ("/gateway/misconfigured", Is("false")),
    ("/gateway/reachable", Is("true")),
    ("/gateway/connectLatencyMs", Number),
    ("/gateway/self/host", Text),
    ("/gateway/self/version", Text),
    ("/gateway/self/platform", Text),
    ("/gateway/error", Is("null")),
    ("/agents/defaultId", Is("\"main\"")),
];

const STATUS_DEEP_V3: Wants = &[
    ("/health/ok", Is("true")),
    ("/health/agents/0/agentId", Is("\"main\"")),
    ("/health/sessions/count", Is("0")),
    ("/lastHeartbeat", Is("null")),
];

/// A device-less probe holds no scope in protocol 4: it reaches the gateway, and reads nothing.
const GATEWAY_STATUS_V4: Wants = &[
    ("/gateway/port", Number),
    ("/gateway/version", Text),
    ("/port/status", Is("\"busy\"")),
    ("/port/listeners/0/pid", Number),
    ("/rpc/ok", Is("true")),
    ("/rpc/kind", Is("\"connect\"")),
    ("/rpc/capability", Is("\"connected_no_operator_scope\"")),
    ("/rpc/auth/role", Is("\"operator\"")),
    ("/rpc/auth/scopes", Is("[]")),
    ("/rpc/server/version", Text),
    ("/rpc/server/connId", Text),
];

const GATEWAY_STATUS_V3: Wants = &[("/port/status", Is("\"busy\"")), ("/rpc/ok", Is("true"))];

const PROBE_V4: Wants = &[
    ("/ok", Is("true")),
    ("/degraded", Is("true")),
    ("/capability", Is("\"connected_no_operator_scope\"")),
    ("/primaryTargetId", Is("\"localLoopback\"")),
    ("/warnings/0/code", Is("\"probe_scope_limited\"")),
    ("/targets/0/connect/ok", Is("true")),
    ("/targets/0/connect/rpcOk", Is("false")),
    ("/targets/0/connect/scopeLimited", Is("true")),
    ("/targets/0/connect/latencyMs", Number),
    ("/targets/0/connect/error", Is("\"missing scope: operator.read\"")),
    ("/targets/0/connect/close", Is("null")),
    ("/targets/0/auth/role", Is("\"operator\"")),
    ("/targets/0/auth/scopes", Is("[]")),
    ("/targets/0/server/version", Text),
    ("/targets/0/server/connId", Text),
];

/// In protocol 3 the probe pairs its device in silence and reads everything.
const PROBE_V3: Wants = &[
    ("/ok", Is("true")),
    ("/primaryTargetId", Is("\"localLoopback\"")),
    ("/warnings", Is("[]")),
    ("/targets/0/connect/ok", Is("true")),
    ("/targets/0/connect/latencyMs", Number),
    ("/targets/0/connect/error", Is("null")),
    ("/targets/0/connect/close", Is("null")),
    ("/targets/0/self/host", Text),
    ("/targets/0/self/platform", Text),
    ("/targets/0/config/exists", Bool),
    ("/targets/0/config/valid", Is("true")),
    ("/targets/0/config/issues", Is("[]")),
    ("/targets/0/health/ok", Is("true")),
    ("/targets/0/health/agents/0/agentId", Is("\"main\"")),
    ("/targets/0/summary/heartbeat/defaultAgentId", Is("\"main\"")),
    ("/targets/0/presence/0/mode", Is("\"gateway\"")),
];

const ROWS_V4: &[Row] = &[
    Row { args: &["health", "--json"], wants: Json(&[HEALTH]) },
    Row { args: &["health"], wants: Says(&["Agents: main (default)", "Session store (main): "]) },
    Row { args: &["status", "--json"], wants: Json(&[STATUS_V4]) },
    Row { args: &["status"], wants: Says(&["reachable ", "auth token", "No channels configured"]) },
    Row { args: &["status", "--deep", "--json"], wants: Json(&[STATUS_V4, STATUS_DEEP_V4]) },
    Row { args: &["gateway", "status", "--json"], wants: Json(&[GATEWAY_STATUS_V4]) },
    Row { args: &["gateway", "status"], wants: Says(&["Connectivity probe: ok", "Gateway version: "]) },
    Row { args: &["gateway", "probe", "--json"], wants: Json(&[PROBE_V4]) },
    Row { args: &["gateway", "probe"], wants: Says(&["Reachable: yes", "Read probe: limited - missing scope"]) },
    Row { args: &["gateway", "health"], wants: Says(&["Gateway Health", "OK ("]) },
    Row { args: &["gateway", "call", "health", "--json"], wants: Json(&[HEALTH]) },
    Row { args: &["devices", "list", "--json"], wants: Json(&[&[("/pending", Is("[]")), ("/paired", List)]]) },
    Row { args: &["logs", "--limit", "3", "--json"], wants: LogLines },
];

const ROWS_V3: &[Row] = &[
    Row { args: &["health", "--json"], wants: Json(&[HEALTH]) },
    Row { args: &["health"], wants: Says(&["Agents: main (default)", "Session store (main): "]) },
    Row { args: &["status", "--json"], wants: Json(&[STATUS_V3]) },
    Row { args: &["status"], wants: Says(&["reachable ", "auth token"]) },
    Row { args: &["status", "--deep", "--json"], wants: Json(&[STATUS_V3, STATUS_DEEP_V3]) },
    Row { args: &["gateway", "status", "--json"], wants: Json(&[GATEWAY_STATUS_V3]) },
    Row { args: &["gateway", "status"], wants: Says(&["RPC probe: ok"]) },
    Row { args: &["gateway", "probe", "--json"], wants: Json(&[PROBE_V3]) },
    Row { args: &["gateway", "probe"], wants: Says(&["Reachable: yes", "RPC: ok"]) },
    Row { args: &["gateway", "health"], wants: Says(&["Gateway Health", "OK ("]) },
    Row { args: &["gateway", "call", "health", "--json"], wants: Json(&[HEALTH]) },
    // This CLI always signs with its device, so it sees at least itself.
    Row {
        args: &["devices", "list", "--json"],
        wants: Json(&[&[
            ("/pending", Is("[]")),
            ("/paired/0/deviceId", Text),
            ("/paired/0/publicKey", Text),
            ("/paired/0/clientId", Is("\"cli\"")),
            ("/paired/0/role", Is("\"operator\"")),
            ("/paired/0/roles", Is("[\"operator\"]")),
            ("/paired/0/tokens/0/role", Is("\"operator\"")),
            ("/paired/0/createdAtMs", Number),
            ("/paired/0/approvedAtMs", Number),
        ]]),
    },
    Row { args: &["logs", "--limit", "3", "--json"], wants: LogLines },
];

/// Runs every command with the real CLI of that generation against a gateway on a loopback port, and
/// returns what was not as expected, one text per violation.
pub fn violations(peers: &Peers, generation: Generation, port: u16, token: &str, home: &Path) -> Vec<String> {
    let rows = if generation == Generation::V4 { ROWS_V4 } else { ROWS_V3 };
    violations_of(&format!("the CLI of {}", generation.release()), rows, || {
        peers
            .cli(generation, home)
            .env("OPENCLAW_GATEWAY_URL", format!("ws://127.0.0.1:{port}"))
            .env("OPENCLAW_GATEWAY_PORT", port.to_string())
            .env("OPENCLAW_GATEWAY_TOKEN", token)
    })
}
