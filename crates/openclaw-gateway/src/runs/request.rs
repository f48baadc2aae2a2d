//! What starts a run.

use openclaw_agent::provider::{ModelRef, Thinking};
use openclaw_channels::message::{Address, Inbound, Media};
use openclaw_protocol::{DeviceId, Scope, ScopeSet};
use serde::{Deserialize, Serialize};

use crate::sessions::SessionKey;

/// Names a run; it is also its idempotency key: the same id with the same input is the same run.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(pub String);

/// See the module documentation.
#[derive(Clone, Debug)]
pub struct RunRequest {
    pub run_id: RunId,
    pub session: SessionKey,
    pub input: Input,
    pub origin: Origin,
    pub authority: Authority,
    /// Where the reply goes besides the transcript and those who watch.
    pub deliver: Option<Address>,
    pub model: Option<ModelRef>,
    pub thinking: Option<Thinking>,
    /// From the start of the turn; the configured limit when `None`.
    pub timeout: Option<std::time::Duration>,
    /// Appended to the system prompt, for this run only.
    pub extra_system: Option<String>,
    /// What to do while another run of the session is under way.
    pub when_busy: WhenBusy,
}

/// What was said.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    pub text: String,
    pub media: Vec<Media>,
}

/// Who started it.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A connection of an operator.
    Operator { connection: u64, device: Option<DeviceId>, client: String },
    /// A message of a channel.
    Channel(Box<Inbound>),
    /// `/v1/*`.
    Http,
    /// `/hooks/*`.
    Hook { name: String },
    /// A node: what it heard, or what somebody asked there.
    Node(DeviceId),
    /// The gateway itself.
    Internal(&'static str),
}

/// What the run may do on behalf of whoever started it: slash commands and tools never reach beyond it (P-56).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority {
    pub scopes: ScopeSet,
    /// The owner: an admin's connection, or a sender in `commands.ownerAllowFrom`.
    pub owner: bool,
}

impl Authority {
    /// A stranger who may chat: may ask, may not command.
    pub const CHAT: Self = Self { scopes: ScopeSet::EMPTY, owner: false };

    pub fn grants(&self, scope: Scope) -> bool {
        self.scopes.grants(scope)
    }
}

/// `queueMode` of `chat.send`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenBusy {
    /// Wait for one's turn.
    #[default]
    Followup,
    /// Give it to the run under way, between two rounds of the model.
    Steer,
    /// Wait, and be answered together with what else waits.
    Collect,
    /// End the run under way first.
    Interrupt,
}
