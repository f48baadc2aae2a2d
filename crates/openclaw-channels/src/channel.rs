//! What every channel can do, and what it tells.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;

use crate::message::{Address, ChatKind, Inbound, Outbound, Poll, Sender};

/// Takes what arrives. A channel confirms an arrival to its service only after this returned `Ok`: then it is on disk.
pub trait Inbox: Send + Sync {
    /// # Errors
    /// It was not kept; the channel asks again later and confirms nothing.
    fn message(&self, message: Inbound) -> BoxFuture<'_, Result<(), NotKept>>;

    /// A button was pressed.
    ///
    /// # Errors
    /// As [`Inbox::message`].
    fn press(&self, press: Press) -> BoxFuture<'_, Result<PressAnswer, NotKept>>;

    /// Where polling goes on after a start, as [`Inbox::polled`] was told last.
    fn offset(&self, channel: &str, account: &str) -> BoxFuture<'_, Result<Option<i64>, NotKept>>;

    /// Everything before `offset` was taken.
    ///
    /// # Errors
    /// As [`Inbox::message`].
    fn polled(&self, channel: &str, account: &str, offset: i64) -> BoxFuture<'_, Result<(), NotKept>>;

    /// Whether the files of a message are worth fetching: it will be read. Asked before they are.
    fn wants_media(&self, message: &Inbound) -> bool {
        let _ = message;
        true
    }

    /// A group has another id from now on.
    ///
    /// # Errors
    /// As [`Inbox::message`].
    fn moved(&self, channel: &str, account: &str, from: &str, to: &str) -> BoxFuture<'_, Result<(), NotKept>> {
        let _ = (channel, account, from, to);
        Box::pin(async { Ok(()) })
    }

    /// A channel's state changed.
    fn status(&self, channel: &str, account: &str, status: Status);
}

/// Something could not be kept.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotKept(pub String);

/// A pressed button.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Press {
    pub from: Address,
    pub kind: ChatKind,
    pub sender: Sender,
    /// The channel's own rules keep what the sender says there out; whoever knows the button may see it otherwise.
    pub refused: bool,
    /// Of the message that has the button.
    pub message_id: String,
    pub data: String,
}

/// What whoever pressed it is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PressAnswer {
    pub toast: Option<String>,
    /// Replaces the message, its buttons too.
    pub replace: Option<Outbound>,
}

/// How a channel's account is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    Starting,
    /// Connected as this name.
    Running {
        name: String,
    },
    /// Broken for now, tried again.
    Retrying {
        why: String,
        after: Duration,
    },
    /// Needs a person: wrong token, for instance.
    Failed {
        why: String,
    },
    Stopped,
}

/// Why something was not sent.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SendError {
    /// The service refused it, or it never left: it is certain that nobody saw it.
    #[error("{why}")]
    NotSent { why: String, retry_after: Option<Duration> },
    /// It left, and no answer came: somebody may have seen it. Never repeated on its own.
    #[error("{why}")]
    Unknown { why: String },
}

impl SendError {
    /// The channel has no such thing.
    pub fn unsupported(channel: &str, what: &str) -> Self {
        Self::NotSent { why: format!("{channel} has no {what} here"), retry_after: None }
    }
}

/// A running account of a channel. Dropping it, or cancelling the token it was started with, ends it.
pub trait Channel: Send + Sync {
    /// `telegram`, `discord`.
    fn id(&self) -> &'static str;

    fn account(&self) -> &str;

    /// Cuts a message into those that the service takes in one step each; the same message is always cut alike. Sending a
    /// piece sends one message, or one album.
    fn pieces(&self, message: &Outbound) -> Vec<Outbound> {
        vec![message.clone()]
    }

    /// Sends, in as many pieces as the channel needs. Returns the ids of the messages.
    fn send<'a>(&'a self, to: &'a Address, message: &'a Outbound) -> BoxFuture<'a, Result<Vec<String>, Partly>>;

    /// Replaces the text of a message; what no longer fits is left out.
    fn edit<'a>(&'a self, to: &'a Address, id: &'a str, message: &'a Outbound) -> BoxFuture<'a, Result<(), SendError>>;

    fn delete<'a>(&'a self, to: &'a Address, id: &'a str) -> BoxFuture<'a, Result<(), SendError>>;

    /// Puts a reaction on a message, or takes it back with `None`.
    fn react<'a>(
        &'a self,
        _to: &'a Address,
        _id: &'a str,
        _emoji: Option<&'a str>,
    ) -> BoxFuture<'a, Result<(), SendError>> {
        Box::pin(async { Err(SendError::unsupported(self.id(), "reactions")) })
    }

    /// Asks the chat a question. Returns the id of the message.
    fn poll<'a>(&'a self, _to: &'a Address, _poll: &'a Poll) -> BoxFuture<'a, Result<String, SendError>> {
        Box::pin(async { Err(SendError::unsupported(self.id(), "polls")) })
    }

    /// Shows that something is being written; failures are of no interest.
    fn typing<'a>(&'a self, to: &'a Address) -> BoxFuture<'a, ()>;

    /// Asks the service whether the account works, and who it is.
    fn probe(&self) -> BoxFuture<'_, Result<String, SendError>>;
}

/// A message of several pieces of which not all were sent.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{error}")]
pub struct Partly {
    /// Ids of the pieces before.
    pub sent: Vec<String>,
    pub error: SendError,
}

/// Shared by those who send.
pub type Handle = Arc<dyn Channel>;
