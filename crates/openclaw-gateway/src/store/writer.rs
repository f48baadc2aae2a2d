//! The one thread that writes.

use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use openclaw_protocol::{DeviceId, Role};
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::{Change, StoreError, Touch, devices, schema};
use crate::pairing::Seen;

/// Batches that may wait for the writer; the next caller waits for room.
const QUEUE: usize = 256;
/// Batches that share one transaction at most.
const GROUP: usize = 128;
/// Touch notes go to disk on their own at most this often.
const TOUCH_INTERVAL: Duration = Duration::from_secs(60);
/// SQLite needs little; the default of 2 MiB would be reserved for nothing.
const STACK_BYTES: usize = 512 * 1024;

type Reply = oneshot::Sender<Result<(), StoreError>>;
type Job = Box<dyn FnOnce(&Connection) + Send>;

enum Message {
    Commit {
        changes: Vec<Change>,
        reply: Reply,
    },
    /// Runs between transactions, after everything queued before it.
    Run(Job),
    /// Write the touch notes now.
    Touched,
    Close,
}

/// The state database. Clones share one writer; when the last is dropped, or at [`Store::close`], what waits is written
/// and the thread ends.
#[derive(Clone)]
pub struct Store {
    sender: mpsc::Sender<Message>,
    shared: Arc<Shared>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("path", &self.shared.path).finish_non_exhaustive()
    }
}

struct Shared {
    path: PathBuf,
    touches: Mutex<Touches>,
    /// Batches queued or being written.
    in_flight: AtomicUsize,
    /// Batches that could not be saved so far.
    failures: AtomicU64,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Touches {
    /// The last note of each device and role, and when its token was last used.
    notes: HashMap<(DeviceId, Role), (Touch, Option<i64>)>,
    /// When notes were last taken to be written.
    flushed: Instant,
}

/// Room for one batch, held while its content is decided, so that deciding and queueing cannot be torn apart.
#[derive(Debug)]
#[must_use]
pub struct Slot<'a> {
    permit: mpsc::Permit<'a, Message>,
    shared: &'a Shared,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Resolves when the batch is on disk, or was not saved at all. Dropping it changes nothing about the batch.
#[derive(Debug)]
#[must_use = "the batch is saved only once this resolves"]
pub struct Receipt(oneshot::Receiver<Result<(), StoreError>>);

impl Receipt {
    /// Waits on this thread. Not for use inside an async runtime.
    ///
    /// # Errors
    /// When the batch was not saved.
    pub fn wait(self) -> Result<(), StoreError> {
        self.0.blocking_recv().unwrap_or(Err(StoreError::Closed))
    }
}

impl Future for Receipt {
    type Output = Result<(), StoreError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|result| result.unwrap_or(Err(StoreError::Closed)))
    }
}

impl Slot<'_> {
    /// Queues the batch: one transaction, all or nothing, in the order of these calls.
    pub fn send<C: Into<Change>>(self, changes: impl IntoIterator<Item = C>) -> Receipt {
        let (reply, receipt) = oneshot::channel();
        let changes = changes.into_iter().map(Into::into).collect();
        self.shared.in_flight.fetch_add(1, Ordering::SeqCst);
        self.permit.send(Message::Commit { changes, reply });
        Receipt(receipt)
    }
}

impl Store {
    pub(super) fn start(connection: Connection, path: PathBuf) -> Result<Self, StoreError> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let shared = Arc::new(Shared {
            path,
            touches: Mutex::new(Touches { notes: HashMap::new(), flushed: Instant::now() }),
            in_flight: AtomicUsize::new(0),
            failures: AtomicU64::new(0),
            thread: Mutex::new(None),
        });
        let writer = Writer { connection, shared: Arc::clone(&shared) };
        let thread = std::thread::Builder::new()
            .name("openclaw-store".into())
            .stack_size(STACK_BYTES)
            .spawn(move || writer.run(receiver))
            .map_err(|source| StoreError::Io { path: shared.path.clone(), source: Arc::new(source) })?;
        *lock(&shared.thread) = Some(thread);
        Ok(Self { sender, shared })
    }

    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Waits for room for one batch.
    ///
    /// # Errors
    /// [`StoreError::Closed`]
    pub async fn reserve(&self) -> Result<Slot<'_>, StoreError> {
        let permit = self.sender.reserve().await.map_err(|_| StoreError::Closed)?;
        Ok(Slot { permit, shared: &self.shared })
    }

    /// Room for one batch, if there is some without waiting.
    pub fn try_reserve(&self) -> Option<Slot<'_>> {
        let permit = self.sender.try_reserve().ok()?;
        Some(Slot { permit, shared: &self.shared })
    }

    /// Saves a batch; resolves once it is on disk.
    ///
    /// # Errors
    /// When it was not saved; then none of it was.
    pub async fn commit<C: Into<Change>>(&self, changes: impl IntoIterator<Item = C>) -> Result<(), StoreError> {
        self.reserve().await?.send(changes).await
    }

    /// [`Store::commit`] for threads outside any runtime.
    ///
    /// # Errors
    /// When it was not saved; then none of it was.
    pub fn commit_blocking<C: Into<Change>>(&self, changes: impl IntoIterator<Item = C>) -> Result<(), StoreError> {
        let (reply, receipt) = oneshot::channel();
        let changes = changes.into_iter().map(Into::into).collect();
        self.shared.in_flight.fetch_add(1, Ordering::SeqCst);
        if self.sender.blocking_send(Message::Commit { changes, reply }).is_err() {
            self.shared.in_flight.fetch_sub(1, Ordering::SeqCst);
            return Err(StoreError::Closed);
        }
        Receipt(receipt).wait()
    }

    /// Notes that a device was here; never waits, and costs no flush of its own more than once a minute.
    pub fn touch(&self, touch: Touch) {
        let due = {
            let mut touches = lock(&self.shared.touches);
            let key = (touch.device_id.clone(), touch.role);
            let used = (touch.seen == Seen::DeviceToken).then_some(touch.at_ms);
            let used = used.or_else(|| touches.notes.get(&key).and_then(|(_, used)| *used));
            touches.notes.insert(key, (touch, used));
            let due = touches.flushed.elapsed() >= TOUCH_INTERVAL;
            if due {
                touches.flushed = Instant::now();
            }
            due
        };
        if due {
            // A full queue means batches are about to take the notes along.
            let _ = self.sender.try_send(Message::Touched);
        }
    }

    /// Waits until everything queued so far is on disk; at once when nothing is.
    ///
    /// # Errors
    /// [`StoreError::Unsettled`] when some of it could not be saved.
    pub async fn settled(&self) -> Result<(), StoreError> {
        if self.shared.in_flight.load(Ordering::SeqCst) == 0 {
            return Ok(());
        }
        let before = self.shared.failures.load(Ordering::SeqCst);
        self.commit(std::iter::empty::<Change>()).await?;
        if self.shared.failures.load(Ordering::SeqCst) == before { Ok(()) } else { Err(StoreError::Unsettled) }
    }

    /// Runs a query on the writer thread, after everything queued before it.
    ///
    /// # Errors
    /// What the query says, or [`StoreError::Closed`].
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(move |connection: &Connection| {
            // The asker may have gone; the answer is then nobody's.
            let _ = reply.send(query(connection));
        });
        self.sender.send(Message::Run(job)).await.map_err(|_| StoreError::Closed)?;
        let answer = answer.await.map_err(|_| StoreError::Closed)?;
        answer.map_err(|error| schema::explain(&self.shared.path, error))
    }

    /// [`Store::read`] that blocks this thread.
    pub(crate) fn read_blocking<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = std::sync::mpsc::sync_channel(1);
        let job = Box::new(move |connection: &Connection| {
            // The asker waits below, unless it was killed.
            let _ = reply.send(query(connection));
        });
        self.push(Message::Run(job))?;
        let answer = answer.recv().map_err(|_| StoreError::Closed)?;
        answer.map_err(|error| schema::explain(&self.shared.path, error))
    }

    /// Queues a message from a thread that may block. The writer never waits for its callers, so this ends.
    fn push(&self, mut message: Message) -> Result<(), StoreError> {
        loop {
            message = match self.sender.try_send(message) {
                Ok(()) => return Ok(()),
                Err(mpsc::error::TrySendError::Full(back)) => back,
                Err(mpsc::error::TrySendError::Closed(_)) => return Err(StoreError::Closed),
            };
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Writes what waits, folds the log into the database and ends the writer thread. Later calls are answered
    /// [`StoreError::Closed`]. Blocks for as long as the disk takes.
    pub fn close(&self) {
        // Refused only if it is closed already.
        let _ = self.push(Message::Close);
        let thread = lock(&self.shared.thread).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the state writer ended abnormally");
        }
    }
}

struct Writer {
    connection: Connection,
    shared: Arc<Shared>,
}

impl Writer {
    fn run(mut self, mut queue: mpsc::Receiver<Message>) {
        while let Some(message) = queue.blocking_recv() {
            let mut next = Some(message);
            let mut group = Vec::new();
            while let Some(Message::Commit { changes, reply }) = next {
                group.push((changes, reply));
                next = if group.len() < GROUP { queue.try_recv().ok() } else { None };
            }
            if !group.is_empty() {
                self.commit(group);
            }
            match next {
                Some(Message::Run(job)) => job(&self.connection),
                Some(Message::Touched) => self.commit(Vec::new()),
                Some(Message::Close) => break,
                Some(Message::Commit { .. }) | None => {}
            }
        }
        queue.close();
        while let Ok(message) = queue.try_recv() {
            if let Message::Commit { changes, reply } = message {
                self.commit(vec![(changes, reply)]);
            }
        }
        self.commit(Vec::new());
        // Leaves one tidy file; if it fails, the next open reads the log.
        let _ = self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
    }

    /// Saves a group of batches and the touch notes in one transaction, then tells each batch how it went.
    fn commit(&mut self, group: Vec<(Vec<Change>, Reply)>) {
        let notes = {
            let mut touches = lock(&self.shared.touches);
            touches.flushed = Instant::now();
            std::mem::take(&mut touches.notes)
        };
        if notes.is_empty() && group.iter().all(|(changes, _)| changes.is_empty()) {
            self.tell(group.into_iter().map(|(_, reply)| (reply, Ok(()))));
            return;
        }
        let batches: Vec<&[Change]> = group.iter().map(|(changes, _)| changes.as_slice()).collect();
        let path = self.shared.path.clone();
        let outcome = save(&mut self.connection, &batches, notes.values());
        let results = match outcome {
            Ok(results) => results,
            Err(error) => {
                let error = schema::explain(&path, error);
                batches.iter().map(|_| Err(error.clone())).collect()
            }
        };
        for error in results.iter().filter_map(|result| result.as_ref().err()) {
            tracing::error!(%error, "a change was not saved");
        }
        self.tell(group.into_iter().map(|(_, reply)| reply).zip(results));
    }

    fn tell(&self, results: impl Iterator<Item = (Reply, Result<(), StoreError>)>) {
        for (reply, result) in results {
            if result.is_err() {
                self.shared.failures.fetch_add(1, Ordering::SeqCst);
            }
            // Counted down before the answer, so that whoever is answered finds nothing in flight.
            self.shared.in_flight.fetch_sub(1, Ordering::SeqCst);
            // The asker may be gone; the change is saved all the same.
            let _ = reply.send(result);
        }
    }
}

/// One transaction. A batch that cannot be applied is undone on its own; an error here means that nothing was saved.
fn save<'a>(
    connection: &mut Connection,
    batches: &[&[Change]],
    notes: impl Iterator<Item = &'a (Touch, Option<i64>)>,
) -> rusqlite::Result<Vec<Result<(), StoreError>>> {
    let path = connection.path().map(PathBuf::from).unwrap_or_default();
    let mut transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut results = Vec::with_capacity(batches.len());
    for changes in batches {
        let savepoint = transaction.savepoint()?;
        let applied = changes.iter().try_for_each(|change| change.apply(&savepoint));
        match applied {
            Ok(()) => savepoint.commit()?,
            // Dropping it rolls it back.
            Err(_) => drop(savepoint),
        }
        results.push(applied.map_err(|error| schema::explain(&path, error)));
    }
    for (note, used_at_ms) in notes {
        devices::apply_touch(&transaction, note, *used_at_ms)?;
    }
    transaction.commit()?;
    Ok(results)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
