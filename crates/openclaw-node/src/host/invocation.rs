//! One `node.invoke.request`, from its frame to its result.

use std::{sync::Arc, time::Duration};

use openclaw_protocol::method::node::{InvokeProgressParams, InvokeRequest};
use openclaw_remote::Client;
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    command::{Call, Failure, Report, Toolbox},
    exec::process::Chunk,
};

/// How long the gateway may take to acknowledge a frame of ours.
const ACKNOWLEDGED: Duration = Duration::from_secs(30);
/// How long reports of a cancelled request may still take.
const LAST_REPORTS: Duration = Duration::from_secs(1);
/// Progress and reports waiting to be sent.
const QUEUE: usize = 64;
/// Largest result: a frame holds 25 MiB, and the result's text is quoted once more in it.
const MAX_RESULT_BYTES: usize = 24 << 20;

pub(super) struct Invocation {
    pub client: Arc<Client>,
    pub toolbox: Arc<Toolbox>,
    pub request: InvokeRequest,
    /// The command is one this node declared.
    pub offered: bool,
    pub cancel: CancellationToken,
}

/// Does it and answers. A request that was cancelled is not answered: nobody waits for it.
pub(super) async fn run(invocation: Invocation) {
    let Invocation { client, toolbox, request, offered, cancel } = &invocation;
    if !offered {
        let failure = Failure::unavailable("command not supported");
        return answer(client, request, Err(failure)).await;
    }
    let (progress, chunks) = mpsc::channel(QUEUE);
    let (reports, events) = mpsc::channel(QUEUE);
    let call = Call {
        command: request.command.clone(),
        params: request.params_json.clone(),
        protocol: client.protocol(),
        cancel: cancel.clone(),
        progress,
        reports,
    };
    let limit = request.timeout_ms.filter(|ms| *ms > 0).map(Duration::from_millis);
    let work = async move {
        let mut work = std::pin::pin!(toolbox.run(&call));
        let Some(limit) = limit else { return work.await };
        match timeout(limit, &mut work).await {
            Ok(outcome) => outcome,
            Err(_) => {
                // Whoever asked has given up. The command still ends in order, so that nothing of it is left.
                cancel.cancel();
                let _ = work.await;
                Err(Failure::new("TIMEOUT", "node invoke timed out"))
            }
        }
    };
    // The channels close with the call: chunks end before the result, and a slow answer to a report delays nothing.
    let mut reporting = std::pin::pin!(report(client, events));
    let mut working = std::pin::pin!(async { tokio::join!(work, forward(client, request, chunks)).0 });
    let (outcome, reported) = tokio::select! {
        outcome = &mut working => (outcome, false),
        () = &mut reporting => (working.await, true),
    };
    let rest = async {
        if reported {
            return;
        }
        tokio::select! {
            () = &mut reporting => (),
            () = async { cancel.cancelled().await; sleep(LAST_REPORTS).await } => (),
        }
    };
    let timed_out = outcome.as_ref().is_err_and(|failure| failure.code == "TIMEOUT");
    if cancel.is_cancelled() && !timed_out {
        return rest.await;
    }
    tokio::join!(biased; rest, answer(client, request, outcome));
}

/// Answers that too much is under way.
pub(super) async fn refuse_busy(invocation: Invocation) {
    let failure = Failure::new("BUSY", "too much runs on this node already");
    answer(&invocation.client, &invocation.request, Err(failure)).await;
}

async fn answer(client: &Client, request: &InvokeRequest, outcome: Result<Value, Failure>) {
    let outcome = outcome.map(|payload| payload.to_string()).and_then(|payload| {
        let fits = payload.len() <= MAX_RESULT_BYTES;
        fits.then_some(payload).ok_or_else(|| Failure::new("RESULT_TOO_LARGE", "the result is larger than 24 MiB"))
    });
    let params = match outcome {
        Ok(payload) => json!({"id": request.id, "nodeId": request.node_id, "ok": true, "payloadJSON": payload}),
        Err(failure) => json!({
            "id": request.id, "nodeId": request.node_id, "ok": false,
            "error": {"code": failure.code, "message": failure.message},
        }),
    };
    if let Err(error) = client.call("node.invoke.result", Some(params), ACKNOWLEDGED).await {
        tracing::warn!(command = request.command, %error, "a result did not reach the gateway");
    }
}

/// `node.invoke.progress`, numbered from 0, in order.
async fn forward(client: &Client, request: &InvokeRequest, mut chunks: mpsc::Receiver<Chunk>) {
    let mut seq = 0_u64;
    while let Some(Chunk { text, stderr }) = chunks.recv().await {
        let params = InvokeProgressParams {
            invoke_id: request.id.clone(),
            node_id: request.node_id.clone(),
            seq,
            chunk: text,
            stderr,
        };
        seq += 1;
        let sent = client.call("node.invoke.progress", serde_json::to_value(params).ok(), ACKNOWLEDGED).await;
        if sent.is_err() {
            // The result says it all again.
            chunks.close();
            return;
        }
    }
}

async fn report(client: &Client, mut events: mpsc::Receiver<Report>) {
    while let Some(Report { event, payload }) = events.recv().await {
        let params = json!({"event": event, "payloadJSON": payload.to_string()});
        // Older gateways do not know it; nothing depends on it.
        let _ = client.call("node.event", Some(params), ACKNOWLEDGED).await;
    }
}
