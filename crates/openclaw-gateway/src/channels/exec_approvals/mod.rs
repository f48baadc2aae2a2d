//! Exec approvals in chats: questions appear as messages with buttons, and what an approver presses goes back.
//!
//! ```text
//! exec.approval.requested ─► rules ─► a message to each place ─► pressed by an approver ─► exec.approval.resolve
//!                                          │                                                    │
//!                                          └──── edited with the outcome ◄── exec.approval.resolved, expiry
//! ```
//!
//! The monitor is a client of the gateway like any other (see [`connect`]); it is part of this process only because the
//! channels are. It works for every [`openclaw_channels::channel::Channel`] whose section has `execApprovals` (see
//! [`rules`]). One task: it consumes the session's notices, reloads and the clock, and publishes nothing but messages.
//! Buttons come in through [`super::inbox::Presses`].
//!
//! Buttons carry a random word that is known to this process only, so an old message decides nothing after a restart; which
//! messages there are is on disk, and they are marked as expired when the gateway comes up again.

pub mod connect;
pub mod prompt;
pub mod rules;

mod press;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use openclaw_channels::{channel::SendError, message::Outbound, section::Section};
use openclaw_config::secret_ref::SecretContext;
use openclaw_protocol::{
    event,
    method::exec::{ApprovalFound, ApprovalRecord, ApprovalResolvedEvent, PendingApproval},
};
use openclaw_remote::session::{Notice, Session};
use serde_json::json;
use tokio::sync::watch;

use self::{
    prompt::Outcome,
    rules::{Place, Rules, Setting},
};
use crate::{
    clock::now_ms,
    gateway::Gateway,
    store::prompts::{Prompt, PromptChange},
};

/// Channels that can ask.
const CHANNELS: [&str; 2] = ["discord", "telegram"];
const REQUESTED: &str = event::EXEC_APPROVAL_REQUESTED.name;
const RESOLVED: &str = event::EXEC_APPROVAL_RESOLVED.name;
/// For one call to the gateway.
const CALL: Duration = Duration::from_secs(15);
/// How often the list is compared while something is open: a question that is taken back is not announced.
const COMPARE: Duration = Duration::from_secs(15);
/// Waits between attempts to connect; a missing credential is looked for again as rarely as the last.
const RETRY: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(60),
];
/// Attempts to send or change one message, and the wait between two when the channel names none.
const ATTEMPTS: u32 = 4;
const PAUSE: Duration = Duration::from_secs(3);
/// How long messages of an earlier start wait for their account, and how old they may become, milliseconds.
const ACCOUNT_PATIENCE: Duration = Duration::from_secs(120);
const MAX_AGE_MS: i64 = 7 * 24 * 3_600_000;

/// How the monitor is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// No channel is to ask.
    #[default]
    Off,
    Connecting,
    Watching,
    /// Not connected, tried again.
    Retrying(String),
    /// Needs its owner: a credential that cannot be had, for instance. Nothing is sent meanwhile.
    Failed(String),
}

/// See the module documentation.
#[derive(Default)]
pub struct Monitor {
    inner: Mutex<Inner>,
    state: watch::Sender<State>,
}

#[derive(Default)]
struct Inner {
    session: Option<Arc<Session>>,
    /// By approval id.
    questions: HashMap<String, Question>,
    /// The words of buttons, and what they are about.
    tokens: HashMap<String, String>,
}

struct Question {
    approval: PendingApproval,
    token: String,
    copies: Vec<Copy>,
    /// Messages that are on their way.
    sending: usize,
    ended: Option<Outcome>,
}

/// A message with the question.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Copy {
    place: Place,
    message_id: String,
}

/// Why one connection is over.
enum Over {
    Stopped,
    /// Settings may have changed.
    Reloaded,
    Lost(String),
    /// Only the owner can settle it.
    Refused(String),
}

impl Monitor {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it is.
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    fn set_state(&self, state: State) {
        self.state.send_if_modified(|before| {
            if *before == state {
                return false;
            }
            match &state {
                State::Failed(why) => tracing::error!("exec approvals in chats: off, {why}"),
                State::Retrying(why) => tracing::warn!("exec approvals in chats: not connected, {why}"),
                State::Watching => tracing::info!("exec approvals in chats: watching"),
                State::Off | State::Connecting => {}
            }
            *before = state;
            true
        });
    }
}

/// The rules of all accounts, and those that are switched on in vain.
fn rules(gateway: &Gateway) -> (Vec<Rules>, Vec<String>) {
    let runtime = gateway.runtime.load();
    let document = &runtime.config;
    let (mut on, mut vain) = (Vec::new(), Vec::new());
    for channel in CHANNELS {
        for account in Section::accounts(document, channel) {
            match rules::read(document, channel, &account) {
                Setting::On(rules) => on.push(rules),
                Setting::Nobody => vain.push(format!("{channel}/{account}")),
                Setting::Off => {}
            }
        }
    }
    (on, vain)
}

/// Runs the monitor until the gateway ends.
pub async fn run(gateway: Arc<Gateway>) {
    let old = gateway.store.approval_prompts().await.unwrap_or_else(|error| {
        tracing::warn!(%error, "questions of an earlier start could not be read");
        Vec::new()
    });
    if !old.is_empty() {
        gateway.tracker.spawn(expire(Arc::clone(&gateway), old));
    }
    gateway.channels.add_presses(Arc::new(press::Buttons));
    let mut reloads = gateway.reloads.subscribe();
    let mut failures = 0;
    loop {
        reloads.mark_unchanged();
        let (on, vain) = rules(&gateway);
        for account in vain {
            tracing::warn!(
                account,
                "execApprovals is on and there is nobody to ask; set execApprovals.approvers or commands.ownerAllowFrom"
            );
        }
        let wait = if on.is_empty() {
            gateway.exec_monitor.set_state(State::Off);
            None
        } else {
            let over = connection(&gateway, &mut reloads).await;
            gateway.exec_monitor.lock().session = None;
            let state = match over {
                Over::Stopped => return,
                Over::Reloaded => {
                    failures = 0;
                    continue;
                }
                Over::Lost(why) => State::Retrying(why),
                Over::Refused(why) => {
                    failures = RETRY.len();
                    State::Failed(why)
                }
            };
            gateway.exec_monitor.set_state(state);
            failures += 1;
            RETRY.get(failures - 1).or(RETRY.last()).copied()
        };
        tokio::select! {
            biased;
            () = gateway.cancel.cancelled() => return,
            changed = reloads.changed() => if changed.is_err() { return } else { failures = 0 },
            () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
        }
    }
}

/// One session with the gateway, from credentials to its end.
async fn connection(gateway: &Arc<Gateway>, reloads: &mut watch::Receiver<u64>) -> Over {
    let monitor = &gateway.exec_monitor;
    if !matches!(monitor.state(), State::Failed(_) | State::Retrying(_)) {
        monitor.set_state(State::Connecting);
    }
    let worker = Arc::clone(gateway);
    let setup = tokio::task::spawn_blocking(move || {
        let runtime = worker.runtime.load_full();
        let context = SecretContext { env: &worker.env, doc: &runtime.config, paths: &worker.paths };
        connect::setup(context, &worker.flags, worker.port())
    });
    let setup = match setup.await {
        Ok(Ok(setup)) => setup,
        Ok(Err(why)) => return Over::Refused(why),
        Err(_) => return Over::Lost("its credentials could not be read".to_owned()),
    };
    let opened = tokio::select! {
        biased;
        () = gateway.cancel.cancelled() => return Over::Stopped,
        opened = Session::open(setup, &|_| ()) => opened,
    };
    let (session, mut notices) = match opened {
        Ok((session, notices)) => (Arc::new(session), notices),
        Err(error) if error.is_settled_by_person() => return Over::Refused(error.to_string()),
        Err(error) => return Over::Lost(error.to_string()),
    };
    monitor.lock().session = Some(Arc::clone(&session));
    monitor.set_state(State::Watching);
    compare(gateway, &session).await;
    let mut next = tokio::time::interval(COMPARE);
    next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let expiry = until_expiry(monitor);
        tokio::select! {
            biased;
            () = gateway.cancel.cancelled() => return Over::Stopped,
            changed = reloads.changed() => return if changed.is_err() { Over::Stopped } else { Over::Reloaded },
            notice = notices.recv() => match notice {
                Some(Notice::Event(event)) => heard(gateway, &event.name, event.payload),
                Some(Notice::Path(_)) => {
                    monitor.set_state(State::Watching);
                    compare(gateway, &session).await;
                }
                Some(Notice::Missed { .. }) => compare(gateway, &session).await,
                Some(Notice::Away { why }) => monitor.set_state(State::Retrying(why)),
                Some(Notice::Ended(error)) if error.is_settled_by_person() => return Over::Refused(error.to_string()),
                Some(Notice::Ended(error)) => return Over::Lost(error.to_string()),
                None => return Over::Lost("the session ended".to_owned()),
            },
            () = tokio::time::sleep(expiry.unwrap_or_default()), if expiry.is_some() => compare(gateway, &session).await,
            _ = next.tick() => if expiry.is_some() { compare(gateway, &session).await },
        }
    }
}

/// Until the first open question expires, and a little more.
fn until_expiry(monitor: &Monitor) -> Option<Duration> {
    let inner = monitor.lock();
    let open = inner.questions.values().filter(|question| question.ended.is_none());
    let first = open.map(|question| question.approval.expires_at_ms).min()?;
    Some(Duration::from_millis(u64::try_from(first - now_ms()).unwrap_or(0) + 250))
}

fn heard(gateway: &Arc<Gateway>, name: &str, payload: serde_json::Value) {
    match name {
        REQUESTED => match serde_json::from_value::<PendingApproval>(payload) {
            Ok(approval) => ask(gateway, approval),
            Err(error) => tracing::warn!(%error, "a question cannot be read and is not shown"),
        },
        RESOLVED => {
            if let Ok(event) = serde_json::from_value::<ApprovalResolvedEvent>(payload) {
                finish(gateway, &event.id, Outcome::Decided { decision: event.decision, by: event.resolved_by });
            }
        }
        _ => {}
    }
}

/// Asks what waits and was not asked, and ends what waits no longer.
async fn compare(gateway: &Arc<Gateway>, session: &Session) {
    let list = session.call("exec.approval.list", Some(json!({})), CALL).await;
    let list = list.map_err(|error| error.to_string());
    let list = list.and_then(|list| serde_json::from_value::<Vec<PendingApproval>>(list).map_err(|e| e.to_string()));
    let list = match list {
        Ok(list) => list,
        Err(error) => return tracing::debug!(error, "the open questions could not be listed"),
    };
    let gone: Vec<String> = {
        let inner = gateway.exec_monitor.lock();
        let open = inner.questions.iter().filter(|(_, question)| question.ended.is_none());
        open.map(|(id, _)| id.clone()).filter(|id| !list.iter().any(|approval| approval.id == *id)).collect()
    };
    for id in gone {
        if let Some(outcome) = look_up(session, &id).await {
            finish(gateway, &id, outcome);
        }
    }
    list.into_iter().for_each(|approval| ask(gateway, approval));
}

/// How a question ended; `None` while it is open or when it could not be asked.
async fn look_up(session: &Session, id: &str) -> Option<Outcome> {
    match session.call("approval.get", Some(json!({ "id": id })), CALL).await {
        Ok(found) => outcome(serde_json::from_value::<ApprovalFound>(found).ok()?.approval),
        // The gateway knows nothing of it any more.
        Err(error) if error.shape().is_some() => Some(Outcome::Restarted),
        Err(_) => None,
    }
}

fn outcome(record: ApprovalRecord) -> Option<Outcome> {
    match (record.status.as_str(), record.decision, record.reason.as_deref()) {
        ("pending", ..) => None,
        (_, Some(decision), Some("user")) => {
            Some(Outcome::Decided { decision, by: record.resolver.and_then(|resolver| resolver.id) })
        }
        (_, _, Some("run-aborted")) => Some(Outcome::Withdrawn),
        _ => Some(Outcome::Expired),
    }
}

/// Puts a question to everybody who is to be asked, once.
fn ask(gateway: &Arc<Gateway>, approval: PendingApproval) {
    if gateway.exec_monitor.lock().questions.contains_key(&approval.id) || approval.expires_at_ms <= now_ms() {
        return;
    }
    let (on, _) = rules(gateway);
    let mut places: Vec<Place> = Vec::new();
    for place in
        on.iter().filter(|rules| rules.covers(&approval.request)).flat_map(|rules| rules.places(&approval.request))
    {
        if !places.contains(&place) {
            places.push(place);
        }
    }
    let Some(token) = token().filter(|_| !places.is_empty()) else { return };
    let message = prompt::question(&approval, &token);
    let id = approval.id.clone();
    {
        let mut inner = gateway.exec_monitor.lock();
        inner.tokens.insert(token.clone(), id.clone());
        let question = Question { approval, token, copies: Vec::new(), sending: places.len(), ended: None };
        inner.questions.insert(id.clone(), question);
    }
    for place in places {
        gateway.tracker.spawn(deliver(Arc::clone(gateway), id.clone(), place, message.clone()));
    }
}

/// 16 hexadecimal digits that nobody can guess.
fn token() -> Option<String> {
    let mut bytes = [0_u8; 8];
    getrandom::fill(&mut bytes).ok()?;
    Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Sends one copy of a question.
async fn deliver(gateway: Arc<Gateway>, id: String, place: Place, message: Outbound) {
    let sent = send(&gateway, &id, &place, &message).await;
    let copy = match sent {
        Ok(message_id) => Some(Copy { place: place.clone(), message_id }),
        Err(error) => {
            tracing::warn!(approval = id, channel = place.at.channel, chat = place.at.chat, %error, "a question was not put");
            None
        }
    };
    if let Some(copy) = &copy {
        let prompt = Prompt {
            at: copy.place.at.clone(),
            message_id: copy.message_id.clone(),
            approval_id: id.clone(),
            sent_ms: now_ms(),
        };
        if let Err(error) = gateway.store.commit([PromptChange::Sent(prompt)]).await {
            tracing::warn!(%error, "a question is not remembered beyond a restart");
        }
    }
    // What was decided while the message was on its way is written on it at once.
    let late = {
        let mut inner = gateway.exec_monitor.lock();
        let Some(question) = inner.questions.get_mut(&id) else { return };
        question.sending = question.sending.saturating_sub(1);
        let late = question.ended.clone().map(|outcome| (outcome, question.approval.request.command.clone()));
        match (&late, &copy) {
            (None, Some(copy)) => question.copies.push(copy.clone()),
            (Some(_), _) if question.sending == 0 => drop(inner.questions.remove(&id)),
            _ => {}
        }
        late
    };
    if let (Some((outcome, command)), Some(copy)) = (late, copy) {
        settle(&gateway, &copy, Some(&command), &outcome).await;
    }
}

/// The id of the message, of its last piece when there are several.
async fn send(gateway: &Gateway, id: &str, place: &Place, message: &Outbound) -> Result<String, SendError> {
    let not_sent = |why: &str| SendError::NotSent { why: why.to_owned(), retry_after: None };
    let mut tries = 0;
    loop {
        tries += 1;
        let handle = gateway.channels.handle(&place.at.channel, &place.at.account);
        let outcome = match handle {
            Some(handle) => handle.send(&place.at, message).await,
            None => return Err(not_sent("the account does not run")),
        };
        match outcome {
            Ok(ids) => return ids.last().cloned().ok_or_else(|| not_sent("the channel named no message")),
            Err(partly) => match partly.error {
                // Some of it was seen: a repetition would be confusing, and without its buttons it decides nothing.
                SendError::NotSent { retry_after: Some(after), .. } if partly.sent.is_empty() && tries < ATTEMPTS => {
                    let stays = || gateway.exec_monitor.lock().questions.get(id).is_some_and(|q| q.ended.is_none());
                    tokio::select! {
                        () = gateway.cancel.cancelled() => return Err(not_sent("the gateway stops")),
                        () = tokio::time::sleep(after.max(PAUSE)) => {}
                    }
                    if !stays() {
                        return Err(not_sent("it was decided before it could be sent"));
                    }
                }
                error => return Err(error),
            },
        }
    }
}

/// Ends a question: its buttons decide nothing any more, and every copy says what became of it.
fn finish(gateway: &Arc<Gateway>, id: &str, outcome: Outcome) {
    let (copies, command) = {
        let mut inner = gateway.exec_monitor.lock();
        let Some(question) = inner.questions.get_mut(id).filter(|question| question.ended.is_none()) else { return };
        question.ended = Some(outcome.clone());
        let found = (std::mem::take(&mut question.copies), question.approval.request.command.clone());
        let (token, sending) = (question.token.clone(), question.sending);
        inner.tokens.remove(&token);
        if sending == 0 {
            inner.questions.remove(id);
        }
        found
    };
    for copy in copies {
        let (gateway, command, outcome) = (Arc::clone(gateway), command.clone(), outcome.clone());
        gateway.clone().tracker.spawn(async move { settle(&gateway, &copy, Some(&command), &outcome).await });
    }
}

/// Writes the outcome on a message, or takes the message away.
async fn settle(gateway: &Gateway, copy: &Copy, command: Option<&str>, outcome: &Outcome) {
    let Copy { place: Place { at, direct }, message_id } = copy;
    let cleanup = *direct && {
        let runtime = gateway.runtime.load();
        matches!(rules::read(&runtime.config, &at.channel, &at.account), Setting::On(rules) if rules.cleanup)
    };
    for attempt in 1..=ATTEMPTS {
        let Some(handle) = gateway.channels.handle(&at.channel, &at.account) else { break };
        let done = match cleanup {
            true => handle.delete(at, message_id).await,
            false => handle.edit(at, message_id, &prompt::answered(command, outcome)).await,
        };
        match done {
            Ok(()) => break,
            Err(SendError::NotSent { why, retry_after: None }) => {
                tracing::debug!(why, "the outcome could not be written on a question");
                break;
            }
            Err(error) if attempt == ATTEMPTS => {
                tracing::warn!(%error, "the outcome could not be written on a question");
            }
            Err(SendError::NotSent { retry_after, .. }) => tokio::time::sleep(retry_after.unwrap_or(PAUSE)).await,
            Err(SendError::Unknown { .. }) => tokio::time::sleep(PAUSE).await,
        }
    }
    let done = PromptChange::Done { at: at.clone(), message_id: message_id.clone() };
    if let Err(error) = gateway.store.commit([done]).await {
        tracing::debug!(%error, "an answered question stays remembered");
    }
}

/// Marks the questions of an earlier start, as soon as their accounts run.
async fn expire(gateway: Arc<Gateway>, old: Vec<Prompt>) {
    let end = tokio::time::Instant::now() + ACCOUNT_PATIENCE;
    for prompt in old {
        let at = prompt.at;
        let runs = tokio::select! {
            () = gateway.cancel.cancelled() => return,
            waited = tokio::time::timeout_at(end, gateway.channels.present(&at.channel, &at.account)) => waited.is_ok(),
        };
        if runs || now_ms() - prompt.sent_ms > MAX_AGE_MS {
            let direct = at.chat.starts_with("user:") || (at.channel == "telegram" && !at.chat.starts_with('-'));
            let copy = Copy { place: Place { at, direct }, message_id: prompt.message_id };
            settle(&gateway, &copy, None, &Outcome::Restarted).await;
        }
    }
}
