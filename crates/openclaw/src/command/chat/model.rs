//! What the terminal interface knows, and what follows from what happens. No terminal, no socket, no clock of its own:
//! events come in, and what is to be done comes out.
//!
//! ```text
//! keys ──────────┐                      ┌─> Do::Call ──> the gateway ──> Event::Answer ─┐
//! gateway events ├─> Model::update ─────┼─> Do::Read ──> a file ───────> Event::Read    │
//! path notices ──┘        ^             └─> Do::Quit, Do::Suspend, Do::Repaint          │
//!                         └─────────────────────────────────────────────────────────────┘
//! ```

use std::collections::HashSet;

use openclaw_protocol::method::exec::{ApprovalResolvedEvent, Decision, PendingApproval};
use ratatui::crossterm::event::KeyEvent;
use serde_json::{Value, json};

use super::{
    approval::Approvals,
    editor::Editor,
    picker::{Choice, Picker, State},
    slash::{self, Known},
    transcript::{Entry, Sent, Tone, Transcript},
    wire::{self, AgentEvent, ChatEvent, ChatState, Message, Row, Step, same_session, text},
};
use crate::output::{inert, time};

/// Most rows of history that a gateway gives at once (methods notes: limit 1..1000).
pub const MAX_HISTORY: usize = 1000;
/// How long a hint stays.
const HINT_MS: i64 = 4000;

/// How a conversation begins.
#[derive(Clone, Debug, Default)]
pub struct Start {
    pub session: String,
    pub history: usize,
    pub thinking: Option<String>,
    pub deliver: bool,
    /// Sent once connected.
    pub message: Option<String>,
    /// For how long the gateway may work on a message, in milliseconds.
    pub timeout_ms: Option<u64>,
}

/// What happens.
#[derive(Debug)]
pub enum Event {
    Key(KeyEvent),
    Paste(String),
    /// Lines up (positive) or down.
    Wheel(isize),
    Tick,
    /// Connected for the first time.
    Connected {
        methods: Vec<String>,
        version: String,
        may_approve: bool,
    },
    /// On this path from now on; `came_back` after a time without one.
    Path {
        path: String,
        came_back: bool,
    },
    Away(String),
    /// Events may be missing.
    Missed,
    Gateway {
        name: String,
        payload: Value,
    },
    Answer {
        ask: Ask,
        outcome: Result<Value, Refusal>,
    },
    /// A file was read, or why not.
    Read {
        path: String,
        outcome: Result<Attachment, String>,
    },
}

/// Why a call was not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub text: String,
    /// Nobody knows whether it was done.
    pub unknown: bool,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Do {
    Call {
        ask: Ask,
        method: &'static str,
        params: Value,
    },
    /// As a call that is made again on each new connection.
    Subscribe {
        method: &'static str,
        params: Value,
    },
    Read(String),
    Quit,
    Suspend,
    /// Draw everything anew.
    Repaint,
}

/// What a call was for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    History { session: String },
    Send { key: String, session: String },
    Abort,
    Wait { run: String },
    Info { session: String },
    Sessions,
    Search,
    Models,
    Agents,
    Commands,
    Approvals,
    Decide { id: String, decision: Decision },
    Patch { done: String },
}

/// A file to be sent with the next message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    pub name: String,
    pub mime: String,
    pub base64: String,
    pub bytes: usize,
}

#[derive(Debug)]
pub struct Run {
    pub id: String,
    pub started_ms: i64,
    /// What it does, in a word.
    pub phase: String,
    /// Started here.
    pub ours: bool,
    pub stopping: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Connection {
    Connecting,
    Up(String),
    Away(String),
}

/// What lies over the conversation.
#[derive(Debug)]
pub enum Overlay {
    Pick(Kind, Picker),
    /// A line to be written: what for, and the text.
    Rename {
        session: String,
        text: Editor,
    },
    Keys,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Sessions,
    Models,
    Agents,
    Search,
}

pub struct Model {
    pub start: Start,
    pub session: Row,
    pub transcript: Transcript,
    pub editor: Editor,
    pub attachments: Vec<Attachment>,
    pub approvals: Approvals,
    pub overlay: Option<Overlay>,
    pub run: Option<Run>,
    pub connection: Connection,
    pub commands: Vec<Known>,
    /// Which completion is chosen.
    pub completion: usize,
    pub completion_closed: bool,
    /// Lines from the end of the conversation.
    pub scroll: usize,
    /// Lines there were when it was last drawn, and how many fit.
    pub drawn: (usize, usize),
    pub show_thinking: bool,
    pub open_tools: bool,
    pub loading: bool,
    pub has_more: bool,
    pub hint: Option<(Tone, String, i64)>,
    pub now_ms: i64,
    pub version: String,
    pub(super) methods: HashSet<String>,
    pub(super) may_approve: bool,
    /// When Ctrl-C was last pressed on an empty field.
    pub(super) leaving_ms: Option<i64>,
    /// Runs that ended: what still trickles in of them is not shown.
    ended: Vec<String>,
    counter: u64,
    seed: String,
}

impl Model {
    /// `seed` makes the keys of messages unlike those of any other program.
    pub fn new(start: Start, now_ms: i64, seed: String) -> Self {
        Self {
            session: Row { key: start.session.clone(), ..Row::default() },
            start,
            transcript: Transcript::default(),
            editor: Editor::default(),
            attachments: Vec::new(),
            approvals: Approvals::default(),
            overlay: None,
            run: None,
            connection: Connection::Connecting,
            commands: slash::ours(),
            completion: 0,
            completion_closed: false,
            scroll: 0,
            drawn: (0, 0),
            show_thinking: false,
            open_tools: false,
            loading: true,
            has_more: false,
            hint: None,
            now_ms,
            version: String::new(),
            methods: HashSet::new(),
            may_approve: false,
            leaving_ms: None,
            ended: Vec::new(),
            counter: 0,
            seed,
        }
    }

    /// Whether the gateway has a method. One that lists none is asked.
    pub fn has(&self, method: &str) -> bool {
        self.methods.is_empty() || self.methods.contains(method)
    }

    /// True while something moves on the screen by itself.
    pub fn is_busy(&self) -> bool {
        self.run.is_some() || self.loading || self.transcript.is_sending() || self.connection == Connection::Connecting
    }

    pub(super) fn fresh_key(&mut self) -> String {
        self.counter += 1;
        format!("{}-{}", self.seed, self.counter)
    }

    pub(super) fn hint(&mut self, tone: Tone, text: impl Into<String>) {
        self.hint = Some((tone, text.into(), self.now_ms.saturating_add(HINT_MS)));
    }

    pub fn update(&mut self, event: Event) -> Vec<Do> {
        match event {
            Event::Key(key) => self.key(key),
            Event::Paste(text) => self.pasted(&text),
            Event::Wheel(lines) => {
                self.scroll_by(lines);
                Vec::new()
            }
            Event::Tick => {
                if self.hint.as_ref().is_some_and(|(_, _, until)| *until <= self.now_ms) {
                    self.hint = None;
                }
                for late in self.approvals.expired(self.now_ms) {
                    let command = inert(&late.request.command).into_owned();
                    self.transcript.note(Tone::Warn, format!("nobody answered in time: {command}"));
                }
                Vec::new()
            }
            Event::Connected { methods, version, may_approve } => self.connected(methods, version, may_approve),
            Event::Path { path, came_back } => {
                if came_back {
                    self.hint(Tone::Good, format!("connected again by {path}"));
                }
                self.connection = Connection::Up(path);
                Vec::new()
            }
            Event::Away(why) => {
                self.connection = Connection::Away(why);
                Vec::new()
            }
            Event::Missed => self.reload(),
            Event::Gateway { name, payload } => self.happened(&name, &payload),
            Event::Answer { ask, outcome } => self.answered(ask, outcome),
            Event::Read { path, outcome } => {
                match outcome {
                    Ok(file) => {
                        let kib = file.bytes.div_ceil(1024);
                        self.hint(Tone::Good, format!("{} ({kib} KiB) goes with the next message", file.name));
                        self.attachments.push(file);
                    }
                    Err(why) => self.transcript.note(Tone::Bad, format!("{path} is not attached: {why}")),
                }
                Vec::new()
            }
        }
    }

    fn connected(&mut self, methods: Vec<String>, version: String, may_approve: bool) -> Vec<Do> {
        self.methods = methods.into_iter().collect();
        self.version = version;
        self.may_approve = may_approve;
        let mut todo = Vec::new();
        if self.has("sessions.subscribe") && !self.methods.is_empty() {
            todo.push(Do::Subscribe { method: "sessions.subscribe", params: json!({}) });
        }
        todo.extend(self.load());
        if self.has("commands.list") {
            todo.push(self.call(Ask::Commands, "commands.list", json!({"scope": "text"})));
        }
        todo.extend(self.ask_approvals());
        if let Some(message) = self.start.message.take() {
            todo.extend(self.send(message));
        }
        todo
    }

    fn call(&self, ask: Ask, method: &'static str, params: Value) -> Do {
        Do::Call { ask, method, params }
    }

    fn ask_approvals(&self) -> Option<Do> {
        let lists = self.may_approve && self.has("exec.approval.list");
        lists.then(|| self.call(Ask::Approvals, "exec.approval.list", json!({})))
    }

    /// The history of the session, and its figures where the history has none.
    pub(super) fn load(&mut self) -> Vec<Do> {
        self.loading = true;
        let session = self.session.key.clone();
        let params = json!({"sessionKey": session, "limit": self.start.history.clamp(1, MAX_HISTORY)});
        vec![self.call(Ask::History { session }, "chat.history", params)]
    }

    /// Reads again what events may not have told.
    fn reload(&mut self) -> Vec<Do> {
        let mut todo = self.load();
        todo.extend(self.ask_approvals());
        if let Some(run) = self.run.as_ref().map(|run| run.id.clone()).filter(|_| self.has("agent.wait")) {
            let params = json!({"runId": run, "timeoutMs": 1});
            todo.push(self.call(Ask::Wait { run }, "agent.wait", params));
        }
        todo
    }

    /// Another session takes the place of this one.
    pub(super) fn switch(&mut self, key: &str) -> Vec<Do> {
        self.overlay = None;
        if same_session(key, &self.session.key) {
            return Vec::new();
        }
        self.session = Row { key: key.to_owned(), ..Row::default() };
        self.transcript = Transcript::default();
        self.run = None;
        self.scroll = 0;
        self.drawn.0 = 0;
        self.has_more = false;
        self.load()
    }

    /// A session nobody used before: the gateway makes it with the first message.
    pub(super) fn fresh_session(&mut self) -> Vec<Do> {
        let own = self.fresh_key();
        let key = format!("agent:{}:tui-{own}", self.session.agent());
        let todo = self.switch(&key);
        self.hint(Tone::Info, "a new conversation; it is kept from the first message on");
        todo
    }

    pub(super) fn send(&mut self, message: String) -> Vec<Do> {
        let key = self.fresh_key();
        let session = self.session.key.clone();
        let mut params =
            json!({"sessionKey": session, "message": message, "idempotencyKey": key, "deliver": self.start.deliver});
        if let Some(thinking) = &self.start.thinking {
            params["thinking"] = json!(thinking);
        }
        if let Some(timeout) = self.start.timeout_ms {
            params["timeoutMs"] = json!(timeout);
        }
        let files = std::mem::take(&mut self.attachments);
        let media = files.iter().map(|file| file.name.clone()).collect();
        if !files.is_empty() {
            let file = |file: Attachment| {
                let kind = if file.mime.starts_with("image/") { "image" } else { "file" };
                json!({"type": kind, "mimeType": file.mime, "fileName": file.name, "content": file.base64})
            };
            params["attachments"] = files.into_iter().map(file).collect();
        }
        self.transcript.push(Entry::User { text: message, media, sent: Sent::Sending, key: Some(key.clone()) });
        self.scroll = 0;
        vec![self.call(Ask::Send { key, session }, "chat.send", params)]
    }

    pub(super) fn abort(&mut self) -> Vec<Do> {
        let Some(run) = &mut self.run else {
            self.hint(Tone::Info, "nothing runs");
            return Vec::new();
        };
        if std::mem::replace(&mut run.stopping, true) {
            return Vec::new();
        }
        run.phase = "stopping".to_owned();
        let params = json!({"sessionKey": self.session.key, "runId": run.id});
        vec![self.call(Ask::Abort, "chat.abort", params)]
    }

    pub(super) fn open(&mut self, kind: Kind) -> Vec<Do> {
        self.overlay = Some(Overlay::Pick(kind, Picker::default()));
        let agent = self.session.agent().to_owned();
        match kind {
            Kind::Sessions => {
                let mut params = json!({"limit": 200, "includeDerivedTitles": true, "includeLastMessage": true});
                params["includeGlobal"] = json!(true);
                vec![self.call(Ask::Sessions, "sessions.list", params)]
            }
            Kind::Models => {
                // Protocol 3 lists without parameters.
                let params = if self.has("sessions.describe") { json!({"agentId": agent}) } else { json!({}) };
                vec![self.call(Ask::Models, "models.list", params)]
            }
            Kind::Agents => vec![self.call(Ask::Agents, "agents.list", json!({}))],
            Kind::Search => Vec::new(),
        }
    }

    pub(super) fn search(&mut self, words: &str) -> Vec<Do> {
        if !self.has("sessions.search") {
            self.transcript.note(Tone::Warn, "This gateway cannot search conversations.");
            return Vec::new();
        }
        self.open(Kind::Search);
        vec![self.call(Ask::Search, "sessions.search", json!({"query": words, "limit": 25}))]
    }

    pub(super) fn patch(&mut self, field: &str, value: Value, done: String) -> Vec<Do> {
        let mut params = json!({"key": self.session.key});
        params[field] = value;
        vec![self.call(Ask::Patch { done }, "sessions.patch", params)]
    }

    pub(super) fn use_model(&mut self, model: &str) -> Vec<Do> {
        let value = if model == "default" { Value::Null } else { json!(model) };
        self.patch("model", value, format!("model: {model}"))
    }

    fn happened(&mut self, name: &str, payload: &Value) -> Vec<Do> {
        match name {
            "chat" => ChatEvent::of(payload).map(|event| self.chat(event)).unwrap_or_default(),
            "agent" => {
                if let Some(event) = AgentEvent::of(payload) {
                    self.agent(event);
                }
                Vec::new()
            }
            "exec.approval.requested" => {
                if let Some(approval) = pending(payload) {
                    self.approvals.add(approval);
                }
                Vec::new()
            }
            "exec.approval.resolved" => {
                let Ok(resolved) = serde_json::from_value::<ApprovalResolvedEvent>(payload.clone()) else {
                    // Protocol 3 says less; what was decided it says.
                    let approval = payload["id"].as_str().and_then(|id| self.approvals.remove(id));
                    let decision = payload["decision"].as_str().and_then(Decision::parse);
                    if let (Some(approval), Some(decision)) = (approval, decision) {
                        self.decided(&approval, decision, payload["resolvedBy"].as_str());
                    }
                    return Vec::new();
                };
                if let Some(approval) = self.approvals.remove(&resolved.id) {
                    self.decided(&approval, resolved.decision, resolved.resolved_by.as_deref());
                }
                Vec::new()
            }
            "sessions.changed" => self.session_changed(payload),
            "shutdown" => {
                self.hint(Tone::Warn, "the gateway stops; waiting for it to come back");
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn decided(&mut self, approval: &PendingApproval, decision: Decision, by: Option<&str>) {
        let (tone, word) = match decision {
            Decision::AllowOnce => (Tone::Good, "allowed once"),
            Decision::AllowAlways => (Tone::Good, "allowed always"),
            Decision::Deny => (Tone::Warn, "denied"),
        };
        let by = by.map(|by| format!(" by {}", inert(by))).unwrap_or_default();
        self.transcript.note(tone, format!("{word}{by}: {}", inert(&approval.request.command)));
    }

    fn session_changed(&mut self, payload: &Value) -> Vec<Do> {
        let mine = text(payload, "sessionKey").is_some_and(|key| same_session(&key, &self.session.key));
        if !mine {
            return Vec::new();
        }
        if let Some(row) = Row::of(&payload["session"]) {
            self.figures(row);
        }
        match payload["reason"].as_str() {
            Some("reset" | "new" | "compact" | "delete" | "import") => self.load(),
            _ => Vec::new(),
        }
    }

    /// What the gateway says of the session; what it leaves out stays.
    fn figures(&mut self, row: Row) {
        let now = &mut self.session;
        // `main` becomes the canonical key, so that other clients' events are recognised.
        if row.key.starts_with("agent:") {
            now.key = row.key;
        }
        now.title = row.title.or(now.title.take());
        now.model = row.model.or(now.model.take());
        now.agent = row.agent.or(now.agent.take());
        now.thinking = row.thinking.or(now.thinking.take());
        now.tokens = row.tokens.or(now.tokens);
        now.context = row.context.or(now.context);
        now.cost = row.cost.or(now.cost);
    }

    fn begin(&mut self, run: &str, ours: bool, phase: &str) {
        self.transcript.begun(run);
        match &mut self.run {
            Some(known) if known.id == run => {
                known.ours |= ours;
                if !phase.is_empty() && !known.stopping {
                    known.phase = phase.to_owned();
                }
            }
            _ if self.ended.iter().any(|ended| ended == run) => {}
            _ => {
                let phase = if phase.is_empty() { "working" } else { phase }.to_owned();
                let started_ms = self.now_ms;
                self.run = Some(Run { id: run.to_owned(), started_ms, phase, ours, stopping: false });
            }
        }
    }

    /// The run is over. What was not heard of it is read.
    fn end(&mut self, run: &str) -> Vec<Do> {
        self.transcript.finish(run);
        self.ended.push(run.to_owned());
        if self.ended.len() > 32 {
            self.ended.remove(0);
        }
        let ours = match self.run.take_if(|known| known.id == run) {
            Some(known) => known.ours,
            None => false,
        };
        let session = self.session.key.clone();
        if !ours {
            // Somebody else's message came with it.
            return self.load();
        }
        if self.has("sessions.describe") && !self.methods.is_empty() {
            return vec![self.call(
                Ask::Info { session: session.clone() },
                "sessions.describe",
                json!({"key": session}),
            )];
        }
        // Protocol 3 tells of tools only afterwards; the figures come behind the history.
        self.load()
    }

    fn chat(&mut self, event: ChatEvent) -> Vec<Do> {
        if !same_session(&event.session, &self.session.key) || self.ended.contains(&event.run) {
            return Vec::new();
        }
        let run = event.run;
        match event.state {
            ChatState::Status(phase) => self.begin(&run, false, &phase.replace('_', " ")),
            ChatState::Delta(words) => {
                self.begin(&run, false, "writing");
                self.transcript.answer(&run, &words, true);
            }
            ChatState::Final { words, .. } => {
                if let Some(words) = words {
                    self.transcript.answer(&run, &words, false);
                }
                return self.end(&run);
            }
            ChatState::Aborted { words } => {
                if let Some(words) = words {
                    self.transcript.answer(&run, &words, false);
                }
                self.transcript.finish(&run);
                self.transcript.note(Tone::Warn, "aborted");
                return self.end(&run);
            }
            ChatState::Error { message, kind } => {
                let kind = kind.filter(|kind| kind != "unknown").map(|kind| format!(" ({kind})")).unwrap_or_default();
                self.transcript.finish(&run);
                self.transcript.note(Tone::Bad, format!("{message}{kind}"));
                return self.end(&run);
            }
        }
        Vec::new()
    }

    fn agent(&mut self, event: AgentEvent) {
        let run = event.run;
        let known = self.run.as_ref().is_some_and(|known| known.id == run);
        let mine = event.session.as_ref().map_or(known, |session| same_session(session, &self.session.key));
        if !mine || self.ended.contains(&run) {
            return;
        }
        match event.step {
            Step::Started => self.begin(&run, false, ""),
            Step::Model(model) => {
                self.session.model = Some(model);
                self.begin(&run, false, "thinking");
            }
            Step::Thinking(thoughts) => {
                self.begin(&run, false, "thinking");
                self.transcript.think(&run, &thoughts);
            }
            Step::Tool(step) => {
                let phase = match step.phase {
                    wire::ToolPhase::Done { .. } => "thinking".to_owned(),
                    _ => format!("running {}", inert(&step.name)),
                };
                self.begin(&run, false, &phase);
                self.transcript.tool(&run, step, self.now_ms);
            }
            Step::Compaction { done } => {
                self.begin(&run, false, if done { "thinking" } else { "compacting the conversation" });
            }
            // The chat event that follows ends it.
            Step::Ended => {}
        }
    }

    fn answered(&mut self, ask: Ask, outcome: Result<Value, Refusal>) -> Vec<Do> {
        match (ask, outcome) {
            (Ask::History { session }, outcome) if same_session(&session, &self.session.key) => {
                self.loading = false;
                match outcome {
                    Ok(history) => return self.history(&history),
                    Err(refusal) => {
                        self.transcript.note(Tone::Bad, format!("The history could not be read: {}", refusal.text));
                    }
                }
            }
            (Ask::Send { key, session }, Ok(answer)) => {
                let over = matches!(answer["status"].as_str(), Some("ok" | "error" | "timeout"));
                let run = text(&answer, "runId").unwrap_or_else(|| key.clone());
                let here = same_session(&session, &self.session.key);
                // One run at a time: this one comes after the one that is seen, which Esc goes on to stop.
                let busy = here && self.run.as_ref().is_some_and(|now| now.id != run);
                let waits = busy && answer["status"] == "accepted";
                self.transcript.sent(&key, if waits { Sent::Waits } else { Sent::Yes });
                if here && !over && !busy {
                    self.begin(&run, true, "");
                }
            }
            (Ask::Send { key, .. }, Err(refusal)) => {
                let why = if refusal.unknown {
                    "the connection was lost; whether it arrived is not known".to_owned()
                } else {
                    refusal.text
                };
                self.transcript.sent(&key, Sent::No(why));
            }
            (Ask::Wait { run }, Ok(answer)) => {
                let over = matches!(answer["status"].as_str(), Some("ok" | "error" | "aborted" | "cancelled"));
                // `timeout` may mean that the run ran out of time, or that it is not over.
                let over = over || answer["endedAt"].is_number();
                if over && self.run.as_ref().is_some_and(|known| known.id == run) {
                    if let Some(error) = text(&answer, "error") {
                        self.transcript.note(Tone::Bad, error);
                    }
                    let mut todo = self.end(&run);
                    todo.extend(self.load());
                    return todo;
                }
            }
            (Ask::Info { session }, Ok(answer)) if same_session(&session, &self.session.key) => {
                let rows = answer["sessions"].as_array().into_iter().flatten();
                let row = Row::of(&answer["session"])
                    .or_else(|| rows.filter_map(Row::of).find(|row| same_session(&row.key, &self.session.key)));
                if let Some(row) = row {
                    self.figures(row);
                }
            }
            (Ask::Abort, Err(refusal)) => {
                if let Some(run) = &mut self.run {
                    run.stopping = false;
                }
                self.transcript.note(Tone::Bad, format!("The run was not stopped: {}", refusal.text));
            }
            (Ask::Abort, Ok(answer)) if answer["aborted"] == false => {
                // It was over already, or never was.
                if let Some(run) = self.run.as_ref().map(|run| run.id.clone()) {
                    return self.end(&run);
                }
            }
            (Ask::Commands, Ok(list)) => self.commands = slash::all(&list),
            (Ask::Approvals, Ok(list)) => {
                let waiting = list.as_array().into_iter().flatten();
                let waiting = waiting.filter_map(pending).collect();
                self.approvals.replace(waiting);
            }
            (Ask::Decide { id, decision }, Ok(_)) => {
                if let Some(approval) = self.approvals.remove(&id) {
                    self.decided(&approval, decision, None);
                }
            }
            (Ask::Decide { id, .. }, Err(refusal)) => {
                self.approvals.unanswered(&id);
                if refusal.text.contains("unknown or expired") {
                    self.approvals.remove(&id);
                }
                self.transcript.note(Tone::Bad, format!("The answer was not taken: {}", refusal.text));
            }
            (Ask::Patch { done }, Ok(answer)) => {
                self.hint(Tone::Good, done);
                if let Some(row) = Row::of(&answer["entry"]).or_else(|| patched(&answer)) {
                    self.figures(row);
                }
                let session = self.session.key.clone();
                return vec![self.call(Ask::Info { session }, "sessions.list", json!({"limit": 200}))];
            }
            (Ask::Patch { .. }, Err(refusal)) => {
                let what = if refusal.unknown { "Whether it was changed is not known" } else { "Nothing was changed" };
                self.transcript.note(Tone::Bad, format!("{what}: {}", refusal.text));
            }
            (ask @ (Ask::Sessions | Ask::Search | Ask::Models | Ask::Agents), outcome) => self.listed(&ask, outcome),
            _ => {}
        }
        Vec::new()
    }

    fn history(&mut self, history: &Value) -> Vec<Do> {
        let messages: Vec<Message> =
            history["messages"].as_array().into_iter().flatten().filter_map(Message::of).collect();
        self.transcript.load(&messages);
        self.has_more = history["hasMore"].as_bool().unwrap_or(messages.len() >= self.start.history);
        if self.editor.is_empty() {
            for message in messages.iter().filter(|message| message.author == wire::Author::User) {
                self.editor.remember(&message.words());
            }
        }
        let defaults = &history["defaults"];
        let known = Row {
            key: self.session.key.clone(),
            model: text(defaults, "model").map(|model| match text(defaults, "modelProvider") {
                Some(provider) => format!("{provider}/{model}"),
                None => model,
            }),
            context: wire::count(defaults, "contextTokens"),
            thinking: text(history, "thinkingLevel"),
            ..Row::default()
        };
        if self.session.model.is_none() {
            self.figures(known);
        }
        match Row::of(&history["sessionInfo"]) {
            Some(row) => {
                let running = row.running;
                let active = history["sessionInfo"]["activeRunIds"][0].as_str().map(str::to_owned);
                self.figures(row);
                match (running, active) {
                    (true, Some(run)) => self.begin(&run, false, "working"),
                    (false, _) if !self.transcript.is_sending() => {
                        // It ended while nobody listened.
                        if let Some(run) = self.run.take() {
                            self.transcript.finish(&run.id);
                            self.ended.push(run.id);
                        }
                    }
                    _ => {}
                }
                Vec::new()
            }
            None => {
                let session = self.session.key.clone();
                vec![self.call(Ask::Info { session }, "sessions.list", json!({"limit": 200}))]
            }
        }
    }

    fn listed(&mut self, ask: &Ask, outcome: Result<Value, Refusal>) {
        let wanted = match ask {
            Ask::Sessions => Kind::Sessions,
            Ask::Search => Kind::Search,
            Ask::Models => Kind::Models,
            _ => Kind::Agents,
        };
        let (session, now) = (self.session.clone(), self.now_ms);
        let Some(Overlay::Pick(kind, picker)) = &mut self.overlay else { return };
        if *kind != wanted {
            return;
        }
        match outcome {
            Ok(answer) => picker.fill(choices(wanted, &answer, &session, now)),
            Err(refusal) => picker.state = State::Failed(refusal.text),
        }
    }

    pub(super) fn scroll_by(&mut self, lines: isize) {
        let (all, fit) = self.drawn;
        self.scroll = self.scroll.saturating_add_signed(lines).min(all.saturating_sub(fit));
    }

    /// At the beginning of what is shown, more is asked for.
    pub(super) fn scroll_up(&mut self, lines: usize) -> Vec<Do> {
        let before = self.scroll;
        self.scroll_by(isize::try_from(lines).unwrap_or(isize::MAX));
        let grows = self.start.history < MAX_HISTORY;
        if self.scroll == before && self.has_more && grows && !self.loading {
            self.start.history = (self.start.history * 2).min(MAX_HISTORY);
            return self.load();
        }
        Vec::new()
    }
}

/// A request for leave. Those of protocol 3 do not say which answers are offered.
fn pending(payload: &Value) -> Option<PendingApproval> {
    let mut payload = payload.clone();
    if payload["request"].is_object() && payload["request"].get("allowedDecisions").is_none() {
        payload["request"]["allowedDecisions"] = json!([]);
    }
    serde_json::from_value(payload).inspect_err(|error| tracing::debug!(%error, "an unreadable request for leave")).ok()
}

/// The session of an answer to `sessions.patch`.
fn patched(answer: &Value) -> Option<Row> {
    let resolved = &answer["resolved"];
    let model = format!("{}/{}", resolved["modelProvider"].as_str()?, resolved["model"].as_str()?);
    Some(Row { key: text(answer, "key")?, model: Some(model), ..Row::default() })
}

fn choices(kind: Kind, answer: &Value, session: &Row, now_ms: i64) -> Vec<Choice> {
    let rows = |key: &str| answer[key].as_array().into_iter().flatten();
    match kind {
        Kind::Sessions => rows("sessions")
            .filter_map(Row::of)
            .map(|row| {
                let ago = row.updated_ms.map(|then| time::ago(then, now_ms));
                let state = row.running.then(|| "running".to_owned()).or(row.unread.then(|| "unread".to_owned()));
                let preview = row.preview.as_deref().map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
                let current = same_session(&row.key, &session.key);
                let label = row.title.clone().unwrap_or_else(|| row.key.clone());
                let key = row.title.as_ref().map(|_| row.key.clone());
                let detail: Vec<String> = [state, ago, preview, key].into_iter().flatten().collect();
                Choice { label, detail: detail.join(" · "), current, id: row.key }
            })
            .collect(),
        Kind::Search => rows("results")
            .filter_map(|hit| {
                let ago = hit["timestamp"].as_i64().map(|then| time::ago(then, now_ms));
                let detail = [ago, text(hit, "role"), text(hit, "sessionKey")];
                let detail: Vec<String> = detail.into_iter().flatten().collect();
                let snippet = text(hit, "snippet")?.split_whitespace().collect::<Vec<_>>().join(" ");
                Some(Choice {
                    id: text(hit, "sessionKey")?,
                    label: snippet,
                    detail: detail.join(" · "),
                    current: false,
                })
            })
            .collect(),
        Kind::Models => rows("models")
            .filter_map(|model| {
                let id = format!("{}/{}", text(model, "provider")?, text(model, "id")?);
                let context = wire::count(model, "contextWindow").map(|tokens| format!("{}k", tokens / 1000));
                let off = (model["available"] == false).then(|| "no credential".to_owned());
                let detail: Vec<String> = [text(model, "name"), context, off].into_iter().flatten().collect();
                let current = session.model.as_deref() == Some(&id);
                Some(Choice { label: id.clone(), detail: detail.join(" · "), current, id })
            })
            .collect(),
        Kind::Agents => rows("agents")
            .filter_map(|agent| {
                let id = text(agent, "id")?;
                let name = text(agent, "name").or_else(|| text(&agent["identity"], "name"));
                let model = text(&agent["model"], "primary");
                let detail: Vec<String> = [name, model].into_iter().flatten().collect();
                let current = session.agent() == id;
                Some(Choice { label: id.clone(), detail: detail.join(" · "), current, id })
            })
            .collect(),
    }
}
