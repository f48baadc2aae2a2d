//! Our CLI against the real gateways of both generations; and what this suite asks of our gateway, asked of them first,
//! which is the proof that the expectations are right.

use lab::{
    peers::{
        Generation, Peers, RealGateway,
        commands::{
            HEALTH,
            Output::{Json, LogLines, Says},
            Row,
            Want::{Is, List, Number, Text},
            Wants, violations,
        },
        driver::{self, ReferenceClient},
        official_cli::{self, Whose},
        prepare_home, stories,
    },
    process::our_cli,
    require,
};
use serde_json::json;
use tempfile::TempDir;

const STATUS: Wants = &[
    ("/gateway/reachable", Is("true")),
    ("/gateway/connectLatencyMs", Number),
    ("/gateway/version", Text),
    ("/gateway/error", Is("null")),
    ("/rpcProbe/ok", Is("true")),
    ("/heartbeat/defaultAgentId", Is("\"main\"")),
    ("/sessions/count", Is("0")),
];
const DEEP: Wants = &[("/health/ok", Is("true")), ("/lastHeartbeat", Is("null"))];

/// Our CLI says the same of either gateway.
const OUR_CLI: &[Row] = &[
    Row { args: &["health", "--json"], wants: Json(&[HEALTH]) },
    Row { args: &["health"], wants: Says(&["Gateway ok", "main (default)"]) },
    Row { args: &["status", "--json"], wants: Json(&[STATUS]) },
    Row { args: &["status"], wants: Says(&["RPC probe: ok", "reachable "]) },
    Row { args: &["status", "--deep", "--json"], wants: Json(&[STATUS, DEEP]) },
    Row {
        args: &["gateway", "status", "--json"],
        wants: Json(&[&[("/rpc/ok", Is("true")), ("/rpc/server/version", Text), ("/port/status", Is("\"busy\""))]]),
    },
    Row { args: &["gateway", "status"], wants: Says(&["RPC probe: ok"]) },
    Row {
        args: &["gateway", "probe", "--json"],
        wants: Json(&[&[
            ("/ok", Is("true")),
            ("/targets/0/connect/ok", Is("true")),
            ("/targets/0/server/version", Text),
        ]]),
    },
    Row { args: &["gateway", "health"], wants: Says(&["Gateway Health", "OK ("]) },
    Row { args: &["gateway", "call", "health", "--json"], wants: Json(&[HEALTH]) },
    Row { args: &["devices", "list", "--json"], wants: Json(&[&[("/pending", Is("[]")), ("/paired", List)]]) },
    Row { args: &["logs", "--limit", "3", "--json"], wants: LogLines },
];

fn scratch() -> TempDir {
    TempDir::with_prefix("openclaw-peer-").expect("a temporary directory")
}

fn check_our_cli(gateway: &RealGateway) -> Vec<String> {
    let home = scratch();
    let cli = |token: &str| our_cli(home.path(), gateway.port(), token);
    let mut found = violations("our CLI", OUR_CLI, || cli(gateway.token()));

    let refused = cli("not-the-token").args(["health", "--json"]).run();
    let envelope: serde_json::Value = serde_json::from_str(&refused.stdout).unwrap_or_default();
    if refused.status.success() || envelope["error"]["details"]["code"] != "AUTH_TOKEN_MISMATCH" {
        found.push(format!("our CLI with a wrong token: {refused:#?}"));
    }
    found
}

/// What is asked of ours is asked of the real one.
fn check_expectations(peers: &Peers, generation: Generation, mut gateway: RealGateway) -> Vec<String> {
    let home = scratch();
    prepare_home(home.path());
    let mut found =
        official_cli::violations(peers, generation, Whose::Theirs, (gateway.port(), gateway.token()), home.path());

    let (url, token) = (gateway.url(), gateway.token().to_owned());
    let report = driver::conformance(peers, generation, (&url, &token), home.path(), false, || gateway.stop());
    found.extend(report.problems);
    found.extend(report.not_advertised.iter().map(|method| format!("not advertised: {method}")));
    if generation == Generation::V4 {
        // A field admitted beyond the schema has to be one that the real gateway sends.
        found.extend(report.newer_unseen.iter().map(|field| format!("admitted, but never sent: {field}")));
    }
    found
}

#[test]
fn the_real_gateway_of_protocol_4() {
    let peers = require!(Peers::find());
    let gateway = RealGateway::start(&peers, Generation::V4);
    let mut found = check_our_cli(&gateway);

    let home = scratch();
    let mut client = ReferenceClient::new(&peers, home.path(), &gateway.url());
    client.connect(json!({"token": gateway.token(), "scopes": ["operator.read"], "role": "operator"}));
    assert_eq!(client.hello()["protocol"], 4);
    client.stop();

    stories::the_owner_settles_a_pairing(&peers, Generation::V4, (gateway.port(), gateway.token()));
    stories::a_node_lends_its_machine(&peers, Generation::V4, (gateway.port(), gateway.token()));

    found.extend(check_expectations(&peers, Generation::V4, gateway));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_real_gateway_of_protocol_3() {
    let peers = require!(Peers::find());
    let gateway = RealGateway::start(&peers, Generation::V3);
    let mut found = check_our_cli(&gateway);
    stories::a_node_lends_its_machine(&peers, Generation::V3, (gateway.port(), gateway.token()));
    found.extend(check_expectations(&peers, Generation::V3, gateway));
    assert!(found.is_empty(), "{}", found.join("\n"));
}
