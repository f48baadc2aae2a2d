//! Admin writes are limited to 30 per 60 s per method and device or address (handshake notes, section 6.2).

use std::{
    collections::{HashMap, VecDeque},
    sync::Mutex,
};

use openclaw_protocol::{ErrorShape, method::Method};
use serde_json::json;

use super::registry::Call;
use crate::clock::now_ms;

const LIMIT: usize = 30;
const WINDOW_MS: i64 = 60_000;

/// Times of recent writes by (method, caller).
#[derive(Debug, Default)]
pub struct WriteLimit(Mutex<HashMap<(&'static str, String), VecDeque<i64>>>);

impl WriteLimit {
    /// Charges one write of `M`.
    ///
    /// # Errors
    /// `UNAVAILABLE`, retryable, saying when.
    pub fn charge<M: Method>(&self, call: &Call) -> Result<(), ErrorShape> {
        let caller = match &call.caller.device {
            Some(device) => format!("{device}@{}", call.caller.address),
            None => call.caller.address.clone(),
        };
        self.charge_at(now_ms(), M::NAME, caller)
    }

    fn charge_at(&self, now: i64, method: &'static str, caller: String) -> Result<(), ErrorShape> {
        let Ok(mut table) = self.0.lock() else { return Ok(()) };
        table.retain(|_, times| times.back().is_some_and(|at| now - at < WINDOW_MS));
        let times = table.entry((method, caller)).or_default();
        while times.front().is_some_and(|at| now - at >= WINDOW_MS) {
            times.pop_front();
        }
        if times.len() < LIMIT {
            times.push_back(now);
            return Ok(());
        }
        let wait_ms = times.front().map_or(WINDOW_MS, |at| at + WINDOW_MS - now).max(1).unsigned_abs();
        let seconds = wait_ms.div_ceil(1000);
        let message = format!("rate limit exceeded for {method}; retry after {seconds}s");
        Err(ErrorShape::retry_later(message, wait_ms).with_details(json!({"method": method, "limit": "30 per 60s"})))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_74_thirty_writes_a_minute() {
        let limit = WriteLimit::default();
        let charge = |now, caller: &str| limit.charge_at(now, "config.set", caller.to_owned());
        for n in 0..30 {
            assert!(charge(n * 100, "a").is_ok(), "{n}");
        }
        let error = charge(4_000, "a").expect_err("limited");
        assert_eq!(error.message, "rate limit exceeded for config.set; retry after 56s");
        assert_eq!(error.retry_after_ms, Some(56_000));
        assert!(charge(4_000, "b").is_ok());
        assert!(charge(60_000, "a").is_ok());
    }
}
