//! `channels.<id>` as one account sees it: its own entry first, then what the channel says for all.

use openclaw_config::document::{Document, Node};

/// The account without a name.
pub const DEFAULT_ACCOUNT: &str = "default";

/// See the module documentation.
#[derive(Clone, Copy, Debug)]
pub struct Section<'a> {
    pub channel: &'a str,
    pub account: &'a str,
    root: Option<&'a Node>,
    own: Option<&'a Node>,
}

impl<'a> Section<'a> {
    pub fn new(document: &'a Document, channel: &'a str, account: &'a str) -> Self {
        let root = document.get("channels").and_then(|channels| channels.entry(channel));
        let accounts = root.and_then(|root| root.entry("accounts")).and_then(Node::as_object);
        let own = accounts.and_then(|all| all.iter().find(|(name, _)| normal(name) == account)).map(|(_, node)| node);
        Self { channel, account, root, own }
    }

    /// Names of the configured accounts, normalised; `default` when there are settings and no accounts.
    pub fn accounts(document: &Document, channel: &str) -> Vec<String> {
        let Some(root) = document.get("channels").and_then(|channels| channels.entry(channel)) else {
            return Vec::new();
        };
        if root.as_object().is_none() {
            return Vec::new();
        }
        let named = root.entry("accounts").and_then(Node::as_object).unwrap_or_default();
        let mut names: Vec<String> = named.iter().map(|(name, _)| normal(name)).collect();
        let own_credential = ["botToken", "tokenFile", "token"].iter().any(|key| root.entry(key).is_some());
        if names.is_empty() || own_credential && !names.iter().any(|name| name == DEFAULT_ACCOUNT) {
            names.insert(0, DEFAULT_ACCOUNT.to_owned());
        }
        names.dedup();
        names
    }

    /// `defaultAccount`, an account named `default`, or the first.
    pub fn default_account(document: &Document, channel: &str) -> String {
        let accounts = Self::accounts(document, channel);
        let root = document.get("channels").and_then(|channels| channels.entry(channel));
        let named = root.and_then(|root| root.entry("defaultAccount")).and_then(Node::as_str).map(normal);
        let named = named.filter(|name| accounts.contains(name));
        let fallback = || accounts.iter().find(|name| *name == DEFAULT_ACCOUNT).or(accounts.first()).cloned();
        named.or_else(fallback).unwrap_or_else(|| DEFAULT_ACCOUNT.to_owned())
    }

    /// The channel's section exists.
    pub fn exists(&self) -> bool {
        self.root.is_some()
    }

    /// A key of the account, or of the channel.
    pub fn get(&self, key: &str) -> Option<&'a Node> {
        self.own(key).or_else(|| self.root(key))
    }

    /// A key of the account only.
    pub fn own(&self, key: &str) -> Option<&'a Node> {
        self.own?.entry(key)
    }

    /// A key of the channel only.
    pub fn root(&self, key: &str) -> Option<&'a Node> {
        self.root?.entry(key)
    }

    pub fn text(&self, key: &str) -> Option<&'a str> {
        self.get(key).and_then(Node::as_str).map(str::trim).filter(|text| !text.is_empty())
    }

    pub fn flag(&self, key: &str) -> Option<bool> {
        self.get(key).and_then(Node::as_bool)
    }

    pub fn number(&self, key: &str) -> Option<i64> {
        self.get(key).and_then(Node::as_i64)
    }

    /// False when the channel or the account is switched off.
    pub fn enabled(&self) -> bool {
        let on = |node: Option<&Node>| node.and_then(Node::as_bool) != Some(false);
        self.exists() && on(self.root("enabled")) && on(self.own("enabled"))
    }

    /// The config path of a key, where it is written or would be.
    pub fn path(&self, key: &str) -> String {
        match self.own(key) {
            Some(_) => format!("channels.{}.accounts.{}.{key}", self.channel, self.account),
            None => format!("channels.{}.{key}", self.channel),
        }
    }
}

/// Account names are compared in lower case, blanks as dashes.
pub fn normal(name: &str) -> String {
    name.trim().to_lowercase().replace(char::is_whitespace, "-")
}

#[cfg(test)]
mod tests {
    use openclaw_config::{
        env::Env,
        paths::{Paths, Profile},
    };

    use super::*;

    fn document(text: &str) -> Document {
        let env = Env::from_pairs([("HOME", "/home/x")]);
        let paths = Paths::resolve(&env, Profile::choose(false, None).unwrap()).unwrap();
        Document::from_text(text, &paths, &env).unwrap()
    }

    #[test]
    fn an_account_sees_its_own_first() {
        let doc = document(
            "{channels: {telegram: {dmPolicy: 'open', botToken: 'x', historyLimit: 5, defaultAccount: 'Work',
                accounts: {Work: {dmPolicy: 'disabled'}, play: {enabled: false}}}}}",
        );
        assert_eq!(Section::accounts(&doc, "telegram"), ["default", "work", "play"]);
        assert_eq!(Section::default_account(&doc, "telegram"), "work");
        let work = Section::new(&doc, "telegram", "work");
        assert_eq!((work.text("dmPolicy"), work.number("historyLimit")), (Some("disabled"), Some(5)));
        assert!(work.enabled() && !Section::new(&doc, "telegram", "play").enabled());
        assert_eq!(work.path("dmPolicy"), "channels.telegram.accounts.work.dmPolicy");
        assert_eq!(Section::new(&doc, "telegram", "default").text("dmPolicy"), Some("open"));
        assert!(Section::accounts(&doc, "discord").is_empty());
    }
}
