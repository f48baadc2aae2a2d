//! What `openclaw connect` takes.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Who this machine becomes at the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum As {
    // No help texts here: with them the whole option list is spread out.
    Operator,
    Node,
}

#[derive(Args, Debug)]
#[command(after_help = "openclaw connect              lists machines that may hold a gateway\n\
    openclaw connect me@box       logs in by ssh, pairs this machine, saves the gateway as \"box\"\n\
    openclaw connect ssh://me@box:2222 --name home\n\
    openclaw connect <setup code> --as operator\n\
    openclaw connect <setup code>  lends this machine to the gateway, as a node, until stopped")]
pub struct Connect {
    /// user@host, an alias of ~/.ssh/config, ssh://user@host:port, or a setup code; without it, what there is
    #[arg(value_name = "TARGET", conflicts_with = "target_file")]
    pub target: Option<String>,
    /// Name to save the gateway under
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Private key for ssh
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// Port the gateway listens on at its host, when it is not what its config says
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub remote_port: Option<u16>,
    /// Rights of this machine at the gateway: admin, read, write, approvals, pairing, questions, talk, talk.secrets
    #[arg(long, value_name = "SCOPES", value_delimiter = ',')]
    pub scopes: Vec<String>,
    /// Do not keep a tunnel in the background
    #[arg(long)]
    pub no_keep: bool,
    /// Replace a saved gateway of the same name; ask nothing
    #[arg(long)]
    pub yes: bool,
    /// Command the gateway, or lend it this machine; a setup code is for a node unless it says otherwise
    #[arg(long = "as", value_name = "ROLE")]
    pub role: Option<As>,
    /// Name of this machine as a node
    #[arg(long, value_name = "NAME")]
    pub display_name: Option<String>,
    /// Gateway token, for a gateway that knows no one-time codes: used once, not stored; "-" reads it from stdin
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Read the setup code from a file and remove the file
    #[arg(long, value_name = "FILE")]
    pub target_file: Option<PathBuf>,
    /// Time limit of each step in milliseconds
    #[arg(long, value_name = "MS", value_parser = crate::args::milliseconds)]
    pub timeout: Option<u64>,
    /// JSON on stdout
    #[arg(long)]
    pub json: bool,
}
