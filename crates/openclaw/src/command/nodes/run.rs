//! `openclaw nodes run`: a program on a node, with the leave of its owner.
//!
//! The node decides. Where it asks, the gateway keeps the request until somebody answers: this terminal, another one
//! (`openclaw approvals`), or a user interface. Gateways of this program pass the output on as it comes, and take the
//! program down when this command is interrupted; others give it when the program has ended.

use std::{
    future::Future,
    io::{BufRead as _, IsTerminal as _, Write as _},
    pin::pin,
    time::Duration,
};

use openclaw_protocol::{Protocol, event::NODE_INVOKE_PROGRESS, method::node::InvokeProgress};
use openclaw_remote::{Error as RemoteError, Events, Notice};
use serde_json::{Value, json};

use super::{
    Desk, READ, TRANSPORT, WRITE,
    args::{Leave, Run},
    ask, fresh_key,
    pick::Picked,
    reach,
};
use crate::{
    context::Context,
    failure::{Failure, Outcome},
    output::{self, Tone, inert},
    reach::block_on,
};

const APPROVALS: &str = "operator.approvals";
/// How long a request for leave waits; the reference's number for protocol 3.
const ASK_MS: u64 = 120_000;
/// Exit code of a program that ran out of time, as `timeout` has it.
const TIMED_OUT: u8 = 124;
/// Exit code of a program that a signal ended, or that did not start.
const NO_CODE: u8 = 126;

pub fn run(context: &Context, args: &Run) -> Outcome {
    let wish = Wish::of(args)?;
    let reach = reach(context, &args.node.at)?;
    let mut printed = Printed::default();
    let answer = block_on(async {
        let (desk, events) = Desk::open_events(reach, &[READ, WRITE, APPROVALS]).await?;
        let mut screen = Screen { events, printed: &mut printed };
        let picked = desk.node(&args.node.node).await?;
        let answer = match invoke(&desk, &mut screen, &picked, wish.params(), args).await {
            Err(refused) if refused.asks => with_leave(context, &desk, &mut screen, &picked, &wish, args).await?,
            outcome => outcome.map_err(|refused| refused.failure)?,
        };
        desk.close().await;
        Ok(answer)
    })?;
    if args.node.at.json {
        output::json(&answer);
        return Ok(0);
    }
    let outcome = &answer["payload"];
    let text = |key: &str| outcome[key].as_str().unwrap_or_default();
    printed.rest(text("stdout"), text("stderr"));
    if outcome["timedOut"] == true {
        output::note("The program was stopped: its time was over.");
        return Ok(TIMED_OUT);
    }
    if let Some(error) = outcome["error"].as_str() {
        output::note(format!("The program did not run: {}", inert(error)));
    }
    Ok(outcome["exitCode"].as_i64().and_then(|code| u8::try_from(code).ok()).unwrap_or(NO_CODE))
}

/// What is to run.
struct Wish {
    argv: Vec<String>,
    params: Value,
}

impl Wish {
    fn of(args: &Run) -> Result<Self, Failure> {
        let argv = match &args.raw {
            Some(line) => ["/bin/sh", "-c", line].map(str::to_owned).to_vec(),
            None => args.argv.clone(),
        };
        let mut params = json!({});
        let fields = [("rawCommand", &args.raw), ("cwd", &args.cwd), ("agentId", &args.agent)];
        for (key, value) in fields {
            if let Some(value) = value {
                params[key] = json!(value);
            }
        }
        for pair in &args.env {
            let (name, value) = pair
                .split_once('=')
                .filter(|(name, _)| !name.is_empty())
                .ok_or_else(|| Failure::new("--env takes NAME=VALUE."))?;
            params["env"][name] = json!(value);
        }
        if let Some(limit) = args.command_timeout {
            params["timeoutMs"] = json!(limit);
        }
        Ok(Self { argv, params })
    }

    fn params(&self) -> Value {
        let mut params = self.params.clone();
        params["command"] = json!(self.argv);
        params
    }
}

/// A refusal, and whether leave would help.
struct Refused {
    failure: Failure,
    asks: bool,
}

async fn invoke(
    desk: &Desk<'_>,
    screen: &mut Screen<'_>,
    picked: &Picked,
    params: Value,
    args: &Run,
) -> Result<Value, Refused> {
    let key = fresh_key().map_err(|failure| Refused { failure, asks: false })?;
    let limit = desk.reach.timeout().max(Duration::from_millis(args.invoke_timeout).saturating_add(TRANSPORT));
    let mut params = json!({
        "nodeId": picked.id, "command": "system.run", "params": params, "timeoutMs": args.invoke_timeout,
        "idempotencyKey": key,
    });
    let live = !args.node.at.json && desk.link.hello().features.events.iter().any(|name| name == NODE_INVOKE_PROGRESS);
    if live {
        params["progress"] = json!(true);
    }
    screen.during(&key, desk.link.call("node.invoke", Some(params), limit)).await.map_err(|error| {
        let said = error.to_string();
        let asks = said.contains("approval required");
        let mut failure = desk.reach.failure(&error);
        if said.contains("allowlist miss") {
            failure = failure.detail("The node's policy runs what is on its allow-list and asks nobody.").remedy(
                "allow the program",
                format!("openclaw approvals allowlist add --node {} <program>", inert(&args.node.node)),
            );
        }
        Refused { failure, asks }
    })
}

/// What was printed of a program's output already; of each stream the beginning.
#[derive(Debug, Default)]
struct Printed {
    next_seq: u64,
    /// A piece was lost: the rest comes with the answer.
    gap: bool,
    stdout: usize,
    stderr: usize,
}

impl Printed {
    /// The text of a piece that continues what was printed.
    fn take<'p>(&mut self, piece: &'p InvokeProgress) -> Option<&'p str> {
        self.gap |= piece.seq != self.next_seq;
        if self.gap {
            return None;
        }
        self.next_seq += 1;
        let printed = if piece.stderr { &mut self.stderr } else { &mut self.stdout };
        *printed += piece.chunk.len();
        Some(&piece.chunk)
    }

    /// Prints what a program printed, as it printed it, apart from what is there already.
    fn rest(&self, stdout: &str, stderr: &str) {
        let _ = std::io::stdout().lock().write_all(stdout.get(self.stdout..).unwrap_or_default().as_bytes());
        let _ = std::io::stderr().lock().write_all(stderr.get(self.stderr..).unwrap_or_default().as_bytes());
    }
}

/// Where output goes while the answer is waited for.
struct Screen<'a> {
    events: Events,
    printed: &'a mut Printed,
}

impl Screen<'_> {
    /// Waits for `answer` and prints the pieces of the call `key` meanwhile.
    async fn during<T>(&mut self, key: &str, answer: impl Future<Output = T>) -> T {
        let mut answer = pin!(answer);
        loop {
            // Events first: those that came before the answer are before it in the queue.
            tokio::select! {
                biased;
                Some(notice) = self.events.next() => self.show(key, notice),
                answer = &mut answer => {
                    loop {
                        tokio::select! {
                            biased;
                            Some(notice) = self.events.next() => self.show(key, notice),
                            () = std::future::ready(()) => break,
                        }
                    }
                    return answer;
                }
            }
        }
    }

    fn show(&mut self, key: &str, notice: Notice) {
        let piece = match notice {
            Notice::Event(event) if event.name == NODE_INVOKE_PROGRESS => event.payload,
            Notice::Dropped(_) => {
                self.printed.gap = true;
                return;
            }
            Notice::Event(_) | Notice::Gap { .. } => return,
        };
        let Ok(piece) = serde_json::from_value::<InvokeProgress>(piece) else { return };
        if piece.idempotency_key != key {
            return;
        }
        if let Some(text) = self.printed.take(&piece) {
            let text = text.as_bytes();
            let _ = match piece.stderr {
                true => std::io::stderr().lock().write_all(text),
                false => std::io::stdout().lock().write_all(text).and_then(|()| std::io::stdout().lock().flush()),
            };
        }
    }
}

/// The long way: the node prepares, a person looks, the node runs what was looked at.
async fn with_leave(
    context: &Context,
    desk: &Desk<'_>,
    screen: &mut Screen<'_>,
    picked: &Picked,
    wish: &Wish,
    args: &Run,
) -> Result<Value, Failure> {
    let advertised = &desk.link.hello().features.methods;
    if !advertised.iter().any(|method| method == "exec.approval.request") {
        return Err(Failure::new("The node asks for leave, and this gateway keeps no approvals.").remedy(
            "let the program run unasked",
            format!("openclaw approvals allowlist add --node {} <program>", inert(&args.node.node)),
        ));
    }
    let key = fresh_key()?;
    let prepared = ask(desk, &picked.id, "system.run.prepare", wish.params(), args.invoke_timeout, &key).await?;
    let plan = prepared["payload"]["plan"].clone();
    let v3 = desk.link.protocol() == Protocol::V3;
    let command = match plan["commandText"].as_str().or(prepared["payload"]["cmdText"].as_str()) {
        Some(text) => text.to_owned(),
        None => return Err(Failure::new("The node prepared nothing that could be approved.")),
    };
    let mut request = json!({
        "command": command, "commandArgv": plan["argv"], "cwd": plan["cwd"], "nodeId": picked.id, "host": "node",
        "timeoutMs": ASK_MS, "twoPhase": true,
    });
    if v3 {
        request["systemRunPlanV2"] = plan.clone();
    } else {
        request["systemRunPlan"] = plan.clone();
        // This terminal may answer itself, whether or not anybody else could.
        request["requireDeliveryRoute"] = json!(false);
    }
    for key in ["agentId", "sessionKey"] {
        if plan[key].is_string() {
            request[key] = plan[key].clone();
        }
    }
    if let Some(env) = wish.params.get("env") {
        request["env"] = env.clone();
    }
    let accepted = desk.call("exec.approval.request", request).await?;
    let id = accepted["id"].as_str().ok_or_else(|| Failure::new("The gateway took no request for leave."))?.to_owned();
    let decision = match decide(context, args, picked, &command, plan["cwd"].as_str())? {
        Some(decision) => {
            desk.call("exec.approval.resolve", json!({"id": id, "decision": decision})).await?;
            decision.to_owned()
        }
        None => {
            output::note(format!(
                "Waiting for leave: {}",
                context.output.err.paint(Tone::Command, &format!("openclaw approvals allow {}", inert(&id)))
            ));
            wait(desk, &id).await?
        }
    };
    if !decision.starts_with("allow") {
        return Err(Failure::new("Leave was denied; nothing ran."));
    }
    let mut params = json!({
        "command": plan["argv"], "cwd": plan["cwd"], "runId": id, "approved": true, "approvalDecision": decision,
        "rawCommand": plan["commandText"].as_str().or(plan["rawCommand"].as_str()),
    });
    if !v3 {
        params["systemRunPlan"] = plan.clone();
    }
    for key in ["agentId", "sessionKey"] {
        if plan[key].is_string() {
            params[key] = plan[key].clone();
        }
    }
    for key in ["env", "timeoutMs"] {
        if let Some(value) = wish.params.get(key) {
            params[key] = value.clone();
        }
    }
    invoke(desk, screen, picked, params, args).await.map_err(|refused| refused.failure)
}

/// What this terminal decides; `None` leaves it to others.
fn decide(
    context: &Context,
    args: &Run,
    picked: &Picked,
    command: &str,
    cwd: Option<&str>,
) -> Result<Option<&'static str>, Failure> {
    match args.approve {
        Some(Leave::Once) => return Ok(Some("allow-once")),
        Some(Leave::Always) => return Ok(Some("allow-always")),
        None => {}
    }
    if args.node.at.json || !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Ok(None);
    }
    let style = context.output.err;
    output::note(format!("{} {} asks before it runs:", style.warn(), picked.name));
    output::note(format!("  {}", style.paint(Tone::Command, &output::escape::inert_line(command))));
    if let Some(cwd) = cwd {
        output::note(format!("  in {}", inert(cwd)));
    }
    output::note("Let it run? [o]nce, [a]lways here with these arguments, [N]o");
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.map_err(|error| Failure::new(format!("no answer could be read: {error}")))?;
    Ok(Some(match answer.trim().to_ascii_lowercase().as_str() {
        "o" | "once" | "y" | "yes" => "allow-once",
        "a" | "always" => "allow-always",
        _ => "deny",
    }))
}

async fn wait(desk: &Desk<'_>, id: &str) -> Result<String, Failure> {
    let limit = Duration::from_millis(ASK_MS).saturating_add(TRANSPORT);
    let outcome = desk.link.call("exec.approval.waitDecision", Some(json!({ "id": id })), limit).await;
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(RemoteError::Refused(shape)) => {
            return Err(Failure::new(format!("No leave was given: {}", inert(&shape.message))));
        }
        Err(error) => return Err(desk.reach.failure(&error)),
    };
    match outcome["decision"].as_str() {
        Some(decision) => Ok(decision.to_owned()),
        None => Err(Failure::new("Nobody gave leave in time; nothing ran.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        run: Run,
    }

    fn wish(words: &[&str]) -> Result<Value, String> {
        let line = Line::try_parse_from(std::iter::once(&"run").chain(words)).map_err(|error| error.to_string())?;
        Wish::of(&line.run).map(|wish| wish.params()).map_err(|failure| failure.message().to_owned())
    }

    #[test]
    fn pieces_that_are_printed_are_a_beginning() {
        let piece = |seq: u64, chunk: &str, stderr: bool| InvokeProgress {
            idempotency_key: "k".into(),
            node_id: "n".into(),
            seq,
            chunk: chunk.into(),
            stderr,
        };
        let mut printed = Printed::default();
        assert_eq!(printed.take(&piece(0, "ab", false)), Some("ab"));
        assert_eq!(printed.take(&piece(1, "x", true)), Some("x"));
        assert_eq!(printed.take(&piece(2, "é", false)), Some("é"));
        assert_eq!((printed.stdout, printed.stderr), (4, 1));
        // Something is missing: nothing is printed after it, also not what comes late.
        for seq in [4, 3, 5] {
            assert_eq!(printed.take(&piece(seq, "z", false)), None);
        }
        assert_eq!((printed.stdout, printed.stderr), (4, 1));
    }

    #[test]
    fn words_and_lines() {
        assert_eq!(
            wish(&["--node", "n", "--cwd", "/w", "--env", "TERM=a=b", "--command-timeout", "5", "--", "ls", "-l"]),
            Ok(json!({"cwd": "/w", "env": {"TERM": "a=b"}, "timeoutMs": 5, "command": ["ls", "-l"]}))
        );
        assert_eq!(wish(&["--node", "n", "ls", "--json"]), Ok(json!({"command": ["ls", "--json"]})));
        assert_eq!(
            wish(&["--node", "n", "--raw", "ls | wc"]),
            Ok(json!({"rawCommand": "ls | wc", "command": ["/bin/sh", "-c", "ls | wc"]}))
        );
        assert!(wish(&["--node", "n"]).is_err());
        assert!(wish(&["--node", "n", "--env", "X", "ls"]).is_err());
        assert!(wish(&["--node", "n", "--raw", "ls", "ls"]).is_err());
    }
}
