//! `POST /v1/chat/completions`.

use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Asked, Response,
    input::Conversation,
    invalid, run,
    run::{Started, Wanted},
    sse,
};
use crate::{
    clock::now_ms,
    http::reply::json_reply,
    runs::{Authority, RunEvent, RunOutcome},
};

/// A line is written after this long without one.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(15);

/// The body. What is not here is ignored, as OpenAI's other fields are by every such server.
#[derive(Debug, Deserialize)]
pub struct Body {
    #[serde(default)]
    messages: Value,
    model: Option<String>,
    user: Option<String>,
    #[serde(default)]
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    #[serde(default)]
    tools: Value,
    #[serde(default)]
    tool_choice: Value,
    n: Option<u32>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    frequency_penalty: Option<f64>,
    presence_penalty: Option<f64>,
    #[serde(default)]
    stop: Value,
    #[serde(default)]
    max_tokens: Value,
    #[serde(default)]
    max_completion_tokens: Value,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

/// Runs the agent on it.
///
/// # Errors
/// Refusals, as answers.
pub async fn answer(asked: &Asked<'_>, authority: Authority, body: Body) -> Result<Response, Response> {
    check(&body)?;
    let conversation = Conversation::of_chat(&body.messages)?;
    let wanted = Wanted { model: body.model.as_deref(), user: body.user.as_deref(), ..Wanted::default() };
    let started = run::start(asked, authority, conversation, wanted).await?;
    let named = body.model.filter(|model| !model.trim().is_empty()).unwrap_or_else(|| "openclaw".to_owned());
    let reply = Reply { id: format!("chatcmpl_{}", uuid::Uuid::new_v4()), created: now_ms() / 1000, model: named };
    if body.stream != Some(true) {
        return Ok(json_reply(StatusCode::OK, &reply.whole(&*started.ended().await?)));
    }
    let usage = body.stream_options.is_some_and(|options| options.include_usage);
    let (response, stream) = sse::stream();
    asked.gateway.tracker.spawn(write(started, stream, reply, usage));
    Ok(response)
}

/// What can be said to be wrong before anything runs (openai-http-api).
fn check(body: &Body) -> Result<(), Response> {
    let within = |name: &str, value: Option<f64>, low: f64, high: f64| match value {
        Some(value) if !(low..=high).contains(&value) => {
            Err(invalid(&format!("{name}: expected a number from {low} to {high}")))
        }
        _ => Ok(()),
    };
    within("temperature", body.temperature, 0.0, 2.0)?;
    within("top_p", body.top_p, 0.0, 1.0)?;
    within("frequency_penalty", body.frequency_penalty, -2.0, 2.0)?;
    within("presence_penalty", body.presence_penalty, -2.0, 2.0)?;
    for (name, value) in [("max_tokens", &body.max_tokens), ("max_completion_tokens", &body.max_completion_tokens)] {
        if !value.is_null() && !value.as_u64().is_some_and(|tokens| tokens > 0) {
            return Err(invalid(&format!("{name}: expected a positive integer")));
        }
    }
    let texts =
        |list: &Vec<Value>| list.len() <= 4 && list.iter().all(|one| one.as_str().is_some_and(|s| !s.is_empty()));
    if !matches!(&body.stop, Value::Null) && !body.stop.is_string() && !body.stop.as_array().is_some_and(texts) {
        return Err(invalid("stop: expected a string or up to 4 strings"));
    }
    if body.n.is_some_and(|n| n != 1) {
        return Err(invalid("n: one answer is given; send the request again for another"));
    }
    no_client_tools(&body.tools, &body.tool_choice)
}

/// Tools of the client's own.
///
/// # Errors
/// 400 when there are any that should be used.
pub(super) fn no_client_tools(tools: &Value, choice: &Value) -> Result<(), Response> {
    let some = tools.as_array().is_some_and(|tools| !tools.is_empty()) && choice != "none";
    if !tools.is_null() && !tools.is_array() {
        return Err(invalid("tools: expected an array"));
    }
    if some {
        return Err(invalid(
            "tools: this gateway's agent uses its own tools and does not call the client's. Leave out `tools`, or give the \
             agent the tool as an MCP server (mcp.servers in openclaw.json)",
        ));
    }
    Ok(())
}

/// What all pieces of one answer share.
struct Reply {
    id: String,
    /// Seconds since 1970.
    created: i64,
    model: String,
}

impl Reply {
    fn whole(&self, outcome: &RunOutcome) -> Value {
        json!({
            "id": self.id, "object": "chat.completion", "created": self.created, "model": self.model,
            "choices": [{
                "index": 0, "message": {"role": "assistant", "content": outcome.text},
                "finish_reason": finish(outcome),
            }],
            "usage": run::chat_usage(outcome.usage),
        })
    }

    fn chunk(&self, delta: &Value, finish: Option<&str>) -> Value {
        json!({
            "id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.model,
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        })
    }

    fn usage(&self, outcome: &RunOutcome) -> Value {
        json!({
            "id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.model,
            "choices": [], "usage": run::chat_usage(outcome.usage),
        })
    }
}

fn finish(outcome: &RunOutcome) -> &'static str {
    if outcome.stop == "length" { "length" } else { "stop" }
}

/// Text that came and was not written yet, for a reader slower than the model.
#[derive(Debug, Default)]
pub(super) struct Flow {
    pending: String,
    /// Something of the current answer was written.
    written: bool,
}

/// What a step of a run means for a stream.
pub(super) enum Step {
    Going,
    Ended(std::sync::Arc<RunOutcome>),
    /// No honest stream can go on.
    Broken(&'static str),
}

impl Flow {
    pub fn take(&mut self) -> Option<String> {
        if self.pending.is_empty() {
            return None;
        }
        self.written = true;
        Some(std::mem::take(&mut self.pending))
    }

    /// True while something waits to be written.
    pub fn waits(&self) -> bool {
        !self.pending.is_empty()
    }

    pub fn step(&mut self, event: Option<RunEvent>) -> Step {
        match event {
            Some(RunEvent::Text { delta }) => self.pending.push_str(&delta),
            Some(RunEvent::Discarded) if self.written => {
                return Step::Broken("the model broke off and was asked again; what was streamed before is void");
            }
            Some(RunEvent::Discarded) => self.pending.clear(),
            Some(RunEvent::ToolStarted { .. }) => {
                // What was said before a tool call stands.
                self.written = false;
                if self.waits() {
                    self.pending.push_str("\n\n");
                }
            }
            Some(RunEvent::Lagged { .. }) => {
                return Step::Broken("parts of the answer were lost on the way to this stream");
            }
            Some(RunEvent::Ended(outcome)) => return Step::Ended(outcome),
            Some(RunEvent::Thinking { .. } | RunEvent::ToolDone { .. }) => {}
            None => return Step::Broken("the gateway is stopping"),
        }
        Step::Going
    }
}

async fn write(mut started: Started, stream: sse::Stream, reply: Reply, usage: bool) {
    if !stream.data(&reply.chunk(&json!({"role": "assistant", "content": ""}), None)).await {
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
                Step::Broken(why) => break Err(why),
            },
            () = async { match room { Some(room) => room.await, None => std::future::pending().await } } => {
                if let Some(text) = flow.take()
                    && !stream.data(&reply.chunk(&json!({"content": text}), None)).await
                {
                    return;
                }
            }
            () = tokio::time::sleep(KEEPALIVE) => if !stream.alive().await { return },
        }
    };
    started.over();
    if let Some(text) = flow.take() {
        stream.data(&reply.chunk(&json!({"content": text}), None)).await;
    }
    let failure = match &ended {
        Ok(outcome) => run::failure(outcome).map(|(_, message)| message),
        Err(why) => Some((*why).to_owned()),
    };
    match (failure, ended) {
        (None, Ok(outcome)) => {
            stream.data(&reply.chunk(&json!({}), Some(finish(&outcome)))).await;
            if usage {
                stream.data(&reply.usage(&outcome)).await;
            }
        }
        (failure, _) => {
            let message = failure.unwrap_or_default();
            stream.data(&json!({"error": {"message": message, "type": "api_error"}})).await;
        }
    }
    stream.done().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(delta: &str) -> Option<RunEvent> {
        Some(RunEvent::Text { delta: delta.into() })
    }

    #[test]
    fn a_slow_reader_gets_larger_pieces_and_nothing_twice() {
        let mut flow = Flow::default();
        flow.step(text("a"));
        flow.step(text("b"));
        assert_eq!(flow.take().as_deref(), Some("ab"));
        assert_eq!(flow.take(), None);
    }

    #[test]
    fn void_text_is_never_passed_off_as_an_answer() {
        let mut flow = Flow::default();
        flow.step(text("wro"));
        assert!(matches!(flow.step(Some(RunEvent::Discarded)), Step::Going));
        flow.step(text("right"));
        assert_eq!(flow.take().as_deref(), Some("right"));
        assert!(matches!(flow.step(Some(RunEvent::Discarded)), Step::Broken(_)));
    }

    #[test]
    fn odd_settings_are_refused() {
        let check = |body: Value, good: bool| {
            let read: Body = serde_json::from_value(body.clone()).expect("a body");
            assert_eq!(super::check(&read).is_ok(), good, "{body}");
        };
        check(json!({"temperature": 2.0, "top_p": 1, "stop": ["a"], "max_tokens": 5, "n": 1}), true);
        check(json!({"tools": [], "tool_choice": "auto"}), true);
        check(json!({"tools": [{"type": "function"}], "tool_choice": "none"}), true);
        check(json!({"temperature": 2.1}), false);
        check(json!({"stop": ["a", "b", "c", "d", "e"]}), false);
        check(json!({"stop": [""]}), false);
        check(json!({"max_completion_tokens": 0}), false);
        check(json!({"max_tokens": "5"}), false);
        check(json!({"n": 2}), false);
        check(json!({"tools": {}}), false);
        check(json!({"tools": [{"type": "function", "function": {"name": "f"}}]}), false);
    }
}
