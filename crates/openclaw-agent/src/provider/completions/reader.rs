//! Reads `chat.completion.chunk`s.

use std::collections::VecDeque;

use serde::Deserialize;
use serde_json::Value;

use crate::{
    provider::{
        Delta, ModelRef, Stop,
        explain::ApiError,
        http::{Decode, Fault},
        seal::Seal,
        sse::Event,
    },
    usage::Usage,
};

#[derive(Deserialize)]
struct Chunk {
    id: Option<String>,
    model: Option<String>,
    #[serde(default)]
    choices: Option<Vec<Choice>>,
    usage: Option<Counts>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: u32,
    #[serde(default)]
    delta: Option<Piece>,
    finish_reason: Option<String>,
}

#[derive(Deserialize, Default)]
struct Piece {
    content: Option<Content>,
    refusal: Option<String>,
    /// DeepSeek, vLLM, llama.cpp.
    reasoning_content: Option<String>,
    /// OpenRouter, Ollama, newer vLLM.
    reasoning: Option<String>,
    /// OpenRouter.
    reasoning_details: Option<Vec<Value>>,
    tool_calls: Option<Vec<CallPiece>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    /// Mistral's thinking models.
    Parts(Vec<ContentPart>),
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ContentPart {
    Text {
        text: String,
    },
    Thinking {
        #[serde(default)]
        thinking: Vec<ContentPart>,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct CallPiece {
    index: Option<u32>,
    id: Option<String>,
    function: Option<FunctionPiece>,
}

#[derive(Deserialize)]
struct FunctionPiece {
    name: Option<String>,
    /// Text everywhere but at servers that give the object itself.
    arguments: Option<Value>,
}

#[derive(Deserialize)]
struct Counts {
    #[serde(default)]
    prompt_tokens: Option<u64>,
    #[serde(default)]
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<PromptCounts>,
    /// DeepSeek.
    prompt_cache_hit_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct PromptCounts {
    cached_tokens: Option<u64>,
    cache_write_tokens: Option<u64>,
}

impl Counts {
    fn usage(&self) -> Usage {
        let details = self.prompt_tokens_details.as_ref();
        let cache_read = details.and_then(|d| d.cached_tokens).or(self.prompt_cache_hit_tokens).unwrap_or_default();
        let cache_write = details.and_then(|d| d.cache_write_tokens).unwrap_or_default();
        let prompt = self.prompt_tokens.unwrap_or_default();
        Usage {
            input: prompt.saturating_sub(cache_read).saturating_sub(cache_write),
            output: self.completion_tokens.unwrap_or_default(),
            cache_read,
            cache_write,
        }
    }
}

/// A call that has begun.
struct Begun {
    /// What the provider calls it.
    index: Option<u32>,
    id: String,
}

/// The state of one answer.
pub(in crate::provider) struct Reader {
    model: ModelRef,
    started: bool,
    calls: Vec<Begun>,
    details: Vec<Value>,
    finish: Option<String>,
    refused: bool,
    said_something: bool,
    done: bool,
}

impl Reader {
    pub fn new(model: ModelRef) -> Self {
        Self {
            model,
            started: false,
            calls: Vec::new(),
            details: Vec::new(),
            finish: None,
            refused: false,
            said_something: false,
            done: false,
        }
    }

    fn choice(&mut self, choice: Choice, out: &mut VecDeque<Delta>) -> Result<(), Fault> {
        let piece = choice.delta.unwrap_or_default();
        let before = out.len();
        let mut add = |delta: fn(String) -> Delta, text: Option<String>| {
            out.extend(text.filter(|text| !text.is_empty()).map(delta));
        };
        // Both names at once are the same thought twice.
        add(Delta::Thinking, piece.reasoning_content.filter(|text| !text.is_empty()).or(piece.reasoning));
        match piece.content {
            Some(Content::Text(text)) => add(Delta::Text, Some(text)),
            Some(Content::Parts(parts)) => {
                for part in parts {
                    match part {
                        ContentPart::Text { text } => add(Delta::Text, Some(text)),
                        ContentPart::Thinking { thinking } => thinking.into_iter().for_each(|part| {
                            if let ContentPart::Text { text } = part {
                                add(Delta::Thinking, Some(text));
                            }
                        }),
                        ContentPart::Other => {}
                    }
                }
            }
            None => {}
        }
        self.refused |= piece.refusal.as_ref().is_some_and(|text| !text.is_empty());
        add(Delta::Text, piece.refusal);
        piece.reasoning_details.into_iter().flatten().for_each(|detail| self.detail(detail));
        for call in piece.tool_calls.into_iter().flatten() {
            self.call(call, out)?;
        }
        self.said_something |= out.len() > before;
        match choice.finish_reason.as_deref() {
            None | Some("") => Ok(()),
            // OpenRouter, when the provider behind it failed.
            Some("error") => {
                Err(Fault::Api(ApiError { codes: vec!["server_error".to_owned()], message: String::new() }))
            }
            Some(reason) => {
                self.finish = Some(reason.to_owned());
                Ok(())
            }
        }
    }

    fn call(&mut self, piece: CallPiece, out: &mut VecDeque<Delta>) -> Result<(), Fault> {
        let id = piece.id.filter(|id| !id.is_empty());
        let function = piece.function;
        let name = function.as_ref().and_then(|f| f.name.clone()).filter(|name| !name.is_empty());
        let known = self.calls.iter().rposition(|call| match (piece.index, &id) {
            // Some servers number all calls 0 and tell them apart by id; most give the id once and then the index.
            (Some(index), Some(id)) => call.index == Some(index) && (call.id == *id || call.id.is_empty()),
            (Some(index), None) => call.index == Some(index),
            (None, Some(id)) => call.id == *id,
            (None, None) => name.is_none(),
        });
        let at = match known {
            Some(at) => at,
            None => {
                let Some(name) = name else {
                    return Err(Fault::Garbage("a piece of a tool call that has no name".to_owned()));
                };
                self.calls.push(Begun { index: piece.index, id: id.clone().unwrap_or_default() });
                let index = self.place(self.calls.len() - 1);
                out.push_back(Delta::ToolCall { index, id: id.unwrap_or_default(), name });
                self.calls.len() - 1
            }
        };
        let json = match function.and_then(|function| function.arguments) {
            Some(Value::String(text)) => text,
            None | Some(Value::Null) => String::new(),
            Some(other) => other.to_string(),
        };
        if !json.is_empty() {
            out.push_back(Delta::Arguments { index: self.place(at), json });
        }
        Ok(())
    }

    fn place(&self, at: usize) -> u32 {
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    /// Pieces of one detail have the same index and type; their texts are one text.
    fn detail(&mut self, detail: Value) {
        let same = |have: &&mut Value| {
            let key = |name: &str| have.get(name) == detail.get(name);
            detail.get("index").is_some() && key("index") && key("type")
        };
        let Some(have) = self.details.iter_mut().rev().find(same) else {
            self.details.push(detail);
            return;
        };
        let (Some(have), Value::Object(more)) = (have.as_object_mut(), detail) else { return };
        for (key, value) in more {
            match (have.get_mut(&key), value) {
                (Some(Value::String(text)), Value::String(more)) if matches!(&*key, "text" | "summary" | "data") => {
                    text.push_str(&more);
                }
                (_, Value::Null) => {}
                (_, value) => drop(have.insert(key, value)),
            }
        }
    }
}

impl Decode for Reader {
    fn event(&mut self, event: &Event, out: &mut VecDeque<Delta>) -> Result<(), Fault> {
        if event.data.trim() == "[DONE]" {
            self.done = true;
            return Ok(());
        }
        let chunk: Chunk = serde_json::from_str(&event.data)
            .map_err(|error| Fault::Garbage(format!("a chunk that is not one ({})", place(&error))))?;
        if let Some(error) = chunk.error.filter(|error| !error.is_null()) {
            let api = ApiError::parse(&serde_json::json!({ "error": error })).unwrap_or_default();
            return Err(Fault::Api(api));
        }
        // Servers that report a fault in the middle without wrapping it.
        let Some(choices) = chunk.choices else {
            let api = serde_json::from_str(&event.data).ok().and_then(|body: Value| ApiError::parse(&body));
            return api.map_or(Ok(()), |api| Err(Fault::Api(api)));
        };
        if !std::mem::replace(&mut self.started, true) {
            out.push_back(Delta::Started { model: chunk.model, response_id: chunk.id });
        }
        choices.into_iter().filter(|choice| choice.index == 0).try_for_each(|choice| self.choice(choice, out))?;
        out.extend(chunk.usage.map(|counts| Delta::Usage(counts.usage())));
        Ok(())
    }

    /// `[DONE]` without a reason to stop is an end too, if anything was said: some servers give none.
    fn is_complete(&self) -> bool {
        self.finish.is_some() || (self.done && self.said_something)
    }

    fn is_over(&self) -> bool {
        self.done && self.is_complete()
    }

    fn stopped(&mut self, out: &mut VecDeque<Delta>) {
        if !self.details.is_empty() {
            out.push_back(Delta::Signature(Seal::Details(std::mem::take(&mut self.details)).close(&self.model)));
        }
        let stop = match self.finish.as_deref() {
            Some("length" | "max_tokens") => Stop::Length,
            Some("content_filter") => Stop::Refusal,
            _ if self.refused => Stop::Refusal,
            _ if !self.calls.is_empty() => Stop::ToolUse,
            _ => Stop::End,
        };
        out.push_back(Delta::Stopped(stop));
    }
}

/// Where JSON stopped making sense, without what it says.
pub(in crate::provider) fn place(error: &serde_json::Error) -> String {
    format!("column {}", error.column())
}
