//! Who may write to an account, as its config says.

use openclaw_channels::{
    message::{ChatKind, Inbound, Sender},
    section::Section,
};
use openclaw_config::document::{Document, Node};

/// `dmPolicy`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DmPolicy {
    Pairing,
    Allowlist,
    Open,
    Disabled,
}

impl DmPolicy {
    pub const ALL: [Self; 4] = [Self::Pairing, Self::Allowlist, Self::Open, Self::Disabled];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pairing => "pairing",
            Self::Allowlist => "allowlist",
            Self::Open => "open",
            Self::Disabled => "disabled",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == text)
    }
}

/// `groupPolicy`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupPolicy {
    Allowlist,
    Open,
    Disabled,
}

impl GroupPolicy {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowlist => "allowlist",
            Self::Open => "open",
            Self::Disabled => "disabled",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Allowlist, Self::Open, Self::Disabled].into_iter().find(|one| one.as_str() == text)
    }
}

/// A list of senders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList {
    /// Without the channel's prefix, in lower case.
    pub entries: Vec<String>,
}

impl AllowList {
    /// Reads a list; `accessGroup:<name>` stands for the members of a group.
    fn read(document: &Document, channel: &str, node: &Node) -> Self {
        let mut entries = Vec::new();
        for text in texts(node) {
            match text.strip_prefix("accessGroup:") {
                None => entries.push(normal(channel, &text)),
                Some(name) => {
                    let group = document.get("accessGroups").and_then(|groups| groups.entry(name));
                    let members = group.and_then(|group| group.entry("members"));
                    for key in [channel, "*"] {
                        let members = members.and_then(|members| members.entry(key)).map(texts).unwrap_or_default();
                        entries.extend(members.iter().map(|text| normal(channel, text)));
                    }
                }
            }
        }
        entries.retain(|entry| !entry.is_empty());
        Self { entries }
    }

    pub fn everybody(&self) -> bool {
        self.entries.iter().any(|entry| entry == "*")
    }

    /// True when the sender is in it by id or by `*`. Names do not count: whoever takes one over would be let in.
    pub fn has(&self, sender: &Sender) -> bool {
        self.entries.iter().any(|entry| entry == "*" || *entry == sender.id)
    }

    /// Entries that let nobody in, since they are no ids: names, mostly.
    pub fn idle(&self) -> impl Iterator<Item = &str> {
        let is_id = |entry: &&str| *entry != "*" && !entry.bytes().all(|b| b.is_ascii_digit());
        self.entries.iter().map(String::as_str).filter(is_id)
    }
}

fn texts(node: &Node) -> Vec<String> {
    let text = |node: &Node| node.as_str().map(str::to_owned).or_else(|| node.as_i64().map(|id| id.to_string()));
    node.as_array().unwrap_or_default().iter().filter_map(text).map(|text| text.trim().to_owned()).collect()
}

/// `telegram:123`, `tg:123` and `123` are the same.
fn normal(channel: &str, entry: &str) -> String {
    let lower = entry.trim().to_lowercase();
    let short = if channel == "telegram" { "tg" } else { channel };
    let prefixes = [channel, short].map(|prefix| format!("{prefix}:"));
    let rest = prefixes.iter().find_map(|prefix| lower.strip_prefix(prefix.as_str()));
    let rest = rest.unwrap_or(&lower);
    let rest = rest.strip_prefix("user:").unwrap_or(rest);
    // As Discord writes a mention.
    let mention = rest.strip_prefix("<@").and_then(|rest| rest.strip_suffix('>'));
    mention.map_or(rest, |id| id.trim_start_matches('!')).to_owned()
}

/// What holds for direct messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Direct {
    pub policy: DmPolicy,
    pub allow: AllowList,
}

impl Direct {
    pub fn read(document: &Document, channel: &str, account: &str) -> Self {
        let section = Section::new(document, channel, account);
        // Discord has an older place for both.
        let nested = |key: &str| section.get("dm").and_then(|dm| dm.entry(key));
        let policy = section.get("dmPolicy").or_else(|| nested("policy")).and_then(Node::as_str);
        let off = nested("enabled").and_then(Node::as_bool) == Some(false);
        let policy = if off { Some(DmPolicy::Disabled) } else { policy.and_then(DmPolicy::parse) };
        let list = |node: Option<&Node>| node.map(|node| AllowList::read(document, channel, node));
        let older = |dm: Option<&Node>| list(dm.and_then(|dm| dm.entry("allowFrom")));
        let root = list(section.root("allowFrom")).or_else(|| older(section.root("dm")));
        let own = list(section.own("allowFrom")).or_else(|| older(section.own("dm")));
        let allow = match (own, root) {
            // A channel that names people stays closed, whatever one of its accounts says.
            (Some(own), Some(root)) if own.everybody() && !root.everybody() && !root.entries.is_empty() => {
                let named = own.entries.into_iter().filter(|entry| entry != "*");
                AllowList { entries: named.chain(root.entries).collect() }
            }
            (Some(own), _) => own,
            (None, Some(root)) => root,
            (None, None) => AllowList::default(),
        };
        Self { policy: policy.unwrap_or(DmPolicy::Pairing), allow }
    }
}

/// What holds for one group, or one topic of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub policy: GroupPolicy,
    /// The config lets this group in.
    pub listed: bool,
    pub enabled: bool,
    pub allow: AllowList,
    pub require_mention: bool,
    /// The agent of a topic.
    pub agent: Option<String>,
    pub extra_system: Option<String>,
}

impl Group {
    /// The rule for the chat of a message.
    pub fn read(document: &Document, message: &Inbound) -> Self {
        let (channel, account) = (message.from.channel.as_str(), message.from.account.as_str());
        let section = Section::new(document, channel, account);
        let layers =
            if channel == "discord" { guild_layers(&section, message) } else { group_layers(&section, message) };
        let find = |key: &str| layers.found.iter().find_map(|layer| layer.entry(key));
        let defaults = document.get("channels").and_then(|all| all.entry("defaults"));
        let policy = find("groupPolicy")
            .or_else(|| section.get("groupPolicy"))
            // A channel without any section does not inherit an open door.
            .or_else(|| defaults.filter(|_| section.exists()).and_then(|defaults| defaults.entry("groupPolicy")));
        let policy = policy.and_then(Node::as_str).and_then(GroupPolicy::parse).unwrap_or(GroupPolicy::Allowlist);
        let list = |node: Option<&Node>| node.map(|node| AllowList::read(document, channel, node));
        let allow = list(find("allowFrom"))
            .or_else(|| list(section.get("groupAllowFrom")))
            .or_else(|| list(section.get("allowFrom")));
        let enabled = find("enabled").and_then(Node::as_bool) != Some(false);
        Self {
            policy,
            listed: layers.listed || (!layers.configured && policy == GroupPolicy::Open),
            enabled,
            allow: allow.unwrap_or_default(),
            require_mention: find("requireMention").and_then(Node::as_bool).unwrap_or(true),
            agent: layers.topic.and_then(|topic| topic.entry("agentId")).and_then(Node::as_str).map(str::to_owned),
            extra_system: find("systemPrompt").and_then(Node::as_str).map(str::to_owned),
        }
    }
}

/// `groupAllowFrom` of an account, when there is one.
pub fn group_senders(document: &Document, channel: &str, account: &str) -> Option<AllowList> {
    let section = Section::new(document, channel, account);
    section.get("groupAllowFrom").map(|node| AllowList::read(document, channel, node))
}

/// Entries that speak about a chat, the nearest first.
struct Layers<'a> {
    found: Vec<&'a Node>,
    listed: bool,
    /// There is a list of groups at all.
    configured: bool,
    topic: Option<&'a Node>,
}

/// `groups.<chat>.topics.<topic>`, with `*` for all others at both levels.
fn group_layers<'a>(section: &Section<'a>, message: &Inbound) -> Layers<'a> {
    let key =
        if message.kind == ChatKind::Channel && section.get("channels").is_some() { "channels" } else { "groups" };
    let groups = section.get(key);
    let configured = groups.and_then(Node::as_object).is_some();
    let exact = groups.and_then(|groups| groups.entry(&message.from.chat));
    let any = groups.and_then(|groups| groups.entry("*"));
    let topics = [exact, any].into_iter().flatten().filter_map(|group| group.entry("topics"));
    let topic = message.from.thread.as_ref().and_then(|id| {
        topics
            .clone()
            .find_map(|topics| topics.entry(id))
            .or_else(|| topics.clone().find_map(|topics| topics.entry("*")))
    });
    Layers {
        found: [topic, exact, any].into_iter().flatten().collect(),
        listed: exact.or(any).is_some(),
        configured,
        topic,
    }
}

/// `guilds.<guild>.channels.<channel>`, with `*` for all others at both levels: for agent and prompt. Who may write there is
/// judged by the channel.
fn guild_layers<'a>(section: &Section<'a>, message: &Inbound) -> Layers<'a> {
    let guilds = section.get("guilds");
    let configured = guilds.and_then(Node::as_object).is_some();
    let space = message.space.as_deref().unwrap_or_default();
    let guild = guilds.and_then(|guilds| guilds.entry(space).or_else(|| guilds.entry("*")));
    let channels = guild.and_then(|guild| guild.entry("channels"));
    let thread = message.from.thread.as_ref().and_then(|id| channels.and_then(|all| all.entry(id)));
    let channel = channels.and_then(|all| all.entry(&message.from.chat).or_else(|| all.entry("*")));
    let channel = thread.or(channel);
    Layers {
        found: [channel, guild].into_iter().flatten().collect(),
        listed: guild.is_some() && (channels.is_none() || channel.is_some()),
        configured,
        topic: channel,
    }
}

/// `commands.ownerAllowFrom`: who commands. An entry with a channel's prefix counts there only.
pub fn is_owner(document: &Document, channel: &str, sender: &Sender) -> bool {
    owners(document).iter().any(|entry| match entry.split_once(':') {
        Some((prefix, _)) if ["telegram", "tg", "discord"].contains(&prefix) => {
            let here = if prefix == "tg" { "telegram" } else { prefix };
            here == channel && normal(channel, entry) == sender.id
        }
        _ => *entry == sender.id,
    })
}

/// The entries of `commands.ownerAllowFrom`, in lower case.
pub fn owners(document: &Document) -> Vec<String> {
    let list = document.get("commands").and_then(|commands| commands.entry("ownerAllowFrom"));
    let mut owners: Vec<String> = list.map(texts).unwrap_or_default();
    owners.iter_mut().for_each(|owner| *owner = owner.to_lowercase());
    owners.retain(|owner| !owner.is_empty());
    owners
}
