//! `health`, `status`, presence, heartbeats, identity, secrets.

use std::sync::Arc;

use openclaw_protocol::{
    ErrorShape, Scope, event,
    method::{
        Done,
        system::{
            AgentHeartbeatStatus, AgentSessionsStatus, CliProjection, GatewayIdentity, GatewayIdentityGet, Health,
            HeartbeatStatus, HeartbeatsSet, LastHeartbeat, MemoryPlugin, PresenceEntry, ProjectedAgent,
            ProjectedAgents, SecretsReload, SecretsReloaded, SessionModelDefaults, SessionsStatus, SetHeartbeats,
            Status, StatusParams, StatusReport, SystemEvent, SystemEventParams, SystemInfo, SystemInfoReport,
            SystemPresence, TaskAudit, TasksStatus,
        },
    },
};

use serde_json::{Value, json};

use super::registry::{Call, Registry};
use crate::{
    clock::now_ms,
    gateway::Gateway,
    health, host,
    sessions::{Record, models::Models},
};

/// Conversations `status` names.
const RECENT: usize = 10;
/// Texts reported by peers are cut to this many characters.
const MAX_TEXT: usize = 500;

pub fn register(registry: &mut Registry) {
    registry
        .on_shared::<Health>(|call, params| {
            Ok(health::answer(&call.gateway, call.caller.scopes, params.probe == Some(true)))
        })
        .on::<Status>(|call, params| Ok(status(call, params)))
        .on_shared::<SystemPresence>(|call, _| {
            Ok(bytes::Bytes::copy_from_slice(call.gateway.presence.json().get().as_bytes()))
        })
        .on::<SystemEvent>(system_event)
        .on::<LastHeartbeat>(|call, _| Ok(call.gateway.last_heartbeat()))
        .on::<SetHeartbeats>(|call, params| {
            call.gateway.set_heartbeats(params.enabled);
            health::refresh(&call.gateway);
            Ok(HeartbeatsSet { ok: true, enabled: params.enabled })
        })
        .on::<GatewayIdentityGet>(|call, _| {
            let key = call.gateway.identity.public();
            Ok(GatewayIdentity { device_id: key.device_id(), public_key: key.to_wire() })
        })
        .on::<SystemInfo>(|call, _| Ok(system_info(&call.gateway)))
        .on_async::<SecretsReload, _>(|call, _| async move {
            let warnings = crate::reload::reload_secrets(&call.gateway).await.map_err(ErrorShape::unavailable)?;
            Ok(SecretsReloaded { ok: true, warning_count: warnings })
        });
}

fn status(call: &Call, params: StatusParams) -> StatusReport {
    let gateway = &call.gateway;
    let settings = gateway.runs.settings(gateway);
    let agent = settings.default_id.clone();
    let path = if call.caller.scopes.grants(Scope::Admin) { gateway.sessions_path() } else { "[redacted]".into() };
    let beat = health::heartbeat(gateway);
    let catalog = gateway.runs.models().catalog();
    let model = catalog.agent_model(&agent).map(|model| catalog.model(&model));
    let recent = recent(gateway);
    StatusReport {
        runtime_version: gateway.version.to_owned(),
        cli_projection: (params.include_cli_projection == Some(true)).then(|| CliProjection {
            agents: ProjectedAgents {
                default_id: agent.clone(),
                ownership: "sole".into(),
                selection_required: false,
                rows: settings.agents.iter().map(|agent| ProjectedAgent { id: agent.id.clone() }).collect(),
            },
            update_channel: None,
            memory_plugin: MemoryPlugin { enabled: false, slot: None, reason: Some("no memory plugin".into()) },
        }),
        heartbeat: HeartbeatStatus {
            default_agent_id: agent.clone(),
            agents: vec![AgentHeartbeatStatus {
                agent_id: agent.clone(),
                enabled: beat.enabled,
                every: beat.every,
                every_ms: beat.every_ms,
            }],
        },
        channel_summary: Vec::new(),
        queued_system_events: gateway.queued_system_events(),
        degraded_secret_owners: Vec::new(),
        degraded_plugins: Vec::new(),
        tasks: TasksStatus::default(),
        task_audit: TaskAudit::default(),
        sessions: SessionsStatus {
            paths: vec![path.clone()],
            count: u64::try_from(gateway.sessions.count()).unwrap_or(u64::MAX),
            defaults: SessionModelDefaults {
                model: model.as_ref().map(|model| model.reference.model.clone()),
                context_tokens: model.as_ref().map(|model| u64::from(model.context_window)),
            },
            by_agent: settings
                .agents
                .iter()
                .map(|agent| {
                    let prefix = format!("agent:{}:", agent.id);
                    let own = |row: &&Value| row["key"].as_str().is_some_and(|key| key.starts_with(&prefix));
                    AgentSessionsStatus {
                        agent_id: agent.id.clone(),
                        path: path.clone(),
                        count: u64::try_from(gateway.sessions.count_of(&agent.id)).unwrap_or(u64::MAX),
                        recent: recent.iter().filter(own).cloned().collect(),
                    }
                })
                .collect(),
            recent,
        },
    }
}

/// The conversations changed last, as `status` shows them.
fn recent(gateway: &Gateway) -> Vec<Value> {
    let now = now_ms();
    let models = Models(gateway.runs.models().catalog());
    let row = |record: &Arc<Record>| {
        let model = models.selected(record);
        let context = record.totals.context;
        let window = model.as_ref().map(|model| models.context_tokens(model));
        let percent = window.filter(|window| *window > 0).zip(context).map(|(window, used)| used * 100 / window);
        json!({
            "agentId": record.key.agent(),
            "key": record.key.as_str(),
            "sessionId": record.session_id.as_str(),
            "updatedAt": record.updated_ms,
            "age": (now - record.updated_ms).max(0),
            "model": model.map(|model| model.model),
            "totalTokens": context,
            "contextTokens": window,
            "percentUsed": percent,
        })
    };
    gateway.sessions.recent(RECENT).iter().map(row).collect()
}

fn system_event(call: &Call, params: SystemEventParams) -> Result<Done, ErrorShape> {
    let text: String = params.text.trim().chars().take(MAX_TEXT).collect();
    if text.is_empty() {
        return Err(ErrorShape::invalid(
            "invalid system-event params: at /text: must NOT have fewer than 1 characters",
        ));
    }
    let cut = |text: Option<String>| text.map(|text| text.chars().take(200).collect::<String>());
    let device_id = params.device_id.as_deref().and_then(openclaw_protocol::DeviceId::parse);
    let key = params.device_id.clone().or(params.instance_id.clone()).or(params.host.clone());
    // A line about a machine updates its presence; anything else waits for the agent's next turn.
    if let Some(key) = key.filter(|_| text.starts_with("Node:") || params.mode.is_some()) {
        let entry = PresenceEntry {
            text,
            ts: now_ms(),
            host: cut(params.host),
            ip: cut(params.ip),
            version: cut(params.version),
            platform: cut(params.platform),
            device_family: cut(params.device_family),
            mode: cut(params.mode),
            reason: cut(params.reason),
            last_input_seconds: params.last_input_seconds.filter(|s| *s >= 0.0).map(|s| s as u64),
            tags: params.tags.unwrap_or_default().into_iter().take(16).collect(),
            instance_id: cut(params.instance_id),
            device_id,
            ..PresenceEntry::default()
        };
        call.gateway.presence.reported(&call.gateway.hub, key.chars().take(200).collect(), entry, now_ms());
    } else {
        call.gateway.queue_system_event(text);
        let presence = call.gateway.presence.json();
        let payload = format!("{{\"presence\":{}}}", presence.get());
        call.gateway.hub.broadcast_state(event::PRESENCE, payload.as_bytes());
    }
    Ok(Done::OK)
}

fn system_info(gateway: &Gateway) -> SystemInfoReport {
    let host = host::facts();
    SystemInfoReport {
        machine_name: host.hostname.clone(),
        os_label: format!("{} {}", host.system, host.release),
        hostname: host.hostname,
        platform: std::env::consts::OS.to_owned(),
        release: host.release,
        arch: std::env::consts::ARCH.to_owned(),
        port: gateway.port(),
        pid: std::process::id(),
        process_instance_id: gateway.boot_id.clone(),
        uptime_ms: gateway.uptime_ms(),
        cpu_count: host.cpus,
        load_average: host.load_average,
        memory_total_bytes: host.memory_total_bytes,
        memory_free_bytes: host.memory_free_bytes,
    }
}
