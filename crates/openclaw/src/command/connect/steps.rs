//! The order of the steps and the way back, without knowing what any of them does.
//!
//! ```text
//! step 1 ─> step 2 ─> … ─> step n ─> done
//!    │         │ failure or Ctrl-C
//!    └─ trace ─┴─> take back the last trace ─> … ─> the first
//! ```
//!
//! A step writes down each trace *before* it makes it ([`Journal::about_to`]), so an interruption in the middle finds
//! it. Taking back something that was not made after all is therefore part of every trace's way back. One that fails
//! does not stop the others: it is reported as left behind, with the command that removes it.

use std::{fmt::Debug, future::Future, time::Duration};

use tokio::time::{Instant, timeout};

/// How long one trace's way back may take. The longest is a login and a command on the far host.
pub const BACK_TIME: Duration = Duration::from_secs(15);

/// Traces of the steps so far, oldest first.
#[derive(Debug)]
pub struct Journal<T>(Vec<T>);

impl<T> Default for Journal<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Journal<T> {
    /// Notes a trace that is about to be made.
    pub fn about_to(&mut self, trace: T) {
        self.0.push(trace);
    }

    #[cfg(test)]
    pub fn into_traces(self) -> Vec<T> {
        self.0
    }
}

/// Work that goes in steps.
pub trait Work {
    type Step: Copy + Debug;
    /// Something a step leaves outside of this process or beyond its own end.
    type Trace: Debug;
    /// What a step tells when it passed.
    type Told;
    type Failure;

    /// Does one step. It is dropped at any point when the person interrupts.
    fn perform(
        &mut self,
        step: Self::Step,
        journal: &mut Journal<Self::Trace>,
    ) -> impl Future<Output = Result<Self::Told, Self::Failure>>;

    /// Takes a trace back, or finds that it was not made.
    ///
    /// # Errors
    /// Why it is still there.
    fn take_back(&mut self, trace: &Self::Trace) -> impl Future<Output = Result<(), String>>;

    /// Lets go of everything that ends with this process, after the way back.
    fn end(&mut self) -> impl Future<Output = ()>;
}

/// Who watches.
pub trait Watch<W: Work> {
    fn begins(&mut self, step: W::Step);
    fn passed(&mut self, step: W::Step, told: &W::Told, took: Duration);
    /// The way back begins, because of this.
    fn broke(&mut self, step: W::Step, why: &Why<W::Failure>);
}

/// Why a step did not pass.
#[derive(Debug, PartialEq, Eq)]
pub enum Why<F> {
    Failed(F),
    /// The person, or whoever ends this process, said stop: the signal's number.
    Interrupted(i32),
}

/// How the work broke, after the way back.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken<S, T, F> {
    pub step: S,
    pub why: Why<F>,
    /// Taken back, in that order.
    pub undone: Vec<T>,
    /// Still there, and why.
    pub left: Vec<(T, String)>,
}

/// Runs the steps. `interrupted` gives the next signal each time it is called.
///
/// # Errors
/// The step that did not pass, after everything before it was taken back.
pub async fn run<W: Work, I: Future<Output = i32>>(
    work: &mut W,
    steps: &[W::Step],
    watch: &mut impl Watch<W>,
    mut interrupted: impl FnMut() -> I,
) -> Result<(), Broken<W::Step, W::Trace, W::Failure>> {
    let mut journal = Journal::default();
    for &step in steps {
        watch.begins(step);
        let started = Instant::now();
        let outcome = tokio::select! {
            biased;
            signal = interrupted() => Err(Why::Interrupted(signal)),
            outcome = work.perform(step, &mut journal) => outcome.map_err(Why::Failed),
        };
        match outcome {
            Ok(told) => watch.passed(step, &told, started.elapsed()),
            Err(why) => {
                watch.broke(step, &why);
                let (undone, left) = back(work, journal, &mut interrupted).await;
                work.end().await;
                return Err(Broken { step, why, undone, left });
            }
        }
    }
    work.end().await;
    Ok(())
}

/// Takes the traces back, last one first. A second interruption gives up on the one at hand, never on the rest: what
/// is undone on this machine takes no time.
async fn back<W: Work, I: Future<Output = i32>>(
    work: &mut W,
    journal: Journal<W::Trace>,
    interrupted: &mut impl FnMut() -> I,
) -> (Vec<W::Trace>, Vec<(W::Trace, String)>) {
    let (mut undone, mut left) = (Vec::new(), Vec::new());
    for trace in journal.0.into_iter().rev() {
        let outcome = tokio::select! {
            biased;
            outcome = timeout(BACK_TIME, work.take_back(&trace)) => {
                outcome.unwrap_or_else(|_| Err(format!("it took longer than {} s", BACK_TIME.as_secs())))
            }
            _ = interrupted() => Err("interrupted again".to_owned()),
        };
        match outcome {
            Ok(()) => undone.push(trace),
            Err(reason) => left.push((trace, reason)),
        }
    }
    (undone, left)
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, collections::BTreeSet, rc::Rc};

    use super::*;

    /// Where in a step something goes wrong.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum At {
        /// Before it wrote anything down.
        Start,
        /// After it wrote a trace down, before the trace was made.
        Noted,
        /// After the trace was made.
        Made,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Kind {
        Fails,
        Interrupted,
    }

    const STEPS: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];
    /// Steps that leave something.
    const TRACES: [u8; 4] = [2, 5, 7, 8];

    /// Steps that leave numbers in `world`, one of them with a fault.
    struct Fake {
        world: BTreeSet<u8>,
        fault: Option<(u8, At, Kind)>,
        stuck: Option<u8>,
        performed: Vec<u8>,
        order: Vec<u8>,
        ended: bool,
        signal: Rc<Cell<bool>>,
    }

    impl Fake {
        fn new(fault: Option<(u8, At, Kind)>) -> Self {
            Self {
                world: BTreeSet::new(),
                fault,
                stuck: None,
                performed: Vec::new(),
                order: Vec::new(),
                ended: false,
                signal: Rc::new(Cell::new(false)),
            }
        }

        async fn maybe(&self, step: u8, at: At) -> Result<(), &'static str> {
            match self.fault {
                Some((s, a, Kind::Fails)) if (s, a) == (step, at) => Err("fault"),
                Some((s, a, Kind::Interrupted)) if (s, a) == (step, at) => {
                    self.signal.set(true);
                    std::future::pending().await
                }
                _ => Ok(()),
            }
        }
    }

    impl Work for Fake {
        type Step = u8;
        type Trace = u8;
        type Told = ();
        type Failure = &'static str;

        async fn perform(&mut self, step: u8, journal: &mut Journal<u8>) -> Result<(), &'static str> {
            self.performed.push(step);
            self.maybe(step, At::Start).await?;
            if TRACES.contains(&step) {
                journal.about_to(step);
                self.maybe(step, At::Noted).await?;
                self.world.insert(step);
            }
            self.maybe(step, At::Made).await
        }

        async fn take_back(&mut self, trace: &u8) -> Result<(), String> {
            self.order.push(*trace);
            if self.stuck == Some(*trace) {
                return Err("stuck".to_owned());
            }
            self.world.remove(trace);
            Ok(())
        }

        async fn end(&mut self) {
            assert!(!self.ended, "once");
            self.ended = true;
        }
    }

    #[derive(Default)]
    struct Seen {
        begun: Vec<u8>,
        passed: Vec<u8>,
        broke: Vec<u8>,
    }

    impl Watch<Fake> for Seen {
        fn begins(&mut self, step: u8) {
            self.begun.push(step);
        }
        fn passed(&mut self, step: u8, (): &(), _: Duration) {
            self.passed.push(step);
        }
        fn broke(&mut self, step: u8, _: &Why<&'static str>) {
            self.broke.push(step);
        }
    }

    /// Ends when the fake says so, once.
    async fn interruption(signal: Rc<Cell<bool>>) -> i32 {
        while !signal.replace(false) {
            tokio::task::yield_now().await;
        }
        2
    }

    async fn run_fake(fake: &mut Fake) -> (Result<(), Broken<u8, u8, &'static str>>, Seen) {
        let (mut seen, signal) = (Seen::default(), Rc::clone(&fake.signal));
        let outcome = run(fake, &STEPS, &mut seen, || interruption(Rc::clone(&signal))).await;
        (outcome, seen)
    }

    #[tokio::test]
    async fn what_passes_stays() {
        let mut fake = Fake::new(None);
        let (outcome, seen) = run_fake(&mut fake).await;
        assert_eq!(outcome, Ok(()));
        assert_eq!(fake.world, BTreeSet::from(TRACES));
        assert!(fake.order.is_empty() && fake.ended && seen.passed == STEPS && seen.broke.is_empty());
    }

    /// Every step, every point in it, both ways to break: nothing is left, and the way back is the way there reversed.
    #[tokio::test]
    async fn a_fault_anywhere_leaves_nothing() {
        for step in STEPS {
            for at in [At::Start, At::Noted, At::Made] {
                for kind in [Kind::Fails, Kind::Interrupted] {
                    if at == At::Noted && !TRACES.contains(&step) {
                        continue;
                    }
                    let case = format!("{step} {at:?} {kind:?}");
                    let mut fake = Fake::new(Some((step, at, kind)));
                    let (outcome, seen) = run_fake(&mut fake).await;
                    let broken = outcome.expect_err(&case);
                    let why = if kind == Kind::Fails { Why::Failed("fault") } else { Why::Interrupted(2) };
                    assert_eq!((broken.step, broken.why), (step, why), "{case}");
                    let noted: Vec<u8> = TRACES
                        .into_iter()
                        .rev()
                        .filter(|trace| *trace < step || (*trace == step && at != At::Start))
                        .collect();
                    assert_eq!((&broken.undone, &fake.order), (&noted, &noted), "{case}");
                    assert!(broken.left.is_empty() && fake.world.is_empty() && fake.ended, "{case}");
                    assert_eq!(fake.performed.last(), Some(&step), "{case}: nothing after it was tried");
                    assert_eq!((seen.begun.last(), seen.broke), (Some(&step), vec![step]), "{case}");
                }
            }
        }
    }

    #[tokio::test]
    async fn what_cannot_be_taken_back_is_named_and_stops_nothing() {
        for stuck in [2, 5, 7] {
            let mut fake = Fake::new(Some((8, At::Start, Kind::Fails)));
            fake.stuck = Some(stuck);
            let (outcome, _) = run_fake(&mut fake).await;
            let broken = outcome.expect_err("fails");
            assert_eq!(broken.left, [(stuck, "stuck".to_owned())]);
            assert_eq!((fake.order, fake.world), (vec![7, 5, 2], BTreeSet::from([stuck])));
        }
    }

    /// A way back that never ends.
    struct Slow {
        undone: Vec<u8>,
    }

    impl Work for Slow {
        type Step = u8;
        type Trace = u8;
        type Told = ();
        type Failure = ();

        async fn perform(&mut self, step: u8, journal: &mut Journal<u8>) -> Result<(), ()> {
            journal.about_to(step);
            if step == 3 { Err(()) } else { Ok(()) }
        }

        async fn take_back(&mut self, trace: &u8) -> Result<(), String> {
            if *trace == 2 {
                std::future::pending().await
            }
            self.undone.push(*trace);
            Ok(())
        }

        async fn end(&mut self) {}
    }

    struct Nobody;

    impl Watch<Slow> for Nobody {
        fn begins(&mut self, _: u8) {}
        fn passed(&mut self, _: u8, (): &(), _: Duration) {}
        fn broke(&mut self, _: u8, _: &Why<()>) {}
    }

    #[tokio::test(start_paused = true)]
    async fn a_way_back_that_hangs_is_given_up() {
        let mut slow = Slow { undone: Vec::new() };
        let began = Instant::now();
        let broken = run(&mut slow, &[1, 2, 3], &mut Nobody, std::future::pending).await.expect_err("fails");
        assert_eq!((broken.undone, began.elapsed()), (vec![3, 1], BACK_TIME));
        assert_eq!(broken.left, [(2, "it took longer than 15 s".to_owned())]);

        // Ctrl-C again gives up at once, on that one only.
        let mut slow = Slow { undone: Vec::new() };
        let began = Instant::now();
        let second = || async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            2
        };
        let broken = run(&mut slow, &[1, 2, 3], &mut Nobody, second).await.expect_err("fails");
        assert_eq!((broken.undone, began.elapsed()), (vec![3, 1], Duration::from_secs(1)));
        assert_eq!(broken.left, [(2, "interrupted again".to_owned())]);
    }
}
