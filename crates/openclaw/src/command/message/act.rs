//! What else can be done with messages: `poll`, `edit`, `delete`, `react`, `broadcast`. All go by `message.action`, as the
//! reference's command line sends them; what a channel cannot do, the gateway says.

use std::time::Duration;

use clap::Args;
use openclaw_remote::connect::{DeviceUse, Persona};
use serde_json::{Value, json};

use super::{Send, explain};
use crate::{
    args::PortTargetArgs,
    command::{
        chat::wire::text,
        rpc::{WRITE, fresh_key, lacking},
    },
    context::Context,
    failure::{Failure, Outcome},
    output::{self, inert},
    reach::block_on,
};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// Where a message is, or goes.
#[derive(Args, Debug)]
pub struct Place {
    /// Channel: telegram or discord; a target such as telegram:123 names it, too
    #[arg(long, value_name = "CHANNEL")]
    pub channel: Option<String>,
    /// Chat
    #[arg(short, long, visible_alias = "to", value_name = "DEST", allow_hyphen_values = true)]
    pub target: String,
    /// Thread or topic
    #[arg(long, visible_alias = "thread", value_name = "ID")]
    pub thread_id: Option<String>,
    /// The gateway's account on the channel
    #[arg(long, value_name = "ID")]
    pub account: Option<String>,
    /// Show what would be done
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub at: PortTargetArgs,
}

#[derive(Args, Debug)]
pub struct Poll {
    #[command(flatten)]
    pub place: Place,
    /// The question
    #[arg(long, visible_alias = "question", value_name = "TEXT")]
    pub poll_question: String,
    /// An answer (2 to 12 times)
    #[arg(long, visible_alias = "option", value_name = "TEXT", required = true, num_args = 1)]
    pub poll_option: Vec<String>,
    /// Several answers may be given
    #[arg(long)]
    pub poll_multi: bool,
    /// How long it is open
    #[arg(long, value_name = "SECONDS")]
    pub poll_duration_seconds: Option<u64>,
    /// The same in hours
    #[arg(long, value_name = "HOURS", conflicts_with = "poll_duration_seconds")]
    pub poll_duration_hours: Option<u64>,
    /// Everybody sees who answered what
    #[arg(long)]
    pub poll_public: bool,
    /// Without a notification
    #[arg(long)]
    pub silent: bool,
}

#[derive(Args, Debug)]
pub struct Edit {
    #[command(flatten)]
    pub place: Place,
    /// The message, as send told it
    #[arg(long, value_name = "ID")]
    pub message_id: String,
    /// The new text
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    pub message: String,
}

#[derive(Args, Debug)]
pub struct Delete {
    #[command(flatten)]
    pub place: Place,
    /// The message
    #[arg(long, value_name = "ID")]
    pub message_id: String,
}

#[derive(Args, Debug)]
pub struct React {
    #[command(flatten)]
    pub place: Place,
    /// The message
    #[arg(long, value_name = "ID")]
    pub message_id: String,
    /// The reaction
    #[arg(long, value_name = "EMOJI", required_unless_present = "remove")]
    pub emoji: Option<String>,
    /// Take it away
    #[arg(long)]
    pub remove: bool,
}

#[derive(Args, Debug)]
pub struct Broadcast {
    /// Recipients, one after the other; telegram:123 names the channel, too
    #[arg(long, value_name = "DEST", num_args = 1.., required = true, allow_hyphen_values = true)]
    pub targets: Vec<String>,
    /// Channel of those that name none
    #[arg(long, value_name = "CHANNEL")]
    pub channel: Option<String>,
    /// Text
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    pub message: String,
    /// The gateway's account on the channel
    #[arg(long, value_name = "ID")]
    pub account: Option<String>,
    /// Without a notification
    #[arg(long)]
    pub silent: bool,
    /// Show what would be sent
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub at: PortTargetArgs,
}

/// The channel that is meant, and the target as `message.action` has it.
fn channel(place: &Place) -> Result<(String, String), Failure> {
    let target = place.target.trim();
    if target.is_empty() {
        return Err(Failure::new("--target must not be empty."));
    }
    let prefix =
        target.split_once(':').map(|(prefix, _)| prefix).filter(|prefix| ["telegram", "discord"].contains(prefix));
    let named = place.channel.as_deref().map(str::trim).filter(|channel| !channel.is_empty());
    match named.or(prefix) {
        Some(channel) => Ok((channel.to_lowercase(), target.to_owned())),
        None => Err(Failure::new("Which channel? Give --channel, or a target such as telegram:123.")
            .remedy("see which there are", "openclaw channels status")),
    }
}

/// Does it, and says so.
fn act(context: &Context, place: &Place, action: &str, mut inner: Value, done: &str) -> Outcome {
    let (channel, target) = channel(place)?;
    inner["channel"] = json!(channel);
    inner["action"] = json!(action);
    inner["target"] = json!(target);
    inner["to"] = json!(target);
    if let Some(thread) = &place.thread_id {
        inner["threadId"] = json!(thread);
    }
    if place.dry_run {
        if place.at.target.json {
            output::json(&json!({"action": action, "channel": channel, "dryRun": true, "handledBy": "dry-run",
                "payload": inner}));
        } else {
            output::line(format!("[dry-run] would run {action} via {}", inert(&channel)));
        }
        return Ok(0);
    }
    let key = fresh_key()?;
    let mut params = json!({"channel": channel, "action": action, "params": inner, "idempotencyKey": key});
    if let Some(account) = &place.account {
        params["accountId"] = json!(account);
    }
    let reach = context.reach(&place.at, DEFAULT_TIMEOUT)?;
    let answer = block_on(async {
        let progress = context.output.progress(format!("Connecting to {} …", reach.describe()));
        let opened = reach.session(Persona::Cli, &[WRITE], DeviceUse::WhenNeeded, &|text| progress.say(text)).await;
        let (session, _notices) = opened.map_err(|error| reach.failure(&error))?;
        let methods = session.methods();
        if !methods.is_empty() && !methods.iter().any(|known| known == "message.action") {
            return Err(lacking("message.action", &format!("{action} messages"), "an older gateway"));
        }
        // The key makes it safe to ask again when the connection is lost.
        let answer = session.call("message.action", Some(params), reach.timeout()).await;
        let answer = answer.map_err(|error| explain(&reach, &error, &key))?;
        session.close().await;
        Ok(answer)
    })?;
    if place.at.target.json {
        output::json(&answer);
        return Ok(0);
    }
    let id = text(&answer, "messageId").map(|id| format!(" (message {})", inert(&id))).unwrap_or_default();
    output::line(format!("{} {done} in {} by {}{id}.", context.output.out.ok(), inert(&target), inert(&channel)));
    Ok(0)
}

pub fn poll(context: &Context, args: &Poll) -> Outcome {
    let mut inner = json!({"pollQuestion": args.poll_question, "pollOption": args.poll_option,
        "pollMulti": args.poll_multi, "pollPublic": args.poll_public, "silent": args.silent});
    let spans = [("pollDurationSeconds", args.poll_duration_seconds), ("pollDurationHours", args.poll_duration_hours)];
    for (name, value) in spans {
        if let Some(value) = value {
            inner[name] = json!(value);
        }
    }
    act(context, &args.place, "poll", inner, "Asked")
}

pub fn edit(context: &Context, args: &Edit) -> Outcome {
    let inner = json!({"messageId": args.message_id, "message": args.message});
    act(context, &args.place, "edit", inner, "Changed")
}

pub fn delete(context: &Context, args: &Delete) -> Outcome {
    act(context, &args.place, "delete", json!({"messageId": args.message_id}), "Deleted")
}

pub fn react(context: &Context, args: &React) -> Outcome {
    let mut inner = json!({"messageId": args.message_id, "remove": args.remove});
    if let Some(emoji) = &args.emoji {
        inner["emoji"] = json!(emoji);
    }
    act(context, &args.place, "react", inner, if args.remove { "Took the reaction away" } else { "Reacted" })
}

/// One after the other; one that fails stops no other.
pub fn broadcast(context: &Context, args: &Broadcast) -> Outcome {
    let mut results = Vec::new();
    for target in &args.targets {
        let send = Send {
            channel: args.channel.clone().filter(|channel| channel != "all"),
            target: target.clone(),
            message: Some(args.message.clone()),
            media: None,
            reply_to: None,
            thread_id: None,
            account: args.account.clone(),
            silent: args.silent,
            dry_run: args.dry_run,
            idempotency_key: None,
            at: PortTargetArgs {
                target: crate::args::TargetArgs { json: false, ..args.at.target.clone() },
                port: args.at.port,
            },
        };
        match super::sent(context, &send) {
            Ok(answer) => {
                if !args.at.target.json {
                    output::line(format!("{} {}", context.output.out.ok(), inert(target)));
                }
                results.push(json!({"target": target, "ok": true, "result": answer}));
            }
            Err(failure) => {
                if !args.at.target.json {
                    output::note(format!("{} {}: {}", context.output.err.bad(), inert(target), failure.message()));
                }
                results.push(json!({"target": target, "ok": false, "error": failure.envelope()["error"]}));
            }
        }
    }
    let failed = results.iter().filter(|result| result["ok"] == false).count();
    if args.at.target.json {
        output::json(&json!({"ok": failed == 0, "results": results}));
    } else if failed > 0 {
        output::note(format!("{failed} of {} were not sent.", results.len()));
    }
    Ok(u8::from(failed > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_channel_that_is_meant() {
        let check = |channel_given: Option<&str>, target: &str, expected: Option<&str>| {
            let place = Place {
                channel: channel_given.map(str::to_owned),
                target: target.to_owned(),
                thread_id: None,
                account: None,
                dry_run: true,
                at: PortTargetArgs::default(),
            };
            let found = channel(&place).ok().map(|(channel, _)| channel);
            assert_eq!(found.as_deref(), expected, "{channel_given:?} {target}");
        };
        check(Some("Telegram"), "7", Some("telegram"));
        check(None, "telegram:7", Some("telegram"));
        check(None, "discord:channel:7", Some("discord"));
        check(None, "channel:7", None);
        check(None, "7", None);
        check(Some("telegram"), " ", None);
    }
}
