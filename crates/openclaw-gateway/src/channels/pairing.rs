//! Strangers who want to write: a code each, and the owner's word.

use std::sync::Arc;

use openclaw_channels::message::{Inbound, Outbound};

use crate::{clock::now_ms, gateway::Gateway, store::StoreError, store::channels::ChannelChange};

/// Letters of a code: none that look alike (as the reference).
const ALPHABET: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
const CODE_LEN: usize = 8;
/// Requests that may wait at an account; more are ignored.
pub const MAX_PENDING: usize = 3;
/// How long a request lives, milliseconds.
pub const TTL_MS: i64 = 3_600_000;

/// A request that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    pub request_id: String,
    pub channel: String,
    pub account: String,
    pub sender_id: String,
    pub code: String,
    pub name: String,
    pub username: Option<String>,
    /// Where the sender can be answered.
    pub chat: String,
    pub created_ms: i64,
    pub seen_ms: i64,
    /// The code was sent, or may have been.
    pub told: bool,
}

/// Somebody who was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    pub channel: String,
    pub account: String,
    pub sender_id: String,
    pub name: String,
    pub approved_ms: i64,
}

impl Pending {
    pub const fn expired(&self, now_ms: i64) -> bool {
        now_ms >= self.created_ms + TTL_MS
    }

    fn is_from(&self, message: &Inbound) -> bool {
        (self.channel.as_str(), self.account.as_str(), self.sender_id.as_str())
            == (&message.from.channel, &message.from.account, &message.sender.id)
    }
}

/// What to keep for a stranger's message, and whom to tell the code.
pub struct Asked {
    pub changes: Vec<ChannelChange>,
    pub tell: Option<Pending>,
}

/// Decides about a stranger's message. The caller holds [`super::Channels::pairing_turn`] until the changes are saved.
///
/// # Errors
/// When the state cannot be read.
pub async fn ask(gateway: &Gateway, message: &Inbound) -> Result<Asked, StoreError> {
    let now = now_ms();
    let all = gateway.store.channel_pending(now).await?;
    if let Some(known) = all.iter().find(|pending| pending.is_from(message)) {
        let seen = Pending { seen_ms: now, ..known.clone() };
        // The code is told once; a crash may have come between keeping and telling it.
        let tell = (!known.told).then(|| seen.clone());
        return Ok(Asked { changes: vec![ChannelChange::PutPending(seen)], tell });
    }
    let here = |pending: &&Pending| pending.channel == message.from.channel && pending.account == message.from.account;
    if all.iter().filter(here).count() >= MAX_PENDING {
        tracing::info!(
            channel = %message.from.channel, account = %message.from.account, sender = %message.sender.id,
            "a stranger wrote, and {MAX_PENDING} others wait for approval already: openclaw pairing list {}",
            message.from.channel
        );
        return Ok(Asked { changes: Vec::new(), tell: None });
    }
    let code = loop {
        let code = code().map_err(|_| StoreError::Unsettled)?;
        if !all.iter().any(|pending| pending.code == code) {
            break code;
        }
    };
    let pending = Pending {
        request_id: uuid::Uuid::new_v4().to_string(),
        channel: message.from.channel.clone(),
        account: message.from.account.clone(),
        sender_id: message.sender.id.clone(),
        code,
        name: message.sender.name.chars().take(128).collect(),
        username: message.sender.username.clone(),
        chat: message.from.chat.clone(),
        created_ms: now,
        seen_ms: now,
        told: false,
    };
    tracing::info!(
        channel = %pending.channel, account = %pending.account, sender = %pending.sender_id,
        "somebody asks to be let in: openclaw pairing list {}", pending.channel
    );
    Ok(Asked { changes: vec![ChannelChange::PutPending(pending.clone())], tell: Some(pending) })
}

fn code() -> Result<String, getrandom::Error> {
    let mut bytes = [0; CODE_LEN];
    getrandom::fill(&mut bytes)?;
    // 32 letters: every byte gives one without bias.
    Ok(bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect())
}

/// What a stranger reads.
pub fn invitation(pending: &Pending) -> Outbound {
    let label = id_label(&pending.channel);
    let command = format!("openclaw pairing approve {} {}", pending.channel, pending.code);
    let text = format!(
        "OpenClaw: access not configured.\n\nYour {label}: {}\nPairing code:\n```\n{}\n```\n\nAsk the bot owner to approve \
         with:\n```\n{command}\n```",
        pending.sender_id, pending.code
    );
    Outbound { text, ..Outbound::default() }
}

/// What somebody who was let in reads.
pub fn welcome() -> Outbound {
    Outbound { text: "✅ OpenClaw access approved. Send a message to start chatting.".into(), ..Outbound::default() }
}

/// What a sender's id is called.
pub fn id_label(channel: &str) -> &'static str {
    match channel {
        "telegram" => "Telegram user id",
        "discord" => "Discord user id",
        _ => "user id",
    }
}

/// Tells the code once, and remembers that it was told.
pub async fn tell(gateway: &Arc<Gateway>, pending: Pending) {
    let id = pending.request_id.clone();
    if !gateway.channels.begin_telling(&id) {
        return;
    }
    // Whoever asked for it to be told may have looked before somebody else had told it.
    let all = gateway.store.channel_pending(now_ms()).await;
    if all.is_ok_and(|all| all.iter().any(|known| known.request_id == id && !known.told)) {
        tell_now(gateway, pending).await;
    }
    gateway.channels.end_telling(&id);
}

async fn tell_now(gateway: &Arc<Gateway>, pending: Pending) {
    use openclaw_channels::{channel::SendError, message::Address};
    let Some(channel) = gateway.channels.handle(&pending.channel, &pending.account) else { return };
    let to = Address {
        channel: pending.channel.clone(),
        account: pending.account.clone(),
        chat: pending.chat.clone(),
        thread: None,
    };
    match channel.send(&to, &invitation(&pending)).await.map_err(|partly| partly.error) {
        Ok(_) | Err(SendError::Unknown { .. }) => {}
        Err(SendError::NotSent { why, .. }) => {
            // The next message of the sender is another chance.
            return tracing::warn!(channel = %pending.channel, "a pairing code was not sent: {why}");
        }
    }
    let told = ChannelChange::PutPending(Pending { told: true, ..pending });
    let turn = gateway.channels.pairing_turn().await;
    // Approved or dismissed meanwhile: then there is nothing to remember.
    let ChannelChange::PutPending(told) = told else { return };
    let still = gateway.store.channel_pending(now_ms()).await;
    if still.is_ok_and(|all| all.iter().any(|pending| pending.request_id == told.request_id))
        && let Err(error) = gateway.store.commit([ChannelChange::PutPending(told)]).await
    {
        tracing::warn!("that a pairing code was told could not be saved: {error}");
    }
    drop(turn);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_can_be_read_aloud() {
        let mut seen = std::collections::HashSet::new();
        for _ in 0..200 {
            let code = code().expect("random numbers");
            assert_eq!(code.len(), 8);
            assert!(code.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit()), "{code}");
            assert!(!code.contains(['0', 'O', '1', 'I']), "{code}");
            seen.insert(code);
        }
        assert_eq!(seen.len(), 200);
    }
}
