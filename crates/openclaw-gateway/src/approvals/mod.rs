//! Approvals: a person's leave to run one command, once or always.
//!
//! ```text
//! request ──► pending ──► decided (allow once, allow always, deny) ──► redeemed by node.invoke
//!                │
//!                └─► ended without a decision (nobody can see it, or nobody answered in time)
//! ```
//!
//! [`command`], [`display`], [`prepare`] and [`ledger`] are pure. What is shown is rebuilt from what would run; an
//! approval holds for exactly that, on one node, for whoever asked, and only for seconds after the decision. Nothing is
//! written down: after a restart every id is unknown, and so nothing that was approved before can run.

pub mod ask;
pub mod command;
pub mod display;
pub mod ledger;
pub mod prepare;
pub mod redeem;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

use openclaw_protocol::{
    Protocol, Scope,
    event::{EXEC_APPROVAL_REQUESTED, EXEC_APPROVAL_RESOLVED},
    method::exec::{ApprovalResolvedEvent, ApprovalResolver, Decision, PendingApproval},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::ledger::{Ended, Ledger, Record, Refused, Viewer};
use crate::{
    clock::now_ms,
    gateway::Gateway,
    hub::{Connection, Hub},
};

/// Clients that show approvals without saying so.
const UI_CLIENTS: [&str; 4] = ["openclaw-control-ui", "openclaw-macos", "openclaw-ios", "openclaw-android"];
const UI_CAPS: [&str; 2] = ["approvals", "exec-approvals"];

/// Something inside the gateway that can put questions to people: a channel with approvers.
///
/// Answers come back through [`decide`] with [`Viewer::APPROVER`]; [`Approvals::ending`] tells when there is nothing to
/// answer any more, to take a message with buttons back.
pub trait Presenter: Send + Sync {
    /// Puts the question to people. True when at least one of them is going to see it: then the asker waits for an
    /// answer. Must not block: queue what has to be sent.
    fn present(&self, record: &Record) -> bool;
}

/// The ledger, and word of its changes.
pub struct Approvals {
    ledger: Mutex<Ledger>,
    /// Counts the approvals that ended.
    ended: watch::Sender<u64>,
    presenters: RwLock<Vec<Arc<dyn Presenter>>>,
}

impl Default for Approvals {
    fn default() -> Self {
        Self { ledger: Mutex::default(), ended: watch::Sender::new(0), presenters: RwLock::default() }
    }
}

impl fmt::Debug for Approvals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Approvals").field("ledger", &self.ledger).finish_non_exhaustive()
    }
}

impl Approvals {
    /// Works on the ledger. `work` runs under its lock: keep it short.
    pub fn with<R>(&self, work: impl FnOnce(&mut Ledger) -> R) -> R {
        let mut ledger = self.lock();
        let before = ledger.endings();
        let result = work(&mut ledger);
        let changed = ledger.endings() != before;
        drop(ledger);
        if changed {
            self.ended.send_modify(|count| *count += 1);
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds somebody who shows questions to people, for as long as the gateway runs.
    pub fn add_presenter(&self, presenter: Arc<dyn Presenter>) {
        self.presenters.write().unwrap_or_else(PoisonError::into_inner).push(presenter);
    }

    /// Gives a question to everybody inside the gateway who shows them. Returns how many do.
    fn present(&self, record: &Record) -> usize {
        let presenters = self.presenters.read().unwrap_or_else(PoisonError::into_inner).clone();
        presenters.iter().filter(|presenter| presenter.present(record)).count()
    }

    /// Waits until the approval ends and hands the outcome over to whoever asked; `None` when there is no such approval any
    /// more or the gateway stops.
    pub async fn wait(&self, id: &str, stop: &CancellationToken) -> Option<(Record, Ended)> {
        self.await_end(id, stop, |ledger, now| ledger.hand_over(now, id)).await
    }

    /// Waits until the approval ends, for those who show it; nothing becomes redeemable for longer by it.
    pub async fn ending(&self, id: &str, stop: &CancellationToken) -> Option<(Record, Ended)> {
        self.await_end(id, stop, |ledger, _| {
            let record = ledger.get(id)?;
            Some((record.clone(), record.ended()?.clone()))
        })
        .await
    }

    async fn await_end(
        &self,
        id: &str,
        stop: &CancellationToken,
        take: impl Fn(&mut Ledger, i64) -> Option<(Record, Ended)>,
    ) -> Option<(Record, Ended)> {
        let mut changes = self.ended.subscribe();
        loop {
            changes.mark_unchanged();
            let left_ms = {
                let now = now_ms();
                let waited = self.with(|ledger| {
                    ledger.sweep(now);
                    let record = ledger.get(id)?;
                    match record.ended() {
                        Some(_) => take(ledger, now).map(Ok),
                        None => Some(Err(record.expires_at_ms - now)),
                    }
                });
                match waited? {
                    Ok(done) => return Some(done),
                    Err(left_ms) => left_ms,
                }
            };
            let left = Duration::from_millis(u64::try_from(left_ms).unwrap_or(0) + 1);
            tokio::select! {
                () = stop.cancelled() => return None,
                changed = changes.changed() => changed.ok()?,
                () = tokio::time::sleep(left) => {}
            }
        }
    }
}

/// Who looks at approvals through this connection.
pub fn viewer(connection: &Connection) -> Viewer<'_> {
    Viewer {
        admin: connection.scopes.grants(Scope::Admin),
        device: connection.device.as_ref(),
        connection: connection.number,
        run: None,
    }
}

/// Decides an approval by its id or the beginning of it, and tells everybody who could see it, in that order. False when
/// it had been decided so before. `by` is a name for people.
///
/// # Errors
/// [`Refused`]; nothing was decided.
pub fn decide(
    gateway: &Gateway,
    viewer: &Viewer<'_>,
    id: &str,
    decision: Decision,
    by: &str,
    resolver: ApprovalResolver,
) -> Result<bool, Refused> {
    let now = now_ms();
    let decided =
        gateway.approvals.with(|ledger| ledger.decide(now, id, viewer, decision, Some(by.to_owned()), resolver))?;
    let Some(record) = decided else { return Ok(false) };
    tracing::info!(id = record.id, node = node_of(&record), by, %decision, "decided about a command");
    let request = record.request.clone();
    let resolved_by = Some(by.to_owned());
    let event = ApprovalResolvedEvent { id: record.id.clone(), decision, resolved_by, ts: now, request };
    announce_decision(&gateway.hub, &record, &event);
    Ok(true)
}

/// Puts a question before everybody who can answer it, apart from the connection that asks. Returns how many there are.
pub fn put_to_people(gateway: &Gateway, asking: Option<u64>, record: &Record) -> usize {
    announce(&gateway.hub, asking, record) + gateway.approvals.present(record)
}

/// A node id as the log shows it.
pub(crate) fn node_of(record: &Record) -> Option<&str> {
    record.request.node_id.as_deref().map(|id| id.get(..8).unwrap_or(id))
}

/// True for a connection that can show approvals to a person. In protocol 3 every operator with the scope counts.
fn shows_approvals(connection: &Connection) -> bool {
    let client = &connection.params.client.id;
    let says_so = || connection.params.caps.iter().any(|cap| UI_CAPS.contains(&cap.as_str()));
    connection.protocol == Protocol::V3 || UI_CLIENTS.contains(&client.as_str()) || says_so()
}

fn announce(hub: &Hub, asking: Option<u64>, record: &Record) -> usize {
    let payload = |protocol: Protocol| PendingApproval {
        approval_kind: (protocol == Protocol::V4).then(|| "exec".to_owned()),
        ..pending(record)
    };
    let wanted = |c: &Connection| Some(c.number) != asking && shows_approvals(c) && record.is_visible_to(&viewer(c));
    hub.send_where(EXEC_APPROVAL_REQUESTED, payload, wanted)
}

fn announce_decision(hub: &Hub, record: &Record, event: &ApprovalResolvedEvent) {
    let wanted = |c: &Connection| shows_approvals(c) && record.is_visible_to(&viewer(c));
    hub.send_where(EXEC_APPROVAL_RESOLVED, |_| event, wanted);
}

/// The record as lists show it.
pub fn pending(record: &Record) -> PendingApproval {
    PendingApproval {
        approval_kind: Some("exec".into()),
        id: record.id.clone(),
        request: record.request.clone(),
        created_at_ms: record.created_at_ms,
        expires_at_ms: record.expires_at_ms,
    }
}
