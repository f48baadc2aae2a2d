//! `openclaw nodes …`: the machines that are lent to a gateway.

mod args;
mod media;
mod pick;
mod run;
mod show;

use std::time::Duration;

use openclaw_protocol::method::node::{NodePairings, Nodes as NodeTable};
use openclaw_remote::{
    Events, Link,
    connect::{DeviceUse, Persona},
};
use serde_json::{Value, json};

pub use args::{Nodes, NodesCommand};

use self::args::{Invoke, Listing, Notify, OneNode, Rename, Request};
use crate::{
    args::{PortTargetArgs, TargetArgs},
    context::Context,
    failure::{Failure, Outcome},
    output::{self, inert, time},
    reach::{Reach, block_on, object},
};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for the way to the node and back, beside what the node itself has.
const TRANSPORT: Duration = Duration::from_secs(10);
const READ: &str = "operator.read";
const WRITE: &str = "operator.write";
const PAIRING: &str = "operator.pairing";
const ADMIN: &str = "operator.admin";
/// Commands that only administrators may invoke.
const ADMIN_COMMANDS: &[&str] = &["browser.proxy", "browser.proxy.upload.v1", "fs.listDir", "terminal.upload"];

pub fn run(context: &Context, args: &Nodes) -> Outcome {
    use NodesCommand as C;
    match &args.command {
        C::Status(args) => status(context, args),
        C::List(args) => list(context, args),
        C::Pending(at) => pending(context, at),
        C::Approve(args) => approve(context, args),
        C::Reject(args) => reject(context, args),
        C::Remove(args) => remove(context, args),
        C::Rename(args) => rename(context, args),
        C::Describe(args) => describe(context, args),
        C::Invoke(args) => invoke(context, args),
        C::Run(args) => run::run(context, args),
        C::Notify(args) => notify(context, args),
        C::Camera(args) => media::camera(context, args),
        C::Screen(args) => media::screen(context, args),
        C::Location(args) => media::location(context, args),
        C::Canvas(args) => media::canvas(context, args),
    }
}

/// An open call to the gateway.
struct Desk<'a> {
    reach: Reach<'a>,
    link: Link,
}

impl<'a> Desk<'a> {
    /// With the events of the connection.
    async fn open_events(reach: Reach<'a>, scopes: &[&str]) -> Result<(Self, Events), Failure> {
        match reach.open_events(Persona::Cli, scopes, DeviceUse::WhenNeeded, &|_| {}).await {
            Ok((link, events)) => Ok((Self { reach, link }, events)),
            Err(error) => Err(reach.failure(&error)),
        }
    }

    async fn open(reach: Reach<'a>, scopes: &[&str]) -> Result<Self, Failure> {
        match reach.open(Persona::Cli, scopes, DeviceUse::WhenNeeded).await {
            Ok(link) => Ok(Self { reach, link }),
            Err(error) => Err(reach.failure(&error)),
        }
    }

    async fn call(&self, method: &str, params: Value) -> Result<Value, Failure> {
        self.call_within(method, params, self.reach.timeout()).await
    }

    async fn call_within(&self, method: &str, params: Value, limit: Duration) -> Result<Value, Failure> {
        let answer = self.link.call(method, Some(params), limit).await;
        answer.map_err(|error| self.reach.failure(&error))
    }

    async fn nodes(&self) -> Result<(Value, NodeTable), Failure> {
        let raw = self.call("node.list", json!({})).await?;
        let table = read(&raw, "node list")?;
        Ok((raw, table))
    }

    async fn pairings(&self) -> Result<(Value, NodePairings), Failure> {
        let raw = self.call("node.pair.list", json!({})).await?;
        let pairings = read(&raw, "list of node requests")?;
        Ok((raw, pairings))
    }

    /// The id of the node that is meant.
    async fn node(&self, typed: &str) -> Result<pick::Picked, Failure> {
        pick::node(&self.nodes().await?.1.nodes, typed)
    }

    async fn close(self) {
        self.link.close().await;
    }
}

fn read<T: serde::de::DeserializeOwned>(raw: &Value, what: &str) -> Result<T, Failure> {
    serde_json::from_value(raw.clone())
        .map_err(|error| Failure::new(format!("The gateway's {what} is unreadable: {error}.")))
}

fn reach<'a>(context: &'a Context, at: &TargetArgs) -> Result<Reach<'a>, Failure> {
    context.reach(&PortTargetArgs { target: at.clone(), port: None }, DEFAULT_TIMEOUT)
}

fn status(context: &Context, args: &Listing) -> Outcome {
    let reach = reach(context, &args.at)?;
    let (mut raw, table) = block_on(async {
        let desk = Desk::open(reach, &[READ, PAIRING]).await?;
        let found = desk.nodes().await?;
        desk.close().await;
        Ok(found)
    })?;
    let now = time::now_ms();
    let kept: Vec<bool> = table.nodes.iter().map(|node| show::is_wanted(node, args, now)).collect();
    if args.at.json {
        if let Some(nodes) = raw.get_mut("nodes").and_then(Value::as_array_mut) {
            let mut kept = kept.into_iter();
            nodes.retain(|_| kept.next().unwrap_or(true));
        }
        output::json(&raw);
        return Ok(0);
    }
    let nodes: Vec<_> = table.nodes.iter().zip(kept).filter(|(_, kept)| *kept).map(|(node, _)| node).collect();
    output::print(&show::status(context.output.out, &nodes, now));
    Ok(0)
}

fn list(context: &Context, args: &Listing) -> Outcome {
    let reach = reach(context, &args.at)?;
    let (raw, pairings, table) = block_on(async {
        let desk = Desk::open(reach, &[READ, PAIRING]).await?;
        let (raw, pairings) = desk.pairings().await?;
        let (_, table) = desk.nodes().await?;
        desk.close().await;
        Ok((raw, pairings, table))
    })?;
    let now = time::now_ms();
    let wanted = |id: &str| {
        let node = table.nodes.iter().find(|node| node.node_id == id);
        node.map_or(!args.connected && args.last_connected.is_none(), |node| show::is_wanted(node, args, now))
    };
    if args.at.json {
        let paired: Vec<Value> = raw["paired"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|entry| wanted(entry["nodeId"].as_str().unwrap_or_default()))
            .cloned()
            .collect();
        output::json(&json!({"pending": raw["pending"], "paired": paired}));
        return Ok(0);
    }
    let paired: Vec<_> = pairings.paired.iter().filter(|node| wanted(&node.node_id)).collect();
    output::print(&show::list(context.output.out, &pairings.pending, &paired, &table.nodes, now));
    Ok(0)
}

fn pending(context: &Context, at: &TargetArgs) -> Outcome {
    let reach = reach(context, at)?;
    let (raw, pairings) = block_on(async {
        let desk = Desk::open(reach, &[PAIRING]).await?;
        let found = desk.pairings().await?;
        desk.close().await;
        Ok(found)
    })?;
    if at.json {
        output::json(&raw["pending"]);
        return Ok(0);
    }
    output::print(&show::pending(context.output.out, &pairings.pending, time::now_ms()));
    Ok(0)
}

fn approve(context: &Context, args: &Request) -> Outcome {
    let reach = reach(context, &args.at)?;
    let (result, request) = block_on(async {
        let mut desk = Desk::open(reach, &[PAIRING]).await?;
        let request = pick::request(&desk.pairings().await?.1.pending, &args.request)?.clone();
        // Exactly what the request needs, as the gateway says.
        let mut scopes = vec![PAIRING];
        scopes.extend(request.required_approve_scopes.iter().map(String::as_str).filter(|scope| *scope != PAIRING));
        if scopes.len() > 1 {
            let Desk { reach, link } = desk;
            link.close().await;
            desk = Desk::open(reach, &scopes).await?;
        }
        let result = desk.call("node.pair.approve", json!({"requestId": request.request_id})).await?;
        desk.close().await;
        Ok::<_, Failure>((result, request))
    })?;
    if args.at.json {
        output::json(&result);
        return Ok(0);
    }
    let style = context.output.out;
    output::line(format!(
        "{} Approved {}: {}.{}",
        style.ok(),
        show::name(request.display_name.as_deref(), &request.node_id),
        show::commands(&request.commands),
        show::undo(style, &format!("openclaw nodes remove --node {}", show::short(&request.node_id)))
    ));
    Ok(0)
}

fn reject(context: &Context, args: &Request) -> Outcome {
    let reach = reach(context, &args.at)?;
    let (result, name) = block_on(async {
        let desk = Desk::open(reach, &[PAIRING]).await?;
        let request = pick::request(&desk.pairings().await?.1.pending, &args.request)?.clone();
        let result = desk.call("node.pair.reject", json!({"requestId": request.request_id})).await?;
        desk.close().await;
        Ok::<_, Failure>((result, show::name(request.display_name.as_deref(), &request.node_id)))
    })?;
    say(context, args.at.json, &result, &format!("Rejected {name}."))
}

fn remove(context: &Context, args: &OneNode) -> Outcome {
    let reach = reach(context, &args.at)?;
    let (result, picked) = block_on(async {
        let desk = Desk::open(reach, &[READ, PAIRING]).await?;
        let picked = desk.node(&args.node).await?;
        let result = desk.call("node.pair.remove", json!({"nodeId": picked.id})).await?;
        desk.close().await;
        Ok::<_, Failure>((result, picked))
    })?;
    say(context, args.at.json, &result, &format!("Removed {}. It has to be paired again to come back.", picked.name))
}

fn rename(context: &Context, args: &Rename) -> Outcome {
    let name = args.name.trim();
    if name.is_empty() {
        return Err(Failure::new("--name must not be empty").remedy("see the nodes", "openclaw nodes list"));
    }
    let reach = reach(context, &args.node.at)?;
    let (result, picked) = block_on(async {
        let desk = Desk::open(reach, &[READ, PAIRING]).await?;
        let picked = desk.node(&args.node.node).await?;
        let result = desk.call("node.rename", json!({"nodeId": picked.id, "displayName": name})).await?;
        desk.close().await;
        Ok::<_, Failure>((result, picked))
    })?;
    say(context, args.node.at.json, &result, &format!("{} is now called {}.", picked.name, inert(name)))
}

fn describe(context: &Context, args: &OneNode) -> Outcome {
    let reach = reach(context, &args.at)?;
    let raw = block_on(async {
        let desk = Desk::open(reach, &[READ, PAIRING]).await?;
        let picked = desk.node(&args.node).await?;
        let raw = desk.call("node.describe", json!({"nodeId": picked.id})).await?;
        desk.close().await;
        Ok(raw)
    })?;
    if args.at.json {
        output::json(&raw);
        return Ok(0);
    }
    output::print(&show::describe(context.output.out, &read(&raw, "description of the node")?, time::now_ms()));
    Ok(0)
}

fn invoke(context: &Context, args: &Invoke) -> Outcome {
    let command = args.command.trim();
    if matches!(command, "system.run" | "system.run.prepare") {
        return Err(Failure::new(format!("command \"{command}\" is reserved for shell execution")).remedy(
            "run a program on a node",
            format!("openclaw nodes run --node {} -- <command>", inert(&args.node.node)),
        ));
    }
    let params = object(&args.params)?;
    let key = match args.idempotency_key.as_deref() {
        Some("") => return Err(Failure::new("--idempotency-key must not be empty")),
        Some(key) => key.to_owned(),
        None => fresh_key()?,
    };
    let scopes: &[&str] = if ADMIN_COMMANDS.contains(&command) { &[READ, WRITE, ADMIN] } else { &[READ, WRITE] };
    let reach = reach(context, &args.node.at)?;
    let _progress = context.output.progress(format!("Asking {} …", inert(&args.node.node)));
    let answer = block_on(async {
        let desk = Desk::open(reach, scopes).await?;
        let picked = desk.node(&args.node.node).await?;
        let answer = ask(&desk, &picked.id, command, params, args.invoke_timeout, &key).await?;
        desk.close().await;
        Ok(answer)
    })?;
    drop(_progress);
    output::json(&answer);
    Ok(0)
}

fn notify(context: &Context, args: &Notify) -> Outcome {
    let mut params = json!({"delivery": args.delivery});
    let fields = [("title", &args.title), ("body", &args.body), ("sound", &args.sound), ("priority", &args.priority)];
    for (key, value) in fields {
        if let Some(value) = value {
            params[key] = json!(value);
        }
    }
    let reach = reach(context, &args.node.at)?;
    let key = fresh_key()?;
    let (answer, picked) = block_on(async {
        let desk = Desk::open(reach, &[READ, WRITE]).await?;
        let picked = desk.node(&args.node.node).await?;
        let answer = ask(&desk, &picked.id, "system.notify", params, args.invoke_timeout, &key).await?;
        desk.close().await;
        Ok::<_, Failure>((answer, picked))
    })?;
    say(context, args.node.at.json, &answer, &format!("Shown on {}.", picked.name))
}

/// `node.invoke`, with time for the way.
async fn ask(
    desk: &Desk<'_>,
    node: &str,
    command: &str,
    params: Value,
    timeout_ms: u64,
    key: &str,
) -> Result<Value, Failure> {
    let limit = desk.reach.timeout().max(Duration::from_millis(timeout_ms).saturating_add(TRANSPORT));
    let params =
        json!({"nodeId": node, "command": command, "params": params, "timeoutMs": timeout_ms, "idempotencyKey": key});
    let answer = desk.link.call("node.invoke", Some(params), limit).await;
    answer.map_err(|error| {
        let failure = desk.reach.failure(&error);
        let details = error.shape().and_then(|shape| shape.details.as_ref());
        let said = |key: &str| details.and_then(|details| details.get(key)?.as_str());
        match (said("code"), said("reason")) {
            (Some("PAIRING_CHANGED"), _) | (_, Some("command not approved")) => {
                failure.there("see whether something of this node waits for approval", "openclaw nodes pending")
            }
            (_, Some("command not allowlisted")) => failure
                .detail("The gateway's owner allows it by adding it to gateway.nodes.commands.allow.")
                .there("see the lists", "openclaw config get gateway.nodes"),
            (_, Some("command not declared by node" | "node did not declare commands")) => {
                failure.remedy("see what it offers", format!("openclaw nodes describe --node {}", show::short(node)))
            }
            _ => failure,
        }
    })
}

/// A key nobody used before.
fn fresh_key() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Failure::new(format!("no randomness from the system: {error}")))?;
    Ok(openclaw_protocol::secret::hex(&bytes))
}

fn say(context: &Context, as_json: bool, result: &Value, text: &str) -> Outcome {
    if as_json {
        output::json(result);
    } else {
        output::line(format!("{} {text}", context.output.out.ok()));
    }
    Ok(0)
}
