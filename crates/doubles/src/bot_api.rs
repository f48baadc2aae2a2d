//! The Telegram Bot API, as a bot sees it: `https://core.telegram.org/bots/api`, version 9.
//!
//! ```no_run
//! use doubles::bot_api::{BotApi, Person};
//!
//! let api = BotApi::start();
//! let bot = api.bot("123456:secret", "claw_bot");
//! // … start what is tested, with apiRoot = api.url() and the token above …
//! let ada = Person::new(7, "Ada").username("ada");
//! bot.says(&ada, "hello");
//! let reply = bot.wait_for_text("Hello Ada");
//! assert_eq!(reply.chat(), 7);
//! ```
//!
//! It runs on a thread of its own, so that tests with and without a runtime can use it. Everything it was asked is kept in
//! order ([`Bot::calls`]); updates are confirmed by the offset of the next `getUpdates`, as with the real one. Misbehaviour is
//! ordered with [`Bot::fail`]. What the real API refuses is refused: long texts, captions and button data, styles outside
//! their text, unbalanced HTML, a second poller, polling while a webhook is set.

mod body;
mod methods;
mod rules;
mod server;
mod updates;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::{oneshot, watch};

pub use updates::{Chat, Person};

/// How long `wait_…` waits before it fails the test and shows what there was.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A Bot API server on a loopback port; dropping it ends it.
pub struct BotApi {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// One bot of the server.
#[derive(Clone)]
pub struct Bot {
    token: String,
    shared: Arc<Shared>,
}

/// A request the server accepted.
#[derive(Clone, Debug)]
pub struct Sent {
    /// `sendMessage`, …
    pub method: String,
    /// Fields of the JSON body or the form; JSON texts in forms are parsed.
    pub params: Value,
    /// Uploaded files: field, file name, content type, bytes.
    pub files: Vec<Upload>,
    /// Of the message it made, or edited.
    pub message_id: Option<i64>,
    /// When it came.
    pub at: Instant,
    /// A fault swallowed the answer: the bot cannot know that it was accepted.
    pub unanswered: bool,
}

/// An uploaded file.
#[derive(Clone, Debug)]
pub struct Upload {
    pub field: String,
    pub file_name: String,
    pub content_type: String,
    pub data: Bytes,
}

impl Sent {
    /// The text or caption.
    pub fn text(&self) -> &str {
        let of = |key: &str| self.params.get(key).and_then(Value::as_str);
        of("text").or_else(|| of("caption")).unwrap_or_default()
    }

    /// The chat it went to; 0 when there is none.
    pub fn chat(&self) -> i64 {
        match self.params.get("chat_id") {
            Some(Value::String(text)) => text.parse().unwrap_or_default(),
            Some(id) => id.as_i64().unwrap_or_default(),
            None => 0,
        }
    }

    /// A number among the parameters, written as number or text.
    pub fn int(&self, key: &str) -> Option<i64> {
        let value = self.params.get(key)?;
        value.as_i64().or_else(|| value.as_str()?.parse().ok())
    }
}

/// What goes wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// `{"ok": false}` with this code and text. `retry_after` in seconds goes into `parameters`.
    Refuse { code: u16, description: String, retry_after: Option<u64> },
    /// The request is carried out, and the connection closed without an answer.
    CutAfter,
    /// The connection is closed and the request forgotten.
    CutBefore,
    /// The answer is no JSON.
    Garbage,
    /// The answer comes this late.
    Slow(Duration),
}

impl Fault {
    /// 429 with a pause in seconds.
    pub fn too_many(retry_after: u64) -> Self {
        let description = format!("Too Many Requests: retry after {retry_after}");
        Self::Refuse { code: 429, description, retry_after: Some(retry_after) }
    }

    pub fn refuse(code: u16, description: &str) -> Self {
        Self::Refuse { code, description: description.to_owned(), retry_after: None }
    }
}

/// A webhook a bot has set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Webhook {
    pub url: String,
    pub secret: Option<String>,
    pub allowed_updates: Vec<String>,
}

#[derive(Default)]
struct State {
    bots: HashMap<String, BotState>,
    next_message: i64,
    next_update: i64,
}

#[derive(Default)]
struct BotState {
    id: i64,
    username: String,
    /// Unconfirmed updates by id.
    updates: BTreeMap<i64, Value>,
    /// Highest offset that was asked for; updates before it are confirmed.
    offset: i64,
    calls: Vec<Sent>,
    faults: HashMap<String, VecDeque<Fault>>,
    /// Faults that stay.
    broken: HashMap<String, Fault>,
    files: HashMap<String, (String, Bytes)>,
    webhook: Option<Webhook>,
    /// Texts by message, for edits.
    messages: HashMap<(i64, i64), Value>,
    /// Grows with every poll that is under way; an older poll ends with 409.
    poller: u64,
    /// Topics in private chats.
    topics: bool,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    version: watch::Sender<u64>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        self.changed.notify_all();
        self.version.send_modify(|version| *version += 1);
    }
}

impl BotApi {
    /// Starts on a free loopback port.
    ///
    /// # Panics
    /// When there is none.
    pub fn start() -> Self {
        Self::start_on("127.0.0.1:0")
    }

    /// Starts on a certain address.
    ///
    /// # Panics
    /// When it is taken.
    pub fn start_on(address: &str) -> Self {
        let listener = std::net::TcpListener::bind(address).expect("an address for the Bot API double");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            state: Mutex::new(State { next_message: 1, next_update: 1000, ..State::default() }),
            changed: Condvar::new(),
            version: watch::Sender::new(0),
        });
        let (stop, stopped) = oneshot::channel();
        let serving = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("bot-api".into())
            .spawn(move || server::run(listener, serving, stopped))
            .expect("a thread for the Bot API double");
        Self { address, shared, stop: Some(stop), thread: Some(thread) }
    }

    /// `http://127.0.0.1:<port>`, for `apiRoot`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Makes a bot known by its token (`<id>:<secret>`).
    pub fn bot(&self, token: &str, username: &str) -> Bot {
        let id = token.split(':').next().and_then(|id| id.parse().ok()).unwrap_or(1);
        let bot = BotState { id, username: username.to_owned(), ..BotState::default() };
        self.shared.lock().bots.insert(token.to_owned(), bot);
        Bot { token: token.to_owned(), shared: Arc::clone(&self.shared) }
    }
}

impl Drop for BotApi {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Bot {
    fn with<R>(&self, work: impl FnOnce(&mut BotState) -> R) -> R {
        let result = work(self.shared.lock().bots.get_mut(&self.token).expect("the bot is registered"));
        self.shared.tell();
        result
    }

    pub fn token(&self) -> &str {
        &self.token
    }

    /// From now on its token is unknown: 401.
    pub fn revoke(&self) {
        self.shared.lock().bots.remove(&self.token);
        self.shared.tell();
    }

    /// The next call of `method` goes wrong; several are used up in order.
    pub fn fail(&self, method: &str, fault: Fault) {
        self.with(|bot| bot.faults.entry(method.to_owned()).or_default().push_back(fault));
    }

    /// Every call of `method` goes wrong until [`Bot::mend`].
    pub fn break_down(&self, method: &str, fault: Fault) {
        self.with(|bot| drop(bot.broken.insert(method.to_owned(), fault)));
    }

    pub fn mend(&self, method: &str) {
        self.with(|bot| drop(bot.broken.remove(method)));
    }

    /// Has topics in private chats (`has_topics_enabled`).
    pub fn with_topics(&self) {
        self.with(|bot| bot.topics = true);
    }

    /// Puts a file at `file_id`, to be had with `getFile`.
    pub fn put_file(&self, file_id: &str, path: &str, data: impl Into<Bytes>) {
        let data = data.into();
        self.with(|bot| drop(bot.files.insert(file_id.to_owned(), (path.to_owned(), data))));
    }

    /// Everything that was accepted, in order, `getUpdates` left out.
    pub fn calls(&self) -> Vec<Sent> {
        self.with(|bot| bot.calls.clone())
    }

    /// Calls of one method.
    pub fn calls_of(&self, method: &str) -> Vec<Sent> {
        self.calls().into_iter().filter(|call| call.method == method).collect()
    }

    /// What people have seen: messages sent, with their last text, without the deleted ones.
    pub fn messages(&self) -> Vec<Value> {
        self.with(|bot| {
            let mut messages: Vec<Value> = bot.messages.values().cloned().collect();
            messages.sort_by_key(|message| message["message_id"].as_i64());
            messages
        })
    }

    /// The offset that confirms: updates with a lower id are gone.
    pub fn offset(&self) -> i64 {
        self.with(|bot| bot.offset)
    }

    /// Ids of updates that were not confirmed.
    pub fn unconfirmed(&self) -> Vec<i64> {
        self.with(|bot| bot.updates.keys().copied().collect())
    }

    pub fn webhook(&self) -> Option<Webhook> {
        self.with(|bot| bot.webhook.clone())
    }

    /// Waits until `found` gives something.
    ///
    /// # Panics
    /// After [`PATIENCE`], showing the calls so far.
    pub fn wait<R>(&self, what: &str, mut found: impl FnMut(&Self) -> Option<R>) -> R {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(result) = found(self) {
                return result;
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited in vain for {what}; calls: {:#?}", self.calls());
            let guard = self.shared.lock();
            let _ = self.shared.changed.wait_timeout(guard, left.min(Duration::from_millis(50)));
        }
    }

    /// As [`Bot::wait`], without holding up a runtime.
    ///
    /// # Panics
    /// As [`Bot::wait`].
    pub async fn until<R>(&self, what: &str, mut found: impl FnMut(&Self) -> Option<R>) -> R {
        let until = Instant::now() + PATIENCE;
        let mut version = self.shared.version.subscribe();
        loop {
            version.mark_unchanged();
            if let Some(result) = found(self) {
                return result;
            }
            assert!(Instant::now() < until, "waited in vain for {what}; calls: {:#?}", self.calls());
            tokio::select! {
                _ = version.changed() => {}
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
            }
        }
    }

    /// Waits for a message that holds `text`, sent or edited into being.
    ///
    /// # Panics
    /// As [`Bot::wait`].
    pub fn wait_for_text(&self, text: &str) -> Sent {
        self.wait(&format!("a message with {text:?}"), |bot| {
            bot.calls().into_iter().find(|call| call.text().contains(text))
        })
    }

    /// [`Bot::wait_for_text`] without holding up a runtime.
    ///
    /// # Panics
    /// As [`Bot::wait`].
    pub async fn text(&self, text: &str) -> Sent {
        self.until(&format!("a message with {text:?}"), |bot| {
            bot.calls().into_iter().find(|call| call.text().contains(text))
        })
        .await
    }
}
