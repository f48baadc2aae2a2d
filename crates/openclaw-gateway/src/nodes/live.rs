//! A connected node: what it declared, what it was asked, what it reports. It lasts as long as its connection.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use openclaw_protocol::{
    DeviceId,
    event::{NODE_INVOKE_CANCEL, NODE_INVOKE_REQUEST},
    frame::{EventHead, event_tail},
    limits::MAX_BUFFERED_BYTES,
    method::node::{HostStats, InvokeCancel, InvokeProgressParams, InvokeResultParams, NodePluginTool, NodeSkill},
};
use serde::Serialize;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use uuid::Uuid;

use super::{policy::Platform, surface::Surface};
use crate::hub::Connection;

/// Calls a node may have under way.
const MAX_CALLS: usize = 1024;
/// Left free in the node's queue beside a call, so that the call itself never closes a healthy connection.
const QUEUE_RESERVE_BYTES: usize = 64 * 1024;

/// Pieces of progress kept until those before them are here (release 2026.9.6).
const MAX_EARLY_PIECES: usize = 64;

/// A piece of a command's output, while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// From 0; a gap means that the listener missed something. The result has everything.
    pub seq: u64,
    pub text: String,
    /// From the program's error stream. Only nodes of this program tell the two apart.
    pub stderr: bool,
}

/// See the module documentation.
#[derive(Debug)]
pub struct LiveNode {
    pub id: DeviceId,
    pub connection: Arc<Connection>,
    /// As declared in the connect request; nothing in it is a right.
    pub declared: Surface,
    pub platform: Platform,
    calls: Mutex<Calls>,
    reports: Mutex<Reports>,
}

#[derive(Debug, Default)]
struct Calls {
    waiting: HashMap<Uuid, Waiting>,
    ended: bool,
}

#[derive(Debug)]
struct Waiting {
    answer: oneshot::Sender<Answered>,
    progressed: bool,
    listener: Option<Listener>,
}

/// Somebody who wants output as it comes, in order.
#[derive(Debug)]
struct Listener {
    pieces: mpsc::Sender<Piece>,
    next: u64,
    early: BTreeMap<u64, Piece>,
}

impl Listener {
    /// False for a piece that was here before or is too early to be kept.
    fn hear(&mut self, piece: Piece) -> bool {
        let seq = piece.seq;
        if seq < self.next || self.early.contains_key(&seq) {
            return false;
        }
        if seq > self.next && self.early.len() >= MAX_EARLY_PIECES {
            return false;
        }
        self.early.insert(seq, piece);
        while let Some(piece) = self.early.remove(&self.next) {
            self.next += 1;
            // A listener that does not keep up, or has left, misses it: the result says everything.
            let _ = self.pieces.try_send(piece);
        }
        true
    }
}

/// What a node answered.
#[derive(Debug)]
pub struct Answered {
    pub result: InvokeResultParams,
    /// It had begun before: it must not be asked again, whatever it says.
    pub progressed: bool,
}

/// What a node says of itself while it is connected.
#[derive(Clone, Debug, Default)]
pub struct Reports {
    pub host_stats: Option<HostStats>,
    pub skills: Vec<NodeSkill>,
    pub plugin_tools: Vec<NodePluginTool>,
    pub activity: Option<Activity>,
}

/// When somebody last used the machine, ms since the epoch by our clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity {
    pub last_active_at_ms: i64,
    pub updated_at_ms: i64,
}

/// Why a node did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// It was not asked: it is gone.
    NotConnected,
    /// It was not asked: too many calls or too many bytes wait for it.
    Busy,
    /// It was not asked: the question alone is larger than its queue.
    TooLarge,
    TimedOut,
    Disconnected,
}

/// What a node is asked; `node.invoke.request` without its id.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    pub command: &'a str,
    /// JSON.
    pub params: Option<&'a str>,
    pub idempotency_key: &'a str,
    pub session_key: Option<&'a str>,
    pub deadline: Instant,
    /// Gets output as it comes. A full queue loses pieces, and never holds the node back.
    pub progress: Option<&'a mpsc::Sender<Piece>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    id: &'a str,
    node_id: &'a DeviceId,
    command: &'a str,
    #[serde(rename = "paramsJSON")]
    params: Option<&'a str>,
    timeout_ms: u64,
    idempotency_key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_key: Option<&'a str>,
}

impl LiveNode {
    /// `None` for a connection without a device, which is never a node's.
    pub fn new(connection: &Arc<Connection>) -> Option<Arc<Self>> {
        let client = &connection.params.client;
        Some(Arc::new(Self {
            id: connection.device.clone()?,
            declared: Surface::declared(&connection.params),
            platform: Platform::of(&client.platform, client.device_family.as_deref()),
            connection: Arc::clone(connection),
            calls: Mutex::default(),
            reports: Mutex::default(),
        }))
    }

    /// False once its connection is being closed.
    pub fn is_here(&self) -> bool {
        !self.connection.outbound.is_closing()
    }

    /// Asks the node and waits for its answer, for its end, or for the deadline. Dropping the future or reaching the
    /// deadline tells the node to stop.
    ///
    /// # Errors
    /// [`NoAnswer`]
    pub async fn ask(&self, question: Question<'_>) -> Result<Answered, NoAnswer> {
        let id = Uuid::new_v4();
        let frame = self.frame(id, &question);
        if frame.len() + QUEUE_RESERVE_BYTES > MAX_BUFFERED_BYTES {
            return Err(NoAnswer::TooLarge);
        }
        let outbound = &self.connection.outbound;
        let (answer, answered) = oneshot::channel();
        {
            let mut calls = self.calls();
            if calls.ended || !self.is_here() {
                return Err(NoAnswer::NotConnected);
            }
            let full = outbound.pending_bytes() + frame.len() + QUEUE_RESERVE_BYTES > MAX_BUFFERED_BYTES;
            if full || calls.waiting.len() >= MAX_CALLS {
                return Err(NoAnswer::Busy);
            }
            let listener =
                question.progress.map(|pieces| Listener { pieces: pieces.clone(), next: 0, early: BTreeMap::new() });
            calls.waiting.insert(id, Waiting { answer, progressed: false, listener });
        }
        outbound.push(frame);
        let _asked = Asked { node: self, id };
        match tokio::time::timeout_at(question.deadline, answered).await {
            Ok(Ok(answered)) => Ok(answered),
            Ok(Err(_)) => Err(NoAnswer::Disconnected),
            Err(_) => Err(NoAnswer::TimedOut),
        }
    }

    /// The node answers. False when this id waits for nothing: unknown, too late, or answered before.
    pub fn answer(&self, result: InvokeResultParams) -> bool {
        if result.node_id != self.id.as_str() {
            return false;
        }
        let Ok(id) = Uuid::try_parse(&result.id) else { return false };
        let Some(Waiting { answer, progressed, .. }) = self.calls().waiting.remove(&id) else { return false };
        answer.send(Answered { result, progressed }).is_ok()
    }

    /// The node reports progress. False as in [`LiveNode::answer`], and when nobody listens.
    pub fn progress(&self, progress: InvokeProgressParams) -> bool {
        let Ok(id) = Uuid::try_parse(&progress.invoke_id) else { return false };
        let mut calls = self.calls();
        let Some(waiting) = calls.waiting.get_mut(&id).filter(|_| progress.node_id == self.id.as_str()) else {
            return false;
        };
        waiting.progressed = true;
        let piece = Piece { seq: progress.seq, text: progress.chunk, stderr: progress.stderr };
        waiting.listener.as_mut().is_some_and(|listener| listener.hear(piece))
    }

    /// Calls under way.
    pub fn waiting(&self) -> usize {
        self.calls().waiting.len()
    }

    /// The connection is over: nothing is asked any more, and whoever waits is told.
    pub fn end(&self) {
        let mut calls = self.calls();
        calls.ended = true;
        calls.waiting.clear();
    }

    /// Looks at or changes what the node reported. `work` runs under the lock: keep it short.
    pub fn reports<R>(&self, work: impl FnOnce(&mut Reports) -> R) -> R {
        work(&mut self.reports.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn frame(&self, id: Uuid, question: &Question<'_>) -> Vec<u8> {
        let left = question.deadline.saturating_duration_since(Instant::now());
        let mut text = Uuid::encode_buffer();
        let request = Request {
            id: id.hyphenated().encode_lower(&mut text),
            node_id: &self.id,
            command: question.command,
            params: question.params,
            // Rounded, so that a fresh deadline reads as it was given.
            timeout_ms: u64::try_from(left.as_micros().div_ceil(1000)).unwrap_or(u64::MAX),
            idempotency_key: question.idempotency_key,
            session_key: question.session_key,
        };
        event_frame(NODE_INVOKE_REQUEST, &request)
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call under way. Dropping it takes the call back: unless the node answered or is gone, it is told to stop.
struct Asked<'a> {
    node: &'a LiveNode,
    id: Uuid,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let unanswered = self.node.calls().waiting.remove(&self.id).is_some();
        if unanswered {
            let cancel = InvokeCancel { invoke_id: self.id.to_string(), node_id: self.node.id.to_string() };
            self.node.connection.outbound.push(event_frame(NODE_INVOKE_CANCEL, &cancel));
        }
    }
}

/// A point-to-point event as one frame.
pub(super) fn event_frame(name: &str, payload: &impl Serialize) -> Vec<u8> {
    // Structs of strings and numbers serialise into memory without a failure of their own.
    let payload = serde_json::to_vec(payload).unwrap_or_default();
    let mut frame = EventHead::new(name, &payload).bytes().to_vec();
    frame.extend_from_slice(event_tail(None, None).as_bytes());
    frame
}
