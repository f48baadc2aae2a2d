//! Messages as every channel has them.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Where in which channel: enough to answer there.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Address {
    /// `telegram`, `discord`.
    pub channel: String,
    /// `default`, or a key of `channels.<id>.accounts`.
    pub account: String,
    /// The channel's id of the chat.
    pub chat: String,
    /// A topic or thread inside the chat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChatKind {
    Direct,
    Group,
    Channel,
}

/// Who wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sender {
    /// The channel's stable id; allow-lists hold this.
    pub id: String,
    /// Without `@`. Can change hands: for display and for allow-lists that name it on purpose.
    pub username: Option<String>,
    pub name: String,
    pub is_bot: bool,
}

/// A message that arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inbound {
    pub from: Address,
    pub kind: ChatKind,
    /// The name of the group.
    pub chat_title: Option<String>,
    pub sender: Sender,
    /// Of the message; unique in its chat.
    pub message_id: String,
    /// Unique per account for every arrival, edits too; a repetition of it is the same arrival.
    pub arrival: String,
    /// Milliseconds since 1970.
    pub sent_at_ms: i64,
    pub text: String,
    pub media: Vec<Media>,
    pub reply_to: Option<Quoted>,
    /// Names the bot or answers it.
    pub mentions_me: bool,
    /// What the chat is part of: the guild, in Discord.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space: Option<String>,
    /// What the sender is there, where the channel has such a thing: ids of Discord roles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// The channel's own rules let it in only if it is for the bot in a way the channel does not know (a mention pattern, a
    /// command).
    #[serde(default)]
    pub needs_mention: bool,
    /// Replaces what was said before under the same message id.
    #[serde(default)]
    pub edited: bool,
}

/// What a message answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Quoted {
    pub message_id: String,
    pub text: String,
    pub author: String,
    /// Written by this bot.
    pub mine: bool,
}

/// A file in a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Media {
    pub mime: String,
    pub file_name: Option<String>,
    #[serde(with = "base64_bytes")]
    pub data: Bytes,
}

/// A message to send.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outbound {
    /// Markdown, as models write it.
    pub text: String,
    pub media: Vec<Media>,
    pub reply_to: Option<String>,
    pub silent: bool,
    /// Rows of buttons under the text.
    pub buttons: Vec<Vec<Button>>,
    /// The text has been rendered: it is plain, and these are its styles. Pieces of a long message are such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub styles: Option<Vec<Span>>,
    #[serde(default)]
    pub hints: Hints,
}

/// How to send it, where the channel knows the difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hints {
    /// Pictures and videos as files, not shrunk.
    pub as_document: bool,
    /// Sound as a voice note.
    pub as_voice: bool,
}

/// A stretch of text that looks different. Stretches lie inside each other or apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// In UTF-16 code units, as Telegram and JavaScript count.
    pub start: usize,
    pub len: usize,
    pub style: TextStyle,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum TextStyle {
    Bold,
    Italic,
    Strike,
    Underline,
    Spoiler,
    Code,
    /// A block of code in a language, when it is named.
    Pre {
        language: Option<String>,
    },
    Quote,
    Link {
        url: String,
    },
}

/// A question with answers to choose from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Poll {
    pub question: String,
    pub options: Vec<String>,
    /// How many may be chosen; 1 when `None`.
    pub max_selections: Option<u32>,
    pub open_for: Option<std::time::Duration>,
    /// Who chose what is not shown.
    pub anonymous: bool,
    pub silent: bool,
}

/// A button; pressing it comes back as [`crate::channel::Press`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Button {
    pub label: String,
    /// At most 64 bytes, the limit of Telegram.
    pub data: String,
    pub style: ButtonStyle,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ButtonStyle {
    #[default]
    Plain,
    Good,
    Danger,
}

mod base64_bytes {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use bytes::Bytes;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(bytes: &Bytes, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(from)?;
        STANDARD.decode(text).map(Bytes::from).map_err(D::Error::custom)
    }
}
