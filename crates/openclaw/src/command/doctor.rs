//! `openclaw doctor`: what is wrong, why, and the command that cures it.
//!
//! Looks and does not touch. `--fix` takes permissions away from group and world, and nothing else;
//! `--generate-gateway-token` writes a token where there is none.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use openclaw_config::{
    AuthMode, BindMode, Mode, SecretContext, SecretInput,
    credentials::{Considered, State},
    env, files, schema, secret_ref,
};
use openclaw_remote::{Deadline, Error as RemoteError, Target, TargetError, store::IdentityStore};
use serde_json::{Value, json};

use super::{
    gateway_status::{Runtime, holder},
    probe::{Depth, Probed, probe, short},
};
use crate::{
    args::{self, PortTargetArgs},
    context::{Context, Loaded},
    failure::{Failure, Outcome},
    output::{
        self, Style, Tone, inert,
        table::{self, Cell},
        time,
    },
    reach::{Purpose, block_on, flags},
};

const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// Shorter shared secrets are called weak (checklist S-165: 32 or more hex digits).
const MIN_SECRET_LEN: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Severity {
    Info,
    Warning,
    Error,
}

impl Severity {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One thing that was found.
#[derive(Clone, Debug)]
struct Finding {
    check: &'static str,
    severity: Severity,
    message: String,
    /// Config path or file it is about.
    path: Option<String>,
    /// One command that cures it.
    fix: Option<String>,
}

/// Findings and the checks that ran.
#[derive(Default)]
struct Exam {
    findings: Vec<Finding>,
    ran: BTreeSet<&'static str>,
    /// Files and directories that are open to others.
    loose: Vec<PathBuf>,
}

impl Exam {
    fn ran(&mut self, check: &'static str) {
        self.ran.insert(check);
    }

    fn find(&mut self, check: &'static str, severity: Severity, message: impl Into<String>) -> &mut Finding {
        self.ran.insert(check);
        self.findings.push(Finding { check, severity, message: message.into(), path: None, fix: None });
        let last = self.findings.len() - 1;
        &mut self.findings[last]
    }

    fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }
}

impl Finding {
    fn at(&mut self, path: impl Into<String>) -> &mut Self {
        self.path = Some(path.into());
        self
    }

    fn fix(&mut self, command: impl Into<String>) -> &mut Self {
        self.fix = Some(command.into());
        self
    }
}

pub fn run(context: &Context, args: &args::Doctor) -> Outcome {
    if args.generate_gateway_token {
        return generate_token(context, args.json);
    }
    let mut exam = Exam::default();
    // First, since reading a private file tightens it.
    state_directory(context, &mut exam);
    let fixed = if args.fix { tighten(&mut exam) } else { Vec::new() };
    let loaded = config(context, &mut exam)?;
    environment(context, &mut exam);
    let at = PortTargetArgs::default();
    let secrets = context.secrets(&loaded.document);
    let target = Target::resolve(Purpose::Call, &flags(&at), &loaded.gateway, secrets);
    gateway_secrets(&loaded, secrets, &mut exam);
    let mut considered = Vec::new();
    let mut probed = None;
    match &target {
        Ok(target) => {
            considered = match &target.credentials {
                Ok(resolution) => resolution.considered.clone(),
                Err(error) => error.considered.clone(),
            };
            port(context, target, &mut exam);
            let found = block_on(async {
                let _progress = context.output.progress(format!("Probing {} …", target.url));
                let store = IdentityStore::new(context.paths.clone());
                Ok(probe(target, &store, Deadline::after(PROBE_TIMEOUT), Depth::Read).await)
            })?;
            reachability(target, &found, &mut exam);
            probed = Some(found);
        }
        Err(error) => {
            if let TargetError::Credentials(error) = error {
                considered = error.considered.clone();
            }
            let failure = context.no_target(error, &at);
            exam.find("target", Severity::Error, inert(failure.message()).into_owned());
        }
    }
    let report = Report { context, exam, considered, target: target.ok(), probed, fixed };
    if args.json {
        output::json(&report.to_json());
    } else {
        output::print(&report.render(context.output.out, args.why));
    }
    Ok(u8::from(report.exam.worst() >= Some(Severity::Warning)))
}

/// Owner and modes of everything private below the state directory.
fn state_directory(context: &Context, exam: &mut Exam) {
    let paths = &context.paths;
    exam.ran("state-dir");
    let show = |path: &Path| inert(&paths.display(path)).into_owned();
    if !paths.state_dir.exists() {
        exam.find("state-dir", Severity::Info, "There is no state directory yet; the first start makes it.")
            .at(show(&paths.state_dir));
        return;
    }
    if let Err(error) = files::check_ownership(&paths.state_dir) {
        exam.find("state-dir", Severity::Error, inert(&error.to_string()).into_owned()).at(show(&paths.state_dir));
        return;
    }
    exam.ran("permissions");
    let database = paths.state_db();
    let journal = |suffix: &str| PathBuf::from(format!("{}{suffix}", database.display()));
    let private = [
        paths.state_dir.clone(),
        paths.config_file.clone(),
        paths.dotenv(),
        paths.token_file(),
        paths.identity_file(),
        paths.device_auth_file(),
        paths.secret_store(),
        paths.last_known_good(),
        paths.lock_file(),
        database.clone(),
        journal("-wal"),
        journal("-shm"),
        paths.owner_socket(),
    ];
    let parents = [paths.identity_file(), paths.secret_store(), database.clone(), paths.tls_dir().join("x")];
    let directories = parents.iter().filter_map(|file| file.parent().map(Path::to_owned));
    for path in private.into_iter().chain(directories) {
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        let (mode, ours) = (meta.permissions().mode() & 0o777, meta.uid() == rustix::process::geteuid().as_raw());
        if !ours && !meta.is_symlink() {
            exam.find("permissions", Severity::Error, format!("{} belongs to user id {}.", show(&path), meta.uid()))
                .at(show(&path));
        } else if mode & 0o077 != 0 && !meta.is_symlink() {
            exam.find(
                "permissions",
                Severity::Warning,
                format!("{} is open to others (mode {mode:03o}).", show(&path)),
            )
            .at(show(&path))
            .fix("openclaw doctor --fix");
            exam.loose.push(path);
        }
    }
}

/// Takes permissions away; the findings about them are dropped where it worked.
fn tighten(exam: &mut Exam) -> Vec<PathBuf> {
    let mut fixed = Vec::new();
    for path in std::mem::take(&mut exam.loose) {
        match files::tighten(&path) {
            Ok(()) => fixed.push(path),
            Err(error) => {
                exam.find("permissions", Severity::Error, inert(&error.to_string()).into_owned());
            }
        }
    }
    if !fixed.is_empty() {
        exam.findings.retain(|finding| finding.fix.as_deref() != Some("openclaw doctor --fix"));
    }
    fixed
}

fn config(context: &Context, exam: &mut Exam) -> Result<Loaded, Failure> {
    exam.ran("config");
    let loaded = context.config_for_diagnosis()?;
    match &loaded.problem {
        Some(problem) if problem.issues.is_empty() => {
            exam.find("config", Severity::Error, format!("The config cannot be read: {}", inert(&problem.summary)))
                .at(context.config_path())
                .fix("openclaw config undo");
        }
        Some(problem) => {
            for issue in &problem.issues {
                exam.find("config", Severity::Error, inert(&issue.with_place()).into_owned())
                    .at(issue.path.clone())
                    .fix("openclaw config undo");
            }
        }
        None => {
            for issue in schema::validate(&loaded.document).warnings {
                exam.find("config", Severity::Warning, inert(&issue.with_place()).into_owned())
                    .at(issue.path.clone())
                    .fix(format!("openclaw config unset {}", inert(&issue.path)));
            }
        }
    }
    Ok(loaded)
}

fn environment(context: &Context, exam: &mut Exam) {
    exam.ran("environment");
    if let Ok(cwd) = std::env::current_dir() {
        let names = env::ignored_cwd_dotenv(&cwd, &context.paths);
        if !names.is_empty() {
            let state = inert(&context.paths.display(&context.paths.dotenv())).into_owned();
            exam.find(
                "environment",
                Severity::Info,
                format!(
                    ".env in the working directory is not read; it names {}. Only {state} counts.",
                    names.join(", ")
                ),
            );
        }
    }
    let old: Vec<String> = std::env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| name.starts_with("CLAWDBOT_"))
        .collect();
    for name in old {
        let new = name.replacen("CLAWDBOT_", "OPENCLAW_", 1);
        exam.find(
            "environment",
            Severity::Warning,
            format!("{} belongs to the older product and is ignored; {} counts.", inert(&name), inert(&new)),
        );
    }
    if let Some(home) = &context.paths.home {
        // S-181: the tunnel agent of the older product name keeps the port.
        let plist = home.join("Library/LaunchAgents/com.openclaw.ssh-tunnel.plist");
        if plist.exists() {
            let path = plist.display().to_string();
            exam.find(
                "environment",
                Severity::Warning,
                "A leftover tunnel agent (com.openclaw.ssh-tunnel) may hold the port.",
            )
            .at(path.clone())
            .fix(format!("launchctl bootout gui/$UID/com.openclaw.ssh-tunnel; rm {path}"));
        }
    }
}

/// Strength and safety of what the gateway of this profile would accept.
fn gateway_secrets(loaded: &Loaded, context: SecretContext<'_>, exam: &mut Exam) {
    exam.ran("gateway-auth");
    let gateway = &loaded.gateway;
    if gateway.effective_mode() == Mode::Remote {
        return;
    }
    let bind = gateway.bind.unwrap_or(BindMode::Loopback);
    if gateway.auth.mode == Some(AuthMode::None) {
        let (severity, text) = if bind.leaves_loopback() {
            (
                Severity::Error,
                "gateway.auth.mode is none and gateway.bind leaves loopback: the gateway refuses to start.",
            )
        } else {
            (Severity::Warning, "gateway.auth.mode is none: every program on this machine operates the gateway.")
        };
        exam.find("gateway-auth", severity, text)
            .at("gateway.auth.mode")
            .fix("openclaw config set gateway.auth.mode token");
    }
    let inputs: [(&str, Option<&SecretInput>, &'static str); 2] = [
        (
            "gateway.auth.token",
            gateway.auth.token.as_ref(),
            "openclaw config set gateway.auth.token \"$(openssl rand -hex 32)\"",
        ),
        (
            "gateway.auth.password",
            gateway.auth.password.as_ref(),
            "openclaw config set gateway.auth.password <password>",
        ),
    ];
    for (path, input, fix) in inputs {
        let Some(input) = input else { continue };
        match secret_ref::resolve(input, &context) {
            Ok(Some(secret)) if secret.len() < MIN_SECRET_LEN => {
                let severity = if bind.leaves_loopback() { Severity::Warning } else { Severity::Info };
                exam.find(
                    "gateway-auth",
                    severity,
                    format!(
                        "{path} is {} characters long; {MIN_SECRET_LEN} or more are safe against guessing.",
                        secret.len()
                    ),
                )
                .at(path)
                .fix(fix);
            }
            Ok(_) => {}
            Err(error) => {
                exam.find(
                    "gateway-auth",
                    Severity::Error,
                    inert(&format!("{path} cannot be read: {}", error.reason)).into_owned(),
                )
                .at(path);
            }
        }
    }
}

fn port(context: &Context, target: &Target, exam: &mut Exam) {
    if !target.is_local() {
        return;
    }
    exam.ran("port");
    let port = target.url.port();
    match Runtime::find(context, Mode::Local, port) {
        Runtime::Occupied(listeners) => {
            let holders: Vec<String> = listeners.iter().map(holder).collect();
            exam.find(
                "port",
                Severity::Error,
                format!("Port {port} is held by {}, which is not this profile's gateway.", holders.join(", ")),
            )
            .fix("openclaw gateway --port <another port>");
        }
        Runtime::NotRunning => {
            exam.find("port", Severity::Info, format!("Nothing listens on port {port}.")).fix("openclaw gateway");
        }
        Runtime::Running { .. } | Runtime::Remote | Runtime::Elsewhere => {}
    }
}

fn reachability(target: &Target, probed: &Probed, exam: &mut Exam) {
    exam.ran("gateway");
    let Some(error) = &probed.error else { return };
    // Asking for config or status without the scope is no fault of the setup.
    if probed.scope_limited() {
        return;
    }
    // The port check has said it already.
    if matches!(error, RemoteError::Connect { .. }) && target.is_local() {
        return;
    }
    let stage = error.stage().as_str();
    let finding = exam.find("gateway", Severity::Error, format!("{} (stage: {stage})", short(error)));
    finding.at(target.url.to_string());
    if let Some(remedy) = error.remedy(&target.place) {
        finding.fix(format!("{} ({})", remedy.command, remedy.machine()));
    }
}

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

struct Report<'a> {
    context: &'a Context,
    exam: Exam,
    considered: Vec<Considered>,
    target: Option<Target>,
    probed: Option<Probed>,
    fixed: Vec<PathBuf>,
}

impl Report<'_> {
    fn to_json(&self) -> Value {
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
                json!({"field": row.field, "source": row.name, "state": state, "reason": reason, "fingerprint": row.fingerprint})
            })
            .collect();
        let target = self.target.as_ref().map(|target| {
            json!({"url": target.url.to_string(), "urlSource": target.source.as_str(), "ownerSocket": target.owner_socket})
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

    fn render(&self, style: Style, why: bool) -> String {
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
            let url = inert(&target.url.to_string()).into_owned();
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

fn generate_token(context: &Context, as_json: bool) -> Outcome {
    super::config::generate_token(context, as_json)
}
