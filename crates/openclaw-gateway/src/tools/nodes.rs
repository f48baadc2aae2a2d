//! `nodes`: the machines that are lent to this gateway.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use openclaw_agent::{
    message::Part,
    tool::{Answer, Call, Effects, Tool, ToolSpec},
};
use openclaw_protocol::{ErrorShape, method::node::Node};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{arguments::Arguments, exec, told};
use crate::{
    gateway::Gateway,
    nodes::{
        Nodes,
        for_run::{self, NodeCall, Program},
    },
    runs::RunContext,
};

/// Longest time a command gets, an hour.
const MAX_MS: u64 = 60 * 60 * 1000;
/// What a call may take: a program's time, and people who are asked.
const PATIENCE: Duration = Duration::from_secs(2 * 60 * 60);
/// Pictures above this many bytes are not shown to the model (5 MiB, what providers take).
const IMAGE_BYTES: usize = 5 << 20;

pub struct NodesTool {
    gateway: Arc<Gateway>,
    context: Arc<RunContext>,
    spec: ToolSpec,
}

impl NodesTool {
    pub fn new((gateway, context): (Arc<Gateway>, Arc<RunContext>)) -> Self {
        let spec = ToolSpec {
            name: "nodes".into(),
            description: "The machines and phones that are lent to this gateway. `list` and `describe` tell what is there \
                          and what each can do; `invoke` runs one of a node's commands (such as camera.snap, \
                          screen.snapshot, location.get, device.info, system.which); `notify` shows a notification there; \
                          `run` runs a program there, which its owner may have to allow."
                .into(),
            parameters: json!({
                "type": "object",
                "properties": {
                    "action": {"type": "string", "enum": ["list", "describe", "invoke", "notify", "run"]},
                    "node": {"type": "string", "description": "Name or id; needed for all but list"},
                    "command": {"type": "string", "description": "invoke: the command, as describe lists it"},
                    "params": {"type": "object", "description": "invoke: its parameters"},
                    "title": {"type": "string", "description": "notify"},
                    "body": {"type": "string", "description": "notify"},
                    "argv": {"type": "array", "items": {"type": "string"}, "description": "run: program and arguments"},
                    "cwd": {"type": "string", "description": "run: directory on the node"},
                    "timeoutMs": {"type": "number"},
                },
                "required": ["action"],
            }),
        };
        Self { gateway, context, spec }
    }

    async fn act(&self, call: &Call) -> Result<Answer, Answer> {
        let arguments = Arguments(&call.arguments);
        let (gateway, context) = (&self.gateway, &self.context);
        let node = |find: fn(&Gateway, &RunContext, &str) -> Result<Node, ErrorShape>| {
            find(gateway, context, arguments.needed("node")?).map_err(|error| told(&error))
        };
        let usable = || Ok::<_, Answer>(node(for_run::usable_for_run)?.node_id);
        match arguments.needed("action")? {
            "list" | "status" => {
                let nodes = for_run::list_for_run(gateway, context).map_err(|error| told(&error))?;
                let rows: Vec<Value> = nodes
                    .iter()
                    .map(|node| {
                        json!({
                            "nodeId": node.node_id, "name": node.display_name, "platform": node.platform,
                            "connected": node.connected, "approved": node.approval_state, "commands": node.commands,
                        })
                    })
                    .collect();
                Ok(Answer::text(json!({"nodes": rows}).to_string()))
            }
            "describe" => {
                let described = serde_json::to_value(node(for_run::find_for_run)?).unwrap_or_default();
                Ok(Answer::text(described.to_string()))
            }
            "invoke" => {
                let command = arguments.needed("command")?;
                let params = call.arguments.get("params").cloned().filter(|params| !params.is_null());
                self.invoke(call, &usable()?, command, params.unwrap_or_else(|| json!({}))).await
            }
            "notify" => {
                let (title, body) = (arguments.text("title"), arguments.text("body"));
                if title.is_none() && body.is_none() {
                    return Err(Answer::error("`title` or `body` is missing."));
                }
                let params = json!({"title": title.unwrap_or_default(), "body": body.unwrap_or_default()});
                self.invoke(call, &usable()?, "system.notify", params).await
            }
            "run" => self.run(call, &usable()?).await,
            other => Err(Answer::error(format!("There is no action {other:?}: list, describe, invoke, notify, run."))),
        }
    }

    fn timeout_of(arguments: &Arguments<'_>) -> Option<Duration> {
        arguments.number("timeoutMs", 1, MAX_MS).map(Duration::from_millis)
    }

    async fn invoke(&self, call: &Call, node_id: &str, command: &str, params: Value) -> Result<Answer, Answer> {
        let asked = NodeCall {
            node_id,
            command,
            params,
            tool_call: &call.id,
            timeout: Self::timeout_of(&Arguments(&call.arguments)),
            progress: None,
            cancel: call.cancel.clone(),
        };
        let payload = Nodes::invoke_for_run(&self.gateway, &self.context, asked).await.map_err(|error| told(&error))?;
        Ok(shown(payload))
    }

    async fn run(&self, call: &Call, node_id: &str) -> Result<Answer, Answer> {
        let arguments = Arguments(&call.arguments);
        let words: Option<Vec<String>> =
            call.arguments.get("argv").and_then(|argv| serde_json::from_value(argv.clone()).ok());
        let (argv, raw_command) = match (words.filter(|words| !words.is_empty()), arguments.text("command")) {
            (Some(argv), _) => (argv, None),
            (None, Some(line)) => (vec!["/bin/sh".into(), "-c".into(), line.to_owned()], Some(line.to_owned())),
            (None, None) => return Err(Answer::error("`argv` is missing: the program and its arguments, as texts.")),
        };
        let (pieces, mut output) = mpsc::channel(64);
        let program = Program {
            node_id,
            argv,
            raw_command,
            cwd: arguments.text("cwd").map(str::to_owned),
            env: std::collections::BTreeMap::new(),
            timeout: Self::timeout_of(&arguments),
            always_ask: false,
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
            ran = Nodes::run_program(&self.gateway, &self.context, program) => {
                ran.map(|ran| exec::answer(&ran)).map_err(|error| told(&error))
            }
            () = forward => Err(Answer::error("the node's output ended early")),
        }
    }
}

/// A payload for a model: pictures as pictures, the rest as JSON.
fn shown(mut payload: Value) -> Answer {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let mime = match payload.get("format").and_then(Value::as_str) {
        Some("jpg" | "jpeg") => Some("image/jpeg"),
        Some("png") => Some("image/png"),
        Some("webp") => Some("image/webp"),
        _ => None,
    };
    let data = payload.get("base64").and_then(Value::as_str).map(str::to_owned);
    if let Some(data) = data {
        payload["base64"] = json!(format!("<{} characters>", data.len()));
        let decoded = STANDARD.decode(data.trim()).ok().filter(|bytes| bytes.len() <= IMAGE_BYTES);
        if let (Some(mime), Some(bytes)) = (mime, decoded) {
            let image = Part::Image { mime: mime.to_owned(), data: bytes.into() };
            return Answer { content: vec![Part::Text(payload.to_string()), image], is_error: false, details: None };
        }
    }
    Answer::text(payload.to_string())
}

impl Tool for NodesTool {
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
        Box::pin(async move { self.act(&call).await.unwrap_or_else(|error| error) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_shown_as_pictures() {
        let answer = shown(json!({"format": "jpg", "base64": "aGk=", "width": 3}));
        assert_eq!(answer.content[1], Part::Image { mime: "image/jpeg".into(), data: "hi".into() });
        assert!(matches!(&answer.content[0], Part::Text(text) if text.contains("<4 characters>")));
        assert_eq!(shown(json!({"ok": true})).content, vec![Part::Text("{\"ok\":true}".into())]);
        assert_eq!(shown(json!({"format": "mp4", "base64": "aGk="})).content.len(), 1);
    }
}
