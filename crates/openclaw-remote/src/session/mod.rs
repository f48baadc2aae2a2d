//! A connection that outlives its paths.
//!
//! [`Session::open`] connects as a command does and then keeps at it: it listens for signs of life, races the other paths when
//! there are none, moves to a better path when one becomes available, and starts again when the network changed. What moves
//! with it:
//!
//! - **subscriptions** are made again on each new connection;
//! - **events** missed in between are asked for by sequence number (`events.resume`) and delivered before any new one; where the
//!   gateway cannot give all of them, the consumer is told to read its state again ([`Notice::Missed`]);
//! - **calls** without an answer are sent again when that does no harm ([`may_repeat`]); of others the caller learns that the
//!   outcome is not known ([`Error::OutcomeUnknown`]).
//!
//! One task owns the link and does what [`machine::Machine`] decides. It consumes the link's events, the race's outcome and
//! the system's word of network changes, and publishes [`Notice`]s. Calls run in their callers' tasks and hold on to the link
//! they began on, so a move to a better path lets them finish where they are.

mod again;
pub mod machine;
mod task;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use openclaw_config::credentials::CredentialError;
use openclaw_protocol::connect::ConnectParams;
use serde_json::Value;
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, timeout_at},
};

pub use again::may_repeat;

use crate::{
    client::Events,
    connect::{DeviceStore, DeviceUse, Secrets, Waiting},
    deadline::Deadline,
    error::{Error, Stage},
    handshake::Event,
    path::Route,
    route::{self, Ask, Link, Taken, Tunnels},
};

/// A new path is measured before it is announced, unless it takes longer than this.
const FIRST_PING: Duration = Duration::from_secs(2);
/// Notices waiting for a consumer; what does not fit is made up for by one [`Notice::Missed`].
const NOTICES: usize = 1024;

/// Everything a session needs to connect, again and again.
pub struct Setup {
    pub route: Route,
    /// The owner's socket of this machine's gateway, tried before the route.
    pub owner: Option<PathBuf>,
    pub params: ConnectParams,
    /// An error matters only where the owner's socket does not make it unnecessary.
    pub secrets: Result<Secrets, CredentialError>,
    pub device: DeviceUse,
    pub stored_tokens: bool,
    pub store: Arc<dyn DeviceStore + Send + Sync>,
    pub tunnels: Tunnels,
    /// Time for one race of paths.
    pub patience: Duration,
}

/// What a session tells its consumer, in order.
#[derive(Debug)]
pub enum Notice {
    Event(Event),
    /// Events may be missing: read again whatever they would have changed.
    Missed {
        why: String,
    },
    /// The session is connected, over this path from now on.
    Path(PathNotice),
    /// No path leads to the gateway just now; the session goes on trying.
    Away {
        why: String,
    },
    /// The session is over: only a person can settle this. Nothing follows.
    Ended(Arc<Error>),
}

/// The path a session is on.
#[derive(Clone, Debug)]
pub struct PathNotice {
    /// `None` over the owner's socket.
    pub taken: Option<Taken>,
    pub round_trip: Option<Duration>,
    pub cause: Cause,
    /// How long there was no connection; zero when the new path was ready before the old one was left.
    pub away: Duration,
    /// Events that came in between and were delivered late.
    pub resumed: usize,
}

/// Why a session is on its present path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    First,
    /// The connection before it ended.
    Ended,
    /// The connection before it fell silent.
    Silent,
    /// It is better than the one before.
    Better,
}

impl Cause {
    /// The word in JSON output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Ended => "ended",
            Self::Silent => "silent",
            Self::Better => "better",
        }
    }
}

/// A long-lived connection to one gateway. Dropping it ends it.
pub struct Session {
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

/// What callers see of the task's work.
struct Shared {
    state: watch::Sender<State>,
    subscriptions: Mutex<Vec<Subscription>>,
    nudged: Notify,
}

#[derive(Clone)]
enum State {
    Up(Arc<Live>),
    Away,
    Ended(Arc<Error>),
}

/// A link in use.
struct Live {
    link: Link,
    /// Set when nothing more is expected of it.
    condemned: watch::Sender<bool>,
    /// Of the last ping.
    round_trip: Mutex<Option<Duration>>,
}

#[derive(Clone)]
struct Subscription {
    method: String,
    params: Option<Value>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Session {
    /// Connects, and stays connected.
    ///
    /// # Errors
    /// Those of the first attempt: a session that never was does not go on trying.
    pub async fn open(
        setup: Setup,
        waiting: &(dyn Fn(Waiting) + Sync),
    ) -> Result<(Self, mpsc::Receiver<Notice>), Error> {
        let (link, events) = setup.connect(None, waiting).await?;
        let live = Arc::new(Live::new(link));
        live.ping(FIRST_PING).await;
        let (state, _) = watch::channel(State::Up(Arc::clone(&live)));
        let shared = Arc::new(Shared { state, subscriptions: Mutex::default(), nudged: Notify::new() });
        let (publish, notices) = mpsc::channel(NOTICES);
        let (stop, stopped) = oneshot::channel();
        let task = task::Task::new(setup, Arc::clone(&shared), live, events, publish);
        let task = tokio::spawn(task.run(stopped));
        Ok((Self { shared, stop: Some(stop), task }, notices))
    }

    /// Calls a method over whatever path there is, waiting for one if need be. A call whose connection is lost is sent again
    /// when that does no harm.
    ///
    /// # Errors
    /// As [`crate::Client::call`]; [`Error::OutcomeUnknown`]; [`Error::Closed`] when the session has ended.
    pub async fn call(&self, method: &str, params: Option<Value>, limit: Duration) -> Result<Value, Error> {
        let at =
            Instant::now().checked_add(limit).unwrap_or_else(|| Instant::now() + Duration::from_secs(86_400 * 365));
        let exchange = self.exchange(method, params, at);
        timeout_at(at, exchange).await.unwrap_or(Err(Error::Timeout { stage: Stage::Call, after: limit }))
    }

    /// Calls a method that answers twice and waits for the second answer. It is sent once: what became of it when the
    /// connection was lost, the caller has to ask in another way.
    ///
    /// # Errors
    /// As [`crate::Client::call_final`]; [`Error::OutcomeUnknown`]; [`Error::Closed`] when the session has ended.
    pub async fn call_final(&self, method: &str, params: Option<Value>, limit: Duration) -> Result<Value, Error> {
        let at = Instant::now() + limit;
        let unknown = || Error::OutcomeUnknown { method: method.to_owned() };
        let live = {
            let mut state = self.shared.state.subscribe();
            let up = |state: &State| !matches!(state, State::Away);
            let found = timeout_at(at, state.wait_for(up)).await;
            match found.map_err(|_| Error::Timeout { stage: Stage::Call, after: limit })?.as_deref() {
                Ok(State::Up(live)) => Arc::clone(live),
                Ok(State::Ended(error)) => return Err(ended(error)),
                Ok(State::Away) | Err(_) => return Err(unknown()),
            }
        };
        let mut condemned = live.condemned.subscribe();
        let left = at.saturating_duration_since(Instant::now());
        tokio::select! {
            outcome = live.link.call_final(method, params, left) => match outcome {
                Err(Error::Closed { .. }) => Err(unknown()),
                outcome => outcome,
            },
            _ = condemned.wait_for(|condemned| *condemned) => Err(unknown()),
        }
    }

    /// What the gateway of the present connection says it can do; empty while away.
    pub fn methods(&self) -> Vec<String> {
        match &*self.shared.state.borrow() {
            State::Up(live) => live.link.hello().features.methods.clone(),
            State::Away | State::Ended(_) => Vec::new(),
        }
    }

    async fn exchange(&self, method: &str, params: Option<Value>, at: Instant) -> Result<Value, Error> {
        let repeat = may_repeat(method, params.as_ref());
        let mut state = self.shared.state.subscribe();
        loop {
            let live = match &*state.borrow_and_update() {
                State::Up(live) => Some(Arc::clone(live)),
                State::Away => None,
                State::Ended(error) => return Err(ended(error)),
            };
            if let Some(live) = live.filter(|live| live.link.is_open()) {
                let mut condemned = live.condemned.subscribe();
                let left = at.saturating_duration_since(Instant::now());
                let outcome = tokio::select! {
                    outcome = live.link.call(method, params.clone(), left) => outcome,
                    _ = condemned.wait_for(|condemned| *condemned) => {
                        Err(Error::Closed { stage: Stage::Call, code: None, reason: "the path was given up".to_owned() })
                    }
                };
                match outcome {
                    Err(Error::Closed { .. }) if !repeat => {
                        return Err(Error::OutcomeUnknown { method: method.to_owned() });
                    }
                    Err(Error::Closed { .. }) => {}
                    outcome => return outcome,
                }
            }
            // The task notices the same end and publishes what comes next.
            if state.changed().await.is_err() {
                return Err(Error::Closed {
                    stage: Stage::Call,
                    code: None,
                    reason: "the session has ended".to_owned(),
                });
            }
        }
    }

    /// Calls a method that subscribes to something, now and on every later connection.
    ///
    /// # Errors
    /// As [`Self::call`]; then nothing is subscribed later either.
    pub async fn subscribe(&self, method: &str, params: Option<Value>, limit: Duration) -> Result<Value, Error> {
        let answer = self.call(method, params.clone(), limit).await?;
        self.shared.subscriptions().push(Subscription { method: method.to_owned(), params });
        Ok(answer)
    }

    /// The path in use and its last round trip; `None` while away.
    pub fn path(&self) -> Option<(Option<Taken>, Option<Duration>)> {
        match &*self.shared.state.borrow() {
            State::Up(live) => Some((live.link.taken.clone(), live.round_trip())),
            State::Away | State::Ended(_) => None,
        }
    }

    /// Looks at the paths again now, as when the network changed.
    pub fn nudge(&self) {
        self.shared.nudged.notify_one();
    }

    /// Ends the session and closes its connection.
    pub async fn close(mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        let _ = (&mut self.task).await;
    }
}

fn ended(error: &Error) -> Error {
    Error::Closed { stage: Stage::Call, code: None, reason: error.to_string() }
}

impl Setup {
    /// Races all paths, or those before `better_than`.
    async fn connect(
        &self,
        better_than: Option<usize>,
        waiting: &(dyn Fn(Waiting) + Sync),
    ) -> Result<(Link, Events), Error> {
        let mut ask = Ask {
            params: self.params.clone(),
            secrets: Secrets::default(),
            device: self.device,
            stored_tokens: self.stored_tokens,
            store: &*self.store,
            deadline: Deadline::after(self.patience),
            bootstrap: None,
            tunnels: &self.tunnels,
        };
        if let Some(socket) = &self.owner {
            match route::open_owner(socket, &ask, waiting).await {
                // A socket left behind by a killed gateway: ask the port instead.
                Err(Error::Connect { .. }) => {}
                outcome => return outcome,
            }
        }
        ask.secrets = self.secrets.clone().map_err(|error| Error::Credentials(Box::new(error)))?;
        match better_than {
            None => route::open(&self.route, &ask, waiting).await,
            Some(worse) => {
                let paths = self.route.paths.iter().take(worse).cloned().collect();
                route::open(&Route { paths, ..self.route.clone() }, &ask, waiting).await
            }
        }
    }
}

impl Live {
    fn new(link: Link) -> Self {
        Self { link, condemned: watch::Sender::new(false), round_trip: Mutex::default() }
    }

    /// Lets nobody wait for it any longer.
    fn condemn(&self) {
        self.condemned.send_replace(true);
    }

    /// Measures the path.
    async fn ping(&self, limit: Duration) {
        if let Ok(round_trip) = self.link.ping(limit).await {
            *self.round_trip.lock().unwrap_or_else(PoisonError::into_inner) = Some(round_trip);
        }
    }

    fn round_trip(&self) -> Option<Duration> {
        *self.round_trip.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn subscriptions(&self) -> MutexGuard<'_, Vec<Subscription>> {
        // Pushing and cloning cannot leave it half done.
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
