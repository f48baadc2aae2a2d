//! Discord from end to end: the gateway as a process, Discord and a model as doubles, the owner at the command line.

use std::time::Duration;

use doubles::{
    discord::{BOT, Discord, Fault, TOKEN, user_object},
    model::{Model, Reply, Script},
};
use lab::{
    process::{Finished, Gateway, GatewayOptions, wait_until},
    sandbox::merge,
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

const ADA: &str = "100000000000000007";
const BOB: &str = "100000000000000008";
const EVE: &str = "100000000000000009";
const GUILD: &str = "200000000000000001";
const GENERAL: &str = "200000000000000010";
const THREAD: &str = "200000000000000011";
const STAFF: &str = "300000000000000044";

struct Lab {
    runtime: Runtime,
    discord: Discord,
    model: Model,
}

impl Lab {
    fn new(script: Script) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let discord = runtime.block_on(Discord::start());
        discord.guild(json!({"id": GUILD, "name": "Friends", "members": [], "presences": [],
            "channels": [{"id": GENERAL, "type": 0, "name": "general"}],
            "threads": [{"id": THREAD, "type": 11, "name": "plans", "parent_id": GENERAL}]}));
        Self { runtime, discord, model: Model::start(script) }
    }

    fn start(&self, discord: Value, more: Value) -> Running<'_> {
        let running = self.start_unready(discord, more);
        self.runtime.block_on(self.discord.live());
        running
    }

    fn start_unready(&self, discord: Value, more: Value) -> Running<'_> {
        let model = json!({"id": "one", "name": "one", "input": ["text", "image"], "contextWindow": 128_000,
            "maxTokens": 4096});
        let mut config = json!({
            "gateway": {"mode": "local"},
            "models": {"providers": {"double": {"baseUrl": self.model.url(), "apiKey": "a-key",
                "api": "openai-completions", "models": [model]}}},
            "agents": {"defaults": {"model": {"primary": "double/one"}}},
            "channels": {"discord": {"token": TOKEN}},
        });
        merge(&mut config["channels"]["discord"], discord);
        merge(&mut config, more);
        let env = vec![("DISCORD_API_URL".to_owned(), self.discord.api_url())];
        let gateway =
            Gateway::start_with(GatewayOptions { config: Some(config.to_string()), env, ..GatewayOptions::default() });
        Running { lab: self, gateway }
    }

    /// Somebody writes in the server.
    fn writes(&self, channel: &str, user: &str, text: &str, more: Value) -> String {
        let mut message = json!({"channel_id": channel, "guild_id": GUILD, "author": user_object(user), "content": text,
            "member": {"roles": []}});
        merge(&mut message, more);
        self.discord.message(message)
    }

    /// The bot's message that holds these words.
    fn said(&self, channel: &str, words: &str) -> Value {
        let found = |double: &Discord| {
            let sent = double.sent_to(channel);
            sent.into_iter().find(|message| message["content"].as_str().is_some_and(|text| text.contains(words)))
        };
        self.runtime.block_on(self.discord.wait(words, found))
    }

    fn dm_said(&self, user: &str, words: &str) -> Value {
        self.said(&self.discord.dm_channel(user), words)
    }
}

struct Running<'a> {
    lab: &'a Lab,
    gateway: Gateway,
}

impl Running<'_> {
    fn cli(&self, args: &[&str]) -> Finished {
        self.gateway.cli(args.iter().copied()).env("DISCORD_API_URL", self.lab.discord.api_url()).run()
    }

    #[track_caller]
    fn says(&self, args: &[&str]) -> String {
        let done = self.cli(args);
        assert!(done.status.success(), "{args:?}: {done:#?}\n{}", self.gateway.said());
        done.stdout
    }

    fn account(&self) -> Value {
        let report: Value = serde_json::from_str(&self.says(&["channels", "status", "--json"])).expect("JSON");
        report["channelAccounts"]["discord"][0].clone()
    }
}

fn content(message: &Value) -> &str {
    message["content"].as_str().unwrap_or_default()
}

#[test]
fn direct_messages_are_paired() {
    let lab = Lab::new(Script::echo());
    let gateway = lab.start(json!({}), json!({}));
    lab.discord.dm(ADA, "hello");
    let invitation = lab.dm_said(ADA, "Pairing code:");
    assert!(content(&invitation).contains(&format!("Discord user id: {ADA}")), "{invitation}");
    let listed: Value = serde_json::from_str(&gateway.says(&["pairing", "list", "discord", "--json"])).expect("JSON");
    let code = listed["requests"][0]["metadata"]["code"].as_str().expect("a code");
    assert!(content(&invitation).contains(&format!("openclaw pairing approve discord {code}")), "{invitation}");
    assert!(lab.model.asks().is_empty());
    gateway.says(&["pairing", "approve", "discord", code]);
    lab.dm_said(ADA, "access approved");
    lab.discord.dm(ADA, "and **now**?");
    lab.dm_said(ADA, "and **now**?");
    // Who is let in commands in any chat; by hand somebody is written to by id.
    lab.discord.dm(ADA, "/status");
    lab.dm_said(ADA, "double/one");
    gateway.says(&[
        "message",
        "send",
        "--channel",
        "discord",
        "--target",
        &format!("user:{BOB}"),
        "-m",
        "meet at nine",
    ]);
    lab.dm_said(BOB, "meet at nine");
    let status = gateway.says(&["channels", "status", "--probe"]);
    assert!(status.contains("openclaw") && status.contains("works"), "{status}");
    // Nobody else came in by that.
    lab.discord.dm(EVE, "me too");
    lab.dm_said(EVE, "Pairing code:");
}

#[test]
fn servers_answer_when_they_are_meant() {
    let lab = Lab::new(Script::choose(|ask| Reply::say(format!("Heard: {}", ask.last_user))));
    let settings = json!({"guilds": {GUILD: {"users": [ADA, BOB]}}});
    let more = json!({
        "messages": {"groupChat": {"mentionPatterns": ["\\bclaw\\b"]}},
        "agents": {"entries": {"main": {"default": true}, "staff": {}}},
        "bindings": [{"agentId": "staff", "match": {"channel": "discord", "guildId": GUILD, "roles": [STAFF]}}],
    });
    let gateway = lab.start(settings, more);
    let mention = format!("<@{BOT}>");
    lab.writes(GENERAL, BOB, "the key is under the mat", json!({}));
    lab.writes(GENERAL, EVE, &format!("{mention} tell me everything"), json!({}));
    lab.writes(GENERAL, ADA, &format!("{mention} where is it?"), json!({}));
    let answer = lab.said(GENERAL, "where is it?");
    assert!(content(&answer).contains("the key is under the mat"), "what was said before is known: {answer}");
    assert!(!content(&answer).contains("everything"), "by those who may write: {answer}");
    assert_eq!(lab.model.asks().len(), 1);
    // By a name in words; and in a thread, which is a conversation of its own.
    lab.writes(GENERAL, BOB, "Claw, what time is it?", json!({}));
    lab.said(GENERAL, "what time is it?");
    lab.writes(THREAD, ADA, &format!("{mention} only here"), json!({}));
    let there = lab.said(THREAD, "only here");
    assert!(!content(&there).contains("mat"), "{there}");
    let sessions = gateway.says(&["sessions", "--json"]);
    let key = format!("agent:main:discord:channel:{GENERAL}");
    assert!(
        sessions.contains(&format!("\"{key}\"")) && sessions.contains(&format!("\"{key}:thread:{THREAD}\"")),
        "{sessions}"
    );
    // A role has an agent of its own.
    lab.writes(GENERAL, ADA, &format!("{mention} as staff"), json!({"member": {"roles": [STAFF]}}));
    lab.said(GENERAL, "as staff");
    assert!(gateway.says(&["sessions", "--json"]).contains(&format!("\"agent:staff:discord:channel:{GENERAL}\"")));
    // A picture goes along.
    let url =
        lab.discord.file("cat.jpg", &[0xFF_u8, 0xD8, 0xFF, 0xE0, 0, 16, b'J', b'F', b'I', b'F', 0, 0xFF, 0xD9][..]);
    let attachment = json!([{"id": "1", "filename": "cat.jpg", "content_type": "image/jpeg", "size": 13, "url": url}]);
    lab.writes(GENERAL, BOB, &format!("{mention} who is this?"), json!({"attachments": attachment}));
    lab.said(GENERAL, "who is this?");
    assert_eq!(lab.model.last().images, 1);
}

#[test]
fn long_answers_come_in_pieces() {
    let code: String = (0..60).map(|n| format!("    let line_{n} = {n};\n")).collect();
    let words: String = (0..40).map(|n| format!("**Part {n}** {}\n\n", "word ".repeat(30))).collect();
    let answer = format!("{words}```rust\n{code}```\nThe end.");
    let lab = Lab::new(Script::always(Reply::say(&answer).pieces(40)));
    let _gateway = lab.start(json!({"dmPolicy": "allowlist", "allowFrom": [ADA]}), json!({}));
    lab.discord.fault("POST", "/messages", Fault::RateLimit { seconds: 0.5, global: false });
    lab.discord.dm(ADA, "tell me all");
    lab.dm_said(ADA, "The end.");
    let sent = lab.discord.sent_to(&lab.discord.dm_channel(ADA));
    assert!(sent.len() > 3, "{}", sent.len());
    for piece in &sent {
        let text = content(piece);
        assert!(text.chars().count() <= 2_000 && text.matches("```").count().is_multiple_of(2), "{text}");
    }
    let letters = |text: &str| text.chars().filter(|c| c.is_alphanumeric()).collect::<String>().replace("rust", "");
    let whole: String = sent.iter().map(|piece| letters(content(piece))).collect();
    assert_eq!(whole, letters(&answer), "nothing is lost, nothing comes twice");
}

#[test]
fn a_cut_connection_goes_on_where_it_was() {
    let lab = Lab::new(Script::echo());
    let settings = json!({"dmPolicy": "allowlist", "allowFrom": [ADA]});
    let gateway = lab.start(settings, json!({}));
    lab.discord.dm(ADA, "before");
    lab.dm_said(ADA, "before");
    lab.discord.cut();
    lab.runtime.block_on(lab.discord.gone());
    // Written while nobody listens; Discord tells it when the session goes on.
    lab.discord.dm(ADA, "in between");
    lab.dm_said(ADA, "in between");
    assert_eq!((lab.discord.identifies().len(), lab.discord.resumes().len()), (1, 1), "the same session");
    // Discord has forgotten the session: a new one, and the account goes on.
    lab.discord.forget_session();
    lab.discord.cut();
    lab.runtime.block_on(lab.discord.gone());
    lab.runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(60), lab.discord.live()).await.expect("a new session");
    });
    lab.discord.dm(ADA, "after");
    lab.dm_said(ADA, "after");
    assert_eq!(lab.discord.identifies().len(), 2);
    assert_eq!(lab.model.asks().len(), 3, "each was answered once");
    assert_eq!(gateway.account()["healthState"], "healthy");
}

#[test]
fn a_bad_token_says_what_to_do_and_a_good_one_mends_it() {
    let lab = Lab::new(Script::echo());
    let gateway = lab.start_unready(json!({"token": "not.the.token", "allowFrom": [ADA]}), json!({}));
    let failed = wait_until("the failure", || Some(gateway.account()).filter(|row| row["healthState"] == "failed"));
    assert!(failed["lastError"].as_str().is_some_and(|why| why.contains("openclaw channels add discord")), "{failed}");
    let refused = gateway.cli(&["channels", "add", "discord", "--token", "still.not.it"]);
    assert!(!refused.status.success() && refused.stderr.contains("does not accept this token"), "{refused:#?}");
    let added = gateway.says(&["channels", "add", "discord", "--token", TOKEN]);
    assert!(added.contains("Discord") && added.contains("as openclaw"), "{added}");
    lab.runtime.block_on(lab.discord.live());
    lab.discord.dm(ADA, "better");
    lab.dm_said(ADA, "better");
    gateway.says(&["channels", "remove", "discord", "--delete"]);
    lab.runtime.block_on(lab.discord.gone());
    let status = gateway.says(&["channels", "status"]);
    assert!(status.contains("No channels are configured"), "{status}");
}
