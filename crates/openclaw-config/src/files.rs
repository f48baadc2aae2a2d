//! Private files: how everything in the state directory is read and written.
//!
//! Files are 0600 and directories 0700 whatever the umask is; a looser one of ours is tightened, one that belongs to
//! somebody else is refused, and writes never go through a symbolic link.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use openclaw_protocol::secret::hex;

/// Why a private file or directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{} belongs to user id {owner}, but this process runs as {ours}; run as its owner, or point OPENCLAW_STATE_DIR or OPENCLAW_CONFIG_PATH at your own", path.display())]
    ForeignOwner { path: PathBuf, owner: u32, ours: u32 },
    #[error("{} is a symbolic link and is not written through; edit the file it points to, or replace the link by a regular file", path.display())]
    Symlink { path: PathBuf },
    #[error("{} is not a regular {expected}", path.display())]
    WrongKind { path: PathBuf, expected: &'static str },
    #[error("{} is larger than {limit} bytes", path.display())]
    TooLarge { path: PathBuf, limit: u64 },
    #[error("another process is holding {} and did not finish in {} s; try again", path.display(), waited.as_secs())]
    Locked { path: PathBuf, waited: Duration },
}

impl FileError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Makes `path` a directory of ours with mode 0700, parents included. An existing looser one of ours is tightened;
/// existing parents are left alone.
pub fn create_private_dir(path: &Path) -> Result<(), FileError> {
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => {
            require_owner(path, &meta, false)?;
            return set_mode(path, &meta, DIRECTORY_MODE);
        }
        Ok(_) => return Err(FileError::WrongKind { path: path.to_owned(), expected: "directory" }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(FileError::io("look at", path)(error)),
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty())
        && !parent.exists()
    {
        create_private_dir(parent)?;
    }
    match rustix::fs::mkdir(path, rustix::fs::Mode::RWXU) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(FileError::io("create", path)(error.into())),
    }
    // The umask can only have taken bits away from 0700, or another process made the directory first.
    let meta = fs::metadata(path).map_err(FileError::io("look at", path))?;
    require_owner(path, &meta, false)?;
    set_mode(path, &meta, DIRECTORY_MODE)
}

/// Replaces `path` by a 0600 file holding `bytes`, so that a reader or a crash sees the old content or the new one,
/// never a mixture: temporary file in the same directory, fsync, rename, fsync of the directory.
pub fn write_private_atomic(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    refuse_symlink(path)?;
    let temporary = temporary_beside(path);
    let written = write_new_private(&temporary, bytes)
        .and_then(|()| fs::rename(&temporary, path).map_err(FileError::io("replace", path)));
    if written.is_err() {
        // Best effort: the write already failed and its cause is what the caller needs.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    sync_directory_of(path)
}

/// Creates a 0600 file that must not exist yet, and fsyncs it.
pub fn write_new_private(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(path)
        .map_err(FileError::io("create", path))?;
    // A umask such as 0777 would leave the file unreadable for ourselves.
    file.set_permissions(fs::Permissions::from_mode(FILE_MODE)).map_err(FileError::io("set the mode of", path))?;
    file.write_all(bytes).map_err(FileError::io("write", path))?;
    file.sync_all().map_err(FileError::io("flush", path))
}

/// Creates a 0600 file holding `bytes`, whole or not at all, and never in place of one that is there: temporary file, fsync,
/// link, fsync of the directory. Where the file system has no links, a crash may leave it half written.
pub fn publish_private(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let temporary = temporary_beside(path);
    let published = write_new_private(&temporary, bytes).and_then(|()| match fs::hard_link(&temporary, path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(FileError::io("create", path)(error)),
        Err(_) => write_new_private(path, bytes),
    });
    // Best effort: it is a second name of a file that is there, or what is left of a failed attempt.
    let _ = fs::remove_file(&temporary);
    published?;
    sync_directory_of(path)
}

/// Reads a private file of at most `limit` bytes; `None` if there is none. It must be a regular file of ours, not a
/// link, and is tightened to 0600.
pub fn read_private(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, FileError> {
    use rustix::fs::OFlags;
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            return Err(FileError::Symlink { path: path.to_owned() });
        }
        Err(error) => return Err(FileError::io("open", path)(error)),
    };
    let meta = file.metadata().map_err(FileError::io("look at", path))?;
    if !meta.is_file() {
        return Err(FileError::WrongKind { path: path.to_owned(), expected: "file" });
    }
    require_owner(path, &meta, true)?;
    if meta.uid() == our_uid() && meta.mode() & 0o077 != 0 {
        file.set_permissions(fs::Permissions::from_mode(FILE_MODE)).map_err(FileError::io("tighten", path))?;
    }
    read_limited(file, path, limit).map(Some)
}

/// Reads an open file, refusing more than `limit` bytes without holding more than that.
pub(crate) fn read_limited(file: File, path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(FileError::io("read", path))?;
    if bytes.len() as u64 > limit {
        return Err(FileError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(bytes)
}

/// Checks that `path`, or what it links to, is ours (security case P-77). Files of root that nobody else can write are
/// accepted, since system-wide config and container mounts are such; a missing path is fine.
pub fn check_ownership(path: &Path) -> Result<(), FileError> {
    let link = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(FileError::io("look at", path)(error)),
    };
    require_owner(path, &link, !link.is_dir())?;
    if link.is_symlink() {
        let target = match fs::metadata(path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(FileError::io("follow", path)(error)),
        };
        require_owner(path, &target, !target.is_dir())?;
    }
    Ok(())
}

/// Takes group and world permissions from a file or directory of ours. A link, a missing path and somebody else's
/// file are left alone.
pub fn tighten(path: &Path) -> Result<(), FileError> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(FileError::io("look at", path)(error)),
    };
    if meta.is_symlink() || meta.uid() != our_uid() {
        return Ok(());
    }
    let mode = if meta.is_dir() { DIRECTORY_MODE } else { FILE_MODE };
    set_mode(path, &meta, mode)
}

/// An advisory lock on a file of its own, released on drop and by the kernel when the process dies.
#[derive(Debug)]
pub struct FileLock {
    _file: File,
}

impl FileLock {
    /// Takes the lock, or gives `None` if another process has it.
    pub fn try_acquire(path: &Path) -> Result<Option<Self>, FileError> {
        use rustix::fs::{FlockOperation, OFlags};
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(path)
            .map_err(FileError::io("open", path))?;
        tighten(path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(FileError::io("lock", path)(error.into())),
        }
    }

    /// Takes the lock, waiting for another holder up to `patience`.
    pub fn acquire(path: &Path, patience: Duration) -> Result<Self, FileError> {
        let start = Instant::now();
        loop {
            if let Some(lock) = Self::try_acquire(path)? {
                return Ok(lock);
            }
            if start.elapsed() >= patience {
                return Err(FileError::Locked { path: path.to_owned(), waited: patience });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Removes temporary files that killed writers left beside `path`. Only for callers that hold the lock of its writers.
pub(crate) fn remove_stale_temporaries(path: &Path) {
    let (Some(dir), Some(prefix)) = (path.parent(), temporary_prefix(path)) else { return };
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(&prefix) && name.ends_with(".tmp")) {
            // Left in place it does no harm, so a failure is not worth an error.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// True when this process may not write `path`, because it is a symbolic link.
pub(crate) fn refuse_symlink(path: &Path) -> Result<(), FileError> {
    if fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink()) {
        return Err(FileError::Symlink { path: path.to_owned() });
    }
    Ok(())
}

/// Random bytes from the operating system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], FileError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|e| FileError::io("read random bytes for", Path::new("a new file"))(io::Error::other(e)))?;
    Ok(bytes)
}

pub(crate) fn our_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn require_owner(path: &Path, meta: &fs::Metadata, root_may_own: bool) -> Result<(), FileError> {
    let (owner, ours) = (meta.uid(), our_uid());
    let roots = root_may_own && owner == 0 && (meta.is_symlink() || meta.mode() & 0o022 == 0);
    if owner == ours || roots {
        return Ok(());
    }
    Err(FileError::ForeignOwner { path: path.to_owned(), owner, ours })
}

fn set_mode(path: &Path, meta: &fs::Metadata, mode: u32) -> Result<(), FileError> {
    if meta.mode() & 0o777 == mode {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(FileError::io("set the mode of", path))
}

fn temporary_prefix(path: &Path) -> Option<String> {
    Some(format!(".{}.", path.file_name()?.to_string_lossy()))
}

fn temporary_beside(path: &Path) -> PathBuf {
    let tag = random::<6>().map_or_else(|_| "0".to_owned(), |bytes| hex(&bytes));
    let prefix = temporary_prefix(path).unwrap_or_default();
    path.with_file_name(format!("{prefix}{}.{tag}.tmp", std::process::id()))
}

fn sync_directory_of(path: &Path) -> Result<(), FileError> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(FileError::io("flush", dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o777
    }

    /// Sets the umask for this test's process. Under a runner that shares the process, other tests only get stricter
    /// conditions to prove the same.
    fn with_umask(mask: u32) {
        rustix::process::umask(rustix::fs::Mode::from_bits_truncate(mask));
    }

    #[test]
    fn p_76_modes_do_not_depend_on_the_umask() {
        let dir = tempfile::tempdir().unwrap();
        for mask in [0o000, 0o022, 0o777] {
            with_umask(mask);
            let made = dir.path().join(format!("{mask:o}")).join("below");
            create_private_dir(&made).unwrap();
            assert_eq!((mode(&made), mode(made.parent().unwrap())), (0o700, 0o700), "umask {mask:o}");
            let file = made.join("f");
            write_private_atomic(&file, b"one").unwrap();
            write_private_atomic(&file, b"two").unwrap();
            assert_eq!(mode(&file), 0o600, "umask {mask:o}");
            assert_eq!(read_private(&file, 10).unwrap().as_deref(), Some(&b"two"[..]));
            publish_private(&made.join("p"), b"three").unwrap();
            assert_eq!(mode(&made.join("p")), 0o600, "umask {mask:o}");
            publish_private(&made.join("p"), b"four").expect_err("it is there already");
            assert_eq!(fs::read(made.join("p")).unwrap(), b"three");
            let _lock = FileLock::try_acquire(&made.join("l")).unwrap().unwrap();
            assert_eq!(mode(&made.join("l")), 0o600, "umask {mask:o}");
            assert_eq!(fs::read_dir(&made).unwrap().count(), 3, "no temporary file is left");
        }
        with_umask(0o022);
    }

    #[test]
    fn p_76_loose_ones_are_tightened() {
        let dir = tempfile::tempdir().unwrap();
        let (sub, file) = (dir.path().join("d"), dir.path().join("f"));
        fs::create_dir(&sub).unwrap();
        fs::write(&file, "x").unwrap();
        fs::set_permissions(&sub, fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        create_private_dir(&sub).unwrap();
        assert_eq!(mode(&sub), 0o700);
        read_private(&file, 10).unwrap();
        assert_eq!(mode(&file), 0o600);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
        tighten(&file).unwrap();
        assert_eq!(mode(&file), 0o600);
        tighten(&dir.path().join("gone")).unwrap();
    }

    /// A path that belongs to somebody else, whoever runs the test.
    fn foreign(dir: &Path, is_dir: bool) -> PathBuf {
        if our_uid() != 0 {
            return PathBuf::from(if is_dir { "/" } else { "/proc/1/environ" });
        }
        let path = dir.join(if is_dir { "fd" } else { "ff" });
        if is_dir {
            fs::create_dir(&path).unwrap()
        } else {
            fs::write(&path, "x").unwrap()
        }
        std::os::unix::fs::chown(&path, Some(12_345), Some(12_345)).unwrap();
        path
    }

    #[test]
    fn p_77_foreign_ownership_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let theirs = foreign(dir.path(), true);
        let error = create_private_dir(&theirs).unwrap_err();
        assert!(matches!(error, FileError::ForeignOwner { .. }), "{error}");
        assert!(error.to_string().contains("belongs to user id"), "{error}");
        let file = foreign(dir.path(), false);
        if our_uid() == 0 {
            assert!(matches!(check_ownership(&file), Err(FileError::ForeignOwner { .. })));
            assert!(matches!(read_private(&file, 10), Err(FileError::ForeignOwner { .. })));
        }
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&theirs, &link).unwrap();
        assert!(matches!(check_ownership(&link), Err(FileError::ForeignOwner { .. })));
        check_ownership(&dir.path().join("gone")).unwrap();
        check_ownership(dir.path()).unwrap();
    }

    #[test]
    fn links_are_not_written_or_read_through() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::write(&real, "x").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert!(matches!(write_private_atomic(&link, b"y"), Err(FileError::Symlink { .. })));
        assert!(matches!(read_private(&link, 10), Err(FileError::Symlink { .. })));
        assert_eq!(fs::read(&real).unwrap(), b"x");
        assert!(FileLock::try_acquire(&link).is_err());
    }

    #[test]
    fn reads_are_bounded_and_only_of_files() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        assert_eq!(read_private(&file, 3).unwrap(), None);
        fs::write(&file, "1234").unwrap();
        assert!(matches!(read_private(&file, 3), Err(FileError::TooLarge { limit: 3, .. })));
        assert!(read_private(&file, 4).unwrap().is_some());
        assert!(matches!(read_private(dir.path(), 3), Err(FileError::WrongKind { .. })));
        let fifo = dir.path().join("p");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        assert!(matches!(read_private(&fifo, 3), Err(FileError::WrongKind { .. })));
    }

    #[test]
    fn a_lock_has_one_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = FileLock::try_acquire(&path).unwrap().unwrap();
        assert!(FileLock::try_acquire(&path).unwrap().is_none());
        assert!(matches!(FileLock::acquire(&path, Duration::ZERO), Err(FileError::Locked { .. })));
        drop(held);
        assert!(FileLock::acquire(&path, Duration::ZERO).is_ok());
    }

    #[test]
    fn stale_temporaries_go() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        for name in [".f.1.ab.tmp", ".f.2.cd.tmp", ".other.1.tmp", "f.tmp", "f"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        remove_stale_temporaries(&file);
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [".other.1.tmp", "f", "f.tmp"]);
    }
}
