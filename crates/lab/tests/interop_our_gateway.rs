//! The real peers against our gateway: both official CLIs, the reference client, and a raw client that validates every
//! frame against the published JSON Schema.

use std::fs;

use lab::{
    peers::{
        Generation, Peers, driver,
        driver::ReferenceClient,
        official_cli::{self, Whose},
        prepare_home, stories,
    },
    process::{Gateway, GatewayOptions},
    require,
};
use serde_json::json;
use tempfile::TempDir;

fn scratch() -> TempDir {
    TempDir::with_prefix("openclaw-peer-").expect("a temporary directory")
}

#[track_caller]
fn check_official_cli(generation: Generation) {
    let peers = require!(Peers::find());
    let gateway = Gateway::start();
    let home = scratch();
    prepare_home(home.path());
    let found =
        official_cli::violations(&peers, generation, Whose::Ours, (gateway.port(), gateway.token()), home.path());
    assert!(found.is_empty(), "{}\n{}", found.join("\n"), gateway.said());
}

#[test]
fn the_official_cli_of_protocol_4_works() {
    check_official_cli(Generation::V4);
}

#[test]
fn the_official_cli_of_protocol_3_works() {
    check_official_cli(Generation::V3);
}

#[test]
fn the_official_cli_of_protocol_4_settles_a_pairing() {
    let peers = require!(Peers::find());
    let gateway = Gateway::start();
    stories::the_owner_settles_a_pairing(&peers, Generation::V4, (gateway.port(), gateway.token()));
}

#[test]
fn the_official_cli_of_protocol_3_settles_a_pairing() {
    let peers = require!(Peers::find());
    let gateway = Gateway::start();
    stories::the_owner_settles_a_pairing(&peers, Generation::V3, (gateway.port(), gateway.token()));
}

#[test]
fn the_official_cli_and_node_of_protocol_4_work_together() {
    let peers = require!(Peers::find());
    let gateway = Gateway::start();
    stories::a_node_lends_its_machine(&peers, Generation::V4, (gateway.port(), gateway.token()));
}

#[test]
fn the_official_cli_and_node_of_protocol_3_work_together() {
    let peers = require!(Peers::find());
    let gateway = Gateway::start();
    stories::a_node_lends_its_machine(&peers, Generation::V3, (gateway.port(), gateway.token()));
}

#[track_caller]
fn check_conformance(generation: Generation) {
    let peers = require!(Peers::find());
    let config = json!({"gateway": {"mode": "local"}}).to_string();
    let mut gateway = Gateway::start_with(GatewayOptions { config: Some(config), ..GatewayOptions::default() });
    let home = scratch();
    let (url, token) = (gateway.url(), gateway.token().to_owned());
    let report = driver::conformance(&peers, generation, (&url, &token), home.path(), true, || gateway.stop());
    let mut problems = report.problems;
    problems.extend(report.not_advertised.iter().map(|method| format!("not advertised: {method}")));
    assert!(problems.is_empty(), "{}\n{}", problems.join("\n"), gateway.said());
    assert!(report.frames > 80, "only {} frames were looked at", report.frames);
}

#[test]
fn every_frame_of_protocol_4_fits_the_published_schema() {
    check_conformance(Generation::V4);
}

#[test]
fn every_frame_of_protocol_3_fits_what_was_observed() {
    check_conformance(Generation::V3);
}

#[test]
fn the_reference_client_pairs_calls_listens_and_returns_with_its_token_alone() {
    let peers = require!(Peers::find());
    let mut gateway = Gateway::start();
    let home = scratch();
    let scopes = json!(["operator.admin", "operator.read", "operator.write", "operator.pairing"]);

    // Paired in silence: a direct local connection that proves the shared secret.
    let mut client = ReferenceClient::new(&peers, home.path(), &gateway.url());
    client.connect(json!({"token": gateway.token(), "scopes": scopes, "role": "operator"}));
    let hello = client.hello();
    assert_eq!(hello["protocol"], 4);
    assert_eq!(hello["auth"]["scopes"], scopes);
    let device: serde_json::Value =
        serde_json::from_slice(&fs::read(home.path().join("device.json")).expect("the client keeps its identity"))
            .expect("as JSON");
    assert_eq!(device["tokens"]["operator"]["token"], hello["auth"]["deviceToken"]);
    let list = client.request("device.pair.list", json!({})).expect("may list devices");
    assert_eq!(list["paired"][0]["deviceId"], device["deviceId"]);
    assert_eq!(list["paired"][0]["approvedVia"], "silent");

    // Calls and events.
    let health = client.request("health", json!({})).expect("health is open to all");
    assert_eq!(health["ok"], true);
    client.request("system-event", json!({"text": "Node: lab"})).expect("an admin may");
    let presence = client.event("presence");
    assert_eq!(presence["presence"][0]["mode"], "gateway");
    client.request("no.such.method", json!({})).expect_err("unknown methods are refused");
    assert_eq!(client.event("health")["ok"], true);
    assert!(client.event("tick")["ts"].is_u64());
    assert_eq!(client.all("gap"), Vec::<serde_json::Value>::new());

    // A restart: it comes back by itself.
    client.forget();
    gateway.stop();
    assert_eq!(client.next("closed", |_| true), json!({"code": 1012, "reason": "service restart"}));
    gateway.start_again();
    assert_eq!(client.hello()["auth"]["role"], "operator");
    client.stop();

    // A new process of the same device, without the shared secret.
    let mut client = ReferenceClient::new(&peers, home.path(), &gateway.url());
    client.connect(json!({"scopes": scopes, "role": "operator"}));
    let hello = client.hello();
    assert_eq!(hello["auth"]["method"], "device-token");
    assert_eq!(hello["auth"]["deviceToken"], device["tokens"]["operator"]["token"], "a valid token is kept");
    assert_eq!(client.request("status", json!({})).expect("it may read")["sessions"]["count"], 0);
    client.stop();
}
