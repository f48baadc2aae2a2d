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

pub mod command;
pub mod display;
pub mod ledger;
pub mod prepare;
pub mod redeem;

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use openclaw_protocol::{
    Protocol, Scope,
    event::{EXEC_APPROVAL_REQUESTED, EXEC_APPROVAL_RESOLVED},
    method::exec::{ApprovalResolvedEvent, PendingApproval},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::ledger::{Ended, Ledger, Record, Viewer};
use crate::{
    clock::now_ms,
    hub::{Connection, Hub},
};

/// Clients that show approvals without saying so.
const UI_CLIENTS: [&str; 4] = ["openclaw-control-ui", "openclaw-macos", "openclaw-ios", "openclaw-android"];
const UI_CAPS: [&str; 2] = ["approvals", "exec-approvals"];

/// The ledger, and word of its changes.
#[derive(Debug)]
pub struct Approvals {
    ledger: Mutex<Ledger>,
    /// Counts the approvals that ended.
    ended: watch::Sender<u64>,
}

impl Default for Approvals {
    fn default() -> Self {
        Self { ledger: Mutex::default(), ended: watch::Sender::new(0) }
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

    /// Waits until the approval ends and hands the outcome over; `None` when there is no such approval any more or the
    /// gateway stops.
    pub async fn wait(&self, id: &str, stop: &CancellationToken) -> Option<(Record, Ended)> {
        let mut changes = self.ended.subscribe();
        loop {
            changes.mark_unchanged();
            let left_ms = {
                let now = now_ms();
                let waited = self.with(|ledger| {
                    ledger.sweep(now);
                    let record = ledger.get(id)?;
                    match record.ended() {
                        Some(_) => ledger.hand_over(now, id).map(Ok),
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
    }
}

/// True for a connection that can show approvals to a person. In protocol 3 every operator with the scope counts.
fn shows_approvals(connection: &Connection) -> bool {
    let client = &connection.params.client.id;
    let says_so = || connection.params.caps.iter().any(|cap| UI_CAPS.contains(&cap.as_str()));
    connection.protocol == Protocol::V3 || UI_CLIENTS.contains(&client.as_str()) || says_so()
}

/// Tells those who can decide, apart from whoever asked. Returns how many there are.
pub fn announce(hub: &Hub, asker: u64, record: &Record) -> usize {
    let payload = |protocol: Protocol| PendingApproval {
        approval_kind: (protocol == Protocol::V4).then(|| "exec".to_owned()),
        ..pending(record)
    };
    let wanted = |c: &Connection| c.number != asker && shows_approvals(c) && record.is_visible_to(&viewer(c));
    hub.send_where(EXEC_APPROVAL_REQUESTED, payload, wanted)
}

/// Tells everybody who could see it that it was decided.
pub fn announce_decision(hub: &Hub, record: &Record, event: &ApprovalResolvedEvent) {
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
