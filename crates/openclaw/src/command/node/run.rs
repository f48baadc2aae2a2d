//! `openclaw node run`.

use std::{path::PathBuf, sync::Arc};

use openclaw_gateway::{
    pairing::words::{RequestDigest, three_words},
    tools::Guards,
};
use openclaw_node::{
    command::Toolbox,
    exec::{environment::AlsoAllowed, process::Guard},
    host::{self, Host, Identity, Told},
    settings::{NodeSettings, machine_name},
    surface::Surface,
};
use openclaw_protocol::{Role, ScopeSet, SetupCode};
use openclaw_remote::{Error as RemoteError, store::IdentityStore};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{
    args::{NodeOptions, NodeRun},
    home::{self, Found},
};
use crate::{
    context::Context,
    failure::{self, Failure, Outcome},
    output::{self, Style, Tone, inert, time},
};

/// Threads of the host: one for the connection, one for a command that is busy with files.
const THREADS: usize = 2;

pub fn run(context: &Context, args: &NodeRun) -> Outcome {
    let loaded = context.config_for_diagnosis()?;
    if let Some(problem) = &loaded.problem {
        return Err(context.invalid(problem));
    }
    let settings = settle(context, &args.options)?;
    let code = match (&args.pair, &args.pair_if_needed) {
        (Some(code), _) => Some((setup_code(code)?, false)),
        (None, Some(code)) => Some((setup_code(code)?, true)),
        (None, None) => None,
    };
    let Found { home, place, saved, shown } = home::find(context, &loaded, &args.options, &settings, code)?;
    let settings = NodeSettings { gateway: saved.or(settings.gateway), ..settings };
    settings.save(&context.paths).map_err(|error| Failure::new(error.to_string()))?;

    let also = AlsoAllowed::new(settings.allow_env.clone()).map_err(|reason| Failure::new(format!("{reason}.")))?;
    let own_env =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let toolbox = Toolbox::new(guard()?, &context.paths, &loaded.document, own_env, also);
    let surface = Surface::of(&toolbox, settings.commands.as_deref());
    let style = context.output.err;
    output::note(format!("node-host: advertised commands: {}", surface.commands.join(", ")));
    let display_name = settings.display_name.clone().unwrap_or_else(machine_name);
    let store = IdentityStore::new(context.paths.clone());
    let host = Host {
        home,
        identity: Identity { instance_id: settings.node_id, display_name, surface },
        toolbox: Arc::new(toolbox),
        store: Arc::new(store),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(format!("The system gives no event loop: {error}.")))?;
    let stopped = runtime.block_on(async {
        let stop = CancellationToken::new();
        let signals = stop_on_signals(stop.clone())?;
        let teller = Teller { style, host: &host, shown: &shown };
        let outcome = host.run(&stop, &|told| teller.tell(&told)).await;
        signals.abort();
        Ok::<_, Failure>(outcome)
    })?;
    // A name look-up that never answers must not keep the program.
    runtime.shutdown_background();
    match stopped {
        Ok(()) => {
            output::note("node host stopped");
            Ok(0)
        }
        Err(error) => {
            let failure = Failure::remote(&error, &place).fact("Gateway", shown);
            let failure = failure.with_message(format!("node host stopped: {}", inert(&error.to_string())));
            Err(match host::advice(&error) {
                Some(advice) => failure.detail(advice),
                None => failure,
            })
        }
    }
}

/// The node's settings with the options over them.
pub fn settle(context: &Context, options: &NodeOptions) -> Result<NodeSettings, Failure> {
    let mut settings = NodeSettings::load(&context.paths).map_err(|error| Failure::new(error.to_string()))?;
    let text =
        |text: &Option<String>| text.as_deref().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
    if let Some(id) = text(&options.node_id) {
        settings.node_id = id;
    }
    settings.display_name = text(&options.display_name).or(settings.display_name);
    if options.all_commands {
        settings.commands = None;
    } else if !options.commands.is_empty() {
        let mut commands: Vec<String> =
            options.commands.iter().map(|id| id.trim().to_owned()).filter(|id| !id.is_empty()).collect();
        commands.sort();
        commands.dedup();
        settings.commands = Some(commands);
    }
    settings.allow_env.extend(options.allow_env.iter().cloned());
    let also =
        AlsoAllowed::new(settings.allow_env).map_err(|reason| Failure::new(format!("--allow-env: {reason}.")))?;
    settings.allow_env = also.names().to_vec();
    Ok(settings)
}

fn setup_code(text: &str) -> Result<SetupCode, Failure> {
    let code = SetupCode::parse(text).map_err(|error| Failure::new(format!("{error}.")))?;
    match code.role {
        Some(Role::Operator) => {
            Err(Failure::new("This setup code is for commanding the gateway, not for lending a machine.")
                .detail("It was not used.")
                .remedy("to command the gateway with it", "openclaw connect <code> --as operator"))
        }
        _ => Ok(code),
    }
}

/// How the gateway starts programs: through this very program.
pub fn guards() -> Result<Guards, Failure> {
    let programs = guard()?;
    let arguments = ["node", "guard", "--stdio", "--"].map(Into::into).to_vec();
    let servers = openclaw_agent::mcp::Guard { program: programs.program.clone(), arguments };
    Ok(Guards { programs, servers })
}

/// This very program, asked to be a guard. On Linux by the name that still works after the file was replaced.
fn guard() -> Result<Guard, Failure> {
    let own = PathBuf::from("/proc/self/exe");
    let program = if own.exists() {
        own
    } else {
        std::env::current_exe()
            .map_err(|error| Failure::new(format!("This program does not know where it is: {error}.")))?
    };
    Ok(Guard { program, arguments: ["node", "guard", "--"].map(Into::into).to_vec() })
}

fn stop_on_signals(stop: CancellationToken) -> Result<tokio::task::JoinHandle<()>, Failure> {
    let listen = |kind| signal(kind).map_err(|error| Failure::new(format!("The system gives no signals: {error}.")));
    let (mut interrupt, mut terminate, mut hangup) =
        (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?, listen(SignalKind::hangup())?);
    Ok(tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        stop.cancel();
    }))
}

/// What failed; of a certificate also why, since nobody can guess that.
fn reason(error: &RemoteError) -> String {
    let what = inert(&error.to_string()).into_owned();
    match error.leading() {
        tls @ RemoteError::Tls { .. } => failure::cause(tls).map_or(what.clone(), |why| format!("{what}: {why}")),
        _ => what,
    }
}

/// Says what happens, on stderr; under a service manager that is its journal.
struct Teller<'a> {
    style: Style,
    host: &'a Host,
    shown: &'a str,
}

impl Teller<'_> {
    fn tell(&self, told: &Told<'_>) {
        let (style, command) = (self.style, |text: String| self.style.paint(Tone::Command, &text));
        match told {
            Told::Connected { link, gateway } => {
                let version = inert(&link.client.hello().server.version).into_owned();
                let path = inert(&link.path.shown()).into_owned();
                let identity = gateway.map(|id| format!("{}gateway {}", style.dot(), id.short())).unwrap_or_default();
                output::note(format!("{} node host gateway connected: {path} ({version}{identity})", style.ok()));
            }
            Told::Lost { why } => output::note(format!("node host gateway {}", inert(why))),
            Told::Failed { error, again } => output::note(format!(
                "node host gateway connect failed: {}; trying again in {}",
                reason(error),
                time::span(*again)
            )),
            Told::ApproveDevice { error } => self.approve_device(error),
            Told::ApproveCommands { request } => {
                output::note(format!("{} What this node offers waits for the owner's approval.", style.warn()));
                let what = match request {
                    Some(id) => format!("openclaw nodes approve {}", inert(id)),
                    None => "openclaw nodes pending".to_owned(),
                };
                output::note(format!("  On the gateway's host: {}", command(what)));
            }
            Told::CommandsDecided { approved: true } => {
                output::note(format!("{} The owner approved what this node offers.", style.ok()));
            }
            Told::CommandsDecided { approved: false } => {
                output::note(format!(
                    "{} The owner did not approve what this node offers, or took it back.",
                    style.warn()
                ));
            }
        }
    }

    fn approve_device(&self, error: &RemoteError) {
        let style = self.style;
        let command = |text: &str| style.paint(Tone::Command, text);
        let RemoteError::Pairing(pairing) = error else { return };
        output::note(format!(
            "{} {} does not know this node yet: {}.",
            style.warn(),
            self.shown,
            inert(&error.to_string())
        ));
        if let Some(words) = self.words(pairing.error.details.as_ref()) {
            output::note(format!("  Its list shows this request as: {words}"));
        }
        match &pairing.request_id {
            Some(id) => {
                let approve = format!("openclaw devices approve {}", inert(id));
                output::note(format!("  Approve it on the gateway's host: {}", command(&approve)));
            }
            None => output::note(format!("  Approve it on the gateway's host: {}", command("openclaw devices list"))),
        }
        output::note(
            "  The request waits five minutes, then this node asks anew; it goes on by itself once it is approved.",
        );
    }

    /// The three words by which the owner recognises this node's request, on gateways that show them.
    fn words(&self, details: Option<&serde_json::Value>) -> Option<String> {
        // Only this program's gateways send it, and only they show words.
        details?.get("remediation")?;
        let key = self.host.store.key(false).ok()??;
        Some(three_words(&RequestDigest::of(key.public(), Role::Node, ScopeSet::parse::<&str>(&[]))).join("-"))
    }
}
