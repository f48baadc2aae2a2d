//! The real node host and the reference client, paired by codes of our gateway.

use std::path::Path;

use lab::{
    client::{Client, Login},
    peers::{Generation, Peers, driver::ReferenceClient, prepare_home},
    process::{Gateway, Process, wait_until},
    require,
    wire::Address,
};
use serde_json::{Value, json};
use tempfile::TempDir;

const SCOPES: [&str; 2] = ["operator.read", "operator.write"];

fn scratch() -> TempDir {
    TempDir::with_prefix("openclaw-peer-").expect("a temporary directory")
}

fn admin(gateway: &Gateway) -> Client {
    Login::at(&Address::Port(gateway.port())).token(gateway.token()).scopes(&["operator.admin"]).hello()
}

/// A setup code for a node that leads to this gateway.
fn node_code(gateway: &Gateway) -> String {
    let params = json!({"publicUrl": gateway.url(), "bootstrapProfile": "node"});
    admin(gateway).ok("device.pair.setupCode", params)["setupCode"].as_str().expect("a code").to_owned()
}

/// The one node, once it is connected.
#[track_caller]
fn connected(gateway: &Gateway, host: &Process) -> Value {
    wait_until("the node to be connected", || {
        let list = admin(gateway).ok("node.list", json!({}));
        assert!(Path::new(&format!("/proc/{}", host.pid())).exists(), "{}", host.said());
        let nodes = list["nodes"].as_array().expect("a list");
        assert!(nodes.len() < 2, "{list:#}");
        nodes.iter().find(|node| node["connected"] == true).cloned()
    })
}

#[test]
fn the_real_node_host_joins_by_a_setup_code() {
    let peers = require!(Peers::find());
    let gateway = Gateway::start();
    let home = scratch();
    prepare_home(home.path());
    let node = |home: &Path, args: &[&str]| peers.cli(Generation::V4, home).args(args).start("node");

    // Neither a token nor an approval: the code is consent to the device and to the commands it comes with.
    let code = node_code(&gateway);
    let host = node(home.path(), &["node", "run", "--pair", &format!("oc-pair://{code}"), "--display-name", "bench"]);
    let seen = connected(&gateway, &host);
    let id = seen["nodeId"].as_str().expect("an id").to_owned();
    let commands = wait_until("its commands to be approved", || {
        let node = admin(&gateway).ok("node.describe", json!({"nodeId": id}));
        let commands = node["commands"].as_array().cloned().unwrap_or_default();
        commands.contains(&json!("system.which")).then_some(commands)
    });
    assert!(commands.contains(&json!("system.run")), "{commands:?}");
    let asked = json!({"nodeId": id, "command": "system.which", "params": {"bins": ["sh"]}, "idempotencyKey": "w1"});
    let answer = admin(&gateway).ok("node.invoke", asked);
    assert!(answer.pointer("/payload/bins/sh").is_some(), "{answer:#}");
    let paired = admin(&gateway).ok("device.pair.list", json!({}))["paired"].clone();
    let device = paired.as_array().expect("a list").iter().find(|entry| entry["deviceId"] == id.as_str());
    assert_eq!(device.expect("its record")["approvedVia"], "bootstrap");
    drop(host);
    wait_until("the node to be gone", || {
        let list = admin(&gateway).ok("node.list", json!({}));
        (list["nodes"][0]["connected"] == false).then_some(())
    });

    // Later starts need no code: the device has its own token.
    let port = gateway.port().to_string();
    let host = node(home.path(), &["node", "run", "--host", "127.0.0.1", "--port", &port]);
    assert_eq!(connected(&gateway, &host)["nodeId"], id.as_str());
    drop(host);

    // The code is used up, for every machine.
    let other = scratch();
    prepare_home(other.path());
    let refused = node(other.path(), &["node", "run", "--pair", &code]);
    wait_until("the second machine to be told", || {
        refused.said().to_lowercase().contains("setup code invalid, expired, revoked, or already used").then_some(())
    });
}

#[test]
fn the_reference_client_pairs_by_an_invitation_and_returns_with_its_token() {
    let peers = require!(Peers::find());
    let gateway = Gateway::start();
    let invited = admin(&gateway).ok("device.pair.invite", json!({"scopes": SCOPES}));
    let token = invited["token"].clone();
    let home = scratch();
    let start = |options: Value| {
        let mut client = ReferenceClient::new(&peers, home.path(), &gateway.url());
        client.connect(options);
        client
    };
    let mut client = start(json!({"bootstrapToken": token, "scopes": SCOPES, "role": "operator"}));
    let hello = client.hello();
    assert_eq!(hello["auth"]["method"], "bootstrap-token");
    assert_eq!(hello["auth"]["scopes"], json!(SCOPES));
    assert_eq!(client.request("health", json!({})).expect("health")["ok"], true);
    client.stop();

    let mut client = start(json!({"scopes": SCOPES, "role": "operator"}));
    assert_eq!(client.hello()["auth"]["method"], "device-token");
    client.stop();

    let other = scratch();
    let mut client = ReferenceClient::new(&peers, other.path(), &gateway.url());
    client.connect(json!({"bootstrapToken": token, "scopes": SCOPES, "role": "operator"}));
    let error = client.next("connectError", |_| true);
    assert_eq!(error["details"]["code"], "AUTH_BOOTSTRAP_TOKEN_INVALID", "{error:#}");
    client.stop();
}
