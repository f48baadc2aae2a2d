//! The agent looks around by itself: when it is woken, and every so often when the config says so.

use std::{sync::Arc, time::Duration};

use openclaw_protocol::{ScopeSet, event, method::system::Heartbeat};

use super::{Authority, Input, Origin, RunId, RunOutcome, RunRequest, RunStatus, Runs, WhenBusy, settings::MAIN_KEY};
use crate::{clock::now_ms, gateway::Gateway, sessions::SessionKey};

/// What it is asked when the config does not say.
pub const PROMPT: &str = "Look around: read HEARTBEAT.md in your workspace if it is there and do what it says now; tell the \
person what they should know. Do not repeat what was said before. If there is nothing to do and nothing to tell, answer only \
HEARTBEAT_OK.";
/// Characters of the reply in the event.
const PREVIEW_CHARS: usize = 200;

/// Keeps a line for the next turn of a conversation and, when it should not wait, has the agent look around now. Returns what
/// became of the line: `queued`, or `coalesced` when the same was the last one to wait there already. `outsider` names who
/// wrote it, when it comes from outside.
pub async fn notice(
    gateway: &Arc<Gateway>,
    key: SessionKey,
    outsider: Option<String>,
    text: String,
    now: bool,
) -> &'static str {
    let reason = if outsider.is_some() { "hook" } else { "wake" };
    let outcome = if gateway.queue_event_for(&key, outsider, text) { "queued" } else { "coalesced" };
    if now {
        wake(gateway, key, reason).await;
    }
    outcome
}

/// Has the agent look around in a conversation now. Without a model there is nobody to wake; what was queued waits.
async fn wake(gateway: &Arc<Gateway>, key: SessionKey, reason: &'static str) {
    if gateway.runs.models().choose(key.agent(), None).await.is_err() {
        return;
    }
    let settings = gateway.runs.settings(gateway);
    let prompt = settings.heartbeat.prompt.clone().unwrap_or_else(|| PROMPT.to_owned());
    let deliver =
        gateway.sessions.get(&key).and_then(|record| record.place.as_ref().map(|place| place.address.clone()));
    let request = RunRequest {
        run_id: RunId(format!("heartbeat:{}", uuid::Uuid::new_v4())),
        session: key,
        input: Input { text: prompt, media: Vec::new() },
        origin: Origin::Internal("heartbeat"),
        // It acts for nobody in particular: what it may do is what a person in a chat may.
        authority: Authority { scopes: ScopeSet::EMPTY, owner: false },
        deliver,
        model: None,
        thinking: None,
        timeout: None,
        extra_system: None,
        when_busy: WhenBusy::Followup,
    };
    let started = std::time::Instant::now();
    let watch = match Runs::submit(gateway, request).await {
        Ok(submitted) => submitted.watch,
        Err(error) => return tracing::warn!("the agent was not woken: {}", error.message),
    };
    let gateway = Arc::clone(gateway);
    gateway.clone().tracker.spawn(async move {
        let Some(outcome) = watch.outcome().await else { return };
        let beat = Heartbeat {
            ts: now_ms(),
            status: status(&outcome).into(),
            preview: (!outcome.text.is_empty()).then(|| outcome.text.chars().take(PREVIEW_CHARS).collect()),
            reason: outcome.error.clone().or_else(|| Some(reason.to_owned())),
            duration_ms: u64::try_from(started.elapsed().as_millis()).ok(),
        };
        gateway.hub.broadcast(event::HEARTBEAT, &beat);
        gateway.runs.set_last_heartbeat(beat);
    });
}

/// `status` of a `heartbeat` event.
fn status(outcome: &RunOutcome) -> &'static str {
    match (outcome.status, outcome.text.is_empty()) {
        (RunStatus::Ok, true) => "ok-empty",
        (RunStatus::Ok, false) => "sent",
        _ => "failed",
    }
}

/// Wakes the default agent every so often, until the gateway stops. Off until `agents.defaults.heartbeat.every` is set: a
/// model costs money.
pub async fn run(gateway: Arc<Gateway>) {
    let mut reloads = gateway.reloads.subscribe();
    loop {
        reloads.mark_unchanged();
        let settings = gateway.runs.settings(&gateway);
        let pause = async {
            match settings.heartbeat.every.filter(|_| gateway.heartbeats_enabled()) {
                Some(every) => tokio::time::sleep(every.max(Duration::from_secs(1))).await,
                // `set-heartbeats` is looked at again every minute.
                None if settings.heartbeat.every.is_some() => tokio::time::sleep(Duration::from_secs(60)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = gateway.cancel.cancelled() => return,
            changed = reloads.changed() => {
                if changed.is_err() {
                    return;
                }
                continue;
            }
            () = pause => {}
        }
        if !gateway.heartbeats_enabled() {
            continue;
        }
        let Ok(key) = SessionKey::resolve(MAIN_KEY, &settings.default_id, MAIN_KEY) else { continue };
        if !gateway.runs.is_running(&key) {
            wake(&gateway, key, "interval").await;
        }
    }
}
