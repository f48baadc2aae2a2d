//! One deadline shared by all stages of a connection, so that a slow name look-up leaves less time for the rest.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, timeout_at};

use crate::error::{Error, Stage};

/// When a connection attempt has to be done, and when it began.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    started: Instant,
    at: Instant,
}

impl Deadline {
    /// A deadline `budget` from now.
    pub fn after(budget: Duration) -> Self {
        let started = Instant::now();
        // Far enough to mean "never" where adding would overflow.
        let at = started.checked_add(budget).unwrap_or_else(|| started + Duration::from_secs(86_400 * 365));
        Self { started, at }
    }

    /// Time left.
    pub fn left(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// The whole budget.
    pub fn budget(&self) -> Duration {
        self.at.saturating_duration_since(self.started)
    }

    /// Time since it was set.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Runs one stage.
    ///
    /// # Errors
    /// The stage's own, or [`Error::Timeout`] naming the stage.
    pub async fn run<T>(&self, stage: Stage, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        match timeout_at(self.at, work).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::Timeout { stage, after: self.budget() }),
        }
    }
}
