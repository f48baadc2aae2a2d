//! Runs: one answer of the agent to one message, from the moment the message is kept to the delivery of the reply.
//!
//! ```text
//! submitted ──► queued ──► running ──► replied ──► delivering ──► done
//!                  │          │                        │
//!                  │          └─► failed, aborted      └─► unknown (told, never repeated)
//!                  └─► cancelled
//! ```

pub mod hooks;
pub mod request;
pub mod watch;

use std::{
    sync::{Arc, OnceLock, RwLock},
    time::Duration,
};

use openclaw_protocol::ErrorShape;

pub use hooks::{Deliver, RunContext, ToolSource};
pub use request::{Authority, Input, Origin, RunId, RunRequest, WhenBusy};
pub use watch::{RunEvent, RunOutcome, RunStatus, RunWatch};

use crate::{gateway::Gateway, sessions::SessionKey, store::Change};

/// A request that was kept.
#[derive(Debug)]
pub struct Submitted {
    pub run_id: RunId,
    pub status: SubmitStatus,
    pub watch: RunWatch,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubmitStatus {
    Started,
    /// Waits for its turn; 1 is next.
    Queued { position: usize },
    /// The same request came before and is under way.
    InFlight,
    /// The same request came before and has been answered.
    Done,
}

/// All runs of the gateway.
#[derive(Default)]
pub struct Runs {
    deliver: OnceLock<Arc<dyn Deliver>>,
    sources: RwLock<Vec<Arc<dyn ToolSource>>>,
}

impl Runs {
    /// The way out for replies; set once, at start.
    pub fn set_deliver(&self, deliver: Arc<dyn Deliver>) {
        let _ = self.deliver.set(deliver);
    }

    /// Adds tools; at start.
    pub fn add_tools(&self, source: Arc<dyn ToolSource>) {
        self.sources.write().unwrap_or_else(std::sync::PoisonError::into_inner).push(source);
    }

    /// Keeps a request; when this returns `Ok`, it survives a crash. Runs to its end even when the asker hangs up.
    ///
    /// # Errors
    /// `INVALID_REQUEST` when the id was used for other input, `UNAVAILABLE` when the queue is full, the gateway stops, or
    /// it could not be saved; then nothing was kept.
    pub async fn submit(gateway: &Arc<Gateway>, request: RunRequest) -> Result<Submitted, ErrorShape> {
        Self::submit_with(gateway, request, Vec::new()).await
    }

    /// As [`Runs::submit`], and `extra` is saved in the same transaction; also when the request was kept before.
    ///
    /// # Errors
    /// As [`Runs::submit`]; then `extra` was not saved either.
    pub async fn submit_with(
        gateway: &Arc<Gateway>,
        request: RunRequest,
        extra: Vec<Change>,
    ) -> Result<Submitted, ErrorShape> {
        let _ = (gateway, request, extra);
        Err(ErrorShape::unavailable("this build answers no messages yet"))
    }

    /// Ends a run, or all of a session, those that wait too. Returns which. What those who watch hear of it goes out before
    /// this returns.
    pub async fn abort(gateway: &Arc<Gateway>, session: &SessionKey, run: Option<&RunId>) -> Vec<RunId> {
        let _ = (gateway, session, run);
        Vec::new()
    }

    /// Waits for the end of a run, also of one that ended before. `None` when it has not ended in time, or is not known.
    pub async fn wait(gateway: &Arc<Gateway>, run: &RunId, timeout: Option<Duration>) -> Option<Arc<RunOutcome>> {
        let _ = (gateway, run, timeout);
        None
    }
}
