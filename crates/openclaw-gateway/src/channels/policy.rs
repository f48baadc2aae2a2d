//! Whether a message is answered. Pure: the config and the facts in, a verdict out.

use openclaw_channels::message::{ChatKind, Inbound};
use openclaw_config::document::Document;

use super::access::{Direct, DmPolicy, Group, GroupPolicy};

/// What becomes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It starts a run.
    Admit,
    /// A stranger may ask to be let in.
    Pair,
    /// It is allowed and not for us: remembered, so that an answer to a later message knows it.
    Observe,
    /// Nobody reads it; why.
    Refuse(&'static str),
}

/// What is known besides the config.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts {
    /// The owner let this sender in before.
    pub paired: bool,
    /// It names the bot, answers it, matches a mention pattern, or is a command.
    pub addressed: bool,
}

/// Judges a message.
pub fn judge(document: &Document, message: &Inbound, facts: Facts) -> Verdict {
    // Guilds have rules of their own (roles, slugs, loops of bots), which the channel has applied.
    if message.from.channel == openclaw_channels::discord::ID && message.kind != ChatKind::Direct {
        let aside = message.edited || (message.needs_mention && !facts.addressed);
        return if aside { Verdict::Observe } else { Verdict::Admit };
    }
    // Two bots that answer each other never end.
    if message.sender.is_bot {
        return Verdict::Refuse("the sender is a bot");
    }
    match message.kind {
        ChatKind::Direct => {
            direct(&Direct::read(document, &message.from.channel, &message.from.account), message, facts)
        }
        ChatKind::Group | ChatKind::Channel => group(&Group::read(document, message), message, facts),
    }
}

fn direct(rule: &Direct, message: &Inbound, facts: Facts) -> Verdict {
    let listed = rule.allow.has(&message.sender);
    let verdict = match rule.policy {
        DmPolicy::Disabled => return Verdict::Refuse("dmPolicy is disabled"),
        // `open` needs `*`: a list of names stays a list of names.
        DmPolicy::Open if listed => Verdict::Admit,
        DmPolicy::Open => Verdict::Refuse("dmPolicy is open, and allowFrom has neither \"*\" nor the sender"),
        DmPolicy::Allowlist if listed => Verdict::Admit,
        DmPolicy::Allowlist => Verdict::Refuse("the sender is not in allowFrom"),
        DmPolicy::Pairing if listed || facts.paired => Verdict::Admit,
        DmPolicy::Pairing => Verdict::Pair,
    };
    // What was said before has its answer or its run.
    if verdict == Verdict::Admit && message.edited {
        Verdict::Refuse("an edited message is not answered again")
    } else {
        verdict
    }
}

fn group(rule: &Group, message: &Inbound, facts: Facts) -> Verdict {
    if rule.policy == GroupPolicy::Disabled {
        return Verdict::Refuse("groupPolicy is disabled");
    }
    if !rule.listed {
        return Verdict::Refuse("the group is not in the config");
    }
    if !rule.enabled {
        return Verdict::Refuse("the group is switched off");
    }
    // Approval for direct messages is not asked here: it opens no group.
    if rule.policy == GroupPolicy::Allowlist && !rule.allow.has(&message.sender) {
        return Verdict::Refuse("the sender is not in groupAllowFrom");
    }
    if message.edited || (rule.require_mention && !facts.addressed) {
        return Verdict::Observe;
    }
    Verdict::Admit
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

    fn message(kind: ChatKind, sender: &str, chat: &str) -> Inbound {
        Inbound {
            from: Address { channel: "telegram".into(), account: "default".into(), chat: chat.into(), thread: None },
            kind,
            chat_title: None,
            sender: Sender { id: sender.into(), username: Some("Ada_L".into()), name: "Ada".into(), is_bot: false },
            message_id: "1".into(),
            arrival: "1".into(),
            sent_at_ms: 0,
            text: "hi".into(),
            media: Vec::new(),
            reply_to: None,
            mentions_me: false,
            space: None,
            roles: Vec::new(),
            needs_mention: false,
            edited: false,
        }
    }

    fn word(verdict: &Verdict) -> &str {
        match verdict {
            Verdict::Admit => "admit",
            Verdict::Pair => "pair",
            Verdict::Observe => "observe",
            Verdict::Refuse(_) => "refuse",
        }
    }

    #[test]
    fn direct_messages() {
        let check = |telegram: &str, paired: bool, expected: &str| {
            let document = document(&format!(
                "channels: {{telegram: {{{telegram}}}}}, accessGroups: {{ops: {{members: {{telegram: ['7']}}}}, \
                 all: {{members: {{'*': ['7']}}}}}}"
            ));
            let facts = Facts { paired, addressed: false };
            let verdict = judge(&document, &message(ChatKind::Direct, "7", "7"), facts);
            assert_eq!(word(&verdict), expected, "{telegram}");
        };
        check("", false, "pair");
        check("", true, "admit");
        check("dmPolicy: 'pairing', allowFrom: [7]", false, "admit");
        check("dmPolicy: 'pairing', allowFrom: ['telegram:7']", false, "admit");
        check("dmPolicy: 'pairing', allowFrom: ['TG:7']", false, "admit");
        // A name can change hands; only the number stays somebody's.
        check("dmPolicy: 'pairing', allowFrom: ['@ada_l']", false, "pair");
        check("dmPolicy: 'pairing', allowFrom: ['ada_l']", false, "pair");
        check("dmPolicy: 'pairing', allowFrom: ['77']", false, "pair");
        check("dmPolicy: 'allowlist', allowFrom: ['7']", false, "admit");
        check("dmPolicy: 'allowlist', allowFrom: ['accessGroup:ops']", false, "admit");
        check("dmPolicy: 'allowlist', allowFrom: ['accessGroup:all']", false, "admit");
        check("dmPolicy: 'allowlist', allowFrom: ['accessGroup:nobody']", false, "refuse");
        // An approval given while the policy was another one opens no list.
        check("dmPolicy: 'allowlist', allowFrom: ['8']", true, "refuse");
        check("dmPolicy: 'allowlist'", false, "refuse");
        check("dmPolicy: 'open', allowFrom: ['*']", false, "admit");
        check("dmPolicy: 'open'", false, "refuse");
        check("dmPolicy: 'open', allowFrom: ['8']", true, "refuse");
        check("dmPolicy: 'open', allowFrom: ['7']", false, "admit");
        check("dmPolicy: 'disabled', allowFrom: ['*']", true, "refuse");
        check("dmPolicy: 'nonsense'", false, "pair");
        // An account does not open what the channel closed; nor closes what it says itself.
        check("allowFrom: ['8'], dmPolicy: 'open', accounts: {default: {allowFrom: ['*']}}", false, "refuse");
        check("allowFrom: ['7'], accounts: {default: {allowFrom: ['8']}}", false, "pair");
        check("dmPolicy: 'disabled', accounts: {default: {dmPolicy: 'pairing'}}", false, "pair");
    }

    #[test]
    fn groups() {
        let check = |telegram: &str, addressed: bool, expected: &str| {
            let document = document(&format!("channels: {{telegram: {{{telegram}}}}}"));
            let mut message = message(ChatKind::Group, "7", "-100");
            message.from.thread = Some("42".into());
            let verdict = judge(&document, &message, Facts { paired: true, addressed });
            assert_eq!(word(&verdict), expected, "{telegram}");
        };
        // Paired for direct messages only.
        check("", true, "refuse");
        check("groupPolicy: 'open'", true, "admit");
        check("groupPolicy: 'open'", false, "observe");
        check("groupPolicy: 'disabled', groups: {'*': {}}, allowFrom: ['*']", true, "refuse");
        check("groups: {'*': {}}", true, "refuse");
        check("groups: {'*': {}}, allowFrom: ['7']", true, "admit");
        check("groups: {'*': {}}, allowFrom: ['7'], groupAllowFrom: ['8']", true, "refuse");
        check("groups: {'*': {}}, groupAllowFrom: ['*']", true, "admit");
        check("groups: {'-100': {}}, groupAllowFrom: ['7']", true, "admit");
        check("groups: {'-200': {}}, groupAllowFrom: ['7']", true, "refuse");
        // Listing groups is an allow-list of them under `open`, too.
        check("groupPolicy: 'open', groups: {'-200': {}}", true, "refuse");
        check("groups: {'-100': {enabled: false}}, groupAllowFrom: ['7']", true, "refuse");
        check("groups: {'-100': {requireMention: false}}, groupAllowFrom: ['7']", false, "admit");
        check("groups: {'*': {requireMention: false}, '-100': {}}, groupAllowFrom: ['7']", false, "admit");
        check("groups: {'-100': {groupPolicy: 'open', requireMention: false}}", false, "admit");
        check("groups: {'-100': {allowFrom: ['7']}}, groupAllowFrom: ['8']", true, "admit");
        check("groups: {'-100': {allowFrom: ['8']}}, groupAllowFrom: ['7']", true, "refuse");
        check("groups: {'-100': {topics: {'42': {requireMention: false}}}}, groupAllowFrom: ['7']", false, "admit");
        check("groups: {'-100': {topics: {'*': {enabled: false}}}}, groupAllowFrom: ['7']", true, "refuse");
        check("groups: {'-100': {}}, groupAllowFrom: ['7'], accounts: {default: {groups: {}}}", true, "refuse");
    }

    /// The channel has judged server, room and sender; whether a name was called is judged here.
    #[test]
    fn discord_servers() {
        let document = document("channels: {discord: {}}");
        let check = |needs_mention: bool, addressed: bool, expected: &str| {
            let mut message = message(ChatKind::Channel, "7", "5");
            message.from.channel = "discord".into();
            message.needs_mention = needs_mention;
            assert_eq!(word(&judge(&document, &message, Facts { paired: false, addressed })), expected);
        };
        check(false, false, "admit");
        check(true, false, "observe");
        check(true, true, "admit");
    }

    #[test]
    fn bots_and_edits() {
        let document = document("channels: {telegram: {dmPolicy: 'open', allowFrom: ['*']}}");
        let mut bot = message(ChatKind::Direct, "9", "9");
        bot.sender.is_bot = true;
        assert_eq!(word(&judge(&document, &bot, Facts::default())), "refuse");
        let mut edited = message(ChatKind::Direct, "9", "9");
        edited.edited = true;
        assert_eq!(word(&judge(&document, &edited, Facts::default())), "refuse");
    }

    #[test]
    fn owners_by_channel() {
        let check = |list: &str, channel: &str, expected: bool| {
            let document = document(&format!("commands: {{ownerAllowFrom: [{list}]}}"));
            let sender = message(ChatKind::Direct, "7", "7").sender;
            assert_eq!(super::super::access::is_owner(&document, channel, &sender), expected, "{list}");
        };
        check("'telegram:7'", "telegram", true);
        check("'tg:7'", "telegram", true);
        check("'telegram:7'", "discord", false);
        check("7", "telegram", true);
        check("'7'", "discord", true);
        check("'telegram:77'", "telegram", false);
        // Nobody becomes owner by a star or a name.
        check("'*'", "telegram", false);
        check("'@ada_l'", "telegram", false);
        check("", "telegram", false);
    }
}
