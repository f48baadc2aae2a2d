//! Whole stories, told with the real peers: an owner settles a pairing, and a node lends its machine.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Generation, Peers, driver::ReferenceClient, prepare_home};
use crate::process::wait_until;

/// The owner's real CLI, for commands that answer in JSON.
struct Owner<'a> {
    peers: &'a Peers,
    generation: Generation,
    home: TempDir,
    port: u16,
    token: &'a str,
}

impl<'a> Owner<'a> {
    fn new(peers: &'a Peers, generation: Generation, (port, token): (u16, &'a str)) -> Self {
        let home = TempDir::with_prefix("openclaw-peer-").expect("a temporary directory");
        prepare_home(home.path());
        Self { peers, generation, home, port, token }
    }

    /// Runs a command that has to succeed.
    #[track_caller]
    fn says(&self, args: &[&str]) -> Value {
        let cli = self.peers.cli_on(self.generation, self.home.path(), self.port, self.token);
        let finished = cli.args(args).arg("--json").run();
        assert!(finished.status.success(), "{} CLI, {args:?}: {finished:#?}", self.generation.release());
        finished.json()
    }

    /// The id of the only pending device request, which has to come from this device.
    #[track_caller]
    fn pending(&self, device: &str) -> String {
        let list = self.says(&["devices", "list"]);
        let pending = list["pending"].as_array().expect("a list");
        assert_eq!(pending.len(), 1, "{list:#}");
        assert_eq!(pending[0]["deviceId"], device);
        pending[0]["requestId"].as_str().expect("an id").to_owned()
    }
}

/// A device changes its platform twice; the owner approves the first time, rejects the second, then rotates, revokes and
/// removes. The device is the reference client, the owner's tool the real CLI of `generation`.
#[track_caller]
pub fn the_owner_settles_a_pairing(peers: &Peers, generation: Generation, (port, token): (u16, &str)) {
    let owner = Owner::new(peers, generation, (port, token));
    let home = TempDir::with_prefix("openclaw-peer-").expect("a temporary directory");
    let attempt = |platform: &str| {
        let mut client = ReferenceClient::new(peers, home.path(), &format!("ws://127.0.0.1:{port}"));
        client.connect(json!({"token": token, "scopes": ["operator.read"], "role": "operator", "platform": platform}));
        client
    };
    let refusal = |mut client: ReferenceClient| {
        let error = client.next("connectError", |_| true);
        assert_eq!(error["details"]["code"], "PAIRING_REQUIRED", "{error:#}");
        assert_eq!(error["details"]["reason"], "metadata-upgrade", "{error:#}");
        client.stop();
        error["details"]["requestId"].as_str().expect("an id").to_owned()
    };

    let mut client = attempt("linux");
    client.hello();
    client.stop();
    let identity = fs::read(home.path().join("device.json")).expect("the client keeps its identity");
    let identity: Value = serde_json::from_slice(&identity).expect("as JSON");
    let device = identity["deviceId"].as_str().expect("an id");

    let asked = refusal(attempt("windows"));
    let request = owner.pending(device);
    assert_eq!(request, asked);
    owner.says(&["devices", "approve", &request]);
    let mut client = attempt("windows");
    client.hello();
    client.stop();

    refusal(attempt("macos"));
    owner.says(&["devices", "reject", &owner.pending(device)]);

    let rotated = owner.says(&["devices", "rotate", "--device", device, "--role", "operator"]);
    assert_eq!(rotated["deviceId"], device);
    let revoked = owner.says(&["devices", "revoke", "--device", device, "--role", "operator"]);
    assert_eq!(revoked["deviceId"], device);
    owner.says(&["devices", "remove", device]);
    let left = owner.says(&["devices", "list"]);
    let known = left["paired"].as_array().expect("a list").iter().any(|entry| entry["deviceId"] == device);
    assert!(!known, "{left:#}");
}

/// The real node host connects; the owner approves its commands where the protocol asks for it, sees it, and runs one.
#[track_caller]
pub fn a_node_lends_its_machine(peers: &Peers, generation: Generation, (port, token): (u16, &str)) {
    let owner = Owner::new(peers, generation, (port, token));
    let home = TempDir::with_prefix("openclaw-node-").expect("a temporary directory");
    prepare_home(home.path());
    let node = peers
        .cli_on(generation, home.path(), port, token)
        .args(["node", "run", "--host", "127.0.0.1", "--port", &port.to_string(), "--display-name", "bench"])
        .start("node");

    let first = |list: &Value| list["nodes"].as_array().and_then(|nodes| nodes.first()).cloned();
    let seen = wait_until("the node in `nodes status`", || {
        let seen = first(&owner.says(&["nodes", "status"])).filter(|node| node["connected"] == true);
        assert!(std::path::Path::new(&format!("/proc/{}", node.pid())).exists(), "{}", node.said());
        seen
    });
    assert_eq!(seen["displayName"], "bench");
    let id = seen["nodeId"].as_str().expect("an id").to_owned();
    if generation == Generation::V4 {
        let pending = owner.says(&["nodes", "pending"]);
        let request = pending.pointer("/0/requestId").or(pending.pointer("/pending/0/requestId"));
        owner.says(&["nodes", "approve", request.and_then(Value::as_str).expect("an id")]);
    }
    let params = json!({"bins": ["sh", "no-such-program-anywhere"]}).to_string();
    let invoke = ["nodes", "invoke", "--node", &id, "--command", "system.which", "--params", &params];
    let answer = owner.says(&invoke);
    let bins = answer.pointer("/payload/bins").unwrap_or_else(|| panic!("{answer:#}"));
    assert!(bins["sh"].as_str().is_some_and(|path| path.ends_with("/sh")), "{answer:#}");
    assert_eq!(bins["no-such-program-anywhere"], Value::Null);
    drop(node);
    wait_until("the node gone from `nodes status`", || {
        first(&owner.says(&["nodes", "status"])).is_none_or(|node| node["connected"] == false).then_some(())
    });
}
