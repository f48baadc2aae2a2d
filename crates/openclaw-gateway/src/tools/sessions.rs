//! `sessions`: other conversations of this gateway.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use openclaw_agent::tool::{Answer, Call, Effects, Tool, ToolSpec};
use openclaw_protocol::Scope;
use serde_json::{Value, json};

use super::{arguments::Arguments, told};
use crate::{
    gateway::Gateway,
    runs::{Input, Origin, RunContext, RunId, RunRequest, Runs, WhenBusy},
    sessions::{SessionKey, read::Window},
};

/// Rows of a list.
const MAX_ROWS: u64 = 100;
/// Bytes of a history.
const HISTORY_BYTES: usize = 200_000;
/// Bytes of one message in it.
const MESSAGE_BYTES: usize = 4_000;

pub struct SessionsTool {
    gateway: Arc<Gateway>,
    context: Arc<RunContext>,
    spec: ToolSpec,
}

impl SessionsTool {
    pub fn new((gateway, context): (Arc<Gateway>, Arc<RunContext>)) -> Self {
        let spec = ToolSpec {
            name: "sessions".into(),
            description:
                "Other conversations of this gateway: `list` them, read the `history` of one, `send` one of them a \
                          message for its agent to work on (it answers there, not here)."
                    .into(),
            parameters: json!({
                "type": "object",
                "properties": {
                    "action": {"type": "string", "enum": ["list", "history", "send"]},
                    "sessionKey": {"type": "string", "description": "history, send: as list shows it"},
                    "message": {"type": "string", "description": "send"},
                    "limit": {"type": "number"},
                },
                "required": ["action"],
            }),
        };
        Self { gateway, context, spec }
    }

    fn key(&self, arguments: &Arguments<'_>) -> Result<SessionKey, Answer> {
        let written = arguments.needed("sessionKey")?;
        let main = &self.gateway.session_defaults.main_key;
        let key = SessionKey::resolve(written, &self.context.agent, main);
        key.map_err(|error| Answer::error(format!("sessionKey {error}.")))
    }

    async fn act(&self, call: &Call) -> Result<Answer, Answer> {
        let arguments = Arguments(&call.arguments);
        let limit = arguments.number("limit", 1, MAX_ROWS).unwrap_or(20);
        let limit = usize::try_from(limit).unwrap_or(20);
        match arguments.needed("action")? {
            "list" => {
                let rows: Vec<Value> = self
                    .gateway
                    .sessions
                    .recent(limit)
                    .iter()
                    .map(|record| {
                        json!({
                            "sessionKey": record.key.as_str(), "title": record.title, "updatedAt": record.updated_ms,
                            "messages": record.last_seq, "last": record.last_message,
                            "running": self.gateway.runs.is_running(&record.key),
                        })
                    })
                    .collect();
                Ok(Answer::text(json!({"sessions": rows}).to_string()))
            }
            "history" => self.history(&self.key(&arguments)?, limit).await,
            "send" => self.send(call, &self.key(&arguments)?, arguments.needed("message")?).await,
            other => Err(Answer::error(format!("There is no action {other:?}: list, history, send."))),
        }
    }

    async fn history(&self, key: &SessionKey, limit: usize) -> Result<Answer, Answer> {
        let record = self.gateway.sessions.get(key);
        let record = record.ok_or_else(|| Answer::error(format!("There is no conversation {key}.")))?;
        let window = Window::Newest { limit, offset: 0 };
        let page = self.gateway.sessions.page(&record.session_id, window, HISTORY_BYTES).await;
        let page = page.map_err(|error| Answer::error(format!("It cannot be read: {error}")))?;
        let rows: Vec<Value> = page
            .messages
            .iter()
            .map(|message| {
                let text = crate::sessions::text::clip(&crate::sessions::text::plain(&message.body), MESSAGE_BYTES);
                json!({"role": message.role, "at": message.at_ms, "text": text})
            })
            .collect();
        Ok(Answer::text(json!({"sessionKey": key.as_str(), "earlier": page.earlier, "messages": rows}).to_string()))
    }

    async fn send(&self, call: &Call, key: &SessionKey, message: &str) -> Result<Answer, Answer> {
        if !self.context.authority.grants(Scope::Write) {
            return Err(Answer::error("Sending needs the right operator.write, which whoever started this has not."));
        }
        if *key == self.context.session {
            return Err(Answer::error("This is that conversation; answer here."));
        }
        let request = RunRequest {
            // One call is one message, also when it is repeated.
            run_id: RunId(format!("{}:{}", self.context.run_id.0, call.id)),
            session: key.clone(),
            input: Input { text: message.to_owned(), media: Vec::new() },
            origin: Origin::Internal("sessions tool"),
            authority: self.context.authority,
            deliver: None,
            model: None,
            thinking: None,
            timeout: None,
            extra_system: Some(format!(
                "This message comes from the agent in the conversation {}, not from a person.",
                self.context.session
            )),
            when_busy: WhenBusy::Followup,
        };
        let sent = Runs::submit(&self.gateway, request).await.map_err(|error| told(&error))?;
        Ok(Answer::text(format!("Sent to {key}; its agent answers there (run {}).", sent.run_id.0)))
    }
}

impl Tool for SessionsTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn effects(&self) -> Effects {
        Effects::Some
    }

    fn call(self: Arc<Self>, call: Call) -> BoxFuture<'static, Answer> {
        Box::pin(async move { self.act(&call).await.unwrap_or_else(|error| error) })
    }
}
