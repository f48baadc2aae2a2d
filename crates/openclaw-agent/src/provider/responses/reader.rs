//! Reads the events of a streamed response.

use std::collections::{BTreeMap, VecDeque};

use serde::Deserialize;
use serde_json::Value;

use super::returnable;
use crate::{
    provider::{
        Delta, ModelRef, Stop,
        completions::place,
        explain::ApiError,
        http::{Decode, Fault},
        seal::Seal,
        sse::Event,
    },
    usage::Usage,
};

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Streamed {
    #[serde(rename = "response.created")]
    Created { response: Response },
    #[serde(rename = "response.output_item.added")]
    Added { output_index: u32, item: Value },
    #[serde(rename = "response.output_item.done")]
    Done { output_index: u32, item: Value },
    #[serde(rename = "response.output_text.delta")]
    Text { delta: String },
    #[serde(rename = "response.refusal.delta")]
    Refusal { delta: String },
    #[serde(rename = "response.reasoning_summary_part.added")]
    SummaryPart {
        #[serde(default)]
        summary_index: u32,
    },
    #[serde(rename = "response.reasoning_summary_text.delta")]
    Summary { delta: String },
    #[serde(rename = "response.reasoning_text.delta")]
    Reasoning { delta: String },
    #[serde(rename = "response.function_call_arguments.delta")]
    Arguments { output_index: u32, delta: String },
    #[serde(rename = "response.function_call_arguments.done")]
    ArgumentsDone { output_index: u32, arguments: String },
    #[serde(rename = "response.completed", alias = "response.done")]
    Completed { response: Response },
    #[serde(rename = "response.incomplete")]
    Incomplete { response: Response },
    #[serde(rename = "response.failed")]
    Failed { response: Response },
    #[serde(rename = "error")]
    Error(Value),
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Response {
    id: Option<String>,
    model: Option<String>,
    usage: Option<Counts>,
    error: Option<Value>,
    incomplete_details: Option<Incomplete>,
}

#[derive(Deserialize)]
struct Incomplete {
    reason: Option<String>,
}

#[derive(Deserialize)]
struct Counts {
    #[serde(default)]
    input_tokens: u64,
    #[serde(default)]
    output_tokens: u64,
    input_tokens_details: Option<InputCounts>,
}

#[derive(Deserialize)]
struct InputCounts {
    #[serde(default)]
    cached_tokens: Option<u64>,
    #[serde(default)]
    cache_write_tokens: Option<u64>,
}

impl Counts {
    fn usage(&self) -> Usage {
        let details = self.input_tokens_details.as_ref();
        let cache_read = details.and_then(|d| d.cached_tokens).unwrap_or_default();
        let cache_write = details.and_then(|d| d.cache_write_tokens).unwrap_or_default();
        let input = self.input_tokens.saturating_sub(cache_read).saturating_sub(cache_write);
        Usage { input, output: self.output_tokens, cache_read, cache_write }
    }
}

/// The state of one answer.
pub(in crate::provider) struct Reader {
    model: ModelRef,
    /// Calls by output index: whether any of their arguments have come.
    calls: BTreeMap<u32, bool>,
    refused: bool,
    stop: Option<Stop>,
}

impl Reader {
    pub fn new(model: ModelRef) -> Self {
        Self { model, calls: BTreeMap::new(), refused: false, stop: None }
    }

    /// Begins a call once, whichever event shows it first.
    fn call(&mut self, output_index: u32, item: &Value, out: &mut VecDeque<Delta>) {
        let text = |key: &str| item.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        if self.calls.contains_key(&output_index) {
            return;
        }
        self.calls.insert(output_index, false);
        let id = Some(text("call_id")).filter(|id| !id.is_empty()).unwrap_or_else(|| text("id"));
        out.push_back(Delta::ToolCall { index: output_index, id, name: text("name") });
    }

    /// All arguments at once, unless they came in pieces before.
    fn whole_arguments(&mut self, output_index: u32, arguments: &str, out: &mut VecDeque<Delta>) {
        if let Some(begun) = self.calls.get_mut(&output_index)
            && !std::mem::replace(begun, true)
            && !arguments.is_empty()
        {
            out.push_back(Delta::Arguments { index: output_index, json: arguments.to_owned() });
        }
    }

    fn item_done(&mut self, output_index: u32, item: &Value, out: &mut VecDeque<Delta>) {
        match item.get("type").and_then(Value::as_str) {
            Some("reasoning") => {
                out.extend(returnable(item).map(|item| Delta::Signature(Seal::Item(item).close(&self.model))));
            }
            Some("function_call") => {
                self.call(output_index, item, out);
                let arguments = item.get("arguments").and_then(Value::as_str).unwrap_or_default();
                self.whole_arguments(output_index, arguments, out);
            }
            _ => {}
        }
    }

    fn end(&mut self, response: Response, out: &mut VecDeque<Delta>) {
        out.extend(response.usage.map(|counts| Delta::Usage(counts.usage())));
        let reason = response.incomplete_details.and_then(|details| details.reason);
        self.stop = Some(match reason.as_deref() {
            Some("content_filter") => Stop::Refusal,
            Some(_) => Stop::Length,
            None if self.refused => Stop::Refusal,
            None if !self.calls.is_empty() => Stop::ToolUse,
            None => Stop::End,
        });
    }
}

impl Decode for Reader {
    fn event(&mut self, event: &Event, out: &mut VecDeque<Delta>) -> Result<(), Fault> {
        if event.data.trim() == "[DONE]" {
            return Ok(());
        }
        let streamed: Streamed = match serde_json::from_str(&event.data) {
            Ok(streamed) => streamed,
            Err(error) => {
                // An error in the shape of the other APIs of the same server.
                let api = serde_json::from_str(&event.data).ok().filter(|body: &Value| body.get("type").is_none());
                let api = api.and_then(|body| ApiError::parse(&body));
                let garbage = || Fault::Garbage(format!("an event that is not one ({})", place(&error)));
                return Err(api.map_or_else(garbage, Fault::Api));
            }
        };
        match streamed {
            Streamed::Created { response } => {
                out.push_back(Delta::Started { model: response.model, response_id: response.id });
            }
            Streamed::Added { output_index, item } => {
                if item.get("type").and_then(Value::as_str) == Some("function_call") {
                    self.call(output_index, &item, out);
                }
            }
            Streamed::Done { output_index, item } => self.item_done(output_index, &item, out),
            Streamed::Text { delta } => out.push_back(Delta::Text(delta)),
            Streamed::Refusal { delta } => {
                self.refused = true;
                out.push_back(Delta::Text(delta));
            }
            Streamed::SummaryPart { summary_index: 0 } => {}
            Streamed::SummaryPart { .. } => out.push_back(Delta::Thinking("\n\n".to_owned())),
            Streamed::Summary { delta } | Streamed::Reasoning { delta } => out.push_back(Delta::Thinking(delta)),
            Streamed::Arguments { output_index, delta } => {
                let Some(begun) = self.calls.get_mut(&output_index) else {
                    return Err(Fault::Garbage("arguments of a call that has not begun".to_owned()));
                };
                *begun = true;
                out.push_back(Delta::Arguments { index: output_index, json: delta });
            }
            Streamed::ArgumentsDone { output_index, arguments } => self.whole_arguments(output_index, &arguments, out),
            Streamed::Completed { response } | Streamed::Incomplete { response } => self.end(response, out),
            Streamed::Failed { response } => {
                let error = response.error.unwrap_or_default();
                return Err(Fault::Api(ApiError::parse(&error).unwrap_or_default()));
            }
            Streamed::Error(body) => return Err(Fault::Api(ApiError::parse(&body).unwrap_or_default())),
            Streamed::Other => {}
        }
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.stop.is_some()
    }

    fn is_over(&self) -> bool {
        self.stop.is_some()
    }

    fn stopped(&mut self, out: &mut VecDeque<Delta>) {
        out.push_back(Delta::Stopped(self.stop.unwrap_or(Stop::End)));
    }
}
