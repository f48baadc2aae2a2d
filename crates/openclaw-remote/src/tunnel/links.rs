//! The ssh children of a supervisor: the [`Machine`] decides, this does it and tells what came of it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use openclaw_protocol::GatewayId;
use serde_json::Value;
use tokio::{
    sync::{Mutex, mpsc, watch},
    task::AbortHandle,
    time::{Instant, timeout},
};

use super::{
    Failure, ForwardStatus, State, Status,
    listen::{PROOF_PATIENCE, Target},
    log::{Log, now_ms},
    machine::{Action, DEAD, Input, LinkId, Machine, Trouble},
    supervisor::Settings,
};
use crate::{
    client::Client,
    deadline::Deadline,
    error::Error,
    ssh::{Forward, Interaction, Learned, Program, Pulse, SshFailure},
};

/// How long one login may take; ssh's own limits are below it.
const OPEN_PATIENCE: Duration = Duration::from_secs(20);
/// An account that gave no session is asked for one again after this time: it may have been slow, or full, once.
const LEARN_AGAIN: Duration = Duration::from_secs(600);
/// How long ended ssh are waited for at the end.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// What the tasks of a supervisor tell it.
#[derive(Debug)]
pub(super) enum Message {
    Input(Input),
    /// A login ended well or badly.
    Login(LinkId, Result<Box<Forward>, SshFailure>),
}

/// An ssh that is up.
#[derive(Debug)]
struct OpenLink {
    forward: Arc<Forward>,
    watcher: AbortHandle,
    since_ms: u64,
    proved: Arc<Mutex<Instant>>,
}

/// What the rest of the supervisor shares with the links.
pub(super) struct Shared {
    pub messages: mpsc::Sender<Message>,
    pub target: watch::Sender<Option<Target>>,
    pub gateway: watch::Sender<Option<GatewayId>>,
    /// Connections being carried.
    pub count: Arc<AtomicU32>,
    pub status: watch::Sender<Status>,
}

/// The ssh children and the machine that decides about them.
pub(super) struct Links {
    machine: Machine,
    /// How ssh has to be called, and since when that is known.
    learned: (Learned, Instant),
    opening: HashMap<LinkId, (AbortHandle, u64)>,
    open: HashMap<LinkId, OpenLink>,
    /// Out of use and still carrying something.
    retired: Vec<Weak<Forward>>,
    log: Log,
    program: Program,
    settings: Settings,
    shared: Shared,
}

impl Links {
    pub fn new(settings: Settings, program: Program, log: Log, shared: Shared) -> Self {
        let now = Instant::now();
        Self {
            machine: Machine::new(now, settings.spare, now_ms() ^ u64::from(std::process::id())),
            learned: (Learned::default(), now),
            opening: HashMap::new(),
            open: HashMap::new(),
            retired: Vec::new(),
            log,
            program,
            settings,
            shared,
        }
    }

    /// When [`Input::Tick`] is wanted, at the latest.
    pub fn wake(&self) -> Option<Instant> {
        self.machine.wake(Instant::now())
    }

    pub fn status(&self) -> Status {
        self.shared.status.borrow().clone()
    }

    /// Writes to the tunnel's log.
    pub fn note(&mut self, event: &str, fields: impl IntoIterator<Item = (&'static str, Value)>) {
        self.log.write(event, fields);
    }

    /// Acts on one message.
    pub fn take(&mut self, message: Message) {
        let now = Instant::now();
        let input = match message {
            Message::Input(input) => input,
            Message::Login(id, Ok(forward)) => self.logged_in(id, *forward),
            Message::Login(id, Err(failure)) => {
                self.opening.remove(&id);
                Input::Ended { id, trouble: ssh_trouble(&failure) }
            }
        };
        self.note_trouble(&input);
        if let Input::Ended { id, .. } = &input {
            self.open.remove(id);
        }
        if let Input::Answered { id, answer: Ok(proved) } = &input {
            // Sending would wait for a borrow that is still alive.
            let unknown = self.shared.gateway.borrow().is_none();
            if let (true, Some(proved)) = (unknown, proved) {
                // Whoever proved itself first is who this tunnel leads to, as long as it lives.
                self.shared.gateway.send_replace(Some(proved.clone()));
            }
            let asked = self.open.get(id).map(|link| Arc::clone(&link.proved));
            if let Some(Ok(mut proved)) = asked.as_ref().map(|proved| proved.try_lock()) {
                *proved = now;
            }
        }
        for action in self.machine.on(now, input) {
            self.perform(action);
        }
    }

    fn logged_in(&mut self, id: LinkId, forward: Forward) -> Input {
        self.opening.remove(&id);
        let learned = forward.learned();
        if learned != self.learned.0 {
            self.learned = (learned, Instant::now());
        }
        let heartbeat = !learned.no_session;
        let forward = Arc::new(forward);
        let watcher = tokio::spawn(watch_forward(id, forward.pulse(), self.shared.messages.clone())).abort_handle();
        let link = OpenLink { forward, watcher, since_ms: now_ms(), proved: Arc::new(Mutex::new(Instant::now())) };
        self.log
            .write("login", [("link", id.into()), ("ssh", link.forward.pid().into()), ("session", heartbeat.into())]);
        self.open.insert(id, link);
        Input::Opened { id, heartbeat }
    }

    /// Writes what an owner would want to read next morning.
    fn note_trouble(&mut self, input: &Input) {
        let (event, id, trouble) = match input {
            Input::Ended { id, trouble } => ("ended", id, trouble),
            Input::Refused { id, trouble } => ("refused", id, trouble),
            Input::Answered { id, answer: Err(trouble) } => ("gateway", id, trouble),
            _ => return,
        };
        let Failure { code, message, .. } = &trouble.failure;
        let fields = [("link", (*id).into()), ("code", code.clone().into()), ("message", message.clone().into())];
        self.log.write(event, fields);
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Open(id) => self.start(id),
            Action::Ask(id) => {
                if let Some(link) = self.open.get(&id) {
                    let (forward, messages) = (Arc::clone(&link.forward), self.shared.messages.clone());
                    let expected = self.shared.gateway.borrow().clone();
                    tokio::spawn(async move {
                        let answer = ask(&forward, expected.as_ref()).await;
                        let _ = messages.send(Message::Input(Input::Answered { id, answer })).await;
                    });
                }
            }
            Action::Beat(id) => {
                if let Some(link) = self.open.get(&id) {
                    link.forward.beat();
                }
            }
            Action::Close(id) => {
                self.abort(id);
                if let Some(link) = self.open.remove(&id) {
                    link.watcher.abort();
                    link.forward.end();
                    self.log.write("closed", [("link", id.into())]);
                }
            }
            Action::Retire(id) => {
                self.abort(id);
                if let Some(link) = self.open.remove(&id) {
                    link.watcher.abort();
                    // Its connections hold it; without any it ends here.
                    self.retired.retain(|forward| forward.strong_count() > 0);
                    self.retired.push(Arc::downgrade(&link.forward));
                    tokio::spawn(end_when_dead(link.forward.pulse(), Arc::downgrade(&link.forward)));
                    self.log.write("retired", [("link", id.into())]);
                }
            }
        }
    }

    fn start(&mut self, id: LinkId) {
        let (program, settings) = (self.program.clone(), self.settings.clone());
        let (mut learned, since) = self.learned;
        learned.no_session &= since.elapsed() < LEARN_AGAIN;
        let messages = self.shared.messages.clone();
        let task = tokio::spawn(async move {
            let (dir, deadline) = (settings.dir.sockets(), Deadline::after(OPEN_PATIENCE));
            let forward = program.open(&settings.spec, dir, Interaction::Batch, learned, deadline).await;
            let _ = messages.send(Message::Login(id, forward.map(Box::new))).await;
        });
        self.opening.insert(id, (task.abort_handle(), now_ms()));
    }

    fn abort(&mut self, id: LinkId) {
        if let Some((task, _)) = self.opening.remove(&id) {
            // Its ssh ends with it.
            task.abort();
        }
    }

    /// Tells the listeners and whoever watches.
    pub fn publish(&mut self) {
        let now = Instant::now();
        let current = self.machine.current(now);
        let link = current.and_then(|id| Some((id, self.open.get(&id)?)));
        let target =
            link.map(|(id, link)| Target { id, forward: Arc::clone(&link.forward), proved: Arc::clone(&link.proved) });
        self.shared.target.send_if_modified(|known| {
            let changed = known.as_ref().map(|known| known.id) != target.as_ref().map(|target| target.id);
            if changed {
                *known = target;
            }
            changed
        });
        let (before, status) = (self.shared.status.borrow().clone(), self.status_at(now));
        if before == status {
            return;
        }
        if (before.state, before.replaced) != (status.state, status.replaced) {
            let event = if before.state == status.state { "replaced" } else { status.state.as_str() };
            self.log.write(
                event,
                [
                    ("link", current.into()),
                    ("rttMs", status.rtt_ms.into()),
                    ("gateway", status.gateway_id.as_ref().map(|id| id.short().to_owned()).into()),
                ],
            );
        }
        self.shared.status.send_replace(status);
    }

    fn status_at(&self, now: Instant) -> Status {
        let before = self.shared.status.borrow();
        let state = self.machine.state(now);
        let rtt = |id: &LinkId| self.open.get(id).and_then(|link| link.forward.round_trip()).map(as_ms);
        let forwards = self.machine.roles(now).map(|(id, role)| {
            let link = self.open.get(&id);
            let opening = self.opening.get(&id).map_or(0, |(_, since_ms)| *since_ms);
            ForwardStatus {
                pid: link.and_then(|link| link.forward.pid()),
                role,
                rtt_ms: rtt(&id),
                session: !link.map_or(self.learned.0, |link| link.forward.learned()).no_session,
                since_ms: link.map_or(opening, |link| link.since_ms),
            }
        });
        let due = self.machine.next_attempt(now);
        Status {
            state,
            since_ms: if before.state == state { before.since_ms } else { now_ms() },
            gateway_id: self.shared.gateway.borrow().clone(),
            rtt_ms: self.machine.current(now).as_ref().and_then(rtt),
            attempts: self.machine.attempts,
            // The same instant must not look like a change each time it is told.
            next_try_ms: due.map(|due| {
                let told = now_ms() + u64::try_from(due.duration_since(now).as_millis()).unwrap_or(0);
                before.next_try_ms.filter(|known| known.abs_diff(told) < 20).unwrap_or(told)
            }),
            replaced: self.machine.replaced,
            connections: self.shared.count.load(Ordering::Relaxed),
            last_failure: self.machine.last_failure.clone(),
            forwards: forwards.collect(),
            ..before.clone()
        }
    }

    /// Ends every ssh and waits for that.
    pub async fn end(mut self) {
        self.shared.target.send_replace(None);
        for (task, _) in self.opening.values() {
            task.abort();
        }
        let retired = self.retired.iter().filter_map(Weak::upgrade);
        let forwards: Vec<_> = self.open.drain().map(|(_, link)| link.forward).chain(retired).collect();
        forwards.iter().for_each(|forward| forward.end());
        let ended = async {
            for forward in &forwards {
                forward.ended().await;
            }
        };
        let _ = timeout(END_PATIENCE, ended).await;
        self.log.write("stop", []);
        self.shared.status.send_modify(|status| {
            (status.state, status.since_ms) = (State::Stopped, now_ms());
            status.forwards.clear();
            (status.rtt_ms, status.next_try_ms, status.connections) = (None, None, 0);
        });
    }
}

/// Who is at the far end.
async fn ask(forward: &Forward, expected: Option<&GatewayId>) -> Result<Option<GatewayId>, Trouble> {
    match Client::identify(&forward.endpoint(), Deadline::after(PROOF_PATIENCE), expected).await {
        Ok(gateway) => Ok(gateway),
        Err(error) => Err(trouble(&forward.explain(error).await)),
    }
}

/// Passes on what happens to one ssh.
async fn watch_forward(id: LinkId, mut pulse: watch::Receiver<Pulse>, messages: mpsc::Sender<Message>) {
    let (mut echo, mut refusals) = (None, 0);
    loop {
        let seen = pulse.borrow_and_update().clone();
        let mut inputs = Vec::new();
        if seen.last_echo != echo
            && let Some(round_trip) = seen.round_trip
        {
            echo = seen.last_echo;
            inputs.push(Input::Echo { id, round_trip });
        }
        if seen.refusals != refusals
            && let Some(refusal) = &seen.refusal
        {
            refusals = seen.refusals;
            inputs.push(Input::Refused { id, trouble: ssh_trouble(refusal) });
        }
        let ended = seen.ended.is_some();
        inputs.extend(seen.ended.map(|failure| Input::Ended { id, trouble: ssh_trouble(&failure) }));
        for input in inputs {
            if messages.send(Message::Input(input)).await.is_err() {
                return;
            }
        }
        if ended || pulse.changed().await.is_err() {
            return;
        }
    }
}

/// Ends an ssh that is out of use and carries connections over a dead link.
async fn end_when_dead(mut pulse: watch::Receiver<Pulse>, forward: Weak<Forward>) {
    while forward.strong_count() > 0 {
        let (last_echo, ended) = {
            let pulse = pulse.borrow_and_update();
            (pulse.last_echo, pulse.ended.is_some())
        };
        // Without a heartbeat ssh's own keepalive ends it.
        let Some(last_echo) = last_echo.filter(|_| !ended) else { return };
        if last_echo.elapsed() >= DEAD {
            if let Some(forward) = forward.upgrade() {
                forward.end();
            }
            return;
        }
        if let Ok(Err(_)) = timeout(DEAD, pulse.changed()).await {
            return;
        }
    }
}

pub(super) fn trouble(error: &Error) -> Trouble {
    let fatal = match error {
        Error::Ssh(failure) => failure.is_fatal(),
        Error::WrongGateway { .. } => true,
        _ => false,
    };
    Trouble { failure: Failure::of(error, now_ms()), fatal }
}

fn ssh_trouble(failure: &SshFailure) -> Trouble {
    Trouble { failure: Failure::of_ssh(failure, now_ms()), fatal: failure.is_fatal() }
}

fn as_ms(time: Duration) -> f64 {
    // Whole microseconds: more digits are noise.
    (time.as_secs_f64() * 1e6).round() / 1e3
}
