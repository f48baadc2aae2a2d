//! Whether a group message is for the bot, beyond what the service itself says.

use openclaw_channels::message::Inbound;
use openclaw_config::document::{Document, Node};
use regex_lite::RegexBuilder;

/// A longer pattern is no name.
const MAX_PATTERN: usize = 256;

/// True when the text matches a mention pattern of the agent: its own, those for all, or made of its name.
pub fn matches(document: &Document, message: &Inbound, agent: &str) -> bool {
    if !applies(document, message) {
        return false;
    }
    patterns(document, agent).iter().any(|pattern| {
        let built = RegexBuilder::new(pattern).case_insensitive(true).size_limit(1 << 16).build();
        match built {
            Ok(regex) => regex.is_match(&message.text),
            Err(error) => {
                tracing::warn!("a mention pattern is left out: {error}");
                false
            }
        }
    })
}

fn patterns(document: &Document, agent: &str) -> Vec<String> {
    let entry = document.get("agents").and_then(|agents| agents.entry("entries")).and_then(|all| all.entry(agent));
    let of = |node: Option<&Node>| {
        let list = node?.entry("groupChat")?.entry("mentionPatterns")?.as_array()?;
        Some(list.iter().filter_map(Node::as_str).filter(|text| text.len() <= MAX_PATTERN).map(str::to_owned).collect())
    };
    let named = || {
        let identity = entry.and_then(|entry| entry.entry("identity"));
        let name = identity.and_then(|identity| identity.entry("name")).and_then(Node::as_str)?.trim();
        let words: Vec<String> = name.split_whitespace().map(escape).collect();
        (!words.is_empty()).then(|| vec![format!(r"(^|[^\w])@?{}($|[^\w])", words.join(r"\s+"))])
    };
    of(entry).or_else(|| of(document.get("messages"))).or_else(named).unwrap_or_default()
}

fn escape(word: &str) -> String {
    word.chars().flat_map(|c| (!c.is_alphanumeric() && c.is_ascii()).then_some('\\').into_iter().chain([c])).collect()
}

/// `channels.<id>.mentionPatterns`: where patterns count.
fn applies(document: &Document, message: &Inbound) -> bool {
    let section = openclaw_channels::section::Section::new(document, &message.from.channel, &message.from.account);
    let Some(rule) = section.get("mentionPatterns") else { return true };
    let chat = &message.from.chat;
    let whole = message.from.thread.as_ref().map(|thread| format!("{chat}:topic:{thread}"));
    let lists = |key: &str| {
        let all = rule.entry(key).and_then(Node::as_array).unwrap_or_default();
        all.iter().filter_map(Node::as_str).any(|id| id == chat || Some(id) == whole.as_deref())
    };
    if lists("denyIn") {
        return false;
    }
    rule.entry("mode").and_then(Node::as_str) != Some("deny") || lists("allowIn")
}
