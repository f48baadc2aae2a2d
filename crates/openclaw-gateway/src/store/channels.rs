//! Tables of the channels' room: what arrived, how far was polled, who wants to write, who may, what was sent by hand.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::{Store, StoreError};
use crate::channels::pairing::{Allowed, Pending};

pub(super) const SCHEMA_1: &str = "
    CREATE TABLE channel_offsets (
        channel      TEXT NOT NULL,
        counter      TEXT NOT NULL, -- account and what counts in it
        position     INTEGER NOT NULL,
        PRIMARY KEY (channel, counter)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE channel_arrivals (
        channel      TEXT NOT NULL,
        account      TEXT NOT NULL,
        arrival      TEXT NOT NULL,
        at_ms        INTEGER NOT NULL,
        PRIMARY KEY (channel, account, arrival)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX channel_arrivals_by_time ON channel_arrivals (at_ms);
    CREATE TABLE channel_pairing (
        request_id   TEXT PRIMARY KEY,
        channel      TEXT NOT NULL,
        account      TEXT NOT NULL,
        sender_id    TEXT NOT NULL,
        code         TEXT NOT NULL,
        name         TEXT NOT NULL,
        username     TEXT,
        chat         TEXT NOT NULL,
        created_ms   INTEGER NOT NULL,
        seen_ms      INTEGER NOT NULL,
        told         INTEGER NOT NULL, -- the code was sent, or may have been
        UNIQUE (channel, account, sender_id)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE channel_allowed (
        channel      TEXT NOT NULL,
        account      TEXT NOT NULL,
        sender_id    TEXT NOT NULL,
        name         TEXT NOT NULL,
        approved_ms  INTEGER NOT NULL,
        PRIMARY KEY (channel, account, sender_id)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE channel_sends (
        key          TEXT PRIMARY KEY, -- the caller's idempotency key
        digest       TEXT NOT NULL,    -- SHA-256 of what was asked
        outcome      TEXT,             -- JSON; absent while it is not known
        at_ms        INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
";

/// Telegram repeats what was not confirmed for a day; the reference keeps thirty.
const ARRIVALS_MS: i64 = 30 * 24 * 3_600_000;
/// Nobody repeats a send after a week.
const SENDS_MS: i64 = 7 * 24 * 3_600_000;

/// A change of the channels' room.
#[derive(Clone, Debug)]
pub enum ChannelChange {
    /// A message was dealt with.
    Arrived {
        channel: String,
        account: String,
        arrival: String,
        at_ms: i64,
    },
    /// Everything before this was taken.
    Polled {
        channel: String,
        counter: String,
        position: i64,
    },
    PutPending(Pending),
    DeletePending {
        request_id: String,
    },
    Allow(Allowed),
    /// A send by hand begins.
    Sending {
        key: String,
        digest: String,
        at_ms: i64,
    },
    /// It ended, in a way that is not repeated.
    Sent {
        key: String,
        outcome: String,
    },
    /// It certainly did not happen.
    NotSent {
        key: String,
    },
}

/// A send by hand, as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    pub digest: String,
    pub outcome: Option<String>,
}

pub(super) fn apply(connection: &Connection, change: &ChannelChange) -> rusqlite::Result<()> {
    match change {
        ChannelChange::Arrived { channel, account, arrival, at_ms } => {
            connection
                .prepare_cached("INSERT OR IGNORE INTO channel_arrivals VALUES (?1,?2,?3,?4)")?
                .execute(params![channel, account, arrival, at_ms])?;
            connection
                .prepare_cached("DELETE FROM channel_arrivals WHERE at_ms < ?1")?
                .execute([at_ms - ARRIVALS_MS])
                .map(drop)
        }
        ChannelChange::Polled { channel, counter, position } => connection
            .prepare_cached("INSERT OR REPLACE INTO channel_offsets VALUES (?1,?2,?3)")?
            .execute(params![channel, counter, position])
            .map(drop),
        ChannelChange::PutPending(pending) => connection
            .prepare_cached("INSERT OR REPLACE INTO channel_pairing VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11)")?
            .execute(params![
                pending.request_id,
                pending.channel,
                pending.account,
                pending.sender_id,
                pending.code,
                pending.name,
                pending.username,
                pending.chat,
                pending.created_ms,
                pending.seen_ms,
                pending.told,
            ])
            .map(drop),
        ChannelChange::DeletePending { request_id } => connection
            .prepare_cached("DELETE FROM channel_pairing WHERE request_id = ?1")?
            .execute([request_id])
            .map(drop),
        ChannelChange::Allow(allowed) => connection
            .prepare_cached("INSERT OR REPLACE INTO channel_allowed VALUES (?1,?2,?3,?4,?5)")?
            .execute(params![allowed.channel, allowed.account, allowed.sender_id, allowed.name, allowed.approved_ms])
            .map(drop),
        ChannelChange::Sending { key, digest, at_ms } => {
            connection.prepare_cached("DELETE FROM channel_sends WHERE at_ms < ?1")?.execute([at_ms - SENDS_MS])?;
            connection
                .prepare_cached("INSERT INTO channel_sends (key, digest, at_ms) VALUES (?1,?2,?3)")?
                .execute(params![key, digest, at_ms])
                .map(drop)
        }
        ChannelChange::Sent { key, outcome } => connection
            .prepare_cached("UPDATE channel_sends SET outcome = ?2 WHERE key = ?1")?
            .execute([key, outcome])
            .map(drop),
        ChannelChange::NotSent { key } => {
            connection.prepare_cached("DELETE FROM channel_sends WHERE key = ?1")?.execute([key]).map(drop)
        }
    }
}

fn pending(row: &Row<'_>) -> rusqlite::Result<Pending> {
    Ok(Pending {
        request_id: row.get("request_id")?,
        channel: row.get("channel")?,
        account: row.get("account")?,
        sender_id: row.get("sender_id")?,
        code: row.get("code")?,
        name: row.get("name")?,
        username: row.get("username")?,
        chat: row.get("chat")?,
        created_ms: row.get("created_ms")?,
        seen_ms: row.get("seen_ms")?,
        told: row.get("told")?,
    })
}

impl Store {
    /// Whether this arrival was dealt with.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) async fn has_arrived(&self, channel: &str, account: &str, arrival: &str) -> Result<bool, StoreError> {
        let key = [channel.to_owned(), account.to_owned(), arrival.to_owned()];
        self.read(move |connection| {
            connection
                .prepare_cached("SELECT 1 FROM channel_arrivals WHERE channel = ?1 AND account = ?2 AND arrival = ?3")?
                .exists(key)
        })
        .await
    }

    /// Where polling goes on.
    ///
    /// # Errors
    /// As [`Store::has_arrived`].
    pub(crate) async fn channel_offset(&self, channel: &str, counter: &str) -> Result<Option<i64>, StoreError> {
        let key = [channel.to_owned(), counter.to_owned()];
        self.read(move |connection| {
            connection
                .prepare_cached("SELECT position FROM channel_offsets WHERE channel = ?1 AND counter = ?2")?
                .query_row(key, |row| row.get(0))
                .optional()
        })
        .await
    }

    /// Everybody who wants to write and has not expired at `now`, oldest first.
    ///
    /// # Errors
    /// As [`Store::has_arrived`].
    pub(crate) async fn channel_pending(&self, now_ms: i64) -> Result<Vec<Pending>, StoreError> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached("SELECT * FROM channel_pairing ORDER BY created_ms")?;
            let all = statement.query_and_then([], pending)?.collect::<rusqlite::Result<Vec<_>>>()?;
            Ok(all.into_iter().filter(|pending| !pending.expired(now_ms)).collect())
        })
        .await
    }

    /// Whether the owner let this sender in.
    ///
    /// # Errors
    /// As [`Store::has_arrived`].
    pub(crate) async fn is_channel_allowed(
        &self,
        channel: &str,
        account: &str,
        sender: &str,
    ) -> Result<bool, StoreError> {
        let key = [channel.to_owned(), account.to_owned(), sender.to_owned()];
        self.read(move |connection| {
            connection
                .prepare_cached("SELECT 1 FROM channel_allowed WHERE channel = ?1 AND account = ?2 AND sender_id = ?3")?
                .exists(key)
        })
        .await
    }

    /// Everybody the owner let in: channel, account, sender.
    ///
    /// # Errors
    /// As [`Store::has_arrived`].
    pub(crate) async fn channel_allowed(&self) -> Result<Vec<(String, String, String)>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT channel, account, sender_id FROM channel_allowed")?;
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect()
        })
        .await
    }

    /// A send by hand with this key.
    ///
    /// # Errors
    /// As [`Store::has_arrived`].
    pub(crate) async fn channel_send(&self, key: &str) -> Result<Option<Remembered>, StoreError> {
        let key = key.to_owned();
        self.read(move |connection| {
            connection
                .prepare_cached("SELECT digest, outcome FROM channel_sends WHERE key = ?1")?
                .query_row([key], |row| Ok(Remembered { digest: row.get(0)?, outcome: row.get(1)? }))
                .optional()
        })
        .await
    }
}
