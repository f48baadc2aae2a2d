//! What the gateway remembers: one SQLite file, one thread that writes it.
//!
//! Rooms keep their state in memory and hand the store typed changes. A batch is one transaction; batches that wait
//! together share one flush to disk, and each is told on its own whether it was saved. `touch` notes (when a device was
//! last here) ride along with the next batch, or go on their own at most once a minute, so devices that come and go cost
//! no flush.
//!
//! A new room adds a file with its tables and its change type, one line to [`Change`] and one to the migrations.

mod bootstrap;
pub(crate) mod channels;
pub(crate) mod devices;
pub(crate) mod nodes;
pub(crate) mod prompts;
mod reader;
pub(crate) mod runs;
mod schema;
pub(crate) mod sessions;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use openclaw_config::files::FileError;
use openclaw_protocol::{DeviceId, Role};
use rusqlite::Connection;
use thiserror::Error;

use crate::{
    nodes::{registry::Remembered, surface::NodeChange},
    pairing::{DeviceChange, DevicePairing, token::Seen},
    runs::record::RunChange,
    sessions::Record,
};

pub(crate) use channels::ChannelChange;
pub(crate) use prompts::PromptChange;
pub use reader::Reader;
pub use sessions::{MessageRow, SessionChange, Spent};
pub(crate) use sessions::{QUARTER_MS, int};
pub use writer::{Receipt, Slot, Store};

/// One change of what is remembered.
#[derive(Clone, Debug)]
pub enum Change {
    Device(DeviceChange),
    Node(NodeChange),
    Channel(ChannelChange),
    Prompt(PromptChange),
    Session(SessionChange),
    Run(RunChange),
}

impl From<DeviceChange> for Change {
    fn from(change: DeviceChange) -> Self {
        Self::Device(change)
    }
}

impl From<NodeChange> for Change {
    fn from(change: NodeChange) -> Self {
        Self::Node(change)
    }
}

impl From<SessionChange> for Change {
    fn from(change: SessionChange) -> Self {
        Self::Session(change)
    }
}

impl From<RunChange> for Change {
    fn from(change: RunChange) -> Self {
        Self::Run(change)
    }
}

impl From<PromptChange> for Change {
    fn from(change: PromptChange) -> Self {
        Self::Prompt(change)
    }
}

impl From<ChannelChange> for Change {
    fn from(change: ChannelChange) -> Self {
        Self::Channel(change)
    }
}

impl Change {
    fn apply(&self, connection: &Connection) -> rusqlite::Result<()> {
        match self {
            Self::Device(change) => devices::apply(connection, change),
            Self::Node(change) => nodes::apply(connection, change),
            Self::Channel(change) => channels::apply(connection, change),
            Self::Prompt(change) => prompts::apply(connection, change),
            Self::Session(change) => sessions::apply(connection, change),
            Self::Run(change) => runs::apply(connection, change),
        }
    }
}

/// Empty tables in memory, for tests of rooms.
#[cfg(test)]
pub(crate) fn tables() -> Connection {
    let connection = Connection::open_in_memory().expect("memory");
    schema::create(&connection);
    connection
}

/// What a start would find if exactly these changes had been saved.
#[cfg(test)]
pub(crate) fn found_at_start(
    tables: &mut Connection,
    changes: impl IntoIterator<Item = DeviceChange>,
) -> DevicePairing {
    let transaction = tables.transaction().expect("free");
    for change in changes {
        devices::apply(&transaction, &change).expect("fits the tables");
    }
    devices::load(&transaction).expect("reads")
}

/// A device was here. Saved when convenient; the last note per device and role counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touch {
    pub device_id: DeviceId,
    pub role: Role,
    pub seen: Seen,
    pub at_ms: i64,
}

/// Why the state database cannot be used, or why something was not saved.
#[derive(Clone, Debug, Error)]
pub enum StoreError {
    #[error(transparent)]
    File(Arc<FileError>),
    #[error("cannot use the state database {}: {source}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: Arc<io::Error>,
    },
    #[error(
        "the state database {0} is damaged ({detail}); nothing was changed or deleted. Restore it from a backup, or \
         keep it aside and start without paired devices: mv {0} {0}.damaged",
        path.display()
    )]
    Damaged { path: PathBuf, detail: String },
    #[error(
        "the state database {} was written by a newer openclaw (schema {found}, this one knows up to {known}); \
         update openclaw, or use another state directory (OPENCLAW_STATE_DIR)",
        path.display()
    )]
    Newer { path: PathBuf, found: u32, known: u32 },
    #[error("{} is a database of another program; it was left alone. Move it away, then start again", path.display())]
    NotOurs { path: PathBuf },
    #[error("state database {}: {source}", path.display())]
    Sqlite {
        path: PathBuf,
        #[source]
        source: Arc<rusqlite::Error>,
    },
    #[error("the state database is closed: the gateway is shutting down")]
    Closed,
    /// Something decided earlier could not be saved while this caller waited for it.
    #[error("an earlier change could not be saved; try again")]
    Unsettled,
}

impl From<FileError> for StoreError {
    fn from(error: FileError) -> Self {
        Self::File(Arc::new(error))
    }
}

impl Store {
    /// Opens or creates the database at `path` and starts its writer thread. The caller holds the state directory's lock.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], [`StoreError::Newer`], [`StoreError::NotOurs`], or that the file cannot be used; the file
    /// is left as it was.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let connection = schema::open(path)?;
        Self::start(connection, path.to_owned())
    }

    /// Everything about devices. For the start, before any runtime: it waits for the writer thread.
    ///
    /// # Errors
    /// When a row cannot be read or understood.
    pub fn load_devices(&self) -> Result<DevicePairing, StoreError> {
        self.read_blocking(devices::load)
    }

    /// Everything about nodes; as [`Store::load_devices`].
    ///
    /// # Errors
    /// When a row cannot be read or understood.
    pub fn load_nodes(&self) -> Result<Remembered, StoreError> {
        self.read_blocking(nodes::load)
    }

    /// What is known of every conversation; as [`Store::load_devices`].
    ///
    /// # Errors
    /// When a row cannot be read or understood.
    pub fn load_sessions(&self) -> Result<Vec<Record>, StoreError> {
        self.read_blocking(sessions::load)
    }
}
