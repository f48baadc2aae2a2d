//! What those who watch a run see of it.

use std::sync::Arc;

use openclaw_agent::{
    message::{ToolCall, ToolResult},
    provider::ModelRef,
    usage::Usage,
};
use openclaw_channels::message::Media;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

/// Events a watcher may be behind before it is told that it missed some.
pub(super) const BACKLOG: usize = 256;

/// A step of a run.
#[derive(Clone, Debug)]
pub enum RunEvent {
    /// The reply grew.
    Text {
        delta: String,
    },
    /// What was said since the last tool call is void; it is said again.
    Discarded,
    Thinking {
        delta: String,
    },
    ToolStarted {
        call: ToolCall,
    },
    ToolDone {
        result: ToolResult,
    },
    /// The watcher was slow: this many events are missing. The outcome is never among them.
    Lagged {
        missed: u64,
    },
    /// The last one.
    Ended(Arc<RunOutcome>),
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunStatus {
    Ok,
    Error,
    Aborted,
    Timeout,
}

impl RunStatus {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
            Self::Aborted => "aborted",
            Self::Timeout => "timeout",
        }
    }
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunOutcome {
    pub status: RunStatus,
    /// The reply as text; what there was of it when the run was cut short.
    pub text: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub media: Vec<Media>,
    /// Of all rounds.
    #[serde(with = "usage_json")]
    pub usage: Usage,
    /// US dollars, when the model's price is known.
    pub cost: Option<f64>,
    /// `provider/model`
    #[serde(with = "model_json")]
    pub model: Option<ModelRef>,
    /// The model that really answered, as its service names it.
    pub response_model: Option<String>,
    /// `stop`, `length`, `rpc`, `timeout`, …
    pub stop: String,
    /// What failed, why, what to do next.
    pub error: Option<String>,
    /// `refusal`, `timeout`, `rate_limit`, `context_length`, `unknown`
    pub error_kind: Option<String>,
    /// Milliseconds since 1970; `None` when it never started.
    pub started_ms: Option<i64>,
    pub ended_ms: i64,
    /// Names of the tools that answered without an error, in order.
    pub tools: Vec<String>,
    /// Calls of tools, failed ones too.
    pub tool_calls: u32,
    pub session_id: String,
}

/// The events of one run, from the moment it was asked for.
#[derive(Debug)]
pub struct RunWatch {
    events: broadcast::Receiver<RunEvent>,
    /// Of a run that ended before.
    ended: Option<Arc<RunOutcome>>,
    over: bool,
}

impl RunWatch {
    pub(super) fn live(events: broadcast::Receiver<RunEvent>) -> Self {
        Self { events, ended: None, over: false }
    }

    pub(super) fn ended(outcome: Arc<RunOutcome>) -> Self {
        Self { events: broadcast::channel(1).1, ended: Some(outcome), over: false }
    }

    /// The next event; `None` after [`RunEvent::Ended`], or when the gateway stops before the run ended. Cancel safe.
    pub async fn next(&mut self) -> Option<RunEvent> {
        if self.over {
            return None;
        }
        if let Some(outcome) = self.ended.take() {
            self.over = true;
            return Some(RunEvent::Ended(outcome));
        }
        let event = match self.events.recv().await {
            Ok(event) => event,
            Err(broadcast::error::RecvError::Lagged(missed)) => RunEvent::Lagged { missed },
            Err(broadcast::error::RecvError::Closed) => {
                self.over = true;
                return None;
            }
        };
        self.over = matches!(event, RunEvent::Ended(_));
        Some(event)
    }

    /// Waits for the end. `None` when the gateway stops before.
    pub async fn outcome(mut self) -> Option<Arc<RunOutcome>> {
        loop {
            if let RunEvent::Ended(outcome) = self.next().await? {
                return Some(outcome);
            }
        }
    }
}

mod usage_json {
    use openclaw_agent::usage::Usage;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub fn serialize<S: Serializer>(usage: &Usage, to: S) -> Result<S::Ok, S::Error> {
        [usage.input, usage.output, usage.cache_read, usage.cache_write].serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Usage, D::Error> {
        let [input, output, cache_read, cache_write] = <[u64; 4]>::deserialize(from)?;
        Ok(Usage { input, output, cache_read, cache_write })
    }
}

mod model_json {
    use openclaw_agent::provider::ModelRef;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub fn serialize<S: Serializer>(model: &Option<ModelRef>, to: S) -> Result<S::Ok, S::Error> {
        model.as_ref().map(ToString::to_string).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<ModelRef>, D::Error> {
        Ok(Option::<String>::deserialize(from)?.and_then(|text| ModelRef::parse(&text)))
    }
}
