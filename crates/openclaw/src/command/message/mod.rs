//! `openclaw message …`: a message to somebody on a channel, by the gateway's account there.

mod act;

use std::{path::PathBuf, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::{Args, Subcommand};
use openclaw_remote::{
    Error as RemoteError,
    connect::{DeviceUse, Persona},
};
use serde_json::{Value, json};

use super::{
    chat::{file, wire::text},
    rpc::{WRITE, fresh_key, lacking},
};
use crate::{
    args::PortTargetArgs,
    context::Context,
    failure::{Failure, Outcome},
    output::{self, inert},
    reach::{Reach, block_on},
};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest file that is sent along (a frame holds 25 MiB, and Base64 makes it a third larger).
const MAX_MEDIA_BYTES: u64 = 16 << 20;

#[derive(Args, Debug)]
pub struct Message {
    #[command(subcommand)]
    pub command: MessageCommand,
}

#[derive(Debug, Subcommand)]
pub enum MessageCommand {
    /// Send a message
    Send(Send),
    /// Ask a question with answers to choose from
    Poll(act::Poll),
    /// Change a message the gateway sent
    Edit(act::Edit),
    /// Delete a message
    Delete(act::Delete),
    /// React to a message
    React(act::React),
    /// Send the same to several
    Broadcast(act::Broadcast),
}

impl Message {
    pub fn wants_json(&self) -> bool {
        use MessageCommand as C;
        match &self.command {
            C::Send(args) => args.at.target.json,
            C::Poll(args) => args.place.at.target.json,
            C::Edit(args) => args.place.at.target.json,
            C::Delete(args) => args.place.at.target.json,
            C::React(args) => args.place.at.target.json,
            C::Broadcast(args) => args.at.target.json,
        }
    }
}

#[derive(Args, Debug)]
pub struct Send {
    /// Channel; needed when the gateway has more than one
    #[arg(long, value_name = "CHANNEL")]
    pub channel: Option<String>,
    /// Recipient: a chat id, @name, channel:ID, user:ID … as the channel names them
    #[arg(short, long, visible_alias = "to", value_name = "DEST", allow_hyphen_values = true)]
    pub target: String,
    /// Text
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    pub message: Option<String>,
    /// A file, or the https:// address of one
    #[arg(long, value_name = "FILE")]
    pub media: Option<String>,
    /// Message that is answered
    #[arg(long, value_name = "ID")]
    pub reply_to: Option<String>,
    /// Thread or topic
    #[arg(long, visible_alias = "thread", value_name = "ID")]
    pub thread_id: Option<String>,
    /// The gateway's account on the channel
    #[arg(long, value_name = "ID")]
    pub account: Option<String>,
    /// Without a notification
    #[arg(long)]
    pub silent: bool,
    /// Show what would be sent
    #[arg(long)]
    pub dry_run: bool,
    /// The key of the message; the same again sends nothing twice
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    #[command(flatten)]
    pub at: PortTargetArgs,
}

/// What goes with the text.
enum Media {
    Address(String),
    File { name: String, mime: &'static str, base64: String },
}

pub fn run(context: &Context, args: &Message) -> Outcome {
    match &args.command {
        MessageCommand::Send(args) => send(context, args),
        MessageCommand::Poll(args) => act::poll(context, args),
        MessageCommand::Edit(args) => act::edit(context, args),
        MessageCommand::Delete(args) => act::delete(context, args),
        MessageCommand::React(args) => act::react(context, args),
        MessageCommand::Broadcast(args) => act::broadcast(context, args),
    }
}

/// `openclaw message send` and `openclaw gateway send`.
pub fn send(context: &Context, args: &Send) -> Outcome {
    let Some(answer) = sent(context, args)? else { return Ok(0) };
    if args.at.target.json {
        output::json(&answer);
        return Ok(0);
    }
    let channel = args.channel.as_deref().unwrap_or("the only channel");
    let result = if answer["result"].is_object() { &answer["result"] } else { &answer };
    let id = text(result, "messageId").or_else(|| result["messageId"].as_i64().map(|id| id.to_string()));
    let id = id.or_else(|| text(&answer["payload"], "messageId"));
    let id = id.map(|id| format!(" (message {})", inert(&id))).unwrap_or_default();
    let via = text(result, "channel").unwrap_or_else(|| channel.to_owned());
    let ok = context.output.out.ok();
    output::line(format!("{ok} Sent to {} by {}{id}.", inert(args.target.trim()), inert(&via)));
    Ok(0)
}

/// Sends it; the gateway's answer. `None` when only shown.
fn sent(context: &Context, args: &Send) -> Result<Option<Value>, Failure> {
    let target = args.target.trim();
    if target.is_empty() {
        return Err(Failure::new("--target must not be empty."));
    }
    let words = args.message.as_deref().filter(|words| !words.trim().is_empty());
    if words.is_none() && args.media.is_none() {
        return Err(Failure::new("There is nothing to send: give --message or --media."));
    }
    let key = match args.idempotency_key.as_deref().map(str::trim) {
        Some("") => return Err(Failure::new("--idempotency-key must not be empty.")),
        Some(key) => key.to_owned(),
        None => fresh_key()?,
    };
    let media = args.media.as_deref().map(|media| media_of(context, media)).transpose()?;
    if args.dry_run {
        dry_run(context, args, args.channel.as_deref().unwrap_or("the only channel"), media.as_ref())?;
        return Ok(None);
    }
    let reach = context.reach(&args.at, DEFAULT_TIMEOUT)?;
    block_on(deliver(context, &reach, args, words, media.as_ref(), &key)).map(Some)
}

fn media_of(context: &Context, media: &str) -> Result<Media, Failure> {
    let media = media.trim();
    if media.starts_with("https://") || media.starts_with("http://") {
        return Ok(Media::Address(media.to_owned()));
    }
    let path: PathBuf = file::path(media, context.env.get("HOME"));
    let shown = inert(&path.display().to_string()).into_owned();
    let unread = |error: std::io::Error| Failure::new(format!("{shown} cannot be read: {error}."));
    let found = std::fs::metadata(&path).map_err(unread)?;
    if !found.is_file() || found.len() > MAX_MEDIA_BYTES {
        return Err(Failure::new(format!("{shown} is no file of at most {} MiB.", MAX_MEDIA_BYTES >> 20)));
    }
    let bytes = std::fs::read(&path).map_err(unread)?;
    let name = path.file_name().map_or_else(|| "file".to_owned(), |name| name.to_string_lossy().into_owned());
    Ok(Media::File { name, mime: file::mime(&path, &bytes), base64: STANDARD.encode(&bytes) })
}

fn dry_run(context: &Context, args: &Send, channel: &str, media: Option<&Media>) -> Outcome {
    let media = media.map(|media| match media {
        Media::Address(address) => address.clone(),
        Media::File { name, mime, .. } => format!("{name} ({mime})"),
    });
    if args.at.target.json {
        output::json(&json!({"action": "send", "channel": args.channel, "dryRun": true, "handledBy": "dry-run",
            "payload": {"to": args.target, "message": args.message, "media": media}}));
    } else {
        output::line(format!("[dry-run] would run send via {}", inert(channel)));
        let dim = |text: String| output::line(context.output.out.paint(output::Tone::Dim, &text));
        dim(format!("  to {}", inert(&args.target)));
        if let Some(media) = media {
            dim(format!("  with {}", inert(&media)));
        }
    }
    Ok(0)
}

async fn deliver(
    context: &Context,
    reach: &Reach<'_>,
    args: &Send,
    words: Option<&str>,
    media: Option<&Media>,
    key: &str,
) -> Result<Value, Failure> {
    let progress = context.output.progress(format!("Connecting to {} …", reach.describe()));
    let opened = reach.session(Persona::Cli, &[WRITE], DeviceUse::WhenNeeded, &|text| progress.say(text)).await;
    let (session, _notices) = opened.map_err(|error| reach.failure(&error))?;
    progress.say(format!("Sending to {} …", inert(&args.target)));
    let methods = session.methods();
    let has = |method: &str| methods.is_empty() || methods.iter().any(|known| known == method);
    let (method, params) = match (media, &args.channel) {
        // Files go with `send`; so does what names no channel, which `message.action` needs.
        (None | Some(Media::Address(_)), Some(channel)) if has("message.action") => {
            ("message.action", action(args, channel, words, media, key))
        }
        _ if has("send") => ("send", plain(args, words, media, key)),
        _ => return Err(lacking("send", "send messages", "a gateway without channels")),
    };
    if matches!(media, Some(Media::File { .. })) && !has("message.action") {
        return Err(Failure::new("This gateway takes media only by address, not as a file.")
            .remedy("put it where the gateway can fetch it", "openclaw message send … --media https://…"));
    }
    // The key makes it safe to send the call again when the connection is lost.
    let answer = session.call(method, Some(params), reach.timeout()).await;
    drop(progress);
    let answer = answer.map_err(|error| explain(reach, &error, key))?;
    session.close().await;
    Ok(answer)
}

/// The reference's `message.action`.
fn action(args: &Send, channel: &str, words: Option<&str>, media: Option<&Media>, key: &str) -> Value {
    let target = args.target.trim();
    let to = if target.starts_with(&format!("{channel}:")) { target.to_owned() } else { format!("{channel}:{target}") };
    let mut inner = json!({"channel": channel, "action": "send", "target": target, "to": to, "silent": args.silent});
    if let Some(words) = words {
        inner["message"] = json!(words);
    }
    if let Some(Media::Address(address)) = media {
        inner["media"] = json!(address);
    }
    for (name, value) in [("replyTo", &args.reply_to), ("threadId", &args.thread_id)] {
        if let Some(value) = value {
            inner[name] = json!(value);
        }
    }
    let mut params = json!({"channel": channel, "action": "send", "params": inner, "idempotencyKey": key});
    if let Some(account) = &args.account {
        params["accountId"] = json!(account);
    }
    params
}

/// The older `send`, and the only one that takes a file.
fn plain(args: &Send, words: Option<&str>, media: Option<&Media>, key: &str) -> Value {
    let mut params = json!({"to": args.target.trim(), "message": words.unwrap_or_default(), "idempotencyKey": key});
    match media {
        Some(Media::Address(address)) => params["mediaUrl"] = json!(address),
        Some(Media::File { name, mime, base64 }) => {
            params["buffer"] = json!(base64);
            params["filename"] = json!(name);
            params["contentType"] = json!(mime);
        }
        None => {}
    }
    let fields = [
        ("channel", &args.channel),
        ("accountId", &args.account),
        ("replyToId", &args.reply_to),
        ("threadId", &args.thread_id),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            params[name] = json!(value);
        }
    }
    if args.silent {
        params["silent"] = json!(true);
    }
    params
}

/// An answer that did not come says nothing about the message.
fn explain(reach: &Reach<'_>, error: &RemoteError, key: &str) -> Failure {
    let failure = reach.failure(error);
    match error {
        RemoteError::OutcomeUnknown { .. } | RemoteError::Timeout { .. } | RemoteError::Closed { .. } => failure
            .detail("Whether the message was sent is not known: the gateway did not answer in time.")
            .detail("For five minutes the gateway knows it by its key, and does not send it twice.")
            .remedy("send it again safely, adding", format!("--idempotency-key {key}"))
            .beside("idempotencyKey", json!(key))
            .beside("outcome", json!("unknown")),
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        send: Send,
    }

    fn args(words: &[&str]) -> Send {
        Line::try_parse_from(std::iter::once(&"send").chain(words)).expect("parses").send
    }

    #[test]
    fn what_goes_on_the_wire() {
        let line = args(&["--channel", "telegram", "-t", "-100123", "-m", "hi", "--reply-to", "7", "--thread", "9"]);
        assert_eq!(
            action(&line, "telegram", Some("hi"), None, "k"),
            json!({"channel": "telegram", "action": "send", "idempotencyKey": "k", "params": {"channel": "telegram",
                "action": "send", "target": "-100123", "to": "telegram:-100123", "silent": false, "message": "hi",
                "replyTo": "7", "threadId": "9"}})
        );
        assert_eq!(
            plain(&line, Some("hi"), None, "k"),
            json!({"to": "-100123", "message": "hi", "idempotencyKey": "k", "channel": "telegram", "replyToId": "7",
                "threadId": "9"})
        );
        let line =
            args(&["--to", "telegram:1", "--channel", "telegram", "--media", "x.png", "--silent", "--account", "a"]);
        let file = Media::File { name: "x.png".into(), mime: "image/png", base64: "AA==".into() };
        assert_eq!(
            plain(&line, None, Some(&file), "k"),
            json!({"to": "telegram:1", "message": "", "idempotencyKey": "k", "buffer": "AA==", "filename": "x.png",
                "contentType": "image/png", "channel": "telegram", "accountId": "a", "silent": true})
        );
        assert_eq!(action(&line, "telegram", None, None, "k")["params"]["to"], "telegram:1");
    }
}
