//! When to open, keep, replace and give up an ssh: decisions without a socket or a clock.
//!
//! A **link** is one ssh. It is `Opening` until it has logged in, `Asked` until the gateway behind it has answered, and then
//! `Ready`. One ready link is current and carries new connections; a second one is kept as a spare. A link that has not
//! echoed for [`SILENT`] is kept, since it may come back and it carries connections, but it is no longer used and a
//! replacement is opened beside it; after [`DEAD`] it is ended.

use std::time::Duration;

use openclaw_protocol::GatewayId;
use tokio::time::Instant;

use super::{Failure, Role, State, backoff::Backoff};

/// No echo for this long: three beats are missing. Not used for new connections, replaced.
pub(super) const SILENT: Duration = Duration::from_secs(3);
/// No echo for this long: ended.
pub(super) const DEAD: Duration = Duration::from_secs(10);
/// After a change of the network or a wake-up an echo has to come within this time, or within four round trips.
const CHECK: Duration = Duration::from_secs(1);
/// An attempt that takes longer gets company: its first packets may have been lost.
const HEDGE: Duration = Duration::from_secs(2);
/// Attempts at the same time.
const MAX_OPENING: usize = 2;
/// Longest wait between attempts to log in.
const SSH_CEILING: Duration = Duration::from_secs(30);
/// Longest wait between two questions to a gateway behind a living ssh.
const GATEWAY_CEILING: Duration = Duration::from_secs(5);
/// Up this long, a tunnel counts as good, and the next loss is answered at once.
const STEADY: Duration = Duration::from_secs(60);
/// A spare that lived this long was a good one.
const GOOD_SPARE: Duration = Duration::from_secs(1);

/// Number of a link.
pub(super) type LinkId = u32;

/// What happened.
#[derive(Clone, Debug)]
pub(super) enum Input {
    /// ssh has logged in. Without `heartbeat` the link never counts as silent.
    Opened {
        id: LinkId,
        heartbeat: bool,
    },
    /// ssh did not come up, or the link ended.
    Ended {
        id: LinkId,
        trouble: Trouble,
    },
    Echo {
        id: LinkId,
        round_trip: Duration,
    },
    /// The far end could not pass a connection on.
    Refused {
        id: LinkId,
        trouble: Trouble,
    },
    /// What the gateway said when asked who it is.
    Answered {
        id: LinkId,
        answer: Result<Option<GatewayId>, Trouble>,
    },
    /// Addresses or routes changed, or the machine woke up.
    Moved,
    /// A person asks for it.
    Retry,
    /// The instant of [`Machine::wake`] has come.
    Tick,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Open(LinkId),
    /// Ask the gateway who it is.
    Ask(LinkId),
    Beat(LinkId),
    /// End it now, and what it carries.
    Close(LinkId),
    /// Take it out of use; it ends when it carries nothing more.
    Retire(LinkId),
}

/// A failure and whether trying again can help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub failure: Failure,
    pub fatal: bool,
}

#[derive(Clone, Debug)]
struct Link {
    id: LinkId,
    stage: Stage,
    since: Instant,
    heartbeat: bool,
    last_echo: Instant,
    round_trip: Option<Duration>,
    /// An echo is due by then.
    due: Option<Instant>,
    backoff: Backoff,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Opening,
    /// `next`: when the gateway is asked again; `None` while an answer is awaited.
    Asked {
        next: Option<Instant>,
    },
    Ready,
}

impl Link {
    fn silent_at(&self) -> Option<Instant> {
        let silent = self.last_echo + SILENT;
        self.beats().then(|| self.due.map_or(silent, |due| due.min(silent)))
    }

    fn dead_at(&self) -> Option<Instant> {
        self.beats().then(|| self.last_echo + DEAD)
    }

    fn beats(&self) -> bool {
        self.heartbeat && self.stage != Stage::Opening
    }

    fn is_silent(&self, now: Instant) -> bool {
        self.silent_at().is_some_and(|at| at <= now)
    }

    fn is_usable(&self, now: Instant) -> bool {
        self.stage == Stage::Ready && !self.is_silent(now)
    }
}

/// The state of a tunnel.
#[derive(Debug)]
pub(super) struct Machine {
    links: Vec<Link>,
    current: Option<LinkId>,
    next_id: LinkId,
    wants_spare: bool,
    /// When the next login is tried while nothing is usable.
    next_try: Instant,
    backoff: Backoff,
    /// The same for the spare.
    next_spare: Instant,
    spare_backoff: Backoff,
    /// A failure only a person can cure stopped the trying, or that of the spare.
    stopped: bool,
    spare_stopped: bool,
    up_since: Option<Instant>,
    pub attempts: u32,
    pub replaced: u32,
    pub last_failure: Option<Failure>,
    pub gateway: Option<GatewayId>,
}

impl Machine {
    pub fn new(now: Instant, wants_spare: bool, seed: u64) -> Self {
        Self {
            links: Vec::new(),
            current: None,
            next_id: 0,
            wants_spare,
            next_try: now,
            backoff: Backoff::new(SSH_CEILING, seed),
            next_spare: now,
            spare_backoff: Backoff::new(SSH_CEILING, seed.rotate_left(17)),
            stopped: false,
            spare_stopped: false,
            up_since: None,
            attempts: 0,
            replaced: 0,
            last_failure: None,
            gateway: None,
        }
    }

    /// The link for new connections, when there is a usable one.
    pub fn current(&self, now: Instant) -> Option<LinkId> {
        self.current.filter(|id| self.link(*id).is_some_and(|link| link.is_usable(now)))
    }

    pub fn state(&self, now: Instant) -> State {
        let trying = self
            .links
            .iter()
            .any(|link| matches!(link.stage, Stage::Opening | Stage::Asked { next: None }) && !link.is_silent(now));
        match self.current(now) {
            Some(_) => State::Up,
            None if self.stopped => State::Failed,
            None if trying => State::Connecting,
            None => State::Waiting,
        }
    }

    /// When the next attempt is due, while waiting.
    pub fn next_attempt(&self, now: Instant) -> Option<Instant> {
        if self.state(now) != State::Waiting {
            return None;
        }
        let asks = self.links.iter().filter_map(|link| match link.stage {
            Stage::Asked { next } => next,
            _ => None,
        });
        asks.min().or(Some(self.next_try))
    }

    /// Every link and what it is for.
    pub fn roles(&self, now: Instant) -> impl Iterator<Item = (LinkId, Role)> {
        self.links.iter().map(move |link| {
            let role = match link.stage {
                _ if link.is_silent(now) => Role::Silent,
                Stage::Ready if self.current == Some(link.id) => Role::Current,
                Stage::Ready => Role::Spare,
                Stage::Opening | Stage::Asked { .. } => Role::Opening,
            };
            (link.id, role)
        })
    }

    /// When [`Input::Tick`] is wanted, at the latest.
    pub fn wake(&self, now: Instant) -> Option<Instant> {
        let mut times: Vec<Instant> = Vec::new();
        for link in &self.links {
            times.extend(link.silent_at().filter(|at| *at > now));
            times.extend(link.dead_at());
            if let Stage::Asked { next: Some(next) } = link.stage {
                times.push(next);
            }
            if link.stage == Stage::Opening {
                times.push(link.since + HEDGE);
            }
        }
        if !self.stopped && self.current(now).is_none() {
            times.push(self.next_try);
        } else if self.wants_spare && !self.spare_stopped {
            times.push(self.next_spare);
        }
        // What is past and not acted upon waits for something else to happen.
        times.into_iter().filter(|at| *at > now).min()
    }

    /// Takes one input at `now` and says what to do.
    pub fn on(&mut self, now: Instant, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        match input {
            Input::Opened { id, heartbeat } => self.opened(now, id, heartbeat, &mut actions),
            Input::Ended { id, trouble } => self.ended(now, id, trouble, &mut actions),
            Input::Echo { id, round_trip } => {
                if let Some(link) = self.link_mut(id) {
                    (link.last_echo, link.due, link.round_trip) = (now, None, Some(round_trip));
                }
            }
            Input::Refused { id, trouble } => self.refused(now, id, trouble),
            Input::Answered { id, answer } => self.answered(now, id, answer, &mut actions),
            Input::Moved => self.moved(now, &mut actions),
            Input::Retry => {
                (self.stopped, self.spare_stopped) = (false, false);
                self.moved(now, &mut actions);
            }
            Input::Tick => {}
        }
        self.settle(now, &mut actions);
        actions
    }

    fn opened(&mut self, now: Instant, id: LinkId, heartbeat: bool, actions: &mut Vec<Action>) {
        let Some(link) = self.link_mut(id) else {
            // It was given up meanwhile.
            actions.push(Action::Close(id));
            return;
        };
        (link.heartbeat, link.last_echo, link.since) = (heartbeat, now, now);
        link.stage = Stage::Asked { next: None };
        actions.push(Action::Ask(id));
    }

    fn ended(&mut self, now: Instant, id: LinkId, trouble: Trouble, actions: &mut Vec<Action>) {
        let Some(index) = self.links.iter().position(|link| link.id == id) else { return };
        let link = self.links.remove(index);
        let was_current = self.current == Some(id);
        let usable = self.links.iter().any(|link| link.is_usable(now));
        if usable && !was_current {
            // The spare, or an attempt at one.
            self.spare_stopped |= trouble.fatal;
            self.plan_spare(now, link.stage == Stage::Ready && now.duration_since(link.since) >= GOOD_SPARE);
            return;
        }
        self.last_failure = Some(trouble.failure);
        if usable {
            return;
        }
        self.lost(now);
        if trouble.fatal {
            // A link that is only silent may still come back.
            self.stop(|link| link.stage == Stage::Ready, actions);
        } else if self.count(Stage::Opening) == 0 {
            self.next_try = now + self.backoff.next();
        }
    }

    /// The next spare: at once after a good one, later and later after bad ones.
    fn plan_spare(&mut self, now: Instant, good: bool) {
        if good {
            self.spare_backoff.reset();
        }
        self.next_spare = now + self.spare_backoff.next();
    }

    /// Nothing is usable any more, or still.
    fn lost(&mut self, now: Instant) {
        if self.up_since.take().is_some_and(|since| now.duration_since(since) >= STEADY) {
            self.backoff.reset();
        }
    }

    /// Only a person can help. Ends every link but those to `keep`.
    fn stop(&mut self, keep: impl Fn(&Link) -> bool, actions: &mut Vec<Action>) {
        self.stopped = true;
        self.links.retain(|link| {
            let keep = keep(link);
            if !keep {
                actions.push(Action::Close(link.id));
            }
            keep
        });
    }

    fn refused(&mut self, now: Instant, id: LinkId, trouble: Trouble) {
        let ready = self.link(id).is_some_and(|link| link.stage == Stage::Ready);
        if !ready {
            // The question to the gateway fails by the same cause and says so itself.
            return;
        }
        self.last_failure = Some(trouble.failure);
        self.lost(now);
        for link in &mut self.links {
            if link.stage == Stage::Ready {
                link.backoff.reset();
                link.stage = Stage::Asked { next: Some(now + link.backoff.next()) };
            }
        }
    }

    fn answered(
        &mut self,
        now: Instant,
        id: LinkId,
        answer: Result<Option<GatewayId>, Trouble>,
        actions: &mut Vec<Action>,
    ) {
        let usable = self.current(now).is_some();
        let Some(link) = self.link_mut(id) else { return };
        match answer {
            Ok(gateway) => {
                link.stage = Stage::Ready;
                link.backoff.reset();
                self.gateway = gateway;
            }
            Err(trouble) => {
                link.stage = Stage::Asked { next: Some(now + link.backoff.next()) };
                if trouble.fatal {
                    self.last_failure = Some(trouble.failure);
                    self.stop(|_| false, actions);
                } else if !usable || self.current == Some(id) {
                    self.last_failure = Some(trouble.failure);
                    self.lost(now);
                }
            }
        }
    }

    fn moved(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.backoff.reset();
        self.spare_backoff.reset();
        (self.next_try, self.next_spare) = (now, now);
        for link in &mut self.links {
            if link.beats() {
                let patience = link.round_trip.map_or(CHECK, |round_trip| CHECK.max(round_trip * 4));
                link.due.get_or_insert(now + patience);
                actions.push(Action::Beat(link.id));
            }
            if let Stage::Asked { next: next @ Some(_) } = &mut link.stage {
                link.backoff.reset();
                *next = Some(now);
            }
        }
        // An attempt that began before the change may wait for an answer that cannot come.
        if self.current(now).is_none() && self.count(Stage::Opening) >= MAX_OPENING {
            let oldest = self.links.iter().position(|link| link.stage == Stage::Opening);
            if let Some(oldest) = oldest {
                actions.push(Action::Close(self.links.remove(oldest).id));
            }
        }
        if self.current(now).is_none() && !self.stopped && self.count(Stage::Opening) > 0 {
            self.open(now, actions);
        }
    }

    /// What follows from the state alone.
    fn settle(&mut self, now: Instant, actions: &mut Vec<Action>) {
        // Ended for good.
        for index in (0..self.links.len()).rev() {
            if self.links[index].dead_at().is_some_and(|at| at <= now) {
                actions.push(Action::Close(self.links.remove(index).id));
            }
        }
        for link in &mut self.links {
            if let Stage::Asked { next: Some(next) } = link.stage
                && next <= now
                && !link.is_silent(now)
            {
                link.stage = Stage::Asked { next: None };
                actions.push(Action::Ask(link.id));
            }
        }
        self.choose(now);
        if self.stopped && self.current(now).is_none() {
            return;
        }
        if self.current(now).is_none() {
            self.reconnect(now, actions);
        } else {
            self.keep_spare(now, actions);
        }
    }

    /// Keeps the current link while it is usable; else takes the one heard of last.
    fn choose(&mut self, now: Instant) {
        if self.current(now).is_none() {
            let best = self.links.iter().filter(|link| link.is_usable(now)).max_by_key(|link| link.last_echo);
            let Some((id, since)) = best.map(|link| (link.id, link.since)) else { return };
            self.current = Some(id);
            self.spare_stopped = false;
            if self.up_since.is_some() {
                self.replaced = self.replaced.saturating_add(1);
                self.plan_spare(now, now.duration_since(since) >= GOOD_SPARE);
            }
        }
        self.up_since.get_or_insert(now);
        (self.stopped, self.attempts) = (false, 0);
    }

    fn reconnect(&mut self, now: Instant, actions: &mut Vec<Action>) {
        // With a living ssh it is the gateway that is waited for.
        if self.links.iter().any(|link| matches!(link.stage, Stage::Asked { .. }) && !link.is_silent(now)) {
            return;
        }
        let opening = self.links.iter().filter(|link| link.stage == Stage::Opening);
        let youngest = opening.map(|link| link.since).max();
        let due = match youngest {
            None => now >= self.next_try,
            Some(since) => now >= since + HEDGE && self.count(Stage::Opening) < MAX_OPENING,
        };
        if due {
            self.open(now, actions);
        }
    }

    fn keep_spare(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let current = self.current;
        let others = |link: &&Link| Some(link.id) != current && !link.is_silent(now);
        // More than one spare: what raced and lost. The oldest is the one that may still carry something.
        let spares: Vec<LinkId> = self.links.iter().filter(others).map(|link| link.id).collect();
        let wanted = usize::from(self.wants_spare);
        for id in spares.iter().skip(wanted) {
            self.links.retain(|link| link.id != *id);
            actions.push(Action::Retire(*id));
        }
        if spares.len() < wanted && !self.spare_stopped && now >= self.next_spare {
            self.open(now, actions);
        }
    }

    fn open(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        if self.current(now).is_none() {
            self.attempts = self.attempts.saturating_add(1);
        }
        self.links.push(Link {
            id,
            stage: Stage::Opening,
            since: now,
            heartbeat: false,
            last_echo: now,
            round_trip: None,
            due: None,
            backoff: Backoff::new(GATEWAY_CEILING, u64::from(id) << 7 | 0x5bd1),
        });
        actions.push(Action::Open(id));
    }

    fn count(&self, stage: Stage) -> usize {
        self.links.iter().filter(|link| link.stage == stage).count()
    }

    fn link(&self, id: LinkId) -> Option<&Link> {
        self.links.iter().find(|link| link.id == id)
    }

    fn link_mut(&mut self, id: LinkId) -> Option<&mut Link> {
        self.links.iter_mut().find(|link| link.id == id)
    }
}

#[cfg(test)]
mod tests;
