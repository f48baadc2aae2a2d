//! One server: its task, its state, its calls.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use reqwest::{
    Client,
    header::{HeaderName, HeaderValue},
    redirect,
};
use rmcp::{
    ClientHandler, Peer, RoleClient, ServiceExt as _,
    model::{
        CallToolRequest, CallToolRequestParams, CallToolResult, ClientCapabilities, ClientConfig, ClientRequest,
        Implementation, JsonObject, PaginatedRequestParams, ProgressNotificationParam, ProgressToken, ServerResult,
    },
    service::{NotificationContext, PeerRequestOptions, RunningService, ServiceError},
    transport::{
        async_rw::AsyncRwTransport,
        streamable_http_client::{StreamableHttpClientTransport, StreamableHttpClientTransportConfig},
    },
};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use url::{Host, Url};

use super::{
    Guard, State, Status, names,
    process::Process,
    settings::{HttpServer, ServerSettings, Transport},
    tool::{self, McpTool},
};
use crate::{tls, untrusted};

/// Bytes of one message.
const MESSAGE_BYTES: usize = 8 << 20;
/// Tools of one server, and pages they come on.
const TOOLS: usize = 256;
const PAGES: usize = 50;
/// Before a server that failed is tried again: doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// A server that stayed this long was well.
const WELL: Duration = Duration::from_secs(60);
/// Calls in a row that got no answer, before the server is taken for broken.
const SILENT_CALLS: u32 = 3;
/// To close a connection in order.
const CLOSE: Duration = Duration::from_secs(3);

pub(super) struct Server {
    me: Weak<Self>,
    settings: ServerSettings,
    prefix: String,
    guard: Option<Guard>,
    state: watch::Sender<Inner>,
    end: CancellationToken,
    /// Calls in a row without an answer.
    silent: AtomicU32,
    /// Closes the current connection.
    broken: Notify,
}

#[derive(Clone)]
enum Inner {
    Idle,
    Connecting,
    Ready { peer: Peer<RoleClient>, tools: Arc<Vec<Arc<McpTool>>>, progress: Progress },
    Failed { error: String, until: Instant, failures: u32 },
    Ended,
}

/// Who hears of the progress of a call.
type Progress = Arc<Mutex<HashMap<ProgressToken, mpsc::Sender<String>>>>;

impl Server {
    pub fn new(settings: ServerSettings, prefix: String, guard: Option<Guard>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            settings,
            prefix,
            guard,
            state: watch::Sender::new(Inner::Idle),
            end: CancellationToken::new(),
            silent: AtomicU32::new(0),
            broken: Notify::new(),
        })
    }

    pub fn is(&self, settings: &ServerSettings, prefix: &str) -> bool {
        self.settings == *settings && self.prefix == prefix
    }

    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Begins to connect, if it is time to.
    pub fn connect(&self) {
        if !self.settings.enabled || self.end.is_cancelled() {
            return;
        }
        let mut failures = 0;
        let begins = self.state.send_if_modified(|state| {
            match state {
                Inner::Idle => {}
                Inner::Failed { until, failures: n, .. } if *until <= Instant::now() => failures = *n,
                _ => return false,
            }
            *state = Inner::Connecting;
            true
        });
        if begins && let Some(me) = self.me.upgrade() {
            tokio::spawn(me.live(failures));
        }
    }

    /// Waits until it is no longer connecting, or until then.
    pub async fn settled(&self, until: Instant) {
        let mut state = self.state.subscribe();
        let _ = timeout_at(until, state.wait_for(|state| !matches!(state, Inner::Connecting))).await;
    }

    pub fn tools(&self) -> Arc<Vec<Arc<McpTool>>> {
        match &*self.state.borrow() {
            Inner::Ready { tools, .. } => Arc::clone(tools),
            _ => Arc::default(),
        }
    }

    pub fn status(&self) -> Status {
        let state = match &*self.state.borrow() {
            _ if !self.settings.enabled => State::Disabled,
            Inner::Idle | Inner::Ended => State::Idle,
            Inner::Connecting => State::Connecting,
            Inner::Ready { .. } => State::Ready,
            Inner::Failed { error, until, .. } => {
                State::Failed { error: error.clone(), retry_in: until.saturating_duration_since(Instant::now()) }
            }
        };
        let transport = match self.settings.transport {
            Ok(Transport::Http(_)) => "streamable-http",
            _ => "stdio",
        };
        let tools = self.tools().iter().map(|tool| tool.name().to_owned()).collect();
        Status { name: self.settings.name.clone(), transport, state, tools }
    }

    pub fn end(&self) {
        self.end.cancel();
        self.state.send_if_modified(|state| {
            let alone = matches!(state, Inner::Idle | Inner::Failed { .. });
            if alone {
                *state = Inner::Ended;
            }
            alone
        });
    }

    pub async fn ended(&self) {
        let mut state = self.state.subscribe();
        let _ = timeout(CLOSE * 3, state.wait_for(|state| matches!(state, Inner::Ended))).await;
    }

    /// From connecting to the end of the connection.
    async fn live(self: Arc<Self>, failures: u32) {
        let begun = Instant::now();
        let name = &self.settings.name;
        let result = tokio::select! {
            biased;
            () = self.end.cancelled() => Ok(()),
            result = self.serve() => result,
        };
        let state = match result {
            _ if self.end.is_cancelled() => Inner::Ended,
            Ok(()) => Inner::Idle,
            Err(error) => {
                let failures = if begun.elapsed() > WELL { 1 } else { failures.saturating_add(1) };
                let pause = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures - 1)).min(LONGEST_PAUSE);
                tracing::warn!(server = name, error, ?pause, "an MCP server failed");
                Inner::Failed { error, until: Instant::now() + pause, failures }
            }
        };
        self.state.send_replace(state);
    }

    async fn serve(&self) -> Result<(), String> {
        let progress = Progress::default();
        let changed = Arc::new(Notify::new());
        let client = Listener {
            name: self.settings.name.clone(),
            progress: Arc::clone(&progress),
            changed: Arc::clone(&changed),
        };
        let transport = self.settings.transport.clone()?;
        let late = || format!("it did not answer within {} s", self.settings.connection_timeout.as_secs_f32());
        let (mut process, connecting) = match &transport {
            Transport::Stdio(stdio) => {
                let (process, stdout, stdin) = Process::start(&self.settings.name, stdio, self.guard.as_ref())?;
                let transport = AsyncRwTransport::new_client(stdout, stdin).with_max_line_length(MESSAGE_BYTES);
                (Some(process), timeout(self.settings.connection_timeout, client.serve(transport)).await)
            }
            Transport::Http(http) => {
                let transport = http_transport(http)?;
                (None, timeout(self.settings.connection_timeout, client.serve(transport)).await)
            }
        };
        let explain = |process: &Option<Process>, error: String| {
            let said = process.as_ref().map(Process::last_words).filter(|said| !said.is_empty());
            let error = untrusted::cut(&error, 1_000);
            said.map_or(error.clone(), |said| format!("{error}; it said: {said}"))
        };
        let service = match connecting {
            Err(_) => return Err(explain(&process, late())),
            Ok(Err(error)) => return Err(explain(&process, chain(&error))),
            Ok(Ok(service)) => service,
        };
        let outcome = self.stay(service, &mut process, &progress, &changed).await;
        let outcome = outcome.map_err(|error| explain(&process, error));
        if let Some(process) = process {
            process.end().await;
        }
        outcome
    }

    /// Keeps a connection until it ends, or is to end.
    async fn stay(
        &self,
        mut service: RunningService<RoleClient, Listener>,
        process: &mut Option<Process>,
        progress: &Progress,
        changed: &Notify,
    ) -> Result<(), String> {
        let peer = service.peer().clone();
        let listing = timeout(self.settings.connection_timeout, self.list(&peer)).await;
        let mut tools = listing.map_err(|_| "it did not list its tools in time".to_owned())??;
        self.silent.store(0, Ordering::Relaxed);
        tracing::info!(server = self.settings.name, tools = tools.len(), "an MCP server is connected");
        loop {
            let ready =
                Inner::Ready { peer: peer.clone(), tools: Arc::new(tools.clone()), progress: Arc::clone(progress) };
            self.state.send_replace(ready);
            let gone = async {
                match process.as_mut() {
                    Some(process) => process.ended().await,
                    None => std::future::pending().await,
                }
            };
            let closed = async {
                // The library tells of a closed connection only when asked.
                while !peer.is_transport_closed() {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            };
            let failed = tokio::select! {
                biased;
                () = self.end.cancelled() => None,
                () = gone => Some("it ended"),
                () = closed => Some("it closed the connection"),
                () = self.broken.notified() => Some("it does not answer"),
                () = changed.notified() => {
                    match timeout(self.settings.request_timeout, self.list(&peer)).await {
                        Ok(Ok(listed)) => tools = listed,
                        Ok(Err(error)) => tracing::warn!(server = self.settings.name, error, "its tools cannot be listed again"),
                        Err(_) => tracing::warn!(server = self.settings.name, "its tools cannot be listed again in time"),
                    }
                    continue;
                }
            };
            // Closing the input is how a program is asked to end.
            let _ = service.close_with_timeout(CLOSE).await;
            return failed.map_or(Ok(()), |why| Err(why.to_owned()));
        }
    }

    async fn list(&self, peer: &Peer<RoleClient>) -> Result<Vec<Arc<McpTool>>, String> {
        let mut tools = Vec::new();
        let mut taken = HashSet::new();
        let mut cursor = None;
        for _ in 0..PAGES {
            let params = PaginatedRequestParams::default().with_cursor(cursor.take());
            let page = peer
                .list_tools(Some(params))
                .await
                .map_err(|error| format!("its tools cannot be listed: {}", chain(&error)))?;
            for given in page.tools {
                if !self.settings.filter.lets(&given.name) {
                    continue;
                }
                if tools.len() == TOOLS {
                    tracing::warn!(server = self.settings.name, "it has more than {TOOLS} tools; the rest is left out");
                    return Ok(tools);
                }
                let name = names::tool(&self.prefix, &given.name, &mut taken);
                match tool::spec(name, &self.settings.name, &given) {
                    Ok(spec) => tools.push(Arc::new(McpTool::new(Weak::clone(&self.me), spec, &given))),
                    Err(reason) => {
                        tracing::warn!(server = self.settings.name, tool = %given.name, reason, "a tool is left out")
                    }
                }
            }
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        Ok(tools)
    }

    pub fn request_timeout(&self) -> Duration {
        self.settings.request_timeout
    }

    /// One call. Connects first, if it has to.
    pub async fn call(
        &self,
        tool: &str,
        arguments: JsonObject,
        cancel: &CancellationToken,
        heard: mpsc::Sender<String>,
    ) -> Result<CallToolResult, CallError> {
        self.connect();
        self.settled(Instant::now() + self.settings.connection_timeout).await;
        let (peer, progress) = match &*self.state.borrow() {
            Inner::Ready { peer, progress, .. } => (peer.clone(), Arc::clone(progress)),
            Inner::Failed { error, .. } => return Err(CallError::Away(error.clone())),
            _ => return Err(CallError::Away("it is not connected".to_owned())),
        };
        let params = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments);
        let request = ClientRequest::CallToolRequest(CallToolRequest::new(params));
        let sent = peer.send_cancellable_request(request, PeerRequestOptions::no_options()).await;
        let mut handle = sent.map_err(|error| CallError::Away(chain(&error)))?;
        let token = handle.progress_token.clone();
        lock(&progress).insert(token.clone(), heard);
        let answered = tokio::select! {
            biased;
            () = cancel.cancelled() => None,
            answered = timeout(self.settings.request_timeout, &mut handle.rx) => Some(answered),
        };
        lock(&progress).remove(&token);
        match answered {
            Some(Ok(Ok(Ok(ServerResult::CallToolResult(result))))) => {
                self.silent.store(0, Ordering::Relaxed);
                Ok(result)
            }
            Some(Ok(Ok(Ok(_)))) => {
                Err(CallError::Refused("it answered something else than a tool's result".to_owned()))
            }
            Some(Ok(Ok(Err(ServiceError::McpError(error))))) => {
                self.silent.store(0, Ordering::Relaxed);
                Err(CallError::Refused(error.message.into_owned()))
            }
            Some(Ok(Ok(Err(error)))) => Err(self.lost(chain(&error))),
            Some(Ok(Err(_))) => Err(self.lost("the connection was closed".to_owned())),
            Some(Err(_)) => {
                let _ = timeout(CLOSE, handle.cancel(Some("timeout".to_owned()))).await;
                Err(self.lost(format!("it did not answer within {} s", self.settings.request_timeout.as_secs_f32())))
            }
            None => {
                let _ = timeout(CLOSE, handle.cancel(Some("cancelled".to_owned()))).await;
                Err(CallError::Cancelled)
            }
        }
    }

    fn lost(&self, why: String) -> CallError {
        if self.silent.fetch_add(1, Ordering::Relaxed) + 1 >= SILENT_CALLS {
            self.broken.notify_one();
        }
        CallError::Lost(why)
    }
}

/// How a call ended without a result.
pub(super) enum CallError {
    /// It was never made.
    Away(String),
    /// The server says no.
    Refused(String),
    /// Nobody knows whether it took effect.
    Lost(String),
    Cancelled,
}

fn lock(progress: &Progress) -> std::sync::MutexGuard<'_, HashMap<ProgressToken, mpsc::Sender<String>>> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An error and what caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

fn http_transport(server: &HttpServer) -> Result<StreamableHttpClientTransport<Client>, String> {
    let mut builder = Client::builder()
        .tls_backend_preconfigured(tls::config(server.url.scheme() == "https")?)
        // Headers may be credentials: they go where the owner said and nowhere else (P-90).
        .redirect(redirect::Policy::none())
        .referer(false)
        .connect_timeout(Duration::from_secs(15))
        .user_agent(concat!("openclaw/", env!("CARGO_PKG_VERSION")));
    if is_near(&server.url) {
        builder = builder.no_proxy();
    }
    let client = builder.build().map_err(|error| error.to_string())?;
    let mut headers = HashMap::new();
    for (name, value) in &server.headers {
        let header = HeaderName::try_from(name.as_str()).map_err(|_| format!("{name} is no name of a header"))?;
        let mut value =
            HeaderValue::try_from(value.expose()).map_err(|_| format!("the header {name} cannot be sent"))?;
        value.set_sensitive(true);
        headers.insert(header, value);
    }
    let config = StreamableHttpClientTransportConfig::with_uri(server.url.as_str())
        .custom_headers(headers)
        .max_sse_event_size(MESSAGE_BYTES)
        // A call may have taken effect before the session went: it is told, not repeated.
        .reinit_on_expired_session(false);
    Ok(StreamableHttpClientTransport::with_client(client, config))
}

/// On this machine or in its network: no proxy of the environment stands between.
fn is_near(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(v4)) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        Some(Host::Ipv6(v6)) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

/// Our side of a connection. Offers nothing but to be told of changes and progress.
struct Listener {
    name: String,
    progress: Progress,
    changed: Arc<Notify>,
}

impl ClientHandler for Listener {
    fn get_info(&self) -> ClientConfig {
        ClientConfig::new(ClientCapabilities::default(), Implementation::new("openclaw", env!("CARGO_PKG_VERSION")))
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        tracing::debug!(server = self.name, "its tools changed");
        self.changed.notify_one();
    }

    async fn on_progress(&self, params: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        let Some(heard) = lock(&self.progress).get(&params.progress_token).cloned() else { return };
        let of = params.total.map(|total| format!(" of {total}")).unwrap_or_default();
        let text = params.message.unwrap_or_else(|| format!("{}{of}", params.progress));
        // Nobody waits for progress.
        let _ = heard.try_send(untrusted::cut(&text, 500));
    }
}
