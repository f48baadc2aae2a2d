//! OpenAI's chat completions, as OpenAI and the many who imitate it speak them (OpenRouter, vLLM, llama.cpp, Ollama, …).

mod reader;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value, json};

pub(super) use reader::{Reader, place};

use super::{
    ModelRef,
    client::Prepared,
    history::{self, Content, Reply, Said, Turn},
    http::Outgoing,
    seal::Seal,
};

/// OpenAI's bound on the length of a tool call's id.
const CALL_ID_BYTES: usize = 40;

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: Vec<Message<'a>>,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Serialize)]
struct Tool<'a> {
    r#type: &'static str,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    description: &'a str,
    parameters: std::borrow::Cow<'a, Value>,
}

#[derive(Serialize, Default)]
struct Message<'a> {
    role: &'static str,
    /// Null only beside tool calls.
    content: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_details: Option<Vec<Value>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<std::borrow::Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Text<'a> {
    One(String),
    Parts(Vec<PartOf<'a>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum PartOf<'a> {
    Text { text: &'a str },
    ImageUrl { image_url: ImageUrl },
}

#[derive(Serialize)]
struct ImageUrl {
    url: String,
}

#[derive(Serialize)]
struct Call<'a> {
    id: std::borrow::Cow<'a, str>,
    r#type: &'static str,
    function: Called<'a>,
}

#[derive(Serialize)]
struct Called<'a> {
    name: &'a str,
    /// JSON as text.
    arguments: String,
}

/// The body of a request.
pub(super) fn body(prepared: &Prepared<'_>) -> Bytes {
    let Prepared { request, tuning, .. } = prepared;
    let compat = &tuning.compat;
    let mut messages = Vec::new();
    if !request.system.trim().is_empty() {
        messages.push(Message {
            role: "system",
            content: Some(Text::One(request.system.clone())),
            ..Message::default()
        });
    }
    let turns = history::turns(&request.messages, request.model.images);
    let last_user = turns.iter().rposition(|turn| matches!(turn, Turn::User(_))).unwrap_or_default();
    for (at, turn) in turns.iter().enumerate() {
        match turn {
            Turn::User(contents) => messages.push(user(contents, compat.string_content)),
            // Thoughts go back within the turn that is under way only; older ones are a burden.
            Turn::Assistant(said) => {
                messages.push(assistant(said, &request.model.reference, compat.reasoning_content && at > last_user));
            }
            Turn::Results(replies) => results(replies, compat, &mut messages),
        }
    }
    let tools = if prepared.takes_tools() { request.tools.as_slice() } else { &[] };
    let tools = tools.iter().map(|tool| Tool {
        r#type: "function",
        function: Function { name: &tool.name, description: &tool.description, parameters: compat.parameters(tool) },
    });
    let usage = compat.usage_in_streaming != Some(false);
    let body = Body {
        model: &request.model.reference.model,
        messages,
        stream: true,
        stream_options: usage.then_some(StreamOptions { include_usage: true }),
        tools: tools.collect(),
        temperature: prepared.temperature(),
        more: more(prepared),
    };
    if tuning.extra_body.is_empty() {
        return Outgoing::json(&body);
    }
    let mut body = serde_json::to_value(&body).unwrap_or_default();
    if let Some(object) = body.as_object_mut() {
        object.extend(tuning.extra_body.clone());
    }
    Outgoing::json(&body)
}

/// Limits and thinking, in whichever dialect the endpoint has.
fn more(prepared: &Prepared<'_>) -> Map<String, Value> {
    let Prepared { request, endpoint, tuning } = prepared;
    let compat = &tuning.compat;
    let mut more = Map::new();
    if let Some(max) = prepared.max_tokens() {
        let field = compat.max_tokens_field.as_deref();
        let field = field.unwrap_or(if prepared.is_openai() { "max_completion_tokens" } else { "max_tokens" });
        more.insert(field.to_owned(), json!(max));
    }
    let mut template = tuning.chat_template_kwargs.clone();
    let thinks = prepared.thinks();
    let openrouter = endpoint.base.is_host("openrouter.ai");
    let format = compat.thinking_format.as_deref().unwrap_or(if openrouter { "openrouter" } else { "openai" });
    let effort = || compat.effort(request.thinking, prepared.is_openai());
    if request.model.reasoning {
        match format {
            "qwen" => drop(more.insert("enable_thinking".to_owned(), json!(thinks))),
            "qwen-chat-template" => drop(template.entry("enable_thinking").or_insert(json!(thinks))),
            "zai" | "deepseek" => {
                let state = if thinks { "enabled" } else { "disabled" };
                more.insert("thinking".to_owned(), json!({"type": state}));
            }
            "together" => drop(more.insert("reasoning".to_owned(), json!({"enabled": thinks}))),
            "openrouter" if thinks => drop(more.insert("reasoning".to_owned(), json!({"effort": effort()}))),
            "openrouter" => {}
            _ if thinks && compat.reasoning_effort != Some(false) => {
                more.insert("reasoning_effort".to_owned(), json!(effort()));
            }
            _ => {}
        }
    }
    if !template.is_empty() {
        more.insert("chat_template_kwargs".to_owned(), Value::Object(template));
    }
    more
}

fn user<'a>(contents: &'a [Content<'a>], string_only: bool) -> Message<'a> {
    let plain = contents.iter().all(|content| matches!(content, Content::Text(_)));
    let content = if plain || string_only {
        let texts = contents.iter().map(|content| match content {
            Content::Text(text) => text.as_ref(),
            Content::Image { .. } => "[There was an image here. This endpoint takes text only.]",
        });
        Text::One(texts.collect::<Vec<_>>().join("\n"))
    } else {
        Text::Parts(contents.iter().map(part).collect())
    };
    Message { role: "user", content: Some(content), ..Message::default() }
}

fn part<'a>(content: &'a Content<'a>) -> PartOf<'a> {
    match content {
        Content::Text(text) => PartOf::Text { text },
        Content::Image { mime, data } => {
            PartOf::ImageUrl { image_url: ImageUrl { url: format!("data:{mime};base64,{}", STANDARD.encode(data)) } }
        }
    }
}

fn assistant<'a>(said: &[Said<'a>], model: &ModelRef, with_thoughts: bool) -> Message<'a> {
    let (mut text, mut thoughts, mut details, mut tool_calls) = (String::new(), String::new(), Vec::new(), Vec::new());
    for said in said {
        match said {
            Said::Text(more) => text.push_str(more),
            Said::Thinking { text: more, signature } => {
                thoughts.push_str(more);
                if let Some(Seal::Details(more)) = signature.and_then(|seal| Seal::open(seal, model)) {
                    details.extend(more);
                }
            }
            Said::Call(call) => tool_calls.push(Call {
                id: history::call_id(&call.id, CALL_ID_BYTES),
                r#type: "function",
                function: Called { name: &call.name, arguments: arguments(&call.arguments).to_string() },
            }),
        }
    }
    Message {
        role: "assistant",
        content: (!text.is_empty() || tool_calls.is_empty()).then_some(Text::One(text)),
        reasoning_content: with_thoughts.then_some(thoughts),
        reasoning_details: (!details.is_empty()).then_some(details),
        tool_calls,
        ..Message::default()
    }
}

/// The arguments of a call as an object, which is what chat templates and other providers can read again; a model that wrote
/// something else has had its error as the tool's answer.
pub(super) fn arguments(arguments: &Value) -> std::borrow::Cow<'_, Value> {
    if arguments.is_object() {
        std::borrow::Cow::Borrowed(arguments)
    } else {
        std::borrow::Cow::Owned(json!({"unreadable": arguments}))
    }
}

/// Results hold text only in this API; images follow as the user's.
fn results<'a>(replies: &'a [Reply<'a>], compat: &super::tuning::Compat, messages: &mut Vec<Message<'a>>) {
    for reply in replies {
        messages.push(Message {
            role: "tool",
            content: Some(Text::One(reply.text())),
            tool_call_id: Some(history::call_id(reply.call_id, CALL_ID_BYTES)),
            name: compat.tool_result_name.then_some(reply.name),
            ..Message::default()
        });
    }
    let images = replies.iter().flat_map(|reply| &reply.content).filter(|c| matches!(c, Content::Image { .. }));
    let mut parts: Vec<PartOf<'_>> = images.map(part).collect();
    if !parts.is_empty() && !compat.string_content {
        parts.insert(0, PartOf::Text { text: "[Images that the tools gave back]" });
        messages.push(Message { role: "user", content: Some(Text::Parts(parts)), ..Message::default() });
    }
}

#[cfg(test)]
mod tests;
