//! `openclaw watch`: what happens at the gateway, as it happens, and by which path it comes.

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use openclaw_remote::{
    connect::{DeviceUse, Persona},
    session::{Cause, Notice, PathNotice},
};
use serde_json::{Value, json};

use super::probe::{millis, taken_json};
use crate::{
    args::{PortTargetArgs, TargetArgs},
    context::Context,
    failure::{Failure, Outcome},
    output::{self, Style, Tone, inert, time},
    reach::{Reach, block_on},
};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest payload on a line for people.
const MAX_PAYLOAD_CHARS: usize = 200;
/// Says only that the connection lives.
const TICK: &str = "tick";

#[derive(Args, Debug)]
pub struct Watch {
    /// Only events of this name (repeatable)
    #[arg(long, value_name = "NAME")]
    pub event: Vec<String>,
    /// Stop after so many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// The gateway's regular tick, too
    #[arg(long)]
    pub ticks: bool,
    #[command(flatten)]
    pub at: TargetArgs,
}

pub fn run(context: &Context, args: &Watch) -> Outcome {
    let at = PortTargetArgs { target: args.at.clone(), port: None };
    let reach = context.reach(&at, DEFAULT_TIMEOUT)?;
    block_on(watch(context, &reach, args))
}

async fn watch(context: &Context, reach: &Reach<'_>, args: &Watch) -> Outcome {
    // Pairing requests are the owner's to see; elsewhere they would need more rights than looking does.
    let owner = reach.target.owner_socket.is_some();
    let scopes: &[&str] = if owner { &["operator.read", "operator.pairing"] } else { &["operator.read"] };
    let progress = context.output.progress(format!("Connecting to {} …", reach.describe()));
    let opened = reach.session(Persona::Cli, scopes, DeviceUse::WhenNeeded, &|text| progress.say(text)).await;
    drop(progress);
    let (session, mut notices) = opened.map_err(|error| reach.failure(&error))?;
    let view = View { json: args.at.json, style: context.output.out };
    let mut left = args.count;
    while let Some(notice) = notices.recv().await {
        match notice {
            Notice::Event(event) => {
                let wanted = args.event.is_empty() || args.event.contains(&event.name);
                let tick = event.name == TICK && !args.ticks && !args.event.contains(&event.name);
                if !wanted || tick {
                    continue;
                }
                let version = event.state_version.and_then(|version| serde_json::to_value(version).ok());
                view.event(&event.name, &event.payload, event.seq, version);
                if let Some(left) = &mut left {
                    *left -= 1;
                    if *left == 0 {
                        session.close().await;
                        return Ok(0);
                    }
                }
            }
            Notice::Path(path) => {
                reach.note_use(path.taken.as_ref());
                view.path(&path, reach);
            }
            Notice::Away { why } => view.note("away", Tone::Bad, &why, "trying again"),
            Notice::Missed { why } => view.note("gap", Tone::Warn, &why, "read again what you keep"),
            Notice::Ended(error) => return Err(reach.failure(&error)),
        }
    }
    Err(Failure::new("The session ended."))
}

struct View {
    json: bool,
    style: Style,
}

impl View {
    fn event(&self, name: &str, payload: &Value, seq: Option<u64>, version: Option<Value>) {
        if self.json {
            let mut line = json!({"type": "event", "time": now(), "event": name, "payload": payload});
            // An event that came late has no number on this connection.
            for (key, value) in [("seq", seq.map(Value::from)), ("stateVersion", version)] {
                if let Some(value) = value {
                    line[key] = value;
                }
            }
            return output::json_line(&line);
        }
        let payload = payload.to_string();
        let short: String = inert(&payload).chars().take(MAX_PAYLOAD_CHARS).collect();
        let more = if short.len() < payload.len() { " …" } else { "" };
        self.line(&self.style.paint(Tone::Command, &inert(name)), &format!("{short}{more}"));
    }

    fn path(&self, path: &PathNotice, reach: &Reach<'_>) {
        if self.json {
            let mut line = json!({"type": "path", "time": now(), "cause": path.cause.as_str(),
                "awayMs": millis(path.away), "resumed": path.resumed});
            line["path"] = match &path.taken {
                Some(taken) => taken_json(taken, path.round_trip),
                None => json!({"kind": "owner", "address": reach.describe()}),
            };
            return output::json_line(&line);
        }
        let text = match &path.taken {
            Some(_) => path_line(path),
            None => reach.describe(),
        };
        self.line(&self.style.paint(Tone::Good, "path"), &text);
    }

    fn note(&self, kind: &str, tone: Tone, why: &str, then: &str) {
        if self.json {
            return output::json_line(&json!({"type": kind, "time": now(), "why": why}));
        }
        self.line(&self.style.paint(tone, kind), &format!("{}; {then}", inert(why)));
    }

    fn line(&self, what: &str, text: &str) {
        let clock = jiff::Zoned::now().strftime("%H:%M:%S%.3f").to_string();
        output::line(format!("{} {what}  {text}", self.style.paint(Tone::Dim, &clock)));
    }
}

fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// `ssh me@box (tunnel, 1.2 ms); the one before fell silent; 0.4s without a connection, 3 events came late`.
pub fn path_line(path: &PathNotice) -> String {
    let now =
        path.taken.as_ref().map_or_else(|| "the owner's socket".to_owned(), |taken| taken.describe(path.round_trip));
    let mut text = inert(&now).into_owned();
    text.push_str(match path.cause {
        Cause::First => "",
        Cause::Ended => "; the connection before it ended",
        Cause::Silent => "; the one before it fell silent",
        Cause::Better => "; it is better than the one before",
    });
    if !path.away.is_zero() {
        text.push_str(&format!("; {} without a connection", time::span(path.away)));
    }
    match path.resumed {
        0 => {}
        1 => text.push_str("; 1 event came late"),
        more => text.push_str(&format!("; {more} events came late")),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use openclaw_remote::{
        path::GatewayPath,
        route::{Carrier, Taken},
        ssh::SshSpec,
    };

    #[test]
    fn lines_name_the_path_and_why() {
        let path = GatewayPath::Ssh(SshSpec::new("me@box".parse().expect("target")));
        let taken = Taken { path, index: 1, carrier: Carrier::Tunnel };
        let notice = |cause, away, resumed| PathNotice {
            taken: Some(taken.clone()),
            round_trip: Some(Duration::from_micros(1234)),
            cause,
            away: Duration::from_millis(away),
            resumed,
        };
        for (notice, expected) in [
            (notice(Cause::First, 0, 0), "ssh me@box (tunnel, 1.2 ms)"),
            (
                notice(Cause::Ended, 400, 3),
                "ssh me@box (tunnel, 1.2 ms); the connection before it ended; 400ms without a connection; 3 events came late",
            ),
            (
                notice(Cause::Silent, 0, 1),
                "ssh me@box (tunnel, 1.2 ms); the one before it fell silent; 1 event came late",
            ),
            (notice(Cause::Better, 0, 0), "ssh me@box (tunnel, 1.2 ms); it is better than the one before"),
        ] {
            assert_eq!(path_line(&notice), expected);
        }
    }
}
