//! A client of the Gateway protocol that says whatever a test wants it to say.
//!
//! [`Login`] builds a `connect` request as plain JSON, signs it when it has a device, and can be bent afterwards.
//! [`Client`] is what a hello yields. Unlike a real client it hides nothing: every event is kept, every answer is JSON.

use std::collections::VecDeque;

use openclaw_protocol::{DeviceKey, device::ProofPayload};
use serde_json::{Value, json};

use crate::wire::{Address, Conn, Frame, Reply, frame};

/// A fresh device key.
pub fn new_device() -> DeviceKey {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).expect("the system has randomness");
    DeviceKey::from_seed(&seed)
}

/// Which text a device signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    V3,
    V2,
    V1,
}

/// Milliseconds since the epoch.
pub fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_millis()).expect("fits")
}

type Bend = Box<dyn FnOnce(&mut Value)>;

/// A handshake to be tried.
pub struct Login {
    address: Address,
    headers: Vec<(String, String)>,
    /// `connect.params` but for the device block.
    pub params: Value,
    device: Option<DeviceKey>,
    proof: Proof,
    signed_at: Option<i64>,
    nonce: Option<String>,
    bends: Vec<Bend>,
}

/// How a handshake ended.
#[derive(Debug)]
pub enum Outcome {
    Hello(Client),
    Refused(Refused),
    /// The upgrade itself was refused.
    Http(Reply),
}

/// A refused handshake.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// The `error` object; null when the socket was closed without an answer.
    pub error: Value,
    /// Of the close frame; `None` when there was none.
    pub close: Option<(u16, String)>,
}

impl Refused {
    /// `details.code`, else the top-level code, else nothing.
    pub fn code(&self) -> &str {
        self.error["details"]["code"].as_str().or(self.error["code"].as_str()).unwrap_or("")
    }

    pub fn message(&self) -> &str {
        self.error["message"].as_str().unwrap_or("")
    }
}

impl Login {
    /// The real CLI's way: cli/cli on Linux, protocol 4, scope read, nothing proven.
    pub fn at(address: &Address) -> Self {
        Self {
            address: address.clone(),
            headers: Vec::new(),
            params: json!({
                "minProtocol": 4, "maxProtocol": 4,
                "client": {"id": "cli", "version": "0.0.1", "platform": "linux", "mode": "cli"},
                "role": "operator", "scopes": ["operator.read"],
            }),
            device: None,
            proof: Proof::V3,
            signed_at: None,
            nonce: None,
            bends: Vec::new(),
        }
    }

    /// Sets any field of the parameters by JSON pointer, also one that was not there.
    pub fn set(mut self, pointer: &str, value: impl Into<Value>) -> Self {
        put(&mut self.params, pointer, value.into());
        self
    }

    pub fn token(self, token: &str) -> Self {
        self.set("/auth/token", token)
    }

    pub fn password(self, password: &str) -> Self {
        self.set("/auth/password", password)
    }

    pub fn device_token(self, token: &str) -> Self {
        self.set("/auth/deviceToken", token)
    }

    pub fn scopes(self, scopes: &[&str]) -> Self {
        self.set("/scopes", json!(scopes))
    }

    pub fn protocol(self, min: u32, max: u32) -> Self {
        self.set("/minProtocol", min).set("/maxProtocol", max)
    }

    pub fn client(self, id: &str, mode: &str) -> Self {
        self.set("/client/id", id).set("/client/mode", mode)
    }

    /// A node host in every field but its commands.
    pub fn node(self) -> Self {
        self.client("node-host", "node").set("/role", "node").set("/scopes", json!([]))
    }

    pub fn device(mut self, key: &DeviceKey) -> Self {
        self.device = Some(key.clone());
        self
    }

    /// Which payload the device signs.
    pub fn proof(mut self, proof: Proof) -> Self {
        self.proof = proof;
        self
    }

    /// Signs with this time instead of now.
    pub fn signed_at(mut self, ms: i64) -> Self {
        self.signed_at = Some(ms);
        self
    }

    /// Signs this nonce instead of the one of the challenge.
    pub fn nonce(mut self, nonce: &str) -> Self {
        self.nonce = Some(nonce.to_owned());
        self
    }

    /// Changes the parameters after they were signed.
    pub fn after_signing(mut self, bend: impl FnOnce(&mut Value) + 'static) -> Self {
        self.bends.push(Box::new(bend));
        self
    }

    /// Adds a header to the upgrade request. `Host` replaces the usual one.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn origin(self, origin: &str) -> Self {
        self.header("Origin", origin)
    }

    /// A client behind a proxy that the gateway trusts.
    pub fn forwarded_for(self, client: &str) -> Self {
        self.header("X-Forwarded-For", client)
    }

    /// Upgrades and reads the challenge; the handshake can be finished with [`Opened::finish`].
    ///
    /// # Errors
    /// The HTTP answer, when it is not 101.
    pub fn open(self) -> Result<Opened, Reply> {
        let mut conn = Conn::open(&self.address);
        let headers: Vec<(&str, &str)> = self.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        conn.upgrade(&headers)?;
        let challenge = match conn.message() {
            Frame::Text(text) => serde_json::from_str::<Value>(&text).expect("JSON"),
            other => panic!("no challenge but {other:?}"),
        };
        assert_eq!(challenge["event"], "connect.challenge", "{challenge}");
        let nonce = challenge["payload"]["nonce"].as_str().expect("a nonce").to_owned();
        Ok(Opened { conn, nonce, login: self })
    }

    /// Tries it.
    pub fn attempt(self) -> Outcome {
        match self.open() {
            Ok(opened) => opened.finish(),
            Err(reply) => Outcome::Http(reply),
        }
    }

    /// As [`Login::attempt`], but `None` when the gateway hung up before the challenge: it had no room.
    pub fn attempt_if_open(self) -> Option<Outcome> {
        let mut conn = Conn::try_open(&self.address).ok()?;
        let headers: Vec<(&str, &str)> = self.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        match conn.try_upgrade(&headers) {
            Ok(true) => {}
            Ok(false) | Err(_) => return None,
        }
        match conn.message() {
            Frame::Text(text) => {
                let challenge: Value = serde_json::from_str(&text).expect("JSON");
                let nonce = challenge["payload"]["nonce"].as_str().expect("a nonce").to_owned();
                Some(Opened { conn, nonce, login: self }.finish())
            }
            _ => None,
        }
    }

    /// Tries it; anything but a hello is a panic.
    #[track_caller]
    pub fn hello(self) -> Client {
        match self.attempt() {
            Outcome::Hello(client) => client,
            other => panic!("no hello but {other:?}"),
        }
    }

    /// Tries it; a hello is a panic.
    #[track_caller]
    pub fn refused(self) -> Refused {
        match self.attempt() {
            Outcome::Refused(refused) => refused,
            Outcome::Hello(client) => panic!("hello: {}", client.hello["auth"]),
            Outcome::Http(reply) => panic!("HTTP {}: {}", reply.status, reply.text()),
        }
    }

    /// The outcome in one word: the granted scopes, or the code of the refusal.
    #[track_caller]
    pub fn word(self) -> String {
        match self.attempt() {
            Outcome::Hello(client) => format!("hello [{}]", client.scopes().join(" ")),
            Outcome::Refused(refused) if refused.error.is_null() => format!("closed {:?}", refused.close),
            Outcome::Refused(refused) => refused.code().to_owned(),
            Outcome::Http(reply) => format!("HTTP {}", reply.status),
        }
    }
}

/// A handshake after the challenge.
pub struct Opened {
    pub conn: Conn,
    pub nonce: String,
    login: Login,
}

impl Opened {
    /// The `connect` request as text, signed if there is a device.
    pub fn request(&mut self) -> String {
        let mut params = self.login.params.clone();
        if let Some(key) = &self.login.device {
            let nonce = self.login.nonce.clone().unwrap_or_else(|| self.nonce.clone());
            let signed_at = self.login.signed_at.unwrap_or_else(now_ms);
            prove(&mut params, key, self.login.proof, &nonce, signed_at);
        }
        self.login.bends.drain(..).for_each(|bend| bend(&mut params));
        json!({"type": "req", "id": "c1", "method": "connect", "params": params}).to_string()
    }

    /// Sends the request and reads the answer. A gateway that is gone gives neither an error nor a close frame.
    pub fn finish(mut self) -> Outcome {
        let request = self.request();
        let _ = self.conn.try_send(&frame(0x81, request.as_bytes()));
        self.outcome()
    }

    /// Reads the answer to a request that was sent already.
    pub fn outcome(mut self) -> Outcome {
        let answer = match self.conn.message() {
            Frame::Text(text) => serde_json::from_str::<Value>(&text).expect("JSON"),
            Frame::Close(code, reason) => {
                self.conn.send_close(code);
                return Outcome::Refused(Refused { error: Value::Null, close: Some((code, reason)) });
            }
            Frame::Lost => return Outcome::Refused(Refused { error: Value::Null, close: None }),
            other => panic!("no answer but {other:?}"),
        };
        if answer["ok"] == true {
            assert_eq!(answer["payload"]["type"], "hello-ok", "{answer}");
            return Outcome::Hello(Client::new(self.conn, answer["payload"].clone()));
        }
        assert_eq!(answer["type"], "res", "{answer}");
        let close = self.conn.closing();
        Outcome::Refused(Refused { error: answer["error"].clone(), close })
    }
}

/// Adds a device block to `params`, signed over what they say now.
pub fn prove(params: &mut Value, key: &DeviceKey, proof: Proof, nonce: &str, signed_at: i64) {
    let text = |pointer: &str| params.pointer(pointer).and_then(Value::as_str).unwrap_or("").to_owned();
    let list = params["scopes"].as_array().cloned().unwrap_or_default();
    let scopes: Vec<String> = list.iter().filter_map(|scope| scope.as_str().map(str::to_owned)).collect();
    let given = ["token", "deviceToken", "bootstrapToken"].map(|field| text(&format!("/auth/{field}")));
    let (id, role) = (key.id(), text("/role"));
    let (client_id, client_mode) = (text("/client/id"), text("/client/mode"));
    let (platform, device_family) = (text("/client/platform"), text("/client/deviceFamily"));
    let payload = ProofPayload {
        device_id: id.as_str(),
        client_id: &client_id,
        client_mode: &client_mode,
        role: if role.is_empty() { "operator" } else { &role },
        scopes: &scopes,
        signed_at_ms: signed_at,
        token: given.iter().find(|token| !token.is_empty()).map_or("", String::as_str),
        nonce,
        platform: &platform,
        device_family: &device_family,
    };
    let signature = match proof {
        Proof::V3 => key.sign(&payload.v3()),
        Proof::V2 => key.sign(&payload.v2()),
        // Version 1 is version 2 without the nonce at its end.
        Proof::V1 => {
            let v2 = payload.v2();
            let (head, _) = v2.rsplit_once('|').expect("fields");
            key.sign(&head.replacen("v2|", "v1|", 1))
        }
    };
    params["device"] = json!({
        "id": id.as_str(), "publicKey": key.public().to_wire(), "signature": signature,
        "signedAt": signed_at, "nonce": nonce,
    });
}

/// Sets a field by JSON pointer, making objects on the way.
pub fn put(value: &mut Value, pointer: &str, new: Value) {
    let mut at = value;
    for key in pointer.trim_start_matches('/').split('/') {
        if !at.is_object() {
            *at = json!({});
        }
        at = &mut at[key];
    }
    *at = new;
}

/// An authenticated connection.
#[derive(Debug)]
pub struct Client {
    pub conn: Conn,
    /// Payload of the hello.
    pub hello: Value,
    /// Events in the order they came, whole frames.
    pub events: VecDeque<Value>,
    /// Answers nobody has asked for yet.
    answers: VecDeque<Value>,
    requests: u64,
}

impl Client {
    fn new(conn: Conn, hello: Value) -> Self {
        Self { conn, hello, events: VecDeque::new(), answers: VecDeque::new(), requests: 0 }
    }

    pub fn scopes(&self) -> Vec<String> {
        let list = self.hello["auth"]["scopes"].as_array().expect("auth.scopes");
        list.iter().map(|scope| scope.as_str().expect("a string").to_owned()).collect()
    }

    pub fn methods(&self) -> Vec<String> {
        let list = self.hello["features"]["methods"].as_array().expect("features.methods");
        list.iter().map(|name| name.as_str().expect("a string").to_owned()).collect()
    }

    /// The device token of the hello.
    pub fn device_token(&self) -> String {
        self.hello["auth"]["deviceToken"].as_str().expect("a device token").to_owned()
    }

    /// Sends a request without waiting; returns its id.
    pub fn send(&mut self, method: &str, params: Value) -> String {
        self.requests += 1;
        let id = format!("q{}", self.requests);
        self.conn.send_text(&json!({"type": "req", "id": id, "method": method, "params": params}).to_string());
        id
    }

    /// Waits for the answer with this id: its payload or its error. `None` when the connection ended first.
    pub fn answer(&mut self, id: &str) -> Option<Result<Value, Value>> {
        loop {
            if let Some(at) = self.answers.iter().position(|answer| answer["id"] == id) {
                let answer = self.answers.remove(at)?;
                return Some(if answer["ok"] == true {
                    Ok(answer["payload"].clone())
                } else {
                    Err(answer["error"].clone())
                });
            }
            if !self.read_one() {
                return None;
            }
        }
    }

    /// Calls a method.
    ///
    /// # Errors
    /// The `error` object of the answer.
    #[track_caller]
    pub fn call(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        let id = self.send(method, params);
        match self.answer(&id) {
            Some(answer) => answer,
            None => panic!("the connection ended before {method} was answered"),
        }
    }

    /// As [`Client::call`], but `None` when the connection ended before the answer.
    pub fn try_call(&mut self, method: &str, params: Value) -> Option<Result<Value, Value>> {
        self.requests += 1;
        let id = format!("q{}", self.requests);
        let request = json!({"type": "req", "id": id, "method": method, "params": params}).to_string();
        self.conn.try_send(&frame(0x81, request.as_bytes())).ok()?;
        self.answer(&id)
    }

    /// Calls a method that has to succeed.
    #[track_caller]
    pub fn ok(&mut self, method: &str, params: Value) -> Value {
        match self.call(method, params) {
            Ok(payload) => payload,
            Err(error) => panic!("{method}: {error}"),
        }
    }

    /// Calls a method that has to fail; returns its error.
    #[track_caller]
    pub fn err(&mut self, method: &str, params: Value) -> Value {
        match self.call(method, params) {
            Err(error) => error,
            Ok(payload) => panic!("{method} answered {payload}"),
        }
    }

    /// The next event with this name, whole; events before it stay in [`Client::events`].
    #[track_caller]
    pub fn event(&mut self, name: &str) -> Value {
        loop {
            if let Some(at) = self.events.iter().position(|event| event["event"] == name) {
                return self.events.remove(at).expect("just found");
            }
            assert!(self.read_one(), "the connection ended before the event {name}");
        }
    }

    /// Reads one message into the queues; false when the connection has ended.
    pub fn read_one(&mut self) -> bool {
        match self.conn.message() {
            Frame::Text(text) => {
                let frame: Value = serde_json::from_str(&text).expect("JSON");
                let queue = if frame["type"] == "event" { &mut self.events } else { &mut self.answers };
                queue.push_back(frame);
                true
            }
            Frame::Close(code, _) => {
                self.conn.send_close(code);
                false
            }
            _ => false,
        }
    }

    /// Waits for the close frame, keeping what comes before it. `None` when the stream just ended.
    pub fn closing(&mut self) -> Option<(u16, String)> {
        loop {
            match self.conn.message() {
                Frame::Close(code, reason) => {
                    self.conn.send_close(code);
                    return Some((code, reason));
                }
                Frame::Text(text) => {
                    let frame: Value = serde_json::from_str(&text).expect("JSON");
                    let queue = if frame["type"] == "event" { &mut self.events } else { &mut self.answers };
                    queue.push_back(frame);
                }
                _ => return None,
            }
        }
    }

    /// An answer that came without having been waited for.
    pub fn take_stray_answer(&mut self) -> Option<Value> {
        self.answers.pop_front()
    }
}
