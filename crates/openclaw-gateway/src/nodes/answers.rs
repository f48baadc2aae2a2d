//! What `node.invoke` answered lately, by idempotency key: asking again with the same key gives the same answer instead
//! of running the command again, also while the first one still runs.
//!
//! Keys belong to their caller: a device, an address, a run of the agent. In memory only: after a restart a repeated key runs again.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use openclaw_protocol::{DeviceId, ErrorShape};
use tokio::{sync::oneshot, time::Instant};

use crate::{auth::evidence::ClientKey, hub::Connection, rpc::registry::Answer, runs::RunId};

/// How long and how many answers are remembered (methods notes, conventions).
const TTL: Duration = Duration::from_secs(5 * 60);
const MAX_REMEMBERED: usize = 1000;
/// 4 MiB for all remembered answers, 256 KiB for one. Of a larger one only the fact is kept.
const MAX_BYTES: usize = 4 << 20;
const MAX_ANSWER_BYTES: usize = 256 << 10;
/// Longest idempotency key: 256 bytes. Real clients send UUIDs.
pub const MAX_KEY_BYTES: usize = 256;

/// Whose key it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    Device(DeviceId),
    Address(ClientKey),
    /// A run of the agent.
    Run(RunId),
}

impl Owner {
    /// Of the keys that come through a connection.
    pub fn of(caller: &Connection) -> Self {
        match &caller.device {
            Some(device) => Self::Device(device.clone()),
            None => Self::Address(caller.key.clone()),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    owner: Owner,
    text: String,
}

/// A key must not be used for two different things.
#[derive(Clone, Debug, PartialEq, Eq)]
struct About {
    node: String,
    command: String,
}

#[derive(Debug)]
enum State {
    Running(Vec<oneshot::Sender<Answer>>),
    /// `None`: it was too large to keep.
    Done(Option<Answer>),
}

#[derive(Debug)]
struct Entry {
    about: About,
    state: State,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<Key, Entry>,
    /// Finished keys, oldest first.
    done: VecDeque<(Instant, Key)>,
    bytes: usize,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Answers(Mutex<Table>);

/// What to do with a request.
#[derive(Debug)]
pub enum Begin<'a> {
    /// It is the first with its key: run it, then [`Ticket::finish`].
    First(Ticket<'a>),
    /// The first one is under way.
    Wait(oneshot::Receiver<Answer>),
    Done(Answer),
}

/// The right to run a request. Dropping it forgets the key, so that another try may run.
#[derive(Debug)]
pub struct Ticket<'a> {
    answers: &'a Answers,
    key: Option<Key>,
}

impl Answers {
    /// A request with this key arrives.
    ///
    /// # Errors
    /// `INVALID_REQUEST` when the key was used for another node or command.
    pub fn begin(&self, owner: Owner, key: &str, node: &str, command: &str) -> Result<Begin<'_>, ErrorShape> {
        let key = Key { owner, text: key.to_owned() };
        let about = About { node: node.to_owned(), command: command.to_owned() };
        let mut table = self.lock();
        table.expire(Instant::now());
        let Some(entry) = table.entries.get_mut(&key) else {
            table.entries.insert(key.clone(), Entry { about, state: State::Running(Vec::new()), bytes: 0 });
            return Ok(Begin::First(Ticket { answers: self, key: Some(key) }));
        };
        if entry.about != about {
            return Err(ErrorShape::invalid("idempotencyKey was used for another node or command; use a new one"));
        }
        Ok(match &mut entry.state {
            State::Running(waiting) => {
                let (sender, receiver) = oneshot::channel();
                waiting.push(sender);
                Begin::Wait(receiver)
            }
            State::Done(Some(answer)) => Begin::Done(answer.clone()),
            State::Done(None) => Begin::Done(Err(ErrorShape::unavailable(
                "this was done already; its answer was too large to be kept. To run it again, use a new idempotencyKey",
            ))),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket<'_> {
    /// The answer is known: those who wait get it. `remember` it unless nothing has happened.
    pub fn finish(mut self, answer: Answer, remember: bool) -> Answer {
        let Some(key) = self.key.take() else { return answer };
        let mut table = self.answers.lock();
        let waiting = match table.entries.get_mut(&key) {
            Some(Entry { state: State::Running(waiting), .. }) => std::mem::take(waiting),
            _ => Vec::new(),
        };
        if remember {
            table.remember(key, &answer);
        } else {
            table.entries.remove(&key);
        }
        drop(table);
        for sender in waiting {
            // Whoever hung up meanwhile does not want it.
            let _ = sender.send(answer.clone());
        }
        answer
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.answers.lock().entries.remove(&key);
        }
    }
}

impl Table {
    fn remember(&mut self, key: Key, answer: &Answer) {
        let size = answer.as_ref().map_or(256, bytes::Bytes::len);
        let kept = (size <= MAX_ANSWER_BYTES).then(|| answer.clone());
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.bytes = key.text.len() + kept.as_ref().map_or(0, |_| size);
        entry.state = State::Done(kept);
        self.bytes += entry.bytes;
        self.done.push_back((Instant::now(), key));
        while self.done.len() > MAX_REMEMBERED || self.bytes > MAX_BYTES {
            self.forget_oldest();
        }
    }

    fn expire(&mut self, now: Instant) {
        while self.done.front().is_some_and(|(at, _)| now.duration_since(*at) >= TTL) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((_, key)) = self.done.pop_front() else { return };
        if let Some(entry) = self.entries.remove(&key) {
            self.bytes -= entry.bytes;
        }
    }
}
