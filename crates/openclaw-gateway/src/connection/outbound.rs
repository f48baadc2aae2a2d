//! What a connection owes its peer: one byte-budgeted queue where replies and events meet in order.

use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use openclaw_protocol::{
    CloseReason, Protocol,
    frame::{EventHead, StateVersion, event_tail},
    limits::{DROP_IF_SLOW_BYTES, MAX_BUFFERED_BYTES},
};
use tokio::sync::Notify;

use super::ws;

/// Bytes moved into one write at most: 64 KiB. The rest stays shared in the queue.
const BATCH_BYTES: usize = 64 * 1024;
/// Bookkeeping charged per queued item, so that a flood of tiny frames cannot hide from the budget.
const ITEM_OVERHEAD: usize = 64;

#[derive(Debug)]
enum Item {
    Frame(Bytes),
    Event { head: EventHead, seq: Option<u64>, version: Option<StateVersion> },
}

impl Item {
    fn cost(&self) -> usize {
        ITEM_OVERHEAD
            + match self {
                Self::Frame(frame) => frame.len(),
                Self::Event { head, .. } => head.bytes().len(),
            }
    }
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
    seq: u64,
    /// Set once; nothing is queued after it.
    close: Option<CloseReason>,
    /// Close without waiting for what is owed.
    at_once: bool,
}

impl Queue {
    fn cut(&mut self, reason: CloseReason) {
        self.items = VecDeque::new();
        self.bytes = 0;
        self.close = Some(reason);
        self.at_once = true;
    }
}

/// The queue. Pushing never blocks: a peer that does not read is closed, not waited for.
#[derive(Debug, Default)]
pub struct Outbound {
    queue: Mutex<Queue>,
    ready: Notify,
    over: AtomicBool,
    ended: Notify,
}

impl Outbound {
    /// Waits until something was pushed since the last wait. Cancel safe.
    pub async fn ready(&self) {
        self.ready.notified().await;
    }

    /// Has the driver look again, without anything to send: there is room for another request.
    pub fn nudge(&self) {
        self.ready.notify_one();
    }

    /// Queues a reply or a point-to-point frame.
    pub fn push(&self, frame: impl Into<Bytes>) {
        self.enqueue(false, |_| Item::Frame(frame.into()));
    }

    /// Queues a broadcast. Protocol 4 counts per connection (a dropped event consumes a number, so the client sees the gap);
    /// protocol 3 carries the gateway-wide number.
    pub fn push_event(
        &self,
        head: &EventHead,
        version: Option<StateVersion>,
        global_seq: u64,
        protocol: Protocol,
        drop_if_slow: bool,
    ) {
        self.enqueue(drop_if_slow, |queue| {
            queue.seq += 1;
            let seq = Some(if protocol == Protocol::V3 { global_seq } else { queue.seq });
            Item::Event { head: head.clone(), seq, version }
        });
    }

    /// Asks the driver to close after what is queued has been written. The first reason wins.
    pub fn close(&self, reason: CloseReason) {
        if let Ok(mut queue) = self.queue.lock() {
            queue.close.get_or_insert(reason);
        }
        self.ready.notify_one();
    }

    /// Asks the driver to close at once: what is queued is dropped. For revoked rights, where a reply would leak.
    pub fn abort(&self, reason: CloseReason) {
        if let Ok(mut queue) = self.queue.lock() {
            queue.cut(reason);
        }
        self.ready.notify_one();
    }

    /// The reason to close at once, also while earlier bytes are still unsent.
    pub fn aborted(&self) -> Option<CloseReason> {
        let queue = self.queue.lock().ok()?;
        queue.close.clone().filter(|_| queue.at_once)
    }

    /// The connection is over, whoever ended it.
    pub fn end(&self) {
        self.over.store(true, Ordering::Release);
        self.ended.notify_waiters();
    }

    /// Waits until the connection is over; for work that nobody else wants. Cancel safe.
    pub async fn ended(&self) {
        let mut ended = std::pin::pin!(self.ended.notified());
        // Listening begins before the look, so that no end falls between the two.
        ended.as_mut().enable();
        if !self.over.load(Ordering::Acquire) {
            ended.await;
        }
    }

    /// True once a close was asked for: no more requests may run.
    pub fn is_closing(&self) -> bool {
        self.queue.lock().map_or(true, |queue| queue.close.is_some())
    }

    /// Unsent bytes in the queue.
    pub fn pending_bytes(&self) -> usize {
        self.queue.lock().map_or(0, |queue| queue.bytes)
    }

    /// Moves up to one batch of frames into `out`. Returns the close reason once the queue is empty and closing.
    pub fn drain(&self, out: &mut Vec<u8>) -> Option<CloseReason> {
        let Ok(mut queue) = self.queue.lock() else { return Some(CloseReason::GOING_AWAY) };
        while out.len() < BATCH_BYTES {
            let Some(item) = queue.items.pop_front() else { break };
            queue.bytes -= item.cost();
            match item {
                Item::Frame(frame) => ws::push_text(out, &[&frame]),
                Item::Event { head, seq, version } => {
                    ws::push_text(out, &[head.bytes(), event_tail(seq, version).as_bytes()]);
                }
            }
        }
        if !queue.items.is_empty() {
            return None;
        }
        if queue.items.capacity() > 64 {
            queue.items = VecDeque::new();
        }
        queue.close.clone()
    }

    fn enqueue(&self, drop_if_slow: bool, make: impl FnOnce(&mut Queue) -> Item) {
        let Ok(mut queue) = self.queue.lock() else { return };
        if queue.close.is_some() {
            return;
        }
        let item = make(&mut queue);
        if drop_if_slow && queue.bytes > DROP_IF_SLOW_BYTES {
            return;
        }
        queue.bytes += item.cost();
        queue.items.push_back(item);
        if queue.bytes > MAX_BUFFERED_BYTES {
            queue.cut(CloseReason::SLOW_CONSUMER);
        }
        drop(queue);
        self.ready.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(out: &[u8]) -> String {
        String::from_utf8_lossy(out).into_owned()
    }

    #[test]
    fn p_72_slow_consumers_are_closed_at_the_budget() {
        let outbound = Outbound::default();
        let frame = Bytes::from(vec![b'x'; 1024 * 1024]);
        for _ in 0..20 {
            outbound.push(frame.clone());
        }
        assert_eq!(outbound.pending_bytes(), 0);
        assert_eq!(outbound.aborted(), Some(CloseReason::SLOW_CONSUMER));
        assert_eq!(outbound.drain(&mut Vec::new()), Some(CloseReason::SLOW_CONSUMER));
    }

    #[test]
    fn dropped_events_leave_a_gap() {
        let outbound = Outbound::default();
        let head = EventHead::new("tick", b"{}");
        outbound.push_event(&head, None, 70, Protocol::V4, true);
        outbound.push(vec![b'x'; DROP_IF_SLOW_BYTES]);
        outbound.push_event(&head, None, 71, Protocol::V4, true);
        while outbound.pending_bytes() > 0 {
            outbound.drain(&mut Vec::new());
        }
        let mut out = Vec::new();
        outbound.push_event(&head, None, 72, Protocol::V4, true);
        outbound.push_event(&head, None, 73, Protocol::V3, true);
        outbound.drain(&mut out);
        assert!(text(&out).contains("\"seq\":3}") && text(&out).contains("\"seq\":73}"), "{}", text(&out));
    }

    #[test]
    fn abort_drops_replies_and_close_keeps_them() {
        let outbound = Outbound::default();
        outbound.push("kept");
        outbound.close(CloseReason::SERVICE_RESTART);
        outbound.push("after");
        let mut out = Vec::new();
        assert_eq!(outbound.drain(&mut out), Some(CloseReason::SERVICE_RESTART));
        assert!(text(&out).contains("kept") && !text(&out).contains("after"));
        let outbound = Outbound::default();
        outbound.push("secret");
        outbound.abort(CloseReason::DEVICE_REMOVED);
        let mut out = Vec::new();
        assert_eq!(outbound.drain(&mut out), Some(CloseReason::DEVICE_REMOVED));
        assert!(out.is_empty());
    }
}
