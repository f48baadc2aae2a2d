//! The running gateway: what connections and methods share.

use std::{
    collections::VecDeque,
    net::IpAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use openclaw_agent::untrusted;
use openclaw_config::{env::Env, paths::Paths, settings::Flags};
use openclaw_protocol::{
    CloseReason, DeviceId, DeviceKey, ErrorShape, Role, ScopeSet, event,
    hello::{AuthMethod, SessionDefaults},
    method::system::{Heartbeat, PresenceEntry},
};
use serde_json::{json, value::RawValue};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admission::Admission,
    approvals::Approvals,
    arrivals::Arrivals,
    auth::rate_limit::RateLimiter,
    channels::{Channels, exec_approvals},
    clock::now_ms,
    health::Health,
    host,
    hub::{Connection, Hub},
    nodes::Nodes,
    pairing::{
        ApprovedVia, ChangeError, DeviceRegistry, DisconnectCause, Effects, Full, IssueRequest, Issued, Moment,
        PairingRequest, RequestId, Seen, registry::random_token, view,
    },
    presence::Presence,
    rpc::{Registry, write_limit::WriteLimit},
    runs::Runs,
    runtime::Runtime,
    sessions::{SessionKey, Sessions},
    setup::Outcomes,
    store::Store,
    tls::Tls,
};

/// System events waiting for the agent's next turn.
const MAX_SYSTEM_EVENTS: usize = 20;

/// What `hello-ok.features.capabilities` promises. The real CLI asks for models only where the first one is.
const CAPABILITIES: [&str; 1] = ["published-model-catalog"];

/// A line for the agent.
#[derive(PartialEq, Eq)]
struct Waiting {
    /// The conversation; `None` for the default agent's main one.
    session: Option<SessionKey>,
    /// Who wrote it, when that was nobody of this machine.
    outsider: Option<String>,
    text: String,
}

/// Everything shared. Handlers reach it through [`crate::rpc::registry::Call`].
pub struct Gateway {
    pub paths: Paths,
    pub env: Env,
    /// Command-line settings; they stay above the file at every reload.
    pub flags: Flags,
    pub version: &'static str,
    /// New for every start of the process.
    pub boot_id: String,
    /// `hello-ok.features`, made from the registry once.
    pub features: Box<RawValue>,
    pub session_defaults: SessionDefaults,
    /// The gateway's own key (`gateway.identity.get`).
    pub identity: DeviceKey,
    /// Settings in force; swapped whole by a validated reload.
    pub runtime: ArcSwap<Runtime>,
    pub hub: Hub,
    pub presence: Presence,
    pub health: Health,
    pub pairing: DeviceRegistry,
    pub nodes: Nodes,
    /// Leave to run commands, asked and given.
    pub approvals: Approvals,
    /// Answers of the agent, under way and to come.
    pub runs: Runs,
    /// Accounts of chat channels.
    pub channels: Channels,
    /// Questions for leave to run commands, in chats.
    pub exec_monitor: exec_approvals::Monitor,
    pub sessions: Sessions,
    pub store: Store,
    pub registry: Registry,
    pub admission: Arc<Admission>,
    pub write_limit: WriteLimit,
    /// Of one-time tokens.
    pub outcomes: Outcomes,
    /// Who comes while a code is out.
    pub arrivals: Arrivals,
    /// From accept to an authenticated WebSocket.
    pub handshake_timeout: Duration,
    /// What the HTTP API remembers between requests.
    pub http: crate::http::api::State,
    /// The TLS side of the TCP listeners; `None` while they speak plain HTTP. Settled at start.
    pub tls: Option<Arc<Tls>>,
    /// Counts the reloads; tells those who act upon settings.
    pub reloads: tokio::sync::watch::Sender<u64>,
    /// Nothing new is begun; what runs may end. Comes before `cancel`, and with it.
    pub draining: CancellationToken,
    /// Asks every task to end.
    pub cancel: CancellationToken,
    /// Owns every task.
    pub tracker: TaskTracker,
    limiter: Mutex<RateLimiter>,
    refusals: Mutex<RefusalLog>,
    system_events: Mutex<VecDeque<Waiting>>,
    heartbeats: AtomicBool,
    reload_rejected: AtomicBool,
    store_failed: AtomicBool,
    port: AtomicU16,
    listening: OnceLock<Vec<IpAddr>>,
    started: Instant,
}

/// What [`Gateway::new`] is built from.
pub struct Parts {
    pub paths: Paths,
    pub env: Env,
    /// Command-line settings; they stay above the file at every reload.
    pub flags: Flags,
    pub version: &'static str,
    pub identity: DeviceKey,
    pub runtime: Runtime,
    pub store: Store,
    pub pairing: DeviceRegistry,
    pub nodes: Nodes,
    pub sessions: Sessions,
    pub per_client_sockets: usize,
    pub handshake_timeout: Duration,
    pub tls: Option<Arc<Tls>>,
}

impl Gateway {
    pub fn new(parts: Parts) -> Arc<Self> {
        let registry = crate::rpc::registry();
        let cancel = CancellationToken::new();
        parts.pairing.observe(Moment { wall_ms: now_ms(), uptime_ms: 0 });
        let features =
            json!({"methods": registry.names(), "events": event::advertised(), "capabilities": CAPABILITIES});
        Arc::new(Self {
            presence: Presence::new(own_presence(parts.version)),
            paths: parts.paths,
            env: parts.env,
            flags: parts.flags,
            version: parts.version,
            boot_id: uuid::Uuid::new_v4().to_string(),
            features: serde_json::value::to_raw_value(&features).unwrap_or_else(|_| RawValue::NULL.to_owned()),
            session_defaults: SessionDefaults::default(),
            identity: parts.identity,
            runtime: ArcSwap::from_pointee(parts.runtime),
            hub: Hub::default(),
            health: Health::default(),
            pairing: parts.pairing,
            nodes: parts.nodes,
            approvals: Approvals::default(),
            runs: Runs::default(),
            channels: Channels::default(),
            exec_monitor: exec_approvals::Monitor::default(),
            sessions: parts.sessions,
            store: parts.store,
            registry,
            admission: Admission::new(parts.per_client_sockets),
            write_limit: WriteLimit::default(),
            outcomes: Outcomes::default(),
            arrivals: Arrivals::default(),
            handshake_timeout: parts.handshake_timeout,
            http: crate::http::api::State::default(),
            tls: parts.tls,
            reloads: tokio::sync::watch::Sender::new(0),
            draining: cancel.child_token(),
            cancel,
            tracker: TaskTracker::new(),
            limiter: Mutex::default(),
            refusals: Mutex::default(),
            system_events: Mutex::default(),
            heartbeats: AtomicBool::new(true),
            reload_rejected: AtomicBool::new(false),
            store_failed: AtomicBool::new(false),
            port: AtomicU16::new(0),
            listening: OnceLock::new(),
            started: Instant::now(),
        })
    }

    /// Milliseconds since the gateway started.
    pub fn uptime_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The port in use; 0 until the listeners are open.
    pub fn port(&self) -> u16 {
        self.port.load(Ordering::Relaxed)
    }

    pub fn set_port(&self, port: u16) {
        self.port.store(port, Ordering::Relaxed);
    }

    /// Addresses of the TCP listeners; none until they are open.
    pub fn listening(&self) -> &[IpAddr] {
        self.listening.get().map_or(&[], Vec::as_slice)
    }

    /// Says where the listeners are, once.
    pub fn set_listening(&self, addresses: Vec<IpAddr>) {
        let _ = self.listening.set(addresses);
    }

    /// Works on the limiter. `work` runs under its lock: keep it short.
    pub fn limiter<R>(&self, work: impl FnOnce(&mut RateLimiter) -> R) -> R {
        work(&mut self.limiter.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Names of what is broken, for `/ready`. Empty while all is well.
    pub fn failing(&self) -> Vec<&'static str> {
        let mut failing = Vec::new();
        if self.store_failed.load(Ordering::Relaxed) {
            failing.push("store");
        }
        if self.draining.is_cancelled() {
            failing.push("stopping");
        }
        failing
    }

    /// Where sessions are stored, for reports.
    pub fn sessions_path(&self) -> String {
        self.paths.state_db().display().to_string()
    }

    /// Today's log file.
    pub fn log_file(&self) -> PathBuf {
        crate::log::file_for(&self.paths, self.runtime.load().log_file.as_deref(), &jiff::Zoned::now())
    }

    /// `active`, or `rejected` while the config on disk does not validate.
    pub fn reload_status(&self) -> &'static str {
        if self.reload_rejected.load(Ordering::Relaxed) { "rejected" } else { "active" }
    }

    pub fn set_reload_rejected(&self, rejected: bool) {
        self.reload_rejected.store(rejected, Ordering::Relaxed);
    }

    pub fn heartbeats_enabled(&self) -> bool {
        self.heartbeats.load(Ordering::Relaxed)
    }

    pub fn set_heartbeats(&self, enabled: bool) {
        self.heartbeats.store(enabled, Ordering::Relaxed);
    }

    /// The last heartbeat of the agent.
    pub fn last_heartbeat(&self) -> Option<Heartbeat> {
        self.runs.last_heartbeat()
    }

    /// Keeps a line for the default agent's next turn in its main conversation; the oldest line gives way.
    pub fn queue_system_event(&self, text: String) {
        self.queue_event(Waiting { session: None, outsider: None, text });
    }

    /// Keeps a line for the next turn of a conversation; the oldest line of all gives way. `outsider` says who wrote it when it
    /// comes from outside; the agent is told so. False when the newest line that waits there is the same already.
    pub fn queue_event_for(&self, session: &SessionKey, outsider: Option<String>, text: String) -> bool {
        let session = Some(session).filter(|session| !self.is_default_main(session)).cloned();
        self.queue_event(Waiting { session, outsider, text })
    }

    fn queue_event(&self, event: Waiting) -> bool {
        let mut events = self.system_events.lock().unwrap_or_else(PoisonError::into_inner);
        if events.iter().rev().find(|other| other.session == event.session) == Some(&event) {
            return false;
        }
        if events.len() == MAX_SYSTEM_EVENTS {
            events.pop_front();
        }
        events.push_back(event);
        true
    }

    fn is_default_main(&self, session: &SessionKey) -> bool {
        let defaults = &self.session_defaults;
        session.agent() == defaults.default_agent_id && session.rest() == defaults.main_key
    }

    pub fn queued_system_events(&self) -> Vec<String> {
        let events = self.system_events.lock().unwrap_or_else(PoisonError::into_inner);
        events.iter().map(|event| event.text.clone()).collect()
    }

    /// Gives the lines to the turn of this conversation that starts; they are told once.
    pub fn take_system_events(&self, session: &SessionKey) -> Vec<String> {
        let session = Some(session).filter(|session| !self.is_default_main(session));
        let mut events = self.system_events.lock().unwrap_or_else(PoisonError::into_inner);
        let (taken, left): (VecDeque<Waiting>, _) =
            std::mem::take(&mut *events).into_iter().partition(|event| event.session.as_ref() == session);
        *events = left;
        let told = |event: Waiting| match event.outsider {
            Some(outsider) => untrusted::wrap(&outsider, &event.text),
            None => event.text,
        };
        taken.into_iter().map(told).collect()
    }

    /// A connection has its hello.
    pub fn connected(self: &Arc<Self>, connection: &Arc<Connection>) {
        tracing::debug!(
            conn = %connection.id, client = %connection.params.client.id, role = %connection.role,
            from = %connection.address, device = connection.device.as_ref().map(DeviceId::short), "connected"
        );
        self.presence.connected(&self.hub, connection, connection.connected_at_ms);
        if let Some(device) = &connection.device {
            let seen = match connection.method {
                AuthMethod::DeviceToken => Seen::DeviceToken,
                _ => Seen::Connect,
            };
            self.pairing.touch(connection.connected_at_ms, device, connection.role, seen);
        }
        if connection.role == Role::Node {
            crate::nodes::connected(self, connection);
        }
    }

    /// A connection has ended.
    pub fn disconnected(self: &Arc<Self>, connection: &Arc<Connection>) {
        let now = now_ms();
        connection.outbound.end();
        self.hub.remove(connection.number);
        self.sessions.subscriptions().forget(connection.number);
        self.presence.disconnected(&self.hub, connection, now);
        if let Some(device) = &connection.device {
            self.pairing.touch(now, device, connection.role, Seen::Disconnect);
        }
        if connection.role == Role::Node {
            crate::nodes::disconnected(self, connection);
        }
        tracing::debug!(conn = %connection.id, "disconnected");
    }

    /// Finds or creates the pending request of a device. Runs to its end even when the asker hangs up.
    ///
    /// # Errors
    /// `UNAVAILABLE` when there is no room or it could not be saved.
    pub async fn request_pairing(self: &Arc<Self>, asked: PairingRequest) -> Result<RequestId, ErrorShape> {
        let gateway = Arc::clone(self);
        self.whole(async move {
            let changed = gateway.pairing.change(|state| state.request(now_ms(), RequestId::random(), asked)).await;
            let full = |full: Full| ErrorShape::retry_later(full.to_string(), 60_000);
            Ok(gateway.settle(changed, full)?.request_id)
        })
        .await
    }

    /// Approves a device without the owner, for a caller [`crate::auth::decide`] trusts to consent for him. False when only
    /// the owner can.
    ///
    /// # Errors
    /// `UNAVAILABLE` when it could not be saved.
    pub async fn approve_silently(self: &Arc<Self>, asked: PairingRequest) -> Result<bool, ErrorShape> {
        let gateway = Arc::clone(self);
        self.whole(async move {
            let token = fresh_token()?;
            let hub = &gateway.hub;
            let changed = gateway.pairing.change(|state| {
                state.approve_silent(now_ms(), asked, ApprovedVia::Silent, token, |id| hub.is_connected(id))
            });
            match changed.await {
                Err(ChangeError::Refused(_)) => Ok(false),
                changed => gateway.settle(changed, |_| ErrorShape::invalid("owner needed")).map(|_| true),
            }
        })
        .await
    }

    /// The device token for a hello: the one in force, or a new one that replaces it. `bind` ties it to the shared secret.
    ///
    /// # Errors
    /// `UNAVAILABLE` when it could not be saved or the approval ended meanwhile.
    pub async fn issue_token(
        self: &Arc<Self>,
        device_id: &DeviceId,
        role: Role,
        scopes: ScopeSet,
        bind: bool,
    ) -> Result<Issued, ErrorShape> {
        if let Some(issued) = self.token_in_force(device_id, role, scopes, bind) {
            return Ok(issued);
        }
        let (gateway, device_id) = (Arc::clone(self), device_id.clone());
        self.whole(async move {
            let token = fresh_token()?;
            let runtime = gateway.runtime.load_full();
            let asked =
                IssueRequest { device_id: &device_id, role, scopes, generation: runtime.generation.as_ref(), bind };
            let changed = gateway.pairing.change(|state| state.issue(now_ms(), &asked, token)).await;
            gateway.settle(changed, |error| ErrorShape::retry_later(error.to_string(), 500))
        })
        .await
    }

    /// The common case of [`Gateway::issue_token`], without a write: a live token that covers the request.
    fn token_in_force(&self, device_id: &DeviceId, role: Role, scopes: ScopeSet, bind: bool) -> Option<Issued> {
        self.pairing.read(|state| {
            let device = state.get(device_id)?;
            let baseline = device.baseline(role)?;
            let token = device.tokens.get(&role).filter(|token| token.live())?;
            let unbound = token.issuer.is_none() && !bind;
            (unbound && token.scopes.covers(scopes) && baseline.covers(token.scopes)).then(|| Issued {
                token: token.secret.clone(),
                scopes: token.scopes,
                issued_at_ms: token.issued_at_ms(),
                reused: true,
            })
        })
    }

    /// Carries out what a committed decision entails: sockets close before anybody hears of it.
    pub fn settle<R, E>(
        &self,
        changed: Result<(R, Effects), ChangeError<E>>,
        refused: impl FnOnce(E) -> ErrorShape,
    ) -> Result<R, ErrorShape> {
        self.settle_sparing(None, changed, refused)
    }

    /// As [`Gateway::settle`], but the connection `spared` stays open: it is about to be told the outcome.
    pub fn settle_sparing<R, E>(
        &self,
        spared: Option<u64>,
        changed: Result<(R, Effects), ChangeError<E>>,
        refused: impl FnOnce(E) -> ErrorShape,
    ) -> Result<R, ErrorShape> {
        match changed {
            Ok((result, effects)) => {
                self.store_failed.store(false, Ordering::Relaxed);
                for gone in &effects.disconnect {
                    self.hub.abort_where(&close_reason(gone.cause), |c| {
                        let meant = c.device.as_ref() == Some(&gone.device_id);
                        meant && gone.role.is_none_or(|role| role == c.role) && Some(c.number) != spared
                    });
                }
                for happened in &effects.events {
                    if let Ok((event, payload)) = view::event(happened) {
                        self.hub.broadcast(event, &payload);
                    }
                }
                Ok(result)
            }
            Err(ChangeError::Refused(reason)) => Err(refused(reason)),
            Err(ChangeError::Store(error)) => {
                tracing::error!(%error, "a pairing change could not be saved and did not happen");
                self.store_failed.store(true, Ordering::Relaxed);
                Err(ErrorShape::retry_later("the gateway could not save this; nothing was changed", 1_000))
            }
        }
    }

    /// Runs a change as a task of the gateway, so that it is whole even when the connection that wanted it ends.
    ///
    /// # Errors
    /// As the work; `UNAVAILABLE` when it panicked.
    pub async fn whole<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ErrorShape>> + Send + 'static,
    ) -> Result<T, ErrorShape> {
        let done = self.tracker.spawn(work).await;
        done.unwrap_or_else(|_| Err(ErrorShape::unavailable("internal error; see the gateway log")))
    }

    /// Notes a refused handshake: one line each, at most thirty a minute.
    pub fn log_refusal(&self, from: &str, client: &str, error: &ErrorShape) {
        let mut log = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let now = now_ms();
        if now - log.window_start_ms > REFUSAL_WINDOW_MS {
            if log.left_out > 0 {
                tracing::warn!("{} more refused connections were not logged", log.left_out);
            }
            *log = RefusalLog { window_start_ms: now, written: 0, left_out: 0 };
        }
        if log.written == REFUSALS_PER_WINDOW {
            log.left_out += 1;
            return;
        }
        log.written += 1;
        let code = error.detail_code().unwrap_or("INVALID_REQUEST");
        tracing::warn!(from, client, code, "refused: {}", error.message);
    }
}

const REFUSAL_WINDOW_MS: i64 = 60_000;
const REFUSALS_PER_WINDOW: u32 = 30;

/// Keeps a flood of refusals from flooding the log.
#[derive(Debug, Default)]
struct RefusalLog {
    window_start_ms: i64,
    written: u32,
    left_out: u64,
}

/// A fresh random token, or why there is none.
///
/// # Errors
/// `UNAVAILABLE` when the system has no randomness to give.
pub fn fresh_token() -> Result<openclaw_protocol::Secret, ErrorShape> {
    random_token().map_err(|error| ErrorShape::unavailable(format!("no randomness from the system: {error}")))
}

fn close_reason(cause: DisconnectCause) -> CloseReason {
    match cause {
        DisconnectCause::Removed => CloseReason::DEVICE_REMOVED,
        DisconnectCause::TokenRevoked | DisconnectCause::RightsReduced => CloseReason::DEVICE_TOKEN_REVOKED,
        DisconnectCause::TokenRotated => CloseReason::AUTH_CHANGED,
    }
}

fn own_presence(version: &str) -> PresenceEntry {
    let host = host::facts();
    PresenceEntry {
        text: format!("Gateway: {} · app {version} · mode gateway · reason self", host.hostname),
        host: Some(host.hostname),
        version: Some(version.to_owned()),
        platform: Some(format!("{} {}", host.system.to_ascii_lowercase(), host.release)),
        device_family: Some(host.system),
        mode: Some("gateway".into()),
        reason: Some("self".into()),
        ts: now_ms(),
        ..PresenceEntry::default()
    }
}
