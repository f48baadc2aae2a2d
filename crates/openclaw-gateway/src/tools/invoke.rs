//! One tool, without a model: `tools.invoke`, `POST /tools/invoke`, and what lists of tools are made from.

use std::sync::Arc;

use openclaw_agent::{
    message::Part,
    provider::ModelRef,
    tool::{Answer, Call, Tool},
};
use openclaw_protocol::ErrorShape;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::policy;
use crate::{
    gateway::Gateway,
    runs::{Authority, Origin, RunContext, RunId},
    sessions::SessionKey,
};

/// Who wants a tool run, and where it belongs.
pub struct Wanted {
    pub session: SessionKey,
    pub authority: Authority,
    pub origin: Origin,
    /// The same key is the same call, for tools that know calls apart.
    pub key: Option<String>,
}

/// What a call would act as.
///
/// # Errors
/// `INVALID_REQUEST` for an agent that is not there.
pub fn context(gateway: &Gateway, wanted: Wanted) -> Result<(Arc<RunContext>, ModelRef), ErrorShape> {
    let agent = wanted.session.agent().to_owned();
    let settings = gateway.runs.settings(gateway);
    let known = settings.agent(&agent).ok_or_else(|| crate::runs::unknown_agent(&agent))?;
    let record = gateway.sessions.get(&wanted.session);
    let none = ModelRef { provider: String::new(), model: String::new() };
    let model = gateway.runs.models().catalog().agent_model(&agent).unwrap_or(none);
    let context = RunContext {
        run_id: RunId(wanted.key.unwrap_or_else(|| uuid::Uuid::new_v4().to_string())),
        session_id: record.map(|record| record.session_id.to_string()).unwrap_or_default(),
        session: wanted.session,
        workspace: known.workspace.clone(),
        agent,
        authority: wanted.authority,
        origin: wanted.origin,
        deliver: None,
    };
    Ok((Arc::new(context), model))
}

/// The tools a run with this context would have.
pub async fn available(gateway: &Arc<Gateway>, context: &Arc<RunContext>, model: &ModelRef) -> Vec<Arc<dyn Tool>> {
    let mut offered = Vec::new();
    for source in gateway.runs.sources() {
        offered.extend(source.tools(gateway, context).await);
    }
    match policy::permitted(gateway, context, model, offered, is_plugin) {
        Ok(tools) => tools,
        Err(starved) => {
            tracing::warn!("{starved}");
            Vec::new()
        }
    }
}

/// Tools of MCP servers have the server's name before their own.
pub fn is_plugin(name: &str) -> bool {
    name.contains("__")
}

/// Runs one tool. `None` when there is no such tool for this caller.
pub async fn run(
    gateway: &Arc<Gateway>,
    context: &Arc<RunContext>,
    model: &ModelRef,
    name: &str,
    arguments: Value,
    cancel: CancellationToken,
) -> Option<Answer> {
    let tools = available(gateway, context, model).await;
    let tool = tools.into_iter().find(|tool| tool.spec().name == name)?;
    let (progress, mut unread) = mpsc::channel(1);
    let call = Call { id: context.run_id.0.clone(), arguments, cancel, progress };
    let timeout = tool.timeout();
    let answer = async {
        tokio::select! {
            answer = tool.call(call) => answer,
            () = async { while unread.recv().await.is_some() {} std::future::pending().await } => {
                Answer::error("the tool was dropped")
            }
        }
    };
    let late = |_| Answer::error(format!("it took longer than {} s", timeout.as_secs()));
    Some(tokio::time::timeout(timeout, answer).await.unwrap_or_else(late))
}

/// An answer as programs get it.
pub fn output(answer: &Answer) -> Value {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let part = |part: &Part| match part {
        Part::Text(text) => Some(json!({"type": "text", "text": text})),
        Part::Image { mime, data } => Some(json!({"type": "image", "mimeType": mime, "data": STANDARD.encode(data)})),
        _ => None,
    };
    let content: Vec<Value> = answer.content.iter().filter_map(part).collect();
    let mut output = json!({"content": content});
    if let Some(details) = &answer.details {
        output["details"] = details.clone();
    }
    output
}

/// What an answer says, in one text.
pub fn text(answer: &Answer) -> String {
    let texts = answer.content.iter().filter_map(|part| match part {
        Part::Text(text) => Some(text.as_str()),
        _ => None,
    });
    texts.collect::<Vec<_>>().join("\n")
}
