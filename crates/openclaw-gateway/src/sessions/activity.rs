//! What runs and waits in a conversation right now. The runs room says so; lists and histories show it.

use std::sync::{Arc, PoisonError};

use serde_json::Value;

use super::{SessionKey, Sessions};

/// See the module documentation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Activity {
    /// Ids of the runs under way.
    pub running: Vec<String>,
    /// What waits for its turn, in order.
    pub waiting: Vec<Pending>,
}

/// An input that was kept and is not yet part of the transcript.
#[derive(Clone, Debug, PartialEq)]
pub struct Pending {
    pub run_id: String,
    pub text: String,
    pub accepted_ms: i64,
    /// As it will be in the transcript.
    pub message: Option<Value>,
}

impl Sessions {
    pub fn activity(&self, key: &SessionKey) -> Arc<Activity> {
        let activity = self.shared.activity.read().unwrap_or_else(PoisonError::into_inner);
        activity.get(key).cloned().unwrap_or_default()
    }

    /// The conversation of a run that is under way or waits.
    pub fn with_run(&self, run_id: &str) -> Option<SessionKey> {
        let activity = self.shared.activity.read().unwrap_or_else(PoisonError::into_inner);
        let has = |activity: &Activity| {
            activity.running.iter().any(|id| id == run_id) || activity.waiting.iter().any(|it| it.run_id == run_id)
        };
        activity.iter().find(|(_, activity)| has(activity)).map(|(key, _)| key.clone())
    }

    /// Replaces what is known of it.
    pub fn set_activity(&self, key: &SessionKey, now: Activity) {
        let mut activity = self.shared.activity.write().unwrap_or_else(PoisonError::into_inner);
        if now == Activity::default() {
            activity.remove(key);
        } else {
            activity.insert(key.clone(), Arc::new(now));
        }
    }
}
