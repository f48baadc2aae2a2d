//! What goes wrong with ssh, as a closed set: each with its cause and one line of advice.

use crate::remedy::Remedy;

/// Why there is no tunnel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind:?}: {detail}")]
pub struct SshFailure {
    pub kind: SshFailureKind,
    /// ssh's own words, cleaned.
    pub detail: String,
}

/// The kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SshFailureKind {
    NoClient,
    HostKeyChanged,
    HostUnknown,
    AuthRefused,
    Name,
    Refused,
    TimedOut,
    Unreachable,
    ForwardRefused,
    /// ssh is up and nothing answers on the gateway's port behind it.
    GatewayDown,
    Lost,
    Other,
}

impl SshFailure {
    /// Stable code in JSON output.
    pub const fn code(&self) -> &'static str {
        "ssh"
    }

    /// What to type next.
    pub fn remedy(&self) -> Option<Remedy> {
        None
    }
}
