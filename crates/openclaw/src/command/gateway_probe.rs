//! `openclaw gateway probe`: every gateway this machine knows of, how far each got, and the cure.

use std::time::{Duration, Instant};

use openclaw_config::credentials::{ClientFlags, Surface};
use openclaw_remote::{Deadline, Error as RemoteError, Target, TargetError};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::probe::{Depth, Probed, millis, probe, short};
use crate::{
    args::PortTargetArgs,
    context::{Context, Loaded},
    failure::{Failure, Outcome},
    output::{self, Style, Tone, inert, time},
    reach::block_on,
};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);

/// A target of `gateway probe`, with the reference's ids.
struct Entry {
    id: &'static str,
    label: &'static str,
    target: Target,
}

/// `openclaw gateway probe`.
pub fn run(context: &Context, args: &PortTargetArgs) -> Outcome {
    let loaded = context.config_for_diagnosis()?;
    context.note_problem(loaded.problem.as_ref());
    let (entries, local_port) = entries(context, &loaded, args)?;
    let timeout = args.target.timeout.map_or(DEFAULT_TIMEOUT, Duration::from_millis);
    let started = Instant::now();
    let results = block_on(async {
        let _progress = context.output.progress(format!("Probing {} target(s) …", entries.len()));
        Ok(probe_all(context, entries, timeout).await)
    })?;
    let report = Report { results, timeout, took: started.elapsed(), local_port };
    if args.target.json {
        output::json(&report.to_json());
    } else {
        output::print(&report.render(context.output.out));
    }
    Ok(report.exit_code())
}

async fn probe_all(context: &Context, entries: Vec<Entry>, timeout: Duration) -> Vec<(Entry, Probed)> {
    let mut tasks = JoinSet::new();
    for (index, entry) in entries.into_iter().enumerate() {
        let paths = context.paths.clone();
        tasks.spawn(async move {
            let probed = probe(&entry.target, &paths, Deadline::after(timeout), Depth::Read).await;
            (index, entry, probed)
        });
    }
    let mut done: Vec<_> = tasks.join_all().await;
    done.sort_by_key(|(index, ..)| *index);
    done.into_iter().map(|(_, entry, probed)| (entry, probed)).collect()
}

/// The explicit URL, the configured remote and local loopback, each once.
fn entries(context: &Context, loaded: &Loaded, args: &PortTargetArgs) -> Result<(Vec<Entry>, u16), Failure> {
    let secrets = context.secrets(&loaded.document);
    let refused = |error: TargetError| context.no_target(&error, args);
    let given = context.flags(args);
    // Explicit credentials belong to the target the command line means: the URL, else what the mode says.
    let main = Target::resolve(Surface::Probe, &given, &loaded.gateway, secrets).map_err(refused)?;
    let none = ClientFlags::default();
    let local_port = main.local_port.value;
    let local_flags = ClientFlags { port: Some(local_port), ..none.clone() };
    let (main_is_remote, main_is_local) = (main.source.as_str() == "config gateway.remote.url", main.is_local());
    let mut found = vec![match () {
        () if main_is_remote => Entry { id: "configRemote", label: "Remote (configured)", target: main },
        () if main_is_local => Entry { id: "localLoopback", label: "Local loopback", target: main },
        () => Entry { id: "explicit", label: "URL (explicit)", target: main },
    }];
    if !main_is_remote && args.port.is_none() {
        let remote = Target::configured_remote(Surface::Probe, &none, &loaded.gateway, secrets);
        match remote {
            Ok(Some(target)) => found.push(Entry { id: "configRemote", label: "Remote (configured)", target }),
            Ok(None) => {}
            Err(error) => {
                output::note(format!("{} gateway.remote: {}", context.output.err.warn(), inert(&error.to_string())))
            }
        }
    }
    if !main_is_local {
        match Target::resolve(Surface::Probe, &local_flags, &loaded.gateway, secrets) {
            Ok(target) => found.push(Entry { id: "localLoopback", label: "Local loopback", target }),
            Err(error) => {
                output::note(format!("{} local gateway: {}", context.output.err.warn(), inert(&error.to_string())))
            }
        }
    }
    let mut seen: Vec<String> = Vec::new();
    found.retain(|entry| {
        let place = entry.target.shown();
        let new = !seen.contains(&place);
        seen.push(place);
        new
    });
    Ok((found, local_port))
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

    fn warnings(&self) -> Vec<(&'static str, String, Vec<&'static str>)> {
        let ids = |test: fn(&Probed) -> bool| -> Vec<&'static str> {
            self.results.iter().filter(|(_, probed)| test(probed)).map(|(entry, _)| entry.id).collect()
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
        let connected = ids(Probed::connected);
        if connected.len() > 1 {
            warnings.push(("multiple_gateways", format!("{} gateways answered.", connected.len()), connected));
        }
        for (entry, _) in &self.results {
            if let Ok(resolution) = &entry.target.credentials {
                for warning in &resolution.warnings {
                    warnings.push((
                        "auth_secretref_unresolved",
                        inert(&warning.to_string()).into_owned(),
                        vec![entry.id],
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
                    "id": entry.id, "kind": entry.id, "url": entry.target.shown_url,
                    "urlSource": entry.target.source.as_str(), "active": true, "tunnel": null,
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
            "primaryTargetId": primary.map(|(entry, _)| entry.id),
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
        let url = inert(&entry.target.shown()).into_owned();
        let mut text = format!("{} {}\n", style.paint(Tone::Title, entry.label), style.paint(Tone::Command, &url));
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
/// This machine's tailnet address, if it has one.
fn tailnet() -> Option<String> {
    let mut addresses = openclaw_gateway::bind::local_addresses().into_iter();
    addresses.find(|address| openclaw_gateway::bind::is_tailnet(*address)).map(|address| address.to_string())
}
