//! The policy that holds for an agent.

use openclaw_protocol::method::exec::{
    AllowlistEntry, ApprovalsFile, ExecAsk, ExecPolicy, ExecSecurity, ResolvedPolicy,
};

/// Policy and allow-list in force for one agent.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    pub policy: ResolvedPolicy,
    /// Entries for all agents first, then the agent's own.
    pub allowlist: Vec<AllowlistEntry>,
}

/// What holds for `agent`: its own words, else those for all (`*`), else the defaults, else ours: what is listed, and
/// the rest asks. A node begins with the same; the reference's 2026.9 with full and off. Without an agent: the defaults.
pub fn resolve(file: &ApprovalsFile, agent: Option<&str>) -> Held {
    let none = ExecPolicy::default();
    let defaults = file.defaults.as_ref().map_or(&none, |defaults| &defaults.policy);
    let entry = |name: &str| file.agents.as_ref()?.get(name);
    let (own, all) = match agent {
        Some(name) => (entry(name).filter(|_| name != "*"), entry("*")),
        None => (None, None),
    };
    let written: Vec<&ExecPolicy> =
        [own.map(|a| &a.policy), all.map(|a| &a.policy), Some(defaults)].into_iter().flatten().collect();
    let policy = ResolvedPolicy {
        security: first(&written, |policy| policy.security).unwrap_or(ExecSecurity::Allowlist),
        ask: first(&written, |policy| policy.ask).unwrap_or(ExecAsk::OnMiss),
        ask_fallback: first(&written, |policy| policy.ask_fallback).unwrap_or(ExecSecurity::Deny),
        auto_allow_skills: first(&written, |policy| policy.auto_allow_skills).unwrap_or(false),
    };
    let lists = [all, own].into_iter().flatten().filter_map(|agent| agent.allowlist.as_ref());
    Held { policy, allowlist: lists.flatten().cloned().collect() }
}

fn first<T>(policies: &[&ExecPolicy], field: impl Fn(&ExecPolicy) -> Option<T>) -> Option<T> {
    policies.iter().find_map(|policy| field(policy))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_nearest_word_counts() {
        let file: ApprovalsFile = serde_json::from_value(json!({
            "version": 1,
            "defaults": {"security": "allowlist", "askFallback": "allowlist"},
            "agents": {"*": {"ask": "on-miss", "allowlist": ["a"]},
                       "main": {"security": "full", "allowlist": ["b"], "autoAllowSkills": true}}
        }))
        .unwrap();
        use ExecAsk::OnMiss;
        use ExecSecurity::{Allowlist, Full};
        let check = |agent: Option<&str>, security, ask, fallback, skills, list: &[&str]| {
            let held = resolve(&file, agent);
            let p = held.policy;
            assert_eq!((p.security, p.ask, p.ask_fallback, p.auto_allow_skills), (security, ask, fallback, skills));
            assert_eq!(held.allowlist.iter().map(|e| e.pattern.as_str()).collect::<Vec<_>>(), list, "{agent:?}");
        };
        check(None, Allowlist, OnMiss, Allowlist, false, &[]);
        check(Some("main"), Full, OnMiss, Allowlist, true, &["a", "b"]);
        check(Some("other"), Allowlist, OnMiss, Allowlist, false, &["a"]);
        check(Some("*"), Allowlist, OnMiss, Allowlist, false, &["a"]);
    }
}
