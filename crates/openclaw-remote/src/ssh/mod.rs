//! The system's ssh as a transport: who to reach, what can go wrong, and the child that carries the bytes.

pub mod failure;
pub mod target;

use std::path::PathBuf;

use openclaw_config::gateway::HostKeyPolicy;

pub use failure::SshFailure;
pub use target::{SshTarget, SshTargetError};

/// Everything that decides an ssh connection to a gateway's host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SshSpec {
    pub target: SshTarget,
    /// `-i`; ssh's own choice when unset.
    pub identity: Option<PathBuf>,
    pub host_keys: HostKeyPolicy,
    /// Port the gateway listens on at the far host's loopback.
    pub gateway_port: u16,
}

impl SshSpec {
    /// A strict spec for the default gateway port.
    pub const fn new(target: SshTarget) -> Self {
        Self { target, identity: None, host_keys: HostKeyPolicy::Strict, gateway_port: 18789 }
    }

    /// What a device token that came through this tunnel belongs to: `ssh://user@host:port/18789`, with the parts that were given.
    pub fn origin(&self) -> String {
        format!("{}/{}", self.target.url(), self.gateway_port)
    }
}
