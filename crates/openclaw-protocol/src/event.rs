//! Events: name, who may see it, and what happens to it when a receiver is slow. An event has no default audience:
//! one that is not listed here cannot be sent.

use crate::Scope;

/// Who receives a broadcast event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Every authenticated connection, nodes included.
    Everyone,
    /// Operators that hold the scope.
    Operators(Scope),
}

/// A broadcast event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    pub name: &'static str,
    pub gate: Gate,
    /// Skipped for a receiver whose queue is long, instead of closing it.
    pub drop_if_slow: bool,
}

const fn event(name: &'static str, gate: Gate, drop_if_slow: bool) -> Event {
    Event { name, gate, drop_if_slow }
}

/// Sent once per socket before authentication, point to point.
pub const CONNECT_CHALLENGE: &str = "connect.challenge";

pub const TICK: Event = event("tick", Gate::Everyone, true);
pub const HEALTH: Event = event("health", Gate::Everyone, false);
pub const HEARTBEAT: Event = event("heartbeat", Gate::Everyone, true);
pub const SHUTDOWN: Event = event("shutdown", Gate::Everyone, false);
/// Protocol 3 sends presence to everyone; a node has no use for it, so both versions get the v4 gate.
pub const PRESENCE: Event = event("presence", Gate::Operators(Scope::Read), true);
pub const CONFIG_CHANGED: Event = event("config.changed", Gate::Operators(Scope::Read), false);
pub const DEVICE_PAIR_REQUESTED: Event = event("device.pair.requested", Gate::Operators(Scope::Pairing), true);
pub const DEVICE_PAIR_RESOLVED: Event = event("device.pair.resolved", Gate::Operators(Scope::Pairing), true);
pub const DEVICE_PAIR_CHANGED: Event = event("device.pair.changed", Gate::Operators(Scope::Pairing), true);
/// A one-time token was redeemed and its device has its own token.
pub const DEVICE_PAIR_SETUP_COMPLETED: Event =
    event("device.pair.setup.completed", Gate::Operators(Scope::Pairing), true);
/// A one-time token was redeemed, and whether its device heard so is not known.
pub const DEVICE_PAIR_SETUP_DELIVERY_UNCERTAIN: Event =
    event("device.pair.setup.deliveryUncertain", Gate::Operators(Scope::Pairing), true);
pub const NODE_PAIR_REQUESTED: Event = event("node.pair.requested", Gate::Operators(Scope::Pairing), true);
pub const NODE_PAIR_RESOLVED: Event = event("node.pair.resolved", Gate::Operators(Scope::Pairing), true);
pub const NODE_PRESENCE: Event = event("node.presence", Gate::Operators(Scope::Read), true);
pub const NODE_HOST_STATS: Event = event("node.hostStats", Gate::Operators(Scope::Read), true);
/// Nodes hear of it as well, point to point and without a sequence number.
pub const VOICEWAKE_CHANGED: Event = event("voicewake.changed", Gate::Operators(Scope::Read), true);
/// As [`VOICEWAKE_CHANGED`].
pub const VOICEWAKE_ROUTING_CHANGED: Event = event("voicewake.routing.changed", Gate::Operators(Scope::Read), true);
/// Only to connections that can show approvals and may see the request; see the gateway's `approvals`.
pub const EXEC_APPROVAL_REQUESTED: Event = event("exec.approval.requested", Gate::Operators(Scope::Approvals), true);
/// As [`EXEC_APPROVAL_REQUESTED`], and to whoever asked.
pub const EXEC_APPROVAL_RESOLVED: Event = event("exec.approval.resolved", Gate::Operators(Scope::Approvals), true);

/// Only to connections that follow the list of conversations, or this one.
pub const SESSION_MESSAGE: Event = event("session.message", Gate::Operators(Scope::Read), false);
/// As [`SESSION_MESSAGE`].
pub const SESSIONS_CHANGED: Event = event("sessions.changed", Gate::Operators(Scope::Read), true);

/// A run of the agent, as clients that show a chat see it.
pub const CHAT: Event = event("chat", Gate::Operators(Scope::Read), false);
/// The same event while the reply grows: the next one says the same and more.
pub const CHAT_DELTA: Event = event("chat", Gate::Operators(Scope::Read), true);
/// A run of the agent in detail.
pub const AGENT: Event = event("agent", Gate::Operators(Scope::Read), false);
/// The tools of a run, to those who follow its conversation.
pub const SESSION_TOOL: Event = event("session.tool", Gate::Operators(Scope::Read), true);
/// Models or commands changed.
pub const CHAT_METADATA_CHANGED: Event = event("chat.metadata.changed", Gate::Operators(Scope::Read), true);

/// Point-to-point events to one node.
pub const NODE_INVOKE_REQUEST: &str = "node.invoke.request";
pub const NODE_INVOKE_CANCEL: &str = "node.invoke.cancel";
pub const NODE_INVOKE_INPUT: &str = "node.invoke.input";

/// To the operator whose `node.invoke` asked for progress. OpenClaw has no such event; clients look for its name among the
/// events of the hello before they ask.
pub const NODE_INVOKE_PROGRESS: &str = "node.invoke.progress";

/// All broadcast events this gateway can send.
pub const BROADCAST: &[Event] = &[
    TICK,
    HEALTH,
    HEARTBEAT,
    SHUTDOWN,
    PRESENCE,
    CONFIG_CHANGED,
    DEVICE_PAIR_REQUESTED,
    DEVICE_PAIR_RESOLVED,
    DEVICE_PAIR_CHANGED,
    DEVICE_PAIR_SETUP_COMPLETED,
    DEVICE_PAIR_SETUP_DELIVERY_UNCERTAIN,
    NODE_PAIR_REQUESTED,
    NODE_PAIR_RESOLVED,
    NODE_PRESENCE,
    NODE_HOST_STATS,
    VOICEWAKE_CHANGED,
    VOICEWAKE_ROUTING_CHANGED,
    EXEC_APPROVAL_REQUESTED,
    EXEC_APPROVAL_RESOLVED,
    CHAT,
    AGENT,
    SESSION_TOOL,
    CHAT_METADATA_CHANGED,
    SESSION_MESSAGE,
    SESSIONS_CHANGED,
];

/// Names for `hello-ok.features.events`.
pub fn advertised() -> Vec<&'static str> {
    let targeted = [CONNECT_CHALLENGE, NODE_INVOKE_REQUEST, NODE_INVOKE_CANCEL, NODE_INVOKE_PROGRESS];
    targeted.into_iter().chain(BROADCAST.iter().map(|event| event.name)).collect()
}
