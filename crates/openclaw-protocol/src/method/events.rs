//! Hearing what was missed. Ours: a client that lost its connection names it and the last event it saw there.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Access;
use crate::{frame::StateVersion, method};

method!(EventsResume, "events.resume", Access::Any, ResumeParams => Resumed);

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResumeParams {
    /// `server.connId` of the hello of the connection that was lost.
    pub conn_id: String,
    /// `seq` of the last event seen there, 0 for none.
    pub seq: u64,
}

/// Result of `events.resume`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Resumed {
    /// These are all the broadcast events between the last one seen and this connection's own. When false, nothing is known
    /// for certain: read again whatever events would have changed.
    pub complete: bool,
    /// Oldest first, with the numbers they had, or would have had, on the connection that was lost.
    #[serde(default)]
    pub events: Vec<MissedEvent>,
}

/// An event frame, as it would have come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MissedEvent {
    pub event: String,
    #[serde(default)]
    pub payload: Value,
    pub seq: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_version: Option<StateVersion>,
}
