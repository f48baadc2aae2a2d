//! Everything the decision looks at.

use openclaw_protocol::Secret;

use crate::{
    connections::ConnectionName,
    gateway::{AuthMode, Mode},
};

/// What the credentials are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// Any RPC, and the Discord approval monitor.
    Call,
    /// `gateway probe`.
    Probe,
    /// `status` and `gateway status`.
    Status,
    /// `node run`.
    NodeHost,
}

impl Surface {
    /// Probe and status send no token but the remote one to a remote target (checklist S-085).
    pub(super) fn is_strict(self) -> bool {
        matches!(self, Self::Probe | Self::Status)
    }
}

/// A configured secret, read only when its turn comes.
pub enum Configured<'a> {
    Unset,
    Value(Secret),
    /// Configured, and known to be unreadable for this reason.
    Unresolved(String),
    /// Configured; reading it may take a file or a program.
    Deferred(Box<dyn Fn() -> Reading + 'a>),
}

/// What reading a configured secret gave.
#[derive(Clone, Debug)]
pub enum Reading {
    Unset,
    Value(Secret),
    Unresolved(String),
}

impl Configured<'_> {
    pub(super) fn read(&self) -> Reading {
        let reading = match self {
            Self::Unset => Reading::Unset,
            Self::Value(secret) => Reading::Value(secret.clone()),
            Self::Unresolved(reason) => Reading::Unresolved(reason.clone()),
            Self::Deferred(read) => read(),
        };
        match reading {
            Reading::Value(secret) => super::present(&secret).map_or(Reading::Unset, Reading::Value),
            other => other,
        }
    }
}

/// Explicit flags; a tool's `gatewayToken` is one of them (checklist S-074).
#[derive(Default)]
pub struct FlagInputs {
    pub url: Option<String>,
    pub token: Option<Secret>,
    pub password: Option<Secret>,
}

/// The three variables that count (checklist S-086).
#[derive(Default)]
pub struct EnvInputs {
    pub url: Option<String>,
    pub token: Option<Secret>,
    pub password: Option<Secret>,
}

/// A saved connection that is meant, and who said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionInput {
    pub name: ConnectionName,
    /// `--on`, which comes before the environment. Otherwise it is the current one, which comes after.
    pub by_flag: bool,
}

/// All inputs. Blank texts anywhere count as unset.
pub struct Inputs<'a> {
    pub surface: Surface,
    pub mode: Mode,
    /// `gateway.auth.mode`, if set.
    pub auth_mode: Option<AuthMode>,
    pub flags: FlagInputs,
    pub env: EnvInputs,
    pub auth_token: Configured<'a>,
    pub auth_password: Configured<'a>,
    /// A saved connection, if one is meant.
    pub connection: Option<ConnectionInput>,
    pub remote_url: Option<String>,
    /// `gateway.remote.sshTarget`, where the transport lets it stand for an absent URL.
    pub ssh_target: Option<String>,
    pub remote_token: Configured<'a>,
    pub remote_password: Configured<'a>,
    /// The token the gateway on this machine generated, if any: the last source in local mode.
    pub generated: Option<Secret>,
    /// URL of the gateway on this machine.
    pub local_url: String,
}
