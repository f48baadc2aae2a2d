//! `POST /v1/messages`: the same agents for programs that speak Anthropic's API. An addition of ours; it is on with chat
//! completions.

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Asked, Response,
    chat::{Flow, KEEPALIVE, Step, no_client_tools},
    input::Conversation,
    invalid, run,
    run::{Started, Wanted},
    sse,
};
use crate::{
    http::reply::json_reply,
    runs::{Authority, RunOutcome},
};

/// The body; what is not here is ignored.
#[derive(Debug, Deserialize)]
pub struct Body {
    model: Option<String>,
    #[serde(default)]
    messages: Value,
    #[serde(default)]
    system: Value,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    tools: Value,
    #[serde(default)]
    tool_choice: Value,
    #[serde(default)]
    max_tokens: Value,
    metadata: Option<Metadata>,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    user_id: Option<String>,
}

/// Runs the agent on it.
///
/// # Errors
/// Refusals, as answers.
pub async fn answer(asked: &Asked<'_>, authority: Authority, body: Body) -> Result<Response, Response> {
    if !body.max_tokens.as_u64().is_some_and(|tokens| tokens > 0) {
        return Err(invalid("max_tokens: expected a positive integer"));
    }
    let choice = body.tool_choice.get("type").cloned().unwrap_or_default();
    no_client_tools(&body.tools, &choice)?;
    let mut conversation = Conversation::of_chat(&as_chat(&body.messages)?)?;
    conversation.system.splice(0..0, system(&body.system)?);
    let user = body.metadata.and_then(|metadata| metadata.user_id);
    let wanted = Wanted { model: body.model.as_deref(), user: user.as_deref(), ..Wanted::default() };
    let started = run::start(asked, authority, conversation, wanted).await?;
    let reply = Reply {
        id: format!("msg_{}", uuid::Uuid::new_v4().simple()),
        model: body.model.unwrap_or_else(|| "openclaw".to_owned()),
    };
    if body.stream == Some(true) {
        let (response, stream) = sse::stream();
        asked.gateway.tracker.spawn(write(started, stream, reply));
        return Ok(response);
    }
    Ok(json_reply(StatusCode::OK, &reply.whole(&*started.ended().await?)))
}

/// Anthropic's envelope around an error of this API.
pub fn error(status: StatusCode, message: &str) -> Response {
    let kind = match status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::NOT_FOUND => "not_found_error",
        StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        status if status.is_client_error() => "invalid_request_error",
        _ => "api_error",
    };
    json_reply(status, &json!({"type": "error", "error": {"type": kind, "message": message}}))
}

/// `system` is a text or text blocks.
fn system(system: &Value) -> Result<Vec<String>, Response> {
    match system {
        Value::Null => Ok(Vec::new()),
        Value::String(text) => Ok(vec![text.clone()]),
        Value::Array(blocks) => {
            let text = |block: &Value| block.get("text")?.as_str().map(str::to_owned);
            Ok(blocks.iter().filter_map(text).collect())
        }
        _ => Err(invalid("system: expected a string or an array of text blocks")),
    }
}

/// Blocks under the names the other API has for them.
fn as_chat(messages: &Value) -> Result<Value, Response> {
    let messages = messages.as_array().ok_or_else(|| invalid("messages: expected an array"))?;
    let mut chat = Vec::new();
    for message in messages {
        let role = message.get("role").cloned().unwrap_or_default();
        if !matches!(role.as_str(), Some("user" | "assistant")) {
            return Err(invalid("messages: role is \"user\" or \"assistant\""));
        }
        let content = message.get("content").cloned().unwrap_or_default();
        let Value::Array(blocks) = content else {
            chat.push(json!({"role": role, "content": content}));
            continue;
        };
        let mut parts = Vec::new();
        for block in blocks {
            match block.get("type").and_then(Value::as_str) {
                Some("image") => parts.push(json!({"type": "input_image", "source": block.get("source")})),
                Some("document") => parts.push(json!({
                    "type": "input_file", "filename": block.get("title"), "source": text_source(block.get("source")),
                })),
                Some("tool_use" | "thinking" | "redacted_thinking") => {}
                _ => parts.push(block),
            }
        }
        if !parts.is_empty() {
            chat.push(json!({"role": role, "content": parts}));
        }
    }
    Ok(Value::Array(chat))
}

/// Documents may hold their text as it is.
fn text_source(source: Option<&Value>) -> Value {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let mut source = source.cloned().unwrap_or_default();
    if source.get("type").and_then(Value::as_str) == Some("text")
        && let Some(text) = source.get("data").and_then(Value::as_str)
    {
        source["data"] = json!(STANDARD.encode(text));
    }
    source
}

/// What all events of one answer share.
struct Reply {
    id: String,
    model: String,
}

impl Reply {
    fn message(&self, content: Value, stop: Option<&str>, usage: Value) -> Value {
        json!({
            "id": self.id, "type": "message", "role": "assistant", "model": self.model, "content": content,
            "stop_reason": stop, "stop_sequence": null, "usage": usage,
        })
    }

    fn whole(&self, outcome: &RunOutcome) -> Value {
        let content = json!([{"type": "text", "text": outcome.text}]);
        self.message(content, Some(stop(outcome)), usage(outcome))
    }
}

fn stop(outcome: &RunOutcome) -> &'static str {
    if outcome.stop == "length" { "max_tokens" } else { "end_turn" }
}

fn usage(outcome: &RunOutcome) -> Value {
    json!({
        "input_tokens": outcome.usage.input, "output_tokens": outcome.usage.output,
        "cache_read_input_tokens": outcome.usage.cache_read, "cache_creation_input_tokens": outcome.usage.cache_write,
    })
}

async fn write(mut started: Started, stream: sse::Stream, reply: Reply) {
    let send = async |name: &str, mut fields: Value| {
        fields["type"] = json!(name);
        stream.event(name, &fields).await
    };
    let delta = async |text: String| {
        send("content_block_delta", json!({"index": 0, "delta": {"type": "text_delta", "text": text}})).await
    };
    let begun = reply.message(json!([]), None, json!({"input_tokens": 0, "output_tokens": 0}));
    send("message_start", json!({"message": begun})).await;
    if !send("content_block_start", json!({"index": 0, "content_block": {"type": "text", "text": ""}})).await {
        return;
    }
    let mut flow = Flow::default();
    let ended = loop {
        let room = flow.waits().then(|| stream.writer.room());
        tokio::select! {
            biased;
            () = stream.writer.gone.cancelled() => return,
            event = started.watch.next() => match flow.step(event) {
                Step::Going => {}
                Step::Ended(outcome) => break Ok(outcome),
                Step::Broken(why) => break Err(why.to_owned()),
            },
            () = async { match room { Some(room) => room.await, None => std::future::pending().await } } => {
                if let Some(text) = flow.take() && !delta(text).await {
                    return;
                }
            }
            () = tokio::time::sleep(KEEPALIVE) => if !send("ping", json!({})).await { return },
        }
    };
    started.over();
    if let Some(text) = flow.take() {
        delta(text).await;
    }
    let ended = ended.and_then(|outcome| match run::failure(&outcome) {
        Some((_, message)) => Err(message),
        None => Ok(outcome),
    });
    match ended {
        Ok(outcome) => {
            send("content_block_stop", json!({"index": 0})).await;
            let delta = json!({"stop_reason": stop(&outcome), "stop_sequence": null});
            send("message_delta", json!({"delta": delta, "usage": usage(&outcome)})).await;
            send("message_stop", json!({})).await;
        }
        Err(message) => {
            send("error", json!({"error": {"type": "api_error", "message": message}})).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_mean_the_same() {
        let read =
            |messages: Value| Conversation::of_chat(&as_chat(&messages).expect("messages")).expect("a conversation");
        let read = read(json!([
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "…"}, {"type": "text", "text": "Hello."}]},
            {"role": "user", "content": [{"type": "text", "text": "this?"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
                {"type": "document", "title": "n", "source": {"type": "text", "media_type": "text/plain", "data": "body"}}]},
        ]));
        assert_eq!(read.text, "this?");
        assert_eq!(read.earlier.len(), 2);
        assert_eq!(read.media.len(), 1);
        assert!(read.system[0].contains("\nbody\n"));
        assert!(as_chat(&json!([{"role": "system", "content": "x"}])).is_err());
        assert_eq!(system(&json!([{"type": "text", "text": "a"}])).expect("texts"), ["a"]);
    }
}
