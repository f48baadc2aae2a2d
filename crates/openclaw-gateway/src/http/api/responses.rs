//! `POST /v1/responses`.

use http::StatusCode;
use openclaw_agent::provider::Thinking;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Asked, Response,
    chat::{Flow, KEEPALIVE, Step, no_client_tools},
    input::Conversation,
    run,
    run::{Started, Wanted},
    sse,
};
use crate::{
    clock::now_ms,
    http::reply::json_reply,
    runs::{Authority, RunOutcome},
};

/// The body; what is not here is ignored.
#[derive(Debug, Deserialize)]
pub struct Body {
    #[serde(default)]
    input: Value,
    instructions: Option<String>,
    model: Option<String>,
    user: Option<String>,
    previous_response_id: Option<String>,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    tools: Value,
    #[serde(default)]
    tool_choice: Value,
    reasoning: Option<Reasoning>,
}

#[derive(Debug, Deserialize)]
struct Reasoning {
    effort: Option<String>,
}

impl Body {
    fn thinking(&self) -> Option<Thinking> {
        match self.reasoning.as_ref()?.effort.as_deref()? {
            "none" => Some(Thinking::Off),
            "minimal" => Some(Thinking::Minimal),
            "low" => Some(Thinking::Low),
            "medium" => Some(Thinking::Medium),
            "high" | "xhigh" => Some(Thinking::High),
            _ => None,
        }
    }
}

/// Runs the agent on it.
///
/// # Errors
/// Refusals, as answers.
pub async fn answer(asked: &Asked<'_>, authority: Authority, body: Body) -> Result<Response, Response> {
    no_client_tools(&body.tools, &body.tool_choice)?;
    let conversation = Conversation::of_responses(&body.input, body.instructions.as_deref())?;
    let wanted = Wanted {
        model: body.model.as_deref(),
        user: body.user.as_deref(),
        previous_response: body.previous_response_id.as_deref(),
        thinking: body.thinking(),
    };
    let started = run::start(asked, authority, conversation, wanted).await?;
    let reply = Reply {
        id: format!("resp_{}", uuid::Uuid::new_v4()),
        item: format!("msg_{}", uuid::Uuid::new_v4()),
        created_at: now_ms() / 1000,
        model: body.model.filter(|model| !model.trim().is_empty()).unwrap_or_else(|| "openclaw".to_owned()),
    };
    asked.gateway.http.remember(&reply.id, started.session.clone());
    if body.stream == Some(true) {
        let (response, stream) = sse::stream();
        asked.gateway.tracker.spawn(write(started, stream, reply));
        return Ok(response);
    }
    Ok(json_reply(StatusCode::OK, &reply.ended(&*started.ended().await?)))
}

/// What all events of one answer share.
struct Reply {
    id: String,
    item: String,
    /// Seconds since 1970.
    created_at: i64,
    model: String,
}

impl Reply {
    fn response(&self, status: &str, output: Value) -> Value {
        json!({
            "id": self.id, "object": "response", "created_at": self.created_at, "status": status, "model": self.model,
            "output": output, "error": null, "incomplete_details": null, "instructions": null, "metadata": {},
            "parallel_tool_calls": true, "temperature": null, "tool_choice": "auto", "tools": [], "top_p": null,
            "usage": null,
        })
    }

    fn message(&self, text: &str, status: &str) -> Value {
        json!({
            "type": "message", "id": self.item, "role": "assistant", "status": status, "phase": "final_answer",
            "content": [part(text)],
        })
    }

    fn ended(&self, outcome: &RunOutcome) -> Value {
        let (status, text) = (status(outcome), outcome.text.as_str());
        let mut response = self.response(status, json!([self.message(text, status)]));
        if status == "incomplete" {
            response["incomplete_details"] = json!({"reason": "max_output_tokens"});
        }
        response["usage"] = usage(outcome);
        response
    }

    fn failed(&self, message: &str) -> Value {
        let mut response = self.response("failed", json!([]));
        response["error"] = json!({"code": "api_error", "message": message});
        response
    }
}

fn part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": []})
}

fn status(outcome: &RunOutcome) -> &'static str {
    if outcome.stop == "length" { "incomplete" } else { "completed" }
}

fn usage(outcome: &RunOutcome) -> Value {
    let input = outcome.usage.input + outcome.usage.cache_read + outcome.usage.cache_write;
    json!({
        "input_tokens": input, "output_tokens": outcome.usage.output, "total_tokens": input + outcome.usage.output,
        "input_tokens_details": {"cached_tokens": outcome.usage.cache_read},
        "output_tokens_details": {"reasoning_tokens": 0},
    })
}

/// The events of a stream, numbered.
struct Events {
    stream: sse::Stream,
    next: u64,
}

impl Events {
    async fn send(&mut self, name: &str, mut fields: Value) -> bool {
        fields["type"] = json!(name);
        fields["sequence_number"] = json!(self.next);
        self.next += 1;
        self.stream.event(name, &fields).await
    }

    async fn delta(&mut self, reply: &Reply, text: &str) -> bool {
        let place =
            json!({"item_id": reply.item, "output_index": 0, "content_index": 0, "delta": text, "logprobs": []});
        self.send("response.output_text.delta", place).await
    }
}

async fn write(mut started: Started, stream: sse::Stream, reply: Reply) {
    let gone = stream.writer.gone.clone();
    let mut events = Events { stream: stream.clone(), next: 0 };
    let begun = reply.response("in_progress", json!([]));
    let empty = json!({
        "type": "message", "id": reply.item, "role": "assistant", "status": "in_progress", "content": [],
    });
    let place = || json!({"item_id": reply.item, "output_index": 0, "content_index": 0});
    events.send("response.created", json!({"response": begun})).await;
    events.send("response.in_progress", json!({"response": begun})).await;
    events.send("response.output_item.added", json!({"output_index": 0, "item": empty})).await;
    let mut added = place();
    added["part"] = part("");
    if !events.send("response.content_part.added", added).await {
        return;
    }
    let (mut flow, mut said) = (Flow::default(), String::new());
    let ended = loop {
        let room = flow.waits().then(|| stream.writer.room());
        tokio::select! {
            biased;
            () = gone.cancelled() => return,
            event = started.watch.next() => match flow.step(event) {
                Step::Going => {}
                Step::Ended(outcome) => break Ok(outcome),
                Step::Broken(why) => break Err(why.to_owned()),
            },
            () = async { match room { Some(room) => room.await, None => std::future::pending().await } } => {
                if let Some(text) = flow.take() {
                    said.push_str(&text);
                    if !events.delta(&reply, &text).await {
                        return;
                    }
                }
            }
            () = tokio::time::sleep(KEEPALIVE) => if !stream.alive().await { return },
        }
    };
    started.over();
    if let Some(text) = flow.take() {
        said.push_str(&text);
        events.delta(&reply, &text).await;
    }
    let ended = ended.and_then(|outcome| match run::failure(&outcome) {
        Some((_, message)) => Err(message),
        None => Ok(outcome),
    });
    match ended {
        Ok(outcome) => {
            let status = status(&outcome);
            // The item is what was streamed: words before a tool call belong to it.
            let item = reply.message(&said, status);
            let mut done = place();
            (done["text"], done["logprobs"]) = (json!(said), json!([]));
            events.send("response.output_text.done", done).await;
            let mut done = place();
            done["part"] = part(&said);
            events.send("response.content_part.done", done).await;
            events.send("response.output_item.done", json!({"output_index": 0, "item": item})).await;
            let mut response = reply.ended(&outcome);
            response["output"] = json!([item]);
            let name = if status == "incomplete" { "response.incomplete" } else { "response.completed" };
            events.send(name, json!({"response": response})).await;
        }
        Err(message) => {
            events.send("response.failed", json!({"response": reply.failed(&message)})).await;
        }
    }
    stream.done().await;
}
