//! Replies in the formats of the three APIs, as their documentation and their client libraries have them.

use serde_json::{Value, json};

use super::{
    ask::{Api, Ask},
    reply::{Fault, Part, Reply, Stop},
};

/// One server-sent event.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Frame {
    /// `event:`; completions have none.
    pub name: Option<&'static str>,
    pub data: String,
}

/// Prompt tokens not from a cache, answer tokens.
fn tokens(ask: &Ask, reply: &Reply) -> (u64, u64) {
    let said = |part: &Part| match part {
        Part::Text(text) | Part::Thinking(text) | Part::Refusal(text) | Part::Call(_, _, text) => text.len(),
    };
    let guess = |bytes: usize| (bytes as u64).div_ceil(4);
    let prompt: usize = ask.messages.iter().map(|(_, text)| text.len()).sum::<usize>() + ask.system.len();
    reply.usage.unwrap_or_else(|| (guess(prompt), guess(reply.parts.iter().map(said).sum())))
}

/// Ids made from how often it was asked, so that they are unique in a conversation.
pub(super) struct Ids {
    pub ask: usize,
}

impl Ids {
    fn call(&self, given: Option<&String>, api: Api, at: usize) -> String {
        let prefix = if api == Api::Messages { "toolu_" } else { "call_" };
        given.cloned().unwrap_or_else(|| format!("{prefix}{:04}_{at}", self.ask))
    }

    fn of(&self, prefix: &str) -> String {
        format!("{prefix}{:08x}", self.ask)
    }
}

/// All events of a streamed answer. The last one is the API's end, the one before (or the same) has the reason to stop.
pub(super) fn frames(ask: &Ask, reply: &Reply, ids: &Ids) -> Vec<Frame> {
    let mut frames = match ask.api {
        Api::Completions => completions(ask, reply, ids),
        Api::Responses => responses(ask, reply, ids),
        Api::Messages => messages(ask, reply, ids),
    };
    match &reply.fault {
        Some(Fault::NoEnd | Fault::LingerAfterEnd) => drop(frames.pop()),
        Some(Fault::NoStop) => {
            let stops = |frame: &Frame| {
                let data: Value = serde_json::from_str(&frame.data).unwrap_or_default();
                data["choices"][0]["finish_reason"].is_string()
                    || matches!(data["type"].as_str(), Some("message_delta" | "message_stop" | "response.completed"))
            };
            frames.retain(|frame| frame.data != "[DONE]" && !stops(frame));
        }
        Some(Fault::GarbageAfter(after)) => {
            frames.truncate(*after);
            frames.push(Frame { name: None, data: "{\"choices\":[{\"delta\":<html>".to_owned() });
        }
        Some(Fault::ErrorAfter(after, kind, message)) => {
            frames.truncate(*after);
            frames.push(error(ask.api, kind, message));
        }
        Some(Fault::HugeLine(bytes)) => {
            frames.truncate(1);
            frames.push(Frame { name: None, data: "x".repeat(*bytes) });
        }
        _ => {}
    }
    frames
}

/// An error in the middle of a stream.
fn error(api: Api, kind: &str, message: &str) -> Frame {
    match api {
        Api::Completions => {
            Frame { name: None, data: json!({"error": {"message": message, "type": kind, "code": kind}}).to_string() }
        }
        Api::Responses => Frame {
            name: Some("error"),
            data: json!({"type": "error", "code": kind, "message": message, "param": null, "sequence_number": 9})
                .to_string(),
        },
        Api::Messages => Frame {
            name: Some("error"),
            data: json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"})
                .to_string(),
        },
    }
}

fn completions(ask: &Ask, reply: &Reply, ids: &Ids) -> Vec<Frame> {
    let (prompt, answer) = tokens(ask, reply);
    let with_usage = ask.body["stream_options"]["include_usage"] == true;
    let chunk = |choices: Value, usage: Option<Value>| {
        let mut chunk = json!({
            "id": ids.of("chatcmpl-"), "object": "chat.completion.chunk", "created": 1_790_000_000_u64, "model": ask.model,
            "system_fingerprint": "fp_double", "choices": choices,
        });
        if with_usage {
            chunk["usage"] = usage.unwrap_or_default();
        }
        Frame { name: None, data: chunk.to_string() }
    };
    let delta =
        |delta: Value| chunk(json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": null}]), None);
    let mut frames = vec![delta(json!({"role": "assistant", "content": "", "refusal": null}))];
    let mut calls = 0;
    for part in &reply.parts {
        match part {
            Part::Text(text) => {
                frames.extend(reply.cut(text).into_iter().map(|piece| delta(json!({"content": piece}))))
            }
            Part::Thinking(text) => {
                frames.extend(reply.cut(text).into_iter().map(|piece| delta(json!({"reasoning_content": piece}))));
            }
            Part::Refusal(text) => {
                frames.extend(reply.cut(text).into_iter().map(|piece| delta(json!({"refusal": piece}))))
            }
            Part::Call(id, name, arguments) => {
                let id = ids.call(id.as_ref(), ask.api, calls);
                let first =
                    json!({"index": calls, "id": id, "type": "function", "function": {"name": name, "arguments": ""}});
                frames.push(delta(json!({"tool_calls": [first]})));
                let piece = |piece| delta(json!({"tool_calls": [{"index": calls, "function": {"arguments": piece}}]}));
                frames.extend(reply.cut(arguments).into_iter().map(piece));
                calls += 1;
            }
        }
    }
    let reason = finish_reason(reply.stop_reason());
    frames.push(chunk(json!([{"index": 0, "delta": {}, "logprobs": null, "finish_reason": reason}]), None));
    if with_usage {
        frames.push(chunk(json!([]), Some(completion_usage(prompt, reply.cached, answer))));
    }
    frames.push(Frame { name: None, data: "[DONE]".to_owned() });
    frames
}

fn finish_reason(stop: Stop) -> &'static str {
    match stop {
        Stop::End | Stop::Refusal => "stop",
        Stop::ToolUse => "tool_calls",
        Stop::Length => "length",
    }
}

fn completion_usage(prompt: u64, cached: u64, answer: u64) -> Value {
    json!({
        "prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0},
    })
}

fn responses(ask: &Ask, reply: &Reply, ids: &Ids) -> Vec<Frame> {
    let mut frames = Numbered(Vec::new());
    frames.push("response.created", json!({"response": response(ask, reply, ids, "in_progress", &[])}));
    frames.push("response.in_progress", json!({"response": response(ask, reply, ids, "in_progress", &[])}));
    let items = items(ask, reply, ids);
    for (at, (item, part)) in items.iter().zip(&reply.parts).enumerate() {
        let id = item["id"].clone();
        let mut begun = item.clone();
        begun["status"] = json!("in_progress");
        let at_item = |more: Value| {
            let mut fields = json!({"item_id": id, "output_index": at});
            fields.as_object_mut().zip(more.as_object()).map(|(fields, more)| fields.extend(more.clone()));
            fields
        };
        match part {
            Part::Text(text) | Part::Refusal(text) => {
                begun["content"] = json!([]);
                frames.push("response.output_item.added", json!({"output_index": at, "item": begun}));
                let done = item["content"][0].clone();
                let refuses = matches!(part, Part::Refusal(_));
                let (kind, key) = if refuses { ("refusal", "refusal") } else { ("output_text", "text") };
                let mut empty = done.clone();
                empty[key] = json!("");
                frames.push("response.content_part.added", at_item(json!({"content_index": 0, "part": empty})));
                let names = if refuses {
                    ("response.refusal.delta", "response.refusal.done")
                } else {
                    ("response.output_text.delta", "response.output_text.done")
                };
                for piece in reply.cut(text) {
                    frames.push(names.0, at_item(json!({"content_index": 0, "delta": piece, "logprobs": []})));
                }
                frames.push(names.1, at_item(json!({"content_index": 0, key: text, "logprobs": []})));
                debug_assert_eq!(done["type"], kind);
                frames.push("response.content_part.done", at_item(json!({"content_index": 0, "part": done})));
            }
            Part::Thinking(text) => {
                begun["summary"] = json!([]);
                begun["encrypted_content"] = json!("");
                frames.push("response.output_item.added", json!({"output_index": at, "item": begun}));
                let part = json!({"type": "summary_text", "text": ""});
                frames
                    .push("response.reasoning_summary_part.added", at_item(json!({"summary_index": 0, "part": part})));
                for piece in reply.cut(text) {
                    let delta = at_item(json!({"summary_index": 0, "delta": piece}));
                    frames.push("response.reasoning_summary_text.delta", delta);
                }
                frames.push("response.reasoning_summary_text.done", at_item(json!({"summary_index": 0, "text": text})));
                let part = json!({"type": "summary_text", "text": text});
                frames.push("response.reasoning_summary_part.done", at_item(json!({"summary_index": 0, "part": part})));
            }
            Part::Call(_, name, arguments) => {
                begun["arguments"] = json!("");
                frames.push("response.output_item.added", json!({"output_index": at, "item": begun}));
                for piece in reply.cut(arguments) {
                    frames.push("response.function_call_arguments.delta", at_item(json!({"delta": piece})));
                }
                let done = at_item(json!({"arguments": arguments, "name": name}));
                frames.push("response.function_call_arguments.done", done);
            }
        }
        frames.push("response.output_item.done", json!({"output_index": at, "item": item}));
    }
    let (name, status) = match reply.stop_reason() {
        Stop::Length => ("response.incomplete", "incomplete"),
        _ => ("response.completed", "completed"),
    };
    frames.push(name, json!({"response": response(ask, reply, ids, status, &items)}));
    frames.0
}

/// Events of the Responses API count themselves.
struct Numbered(Vec<Frame>);

impl Numbered {
    fn push(&mut self, name: &'static str, fields: Value) {
        let mut event = json!({"type": name, "sequence_number": self.0.len()});
        event.as_object_mut().zip(fields.as_object()).map(|(event, fields)| event.extend(fields.clone()));
        self.0.push(Frame { name: Some(name), data: event.to_string() });
    }
}

/// The output items, complete.
fn items(ask: &Ask, reply: &Reply, ids: &Ids) -> Vec<Value> {
    let encrypts =
        ask.body["include"].as_array().is_some_and(|list| list.contains(&json!("reasoning.encrypted_content")));
    let item = |(at, part): (usize, &Part)| {
        let id = |prefix: &str| format!("{}{at}", ids.of(prefix));
        let message = |content: Value| json!({"id": id("msg_"), "type": "message", "status": "completed", "role": "assistant", "content": [content]});
        match part {
            Part::Text(text) => {
                message(json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []}))
            }
            Part::Refusal(text) => message(json!({"type": "refusal", "refusal": text})),
            Part::Thinking(text) => {
                let encrypted = encrypts.then(|| format!("gAAAA-{text}"));
                let summary = json!([{"type": "summary_text", "text": text}]);
                json!({"id": id("rs_"), "type": "reasoning", "summary": summary, "encrypted_content": encrypted})
            }
            Part::Call(given, name, arguments) => json!({
                "id": id("fc_"), "type": "function_call", "status": "completed", "arguments": arguments,
                "call_id": ids.call(given.as_ref(), ask.api, at), "name": name,
            }),
        }
    };
    reply.parts.iter().enumerate().map(item).collect()
}

fn response(ask: &Ask, reply: &Reply, ids: &Ids, status: &str, output: &[Value]) -> Value {
    let (prompt, answer) = tokens(ask, reply);
    let usage = json!({
        "input_tokens": prompt, "input_tokens_details": {"cached_tokens": reply.cached}, "output_tokens": answer,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": prompt + answer,
    });
    let incomplete = (status == "incomplete").then(|| json!({"reason": "max_output_tokens"}));
    json!({
        "id": ids.of("resp_"), "object": "response", "created_at": 1_790_000_000_u64, "status": status, "background": false,
        "error": null, "incomplete_details": incomplete, "instructions": ask.body["instructions"], "max_output_tokens": null,
        "model": ask.model, "output": output, "parallel_tool_calls": true, "previous_response_id": null,
        "reasoning": {"effort": null, "summary": null}, "store": ask.body["store"], "temperature": 1.0,
        "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": ask.body["tools"], "top_p": 1.0,
        "truncation": "disabled", "usage": if status == "in_progress" { Value::Null } else { usage }, "metadata": {},
    })
}

fn messages(ask: &Ask, reply: &Reply, ids: &Ids) -> Vec<Frame> {
    let frame = |name: &'static str, mut fields: Value| {
        fields["type"] = json!(name);
        Frame { name: Some(name), data: fields.to_string() }
    };
    let (prompt, answer) = tokens(ask, reply);
    let usage = |output: u64| {
        json!({"input_tokens": prompt.saturating_sub(reply.cached), "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": reply.cached, "output_tokens": output, "service_tier": "standard"})
    };
    let message = json!({
        "id": ids.of("msg_01"), "type": "message", "role": "assistant", "model": ask.model, "content": [],
        "stop_reason": null, "stop_sequence": null, "usage": usage(1),
    });
    let mut frames = vec![frame("message_start", json!({"message": message}))];
    for (at, part) in reply.parts.iter().enumerate() {
        let delta = |delta: Value| frame("content_block_delta", json!({"index": at, "delta": delta}));
        let start = |block: Value| frame("content_block_start", json!({"index": at, "content_block": block}));
        match part {
            Part::Text(text) | Part::Refusal(text) => {
                frames.push(start(json!({"type": "text", "text": ""})));
                let pieces = reply.cut(text).into_iter();
                frames.extend(pieces.map(|piece| delta(json!({"type": "text_delta", "text": piece}))));
            }
            Part::Thinking(text) => {
                frames.push(start(json!({"type": "thinking", "thinking": "", "signature": ""})));
                let pieces = reply.cut(text).into_iter();
                frames.extend(pieces.map(|piece| delta(json!({"type": "thinking_delta", "thinking": piece}))));
                frames.push(delta(json!({"type": "signature_delta", "signature": signature(text)})));
            }
            Part::Call(id, name, arguments) => {
                let id = ids.call(id.as_ref(), ask.api, at);
                frames.push(start(json!({"type": "tool_use", "id": id, "name": name, "input": {}})));
                frames.push(delta(json!({"type": "input_json_delta", "partial_json": ""})));
                let pieces = reply.cut(arguments).into_iter();
                frames.extend(pieces.map(|piece| delta(json!({"type": "input_json_delta", "partial_json": piece}))));
            }
        }
        if at == 0 {
            frames.push(frame("ping", json!({})));
        }
        frames.push(frame("content_block_stop", json!({"index": at})));
    }
    let stop = json!({"stop_reason": stop_reason(reply.stop_reason()), "stop_sequence": null});
    frames.push(frame("message_delta", json!({"delta": stop, "usage": {"output_tokens": answer}})));
    frames.push(frame("message_stop", json!({})));
    frames
}

fn stop_reason(stop: Stop) -> &'static str {
    match stop {
        Stop::End => "end_turn",
        Stop::ToolUse => "tool_use",
        Stop::Length => "max_tokens",
        Stop::Refusal => "refusal",
    }
}

/// What stands for Anthropic's signature of a thought.
fn signature(thought: &str) -> String {
    format!("EqQB-{thought}")
}

/// The answer to a request that is not streamed.
pub(super) fn whole(ask: &Ask, reply: &Reply, ids: &Ids) -> Value {
    let (prompt, answer) = tokens(ask, reply);
    let arguments = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| json!({}));
    match ask.api {
        Api::Completions => {
            let texts: Vec<&str> = reply
                .parts
                .iter()
                .filter_map(|part| if let Part::Text(text) = part { Some(text.as_str()) } else { None })
                .collect();
            let calls: Vec<Value> = reply.parts.iter().filter_map(|part| match part {
                Part::Call(id, name, arguments) => Some((id, name, arguments)),
                _ => None,
            }).enumerate().map(|(at, (id, name, arguments))| json!({
                "id": ids.call(id.as_ref(), ask.api, at), "type": "function", "function": {"name": name, "arguments": arguments},
            })).collect();
            let refusal =
                reply.parts.iter().find_map(|part| if let Part::Refusal(text) = part { Some(text) } else { None });
            let mut message = json!({"role": "assistant", "content": texts.concat(), "refusal": refusal});
            if !calls.is_empty() {
                message["tool_calls"] = json!(calls);
            }
            let choice = json!({"index": 0, "message": message, "logprobs": null, "finish_reason": finish_reason(reply.stop_reason())});
            json!({
                "id": ids.of("chatcmpl-"), "object": "chat.completion", "created": 1_790_000_000_u64, "model": ask.model,
                "choices": [choice], "usage": completion_usage(prompt, reply.cached, answer),
            })
        }
        Api::Responses => {
            let status = if reply.stop_reason() == Stop::Length { "incomplete" } else { "completed" };
            response(ask, reply, ids, status, &items(ask, reply, ids))
        }
        Api::Messages => {
            let block = |(at, part): (usize, &Part)| match part {
                Part::Text(text) | Part::Refusal(text) => json!({"type": "text", "text": text, "citations": null}),
                Part::Thinking(text) => json!({"type": "thinking", "thinking": text, "signature": signature(text)}),
                Part::Call(id, name, text) => {
                    json!({"type": "tool_use", "id": ids.call(id.as_ref(), ask.api, at), "name": name, "input": arguments(text)})
                }
            };
            let content: Vec<Value> = reply.parts.iter().enumerate().map(block).collect();
            json!({
                "id": ids.of("msg_01"), "type": "message", "role": "assistant", "model": ask.model, "content": content,
                "stop_reason": stop_reason(reply.stop_reason()), "stop_sequence": null,
                "usage": {"input_tokens": prompt.saturating_sub(reply.cached), "cache_creation_input_tokens": 0,
                    "cache_read_input_tokens": reply.cached, "output_tokens": answer},
            })
        }
    }
}
