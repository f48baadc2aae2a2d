//! Earlier versions: `.bak` is the newest, then `.bak.1` … `.bak.4` (config.md section 1), all 0600.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    files::{self, FileError},
    paths::with_suffix,
};

/// Newest first.
const SUFFIXES: [&str; 5] = [".bak", ".bak.1", ".bak.2", ".bak.3", ".bak.4"];
/// Rejected texts that are kept.
const REJECTED: u32 = 5;

pub(super) fn newest(file: &Path) -> PathBuf {
    with_suffix(file, SUFFIXES[0])
}

/// Moves the ring on and keeps `bytes` as the newest. Gives its path.
pub(super) fn push(file: &Path, bytes: &[u8]) -> Result<PathBuf, FileError> {
    for pair in SUFFIXES.windows(2).rev() {
        if let [newer, older] = pair {
            rename_if_there(&with_suffix(file, newer), &with_suffix(file, older))?;
        }
    }
    let backup = newest(file);
    files::write_private_atomic(&backup, bytes)?;
    Ok(backup)
}

/// Exchanges the file with its newest backup, whose content is `backup_bytes`. The file always holds one of the two,
/// and after a crash [`recover`] finds the other.
pub(super) fn swap(file: &Path, backup_bytes: &[u8]) -> Result<(), FileError> {
    let aside = with_suffix(file, ".bak.undo");
    match fs::read(file) {
        Ok(current) => {
            files::write_private_atomic(&aside, &current)?;
            files::write_private_atomic(file, backup_bytes)?;
            rename_if_there(&aside, &newest(file))
        }
        // The file was deleted: there is nothing to exchange with.
        Err(error) if error.kind() == io::ErrorKind::NotFound => files::write_private_atomic(file, backup_bytes),
        Err(source) => Err(FileError::Io { action: "read", path: file.to_owned(), source }),
    }
}

/// Finishes a swap that was cut off.
pub(super) fn recover(file: &Path) -> Result<(), FileError> {
    let aside = with_suffix(file, ".bak.undo");
    if fs::symlink_metadata(&aside).is_err() {
        return Ok(());
    }
    let swapped = match (fs::read(file), fs::read(newest(file))) {
        (Ok(current), Ok(backup)) => current == backup,
        _ => false,
    };
    if swapped {
        return rename_if_there(&aside, &newest(file));
    }
    fs::remove_file(&aside).map_err(|source| FileError::Io { action: "remove", path: aside.clone(), source })
}

/// Keeps a text that was not accepted as `.rejected.<n>`; the oldest of five makes room.
pub(super) fn keep_rejected(file: &Path, bytes: &[u8]) -> Result<PathBuf, FileError> {
    let slot = |n: u32| with_suffix(file, &format!(".rejected.{n}"));
    let age = |path: &Path| fs::symlink_metadata(path).and_then(|meta| meta.modified()).ok();
    let free = (1..=REJECTED).map(slot).find(|path| fs::symlink_metadata(path).is_err());
    let oldest = || (1..=REJECTED).map(slot).min_by_key(|path| age(path));
    let path = free.or_else(oldest).unwrap_or_else(|| slot(1));
    files::write_private_atomic(&path, bytes)?;
    Ok(path)
}

fn rename_if_there(from: &Path, to: &Path) -> Result<(), FileError> {
    match fs::rename(from, to) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(FileError::Io { action: "rename", path: from.to_owned(), source })
        }
        _ => Ok(()),
    }
}
