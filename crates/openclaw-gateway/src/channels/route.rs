//! Which agent answers a message, and in which conversation.

use openclaw_channels::{
    message::{ChatKind, Inbound},
    section::{Section, normal},
};
use openclaw_config::document::{Document, Node};

use super::access::Group;
use crate::sessions::SessionKey;

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub agent: String,
    pub session: SessionKey,
}

/// Why it goes nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoute {
    #[error(
        "there are several agents and none is the default; add to bindings: {{ agentId: \"<agent>\", match: {{ channel: \
         \"{0}\", accountId: \"{1}\" }} }}"
    )]
    NoAgent(String, String),
    #[error("a binding names the agent \"{0}\", which is not in agents.entries")]
    UnknownAgent(String),
    #[error("no conversation can be made of it: {0}")]
    Key(#[from] crate::sessions::key::KeyError),
}

/// Finds both. `group` is the rule of the chat, when it is one.
///
/// # Errors
/// [`NoRoute`]
pub fn route(document: &Document, message: &Inbound, group: Option<&Group>) -> Result<Route, NoRoute> {
    let (known, default) = agents(document);
    let binding = binding(document, message);
    let bound = binding.and_then(|binding| binding.entry("agentId")).and_then(Node::as_str).map(normal);
    let topic = group.and_then(|group| group.agent.as_deref()).map(normal);
    let agent = match topic.or(bound) {
        Some(agent) if known.contains(&agent) || (known.is_empty() && agent == "main") => agent,
        Some(agent) => return Err(NoRoute::UnknownAgent(agent)),
        None => default.ok_or_else(|| NoRoute::NoAgent(message.from.channel.clone(), message.from.account.clone()))?,
    };
    let rest = conversation(document, message, binding);
    let session = SessionKey::resolve(&format!("agent:{agent}:{rest}"), &agent, "main")?;
    Ok(Route { agent, session })
}

/// Ids of the configured agents, and the one that answers where nothing is bound.
fn agents(document: &Document) -> (Vec<String>, Option<String>) {
    let section = document.get("agents");
    let entries = section.and_then(|agents| agents.entry("entries")).and_then(Node::as_object).unwrap_or_default();
    let list = section.and_then(|agents| agents.entry("list")).and_then(Node::as_array).unwrap_or_default();
    let listed = list.iter().filter_map(|node| Some((node.entry("id")?.as_str()?, node)));
    let all: Vec<(String, &Node)> = entries
        .iter()
        .map(|(id, node)| (id.as_str(), node))
        .chain(listed)
        .map(|(id, node)| (normal(id), node))
        .collect();
    let marked = all.iter().find(|(_, node)| node.entry("default").and_then(Node::as_bool) == Some(true));
    let default = match (marked, all.as_slice()) {
        (Some((id, _)), _) => Some(id.clone()),
        (None, []) => Some("main".to_owned()),
        (None, [(only, _)]) => Some(only.clone()),
        (None, several) => several.iter().find(|(id, _)| id == "main").map(|(id, _)| id.clone()),
    };
    (all.into_iter().map(|(id, _)| id).collect(), default)
}

/// What follows the agent in the key, as the reference names conversations.
fn conversation(document: &Document, message: &Inbound, binding: Option<&Node>) -> String {
    let session = document.get("session");
    let own = binding.and_then(|binding| binding.entry("session"));
    let setting = |key: &str| {
        let of = |node: Option<&Node>| node.and_then(|node| node.entry(key)).and_then(Node::as_str).map(str::to_owned);
        of(own).or_else(|| of(session))
    };
    let from = &message.from;
    let (channel, account) = (&from.channel, &from.account);
    if message.kind == ChatKind::Direct {
        let peer = linked(document, channel, &message.sender.id).unwrap_or_else(|| message.sender.id.clone());
        let base = match setting("dmScope").as_deref() {
            Some("per-peer") => format!("direct:{peer}"),
            Some("per-channel-peer") => format!("{channel}:direct:{peer}"),
            Some("per-account-channel-peer") => format!("{channel}:{account}:direct:{peer}"),
            _ => "main".to_owned(),
        };
        return match &from.thread {
            Some(thread) => format!("{base}:thread:{}:{thread}", from.chat),
            None => base,
        };
    }
    if setting("groupScope").as_deref() == Some("main") {
        return "main".to_owned();
    }
    // A Discord room is a channel, a Telegram channel too; everything else is a group.
    let room = message.kind == ChatKind::Channel || channel == "discord";
    let base = format!("{channel}:{}:{}", if room { "channel" } else { "group" }, from.chat);
    match &from.thread {
        Some(topic) if channel == "telegram" => format!("{base}:topic:{topic}"),
        Some(thread) => format!("{base}:thread:{thread}"),
        None => base,
    }
}

/// `session.identityLinks`: one name for a person on several channels.
fn linked(document: &Document, channel: &str, sender: &str) -> Option<String> {
    let links = document.get("session")?.entry("identityLinks")?.as_object()?;
    let id = format!("{channel}:{sender}").to_lowercase();
    let holds = |node: &Node| {
        node.as_array().unwrap_or_default().iter().filter_map(Node::as_str).any(|entry| entry.to_lowercase() == id)
    };
    links.iter().find(|(_, node)| holds(node)).map(|(name, _)| normal(name))
}

/// The binding that fits best: the chat, its parent, any chat of the kind, a role in the guild, the guild, the account, the
/// channel.
fn binding<'a>(document: &'a Document, message: &Inbound) -> Option<&'a Node> {
    let all = document.get("bindings").and_then(Node::as_array).unwrap_or_default();
    // Bindings to programs of another kind ("acp") are not ours.
    let ours = |node: &&Node| node.entry("type").and_then(Node::as_str).is_none_or(|kind| kind == "route");
    let mut found: Vec<(u8, &Node)> =
        all.iter().filter(ours).filter_map(|node| Some((rank(document, node, message)?, node))).collect();
    found.sort_by_key(|(rank, _)| *rank);
    found.first().map(|(_, node)| *node)
}

/// How well a binding fits, 0 best; `None` when it does not. Everything it names has to fit.
fn rank(document: &Document, binding: &Node, message: &Inbound) -> Option<u8> {
    let wanted = binding.entry("match")?;
    let text = |key: &str| wanted.entry(key).and_then(Node::as_str);
    let from = &message.from;
    if text("channel")?.to_lowercase() != from.channel {
        return None;
    }
    let account_rank = match text("accountId").map(normal) {
        Some(account) if account == "*" => 6,
        Some(account) if account == from.account => 5,
        // A binding without account is for the default one.
        None if Section::default_account(document, &from.channel) == from.account => 5,
        _ => return None,
    };
    if wanted.entry("teamId").is_some() {
        return None;
    }
    let mut rank = account_rank;
    if let Some(guild) = text("guildId") {
        if message.space.as_deref() != Some(guild) {
            return None;
        }
        rank = 4;
    }
    if let Some(roles) = wanted.entry("roles") {
        let has = |role: &Node| role.as_str().is_some_and(|role| message.roles.iter().any(|own| own == role));
        if !roles.as_array().is_some_and(|roles| roles.iter().any(has)) {
            return None;
        }
        rank = 3;
    }
    let Some(peer) = wanted.entry("peer") else { return Some(rank) };
    let kind = match peer.entry("kind").and_then(Node::as_str)? {
        "dm" => "direct",
        kind => kind,
    };
    let kinds: &[&str] = match message.kind {
        ChatKind::Direct => &["direct"],
        ChatKind::Group => &["group", "channel"],
        ChatKind::Channel => &["channel"],
    };
    if !kinds.contains(&kind) {
        return None;
    }
    let id = peer
        .entry("id")
        .and_then(|id| id.as_str().map(str::to_owned).or_else(|| id.as_i64().map(|id| id.to_string())))?;
    let chat = if message.kind == ChatKind::Direct { &message.sender.id } else { &from.chat };
    let whole = from.thread.as_ref().map(|thread| format!("{chat}:topic:{thread}"));
    if id == "*" {
        Some(2)
    } else if Some(&id) == whole.as_ref() || (id == *chat && from.thread.is_none()) || from.thread.as_ref() == Some(&id)
    {
        Some(0)
    } else if id == *chat {
        Some(1)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use openclaw_channels::message::{Address, Sender};
    use openclaw_config::{
        env::Env,
        paths::{Paths, Profile},
    };

    use super::*;

    fn document(text: &str) -> Document {
        let env = Env::from_pairs([("HOME", "/home/x")]);
        let paths = Paths::resolve(&env, Profile::choose(false, None).expect("a profile")).expect("paths");
        Document::from_text(&format!("{{{text}}}"), &paths, &env).expect("a config")
    }

    fn message(channel: &str, kind: ChatKind, chat: &str, thread: Option<&str>) -> Inbound {
        let from = Address {
            channel: channel.into(),
            account: "default".into(),
            chat: chat.into(),
            thread: thread.map(str::to_owned),
        };
        Inbound {
            from,
            kind,
            chat_title: None,
            sender: Sender { id: "7".into(), username: None, name: "Ada".into(), is_bot: false },
            message_id: "1".into(),
            arrival: "1".into(),
            sent_at_ms: 0,
            text: "hi".into(),
            media: Vec::new(),
            reply_to: None,
            mentions_me: false,
            space: Some("900".into()),
            roles: vec!["44".into()],
            needs_mention: false,
            edited: false,
        }
    }

    /// Keys from the reference's channel-routing and session pages.
    #[test]
    fn conversations_have_the_names_of_the_reference() {
        let check = |config: &str, message: &Inbound, expected: &str| {
            let route = route(&document(config), message, None).expect("a route");
            assert_eq!(route.session.as_str(), expected, "{config}");
        };
        let dm = message("telegram", ChatKind::Direct, "7", None);
        check("", &dm, "agent:main:main");
        check("session: {dmScope: 'main'}", &dm, "agent:main:main");
        check("session: {dmScope: 'per-peer'}", &dm, "agent:main:direct:7");
        check("session: {dmScope: 'per-channel-peer'}", &dm, "agent:main:telegram:direct:7");
        check("session: {dmScope: 'per-account-channel-peer'}", &dm, "agent:main:telegram:default:direct:7");
        check(
            "session: {dmScope: 'per-peer', identityLinks: {ada: ['telegram:7', 'discord:70']}}",
            &dm,
            "agent:main:direct:ada",
        );
        check("", &message("telegram", ChatKind::Group, "-1001", None), "agent:main:telegram:group:-1001");
        check(
            "",
            &message("telegram", ChatKind::Group, "-1001", Some("42")),
            "agent:main:telegram:group:-1001:topic:42",
        );
        check("session: {groupScope: 'main'}", &message("telegram", ChatKind::Group, "-1001", None), "agent:main:main");
        check(
            "",
            &message("discord", ChatKind::Group, "123456", Some("987654")),
            "agent:main:discord:channel:123456:thread:987654",
        );
        check("", &message("telegram", ChatKind::Channel, "-1002", None), "agent:main:telegram:channel:-1002");
    }

    #[test]
    fn the_nearest_binding_wins() {
        let agents = "agents: {entries: {a: {default: true}, b: {}, c: {}, d: {}}}";
        let bind =
            |agent: &str, wanted: &str| format!("{{agentId: '{agent}', match: {{channel: 'telegram', {wanted}}}}}");
        let check = |bindings: &[String], message: &Inbound, expected: &str| {
            let config =
                document(&format!("{agents}, channels: {{telegram: {{}}}}, bindings: [{}]", bindings.join(",")));
            let found = route(&config, message, None).map(|route| route.agent);
            assert_eq!(found.as_deref(), Ok(expected), "{bindings:?}");
        };
        let group = message("telegram", ChatKind::Group, "-1001", None);
        let topic = message("telegram", ChatKind::Group, "-1001", Some("42"));
        let dm = message("telegram", ChatKind::Direct, "7", None);
        let any = bind("b", "accountId: '*'");
        let account = bind("c", "accountId: 'default'");
        let here = bind("d", "peer: {kind: 'group', id: '-1001'}");
        check(&[], &dm, "a");
        check(std::slice::from_ref(&any), &dm, "b");
        check(&[any.clone(), account.clone()], &dm, "c");
        check(&[any.clone(), account.clone(), here.clone()], &group, "d");
        check(&[any.clone(), here.clone()], &topic, "d");
        check(&[here.clone(), bind("c", "peer: {kind: 'group', id: '-1001:topic:42'}")], &topic, "c");
        check(&[here, bind("c", "peer: {kind: 'group', id: '*'}")], &dm, "a");
        check(&[bind("c", "peer: {kind: 'dm', id: 7}")], &dm, "c");
        check(&[bind("c", "accountId: 'work'")], &dm, "a");
        check(&[bind("c", "")], &dm, "c");
    }

    #[test]
    fn roles_have_agents() {
        let room = message("discord", ChatKind::Channel, "55", None);
        let check = |bindings: &str, expected: &str| {
            let agents = "agents: {entries: {a: {default: true}, b: {}, c: {}}}, channels: {discord: {}}";
            let config = document(&format!("{agents}, bindings: [{bindings}]"));
            assert_eq!(route(&config, &room, None).map(|route| route.agent).as_deref(), Ok(expected), "{bindings}");
        };
        let by = |agent: &str, wanted: &str| format!("{{agentId: '{agent}', match: {{channel: 'discord', {wanted}}}}}");
        let guild = by("b", "guildId: '900'");
        check(&guild, "b");
        check(&by("c", "guildId: '901'"), "a");
        check(&format!("{guild}, {}", by("c", "guildId: '900', roles: ['44']")), "c");
        check(&format!("{guild}, {}", by("c", "guildId: '900', roles: ['45']")), "b");
        check(&by("c", "guildId: '900', roles: []"), "a");
        check(&format!("{}, {}", by("c", "roles: ['44']"), by("b", "peer: {kind: 'channel', id: '55'}")), "b");
    }

    #[test]
    fn nobody_is_chosen_by_chance() {
        let dm = message("telegram", ChatKind::Direct, "7", None);
        let several = document("agents: {entries: {a: {}, b: {}}}");
        assert!(matches!(route(&several, &dm, None), Err(NoRoute::NoAgent(..))));
        let sole = document("agents: {entries: {only: {}}}");
        assert_eq!(route(&sole, &dm, None).expect("a route").session.as_str(), "agent:only:main");
        let wrong = document("bindings: [{agentId: 'ghost', match: {channel: 'telegram'}}], channels: {telegram: {}}");
        assert_eq!(route(&wrong, &dm, None), Err(NoRoute::UnknownAgent("ghost".into())));
    }
}
