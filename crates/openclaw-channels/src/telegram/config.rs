//! `channels.telegram`, as one account of it.

use std::path::PathBuf;

use openclaw_config::{
    document::Node,
    files,
    secret_ref::{self, SecretContext, SecretError, SecretInput},
};
use openclaw_protocol::Secret;
use url::Url;

use crate::section::{DEFAULT_ACCOUNT, Section};

/// The public server.
pub const API_ROOT: &str = "https://api.telegram.org";
/// Characters of a message when `textChunkLimit` is unset, and the most Telegram takes; UTF-16 code units.
const CHUNK_UNITS: usize = 4000;
const MAX_CHUNK_UNITS: usize = 4096;
/// `mediaMaxMb` when unset.
const MEDIA_MB: f64 = 100.0;
/// A token file has one line.
const MAX_TOKEN_FILE: u64 = 4096;

/// See the module documentation. Two that are equal need no restart.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub account: String,
    pub token: Secret,
    pub token_source: TokenSource,
    /// Without a trailing slash.
    pub api_root: String,
    /// May hold a password.
    pub proxy: Option<Secret>,
    pub transport: Transport,
    /// Longest message in UTF-16 code units.
    pub chunk_units: usize,
    /// Largest file, in and out, in bytes.
    pub media_bytes: u64,
    pub link_preview: bool,
    /// Entries of the command menu: name and description. `None` leaves the menu alone.
    pub menu: Option<Vec<(String, String)>>,
}

/// Where the token is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenSource {
    Config,
    TokenFile,
    Env,
}

impl TokenSource {
    /// As `channels.status` says it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::TokenFile => "tokenFile",
            Self::Env => "env",
        }
    }
}

/// How updates come.
#[derive(Clone, Debug, PartialEq)]
pub enum Transport {
    Polling,
    Webhook(Webhook),
}

/// `webhookUrl` and its companions.
#[derive(Clone, Debug, PartialEq)]
pub struct Webhook {
    /// Where Telegram sends to.
    pub url: String,
    pub secret: Secret,
    /// Where we listen.
    pub host: String,
    pub port: u16,
    pub path: String,
    /// A self-signed certificate for Telegram to trust.
    pub certificate: Option<PathBuf>,
}

/// Why an account cannot run as configured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("no bot token; set one with: openclaw channels add telegram --account {0}")]
    NoToken(String),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("{path}: {reason}")]
    Bad { path: String, reason: String },
}

impl Config {
    /// Reads the settings of an account. Blocks: secrets may come from programs.
    ///
    /// # Errors
    /// [`ConfigError`]; nothing is guessed.
    pub fn read(context: &SecretContext<'_>, account: &str) -> Result<Self, ConfigError> {
        let section = Section::new(context.doc, super::ID, account);
        let bad = |key: &str, reason: String| ConfigError::Bad { path: section.path(key), reason };
        let (token, token_source) = token(&section, context)?;
        // A token has the form <id>:<secret>; anything else would only make an odd URL.
        let well_formed = token.expose().split_once(':').is_some_and(|(id, rest)| {
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()) && !rest.is_empty() && rest.chars().all(word)
        });
        if !well_formed {
            let reason = "a bot token has the form 123456789:AbC…; copy it from @BotFather".to_owned();
            return Err(bad(if token_source == TokenSource::TokenFile { "tokenFile" } else { "botToken" }, reason));
        }
        let mb = match section.get("mediaMaxMb").map(|node| node.to_value()) {
            Some(value) => value.as_f64().unwrap_or(MEDIA_MB),
            None => MEDIA_MB,
        };
        let chunk = section.number("textChunkLimit").and_then(|n| usize::try_from(n).ok()).unwrap_or(CHUNK_UNITS);
        Ok(Self {
            account: account.to_owned(),
            api_root: api_root(section.text("apiRoot"), &token).map_err(|reason| bad("apiRoot", reason))?,
            proxy: section.text("proxy").map(Secret::new),
            transport: transport(&section, context)?,
            chunk_units: chunk.clamp(16, MAX_CHUNK_UNITS),
            media_bytes: (mb.max(0.0) * 1024.0 * 1024.0) as u64,
            link_preview: section.flag("linkPreview").unwrap_or(true),
            menu: menu(&section),
            token,
            token_source,
        })
    }

    /// The bot's id, the part of the token that is no secret.
    pub fn bot_id(&self) -> &str {
        self.token.expose().split(':').next().unwrap_or_default()
    }

    /// `polling` or `webhook`.
    pub const fn mode(&self) -> &'static str {
        match self.transport {
            Transport::Polling => "polling",
            Transport::Webhook(_) => "webhook",
        }
    }
}

/// `tokenFile` beats `botToken`, and that beats the environment, which counts for the default account only.
fn token(section: &Section<'_>, context: &SecretContext<'_>) -> Result<(Secret, TokenSource), ConfigError> {
    // A named account never falls back to the channel's token: it would be the same bot twice.
    let of = |key: &str| match section.account {
        DEFAULT_ACCOUNT => section.get(key),
        _ => section.own(key),
    };
    if let Some(file) = of("tokenFile").and_then(Node::as_str).filter(|file| !file.trim().is_empty()) {
        let bad = |reason: String| ConfigError::Bad { path: section.path("tokenFile"), reason };
        let path = context.paths.expand(file);
        let bytes = files::read_private(&path, MAX_TOKEN_FILE).map_err(|error| bad(error.to_string()))?;
        let bytes = bytes.ok_or_else(|| bad(format!("{} does not exist", path.display())))?;
        let text = String::from_utf8(bytes).map_err(|_| bad(format!("{} is not text", path.display())))?;
        let token = Secret::from_input(&text).ok_or_else(|| bad(format!("{} is empty", path.display())))?;
        return Ok((token, TokenSource::TokenFile));
    }
    if let Some(node) = of("botToken")
        && let Some(input) = SecretInput::from_node(&section.path("botToken"), node)
        && let Some(token) = secret_ref::resolve(&input, context)?
    {
        return Ok((token, TokenSource::Config));
    }
    let env = (section.account == DEFAULT_ACCOUNT).then(|| context.env.get("TELEGRAM_BOT_TOKEN")).flatten();
    let token = env.and_then(Secret::from_input).ok_or_else(|| ConfigError::NoToken(section.account.to_owned()))?;
    Ok((token, TokenSource::Env))
}

fn api_root(written: Option<&str>, token: &Secret) -> Result<String, String> {
    let root = written.unwrap_or(API_ROOT).trim_end_matches('/');
    // A frequent slip: the root with the bot's path.
    let root = root.strip_suffix(&format!("/bot{}", token.expose())).unwrap_or(root);
    let url = Url::parse(root).map_err(|error| format!("not a URL ({error}); for example {API_ROOT}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(format!("has to begin with https:// or http://; for example {API_ROOT}"));
    }
    if url.query().is_some() || url.fragment().is_some() || root.contains("/bot") {
        return Err("only the root of the server, without /bot<token> and without parameters".to_owned());
    }
    Ok(root.to_owned())
}

fn transport(section: &Section<'_>, context: &SecretContext<'_>) -> Result<Transport, ConfigError> {
    let Some(url) = section.text("webhookUrl") else { return Ok(Transport::Polling) };
    let bad = |key: &str, reason: &str| ConfigError::Bad { path: section.path(key), reason: reason.to_owned() };
    if Url::parse(url).is_err() {
        return Err(bad("webhookUrl", "not a URL"));
    }
    let input =
        section.get("webhookSecret").and_then(|node| SecretInput::from_node(&section.path("webhookSecret"), node));
    let secret = input.map(|input| secret_ref::resolve(&input, context)).transpose()?.flatten();
    let secret =
        secret.ok_or_else(|| bad("webhookSecret", "needed with webhookUrl: without it anybody could send updates"))?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if secret.len() > 256 || !secret.expose().chars().all(allowed) {
        return Err(bad("webhookSecret", "Telegram takes 1 to 256 of the characters A-Z, a-z, 0-9, _ and -"));
    }
    let path = section.text("webhookPath").unwrap_or("/telegram-webhook");
    if path == "/healthz" || !path.starts_with('/') {
        return Err(bad("webhookPath", "has to begin with / and be other than /healthz"));
    }
    Ok(Transport::Webhook(Webhook {
        url: url.to_owned(),
        secret,
        host: section.text("webhookHost").unwrap_or("127.0.0.1").to_owned(),
        port: section.number("webhookPort").and_then(|port| u16::try_from(port).ok()).unwrap_or(8787),
        path: path.to_owned(),
        certificate: section.text("webhookCertPath").map(|path| context.paths.expand(path)),
    }))
}

/// What the gateway answers by itself, and `customCommands` first.
fn menu(section: &Section<'_>) -> Option<Vec<(String, String)>> {
    let native = section.get("commands").and_then(|commands| commands.entry("native"));
    let off = native.and_then(Node::as_bool) == Some(false);
    let mut entries: Vec<(String, String)> = Vec::new();
    for custom in section.get("customCommands").and_then(Node::as_array).unwrap_or_default() {
        let text = |key: &str| custom.entry(key).and_then(Node::as_str).unwrap_or_default().trim();
        let name = text("command").trim_start_matches('/').to_lowercase();
        let fits = (1..=32).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !fits || text("description").is_empty() || entries.iter().any(|(known, _)| *known == name) {
            tracing::warn!("{}: \"{name}\" is left out of the menu", section.path("customCommands"));
            continue;
        }
        entries.push((name, text("description").chars().take(256).collect()));
    }
    if off && entries.is_empty() {
        return None;
    }
    if !off {
        for (name, description) in NATIVE {
            if !entries.iter().any(|(known, _)| known == name) {
                entries.push(((*name).to_owned(), (*description).to_owned()));
            }
        }
    }
    // Telegram takes no more.
    entries.truncate(100);
    Some(entries)
}

const NATIVE: &[(&str, &str)] = &[
    ("help", "What can be typed here"),
    ("status", "How the gateway and this conversation are"),
    ("new", "Begin a new conversation"),
    ("stop", "Stop what is under way"),
    ("model", "Show or choose the model"),
    ("nodes", "The machines that are lent"),
    ("last", "The last answer again"),
];
