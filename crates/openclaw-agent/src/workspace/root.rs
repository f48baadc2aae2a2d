//! A directory nothing gets out of: not by `..`, not by absolute paths, not by links that somebody swaps meanwhile.
//!
//! On Linux the kernel decides (`openat2` with `RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS`), so links that stay inside work.
//! Elsewhere, and where a sandbox forbids `openat2`, every component is opened by itself and no link is followed.

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::OwnedFd,
    path::{Component, Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, Stat},
    io::Errno,
};

/// Why a path was refused. Says the path as it was given.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    #[error("{0:?} leads out of the workspace; only what is inside it can be used, by a path relative to it")]
    Outside(String),
    #[error("{0:?} is no usable path: it {1}")]
    Invalid(String, &'static str),
    #[error("there is no {0:?} in the workspace")]
    Missing(String),
    #[error("{path:?} is {found}, not {expected}")]
    Kind { path: String, found: &'static str, expected: &'static str },
    #[error("{0:?} was changed by somebody else meanwhile; read it again")]
    Changed(String),
    #[error("{path:?}: {source}")]
    Io { path: String, source: io::Error },
}

/// See the module documentation.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    /// One writer at a time, so that an edit sees what it replaces.
    writing: Mutex<()>,
    /// False where the kernel's way is not to be used.
    beneath: bool,
}

/// A checked path relative to the root; empty for the root itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inside {
    /// As it was given, for messages.
    shown: String,
    parts: Vec<String>,
}

impl Root {
    /// The directory may be a link; what is below it is confined to what it points at.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), writing: Mutex::new(()), beneath: kernel_confines() }
    }

    /// Never asks the kernel to confine.
    #[cfg(test)]
    pub(crate) fn by_components(path: impl Into<PathBuf>) -> Self {
        Self { beneath: false, ..Self::new(path) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Checks the form of a path: relative, or absolute below the root; without `..`.
    pub(crate) fn inside(&self, given: &str) -> Result<Inside, PathError> {
        let invalid = |why| Err(PathError::Invalid(given.to_owned(), why));
        if given.contains('\0') {
            return invalid("holds a NUL character");
        }
        if given.len() > 4096 {
            return invalid("is longer than 4096 bytes");
        }
        if given.starts_with('~') {
            return Err(PathError::Outside(given.to_owned()));
        }
        let path = Path::new(given);
        let path = if path.is_absolute() {
            path.strip_prefix(&self.path).map_err(|_| PathError::Outside(given.to_owned()))?
        } else {
            path
        };
        let mut parts = Vec::new();
        for component in path.components() {
            match component {
                Component::CurDir => {}
                Component::Normal(name) => parts.push(name.to_string_lossy().into_owned()),
                Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                    return Err(PathError::Outside(given.to_owned()));
                }
            }
        }
        Ok(Inside { shown: given.to_owned(), parts })
    }

    /// Opens a regular file for reading.
    pub(crate) fn open_file(&self, inside: &Inside) -> Result<(File, Stat), PathError> {
        // Not waiting for a writer of a FIFO, and not taking a terminal.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = self.open(inside, flags).map_err(|errno| match errno {
            // Sockets cannot be opened.
            Errno::NXIO => inside.kind("a socket", "a file"),
            errno => inside.error(errno),
        })?;
        let stat = rustix::fs::fstat(&fd).map_err(|errno| inside.error(errno))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok((File::from(fd), stat)),
            other => Err(inside.kind(name(other), "a file")),
        }
    }

    /// Opens a directory for listing.
    pub(crate) fn open_dir(&self, inside: &Inside) -> Result<OwnedFd, PathError> {
        self.open(inside, OFlags::RDONLY | OFlags::DIRECTORY).map_err(|errno| match errno {
            Errno::NOTDIR => inside.kind("a file", "a directory"),
            errno => inside.error(errno),
        })
    }

    /// Puts a file in place, whole or not at all, with the directories above it. Replaces only what `expected` says was
    /// there, if it says so. Gives whether there was one before.
    pub(crate) fn replace(&self, inside: &Inside, bytes: &[u8], expected: Option<&Stat>) -> Result<bool, PathError> {
        let Some((file, above)) = inside.parts.split_last() else {
            return Err(inside.kind("the workspace itself", "a file"));
        };
        if inside.shown.ends_with('/') {
            return Err(inside.kind("a directory", "a file"));
        }
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = self.make_dirs(inside, above)?;
        let before = match rustix::fs::statat(&dir, file.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Some(stat),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(inside.error(errno)),
        };
        if let Some(stat) = &before {
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => {}
                other => return Err(inside.kind(name(other), "a file")),
            }
        }
        if let Some(expected) = expected
            && !before.as_ref().is_some_and(|found| same(found, expected))
        {
            return Err(PathError::Changed(inside.shown.clone()));
        }
        let temporary = format!(".{}.tmp", uuid::Uuid::new_v4().simple());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&dir, temporary.as_str(), flags, Mode::from_raw_mode(0o644))
            .map_err(|errno| inside.error(errno))?;
        let mut written = File::from(fd);
        let done = (|| {
            if let Some(stat) = &before {
                rustix::fs::fchmod(&written, Mode::from_raw_mode(stat.st_mode & 0o777))?;
            }
            written.write_all(bytes)?;
            // On the disk before the name is: a power cut leaves the old file or the new one.
            written.sync_data()?;
            rustix::fs::renameat(&dir, temporary.as_str(), &dir, file.as_str())?;
            Ok(())
        })();
        done.map_err(|source: io::Error| {
            let _ = rustix::fs::unlinkat(&dir, temporary.as_str(), AtFlags::empty());
            PathError::Io { path: inside.shown.clone(), source }
        })?;
        Ok(before.is_some())
    }

    /// The directory that these parts name, made where it is not there.
    fn make_dirs(&self, inside: &Inside, parts: &[String]) -> Result<OwnedFd, PathError> {
        if parts.is_empty() && !self.path.exists() {
            std::fs::create_dir_all(&self.path)
                .map_err(|source| PathError::Io { path: self.path.display().to_string(), source })?;
        }
        let here = Inside { shown: inside.shown.clone(), parts: parts.to_vec() };
        match self.open(&here, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(dir) => return Ok(dir),
            Err(Errno::NOENT) if !parts.is_empty() => {}
            Err(Errno::NOTDIR) => return Err(inside.kind("below a file", "below a directory")),
            Err(errno) => return Err(inside.error(errno)),
        }
        let (last, above) = parts.split_last().ok_or_else(|| PathError::Missing(inside.shown.clone()))?;
        let dir = self.make_dirs(inside, above)?;
        match rustix::fs::mkdirat(&dir, last.as_str(), Mode::from_raw_mode(0o755)) {
            // Somebody else was quicker.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(inside.error(errno)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&dir, last.as_str(), flags, Mode::empty()).map_err(|errno| inside.error(errno))
    }

    fn open(&self, inside: &Inside, flags: OFlags) -> Result<OwnedFd, Errno> {
        let root = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&self.path, root, Mode::empty())?;
        let flags = flags | OFlags::CLOEXEC;
        if self.beneath {
            let path = if inside.parts.is_empty() { ".".to_owned() } else { inside.parts.join("/") };
            return open_beneath(&root, &path, flags);
        }
        let Some((last, above)) = inside.parts.split_last() else { return Ok(root) };
        let step = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir =
            above.iter().try_fold(root, |dir, part| rustix::fs::openat(&dir, part.as_str(), step, Mode::empty()))?;
        rustix::fs::openat(&dir, last.as_str(), flags | OFlags::NOFOLLOW, Mode::empty())
    }
}

/// The same file with the same content, as far as the file system tells.
fn same(a: &Stat, b: &Stat) -> bool {
    (a.st_dev, a.st_ino, a.st_size, a.st_mtime, a.st_mtime_nsec)
        == (b.st_dev, b.st_ino, b.st_size, b.st_mtime, b.st_mtime_nsec)
}

#[cfg(target_os = "linux")]
fn open_beneath(root: &OwnedFd, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    use rustix::fs::ResolveFlags;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    // EAGAIN: somebody renamed a directory meanwhile, and the kernel could not tell whether the path stays inside.
    for _ in 0..16 {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}

#[cfg(not(target_os = "linux"))]
fn open_beneath(_: &OwnedFd, _: &str, _: OFlags) -> Result<OwnedFd, Errno> {
    Err(Errno::NOSYS)
}

/// Whether the kernel has `openat2` and lets us use it.
fn kernel_confines() -> bool {
    static ANSWER: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *ANSWER.get_or_init(|| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open("/", flags, Mode::empty()).and_then(|root| open_beneath(&root, ".", flags)).is_ok()
    })
}

impl Inside {
    fn kind(&self, found: &'static str, expected: &'static str) -> PathError {
        PathError::Kind { path: self.shown.clone(), found, expected }
    }

    fn error(&self, errno: Errno) -> PathError {
        let path = self.shown.clone();
        match errno {
            Errno::NOENT => PathError::Missing(path),
            // EXDEV is the kernel's word for "not beneath"; ELOOP comes for links where none are followed.
            Errno::XDEV => PathError::Outside(path),
            Errno::LOOP | Errno::MLINK => self.kind("a symbolic link, or below one", "a file or directory of its own"),
            Errno::NOTDIR => self.kind("below a file", "below a directory"),
            Errno::NAMETOOLONG => PathError::Invalid(path, "has a name that is too long"),
            errno => PathError::Io { path, source: errno.into() },
        }
    }

    /// As it was given.
    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    pub(crate) fn join(&self, name: &str) -> Self {
        let mut parts = self.parts.clone();
        parts.push(name.to_owned());
        Self { shown: parts.join("/"), parts }
    }
}

pub(crate) fn name(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "a file",
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Unknown => "of an unknown kind",
    }
}
