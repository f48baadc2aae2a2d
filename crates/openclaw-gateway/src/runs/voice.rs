//! What nodes ask of the agent: words they heard, messages somebody shared with them.

use std::{sync::Arc, time::Duration};

use openclaw_agent::provider::Thinking;
use openclaw_channels::message::Media;
use openclaw_protocol::{DeviceId, ErrorShape, ScopeSet};

use super::{Authority, Input, Origin, RunId, RunRequest, Runs, Submitted};
use crate::{gateway::Gateway, rpc::chat, sessions::SessionKey};

/// What a node asks.
#[derive(Debug)]
pub struct NodeWish {
    pub text: String,
    pub media: Vec<Media>,
    pub thinking: Option<Thinking>,
    pub timeout: Option<Duration>,
    /// Also answer in the chat where the conversation takes place, if there is one. Never anywhere else.
    pub deliver: bool,
}

/// Starts a run for a node. The reply goes to the conversation and its followers; the node hears it if it subscribed to the
/// conversation. A node is no operator: it may ask, and not command.
///
/// # Errors
/// As [`Runs::submit`].
pub async fn from_node(
    gateway: &Arc<Gateway>,
    node: DeviceId,
    session: SessionKey,
    wish: NodeWish,
) -> Result<Submitted, ErrorShape> {
    let request = RunRequest {
        run_id: RunId(format!("node:{}", uuid::Uuid::new_v4())),
        when_busy: gateway.runs.settings(gateway).queue,
        deliver: wish.deliver.then(|| chat::place(gateway, &session)).flatten(),
        session,
        input: Input { text: wish.text, media: wish.media },
        origin: Origin::Node(node),
        authority: Authority { scopes: ScopeSet::EMPTY, owner: false },
        model: None,
        thinking: wish.thinking,
        timeout: wish.timeout,
        extra_system: None,
    };
    Runs::submit(gateway, request).await
}
