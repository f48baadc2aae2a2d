//! The decisions of a session, without sockets and without a clock of its own: what happened and when comes in, what to do
//! comes out.
//!
//! ```text
//!            won                       silent 2 s, or moved and no echo
//!   Away ──────────> Up (path n) ─────────────────────────────────────> Doubted (link kept, all paths race)
//!    ^ ^              │ │  ^──────────── heard again ────────────────────┘ │              │
//!    │ │              │ └─ every 15 s with n > 0: the better paths race    │ silent 6 s   │ won
//!    │ └─── ended ────┘    won: Up on the better one                       │ or ended     ▼
//!    └─────────────────────────────────────────────────────────────────────┘         Up (path m)
//!   Away: all paths race at once, then after 0.25 s doubling to 30 s; at once when the network moved. A failure that only a
//!   person can settle ends the session.
//! ```

use std::time::Duration;

use tokio::time::Instant;

use crate::tunnel::backoff::Backoff;

/// The link is asked for a sign of life this often.
const BEAT: Duration = Duration::from_secs(1);
/// How often a doubted link is looked at.
const CLOSE_LOOK: Duration = Duration::from_millis(250);
/// Nothing heard for so long makes a link doubtful: replacements race while it is kept.
const SUSPECT: Duration = Duration::from_secs(2);
/// Nothing heard for so long is the end of a link.
const DEAD: Duration = Duration::from_secs(6);
/// After the network moved, a link that works echoes within this; it is not given up, others merely race it.
const ECHO: Duration = Duration::from_millis(500);
/// How often better paths are tried while a worse one works, and the longest wait when they turn out not to hold.
const UPGRADE: Duration = Duration::from_secs(15);
const LONGEST_UPGRADE: Duration = Duration::from_secs(600);
/// A better path that is lost again within this time was none.
const FLAP: Duration = Duration::from_secs(60);
/// Until a network that moved has settled.
const SETTLE: Duration = Duration::from_secs(1);
/// Longest wait between attempts while away.
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// What the session's task has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Do {
    /// Ask the link for a sign of life.
    Ping,
    /// Race all paths.
    RaceAll,
    /// Race the paths better than this one.
    RaceBetter(usize),
    /// Forget the race that runs.
    StopRace,
    /// Give the link up: it has been silent too long.
    Drop,
    /// End the session with the race's failure.
    GiveUp,
}

/// What a new link replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaces {
    Nothing,
    /// A link that answers no more: what it still owes is asked again elsewhere.
    Doubted,
    /// A link that works: what it still owes may come.
    Working,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Race {
    All,
    Better,
}

#[derive(Debug)]
struct Up {
    path: usize,
    since: Instant,
    heard: Instant,
    /// Since when replacements are wanted.
    doubted: Option<Instant>,
    /// The network moved then, and nothing was heard since.
    moved: Option<Instant>,
    /// Came as the better path.
    upgrade: bool,
}

/// See the picture above.
#[derive(Debug)]
pub struct Machine {
    up: Option<Up>,
    race: Option<Race>,
    /// When a race begins that is wanted and not under way.
    retry: Option<Instant>,
    look: Instant,
    beat: Instant,
    upgrade: Instant,
    upgrade_wait: Duration,
    backoff: Backoff,
}

impl Machine {
    /// A session that begins on a link over path `path`.
    pub fn new(path: usize, now: Instant, seed: u64) -> Self {
        let mut machine = Self {
            up: None,
            race: None,
            retry: None,
            look: now,
            beat: now,
            upgrade: now,
            upgrade_wait: UPGRADE,
            backoff: Backoff::new(LONGEST_RETRY, seed),
        };
        machine.take(path, false, now);
        machine
    }

    /// When [`Self::tick`] wants to be called.
    pub fn deadline(&self) -> Option<Instant> {
        let link = self.up.as_ref().map(|_| self.look);
        let upgrade = self.up.as_ref().filter(|up| up.path > 0 && self.race.is_none()).map(|_| self.upgrade);
        [link, upgrade, self.retry].into_iter().flatten().min()
    }

    /// True while a link is there that nobody doubts.
    #[cfg(test)]
    fn is_well(&self) -> bool {
        self.up.as_ref().is_some_and(|up| up.doubted.is_none() && up.moved.is_none())
    }

    /// Time passed; `heard` is when the link last brought a byte.
    pub fn tick(&mut self, now: Instant, heard: Option<Instant>) -> Vec<Do> {
        let mut todo = Vec::new();
        if self.up.is_some() && now >= self.look {
            self.look_at_link(now, heard, &mut todo);
        }
        if self.retry.is_some_and(|at| now >= at) {
            self.retry = None;
            if self.up.as_ref().is_none_or(|up| up.doubted.is_some()) {
                self.race_all(&mut todo);
            }
        }
        if let Some(up) = &self.up
            && up.path > 0
            && self.race.is_none()
            && up.doubted.is_none()
            && up.moved.is_none()
            && now >= self.upgrade
        {
            todo.push(Do::RaceBetter(up.path));
            self.race = Some(Race::Better);
            self.upgrade = now + self.upgrade_wait;
        }
        todo
    }

    fn look_at_link(&mut self, now: Instant, heard: Option<Instant>, todo: &mut Vec<Do>) {
        let Some(up) = &mut self.up else { return };
        if let Some(heard) = heard.filter(|heard| *heard > up.heard) {
            up.heard = heard;
        }
        let silence = now.saturating_duration_since(up.heard);
        if up.moved.is_some_and(|moved| up.heard > moved) {
            up.moved = None;
        }
        let echo_missing = up.moved.is_some_and(|moved| now >= moved + ECHO);
        if silence >= DEAD {
            todo.push(Do::Drop);
            self.link_lost(now);
            self.race_all(todo);
            return;
        }
        if silence >= SUSPECT || echo_missing {
            if up.doubted.is_none() {
                up.doubted = Some(now);
                self.race_all(todo);
            }
        } else if up.moved.is_none() && up.doubted.take().is_some() {
            // It was only slow.
            self.retry = None;
            if self.race.take().is_some() {
                todo.push(Do::StopRace);
            }
        }
        if now >= self.beat {
            todo.push(Do::Ping);
            self.beat = now + BEAT;
        }
        let close = self.up.as_ref().is_some_and(|up| up.doubted.is_some() || up.moved.is_some());
        // Between two beats one look suffices: silence is measured from the byte, not from the look.
        self.look = now + if close { CLOSE_LOOK } else { BEAT / 2 };
    }

    /// The network changed, or the machine woke up.
    pub fn moved(&mut self, now: Instant) -> Vec<Do> {
        let mut todo = Vec::new();
        self.backoff.reset();
        // The first of a series waits for nothing, and it is about to start.
        let _ = self.backoff.next();
        match &mut self.up {
            Some(up) => {
                up.moved = Some(now);
                todo.push(Do::Ping);
                (self.beat, self.look) = (now + BEAT, now + CLOSE_LOOK);
                if self.race == Some(Race::Better) {
                    self.race = None;
                    todo.push(Do::StopRace);
                }
                self.upgrade_wait = UPGRADE;
                self.upgrade = self.upgrade.min(now + SETTLE);
            }
            None => {
                // What runs may hang on a network that is gone.
                if self.race.take().is_some() {
                    todo.push(Do::StopRace);
                }
                self.retry = None;
                self.race_all(&mut todo);
            }
        }
        todo
    }

    /// The link ended by itself.
    pub fn ended(&mut self, now: Instant) -> Vec<Do> {
        let mut todo = Vec::new();
        if self.up.is_some() {
            self.link_lost(now);
            self.race_all(&mut todo);
        }
        todo
    }

    /// A race ended with a link over path `path`.
    pub fn won(&mut self, path: usize, now: Instant) -> Replaces {
        let better = self.race.take() == Some(Race::Better);
        let replaces = match &self.up {
            None => Replaces::Nothing,
            Some(up) if better && up.doubted.is_none() => Replaces::Working,
            Some(_) => Replaces::Doubted,
        };
        self.take(path, better, now);
        replaces
    }

    /// No path of a race worked; `settled_by_person` when trying again changes nothing.
    pub fn lost(&mut self, settled_by_person: bool, now: Instant) -> Vec<Do> {
        let better = self.race.take() == Some(Race::Better);
        match &self.up {
            Some(_) if better => self.upgrade = now + self.upgrade_wait,
            // The link in doubt may still come back, whatever the others say.
            Some(_) => self.retry = Some(now + BEAT),
            None if settled_by_person => return vec![Do::GiveUp],
            None => self.retry = Some(now + self.backoff.next()),
        }
        Vec::new()
    }

    fn take(&mut self, path: usize, upgrade: bool, now: Instant) {
        self.up = Some(Up { path, since: now, heard: now, doubted: None, moved: None, upgrade });
        self.retry = None;
        (self.look, self.beat) = (now + BEAT / 2, now + BEAT);
        self.upgrade = now + self.upgrade_wait;
        self.backoff.reset();
    }

    fn link_lost(&mut self, now: Instant) {
        if let Some(up) = self.up.take() {
            let held = now.saturating_duration_since(up.since);
            if up.upgrade && held < FLAP {
                self.upgrade_wait = (self.upgrade_wait * 2).min(LONGEST_UPGRADE);
            } else if held >= LONGEST_UPGRADE {
                self.upgrade_wait = UPGRADE;
            }
        }
        self.backoff.reset();
        let _ = self.backoff.next();
    }

    /// Begins a race of all paths, unless one runs.
    fn race_all(&mut self, todo: &mut Vec<Do>) {
        match self.race {
            Some(Race::All) => {}
            running => {
                if running.is_some() {
                    todo.push(Do::StopRace);
                }
                self.race = Some(Race::All);
                self.retry = None;
                todo.push(Do::RaceAll);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine on path `path` and the paused clock it lives by.
    struct Play {
        machine: Machine,
        start: Instant,
        heard: Instant,
    }

    impl Play {
        fn on(path: usize) -> Self {
            let start = Instant::now();
            Self { machine: Machine::new(path, start, 7), start, heard: start }
        }

        fn at(&self) -> u128 {
            (Instant::now() - self.start).as_millis()
        }

        /// Lets time pass up to `ms` after the start; the link echoes each ping at once when `echo`. Gives what was to be
        /// done besides pings, and when.
        async fn until(&mut self, ms: u64, echo: bool) -> Vec<(u128, Do)> {
            let end = self.start + Duration::from_millis(ms);
            let mut done = Vec::new();
            while let Some(at) = self.machine.deadline().filter(|at| *at <= end) {
                tokio::time::sleep_until(at).await;
                for what in self.machine.tick(Instant::now(), Some(self.heard)) {
                    match what {
                        Do::Ping if echo => self.heard = Instant::now(),
                        Do::Ping => {}
                        what => done.push((self.at(), what)),
                    }
                }
            }
            tokio::time::sleep_until(end).await;
            done
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_that_echoes_is_left_alone() {
        let mut play = Play::on(0);
        assert_eq!(play.until(600_000, true).await, []);
        assert!(play.machine.is_well());
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_doubted_after_two_seconds_and_ended_after_six() {
        let mut play = Play::on(0);
        assert_eq!(play.until(10_000, true).await, []);
        let done = play.until(20_000, false).await;
        let [(doubted, Do::RaceAll), (dead, Do::Drop)] = done[..] else { panic!("{done:?}") };
        // The last echo came at most one beat before the silence began.
        assert!((11_000..=12_500).contains(&doubted), "{doubted}");
        assert!((15_000..=16_250).contains(&dead), "{dead}");
        assert_eq!(play.machine.lost(false, Instant::now()), [], "the race goes on while away");
    }

    #[tokio::test(start_paused = true)]
    async fn a_replacement_found_in_time_costs_two_seconds() {
        let mut play = Play::on(0);
        play.until(10_000, true).await;
        let done = play.until(12_500, false).await;
        assert!(matches!(done[..], [(_, Do::RaceAll)]), "{done:?}");
        assert_eq!(play.machine.won(1, Instant::now()), Replaces::Doubted);
        play.heard = Instant::now();
        assert!(play.machine.is_well());
        // On the worse path the better one is tried again and again.
        let done = play.until(60_000, true).await;
        assert_eq!(done.first().map(|(_, what)| *what), Some(Do::RaceBetter(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_that_was_only_slow_is_kept() {
        let mut play = Play::on(0);
        play.until(10_000, true).await;
        assert_eq!(play.until(13_000, false).await.len(), 1);
        play.heard = Instant::now();
        let done = play.until(20_000, true).await;
        assert!(matches!(done[..], [(_, Do::StopRace)]), "{done:?}");
        assert!(play.machine.is_well());
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_is_answered_at_once_and_then_ever_more_slowly() {
        let mut play = Play::on(0);
        assert_eq!(play.machine.ended(Instant::now()), [Do::RaceAll]);
        let mut waits = Vec::new();
        for _ in 0..10 {
            assert_eq!(play.machine.lost(false, Instant::now()), []);
            let before = play.at();
            let wait = play.machine.deadline().expect("another attempt") - Instant::now();
            let done = play.until(u64::try_from(before).expect("small") + 31_000, false).await;
            assert!(matches!(done[..], [(_, Do::RaceAll)]), "{done:?}");
            waits.push(wait.as_millis());
        }
        for (wait, full) in waits.iter().zip([250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]) {
            assert!((full * 3 / 4..=full).contains(wait), "{waits:?}");
        }
        assert_eq!(play.machine.won(0, Instant::now()), Replaces::Nothing);
    }

    #[tokio::test(start_paused = true)]
    async fn a_move_starts_again_at_once() {
        let mut play = Play::on(0);
        play.machine.ended(Instant::now());
        play.machine.lost(false, Instant::now());
        assert_eq!(play.machine.moved(Instant::now()), [Do::RaceAll]);
        // A race that hangs on the old network is not waited for.
        assert_eq!(play.machine.moved(Instant::now()), [Do::StopRace, Do::RaceAll]);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_move_a_link_has_half_a_second_to_echo() {
        let mut play = Play::on(1);
        play.until(5_000, true).await;
        assert_eq!(play.machine.moved(Instant::now()), [Do::Ping]);
        play.heard = Instant::now() + Duration::from_millis(20);
        // It echoed: the better path is looked at once the network has settled.
        let done = play.until(7_000, true).await;
        assert!(matches!(done[..], [(6_000, Do::RaceBetter(1))]), "{done:?}");
        play.machine.lost(false, Instant::now());
        play.machine.moved(Instant::now());
        let done = play.until(8_000, false).await;
        assert!(matches!(done[..], [(7_500, Do::RaceAll)]), "{done:?}");
        // A worse path won: a working link would have echoed first.
        assert_eq!(play.machine.won(1, Instant::now()), Replaces::Doubted);
    }

    #[tokio::test(start_paused = true)]
    async fn a_better_path_takes_over_and_what_flaps_is_tried_less() {
        let mut play = Play::on(2);
        let mut gaps = Vec::new();
        for _ in 0..4 {
            let before = play.at();
            let from = u64::try_from(before).expect("small");
            let done = play.until(from + 130_000, true).await;
            let (at, Do::RaceBetter(2)) = done[0] else { panic!("{done:?}") };
            gaps.push(at - before);
            assert_eq!(play.machine.won(0, Instant::now()), Replaces::Working);
            play.until(from + 140_000, true).await;
            assert_eq!(play.machine.ended(Instant::now()), [Do::RaceAll]);
            play.machine.won(2, Instant::now());
            play.heard = Instant::now();
        }
        assert_eq!(gaps, [15_000, 30_000, 60_000, 120_000]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_only_a_person_can_settle_ends_the_session() {
        let mut play = Play::on(0);
        play.until(10_000, true).await;
        play.until(12_500, false).await;
        assert_eq!(play.machine.lost(true, Instant::now()), [], "the link in doubt may come back");
        play.until(17_000, false).await;
        assert_eq!(play.machine.lost(true, Instant::now()), [Do::GiveUp]);
    }

    #[tokio::test(start_paused = true)]
    async fn losing_the_link_turns_a_race_for_better_into_one_for_any() {
        let mut play = Play::on(1);
        let done = play.until(16_000, true).await;
        assert!(matches!(done[..], [(_, Do::RaceBetter(1))]), "{done:?}");
        assert_eq!(play.machine.ended(Instant::now()), [Do::StopRace, Do::RaceAll]);
    }
}
