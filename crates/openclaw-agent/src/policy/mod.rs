//! Which tools a run may use.
//!
//! Every place of the config can only take away from what the places before it left; a denial is final. In order: profile,
//! the provider's profile, `tools`, its provider's, the agent's, its provider's, the chat's, the sender's, and at last what
//! the one who asks may have at all, which no config widens beyond reading.

mod layers;
mod names;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use openclaw_config::document::Document;

use self::layers::Layer;
pub(crate) use self::names::glob;
use crate::{
    provider::ModelRef,
    tool::{Effects, Tool},
};

/// Who asks, from where, of which agent and model.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    pub agent: &'a str,
    pub model: &'a ModelRef,
    pub trust: Trust,
    /// `telegram`, `discord`; `None` for an operator's connection.
    pub channel: Option<&'a str>,
    pub account: Option<&'a str>,
    /// The group's or channel's id; `None` in a direct chat.
    pub group: Option<&'a str>,
    /// Where groups lie in something larger.
    pub guild: Option<&'a str>,
    /// Of the sender, as the channel tells it, never as a text does.
    pub id: Option<&'a str>,
    pub e164: Option<&'a str>,
    pub username: Option<&'a str>,
    pub name: Option<&'a str>,
}

impl<'a> Asker<'a> {
    /// Somebody at the gateway itself.
    pub const fn local(agent: &'a str, model: &'a ModelRef, trust: Trust) -> Self {
        Self {
            agent,
            model,
            trust,
            channel: None,
            account: None,
            group: None,
            guild: None,
            id: None,
            e164: None,
            username: None,
            name: None,
        }
    }
}

/// What the one who asks may have at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trust {
    /// May chat. Gets nothing that has effects; of what reads, the public web, and what the owner allowed in this very chat.
    Stranger,
    /// May write (`operator.write`). Gets all but what is the owner's own.
    Operator,
    Owner,
}

/// A tool as policies see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate<'a> {
    pub name: &'a str,
    pub effects: Effects,
    /// From an MCP server.
    pub plugin: bool,
}

/// What is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// In the order of the candidates.
    pub allowed: Vec<bool>,
    /// Names that were taken away, and the config key (or rule) that did it.
    pub refused: Vec<(String, String)>,
    /// An explicit `allow` leaves nothing: a mistake in the config that should be told, not a wish for a run without tools.
    pub starved: Option<String>,
}

/// For owners only, whatever else an operator may do.
const OWNERS: [&str; 1] = ["gateway"];
/// What anybody may use: they touch nothing of the owner's.
const PUBLIC: [&str; 6] = ["web_fetch", "web_search", "x_search", "session_status", "ask_user", "progress_card"];

/// Decides. Pure: the same config, asker and tools give the same answer.
pub fn decide(config: &Document, asker: &Asker<'_>, tools: &[Candidate<'_>]) -> Selection {
    let mut state = Selection { allowed: vec![true; tools.len()], refused: Vec::new(), starved: None };
    let (global, agent) = (layers::global(config), layers::agent(config, asker.agent));
    let global_provider = global.and_then(|layer| layer.by_provider(asker.model));
    let agent_provider = agent.and_then(|layer| layer.by_provider(asker.model));
    let agent_path = format!("agents.entries.{}.tools", asker.agent);

    let mut filter = |rule: String, allow: Option<Vec<&str>>, deny: &[&str]| {
        let before = state.allowed.iter().filter(|kept| **kept).count();
        for (index, tool) in tools.iter().enumerate() {
            if !state.allowed[index] {
                continue;
            }
            let denied = deny.iter().any(|entry| names::matches(entry, tool));
            let listed = allow.as_ref().is_none_or(|allow| allow.iter().any(|entry| names::allows(entry, tool)));
            if denied || !listed {
                state.allowed[index] = false;
                let key = if denied { "deny" } else { "allow" };
                state.refused.push((tool.name.to_owned(), format!("{rule} ({key})")));
            }
        }
        if allow.is_some() && before > 0 && !state.allowed.contains(&true) {
            state.starved.get_or_insert(rule);
        }
    };

    for (first, second, path) in [(agent, global, "profile"), (agent_provider, global_provider, "byProvider profile")] {
        let name = first.and_then(Layer::profile).or_else(|| second.and_then(Layer::profile));
        let also = first.and_then(Layer::also_allow).or_else(|| second.and_then(Layer::also_allow));
        if let Some(name) = name
            && let Some(entries) = layers::profile_entries(name, also)
        {
            filter(format!("tools {path} {name:?}"), Some(entries), &[]);
        }
    }
    let chat = layers::group(config, asker);
    let sender =
        agent.and_then(|layer| layer.by_sender(asker)).or_else(|| global.and_then(|layer| layer.by_sender(asker)));
    let places = [
        (global, "tools".to_owned()),
        (global_provider, format!("tools.byProvider for {}", asker.model)),
        (agent, agent_path.clone()),
        (agent_provider, format!("{agent_path}.byProvider for {}", asker.model)),
        (chat, format!("tools of this chat in channels.{}", asker.channel.unwrap_or_default())),
        (sender, "toolsBySender".to_owned()),
    ];
    for (layer, rule) in places {
        let Some(layer) = layer else { continue };
        // `alsoAllow` beside `allow` is a fault of the config; read as meant.
        let allow = layer.allow().map(|mut allow| {
            allow.extend(layer.also_allow().unwrap_or_default());
            allow
        });
        filter(rule, allow, &layer.deny());
    }

    let granted: Vec<&str> = [chat, sender]
        .into_iter()
        .flatten()
        .flat_map(|layer| [layer.allow(), layer.also_allow()])
        .flatten()
        .flatten()
        .collect();
    for (index, tool) in tools.iter().enumerate() {
        let reason = match asker.trust {
            Trust::Owner => continue,
            Trust::Operator if OWNERS.contains(&tool.name) => "only the owner may use it",
            Trust::Operator => continue,
            Trust::Stranger if tool.effects == Effects::Some => "the sender is not the owner",
            Trust::Stranger if !tool.plugin && PUBLIC.contains(&tool.name) => continue,
            Trust::Stranger
                if granted.iter().any(|entry| names::allows(entry, tool)) && !OWNERS.contains(&tool.name) =>
            {
                continue;
            }
            Trust::Stranger => "the sender is not the owner, and this chat's tools do not name it",
        };
        if std::mem::replace(&mut state.allowed[index], false) {
            state.refused.push((tool.name.to_owned(), reason.to_owned()));
        }
    }
    state
}

/// [`decide`] on tools themselves. `plugin` says which of them come from MCP servers.
///
/// # Errors
/// The config's key that leaves nothing although it allows something.
pub fn select(
    config: &Document,
    asker: &Asker<'_>,
    tools: Vec<Arc<dyn Tool>>,
    plugin: impl Fn(&str) -> bool,
) -> Result<Vec<Arc<dyn Tool>>, Starved> {
    let candidates: Vec<Candidate<'_>> = tools
        .iter()
        .map(|tool| {
            let name = tool.spec().name.as_str();
            Candidate { name, effects: tool.effects(), plugin: plugin(name) }
        })
        .collect();
    let Selection { allowed, refused, starved } = decide(config, asker, &candidates);
    if let Some(rule) = starved {
        return Err(Starved { rule });
    }
    for (name, rule) in refused {
        tracing::debug!(agent = asker.agent, tool = name, rule, "a tool is not given");
    }
    Ok(tools.into_iter().zip(allowed).filter(|(_, kept)| *kept).map(|(tool, _)| tool).collect())
}

/// An allowlist that allows nothing there is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{rule} allows no tool that there is; name one that exists, or remove the list")]
pub struct Starved {
    pub rule: String,
}
