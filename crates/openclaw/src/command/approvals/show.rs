//! How approvals and documents are shown. Every text in them may come from an agent or a node.

use openclaw_protocol::method::exec::{ApprovalsFile, ApprovalsSnapshot, Decision, ExecPolicy, PendingApproval};
use serde_json::{Value, json};

use crate::output::{
    Style, Tone,
    escape::inert_line,
    inert,
    table::{self, Cell, Facts},
    time,
};

/// What was decided, as a word.
pub const fn word(decision: Decision) -> &'static str {
    match decision {
        Decision::AllowOnce => "allowed once",
        Decision::AllowAlways => "allowed always",
        Decision::Deny => "denied",
    }
}

/// One pending approval for scripts: raw texts, as the reference lists them.
pub fn entry(approval: &PendingApproval) -> Value {
    let request = &approval.request;
    json!({
        "id": approval.id, "kind": "exec", "agentId": request.agent_id, "sessionKey": request.session_key,
        "createdAtMs": approval.created_at_ms, "expiresAtMs": approval.expires_at_ms, "summary": request.command,
        "host": request.host, "nodeId": request.node_id, "cwd": request.cwd,
        "allowedDecisions": request.allowed_decisions,
    })
}

pub fn pending(style: Style, waiting: &[PendingApproval], now: i64) -> String {
    if waiting.is_empty() {
        return "No pending approvals.\n".to_owned();
    }
    let mut text = format!("{}\n\n", style.paint(Tone::Title, &format!("Pending approvals ({})", waiting.len())));
    for approval in waiting {
        text.push_str(&request(style, approval, now));
        text.push('\n');
    }
    text.push_str("Answer with: openclaw approvals allow <id> [--always], or openclaw approvals deny <id>\n");
    text
}

/// Everything that decides about a request, the command whole: a shortened one could hide its end.
pub fn request(style: Style, approval: &PendingApproval, now: i64) -> String {
    let request = &approval.request;
    let mut facts = Facts::new();
    facts.row("id", Cell::toned(Tone::Command, inert(&approval.id)));
    facts.row("runs", Cell::from(inert_line(&request.command).into_owned()));
    let mut row = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            facts.row(name, Cell::from(inert_line(value).into_owned()));
        }
    };
    row("in", request.cwd.as_deref());
    let host = match (&request.host, &request.node_id) {
        (_, Some(node)) => Some(format!("node {}", node.get(..12).unwrap_or(node))),
        (host, None) => host.clone(),
    };
    row("on", host.as_deref());
    let env = request.env_keys.as_ref().map(|keys| keys.join(", "));
    row("sets", env.as_deref());
    let script = request.system_run_plan.as_ref().and_then(|plan| plan.mutable_file_operand.as_ref());
    let script = script.map(|file| format!("{} ({})", file.path, file.sha256.get(..12).unwrap_or(&file.sha256)));
    row("script", script.as_deref());
    let origin = [request.agent_id.as_deref(), request.session_key.as_deref()];
    let origin: Vec<&str> = origin.into_iter().flatten().collect();
    row("for", Some(origin.join(" / ")).filter(|text| !text.is_empty()).as_deref());
    row("warning", request.warning_text.as_deref());
    for line in request.command_analysis.iter().flat_map(|analysis| &analysis.warning_lines) {
        row("note", Some(line));
    }
    row("until", Some(&time::ago(approval.expires_at_ms, now)));
    facts.render(style)
}

fn policy(policy: Option<&ExecPolicy>) -> String {
    let Some(policy) = policy else { return "none".into() };
    let parts = [
        policy.security.map(|value| format!("security={}", value.as_str())),
        policy.ask.map(|value| format!("ask={}", value.as_str())),
        policy.ask_fallback.map(|value| format!("askFallback={}", value.as_str())),
        policy.auto_allow_skills.map(|on| format!("autoAllowSkills={}", if on { "on" } else { "off" })),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { "none".into() } else { parts.join(", ") }
}

pub fn document(style: Style, snapshot: &ApprovalsSnapshot, host: &str, now: i64) -> String {
    let file = &snapshot.file;
    let mut facts = Facts::new();
    facts.row("host", Cell::from(inert(host)));
    facts.row("path", Cell::from(inert(&snapshot.path)));
    facts.row("state", Cell::from(if snapshot.exists { "stored" } else { "defaults (nothing stored)" }));
    facts.row("hash", Cell::from(inert(&snapshot.hash)));
    facts.row("defaults", Cell::from(policy(file.defaults.as_ref().map(|defaults| &defaults.policy))));
    if let Some(held) = &snapshot.resolved_defaults {
        let held = ExecPolicy {
            security: Some(held.security),
            ask: Some(held.ask),
            ask_fallback: Some(held.ask_fallback),
            auto_allow_skills: Some(held.auto_allow_skills),
        };
        facts.row("in force", Cell::from(policy(Some(&held))));
    }
    let mut text = format!("{}\n{}", style.paint(Tone::Title, "Approvals"), facts.render(style));
    text.push_str(&agents(style, file, now));
    text
}

fn agents(style: Style, file: &ApprovalsFile, now: i64) -> String {
    let none = std::collections::BTreeMap::new();
    let agents = file.agents.as_ref().unwrap_or(&none);
    let mut text = String::new();
    for (name, agent) in agents.iter().filter(|(_, agent)| agent.policy != ExecPolicy::default()) {
        text.push_str(&format!("  agent {}: {}\n", inert(name), policy(Some(&agent.policy))));
    }
    let mut rows: Vec<Vec<Cell>> = Vec::new();
    for (name, agent) in agents {
        for entry in agent.allowlist.iter().flatten() {
            let scope = match (&entry.arg_pattern, entry.source.as_deref()) {
                (Some(bound), _) if bound.starts_with("sha256:cwd-argv:v1:") => "these arguments, one directory",
                (Some(bound), _) if bound.starts_with("sha256:") => "inactive",
                (None, Some("allow-always")) => "inactive",
                (Some(_), _) => "matching arguments",
                (None, _) => "any arguments",
            };
            #[allow(clippy::cast_possible_truncation)] // Milliseconds of this era are far below 2^53.
            let used = entry.last_used_at.as_ref().and_then(|at| at.as_f64()).map(|at| time::ago(at as i64, now));
            rows.push(vec![
                Cell::from(inert(name)),
                Cell::from(inert(&entry.pattern)),
                Cell::from(scope),
                Cell::from(used.unwrap_or_else(|| "unknown".to_owned())),
            ]);
        }
    }
    if rows.is_empty() {
        text.push_str("No allowlist entries.\n");
    } else {
        text.push_str(&format!("{}\n", style.paint(Tone::Title, "Allowlist")));
        text.push_str(&table::columns(style, &["agent", "pattern", "holds for", "used"], &rows));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_09_a_command_is_shown_whole_and_inert() {
        let long = format!("ls {}; rm -rf \u{1b}[2J\u{202e}/", "x".repeat(400));
        let approval: PendingApproval =
            serde_json::from_value(json!({"id": "a", "createdAtMs": 0, "expiresAtMs": 60_000,
            "request": {"command": long, "cwd": "/w\n", "host": "node", "nodeId": "0123456789abcdef",
                        "agentId": "main", "allowedDecisions": ["allow-once", "deny"], "envKeys": ["A"],
                        "systemRunPlan": {"argv": ["x"], "mutableFileOperand":
                            {"argvIndex": 0, "path": "/w/x.sh", "sha256": "00112233445566778899"}}}}))
            .expect("one");
        let text = pending(Style::plain(), std::slice::from_ref(&approval), 0);
        assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'));
        assert!(text.contains("; rm -rf \\u{1b}[2J\\u{202e}/"), "{text}");
        for part in ["/w\\n", "node 0123456789ab", "sets", "x.sh (001122334455)", "main", "in 1m"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
