//! What is kept in memory of a conversation: small, and all that lists and decisions need. What was said is on disk.

use std::{
    ops::{Deref, DerefMut},
    sync::LazyLock,
};

use openclaw_channels::message::{Address, ChatKind};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::SessionKey;

/// Names one stretch of a conversation: a reset starts a new one under the same key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(Box<str>);

impl SessionId {
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().to_string().into())
    }

    /// An id that was given out before.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// See the module documentation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pub key: SessionKey,
    pub session_id: SessionId,
    /// New with every stretch; `expectedLifecycleRevision` guards against acting on another one.
    pub revision: Box<str>,
    pub created_ms: i64,
    /// Start of this stretch.
    pub started_ms: i64,
    /// Last change of any kind.
    pub updated_ms: i64,
    /// Last message of a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interacted_ms: Option<i64>,
    /// Last answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_ms: Option<i64>,
    /// Number of the last message of this stretch; 0 before the first.
    pub last_seq: u64,
    /// First message the model still sees; grows with each compaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compaction: Option<Compaction>,
    #[serde(default)]
    pub compactions: u32,
    #[serde(default, skip_serializing_if = "Chosen::is_empty")]
    pub settings: Chosen,
    #[serde(default)]
    pub totals: Totals,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run: Option<LastRun>,
    /// Where the conversation takes place, when that is a channel: replies of the agent's own accord go there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Box<Place>>,
    /// From the first message of a person, at most [`super::text::TITLE_CHARS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<Box<str>>,
    /// Beginning of the last message, at most [`super::text::PREVIEW_CHARS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_message: Option<Box<str>>,
}

/// Where a summary stands for what came before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Compaction {
    /// The row that holds the summary.
    pub summary_seq: u64,
    /// First row that is still given to the model as it was said.
    pub kept_from: u64,
}

/// A chat of a channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    pub address: Address,
    pub kind: ChatKind,
    /// Name of the group or of the person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}

/// What an owner chose for one conversation. The names are those of `sessions.patch`; absent means the agent's default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Settings {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icon: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub color: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// `provider/model`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_window: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thinking_level: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fast_mode: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verbose_level: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_level: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_level: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_usage: Option<String>,
    /// `allow` or `deny`: whether replies go out to the channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send_policy: Option<String>,
    /// `mention` or `always`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_activation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub board_face: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<StatusNote>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pinned_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archived_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marked_unread_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<SessionKey>,
    /// The conversation whose agent started this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spawned_by: Option<SessionKey>,
    /// `operator`, `spawn`, `channel`, `cron`, `run` or `internal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_via: Option<String>,
}

/// [`Settings`] in memory. They are large, and most conversations have none but where they came from: that one stands apart, and
/// the rest takes no room until something is chosen.
#[derive(Clone, Debug, Default)]
pub struct Chosen {
    /// `created_via` of [`Settings`], where it is not kept here.
    pub created_via: Option<String>,
    rest: Option<Box<Settings>>,
}

impl Chosen {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Gives back the room of settings that are all unset again.
    pub fn tidy(&mut self) {
        self.rest = self.rest.take().filter(|rest| **rest != Settings::default());
    }
}

impl Deref for Chosen {
    type Target = Settings;

    fn deref(&self) -> &Settings {
        static NONE: LazyLock<Settings> = LazyLock::new(Settings::default);
        self.rest.as_deref().unwrap_or_else(|| &NONE)
    }
}

impl DerefMut for Chosen {
    fn deref_mut(&mut self) -> &mut Settings {
        self.rest.get_or_insert_default()
    }
}

impl PartialEq for Chosen {
    fn eq(&self, other: &Self) -> bool {
        self.created_via == other.created_via && **self == **other
    }
}

impl From<Settings> for Chosen {
    fn from(mut settings: Settings) -> Self {
        let mut chosen = Self { created_via: settings.created_via.take(), rest: Some(Box::new(settings)) };
        chosen.tidy();
        chosen
    }
}

impl Serialize for Chosen {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        Settings { created_via: self.created_via.clone(), ..(**self).clone() }.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Chosen {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Settings::deserialize(from).map(Self::from)
    }
}

/// A line an agent or a person hangs on a conversation for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusNote {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention: Option<String>,
    pub set_ms: i64,
    pub expires_ms: i64,
}

/// What a conversation has used up, and how full its context is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Totals {
    /// Of the last run.
    pub input: u64,
    pub output: u64,
    pub cache_read: u64,
    pub cache_write: u64,
    /// Tokens of the last prompt: how much of the context window is in use. `None` when not known, as after a compaction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<u64>,
    /// US dollars since the stretch began, where prices are known.
    pub cost: f64,
}

/// The last run of a conversation, also after a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastRun {
    pub run_id: Box<str>,
    pub status: RunStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<i64>,
    /// Which model answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Box<str>>,
}

/// Values of `status` in a row of `sessions.list`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunStatus {
    Running,
    Done,
    Failed,
    Killed,
    Timeout,
}

impl Record {
    /// A conversation that begins now.
    pub fn begin(key: SessionKey, now_ms: i64) -> Self {
        Self {
            key,
            session_id: SessionId::random(),
            revision: fresh(),
            created_ms: now_ms,
            started_ms: now_ms,
            updated_ms: now_ms,
            interacted_ms: None,
            answered_ms: None,
            read_ms: None,
            last_seq: 0,
            compaction: None,
            compactions: 0,
            settings: Chosen::default(),
            totals: Totals::default(),
            last_run: None,
            place: None,
            title: None,
            last_message: None,
        }
    }

    /// Begins a new stretch; what the owner chose stays, what was said is left behind.
    pub fn restart(&mut self, now_ms: i64) {
        let old = self.clone();
        *self = Self::begin(old.key, now_ms);
        self.created_ms = old.created_ms;
        self.settings = old.settings;
        self.settings.marked_unread_ms = None;
        self.place = old.place;
    }

    /// True for the agent's main conversation.
    pub fn is_main(&self, main_key: &str) -> bool {
        self.key.rest() == main_key
    }

    /// Somebody marked it so, or an answer came after it was read. One that nobody ever marked as read is not unread, as in
    /// the reference.
    pub fn unread(&self) -> bool {
        self.settings.marked_unread_ms.is_some() || self.read_ms.is_some_and(|read| self.answered_ms > Some(read))
    }

    /// The later of the last question and the last answer.
    pub fn active_ms(&self) -> Option<i64> {
        self.interacted_ms.max(self.answered_ms)
    }
}

pub(super) fn fresh() -> Box<str> {
    uuid::Uuid::new_v4().to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_are_not_there_take_no_room() {
        let mut record = Record::begin(SessionKey::resolve("main", "main", "main").expect("a key"), 1);
        record.settings.created_via = Some("operator".into());
        assert!(record.settings.rest.is_none());
        record.settings.label = Some("Garden".into());
        let text = serde_json::to_string(&record).expect("JSON");
        assert!(text.contains(r#""settings":{"label":"Garden","createdVia":"operator"}"#), "{text}");
        assert_eq!(serde_json::from_str::<Record>(&text).expect("reads"), record);
        record.settings.label = None;
        record.settings.tidy();
        assert!(record.settings.rest.is_none());
        let text = serde_json::to_string(&record).expect("JSON");
        let read: Record = serde_json::from_str(&text).expect("reads");
        assert!(read.settings.rest.is_none() && read == record, "{text}");
    }
}
