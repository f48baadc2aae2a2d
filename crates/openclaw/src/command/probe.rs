//! Asking a gateway how far a client gets: name, connect, TLS, HTTP, protocol, auth, pairing, scope, call. One engine for
//! `gateway probe`, `gateway status`, `status` and `doctor`, so that they cannot contradict each other.

use std::time::{Duration, Instant};

use openclaw_config::credentials::{ClientFlags, Surface};
use openclaw_remote::{
    Client, Deadline, Error as RemoteError, Target, TargetError,
    connect::{DeviceUse, Persona, Plan, connect},
    store::IdentityStore,
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    args::PortTargetArgs,
    context::{Context, Loaded},
    failure::{Failure, Outcome},
    output::{self, Style, Tone, inert, time},
    reach::{block_on, flags},
};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);
const READ: &str = "operator.read";

/// What one probe found.
#[derive(Debug)]
pub struct Probed {
    /// From the first packet to hello, or to the refusal.
    pub latency: Duration,
    /// The server's hello, when there was one.
    pub hello: Option<Hello>,
    /// Why it went no further: the connection's error, or the first method's.
    pub error: Option<RemoteError>,
    pub answers: Answers,
}

/// What the gateway said of itself.
#[derive(Debug)]
pub struct Hello {
    pub version: String,
    pub conn_id: String,
    pub protocol: u32,
    pub role: String,
    pub scopes: Vec<String>,
}

/// Results of the read methods, where they were asked and allowed.
#[derive(Debug, Default)]
pub struct Answers {
    pub health: Option<Value>,
    pub status: Option<Value>,
    pub presence: Option<Value>,
    pub config: Option<Value>,
}

/// How deep to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Hello is enough.
    Connect,
    /// Also `health`, `status`, `system-presence` and `config.get`.
    Read,
}

impl Probed {
    /// Something answered as a gateway does.
    pub fn reached(&self) -> bool {
        self.hello.is_some() || self.error.as_ref().is_some_and(RemoteError::reached_gateway)
    }

    /// Connected and authenticated.
    pub const fn connected(&self) -> bool {
        self.hello.is_some()
    }

    /// The words of the reference for what the connection may do.
    pub fn capability(&self) -> &'static str {
        let Some(hello) = &self.hello else {
            return match &self.error {
                Some(RemoteError::Pairing(_)) => "pairing_pending",
                _ => "unknown",
            };
        };
        let scopes = openclaw_protocol::ScopeSet::parse(&hello.scopes);
        use openclaw_protocol::Scope;
        match () {
            () if scopes.grants(Scope::Admin) => "admin_capable",
            () if scopes.grants(Scope::Write) => "write_capable",
            () if scopes.grants(Scope::Read) => "read_only",
            () => "connected_no_operator_scope",
        }
    }

    /// True when the only fault is a missing scope.
    pub fn scope_limited(&self) -> bool {
        self.hello.is_some() && matches!(self.error, Some(RemoteError::Scope { .. }))
    }

    /// `auth` of JSON reports.
    pub fn auth_json(&self) -> Value {
        let hello = self.hello.as_ref();
        json!({"role": hello.map(|hello| &hello.role), "scopes": hello.map(|hello| hello.scopes.clone()).unwrap_or_default(),
            "capability": self.capability()})
    }

    pub fn server_json(&self) -> Value {
        let hello = self.hello.as_ref();
        json!({"version": hello.map(|hello| &hello.version), "connId": hello.map(|hello| &hello.conn_id)})
    }
}

/// Probes one target's URL. Never makes a device identity, never waits for a starting gateway beyond the deadline.
pub async fn probe(target: &Target, store: &IdentityStore, deadline: Deadline, depth: Depth) -> Probed {
    let started = Instant::now();
    let secrets = match target.secrets() {
        Ok(secrets) => secrets,
        Err(error) => {
            let error = Some(RemoteError::Credentials(Box::new(error.clone())));
            return Probed { latency: Duration::ZERO, hello: None, error, answers: Answers::default() };
        }
    };
    let endpoint = target.endpoint();
    let params = Persona::Probe.params(&[READ]);
    let plan = Plan {
        endpoint: &endpoint,
        params,
        secrets,
        device: DeviceUse::IfKnown,
        stored_tokens: target.may_use_stored_tokens(),
        store,
        deadline,
    };
    let client = match connect(plan, &|_| ()).await {
        Ok((client, _)) => client,
        Err(error) => {
            return Probed { latency: started.elapsed(), hello: None, error: Some(error), answers: Answers::default() };
        }
    };
    let latency = started.elapsed();
    let hello = client.hello();
    let (role, scopes) = match &hello.auth {
        Some(auth) => (auth.role.clone(), auth.scopes.clone()),
        // A v3 gateway may leave it out: what was asked is what it gave.
        None => ("operator".to_owned(), vec![READ.to_owned()]),
    };
    let hello = Hello {
        version: hello.server.version.clone(),
        conn_id: hello.server.conn_id.clone(),
        protocol: hello.protocol,
        role,
        scopes,
    };
    let (answers, error) = match depth {
        Depth::Connect => (Answers::default(), None),
        Depth::Read => read(&client, deadline.left()).await,
    };
    client.close().await;
    Probed { latency, hello: Some(hello), error, answers }
}

async fn read(client: &Client, limit: Duration) -> (Answers, Option<RemoteError>) {
    let ask = |method: &'static str, params: Option<Value>| client.call(method, params, limit);
    let (health, status, presence, config) = tokio::join!(
        ask("health", None),
        ask("status", None),
        ask("system-presence", None),
        ask("config.get", Some(json!({})))
    );
    let mut first = None;
    let mut keep = |answer: Result<Value, RemoteError>| match answer {
        Ok(value) => Some(value),
        Err(error) => {
            first.get_or_insert(error);
            None
        }
    };
    let answers =
        Answers { health: keep(health), status: keep(status), presence: keep(presence), config: keep(config) };
    (answers, first)
}

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
        let store = IdentityStore::new(context.paths.clone());
        tasks.spawn(async move {
            let probed = probe(&entry.target, &store, Deadline::after(timeout), Depth::Read).await;
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
    let given = flags(args);
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
        let url = entry.target.url.to_string();
        let new = !seen.contains(&url);
        seen.push(url);
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
            let text = "Read-probe diagnostics are limited by gateway scopes (missing operator.read). The connection works; \
                        pair this device or use credentials with operator.read to see more.";
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
                    "id": entry.id, "kind": entry.id, "url": entry.target.url.to_string(),
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
        let url = inert(&entry.target.url.to_string()).into_owned();
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

/// One line: what failed, with the system's own words for a connection.
pub fn short(error: &RemoteError) -> String {
    let text = match error {
        RemoteError::Connect { failure, source, endpoint } => match failure.errno() {
            Some(errno) => format!("connect {errno} {}", endpoint.split("://").last().unwrap_or_default()),
            None => source.to_string(),
        },
        RemoteError::Tls { source, .. } => source.to_string(),
        other => other.to_string(),
    };
    inert(&text).into_owned()
}

/// Whole milliseconds.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// This machine's tailnet address, if it has one.
fn tailnet() -> Option<String> {
    let mut addresses = openclaw_gateway::bind::local_addresses().into_iter();
    addresses.find(|address| openclaw_gateway::bind::is_tailnet(*address)).map(|address| address.to_string())
}
