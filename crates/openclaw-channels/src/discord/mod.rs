//! Discord: a bot over Discord's gateway (events) and REST API (everything else), API version 10.
//!
//! ```text
//! config ──► Settings ──► start ──► Discord (Channel)          who sends
//!                            │
//!                            └─► connection::run                one task per account
//!                                  machine  frames in, deadlines and frames out; pure
//!                                  intake   events to lanes; each lane keeps the order of its chats
//!                                  policy   which guild messages are for us
//! ```
//!
//! What a task consumes and publishes: `connection::run` reads the socket, tells [`Inbox::status`] how it is, and hands
//! messages and pressed buttons to [`Inbox`]. Discord repeats what came after a sequence number when a connection is
//! resumed; the number we resume from is that of the last event the inbox has kept, so a connection that is lost, or that
//! we gave up because the inbox was slow, loses nothing. A stop of the whole process does: Discord keeps no queue for bots.
//!
//! The client is written out here rather than taken from twilight 0.18, which was weighed: it brings a second WebSocket
//! stack and thirteen crates, cannot reach Discord's gateway through an HTTP proxy (`channels.discord.proxy`), fixes the
//! path of the API (`DISCORD_API_URL` sets it), and does not know `enforce_nonce`, on which safe repetition of a send rests.

mod api;
mod channel;
mod chunk;
mod config;
mod connection;
mod intake;
mod interaction;
mod limits;
mod machine;
mod markdown;
mod net;
mod places;
mod policy;
mod presence;
mod rest;
mod send;

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use config::{Account, Settings, accounts};
pub use presence::{Presence, PresenceCache};

use crate::channel::{Inbox, SendError, Status};
use places::Places;
use rest::Rest;

/// The channel's id in config, addresses and session keys.
pub const ID: &str = "discord";

/// A running Discord account. Dropping it ends its tasks.
pub struct Discord {
    shared: Arc<Shared>,
    stop: CancellationToken,
}

impl std::fmt::Debug for Discord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Discord").field("account", &self.shared.settings.account).finish_non_exhaustive()
    }
}

impl Drop for Discord {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What the tasks of one account share.
struct Shared {
    settings: Settings,
    rest: Rest,
    inbox: Arc<dyn Inbox>,
    presence: Mutex<PresenceCache>,
    places: Mutex<Places>,
    /// Who we are, once Discord has said so.
    me: RwLock<Option<Me>>,
    /// Direct chats by user.
    dms: Mutex<HashMap<String, String>>,
    /// Reactions of ours that can be taken back, oldest first.
    reactions: Mutex<VecDeque<(String, String)>>,
    stop: CancellationToken,
    tracker: TaskTracker,
}

/// The bot.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Me {
    id: String,
    name: String,
}

/// Starts an account: its tasks run on `tracker` until `stop` is cancelled or the handle is dropped. Never fails; how it
/// goes is told through [`Inbox::status`].
pub fn start(
    settings: Settings,
    inbox: Arc<dyn Inbox>,
    stop: &CancellationToken,
    tracker: &TaskTracker,
) -> Arc<Discord> {
    let stop = stop.child_token();
    let rest = Rest::new(&settings);
    let shared = Arc::new(Shared {
        settings,
        rest,
        inbox,
        presence: Mutex::default(),
        places: Mutex::default(),
        me: RwLock::default(),
        dms: Mutex::default(),
        reactions: Mutex::default(),
        stop: stop.clone(),
        tracker: tracker.clone(),
    });
    tracker.spawn(connection::run(Arc::clone(&shared)));
    Arc::new(Discord { shared, stop })
}

/// Asks Discord who the bot is, without starting it.
///
/// # Errors
/// It refused the token, or cannot be reached.
pub async fn probe(settings: &Settings) -> Result<String, SendError> {
    Rest::new(settings).me().await.map(|user| user.username)
}

impl Discord {
    /// What is known of a user's presence.
    pub fn presence(&self, user: &str) -> Option<Presence> {
        self.shared.presence().get(user).cloned()
    }
}

impl Shared {
    fn presence(&self) -> MutexGuard<'_, PresenceCache> {
        self.presence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn me(&self) -> Option<Me> {
        self.me.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_me(&self, me: Me) {
        *self.me.write().unwrap_or_else(PoisonError::into_inner) = Some(me);
    }

    fn tell(&self, status: Status) {
        self.inbox.status(ID, &self.settings.account, status);
    }
}
