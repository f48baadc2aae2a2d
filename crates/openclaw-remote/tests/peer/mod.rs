//! A gateway played by hand: each test says what it sends and sees what it received.
#![allow(dead_code)]

use futures_util::{SinkExt as _, StreamExt as _};
use openclaw_protocol::{
    DeviceKey,
    connect::{ClientInfo, ConnectParams},
    gateway_proof::{GatewayProof, HEADER},
};
use openclaw_remote::{Deadline, Endpoint, GatewayUrl};
use serde_json::{Value, json};
use std::{borrow::Cow, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
        protocol::CloseFrame,
    },
};

pub const NONCE: &str = "0ba0a5a0-a6b5-4a65-8ed4-e19f3798f77b";

pub struct Peer<S = TcpStream> {
    pub socket: WebSocketStream<S>,
    /// What the client asked the gateway to sign.
    pub asked: Option<String>,
}

pub async fn listen() -> (TcpListener, Endpoint) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let port = listener.local_addr().expect("address").port();
    (
        listener,
        Endpoint::Url { url: GatewayUrl::loopback(port), pin: None, allow_private_names: false, edge: Vec::new() },
    )
}

pub fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(10))
}

pub fn params() -> ConnectParams {
    ConnectParams {
        min_protocol: 3,
        max_protocol: 4,
        client: ClientInfo {
            id: "cli".into(),
            version: "dev".into(),
            platform: "linux".into(),
            mode: "cli".into(),
            ..ClientInfo::default()
        },
        role: "operator".into(),
        scopes: vec!["operator.read".into()],
        caps: Vec::new(),
        commands: Vec::new(),
        permissions: serde_json::Map::new(),
        path_env: None,
        device: None,
        auth: openclaw_protocol::connect::AuthBlock::default(),
        user_agent: None,
    }
}

impl Peer<TcpStream> {
    pub async fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().await.expect("accept");
        Self::over(stream).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    pub async fn over(stream: S) -> Self {
        let mut asked = None;
        #[allow(clippy::result_large_err)] // the library's type
        let look = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
            asked = request.headers().get(HEADER).map(|nonce| nonce.to_str().expect("text").to_owned());
            Ok(response)
        };
        let socket = accept_hdr_async(stream, look).await.expect("upgrade");
        Self { socket, asked }
    }

    pub async fn send(&mut self, frame: Value) {
        // The client may have hung up; what it saw is what the test asserts.
        let _ = self.socket.send(Message::text(frame.to_string())).await;
    }

    pub async fn challenge(&mut self) {
        self.send(json!({"type":"event","event":"connect.challenge","payload":{"nonce":NONCE,"ts":1795229493111_i64}}))
            .await;
    }

    /// A challenge with the proof of `key`, over `asked` instead of what was asked if given.
    pub async fn proven_challenge(&mut self, key: &DeviceKey, asked: Option<&str>) {
        let asked = asked.or(self.asked.as_deref()).expect("a nonce");
        let proof = GatewayProof::sign(key, asked, NONCE).expect("a nonce of ours");
        let payload = json!({"nonce": NONCE, "ts": 1795229493111_i64, "gateway": proof});
        self.send(json!({"type":"event","event":"connect.challenge","payload":payload})).await;
    }

    /// The next request; panics when the client goes away instead.
    pub async fn request(&mut self) -> Value {
        self.maybe_request().await.expect("a request")
    }

    pub async fn maybe_request(&mut self) -> Option<Value> {
        loop {
            match self.socket.next().await?.ok()? {
                Message::Text(text) => return Some(serde_json::from_str(&text).expect("JSON")),
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }

    pub async fn answer(&mut self, request: &Value, payload: Value) {
        self.send(json!({"type":"res","id":request["id"],"ok":true,"payload":payload})).await;
    }

    pub async fn refuse(&mut self, request: &Value, error: Value) {
        self.send(json!({"type":"res","id":request["id"],"ok":false,"error":error})).await;
    }

    pub async fn close(&mut self, code: u16, reason: &str) {
        let frame = CloseFrame { code: code.into(), reason: Cow::<str>::Owned(reason.to_owned()).into_owned().into() };
        let _ = self.socket.close(Some(frame)).await;
    }

    /// Challenge, connect, hello. Returns the connect request.
    pub async fn hello(&mut self, protocol: u32, scopes: &[&str]) -> Value {
        self.challenge().await;
        let connect = self.request().await;
        self.answer(&connect, hello_payload(protocol, scopes)).await;
        connect
    }
}

pub fn hello_payload(protocol: u32, scopes: &[&str]) -> Value {
    json!({
        "type": "hello-ok", "protocol": protocol,
        "server": {"version": "2026.9.6", "connId": "c-1"},
        "features": {"methods": ["health"], "events": ["tick"]},
        "snapshot": {"presence": [], "health": {}, "stateVersion": {"presence": 1, "health": 1}, "uptimeMs": 1},
        "auth": {"role": "operator", "scopes": scopes},
        "policy": {"maxPayload": 26214400, "maxBufferedBytes": 52428800, "tickIntervalMs": 30000},
    })
}
