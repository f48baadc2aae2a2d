//! One account, from its start to its end.
//!
//! ```text
//! getMe ──► webhook off/on, menu ──► getUpdates ──► Inbox (on disk) ──► offset
//!   ▲                                    │ network: backoff        │ not kept: the same update again
//!   └────────────────────────────────────┘
//! ```
//!
//! The offset that confirms updates to Telegram goes out with the next `getUpdates`, so it is never ahead of the disk.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    Telegram, Transport,
    api::ApiError,
    media::{self, Remote},
    receive::{Reader, Received},
    types::{Update, User},
    webhook,
};
use crate::{
    channel::{Inbox, NotKept, Status},
    message::Inbound,
};

/// How long Telegram holds a poll that has nothing.
const HOLD: Duration = Duration::from_secs(30);
/// Beyond that the connection is dead, whatever TCP says.
const POLL_TIMEOUT: Duration = Duration::from_secs(45);
/// Time for the rest of an album to come.
const ALBUM: Duration = Duration::from_millis(500);
/// First and longest pause after a failure.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Another poller usually goes away (a restart), so it is waited for; said at once, since a second gateway does not.
const CONFLICT: Duration = Duration::from_secs(10);
/// What is asked for.
pub(super) const UPDATES: [&str; 5] =
    ["message", "edited_message", "channel_post", "edited_channel_post", "callback_query"];

/// Runs until it is cancelled or cannot go on without a person.
pub(super) async fn run(account: &Arc<Telegram>, inbox: Arc<dyn Inbox>, cancel: &CancellationToken) {
    tokio::select! {
        biased;
        // Nothing is lost: what was not confirmed comes again.
        () = cancel.cancelled() => {}
        () = work(account, inbox) => cancel.cancelled().await,
    }
}

async fn work(account: &Arc<Telegram>, inbox: Arc<dyn Inbox>) {
    let runner = Runner { account, inbox };
    runner.tell(Status::Starting);
    let mut pause = BACKOFF.0;
    loop {
        let error = match runner.connected(&mut pause).await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        let wait = match &error {
            // The token is wrong: only a person can help.
            ApiError::Refused { code: 401 | 404, .. } => {
                tracing::error!(account = runner.name(), "telegram: {error}");
                return runner.tell(Status::Failed { why: error.to_string() });
            }
            ApiError::Refused { code: 409, .. } => CONFLICT,
            ApiError::Refused { retry_after: Some(after), .. } => *after,
            _ => pause,
        };
        let wait = wait.max(pause);
        tracing::warn!(account = runner.name(), "telegram: {error}; tried again in {} s", wait.as_secs());
        runner.tell(Status::Retrying { why: error.to_string(), after: wait });
        tokio::time::sleep(wait).await;
        pause = (pause * 2).min(BACKOFF.1);
    }
}

pub(super) struct Runner<'a> {
    account: &'a Arc<Telegram>,
    pub inbox: Arc<dyn Inbox>,
}

/// What never happens.
enum Never {}

impl Runner<'_> {
    pub fn name(&self) -> &str {
        &self.account.config.account
    }

    fn tell(&self, status: Status) {
        self.inbox.status(super::ID, self.name(), status);
    }

    /// Under which offsets are kept: another bot in the same account counts its updates anew.
    fn counter(&self) -> String {
        format!("{}#{}", self.name(), self.account.config.bot_id())
    }

    async fn connected(&self, pause: &mut Duration) -> Result<Never, ApiError> {
        let api = &self.account.api;
        let me = api.me().await?;
        let _ = self.account.me.set(me.clone());
        if let Some(menu) = &self.account.config.menu {
            let commands: Vec<Value> =
                menu.iter().map(|(command, text)| json!({"command": command, "description": text})).collect();
            // The menu is a convenience.
            if let Err(error) = api.call::<Value>("setMyCommands", &json!({"commands": commands})).await {
                tracing::warn!(account = self.name(), "telegram: the command menu was not set: {error}");
            }
        }
        match &self.account.config.transport {
            Transport::Polling => {
                api.call::<Value>("deleteWebhook", &json!({"drop_pending_updates": false})).await?;
                self.poll(&me, pause).await
            }
            Transport::Webhook(hook) => {
                let listener = webhook::listen(hook).await.map_err(|why| ApiError::NotReached { why })?;
                webhook::announce(api, hook).await?;
                self.running(&me);
                *pause = BACKOFF.0;
                let why = webhook::serve(self, &me, hook, listener).await;
                Err(ApiError::NotReached { why })
            }
        }
    }

    fn running(&self, me: &User) {
        tracing::info!(account = self.name(), "telegram: connected as {}", me.handle());
        self.tell(Status::Running { name: me.handle() });
    }

    async fn poll(&self, me: &User, pause: &mut Duration) -> Result<Never, ApiError> {
        let kept = self.inbox.offset(super::ID, &self.counter()).await;
        let mut offset = match kept {
            Ok(offset) => offset,
            Err(NotKept(why)) => return Err(ApiError::NotReached { why: format!("the state cannot be read: {why}") }),
        };
        let mut running = false;
        // After an album that may be incomplete: the same offset again, and at once.
        let mut again = None;
        loop {
            let hold = if again.is_some() || !running { Duration::ZERO } else { HOLD };
            let mut params = json!({"timeout": hold.as_secs(), "limit": 100, "allowed_updates": UPDATES});
            if let Some(offset) = offset {
                params["offset"] = json!(offset);
            }
            let batch: Vec<Value> = match self.account.api.once("getUpdates", &params, POLL_TIMEOUT).await {
                // A poll that is cut is just repeated: it changes nothing.
                Err(ApiError::Unknown { why }) if running => return Err(ApiError::NotReached { why }),
                Err(error) => return Err(error),
                Ok(batch) => batch,
            };
            if !running {
                // Only now it is certain that nobody else polls.
                self.running(me);
                running = true;
                *pause = BACKOFF.0;
            }
            let batch: Vec<(i64, Update)> = batch.into_iter().filter_map(update).collect();
            let taken = self.take(me, &batch, again.take()).await?;
            if taken.upto > offset.unwrap_or(i64::MIN) {
                offset = Some(taken.upto);
                // It only saves Telegram a question after a restart: a repeated update is recognised.
                if let Err(NotKept(why)) = self.inbox.polled(super::ID, &self.counter(), taken.upto).await {
                    tracing::warn!(account = self.name(), "telegram: the offset was not saved: {why}");
                }
            }
            if let Some(waiting) = taken.album {
                tokio::time::sleep(ALBUM).await;
                again = Some(waiting);
            }
        }
    }

    /// Hands a batch to the inbox, in order. `waited` is the album that was waited for, with its size then.
    async fn take(
        &self,
        me: &User,
        batch: &[(i64, Update)],
        waited: Option<(String, usize)>,
    ) -> Result<Taken, ApiError> {
        let reader = Reader { account: self.name(), me };
        let read: Vec<(i64, Received)> = batch.iter().map(|(id, update)| (*id, reader.read(update))).collect();
        let mut upto = i64::MIN;
        let mut done: Vec<usize> = Vec::new();
        for (at, (id, received)) in read.iter().enumerate() {
            if done.contains(&at) {
                upto = id + 1;
                continue;
            }
            if let Received::Message { album: Some(album), .. } = received {
                let parts: Vec<usize> = (at..read.len()).filter(|part| of_album(&read[*part].1, album)).collect();
                let last = parts.last().is_some_and(|last| last + 1 == read.len());
                let grown = waited.as_ref().is_none_or(|(waited, size)| waited != album || *size < parts.len());
                if last && grown && parts.len() < 10 {
                    return Ok(Taken { upto, album: Some((album.clone(), parts.len())) });
                }
                let messages: Vec<&Received> = parts.iter().map(|part| &read[*part].1).collect();
                if let Some((inbound, files)) = join(&messages) {
                    self.keep(inbound, &files).await?;
                }
                done = parts;
            } else {
                self.handle(received).await?;
            }
            upto = id + 1;
        }
        Ok(Taken { upto, album: None })
    }

    /// One update that is no part of an album.
    pub async fn handle(&self, received: &Received) -> Result<(), ApiError> {
        match received {
            Received::Message { inbound, files, .. } => self.keep((**inbound).clone(), files).await,
            Received::Press { query, press } => {
                let answer = self.inbox.press(press.clone()).await.map_err(not_kept)?;
                let api = &self.account.api;
                let mut params = json!({"callback_query_id": query});
                if let Some(toast) = &answer.toast {
                    params["text"] = json!(toast.chars().take(200).collect::<String>());
                }
                // The press is done; that its spinner goes on turning is no reason to do it again.
                if let Err(error) = api.call::<Value>("answerCallbackQuery", &params).await {
                    tracing::debug!("telegram: {error}");
                }
                if let Some(message) = &answer.replace {
                    use crate::channel::Channel as _;
                    if let Err(error) = self.account.edit(&press.from, &press.message_id, message).await {
                        tracing::warn!("telegram: a pressed button's message was not changed: {error}");
                    }
                }
                Ok(())
            }
            Received::Migrated { from, to } => {
                let (from, to) = (from.to_string(), to.to_string());
                self.inbox.moved(super::ID, self.name(), &from, &to).await.map_err(not_kept)
            }
            Received::Nothing => Ok(()),
        }
    }

    /// Fetches the files and gives the message to the inbox.
    pub async fn keep(&self, mut inbound: Inbound, files: &[Remote]) -> Result<(), ApiError> {
        if !files.is_empty() {
            if self.inbox.wants_media(&inbound) {
                let limit = self.account.config.media_bytes;
                let (media, missing) = media::fetch(&self.account.api, files, limit).await;
                inbound.media = media;
                add_lines(&mut inbound.text, &missing);
            } else {
                let names: Vec<String> = files.iter().map(|file| format!("[{}]", file.what)).collect();
                add_lines(&mut inbound.text, &names);
            }
        }
        self.inbox.message(inbound).await.map_err(not_kept)
    }
}

fn add_lines(text: &mut String, lines: &[String]) {
    for line in lines {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(line);
    }
}

fn not_kept(NotKept(why): NotKept) -> ApiError {
    ApiError::NotReached { why: format!("the message could not be stored, and will be asked for again: {why}") }
}

/// How far a batch was taken.
struct Taken {
    /// The offset that confirms what was taken.
    upto: i64,
    /// An album that may not be complete; it was not taken.
    album: Option<(String, usize)>,
}

/// An update, or `None` when it has no id. One that cannot be read is an update without content: it must not block the rest.
fn update(value: Value) -> Option<(i64, Update)> {
    let id = value.get("update_id").and_then(Value::as_i64)?;
    let read = serde_json::from_value(value);
    let update = read.unwrap_or_else(|error| {
        tracing::warn!("telegram: update {id} cannot be read and is left out: {error}");
        Update { update_id: id, ..Update::default() }
    });
    Some((id, update))
}

fn of_album(received: &Received, wanted: &str) -> bool {
    matches!(received, Received::Message { album: Some(album), .. } if album == wanted)
}

/// Makes one message of an album: the text of the one that has it, the files of all.
pub(super) fn join(parts: &[&Received]) -> Option<(Inbound, Vec<Remote>)> {
    let mut whole: Option<(Inbound, Vec<Remote>)> = None;
    for part in parts {
        let Received::Message { inbound, files, .. } = part else { continue };
        match &mut whole {
            None => whole = Some(((**inbound).clone(), files.clone())),
            Some((first, all)) => {
                all.extend(files.iter().cloned());
                first.mentions_me |= inbound.mentions_me;
                if !inbound.text.is_empty() {
                    add_lines(&mut first.text, std::slice::from_ref(&inbound.text));
                }
            }
        }
    }
    whole
}

/// Reads one update from a webhook.
pub(super) fn read_one(reader: &Reader<'_>, body: &[u8]) -> Option<Received> {
    let value: Value = serde_json::from_slice(body).ok()?;
    update(value).map(|(_, update)| reader.read(&update))
}
