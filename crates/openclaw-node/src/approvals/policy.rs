//! From the owner's document and the config to a verdict.
//!
//! | | allow-list has it | it has not | a person allowed it |
//! |---|---|---|---|
//! | `deny` | no | no | no |
//! | `allowlist`, ask `off` | runs | no | runs |
//! | `allowlist`, ask `on-miss` | runs | asks | runs |
//! | `full`, ask `off` or `on-miss` | runs | runs | runs |
//! | any but `deny`, ask `always` | asks | asks | runs |
//!
//! With neither document nor config it is `allowlist` and `on-miss`, as protocol-3 releases had it: lending a machine
//! is not lending a shell.

use openclaw_config::Document;
use openclaw_protocol::method::exec::{
    AllowlistEntry, ApprovalsFile, ExecAsk, ExecPolicy, ExecSecurity, ResolvedPolicy,
};
use serde_json::{Value, json};

/// Agent of requests that name none.
pub const DEFAULT_AGENT: &str = "main";
/// Policy and allow-list for every agent.
const ANY_AGENT: &str = "*";
/// What older documents call the agent of requests that name none.
const OLD_DEFAULT_AGENT: &str = "default";

const BASE_SECURITY: ExecSecurity = ExecSecurity::Allowlist;
const BASE_ASK: ExecAsk = ExecAsk::OnMiss;

/// What the config of this machine says (`tools.exec`). It can only make the document's word stricter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Configured {
    pub security: Option<ExecSecurity>,
    pub ask: Option<ExecAsk>,
}

impl Configured {
    /// `tools.exec.mode`, else `tools.exec.security` and `.ask`. A word nobody knows denies.
    pub fn read(config: &Document) -> Self {
        let word = |path: &str| config.get(path).and_then(|node| node.as_str().map(str::to_owned));
        if let Some(mode) = word("tools.exec.mode") {
            let (security, ask) = match mode.as_str() {
                "full" => (ExecSecurity::Full, ExecAsk::Off),
                "ask" | "auto" => (ExecSecurity::Allowlist, ExecAsk::OnMiss),
                "allowlist" => (ExecSecurity::Allowlist, ExecAsk::Off),
                _ => (ExecSecurity::Deny, ExecAsk::Off),
            };
            return Self { security: Some(security), ask: Some(ask) };
        }
        let security = word("tools.exec.security").map(|word| match word.as_str() {
            "full" => ExecSecurity::Full,
            "allowlist" => ExecSecurity::Allowlist,
            _ => ExecSecurity::Deny,
        });
        let ask = word("tools.exec.ask").map(|word| match word.as_str() {
            "off" => ExecAsk::Off,
            "on-miss" => ExecAsk::OnMiss,
            _ => ExecAsk::Always,
        });
        Self { security, ask }
    }
}

/// The policy in force for one agent.
#[derive(Clone, Debug, PartialEq)]
pub struct Effective {
    pub policy: ResolvedPolicy,
    pub rules: Vec<AllowlistEntry>,
}

/// Settles the policy of an agent. The config's word and the document's are both kept: the stricter holds.
pub fn effective(file: &ApprovalsFile, agent: Option<&str>, configured: Configured) -> Effective {
    let agent = agent.unwrap_or(DEFAULT_AGENT);
    let of = |name: &str| file.agents.as_ref().and_then(|agents| agents.get(name));
    let old = (agent == DEFAULT_AGENT).then(|| of(OLD_DEFAULT_AGENT)).flatten();
    let layers: Vec<&ExecPolicy> =
        [of(agent).map(|a| &a.policy), old.map(|a| &a.policy), of(ANY_AGENT).map(|a| &a.policy)]
            .into_iter()
            .flatten()
            .chain(file.defaults.as_ref().map(|defaults| &defaults.policy))
            .collect();
    let security = layers.iter().find_map(|layer| layer.security);
    let ask = layers.iter().find_map(|layer| layer.ask);
    let policy = ResolvedPolicy {
        security: stricter(security, configured.security, Ord::min).unwrap_or(BASE_SECURITY),
        ask: stricter(ask, configured.ask, Ord::max).unwrap_or(BASE_ASK),
        ask_fallback: layers.iter().find_map(|layer| layer.ask_fallback).unwrap_or(ExecSecurity::Deny),
        auto_allow_skills: layers.iter().find_map(|layer| layer.auto_allow_skills).unwrap_or(false),
    };
    let lists = [of(ANY_AGENT), of(agent), old].into_iter().flatten().filter_map(|agent| agent.allowlist.as_ref());
    Effective { policy, rules: lists.flatten().cloned().collect() }
}

fn stricter<T: Copy>(document: Option<T>, config: Option<T>, strict: fn(T, T) -> T) -> Option<T> {
    match (document, config) {
        (Some(document), Some(config)) => Some(strict(document, config)),
        (one, other) => one.or(other),
    }
}

/// The policy as plans carry it: what has to be the same when the approved command runs. Ids and usage are left out.
pub fn snapshot(file: &ApprovalsFile, agent: Option<&str>) -> Value {
    let Effective { policy, rules } = effective(file, agent, Configured::default());
    let mut listed: Vec<(&str, Option<&str>, bool)> = rules
        .iter()
        .map(|rule| {
            (rule.pattern.as_str(), rule.arg_pattern.as_deref(), rule.source.as_deref() == Some("allow-always"))
        })
        .collect();
    listed.sort_unstable();
    listed.dedup();
    let rules: Vec<Value> = listed
        .into_iter()
        .map(|(pattern, arguments, always)| {
            let mut rule = json!({ "pattern": pattern });
            if let Some(arguments) = arguments {
                rule["argPattern"] = json!(arguments);
            }
            if always {
                rule["source"] = json!("allow-always");
            }
            rule
        })
        .collect();
    json!({
        "security": policy.security, "ask": policy.ask, "askFallback": policy.ask_fallback,
        "autoAllowSkills": policy.auto_allow_skills, "allowlistRules": rules,
    })
}

/// True when nothing a decision relied on was taken back since: the same words, and no rule gone. New rules are fine.
pub fn is_current(then: &Value, now: &Value) -> bool {
    let same = ["security", "ask", "askFallback", "autoAllowSkills"].into_iter().all(|key| then[key] == now[key]);
    let rules = |snapshot: &Value| snapshot["allowlistRules"].as_array().cloned().unwrap_or_default();
    let now = rules(now);
    same && rules(then).iter().all(|rule| now.contains(rule))
}

/// What is known of a command when it is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Every part of it is on the allow-list.
    pub listed: bool,
    /// A person allowed exactly this before, for always.
    pub always: bool,
    /// A person allowed it now.
    pub approved: bool,
}

/// Why it does not run. The texts are the reference's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    #[error("SYSTEM_RUN_DISABLED: security=deny")]
    Disabled,
    #[error("SYSTEM_RUN_DENIED: approval required")]
    ApprovalRequired,
    #[error("SYSTEM_RUN_DENIED: allowlist miss")]
    AllowlistMiss,
}

impl Denial {
    /// `reason` of the event `exec.denied`.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Disabled => "security=deny",
            Self::ApprovalRequired => "approval-required",
            Self::AllowlistMiss => "allowlist-miss",
        }
    }
}

/// The table above.
///
/// # Errors
/// [`Denial`].
pub fn verdict(security: ExecSecurity, ask: ExecAsk, facts: Facts) -> Result<(), Denial> {
    if security == ExecSecurity::Deny {
        return Err(Denial::Disabled);
    }
    if facts.approved {
        return Ok(());
    }
    let listed = facts.listed || facts.always;
    match (security, ask) {
        (_, ExecAsk::Always) => Err(Denial::ApprovalRequired),
        (ExecSecurity::Allowlist, ExecAsk::OnMiss) if !listed => Err(Denial::ApprovalRequired),
        (ExecSecurity::Allowlist, ExecAsk::Off) if !listed => Err(Denial::AllowlistMiss),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ExecAsk::{Always, Off, OnMiss};
    use ExecSecurity::{Allowlist, Deny, Full};

    #[test]
    fn the_table() {
        let no = Facts { listed: false, always: false, approved: false };
        let (listed, always, approved) =
            (Facts { listed: true, ..no }, Facts { always: true, ..no }, Facts { approved: true, ..no });
        let check = |security, ask, facts: Facts, expected: Result<(), Denial>| {
            assert_eq!(verdict(security, ask, facts), expected, "{security:?} {ask:?} {facts:?}");
        };
        for ask in [Off, OnMiss, Always] {
            for facts in [no, listed, always, approved] {
                check(Deny, ask, facts, Err(Denial::Disabled));
            }
            check(Allowlist, ask, approved, Ok(()));
            check(Full, ask, approved, Ok(()));
        }
        for facts in [listed, always] {
            check(Allowlist, Off, facts, Ok(()));
            check(Allowlist, OnMiss, facts, Ok(()));
            check(Allowlist, Always, facts, Err(Denial::ApprovalRequired));
            check(Full, Always, facts, Err(Denial::ApprovalRequired));
        }
        check(Allowlist, Off, no, Err(Denial::AllowlistMiss));
        check(Allowlist, OnMiss, no, Err(Denial::ApprovalRequired));
        check(Full, Off, no, Ok(()));
        check(Full, OnMiss, no, Ok(()));
        check(Full, Always, no, Err(Denial::ApprovalRequired));
    }

    fn file(text: Value) -> ApprovalsFile {
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn the_narrowest_word_counts_and_the_stricter_source() {
        let full = file(json!({"version": 1, "defaults": {"security": "full", "ask": "off"},
            "agents": {"*": {"ask": "on-miss"}, "work": {"security": "allowlist"}}}));
        let check =
            |file: &ApprovalsFile, agent: Option<&str>, configured: Configured, expected: (ExecSecurity, ExecAsk)| {
                let policy = effective(file, agent, configured).policy;
                assert_eq!((policy.security, policy.ask), expected, "{agent:?} {configured:?}");
            };
        let none = Configured::default();
        check(&ApprovalsFile::empty(), None, none, (Allowlist, OnMiss));
        check(&full, None, none, (Full, OnMiss));
        check(&full, Some("work"), none, (Allowlist, OnMiss));
        check(&full, None, Configured { security: Some(Deny), ask: Some(Off) }, (Deny, OnMiss));
        check(&ApprovalsFile::empty(), None, Configured { security: Some(Full), ask: Some(Off) }, (Full, Off));
        check(&full, Some("work"), Configured { security: Some(Full), ask: None }, (Allowlist, OnMiss));
        check(&ApprovalsFile::deny_all(), None, Configured { security: Some(Full), ask: None }, (Deny, Off));
    }

    #[test]
    fn the_config_speaks_of_modes_or_fields() {
        let paths = openclaw_config::Paths::resolve(
            &openclaw_config::Env::from_pairs([("OPENCLAW_STATE_DIR", "/nowhere")]),
            openclaw_config::Profile::Default,
        )
        .unwrap();
        let check = |text: &str, security: Option<ExecSecurity>, ask: Option<ExecAsk>| {
            let document = Document::from_text(text, &paths, &openclaw_config::Env::default()).unwrap();
            assert_eq!(Configured::read(&document), Configured { security, ask }, "{text}");
        };
        check("{}", None, None);
        check("{tools: {exec: {mode: 'full'}}}", Some(Full), Some(Off));
        check("{tools: {exec: {mode: 'ask'}}}", Some(Allowlist), Some(OnMiss));
        check("{tools: {exec: {mode: 'yolo'}}}", Some(Deny), Some(Off));
        check("{tools: {exec: {security: 'allowlist', ask: 'always'}}}", Some(Allowlist), Some(Always));
        check("{tools: {exec: {security: 'everything'}}}", Some(Deny), None);
    }

    #[test]
    fn a_snapshot_outlives_additions_only() {
        let with =
            |rules: Value| snapshot(&file(json!({"version": 1, "agents": {"main": {"allowlist": rules}}})), None);
        let one = with(json!([{"pattern": "/bin/ls", "id": "1", "lastUsedAt": 5}]));
        assert_eq!(
            one,
            json!({"security": "allowlist", "ask": "on-miss", "askFallback": "deny", "autoAllowSkills": false,
                   "allowlistRules": [{"pattern": "/bin/ls"}]})
        );
        let two = with(json!([{"pattern": "/bin/cat"}, {"pattern": "/bin/ls", "id": "2"}]));
        assert!(is_current(&one, &one) && is_current(&one, &two) && !is_current(&two, &one));
        let stricter = snapshot(&file(json!({"version": 1, "defaults": {"security": "deny"}})), None);
        assert!(!is_current(&snapshot(&ApprovalsFile::empty(), None), &stricter));
    }
}
