//! The accounts that run, and how they are. A task follows the config: what is new is started, what is gone is stopped, what
//! changed is started anew, and what is broken says why.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use openclaw_channels::{
    channel::{Handle, Inbox, Status},
    message::Address,
    section::Section,
};
use openclaw_config::secret_ref::SecretContext;
use openclaw_protocol::method::channels::StatusIssue;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    context::Recent,
    inbox::GatewayInbox,
    kinds::{self, Settings},
};
use crate::{clock::now_ms, gateway::Gateway, health};

/// How long an account may take to end before it is left behind.
const STOP: Duration = Duration::from_secs(10);

/// See the module documentation.
#[derive(Default)]
pub struct Channels {
    accounts: Mutex<BTreeMap<Name, Slot>>,
    /// One change of the set of running accounts at a time.
    changing: tokio::sync::Mutex<()>,
    /// Requests of strangers are counted and kept in one step.
    pairing: tokio::sync::Mutex<()>,
    /// Sends by hand under way, by idempotency key.
    sends: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    pub recent: Recent,
    /// Senders that were let in; the store decides, this only saves questions.
    known: Mutex<HashSet<(String, String, String)>>,
    presses: Mutex<Vec<Arc<dyn super::inbox::Presses>>>,
    /// Requests of strangers whose code is being told.
    telling: Mutex<HashSet<String>>,
    /// Counts the accounts that were started.
    starts: tokio::sync::watch::Sender<u64>,
}

/// Channel and account.
type Name = (String, String);

/// An account.
#[derive(Default)]
struct Slot {
    settings: Option<Settings>,
    handle: Option<Handle>,
    cancel: CancellationToken,
    tracker: TaskTracker,
    /// Stopped by hand; stays so until it is started by hand or the gateway restarts.
    held: bool,
    view: View,
}

/// How an account is.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub enabled: bool,
    pub configured: bool,
    pub state: Health,
    /// As the service knows it.
    pub name: Option<String>,
    pub mode: Option<&'static str>,
    pub token_source: Option<&'static str>,
    /// What is wrong.
    pub error: Option<String>,
    pub retries: u64,
    /// Milliseconds since 1970, as all below.
    pub connected_ms: Option<i64>,
    pub started_ms: Option<i64>,
    pub stopped_ms: Option<i64>,
    pub inbound_ms: Option<i64>,
    pub outbound_ms: Option<i64>,
    /// Messages that have no agent to answer them, and why.
    pub unrouted: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    #[default]
    Stopped,
    Disabled,
    Starting,
    Healthy,
    Retrying,
    Failed,
}

impl Health {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Disabled => "disabled",
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Retrying => "retrying",
            Self::Failed => "failed",
        }
    }
}

/// What became of a start by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartOutcome {
    HandedOff,
    /// It runs already.
    Running,
    Skipped(&'static str),
}

impl Channels {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Slot>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The way to an account's service.
    pub fn handle(&self, channel: &str, account: &str) -> Option<Handle> {
        self.lock().get(&(channel.to_owned(), account.to_owned()))?.handle.clone()
    }

    /// Waits until the account runs, for ever if it never does.
    pub async fn present(&self, channel: &str, account: &str) {
        let mut starts = self.starts.subscribe();
        while self.handle(channel, account).is_none() {
            if starts.changed().await.is_err() {
                return;
            }
        }
    }

    /// All accounts, by channel and name.
    pub fn views(&self) -> Vec<(String, String, View)> {
        let accounts = self.lock();
        accounts
            .iter()
            .map(|((channel, account), slot)| (channel.clone(), account.clone(), slot.view.clone()))
            .collect()
    }

    /// Changes how an account is seen, if there is one.
    pub fn note(&self, channel: &str, account: &str, change: impl FnOnce(&mut View)) {
        if let Some(slot) = self.lock().get_mut(&(channel.to_owned(), account.to_owned())) {
            change(&mut slot.view);
        }
    }

    /// Held while a stranger's request is decided and saved.
    pub async fn pairing_turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.pairing.lock().await
    }

    /// True when nobody tells the code of this request at the moment; whoever was told so has to say when it is over.
    pub(super) fn begin_telling(&self, request: &str) -> bool {
        self.telling.lock().unwrap_or_else(PoisonError::into_inner).insert(request.to_owned())
    }

    pub(super) fn end_telling(&self, request: &str) {
        self.telling.lock().unwrap_or_else(PoisonError::into_inner).remove(request);
    }

    /// The lock of one idempotency key.
    pub fn send_turn(&self, key: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut sends = self.sends.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody holds are forgotten.
        sends.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(sends.entry(key.to_owned()).or_default())
    }

    /// Adds somebody who understands certain buttons; at start.
    pub fn add_presses(&self, presses: Arc<dyn super::inbox::Presses>) {
        self.presses.lock().unwrap_or_else(PoisonError::into_inner).push(presses);
    }

    pub(super) fn presses(&self) -> Vec<Arc<dyn super::inbox::Presses>> {
        self.presses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// True when a sender was let in.
    pub(super) fn is_known(&self, from: &Address, sender: &str) -> bool {
        let key = (from.channel.clone(), from.account.clone(), sender.to_owned());
        self.known.lock().unwrap_or_else(PoisonError::into_inner).contains(&key)
    }

    pub(crate) fn remember(&self, from: &Address, sender: &str) {
        let key = (from.channel.clone(), from.account.clone(), sender.to_owned());
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
    }

    /// A channel told how an account is.
    pub(super) fn status(&self, gateway: &Arc<Gateway>, channel: &str, account: &str, status: Status) {
        let mut connected = false;
        self.note(channel, account, |view| match status {
            Status::Starting => {
                view.state = Health::Starting;
                view.started_ms = Some(now_ms());
            }
            Status::Running { name } => {
                connected = true;
                (view.state, view.name, view.error, view.retries) = (Health::Healthy, Some(name), None, 0);
                view.connected_ms = Some(now_ms());
            }
            Status::Retrying { why, .. } => {
                (view.state, view.error) = (Health::Retrying, Some(why));
                view.retries += 1;
            }
            Status::Failed { why } => (view.state, view.error) = (Health::Failed, Some(why)),
            // Why it stopped is known to whoever stopped it.
            Status::Stopped => view.stopped_ms = Some(now_ms()),
        });
        if connected {
            gateway.tracker.spawn(tell_untold(Arc::clone(gateway), channel.to_owned(), account.to_owned()));
        }
        health::refresh(gateway);
    }

    /// What a person should look at.
    pub fn issues(&self) -> Vec<StatusIssue> {
        let mut issues = Vec::new();
        for (channel, account, view) in self.views() {
            let mut add = |kind: &str, message: String, fix: Option<String>| {
                issues.push(StatusIssue {
                    channel: channel.clone(),
                    account_id: account.clone(),
                    kind: kind.to_owned(),
                    message,
                    fix,
                });
            };
            if let Some(error) = &view.error
                && view.enabled
            {
                let (kind, fix) = match view.state {
                    Health::Failed => ("auth", format!("openclaw channels add {channel} --account {account}")),
                    _ => ("runtime", format!("openclaw channels status --probe --channel {channel}")),
                };
                add(kind, error.clone(), Some(fix));
            }
            if let Some(why) = &view.unrouted {
                add("config", why.clone(), Some("openclaw config set bindings '[…]' --merge".to_owned()));
            }
        }
        issues
    }
}

/// Follows the config until the gateway ends.
pub async fn run(gateway: Arc<Gateway>) {
    let mut reloads = gateway.reloads.subscribe();
    match gateway.store.channel_allowed().await {
        Ok(all) => gateway.channels.known.lock().unwrap_or_else(PoisonError::into_inner).extend(all),
        Err(error) => tracing::warn!("who was let in could not be read: {error}"),
    }
    loop {
        reconcile(&gateway).await;
        tokio::select! {
            () = gateway.cancel.cancelled() => break,
            changed = reloads.changed() => if changed.is_err() { break },
        }
    }
    let _turn = gateway.channels.changing.lock().await;
    let names: Vec<Name> = gateway.channels.lock().keys().cloned().collect();
    futures_util::future::join_all(names.iter().map(|name| stop(&gateway, name))).await;
}

/// Makes what runs what the config says.
pub async fn reconcile(gateway: &Arc<Gateway>) {
    let _turn = gateway.channels.changing.lock().await;
    let worker = Arc::clone(gateway);
    // Secret references may run programs; that must not hold up anybody.
    let read = tokio::task::spawn_blocking(move || read(&worker)).await;
    let Ok(wanted) = read else { return tracing::error!("the channels' settings could not be read") };
    let known: Vec<Name> = gateway.channels.lock().keys().cloned().collect();
    for name in known.iter().filter(|name| !wanted.iter().any(|(wanted, ..)| wanted == *name)) {
        stop(gateway, name).await;
        gateway.channels.lock().remove(name);
    }
    let mut tokens: Vec<(String, openclaw_protocol::Secret)> = Vec::new();
    for (name, view, settings) in wanted {
        let settings = settings.and_then(|settings| {
            let twin = tokens.iter().find(|(_, token)| token == settings.token()).map(|(twin, _)| twin.clone());
            match twin {
                Some(twin) => Err(format!("it has the same bot as the account {twin}; only one of them can run")),
                None => {
                    tokens.push((format!("{}/{}", name.0, name.1), settings.token().clone()));
                    Ok(settings)
                }
            }
        });
        apply(gateway, name, view, settings).await;
    }
    health::refresh(gateway);
}

type Wanted = (Name, View, Result<Settings, String>);

/// Reads all accounts of the config in force. Blocks.
fn read(gateway: &Gateway) -> Vec<Wanted> {
    let runtime = gateway.runtime.load_full();
    let document = &runtime.config;
    let context = SecretContext { env: &gateway.env, doc: document, paths: &gateway.paths };
    let mut wanted = Vec::new();
    for (channel, _) in kinds::ALL {
        for account in Section::accounts(document, channel) {
            let enabled = Section::new(document, channel, &account).enabled();
            let configured = kinds::configured(document, channel, &account, |name| {
                gateway.env.get(name).is_some_and(|v| !v.is_empty())
            });
            let settings = match (enabled, configured) {
                // Credentials of what is switched off are not touched.
                (false, _) => Err(String::new()),
                (true, _) => Settings::read(&context, channel, &account),
            };
            let view = View { enabled, configured, ..View::default() };
            wanted.push((((*channel).to_owned(), account), view, settings));
        }
    }
    wanted
}

async fn apply(gateway: &Arc<Gateway>, name: Name, view: View, settings: Result<Settings, String>) {
    let (held, same) = {
        let mut accounts = gateway.channels.lock();
        let slot = accounts.entry(name.clone()).or_default();
        (slot.view.enabled, slot.view.configured) = (view.enabled, view.configured);
        let same = slot.handle.is_some() && slot.settings.as_ref() == settings.as_ref().ok();
        (slot.held, same)
    };
    // One that failed for good is given another chance by a reload.
    let failed = gateway.channels.lock().get(&name).is_some_and(|slot| slot.view.state == Health::Failed);
    if same && !held && !failed {
        return;
    }
    stop(gateway, &name).await;
    let settings = match settings {
        Ok(settings) if !held => settings,
        Ok(settings) => {
            let mut accounts = gateway.channels.lock();
            if let Some(slot) = accounts.get_mut(&name) {
                slot.settings = Some(settings);
            }
            return;
        }
        Err(why) => {
            gateway.channels.note(&name.0, &name.1, |view| {
                view.state = if view.enabled { Health::Failed } else { Health::Disabled };
                view.error = view.enabled.then_some(why.clone());
            });
            if view.enabled {
                tracing::warn!(channel = %name.0, account = %name.1, "not started: {why}");
            }
            return;
        }
    };
    start(gateway, &name, settings);
}

fn start(gateway: &Arc<Gateway>, name: &Name, settings: Settings) {
    let inbox: Arc<dyn Inbox> = Arc::new(GatewayInbox::new(gateway));
    let (cancel, tracker) = (gateway.cancel.child_token(), TaskTracker::new());
    let started = settings.clone().start(inbox, cancel.clone(), &tracker);
    tracker.close();
    // The gateway waits for it as for every task.
    let waiting = tracker.clone();
    gateway.tracker.spawn(async move { waiting.wait().await });
    let mut accounts = gateway.channels.lock();
    let Some(slot) = accounts.get_mut(name) else { return cancel.cancel() };
    (slot.cancel, slot.tracker) = (cancel, tracker);
    (slot.view.mode, slot.view.token_source) = (Some(settings.mode()), Some(settings.token_source()));
    slot.settings = Some(settings);
    match started {
        Ok(handle) => {
            slot.handle = Some(handle);
            gateway.channels.starts.send_modify(|starts| *starts += 1);
        }
        Err(why) => {
            tracing::warn!(channel = %name.0, account = %name.1, "not started: {why}");
            (slot.view.state, slot.view.error) = (Health::Failed, Some(why));
        }
    }
}

/// Ends an account and waits for it, so that a new one does not meet the old one at the service.
async fn stop(gateway: &Gateway, name: &Name) {
    let (cancel, tracker) = {
        let mut accounts = gateway.channels.lock();
        let Some(slot) = accounts.get_mut(name) else { return };
        slot.handle = None;
        (slot.cancel.clone(), slot.tracker.clone())
    };
    cancel.cancel();
    tracker.close();
    if tokio::time::timeout(STOP, tracker.wait()).await.is_err() {
        tracing::warn!(channel = %name.0, account = %name.1, "did not end in time");
    }
    gateway.channels.note(&name.0, &name.1, |view| {
        (view.state, view.error, view.retries) = (Health::Stopped, None, 0);
    });
}

/// Stops an account by hand. False when there is none.
pub async fn stop_by_hand(gateway: &Arc<Gateway>, channel: &str, account: &str) -> bool {
    let name = (channel.to_owned(), account.to_owned());
    let _turn = gateway.channels.changing.lock().await;
    {
        let mut accounts = gateway.channels.lock();
        let Some(slot) = accounts.get_mut(&name) else { return false };
        slot.held = true;
    }
    stop(gateway, &name).await;
    health::refresh(gateway);
    true
}

/// Starts an account by hand. `None` when there is none.
pub async fn start_by_hand(gateway: &Arc<Gateway>, channel: &str, account: &str) -> Option<StartOutcome> {
    let name = (channel.to_owned(), account.to_owned());
    {
        let mut accounts = gateway.channels.lock();
        let slot = accounts.get_mut(&name)?;
        slot.held = false;
        if slot.handle.is_some() && slot.view.state != Health::Failed {
            return Some(StartOutcome::Running);
        }
    }
    reconcile(gateway).await;
    let accounts = gateway.channels.lock();
    let slot = accounts.get(&name)?;
    Some(match (&slot.handle, slot.view.enabled, slot.view.configured) {
        (Some(_), ..) => StartOutcome::HandedOff,
        (None, false, _) => StartOutcome::Skipped("disabled"),
        (None, true, false) => StartOutcome::Skipped("unconfigured"),
        (None, true, true) => StartOutcome::Skipped("secret-unavailable"),
    })
}

/// Codes that were kept and not told, for instance since the gateway was killed in between.
async fn tell_untold(gateway: Arc<Gateway>, channel: String, account: String) {
    let Ok(all) = gateway.store.channel_pending(now_ms()).await else { return };
    for pending in all {
        if !pending.told && pending.channel == channel && pending.account == account {
            super::pairing::tell(&gateway, pending).await;
        }
    }
}
