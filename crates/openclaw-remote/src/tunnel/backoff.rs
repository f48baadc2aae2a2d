//! How long to wait between attempts: at once the first time, then 0.25 s doubling to a ceiling, each with jitter so that
//! many machines do not come back in step.

use std::time::Duration;

/// First wait after an attempt that failed at once.
const FIRST: Duration = Duration::from_millis(250);

/// The waits of one kind of attempt.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    ceiling: Duration,
    failures: u32,
    /// State of the jitter's generator (xorshift); it need not be unpredictable.
    noise: u64,
}

impl Backoff {
    pub fn new(ceiling: Duration, seed: u64) -> Self {
        Self { ceiling, failures: 0, noise: seed | 1 }
    }

    /// The wait before the next attempt: 0, then 0.25 s, 0.5 s, … each between three quarters and all of it.
    pub fn next(&mut self) -> Duration {
        let failures = self.failures;
        self.failures = failures.saturating_add(1);
        let Some(doublings) = failures.checked_sub(1) else { return Duration::ZERO };
        let full = FIRST.saturating_mul(1 << doublings.min(16)).min(self.ceiling);
        self.noise ^= self.noise << 13;
        self.noise ^= self.noise >> 7;
        self.noise ^= self.noise << 17;
        full.mul_f64(0.75 + 0.25 * f64::from((self.noise >> 32) as u32) / f64::from(u32::MAX))
    }

    pub const fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_the_ceiling_within_the_jitter() {
        for seed in [1, 7, 0xdead_beef] {
            let mut backoff = Backoff::new(Duration::from_secs(30), seed);
            assert_eq!(backoff.next(), Duration::ZERO);
            for full in [250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000] {
                let wait = backoff.next();
                let full = Duration::from_millis(full);
                assert!(wait >= full.mul_f64(0.75) && wait <= full, "{wait:?} of {full:?}");
            }
            backoff.reset();
            assert_eq!(backoff.next(), Duration::ZERO);
        }
    }

    #[test]
    fn never_overflows() {
        let mut backoff = Backoff::new(Duration::from_secs(30), 1);
        assert!((0..100).map(|_| backoff.next()).all(|wait| wait <= Duration::from_secs(30)));
    }
}
