//! Messages as they are kept: the wire form of `chat.history`, and the way from and to the agent's own form.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use openclaw_agent::{
    message::{Message, Part, Role, ToolCall, ToolResult},
    provider::{ModelRef, Stop},
    usage::{Price, Usage},
};
use serde_json::{Map, Value, json};

use super::text;
use crate::{clock::now_ms, store::Spent};

/// Largest message that is kept, as JSON: 20 MiB, a little below the largest frame.
pub const MAX_MESSAGE_BYTES: usize = 20 << 20;

/// A message that is about to be appended.
#[derive(Clone, Debug)]
pub struct NewMessage {
    pub(super) role: &'static str,
    pub(super) body: Map<String, Value>,
    pub(super) at_ms: i64,
    pub(super) message_id: Option<String>,
    pub(super) run_id: Option<String>,
    pub(super) idempotency_key: Option<String>,
    /// Goes into `__openclaw` beside id and number.
    pub(super) marks: Map<String, Value>,
    pub(super) spent: Spent,
}

/// What is known of an answer of a model besides its words.
#[derive(Clone, Debug)]
pub struct Answered {
    pub model: ModelRef,
    /// Which API it came over, as `models.providers.<id>.api` names it.
    pub api: Option<String>,
    pub response_model: Option<String>,
    pub response_id: Option<String>,
    pub usage: Usage,
    pub price: Option<Price>,
    pub stop: StopReason,
    /// What went wrong, with [`StopReason::Error`].
    pub error: Option<String>,
}

/// `stopReason` of an assistant message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    Stop,
    ToolUse,
    Length,
    Refusal,
    Error,
    Aborted,
}

impl StopReason {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::ToolUse => "toolUse",
            Self::Length => "length",
            Self::Refusal => "refusal",
            Self::Error => "error",
            Self::Aborted => "aborted",
        }
    }
}

impl From<Stop> for StopReason {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::End => Self::Stop,
            Stop::ToolUse => Self::ToolUse,
            Stop::Length => Self::Length,
            Stop::Refusal => Self::Refusal,
        }
    }
}

impl NewMessage {
    /// What a person said. Text alone stays a string, as the reference keeps it.
    pub fn user(parts: &[Part]) -> Self {
        let content = match parts {
            [Part::Text(text)] => Value::from(text.as_str()),
            parts => Value::from(parts.iter().filter_map(part).collect::<Vec<_>>()),
        };
        Self::of("user", content, Spent { users: 1, ..Spent::default() })
    }

    /// What a model said.
    pub fn assistant(parts: &[Part], answered: &Answered) -> Self {
        let content: Vec<_> = parts.iter().filter_map(part).collect();
        let tools = parts.iter().filter_map(|part| match part {
            Part::ToolCall(call) => Some(call.name.clone()),
            _ => None,
        });
        let cost = answered.price.map(|price| costs(price, answered.usage));
        let spent = Spent {
            provider: answered.model.provider.clone(),
            model: answered.model.model.clone(),
            assistants: 1,
            errors: u32::from(answered.stop == StopReason::Error),
            usage: answered.usage,
            cost,
            tools: tools.collect(),
            ..Spent::default()
        };
        let mut message = Self::of("assistant", Value::from(content), spent);
        let mut put = |key: &str, value: Value| message.body.insert(key.to_owned(), value);
        if let Some(api) = &answered.api {
            put("api", json!(api));
        }
        put("provider", json!(answered.model.provider));
        put("model", json!(answered.model.model));
        put("usage", usage_json(answered.usage, cost));
        put("stopReason", json!(answered.stop.as_str()));
        if let Some(model) = &answered.response_model {
            put("responseModel", json!(model));
        }
        if let Some(id) = &answered.response_id {
            put("responseId", json!(id));
        }
        if let Some(error) = &answered.error {
            put("errorMessage", json!(error));
        }
        message
    }

    /// An answer that no model gave: of a slash command, or of the gateway itself.
    pub fn gateway_reply(text: &str) -> Self {
        let content = json!([{"type": "text", "text": text}]);
        let mut message = Self::of("assistant", content, Spent { assistants: 1, ..Spent::default() });
        for (key, value) in [("provider", "openclaw"), ("model", "gateway-injected"), ("stopReason", "stop")] {
            message.body.insert(key.to_owned(), value.into());
        }
        message.body.insert("usage".into(), usage_json(Usage::default(), Some([0.0; 4])));
        message
    }

    /// What a tool answered. `details` are for programs that show the call.
    pub fn tool_result(result: &ToolResult, details: Option<&Value>) -> Self {
        let content: Vec<_> = result.content.iter().filter_map(part).collect();
        let spent = Spent { tool_results: 1, errors: u32::from(result.is_error), ..Spent::default() };
        let mut message = Self::of("toolResult", Value::from(content), spent);
        message.body.insert("toolCallId".into(), result.call_id.as_str().into());
        message.body.insert("toolName".into(), result.name.as_str().into());
        message.body.insert("isError".into(), result.is_error.into());
        if let Some(details) = details {
            message.body.insert("details".into(), details.clone());
        }
        message
    }

    /// A note for people who read the conversation; models do not see it.
    pub fn system(text: &str) -> Self {
        Self::of("system", json!([{"type": "text", "text": text}]), Spent::default())
    }

    /// A message in wire form, such as one of an import.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_wire(mut body: Map<String, Value>) -> Result<Self, &'static str> {
        let role = match body.get("role").and_then(Value::as_str) {
            Some("user") => "user",
            Some("assistant") => "assistant",
            Some("toolResult") => "toolResult",
            Some("system") => "system",
            _ => return Err("role must be user, assistant, toolResult or system"),
        };
        match body.get("content") {
            Some(Value::String(_)) => {}
            Some(Value::Array(parts)) if parts.iter().all(|part| part.get("type").is_some_and(Value::is_string)) => {}
            _ => return Err("content must be a text, or a list of parts that each have a type"),
        }
        if role == "toolResult" && !body.get("toolCallId").is_some_and(Value::is_string) {
            return Err("a toolResult must have a toolCallId");
        }
        let at_ms = match body.get("timestamp") {
            None => now_ms(),
            Some(at) => at.as_i64().filter(|at| *at >= 0).ok_or("timestamp must be milliseconds since 1970")?,
        };
        let text_of = |body: &Map<String, Value>, key: &str| body.get(key).and_then(Value::as_str).map(str::to_owned);
        let marks = match body.shift_remove("__openclaw") {
            Some(Value::Object(marks)) => marks,
            None => Map::new(),
            Some(_) => return Err("__openclaw must be an object"),
        };
        let spent = spent_of(role, &body);
        let idempotency_key = text_of(&body, "idempotencyKey");
        body.insert("timestamp".into(), at_ms.into());
        let (message_id, run_id) = (text_of(&marks, "id"), text_of(&marks, "runId"));
        let mut message = Self { role, body, at_ms, message_id, run_id, idempotency_key, marks, spent };
        for key in ["id", "seq", "runId", "idempotencyKey", "recordTimestampMs"] {
            message.marks.shift_remove(key);
        }
        Ok(message)
    }

    fn of(role: &'static str, content: Value, spent: Spent) -> Self {
        let at_ms = now_ms();
        let mut body = Map::new();
        body.insert("role".into(), role.into());
        body.insert("content".into(), content);
        body.insert("timestamp".into(), at_ms.into());
        let (message_id, run_id, idempotency_key) = (None, None, None);
        Self { role, body, at_ms, message_id, run_id, idempotency_key, marks: Map::new(), spent }
    }

    /// When it was said; now, unless told.
    pub fn at(mut self, ms: i64) -> Self {
        self.at_ms = ms;
        self.body.insert("timestamp".into(), ms.into());
        self
    }

    /// The run it belongs to.
    pub fn run(mut self, run_id: &str) -> Self {
        self.run_id = Some(run_id.to_owned());
        self
    }

    /// `idempotencyKey`; the reference gives the user's message of a run `<runId>:user`.
    pub fn idempotency(mut self, key: &str) -> Self {
        self.idempotency_key = Some(key.to_owned());
        self.body.insert("idempotencyKey".into(), key.into());
        self
    }

    pub fn id(mut self, id: &str) -> Self {
        self.message_id = Some(id.to_owned());
        self
    }

    /// A key of `__openclaw`, such as `senderIsOwner`.
    pub fn mark(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.marks.insert(key.to_owned(), value.into());
        self
    }

    /// A key of the message itself.
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.body.insert(key.to_owned(), value.into());
        self
    }

    pub fn role(&self) -> &'static str {
        self.role
    }

    /// Its plain text.
    pub fn text(&self) -> String {
        text::plain(&self.body)
    }
}

/// A part in wire form; nested tool results do not occur there.
fn part(part: &Part) -> Option<Value> {
    Some(match part {
        Part::Text(text) => json!({"type": "text", "text": text}),
        Part::Thinking { text, signature: None } => json!({"type": "thinking", "thinking": text}),
        Part::Thinking { text, signature: Some(signature) } => {
            json!({"type": "thinking", "thinking": text, "thinkingSignature": signature})
        }
        Part::Image { mime, data } => json!({"type": "image", "data": STANDARD.encode(data), "mimeType": mime}),
        Part::ToolCall(call) => {
            json!({"type": "toolCall", "id": call.id, "name": call.name, "arguments": call.arguments})
        }
        Part::ToolResult(_) => return None,
    })
}

fn part_of(value: &Value) -> Option<Part> {
    let text = |key: &str| value.get(key)?.as_str().map(str::to_owned);
    Some(match value.get("type")?.as_str()? {
        "text" => Part::Text(text("text")?),
        "thinking" => Part::Thinking { text: text("thinking")?, signature: text("thinkingSignature") },
        "image" => {
            let data = STANDARD.decode(value.get("data")?.as_str()?).ok()?;
            Part::Image { mime: text("mimeType")?, data: data.into() }
        }
        "toolCall" => Part::ToolCall(ToolCall {
            id: text("id")?,
            name: text("name")?,
            arguments: value.get("arguments").cloned().unwrap_or_else(|| json!({})),
        }),
        _ => return None,
    })
}

/// The way back: what models are given. `None` for what they do not see.
pub fn to_agent(body: &Map<String, Value>) -> Option<Message> {
    let content = match body.get("content")? {
        Value::String(text) => vec![Part::Text(text.clone())],
        Value::Array(parts) => parts.iter().filter_map(part_of).collect(),
        _ => return None,
    };
    let text = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    match body.get("role")?.as_str()? {
        "user" => Some(Message { role: Role::User, parts: content }),
        "assistant" => Some(Message { role: Role::Assistant, parts: content }),
        "toolResult" => {
            let result = ToolResult {
                call_id: text("toolCallId"),
                name: text("toolName"),
                content,
                is_error: body.get("isError").and_then(Value::as_bool).unwrap_or_default(),
            };
            Some(Message { role: Role::Tool, parts: vec![Part::ToolResult(result)] })
        }
        _ => None,
    }
}

/// Which model said it.
pub fn model_of(body: &Map<String, Value>) -> Option<ModelRef> {
    let text = |key: &str| body.get(key)?.as_str().map(str::to_owned);
    Some(ModelRef { provider: text("provider")?, model: text("model")? })
}

/// Input, output, cache read, cache write.
fn costs(price: Price, usage: Usage) -> [f64; 4] {
    let only = |usage: Usage| price.cost(usage);
    let none = Usage::default();
    [
        only(Usage { input: usage.input, ..none }),
        only(Usage { output: usage.output, ..none }),
        only(Usage { cache_read: usage.cache_read, ..none }),
        only(Usage { cache_write: usage.cache_write, ..none }),
    ]
}

fn usage_json(usage: Usage, cost: Option<[f64; 4]>) -> Value {
    let mut shown = json!({
        "input": usage.input, "output": usage.output, "cacheRead": usage.cache_read, "cacheWrite": usage.cache_write,
        "totalTokens": usage.total(),
    });
    if let Some([input, output, cache_read, cache_write]) = cost {
        let total = input + output + cache_read + cache_write;
        shown["cost"] = json!({"input": input, "output": output, "cacheRead": cache_read, "cacheWrite": cache_write,
            "total": total});
    }
    shown
}

/// The figures of a message that came in wire form.
fn spent_of(role: &str, body: &Map<String, Value>) -> Spent {
    let text = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let usage = body.get("usage");
    let tokens = |key: &str| usage.and_then(|usage| usage.get(key)?.as_u64()).unwrap_or_default();
    let cost = usage.and_then(|usage| usage.get("cost")).map(|cost| {
        let of = |key: &str| cost.get(key).and_then(Value::as_f64).filter(|c| c.is_finite()).unwrap_or_default();
        [of("input"), of("output"), of("cacheRead"), of("cacheWrite")]
    });
    match role {
        "user" => Spent { users: 1, ..Spent::default() },
        "toolResult" => Spent {
            tool_results: 1,
            errors: u32::from(body.get("isError").is_some_and(|error| error == true)),
            ..Spent::default()
        },
        "assistant" => {
            let parts = body.get("content").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            let calls = parts.iter().filter(|part| part.get("type").is_some_and(|kind| kind == "toolCall"));
            Spent {
                provider: text("provider"),
                model: text("model"),
                assistants: 1,
                errors: u32::from(text("stopReason") == "error"),
                usage: Usage {
                    input: tokens("input"),
                    output: tokens("output"),
                    cache_read: tokens("cacheRead"),
                    cache_write: tokens("cacheWrite"),
                },
                cost,
                tools: calls.filter_map(|call| call.get("name")?.as_str().map(str::to_owned)).collect(),
                ..Spent::default()
            }
        }
        _ => Spent::default(),
    }
}
