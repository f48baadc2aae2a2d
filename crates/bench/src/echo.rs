//! The limit: a bare WebSocket server on the same runtime and library, doing the framing and nothing else.
//!
//! It sends frames of the sizes it was told (those of our gateway): a challenge on connect, a hello for the first message,
//! a fixed answer for any other. It parses nothing; two words are looked for, because a broadcast needs receivers and a
//! relay needs the other end. It writes once per batch of messages that came in together, so nothing that only frames
//! and echoes can do much better.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};
use tokio_tungstenite::{
    WebSocketStream, accept_async_with_config,
    tungstenite::{Message, Utf8Bytes, protocol::WebSocketConfig},
};

/// Sizes of whole frames in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Args)]
pub struct Sizes {
    #[arg(long, default_value_t = 4000)]
    pub hello_bytes: usize,
    #[arg(long, default_value_t = 1400)]
    pub answer_bytes: usize,
    #[arg(long, default_value_t = 800)]
    pub event_bytes: usize,
}

struct Hub {
    hello: Utf8Bytes,
    answer: Utf8Bytes,
    event_filler: String,
    peers: Mutex<Peers>,
}

#[derive(Default)]
struct Peers {
    next: u64,
    all: HashMap<u64, UnboundedSender<Message>>,
    node: Option<UnboundedSender<Message>>,
    asker: Option<UnboundedSender<Message>>,
}

/// Serves until the process is ended.
pub async fn serve(address: SocketAddr, sizes: Sizes) -> Result<()> {
    let listener = TcpListener::bind(address).await?;
    let hub = Arc::new(Hub {
        hello: padded("hello-ok", sizes.hello_bytes),
        answer: padded("echo", sizes.answer_bytes),
        event_filler: "x".repeat(sizes.event_bytes.saturating_sub(160)),
        peers: Mutex::default(),
    });
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(connection(stream, Arc::clone(&hub)));
    }
}

/// An ok response of `size` bytes.
fn padded(kind: &str, size: usize) -> Utf8Bytes {
    let frame = |filler: &str| {
        json!({ "type": "res", "id": "x", "ok": true, "payload": { "type": kind, "filler": filler } }).to_string()
    };
    let room = size.saturating_sub(frame("").len());
    frame(&"x".repeat(room)).into()
}

async fn connection(stream: TcpStream, hub: Arc<Hub>) -> Result<()> {
    stream.set_nodelay(true)?;
    let config = WebSocketConfig::default().read_buffer_size(4 * 1024);
    let mut ws = accept_async_with_config(stream, Some(config)).await?;
    let challenge = json!({ "type": "event", "event": "connect.challenge",
                            "payload": { "nonce": "00000000-0000-4000-8000-000000000000", "ts": 1 } });
    ws.send(Message::text(challenge.to_string())).await?;
    let (tx, rx) = unbounded_channel();
    let id = hub.with(|peers| {
        peers.next += 1;
        peers.all.insert(peers.next, tx.clone());
        peers.next
    });
    let ended = converse(&mut ws, &hub, tx, rx).await;
    hub.with(|peers| peers.all.remove(&id));
    ended
}

async fn converse(
    ws: &mut WebSocketStream<TcpStream>,
    hub: &Hub,
    me: UnboundedSender<Message>,
    mut outbox: UnboundedReceiver<Message>,
) -> Result<()> {
    let mut greeted = false;
    loop {
        tokio::select! {
            Some(message) = outbox.recv() => {
                ws.feed(message).await?;
                while let Ok(more) = outbox.try_recv() {
                    ws.feed(more).await?;
                }
            }
            message = ws.next() => {
                let mut next = message;
                loop {
                    let Some(message) = next else { return Ok(()) };
                    if let Message::Text(text) = message? && let Some(answer) = hub.answer(&text, &me, &mut greeted) {
                        ws.feed(Message::Text(answer)).await?;
                    }
                    match ws.next().now_or_never() {
                        Some(more) => next = more,
                        None => break,
                    }
                }
            }
        }
        ws.flush().await?;
    }
}

impl Hub {
    fn with<T>(&self, work: impl FnOnce(&mut Peers) -> T) -> T {
        work(&mut self.peers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn answer(&self, text: &str, me: &UnboundedSender<Message>, greeted: &mut bool) -> Option<Utf8Bytes> {
        if !*greeted {
            *greeted = true;
            if text.contains("\"role\":\"node\"") {
                self.with(|peers| peers.node = Some(me.clone()));
            }
            return Some(self.hello.clone());
        }
        if text.contains("\"system-event\"") {
            // The request rides along, so that receivers find its mark in the event.
            let filler = &self.event_filler;
            let event = format!("{{\"type\":\"event\",\"event\":\"presence\",\"payload\":[{text},\"{filler}\"]}}");
            let event = Message::text(event);
            self.with(|peers| peers.all.values().for_each(|peer| drop(peer.send(event.clone()))));
        } else if text.contains("\"node.invoke.result\"") {
            self.with(|peers| peers.asker.as_ref().map(|asker| asker.send(Message::Text(self.answer.clone()))));
        } else if text.contains("\"node.invoke\"") {
            let id = serde_json::from_str::<Value>(text).map(|frame| frame["id"].clone()).unwrap_or_default();
            let ask =
                json!({ "type": "event", "event": "node.invoke.request", "payload": { "id": id, "nodeId": "n" } });
            self.with(|peers| {
                peers.asker = Some(me.clone());
                peers.node.as_ref().map(|node| node.send(Message::text(ask.to_string())))
            });
            return None;
        }
        Some(self.answer.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_the_size_asked_for() {
        for size in [100, 1400, 16_000] {
            assert_eq!(padded("echo", size).len(), size);
        }
    }
}
