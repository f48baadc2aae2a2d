//! A reaction on a message that is being worked on: "seen".

use openclaw_channels::{
    message::{ChatKind, Inbound},
    section::Section,
};
use openclaw_config::document::{Document, Node};

/// When nothing else is said (as the reference).
const EYES: &str = "👀";

/// The emoji for a message that is answered, when it gets one: by default in groups that were named for it.
pub fn emoji(document: &Document, message: &Inbound, agent: &str) -> Option<String> {
    let messages = document.get("messages");
    let shared = |key: &str| messages.and_then(|messages| messages.entry(key)).and_then(Node::as_str);
    let direct = message.kind == ChatKind::Direct;
    let wanted = match shared("ackReactionScope").unwrap_or("group-mentions") {
        "all" => true,
        "direct" => direct,
        "group-all" => !direct,
        "group-mentions" => !direct && message.mentions_me,
        _ => false,
    };
    if !wanted {
        return None;
    }
    let section = Section::new(document, &message.from.channel, &message.from.account);
    let own = || section.get("ackReaction").and_then(Node::as_str);
    let identity = || {
        let entry = document.get("agents").and_then(|agents| agents.entry("entries")).and_then(|all| all.entry(agent));
        let emoji = entry.and_then(|entry| entry.entry("identity")).and_then(|identity| identity.entry("emoji"));
        emoji.and_then(Node::as_str)
    };
    let emoji = own().or_else(|| shared("ackReaction")).or_else(identity).unwrap_or(EYES).trim();
    (!emoji.is_empty()).then(|| emoji.to_owned())
}

#[cfg(test)]
mod tests {
    use openclaw_channels::message::{Address, Sender};
    use openclaw_config::{
        env::Env,
        paths::{Paths, Profile},
    };

    use super::*;

    fn message(kind: ChatKind, mentions_me: bool) -> Inbound {
        Inbound {
            from: Address { channel: "telegram".into(), account: "work".into(), chat: "1".into(), thread: None },
            kind,
            chat_title: None,
            sender: Sender { id: "7".into(), username: None, name: "Ada".into(), is_bot: false },
            message_id: "1".into(),
            arrival: "1".into(),
            sent_at_ms: 0,
            text: "hi".into(),
            media: Vec::new(),
            reply_to: None,
            mentions_me,
            space: None,
            roles: Vec::new(),
            needs_mention: false,
            edited: false,
        }
    }

    /// Scopes and order of the reference's "Ack reactions".
    #[test]
    fn who_gets_one() {
        let check = |config: &str, kind: ChatKind, named: bool, expected: Option<&str>| {
            let env = Env::from_pairs([("HOME", "/home/x")]);
            let paths = Paths::resolve(&env, Profile::choose(false, None).expect("a profile")).expect("paths");
            let document = Document::from_text(&format!("{{{config}}}"), &paths, &env).expect("a config");
            assert_eq!(emoji(&document, &message(kind, named), "main").as_deref(), expected, "{config}");
        };
        use ChatKind::{Direct, Group};
        check("", Direct, false, None);
        check("", Group, true, Some("👀"));
        check("", Group, false, None);
        check("messages: {ackReactionScope: 'group-all'}", Group, false, Some("👀"));
        check("messages: {ackReactionScope: 'direct'}", Direct, false, Some("👀"));
        check("messages: {ackReactionScope: 'direct'}", Group, true, None);
        check("messages: {ackReactionScope: 'all'}", Direct, false, Some("👀"));
        check("messages: {ackReactionScope: 'off'}", Group, true, None);
        check("agents: {entries: {main: {identity: {emoji: '🦀'}}}}", Group, true, Some("🦀"));
        let all = "agents: {entries: {main: {identity: {emoji: '🦀'}}}}, messages: {ackReaction: '👍'}";
        check(all, Group, true, Some("👍"));
        let of = |telegram: &str| format!("{all}, channels: {{telegram: {{{telegram}}}}}");
        check(&of("ackReaction: '🔥'"), Group, true, Some("🔥"));
        check(&of("ackReaction: '🔥', accounts: {work: {ackReaction: ''}}"), Group, true, None);
    }
}
