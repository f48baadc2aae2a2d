//! The command line. Help texts are written here; what a command does is in `command/`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Everything typed after `openclaw`.
#[derive(Debug, Parser)]
#[command(
    name = "openclaw",
    version = crate::version::SHORT,
    about = "A gateway for your agents, and the command line to run and reach it.",
    disable_version_flag = true,
    arg_required_else_help = true,
    propagate_version = false,
    max_term_width = 100,
    after_help = "Start:  openclaw gateway        then:  openclaw health, openclaw dashboard --no-open\n\
                  Remote: openclaw connect user@host, or by hand ssh -N -L 18789:127.0.0.1:18789 user@host"
)]
pub struct Cli {
    #[command(flatten)]
    pub root: Root,
    #[command(subcommand)]
    pub command: Command,
}

/// Options that stand before or after any command.
#[derive(Args, Clone, Debug)]
pub struct Root {
    /// Isolated development profile: state in ~/.openclaw-dev, port 19001
    #[arg(long, global = true, help_heading = "Profile and output")]
    pub dev: bool,
    /// Isolated profile: state in ~/.openclaw-<NAME>
    #[arg(long, global = true, value_name = "NAME", help_heading = "Profile and output", allow_hyphen_values = true)]
    pub profile: Option<String>,
    /// A saved gateway (openclaw connections ls), or "local" for the one on this machine
    #[arg(long, global = true, value_name = "NAME", help_heading = "Profile and output")]
    pub on: Option<String>,
    /// Log level on stderr
    #[arg(long, global = true, value_name = "LEVEL", help_heading = "Profile and output")]
    pub log_level: Option<LogLevel>,
    /// Which ssh: the one on PATH, or the client inside this program where it was built in
    #[arg(long, global = true, value_name = "WHICH", help_heading = "Profile and output")]
    pub ssh_impl: Option<SshImpl>,
    /// No colours (also NO_COLOR)
    #[arg(long, global = true, help_heading = "Profile and output")]
    pub no_color: bool,
    /// Print the version and the commit it was built from
    #[arg(short = 'V', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SshImpl {
    System,
    Builtin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    Silent,
    Fatal,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run, query and debug the gateway
    Gateway(Gateway),
    /// Reach a gateway elsewhere: log in by ssh, pair this machine, save it by name
    Connect(crate::command::connect::Connect),
    /// SSH tunnels that stay up
    Tunnel(crate::command::tunnel::Tunnel),
    /// Talk to the agent, in a terminal interface
    #[command(visible_alias = "tui", alias = "terminal")]
    Chat(crate::command::chat::Chat),
    /// Say one thing to the agent and print its answer
    Agent(crate::command::agent::Agent),
    /// Send messages by the gateway's channels
    Message(crate::command::message::Message),
    /// The conversations the gateway keeps
    Sessions(crate::command::sessions::Sessions),
    /// Which models there are, and which one agents use
    Models(crate::command::models::Models),
    /// Who there is to talk with
    Agents(crate::command::agents::Agents),
    /// The tools agents may use
    Tools(crate::command::tools::Tools),
    /// MCP servers whose tools agents borrow
    Mcp(crate::command::mcp::Mcp),
    /// What may be typed after a slash in a chat
    Commands(crate::command::tools::Commands),
    /// Notes to the agent, its heartbeat, who is connected
    System(crate::command::system::System),
    /// Ask the running gateway how it is
    Health(Health),
    /// Overview of gateway, devices and sessions
    Status(Status),
    /// Read the gateway's log
    Logs(Logs),
    /// What happens at the gateway, as it happens, and by which path
    Watch(crate::command::watch::Watch),
    /// The gateways this machine knows by name
    Connections(crate::command::connections::ConnectionsArgs),
    /// Paired devices and pending pairing requests
    Devices(Devices),
    /// Pair a phone: a code to scan, and how far the phone got
    Pair(crate::command::pair::PairArgs),
    /// The same code for scripts; waits only on a terminal
    Qr(crate::command::pair::PairArgs),
    /// Who asks to be let in, approved by code
    Pairing(crate::command::pairing::Pairing),
    /// Chat channels: accounts, their state, their tokens
    Channels(crate::command::channels::Channels),
    /// Read and change openclaw.json
    Config(Config),
    /// Leave for commands to run: what waits, and what may run unasked
    #[command(alias = "exec-approvals")]
    Approvals(crate::command::approvals::Approvals),
    /// Secrets kept outside the config
    Secrets(Secrets),
    /// Address of the web interface
    Dashboard(Dashboard),
    /// Lend this machine to a gateway
    Node(crate::command::node::Node),
    /// The machines that are lent to a gateway
    Nodes(crate::command::nodes::Nodes),
    /// Find out what is wrong and how to fix it
    Doctor(Doctor),
    /// Import the state directory of an existing OpenClaw
    Migrate(Migrate),
    /// Shell completion script
    Completion(Completion),
}

impl Command {
    /// True for the daemon itself.
    pub const fn runs_the_gateway(&self) -> bool {
        matches!(self, Self::Gateway(Gateway { command: None | Some(GatewayCommand::Run(_)), .. }))
    }

    /// Whether a failure has to be told on stdout as JSON, too.
    pub fn wants_json(&self) -> bool {
        match self {
            Self::Gateway(gateway) => match &gateway.command {
                None | Some(GatewayCommand::Run(_)) => false,
                Some(GatewayCommand::Status(args)) => args.at.target.json,
                Some(GatewayCommand::Health(args)) => args.target.json,
                Some(GatewayCommand::Probe(args)) => args.at.target.json,
                Some(GatewayCommand::Discover(args)) => args.json,
                Some(GatewayCommand::Call(args)) => args.at.target.json,
                Some(GatewayCommand::Cert(args)) => args.wants_json(),
                Some(GatewayCommand::Agent(args)) => args.json,
                Some(GatewayCommand::Send(args)) => args.at.target.json,
            },
            Self::Chat(args) => args.at.json,
            Self::Agent(args) => args.json,
            Self::Message(args) => args.wants_json(),
            Self::Sessions(args) => args.wants_json(),
            Self::Models(args) => args.wants_json(),
            Self::Agents(args) => args.wants_json(),
            Self::Tools(args) => args.wants_json(),
            Self::Mcp(args) => args.wants_json(),
            Self::Commands(args) => args.at.json,
            Self::System(args) => args.wants_json(),
            Self::Health(args) => args.json,
            Self::Status(args) => args.json,
            Self::Logs(args) => args.at.target.json,
            Self::Watch(args) => args.at.json,
            Self::Connections(args) => args.wants_json(),
            Self::Devices(args) => match &args.command {
                DevicesCommand::List(at) => at.json,
                DevicesCommand::Approve(args) => args.at.json,
                DevicesCommand::Invite(args) => args.at.json,
                DevicesCommand::JoinCode(args) => args.at.json,
                DevicesCommand::Reject(args) => args.at.json,
                DevicesCommand::Remove(args) => args.at.json,
                DevicesCommand::Rename(args) => args.at.json,
                DevicesCommand::Rotate(args) => args.at.json,
                DevicesCommand::Revoke(args) => args.at.json,
                DevicesCommand::Clear(args) => args.at.json,
            },
            Self::Pair(args) | Self::Qr(args) => args.json,
            Self::Pairing(args) => args.wants_json(),
            Self::Channels(args) => args.wants_json(),
            Self::Config(args) => match &args.command {
                ConfigCommand::Get(args) => args.json,
                ConfigCommand::Set(args) => args.json,
                ConfigCommand::Unset(args) => args.json,
                ConfigCommand::Patch(args) => args.json,
                ConfigCommand::Validate(flag) | ConfigCommand::File(flag) | ConfigCommand::Undo(flag) => flag.json,
                ConfigCommand::Schema => false,
            },
            Self::Approvals(args) => args.wants_json(),
            Self::Secrets(args) => {
                let SecretsCommand::Store(store) = &args.command;
                matches!(&store.command, StoreCommand::List(flag) if flag.json)
            }
            Self::Dashboard(args) => args.json,
            Self::Tunnel(args) => args.command.wants_json(),
            Self::Connect(args) => args.json,
            Self::Node(args) => args.wants_json(),
            Self::Nodes(args) => args.wants_json(),
            Self::Doctor(args) => args.json,
            Self::Migrate(args) => args.json,
            Self::Completion(_) => false,
        }
    }
}

/// How to reach the gateway, for commands that may be pointed elsewhere.
#[derive(Args, Clone, Debug, Default)]
pub struct TargetArgs {
    /// Gateway URL (ws:// or wss://); needs --token or --password
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Gateway token
    #[arg(long, value_name = "TOKEN")]
    pub token: Option<String>,
    /// Gateway password
    #[arg(long, value_name = "PASSWORD")]
    pub password: Option<String>,
    /// Time limit in milliseconds
    #[arg(long, value_name = "MS", value_parser = milliseconds)]
    pub timeout: Option<u64>,
    /// JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// [`TargetArgs`] and a loopback port.
#[derive(Args, Clone, Debug, Default)]
pub struct PortTargetArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// Port of the gateway on this machine
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
}

#[derive(Args, Debug)]
pub struct Gateway {
    #[command(subcommand)]
    pub command: Option<GatewayCommand>,
    #[command(flatten)]
    pub run: GatewayRun,
}

impl Gateway {
    /// True when options of `run` stand before another subcommand. Clap's own rule would refuse the root options there, too.
    pub fn mixes(&self) -> bool {
        self.command.is_some() && self.run != GatewayRun::default()
    }
}

#[derive(Debug, Subcommand)]
pub enum GatewayCommand {
    /// Run the gateway in the foreground
    Run(GatewayRun),
    /// Where the gateway should be, whether it answers, and what listens there
    Status(GatewayStatus),
    /// Health through the gateway's RPC
    Health(PortTargetArgs),
    /// Try every known gateway, step by step
    Probe(crate::command::gateway_probe::GatewayProbe),
    /// Gateways that announce themselves here
    Discover(crate::command::gateway_discover::GatewayDiscover),
    /// Call one RPC method
    Call(GatewayCall),
    /// The certificate of the TLS listener: show, renew
    Cert(crate::command::gateway_cert::GatewayCert),
    /// The same as openclaw agent
    Agent(crate::command::agent::Agent),
    /// The same as openclaw message send
    Send(crate::command::message::Send),
}

#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayRun {
    /// Port to listen on
    #[arg(long, value_name = "PORT")]
    pub port: Option<String>,
    /// Where to listen: loopback, lan, tailnet, auto or custom
    #[arg(long, value_name = "MODE")]
    pub bind: Option<String>,
    /// How clients prove themselves: none, token, password or trusted-proxy
    #[arg(long, value_name = "MODE")]
    pub auth: Option<String>,
    /// Shared token (visible in the process list; OPENCLAW_GATEWAY_TOKEN is not)
    #[arg(long, value_name = "TOKEN")]
    pub token: Option<String>,
    /// Shared password (visible in the process list; --password-file is not)
    #[arg(long, value_name = "PASSWORD", conflicts_with = "password_file")]
    pub password: Option<String>,
    /// File that holds the password
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Stop the gateway that listens on the port first
    #[arg(long)]
    pub force: bool,
    /// Start without gateway.mode=local in the config
    #[arg(long)]
    pub allow_unconfigured: bool,
    /// More log lines
    #[arg(long)]
    pub verbose: bool,
    /// Accepted from scripts written for the reference; this gateway has one log style
    #[arg(long, hide = true, value_name = "STYLE")]
    pub ws_log: Option<String>,
    /// The same
    #[arg(long, hide = true)]
    pub compact: bool,
    /// The same
    #[arg(long, hide = true, alias = "claude-cli-logs")]
    pub cli_backend_logs: bool,
}

#[derive(Args, Debug)]
pub struct GatewayStatus {
    #[command(flatten)]
    pub at: PortTargetArgs,
    /// Do not connect
    #[arg(long)]
    pub no_probe: bool,
    /// Exit non-zero when the RPC probe fails
    #[arg(long, conflicts_with = "no_probe")]
    pub require_rpc: bool,
    /// Also call the read methods (health, status, presence, config)
    #[arg(long)]
    pub deep: bool,
}

#[derive(Args, Debug)]
pub struct GatewayCall {
    /// Method, for example health or config.get
    pub method: String,
    /// Parameters as a JSON object
    #[arg(long, value_name = "JSON", default_value = "{}")]
    pub params: String,
    /// Wait for the final answer of methods that answer twice
    #[arg(long)]
    pub expect_final: bool,
    /// Send nothing unless this is the gateway that would be called
    #[arg(long, value_name = "URL")]
    pub expect_url: Option<String>,
    #[command(flatten)]
    pub at: PortTargetArgs,
}

#[derive(Args, Debug)]
pub struct Health {
    /// JSON on stdout
    #[arg(long)]
    pub json: bool,
    /// Time limit in milliseconds
    #[arg(long, value_name = "MS", value_parser = milliseconds)]
    pub timeout: Option<u64>,
    /// Also say how the gateway was reached
    #[arg(long, alias = "debug")]
    pub verbose: bool,
}

#[derive(Args, Debug)]
pub struct Status {
    /// Ask channels and heartbeat live
    #[arg(long)]
    pub deep: bool,
    /// Everything, fit to be pasted into a report
    #[arg(long)]
    pub all: bool,
    /// JSON on stdout
    #[arg(long)]
    pub json: bool,
    /// Time limit in milliseconds
    #[arg(long, value_name = "MS", value_parser = milliseconds)]
    pub timeout: Option<u64>,
    /// Also say how the gateway was reached
    #[arg(long, alias = "debug")]
    pub verbose: bool,
}

#[derive(Args, Debug)]
pub struct Logs {
    /// Keep reading
    #[arg(short, long)]
    pub follow: bool,
    /// Lines to show
    #[arg(long, visible_alias = "tail", value_name = "N", default_value_t = 200)]
    pub limit: usize,
    /// Bytes to read at most
    #[arg(long, value_name = "BYTES", default_value_t = 250_000)]
    pub max_bytes: usize,
    /// Milliseconds between polls with --follow
    #[arg(long, value_name = "MS", default_value = "1000", value_parser = milliseconds)]
    pub interval: u64,
    /// No colours
    #[arg(long)]
    pub plain: bool,
    /// Times in UTC
    #[arg(long, conflicts_with = "local_time")]
    pub utc: bool,
    /// Times in the local zone (default)
    #[arg(long)]
    pub local_time: bool,
    #[command(flatten)]
    pub at: PortTargetArgs,
}

#[derive(Args, Debug)]
pub struct Devices {
    #[command(subcommand)]
    pub command: DevicesCommand,
}

#[derive(Debug, Subcommand)]
pub enum DevicesCommand {
    /// Pending requests and paired devices
    List(TargetArgs),
    /// Approve a pending request
    Approve(DevicesApprove),
    /// Make a one-time code that pairs a new device
    Invite(crate::command::devices::invite::InviteArgs),
    /// Make a URL that enrols a machine as a node, once
    JoinCode(crate::command::devices::join_code::JoinCodeArgs),
    /// Reject a pending request
    Reject(RequestArgs),
    /// Remove a paired device
    Remove(DeviceArgs),
    /// Give a paired device a label
    Rename(DevicesRename),
    /// Replace a device's token for a role
    Rotate(DevicesRotate),
    /// Revoke a device's token for a role
    Revoke(DevicesRevoke),
    /// Remove all paired devices
    Clear(DevicesClear),
}

#[derive(Args, Debug)]
pub struct DevicesApprove {
    /// Request id, or the first characters of it
    pub request: Option<String>,
    /// Show the newest request and the command that approves it
    #[arg(long, conflicts_with = "request")]
    pub latest: bool,
    #[command(flatten)]
    pub at: TargetArgs,
}

#[derive(Args, Debug)]
pub struct RequestArgs {
    /// Request id, or the first characters of it
    pub request: String,
    #[command(flatten)]
    pub at: TargetArgs,
}

/// A device, named by position or by `--device` as the reference does.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct DeviceName {
    /// Device id, or the first characters of it
    #[arg(value_name = "DEVICE")]
    pub positional: Option<String>,
    /// The same
    #[arg(long = "device", value_name = "DEVICE")]
    pub option: Option<String>,
}

impl DeviceName {
    /// Whichever of the two was given; clap makes sure that one was.
    pub fn text(&self) -> &str {
        self.positional.as_deref().or(self.option.as_deref()).unwrap_or_default()
    }
}

#[derive(Args, Debug)]
pub struct DeviceArgs {
    #[command(flatten)]
    pub device: DeviceName,
    #[command(flatten)]
    pub at: TargetArgs,
}

#[derive(Args, Debug)]
pub struct DevicesRename {
    #[command(flatten)]
    pub device: DeviceName,
    /// Label, at most 64 characters
    #[arg(long, value_name = "LABEL")]
    pub name: String,
    #[command(flatten)]
    pub at: TargetArgs,
}

#[derive(Args, Debug)]
pub struct DevicesRotate {
    #[command(flatten)]
    pub device: DeviceName,
    /// operator or node
    #[arg(long, value_name = "ROLE")]
    pub role: String,
    /// Scope of the new token (repeatable)
    #[arg(long, value_name = "SCOPE", num_args = 1.., conflicts_with = "no_scopes")]
    pub scope: Vec<String>,
    /// A token without scopes
    #[arg(long)]
    pub no_scopes: bool,
    #[command(flatten)]
    pub at: TargetArgs,
}

#[derive(Args, Debug)]
pub struct DevicesRevoke {
    #[command(flatten)]
    pub device: DeviceName,
    /// operator or node
    #[arg(long, value_name = "ROLE")]
    pub role: String,
    #[command(flatten)]
    pub at: TargetArgs,
}

#[derive(Args, Debug)]
pub struct DevicesClear {
    /// Do it
    #[arg(long)]
    pub yes: bool,
    /// Also reject pending requests
    #[arg(long)]
    pub pending: bool,
    #[command(flatten)]
    pub at: TargetArgs,
}

#[derive(Args, Debug)]
pub struct Config {
    #[command(subcommand)]
    pub command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print a value
    Get(ConfigGet),
    /// Set a value (JSON5, else text)
    Set(ConfigSet),
    /// Remove a value
    Unset(ConfigUnset),
    /// Merge a JSON5 object into the config
    Patch(ConfigPatch),
    /// Check the config without starting anything
    Validate(JsonFlag),
    /// Print the path of the config file
    File(JsonFlag),
    /// Print the JSON Schema
    Schema,
    /// Take back the last change
    Undo(JsonFlag),
}

#[derive(Args, Debug)]
pub struct JsonFlag {
    /// JSON on stdout
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct ConfigGet {
    /// Path with dots or brackets, for example gateway.auth.token
    pub path: String,
    /// JSON on stdout
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct ConfigSet {
    /// Path with dots or brackets
    pub path: String,
    /// JSON5 value; what is not JSON5 is taken as text
    #[arg(allow_hyphen_values = true)]
    pub value: String,
    /// The value has to be JSON
    #[arg(long)]
    pub strict_json: bool,
    /// Merge an object into the present one instead of replacing it
    #[arg(long, conflicts_with = "replace")]
    pub merge: bool,
    /// Replace maps of agents, models, plugins and profiles although entries are dropped
    #[arg(long)]
    pub replace: bool,
    /// Show what would change and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// The value has to be JSON, and so is the report on stdout
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct ConfigUnset {
    /// Path with dots or brackets
    pub path: String,
    /// Show what would change and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// JSON on stdout
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct ConfigPatch {
    /// File with a JSON5 object; null removes a key
    #[arg(long, value_name = "FILE", required_unless_present = "stdin", conflicts_with = "stdin")]
    pub file: Option<PathBuf>,
    /// Read the object from stdin
    #[arg(long)]
    pub stdin: bool,
    /// Replace the object at this path instead of merging it (repeatable)
    #[arg(long, value_name = "PATH")]
    pub replace_path: Vec<String>,
    /// Show what would change and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// JSON on stdout
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct Secrets {
    #[command(subcommand)]
    pub command: SecretsCommand,
}

#[derive(Debug, Subcommand)]
pub enum SecretsCommand {
    /// The secret store of this profile
    Store(SecretsStore),
}

#[derive(Args, Debug)]
pub struct SecretsStore {
    #[command(subcommand)]
    pub command: StoreCommand,
}

#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Names of the stored secrets
    List(JsonFlag),
    /// Store a secret that is read from stdin
    Set(SecretId),
    /// Delete a stored secret
    Delete(SecretId),
}

#[derive(Args, Debug)]
pub struct SecretId {
    /// Name of the secret
    pub id: String,
}

#[derive(Args, Debug)]
pub struct Dashboard {
    /// Print the address, open nothing
    #[arg(long)]
    pub no_open: bool,
    /// JSON on stdout
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct Doctor {
    /// Tighten permissions that are too wide; changes nothing else
    #[arg(long, alias = "repair")]
    pub fix: bool,
    /// Which credentials are used, ignored or absent, and why
    #[arg(long)]
    pub why: bool,
    /// Generate a token and write it to gateway.auth.token
    #[arg(long)]
    pub generate_gateway_token: bool,
    /// JSON on stdout
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct Migrate {
    /// State directory of the existing OpenClaw, for example ~/.openclaw
    pub path: PathBuf,
    /// Show what would be imported and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Replace what is already here; a copy of the old stays
    #[arg(long, conflicts_with = "dry_run")]
    pub overwrite: bool,
    /// JSON on stdout
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct Completion {
    /// bash, zsh, fish or powershell; taken from $SHELL when not given
    #[arg(short, long)]
    pub shell: Option<clap_complete::Shell>,
}

pub fn milliseconds(text: &str) -> Result<u64, String> {
    text.parse().ok().filter(|ms| *ms > 0).ok_or_else(|| "must be a positive integer (milliseconds)".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn root_options_stand_anywhere() {
        for line in [
            ["openclaw", "--profile", "x", "gateway", "--port", "1"],
            ["openclaw", "gateway", "--profile", "x", "--port", "1"],
            ["openclaw", "gateway", "run", "--profile=x", "--port", "1"],
        ] {
            let cli = Cli::try_parse_from(line).expect("parses");
            assert_eq!(cli.root.profile.as_deref(), Some("x"), "{line:?}");
            let Command::Gateway(gateway) = cli.command else { panic!("{line:?}") };
            let run = match gateway.command {
                Some(GatewayCommand::Run(run)) => run,
                _ => gateway.run,
            };
            assert_eq!(run.port.as_deref(), Some("1"));
        }
    }
}
