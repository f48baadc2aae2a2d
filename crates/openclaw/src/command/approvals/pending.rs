//! Pending approvals: listing them, answering them.

use std::{
    io::{self, BufRead as _, IsTerminal as _},
    time::Duration,
};

use openclaw_protocol::method::exec::{ApprovalResolved, ApprovalResolvedEvent, Decision, PendingApproval};
use openclaw_remote::{
    Client,
    client::Notice,
    connect::{DeviceUse, Persona},
    route::Link,
};
use serde_json::{Value, json};

use super::show;
use crate::{
    args::{PortTargetArgs, TargetArgs},
    context::Context,
    failure::{Failure, Outcome},
    output::{self, Tone, inert, time},
    reach::{Reach, block_on},
};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
const SCOPES: [&str; 2] = ["operator.admin", "operator.approvals"];

pub fn reach<'a>(context: &'a Context, at: &TargetArgs) -> Result<Reach<'a>, Failure> {
    context.reach(&PortTargetArgs { target: at.clone(), port: None }, DEFAULT_TIMEOUT)
}

async fn open(reach: &Reach<'_>) -> Result<Link, Failure> {
    let opened = reach.open(Persona::Cli, &SCOPES, DeviceUse::WhenNeeded).await;
    opened.map_err(|error| reach.failure(&error))
}

pub async fn call(reach: &Reach<'_>, client: &Client, method: &str, params: Value) -> Result<Value, Failure> {
    client.call(method, Some(params), reach.timeout()).await.map_err(|error| reach.failure(&error))
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, Failure> {
    serde_json::from_value(value).map_err(|error| Failure::new(format!("The gateway's answer is unreadable: {error}.")))
}

pub fn list(context: &Context, at: &TargetArgs) -> Outcome {
    let reach = reach(context, at)?;
    let waiting: Vec<PendingApproval> = block_on(async {
        let client = open(&reach).await?;
        let list = call(&reach, &client, "exec.approval.list", json!({})).await?;
        client.close().await;
        read(list)
    })?;
    if at.json {
        output::json(&json!({"approvals": waiting.iter().map(show::entry).collect::<Vec<_>>()}));
    } else {
        output::print(&show::pending(context.output.out, &waiting, time::now_ms()));
    }
    Ok(0)
}

/// Decides one approval. Saying again what was decided already is no failure.
pub fn resolve(context: &Context, at: &TargetArgs, typed: &str, decision: &str, reason: Option<&str>) -> Outcome {
    let decision = Decision::parse(decision.trim())
        .ok_or_else(|| Failure::new("The decision must be one of: allow-once, allow-always, deny."))?;
    let reach = reach(context, at)?;
    let (id, resolved) = block_on(async {
        let client = open(&reach).await?;
        let waiting: Vec<PendingApproval> = read(call(&reach, &client, "exec.approval.list", json!({})).await?)?;
        let id = whole_id(typed.trim(), &waiting)?;
        let params = json!({"id": id, "kind": "exec", "decision": decision});
        let answer = client.call("approval.resolve", Some(params), reach.timeout()).await;
        let answer = answer.map_err(|error| explain(reach.failure(&error), &error.to_string(), typed))?;
        client.close().await;
        Ok::<_, Failure>((id, answer))
    })?;
    if at.json {
        output::json(&resolved);
    }
    let resolved: ApprovalResolved = read(resolved)?;
    let id = inert(&id).into_owned();
    let Some(recorded) = resolved.approval.decision else {
        return Err(Failure::new(format!("Approval {id} has {}; nothing was decided.", resolved.approval.status)));
    };
    if recorded != decision {
        let by = resolved.approval.resolver.map_or_else(
            || "the gateway".to_owned(),
            |by| match by.id {
                Some(id) => format!("{} {}", by.kind, inert(&id)),
                None => by.kind,
            },
        );
        return Err(Failure::new(format!("Approval {id} was already answered with {recorded} by {by}.")));
    }
    if !at.json {
        let style = context.output.out;
        let again = if resolved.applied { "" } else { " (it had been answered so before)" };
        let note = reason.map(|reason| format!(" Note: {}", inert(reason))).unwrap_or_default();
        let command = style.paint(Tone::Plain, &inert(&resolved.approval.presentation.command_text));
        output::line(format!("{} {}{again}: {command}{note}", style.ok(), show::word(decision)));
    }
    Ok(0)
}

/// The id that was meant: whole, or the start of exactly one that waits.
fn whole_id(typed: &str, waiting: &[PendingApproval]) -> Result<String, Failure> {
    let ids: Vec<&str> = waiting.iter().map(|approval| approval.id.as_str()).collect();
    if typed.is_empty() {
        return Err(Failure::new("An approval id is needed.").remedy("see what waits", "openclaw approvals pending"));
    }
    if ids.contains(&typed) {
        return Ok(typed.to_owned());
    }
    let lower = typed.to_lowercase();
    match ids.iter().filter(|id| id.to_lowercase().starts_with(&lower)).collect::<Vec<_>>()[..] {
        [only] => Ok((*only).to_owned()),
        // It may have been answered a moment ago: the gateway knows.
        [] => Ok(typed.to_owned()),
        _ => Err(Failure::new(format!("\"{}\" is the start of more than one approval id.", inert(typed)))
            .detail("Nothing was decided.")
            .remedy("see what waits", "openclaw approvals pending")),
    }
}

fn explain(failure: Failure, words: &str, typed: &str) -> Failure {
    if words.contains("approval not found") {
        return failure
            .with_message(format!("There is no approval \"{}\".", inert(typed)))
            .detail("It may have expired, or the gateway restarted since: then whoever asked has to ask again.")
            .remedy("see what waits", "openclaw approvals pending");
    }
    failure
}

/// Shows requests as they come; on a terminal, asks for an answer to each. While it runs, requests have somebody to be
/// delivered to.
pub fn watch(context: &Context, at: &TargetArgs) -> Outcome {
    let reach = reach(context, at)?;
    let asks = !at.json && io::stdin().is_terminal() && io::stdout().is_terminal();
    let style = context.output.out;
    block_on(async {
        let progress = context.output.progress(format!("Connecting to {} …", reach.describe()));
        let opened =
            reach.open_events(Persona::Reviewer, &SCOPES, DeviceUse::WhenNeeded, &|text| progress.say(text)).await;
        let (client, mut events) = opened.map_err(|error| reach.failure(&error))?;
        drop(progress);
        if !at.json {
            output::note(format!("Waiting for requests at {}. Ctrl-C ends.", reach.describe()));
        }
        let waiting: Vec<PendingApproval> = read(call(&reach, &client, "exec.approval.list", json!({})).await?)?;
        for approval in waiting {
            offer(&reach, &client, context, &approval, asks, at.json).await?;
        }
        while let Some(notice) = events.next().await {
            let Notice::Event(event) = notice else { continue };
            match event.name.as_str() {
                "exec.approval.requested" => {
                    let approval: PendingApproval = read(event.payload)?;
                    offer(&reach, &client, context, &approval, asks, at.json).await?;
                }
                "exec.approval.resolved" => {
                    if at.json {
                        output::json_line(&json!({"event": "resolved", "approval": event.payload}));
                        continue;
                    }
                    let decided: ApprovalResolvedEvent = read(event.payload)?;
                    let by = decided.resolved_by.unwrap_or_else(|| "somebody".into());
                    output::line(format!("{} {} by {}", inert(&decided.id), show::word(decided.decision), inert(&by)));
                }
                _ => {}
            }
        }
        output::line(style.paint(Tone::Warn, "The gateway ended the connection."));
        Ok::<_, Failure>(1)
    })
}

async fn offer(
    reach: &Reach<'_>,
    client: &Client,
    context: &Context,
    approval: &PendingApproval,
    asks: bool,
    as_json: bool,
) -> Result<(), Failure> {
    if as_json {
        output::json_line(&json!({"event": "requested", "approval": show::entry(approval)}));
        return Ok(());
    }
    output::print(&show::request(context.output.out, approval, time::now_ms()));
    if !asks {
        return Ok(());
    }
    let always = approval.request.allowed_decisions.contains(&Decision::AllowAlways);
    // The answer repeats a piece of the id: what was typed before the request was shown answers nothing.
    let tag: String = approval.id.chars().take(4).collect();
    let or_always = if always { format!(", \"{} a\" always", inert(&tag)) } else { String::new() };
    let tag_shown = inert(&tag);
    output::note(format!("Type \"{tag_shown} y\" to allow it once{or_always}, \"{tag_shown} n\" to deny it."));
    // Typing takes as long as it takes: the connection lives on meanwhile.
    let typed = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line).map(|_| line)
    })
    .await;
    let line = typed.ok().and_then(Result::ok).unwrap_or_default();
    let Some(decision) = answer(&line, &tag).filter(|decision| always || *decision != Decision::AllowAlways) else {
        output::note("Left open.");
        return Ok(());
    };
    let params = json!({"id": approval.id, "decision": decision});
    match client.call("exec.approval.resolve", Some(params), reach.timeout()).await {
        Ok(_) => Ok(()),
        Err(error) if error.shape().is_some() => {
            output::note(inert(&error.to_string()));
            Ok(())
        }
        Err(error) => Err(reach.failure(&error)),
    }
}

fn answer(line: &str, tag: &str) -> Option<Decision> {
    match line.split_whitespace().collect::<Vec<_>>()[..] {
        [given, "y" | "yes"] if given == tag => Some(Decision::AllowOnce),
        [given, "a" | "always"] if given == tag => Some(Decision::AllowAlways),
        [given, "n" | "no"] if given == tag => Some(Decision::Deny),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_typed_before_answers_nothing() {
        let check = |line: &str, expected: Option<Decision>| assert_eq!(answer(line, "3f2a"), expected, "{line}");
        check("3f2a y\n", Some(Decision::AllowOnce));
        check(" 3f2a  always", Some(Decision::AllowAlways));
        check("3f2a n", Some(Decision::Deny));
        check("y", None);
        check("", None);
        check("ffff y", None);
        check("3f2a", None);
    }

    #[test]
    fn ids_may_be_abbreviated_when_that_is_unambiguous() {
        let approval = |id: &str| -> PendingApproval {
            let request = json!({"command": "x", "allowedDecisions": ["deny"]});
            serde_json::from_value(json!({"id": id, "request": request, "createdAtMs": 0, "expiresAtMs": 1}))
                .expect("one")
        };
        let waiting = [approval("abcd-1"), approval("abcd-2"), approval("ffff")];
        let check = |typed: &str, expected: Option<&str>| {
            assert_eq!(whole_id(typed, &waiting).ok().as_deref(), expected, "{typed}");
        };
        check("abcd-1", Some("abcd-1"));
        check("FF", Some("ffff"));
        check("abcd", None);
        check("", None);
        check("gone", Some("gone"));
    }
}
