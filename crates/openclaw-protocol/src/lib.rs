//! What both ends of an OpenClaw Gateway connection say: frames, methods, events, scopes, errors,
//! device signatures and the rules of the handshake, for protocol versions 3 and 4.
//!
//! This crate opens no socket, reads no clock and touches no file. Time and bytes are arguments, so whatever
//! it rejects can be shown in a test without a port.

pub mod close;
pub mod connect;
pub mod device;
pub mod error;
pub mod event;
pub mod fingerprint;
pub mod frame;
pub mod gateway_proof;
pub mod hello;
pub mod limits;
pub mod method;
pub mod scope;
pub mod secret;
pub mod setup_code;
pub mod version;

pub use close::CloseReason;
pub use device::{DeviceId, DeviceKey, PublicKey};
pub use error::{ErrorCode, ErrorShape};
pub use fingerprint::Fingerprint;
pub use gateway_proof::GatewayId;
pub use scope::{Role, Scope, ScopeSet};
pub use secret::Secret;
pub use setup_code::SetupCode;
pub use version::Protocol;
