//! The places of a config that speak of tools.

use openclaw_config::document::{Document, Node};

use super::{Asker, names};
use crate::provider::ModelRef;

/// One place: `tools`, `agents.entries.<id>.tools`, a group's `tools`, and so on.
#[derive(Clone, Copy)]
pub(super) struct Layer<'a> {
    node: &'a Node,
}

impl<'a> Layer<'a> {
    pub fn profile(self) -> Option<&'a str> {
        self.node.entry("profile").and_then(Node::as_str)
    }

    /// Entries of `allow`; `None` when everything is.
    pub fn allow(self) -> Option<Vec<&'a str>> {
        let entries = list(self.node, "allow");
        (!entries.is_empty()).then_some(entries)
    }

    /// `None` when the key is not there.
    pub fn also_allow(self) -> Option<Vec<&'a str>> {
        self.node.entry("alsoAllow").is_some().then(|| list(self.node, "alsoAllow"))
    }

    pub fn deny(self) -> Vec<&'a str> {
        list(self.node, "deny")
    }

    /// `byProvider`: the model's own entry before its provider's.
    pub fn by_provider(self, model: &ModelRef) -> Option<Layer<'a>> {
        let entries = self.node.entry("byProvider")?.as_object()?;
        let find = |key: &str| {
            entries.iter().find(|(name, _)| name.trim().eq_ignore_ascii_case(key)).map(|(_, node)| Layer { node })
        };
        find(&model.to_string()).or_else(|| find(&model.provider))
    }

    /// `toolsBySender`: the first kind of key that names the sender.
    pub fn by_sender(self, asker: &Asker<'_>) -> Option<Layer<'a>> {
        let entries = self.node.entry("toolsBySender")?.as_object()?;
        let mut keys = Vec::new();
        if let Some(id) = asker.id {
            if let Some(channel) = asker.channel {
                keys.push(format!("channel:{channel}:{id}"));
            }
            keys.extend([format!("id:{id}"), id.to_owned()]);
        }
        keys.extend(asker.e164.map(|number| format!("e164:{number}")));
        keys.extend(asker.username.map(|name| format!("username:{}", name.trim_start_matches('@'))));
        keys.extend(asker.name.map(|name| format!("name:{name}")));
        keys.push("*".to_owned());
        let plain = |key: &str| key.trim().to_ascii_lowercase().replace("username:@", "username:");
        keys.iter().find_map(|key| {
            let found = entries.iter().find(|(name, _)| plain(name) == key.to_ascii_lowercase());
            found.map(|(_, node)| Layer { node })
        })
    }
}

fn list<'a>(node: &'a Node, key: &str) -> Vec<&'a str> {
    let items = node.entry(key).and_then(Node::as_array).unwrap_or_default();
    items.iter().filter_map(Node::as_str).map(str::trim).filter(|entry| !entry.is_empty()).collect()
}

/// `tools`.
pub(super) fn global(config: &Document) -> Option<Layer<'_>> {
    config.get("tools").map(|node| Layer { node })
}

/// `agents.entries.<id>.tools`, or that of the older `agents.list[]`.
pub(super) fn agent<'a>(config: &'a Document, id: &str) -> Option<Layer<'a>> {
    let agents = config.get("agents")?;
    let entry = agents.entry("entries").and_then(|entries| entries.entry(id)).or_else(|| {
        let list = agents.entry("list").and_then(Node::as_array)?;
        list.iter().find(|entry| entry.entry("id").and_then(Node::as_str) == Some(id))
    });
    entry?.entry("tools").map(|node| Layer { node })
}

/// The one place that speaks for a group: its senders, itself, then what is said of all groups (channels/groups of the
/// reference).
pub(super) fn group<'a>(config: &'a Document, asker: &Asker<'_>) -> Option<Layer<'a>> {
    let channel = config.get("channels")?.entry(asker.channel?)?;
    let account = asker.account.and_then(|id| channel.entry("accounts")?.entry(id));
    let of = |key: &str| account.and_then(|account| account.entry(key)).or_else(|| channel.entry(key));
    let group = asker.group?;
    let mut places: Vec<&'a Node> = Vec::new();
    if let Some(guilds) = of("guilds") {
        for guild in asker.guild.into_iter().chain(["*"]) {
            let Some(guild) = guilds.entry(guild) else { continue };
            let channels = guild.entry("channels");
            places.extend([group, "*"].iter().filter_map(|id| channels?.entry(id)));
            places.push(guild);
        }
    }
    if let Some(groups) = of("groups").or_else(|| of("channels")) {
        places.extend([group, "*"].iter().filter_map(|id| groups.entry(id)));
    }
    places.into_iter().find_map(|node| {
        let tools = node.entry("tools").map(|node| Layer { node });
        Layer { node }.by_sender(asker).or(tools)
    })
}

/// What a profile lets through, with what is allowed besides.
pub(super) fn profile_entries<'a>(name: &str, also: Option<Vec<&'a str>>) -> Option<Vec<&'a str>> {
    let mut entries = names::profile(name)?.to_vec();
    entries.extend(also.unwrap_or_default());
    Some(entries)
}
