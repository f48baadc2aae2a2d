//! Reads the events of a streamed message.

use std::collections::{BTreeMap, VecDeque};

use serde::Deserialize;
use serde_json::Value;

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
#[serde(tag = "type", rename_all = "snake_case")]
enum Streamed {
    MessageStart {
        message: Message,
    },
    ContentBlockStart {
        index: u32,
        content_block: Block,
    },
    ContentBlockDelta {
        index: u32,
        delta: Piece,
    },
    ContentBlockStop {
        index: u32,
    },
    MessageDelta {
        delta: MessagePiece,
        usage: Option<Counts>,
    },
    MessageStop,
    Error {
        error: Value,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Message {
    id: Option<String>,
    model: Option<String>,
    usage: Option<Counts>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block {
    Text {
        #[serde(default)]
        text: String,
    },
    Thinking {
        #[serde(default)]
        thinking: String,
        #[serde(default)]
        signature: String,
    },
    RedactedThinking {
        data: String,
    },
    ToolUse {
        id: String,
        name: String,
        #[serde(default)]
        input: Value,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Piece {
    TextDelta {
        text: String,
    },
    ThinkingDelta {
        thinking: String,
    },
    SignatureDelta {
        signature: String,
    },
    InputJsonDelta {
        partial_json: String,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct MessagePiece {
    stop_reason: Option<String>,
}

/// Counts grow during the answer; a field that does not come again stays.
#[derive(Clone, Copy, Deserialize, Default)]
struct Counts {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
}

/// A block that has begun.
#[derive(Default)]
struct Open {
    signature: String,
    /// A call's whole input, where it came with the block instead of in pieces.
    input: Option<Value>,
}

/// The state of one answer.
pub(in crate::provider) struct Reader {
    model: ModelRef,
    open: BTreeMap<u32, Open>,
    counts: Counts,
    calls: bool,
    reason: Option<String>,
    over: bool,
}

impl Reader {
    pub fn new(model: ModelRef) -> Self {
        Self { model, open: BTreeMap::new(), counts: Counts::default(), calls: false, reason: None, over: false }
    }

    fn count(&mut self, counts: Counts, out: &mut VecDeque<Delta>) {
        let have = &mut self.counts;
        have.input_tokens = counts.input_tokens.or(have.input_tokens);
        have.output_tokens = counts.output_tokens.or(have.output_tokens);
        have.cache_creation_input_tokens = counts.cache_creation_input_tokens.or(have.cache_creation_input_tokens);
        have.cache_read_input_tokens = counts.cache_read_input_tokens.or(have.cache_read_input_tokens);
        out.push_back(Delta::Usage(Usage {
            input: have.input_tokens.unwrap_or_default(),
            output: have.output_tokens.unwrap_or_default(),
            cache_read: have.cache_read_input_tokens.unwrap_or_default(),
            cache_write: have.cache_creation_input_tokens.unwrap_or_default(),
        }));
    }

    fn begin(&mut self, index: u32, block: Block, out: &mut VecDeque<Delta>) {
        let mut open = Open::default();
        let say = |delta: fn(String) -> Delta, text: String| (!text.is_empty()).then(|| delta(text));
        match block {
            Block::Text { text } => out.extend(say(Delta::Text, text)),
            Block::Thinking { thinking, signature } => {
                out.extend(say(Delta::Thinking, thinking));
                open.signature = signature;
            }
            Block::RedactedThinking { data } => {
                out.push_back(Delta::Signature(Seal::Redacted(data).close(&self.model)));
            }
            Block::ToolUse { id, name, input } => {
                self.calls = true;
                open.input = Some(input).filter(|input| input.as_object().is_some_and(|input| !input.is_empty()));
                out.push_back(Delta::ToolCall { index, id, name });
            }
            Block::Other => {}
        }
        self.open.insert(index, open);
    }

    fn piece(&mut self, index: u32, piece: Piece, out: &mut VecDeque<Delta>) -> Result<(), Fault> {
        let Some(open) = self.open.get_mut(&index) else {
            return Err(Fault::Garbage("a piece of a block that has not begun".to_owned()));
        };
        match piece {
            Piece::TextDelta { text } => out.push_back(Delta::Text(text)),
            Piece::ThinkingDelta { thinking } => out.push_back(Delta::Thinking(thinking)),
            Piece::SignatureDelta { signature } => open.signature.push_str(&signature),
            Piece::InputJsonDelta { partial_json } => {
                if !partial_json.is_empty() {
                    open.input = None;
                    out.push_back(Delta::Arguments { index, json: partial_json });
                }
            }
            Piece::Other => {}
        }
        Ok(())
    }

    fn close(&mut self, index: u32, out: &mut VecDeque<Delta>) {
        let Some(open) = self.open.remove(&index) else { return };
        if !open.signature.is_empty() {
            out.push_back(Delta::Signature(Seal::Signature(open.signature).close(&self.model)));
        }
        if let Some(input) = open.input {
            out.push_back(Delta::Arguments { index, json: input.to_string() });
        }
    }
}

impl Decode for Reader {
    fn event(&mut self, event: &Event, out: &mut VecDeque<Delta>) -> Result<(), Fault> {
        let streamed: Streamed = serde_json::from_str(&event.data)
            .map_err(|error| Fault::Garbage(format!("an event that is not one ({})", place(&error))))?;
        match streamed {
            Streamed::MessageStart { message } => {
                out.push_back(Delta::Started { model: message.model, response_id: message.id });
                if let Some(counts) = message.usage {
                    self.count(counts, out);
                }
            }
            Streamed::ContentBlockStart { index, content_block } => self.begin(index, content_block, out),
            Streamed::ContentBlockDelta { index, delta } => self.piece(index, delta, out)?,
            Streamed::ContentBlockStop { index } => self.close(index, out),
            Streamed::MessageDelta { delta, usage } => {
                self.reason = delta.stop_reason.or(self.reason.take());
                if let Some(counts) = usage {
                    self.count(counts, out);
                }
            }
            Streamed::MessageStop => self.over = true,
            Streamed::Error { error } => {
                let body = serde_json::json!({ "error": error });
                return Err(Fault::Api(ApiError::parse(&body).unwrap_or_default()));
            }
            Streamed::Other => {}
        }
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.reason.is_some() || self.over
    }

    fn is_over(&self) -> bool {
        self.over
    }

    fn stopped(&mut self, out: &mut VecDeque<Delta>) {
        let open: Vec<u32> = self.open.keys().copied().collect();
        open.into_iter().for_each(|index| self.close(index, out));
        out.push_back(Delta::Stopped(match self.reason.as_deref() {
            Some("max_tokens" | "model_context_window_exceeded") => Stop::Length,
            Some("refusal") => Stop::Refusal,
            _ if self.calls => Stop::ToolUse,
            _ => Stop::End,
        }));
    }
}
