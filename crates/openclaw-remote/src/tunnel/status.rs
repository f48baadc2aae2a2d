//! What a supervisor tells about itself.

use std::path::PathBuf;

use openclaw_protocol::{GatewayId, error::Machine};
use serde::{Deserialize, Serialize};

use crate::{
    error::Error,
    remedy::{Place, Remedy},
    ssh::SshFailure,
};

/// How a tunnel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// ssh is starting, or the gateway behind it is being asked.
    Connecting,
    /// The gateway answered through it.
    Up,
    /// Between two attempts.
    Waiting,
    /// A person has to do something first; nothing is tried until `retry`.
    Failed,
    Stopped,
}

impl State {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Up => "up",
            Self::Waiting => "waiting",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
        }
    }
}

/// A supervisor's answer to `status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub name: String,
    pub state: State,
    /// When it came into this state, ms since the epoch.
    pub since_ms: u64,
    /// Process id of the supervisor.
    pub pid: u32,
    /// Version of the supervisor's program.
    pub version: String,
    /// `user@host:port` as given.
    pub target: String,
    /// [`crate::ssh::SshSpec::origin`]: what tells two tunnels apart.
    pub origin: String,
    pub identity: Option<PathBuf>,
    /// `strict` or `openssh`. Empty from supervisors of older versions: such a tunnel is listed and closed, not used.
    #[serde(default)]
    pub host_keys: String,
    pub gateway_port: u16,
    /// The near end.
    pub socket: PathBuf,
    /// The loopback TCP port other programs use, when one was asked for.
    pub port: Option<u16>,
    /// The port that was asked for, when somebody else has it, and why it could not be had.
    pub port_refused: Option<PortRefused>,
    /// Who answers at the far end, once it has proved it.
    pub gateway_id: Option<GatewayId>,
    /// Round trip of the last beat, ms.
    pub rtt_ms: Option<f64>,
    /// Attempts since it was last up.
    pub attempts: u32,
    /// When the next attempt is due, ms since the epoch.
    pub next_try_ms: Option<u64>,
    /// How often a lost ssh was replaced.
    pub replaced: u32,
    /// Connections being carried now.
    pub connections: u32,
    pub last_failure: Option<Failure>,
    pub forwards: Vec<ForwardStatus>,
}

/// A port that was asked for and is taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRefused {
    pub port: u16,
    pub reason: String,
}

/// One ssh of a tunnel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ForwardStatus {
    pub pid: Option<u32>,
    pub role: Role,
    pub rtt_ms: Option<f64>,
    /// False where the account allows no session: no heartbeat, no round-trip time.
    pub session: bool,
    /// ms since the epoch.
    pub since_ms: u64,
}

/// What an ssh of a tunnel is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Carries new connections.
    Current,
    /// Ready to take over.
    Spare,
    /// Logging in, or asking the gateway.
    Opening,
    /// Has not answered for some seconds; what it carries is kept until it is surely dead.
    Silent,
}

/// What went wrong last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// Stable: [`crate::ssh::SshFailureKind::code`] or [`Error::kind`].
    pub code: String,
    pub message: String,
    pub remedy: Option<Advice>,
    pub at_ms: u64,
}

/// A [`Remedy`] as data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Advice {
    pub what: String,
    pub command: String,
    /// `this-client` or `gateway-host`.
    pub run_on: Machine,
}

impl From<Remedy> for Advice {
    fn from(remedy: Remedy) -> Self {
        Self { what: remedy.what, command: remedy.command, run_on: remedy.run_on }
    }
}

impl Failure {
    pub(super) fn of_ssh(failure: &SshFailure, at_ms: u64) -> Self {
        let remedy = failure.remedy().map(Advice::from);
        Self { code: failure.code().to_owned(), message: failure.to_string(), remedy, at_ms }
    }

    pub(super) fn of(error: &Error, at_ms: u64) -> Self {
        match error {
            Error::Ssh(failure) => Self::of_ssh(failure, at_ms),
            error => Self {
                code: error.kind().to_owned(),
                message: error.to_string(),
                remedy: error.remedy(&Place::default()).map(Advice::from),
                at_ms,
            },
        }
    }
}
