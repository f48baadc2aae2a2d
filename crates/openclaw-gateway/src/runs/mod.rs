//! Runs: one answer of the agent to one message, from the moment the message is kept to the delivery of the reply.
//!
//! ```text
//! submit ──► queued ──► running ──► ended ──► pending ──► sending ──► sent
//!              │           │          ▲          ▲           │
//!              └─► ended ◄─┴──────────┘          └─ not sent ┴─► unknown: told once, never repeated
//! ```
//!
//! Every arrow is on disk before anybody hears of it. What a crash leaves behind is taken up again by [`recover`]: see there
//! for what is repeated and what is not. [`lanes`] decides whose turn it is, [`execute`] has a model answer, [`command`]
//! answers without one, [`delivery`] brings replies to channels, and [`stream`] tells connections.

mod attachments;
pub mod command;
mod compact;
mod delivery;
mod execute;
pub mod heartbeat;
pub mod hooks;
mod lanes;
mod live;
pub mod models;
mod preview;
mod prompting;
pub mod record;
pub mod recover;
pub mod request;
pub mod settings;
mod sink;
pub mod stream;
pub mod voice;
pub mod watch;

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock},
    time::Duration,
};

use futures_util::FutureExt as _;
use openclaw_protocol::ErrorShape;

pub use compact::{Compacted, compact};
pub use hooks::{Deliver, RunContext, ToolSource};
pub use request::{Authority, Input, Origin, RunId, RunRequest, WhenBusy};
pub use voice::{NodeWish, from_node};
pub use watch::{RunEvent, RunOutcome, RunStatus, RunWatch};

use self::{
    lanes::{Full, Lanes, QUEUE_CAP},
    live::Live,
    models::Models,
    record::{Delivery, RunChange, RunRow, State as RowState, StoredRequest},
    settings::Settings,
};
use crate::{
    clock::now_ms,
    gateway::Gateway,
    sessions::{self, SessionKey, events::Changed},
    store::Change,
};

/// Ended runs that are remembered without asking the store.
const REMEMBERED: usize = 1_000;
/// Longest text of a message: 1 MiB.
pub const MAX_TEXT_BYTES: usize = 1 << 20;

/// A request that was kept.
#[derive(Debug)]
pub struct Submitted {
    pub run_id: RunId,
    pub status: SubmitStatus,
    pub watch: RunWatch,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubmitStatus {
    Started,
    /// Waits for its turn; 1 is next.
    Queued {
        position: usize,
    },
    /// The same request came before and is under way.
    InFlight,
    /// The same request came before and has been answered.
    Done,
}

/// How a request is taken, for those inside.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Taking {
    /// Text is text, also when it looks like a command.
    pub plain: bool,
}

/// Lets a kept run begin when it is dropped: so that the answer to whoever asked goes out first.
#[must_use]
pub(crate) struct Held(Option<Arc<Gateway>>);

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(gateway) = self.0.take() {
            pump(&gateway);
        }
    }
}

/// All runs of the gateway.
#[derive(Default)]
pub struct Runs {
    state: Mutex<State>,
    deliver: OnceLock<Arc<dyn Deliver>>,
    sources: RwLock<Vec<Arc<dyn ToolSource>>>,
    settings: Mutex<Option<(String, Arc<Settings>)>>,
    models: Models,
    deliveries: delivery::Deliveries,
    last_heartbeat: Mutex<Option<openclaw_protocol::method::system::Heartbeat>>,
}

#[derive(Debug, Default)]
struct State {
    lanes: Lanes,
    live: HashMap<RunId, Arc<Live>>,
    /// Commands that are kept and wait to be begun.
    commands: VecDeque<Arc<Live>>,
    ended: VecDeque<Past>,
    /// Replies found at start, until they are taken up.
    recovered: Vec<delivery::Job>,
}

/// A run that ended.
#[derive(Clone, Debug)]
struct Past {
    id: RunId,
    digest: String,
    session: SessionKey,
    outcome: Arc<RunOutcome>,
}

/// Figures for reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub running: usize,
    pub waiting: usize,
    /// Replies on their way to a channel.
    pub deliveries: usize,
    pub max_concurrent: usize,
}

impl Runs {
    /// The way out for replies; set once, at start.
    pub fn set_deliver(&self, deliver: Arc<dyn Deliver>) {
        let _ = self.deliver.set(deliver);
    }

    fn deliver(&self) -> Option<&Arc<dyn Deliver>> {
        self.deliver.get()
    }

    /// The way out for replies, for those who send something else that way.
    pub fn outlet(&self) -> Option<Arc<dyn Deliver>> {
        self.deliver.get().cloned()
    }

    /// Adds tools; at start.
    pub fn add_tools(&self, source: Arc<dyn ToolSource>) {
        self.sources.write().unwrap_or_else(PoisonError::into_inner).push(source);
    }

    /// What lends runs their tools.
    pub fn sources(&self) -> Vec<Arc<dyn ToolSource>> {
        self.sources.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Providers and models of the config in force.
    pub fn models(&self) -> &Models {
        &self.models
    }

    /// Agents of the config in force.
    pub fn settings(&self, gateway: &Gateway) -> Arc<Settings> {
        let runtime = gateway.runtime.load();
        let mut cached = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((revision, settings)) = cached.as_ref()
            && *revision == runtime.revision
        {
            return Arc::clone(settings);
        }
        let settings = Arc::new(Settings::read(&runtime.config, &gateway.paths));
        settings.problems.iter().for_each(|problem| tracing::warn!("config: {problem}"));
        *cached = Some((runtime.revision.clone(), Arc::clone(&settings)));
        settings
    }

    /// Reads a session key as callers write it; `main` and keys without an agent belong to `agent`, or to the default one.
    ///
    /// # Errors
    /// `INVALID_REQUEST` for what is no key, and for an agent that does not exist.
    pub fn key(&self, gateway: &Gateway, written: &str, agent: Option<&str>) -> Result<SessionKey, ErrorShape> {
        let settings = self.settings(gateway);
        let agent = match agent.map(str::trim).filter(|agent| !agent.is_empty()) {
            None => settings.default_id.as_str(),
            Some(agent) => settings.agent(agent).map(|agent| agent.id.as_str()).ok_or_else(|| unknown_agent(agent))?,
        };
        SessionKey::resolve(written, agent, settings::MAIN_KEY)
            .map_err(|error| ErrorShape::invalid(format!("invalid session key: at /sessionKey: {error}")))
    }

    /// Keeps a request; when this returns `Ok`, it survives a crash. Runs to its end even when the asker hangs up.
    ///
    /// # Errors
    /// `INVALID_REQUEST` when the id was used for other input, `UNAVAILABLE` when the queue is full, the gateway stops, or
    /// it could not be saved; then nothing was kept.
    pub async fn submit(gateway: &Arc<Gateway>, request: RunRequest) -> Result<Submitted, ErrorShape> {
        Self::submit_with(gateway, request, Vec::new()).await
    }

    /// As [`Runs::submit`], and `extra` is saved in the same transaction; also when the request was kept before.
    ///
    /// # Errors
    /// As [`Runs::submit`]; then `extra` was not saved either.
    pub async fn submit_with(
        gateway: &Arc<Gateway>,
        request: RunRequest,
        extra: Vec<Change>,
    ) -> Result<Submitted, ErrorShape> {
        Self::submit_held(gateway, request, extra, Taking::default()).await.map(|(submitted, _)| submitted)
    }

    /// As [`Runs::submit_with`]; the run begins when [`Held`] is dropped.
    pub(crate) async fn submit_held(
        gateway: &Arc<Gateway>,
        request: RunRequest,
        extra: Vec<Change>,
        taking: Taking,
    ) -> Result<(Submitted, Held), ErrorShape> {
        let worker = Arc::clone(gateway);
        let submitted = gateway.whole(async move { keep(&worker, request, extra, taking).await }).await;
        submitted.map(|submitted| (submitted, Held(Some(Arc::clone(gateway)))))
    }

    /// Ends a run, or all of a session, those that wait too. Returns which. What those who watch hear of it goes out before
    /// this returns.
    pub async fn abort(gateway: &Arc<Gateway>, session: &SessionKey, run: Option<&RunId>) -> Vec<RunId> {
        abort(gateway, session, run, "rpc", None).await
    }

    /// Waits for the end of a run, also of one that ended before. `None` when it has not ended in time, or is not known.
    pub async fn wait(gateway: &Arc<Gateway>, run: &RunId, timeout: Option<Duration>) -> Option<Arc<RunOutcome>> {
        let watch = {
            let state = gateway.runs.lock();
            match state.live.get(run) {
                Some(live) => Some(live.watch()),
                None => state.past(run).map(|past| RunWatch::ended(Arc::clone(&past.outcome))),
            }
        };
        let watch = match watch {
            Some(watch) => watch,
            None => RunWatch::ended(Arc::new(stored(gateway, run).await.ok()??.outcome?)),
        };
        match timeout {
            None => watch.outcome().await,
            Some(timeout) => tokio::time::timeout(timeout, watch.outcome()).await.ok().flatten(),
        }
    }

    /// The conversation of a run that is under way or ended lately.
    pub fn session_of(&self, run: &RunId) -> Option<SessionKey> {
        let state = self.lock();
        let live = state.live.get(run).map(|live| live.request.session.clone());
        live.or_else(|| state.past(run).map(|past| past.session.clone()))
    }

    /// True while a run of the session is under way.
    pub fn is_running(&self, session: &SessionKey) -> bool {
        self.lock().lanes.running(session).is_some()
    }

    /// The run of the session that is under way.
    pub fn running(&self, session: &SessionKey) -> Option<RunId> {
        self.lock().lanes.running(session).cloned()
    }

    /// How it went when the agent looked around last.
    pub fn last_heartbeat(&self) -> Option<openclaw_protocol::method::system::Heartbeat> {
        self.last_heartbeat.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_last_heartbeat(&self, beat: openclaw_protocol::method::system::Heartbeat) {
        *self.last_heartbeat.lock().unwrap_or_else(PoisonError::into_inner) = Some(beat);
    }

    pub fn figures(&self, gateway: &Gateway) -> Figures {
        let max_concurrent = self.settings(gateway).max_concurrent;
        let state = self.lock();
        Figures {
            running: state.lanes.running_count(),
            waiting: state.lanes.waiting_count(),
            deliveries: self.deliveries.count(),
            max_concurrent,
        }
    }

    /// Resolves when nothing is under way any more: no run, no command, no reply on its way. What waits for its turn is not
    /// counted. For the stop, when nothing new begins.
    pub async fn quiet(&self) {
        loop {
            let begun = {
                let state = self.lock();
                state.live.len().saturating_sub(state.lanes.waiting_count() + state.commands.len())
            };
            if begun == 0 && self.deliveries.count() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn past(&self, run: &RunId) -> Option<&Past> {
        self.ended.iter().rev().find(|past| past.id == *run)
    }
}

/// The error for an agent nobody configured.
pub fn unknown_agent(id: &str) -> ErrorShape {
    ErrorShape::invalid(format!("unknown agent id \"{}\"", crate::log::escaped(id, 64)))
}

/// The same id came with other input. The words are the reference's.
fn conflict() -> ErrorShape {
    ErrorShape::invalid(
        "This message ID was already used for different input. Check the conversation history and use a new message ID to \
         send again.",
    )
    .detail("reason", "chat-request-conflict")
}

fn not_saved() -> ErrorShape {
    ErrorShape::retry_later("the gateway could not save the message; nothing was kept, send it again", 1_000)
}

async fn stored(gateway: &Gateway, run: &RunId) -> Result<Option<RunRow>, ErrorShape> {
    let id = run.0.clone();
    let found = gateway.store.read(move |db| crate::store::runs::get(db, &id)).await;
    found.map_err(|error| {
        tracing::error!(%error, "cannot look a run up");
        not_saved()
    })
}

async fn keep(
    gateway: &Arc<Gateway>,
    request: RunRequest,
    extra: Vec<Change>,
    taking: Taking,
) -> Result<Submitted, ErrorShape> {
    if gateway.draining.is_cancelled() {
        return Err(ErrorShape::retry_later("the gateway is stopping; send it again in a moment", 2_000));
    }
    if request.input.text.len() > MAX_TEXT_BYTES {
        let error = format!("the message is too long: at most {MAX_TEXT_BYTES} bytes; send the rest as a file");
        return Err(ErrorShape::invalid(error));
    }
    let run_id = request.run_id.clone();
    let digest = record::digest(&request);
    // Twice at most: the second look is under the lock that also takes the place.
    if let Some(before) = known(gateway, &request, &digest)? {
        return again(gateway, before, extra).await;
    }
    if let Some(row) = stored(gateway, &run_id).await? {
        if row.digest != digest {
            return Err(conflict());
        }
        if let Some(outcome) = row.outcome {
            save_extra(gateway, extra).await?;
            let watch = RunWatch::ended(Arc::new(outcome));
            return Ok(Submitted { run_id, status: SubmitStatus::Done, watch });
        }
    }
    let command = if taking.plain { None } else { command::of(&request) };
    let live = Arc::new(Live::new(request, digest.clone(), now_ms(), command));
    let key = live.request.session.clone();
    let Some(before) = take_place(gateway, &live)? else {
        // Somebody was faster with the same id.
        return match known(gateway, &live.request, &digest)? {
            Some(before) => again(gateway, before, extra).await,
            None => Err(not_saved()),
        };
    };
    let watch = live.watch();
    let row = RunRow {
        run_id: run_id.clone(),
        session: key.clone(),
        session_id: None,
        state: RowState::Queued,
        digest,
        request: serde_json::to_string(&StoredRequest::of(&live.request)).unwrap_or_default(),
        submitted_ms: live.submitted_ms,
        started_ms: None,
        ended_ms: None,
        outcome: None,
        command: live.command.is_some(),
        deliver: live.request.deliver.clone(),
        delivery: Delivery::None,
    };
    let changes = std::iter::once(Change::from(RunChange::Insert(Box::new(row)))).chain(extra);
    if let Err(error) = gateway.store.commit(changes).await {
        tracing::error!(%error, run = run_id.0, "a message was not kept");
        let mut state = gateway.runs.lock();
        state.lanes.leave(&key, &run_id);
        state.live.remove(&run_id);
        drop(state);
        live.set_kept(false);
        return Err(not_saved());
    }
    live.set_kept(true);
    {
        let mut state = gateway.runs.lock();
        match live.command {
            Some(_) => state.commands.push_back(Arc::clone(&live)),
            None => state.lanes.kept(&key, &run_id),
        }
    }
    show(gateway, &key);
    if before > 0 {
        sessions::events::changed(gateway, &key, Changed::Reason("send"));
    }
    if live.request.when_busy == WhenBusy::Interrupt && live.command.is_none() {
        abort(gateway, &key, None, "interrupt", Some(&run_id)).await;
    }
    let status = if before == 0 { SubmitStatus::Started } else { SubmitStatus::Queued { position: before } };
    Ok(Submitted { run_id, status, watch })
}

/// A place in line. Returns how many are before it; `None` when the id is taken.
///
/// # Errors
/// The queue is full.
fn take_place(gateway: &Gateway, live: &Arc<Live>) -> Result<Option<usize>, ErrorShape> {
    let mut state = gateway.runs.lock();
    if state.live.contains_key(live.id()) || state.past(live.id()).is_some() {
        return Ok(None);
    }
    let before = match live.command {
        Some(_) => 0,
        None => state.lanes.place(&live.request.session, live.id().clone()).map_err(|Full| {
            ErrorShape::retry_later(
                format!("{QUEUE_CAP} messages wait in this conversation already; wait for an answer, or /stop"),
                5_000,
            )
        })?,
    };
    state.live.insert(live.id().clone(), Arc::clone(live));
    Ok(Some(before))
}

/// The same request as one that came before.
enum Before {
    Live(Arc<Live>),
    Past(Past),
}

/// What is known in memory of a request.
///
/// # Errors
/// The same id came with other input.
fn known(gateway: &Gateway, request: &RunRequest, digest: &str) -> Result<Option<Before>, ErrorShape> {
    let state = gateway.runs.lock();
    let (before, other) = match (state.live.get(&request.run_id), state.past(&request.run_id)) {
        (Some(live), _) => (Before::Live(Arc::clone(live)), live.digest != digest),
        (None, Some(past)) => (Before::Past(past.clone()), past.digest != digest),
        (None, None) => return Ok(None),
    };
    if other {
        return Err(conflict());
    }
    if let (Before::Live(live), Origin::Operator { connection, .. }) = (&before, &request.origin) {
        live.stream.joined(*connection);
    }
    Ok(Some(before))
}

async fn again(gateway: &Gateway, before: Before, extra: Vec<Change>) -> Result<Submitted, ErrorShape> {
    let submitted = match before {
        Before::Live(live) => {
            let watch = live.watch();
            if !live.is_kept().await {
                return Err(not_saved());
            }
            Submitted { run_id: live.id().clone(), status: SubmitStatus::InFlight, watch }
        }
        Before::Past(past) => {
            Submitted { run_id: past.id, status: SubmitStatus::Done, watch: RunWatch::ended(past.outcome) }
        }
    };
    save_extra(gateway, extra).await?;
    Ok(submitted)
}

async fn save_extra(gateway: &Gateway, extra: Vec<Change>) -> Result<(), ErrorShape> {
    if extra.is_empty() {
        return Ok(());
    }
    gateway.store.commit(extra).await.map_err(|error| {
        tracing::error!(%error, "a message was not noted");
        not_saved()
    })
}

/// Starts what may start.
fn pump(gateway: &Arc<Gateway>) {
    let cap = gateway.runs.settings(gateway).max_concurrent;
    loop {
        // Once the gateway stops, what waits waits for the next start.
        if gateway.draining.is_cancelled() {
            return;
        }
        let live = {
            let mut state = gateway.runs.lock();
            match state.commands.pop_front() {
                Some(live) => live,
                None => match state.lanes.start(cap) {
                    Some((_, id)) => match state.live.get(&id) {
                        Some(live) => Arc::clone(live),
                        None => continue,
                    },
                    None => return,
                },
            }
        };
        show(gateway, &live.request.session);
        gateway.tracker.spawn(work(Arc::clone(gateway), live));
    }
}

/// One run, from its start to its end.
async fn work(gateway: Arc<Gateway>, live: Arc<Live>) {
    use tracing::Instrument as _;

    let span = tracing::info_span!("run", run = live.id().0, session = %live.request.session);
    let task = async {
        match live.command {
            Some(_) => command::answer(&gateway, &live).await,
            None => execute::run(&gateway, &live).await,
        }
    };
    let done = std::panic::AssertUnwindSafe(task).catch_unwind().instrument(span).await;
    let outcome = match done {
        Ok(Some(outcome)) => outcome,
        // It goes on after the restart; whoever watches hears that the gateway stops.
        Ok(None) => {
            live.stream.suspended();
            forget(&gateway, &live);
            return;
        }
        Err(_) => {
            tracing::error!(run = live.id().0, "a run ended by an error of the gateway itself");
            let text = "An internal error ended this run; see the gateway log (`openclaw logs`).";
            execute::failed(&gateway, &live, text).await
        }
    };
    finish(&gateway, &live, outcome);
}

fn forget(gateway: &Gateway, live: &Live) {
    let mut state = gateway.runs.lock();
    state.live.remove(live.id());
    if live.command.is_none() {
        state.lanes.ended(&live.request.session);
    }
}

/// What an ended run leaves behind: memory, news, room for the next.
fn finish(gateway: &Arc<Gateway>, live: &Arc<Live>, outcome: Arc<RunOutcome>) {
    // First, so that at no moment it is neither a run nor a reply on its way: see `quiet`.
    if let Some(delivery) = live.delivery()
        && let Some(job) = delivery::Job::of(&live.request, Arc::clone(&outcome), delivery, false)
    {
        delivery::enqueue(gateway, job);
    }
    {
        let mut state = gateway.runs.lock();
        state.live.remove(live.id());
        if live.command.is_none() {
            state.lanes.ended(&live.request.session);
        }
        state.remember(live, &outcome);
    }
    show(gateway, &live.request.session);
    live.tell_end(&outcome);
    sessions::events::changed(gateway, &live.request.session, Changed::Reason("agent.input.settled"));
    pump(gateway);
}

impl State {
    fn remember(&mut self, live: &Live, outcome: &Arc<RunOutcome>) {
        if self.ended.len() == REMEMBERED {
            self.ended.pop_front();
        }
        self.ended.push_back(Past {
            id: live.id().clone(),
            digest: live.digest.clone(),
            session: live.request.session.clone(),
            outcome: Arc::clone(outcome),
        });
    }
}

/// Ends runs of a session, `spared` aside.
async fn abort(
    gateway: &Arc<Gateway>,
    session: &SessionKey,
    run: Option<&RunId>,
    why: &'static str,
    spared: Option<&RunId>,
) -> Vec<RunId> {
    let wanted = |id: &RunId| run.is_none_or(|run| run == id) && spared != Some(id);
    let (waiting, running) = {
        let mut state = gateway.runs.lock();
        let mut waiting = Vec::new();
        // An interruption is about what runs; what was asked before it stays in line.
        if why != "interrupt" {
            for id in state.lanes.waiting(session).into_iter().filter(&wanted) {
                state.lanes.leave(session, &id);
                waiting.extend(state.live.remove(&id));
            }
        }
        let running = state.lanes.running(session).filter(|id| wanted(id)).cloned();
        (waiting, running.and_then(|id| state.live.get(&id).cloned()))
    };
    let mut ended = Vec::new();
    for live in waiting {
        if !live.is_kept().await {
            continue;
        }
        live.stream.aborted(gateway, why);
        let outcome = Arc::new(execute::never_ran(&live, why));
        let change = RunChange::Ended {
            run_id: live.id().clone(),
            outcome: Box::new((*outcome).clone()),
            delivery: Delivery::None,
        };
        if let Err(error) = gateway.store.commit([change]).await {
            // It is no longer in line here, and runs after the next start: better twice asked than lost.
            tracing::error!(%error, run = live.id().0, "the end of a waiting run was not saved");
        }
        gateway.runs.lock().remember(&live, &outcome);
        live.tell_end(&outcome);
        ended.push(live.id().clone());
    }
    if let Some(live) = running {
        live.end(why);
        live.stream.aborted(gateway, why);
        ended.push(live.id().clone());
    }
    if !ended.is_empty() {
        show(gateway, session);
        sessions::events::changed(gateway, session, Changed::Reason("agent.input.settled"));
    }
    ended
}

/// Takes those that wait at the head of the line and may join `live`, for steering or collecting.
fn take_joining(gateway: &Gateway, live: &Live, mode: WhenBusy) -> Vec<Arc<Live>> {
    let mut state = gateway.runs.lock();
    let State { lanes, live: all, .. } = &mut *state;
    let fits = |id: &RunId| {
        all.get(id).is_some_and(|other| {
            // Nobody borrows the permissions, nor the chat, of somebody else.
            let (one, two) = (&live.request, &other.request);
            two.when_busy == mode && one.authority == two.authority && one.deliver == two.deliver
        })
    };
    let taken = lanes.take_head(&live.request.session, fits);
    taken.iter().filter_map(|id| all.get(id).cloned()).collect()
}

/// Says what runs and waits in a conversation, for lists and histories.
fn show(gateway: &Gateway, session: &SessionKey) {
    let state = gateway.runs.lock();
    let running = state.lanes.running(session).map(|id| id.0.clone());
    let waiting = state.lanes.waiting(session).into_iter().filter_map(|id| {
        let live = state.live.get(&id)?;
        Some(sessions::Pending {
            run_id: id.0,
            text: live.request.input.text.clone(),
            accepted_ms: live.submitted_ms,
            message: None,
        })
    });
    let activity = sessions::Activity { running: running.into_iter().collect(), waiting: waiting.collect() };
    // Under the lock, so that the last word is the latest.
    gateway.sessions.set_activity(session, activity);
}
