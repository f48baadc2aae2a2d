//! `openclaw system …`: a note to the agent, its heartbeat, and who is connected.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    chat::wire::text,
    rpc::{ADMIN, READ, Rpc, WRITE},
};
use crate::{
    args::PortTargetArgs,
    context::Context,
    failure::{Failure, Outcome},
    output::{
        self, inert,
        table::{self, Cell},
        time,
    },
    reach::block_on,
};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Args, Debug)]
pub struct System {
    #[command(subcommand)]
    pub command: SystemCommand,
}

#[derive(Debug, Subcommand)]
pub enum SystemCommand {
    /// Tell the agent something; it hears it with its next heartbeat, or now
    Event(Event),
    /// How often the agent looks around by itself
    Heartbeat(Heartbeat),
    /// Who is connected
    Presence(PortTargetArgs),
}

#[derive(Args, Debug)]
pub struct Event {
    /// What
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub text: String,
    /// now, or next-heartbeat
    #[arg(long, value_name = "WHEN", default_value = "next-heartbeat", value_parser = ["now", "next-heartbeat"])]
    pub mode: String,
    /// Conversation; the agent's main one without it
    #[arg(long, value_name = "KEY")]
    pub session_key: Option<String>,
    /// Agent
    #[arg(long, value_name = "ID")]
    pub agent: Option<String>,
    #[command(flatten)]
    pub at: PortTargetArgs,
}

#[derive(Args, Debug)]
pub struct Heartbeat {
    #[command(subcommand)]
    pub command: HeartbeatCommand,
}

#[derive(Debug, Subcommand)]
pub enum HeartbeatCommand {
    /// The last one
    Last(PortTargetArgs),
    /// Turn them on again
    Enable(PortTargetArgs),
    /// Pause them until the gateway starts anew
    Disable(PortTargetArgs),
}

impl System {
    pub fn wants_json(&self) -> bool {
        match &self.command {
            SystemCommand::Event(args) => args.at.target.json,
            SystemCommand::Presence(at) => at.target.json,
            SystemCommand::Heartbeat(args) => match &args.command {
                HeartbeatCommand::Last(at) | HeartbeatCommand::Enable(at) | HeartbeatCommand::Disable(at) => {
                    at.target.json
                }
            },
        }
    }
}

pub fn run(context: &Context, args: &System) -> Outcome {
    match &args.command {
        SystemCommand::Event(args) => event(context, args),
        SystemCommand::Presence(at) => presence(context, at),
        SystemCommand::Heartbeat(args) => match &args.command {
            HeartbeatCommand::Last(at) => last(context, at),
            HeartbeatCommand::Enable(at) => switch(context, at, true),
            HeartbeatCommand::Disable(at) => switch(context, at, false),
        },
    }
}

fn call(context: &Context, at: &PortTargetArgs, scope: &str, method: &str, params: Value) -> Result<Value, Failure> {
    let reach = context.reach(at, DEFAULT_TIMEOUT)?;
    block_on(async {
        let mut rpc = Rpc::open(reach, &[scope]).await?;
        let answer = rpc.call(method, params).await?;
        rpc.close().await;
        Ok(answer)
    })
}

fn event(context: &Context, args: &Event) -> Outcome {
    if args.text.trim().is_empty() {
        return Err(Failure::new("--text must not be empty."));
    }
    let mut params = json!({"text": args.text, "mode": args.mode});
    for (name, value) in [("sessionKey", &args.session_key), ("agentId", &args.agent)] {
        if let Some(value) = value.as_deref().map(str::trim).filter(|value| !value.is_empty()) {
            params[name] = json!(value);
        }
    }
    let answer = call(context, &args.at, WRITE, "wake", params)?;
    match args.at.target.json {
        true => output::json(&answer),
        // The reference's word.
        false => output::line("ok"),
    }
    Ok(0)
}

fn last(context: &Context, at: &PortTargetArgs) -> Outcome {
    let answer = call(context, at, READ, "last-heartbeat", json!({}))?;
    if at.target.json {
        output::json(&answer);
    } else if let (Some(ts), status) = (answer["ts"].as_i64(), text(&answer, "status").unwrap_or_default()) {
        let why = text(&answer, "reason").map(|why| format!(" ({})", inert(&why))).unwrap_or_default();
        output::line(format!("{}: {}{why}", time::ago(ts, time::now_ms()), inert(&status)));
        if let Some(preview) = text(&answer, "preview") {
            output::line(inert(&preview));
        }
    } else {
        output::line("There was none since the gateway started.");
    }
    Ok(0)
}

fn switch(context: &Context, at: &PortTargetArgs, enabled: bool) -> Outcome {
    let answer = call(context, at, ADMIN, "set-heartbeats", json!({ "enabled": enabled }))?;
    if at.target.json {
        output::json(&answer);
    } else {
        let done = if enabled { "Heartbeats are on." } else { "Heartbeats are paused until the gateway starts anew." };
        output::line(format!("{} {done}", context.output.out.ok()));
    }
    Ok(0)
}

fn presence(context: &Context, at: &PortTargetArgs) -> Outcome {
    let answer = call(context, at, READ, "system-presence", json!({}))?;
    if at.target.json {
        output::json(&answer);
        return Ok(0);
    }
    let now = time::now_ms();
    let cell =
        |entry: &Value, key: &str| Cell::from(inert(&text(entry, key).unwrap_or_else(|| "–".into())).into_owned());
    let rows: Vec<Vec<Cell>> = answer
        .as_array()
        .into_iter()
        .flatten()
        .map(|entry| {
            let seen = entry["ts"].as_i64().map_or_else(|| "–".to_owned(), |ts| time::ago(ts, now));
            vec![cell(entry, "host"), cell(entry, "mode"), cell(entry, "version"), cell(entry, "ip"), Cell::from(seen)]
        })
        .collect();
    output::print(&table::columns(context.output.out, &["host", "as", "version", "address", "seen"], &rows));
    Ok(0)
}
