//! `system.run` and `system.run.prepare`: programs for the gateway's agents, as far as the owner of this machine lets
//! them.
//!
//! ```text
//! words ─> one command line ─> environment ─> parts against the allow-list ─> verdict ─┬─> guard ─> outcome
//!                                                 approved? the plan of it, still true ┘
//! ```

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use openclaw_protocol::{
    Protocol,
    method::exec::{Decision, ExecAsk, ExecSecurity, SystemRunPlan},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Call, Failure, Report, Toolbox, cancelled};
use crate::{
    approvals::{
        analysis::{self, Analysis},
        plan::{Binding, Refusal},
        policy::{self, Denial, Effective, Facts},
    },
    exec::{
        argv::{self, CommandLine},
        environment,
        process::{self, Outcome, Run},
    },
    now_ms,
};

/// Code of a denial.
const DENIED: &str = "SYSTEM_RUN_DENIED";
/// Output in the event `exec.finished`: the last so many characters.
const EVENT_TAIL_CHARS: usize = 20_000;
/// Session of requests that name none.
const NO_SESSION: &str = "node";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Params {
    #[serde(default)]
    command: Vec<String>,
    raw_command: Option<String>,
    cwd: Option<String>,
    env: Option<BTreeMap<String, String>>,
    timeout_ms: Option<f64>,
    agent_id: Option<String>,
    session_key: Option<String>,
    run_id: Option<String>,
    system_run_plan: Option<SystemRunPlan>,
    approved: Option<bool>,
    approval_decision: Option<String>,
    approval_source: Option<String>,
    needs_screen_recording: Option<bool>,
    suppress_notify_on_exit: Option<bool>,
    /// Send output as it comes, too.
    stream: Option<bool>,
    /// Of `system.run.prepare`: what the caller would enforce by itself.
    security: Option<String>,
    ask: Option<String>,
}

/// A request that was understood.
struct Request {
    line: CommandLine,
    cwd: PathBuf,
    env: BTreeMap<String, String>,
    agent: Option<String>,
    session: Option<String>,
    analysis: Analysis,
    effective: Effective,
    snapshot: Value,
}

impl Request {
    fn read(toolbox: &Toolbox, params: &Params) -> Result<Self, Failure> {
        let line = argv::resolve(&params.command, params.raw_command.as_deref());
        let line = line.map_err(|error| Failure::invalid(error.to_string()))?;
        let given = params.env.clone().unwrap_or_default();
        let env = environment::overrides(&given, &toolbox.also);
        let env = env.map_err(|rejected| Failure::invalid(rejected.to_string()))?;
        let own = || std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        let cwd = match text(params.cwd.as_deref()) {
            None => own(),
            Some(cwd) if cwd.contains('\0') => {
                return Err(Failure::invalid("INVALID_REQUEST: cwd must not contain NUL"));
            }
            Some(cwd) => own().join(cwd),
        };
        let agent = text(params.agent_id.as_deref());
        let file = toolbox.approvals.read().file;
        Ok(Self {
            analysis: analysis::analyse(&line, &cwd, &toolbox.search_path),
            effective: policy::effective(&file, agent.as_deref(), toolbox.configured),
            snapshot: policy::snapshot(&file, agent.as_deref()),
            session: text(params.session_key.as_deref()),
            line,
            cwd,
            env,
            agent,
        })
    }

    fn bind(&self) -> Result<Binding, Refusal> {
        let (agent, session) = (self.agent.as_deref(), self.session.as_deref());
        Binding::new(&self.line, &self.analysis, &self.cwd, &self.env, agent, session)
    }
}

fn text(text: Option<&str>) -> Option<String> {
    text.map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
}

/// `system.run.prepare`: what exactly would run, for a person to look at. Remembered, so that an approval of it holds.
pub fn prepare(toolbox: &Toolbox, call: &Call) -> Result<Value, Failure> {
    let params: Params = call.params()?;
    let request = Request::read(toolbox, &params)?;
    let policy = request.effective.policy;
    let word = |word: &Option<String>| word.as_ref().map(|word| json!(word));
    let caller_security = word(&params.security).and_then(|word| serde_json::from_value::<ExecSecurity>(word).ok());
    let caller_ask = word(&params.ask).and_then(|word| serde_json::from_value::<ExecAsk>(word).ok());
    // Where neither side would ask, nothing has to be bound.
    let unasked = caller_security.is_some_and(|word| word.min(policy.security) == ExecSecurity::Full)
        && caller_ask.is_some_and(|word| word.max(policy.ask) == ExecAsk::Off);
    let (argv, cwd, script, always) = match request.bind() {
        Ok(binding) => {
            let always = request.analysis.always(&binding.cwd);
            let shown = (binding.argv.clone(), binding.cwd.clone(), binding.script.clone(), always);
            toolbox.plans().remember(binding, request.snapshot.clone(), Instant::now());
            shown
        }
        Err(_) if unasked => (request.line.argv.clone(), request.cwd.clone(), None, None),
        Err(refusal) => return Err(Failure::invalid(refusal.to_string())),
    };
    let command_text = argv::format_command(&argv);
    if call.protocol == Protocol::V3 {
        let shown = request.line.preview.clone().unwrap_or(command_text);
        return Ok(json!({
            "cmdText": shown,
            "plan": {"version": 2, "argv": argv, "cwd": cwd.to_string_lossy(), "rawCommand": shown,
                     "agentId": request.agent, "sessionKey": request.session},
        }));
    }
    let plan = SystemRunPlan {
        command_preview: request.line.preview.clone().filter(|preview| *preview != command_text),
        argv,
        cwd: Some(cwd.to_string_lossy().into_owned()),
        command_text,
        agent_id: request.agent,
        session_key: request.session,
        policy_snapshot: Some(request.snapshot),
        mutable_file_operand: script,
    };
    let patterns: Vec<Value> =
        always.iter().flatten().map(|rule| json!({"pattern": rule.pattern, "argPattern": rule.arg_pattern})).collect();
    Ok(json!({
        "plan": plan, "execPolicy": {"security": policy.security, "ask": policy.ask},
        "allowAlwaysCoverage": {"complete": always.is_some(), "patterns": patterns},
    }))
}

/// What the gateway says about a person's consent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Consent {
    None,
    Approved(Decision),
    /// Nobody was there to ask; the owner's `askFallback` decides.
    Fallback,
}

fn consent(params: &Params, request: &Request, protocol: Protocol) -> Result<Consent, Failure> {
    let decision = params.approval_decision.as_deref().and_then(Decision::parse).filter(|decision| decision.allows());
    let explicit = params.approved == Some(true) || decision.is_some();
    let consent = match params.approval_source.as_deref() {
        None if explicit => Consent::Approved(decision.unwrap_or(Decision::AllowOnce)),
        None => return Ok(Consent::None),
        Some(_) if params.approved.is_some() || params.approval_decision.is_some() => {
            return Err(Failure::invalid("approvalSource cannot be combined with explicit approval"));
        }
        Some("auto-review") => Consent::Approved(Decision::AllowOnce),
        Some("ask-fallback") => Consent::Fallback,
        Some(_) => return Err(Failure::invalid("approvalSource invalid")),
    };
    let matches = |plan: &SystemRunPlan| {
        plan.argv == request.line.argv
            && plan.command_text == request.line.text
            && text(plan.cwd.as_deref()).as_deref() == text(params.cwd.as_deref()).as_deref()
            && text(plan.agent_id.as_deref()) == request.agent
            && text(plan.session_key.as_deref()) == request.session
    };
    match &params.system_run_plan {
        Some(plan) if !matches(plan) => {
            Err(Failure::invalid(format!("{} requires matching systemRunPlan", subject(params))))
        }
        // Protocol 3 has no such field.
        None if protocol == Protocol::V4 => {
            Err(Failure::invalid(format!("{} requires matching systemRunPlan", subject(params))))
        }
        _ => Ok(consent),
    }
}

fn subject(params: &Params) -> &'static str {
    if params.approval_source.is_some() { "approvalSource" } else { "explicit approval" }
}

/// `system.run`.
pub async fn run(toolbox: &Toolbox, call: &Call) -> Result<Value, Failure> {
    let params: Params = call.params()?;
    let request = Request::read(toolbox, &params)?;
    let consent = consent(&params, &request, call.protocol)?;
    let run = Reported {
        call,
        session: request.session.clone().unwrap_or_else(|| NO_SESSION.to_owned()),
        run_id: text(params.run_id.as_deref()).unwrap_or_else(|| uuid::Uuid::new_v4().to_string()),
        command: request.line.text.clone(),
        suppress: params.suppress_notify_on_exit == Some(true),
    };
    if let Err((reason, message)) = allowed(toolbox, &params, &request, consent) {
        return Err(run.denied(reason, message));
    }
    if params.needs_screen_recording == Some(true) {
        return Err(run.denied("permission:screenRecording", "PERMISSION_MISSING: screenRecording".to_owned()));
    }
    let mut env = toolbox.env.clone();
    env.extend(request.env.clone());
    let argv = pinned(&request);
    let timeout = params.timeout_ms.filter(|ms| ms.is_finite() && *ms > 0.0);
    let outcome = process::run(
        &toolbox.guard,
        Run {
            argv: &argv,
            cwd: &request.cwd,
            env: &env,
            timeout: timeout.map(|ms| Duration::from_secs_f64((ms / 1000.0).min(86_400.0 * 365.0))),
            live: (params.stream == Some(true)).then(|| call.progress.clone()),
        },
        &call.cancel,
    );
    let outcome = outcome.await.map_err(|_| cancelled())?;
    Ok(run.finished(outcome))
}

/// The table of [`policy`], with the plan of an approved command in the place of trust.
fn allowed(
    toolbox: &Toolbox,
    params: &Params,
    request: &Request,
    consent: Consent,
) -> Result<(), (&'static str, String)> {
    let Effective { policy, rules } = &request.effective;
    let denial = |denial: Denial| (denial.reason(), denial.to_string());
    let refusal = |refusal: Refusal| ("approval-required", refusal.to_string());
    let matched = request.analysis.compare(rules, &canonical(&request.cwd), toolbox.home.as_deref());
    let facts = Facts { listed: matched.listed, always: matched.always, approved: false };
    let decision = match consent {
        Consent::None => return policy::verdict(policy.security, policy.ask, facts).map_err(denial),
        Consent::Fallback => {
            let security = policy.security.min(policy.ask_fallback);
            return policy::verdict(security, ExecAsk::Off, facts).map_err(denial);
        }
        Consent::Approved(decision) => decision,
    };
    // Before the approval is used up.
    policy::verdict(policy.security, policy.ask, Facts { approved: true, ..facts }).map_err(denial)?;
    let binding = request.bind().map_err(refusal)?;
    let id = text(params.run_id.as_deref());
    toolbox.plans().redeem(&binding, id.as_deref(), &request.snapshot, Instant::now()).map_err(refusal)?;
    if decision == Decision::AllowAlways
        && let Some(rules) = request.analysis.always(&binding.cwd)
    {
        let agent = request.agent.as_deref().unwrap_or(policy::DEFAULT_AGENT);
        if let Err(error) = toolbox.approvals.allow_always(agent, &rules, now_ms()) {
            tracing::warn!(%error, "an approval for always could not be kept");
            let message = "SYSTEM_RUN_DENIED: approval state could not be persisted";
            return Err(("approval-state-write-failed", message.to_owned()));
        }
    }
    Ok(())
}

fn canonical(cwd: &Path) -> PathBuf {
    std::fs::canonicalize(cwd).unwrap_or_else(|_| cwd.to_owned())
}

/// The words with the program's path in the place of its name, so that what was judged is what starts. With `full` and
/// nobody asked there was no judgement, and the words stay as they are.
fn pinned(request: &Request) -> Vec<String> {
    let mut argv = request.line.argv.clone();
    let judged =
        request.effective.policy.security != ExecSecurity::Full || request.effective.policy.ask != ExecAsk::Off;
    let program = request.analysis.parts.first().and_then(|part| part.program.as_ref());
    if let (true, false, Some(program), Some(first)) = (judged, request.analysis.shell, program, argv.first_mut()) {
        *first = program.path.to_string_lossy().into_owned();
    }
    argv
}

/// A run as the gateway hears of it.
struct Reported<'a> {
    call: &'a Call,
    session: String,
    run_id: String,
    command: String,
    suppress: bool,
}

impl Reported<'_> {
    fn event(&self, event: &'static str, more: Value) {
        let mut payload =
            json!({"sessionKey": self.session, "runId": self.run_id, "host": "node", "command": self.command});
        if let (Some(payload), Value::Object(more)) = (payload.as_object_mut(), more) {
            payload.extend(more);
            if self.suppress {
                payload.insert("suppressNotifyOnExit".to_owned(), json!(true));
            }
        }
        // The answer itself says everything; a full queue loses the event, not the answer.
        let _ = self.call.reports.try_send(Report { event, payload });
    }

    fn denied(&self, reason: &str, message: String) -> Failure {
        self.event("exec.denied", json!({ "reason": reason }));
        Failure::new(DENIED, message)
    }

    fn finished(&self, mut outcome: Outcome) -> Value {
        if outcome.truncated {
            let stream = if outcome.stderr.trim().is_empty() { &mut outcome.stdout } else { &mut outcome.stderr };
            stream.push_str("\n... (truncated)");
        }
        let success = outcome.success();
        let error = outcome.error.clone();
        let parts = [outcome.stdout.as_str(), outcome.stderr.as_str(), error.as_deref().unwrap_or_default()];
        let output = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n");
        let mut report = json!({"timedOut": outcome.timed_out, "success": success, "output": tail(output.trim())});
        let mut answer = json!({});
        if let Some(code) = outcome.exit_code {
            report["exitCode"] = json!(code);
            answer["exitCode"] = json!(code);
        }
        self.event("exec.finished", report);
        answer["timedOut"] = json!(outcome.timed_out);
        answer["success"] = json!(success);
        answer["stdout"] = json!(outcome.stdout);
        answer["stderr"] = json!(outcome.stderr);
        answer["error"] = json!(error);
        answer
    }
}

fn tail(text: &str) -> String {
    match text.char_indices().rev().nth(EVENT_TAIL_CHARS - 1) {
        Some((at, _)) if at > 0 => format!("... (truncated) {}", &text[at..]),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::Bench;
    use super::*;

    fn full(bench: &Bench) {
        let file = json!({"version": 1, "defaults": {"security": "full", "ask": "off"}});
        bench.toolbox.approvals.replace(&file, None).unwrap();
    }

    /// `exec-approvals-system-run`, q3: plan and policy of a shell's line.
    #[tokio::test]
    async fn a_plan_has_the_captured_shape() {
        let bench = Bench::new("{}");
        full(&bench);
        let cwd = std::fs::canonicalize(bench.dir.path()).unwrap();
        let answer = bench
            .ask(
                "system.run.prepare",
                json!({"command": ["/bin/sh", "-c", "echo hi"], "rawCommand": "echo hi", "cwd": cwd, "agentId": "main",
                       "sessionKey": "agent:main:main"}),
            )
            .await
            .unwrap();
        let hash = crate::approvals::allowlist::hashed(&["echo".into(), "hi".into()], &cwd);
        assert_eq!(
            answer,
            json!({
                "plan": {
                    "argv": ["/bin/sh", "-c", "echo hi"], "cwd": cwd, "commandText": "/bin/sh -c \"echo hi\"",
                    "commandPreview": "echo hi", "agentId": "main", "sessionKey": "agent:main:main",
                    "policySnapshot": {"security": "full", "ask": "off", "askFallback": "deny",
                                       "autoAllowSkills": false, "allowlistRules": []},
                },
                "execPolicy": {"security": "full", "ask": "off"},
                "allowAlwaysCoverage": {"complete": true, "patterns": [{"pattern": "/usr/bin/echo", "argPattern": hash}]},
            })
        );
    }

    #[tokio::test]
    async fn protocol_3_gets_its_own_plan() {
        let bench = Bench::new("{}");
        let params = json!({"command": ["/bin/sh", "-c", "echo hi"], "cwd": "/"});
        let call = Call { protocol: Protocol::V3, ..bench.call("system.run.prepare", Some(params)) };
        assert_eq!(
            bench.toolbox.run(&call).await.unwrap(),
            json!({"cmdText": "echo hi", "plan": {"version": 2, "argv": ["/bin/sh", "-c", "echo hi"], "cwd": "/",
                   "rawCommand": "echo hi", "agentId": null, "sessionKey": null}})
        );
    }

    #[tokio::test]
    async fn what_is_refused_before_anything_runs() {
        let bench = Bench::new("{}");
        full(&bench);
        for (params, message) in [
            (json!({"command": []}), "command required"),
            (json!({"rawCommand": "ls"}), "rawCommand requires params.command"),
            (json!({"command": ["ls"], "rawCommand": "rm"}), "INVALID_REQUEST: rawCommand does not match command"),
            (
                json!({"command": ["ls"], "env": {"LD_PRELOAD": "x"}}),
                "SYSTEM_RUN_DENIED: environment override rejected (blocked override keys: LD_PRELOAD)",
            ),
            (json!({"command": ["ls"], "approvalSource": "x"}), "approvalSource invalid"),
            (
                json!({"command": ["ls"], "approvalSource": "auto-review", "approved": true}),
                "approvalSource cannot be combined with explicit approval",
            ),
            (json!({"command": ["ls"], "approved": true}), "explicit approval requires matching systemRunPlan"),
            (
                json!({"command": ["ls"], "approved": true, "systemRunPlan": {"argv": ["rm"], "commandText": "rm"}}),
                "explicit approval requires matching systemRunPlan",
            ),
        ] {
            let failure = bench.ask("system.run", params.clone()).await.unwrap_err();
            assert_eq!((failure.code, failure.message.as_str()), ("INVALID_REQUEST", message), "{params}");
        }
        for wrong in [json!({"command": [1]}), json!({"command": "ls"}), json!({"command": ["ls"], "env": {"A": 1}})] {
            assert_eq!(bench.ask("system.run", wrong).await.unwrap_err().code, "INVALID_REQUEST");
        }
    }

    #[tokio::test]
    async fn denials_name_their_reason_and_are_reported() {
        let mut bench = Bench::new("{}");
        let check = async |bench: &mut Bench, params: Value, message: &str, reason: &str| {
            let failure = bench.ask("system.run", params).await.unwrap_err();
            assert_eq!((failure.code, failure.message.as_str()), (DENIED, message));
            let report = bench.reports.try_recv().unwrap();
            assert_eq!((report.event, &report.payload["reason"]), ("exec.denied", &json!(reason)));
            assert_eq!((&report.payload["host"], &report.payload["sessionKey"]), (&json!("node"), &json!("node")));
        };
        let ls = || json!({"command": ["ls"]});
        let required = "SYSTEM_RUN_DENIED: approval required";
        check(&mut bench, ls(), required, "approval-required").await;
        let screen = json!({"command": ["ls"], "needsScreenRecording": true});
        check(&mut bench, screen, required, "approval-required").await;
        let fallback = json!({"command": ["/usr/bin/ls"], "approvalSource": "ask-fallback",
                              "systemRunPlan": {"argv": ["/usr/bin/ls"], "commandText": "/usr/bin/ls"}});
        check(&mut bench, fallback, "SYSTEM_RUN_DISABLED: security=deny", "security=deny").await;
        let file = json!({"version": 1, "defaults": {"security": "allowlist", "ask": "off"}});
        bench.toolbox.approvals.replace(&file, None).unwrap();
        check(&mut bench, ls(), "SYSTEM_RUN_DENIED: allowlist miss", "allowlist-miss").await;
        let hash = bench.toolbox.approvals.read().hash;
        let file = json!({"version": 1, "defaults": {"security": "deny"}});
        bench.toolbox.approvals.replace(&file, Some(&hash)).unwrap();
        check(&mut bench, ls(), "SYSTEM_RUN_DISABLED: security=deny", "security=deny").await;
    }

    /// An approval the gateway claims for something that was never shown here.
    #[tokio::test]
    async fn p_57_an_approval_needs_a_plan_of_this_node() {
        let bench = Bench::new("{}");
        let plan = json!({"argv": ["/usr/bin/ls"], "cwd": "/", "commandText": "/usr/bin/ls"});
        let approved = json!({"command": ["/usr/bin/ls"], "cwd": "/", "approved": true, "runId": "a1",
                              "approvalDecision": "allow-once", "systemRunPlan": plan});
        let failure = bench.ask("system.run", approved.clone()).await.unwrap_err();
        assert_eq!((failure.code, failure.message), (DENIED, Refusal::Unknown.to_string()));
        // Prepared, it gets past approvals as far as the guard, which this bench has not got.
        let prepared = bench.ask("system.run.prepare", json!({"command": ["ls"], "cwd": "/"})).await.unwrap();
        assert_eq!(prepared["plan"]["argv"], json!(["/usr/bin/ls"]));
        let ran = bench.ask("system.run", approved.clone()).await.unwrap();
        assert!(ran["error"].as_str().is_some_and(|error| error.contains("guarded")), "{ran}");
        let replayed = bench.ask("system.run", approved).await.unwrap_err();
        assert_eq!(replayed.message, Refusal::Used.to_string());
    }

    #[test]
    fn long_output_keeps_its_end() {
        assert_eq!(tail("short"), "short");
        let long = format!("{}é", "x".repeat(EVENT_TAIL_CHARS));
        let cut = tail(&long);
        assert!(cut.starts_with("... (truncated) x") && cut.ends_with('é'));
        assert_eq!(cut.chars().count(), EVENT_TAIL_CHARS + "... (truncated) ".len());
    }
}
