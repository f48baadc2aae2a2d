//! OpenAI's Responses API. Nothing is kept over there (`store: false`): every request holds the whole conversation, with the
//! encrypted reasoning the model gave for it.

mod reader;

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value, json};

pub(super) use reader::Reader;

use super::{
    ModelRef,
    client::Prepared,
    completions::arguments,
    history::{self, Content, Reply, Said, Turn},
    http::Outgoing,
    seal::Seal,
};

/// OpenAI's bound on the length of `call_id`.
const CALL_ID_BYTES: usize = 64;

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    instructions: Option<&'a str>,
    input: Vec<Item<'a>>,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    include: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<Reasoning>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_output_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

#[derive(Serialize)]
struct Reasoning {
    effort: String,
    summary: &'static str,
}

#[derive(Serialize)]
struct Tool<'a> {
    r#type: &'static str,
    name: &'a str,
    description: &'a str,
    parameters: Cow<'a, Value>,
    /// The default rewrites schemas: every argument would be required.
    strict: bool,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Item<'a> {
    Message {
        role: &'static str,
        content: Text<'a>,
    },
    Call {
        r#type: &'static str,
        call_id: Cow<'a, str>,
        name: &'a str,
        arguments: String,
    },
    Output {
        r#type: &'static str,
        call_id: Cow<'a, str>,
        output: String,
    },
    /// As it came.
    Reasoning(Value),
}

#[derive(Serialize)]
#[serde(untagged)]
enum Text<'a> {
    One(&'a str),
    Parts(Vec<PartOf<'a>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum PartOf<'a> {
    InputText { text: &'a str },
    InputImage { image_url: String, detail: &'static str },
}

/// The body of a request.
pub(super) fn body(prepared: &Prepared<'_>) -> Bytes {
    let Prepared { request, tuning, .. } = prepared;
    let compat = &tuning.compat;
    let native = prepared.is_openai();
    let system = Some(request.system.as_str()).filter(|system| !system.trim().is_empty());
    let instructions = compat.instructions.unwrap_or(native);
    let mut input = Vec::new();
    if let Some(system) = system.filter(|_| !instructions) {
        input.push(Item::Message { role: "system", content: Text::One(system) });
    }
    let turns = history::turns(&request.messages, request.model.images);
    for turn in &turns {
        match turn {
            Turn::User(contents) => input.push(user(contents)),
            Turn::Assistant(said) => assistant(said, &request.model.reference, &mut input),
            Turn::Results(replies) => results(replies, &mut input),
        }
    }
    let tools = if prepared.takes_tools() { request.tools.as_slice() } else { &[] };
    let tools = tools.iter().map(|tool| Tool {
        r#type: "function",
        name: &tool.name,
        description: &tool.description,
        parameters: compat.parameters(tool),
        strict: false,
    });
    // What is not kept over there has to come back encrypted. Those who imitate the API know neither word.
    let stateless = native && compat.store != Some(true);
    let reasons = request.model.reasoning && compat.reasoning_effort != Some(false);
    let effort = match (reasons, prepared.thinks()) {
        (true, true) => Some(compat.effort(request.thinking, native)),
        // Models whose list has the word can be told not to think.
        (true, false) => {
            compat.efforts.as_ref().filter(|list| list.iter().any(|e| e == "none")).map(|_| "none".to_owned())
        }
        (false, _) => None,
    };
    let body = Body {
        model: &request.model.reference.model,
        instructions: system.filter(|_| instructions),
        input,
        stream: true,
        store: if native { Some(!stateless) } else { None },
        include: if stateless && request.model.reasoning { vec!["reasoning.encrypted_content"] } else { Vec::new() },
        reasoning: effort.map(|effort| Reasoning { effort, summary: "auto" }),
        tools: tools.collect(),
        max_output_tokens: prepared.max_tokens(),
        temperature: prepared.temperature(),
        more: Map::new(),
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

fn user<'a>(contents: &'a [Content<'a>]) -> Item<'a> {
    Item::Message { role: "user", content: Text::Parts(contents.iter().map(part).collect()) }
}

fn part<'a>(content: &'a Content<'a>) -> PartOf<'a> {
    match content {
        Content::Text(text) => PartOf::InputText { text },
        Content::Image { mime, data } => {
            PartOf::InputImage { image_url: format!("data:{mime};base64,{}", STANDARD.encode(data)), detail: "auto" }
        }
    }
}

fn assistant<'a>(said: &[Said<'a>], model: &ModelRef, input: &mut Vec<Item<'a>>) {
    for said in said {
        match said {
            Said::Text(text) => input.push(Item::Message { role: "assistant", content: Text::One(text) }),
            Said::Thinking { signature, .. } => {
                if let Some(Seal::Item(item)) = signature.and_then(|seal| Seal::open(seal, model)) {
                    input.push(Item::Reasoning(item));
                }
            }
            Said::Call(call) => input.push(Item::Call {
                r#type: "function_call",
                call_id: history::call_id(&call.id, CALL_ID_BYTES),
                name: &call.name,
                arguments: arguments(&call.arguments).to_string(),
            }),
        }
    }
}

/// Outputs hold text only at many who imitate this API; images follow as the user's.
fn results<'a>(replies: &'a [Reply<'a>], input: &mut Vec<Item<'a>>) {
    for reply in replies {
        input.push(Item::Output {
            r#type: "function_call_output",
            call_id: history::call_id(reply.call_id, CALL_ID_BYTES),
            output: reply.text(),
        });
    }
    let images = replies.iter().flat_map(|reply| &reply.content).filter(|c| matches!(c, Content::Image { .. }));
    let mut parts: Vec<PartOf<'_>> = images.map(part).collect();
    if !parts.is_empty() {
        parts.insert(0, PartOf::InputText { text: "[Images that the tools gave back]" });
        input.push(Item::Message { role: "user", content: Text::Parts(parts) });
    }
}

/// A reasoning item as it may be sent again: without its state, which is the provider's to set.
fn returnable(item: &Value) -> Option<Value> {
    let encrypted = item.get("encrypted_content").filter(|content| content.is_string())?;
    Some(json!({
        "type": "reasoning",
        "id": item.get("id")?,
        "summary": item.get("summary").cloned().unwrap_or_else(|| json!([])),
        "encrypted_content": encrypted,
    }))
}

#[cfg(test)]
mod tests;
