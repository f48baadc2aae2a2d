//! What connections hear of a run: the `agent` and `chat` events, in the order and the shapes of both protocol versions.
//!
//! Deltas are joined, the more the longer the reply is: each event carries all that was said so far, so a reply of n tokens
//! told token by token would cost n². What is told per second stays the same instead.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use openclaw_agent::{message::ToolCall, provider::ModelRef};
use openclaw_protocol::{Protocol, event, limits::DROP_IF_SLOW_BYTES};
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

use super::{RunId, RunOutcome, RunStatus};
use crate::{clock::now_ms, gateway::Gateway, hub::Connection, sessions::SessionKey};

/// Sets the messages of one reply apart.
pub const BETWEEN: &str = "\n\n";
/// Longest time between two deltas.
const DELTA: Duration = Duration::from_millis(25);
/// Time between two deltas for each byte said so far: 250 kB per second are told, and the first 6 kB sooner than [`DELTA`].
const DELTA_PER_BYTE: Duration = Duration::from_micros(4);
/// Time between two `chat` deltas in protocol 3.
const DELTA_V3: Duration = Duration::from_millis(150);
/// Characters of a tool's partial output in one event.
const MAX_PROGRESS: usize = 4_000;

/// The voice of one run.
#[derive(Debug)]
pub struct Stream {
    state: Mutex<State>,
    /// There is text that was not told yet.
    due: Notify,
}

#[derive(Debug)]
struct State {
    run_id: RunId,
    key: SessionKey,
    session_id: String,
    /// Events so far, per run and protocol version: version 3 knows fewer.
    seq: u64,
    seq_v3: u64,
    /// The reply so far, where the assistant's present message begins in it, and how much of it was told.
    text: String,
    item_start: usize,
    told: usize,
    /// The next text begins a new message of the assistant.
    split: bool,
    /// Names the assistant message that grows; a new one after each tool call.
    item: u32,
    last_delta: Option<Instant>,
    last_delta_v3: Option<Instant>,
    started_ms: Option<i64>,
    /// Connections that asked for this run.
    askers: Vec<u64>,
    heartbeat: bool,
    model: Option<ModelRef>,
    over: bool,
}

impl Stream {
    pub fn new(run_id: RunId, key: SessionKey, heartbeat: bool) -> Self {
        let state = State {
            run_id,
            key,
            session_id: String::new(),
            seq: 0,
            seq_v3: 0,
            text: String::new(),
            item_start: 0,
            told: 0,
            split: false,
            item: 1,
            last_delta: None,
            last_delta_v3: None,
            started_ms: None,
            askers: Vec::new(),
            heartbeat,
            model: None,
            over: false,
        };
        Self { state: Mutex::new(state), due: Notify::new() }
    }

    fn with(&self, work: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.over {
            work(&mut state);
        }
    }

    /// This connection asked for the run, or joined it: it hears of its tools, if it can show them.
    pub fn joined(&self, connection: u64) {
        self.with(|state| {
            if connection != 0 && !state.askers.contains(&connection) {
                state.askers.push(connection);
            }
        });
    }

    /// `preparing_workspace`, `preparing_context`, `starting_model`.
    pub fn status(&self, gateway: &Gateway, phase: &str) {
        self.with(|state| {
            state.seq += 1;
            state.chat(gateway, true, &json!({"state": "status", "phase": phase}), false);
            state.agent(gateway, Audience::V4, "run_status", json!({"phase": phase}));
        });
    }

    pub fn started(&self, gateway: &Gateway, session_id: &str, at_ms: i64) {
        self.with(|state| {
            session_id.clone_into(&mut state.session_id);
            state.started_ms = Some(at_ms);
            state.next();
            state.agent(gateway, Audience::All, "lifecycle", json!({"phase": "start", "startedAt": at_ms}));
        });
    }

    /// Which model is asked now; told when it changes.
    pub fn model(&self, gateway: &Gateway, model: &ModelRef) {
        self.with(|state| {
            if state.model.as_ref() == Some(model) {
                return;
            }
            state.model = Some(model.clone());
            state.seq += 1;
            let data = json!({"phase": "model", "provider": model.provider, "model": model.model});
            state.agent(gateway, Audience::V4, "lifecycle", data);
        });
    }

    /// The reply grew. Told at once when the last time is long enough ago, by [`Stream::keep_telling`] otherwise. Returns by
    /// how much: messages of one run are set apart by an empty line.
    pub fn text(&self, gateway: &Gateway, delta: &str) -> String {
        let mut grown = delta.to_owned();
        self.with(|state| {
            if std::mem::take(&mut state.split) {
                state.tell(gateway);
                if !state.text.is_empty() {
                    state.text.push_str(BETWEEN);
                    grown.insert_str(0, BETWEEN);
                }
                state.item += 1;
                state.item_start = state.text.len();
            }
            state.text.push_str(delta);
            if state.wait().is_zero() {
                state.tell(gateway);
            } else {
                self.due.notify_one();
            }
        });
        grown
    }

    /// A message of the assistant is complete.
    pub fn message_done(&self, gateway: &Gateway) {
        self.with(|state| {
            state.tell(gateway);
            state.split = true;
        });
    }

    /// What was said before, of a run that goes on after a restart.
    pub fn resume(&self, text: &str) {
        self.with(|state| {
            state.text = text.to_owned();
            state.told = text.len();
            state.split = true;
        });
    }

    /// Tells what waits, until it is dropped. One per run.
    pub async fn keep_telling(&self, gateway: Arc<Gateway>) {
        loop {
            self.due.notified().await;
            let mut wait = Duration::ZERO;
            self.with(|state| wait = state.wait());
            tokio::time::sleep(wait).await;
            self.with(|state| state.tell(&gateway));
        }
    }

    /// What was said since the last complete message is void.
    pub fn discarded(&self, gateway: &Gateway) {
        self.with(|state| {
            if state.split || state.text.len() == state.item_start {
                return;
            }
            let kept = state.text.get(..state.item_start).unwrap_or_default().trim_end().to_owned();
            state.text = kept;
            state.told = state.text.len();
            state.item_start = state.text.len();
            state.split = true;
            state.next();
            let data = json!({"text": "", "delta": "", "replace": true});
            state.agent(gateway, Audience::All, "assistant", data);
            let chat = json!({"state": "delta", "deltaText": "", "replace": true, "message": assistant(&state.text)});
            state.chat(gateway, false, &chat, true);
        });
    }

    pub fn thinking(&self, gateway: &Gateway, text: &str, delta: &str) {
        self.with(|state| {
            state.next();
            state.agent(gateway, Audience::All, "thinking", json!({"text": text, "delta": delta}));
        });
    }

    pub fn tool_started(&self, gateway: &Gateway, call: &ToolCall) {
        self.tool(
            gateway,
            |_| json!({"phase": "start", "name": call.name, "toolCallId": call.id, "args": call.arguments}),
        );
    }

    pub fn tool_progress(&self, gateway: &Gateway, name: &str, call_id: &str, text: &str) {
        let shown: String = text.chars().take(MAX_PROGRESS).collect();
        self.tool(gateway, |_| {
            let partial = json!({"content": [{"type": "text", "text": shown}]});
            json!({"phase": "update", "name": name, "toolCallId": call_id, "partialResult": partial})
        });
    }

    /// `result` is `{content, details?}`.
    pub fn tool_done(&self, gateway: &Gateway, name: &str, call_id: &str, result: Value, is_error: bool) {
        self.tool(
            gateway,
            |_| json!({"phase": "result", "name": name, "toolCallId": call_id, "result": result, "isError": is_error}),
        );
    }

    fn tool(&self, gateway: &Gateway, data: impl FnOnce(&mut State) -> Value) {
        self.with(|state| {
            state.tell(gateway);
            let data = data(state);
            state.next();
            state.agent(gateway, Audience::Askers, "tool", data.clone());
            let mut payload = state.payload(Protocol::V4);
            payload.insert("stream".into(), json!("tool"));
            payload.insert("ts".into(), json!(now_ms()));
            payload.insert("data".into(), data);
            // Those who follow the conversation, without having asked for this run.
            let (key, askers) = (&state.key, &state.askers);
            let hearers = gateway.sessions.subscriptions().hearers(key);
            if !hearers.is_empty() {
                gateway.hub.send_where(
                    event::SESSION_TOOL,
                    |_| &payload,
                    |c| !askers.contains(&c.number) && hearers.contains(&c.number),
                );
            }
        });
    }

    /// The conversation is being made shorter: `start`, `end`.
    pub fn compaction(&self, gateway: &Gateway, phase: &str) {
        self.with(|state| {
            state.tell(gateway);
            state.seq += 1;
            state.agent(gateway, Audience::V4, "compaction", json!({"phase": phase}));
        });
    }

    pub fn usage(&self, gateway: &Gateway, output_tokens: u64) {
        self.with(|state| {
            state.tell(gateway);
            state.seq += 1;
            state.agent(gateway, Audience::V4, "usage", json!({"outputTokens": output_tokens}));
        });
    }

    /// The last text is told; the end follows.
    pub fn finishing(&self, gateway: &Gateway, stop: &str, aborted: bool) {
        self.with(|state| {
            state.tell(gateway);
            state.seq += 1;
            let data = json!({
                "phase": "finishing", "stopReason": stop, "aborted": aborted, "livenessState": "working",
                "endedAt": now_ms(),
            });
            state.agent(gateway, Audience::V4, "lifecycle", data);
            if state.model.take().is_some() {
                state.seq += 1;
                let data = json!({"phase": "model", "provider": null, "model": null});
                state.agent(gateway, Audience::V4, "lifecycle", data);
            }
        });
    }

    /// The end, for a run that was answered or failed.
    pub fn ended(&self, gateway: &Gateway, outcome: &RunOutcome, requested: Option<&ModelRef>) {
        self.with(|state| {
            state.tell(gateway);
            state.over = true;
            let failed = matches!(outcome.status, RunStatus::Error | RunStatus::Timeout);
            let started = state.started_ms.or(outcome.started_ms);
            state.next();
            let mut data = Map::new();
            data.insert("phase".into(), json!(if failed { "error" } else { "end" }));
            if let Some(started) = started {
                data.insert("startedAt".into(), json!(started));
            }
            data.insert("endedAt".into(), json!(outcome.ended_ms));
            data.insert("aborted".into(), json!(false));
            data.insert("stopReason".into(), json!(outcome.stop));
            data.insert("executionSettled".into(), json!(true));
            if failed {
                data.insert("error".into(), json!(outcome.error.as_deref().unwrap_or("the run failed")));
            } else {
                data.insert("livenessState".into(), json!("working"));
                data.insert("terminalReply".into(), terminal_reply(outcome));
                data.insert("terminalReceipt".into(), terminal_receipt(&state.run_id, outcome, requested));
            }
            state.agent(gateway, Audience::All, "lifecycle", Value::Object(data));
            let chat = if failed {
                json!({
                    "state": "error",
                    "errorMessage": outcome.error.as_deref().unwrap_or("the run failed"),
                    "errorKind": outcome.error_kind.as_deref().unwrap_or("unknown"),
                })
            } else if outcome.text.is_empty() && outcome.media.is_empty() {
                json!({"state": "final", "stopReason": outcome.stop})
            } else {
                json!({"state": "final", "stopReason": outcome.stop, "message": assistant(&outcome.text)})
            };
            state.chat(gateway, false, &chat, false);
        });
    }

    /// The end, for a run that somebody ended: before the answer to whoever did. True when there was something to end.
    pub fn aborted(&self, gateway: &Gateway, stop: &str) -> bool {
        let mut told = false;
        self.with(|state| {
            told = true;
            state.over = true;
            state.next();
            let mut chat = json!({"state": "aborted", "stopReason": stop});
            if !state.text.is_empty() {
                chat["message"] = assistant(&state.text);
            }
            state.chat(gateway, false, &chat, false);
            let data = json!({
                "phase": "end", "status": "cancelled", "aborted": true, "stopReason": stop,
                "startedAt": state.started_ms.unwrap_or_else(now_ms), "endedAt": now_ms(),
            });
            state.agent(gateway, Audience::V4, "lifecycle", data);
        });
        told
    }

    /// A message that no run wrote.
    pub fn injected(&self, gateway: &Gateway, text: &str) {
        self.with(|state| {
            state.over = true;
            state.chat(gateway, false, &json!({"state": "final", "message": assistant(text)}), false);
        });
    }

    /// The gateway stops; the run goes on after the restart.
    pub fn suspended(&self) {
        self.with(|state| state.over = true);
    }
}

/// Who hears an `agent` event.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Audience {
    All,
    /// What protocol 3 does not have.
    V4,
    /// Connections that asked for the run and can show tools.
    Askers,
}

impl State {
    fn next(&mut self) {
        self.seq += 1;
        self.seq_v3 += 1;
    }

    /// Until the next delta may be told.
    fn wait(&self) -> Duration {
        let bytes = u32::try_from(self.text.len()).unwrap_or(u32::MAX);
        let pause = DELTA_PER_BYTE.saturating_mul(bytes).min(DELTA);
        self.last_delta.map_or(Duration::ZERO, |at| pause.saturating_sub(at.elapsed()))
    }

    /// Tells the text that was not told yet.
    fn tell(&mut self, gateway: &Gateway) {
        if self.told == self.text.len() {
            return;
        }
        let now = Instant::now();
        let delta = self.text.get(self.told..).unwrap_or_default().to_owned();
        let said = self.text.get(self.item_start..).unwrap_or_default();
        let grown = self.text.get(self.told.max(self.item_start)..).unwrap_or_default();
        let item = format!("{}:{}", self.run_id.0, self.item);
        let data = json!({"text": said, "delta": grown, "itemId": item});
        self.told = self.text.len();
        self.last_delta = Some(now);
        self.next();
        self.agent(gateway, Audience::All, "assistant", data);
        let v3_too = self.last_delta_v3.is_none_or(|at| now.duration_since(at) >= DELTA_V3);
        if v3_too {
            self.last_delta_v3 = Some(now);
        }
        let chat = json!({"state": "delta", "deltaText": delta, "message": assistant(&self.text)});
        self.chat(gateway, !v3_too, &chat, true);
    }

    fn payload(&self, protocol: Protocol) -> Map<String, Value> {
        let mut payload = Map::new();
        payload.insert("runId".into(), json!(self.run_id.0));
        payload.insert("sessionKey".into(), json!(self.key.as_str()));
        if protocol != Protocol::V3 {
            payload.insert("agentId".into(), json!(self.key.agent()));
        }
        payload.insert("seq".into(), json!(if protocol == Protocol::V3 { self.seq_v3 } else { self.seq }));
        payload
    }

    fn chat(&self, gateway: &Gateway, v4_only: bool, fields: &Value, delta: bool) {
        let payload = |protocol| {
            let mut payload = self.payload(protocol);
            let fields = fields.as_object().into_iter().flatten();
            payload.extend(fields.map(|(name, value)| (name.clone(), value.clone())));
            payload
        };
        let event = if delta { event::CHAT_DELTA } else { event::CHAT };
        gateway
            .hub
            .send_where(event, payload, |c| (!v4_only || c.protocol != Protocol::V3) && hears(gateway, c, &self.key));
        self.tell_nodes(gateway, event, v4_only, payload);
    }

    fn agent(&self, gateway: &Gateway, audience: Audience, stream: &str, data: Value) {
        let now = now_ms();
        let payload = |protocol| {
            let mut payload = self.payload(protocol);
            payload.insert("stream".into(), json!(stream));
            payload.insert("data".into(), data.clone());
            payload.insert("ts".into(), json!(now));
            if protocol != Protocol::V3 {
                if stream == "lifecycle" && !self.session_id.is_empty() {
                    payload.insert("sessionId".into(), json!(self.session_id));
                }
                payload.insert("isHeartbeat".into(), json!(self.heartbeat));
            }
            payload
        };
        gateway.hub.send_where(event::AGENT, payload, |c| match audience {
            Audience::All => hears(gateway, c, &self.key),
            Audience::V4 => c.protocol != Protocol::V3 && hears(gateway, c, &self.key),
            Audience::Askers => can(c, "tool-events") && self.askers.contains(&c.number),
        });
        if audience != Audience::Askers {
            self.tell_nodes(gateway, event::AGENT, audience == Audience::V4, payload);
        }
    }

    /// Nodes that follow the conversation hear it too, point to point: without numbers, as in the reference.
    fn tell_nodes(
        &self,
        gateway: &Gateway,
        event: event::Event,
        v4_only: bool,
        payload: impl Fn(Protocol) -> Map<String, Value>,
    ) {
        for number in gateway.sessions.subscriptions().nodes_of(&self.key) {
            let Some(node) = gateway.hub.get(number) else { continue };
            let slow = event.drop_if_slow && node.outbound.pending_bytes() > DROP_IF_SLOW_BYTES;
            if slow || (v4_only && node.protocol == Protocol::V3) {
                continue;
            }
            node.send_event(event.name, &payload(node.protocol));
        }
    }
}

/// Every operator hears every conversation, except those who said that they want to hear only what they follow.
fn hears(gateway: &Gateway, connection: &Connection, key: &SessionKey) -> bool {
    gateway.sessions.subscriptions().streams_to(connection, key)
}

fn can(connection: &Connection, cap: &str) -> bool {
    connection.params.caps.iter().any(|has| has == cap)
}

fn assistant(text: &str) -> Value {
    json!({"role": "assistant", "content": [{"type": "text", "text": text}], "timestamp": now_ms()})
}

/// What was answered, in short.
pub fn terminal_reply(outcome: &RunOutcome) -> Value {
    match outcome.text.is_empty() {
        true => json!({"disposition": "silent"}),
        false => json!({"disposition": "visible", "text": outcome.text}),
    }
}

/// Who answered, with what.
pub fn terminal_receipt(run_id: &RunId, outcome: &RunOutcome, requested: Option<&ModelRef>) -> Value {
    let named = |model: &ModelRef| json!({"provider": model.provider, "model": model.model});
    let mut receipt = json!({
        "runId": run_id.0,
        "sessionId": outcome.session_id,
        "turnId": run_id.0,
        "successfulToolNames": outcome.tools,
        "rerouted": matches!((requested, &outcome.model), (Some(one), Some(two)) if one != two),
        "terminalDisposition": if outcome.text.is_empty() { "silent" } else { "visible" },
    });
    if let Some(model) = requested.or(outcome.model.as_ref()) {
        receipt["requested"] = named(model);
    }
    if let Some(model) = &outcome.model {
        receipt["effective"] = named(model);
        receipt["effective"]["responseModel"] = json!(outcome.response_model.as_deref().unwrap_or(&model.model));
    }
    receipt
}
