//! What `doctor` says, for people and as JSON.

use std::path::PathBuf;

use openclaw_config::credentials::{Considered, State};
use openclaw_remote::Target;
use serde_json::{Value, json};

use super::{Exam, Finding, Severity};
use crate::{
    command::probe::Probed,
    context::Context,
    output::{
        Style, Tone, inert,
        table::{self, Cell},
        time,
    },
};

/// `used`, `ignored: …`, `absent`, `unreadable: …`, with the fingerprint and never the secret.
pub fn state_words(row: &Considered) -> String {
    let state = match &row.state {
        State::Used => "used".to_owned(),
        State::Ignored(reason) => format!("ignored: {}", inert(reason)),
        State::Absent => "absent".to_owned(),
        State::Unresolved(reason) => format!("unreadable: {}", inert(reason)),
    };
    match &row.fingerprint {
        Some(fingerprint) => format!("{state} ({fingerprint})"),
        None => state,
    }
}

pub struct Report<'a> {
    pub context: &'a Context,
    pub exam: Exam,
    pub considered: Vec<Considered>,
    pub target: Option<Target>,
    pub probed: Option<Probed>,
    pub fixed: Vec<PathBuf>,
}

impl Report<'_> {
    pub fn to_json(&self) -> Value {
        let findings: Vec<Value> = self
            .exam
            .findings
            .iter()
            .map(|finding| {
                json!({"checkId": finding.check, "severity": finding.severity.as_str(), "message": finding.message,
                    "path": finding.path, "fixHint": finding.fix})
            })
            .collect();
        let credentials: Vec<Value> = self
            .considered
            .iter()
            .map(|row| {
                let (state, reason) = match &row.state {
                    State::Used => ("used", None),
                    State::Ignored(reason) => ("ignored", Some(reason)),
                    State::Absent => ("absent", None),
                    State::Unresolved(reason) => ("unresolved", Some(reason)),
                };
                json!({"field": row.field, "source": row.name, "state": state, "reason": reason,
                    "fingerprint": row.fingerprint})
            })
            .collect();
        let target = self.target.as_ref().map(|target| {
            json!({"url": target.shown_url, "urlSource": target.source.as_str(),
                "ownerSocket": target.owner_socket})
        });
        json!({
            "schemaVersion": 1, "ok": self.exam.worst() < Some(Severity::Warning),
            "checksRun": self.exam.ran.len(), "checksSkipped": 0, "findings": findings,
            "credentials": credentials, "target": target,
            "rpc": self.probed.as_ref().map(|probed| json!({"ok": probed.connected(), "reachable": probed.reached(),
                "capability": probed.capability()})),
            "fixed": self.fixed,
        })
    }

    pub fn render(&self, style: Style, why: bool) -> String {
        let mut text = format!("{}\n", style.paint(Tone::Title, "OpenClaw doctor"));
        for path in &self.fixed {
            let shown = inert(&self.context.paths.display(path)).into_owned();
            text.push_str(&format!("{} Closed {shown} to others.\n", style.ok()));
        }
        let mut findings: Vec<&Finding> = self.exam.findings.iter().collect();
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        for finding in findings {
            let mark = match finding.severity {
                Severity::Error => style.bad(),
                Severity::Warning => style.warn(),
                Severity::Info => style.paint(Tone::Dim, if style.unicode() { "·" } else { "-" }),
            };
            text.push_str(&format!("{mark} {}\n", finding.message));
            if let Some(fix) = &finding.fix {
                text.push_str(&format!("  Fix: {}\n", style.paint(Tone::Command, fix)));
            }
        }
        if let Some(probed) = self.probed.as_ref().filter(|probed| probed.connected()) {
            let limited = if probed.scope_limited() { ", limited by scopes" } else { "" };
            text.push_str(&format!("{} RPC probe: ok ({}{limited})\n", style.ok(), time::span(probed.latency)));
        }
        if self.exam.worst() < Some(Severity::Warning) {
            text.push_str(&format!("{} {} checks, nothing to repair.\n", style.ok(), self.exam.ran.len()));
        }
        if why {
            text.push_str(&self.explain(style));
        } else {
            text.push_str(&style.paint(Tone::Dim, "Which credential is used and why: openclaw doctor --why\n"));
        }
        text
    }

    /// The table of `--why`: where the URL and every credential came from.
    fn explain(&self, style: Style) -> String {
        let mut text = String::new();
        if let Some(target) = &self.target {
            let url = inert(&target.shown()).into_owned();
            text.push_str(&format!("\n{}\n", style.paint(Tone::Title, "Where to")));
            text.push_str(&format!("  {url} ({})\n", target.source.as_str()));
            if let Some(socket) = &target.owner_socket {
                let socket = inert(&self.context.paths.display(socket)).into_owned();
                text.push_str(&format!("  Commands on this machine take {socket} and need no credential.\n"));
            }
        }
        let rows: Vec<Vec<Cell>> = self
            .considered
            .iter()
            .map(|row| {
                let (tone, state, reason) = match &row.state {
                    State::Used => (Tone::Good, "used", String::new()),
                    State::Ignored(reason) => (Tone::Warn, "ignored", inert(reason).into_owned()),
                    State::Absent => (Tone::Dim, "absent", String::new()),
                    State::Unresolved(reason) => (Tone::Bad, "unreadable", inert(reason).into_owned()),
                };
                let fingerprint = row.fingerprint.clone().unwrap_or_else(|| "-".to_owned());
                vec![
                    Cell::from(row.field),
                    Cell::from(row.name),
                    Cell::toned(tone, state),
                    Cell::from(fingerprint),
                    Cell::from(reason),
                ]
            })
            .collect();
        text.push_str(&format!("\n{}\n", style.paint(Tone::Title, "Credentials, first to last")));
        text.push_str(&table::columns(style, &["what", "source", "state", "fingerprint", "why"], &rows));
        text.push_str(
            &style
                .paint(Tone::Dim, "  Equal fingerprints mean equal secrets; the secrets themselves are never shown.\n"),
        );
        text
    }
}
