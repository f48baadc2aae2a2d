//! `openclaw logs`: the gateway's log, through the gateway or straight from the file.

use std::{path::PathBuf, time::Duration};

use jiff::{Timestamp, tz::TimeZone};
use openclaw_protocol::method::system::LogsTailParams;
use openclaw_remote::{
    Error as RemoteError, Link, Session,
    connect::{DeviceUse, Persona},
    session::{Cause, Notice},
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{
    args,
    context::Context,
    failure::{Failure, Outcome},
    output::{self, Style, Tone, escape},
    reach::Reach,
};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// Limits of `logs.tail` (methods notes: limit 1..5000, maxBytes 1..1000000).
const MAX_LINES: usize = 5000;
const MAX_BYTES: usize = 1_000_000;

/// How lines are shown.
struct View {
    json: bool,
    style: Style,
    zone: TimeZone,
}

pub fn run(context: &Context, args: &args::Logs) -> Outcome {
    if args.limit == 0 || args.limit > MAX_LINES {
        return Err(Failure::new(format!("--limit must be from 1 to {MAX_LINES}")));
    }
    if args.max_bytes == 0 || args.max_bytes > MAX_BYTES {
        return Err(Failure::new(format!("--max-bytes must be from 1 to {MAX_BYTES}")));
    }
    let style = if args.plain { context.output.out.without_color() } else { context.output.out };
    let zone = if args.utc { TimeZone::UTC } else { TimeZone::system() };
    let view = View { json: args.at.target.json, style, zone };
    let reach = context.reach_for_diagnosis(&args.at, DEFAULT_TIMEOUT)?;
    crate::reach::block_on(follow(context, &reach, args, &view))
}

async fn follow(context: &Context, reach: &Reach<'_>, args: &args::Logs, view: &View) -> Outcome {
    let mut source = Source::Unopened;
    let (mut cursor, mut file): (Option<u64>, Option<String>) = (None, None);
    loop {
        // --tail counts what is shown at first; later nothing may be skipped.
        let limit = if cursor.is_some() { MAX_LINES } else { args.limit };
        let params = LogsTailParams { cursor, limit: Some(limit), max_bytes: Some(args.max_bytes) };
        let outcome = match &mut source {
            Source::Unopened => match open(context, reach, args.follow).await {
                Ok(opened) => {
                    source = opened;
                    continue;
                }
                Err(error) => Err(error),
            },
            Source::Gateway(link) => link.call("logs.tail", Some(wire(params)), reach.timeout()).await,
            Source::Session(session, notices) => following(context, reach, session, notices, wire(params)).await?,
            Source::File(path) => Ok(read_file(path, params)?),
        };
        match outcome {
            Ok(page) => {
                let name = page["file"].as_str().unwrap_or_default();
                if file.as_deref() != Some(name) {
                    view.meta(&page, matches!(source, Source::File(_)));
                    file = Some(name.to_owned());
                }
                view.page(&page, cursor.is_some());
                cursor = page["cursor"].as_u64();
            }
            // Only nobody there at all is a reason to read the file: a refusal has to be seen.
            Err(error) if is_absent(&error) && reach.is_local() && file.is_none() => {
                let path = context.log_file()?;
                output::note("Local Gateway RPC unavailable; reading configured file log instead.");
                source = Source::File(path);
                continue;
            }
            // The session goes on trying by itself.
            Err(error) if args.follow && file.is_some() && is_passing(&error) => {}
            Err(error) => return Err(reach.failure(&error)),
        }
        if !args.follow {
            if let Source::Gateway(link) = source {
                link.close().await;
            }
            return Ok(0);
        }
        tokio::time::sleep(Duration::from_millis(args.interval)).await;
    }
}

enum Source {
    Unopened,
    /// For one look.
    Gateway(Box<Link>),
    /// For following.
    Session(Box<Session>, mpsc::Receiver<Notice>),
    File(PathBuf),
}

async fn open(context: &Context, reach: &Reach<'_>, follow: bool) -> Result<Source, RemoteError> {
    let (persona, scopes, device) = (Persona::Cli, &["operator.read"], DeviceUse::WhenNeeded);
    if !follow {
        return reach.open(persona, scopes, device).await.map(|link| Source::Gateway(Box::new(link)));
    }
    let progress = context.output.progress(format!("Connecting to {} …", reach.describe()));
    let (session, notices) = reach.session(persona, scopes, device, &|text| progress.say(text)).await?;
    reach.note_use(session.path().and_then(|(taken, _)| taken).as_ref());
    Ok(Source::Session(Box::new(session), notices))
}

/// One page while the session may move: what it says of its path goes to stderr.
async fn following(
    context: &Context,
    reach: &Reach<'_>,
    session: &Session,
    notices: &mut mpsc::Receiver<Notice>,
    params: Value,
) -> Result<Result<Value, RemoteError>, Failure> {
    let say = |text: &str| output::note(context.output.err.paint(Tone::Dim, text));
    let call = session.call("logs.tail", Some(params), reach.timeout());
    tokio::pin!(call);
    loop {
        tokio::select! {
            biased;
            notice = notices.recv() => match notice {
                Some(Notice::Away { .. }) => say("The gateway went away; waiting for it to come back."),
                Some(Notice::Path(path)) if path.cause != Cause::First => {
                    reach.note_use(path.taken.as_ref());
                    say(&super::watch::path_line(&path));
                }
                Some(Notice::Ended(error)) => return Err(reach.failure(&error)),
                Some(_) => {}
                None => return Ok(call.await),
            },
            page = &mut call => return Ok(page),
        }
    }
}

fn wire(params: LogsTailParams) -> Value {
    let mut wire = json!({"limit": params.limit, "maxBytes": params.max_bytes});
    if let Some(cursor) = params.cursor {
        wire["cursor"] = json!(cursor);
    }
    wire
}

fn read_file(path: &std::path::Path, params: LogsTailParams) -> Result<Value, Failure> {
    if !path.exists() {
        return Err(Failure::new(format!("There is no log file at {}.", path.display()))
            .detail("The gateway has not run on this machine today, or logs elsewhere (logging.file).")
            .remedy("start it", "openclaw gateway"));
    }
    let page = openclaw_gateway::rpc::logs::tail(path, params).map_err(|error| Failure::new(error.message))?;
    serde_json::to_value(page).map_err(|error| Failure::new(error.to_string()))
}

/// Nobody listens.
fn is_absent(error: &RemoteError) -> bool {
    matches!(error, RemoteError::Connect { .. })
}

/// Worth waiting for while following.
fn is_passing(error: &RemoteError) -> bool {
    matches!(
        error,
        RemoteError::Connect { .. }
            | RemoteError::Closed { .. }
            | RemoteError::Unavailable(_)
            | RemoteError::Timeout { .. }
    )
}

impl View {
    fn meta(&self, page: &Value, local: bool) {
        let file = page["file"].as_str().unwrap_or_default();
        if self.json {
            let mut meta = json!({"type": "meta", "file": file, "cursor": page["cursor"], "size": page["size"],
                "sourceKind": "file"});
            if local {
                meta["localFallback"] = json!(true);
            }
            output::json_line(&meta);
        } else {
            output::line(self.style.paint(Tone::Dim, &format!("Log file: {}", escape::inert(file))));
        }
    }

    fn page(&self, page: &Value, following: bool) {
        let lines = page["lines"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut text = String::new();
        for raw in lines.iter().filter_map(Value::as_str) {
            let line = Line::parse(raw);
            if self.json {
                text.push_str(&line.to_json(raw).to_string());
            } else {
                text.push_str(&line.render(self.style, &self.zone));
            }
            text.push('\n');
        }
        output::print(&text);
        if page["reset"] == true && following {
            self.notice("Log file was rotated; reading from its start.");
        }
        if page["truncated"] == true && !following {
            self.notice("Log tail truncated (increase --limit or --max-bytes).");
        }
    }

    fn notice(&self, message: &str) {
        if self.json {
            output::json_line(&json!({"type": "notice", "message": message}));
        } else {
            output::note(message);
        }
    }
}

/// A log line in the shape both the release and this gateway write.
#[derive(Debug, Default, PartialEq, Eq)]
struct Line {
    time: Option<String>,
    level: Option<String>,
    subsystem: Option<String>,
    message: String,
}

impl Line {
    /// Anything that is not such a JSON object is a message as a whole.
    fn parse(raw: &str) -> Self {
        let Ok(Value::Object(line)) = serde_json::from_str::<Value>(raw) else {
            return Self { message: raw.to_owned(), ..Self::default() };
        };
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let meta = line.get("_meta");
        let subsystem = text(meta.and_then(|meta| meta.get("name")))
            .or_else(|| text(line.get("0")))
            .and_then(|name| serde_json::from_str::<Value>(&name).ok())
            .and_then(|name| text(name.get("subsystem")).or_else(|| text(name.get("module"))));
        let message = text(line.get("message")).or_else(|| text(line.get("1"))).or_else(|| text(line.get("0")));
        Self {
            time: text(line.get("time")).or_else(|| text(meta.and_then(|meta| meta.get("date")))),
            level: text(meta.and_then(|meta| meta.get("logLevelName"))).map(|level| level.to_ascii_lowercase()),
            subsystem,
            message: message.unwrap_or_else(|| raw.to_owned()),
        }
    }

    fn to_json(&self, raw: &str) -> Value {
        let mut line = json!({"type": "log"});
        for (key, value) in [("time", &self.time), ("level", &self.level), ("subsystem", &self.subsystem)] {
            if let Some(value) = value {
                line[key] = json!(value);
            }
        }
        line["message"] = json!(self.message);
        line["raw"] = json!(raw);
        line
    }

    fn render(&self, style: Style, zone: &TimeZone) -> String {
        let mut parts = Vec::new();
        if let Some(time) = &self.time {
            let shown = time.parse::<Timestamp>().map_or_else(
                |_| escape::inert(time).into_owned(),
                |time| time.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string(),
            );
            parts.push(style.paint(Tone::Dim, &shown));
        }
        if let Some(level) = &self.level {
            let tone = match level.as_str() {
                "error" | "fatal" => Tone::Bad,
                "warn" => Tone::Warn,
                "debug" | "trace" => Tone::Dim,
                _ => Tone::Good,
            };
            parts.push(style.paint(tone, &escape::inert(level)));
        }
        if let Some(subsystem) = &self.subsystem {
            parts.push(style.paint(Tone::Command, &escape::inert(subsystem)));
        }
        parts.push(escape::inert_line(&self.message).into_owned());
        parts.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line of 2026.9.6.
    const REFERENCE: &str = r#"{"0":"{\"subsystem\":\"gateway\"}","1":"ready","_meta":{"runtime":"node","date":"2026-11-21T05:49:46.244Z","logLevelId":3,"logLevelName":"INFO","name":"{\"subsystem\":\"gateway\"}","parentNames":["openclaw"]},"time":"2026-11-21T05:49:46.245+00:00","hostname":"vm","message":"ready"}"#;

    #[test]
    fn lines_of_the_reference() {
        let line = Line::parse(REFERENCE);
        assert_eq!(line.render(Style::plain(), &TimeZone::UTC), "2026-11-21T05:49:46.245+00:00 info gateway ready");
        let json = line.to_json(REFERENCE);
        assert_eq!((&json["type"], &json["level"], &json["raw"]), (&json!("log"), &json!("info"), &json!(REFERENCE)));
    }

    #[test]
    fn lines_that_are_no_log_lines() {
        for raw in ["plain text", "{", "[1]", "null"] {
            assert_eq!(Line::parse(raw), Line { message: raw.to_owned(), ..Line::default() });
        }
        assert_eq!(Line::parse("\u{1b}[2Jx").render(Style::plain(), &TimeZone::UTC), "\\u{1b}[2Jx");
        let evil = r#"{"message":"a\u001b]0;x\u0007","time":"\u001b[1m","_meta":{"logLevelName":"\u001b"}}"#;
        assert!(!Line::parse(evil).render(Style::plain(), &TimeZone::UTC).contains('\u{1b}'));
    }
}
