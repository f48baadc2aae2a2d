//! Model providers: one request in, a stream of pieces out.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::stream::BoxStream;

use crate::{
    message::Message,
    tool::ToolSpec,
    usage::{Price, Usage},
};

/// `provider/model`, as config and operators write it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ModelRef {
    pub provider: String,
    pub model: String,
}

impl ModelRef {
    /// Splits at the first slash; `None` when a side is empty.
    pub fn parse(text: &str) -> Option<Self> {
        let (provider, model) = text.trim().split_once('/')?;
        let filled = !provider.is_empty() && !model.is_empty();
        filled.then(|| Self { provider: provider.to_owned(), model: model.to_owned() })
    }
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.provider, self.model)
    }
}

/// What is known of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    pub reference: ModelRef,
    /// For people.
    pub name: String,
    /// Tokens of prompt and answer together.
    pub context_window: u32,
    /// Tokens of one answer.
    pub max_tokens: u32,
    pub reasoning: bool,
    /// Takes images.
    pub images: bool,
    pub price: Option<Price>,
}

/// How hard a model should think.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thinking {
    #[default]
    Off,
    Minimal,
    Low,
    Medium,
    High,
}

/// One call of a model.
#[derive(Clone, Debug)]
pub struct Request {
    pub model: Arc<Model>,
    pub system: String,
    pub messages: Arc<Vec<Message>>,
    pub tools: Arc<Vec<ToolSpec>>,
    pub thinking: Thinking,
    /// Tokens of the answer; the model's own limit when `None`.
    pub max_tokens: Option<u32>,
}

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Delta {
    /// First piece: which model really answers, and the provider's id for the answer.
    Started {
        model: Option<String>,
        response_id: Option<String>,
    },
    Text(String),
    Thinking(String),
    /// Seals the thinking so far.
    Signature(String),
    /// `index` tells calls of one answer apart.
    ToolCall {
        index: u32,
        id: String,
        name: String,
    },
    /// A piece of the JSON text of the call's arguments.
    Arguments {
        index: u32,
        json: String,
    },
    /// Counts so far; a later one replaces it.
    Usage(Usage),
    /// Last piece.
    Stopped(Stop),
}

/// Why a model stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It had said everything.
    End,
    ToolUse,
    /// `max_tokens` or the context was full.
    Length,
    Refusal,
}

/// Why a call failed. Texts never hold keys.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ProviderError {
    pub kind: ErrorKind,
    /// What failed and what to do next, in a sentence for people.
    pub message: String,
    /// What the provider asked us to wait.
    pub retry_after: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// No key, wrong key, no right to the model: no retry helps, another provider may.
    Auth,
    /// Slow down (429).
    RateLimit,
    /// Overloaded or broken over there (5xx, 529), or the stream ended before its end.
    Unavailable,
    /// No connection, or silence for too long.
    Network,
    /// The prompt does not fit.
    ContextLength,
    /// The provider does not understand the request; asking again gives the same.
    Invalid,
    /// What came is not what the API promises.
    Garbage,
    Cancelled,
}

impl ErrorKind {
    /// Worth asking the same provider again.
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::RateLimit | Self::Unavailable | Self::Network | Self::Garbage)
    }
}

/// A service that runs models.
pub trait Provider: fmt::Debug + Send + Sync {
    /// Asks. The stream ends after [`Delta::Stopped`] or the first error; dropping it hangs up.
    fn stream(&self, request: Request) -> BoxStream<'static, Result<Delta, ProviderError>>;
}
