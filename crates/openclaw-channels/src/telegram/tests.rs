//! Against the double of the Bot API, in real time: the double lives on a thread of its own.

#![allow(clippy::unwrap_used)] // A test may stop at the first surprise.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use doubles::bot_api::{Bot, BotApi, Chat, Fault, Person};
use futures_util::future::BoxFuture;
use openclaw_config::{
    document::Document,
    env::Env,
    paths::{Paths, Profile},
    secret_ref::SecretContext,
};
use serde_json::json;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Config, Telegram};
use crate::{
    channel::{Channel, Inbox, NotKept, Press, PressAnswer, SendError, Status},
    message::{Address, Button, ButtonStyle, ChatKind, Inbound, Media, Outbound, Poll},
};

const TOKEN: &str = "4242:AAsecretsecretsecretsecret";

/// Keeps what arrives, and can be told not to.
#[derive(Default)]
struct Kept {
    messages: Mutex<Vec<Inbound>>,
    presses: Mutex<Vec<Press>>,
    statuses: Mutex<Vec<Status>>,
    offset: Mutex<Option<i64>>,
    /// How often `message` fails before it works.
    broken: Mutex<u32>,
    strangers: bool,
    changed: tokio::sync::Notify,
}

impl Inbox for Kept {
    fn message(&self, message: Inbound) -> BoxFuture<'_, Result<(), NotKept>> {
        Box::pin(async move {
            let mut broken = self.broken.lock().unwrap();
            if *broken > 0 {
                *broken -= 1;
                return Err(NotKept("disk full".into()));
            }
            let mut messages = self.messages.lock().unwrap();
            if !messages.iter().any(|known| known.arrival == message.arrival) {
                messages.push(message);
            }
            self.changed.notify_waiters();
            Ok(())
        })
    }

    fn press(&self, press: Press) -> BoxFuture<'_, Result<PressAnswer, NotKept>> {
        Box::pin(async move {
            self.presses.lock().unwrap().push(press);
            let replace = Outbound { text: "**Approved**".into(), ..Outbound::default() };
            Ok(PressAnswer { toast: Some("done".into()), replace: Some(replace) })
        })
    }

    fn offset(&self, _: &str, _: &str) -> BoxFuture<'_, Result<Option<i64>, NotKept>> {
        Box::pin(async { Ok(*self.offset.lock().unwrap()) })
    }

    fn polled(&self, _: &str, account: &str, offset: i64) -> BoxFuture<'_, Result<(), NotKept>> {
        assert_eq!(account, "default#4242");
        *self.offset.lock().unwrap() = Some(offset);
        Box::pin(async { Ok(()) })
    }

    fn wants_media(&self, _: &Inbound) -> bool {
        !self.strangers
    }

    fn status(&self, channel: &str, _: &str, status: Status) {
        assert_eq!(channel, "telegram");
        self.statuses.lock().unwrap().push(status);
        self.changed.notify_waiters();
    }
}

struct Stage {
    api: BotApi,
    bot: Bot,
    inbox: Arc<Kept>,
    channel: Option<Arc<Telegram>>,
    cancel: CancellationToken,
    tracker: TaskTracker,
}

fn config(api: &str, more: &str) -> Config {
    let env = Env::from_pairs([("HOME", "/home/nobody")]);
    let paths = Paths::resolve(&env, Profile::choose(false, None).unwrap()).unwrap();
    let text = format!("{{channels: {{telegram: {{botToken: '{TOKEN}', apiRoot: '{api}', {more}}}}}}}");
    let document = Document::from_text(&text, &paths, &env).unwrap();
    Config::read(&SecretContext { env: &env, doc: &document, paths: &paths }, "default").unwrap()
}

impl Stage {
    fn new() -> Self {
        let api = BotApi::start();
        let bot = api.bot(TOKEN, "claw_bot");
        let (cancel, tracker) = (CancellationToken::new(), TaskTracker::new());
        Self { api, bot, inbox: Arc::default(), channel: None, cancel, tracker }
    }

    fn start(self) -> Self {
        self.start_with("")
    }

    fn start_with(mut self, more: &str) -> Self {
        let inbox = Arc::clone(&self.inbox) as Arc<dyn Inbox>;
        let config = config(&self.api.url(), more);
        self.channel = Some(Telegram::start(config, inbox, self.cancel.clone(), &self.tracker).unwrap());
        self
    }

    /// Only sends.
    fn sender(mut self) -> Self {
        self.channel = Some(Telegram::new(config(&self.api.url(), "")).unwrap());
        self
    }

    fn channel(&self) -> &Telegram {
        self.channel.as_ref().unwrap()
    }

    async fn until<R>(&self, what: &str, mut found: impl FnMut(&Kept) -> Option<R>) -> R {
        let wait = async {
            loop {
                if let Some(result) = found(&self.inbox) {
                    return result;
                }
                let _ = tokio::time::timeout(Duration::from_millis(20), self.inbox.changed.notified()).await;
            }
        };
        let told = || format!("waited in vain for {what}: {:?}", self.inbox.statuses.lock().unwrap());
        tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap_or_else(|_| panic!("{}", told()))
    }

    async fn arrived(&self, count: usize) -> Vec<Inbound> {
        self.until("messages", |kept| {
            let messages = kept.messages.lock().unwrap();
            (messages.len() >= count).then(|| messages.clone())
        })
        .await
    }

    async fn status(&self, what: &str, matches: impl Fn(&Status) -> bool) -> Status {
        self.until(what, |kept| kept.statuses.lock().unwrap().iter().find(|status| matches(status)).cloned()).await
    }

    async fn running(&self) {
        self.status("running", |status| matches!(status, Status::Running { .. })).await;
    }
}

fn ada() -> Person {
    Person::new(7, "Ada").username("ada_l")
}

fn to(chat: i64) -> Address {
    Address { channel: "telegram".into(), account: "default".into(), chat: chat.to_string(), thread: None }
}

fn text(text: &str) -> Outbound {
    Outbound { text: text.into(), ..Outbound::default() }
}

#[tokio::test]
async fn a_message_is_kept_before_it_is_confirmed() {
    let stage = Stage::new();
    *stage.inbox.broken.lock().unwrap() = 1;
    let first = stage.bot.says(&ada(), "hello");
    let stage = stage.start();
    // Not kept: it is said, and Telegram keeps it.
    stage.status("trouble", |status| matches!(status, Status::Retrying { why, .. } if why.contains("disk full"))).await;
    assert_eq!(stage.bot.unconfirmed(), [first]);
    let message = stage.arrived(1).await.remove(0);
    assert_eq!((message.text.as_str(), message.sender.id.as_str(), message.kind), ("hello", "7", ChatKind::Direct));
    assert_eq!(message.sender.username.as_deref(), Some("ada_l"));
    assert_eq!(message.arrival, format!("4242:{first}"));
    stage.bot.until("the confirmation", |bot| (bot.offset() == first + 1).then_some(())).await;
    assert_eq!(*stage.inbox.offset.lock().unwrap(), Some(first + 1));
    assert_eq!(stage.bot.unconfirmed(), Vec::<i64>::new());
}

#[tokio::test]
async fn a_wrong_token_needs_a_person_and_is_never_shown() {
    let stage = Stage::new();
    stage.bot.revoke();
    let stage = stage.start();
    let status = stage.status("failed", |status| matches!(status, Status::Failed { .. })).await;
    let text = format!("{status:?} {:?}", stage.channel().config);
    assert!(text.contains("@BotFather"), "{text}");
    assert!(!text.contains("AAsecret"), "{text}");
}

#[tokio::test]
async fn no_error_holds_the_token() {
    // Nobody listens: the error of the HTTP client would name the URL.
    let channel = Telegram::new(config("http://127.0.0.1:1", "")).unwrap();
    let error = channel.send(&to(7), &text("hi")).await.unwrap_err();
    assert!(matches!(error.error, SendError::NotSent { .. }), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("AAsecret"), "{error:?}");
    // A server that repeats the path.
    let stage = Stage::new().sender();
    stage.bot.fail("sendMessage", Fault::refuse(400, &format!("no such path /bot{TOKEN}/sendMessage")));
    let error = stage.channel().send(&to(7), &text("hi")).await.unwrap_err();
    assert!(error.to_string().contains("/bot<token>/"), "{error}");
    assert!(!format!("{error:?}").contains("AAsecret"), "{error:?}");
}

#[tokio::test]
async fn a_second_poller_is_named() {
    let stage = Stage::new();
    let conflict = "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running";
    stage.bot.fail("getUpdates", Fault::refuse(409, conflict));
    let stage = stage.start();
    let status = stage.status("conflict", |status| matches!(status, Status::Retrying { .. })).await;
    assert!(format!("{status:?}").contains("another program polls this bot"), "{status:?}");
}

#[tokio::test]
async fn a_webhook_left_behind_does_not_stop_polling() {
    let stage = Stage::new();
    let hook = Telegram::new(config(&stage.api.url(), "")).unwrap();
    let set: serde_json::Value = hook.api.call("setWebhook", &json!({"url": "https://x.y/z"})).await.unwrap();
    assert_eq!(set, json!(true));
    let stage = stage.start();
    stage.running().await;
    assert_eq!(stage.bot.webhook(), None);
    // Updates that waited were not dropped on the way.
    assert_eq!(stage.bot.calls_of("deleteWebhook")[0].params["drop_pending_updates"], json!(false));
    let menu = stage.bot.calls_of("setMyCommands");
    assert!(
        menu[0].params["commands"].as_array().unwrap().iter().any(|entry| entry["command"] == "status"),
        "{menu:?}"
    );
}

#[tokio::test]
async fn a_broken_network_is_waited_out() {
    let stage = Stage::new();
    stage.bot.fail("getMe", Fault::CutBefore);
    stage.bot.fail("getUpdates", Fault::Garbage);
    stage.bot.says(&ada(), "still there?");
    let stage = stage.start();
    assert_eq!(stage.arrived(1).await[0].text, "still there?");
    let statuses = stage.inbox.statuses.lock().unwrap().clone();
    assert!(statuses.iter().any(|status| matches!(status, Status::Retrying { .. })), "{statuses:?}");
}

#[tokio::test]
async fn groups_topics_mentions_and_commands() {
    let stage = Stage::new();
    let (ada, group) = (ada(), Chat::group(-1001, "Lab"));
    stage.bot.writes(&ada, &group, "just talk", json!({}));
    stage.bot.writes(&ada, &group, "@CLAW_bot ping", json!({}));
    stage.bot.writes(&ada, &Chat::topic(-1002, "Forum", 42), "/status@claw_bot now", json!({}));
    stage.bot.writes(&ada, &group, "/status@other_bot", json!({}));
    stage.bot.writes(
        &ada,
        &group,
        "yes",
        json!({"reply_to_message": {
        "message_id": 5, "date": 1, "chat": group.json(), "from": stage.bot.me(), "text": "Shall I?"}}),
    );
    stage.bot.writes(
        &ada,
        &group,
        "look",
        json!({
        "entities": [{"type": "text_mention", "offset": 0, "length": 4, "user": stage.bot.me()}]}),
    );
    stage.bot.writes(
        &ada,
        &Chat::Supergroup { id: -1003, title: "F".into(), topic: None },
        "general",
        json!({
        "chat": {"id": -1003, "type": "supergroup", "title": "F", "is_forum": true}}),
    );
    // A thread of a group without topics is a chain of replies and no topic.
    stage.bot.writes(&ada, &group, "in a thread", json!({"message_thread_id": 9}));
    // Ourselves, and a service message.
    stage.bot.push(
        json!({"message": {"message_id": 1, "date": 1, "chat": group.json(), "from": stage.bot.me(), "text": "me"}}),
    );
    stage.bot.sends(&ada, &group, json!({"new_chat_members": [ada.json()]}));
    stage.bot.push(json!({"message": "garbage"}));
    stage.bot.says(&ada, "last");
    let stage = stage.start();
    let all = stage.arrived(8).await;
    let row = |message: &Inbound| {
        (message.text.clone(), message.from.chat.clone(), message.from.thread.clone(), message.mentions_me)
    };
    let expect = |text: &str, chat: &str, thread: Option<&str>, me: bool| {
        (text.to_owned(), chat.to_owned(), thread.map(str::to_owned), me)
    };
    assert_eq!(
        all.iter().map(row).collect::<Vec<_>>(),
        [
            expect("just talk", "-1001", None, false),
            expect("@CLAW_bot ping", "-1001", None, true),
            expect("/status now", "-1002", Some("42"), true),
            expect("yes", "-1001", None, true),
            expect("look", "-1001", None, true),
            expect("general", "-1003", Some("1"), false),
            expect("in a thread", "-1001", None, false),
            expect("last", "7", None, false),
        ]
    );
    assert_eq!(all[0].chat_title.as_deref(), Some("Lab"));
    let quoted = all[3].reply_to.as_ref().unwrap();
    assert_eq!((quoted.text.as_str(), quoted.author.as_str(), quoted.mine), ("Shall I?", "claw_bot", true));
}

#[tokio::test]
async fn other_kinds_of_messages_are_told_in_words() {
    let stage = Stage::new();
    let ada = ada();
    let dm = Chat::Private(ada.clone());
    stage.bot.sends(&ada, &dm, json!({"location": {"latitude": 1.5, "longitude": 2.25}}));
    stage.bot.sends(&ada, &dm, json!({"contact": {"phone_number": "+1", "first_name": "Bob"}}));
    stage.bot.sends(&ada, &dm, json!({"poll": {"question": "Lunch?", "options": [{"text": "yes"}, {"text": "no"}]}}));
    stage.bot.sends(&ada, &dm, json!({"sticker": {"file_id": "s", "emoji": "🦀", "is_animated": true}}));
    stage.bot.writes(
        &ada,
        &dm,
        "news",
        json!({"forward_origin": {"type": "user", "sender_user": {"id": 9, "first_name": "Eve"}}}),
    );
    stage.bot.push(json!({"edited_message": {"message_id": 3, "date": 1, "edit_date": 5, "chat": dm.json(),
        "from": ada.json(), "text": "corrected"}}));
    stage.bot.push(json!({"channel_post": {"message_id": 3, "date": 1, "chat": {"id": -1009, "type": "channel",
        "title": "News"}, "sender_chat": {"id": -1009, "type": "channel", "title": "News"}, "text": "post"}}));
    let stage = stage.start();
    let all = stage.arrived(7).await;
    let texts: Vec<&str> = all.iter().map(|message| message.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "[location: 1.5, 2.25]",
            "[contact: Bob, +1]",
            "[poll: Lunch? – yes / no]",
            "🦀",
            "[Forwarded from Eve]\nnews",
            "corrected",
            "post"
        ]
    );
    assert!(all[5].edited && all[5].sent_at_ms == 5000);
    assert_eq!((all[6].kind, all[6].sender.id.as_str(), all[6].sender.is_bot), (ChatKind::Channel, "-1009", false));
}

#[tokio::test]
async fn files_come_within_bounds() {
    let stage = Stage::new();
    let ada = ada();
    let dm = Chat::Private(ada.clone());
    stage.bot.put_file("small", "photos/a.jpg", &b"jpeg"[..]);
    stage.bot.put_file("large", "docs/b.bin", vec![0; 3 << 20]);
    stage.bot.sends(
        &ada,
        &dm,
        json!({"photo": [{"file_id": "tiny"}, {"file_id": "small", "file_size": 4}], "caption": "look"}),
    );
    stage.bot.sends(
        &ada,
        &dm,
        json!({"document": {"file_id": "large", "file_name": "b.bin", "mime_type": "application/x-b"}}),
    );
    stage.bot.sends(&ada, &dm, json!({"voice": {"file_id": "gone"}}));
    stage.bot.fail("getFile", Fault::CutBefore);
    let stage = stage.start_with("mediaMaxMb: 2");
    let all = stage.arrived(3).await;
    assert_eq!(all[0].text, "look");
    assert_eq!(all[0].media, [Media { mime: "image/jpeg".into(), file_name: None, data: Bytes::from_static(b"jpeg") }]);
    assert!(
        all[1].media.is_empty() && all[1].text.starts_with("[media unavailable: document: larger than 2"),
        "{}",
        all[1].text
    );
    assert!(all[2].text.contains("[media unavailable: voice note: "), "{}", all[2].text);
    assert!(!all[2].text.contains("AAsecret"));
}

#[tokio::test]
async fn files_of_strangers_are_not_fetched() {
    let stage = Stage::new();
    let stage = Stage { inbox: Arc::new(Kept { strangers: true, ..Kept::default() }), ..stage };
    stage.bot.sends(&ada(), &Chat::Private(ada()), json!({"photo": [{"file_id": "x"}]}));
    let stage = stage.start();
    assert_eq!(stage.arrived(1).await[0].text, "[photo]");
    assert!(stage.bot.calls_of("getFile").is_empty());
}

#[tokio::test]
async fn an_album_is_one_message() {
    let stage = Stage::new();
    let (ada, dm) = (ada(), Chat::Private(ada()));
    for n in 0..3 {
        stage.bot.put_file(&format!("p{n}"), &format!("p/{n}.jpg"), vec![n]);
    }
    let photo = |n: u8, more: serde_json::Value| {
        let mut message = json!({"media_group_id": "g1", "photo": [{"file_id": format!("p{n}")}]});
        message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        stage.bot.sends(&ada, &dm, message)
    };
    stage.bot.says(&ada, "before");
    photo(0, json!({"caption": "trip"}));
    photo(1, json!({}));
    let stage = stage.start();
    stage.running().await;
    // The last picture comes while the first ones wait.
    let late = stage.bot.sends(&ada, &dm, json!({"media_group_id": "g1", "photo": [{"file_id": "p2"}]}));
    let all = stage.arrived(2).await;
    assert_eq!((all[1].text.as_str(), all[1].media.len()), ("trip", 3), "{all:?}");
    stage.bot.until("the confirmation", |bot| (bot.offset() == late + 1).then_some(())).await;
}

#[tokio::test]
async fn a_press_is_answered_and_its_message_changed() {
    let stage = Stage::new().start();
    stage.running().await;
    let buttons = vec![vec![Button { label: "Allow".into(), data: "ok:1".into(), style: ButtonStyle::Good }]];
    let ids = stage.channel().send(&to(7), &Outbound { buttons, ..text("May I?") }).await.unwrap();
    let id: i64 = ids[0].parse().unwrap();
    let sent = stage.bot.calls_of("sendMessage").remove(0);
    assert_eq!(sent.params["reply_markup"]["inline_keyboard"][0][0]["callback_data"], "ok:1");
    stage.bot.presses(&ada(), &Chat::Private(ada()), id, "ok:1");
    stage.bot.text("Approved").await;
    let press = stage.inbox.presses.lock().unwrap()[0].clone();
    assert_eq!((press.data.as_str(), press.message_id, press.sender.id.as_str()), ("ok:1", ids[0].clone(), "7"));
    assert_eq!(stage.bot.calls_of("answerCallbackQuery")[0].params["text"], "done");
    let message = stage.bot.messages().into_iter().find(|message| message["message_id"] == id).unwrap();
    // The buttons are gone with the text.
    assert_eq!((message["text"].as_str(), message.get("reply_markup")), (Some("Approved"), None));
}

#[tokio::test]
async fn markdown_arrives_as_entities() {
    let stage = Stage::new().sender();
    let topic = Address { thread: Some("42".into()), ..to(-1001) };
    let message = Outbound { reply_to: Some("11".into()), silent: true, ..text("**Hi** 😀 `x<y`") };
    stage.channel().send(&topic, &message).await.unwrap();
    let sent = stage.bot.calls().remove(0);
    assert_eq!(sent.params["text"], "Hi 😀 x<y");
    assert_eq!(
        sent.params["entities"],
        json!([{"type": "bold", "offset": 0, "length": 2}, {"type": "code", "offset": 6, "length": 3}])
    );
    assert_eq!(sent.int("message_thread_id"), Some(42));
    assert_eq!(sent.params["reply_parameters"], json!({"message_id": 11, "allow_sending_without_reply": true}));
    assert_eq!(sent.params["disable_notification"], true);
    // The general topic is told by silence, but not to the typing sign.
    let general = Address { thread: Some("1".into()), ..to(-1001) };
    stage.channel().send(&general, &text("general")).await.unwrap();
    stage.channel().typing(&general).await;
    assert_eq!(stage.bot.calls_of("sendMessage")[1].int("message_thread_id"), None);
    assert_eq!(stage.bot.calls_of("sendChatAction")[0].int("message_thread_id"), Some(1));
}

#[tokio::test]
async fn refused_styles_cost_the_styles_only() {
    let stage = Stage::new().sender();
    stage.bot.fail("sendMessage", Fault::refuse(400, "Bad Request: can't parse entities: unsupported"));
    stage.channel().send(&to(7), &text("**Hi**")).await.unwrap();
    let sent = stage.bot.calls();
    assert_eq!((sent.len(), sent[0].text(), sent[0].params.get("entities")), (1, "Hi", None));
}

#[tokio::test]
async fn long_texts_are_cut() {
    let stage = Stage::new().sender();
    let long: String = (0..900).map(|n| format!("Line {n} with **bold** text\n\n")).collect();
    let pieces = stage.channel().pieces(&text(&long));
    let ids = stage.channel().send(&to(7), &text(&long)).await.unwrap();
    assert_eq!(ids.len(), pieces.len());
    assert!(ids.len() > 4);
    let sent = stage.bot.calls_of("sendMessage");
    assert!(sent.iter().all(|call| call.text().encode_utf16().count() <= 4000));
    assert!(sent[0].params["entities"].as_array().unwrap().len() > 10);
    let all: String = sent.iter().map(|call| call.text().to_owned() + "\n\n").collect();
    assert!((0..900).all(|n| all.contains(&format!("Line {n} with bold text\n\n"))));
}

#[tokio::test]
async fn files_go_by_their_kind() {
    let stage = Stage::new().sender();
    let file = |mime: &str| Media { mime: mime.into(), file_name: None, data: Bytes::from_static(b"data") };
    let send = async |media: Vec<Media>, words: &str| {
        stage.channel().send(&to(7), &Outbound { media, ..text(words) }).await.unwrap()
    };
    send(vec![file("image/png")], "**caption**").await;
    send(vec![file("video/mp4")], "").await;
    send(vec![file("application/pdf")], "").await;
    send(vec![file("audio/mpeg")], "").await;
    send(vec![file("image/gif")], "").await;
    assert_eq!(send(vec![file("image/png"); 3], "album").await.len(), 3);
    let long = "word ".repeat(400);
    send(vec![file("image/jpeg")], &long).await;
    let voice = Outbound { media: vec![file("audio/ogg")], ..Outbound::default() };
    let voice = Outbound { hints: crate::message::Hints { as_voice: true, as_document: false }, ..voice };
    stage.channel().send(&to(7), &voice).await.unwrap();
    let calls = stage.bot.calls();
    let methods: Vec<&str> = calls.iter().map(|call| call.method.as_str()).collect();
    assert_eq!(
        methods,
        [
            "sendPhoto",
            "sendVideo",
            "sendDocument",
            "sendAudio",
            "sendAnimation",
            "sendMediaGroup",
            "sendPhoto",
            "sendMessage",
            "sendVoice"
        ]
    );
    assert_eq!(calls[0].text(), "caption");
    assert_eq!(calls[0].params["caption_entities"], json!([{"type": "bold", "offset": 0, "length": 7}]));
    assert_eq!((calls[0].files[0].data.as_ref(), calls[0].files[0].file_name.as_str()), (&b"data"[..], "file.png"));
    assert_eq!(calls[5].files.len(), 3);
    assert_eq!(calls[5].params["media"][0]["caption"], "album");
    // Too long for a caption: the text follows the picture.
    assert_eq!((calls[6].text(), calls[7].text()), ("", long.trim()));
}

#[tokio::test]
async fn what_became_of_a_message_is_known_or_said_to_be_unknown() {
    let stage = Stage::new().sender();
    let send = async || stage.channel().send(&to(7), &text("hi")).await.map_err(|partly| partly.error);
    // Accepted, and the answer lost.
    stage.bot.fail("sendMessage", Fault::CutAfter);
    assert!(matches!(send().await, Err(SendError::Unknown { .. })));
    assert_eq!(stage.bot.calls().len(), 1, "nothing is repeated on its own");
    stage.bot.fail("sendMessage", Fault::Garbage);
    assert!(matches!(send().await, Err(SendError::Unknown { .. })));
    stage.bot.fail("sendMessage", Fault::refuse(500, "Internal Server Error"));
    assert!(matches!(send().await, Err(SendError::Unknown { .. })));
    stage.bot.fail("sendMessage", Fault::refuse(403, "Forbidden: bot was blocked by the user"));
    let refused = send().await.unwrap_err();
    assert!(matches!(&refused, SendError::NotSent { why, .. } if why.contains("blocked by the user")), "{refused:?}");
    // "Too many requests" is waited out; a long pause is the caller's.
    stage.bot.fail("sendMessage", Fault::too_many(1));
    let before = std::time::Instant::now();
    send().await.unwrap();
    assert!(before.elapsed() >= Duration::from_secs(1));
    stage.bot.fail("sendMessage", Fault::too_many(600));
    let refused = send().await.unwrap_err();
    assert!(
        matches!(refused, SendError::NotSent { retry_after: Some(after), .. } if after == Duration::from_secs(600))
    );
}

#[tokio::test]
async fn the_pieces_before_a_failure_are_told() {
    let stage = Stage::new().sender();
    let long = "word ".repeat(2000);
    stage.channel().send(&to(7), &text(&long)).await.unwrap();
    let count = stage.bot.calls().len();
    assert!(count >= 3);
    stage.bot.fail("sendMessage", Fault::Slow(Duration::ZERO));
    stage.bot.fail("sendMessage", Fault::CutAfter);
    let partly = stage.channel().send(&to(7), &text(&long)).await.unwrap_err();
    assert_eq!(partly.sent.len(), 1);
    assert!(matches!(partly.error, SendError::Unknown { .. }));
}

#[tokio::test]
async fn edits_reactions_polls_and_deletions() {
    let stage = Stage::new().sender();
    let channel = stage.channel();
    let id = channel.send(&to(7), &text("one")).await.unwrap().remove(0);
    channel.edit(&to(7), &id, &text("**two**")).await.unwrap();
    // The same again is no error.
    channel.edit(&to(7), &id, &text("**two**")).await.unwrap();
    channel.react(&to(7), &id, Some("👍")).await.unwrap();
    channel.react(&to(7), &id, None).await.unwrap();
    let poll =
        Poll { question: "Ship?".into(), options: vec!["yes".into(), "no".into()], anonymous: true, ..Poll::default() };
    channel.poll(&to(7), &poll).await.unwrap();
    assert_eq!(stage.bot.messages()[0]["text"], "two");
    channel.delete(&to(7), &id).await.unwrap();
    channel.delete(&to(7), &id).await.unwrap();
    assert!(channel.edit(&to(7), &id, &text("three")).await.is_err());
    assert!(channel.edit(&to(7), "abc", &text("three")).await.is_err());
    let reactions = stage.bot.calls_of("setMessageReaction");
    assert_eq!(reactions[0].params["reaction"], json!([{"type": "emoji", "emoji": "👍"}]));
    assert_eq!(reactions[1].params["reaction"], json!([]));
    assert_eq!(channel.probe().await.unwrap(), "@claw_bot");
}

#[tokio::test]
async fn a_webhook_checks_its_secret_and_confirms_what_is_kept() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}/hook");
    let stage = Stage::new().start_with(&format!(
        "webhookUrl: '{url}', webhookSecret: 'hush-hush_1', webhookPort: {port}, webhookPath: '/hook'"
    ));
    stage.running().await;
    let hook = stage.bot.webhook().unwrap();
    assert_eq!((hook.url.as_str(), hook.secret.as_deref()), (url.as_str(), Some("hush-hush_1")));
    assert!(hook.allowed_updates.contains(&"callback_query".to_owned()));
    let deliver = async |to: Option<String>, secret: Option<&'static str>| {
        let bot = stage.bot.clone();
        tokio::task::spawn_blocking(move || bot.deliver(to.as_deref(), secret)).await.unwrap()
    };
    stage.bot.says(&ada(), "over the hook");
    for wrong in ["", "hush", "HUSH-HUSH_1", "hush-hush_12"] {
        let secret: &'static str = wrong;
        assert_eq!(deliver(None, Some(secret)).await.0, 401, "{wrong:?}");
    }
    assert_eq!(deliver(Some(format!("http://127.0.0.1:{port}/other")), None).await.0, 404);
    assert!(stage.inbox.messages.lock().unwrap().is_empty());
    // Not kept: Telegram is to send it again.
    *stage.inbox.broken.lock().unwrap() = 1;
    assert_eq!(deliver(None, None).await.0, 503);
    let (status, head) = deliver(None, None).await;
    assert_eq!(status, 200);
    assert!(head.to_lowercase().contains("x-openclaw-delivery-accepted: durable"), "{head}");
    assert_eq!(stage.arrived(1).await[0].text, "over the hook");
    // An album comes as several requests at a time.
    for n in ["a", "b"] {
        stage.bot.put_file(n, &format!("p/{n}.jpg"), n.as_bytes().to_vec());
    }
    stage.bot.sends(
        &ada(),
        &Chat::Private(ada()),
        json!({"media_group_id": "g", "photo": [{"file_id": "a"}], "caption": "two"}),
    );
    let first = {
        let bot = stage.bot.clone();
        tokio::task::spawn_blocking(move || bot.deliver(None, None))
    };
    assert_eq!(first.await.unwrap().0, 200);
    assert_eq!(stage.arrived(2).await[1].media.len(), 1);
}

#[test]
fn settings_that_cannot_work_are_named() {
    let env = Env::from_pairs([("HOME", "/home/nobody"), ("TELEGRAM_BOT_TOKEN", "1:env")]);
    let paths = Paths::resolve(&env, Profile::choose(false, None).unwrap()).unwrap();
    let read = |text: &str, account: &str| {
        let document = Document::from_text(&format!("{{channels: {{telegram: {{{text}}}}}}}"), &paths, &env).unwrap();
        Config::read(&SecretContext { env: &env, doc: &document, paths: &paths }, account)
    };
    let check = |text: &str, account: &str, expected: &str| {
        let error = read(text, account).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
        assert!(!error.contains("hidden"), "{error}");
    };
    check("botToken: 'nohidden'", "default", "channels.telegram.botToken: a bot token has the form");
    check("botToken: '1:a/../hidden'", "default", "a bot token has the form");
    check("botToken: '1:a', apiRoot: 'ftp://x'", "default", "apiRoot");
    check("botToken: '1:a', webhookUrl: 'https://x.y'", "default", "webhookSecret: needed");
    check(
        "botToken: '1:a', webhookUrl: 'https://x.y', webhookSecret: 'a', webhookPath: '/healthz'",
        "default",
        "webhookPath",
    );
    check("botToken: {source: 'env', id: 'MISSING'}", "default", "MISSING is unset");
    check("tokenFile: '/nowhere/token'", "default", "tokenFile");
    // A named account never borrows the channel's token.
    check("botToken: '1:a', accounts: {work: {}}", "work", "no bot token");
    let good = |text: &str, account: &str| read(text, account).unwrap();
    assert_eq!(good("", "default").token.expose(), "1:env");
    assert_eq!(good("botToken: '2:cfg'", "default").token.expose(), "2:cfg");
    assert_eq!(good("botToken: {source: 'env', id: 'TELEGRAM_BOT_TOKEN'}", "default").token.expose(), "1:env");
    assert_eq!(good("botToken: '2:cfg', accounts: {work: {botToken: '3:w'}}", "work").token.expose(), "3:w");
    // A frequent slip is understood.
    assert_eq!(good("botToken: '2:cfg', apiRoot: 'https://x.y/bot2:cfg/'", "default").api_root, "https://x.y");
}
