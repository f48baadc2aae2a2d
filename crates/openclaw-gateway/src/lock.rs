//! One owner per state directory.
//!
//! The operating system holds the lock and drops it with its holder, however that one ends; nothing is decided from a
//! pid in a file. The file's content only tells a second gateway whom it met.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use openclaw_config::files::{self, FileError};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Enough for an owner's notes; more is not ours.
const MAX_NOTE_BYTES: usize = 4096;

/// Who owns a state directory, as it says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    pub pid: u32,
    /// ms since the epoch
    pub started_at_ms: i64,
    pub version: String,
    /// Where it listens, once it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// The lock on a state directory, released when dropped or when the process ends.
#[derive(Debug)]
pub struct StateLock {
    file: File,
    path: PathBuf,
    owner: Owner,
}

/// Why the lock was not taken.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another gateway runs on this state directory. `owner` is `None` in the moment before it has said who it is.
    #[error("{}", Held { state_dir, owner: owner.as_ref() })]
    Held { state_dir: PathBuf, owner: Option<Owner> },
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot lock {}: {source}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl StateLock {
    /// Takes the lock file at `path` (made 0600 in a 0700 directory) and notes who took it. A lock left behind by a killed
    /// process is simply free.
    ///
    /// # Errors
    /// [`LockError::Held`] with whom it met; the other process is left alone.
    pub fn acquire(path: &Path, owner: Owner) -> Result<Self, LockError> {
        let state_dir = path.parent().unwrap_or(Path::new("."));
        files::create_private_dir(state_dir)?;
        if fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink()) {
            return Err(FileError::Symlink { path: path.to_owned() }.into());
        }
        files::check_ownership(path)?;
        let io = |source| LockError::Io { path: path.to_owned(), source };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(path)
            .map_err(io)?;
        files::tighten(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Held { state_dir: state_dir.to_owned(), owner: read_note(&file) });
            }
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        let mut lock = Self { file, path: path.to_owned(), owner };
        lock.write_note()?;
        Ok(lock)
    }

    /// Notes where this gateway listens.
    ///
    /// # Errors
    /// When the file cannot be written; the lock stays held.
    pub fn announce(&mut self, url: &str) -> Result<(), LockError> {
        self.owner.url = Some(url.to_owned());
        self.write_note()
    }

    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    fn write_note(&mut self) -> Result<(), LockError> {
        let note = serde_json::to_vec(&self.owner).map_err(io::Error::other);
        note.and_then(|note| {
            self.file.write_all_at(&note, 0)?;
            self.file.set_len(note.len() as u64)?;
            self.file.flush()
        })
        .map_err(|source| LockError::Io { path: self.path.clone(), source })
    }
}

impl Drop for StateLock {
    fn drop(&mut self) {
        // So that nobody reads of an owner that is gone; the lock itself goes with the file handle.
        let _ = self.file.set_len(0);
    }
}

/// Who last noted itself in the lock file at `path`, for diagnostics. The note of a killed gateway stays until the next
/// start, so this proves nothing; only [`StateLock::acquire`] does. It takes no lock, not even for a moment: that could
/// make a gateway that starts right now believe it has a rival.
pub fn noted_owner(path: &Path) -> Option<Owner> {
    read_note(&File::open(path).ok()?)
}

fn read_note(file: &File) -> Option<Owner> {
    let mut bytes = vec![0; MAX_NOTE_BYTES];
    let length = file.read_at(&mut bytes, 0).ok()?;
    serde_json::from_slice(&bytes[..length]).ok()
}

struct Held<'a> {
    state_dir: &'a Path,
    owner: Option<&'a Owner>,
}

impl std::fmt::Display for Held<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let dir = self.state_dir.display();
        let Some(Owner { pid, started_at_ms, version, url }) = self.owner else {
            return write!(
                f,
                "another openclaw gateway is starting on the state directory {dir}; wait for it (openclaw gateway \
                 status), or use another directory (OPENCLAW_STATE_DIR)"
            );
        };
        let since = jiff::Timestamp::from_millisecond(*started_at_ms)
            .map_or_else(|_| "an unknown time".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string());
        let place = url.as_ref().map_or_else(|| "not listening yet".to_owned(), |url| format!("listening on {url}"));
        write!(
            f,
            "the state directory {dir} is already owned by an openclaw gateway {version} (pid {pid}, running since \
             {since}, {place}). To use it: openclaw status. To replace it: kill {pid}, then start again. To run \
             a second one beside it: openclaw --profile other gateway run"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    fn owner(pid: u32) -> Owner {
        Owner { pid, started_at_ms: 1_795_230_941_672, version: "0.1.0".into(), url: None }
    }

    #[test]
    fn p_80_the_second_start_is_told_about_the_first() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("state").join("gateway.lock");
        let mut first = StateLock::acquire(&path, owner(4242)).expect("free");
        assert_eq!(noted_owner(&path), Some(owner(4242)));
        first.announce("ws://127.0.0.1:18789").expect("writes");
        let refused = StateLock::acquire(&path, owner(7)).expect_err("held");
        let text = refused.to_string();
        for part in ["pid 4242", "2026-11-21", "ws://127.0.0.1:18789", "0.1.0", "openclaw status", "kill 4242"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let LockError::Held { owner: Some(seen), .. } = refused else { panic!("typed") };
        assert_eq!(seen, *first.owner());
        drop(first);
        assert_eq!(noted_owner(&path), None);
        let second = StateLock::acquire(&path, owner(7)).expect("free again");
        assert_eq!(second.owner().pid, 7);
    }

    #[test]
    fn an_owner_that_has_not_spoken_yet_is_still_an_owner() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("gateway.lock");
        let silent = File::create(&path).expect("creates");
        silent.lock().expect("locks");
        let refused = StateLock::acquire(&path, owner(1)).expect_err("held");
        assert!(matches!(refused, LockError::Held { owner: None, .. }), "{refused}");
        assert!(refused.to_string().contains("another openclaw gateway is starting"), "{refused}");
    }

    #[test]
    fn a_stale_note_is_no_lock() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("gateway.lock");
        fs::write(&path, serde_json::to_vec(&owner(1)).expect("json")).expect("writes");
        assert_eq!(noted_owner(&path), Some(owner(1)));
        let lock = StateLock::acquire(&path, owner(2)).expect("free");
        assert_eq!(lock.owner().pid, 2);
    }

    #[test]
    fn p_76_lock_file_and_directory_are_private() {
        let dir = tempfile::tempdir().expect("temp dir");
        let state = dir.path().join("state");
        fs::create_dir(&state).expect("creates");
        fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).expect("loosens");
        let path = state.join("gateway.lock");
        fs::write(&path, "").expect("writes");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("loosens");
        let _lock = StateLock::acquire(&path, owner(1)).expect("free");
        let mode = |path: &Path| fs::metadata(path).expect("exists").mode() & 0o777;
        assert_eq!((mode(&path), mode(&state)), (0o600, 0o700));
    }

    #[test]
    fn p_77_a_linked_lock_is_refused() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (target, path) = (dir.path().join("victim"), dir.path().join("gateway.lock"));
        fs::write(&target, "precious").expect("writes");
        std::os::unix::fs::symlink(&target, &path).expect("links");
        assert!(matches!(StateLock::acquire(&path, owner(1)), Err(LockError::File(FileError::Symlink { .. }))));
        assert_eq!(fs::read_to_string(&target).expect("reads"), "precious");
    }
}
