//! `openclaw agent`: one message to the agent, and its answer.
//!
//! The run is known by the key it was asked for with. When the connection is lost, the key decides what is safe: a run that
//! was heard of is only waited for (`agent.wait`), one that was not is asked for again while the gateway still remembers keys.
//!
//! ```text
//! agent ──> accepted … events … second answer                                        done
//!              └─ connection lost ─> heard of the run?  yes ─> agent.wait ─────────> done
//!                                        no, < 4 min ─> agent, same key ─> (either)
//!                                        no, later   ─> not known, and said so
//! ```

use std::{
    future::Future,
    io::{IsTerminal as _, Read as _},
    path::PathBuf,
    pin::Pin,
    time::Duration,
};

use clap::Args;
use openclaw_remote::{
    Error as RemoteError, Session,
    connect::{DeviceUse, Persona},
    session::{Cause, Notice},
};
use serde_json::{Value, json};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::Instant,
};

use super::{
    chat::{
        plain::last_answer,
        printer::{Pace, Printer},
        wire::{AgentEvent, ChatEvent, ChatState, Step, ToolPhase, text},
    },
    rpc::{READ, WRITE, fresh_key},
};
use crate::{
    args::{PortTargetArgs, TargetArgs},
    context::Context,
    failure::{Failure, Outcome},
    output::{self, Tone, inert},
    reach::{Reach, block_on},
};

/// Time for connecting.
const CONNECT: Duration = Duration::from_secs(15);
/// The reference's limit for a run.
const DEFAULT_RUN_SECONDS: u64 = 600;
/// Gateways remember keys for five minutes (methods notes, conventions); one less for clocks and the way.
const REMEMBERED: Duration = Duration::from_secs(240);
/// How long one `agent.wait` waits.
const WAIT: Duration = Duration::from_secs(30);
/// Time for the way, beside what the gateway has for the run.
const TRANSPORT: Duration = Duration::from_secs(30);
/// How long the end of a run that was stopped is waited for.
const STOPPING: Duration = Duration::from_secs(10);
/// Largest message in a file or on stdin, as the reference has it.
const MAX_MESSAGE_BYTES: u64 = 4 << 20;
/// Exit code of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

#[derive(Args, Debug)]
pub struct Agent {
    /// What to say; "-" reads it from stdin
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    pub message: Option<String>,
    /// What to say, from a file
    #[arg(long, value_name = "FILE", conflicts_with = "message")]
    pub message_file: Option<PathBuf>,
    /// Agent that answers
    #[arg(long, value_name = "ID")]
    pub agent: Option<String>,
    /// Conversation, by its key (openclaw sessions)
    #[arg(long, value_name = "KEY")]
    pub session_key: Option<String>,
    /// Conversation, by its id
    #[arg(long, value_name = "ID")]
    pub session_id: Option<String>,
    /// Conversation of this recipient
    #[arg(short, long, value_name = "DEST")]
    pub to: Option<String>,
    /// How hard the model thinks: off, minimal, low, medium, high …
    #[arg(long, value_name = "LEVEL")]
    pub thinking: Option<String>,
    /// Model for this run (provider/model)
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// Seconds the run may take
    #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT_RUN_SECONDS, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: u64,
    /// Send the answer to a channel, too
    #[arg(long)]
    pub deliver: bool,
    /// Channel of the conversation
    #[arg(long, value_name = "CHANNEL")]
    pub channel: Option<String>,
    /// Channel the answer goes to
    #[arg(long, value_name = "CHANNEL")]
    pub reply_channel: Option<String>,
    /// Recipient the answer goes to
    #[arg(long, value_name = "DEST")]
    pub reply_to: Option<String>,
    /// Account the answer is sent from
    #[arg(long, value_name = "ID")]
    pub reply_account: Option<String>,
    /// The key of the run; the same again asks for the same run
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// Print the answer as it is written, also into a pipe; with --json a line per event
    #[arg(long)]
    pub stream: bool,
    /// Accepted from scripts written for the reference; tools are told on stderr anyway
    #[arg(long, hide = true, value_name = "ON")]
    pub verbose: Option<String>,
    /// Known to answer why it is not there
    #[arg(long, hide = true)]
    pub local: bool,
    /// JSON on stdout
    #[arg(long)]
    pub json: bool,
    /// Gateway URL (ws:// or wss://); needs --token or --password
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Gateway token
    #[arg(long, value_name = "TOKEN")]
    pub token: Option<String>,
    /// Gateway password
    #[arg(long, value_name = "PASSWORD")]
    pub password: Option<String>,
    /// Port of the gateway on this machine
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
}

pub fn run(context: &Context, args: &Agent) -> Outcome {
    if args.local {
        return Err(Failure::new("Agents run in the gateway here; there is none inside this command.")
            .remedy("start one", "openclaw gateway"));
    }
    let message = message(args)?;
    let key = match args.idempotency_key.as_deref().map(str::trim) {
        Some("") => return Err(Failure::new("--idempotency-key must not be empty.")),
        Some(key) => key.to_owned(),
        None => fresh_key()?,
    };
    let (url, token, password) = (args.url.clone(), args.token.clone(), args.password.clone());
    let target = TargetArgs { url, token, password, timeout: None, json: args.json };
    let reach = context.reach(&PortTargetArgs { target, port: args.port }, CONNECT)?;
    let params = params(args, &message, &key);
    block_on(turn(context, &reach, args, &key, params))
}

/// What to say, from the option, a file or stdin.
fn message(args: &Agent) -> Result<String, Failure> {
    let bounded = |text: &mut String, from: &mut dyn std::io::Read, name: &str| {
        let read = from.take(MAX_MESSAGE_BYTES + 1).read_to_string(text);
        read.map_err(|error| Failure::new(format!("{name} cannot be read: {error}.")))?;
        match text.len() as u64 > MAX_MESSAGE_BYTES {
            true => Err(Failure::new(format!("{name} is larger than 4 MiB."))),
            false => Ok(()),
        }
    };
    let mut text = String::new();
    match (args.message.as_deref(), &args.message_file) {
        (_, Some(file)) => {
            let name = inert(&file.display().to_string()).into_owned();
            let mut open =
                std::fs::File::open(file).map_err(|error| Failure::new(format!("{name} cannot be read: {error}.")))?;
            bounded(&mut text, &mut open, &name)?;
        }
        (Some("-"), None) => bounded(&mut text, &mut std::io::stdin().lock(), "Stdin")?,
        (None, None) if !std::io::stdin().is_terminal() => bounded(&mut text, &mut std::io::stdin().lock(), "Stdin")?,
        (Some(words), None) => words.clone_into(&mut text),
        (None, None) => {}
    }
    if text.trim().is_empty() {
        return Err(Failure::new("There is nothing to say: --message is missing or empty.")
            .remedy("say something", "openclaw agent --message \"hello\"")
            .remedy("or talk", "openclaw chat"));
    }
    Ok(text)
}

fn params(args: &Agent, message: &str, key: &str) -> Value {
    let mut params =
        json!({"message": message, "deliver": args.deliver, "timeout": args.timeout, "idempotencyKey": key});
    let fields = [
        ("agentId", &args.agent),
        ("sessionKey", &args.session_key),
        ("sessionId", &args.session_id),
        ("to", &args.to),
        ("thinking", &args.thinking),
        ("model", &args.model),
        ("channel", &args.channel),
        ("replyChannel", &args.reply_channel),
        ("replyTo", &args.reply_to),
        ("replyAccountId", &args.reply_account),
    ];
    for (name, value) in fields {
        if let Some(value) = value.as_deref().map(str::trim).filter(|value| !value.is_empty()) {
            params[name] = json!(value);
        }
    }
    // A run belongs to a conversation: the main one, unless another was named.
    if ["agentId", "sessionKey", "sessionId", "to"].iter().all(|name| params.get(*name).is_none()) {
        params["sessionKey"] = json!("main");
    }
    params
}

type Answer<'a> = Pin<Box<dyn Future<Output = Result<Value, RemoteError>> + 'a>>;

/// What was heard of the run.
struct Heard {
    /// Anything at all: then it is not asked for again.
    any: bool,
    session: String,
    printer: Printer,
    json_lines: bool,
    error: Option<String>,
    aborted: bool,
}

async fn turn(context: &Context, reach: &Reach<'_>, args: &Agent, key: &str, params: Value) -> Outcome {
    let progress = context.output.progress(format!("Connecting to {} …", reach.describe()));
    let opened =
        reach.session(Persona::Caller, &[READ, WRITE], DeviceUse::WhenNeeded, &|text| progress.say(text)).await;
    drop(progress);
    let (session, mut notices) = opened.map_err(|error| reach.failure(&error))?;
    let ctrl_c = |kind| signal(kind).map_err(|error| Failure::new(format!("Ctrl-C cannot be watched: {error}.")));
    let (mut interrupts, mut term) = (ctrl_c(SignalKind::interrupt())?, ctrl_c(SignalKind::terminate())?);

    let streams = (args.stream || std::io::stdout().is_terminal()) && !args.json;
    let pace = if streams { Pace::Streaming } else { Pace::AtOnce };
    let fallback = params["sessionKey"].as_str().map(str::to_owned);
    let fallback = fallback.or_else(|| args.agent.as_ref().map(|agent| format!("agent:{agent}:main")));
    let mut heard = Heard {
        any: false,
        session: fallback.unwrap_or_else(|| "main".to_owned()),
        printer: Printer::new(pace, context.output.err, args.json || !std::io::stderr().is_terminal()),
        json_lines: args.json && args.stream,
        error: None,
        aborted: false,
    };
    let limit = Duration::from_secs(args.timeout).saturating_add(TRANSPORT);
    let (asked, mut deadline) = (Instant::now(), Instant::now() + limit);
    let mut answer: Answer<'_> = Box::pin(session.call_final("agent", Some(params.clone()), limit));
    let mut lost = false;
    let mut stopped = false;
    let outcome = loop {
        tokio::select! {
            biased;
            notice = notices.recv() => match notice {
                Some(notice) => heard.notice(context, reach, key, notice)?,
                None => return Err(Failure::new("The session ended.")),
            },
            outcome = &mut answer => match outcome {
                // The gateway may know the run, and it may not.
                Err(RemoteError::OutcomeUnknown { .. }) if !lost => {
                    lost = true;
                    let again = (!heard.any).then(|| (params.clone(), asked + REMEMBERED));
                    answer = Box::pin(recover(&session, key, heard.session.clone(), again, deadline));
                }
                outcome => break outcome,
            },
            () = interrupted(&mut interrupts, &mut term) => {
                if stopped {
                    return Ok(INTERRUPTED);
                }
                stopped = true;
                heard.printer.interrupt();
                output::note("Stopping the run … (Ctrl-C again leaves at once)");
                stop(&session, &heard.session, key).await;
                deadline = Instant::now() + STOPPING;
            }
            () = tokio::time::sleep_until(deadline), if stopped => {
                output::note("The run was asked to stop; the gateway has not said that it did.");
                return Ok(INTERRUPTED);
            }
        }
    };
    drop(answer);
    // Events that came with the answer.
    while let Ok(notice) = notices.try_recv() {
        heard.notice(context, reach, key, notice)?;
    }
    let code = finish(context, reach, args, key, outcome, heard, stopped);
    session.close().await;
    code
}

async fn interrupted(interrupts: &mut Signal, term: &mut Signal) {
    tokio::select! {
        _ = interrupts.recv() => {}
        _ = term.recv() => {}
    }
}

async fn stop(session: &Session, key: &str, run: &str) {
    let params = json!({"sessionKey": key, "runId": run});
    match session.call("chat.abort", Some(params), STOPPING).await {
        Ok(answer) if answer["aborted"] == true => output::note("The run was stopped."),
        Ok(_) => output::note("The gateway had nothing to stop: the run has ended, or not begun."),
        Err(error) => output::note(format!("The run could not be stopped: {}", inert(&error.to_string()))),
    }
}

impl Heard {
    fn notice(&mut self, context: &Context, reach: &Reach<'_>, key: &str, notice: Notice) -> Result<(), Failure> {
        let say = |text: &str| output::note(context.output.err.paint(Tone::Dim, text));
        match notice {
            Notice::Event(event) => self.event(key, &event.name, &event.payload),
            Notice::Away { .. } => say("The connection was lost; the run goes on. Waiting for the gateway …"),
            Notice::Path(path) => {
                reach.note_use(path.taken.as_ref());
                if path.cause != Cause::First {
                    say(&super::watch::path_line(&path));
                }
            }
            Notice::Missed { .. } => {}
            Notice::Ended(error) => return Err(reach.failure(&error)),
        }
        Ok(())
    }

    fn event(&mut self, key: &str, name: &str, payload: &Value) {
        if payload["runId"] != key {
            return;
        }
        self.any = true;
        if let Some(session) = text(payload, "sessionKey") {
            self.session = session;
        }
        match name {
            "chat" => match ChatEvent::of(payload).map(|event| event.state) {
                Some(ChatState::Delta(words)) => {
                    let new = self.printer.heard(&words);
                    self.line(json!({"type": "delta", "delta": new}), !new.is_empty());
                }
                Some(ChatState::Final { words: Some(words), .. } | ChatState::Aborted { words: Some(words) }) => {
                    let new = self.printer.heard(&words);
                    self.line(json!({"type": "delta", "delta": new}), !new.is_empty());
                }
                Some(ChatState::Error { message, .. }) => self.error = Some(message),
                Some(ChatState::Status(phase)) => self.line(json!({"type": "status", "phase": phase}), true),
                _ => {}
            },
            "agent" => {
                if payload["data"]["aborted"] == true {
                    self.aborted = true;
                }
                if let Some(Step::Tool(step)) = AgentEvent::of(payload).map(|event| event.step) {
                    self.printer.tool(&step);
                    let phase = match step.phase {
                        ToolPhase::Start(args) => json!({"phase": "start", "args": args}),
                        ToolPhase::Update(_) => return,
                        ToolPhase::Done { text, failed } => json!({"phase": "result", "text": text, "isError": failed}),
                    };
                    let mut line = json!({"type": "tool", "name": step.name, "toolCallId": step.call});
                    if let (Some(line), Value::Object(phase)) = (line.as_object_mut(), phase) {
                        line.extend(phase);
                    }
                    self.line(line, true);
                }
            }
            _ => {}
        }
    }

    fn line(&self, line: Value, wanted: bool) {
        if self.json_lines && wanted {
            output::json_line(&line);
        }
    }
}

/// After the connection was lost: finds out what became of the run, without ever starting it a second time.
async fn recover(
    session: &Session,
    key: &str,
    conversation: String,
    again: Option<(Value, Instant)>,
    deadline: Instant,
) -> Result<Value, RemoteError> {
    if let Some((params, until)) = again {
        let left = until.saturating_duration_since(Instant::now());
        let unknown = || RemoteError::OutcomeUnknown { method: "agent".to_owned() };
        if left.is_zero() {
            return Err(unknown());
        }
        let first = match session.call("agent", Some(params), left).await {
            Err(RemoteError::Timeout { .. }) => return Err(unknown()),
            first => first?,
        };
        if first.get("result").is_some() || first["status"] == "error" {
            return Ok(first);
        }
    }
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(RemoteError::OutcomeUnknown { method: "agent".to_owned() });
        }
        let wait = WAIT.min(left);
        let params = json!({"runId": key, "timeoutMs": u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)});
        let answer = match session.call("agent.wait", Some(params), wait + TRANSPORT).await {
            Err(RemoteError::Timeout { .. }) => continue,
            answer => answer?,
        };
        let over =
            answer["endedAt"].is_number() || matches!(answer["status"].as_str(), Some("ok" | "error" | "aborted"));
        if over {
            return Ok(assembled(session, key, &conversation, answer).await);
        }
    }
}

/// What the second answer would have said, as far as it can be known.
async fn assembled(session: &Session, key: &str, conversation: &str, wait: Value) -> Value {
    let words = match text(&wait["terminalReply"], "text") {
        Some(words) => Some(words),
        None if wait["status"] == "ok" => last_answer(session, conversation).await,
        None => None,
    };
    let payloads: Vec<Value> = words.iter().map(|words| json!({"text": words, "mediaUrl": null})).collect();
    let ok = wait["status"] == "ok";
    let mut answer = json!({
        "runId": key, "status": wait["status"], "summary": if ok { "completed" } else { "failed" },
        "result": {"payloads": payloads, "meta": {"recovered": true}},
    });
    if let Some(error) = wait.get("error").filter(|error| !error.is_null()) {
        answer["error"] = error.clone();
    }
    answer
}

fn finish(
    context: &Context,
    reach: &Reach<'_>,
    args: &Agent,
    key: &str,
    outcome: Result<Value, RemoteError>,
    mut heard: Heard,
    stopped: bool,
) -> Outcome {
    let answer = match outcome {
        Ok(answer) => answer,
        Err(_) if stopped => return Ok(INTERRUPTED),
        Err(error) => {
            heard.printer.interrupt();
            return Err(failed(reach, &error, key, heard.error.as_deref()));
        }
    };
    let meta = &answer["result"]["meta"];
    let aborted = heard.aborted || meta["aborted"] == true || answer["status"] == "aborted";
    let ok = answer["status"] == "ok" && !aborted;
    let error = heard.error.clone().or_else(|| text(&answer, "error")).or_else(|| text(&answer["error"], "message"));
    let error = error.or_else(|| (!ok).then(|| text(&answer, "summary")).flatten());
    if args.json {
        let mut line = answer.clone();
        if !ok {
            line["ok"] = json!(false);
            line["origin"] = json!("gateway");
            if line.get("error").is_none() {
                line["error"] = json!(error);
            }
        }
        if heard.json_lines {
            output::json_line(&json!({"type": "result", "result": line}));
        } else {
            output::json(&line);
        }
    } else {
        let payloads = answer["result"]["payloads"].as_array().map(Vec::as_slice).unwrap_or_default();
        // What was heard is the whole; what was not heard is in the answer.
        let words: Vec<String> = payloads.iter().filter_map(|payload| text(payload, "text")).collect();
        if heard.printer.text().is_empty() && !words.is_empty() {
            heard.printer.heard(&words.join("\n\n"));
        }
        heard.printer.finish(None);
        for media in payloads.iter().filter_map(|payload| text(payload, "mediaUrl")) {
            output::line(format!("[media] {}", inert(&media)));
        }
    }
    if stopped || aborted {
        output::note(format!("{} The run was aborted.", context.output.err.warn()));
        return Ok(INTERRUPTED);
    }
    if ok {
        return Ok(0);
    }
    let what = match answer["status"].as_str() {
        Some("timeout") => "The run took too long.",
        _ => "The run failed.",
    };
    output::note(format!("{} {what}", context.output.err.bad()));
    if let Some(error) = error {
        output::note(inert(&error));
    }
    let command = format!("openclaw sessions history {}", inert(&heard.session));
    output::note(format!("See what was said: {}", context.output.err.paint(Tone::Command, &command)));
    Ok(if answer["status"] == "timeout" { openclaw_remote::error::TIMEOUT_EXIT_CODE } else { 1 })
}

fn failed(reach: &Reach<'_>, error: &RemoteError, key: &str, heard: Option<&str>) -> Failure {
    let failure = reach.failure(error).beside("runId", json!(key)).beside("origin", json!("gateway"));
    // The run's own words say more than that it failed; without a model they say what to type.
    let said = heard.or_else(|| error.shape().map(|shape| shape.message.as_str()));
    if let (Some(said), RemoteError::Refused(_) | RemoteError::Unavailable(_)) = (said, error) {
        return failure.in_full(said);
    }
    match error {
        RemoteError::OutcomeUnknown { .. } | RemoteError::Timeout { .. } => {
            failure.detail("The run may still go on, or be done; it was not started a second time.").remedy(
                "ask what became of it",
                format!("openclaw gateway call agent.wait --params '{{\"runId\":\"{key}\"}}'"),
            )
        }
        RemoteError::Closed { .. } | RemoteError::Connect { .. } => failure.detail("The run may still go on."),
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        agent: Agent,
    }

    #[test]
    fn what_is_asked_for() {
        let check = |words: &[&str], expected: Value| {
            let line = Line::try_parse_from(std::iter::once(&"agent").chain(words)).expect("parses");
            let message = message(&line.agent).expect("a message");
            let mut params = params(&line.agent, &message, "k");
            let object = params.as_object_mut().expect("object");
            for always in ["deliver", "timeout", "idempotencyKey"] {
                object.remove(always);
            }
            assert_eq!(params, expected, "{words:?}");
        };
        check(&["-m", "hi"], json!({"message": "hi", "sessionKey": "main"}));
        check(&["-m", "hi", "--agent", "ops"], json!({"message": "hi", "agentId": "ops"}));
        check(
            &["-m", "-x", "--to", "+1555", "--thinking", "low"],
            json!({"message": "-x", "to": "+1555", "thinking": "low"}),
        );
        check(
            &["-m", "hi", "--session-key", "agent:a:b", "--deliver", "--reply-channel", "telegram", "--reply-to", "7"],
            json!({"message": "hi", "sessionKey": "agent:a:b", "replyChannel": "telegram", "replyTo": "7"}),
        );
        // Captured from the reference's CLI: `agent --agent main -m …`.
        let line = Line::try_parse_from(["agent", "-m", "hello from cli", "--agent", "main"]).expect("parses");
        let key = "7a17df47-30f8-40a8-84d5-3010418f0ae6";
        let expected = json!({"message": "hello from cli", "agentId": "main", "deliver": false, "timeout": 600,
            "idempotencyKey": key});
        assert_eq!(params(&line.agent, "hello from cli", key), expected);
    }

    #[test]
    fn silence_is_no_message() {
        let line = Line::try_parse_from(["agent", "-m", "  "]).expect("parses");
        assert!(message(&line.agent).is_err());
    }
}
