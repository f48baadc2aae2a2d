//! Reading beside the writer: read-only connections on blocking threads. They see what is committed and nothing less, and
//! never make the writer wait (WAL).

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rusqlite::{Connection, InterruptHandle, OpenFlags};
use tokio::sync::Semaphore;

use super::{Store, StoreError, schema};

/// Queries at the same time; the next waits for its turn.
const CONNECTIONS: usize = 4;
/// Connections kept open between queries.
const IDLE: usize = 2;
/// A query that takes longer is ended: nothing a person asks for needs it.
const QUERY_TIMEOUT: Duration = Duration::from_secs(20);
/// 512 KiB of page cache for each.
const CACHE_KIB: i64 = 512;

/// A pool of read-only connections; clones share it.
#[derive(Clone)]
pub struct Reader {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    turns: Arc<Semaphore>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("path", &self.shared.path).finish_non_exhaustive()
    }
}

impl Store {
    /// Read-only connections to the same database.
    pub fn reader(&self) -> Reader {
        Reader::new(self.path())
    }
}

impl Reader {
    fn new(path: &Path) -> Self {
        let turns = Arc::new(Semaphore::new(CONNECTIONS));
        Self { shared: Arc::new(Shared { path: path.to_owned(), idle: Mutex::default(), turns }) }
    }

    /// Runs a query on a blocking thread. It sees everything that was committed before this call. Dropping the future ends
    /// the query.
    ///
    /// # Errors
    /// What the query says; also that it took longer than 20 s and was ended.
    pub async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let turn = Arc::clone(&self.shared.turns).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let shared = Arc::clone(&self.shared);
        let running = Running::default();
        let ours = running.clone();
        let mut done = tokio::task::spawn_blocking(move || {
            let answer = shared.read(&ours, query);
            drop(turn);
            answer
        });
        let interrupt = InterruptOnDrop(running);
        let answer = match tokio::time::timeout(QUERY_TIMEOUT, &mut done).await {
            Ok(answer) => answer,
            Err(_) => {
                interrupt.0.interrupt();
                done.await
            }
        };
        answer.unwrap_or(Err(StoreError::Closed))
    }
}

/// The query under way; nothing before it starts and after it ended, so that nobody else's is interrupted.
#[derive(Clone, Default)]
struct Running(Arc<Mutex<Option<InterruptHandle>>>);

impl Running {
    fn set(&self, handle: Option<InterruptHandle>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = handle;
    }

    fn interrupt(&self) {
        if let Some(handle) = self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            handle.interrupt();
        }
    }
}

/// Ends the query of an asker who has gone.
struct InterruptOnDrop(Running);

impl Drop for InterruptOnDrop {
    fn drop(&mut self) {
        self.0.interrupt();
    }
}

impl Shared {
    fn read<T>(
        &self,
        running: &Running,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let told = |error| schema::explain(&self.path, error);
        let connection = match self.idle().pop() {
            Some(connection) => connection,
            None => open(&self.path).map_err(told)?,
        };
        running.set(Some(connection.get_interrupt_handle()));
        let answer = query(&connection).map_err(told);
        running.set(None);
        let mut idle = self.idle();
        if idle.len() < IDLE {
            idle.push(connection);
        }
        answer
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(connection)
}
