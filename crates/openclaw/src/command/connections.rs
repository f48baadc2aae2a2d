//! `openclaw connections …`: the gateways this machine knows by name.

use clap::{Args, Subcommand};
use openclaw_config::{
    Connections,
    connections::{Book, Connection, ConnectionName, ConnectionsError, LOCAL, SavedPath},
    device_tokens::{DeviceToken, DeviceTokens},
    identity,
};
use openclaw_protocol::Role;
use openclaw_remote::{
    connect::token_origin,
    path::GatewayPath,
    tunnel::{self, ControlError, TunnelDir, TunnelName},
};
use serde_json::{Value, json};

use crate::{
    args::JsonFlag,
    context::Context,
    failure::{Failure, Outcome},
    output::{
        self, Tone, inert,
        table::{Cell, Facts, columns},
        time::{ago, now_ms},
    },
    reach::{block_on, no_connection},
};

#[derive(Args, Debug)]
pub struct ConnectionsArgs {
    #[command(subcommand)]
    pub command: Option<ConnectionsCommand>,
    /// JSON on stdout
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum ConnectionsCommand {
    /// The saved gateways
    #[command(visible_alias = "list")]
    Ls(List),
    /// One saved gateway: identity, paths, device token
    Show(Named),
    /// Make one the target of every command that names no other
    Use(Use),
    /// Give one another name
    Rename(Rename),
    /// Forget one, with this device's token there
    #[command(visible_alias = "remove")]
    Rm(Named),
}

#[derive(Args, Debug)]
pub struct List {
    #[command(flatten)]
    pub flag: JsonFlag,
    /// Names only, one a line, for completion scripts
    #[arg(long, hide = true, conflicts_with = "json")]
    pub names: bool,
}

#[derive(Args, Debug)]
pub struct Named {
    /// Name of the connection
    pub name: String,
    #[command(flatten)]
    pub flag: JsonFlag,
}

#[derive(Args, Debug)]
pub struct Use {
    /// Name of the connection
    #[arg(required_unless_present = "none", conflicts_with = "none")]
    pub name: Option<String>,
    /// Go back to what the config says
    #[arg(long)]
    pub none: bool,
    #[command(flatten)]
    pub flag: JsonFlag,
}

#[derive(Args, Debug)]
pub struct Rename {
    /// Present name
    pub name: String,
    /// New name
    pub new: String,
    #[command(flatten)]
    pub flag: JsonFlag,
}

impl ConnectionsArgs {
    /// Whether a failure has to be told on stdout as JSON, too.
    pub const fn wants_json(&self) -> bool {
        use ConnectionsCommand as C;
        match &self.command {
            None => self.json,
            Some(C::Ls(List { flag, .. })) => flag.json || self.json,
            Some(C::Show(Named { flag, .. }) | C::Rm(Named { flag, .. })) => flag.json || self.json,
            Some(C::Use(Use { flag, .. })) => flag.json || self.json,
            Some(C::Rename(Rename { flag, .. })) => flag.json || self.json,
        }
    }
}

pub fn run(context: &Context, args: &ConnectionsArgs) -> Outcome {
    use ConnectionsCommand as C;
    let (store, as_json) = (Connections::new(&context.paths), args.wants_json());
    match &args.command {
        None => list(context, &store, as_json),
        Some(C::Ls(List { names: true, .. })) => names(&store),
        Some(C::Ls(_)) => list(context, &store, as_json),
        Some(C::Show(named)) => show(context, &store, &named.name, as_json),
        Some(C::Use(choice)) => make_current(context, &store, choice, as_json),
        Some(C::Rename(names)) => rename(context, &store, names, as_json),
        Some(C::Rm(named)) => remove(context, &store, &named.name, as_json),
    }
}

fn name(text: &str) -> Result<ConnectionName, Failure> {
    text.parse().map_err(|error| Failure::new(format!("{}.", crate::failure::capitalised(&format!("{error}")))))
}

fn failed(error: &ConnectionsError) -> Failure {
    no_connection(error)
}

/// Reads nothing else, so that a completion script stays quick.
fn names(store: &Connections) -> Outcome {
    let book = store.load().unwrap_or_default();
    book.connections.keys().for_each(|name| output::line(name.as_str()));
    output::line(LOCAL);
    Ok(0)
}

fn list(context: &Context, store: &Connections, as_json: bool) -> Outcome {
    let book = store.load().map_err(|error| failed(&error))?;
    if as_json {
        let each = book.connections.iter().map(|(name, saved)| to_json(&book, name, saved));
        output::json(&json!({"current": book.current, "connections": each.collect::<Vec<_>>()}));
        return Ok(0);
    }
    let style = context.output.out;
    if book.connections.is_empty() {
        output::line("No gateway is saved yet.");
        output::line(format!("Save one: {}", style.paint(Tone::Command, "openclaw connect user@host")));
        return Ok(0);
    }
    let now = now_ms();
    let rows = book.connections.iter().map(|(name, saved)| {
        let current = book.current.as_ref() == Some(name);
        let used = saved.last_used_at_ms.map(|then| {
            let by = saved.last_path.map(|kind| format!(" by {kind}")).unwrap_or_default();
            format!("{}{by}", ago(then, now))
        });
        vec![
            Cell::toned(if current { Tone::Good } else { Tone::Plain }, name.as_str()),
            if current { "current".into() } else { Cell::from("") },
            saved.gateway_id.as_ref().map_or_else(|| "not proven".to_owned(), |id| id.short().to_owned()).into(),
            used.unwrap_or_else(|| "never".to_owned()).into(),
            paths_words(saved).into(),
        ]
    });
    output::print(&columns(style, &["Name", "", "Gateway", "Used", "Paths"], &rows.collect::<Vec<_>>()));
    Ok(0)
}

fn paths_words(saved: &Connection) -> String {
    let each = saved.paths.iter().map(|path| format!("{} {}", path.kind(), inert(path.address())));
    let words = each.collect::<Vec<_>>().join(", ");
    if words.is_empty() { "none".to_owned() } else { words }
}

fn to_json(book: &Book, name: &ConnectionName, saved: &Connection) -> Value {
    let mut value = serde_json::to_value(saved).unwrap_or_default();
    value["name"] = json!(name);
    value["current"] = json!(book.current.as_ref() == Some(name));
    value
}

fn show(context: &Context, store: &Connections, text: &str, as_json: bool) -> Outcome {
    let name = name(text)?;
    let book = store.load().map_err(|error| failed(&error))?;
    let saved = book.find(&name).map_err(|error| failed(&error))?;
    let tokens = tokens(context, saved);
    let running = tunnel_of(context, &name);
    if as_json {
        let mut value = to_json(&book, &name, saved);
        let each = tokens.iter().map(|(origin, token)| {
            json!({"origin": origin, "role": token.role, "scopes": token.scopes,
                "fingerprint": token.token.fingerprint(), "updatedAtMs": token.updated_at_ms})
        });
        value["deviceTokens"] = each.collect();
        value["tunnel"] = json!(running.as_ref().map(|status| status.state));
        output::json(&value);
        return Ok(0);
    }
    let (style, now) = (context.output.out, now_ms());
    let mut facts = Facts::new();
    let gateway = saved.gateway_id.as_ref().map_or_else(
        || "not proven: whoever answers at its paths is taken".to_owned(),
        |id| format!("{id}\nonly who proves this is sent anything"),
    );
    facts.row("Gateway", gateway);
    for (index, path) in saved.paths.iter().enumerate() {
        facts.row(if index == 0 { "Paths" } else { "" }, path_words(context, path));
    }
    facts.maybe("Tunnel", running.map(|status| status.state.as_str()));
    facts.maybe("This device", saved.device_id.as_ref().map(ToString::to_string));
    for (origin, token) in &tokens {
        let scopes = token.scopes.names().join(", ");
        let scopes = if scopes.is_empty() { "no scopes".to_owned() } else { scopes };
        facts.row(
            "Device token",
            format!("{} (sha256:{}), {scopes}\nfor {origin}", token.role.as_str(), token.token.fingerprint()),
        );
    }
    if tokens.is_empty() {
        facts.row(
            "Device token",
            Cell::toned(Tone::Warn, "none: the gateway will ask its owner to approve this device"),
        );
    }
    facts.row("Saved", ago(saved.created_at_ms, now));
    let used = saved.last_used_at_ms.map(|then| {
        let by = saved.last_path.map(|kind| format!(" by {kind}")).unwrap_or_default();
        format!("{}{by}", ago(then, now))
    });
    facts.row("Used", used.unwrap_or_else(|| "never".to_owned()));
    let mark = if book.current.as_ref() == Some(&name) { " (current)" } else { "" };
    output::print(&format!("{}{mark}\n{}", style.paint(Tone::Title, name.as_str()), facts.render(style)));
    Ok(0)
}

/// `ssh me@box, gateway port 18789`; with what is wrong about a path that cannot be used.
fn path_words(context: &Context, path: &SavedPath) -> Cell {
    let details = match path {
        SavedPath::Ssh(ssh) => {
            let identity = ssh.identity.as_ref().map(|file| format!(", key {}", inert(&file.display().to_string())));
            let policy = format!(", host keys {}", ssh.host_key_policy);
            format!(", gateway port {}{}{policy}", ssh.gateway_port, identity.unwrap_or_default())
        }
        SavedPath::Loopback(url) | SavedPath::Lan(url) | SavedPath::Tailnet(url) | SavedPath::Public(url) => {
            url.tls_fingerprint.as_ref().map(|pin| format!(", pinned {}", inert(pin))).unwrap_or_default()
        }
    };
    let kind = path.kind();
    match GatewayPath::from_saved(path, &context.paths, false) {
        Ok(_) => format!("{kind} {}{details}", inert(path.address())).into(),
        Err(error) => Cell::toned(Tone::Bad, format!("{kind}, unusable: {error}")),
    }
}

/// This device's tokens for a connection: of its gateway's identity, else of its paths.
fn tokens(context: &Context, saved: &Connection) -> Vec<(String, DeviceToken)> {
    let Ok(Some(key)) = identity::load(&context.paths) else { return Vec::new() };
    let held = DeviceTokens::new(&context.paths, key.id()).list().unwrap_or_default();
    let origins = origins(context, saved);
    held.into_iter().filter(|(origin, _)| origins.contains(origin)).collect()
}

/// What the tokens of a connection are kept under.
fn origins(context: &Context, saved: &Connection) -> Vec<String> {
    if let Some(gateway) = &saved.gateway_id {
        return vec![token_origin(gateway)];
    }
    let usable = saved.paths.iter().filter_map(|path| GatewayPath::from_saved(path, &context.paths, false).ok());
    usable
        .map(|path| match path {
            GatewayPath::Direct(path) => path.url.origin(),
            GatewayPath::Ssh(spec) => spec.origin(),
        })
        .collect()
}

fn make_current(context: &Context, store: &Connections, choice: &Use, as_json: bool) -> Outcome {
    // `use local` is understood: without a current connection the config decides, and `--on local` is for one command.
    let chosen = match choice.name.as_deref() {
        None => None,
        Some(LOCAL) => {
            return Err(Failure::new(
                "\"local\" is for one command (--on local); it cannot be the current connection.",
            )
            .remedy("go back to what the config says", "openclaw connections use --none"));
        }
        Some(text) => Some(name(text)?),
    };
    let before = store.load().map_err(|error| failed(&error))?.current;
    store.set_current(chosen.as_ref()).map_err(|error| failed(&error))?;
    if as_json {
        output::json(&json!({"current": chosen, "before": before}));
        return Ok(0);
    }
    let style = context.output.out;
    output::line(match &chosen {
        Some(name) => format!("{} Commands now go to {name} unless they name another gateway.", style.ok()),
        None => format!("{} Commands now go where the config says.", style.ok()),
    });
    let undo = match before {
        before if before == chosen => None,
        Some(before) => Some(format!("openclaw connections use {before}")),
        None => Some("openclaw connections use --none".to_owned()),
    };
    if let Some(undo) = undo {
        output::line(format!("Undo: {}", style.paint(Tone::Command, &undo)));
    }
    if chosen.is_some() && context.env.get("OPENCLAW_GATEWAY_URL").is_some() {
        output::note(format!(
            "{} OPENCLAW_GATEWAY_URL is set and comes first; --on comes before both.",
            context.output.err.warn()
        ));
    }
    Ok(0)
}

fn rename(context: &Context, store: &Connections, names: &Rename, as_json: bool) -> Outcome {
    let (from, to) = (name(&names.name)?, name(&names.new)?);
    // A supervisor keeps its name for life.
    if tunnel_of(context, &from).is_some() {
        return Err(Failure::new(format!("The tunnel of {from} is running under that name."))
            .remedy("stop it first", format!("openclaw tunnel down {from}")));
    }
    store.rename(&from, &to).map_err(|error| failed(&error))?;
    if as_json {
        output::json(&json!({"renamed": from, "to": to}));
        return Ok(0);
    }
    let style = context.output.out;
    output::line(format!("{} {from} is now called {to}.", style.ok()));
    let undo = format!("openclaw connections rename {to} {from}");
    output::line(format!("Undo: {}", style.paint(Tone::Command, &undo)));
    Ok(0)
}

fn remove(context: &Context, store: &Connections, text: &str, as_json: bool) -> Outcome {
    let name = name(text)?;
    let book = store.load().map_err(|error| failed(&error))?;
    let saved = book.find(&name).map_err(|error| failed(&error))?.clone();
    let stopped = stop_tunnel(context, &name)?;
    store.remove(&name).map_err(|error| failed(&error))?;
    // Another name for the same gateway still needs the token.
    let others = book.connections.iter().filter(|(other, _)| **other != name);
    let kept: Vec<String> = others.flat_map(|(_, other)| origins(context, other)).collect();
    let mut forgotten = Vec::new();
    if let Ok(Some(key)) = identity::load(&context.paths) {
        let tokens = DeviceTokens::new(&context.paths, key.id());
        for origin in origins(context, &saved).into_iter().filter(|origin| !kept.contains(origin)) {
            for role in Role::ALL {
                let removed = tokens.remove(&origin, role).map_err(|error| {
                    Failure::new(format!("The connection is forgotten, but its device token is not: {error}."))
                })?;
                if removed {
                    forgotten.push(json!({"origin": origin, "role": role}));
                }
            }
        }
    }
    let there = saved.device_id.as_ref().map(|device| format!("openclaw devices remove {device}"));
    if as_json {
        output::json(&json!({"removed": name, "tokensForgotten": forgotten, "tunnelStopped": stopped,
            "stillPairedAs": saved.device_id, "removeThere": there}));
        return Ok(0);
    }
    let style = context.output.out;
    let token = if forgotten.is_empty() { "" } else { ", and this device's token there" };
    output::line(format!("{} Forgot {name}{token}.", style.ok()));
    if stopped {
        output::line("Its tunnel was stopped.");
    }
    match there {
        Some(command) => output::line(format!(
            "The gateway still knows this device. Remove it on the gateway host: {}",
            style.paint(Tone::Command, &command)
        )),
        None => output::line("The gateway may still know this device (openclaw devices list, on the gateway host)."),
    }
    Ok(0)
}

fn tunnel_dir(context: &Context, name: &ConnectionName) -> Option<TunnelDir> {
    Some(TunnelDir::new(&context.paths.state_dir, &TunnelName::parse(name.as_str())?))
}

/// The running tunnel of that name.
fn tunnel_of(context: &Context, name: &ConnectionName) -> Option<tunnel::Status> {
    let dir = tunnel_dir(context, name)?;
    block_on(async { Ok(tunnel::control::ask_status(&dir).await.ok()) }).ok()?
}

/// True if one was running.
fn stop_tunnel(context: &Context, name: &ConnectionName) -> Result<bool, Failure> {
    let Some(dir) = tunnel_dir(context, name) else { return Ok(false) };
    block_on(async {
        match tunnel::control::ask_down(&dir).await {
            Ok(()) => Ok(true),
            Err(ControlError::NotRunning { .. }) => Ok(false),
            Err(error) => Err(Failure::new(format!("The tunnel of {name} could not be stopped: {error}."))
                .detail("Nothing was removed.")
                .remedy("stop it", format!("openclaw tunnel down {name}"))),
        }
    })
}
