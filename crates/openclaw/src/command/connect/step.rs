//! The steps of connecting, and the traces they leave.

use openclaw_config::connections::{Connection, ConnectionName};
use openclaw_protocol::DeviceId;

/// One step, in the order in which they are done. By ssh all but [`Step::Reach`]; by a setup code that one instead of the
/// four before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Find the ssh program.
    Ssh,
    Login,
    /// Find the gateway's program there, and get a one-time code from it.
    Gateway,
    Tunnel,
    /// Find an address of a setup code that answers.
    Reach,
    Pair,
    Call,
    Save,
    Keep,
}

impl Step {
    pub const BY_SSH: [Self; 8] =
        [Self::Ssh, Self::Login, Self::Gateway, Self::Tunnel, Self::Pair, Self::Call, Self::Save, Self::Keep];
    pub const BY_CODE: [Self; 4] = [Self::Reach, Self::Pair, Self::Call, Self::Save];

    /// The word in output of both kinds.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ssh => "ssh",
            Self::Login => "login",
            Self::Gateway => "gateway",
            Self::Tunnel => "tunnel",
            Self::Reach => "reach",
            Self::Pair => "pair",
            Self::Call => "call",
            Self::Save => "save",
            Self::Keep => "keep",
        }
    }

    /// What is going on, for the line that waits.
    pub const fn doing(self) -> &'static str {
        match self {
            Self::Ssh => "Looking for ssh",
            Self::Login => "Logging in",
            Self::Gateway => "Asking for a one-time code",
            Self::Tunnel => "Opening the tunnel",
            Self::Reach => "Looking for the gateway",
            Self::Pair => "Pairing this machine",
            Self::Call => "Calling the gateway",
            Self::Save => "Saving",
            Self::Keep => "Starting the tunnel in the background",
        }
    }
}

/// Something that stays when this process ends.
#[derive(Clone, Debug)]
pub enum Trace {
    /// This device among the gateway's paired ones.
    Pairing(DeviceId),
    /// This machine's device key, made just now.
    Identity(DeviceId),
    /// A device token, kept under its origin.
    Token { device: DeviceId, origin: String },
    /// The saved connection; what had its name before comes back.
    Connection { name: ConnectionName, before: Option<Box<Connection>> },
    /// This connection as the one that is meant; who it was before comes back.
    Current { before: Option<ConnectionName> },
    /// The tunnel in the background.
    Tunnel(ConnectionName),
}

impl Trace {
    /// What it is, for people.
    pub fn describe(&self) -> String {
        match self {
            Self::Pairing(_) => "the pairing at the gateway".to_owned(),
            Self::Identity(_) => "this machine's device key".to_owned(),
            Self::Token { .. } => "the device token".to_owned(),
            Self::Connection { name, .. } => format!("the saved connection \"{name}\""),
            Self::Current { .. } => "the choice of the current gateway".to_owned(),
            Self::Tunnel(_) => "the tunnel in the background".to_owned(),
        }
    }

    /// The word in JSON output.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Pairing(_) => "pairing",
            Self::Identity(_) => "identity",
            Self::Token { .. } => "token",
            Self::Connection { .. } => "connection",
            Self::Current { .. } => "current",
            Self::Tunnel(_) => "tunnel",
        }
    }
}
