//! One limiter for guesses over WebSocket and HTTP: a sliding window per credential class and client, and a ceiling over all
//! clients. Pure: time is an argument.
//!
//! A guess is charged before it is verified (`begin`), so that parallel guesses cannot race past the limit; the outcome is
//! reported afterwards. Callers on loopback without a browser are not locked out but slowed: 250 ms, 500 ms, … 5 s.

use std::collections::{HashMap, VecDeque};

use super::evidence::ClientKey;

/// What kind of secret is being guessed. Success in one class forgives nothing in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CredentialClass {
    SharedSecret,
    DeviceToken,
    BootstrapToken,
    /// The code in a join URL.
    JoinCode,
    /// `hooks.token`
    HookToken,
}

/// `gateway.auth.rateLimit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub max_attempts: u32,
    pub window_ms: i64,
    pub lockout_ms: i64,
    pub exempt_loopback: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_attempts: 10, window_ms: 60_000, lockout_ms: 300_000, exempt_loopback: true }
    }
}

/// Failures per window over all clients after which strangers are refused unheard.
const GLOBAL_FAILURES: usize = 200;
/// Clients remembered at once; above that the one idle longest is forgotten.
const MAX_ENTRIES: usize = 4096;
const FIRST_DELAY_MS: i64 = 250;
const MAX_DELAY_MS: i64 = 5_000;

#[derive(Debug, Default)]
struct Entry {
    failures: VecDeque<i64>,
    in_flight: u32,
    locked_until: i64,
    last_seen: i64,
}

/// Why a guess may not be tried now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited {
    pub retry_after_ms: u64,
}

/// The limiter.
#[derive(Debug, Default)]
pub struct RateLimiter {
    entries: HashMap<(CredentialClass, ClientKey), Entry>,
    recent_failures: VecDeque<i64>,
}

impl RateLimiter {
    /// Reserves one guess.
    ///
    /// # Errors
    /// [`Limited`] while the client is locked, has as many guesses in flight as it may fail, or the global ceiling is
    /// reached and the client has not proven itself before.
    pub fn begin(&mut self, now: i64, limits: Limits, class: CredentialClass, key: &ClientKey) -> Result<(), Limited> {
        self.prune(now, limits);
        let exempt = is_exempt(limits, key);
        let over_ceiling = self.recent_failures.len() >= GLOBAL_FAILURES;
        let entry = self.entries.entry((class, key.clone())).or_default();
        entry.last_seen = now;
        if entry.locked_until > now {
            return Err(Limited { retry_after_ms: (entry.locked_until - now).unsigned_abs() });
        }
        if over_ceiling && !exempt {
            let oldest = self.recent_failures.front().copied().unwrap_or(now);
            return Err(Limited { retry_after_ms: (oldest + limits.window_ms - now).max(1_000).unsigned_abs() });
        }
        // An exempt client is only bounded in parallel; others also by what they failed in this window.
        let spent = if exempt { 0 } else { u32::try_from(entry.failures.len()).unwrap_or(u32::MAX) };
        if spent.saturating_add(entry.in_flight) >= limits.max_attempts {
            return Err(Limited { retry_after_ms: delay(entry.failures.len()).unsigned_abs() });
        }
        entry.in_flight += 1;
        Ok(())
    }

    /// The guess was right: this class and client start afresh.
    pub fn succeed(&mut self, class: CredentialClass, key: &ClientKey) {
        if let Some(entry) = self.entries.get_mut(&(class, key.clone())) {
            entry.in_flight = entry.in_flight.saturating_sub(1);
            entry.failures.clear();
            entry.locked_until = 0;
        }
    }

    /// The guess was wrong. Returns how long the answer must be held back, in milliseconds; the guess stays in flight
    /// until [`RateLimiter::finish`] so that waiting guesses bound each other.
    pub fn fail(&mut self, now: i64, limits: Limits, class: CredentialClass, key: &ClientKey) -> u64 {
        self.recent_failures.push_back(now);
        let exempt = is_exempt(limits, key);
        let entry = self.entries.entry((class, key.clone())).or_default();
        entry.failures.push_back(now);
        if exempt {
            return delay(entry.failures.len()).unsigned_abs();
        }
        if entry.failures.len() >= limits.max_attempts as usize {
            entry.locked_until = now + limits.lockout_ms;
        }
        0
    }

    /// Ends a guess that was begun, after its answer has been held back.
    pub fn finish(&mut self, class: CredentialClass, key: &ClientKey) {
        if let Some(entry) = self.entries.get_mut(&(class, key.clone())) {
            entry.in_flight = entry.in_flight.saturating_sub(1);
        }
    }

    /// Forgets every lock and failure (`unlock` on the host).
    pub fn clear(&mut self) {
        self.entries.clear();
        self.recent_failures.clear();
    }

    fn prune(&mut self, now: i64, limits: Limits) {
        let horizon = now - limits.window_ms;
        while self.recent_failures.front().is_some_and(|at| *at <= horizon) {
            self.recent_failures.pop_front();
        }
        if self.recent_failures.len() > 2 * GLOBAL_FAILURES {
            self.recent_failures.pop_front();
        }
        for entry in self.entries.values_mut() {
            while entry.failures.front().is_some_and(|at| *at <= horizon) {
                entry.failures.pop_front();
            }
        }
        self.entries.retain(|_, e| e.in_flight > 0 || !e.failures.is_empty() || e.locked_until > now);
        if self.entries.len() >= MAX_ENTRIES {
            let idle = self.entries.iter().filter(|(_, e)| e.in_flight == 0).min_by_key(|(_, e)| e.last_seen);
            if let Some(key) = idle.map(|(key, _)| key.clone()) {
                self.entries.remove(&key);
            }
        }
    }
}

fn is_exempt(limits: Limits, key: &ClientKey) -> bool {
    match key {
        ClientKey::Owner => true,
        ClientKey::V4([127, ..]) => limits.exempt_loopback,
        _ => false,
    }
}

fn delay(failures: usize) -> i64 {
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX).min(10);
    (FIRST_DELAY_MS << doublings).min(MAX_DELAY_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const L: Limits = Limits { max_attempts: 10, window_ms: 60_000, lockout_ms: 300_000, exempt_loopback: true };
    const CLASS: CredentialClass = CredentialClass::SharedSecret;

    fn stranger() -> ClientKey {
        ClientKey::V4([203, 0, 113, 9])
    }

    fn guess(limiter: &mut RateLimiter, now: i64, key: &ClientKey) -> Result<u64, Limited> {
        limiter.begin(now, L, CLASS, key)?;
        let wait = limiter.fail(now, L, CLASS, key);
        limiter.finish(CLASS, key);
        Ok(wait)
    }

    #[test]
    fn p_10_ten_failures_lock_for_five_minutes() {
        let mut limiter = RateLimiter::default();
        for n in 0..10 {
            assert!(guess(&mut limiter, n, &stranger()).is_ok(), "{n}");
        }
        assert_eq!(limiter.begin(10, L, CLASS, &stranger()), Err(Limited { retry_after_ms: 299_999 }));
        assert!(limiter.begin(10, L, CredentialClass::DeviceToken, &stranger()).is_ok());
        assert!(limiter.begin(10, L, CLASS, &ClientKey::V4([203, 0, 113, 10])).is_ok());
        assert!(limiter.begin(300_010, L, CLASS, &stranger()).is_ok());
    }

    #[test]
    fn p_14_parallel_guesses_are_bounded() {
        let mut limiter = RateLimiter::default();
        for key in [stranger(), ClientKey::V4([127, 0, 0, 1])] {
            let begun = (0..200).filter(|_| limiter.begin(0, L, CLASS, &key).is_ok()).count();
            assert_eq!(begun, 10, "{key:?}");
        }
    }

    #[test]
    fn p_15_success_forgives_only_its_own_class_and_client() {
        let mut limiter = RateLimiter::default();
        let other = ClientKey::V4([203, 0, 113, 10]);
        for _ in 0..9 {
            guess(&mut limiter, 0, &stranger()).expect("allowed");
            guess(&mut limiter, 0, &other).expect("allowed");
        }
        limiter.begin(0, L, CLASS, &stranger()).expect("allowed");
        limiter.succeed(CLASS, &stranger());
        for _ in 0..9 {
            guess(&mut limiter, 1, &stranger()).expect("allowed");
        }
        guess(&mut limiter, 1, &other).expect("tenth");
        assert!(guess(&mut limiter, 1, &other).is_err());
    }

    #[test]
    fn p_13_loopback_is_slowed_and_browsers_on_it_are_locked() {
        let mut limiter = RateLimiter::default();
        let cli = ClientKey::V4([127, 0, 0, 1]);
        let waits: Vec<u64> = (0..8).map(|n| guess(&mut limiter, n, &cli).expect("exempt")).collect();
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 5000, 5000, 5000]);
        let browser = ClientKey::Origin("http://127.0.0.1:1".into());
        for _ in 0..10 {
            guess(&mut limiter, 0, &browser).expect("allowed");
        }
        assert!(guess(&mut limiter, 0, &browser).is_err());
        assert!(limiter.begin(0, L, CLASS, &cli).is_ok());
    }

    #[test]
    fn global_ceiling_counts_all_clients() {
        let mut limiter = RateLimiter::default();
        for n in 0..GLOBAL_FAILURES {
            let key = ClientKey::V4([10, 0, (n / 5) as u8, (n % 5) as u8]);
            guess(&mut limiter, 0, &key).expect("below the ceiling");
        }
        assert!(limiter.begin(0, L, CLASS, &stranger()).is_err());
        assert!(limiter.begin(0, L, CLASS, &ClientKey::Owner).is_ok());
        assert!(limiter.begin(60_001, L, CLASS, &stranger()).is_ok());
    }
}
