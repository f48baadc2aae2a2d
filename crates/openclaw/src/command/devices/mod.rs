//! `openclaw devices …` and `openclaw pairing …`: who may connect.

mod admin;
pub mod invite;
pub mod join_code;
mod show;

use std::time::Duration;

use openclaw_protocol::{
    Role,
    method::device::{DevicePairings, MAX_LABEL_CHARS, PairedDevice},
};
use openclaw_remote::{
    Client, Error as RemoteError, Link,
    connect::{DeviceUse, Persona},
};
use serde_json::{Value, json};

use crate::{
    args::{DevicesCommand, PortTargetArgs, TargetArgs},
    context::Context,
    failure::{Failure, Outcome},
    output::{self, Style, inert, time},
    reach::{Reach, block_on},
};
pub use show::render_pending;
use show::{name_of, pending_name, render, scopes, shell_safe, short, undo_line, words};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// Shortest accepted abbreviation of an id.
const MIN_PREFIX: usize = 4;
const PAIRING: &str = "operator.pairing";

pub fn devices(context: &Context, command: &DevicesCommand) -> Outcome {
    use DevicesCommand as C;
    match command {
        C::List(at) => list(context, at),
        C::Approve(args) => match (&args.request, args.latest) {
            (Some(request), _) => approve(context, &args.at, request),
            (None, latest) => show_latest(context, &args.at, latest),
        },
        C::Invite(args) => invite::run(context, args),
        C::JoinCode(args) => join_code::run(context, args),
        C::Reject(args) => reject(context, &args.at, &args.request),
        C::Remove(args) => {
            let device = args.device.text();
            change(context, &args.at, device, "device.pair.remove", json!({}), |style, device, _| {
                format!("{} Removed {}. It has to be paired again to come back.", style.ok(), name_of(device))
            })
        }
        C::Rename(args) => {
            if args.name.trim().is_empty() || args.name.chars().count() > MAX_LABEL_CHARS {
                return Err(Failure::new("--name must have 1 to 64 characters"));
            }
            let params = json!({"label": args.name.trim()});
            change(context, &args.at, args.device.text(), "device.pair.rename", params, |style, device, result| {
                let label = result["label"].as_str().unwrap_or_default();
                let undo = device.display_name.as_deref().filter(|name| shell_safe(name));
                let undo = undo.map(|name| {
                    undo_line(style, &format!("openclaw devices rename {} --name '{name}'", short(&device.device_id)))
                });
                format!(
                    "{} {} is now called {}.{}",
                    style.ok(),
                    short(&device.device_id),
                    inert(label),
                    undo.unwrap_or_default()
                )
            })
        }
        C::Rotate(args) => {
            let role = role(&args.role)?;
            let mut params = json!({ "role": role });
            if !args.scope.is_empty() || args.no_scopes {
                params["scopes"] = json!(args.scope);
            }
            change(context, &args.at, args.device.text(), "device.token.rotate", params, |style, device, result| {
                let delivered = match result["token"].as_str() {
                    Some(token) => format!("New token (keep it secret): {}", inert(token)),
                    None => "The device gets the new token when it connects next.".to_owned(),
                };
                format!(
                    "{} Rotated the {role} token of {}. The old one no longer works.\n{delivered}",
                    style.ok(),
                    name_of(device)
                )
            })
        }
        C::Revoke(args) => {
            let role = role(&args.role)?;
            change(
                context,
                &args.at,
                args.device.text(),
                "device.token.revoke",
                json!({ "role": role }),
                |style, device, _| {
                    format!(
                        "{} Revoked the {role} token of {}. Its connections are closed.",
                        style.ok(),
                        name_of(device)
                    )
                },
            )
        }
        C::Clear(args) => clear(context, &args.at, args.yes, args.pending),
    }
}

fn role(text: &str) -> Result<&'static str, Failure> {
    Role::parse(text).map(Role::as_str).ok_or_else(|| Failure::new("--role must be operator or node"))
}

fn reach<'a>(context: &'a Context, at: &TargetArgs) -> Result<Reach<'a>, Failure> {
    let at = PortTargetArgs { target: at.clone(), port: None };
    context.reach(&at, DEFAULT_TIMEOUT)
}

async fn open(reach: &Reach<'_>, scopes: &[&str]) -> Result<Link, Failure> {
    reach.open(Persona::Cli, scopes, DeviceUse::WhenNeeded).await.map_err(|error| reach.failure(&error))
}

async fn call(reach: &Reach<'_>, client: &Client, method: &str, params: Value) -> Result<Value, Failure> {
    let answer = client.call(method, Some(params), reach.timeout()).await;
    answer.map_err(|error| reach.failure(&error))
}

async fn pairings(reach: &Reach<'_>, client: &Client) -> Result<(Value, DevicePairings), Failure> {
    let raw = call(reach, client, "device.pair.list", json!({})).await?;
    let read = serde_json::from_value(raw.clone());
    let read = read.map_err(|error| Failure::new(format!("The gateway's device list is unreadable: {error}.")))?;
    Ok((raw, read))
}

fn list(context: &Context, at: &TargetArgs) -> Outcome {
    let reach = reach(context, at)?;
    let (raw, list) = block_on(async {
        let client = open(&reach, &[PAIRING]).await?;
        let found = pairings(&reach, &client).await?;
        client.close().await;
        Ok(found)
    })?;
    if at.json {
        output::json(&raw);
        return Ok(0);
    }
    output::print(&render(context.output.out, &list, time::now_ms()));
    Ok(0)
}

/// Finds one entry by its id, the first characters of it, or what else identifies it.
fn find<'a, T>(
    kind: &str,
    typed: &str,
    entries: &'a [T],
    id: impl Fn(&T) -> &str,
    also: impl Fn(&T) -> bool,
) -> Result<&'a T, Failure> {
    let typed = typed.trim();
    if let Some(exact) = entries.iter().find(|entry| id(entry) == typed || also(entry)) {
        return Ok(exact);
    }
    let list = "openclaw devices list";
    if typed.len() < MIN_PREFIX {
        return Err(Failure::new(format!("An abbreviated {kind} id needs at least {MIN_PREFIX} characters."))
            .remedy("see the ids", list));
    }
    let mut matching = entries.iter().filter(|entry| id(entry).starts_with(typed));
    match (matching.next(), matching.next()) {
        (Some(only), None) => Ok(only),
        (Some(_), Some(_)) => {
            Err(Failure::new(format!("\"{}\" is the start of more than one {kind} id.", inert(typed)))
                .detail("Nothing was changed.")
                .remedy("see the ids", list))
        }
        (None, _) => Err(Failure::new(format!("There is no {kind} \"{}\".", inert(typed)))
            .detail(if kind == "request" {
                "It may have expired: a request lives five minutes."
            } else {
                "Nothing was changed."
            })
            .remedy("see what there is", list)),
    }
}

/// Approves a pending request by its id, the start of it, or its words.
pub fn approve(context: &Context, at: &TargetArgs, typed: &str) -> Outcome {
    let reach = reach(context, at)?;
    let style = context.output.out;
    let result = block_on(async {
        let client = open(&reach, &[PAIRING]).await?;
        let (_, list) = pairings(&reach, &client).await?;
        let said = typed.split([' ', '-']).collect::<Vec<_>>().join("-").to_ascii_lowercase();
        let request = find(
            "request",
            typed,
            &list.pending,
            |request| &request.request_id,
            |request| words(request).as_deref() == Some(&*said),
        )?;
        // Nobody may approve more than they hold: ask for what the request asks for.
        let mut wanted = vec![PAIRING];
        wanted.extend(request.scopes.iter().map(String::as_str).filter(|scope| *scope != PAIRING));
        let client = if wanted.len() > 1 {
            client.close().await;
            open(&reach, &wanted).await?
        } else {
            client
        };
        let params = json!({"requestId": request.request_id});
        let result = call(&reach, &client, "device.pair.approve", params).await?;
        client.close().await;
        Ok::<_, Failure>((result, request.clone()))
    });
    let (result, request) = result?;
    if at.json {
        output::json(&result);
        return Ok(0);
    }
    let id = result["device"]["deviceId"].as_str().unwrap_or(&request.device_id);
    output::line(format!(
        "{} Approved {} as {} with {}.{}",
        style.ok(),
        pending_name(&request),
        inert(request.role.as_deref().unwrap_or("operator")),
        scopes(&request.scopes),
        undo_line(style, &format!("openclaw devices remove {}", short(id)))
    ));
    Ok(0)
}

fn show_latest(context: &Context, at: &TargetArgs, asked: bool) -> Outcome {
    let reach = reach(context, at)?;
    let list = block_on(async {
        let client = open(&reach, &[PAIRING]).await?;
        let (_, list) = pairings(&reach, &client).await?;
        client.close().await;
        Ok::<_, Failure>(list)
    })?;
    let newest = list.pending.iter().max_by_key(|request| request.ts);
    if at.json {
        output::json(&json!({ "latest": newest }));
        return Ok(u8::from(newest.is_none()));
    }
    let Some(newest) = newest else {
        return Err(Failure::new("There is no pending device pairing request."));
    };
    output::print(&render_pending(context.output.out, std::slice::from_ref(newest), time::now_ms()));
    if !asked {
        output::note("Nothing was approved: name the request.");
    }
    Ok(u8::from(!asked))
}

fn reject(context: &Context, at: &TargetArgs, typed: &str) -> Outcome {
    let reach = reach(context, at)?;
    let (result, name) = block_on(async {
        let client = open(&reach, &[PAIRING]).await?;
        let (_, list) = pairings(&reach, &client).await?;
        let request = find("request", typed, &list.pending, |request| &request.request_id, |_| false)?;
        let result = call(&reach, &client, "device.pair.reject", json!({"requestId": request.request_id})).await?;
        client.close().await;
        Ok::<_, Failure>((result, pending_name(request)))
    })?;
    if at.json {
        output::json(&result);
    } else {
        output::line(format!("{} Rejected {name}.", context.output.out.ok()));
    }
    Ok(0)
}

/// Changes one paired device with one call.
fn change(
    context: &Context,
    at: &TargetArgs,
    typed: &str,
    method: &str,
    mut params: Value,
    say: impl Fn(Style, &PairedDevice, &Value) -> String,
) -> Outcome {
    let reach = reach(context, at)?;
    let (result, device) = block_on(async {
        // A new token may only carry scopes the caller holds.
        let mut scopes = vec![PAIRING.to_owned()];
        let asked = params["scopes"].as_array().map(Vec::as_slice).unwrap_or_default();
        scopes.extend(asked.iter().filter_map(Value::as_str).filter(|scope| *scope != PAIRING).map(str::to_owned));
        let names: Vec<&str> = scopes.iter().map(String::as_str).collect();
        let client = open(&reach, &names).await?;
        let (_, list) = pairings(&reach, &client).await?;
        let device = find("device", typed, &list.paired, |device| &device.device_id, |_| false)?.clone();
        params["deviceId"] = json!(device.device_id);
        let answer = client.call(method, Some(params), reach.timeout()).await;
        let result = answer.map_err(|error| explain_denied(&reach, &error))?;
        client.close().await;
        Ok::<_, Failure>((result, device))
    })?;
    if at.json {
        output::json(&result);
    } else {
        output::line(say(context.output.out, &device, &result));
    }
    Ok(0)
}

/// `device token rotation denied` is all the gateway says; the likely reasons are ours to name.
fn explain_denied(reach: &Reach<'_>, error: &RemoteError) -> Failure {
    let failure = reach.failure(error);
    if error.to_string().contains("rotation denied") {
        return failure.detail("The device may not have that role, or the scopes go beyond what it was approved for.");
    }
    failure
}

fn clear(context: &Context, at: &TargetArgs, yes: bool, pending: bool) -> Outcome {
    let reach = reach(context, at)?;
    let (removed, rejected) = block_on(async {
        let client = open(&reach, &[PAIRING]).await?;
        let (_, list) = pairings(&reach, &client).await?;
        if !yes {
            return Err(Failure::new(format!(
                "This removes {} paired device(s); nothing was changed.",
                list.paired.len()
            ))
            .detail("Each of them has to be paired again to come back.")
            .remedy("if that is what you want", "openclaw devices clear --yes"));
        }
        for device in &list.paired {
            call(&reach, &client, "device.pair.remove", json!({"deviceId": device.device_id})).await?;
        }
        let rejected = if pending { list.pending.as_slice() } else { &[] };
        for request in rejected {
            call(&reach, &client, "device.pair.reject", json!({"requestId": request.request_id})).await?;
        }
        client.close().await;
        Ok((list.paired.len(), rejected.len()))
    })?;
    if at.json {
        output::json(&json!({"ok": true, "removed": removed, "rejected": rejected}));
    } else {
        output::line(format!(
            "{} Removed {removed} device(s), rejected {rejected} request(s).",
            context.output.out.ok()
        ));
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use openclaw_protocol::method::device::PendingDevice;

    use super::*;

    fn pending(id: &str) -> PendingDevice {
        serde_json::from_value(json!({"requestId": id, "deviceId": "be6491d56626acf8", "publicKey": "x", "ts": 0}))
            .expect("a request")
    }

    #[test]
    fn ids_may_be_abbreviated_when_that_is_unambiguous() {
        let entries = [pending("8a98d942-36c2"), pending("8a98ffff-1111")];
        let check = |typed: &str, expected: Result<&str, &str>| {
            let found = find("request", typed, &entries, |request| &request.request_id, |_| false);
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found.request_id, expected, "{typed}"),
                (Err(failure), Err(part)) => {
                    assert!(failure.message().contains(part), "{typed}: {}", failure.message())
                }
                (found, _) => panic!("{typed}: {:?}", found.map(|f| &f.request_id)),
            }
        };
        check("8a98d942-36c2", Ok("8a98d942-36c2"));
        check("8a98d", Ok("8a98d942-36c2"));
        check("8a98", Err("more than one"));
        check("8a9", Err("at least 4"));
        check("", Err("at least 4"));
        check("ffff", Err("no request"));
    }
}
