//! Tools: what a model may ask for, and how it is answered.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::message::Part;

/// What a model is told of a tool.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolSpec {
    /// `[a-zA-Z0-9_-]{1,64}`, which every provider takes.
    pub name: String,
    pub description: String,
    /// JSON Schema of the arguments, an object.
    pub parameters: Value,
}

/// What a call may do beyond reading. Decides what is repeated after a crash: a call with effects never is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effects {
    None,
    Some,
}

/// One call.
#[derive(Debug)]
pub struct Call {
    pub id: String,
    pub arguments: Value,
    pub cancel: CancellationToken,
    /// Output so far, for those who watch; full means it is dropped.
    pub progress: mpsc::Sender<String>,
}

/// What a tool answers. Text from outside this program is marked as such by the turn.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// [`Part::Text`] and [`Part::Image`] only.
    pub content: Vec<Part>,
    pub is_error: bool,
    /// For programs that show the call; not given to the model.
    pub details: Option<Value>,
}

impl Answer {
    pub fn text(text: impl Into<String>) -> Self {
        Self { content: vec![Part::Text(text.into())], is_error: false, details: None }
    }

    /// What failed, why, what to do next.
    pub fn error(text: impl Into<String>) -> Self {
        Self { is_error: true, ..Self::text(text) }
    }
}

/// Something a model can use.
pub trait Tool: Send + Sync {
    fn spec(&self) -> &ToolSpec;

    fn effects(&self) -> Effects;

    /// True when its answers come from outside (the web, files, other machines): the model is told not to take orders there.
    fn untrusted(&self) -> bool {
        true
    }

    /// What untrusted answers are said to come from.
    fn source(&self) -> String {
        self.spec().name.clone()
    }

    /// How long one call may take.
    fn timeout(&self) -> Duration {
        Duration::from_secs(120)
    }

    fn call(self: Arc<Self>, call: Call) -> BoxFuture<'static, Answer>;
}
