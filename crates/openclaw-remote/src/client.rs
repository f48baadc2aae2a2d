//! The client connection: dials, shakes hands, then runs requests and events over one WebSocket.
//!
//! Two halves of one task share the socket. The writer consumes frames from a bounded queue and sends what is ready in
//! one batch; the reader resolves pending requests by id and publishes events. Neither waits for the other, so a peer that
//! stops reading cannot stop us from reading. The task ends with the socket, with [`Client::close`], or when the
//! [`Client`] is dropped.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{
    SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use openclaw_protocol::{
    DeviceKey, GatewayId, Protocol, connect::ConnectParams, gateway_proof, hello::HelloReceived, limits,
};
use serde_json::Value;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        self, Message,
        client::IntoClientRequest as _,
        error::ProtocolError,
        http,
        protocol::{CloseFrame, WebSocketConfig},
    },
};

use crate::{
    deadline::Deadline,
    dial::{Endpoint, Stream, dial_behind},
    edge,
    error::{Error, Stage},
    handshake::{self, Event, Incoming},
    heard::{Heard, LastHeard},
    tls::TlsFailure,
    url::{GatewayUrl, Host},
};

type Socket = WebSocketStream<Heard<Stream>>;

/// Read buffer per connection. The library's default is 128 KiB; frames are mostly below 2 KiB.
const READ_BUFFER_BYTES: usize = 8 * 1024;
/// Frames waiting to be written.
const WRITE_QUEUE: usize = 64;
/// Events waiting for a consumer. When it is full, events are counted and dropped.
const EVENT_QUEUE: usize = 1024;
/// Most of an HTTP error body that is looked at.
const MAX_HTTP_BODY_BYTES: usize = 4096;
/// Most of a redirect's address that is shown.
const MAX_LOCATION_BYTES: usize = 200;
/// How long to wait for the peer's close frame after ours.
const CLOSE_GRACE: Duration = Duration::from_millis(250);
/// Bounds of the tick watchdog, whatever the gateway says its tick interval is.
const MIN_SILENCE: Duration = Duration::from_secs(2);
const MAX_SILENCE: Duration = Duration::from_secs(600);

/// What a connection's consumer is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    Event(Event),
    /// Sequence numbers are missing: re-read whatever the events would have changed.
    Gap {
        expected: u64,
        received: u64,
    },
    /// This side was too slow and dropped that many events.
    Dropped(u64),
}

/// Events of one connection. Dropping it is fine: events are then discarded.
#[derive(Debug)]
pub struct Events {
    queue: mpsc::Receiver<Notice>,
    dropped: Arc<AtomicU64>,
}

impl Events {
    /// The next notice; `None` when the connection has ended. Cancel safe.
    pub async fn next(&mut self) -> Option<Notice> {
        match self.dropped.swap(0, Ordering::Relaxed) {
            0 => self.queue.recv().await,
            dropped => Some(Notice::Dropped(dropped)),
        }
    }
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Close code; `None` when the connection broke without a close frame.
    pub code: Option<u16>,
    pub reason: String,
}

struct Pending {
    answer: oneshot::Sender<Result<Value, Error>>,
    /// Skip a first `{status: "accepted"}` answer.
    wants_final: bool,
}

#[derive(Default)]
struct Shared {
    pending: Mutex<Registry>,
}

#[derive(Default)]
struct Registry {
    pending: HashMap<String, Pending>,
    /// Pings without their pong, oldest first: who waits for which payload.
    pings: VecDeque<(u64, oneshot::Sender<()>)>,
    ending: Option<Ending>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Registry> {
        // Nothing in here panics half-way; a poisoned lock still holds a usable table.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records why the connection ended and fails what is still waiting. The first reason stays.
    fn end(&self, ending: Ending) {
        let (waiting, ending) = {
            let mut registry = self.lock();
            let ending = registry.ending.get_or_insert(ending).clone();
            registry.pings.clear();
            (std::mem::take(&mut registry.pending), ending)
        };
        for pending in waiting.into_values() {
            let _ = pending.answer.send(Err(ending.clone().into()));
        }
    }
}

impl From<Ending> for Error {
    fn from(ending: Ending) -> Self {
        Self::Closed { stage: Stage::Call, code: ending.code, reason: ending.reason }
    }
}

enum Outgoing {
    Frame(String),
    /// A ping with this number as its payload.
    Ping(u64),
    Close,
}

/// A connected, authenticated client.
pub struct Client {
    outgoing: mpsc::Sender<Outgoing>,
    shared: Arc<Shared>,
    counter: AtomicU64,
    task: JoinHandle<()>,
    hello: HelloReceived,
    protocol: Protocol,
    gateway: Option<GatewayId>,
    heard: LastHeard,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Client {
    /// Dials `endpoint` and performs one handshake as `params` says, signed with `device` if there is one. The gateway is
    /// always asked who it is; with `gateway` it has to prove that it is this one before anything of `params` is sent.
    ///
    /// # Errors
    /// Every stage up to and including the gateway's refusal; [`Error::WrongGateway`]; [`Error::Timeout`] names the stage
    /// that was running when `deadline` passed.
    pub async fn open(
        endpoint: &Endpoint,
        mut params: ConnectParams,
        device: Option<&DeviceKey>,
        deadline: Deadline,
        gateway: Option<&GatewayId>,
    ) -> Result<(Self, Events), Error> {
        // The owner's socket is known by where it lies.
        let asks = gateway.is_some() || !matches!(endpoint, Endpoint::OwnerSocket(_));
        let nonce = asks.then(fresh_nonce).transpose()?;
        let mut socket = socket(endpoint, nonce.as_deref(), deadline).await?;

        let first = deadline.run(Stage::Protocol, next_text(&mut socket, Stage::Protocol)).await?;
        let challenge = handshake::challenge(&first)?;
        let gateway = challenge.identity(nonce.as_deref(), gateway)?;
        if let Some(key) = device {
            params.sign(key, &challenge.nonce, challenge.ts.unwrap_or_else(now_ms));
        }
        let offered = if params.max_protocol >= Protocol::V4.number() { Protocol::V4 } else { Protocol::V3 };
        let id = format!("1:{}", uuid::Uuid::new_v4());
        let connect = handshake::request(&id, "connect", Some(&params.to_wire(offered)));
        let answer = async {
            let sent = socket.send(Message::text(connect)).await;
            // A gateway that refuses early has already written why: read that before reporting a broken pipe.
            let mut early = Vec::new();
            loop {
                let text = match next_text(&mut socket, Stage::Auth).await {
                    Ok(text) => text,
                    Err(error) => return Err(sent.err().map_or(error, |source| lost(Stage::Auth, &source))),
                };
                match handshake::parse(&text).map_err(|reason| Error::NotAGateway { reason })? {
                    Incoming::Response { id: answered, outcome } if answered == id => return Ok((outcome, early)),
                    Incoming::Event(event) if early.len() < EVENT_QUEUE => early.push(event),
                    _ => {}
                }
            }
        };
        let (outcome, early) = deadline.run(Stage::Auth, answer).await?;
        let (hello, protocol) = handshake::hello(outcome)?;
        Ok(Self::start(socket, hello, protocol, gateway, early))
    }

    /// Asks who answers at `endpoint`, sends nothing else, and hangs up. `None` for a gateway that cannot prove it, as the
    /// real OpenClaw.
    ///
    /// # Errors
    /// Every stage up to the challenge; with `gateway`, [`Error::WrongGateway`] for anybody else.
    pub async fn identify(
        endpoint: &Endpoint,
        deadline: Deadline,
        gateway: Option<&GatewayId>,
    ) -> Result<Option<GatewayId>, Error> {
        let nonce = fresh_nonce()?;
        let mut socket = socket(endpoint, Some(&nonce), deadline).await?;
        let first = deadline.run(Stage::Protocol, next_text(&mut socket, Stage::Protocol)).await?;
        let shown = handshake::challenge(&first)?.identity(Some(&nonce), gateway);
        let _ = timeout(CLOSE_GRACE, socket.close(None)).await;
        shown
    }

    fn start(
        socket: Socket,
        hello: HelloReceived,
        protocol: Protocol,
        gateway: Option<GatewayId>,
        early: Vec<Event>,
    ) -> (Self, Events) {
        let (outgoing, frames) = mpsc::channel(WRITE_QUEUE);
        let (publish, queue) = mpsc::channel(EVENT_QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let shared = Arc::new(Shared::default());
        let tick = Duration::from_millis(hello.policy.tick_interval_ms);
        let mut reader = Reader {
            shared: Arc::clone(&shared),
            publish,
            dropped: Arc::clone(&dropped),
            last_seq: (protocol == Protocol::V4).then_some(0),
            silence: tick.saturating_mul(2).clamp(MIN_SILENCE, MAX_SILENCE),
        };
        early.into_iter().for_each(|event| reader.event(event));
        let heard = socket.get_ref().last().clone();
        let (sink, source) = socket.split();
        let ended = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            // Whichever half ends first ends the connection; the other holds nothing that would be lost.
            let ending = tokio::select! {
                ending = reader.run(source) => ending,
                ending = write(sink, frames) => ending,
            };
            ended.end(ending);
        });
        let client = Self { outgoing, shared, counter: AtomicU64::new(1), task, hello, protocol, gateway, heard };
        (client, Events { queue, dropped })
    }

    /// What the gateway said of itself and of our rights.
    pub const fn hello(&self) -> &HelloReceived {
        &self.hello
    }

    /// The version whose shapes this connection speaks.
    pub const fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Which gateway this is, where it proved it. The real OpenClaw and the owner's socket prove nothing.
    pub const fn gateway_id(&self) -> Option<&GatewayId> {
        self.gateway.as_ref()
    }

    /// Calls a method and waits for its first answer.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Scope`] or [`Error::Unavailable`] as answered; [`Error::Timeout`];
    /// [`Error::Closed`].
    pub async fn call(&self, method: &str, params: Option<Value>, limit: Duration) -> Result<Value, Error> {
        self.request(method, params, limit, false).await
    }

    /// Calls a method that answers twice (`agent`) and waits for the second answer; a method that answers once is
    /// unaffected.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn call_final(&self, method: &str, params: Option<Value>, limit: Duration) -> Result<Value, Error> {
        self.request(method, params, limit, true).await
    }

    async fn request(
        &self,
        method: &str,
        params: Option<Value>,
        limit: Duration,
        wants_final: bool,
    ) -> Result<Value, Error> {
        let id = format!("{}:{}", self.counter.fetch_add(1, Ordering::Relaxed) + 1, uuid::Uuid::new_v4());
        let frame = handshake::request(&id, method, params.as_ref());
        let (answer, answered) = oneshot::channel();
        {
            let mut registry = self.shared.lock();
            if let Some(ending) = &registry.ending {
                return Err(ending.clone().into());
            }
            // Callers that gave up leave their entry until the answer comes, or until here.
            registry.pending.retain(|_, pending| !pending.answer.is_closed());
            registry.pending.insert(id, Pending { answer, wants_final });
        }
        let exchange = async {
            // If the queue is closed, the task has ended and the answer channel says why.
            let _ = self.outgoing.send(Outgoing::Frame(frame)).await;
            answered.await.unwrap_or_else(|_| Err(self.ending().into()))
        };
        match timeout(limit, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::Timeout { stage: Stage::Call, after: limit }),
        }
    }

    /// Sends a WebSocket ping and waits for its pong: the round-trip time of the path, the gateway's work hardly counted.
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::Closed`].
    pub async fn ping(&self, limit: Duration) -> Result<Duration, Error> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let (pong, answered) = oneshot::channel();
        {
            let mut registry = self.shared.lock();
            if let Some(ending) = &registry.ending {
                return Err(ending.clone().into());
            }
            registry.pings.retain(|(_, waiting)| !waiting.is_closed());
            registry.pings.push_back((number, pong));
        }
        let started = tokio::time::Instant::now();
        let exchange = async {
            let _ = self.outgoing.send(Outgoing::Ping(number)).await;
            answered.await.map_err(|_| Error::from(self.ending()))
        };
        match timeout(limit, exchange).await {
            Ok(outcome) => outcome.map(|()| started.elapsed()),
            Err(_) => Err(Error::Timeout { stage: Stage::Call, after: limit }),
        }
    }

    /// When the gateway last sent anything, down to a part of a frame.
    pub fn last_heard(&self) -> tokio::time::Instant {
        self.heard.at()
    }

    /// True while the connection is up as far as this side knows.
    pub fn is_open(&self) -> bool {
        self.shared.lock().ending.is_none()
    }

    /// Why the connection ended, once it has.
    pub fn ending(&self) -> Ending {
        self.shared.lock().ending.clone().unwrap_or(Ending { code: None, reason: String::new() })
    }

    /// Closes the connection and waits a moment for the other side's close frame.
    pub async fn close(mut self) {
        if self.outgoing.send(Outgoing::Close).await.is_ok() {
            let _ = timeout(CLOSE_GRACE, &mut self.task).await;
        }
    }
}

/// Sends what is ready as one batch. Ends with the queue or the socket.
async fn write(mut sink: SplitSink<Socket, Message>, mut frames: mpsc::Receiver<Outgoing>) -> Ending {
    let broken = |error: tungstenite::Error| Ending { code: None, reason: error.to_string() };
    while let Some(first) = frames.recv().await {
        let mut next = Some(first);
        while let Some(outgoing) = next {
            match outgoing {
                Outgoing::Frame(text) => {
                    if let Err(error) = sink.feed(Message::text(text)).await {
                        return broken(error);
                    }
                }
                Outgoing::Ping(number) => {
                    let payload = Message::Ping(number.to_be_bytes().to_vec().into());
                    if let Err(error) = sink.feed(payload).await {
                        return broken(error);
                    }
                }
                Outgoing::Close => {
                    let _ = sink.send(Message::Close(None)).await;
                    // The reader ends the connection when the peer's close frame comes.
                    return std::future::pending().await;
                }
            }
            next = frames.try_recv().ok();
        }
        if let Err(error) = sink.flush().await {
            return broken(error);
        }
    }
    std::future::pending().await
}

struct Reader {
    shared: Arc<Shared>,
    publish: mpsc::Sender<Notice>,
    dropped: Arc<AtomicU64>,
    last_seq: Option<u64>,
    silence: Duration,
}

impl Reader {
    async fn run(&mut self, mut source: SplitStream<Socket>) -> Ending {
        loop {
            let Ok(message) = timeout(self.silence, source.next()).await else {
                return Ending { code: Some(4000), reason: "tick timeout".to_owned() };
            };
            match message {
                Some(Ok(Message::Text(text))) => self.frame(&text),
                Some(Ok(Message::Close(frame))) => return ending(frame),
                Some(Ok(Message::Pong(payload))) => self.pong(&payload),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Ending { code: None, reason: error.to_string() },
                None => return Ending { code: None, reason: String::new() },
            }
        }
    }

    fn frame(&mut self, text: &str) {
        match handshake::parse(text) {
            Ok(Incoming::Event(event)) => self.event(event),
            Ok(Incoming::Response { id, outcome }) => self.response(&id, outcome),
            Ok(Incoming::Other) => {}
            Err(reason) => tracing::debug!(reason, "unreadable frame from the gateway"),
        }
    }

    /// A pong answers its ping and every earlier one (RFC 6455 section 5.5.3 lets a peer answer only the latest).
    fn pong(&self, payload: &[u8]) {
        let Ok(number) = payload.try_into().map(u64::from_be_bytes) else { return };
        let mut registry = self.shared.lock();
        while let Some((waiting, _)) = registry.pings.front()
            && *waiting <= number
        {
            if let Some((_, pong)) = registry.pings.pop_front() {
                let _ = pong.send(());
            }
        }
    }

    fn response(&self, id: &str, outcome: Result<Value, openclaw_protocol::ErrorShape>) {
        let pending = {
            let mut registry = self.shared.lock();
            let only_accepted = outcome.as_ref().is_ok_and(|payload| payload["status"] == "accepted");
            match registry.pending.get(id) {
                Some(pending) if pending.wants_final && only_accepted => None,
                _ => registry.pending.remove(id),
            }
        };
        if let Some(pending) = pending {
            let _ = pending.answer.send(outcome.map_err(Error::of_call));
        }
    }

    fn event(&mut self, event: Event) {
        if let Some(received) = event.seq {
            if let Some(last) = self.last_seq
                && received > last.saturating_add(1)
            {
                self.notify(Notice::Gap { expected: last.saturating_add(1), received });
            }
            self.last_seq = Some(received);
        }
        self.notify(Notice::Event(event));
    }

    fn notify(&self, notice: Notice) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.publish.try_send(notice) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn ending(frame: Option<CloseFrame>) -> Ending {
    match frame {
        Some(frame) => Ending { code: Some(frame.code.into()), reason: frame.reason.as_str().to_owned() },
        None => Ending { code: Some(1005), reason: String::new() },
    }
}

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// What the gateway is asked to sign.
fn fresh_nonce() -> Result<String, Error> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|error| Error::Identity(format!("no randomness from the system: {error}")))?;
    Ok(gateway_proof::nonce(&random))
}

/// Dials and upgrades. Behind ssh nobody knows beforehand whether the gateway wants TLS; it says so, and then it gets it.
async fn socket(endpoint: &Endpoint, nonce: Option<&str>, deadline: Deadline) -> Result<Socket, Error> {
    let stream = endpoint.dial(deadline).await?;
    match (deadline.run(Stage::Http, upgrade(endpoint, stream, nonce)).await, endpoint) {
        (Err(Error::Tls { source: TlsFailure::Wanted { .. }, .. }), Endpoint::Tunnel { socket, origin, pin: None }) => {
            let stream = dial_behind(socket, origin, None, deadline).await?;
            deadline.run(Stage::Http, upgrade(endpoint, stream, nonce)).await
        }
        (outcome, _) => outcome,
    }
}

/// The WebSocket upgrade; `nonce` asks the gateway to prove who it is.
async fn upgrade(endpoint: &Endpoint, stream: Stream, nonce: Option<&str>) -> Result<Socket, Error> {
    let address = match endpoint {
        Endpoint::OwnerSocket(_) | Endpoint::Tunnel { .. } => "ws://localhost/".to_owned(),
        Endpoint::Url { url, .. } => {
            let scheme = if url.is_secure() { "wss" } else { "ws" };
            // A zone means something on this machine only.
            let host = match url.host() {
                Host::Scoped(address, _) => format!("[{address}]"),
                host => host.to_string(),
            };
            format!("{scheme}://{host}:{}{}", url.port(), url.path())
        }
    };
    let unusable = |reason: String| Error::Upgrade { reason };
    let mut request = address.into_client_request().map_err(|error| unusable(error.to_string()))?;
    if let Some(nonce) = nonce {
        let nonce = http::HeaderValue::from_str(nonce).map_err(|error| unusable(error.to_string()))?;
        request.headers_mut().insert(gateway_proof::HEADER, nonce);
    }
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(Some(limits::MAX_PAYLOAD_BYTES))
        .max_frame_size(Some(limits::MAX_PAYLOAD_BYTES));
    if let Endpoint::Url { url, edge, .. } = endpoint
        && url.is_secure()
    {
        request.headers_mut().extend(edge::headers(edge)?);
    }
    let stream = Heard::new(stream, LastHeard::now());
    match client_async_with_config(request, stream, Some(config)).await {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(response)) => Err(http_error(endpoint, &response)),
        // The alert with which a TLS listener answers what is no TLS (the real OpenClaw does so).
        Err(tungstenite::Error::Protocol(ProtocolError::HttparseError(_)))
            if matches!(endpoint, Endpoint::Tunnel { pin: None, .. }) =>
        {
            Err(tls_wanted_behind(endpoint))
        }
        Err(error) => Err(unusable(error.to_string())),
    }
}

/// Redirects are reported, never followed: a credential was meant for the address that was asked (P-90).
fn http_error(endpoint: &Endpoint, response: &http::Response<Option<Vec<u8>>>) -> Error {
    let status = response.status();
    if let Some(location) = response.headers().get(http::header::LOCATION).filter(|_| status.is_redirection()) {
        // What follows the path may be a secret of the edge, and what is not plain text may be a trick on the eye.
        let location = location.to_str().unwrap_or_default().split(['?', '#']).next().unwrap_or_default();
        return redirect(endpoint, status.as_u16(), location.get(..MAX_LOCATION_BYTES).unwrap_or(location));
    }
    let body = response.body().as_deref().unwrap_or_default();
    let body = body.get(..MAX_HTTP_BODY_BYTES).unwrap_or(body);
    let error = serde_json::from_slice::<Value>(body).ok().and_then(|mut body| body.get_mut("error").map(Value::take));
    let text = |key: &str| error.as_ref()?.get(key)?.as_str().map(str::to_owned);
    let kind = text("type");
    if let (Some("tls_required"), Endpoint::Url { url, .. }) = (kind.as_deref(), endpoint) {
        return tls_wanted(url, &url.with_security(true, url.port()));
    }
    if let (Some("tls_required"), Endpoint::Tunnel { .. }) = (kind.as_deref(), endpoint) {
        return tls_wanted_behind(endpoint);
    }
    Error::Http { status: status.as_u16(), kind, message: text("message") }
}

fn tls_wanted_behind(endpoint: &Endpoint) -> Error {
    Error::Tls { url: endpoint.describe(), source: TlsFailure::Wanted { url: endpoint.describe() } }
}

/// The usual redirect of a web server to its own HTTPS side is a URL that lacks an `s`; any other is reported as it is.
fn redirect(endpoint: &Endpoint, status: u16, location: &str) -> Error {
    if let (Endpoint::Url { url, .. }, Ok(to)) = (endpoint, GatewayUrl::parse(location))
        && to.is_secure()
        && !url.is_secure()
        && to.host() == url.host()
    {
        return tls_wanted(url, &url.with_security(true, to.port()));
    }
    let message = format!("a redirect to {location}; redirects are not followed");
    Error::Http { status, kind: Some("redirect".to_owned()), message: Some(message) }
}

fn tls_wanted(url: &GatewayUrl, secured: &GatewayUrl) -> Error {
    Error::Tls { url: url.to_string(), source: TlsFailure::Wanted { url: secured.to_string() } }
}

/// The next text frame; control frames are passed over.
async fn next_text(socket: &mut Socket, stage: Stage) -> Result<tungstenite::Utf8Bytes, Error> {
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => return Ok(text),
            Some(Ok(Message::Close(frame))) => {
                let Ending { code, reason } = ending(frame);
                return Err(handshake::closed_early(stage, code, &reason));
            }
            Some(Ok(Message::Binary(_))) => {
                return Err(Error::NotAGateway { reason: "a WebSocket answered with binary frames".to_owned() });
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(lost(stage, &error)),
            None => return Err(Error::Closed { stage, code: None, reason: String::new() }),
        }
    }
}

fn lost(stage: Stage, error: &tungstenite::Error) -> Error {
    Error::Closed { stage, code: None, reason: error.to_string() }
}
