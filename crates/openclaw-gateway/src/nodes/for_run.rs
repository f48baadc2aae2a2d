//! Nodes for the runs of the agent: commands without a connection that asks for them.
//!
//! ```text
//! Nodes::invoke_for_run ── policy, scopes of the run ──► node ──► payload
//! Nodes::run_program ───── system.run ──┬──► ran
//!                                       └─ the node asks ─► system.run.prepare ─► a person ─► system.run ──► ran
//! ```
//!
//! What a run may do is what its [`Authority`](crate::runs::Authority) grants: `operator.write`, and `operator.admin` for
//! the commands that `node.invoke` keeps for administrators. Dropping the future, or cancelling its token, takes the call
//! back: the node hears `node.invoke.cancel` and kills what runs, and a question that waits for a person is withdrawn.

use std::{collections::BTreeMap, time::Duration};

use openclaw_protocol::{
    ErrorShape, Scope,
    method::{
        exec::{ApprovalRequestParams, Decision, ExecSecurity, SystemRunPlan},
        node::{Node, NodeInvokeParams},
    },
};
use serde::Deserialize;
use serde_json::{Map, Value, json, value::to_raw_value};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{answers::Owner, invoke::By, live::Piece, methods, policy::Lists, registry::Nodes};
use crate::{
    approvals::ask::{Why, ask_for_run, viewer_of_run},
    gateway::Gateway,
    runs::RunContext,
};

/// How long a node has to prepare a command.
const PREPARE: Duration = Duration::from_secs(15);
/// How long a program may run when nobody says (the reference's default for its exec tool).
pub const DEFAULT_RUN: Duration = Duration::from_secs(30 * 60);
/// Time for the way there and back beside the program's own.
const TRANSPORT: Duration = Duration::from_secs(10);

/// A command for a node.
#[derive(Debug)]
pub struct NodeCall<'a> {
    /// Id of the node; see [`find_for_run`] for names.
    pub node_id: &'a str,
    /// Anything but `system.run`, `system.run.prepare` and `system.execApprovals.*`.
    pub command: &'a str,
    /// Parameters, an object.
    pub params: Value,
    /// Distinguishes the calls of one run: the id of the model's tool call. The same one again gives the same answer, for
    /// five minutes, without asking the node twice.
    pub tool_call: &'a str,
    /// At most an hour; 30 s when `None`.
    pub timeout: Option<Duration>,
    /// Output as it comes, for commands that stream. When the queue is full, pieces are lost; the payload has everything.
    pub progress: Option<mpsc::Sender<Piece>>,
    pub cancel: CancellationToken,
}

/// A program for a node.
#[derive(Debug)]
pub struct Program<'a> {
    pub node_id: &'a str,
    /// Program and arguments. A line for a shell is `["/bin/sh", "-c", line]` with `raw_command` set to the line.
    pub argv: Vec<String>,
    pub raw_command: Option<String>,
    /// On the node; its own working directory when `None`.
    pub cwd: Option<String>,
    /// The node sets what its owner allows, and refuses the rest.
    pub env: BTreeMap<String, String>,
    /// How long the program may run; [`DEFAULT_RUN`] when `None`. Waiting for a person is not part of it.
    pub timeout: Option<Duration>,
    /// Asks a person even where the node would not (`tools.exec.ask: "always"` of the gateway).
    pub always_ask: bool,
    /// As in [`NodeCall`].
    pub tool_call: &'a str,
    pub progress: Option<mpsc::Sender<Piece>>,
    pub cancel: CancellationToken,
}

/// How a program ended, or why it never began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ran {
    Done(Done),
    Denied(Denied),
}

/// What `system.run` answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Done {
    /// `None` when it was killed or did not start.
    #[serde(default)]
    pub exit_code: Option<i64>,
    #[serde(default)]
    pub timed_out: bool,
    #[serde(default)]
    pub success: bool,
    /// Both streams together at most 200,000 bytes; a longer one ends with `... (truncated)`.
    #[serde(default)]
    pub stdout: String,
    #[serde(default)]
    pub stderr: String,
    /// Why it did not start.
    #[serde(default)]
    pub error: Option<String>,
}

/// Nothing ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The node's owner lets nobody run this, in the node's own words.
    ByNode(String),
    /// A person was, or should have been, asked.
    ByPeople(Why),
}

impl Denied {
    /// For the model and the person behind it.
    pub fn text(&self) -> String {
        match self {
            Self::ByNode(words) => format!("The node refused it by its own rules: {words}"),
            Self::ByPeople(why) => why.denial().to_owned(),
        }
    }
}

/// Every node this run may know of, by name: what `node.list` shows to a caller with the scopes of the run.
///
/// # Errors
/// `INVALID_REQUEST` (missing scope) without `operator.read`.
pub fn list_for_run(gateway: &Gateway, context: &RunContext) -> Result<Vec<Node>, ErrorShape> {
    let scopes = context.authority.scopes;
    if !scopes.grants(Scope::Read) {
        return Err(ErrorShape::missing_scope(Scope::Read));
    }
    Ok(methods::list(gateway, scopes.grants(Scope::Pairing)))
}

/// The node that a model or a config means: by id, by at least six first characters of one, by name (capitals and
/// separators aside), or by address. Connected nodes win over others.
///
/// # Errors
/// `INVALID_REQUEST` that names what there is, when none or several fit.
pub fn find_for_run(gateway: &Gateway, context: &RunContext, meant: &str) -> Result<Node, ErrorShape> {
    let nodes = list_for_run(gateway, context)?;
    let plain = |text: &str| text.to_lowercase().replace(|c: char| !c.is_alphanumeric(), "");
    let (meant, wanted) = (meant.trim(), plain(meant));
    let fits = |node: &&Node| {
        node.node_id == meant
            || (meant.len() >= 6 && node.node_id.starts_with(&meant.to_lowercase()))
            || node.remote_ip.as_deref() == Some(meant)
            || (!wanted.is_empty() && node.display_name.as_deref().is_some_and(|name| plain(name) == wanted))
    };
    let found: Vec<&Node> = nodes.iter().filter(fits).collect();
    let connected: Vec<&Node> = found.iter().copied().filter(|node| node.connected).collect();
    let names = |nodes: &[&Node]| {
        let name = |node: &&Node| format!("{} ({})", node.display_name.as_deref().unwrap_or("unnamed"), node.node_id);
        nodes.iter().map(name).collect::<Vec<_>>().join(", ")
    };
    match (connected.as_slice(), found.as_slice()) {
        ([only], _) | ([], [only]) => Ok((*only).clone()),
        ([], []) if nodes.is_empty() => Err(ErrorShape::invalid(
            "no machine is paired as a node; on one that shall be, run `openclaw node run --pair <code>` with a code of \
             `openclaw qr`",
        )),
        ([], []) => {
            let all: Vec<&Node> = nodes.iter().collect();
            Err(ErrorShape::invalid(format!("unknown node {meant:?}; there are: {}", names(&all))))
        }
        (several, found) => {
            let several = if several.is_empty() { found } else { several };
            Err(ErrorShape::invalid(format!("{meant:?} fits more than one node, use an id: {}", names(several))))
        }
    }
}

/// [`find_for_run`] for a node that shall do something.
///
/// # Errors
/// Also when nobody has approved what it offers: the model passes that on to a person who can do something about it.
pub fn usable_for_run(gateway: &Gateway, context: &RunContext, meant: &str) -> Result<Node, ErrorShape> {
    let node = find_for_run(gateway, context, meant)?;
    match node.pending_request_id.as_deref().filter(|_| node.commands.is_empty()) {
        None => Ok(node),
        Some(request) => Err(ErrorShape::unavailable(format!(
            "{} is paired, but nobody has approved what it offers. On the gateway's host: openclaw nodes approve {request}",
            node.display_name.as_deref().unwrap_or(&node.node_id)
        ))),
    }
}

impl Nodes {
    /// Runs a command of a node for a run of the agent, and gives its payload.
    ///
    /// # Errors
    /// Those of `node.invoke`, with the same `details` (`nodeError`, `nodeCommandDispatched`, …); `UNAVAILABLE` with
    /// `details.code` `ABORTED` when `cancel` came first.
    pub async fn invoke_for_run(
        gateway: &Gateway,
        context: &RunContext,
        call: NodeCall<'_>,
    ) -> Result<Value, ErrorShape> {
        if matches!(call.command, "system.run" | "system.run.prepare") {
            let words = format!(
                "command \"{}\" is reserved for running programs, which people may be asked about",
                call.command
            );
            return Err(ErrorShape::invalid(words));
        }
        let work = send(gateway, context, &call, call.tool_call.to_owned());
        tokio::select! {
            biased;
            () = call.cancel.cancelled() => Err(aborted()),
            answer = work => answer,
        }
    }

    /// Runs a program on a node for a run of the agent. Where the node asks for leave, people are asked (for as long as
    /// [`RUN_ASKS_FOR`](crate::approvals::ask::RUN_ASKS_FOR)), exactly what the node prepared is what they see, and exactly
    /// that runs. Where nobody answers, the node's own `askFallback` decides.
    ///
    /// # Errors
    /// As [`Nodes::invoke_for_run`]. A program that ran and failed is `Ok(Ran::Done(..))`, and one that may not run is
    /// `Ok(Ran::Denied(..))`.
    pub async fn run_program(gateway: &Gateway, context: &RunContext, program: Program<'_>) -> Result<Ran, ErrorShape> {
        let cancel = program.cancel.clone();
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(aborted()),
            ran = run(gateway, context, program) => ran,
        }
    }
}

async fn run(gateway: &Gateway, context: &RunContext, program: Program<'_>) -> Result<Ran, ErrorShape> {
    let timeout = program.timeout.unwrap_or(DEFAULT_RUN);
    if !program.always_ask {
        let straight =
            invoke(gateway, context, &program, "system.run", wish(context, &program, timeout), timeout).await;
        match straight {
            Err(error) if asks(&error) => {}
            outcome => return ended(outcome),
        }
    }
    let mut wish = wish(context, &program, timeout);
    if program.always_ask {
        // The node binds the command only for callers that would ask.
        wish["ask"] = json!("always");
    }
    let prepared = invoke(gateway, context, &program, "system.run.prepare", wish, PREPARE).await;
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return ended(Err(error)),
    };
    let unplanned = || ErrorShape::unavailable("the node prepared nothing that a person could be shown");
    let plan: SystemRunPlan = serde_json::from_value(prepared["plan"].clone()).map_err(|_| unplanned())?;
    if plan.argv.is_empty() {
        return Err(unplanned());
    }
    let question = ApprovalRequestParams {
        host: Some("node".into()),
        node_id: Some(program.node_id.to_owned()),
        system_run_plan: Some(plan.clone()),
        env: (!program.env.is_empty()).then(|| program.env.clone()),
        security: prepared["execPolicy"]["security"].as_str().map(str::to_owned),
        ask: if program.always_ask {
            Some("always".into())
        } else {
            prepared["execPolicy"]["ask"].as_str().map(str::to_owned)
        },
        unavailable_decisions: (prepared["allowAlwaysCoverage"]["complete"] == false)
            .then(|| vec!["allow-always".into()]),
        ..ApprovalRequestParams::default()
    };
    let answered = ask_for_run(gateway, context, program.tool_call, question, &program.cancel).await?;
    let mut params = Map::new();
    match answered.decision {
        Some(decision) if decision.allows() => {
            params.insert("approved".into(), json!(true));
            params.insert("approvalDecision".into(), json!(decision));
        }
        None if answered.why != Why::Aborted && falls_back(&plan) => {
            params.insert("approvalSource".into(), json!("ask-fallback"));
        }
        Some(Decision::Deny | Decision::AllowOnce | Decision::AllowAlways) | None => {
            return Ok(Ran::Denied(Denied::ByPeople(answered.why)));
        }
    }
    params.insert("runId".into(), json!(answered.id));
    params.insert("command".into(), json!(plan.argv));
    for (name, value) in [("cwd", &plan.cwd), ("agentId", &plan.agent_id), ("sessionKey", &plan.session_key)] {
        if let Some(value) = value {
            params.insert(name.into(), json!(value));
        }
    }
    if !program.env.is_empty() {
        params.insert("env".into(), json!(program.env));
    }
    params.insert("timeoutMs".into(), json!(timeout_ms(timeout)));
    ended(invoke(gateway, context, &program, "system.run", Value::Object(params), timeout).await)
}

/// The parameters of a program as the agent wants it.
fn wish(context: &RunContext, program: &Program<'_>, timeout: Duration) -> Value {
    let mut params = json!({
        "command": program.argv, "agentId": context.agent, "sessionKey": context.session.as_str(),
        "timeoutMs": timeout_ms(timeout),
    });
    for (name, value) in [("rawCommand", &program.raw_command), ("cwd", &program.cwd)] {
        if let Some(value) = value {
            params[name] = json!(value);
        }
    }
    if !program.env.is_empty() {
        params["env"] = json!(program.env);
    }
    params
}

async fn invoke(
    gateway: &Gateway,
    context: &RunContext,
    program: &Program<'_>,
    command: &str,
    params: Value,
    timeout: Duration,
) -> Result<Value, ErrorShape> {
    let call = NodeCall {
        node_id: program.node_id,
        command,
        params,
        tool_call: program.tool_call,
        timeout: Some(timeout.saturating_add(TRANSPORT)),
        progress: program.progress.clone().filter(|_| command == "system.run"),
        cancel: program.cancel.clone(),
    };
    // Every step of a program is asked once.
    send(gateway, context, &call, uuid::Uuid::new_v4().to_string()).await
}

async fn send(gateway: &Gateway, context: &RunContext, call: &NodeCall<'_>, key: String) -> Result<Value, ErrorShape> {
    let unreadable = |error: serde_json::Error| ErrorShape::invalid(format!("the parameters are no JSON: {error}"));
    let params = NodeInvokeParams {
        node_id: call.node_id.to_owned(),
        command: call.command.to_owned(),
        params: Some(to_raw_value(&call.params).map_err(unreadable)?),
        timeout_ms: call.timeout.map(timeout_ms),
        idempotency_key: key,
        session_key: Some(context.session.to_string()),
        progress: None,
    };
    let by = By {
        scopes: context.authority.scopes,
        owner: Owner::Run(context.run_id.clone()),
        viewer: viewer_of_run(context),
    };
    let runtime = gateway.runtime.load_full();
    let lists = Lists { allow: &runtime.node_allow, deny: &runtime.node_deny };
    let answer = gateway.nodes.invoke_by(&by, lists, &gateway.approvals, params, call.progress.as_ref()).await?;
    #[derive(Deserialize)]
    struct Invoked {
        #[serde(default)]
        payload: Value,
    }
    let unreadable = |error| ErrorShape::unavailable(format!("the node's answer is unreadable: {error}"));
    serde_json::from_slice::<Invoked>(&answer).map(|invoked| invoked.payload).map_err(unreadable)
}

fn ended(outcome: Result<Value, ErrorShape>) -> Result<Ran, ErrorShape> {
    match outcome {
        Ok(payload) => {
            let unreadable = |error| ErrorShape::unavailable(format!("the node's answer is unreadable: {error}"));
            serde_json::from_value(payload).map(Ran::Done).map_err(unreadable)
        }
        Err(error) if denied(&error) => Ok(Ran::Denied(Denied::ByNode(error.message))),
        Err(error) => Err(error),
    }
}

/// The node ran nothing because its owner does not let it.
fn denied(error: &ErrorShape) -> bool {
    error.message.contains("SYSTEM_RUN_DENIED")
}

/// The node would run it with a person's leave.
fn asks(error: &ErrorShape) -> bool {
    denied(error) && error.message.contains("approval required")
}

/// The node's owner wants something to happen when nobody answers.
fn falls_back(plan: &SystemRunPlan) -> bool {
    let word = plan.policy_snapshot.as_ref().and_then(|snapshot| snapshot.get("askFallback")).cloned();
    let word = word.and_then(|word| serde_json::from_value::<ExecSecurity>(word).ok());
    word.is_some_and(|word| word != ExecSecurity::Deny)
}

fn timeout_ms(timeout: Duration) -> u64 {
    u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)
}

fn aborted() -> ErrorShape {
    ErrorShape::unavailable("the run was ended").detail("code", "ABORTED")
}
