//! Programs on the gateway's own host, behind the same rules as on a node: the document of what may run, and people for the
//! rest.

use std::time::Duration;

use openclaw_agent::tool::Call;
use openclaw_config::Paths;
use openclaw_node::{
    command::{self, Failure, Toolbox},
    exec::{environment::AlsoAllowed, process::Guard},
};
use openclaw_protocol::{
    ErrorShape, Protocol,
    method::exec::{ApprovalRequestParams, ExecSecurity, SystemRunPlan},
};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use crate::{
    approvals::ask::{Why, ask_for_run},
    gateway::Gateway,
    nodes::for_run::{Denied, Done, Ran},
    runs::RunContext,
};

/// Reports of the toolbox (`exec.finished` and the like) that may wait; here nobody reads them.
const REPORTS: usize = 16;

/// This machine, as a place for programs.
pub struct Host {
    guard: Guard,
    paths: Paths,
    toolbox: std::sync::Mutex<Option<(String, std::sync::Arc<Toolbox>)>>,
}

/// A program for this machine.
#[derive(Debug)]
pub struct Program {
    /// A line for `/bin/sh -c`.
    pub line: String,
    pub cwd: String,
    pub env: std::collections::BTreeMap<String, String>,
    pub timeout: Option<Duration>,
    pub always_ask: bool,
}

impl Host {
    /// `guard` sees to it that no program outlives what it was started for.
    pub fn new(guard: Guard, paths: Paths) -> Self {
        Self { guard, paths, toolbox: std::sync::Mutex::default() }
    }

    /// The toolbox under the config in force; plans that people look at live as long as it.
    fn toolbox(&self, gateway: &Gateway) -> std::sync::Arc<Toolbox> {
        let runtime = gateway.runtime.load_full();
        let mut kept = self.toolbox.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((revision, toolbox)) = kept.as_ref()
            && *revision == runtime.revision
        {
            return std::sync::Arc::clone(toolbox);
        }
        let own =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let toolbox = Toolbox::new(self.guard.clone(), &self.paths, &runtime.config, own, AlsoAllowed::default());
        let toolbox = std::sync::Arc::new(toolbox);
        *kept = Some((runtime.revision.clone(), std::sync::Arc::clone(&toolbox)));
        toolbox
    }

    /// Runs a program for a run of the agent, as [`crate::nodes::Nodes::run_program`] does on a node.
    ///
    /// # Errors
    /// When it could not be tried. A program that ran and failed is `Ok(Ran::Done(..))`.
    pub async fn run(
        &self,
        gateway: &Gateway,
        context: &RunContext,
        call: &Call,
        program: Program,
    ) -> Result<Ran, ErrorShape> {
        let toolbox = self.toolbox(gateway);
        let wish = wish(context, &program);
        if !program.always_ask {
            match invoke(&toolbox, call, "system.run", &wish).await {
                Err(failure) if failure.message.contains("approval required") => {}
                outcome => return ended(outcome),
            }
        }
        let mut asked = wish.clone();
        if program.always_ask {
            asked["ask"] = json!("always");
        }
        let prepared = match invoke(&toolbox, call, "system.run.prepare", &asked).await {
            Ok(prepared) => prepared,
            Err(failure) => return ended(Err(failure)),
        };
        let unplanned = |_| ErrorShape::unavailable("there is nothing that a person could be shown");
        let plan: SystemRunPlan = serde_json::from_value(prepared["plan"].clone()).map_err(unplanned)?;
        let question = ApprovalRequestParams {
            host: Some("gateway".into()),
            command_argv: Some(plan.argv.clone()),
            command: Some(plan.command_text.clone()),
            cwd: plan.cwd.clone(),
            system_run_plan: Some(plan.clone()),
            env: (!program.env.is_empty()).then(|| program.env.clone()),
            security: prepared["execPolicy"]["security"].as_str().map(str::to_owned),
            ask: prepared["execPolicy"]["ask"].as_str().map(str::to_owned),
            unavailable_decisions: (prepared["allowAlwaysCoverage"]["complete"] == false)
                .then(|| vec!["allow-always".into()]),
            ..ApprovalRequestParams::default()
        };
        let answered = ask_for_run(gateway, context, &call.id, question, &call.cancel).await?;
        let mut params: Map<String, Value> = wish.as_object().cloned().unwrap_or_default();
        params.remove("rawCommand");
        params.insert("command".into(), json!(plan.argv));
        params.insert("cwd".into(), json!(plan.cwd));
        // What was approved is this plan, once.
        params.insert("systemRunPlan".into(), json!(plan));
        params.insert("runId".into(), json!(answered.id));
        match answered.decision {
            Some(decision) if decision.allows() => {
                params.insert("approved".into(), json!(true));
                params.insert("approvalDecision".into(), json!(decision));
            }
            None if answered.why != Why::Aborted && falls_back(&plan) => {
                params.insert("approvalSource".into(), json!("ask-fallback"));
            }
            _ => return Ok(Ran::Denied(Denied::ByPeople(answered.why))),
        }
        ended(invoke(&toolbox, call, "system.run", &Value::Object(params)).await)
    }
}

fn wish(context: &RunContext, program: &Program) -> Value {
    let mut wish = json!({
        "command": ["/bin/sh", "-c", program.line], "rawCommand": program.line, "cwd": program.cwd,
        "agentId": context.agent, "sessionKey": context.session.as_str(), "suppressNotifyOnExit": true, "stream": true,
    });
    if let Some(timeout) = program.timeout {
        wish["timeoutMs"] = json!(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
    }
    if !program.env.is_empty() {
        wish["env"] = json!(program.env);
    }
    wish
}

/// The owner of this host wants something to happen when nobody answers.
fn falls_back(plan: &SystemRunPlan) -> bool {
    let word = plan.policy_snapshot.as_ref().and_then(|snapshot| snapshot.get("askFallback")).cloned();
    let word = word.and_then(|word| serde_json::from_value::<ExecSecurity>(word).ok());
    word.is_some_and(|word| word != ExecSecurity::Deny)
}

async fn invoke(toolbox: &Toolbox, call: &Call, command: &str, params: &Value) -> Result<Value, Failure> {
    let (pieces, mut output) = mpsc::channel::<openclaw_node::exec::process::Chunk>(64);
    let (reports, mut unread) = mpsc::channel(REPORTS);
    let inner = command::Call {
        command: command.to_owned(),
        params: Some(params.to_string()),
        protocol: Protocol::V4,
        cancel: call.cancel.clone(),
        progress: pieces,
        reports,
    };
    let forward = async {
        loop {
            tokio::select! {
                Some(chunk) = output.recv() => {
                    // Whoever watches may be slow; the answer has everything.
                    let _ = call.progress.try_send(chunk.text);
                }
                Some(_) = unread.recv() => {}
                else => std::future::pending::<()>().await,
            }
        }
    };
    tokio::select! {
        answer = toolbox.run(&inner) => answer,
        () = forward => Err(Failure::unavailable("the program's output ended early")),
    }
}

fn ended(outcome: Result<Value, Failure>) -> Result<Ran, ErrorShape> {
    match outcome {
        Ok(payload) => {
            let unreadable = |error| ErrorShape::unavailable(format!("the program's result is unreadable: {error}"));
            serde_json::from_value::<Done>(payload).map(Ran::Done).map_err(unreadable)
        }
        Err(failure) if failure.code == "SYSTEM_RUN_DENIED" || failure.message.contains("SYSTEM_RUN_DENIED") => {
            Ok(Ran::Denied(Denied::ByNode(failure.message)))
        }
        Err(failure) if failure.code == "INVALID_REQUEST" => Err(ErrorShape::invalid(failure.message)),
        Err(failure) => Err(ErrorShape::unavailable(failure.message)),
    }
}
