//! Which tools a run gets: the agent's tool policy, asked with what is known of whoever started it.

use std::sync::Arc;

use openclaw_agent::{
    policy::{self, Asker, Starved, Trust},
    provider::ModelRef,
    tool::Tool,
};
use openclaw_channels::message::ChatKind;
use openclaw_protocol::Scope;

use crate::{
    gateway::Gateway,
    runs::{Origin, RunContext},
};

/// The tools among `offered` that this run may use. `plugin` says which come from MCP servers.
///
/// # Errors
/// [`Starved`], when a list of the config leaves nothing.
pub fn permitted(
    gateway: &Gateway,
    context: &RunContext,
    model: &ModelRef,
    offered: Vec<Arc<dyn Tool>>,
    plugin: impl Fn(&str) -> bool,
) -> Result<Vec<Arc<dyn Tool>>, Starved> {
    let runtime = gateway.runtime.load_full();
    let asker = asker(context, model);
    policy::select(&runtime.config, &asker, offered, plugin)
}

fn asker<'a>(context: &'a RunContext, model: &'a ModelRef) -> Asker<'a> {
    let authority = context.authority;
    let trust = match (authority.owner, authority.grants(Scope::Write)) {
        (true, _) => Trust::Owner,
        (false, true) => Trust::Operator,
        (false, false) => Trust::Stranger,
    };
    let local = Asker::local(&context.agent, model, trust);
    match &context.origin {
        Origin::Channel(message) => Asker {
            channel: Some(&message.from.channel),
            account: Some(&message.from.account),
            group: (message.kind != ChatKind::Direct).then_some(message.from.chat.as_str()),
            id: Some(&message.sender.id),
            username: message.sender.username.as_deref(),
            name: Some(&message.sender.name),
            ..local
        },
        _ => local,
    }
}
