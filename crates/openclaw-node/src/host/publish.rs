//! What a node says after hello on protocol 4. None of it is needed to serve requests, and every refusal is borne.

use std::{sync::Arc, time::Duration};

use openclaw_remote::{Client, Error};
use serde_json::{Value, json};
use tokio::sync::mpsc;

const LIMIT: Duration = Duration::from_secs(30);

/// What the gateway's answers say about this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// What this node offers was approved.
    Accepted,
    /// It waits for the owner, under this request id where the gateway names it.
    Waiting(Option<String>),
}

/// The four publications of the reference's node host. Answers `None`, as tasks without a request do.
pub(super) async fn everything(client: Arc<Client>, say: mpsc::Sender<Heard>, sample: Option<Value>) -> Option<String> {
    // As captured (`node-run-pair-invoke`): the real gateway takes no inventory without the feature's name, which binds
    // to nothing where no workers are hosted.
    let inventory = json!({"protocolFeatures": ["node-worker-supervisor-v6"], "workerHost": {"enabled": false}});
    let call = |method: &'static str, params: Value| client.call(method, Some(params), LIMIT);
    let (_, inventory, _, _) = tokio::join!(
        stats(Arc::clone(&client), sample),
        call("node.runnerInventory.update", inventory),
        call("node.skills.update", json!({"skills": []})),
        call("node.pluginTools.update", json!({"tools": []})),
    );
    let heard = match inventory {
        Ok(_) => Some(Heard::Accepted),
        Err(error) => waiting(&error),
    };
    if let Some(heard) = heard {
        // The other end is this connection's loop; if it is gone, so is the reason to tell.
        let _ = say.send(heard).await;
    }
    None
}

/// How this machine is doing.
pub(super) async fn stats(client: Arc<Client>, sample: Option<Value>) -> Option<String> {
    let sample = sample?;
    let params = json!({"event": "node.host.stats", "payloadJSON": sample.to_string()});
    // Before the owner approved anything the answer is a refusal.
    let _ = client.call("node.event", Some(params), LIMIT).await;
    None
}

/// Reads `… is awaiting operator approval; run `openclaw nodes approve <id>` …`.
fn waiting(error: &Error) -> Option<Heard> {
    let message = &error.shape()?.message;
    if !message.contains("approv") {
        return None;
    }
    let id = message
        .split("nodes approve ")
        .nth(1)
        .map(|rest| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').take(64).collect::<String>());
    Some(Heard::Waiting(id.filter(|id| !id.is_empty())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use openclaw_protocol::ErrorShape;

    /// `node-run-pair-invoke`.
    #[test]
    fn the_request_to_approve_is_named() {
        let of = |message: &str| waiting(&Error::Unavailable(Box::new(ErrorShape::unavailable(message))));
        assert_eq!(
            of("node capability surface is awaiting operator approval; run `openclaw nodes approve \
                0fd576c4-ad05-4add-b3b5-cd03e3dd6c0e` (see `openclaw nodes pending`), then this node retries automatically"),
            Some(Heard::Waiting(Some("0fd576c4-ad05-4add-b3b5-cd03e3dd6c0e".into())))
        );
        assert_eq!(of("node capability surface was not approved"), Some(Heard::Waiting(None)));
        assert_eq!(of("gateway is draining"), None);
    }
}
