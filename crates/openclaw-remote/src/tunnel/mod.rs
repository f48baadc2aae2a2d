//! Tunnels that stay up: a supervisor keeps ssh running for one gateway, with a second one warm, and gives other
//! programs a private socket (and, on request, a loopback port) that always leads to the living one.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::path::Path;
//! use openclaw_remote::{ssh::SshSpec, tunnel::{Settings, Supervisor, TunnelDir, TunnelName, control}};
//!
//! let spec = SshSpec::new("me@box".parse()?);
//! let name = TunnelName::parse("home").unwrap_or_else(|| TunnelName::of(&spec));
//! let dir = TunnelDir::new(Path::new("/home/me/.openclaw"), &name);
//!
//! // The process that keeps it:
//! let supervisor = Supervisor::start(Settings::new(dir.clone(), spec)).await?; // lock, listeners
//! let mut status = supervisor.watch(); // tokio watch of Status
//! supervisor.run(async { tokio::signal::ctrl_c().await.ok(); }).await;
//! # let _ = &mut status;
//!
//! // Any other process:
//! let status = control::ask_status(&dir).await?;
//! println!("{} {:?} ms", status.state.as_str(), status.rtt_ms);
//! control::ask_retry(&dir).await?;
//! control::ask_down(&dir).await?;
//! # Ok(())
//! # }
//! ```

pub(crate) mod backoff;
mod carry;
pub mod control;
mod dir;
mod links;
mod listen;
mod log;
mod machine;
pub(crate) mod network;
mod status;
mod supervisor;

#[cfg(feature = "builtin-ssh")]
pub(crate) use listen::bind_socket;

pub use control::ControlError;
pub use dir::{TunnelDir, TunnelName};
pub use status::{Advice, Failure, ForwardStatus, PortRefused, Role, State, Status};
pub use supervisor::{Settings, StartError, Supervisor};

use std::path::Path;

use openclaw_config::gateway::HostKeyPolicy;

use crate::ssh::SshSpec;

/// The running tunnel that leads where `spec` leads, if there is one: its socket can be used instead of a new ssh.
pub async fn find(state_dir: &Path, spec: &SshSpec) -> Option<(TunnelDir, Status)> {
    for dir in TunnelDir::all(state_dir) {
        if let Ok(status) = control::ask_status(&dir).await
            && status.origin == spec.origin()
            && status.identity == spec.identity
            // Who wants strict host keys is not given a tunnel that was opened with less.
            && (status.host_keys == spec.host_keys.as_str() || status.host_keys == HostKeyPolicy::Strict.as_str())
        {
            return Some((dir, status));
        }
    }
    None
}
