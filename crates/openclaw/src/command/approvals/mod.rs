//! `openclaw approvals …`: what may run on which host, and leave for one command at a time.
//!
//! The policy document can be that of this machine (no option), of the gateway (`--gateway`) or of a node (`--node`).
//! Pending approvals are the gateway's alone.

mod document;
mod pending;
mod show;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::{args::TargetArgs, context::Context, failure::Outcome};

#[derive(Args, Debug)]
pub struct Approvals {
    #[command(subcommand)]
    pub command: ApprovalsCommand,
}

#[derive(Debug, Subcommand)]
pub enum ApprovalsCommand {
    /// Commands that wait for an answer
    #[command(visible_alias = "list")]
    Pending(TargetArgs),
    /// Answer: allow-once, allow-always or deny
    Resolve(Resolve),
    /// Let one command run
    Allow(Allow),
    /// Do not let it run
    Deny(Deny),
    /// Wait for requests and answer them as they come
    Watch(TargetArgs),
    /// What may run on a host
    Get(Host),
    /// Replace what may run on a host
    Set(Set),
    /// Programs that may run unasked
    Allowlist(Allowlist),
}

#[derive(Args, Debug)]
pub struct Resolve {
    /// Id of the approval, or the first characters of it
    pub id: String,
    /// allow-once, allow-always or deny
    pub decision: String,
    /// Note for this terminal; the gateway keeps none
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    #[command(flatten)]
    pub at: TargetArgs,
}

#[derive(Args, Debug)]
pub struct Allow {
    /// Id of the approval, or the first characters of it
    pub id: String,
    /// From now on as well: the same arguments in the same directory
    #[arg(long)]
    pub always: bool,
    #[command(flatten)]
    pub at: TargetArgs,
}

#[derive(Args, Debug)]
pub struct Deny {
    /// Id of the approval, or the first characters of it
    pub id: String,
    #[command(flatten)]
    pub at: TargetArgs,
}

/// Whose document is meant.
#[derive(Args, Clone, Debug)]
pub struct Host {
    /// A node: its id, the first characters of it, its name or its address
    #[arg(long, value_name = "NODE", conflicts_with = "gateway")]
    pub node: Option<String>,
    /// The gateway's host, asked through the gateway
    #[arg(long)]
    pub gateway: bool,
    #[command(flatten)]
    pub at: TargetArgs,
}

#[derive(Args, Debug)]
pub struct Set {
    /// File with the document, JSON5
    #[arg(long, value_name = "FILE", required_unless_present = "stdin", conflicts_with = "stdin")]
    pub file: Option<PathBuf>,
    /// Read the document from stdin
    #[arg(long)]
    pub stdin: bool,
    #[command(flatten)]
    pub host: Host,
}

#[derive(Args, Debug)]
pub struct Allowlist {
    #[command(subcommand)]
    pub command: AllowlistCommand,
}

#[derive(Debug, Subcommand)]
pub enum AllowlistCommand {
    /// Add a pattern
    Add(Pattern),
    /// Remove a pattern
    Remove(Pattern),
}

#[derive(Args, Debug)]
pub struct Pattern {
    /// Glob over the program's path (~, *, **, ?), or its bare name
    pub pattern: String,
    /// Agent it is for
    #[arg(long, value_name = "ID", default_value = "*")]
    pub agent: String,
    #[command(flatten)]
    pub host: Host,
}

impl Approvals {
    /// Whether a failure has to be told on stdout as JSON, too.
    pub const fn wants_json(&self) -> bool {
        use ApprovalsCommand as C;
        match &self.command {
            C::Pending(at) | C::Watch(at) => at.json,
            C::Resolve(args) => args.at.json,
            C::Allow(args) => args.at.json,
            C::Deny(args) => args.at.json,
            C::Get(host) => host.at.json,
            C::Set(args) => args.host.at.json,
            C::Allowlist(list) => match &list.command {
                AllowlistCommand::Add(args) | AllowlistCommand::Remove(args) => args.host.at.json,
            },
        }
    }
}

pub fn run(context: &Context, args: &Approvals) -> Outcome {
    use ApprovalsCommand as C;
    match &args.command {
        C::Pending(at) => pending::list(context, at),
        C::Resolve(args) => pending::resolve(context, &args.at, &args.id, &args.decision, args.reason.as_deref()),
        C::Allow(args) => {
            let decision = if args.always { "allow-always" } else { "allow-once" };
            pending::resolve(context, &args.at, &args.id, decision, None)
        }
        C::Deny(args) => pending::resolve(context, &args.at, &args.id, "deny", None),
        C::Watch(at) => pending::watch(context, at),
        C::Get(host) => document::get(context, host),
        C::Set(args) => document::set(context, args),
        C::Allowlist(list) => match &list.command {
            AllowlistCommand::Add(args) => document::add(context, args),
            AllowlistCommand::Remove(args) => document::remove(context, args),
        },
    }
}
