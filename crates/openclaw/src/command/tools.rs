//! `openclaw tools` and `openclaw commands`: what an agent may use, and what may be typed in a chat.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    chat::wire::text,
    rpc::{READ, Rpc, WRITE, fresh_key},
};
use crate::{
    args::{PortTargetArgs, TargetArgs},
    context::Context,
    failure::{Failure, Outcome},
    output::{
        self, Style, Tone, inert,
        table::{self, Cell},
    },
    reach::{block_on, object},
};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// MCP servers may have to be started first, and tools take what they take.
const TOOL_TIMEOUT: Duration = Duration::from_secs(120);
/// Of a description in a list.
const ABOUT: usize = 90;

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Tools {
    #[command(subcommand)]
    pub command: Option<ToolsCommand>,
    #[command(flatten)]
    pub list: List,
}

#[derive(Debug, Subcommand)]
pub enum ToolsCommand {
    /// The tools there are (also without a word)
    List(List),
    /// Run one, as an agent would
    Invoke(Invoke),
}

#[derive(Args, Debug)]
pub struct List {
    /// Of this agent
    #[arg(long, value_name = "ID")]
    pub agent: Option<String>,
    /// Only those that a run in this conversation would have
    #[arg(long, value_name = "KEY")]
    pub session: Option<String>,
    #[command(flatten)]
    pub at: TargetArgs,
}

#[derive(Args, Debug)]
pub struct Invoke {
    /// Its name
    #[arg(value_name = "TOOL")]
    pub name: String,
    /// Its arguments
    #[arg(long, value_name = "JSON", default_value = "{}")]
    pub args: String,
    /// In this conversation
    #[arg(long, value_name = "KEY")]
    pub session: Option<String>,
    /// As this agent
    #[arg(long, value_name = "ID")]
    pub agent: Option<String>,
    #[command(flatten)]
    pub at: TargetArgs,
}

#[derive(Args, Debug)]
pub struct Commands {
    #[command(flatten)]
    pub at: TargetArgs,
}

impl Tools {
    pub fn wants_json(&self) -> bool {
        match &self.command {
            None => self.list.at.json,
            Some(ToolsCommand::List(args)) => args.at.json,
            Some(ToolsCommand::Invoke(args)) => args.at.json,
        }
    }
}

pub fn run(context: &Context, args: &Tools) -> Outcome {
    match &args.command {
        None => list(context, &args.list),
        Some(ToolsCommand::List(args)) => list(context, args),
        Some(ToolsCommand::Invoke(args)) => invoke(context, args),
    }
}

fn list(context: &Context, args: &List) -> Outcome {
    let reach = context.reach(&PortTargetArgs { target: args.at.clone(), port: None }, TOOL_TIMEOUT)?;
    let mut params = json!({});
    if let Some(agent) = &args.agent {
        params["agentId"] = json!(agent);
    }
    let method = match &args.session {
        Some(session) => {
            params["sessionKey"] = json!(session);
            "tools.effective"
        }
        None => "tools.catalog",
    };
    let answer = block_on(async {
        let mut rpc = Rpc::open(reach, &[READ]).await?;
        rpc.need(method, "list tools")?;
        let answer = rpc.call(method, params).await?;
        rpc.close().await;
        Ok(answer)
    })?;
    if args.at.json {
        output::json(&answer);
        return Ok(0);
    }
    output::print(&catalog(context.output.out, &answer));
    Ok(0)
}

fn catalog(style: Style, answer: &Value) -> String {
    let mut rows = Vec::new();
    for group in answer["groups"].as_array().into_iter().flatten() {
        for tool in group["tools"].as_array().into_iter().flatten() {
            let about = text(tool, "description").unwrap_or_default();
            rows.push(vec![
                Cell::toned(Tone::Command, inert(&text(tool, "id").unwrap_or_default()).into_owned()),
                Cell::toned(Tone::Dim, inert(&text(group, "label").unwrap_or_default()).into_owned()),
                Cell::from(short(&about)),
            ]);
        }
    }
    if rows.is_empty() {
        return "There are no tools.\n".to_owned();
    }
    table::columns(style, &["tool", "group", "does"], &rows)
}

/// The first line, as far as it fits.
fn short(about: &str) -> String {
    let line = inert(about.lines().next().unwrap_or_default()).into_owned();
    if line.chars().count() <= ABOUT {
        return line;
    }
    let cut: String = line.chars().take(ABOUT - 1).collect();
    format!("{}…", cut.trim_end())
}

fn invoke(context: &Context, args: &Invoke) -> Outcome {
    let given = object(&args.args).map_err(|_| Failure::new("--args must be a JSON object."))?;
    let key = fresh_key()?;
    let reach = context.reach(&PortTargetArgs { target: args.at.clone(), port: None }, TOOL_TIMEOUT)?;
    let mut params = json!({"name": args.name, "args": given, "idempotencyKey": key});
    for (name, value) in [("sessionKey", &args.session), ("agentId", &args.agent)] {
        if let Some(value) = value {
            params[name] = json!(value);
        }
    }
    let answer = block_on(async {
        let mut rpc = Rpc::open(reach, &[WRITE]).await?;
        rpc.need("tools.invoke", "run tools")?;
        let answer = rpc.call("tools.invoke", params).await?;
        rpc.close().await;
        Ok(answer)
    })?;
    let ok = answer["ok"] == true;
    if args.at.json {
        output::json(&answer);
        return Ok(u8::from(!ok));
    }
    if !ok {
        let why = text(&answer["error"], "message").unwrap_or_else(|| "it gave no reason".to_owned());
        let failure = why.lines().fold(Failure::new(format!("{} failed.", inert(&args.name))), |failure, line| {
            failure.detail(inert(line).into_owned())
        });
        return Err(match text(&answer["error"], "code").as_deref() {
            Some("not_found") => failure.remedy("see which there are", "openclaw tools"),
            _ => failure,
        });
    }
    let said = super::chat::wire::plain(&answer["output"]);
    for line in said.lines() {
        output::line(inert(line));
    }
    Ok(0)
}

pub fn commands(context: &Context, args: &Commands) -> Outcome {
    let reach = context.reach(&PortTargetArgs { target: args.at.clone(), port: None }, DEFAULT_TIMEOUT)?;
    let answer = block_on(async {
        let mut rpc = Rpc::open(reach, &[READ]).await?;
        rpc.need("commands.list", "list its commands")?;
        let answer = rpc.call("commands.list", json!({"scope": "text", "includeArgs": true})).await?;
        rpc.close().await;
        Ok(answer)
    })?;
    if args.at.json {
        output::json(&answer);
        return Ok(0);
    }
    let rows: Vec<Vec<Cell>> = answer["commands"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|command| {
            let name = command["textAliases"][0].as_str().map(str::to_owned);
            let name = name.or_else(|| text(command, "name")).unwrap_or_default();
            let args = command["args"].as_array().into_iter().flatten().filter_map(|arg| {
                let name = text(arg, "name")?;
                Some(if arg["required"] == true { format!("<{name}>") } else { format!("[{name}]") })
            });
            let typed = std::iter::once(name).chain(args).collect::<Vec<_>>().join(" ");
            let about = text(command, "description").unwrap_or_default();
            vec![Cell::toned(Tone::Command, inert(&typed).into_owned()), Cell::from(short(&about))]
        })
        .collect();
    output::print(&table::columns(context.output.out, &["in a chat", "does"], &rows));
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_are_one_short_inert_line() {
        assert_eq!(short("Reads a file.\nMore."), "Reads a file.");
        assert_eq!(short("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
        let long = short(&"word ".repeat(60));
        assert!(long.chars().count() <= ABOUT && long.ends_with('…'), "{long}");
    }
}
