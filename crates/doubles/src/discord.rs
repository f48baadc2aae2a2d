//! Discord: its gateway, its REST API and its file host on one loopback port, after the API reference, version 10.
//!
//! ```no_run
//! # async fn example() {
//! use doubles::discord::{Discord, Fault};
//! let discord = Discord::start().await;
//! // DISCORD_API_URL=discord.api_url(), DISCORD_BOT_TOKEN=doubles::discord::TOKEN, then:
//! discord.live().await;
//! let user = "100000000000000001";
//! discord.dm(user, "hello");
//! let answer = discord.call("POST", "/messages").await;
//! assert_eq!(answer.body["content"], "hello to you");
//! discord.fault("POST", "/messages", Fault::CutAfter);
//! # }
//! ```
//!
//! What it does as Discord does: hello, identify, `READY` and `GUILD_CREATE`, heartbeats, resuming with everything after a
//! number, nonces that are enforced, limits of content, interactions that are over after three seconds or once answered,
//! multipart uploads. What it is told to do: rate limits, errors, cutting a connection before or after the work was done,
//! `op 7`, `op 9`, close codes, silence. Everything it was asked is recorded in [`Discord::calls`].

mod gateway;
mod rest;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{broadcast, watch},
};
use tokio_util::sync::CancellationToken;

/// The bot's token.
pub const TOKEN: &str = "double.discord-bot.token";
/// Ids of the bot and of its application.
pub const BOT: &str = "900000000000000001";
pub const APPLICATION: &str = "900000000000000002";
/// How long the waiting functions wait before they panic.
const PATIENCE: Duration = Duration::from_secs(30);
/// "You must send an initial response within 3 seconds."
const PROMPT: Duration = Duration::from_secs(3);
/// 2015-01-01, the first second of snowflakes, in milliseconds since 1970.
const EPOCH_MS: u64 = 1_420_070_400_000;

/// A request to the REST API, or for a file.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: String,
    /// Below the base, without the query: `/channels/1/messages`.
    pub path: String,
    /// `null` without one; of a form the part `payload_json`.
    pub body: Value,
    /// Name and content of the files of a form.
    pub files: Vec<(String, Bytes)>,
    pub authorization: Option<String>,
    /// HTTP status of the answer; 0 when it was cut.
    pub status: u16,
    pub at: Instant,
}

/// What happens to the next request that fits.
#[derive(Clone, Debug)]
pub enum Fault {
    /// HTTP 429 with `retry_after` in seconds.
    RateLimit { seconds: f64, global: bool },
    /// Another status, with a body.
    Status(u16, Value),
    /// The connection is cut before anything was done.
    CutBefore,
    /// It is done, and the connection is cut before the answer.
    CutAfter,
    /// It is done, and the answer comes so much later.
    Late(Duration),
}

/// See the module documentation. Stops when dropped.
pub struct Discord {
    state: Arc<State>,
    address: SocketAddr,
    stop: CancellationToken,
}

struct State {
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
    orders: broadcast::Sender<Order>,
    address: SocketAddr,
}

/// What the sockets are told.
#[derive(Clone, Debug)]
enum Order {
    /// Only on live ones.
    Frame(u64, String),
    /// On any.
    Raw(String),
    Close(u16),
    Drop,
}

struct Inner {
    calls: Vec<Call>,
    faults: Vec<(String, String, Fault)>,
    token: String,
    close_on_identify: Option<u16>,
    heartbeat_ms: u64,
    deaf: bool,
    starts: (u64, u64),
    /// Refuse the next resume with `op 9`.
    forget_session: bool,
    identifies: Vec<Value>,
    resumes: Vec<Value>,
    heartbeats: Vec<Value>,
    live: usize,
    session: String,
    sessions: u64,
    seq: u64,
    log: Vec<(u64, String)>,
    guilds: Vec<Value>,
    channels: HashMap<String, Value>,
    /// By id.
    messages: HashMap<String, Value>,
    order: Vec<String>,
    nonces: HashMap<String, String>,
    /// Token to message, time and whether it was answered.
    interactions: HashMap<String, Interaction>,
    files: HashMap<String, Bytes>,
    counter: u64,
}

struct Interaction {
    id: String,
    message: String,
    since: Instant,
    answered: bool,
}

impl Drop for Discord {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Discord {
    /// Starts on a free loopback port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let address = listener.local_addr().expect("an address");
        let (changed, _) = watch::channel(0);
        let (orders, _) = broadcast::channel(4_096);
        let state = Arc::new(State { inner: Mutex::new(Inner::new()), changed, orders, address });
        let stop = CancellationToken::new();
        tokio::spawn(rest::serve(Arc::clone(&state), listener, stop.clone()));
        Self { state, address, stop }
    }

    /// For `DISCORD_API_URL`.
    pub fn api_url(&self) -> String {
        format!("http://{}/api/v10", self.address)
    }

    /// Everything asked so far.
    pub fn calls(&self) -> Vec<Call> {
        self.state.lock().calls.clone()
    }

    /// Calls whose method and end of the path are these.
    pub fn calls_to(&self, method: &str, end: &str) -> Vec<Call> {
        self.calls().into_iter().filter(|call| call.method == method && call.path.ends_with(end)).collect()
    }

    /// Waits for such a call, the first one there is.
    pub async fn call(&self, method: &str, end: &str) -> Call {
        self.nth_call(method, end, 0).await
    }

    /// Waits for the call of that number, counted from 0.
    pub async fn nth_call(&self, method: &str, end: &str, number: usize) -> Call {
        self.wait(&format!("{method} …{end} number {number}"), |_| self.calls_to(method, end).get(number).cloned())
            .await
    }

    /// Waits until `look` finds something.
    pub async fn wait<T>(&self, what: &str, look: impl Fn(&Self) -> Option<T>) -> T {
        let mut changes = self.state.changed.subscribe();
        let waiting = async {
            loop {
                changes.mark_unchanged();
                if let Some(found) = look(self) {
                    return found;
                }
                if changes.changed().await.is_err() {
                    panic!("the double is gone");
                }
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(found) => found,
            Err(_) => panic!("no {what} within {PATIENCE:?}; calls: {:#?}", self.calls()),
        }
    }

    /// Waits until a session is live.
    pub async fn live(&self) {
        self.wait("live session", |double| (double.state.lock().live > 0).then_some(())).await;
    }

    /// Waits until no session is live.
    pub async fn gone(&self) {
        self.wait("end of the session", |double| (double.state.lock().live == 0).then_some(())).await;
    }

    /// `d` of every `identify` so far.
    pub fn identifies(&self) -> Vec<Value> {
        self.state.lock().identifies.clone()
    }

    /// `d` of every `resume` so far.
    pub fn resumes(&self) -> Vec<Value> {
        self.state.lock().resumes.clone()
    }

    /// `d` of every heartbeat so far.
    pub fn heartbeats(&self) -> Vec<Value> {
        self.state.lock().heartbeats.clone()
    }

    /// Sends an event to the live session; without one it is kept for a resume.
    pub fn event(&self, name: &str, data: Value) {
        self.state.event(name, data);
    }

    /// Adds a guild (id, name, channels, threads, members, presences), which new sessions are told of.
    pub fn guild(&self, guild: Value) {
        let mut inner = self.state.lock();
        for list in ["channels", "threads"] {
            for channel in guild[list].as_array().into_iter().flatten() {
                let mut channel = channel.clone();
                channel["guild_id"] = guild["id"].clone();
                inner.channels.insert(text(&channel["id"]), channel);
            }
        }
        inner.guilds.push(guild.clone());
        drop(inner);
        self.event("GUILD_CREATE", guild);
    }

    /// The id of the direct chat with a user.
    pub fn dm_channel(&self, user: &str) -> String {
        self.state.lock().dm_channel(user)
    }

    /// A user writes to the bot. Returns the id of the message.
    pub fn dm(&self, user: &str, content: &str) -> String {
        let channel = self.dm_channel(user);
        self.message(json!({"channel_id": channel, "author": user_object(user), "content": content}))
    }

    /// Somebody writes: `channel_id`, `author` and `content` at least; the rest is filled in. Returns the id.
    pub fn message(&self, given: Value) -> String {
        let mut inner = self.state.lock();
        let id = inner.snowflake();
        let mut message = message_object(&id, &text(&given["channel_id"]));
        for (key, value) in given.as_object().into_iter().flatten() {
            message[key] = value.clone();
        }
        inner.messages.insert(id.clone(), message.clone());
        inner.order.push(id.clone());
        drop(inner);
        self.event("MESSAGE_CREATE", message);
        id
    }

    /// A user presses a button of a message of the bot. Returns the interaction's token.
    pub fn press(&self, user: &str, message: &str, custom_id: &str) -> String {
        let mut inner = self.state.lock();
        let id = inner.snowflake();
        let token = format!("aW50ZXJhY3Rpb24{id}");
        let shown = inner.messages.get(message).cloned().expect("a message with a button");
        let channel = text(&shown["channel_id"]);
        let channel_object = inner.channels.get(&channel).cloned().unwrap_or_else(|| json!({"id": channel, "type": 1}));
        let since = Instant::now();
        let interaction = Interaction { id: id.clone(), message: message.to_owned(), since, answered: false };
        inner.interactions.insert(token.clone(), interaction);
        drop(inner);
        let mut event = json!({"id": id, "application_id": APPLICATION, "type": 3, "token": token, "version": 1,
            "data": {"custom_id": custom_id, "component_type": 2, "id": 2}, "channel_id": channel,
            "channel": channel_object, "message": shown, "locale": "en-GB", "entitlements": []});
        match channel_object.get("guild_id") {
            Some(guild) => {
                event["guild_id"] = guild.clone();
                event["member"] = json!({"user": user_object(user), "roles": [], "permissions": "0"});
            }
            None => event["user"] = user_object(user),
        }
        self.event("INTERACTION_CREATE", event);
        token
    }

    /// A message as it is now; `None` when it was deleted.
    pub fn shown(&self, id: &str) -> Option<Value> {
        self.state.lock().messages.get(id).cloned()
    }

    /// Messages of the bot in a channel as they are now, oldest first.
    pub fn sent_to(&self, channel: &str) -> Vec<Value> {
        let inner = self.state.lock();
        let messages = inner.order.iter().filter_map(|id| inner.messages.get(id));
        messages.filter(|m| m["channel_id"] == channel && m["author"]["id"] == BOT).cloned().collect()
    }

    /// Waits until the bot has sent so many messages there.
    pub async fn sent(&self, channel: &str, count: usize) -> Vec<Value> {
        let look = |double: &Self| Some(double.sent_to(channel)).filter(|sent| sent.len() >= count);
        self.wait(&format!("{count} messages in {channel}"), look).await
    }

    /// What happens to the next request of that method whose path ends so. Several are used up in order.
    pub fn fault(&self, method: &str, end: &str, fault: Fault) {
        self.state.lock().faults.push((method.to_owned(), end.to_owned(), fault));
    }

    /// Puts a file on the file host; returns its URL.
    pub fn file(&self, name: &str, data: impl Into<Bytes>) -> String {
        let mut inner = self.state.lock();
        let path = format!("/attachments/1/{}/{name}", inner.snowflake());
        inner.files.insert(path.clone(), data.into());
        format!("http://{}{path}", self.address)
    }

    /// Takes another token than [`TOKEN`] from now on.
    pub fn change_token(&self, token: &str) {
        token.clone_into(&mut self.state.lock().token);
    }

    /// Answers the next `identify` with this close code.
    pub fn close_on_identify(&self, code: u16) {
        self.state.lock().close_on_identify = Some(code);
    }

    /// Heartbeat interval of new connections, in milliseconds.
    pub fn heartbeat(&self, ms: u64) {
        self.state.lock().heartbeat_ms = ms;
    }

    /// Answers no heartbeats, until told otherwise.
    pub fn deaf(&self, deaf: bool) {
        self.state.lock().deaf = deaf;
    }

    /// `session_start_limit`: sessions left, and milliseconds until there are more.
    pub fn starts(&self, remaining: u64, reset_after_ms: u64) {
        self.state.lock().starts = (remaining, reset_after_ms);
    }

    /// Refuses the next resume with `op 9`.
    pub fn forget_session(&self) {
        self.state.lock().forget_session = true;
    }

    /// `op 7`
    pub fn reconnect(&self) {
        self.state.order(Order::Raw(json!({"op": 7, "d": null}).to_string()));
    }

    /// `op 9`
    pub fn invalid_session(&self, resumable: bool) {
        self.state.order(Order::Raw(json!({"op": 9, "d": resumable}).to_string()));
    }

    /// Sends a text that is not a frame of the API, or one that the double does not know.
    pub fn raw(&self, text: &str) {
        self.state.order(Order::Raw(text.to_owned()));
    }

    /// Closes the gateway's connections with a code.
    pub fn close(&self, code: u16) {
        self.state.order(Order::Close(code));
    }

    /// Cuts the gateway's connections.
    pub fn cut(&self) {
        self.state.order(Order::Drop);
    }
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    fn order(&self, order: Order) {
        // Nobody may be connected.
        let _ = self.orders.send(order);
    }

    fn event(&self, name: &str, data: Value) {
        let mut inner = self.lock();
        if inner.session.is_empty() {
            return;
        }
        let (seq, frame) = inner.frame(name, data);
        // Under the lock, so that frames go out in their order.
        self.order(Order::Frame(seq, frame));
        drop(inner);
        self.touch();
    }
}

impl Inner {
    fn new() -> Self {
        Self {
            calls: Vec::new(),
            faults: Vec::new(),
            token: TOKEN.to_owned(),
            close_on_identify: None,
            heartbeat_ms: 41_250,
            deaf: false,
            starts: (1_000, 14_400_000),
            forget_session: false,
            identifies: Vec::new(),
            resumes: Vec::new(),
            heartbeats: Vec::new(),
            live: 0,
            session: String::new(),
            sessions: 0,
            seq: 0,
            log: Vec::new(),
            guilds: Vec::new(),
            channels: HashMap::new(),
            messages: HashMap::new(),
            order: Vec::new(),
            nonces: HashMap::new(),
            interactions: HashMap::new(),
            files: HashMap::new(),
            counter: 0,
        }
    }

    fn snowflake(&mut self) -> String {
        self.counter += 1;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let ms = u64::try_from(now.as_millis()).unwrap_or(EPOCH_MS).saturating_sub(EPOCH_MS);
        ((ms << 22) + self.counter).to_string()
    }

    /// The next frame of the session.
    fn frame(&mut self, name: &str, data: Value) -> (u64, String) {
        self.seq += 1;
        let frame = json!({"op": 0, "s": self.seq, "t": name, "d": data}).to_string();
        self.log.push((self.seq, frame.clone()));
        (self.seq, frame)
    }

    fn dm_channel(&mut self, user: &str) -> String {
        let known = self.channels.values().find(|c| c["type"] == 1 && c["recipients"][0]["id"] == user);
        if let Some(known) = known {
            return text(&known["id"]);
        }
        let id = self.snowflake();
        let channel = json!({"id": id, "type": 1, "last_message_id": null, "recipients": [user_object(user)]});
        self.channels.insert(id.clone(), channel);
        id
    }
}

/// A user as events have him.
pub fn user_object(id: &str) -> Value {
    json!({"id": id, "username": format!("user{}", &id[id.len().saturating_sub(4)..]), "discriminator": "0",
           "global_name": null, "avatar": null})
}

fn bot_object() -> Value {
    json!({"id": BOT, "username": "openclaw", "discriminator": "0001", "global_name": null, "avatar": null, "bot": true,
           "verified": true, "email": null, "flags": 0, "mfa_enabled": false})
}

fn message_object(id: &str, channel: &str) -> Value {
    json!({"id": id, "type": 0, "channel_id": channel, "content": "", "timestamp": "2026-01-01T00:00:00.000000+00:00",
           "edited_timestamp": null, "tts": false, "mention_everyone": false, "mentions": [], "mention_roles": [],
           "attachments": [], "embeds": [], "components": [], "pinned": false, "flags": 0})
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
