//! What can be typed after `openclaw sessions`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::args::TargetArgs;

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Sessions {
    #[command(subcommand)]
    pub command: Option<SessionsCommand>,
    #[command(flatten)]
    pub list: List,
}

#[derive(Debug, Subcommand)]
pub enum SessionsCommand {
    /// The conversations the gateway keeps (also without a word)
    List(List),
    /// What the gateway knows of one
    #[command(visible_alias = "describe")]
    Show(One),
    /// What was said in one
    History(History),
    /// Find words in all of them
    Search(Search),
    /// Say something in one, and do not wait for the answer
    Send(Send),
    /// Give one a title
    Rename(Rename),
    /// Begin one anew: what was said is kept apart from what comes
    Reset(Sure),
    /// Shorten what the model is given of one
    Compact(Compact),
    /// Delete one
    Delete(Delete),
    /// Write one as JSON Lines
    Export(Export),
    /// Read one that was exported
    Import(Import),
}

impl Sessions {
    pub fn wants_json(&self) -> bool {
        use SessionsCommand as C;
        match &self.command {
            None => self.list.at.json,
            Some(C::List(args)) => args.at.json,
            Some(C::Show(args)) => args.at.json,
            Some(C::History(args)) => args.one.at.json,
            Some(C::Search(args)) => args.at.json,
            Some(C::Send(args)) => args.one.at.json,
            Some(C::Rename(args)) => args.one.at.json,
            Some(C::Reset(args)) => args.one.at.json,
            Some(C::Compact(args)) => args.one.at.json,
            Some(C::Delete(args)) => args.sure.one.at.json,
            Some(C::Export(args)) => args.one.at.json,
            Some(C::Import(args)) => args.at.json,
        }
    }
}

#[derive(Args, Debug)]
pub struct List {
    /// Only those of this agent
    #[arg(long, value_name = "ID")]
    pub agent: Option<String>,
    /// Of all agents (what happens without --agent)
    #[arg(long, hide = true, conflicts_with = "agent")]
    pub all_agents: bool,
    /// Only those used in the last minutes
    #[arg(long, value_name = "MINUTES", value_parser = clap::value_parser!(u64).range(1..))]
    pub active: Option<u64>,
    /// At most so many, or "all"
    #[arg(long, value_name = "N", default_value = "100")]
    pub limit: String,
    #[command(flatten)]
    pub at: TargetArgs,
}

#[derive(Args, Debug)]
pub struct One {
    /// Its key, or the end of one that is unambiguous
    #[arg(value_name = "SESSION")]
    pub key: String,
    #[command(flatten)]
    pub at: TargetArgs,
}

#[derive(Args, Debug)]
pub struct History {
    #[command(flatten)]
    pub one: One,
    /// The newest so many messages
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub limit: u16,
    /// What tools were asked and answered, too
    #[arg(long)]
    pub tools: bool,
    /// What the model thought, too
    #[arg(long)]
    pub thinking: bool,
}

#[derive(Args, Debug)]
pub struct Search {
    /// Words
    #[arg(value_name = "WORDS", required = true)]
    pub words: Vec<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u8).range(1..=25))]
    pub limit: u8,
    /// Only those of this agent
    #[arg(long, value_name = "ID")]
    pub agent: Option<String>,
    /// Only in this conversation (repeatable)
    #[arg(long, value_name = "KEY")]
    pub session: Vec<String>,
    #[command(flatten)]
    pub at: TargetArgs,
}

#[derive(Args, Debug)]
pub struct Send {
    #[command(flatten)]
    pub one: One,
    /// What to say
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    pub message: String,
    /// How hard the model thinks
    #[arg(long, value_name = "LEVEL")]
    pub thinking: Option<String>,
}

#[derive(Args, Debug)]
pub struct Rename {
    #[command(flatten)]
    pub one: One,
    /// The title; empty takes it away
    #[arg(value_name = "TITLE")]
    pub title: String,
}

#[derive(Args, Debug)]
pub struct Sure {
    #[command(flatten)]
    pub one: One,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

#[derive(Args, Debug)]
pub struct Compact {
    #[command(flatten)]
    pub one: One,
    /// Keep the newest so many lines instead of having the model sum up
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_lines: Option<u64>,
}

#[derive(Args, Debug)]
pub struct Delete {
    #[command(flatten)]
    pub sure: Sure,
    /// Keep what was said, where the gateway can
    #[arg(long)]
    pub keep_transcript: bool,
}

#[derive(Args, Debug)]
pub struct Export {
    #[command(flatten)]
    pub one: One,
    /// Where to; stdout without it
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Write over a file that exists
    #[arg(long, requires = "output")]
    pub force: bool,
}

#[derive(Args, Debug)]
pub struct Import {
    /// What export wrote; "-" reads stdin
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Under another key than it had
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Only look whether it could be imported
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub at: TargetArgs,
}
