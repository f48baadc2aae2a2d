//! The system's ssh as a transport: who to reach, what can go wrong, and the child that carries the bytes.
//!
//! ssh keeps doing what the person set up: its config, agent, jump hosts, hardware keys and `known_hosts` all count. We
//! only choose how it is called ([`options`]), know whether it is alive, and say in one line why it is not
//! ([`failure`]). The near end of a [`Forward`] is a unix socket that only this user can open, so there is no port to
//! race for; whoever connects to it speaks to the gateway on the far host's loopback.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::{path::Path, time::Duration};
//! use openclaw_remote::{Deadline, Endpoint, ssh::{Forward, Interaction, SshSpec}};
//!
//! let spec = SshSpec::new("me@box".parse()?);
//! let deadline = Deadline::after(Duration::from_secs(20));
//! let forward = Forward::open(&spec, Path::new("/home/me/.openclaw/ssh"), Interaction::Batch, deadline).await?;
//! println!("round trip {:?}", forward.round_trip());
//! let endpoint = forward.endpoint(); // Endpoint::Tunnel, for connect::connect
//! # let _: Endpoint = endpoint;
//! // If the client fails because nothing listens behind ssh, ssh knows: `forward.explain(error).await`.
//! forward.close().await; // or drop it: the child ends either way
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "builtin-ssh")]
mod builtin;
mod effective;
pub mod failure;
mod forward;
mod hosts;
mod once;
pub mod options;
mod process;
mod program;
mod said;
mod sockets;
pub mod target;

use std::path::PathBuf;

use openclaw_config::gateway::HostKeyPolicy;

pub use effective::{Effective, effective};
pub use failure::{SshFailure, SshFailureKind};
pub use forward::{Forward, Learned, Pulse};
pub use hosts::config_hosts;
pub use once::{Output, RemoteCommand, run_once};
pub use program::{Implementation, Program};
pub(crate) use sockets::place;
pub use sockets::socket_dir;
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

    /// `ssh -p 2222 -i key me@box`, for a person to type.
    pub(crate) fn command_line(&self) -> String {
        let mut line = "ssh ".to_owned();
        if let Some(port) = self.target.port() {
            line.push_str(&format!("-p {port} "));
        }
        if let Some(identity) = &self.identity {
            // A tilde has to stay outside the quotes to mean the home directory.
            let text = identity.to_string_lossy();
            let (home, rest) = text.strip_prefix("~/").map_or(("", &*text), |rest| ("~/", rest));
            line.push_str(&format!("-i {home}{} ", once::quoted(rest)));
        }
        line.push_str(&self.target.destination());
        line
    }
}

/// May ssh ask the person at the terminal?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interaction {
    /// Never: what would be a question is a failure.
    #[default]
    Batch,
    /// On its own terminal: an unknown host key, a passphrase, a password. Needs a terminal in the foreground.
    Ask,
}
