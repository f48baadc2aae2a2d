//! Messages in. What this module says `Ok` to is on disk: the channel may confirm it to its service.

use std::sync::{Arc, Weak};

use futures_util::future::BoxFuture;
use openclaw_channels::{
    channel::{Inbox, NotKept, Press, PressAnswer, Status},
    message::{Address, ChatKind, Inbound, Outbound},
};
use openclaw_config::document::Document;
use openclaw_protocol::{ErrorCode, ErrorShape, ScopeSet};

use super::{
    access::{self, Group},
    ack, context, mention, moved, pairing,
    policy::{self, Facts, Verdict},
    route,
};
use crate::{
    clock::now_ms,
    gateway::Gateway,
    runs::{Authority, Input, Origin, RunId, RunRequest, Runs, WhenBusy, command},
    store::{Change, StoreError, channels::ChannelChange},
};

/// Messages that waited longer at the service are answered together, not one by one, milliseconds.
const BACKLOG_MS: i64 = 120_000;

/// Somebody who understands certain buttons.
pub trait Presses: Send + Sync {
    /// Answers a press, or gives it back when it is of another kind.
    fn press<'a>(&'a self, gateway: &'a Arc<Gateway>, press: &'a Press) -> BoxFuture<'a, Option<PressAnswer>>;
}

/// See the module documentation.
pub struct GatewayInbox {
    gateway: Weak<Gateway>,
}

impl GatewayInbox {
    pub fn new(gateway: &Arc<Gateway>) -> Self {
        Self { gateway: Arc::downgrade(gateway) }
    }

    fn gateway(&self) -> Result<Arc<Gateway>, NotKept> {
        let stopping = || NotKept("the gateway is stopping".to_owned());
        self.gateway.upgrade().filter(|gateway| !gateway.draining.is_cancelled()).ok_or_else(stopping)
    }
}

fn unsaved(error: &StoreError) -> NotKept {
    NotKept(error.to_string())
}

impl Inbox for GatewayInbox {
    fn message(&self, message: Inbound) -> BoxFuture<'_, Result<(), NotKept>> {
        Box::pin(async move {
            let gateway = self.gateway()?;
            let worker = Arc::clone(&gateway);
            // Whole, also when the channel is stopped half-way.
            let work = async move { take(&worker, message).await.map_err(|error| ErrorShape::unavailable(error.0)) };
            gateway.whole(work).await.map_err(|error| NotKept(error.message))
        })
    }

    fn press(&self, press: Press) -> BoxFuture<'_, Result<PressAnswer, NotKept>> {
        Box::pin(async move {
            let gateway = self.gateway()?;
            let worker = Arc::clone(&gateway);
            let work = async move { pressed(&worker, press).await.map_err(|error| ErrorShape::unavailable(error.0)) };
            gateway.whole(work).await.map_err(|error| NotKept(error.message))
        })
    }

    fn offset(&self, channel: &str, account: &str) -> BoxFuture<'_, Result<Option<i64>, NotKept>> {
        let (channel, account) = (channel.to_owned(), account.to_owned());
        Box::pin(async move {
            let gateway = self.gateway()?;
            gateway.store.channel_offset(&channel, &account).await.map_err(|error| unsaved(&error))
        })
    }

    fn polled(&self, channel: &str, account: &str, offset: i64) -> BoxFuture<'_, Result<(), NotKept>> {
        let (channel, counter) = (channel.to_owned(), account.to_owned());
        Box::pin(async move {
            let gateway = self.gateway()?;
            let change = ChannelChange::Polled { channel, counter, position: offset };
            gateway.store.commit([change]).await.map_err(|error| unsaved(&error))
        })
    }

    fn wants_media(&self, message: &Inbound) -> bool {
        let Ok(gateway) = self.gateway() else { return false };
        let document = Arc::clone(&gateway.runtime.load().config);
        let group = (message.kind != ChatKind::Direct).then(|| Group::read(&document, message));
        let routed = route::route(&document, message, group.as_ref());
        let facts = Facts {
            paired: gateway.channels.is_known(&message.from, &message.sender.id),
            addressed: is_addressed(&document, message, routed.ok().as_ref()),
        };
        matches!(policy::judge(&document, message, facts), Verdict::Admit)
    }

    fn moved(&self, channel: &str, account: &str, from: &str, to: &str) -> BoxFuture<'_, Result<(), NotKept>> {
        let [channel, account, from, to] = [channel, account, from, to].map(str::to_owned);
        Box::pin(async move {
            let gateway = self.gateway()?;
            let worker = Arc::clone(&gateway);
            let work = async move {
                moved::moved(&worker, &channel, &account, &from, &to).await;
                Ok::<(), ErrorShape>(())
            };
            gateway.whole(work).await.map_err(|error| NotKept(error.message))
        })
    }

    fn status(&self, channel: &str, account: &str, status: Status) {
        if let Some(gateway) = self.gateway.upgrade() {
            gateway.channels.status(&gateway, channel, account, status);
        }
    }
}

/// Deals with a message, once.
async fn take(gateway: &Arc<Gateway>, message: Inbound) -> Result<(), NotKept> {
    let from = message.from.clone();
    if gateway
        .store
        .has_arrived(&from.channel, &from.account, &message.arrival)
        .await
        .map_err(|error| unsaved(&error))?
    {
        tracing::debug!(channel = %from.channel, "a message came again and was dealt with before");
        return Ok(());
    }
    gateway.channels.note(&from.channel, &from.account, |view| view.inbound_ms = Some(now_ms()));
    let runtime = gateway.runtime.load_full();
    let document = &runtime.config;
    let arrived = ChannelChange::Arrived {
        channel: from.channel.clone(),
        account: from.account.clone(),
        arrival: message.arrival.clone(),
        at_ms: now_ms(),
    };
    let paired = message.kind == ChatKind::Direct && is_paired(gateway, &from, &message.sender.id).await?;
    let group = (message.kind != ChatKind::Direct).then(|| Group::read(document, &message));
    let routed = route::route(document, &message, group.as_ref());
    let addressed = is_addressed(document, &message, routed.as_ref().ok());
    let commit =
        async |changes: Vec<ChannelChange>| gateway.store.commit(changes).await.map_err(|error| unsaved(&error));
    match policy::judge(document, &message, Facts { paired, addressed }) {
        Verdict::Refuse(why) => {
            tracing::info!(
                channel = %from.channel, account = %from.account, chat = %from.chat, sender = %message.sender.id,
                "a message was not read: {why}"
            );
            commit(vec![arrived]).await
        }
        Verdict::Observe => {
            commit(vec![arrived]).await?;
            gateway.channels.recent.observe(document, &message);
            Ok(())
        }
        Verdict::Pair => {
            let tell = {
                let _turn = gateway.channels.pairing_turn().await;
                let mut asked = pairing::ask(gateway, &message).await.map_err(|error| unsaved(&error))?;
                asked.changes.push(arrived);
                commit(asked.changes).await?;
                asked.tell
            };
            if let Some(pending) = tell {
                let gateway = Arc::clone(gateway);
                gateway.clone().tracker.spawn(async move { pairing::tell(&gateway, pending).await });
            }
            Ok(())
        }
        Verdict::Admit => match routed {
            Ok(route) => admit(gateway, message, route, group, arrived).await,
            Err(why) => {
                tracing::error!(channel = %from.channel, account = %from.account, "a message has no agent: {why}");
                gateway.channels.note(&from.channel, &from.account, |view| view.unrouted = Some(why.to_string()));
                commit(vec![arrived]).await?;
                notice(gateway, from, "No agent answers here. The owner sees why in: openclaw channels status");
                Ok(())
            }
        },
    }
}

/// True when it names the bot, answers it, is a command, or matches a mention pattern of the agent.
fn is_addressed(document: &Document, message: &Inbound, route: Option<&route::Route>) -> bool {
    let agent = route.map_or("main", |route| route.agent.as_str());
    message.mentions_me
        || command::parse(&message.text).is_some()
        || (message.kind != ChatKind::Direct && mention::matches(document, message, agent))
}

async fn is_paired(gateway: &Gateway, from: &Address, sender: &str) -> Result<bool, NotKept> {
    let paired = gateway.store.is_channel_allowed(&from.channel, &from.account, sender).await;
    paired.map_err(|error| unsaved(&error))
}

async fn admit(
    gateway: &Arc<Gateway>,
    message: Inbound,
    route: route::Route,
    group: Option<Group>,
    arrived: ChannelChange,
) -> Result<(), NotKept> {
    let from = message.from.clone();
    let document = Arc::clone(&gateway.runtime.load().config);
    let owner = access::is_owner(&document, &from.channel, &message.sender);
    let is_command = command::parse(&message.text).is_some();
    let before = if is_command || group.is_none() { Vec::new() } else { gateway.channels.recent.take(&from) };
    let old = now_ms() - message.sent_at_ms > BACKLOG_MS;
    let when_busy = if old { WhenBusy::Collect } else { gateway.runs.settings(gateway).queue_of(&from.channel) };
    let extra = group.as_ref().and_then(|group| group.extra_system.as_deref());
    let ack = ack::emoji(&document, &message, &route.agent).filter(|_| !is_command);
    let ack = ack.map(|emoji| (message.message_id.clone(), emoji));
    let request = RunRequest {
        run_id: RunId(format!("{}:{}:{}", from.channel, from.account, message.arrival)),
        session: route.session,
        input: Input { text: context::input(&message, &before), media: message.media.clone() },
        authority: if owner { Authority { scopes: ScopeSet::all(), owner: true } } else { Authority::CHAT },
        deliver: Some(from.clone()),
        model: None,
        thinking: None,
        timeout: None,
        extra_system: Some(context::facts(&message, extra)),
        when_busy,
        // The files are in the input; the run's record need not hold them twice.
        origin: Origin::Channel(Box::new(Inbound { media: Vec::new(), ..message })),
    };
    let saved = Runs::submit_with(gateway, request, vec![Change::from(arrived.clone())]).await;
    let Err(error) = saved else {
        if let Some((id, emoji)) = ack {
            seen(gateway, from, id, emoji);
        }
        return Ok(());
    };
    let refused = error.code == ErrorCode::InvalidRequest || is_queue_full(&error);
    if !refused {
        gateway.channels.recent.put_back(&from, before);
        return Err(NotKept(error.message));
    }
    // It will not get better by being asked for again, and others wait behind it: the sender is told, and it is done with.
    gateway.store.commit([arrived]).await.map_err(|error| unsaved(&error))?;
    tracing::warn!(channel = %from.channel, chat = %from.chat, "a message was not taken: {}", error.message);
    notice(gateway, from, &format!("This message was not taken: {}", error.message));
    Ok(())
}

/// The conversation has as many messages waiting as it may.
fn is_queue_full(error: &ErrorShape) -> bool {
    error.message.contains("messages wait in this conversation")
}

/// Shows that a message was seen; best effort.
fn seen(gateway: &Arc<Gateway>, to: Address, id: String, emoji: String) {
    let gateway = Arc::clone(gateway);
    gateway.clone().tracker.spawn(async move {
        let Some(channel) = gateway.channels.handle(&to.channel, &to.account) else { return };
        if let Err(error) = channel.react(&to, &id, Some(&emoji)).await {
            tracing::debug!(channel = %to.channel, chat = %to.chat, "a reaction was not made: {error}");
        }
    });
}

/// Says something that is nobody's reply; best effort.
fn notice(gateway: &Arc<Gateway>, to: Address, text: &str) {
    let message = Outbound { text: text.to_owned(), ..Outbound::default() };
    let gateway = Arc::clone(gateway);
    gateway.clone().tracker.spawn(async move {
        let Some(channel) = gateway.channels.handle(&to.channel, &to.account) else { return };
        if let Err(error) = channel.send(&to, &message).await {
            tracing::warn!(channel = %to.channel, chat = %to.chat, "a notice was not sent: {error}");
        }
    });
}

/// Deals with a pressed button.
async fn pressed(gateway: &Arc<Gateway>, press: Press) -> Result<PressAnswer, NotKept> {
    for presses in gateway.channels.presses() {
        if let Some(answer) = presses.press(gateway, &press).await {
            return Ok(answer);
        }
    }
    let refused = || PressAnswer { toast: Some("You may not use this button.".to_owned()), replace: None };
    if press.refused {
        return Ok(refused());
    }
    let message = Inbound {
        kind: press.kind,
        chat_title: None,
        // The same button pressed twice by the same person is pressed once.
        arrival: format!("press:{}:{}:{}", press.message_id, press.sender.id, press.data),
        message_id: press.message_id.clone(),
        sent_at_ms: now_ms(),
        text: format!("callback_data: {}", press.data),
        media: Vec::new(),
        reply_to: None,
        mentions_me: true,
        space: None,
        roles: Vec::new(),
        needs_mention: false,
        edited: false,
        from: press.from,
        sender: press.sender,
    };
    let document = Arc::clone(&gateway.runtime.load().config);
    let paired = message.kind == ChatKind::Direct && is_paired(gateway, &message.from, &message.sender.id).await?;
    let verdict = policy::judge(&document, &message, Facts { paired, addressed: true });
    if verdict != Verdict::Admit {
        return Ok(refused());
    }
    take(gateway, message).await.map(|()| PressAnswer::default())
}
