//! Model providers: one request in, a stream of pieces out.
//!
//! [`catalog`] reads which models the config has and gives [`Candidate`](crate::turn::Candidate)s; [`attempt`] asks
//! candidates with patience until one has answered. The clients of the three APIs share one way of streaming over HTTP.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::{future::BoxFuture, stream::BoxStream};

use crate::{
    message::Message,
    tool::ToolSpec,
    usage::{Price, Usage},
};

pub mod attempt;
pub mod catalog;
mod client;
mod completions;
mod endpoint;
mod explain;
mod history;
mod http;
mod listing;
mod messages;
mod responses;
mod seal;
mod sse;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tuning;

/// `provider/model`, as config and operators write it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// Tokens of one answer. `None` when nobody said: the provider's own limit then applies.
    pub max_tokens: Option<u32>,
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
    /// More than high, for models that have it; others think as hard as they can.
    XHigh,
    /// All a model can.
    Max,
}

impl Thinking {
    /// From least to most.
    pub const ALL: [Self; 7] = [Self::Off, Self::Minimal, Self::Low, Self::Medium, Self::High, Self::XHigh, Self::Max];

    /// The word config, `/think` and the wire have for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Minimal => "minimal",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::XHigh => "xhigh",
            Self::Max => "max",
        }
    }

    /// Reads a word, with the release's aliases: `highest` is high, `x-high` and its kin xhigh, `adaptive` medium, `ultra`
    /// max, `on` low, `disabled` and `none` off.
    pub fn parse(text: &str) -> Option<Self> {
        let word = text.trim().to_ascii_lowercase().replace([' ', '_', '-'], "");
        Some(match word.as_str() {
            "off" | "none" | "disabled" | "false" => Self::Off,
            "minimal" | "min" => Self::Minimal,
            "low" | "on" | "true" => Self::Low,
            "medium" | "med" | "adaptive" => Self::Medium,
            "high" | "highest" => Self::High,
            "xhigh" | "extrahigh" => Self::XHigh,
            "max" | "ultra" => Self::Max,
            _ => return None,
        })
    }
}

impl fmt::Display for Thinking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
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
    /// Seals the thinking since the last seal. Opaque, names its provider and model inside; kept with the thinking and given
    /// back as it is, it returns to the model that made it and to no other. May come without any thinking text.
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

    /// Ids of the models the service says it has, in its order. Costs nothing, and tells whether it takes the key.
    fn listing(&self) -> BoxFuture<'static, Result<Vec<String>, ProviderError>> {
        let message = "This provider does not say which models it has.".to_owned();
        Box::pin(std::future::ready(Err(ProviderError { kind: ErrorKind::Invalid, message, retry_after: None })))
    }
}
