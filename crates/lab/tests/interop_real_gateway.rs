//! Our CLI against the real gateways of both generations; and what this suite asks of our gateway, asked of them first,
//! which is the proof that the expectations are right.

use lab::{
    peers::{Generation, Peers, RealGateway, driver, driver::ReferenceClient, official_cli, prepare_home},
    require,
};
use serde_json::json;
use tempfile::TempDir;

fn scratch() -> TempDir {
    TempDir::with_prefix("openclaw-peer-").expect("a temporary directory")
}

#[track_caller]
fn check_expectations(peers: &Peers, generation: Generation, mut gateway: RealGateway) {
    let home = scratch();
    prepare_home(home.path());
    let mut found = official_cli::violations(peers, generation, gateway.port(), gateway.token(), home.path());

    let (url, token) = (gateway.url(), gateway.token().to_owned());
    let report = driver::conformance(peers, generation, (&url, &token), home.path(), false, || gateway.stop());
    found.extend(report.problems);
    found.extend(report.not_advertised.iter().map(|method| format!("not advertised: {method}")));
    if generation == Generation::V4 {
        // A field admitted beyond the schema has to be one that the real gateway sends.
        found.extend(report.newer_unseen.iter().map(|field| format!("admitted, but never sent: {field}")));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_real_gateway_of_protocol_4() {
    let peers = require!(Peers::find());
    let gateway = RealGateway::start(&peers, Generation::V4);
    let home = scratch();
    let mut client = ReferenceClient::new(&peers, home.path(), &gateway.url());
    client.connect(json!({"token": gateway.token(), "scopes": ["operator.read"], "role": "operator"}));
    assert_eq!(client.hello()["protocol"], 4);
    client.stop();
    check_expectations(&peers, Generation::V4, gateway);
}

#[test]
fn the_real_gateway_of_protocol_3() {
    let peers = require!(Peers::find());
    let gateway = RealGateway::start(&peers, Generation::V3);
    check_expectations(&peers, Generation::V3, gateway);
}
