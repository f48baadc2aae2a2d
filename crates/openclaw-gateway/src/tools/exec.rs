//! `exec`: a program on the gateway's host, or on a node.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use openclaw_agent::tool::{Answer, Call, Effects, Tool, ToolSpec};
use serde_json::json;
use tokio::sync::mpsc;

use super::{
    arguments::Arguments,
    host::{self, Host},
    told,
};
use crate::{
    gateway::Gateway,
    nodes::{
        Nodes,
        for_run::{self, DEFAULT_RUN, Program, Ran},
    },
    runs::RunContext,
};

/// Longest time a program gets, an hour; a longer wish is cut to it.
const MAX_SECONDS: u64 = 3_600;
/// What the call may take beside the program: people who are asked.
const PATIENCE: Duration = Duration::from_secs(2 * 60 * 60);

pub struct ExecTool {
    gateway: Arc<Gateway>,
    context: Arc<RunContext>,
    host: Arc<Host>,
    spec: ToolSpec,
}

impl ExecTool {
    pub fn new((gateway, context): (Arc<Gateway>, Arc<RunContext>), host: Arc<Host>) -> Self {
        let spec = ToolSpec {
            name: "exec".into(),
            description:
                "Runs a shell command on the gateway's host, or on a node (another machine) when `node` is given. \
                          The owner may be asked first, which can take a while; a refusal is final."
                    .into(),
            parameters: json!({
                "type": "object",
                "properties": {
                    "command": {"type": "string", "description": "A line for /bin/sh"},
                    "workdir": {"type": "string", "description": "Where it runs; the workspace by default"},
                    "env": {"type": "object", "additionalProperties": {"type": "string"}},
                    "timeoutSeconds": {"type": "number", "description": "At most 3600; 1800 by default"},
                    "node": {"type": "string", "description": "Name or id of a node"},
                    "ask": {"type": "string", "enum": ["always"], "description": "Ask the owner in any case"},
                },
                "required": ["command"],
            }),
        };
        Self { gateway, context, host, spec }
    }

    async fn run(&self, call: &Call) -> Result<Answer, Answer> {
        let arguments = Arguments(&call.arguments);
        let command = arguments.needed("command")?.to_owned();
        let env: BTreeMap<String, String> = match call.arguments.get("env") {
            None | Some(serde_json::Value::Null) => BTreeMap::new(),
            Some(env) => serde_json::from_value(env.clone())
                .map_err(|_| Answer::error("`env` maps names to texts, nothing else."))?,
        };
        let seconds = arguments.number("timeoutSeconds", 1, MAX_SECONDS);
        let timeout = seconds.map_or(DEFAULT_RUN, Duration::from_secs);
        let config = &self.gateway.runtime.load().config;
        let configured = |key: &str| config.get(key).and_then(|node| node.as_str().map(str::to_owned));
        let always_ask =
            arguments.text("ask") == Some("always") || configured("tools.exec.ask").as_deref() == Some("always");
        let on_node = match (arguments.text("node"), configured("tools.exec.host").as_deref()) {
            (Some(node), _) => Some(node.to_owned()),
            (None, Some("node")) => Some(configured("tools.exec.node").unwrap_or_default()),
            (None, _) => None,
        };
        let workdir = arguments.text("workdir");
        let ran = match on_node {
            Some(node) => self.on_node(call, &node, command, workdir, env, timeout, always_ask).await?,
            None => {
                let workspace = &self.context.workspace;
                let cwd = workdir.map_or_else(|| workspace.clone(), |dir| workspace.join(dir));
                // Nothing was written to it yet.
                if workdir.is_none() {
                    let made = tokio::fs::create_dir_all(&cwd).await;
                    made.map_err(|error| Answer::error(format!("{} cannot be made: {error}.", cwd.display())))?;
                }
                if !cwd.is_dir() {
                    return Err(Answer::error(format!("{} is no directory here.", cwd.display())));
                }
                let cwd = cwd.to_string_lossy().into_owned();
                let program = host::Program { line: command, cwd, env, timeout: Some(timeout), always_ask };
                let ran = self.host.run(&self.gateway, &self.context, call, program).await;
                ran.map_err(|error| told(&error))?
            }
        };
        Ok(answer(&ran))
    }

    #[allow(clippy::too_many_arguments)] // the words of one command line
    async fn on_node(
        &self,
        call: &Call,
        node: &str,
        command: String,
        workdir: Option<&str>,
        env: BTreeMap<String, String>,
        timeout: Duration,
        always_ask: bool,
    ) -> Result<Ran, Answer> {
        let (gateway, context) = (&self.gateway, &self.context);
        let node = match node {
            "" => sole(gateway, context)?,
            named => for_run::usable_for_run(gateway, context, named).map_err(|error| told(&error))?.node_id,
        };
        let (pieces, mut output) = mpsc::channel(64);
        let program = Program {
            node_id: &node,
            argv: vec!["/bin/sh".into(), "-c".into(), command.clone()],
            raw_command: Some(command),
            cwd: workdir.map(str::to_owned),
            env,
            timeout: Some(timeout),
            always_ask,
            tool_call: &call.id,
            progress: Some(pieces),
            cancel: call.cancel.clone(),
        };
        let forward = async {
            while let Some(piece) = output.recv().await {
                let _ = call.progress.try_send(piece.text);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ran = Nodes::run_program(gateway, context, program) => ran.map_err(|error| told(&error)),
            () = forward => Err(Answer::error("the node's output ended early")),
        }
    }
}

/// The node to take when none is named: the only one that is here.
fn sole(gateway: &Gateway, context: &RunContext) -> Result<String, Answer> {
    let nodes = for_run::list_for_run(gateway, context).map_err(|error| told(&error))?;
    let mut able = nodes.into_iter().filter(|node| node.connected && node.commands.iter().any(|c| c == "system.run"));
    match (able.next(), able.next()) {
        (Some(only), None) => Ok(only.node_id),
        (None, _) => Err(Answer::error("No node that runs programs is connected.")),
        _ => Err(Answer::error("Several nodes run programs; name one with `node`, or set tools.exec.node.")),
    }
}

/// What a program's end means to a model.
pub(super) fn answer(ran: &Ran) -> Answer {
    let done = match ran {
        Ran::Denied(denied) => return Answer::error(denied.text()),
        Ran::Done(done) => done,
    };
    let mut text = String::new();
    for (name, said) in [("", &done.stdout), ("stderr:\n", &done.stderr)] {
        if !said.is_empty() {
            text.push_str(name);
            text.push_str(said);
            if !said.ends_with('\n') {
                text.push('\n');
            }
        }
    }
    match (&done.error, done.timed_out, done.exit_code) {
        (Some(error), ..) => text.push_str(&format!("It did not start: {error}")),
        (None, true, _) => text.push_str("It was ended because its time was up."),
        (None, false, Some(0)) if text.is_empty() => text.push_str("Done; it printed nothing."),
        (None, false, Some(0)) => {}
        (None, false, Some(code)) => text.push_str(&format!("Exit code {code}.")),
        (None, false, None) => text.push_str("It was killed."),
    }
    Answer {
        is_error: !done.success,
        details: Some(json!({"exitCode": done.exit_code, "timedOut": done.timed_out})),
        ..Answer::text(text)
    }
}

impl Tool for ExecTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn effects(&self) -> Effects {
        Effects::Some
    }

    fn timeout(&self) -> Duration {
        PATIENCE
    }

    fn call(self: Arc<Self>, call: Call) -> BoxFuture<'static, Answer> {
        Box::pin(async move { self.run(&call).await.unwrap_or_else(|error| error) })
    }
}

#[cfg(test)]
mod tests {
    use openclaw_agent::message::Part;

    use super::*;
    use crate::{
        approvals::ask::Why,
        nodes::for_run::{Denied, Done},
    };

    #[test]
    fn the_end_of_a_program_in_words() {
        let check = |done: Done, is_error: bool, text: &str| {
            let answer = answer(&Ran::Done(done));
            assert_eq!((answer.is_error, answer.content), (is_error, vec![Part::Text(text.into())]));
        };
        let well = || Done { exit_code: Some(0), success: true, ..Done::default() };
        check(well(), false, "Done; it printed nothing.");
        check(Done { stdout: "a".into(), ..well() }, false, "a\n");
        check(
            Done { exit_code: Some(2), stdout: "a\n".into(), stderr: "b".into(), ..Done::default() },
            true,
            "a\nstderr:\nb\nExit code 2.",
        );
        check(Done { timed_out: true, ..Done::default() }, true, "It was ended because its time was up.");
        check(Done { error: Some("no such file".into()), ..Done::default() }, true, "It did not start: no such file");
        let denied = answer(&Ran::Denied(Denied::ByPeople(Why::Person)));
        assert!(denied.is_error);
    }
}
