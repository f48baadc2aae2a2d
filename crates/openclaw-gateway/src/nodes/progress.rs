//! `node.invoke` for an operator who wants output as it comes.
//!
//! OpenClaw gives output only to callers inside its gateway; here a caller may ask for it (`progress: true`) and gets
//! events `node.invoke.progress` to his connection alone, all of them before the answer. When his connection ends, so does
//! the call: whoever watched a program run and left, does not want it to go on.

use openclaw_protocol::{
    ErrorShape,
    event::NODE_INVOKE_PROGRESS,
    limits::DROP_IF_SLOW_BYTES,
    method::node::{InvokeProgress, NodeInvokeParams},
};
use tokio::sync::mpsc;

use super::{invoke::By, live::Piece, policy::Lists};
use crate::{gateway::Gateway, hub::Connection, rpc::registry::Answer};

/// Pieces between the node and the caller; more are lost, and the caller sees the gap.
const QUEUE: usize = 64;

pub(super) async fn invoke(
    gateway: &Gateway,
    caller: &Connection,
    lists: Lists<'_>,
    params: NodeInvokeParams,
) -> Answer {
    let (pieces, heard) = mpsc::channel(QUEUE);
    let (key, node_id) = (params.idempotency_key.clone(), params.node_id.clone());
    let by = By::connection(caller);
    let work = async move { gateway.nodes.invoke_by(&by, lists, &gateway.approvals, params, Some(&pieces)).await };
    let both = async { tokio::join!(work, forward(caller, &key, &node_id, heard)).0 };
    tokio::select! {
        biased;
        answer = both => answer,
        () = caller.outbound.ended() => Err(ErrorShape::unavailable("the caller left")),
    }
}

async fn forward(caller: &Connection, key: &str, node_id: &str, mut heard: mpsc::Receiver<Piece>) {
    while let Some(Piece { seq, text, stderr }) = heard.recv().await {
        // Output is no reason to close a slow caller.
        if caller.outbound.pending_bytes() > DROP_IF_SLOW_BYTES {
            continue;
        }
        let (idempotency_key, node_id) = (key.to_owned(), node_id.to_owned());
        let event = InvokeProgress { idempotency_key, node_id, seq, chunk: text, stderr };
        caller.send_event(NODE_INVOKE_PROGRESS, &event);
    }
}
