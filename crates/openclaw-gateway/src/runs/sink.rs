//! Hears a turn: keeps what must not be lost, then tells those who watch.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::future::BoxFuture;
use openclaw_agent::{
    message::{Message, Part, ToolResult},
    provider::ModelRef,
    tool::Effects,
    turn::{Candidate, Event, Sink, SinkFailed},
    usage::{Price, Usage},
};
use serde_json::{Value, json};

use super::{
    RunEvent, RunOutcome, RunStatus, WhenBusy,
    execute::{Begun, append, joined},
    live::Live,
    record::{Delivery, RunChange},
    stream::BETWEEN,
    take_joining,
};
use crate::{
    clock::now_ms,
    gateway::Gateway,
    sessions::{self, Answered, NewMessage, events::Changed},
};

/// See the module documentation.
pub struct Keeper<'a> {
    gateway: &'a Arc<Gateway>,
    live: &'a Arc<Live>,
    begun: &'a Begun,
    candidates: &'a [Candidate],
    /// Tools that run now; while there are none, the turn can be dropped without losing anything.
    pub running: Arc<AtomicUsize>,
    /// All that was said, and the part that is not yet a complete message.
    pub text: String,
    pub partial: String,
    thinking: String,
    names: HashMap<String, String>,
    /// The last message, kept together with the end of the run.
    pub last: Option<(Message, Answered)>,
    pub response_model: Option<String>,
    /// Tools that answered without an error.
    pub tools: Vec<String>,
    pub cost: Option<f64>,
    /// Of the last prompt: what the conversation takes of the context.
    pub context: u64,
    round: Usage,
    steered: Vec<Arc<Live>>,
}

impl<'a> Keeper<'a> {
    pub fn new(gateway: &'a Arc<Gateway>, live: &'a Arc<Live>, begun: &'a Begun, candidates: &'a [Candidate]) -> Self {
        Self {
            gateway,
            live,
            begun,
            candidates,
            running: Arc::default(),
            text: begun.said.clone(),
            partial: String::new(),
            thinking: String::new(),
            names: HashMap::new(),
            last: None,
            response_model: None,
            tools: Vec::new(),
            cost: None,
            context: 0,
            round: Usage::default(),
            steered: Vec::new(),
        }
    }

    fn price(&self, model: &ModelRef) -> Option<Price> {
        self.candidates.iter().find(|candidate| candidate.model.reference == *model)?.model.price
    }

    /// The text so far, a message that was cut short included.
    pub fn whole_text(&self) -> String {
        joined(&self.text, &self.partial)
    }

    async fn hear(&mut self, event: Event) -> Result<(), SinkFailed> {
        let stopping = self.gateway.cancel.is_cancelled();
        if stopping && !matches!(event, Event::ToolDone { .. }) {
            return Err(SinkFailed("the gateway stops".into()));
        }
        let (gateway, live) = (self.gateway, self.live);
        match event {
            Event::Asking { model, attempt } => {
                live.stream.model(gateway, &model);
                if attempt == 1 {
                    let phase = Changed::Phase { phase: "model", run_id: &live.id().0 };
                    sessions::events::changed(gateway, &live.request.session, phase);
                }
            }
            Event::Discarded { error, .. } => {
                tracing::warn!(run = live.id().0, "asking again: {error}");
                self.partial.clear();
                self.thinking.clear();
                live.stream.discarded(gateway);
                live.tell(RunEvent::Discarded);
            }
            Event::Text { delta } => {
                self.partial.push_str(&delta);
                let grown = live.stream.text(gateway, &delta);
                live.tell(RunEvent::Text { delta: grown });
            }
            Event::Thinking { delta } => {
                self.thinking.push_str(&delta);
                live.stream.thinking(gateway, &self.thinking, &delta);
                live.tell(RunEvent::Thinking { delta });
            }
            Event::Usage { round } => self.round = round,
            Event::Assistant { message, model, response_model, response_id, usage, stop } => {
                self.round = usage;
                self.context = usage.input + usage.cache_read + usage.cache_write + usage.output;
                if let Some(price) = self.price(&model) {
                    *self.cost.get_or_insert(0.0) += price.cost(usage);
                }
                self.partial.clear();
                self.thinking.clear();
                self.text = joined(&self.text, &message.text());
                live.stream.message_done(gateway);
                live.stream.usage(gateway, usage.output);
                self.response_model.clone_from(&response_model);
                let price = self.price(&model);
                let api = gateway.runs.models().api_of(&model);
                let answered =
                    Answered { model, api, response_model, response_id, usage, price, stop: stop.into(), error: None };
                if message.tool_calls().next().is_none() {
                    self.last = Some((message, answered));
                } else {
                    let row = NewMessage::assistant(&message.parts, &answered).run(&live.id().0);
                    self.keep(vec![row], Vec::new()).await?;
                }
            }
            Event::ToolStarted { call, effects } => {
                if effects == Effects::Some {
                    let started = RunChange::ToolStarted {
                        run_id: live.id().clone(),
                        call_id: call.id.clone(),
                        name: call.name.clone(),
                        at_ms: now_ms(),
                    };
                    let saved = gateway.store.commit([started]).await;
                    saved.map_err(|error| SinkFailed(error.to_string()))?;
                }
                self.names.insert(call.id.clone(), call.name.clone());
                self.running.fetch_add(1, Ordering::SeqCst);
                live.stream.tool_started(gateway, &call);
                live.tell(RunEvent::ToolStarted { call });
            }
            Event::ToolProgress { call_id, text } => {
                let name = self.names.get(&call_id).map_or("tool", String::as_str);
                live.stream.tool_progress(gateway, name, &call_id, &text);
            }
            Event::ToolDone { result, details } => {
                self.running.fetch_sub(1, Ordering::SeqCst);
                if stopping && result.is_error {
                    // It may have failed because of the stop. What has effects is told after the restart, the rest is
                    // done again.
                    return Err(SinkFailed("the gateway stops".into()));
                }
                self.tool_done(result, details).await?;
                if stopping {
                    return Err(SinkFailed("the gateway stops".into()));
                }
            }
            Event::Steered { .. } => self.steered().await?,
        }
        Ok(())
    }

    async fn tool_done(&mut self, result: ToolResult, details: Option<Value>) -> Result<(), SinkFailed> {
        let (gateway, live) = (self.gateway, self.live);
        let row = NewMessage::tool_result(&result, details.as_ref()).run(&live.id().0);
        let ended = RunChange::ToolEnded { run_id: live.id().clone(), call_id: result.call_id.clone() };
        self.keep(vec![row], vec![ended]).await?;
        if !result.is_error && !self.tools.contains(&result.name) {
            self.tools.push(result.name.clone());
        }
        let mut shown = json!({"content": shown(&result.content)});
        if let Some(details) = details {
            shown["details"] = details;
        }
        live.stream.tool_done(gateway, &result.name, &result.call_id, shown, result.is_error);
        live.tell(RunEvent::ToolDone { result });
        Ok(())
    }

    /// Those who joined are part of this run now.
    async fn steered(&mut self) -> Result<(), SinkFailed> {
        let (gateway, live) = (self.gateway, self.live);
        let joining = std::mem::take(&mut self.steered);
        let rows = joining.iter().map(|other| super::execute::user_row(other)).collect();
        let outcome = |other: &Live| merged(other, live, self.begun.session_id.as_str());
        let ends = joining.iter().map(|other| {
            let outcome = Box::new(outcome(other));
            RunChange::Ended { run_id: other.id().clone(), outcome, delivery: Delivery::None }
        });
        let kept = self.keep(rows, ends.collect()).await;
        for other in joining {
            let outcome = Arc::new(outcome(&other));
            {
                let mut state = gateway.runs.lock();
                state.live.remove(other.id());
                if kept.is_ok() {
                    state.remember(&other, &outcome);
                }
            }
            if kept.is_ok() {
                other.stream.ended(gateway, &outcome, None);
                other.tell_end(&outcome);
            }
        }
        super::show(gateway, &live.request.session);
        kept
    }

    async fn keep(&self, rows: Vec<NewMessage>, changes: Vec<RunChange>) -> Result<(), SinkFailed> {
        let kept = append(self.gateway, self.live, &self.begun.session_id, rows, changes, |_| {}).await;
        kept.map_err(|error| SinkFailed(error.to_string()))
    }
}

impl Sink for Keeper<'_> {
    fn event(&mut self, event: Event) -> BoxFuture<'_, Result<(), SinkFailed>> {
        Box::pin(self.hear(event))
    }

    fn steering(&mut self) -> Vec<Message> {
        if self.gateway.draining.is_cancelled() {
            return Vec::new();
        }
        self.steered = take_joining(self.gateway, self.live, WhenBusy::Steer);
        self.steered.iter().map(|other| super::execute::user_message(other)).collect()
    }
}

/// The end of a run whose message another one answers.
pub fn merged(other: &Live, into: &Live, session_id: &str) -> RunOutcome {
    tracing::info!(run = other.id().0, into = into.id().0, "answered together");
    RunOutcome {
        status: RunStatus::Ok,
        stop: "merged".into(),
        started_ms: Some(now_ms()),
        session_id: session_id.to_owned(),
        ..RunOutcome::empty(now_ms())
    }
}

/// Content as events show it; pictures only by their kind.
fn shown(content: &[Part]) -> Vec<Value> {
    let each = content.iter().filter_map(|part| match part {
        Part::Text(text) => Some(json!({"type": "text", "text": text})),
        Part::Image { mime, .. } => Some(json!({"type": "image", "mimeType": mime, "omitted": true})),
        _ => None,
    });
    each.collect()
}

/// For [`joined`]: the same gap that streams show.
pub const GAP: &str = BETWEEN;
