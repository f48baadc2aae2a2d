//! After a start: what a crash or a stop left undone.
//!
//! | found on disk | what happens |
//! |---|---|
//! | waiting | runs |
//! | under way, nothing said yet | runs again from its message: nobody saw anything |
//! | under way, tools finished | goes on from the transcript |
//! | a tool with effects had begun | its answer says that whether it took effect is not known; the turn goes on |
//! | a command with effects had begun | the same, in the reply |
//! | ended, reply not sent | is sent, from the first piece that was not |
//! | ended, a piece was being sent | is not repeated; the person is told once |

use std::sync::Arc;

use super::{
    RunOutcome, RunStatus, command,
    delivery::{self, Job},
    live::Live,
    pump,
    record::{Delivery, RunChange, RunRow, StartedTool, State, StoredRequest},
};
use crate::{clock::now_ms, gateway::Gateway, store::StoreError};

/// Ended runs are remembered this long: a week. The same message id is the same message for as long.
const REMEMBERED_MS: i64 = 7 * 24 * 3_600_000;

/// Puts everything back in line. For the start, before anybody can ask for more; what was found begins once
/// [`begin`] is called.
///
/// # Errors
/// When the rows cannot be read.
pub async fn load(gateway: &Arc<Gateway>) -> Result<(), StoreError> {
    let prune = RunChange::Prune { before_ms: now_ms() - REMEMBERED_MS };
    gateway.store.commit([prune]).await?;
    let mut open = gateway.store.read(crate::store::runs::open).await?;
    // What ran goes before what waited behind it.
    open.sort_by_key(|(row, _)| row.state != State::Running);
    let (mut runs, mut replies) = (0, 0);
    for (row, tools) in open {
        let request = match serde_json::from_str::<StoredRequest>(&row.request) {
            Ok(stored) => stored.into_request(row.run_id.clone(), row.session.clone()),
            Err(error) => {
                tracing::error!(run = row.run_id.0, "a message cannot be read and is given up: {error}");
                give_up(gateway, &row).await?;
                continue;
            }
        };
        if row.state == State::Ended {
            let Some(outcome) = row.outcome else { continue };
            let job = Job::of(&request, Arc::new(outcome), row.delivery, true);
            let waiting = &mut gateway.runs.lock().recovered;
            replies += usize::from(job.is_some());
            waiting.extend(job);
            continue;
        }
        runs += 1;
        let command = command::of(&request);
        let mut live = Live::new(request, row.digest, row.submitted_ms, command);
        live.resumed = (row.state == State::Running).then_some(tools as Vec<StartedTool>);
        if row.delivery != Delivery::None {
            live.set_delivery(row.delivery);
        }
        live.set_kept(true);
        let live = Arc::new(live);
        let mut state = gateway.runs.lock();
        state.live.insert(live.id().clone(), Arc::clone(&live));
        match live.command {
            Some(_) => state.commands.push_back(live),
            None => state.lanes.restore(&live.request.session, live.id().clone()),
        }
    }
    if runs + replies > 0 {
        tracing::info!(runs, replies, "taking up what was left undone");
    }
    Ok(())
}

/// Begins what [`load`] found.
pub fn begin(gateway: &Arc<Gateway>) {
    let replies = std::mem::take(&mut gateway.runs.lock().recovered);
    for reply in replies {
        delivery::enqueue(gateway, reply);
    }
    pump(gateway);
}

async fn give_up(gateway: &Gateway, row: &RunRow) -> Result<(), StoreError> {
    let outcome = RunOutcome {
        status: RunStatus::Error,
        stop: "error".into(),
        error: Some("The message could not be read after a restart; send it again.".into()),
        ..RunOutcome::empty(now_ms())
    };
    let (run_id, outcome) = (row.run_id.clone(), Box::new(outcome));
    gateway.store.commit([RunChange::Ended { run_id, outcome, delivery: Delivery::None }]).await
}
