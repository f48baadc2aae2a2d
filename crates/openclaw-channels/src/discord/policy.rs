//! Which guild messages are for us: `groupPolicy`, `guilds`, mentions, other bots. Pure.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

/// Pairs of channel and bot that are watched for loops.
const MAX_PAIRS: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupPolicy {
    Open,
    Allowlist,
    Disabled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllowBots {
    None,
    /// Only those that name us in the text.
    Mentions,
    All,
}

/// What the config says of guilds.
#[derive(Clone, Debug)]
pub struct GuildRules {
    pub group_policy: GroupPolicy,
    pub allow_bots: AllowBots,
    /// `dangerouslyAllowNameMatching`: names, which anybody can take, count as well as ids.
    pub match_names: bool,
    /// By id, slug or `*`.
    pub guilds: BTreeMap<String, GuildRule>,
    pub bot_events: usize,
    pub bot_window: Duration,
    pub bot_cooldown: Duration,
}

#[derive(Clone, Debug, Default)]
pub struct GuildRule {
    pub slug: Option<String>,
    pub rule: ChannelRule,
    /// By id, name, slug or `*`. Any entry makes this an allow-list.
    pub channels: BTreeMap<String, ChannelRule>,
}

#[derive(Clone, Debug)]
pub struct ChannelRule {
    pub enabled: bool,
    pub require_mention: Option<bool>,
    pub ignore_other_mentions: Option<bool>,
    pub users: Option<Vec<String>>,
    pub roles: Option<Vec<String>>,
}

impl Default for ChannelRule {
    fn default() -> Self {
        Self { enabled: true, require_mention: None, ignore_other_mentions: None, users: None, roles: None }
    }
}

/// A message in a guild, as far as the rules look at it.
#[derive(Clone, Debug, Default)]
pub struct Facts<'a> {
    pub guild: &'a str,
    pub guild_name: Option<&'a str>,
    pub channel: &'a str,
    pub channel_name: Option<&'a str>,
    /// Of a thread.
    pub parent: Option<&'a str>,
    pub parent_name: Option<&'a str>,
    pub sender: &'a str,
    pub sender_names: Vec<&'a str>,
    pub roles: &'a [String],
    pub is_bot: bool,
    /// Names us in the text, by user or role.
    pub names_me: bool,
    /// Names us, or answers us.
    pub mentions_me: bool,
    /// Names or answers somebody else.
    pub mentions_others: bool,
}

/// How a message is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is for us.
    Whole,
    /// It may be written there, and does not name us in Discord's ways.
    IfNamed,
}

impl GuildRules {
    /// Whether the message is taken.
    ///
    /// # Errors
    /// Why not, for the log.
    pub fn admit(&self, facts: &Facts<'_>) -> Result<Taken, &'static str> {
        if facts.is_bot {
            match self.allow_bots {
                AllowBots::None => return Err("written by a bot (channels.discord.allowBots)"),
                AllowBots::Mentions if !facts.names_me => return Err("written by a bot that does not name us"),
                AllowBots::Mentions | AllowBots::All => {}
            }
        }
        let guild = match (self.group_policy, self.guild(facts)) {
            (GroupPolicy::Disabled, _) => return Err("groupPolicy is disabled"),
            (GroupPolicy::Allowlist, None) => return Err("the server is not in channels.discord.guilds"),
            (_, guild) => guild,
        };
        let open = GuildRule::default();
        let guild = guild.unwrap_or(&open);
        let channel = match guild.channels.is_empty() {
            true => &guild.rule,
            false => self.channel(guild, facts).ok_or("the channel is not in the server's channels")?,
        };
        if !channel.enabled || !guild.rule.enabled {
            return Err("the channel is switched off");
        }
        // Either list of the channel replaces both of the server.
        let lists = if channel.users.is_some() || channel.roles.is_some() { channel } else { &guild.rule };
        if !self.lets_in(lists, facts) {
            return Err("the sender is in none of the users and roles that may write there");
        }
        let either = |pick: fn(&ChannelRule) -> Option<bool>| pick(channel).or_else(|| pick(&guild.rule));
        let ignore = either(|rule| rule.ignore_other_mentions).unwrap_or(false);
        if ignore && facts.mentions_others && !facts.mentions_me {
            return Err("it names somebody else (ignoreOtherMentions)");
        }
        match either(|rule| rule.require_mention).unwrap_or(true) && !facts.mentions_me {
            false => Ok(Taken::Whole),
            // What other bots say to each other is no part of the conversation.
            true if facts.is_bot => Err("written by a bot that does not name us (requireMention)"),
            true => Ok(Taken::IfNamed),
        }
    }

    fn guild(&self, facts: &Facts<'_>) -> Option<&GuildRule> {
        let slug = facts.guild_name.map(slug);
        self.guilds
            .get(facts.guild)
            .or_else(|| {
                let slug = slug.as_deref()?;
                let named =
                    |(key, rule): &(&String, &GuildRule)| key.as_str() == slug || rule.slug.as_deref() == Some(slug);
                // A name is nobody's: an entry under an id holds for that id only.
                self.guilds.iter().filter(|(key, _)| !is_id(key)).find(named).map(|(_, rule)| rule)
            })
            .or_else(|| self.guilds.get("*"))
    }

    fn channel<'a>(&self, guild: &'a GuildRule, facts: &Facts<'_>) -> Option<&'a ChannelRule> {
        let by = |id: Option<&str>, name: Option<&str>| {
            let by_id = id.and_then(|id| guild.channels.get(id));
            by_id.or_else(|| {
                let name = slug(name?);
                guild.channels.iter().find(|(key, _)| !is_id(key) && slug(key) == name).map(|(_, rule)| rule)
            })
        };
        by(Some(facts.channel), facts.channel_name)
            .or_else(|| by(facts.parent, facts.parent_name))
            .or_else(|| guild.channels.get("*"))
    }

    fn lets_in(&self, lists: &ChannelRule, facts: &Facts<'_>) -> bool {
        if lists.users.is_none() && lists.roles.is_none() {
            return true;
        }
        let user = |entry: &String| {
            let id = bare_id(entry);
            id == "*"
                || id == facts.sender
                || (self.match_names && facts.sender_names.iter().any(|name| same_name(id, name)))
        };
        let role = |entry: &String| facts.roles.contains(entry);
        lists.users.iter().flatten().any(user) || lists.roles.iter().flatten().any(role)
    }
}

/// `discord:1`, `user:1`, `<@1>` and `1` are the same user.
pub fn bare_id(entry: &str) -> &str {
    let entry = entry.trim();
    let entry = entry.strip_prefix("<@").and_then(|rest| rest.strip_suffix('>')).unwrap_or(entry);
    let entry = entry.strip_prefix("discord:").unwrap_or(entry);
    entry.strip_prefix("user:").unwrap_or(entry)
}

fn is_id(key: &str) -> bool {
    key.len() >= 15 && key.bytes().all(|byte| byte.is_ascii_digit())
}

fn same_name(entry: &str, name: &str) -> bool {
    entry.trim_start_matches('@').eq_ignore_ascii_case(name)
}

/// Lower case, spaces as `-`, no `#`.
pub fn slug(name: &str) -> String {
    name.trim().trim_start_matches('#').to_lowercase().split_whitespace().collect::<Vec<_>>().join("-")
}

/// Ends conversations between two bots that would never end by themselves.
#[derive(Debug, Default)]
pub struct LoopGuard {
    pairs: HashMap<(String, String), Pair>,
}

#[derive(Debug, Default)]
struct Pair {
    seen: VecDeque<Instant>,
    quiet_until: Option<Instant>,
}

impl LoopGuard {
    /// True while the bot has not said too much in that channel.
    pub fn admit(&mut self, now: Instant, rules: &GuildRules, channel: &str, bot: &str) -> bool {
        if self.pairs.len() >= MAX_PAIRS {
            let fresh = |pair: &Pair| pair.seen.back().is_some_and(|last| now < *last + rules.bot_window);
            self.pairs.retain(|_, pair| fresh(pair) || pair.quiet_until.is_some_and(|until| now < until));
        }
        let key = (channel.to_owned(), bot.to_owned());
        if self.pairs.len() >= MAX_PAIRS && !self.pairs.contains_key(&key) {
            return false;
        }
        let pair = self.pairs.entry(key).or_default();
        if pair.quiet_until.is_some_and(|until| now < until) {
            return false;
        }
        pair.quiet_until = None;
        while pair.seen.front().is_some_and(|first| now >= *first + rules.bot_window) {
            pair.seen.pop_front();
        }
        if pair.seen.len() >= rules.bot_events {
            pair.quiet_until = Some(now + rules.bot_cooldown);
            pair.seen.clear();
            return false;
        }
        pair.seen.push_back(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUILD: &str = "123456789012345678";
    const CHANNEL: &str = "223456789012345678";
    const USER: &str = "987654321098765432";

    fn rules(policy: GroupPolicy, guilds: &[(&str, GuildRule)]) -> GuildRules {
        GuildRules {
            group_policy: policy,
            allow_bots: AllowBots::None,
            match_names: false,
            guilds: guilds.iter().map(|(key, rule)| ((*key).to_owned(), rule.clone())).collect(),
            bot_events: 3,
            bot_window: Duration::from_secs(60),
            bot_cooldown: Duration::from_secs(60),
        }
    }

    fn facts() -> Facts<'static> {
        Facts {
            guild: GUILD,
            guild_name: Some("Friends of OpenClaw"),
            channel: CHANNEL,
            channel_name: Some("General"),
            sender: USER,
            sender_names: vec!["ada"],
            names_me: true,
            mentions_me: true,
            ..Facts::default()
        }
    }

    fn users(users: &[&str]) -> ChannelRule {
        ChannelRule { users: Some(users.iter().map(|u| (*u).to_owned()).collect()), ..ChannelRule::default() }
    }

    fn with_channels(channels: &[(&str, ChannelRule)]) -> GuildRule {
        let channels = channels.iter().map(|(key, rule)| ((*key).to_owned(), rule.clone())).collect();
        GuildRule { channels, ..GuildRule::default() }
    }

    #[track_caller]
    fn check(rules: &GuildRules, facts: &Facts<'_>, expected: bool) {
        assert_eq!(rules.admit(facts) == Ok(Taken::Whole), expected, "{:?}", rules.admit(facts));
    }

    /// The rules of the manual, "Discord access control", guild policy.
    #[test]
    fn guild_policy() {
        use GroupPolicy::{Allowlist, Disabled, Open};
        let plain = GuildRule::default();
        check(&rules(Open, &[]), &facts(), true);
        check(&rules(Disabled, &[(GUILD, plain.clone())]), &facts(), false);
        check(&rules(Allowlist, &[]), &facts(), false);
        check(&rules(Allowlist, &[(GUILD, plain.clone())]), &facts(), true);
        check(&rules(Allowlist, &[("friends-of-openclaw", plain.clone())]), &facts(), true);
        check(&rules(Allowlist, &[("999999999999999999", plain.clone())]), &facts(), false);
        let slug = GuildRule { slug: Some("friends-of-openclaw".into()), ..GuildRule::default() };
        check(&rules(Allowlist, &[("999999999999999999", slug)]), &facts(), false);
        check(&rules(Allowlist, &[("*", plain)]), &facts(), true);
        // One channel entry denies the others, unless there is "*".
        let other = with_channels(&[("help", ChannelRule::default())]);
        check(&rules(Allowlist, &[(GUILD, other.clone())]), &facts(), false);
        check(&rules(Open, &[(GUILD, other)]), &facts(), false);
        for key in [CHANNEL, "general", "*"] {
            check(&rules(Allowlist, &[(GUILD, with_channels(&[(key, ChannelRule::default())]))]), &facts(), true);
        }
        let off = ChannelRule { enabled: false, ..ChannelRule::default() };
        let off = with_channels(&[(CHANNEL, off), ("*", ChannelRule::default())]);
        check(&rules(Allowlist, &[(GUILD, off)]), &facts(), false);
        // A thread falls back to its parent's entry.
        let thread = Facts { channel: "5", channel_name: Some("plans"), parent: Some(CHANNEL), ..facts() };
        check(&rules(Allowlist, &[(GUILD, with_channels(&[(CHANNEL, ChannelRule::default())]))]), &thread, true);
    }

    #[test]
    fn users_and_roles() {
        use GroupPolicy::Allowlist;
        let guild = |rule: ChannelRule| rules(Allowlist, &[(GUILD, GuildRule { rule, ..GuildRule::default() })]);
        for entry in [USER, "discord:987654321098765432", "<@987654321098765432>", "user:987654321098765432", "*"] {
            check(&guild(users(&[entry])), &facts(), true);
        }
        check(&guild(users(&["1"])), &facts(), false);
        check(&guild(users(&[])), &facts(), false);
        // Names count only when that danger is asked for.
        check(&guild(users(&["ada"])), &facts(), false);
        check(&GuildRules { match_names: true, ..guild(users(&["@Ada"])) }, &facts(), true);
        // Either list lets in.
        let both = ChannelRule { roles: Some(vec!["77".into()]), ..users(&["1"]) };
        let roles = ["77".to_owned()];
        check(&guild(both.clone()), &facts(), false);
        check(&guild(both), &Facts { roles: &roles, ..facts() }, true);
        // A channel's list replaces the server's.
        let mut open_room = with_channels(&[(CHANNEL, users(&["*"]))]);
        open_room.rule = users(&["1"]);
        check(&rules(Allowlist, &[(GUILD, open_room)]), &facts(), true);
    }

    #[test]
    fn mentions() {
        use GroupPolicy::Open;
        let unnamed = Facts { names_me: false, mentions_me: false, ..facts() };
        check(&rules(Open, &[]), &unnamed, false);
        // It may still be for us by a pattern, and is remembered otherwise.
        assert_eq!(rules(Open, &[]).admit(&unnamed), Ok(Taken::IfNamed));
        let mut guild = GuildRule::default();
        guild.rule.require_mention = Some(false);
        check(&rules(Open, &[(GUILD, guild.clone())]), &unnamed, true);
        // The channel's word goes before the server's.
        let strict = ChannelRule { require_mention: Some(true), ..ChannelRule::default() };
        let strict = GuildRule { channels: with_channels(&[(CHANNEL, strict)]).channels, ..guild.clone() };
        check(&rules(Open, &[(GUILD, strict)]), &unnamed, false);
        guild.rule.ignore_other_mentions = Some(true);
        let rules = rules(Open, &[(GUILD, guild)]);
        check(&rules, &Facts { mentions_others: true, ..unnamed.clone() }, false);
        check(&rules, &Facts { mentions_others: true, ..facts() }, true);
        check(&rules, &unnamed, true);
    }

    #[test]
    fn other_bots() {
        let bot = Facts { is_bot: true, ..facts() };
        let with = |allow_bots| GuildRules { allow_bots, ..rules(GroupPolicy::Open, &[]) };
        check(&with(AllowBots::None), &bot, false);
        check(&with(AllowBots::All), &bot, true);
        check(&with(AllowBots::Mentions), &bot, true);
        // Answering us is not naming us.
        check(&with(AllowBots::Mentions), &Facts { names_me: false, ..bot }, false);
    }

    #[test]
    fn two_bots_do_not_talk_for_ever() {
        let (mut guard, now) = (LoopGuard::default(), Instant::now());
        let rules = rules(GroupPolicy::Open, &[]);
        let mut says = |bot: &str, at: u64| guard.admit(now + Duration::from_secs(at), &rules, "c", bot);
        assert!(says("b", 0) && says("b", 1) && says("b", 2));
        assert!(!says("b", 3), "the fourth within the window");
        assert!(says("other", 3));
        assert!(!says("b", 62), "still quiet");
        assert!(says("b", 63));
    }
}
