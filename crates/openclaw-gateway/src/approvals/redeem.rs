//! `system.run` with an approval: what a caller claims, and what is then sent to the node.

use std::collections::BTreeMap;

use openclaw_protocol::{
    ErrorShape,
    method::exec::{Decision, SystemRunPlan},
};
use serde_json::{Map, Value, json};

use super::{
    command,
    ledger::{Claim, Grant},
    prepare::env_hash,
};

/// Something a caller says it was allowed, by id.
#[derive(Clone, Debug)]
pub struct Claimed {
    pub run_id: String,
    pub claim: Claim,
}

/// Reads a claim from the parameters of `system.run`, in whatever spelling. `None` when there is none.
///
/// # Errors
/// `INVALID_REQUEST` in the reference's words, when it cannot be one.
pub fn claimed(node_id: &str, given: &Map<String, Value>, may_approve: bool) -> Result<Option<Claimed>, ErrorShape> {
    let find = |wanted: &str| given.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value);
    let approved = find("approved") == Some(&Value::Bool(true));
    let allows = |word: &str| Decision::parse(word.trim()).is_some_and(Decision::allows);
    let decision = find("approvalDecision").and_then(Value::as_str).is_some_and(allows);
    let guard = |words: &str, code: &str| ErrorShape::invalid(words).with_details(json!({ "code": code }));
    let fallback = match find("approvalSource") {
        None | Some(Value::Null) => false,
        Some(Value::String(word)) if word == "ask-fallback" => true,
        Some(_) => return Err(guard("approval source invalid", "INVALID_APPROVAL_SOURCE")),
    };
    if fallback && (find("approved").is_some() || find("approvalDecision").is_some()) {
        let words = "approval source cannot be combined with explicit approval";
        return Err(guard(words, "APPROVAL_SOURCE_MISMATCH"));
    }
    if !approved && !decision && !fallback {
        return Ok(None);
    }
    let text = |name: &str| {
        let text = given.get(name).and_then(Value::as_str).filter(|text| !text.trim().is_empty());
        text.map(str::to_owned)
    };
    let missing = || guard("approval override requires params.runId", "MISSING_RUN_ID");
    let run_id =
        find("runId").and_then(Value::as_str).map(str::trim).filter(|id| !id.is_empty()).ok_or_else(missing)?;
    let words = |value: &Value| value.as_array()?.iter().map(|word| word.as_str().map(str::to_owned)).collect();
    let env: BTreeMap<String, String> = match given.get("env").and_then(Value::as_object) {
        Some(env) => env.iter().filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect(),
        None => BTreeMap::new(),
    };
    let claim = Claim {
        node_id: node_id.to_owned(),
        fallback,
        argv: given.get("command").and_then(words),
        cwd: text("cwd"),
        agent_id: text("agentId"),
        session_key: text("sessionKey"),
        env_hash: env_hash(&env),
        may_approve,
    };
    Ok(Some(Claimed { run_id: run_id.to_owned(), claim }))
}

/// What the node is sent: the approved plan in place of anything the caller said, and the leave to run it. `kept` are the
/// caller's other parameters, checked already.
pub fn approved_params(mut kept: Map<String, Value>, run_id: &str, grant: &Grant) -> Option<Map<String, Value>> {
    let plan = grant.request.system_run_plan.as_ref()?;
    kept.insert("command".into(), json!(plan.argv));
    kept.insert("rawCommand".into(), json!(raw_command(plan)));
    for (name, value) in [("cwd", &plan.cwd), ("agentId", &plan.agent_id), ("sessionKey", &plan.session_key)] {
        match value {
            Some(value) => kept.insert(name.into(), json!(value)),
            None => kept.remove(name),
        };
    }
    kept.insert("systemRunPlan".into(), serde_json::to_value(plan).ok()?);
    kept.insert("runId".into(), json!(run_id));
    match grant.decision {
        Some(decision) => {
            kept.insert("approved".into(), json!(true));
            kept.insert("approvalDecision".into(), json!(decision));
        }
        None => {
            kept.insert("approvalSource".into(), json!("ask-fallback"));
        }
    }
    Some(kept)
}

/// The script of a plain shell call, else the whole text: the reference forwards the shorter one.
fn raw_command(plan: &SystemRunPlan) -> String {
    command::preview(&plan.argv).map_or_else(|| command::text(&plan.argv), str::to_owned)
}
