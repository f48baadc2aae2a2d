//! Answers commands.

use std::{fmt::Write as _, sync::Arc};

use openclaw_agent::provider::Thinking;
use openclaw_protocol::{
    Scope,
    method::exec::{ApprovalResolver, Decision},
};
use serde_json::Value;

use super::{COMMANDS, Command, Need};
use crate::{
    approvals::{self, ledger::Viewer},
    clock::now_ms,
    gateway::Gateway,
    nodes::{
        Nodes,
        for_run::{NodeCall, find_for_run, list_for_run, usable_for_run},
    },
    runs::{
        Input, Origin, RunContext, RunId, RunOutcome, RunRequest, Runs,
        execute::COMMAND_ID,
        live::Live,
        record::{Delivery, RunChange},
    },
    sessions::{self, NewMessage, events::Changed},
    store::{Change, StoreError},
};

/// Characters of a node's answer in a reply.
const MAX_PAYLOAD: usize = 3_000;
/// Models in one list.
const MAX_MODELS: usize = 60;

/// Answers the command of a run. `None` when the gateway stops first.
pub async fn answer(gateway: &Arc<Gateway>, live: &Arc<Live>) -> Option<Arc<RunOutcome>> {
    let command = live.command.clone()?;
    let started_ms = now_ms();
    live.stream.started(gateway, "", started_ms);
    let reply = match text_for(gateway, live, &command).await {
        Ok(reply) => reply,
        Err(StoreError::Closed) => return None,
        Err(error) => format!("This could not be saved, and was not done: {error}"),
    };
    let outcome = RunOutcome { text: reply, started_ms: Some(started_ms), ..RunOutcome::empty(now_ms()) };
    let (outcome, next) = (Arc::new(outcome), after(&command, live));
    match keep(gateway, live, &outcome).await {
        Err(StoreError::Closed) => return None,
        // It is done; that it was said is known here only.
        Err(error) => tracing::error!(%error, run = live.id().0, "the answer to a command was not saved"),
        Ok(()) => {}
    }
    live.stream.ended(gateway, &outcome, None);
    if let Some(next) = next
        && let Err(error) = Runs::submit(gateway, next).await
    {
        tracing::warn!(run = live.id().0, "what followed the command was not taken: {}", error.message);
    }
    Some(outcome)
}

/// `/new words`: the words begin the new conversation.
fn after(command: &Command, live: &Live) -> Option<RunRequest> {
    let text = command.args.clone();
    let begins = command.spec.name == "new" && !text.is_empty() && command.spec.is_allowed(&live.request.authority);
    begins.then(|| RunRequest {
        run_id: RunId(format!("{}:next", live.id().0)),
        input: Input { text, media: live.request.input.media.clone() },
        ..live.request.clone()
    })
}

async fn text_for(gateway: &Arc<Gateway>, live: &Arc<Live>, command: &Command) -> Result<String, StoreError> {
    if !command.spec.is_allowed(&live.request.authority) {
        return Ok(refusal(command, live));
    }
    if command.spec.effects {
        if live.resumed.is_some() {
            return Ok(format!(
                "The gateway stopped while /{} ran. Whether it took effect is not known; it was not repeated.",
                command.spec.name
            ));
        }
        // From here on it is not repeated.
        let started = RunChange::Started { run_id: live.id().clone(), session_id: String::new(), at_ms: now_ms() };
        gateway.store.commit([started]).await?;
    }
    Ok(carry_out(gateway, live, command).await)
}

/// For somebody who may chat and not command.
fn refusal(command: &Command, live: &Live) -> String {
    let name = command.spec.name;
    let scope = match command.spec.needs {
        Need::Scope(scope) => scope.as_str(),
        Need::Nothing => "",
    };
    match &live.request.origin {
        Origin::Channel(inbound) => format!(
            "/{name} is for the owner of this gateway. If that is you, on the gateway host:\n\
             openclaw config set commands.ownerAllowFrom '[\"{}:{}\"]' --strict-json",
            inbound.from.channel, inbound.sender.id
        ),
        _ => format!("/{name} needs {scope}, as the method it stands for; this connection does not have it."),
    }
}

/// Keeps question and answer; models do not see them.
async fn keep(gateway: &Gateway, live: &Live, outcome: &RunOutcome) -> Result<(), StoreError> {
    let key = &live.request.session;
    let delivery = if live.request.deliver.is_some() { Delivery::pending() } else { Delivery::None };
    live.set_delivery(delivery.clone());
    let run_id = live.id();
    let ended = RunChange::Ended { run_id: run_id.clone(), outcome: Box::new(outcome.clone()), delivery };
    let mark = |message: NewMessage, part: &str| {
        message.id(&format!("{COMMAND_ID}{}-{part}", uuid::Uuid::new_v4())).run(&run_id.0)
    };
    let asked = NewMessage::user(&[openclaw_agent::message::Part::Text(live.request.input.text.clone())])
        .idempotency(&format!("{}:user", run_id.0))
        .mark("senderIsOwner", live.request.authority.owner);
    let mut draft = gateway.sessions.draft(key).await;
    // A command is no title for a conversation.
    let title = draft.record().title.clone();
    let mut fits = true;
    for message in [mark(asked, "asked"), mark(NewMessage::gateway_reply(&outcome.text), "said")] {
        fits &= draft.append(message).is_ok();
    }
    if !fits {
        tracing::warn!(run = run_id.0, "a command or its answer is too large for the transcript");
    }
    draft.record_mut().title = title;
    let committed = draft.commit(vec![Change::from(ended)]).await?;
    sessions::events::changed(gateway, key, Changed::Reason("send"));
    sessions::events::messages(gateway, key, &committed.appended);
    Ok(())
}

async fn carry_out(gateway: &Arc<Gateway>, live: &Arc<Live>, command: &Command) -> String {
    let args = command.args.as_str();
    match command.spec.name {
        "help" => help(live),
        "status" => status(gateway, live),
        "whoami" => whoami(live),
        "nodes" => nodes(gateway, live, args),
        "invoke" => invoke(gateway, live, args).await,
        "new" | "reset" => reset(gateway, live).await,
        "stop" => stop(gateway, live).await,
        "compact" => compact(gateway, live, args).await,
        "model" => model(gateway, live, args).await,
        "models" => models(gateway),
        "think" => think(gateway, live, args).await,
        "approve" => approve(gateway, live, args),
        "last" => last(gateway, live).await,
        name => format!("/{name} is not available here."),
    }
}

fn help(live: &Live) -> String {
    let mut text = "Commands:".to_owned();
    for spec in COMMANDS.iter().filter(|spec| spec.is_allowed(&live.request.authority)) {
        let args = spec.args.iter().fold(String::new(), |mut args, arg| {
            let (open, close) = if arg.required { ('<', '>') } else { ('[', ']') };
            let _ = write!(args, " {open}{}{close}", arg.name);
            args
        });
        let _ = write!(text, "\n/{}{args} – {}", spec.name, spec.description);
    }
    text
}

fn status(gateway: &Gateway, live: &Live) -> String {
    let key = &live.request.session;
    let figures = gateway.runs.figures(gateway);
    let minutes = gateway.uptime_ms() / 60_000;
    let mut text = format!("OpenClaw {}, up {} h {} min", gateway.version, minutes / 60, minutes % 60);
    let _ = write!(text, "\nRuns: {} under way, {} waiting", figures.running, figures.waiting);
    if figures.deliveries > 0 {
        let _ = write!(text, ", {} replies being sent", figures.deliveries);
    }
    let record = gateway.sessions.get(key);
    let own = record.as_ref().and_then(|record| record.settings.model.clone());
    let catalog = gateway.runs.models().catalog();
    let model = match &own {
        Some(own) => catalog.resolve(own),
        None => catalog.agent_model(key.agent()),
    };
    match &model {
        None => text.push_str("\nModel: none configured (/models says what to type)"),
        Some(model) => {
            let _ = write!(text, "\nModel: {model}");
            if let Err(why) = catalog.availability(model) {
                let _ = write!(text, " – cannot be used: {why}");
            }
        }
    }
    let _ = write!(text, "\nConversation: {key}");
    if let Some(record) = &record {
        let window = model.as_ref().map(|model| catalog.model(model).context_window);
        match (record.totals.context, window) {
            (Some(context), Some(window)) if window > 0 => {
                let percent = context.saturating_mul(100) / u64::from(window);
                let _ = write!(text, "\nContext: {context} of {window} tokens ({percent} %)");
            }
            (Some(context), _) => {
                let _ = write!(text, "\nContext: {context} tokens");
            }
            (None, _) => {}
        }
        if record.totals.cost > 0.0 {
            let _ = write!(text, "\nCost of this conversation: ${:.4}", record.totals.cost);
        }
        if record.compactions > 0 {
            let _ = write!(text, "\nCompactions: {}", record.compactions);
        }
    }
    let problems = gateway.runs.models().problems();
    for problem in gateway.runs.settings(gateway).problems.iter().chain(problems.iter()).take(5) {
        let _ = write!(text, "\n⚠ {problem}");
    }
    text
}

fn whoami(live: &Live) -> String {
    let authority = &live.request.authority;
    let who = match &live.request.origin {
        Origin::Channel(inbound) => {
            let mut who = format!("{}:{} ({})", inbound.from.channel, inbound.sender.id, inbound.sender.name);
            if let Some(name) = &inbound.sender.username {
                let _ = write!(who, ", @{name}");
            }
            who
        }
        Origin::Operator { device: Some(device), client, .. } => format!("device {} ({client})", device.short()),
        Origin::Operator { device: None, client, .. } => format!("a client without a device ({client})"),
        Origin::Node(node) => format!("node {}", node.short()),
        Origin::Http | Origin::Hook { .. } | Origin::Internal(_) => "a program".to_owned(),
    };
    let rights = match authority.scopes.names() {
        names if names.is_empty() => "may chat".to_owned(),
        names => names.join(", "),
    };
    let owner = if authority.owner { "the owner" } else { "not the owner" };
    format!("You are {who}: {owner}, {rights}.\nConversation: {}", live.request.session)
}

fn context(gateway: &Gateway, live: &Live) -> RunContext {
    let request = &live.request;
    let settings = gateway.runs.settings(gateway);
    RunContext {
        run_id: live.id().clone(),
        session: request.session.clone(),
        session_id: gateway.sessions.get(&request.session).map_or_else(String::new, |r| r.session_id.to_string()),
        agent: request.session.agent().to_owned(),
        authority: request.authority,
        origin: request.origin.clone(),
        deliver: request.deliver.clone(),
        workspace: settings.agent(request.session.agent()).map(|agent| agent.workspace.clone()).unwrap_or_default(),
    }
}

fn nodes(gateway: &Gateway, live: &Live, args: &str) -> String {
    let context = context(gateway, live);
    if !args.is_empty() {
        return match find_for_run(gateway, &context, args) {
            Err(error) => error.message,
            Ok(node) => {
                let state = if node.connected { "connected" } else { "not connected" };
                let name = node.display_name.as_deref().unwrap_or("unnamed");
                let mut text = format!("{name} ({}), {state}, {}", node.node_id, node.approval_state);
                if let Some(platform) = &node.platform {
                    let _ = write!(text, "\nPlatform: {platform}");
                }
                let commands = if node.commands.is_empty() { "none".into() } else { node.commands.join(", ") };
                let _ = write!(text, "\nCommands: {commands}");
                text
            }
        };
    }
    match list_for_run(gateway, &context) {
        Err(error) => error.message,
        Ok(nodes) if nodes.is_empty() => {
            "No node is paired. On the machine to lend: openclaw node run --pair <code>, with a code of `openclaw qr`."
                .into()
        }
        Ok(nodes) => {
            let line = |node: &openclaw_protocol::method::node::Node| {
                let name = node.display_name.as_deref().unwrap_or("unnamed");
                let state = if node.connected { "connected" } else { "not connected" };
                let id = node.node_id.get(..12).unwrap_or(&node.node_id);
                format!("{name} ({id}…): {state}, {} commands", node.commands.len())
            };
            nodes.iter().map(line).collect::<Vec<_>>().join("\n")
        }
    }
}

async fn invoke(gateway: &Arc<Gateway>, live: &Live, args: &str) -> String {
    let mut words = args.splitn(3, char::is_whitespace).map(str::trim);
    let (Some(meant), Some(command)) = (words.next().filter(|w| !w.is_empty()), words.next().filter(|w| !w.is_empty()))
    else {
        return "Usage: /invoke <node> <command> [JSON], for instance: /invoke kitchen system.notify {\"title\":\"Tea\"}".into();
    };
    let params = match words.next().filter(|text| !text.is_empty()).map(serde_json::from_str::<Value>) {
        None => serde_json::json!({}),
        Some(Ok(params @ Value::Object(_))) => params,
        Some(Ok(_)) => return "The parameters must be a JSON object, such as {\"title\":\"Tea\"}.".into(),
        Some(Err(error)) => {
            return format!("The parameters are no JSON ({error}). Write them as {{\"title\":\"Tea\"}}.");
        }
    };
    let context = context(gateway, live);
    let node = match usable_for_run(gateway, &context, meant) {
        Ok(node) => node,
        Err(error) => return error.message,
    };
    let call = NodeCall {
        node_id: &node.node_id,
        command,
        params,
        tool_call: &live.id().0,
        timeout: None,
        progress: None,
        cancel: live.cancel.clone(),
    };
    match Nodes::invoke_for_run(gateway, &context, call).await {
        Ok(Value::Null) => format!("{command} done."),
        Ok(payload) => {
            let text = serde_json::to_string_pretty(&payload).unwrap_or_default();
            let shown: String = text.chars().take(MAX_PAYLOAD).collect();
            let more = if shown.len() < text.len() { "\n… (cut)" } else { "" };
            format!("```json\n{shown}{more}\n```")
        }
        Err(error) => format!("{command} failed: {}", error.message),
    }
}

async fn reset(gateway: &Arc<Gateway>, live: &Live) -> String {
    let key = &live.request.session;
    crate::runs::abort(gateway, key, None, "reset", Some(live.id())).await;
    let mut draft = gateway.sessions.draft(key).await;
    if !draft.exists() {
        return "A new conversation. What can I do for you?".into();
    }
    draft.restart();
    match draft.commit(Vec::new()).await {
        Err(error) => format!("The conversation goes on as it was; a new one could not be saved: {error}"),
        Ok(_) => {
            sessions::events::changed(gateway, key, Changed::Reason("reset"));
            "A new conversation. What was said before is kept and no longer part of it.".into()
        }
    }
}

async fn stop(gateway: &Arc<Gateway>, live: &Live) -> String {
    let ended = crate::runs::abort(gateway, &live.request.session, None, "stop", Some(live.id())).await;
    match ended.len() {
        0 => "Nothing is under way here.".into(),
        1 => "Stopped.".into(),
        several => format!("Stopped, and {} more that waited.", several - 1),
    }
}

async fn compact(gateway: &Arc<Gateway>, live: &Live, args: &str) -> String {
    let instructions = (!args.is_empty()).then_some(args);
    match crate::runs::compact(gateway, &live.request.session, instructions).await {
        Ok(done) => format!(
            "Compacted: {} messages are a summary now, {} stay as they were said (about {} → {} tokens).",
            done.summarized, done.kept, done.tokens_before, done.tokens_after
        ),
        Err(error) => format!("Not compacted: {}.", error.message.trim_end_matches('.')),
    }
}

async fn model(gateway: &Arc<Gateway>, live: &Live, args: &str) -> String {
    let key = &live.request.session;
    let catalog = gateway.runs.models().catalog();
    let default = catalog.agent_model(key.agent());
    let own = gateway.sessions.get(key).and_then(|record| record.settings.model.clone());
    if args.is_empty() {
        return match (own, default) {
            (Some(own), default) => format!(
                "This conversation uses {own} (the agent's: {}). /model default goes back, /models lists all.",
                default.map_or_else(|| "none".into(), |model| model.to_string())
            ),
            (None, Some(default)) => {
                format!("This conversation uses {default}. /models lists all, /model <name> chooses.")
            }
            (None, None) => openclaw_agent::provider::catalog::NoModel::Unset.to_string(),
        };
    }
    let chosen = match args.eq_ignore_ascii_case("default") {
        true => None,
        false => match catalog.resolve(args) {
            None => return format!("No provider has a model called {args:?}. /models lists those there are."),
            Some(model) => {
                if let Err(error) = catalog.allowed(key.agent(), &model) {
                    return error.to_string();
                }
                if let Err(why) = catalog.availability(&model) {
                    return format!("{model} cannot be used: {why}");
                }
                Some(model.to_string())
            }
        },
    };
    let said = match (&chosen, default) {
        (Some(model), _) => format!("From the next message on: {model}."),
        (None, Some(default)) => format!("From the next message on: {default}, the agent's model."),
        (None, None) => "From the next message on: the agent's model, as soon as there is one.".into(),
    };
    patch(gateway, live, move |settings| settings.model = chosen, said).await
}

async fn think(gateway: &Arc<Gateway>, live: &Live, args: &str) -> String {
    let own = gateway.sessions.get(&live.request.session).and_then(|record| record.settings.thinking_level.clone());
    if args.is_empty() {
        let level = own.unwrap_or_else(|| "the model's default".into());
        return format!("Thinking: {level}. /think off, minimal, low, medium, high, xhigh, max or default.");
    }
    let level = match (args.eq_ignore_ascii_case("default"), Thinking::parse(args)) {
        (true, _) => None,
        (false, Some(level)) => Some(level.as_str().to_owned()),
        (false, None) => {
            return format!("{args:?} is no level; use off, minimal, low, medium, high, xhigh, max or default.");
        }
    };
    let said = match &level {
        Some(level) => format!("From the next message on: thinking {level}."),
        None => "From the next message on: the model's default.".into(),
    };
    patch(gateway, live, move |settings| settings.thinking_level = level, said).await
}

async fn patch(
    gateway: &Arc<Gateway>,
    live: &Live,
    change: impl FnOnce(&mut sessions::Settings) + Send,
    said: String,
) -> String {
    let key = &live.request.session;
    let mut draft = gateway.sessions.draft(key).await;
    change(&mut draft.record_mut().settings);
    match draft.commit(Vec::new()).await {
        Ok(_) => {
            sessions::events::changed(gateway, key, Changed::Reason("patch"));
            said
        }
        Err(error) => format!("This could not be saved, and was not done: {error}"),
    }
}

fn models(gateway: &Gateway) -> String {
    let catalog = gateway.runs.models().catalog();
    let listed = catalog.models();
    if listed.is_empty() {
        return openclaw_agent::provider::catalog::NoModel::Unset.to_string();
    }
    let mut text = "Models:".to_owned();
    for listed in listed.iter().take(MAX_MODELS) {
        let _ = write!(text, "\n{}", listed.model.reference);
        if let Some(alias) = &listed.alias {
            let _ = write!(text, " ({alias})");
        }
        if listed.is_default {
            text.push_str(" – default");
        }
        if listed.available.is_err() {
            text.push_str(" – cannot be used (/status says why)");
        }
    }
    if listed.len() > MAX_MODELS {
        let _ = write!(text, "\n… and {} more", listed.len() - MAX_MODELS);
    }
    text
}

fn approve(gateway: &Gateway, live: &Live, args: &str) -> String {
    let usage = "Usage: /approve <id> allow-once, allow-always or deny.";
    let mut words = args.split_whitespace();
    let (Some(id), Some(word), None) = (words.next(), words.next(), words.next()) else { return usage.into() };
    let word = word.to_lowercase();
    let decision = match word.as_str() {
        "once" | "allow" | "yes" => Some(Decision::AllowOnce),
        "always" => Some(Decision::AllowAlways),
        "no" => Some(Decision::Deny),
        word => Decision::parse(word),
    };
    let Some(decision) = decision else { return usage.into() };
    let request = &live.request;
    let (device, connection, by) = match &request.origin {
        Origin::Operator { connection, device, client } => (device.clone(), *connection, client.clone()),
        Origin::Channel(inbound) => (None, 0, format!("{}:{}", inbound.from.channel, inbound.sender.id)),
        _ => (None, 0, "chat".into()),
    };
    let viewer =
        Viewer { admin: request.authority.grants(Scope::Admin), device: device.as_ref(), connection, run: None };
    match approvals::decide(gateway, &viewer, id, decision, &by, resolver(&request.origin, device.as_ref())) {
        Ok(true) => format!("{decision}: done."),
        Ok(false) => format!("It was decided so already: {decision}."),
        Err(refused) => refused.into_error().message,
    }
}

async fn last(gateway: &Gateway, live: &Live) -> String {
    let session = live.request.session.as_str().to_owned();
    let to = live.request.deliver.clone();
    let found = gateway.store.read(move |db| crate::store::runs::last_reply(db, &session, to.as_ref())).await;
    match found {
        Ok(Some(outcome)) => outcome.reply().unwrap_or_else(|| "The last run had nothing to say.".into()),
        Ok(None) => "There is no reply yet.".into(),
        Err(error) => format!("The last reply could not be read: {error}"),
    }
}

fn resolver(origin: &Origin, device: Option<&openclaw_protocol::DeviceId>) -> ApprovalResolver {
    let (kind, id) = match (origin, device) {
        (_, Some(device)) => ("device", Some(device.to_string())),
        (Origin::Operator { client, .. }, None) => ("runtime", Some(client.clone())),
        (Origin::Channel(inbound), None) => ("runtime", Some(inbound.from.channel.clone())),
        _ => ("runtime", None),
    };
    ApprovalResolver { kind: kind.into(), id }
}
