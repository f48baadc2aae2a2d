//! What a node is sent: parameters as they came, or written anew so that nothing internal is among them.

use openclaw_protocol::ErrorShape;
use serde_json::{Map, Value, json, value::RawValue};

use crate::{
    approvals::{
        Approvals, command,
        ledger::Viewer,
        redeem::{Claimed, approved_params, claimed},
    },
    clock::now_ms,
};

/// Parameters on their way to a node.
pub(super) enum Sent<'a> {
    Nothing,
    /// As they came.
    Untouched(&'a RawValue),
    /// Written anew.
    Rebuilt(String),
    /// Made from an approval, when it is redeemed.
    Claimed(Map<String, Value>, Box<Claimed>),
}

pub(super) fn params_to_send<'a>(
    node_id: &str,
    command: &str,
    params: Option<&'a RawValue>,
    may_approve: bool,
    streamed: bool,
) -> Result<Sent<'a>, ErrorShape> {
    match (command, params) {
        ("system.run" | "system.run.prepare", params) => {
            rebuilt(node_id, command, params.map_or("{}", RawValue::get), may_approve, streamed)
        }
        (_, Some(params)) => Ok(Sent::Untouched(params)),
        (_, None) => Ok(Sent::Nothing),
    }
}

/// Turns an approval into what the node is sent, and uses it up.
pub(super) fn redeem(
    approvals: &Approvals,
    viewer: &Viewer<'_>,
    kept: &Map<String, Value>,
    claimed: &Claimed,
) -> Result<String, ErrorShape> {
    let run_id = &claimed.run_id;
    let grant = approvals.with(|ledger| ledger.redeem(now_ms(), run_id, viewer, &claimed.claim));
    let grant = grant.map_err(|refused| refused.into_guard_error(run_id))?;
    let unplanned = || ErrorShape::invalid("approval required");
    approved_params(kept.clone(), run_id, &grant).map(|params| Value::Object(params).to_string()).ok_or_else(unplanned)
}

/// What a parameter must be, and the words for when it is not.
type Kind = (fn(&Value) -> bool, &'static str);

const TEXT: Kind = (Value::is_string, "must be string");
const NUMBER: Kind = (Value::is_number, "must be number");
const FLAG: Kind = (Value::is_boolean, "must be boolean");

/// The parameters of `system.run` that a caller may set, each with what it must be. Nothing else reaches the node: not
/// an approval, not a plan, not a run id, in whatever spelling or depth (P-57).
const RUN_PARAMS: &[(&str, Kind)] = &[
    ("command", (is_argv, "must be an array of strings")),
    ("rawCommand", TEXT),
    ("cwd", TEXT),
    ("env", (is_env, "must be an object of strings")),
    ("timeoutMs", NUMBER),
    ("needsScreenRecording", FLAG),
    ("suppressNotifyOnExit", FLAG),
    ("agentId", TEXT),
    ("sessionKey", TEXT),
];

/// Asks a node for output as it comes (`node.invoke.progress`). Set by the gateway when somebody listens; nodes that do not
/// know it, the official ones among them, send everything with the result.
const STREAM: &str = "stream";

fn is_argv(value: &Value) -> bool {
    value.as_array().is_some_and(|list| list.iter().all(Value::is_string))
}

fn is_env(value: &Value) -> bool {
    value.as_object().is_some_and(|map| map.values().all(Value::is_string))
}

fn rebuilt<'a>(
    node_id: &str,
    command: &str,
    text: &str,
    may_approve: bool,
    streamed: bool,
) -> Result<Sent<'a>, ErrorShape> {
    let problem = |at: &str, what: &str| ErrorShape::invalid(format!("invalid {command} params: at {at}: {what}"));
    let Ok(Value::Object(mut given)) = serde_json::from_str(text) else {
        return Err(problem("root", "must be object"));
    };
    let claimed = match command {
        "system.run" => claimed(node_id, &given, may_approve)?,
        _ => None,
    };
    let mut kept = Map::new();
    for (name, (fits, must)) in RUN_PARAMS {
        match given.remove(*name) {
            None | Some(Value::Null) => {}
            Some(value) if fits(&value) => {
                kept.insert((*name).to_owned(), value);
            }
            Some(_) => return Err(problem(&format!("/{name}"), must)),
        }
    }
    if kept.values().any(holds_nul) {
        return Err(problem("/command", "NUL can be part of no command"));
    }
    if streamed && command == "system.run" {
        kept.insert(STREAM.into(), true.into());
    }
    if let Some(claimed) = claimed {
        return Ok(Sent::Claimed(kept, Box::new(claimed)));
    }
    check_text(&mut kept)?;
    if command == "system.run" {
        kept.insert("runId".into(), uuid::Uuid::new_v4().to_string().into());
    }
    Ok(Sent::Rebuilt(Value::Object(kept).to_string()))
}

fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(list) => list.iter().any(holds_nul),
        Value::Object(map) => map.iter().any(|(name, value)| name.contains('\0') || holds_nul(value)),
        _ => false,
    }
}

/// A text beside the words has to be the text of these words: people are shown the one, and the other runs (P-58).
fn check_text(kept: &mut Map<String, Value>) -> Result<(), ErrorShape> {
    let words = kept.get("command").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let argv: Vec<String> = words.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let Some(Value::String(raw)) = kept.remove("rawCommand") else { return Ok(()) };
    if argv.is_empty() && !raw.trim().is_empty() {
        let details = json!({"code": "MISSING_COMMAND"});
        return Err(ErrorShape::invalid("rawCommand requires params.command").with_details(details));
    }
    let checked = command::checked_raw(&argv, &raw).map_err(|mismatch| {
        let expected = &mismatch.expected;
        let details = json!({"code": "RAW_COMMAND_MISMATCH", "rawCommand": mismatch.raw, "inferred": expected,
                             "formattedArgv": expected});
        ErrorShape::invalid("INVALID_REQUEST: rawCommand does not match command").with_details(details)
    })?;
    if let Some(text) = checked {
        kept.insert("rawCommand".into(), text.into());
    }
    Ok(())
}
