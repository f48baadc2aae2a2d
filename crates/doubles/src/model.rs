//! A model server that speaks OpenAI's chat completions, OpenAI's Responses and Anthropic's Messages, streamed and whole, and
//! says what a script tells it to.
//!
//! ```
//! use doubles::model::{Model, Reply, Script};
//! use serde_json::json;
//!
//! // Says the same to everybody:
//! let model = Model::start(Script::always(Reply::say("Hello Ada")));
//! // baseUrl of an OpenAI-compatible provider (Responses too), and of an Anthropic one:
//! let (openai, anthropic) = (model.url(), model.root_url());
//! # assert!(openai.ends_with("/v1") && !anthropic.ends_with("/v1"));
//!
//! // Wants a tool, then answers with what the tool said:
//! model.play(Script::choose(|ask| match ask.tool_results.last() {
//!     None => Reply::call("exec", json!({"command": "uptime"})),
//!     Some(result) => Reply::say(format!("It said: {}", result.text)),
//! }));
//!
//! // One after the other, the last one for ever:
//! model.play(Script::rounds([Reply::rate_limited(1), Reply::call("read", json!({"path": "a"})), Reply::say("done")]));
//!
//! // In pieces, slowly, and with manners:
//! let slow = Reply::think("hm").then_say("a long story").pieces(100).pace(std::time::Duration::from_millis(5));
//! model.play(Script::always(slow.usage(1_000, 200).cached(800)));
//! ```
//!
//! It runs on a thread of its own, so that tests with and without a runtime, or with a paused clock, can use it. Everything it
//! was asked is kept in order ([`Model::asks`]); [`Model::wait_for`] waits for it. What goes wrong is part of a reply
//! ([`Reply::fails`], [`Fault`]), and so is the shape of the bytes ([`Reply::wire`]). Any key is taken unless
//! [`Model::demand_key`] names one. Requests the real APIs would refuse (no model, no messages, calls without results, roles
//! that do not alternate at Anthropic) are answered with their 400.

mod ask;
mod render;
mod reply;
mod server;

use std::{
    net::{SocketAddr, TcpListener},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

pub use ask::{Api, Ask, ToolResult};
pub use reply::{Fault, Reply, Script, Stop, Wire};

/// How long [`Model::wait_for`] waits before it fails the test and shows what there was.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A model server on a loopback port; dropping it ends it.
pub struct Model {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    script: Script,
    asks: Vec<Ask>,
    /// See [`Model::sent`].
    sent: Vec<Vec<Instant>>,
    /// Streams begun and not yet ended on this side.
    open: usize,
    /// Streams the client hung up on.
    abandoned: usize,
    key: Option<String>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

impl Model {
    /// Begins to listen.
    ///
    /// # Panics
    /// When this machine has no loopback port left.
    pub fn start(script: Script) -> Self {
        Self::start_at(0, script)
    }

    /// The same on a port that was chosen.
    ///
    /// # Panics
    /// When somebody else has it.
    pub fn start_at(port: u16, script: Script) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("a loopback port");
        let address = listener.local_addr().expect("its address");
        let state = State { script, asks: Vec::new(), sent: Vec::new(), open: 0, abandoned: 0, key: None };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("model double".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || server::run(listener, shared, stopped)
        });
        Self { address, shared, stop: Some(stop), thread: thread.ok() }
    }

    /// Answers everything with its own words.
    pub fn echo() -> Self {
        Self::start(Script::echo())
    }

    /// `http://127.0.0.1:PORT/v1`: `baseUrl` for `openai-completions` and `openai-responses`.
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// `http://127.0.0.1:PORT`: `baseUrl` for `anthropic-messages`.
    pub fn root_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Another script from now on.
    pub fn play(&self, script: Script) {
        self.shared.change(|state| state.script = script);
    }

    /// Refuses every other key with 401 from now on.
    pub fn demand_key(&self, key: &str) {
        self.shared.change(|state| state.key = Some(key.to_owned()));
    }

    /// All it was asked, in order; refused requests are among them.
    pub fn asks(&self) -> Vec<Ask> {
        self.shared.lock().asks.clone()
    }

    /// When, for each ask in order: first when it had been read, then when each event of a streamed answer was handed to its
    /// socket.
    pub fn sent(&self) -> Vec<Vec<Instant>> {
        self.shared.lock().sent.clone()
    }

    /// The last thing it was asked.
    ///
    /// # Panics
    /// When it was asked nothing.
    pub fn last(&self) -> Ask {
        self.asks().pop().expect("a request")
    }

    /// Streams the client closed before their end. Counted when a write fails, so after a cut wait with
    /// [`Model::wait_until`].
    pub fn abandoned(&self) -> usize {
        self.shared.lock().abandoned
    }

    /// Waits until it was asked so often; gives all asks.
    ///
    /// # Panics
    /// After [`PATIENCE`].
    pub fn wait_for(&self, asks: usize) -> Vec<Ask> {
        self.wait_until(&format!("{asks} requests"), |model| model.asks().len() >= asks);
        self.asks()
    }

    /// Waits until no stream is open any more.
    ///
    /// # Panics
    /// After [`PATIENCE`].
    pub fn wait_idle(&self) {
        self.wait_until("no open streams", |model| model.shared.lock().open == 0);
    }

    /// Waits for anything that can be seen here.
    ///
    /// # Panics
    /// After [`PATIENCE`].
    pub fn wait_until(&self, what: &str, mut seen: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !seen(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the model waited {PATIENCE:?} for {what}; it was asked {:#?}", self.asks());
            let guard = self.shared.lock();
            // A change between the check and here is seen after the short wait.
            drop(self.shared.changed.wait_timeout(guard, left.min(Duration::from_millis(50))));
        }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
