//! A reply shown in a chat while it grows: one message, sent early and edited then.

use std::{sync::Arc, time::Duration};

use openclaw_channels::message::{Address, Outbound};
use tokio_util::sync::CancellationToken;

use super::{
    Deliver, RunEvent,
    live::Live,
    record::{Delivery, RunChange},
};
use crate::gateway::Gateway;

/// Between two edits: Telegram allows about one message per second in a chat.
const PACE: Duration = Duration::from_millis(1_500);
/// Characters before a first message is worth it.
const WORTH: usize = 40;
/// Characters of a preview; the whole reply follows.
const MAX_CHARS: usize = 3_500;

/// Shows the reply of one run until it is stopped.
pub struct Preview {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Preview {
    /// `None` where replies are not shown early.
    pub fn start(gateway: &Arc<Gateway>, live: &Arc<Live>) -> Option<Self> {
        let (deliver, to) = (Arc::clone(gateway.runs.deliver()?), live.request.deliver.clone()?);
        if !deliver.previews(&to) {
            return None;
        }
        let stop = CancellationToken::new();
        let (gateway, live, ends) = (Arc::clone(gateway), Arc::clone(live), stop.clone());
        let task = tokio::spawn(async move { show(&gateway, &live, &*deliver, &to, &ends).await });
        Some(Self { stop, task })
    }

    /// Ends it. An edit under way is waited for, so that none comes after the whole reply.
    pub async fn end(self) {
        self.stop.cancel();
        let _ = self.task.await;
    }
}

async fn show(gateway: &Gateway, live: &Live, deliver: &dyn Deliver, to: &Address, stop: &CancellationToken) {
    let mut watch = live.watch();
    let mut text = String::new();
    let mut complete = 0;
    let mut shown = String::new();
    let mut id = match live.delivery() {
        Some(Delivery::Preview { message_id }) => match message_id {
            Some(id) => Some(id),
            // One may be there already; a second one would be one too many.
            None => return,
        },
        _ => None,
    };
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            event = watch.next() => {
                match event {
                    Some(RunEvent::Text { delta }) => text.push_str(&delta),
                    Some(RunEvent::ToolStarted { .. }) => complete = text.len(),
                    Some(RunEvent::Discarded) => text.truncate(complete),
                    // Something is missing: no longer a preview of anything.
                    Some(RunEvent::Lagged { .. } | RunEvent::Ended(_)) | None => return,
                    Some(_) => {}
                }
                continue;
            }
            _ = pace.tick() => {}
        }
        let now: String = text.chars().take(MAX_CHARS).collect();
        if now.trim() == shown.trim() || (id.is_none() && now.chars().count() < WORTH) {
            continue;
        }
        let message = Outbound { text: now.clone(), silent: true, ..Outbound::default() };
        match &id {
            Some(id) => {
                // The next one, or the whole reply, says the same and more.
                let _ = deliver.edit(to, id, &message).await;
            }
            None => {
                if note(gateway, live, None).await.is_err() {
                    return;
                }
                let Ok(ids) = deliver.send(to, &message).await else { return };
                let Some(first) = ids.into_iter().next() else { return };
                if note(gateway, live, Some(first.clone())).await.is_err() {
                    return;
                }
                id = Some(first);
            }
        }
        shown = now;
    }
}

async fn note(gateway: &Gateway, live: &Live, message_id: Option<String>) -> Result<(), crate::store::StoreError> {
    let delivery = Delivery::Preview { message_id };
    let change = RunChange::Delivery { run_id: live.id().clone(), delivery: delivery.clone() };
    gateway.store.commit([change]).await?;
    live.set_delivery(delivery);
    Ok(())
}
