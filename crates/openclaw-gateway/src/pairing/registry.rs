//! The pairing state of a running gateway: the state machine behind a lock, always in step with the store.
//!
//! A change is decided and queued for the writer under the lock, so the order on disk is the order of the decisions.
//! It is acknowledged only after the commit. Should a commit fail, the state is read back from disk: what could not
//! be saved was not decided.

use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use openclaw_protocol::{DeviceId, Role, Secret};
use thiserror::Error;

use super::{
    bootstrap::Moment,
    device::DevicePairing,
    effects::Effects,
    token::{Seen, token_from_bytes},
};
use crate::store::{Store, StoreError, Touch};

/// Device pairing, shared by connections and methods.
#[derive(Debug)]
pub struct DeviceRegistry {
    state: Mutex<State>,
    store: Store,
}

#[derive(Debug)]
struct State {
    pairing: DevicePairing,
    /// Counts queued changes, so that a read-back notices that it was overtaken.
    version: u64,
}

/// Why a change did not happen.
#[derive(Debug, Error)]
pub enum ChangeError<E> {
    /// The state machine said no.
    #[error(transparent)]
    Refused(E),
    /// It could not be saved, so it did not happen.
    #[error(transparent)]
    Store(StoreError),
}

impl DeviceRegistry {
    /// Loads everything into memory.
    ///
    /// # Errors
    /// When the rows cannot be read.
    pub fn load(store: Store) -> Result<Self, StoreError> {
        let pairing = store.load_devices()?;
        Ok(Self { state: Mutex::new(State { pairing, version: 0 }), store })
    }

    /// Looks at the present state. `look` runs under the lock: keep it short.
    pub fn read<R>(&self, look: impl FnOnce(&DevicePairing) -> R) -> R {
        look(&self.lock().pairing)
    }

    /// Decides and saves. When this returns `Ok` the changes are on disk; the caller then closes the sockets named in
    /// the effects, broadcasts the events, and answers. A decision without changes costs no write.
    ///
    /// Not cancel safe: dropped half-way, the change may still be saved while nobody hears its effects. Run it in a
    /// task that outlives the socket.
    ///
    /// # Errors
    /// [`ChangeError::Refused`] with the state machine's reason, [`ChangeError::Store`] when saving failed.
    pub async fn change<R, E>(
        &self,
        decide: impl FnOnce(&mut DevicePairing) -> Result<(R, Effects), E>,
    ) -> Result<(R, Effects), ChangeError<E>> {
        let slot = self.store.reserve().await.map_err(ChangeError::Store)?;
        let (result, mut effects, receipt) = {
            let mut state = self.lock();
            let (result, mut effects) = decide(&mut state.pairing).map_err(ChangeError::Refused)?;
            let changes = std::mem::take(&mut effects.changes);
            if changes.is_empty() {
                return Ok((result, effects));
            }
            state.version += 1;
            (result, effects, slot.send(changes))
        };
        if let Err(error) = receipt.await {
            self.read_back().await;
            return Err(ChangeError::Store(error));
        }
        effects.changes.clear();
        Ok((result, effects))
    }

    /// Notes the time after a start, so that one-time tokens age by a clock that nobody can set.
    pub fn observe(&self, now: Moment) {
        self.lock().pairing.observe(now);
    }

    /// Notes that a device was here, in memory and (lazily) on disk.
    pub fn touch(&self, now_ms: i64, device_id: &DeviceId, role: Role, seen: Seen) {
        self.lock().pairing.touch(now_ms, device_id, role, seen);
        self.store.touch(Touch { device_id: device_id.clone(), role, seen, at_ms: now_ms });
    }

    /// Waits until every decision made so far is on disk. Returns at once when nothing is being written. A connection
    /// that is about to be admitted waits for this, so that it never rests on an approval that a crash could undo.
    ///
    /// # Errors
    /// When something that was being written could not be saved: look again before admitting anybody.
    pub async fn settled(&self) -> Result<(), StoreError> {
        self.store.settled().await
    }

    async fn read_back(&self) {
        loop {
            let version = self.lock().version;
            let rows = self.store.read(crate::store::devices::load).await;
            let mut state = self.lock();
            match rows {
                Ok(pairing) if state.version == version => {
                    state.pairing = pairing;
                    return;
                }
                // Overtaken by another change: read again, with it.
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(%error, "pairing state could not be read back; memory is ahead of the database");
                    return;
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic inside the state machine leaves it as it was between two field writes at worst; the next start reads
        // the database.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A fresh random token of 128 bits, short enough for a QR code on a small screen. For what lives minutes only.
///
/// # Errors
/// As [`random_token`].
pub fn short_token() -> Result<Secret, getrandom::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(Secret::new(URL_SAFE_NO_PAD.encode(bytes)))
}

/// A fresh random token.
///
/// # Errors
/// When the system has no randomness to give; the operation must then fail.
pub fn random_token() -> Result<Secret, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(token_from_bytes(&bytes))
}
