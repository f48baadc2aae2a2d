//! Messages with buttons that ask for leave to run a command: remembered until they are answered, so that a gateway that was
//! restarted can take them back.

use openclaw_channels::message::Address;
use rusqlite::{Connection, params};

use super::{Store, StoreError};

pub(super) const SCHEMA_1: &str = "
    CREATE TABLE approval_prompts (
        channel      TEXT NOT NULL,
        account      TEXT NOT NULL,
        message_id   TEXT NOT NULL, -- of the piece with the buttons
        chat         TEXT NOT NULL,
        thread       TEXT,
        approval_id  TEXT NOT NULL,
        sent_ms      INTEGER NOT NULL,
        PRIMARY KEY (channel, account, chat, message_id)
    ) STRICT, WITHOUT ROWID;
";

/// A message with buttons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    pub at: Address,
    pub message_id: String,
    pub approval_id: String,
    pub sent_ms: i64,
}

/// A change of what is remembered of them.
#[derive(Clone, Debug)]
pub enum PromptChange {
    Sent(Prompt),
    /// It was answered, taken back, or cannot be found any more.
    Done {
        at: Address,
        message_id: String,
    },
}

pub(super) fn apply(connection: &Connection, change: &PromptChange) -> rusqlite::Result<()> {
    match change {
        PromptChange::Sent(Prompt { at, message_id, approval_id, sent_ms }) => connection
            .prepare_cached("INSERT OR REPLACE INTO approval_prompts VALUES (?1,?2,?3,?4,?5,?6,?7)")?
            .execute(params![at.channel, at.account, message_id, at.chat, at.thread, approval_id, sent_ms])
            .map(drop),
        PromptChange::Done { at, message_id } => connection
            .prepare_cached(
                "DELETE FROM approval_prompts WHERE channel = ?1 AND account = ?2 AND chat = ?3 AND message_id = ?4",
            )?
            .execute(params![at.channel, at.account, at.chat, message_id])
            .map(drop),
    }
}

impl Store {
    /// The messages that were not answered, oldest first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn approval_prompts(&self) -> Result<Vec<Prompt>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare("SELECT * FROM approval_prompts ORDER BY sent_ms")?;
            let rows = statement.query_map([], |row| {
                Ok(Prompt {
                    at: Address {
                        channel: row.get("channel")?,
                        account: row.get("account")?,
                        chat: row.get("chat")?,
                        thread: row.get("thread")?,
                    },
                    message_id: row.get("message_id")?,
                    approval_id: row.get("approval_id")?,
                    sent_ms: row.get("sent_ms")?,
                })
            })?;
            rows.collect()
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn prompts_survive_until_they_are_done() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("db.sqlite");
        let prompt = |id: &str, thread: Option<&str>| Prompt {
            at: Address {
                channel: "discord".into(),
                account: "default".into(),
                chat: "1".into(),
                thread: thread.map(str::to_owned),
            },
            message_id: id.into(),
            approval_id: "a".into(),
            sent_ms: id.parse().expect("a number"),
        };
        let store = Store::open(&path).expect("opens");
        store
            .commit([PromptChange::Sent(prompt("5", None)), PromptChange::Sent(prompt("6", Some("9")))])
            .await
            .expect("saved");
        drop(store);
        let store = Store::open(&path).expect("opens again");
        assert_eq!(store.approval_prompts().await.expect("read"), [prompt("5", None), prompt("6", Some("9"))]);
        let done = PromptChange::Done { at: prompt("5", None).at, message_id: "5".into() };
        store.commit([done]).await.expect("saved");
        assert_eq!(store.approval_prompts().await.expect("read"), [prompt("6", Some("9"))]);
    }
}
