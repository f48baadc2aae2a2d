//! `openclaw gateway status`: where the gateway should be, whether it answers, and what listens there.

use std::time::Duration;

use openclaw_config::{BindMode, Mode};
use openclaw_gateway::ports::{self, Listener};
use openclaw_remote::Deadline;
use serde_json::{Value, json};

use super::probe::{Depth, Probed, millis, path_json, path_words, probe, short};
use crate::{
    args::GatewayStatus,
    context::{Context, Problem},
    failure::{Failure, Outcome},
    output::{self, Style, Tone, inert, time},
    reach::{Purpose, Reach, block_on},
};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

pub fn run(context: &Context, args: &GatewayStatus) -> Outcome {
    let loaded = context.config_for_diagnosis()?;
    let problem = loaded.problem.clone();
    let reach = context.reach_with(loaded, &args.at, Purpose::Status, DEFAULT_TIMEOUT)?;
    let probed = if args.no_probe {
        None
    } else {
        let probed = block_on(async {
            let _progress = context.output.progress(format!("Probing {} …", inert(&reach.target.shown())));
            let depth = if args.deep { Depth::Read } else { Depth::Connect };
            Ok(probe(&reach.target, &context.paths, Deadline::after(reach.timeout()), depth).await)
        })?;
        Some(probed)
    };
    let report = Report::new(context, &reach, problem, probed);
    if args.at.target.json {
        output::json(&report.to_json());
    } else {
        output::print(&report.render(context.output.out));
        report.explain(context.output.err);
    }
    match report.probed.as_ref().and_then(|probed| probed.error.as_ref()) {
        Some(error) if args.require_rpc => Ok(error.exit_code()),
        _ => Ok(0),
    }
}

/// The gateway process of this profile, as far as this machine shows it.
#[derive(Debug, PartialEq, Eq)]
pub enum Runtime {
    /// The config points elsewhere: nothing here to look at.
    Remote,
    /// `--url` or the variable names another place.
    Elsewhere,
    Running {
        pid: Option<u32>,
    },
    /// Somebody else has the port.
    Occupied(Vec<Listener>),
    NotRunning,
}

impl Runtime {
    /// Asks the owner's socket first; only without it the port, since finding out who holds one means looking at every
    /// process.
    pub fn find(context: &Context, mode: Mode, port: u16) -> Self {
        Self::find_with(context, mode, || ports::listeners(port))
    }

    fn find_with(context: &Context, mode: Mode, listeners: impl FnOnce() -> Vec<Listener>) -> Self {
        if mode == Mode::Remote {
            return Self::Remote;
        }
        let note = openclaw_config::files::read_private(&context.paths.lock_file(), 4096).ok().flatten();
        let note = note.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        let pid = note.and_then(|note| u32::try_from(note.get("pid")?.as_u64()?).ok());
        if std::os::unix::net::UnixStream::connect(context.paths.owner_socket()).is_ok() {
            return Self::Running { pid };
        }
        let listeners = listeners();
        match pid {
            _ if listeners.is_empty() => Self::NotRunning,
            Some(pid) if listeners.iter().any(|listener| listener.pid == Some(pid)) => Self::Running { pid: Some(pid) },
            _ => Self::Occupied(listeners),
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Remote => "remote".to_owned(),
            Self::Elsewhere => "not looked at (the URL was given)".to_owned(),
            Self::Running { pid: Some(pid) } => format!("running (pid {pid})"),
            Self::Running { pid: None } => "running".to_owned(),
            Self::Occupied(listeners) => {
                let holders: Vec<String> = listeners.iter().map(holder).collect();
                format!("not this profile's gateway; the port is held by {}", holders.join(", "))
            }
            Self::NotRunning => "not running".to_owned(),
        }
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Remote => json!({"status": "remote"}),
            Self::Elsewhere => json!({"status": "unknown"}),
            Self::Running { pid } => json!({"status": "running", "pid": pid}),
            Self::Occupied(_) => json!({"status": "foreign"}),
            Self::NotRunning => json!({"status": "stopped"}),
        }
    }
}

/// `pid 123 (openclaw)`.
pub fn holder(listener: &Listener) -> String {
    match (listener.pid, &listener.command) {
        (Some(pid), Some(command)) => {
            let program = command.split(' ').next().unwrap_or_default();
            let name = std::path::Path::new(program).file_name().map_or(program.into(), |name| name.to_string_lossy());
            format!("pid {pid} ({})", inert(&name))
        }
        (Some(pid), None) => format!("pid {pid}"),
        (None, _) => format!("a process of uid {}", listener.uid),
    }
}

struct Report<'a> {
    context: &'a Context,
    reach: &'a Reach<'a>,
    problem: Option<Problem>,
    probed: Option<Probed>,
    mode: Mode,
    /// The target is this machine's gateway.
    here: bool,
    port: u16,
    port_source: String,
    bind: BindMode,
    bind_host: String,
    runtime: Runtime,
    listeners: Vec<Listener>,
}

impl<'a> Report<'a> {
    fn new(context: &'a Context, reach: &'a Reach<'a>, problem: Option<Problem>, probed: Option<Probed>) -> Self {
        let gateway = &reach.loaded.gateway;
        let openclaw_remote::target::LocalPort { value: port, source: port_source } = reach.target.local_port.clone();
        let bind = gateway.bind.unwrap_or(BindMode::Loopback);
        let listeners = if reach.target.is_local() { ports::listeners(port) } else { Vec::new() };
        // Far away, the local port says nothing.
        let here = reach.target.is_local();
        let mode = match () {
            () if here => Mode::Local,
            // A saved connection is elsewhere, whatever the config says of this machine.
            () if reach.target.route.name.is_some() => Mode::Remote,
            () => gateway.effective_mode(),
        };
        Self {
            mode,
            runtime: if here || mode == Mode::Remote {
                Runtime::find_with(context, mode, || listeners.clone())
            } else {
                Runtime::Elsewhere
            },
            listeners,
            here,
            bind_host: bind_host(bind, gateway.custom_bind_host),
            context,
            reach,
            problem,
            probed,
            port,
            port_source,
            bind,
        }
    }

    fn log_file(&self) -> String {
        self.context
            .log_file()
            .map_or_else(|_| "unknown".to_owned(), |path| inert(&path.display().to_string()).into_owned())
    }

    fn note(&self) -> Option<&'static str> {
        (self.here && self.bind == BindMode::Loopback)
            .then_some("Loopback-only gateway; only local clients can connect.")
    }

    fn to_json(&self) -> Value {
        let (context, target) = (self.context, &self.reach.target);
        let config = json!({"path": context.paths.config_file, "exists": context.paths.config_file.exists(),
            "valid": self.problem.is_none()});
        let listeners: Vec<Value> = self
            .listeners
            .iter()
            .map(|l| {
                let address = format!("{}:{}", l.address, self.port);
                json!({"pid": l.pid, "address": address, "command": l.command, "uid": l.uid})
            })
            .collect();
        let rpc = self.probed.as_ref().map(|probed| {
            let failure =
                probed.error.as_ref().map(|error| Failure::remote(error, &target.place).envelope()["error"].clone());
            let connect_failure = if probed.reached() { Value::Null } else { failure.clone().unwrap_or_default() };
            json!({
                "ok": probed.connected(), "kind": "connect", "capability": probed.capability(),
                "auth": probed.auth_json(), "server": probed.server_json(),
                "version": probed.hello.as_ref().map(|hello| &hello.version),
                "protocol": probed.hello.as_ref().map(|hello| hello.protocol),
                "latencyMs": millis(probed.latency), "url": target.shown_url, "path": path_json(probed),
                "error": probed.error.as_ref().map(short), "failure": failure, "connectFailure": connect_failure,
            })
        });
        json!({
            "cli": {"version": crate::version::SHORT, "commit": env!("OPENCLAW_COMMIT"),
                "entrypoint": std::env::current_exe().ok()},
            "logFile": self.log_file(),
            "config": {"cli": config},
            "gateway": {
                "mode": if self.mode == Mode::Remote { "remote" } else { "local" },
                "bindMode": self.bind.as_str(), "bindHost": self.bind_host, "port": self.port,
                "portSource": self.port_source, "probeUrl": target.shown_url,
                "probeUrlSource": target.source.as_str(),
                "connection": target.route.name,
                "controlUiLinks": {"httpUrl": target.url.to_http(), "wsUrl": target.url.to_string()},
                "probeNote": self.note(),
                "version": self.probed.as_ref().and_then(|p| p.hello.as_ref()).map(|hello| &hello.version),
            },
            "runtime": self.runtime.to_json(),
            "port": {"port": self.port, "status": if self.listeners.is_empty() { "free" } else { "busy" },
                "listeners": listeners, "hints": []},
            "rpc": rpc,
        })
    }

    fn render(&self, style: Style) -> String {
        let target = &self.reach.target;
        let label = |name: &str| style.paint(Tone::Dim, &format!("{name}:"));
        let mut text = String::new();
        let mut line = |name: &str, value: &str| text.push_str(&format!("{} {value}\n", label(name)));
        let config = match (&self.problem, self.context.paths.config_file.exists()) {
            (Some(_), _) => format!("{} (invalid)", self.context.config_path()),
            (None, false) => format!("{} (missing)", self.context.config_path()),
            (None, true) => self.context.config_path(),
        };
        line("File logs", &self.log_file());
        line("Config (cli)", &config);
        line("", "");
        if self.here {
            let bind =
                format!("bind={} ({}), port={} ({})", self.bind.as_str(), self.bind_host, self.port, self.port_source);
            line("Gateway", &bind);
        }
        let url = inert(&target.shown()).into_owned();
        let source = target.named_by();
        line("Probe target", &format!("{} ({source})", style.paint(Tone::Command, &url)));
        line("Dashboard", &target.url.to_http());
        if let Some(note) = self.note() {
            line("Probe note", note);
        }
        line("", "");
        line("CLI version", crate::version::NUMBER_AND_COMMIT);
        if let Some(hello) = self.probed.as_ref().and_then(|probed| probed.hello.as_ref()) {
            line("Gateway version", &format!("{} (protocol {})", inert(&hello.version), hello.protocol));
        }
        line("Runtime", &self.runtime.words());
        match &self.probed {
            None => line("RPC probe", "skipped (--no-probe)"),
            Some(probed) => {
                let took = time::span(probed.latency);
                let word = match probed.connected() {
                    true => format!("{} ({took})", style.paint(Tone::Good, "ok")),
                    false => style.paint(Tone::Bad, "failed"),
                };
                line("RPC probe", &word);
                if let Some(path) = path_words(probed) {
                    line("Path", &path);
                }
                line("Capability", &probed.capability().replace('_', "-"));
                if let Some(error) = probed.error.as_ref().filter(|_| probed.connected()) {
                    line("Read methods", &short(error));
                }
            }
        }
        if self.here {
            let listening: Vec<String> =
                self.listeners.iter().map(|l| format!("{}:{} by {}", l.address, self.port, holder(l))).collect();
            let none =
                || format!("nothing on port {} (ss -ltnp | grep {}; lsof -i :{})", self.port, self.port, self.port);
            line("Listening", &if listening.is_empty() { none() } else { listening.join(", ") });
        }
        text.push_str(&format!("{} {}\n", label("Troubles"), style.paint(Tone::Command, "openclaw doctor --why")));
        // The blank separators are written as an empty label.
        text.replace(&format!("{} \n", label("")), "\n")
    }

    /// What failed and how to cure it, on stderr: the exit code stays 0 without --require-rpc.
    fn explain(&self, style: Style) {
        if let Some(problem) = &self.problem {
            self.context.note_problem(Some(problem));
        }
        let Some(error) = self.probed.as_ref().and_then(|probed| probed.error.as_ref()) else { return };
        self.reach.failure(error).lines(style).iter().for_each(output::note);
    }
}

fn bind_host(bind: BindMode, custom: Option<std::net::Ipv4Addr>) -> String {
    let plan = openclaw_gateway::bind::plan(bind, custom, &openclaw_gateway::bind::local_addresses());
    plan.map_or_else(
        |_| "no such address".to_owned(),
        |plan| plan.addresses.last().map(ToString::to_string).unwrap_or_default(),
    )
}
