//! Conversations: what is known of each, and what was said.
//!
//! What is known is in memory, a small [`Record`] each; what was said is in the store, append-only. Every change goes
//! through a [`Draft`]: one at a time per conversation, whole or not at all, and in memory only once it is on disk. Reading
//! goes over read-only connections and waits for nobody.

pub mod activity;
pub mod draft;
pub mod events;
pub mod history;
pub mod key;
pub mod list;
pub mod message;
pub mod models;
pub mod patch;
pub mod read;
pub mod record;
pub mod row;
pub mod search;
pub mod subscriptions;
#[cfg(test)]
mod tests;
pub mod text;
pub mod transfer;
pub mod usage;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock, Weak},
};

pub use activity::{Activity, Pending};
pub use draft::{Appended, Committed, Draft, DraftError};
pub use key::SessionKey;
pub use message::{Answered, NewMessage, StopReason};
pub use record::{Compaction, LastRun, Place, Record, RunStatus, SessionId, Settings, Totals};
pub use subscriptions::Subscriptions;

use crate::store::{Reader, Store, StoreError};

/// All conversations; clones share them.
#[derive(Clone, Debug)]
pub struct Sessions {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    reader: Reader,
    records: RwLock<HashMap<SessionKey, Arc<Record>>>,
    /// Whose turn it is to change a conversation; there is an entry while somebody changes it or waits to.
    turns: Mutex<HashMap<SessionKey, Weak<tokio::sync::Mutex<()>>>>,
    activity: RwLock<HashMap<SessionKey, Arc<Activity>>>,
    subscriptions: Subscriptions,
}

impl Sessions {
    /// Loads what is known of each conversation. For the start, before any runtime: it waits for the writer thread.
    ///
    /// # Errors
    /// When a row cannot be read or understood.
    pub fn load(store: &Store) -> Result<Self, StoreError> {
        let records = store.load_sessions()?;
        let records = records.into_iter().map(|record| (record.key.clone(), Arc::new(record))).collect();
        let shared = Shared {
            store: store.clone(),
            reader: store.reader(),
            records: RwLock::new(records),
            turns: Mutex::default(),
            activity: RwLock::default(),
            subscriptions: Subscriptions::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// What is known of a conversation; `None` when there is none.
    pub fn get(&self, key: &SessionKey) -> Option<Arc<Record>> {
        self.records().get(key).cloned()
    }

    /// The conversation that is at this stretch now.
    pub fn by_id(&self, id: &str) -> Option<Arc<Record>> {
        self.records().values().find(|record| record.session_id.as_str() == id).cloned()
    }

    /// All of them, in no particular order.
    pub fn all(&self) -> Vec<Arc<Record>> {
        self.records().values().cloned().collect()
    }

    pub fn count(&self) -> usize {
        self.records().len()
    }

    /// Those of one agent.
    pub fn count_of(&self, agent: &str) -> usize {
        self.records().values().filter(|record| record.key.agent() == agent).count()
    }

    /// The last changed ones, latest first.
    pub fn recent(&self, count: usize) -> Vec<Arc<Record>> {
        let latest = |a: &Arc<Record>, b: &Arc<Record>| b.updated_ms.cmp(&a.updated_ms).then_with(|| a.key.cmp(&b.key));
        let mut all = self.all();
        if count < all.len() {
            // Of thousands only a few are put in order.
            all.select_nth_unstable_by(count, latest);
            all.truncate(count);
        }
        all.sort_unstable_by(latest);
        all
    }

    /// Begins a change of a conversation, also of one that is yet to be. Waits while somebody else changes it: do not
    /// hold one while waiting for another, or for a model.
    pub async fn draft(&self, key: &SessionKey) -> Draft {
        let turn = {
            let mut turns = self.shared.turns.lock().unwrap_or_else(PoisonError::into_inner);
            if turns.len() > 64 {
                turns.retain(|_, turn| turn.strong_count() > 0);
            }
            let entry = turns.entry(key.clone()).or_default();
            entry.upgrade().unwrap_or_else(|| {
                let turn = Arc::default();
                *entry = Arc::downgrade(&turn);
                turn
            })
        };
        let turn = turn.lock_owned().await;
        Draft::new(self.clone(), self.get(key), key.clone(), turn)
    }

    /// Who wants to hear of which conversation.
    pub fn subscriptions(&self) -> &Subscriptions {
        &self.shared.subscriptions
    }

    fn records(&self) -> std::sync::RwLockReadGuard<'_, HashMap<SessionKey, Arc<Record>>> {
        self.shared.records.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts in memory what is on disk now.
    fn publish(&self, key: &SessionKey, record: Option<Arc<Record>>) {
        let mut records = self.shared.records.write().unwrap_or_else(PoisonError::into_inner);
        match record {
            Some(record) => records.insert(key.clone(), record),
            None => records.remove(key),
        };
    }
}
