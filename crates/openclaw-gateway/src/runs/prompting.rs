//! What a model is told before the conversation, and which tools it gets.

use std::sync::Arc;

use openclaw_agent::{
    policy::Starved,
    prompt::{self, Chat, Facts, FileLimits},
    provider::ModelRef,
    tool::{Tool, ToolSpec},
};
use openclaw_channels::message::ChatKind;
use openclaw_config::document::Node;

use super::{Origin, RunContext, live::Live, settings::Agent};
use crate::{channels::access, gateway::Gateway, host, tools};

/// The tools the policy lets this run use.
///
/// # Errors
/// [`Starved`], when a list of the config leaves nothing.
pub fn permitted(
    gateway: &Gateway,
    context: &RunContext,
    model: &ModelRef,
    offered: Vec<Arc<dyn Tool>>,
) -> Result<Vec<Arc<dyn Tool>>, Starved> {
    tools::policy::permitted(gateway, context, model, offered, tools::invoke::is_plugin)
}

/// The system prompt.
pub async fn system(
    gateway: &Arc<Gateway>,
    agent: &Agent,
    context: &RunContext,
    live: &Live,
    tools: &[Arc<dyn Tool>],
    model: &ModelRef,
) -> String {
    let workspace = agent.workspace.clone();
    // What is private to the owner is not shown in rooms with others, nor to others. Where nobody is named as the owner, those
    // who may write directly are taken for him.
    let private = match &live.request.origin {
        Origin::Channel(inbound) => {
            let owner = || context.authority.owner || access::owners(&gateway.runtime.load().config).is_empty();
            inbound.kind == ChatKind::Direct && owner()
        }
        _ => true,
    };
    let files =
        tokio::task::spawn_blocking(move || prompt::workspace_files(&workspace, private, FileLimits::default()));
    let files = files.await.unwrap_or_default();
    let specs: Vec<ToolSpec> = tools.iter().map(|tool| tool.spec().clone()).collect();
    let config = Arc::clone(&gateway.runtime.load().config);
    let zone = config.get("agents.defaults.userTimezone").and_then(Node::as_str);
    let host = host::facts().hostname;
    let chat = chat(&live.request.origin);
    let mut extra = live.request.extra_system.clone().unwrap_or_default();
    let events = gateway.take_system_events(&live.request.session);
    if !events.is_empty() {
        extra.push_str("\n\nWhat happened since the last turn (from the gateway; tell the person what matters):");
        events.iter().for_each(|line| extra.push_str(&format!("\n- {line}")));
    }
    prompt::compose(&Facts {
        agent: &agent.id,
        name: agent.identity.name.as_deref().or(agent.name.as_deref()),
        workspace: Some(&context.workspace),
        files: &files,
        tools: &specs,
        model,
        session: context.session.as_str(),
        host: &host,
        now: &prompt::now_in(zone),
        chat: chat.as_ref(),
        owner: context.authority.owner,
        extra: (!extra.trim().is_empty()).then_some(extra.as_str()),
    })
}

fn chat(origin: &Origin) -> Option<Chat> {
    let Origin::Channel(inbound) = origin else { return None };
    let kind = match inbound.kind {
        ChatKind::Direct => "direct",
        ChatKind::Group => "group",
        ChatKind::Channel => "channel",
    };
    Some(Chat {
        channel: inbound.from.channel.clone(),
        account: Some(inbound.from.account.clone()),
        kind: kind.into(),
        title: inbound.chat_title.clone(),
        sender: Some(inbound.sender.name.clone()),
        sender_id: Some(inbound.sender.id.clone()),
    })
}
