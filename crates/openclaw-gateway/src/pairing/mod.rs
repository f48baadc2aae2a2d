//! Consent: which device may connect in which role with which scopes.
//!
//! [`device`], [`token`] and [`bootstrap`] are one pure state machine, [`DevicePairing`]; [`registry`] keeps it in step with the store
//! and is what connections and methods use.

pub mod bootstrap;
pub mod device;
pub mod effects;
pub mod record;
pub mod registry;
pub mod token;
pub mod view;
pub mod words;

pub use bootstrap::{Bootstrap, BootstrapError, Invitation, Moment, Redeemed, Rights, Sponsor, TokenDigest};
pub use device::{Approval, Approver, DevicePairing, Full, OwnerNeeded, PairingError, Requested};
pub use effects::{DeviceChange, Disconnect, DisconnectCause, Effects, PairingEvent};
pub use record::{
    ApprovedVia, ClientMeta, DeviceToken, IssuerGeneration, PairedDevice, PairingRequest, PendingDevice, RequestId,
};
pub use registry::{ChangeError, DeviceRegistry};
pub use token::{Granted, IssueRequest, Issued, Rotated, Seen, TokenCaller, TokenCheck, TokenError};

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
