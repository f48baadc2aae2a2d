//! The other sections, by name (config.md section 4). Types are given where the manual gives them.

use super::{
    Key,
    Kind::{self, Any, Bool, Enum, Int, List, Map, Number, Object, OneOf, Open, Secret, Text},
    any, checks, gateway, key,
};

const COUNT: Kind = Int { min: 0, max: i64::MAX };
const POSITIVE: Kind = Int { min: 1, max: i64::MAX };
const TEXTS: Kind = List(&Text);
/// Lists of chat ids hold numbers and strings.
const IDS: Kind = List(&OneOf(&[Text, Number { min: f64::MIN }]));
const LEVELS: Kind = Enum(&["silent", "fatal", "error", "warn", "info", "debug", "trace"]);
const DM_POLICY: Kind = Enum(&["pairing", "allowlist", "open", "disabled"]);
const GROUP_POLICY: Kind = Enum(&["allowlist", "open", "disabled"]);

pub(super) const ROOT: &[Key] = &[
    key("$schema", Text, "schema of this file, for editors"),
    key("$include", OneOf(&[Text, TEXTS]), "files that are part of this one"),
    key("gateway", Object(gateway::GATEWAY), "the gateway and how to reach it").restart(),
    key("discovery", Object(DISCOVERY), "finding gateways").hot(),
    key("channels", Open(CHANNELS), "chat channels").hot(),
    key("agents", Open(AGENTS), "agents and their defaults"),
    key("models", Open(MODELS), "model providers"),
    key("session", Open(SESSION), "sessions"),
    key("logging", Open(LOGGING), "log file and console").restart(),
    key("hooks", Open(HOOKS), "webhooks into the gateway").hot(),
    key("env", Open(ENV), "variables for substitution and for child processes").restart(),
    key("secrets", Object(SECRETS), "where secrets come from").hot(),
    key("auth", Open(&[any("profiles"), any("order"), any("cooldowns")]), "model provider logins"),
    key(
        "tools",
        Open(&[any("exec"), any("web"), any("allow"), any("deny"), any("profile"), any("media")]),
        "agent tools",
    ),
    key("plugins", Open(PLUGINS), "plugins").restart(),
    key("skills", Any, "skills").hot(),
    key("cron", Any, "scheduled runs").hot(),
    key("messages", Any, "message handling"),
    key(
        "commands",
        Open(&[any("native"), any("nativeSkills"), any("restart"), any("ownerAllowFrom")]),
        "chat commands",
    ),
    key("bindings", Any, "which agent answers where"),
    key("browser", Any, "browser control").hot(),
    key("canvasHost", Any, "canvas").restart(),
    key("nodeHost", Any, "this machine as a node"),
    key("approvals", Any, "exec approvals"),
    key("talk", Any, "voice").unread(),
    key("ui", Any, "appearance").unread(),
    key("update", Any, "updates").unread(),
    key("wizard", Any, "what onboarding did").unread(),
    key("meta", Any, "who wrote this file").unread(),
    key("diagnostics", Any, "diagnostics").restart(),
    any("acp"),
    any("audio"),
    any("broadcast"),
    any("cli"),
    any("mcp"),
    any("media"),
    any("memory"),
    any("web"),
    any("accessGroups"),
    any("identity"),
    any("tts"),
    any("worktrees"),
];

const DISCOVERY: &[Key] = &[
    key("enabled", Bool, "advertise the gateway"),
    key("mdns", Object(&[key("mode", Enum(&["off", "minimal", "full"]), "how much to advertise (minimal)")]), "mDNS"),
    key(
        "wideArea",
        Object(&[
            key("enabled", Bool, ""),
            key("domain", Text, "DNS-SD domain"),
            key("serve", Bool, "answer DNS for the domain on the tailnet address"),
            key("port", Int { min: 1, max: 65_535 }, "port of that answerer (53)"),
        ]),
        "wide-area DNS-SD",
    ),
];

const CHANNELS: &[Key] = &[
    key("defaults", Any, "defaults for all channels"),
    key("telegram", Open(TELEGRAM), "Telegram"),
    key("discord", Open(DISCORD), "Discord"),
];

const TELEGRAM: &[Key] = &[
    key("enabled", Bool, ""),
    key("botToken", Secret, "bot token (TELEGRAM_BOT_TOKEN)"),
    key("tokenFile", Text, "file with the bot token"),
    key("dmPolicy", DM_POLICY, "who may write (pairing)"),
    key("allowFrom", IDS, "users let in"),
    key("groupPolicy", GROUP_POLICY, "which groups (allowlist)"),
    key("groupAllowFrom", IDS, "users let in in groups"),
    any("groups"),
    key("historyLimit", COUNT, "messages of context"),
    key("textChunkLimit", POSITIVE, "characters in one message"),
    any("streaming"),
    key("replyToMode", Enum(&["off", "first", "all", "batched"]), "quoting"),
    key("mediaMaxMb", Number { min: 0.0 }, "largest media"),
    key("linkPreview", Bool, ""),
    any("reactionLevel"),
    key("apiRoot", Text, "Bot API base URL"),
    key("proxy", Text, "proxy URL"),
    key("webhookUrl", Text, ""),
    key("webhookSecret", Secret, ""),
    key("webhookPath", Text, ""),
    key("webhookHost", Text, ""),
    key("webhookPort", Int { min: 0, max: 65_535 }, ""),
    key("webhookCertPath", Text, ""),
    any("commands"),
    any("customCommands"),
    any("actions"),
    any("execApprovals"),
    any("accounts"),
    key("defaultAccount", Text, ""),
];

const DISCORD: &[Key] = &[
    key("enabled", Bool, ""),
    key("token", Secret, "bot token (DISCORD_BOT_TOKEN)"),
    key("dmPolicy", DM_POLICY, "who may write (pairing)"),
    key("allowFrom", IDS, "users let in"),
    key(
        "dm",
        Open(&[
            key("enabled", Bool, ""),
            key("policy", DM_POLICY, "older form of dmPolicy"),
            key("allowFrom", IDS, "older form of allowFrom"),
            key("groupEnabled", Bool, "listen in group DMs"),
            key("groupChannels", IDS, "group DMs listened to"),
        ]),
        "direct messages",
    ),
    key("groupPolicy", GROUP_POLICY, "which servers (allowlist)"),
    any("guilds"),
    key("textChunkLimit", POSITIVE, "characters in one message (2000)"),
    key("maxLinesPerMessage", POSITIVE, "lines in one message (17)"),
    key("mediaMaxMb", Number { min: 0.0 }, "largest file (100)"),
    key("replyToMode", Enum(&["off", "first", "all", "batched"]), "quoting"),
    key("suppressEmbeds", Bool, "no previews of links (true)"),
    key(
        "intents",
        Open(&[key("messageContent", Bool, "(true)"), key("guildMembers", Bool, ""), key("presence", Bool, "")]),
        "privileged intents",
    ),
    key("allowBots", OneOf(&[Bool, Enum(&["mentions"])]), "hear other bots (false)"),
    key("proxy", Text, "HTTP proxy URL"),
    key("dangerouslyAllowNameMatching", Bool, "names count in lists"),
    any("botLoopProtection"),
    any("streaming"),
    any("actions"),
    key("execApprovals", Open(DISCORD_APPROVALS), "approvals in Discord"),
    any("accounts"),
    key("defaultAccount", Text, ""),
];

const DISCORD_APPROVALS: &[Key] = &[
    key("enabled", OneOf(&[Bool, Enum(&["auto"])]), "deliver approvals"),
    key("approvers", IDS, "who may decide"),
    key("agentFilter", TEXTS, ""),
    key("sessionFilter", TEXTS, ""),
    key("target", Enum(&["dm", "channel", "both"]), "where to ask (dm)"),
    key("cleanupAfterResolve", Bool, ""),
];

const AGENTS: &[Key] = &[
    key(
        "defaults",
        Open(&[
            key("model", OneOf(&[Text, Open(&[any("primary"), any("fallbacks")])]), "model"),
            any("models"),
            key("workspace", Text, "workspace directory"),
            key("skipBootstrap", Bool, ""),
            any("heartbeat"),
            any("sandbox"),
            any("subagents"),
            any("compaction"),
            any("maxConcurrent"),
            any("timeoutSeconds"),
        ]),
        "defaults for all agents",
    ),
    key("entries", Map(&Open(AGENT)), "agents by id"),
    key("list", List(&Open(AGENT)), "older form of entries"),
];

const AGENT: &[Key] = &[
    any("id"),
    any("default"),
    key("name", Text, ""),
    key("workspace", Text, ""),
    key("agentDir", Text, ""),
    any("identity"),
    key("model", OneOf(&[Text, Open(&[any("primary"), any("fallbacks")])]), ""),
    any("tools"),
    any("sandbox"),
    any("skills"),
];

const MODELS: &[Key] = &[
    any("mode"),
    key(
        "providers",
        Map(&Open(&[
            key("baseUrl", Text, "API base URL"),
            key("apiKey", Secret, "API key"),
            key("auth", Enum(&["api-key", "oauth", "token", "aws-sdk"]), "how to log in"),
            key("api", Text, "wire format"),
            key("headers", Map(&Secret), "extra headers"),
            key("timeoutSeconds", POSITIVE, ""),
            any("maxTokens"),
            any("params"),
            any("models"),
        ])),
        "providers by id",
    ),
];

const SESSION: &[Key] = &[
    key("scope", Enum(&["per-sender", "global"]), "one session per sender, or one for all"),
    key("dmScope", Enum(&["main", "per-peer", "per-channel-peer", "per-account-channel-peer"]), "direct messages"),
    key("mainKey", Text, ""),
    key("store", Text, ""),
    any("reset"),
    any("resetTriggers"),
    any("identityLinks"),
    any("sendPolicy"),
];

const LOGGING: &[Key] = &[
    key("level", LEVELS, "level of the log file"),
    key("consoleLevel", LEVELS, "level of the console"),
    key("file", Text, "log file"),
    key("maxFileBytes", POSITIVE, "largest log file"),
    key("consoleStyle", Enum(&["pretty", "compact", "json"]), "console format"),
    key("redactPatterns", TEXTS, "more to redact"),
    any("redactSensitive"),
];

const HOOKS: &[Key] = &[
    key("enabled", Bool, ""),
    key("path", Text, "URL path"),
    key("token", Text, "bearer token of callers"),
    key("defaultSessionKey", Text, ""),
    key("allowRequestSessionKey", Bool, ""),
    key("allowedAgentIds", TEXTS, ""),
    any("mappings"),
    any("presets"),
    key("transformsDir", Text, ""),
    any("gmail"),
    any("internal"),
];

const ENV: &[Key] = &[
    key("vars", Map(&Text), "variables"),
    key("shellEnv", Object(&[key("enabled", Bool, ""), key("timeoutMs", POSITIVE, "(15000)")]), "login shell import"),
];

const PLUGINS: &[Key] =
    &[any("enabled"), any("entries"), any("allow"), any("deny"), any("load"), any("slots"), any("installs")];

const ALIAS: Kind = Kind::Checked(checks::provider_alias);

const SECRETS: &[Key] = &[
    key("providers", Map(&Object(PROVIDER)), "secret providers by name"),
    key(
        "defaults",
        Object(&[key("env", ALIAS, ""), key("file", ALIAS, ""), key("exec", ALIAS, ""), key("store", ALIAS, "")]),
        "provider used when a reference names none",
    ),
    any("resolution"),
];

const PROVIDER: &[Key] = &[
    key("source", Enum(&["env", "file", "exec", "store"]), "kind of provider").required(),
    key("allowlist", TEXTS, "env: the only variables allowed"),
    key("path", Text, "file: the file"),
    key("mode", Enum(&["json", "singleValue"]), "file: a JSON document, or one value (json)"),
    key("maxBytes", POSITIVE, "file: largest size in bytes"),
    key("command", Text, "exec: absolute path of the program"),
    key("args", TEXTS, "exec: arguments"),
    key("passEnv", TEXTS, "exec: variables handed on"),
    key("env", Map(&Text), "exec: variables set"),
    key("jsonOnly", Bool, "exec: the answer must be JSON (true)"),
    key("timeoutMs", POSITIVE, "file, exec: milliseconds allowed (5000)"),
    key("noOutputTimeoutMs", POSITIVE, "exec: milliseconds without output allowed"),
    key("maxOutputBytes", POSITIVE, "exec: largest answer in bytes"),
    key("trustedDirs", TEXTS, "exec: directories whose links are followed"),
    any("allowInsecurePath"),
    any("allowSymlinkCommand"),
];
