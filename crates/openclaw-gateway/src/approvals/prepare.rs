//! From a caller's request to what is put before a person: everything shown comes from what would run.

use std::collections::BTreeMap;

use openclaw_protocol::{
    ErrorShape, Protocol,
    method::exec::{
        ApprovalRequest, ApprovalRequestParams, CommandAnalysis, Decision, SystemRunBinding, SystemRunPlan,
    },
    secret::hex,
};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{
    command,
    display::{TooLong, shown, shown_lines},
};

/// How long a person has when the caller does not say: 30 minutes, and 2 in protocol 3.
const DEFAULT_MS: u64 = 30 * 60 * 1000;
const DEFAULT_V3_MS: u64 = 2 * 60 * 1000;
/// Longest time anybody may be asked for: 24 hours.
const MAX_MS: u64 = 24 * 60 * 60 * 1000;

/// A request that can be put before a person.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub request: ApprovalRequest,
    pub timeout_ms: i64,
}

/// Checks a request and rebuilds what it shows.
///
/// # Errors
/// `INVALID_REQUEST` in the reference's words.
pub fn prepare(params: ApprovalRequestParams, protocol: Protocol) -> Result<Prepared, ErrorShape> {
    let problem = |text: &str| ErrorShape::invalid(format!("invalid exec.approval.request params: {text}"));
    let word = |text: Option<String>| filled(text).map(|text| text.trim().to_owned());
    let (host, node_id) = (word(params.host), word(params.node_id));
    let on_node = host.as_deref() == Some("node");
    if on_node && node_id.is_none() {
        return Err(ErrorShape::invalid("nodeId is required for host=node"));
    }
    let timeout_ms = match params.timeout_ms {
        Some(0) => return Err(problem("at /timeoutMs: must be >= 1")),
        Some(ms) => ms.min(MAX_MS),
        None if protocol == Protocol::V3 => DEFAULT_V3_MS,
        None => DEFAULT_MS,
    };
    let argv = filled_list(params.command_argv);
    let plan = match (on_node, params.system_run_plan) {
        (false, _) => None,
        (true, Some(plan)) if !plan.argv.is_empty() => Some(rebuilt(plan)),
        // Protocol 3 asked without a plan as well.
        (true, _) if protocol == Protocol::V3 => {
            let argv = argv.clone().ok_or_else(|| ErrorShape::invalid("commandArgv is required for host=node"))?;
            Some(rebuilt(SystemRunPlan {
                argv,
                cwd: filled(params.cwd.clone()),
                command_text: String::new(),
                command_preview: None,
                agent_id: filled(params.agent_id.clone()),
                session_key: filled(params.session_key.clone()),
                policy_snapshot: None,
                mutable_file_operand: None,
            }))
        }
        (true, _) => return Err(ErrorShape::invalid("systemRunPlan is required for host=node")),
    };
    let plan_text = plan.as_ref().map(|plan| plan.command_text.clone());
    let text = plan_text.or_else(|| filled(params.command)).or_else(|| argv.as_deref().map(command::text));
    let text = text.ok_or_else(|| ErrorShape::invalid("command is required"))?;
    let argv = plan.as_ref().map(|plan| plan.argv.clone()).or(argv);
    let env = params.env.unwrap_or_default();
    if argv.iter().flatten().chain(env.keys()).chain(env.values()).any(|text| text.contains('\0')) {
        return Err(problem("at /systemRunPlan: NUL can be part of no command"));
    }
    let too_long = |_: TooLong| {
        ErrorShape::invalid("command exceeds exec approval display limit")
            .with_details(json!({"reason": "EXEC_APPROVAL_COMMAND_DISPLAY_LIMIT"}))
    };
    let shown_text = |text: Option<String>| text.map(|text| shown(&text)).transpose().map_err(too_long);
    let from_plan = |field: fn(&SystemRunPlan) -> &Option<String>| plan.as_ref().map(field).cloned().unwrap_or(None);
    let cwd = from_plan(|plan| &plan.cwd).or_else(|| filled(params.cwd));
    let agent_id = from_plan(|plan| &plan.agent_id).or_else(|| filled(params.agent_id));
    let session_key = from_plan(|plan| &plan.session_key).or_else(|| filled(params.session_key));
    let binding = plan.as_ref().map(|plan| SystemRunBinding {
        argv: plan.argv.clone(),
        cwd: cwd.clone(),
        agent_id: agent_id.clone(),
        session_key: session_key.clone(),
        env_hash: env_hash(&env),
    });
    let unavailable: Vec<String> = params.unavailable_decisions.unwrap_or_default();
    let unavailable: Vec<String> = unavailable.into_iter().filter(|word| word == "allow-always").take(1).collect();
    let ask = params.ask.as_deref().map(str::trim).filter(|word| ["off", "on-miss", "always"].contains(word));
    let security =
        params.security.as_deref().map(str::trim).filter(|word| ["deny", "allowlist", "full"].contains(word));
    let once_only = ask == Some("always") || !unavailable.is_empty();
    let allowed = Decision::ALL.into_iter().filter(|decision| !(once_only && *decision == Decision::AllowAlways));
    let on_gateway = !on_node;
    let request = ApprovalRequest {
        command: shown(&text).map_err(too_long)?,
        command_preview: None,
        command_argv: argv.clone().filter(|_| on_gateway),
        env_keys: (!env.is_empty()).then(|| env.keys().cloned().collect()),
        system_run_binding: binding,
        system_run_plan: plan,
        cwd: shown_text(cwd)?,
        node_id: node_id.filter(|_| on_node),
        host: shown_text(host)?,
        security: security.map(str::to_owned),
        ask: ask.map(str::to_owned),
        warning_text: filled(params.warning_text).map(|text| shown_lines(&text)).transpose().map_err(too_long)?,
        scope: None,
        command_analysis: argv.as_deref().map(analysis).transpose().map_err(too_long)?,
        unavailable_decisions: (!unavailable.is_empty()).then_some(unavailable),
        allowed_decisions: allowed.collect(),
        agent_id,
        resolved_path: shown_text(filled(params.resolved_path))?,
        session_key,
        session_id: filled(params.session_id),
        run_id: filled(params.run_id),
        tool_call_id: filled(params.tool_call_id),
        turn_source_channel: filled(params.turn_source_channel),
        turn_source_to: filled(params.turn_source_to),
        turn_source_account_id: filled(params.turn_source_account_id),
        turn_source_thread_id: params.turn_source_thread_id.filter(|id| id.is_string() || id.is_number()),
        cron_execution_source: None,
        cron_operation_binding: None,
    };
    let timeout_ms = i64::try_from(timeout_ms).unwrap_or(i64::MAX);
    Ok(Prepared { request, timeout_ms })
}

/// The plan with its texts made from its words, whatever they said before.
fn rebuilt(plan: SystemRunPlan) -> SystemRunPlan {
    let command_text = command::text(&plan.argv);
    let command_preview = command::preview(&plan.argv).filter(|text| *text != command_text).map(str::to_owned);
    SystemRunPlan {
        command_text,
        command_preview,
        cwd: filled(plan.cwd),
        agent_id: filled(plan.agent_id),
        session_key: filled(plan.session_key),
        ..plan
    }
}

fn analysis(argv: &[String]) -> Result<CommandAnalysis, TooLong> {
    let risks = command::risks(argv);
    let lines = risks.iter().map(|(_, line)| shown(line)).collect::<Result<_, _>>()?;
    Ok(CommandAnalysis {
        command_count: 1,
        nested_command_count: 0,
        risk_kinds: risks.iter().map(|(kind, _)| (*kind).to_owned()).collect(),
        warning_lines: lines,
    })
}

/// SHA-256 over the sorted environment; `None` when none is set.
pub fn env_hash(env: &BTreeMap<String, String>) -> Option<String> {
    let entries: Vec<(&String, &String)> = env.iter().collect();
    let text = serde_json::to_string(&entries).ok().filter(|_| !entries.is_empty())?;
    Some(hex(&Sha256::digest(text.as_bytes())))
}

/// Texts of blanks count as absent; others are left as they are.
fn filled(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.trim().is_empty())
}

fn filled_list(list: Option<Vec<String>>) -> Option<Vec<String>> {
    list.filter(|list| !list.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn ask(params: Value, protocol: Protocol) -> Result<Prepared, ErrorShape> {
        prepare(serde_json::from_value(params).expect("params"), protocol)
    }

    fn plan() -> Value {
        json!({"argv": ["/bin/sh", "-c", "echo hi"], "cwd": "/w", "commandText": "/bin/sh -c \"echo hi\"",
               "commandPreview": "echo hi", "agentId": "main", "sessionKey": "agent:main:main",
               "policySnapshot": {"security": "full", "ask": "off", "askFallback": "deny", "autoAllowSkills": false,
                                  "allowlistRules": []}})
    }

    /// Request and event of `exec-approvals-system-run` (q6 and q11), field by field and in order.
    #[test]
    fn requests_look_as_captured() {
        let asked = json!({"command": "/bin/sh -c \"echo hi\"", "commandArgv": ["/bin/sh", "-c", "echo hi"],
            "systemRunPlan": plan(), "nodeId": "3b88", "host": "node", "agentId": "main",
            "sessionKey": "agent:main:main", "timeoutMs": 8000, "requireDeliveryRoute": false});
        let prepared = ask(asked, Protocol::V4).expect("fine");
        let binding = json!({"argv": ["/bin/sh", "-c", "echo hi"], "cwd": "/w", "agentId": "main",
                             "sessionKey": "agent:main:main", "envHash": null});
        let expected = json!({"command": "/bin/sh -c \"echo hi\"", "systemRunBinding": binding,
            "systemRunPlan": plan(), "cwd": "/w", "nodeId": "3b88", "host": "node", "security": null, "ask": null,
            "warningText": null, "scope": null, "commandAnalysis": {"commandCount": 1, "nestedCommandCount": 0,
            "riskKinds": [], "warningLines": []}, "allowedDecisions": ["allow-once", "allow-always", "deny"],
            "agentId": "main", "resolvedPath": null, "sessionKey": "agent:main:main", "sessionId": null,
            "runId": null, "toolCallId": null, "turnSourceChannel": null, "turnSourceTo": null,
            "turnSourceAccountId": null, "turnSourceThreadId": null, "cronExecutionSource": null,
            "cronOperationBinding": null});
        let found = serde_json::to_value(&prepared.request).expect("serialises");
        assert_eq!(found.to_string(), expected.to_string());
        assert_eq!(prepared.timeout_ms, 8_000);

        let text_only = json!({"command": "rm -rf x", "host": "gateway", "agentId": "main", "twoPhase": true});
        let prepared = ask(text_only, Protocol::V4).expect("fine");
        assert_eq!((prepared.request.command.as_str(), prepared.timeout_ms), ("rm -rf x", 1_800_000));
        assert_eq!((prepared.request.system_run_plan, prepared.request.system_run_binding), (None, None));
    }

    #[test]
    fn p_58_what_is_shown_is_made_from_what_runs() {
        let mut lying = plan();
        lying["commandText"] = json!("ls");
        lying["commandPreview"] = json!("ls");
        lying["argv"] = json!(["rm", "-rf", "/\u{202e}", "a\nb"]);
        let asked = json!({"command": "ls", "commandArgv": ["ls"], "systemRunPlan": lying, "nodeId": "n",
                           "host": "node", "cwd": "/elsewhere", "agentId": "other"});
        let request = ask(asked, Protocol::V4).expect("fine").request;
        assert_eq!(request.command, "rm -rf /\\u{202E} \"a\\u{A}b\"");
        let plan = request.system_run_plan.expect("plan");
        assert_eq!((plan.command_text.as_str(), plan.command_preview), ("rm -rf /\u{202e} \"a\nb\"", None));
        let binding = request.system_run_binding.expect("binding");
        assert_eq!((binding.argv, binding.cwd.as_deref()), (plan.argv, Some("/w")));
        assert_eq!((binding.agent_id.as_deref(), request.cwd.as_deref()), (Some("main"), Some("/w")));
    }

    #[test]
    fn refusals() {
        let check = |params: Value, expected: &str| {
            let error = ask(params.clone(), Protocol::V4).expect_err("refused");
            assert_eq!(error.message, expected, "{params}");
        };
        check(json!({"host": "node", "systemRunPlan": plan()}), "nodeId is required for host=node");
        check(json!({"host": "node", "nodeId": "n", "command": "x"}), "systemRunPlan is required for host=node");
        check(json!({"host": "gateway"}), "command is required");
        check(json!({"command": "  "}), "command is required");
        check(json!({"command": "x".repeat(20_000)}), "command exceeds exec approval display limit");
        let nul = "invalid exec.approval.request params: at /systemRunPlan: NUL can be part of no command";
        let mut odd = plan();
        odd["argv"] = json!(["ls\u{0}"]);
        check(json!({"host": "node", "nodeId": "n", "systemRunPlan": odd}), nul);
        check(json!({"command": "x", "env": {"A": "\u{0}"}}), nul);
        let zero = "invalid exec.approval.request params: at /timeoutMs: must be >= 1";
        check(json!({"command": "x", "timeoutMs": 0}), zero);
        let long = ask(json!({"command": "x", "timeoutMs": u64::MAX}), Protocol::V4).expect("cut");
        assert_eq!(long.timeout_ms, 86_400_000);
        let old = ask(json!({"host": "node", "nodeId": "n", "commandArgv": ["ls"]}), Protocol::V3).expect("v3");
        assert_eq!((old.request.command.as_str(), old.timeout_ms), ("ls", 120_000));
    }

    #[test]
    fn always_is_offered_only_where_it_can_be() {
        let check = |params: Value, always: bool| {
            let request = ask(params, Protocol::V4).expect("fine").request;
            assert_eq!(request.allowed_decisions.contains(&Decision::AllowAlways), always);
            assert!(request.allowed_decisions.contains(&Decision::Deny));
        };
        check(json!({"command": "x"}), true);
        check(json!({"command": "x", "ask": "always"}), false);
        check(json!({"command": "x", "ask": "on-miss"}), true);
        check(json!({"command": "x", "unavailableDecisions": ["allow-always"]}), false);
        check(json!({"command": "x", "unavailableDecisions": ["deny"]}), true);
    }

    #[test]
    fn the_environment_is_bound_by_value() {
        let hash =
            |pairs: &[(&str, &str)]| env_hash(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect());
        assert_eq!(hash(&[]), None);
        assert_eq!(hash(&[("A", "1"), ("B", "2")]), hash(&[("B", "2"), ("A", "1")]));
        assert_ne!(hash(&[("A", "1")]), hash(&[("A", "2")]));
        assert_ne!(hash(&[("A", "1\",\"B")]), hash(&[("A", "1"), ("B", "")]));
    }
}
