//! The nodes of a running gateway: what is remembered of them, always in step with the store, and which of them are
//! here.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use openclaw_protocol::{CloseReason, DeviceId};
use serde_json::Value;

use super::{
    answers::Answers,
    legacy::LegacyPairing,
    live::LiveNode,
    surface::{Effects, NodeEvent, Surface, Surfaces},
    talk::Recent,
    view,
    work::Work,
};
use crate::{
    hub::Connection,
    pairing::ChangeError,
    store::{Receipt, Store, StoreError},
};

/// Everything that survives a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    pub surfaces: Surfaces,
    pub legacy: LegacyPairing,
    /// Wake words; empty while the defaults are in force.
    pub triggers: Vec<String>,
}

/// See the module documentation.
#[derive(Debug)]
pub struct Nodes {
    state: Mutex<State>,
    store: Store,
    live: RwLock<HashMap<DeviceId, Arc<LiveNode>>>,
    pub(super) work: Mutex<Work>,
    pub(super) answers: Answers,
    /// What nodes heard lately.
    pub(super) recent: Recent,
}

#[derive(Debug)]
struct State {
    remembered: Remembered,
    /// Counts queued changes, so that a read-back notices that it was overtaken.
    version: u64,
}

/// A decision that is in force in memory and on its way to the disk.
#[derive(Debug)]
#[must_use = "its events may be told only once it is saved"]
pub struct Unsaved {
    events: Vec<NodeEvent>,
    receipt: Option<Receipt>,
}

impl Nodes {
    /// Loads everything into memory. For the start: it waits for the store's writer.
    ///
    /// # Errors
    /// When the rows cannot be read or understood.
    pub fn load(store: &Store) -> Result<Self, StoreError> {
        let remembered = store.load_nodes()?;
        Ok(Self {
            state: Mutex::new(State { remembered, version: 0 }),
            store: store.clone(),
            live: RwLock::default(),
            work: Mutex::default(),
            answers: Answers::default(),
            recent: Recent::default(),
        })
    }

    /// Looks at what is remembered. `look` runs under the lock: keep it short.
    pub fn read<R>(&self, look: impl FnOnce(&Remembered) -> R) -> R {
        look(&self.lock().remembered)
    }

    /// The approved surface of a node; `None` while nothing is approved.
    pub fn approved(&self, node: &DeviceId) -> Option<Surface> {
        self.read(|remembered| remembered.surfaces.approved(node).cloned())
    }

    /// What a node waits for, as lists of devices show it.
    pub fn pending_surface(&self, node: &DeviceId) -> Option<Value> {
        self.read(|remembered| view::pending_surface(remembered.surfaces.get(node)?.pending.as_ref()?))
    }

    /// Decides and saves. When this returns `Ok` the changes are on disk; the caller then tells the events and answers.
    ///
    /// Not cancel safe: dropped half-way, the change may still be saved while nobody hears of it. Run it in a task that
    /// outlives the socket.
    ///
    /// # Errors
    /// [`ChangeError::Refused`] with the reason of the decision, [`ChangeError::Store`] when saving failed.
    pub async fn change<R, E>(
        &self,
        decide: impl FnOnce(&mut Remembered) -> Result<(R, Effects), E>,
    ) -> Result<(R, Vec<NodeEvent>), ChangeError<E>> {
        let slot = self.store.reserve().await.map_err(ChangeError::Store)?;
        let (result, unsaved) = {
            let mut state = self.lock();
            let (result, effects) = decide(&mut state.remembered).map_err(ChangeError::Refused)?;
            let receipt = (!effects.changes.is_empty()).then(|| {
                state.version += 1;
                slot.send(effects.changes)
            });
            (result, Unsaved { events: effects.events, receipt })
        };
        let events = self.saved(unsaved).await.map_err(ChangeError::Store)?;
        Ok((result, events))
    }

    /// As [`Nodes::change`] for a decision that cannot be refused, but decided before this returns: give the result to
    /// [`Nodes::saved`]. `None`, with nothing decided, when the store has no room just now.
    pub fn change_now(&self, decide: impl FnOnce(&mut Remembered) -> Effects) -> Option<Unsaved> {
        let slot = self.store.try_reserve()?;
        let mut state = self.lock();
        let effects = decide(&mut state.remembered);
        let receipt = (!effects.changes.is_empty()).then(|| {
            state.version += 1;
            slot.send(effects.changes)
        });
        Some(Unsaved { events: effects.events, receipt })
    }

    /// Waits until a decision is on disk. Returns what is to be told now.
    ///
    /// # Errors
    /// When it was not saved; then it is no longer in force either.
    pub async fn saved(&self, unsaved: Unsaved) -> Result<Vec<NodeEvent>, StoreError> {
        if let Some(receipt) = unsaved.receipt
            && let Err(error) = receipt.await
        {
            self.read_back().await;
            return Err(error);
        }
        Ok(unsaved.events)
    }

    /// The live connection of a node. One that is being closed is not.
    pub fn live(&self, node: &DeviceId) -> Option<Arc<LiveNode>> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).get(node).filter(|node| node.is_here()).cloned()
    }

    /// The node behind a connection, if that connection is the live one of its node.
    pub fn live_of(&self, caller: &Connection) -> Option<Arc<LiveNode>> {
        self.live(caller.device.as_ref()?).filter(|live| live.connection.number == caller.number)
    }

    /// All live nodes, in no particular order.
    pub fn all_live(&self) -> Vec<Arc<LiveNode>> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        live.values().filter(|node| node.is_here()).cloned().collect()
    }

    /// A proven connection of a node is here. The newest is the live one; the other is closed and its calls fail. False
    /// when that is the one given.
    pub(super) fn attach(&self, node: &Arc<LiveNode>) -> bool {
        let loser = {
            let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
            match live.get(&node.id) {
                Some(newer) if newer.connection.number > node.connection.number => Some(Arc::clone(node)),
                _ => live.insert(node.id.clone(), Arc::clone(node)),
            }
        };
        let Some(loser) = loser else { return true };
        loser.end();
        loser.connection.outbound.close(CloseReason::REPLACED);
        tracing::info!(node = node.id.short(), conn = %loser.connection.id, "closed: a newer connection of this node");
        !Arc::ptr_eq(&loser, node)
    }

    /// A connection of a node has ended; its calls fail.
    pub(super) fn detach(&self, connection: &Connection) {
        let Some(id) = &connection.device else { return };
        let gone = {
            let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
            match live.get(id) {
                Some(node) if node.connection.number == connection.number => live.remove(id),
                _ => None,
            }
        };
        if let Some(node) = gone {
            node.end();
        }
    }

    async fn read_back(&self) {
        loop {
            let version = self.lock().version;
            let rows = self.store.read(crate::store::nodes::load).await;
            let mut state = self.lock();
            match rows {
                Ok(remembered) if state.version == version => {
                    state.remembered = remembered;
                    return;
                }
                // Overtaken by another change: read again, with it.
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(%error, "node approvals could not be read back; memory is ahead of the database");
                    return;
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
