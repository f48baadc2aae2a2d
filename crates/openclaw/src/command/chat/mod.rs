//! `openclaw chat`: a conversation in the terminal.
//!
//! ```text
//! keys ─> live ─> model (pure) ─> view ─> terminal        plain: line by line, for pipes
//!           ^        │
//!           └─ Session (openclaw-remote): any path, kept across reconnects
//! ```

mod approval;
mod editor;
pub mod entry;
pub mod file;
mod keys;
mod live;
mod markdown;
mod model;
mod picker;
pub mod plain;
pub mod printer;
mod slash;
mod terminal;
mod theme;
mod transcript;
mod view;
pub mod wire;
mod wrap;

#[cfg(test)]
mod tests;

use std::{io::IsTerminal as _, time::Duration};

use clap::Args;

use super::rpc::fresh_key;
use crate::{
    args::{PortTargetArgs, TargetArgs, milliseconds},
    context::Context,
    failure::{Failure, Outcome},
    reach::block_on,
};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

#[derive(Args, Debug)]
pub struct Chat {
    /// Conversation to go to: a session key (openclaw sessions), or --session
    #[arg(value_name = "SESSION")]
    pub target: Option<String>,
    /// Conversation to go to
    #[arg(long, value_name = "KEY", conflicts_with = "target")]
    pub session: Option<String>,
    /// Say this once connected
    #[arg(short, long, value_name = "TEXT")]
    pub message: Option<String>,
    /// How hard the model thinks: off, minimal, low, medium, high …
    #[arg(long, value_name = "LEVEL")]
    pub thinking: Option<String>,
    /// Answers also go to the channel the conversation came from
    #[arg(long)]
    pub deliver: bool,
    /// Messages to show of what was said before
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub history_limit: u16,
    /// For how long the gateway may work on a message
    #[arg(long, value_name = "MS", value_parser = milliseconds)]
    pub timeout_ms: Option<u64>,
    /// Line by line, without a screen (as when piped)
    #[arg(long)]
    pub plain: bool,
    /// Leave the mouse to the terminal: selecting without Shift, no wheel
    #[arg(long)]
    pub no_mouse: bool,
    #[command(flatten)]
    pub at: TargetArgs,
}

pub fn run(context: &Context, args: &Chat) -> Outcome {
    let session = args.session.as_deref().or(args.target.as_deref()).unwrap_or("main").trim();
    if session.is_empty() || session.contains("://") {
        return Err(Failure::new("A conversation is named by its session key.")
            .remedy("see which there are", "openclaw sessions")
            .remedy("go to a gateway elsewhere", "openclaw chat --on <name>"));
    }
    let start = model::Start {
        session: session.to_owned(),
        history: usize::from(args.history_limit),
        thinking: args.thinking.clone(),
        deliver: args.deliver,
        message: args.message.clone().filter(|message| !message.trim().is_empty()),
        timeout_ms: args.timeout_ms,
    };
    let reach = context.reach(&PortTargetArgs { target: args.at.clone(), port: None }, DEFAULT_TIMEOUT)?;
    let key = fresh_key()?;
    let dumb = context.env.get("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    let screen = std::io::stdin().is_terminal() && std::io::stdout().is_terminal() && !dumb;
    if args.plain || args.at.json || !screen {
        return block_on(plain::run(context, &reach, start, key, args.at.json));
    }
    let options = live::Options {
        theme: theme::Theme::of(context.output.out),
        mouse: !args.no_mouse,
        home: context.env.get("HOME").map(str::to_owned),
        seed: key[..16].to_owned(),
    };
    block_on(live::run(&reach, start, options))
}
