//! Exec approvals in Discord (S-253): the gateway as a process, Discord as a double, and an operator who wants to run
//! something.

use std::time::Duration;

use doubles::discord::{BOT, Discord, Fault, TOKEN};
use lab::{
    client::{Client, Login},
    process::wait_until,
    sandbox::{Sandbox, Setup},
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

const ADA: &str = "100000000000000007";
const BOB: &str = "100000000000000008";
const EVE: &str = "100000000000000009";
const GENERAL: &str = "200000000000000010";
const EVERYTHING: &[&str] = &["operator.admin", "operator.read", "operator.write", "operator.approvals"];

struct Lab {
    runtime: Runtime,
    discord: Discord,
}

impl Lab {
    fn new() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let discord = runtime.block_on(Discord::start());
        Self { runtime, discord }
    }

    /// A gateway whose Discord account asks Ada and Bob, unless `approvals` says otherwise.
    fn setup(&self, approvals: Value) -> Setup {
        let mut discord = json!({"token": TOKEN, "groupPolicy": "disabled",
            "execApprovals": {"enabled": true, "approvers": [ADA, BOB]}});
        for (key, value) in approvals.as_object().expect("an object") {
            discord["execApprovals"][key] = value.clone();
        }
        Setup::new().env("DISCORD_API_URL", &self.discord.api_url()).config(json!({"channels": {"discord": discord}}))
    }

    fn start(&self, approvals: Value) -> Sandbox {
        let gateway = self.setup(approvals).start();
        watching(&gateway, 1);
        self.runtime.block_on(self.discord.live());
        gateway
    }

    /// The question as a user sees it.
    fn question(&self, channel: &str) -> Value {
        let sent = self.runtime.block_on(self.discord.sent(channel, 1));
        sent.last().cloned().expect("a question")
    }

    fn dm(&self, user: &str) -> String {
        self.discord.dm_channel(user)
    }

    /// Waits until the message says so.
    fn says(&self, message: &Value, words: &str) -> Value {
        let id = message["id"].as_str().expect("an id").to_owned();
        wait_until(words, || {
            self.discord.shown(&id).filter(|shown| shown["content"].as_str().is_some_and(|text| text.contains(words)))
        })
    }

    fn press(&self, user: &str, message: &Value, label: &str) {
        let id = message["id"].as_str().expect("an id");
        self.discord.press(user, id, &button(message, label));
    }

    /// What whoever pressed was answered.
    fn answer(&self, number: usize) -> Value {
        self.runtime.block_on(self.discord.nth_call("POST", "/callback", number)).body
    }
}

/// The monitor has connected so often.
fn watching(gateway: &Sandbox, times: usize) {
    let line = "exec approvals in chats: watching";
    wait_until(line, || (gateway.console().matches(line).count() >= times).then_some(()));
}

fn button(message: &Value, label: &str) -> String {
    let rows = message["components"].as_array().expect("rows");
    let mut buttons = rows.iter().flat_map(|row| row["components"].as_array().expect("buttons"));
    let found = buttons.find(|button| button["label"] == label).unwrap_or_else(|| panic!("no {label}: {message}"));
    found["custom_id"].as_str().expect("data").to_owned()
}

fn operator(gateway: &Sandbox) -> Client {
    gateway.operator(EVERYTHING)
}

/// Asks for leave; gives the id and the request that is answered with the decision.
fn ask(operator: &mut Client, command: &str, more: Value) -> (String, String) {
    let mut params = json!({"command": command, "commandArgv": ["/bin/sh", "-c", command], "cwd": "/w",
        "host": "gateway", "agentId": "main", "sessionKey": "agent:main:discord:channel:200000000000000010",
        "timeoutMs": 60_000, "twoPhase": true});
    for (key, value) in more.as_object().expect("an object") {
        params[key] = value.clone();
    }
    let request = operator.send("exec.approval.request", params);
    let accepted = operator.answer(&request).expect("open").expect("accepted");
    assert_eq!((&accepted["status"], &accepted["deliveryRoute"]), (&json!("accepted"), &json!("approval-client")));
    (accepted["id"].as_str().expect("an id").to_owned(), request)
}

#[test]
fn s_253_an_approver_decides_and_nobody_else() {
    let lab = Lab::new();
    let gateway = lab.start(json!({}));
    let mut operator = operator(&gateway);
    let mut ui = gateway.with_token().scopes(EVERYTHING).set("/caps", json!(["exec-approvals"])).hello();
    let (id, waiting) = ask(&mut operator, "echo **hi** <@1> @everyone ``` x", json!({}));
    ui.event("exec.approval.requested");

    let (adas, bobs) = (lab.question(&lab.dm(ADA)), lab.question(&lab.dm(BOB)));
    let text = adas["content"].as_str().expect("text").replace('\u{200b}', "");
    assert!(text.contains("```\necho **hi** <@1> @everyone ``` x\n```"), "as it is in the request: {text}");
    let sent = lab.discord.calls_to("POST", "/messages");
    assert!(sent.iter().all(|call| call.body["allowed_mentions"]["parse"] == json!([])), "nobody is called");
    assert!(text.contains(&id) && text.contains("/w"), "{text}");

    // Whoever else finds the button decides nothing.
    lab.press(EVE, &adas, "Allow once");
    let answer = lab.answer(0);
    assert_eq!((&answer["type"], &answer["data"]["flags"]), (&json!(4), &json!(64)));
    assert!(answer["data"]["content"].as_str().is_some_and(|text| text.contains("not one of the approvers")));
    assert_eq!(operator.ok("exec.approval.list", json!({})).as_array().map(Vec::len), Some(1));

    lab.press(ADA, &adas, "Allow once");
    let outcome = operator.answer(&waiting).expect("open").expect("ok");
    assert_eq!((&outcome["id"], &outcome["decision"]), (&json!(id), &json!("allow-once")));
    let resolved = ui.event("exec.approval.resolved")["payload"].clone();
    assert_eq!(resolved["resolvedBy"], json!(format!("discord:{ADA}")));
    for question in [&adas, &bobs] {
        let shown = lab.says(question, "Allowed once");
        assert!(shown["content"].as_str().is_some_and(|text| text.contains(ADA)), "{shown}");
        assert_eq!(shown["components"], json!([]), "no buttons are left");
    }
    assert_eq!(lab.answer(1)["type"], 7);

    // The other copy's button comes too late.
    lab.discord.press(BOB, bobs["id"].as_str().expect("id"), &button(&bobs, "Deny"));
    lab.answer(2);
    assert_eq!(ui.ok("approval.get", json!({ "id": id }))["approval"]["decision"], "allow-once");
}

#[test]
fn what_was_decided_elsewhere_or_by_nobody_is_shown() {
    let lab = Lab::new();
    let gateway = lab.start(json!({"approvers": [ADA]}));
    let mut operator = operator(&gateway);
    let (id, _) = ask(&mut operator, "echo elsewhere", json!({}));
    let question = lab.question(&lab.dm(ADA));
    let mut ui = gateway.with_token().scopes(EVERYTHING).set("/caps", json!(["exec-approvals"])).hello();
    ui.ok("exec.approval.resolve", json!({"id": id, "decision": "deny"}));
    let shown = lab.says(&question, "Denied");
    assert_eq!(shown["components"], json!([]));

    ask(&mut operator, "echo too late", json!({"timeoutMs": 1_500}));
    let sent = lab.runtime.block_on(lab.discord.sent(&lab.dm(ADA), 2));
    lab.says(&sent[1], "Expired: nobody answered");
}

#[test]
fn questions_go_where_they_are_meant_to() {
    let lab = Lab::new();
    lab.discord.guild(json!({"id": "200000000000000001", "name": "Friends", "members": [],
        "channels": [{"id": GENERAL, "type": 0, "name": "general"}], "threads": [], "presences": []}));
    let approvals = json!({"approvers": [ADA], "target": "both", "agentFilter": ["main"], "cleanupAfterResolve": true});
    let gateway = lab.start(approvals);
    let mut operator = operator(&gateway);
    // Another agent's commands are not asked about here.
    let other = json!({"agentId": "ops", "sessionKey": "agent:ops:main"});
    ask(&mut operator, "echo other", other);
    ask(&mut operator, "echo mine", json!({}));
    let (in_dm, in_channel) = (lab.question(&lab.dm(ADA)), lab.question(GENERAL));
    assert!(in_dm["content"].as_str().is_some_and(|text| text.contains("echo mine")));
    lab.press(ADA, &in_channel, "Deny");
    lab.says(&in_channel, "Denied");
    let dm = in_dm["id"].as_str().expect("id");
    wait_until("the direct message to be taken away", || lab.discord.shown(dm).is_none().then_some(()));
    assert_eq!(lab.discord.calls_to("POST", "/messages").len(), 2);
}

#[test]
fn a_restart_leaves_no_live_buttons() {
    let lab = Lab::new();
    let mut gateway = lab.start(json!({"approvers": [ADA]}));
    let mut asking = operator(&gateway);
    ask(&mut asking, "echo before", json!({}));
    let question = lab.question(&lab.dm(ADA));
    // Remembered a moment after it was sent.
    wait_until("the question on disk", || {
        let connection = rusqlite::Connection::open(state_db(&gateway)).ok()?;
        let count: i64 = connection.query_row("SELECT count(*) FROM approval_prompts", [], |row| row.get(0)).ok()?;
        (count == 1).then_some(())
    });
    gateway.kill();
    gateway.start();
    let shown = lab.says(&question, "Expired: the gateway was restarted");
    assert_eq!(shown["components"], json!([]));
    watching(&gateway, 1);
    // An old button that a client still shows decides nothing, and says so.
    let before = lab.discord.calls_to("POST", "/callback").len();
    lab.press(ADA, &question, "Allow once");
    assert_eq!(lab.answer(before)["type"], 7);
    let mut asking = operator(&gateway);
    assert_eq!(asking.ok("exec.approval.list", json!({})), json!([]));
}

fn state_db(gateway: &Sandbox) -> std::path::PathBuf {
    let files = lab::sandbox::walk(&gateway.state_dir());
    files.into_iter().find(|file| file.extension().is_some_and(|ext| ext == "sqlite")).expect("a database")
}

#[test]
fn s_253_an_unresolved_credential_fails_closed() {
    let lab = Lab::new();
    // The gateway has its secret from the command line; the monitor has to find the one that the config names.
    let reference = json!({"source": "env", "provider": "default", "id": "NOT_SET_ANYWHERE"});
    let setup = lab.setup(json!({})).config(json!({"gateway": {"auth": {"token": null}}}));
    let setup = setup.config(json!({"gateway": {"auth": {"token": reference}, "remote": {"token": "remote-token"}}}));
    let token = setup.token().to_owned();
    // Where this test puts the secret itself is not what is watched.
    let gateway = setup.arg("--token").arg(&token).unwatched().start();
    let line =
        "exec approvals in chats: off, gateway.auth.token is configured as a secret reference but is unavailable";
    wait_until(line, || gateway.console().contains(line).then_some(()));
    lab.runtime.block_on(lab.discord.live());
    let mut operator = operator(&gateway);
    let request = operator.send(
        "exec.approval.request",
        json!({"command": "echo", "commandArgv": ["echo"], "host": "gateway", "timeoutMs": 60_000, "twoPhase": true}),
    );
    // Nobody is there to answer, and nobody was told.
    let outcome = operator.answer(&request).expect("open").expect("an answer");
    assert_eq!(outcome["decision"], Value::Null, "{outcome}");
    assert!(lab.discord.calls_to("POST", "/messages").is_empty());
    assert!(!gateway.console().contains("exec approvals in chats: watching"));
}

#[test]
fn rate_limits_and_lost_answers_do_not_lose_or_double_a_question() {
    let lab = Lab::new();
    let gateway = lab.start(json!({"approvers": [ADA]}));
    lab.discord.fault("POST", "/messages", Fault::RateLimit { seconds: 0.5, global: false });
    lab.discord.fault("POST", "/messages", Fault::CutAfter);
    let mut operator = operator(&gateway);
    let (_, waiting) = ask(&mut operator, "echo once", json!({}));
    wait_until("three attempts", || (lab.discord.calls_to("POST", "/messages").len() == 3).then_some(()));
    let question = lab.question(&lab.dm(ADA));
    assert_eq!((lab.discord.sent_to(&lab.dm(ADA)).len(), &question["author"]["id"]), (1, &json!(BOT)));
    // The link is cut between the question and the answer.
    lab.discord.cut();
    lab.runtime.block_on(async {
        lab.discord.gone().await;
        tokio::time::timeout(Duration::from_secs(30), lab.discord.live()).await.expect("back");
    });
    lab.press(ADA, &question, "Allow always");
    assert_eq!(operator.answer(&waiting).expect("open").expect("ok")["decision"], "allow-always");
    lab.says(&question, "Allowed always");
}

/// Keeps the type of the login in view: the operator asks as any client does.
#[test]
fn the_asker_cannot_name_a_reviewer_it_is_not() {
    let lab = Lab::new();
    let gateway = lab.start(json!({"approvers": [ADA]}));
    let login: Login = gateway.with_token().scopes(&["operator.approvals", "operator.write"]);
    let mut asker = login.set("/caps", json!(["exec-approvals"])).hello();
    let mut ui = gateway.with_token().scopes(EVERYTHING).set("/caps", json!(["exec-approvals"])).hello();
    let (id, _) = ask(&mut asker, "echo mine", json!({}));
    let reviewer = json!({"channel": "discord", "accountId": "default", "senderId": ADA});
    asker.ok("exec.approval.resolve", json!({"id": id, "decision": "deny", "reviewer": reviewer}));
    assert_eq!(ui.event("exec.approval.resolved")["payload"]["resolvedBy"], "cli", "not believed");
}
