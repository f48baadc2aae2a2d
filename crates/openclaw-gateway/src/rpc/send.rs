//! Sending by hand: `send`, `message.action`, `poll`.
//!
//! A key is sent once. That it begins is on disk before it leaves, and how it ended after; a repeated key gets the ending. If
//! the ending was lost (a crash, a cut connection), a repetition is told so, and nothing is sent again.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use openclaw_channels::{
    channel::{Handle, SendError},
    message::{Address, Button, ButtonStyle, Hints, Media, Outbound, Poll as Question},
    section::{Section, normal},
};
use openclaw_protocol::{
    ErrorShape,
    method::channels::{Delivered, MessageAction, MessageActionParams, Poll, PollParams, Send, SendParams},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::registry::{Call, Registry};
use crate::{
    channels::kinds,
    clock::now_ms,
    gateway::Gateway,
    store::channels::{ChannelChange, Remembered},
};

/// Longest idempotency key.
const MAX_KEY: usize = 256;
/// Largest file of one message, decoded: what a request can hold.
const MAX_FILE: usize = 20 << 20;

pub fn register(registry: &mut Registry) {
    registry
        .on_async::<Send, _>(|call, params| async move {
            let digest = digest("send", &params)?;
            let planned = plan_send(&call.gateway, &params)?;
            once(&call.gateway, params.idempotency_key.clone(), digest, deliver(params.idempotency_key, planned)).await
        })
        .on_async::<Poll, _>(|call, params| async move {
            let digest = digest("poll", &params)?;
            let planned = plan_poll(&call.gateway, &params)?;
            once(&call.gateway, params.idempotency_key.clone(), digest, ask(params.idempotency_key, planned)).await
        })
        .on_async::<MessageAction, _>(|call, params| async move { action(&call, params).await });
}

/// An address and the account that reaches it.
struct Target {
    channel: Handle,
    to: Address,
}

/// How a send ended, as it is kept.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Ended {
    Ok(Value),
    /// It left, and nobody knows.
    Unknown(String),
}

fn digest(method: &str, params: &impl Serialize) -> Result<String, ErrorShape> {
    let text = serde_json::to_string(params).map_err(|error| ErrorShape::invalid(error.to_string()))?;
    Ok(openclaw_protocol::secret::hex(&Sha256::digest(format!("{method}\0{text}"))))
}

/// Carries out `work` for a key that is new, and gives the remembered ending for one that is not.
async fn once<T>(
    gateway: &Arc<Gateway>,
    key: String,
    digest: String,
    work: impl Future<Output = Result<T, SendError>> + std::marker::Send + 'static,
) -> Result<T, ErrorShape>
where
    T: Serialize + DeserializeOwned + std::marker::Send + 'static,
{
    if key.trim().is_empty() || key.len() > MAX_KEY {
        return Err(ErrorShape::invalid(format!("idempotencyKey must have 1 to {MAX_KEY} characters")));
    }
    let worker = Arc::clone(gateway);
    gateway
        .whole(async move {
            let turn = worker.channels.send_turn(&key);
            let _turn = turn.lock().await;
            let unsaved =
                |error| ErrorShape::retry_later(format!("it could not be saved and was not sent: {error}"), 1_000);
            if let Some(before) = worker.store.channel_send(&key).await.map_err(unsaved)? {
                return again(before, &digest);
            }
            let begins = ChannelChange::Sending { key: key.clone(), digest, at_ms: now_ms() };
            worker.store.commit([begins]).await.map_err(unsaved)?;
            let outcome = work.await;
            let (ended, answer) = match outcome {
                Ok(result) => {
                    let value = serde_json::to_value(&result).unwrap_or_default();
                    (Some(Ended::Ok(value)), Ok(result))
                }
                Err(SendError::Unknown { why }) => (Some(Ended::Unknown(why.clone())), Err(unknown(&why))),
                Err(SendError::NotSent { why, retry_after }) => (None, Err(not_sent(why, retry_after))),
            };
            let change = match ended {
                Some(ended) => ChannelChange::Sent { key, outcome: serde_json::to_string(&ended).unwrap_or_default() },
                None => ChannelChange::NotSent { key },
            };
            if let Err(error) = worker.store.commit([change]).await {
                // Without it a repetition is told that the ending is not known, which is true enough.
                tracing::error!("how a send ended was not saved: {error}");
            }
            answer
        })
        .await
}

fn again<T: DeserializeOwned>(before: Remembered, digest: &str) -> Result<T, ErrorShape> {
    if before.digest != digest {
        return Err(ErrorShape::invalid(
            "this idempotencyKey was used for another message; nothing was sent. Use a new key for a new message",
        )
        .detail("reason", "idempotency-conflict"));
    }
    match before.outcome.as_deref().map(serde_json::from_str::<Ended>) {
        Some(Ok(Ended::Ok(value))) => serde_json::from_value(value)
            .map_err(|error| ErrorShape::unavailable(format!("the remembered answer is unreadable: {error}"))),
        Some(Ok(Ended::Unknown(why))) => Err(unknown(&why)),
        _ => Err(unknown("the gateway stopped while it was being sent")),
    }
}

fn unknown(why: &str) -> ErrorShape {
    ErrorShape::unavailable(format!(
        "whether it was sent is not known: {why}. It was not repeated; look into the chat before sending it again with a new \
         key"
    ))
    .with_details(json!({"reason": "send-outcome-unknown"}))
}

fn not_sent(why: String, retry_after: Option<Duration>) -> ErrorShape {
    let shape = match retry_after {
        Some(after) => ErrorShape::retry_later(why, u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
        None => ErrorShape::unavailable(why),
    };
    shape.detail("reason", "not-sent")
}

async fn deliver(key: String, (target, message): (Target, Outbound)) -> Result<Delivered, SendError> {
    let Target { channel, to } = target;
    let ids = match channel.send(&to, &message).await {
        Ok(ids) => ids,
        // A part was seen: the whole must not be sent again.
        Err(partly) if !partly.sent.is_empty() => {
            let why = format!("{} (sent before: {})", partly.error, partly.sent.join(", "));
            return Err(SendError::Unknown { why });
        }
        Err(partly) => return Err(partly.error),
    };
    Ok(Delivered {
        run_id: key,
        message_id: ids.last().cloned().unwrap_or_default(),
        channel: to.channel,
        chat_id: to.chat,
        message_ids: if ids.len() > 1 { ids } else { Vec::new() },
    })
}

async fn ask(key: String, (target, question): (Target, Question)) -> Result<Delivered, SendError> {
    let Target { channel, to } = target;
    let message_id = channel.poll(&to, &question).await?;
    Ok(Delivered { run_id: key, message_id, channel: to.channel, chat_id: to.chat, message_ids: Vec::new() })
}

/// Finds the account and the chat. A prefix of the chat names the channel where none is given, and has to agree where one is.
fn target(
    gateway: &Gateway,
    channel: Option<&str>,
    account: Option<&str>,
    to: &str,
    thread: Option<&str>,
) -> Result<Target, ErrorShape> {
    let document = Arc::clone(&gateway.runtime.load().config);
    let configured: Vec<&str> =
        kinds::ALL.iter().map(|(id, _)| *id).filter(|id| !Section::accounts(&document, id).is_empty()).collect();
    let to = to.trim();
    let (prefix, rest) = match to.split_once(':') {
        Some(("telegram" | "tg", rest)) => (Some("telegram"), rest),
        Some(("discord", rest)) => (Some("discord"), rest),
        _ => (None, to),
    };
    let named = channel.map(|channel| channel.trim().to_lowercase()).filter(|channel| !channel.is_empty());
    let channel = match (named.as_deref(), prefix) {
        (Some(named), Some(prefix)) if named != prefix => {
            return Err(ErrorShape::invalid(format!("the target \"{to}\" is not one of {named}")));
        }
        (Some(named), _) => named.to_owned(),
        (None, Some(prefix)) => prefix.to_owned(),
        (None, None) => match configured.as_slice() {
            [only] => (*only).to_owned(),
            [] => {
                return Err(ErrorShape::invalid(
                    "Error: Channel is required (no configured channels detected). Run openclaw channels add to configure \
                     one, or pass --channel <channel> after enabling a channel. Use openclaw channels list --all to see \
                     available channel ids.",
                ));
            }
            several => {
                return Err(ErrorShape::invalid(format!("channel is required: there are {}", several.join(", "))));
            }
        },
    };
    if kinds::label(&channel).is_none() {
        return Err(ErrorShape::invalid(format!("unknown channel: {channel}")));
    }
    let account = match account.map(str::trim).filter(|account| !account.is_empty()) {
        Some(account) => normal(account),
        None => Section::default_account(&document, &channel),
    };
    let (chat, topic) = match rest.split_once(":topic:") {
        Some((chat, topic)) => (chat, Some(topic)),
        None => (rest, None),
    };
    let chat = chat.trim();
    if chat.is_empty() || chat.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(ErrorShape::invalid("to must name a chat: an id, @name or <id>:topic:<n>"));
    }
    let handle = gateway.channels.handle(&channel, &account).ok_or_else(|| {
        let views = gateway.channels.views();
        let view = views.into_iter().find(|(c, a, _)| *c == channel && *a == account).map(|(_, _, view)| view);
        let label = kinds::label(&channel).unwrap_or(&channel);
        ErrorShape::unavailable(match view {
            Some(view) => {
                let why = view.error.unwrap_or_else(|| view.state.as_str().to_owned());
                format!("{label} account \"{account}\" is not running: {why}")
            }
            None if channel == "telegram" => {
                "Error: Telegram bot token missing. Set TELEGRAM_BOT_TOKEN or channels.telegram.botToken.".to_owned()
            }
            None => {
                format!("{label} account \"{account}\" is not configured; add it with: openclaw channels add {channel}")
            }
        })
    })?;
    let thread = thread.or(topic).map(str::trim).filter(|thread| !thread.is_empty()).map(str::to_owned);
    Ok(Target { channel: handle, to: Address { channel, account, chat: chat.to_owned(), thread } })
}

fn plan_send(gateway: &Gateway, params: &SendParams) -> Result<(Target, Outbound), ErrorShape> {
    if params.media_url.is_some() || params.media_urls.as_ref().is_some_and(|urls| !urls.is_empty()) {
        return Err(ErrorShape::invalid("mediaUrl is not fetched by this gateway; send the file itself in buffer"));
    }
    let mut media = Vec::new();
    if let Some(text) = &params.buffer {
        media.push(file(text, params.filename.as_deref(), params.content_type.as_deref())?);
    }
    let text = params.message.clone().unwrap_or_default();
    if text.trim().is_empty() && media.is_empty() {
        return Err(ErrorShape::invalid("there is nothing to send: message and buffer are empty"));
    }
    let target = target(
        gateway,
        params.channel.as_deref(),
        params.account_id.as_deref(),
        &params.to,
        params.thread_id.as_deref(),
    )?;
    let message = Outbound {
        text,
        media,
        reply_to: params.reply_to_id.clone(),
        silent: params.silent,
        hints: Hints { as_document: params.force_document, as_voice: params.as_voice },
        ..Outbound::default()
    };
    Ok((target, message))
}

/// A file in Base64, also as a `data:` URL.
fn file(text: &str, name: Option<&str>, mime: Option<&str>) -> Result<Media, ErrorShape> {
    let (given, data) = match text.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,")) {
        Some((mime, data)) => (Some(mime), data),
        None => (None, text),
    };
    if data.len() / 4 * 3 > MAX_FILE {
        return Err(ErrorShape::invalid(format!("the file is larger than {} MB", MAX_FILE >> 20)));
    }
    let data = STANDARD.decode(data.trim()).map_err(|_| ErrorShape::invalid("buffer is not Base64"))?;
    let mime = mime.or(given).unwrap_or("application/octet-stream").to_owned();
    Ok(Media { mime, file_name: name.map(str::to_owned), data: Bytes::from(data) })
}

fn plan_poll(gateway: &Gateway, params: &PollParams) -> Result<(Target, Question), ErrorShape> {
    if !(2..=12).contains(&params.options.len()) || params.options.iter().any(|option| option.trim().is_empty()) {
        return Err(ErrorShape::invalid("invalid poll params: options must have 2 to 12 entries that are not empty"));
    }
    if params.question.trim().is_empty() {
        return Err(ErrorShape::invalid("invalid poll params: question must not be empty"));
    }
    let hours = params.duration_hours.map(|hours| hours.saturating_mul(3600));
    let seconds = params.duration_seconds.or(hours);
    if seconds.is_some_and(|seconds| !(5..=604_800).contains(&seconds)) {
        return Err(ErrorShape::invalid("a poll is open for 5 seconds to 7 days"));
    }
    let target = target(
        gateway,
        params.channel.as_deref(),
        params.account_id.as_deref(),
        &params.to,
        params.thread_id.as_deref(),
    )?;
    let question = Question {
        question: params.question.clone(),
        options: params.options.clone(),
        max_selections: params.max_selections,
        open_for: seconds.map(Duration::from_secs),
        anonymous: params.is_anonymous.unwrap_or(true),
        silent: params.silent,
    };
    Ok((target, question))
}

/// `message.action`: the CLI's options as they are, under the names of the action.
async fn action(call: &Call, asked: MessageActionParams) -> Result<Value, ErrorShape> {
    let gateway = &call.gateway;
    let digest = digest("message.action", &asked)?;
    let MessageActionParams { channel, action, params, account_id, idempotency_key: key } = asked;
    let args = Args(&params);
    let allowed = |key: &str| {
        let document = Arc::clone(&gateway.runtime.load().config);
        let account = account_id.as_deref().map_or_else(|| Section::default_account(&document, &channel), normal);
        let actions = Section::new(&document, &channel, &account).get("actions");
        actions.and_then(|actions| actions.entry(key)).and_then(|node| node.as_bool()) != Some(false)
    };
    let gate = |key: &str| {
        if allowed(key) {
            Ok(())
        } else {
            Err(ErrorShape::invalid(format!("channels.{channel}.actions.{key} is false")))
        }
    };
    let account = account_id.as_deref().or_else(|| args.text("accountId").or_else(|| args.text("account")));
    let place = || {
        let to = args
            .first(&["to", "target", "chatId"])
            .ok_or_else(|| ErrorShape::invalid("to (the target) is required"))?;
        let thread = args.first(&["threadId", "messageThreadId"]);
        target(gateway, Some(&channel), account, &to, thread.as_deref())
    };
    let message_id = || args.first(&["messageId", "id"]).ok_or_else(|| ErrorShape::invalid("messageId is required"));
    if args.flag("dryRun") {
        let target = place()?;
        return Ok(json!({"dryRun": true, "channel": target.to.channel, "to": target.to.chat, "action": action}));
    }
    match action.as_str() {
        "send" | "sendMessage" | "reply" => {
            gate("sendMessage")?;
            let send = SendParams {
                to: args.first(&["to", "target", "chatId"]).unwrap_or_default(),
                message: args.first(&["message", "content", "text", "caption"]),
                media_url: args.first(&["mediaUrl", "media"]),
                buffer: args.first(&["buffer"]),
                filename: args.first(&["filename", "fileName"]),
                content_type: args.first(&["contentType", "mimeType"]),
                as_voice: args.flag("asVoice"),
                channel: Some(channel),
                account_id: account.map(str::to_owned),
                reply_to_id: args.first(&["replyTo", "replyToId", "replyToMessageId"]),
                thread_id: args.first(&["threadId", "messageThreadId"]),
                force_document: args.flag("forceDocument"),
                silent: args.flag("silent"),
                idempotency_key: key.clone(),
                ..SendParams::default()
            };
            let (target, message) = plan_send(gateway, &send)?;
            let message = Outbound { buttons: buttons(&params), ..message };
            let work = deliver(key.clone(), (target, message));
            let sent: Delivered = once(gateway, key, digest, work).await?;
            let mut result = serde_json::to_value(&sent).unwrap_or_default();
            result["ok"] = json!(true);
            Ok(result)
        }
        "poll" => {
            gate("sendMessage")?;
            gate("poll")?;
            let poll = PollParams {
                to: args.first(&["to", "target", "chatId"]).unwrap_or_default(),
                question: args.first(&["pollQuestion", "question"]).unwrap_or_default(),
                options: args.list(&["pollOption", "pollOptions", "options"]),
                max_selections: args.flag("pollMulti").then_some(12),
                duration_seconds: args.number("pollDurationSeconds").or_else(|| args.number("durationSeconds")),
                duration_hours: args.number("pollDurationHours"),
                silent: args.flag("silent"),
                is_anonymous: Some(!args.flag("pollPublic")),
                thread_id: args.first(&["threadId", "messageThreadId"]),
                channel: Some(channel),
                account_id: account.map(str::to_owned),
                idempotency_key: key.clone(),
            };
            let planned = plan_poll(gateway, &poll)?;
            let work = ask(key.clone(), planned);
            let sent: Delivered = once(gateway, key, digest, work).await?;
            let mut result = serde_json::to_value(&sent).unwrap_or_default();
            result["ok"] = json!(true);
            Ok(result)
        }
        "edit" | "editMessage" => {
            gate("editMessage")?;
            let (target, id) = (place()?, message_id()?);
            let text = args.first(&["message", "content", "text", "caption"]);
            let text = text.filter(|text| !text.trim().is_empty());
            let text = text.ok_or_else(|| ErrorShape::invalid("message is required"))?;
            let message = Outbound { text, buttons: buttons(&params), ..Outbound::default() };
            let work = async move {
                target.channel.edit(&target.to, &id, &message).await?;
                Ok(json!({"ok": true, "messageId": id, "channel": target.to.channel, "chatId": target.to.chat}))
            };
            once(gateway, key, digest, work).await
        }
        "delete" | "deleteMessage" | "unsend" => {
            gate("deleteMessage")?;
            let (target, id) = (place()?, message_id()?);
            let work = async move {
                target.channel.delete(&target.to, &id).await?;
                Ok(json!({"ok": true, "deleted": true, "messageId": id, "channel": target.to.channel,
                    "chatId": target.to.chat}))
            };
            once(gateway, key, digest, work).await
        }
        "react" => {
            gate("reactions")?;
            let (target, id) = (place()?, message_id()?);
            let emoji = args.first(&["emoji"]).filter(|emoji| !emoji.is_empty() && !args.flag("remove"));
            let work = async move {
                target.channel.react(&target.to, &id, emoji.as_deref()).await?;
                let (added, removed) = (emoji.clone(), emoji.is_none());
                Ok(json!({"ok": true, "added": added, "removed": removed, "messageId": id,
                    "channel": target.to.channel, "chatId": target.to.chat}))
            };
            once(gateway, key, digest, work).await
        }
        other => Err(ErrorShape::invalid(format!("Message action {other} not supported for channel {channel}."))),
    }
}

/// The parameters of an action, of which callers know several spellings.
struct Args<'a>(&'a Map<String, Value>);

impl Args<'_> {
    fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(Value::as_str)
    }

    /// The first key that has a text or a number.
    fn first(&self, keys: &[&str]) -> Option<String> {
        keys.iter().find_map(|key| match self.0.get(*key)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        })
    }

    fn flag(&self, key: &str) -> bool {
        self.0.get(key).and_then(Value::as_bool).unwrap_or(false)
    }

    fn number(&self, key: &str) -> Option<u64> {
        let value = self.0.get(key)?;
        value.as_u64().or_else(|| value.as_str()?.parse().ok())
    }

    fn list(&self, keys: &[&str]) -> Vec<String> {
        let found = keys.iter().find_map(|key| self.0.get(*key)?.as_array());
        found.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    }
}

/// The buttons of `presentation.blocks`: one row for each block.
fn buttons(params: &Map<String, Value>) -> Vec<Vec<Button>> {
    let blocks =
        params.get("presentation").and_then(|presentation| presentation.get("blocks")).and_then(Value::as_array);
    let button = |value: &Value| {
        let action = &value["action"];
        let data = if action["type"] == "callback" { action["value"].as_str()? } else { return None };
        let style = match value["style"].as_str() {
            Some("success") => ButtonStyle::Good,
            Some("danger") => ButtonStyle::Danger,
            _ => ButtonStyle::Plain,
        };
        // A longer one would make Telegram refuse the whole message.
        (data.len() <= 64).then(|| Button {
            label: value["label"].as_str().unwrap_or(data).to_owned(),
            data: data.to_owned(),
            style,
        })
    };
    let row = |block: &Value| -> Vec<Button> {
        block["buttons"].as_array().into_iter().flatten().filter_map(button).collect()
    };
    blocks
        .into_iter()
        .flatten()
        .filter(|block| block["type"] == "buttons")
        .map(row)
        .filter(|row| !row.is_empty())
        .collect()
}
