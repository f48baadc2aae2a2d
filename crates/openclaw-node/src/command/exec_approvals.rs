//! `system.execApprovals.get` and `.set`: the owner's document, read and replaced through the gateway.

use serde::Deserialize;
use serde_json::Value;

use super::{Call, Failure, Toolbox};
use crate::approvals::{document::SetError, policy};

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct GetParams {
    include_resolved_defaults: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SetParams {
    file: Option<Value>,
    base_hash: Option<String>,
}

pub fn get(toolbox: &Toolbox, call: &Call) -> Result<Value, Failure> {
    let params: GetParams = call.optional_params()?;
    let snapshot = toolbox.approvals.read();
    let mut answer = toolbox.approvals.to_wire(&snapshot);
    if params.include_resolved_defaults {
        let defaults = openclaw_protocol::method::exec::ApprovalsFile { agents: None, ..snapshot.file };
        let resolved = policy::effective(&defaults, None, toolbox.configured).policy;
        answer["resolvedDefaults"] = serde_json::to_value(resolved).unwrap_or_default();
    }
    Ok(answer)
}

pub fn set(toolbox: &Toolbox, call: &Call) -> Result<Value, Failure> {
    let params: SetParams = call.params()?;
    let file = params.file.filter(Value::is_object);
    let file = file.ok_or_else(|| Failure::invalid("INVALID_REQUEST: exec approvals file required"))?;
    match toolbox.approvals.replace(&file, params.base_hash.as_deref()) {
        Ok(snapshot) => Ok(toolbox.approvals.to_wire(&snapshot)),
        Err(error @ (SetError::HashRequired | SetError::Changed | SetError::Invalid(_))) => {
            Err(Failure::invalid(error.to_string()))
        }
        Err(error) => Err(Failure::unavailable(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::Bench;
    use serde_json::json;

    #[tokio::test]
    async fn read_change_and_read_again() {
        let bench = Bench::new("{}");
        let empty = bench.toolbox.run(&bench.call("system.execApprovals.get", None)).await.unwrap();
        assert_eq!((&empty["exists"], &empty["file"]["version"]), (&json!(false), &json!(1)));
        let with = bench.ask("system.execApprovals.get", json!({"includeResolvedDefaults": true})).await.unwrap();
        assert_eq!(
            with["resolvedDefaults"],
            json!({"security": "allowlist", "ask": "on-miss", "askFallback": "deny", "autoAllowSkills": false})
        );
        let file = json!({"version": 1, "defaults": {"security": "full", "ask": "off"}});
        let set = json!({"file": file, "baseHash": empty["hash"]});
        let changed = bench.ask("system.execApprovals.set", set.clone()).await.unwrap();
        assert_eq!((&changed["exists"], &changed["file"]["defaults"]["security"]), (&json!(true), &json!("full")));
        let stale = bench.ask("system.execApprovals.set", set).await.unwrap_err();
        assert_eq!(stale.message, "INVALID_REQUEST: exec approvals changed; reload and retry");
        for wrong in [json!({}), json!({"file": 1}), json!({"file": {"version": 7}, "baseHash": changed["hash"]})] {
            assert_eq!(bench.ask("system.execApprovals.set", wrong).await.unwrap_err().code, "INVALID_REQUEST");
        }
    }
}
