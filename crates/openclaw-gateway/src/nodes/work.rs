//! Work that waits for a node until it comes and asks: a phone that sleeps is not connected. A bounded queue per node,
//! in memory: after a restart it is empty, and an operator that still wants the answer asks again.

use std::collections::HashMap;

use openclaw_protocol::{
    DeviceId,
    method::node::{PendingDrained, PendingEnqueued, PendingWork, WorkKind, WorkPriority},
};
use thiserror::Error;

/// Items per node, and nodes with a queue.
const MAX_ITEMS: usize = 64;
const MAX_NODES: usize = 1024;
/// Items per drain (published schema, `NodePendingDrainParams`).
const MAX_DRAIN: u32 = 10;
/// Bounds and default of `expiresInMs` (published schema, `NodePendingEnqueueParams`; default observed).
const MIN_EXPIRY_MS: i64 = 1_000;
const MAX_EXPIRY_MS: i64 = 24 * 60 * 60 * 1000;

/// Why work was not queued, or cannot be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WorkError {
    #[error("at /expiresInMs: must be {MIN_EXPIRY_MS} to {MAX_EXPIRY_MS}")]
    Expiry,
    #[error("at /priority: must be normal or high")]
    Priority,
    #[error("at /maxItems: must be 1 to {MAX_DRAIN}")]
    MaxItems,
    #[error("{MAX_ITEMS} items wait for this node already")]
    Full,
}

#[derive(Debug, Default)]
struct Queue {
    items: Vec<PendingWork>,
    revision: u64,
}

/// The queues of all nodes.
#[derive(Debug, Default)]
pub struct Work(HashMap<DeviceId, Queue>);

impl Work {
    /// Queues one item.
    ///
    /// # Errors
    /// [`WorkError`]; nothing that waits gives way.
    pub fn enqueue(
        &mut self,
        now_ms: i64,
        fresh_id: String,
        node: &DeviceId,
        kind: WorkKind,
        priority: Option<WorkPriority>,
        expires_in_ms: Option<i64>,
    ) -> Result<PendingEnqueued, WorkError> {
        let expires_in = expires_in_ms.unwrap_or(MAX_EXPIRY_MS);
        if !(MIN_EXPIRY_MS..=MAX_EXPIRY_MS).contains(&expires_in) {
            return Err(WorkError::Expiry);
        }
        let priority = priority.unwrap_or(WorkPriority::Normal);
        if priority == WorkPriority::Default {
            return Err(WorkError::Priority);
        }
        self.expire(now_ms);
        if self.0.len() >= MAX_NODES && !self.0.contains_key(node) {
            return Err(WorkError::Full);
        }
        let queue = self.0.entry(node.clone()).or_default();
        if queue.items.len() >= MAX_ITEMS {
            return Err(WorkError::Full);
        }
        let queued = PendingWork {
            id: fresh_id,
            kind,
            priority,
            created_at_ms: now_ms,
            expires_at_ms: Some(now_ms.saturating_add(expires_in)),
        };
        queue.revision += 1;
        // High before normal, then in order of arrival.
        let at = queue.items.partition_point(|item| item.priority >= queued.priority);
        queue.items.insert(at, queued.clone());
        Ok(PendingEnqueued { node_id: node.to_string(), revision: queue.revision, queued, wake_triggered: false })
    }

    /// The node fetches items; they are gone afterwards. An empty queue offers the one thing that is always welcome.
    ///
    /// # Errors
    /// [`WorkError::MaxItems`]
    pub fn drain(&mut self, now_ms: i64, node: &DeviceId, max_items: Option<u32>) -> Result<PendingDrained, WorkError> {
        let most = max_items.unwrap_or(MAX_DRAIN);
        if !(1..=MAX_DRAIN).contains(&most) {
            return Err(WorkError::MaxItems);
        }
        self.expire(now_ms);
        let node_id = node.to_string();
        let Some(queue) = self.0.get_mut(node).filter(|queue| !queue.items.is_empty()) else {
            let revision = self.0.get(node).map_or(0, |queue| queue.revision);
            return Ok(PendingDrained { node_id, revision, items: vec![baseline(now_ms)], has_more: false });
        };
        let taken = queue.items.len().min(most as usize);
        let items = queue.items.drain(..taken).collect();
        queue.revision += 1;
        Ok(PendingDrained { node_id, revision: queue.revision, items, has_more: !queue.items.is_empty() })
    }

    /// The node is gone for good.
    pub fn forget(&mut self, node: &DeviceId) {
        self.0.remove(node);
    }

    fn expire(&mut self, now_ms: i64) {
        for queue in self.0.values_mut() {
            let before = queue.items.len();
            queue.items.retain(|item| item.expires_at_ms.is_none_or(|at| at > now_ms));
            queue.revision += u64::from(queue.items.len() < before);
        }
    }
}

fn baseline(now_ms: i64) -> PendingWork {
    PendingWork {
        id: "baseline-status".into(),
        kind: WorkKind::Status,
        priority: WorkPriority::Default,
        created_at_ms: now_ms,
        expires_at_ms: None,
    }
}

#[cfg(test)]
mod tests {
    use openclaw_protocol::DeviceKey;

    use super::*;

    fn ids(drained: &PendingDrained) -> Vec<&str> {
        drained.items.iter().map(|item| item.id.as_str()).collect()
    }

    /// Revisions, default expiry and the baseline item as captured (`pairing-node-events`).
    #[test]
    fn captured_sequence() {
        let (mut work, node) = (Work::default(), DeviceKey::from_seed(&[1; 32]).id());
        let empty = work.drain(5, &node, None).expect("drains");
        assert_eq!((ids(&empty), empty.revision, empty.has_more), (vec!["baseline-status"], 0, false));
        assert_eq!(empty.items[0].expires_at_ms, None);
        let queued = work.enqueue(10, "a".into(), &node, WorkKind::Status, None, None).expect("queues");
        assert_eq!((queued.revision, queued.queued.expires_at_ms), (1, Some(10 + 86_400_000)));
        let drained = work.drain(11, &node, None).expect("drains");
        assert_eq!((ids(&drained), drained.revision, drained.has_more), (vec!["a"], 2, false));
    }

    #[test]
    fn order_bounds_and_expiry() {
        let (mut work, node) = (Work::default(), DeviceKey::from_seed(&[1; 32]).id());
        let other = DeviceKey::from_seed(&[2; 32]).id();
        let add = |work: &mut Work, id: &str, high: bool, expiry| {
            let priority = high.then_some(WorkPriority::High);
            work.enqueue(0, id.into(), &node, WorkKind::Location, priority, expiry).map(|_| ())
        };
        for (id, high) in [("n1", false), ("h1", true), ("n2", false), ("h2", true)] {
            add(&mut work, id, high, None).expect("queues");
        }
        add(&mut work, "short", false, Some(1_000)).expect("queues");
        assert_eq!(ids(&work.drain(0, &other, None).expect("drains")), ["baseline-status"]);
        let first = work.drain(1_000, &node, Some(3)).expect("drains");
        assert_eq!((ids(&first), first.has_more), (vec!["h1", "h2", "n1"], true));
        let rest = work.drain(1_000, &node, None).expect("drains");
        assert_eq!((ids(&rest), rest.has_more), (vec!["n2"], false), "the short one has expired");

        assert_eq!(add(&mut work, "x", false, Some(999)), Err(WorkError::Expiry));
        assert_eq!(add(&mut work, "x", false, Some(86_400_001)), Err(WorkError::Expiry));
        assert_eq!(work.drain(0, &node, Some(0)), Err(WorkError::MaxItems));
        assert_eq!(work.drain(0, &node, Some(11)), Err(WorkError::MaxItems));
        for n in 0..MAX_ITEMS {
            add(&mut work, &n.to_string(), false, None).expect("room");
        }
        assert_eq!(add(&mut work, "x", false, None), Err(WorkError::Full));
    }
}
