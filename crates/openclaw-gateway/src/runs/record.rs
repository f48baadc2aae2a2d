//! What is kept of a run: its request, how far it got, and how far its reply travelled.

use std::time::Duration;

use openclaw_agent::provider::{ModelRef, Thinking};
use openclaw_channels::message::{Address, Inbound, Media};
use openclaw_protocol::{DeviceId, ScopeSet};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Authority, Input, Origin, RunId, RunOutcome, RunRequest, WhenBusy};
use crate::sessions::SessionKey;

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Queued,
    Running,
    Ended,
}

impl State {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Ended => "ended",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Queued, Self::Running, Self::Ended].into_iter().find(|state| state.as_str() == text)
    }
}

/// How far the reply travelled to the channel. On disk before each step, so that nothing is sent twice after a crash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Delivery {
    /// Nobody to send it to.
    None,
    /// A first message was sent early, to be edited; its id as soon as it is known.
    Preview {
        message_id: Option<String>,
    },
    /// To be sent from this piece on; those before have arrived.
    Pending {
        piece: usize,
        sent: Vec<String>,
        preview: Option<String>,
    },
    /// This piece is on its way; whether it arrives is not known yet.
    Sending {
        piece: usize,
        sent: Vec<String>,
    },
    Sent {
        ids: Vec<String>,
    },
    /// Given up: it is certain that this piece and those after it were not seen.
    Failed {
        piece: usize,
        why: String,
    },
    /// Whether this piece arrived is not known. Never repeated; the person is told once.
    Unknown {
        piece: usize,
        told: bool,
    },
}

impl Delivery {
    pub fn pending() -> Self {
        Self::Pending { piece: 0, sent: Vec::new(), preview: None }
    }

    /// What a run that ends has to deliver, given what was shown early.
    pub fn after_preview(self) -> Self {
        match self {
            Self::Preview { message_id } => Self::Pending { piece: 0, sent: Vec::new(), preview: message_id },
            _ => Self::pending(),
        }
    }

    /// True while something is left to do.
    pub fn is_open(&self) -> bool {
        match self {
            Self::None | Self::Sent { .. } | Self::Failed { .. } => false,
            Self::Unknown { told, .. } => !told,
            Self::Preview { .. } | Self::Pending { .. } | Self::Sending { .. } => true,
        }
    }
}

/// A run as it is stored.
#[derive(Clone, Debug)]
pub struct RunRow {
    pub run_id: RunId,
    pub session: SessionKey,
    /// Of the transcript its messages are in; known once it started.
    pub session_id: Option<String>,
    pub state: State,
    /// Of the input: the same id with another one is a conflict.
    pub digest: String,
    /// [`StoredRequest`] as JSON; empty when nothing is left to do.
    pub request: String,
    pub submitted_ms: i64,
    pub started_ms: Option<i64>,
    pub ended_ms: Option<i64>,
    pub outcome: Option<RunOutcome>,
    /// A slash command.
    pub command: bool,
    pub deliver: Option<Address>,
    pub delivery: Delivery,
}

/// A tool that was started and has not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartedTool {
    pub call_id: String,
    pub name: String,
}

/// A change of what is remembered of runs.
#[derive(Clone, Debug)]
pub enum RunChange {
    /// Fails when the id exists.
    Insert(Box<RunRow>),
    Started {
        run_id: RunId,
        session_id: String,
        at_ms: i64,
    },
    /// A tool with effects is about to run.
    ToolStarted {
        run_id: RunId,
        call_id: String,
        name: String,
        at_ms: i64,
    },
    ToolEnded {
        run_id: RunId,
        call_id: String,
    },
    Ended {
        run_id: RunId,
        outcome: Box<RunOutcome>,
        delivery: Delivery,
    },
    Delivery {
        run_id: RunId,
        delivery: Delivery,
    },
    /// Forgets what ended before and has nothing left to do.
    Prune {
        before_ms: i64,
    },
}

/// A request in the form it is stored in.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredRequest {
    text: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    media: Vec<Media>,
    origin: StoredOrigin,
    scopes: Vec<String>,
    owner: bool,
    deliver: Option<Address>,
    model: Option<String>,
    thinking: Option<String>,
    timeout_ms: Option<u64>,
    extra_system: Option<String>,
    when_busy: WhenBusy,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum StoredOrigin {
    Operator { device: Option<DeviceId>, client: String },
    Channel(Box<Inbound>),
    Http,
    Hook { name: String },
    Node(DeviceId),
    Internal(String),
}

impl StoredRequest {
    pub fn of(request: &RunRequest) -> Self {
        let origin = match &request.origin {
            Origin::Operator { device, client, .. } => {
                StoredOrigin::Operator { device: device.clone(), client: client.clone() }
            }
            Origin::Channel(inbound) => {
                // Its text and files are the input's.
                let mut inbound = inbound.clone();
                inbound.text = String::new();
                inbound.media = Vec::new();
                StoredOrigin::Channel(inbound)
            }
            Origin::Http => StoredOrigin::Http,
            Origin::Hook { name } => StoredOrigin::Hook { name: name.clone() },
            Origin::Node(id) => StoredOrigin::Node(id.clone()),
            Origin::Internal(what) => StoredOrigin::Internal((*what).to_owned()),
        };
        Self {
            text: request.input.text.clone(),
            media: request.input.media.clone(),
            origin,
            scopes: request.authority.scopes.names().into_iter().map(str::to_owned).collect(),
            owner: request.authority.owner,
            deliver: request.deliver.clone(),
            model: request.model.as_ref().map(ToString::to_string),
            thinking: request.thinking.map(|level| level.as_str().to_owned()),
            timeout_ms: request.timeout.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            extra_system: request.extra_system.clone(),
            when_busy: request.when_busy,
        }
    }

    /// The request again. Whoever asked over a connection is no longer there.
    pub fn into_request(self, run_id: RunId, session: SessionKey) -> RunRequest {
        let input = Input { text: self.text, media: self.media };
        let origin = match self.origin {
            StoredOrigin::Operator { device, client } => Origin::Operator { connection: 0, device, client },
            StoredOrigin::Channel(mut inbound) => {
                inbound.text.clone_from(&input.text);
                Origin::Channel(inbound)
            }
            StoredOrigin::Http => Origin::Http,
            StoredOrigin::Hook { name } => Origin::Hook { name },
            StoredOrigin::Node(id) => Origin::Node(id),
            StoredOrigin::Internal(what) => {
                let known = ["heartbeat", "wake", "system", "sessions.send"];
                Origin::Internal(known.into_iter().find(|known| *known == what).unwrap_or("internal"))
            }
        };
        RunRequest {
            run_id,
            session,
            input,
            origin,
            authority: Authority { scopes: ScopeSet::parse(&self.scopes), owner: self.owner },
            deliver: self.deliver,
            model: self.model.as_deref().and_then(ModelRef::parse),
            thinking: self.thinking.as_deref().and_then(Thinking::parse),
            timeout: self.timeout_ms.map(Duration::from_millis),
            extra_system: self.extra_system,
            when_busy: self.when_busy,
        }
    }
}

/// Tells inputs apart: conversation, text, files.
pub fn digest(request: &RunRequest) -> String {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    part(request.session.as_str().as_bytes());
    part(request.input.text.as_bytes());
    for media in &request.input.media {
        part(media.mime.as_bytes());
        part(&media.data);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
