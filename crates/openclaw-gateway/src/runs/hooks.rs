//! What other rooms plug into runs: tools for the model, and the way out for replies.

use std::{path::PathBuf, sync::Arc};

use futures_util::future::BoxFuture;
use openclaw_agent::tool::Tool;
use openclaw_channels::{
    channel::{Partly, SendError},
    message::{Address, Outbound},
};

use super::{Authority, RunId, request::Origin};
use crate::{gateway::Gateway, sessions::SessionKey};

/// What a tool knows of the run it is used in.
#[derive(Clone, Debug)]
pub struct RunContext {
    pub run_id: RunId,
    pub session: SessionKey,
    pub session_id: String,
    pub agent: String,
    pub authority: Authority,
    pub origin: Origin,
    /// Where the reply goes, if to a channel.
    pub deliver: Option<Address>,
    /// The agent's workspace directory.
    pub workspace: PathBuf,
}

/// Gives tools to runs. Asked once per run; which of them the model may use is decided by the tool policy afterwards.
pub trait ToolSource: Send + Sync {
    /// Never fails: a source that is broken gives what still works and says why in the log.
    fn tools<'a>(
        &'a self,
        gateway: &'a Arc<Gateway>,
        context: &'a Arc<RunContext>,
    ) -> BoxFuture<'a, Vec<Arc<dyn Tool>>>;
}

/// Sends replies to channels.
pub trait Deliver: Send + Sync {
    /// Waits until there is a way to the chat: right after a start, and after a reload, its account may not run yet.
    fn present<'a>(&'a self, to: &'a Address) -> BoxFuture<'a, ()> {
        let _ = to;
        Box::pin(std::future::ready(()))
    }

    /// Cuts a reply into messages the channel sends whole. What was started is on disk before each one, so that a message is
    /// never sent twice after a crash.
    fn pieces(&self, to: &Address, message: &Outbound) -> Vec<Outbound> {
        let _ = to;
        vec![message.clone()]
    }

    /// Sends one piece. Returns the ids of the messages.
    fn send<'a>(&'a self, to: &'a Address, piece: &'a Outbound) -> BoxFuture<'a, Result<Vec<String>, Partly>>;

    /// Shows that something is being written; failures are of no interest.
    fn typing<'a>(&'a self, to: &'a Address) -> BoxFuture<'a, ()>;

    /// True when replies there are shown while they grow: a first message is sent early and edited then.
    fn previews(&self, to: &Address) -> bool {
        let _ = to;
        false
    }

    /// Replaces a message that was sent. Doing it twice is doing it once, so this is repeated after a crash.
    fn edit<'a>(
        &'a self,
        to: &'a Address,
        message_id: &'a str,
        piece: &'a Outbound,
    ) -> BoxFuture<'a, Result<(), SendError>>;
}
