//! What `doctor` says, for people and as JSON.

use std::path::PathBuf;

use openclaw_config::credentials::{Considered, State};
use openclaw_remote::Target;
use serde_json::{Value, json};

use super::{Exam, Finding, Severity};
use crate::{
    command::{
        paths::Entry,
        probe::{Probed, short},
    },
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
    /// Device tokens of this machine.
    pub tokens: Vec<Token>,
    /// Every path of the target.
    pub probed: Vec<(Entry, Probed)>,
    pub fixed: Vec<PathBuf>,
}

/// A device token this machine holds.
pub struct Token {
    origin: String,
    role: &'static str,
    scopes: usize,
    updated_at_ms: i64,
    fingerprint: String,
    /// What becomes of it in a call to the target.
    state: &'static str,
}

impl Token {
    /// Every token, the target's first.
    pub fn all(context: &Context, target: Option<&Target>) -> Vec<Self> {
        let Ok(Some(key)) = openclaw_config::identity::load(&context.paths) else { return Vec::new() };
        let held = openclaw_config::device_tokens::DeviceTokens::new(&context.paths, key.id()).list();
        let mut tokens: Vec<Self> = held
            .unwrap_or_default()
            .into_iter()
            .map(|(origin, token)| {
                let ours = target.is_some_and(|target| target.token_origins().contains(&origin));
                Self {
                    state: match target {
                        Some(target) if ours && target.owner_socket.is_some() => {
                            "not needed: the owner's socket is used"
                        }
                        Some(target) if ours && !target.may_use_stored_tokens() => "ignored: credentials were given",
                        Some(_) if ours => "used when no shared secret is configured, or it does not do",
                        _ => "another gateway's",
                    },
                    origin,
                    role: token.role.as_str(),
                    scopes: token.scopes.names().len(),
                    updated_at_ms: token.updated_at_ms,
                    fingerprint: token.token.fingerprint(),
                }
            })
            .collect();
        tokens.sort_by_key(|token| token.state == "another gateway's");
        tokens
    }

    fn row(&self) -> Vec<Cell> {
        vec![
            Cell::from(inert(&self.origin).into_owned()),
            Cell::from(format!("{}, {} scopes", self.role, self.scopes)),
            Cell::from(time::ago(self.updated_at_ms, time::now_ms())),
            Cell::from(self.fingerprint.clone()),
            Cell::from(self.state),
        ]
    }

    fn to_json(&self) -> Value {
        json!({"origin": self.origin, "role": self.role, "scopes": self.scopes, "updatedAtMs": self.updated_at_ms,
            "fingerprint": self.fingerprint, "state": self.state})
    }
}

impl Report<'_> {
    /// What the best path gave.
    fn best(&self) -> Option<&Probed> {
        let by = |test: fn(&Probed) -> bool| self.probed.iter().map(|(_, probed)| probed).find(|probed| test(probed));
        by(Probed::connected).or_else(|| by(Probed::reached)).or_else(|| by(|_| true))
    }

    pub fn to_json(&self) -> Value {
        let findings: Vec<Value> = self
            .exam
            .findings
            .iter()
            .map(|finding| {
                json!({"checkId": finding.check, "severity": finding.severity.as_str(), "message": finding.message,
                    "path": finding.path, "fixHint": finding.fix,
                    "fixOn": finding.fix.as_ref().map(|_| if finding.there { "gateway-host" } else { "this-client" })})
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
            "rpc": self.best().map(|probed| json!({"ok": probed.connected(), "reachable": probed.reached(),
                "capability": probed.capability()})),
            "paths": self.probed.iter().map(|(entry, probed)| json!({
                "path": entry.path().map(|path| path.label()), "ok": probed.connected(),
                "steps": entry.chain(probed).map(|chain| chain.to_json()),
                "error": probed.error.as_ref().map(|error| inert(&error.to_string()).into_owned()),
            })).collect::<Vec<_>>(),
            "deviceTokens": self.tokens.iter().map(Token::to_json).collect::<Vec<_>>(),
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
                let place = if finding.there { " (on the gateway host)" } else { "" };
                text.push_str(&format!("  Fix{place}: {}\n", style.paint(Tone::Command, fix)));
            }
        }
        if let Some(probed) = self.best().filter(|probed| probed.connected()) {
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
            text.push_str(&format!("  {url} ({})\n", target.named_by()));
            if let Some(socket) = &target.owner_socket {
                let socket = inert(&self.context.paths.display(socket)).into_owned();
                text.push_str(&format!("  Commands on this machine take {socket} and need no credential.\n"));
            }
        }
        for (entry, probed) in &self.probed {
            let label = entry.path().map(|path| inert(&path.label()).into_owned()).unwrap_or_default();
            let (mark, word) = match probed.connected() {
                true => (style.ok(), format!("works, {}", time::span(probed.latency))),
                false => (style.bad(), probed.error.as_ref().map(short).unwrap_or_default()),
            };
            text.push_str(&format!("  {mark} {label}: {word}\n"));
            if let Some(chain) = entry.chain(probed) {
                text.push_str(&format!("    {}\n", chain.render(style)));
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
        if !self.tokens.is_empty() {
            text.push_str(&format!("\n{}\n", style.paint(Tone::Title, "Device tokens of this machine")));
            let rows: Vec<Vec<Cell>> = self.tokens.iter().map(|token| token.row()).collect();
            text.push_str(&table::columns(style, &["gateway", "role", "age", "fingerprint", "use"], &rows));
        }
        text.push_str(
            &style
                .paint(Tone::Dim, "  Equal fingerprints mean equal secrets; the secrets themselves are never shown.\n"),
        );
        text
    }
}
