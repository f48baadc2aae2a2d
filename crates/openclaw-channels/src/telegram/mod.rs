//! Telegram, over the Bot API.
//!
//! ```text
//! getUpdates / webhook ──► receive ──► Inbox ──► offset confirmed
//!        Channel::send ──► pieces ──► one call each: sent, not sent, or unknown
//! ```
//!
//! The token is part of every URL. It stays inside [`api`]: errors are made without URLs, and texts from outside are searched
//! for it. The Bot API is small and stable, and half of it is never used here, so its types are written by hand: generated
//! ones cost seconds of build time, and neither crate that has them tells "not sent" from "nobody knows".

mod api;
mod config;
mod media;
mod poll;
mod receive;
mod send;
mod types;
mod webhook;

#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use futures_util::future::BoxFuture;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use config::{Config, ConfigError, TokenSource, Transport};

use crate::{
    channel::{Channel, Inbox, Partly, SendError, Status},
    message::{Address, Outbound, Poll},
};
use api::Api;

/// `channels.telegram`.
pub const ID: &str = "telegram";

/// A running account.
pub struct Telegram {
    config: Config,
    api: Api,
    me: OnceLock<types::User>,
}

impl Telegram {
    /// Starts it: from now on messages go to `inbox` and it tells its status there. It runs in a task of `tracker` until
    /// `cancel`.
    ///
    /// # Errors
    /// When no HTTP client can be made of the settings (a bad proxy or root).
    pub fn start(
        config: Config,
        inbox: Arc<dyn Inbox>,
        cancel: CancellationToken,
        tracker: &TaskTracker,
    ) -> Result<Arc<Self>, String> {
        let account = Self::new(config)?;
        let running = Arc::clone(&account);
        tracker.spawn(async move {
            let told = Arc::clone(&inbox);
            poll::run(&running, inbox, &cancel).await;
            told.status(ID, &running.config.account, Status::Stopped);
        });
        Ok(account)
    }

    /// An account that sends and does not listen.
    ///
    /// # Errors
    /// As [`Telegram::start`].
    pub fn new(config: Config) -> Result<Arc<Self>, String> {
        let api = Api::new(&config)?;
        Ok(Arc::new(Self { config, api, me: OnceLock::new() }))
    }
}

impl Channel for Telegram {
    fn id(&self) -> &'static str {
        ID
    }

    fn account(&self) -> &str {
        &self.config.account
    }

    fn pieces(&self, message: &Outbound) -> Vec<Outbound> {
        send::pieces(message, self.config.chunk_units)
    }

    fn send<'a>(&'a self, to: &'a Address, message: &'a Outbound) -> BoxFuture<'a, Result<Vec<String>, Partly>> {
        Box::pin(async move {
            let mut sent = Vec::new();
            for piece in self.pieces(message) {
                match send::piece(&self.api, &self.config, to, &piece).await {
                    Ok(ids) => sent.extend(ids),
                    Err(error) => return Err(Partly { sent, error }),
                }
            }
            Ok(sent)
        })
    }

    fn edit<'a>(&'a self, to: &'a Address, id: &'a str, message: &'a Outbound) -> BoxFuture<'a, Result<(), SendError>> {
        Box::pin(send::edit(&self.api, &self.config, to, id, message))
    }

    fn delete<'a>(&'a self, to: &'a Address, id: &'a str) -> BoxFuture<'a, Result<(), SendError>> {
        Box::pin(send::delete(&self.api, to, id))
    }

    fn react<'a>(
        &'a self,
        to: &'a Address,
        id: &'a str,
        emoji: Option<&'a str>,
    ) -> BoxFuture<'a, Result<(), SendError>> {
        Box::pin(send::react(&self.api, to, id, emoji))
    }

    fn poll<'a>(&'a self, to: &'a Address, poll: &'a Poll) -> BoxFuture<'a, Result<String, SendError>> {
        Box::pin(send::poll(&self.api, to, poll))
    }

    fn typing<'a>(&'a self, to: &'a Address) -> BoxFuture<'a, ()> {
        Box::pin(send::typing(&self.api, to))
    }

    fn probe(&self) -> BoxFuture<'_, Result<String, SendError>> {
        Box::pin(async move {
            let me = self.api.me().await.map_err(|error| error.not_sent())?;
            Ok(me.handle())
        })
    }
}
