//! Recent events, so that a client whose connection broke hears what it missed (`events.resume`).
//!
//! In protocol 4 each connection counts its own events, and nobody keeps what number which event had where. It can be worked
//! out: a connection hears the events of its gates, in the order in which they were broadcast, so an event's number on it is
//! how many events its gates had since it joined, plus how many were addressed to it. The hub keeps those counts, takes the
//! lock of this history for every broadcast, and a walk from the newest event backwards gives each its number.
//!
//! Events addressed to some connections only (approvals) are known for those. Whether a client would have been among them
//! while it was away nobody can tell, so then the answer is that something may be missing.

use std::collections::VecDeque;

use openclaw_protocol::{
    DeviceId, Protocol, Role, Scope, ScopeSet,
    event::Gate,
    frame::{EventHead, StateVersion, event_tail},
    hello::AuthMethod,
};

/// Events that are kept, and their bytes: 256 KiB.
const MAX_EVENTS: usize = 1024;
const MAX_BYTES: usize = 256 * 1024;
/// Bookkeeping charged per event.
const EVENT_OVERHEAD: usize = 128;
/// Connections that ended and may still be asked about.
const MAX_PARTED: usize = 512;

/// Who may hear what: all that a gate looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ears {
    pub role: Role,
    pub scopes: ScopeSet,
}

impl Ears {
    pub fn hear(self, gate: Gate) -> bool {
        match (gate, self.role) {
            (Gate::Everyone, _) => true,
            (Gate::Operators(scope), Role::Operator) => self.scopes.grants(scope),
            (Gate::Operators(_), Role::Node) => false,
        }
    }
}

/// Whose connection it was. Only the same caller may ask about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub device: Option<DeviceId>,
    /// How it authenticated, which counts where there is no device.
    pub method: AuthMethod,
    pub role: Role,
}

impl Caller {
    fn is(&self, other: &Self) -> bool {
        let same = match (&self.device, &other.device) {
            (Some(one), Some(two)) => one == two,
            (None, None) => self.method == other.method,
            _ => false,
        };
        same && self.role == other.role
    }
}

/// Where a connection joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Joined {
    /// Gateway-wide number of the last event before it.
    seq: u64,
    /// Events of its gates before it.
    heard: u64,
}

/// What is known of a connection, living or not.
#[derive(Clone, Debug)]
pub struct Trace {
    pub number: u64,
    pub caller: Caller,
    pub ears: Ears,
    pub protocol: Protocol,
    pub joined: Joined,
    /// Events that were addressed to it and not to a gate.
    pub addressed: u64,
}

#[derive(Clone, Debug)]
struct Kept {
    seq: u64,
    gate: Gate,
    /// The connections it was addressed to; `None` is everybody the gate lets through.
    only: Option<Box<[u64]>>,
    /// By protocol version, 3 then 4.
    heads: [EventHead; 2],
    version: Option<StateVersion>,
}

impl Kept {
    fn cost(&self) -> usize {
        let [v3, v4] = &self.heads;
        let bytes = v4.bytes().len() + if v3.bytes().as_ptr() == v4.bytes().as_ptr() { 0 } else { v3.bytes().len() };
        bytes + EVENT_OVERHEAD + self.only.as_ref().map_or(0, |only| only.len() * size_of::<u64>())
    }
}

/// A connection that ended, by its id.
#[derive(Clone, Debug)]
struct Parted {
    conn_id: String,
    trace: Trace,
    /// Gateway-wide number of the last event before it ended.
    until: u64,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub struct History {
    seq: u64,
    /// Events so far for everyone, then by scope.
    counts: [u64; 1 + Scope::ALL.len()],
    recent: VecDeque<Kept>,
    bytes: usize,
    parted: VecDeque<Parted>,
}

/// Why nothing certain can be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incomplete;

impl History {
    /// Numbers an event for everybody its gate lets through, and keeps it.
    pub fn broadcast(&mut self, gate: Gate, head: &EventHead, version: Option<StateVersion>) -> u64 {
        if let Some(count) = self.counts.get_mut(gate_index(gate)) {
            *count += 1;
        }
        self.keep(gate, None, [head.clone(), head.clone()], version)
    }

    /// Numbers an event for these connections and no others, and keeps it. `heads` are for protocol 3 and 4.
    pub fn address(&mut self, gate: Gate, to: impl IntoIterator<Item = u64>, heads: [EventHead; 2]) -> u64 {
        self.keep(gate, Some(to.into_iter().collect()), heads, None)
    }

    fn keep(
        &mut self,
        gate: Gate,
        only: Option<Box<[u64]>>,
        heads: [EventHead; 2],
        version: Option<StateVersion>,
    ) -> u64 {
        self.seq += 1;
        let kept = Kept { seq: self.seq, gate, only, heads, version };
        self.bytes += kept.cost();
        self.recent.push_back(kept);
        while self.recent.len() > MAX_EVENTS || self.bytes > MAX_BYTES {
            let Some(oldest) = self.recent.pop_front() else { break };
            self.bytes -= oldest.cost();
        }
        self.seq
    }

    /// Where a connection that joins now starts.
    pub fn join(&self, ears: Ears) -> Joined {
        Joined { seq: self.seq, heard: self.heard(ears) }
    }

    /// Remembers a connection that ended.
    pub fn part(&mut self, conn_id: String, trace: Trace) {
        if self.parted.len() == MAX_PARTED {
            self.parted.pop_front();
        }
        self.parted.push_back(Parted { conn_id, trace, until: self.seq });
    }

    /// What `asker` missed of the connection `conn_id` after the event it saw last: event frames as JSON, oldest first.
    /// `living` is that connection, if it has not ended.
    ///
    /// # Errors
    /// [`Incomplete`] when the connection is not known or not the asker's, or when something may be missing.
    pub fn missed(
        &self,
        asker: &Trace,
        conn_id: &str,
        living: Option<Trace>,
        last_seen: u64,
    ) -> Result<Vec<Vec<u8>>, Incomplete> {
        let (old, until) = match living {
            Some(trace) => (trace, self.seq),
            None => {
                let parted = self.parted.iter().rev().find(|parted| parted.conn_id == conn_id).ok_or(Incomplete)?;
                (parted.trace.clone(), parted.until)
            }
        };
        if !old.caller.is(&asker.caller) {
            return Err(Incomplete);
        }
        // Events from here on the asker hears by itself; on its own connection none are left out.
        let end = if asker.number == old.number { u64::MAX } else { asker.joined.seq };
        let v3 = old.protocol == Protocol::V3;
        let mut number = match v3 {
            true => self.seq,
            false => (self.heard(old.ears) - old.joined.heard) + old.addressed,
        };
        if last_seen > number {
            return Err(Incomplete);
        }
        let mut missed = Vec::new();
        for kept in self.recent.iter().rev() {
            // All that came after the connection ended is looked at: something may have been addressed to others.
            if kept.seq <= old.joined.seq || (number <= last_seen && kept.seq <= until) {
                break;
            }
            let heard = match &kept.only {
                None => old.ears.hear(kept.gate),
                Some(only) if only.contains(&old.number) => true,
                // Addressed to others while the connection lived: not for it. Afterwards: who knows.
                Some(_) if kept.seq > until && kept.seq <= end && asker.ears.hear(kept.gate) => return Err(Incomplete),
                Some(_) => false,
            };
            if v3 {
                number = kept.seq;
            }
            if heard {
                if number > last_seen && kept.seq <= end && asker.ears.hear(kept.gate) {
                    let [v3_head, v4_head] = &kept.heads;
                    let head = if asker.protocol == Protocol::V3 { v3_head } else { v4_head };
                    missed.push([head.bytes(), event_tail(Some(number), kept.version).as_bytes()].concat());
                }
                if !v3 {
                    number = number.saturating_sub(1);
                }
            }
            if v3 {
                number = kept.seq - 1;
            }
        }
        // Older events than those that are kept would be needed.
        let reaches_back = number <= last_seen || self.oldest() <= old.joined.seq + 1;
        if !reaches_back || self.oldest() > until + 1 {
            return Err(Incomplete);
        }
        missed.reverse();
        Ok(missed)
    }

    /// Number of the oldest event that is kept, or of the next one.
    fn oldest(&self) -> u64 {
        self.recent.front().map_or(self.seq + 1, |kept| kept.seq)
    }

    fn heard(&self, ears: Ears) -> u64 {
        let operators = Scope::ALL.into_iter().map(Gate::Operators);
        let gates = std::iter::once(Gate::Everyone).chain(operators).filter(|gate| ears.hear(*gate));
        gates.filter_map(|gate| self.counts.get(gate_index(gate))).sum()
    }
}

const fn gate_index(gate: Gate) -> usize {
    match gate {
        Gate::Everyone => 0,
        Gate::Operators(scope) => 1 + scope as usize,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use openclaw_protocol::DeviceKey;

    use super::*;

    const READ: Gate = Gate::Operators(Scope::Read);
    const PAIRING: Gate = Gate::Operators(Scope::Pairing);

    fn ears(names: &[&str]) -> Ears {
        let names: Vec<String> = names.iter().map(|name| format!("operator.{name}")).collect();
        Ears { role: Role::Operator, scopes: ScopeSet::parse(&names) }
    }

    fn device(seed: u8) -> Caller {
        let device = Some(DeviceKey::from_seed(&[seed; 32]).id());
        Caller { device, method: AuthMethod::DeviceToken, role: Role::Operator }
    }

    /// Connections that count for themselves, as [`crate::connection::outbound`] does.
    struct World {
        history: History,
        live: HashMap<u64, (Trace, Vec<(u64, String)>)>,
        made: u64,
    }

    impl World {
        fn new() -> Self {
            Self { history: History::default(), live: HashMap::new(), made: 0 }
        }

        fn join(&mut self, caller: Caller, ears: Ears, protocol: Protocol) -> u64 {
            self.made += 1;
            let joined = self.history.join(ears);
            let trace = Trace { number: self.made, caller, ears, protocol, joined, addressed: 0 };
            self.live.insert(self.made, (trace, Vec::new()));
            self.made
        }

        fn hear(trace: &Trace, seen: &mut Vec<(u64, String)>, seq: u64, name: &str) {
            let number = if trace.protocol == Protocol::V3 { seq } else { seen.len() as u64 + 1 };
            seen.push((number, name.to_owned()));
        }

        fn say(&mut self, gate: Gate, name: &str) {
            let seq = self.history.broadcast(gate, &EventHead::new(name, b"{}"), None);
            for (trace, seen) in self.live.values_mut().filter(|(trace, _)| trace.ears.hear(gate)) {
                Self::hear(trace, seen, seq, name);
            }
        }

        fn say_to(&mut self, gate: Gate, name: &str, to: &[u64]) {
            let head = EventHead::new(name, b"{}");
            let seq = self.history.address(gate, to.iter().copied(), [head.clone(), head]);
            for number in to {
                let (trace, seen) = self.live.get_mut(number).expect("live");
                trace.addressed += 1;
                Self::hear(trace, seen, seq, name);
            }
        }

        fn part(&mut self, number: u64) -> Vec<(u64, String)> {
            let (trace, seen) = self.live.remove(&number).expect("live");
            self.history.part(format!("c{number}"), trace);
            seen
        }

        fn resume(&self, asker: u64, old: u64, last_seen: u64) -> Result<Vec<(u64, String)>, Incomplete> {
            let living = self.live.get(&old).map(|(trace, _)| trace.clone());
            let missed = self.history.missed(&self.live[&asker].0, &format!("c{old}"), living, last_seen)?;
            let read = |frame: Vec<u8>| {
                let frame: serde_json::Value = serde_json::from_slice(&frame).expect("JSON");
                (frame["seq"].as_u64().expect("seq"), frame["event"].as_str().expect("event").to_owned())
            };
            Ok(missed.into_iter().map(read).collect())
        }
    }

    #[test]
    fn what_came_after_the_last_one_seen_and_before_the_new_connection() {
        for protocol in [Protocol::V3, Protocol::V4] {
            let mut world = World::new();
            world.say(READ, "before");
            let reader = ears(&["read"]);
            let old = world.join(device(1), reader, protocol);
            for name in ["a", "b", "c"] {
                world.say(READ, name);
                world.say(PAIRING, "not for a reader");
            }
            let seen = world.part(old);
            world.say(Gate::Everyone, "while away");
            let new = world.join(device(1), reader, protocol);
            world.say(READ, "heard by itself");
            let names = |last_seen| {
                let missed = world.resume(new, old, last_seen).expect("complete");
                missed.into_iter().map(|(_, name)| name).collect::<Vec<_>>()
            };
            assert_eq!(names(seen[0].0), ["b", "c", "while away"], "{protocol:?}");
            assert_eq!(names(seen[2].0), ["while away"]);
            assert_eq!(names(0).len(), 4);
            let (last, _) = world.resume(new, old, seen[2].0).expect("complete")[0];
            assert!(names(last).is_empty(), "{protocol:?}: nothing is left after it");
            assert_eq!(world.resume(new, old, last + 100), Err(Incomplete), "it cannot have seen that");
        }
    }

    #[test]
    fn rights_of_the_new_connection_count() {
        let mut world = World::new();
        let old = world.join(device(1), ears(&["read", "pairing"]), Protocol::V4);
        world.part(old);
        for (gate, name) in [(READ, "r1"), (PAIRING, "p1"), (READ, "r2")] {
            world.say(gate, name);
        }
        let fewer = world.join(device(1), ears(&["read"]), Protocol::V4);
        let missed = world.resume(fewer, old, 0).expect("complete");
        assert_eq!(missed, [(1, "r1".to_owned()), (3, "r2".to_owned())], "with the numbers they would have had");
        let more = world.join(device(1), ears(&["admin"]), Protocol::V4);
        assert_eq!(world.resume(more, old, 0).expect("complete").len(), 3);
    }

    #[test]
    fn only_the_same_caller() {
        let secret = |method| Caller { device: None, method, role: Role::Operator };
        let node = Caller { role: Role::Node, ..device(1) };
        let token = secret(AuthMethod::Token);
        for (whose, who, may) in [
            (device(1), device(1), true),
            (device(1), device(2), false),
            (device(1), node, false),
            (device(1), token.clone(), false),
            (token.clone(), token.clone(), true),
            (token.clone(), secret(AuthMethod::Owner), false),
            (token, device(1), false),
        ] {
            let mut world = World::new();
            let old = world.join(whose.clone(), ears(&["read"]), Protocol::V4);
            world.part(old);
            let new = world.join(who.clone(), ears(&["read"]), Protocol::V4);
            assert_eq!(world.resume(new, old, 0).is_ok(), may, "{whose:?} {who:?}");
        }
        let mut world = World::new();
        let new = world.join(device(1), ears(&["read"]), Protocol::V4);
        assert_eq!(world.resume(new, 77, 0), Err(Incomplete), "nobody knows that one");
    }

    #[test]
    fn a_connection_that_still_hangs_and_a_gap_in_ones_own() {
        let mut world = World::new();
        let reader = ears(&["read"]);
        let old = world.join(device(1), reader, Protocol::V4);
        world.say(READ, "a");
        world.say(READ, "b");
        let new = world.join(device(1), reader, Protocol::V4);
        world.say(READ, "c");
        assert_eq!(world.resume(new, old, 1), Ok(vec![(2, "b".to_owned())]));
        assert_eq!(world.resume(old, old, 1), Ok(vec![(2, "b".to_owned()), (3, "c".to_owned())]));
    }

    #[test]
    fn what_is_no_longer_kept_is_not_made_up() {
        let mut world = World::new();
        let reader = ears(&["read"]);
        let old = world.join(device(1), reader, Protocol::V4);
        for n in 0..MAX_EVENTS + 10 {
            world.say(READ, &format!("e{n}"));
        }
        world.part(old);
        let new = world.join(device(1), reader, Protocol::V4);
        assert_eq!(world.resume(new, old, 9), Err(Incomplete));
        assert_eq!(world.resume(new, old, 10).expect("just enough").len(), MAX_EVENTS);
        let young = world.join(device(1), reader, Protocol::V4);
        world.part(young);
        assert_eq!(world.resume(new, young, 0), Ok(Vec::new()), "it joined after what is gone");

        // One huge event pushes out everything, itself included.
        let payload = format!("\"{}\"", "x".repeat(MAX_BYTES));
        world.history.broadcast(READ, &EventHead::new("huge", payload.as_bytes()), None);
        assert!(world.history.recent.is_empty() && world.history.bytes == 0);
        assert_eq!(world.resume(new, young, 0), Err(Incomplete));
        for n in 0..2 * MAX_PARTED as u64 {
            let trace = Trace { number: n, ..world.live[&new].0.clone() };
            world.history.part(n.to_string(), trace);
        }
        assert_eq!(world.history.parted.len(), MAX_PARTED);
    }

    #[test]
    fn events_addressed_to_some() {
        let approvals = Gate::Operators(Scope::Approvals);
        let mut world = World::new();
        let both = ears(&["read", "approvals"]);
        let old = world.join(device(1), both, Protocol::V4);
        let other = world.join(device(2), both, Protocol::V4);
        world.say(READ, "a");
        world.say_to(approvals, "mine", &[old]);
        world.say_to(approvals, "theirs", &[other]);
        world.say(READ, "b");
        let seen = world.part(old);
        assert_eq!(seen.last(), Some(&(3, "b".to_owned())));
        world.say(READ, "c");
        let new = world.join(device(1), both, Protocol::V4);
        let missed = world.resume(new, old, 1).expect("complete");
        assert_eq!(missed, [(2, "mine".to_owned()), (3, "b".to_owned()), (4, "c".to_owned())]);
        // Addressed while it was away: would it have been meant?
        world.part(new);
        world.say_to(approvals, "somebody's", &[other]);
        let third = world.join(device(1), both, Protocol::V4);
        assert_eq!(world.resume(third, new, 0), Err(Incomplete));
        let reader = world.join(device(1), ears(&["read"]), Protocol::V4);
        assert_eq!(world.resume(reader, new, 0), Ok(Vec::new()), "it could not have been");
    }

    /// Whatever happens in whatever order: seen, then missed, then heard is everything once.
    #[test]
    fn nothing_twice_and_nothing_lost() {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        for round in 0..200 {
            let protocol = if random(2) == 0 { Protocol::V3 } else { Protocol::V4 };
            let wide = ears(&["read", "pairing"]);
            let mut world = World::new();
            let witness = world.join(device(9), wide, protocol);
            let mut current = world.join(device(1), wide, protocol);
            let mut heard: Vec<String> = Vec::new();
            for step in 0..60 {
                match random(6) {
                    0 => {
                        let seen = world.part(current);
                        // Some of what was sent did not arrive any more.
                        let arrived = random(seen.len() as u64 + 1) as usize;
                        heard.extend(seen[..arrived].iter().map(|(_, name)| name.clone()));
                        let last = if arrived == 0 { 0 } else { seen[arrived - 1].0 };
                        for away in 0..random(4) {
                            world.say(if random(2) == 0 { READ } else { PAIRING }, &format!("away {step} {away}"));
                        }
                        let next = world.join(device(1), wide, protocol);
                        let missed = world.resume(next, current, last).expect("complete");
                        heard.extend(missed.into_iter().map(|(_, name)| name));
                        current = next;
                    }
                    1 => world.say(Gate::Operators(Scope::Admin), "not for us"),
                    2 => world.say(Gate::Everyone, &format!("tick {step}")),
                    _ => world.say(if random(2) == 0 { READ } else { PAIRING }, &format!("event {step}")),
                }
            }
            heard.extend(world.part(current).into_iter().map(|(_, name)| name));
            let all: Vec<String> = world.part(witness).into_iter().map(|(_, name)| name).collect();
            assert_eq!(heard, all, "round {round}, {protocol:?}");
        }
    }
}
