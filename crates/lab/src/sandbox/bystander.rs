//! Others, who must not suffer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::json;

use super::Sandbox;

/// An authenticated client that calls `health` all the time while others misbehave.
pub struct Bystander {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

impl Bystander {
    pub fn start(sandbox: &Sandbox) -> Self {
        let mut client = sandbox.operator(&["operator.read"]);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut waits = Vec::new();
            while !stopped.load(Ordering::Relaxed) || waits.is_empty() {
                let asked = Instant::now();
                client.ok("health", json!({}));
                waits.push(asked.elapsed());
                client.events.clear();
                std::thread::sleep(Duration::from_millis(5));
            }
            waits
        });
        Self { stop, thread }
    }

    /// Asserts that every call was answered within a second; returns the waits, shortest first.
    #[track_caller]
    pub fn finish(self) -> Vec<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        let mut waits = self.thread.join().expect("the bystander was served");
        waits.sort();
        let longest = waits.last().copied().unwrap_or_default();
        assert!(longest < Duration::from_secs(1), "the bystander waited {longest:?}");
        waits
    }
}
