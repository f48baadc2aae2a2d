//! The gateway's side of one WebSocket.

use std::{sync::Arc, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use super::{APPLICATION, Order, State, bot_object};

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Counts the socket out again, however it ends.
struct Live<'a>(&'a State);

impl Drop for Live<'_> {
    fn drop(&mut self) {
        self.0.lock().live -= 1;
        self.0.touch();
    }
}

pub async fn run(state: Arc<State>, mut socket: Socket) {
    let mut orders = state.orders.subscribe();
    let heartbeat = state.lock().heartbeat_ms;
    let hello = json!({"op": 10, "d": {"heartbeat_interval": heartbeat, "_trace": ["double"]}});
    if socket.send(Message::text(hello.to_string())).await.is_err() {
        return;
    }
    let Some(sent) = login(&state, &mut socket, &mut orders).await else { return };
    state.lock().live += 1;
    state.touch();
    let _live = Live(&state);
    serve(&state, &mut socket, orders, sent).await;
}

/// Until the session is live; the last number that was sent.
async fn login(state: &State, socket: &mut Socket, orders: &mut broadcast::Receiver<Order>) -> Option<u64> {
    loop {
        let message = tokio::select! {
            message = socket.next() => message,
            order = orders.recv() => {
                match order {
                    Ok(Order::Frame(..)) | Err(RecvError::Lagged(_)) => {}
                    Ok(order) => obey(socket, order).await?,
                    Err(RecvError::Closed) => return None,
                }
                continue;
            }
        };
        let Some(Ok(message)) = message else { return None };
        let Message::Text(text) = message else { continue };
        let Ok(frame) = serde_json::from_str::<Value>(text.as_str()) else {
            close(socket, 4002).await;
            return None;
        };
        match frame["op"].as_u64() {
            Some(1) => beat(state, socket, &frame).await?,
            Some(2) => return identify(state, socket, &frame["d"]).await,
            Some(6) => match resume(state, socket, &frame["d"]).await? {
                Some(sent) => return Some(sent),
                None => continue,
            },
            _ => {
                close(socket, 4003).await;
                return None;
            }
        }
    }
}

async fn identify(state: &State, socket: &mut Socket, data: &Value) -> Option<u64> {
    let (code, frames) = {
        let mut inner = state.lock();
        inner.identifies.push(data.clone());
        let code = match inner.close_on_identify.take() {
            Some(code) => Some(code),
            None if data["token"] != inner.token.as_str() => Some(4004),
            None if data["intents"].as_u64().is_none() || !data["properties"].is_object() => Some(4002),
            None => None,
        };
        let mut frames = Vec::new();
        if code.is_none() {
            inner.sessions += 1;
            inner.session = format!("session-{}", inner.sessions);
            (inner.seq, inner.log) = (0, Vec::new());
            inner.starts.0 = inner.starts.0.saturating_sub(1);
            let unavailable: Vec<Value> =
                inner.guilds.iter().map(|guild| json!({"id": guild["id"], "unavailable": true})).collect();
            let ready = json!({"v": 10, "user": bot_object(), "guilds": unavailable, "session_id": inner.session,
                "resume_gateway_url": format!("ws://{}/resume", state.address), "session_type": "normal",
                "application": {"id": APPLICATION, "flags": 0}});
            frames.push(inner.frame("READY", ready));
            for guild in inner.guilds.clone() {
                frames.push(inner.frame("GUILD_CREATE", guild));
            }
        }
        (code, frames)
    };
    state.touch();
    if let Some(code) = code {
        close(socket, code).await;
        return None;
    }
    send_all(socket, frames).await
}

/// `None` when the socket is gone, `Some(None)` when the session is.
async fn resume(state: &State, socket: &mut Socket, data: &Value) -> Option<Option<u64>> {
    enum Verdict {
        Close(u16),
        Invalid,
        Replay(Vec<(u64, String)>),
    }
    let verdict = {
        let mut inner = state.lock();
        inner.resumes.push(data.clone());
        let seq = data["seq"].as_u64();
        if data["token"] != inner.token.as_str() {
            Verdict::Close(4004)
        } else if std::mem::take(&mut inner.forget_session) || data["session_id"] != inner.session.as_str() {
            Verdict::Invalid
        } else if seq.is_none_or(|seq| seq > inner.seq) {
            Verdict::Close(4007)
        } else {
            let after = |(number, _): &&(u64, String)| seq.is_some_and(|seq| *number > seq);
            let mut frames: Vec<(u64, String)> = inner.log.iter().filter(after).cloned().collect();
            frames.push(inner.frame("RESUMED", json!({"_trace": ["double"]})));
            Verdict::Replay(frames)
        }
    };
    state.touch();
    match verdict {
        Verdict::Close(code) => {
            close(socket, code).await;
            None
        }
        Verdict::Invalid => {
            let invalid = json!({"op": 9, "d": false}).to_string();
            socket.send(Message::text(invalid)).await.ok().map(|()| None)
        }
        Verdict::Replay(frames) => send_all(socket, frames).await.map(Some),
    }
}

async fn send_all(socket: &mut Socket, frames: Vec<(u64, String)>) -> Option<u64> {
    let mut last = 0;
    for (seq, frame) in frames {
        socket.send(Message::text(frame)).await.ok()?;
        last = seq;
    }
    Some(last)
}

async fn serve(state: &State, socket: &mut Socket, mut orders: broadcast::Receiver<Order>, mut sent: u64) {
    // Events between the login and now.
    let missed: Vec<(u64, String)> = state.lock().log.iter().filter(|(seq, _)| *seq > sent).cloned().collect();
    if let Some(last) = send_all(socket, missed).await {
        sent = sent.max(last);
    }
    loop {
        let outcome = tokio::select! {
            order = orders.recv() => match order {
                Ok(Order::Frame(seq, frame)) if seq > sent => {
                    sent = seq;
                    socket.send(Message::text(frame)).await.ok()
                }
                Ok(Order::Frame(..)) | Err(RecvError::Lagged(_)) => Some(()),
                Ok(order) => obey(socket, order).await,
                Err(RecvError::Closed) => None,
            },
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => match serde_json::from_str::<Value>(text.as_str()) {
                    Ok(frame) if frame["op"] == 1 => beat(state, socket, &frame).await,
                    Ok(_) => Some(()),
                    Err(_) => {
                        close(socket, 4002).await;
                        None
                    }
                },
                Some(Ok(Message::Close(_)) | Err(_)) | None => None,
                Some(Ok(_)) => Some(()),
            },
        };
        if outcome.is_none() {
            return;
        }
    }
}

/// `None` when the socket is gone.
async fn obey(socket: &mut Socket, order: Order) -> Option<()> {
    match order {
        Order::Raw(text) => socket.send(Message::text(text)).await.ok(),
        Order::Close(code) => {
            close(socket, code).await;
            None
        }
        Order::Drop => None,
        Order::Frame(..) => Some(()),
    }
}

async fn beat(state: &State, socket: &mut Socket, frame: &Value) -> Option<()> {
    let deaf = {
        let mut inner = state.lock();
        inner.heartbeats.push(frame["d"].clone());
        inner.deaf
    };
    state.touch();
    match deaf {
        true => Some(()),
        false => socket.send(Message::text(json!({"op": 11, "d": null}).to_string())).await.ok(),
    }
}

async fn close(socket: &mut Socket, code: u16) {
    let frame = CloseFrame { code: CloseCode::from(code), reason: "".into() };
    let _ = socket.close(Some(frame)).await;
    // So that the close frame is read before the connection is gone.
    let _ =
        tokio::time::timeout(Duration::from_secs(2), async { while let Some(Ok(_)) = socket.next().await {} }).await;
}
