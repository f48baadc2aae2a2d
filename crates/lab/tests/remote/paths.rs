//! Every way leads to the gateway, the best one is taken, and nobody else gets anything.

use std::time::{Duration, Instant};

use lab::{
    netlab::{GATEWAY_PORT, LabGateway, Netlab},
    process::GatewayOptions,
    require::{self, program},
};
use serde_json::Value;

use crate::{home::Home, report};

/// The path a command took, as `status` tells it.
#[track_caller]
fn taken(home: &Home<'_>, name: &str) -> Value {
    home.ok(&["--on", name, "status", "--json"]).json()["gateway"]["path"].clone()
}

#[test]
fn a_laptop_gets_home_over_every_path_and_takes_the_best() {
    lab::require!(require::netlab());
    lab::require!(program("sshd"));
    let lab = Netlab::up();
    let home = Home::new(&lab);
    home.pair();
    let all = [home.direct("lan"), home.direct("ts"), home.ssh("box-jump")];
    home.save("home", &all);
    for (name, path, kind, carrier) in [
        ("by-lan", home.direct("lan"), "lan", "direct"),
        ("by-tailnet", home.direct("ts"), "tailnet", "direct"),
        ("by-ssh", home.ssh("box"), "ssh", "ssh"),
        ("by-jump", home.ssh("box-jump"), "ssh", "ssh"),
    ] {
        home.save(name, &[path]);
        let path = taken(&home, name);
        assert_eq!((path["kind"].as_str(), path["carrier"].as_str()), (Some(kind), Some(carrier)), "{name}: {path}");
        assert!(path["roundTripMs"].as_f64().is_some_and(|ms| ms > 0.0), "{name}: {path}");
    }

    // The best of what is there: LAN, then the tailnet, then ssh from somebody else's network.
    assert_eq!(taken(&home, "home")["kind"], "lan");
    for (fault, kind) in [("cut", "tailnet"), ("drop", "tailnet")] {
        if fault == "cut" {
            lab.cut("laptop:lan")
        } else {
            lab.drop_packets("laptop:lan")
        }
        let asked = Instant::now();
        assert_eq!(taken(&home, "home")["kind"], kind, "{fault}");
        report::note(&format!("one command, LAN {fault}, tailnet there"), asked.elapsed());
        lab.heal("laptop:lan");
    }
    lab.laptop_only_in(&["cafe"]);
    let asked = Instant::now();
    assert_eq!(taken(&home, "home")["kind"], "ssh");
    report::note("one command, from a café behind a NAT, ssh through a jump host", asked.elapsed());
    // Another address on the LAN is as good as the old one.
    lab.join("laptop:lan");
    lab.readdress("laptop:lan", 99);
    assert_eq!(taken(&home, "home")["kind"], "lan");
    home.no_ssh_left();
}

#[test]
fn p_85_whoever_sits_at_the_saved_address_gets_nothing_until_it_proves_itself() {
    lab::require!(require::netlab());
    lab::require!(program("sshd"));
    let lab = Netlab::up();
    let home = Home::new(&lab);
    home.pair();
    // A gateway of somebody else, with a key of its own, at an address the laptop knows.
    let stranger = LabGateway::start(lab.host("phone"), GatewayOptions::default());
    home.save("moved", &[serde_json::json!({"kind": "lan", "url": stranger.url("lan"), "tlsFingerprint": null})]);
    let refused = home.fails(&["--on", "moved", "health"]);
    assert_eq!(refused.status.code(), Some(21), "{refused:#?}");
    assert!(refused.stderr.contains(&home.gateway_id()[..8]), "it names who was expected: {refused:#?}");
    // With a second path the right one is found.
    home.save(
        "home",
        &[serde_json::json!({"kind": "lan", "url": stranger.url("lan"), "tlsFingerprint": null}), home.direct("ts")],
    );
    assert_eq!(taken(&home, "home")["kind"], "tailnet");
    assert!(!stranger.said().contains("device"), "{}", stranger.said());
    assert!(!stranger.said().contains("refused"), "no connect frame was sent: {}", stranger.said());
}

#[test]
fn a_gateway_url_may_be_ssh_everywhere() {
    lab::require!(require::netlab());
    lab::require!(program("sshd"));
    let lab = Netlab::up();
    let home = Home::new(&lab);
    let token = home.gateway.token().to_owned();
    let call = ["gateway", "call", "health", "--json"];
    // Flag, environment, config; directly and through the jump host.
    for alias in ["box", "box-ts", "box-jump"] {
        let url = format!("ssh://{}@{alias}", lab::sshd::user());
        assert_eq!(home.ok(&[&call[..], &["--url", &url, "--token", &token]].concat()).json()["ok"], true);
        let by_env = home.openclaw(&call).env("OPENCLAW_GATEWAY_URL", &url).env("OPENCLAW_GATEWAY_TOKEN", &token).run();
        assert_eq!(by_env.json()["ok"], true, "{by_env:#?}");
    }
    // Without a credential of its own it is refused before any packet leaves.
    let starts = home.me.starts().len();
    let refused = home.fails(&[&call[..], &["--url", "ssh://box"]].concat());
    assert!(refused.stderr.contains("--token"), "{refused:#?}");
    assert_eq!(home.me.starts().len(), starts, "ssh was not even started");

    home.ok(&["config", "set", "gateway.mode", "remote"]);
    home.ok(&["config", "set", "gateway.remote.sshTarget", &format!("{}@box", lab::sshd::user())]);
    home.ok(&["config", "set", "gateway.remote.token", &token]);
    let status = home.ok(&["gateway", "status"]);
    assert!(status.stdout.contains("Runtime: remote") && status.stdout.contains("Probe target"), "{status:#?}");
    assert_eq!(home.ok(&call).json()["ok"], true);
    // The reference's pair of keys: transport and a URL on loopback with the far port.
    home.ok(&["config", "set", "gateway.remote.transport", "ssh"]);
    home.ok(&["config", "set", "gateway.remote.url", &format!("ws://127.0.0.1:{GATEWAY_PORT}")]);
    assert_eq!(home.ok(&call).json()["ok"], true);
    assert!(home.me.starts().iter().all(|args| !args.contains(&token)), "the token is in no command line");
}

#[test]
fn a_dead_way_is_told_within_its_time() {
    lab::require!(require::netlab());
    lab::require!(program("sshd"));
    let lab = Netlab::up();
    let home = Home::new(&lab);
    home.save("home", &[home.direct("lan"), home.direct("ts"), home.ssh("box-jump")]);
    for network in ["lan", "ts", "pub", "cafe"] {
        lab.drop_packets(&format!("laptop:{network}"));
    }
    let asked = Instant::now();
    let failed = home.fails(&["--on", "home", "health", "--timeout", "3000"]);
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    for path in ["lan ws://", "tailnet ws://", "ssh "] {
        assert!(failed.stderr.contains(path), "one reason each: {failed:#?}");
    }
    home.no_ssh_left();
}

#[test]
fn p_86_no_log_level_shows_a_secret_on_the_laptop() {
    lab::require!(require::netlab());
    lab::require!(program("sshd"));
    let lab = Netlab::up();
    let mut home = Home::new(&lab);
    let token = home.gateway.token().to_owned();
    home.pair();
    home.save("home", &[home.direct("lan"), home.ssh("box")]);
    let url = format!("ssh://{}@box", lab::sshd::user());
    let commands: [&[&str]; 6] = [
        &["--log-level", "trace", "gateway", "call", "health", "--url", &url, "--token", &token],
        &["--log-level", "trace", "--on", "home", "health"],
        &["--log-level", "trace", "--on", "home", "status", "--all"],
        &["--log-level", "trace", "--on", "home", "gateway", "probe"],
        &["--log-level", "trace", "--on", "home", "doctor", "--why"],
        &["--log-level", "trace", "tunnel", "up", "home", "--port", "28789"],
    ];
    // The device's own token is as secret as the shared one.
    let held = std::fs::read_to_string(home.laptop().state_dir().join("identity/device-auth.json")).expect("tokens");
    let held: Value = serde_json::from_str(&held).expect("JSON");
    let mut secrets = vec![token.clone()];
    tokens_in(&held, &mut secrets);
    assert!(secrets.len() > 1, "a device token is held: {held}");
    let mut said = String::new();
    for down in [false, true] {
        if down {
            home.gateway.kill();
        }
        for args in commands {
            let ran = home.openclaw(args).run();
            said.push_str(&ran.stdout);
            said.push_str(&ran.stderr);
        }
        said.push_str(&home.openclaw(&["tunnel", "logs", "home"]).run().stdout);
        home.ok(&["tunnel", "down", "--all"]);
    }
    let kept = lab::sandbox::walk(&home.laptop().home());
    let logs = kept.iter().filter(|file| file.ends_with("log") || file.extension().is_some_and(|end| end == "log"));
    said.extend(logs.map(|file| std::fs::read_to_string(file).unwrap_or_default()));
    said.push_str(&home.me.starts().join("\n"));
    for secret in secrets {
        assert!(!said.contains(&secret), "a secret that begins with {} was shown", &secret[..4]);
    }
}

/// Every value of a key `token`, at any depth.
fn tokens_in(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("token").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| tokens_in(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| tokens_in(value, found)),
        _ => {}
    }
}
