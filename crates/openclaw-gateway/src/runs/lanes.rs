//! Who runs and who waits: one run per conversation, a cap over all of them, a bounded queue each. No locks and no clocks
//! inside; the caller brings them.

use std::collections::{HashMap, VecDeque};

use super::RunId;
use crate::sessions::SessionKey;

/// Runs that may wait in one conversation (`messages.queue.cap` of the reference).
pub const QUEUE_CAP: usize = 20;

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Lanes {
    lanes: HashMap<SessionKey, Lane>,
    /// Conversations with somebody waiting and nobody running, in the order in which they came to be so.
    ready: VecDeque<SessionKey>,
    running: usize,
}

#[derive(Debug, Default)]
struct Lane {
    running: Option<RunId>,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    id: RunId,
    /// On disk. Until then nobody starts it, nor what is behind it.
    kept: bool,
}

/// The queue of the conversation is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Lanes {
    /// Takes a place. Returns how many are before it, the running one included.
    ///
    /// # Errors
    /// [`Full`] when [`QUEUE_CAP`] runs wait already.
    pub fn place(&mut self, key: &SessionKey, id: RunId) -> Result<usize, Full> {
        let lane = self.lanes.entry(key.clone()).or_default();
        if lane.waiting.len() >= QUEUE_CAP {
            return Err(Full);
        }
        lane.waiting.push_back(Waiting { id, kept: false });
        Ok(lane.waiting.len() - 1 + usize::from(lane.running.is_some()))
    }

    /// Takes a place for what is on disk already, however many there are.
    pub fn restore(&mut self, key: &SessionKey, id: RunId) {
        self.lanes.entry(key.clone()).or_default().waiting.push_back(Waiting { id, kept: true });
        self.look(key);
    }

    /// What has a place is on disk now.
    pub fn kept(&mut self, key: &SessionKey, id: &RunId) {
        if let Some(lane) = self.lanes.get_mut(key)
            && let Some(waiting) = lane.waiting.iter_mut().find(|waiting| waiting.id == *id)
        {
            waiting.kept = true;
        }
        self.look(key);
    }

    /// The next run that may start, if fewer than `cap` run.
    pub fn start(&mut self, cap: usize) -> Option<(SessionKey, RunId)> {
        if self.running >= cap {
            return None;
        }
        let key = self.ready.pop_front()?;
        let lane = self.lanes.get_mut(&key)?;
        let next = lane.waiting.pop_front()?;
        lane.running = Some(next.id.clone());
        self.running += 1;
        Some((key, next.id))
    }

    /// The running one is through.
    pub fn ended(&mut self, key: &SessionKey) {
        if let Some(lane) = self.lanes.get_mut(key)
            && lane.running.take().is_some()
        {
            self.running -= 1;
        }
        self.look(key);
    }

    /// Takes somebody who waits out of the queue.
    pub fn leave(&mut self, key: &SessionKey, id: &RunId) -> bool {
        let Some(lane) = self.lanes.get_mut(key) else { return false };
        let before = lane.waiting.len();
        lane.waiting.retain(|waiting| waiting.id != *id);
        let left = lane.waiting.len() < before;
        self.ready.retain(|ready| ready != key);
        self.look(key);
        left
    }

    /// Takes those at the head of the queue that are wanted, up to the first that is not.
    pub fn take_head(&mut self, key: &SessionKey, wanted: impl Fn(&RunId) -> bool) -> Vec<RunId> {
        let Some(lane) = self.lanes.get_mut(key) else { return Vec::new() };
        let count = lane.waiting.iter().take_while(|waiting| waiting.kept && wanted(&waiting.id)).count();
        lane.waiting.drain(..count).map(|waiting| waiting.id).collect()
    }

    /// The run under way in a conversation.
    pub fn running(&self, key: &SessionKey) -> Option<&RunId> {
        self.lanes.get(key)?.running.as_ref()
    }

    /// Those that wait in a conversation, next first.
    pub fn waiting(&self, key: &SessionKey) -> Vec<RunId> {
        self.lanes
            .get(key)
            .map_or_else(Vec::new, |lane| lane.waiting.iter().map(|waiting| waiting.id.clone()).collect())
    }

    /// All runs under way.
    pub fn running_count(&self) -> usize {
        self.running
    }

    /// All that wait, in whatever conversation.
    pub fn waiting_count(&self) -> usize {
        self.lanes.values().map(|lane| lane.waiting.len()).sum()
    }

    /// Puts a conversation among the ready ones, or forgets it when it is empty.
    fn look(&mut self, key: &SessionKey) {
        let Some(lane) = self.lanes.get(key) else { return };
        if lane.running.is_none() && lane.waiting.is_empty() {
            self.lanes.remove(key);
        } else if lane.running.is_none()
            && lane.waiting.front().is_some_and(|waiting| waiting.kept)
            && !self.ready.contains(key)
        {
            self.ready.push_back(key.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> SessionKey {
        SessionKey::resolve(name, "main", "main").expect("a key")
    }

    fn id(name: &str) -> RunId {
        RunId(name.to_owned())
    }

    fn add(lanes: &mut Lanes, session: &str, run: &str) -> usize {
        let place = lanes.place(&key(session), id(run)).expect("room");
        lanes.kept(&key(session), &id(run));
        place
    }

    fn started(lanes: &mut Lanes, cap: usize) -> Vec<String> {
        std::iter::from_fn(|| lanes.start(cap)).map(|(_, run)| run.0).collect()
    }

    #[test]
    fn one_run_per_conversation_in_order() {
        let mut lanes = Lanes::default();
        assert_eq!((add(&mut lanes, "a", "1"), add(&mut lanes, "a", "2"), add(&mut lanes, "b", "3")), (0, 1, 0));
        assert_eq!(started(&mut lanes, 8), ["1", "3"]);
        assert_eq!(add(&mut lanes, "a", "4"), 2, "one runs and one waits before it");
        assert_eq!(started(&mut lanes, 8), [""; 0]);
        lanes.ended(&key("a"));
        assert_eq!(started(&mut lanes, 8), ["2"]);
        lanes.ended(&key("a"));
        lanes.ended(&key("b"));
        assert_eq!(started(&mut lanes, 8), ["4"]);
        lanes.ended(&key("a"));
        assert_eq!((lanes.running_count(), lanes.waiting_count(), lanes.lanes.len()), (0, 0, 0));
    }

    #[test]
    fn the_cap_is_shared_fairly() {
        let mut lanes = Lanes::default();
        for (session, run) in [("a", "1"), ("b", "2"), ("c", "3"), ("a", "4")] {
            add(&mut lanes, session, run);
        }
        assert_eq!(started(&mut lanes, 2), ["1", "2"]);
        lanes.ended(&key("a"));
        assert_eq!(started(&mut lanes, 2), ["3"], "the one that waited longest, not the one that just ran");
        lanes.ended(&key("b"));
        assert_eq!(started(&mut lanes, 2), ["4"]);
    }

    #[test]
    fn what_is_not_on_disk_does_not_run_nor_what_is_behind_it() {
        let mut lanes = Lanes::default();
        lanes.place(&key("a"), id("1")).expect("room");
        add(&mut lanes, "a", "2");
        assert_eq!(started(&mut lanes, 8), [""; 0]);
        lanes.kept(&key("a"), &id("1"));
        assert_eq!(started(&mut lanes, 8), ["1"]);
        // The one that could not be saved gives its place up.
        let mut lanes = Lanes::default();
        lanes.place(&key("a"), id("1")).expect("room");
        add(&mut lanes, "a", "2");
        assert!(lanes.leave(&key("a"), &id("1")));
        assert_eq!(started(&mut lanes, 8), ["2"]);
    }

    #[test]
    fn queues_are_bounded_and_can_be_left() {
        let mut lanes = Lanes::default();
        add(&mut lanes, "a", "running");
        assert_eq!(started(&mut lanes, 1), ["running"]);
        for n in 0..QUEUE_CAP {
            add(&mut lanes, "a", &n.to_string());
        }
        assert_eq!(lanes.place(&key("a"), id("one too many")), Err(Full));
        assert!(lanes.leave(&key("a"), &id("3")) && !lanes.leave(&key("a"), &id("3")));
        assert_eq!(lanes.waiting(&key("a")).len(), QUEUE_CAP - 1);
        let taken = lanes.take_head(&key("a"), |run| run.0 != "2");
        assert_eq!(taken, [id("0"), id("1")]);
        lanes.ended(&key("a"));
        assert_eq!(started(&mut lanes, 1), ["2"]);
    }
}
