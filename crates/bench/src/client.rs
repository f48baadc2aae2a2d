//! The measuring client: TCP, WebSocket upgrade, challenge, connect, hello, and requests kept under way.
//!
//! It does the same work for every subject: each incoming frame is scanned as JSON as far as its head, payloads are never
//! built.

use std::{
    borrow::Cow,
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::{SinkExt as _, StreamExt as _};
use openclaw_protocol::{DeviceKey, Protocol, connect::ConnectParams, fingerprint::Fingerprint};
use openclaw_remote::tls;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Message, Utf8Bytes, protocol::WebSocketConfig},
};

use crate::stats::Samples;

/// Whatever carries the bytes.
pub trait Wire: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Wire for T {}

pub type Ws = WebSocketStream<Box<dyn Wire>>;

/// One answer must not take longer than this.
const STEP: Duration = Duration::from_secs(30);

/// Where to connect, and with what.
#[derive(Clone, Debug)]
pub struct Target {
    pub address: SocketAddr,
    pub via: Via,
    pub token: String,
    /// Answers carry no request id and come in order (the bare echo).
    pub in_order: bool,
}

/// How to get to a target.
#[derive(Clone, Debug, Default)]
pub enum Via {
    #[default]
    Tcp,
    /// TLS to the address, with the pin of its certificate.
    Tls(Fingerprint),
}

/// Who a connection says it is.
#[derive(Clone)]
pub struct Identity {
    client_id: &'static str,
    mode: &'static str,
    role: &'static str,
    platform: &'static str,
    scopes: &'static [&'static str],
    commands: &'static [&'static str],
    pub key: Option<DeviceKey>,
}

const OPERATOR_SCOPES: &[&str] = &["operator.admin", "operator.read", "operator.write", "operator.pairing"];

impl Target {
    async fn dial(&self) -> Result<Box<dyn Wire>> {
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        match &self.via {
            Via::Tls(pin) => Ok(Box::new(tls::connect(tcp, self.address.ip().into(), Some(*pin)).await?)),
            Via::Tcp => Ok(Box::new(tcp)),
        }
    }
}

impl Identity {
    /// An operator without a device: the shared token alone, as a local backend connects.
    pub fn backend() -> Self {
        Self {
            client_id: "gateway-client",
            mode: "backend",
            role: "operator",
            platform: "linux",
            scopes: OPERATOR_SCOPES,
            commands: &[],
            key: None,
        }
    }

    /// An operator that proves an Ed25519 device key with each connect.
    pub fn device(seed: u8) -> Self {
        Self { client_id: "cli", mode: "cli", key: Some(DeviceKey::from_seed(&[seed; 32])), ..Self::backend() }
    }

    /// A node that declares `commands`.
    pub fn node(seed: u16, commands: &'static [&'static str]) -> Self {
        let mut key = [200; 32];
        key[..2].copy_from_slice(&seed.to_le_bytes());
        Self {
            client_id: "node-host",
            mode: "node",
            role: "node",
            platform: "macos",
            scopes: &[],
            commands,
            key: Some(DeviceKey::from_seed(&key)),
        }
    }

    fn params(&self, target: &Target, challenge: &Challenge<'_>) -> Result<Value> {
        let mut params = json!({
            "minProtocol": 3, "maxProtocol": 4,
            "client": { "id": self.client_id, "version": env!("CARGO_PKG_VERSION"),
                        "platform": self.platform, "mode": self.mode },
            "role": self.role, "scopes": self.scopes, "caps": [], "commands": self.commands,
        });
        if !target.token.is_empty() {
            params["auth"] = json!({ "token": target.token });
        }
        let mut params = ConnectParams::parse(&params).map_err(|e| anyhow::anyhow!("own connect params: {e:?}"))?;
        if let Some(key) = &self.key {
            params.sign(key, &challenge.nonce, challenge.ts);
        }
        Ok(params.to_wire(Protocol::V4))
    }
}

#[derive(Deserialize)]
struct Challenge<'a> {
    #[serde(borrow)]
    nonce: Cow<'a, str>,
    ts: i64,
}

/// The head of a frame; the payload is delimited and not built.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    event: Option<Cow<'a, str>>,
    #[serde(default)]
    ok: Option<bool>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

/// An authenticated connection.
pub struct Conn {
    pub ws: Ws,
    /// Size of the hello-ok frame.
    pub hello_bytes: usize,
    in_order: bool,
}

impl Conn {
    pub async fn open(target: &Target, who: &Identity) -> Result<Self> {
        timeout(STEP, Self::open_inner(target, who)).await.context("connect timed out")?
    }

    async fn open_inner(target: &Target, who: &Identity) -> Result<Self> {
        let wire = target.dial().await?;
        let config = WebSocketConfig::default().read_buffer_size(16 * 1024).max_message_size(None).max_frame_size(None);
        let url = format!("ws://{}/", target.address);
        let (mut ws, _) = client_async_with_config(url, wire, Some(config)).await?;
        let first = next_text(&mut ws).await?;
        let head: Head<'_> = serde_json::from_str(&first)?;
        ensure!(head.event.as_deref() == Some("connect.challenge"), "expected connect.challenge, got {first}");
        let challenge = serde_json::from_str(head.payload.map_or("", RawValue::get))?;
        let params = who.params(target, &challenge)?;
        ws.send(Message::text(request("connect", "connect", &params))).await?;
        let mut conn = Self { ws, hello_bytes: 0, in_order: target.in_order };
        conn.hello_bytes = conn.answer("connect").await?.len();
        Ok(conn)
    }

    /// One request and its payload; frames for others are dropped.
    pub async fn call(&mut self, method: &str, params: Value) -> Result<Value> {
        self.ws.send(Message::text(request("call", method, &params))).await?;
        let frame = timeout(STEP, self.answer("call")).await.with_context(|| format!("{method} timed out"))??;
        let head: Head<'_> = serde_json::from_str(&frame)?;
        Ok(head.payload.map_or(Ok(Value::Null), |payload| serde_json::from_str(payload.get()))?)
    }

    /// The frame that answers `id`.
    async fn answer(&mut self, id: &str) -> Result<Utf8Bytes> {
        loop {
            let text = next_text(&mut self.ws).await?;
            let head: Head<'_> = serde_json::from_str(&text)?;
            if head.kind == "res" && (self.in_order || head.id.as_deref() == Some(id)) {
                ensure!(head.ok == Some(true), "refused: {}", head.error.map_or("", RawValue::get));
                return Ok(text);
            }
        }
    }

    /// Sends `count` requests keeping `depth` under way; answers may come in any order. Returns the latencies and the
    /// mean size of an answer in bytes.
    pub async fn pump(
        &mut self,
        count: usize,
        depth: usize,
        frame: impl Fn(usize) -> String,
    ) -> Result<(Samples, usize)> {
        let (mut latencies, mut bytes) = (Samples::default(), 0);
        let mut under_way: VecDeque<(usize, Instant)> = VecDeque::with_capacity(depth);
        let mut sent = 0;
        while latencies.len() < count {
            while sent < count && under_way.len() < depth {
                under_way.push_back((sent, Instant::now()));
                self.ws.feed(Message::text(frame(sent))).await?;
                sent += 1;
            }
            self.ws.flush().await?;
            let text = timeout(STEP, next_text(&mut self.ws)).await.context("an answer did not come")??;
            let head: Head<'_> = serde_json::from_str(&text)?;
            if head.kind != "res" {
                continue;
            }
            ensure!(head.ok == Some(true), "refused: {}", head.error.map_or("", RawValue::get));
            let at = if self.in_order {
                Some(0)
            } else {
                let id = head.id.as_deref().and_then(|id| id.parse::<usize>().ok());
                under_way.iter().position(|(sent, _)| Some(*sent) == id)
            };
            if let Some((_, since)) = at.and_then(|at| under_way.remove(at)) {
                latencies.push(since.elapsed());
                bytes += text.len();
            }
        }
        Ok((latencies, bytes / count.max(1)))
    }

    /// Closes and waits for the gateway to say so too: a socket dropped at once leaves packets on its way that the next
    /// connect through the same tunnel would wait for.
    pub async fn close(mut self) {
        let farewell = async {
            self.ws.close(None).await?;
            while let Some(message) = self.ws.next().await {
                message?;
            }
            anyhow::Ok(())
        };
        let _ = timeout(Duration::from_secs(1), farewell).await;
    }
}

/// A request frame.
pub fn request(id: &str, method: &str, params: &Value) -> String {
    json!({ "type": "req", "id": id, "method": method, "params": params }).to_string()
}

/// The next text message.
pub async fn next_text(ws: &mut Ws) -> Result<Utf8Bytes> {
    loop {
        match ws.next().await.context("the connection ended")?? {
            Message::Text(text) => return Ok(text),
            Message::Close(Some(frame)) => bail!("closed by the gateway: {} {}", frame.code, frame.reason),
            Message::Close(None) => bail!("closed by the gateway"),
            Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
}

/// Reads an event and its payload; `None` for any other frame.
pub fn event_payload<'a, T: Deserialize<'a>>(text: &'a str, name: &str) -> Option<T> {
    let head: Head<'_> = serde_json::from_str(text).ok()?;
    (head.event.as_deref() == Some(name)).then(|| serde_json::from_str(head.payload?.get()).ok())?
}
