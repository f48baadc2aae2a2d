//! Words a node heard.

use std::sync::Arc;

use openclaw_protocol::{DeviceId, ErrorShape, ScopeSet};

use super::{Authority, Input, Origin, RunId, RunRequest, Runs, Submitted};
use crate::gateway::Gateway;

/// Starts a run with what a node heard (`voice.transcript`). The reply goes to the conversation and its followers; the node
/// hears it if it subscribed to the conversation. A node is no operator: it may ask, and not command.
///
/// # Errors
/// As [`Runs::submit`]; `INVALID_REQUEST` for an empty text or a key that is none.
pub async fn from_voice(
    gateway: &Arc<Gateway>,
    node: DeviceId,
    text: &str,
    session: Option<&str>,
    event_id: Option<&str>,
) -> Result<Submitted, ErrorShape> {
    let text = text.trim();
    if text.is_empty() {
        return Err(ErrorShape::invalid("voice.transcript: text must not be empty"));
    }
    let key = gateway.runs.key(gateway, session.unwrap_or(super::settings::MAIN_KEY), None)?;
    let run_id = match event_id {
        Some(id) => format!("voice:{}:{id}", node.short()),
        None => format!("voice:{}", uuid::Uuid::new_v4()),
    };
    let request = RunRequest {
        run_id: RunId(run_id),
        when_busy: gateway.runs.settings(gateway).queue,
        session: key,
        input: Input { text: text.to_owned(), media: Vec::new() },
        origin: Origin::Node(node),
        authority: Authority { scopes: ScopeSet::EMPTY, owner: false },
        deliver: None,
        model: None,
        thinking: None,
        timeout: None,
        extra_system: None,
    };
    Runs::submit(gateway, request).await
}
