//! A run that has not ended.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use super::{
    Origin, RunEvent, RunId, RunOutcome, RunRequest, RunWatch,
    command::Command,
    record::{Delivery, StartedTool},
    stream::Stream,
    watch::BACKLOG,
};

/// See the module documentation.
#[derive(Debug)]
pub struct Live {
    pub request: RunRequest,
    pub digest: String,
    pub submitted_ms: i64,
    /// Answered by the gateway itself, without its turn and without a model.
    pub command: Option<Command>,
    pub stream: Stream,
    /// Ends it; [`Live::end`] says why.
    pub cancel: CancellationToken,
    /// It was under way when the gateway stopped; these tools had begun.
    pub resumed: Option<Vec<StartedTool>>,
    events: broadcast::Sender<RunEvent>,
    kept: watch::Sender<Option<bool>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Why it was ended by somebody: `rpc`, `stop`, `interrupt`, `reset`.
    ending: Option<&'static str>,
    delivery: Option<Delivery>,
}

impl Live {
    pub fn new(request: RunRequest, digest: String, submitted_ms: i64, command: Option<Command>) -> Self {
        let heartbeat = matches!(request.origin, Origin::Internal("heartbeat"));
        let stream = Stream::new(request.run_id.clone(), request.session.clone(), heartbeat);
        if let Origin::Operator { connection, .. } = request.origin {
            stream.joined(connection);
        }
        Self {
            request,
            digest,
            submitted_ms,
            command,
            stream,
            cancel: CancellationToken::new(),
            resumed: None,
            events: broadcast::Sender::new(BACKLOG),
            kept: watch::Sender::new(None),
            state: Mutex::default(),
        }
    }

    pub fn id(&self) -> &RunId {
        &self.request.run_id
    }

    pub fn watch(&self) -> RunWatch {
        RunWatch::live(self.events.subscribe())
    }

    /// Tells those who watch.
    pub fn tell(&self, event: RunEvent) {
        // Nobody watches, often.
        let _ = self.events.send(event);
    }

    pub fn tell_end(&self, outcome: &Arc<RunOutcome>) {
        self.tell(RunEvent::Ended(Arc::clone(outcome)));
    }

    /// It is on disk, or could not be saved.
    pub fn set_kept(&self, saved: bool) {
        self.kept.send_replace(Some(saved));
    }

    /// Waits until it is known whether it is on disk.
    pub async fn is_kept(&self) -> bool {
        let mut kept = self.kept.subscribe();
        kept.wait_for(Option::is_some).await.is_ok_and(|kept| *kept == Some(true))
    }

    /// Asks it to end. The first reason counts.
    pub fn end(&self, why: &'static str) {
        self.lock().ending.get_or_insert(why);
        self.cancel.cancel();
    }

    pub fn ending(&self) -> Option<&'static str> {
        self.lock().ending
    }

    /// How far the reply travelled, as far as this process knows.
    pub fn delivery(&self) -> Option<Delivery> {
        self.lock().delivery.clone()
    }

    pub fn set_delivery(&self, delivery: Delivery) {
        self.lock().delivery = Some(delivery);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
