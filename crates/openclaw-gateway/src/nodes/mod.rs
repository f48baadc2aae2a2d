//! Nodes: machines that lend their capabilities.
//!
//! ```text
//! connect ──► declared ──► surface (what the owner approved) ──► policy (what the configuration allows) ──► invoke
//! ```
//!
//! [`surface`], [`policy`], [`legacy`] and [`work`] are pure. [`registry`] keeps what is remembered in step with the
//! store and knows which nodes are here ([`live`]); [`invoke`] and [`answers`] carry commands to them; [`methods`] is
//! the RPC side, [`for_run`] that of the agent, and [`talk`] what nodes say to it.

pub mod answers;
pub mod for_run;
pub mod invoke;
pub mod legacy;
pub mod live;
pub mod methods;
pub mod policy;
pub mod progress;
pub mod registry;
pub mod reports;
pub mod sent;
pub mod surface;
pub mod talk;
pub mod view;
pub mod voicewake;
pub mod work;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use openclaw_protocol::{
    DeviceId, ErrorShape, Protocol,
    event::{NODE_PAIR_RESOLVED, VOICEWAKE_CHANGED, VOICEWAKE_ROUTING_CHANGED},
    method::node::VoicewakeTriggers,
};

pub use for_run::{find_for_run, list_for_run, usable_for_run};
pub use methods::register;
pub use registry::Nodes;

use self::{
    live::LiveNode,
    policy::{Lists, declarable},
    surface::{Consent, Details, NodeEvent},
};
use crate::{
    clock::now_ms,
    gateway::Gateway,
    hub::Connection,
    pairing::{ApprovedVia, ChangeError, RequestId},
    store::StoreError,
};

/// A node has its hello. It becomes the live connection of its node, and what it declares is compared with what was
/// approved.
pub fn connected(gateway: &Arc<Gateway>, connection: &Arc<Connection>) {
    let Some(node) = LiveNode::new(connection) else { return };
    if !gateway.nodes.attach(&node) {
        return;
    }
    reconcile(gateway, &node);
    let triggers = gateway.nodes.read(|remembered| voicewake::in_force(&remembered.triggers));
    connection.send_event(VOICEWAKE_CHANGED.name, &VoicewakeTriggers { triggers });
    if connection.protocol == Protocol::V4 {
        connection.send_event(VOICEWAKE_ROUTING_CHANGED.name, &voicewake::routing());
    }
}

/// A connection of a node has ended.
pub fn disconnected(gateway: &Arc<Gateway>, connection: &Arc<Connection>) {
    gateway.nodes.detach(connection);
}

/// A device is no longer paired as a node: nothing of it is remembered.
///
/// # Errors
/// `UNAVAILABLE` when that could not be saved.
pub async fn device_removed(gateway: &Arc<Gateway>, id: &DeviceId) -> Result<(), ErrorShape> {
    let node = id.clone();
    gateway.nodes.work.lock().unwrap_or_else(std::sync::PoisonError::into_inner).forget(id);
    let changed = gateway.nodes.change(|remembered| Ok(((), remembered.surfaces.forget(now_ms(), &node)))).await;
    settle(gateway, changed, |never: std::convert::Infallible| match never {})
}

/// Compares what a node declares with what the owner approved. The decision counts from here on; its events are told
/// once it is on disk.
fn reconcile(gateway: &Arc<Gateway>, node: &Arc<LiveNode>) {
    let runtime = gateway.runtime.load_full();
    let lists = Lists { allow: &runtime.node_allow, deny: &runtime.node_deny };
    let declared = declarable(node.platform, &node.declared, lists);
    let details = Details::of(&node.connection.params);
    let via = gateway.pairing.read(|state| state.get(&node.id).and_then(|device| device.approved_via));
    let consent = match (via, node.connection.protocol) {
        (_, Protocol::V3) | (Some(ApprovedVia::SshVerified | ApprovedVia::Bootstrap), _) => Consent::Given,
        (via, Protocol::V4) => Consent::Ask { silent: via == Some(ApprovedVia::Silent) },
    };
    let id = node.id.clone();
    let decide = move |remembered: &mut registry::Remembered| {
        remembered.surfaces.reconcile(now_ms(), RequestId::random(), &id, declared, details, consent)
    };
    let unsaved = gateway.nodes.change_now(decide.clone());
    let (gateway, node) = (Arc::clone(gateway), Arc::clone(node));
    gateway.tracker.clone().spawn(async move {
        let events = match unsaved {
            Some(unsaved) => gateway.nodes.saved(unsaved).await,
            // The store has a long queue just now: decide when it has room.
            None => {
                gateway.nodes.change(|r| Ok(((), decide(r)))).await.map(|((), events)| events).map_err(saving_failed)
            }
        };
        match events {
            Ok(events) => tell(&gateway, &events),
            Err(error) => tracing::error!(%error, node = node.id.short(), "what this node asks for could not be saved"),
        }
    });
}

fn saving_failed(error: ChangeError<std::convert::Infallible>) -> StoreError {
    match error {
        ChangeError::Store(error) => error,
        ChangeError::Refused(never) => match never {},
    }
}

/// Tells what a committed decision entails, or why there is none.
fn settle<R, E>(
    gateway: &Gateway,
    changed: Result<(R, Vec<NodeEvent>), ChangeError<E>>,
    refused: impl FnOnce(E) -> ErrorShape,
) -> Result<R, ErrorShape> {
    match changed {
        Ok((result, events)) => {
            tell(gateway, &events);
            Ok(result)
        }
        Err(ChangeError::Refused(reason)) => Err(refused(reason)),
        Err(ChangeError::Store(error)) => {
            tracing::error!(%error, "a change about nodes could not be saved and did not happen");
            Err(ErrorShape::retry_later("the gateway could not save this; nothing was changed", 1_000))
        }
    }
}

/// To operators with the pairing scope; a resolution also to the node itself, which then publishes what it held back.
fn tell(gateway: &Gateway, events: &[NodeEvent]) {
    for happened in events {
        let Ok((event, payload)) = view::event(happened) else { continue };
        if let NodeEvent::Resolved { node_id, .. } = happened
            && let Some(node) = DeviceId::parse(node_id).and_then(|id| gateway.nodes.live(&id))
        {
            node.connection.send_event(NODE_PAIR_RESOLVED.name, &payload);
        }
        gateway.hub.broadcast(event, &payload);
    }
}
