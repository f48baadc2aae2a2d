//! The section `channels.discord` as this channel reads it. Who may write in direct messages (`dmPolicy`, `allowFrom`) is
//! the inbox's business.

use std::{collections::BTreeMap, time::Duration};

use openclaw_config::{
    Document,
    document::Node,
    env,
    secret_ref::{self, SecretContext, SecretInput},
};
use openclaw_protocol::Secret;

use super::{
    chunk,
    machine::Intents,
    net::{Base, BaseError, Proxy},
    policy::{AllowBots, ChannelRule, GroupPolicy, GuildRule, GuildRules},
};

/// The account that needs no entry in `accounts`.
pub const DEFAULT_ACCOUNT: &str = "default";
/// Default of `mediaMaxMb`, as in the reference.
const MEDIA_MAX_MB: f64 = 100.0;
/// Default of `maxLinesPerMessage`, as in the reference.
const MAX_LINES: usize = 17;

/// An account that is to run, or why it cannot.
#[derive(Debug)]
pub struct Account {
    pub id: String,
    /// The error is for its owner: what is missing and how to set it.
    pub settings: Result<Settings, String>,
}

/// Settings of one account.
#[derive(Clone, Debug)]
pub struct Settings {
    pub account: String,
    pub(super) token: Secret,
    token_source: &'static str,
    pub(super) base: Base,
    pub(super) proxy: Option<Proxy>,
    pub(super) intents: Intents,
    pub(super) rules: GuildRules,
    pub(super) dm_enabled: bool,
    /// Group DMs that are listened to; `None` when none is, an empty list for all.
    pub(super) group_dms: Option<Vec<String>>,
    /// UTF-16 code units.
    pub(super) text_limit: usize,
    pub(super) max_lines: usize,
    pub(super) media_max_bytes: u64,
    pub(super) reply_to: ReplyTo,
    pub(super) suppress_embeds: bool,
}

/// `replyToMode`: on which pieces of an answer the reply reference goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyTo {
    /// On the first one, if the sender asks for it; the inbox does not ask by itself.
    First,
    All,
}

/// Equal ones need no restart.
impl PartialEq for Settings {
    fn eq(&self, other: &Self) -> bool {
        // Secrets are compared as such; everything else is in the debug form.
        self.token.matches(other.token.expose())
            && Proxy::same(self.proxy.as_ref(), other.proxy.as_ref())
            && format!("{self:?}") == format!("{other:?}")
    }
}

impl Settings {
    /// Reads one account, which need not be in the config. SecretRefs are read here: call it from a thread that may block.
    ///
    /// # Errors
    /// What is missing and how to set it, for the owner.
    pub fn read(context: SecretContext<'_>, account: &str) -> Result<Self, String> {
        let root = section(context.doc).ok_or("there is no channels.discord in the config")?;
        read(account, Scope::new(root, account), context)
    }

    /// Two accounts with the same are the same bot.
    pub fn token(&self) -> &Secret {
        &self.token
    }

    /// Where the token came from: `config` or `env`.
    pub fn token_source(&self) -> &'static str {
        self.token_source
    }
}

/// The accounts that `channels.discord` asks for; none without the section, or when it is disabled. SecretRefs are read
/// here: call it from a thread that may block.
pub fn accounts(context: SecretContext<'_>) -> Vec<Account> {
    let Some(root) = section(context.doc) else { return Vec::new() };
    if root.entry("enabled").and_then(Node::as_bool) == Some(false) {
        return Vec::new();
    }
    let named = root.entry("accounts").and_then(Node::as_object).unwrap_or_default();
    let mut ids: Vec<&str> = named.iter().map(|(id, _)| id.as_str()).collect();
    let default_token = root.entry("token").is_some() || context.env.get(env::DISCORD_BOT_TOKEN).is_some();
    if !ids.contains(&DEFAULT_ACCOUNT) && (ids.is_empty() || default_token) {
        ids.insert(0, DEFAULT_ACCOUNT);
    }
    let scope = |id: &str| Scope::new(root, id);
    let enabled = |id: &&str| scope(id).account.and_then(|node| node.entry("enabled")?.as_bool()) != Some(false);
    ids.iter()
        .copied()
        .filter(enabled)
        .map(|id| Account { id: id.to_owned(), settings: read(id, scope(id), context) })
        .collect()
}

fn section(doc: &Document) -> Option<&Node> {
    doc.get("channels.discord").filter(|node| node.as_object().is_some())
}

/// A channel's settings below those of one account.
#[derive(Clone, Copy)]
struct Scope<'a> {
    root: &'a Node,
    account: Option<&'a Node>,
}

impl<'a> Scope<'a> {
    fn new(root: &'a Node, id: &str) -> Self {
        let named = root.entry("accounts").and_then(Node::as_object).unwrap_or_default();
        let account = named.iter().find(|(name, _)| crate::section::normal(name) == crate::section::normal(id));
        Self { root, account: account.map(|(_, node)| node) }
    }

    /// The account's value, else the channel's.
    fn get(self, path: &[&str]) -> Option<&'a Node> {
        let walk = |node: &'a Node| path.iter().try_fold(node, |node, step| node.entry(step));
        self.account.and_then(walk).or_else(|| walk(self.root))
    }

    fn flag(self, path: &[&str], default: bool) -> bool {
        self.get(path).and_then(Node::as_bool).unwrap_or(default)
    }

    fn text(self, path: &[&str]) -> Option<&'a str> {
        self.get(path).and_then(Node::as_str)
    }

    fn count(self, path: &[&str]) -> Option<usize> {
        self.get(path).and_then(Node::as_i64).and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0)
    }
}

fn read(id: &str, scope: Scope<'_>, context: SecretContext<'_>) -> Result<Settings, String> {
    let (token, token_source) = token(id, scope, context)?;
    let base = match context.env.get(env::DISCORD_API_URL) {
        Some(text) => Base::parse(text).map_err(|error: BaseError| format!("{}: {error}", env::DISCORD_API_URL))?,
        None => Base::discord(),
    };
    let proxy = match scope.text(&["proxy"]).map(str::trim).filter(|text| !text.is_empty()) {
        Some(text) => Some(
            Proxy::parse(text)
                .ok_or("channels.discord.proxy must be the URL of an HTTP proxy, such as http://proxy.example:8080")?,
        ),
        None => None,
    };
    let group_channels = || scope.get(&["dm", "groupChannels"]).map(list).unwrap_or_default();
    let megabytes = scope.get(&["mediaMaxMb"]).and_then(number).filter(|n| *n > 0.0).unwrap_or(MEDIA_MAX_MB);
    let limit = scope.count(&["textChunkLimit"]).unwrap_or(chunk::MAX_UNITS);
    Ok(Settings {
        account: id.to_owned(),
        token,
        token_source,
        base,
        proxy,
        intents: Intents {
            message_content: scope.flag(&["intents", "messageContent"], true),
            members: scope.flag(&["intents", "guildMembers"], false),
            presence: scope.flag(&["intents", "presence"], false),
        },
        rules: rules(scope, context.doc),
        dm_enabled: scope.flag(&["dm", "enabled"], true),
        group_dms: scope.flag(&["dm", "groupEnabled"], false).then(group_channels),
        text_limit: limit.clamp(chunk::MIN_UNITS, chunk::MAX_UNITS),
        max_lines: scope.count(&["maxLinesPerMessage"]).unwrap_or(MAX_LINES),
        media_max_bytes: (megabytes * 1024.0 * 1024.0) as u64,
        reply_to: match scope.text(&["replyToMode"]) {
            Some("all") => ReplyTo::All,
            _ => ReplyTo::First,
        },
        suppress_embeds: scope.flag(&["suppressEmbeds"], true),
    })
}

/// The account's own token; the default account also takes the channel's, then the environment's. A reference that cannot
/// be read is never replaced by another token.
fn token(id: &str, scope: Scope<'_>, context: SecretContext<'_>) -> Result<(Secret, &'static str), String> {
    let of_account = scope.account.and_then(|node| node.entry("token"));
    let own = of_account.map(|node| (format!("channels.discord.accounts.{id}.token"), node));
    let of_channel = || scope.root.entry("token").map(|node| ("channels.discord.token".to_owned(), node));
    let is_default = id == DEFAULT_ACCOUNT;
    let configured = own.or_else(|| if is_default { of_channel() } else { None });
    let input = configured.and_then(|(path, node)| SecretInput::from_node(&path, node));
    let secret = match input {
        Some(input) => secret_ref::resolve(&input, &context).map_err(|error| error.to_string())?,
        None => None,
    };
    let from_env = || Some((Secret::from_input(context.env.get(env::DISCORD_BOT_TOKEN)?)?, "env"));
    let secret = secret.map(|secret| (secret, "config"));
    let (secret, source) =
        secret.or_else(|| if is_default { from_env() } else { None }).ok_or_else(|| {
            match is_default {
        true => {
            "there is no bot token; set channels.discord.token or DISCORD_BOT_TOKEN (Discord Developer Portal → your \
                 application → Bot → Reset Token)"
                .to_owned()
        }
        false => format!("there is no bot token; set channels.discord.accounts.{id}.token"),
    }
        })?;
    // People paste it as it stands in an Authorization header.
    let text = secret.expose().strip_prefix("Bot ").unwrap_or(secret.expose()).trim();
    match text.bytes().all(|byte| byte.is_ascii_graphic()) && !text.is_empty() {
        true => Ok((Secret::new(text), source)),
        false => Err("the bot token holds characters that no Discord token has; copy it again".to_owned()),
    }
}

fn rules(scope: Scope<'_>, doc: &Document) -> GuildRules {
    let shared = doc.get("channels.defaults.groupPolicy").and_then(Node::as_str);
    let group_policy = match scope.text(&["groupPolicy"]).or(shared) {
        Some("open") => GroupPolicy::Open,
        Some("disabled") => GroupPolicy::Disabled,
        _ => GroupPolicy::Allowlist,
    };
    let allow_bots = scope.get(&["allowBots"]);
    let guilds = scope.get(&["guilds"]).and_then(Node::as_object).unwrap_or_default();
    let budget = |key: &str, default: i64| {
        let own = scope.get(&["botLoopProtection", key]).and_then(Node::as_i64);
        let shared = || doc.get("channels.defaults.botLoopProtection")?.entry(key)?.as_i64();
        u64::try_from(own.or_else(shared).unwrap_or(default)).unwrap_or_default().max(1)
    };
    GuildRules {
        group_policy,
        allow_bots: match (allow_bots.and_then(Node::as_bool), allow_bots.and_then(Node::as_str)) {
            (Some(true), _) => AllowBots::All,
            (_, Some("mentions")) => AllowBots::Mentions,
            _ => AllowBots::None,
        },
        match_names: scope.flag(&["dangerouslyAllowNameMatching"], false),
        guilds: guilds.iter().map(|(key, node)| (key.clone(), guild(node))).collect(),
        bot_events: usize::try_from(budget("maxEventsPerWindow", 20)).unwrap_or(20),
        bot_window: Duration::from_secs(budget("windowSeconds", 60)),
        bot_cooldown: Duration::from_secs(budget("cooldownSeconds", 60)),
    }
}

fn guild(node: &Node) -> GuildRule {
    let channels = node.entry("channels").and_then(Node::as_object).unwrap_or_default();
    GuildRule {
        slug: node.entry("slug").and_then(Node::as_str).map(str::to_owned),
        rule: channel(node),
        channels: channels.iter().map(|(key, node)| (key.clone(), channel(node))).collect::<BTreeMap<_, _>>(),
    }
}

fn channel(node: &Node) -> ChannelRule {
    let flag = |key: &str| node.entry(key).and_then(Node::as_bool);
    ChannelRule {
        // `allow` is the older name.
        enabled: flag("enabled").or_else(|| flag("allow")).unwrap_or(true),
        require_mention: flag("requireMention"),
        ignore_other_mentions: flag("ignoreOtherMentions"),
        users: node.entry("users").map(list),
        roles: node.entry("roles").map(list),
    }
}

/// A list of ids, which people write as texts or as numbers.
fn list(node: &Node) -> Vec<String> {
    let text = |item: &Node| match item.as_str() {
        Some(text) => Some(text.trim().to_owned()),
        None => item.as_i64().map(|number| number.to_string()),
    };
    node.as_array().unwrap_or_default().iter().filter_map(text).filter(|text| !text.is_empty()).collect()
}

fn number(node: &Node) -> Option<f64> {
    match &node.kind {
        openclaw_config::document::Kind::Number(number) => number.as_f64(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use openclaw_config::{Env, Paths, Profile};

    use super::*;

    fn read_all(config: &str, vars: &[(&str, &str)]) -> Vec<(String, Result<Settings, String>)> {
        let dir = tempfile::tempdir().expect("dir");
        let state = dir.path().to_str().expect("path").to_owned();
        let vars = vars.iter().copied().chain([("OPENCLAW_STATE_DIR", state.as_str())]);
        let env = Env::from_pairs(vars);
        let paths = Paths::resolve(&env, Profile::Default).expect("paths");
        let doc = Document::from_text(config, &paths, &env).expect("config");
        let context = SecretContext { env: &env, doc: &doc, paths: &paths };
        accounts(context).into_iter().map(|account| (account.id, account.settings)).collect()
    }

    fn tokens(config: &str, vars: &[(&str, &str)]) -> Vec<String> {
        let shown = |(id, settings): (String, Result<Settings, String>)| match settings {
            Ok(settings) => format!("{id}={}", settings.token.expose()),
            Err(error) => format!("{id}: {error}"),
        };
        read_all(config, vars).into_iter().map(shown).collect()
    }

    /// The rules of the manual's Discord pages: token sources and accounts.
    #[test]
    fn accounts_and_their_tokens() {
        let check = |config: &str, vars: &[(&str, &str)], expected: &[&str]| {
            let seen = tokens(config, vars);
            assert_eq!(seen.len(), expected.len(), "{config}: {seen:?}");
            for (seen, expected) in seen.iter().zip(expected) {
                assert!(seen.starts_with(expected), "{config}: {seen} / {expected}");
            }
        };
        let env = &[("DISCORD_BOT_TOKEN", "E")][..];
        check("{}", env, &[]);
        check("{channels:{discord:{enabled:false,token:'T'}}}", &[], &[]);
        check("{channels:{discord:{token:'T'}}}", env, &["default=T"]);
        check("{channels:{discord:{token:'Bot T'}}}", &[], &["default=T"]);
        check("{channels:{discord:{}}}", env, &["default=E"]);
        check("{channels:{discord:{}}}", &[], &["default: there is no bot token"]);
        check("{channels:{discord:{token:'a b'}}}", &[], &["default: the bot token holds"]);
        // A named account has its own token or none.
        check(
            "{channels:{discord:{accounts:{ops:{}}}}}",
            &[],
            &["ops: there is no bot token; set channels.discord.acc"],
        );
        let both = "{channels:{discord:{token:'T',accounts:{ops:{token:'O'},off:{enabled:false,token:'X'}}}}}";
        check(both, &[], &["default=T", "ops=O"]);
        check("{channels:{discord:{accounts:{default:{token:'A'}},token:'T'}}}", env, &["default=A"]);
        // A reference that cannot be read is not replaced by the environment's token.
        let unresolved = "{channels:{discord:{token:{source:'env',provider:'default',id:'NOT_SET'}}}}";
        check(unresolved, env, &["default: channels.discord.token is configured as a secret reference but is unavail"]);
    }

    #[test]
    fn an_account_overrides_the_channel() {
        let config = "{channels:{discord:{token:'T',textChunkLimit:1500,mediaMaxMb:8,intents:{presence:true},
            groupPolicy:'open',accounts:{ops:{token:'O',textChunkLimit:9000,groupPolicy:'disabled',replyToMode:'all'}}}}}";
        let all = read_all(config, &[]);
        let settings = |index: usize| all[index].1.as_ref().expect("settings");
        let (default, ops) = (settings(0), settings(1));
        assert_eq!((default.text_limit, ops.text_limit), (1_500, 2_000), "Discord takes no more");
        assert_eq!((default.media_max_bytes, ops.media_max_bytes), (8 << 20, 8 << 20));
        assert_eq!((default.rules.group_policy, ops.rules.group_policy), (GroupPolicy::Open, GroupPolicy::Disabled));
        assert_eq!((default.reply_to, ops.reply_to), (ReplyTo::First, ReplyTo::All));
        assert!(default.intents.presence && ops.intents.presence);
        assert!(default == default && default != ops);
    }

    #[test]
    fn the_token_stays_out_of_debug_output() {
        let all = read_all("{channels:{discord:{token:'SECRETSECRET',proxy:'http://me:HUSHHUSH@p:1'}}}", &[]);
        let shown = format!("{all:?}");
        assert!(!shown.contains("SECRETSECRET") && !shown.contains("HUSHHUSH"), "{shown}");
    }

    #[test]
    fn an_api_elsewhere_has_to_be_safe() {
        let check = |url: &str, ok: bool| {
            let all = read_all("{channels:{discord:{token:'T'}}}", &[("DISCORD_API_URL", url)]);
            assert_eq!(all[0].1.is_ok(), ok, "{url}: {:?}", all[0].1);
        };
        check("https://discord.example.com/api/v10", true);
        check("http://127.0.0.1:9/api/v10", true);
        check("http://discord.example.com/api/v10", false);
        check("ftp://127.0.0.1/", false);
        check("https://user:pw@discord.example.com/api/v10", false);
    }
}
