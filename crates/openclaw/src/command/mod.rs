//! One file per noun. A command takes its arguments and the context, prints, and gives its exit code.

pub mod agent;
pub mod agents;
pub mod approvals;
pub mod ask;
pub mod call;
pub mod chain;
pub mod channels;
pub mod chat;
pub mod completion;
pub mod config;
pub mod connect;
pub mod connections;
pub mod dashboard;
pub mod devices;
pub mod doctor;
pub mod gateway_cert;
pub mod gateway_discover;
pub mod gateway_probe;
pub mod gateway_run;
pub mod gateway_status;
pub mod health;
pub mod logs;
pub mod mcp;
pub mod message;
pub mod migrate;
pub mod models;
pub mod node;
pub mod nodes;
pub mod pair;
pub mod pairing;
pub mod paths;
pub mod probe;
pub mod rpc;
pub mod secrets;
pub mod sessions;
pub mod status;
pub mod system;
pub mod tools;
pub mod tunnel;
pub mod watch;

use crate::{
    args::{Cli, Command, GatewayCommand, LogLevel},
    context::Context,
    failure::Outcome,
};

/// Runs the command. What needs no config reads none.
pub fn run(cli: Cli) -> Outcome {
    if let Command::Completion(args) = &cli.command {
        return completion::run(args);
    }
    if let Command::Node(args) = &cli.command
        && let Some(code) = node::guard(args)
    {
        return Ok(code);
    }
    let context = Context::new(&cli.root)?;
    if let Some(level) = cli.root.log_level
        && !cli.command.runs_the_gateway()
    {
        trace(level);
    }
    match cli.command {
        Command::Gateway(gateway) => match gateway.command {
            None => gateway_run::run(context, &gateway.run, cli.root.log_level),
            Some(GatewayCommand::Run(args)) => gateway_run::run(context, &args, cli.root.log_level),
            Some(GatewayCommand::Status(args)) => gateway_status::run(&context, &args),
            Some(GatewayCommand::Health(args)) => health::gateway(&context, &args),
            Some(GatewayCommand::Probe(args)) => gateway_probe::run(&context, &args),
            Some(GatewayCommand::Discover(args)) => gateway_discover::run(&context, &args),
            Some(GatewayCommand::Call(args)) => call::run(&context, &args),
            Some(GatewayCommand::Cert(args)) => gateway_cert::run(&context, &args),
            Some(GatewayCommand::Agent(args)) => agent::run(&context, &args),
            Some(GatewayCommand::Send(args)) => message::send(&context, &args),
        },
        Command::Health(args) => health::run(&context, &args),
        Command::Status(args) => status::run(&context, &args),
        Command::Logs(args) => logs::run(&context, &args),
        Command::Watch(args) => watch::run(&context, &args),
        Command::Connections(args) => connections::run(&context, &args),
        Command::Devices(args) => devices::devices(&context, &args.command),
        Command::Pair(args) => pair::run(&context, &args, pair::Verb::Pair),
        Command::Qr(args) => pair::run(&context, &args, pair::Verb::Qr),
        Command::Pairing(args) => pairing::run(&context, &args),
        Command::Channels(args) => channels::run(&context, &args),
        Command::Config(args) => config::run(&context, &args.command),
        Command::Approvals(args) => approvals::run(&context, &args),
        Command::Secrets(args) => secrets::run(&context, &args.command),
        Command::Dashboard(args) => dashboard::run(&context, &args),
        Command::Tunnel(args) => tunnel::run(&context, &args.command),
        Command::Connect(args) => connect::run(&context, &args),
        Command::Node(args) => node::run(&context, &args),
        Command::Nodes(args) => nodes::run(&context, &args),
        Command::Chat(args) => chat::run(&context, &args),
        Command::Agent(args) => agent::run(&context, &args),
        Command::Message(args) => message::run(&context, &args),
        Command::Sessions(args) => sessions::run(&context, &args),
        Command::Models(args) => models::run(&context, &args),
        Command::Agents(args) => agents::run(&context, &args),
        Command::Tools(args) => tools::run(&context, &args),
        Command::Mcp(args) => mcp::run(&context, &args),
        Command::Commands(args) => tools::commands(&context, &args),
        Command::System(args) => system::run(&context, &args),
        Command::Doctor(args) => doctor::run(&context, &args),
        Command::Migrate(args) => migrate::run(&context, &args),
        Command::Completion(args) => completion::run(&args),
    }
}

/// Shows what the libraries say on stderr; the gateway installs its own log.
fn trace(level: LogLevel) {
    use tracing_subscriber::{
        Layer as _,
        filter::{LevelFilter, Targets},
        fmt,
        layer::SubscriberExt as _,
        util::SubscriberInitExt as _,
    };
    let level = match level {
        LogLevel::Silent => LevelFilter::OFF,
        LogLevel::Fatal | LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // Of other libraries only warnings: their trace output would hold whole frames.
    let ours = ["openclaw", "openclaw_config", "openclaw_gateway", "openclaw_node", "openclaw_remote"];
    let ours = ours.map(|target| (target, level));
    let filter = Targets::new().with_default(level.min(LevelFilter::WARN)).with_targets(ours);
    let layer = fmt::layer().with_writer(std::io::stderr).with_ansi(false).with_filter(filter);
    let _ = tracing_subscriber::registry().with(layer).try_init();
}
