//! The conversation line by line, for pipes and terminals without a screen: what comes in on stdin is sent, the answer goes to
//! stdout. A line that ends with a backslash goes on in the next.

use std::{io::BufRead as _, time::Duration};

use openclaw_remote::{
    Session,
    connect::{DeviceUse, Persona},
    session::{Cause, Notice},
};
use serde_json::{Value, json};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::{
    file,
    live::refusal,
    model::{Attachment, Start},
    printer::{Pace, Printer},
    slash::{self, Local},
    wire::{AgentEvent, ChatEvent, ChatState, Step, Usage, same_session, text},
};
use crate::{
    command::rpc::{READ, WRITE},
    context::Context,
    failure::{Failure, Outcome},
    output::{self, Tone, inert},
    reach::Reach,
};

/// A message waits so long for a connection before it counts as not sent.
const SEND_LIMIT: Duration = Duration::from_secs(600);
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// How often a run that says nothing is asked after, should its end have been missed.
const LOOK_AFTER: Duration = Duration::from_secs(20);
/// Exit code of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

struct Talk<'a> {
    context: &'a Context,
    reach: &'a Reach<'a>,
    session: Session,
    notices: mpsc::Receiver<Notice>,
    start: Start,
    files: Vec<Attachment>,
    as_json: bool,
    key: String,
    count: u64,
}

/// How a run ended.
struct Ended {
    status: &'static str,
    text: String,
    error: Option<String>,
    usage: Option<Usage>,
    run: String,
}

pub async fn run(context: &Context, reach: &Reach<'_>, mut start: Start, key: String, as_json: bool) -> Outcome {
    let progress = context.output.progress(format!("Connecting to {} …", reach.describe()));
    let opened =
        reach.session(Persona::Caller, &[READ, WRITE], DeviceUse::WhenNeeded, &|text| progress.say(text)).await;
    drop(progress);
    let (session, notices) = opened.map_err(|error| reach.failure(&error))?;
    let first = start.message.take();
    let mut talk = Talk { context, reach, session, notices, start, files: Vec::new(), as_json, key, count: 0 };
    let mut lines = lines();
    let mut interrupts =
        signal(SignalKind::interrupt()).map_err(|error| Failure::new(format!("Ctrl-C cannot be watched: {error}.")))?;
    let mut failed = false;
    let mut more = first;
    loop {
        let message = match more.take() {
            Some(message) => message,
            None => tokio::select! {
                line = lines.recv() => match line {
                    Some(line) => line,
                    None => break,
                },
                Some(notice) = talk.notices.recv() => {
                    talk.passing(notice)?;
                    continue;
                }
                _ = interrupts.recv() => {
                    talk.session.close().await;
                    return Ok(INTERRUPTED);
                }
            },
        };
        if message.trim().is_empty() {
            continue;
        }
        match slash::local(&message) {
            Some(Local::Quit) => break,
            Some(command) => failed |= !talk.local(command).await?,
            None => failed |= !talk.say(message, &mut interrupts).await?,
        }
    }
    talk.session.close().await;
    Ok(u8::from(failed))
}

/// Lines of stdin, joined where one ends with a backslash.
fn lines() -> mpsc::Receiver<String> {
    let (send, lines) = mpsc::channel(16);
    std::thread::spawn(move || {
        let mut whole = String::new();
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            match line.strip_suffix('\\') {
                Some(begun) => {
                    whole.push_str(begun);
                    whole.push('\n');
                }
                None => {
                    whole.push_str(&line);
                    if send.blocking_send(std::mem::take(&mut whole)).is_err() {
                        return;
                    }
                }
            }
        }
        if !whole.is_empty() {
            let _ = send.blocking_send(whole);
        }
    });
    lines
}

impl Talk<'_> {
    /// A notice that belongs to no run.
    fn passing(&self, notice: Notice) -> Result<(), Failure> {
        let say = |text: String| output::note(self.context.output.err.paint(Tone::Dim, &text));
        match notice {
            Notice::Away { .. } => say("The gateway went away; waiting for it to come back.".to_owned()),
            Notice::Path(path) => {
                self.reach.note_use(path.taken.as_ref());
                if path.cause != Cause::First {
                    say(crate::command::watch::path_line(&path));
                }
            }
            Notice::Ended(error) => return Err(self.reach.failure(&error)),
            Notice::Event(_) | Notice::Missed { .. } => {}
        }
        Ok(())
    }

    /// True when it could be done.
    async fn local(&mut self, command: Local) -> Result<bool, Failure> {
        match command {
            Local::Switch(key) => self.start.session = key,
            Local::New => {
                self.count += 1;
                self.start.session = format!("agent:main:tui-{}-{}", self.key, self.count);
                output::note(format!("Conversation: {}", self.start.session));
            }
            Local::Agent(agent) => self.start.session = format!("agent:{agent}:main"),
            Local::Attach(path) => match file::read(&file::path(&path, self.context.env.get("HOME"))) {
                Ok(read) => self.files.push(read),
                Err(why) => {
                    output::note(format!("{} {} is not attached: {why}", self.context.output.err.bad(), inert(&path)));
                    return Ok(false);
                }
            },
            Local::Detach => self.files.clear(),
            Local::Model(model) => {
                let value = if model == "default" { Value::Null } else { json!(model) };
                return Ok(self.patch("model", value).await);
            }
            Local::Rename(title) => return Ok(self.patch("label", json!(title)).await),
            _ => {
                output::note("That needs the screen; there is openclaw sessions, openclaw models for scripts.");
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn patch(&self, field: &str, value: Value) -> bool {
        let mut params = json!({"key": self.start.session});
        params[field] = value;
        match self.session.call("sessions.patch", Some(params), CALL_LIMIT).await {
            Ok(_) => true,
            Err(error) => {
                output::note(format!("{} {}", self.context.output.err.bad(), inert(&error.to_string())));
                false
            }
        }
    }

    /// Sends a message and prints the answer. True when there was one.
    async fn say(&mut self, message: String, interrupts: &mut tokio::signal::unix::Signal) -> Result<bool, Failure> {
        self.count += 1;
        let key = format!("{}-{}", self.key, self.count);
        let mut params = json!({"sessionKey": self.start.session, "message": message, "idempotencyKey": key,
            "deliver": self.start.deliver});
        if let Some(thinking) = &self.start.thinking {
            params["thinking"] = json!(thinking);
        }
        if let Some(timeout) = self.start.timeout_ms {
            params["timeoutMs"] = json!(timeout);
        }
        if !self.files.is_empty() {
            let file =
                |file: &Attachment| json!({"mimeType": file.mime, "fileName": file.name, "content": file.base64});
            params["attachments"] = self.files.iter().map(file).collect();
        }
        self.files.clear();
        let terminal = std::io::IsTerminal::is_terminal(&std::io::stdout());
        let pace = if terminal && !self.as_json { Pace::Streaming } else { Pace::AtOnce };
        let mut printer = Printer::new(pace, self.context.output.err, self.as_json);
        let ended = self.follow(&key, params, &mut printer, interrupts).await?;
        if self.as_json {
            let usage =
                ended.usage.map(|usage| json!({"input": usage.input, "output": usage.output, "cost": usage.cost}));
            output::json_line(&json!({"type": "reply", "sessionKey": self.start.session, "runId": ended.run,
                "status": ended.status, "text": ended.text, "error": ended.error, "usage": usage}));
        } else if let Some(error) = &ended.error {
            output::note(format!("{} {}", self.context.output.err.bad(), inert(error)));
        }
        Ok(ended.status == "ok")
    }

    async fn follow(
        &mut self,
        key: &str,
        params: Value,
        printer: &mut Printer,
        interrupts: &mut tokio::signal::unix::Signal,
    ) -> Result<Ended, Failure> {
        let session = self.start.session.clone();
        let mut run = key.to_owned();
        let finish = |printer: &mut Printer, run: &str, status, words: Option<String>, error, usage| {
            if !self.as_json {
                printer.finish(words.as_deref());
            } else if let Some(words) = &words {
                printer.heard(words);
            }
            Ended { status, text: printer.text(), error, usage, run: run.to_owned() }
        };
        let sent = self.session.call("chat.send", Some(params), SEND_LIMIT);
        tokio::pin!(sent);
        let mut waiting = true;
        let mut look = tokio::time::Instant::now() + LOOK_AFTER;
        loop {
            tokio::select! {
                biased;
                notice = self.notices.recv() => {
                    let Some(notice) = notice else { return Err(Failure::new("The session ended.")) };
                    look = tokio::time::Instant::now() + LOOK_AFTER;
                    match notice {
                        Notice::Event(event) if event.name == "chat" => {
                            let mine = ChatEvent::of(&event.payload)
                                .filter(|chat| chat.run == run && same_session(&chat.session, &session));
                            match mine.map(|chat| chat.state) {
                                Some(ChatState::Delta(words)) => {
                                    printer.heard(&words);
                                }
                                Some(ChatState::Final { words, usage }) => {
                                    return Ok(finish(printer, &run, "ok", words, None, usage));
                                }
                                Some(ChatState::Aborted { words }) => {
                                    return Ok(finish(printer, &run, "aborted", words, Some("aborted".to_owned()), None));
                                }
                                Some(ChatState::Error { message, .. }) => {
                                    return Ok(finish(printer, &run, "error", None, Some(message), None));
                                }
                                Some(ChatState::Status(_)) | None => {}
                            }
                        }
                        Notice::Event(event) if event.name == "agent" => {
                            let mine = AgentEvent::of(&event.payload).filter(|agent| agent.run == run);
                            if let Some(Step::Tool(step)) = mine.map(|agent| agent.step) {
                                printer.tool(&step);
                            }
                        }
                        Notice::Missed { .. } => look = tokio::time::Instant::now(),
                        Notice::Away { .. } => output::note("The gateway went away; waiting for it to come back."),
                        Notice::Ended(error) => return Err(self.reach.failure(&error)),
                        Notice::Event(_) | Notice::Path(_) => {}
                    }
                }
                answer = &mut sent, if waiting => {
                    waiting = false;
                    match answer {
                        Ok(answer) => run = text(&answer, "runId").unwrap_or(run),
                        Err(error) => {
                            let refused = refusal(&error);
                            let why = match refused.unknown {
                                true => format!("{}; whether it arrived is not known", refused.text),
                                false => refused.text,
                            };
                            return Ok(finish(printer, &run, "error", None, Some(why), None));
                        }
                    }
                }
                _ = interrupts.recv() => {
                    printer.interrupt();
                    output::note("Stopping the run …");
                    let params = json!({"sessionKey": session, "runId": run});
                    if let Err(error) = self.session.call("chat.abort", Some(params), CALL_LIMIT).await {
                        output::note(format!("It could not be stopped: {}", inert(&error.to_string())));
                    }
                }
                () = tokio::time::sleep_until(look), if !waiting => {
                    look = tokio::time::Instant::now() + LOOK_AFTER;
                    let params = json!({"runId": run, "timeoutMs": 1});
                    let answer = self.session.call("agent.wait", Some(params), CALL_LIMIT).await.unwrap_or_default();
                    if answer["endedAt"].is_number() || answer["status"] == "ok" || answer["status"] == "error" {
                        let words = match text(&answer["terminalReply"], "text") {
                            Some(words) => Some(words),
                            None => self.last_answer(&session).await,
                        };
                        let error = text(&answer, "error");
                        let status = if error.is_some() || answer["status"] == "error" { "error" } else { "ok" };
                        return Ok(finish(printer, &run, status, words, error, None));
                    }
                }
            }
        }
    }

    async fn last_answer(&self, session: &str) -> Option<String> {
        last_answer(&self.session, session).await
    }
}

/// The words of the newest answer in a session.
pub async fn last_answer(session: &Session, key: &str) -> Option<String> {
    let params = json!({"sessionKey": key, "limit": 10});
    let history = session.call("chat.history", Some(params), CALL_LIMIT).await.ok()?;
    let rows = history["messages"].as_array()?.iter().rev();
    let mut answers =
        rows.filter_map(super::wire::Message::of).filter(|row| row.author == super::wire::Author::Assistant);
    answers.next().map(|row| row.words()).filter(|words| !words.is_empty())
}
