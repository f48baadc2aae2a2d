//! Wire types of Discord's API, version 10: what we read of them. Ids are snowflakes, 64-bit numbers written as text.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Milliseconds since 1970 of Discord's first second.
const EPOCH_MS: i64 = 1_420_070_400_000;

/// When a snowflake was made, in milliseconds since 1970.
pub fn time_of(snowflake: &str) -> Option<i64> {
    let number: u64 = snowflake.parse().ok()?;
    i64::try_from(number >> 22).ok().map(|ms| ms + EPOCH_MS)
}

/// True for the text of a snowflake; everything else would change the path it is put into.
pub fn is_snowflake(text: &str) -> bool {
    (1..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A frame of the gateway, in either direction.
#[derive(Debug, Deserialize)]
pub struct Frame {
    pub op: u8,
    #[serde(default)]
    pub d: Option<Box<RawValue>>,
    #[serde(default)]
    pub s: Option<u64>,
    #[serde(default)]
    pub t: Option<String>,
}

#[derive(Debug, Deserialize)]
pub struct Hello {
    /// Milliseconds.
    pub heartbeat_interval: u64,
}

#[derive(Debug, Deserialize)]
pub struct Ready {
    pub session_id: String,
    pub resume_gateway_url: Option<String>,
    pub user: User,
}

#[derive(Debug, Deserialize)]
pub struct Id {
    pub id: String,
}

/// Answer to `GET /gateway/bot`.
#[derive(Debug, Deserialize)]
pub struct GatewayBot {
    pub url: String,
    pub session_start_limit: StartLimit,
}

#[derive(Debug, Deserialize)]
pub struct StartLimit {
    pub remaining: u64,
    /// Milliseconds.
    pub reset_after: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub struct User {
    pub id: String,
    #[serde(default)]
    pub username: String,
    #[serde(default)]
    pub global_name: Option<String>,
    #[serde(default)]
    pub bot: bool,
}

impl User {
    pub fn name(&self) -> &str {
        self.global_name.as_deref().filter(|name| !name.is_empty()).unwrap_or(&self.username)
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Member {
    #[serde(default)]
    pub user: Option<User>,
    #[serde(default)]
    pub nick: Option<String>,
    #[serde(default)]
    pub roles: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Message {
    pub id: String,
    pub channel_id: String,
    #[serde(default)]
    pub channel_type: Option<u8>,
    #[serde(default)]
    pub guild_id: Option<String>,
    pub author: User,
    #[serde(default)]
    pub member: Option<Member>,
    #[serde(default)]
    pub content: String,
    #[serde(default)]
    pub mentions: Vec<User>,
    #[serde(default)]
    pub mention_roles: Vec<String>,
    #[serde(default)]
    pub attachments: Vec<Attachment>,
    #[serde(default)]
    pub webhook_id: Option<String>,
    /// 0 a message, 19 a reply, 20 and 23 commands; the rest are notices of the system.
    #[serde(rename = "type", default)]
    pub kind: u8,
    #[serde(default)]
    pub referenced_message: Option<Box<Message>>,
    #[serde(default)]
    pub message_snapshots: Vec<Snapshot>,
}

/// A forwarded message.
#[derive(Clone, Debug, Deserialize)]
pub struct Snapshot {
    pub message: SnapshotMessage,
}

#[derive(Clone, Debug, Deserialize)]
pub struct SnapshotMessage {
    #[serde(default)]
    pub content: String,
    #[serde(default)]
    pub attachments: Vec<Attachment>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Attachment {
    pub filename: String,
    #[serde(default)]
    pub content_type: Option<String>,
    /// Bytes.
    #[serde(default)]
    pub size: u64,
    pub url: String,
}

#[derive(Debug, Deserialize)]
pub struct PresenceUpdate {
    pub user: Id,
    #[serde(default)]
    pub guild_id: Option<String>,
    #[serde(default)]
    pub status: String,
    #[serde(default)]
    pub activities: Vec<Activity>,
}

#[derive(Debug, Deserialize)]
pub struct Activity {
    #[serde(default)]
    pub name: String,
    /// 4 is a custom status, whose text is in `state`.
    #[serde(rename = "type", default)]
    pub kind: u8,
    #[serde(default)]
    pub state: Option<String>,
}

#[derive(Debug, Deserialize)]
pub struct Guild {
    pub id: String,
    #[serde(default)]
    pub name: String,
    /// Set, with nothing else, for a guild that cannot be reached just now.
    #[serde(default)]
    pub unavailable: bool,
    #[serde(default)]
    pub channels: Vec<Channel>,
    #[serde(default)]
    pub threads: Vec<Channel>,
    #[serde(default)]
    pub members: Vec<Member>,
    #[serde(default)]
    pub presences: Vec<PresenceUpdate>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Channel {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: u8,
    #[serde(default)]
    pub guild_id: Option<String>,
    #[serde(default)]
    pub name: Option<String>,
    /// The category of a channel, the channel of a thread.
    #[serde(default)]
    pub parent_id: Option<String>,
}

/// A pressed button and other interactions. Without `Debug`, for its token.
#[derive(Deserialize)]
pub struct Interaction {
    pub id: String,
    pub application_id: String,
    /// 3: a component of a message.
    #[serde(rename = "type")]
    pub kind: u8,
    /// Good for 15 minutes, and for the answers to this interaction only. A secret for as long.
    pub token: String,
    #[serde(default)]
    pub data: Option<InteractionData>,
    #[serde(default)]
    pub channel_id: Option<String>,
    #[serde(default)]
    pub channel: Option<Channel>,
    #[serde(default)]
    pub guild_id: Option<String>,
    /// In a guild.
    #[serde(default)]
    pub member: Option<Member>,
    /// In a direct message.
    #[serde(default)]
    pub user: Option<User>,
    #[serde(default)]
    pub message: Option<Id>,
}

#[derive(Debug, Deserialize)]
pub struct InteractionData {
    #[serde(default)]
    pub custom_id: String,
}

/// Body of an error answer.
#[derive(Debug, Default, Deserialize)]
pub struct ErrorBody {
    #[serde(default)]
    pub message: String,
    #[serde(default)]
    pub code: u64,
    /// Seconds, with HTTP 429.
    #[serde(default)]
    pub retry_after: Option<f64>,
    #[serde(default)]
    pub global: bool,
}

/// A message to create, to edit, or to answer an interaction with.
#[derive(Clone, Debug, Default, Serialize)]
pub struct MessageBody {
    pub content: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub enforce_nonce: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_reference: Option<Reference>,
    pub allowed_mentions: AllowedMentions,
    /// Always there: an empty list takes the buttons away.
    pub components: Vec<Row>,
    #[serde(skip_serializing_if = "is_zero")]
    pub flags: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<AttachmentRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub poll: Option<PollBody>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape serde asks for")]
fn is_zero(flags: &u32) -> bool {
    *flags == 0
}

/// Do not make previews of links.
pub const SUPPRESS_EMBEDS: u32 = 1 << 2;
/// Only who pressed sees it.
pub const EPHEMERAL: u32 = 1 << 6;
/// Without a notification.
pub const SUPPRESS_NOTIFICATIONS: u32 = 1 << 12;

#[derive(Clone, Debug, Serialize)]
pub struct Reference {
    pub message_id: String,
    /// A message that was deleted meanwhile is answered without quoting it.
    pub fail_if_not_exists: bool,
}

/// Who may be notified by what the text says.
#[derive(Clone, Debug, Default, Serialize)]
pub struct AllowedMentions {
    pub parse: Vec<&'static str>,
    pub replied_user: bool,
}

/// A row of buttons.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    #[serde(rename = "type")]
    pub kind: u8,
    pub components: Vec<ButtonBody>,
}

#[derive(Clone, Debug, Serialize)]
pub struct ButtonBody {
    #[serde(rename = "type")]
    pub kind: u8,
    pub style: u8,
    pub label: String,
    pub custom_id: String,
}

#[derive(Clone, Debug, Serialize)]
pub struct AttachmentRef {
    pub id: usize,
    pub filename: String,
}

#[derive(Clone, Debug, Serialize)]
pub struct PollBody {
    pub question: PollText,
    pub answers: Vec<PollAnswer>,
    /// Hours.
    pub duration: u64,
    pub allow_multiselect: bool,
}

#[derive(Clone, Debug, Serialize)]
pub struct PollAnswer {
    pub poll_media: PollText,
}

#[derive(Clone, Debug, Serialize)]
pub struct PollText {
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the API reference, "Snowflake Format".
    #[test]
    fn snowflakes() {
        assert_eq!(time_of("175928847299117063"), Some(1_462_015_105_796));
        for (text, expected) in [("175928847299117063", true), ("", false), ("1/../2", false), ("-1", false)] {
            assert_eq!(is_snowflake(text), expected, "{text}");
        }
    }
}
