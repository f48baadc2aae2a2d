//! The channels there are. A new one adds a line to each of these.

use std::sync::Arc;

use openclaw_channels::{
    channel::{Handle, Inbox},
    discord,
    section::Section,
    telegram,
};
use openclaw_config::{document::Document, secret_ref::SecretContext};
use openclaw_protocol::Secret;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Ids and what they are called, in the order they are shown.
pub const ALL: &[(&str, &str)] = &[(telegram::ID, "Telegram"), (discord::ID, "Discord")];

/// What a channel is called.
pub fn label(id: &str) -> Option<&'static str> {
    ALL.iter().find(|(known, _)| *known == id).map(|(_, label)| *label)
}

/// Settings of an account, read and whole. Equal ones need no restart.
#[derive(Clone, Debug, PartialEq)]
pub enum Settings {
    Telegram(telegram::Config),
    Discord(Box<discord::Settings>),
}

impl Settings {
    /// Reads an account's settings. Blocks: secrets may come from programs.
    ///
    /// # Errors
    /// What is wrong, for the status.
    pub fn read(context: &SecretContext<'_>, channel: &str, account: &str) -> Result<Self, String> {
        match channel {
            telegram::ID => {
                telegram::Config::read(context, account).map(Self::Telegram).map_err(|error| error.to_string())
            }
            discord::ID => discord::Settings::read(*context, account).map(|settings| Self::Discord(Box::new(settings))),
            _ => Err(format!("there is no channel \"{channel}\"")),
        }
    }

    /// Starts the account.
    ///
    /// # Errors
    /// What is wrong, for the status.
    pub fn start(
        self,
        inbox: Arc<dyn Inbox>,
        cancel: CancellationToken,
        tracker: &TaskTracker,
    ) -> Result<Handle, String> {
        match self {
            Self::Telegram(config) => Ok(telegram::Telegram::start(config, inbox, cancel, tracker)?),
            Self::Discord(settings) => Ok(discord::start(*settings, inbox, &cancel, tracker)),
        }
    }

    /// Two accounts with the same are the same bot.
    pub fn token(&self) -> &Secret {
        match self {
            Self::Telegram(config) => &config.token,
            Self::Discord(settings) => settings.token(),
        }
    }

    /// `polling`, `webhook`, `gateway`.
    pub fn mode(&self) -> &'static str {
        match self {
            Self::Telegram(config) => config.mode(),
            Self::Discord(_) => "gateway",
        }
    }

    pub fn token_source(&self) -> &'static str {
        match self {
            Self::Telegram(config) => config.token_source.as_str(),
            Self::Discord(settings) => settings.token_source(),
        }
    }
}

/// Whether an account has anything that could be a credential, without reading it.
pub fn configured(document: &Document, channel: &str, account: &str, env: impl Fn(&str) -> bool) -> bool {
    let section = Section::new(document, channel, account);
    let (keys, variable): (&[&str], &str) = match channel {
        telegram::ID => (&["botToken", "tokenFile"], "TELEGRAM_BOT_TOKEN"),
        _ => (&["token"], "DISCORD_BOT_TOKEN"),
    };
    let default = account == openclaw_channels::section::DEFAULT_ACCOUNT;
    let written = keys.iter().any(|key| if default { section.get(key) } else { section.own(key) }.is_some());
    written || (default && section.exists() && env(variable))
}
