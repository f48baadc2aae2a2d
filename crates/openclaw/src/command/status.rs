//! `openclaw status`: the overview.

use std::time::{Duration, Instant};

use openclaw_config::{AuthMode, Mode, credentials::UrlSource};
use openclaw_protocol::method::channels::{AccountReport, ChannelsReport};
use openclaw_remote::{
    Client, Deadline, Error as RemoteError,
    connect::{DeviceUse, Persona},
};
use serde_json::{Map, Value, json};

use super::{
    gateway_status::Runtime,
    probe::{Depth, Probed, millis, path_json, path_words, probe, short},
};
use crate::{
    args::{self, PortTargetArgs, TargetArgs},
    context::Context,
    failure::{Failure, Outcome},
    output::{
        self, Style, Tone, inert,
        table::{Cell, Facts},
        time,
    },
    reach::{Purpose, Reach, block_on},
};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Everything the overview is made of.
struct Collected {
    probed: Probed,
    /// The RPC half: its own error where it failed, which is not the probe's.
    rpc: Result<Answers, RemoteError>,
}

#[derive(Default)]
struct Answers {
    status: Option<Value>,
    health: Option<Value>,
    heartbeat: Option<Value>,
    devices: Option<Value>,
    presence: Option<Value>,
    models: Option<Value>,
    channels: Option<Value>,
    took: Duration,
}

pub fn run(context: &Context, args: &args::Status) -> Outcome {
    let loaded = context.config_for_diagnosis()?;
    let problem = loaded.problem.clone();
    let at = PortTargetArgs {
        target: TargetArgs { timeout: args.timeout, json: args.json, ..TargetArgs::default() },
        port: None,
    };
    let reach = context.reach_with(loaded, &at, Purpose::Status, DEFAULT_TIMEOUT)?;
    let collected = block_on(async {
        let _progress = context.output.progress(format!("Asking {} …", reach.describe()));
        Ok(collect(context, &reach, args.deep || args.all).await)
    })?;
    if args.json {
        output::json(&to_json(context, &reach, &collected, args.deep));
        return Ok(0);
    }
    let style = context.output.out;
    let mut text = format!("{}\n\n", style.paint(Tone::Title, "OpenClaw status"));
    text.push_str(&overview(context, &reach, &collected, args.deep || args.all, args.verbose).boxed(style, "Overview"));
    if args.all {
        text.push_str(&diagnosis(context, &reach, style));
    }
    text.push_str(&next_steps(style));
    output::print(&text);
    context.note_problem(problem.as_ref());
    if let Some(error) = collected.probed.error.as_ref().filter(|_| !collected.probed.connected()) {
        reach.failure(error).lines(context.output.err).iter().for_each(output::note);
    } else if let Err(error) = &collected.rpc {
        reach.failure(error).lines(context.output.err).iter().for_each(output::note);
    }
    Ok(0)
}

/// The probe and the RPC share one deadline and run side by side.
async fn collect(context: &Context, reach: &Reach<'_>, deep: bool) -> Collected {
    let deadline = Deadline::after(reach.timeout());
    let (probed, rpc) = tokio::join!(probe(&reach.target, &context.paths, deadline, Depth::Connect), ask(reach, deep));
    Collected { probed, rpc }
}

async fn ask(reach: &Reach<'_>, deep: bool) -> Result<Answers, RemoteError> {
    let started = Instant::now();
    // Only the owner sees devices without asking for more rights than an overview needs.
    let owner = reach.target.owner_socket.is_some();
    let scopes: &[&str] = if owner { &["operator.read", "operator.pairing"] } else { &["operator.read"] };
    let client = reach.open_with(Persona::Backend("status"), scopes, DeviceUse::IfKnown, &|_| ()).await?;
    let limit = reach.timeout();
    let call = |method: &'static str, params: Option<Value>| wanted(&client, method, params, limit);
    let status_params = json!({"includeChannelSummary": deep, "includeCliProjection": true});
    let health_params = deep.then(|| json!({"probe": true}));
    // Probes of services elsewhere end before the overview does.
    let probe_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).saturating_sub(1_000).max(1_000);
    let channel_params = json!({"probe": deep, "timeoutMs": probe_ms});
    let (status, health, presence, models, channels, heartbeat, devices) = tokio::join!(
        call("status", Some(status_params)),
        call("health", health_params),
        call("system-presence", Some(json!({}))),
        call("models.list", Some(json!({}))),
        call("channels.status", Some(channel_params)),
        async { if deep { call("last-heartbeat", Some(json!({}))).await } else { None } },
        async { if owner { call("device.pair.list", Some(json!({}))).await } else { None } },
    );
    client.close().await;
    Ok(Answers { status, health, heartbeat, devices, presence, models, channels, took: started.elapsed() })
}

/// An answer, or nothing: a method that is missing or forbidden leaves its row out and stops nothing.
async fn wanted(client: &Client, method: &str, params: Option<Value>, limit: Duration) -> Option<Value> {
    let answer = client.call(method, params, limit).await;
    answer.inspect_err(|error| tracing::debug!(method, %error, "left out of the overview")).ok()
}

fn overview(context: &Context, reach: &Reach<'_>, found: &Collected, deep: bool, verbose: bool) -> Facts {
    let (target, style) = (&reach.target, context.output.out);
    let dot = style.dot();
    let answers = found.rpc.as_ref().ok();
    let mut facts = Facts::new();
    facts.row("OS", operating_system());
    facts.row("Dashboard", target.url.to_http());
    facts.row("Config", context.config_path());
    let mode = match target.source {
        UrlSource::LocalLoopback => "local",
        UrlSource::RemoteConfig | UrlSource::SshTarget => "remote",
        UrlSource::On | UrlSource::Current => "saved",
        UrlSource::Flag | UrlSource::Env => "given",
    };
    let reachable = match found.probed.reached() {
        true => format!("reachable {}", time::span(found.probed.latency)),
        false => "unreachable".to_owned(),
    };
    let auth = auth_words(reach);
    let url = inert(&target.shown()).into_owned();
    let gateway = format!("{mode}{dot}{url} ({})\n{reachable}{dot}auth {auth}", target.named_by());
    facts.row("Gateway", Cell::toned(if found.probed.reached() { Tone::Good } else { Tone::Bad }, gateway));
    facts.maybe("Path", path_words(&found.probed));
    facts.row(
        "Probe",
        match (&found.probed.error, found.probed.connected()) {
            (_, true) => {
                Cell::toned(Tone::Good, format!("RPC probe: ok{dot}{}", found.probed.capability().replace('_', "-")))
            }
            (Some(error), false) => Cell::toned(Tone::Bad, format!("RPC probe: failed{dot}{}", short(error))),
            (None, false) => Cell::toned(Tone::Bad, "RPC probe: failed"),
        },
    );
    if target.is_local() {
        let runtime = Runtime::find(context, Mode::Local, target.url.port());
        facts.row(
            "Runtime",
            match runtime {
                Runtime::Running { pid: Some(pid) } => format!("running{dot}pid {pid}"),
                Runtime::Running { pid: None } => "running".to_owned(),
                Runtime::Occupied(_) => "the port is held by another program (openclaw gateway status)".to_owned(),
                Runtime::Remote | Runtime::Elsewhere | Runtime::NotRunning => "not running".to_owned(),
            },
        );
    }
    if verbose {
        facts.row("Reached", reach.describe());
    }
    facts.maybe(
        "Version",
        found.probed.hello.as_ref().map(|hello| {
            let same = hello.version == crate::version::SHORT;
            let cli = if same { String::new() } else { format!("{dot}this program {}", crate::version::SHORT) };
            format!("{}{dot}protocol {}{cli}", inert(&hello.version), hello.protocol)
        }),
    );
    let Some(answers) = answers else { return facts };
    facts.maybe("Agents", agents(answers, dot));
    facts.maybe("Model", model(answers, dot));
    facts.maybe("Sessions", answers.status.as_ref().and_then(|status| sessions(&status["sessions"])));
    facts.maybe(
        "Devices",
        answers.devices.as_ref().map(|devices| {
            let count = |key: &str| devices[key].as_array().map_or(0, Vec::len);
            let pending = count("pending");
            let text = format!("{} paired{dot}{pending} pending", count("paired"));
            let tone = if pending > 0 { Tone::Warn } else { Tone::Plain };
            Cell::toned(tone, if pending > 0 { format!("{text} (openclaw devices list)") } else { text })
        }),
    );
    facts.maybe(
        "Connected",
        answers.presence.as_ref().and_then(Value::as_array).map(|list| {
            let others =
                list.iter().filter(|entry| entry["mode"] != "gateway" && entry["reason"] != "disconnect").count();
            format!("{others} client(s)")
        }),
    );
    let health = answers.health.as_ref();
    facts.maybe(
        "Heartbeat",
        health.and_then(|health| health["heartbeatSeconds"].as_u64()).map(|seconds| {
            let every = if seconds == 0 {
                "off".to_owned()
            } else {
                format!("every {}", time::span(Duration::from_secs(seconds)))
            };
            match answers.heartbeat.as_ref().and_then(|last| Some((last["ts"].as_i64()?, last["status"].as_str()?))) {
                Some((ts, status)) => format!("{every}{dot}last {} ({})", time::ago(ts, time::now_ms()), inert(status)),
                None => every,
            }
        }),
    );
    facts.maybe("Channels", channels(answers, deep, dot));
    facts.maybe(
        "Tasks",
        answers
            .status
            .as_ref()
            .and_then(|status| status["tasks"]["active"].as_u64())
            .map(|active| if active == 0 { "none".to_owned() } else { format!("{active} active") }),
    );
    if verbose {
        facts.row("RPC time", time::span(answers.took));
    }
    facts
}

fn agents(answers: &Answers, dot: &str) -> Option<String> {
    let agents = answers.health.as_ref()?["agents"].as_array()?;
    let default = answers.health.as_ref()?["defaultAgentId"].as_str().unwrap_or("main");
    Some(format!("{}{dot}default {}", agents.len(), inert(default)))
}

fn sessions(sessions: &Value) -> Option<String> {
    let count = sessions["count"].as_u64()?;
    Some(format!("{count} stored"))
}

/// The model agents use, and what to type without one.
fn model(answers: &Answers, dot: &str) -> Option<Cell> {
    let default = answers.status.as_ref().and_then(|status| status["sessions"]["defaults"]["model"].as_str());
    // Generations that tag nothing tell the name alone.
    let Some(models) = answers.models.as_ref().and_then(|listing| listing["models"].as_array()) else {
        return default.map(|model| Cell::from(inert(model).into_owned()));
    };
    let tagged = |model: &&Value| model["tags"].as_array().into_iter().flatten().any(|tag| tag == "default");
    let Some(model) = models.iter().find(tagged) else {
        return Some(match default {
            Some(model) => Cell::from(inert(model).into_owned()),
            None => Cell::toned(Tone::Warn, "none: nobody can answer yet (openclaw models add)"),
        });
    };
    let name = format!("{}/{}", model["provider"].as_str().unwrap_or("?"), model["id"].as_str().unwrap_or("?"));
    let name = inert(&name).into_owned();
    Some(match model["available"].as_bool() {
        Some(false) => Cell::toned(Tone::Bad, format!("{name}{dot}cannot be used (openclaw models status)")),
        _ => Cell::from(name),
    })
}

/// How the accounts of channels are; a line for each that needs a hand.
fn channels(answers: &Answers, deep: bool, dot: &str) -> Option<Cell> {
    let Some(report) =
        answers.channels.clone().and_then(|report| serde_json::from_value::<ChannelsReport>(report).ok())
    else {
        let order = answers.health.as_ref()?["channelOrder"].as_array()?;
        return Some(Cell::from(match order.len() {
            0 => "none configured".to_owned(),
            count => format!("{count} configured"),
        }));
    };
    let accounts: Vec<_> = report
        .channel_accounts
        .iter()
        .flat_map(|(channel, accounts)| accounts.iter().map(move |account| (channel, account)))
        .filter(|(_, account)| account.enabled)
        .collect();
    if accounts.is_empty() {
        return Some(Cell::from("none configured"));
    }
    let probed = |account: &AccountReport| account.probe.as_ref().is_none_or(|probe| probe.ok);
    let well = |account: &AccountReport| account.health_state == "healthy" && probed(account);
    let count = accounts.iter().filter(|(_, account)| well(account)).count();
    let mut lines = vec![format!("{count} of {} running{}", accounts.len(), if deep { ", probed" } else { "" })];
    for (channel, account) in accounts.iter().filter(|(_, account)| !well(account)) {
        let why = account.probe.as_ref().and_then(|probe| probe.error.as_deref()).or(account.last_error.as_deref());
        let why = why.map(|why| format!(": {}", inert(why))).unwrap_or_default();
        let place = format!("{channel}/{}", account.account_id);
        lines.push(format!("{}{dot}{}{why}", inert(&place), inert(&account.health_state)));
    }
    let all_well = count == accounts.len();
    if !all_well {
        lines.push("openclaw channels status --probe".to_owned());
    }
    Some(Cell::toned(if all_well { Tone::Good } else { Tone::Warn }, lines.join("\n")))
}

/// `token`, `password`, `none`, or what is missing.
fn auth_words(reach: &Reach<'_>) -> String {
    match &reach.target.credentials {
        Ok(resolution) => match (resolution.token.is_some(), resolution.password.is_some()) {
            (true, true) => "token and password".to_owned(),
            (true, false) => "token".to_owned(),
            (false, true) => "password".to_owned(),
            (false, false) if reach.loaded.gateway.auth.mode == Some(AuthMode::None) => "none".to_owned(),
            (false, false) => "not known here".to_owned(),
        },
        Err(error) => inert(&error.to_string()).into_owned(),
    }
}

fn operating_system() -> String {
    let name = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    inert(&format!("{} {} ({})", text(name.sysname()).to_lowercase(), text(name.release()), text(name.machine())))
        .into_owned()
}

/// `--all`: what else a report should hold. No secret is in it.
fn diagnosis(context: &Context, reach: &Reach<'_>, style: Style) -> String {
    let mut facts = Facts::new();
    facts.row("State", inert(&context.paths.display(&context.paths.state_dir)).into_owned());
    facts.row("Config", context.config_path());
    if let Ok(path) = context.log_file() {
        facts.row("Log", inert(&path.display().to_string()).into_owned());
    }
    for row in reach.considered() {
        facts.row(row.name, super::doctor::state_words(row));
    }
    format!("\n{}\n{}", style.paint(Tone::Title, "Paths and credentials"), facts.render(style))
}

fn next_steps(style: Style) -> String {
    let step = |what: &str, command: &str| format!("  {what:<24}{}\n", style.paint(Tone::Command, command));
    format!(
        "\n{}\n{}{}{}",
        style.paint(Tone::Title, "Next steps"),
        step("Something wrong?", "openclaw doctor --why"),
        step("See what happens:", "openclaw logs --follow"),
        step("Paste into a report:", "openclaw status --all"),
    )
}

/// The gateway is elsewhere by config or by a saved connection.
fn is_remote(reach: &Reach<'_>) -> bool {
    reach.target.route.name.is_some() || reach.loaded.gateway.effective_mode() == Mode::Remote
}

/// The status payload with what the CLI adds, as the reference does.
fn to_json(context: &Context, reach: &Reach<'_>, found: &Collected, deep: bool) -> Value {
    let (target, probed) = (&reach.target, &found.probed);
    let answers = found.rpc.as_ref().ok();
    let status = answers.and_then(|answers| answers.status.clone());
    let mut report = match status {
        Some(Value::Object(status)) => status,
        _ => Map::new(),
    };
    let name = rustix::system::uname();
    report.insert(
        "os".into(),
        json!({"platform": std::env::consts::OS, "arch": std::env::consts::ARCH,
        "release": name.release().to_string_lossy(), "label": operating_system()}),
    );
    let failure = probed.error.as_ref().map(|error| Failure::remote(error, &target.place).envelope()["error"].clone());
    let warnings =
        target.credentials.as_ref().map(|found| found.warnings.iter().map(ToString::to_string).collect::<Vec<_>>());
    report.insert(
        "gateway".into(),
        json!({
            "mode": if is_remote(reach) { "remote" } else { "local" },
            "url": target.shown_url, "urlSource": target.source.as_str(), "misconfigured": false,
            "connection": target.route.name, "path": path_json(&found.probed),
            "reachable": probed.reached(), "connectLatencyMs": probed.reached().then(|| millis(probed.latency)),
            "version": probed.hello.as_ref().map(|hello| &hello.version),
            "protocol": probed.hello.as_ref().map(|hello| hello.protocol),
            "self": answers.and_then(|answers| answers.presence.as_ref()).and_then(|list| list.get(0)),
            "error": probed.error.as_ref().map(short), "failure": failure,
            "authWarning": warnings.ok().filter(|warnings| !warnings.is_empty()).map(|warnings| warnings.join("; ")),
        }),
    );
    report.insert(
        "rpcProbe".into(),
        json!({"ok": probed.connected(), "capability": probed.capability(),
        "auth": probed.auth_json(), "server": probed.server_json()}),
    );
    if let Err(error) = &found.rpc {
        report.insert("rpcError".into(), Failure::remote(error, &target.place).envelope()["error"].clone());
    }
    if let Some(answers) = answers {
        if let Some(health) = answers.health.as_ref().filter(|_| deep) {
            report.insert("health".into(), health.clone());
            report.insert("lastHeartbeat".into(), answers.heartbeat.clone().unwrap_or_default());
        }
        if let Some(devices) = &answers.devices {
            let count = |key: &str| devices[key].as_array().map_or(0, Vec::len);
            report.insert("devices".into(), json!({"paired": count("paired"), "pending": count("pending")}));
        }
    }
    report.insert("config".into(), json!({"path": context.paths.config_file}));
    Value::Object(report)
}
