//! What approvers read. The command is shown as it is in the request, as code and nothing else: no part of it becomes
//! markup, a mention or a link.

use openclaw_channels::message::{Button, ButtonStyle, Outbound, Span, TextStyle};
use openclaw_protocol::method::exec::{ApprovalRequest, Decision, PendingApproval};

/// Begins the data of our buttons.
const PREFIX: &str = "xa:";
/// Of a command that was decided about, characters; the question showed it whole.
const MAX_DECIDED: usize = 600;
/// Of one fact, characters.
const MAX_FACT: usize = 300;

/// How a question ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Decided {
        decision: Decision,
        /// `None` when nobody is named.
        by: Option<String>,
    },
    Expired,
    /// Nobody waits for the answer any more.
    Withdrawn,
    /// The gateway was restarted and forgot the question.
    Restarted,
}

/// A text that grows together with its styles.
#[derive(Default)]
struct Page {
    text: String,
    units: usize,
    spans: Vec<Span>,
}

impl Page {
    fn plain(&mut self, text: &str) {
        self.text.push_str(text);
        self.units += text.encode_utf16().count();
    }

    fn styled(&mut self, text: &str, style: TextStyle) {
        let start = self.units;
        self.plain(text);
        self.spans.push(Span { start, len: self.units - start, style });
    }

    fn fact(&mut self, name: &str, value: Option<&str>) {
        let Some(value) = value.map(str::trim).filter(|value| !value.is_empty()) else { return };
        self.plain(&format!("{name}: "));
        self.styled(&one_line(value), TextStyle::Code);
        self.plain("\n");
    }

    fn into_message(mut self, buttons: Vec<Vec<Button>>) -> Outbound {
        let kept = self.text.trim_end().len();
        self.text.truncate(kept);
        Outbound { text: self.text, styles: Some(self.spans), buttons, ..Outbound::default() }
    }
}

/// The question, with a button for each decision there is. `token` stands for it on this one message.
pub fn question(approval: &PendingApproval, token: &str) -> Outbound {
    let request = &approval.request;
    let mut page = Page::default();
    page.styled("May this command run?", TextStyle::Bold);
    page.plain("\n");
    page.styled(&request.command, TextStyle::Pre { language: None });
    page.plain("\n");
    facts(&mut page, request);
    page.fact("Id", Some(&approval.id));
    let minutes = (approval.expires_at_ms - approval.created_at_ms).max(0) / 60_000;
    page.plain(&match minutes {
        0 => "Without an answer within a minute it does not run.".to_owned(),
        minutes => format!("Without an answer within {minutes} min it does not run."),
    });
    let offered = |decision: &Decision| {
        let word = decision.as_str();
        let withheld = request.unavailable_decisions.iter().flatten().any(|unavailable| unavailable == word);
        request.allowed_decisions.contains(decision) && !withheld
    };
    let buttons: Vec<Button> = Decision::ALL
        .into_iter()
        .filter(offered)
        .map(|decision| {
            let (label, style) = match decision {
                Decision::AllowOnce => ("Allow once", ButtonStyle::Good),
                Decision::AllowAlways => ("Allow always", ButtonStyle::Plain),
                Decision::Deny => ("Deny", ButtonStyle::Danger),
            };
            Button { label: label.to_owned(), data: data(token, decision), style }
        })
        .collect();
    page.into_message(vec![buttons])
}

fn facts(page: &mut Page, request: &ApprovalRequest) {
    page.fact("Where", request.node_id.as_deref().or(request.host.as_deref()));
    page.fact("Directory", request.cwd.as_deref());
    page.fact("Program", request.resolved_path.as_deref());
    let variables = request.env_keys.as_ref().filter(|keys| !keys.is_empty()).map(|keys| keys.join(" "));
    page.fact("Sets", variables.as_deref());
    page.fact("Agent", request.agent_id.as_deref());
    page.fact("Session", request.session_key.as_deref());
    let analysis = request.command_analysis.as_ref().map(|analysis| analysis.warning_lines.as_slice());
    for warning in request.warning_text.iter().chain(analysis.unwrap_or_default()) {
        page.plain("⚠ ");
        page.styled(&one_line(warning), TextStyle::Italic);
        page.plain("\n");
    }
}

/// What replaces the question.
pub fn answered(command: Option<&str>, outcome: &Outcome) -> Outbound {
    let mut page = Page::default();
    let (title, by) = match outcome {
        Outcome::Decided { decision: Decision::AllowOnce, by } => ("Allowed once", by.as_deref()),
        Outcome::Decided { decision: Decision::AllowAlways, by } => ("Allowed always", by.as_deref()),
        Outcome::Decided { decision: Decision::Deny, by } => ("Denied", by.as_deref()),
        Outcome::Expired => ("Expired: nobody answered in time, the command did not run", None),
        Outcome::Withdrawn => ("Withdrawn: nobody waits for the answer any more, the command did not run", None),
        Outcome::Restarted => {
            ("Expired: the gateway was restarted, the command did not run. It has to be asked for again", None)
        }
    };
    page.styled(title, TextStyle::Bold);
    if let Some(by) = by {
        page.plain(" by ");
        page.styled(&one_line(by), TextStyle::Code);
    }
    if let Some(command) = command {
        page.plain("\n");
        let mut shown: String = command.chars().take(MAX_DECIDED).collect();
        if shown.len() < command.len() {
            shown.push_str(" …");
        }
        page.styled(&shown, TextStyle::Pre { language: None });
    }
    page.into_message(Vec::new())
}

/// The data of a button: at most 64 bytes.
pub fn data(token: &str, decision: Decision) -> String {
    let letter = match decision {
        Decision::AllowOnce => 'o',
        Decision::AllowAlways => 'a',
        Decision::Deny => 'd',
    };
    format!("{PREFIX}{token}:{letter}")
}

/// Token and decision of a button of ours; `None` for those of others.
pub fn parse(data: &str) -> Option<(&str, Decision)> {
    let (token, letter) = data.strip_prefix(PREFIX)?.split_once(':')?;
    let decision = match letter {
        "o" => Decision::AllowOnce,
        "a" => Decision::AllowAlways,
        "d" => Decision::Deny,
        _ => return None,
    };
    Some((token, decision))
}

fn one_line(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut shown: String = clean.chars().take(MAX_FACT).collect();
    if shown.len() < clean.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn approval(command: &str) -> PendingApproval {
        let request = json!({"command": command, "systemRunBinding": null, "systemRunPlan": null, "cwd": "/tmp",
            "nodeId": "node-1", "host": "node", "security": null, "ask": null, "warningText": "careful\nhere",
            "scope": null, "commandAnalysis": null, "allowedDecisions": ["allow-once", "allow-always", "deny"],
            "unavailableDecisions": ["allow-always"], "agentId": "main", "resolvedPath": null,
            "sessionKey": "agent:main:main", "sessionId": null, "runId": null, "toolCallId": null,
            "turnSourceChannel": null, "turnSourceTo": null, "turnSourceAccountId": null,
            "turnSourceThreadId": null, "cronExecutionSource": null, "cronOperationBinding": null});
        PendingApproval {
            approval_kind: None,
            id: "a-1".into(),
            request: serde_json::from_value(request).expect("a request"),
            created_at_ms: 0,
            expires_at_ms: 1_800_000,
        }
    }

    /// What a style covers, as text.
    fn covered(message: &Outbound, span: &Span) -> String {
        let units: Vec<u16> = message.text.encode_utf16().collect();
        String::from_utf16(&units[span.start..span.start + span.len]).expect("whole characters")
    }

    #[test]
    fn p_58_the_command_is_code_and_nothing_else() {
        for command in ["ls -la", "echo 🦀 @everyone <@1>", "a ``` b\u{202e}", "x\n# y"] {
            let message = question(&approval(command), "t");
            let spans = message.styles.as_ref().expect("styles");
            let code: Vec<&Span> = spans.iter().filter(|s| matches!(s.style, TextStyle::Pre { .. })).collect();
            assert_eq!((code.len(), covered(&message, code[0])), (1, command.to_owned()));
        }
    }

    #[test]
    fn the_question() {
        let message = question(&approval("ls"), "0123456789abcdef");
        assert_eq!(
            message.text,
            "May this command run?\nls\nWhere: node-1\nDirectory: /tmp\nAgent: main\nSession: agent:main:main\n⚠ careful \
             here\nId: a-1\nWithout an answer within 30 min it does not run."
        );
        let buttons: Vec<(&str, &str)> =
            message.buttons[0].iter().map(|b| (b.label.as_str(), b.data.as_str())).collect();
        assert_eq!(buttons, [("Allow once", "xa:0123456789abcdef:o"), ("Deny", "xa:0123456789abcdef:d")]);
        assert!(buttons.iter().all(|(_, data)| data.len() <= 64));
        assert_eq!(parse(buttons[0].1), Some(("0123456789abcdef", Decision::AllowOnce)));
        for other in ["xa:t", "xa:t:x", "ap:t:o", ""] {
            assert_eq!(parse(other), None);
        }
    }

    #[test]
    fn the_answer() {
        let by = Some("discord:987".to_owned());
        let check = |outcome: &Outcome, expected: &str| {
            let message = answered(Some("ls"), outcome);
            assert!(message.text.starts_with(expected), "{}", message.text);
            assert!(message.text.ends_with("\nls") && message.buttons.is_empty());
        };
        check(&Outcome::Decided { decision: Decision::AllowOnce, by: by.clone() }, "Allowed once by discord:987");
        check(&Outcome::Decided { decision: Decision::AllowAlways, by: None }, "Allowed always\n");
        check(&Outcome::Decided { decision: Decision::Deny, by }, "Denied by discord:987");
        check(&Outcome::Expired, "Expired: nobody answered");
        check(&Outcome::Restarted, "Expired: the gateway was restarted");
        assert!(answered(Some(&"x".repeat(9_000)), &Outcome::Expired).text.chars().count() < 1_000);
    }
}
