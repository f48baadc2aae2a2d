//! `openclaw channels …`: the accounts by which people write to the agent.

mod add;
pub mod args;
mod show;

use std::time::Duration;

use openclaw_channels::section::{DEFAULT_ACCOUNT, Section, normal};
use openclaw_config::{
    Document,
    credentials::On,
    write::{Edit, Editor, Options, SetMode},
};
use openclaw_gateway::channels::kinds;
use openclaw_protocol::method::channels::ChannelsReport;
use serde_json::{Value, json};

pub use args::Channels;

use self::args::{ChannelsCommand, List, One, Remove, Status, Which};
use super::rpc::{ADMIN, READ, Rpc};
use crate::{
    args::{PortTargetArgs, TargetArgs},
    context::Context,
    failure::{Failure, Outcome},
    output::{self, Tone, inert},
    reach::{Reach, block_on},
};

const TIMEOUT: Duration = Duration::from_secs(10);
/// A probe waits for services elsewhere.
const PROBE_TIMEOUT: Duration = Duration::from_secs(30);

pub fn run(context: &Context, args: &Channels) -> Outcome {
    match &args.command {
        ChannelsCommand::List(args) => list(context, args),
        ChannelsCommand::Status(args) => status(context, args),
        ChannelsCommand::Add(args) | ChannelsCommand::Login(args) => add::run(context, args),
        ChannelsCommand::Logout(args) => one(context, args, "channels.logout"),
        ChannelsCommand::Start(args) => one(context, args, "channels.start"),
        ChannelsCommand::Stop(args) => one(context, args, "channels.stop"),
        ChannelsCommand::Remove(args) => remove(context, args),
    }
}

fn reach<'a>(context: &'a Context, at: &TargetArgs, timeout: Duration) -> Result<Reach<'a>, Failure> {
    context.reach(&PortTargetArgs { target: at.clone(), port: None }, timeout)
}

/// The channel that was named, or the only one that is configured.
fn channel(context: &Context, which: &Which) -> Result<String, Failure> {
    let ids: Vec<&str> = kinds::ALL.iter().map(|(id, _)| *id).collect();
    if let Some(named) = which.channel() {
        let named = named.trim().to_lowercase();
        if !ids.contains(&named.as_str()) {
            return Err(Failure::new(format!("There is no channel \"{}\".", inert(&named)))
                .detail(format!("This version has {}.", ids.join(" and "))));
        }
        return Ok(named);
    }
    let loaded = context.config_for_diagnosis()?;
    let configured: Vec<&str> =
        ids.iter().copied().filter(|id| !Section::accounts(&loaded.document, id).is_empty()).collect();
    match configured.as_slice() {
        [only] => Ok((*only).to_owned()),
        _ => Err(Failure::new("Which channel? Name it, for example: openclaw channels add telegram.")),
    }
}

fn account(which: &Which) -> Result<Option<String>, Failure> {
    match which.account.as_deref().map(normal) {
        Some(account) if account.is_empty() => Err(Failure::new("--account must not be blank")),
        account => Ok(account),
    }
}

/// The file on this machine is changed, so it has to be the gateway's.
fn local_config(context: &Context) -> Result<Document, Failure> {
    if let Some(On::Connection(on)) = &context.on {
        return Err(Failure::new(format!(
            "\"{}\" is another machine, and its config is changed there.",
            inert(on.as_str())
        ))
        .there("run it", "openclaw channels add"));
    }
    let loaded = context.config_for_diagnosis()?;
    if let Some(problem) = &loaded.problem {
        return Err(context.invalid(problem));
    }
    if loaded.document.get("gateway.mode").and_then(|mode| mode.as_str()) == Some("remote") {
        return Err(Failure::new("This machine uses a gateway elsewhere (gateway.mode is \"remote\").")
            .detail("Channels are in the config of the gateway's host. Nothing was changed.")
            .there("run it", "openclaw channels add"));
    }
    Ok(loaded.document)
}

fn list(context: &Context, args: &List) -> Outcome {
    let loaded = context.config_for_diagnosis()?;
    context.note_problem(loaded.problem.as_ref());
    let document = &loaded.document;
    let mut rows = Vec::new();
    for (id, label) in kinds::ALL {
        let accounts = Section::accounts(document, id);
        if accounts.is_empty() && args.all {
            rows.push(json!({"channel": id, "label": label, "accountId": Value::Null, "enabled": false,
                "configured": false, "installed": true}));
        }
        for account in accounts {
            let section = Section::new(document, id, &account);
            let has = |name: &str| context.env.get(name).is_some_and(|value| !value.is_empty());
            rows.push(json!({"channel": id, "label": label, "accountId": account, "enabled": section.enabled(),
                "configured": kinds::configured(document, id, &account, has), "installed": true}));
        }
    }
    if args.json {
        output::json(&json!({ "chat": rows }));
        return Ok(0);
    }
    output::print(&show::inventory(context.output.out, &rows));
    if rows.is_empty() {
        output::line(format!("Add one: {}", context.output.out.paint(Tone::Command, "openclaw channels add telegram")));
    }
    Ok(0)
}

fn status(context: &Context, args: &Status) -> Outcome {
    let timeout = if args.probe { PROBE_TIMEOUT } else { TIMEOUT };
    let reach = reach(context, &args.at, timeout)?;
    let limit = u64::try_from(reach.timeout().as_millis()).unwrap_or(u64::MAX);
    let mut params = json!({"probe": args.probe, "timeoutMs": limit.saturating_sub(1_000).max(1_000)});
    if let Some(channel) = &args.channel {
        params["channel"] = json!(channel);
    }
    let raw = block_on(async {
        let mut rpc = Rpc::open(reach, &[READ]).await?;
        let raw = rpc.call("channels.status", params).await?;
        rpc.close().await;
        Ok(raw)
    })?;
    let report: ChannelsReport = serde_json::from_value(raw.clone())
        .map_err(|error| Failure::new(format!("The gateway's channel report is unreadable: {error}.")))?;
    let failed =
        report.channel_accounts.values().flatten().any(|account| account.probe.as_ref().is_some_and(|probe| !probe.ok));
    if args.at.json {
        output::json(&raw);
    } else {
        output::print(&show::status(context.output.out, &report, output::time::now_ms()));
    }
    Ok(u8::from(failed))
}

/// `start`, `stop` and `logout` of one account.
fn one(context: &Context, args: &One, method: &str) -> Outcome {
    let channel = channel(context, &args.which)?;
    let mut params = json!({ "channel": channel });
    if let Some(account) = account(&args.which)? {
        params["accountId"] = json!(account);
    }
    let reach = reach(context, &args.at, TIMEOUT)?;
    let result = block_on(async {
        let mut rpc = Rpc::open(reach, &[ADMIN]).await?;
        let result = rpc.call(method, params).await?;
        rpc.close().await;
        Ok(result)
    })?;
    if args.at.json {
        output::json(&result);
        return Ok(0);
    }
    let style = context.output.out;
    let name = format!("{}/{}", channel, inert(result["accountId"].as_str().unwrap_or(DEFAULT_ACCOUNT)));
    let line = match method {
        "channels.stop" => {
            format!("{} Stopped {name}. It stays so until: openclaw channels start {channel}", style.ok())
        }
        "channels.start" if result["started"] == true => format!("{} {name} is running.", style.ok()),
        "channels.start" => {
            let why = result["outcome"]["reason"].as_str().unwrap_or("unknown");
            format!("{} {name} was not started: {}", style.warn(), inert(why))
        }
        _ if result["loggedOut"] == true => format!("{} {name} is stopped and has no token any more.", style.ok()),
        _ => format!(
            "{} {name} is stopped. A token is still in the gateway's environment, so a restart starts it again.",
            style.warn()
        ),
    };
    output::line(line);
    Ok(0)
}

fn remove(context: &Context, args: &Remove) -> Outcome {
    let document = local_config(context)?;
    let channel = channel(context, &args.which)?;
    let account = account(&args.which)?.unwrap_or_else(|| Section::default_account(&document, &channel));
    let section = Section::new(&document, &channel, &account);
    if !Section::accounts(&document, &channel).contains(&account) {
        return Err(Failure::new(format!("There is no account {channel}/{}.", inert(&account)))
            .detail("Nothing was changed.")
            .remedy("see what there is", "openclaw channels list"));
    }
    let named = section.own("enabled").is_some()
        || document
            .get("channels")
            .and_then(|all| all.entry(&channel))
            .and_then(|root| root.entry("accounts"))
            .and_then(|all| all.entry(&account))
            .is_some();
    let base = if named { vec!["channels", &channel, "accounts", &account] } else { vec!["channels", &channel] };
    let path: openclaw_config::ConfigPath = base.into_iter().map(str::to_owned).collect();
    let edit = match args.delete {
        true => Edit::Unset { path },
        false => Edit::Set { path: path.child("enabled"), value: json!(false), mode: SetMode::Set },
    };
    write(context, &[edit])?;
    if args.json {
        output::json(&json!({"ok": true, "channel": channel, "accountId": account, "deleted": args.delete}));
        return Ok(0);
    }
    let style = context.output.out;
    output::line(if args.delete {
        format!("{} {channel}/{} is out of the config. Undo: openclaw config undo", style.ok(), inert(&account))
    } else {
        format!(
            "{} {channel}/{} is switched off; its settings are kept. Undo: openclaw config undo",
            style.ok(),
            inert(&account)
        )
    });
    Ok(0)
}

/// Makes edits as one checked write.
fn write(context: &Context, edits: &[Edit]) -> Result<openclaw_config::write::Outcome, Failure> {
    let written = Editor::new(&context.paths, &context.env).apply(edits, &Options::default());
    let written = written.map_err(|error| {
        let text = error.to_string();
        let mut lines = text.lines().map(|line| inert(line).into_owned());
        let failure = Failure::new(lines.next().unwrap_or_default()).error_code(error.kind());
        lines.fold(failure, Failure::detail)
    })?;
    if written.comments_lost {
        output::note(format!(
            "{} The change could not be made in place; comments in {} are lost.",
            context.output.err.warn(),
            context.config_path()
        ));
    }
    Ok(written)
}
