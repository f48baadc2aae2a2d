//! `openclaw pairing …`: one place for everybody who asks to be let in, machines and people alike. Machines are known by their
//! request id or its two words, people by the code the bot told them.

use std::time::Duration;

use clap::{Args, Subcommand};
use openclaw_protocol::method::channels::{ChatPairing, PairingList};
use serde_json::{Value, json};

use super::{
    devices,
    rpc::{ADMIN, Rpc},
};
use crate::{
    args::{PortTargetArgs, TargetArgs},
    context::Context,
    failure::{Failure, Outcome},
    output::{
        self, Style, Tone, inert,
        table::{self, Cell},
        time,
    },
    reach::block_on,
};

const TIMEOUT: Duration = Duration::from_secs(10);
const PAIRING: &str = "operator.pairing";

#[derive(Args, Debug)]
pub struct Pairing {
    #[command(subcommand)]
    pub command: PairingCommand,
}

#[derive(Debug, Subcommand)]
pub enum PairingCommand {
    /// Who asks to be let in: machines, and people who write to a bot
    List(List),
    /// Let somebody in by the code
    Approve(Approve),
}

impl Pairing {
    /// Whether a failure has to be told on stdout as JSON, too.
    pub fn wants_json(&self) -> bool {
        match &self.command {
            PairingCommand::List(args) => args.at.json,
            PairingCommand::Approve(args) => args.at.json,
        }
    }
}

#[derive(Args, Debug)]
pub struct List {
    /// Only people who write to a bot of this channel
    #[arg(value_name = "CHANNEL")]
    pub channel: Option<String>,
    /// The same as an option
    #[arg(long = "channel", value_name = "CHANNEL", conflicts_with = "channel", id = "channel_option")]
    pub option: Option<String>,
    /// Only this account of the channel
    #[arg(long, value_name = "ID")]
    pub account: Option<String>,
    #[command(flatten)]
    pub at: TargetArgs,
}

#[derive(Args, Debug)]
#[command(override_usage = "openclaw pairing approve [CHANNEL] <CODE> [OPTIONS]")]
pub struct Approve {
    /// The channel and the code a bot told, or the request of a machine: its id, the start of it, or its two words
    #[arg(value_name = "CODE", required = true, num_args = 1..=2)]
    pub code: Vec<String>,
    /// The channel as an option
    #[arg(long, value_name = "CHANNEL")]
    pub channel: Option<String>,
    /// Only this account of the channel
    #[arg(long, value_name = "ID")]
    pub account: Option<String>,
    /// Tell the person in the chat; this is done anyway
    #[arg(long, hide = true)]
    pub notify: bool,
    /// Do not tell the person in the chat
    #[arg(long, conflicts_with = "notify")]
    pub no_notify: bool,
    #[command(flatten)]
    pub at: TargetArgs,
}

pub fn run(context: &Context, args: &Pairing) -> Outcome {
    match &args.command {
        PairingCommand::List(args) => list(context, args),
        PairingCommand::Approve(args) => approve(context, args),
    }
}

fn blank(account: Option<&str>) -> Result<(), Failure> {
    match account {
        Some(account) if account.trim().is_empty() => Err(Failure::new("--account must not be blank")),
        _ => Ok(()),
    }
}

async fn open<'a>(context: &'a Context, at: &TargetArgs, scopes: &[&str]) -> Result<Rpc<'a>, Failure> {
    let reach = context.reach(&PortTargetArgs { target: at.clone(), port: None }, TIMEOUT)?;
    Rpc::open(reach, scopes).await
}

/// What people wait. A gateway without channels has none.
async fn chats(
    rpc: &mut Rpc<'_>,
    channel: Option<&str>,
    account: Option<&str>,
) -> Result<(Value, PairingList), Failure> {
    let mut params = json!({});
    for (key, value) in [("channel", channel), ("accountId", account)] {
        if let Some(value) = value {
            params[key] = json!(value);
        }
    }
    let raw = rpc.call("channels.pairing.list", params).await?;
    let read = serde_json::from_value(raw.clone());
    let read = read.map_err(|error| Failure::new(format!("The gateway's pairing list is unreadable: {error}.")))?;
    Ok((raw, read))
}

fn list(context: &Context, args: &List) -> Outcome {
    blank(args.account.as_deref())?;
    let channel = args.channel.as_deref().or(args.option.as_deref());
    let (devices, raw, people) = block_on(async {
        let mut rpc = open(context, &args.at, &[PAIRING]).await?;
        let devices = match channel {
            Some(_) => Value::Null,
            None => rpc.call("device.pair.list", json!({})).await?["pending"].take(),
        };
        let (raw, people) = match rpc.has("channels.pairing.list") || channel.is_some() {
            true => {
                let (raw, people) = chats(&mut rpc, channel, args.account.as_deref()).await?;
                (raw["requests"].clone(), people.requests)
            }
            false => (json!([]), Vec::new()),
        };
        rpc.close().await;
        Ok((devices, raw, people))
    })?;
    if args.at.json {
        output::json(&match channel {
            Some(channel) => json!({"channel": channel, "requests": raw}),
            None => json!({"pending": devices, "requests": raw}),
        });
        return Ok(0);
    }
    let (style, now) = (context.output.out, time::now_ms());
    if channel.is_none() {
        let pending: Vec<openclaw_protocol::method::device::PendingDevice> =
            serde_json::from_value(devices).unwrap_or_default();
        if !pending.is_empty() || people.is_empty() {
            output::print(&devices::render_pending(style, &pending, now));
        }
    }
    if !people.is_empty() {
        output::print(&render(style, &people, now));
    } else if let Some(channel) = channel {
        output::line(format!("No pending {} pairing requests.", inert(channel)));
    }
    Ok(0)
}

fn render(style: Style, people: &[ChatPairing], now: i64) -> String {
    let title = style.paint(Tone::Title, &format!("Write to a bot ({})", people.len()));
    let rows: Vec<Vec<Cell>> = people
        .iter()
        .map(|request| {
            let of = |key: &str| request.metadata.get(key).map(|text| inert(text).into_owned()).unwrap_or_default();
            let username = of("username");
            let name = if username.is_empty() { of("name") } else { format!("{} (@{username})", of("name")) };
            let expires = request.expires_at.parse::<jiff::Timestamp>().map_or(now, |at| at.as_millisecond());
            vec![
                Cell::toned(Tone::Command, of("code")),
                Cell::from(inert(&request.channel).into_owned()),
                Cell::from(inert(&request.account_id).into_owned()),
                Cell::from(name),
                Cell::from(inert(&request.sender_id).into_owned()),
                Cell::from(time::ago(expires, now)),
            ]
        })
        .collect();
    let table = table::columns(style, &["code", "channel", "account", "name", "id", "expires"], &rows);
    let command = people.first().map(|request| format!("openclaw pairing approve {} <code>", inert(&request.channel)));
    format!("{title}\n{table}\nApprove: {}\n", style.paint(Tone::Command, &command.unwrap_or_default()))
}

fn approve(context: &Context, args: &Approve) -> Outcome {
    blank(args.account.as_deref())?;
    let (positional, code) = match args.code.as_slice() {
        [channel, code] => (Some(channel.as_str()), code.as_str()),
        [code] => (None, code.as_str()),
        _ => return Err(Failure::new("pairing approve takes a channel and a code, or a code.")),
    };
    let channel = args.channel.as_deref().or(positional);
    let typed = code.trim().to_ascii_uppercase();
    let looks_told = typed.len() == 8 && typed.bytes().all(|b| b.is_ascii_alphanumeric());
    if channel.is_none() && !looks_told {
        return devices::approve(context, &args.at, code);
    }
    let done = block_on(async {
        let mut rpc = open(context, &args.at, &[PAIRING]).await?;
        if channel.is_none() && !rpc.has("channels.pairing.list") {
            return Ok(None);
        }
        let (_, list) = chats(&mut rpc, channel, args.account.as_deref()).await?;
        let has_code = |request: &&ChatPairing| request.metadata.get("code").is_some_and(|told| *told == typed);
        let mut found = list.requests.iter().filter(has_code);
        let request = match (found.next(), found.next()) {
            (Some(request), None) => request.clone(),
            (Some(_), Some(_)) => {
                return Err(Failure::new("Two requests have this code; name the account with --account."));
            }
            // A machine's id can look like a code.
            (None, _) if channel.is_none() => return Ok(None),
            (None, _) => {
                return Err(Failure::new(format!("No pending request has the code \"{}\".", inert(code)))
                    .detail("Codes live one hour. Whoever writes to the bot again is told a new one.")
                    .remedy("see who waits", "openclaw pairing list"));
            }
        };
        let first_owner = !list.command_owner_configured;
        let mut params = json!({"channel": request.channel, "accountId": request.account_id,
            "requestId": request.request_id, "notify": !args.no_notify});
        if first_owner {
            // Without an owner nobody could command the agent from a chat: the first one who is let in is it.
            params["bootstrapCommandOwner"] = json!(true);
            rpc.close().await;
            rpc = open(context, &args.at, &[PAIRING, ADMIN]).await?;
        }
        let result = rpc.call("channels.pairing.approve", params).await?;
        rpc.close().await;
        Ok(Some((request, result)))
    })?;
    let Some((request, result)) = done else { return devices::approve(context, &args.at, code) };
    if args.at.json {
        output::json(&result);
        return Ok(0);
    }
    let style = context.output.out;
    let name = request.metadata.get("name").map_or("", String::as_str);
    output::line(format!(
        "{} {} ({} {}) may write to {}/{} now.",
        style.ok(),
        inert(if name.is_empty() { "The sender" } else { name }),
        inert(&request.sender_label),
        inert(&request.sender_id),
        inert(&request.channel),
        inert(&request.account_id)
    ));
    match result["commandOwnerBootstrap"].as_str() {
        Some("configured") => output::line(format!(
            "  And is the owner: commands.ownerAllowFrom has {}:{}. Undo: openclaw config undo",
            inert(&request.channel),
            inert(&request.sender_id)
        )),
        Some("unavailable") => output::note(format!(
            "{} The owner was not written to the config; set it: openclaw config set commands.ownerAllowFrom '[\"{}:{}\"]'",
            context.output.err.warn(),
            inert(&request.channel),
            inert(&request.sender_id)
        )),
        _ => {}
    }
    match result["notification"].as_str() {
        Some("sent") => output::line("  They were told."),
        Some("failed") => output::note("! They could not be told; the next message they write is answered."),
        _ => {}
    }
    Ok(0)
}
