//! What a decision about devices entails. The state machine returns it; the caller persists, disconnects, broadcasts
//! and only then answers.

use openclaw_protocol::{DeviceId, Role, method::device::Decision};

use super::{
    bootstrap::{Bootstrap, TokenDigest},
    record::{PairedDevice, PendingDevice, RequestId},
};

/// Everything that follows from one mutation.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use = "unless the changes are committed the decision is lost at the next start"]
pub struct Effects {
    /// To be committed as one transaction before anything is acknowledged.
    pub changes: Vec<DeviceChange>,
    /// To be broadcast after the commit, in this order.
    pub events: Vec<PairingEvent>,
    /// Live sockets to close after the commit and before the answer.
    pub disconnect: Vec<Disconnect>,
}

impl Effects {
    pub fn none() -> Self {
        Self::default()
    }

    /// True when nothing has to be saved, sent or closed.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn put(mut self, device: &PairedDevice) -> Self {
        self.changes.push(DeviceChange::PutDevice(Box::new(device.clone())));
        self
    }

    pub(super) fn event(mut self, event: PairingEvent) -> Self {
        self.events.push(event);
        self
    }

    pub(super) fn and(mut self, mut later: Self) -> Self {
        self.changes.append(&mut later.changes);
        self.events.append(&mut later.events);
        self.disconnect.append(&mut later.disconnect);
        self
    }
}

/// One change of the stored state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceChange {
    /// The record and all its tokens, as they are now.
    PutDevice(Box<PairedDevice>),
    /// The record and its tokens.
    DeleteDevice(DeviceId),
    PutRequest(Box<PendingDevice>),
    DeleteRequest(RequestId),
    PutBootstrap(Box<Bootstrap>),
    DeleteBootstrap(TokenDigest),
}

/// Something operators with the pairing scope are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PairingEvent {
    /// A new pending request that was not approved silently.
    Requested(Box<PendingDevice>),
    Resolved {
        request_id: RequestId,
        device_id: DeviceId,
        decision: Decision,
        at_ms: i64,
    },
    /// A record changed or went away other than by a resolution.
    Changed {
        device_id: DeviceId,
        at_ms: i64,
    },
}

/// Sockets whose authority ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disconnect {
    pub device_id: DeviceId,
    /// `None`: in every role.
    pub role: Option<Role>,
    pub cause: DisconnectCause,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisconnectCause {
    Removed,
    TokenRevoked,
    /// The device's token was replaced by hand. A caller that rotates its own token in-band keeps its own socket.
    TokenRotated,
    /// The device was approved anew with fewer scopes than before.
    RightsReduced,
}
