//! What the real CLI prints when it talks to a gateway that works.
//!
//! The tables hold for the real CLI on its own gateway (a test shows that they do) and are then asked of ours.

use std::path::Path;

use serde_json::{Value, json};

use super::{Generation, Peers};
use crate::process::Finished;

/// What a place in the output has to be.
#[derive(Debug, Clone, Copy)]
pub enum Want {
    /// Exactly this JSON text.
    Is(&'static str),
    Text,
    Number,
    Bool,
    List,
    Object,
}
use Want::{Bool, Is, List, Number, Object, Text};

impl Want {
    fn fits(self, value: &Value) -> bool {
        match self {
            Is(text) => serde_json::from_str::<Value>(text).expect("the tables hold JSON") == *value,
            Text => value.as_str().is_some_and(|text| !text.is_empty()),
            Number => value.is_number(),
            Bool => value.is_boolean(),
            List => value.is_array(),
            Object => value.is_object(),
        }
    }
}

/// One command: its arguments, and what has to be where in its output. It has to exit with 0.
struct Row {
    args: &'static [&'static str],
    wants: Output,
}

enum Output {
    /// One JSON document; a pointer and what is there.
    Json(&'static [&'static [(&'static str, Want)]]),
    /// A line of JSON about the log file, then one per log line.
    LogLines,
    /// Text for people that contains these.
    Says(&'static [&'static str]),
}
use Output::{Json, LogLines, Says};

/// The `health` payload, which several commands show.
const HEALTH: &[(&str, Want)] = &[
    ("/ok", Is("true")),
    ("/ts", Number),
    ("/durationMs", Number),
    ("/channels", Is("{}")),
    ("/channelOrder", Is("[]")),
    ("/channelLabels", Is("{}")),
    ("/heartbeatSeconds", Number),
    ("/defaultAgentId", Is("\"main\"")),
    ("/agents/0/agentId", Is("\"main\"")),
    ("/agents/0/isDefault", Is("true")),
    ("/agents/0/heartbeat/enabled", Bool),
    ("/agents/0/sessions/count", Is("0")),
    ("/sessions/path", Text),
    ("/sessions/count", Is("0")),
    ("/sessions/recent", Is("[]")),
];

/// `status` where its text comes from the gateway.
const STATUS_V4: &[(&str, Want)] = &[
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

const STATUS_DEEP_V4: &[(&str, Want)] = &[
    ("/health/ok", Is("true")),
    ("/health/agents/0/agentId", Is("\"main\"")),
    ("/health/sessions/count", Is("0")),
    ("/lastHeartbeat", Is("null")),
    ("/collection/source", Is("\"gateway\"")),
];

const STATUS_V3: &[(&str, Want)] = &[
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

const STATUS_DEEP_V3: &[(&str, Want)] = &[
    ("/health/ok", Is("true")),
    ("/health/agents/0/agentId", Is("\"main\"")),
    ("/health/sessions/count", Is("0")),
    ("/lastHeartbeat", Is("null")),
];

/// A device-less probe holds no scope in protocol 4: it reaches the gateway, and reads nothing.
const GATEWAY_STATUS_V4: &[(&str, Want)] = &[
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

const GATEWAY_STATUS_V3: &[(&str, Want)] = &[("/port/status", Is("\"busy\"")), ("/rpc/ok", Is("true"))];

const PROBE_V4: &[(&str, Want)] = &[
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
const PROBE_V3: &[(&str, Want)] = &[
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

/// Runs every command of the issue with the real CLI of that generation against a gateway on a loopback port, and
/// returns what was not as expected, one text per violation.
pub fn violations(peers: &Peers, generation: Generation, port: u16, token: &str, home: &Path) -> Vec<String> {
    let rows = if generation == Generation::V4 { ROWS_V4 } else { ROWS_V3 };
    rows.iter()
        .flat_map(|row| {
            let finished = peers
                .cli(generation, home)
                .env("OPENCLAW_GATEWAY_URL", format!("ws://127.0.0.1:{port}"))
                .env("OPENCLAW_GATEWAY_PORT", port.to_string())
                .env("OPENCLAW_GATEWAY_TOKEN", token)
                .args(row.args)
                .run();
            let mut found = row.wants.violations(&finished);
            if finished.status.code() != Some(0) {
                found.push(format!("exit {}", finished.status));
            }
            let command = row.args.join(" ");
            let report = |text| format!("{} CLI, `{command}`: {text}", generation.release());
            let mut reports: Vec<String> = found.into_iter().map(report).collect();
            if let Some(last) = reports.last_mut() {
                *last += &format!("\n--- stdout\n{}\n--- stderr\n{}", finished.stdout, finished.stderr);
            }
            reports
        })
        .collect()
}

impl Output {
    fn violations(&self, finished: &Finished) -> Vec<String> {
        match self {
            Json(tables) => match serde_json::from_str::<Value>(&finished.stdout) {
                Ok(json) => misfits(&json, tables),
                Err(error) => vec![format!("stdout is not JSON: {error}")],
            },
            Says(texts) => {
                let unsaid = texts.iter().filter(|text| !finished.stdout.contains(**text));
                unsaid.map(|text| format!("does not say {text:?}")).collect()
            }
            LogLines => log_misfits(&finished.stdout),
        }
    }
}

fn misfits(json: &Value, tables: &[&[(&str, Want)]]) -> Vec<String> {
    let wants = tables.iter().flat_map(|table| table.iter());
    let misfit = wants.filter(|(pointer, want)| !json.pointer(pointer).is_some_and(|value| want.fits(value)));
    misfit.map(|(pointer, want)| format!("{pointer} is {}, not {want:?}", shown(json.pointer(pointer)))).collect()
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "missing".to_owned(), Value::to_string)
}

/// `logs --json`: a meta line, at least one log line with level and message, and notices perhaps.
fn log_misfits(stdout: &str) -> Vec<String> {
    const META: &[(&str, Want)] =
        &[("/type", Is("\"meta\"")), ("/file", Text), ("/cursor", Number), ("/size", Number)];
    const LINE: &[(&str, Want)] =
        &[("/type", Is("\"log\"")), ("/time", Text), ("/level", Text), ("/message", Text), ("/raw", Text)];
    let lines: Result<Vec<Value>, _> = stdout.lines().map(serde_json::from_str).collect();
    let Ok(lines) = lines else { return vec!["not every line is JSON".to_owned()] };
    let (Some(meta), Some(first)) = (lines.first(), lines.get(1)) else { return vec!["no log line".to_owned()] };
    let mut found = misfits(meta, &[META]);
    found.extend(misfits(first, &[LINE]));
    let odd = lines.iter().skip(1).filter(|line| line["type"] != json!("log") && line["type"] != json!("notice"));
    found.extend(odd.map(|line| format!("an odd line: {line}")));
    found
}
