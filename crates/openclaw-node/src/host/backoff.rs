//! How long to wait before the next attempt. Pure: randomness comes in.

use std::time::Duration;

/// The first wait, and the longest. The reference's numbers.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);
/// A connection that lasted this long was a good one: the next attempt starts from the first wait.
pub const STABLE: Duration = Duration::from_secs(10);

/// Doubling waits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The next wait: 1 s, 2 s, 4 s up to 30 s, each shortened by up to a quarter. `random` is from 0 to 1, so that a
    /// hundred nodes of a gateway that restarts do not come back in the same instant.
    pub fn next(&mut self, random: f64) -> Duration {
        let wait = FIRST.saturating_mul(1 << self.failures.min(8)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        wait.mul_f64(1.0 - 0.25 * random.clamp(0.0, 1.0))
    }

    /// A connection stood.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A number from 0 to 1 from the system; the middle when it gives none.
pub fn random() -> f64 {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_or(0.5, |()| f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_ceiling_and_start_anew() {
        let mut backoff = Backoff::default();
        let seconds: Vec<u64> = (0..8).map(|_| backoff.next(0.0).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(backoff.next(1.0), Duration::from_millis(22_500));
        backoff.reset();
        assert_eq!(backoff.next(0.0), FIRST);
        let mut tired = Backoff { failures: u32::MAX };
        assert_eq!(tired.next(0.0), LONGEST);
    }

    proptest::proptest! {
        #[test]
        fn never_at_once_and_never_longer_than_said(failures in 0..u32::MAX, random in -1.0..2.0f64) {
            let wait = Backoff { failures }.next(random);
            proptest::prop_assert!(wait >= FIRST.mul_f64(0.75) && wait <= LONGEST);
        }
    }
}
