//! `channels.*`: the accounts of channels, and who may write to them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use openclaw_channels::section::{DEFAULT_ACCOUNT, Section, normal};
use openclaw_config::{
    ConfigPath,
    write::{Edit, Editor, Options, SetMode},
};
use openclaw_protocol::{
    ErrorShape, Scope,
    method::channels::{
        AccountParams, AccountReport, ChannelMeta, ChannelsLogout, ChannelsPairingApprove, ChannelsPairingDismiss,
        ChannelsPairingList, ChannelsReport, ChannelsStart, ChannelsStatus, ChannelsStop, ChatPairing, LoggedOut,
        PairingAccount, PairingApproveParams, PairingApproved, PairingDismissed, PairingLimits, PairingList,
        PairingListParams, Probe, StartOutcome, Started, StatusParams, Stopped,
    },
};
use serde_json::json;

use super::registry::{Call, Registry};
use crate::{
    channels::{
        access::{self, AllowList, Direct, DmPolicy},
        kinds,
        pairing::{self, Allowed, Pending},
        registry::{self, Health, View},
    },
    clock::now_ms,
    gateway::Gateway,
    reload,
    store::{Change, StoreError, channels::ChannelChange},
};

/// For all probes of one report.
const PROBE: Duration = Duration::from_secs(10);

pub fn register(registry: &mut Registry) {
    registry
        .on_async::<ChannelsStatus, _>(|call, params| async move { status(&call.gateway, params).await })
        .on_async::<ChannelsStart, _>(|call, params| async move { start(&call, params).await })
        .on_async::<ChannelsStop, _>(|call, params| async move {
            let (channel, account_id) = named(&call.gateway, &params)?;
            if !registry::stop_by_hand(&call.gateway, &channel, &account_id).await {
                return Err(unknown_account(&channel, &account_id));
            }
            tracing::info!(by = %call.caller.address, %channel, account = %account_id, "channel stopped by hand");
            Ok(Stopped { channel, account_id, stopped: true })
        })
        .on_async::<ChannelsLogout, _>(|call, params| async move { logout(&call, params).await })
        .on_async::<ChannelsPairingList, _>(|call, params| async move { list(&call.gateway, params).await })
        .on_async::<ChannelsPairingApprove, _>(|call, params| async move {
            let gateway = Arc::clone(&call.gateway);
            gateway.whole(async move { approve(&call, params).await }).await
        })
        .on_async::<ChannelsPairingDismiss, _>(|call, params| async move {
            let gateway = Arc::clone(&call.gateway);
            let work = async move {
                let gateway = &call.gateway;
                let _turn = gateway.channels.pairing_turn().await;
                let found = find(gateway, &params.channel, &params.account_id, &params.request_id).await?;
                let change = ChannelChange::DeletePending { request_id: found.request_id.clone() };
                gateway.store.commit([change]).await.map_err(unsaved)?;
                Ok(PairingDismissed { request_id: found.request_id, sender_id: found.sender_id })
            };
            gateway.whole(work).await
        });
}

fn unsaved(error: StoreError) -> ErrorShape {
    ErrorShape::retry_later(format!("it could not be saved: {error}"), 1_000)
}

fn unknown_channel(channel: &str) -> ErrorShape {
    let known: Vec<&str> = kinds::ALL.iter().map(|(id, _)| *id).collect();
    ErrorShape::invalid(format!("unknown channel: {channel}; this gateway has {}", known.join(", ")))
}

fn unknown_account(channel: &str, account: &str) -> ErrorShape {
    ErrorShape::invalid(format!("unknown account: {channel}:{account}; see them with: openclaw channels list"))
}

/// Channel and account of a request; the default account when none is named.
fn named(gateway: &Gateway, params: &AccountParams) -> Result<(String, String), ErrorShape> {
    let channel = params.channel.trim().to_lowercase();
    if kinds::label(&channel).is_none() {
        return Err(unknown_channel(&channel));
    }
    let account = match params.account_id.as_deref().map(str::trim) {
        Some("") => return Err(ErrorShape::invalid("accountId must not be blank")),
        Some(account) => normal(account),
        None => Section::default_account(&gateway.runtime.load().config, &channel),
    };
    Ok((channel, account))
}

async fn start(call: &Call, params: AccountParams) -> Result<Started, ErrorShape> {
    let gateway = &call.gateway;
    let (channel, account_id) = named(gateway, &params)?;
    let outcome = registry::start_by_hand(gateway, &channel, &account_id).await;
    let outcome = outcome.ok_or_else(|| unknown_account(&channel, &account_id))?;
    tracing::info!(by = %call.caller.address, %channel, account = %account_id, "channel started by hand: {outcome:?}");
    let (started, status, reason) = match outcome {
        registry::StartOutcome::HandedOff => (true, "handed-off", None),
        registry::StartOutcome::Running => (true, "retry", Some("task-owned")),
        registry::StartOutcome::Skipped("secret-unavailable") => {
            let views = gateway.channels.views();
            let view = views.into_iter().find(|(c, a, _)| *c == channel && *a == account_id).map(|(_, _, view)| view);
            let why = view.and_then(|view| view.error).unwrap_or_else(|| "it could not be started".to_owned());
            return Err(ErrorShape::unavailable(why));
        }
        registry::StartOutcome::Skipped(reason) => (false, "skipped", Some(reason)),
    };
    let outcome = StartOutcome { status: status.to_owned(), reason: reason.map(str::to_owned) };
    Ok(Started { channel, account_id, started, outcome })
}

/// Stops the account and takes its token out of the config.
async fn logout(call: &Call, params: AccountParams) -> Result<LoggedOut, ErrorShape> {
    let gateway = Arc::clone(&call.gateway);
    let (channel, account_id) = named(&gateway, &params)?;
    registry::stop_by_hand(&gateway, &channel, &account_id).await;
    let (id, account) = (channel.clone(), account_id.clone());
    let worker = Arc::clone(&gateway);
    let cleared = tokio::task::spawn_blocking(move || clear_credentials(&worker, &id, &account)).await;
    let cleared = cleared.unwrap_or_else(|_| Err(ErrorShape::unavailable("internal error; see the gateway log")))?;
    if cleared {
        tracing::info!(by = %call.caller.address, %channel, account = %account_id, "the token was taken out of the config");
        reload::reload(&gateway).await.map_err(ErrorShape::unavailable)?;
    }
    let document = Arc::clone(&gateway.runtime.load().config);
    let has = |name: &str| gateway.env.get(name).is_some_and(|value| !value.is_empty());
    let logged_out = !kinds::configured(&document, &channel, &account_id, has);
    Ok(LoggedOut { channel, account_id, cleared, logged_out })
}

fn clear_credentials(gateway: &Gateway, channel: &str, account: &str) -> Result<bool, ErrorShape> {
    let document = Arc::clone(&gateway.runtime.load().config);
    let mut edits = Vec::new();
    for key in ["botToken", "tokenFile", "token"] {
        let section = Section::new(&document, channel, account);
        let mut unset = |path: String| {
            if let Ok(path) = path.parse::<ConfigPath>() {
                edits.push(Edit::Unset { path });
            }
        };
        if section.own(key).is_some() {
            unset(format!("channels.{channel}.accounts.{account}.{key}"));
        }
        if account == DEFAULT_ACCOUNT && section.root(key).is_some() {
            unset(format!("channels.{channel}.{key}"));
        }
    }
    if edits.is_empty() {
        return Ok(false);
    }
    let written = Editor::new(&gateway.paths, &gateway.env).apply(&edits, &Options::default());
    written.map(|_| true).map_err(|error| ErrorShape::unavailable(format!("the config was not changed: {error}")))
}

async fn status(gateway: &Arc<Gateway>, params: StatusParams) -> Result<ChannelsReport, ErrorShape> {
    let wanted = params.channel.as_deref().map(|channel| channel.trim().to_lowercase());
    if let Some(channel) = wanted.as_deref().filter(|channel| kinds::label(channel).is_none()) {
        return Err(unknown_channel(channel));
    }
    let limit = params.timeout_ms.map_or(PROBE, Duration::from_millis).min(Duration::from_secs(60));
    let accounts: Vec<(String, String, View)> = gateway
        .channels
        .views()
        .into_iter()
        .filter(|(channel, ..)| wanted.as_ref().is_none_or(|wanted| wanted == channel))
        .collect();
    let probes = accounts.iter().map(|(channel, account, view)| async move {
        match params.probe && view.enabled {
            true => Some(probe(gateway, channel, account, limit).await),
            false => None,
        }
    });
    let probes = futures_util::future::join_all(probes).await;
    let mut report = report(gateway, accounts.into_iter().zip(probes));
    let shown = |channel: &String| wanted.as_ref().is_none_or(|wanted| wanted == channel);
    report.status_issues.retain(|issue| shown(&issue.channel));
    Ok(report)
}

/// How the accounts are, for reports about everything. Asks no service.
pub fn summary(gateway: &Gateway) -> ChannelsReport {
    report(gateway, gateway.channels.views().into_iter().map(|account| (account, None)))
}

fn report(
    gateway: &Gateway,
    accounts: impl Iterator<Item = ((String, String, View), Option<Probe>)>,
) -> ChannelsReport {
    let document = Arc::clone(&gateway.runtime.load().config);
    let mut report = ChannelsReport { ts: now_ms(), ..ChannelsReport::default() };
    for ((channel, account, view), probe) in accounts {
        let row = account_report(&document, &channel, account, view, probe);
        report.channel_accounts.entry(channel).or_default().push(row);
    }
    for (id, label) in kinds::ALL {
        let Some(rows) = report.channel_accounts.get(*id) else { continue };
        let default = Section::default_account(&document, id);
        let row = rows.iter().find(|row| row.account_id == default).or(rows.first());
        let summary = row.map(|row| {
            json!({"configured": row.configured, "running": row.running, "connected": row.connected,
                "lastError": row.last_error, "lastStartAt": row.last_start_at, "lastStopAt": row.last_stop_at,
                "mode": row.mode, "tokenSource": row.token_source, "probe": row.probe})
        });
        report.channels.insert((*id).to_owned(), summary.unwrap_or_default());
        report.channel_order.push((*id).to_owned());
        report.channel_labels.insert((*id).to_owned(), (*label).to_owned());
        let detail_label = format!("{label} Bot");
        report.channel_detail_labels.insert((*id).to_owned(), detail_label.clone());
        report.channel_meta.push(ChannelMeta { id: (*id).to_owned(), label: (*label).to_owned(), detail_label });
        report.channel_default_account_id.insert((*id).to_owned(), default);
    }
    report.status_issues = gateway.channels.issues();
    report.status_issues.extend(config_issues(&document));
    report
}

async fn probe(gateway: &Gateway, channel: &str, account: &str, limit: Duration) -> Probe {
    let started = std::time::Instant::now();
    let outcome = match gateway.channels.handle(channel, account) {
        None => Err("the account is not running".to_owned()),
        Some(handle) => match tokio::time::timeout(limit, handle.probe()).await {
            Ok(outcome) => outcome.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer within {} s", limit.as_secs())),
        },
    };
    let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    match outcome {
        Ok(name) => Probe { ok: true, name: Some(name), error: None, elapsed_ms },
        Err(error) => Probe { ok: false, name: None, error: Some(error), elapsed_ms },
    }
}

fn account_report(
    document: &openclaw_config::Document,
    channel: &str,
    account: String,
    view: View,
    probe: Option<Probe>,
) -> AccountReport {
    let direct = Direct::read(document, channel, &account);
    let section = Section::new(document, channel, &account);
    let running = matches!(view.state, Health::Starting | Health::Healthy | Health::Retrying);
    AccountReport {
        name: view.name,
        enabled: view.enabled,
        configured: view.configured,
        running,
        connected: view.state == Health::Healthy,
        reconnect_attempts: view.retries,
        last_connected_at: view.connected_ms,
        last_error: view.error,
        health_state: view.state.as_str().to_owned(),
        last_start_at: view.started_ms,
        last_stop_at: view.stopped_ms,
        last_inbound_at: view.inbound_ms,
        last_outbound_at: view.outbound_ms,
        last_probe_at: probe.is_some().then(now_ms),
        mode: view.mode.map(str::to_owned),
        dm_policy: Some(direct.policy.as_str().to_owned()),
        group_policy: section.text("groupPolicy").or(Some("allowlist")).map(str::to_owned),
        allow_from: direct.allow.entries,
        token_source: view.token_source.map(str::to_owned),
        webhook_url: section.text("webhookUrl").map(str::to_owned),
        base_url: section.text("apiRoot").map(str::to_owned),
        probe,
        account_id: account,
    }
}

/// What the config says and does not work as it reads.
fn config_issues(document: &openclaw_config::Document) -> Vec<openclaw_protocol::method::channels::StatusIssue> {
    let mut issues = Vec::new();
    for (channel, _) in kinds::ALL {
        for account in Section::accounts(document, channel) {
            let direct = Direct::read(document, channel, &account);
            let mut add = |message: String, fix: String| {
                issues.push(openclaw_protocol::method::channels::StatusIssue {
                    channel: (*channel).to_owned(),
                    account_id: account.clone(),
                    kind: "config".to_owned(),
                    message,
                    fix: Some(fix),
                });
            };
            if direct.policy == DmPolicy::Open && !direct.allow.everybody() {
                add(
                    "dmPolicy is \"open\", but allowFrom has no \"*\": only the listed senders are let in".to_owned(),
                    format!("openclaw config set channels.{channel}.allowFrom '[\"*\"]'"),
                );
            }
            if direct.policy == DmPolicy::Allowlist && direct.allow.entries.is_empty() {
                add(
                    "dmPolicy is \"allowlist\" and allowFrom is empty: nobody is let in".to_owned(),
                    format!("openclaw config set channels.{channel}.allowFrom '[\"<your id>\"]'"),
                );
            }
            for name in direct.allow.idle() {
                add(
                    format!(
                        "allowFrom has \"{name}\", which is no user id and lets nobody in (names can change hands)"
                    ),
                    format!("openclaw config set channels.{channel}.allowFrom '[\"<the numeric id>\"]'"),
                );
            }
            for entry in access::group_senders(document, channel, &account).iter().flat_map(AllowList::idle) {
                let (what, fix) = match entry.strip_prefix('-') {
                    Some(id) if id.bytes().all(|b| b.is_ascii_digit()) => (
                        "which is a group; groups go under groups",
                        format!("channels.{channel}.groups.{entry} '{{}}'"),
                    ),
                    _ => (
                        "which is no user id and lets nobody in",
                        format!("channels.{channel}.groupAllowFrom '[\"<the numeric id>\"]'"),
                    ),
                };
                add(format!("groupAllowFrom has \"{entry}\", {what}"), format!("openclaw config set {fix}"));
            }
        }
    }
    issues
}

/// Accounts whose direct messages are paired.
fn pairing_accounts(gateway: &Gateway) -> Vec<PairingAccount> {
    let document = Arc::clone(&gateway.runtime.load().config);
    let paired = |(channel, account, view): &(String, String, View)| {
        view.enabled && view.configured && Direct::read(&document, channel, account).policy == DmPolicy::Pairing
    };
    gateway
        .channels
        .views()
        .into_iter()
        .filter(paired)
        .map(|(channel, account_id, _)| PairingAccount {
            channel_label: kinds::label(&channel).unwrap_or("").to_owned(),
            channel,
            account_id,
            notify_supported: true,
        })
        .collect()
}

async fn list(gateway: &Gateway, params: PairingListParams) -> Result<PairingList, ErrorShape> {
    let wanted = params.channel.as_deref().map(|channel| channel.trim().to_lowercase());
    if let Some(channel) = wanted.as_deref().filter(|channel| kinds::label(channel).is_none()) {
        return Err(ErrorShape::invalid(format!("unknown pairing channel: {channel}")));
    }
    let account = params.account_id.as_deref().map(normal);
    let here = |channel: &String, found: &String| {
        wanted.as_ref().is_none_or(|wanted| wanted == channel) && account.as_ref().is_none_or(|wanted| wanted == found)
    };
    let mut accounts = pairing_accounts(gateway);
    accounts.retain(|found| here(&found.channel, &found.account_id));
    let mut pending = gateway.store.channel_pending(now_ms()).await.map_err(unsaved)?;
    pending.retain(|found| here(&found.channel, &found.account));
    Ok(PairingList {
        accounts,
        requests: pending.into_iter().map(row).collect(),
        command_owner_configured: !access::owners(&gateway.runtime.load().config).is_empty(),
        limits: PairingLimits {
            pending_per_account: u32::try_from(pairing::MAX_PENDING).unwrap_or(u32::MAX),
            ttl_ms: u64::try_from(pairing::TTL_MS).unwrap_or(0),
        },
    })
}

fn row(pending: Pending) -> ChatPairing {
    let mut metadata = BTreeMap::from([("code".to_owned(), pending.code)]);
    if !pending.name.is_empty() {
        metadata.insert("name".to_owned(), pending.name);
    }
    if let Some(username) = pending.username {
        metadata.insert("username".to_owned(), username);
    }
    ChatPairing {
        request_id: pending.request_id,
        channel_label: kinds::label(&pending.channel).unwrap_or("").to_owned(),
        sender_label: pairing::id_label(&pending.channel).to_owned(),
        channel: pending.channel,
        account_id: pending.account,
        sender_id: pending.sender_id,
        metadata,
        created_at: time(pending.created_ms),
        last_seen_at: time(pending.seen_ms),
        expires_at: time(pending.created_ms + pairing::TTL_MS),
        notify_supported: true,
    }
}

/// RFC 3339 with milliseconds.
fn time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map(|at| format!("{at:.3}")).unwrap_or_default()
}

async fn find(gateway: &Gateway, channel: &str, account: &str, id: &str) -> Result<Pending, ErrorShape> {
    let (channel, account) = (channel.trim().to_lowercase(), normal(account));
    let all = gateway.store.channel_pending(now_ms()).await.map_err(unsaved)?;
    let found = all
        .into_iter()
        .find(|pending| pending.request_id == id && pending.channel == channel && pending.account == account);
    found.ok_or_else(|| {
        ErrorShape::invalid(
            "pairing request not found: it may have expired (one hour) or been decided; the sender can ask again",
        )
        .detail("code", "PAIRING_REQUEST_NOT_FOUND")
    })
}

async fn approve(call: &Call, params: PairingApproveParams) -> Result<PairingApproved, ErrorShape> {
    let gateway = &call.gateway;
    if params.bootstrap_command_owner && !call.caller.scopes.grants(Scope::Admin) {
        return Err(ErrorShape::missing_scope(Scope::Admin).for_protocol(call.caller.protocol));
    }
    let found = {
        let _turn = gateway.channels.pairing_turn().await;
        let found = find(gateway, &params.channel, &params.account_id, &params.request_id).await?;
        let allowed = Allowed {
            channel: found.channel.clone(),
            account: found.account.clone(),
            sender_id: found.sender_id.clone(),
            name: found.name.clone(),
            approved_ms: now_ms(),
        };
        let gone = ChannelChange::DeletePending { request_id: found.request_id.clone() };
        gateway.store.commit([ChannelChange::Allow(allowed), gone].map(Change::from)).await.map_err(unsaved)?;
        found
    };
    let to = openclaw_channels::message::Address {
        channel: found.channel.clone(),
        account: found.account.clone(),
        chat: found.chat.clone(),
        thread: None,
    };
    gateway.channels.remember(&to, &found.sender_id);
    tracing::info!(
        by = %call.caller.address, channel = %found.channel, account = %found.account, sender = %found.sender_id,
        "a sender was let in"
    );
    let owner = match params.bootstrap_command_owner {
        false => "not-requested",
        true => bootstrap_owner(gateway, &found).await,
    };
    let notification = match (params.notify, gateway.channels.handle(&found.channel, &found.account)) {
        (false, _) => "not-requested",
        (true, None) => "failed",
        (true, Some(handle)) => match handle.send(&to, &pairing::welcome()).await {
            Ok(_) => "sent",
            Err(error) => {
                tracing::warn!("an approved sender was not told: {error}");
                "failed"
            }
        },
    };
    Ok(PairingApproved {
        request_id: found.request_id,
        sender_id: found.sender_id,
        notification: notification.to_owned(),
        command_owner_bootstrap: owner.to_owned(),
    })
}

/// Makes the sender the owner when there is none.
async fn bootstrap_owner(gateway: &Arc<Gateway>, found: &Pending) -> &'static str {
    if !access::owners(&gateway.runtime.load().config).is_empty() {
        return "already-configured";
    }
    let entry = format!("{}:{}", found.channel, found.sender_id);
    let worker = Arc::clone(gateway);
    let written = tokio::task::spawn_blocking(move || {
        let path = "commands.ownerAllowFrom".parse::<ConfigPath>().map_err(|error| error.to_string())?;
        // Nobody is replaced: the file may say more than the settings in force.
        let on_disk = openclaw_config::Document::load(&worker.paths, &worker.env).map_err(|error| error.to_string())?;
        if !access::owners(&on_disk).is_empty() {
            return Ok(false);
        }
        let options = Options { base_hash: Some(on_disk.hash()), ..Options::default() };
        let edit = Edit::Set { path, value: json!([entry]), mode: SetMode::Set };
        let written = Editor::new(&worker.paths, &worker.env).apply(&[edit], &options);
        written.map(|_| true).map_err(|error| error.to_string())
    });
    match written.await {
        Ok(Ok(false)) => "already-configured",
        Ok(Ok(true)) => match reload::reload(gateway).await {
            Ok(()) => "configured",
            Err(_) => "unavailable",
        },
        Ok(Err(why)) => {
            tracing::warn!("the owner was not written to the config: {why}");
            "unavailable"
        }
        Err(_) => "unavailable",
    }
}
