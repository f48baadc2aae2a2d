//! What is typed after `openclaw channels`.

use std::path::PathBuf;

use clap::{
    Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use openclaw_gateway::channels::access::DmPolicy;

use crate::args::TargetArgs;

#[derive(Args, Debug)]
pub struct Channels {
    #[command(subcommand)]
    pub command: ChannelsCommand,
}

#[derive(Debug, Subcommand)]
pub enum ChannelsCommand {
    /// Accounts in the config of this machine
    List(List),
    /// How the accounts of the gateway are
    Status(Status),
    /// Add an account, or give it another token
    Add(Add),
    /// The same as add: bots have a token and no login
    Login(Add),
    /// Stop an account and take its token out of the config
    Logout(One),
    /// Switch an account off, or take it out of the config
    Remove(Remove),
    /// Start an account that was stopped
    Start(One),
    /// Stop an account until it is started again
    Stop(One),
}

impl Channels {
    /// Whether a failure has to be told on stdout as JSON, too.
    pub fn wants_json(&self) -> bool {
        match &self.command {
            ChannelsCommand::List(args) => args.json,
            ChannelsCommand::Status(args) => args.at.json,
            ChannelsCommand::Add(args) | ChannelsCommand::Login(args) => args.json,
            ChannelsCommand::Logout(args) | ChannelsCommand::Start(args) | ChannelsCommand::Stop(args) => args.at.json,
            ChannelsCommand::Remove(args) => args.json,
        }
    }
}

/// A channel by position or by option.
#[derive(Args, Clone, Debug, Default)]
pub struct Which {
    /// telegram or discord
    #[arg(value_name = "CHANNEL")]
    pub channel: Option<String>,
    /// The same as an option
    #[arg(long = "channel", value_name = "CHANNEL", conflicts_with = "channel", id = "channel_option")]
    pub option: Option<String>,
    /// Account of the channel
    #[arg(long, value_name = "ID")]
    pub account: Option<String>,
}

impl Which {
    pub fn channel(&self) -> Option<&str> {
        self.channel.as_deref().or(self.option.as_deref())
    }
}

#[derive(Args, Debug)]
pub struct List {
    /// Also channels without an account
    #[arg(long)]
    pub all: bool,
    /// JSON on stdout
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct Status {
    /// Only this channel
    #[arg(long, value_name = "CHANNEL")]
    pub channel: Option<String>,
    /// Ask each service whether the account works
    #[arg(long)]
    pub probe: bool,
    #[command(flatten)]
    pub at: TargetArgs,
}

#[derive(Args, Debug)]
pub struct Add {
    #[command(flatten)]
    pub which: Which,
    /// The bot's token, or - to read it from stdin (given here it is visible in the process list)
    #[arg(long, value_name = "TOKEN", visible_alias = "bot-token", allow_hyphen_values = true)]
    pub token: Option<String>,
    /// File with the token; the config then names the file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["token", "use_env"])]
    pub token_file: Option<PathBuf>,
    /// Use TELEGRAM_BOT_TOKEN or DISCORD_BOT_TOKEN of the gateway's environment
    #[arg(long, conflicts_with = "token")]
    pub use_env: bool,
    /// Who may write to it
    #[arg(long, value_name = "POLICY", value_parser = dm_policy())]
    pub dm_policy: Option<DmPolicy>,
    /// A sender's id that is let in (repeatable)
    #[arg(long, value_name = "ID")]
    pub allow_from: Vec<String>,
    /// Root of another Bot API server (Telegram)
    #[arg(long, value_name = "URL")]
    pub api_root: Option<String>,
    /// Do not ask the service whether the token works
    #[arg(long)]
    pub no_verify: bool,
    /// JSON on stdout
    #[arg(long)]
    pub json: bool,
}

fn dm_policy() -> impl TypedValueParser<Value = DmPolicy> {
    let known = PossibleValuesParser::new(DmPolicy::ALL.map(DmPolicy::as_str));
    known.try_map(|text| DmPolicy::parse(&text).ok_or("is no policy"))
}

#[derive(Args, Debug)]
pub struct One {
    #[command(flatten)]
    pub which: Which,
    #[command(flatten)]
    pub at: TargetArgs,
}

#[derive(Args, Debug)]
pub struct Remove {
    #[command(flatten)]
    pub which: Which,
    /// Take it out of the config instead of switching it off
    #[arg(long)]
    pub delete: bool,
    /// JSON on stdout
    #[arg(long)]
    pub json: bool,
}
