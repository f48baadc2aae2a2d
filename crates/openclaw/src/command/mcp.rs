//! `openclaw mcp …`: the servers whose tools agents borrow (`mcp.servers` in the config of this machine's gateway).

use clap::{Args, Subcommand};
use openclaw_agent::mcp::{self, ServerSettings, Servers, State};
use openclaw_config::{
    ConfigPath,
    write::{Edit, SetMode},
};
use serde_json::{Map, Value, json};

use super::models::{local_config, write};
use crate::{
    context::Context,
    failure::{Failure, Outcome},
    output::{
        self, Tone,
        escape::inert_line,
        inert,
        table::{self, Cell},
        time,
    },
    reach::block_on,
};

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Mcp {
    #[command(subcommand)]
    pub command: Option<McpCommand>,
    #[command(flatten)]
    pub flag: JsonOnly,
}

#[derive(Debug, Subcommand)]
pub enum McpCommand {
    /// Which there are (also without a word)
    #[command(alias = "ls")]
    List(JsonOnly),
    /// What is wrong with them, as far as the config tells; starts none
    #[command(alias = "doctor")]
    Status(Status),
    /// The config of one, secrets masked
    Show(One),
    /// Start them from here, and say which tools they have
    Probe(Named),
    /// Add one: a command to start, or an address
    Add(Add),
    /// Set one as JSON
    Set(Set),
    /// Take one away
    #[command(visible_alias = "remove", alias = "rm")]
    Unset(One),
}

#[derive(Args, Debug)]
pub struct JsonOnly {
    /// JSON on stdout
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct Status {
    /// Only this one
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Also start them
    #[arg(long)]
    pub probe: bool,
    /// Accepted from scripts written for the reference
    #[arg(long, hide = true)]
    pub verbose: bool,
    /// JSON on stdout
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct One {
    /// Its name
    #[arg(value_name = "NAME")]
    pub name: String,
    /// JSON on stdout
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct Named {
    /// Only this one
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// JSON on stdout
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct Add {
    /// Its name: letters, digits, "-" and "_"
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Program to start
    #[arg(long, value_name = "PROGRAM", required_unless_present = "url", conflicts_with = "url")]
    pub command: Option<String>,
    /// Argument of the program (repeatable)
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, requires = "command")]
    pub arg: Vec<String>,
    /// NAME=VALUE for the program (repeatable); "${VARIABLE}" keeps secrets out of the config
    #[arg(long, value_name = "NAME=VALUE", requires = "command")]
    pub env: Vec<String>,
    /// Directory the program starts in
    #[arg(long, value_name = "DIR", requires = "command")]
    pub cwd: Option<String>,
    /// Address of a server that speaks streamable HTTP
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// NAME=VALUE of a header (repeatable); "${VARIABLE}" keeps secrets out of the config
    #[arg(long, value_name = "NAME=VALUE", requires = "url")]
    pub header: Vec<String>,
    /// Only these of its tools, separated by commas; "*" stands for anything
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub include: Vec<String>,
    /// Not these
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub exclude: Vec<String>,
    /// Do not start it to see whether it works
    #[arg(long)]
    pub no_probe: bool,
    /// JSON on stdout
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct Set {
    /// Its name
    #[arg(value_name = "NAME")]
    pub name: String,
    /// {"command": …, "args": […]} or {"url": …}
    #[arg(value_name = "JSON")]
    pub value: String,
    /// JSON on stdout
    #[arg(long)]
    pub json: bool,
}

impl Mcp {
    pub fn wants_json(&self) -> bool {
        use McpCommand as C;
        match &self.command {
            None => self.flag.json,
            Some(C::List(args)) => args.json,
            Some(C::Status(args)) => args.json,
            Some(C::Show(args) | C::Unset(args)) => args.json,
            Some(C::Probe(args)) => args.json,
            Some(C::Add(args)) => args.json,
            Some(C::Set(args)) => args.json,
        }
    }
}

pub fn run(context: &Context, args: &Mcp) -> Outcome {
    use McpCommand as C;
    match &args.command {
        None => status(context, None, args.flag.json),
        Some(C::List(args)) => status(context, None, args.json),
        Some(C::Status(args)) if args.probe => probe(context, args.name.as_deref(), args.json),
        Some(C::Status(args)) => status(context, args.name.as_deref(), args.json),
        Some(C::Show(args)) => show(context, args),
        Some(C::Probe(args)) => probe(context, args.name.as_deref(), args.json),
        Some(C::Add(args)) => add(context, args),
        Some(C::Set(args)) => set(context, args),
        Some(C::Unset(args)) => unset(context, args),
    }
}

/// The servers as the gateway would read them.
fn settings(context: &Context, name: Option<&str>) -> Result<Vec<ServerSettings>, Failure> {
    let document = local_config(context, "openclaw mcp status")?;
    let mut servers = mcp::read(&context.secrets(&document));
    if let Some(name) = name {
        servers.retain(|server| server.name == name);
        if servers.is_empty() {
            return Err(missing(name));
        }
    }
    Ok(servers)
}

fn missing(name: &str) -> Failure {
    Failure::new(format!("There is no MCP server \"{}\" in the config.", inert(name)))
        .remedy("see which there are", "openclaw mcp list")
}

/// The part of the config about the servers, secrets masked.
fn masked(context: &Context) -> Result<Value, Failure> {
    let document = local_config(context, "openclaw mcp list")?;
    Ok(openclaw_config::redact::document(&document)["mcp"]["servers"].clone())
}

/// How it is reached, without what may be secret.
fn place(server: &Value) -> String {
    match (server["command"].as_str(), server["url"].as_str()) {
        (_, Some(url)) => url.split(['?', '#']).next().unwrap_or_default().to_owned(),
        (Some(command), None) => {
            let args = server["args"].as_array().into_iter().flatten().filter_map(Value::as_str);
            std::iter::once(command).chain(args).collect::<Vec<_>>().join(" ")
        }
        (None, None) => "–".to_owned(),
    }
}

fn kind(server: &Value) -> &'static str {
    if server["url"].is_string() { "streamable-http" } else { "stdio" }
}

fn status(context: &Context, name: Option<&str>, json_wanted: bool) -> Outcome {
    let servers = settings(context, name)?;
    let masked = masked(context)?;
    if json_wanted {
        let row = |server: &ServerSettings| {
            let written = &masked[&server.name];
            let problem = server.transport.as_ref().err().filter(|_| server.enabled);
            json!({"name": server.name, "enabled": server.enabled, "configured": true, "transport": kind(written),
                "launch": place(written), "ok": problem.is_none(), "error": problem})
        };
        output::json(
            &json!({"path": context.paths.config_file, "servers": servers.iter().map(row).collect::<Vec<_>>()}),
        );
        return Ok(0);
    }
    let style = context.output.out;
    if servers.is_empty() {
        output::line("No MCP servers are configured.");
        let example = "openclaw mcp add files --command npx --arg -y --arg @modelcontextprotocol/server-filesystem --arg ~/shared";
        output::line(format!("Add one: {}", style.paint(Tone::Command, example)));
        return Ok(0);
    }
    let rows: Vec<Vec<Cell>> = servers
        .iter()
        .map(|server| {
            vec![
                Cell::toned(Tone::Command, inert(&server.name).into_owned()),
                match (&server.transport, server.enabled) {
                    (_, false) => Cell::toned(Tone::Dim, "off"),
                    (Err(_), true) => Cell::toned(Tone::Bad, "not usable"),
                    (Ok(_), true) => Cell::toned(Tone::Good, "on"),
                },
                Cell::from(kind(&masked[&server.name])),
                Cell::toned(Tone::Dim, inert(&place(&masked[&server.name])).into_owned()),
            ]
        })
        .collect();
    output::print(&table::columns(style, &["server", "state", "by", "what"], &rows));
    for server in servers.iter().filter(|server| server.enabled) {
        if let Err(why) = &server.transport {
            output::line(format!("{} {}: {}", style.warn(), inert(&server.name), inert_line(why)));
        }
    }
    output::line(format!("Start them and list their tools: {}", style.paint(Tone::Command, "openclaw mcp probe")));
    Ok(0)
}

fn show(context: &Context, args: &One) -> Outcome {
    let masked = masked(context)?;
    let server = &masked[&args.name];
    if server.is_null() {
        return Err(missing(&args.name));
    }
    output::json(server);
    Ok(0)
}

/// Starts the servers and asks for their tools, as a run would.
fn tools_of(context: &Context, mut servers: Vec<ServerSettings>) -> Result<Vec<mcp::Status>, Failure> {
    servers.retain(|server| server.enabled && server.transport.is_ok());
    block_on(async {
        let _progress = context.output.progress("Starting …".to_owned());
        let all = Servers::new(None);
        all.reload(servers);
        let _ = all.tools().await;
        let found = all.status();
        // They end with the answer; nothing of them stays.
        all.stop().await;
        Ok(found)
    })
}

fn probe(context: &Context, name: Option<&str>, json_wanted: bool) -> Outcome {
    let servers = settings(context, name)?;
    let broken: Vec<(String, String)> = servers
        .iter()
        .filter(|server| server.enabled)
        .filter_map(|server| Some((server.name.clone(), server.transport.as_ref().err()?.clone())))
        .collect();
    let found = tools_of(context, servers)?;
    let failed = !broken.is_empty() || found.iter().any(|status| status.state != State::Ready);
    if json_wanted {
        let row = |status: &mcp::Status| {
            json!({"name": status.name, "transport": status.transport, "ok": status.state == State::Ready,
                "tools": status.tools, "error": reason(&status.state)})
        };
        let broken = broken.iter().map(|(name, why)| json!({"name": name, "ok": false, "error": why}));
        let rows: Vec<Value> = found.iter().map(row).chain(broken).collect();
        output::json(&json!({"ok": !failed, "servers": rows}));
        return Ok(u8::from(failed));
    }
    let style = context.output.out;
    if found.is_empty() && broken.is_empty() {
        output::line("No MCP server is switched on.");
        return Ok(0);
    }
    for status in &found {
        match reason(&status.state) {
            None => {
                output::line(format!("{} {}: {} tool(s)", style.ok(), inert(&status.name), status.tools.len()));
                for tool in &status.tools {
                    output::line(format!("    {}", inert(tool)));
                }
            }
            Some(why) => output::line(format!("{} {}: {}", style.bad(), inert(&status.name), inert_line(&why))),
        }
    }
    for (name, why) in &broken {
        output::line(format!("{} {}: {}", style.bad(), inert(name), inert_line(why)));
    }
    Ok(u8::from(failed))
}

fn reason(state: &State) -> Option<String> {
    Some(match state {
        State::Ready => return None,
        State::Disabled => "switched off".to_owned(),
        State::Idle => "not started".to_owned(),
        State::Connecting => "did not answer in time".to_owned(),
        State::Failed { error, retry_in } => format!("{error} (a gateway tries again in {})", time::span(*retry_in)),
    })
}

fn check_name(name: &str) -> Result<ConfigPath, Failure> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 64 || !name.chars().all(fits) || name == "__proto__" {
        return Err(Failure::new(format!("\"{}\" cannot be the name of a server.", inert(name)))
            .detail("Up to 64 letters, digits, \"-\", \"_\" and \".\"."));
    }
    Ok(["mcp", "servers", name].into_iter().map(str::to_owned).collect())
}

fn pairs(given: &[String], option: &str) -> Result<Option<Value>, Failure> {
    let mut map = Map::new();
    for pair in given {
        match pair.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() => {
                map.insert(name.trim().to_owned(), json!(value));
            }
            // Not repeated: it may hold a secret.
            _ => return Err(Failure::new(format!("{option} is written NAME=VALUE."))),
        }
    }
    Ok((!map.is_empty()).then_some(Value::Object(map)))
}

fn add(context: &Context, args: &Add) -> Outcome {
    let path = check_name(&args.name)?;
    let document = local_config(context, "openclaw mcp add <name> …")?;
    if document.at(&path).is_some() {
        return Err(Failure::new(format!("There is a server \"{}\" already; nothing was changed.", inert(&args.name)))
            .remedy("look at it", format!("openclaw mcp show {}", inert(&args.name)))
            .remedy("or take it away first", format!("openclaw mcp unset {}", inert(&args.name))));
    }
    let mut server = json!({});
    if let Some(command) = &args.command {
        server["command"] = json!(command);
        if !args.arg.is_empty() {
            server["args"] = json!(args.arg);
        }
        if let Some(env) = pairs(&args.env, "--env")? {
            server["env"] = env;
        }
        if let Some(cwd) = &args.cwd {
            server["cwd"] = json!(cwd);
        }
    }
    if let Some(url) = &args.url {
        server["url"] = json!(url);
        server["transport"] = json!("streamable-http");
        if let Some(headers) = pairs(&args.header, "--header")? {
            server["headers"] = headers;
        }
    }
    for (key, names) in [("include", &args.include), ("exclude", &args.exclude)] {
        if !names.is_empty() {
            server["toolFilter"][key] = json!(names);
        }
    }
    save(context, &args.name, path, server, !args.no_probe, args.json)
}

fn set(context: &Context, args: &Set) -> Outcome {
    let path = check_name(&args.name)?;
    local_config(context, "openclaw mcp set <name> <json>")?;
    let Ok(Value::Object(mut server)) = serde_json::from_str::<Value>(&args.value) else {
        return Err(Failure::new("The server has to be a JSON object; nothing was changed.")
            .remedy("for example", "openclaw mcp set files '{\"command\":\"uvx\",\"args\":[\"some-server\"]}'"));
    };
    // As other programs write it.
    if server.get("type").and_then(Value::as_str) == Some("http") {
        server.remove("type");
        server.insert("transport".to_owned(), json!("streamable-http"));
    }
    save(context, &args.name, path, Value::Object(server), false, args.json)
}

fn save(context: &Context, name: &str, path: ConfigPath, server: Value, try_it: bool, json_wanted: bool) -> Outcome {
    let written = write(context, &[Edit::Set { path, value: server, mode: SetMode::Replace }])?;
    let servers = settings(context, Some(name))?;
    let broken = servers.first().and_then(|server| server.transport.as_ref().err().cloned());
    let found = match (&broken, try_it) {
        (None, true) => tools_of(context, servers)?.into_iter().next(),
        _ => None,
    };
    let problem = broken.or_else(|| found.as_ref().and_then(|status| reason(&status.state)));
    if json_wanted {
        output::json(&json!({"ok": true, "name": name, "noop": written.noop, "problem": problem,
            "tools": found.map(|status| status.tools), "configPath": context.paths.config_file}));
        return Ok(0);
    }
    let style = context.output.out;
    output::line(format!("{} {} is in the config; runs have its tools from now on.", style.ok(), inert(name)));
    match (&problem, &found) {
        (Some(why), _) => output::line(format!("{} It does not work yet: {}", style.warn(), inert_line(why))),
        (None, Some(status)) => {
            let names = status.tools.join(", ");
            output::line(format!("  It has {} tool(s): {}", status.tools.len(), inert_line(&names)));
        }
        (None, None) => output::line(format!("  Try it: {}", style.paint(Tone::Command, "openclaw mcp probe"))),
    }
    Ok(0)
}

fn unset(context: &Context, args: &One) -> Outcome {
    let path = check_name(&args.name)?;
    let document = local_config(context, "openclaw mcp unset <name>")?;
    if document.at(&path).is_none() {
        return Err(missing(&args.name));
    }
    write(context, &[Edit::Unset { path }])?;
    if args.json {
        output::json(&json!({"ok": true, "name": args.name, "configPath": context.paths.config_file}));
    } else {
        let ok = context.output.out.ok();
        output::line(format!("{ok} {} is out of the config. Undo: openclaw config undo", inert(&args.name)));
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn names_and_pairs() {
        for (name, ok) in [("files", true), ("a.b-c_1", true), ("", false), ("a b", false), ("__proto__", false)] {
            assert_eq!(check_name(name).is_ok(), ok, "{name}");
        }
        let pairs = |text: &str| pairs(&[text.to_owned()], "--env");
        assert_eq!(pairs("A=b=c").ok().flatten(), Some(json!({"A": "b=c"})));
        let refused = pairs("secret").err().map(|failure| failure.message().to_owned());
        assert_eq!(refused.as_deref(), Some("--env is written NAME=VALUE."));
    }

    #[test]
    fn states_are_told_in_words() {
        assert_eq!(reason(&State::Ready), None);
        let failed = State::Failed { error: "it ended".to_owned(), retry_in: Duration::from_secs(2) };
        assert!(reason(&failed).is_some_and(|why| why.starts_with("it ended")));
    }
}
