//! The health report: made at most once a second, serialised once, shared by every answer, hello and event.

use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

use bytes::Bytes;
use openclaw_protocol::{
    Scope, ScopeSet, event,
    method::system::{AgentHealth, AgentHeartbeat, ConfigReload, HealthReport, Plugins, SessionsHealth},
};
use serde_json::{Value, json, value::RawValue};

use crate::{clock::now_ms, gateway::Gateway, rpc::channels};

/// Interval of the unasked refresh (events notes, section 3).
pub const REFRESH: std::time::Duration = std::time::Duration::from_secs(60);
/// A report younger than this answers a probe as well, ms.
const FRESH_MS: i64 = 1_000;
/// Conversations a report names.
const RECENT: usize = 5;

/// A report in both forms a caller may see.
#[derive(Debug)]
struct Snapshot {
    made_at_ms: i64,
    full: Arc<RawValue>,
    /// Paths replaced, for everybody who is not an admin.
    redacted: Arc<RawValue>,
}

/// The cached report.
#[derive(Debug)]
pub struct Health(Mutex<Snapshot>);

impl Default for Health {
    /// Starts empty; [`refresh`] fills it before the first listener opens.
    fn default() -> Self {
        let null: Arc<RawValue> = Arc::from(RawValue::NULL.to_owned());
        Self(Mutex::new(Snapshot { made_at_ms: 0, full: Arc::clone(&null), redacted: null }))
    }
}

impl Health {
    /// The report as JSON, in the form these scopes may see.
    pub fn json(&self, scopes: ScopeSet) -> Arc<RawValue> {
        let snapshot = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Arc::clone(if scopes.grants(Scope::Admin) { &snapshot.full } else { &snapshot.redacted })
    }

    fn age_ms(&self, now: i64) -> i64 {
        self.0.lock().map_or(i64::MAX, |snapshot| now - snapshot.made_at_ms)
    }

    fn replace(&self, snapshot: Snapshot) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = snapshot;
    }
}

/// Answers `health`; a probe asks for a report no older than a second.
pub fn answer(gateway: &Gateway, scopes: ScopeSet, probe: bool) -> Bytes {
    if probe && gateway.health.age_ms(now_ms()) > FRESH_MS {
        refresh(gateway);
    }
    Bytes::copy_from_slice(gateway.health.json(scopes).get().as_bytes())
}

/// Makes a new report and tells everyone.
pub fn refresh(gateway: &Gateway) {
    let started = Instant::now();
    let report = |path: &str| report(gateway, path, started);
    let path = gateway.sessions_path();
    let (full, redacted) = (raw(&report(&path)), raw(&report("[redacted]")));
    gateway.health.replace(Snapshot { made_at_ms: now_ms(), full, redacted: Arc::clone(&redacted) });
    gateway.hub.bump_health();
    gateway.hub.broadcast_state(event::HEALTH, redacted.get().as_bytes());
}

fn raw(report: &HealthReport) -> Arc<RawValue> {
    Arc::from(serde_json::value::to_raw_value(report).unwrap_or_else(|_| RawValue::NULL.to_owned()))
}

fn report(gateway: &Gateway, path: &str, started: Instant) -> HealthReport {
    let now = now_ms();
    let recent = gateway.sessions.recent(RECENT);
    let recent = recent.iter().map(|record| {
        json!({"key": record.key.as_str(), "updatedAt": record.updated_ms, "age": (now - record.updated_ms).max(0)})
    });
    let count = u64::try_from(gateway.sessions.count()).unwrap_or(u64::MAX);
    let sessions = SessionsHealth { path: path.to_owned(), count, recent: recent.collect() };
    let settings = gateway.runs.settings(gateway);
    let beat = heartbeat(gateway);
    let chats = channels::summary(gateway);
    HealthReport {
        ok: true,
        ts: now_ms(),
        duration_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        plugins: Plugins::default(),
        config_reload: ConfigReload { hot_reload_status: gateway.reload_status().to_owned() },
        channels: chats.channels.into_iter().map(|(id, row)| (id, outline(&row))).collect(),
        channel_order: chats.channel_order,
        channel_labels: chats.channel_labels,
        heartbeat_seconds: beat.every_ms.unwrap_or_default() / 1000,
        default_agent_id: settings.default_id.clone(),
        agents: settings
            .agents
            .iter()
            .map(|agent| AgentHealth {
                agent_id: agent.id.clone(),
                is_default: agent.id == settings.default_id,
                heartbeat: AgentHeartbeat { enabled: beat.enabled && agent.id == settings.default_id, ..beat.clone() },
                sessions: of_agent(gateway, &sessions, &agent.id),
            })
            .collect(),
        sessions,
        event_loop: None,
    }
}

/// What everybody may know of a channel. Why one fails is in `channels.status`, for those who may read.
fn outline(row: &Value) -> Value {
    json!({"configured": row["configured"], "running": row["running"], "connected": row["connected"]})
}

/// How often the agent looks around by itself, as reports show it.
pub fn heartbeat(gateway: &Gateway) -> AgentHeartbeat {
    let settings = gateway.runs.settings(gateway);
    let every = settings.heartbeat.every;
    let minutes = every.map_or(0, |every| every.as_secs() / 60);
    AgentHeartbeat {
        enabled: gateway.heartbeats_enabled() && every.is_some(),
        every: format!("{minutes}m"),
        every_ms: every.map(|every| u64::try_from(every.as_millis()).unwrap_or(u64::MAX)),
        prompt: settings.heartbeat.prompt.clone().unwrap_or_default(),
        target: "none".into(),
        ack_max_chars: 300,
    }
}

/// The part of a report about conversations that is one agent's.
fn of_agent(gateway: &Gateway, all: &SessionsHealth, agent: &str) -> SessionsHealth {
    let prefix = format!("agent:{agent}:");
    let of_it = |row: &&Value| row["key"].as_str().is_some_and(|key| key.starts_with(&prefix));
    SessionsHealth {
        path: all.path.clone(),
        count: u64::try_from(gateway.sessions.count_of(agent)).unwrap_or(u64::MAX),
        recent: all.recent.iter().filter(of_it).cloned().collect(),
    }
}
