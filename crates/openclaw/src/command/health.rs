//! `openclaw health` and `openclaw gateway health`.

use std::time::{Duration, Instant};

use openclaw_remote::{
    Link,
    connect::{DeviceUse, Persona},
};
use serde_json::Value;

use crate::{
    args::{self, PortTargetArgs, TargetArgs},
    context::Context,
    failure::Outcome,
    output::{self, Style, Tone, inert, table::Facts, time},
    reach::{Reach, block_on},
};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// `openclaw health`.
pub fn run(context: &Context, args: &args::Health) -> Outcome {
    let at = PortTargetArgs {
        target: TargetArgs { timeout: args.timeout, json: args.json, ..TargetArgs::default() },
        port: None,
    };
    let reach = context.reach_for_diagnosis(&at, DEFAULT_TIMEOUT)?;
    let Asked { report, took, path } = ask(context, &reach, Persona::Backend("health"), None, args.verbose)?;
    if args.json {
        output::json(&report);
    } else {
        output::print(&summary(context.output.out, &report, took, path));
    }
    Ok(exit_code(&report))
}

/// `openclaw gateway health`.
pub fn gateway(context: &Context, args: &PortTargetArgs) -> Outcome {
    let reach = context.reach_for_diagnosis(args, DEFAULT_TIMEOUT)?;
    let Asked { report, took, .. } = ask(context, &reach, Persona::Cli, Some(serde_json::json!({})), false)?;
    if args.target.json {
        output::json(&report);
        return Ok(exit_code(&report));
    }
    let style = context.output.out;
    let mut text = format!("{}\n", style.paint(Tone::Title, "Gateway Health"));
    text.push_str(&format!("{} ({})\n", word(style, &report), time::span(took)));
    for (name, state) in channels(&report) {
        text.push_str(&format!("{name}: {state}\n"));
    }
    output::print(&text);
    Ok(exit_code(&report))
}

/// A gateway's answer and the way it came.
struct Asked {
    report: Value,
    took: Duration,
    /// For people, where it was wanted.
    path: Option<String>,
}

fn ask(
    context: &Context,
    reach: &Reach<'_>,
    persona: Persona,
    params: Option<Value>,
    verbose: bool,
) -> Result<Asked, crate::failure::Failure> {
    let progress = context.output.progress(format!("Asking {} …", reach.describe()));
    block_on(async {
        let started = Instant::now();
        // `health` is open to every authenticated connection: no scope is needed, so no device beside a secret.
        let link =
            reach.open_with(persona, &["operator.read"], DeviceUse::WithoutSecret, &|text| progress.say(text)).await;
        let link = link.map_err(|error| reach.failure(&error))?;
        let report = link.call("health", params, reach.timeout()).await.map_err(|error| reach.failure(&error))?;
        let took = started.elapsed();
        let path = if verbose { Some(path_words(reach, &link).await) } else { None };
        link.close().await;
        Ok(Asked { report, took, path })
    })
}

/// Who was asked, and by which path: `home (…) (cli --on home)` and `Path: ssh me@box (tunnel, 1.2 ms)`.
async fn path_words(reach: &Reach<'_>, link: &Link) -> String {
    match &link.taken {
        Some(taken) => {
            let round_trip = link.ping(reach.timeout()).await.ok();
            let target = format!("{} ({})", inert(&reach.target.shown()), reach.target.named_by());
            format!("{target}\nPath: {}", inert(&taken.describe(round_trip)))
        }
        None => reach.describe(),
    }
}

fn exit_code(report: &Value) -> u8 {
    u8::from(report["ok"] == false)
}

fn word(style: Style, report: &Value) -> String {
    if report["ok"] == false { style.paint(Tone::Bad, "NOT OK") } else { style.paint(Tone::Good, "OK") }
}

/// What people read. Missing parts are left out: a v3 gateway reports less.
fn summary(style: Style, report: &Value, took: Duration, path: Option<String>) -> String {
    let ok = report["ok"] != false;
    let mark = if ok { style.ok() } else { style.bad() };
    let state = if ok { "ok" } else { "not ok" };
    let mut text = format!("{mark} {} {state} ({})\n", style.paint(Tone::Title, "Gateway"), time::span(took));
    let mut facts = Facts::new();
    facts.maybe("Reached", path);
    facts.maybe("Agents", agents(report));
    facts.maybe("Heartbeat", heartbeat(report));
    facts.maybe("Sessions", sessions(&report["sessions"]));
    let channels = channels(report);
    facts.row(
        "Channels",
        match channels.is_empty() {
            true => "none configured".to_owned(),
            false => channels.iter().map(|(name, state)| format!("{name}: {state}")).collect::<Vec<_>>().join("\n"),
        },
    );
    facts.maybe("Event loop", event_loop(&report["eventLoop"]));
    if report["configReload"]["hotReloadStatus"] == "rejected" {
        facts.row(
            "Config",
            crate::output::table::Cell::toned(
                Tone::Warn,
                "the file on disk is invalid; the last good one is in force (openclaw config validate)",
            ),
        );
    }
    text.push_str(&facts.render(style));
    text
}

fn agents(report: &Value) -> Option<String> {
    let agents = report["agents"].as_array().filter(|agents| !agents.is_empty())?;
    let names = agents.iter().map(|agent| {
        let name = inert(agent["agentId"].as_str().unwrap_or("?")).into_owned();
        if agent["isDefault"] == true { format!("{name} (default)") } else { name }
    });
    Some(names.collect::<Vec<_>>().join(", "))
}

fn heartbeat(report: &Value) -> Option<String> {
    let agents = report["agents"].as_array()?;
    let shown = agents.iter().filter_map(|agent| {
        let name = inert(agent["agentId"].as_str()?).into_owned();
        let heartbeat = &agent["heartbeat"];
        let every = if heartbeat["enabled"] == true {
            inert(heartbeat["every"].as_str()?).into_owned()
        } else {
            "off".to_owned()
        };
        Some(format!("{every} ({name})"))
    });
    Some(shown.collect::<Vec<_>>().join(", ")).filter(|text| !text.is_empty())
}

fn sessions(sessions: &Value) -> Option<String> {
    let count = sessions["count"].as_u64()?;
    let path = sessions["path"].as_str().filter(|path| !path.is_empty() && *path != "[redacted]");
    Some(path.map_or_else(|| count.to_string(), |path| format!("{count} in {}", inert(path))))
}

/// `name: state` of each channel, in the gateway's order.
fn channels(report: &Value) -> Vec<(String, String)> {
    let order = report["channelOrder"].as_array().map(Vec::as_slice).unwrap_or_default();
    let known = |id: &str| {
        let channel = report["channels"].get(id)?;
        let label = report["channelLabels"][id].as_str().unwrap_or(id);
        let state = ["status", "state", "summary"].iter().find_map(|key| channel[*key].as_str());
        let state = state.or_else(|| channel["ok"].as_bool().map(|ok| if ok { "ok" } else { "failing" }));
        let state = state
            .or_else(|| channel["configured"].as_bool().map(|on| if on { "configured" } else { "not configured" }));
        Some((inert(label).into_owned(), inert(state.unwrap_or("unknown")).into_owned()))
    };
    order.iter().filter_map(Value::as_str).filter_map(known).collect()
}

fn event_loop(state: &Value) -> Option<String> {
    let degraded = state["degraded"].as_bool()?;
    let p99 = state["delayP99Ms"].as_f64().map(|ms| format!(", p99 {ms:.0}ms")).unwrap_or_default();
    Some(format!("{}{p99}", if degraded { "degraded" } else { "ok" }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_summary_of_the_references_report() {
        // captures/cli-health, shortened.
        let report = json!({"ok":true,"ts":1,"durationMs":12,"channels":{},"channelOrder":[],"channelLabels":{},
            "heartbeatSeconds":1800,"defaultAgentId":"main",
            "agents":[{"agentId":"main","isDefault":true,"heartbeat":{"enabled":true,"every":"30m"}}],
            "sessions":{"path":"/s/a.sqlite","count":0,"recent":[]},"eventLoop":{"degraded":false,"delayP99Ms":23.8}});
        assert_eq!(
            summary(Style::plain(), &report, Duration::from_millis(12), None),
            "ok Gateway ok (12ms)\n  Agents      main (default)\n  Heartbeat   30m (main)\n  Sessions    0 in /s/a.sqlite\n  \
             Channels    none configured\n  Event loop  ok, p99 24ms\n"
        );
        assert_eq!(exit_code(&report), 0);
        assert_eq!(exit_code(&json!({"ok": false})), 1);
    }

    #[test]
    fn hostile_names_stay_inert() {
        let report = json!({"agents":[{"agentId":"\u{1b}[2Jx","heartbeat":{"enabled":true,"every":"\u{202e}"}}]});
        let text = summary(Style::plain(), &report, Duration::ZERO, None);
        assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'), "{text}");
    }
}
