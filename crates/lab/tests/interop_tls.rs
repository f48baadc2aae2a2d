//! The real OpenClaw and our TLS: its clients pin our certificate, and its files serve ours.

use std::{fs, path::Path};

use lab::{
    peers::{Generation, Peers, driver::ReferenceClient, prepare_home},
    process::{Launch, free_port, wait_until},
    require,
    require::Capability,
    sandbox::{Sandbox, Setup},
};
use serde_json::{Value, json};
use tempfile::TempDir;

fn scratch() -> TempDir {
    TempDir::with_prefix("openclaw-peer-").expect("a temporary directory")
}

fn tls_gateway() -> Sandbox {
    Setup::new().unwatched().config(json!({"gateway": {"tls": {"enabled": true}}})).start()
}

fn shown(gateway: &Sandbox) -> Value {
    gateway.setup.run(&["gateway", "cert", "show", "--json"]).json()
}

fn pin(gateway: &Sandbox) -> String {
    shown(gateway)["fingerprintSha256"].as_str().expect("a pin").to_owned()
}

/// 64 hex digits that are nobody's fingerprint.
fn wrong_pin() -> String {
    "0f".repeat(32)
}

fn remote_home(url: &str, token: &str, pin: &str) -> TempDir {
    let home = scratch();
    prepare_home(home.path());
    let config = json!({
        "gateway": {"mode": "remote", "remote": {
            "url": url, "token": token, "tlsFingerprint": pin, "transport": "direct",
        }},
        "logging": {"file": home.path().join("cli.log")},
        "update": {"checkOnStart": false},
    });
    fs::write(home.path().join(".openclaw/openclaw.json"), config.to_string()).expect("writes");
    home
}

#[track_caller]
fn check_official_cli(generation: Generation) {
    let peers = require!(Peers::find());
    let gateway = tls_gateway();
    let url = format!("wss://127.0.0.1:{}", gateway.port);
    let home = remote_home(&url, gateway.token(), &pin(&gateway));
    let health = peers.cli(generation, home.path()).args(["health", "--json"]).run();
    assert!(health.status.success() && health.json()["ok"] == true, "{health:#?}\n{}", gateway.console());
    let home = remote_home(&url, gateway.token(), &wrong_pin());
    let refused = peers.cli(generation, home.path()).args(["health", "--json"]).run();
    let said = format!("{}{}", refused.stdout, refused.stderr);
    assert!(!refused.status.success() && said.to_lowercase().contains("fingerprint"), "{refused:#?}");
}

#[test]
fn the_official_cli_of_protocol_4_pins_our_certificate() {
    check_official_cli(Generation::V4);
}

#[test]
fn the_official_cli_of_protocol_3_pins_our_certificate() {
    check_official_cli(Generation::V3);
}

#[test]
fn the_reference_client_pins_our_certificate() {
    let peers = require!(Peers::find());
    let gateway = tls_gateway();
    let url = format!("wss://127.0.0.1:{}", gateway.port);
    let home = scratch();
    let mut client = ReferenceClient::new(&peers, home.path(), &url);
    let scopes = json!(["operator.read"]);
    client.connect(json!({
        "token": gateway.token(), "scopes": scopes, "role": "operator", "tlsFingerprint": pin(&gateway),
    }));
    assert_eq!(client.hello()["protocol"], 4);
    assert_eq!(client.request("health", json!({})).expect("health is open to all")["ok"], true);
    client.stop();
    let mut client = ReferenceClient::new(&peers, home.path(), &url);
    client.connect(json!({
        "token": gateway.token(), "scopes": scopes, "role": "operator", "tlsFingerprint": wrong_pin(),
    }));
    let error = client.next("connectError", |_| true);
    assert!(error["message"].as_str().unwrap_or_default().contains("fingerprint"), "{error}");
    assert_eq!(client.all("hello"), Vec::<Value>::new());
}

/// Lets the real gateway make its certificate, and gives the directory it did so in.
fn reference_pair(peers: &Peers) -> Capability<TempDir> {
    lab::require::program("openssl")?;
    let home = scratch();
    prepare_home(home.path());
    let port = free_port();
    let config = json!({"gateway": {"mode": "local", "tls": {"enabled": true}}, "update": {"checkOnStart": false}});
    fs::write(home.path().join(".openclaw/openclaw.json"), config.to_string()).expect("writes");
    let launch: Launch = peers.cli(Generation::V4, home.path());
    let mut real = launch
        .args(["gateway", "run", "--bind", "loopback", "--port", &port.to_string()])
        .env("OPENCLAW_GATEWAY_TOKEN", "real")
        .env("OPENCLAW_SKIP_CHANNELS", "1")
        .start("real-gateway");
    wait_until("the real gateway's certificate", || {
        assert!(real.ended().is_none(), "{}", real.said());
        let tls = home.path().join(".openclaw/gateway/tls");
        (tls.join("gateway-cert.pem").exists() && tls.join("gateway-key.pem").exists()).then_some(())
    });
    real.stop();
    Ok(home)
}

#[test]
fn the_real_gateways_certificate_is_served_as_it_is() {
    let peers = require!(Peers::find());
    let theirs = require!(reference_pair(&peers));
    let from = theirs.path().join(".openclaw/gateway/tls");
    let read = |dir: &Path, name: &str| fs::read(dir.join(name)).expect("a file");
    let setup = Setup::new().unwatched().config(json!({"gateway": {"tls": {"enabled": true}}}));
    setup.write_config();
    let to = setup.state_dir().join("gateway/tls");
    fs::create_dir_all(&to).expect("creates");
    for name in ["gateway-cert.pem", "gateway-key.pem"] {
        fs::copy(from.join(name), to.join(name)).expect("copies");
    }
    let gateway = setup.start();
    let certificate = shown(&gateway);
    assert_eq!(certificate["selfMade"], true);
    for name in ["gateway-cert.pem", "gateway-key.pem"] {
        assert_eq!(read(&to, name), read(&from, name), "{name} was touched");
    }
    // Both its CLI and ours know it by the pins of this file.
    let url = format!("wss://127.0.0.1:{}", gateway.port);
    let home = remote_home(&url, gateway.token(), &pin(&gateway));
    let health = peers.cli(Generation::V4, home.path()).args(["health", "--json"]).run();
    assert!(health.status.success() && health.json()["ok"] == true, "{health:#?}\n{}", gateway.console());
    let port = gateway.port.to_string();
    let ours = gateway.setup.run(&["gateway", "health", "--json", "--port", &port, "--token", gateway.token()]);
    assert!(ours.status.success() && ours.json()["ok"] == true, "{ours:#?}");
}
