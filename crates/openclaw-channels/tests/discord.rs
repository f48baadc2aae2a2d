//! The Discord channel against a double that speaks the API's formats.

use std::{
    io::Write,
    sync::{Arc, Mutex},
    time::Duration,
};

use doubles::discord::{BOT, Discord as Double, Fault, TOKEN, user_object};
use futures_util::future::BoxFuture;
use openclaw_channels::{
    channel::{Channel as _, Inbox, NotKept, Press, PressAnswer, SendError, Status},
    discord::{self, Discord},
    message::{Address, Button, ButtonStyle, ChatKind, Inbound, Media, Outbound, Poll},
};
use openclaw_config::{Document, Env, Paths, Profile, SecretContext};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

const ADA: &str = "100000000000000007";
const EVE: &str = "100000000000000008";
const GUILD: &str = "200000000000000001";
const GENERAL: &str = "200000000000000010";
const THREAD: &str = "200000000000000011";
const PATIENCE: Duration = Duration::from_secs(30);

/// Keeps everything it is told.
struct Recorder {
    messages: watch::Sender<Vec<Inbound>>,
    presses: watch::Sender<Vec<Press>>,
    statuses: watch::Sender<Vec<Status>>,
    /// Messages to refuse first.
    refuse: Mutex<usize>,
    /// One permit per message that may be kept.
    gate: Semaphore,
    answer: Mutex<(PressAnswer, Duration)>,
}

impl Recorder {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            messages: watch::Sender::default(),
            presses: watch::Sender::default(),
            statuses: watch::Sender::default(),
            refuse: Mutex::default(),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            answer: Mutex::default(),
        })
    }

    async fn messages(&self, count: usize) -> Vec<Inbound> {
        wait(&self.messages, |messages| messages.len() >= count).await
    }

    async fn status(&self, wanted: impl Fn(&Status) -> bool) -> Status {
        let all = wait(&self.statuses, |statuses| statuses.iter().any(&wanted)).await;
        all.into_iter().find(|status| wanted(status)).expect("found above")
    }
}

async fn wait<T: Clone + std::fmt::Debug>(values: &watch::Sender<Vec<T>>, wanted: impl Fn(&Vec<T>) -> bool) -> Vec<T> {
    let mut changes = values.subscribe();
    let found = tokio::time::timeout(PATIENCE, changes.wait_for(|values| wanted(values))).await;
    found.unwrap_or_else(|_| panic!("in vain; there is {:?}", values.borrow())).expect("not closed").clone()
}

impl Inbox for Recorder {
    fn message(&self, message: Inbound) -> BoxFuture<'_, Result<(), NotKept>> {
        Box::pin(async move {
            self.gate.acquire().await.expect("open").forget();
            {
                let mut refuse = self.refuse.lock().expect("lock");
                if *refuse > 0 {
                    *refuse -= 1;
                    self.gate.add_permits(1);
                    return Err(NotKept("the disk is full".into()));
                }
            }
            self.messages.send_modify(|messages| messages.push(message));
            Ok(())
        })
    }

    fn press(&self, press: Press) -> BoxFuture<'_, Result<PressAnswer, NotKept>> {
        Box::pin(async move {
            self.presses.send_modify(|presses| presses.push(press));
            let (answer, after) = self.answer.lock().expect("lock").clone();
            tokio::time::sleep(after).await;
            Ok(answer)
        })
    }

    fn offset(&self, _: &str, _: &str) -> BoxFuture<'_, Result<Option<i64>, NotKept>> {
        Box::pin(async { Ok(None) })
    }

    fn polled(&self, _: &str, _: &str, _: i64) -> BoxFuture<'_, Result<(), NotKept>> {
        Box::pin(async { Ok(()) })
    }

    fn status(&self, channel: &str, account: &str, status: Status) {
        assert_eq!((channel, account), ("discord", "default"));
        self.statuses.send_modify(|statuses| statuses.push(status));
    }
}

struct Lab {
    double: Double,
    inbox: Arc<Recorder>,
    discord: Arc<Discord>,
    stop: CancellationToken,
    tracker: TaskTracker,
}

impl Lab {
    /// Starts the channel with these settings, and waits until it is connected.
    async fn start(config: &str) -> Self {
        let lab = Self::prepare(Double::start().await, config);
        lab.double.live().await;
        lab
    }

    fn prepare(double: Double, config: &str) -> Self {
        let url = double.api_url();
        let env = Env::from_pairs([
            ("OPENCLAW_STATE_DIR", "/nowhere"),
            ("DISCORD_API_URL", &url),
            ("DISCORD_BOT_TOKEN", TOKEN),
        ]);
        let paths = Paths::resolve(&env, Profile::Default).expect("paths");
        let doc = Document::from_text(&format!("{{channels:{{discord:{{{config}}}}}}}"), &paths, &env).expect("config");
        let mut accounts = discord::accounts(SecretContext { env: &env, doc: &doc, paths: &paths });
        let settings = accounts.remove(0).settings.expect("settings");
        let (inbox, stop, tracker) = (Recorder::new(), CancellationToken::new(), TaskTracker::new());
        let discord = discord::start(settings, Arc::clone(&inbox) as Arc<dyn Inbox>, &stop, &tracker);
        Self { double, inbox, discord, stop, tracker }
    }

    fn dm(&self, user: &str) -> Address {
        address(&self.double.dm_channel(user), None)
    }

    async fn stopped(self) -> Double {
        self.stop.cancel();
        self.tracker.close();
        tokio::time::timeout(PATIENCE, self.tracker.wait()).await.expect("its tasks end");
        self.double
    }
}

fn address(chat: &str, thread: Option<&str>) -> Address {
    let (channel, account) = ("discord".to_owned(), "default".to_owned());
    Address { channel, account, chat: chat.to_owned(), thread: thread.map(str::to_owned) }
}

fn say(text: &str) -> Outbound {
    Outbound { text: text.to_owned(), ..Outbound::default() }
}

fn guild() -> Value {
    json!({"id": GUILD, "name": "Friends of OpenClaw", "member_count": 3,
        "channels": [{"id": GENERAL, "type": 0, "name": "general", "position": 0}],
        "threads": [{"id": THREAD, "type": 11, "name": "plans", "parent_id": GENERAL}],
        "members": [{"user": {"id": BOT, "username": "openclaw"}, "roles": ["300000000000000001"]}],
        "presences": [{"user": {"id": ADA}, "status": "idle", "activities": [], "client_status": {}}]})
}

fn in_channel(channel: &str, author: &str, content: &str) -> Value {
    json!({"channel_id": channel, "guild_id": GUILD, "author": user_object(author), "content": content,
           "member": {"nick": "Ada L.", "roles": ["300000000000000009"]}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_and_its_answer() {
    let lab = Lab::start("").await;
    let name = lab.inbox.status(|status| matches!(status, Status::Running { .. })).await;
    assert_eq!(name, Status::Running { name: "openclaw".into() });
    let id = lab.double.dm(ADA, "  hello there ");
    let message = lab.inbox.messages(1).await.remove(0);
    assert_eq!((message.text.as_str(), message.kind, message.mentions_me), ("hello there", ChatKind::Direct, false));
    assert_eq!((message.from.clone(), message.sender.id.as_str()), (lab.dm(ADA), ADA));
    assert_eq!((message.message_id.as_str(), message.arrival.as_str()), (id.as_str(), id.as_str()));
    assert!(message.sent_at_ms > 1_700_000_000_000 && message.space.is_none());

    let to = message.from;
    lab.discord.typing(&to).await;
    let answer = Outbound { reply_to: Some(id.clone()), ..say("hello **Ada**") };
    let sent = lab.discord.send(&to, &answer).await.expect("sent");
    let shown = lab.double.shown(&sent[0]).expect("there");
    assert_eq!(shown["content"], "hello **Ada**");
    assert_eq!(shown["message_reference"]["message_id"], id.as_str());
    lab.discord.edit(&to, &sent[0], &say("hello again")).await.expect("edited");
    assert_eq!(lab.double.shown(&sent[0]).expect("there")["content"], "hello again");
    lab.discord.react(&to, &id, Some("👀")).await.expect("reacted");
    lab.discord.react(&to, &id, None).await.expect("taken back");
    lab.discord.react(&to, &id, None).await.expect("nothing to take back");
    let reactions = |method: &str| lab.double.calls_to(method, "/reactions/%F0%9F%91%80/@me").len();
    assert_eq!((reactions("PUT"), reactions("DELETE")), (1, 1));
    lab.discord.delete(&to, &sent[0]).await.expect("deleted");
    assert!(lab.double.shown(&sent[0]).is_none());
    let poll = Poll { question: "Tea?".into(), options: vec!["yes".into(), "no".into()], ..Poll::default() };
    lab.discord.poll(&to, &poll).await.expect("asked");
    assert_eq!(lab.discord.probe().await.expect("known"), "openclaw");
    assert!(lab.double.calls_to("POST", "/typing").len() == 1);
    // A user who has not written yet is written to by id, and the chat is opened once.
    let eve = address(&format!("user:{EVE}"), None);
    for _ in 0..2 {
        lab.discord.send(&eve, &say("hi")).await.expect("sent");
    }
    assert_eq!(lab.double.calls_to("POST", "/users/@me/channels").len(), 1);
    let double = lab.stopped().await;
    double.gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on_and_nothing_is_lost() {
    let lab = Lab::start("").await;
    lab.double.dm(ADA, "one");
    lab.inbox.messages(1).await;
    for (number, cut) in [Double::cut as fn(&Double), Double::reconnect, |d| d.close(4000), |d| d.invalid_session(true)]
        .into_iter()
        .enumerate()
    {
        cut(&lab.double);
        lab.double.gone().await;
        lab.double.dm(ADA, &format!("away {number}"));
        lab.double.live().await;
        let messages = lab.inbox.messages(number + 2).await;
        assert_eq!(messages.last().map(|m| m.text.clone()), Some(format!("away {number}")));
    }
    assert_eq!((lab.double.identifies().len(), lab.double.resumes().len()), (1, 4));
    assert_eq!(lab.double.resumes()[0]["session_id"], "session-1");
    let arrivals = lab.inbox.messages(5).await;
    assert_eq!(arrivals.len(), 5, "each came once");
    assert!(lab.double.identifies()[0]["intents"] == (1 | 512 | 4096 | 32768));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_over_is_followed_by_a_new_one() {
    let lab = Lab::start("").await;
    lab.double.forget_session();
    lab.double.cut();
    lab.double.gone().await;
    lab.double.live().await;
    assert_eq!((lab.double.identifies().len(), lab.double.resumes().len()), (2, 1));
    lab.double.dm(ADA, "still there?");
    lab.inbox.messages(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_connection_is_given_up() {
    let double = Double::start().await;
    double.heartbeat(150);
    let lab = Lab::prepare(double, "");
    lab.double.live().await;
    lab.double.wait("heartbeats", |double| (double.heartbeats().len() >= 3).then_some(())).await;
    lab.double.deaf(true);
    lab.double.wait("a resume", |double| (!double.resumes().is_empty()).then_some(())).await;
    lab.double.deaf(false);
    lab.double.live().await;
    assert_eq!(lab.double.heartbeats().last(), Some(&json!(lab.double.resumes()[0]["seq"])));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_person_can_settle() {
    for (code, words) in [(4004, "Reset Token"), (4014, "Message Content Intent"), (4013, "4013"), (4011, "sharding")] {
        let double = Double::start().await;
        double.close_on_identify(code);
        let lab = Lab::prepare(double, "");
        let Status::Failed { why } = lab.inbox.status(|status| matches!(status, Status::Failed { .. })).await else {
            panic!("{code}");
        };
        assert!(why.contains(words) && !why.contains(TOKEN), "{code}: {why}");
        assert_eq!(lab.double.identifies().len(), 1, "{code} is not tried again");
    }
    // A wrong token is known before the gateway is asked; then nothing is asked any more.
    let double = Double::start().await;
    double.change_token("another");
    let lab = Lab::prepare(double, "");
    let Status::Failed { why } = lab.inbox.status(|status| matches!(status, Status::Failed { .. })).await else {
        panic!("not failed");
    };
    assert!(why.contains("the bot token is not accepted"), "{why}");
    let calls = lab.double.calls().len();
    assert!(matches!(lab.discord.probe().await, Err(SendError::NotSent { .. })));
    assert_eq!((lab.double.calls().len(), lab.double.identifies().len()), (calls, 0));
    // Out of sessions for today: waits as long as Discord says.
    let double = Double::start().await;
    double.starts(0, 7_200_000);
    let lab = Lab::prepare(double, "");
    let retrying = lab.inbox.status(|status| matches!(status, Status::Retrying { .. })).await;
    assert!(matches!(retrying, Status::Retrying { after, .. } if after == Duration::from_secs(7_200)), "{retrying:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn patience_with_rate_limits() {
    let lab = Lab::start("").await;
    let to = lab.dm(ADA);
    lab.double.fault("POST", "/messages", Fault::RateLimit { seconds: 0.4, global: false });
    lab.double.fault("POST", "/messages", Fault::RateLimit { seconds: 0.3, global: true });
    lab.discord.send(&to, &say("patient")).await.expect("sent");
    let calls = lab.double.calls_to("POST", "/messages");
    assert_eq!(calls.iter().map(|call| call.status).collect::<Vec<_>>(), [429, 429, 200]);
    assert!(calls[1].at - calls[0].at >= Duration::from_millis(400));
    assert!(calls[2].at - calls[1].at >= Duration::from_millis(300));
    assert_eq!(lab.double.sent_to(&to.chat).len(), 1);
    // Too long a wait is the sender's to decide about.
    lab.double.fault("POST", "/messages", Fault::RateLimit { seconds: 120.0, global: false });
    let error = lab.discord.send(&to, &say("later")).await.expect_err("told").error;
    assert!(matches!(&error, SendError::NotSent { retry_after: Some(_), .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_does_not_double_a_message() {
    let lab = Lab::start("").await;
    let to = lab.dm(ADA);
    let trouble = || Fault::Status(502, json!({"message": "bad gateway", "code": 0}));
    for fault in [Fault::CutAfter, Fault::CutBefore, trouble()] {
        let before = lab.double.sent_to(&to.chat).len();
        lab.double.fault("POST", "/messages", fault.clone());
        let sent = lab.discord.send(&to, &say("once")).await.expect("sent");
        assert_eq!(lab.double.sent_to(&to.chat).len(), before + 1, "{fault:?}");
        let last = lab.double.calls_to("POST", "/messages");
        let [.., first, second] = last.as_slice() else { panic!("two attempts") };
        assert_eq!(first.body["nonce"], second.body["nonce"]);
        assert_eq!((second.body["enforce_nonce"].as_bool(), sent.len()), (Some(true), 1));
    }
    // When no answer comes at all, nobody claims to know.
    let before = lab.double.sent_to(&to.chat).len();
    (0..4).for_each(|_| lab.double.fault("POST", "/messages", Fault::CutAfter));
    let error = lab.discord.send(&to, &say("who knows")).await.expect_err("not known").error;
    assert!(matches!(error, SendError::Unknown { .. }), "{error:?}");
    assert_eq!(lab.double.sent_to(&to.chat).len(), before + 1);
    // What Discord refuses was not sent, and why is said.
    let error = lab.discord.send(&address("200000000000000099", None), &say("x")).await.expect_err("refused").error;
    assert!(matches!(&error, SendError::NotSent { why, .. } if why.contains("no such channel")), "{error:?}");
    let error = lab.discord.send(&address("../users", None), &say("x")).await.expect_err("refused").error;
    assert!(matches!(&error, SendError::NotSent { why, .. } if why.contains("no Discord id")), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn long_answers_come_in_pieces() {
    let lab = Lab::start("").await;
    let to = lab.dm(ADA);
    let code: String = (0..200).map(|n| format!("let line_{n:03} = {n};\n")).collect();
    let sent = lab.discord.send(&to, &say(&format!("Here:\n```rust\n{code}```\nDone."))).await.expect("sent");
    let shown = lab.double.sent_to(&to.chat);
    assert!(sent.len() > 2 && shown.len() == sent.len());
    for message in &shown {
        let text = message["content"].as_str().expect("text");
        assert!(text.chars().count() <= 2_000 && text.matches("```").count() % 2 == 0, "{text}");
    }
    // The piece that fails says which ones were sent.
    lab.double.fault("POST", "/messages", Fault::Status(403, json!({"message": "Missing Permissions", "code": 50013})));
    let partly = lab.discord.send(&to, &say("x")).await.expect_err("refused");
    assert!(partly.sent.is_empty() && partly.error.to_string().contains("Send Messages"), "{partly:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_in_and_out() {
    let lab = Lab::start("mediaMaxMb:1").await;
    let url = lab.double.file("notes.txt", "remember the milk");
    let channel = lab.double.dm_channel(ADA);
    let attachment = |name: &str, size: usize, url: &str| {
        json!({"id": "1", "filename": name, "size": size,
        "content_type": "text/plain", "url": url, "proxy_url": url})
    };
    lab.double.message(json!({"channel_id": channel, "author": user_object(ADA), "content": "see",
        "attachments": [attachment("notes.txt", 17, &url), attachment("huge.bin", 2 << 20, &url),
                        attachment("elsewhere.txt", 3, "http://192.0.2.1/x")]}));
    let message = lab.inbox.messages(1).await.remove(0);
    assert_eq!(message.media.len(), 1);
    assert_eq!((message.media[0].mime.as_str(), &message.media[0].data[..]), ("text/plain", &b"remember the milk"[..]));
    assert_eq!(
        message.text,
        "see\n[file huge.bin (2048 KB) was not taken: it is too large]\n[file elsewhere.txt (1 KB) was not taken: it is \
         not at Discord]"
    );
    let fetched = lab.double.calls_to("GET", "/notes.txt");
    assert_eq!((fetched.len(), &fetched[0].authorization), (1, &None), "the token stays here");
    let file = Media { mime: "image/png".into(), file_name: Some("/tmp/a.png".into()), data: vec![7; 300_000].into() };
    let with_file = Outbound { media: vec![file.clone(), file], ..say("look") };
    lab.discord.send(&message.from, &with_file).await.expect("sent");
    let call = lab.double.call("POST", "/messages").await;
    assert_eq!(call.files.len(), 2);
    assert_eq!((call.files[0].0.as_str(), call.files[0].1.len()), ("a.png", 300_000));
    assert_eq!(call.body["attachments"][1], json!({"id": 1, "filename": "a.png"}));
    assert_eq!(call.body["content"], "look");
}

#[tokio::test(flavor = "multi_thread")]
async fn guild_channels_and_threads() {
    let double = Double::start().await;
    double.guild(guild());
    let config = format!("intents:{{presence:true}},guilds:{{'{GUILD}':{{channels:{{general:{{}}}}}}}}");
    let lab = Lab::prepare(double, &config);
    lab.double.live().await;
    let mention = format!("<@{BOT}>");
    // Said to nobody in particular: told, so that a pattern can find a name in it.
    lab.double.message(in_channel(GENERAL, ADA, "nobody in particular"));
    let message = lab.inbox.messages(1).await.remove(0);
    assert!(message.needs_mention && !message.mentions_me, "{message:?}");
    // Not for us: another channel, another bot.
    lab.double.message(in_channel("200000000000000012", ADA, &mention));
    let mut bot = in_channel(GENERAL, EVE, &mention);
    bot["author"]["bot"] = true.into();
    lab.double.message(bot);
    let first = lab.double.message(in_channel(GENERAL, ADA, &format!("{mention} /status")));
    let message = lab.inbox.messages(2).await.remove(1);
    assert!(!message.needs_mention);
    assert_eq!((message.text.as_str(), message.kind, message.mentions_me), ("/status", ChatKind::Channel, true));
    assert_eq!((message.from.clone(), message.space.as_deref()), (address(GENERAL, None), Some(GUILD)));
    assert_eq!(message.chat_title.as_deref(), Some("#general (Friends of OpenClaw)"));
    assert_eq!((message.sender.name.as_str(), message.message_id), ("Ada L.", first));
    // In a thread, whose parent is listed; by the bot's role; as an answer to the bot.
    let mut by_role = in_channel(THREAD, ADA, "<@&300000000000000001> go on");
    by_role["mention_roles"] = json!(["300000000000000001"]);
    lab.double.message(by_role);
    let message = lab.inbox.messages(3).await.remove(2);
    assert_eq!((message.text.as_str(), message.from.clone()), ("go on", address(GENERAL, Some(THREAD))));
    assert_eq!(message.chat_title.as_deref(), Some("#general › plans (Friends of OpenClaw)"));
    let sent = lab.discord.send(&message.from, &say("in the thread")).await.expect("sent");
    let shown = lab.double.shown(&sent[0]).expect("there");
    assert_eq!(shown["channel_id"], THREAD);
    let mut reply = in_channel(THREAD, ADA, "and then?");
    (reply["type"], reply["referenced_message"]) = (19.into(), shown);
    lab.double.message(reply);
    let message = lab.inbox.messages(4).await.remove(3);
    let quoted = message.reply_to.expect("quoted");
    assert!(message.mentions_me && quoted.mine && quoted.text == "in the thread");
    assert_eq!(lab.inbox.messages(4).await.len(), 4);
    // S-254: what the guild told of its members.
    assert_eq!(lab.discord.presence(ADA).expect("known").status, "idle");
    lab.double.event(
        "PRESENCE_UPDATE",
        json!({"user": {"id": ADA}, "guild_id": GUILD, "status": "dnd",
        "activities": [], "client_status": {}}),
    );
    lab.double.message(in_channel(GENERAL, ADA, &mention.repeat(2)));
    lab.double.message(in_channel(GENERAL, ADA, &format!("{mention} last")));
    lab.inbox.messages(5).await;
    assert_eq!(lab.discord.presence(ADA).expect("known").status, "dnd");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_was_not_kept_is_offered_again() {
    let lab = Lab::start("").await;
    *lab.inbox.refuse.lock().expect("lock") = 1;
    lab.double.dm(ADA, "keep me");
    lab.double.dm(ADA, "and me");
    let texts: Vec<String> = lab.inbox.messages(2).await.into_iter().map(|m| m.text).collect();
    assert_eq!(texts, ["keep me", "and me"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_can_be_kept_waits_at_discord() {
    let lab = Lab::start("").await;
    let all = lab.inbox.gate.forget_permits(Semaphore::MAX_PERMITS);
    (0..200).for_each(|number| drop(lab.double.dm(ADA, &number.to_string())));
    lab.double.gone().await;
    lab.inbox.gate.add_permits(all);
    let mut texts: Vec<String> = lab.inbox.messages(200).await.into_iter().map(|m| m.text).collect();
    assert!(!lab.double.resumes().is_empty());
    // A repetition is the same arrival; the inbox knows it.
    texts.dedup();
    assert_eq!(texts, (0..200).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn buttons() {
    let lab = Lab::start("").await;
    let to = lab.dm(ADA);
    let button = Button { label: "Allow".into(), data: "ap:1:o".into(), style: ButtonStyle::Good };
    let question = Outbound { buttons: vec![vec![button]], ..say("may I?") };
    let id = lab.discord.send(&to, &question).await.expect("sent").remove(0);
    let answer = |toast: Option<&str>, replace: Option<&str>, after: u64| {
        let (toast, replace) = (toast.map(str::to_owned), replace.map(say));
        *lab.inbox.answer.lock().expect("lock") = (PressAnswer { toast, replace }, Duration::from_millis(after));
    };
    let kind = |number: usize| lab.double.calls_to("POST", "/callback")[number].body.clone();

    answer(Some("not you"), None, 0);
    lab.double.press(EVE, &id, "ap:1:o");
    lab.double.nth_call("POST", "/callback", 0).await;
    assert_eq!((kind(0)["type"].as_u64(), kind(0)["data"]["flags"].as_u64()), (Some(4), Some(64)));
    assert_eq!(kind(0)["data"]["content"], "not you");
    let presses = wait(&lab.inbox.presses, |presses| presses.len() == 1).await;
    assert_eq!((presses[0].sender.id.as_str(), presses[0].data.as_str()), (EVE, "ap:1:o"));
    assert_eq!((&presses[0].message_id, &presses[0].from), (&id, &to));

    answer(None, None, 0);
    lab.double.press(ADA, &id, "ap:1:o");
    lab.double.nth_call("POST", "/callback", 1).await;
    assert_eq!(kind(1)["type"], 6);

    // Late: acknowledged in time, done afterwards.
    answer(Some("thanks"), Some("allowed, late"), 2_500);
    let token = lab.double.press(ADA, &id, "ap:1:o");
    let acknowledged = lab.double.nth_call("POST", "/callback", 2).await;
    assert_eq!((acknowledged.body["type"].as_u64(), acknowledged.status), (Some(6), 204));
    let edited = lab.double.call("PATCH", "/messages/@original").await;
    assert_eq!((edited.status, edited.authorization), (200, None));
    let toast = lab.double.call("POST", &format!("/{token}")).await;
    assert_eq!((toast.body["content"].as_str(), toast.status), (Some("thanks"), 200));
    let shown = lab.double.shown(&id).expect("there");
    assert_eq!((shown["content"].as_str(), &shown["components"]), (Some("allowed, late"), &json!([])));

    answer(None, Some("allowed"), 0);
    lab.double.press(ADA, &id, "ap:1:o");
    lab.double.nth_call("POST", "/callback", 3).await;
    assert_eq!(kind(3)["type"], 7);
    assert_eq!(lab.double.shown(&id).expect("there")["content"], "allowed");

    // Anything else than a button has no use here.
    lab.double.event(
        "INTERACTION_CREATE",
        json!({"id": "5", "application_id": "1", "type": 2, "token": "abc",
        "user": user_object(ADA), "channel_id": to.chat, "data": {"id": "1", "name": "x"}}),
    );
    lab.double.nth_call("POST", "/callback", 4).await;
    assert_eq!(kind(4)["data"]["content"], "This cannot be used here.");
}

/// What the whole process logs, at the finest level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("lock").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_stay_out_of_the_log() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).expect("the only one");
    let lab = Lab::start("").await;
    let to = lab.dm(ADA);
    let id = lab.discord.send(&to, &say("may I?")).await.expect("sent").remove(0);
    (0..4).for_each(|_| lab.double.fault("POST", "/callback", Fault::CutBefore));
    let token = lab.double.press(ADA, &id, "x");
    lab.double.nth_call("POST", "/callback", 3).await;
    lab.double.cut();
    lab.double.gone().await;
    lab.double.live().await;
    lab.double.change_token("another");
    lab.double.cut();
    lab.inbox.status(|status| matches!(status, Status::Failed { .. })).await;
    let said = String::from_utf8_lossy(&log.0.lock().expect("lock")).into_owned();
    assert!(said.contains("connected to Discord"), "it logs at all");
    assert!(!said.contains(TOKEN), "the bot token is in the log");
    let status: Vec<String> = lab.inbox.statuses.borrow().iter().map(|status| format!("{status:?}")).collect();
    let lines = said.lines().filter(|line| line.contains(&token)).map(str::to_owned);
    assert_eq!(lines.collect::<Vec<_>>(), Vec::<String>::new(), "an interaction's token is in the log");
    assert!(!status.concat().contains(TOKEN));
}
