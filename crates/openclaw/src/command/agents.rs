//! `openclaw agents …`: who there is to talk with.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use openclaw_config::{
    ConfigPath,
    write::{Edit, SetMode},
};
use serde_json::{Value, json};

use super::{
    chat::wire::text,
    models::{local_config, write},
    rpc::{READ, Rpc},
};
use crate::{
    args::{PortTargetArgs, TargetArgs},
    context::Context,
    failure::{Failure, Outcome},
    output::{
        self, Tone, inert,
        table::{self, Cell},
    },
    reach::block_on,
};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Agents {
    #[command(subcommand)]
    pub command: Option<AgentsCommand>,
    #[command(flatten)]
    pub at: TargetArgs,
}

#[derive(Debug, Subcommand)]
pub enum AgentsCommand {
    /// Which agents the gateway has (also without a word)
    List(TargetArgs),
    /// Add one to the config of this machine's gateway
    Add(Add),
    /// Take one out of the config; its conversations and files stay
    #[command(alias = "remove")]
    Delete(Delete),
}

#[derive(Args, Debug)]
pub struct Add {
    /// Its id: letters, digits, "-" and "_"
    #[arg(value_name = "ID")]
    pub id: String,
    /// What it is called
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Directory of its files; without it workspace-<id> beside the usual one
    #[arg(long, value_name = "DIR")]
    pub workspace: Option<PathBuf>,
    /// Its own model (provider/model)
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// Accepted from scripts written for the reference; nothing is asked here
    #[arg(long, hide = true)]
    pub non_interactive: bool,
    /// JSON on stdout
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct Delete {
    /// Its id
    #[arg(value_name = "ID")]
    pub id: String,
    /// Accepted from scripts; nothing is asked, since nothing is lost
    #[arg(long, hide = true)]
    pub force: bool,
    /// JSON on stdout
    #[arg(long)]
    pub json: bool,
}

impl Agents {
    pub fn wants_json(&self) -> bool {
        match &self.command {
            None => self.at.json,
            Some(AgentsCommand::List(at)) => at.json,
            Some(AgentsCommand::Add(args)) => args.json,
            Some(AgentsCommand::Delete(args)) => args.json,
        }
    }
}

pub fn run(context: &Context, args: &Agents) -> Outcome {
    match &args.command {
        None => list(context, &args.at),
        Some(AgentsCommand::List(at)) => list(context, at),
        Some(AgentsCommand::Add(args)) => add(context, args),
        Some(AgentsCommand::Delete(args)) => delete(context, args),
    }
}

fn list(context: &Context, at: &TargetArgs) -> Outcome {
    let reach = context.reach(&PortTargetArgs { target: at.clone(), port: None }, DEFAULT_TIMEOUT)?;
    let answer = block_on(async {
        let mut rpc = Rpc::open(reach, &[READ]).await?;
        let answer = rpc.call("agents.list", json!({})).await?;
        rpc.close().await;
        Ok(answer)
    })?;
    if at.json {
        output::json(&answer);
        return Ok(0);
    }
    let default = answer["defaultId"].as_str().unwrap_or("main");
    let rows: Vec<Vec<Cell>> = answer["agents"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|agent| {
            let id = text(agent, "id").unwrap_or_default();
            let name = text(&agent["identity"], "name").or_else(|| text(agent, "name")).unwrap_or_default();
            let model = text(&agent["model"], "primary");
            let mark = if id == default { "default" } else { "" };
            vec![
                Cell::toned(Tone::Command, inert(&id).into_owned()),
                Cell::from(inert(&name).into_owned()),
                match model {
                    Some(model) => Cell::from(inert(&model).into_owned()),
                    None => Cell::toned(Tone::Warn, "none (openclaw models add)"),
                },
                Cell::toned(Tone::Dim, mark),
            ]
        })
        .collect();
    output::print(&table::columns(context.output.out, &["agent", "name", "model", ""], &rows));
    Ok(0)
}

fn check_id(id: &str) -> Result<String, Failure> {
    let id = id.trim().to_lowercase();
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if id.is_empty() || id.len() > 64 || !id.chars().all(fits) || !id.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(Failure::new(format!("\"{}\" cannot be the id of an agent.", inert(&id)))
            .detail("Up to 64 letters, digits, \"-\" and \"_\"."));
    }
    Ok(id)
}

/// The ids in the config, and whether they stand in the older list.
fn configured(written: &Value) -> (Vec<String>, bool) {
    let list = written["agents"]["list"].as_array().into_iter().flatten().filter_map(|agent| text(agent, "id"));
    let list: Vec<String> = list.collect();
    let older = !list.is_empty();
    let entries = written["agents"]["entries"].as_object().into_iter().flatten().map(|(id, _)| id.clone());
    (list.into_iter().chain(entries).collect(), older)
}

fn add(context: &Context, args: &Add) -> Outcome {
    let id = check_id(&args.id)?;
    let document = local_config(context, "openclaw agents add <id>")?;
    let written = document.written();
    let (ids, older) = configured(&written);
    if ids.iter().any(|have| have.eq_ignore_ascii_case(&id)) {
        return Err(Failure::new(format!("There is an agent \"{id}\" already; nothing was changed."))
            .remedy("see it", "openclaw agents list"));
    }
    let mut entry = json!({});
    if let Some(name) = args.name.as_deref().map(str::trim).filter(|name| !name.is_empty()) {
        entry["name"] = json!(name);
    }
    if let Some(workspace) = &args.workspace {
        let path = std::path::absolute(workspace).map_err(|error| {
            Failure::new(format!("{} cannot be used: {error}.", inert(&workspace.display().to_string())))
        })?;
        entry["workspace"] = json!(path);
    }
    if let Some(model) = &args.model {
        entry["model"] = json!(super::models::named(&super::models::meant(&written, model))?);
    }
    let path = |steps: &[&str]| -> ConfigPath { steps.iter().map(|step| (*step).to_owned()).collect() };
    let mut edits = Vec::new();
    if older {
        let mut list = written["agents"]["list"].as_array().cloned().unwrap_or_default();
        entry["id"] = json!(id);
        list.push(entry);
        edits.push(Edit::Set { path: path(&["agents", "list"]), value: json!(list), mode: SetMode::Replace });
    } else {
        // The first entry would make the agent that was there by itself go away.
        if ids.is_empty() {
            edits.push(Edit::Set { path: path(&["agents", "entries", "main"]), value: json!({}), mode: SetMode::Set });
        }
        edits.push(Edit::Set { path: path(&["agents", "entries", &id]), value: entry, mode: SetMode::Set });
    }
    let done = write(context, &edits)?;
    if args.json {
        output::json(&json!({"ok": true, "agentId": id, "noop": done.noop, "configPath": context.paths.config_file}));
        return Ok(0);
    }
    let style = context.output.out;
    output::line(format!("{} The agent {id} is there; the gateway takes it up by itself.", style.ok()));
    output::line(format!("  Talk to it: {}", style.paint(Tone::Command, &format!("openclaw chat agent:{id}:main"))));
    output::line(format!("  Undo: {}", style.paint(Tone::Command, "openclaw config undo")));
    Ok(0)
}

fn delete(context: &Context, args: &Delete) -> Outcome {
    let id = check_id(&args.id)?;
    let document = local_config(context, "openclaw agents delete <id>")?;
    let written = document.written();
    let (ids, older) = configured(&written);
    if !ids.iter().any(|have| have.eq_ignore_ascii_case(&id)) {
        return Err(Failure::new(format!("There is no agent \"{id}\" in the config; nothing was changed."))
            .remedy("see which there are", "openclaw agents list"));
    }
    let path = |steps: &[&str]| -> ConfigPath { steps.iter().map(|step| (*step).to_owned()).collect() };
    let edit = if older {
        let mut list = written["agents"]["list"].as_array().cloned().unwrap_or_default();
        list.retain(|agent| agent["id"].as_str().is_none_or(|have| !have.eq_ignore_ascii_case(&id)));
        Edit::Set { path: path(&["agents", "list"]), value: json!(list), mode: SetMode::Replace }
    } else {
        Edit::Unset { path: path(&["agents", "entries", &id]) }
    };
    write(context, &[edit])?;
    if args.json {
        output::json(&json!({"ok": true, "agentId": id, "configPath": context.paths.config_file}));
        return Ok(0);
    }
    let style = context.output.out;
    output::line(format!("{} {id} is out of the config; its conversations and files stay.", style.ok()));
    output::line(format!("  Undo: {}", style.paint(Tone::Command, "openclaw config undo")));
    Ok(0)
}
