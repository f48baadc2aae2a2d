//! A gateway that records what it is sent, and the binary under test in a world of its own.
#![allow(dead_code)]

use std::{
    path::PathBuf,
    process::{Command, Output},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_tungstenite::{accept_async, tungstenite::Message};

/// What the capture server does with a `connect`.
#[derive(Clone)]
pub enum Does {
    /// Hello with these scopes.
    Hello(&'static [&'static str]),
    /// Refuse with this error, then close 1008.
    Refuse(Value),
}

/// Records connections and frames; answers `connect` as told and methods with plausible results.
pub struct Capture {
    pub port: u16,
    pub sockets: Arc<AtomicUsize>,
    pub requests: Arc<Mutex<Vec<Value>>>,
    _runtime: tokio::runtime::Runtime,
}

impl Capture {
    pub fn start(does: Does) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("bind");
        let port = listener.local_addr().expect("address").port();
        let (sockets, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (count, seen) = (Arc::clone(&sockets), Arc::clone(&requests));
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let _ = stream.set_nodelay(true);
                tokio::spawn(serve(stream, does.clone(), Arc::clone(&seen)));
            }
        });
        Self { port, sockets, requests, _runtime: runtime }
    }

    pub fn url(&self) -> String {
        format!("ws://127.0.0.1:{}", self.port)
    }

    /// TCP connections so far.
    pub fn connections(&self) -> usize {
        self.sockets.load(Ordering::SeqCst)
    }

    /// `params` of every `connect` so far.
    pub fn connects(&self) -> Vec<Value> {
        self.frames("connect")
    }

    /// `params` of every call of a method so far.
    pub fn frames(&self, method: &str) -> Vec<Value> {
        let seen = self.requests.lock().expect("lock");
        seen.iter().filter(|frame| frame["method"] == method).map(|frame| frame["params"].clone()).collect()
    }

    /// `auth` of the only `connect`; `null` when none was sent.
    pub fn auth(&self) -> Value {
        let connects = self.connects();
        assert!(!connects.is_empty(), "nobody connected");
        assert!(
            connects.iter().all(|connect| connect["auth"] == connects[0]["auth"]),
            "one credential for all: {connects:?}"
        );
        connects[0]["auth"].clone()
    }
}

async fn serve(stream: tokio::net::TcpStream, does: Does, seen: Arc<Mutex<Vec<Value>>>) {
    let Ok(mut socket) = accept_async(stream).await else { return };
    let challenge = json!({"type":"event","event":"connect.challenge","payload":{"nonce":"n-1","ts":1}});
    let _ = socket.send(Message::text(challenge.to_string())).await;
    while let Some(Ok(message)) = socket.next().await {
        let Message::Text(text) = message else { continue };
        let frame: Value = serde_json::from_str(&text).expect("JSON");
        seen.lock().expect("lock").push(frame.clone());
        let answer = match (frame["method"].as_str().expect("method"), &does) {
            ("connect", Does::Refuse(error)) => {
                let refusal = json!({"type":"res","id":frame["id"],"ok":false,"error":error});
                let _ = socket.send(Message::text(refusal.to_string())).await;
                let _ = socket.close(None).await;
                return;
            }
            ("connect", Does::Hello(scopes)) => json!({"type":"res","id":frame["id"],"ok":true,"payload":{
                "type":"hello-ok","protocol":4,"server":{"version":"2026.9.6","connId":"c"},
                "features":{"methods":[],"events":[]},"auth":{"role":"operator","scopes":scopes},
                "snapshot":{"presence":[],"health":{},"stateVersion":{"presence":1,"health":1},"uptimeMs":1},
                "policy":{"maxPayload":26214400,"maxBufferedBytes":52428800,"tickIntervalMs":30000}}}),
            ("device.pair.list", _) => {
                json!({"type":"res","id":frame["id"],"ok":true,"payload":{"pending":[],"paired":[]}})
            }
            ("logs.tail", _) => json!({"type":"res","id":frame["id"],"ok":true,"payload":{"file":"/x.log","cursor":1,
                "size":1,"lines":[r#"{"time":"2026-11-21T05:49:46.245Z","_meta":{"logLevelName":"INFO"},"message":"hi"}"#],
                "truncated":false,"reset":false}}),
            ("system-presence", _) => json!({"type":"res","id":frame["id"],"ok":true,"payload":[]}),
            _ => json!({"type":"res","id":frame["id"],"ok":true,"payload":{"ok":true}}),
        };
        if socket.send(Message::text(answer.to_string())).await.is_err() {
            return;
        }
    }
}

/// The binary with a home of its own and none of the caller's variables.
pub struct World {
    pub dir: tempfile::TempDir,
    vars: Vec<(String, String)>,
}

impl World {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("dir"), vars: Vec::new() }
    }

    /// With this `openclaw.json`.
    pub fn with(config: &str) -> Self {
        let world = Self::new();
        std::fs::create_dir_all(world.state()).expect("state");
        std::fs::write(world.state().join("openclaw.json"), config).expect("config");
        world
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.vars.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn state(&self) -> PathBuf {
        self.dir.path().join("home").join(".openclaw")
    }

    pub fn command(&self, line: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_openclaw"));
        command.args(line).env_clear().current_dir(self.dir.path());
        command.env("HOME", self.dir.path().join("home")).env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8");
        command.envs(self.vars.iter().map(|(name, value)| (name, value)));
        command
    }

    pub fn run(&self, line: &[&str]) -> Ran {
        let output = self.command(line).stdin(std::process::Stdio::null()).output().expect("runs");
        Ran::from(output)
    }
}

/// Exit code and texts of one run.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Self { code: output.status.code().expect("an exit code"), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Ran {
    /// Stdout as one JSON value, with nothing else on it.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("stdout is not JSON ({error}): {self:?}"))
    }
}
