//! One turn: ask the model, run the tools it wants, ask again, until it has said everything.
//!
//! ```text
//!            ┌────────────── results, steering messages ◄─────────────┐
//!            ▼                                                        │
//! history ► asking ──► assistant ──► tool calls? ──yes──► started ► done
//!   │        │  ▲          │             │no
//!   │        │  └ discarded (failed half-way, asked again)
//!   │        └──► failed   │             └──► finished
//!   └─ calls without result: run first
//! ```
//!
//! Events of one turn, in order: `Asking`, then `Text`, `Thinking` and `Usage` in any mixture, then `Assistant`; for every
//! call of that message one `ToolStarted` and, some time after it, one `ToolDone`; then the next `Asking`. Calls run side by
//! side only if none of them has effects. `Discarded` takes back everything since the last `Asking`.

mod arguments;
mod ask;
mod calls;
mod guard;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    message::{Message, Part, Role, ToolCall, ToolResult},
    prompt,
    provider::{
        Model, ModelRef, Provider, ProviderError, Stop, Thinking,
        attempt::{Attempts, Next, Patience},
    },
    tool::{Effects, Tool, ToolSpec},
    usage::Usage,
};

/// What a turn is made of.
pub struct Turn {
    /// In the order they are tried. At least one.
    pub models: Vec<Candidate>,
    pub system: String,
    /// The conversation so far; the last message is what is to be answered (a user's, or tools'). It may also end with an
    /// assistant's tool calls of which some or all have no result, as a crash leaves it: the turn begins by running those,
    /// so whoever resumes supplies a result ([`ToolResult::interrupted`]) for every call that may have begun.
    pub history: Vec<Message>,
    pub tools: Vec<Arc<dyn Tool>>,
    pub thinking: Thinking,
    /// Tokens of one answer; the model's own limit when `None`.
    pub max_tokens: Option<u32>,
    pub limits: Limits,
    /// How failing models are asked again.
    pub patience: Patience,
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

impl Limits {
    /// Room for one tool's answer by the size of the model's context: 16,000 characters below 100,000 tokens, 32,000 from
    /// there, 64,000 from 200,000 (the reference's "live tool results").
    pub const fn tool_result_bytes_for(context_window: u32) -> usize {
        match context_window {
            0..100_000 => 16_000,
            100_000..200_000 => 32_000,
            _ => 64_000,
        }
    }
}

impl Default for Limits {
    /// Ten minutes, as `agents.defaults.timeoutSeconds` in the reference's examples; 64 rounds.
    fn default() -> Self {
        Self { timeout: Duration::from_secs(600), rounds: 64, tool_result_bytes: 16_000 }
    }
}

/// What happens in a turn, in the order of the module documentation.
#[derive(Clone, Debug)]
pub enum Event {
    /// A model is being asked. `attempt` counts from 1 over retries and fallbacks of this round.
    Asking {
        model: ModelRef,
        attempt: u32,
    },
    /// What came from the last attempt is void: it failed and is asked again, or the next model is.
    Discarded {
        error: ProviderError,
        next: Next,
    },
    Text {
        delta: String,
    },
    Thinking {
        delta: String,
    },
    /// Counts of this round so far; a later one replaces it.
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
    /// The tool runs when the sink returns. [`Effects::None`] also where nothing will run: an unknown tool, arguments that
    /// do not fit, a turn that was cancelled.
    ToolStarted {
        call: ToolCall,
        effects: Effects,
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
    /// Messages of [`Sink::steering`] are in the history now.
    Steered {
        messages: Vec<Message>,
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
    /// Of all rounds, attempts that failed half-way included.
    pub usage: Usage,
    /// Who answered last, or was asked last.
    pub model: Option<ModelRef>,
    /// The parts of the last assistant message; what there was of it when the turn was cut short.
    pub last: Vec<Part>,
    /// Tools that ran.
    pub tool_calls: u32,
}

impl Ended {
    /// The plain text of [`Ended::last`].
    pub fn text(&self) -> String {
        Message { role: Role::Assistant, parts: self.last.clone() }.text()
    }
}

#[derive(Clone, Debug)]
pub enum How {
    Finished(Stop),
    Cancelled,
    TimedOut,
    /// [`Limits::rounds`] were used up.
    TooManyRounds,
    /// The model kept making one call that gave one answer, after being told twice.
    Looping {
        tool: String,
    },
    Failed(ProviderError),
    Sink(SinkFailed),
}

impl From<SinkFailed> for How {
    fn from(failed: SinkFailed) -> Self {
        Self::Sink(failed)
    }
}

/// Runs the turn. Dropping the future stops everything at once, tools included; cancelling its token lets tools end
/// their work and their answers be heard.
pub async fn run(turn: Turn, sink: &mut dyn Sink) -> Ended {
    let mut state = State::new(turn);
    let how = match state.go(sink).await {
        Ok(stop) => How::Finished(stop),
        Err(how) => how,
    };
    Ended { how, usage: state.usage, model: state.model, last: state.last, tool_calls: state.tool_calls }
}

/// What a turn knows while it goes on.
struct State {
    attempts: Attempts,
    system: String,
    history: Arc<Vec<Message>>,
    tools: Vec<Arc<dyn Tool>>,
    specs: Arc<Vec<ToolSpec>>,
    thinking: Thinking,
    max_tokens: Option<u32>,
    limits: Limits,
    cancel: CancellationToken,
    deadline: Instant,
    guard: guard::LoopGuard,
    usage: Usage,
    model: Option<ModelRef>,
    last: Vec<Part>,
    tool_calls: u32,
}

impl State {
    fn new(turn: Turn) -> Self {
        let specs = turn.tools.iter().map(|tool| tool.spec().clone()).collect();
        Self {
            attempts: Attempts::new(turn.models, turn.patience),
            system: turn.system,
            history: Arc::new(turn.history),
            tools: turn.tools,
            specs: Arc::new(specs),
            thinking: turn.thinking,
            max_tokens: turn.max_tokens,
            deadline: Instant::now() + turn.limits.timeout,
            limits: turn.limits,
            cancel: turn.cancel,
            guard: guard::LoopGuard::default(),
            usage: Usage::default(),
            model: None,
            last: Vec::new(),
            tool_calls: 0,
        }
    }

    async fn go(&mut self, sink: &mut dyn Sink) -> Result<Stop, How> {
        let open = unanswered(&self.history);
        if !open.is_empty() {
            self.run_calls(open, sink).await?;
            self.steer(sink).await?;
        }
        for _ in 0..self.limits.rounds {
            let reply = self.ask(sink).await?;
            self.last.clone_from(&reply.message.parts);
            let calls: Vec<ToolCall> = reply.message.tool_calls().cloned().collect();
            Arc::make_mut(&mut self.history).push(reply.message.clone());
            let stop = reply.stop;
            sink.event(reply.into_event()).await?;
            if calls.is_empty() {
                return Ok(stop);
            }
            self.run_calls(calls, sink).await?;
            self.steer(sink).await?;
        }
        Err(How::TooManyRounds)
    }

    async fn steer(&mut self, sink: &mut dyn Sink) -> Result<(), SinkFailed> {
        let messages = sink.steering();
        if messages.is_empty() {
            return Ok(());
        }
        Arc::make_mut(&mut self.history).extend(messages.iter().cloned());
        sink.event(Event::Steered { messages }).await
    }

    /// Fits the history into `tokens`, if it does not fit already.
    fn fit(&mut self, tokens: u64) {
        if let Some(fitted) = prompt::fit(&self.system, &self.history, &self.specs, tokens) {
            self.history = Arc::new(fitted);
        }
    }

    /// Resolves when the turn is to end before its time.
    async fn cut_short(cancel: CancellationToken, deadline: Instant) -> How {
        tokio::select! {
            biased;
            () = cancel.cancelled() => How::Cancelled,
            () = tokio::time::sleep_until(deadline) => How::TimedOut,
        }
    }
}

/// The calls at the end of a history that have no result yet, in order.
pub fn unanswered(history: &[Message]) -> Vec<ToolCall> {
    let results = history.iter().rev().take_while(|message| message.role == Role::Tool).count();
    let (before, results) = history.split_at(history.len() - results);
    let Some(assistant) = before.last().filter(|message| message.role == Role::Assistant) else { return Vec::new() };
    let answered = |id: &str| {
        results
            .iter()
            .flat_map(|message| &message.parts)
            .any(|part| matches!(part, Part::ToolResult(r) if r.call_id == id))
    };
    assistant.tool_calls().filter(|call| !answered(&call.id)).cloned().collect()
}
