//! Anthropic's Messages API.

mod reader;

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};

pub(super) use reader::Reader;

use super::{
    ModelRef, Thinking,
    client::Prepared,
    completions::arguments,
    history::{self, Content, Reply, Said, Turn},
    http::Outgoing,
    seal::Seal,
};

/// Far above any id of theirs.
const CALL_ID_BYTES: usize = 64;
/// Of the answer, when nobody knows the model's limit: the API wants a number. Every model since Claude 3.5 can.
const DEFAULT_MAX_TOKENS: u32 = 8_192;
/// What is left for the answer beside thinking.
const ANSWER_TOKENS: u32 = 1_024;

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    max_tokens: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    system: Vec<Block<'a>>,
    messages: Vec<Message<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<ThinkingConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_config: Option<OutputConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: Vec<Block<'a>>,
}

#[derive(Serialize)]
struct Tool<'a> {
    name: &'a str,
    description: &'a str,
    input_schema: Cow<'a, Value>,
}

#[derive(Serialize)]
struct Block<'a> {
    #[serde(flatten)]
    kind: Kind<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<CacheControl>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Kind<'a> {
    Text { text: &'a str },
    Image { source: Source<'a> },
    Thinking { thinking: &'a str, signature: String },
    RedactedThinking { data: String },
    ToolUse { id: Cow<'a, str>, name: &'a str, input: Cow<'a, Value> },
    ToolResult { tool_use_id: Cow<'a, str>, content: Vec<Block<'a>>, is_error: bool },
}

#[derive(Serialize)]
struct Source<'a> {
    r#type: &'static str,
    media_type: &'a str,
    data: String,
}

#[derive(Serialize)]
struct CacheControl {
    r#type: &'static str,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ThinkingConfig {
    Enabled { budget_tokens: u32 },
    Adaptive { display: &'static str },
}

#[derive(Serialize)]
struct OutputConfig {
    effort: String,
}

impl<'a> From<Kind<'a>> for Block<'a> {
    fn from(kind: Kind<'a>) -> Self {
        Self { kind, cache_control: None }
    }
}

/// The body of a request.
pub(super) fn body(prepared: &Prepared<'_>) -> Bytes {
    let Prepared { request, tuning, .. } = prepared;
    let model = &request.model;
    let turns = history::turns(&request.messages, model.images);
    let most = model.max_tokens.unwrap_or(u32::MAX);
    let mut max_tokens = prepared.max_tokens().or(model.max_tokens).unwrap_or(DEFAULT_MAX_TOKENS);
    let (mut thinking, mut output_config) = (None, None);
    if prepared.thinks() {
        if is_adaptive(&model.reference.model) {
            thinking = Some(ThinkingConfig::Adaptive { display: "summarized" });
            output_config = Some(OutputConfig { effort: tuning.compat.effort(request.thinking, true) });
        } else if !resumes_unsigned(&turns, &model.reference) {
            let budget = budget(request.thinking);
            max_tokens = max_tokens.max(budget + ANSWER_TOKENS).min(most);
            let budget = budget.min(max_tokens.saturating_sub(ANSWER_TOKENS));
            // 1,024 is the least the API takes.
            thinking = (budget >= 1_024).then_some(ThinkingConfig::Enabled { budget_tokens: budget });
        }
    }
    let cached = prepared.is_anthropic();
    let mut messages: Vec<Message<'_>> = Vec::new();
    for turn in &turns {
        let (role, content) = match turn {
            Turn::User(contents) => ("user", contents.iter().map(content).collect()),
            Turn::Assistant(said) => ("assistant", assistant(said, &model.reference)),
            Turn::Results(replies) => ("user", replies.iter().map(result).collect::<Vec<_>>()),
        };
        match messages.last_mut() {
            // Results and what the user said next are one turn here.
            Some(last) if last.role == role => last.content.extend(content),
            _ => messages.push(Message { role, content }),
        }
    }
    if cached && let Some(block) = messages.last_mut().and_then(|message| message.content.last_mut()) {
        block.cache_control = Some(CacheControl { r#type: "ephemeral" });
    }
    let system = Some(request.system.as_str()).filter(|system| !system.trim().is_empty());
    let system = system.map(|text| Block {
        kind: Kind::Text { text },
        cache_control: cached.then_some(CacheControl { r#type: "ephemeral" }),
    });
    let tools = if prepared.takes_tools() { request.tools.as_slice() } else { &[] };
    let tools = tools.iter().map(|tool| Tool {
        name: &tool.name,
        description: &tool.description,
        input_schema: tuning.compat.parameters(tool),
    });
    let body = Body {
        model: &model.reference.model,
        max_tokens,
        system: system.into_iter().collect(),
        messages,
        tools: tools.collect(),
        stream: true,
        // Thinking goes with the default temperature only.
        temperature: prepared.temperature().filter(|_| thinking.is_none()),
        thinking,
        output_config,
        more: tuning.extra_body.clone(),
    };
    Outgoing::json(&body)
}

fn content<'a>(content: &'a Content<'a>) -> Block<'a> {
    match content {
        Content::Text(text) => Kind::Text { text }.into(),
        Content::Image { mime, data } => {
            let source = Source { r#type: "base64", media_type: mime, data: STANDARD.encode(data) };
            Kind::Image { source }.into()
        }
    }
}

fn assistant<'a>(said: &[Said<'a>], model: &ModelRef) -> Vec<Block<'a>> {
    let block = |said: &Said<'a>| match said {
        Said::Text(text) => Some(Kind::Text { text }.into()),
        Said::Thinking { text, signature } => match Seal::open((*signature)?, model)? {
            Seal::Signature(signature) => Some(Kind::Thinking { thinking: text, signature }.into()),
            Seal::Redacted(data) => Some(Kind::RedactedThinking { data }.into()),
            Seal::Item(_) | Seal::Details(_) => None,
        },
        Said::Call(call) => Some(
            Kind::ToolUse {
                id: history::call_id(&call.id, CALL_ID_BYTES),
                name: &call.name,
                input: Cow::Owned(arguments(&call.arguments).into_owned()),
            }
            .into(),
        ),
    };
    said.iter().filter_map(block).collect()
}

fn result<'a>(reply: &'a Reply<'a>) -> Block<'a> {
    Kind::ToolResult {
        tool_use_id: history::call_id(reply.call_id, CALL_ID_BYTES),
        content: reply.content.iter().map(content).collect(),
        is_error: reply.is_error,
    }
    .into()
}

/// Tokens for thinking, for models that take a number.
const fn budget(level: Thinking) -> u32 {
    match level {
        Thinking::Off => 0,
        Thinking::Minimal => 1_024,
        Thinking::Low => 2_048,
        Thinking::Medium => 8_192,
        Thinking::High => 16_384,
        Thinking::XHigh | Thinking::Max => 32_768,
    }
}

/// Claude since 4.6 decides itself how long to think and takes an effort; older ones, and those who imitate the API, take a number.
fn is_adaptive(model: &str) -> bool {
    let Some(name) = model.strip_prefix("claude-") else { return false };
    let old = name.starts_with(|c: char| c.is_ascii_digit());
    let (family, version) = name.split_once('-').unwrap_or((name, ""));
    let mut numbers = version.split('-').map_while(|part| part.parse::<u32>().ok());
    let major = numbers.next().unwrap_or_default();
    // `claude-opus-4-20250514` is 4.0: a date is no minor version.
    let minor = numbers.next().filter(|number| *number < 100).unwrap_or_default();
    !old && family != "instant" && (major, minor) >= (4, 6)
}

/// In the middle of tool calls, a thinking model wants its own thoughts in front of them. Where another model made the calls there
/// are none, so this one goes on without thinking until the person speaks again.
fn resumes_unsigned(turns: &[Turn<'_>], model: &ModelRef) -> bool {
    let begun = turns.iter().rposition(|turn| matches!(turn, Turn::User(_))).map_or(0, |at| at + 1);
    turns[begun..].iter().any(|turn| match turn {
        Turn::Assistant(said) => {
            let calls = said.iter().any(|said| matches!(said, Said::Call(_)));
            let signed = said.iter().any(|said| match said {
                Said::Thinking { signature: Some(seal), .. } => Seal::open(seal, model).is_some(),
                _ => false,
            });
            calls && !signed
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests;
