//! The official CLIs of both generations answer for commands and change the policy at our gateway; ours does the same.

use std::{fs, path::Path, time::Duration};

use lab::{
    client::{Client, Login},
    peers::{Generation, Peers, prepare_home},
    process::{Gateway, Launch, our_cli, wait_at_most},
    require,
    wire::Address,
};
use serde_json::{Value, json};
use tempfile::TempDir;

const EVERYTHING: &[&str] =
    &["operator.admin", "operator.read", "operator.write", "operator.approvals", "operator.pairing"];

fn scratch() -> TempDir {
    let home = TempDir::with_prefix("openclaw-peer-").expect("a temporary directory");
    prepare_home(home.path());
    home
}

fn operator(gateway: &Gateway) -> Client {
    Login::at(&Address::Port(gateway.port())).token(gateway.token()).scopes(EVERYTHING).hello()
}

#[track_caller]
fn says(cli: Launch, args: &[&str]) -> Value {
    let finished = cli.args(args).arg("--json").run();
    assert!(finished.status.success(), "{args:?}: {finished:#?}");
    finished.json()
}

/// Puts a request before people and returns the number of its frame and its id.
fn ask(client: &mut Client, command: &str) -> (String, String) {
    let params = json!({"command": command, "host": "gateway", "agentId": "main", "sessionKey": "agent:main:main",
                        "twoPhase": true, "requireDeliveryRoute": false});
    let request = client.send("exec.approval.request", params);
    let accepted = client.answer(&request).expect("open").expect("accepted");
    (request, accepted["id"].as_str().expect("an id").to_owned())
}

/// `get`, `set`, `allowlist add` and `remove`, and what is on disk afterwards.
#[track_caller]
fn the_policy_is_changed(cli: &dyn Fn() -> Launch, gateway: &Gateway, home: &Path) {
    let before = says(cli(), &["approvals", "get", "--gateway"]);
    assert_eq!((&before["exists"], &before["file"]["version"]), (&json!(false), &json!(1)), "{before:#}");
    let file = home.join("policy.json5");
    fs::write(&file, "{ version: 1, defaults: { security: 'allowlist', ask: 'on-miss' } }").expect("writes");
    let written = says(cli(), &["approvals", "set", "--gateway", "--file", file.to_str().expect("UTF-8")]);
    assert_eq!(written["file"]["defaults"], json!({"security": "allowlist", "ask": "on-miss"}));
    let added = says(cli(), &["approvals", "allowlist", "add", "--gateway", "~/bin/**/rg"]);
    assert_eq!(added["file"]["agents"]["*"]["allowlist"][0]["pattern"], "~/bin/**/rg", "{added:#}");
    let disk = fs::read_to_string(gateway.state_dir().join("exec-approvals.json")).expect("written");
    let disk: Value = serde_json::from_str(&disk).expect("JSON");
    assert_eq!(disk["agents"]["*"]["allowlist"][0]["pattern"], "~/bin/**/rg");
    assert_eq!(disk["defaults"]["ask"], "on-miss");
    let removed = says(cli(), &["approvals", "allowlist", "remove", "--gateway", "~/bin/**/rg"]);
    assert_eq!(removed["file"].get("agents").and_then(|agents| agents.get("*")), None, "{removed:#}");
    let shown = cli().args(["approvals", "get", "--gateway"]).run();
    assert!(shown.status.success() && shown.stdout.contains("security=allowlist"), "{shown:#?}");
}

/// `pending` and `resolve`, against requests that really wait.
#[track_caller]
fn a_request_is_answered(cli: &dyn Fn() -> Launch, gateway: &Gateway) {
    let mut agent = operator(gateway);
    for decision in ["allow-always", "deny"] {
        let (request, id) = ask(&mut agent, "rm -rf \u{1b}x");
        let pending = says(cli(), &["approvals", "pending"])["approvals"].clone();
        assert_eq!(pending.as_array().map(Vec::len), Some(1), "{pending:#}");
        let entry = &pending[0];
        assert_eq!((&entry["id"], &entry["kind"]), (&json!(id), &json!("exec")));
        assert_eq!((&entry["summary"], &entry["agentId"]), (&json!("rm -rf \\u{1B}x"), &json!("main")));
        let resolved = says(cli(), &["approvals", "resolve", &id, decision]);
        assert_eq!((&resolved["applied"], &resolved["approval"]["decision"]), (&json!(true), &json!(decision)));
        assert_eq!(agent.answer(&request).expect("open").expect("ok")["decision"], decision);
        // Saying it again is no failure; saying something else is.
        if decision == "deny" {
            assert_eq!(says(cli(), &["approvals", "resolve", &id, decision])["applied"], false);
            let conflict = cli().args(["approvals", "resolve", &id, "allow-once"]).run();
            assert!(!conflict.status.success() && conflict.stderr.contains("already"), "{conflict:#?}");
        }
    }
    let unknown = cli().args(["approvals", "resolve", "no-such-id", "deny"]).run();
    assert!(!unknown.status.success(), "{unknown:#?}");
    assert_eq!(says(cli(), &["approvals", "pending"]), json!({"approvals": []}));
}

#[test]
fn the_official_cli_of_protocol_4_answers_for_commands() {
    let peers = require!(Peers::find());
    let (gateway, home) = (Gateway::start(), scratch());
    let cli = || peers.cli_on(Generation::V4, home.path(), gateway.port(), gateway.token());
    a_request_is_answered(&cli, &gateway);
}

#[test]
fn the_official_cli_of_protocol_4_changes_the_policy() {
    let peers = require!(Peers::find());
    let (gateway, home) = (Gateway::start(), scratch());
    let cli = || peers.cli_on(Generation::V4, home.path(), gateway.port(), gateway.token());
    the_policy_is_changed(&cli, &gateway, home.path());
}

#[test]
fn the_official_cli_of_protocol_3_changes_the_policy() {
    let peers = require!(Peers::find());
    let (gateway, home) = (Gateway::start(), scratch());
    let cli = || peers.cli_on(Generation::V3, home.path(), gateway.port(), gateway.token());
    the_policy_is_changed(&cli, &gateway, home.path());
}

#[test]
fn our_cli_does_the_same() {
    let (gateway, home) = (Gateway::start(), scratch());
    let cli = || our_cli(home.path(), gateway.port(), gateway.token());
    the_policy_is_changed(&cli, &gateway, home.path());
    a_request_is_answered(&cli, &gateway);
    let mut agent = operator(&gateway);
    let (request, id) = ask(&mut agent, "make");
    let shown = cli().args(["approvals", "list"]).run();
    assert!(shown.stdout.contains("make") && shown.stdout.contains(&id), "{shown:#?}");
    let allowed = cli().args(["approvals", "allow", &id[..8]]).run();
    assert!(allowed.status.success() && allowed.stdout.contains("allowed once"), "{allowed:#?}");
    assert_eq!(agent.answer(&request).expect("open").expect("ok")["decision"], "allow-once");
    let (request, id) = ask(&mut agent, "make");
    let denied = cli().args(["approvals", "deny", &id]).run();
    assert!(denied.status.success() && denied.stdout.contains("denied"), "{denied:#?}");
    assert_eq!(agent.answer(&request).expect("open").expect("ok")["decision"], "deny");
    // What ended, newest first, page by page; what each entry says is what the published schema demands of it.
    let page = agent.ok("approval.history", json!({"limit": 1, "kind": "exec"}));
    let newest = page["items"][0].as_object().expect("an entry");
    assert_eq!((&newest["id"], &newest["status"], &newest["decision"]), (&json!(id), &json!("denied"), &json!("deny")));
    for key in ["urlPath", "createdAtMs", "expiresAtMs", "presentation", "resolvedAtMs", "reason"] {
        assert!(newest.contains_key(key), "{key}: {page:#}");
    }
    let older = agent.ok("approval.history", json!({"limit": 1, "cursor": page["nextCursor"]}));
    assert_eq!(older["items"][0]["decision"], "allow-once", "{older:#}");
    for bad in [json!({"limit": 0}), json!({"limit": 101}), json!({"cursor": "x"}), json!({"kind": "other"})] {
        assert_eq!(agent.err("approval.history", bad.clone())["code"], "INVALID_REQUEST", "{bad}");
    }
    assert_eq!(agent.ok("approval.history", json!({"kind": "plugin"})), json!({"items": []}));
    assert_eq!(agent.ok("exec.approval.grants.list", json!({})), json!({"grants": []}));
    assert_eq!(agent.ok("exec.approval.grants.revoke", json!({"grantId": "g"})), json!({"outcome": "not-found"}));
    // Without a target: the document of this machine.
    let local = says(cli(), &["approvals", "allowlist", "add", "/usr/bin/rg", "--agent", "main"]);
    assert_eq!(local["file"]["agents"]["main"]["allowlist"][0]["pattern"], "/usr/bin/rg");
    let again = cli().args(["approvals", "allowlist", "add", "/usr/bin/rg", "--agent", "main"]).run();
    assert!(again.status.success() && again.stdout.contains("Already"), "{again:#?}");
    let wrong = cli().args(["approvals", "get", "--node", "nobody"]).run();
    assert!(!wrong.status.success() && wrong.stderr.contains("There is no node"), "{wrong:#?}");
}

/// The real node host opens its database before it dials: on a busy machine that alone takes a minute.
const SLOW: Duration = Duration::from_secs(180);

/// A command is allowed by somebody who watches, and runs on the real node host of either generation.
#[track_caller]
fn a_real_node_runs_what_was_approved(generation: Generation) {
    let peers = require!(Peers::find());
    let gateway = Gateway::start();
    let (owner, home) = (scratch(), scratch());
    let mut agent = operator(&gateway);
    let port = gateway.port().to_string();
    let node = peers
        .cli_on(generation, home.path(), gateway.port(), gateway.token())
        .args(["node", "run", "--host", "127.0.0.1", "--port", &port, "--display-name", "bench"])
        .start("node");
    let id = wait_at_most(SLOW, "node", || {
        assert!(Path::new(&format!("/proc/{}", node.pid())).exists(), "{}", node.said());
        let list = agent.ok("node.list", json!({}));
        let node = list["nodes"].as_array().and_then(|nodes| nodes.first()).cloned()?;
        (node["connected"] == true).then(|| node["nodeId"].as_str().expect("an id").to_owned())
    });
    if generation == Generation::V4 {
        let pending = agent.ok("node.pair.list", json!({}))["pending"][0]["requestId"].clone();
        agent.ok("node.pair.approve", json!({ "requestId": pending }));
    }
    // The node asks for everything, so nothing runs without leave.
    let cli = || peers.cli_on(Generation::V4, owner.path(), gateway.port(), gateway.token());
    let policy = owner.path().join("ask.json");
    fs::write(&policy, json!({"version": 1, "defaults": {"security": "allowlist", "ask": "always"}}).to_string())
        .expect("writes");
    let written = says(cli(), &["approvals", "set", "--node", "bench", "--file", policy.to_str().expect("UTF-8")]);
    assert_eq!(written["file"]["defaults"]["ask"], "always", "{written:#}");
    let mut calls = 0;
    let mut invoke = |agent: &mut Client, command: &str, params: Value| {
        calls += 1;
        let key = format!("k{calls}");
        let call =
            json!({"nodeId": id, "command": command, "params": params, "idempotencyKey": key, "timeoutMs": 30000});
        agent.call("node.invoke", call)
    };
    let marker = home.path().join("ran");
    let touch = ["/usr/bin/touch", "/bin/touch"].into_iter().find(|path| Path::new(path).exists()).expect("touch");
    let argv = json!([touch, marker]);
    let script = format!("{touch} {}", marker.display());
    let wanted = json!({"command": argv, "rawCommand": script, "agentId": "main", "sessionKey": "agent:main:main",
                        "cwd": home.path()});
    let refused = invoke(&mut agent, "system.run", wanted.clone()).expect_err("no leave yet");
    assert!(refused.to_string().contains("SYSTEM_RUN_DENIED"), "{refused:#}");
    let prepared = invoke(&mut agent, "system.run.prepare", wanted.clone()).expect("prepares");
    let plan = prepared["payload"]["plan"].clone();
    let mut asked = json!({"host": "node", "nodeId": id, "commandArgv": argv, "command": script, "cwd": home.path(),
        "agentId": "main", "sessionKey": "agent:main:main", "twoPhase": true, "requireDeliveryRoute": false});
    asked["systemRunPlan"] = plan;
    let request = agent.send("exec.approval.request", asked);
    let accepted = agent.answer(&request).expect("open").expect("accepted");
    let approval = accepted["id"].as_str().expect("an id").to_owned();
    let claim = |mut params: Value| {
        params["runId"] = json!(approval);
        params["approved"] = json!(true);
        params["approvalDecision"] = json!("allow-once");
        params
    };
    let early = invoke(&mut agent, "system.run", claim(wanted.clone())).expect_err("not decided");
    assert_eq!(early["details"]["code"], "APPROVAL_REQUIRED");
    says(cli(), &["approvals", "resolve", &approval, "allow-once"]);
    assert_eq!(agent.answer(&request).expect("open").expect("ok")["decision"], "allow-once");
    assert!(!marker.exists());
    let ran = invoke(&mut agent, "system.run", claim(wanted.clone())).expect("runs");
    assert_eq!(ran["payload"]["exitCode"], 0, "{ran:#}");
    assert!(marker.exists(), "it ran");
    let again = invoke(&mut agent, "system.run", claim(wanted)).expect_err("used up");
    assert_eq!(again["details"]["code"], "APPROVAL_REQUIRED");
}

#[test]
fn a_real_node_of_protocol_4_runs_what_was_approved() {
    a_real_node_runs_what_was_approved(Generation::V4);
}

#[test]
fn a_real_node_of_protocol_3_runs_what_was_approved() {
    a_real_node_runs_what_was_approved(Generation::V3);
}
