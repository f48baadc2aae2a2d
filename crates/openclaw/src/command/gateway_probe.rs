//! `openclaw gateway probe`: every gateway this machine knows of, how far each got, and the cure.

use std::time::{Duration, Instant};

use clap::Args;
use openclaw_config::{
    Connections, GatewayConfig,
    credentials::{ClientFlags, On, Surface, UrlSource},
    gateway::Transport,
};
use openclaw_protocol::GatewayId;
use openclaw_remote::{
    Error as RemoteError, Target, TargetError,
    discovery::{self, Interfaces, Places},
    path::GatewayPath,
    ssh::SshTarget,
};
use serde_json::{Value, json};

use super::{
    paths::{Entry, each_path, probe_all},
    probe::{Depth, Probed, millis, path_json, short},
};
use crate::{
    args::PortTargetArgs,
    context::{Context, Loaded},
    failure::{Failure, Outcome},
    output::{self, Style, Tone, inert, time},
    reach::block_on,
};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);

/// Arguments of `gateway probe`.
#[derive(Args, Debug)]
pub struct GatewayProbe {
    /// Also try this host by ssh
    #[arg(long, value_name = "USER@HOST[:PORT]")]
    pub ssh: Option<String>,
    /// Private key for --ssh
    #[arg(long, value_name = "FILE", requires = "ssh")]
    pub ssh_identity: Option<std::path::PathBuf>,
    /// Also try the first gateway found on the local network by ssh
    #[arg(long, conflicts_with = "ssh")]
    pub ssh_auto: bool,
    #[command(flatten)]
    pub at: PortTargetArgs,
}

/// `openclaw gateway probe`.
pub fn run(context: &Context, args: &GatewayProbe) -> Outcome {
    let loaded = context.config_for_diagnosis()?;
    context.note_problem(loaded.problem.as_ref());
    let (entries, local_port) = entries(context, &loaded, args)?;
    let timeout = args.at.target.timeout.map_or(DEFAULT_TIMEOUT, Duration::from_millis);
    let started = Instant::now();
    let results = block_on(async {
        let _progress = context.output.progress(format!("Probing {} path(s) …", entries.len()));
        Ok(probe_all(context, entries, timeout, Depth::Read).await)
    })?;
    let report = Report { results, timeout, took: started.elapsed(), local_port };
    if args.at.target.json {
        output::json(&report.to_json());
    } else {
        output::print(&report.render(context.output.out));
    }
    Ok(report.exit_code())
}

/// Every path this machine knows of, each once: what the command line means first, then the configured remote, the ssh host
/// that was named, the saved gateways, and the gateway of this machine.
fn entries(context: &Context, loaded: &Loaded, args: &GatewayProbe) -> Result<(Vec<Entry>, u16), Failure> {
    let (at, secrets) = (&args.at, context.secrets(&loaded.document));
    let given = context.flags(at);
    let resolve = |flags: &ClientFlags, config: &GatewayConfig| Target::resolve(Surface::Probe, flags, config, secrets);
    // Explicit credentials belong to the target the command line means: the URL, else what the mode says.
    let main = resolve(&given, &loaded.gateway).map_err(|error| context.no_target(&error, at))?;
    let none = ClientFlags::default();
    let local_port = main.local_port.value;
    let main_is_local = main.is_local();
    let (id, label) = match (main.source, &main.route.name) {
        (_, Some(name)) => (format!("connection:{name}"), format!("Saved gateway {name}")),
        (UrlSource::RemoteConfig | UrlSource::SshTarget, None) => {
            ("configRemote".to_owned(), "Remote (configured)".to_owned())
        }
        _ if main_is_local => ("localLoopback".to_owned(), "Local loopback".to_owned()),
        _ => ("explicit".to_owned(), "URL (explicit)".to_owned()),
    };
    let mut found = each_path(&id, &label, || resolve(&given, &loaded.gateway));
    let warn = |what: &str, error: &dyn std::fmt::Display| {
        output::note(format!("{} {what}: {}", context.output.err.warn(), inert(&error.to_string())));
    };
    let mut add = |id: &str, label: &str, make: &dyn Fn() -> Result<Option<Target>, TargetError>| match make() {
        Ok(Some(_)) => {
            found.extend(each_path(id, label, || make().and_then(|target| target.ok_or(TargetError::UrlAndPort))))
        }
        Ok(None) => {}
        Err(error) => warn(label, &error),
    };
    if at.port.is_none() {
        for (suffix, label, config) in remotes(&loaded.gateway) {
            add(&format!("configRemote{suffix}"), label, &|| {
                Target::configured_remote(Surface::Probe, &none, &config, secrets)
            });
        }
        if let Some(target) = ssh_host(context, args)? {
            let mut config = loaded.gateway.clone();
            config.remote.ssh_identity = args.ssh_identity.as_ref().map(|file| file.display().to_string());
            (config.remote.url, config.remote.ssh_target) = (None, Some(target));
            add("sshTunnel", "SSH", &|| Target::configured_remote(Surface::Probe, &none, &config, secrets));
        }
        match Connections::new(&context.paths).load() {
            Ok(book) => {
                for name in book.connections.keys() {
                    let flags = ClientFlags { on: Some(On::Connection(name.clone())), ..none.clone() };
                    let label = format!("Saved gateway {name}");
                    add(&format!("connection:{name}"), &label, &|| resolve(&flags, &loaded.gateway).map(Some));
                }
            }
            Err(error) => warn("saved gateways", &error),
        }
    }
    if !main_is_local {
        let flags = ClientFlags { port: Some(local_port), on: Some(On::Local), ..none.clone() };
        add("localLoopback", "Local loopback", &|| resolve(&flags, &loaded.gateway).map(Some));
    }
    let mut seen: Vec<String> = Vec::new();
    found.retain(|entry| {
        let place = entry.path().map(|path| format!("{} {}", path.label(), path.far_url())).unwrap_or_default();
        let new = !seen.contains(&place);
        seen.push(place);
        new
    });
    Ok((found, local_port))
}

/// The ways the config knows to the remote gateway: the one commands take, and the other where there are two.
fn remotes(config: &GatewayConfig) -> Vec<(&'static str, &'static str, GatewayConfig)> {
    let mut ways = vec![("", "Remote (configured)", config.clone())];
    let remote = &config.remote;
    let has_url = remote.url.as_deref().is_some_and(|url| !SshTarget::is_url(url));
    if remote.ssh_target.is_some() && has_url {
        let mut by_ssh = config.clone();
        by_ssh.remote.url = None;
        ways.push((":ssh", "Remote (configured), by ssh", by_ssh));
        let mut direct = config.clone();
        direct.remote.ssh_target = None;
        direct.remote.transport = Transport::Direct;
        ways.push((":direct", "Remote (configured), direct", direct));
    }
    ways
}

/// The host of `--ssh`, or the first that `--ssh-auto` finds.
fn ssh_host(context: &Context, args: &GatewayProbe) -> Result<Option<String>, Failure> {
    if let Some(text) = &args.ssh {
        let target: SshTarget = text.parse().map_err(|error| Failure::new(format!("--ssh: {error}.")))?;
        return Ok(Some(target.to_string()));
    }
    if !args.ssh_auto {
        return Ok(None);
    }
    let _progress = context.output.progress("Looking for gateways on the local network …");
    let places = Places { ssh_hosts: Vec::new(), lan: Some(Interfaces::Real), tailscaled: None };
    let found = block_on(async { Ok(discovery::browse(places).await) })?;
    let host = found.candidates.first().map(|candidate| candidate.target.to_string());
    if host.is_none() {
        output::note(format!("{} --ssh-auto found no gateway on the local network.", context.output.err.warn()));
    }
    for silence in &found.silent {
        let reason = inert(&silence.reason).into_owned();
        output::note(format!("{} {}: {reason}", context.output.err.warn(), silence.source.as_str()));
    }
    Ok(host)
}

struct Report {
    results: Vec<(Entry, Probed)>,
    timeout: Duration,
    took: Duration,
    local_port: u16,
}

impl Report {
    /// The one to look at first: the first that connected, else the first that answered, else the first.
    fn primary(&self) -> Option<&(Entry, Probed)> {
        let by = |test: fn(&Probed) -> bool| self.results.iter().find(move |(_, probed)| test(probed));
        by(Probed::connected).or_else(|| by(Probed::reached)).or(self.results.first())
    }

    fn reachable(&self) -> bool {
        self.results.iter().any(|(_, probed)| probed.reached())
    }

    /// Non-zero only when nothing answered: then the stage that failed.
    fn exit_code(&self) -> u8 {
        match self.primary() {
            _ if self.reachable() => 0,
            Some((_, probed)) => probed.error.as_ref().map_or(1, RemoteError::exit_code),
            None => 1,
        }
    }

    fn warnings(&self) -> Vec<(&'static str, String, Vec<String>)> {
        let ids = |test: fn(&Probed) -> bool| -> Vec<String> {
            self.results.iter().filter(|(_, probed)| test(probed)).map(|(entry, _)| entry.id.clone()).collect()
        };
        let mut warnings = Vec::new();
        if !self.reachable() {
            warnings.push(("no_gateway_reachable", "No gateway answered at any target.".to_owned(), ids(|_| true)));
        }
        let limited = ids(Probed::scope_limited);
        if !limited.is_empty() {
            let text = "Read-probe diagnostics are limited by gateway scopes (missing operator.read). The connection \
                        works; pair this device or use credentials with operator.read to see more.";
            warnings.push(("probe_scope_limited", text.to_owned(), limited));
        }
        let mut gateways: Vec<&GatewayId> =
            self.results.iter().filter_map(|(_, probed)| probed.gateway.as_ref()).collect();
        gateways.sort();
        gateways.dedup();
        if gateways.len() > 1 {
            let text = format!("{} different gateways answered.", gateways.len());
            warnings.push(("multiple_gateways", text, ids(Probed::connected)));
        }
        for (entry, _) in &self.results {
            if let Ok(resolution) = &entry.target.credentials {
                for warning in &resolution.warnings {
                    warnings.push((
                        "auth_secretref_unresolved",
                        inert(&warning.to_string()).into_owned(),
                        vec![entry.id.clone()],
                    ));
                }
            }
        }
        warnings
    }

    fn to_json(&self) -> Value {
        let primary = self.primary();
        let targets: Vec<Value> = self
            .results
            .iter()
            .map(|(entry, probed)| {
                let answers = &probed.answers;
                let failure = probed
                    .error
                    .as_ref()
                    .map(|error| Failure::remote(error, &entry.target.place).envelope()["error"].clone());
                let close = match &probed.error {
                    Some(RemoteError::Closed { code, reason, .. }) => json!({"code": code, "reason": reason}),
                    _ => Value::Null,
                };
                json!({
                    "id": entry.id, "kind": entry.id, "url": entry.shown,
                    "urlSource": entry.target.source.as_str(), "active": true, "tunnel": ssh_json(entry),
                    "path": path_json(probed), "steps": entry.chain(probed).map(|chain| chain.to_json()),
                    "connect": {
                        "ok": probed.connected(), "rpcOk": probed.connected() && probed.error.is_none(),
                        "scopeLimited": probed.scope_limited(), "latencyMs": millis(probed.latency),
                        "error": probed.error.as_ref().map(|error| inert(&error.to_string()).into_owned()),
                        "failure": failure, "close": close,
                    },
                    "auth": probed.auth_json(), "server": probed.server_json(),
                    "protocol": probed.hello.as_ref().map(|hello| hello.protocol),
                    "self": answers.presence.as_ref().and_then(|list| list.get(0)),
                    "config": answers.config, "health": answers.health, "summary": answers.status,
                    "presence": answers.presence,
                })
            })
            .collect();
        let warnings: Vec<Value> = self
            .warnings()
            .into_iter()
            .map(|(code, message, ids)| json!({"code": code, "message": message, "targetIds": ids}))
            .collect();
        json!({
            "ok": self.reachable(),
            "degraded": self.results.iter().any(|(_, probed)| probed.reached() && probed.error.is_some()),
            "capability": primary.map_or("unknown", |(_, probed)| probed.capability()),
            "ts": time::now_ms(), "durationMs": millis(self.took), "timeoutMs": millis(self.timeout),
            "primaryTargetId": primary.map(|(entry, _)| &entry.id),
            "warnings": warnings,
            "network": {
                "localLoopbackUrl": format!("ws://127.0.0.1:{}", self.local_port),
                "localTailnetUrl": tailnet().map(|address| format!("ws://{address}:{}", self.local_port)),
                "tailnetIPv4": tailnet(),
            },
            "targets": targets,
        })
    }

    fn render(&self, style: Style) -> String {
        let mut text = format!("{}\n", style.paint(Tone::Title, "Gateway Status"));
        let yes = if self.reachable() { style.paint(Tone::Good, "yes") } else { style.paint(Tone::Bad, "no") };
        let capability = self.primary().map_or("unknown", |(_, probed)| probed.capability());
        text.push_str(&format!(
            "Reachable: {yes}\nCapability: {}\nProbe budget: {}\n",
            capability.replace('_', "-"),
            time::span(self.timeout)
        ));
        for (_, message, _) in self.warnings() {
            text.push_str(&format!("{} {message}\n", style.warn()));
        }
        text.push_str(&format!("\n{}\n", style.paint(Tone::Title, "Targets")));
        for (entry, probed) in &self.results {
            text.push_str(&self.render_target(style, entry, probed));
        }
        text
    }

    fn render_target(&self, style: Style, entry: &Entry, probed: &Probed) -> String {
        let url = inert(&entry.shown).into_owned();
        let mut text = format!("{} {}\n", style.paint(Tone::Title, &entry.label), style.paint(Tone::Command, &url));
        let rpc = match (&probed.error, probed.connected()) {
            (None, true) => style.paint(Tone::Good, "ok"),
            (Some(error @ RemoteError::Scope { .. }), true) => {
                style.paint(Tone::Warn, &format!("limited - {}", short(error)))
            }
            (Some(error), _) => style.paint(Tone::Bad, &format!("failed - {}", short(error))),
            (None, false) => style.paint(Tone::Bad, "failed"),
        };
        let connect = match (&probed.error, probed.connected(), probed.reached()) {
            (_, true, _) => format!("{} ({})", style.paint(Tone::Good, "ok"), time::span(probed.latency)),
            (Some(_), false, true) => {
                format!("{} ({})", style.paint(Tone::Good, "answered"), time::span(probed.latency))
            }
            (Some(error), false, false) => style.paint(Tone::Bad, &format!("failed - {}", short(error))),
            (None, false, _) => style.paint(Tone::Bad, "failed"),
        };
        let mut parts = vec![format!("Connect: {connect}")];
        if probed.reached() {
            parts.push(format!("Capability: {}", probed.capability().replace('_', "-")));
            parts.push(format!("RPC probe: {rpc}"));
        }
        text.push_str(&format!("  {}\n", parts.join(style.dot())));
        if let Some(chain) = entry.chain(probed) {
            text.push_str(&format!("  {}\n", chain.render(style)));
        }
        if let Some(hello) = &probed.hello {
            text.push_str(
                &style.paint(Tone::Dim, &format!("  {} protocol {}\n", inert(&hello.version), hello.protocol)),
            );
        }
        if let Some(error) = &probed.error
            && !probed.scope_limited()
        {
            let failure = Failure::remote(error, &entry.target.place);
            for line in failure.lines(style).iter().skip(1) {
                text.push_str(&format!("  {line}\n"));
            }
            if matches!(error, RemoteError::Connect { .. }) && entry.target.is_local() {
                let tunnel = style.paint(Tone::Command, &entry.target.place.tunnel_command());
                text.push_str(&format!("  If it runs elsewhere, open a tunnel first: {tunnel}\n"));
            }
        }
        text
    }
}

/// The ssh below a path, for JSON.
fn ssh_json(entry: &Entry) -> Value {
    match entry.path() {
        Some(GatewayPath::Ssh(spec)) => {
            json!({"kind": "ssh", "target": spec.target.to_string(), "remotePort": spec.gateway_port})
        }
        _ => Value::Null,
    }
}

/// This machine's tailnet address, if it has one.
fn tailnet() -> Option<String> {
    let mut addresses = openclaw_gateway::bind::local_addresses().into_iter();
    addresses.find(|address| openclaw_gateway::bind::is_tailnet(*address)).map(|address| address.to_string())
}
