//! `openclaw connect` from a clean laptop: one command to a verified call, and nothing left of one that does not get there.

use std::{
    fs,
    time::{Duration, Instant},
};

use lab::{
    netlab::Netlab,
    process::wait_until,
    require::{self, program},
    sandbox::walk,
    sshd::user,
};
use rustix::process::Signal;
use serde_json::json;

use crate::{home::Home, report, tunnel::tunnels};

/// The steps as they are printed, in order.
const STEPS: [&str; 8] = ["ssh", "login", "gateway", "tunnel", "pair", "call", "save", "keep"];

fn place(alias: &str) -> String {
    format!("{}@{alias}", user())
}

/// Devices the gateway knows.
#[track_caller]
fn paired(home: &Home<'_>) -> usize {
    let list = home.gateway.owner(["devices", "list", "--json"]).run().json();
    list["paired"].as_array().map_or(0, Vec::len) + list["pending"].as_array().map_or(0, Vec::len)
}

/// Nothing of a connection is on the laptop: no process, no saved gateway, no key, no token, no socket.
#[track_caller]
fn assert_clean(home: &Home<'_>, when: &str) {
    home.no_ssh_left();
    wait_until(&format!("an empty laptop ({when})"), || home.laptop().processes().is_empty().then_some(()));
    let connections = fs::read_to_string(home.laptop().state_dir().join("connections.json")).unwrap_or_default();
    assert!(!connections.contains("gatewayId"), "{when}: {connections}");
    assert!(!home.laptop().state_dir().join("identity/device.json").exists(), "{when}: a key");
    let left: Vec<_> = walk(&home.laptop().state_dir())
        .into_iter()
        .filter(|file| file.extension().is_none_or(|end| end != "lock"))
        .filter(|file| !file.ends_with("connections.json") && !file.ends_with("log") && !file.ends_with("lock"))
        // The list of tokens may stay, without any.
        .filter(|file| !fs::read_to_string(file).is_ok_and(|text| text.is_empty() || !text.contains("\"token\"")))
        .collect();
    assert!(left.is_empty(), "{when}: {left:?}");
}

#[test]
fn one_command_from_a_clean_laptop_to_a_verified_call() {
    lab::require!(require::netlab());
    lab::require!(program("sshd"));
    let lab = Netlab::up();
    let home = Home::new(&lab);
    let asked = Instant::now();
    let connected = home.ok(&["connect", &place("box"), "--name", "home", "--json"]);
    report::note("connect from a clean laptop, on the LAN", asked.elapsed());
    let told = connected.json();
    assert_eq!(told["gatewayId"], home.gateway_id(), "{told}");
    let passed: Vec<_> = told["steps"].as_array().expect("steps").iter().map(|step| step["step"].clone()).collect();
    assert_eq!(passed, STEPS.map(|step| json!(step)), "{told}");
    assert!(told["steps"].as_array().expect("steps").iter().all(|step| step["ok"] == true), "{told}");
    // It is what every command means from now on, over the best path, and without a shared secret.
    assert_eq!(home.ok(&["health", "--json"]).json()["ok"], true);
    // A tunnel that is up is as good as the LAN.
    assert_eq!(tunnels(&home)[0]["state"], "up");
    home.ok(&["tunnel", "down", "home"]);
    assert_eq!(home.ok(&["status", "--json"]).json()["gateway"]["path"]["kind"], "lan");
    lab.laptop_only_in(&["ts"]);
    assert_eq!(home.ok(&["status", "--json"]).json()["gateway"]["path"]["kind"], "tailnet");
    for file in walk(&home.laptop().home()) {
        let text = fs::read(&file).unwrap_or_default();
        let holds = text.windows(home.gateway.token().len()).any(|part| part == home.gateway.token().as_bytes());
        assert!(!holds, "the shared token is in {}", file.display());
    }
    assert_eq!(paired(&home), 1);
    home.ok(&["connections", "rm", "home"]);
    home.no_ssh_left();
}

#[test]
fn from_a_cafe_through_a_jump_host() {
    lab::require!(require::netlab());
    lab::require!(program("sshd"));
    let lab = Netlab::up();
    let home = Home::new(&lab);
    lab.laptop_only_in(&["cafe"]);
    let asked = Instant::now();
    home.ok(&["connect", &place("box-jump"), "--name", "home"]);
    report::note("connect from a café behind a NAT, through a jump host", asked.elapsed());
    let path = home.ok(&["status", "--json"]).json()["gateway"]["path"].clone();
    assert_eq!((path["kind"].as_str(), path["carrier"].as_str()), (Some("ssh"), Some("tunnel")), "{path}");
    // At home again the direct path is there, with the same device and token.
    lab.join("laptop:lan");
    home.ok(&["tunnel", "down", "--all"]);
    assert_eq!(home.ok(&["status", "--json"]).json()["gateway"]["path"]["kind"], "lan");
    home.no_ssh_left();
}

#[test]
fn interrupted_at_any_step_it_leaves_nothing() {
    lab::require!(require::netlab());
    lab::require!(program("sshd"));
    let lab = Netlab::up();
    let home = Home::new(&lab);
    let before = paired(&home);
    for (index, step) in STEPS.iter().enumerate() {
        let mut process =
            home.openclaw(&["connect", &place("box"), "--name", "home"]).start(&format!("connect-{step}"));
        let passed = format!("✓ {step}");
        let ended = wait_until(&format!("step {step}"), || {
            let ended = process.ended();
            (ended.is_some() || process.stderr().contains(&passed)).then_some(ended)
        });
        assert!(ended.is_none() || index + 1 == STEPS.len(), "it ended before {step}: {}", process.said());
        process.signal(Signal::INT);
        let status = wait_until("the end of an interrupted connect", || process.ended());
        if status.success() {
            // It had arrived: then it is whole, and can be taken back.
            assert!(index + 2 >= STEPS.len(), "interrupted after {step} it claims success: {}", process.said());
            let device = home.ok(&["connections", "show", "home", "--json"]).json()["deviceId"].clone();
            home.ok(&["connections", "rm", "home"]);
            let device = device.as_str().expect("an id").to_owned();
            assert!(home.gateway.owner(["devices", "remove", &device]).run().status.success());
            fs::remove_dir_all(home.laptop().state_dir().join("identity")).expect("the key it had made");
        }
        assert_clean(&home, &format!("after {step}: {}", process.said()));
        assert_eq!(paired(&home), before, "after {step}: {}", process.said());
    }
}

#[test]
fn killed_without_a_word_it_leaves_no_process() {
    lab::require!(require::netlab());
    lab::require!(program("sshd"));
    let lab = Netlab::up();
    let home = Home::new(&lab);
    for step in ["login", "gateway", "tunnel", "pair"] {
        let mut process = home.openclaw(&["connect", &place("box")]).start(&format!("connect-{step}"));
        wait_until(step, || process.stderr().contains(&format!("✓ {step}")).then_some(()));
        lab::sshd::kill(process.pid());
        wait_until("its end", || process.ended());
        // The tunnel in the background, where it came to that, is no child of it.
        home.ok(&["tunnel", "down", "--all"]);
        home.no_ssh_left();
    }
    // The next one is not in the way of anything the last ones left.
    home.ok(&["connect", &place("box"), "--yes"]);
    home.ok(&["connections", "rm", "box"]);
}

#[test]
fn each_failure_names_its_step_and_undoes_the_rest() {
    lab::require!(require::netlab());
    lab::require!(program("sshd"));
    let lab = Netlab::up();
    let mut home = Home::new(&lab);
    let fails_at = |home: &Home<'_>, step: &str, word: &str| {
        let failed = home.fails(&["connect", &place("box"), "--json"]);
        let last = format!("✗ {step}");
        assert!(failed.stderr.contains(&last), "no {last:?} in {failed:#?}");
        let said = failed.stderr.to_lowercase();
        assert!(said.contains(word), "no {word:?} in {failed:#?}");
        assert_clean(home, step);
    };
    home.far.end_listener();
    fails_at(&home, "login", "no ssh server listens");
    home.far.start_again();
    home.me.trust_nobody();
    fails_at(&home, "login", "host key is not known");
    home.me.trust(&home.far, &["gateway.home"]);
    home.far.authorize_nobody();
    fails_at(&home, "login", "does not accept this login");
    home.far.authorize(&home.me.public_key());
    home.gateway.kill();
    fails_at(&home, "gateway", "openclaw gateway");
    home.gateway.start_again();
    let asked = Instant::now();
    home.ok(&["connect", &place("box")]);
    assert!(asked.elapsed() < Duration::from_secs(60), "{:?}", asked.elapsed());
    home.ok(&["tunnel", "down", "--all"]);
}
