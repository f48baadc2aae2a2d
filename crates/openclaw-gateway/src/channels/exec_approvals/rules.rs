//! `channels.<channel>.execApprovals`: who is asked for leave, where, and about what.

use openclaw_channels::{message::Address, section::Section};
use openclaw_config::document::{Document, Node};
use openclaw_protocol::method::exec::ApprovalRequest;

use super::super::access;

/// Longest filter that is tried as a pattern, in bytes.
const MAX_PATTERN: usize = 512;

/// Where questions go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Dm,
    Channel,
    Both,
}

/// The settings of one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    pub channel: String,
    pub account: String,
    /// Ids of users; never empty.
    pub approvers: Vec<String>,
    /// Agents that are asked about; `None` for all.
    pub agents: Option<Vec<String>>,
    /// Parts or patterns of session keys; `None` for all.
    pub sessions: Option<Vec<String>>,
    pub target: Target,
    /// Takes the messages to approvers away once they are answered.
    pub cleanup: bool,
}

/// What an account's section says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    Off,
    /// Switched on, and there is nobody to ask.
    Nobody,
    On(Rules),
}

/// A place to ask at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub at: Address,
    /// A direct chat with an approver.
    pub direct: bool,
}

/// Reads the section of an account.
pub fn read(document: &Document, channel: &str, account: &str) -> Setting {
    let section = Section::new(document, channel, account);
    let own = section.own("execApprovals");
    let root = section.root("execApprovals");
    let get = |key: &str| own.and_then(|node| node.entry(key)).or_else(|| root.and_then(|node| node.entry(key)));
    let enabled = get("enabled");
    let (on, explicit) = match (enabled.and_then(Node::as_bool), enabled.and_then(Node::as_str)) {
        (Some(on), _) => (on, on),
        (None, Some("auto")) => (true, false),
        // The manual: Discord has to be told, Telegram asks by itself when it knows whom.
        _ => (channel == "telegram" && section.exists(), false),
    };
    if !on || section.flag("enabled") == Some(false) {
        return Setting::Off;
    }
    let named = get("approvers").map(|node| texts(node, channel)).unwrap_or_default();
    let owners = || access::owners(document).iter().filter_map(|entry| user(channel, entry)).collect();
    let mut approvers = if named.is_empty() { owners() } else { named };
    approvers.dedup();
    if approvers.is_empty() {
        return if explicit { Setting::Nobody } else { Setting::Off };
    }
    let list = |key: &str| {
        let items = get(key)?.as_array()?.iter().filter_map(Node::as_str).map(str::trim);
        Some(items.filter(|item| !item.is_empty()).map(str::to_owned).collect::<Vec<_>>())
            .filter(|items| !items.is_empty())
    };
    Setting::On(Rules {
        channel: channel.to_owned(),
        account: account.to_owned(),
        approvers,
        agents: list("agentFilter"),
        sessions: list("sessionFilter"),
        target: match get("target").and_then(Node::as_str) {
            Some("channel") => Target::Channel,
            Some("both") => Target::Both,
            _ => Target::Dm,
        },
        cleanup: get("cleanupAfterResolve").and_then(Node::as_bool) == Some(true),
    })
}

fn texts(node: &Node, channel: &str) -> Vec<String> {
    let text = |item: &Node| item.as_str().map(str::to_owned).or_else(|| item.as_i64().map(|id| id.to_string()));
    let items = node.as_array().unwrap_or_default().iter().filter_map(text);
    items.filter_map(|text| user(channel, &text)).collect()
}

/// The user that an entry names on this channel: by id only, since anybody can take a name.
fn user(channel: &str, entry: &str) -> Option<String> {
    let mut entry = entry.trim();
    if let Some(rest) = entry.strip_prefix("<@").and_then(|rest| rest.strip_suffix('>')) {
        entry = rest.trim_start_matches('!');
    }
    let prefixes: &[&str] = if channel == "telegram" { &["telegram:", "tg:"] } else { &["discord:"] };
    let own = prefixes.iter().find_map(|prefix| entry.strip_prefix(prefix));
    let id = own.unwrap_or(entry);
    let id = id.strip_prefix("user:").unwrap_or(id);
    // Ids of the two channels differ in length, so a bare one says whose it is: Discord's have 17 digits and more.
    let digits = id.bytes().all(|byte| byte.is_ascii_digit());
    let fits = if channel == "discord" { (17..=20).contains(&id.len()) } else { (1..=16).contains(&id.len()) };
    (digits && fits).then(|| id.to_owned())
}

impl Rules {
    pub fn is_approver(&self, user: &str) -> bool {
        self.approvers.iter().any(|approver| approver == user)
    }

    /// True when this account asks about the request.
    pub fn covers(&self, request: &ApprovalRequest) -> bool {
        let here = request.turn_source_channel.as_deref() == Some(&self.channel);
        // What came in through one bot is asked about by that bot.
        let other = request.turn_source_account_id.as_deref().is_some_and(|account| account != self.account);
        if here && other {
            return false;
        }
        let agent = request.agent_id.as_deref().or_else(|| request.session_key.as_deref().and_then(agent_of));
        let agent_fits = |agents: &Vec<String>| {
            agent.is_some_and(|agent| agents.iter().any(|wanted| wanted.eq_ignore_ascii_case(agent)))
        };
        let session_fits = |filters: &Vec<String>| {
            request.session_key.as_deref().is_some_and(|key| filters.iter().any(|filter| matches(filter, key)))
        };
        self.agents.as_ref().is_none_or(agent_fits) && self.sessions.as_ref().is_none_or(session_fits)
    }

    /// Where it asks. A chat that cannot be told from the request is replaced by the approvers.
    pub fn places(&self, request: &ApprovalRequest) -> Vec<Place> {
        let origin = self.origin(request);
        let mut places = Vec::new();
        if self.target == Target::Dm || self.target == Target::Both || origin.is_none() {
            places.extend(self.approvers.iter().map(|user| Place { at: self.direct(user), direct: true }));
        }
        if let Some(at) = origin.filter(|_| self.target != Target::Dm) {
            places.push(Place { at, direct: false });
        }
        places
    }

    fn address(&self, chat: &str, thread: Option<&str>) -> Address {
        Address {
            channel: self.channel.clone(),
            account: self.account.clone(),
            chat: chat.to_owned(),
            thread: thread.map(str::to_owned),
        }
    }

    fn direct(&self, user: &str) -> Address {
        match self.channel.as_str() {
            "discord" => self.address(&format!("user:{user}"), None),
            _ => self.address(user, None),
        }
    }

    /// The group or channel the request came from, by its turn source, else by its session key.
    fn origin(&self, request: &ApprovalRequest) -> Option<Address> {
        let key = request.session_key.as_deref().and_then(|key| self.of_session(key));
        if request.turn_source_channel.as_deref() != Some(&self.channel) {
            return key;
        }
        let Some(to) = request.turn_source_to.as_deref().map(str::trim).filter(|to| !to.is_empty()) else { return key };
        let chat = to.strip_prefix("channel:").unwrap_or(to);
        let is_group = match self.channel.as_str() {
            // A direct chat of Discord's has an id like any other; only the key tells.
            "discord" => key.is_some() || to.starts_with("channel:"),
            _ => chat.starts_with('-'),
        };
        if !is_group || !chat.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
            return key;
        }
        let thread = request.turn_source_thread_id.as_ref().and_then(|thread| match thread {
            serde_json::Value::String(text) => Some(text.clone()),
            serde_json::Value::Number(number) => Some(number.to_string()),
            _ => None,
        });
        Some(self.address(chat, thread.as_deref()))
    }

    /// `agent:<agent>:discord:channel:<id>[:thread:<id>]`, `agent:<agent>:telegram:group:<id>[:topic:<id>]`
    fn of_session(&self, key: &str) -> Option<Address> {
        let mut parts = key.split(':').skip(2);
        let (channel, kind, chat) = (parts.next()?, parts.next()?, parts.next()?);
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        if channel != self.channel || !matches!(kind, "channel" | "group") || !digits(chat) {
            return None;
        }
        let thread = match (parts.next(), parts.next()) {
            (Some("thread" | "topic"), Some(thread)) if digits(thread) => Some(thread),
            _ => None,
        };
        Some(self.address(chat, thread))
    }
}

fn agent_of(key: &str) -> Option<&str> {
    key.strip_prefix("agent:")?.split(':').next()
}

/// A part of the key, or a pattern that fits somewhere in it.
fn matches(filter: &str, key: &str) -> bool {
    key.contains(filter)
        || (filter.len() <= MAX_PATTERN && regex_lite::Regex::new(filter).is_ok_and(|pattern| pattern.is_match(key)))
}

#[cfg(test)]
mod tests {
    use openclaw_config::{Env, Paths, Profile};
    use serde_json::{Value, json};

    use super::*;

    const ADA: &str = "987654321098765432";

    fn document(text: &str) -> Document {
        let env = Env::from_pairs([("HOME", "/home/x")]);
        let paths = Paths::resolve(&env, Profile::Default).expect("paths");
        Document::from_text(text, &paths, &env).expect("a config")
    }

    fn discord(approvals: &str) -> Setting {
        let text =
            format!("{{channels:{{discord:{{execApprovals:{approvals}}}}},commands:{{ownerAllowFrom:['{ADA}']}}}}");
        read(&document(&text), "discord", "default")
    }

    fn on(approvals: &str) -> Rules {
        match discord(approvals) {
            Setting::On(rules) => rules,
            other => panic!("{approvals}: {other:?}"),
        }
    }

    fn request(fields: &Value) -> ApprovalRequest {
        let mut whole = json!({"command": "ls", "systemRunBinding": null, "systemRunPlan": null, "cwd": null,
            "nodeId": null, "host": null, "security": null, "ask": null, "warningText": null, "scope": null,
            "commandAnalysis": null, "allowedDecisions": ["allow-once", "deny"], "agentId": null,
            "resolvedPath": null, "sessionKey": null, "sessionId": null, "runId": null, "toolCallId": null,
            "turnSourceChannel": null, "turnSourceTo": null, "turnSourceAccountId": null,
            "turnSourceThreadId": null, "cronExecutionSource": null, "cronOperationBinding": null});
        for (key, value) in fields.as_object().expect("fields") {
            whole[key] = value.clone();
        }
        serde_json::from_value(whole).expect("a request")
    }

    /// The manual, "Approvals in Discord".
    #[test]
    fn when_it_is_on() {
        assert_eq!(discord("{}"), Setting::Off, "Discord has to be told");
        assert_eq!(discord("{enabled:false}"), Setting::Off);
        assert_eq!(on("{enabled:true}").approvers, [ADA]);
        assert_eq!(on("{enabled:'auto'}").approvers, [ADA]);
        assert_eq!(
            on("{enabled:true,approvers:['<@123456789012345678>', 'discord:223456789012345678']}").approvers,
            ["123456789012345678", "223456789012345678"]
        );
        // Names and ids of other channels are nobody.
        let nobody =
            "{channels:{discord:{execApprovals:{enabled:true}}},commands:{ownerAllowFrom:['ada','telegram:7','*']}}";
        assert_eq!(read(&document(nobody), "discord", "default"), Setting::Nobody);
        let auto = nobody.replace("true", "'auto'");
        assert_eq!(read(&document(&auto), "discord", "default"), Setting::Off);
        // allowFrom opens the chat, not the shell.
        let allowed = format!("{{channels:{{discord:{{allowFrom:['{ADA}'],execApprovals:{{enabled:true}}}}}}}}");
        assert_eq!(read(&document(&allowed), "discord", "default"), Setting::Nobody);
        let telegram = "{channels:{telegram:{}},commands:{ownerAllowFrom:['tg:7']}}";
        let Setting::On(rules) = read(&document(telegram), "telegram", "default") else { panic!("Telegram asks") };
        assert_eq!(rules.approvers, ["7"]);
    }

    #[test]
    fn what_it_is_asked_about() {
        let check = |approvals: &str, fields: Value, expected: bool| {
            assert_eq!(on(approvals).covers(&request(&fields)), expected, "{approvals} {fields}");
        };
        let main = json!({"agentId": "main", "sessionKey": "agent:main:discord:channel:5"});
        check("{enabled:true}", json!({}), true);
        check("{enabled:true,agentFilter:['main']}", main.clone(), true);
        check("{enabled:true,agentFilter:['ops']}", main.clone(), false);
        check("{enabled:true,agentFilter:['main']}", json!({}), false);
        check("{enabled:true,agentFilter:['main']}", json!({"sessionKey": "agent:main:main"}), true);
        check("{enabled:true,sessionFilter:['discord:']}", main.clone(), true);
        check("{enabled:true,sessionFilter:['telegram:', '^agent:m.*:channel:[0-9]+$']}", main.clone(), true);
        check("{enabled:true,sessionFilter:['telegram:', '(']}", main, false);
        let source =
            |channel: &str, account: &str| json!({"turnSourceChannel": channel, "turnSourceAccountId": account});
        check("{enabled:true}", source("discord", "default"), true);
        check("{enabled:true}", source("discord", "ops"), false);
        check("{enabled:true}", source("telegram", "ops"), true);
    }

    #[test]
    fn where_it_asks() {
        let check = |target: &str, fields: &Value, expected: &[(&str, Option<&str>)]| {
            let places = on(&format!("{{enabled:true,target:'{target}'}}")).places(&request(fields));
            let seen: Vec<_> = places.iter().map(|p| (p.at.chat.as_str(), p.at.thread.as_deref())).collect();
            assert_eq!(seen, expected, "{target} {fields}");
            assert!(places.iter().all(|place| place.direct == place.at.chat.starts_with("user:")));
        };
        let dm = format!("user:{ADA}");
        let dm = (dm.as_str(), None);
        let key = json!({"sessionKey": "agent:main:discord:channel:500:thread:600"});
        check("dm", &key, &[dm]);
        check("channel", &key, &[("500", Some("600"))]);
        check("both", &key, &[dm, ("500", Some("600"))]);
        let source =
            json!({"turnSourceChannel": "discord", "turnSourceTo": "channel:500", "turnSourceThreadId": "600"});
        check("channel", &source, &[("500", Some("600"))]);
        // Nothing to be told from: the approvers.
        check("channel", &json!({"sessionKey": "agent:main:main"}), &[dm]);
        check("channel", &json!({"sessionKey": "agent:main:telegram:group:-5"}), &[dm]);
        let direct = json!({"turnSourceChannel": "discord", "turnSourceTo": "700", "sessionKey": "agent:main:main"});
        check("channel", &direct, &[dm]);
        check("both", &json!({"turnSourceChannel": "discord", "turnSourceTo": "channel:../x"}), &[dm]);
    }
}
