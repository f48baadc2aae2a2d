//! Commands that wait for leave. The whole request is shown, and nothing is answered by keys that were meant for the message:
//! the pane has to be entered first, and leave is given only when the end of the command was on the screen.

use openclaw_protocol::method::exec::{Decision, PendingApproval};

use crate::output::{escape::inert_line, inert, time};

#[derive(Debug, Default)]
pub struct Approvals {
    waiting: Vec<PendingApproval>,
    at: usize,
    /// Keys go here.
    pub focused: bool,
    /// First line of the request on the screen.
    pub scroll: usize,
    /// The last line of this request has been on the screen.
    seen: Option<String>,
    /// Answered here, not confirmed yet.
    answered: Vec<String>,
}

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Once,
    Always,
    No,
}

impl Approvals {
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    pub fn current(&self) -> Option<&PendingApproval> {
        self.waiting.get(self.at)
    }

    pub fn position(&self) -> usize {
        self.at + 1
    }

    /// False when it was there already.
    pub fn add(&mut self, approval: PendingApproval) -> bool {
        if self.waiting.iter().any(|waiting| waiting.id == approval.id) {
            return false;
        }
        self.waiting.push(approval);
        true
    }

    /// All that wait, as the gateway lists them.
    pub fn replace(&mut self, waiting: Vec<PendingApproval>) {
        let current = self.current().map(|approval| approval.id.clone());
        self.at = waiting.iter().position(|approval| Some(&approval.id) == current.as_ref()).unwrap_or(0);
        self.waiting = waiting;
        if self.waiting.is_empty() {
            self.focused = false;
        }
    }

    pub fn remove(&mut self, id: &str) -> Option<PendingApproval> {
        let at = self.waiting.iter().position(|approval| approval.id == id)?;
        let removed = self.waiting.remove(at);
        if at < self.at || self.at >= self.waiting.len() {
            self.at = self.at.saturating_sub(1);
        }
        self.scroll = 0;
        // The next one has to be looked at before it is answered.
        if at == self.at || self.waiting.is_empty() {
            self.focused = false;
        }
        self.answered.retain(|answered| answered != id);
        Some(removed)
    }

    pub fn next(&mut self) {
        if !self.waiting.is_empty() {
            self.at = (self.at + 1) % self.waiting.len();
            self.scroll = 0;
        }
    }

    /// What ran out of time.
    pub fn expired(&mut self, now_ms: i64) -> Vec<PendingApproval> {
        let late: Vec<String> =
            self.waiting.iter().filter(|a| a.expires_at_ms <= now_ms).map(|approval| approval.id.clone()).collect();
        late.iter().filter_map(|id| self.remove(id)).collect()
    }

    /// The end of the current request is on the screen.
    pub fn saw_end(&mut self) {
        self.seen = self.current().map(|approval| approval.id.clone());
    }

    pub fn is_seen(&self) -> bool {
        self.current().is_some_and(|approval| self.seen.as_ref() == Some(&approval.id))
    }

    /// The decision that an answer stands for: once per request, leave only for what was seen whole, and only what the
    /// gateway offers.
    pub fn decide(&mut self, answer: Answer) -> Result<(String, Decision), &'static str> {
        let Some(approval) = self.current() else { return Err("nothing waits") };
        let (id, offered) = (approval.id.clone(), &approval.request.allowed_decisions);
        let decision = match answer {
            Answer::Once => Decision::AllowOnce,
            Answer::Always => Decision::AllowAlways,
            Answer::No => Decision::Deny,
        };
        if !offered.is_empty() && !offered.contains(&decision) {
            return Err("that answer is not offered for this request");
        }
        if decision != Decision::Deny && !self.is_seen() {
            return Err("read the request to its end first (Down)");
        }
        if self.answered.contains(&id) {
            return Err("answered already; waiting for the gateway");
        }
        self.answered.push(id.clone());
        Ok((id, decision))
    }

    /// The answer did not arrive: it may be given again.
    pub fn unanswered(&mut self, id: &str) {
        self.answered.retain(|answered| answered != id);
    }

    pub fn offers_always(&self) -> bool {
        self.current().is_some_and(|approval| {
            let offered = &approval.request.allowed_decisions;
            offered.is_empty() || offered.contains(&Decision::AllowAlways)
        })
    }
}

/// Name and value of everything that decides about a request; the command comes first and whole.
pub fn facts(approval: &PendingApproval, now_ms: i64) -> Vec<(&'static str, String)> {
    let request = &approval.request;
    let mut facts = vec![("runs", request.command.clone())];
    let mut add = |name, value: Option<String>| facts.extend(value.map(|value| (name, value)));
    let line = |text: &String| inert_line(text).into_owned();
    add("in", request.cwd.as_ref().map(line));
    add(
        "on",
        match (&request.host, &request.node_id) {
            (_, Some(node)) => Some(format!("node {}", inert(node.get(..12).unwrap_or(node)))),
            (host, None) => host.as_ref().map(line),
        },
    );
    add("sets", request.env_keys.as_ref().filter(|keys| !keys.is_empty()).map(|keys| line(&keys.join(", "))));
    let script = request.system_run_plan.as_ref().and_then(|plan| plan.mutable_file_operand.as_ref());
    add(
        "script",
        script.map(|file| line(&format!("{} ({})", file.path, file.sha256.get(..12).unwrap_or(&file.sha256)))),
    );
    let origin: Vec<&str> =
        [request.agent_id.as_deref(), request.session_key.as_deref()].into_iter().flatten().collect();
    add("for", Some(line(&origin.join(" / "))).filter(|origin| !origin.is_empty()));
    add("warning", request.warning_text.as_ref().map(line));
    for warning in request.command_analysis.iter().flat_map(|analysis| &analysis.warning_lines) {
        add("note", Some(line(warning)));
    }
    add("until", Some(time::ago(approval.expires_at_ms, now_ms)));
    facts
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use serde_json::json;

    pub fn request(id: &str, command: &str) -> PendingApproval {
        let request = json!({"command": command, "cwd": "/work", "host": "gateway", "agentId": "main",
            "allowedDecisions": ["allow-once", "allow-always", "deny"]});
        serde_json::from_value(json!({"id": id, "request": request, "createdAtMs": 0, "expiresAtMs": 120_000}))
            .expect("a request")
    }

    #[test]
    fn leave_only_for_what_was_seen() {
        let mut approvals = Approvals::default();
        assert!(approvals.add(request("a", "ls")) && approvals.add(request("b", "rm x")));
        assert!(!approvals.add(request("a", "ls")));
        assert!(approvals.decide(Answer::Once).is_err(), "not seen");
        approvals.saw_end();
        assert_eq!(approvals.decide(Answer::Once), Ok(("a".into(), Decision::AllowOnce)));
        assert!(approvals.decide(Answer::Once).is_err(), "once is enough");
        approvals.unanswered("a");
        assert!(approvals.decide(Answer::Always).is_ok());
        approvals.focused = true;
        approvals.remove("a");
        assert!(!approvals.focused, "the next one is another");
        assert!(approvals.decide(Answer::Once).is_err(), "the next one was not seen");
        assert_eq!(approvals.decide(Answer::No), Ok(("b".into(), Decision::Deny)), "denying needs no look");
    }

    #[test]
    fn time_runs_out() {
        let mut approvals = Approvals::default();
        approvals.add(request("a", "ls"));
        assert!(approvals.expired(119_999).is_empty());
        assert_eq!(approvals.expired(120_000).len(), 1);
        assert_eq!(approvals.len(), 0);
    }

    #[test]
    fn everything_that_decides() {
        let facts = facts(&request("a", "echo \u{1b}[1m"), 0);
        assert_eq!(facts[0], ("runs", "echo \u{1b}[1m".to_owned()), "made fit for the terminal where it is drawn");
        let names: Vec<&str> = facts.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["runs", "in", "on", "for", "until"]);
    }
}
