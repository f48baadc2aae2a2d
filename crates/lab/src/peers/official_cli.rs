//! What the real CLI prints when it talks to a gateway that works.
//!
//! The tables hold for the real CLI on its own gateway (a test shows that they do) and are then asked of ours.

use std::path::Path;

use tempfile::TempDir;

use super::{
    Generation, Peers,
    commands::{
        HEALTH,
        Output::{Json, LogLines, Says},
        Row,
        Want::{Bool, Is, List, Number, Object, Text},
        Wants, violations as violations_of,
    },
    prepare_home,
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

const GATEWAY_STATUS_V4: Wants = &[
    ("/gateway/port", Number),
    ("/gateway/version", Text),
    ("/port/status", Is("\"busy\"")),
    ("/port/listeners/0/pid", Number),
    ("/rpc/ok", Is("true")),
    ("/rpc/kind", Is("\"connect\"")),
    ("/rpc/auth/role", Is("\"operator\"")),
    ("/rpc/server/version", Text),
    ("/rpc/server/connId", Text),
];

const GATEWAY_STATUS_V3: Wants = &[("/port/status", Is("\"busy\"")), ("/rpc/ok", Is("true"))];

const PROBE: Wants = &[
    ("/ok", Is("true")),
    ("/primaryTargetId", Is("\"localLoopback\"")),
    ("/targets/0/connect/ok", Is("true")),
    ("/targets/0/connect/latencyMs", Number),
    ("/targets/0/connect/close", Is("null")),
];

/// A probe that may read shows everything: always in protocol 3, where it pairs its device in silence.
const PROBE_READS: Wants = &[
    ("/warnings", Is("[]")),
    ("/targets/0/connect/error", Is("null")),
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

/// The real gateway of protocol 4 gives a device-less probe no scope: it is reached, and read nothing from.
const ROWS_V4_ON_THEIRS: &[Row] = &[
    Row {
        args: &["gateway", "status", "--json"],
        wants: Json(&[
            GATEWAY_STATUS_V4,
            &[("/rpc/capability", Is("\"connected_no_operator_scope\"")), ("/rpc/auth/scopes", Is("[]"))],
        ]),
    },
    Row {
        args: &["gateway", "probe", "--json"],
        wants: Json(&[
            PROBE,
            &[
                ("/degraded", Is("true")),
                ("/capability", Is("\"connected_no_operator_scope\"")),
                ("/warnings/0/code", Is("\"probe_scope_limited\"")),
                ("/targets/0/connect/rpcOk", Is("false")),
                ("/targets/0/connect/scopeLimited", Is("true")),
                ("/targets/0/connect/error", Is("\"missing scope: operator.read\"")),
                ("/targets/0/auth/scopes", Is("[]")),
            ],
        ]),
    },
    Row { args: &["gateway", "probe"], wants: Says(&["Reachable: yes", "Read probe: limited - missing scope"]) },
];

/// Ours does not look at the id a client gives itself: the proven secret on a direct local connection may read.
const ROWS_V4_ON_OURS: &[Row] = &[
    Row {
        args: &["gateway", "status", "--json"],
        wants: Json(&[
            GATEWAY_STATUS_V4,
            &[("/rpc/capability", Is("\"read_only\"")), ("/rpc/auth/scopes", Is("[\"operator.read\"]"))],
        ]),
    },
    Row {
        args: &["gateway", "probe", "--json"],
        wants: Json(&[
            PROBE,
            PROBE_READS,
            &[
                ("/degraded", Is("false")),
                ("/capability", Is("\"read_only\"")),
                ("/targets/0/connect/rpcOk", Is("true")),
                ("/targets/0/connect/scopeLimited", Is("false")),
                ("/targets/0/auth/scopes", Is("[\"operator.read\"]")),
                ("/targets/0/server/version", Text),
            ],
        ]),
    },
    Row { args: &["gateway", "probe"], wants: Says(&["Reachable: yes", "Read probe: ok"]) },
];

const ROWS_V4: &[Row] = &[
    Row { args: &["health", "--json"], wants: Json(&[HEALTH]) },
    Row { args: &["health"], wants: Says(&["Agents: main (default)", "Session store (main): "]) },
    Row { args: &["status", "--json"], wants: Json(&[STATUS_V4]) },
    Row { args: &["status"], wants: Says(&["reachable ", "auth token", "No channels configured"]) },
    Row { args: &["status", "--deep", "--json"], wants: Json(&[STATUS_V4, STATUS_DEEP_V4]) },
    Row { args: &["gateway", "status"], wants: Says(&["Connectivity probe: ok", "Gateway version: "]) },
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
    Row { args: &["gateway", "probe", "--json"], wants: Json(&[PROBE, PROBE_READS]) },
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
            ("/paired/0/clientId", Text),
            ("/paired/0/role", Is("\"operator\"")),
            ("/paired/0/roles", Is("[\"operator\"]")),
            ("/paired/0/tokens/0/role", Is("\"operator\"")),
            ("/paired/0/createdAtMs", Number),
            ("/paired/0/approvedAtMs", Number),
        ]]),
    },
    Row { args: &["logs", "--limit", "3", "--json"], wants: LogLines },
];

/// Whose gateway answers: where the two differ on purpose, so do the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    Theirs,
    Ours,
}

/// Runs every command with the real CLI of that generation against a gateway on a loopback port, and returns what was
/// not as expected, one text per violation.
pub fn violations(
    peers: &Peers,
    generation: Generation,
    whose: Whose,
    (port, token): (u16, &str),
    home: &Path,
) -> Vec<String> {
    let tables = match (generation, whose) {
        (Generation::V3, _) => [ROWS_V3, &[]],
        (Generation::V4, Whose::Theirs) => [ROWS_V4, ROWS_V4_ON_THEIRS],
        (Generation::V4, Whose::Ours) => [ROWS_V4, ROWS_V4_ON_OURS],
    };
    let cli = || peers.cli_on(generation, home, port, token);
    let label = format!("the CLI of {}", generation.release());
    let mut found: Vec<String> = tables.iter().flat_map(|rows| violations_of(&label, rows, cli)).collect();
    found.extend(wrong_token_violations(peers, generation, port));
    found
}

/// A wrong token is refused in words the owner can act on.
fn wrong_token_violations(peers: &Peers, generation: Generation, port: u16) -> Option<String> {
    let hint = match generation {
        Generation::V3 => "set gateway.remote.token to match gateway.auth.token",
        Generation::V4 => "use this gateway's gateway.auth.token or pair the device",
    };
    // A home of its own: a device token from an earlier command would let it in.
    let home = TempDir::with_prefix("openclaw-peer-").expect("a temporary directory");
    prepare_home(home.path());
    let finished =
        peers.cli_on(generation, home.path(), port, "not-the-token").args(["gateway", "call", "health"]).run();
    // Ours may add to the hint, never change it.
    let words = format!("unauthorized: gateway token mismatch ({hint}");
    let refused = finished.status.code() == Some(1) && finished.stderr.contains(&words);
    (!refused).then(|| format!("{} CLI with a wrong token, expected {words:?}: {finished:#?}", generation.release()))
}
