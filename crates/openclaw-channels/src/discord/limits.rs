//! Discord's rate limits: how long a request has to wait. Pure; time comes in as an argument.
//!
//! Every answer names the bucket its route counts in, what is left of it and when it fills again. Routes of one bucket
//! count per channel or guild ("Rate Limits" in the API reference).

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

/// Requests of a bot per second over all routes: 50.
const GLOBAL: u32 = 50;
const SECOND: Duration = Duration::from_secs(1);
/// Buckets remembered; those that are full again are forgotten first.
const MAX_BUCKETS: usize = 1_024;

/// What a request counts against: method and path without ids, and the channel or guild it is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    pub name: &'static str,
    pub major: String,
}

/// Headers of an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    pub bucket: Option<String>,
    pub remaining: Option<u64>,
    /// Seconds until the bucket is full again.
    pub reset_after: Option<f64>,
}

#[derive(Debug)]
struct Bucket {
    remaining: u64,
    full_at: Instant,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Limits {
    names: HashMap<&'static str, String>,
    buckets: HashMap<(String, String), Bucket>,
    /// Nothing is sent before this.
    stopped_until: Option<Instant>,
    second: Option<(Instant, u32)>,
}

impl Limits {
    /// Takes a place for one request; `Err` says how long to wait before asking again.
    ///
    /// # Errors
    /// The time to wait.
    pub fn take(&mut self, now: Instant, route: &Route) -> Result<(), Duration> {
        if let Some(until) = self.stopped_until.filter(|until| *until > now) {
            return Err(until - now);
        }
        let key = self.key(route);
        if let Some(bucket) = self.buckets.get_mut(&key) {
            if bucket.full_at <= now {
                self.buckets.remove(&key);
            } else if bucket.remaining == 0 {
                return Err(bucket.full_at - now);
            }
        }
        let (since, sent) = self.second.filter(|(since, _)| now < *since + SECOND).unwrap_or((now, 0));
        if sent >= GLOBAL {
            return Err(since + SECOND - now);
        }
        self.second = Some((since, sent + 1));
        if let Some(bucket) = self.buckets.get_mut(&key) {
            bucket.remaining -= 1;
        }
        Ok(())
    }

    /// Notes what an answer says.
    pub fn told(&mut self, now: Instant, route: &Route, told: &Told) {
        if let Some(bucket) = &told.bucket {
            self.names.insert(route.name, bucket.clone());
        }
        if let (Some(remaining), Some(after)) = (told.remaining, told.reset_after.and_then(seconds)) {
            self.make_room(now);
            self.buckets.insert(self.key(route), Bucket { remaining, full_at: now + after });
        }
    }

    /// Notes HTTP 429: this bucket is empty, or everything has to wait.
    pub fn refused(&mut self, now: Instant, route: &Route, after: Duration, global: bool) {
        if global {
            self.stopped_until = Some(now + after);
        } else {
            self.make_room(now);
            self.buckets.insert(self.key(route), Bucket { remaining: 0, full_at: now + after });
        }
    }

    fn key(&self, route: &Route) -> (String, String) {
        (self.names.get(route.name).cloned().unwrap_or_else(|| route.name.to_owned()), route.major.clone())
    }

    fn make_room(&mut self, now: Instant) {
        if self.buckets.len() >= MAX_BUCKETS {
            self.buckets.retain(|_, bucket| bucket.full_at > now);
        }
        if self.buckets.len() >= MAX_BUCKETS {
            // All of them busy: forgetting costs a 429 at worst.
            self.buckets.clear();
        }
    }
}

/// Seconds as Discord writes them; nothing for what is no time.
pub fn seconds(seconds: f64) -> Option<Duration> {
    (seconds.is_finite() && (0.0..=86_400.0).contains(&seconds)).then(|| Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(name: &'static str, major: &str) -> Route {
        Route { name, major: major.into() }
    }

    fn told(bucket: &str, remaining: u64, reset_after: f64) -> Told {
        Told { bucket: Some(bucket.into()), remaining: Some(remaining), reset_after: Some(reset_after) }
    }

    #[test]
    fn a_bucket_counts_down_and_fills_again() {
        let (mut limits, now, send) = (Limits::default(), Instant::now(), route("send", "1"));
        assert_eq!(limits.take(now, &send), Ok(()));
        limits.told(now, &send, &told("abc", 1, 5.0));
        assert_eq!(limits.take(now, &send), Ok(()));
        assert_eq!(limits.take(now, &send), Err(Duration::from_secs(5)));
        // Another channel counts on its own, another route of the same bucket does not.
        assert_eq!(limits.take(now, &route("send", "2")), Ok(()));
        limits.told(now, &route("edit", "2"), &told("abc", 0, 9.0));
        assert_eq!(limits.take(now, &route("edit", "1")), Err(Duration::from_secs(5)));
        assert_eq!(limits.take(now + Duration::from_secs(5), &send), Ok(()));
    }

    #[test]
    fn a_429_of_a_route_and_of_everything() {
        let (mut limits, now) = (Limits::default(), Instant::now());
        limits.refused(now, &route("send", "1"), Duration::from_secs(3), false);
        assert_eq!(limits.take(now, &route("send", "1")), Err(Duration::from_secs(3)));
        assert_eq!(limits.take(now, &route("typing", "1")), Ok(()));
        limits.refused(now, &route("send", "1"), Duration::from_secs(8), true);
        assert_eq!(limits.take(now, &route("typing", "9")), Err(Duration::from_secs(8)));
        assert_eq!(limits.take(now + Duration::from_secs(8), &route("typing", "9")), Ok(()));
    }

    #[test]
    fn fifty_a_second() {
        let (mut limits, now) = (Limits::default(), Instant::now());
        for number in 0..50 {
            assert_eq!(limits.take(now, &route("send", &number.to_string())), Ok(()));
        }
        assert_eq!(limits.take(now + Duration::from_millis(400), &route("send", "x")), Err(Duration::from_millis(600)));
        assert_eq!(limits.take(now + SECOND, &route("send", "x")), Ok(()));
    }

    #[test]
    fn memory_is_bounded_and_nonsense_is_no_time() {
        let (mut limits, now) = (Limits::default(), Instant::now());
        for number in 0..5_000 {
            limits.told(now, &route("send", &number.to_string()), &told("abc", 1, 5.0));
        }
        assert!(limits.buckets.len() <= MAX_BUCKETS);
        for (number, expected) in
            [(f64::NAN, None), (-1.0, None), (1e30, None), (0.5, Some(Duration::from_millis(500)))]
        {
            assert_eq!(seconds(number), expected);
        }
    }
}
