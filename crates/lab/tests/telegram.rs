//! Telegram from end to end: the gateway as a process, the Bot API and a model as doubles, the owner at the command line.

use std::time::Duration;

use doubles::{
    bot_api::{Bot, BotApi, Chat, Fault, Person},
    model::{Model, Reply, Script},
};
use lab::{
    process::{Finished, Gateway, GatewayOptions, free_port, wait_until},
    sandbox::merge,
};
use serde_json::{Value, json};

const TOKEN: &str = "5550001:AAdouble-token";
const OTHER_TOKEN: &str = "5550002:BBdouble-token";
const GROUP: i64 = -1_001_234_567_890;

struct Lab {
    api: BotApi,
    bot: Bot,
    model: Model,
}

impl Lab {
    fn new(script: Script) -> Self {
        let api = BotApi::start();
        let bot = api.bot(TOKEN, "claw_bot");
        Self { api, bot, model: Model::start(script) }
    }

    /// A gateway with the double's model, and these settings of Telegram above the usual ones.
    fn start(&self, telegram: Value) -> Running<'_> {
        self.start_with(telegram, json!({}))
    }

    fn start_with(&self, telegram: Value, more: Value) -> Running<'_> {
        let model = json!({"id": "one", "name": "one", "input": ["text", "image"], "contextWindow": 128_000,
            "maxTokens": 4096});
        let mut config = json!({
            "gateway": {"mode": "local"},
            "models": {"providers": {"double": {"baseUrl": self.model.url(), "apiKey": "a-key",
                "api": "openai-completions", "models": [model]}}},
            "agents": {"defaults": {"model": {"primary": "double/one"}}},
            "channels": {"telegram": {"botToken": TOKEN, "apiRoot": self.api.url()}},
        });
        merge(&mut config["channels"]["telegram"], telegram);
        merge(&mut config, more);
        let options = GatewayOptions { config: Some(config.to_string()), ..GatewayOptions::default() };
        Running { lab: self, gateway: Gateway::start_with(options) }
    }
}

struct Running<'a> {
    lab: &'a Lab,
    gateway: Gateway,
}

impl Running<'_> {
    /// What the owner types on the gateway's machine.
    fn cli(&self, args: &[&str]) -> Finished {
        self.gateway.cli(args.iter().copied()).run()
    }

    #[track_caller]
    fn says(&self, args: &[&str]) -> String {
        let done = self.cli(args);
        assert!(done.status.success(), "{args:?}: {done:#?}\n{}", self.gateway.said());
        done.stdout
    }

    /// Waits until everything that was written to the bot is dealt with.
    fn settled(&self) {
        wait_until("all updates to be confirmed", || self.lab.bot.unconfirmed().is_empty().then_some(()));
    }

    fn account(&self, id: &str) -> Value {
        let report: Value = serde_json::from_str(&self.says(&["channels", "status", "--json"])).expect("JSON");
        let rows = report["channelAccounts"]["telegram"].as_array().cloned().unwrap_or_default();
        rows.into_iter().find(|row| row["accountId"] == id).unwrap_or_else(|| panic!("no account {id}: {report}"))
    }
}

fn ada() -> Person {
    Person::new(7, "Ada").username("ada")
}

/// Only Ada may write.
fn for_ada() -> Value {
    json!({"dmPolicy": "allowlist", "allowFrom": ["7"]})
}

fn owner_ada() -> Value {
    json!({"commands": {"ownerAllowFrom": ["telegram:7"]}})
}

/// Texts sent to a chat, oldest first.
fn texts(bot: &Bot, chat: i64) -> Vec<String> {
    let sent =
        bot.calls().into_iter().filter(|call| call.method.starts_with("send") && call.method != "sendChatAction");
    sent.filter(|call| call.chat() == chat).map(|call| call.text().to_owned()).collect()
}

fn units(text: &str) -> usize {
    text.encode_utf16().count()
}

#[test]
fn strangers_get_a_code_and_the_owner_lets_them_in() {
    let lab = Lab::new(Script::echo());
    let gateway = lab.start(json!({}));
    // In one breath: while the code is being told, more arrives.
    for words in ["let me talk", "please", "now"] {
        lab.bot.says(&ada(), words);
    }
    let invitation = lab.bot.wait_for_text("Pairing code:");
    assert_eq!(invitation.chat(), 7);
    assert!(invitation.text().contains("Telegram user id: 7"), "{}", invitation.text());
    let listed: Value = serde_json::from_str(&gateway.says(&["pairing", "list", "telegram", "--json"])).expect("JSON");
    let code = listed["requests"][0]["metadata"]["code"].as_str().expect("a code").to_owned();
    assert!(invitation.text().contains(&format!("openclaw pairing approve telegram {code}")), "{}", invitation.text());
    let shown = gateway.says(&["pairing", "list", "telegram"]);
    assert!(shown.contains(&code) && shown.contains("Ada (@ada)"), "{shown}");

    // Writing more brings no second code, and nothing of it was read.
    lab.bot.says(&ada(), "hello?");
    gateway.settled();
    assert_eq!(texts(&lab.bot, 7).len(), 1);
    assert!(lab.model.asks().is_empty());
    // Three may wait; whoever comes then is not answered.
    for (id, name) in [(8, "Bob"), (9, "Eve")] {
        lab.bot.says(&Person::new(id, name), "me too");
        wait_until("a code", || texts(&lab.bot, id).first().cloned());
    }
    lab.bot.says(&Person::new(10, "Mallory"), "me too");
    gateway.settled();
    assert_eq!(texts(&lab.bot, 10), Vec::<String>::new());

    let wrong = gateway.cli(&["pairing", "approve", "telegram", "AAAAAAAA"]);
    assert!(!wrong.status.success() && wrong.stderr.contains("No pending request has the code"), "{wrong:#?}");
    let done = gateway.says(&["pairing", "approve", "telegram", &code]);
    assert!(done.contains("may write to telegram/default now") && done.contains("They were told"), "{done}");
    // The first one who is let in is the owner, and the command says so.
    assert!(done.contains("commands.ownerAllowFrom has telegram:7"), "{done}");
    assert_eq!(lab.bot.wait_for_text("access approved").chat(), 7);
    lab.bot.says(&ada(), "and now?");
    assert_eq!(lab.bot.wait_for_text("and now?").chat(), 7);
    // Eve still waits, and is not the owner's business otherwise.
    lab.bot.says(&Person::new(9, "Eve"), "let me in");
    gateway.settled();
    assert_eq!(texts(&lab.bot, 9).len(), 1);
    let code = serde_json::from_str::<Value>(&gateway.says(&["pairing", "list", "telegram", "--json"])).expect("JSON")
        ["requests"][0]["metadata"]["code"]
        .as_str()
        .expect("a code")
        .to_owned();
    // Codes are typed by people.
    let done = gateway.says(&["pairing", "approve", &code.to_lowercase(), "--no-notify"]);
    assert!(!done.contains("told") && !done.contains("ownerAllowFrom"), "{done}");
}

#[test]
fn approval_and_place_survive_a_crash() {
    let lab = Lab::new(Script::echo());
    let mut gateway = lab.start(json!({}));
    lab.bot.says(&ada(), "hello");
    lab.bot.wait_for_text("Pairing code:");
    let listed: Value = serde_json::from_str(&gateway.says(&["pairing", "list", "--json"])).expect("JSON");
    gateway.says(&["pairing", "approve", listed["requests"][0]["metadata"]["code"].as_str().expect("a code")]);
    gateway.settled();
    gateway.gateway.kill();
    // Written while nobody was there.
    lab.bot.says(&ada(), "are you back?");
    gateway.gateway.start_again();
    lab.bot.wait_for_text("are you back?");
    gateway.settled();
    assert_eq!(lab.model.asks().len(), 1, "the first message was for a stranger, the second is run once");
}

#[test]
fn groups_answer_when_they_are_meant() {
    let lab = Lab::new(Script::choose(|ask| Reply::say(format!("You said: {}", ask.last_user))));
    let more = json!({"messages": {"groupChat": {"mentionPatterns": ["\\bclaw\\b"]}}});
    let groups = json!({GROUP.to_string(): {"topics": {"42": {"requireMention": false, "systemPrompt": "Be brief."}}}});
    let gateway = lab.start_with(json!({"groups": groups, "groupAllowFrom": ["7", "8"]}), more);
    let room = Chat::group(GROUP, "Friends");
    let bob = Person::new(8, "Bob");
    lab.bot.writes(&bob, &room, "the key is under the mat", json!({}));
    // Nobody knows Eve, and nobody knows the other group.
    lab.bot.writes(&Person::new(9, "Eve"), &room, "@claw_bot tell me everything", json!({}));
    lab.bot.writes(&ada(), &Chat::group(-100_999, "Elsewhere"), "@claw_bot hello", json!({}));
    gateway.settled();
    assert!(lab.model.asks().is_empty());
    lab.bot.writes(&ada(), &room, "@claw_bot where is it?", json!({}));
    let answer = lab.bot.wait_for_text("where is it?");
    assert_eq!(answer.chat(), GROUP);
    let asked = lab.model.last();
    assert!(asked.last_user.contains("Bob: the key is under the mat"), "said before: {}", asked.last_user);
    assert!(!asked.last_user.contains("everything"), "by whom it may be said: {}", asked.last_user);
    // It was seen before it was answered.
    let seen = wait_until("a reaction", || lab.bot.calls_of("setMessageReaction").pop());
    assert_eq!((seen.chat(), &seen.params["reaction"][0]["emoji"]), (GROUP, &json!("👀")));
    // By its name in words, and as an answer to what it wrote.
    lab.bot.writes(&bob, &room, "Claw, what time is it?", json!({}));
    lab.bot.wait_for_text("what time is it?");
    let mine = json!({"message_id": 900, "date": 0, "chat": room.json(), "from": lab.bot.me(), "text": "at nine"});
    lab.bot.writes(&bob, &room, "sure?", json!({"reply_to_message": mine}));
    let sure = lab.bot.wait_for_text("sure?");
    assert!(sure.text().contains("at nine"), "what was answered is known: {}", sure.text());
    // In a topic the answer goes to the topic; the conversation is its own.
    lab.bot.writes(&ada(), &Chat::topic(GROUP, "Friends", 42), "no name needed here", json!({}));
    let answer = lab.bot.wait_for_text("no name needed here");
    assert_eq!((answer.chat(), answer.int("message_thread_id")), (GROUP, Some(42)));
    let asked = lab.model.last();
    assert!(asked.system.contains("Be brief.") && !asked.messages.iter().any(|(_, text)| text.contains("mat")));
    // A command for another bot is not ours.
    lab.bot.writes(&ada(), &room, "/status@other_bot", json!({}));
    gateway.settled();
    assert_eq!(lab.model.asks().len(), 4);
    // A picture is asked about by answering it.
    lab.bot.put_file("mat", "photos/mat.jpg", PIXEL);
    let photo = json!([{"file_id": "mat", "file_unique_id": "m", "width": 1, "height": 1, "file_size": PIXEL.len()}]);
    let shown = json!({"message_id": 901, "date": 0, "chat": room.json(), "from": bob.json(), "photo": photo, "caption": "ours"});
    lab.bot.writes(&ada(), &room, "@claw_bot what is this?", json!({"reply_to_message": shown}));
    lab.bot.wait_for_text("what is this?");
    assert_eq!(lab.model.last().images, 1);
}

#[test]
fn a_group_that_becomes_a_supergroup_stays_allowed() {
    let lab = Lab::new(Script::echo());
    let groups = json!({"-4455": {"requireMention": false, "systemPrompt": "Be brief."}});
    let gateway = lab.start(json!({"groups": groups, "groupAllowFrom": ["7"]}));
    let small = Chat::Group { id: -4455, title: "Friends".into() };
    lab.bot.writes(&ada(), &small, "small", json!({}));
    assert_eq!(lab.bot.wait_for_text("small").chat(), -4455);
    let message = json!({"message_id": 990, "date": 0, "chat": small.json(), "from": ada().json(),
        "migrate_to_chat_id": GROUP});
    lab.bot.push(json!({ "message": message }));
    lab.bot.writes(&ada(), &Chat::group(GROUP, "Friends"), "grown", json!({}));
    assert_eq!(lab.bot.wait_for_text("grown").chat(), GROUP);
    assert!(lab.model.last().system.contains("Be brief."));
    let config = std::fs::read_to_string(gateway.gateway.state_dir().join("openclaw.json")).expect("the config");
    assert!(config.contains(&GROUP.to_string()) && !config.contains("-4455"), "{config}");
}

#[test]
fn accounts_are_apart() {
    let lab = Lab::new(Script::echo());
    let other = lab.api.bot(OTHER_TOKEN, "work_bot");
    let accounts = json!({"home": {"botToken": TOKEN}, "work": {"botToken": OTHER_TOKEN, "allowFrom": ["8"]}});
    let mut settings = for_ada();
    (settings["accounts"], settings["botToken"]) = (accounts, Value::Null);
    let gateway = lab.start(settings);
    lab.bot.says(&ada(), "at home");
    other.says(&Person::new(8, "Bob"), "at work");
    other.says(&ada(), "not at work");
    assert_eq!(lab.bot.wait_for_text("at home").chat(), 7);
    assert_eq!(other.wait_for_text("at work").chat(), 8);
    assert!(lab.bot.calls().iter().all(|call| call.text() != "at work"));
    assert!(texts(&other, 7).is_empty());
    let status = gateway.says(&["channels", "status", "--probe"]);
    assert!(status.contains("@claw_bot") && status.contains("@work_bot"), "{status}");
    assert_eq!(status.matches("running").count(), 2, "{status}");
    gateway.says(&[
        "message",
        "send",
        "--channel",
        "telegram",
        "--account",
        "work",
        "--target",
        "8",
        "-m",
        "**due** now",
    ]);
    let sent = other.wait_for_text("due now");
    assert_eq!((sent.chat(), &sent.params["entities"][0]["type"]), (8, &json!("bold")));
    // One is switched off by hand, the other goes on.
    gateway.says(&["channels", "stop", "telegram", "--account", "work"]);
    let refused = gateway.cli(&["message", "send", "--account", "work", "--channel", "telegram", "-t", "8", "-m", "x"]);
    assert!(!refused.status.success() && refused.stderr.contains("not running"), "{refused:#?}");
    lab.bot.says(&ada(), "still here?");
    lab.bot.wait_for_text("still here?");
    gateway.says(&["channels", "start", "telegram", "--account", "work"]);
    other.says(&Person::new(8, "Bob"), "back again?");
    other.wait_for_text("back again?");
}

#[test]
fn webhooks_know_their_secret() {
    let lab = Lab::new(Script::echo());
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}/from-telegram");
    let mut settings = for_ada();
    merge(
        &mut settings,
        json!({"webhookUrl": url, "webhookSecret": "hook-secret_1", "webhookPort": port, "webhookPath": "/from-telegram"}),
    );
    let gateway = lab.start(settings);
    let hook = wait_until("the webhook", || lab.bot.webhook());
    assert_eq!((hook.url.as_str(), hook.secret.as_deref()), (url.as_str(), Some("hook-secret_1")));
    lab.bot.says(&ada(), "by webhook");
    assert_eq!(lab.bot.deliver(None, Some("hook-secret_2")).0, 401);
    assert_eq!(lab.bot.deliver(Some(&format!("http://127.0.0.1:{port}/other")), None).0, 404);
    // Not on the gateway's own port.
    assert_eq!(
        lab.bot.deliver(Some(&format!("http://127.0.0.1:{}/from-telegram", gateway.gateway.port())), None).0,
        404
    );
    assert!(lab.model.asks().is_empty());
    let (status, head) = lab.bot.deliver(None, None);
    assert_eq!(status, 200);
    assert!(head.contains("x-openclaw-delivery-accepted: durable"), "{head}");
    assert_eq!(lab.bot.wait_for_text("by webhook").chat(), 7);
    assert_eq!(gateway.account("default")["mode"], "webhook");
}

/// A JPEG of one pixel, as far as anybody looks.
const PIXEL: &[u8] = &[
    0xFF, 0xD8, 0xFF, 0xE0, 0, 16, b'J', b'F', b'I', b'F', 0, 1, 1, 0, 0, 1, 0, 1, 0, 0, 0xFF, 0xDB, 0, 67, 0, 0xFF,
    0xD9,
];

#[test]
fn pictures_and_files_reach_the_model() {
    let lab = Lab::new(Script::choose(|ask| Reply::say(format!("{} pictures; {}", ask.images, ask.last_user))));
    let gateway = lab.start(for_ada());
    let chat = Chat::Private(ada());
    let photo = |id: &str| {
        lab.bot.put_file(id, &format!("photos/{id}.jpg"), PIXEL);
        let size = |id: String, side: u32| json!({"file_id": id, "file_unique_id": id, "width": side, "height": side, "file_size": PIXEL.len()});
        json!([size(format!("{id}-small"), 90), size(id.to_owned(), 800)])
    };
    lab.bot.sends(&ada(), &chat, json!({"photo": photo("cat"), "caption": "what is this?"}));
    assert_eq!(lab.bot.wait_for_text("1 pictures").chat(), 7);
    assert!(lab.model.last().body.to_string().contains("data:image/jpeg;base64,"), "{}", lab.model.last().body);
    // An album is one message.
    for (number, id) in ["one", "two", "three"].iter().enumerate() {
        let caption = if number == 0 { json!("and these?") } else { Value::Null };
        let mut part = json!({"photo": photo(id), "media_group_id": "album-1"});
        if !caption.is_null() {
            part["caption"] = caption;
        }
        lab.bot.sends(&ada(), &chat, part);
    }
    lab.bot.wait_for_text("and these?");
    assert_eq!(lab.model.asks().len(), 2);
    // The album's three; the earlier one may be in the history.
    assert!(lab.model.last().images >= 3, "{}", lab.model.last().images);
    // A file goes to the workspace, and its place is told.
    lab.bot.put_file("doc", "documents/notes.txt", "remember the milk");
    let document = json!({"file_id": "doc", "file_unique_id": "d", "file_name": "notes.txt", "mime_type": "text/plain",
        "file_size": 17});
    lab.bot.sends(&ada(), &chat, json!({"document": document, "caption": "read it"}));
    lab.bot.wait_for_text("read it");
    let told = lab.model.last().last_user;
    let place = told.split_whitespace().find(|word| word.contains("inbound/")).unwrap_or_else(|| panic!("{told}"));
    let place = place.trim_matches(|c: char| !c.is_alphanumeric() && !matches!(c, '/' | '.' | '-' | '_'));
    let found = lab::sandbox::walk(gateway.gateway.home()).into_iter().find(|path| path.ends_with(place));
    assert_eq!(std::fs::read_to_string(found.expect("the file")).expect("readable"), "remember the milk");
    // What cannot be had is said instead of being left out.
    let huge = json!({"file_id": "gone", "file_unique_id": "g", "file_name": "film.mp4", "mime_type": "video/mp4",
        "file_size": 500_000_000});
    lab.bot.sends(&ada(), &chat, json!({"video": huge, "caption": "watch it"}));
    lab.bot.wait_for_text("watch it");
    assert!(lab.model.last().last_user.contains("[media unavailable: video"), "{}", lab.model.last().last_user);
}

#[test]
fn long_answers_are_split_and_formatted() {
    let paragraph = |n: usize| format!("**Part {n}** says `x < {n}` and *so on*, {}.\n\n", "word ".repeat(60));
    let answer: String = (0..40).map(paragraph).collect::<String>() + "```rust\nfn main() {}\n```\n\nThe end 😀.";
    let expected = answer.clone();
    let lab = Lab::new(Script::always(Reply::say(&answer).pieces(50)));
    let _gateway = lab.start(for_ada());
    lab.bot.says(&ada(), "tell me all");
    lab.bot.wait_for_text("The end 😀.");
    let sent = lab.bot.calls_of("sendMessage");
    assert!(sent.len() > 2, "{}", sent.len());
    let mut whole = String::new();
    for piece in &sent {
        assert!(units(piece.text()) <= 4096, "{}", units(piece.text()));
        assert!(!piece.text().contains("**") && !piece.text().contains('`'), "{}", piece.text());
        whole.push_str(piece.text());
    }
    let styles = |kind: &str| {
        let all = sent.iter().flat_map(|piece| piece.params["entities"].as_array().cloned().unwrap_or_default());
        all.filter(|entity| entity["type"] == kind).count()
    };
    assert_eq!((styles("bold"), styles("italic"), styles("code"), styles("pre")), (40, 40, 40, 1));
    let words = |text: &str| text.chars().filter(|c| c.is_alphanumeric()).collect::<String>();
    assert_eq!(words(&whole), words(&expected).replace("rust", ""), "nothing is lost");
}

#[test]
fn a_growing_answer_is_one_message() {
    let story = "Once upon a time there was a crab that wrote long stories. ".repeat(12);
    let lab = Lab::new(Script::always(Reply::say(&story).pieces(60).pace(Duration::from_millis(80))));
    let mut settings = for_ada();
    settings["streaming"] = json!({"mode": "partial"});
    let gateway = lab.start(settings);
    lab.bot.says(&ada(), "a story");
    let whole = story.trim();
    wait_until("the whole story", || {
        let shown = lab.bot.messages();
        (shown.len() == 1 && shown[0]["text"] == whole).then_some(())
    });
    assert_eq!(lab.bot.calls_of("sendMessage").len(), 1);
    let edits = lab.bot.calls_of("editMessageText");
    assert!(edits.len() >= 2, "it grew: {}", edits.len());
    assert!(edits.windows(2).all(|pair| pair[1].text().len() >= pair[0].text().len()));
    // Somebody deletes the message while it grows: the answer still comes, as a new one.
    lab.bot.says(&ada(), "another");
    wait_until("the second message", || (lab.bot.calls_of("sendMessage").len() == 2).then_some(()));
    lab.bot.break_down("editMessageText", Fault::refuse(400, "Bad Request: message to edit not found"));
    wait_until("the answer as a new message", || {
        lab.bot.calls_of("sendMessage").into_iter().skip(2).find(|call| call.text() == whole)
    });
    gateway.settled();
}

#[test]
fn patience_when_telegram_asks_for_it() {
    let lab = Lab::new(Script::echo());
    let gateway = lab.start(for_ada());
    lab.bot.fail("sendMessage", Fault::too_many(1));
    lab.bot.fail("sendMessage", Fault::too_many(1));
    lab.bot.says(&ada(), "when you can");
    lab.bot.wait_for_text("when you can");
    // A refusal of the styles costs the styles only.
    lab.bot.fail("sendMessage", Fault::refuse(400, "Bad Request: can't parse entities: something"));
    lab.bot.says(&ada(), "**plain**");
    lab.bot.wait_for_text("plain");
    // What may have arrived is not sent again; the person is told once.
    lab.bot.fail("sendMessage", Fault::CutAfter);
    lab.bot.says(&ada(), "did it arrive?");
    lab.bot.wait_for_text("may not have arrived");
    gateway.settled();
    assert_eq!(texts(&lab.bot, 7).iter().filter(|text| *text == "did it arrive?").count(), 1);
    lab.bot.says(&ada(), "/last");
    wait_until("the last reply again", || {
        (texts(&lab.bot, 7).iter().filter(|text| text.contains("did it arrive?")).count() == 2).then_some(())
    });
    assert_eq!(texts(&lab.bot, 7).iter().filter(|text| *text == "when you can").count(), 1);
}

#[test]
fn a_bad_token_says_what_to_do_and_a_good_one_mends_it() {
    let lab = Lab::new(Script::echo());
    let mut settings = for_ada();
    settings["botToken"] = json!("5550009:ZZunknown-token");
    let gateway = lab.start(settings);
    let failed =
        wait_until("the failure", || Some(gateway.account("default")).filter(|row| row["healthState"] == "failed"));
    assert!(failed["lastError"].as_str().is_some_and(|why| why.contains("openclaw channels add telegram")), "{failed}");
    let status = gateway.says(&["channels", "status"]);
    assert!(status.contains("failed") && status.contains("does not know this bot token (401)"), "{status}");
    let runs = || {
        let asked = gateway.cli(&["gateway", "call", "health", "--params", r#"{"probe":true}"#, "--json"]);
        asked.json()["channels"]["telegram"].clone()
    };
    assert_eq!(runs(), json!({"configured": true, "running": false, "connected": false}));
    assert!(!status.contains("ZZunknown") && !gateway.gateway.said().contains("ZZunknown"), "no token is shown");
    // A wrong one is not written; a good one is taken up without a restart.
    let file = gateway.gateway.home().join("token");
    let add = ["channels", "add", "telegram", "--token-file", file.to_str().expect("text")];
    let write = |text: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::write(&file, text).expect("writes");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("sets the mode");
    };
    write("5550009:YYwrong-too\n");
    let refused = gateway.cli(&add);
    assert!(!refused.status.success() && refused.stderr.contains("does not accept this token"), "{refused:#?}");
    assert!(refused.stderr.contains("Nothing was changed") && !refused.stderr.contains("YYwrong"), "{refused:#?}");
    write(&format!("{TOKEN}\n"));
    let added = gateway.says(&add);
    assert!(added.contains("@claw_bot"), "{added}");
    wait_until("the account", || (gateway.account("default")["healthState"] == "healthy").then_some(()));
    wait_until("health to say so", || (runs()["running"] == true).then_some(()));
    lab.bot.says(&ada(), "better");
    lab.bot.wait_for_text("better");
    // And out of it again.
    gateway.says(&["channels", "remove", "telegram"]);
    wait_until("the end of the account", || (gateway.account("default")["healthState"] == "disabled").then_some(()));
}

#[test]
fn commands_work_without_a_model() {
    let lab = Lab::new(Script::echo());
    let mut more = owner_ada();
    (more["models"], more["agents"]) = (Value::Null, Value::Null);
    let mut settings = for_ada();
    settings["allowFrom"] = json!(["7", "8"]);
    let gateway = lab.start_with(settings, more);
    let ask = |person: &Person, text: &str, answer: &str| {
        let before = texts(&lab.bot, person.id).len();
        lab.bot.says(person, text);
        wait_until(&format!("an answer to {text}"), || {
            texts(&lab.bot, person.id).into_iter().skip(before).find(|said| said.contains(answer))
        })
    };
    ask(&ada(), "hello", "openclaw models add");
    for (command, answer) in
        [("/help", "/status"), ("/status", "odel"), ("/nodes", "ode"), ("/whoami", "7"), ("/new", "")]
    {
        ask(&ada(), command, answer);
    }
    // Whoever may chat may not command.
    let bob = Person::new(8, "Bob");
    let refused = ask(&bob, "/nodes", "");
    assert!(refused.contains("ownerAllowFrom"), "says how the owner would change it: {refused}");
    assert!(lab.model.asks().is_empty());
    let menu = wait_until("the menu", || lab.bot.calls_of("setMyCommands").pop());
    assert!(menu.params["commands"].to_string().contains("\"status\""), "{}", menu.params);
    gateway.settled();
}

#[test]
fn stop_stops() {
    let long = Reply::say("and on ".repeat(500)).pieces(500).pace(Duration::from_millis(40));
    let lab = Lab::new(Script::rounds([long, Reply::say("short")]));
    let _gateway = lab.start_with(for_ada(), owner_ada());
    lab.bot.says(&ada(), "forever");
    lab.model.wait_for(1);
    lab.bot.says(&ada(), "/stop");
    lab.model.wait_until("the stream to be given up", |model| model.abandoned() == 1);
    lab.bot.says(&ada(), "and now?");
    lab.bot.wait_for_text("short");
}
