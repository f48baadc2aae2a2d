//! Room for sockets that have not proven themselves: 32 per client, 512 in all, 64 of them kept for clients that have
//! authenticated before. When a client is full its longest-waiting socket makes room for the newest, so a crowd of silent
//! sockets cannot keep the owner out.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
};

use tokio_util::sync::CancellationToken;

use crate::auth::evidence::ClientKey;

/// All pre-authentication sockets together.
const GLOBAL_SOCKETS: usize = 512;
/// Of those, kept for clients that authenticated before, and for the owner's socket.
const RESERVED_SOCKETS: usize = 64;
/// A waiting socket may be replaced after this long: a real handshake takes milliseconds.
const REPLACEABLE_AFTER_MS: i64 = 1_000;
/// Clients remembered as known.
const MAX_KNOWN: usize = 256;

#[derive(Debug)]
struct Waiting {
    id: u64,
    since_ms: i64,
    evict: CancellationToken,
}

#[derive(Debug, Default)]
struct Table {
    waiting: HashMap<ClientKey, VecDeque<Waiting>>,
    total: usize,
    next_id: u64,
    known: VecDeque<ClientKey>,
}

/// The table of waiting sockets.
#[derive(Debug)]
pub struct Admission {
    table: Mutex<Table>,
    per_client: usize,
}

/// One place in the table, given back when dropped.
#[derive(Debug)]
pub struct Slot {
    admission: Arc<Admission>,
    key: ClientKey,
    id: u64,
    /// Cancelled when the socket has to make room.
    pub evicted: CancellationToken,
}

impl Admission {
    pub fn new(per_client: usize) -> Arc<Self> {
        Arc::new(Self { table: Mutex::default(), per_client: per_client.max(1) })
    }

    /// Takes a place for a fresh socket, or `None` when there is no room (answer 503).
    pub fn enter(self: &Arc<Self>, now_ms: i64, key: ClientKey) -> Option<Slot> {
        let mut table = self.table.lock().ok()?;
        let full_client = table.waiting.get(&key).is_some_and(|list| list.len() >= self.per_client);
        if full_client && !table.evict_oldest(&key, now_ms) {
            return None;
        }
        let known = key == ClientKey::Owner || table.known.contains(&key);
        let ceiling = if known { GLOBAL_SOCKETS } else { GLOBAL_SOCKETS - RESERVED_SOCKETS };
        if table.total >= ceiling {
            let crowd = table.waiting.iter().max_by_key(|(_, list)| list.len()).map(|(key, _)| key.clone())?;
            if !table.evict_oldest(&crowd, now_ms) {
                return None;
            }
        }
        table.next_id += 1;
        let (id, evict) = (table.next_id, CancellationToken::new());
        table.total += 1;
        table.waiting.entry(key.clone()).or_default().push_back(Waiting { id, since_ms: now_ms, evict: evict.clone() });
        Some(Slot { admission: Arc::clone(self), key, id, evicted: evict })
    }

    fn leave(&self, key: &ClientKey, id: u64, proven: bool) {
        let Ok(mut table) = self.table.lock() else { return };
        table.remove(key, id);
        if proven && !table.known.contains(key) {
            table.known.push_back(key.clone());
            if table.known.len() > MAX_KNOWN {
                table.known.pop_front();
            }
        }
    }
}

impl Table {
    fn evict_oldest(&mut self, key: &ClientKey, now_ms: i64) -> bool {
        let Some(oldest) = self.waiting.get(key).and_then(VecDeque::front) else { return false };
        if now_ms - oldest.since_ms < REPLACEABLE_AFTER_MS {
            return false;
        }
        oldest.evict.cancel();
        let id = oldest.id;
        self.remove(key, id);
        true
    }

    fn remove(&mut self, key: &ClientKey, id: u64) {
        let Some(list) = self.waiting.get_mut(key) else { return };
        let before = list.len();
        list.retain(|waiting| waiting.id != id);
        self.total -= before - list.len();
        if list.is_empty() {
            self.waiting.remove(key);
        }
    }
}

impl Slot {
    /// The socket authenticated: it leaves the table, and its client has reserved room from now on.
    pub fn proven(self) {
        self.admission.leave(&self.key, self.id, true);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.admission.leave(&self.key, self.id, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(n: u16) -> ClientKey {
        ClientKey::V4([10, 0, (n >> 8) as u8, n as u8])
    }

    #[test]
    fn p_24_a_crowd_from_one_client_makes_room_for_its_newest() {
        let admission = Admission::new(32);
        let crowd: Vec<_> = (0..500).filter_map(|_| admission.enter(0, v4(1))).collect();
        assert_eq!(crowd.len(), 32);
        assert!(admission.enter(999, v4(1)).is_none());
        let fresh = admission.enter(1_000, v4(1));
        assert!(fresh.is_some() && crowd[0].evicted.is_cancelled() && !crowd[1].evicted.is_cancelled());
        assert!(admission.enter(0, v4(2)).is_some());
    }

    #[test]
    fn p_24_reserved_room_for_known_clients() {
        let admission = Admission::new(32);
        admission.enter(0, v4(9_999)).expect("room").proven();
        let crowd: Vec<_> = (0..2_000).filter_map(|n| admission.enter(0, v4(n))).collect();
        assert_eq!(crowd.len(), GLOBAL_SOCKETS - RESERVED_SOCKETS);
        assert!(admission.enter(10, v4(9_999)).is_some());
        assert!(admission.enter(10, ClientKey::Owner).is_some());
        assert!(admission.enter(10, v4(5_000)).is_none());
        drop(crowd);
        assert!(admission.enter(11, v4(5_000)).is_some());
    }
}
