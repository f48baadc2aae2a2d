//! Replies on their way to a channel.
//!
//! Before a message is handed to the channel, the disk says so: after a crash nobody can tell whether it arrived, and then it
//! is not sent again. The person is told once, and `/last` shows it. What certainly was not sent is sent later, with
//! patience. Replies to one chat keep their order.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use openclaw_channels::{
    channel::{Partly, SendError},
    message::{Address, Outbound},
};

use super::{
    Deliver, Origin, RunId, RunOutcome, RunRequest,
    record::{Delivery, RunChange},
};
use crate::{gateway::Gateway, store::StoreError};

/// Between two tries, doubled each time.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// How long a reply is tried: a day.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);
/// How often a notice is sent when nobody knows whether it arrived: it does no harm twice.
const NOTICES: u32 = 3;
/// How long an account may take to start before that counts as a failure to send.
const START: Duration = Duration::from_secs(30);

/// Tries to finish a message that was shown early, before the reply is sent as a new one.
const MAX_EDITS: u32 = 3;

const AFTER_CRASH: &str =
    "The gateway restarted while it was sending my last reply, so it may not have arrived. /last shows it.";
const AFTER_TROUBLE: &str =
    "The connection broke while my last reply was being sent, so it may not have arrived in full. /last shows it.";

/// A reply and where it goes.
#[derive(Clone, Debug)]
pub struct Job {
    run_id: RunId,
    to: Address,
    reply_to: Option<String>,
    outcome: Arc<RunOutcome>,
    delivery: Delivery,
    /// What it was when the gateway stopped.
    after_crash: bool,
}

impl Job {
    /// `None` when the request has nobody to deliver to, or nothing is left to do.
    pub fn of(request: &RunRequest, outcome: Arc<RunOutcome>, delivery: Delivery, after_crash: bool) -> Option<Self> {
        let to = request.deliver.clone().filter(|_| delivery.is_open())?;
        // Whether the reply shows which message it answers is the channel's business.
        let reply_to = match &request.origin {
            Origin::Channel(inbound) => Some(inbound.message_id.clone()),
            _ => None,
        };
        Some(Self { run_id: request.run_id.clone(), to, reply_to, outcome, delivery, after_crash })
    }
}

/// By chat. There is an entry while a task brings replies there.
#[derive(Debug, Default)]
pub struct Deliveries(Mutex<HashMap<Address, VecDeque<Job>>>);

impl Deliveries {
    pub fn count(&self) -> usize {
        self.lock().values().map(|waiting| waiting.len() + 1).sum()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Address, VecDeque<Job>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends a reply after those to the same chat that came before it.
pub fn enqueue(gateway: &Arc<Gateway>, job: Job) {
    let to = job.to.clone();
    let mut waiting = gateway.runs.deliveries.lock();
    if let Some(queue) = waiting.get_mut(&to) {
        queue.push_back(job);
        return;
    }
    waiting.insert(to.clone(), VecDeque::new());
    drop(waiting);
    let gateway = Arc::clone(gateway);
    gateway.clone().tracker.spawn(async move {
        let mut next = Some(job);
        while let Some(job) = next {
            if bring(&gateway, job).await.is_err() {
                // The gateway stops; the disk knows where each of them is.
                gateway.runs.deliveries.lock().remove(&to);
                return;
            }
            let mut waiting = gateway.runs.deliveries.lock();
            next = waiting.get_mut(&to).and_then(VecDeque::pop_front);
            if next.is_none() {
                waiting.remove(&to);
            }
        }
    });
}

/// The gateway stops.
struct Stopping;

impl From<StoreError> for Stopping {
    fn from(error: StoreError) -> Self {
        if !matches!(error, StoreError::Closed) {
            tracing::error!(%error, "how far a reply travelled was not saved; it waits for the next start");
        }
        Self
    }
}

/// Waits for the account that leads to the chat.
async fn present(gateway: &Gateway, deliver: &dyn Deliver, to: &Address) -> Result<(), Stopping> {
    tokio::select! {
        biased;
        // What is there at once is there, also while the gateway stops.
        _ = tokio::time::timeout(START, deliver.present(to)) => Ok(()),
        () = gateway.draining.cancelled() => Err(Stopping),
    }
}

/// Between two tries. Whoever stops the gateway does not wait for the next one.
async fn pause(gateway: &Gateway, time: Duration) -> Result<(), Stopping> {
    tokio::select! {
        () = gateway.draining.cancelled() => Err(Stopping),
        () = tokio::time::sleep(time) => Ok(()),
    }
}

async fn note(gateway: &Gateway, run_id: &RunId, delivery: Delivery) -> Result<(), Stopping> {
    let change = RunChange::Delivery { run_id: run_id.clone(), delivery };
    Ok(gateway.store.commit([change]).await?)
}

async fn bring(gateway: &Arc<Gateway>, job: Job) -> Result<(), Stopping> {
    let Some(deliver) = gateway.runs.deliver().cloned() else {
        tracing::warn!(
            run = job.run_id.0,
            channel = job.to.channel,
            "there is no way to deliver the reply; it is kept"
        );
        return Ok(());
    };
    let (first, sent, preview) = match job.delivery.clone() {
        Delivery::None | Delivery::Sent { .. } | Delivery::Failed { .. } | Delivery::Unknown { told: true, .. } => {
            return Ok(());
        }
        Delivery::Unknown { piece, told: false } => return tell(gateway, &*deliver, &job, piece).await,
        Delivery::Sending { piece, .. } => {
            note(gateway, &job.run_id, Delivery::Unknown { piece, told: false }).await?;
            return tell(gateway, &*deliver, &job, piece).await;
        }
        Delivery::Preview { message_id } => (0, Vec::new(), message_id),
        Delivery::Pending { piece, sent, preview } => (piece, sent, preview),
    };
    present(gateway, &*deliver, &job.to).await?;
    let text = job.outcome.reply().unwrap_or_default();
    let media = job.outcome.media.clone();
    let message = Outbound { text, media, reply_to: job.reply_to.clone(), ..Outbound::default() };
    // What was shown early is a text and can become no file: the text is finished there, and the files follow.
    let parts = match preview.is_some() && !message.media.is_empty() && !message.text.trim().is_empty() {
        true => {
            let files = Outbound { text: String::new(), ..message.clone() };
            vec![Outbound { media: Vec::new(), ..message }, files]
        }
        false => vec![message],
    };
    let mut progress = Progress {
        gateway,
        deliver: &*deliver,
        job: &job,
        sent,
        preview,
        edits: 0,
        wait: FIRST_WAIT,
        waited: Duration::ZERO,
    };
    let mut number = first;
    loop {
        // Cut anew each time: a channel that was not there may be back, and knows how long a message may be.
        let pieces: Vec<Outbound> = parts.iter().flat_map(|part| deliver.pieces(&job.to, part)).collect();
        let Some(piece) = pieces.get(number) else { break };
        match progress.piece(number, piece).await? {
            Step::Sent => number += 1,
            Step::Again => {}
            Step::GaveUp => return Ok(()),
        }
    }
    let ids = progress.sent;
    note(gateway, &job.run_id, Delivery::Sent { ids }).await
}

enum Step {
    Sent,
    /// It certainly was not sent, and some time has passed.
    Again,
    GaveUp,
}

struct Progress<'a> {
    gateway: &'a Arc<Gateway>,
    deliver: &'a dyn Deliver,
    job: &'a Job,
    sent: Vec<String>,
    /// A message sent early, which becomes the first piece.
    preview: Option<String>,
    /// Tries of that which failed.
    edits: u32,
    wait: Duration,
    /// In all, since something was sent last.
    waited: Duration,
}

impl Progress<'_> {
    async fn piece(&mut self, number: usize, piece: &Outbound) -> Result<Step, Stopping> {
        let (gateway, job) = (self.gateway, self.job);
        let preview = self.preview.clone().filter(|_| number == 0);
        if gateway.cancel.is_cancelled() {
            return Err(Stopping);
        }
        let tried = match preview {
            // An edit can be repeated as often as it takes.
            Some(id) => match self.deliver.edit(&job.to, &id, piece).await {
                Ok(()) => Ok(vec![id]),
                Err(SendError::Unknown { why }) => Err(SendError::NotSent { why, retry_after: None }),
                Err(error) => Err(error),
            },
            None => {
                note(gateway, &job.run_id, Delivery::Sending { piece: number, sent: self.sent.clone() }).await?;
                match self.deliver.send(&job.to, piece).await {
                    Ok(ids) => Ok(ids),
                    // A part of it was seen: it cannot be sent again as a whole.
                    Err(Partly { sent, error }) if !sent.is_empty() => {
                        Err(SendError::Unknown { why: error.to_string() })
                    }
                    Err(Partly { error, .. }) => Err(error),
                }
            }
        };
        let (why, retry_after) = match tried {
            Ok(ids) => {
                self.sent.extend(ids);
                (self.wait, self.waited) = (FIRST_WAIT, Duration::ZERO);
                return Ok(Step::Sent);
            }
            Err(SendError::Unknown { why }) => {
                tracing::warn!(run = job.run_id.0, "whether a reply arrived is not known: {why}");
                note(gateway, &job.run_id, Delivery::Unknown { piece: number, told: false }).await?;
                tell(gateway, self.deliver, job, number).await?;
                return Ok(Step::GaveUp);
            }
            Err(SendError::NotSent { why, retry_after }) => (why, retry_after),
        };
        if self.waited >= PATIENCE {
            tracing::error!(run = job.run_id.0, channel = job.to.channel, "a reply was not sent: {why}");
            note(gateway, &job.run_id, Delivery::Failed { piece: number, why }).await?;
            return Ok(Step::GaveUp);
        }
        if number == 0 && self.preview.is_some() && retry_after.is_none() {
            self.edits += 1;
            if self.edits >= MAX_EDITS {
                // Somebody deleted it, perhaps. The reply matters more than the place.
                self.preview = None;
            }
        }
        let pending = Delivery::Pending { piece: number, sent: self.sent.clone(), preview: self.preview.clone() };
        note(gateway, &job.run_id, pending).await?;
        let time = retry_after.unwrap_or(self.wait).max(FIRST_WAIT);
        tracing::warn!(run = job.run_id.0, channel = job.to.channel, "a reply waits {time:?}: {why}");
        pause(gateway, time).await?;
        self.waited += time;
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
        Ok(Step::Again)
    }
}

/// Tells the person, with the same patience. That it was told is noted afterwards: should the gateway die in between, it is
/// told again, since silence would be worse.
async fn tell(gateway: &Arc<Gateway>, deliver: &dyn Deliver, job: &Job, piece: usize) -> Result<(), Stopping> {
    let text = if job.after_crash { AFTER_CRASH } else { AFTER_TROUBLE };
    let notice = Outbound { text: text.into(), ..Outbound::default() };
    let (mut wait, mut waited) = (FIRST_WAIT, Duration::ZERO);
    let mut unknown = 0;
    loop {
        present(gateway, deliver, &job.to).await?;
        let (why, retry_after) = match deliver.send(&job.to, &notice).await {
            Ok(_) => break,
            Err(Partly { sent, .. }) if !sent.is_empty() => break,
            Err(Partly { error: SendError::NotSent { why, retry_after }, .. }) => (why, retry_after),
            Err(Partly { error: SendError::Unknown { why }, .. }) => {
                unknown += 1;
                (why, None)
            }
        };
        if waited >= PATIENCE || unknown == NOTICES {
            tracing::error!(run = job.run_id.0, channel = job.to.channel, "a notice was not sent: {why}");
            break;
        }
        let time = retry_after.unwrap_or(wait).max(FIRST_WAIT);
        tracing::warn!(run = job.run_id.0, channel = job.to.channel, "a notice waits {time:?}: {why}");
        pause(gateway, time).await?;
        waited += time;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
    note(gateway, &job.run_id, Delivery::Unknown { piece, told: true }).await
}
