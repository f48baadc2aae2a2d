//! What is typed after `openclaw node`.

use std::ffi::OsString;

use clap::{Args, Subcommand};

use crate::args::JsonFlag;

#[derive(Args, Debug)]
pub struct Node {
    #[command(subcommand)]
    pub command: NodeCommand,
}

#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// Run the node host in the foreground
    Run(NodeRun),
    /// Have the system start the node host at login
    Install(NodeInstall),
    /// Start the installed service
    Start(JsonFlag),
    /// Stop the service
    Stop(JsonFlag),
    /// Restart the service
    Restart(JsonFlag),
    /// Whether the service is installed and running
    Status(JsonFlag),
    /// Stop and remove the service
    Uninstall(JsonFlag),
    /// Device id and public key of this machine
    Identity(JsonFlag),
    /// Internal: runs one program for the node host
    #[command(hide = true)]
    Guard(Guarded),
}

impl Node {
    /// Whether a failure has to be told on stdout as JSON, too.
    pub const fn wants_json(&self) -> bool {
        match &self.command {
            NodeCommand::Install(args) => args.json,
            NodeCommand::Start(flag)
            | NodeCommand::Stop(flag)
            | NodeCommand::Restart(flag)
            | NodeCommand::Status(flag)
            | NodeCommand::Uninstall(flag)
            | NodeCommand::Identity(flag) => flag.json,
            NodeCommand::Run(_) | NodeCommand::Guard(_) => false,
        }
    }
}

/// Which gateway, and what this node is to it.
#[derive(Args, Clone, Debug, Default)]
pub struct NodeOptions {
    /// Gateway host; also ssh://user@host, to reach it through ssh
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
    /// Gateway port
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Path of the gateway's WebSocket, for example /openclaw-gw
    #[arg(long, value_name = "PATH")]
    pub context_path: Option<String>,
    /// Use TLS
    #[arg(long, conflicts_with = "no_tls")]
    pub tls: bool,
    /// Use no TLS, although the local config turns it on
    #[arg(long)]
    pub no_tls: bool,
    /// The certificate the gateway has to show (sha256)
    #[arg(long, value_name = "SHA256")]
    pub tls_fingerprint: Option<String>,
    /// Id of this installation (does not reset pairing)
    #[arg(long, value_name = "ID")]
    pub node_id: Option<String>,
    /// Name of this node
    #[arg(long, value_name = "NAME")]
    pub display_name: Option<String>,
    /// Offer these commands only (comma-separated, repeatable); kept for later runs
    #[arg(long, value_name = "IDS", value_delimiter = ',', conflicts_with = "all_commands")]
    pub commands: Vec<String>,
    /// Offer everything again
    #[arg(long)]
    pub all_commands: bool,
    /// Let requests set this variable and programs inherit it (repeatable); kept for later runs
    #[arg(long, value_name = "NAME")]
    pub allow_env: Vec<String>,
}

#[derive(Args, Debug)]
pub struct NodeRun {
    /// Pair with a setup code or an oc-pair:// link; gateway options come before what it says
    #[arg(long, value_name = "CODE")]
    pub pair: Option<String>,
    /// The same, unless this node is paired already
    #[arg(long, value_name = "CODE", conflicts_with = "pair")]
    pub pair_if_needed: Option<String>,
    #[command(flatten)]
    pub options: NodeOptions,
}

#[derive(Args, Debug)]
pub struct NodeInstall {
    #[command(flatten)]
    pub options: NodeOptions,
    /// Replace an installed service
    #[arg(long)]
    pub force: bool,
    /// Write it, start nothing
    #[arg(long)]
    pub no_start: bool,
    /// Print what would be written
    #[arg(long)]
    pub print: bool,
    /// systemd or launchd; taken from the system when not given
    #[arg(long, value_name = "MANAGER")]
    pub manager: Option<crate::service::manager::Manager>,
    /// JSON on stdout
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct Guarded {
    /// The program is a server that talks on its standard input and output
    #[arg(long)]
    pub stdio: bool,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    pub command: Vec<OsString>,
}
