//! Random choices of crash tests, which can be repeated: `OPENCLAW_TEST_SEED` gives the seed, `OPENCLAW_TEST_KILLS` another
//! number of kills.

use std::{str::FromStr, time::Duration};

fn given<T: FromStr>(variable: &str) -> Option<T> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// How often to kill.
pub fn kills(usual: u32) -> u32 {
    given("OPENCLAW_TEST_KILLS").unwrap_or(usual)
}

/// xorshift64*: good enough to choose instants, and repeatable.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// Tells its seed on stderr.
    ///
    /// # Panics
    /// If the system gives no randomness.
    #[allow(clippy::new_without_default)] // two are never alike
    pub fn new() -> Self {
        let seed = given("OPENCLAW_TEST_SEED").unwrap_or_else(|| {
            let mut bytes = [0; 8];
            getrandom::fill(&mut bytes).expect("the system has randomness");
            u64::from_le_bytes(bytes) | 1
        });
        eprintln!("OPENCLAW_TEST_SEED={seed}");
        Self(seed)
    }

    /// From 0, below `sides`.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % sides
    }

    /// Shorter than `longest`.
    ///
    /// # Panics
    /// If that is longer than 500,000 years.
    pub fn moment(&mut self, longest: Duration) -> Duration {
        Duration::from_micros(self.roll(u64::try_from(longest.as_micros()).expect("short")))
    }
}
