//! Arguments of `openclaw tunnel`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use openclaw_config::gateway::HostKeyPolicy;

use crate::service::manager::Manager;

#[derive(Args, Debug)]
pub struct Tunnel {
    #[command(subcommand)]
    pub command: TunnelCommand,
}

#[derive(Debug, Subcommand)]
pub enum TunnelCommand {
    /// Open a tunnel and keep it up, in the background
    Up(UpArgs),
    /// Close a tunnel
    Down(DownArgs),
    /// Tunnels and how they are
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// What happened to a tunnel
    Logs(LogsArgs),
    /// Try again now, also after a failure that stopped the trying
    Retry(NameArgs),
    /// Have the system keep a tunnel from login on
    Install(InstallArgs),
    /// Undo install
    Uninstall(UninstallArgs),
    /// The supervisor itself, in the foreground
    #[command(hide = true)]
    Run(RunArgs),
}

impl TunnelCommand {
    pub const fn wants_json(&self) -> bool {
        match self {
            Self::Up(args) => args.at.json,
            Self::Down(args) => args.json,
            Self::Ls(args) => args.json,
            Self::Logs(args) => args.json,
            Self::Retry(args) => args.json,
            Self::Install(args) => args.at.json,
            Self::Uninstall(args) => args.json,
            Self::Run(_) => false,
        }
    }
}

/// Where a tunnel leads.
#[derive(Args, Clone, Debug, Default)]
pub struct At {
    /// A saved gateway (openclaw connections ls), user@host, an alias of ~/.ssh/config, or ssh://user@host:port; without it
    /// the gateway that commands mean
    #[arg(value_name = "NAME|USER@HOST")]
    pub place: Option<String>,
    /// Also listen on this port of 127.0.0.1, for other programs
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Port of the gateway on its host
    #[arg(long, visible_alias = "remote-port", value_name = "PORT")]
    pub gateway_port: Option<u16>,
    /// Private key for ssh
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// How unknown host keys are treated: strict, or as ssh's own config says
    #[arg(long, value_name = "POLICY", value_parser = host_key_policy, hide = true)]
    pub host_key_policy: Option<HostKeyPolicy>,
    /// JSON on stdout
    #[arg(long)]
    pub json: bool,
}

fn host_key_policy(text: &str) -> Result<HostKeyPolicy, &'static str> {
    HostKeyPolicy::parse(text).ok_or("strict or openssh")
}

#[derive(Args, Debug)]
pub struct UpArgs {
    #[command(flatten)]
    pub at: At,
    /// Stay in the foreground until Ctrl-C
    #[arg(long)]
    pub foreground: bool,
    /// Milliseconds to wait for it to be up
    #[arg(long, value_name = "MS", value_parser = crate::args::milliseconds, default_value = "20000")]
    pub timeout: u64,
}

#[derive(Args, Debug)]
pub struct DownArgs {
    /// Which; not needed when there is only one
    #[arg(value_name = "NAME|USER@HOST", conflicts_with = "all")]
    pub name: Option<String>,
    /// Every tunnel
    #[arg(long)]
    pub all: bool,
    /// JSON on stdout
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct NameArgs {
    /// Which; not needed when there is only one
    #[arg(value_name = "NAME|USER@HOST")]
    pub name: Option<String>,
    /// JSON on stdout
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct ListArgs {
    /// JSON on stdout
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct LogsArgs {
    /// Which; not needed when there is only one
    #[arg(value_name = "NAME|USER@HOST")]
    pub name: Option<String>,
    /// Keep reading
    #[arg(short, long)]
    pub follow: bool,
    /// Lines to show
    #[arg(long, visible_alias = "limit", value_name = "N", default_value_t = 50)]
    pub tail: usize,
    /// JSON on stdout, one line each
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct InstallArgs {
    #[command(flatten)]
    pub at: At,
    /// Run this program's supervisor instead of plain ssh
    #[arg(long, conflicts_with = "autossh")]
    pub supervisor: bool,
    /// Run autossh instead of plain ssh
    #[arg(long)]
    pub autossh: bool,
    /// Write it for this service manager
    #[arg(long, value_enum, value_name = "KIND")]
    pub manager: Option<Manager>,
    /// Write the file and start nothing
    #[arg(long)]
    pub no_start: bool,
    /// Show the file and write nothing
    #[arg(long)]
    pub print: bool,
    /// Replace a file this program did not write
    #[arg(long)]
    pub force: bool,
}

#[derive(Args, Debug)]
pub struct UninstallArgs {
    /// Remove it from this service manager
    #[arg(long, value_enum, value_name = "KIND")]
    pub manager: Option<Manager>,
    /// JSON on stdout
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct RunArgs {
    #[command(flatten)]
    pub at: At,
    /// Leave the terminal's session, as a background process does
    #[arg(long)]
    pub detach: bool,
}
