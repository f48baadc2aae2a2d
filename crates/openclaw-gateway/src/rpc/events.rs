//! `events.resume`: what a client missed while its connection was broken.

use bytes::Bytes;
use openclaw_protocol::{ErrorShape, method::events::EventsResume};

use super::registry::{Answer, Call, Registry};

pub fn register(registry: &mut Registry) {
    registry.on_shared::<EventsResume>(|call, params| {
        // Each answer may be as long as all that is kept.
        call.gateway.write_limit.charge::<EventsResume>(call)?;
        answer(call, &params.conn_id, params.seq)
    });
}

/// The frames are bytes already; they are put into the answer as they are.
fn answer(call: &Call, conn_id: &str, last_seen: u64) -> Answer {
    let missed = call.gateway.hub.missed(&call.caller, conn_id, last_seen);
    let complete = missed.is_ok();
    let frames = missed.unwrap_or_default();
    let length: usize = frames.iter().map(|frame| frame.len() + 1).sum();
    let mut bytes = Vec::with_capacity(length + 40);
    bytes.extend_from_slice(format!("{{\"complete\":{complete},\"events\":[").as_bytes());
    for (at, frame) in frames.iter().enumerate() {
        if at > 0 {
            bytes.push(b',');
        }
        bytes.extend_from_slice(frame);
    }
    bytes.extend_from_slice(b"]}");
    debug_assert!(serde_json::from_slice::<serde_json::Value>(&bytes).is_ok());
    Ok::<_, ErrorShape>(Bytes::from(bytes))
}
