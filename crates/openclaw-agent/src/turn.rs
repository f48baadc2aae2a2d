//! One turn: ask the model, run the tools it wants, ask again, until it has said everything.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::{
    message::{Message, Part, ToolCall, ToolResult},
    provider::{Model, ModelRef, Provider, ProviderError, Stop, Thinking},
    tool::Tool,
    usage::Usage,
};

/// What a turn is made of.
pub struct Turn {
    /// In the order they are tried. At least one.
    pub models: Vec<Candidate>,
    pub system: String,
    /// The conversation so far; the last message is what is to be answered (a user's, or tools').
    pub history: Vec<Message>,
    pub tools: Vec<Arc<dyn Tool>>,
    pub thinking: Thinking,
    pub limits: Limits,
    pub cancel: CancellationToken,
}

/// A model and the service that runs it.
#[derive(Clone)]
pub struct Candidate {
    pub model: Arc<Model>,
    pub provider: Arc<dyn Provider>,
}

/// What a turn may use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From start to end.
    pub timeout: Duration,
    /// Calls of the model.
    pub rounds: u32,
    /// Bytes of one tool's answer; the rest is cut with a word about it.
    pub tool_result_bytes: usize,
}

/// What happens in a turn, in order.
#[derive(Clone, Debug)]
pub enum Event {
    /// A model is being asked. `attempt` counts from 1 over retries and fallbacks.
    Asking {
        model: ModelRef,
        attempt: u32,
    },
    /// What came from the last attempt is void: it failed half-way and is asked again, or the next model is.
    Discarded {
        error: ProviderError,
    },
    Text {
        delta: String,
    },
    Thinking {
        delta: String,
    },
    Usage {
        round: Usage,
    },
    /// The model's message is complete. It is in the history now.
    Assistant {
        message: Message,
        model: ModelRef,
        response_model: Option<String>,
        response_id: Option<String>,
        usage: Usage,
        stop: Stop,
    },
    ToolStarted {
        call: ToolCall,
    },
    ToolProgress {
        call_id: String,
        text: String,
    },
    /// A tool has answered. The result is in the history now.
    ToolDone {
        result: ToolResult,
        details: Option<Value>,
    },
}

/// Hears the events. The turn waits for it: a sink that keeps what must not be lost returns when it is kept.
pub trait Sink: Send {
    /// # Errors
    /// A reason to end the turn, such as that it could not be kept.
    fn event(&mut self, event: Event) -> BoxFuture<'_, Result<(), SinkFailed>>;

    /// Messages that arrived meanwhile and belong into this turn ("steering"), asked for between rounds.
    fn steering(&mut self) -> Vec<Message> {
        Vec::new()
    }
}

/// The turn's listener could not go on.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct SinkFailed(pub String);

/// How a turn ended.
#[derive(Clone, Debug)]
pub struct Ended {
    pub how: How,
    /// Of all rounds.
    pub usage: Usage,
    pub model: Option<ModelRef>,
    /// The parts of the last assistant message; what there was of it when the turn was cut short.
    pub last: Vec<Part>,
}

#[derive(Clone, Debug)]
pub enum How {
    Finished(Stop),
    Cancelled,
    TimedOut,
    /// [`Limits::rounds`] were used up.
    TooManyRounds,
    Failed(ProviderError),
    Sink(SinkFailed),
}
