//! `openclaw connect`: from a machine that knows nothing to a gateway that works, or back to knowing nothing.
//!
//! ```text
//! goal (code)          ssh target ─> by_ssh ┐
//!   none: choose       setup code ─> by_code┴─ steps: do each, and undo all when one fails
//! ```

mod args;
mod by_code;
mod by_ssh;
mod choose;
mod code;
mod ending;
mod far;
mod join;
mod kept;
mod names;
mod pair;
mod refusal;
mod report;
mod step;
mod steps;

use std::{io::IsTerminal as _, sync::Arc, time::Duration};

use openclaw_config::{GatewayConfig, connections::Book};
use openclaw_protocol::{Role, Scope, Secret, SetupCode};
use openclaw_remote::ssh::{SshSpec, SshTarget};
use serde_json::json;
use tokio::sync::{Mutex, mpsc};

use self::{
    by_code::ByCode,
    by_ssh::BySsh,
    code::Goal,
    report::{Lines, Told, Waiting},
    step::{Step, Trace},
    steps::{Broken, Why, Work},
};
use crate::{
    command::node::{self, Node, NodeCommand, NodeOptions, NodeRun},
    context::Context,
    failure::{Failure, Outcome},
    output::{self, Tone, inert},
    reach::block_on,
};

pub use args::{As, Connect};

/// Largest token file.
const MAX_TOKEN_BYTES: u64 = 4096;

/// `openclaw connect`.
pub fn run(context: &Context, args: &Connect) -> Outcome {
    let goal = match (&args.target, &args.target_file) {
        (Some(text), _) => Goal::parse(text).map_err(|error| bad_goal(&error))?,
        (None, Some(file)) => Goal::take_file(file).map_err(|reason| Failure::new(format!("{}.", inert(&reason))))?,
        (None, None) => match choose::choose(context, args.json, args.yes)? {
            Some(target) => Goal::Ssh(target),
            None => return Ok(0),
        },
    };
    let scopes = scopes(&args.scopes)?;
    match goal {
        Goal::Ssh(_) if args.role == Some(As::Node) => Err(Failure::new("A node is let in by a code, not by a login.")
            .error_code("needs_code")
            .there("get one", "openclaw devices invite --role node")),
        Goal::Ssh(target) => by_ssh(context, args, target, scopes),
        Goal::JoinUrl(_) if args.role == Some(As::Operator) => Err(Failure::new("A join URL is for nodes only.")
            .detail("It can be fetched once: it was not touched.")
            .error_code("join_url")
            .there("to command this gateway, get a code", "openclaw devices invite")),
        Goal::JoinUrl(url) => node::run(context, &as_node(&block_on(join::fetch(&url))?, args)),
        Goal::Code(code) => match args.role.or(code.role.map(role_of)) {
            Some(As::Operator) => by_code(context, args, code, scopes),
            _ => node::run(context, &as_node(&code, args)),
        },
    }
}

/// What `openclaw node run` would be told: the reference's `connect` pairs a node and runs it.
fn as_node(code: &SetupCode, args: &Connect) -> Node {
    let options = NodeOptions { display_name: args.display_name.clone(), ..NodeOptions::default() };
    let pair = Some(code.encode().expose().to_owned());
    Node { command: NodeCommand::Run(NodeRun { pair, pair_if_needed: None, options }) }
}

const fn role_of(role: Role) -> As {
    match role {
        Role::Operator => As::Operator,
        Role::Node => As::Node,
    }
}

fn bad_goal(error: &code::BadGoal) -> Failure {
    let failure = Failure::new(format!("{}.", crate::failure::capitalised(&error.to_string())));
    failure.remedy("connect by ssh", "openclaw connect user@host")
}

/// Scopes as typed, with or without `operator.` in front; everything an owner's command line needs when none are given.
fn scopes(typed: &[String]) -> Result<Vec<String>, Failure> {
    if typed.is_empty() {
        let usual = [Scope::Admin, Scope::Read, Scope::Write, Scope::Approvals, Scope::Pairing, Scope::Questions];
        return Ok(usual.iter().map(|scope| scope.as_str().to_owned()).collect());
    }
    let mut scopes = Vec::new();
    for name in typed.iter().map(|name| name.trim()).filter(|name| !name.is_empty()) {
        let scope = Scope::parse(name).or_else(|| Scope::parse(&format!("operator.{name}")));
        let Some(scope) = scope else {
            return Err(Failure::new(format!("There is no scope \"{}\".", inert(name)))
                .detail("There are: admin, read, write, approvals, pairing, questions, talk, talk.secrets."));
        };
        if !scopes.iter().any(|known| known == scope.as_str()) {
            scopes.push(scope.as_str().to_owned());
        }
    }
    Ok(scopes)
}

fn by_ssh(context: &Context, args: &Connect, target: SshTarget, scopes: Vec<String>) -> Outcome {
    let book = names::book(context)?;
    let current = book.current.clone();
    let name = match &args.name {
        Some(name) => names::own_name(&book, name, args.yes)?,
        None => names::name_for_target(&book, &target)?,
    };
    let mut spec = SshSpec::new(target.clone());
    spec.identity = args.identity.as_ref().map(|file| context.paths.expand(&file.to_string_lossy()));
    if let Some(port) = args.remote_port {
        spec.gateway_port = port;
    }
    let wish = by_ssh::Wish {
        spec,
        port_given: args.remote_port.is_some(),
        name: name.clone(),
        scopes,
        token: args.token_file.as_deref().map(token).transpose()?,
        keep: !args.no_keep,
        make_current: nothing_else_is_meant(context, &book)?,
        timeout: args.timeout.map(Duration::from_millis),
        may_ask: !args.yes && !args.json && std::io::stdin().is_terminal() && std::io::stderr().is_terminal(),
    };
    let make_current = wish.make_current;
    let current = make_current || current.as_ref() == Some(&name);
    let waiting = Waiting::default();
    let started = std::time::Instant::now();
    let mut lines = Lines::new(context, waiting.clone(), format!("Connecting to {target}"));
    let mut work = BySsh::new(context, wish, waiting.clone());
    let outcome = drive(&mut work, &Step::BY_SSH, &mut lines);
    waiting.stop();
    let steps = lines.into_steps();
    outcome.map_err(|broken| ending::failure(broken, |device| work.removal(device)))?;
    let style = context.output.out;
    let device = work.pairing.keeping.device().map(|key| key.id()).ok();
    if args.json {
        output::json(&json!({
            "ok": true, "name": name, "gatewayId": work.pairing.gateway, "version": work.outcome.gateway_version,
            "deviceId": device, "scopes": work.pairing.scopes, "paths": work.outcome.paths, "current": current,
            "tunnel": work.outcome.kept, "asksEachTime": work.outcome.asks_each_time, "steps": steps,
            "undo": format!("openclaw connections rm {name}"),
        }));
        return Ok(0);
    }
    if work.outcome.asks_each_time {
        let style = context.output.err;
        let copy = format!("ssh-copy-id {}", target.destination());
        let copy = style.paint(Tone::Command, &copy);
        let add = style.paint(Tone::Command, "ssh-add");
        output::note(format!(
            "{} ssh has to ask you each time, which nothing in the background can answer.",
            style.warn()
        ));
        output::note(format!(
            "  Passphrase: let the agent hold your key: {add}. Password: give the host your key: {copy}"
        ));
    }
    ending::summary(style, &name, started.elapsed(), current);
    Ok(0)
}

fn by_code(context: &Context, args: &Connect, code: SetupCode, scopes: Vec<String>) -> Outcome {
    let book = names::book(context)?;
    let name = args.name.as_deref().map(|name| names::own_name(&book, name, args.yes)).transpose()?;
    let make_current = nothing_else_is_meant(context, &book)?;
    let scopes = match (args.scopes.is_empty(), &code.gateway_id) {
        (false, _) => scopes,
        // Our gateways give a device the rights of its code, whatever the first connection asks for.
        (true, Some(_)) => Vec::new(),
        // The official release gives what is asked for; this much is in every code of its.
        (true, None) => {
            ["read", "write", "approvals", "questions"].iter().map(|name| format!("operator.{name}")).collect()
        }
    };
    let wish = by_code::Wish {
        code,
        name,
        names: book,
        scopes,
        make_current,
        timeout: args.timeout.map(Duration::from_millis),
    };
    let waiting = Waiting::default();
    let started = std::time::Instant::now();
    let mut lines = Lines::new(context, waiting.clone(), "Connecting with a setup code");
    let mut work = ByCode::new(context, wish, waiting.clone());
    let outcome = drive(&mut work, &Step::BY_CODE, &mut lines);
    waiting.stop();
    let steps = lines.into_steps();
    outcome.map_err(|broken| ending::failure(broken, |device| format!("openclaw devices remove {device}")))?;
    let Some(name) = work.name.clone() else { return Err(Failure::new("The gateway has no name.")) };
    if args.json {
        let device = work.pairing.keeping.device().map(|key| key.id()).ok();
        output::json(&json!({
            "ok": true, "name": name, "gatewayId": work.pairing.gateway, "deviceId": device, "paths": work.paths,
            "current": make_current, "steps": steps, "undo": format!("openclaw connections rm {name}"),
        }));
        return Ok(0);
    }
    ending::summary(context.output.out, &name, started.elapsed(), make_current);
    Ok(0)
}

/// Runs the steps, hearing Ctrl-C and its kin.
fn drive<W>(work: &mut W, steps: &[Step], lines: &mut Lines<'_>) -> Result<(), Broken<Step, Trace, Failure>>
where
    W: Work<Step = Step, Trace = Trace, Told = Told, Failure = Failure>,
{
    let outcome = block_on(async {
        let signals = Arc::new(Mutex::new(signals()?));
        let next = || {
            let signals = Arc::clone(&signals);
            async move {
                match signals.lock().await.recv().await {
                    Some(signal) => signal,
                    // Nobody listens any more; then nobody interrupts.
                    None => std::future::pending().await,
                }
            }
        };
        Ok(steps::run(work, steps, lines, next).await)
    });
    outcome.unwrap_or_else(|failure| {
        let step = steps.first().copied().unwrap_or(Step::Ssh);
        Err(Broken { step, why: Why::Failed(failure), undone: Vec::new(), left: Vec::new() })
    })
}

/// The numbers of the signals that ask this program to stop, as they come.
fn signals() -> Result<mpsc::Receiver<i32>, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let (heard, signals) = mpsc::channel(4);
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let mut stream = signal(kind).map_err(|error| Failure::new(format!("Signals cannot be heard: {error}.")))?;
        let heard = heard.clone();
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                let _ = heard.try_send(kind.as_raw_value());
            }
        });
    }
    Ok(signals)
}

/// True when no config and no choice says which gateway is meant: then the first one that is connected is.
fn nothing_else_is_meant(context: &Context, book: &Book) -> Result<bool, Failure> {
    let loaded = context.config_for_diagnosis()?;
    if let Some(problem) = &loaded.problem {
        return Err(context.invalid(problem));
    }
    let gateway: &GatewayConfig = &loaded.gateway;
    let configured = loaded.document.get("gateway.mode").is_some() || gateway.remote.url.is_some();
    Ok(book.current.is_none() && !configured)
}

/// Reads a token from a file, or from stdin for `-`.
fn token(file: &std::path::Path) -> Result<Secret, Failure> {
    use std::io::Read as _;
    let failed = |error: std::io::Error| Failure::new(format!("--token-file: {error}."));
    let mut text = String::new();
    if file.as_os_str() == "-" {
        std::io::stdin().lock().take(MAX_TOKEN_BYTES).read_to_string(&mut text).map_err(failed)?;
    } else {
        std::fs::File::open(file).map_err(failed)?.take(MAX_TOKEN_BYTES).read_to_string(&mut text).map_err(failed)?;
    }
    Secret::from_input(&text).ok_or_else(|| Failure::new("--token-file: it holds no token."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_may_be_typed_short() {
        let check = |typed: &[&str], expected: &[&str]| {
            let typed: Vec<String> = typed.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(scopes(&typed).expect("scopes"), expected);
        };
        check(
            &["read", "operator.write", "read", " talk.secrets "],
            &["operator.read", "operator.write", "operator.talk.secrets"],
        );
        assert!(scopes(&[]).expect("usual").contains(&"operator.admin".to_owned()));
        assert!(scopes(&["root".to_owned()]).is_err_and(|failure| failure.message().contains("\"root\"")));
    }
}
