//! Which connections want to hear of which conversations.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::SessionKey;
use crate::hub::Connection;

/// Conversations one connection may follow; more are refused.
pub const MAX_FOLLOWED: usize = 1000;
/// A client with this capability gets `chat` and `agent` events only of the conversations it follows.
const SCOPED: &str = "session-scoped-events";

/// By number of the connection.
#[derive(Debug, Default)]
pub struct Subscriptions(Mutex<HashMap<u64, Ears>>);

#[derive(Debug, Default)]
struct Ears {
    /// Asked with `sessions.subscribe`.
    roster: bool,
    /// Asked with `sessions.messages.subscribe`.
    followed: HashSet<SessionKey>,
    /// A node asked with `chat.subscribe`.
    chats: HashSet<SessionKey>,
}

impl Subscriptions {
    pub fn subscribe(&self, connection: u64) {
        self.lock().entry(connection).or_default().roster = true;
    }

    pub fn unsubscribe(&self, connection: u64) {
        if let Some(ears) = self.lock().get_mut(&connection) {
            ears.roster = false;
        }
    }

    /// False when the connection follows too many already.
    pub fn follow(&self, connection: u64, key: &SessionKey) -> bool {
        let mut ears = self.lock();
        let followed = &mut ears.entry(connection).or_default().followed;
        if followed.len() >= MAX_FOLLOWED && !followed.contains(key) {
            return false;
        }
        followed.insert(key.clone());
        true
    }

    pub fn unfollow(&self, connection: u64, key: &SessionKey) {
        if let Some(ears) = self.lock().get_mut(&connection) {
            ears.followed.remove(key);
        }
    }

    /// As [`Subscriptions::follow`], for a node: it hears the `chat` and `agent` events and nothing else.
    pub fn follow_chat(&self, connection: u64, key: &SessionKey) -> bool {
        let mut ears = self.lock();
        let chats = &mut ears.entry(connection).or_default().chats;
        if chats.len() >= MAX_FOLLOWED && !chats.contains(key) {
            return false;
        }
        chats.insert(key.clone());
        true
    }

    pub fn unfollow_chat(&self, connection: u64, key: &SessionKey) {
        if let Some(ears) = self.lock().get_mut(&connection) {
            ears.chats.remove(key);
        }
    }

    /// Connections of nodes that follow the conversation.
    pub fn nodes_of(&self, key: &SessionKey) -> Vec<u64> {
        self.lock().iter().filter(|(_, ears)| ears.chats.contains(key)).map(|(number, _)| *number).collect()
    }

    /// The connection has ended.
    pub fn forget(&self, connection: u64) {
        self.lock().remove(&connection);
    }

    /// True when some connection follows it: somebody reads along.
    pub fn has_followers(&self, key: &SessionKey) -> bool {
        self.lock().values().any(|ears| ears.followed.contains(key))
    }

    /// Who hears `session.message` and `sessions.changed` of it.
    pub fn hearers(&self, key: &SessionKey) -> HashSet<u64> {
        let ears = self.lock();
        ears.iter().filter(|(_, ears)| ears.roster || ears.followed.contains(key)).map(|(number, _)| *number).collect()
    }

    /// Whether a connection that passes the gate gets `chat` and `agent` events of the conversation: everyone does, but for
    /// clients that asked for those they follow only.
    pub fn streams_to(&self, connection: &Connection, key: &SessionKey) -> bool {
        if !connection.params.caps.iter().any(|cap| cap == SCOPED) {
            return true;
        }
        self.lock().get(&connection.number).is_some_and(|ears| ears.followed.contains(key))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Ears>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
