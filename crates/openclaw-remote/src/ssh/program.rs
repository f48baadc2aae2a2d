//! Which ssh program runs, and with what environment.

use std::{
    env,
    ffi::OsStr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use super::{SshFailure, SshFailureKind};

/// The ssh program: an absolute path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program(PathBuf);

impl Program {
    /// The first `ssh` on `PATH`. Relative entries are passed over: a file in the working directory is never run.
    ///
    /// # Errors
    /// [`SshFailureKind::NoClient`].
    pub fn find() -> Result<Self, SshFailure> {
        let path = env::var_os("PATH").unwrap_or_default();
        on_path("ssh", &path).map(Self).ok_or_else(|| SshFailure::new(SshFailureKind::NoClient, String::new()))
    }

    /// A program known by its absolute path; `None` when the path is relative.
    pub fn at(path: impl Into<PathBuf>) -> Option<Self> {
        Some(path.into()).filter(|path| path.is_absolute()).map(Self)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The command with its environment: messages in English, and nothing of ours that a `SendEnv` could carry off.
    pub(super) fn command(&self, before: &[&OsStr]) -> std::process::Command {
        let mut command = match before.split_first() {
            None => std::process::Command::new(&self.0),
            Some((program, args)) => {
                let mut command = std::process::Command::new(program);
                command.args(args).arg(&self.0);
                command
            }
        };
        command.env("LC_ALL", "C");
        for (name, _) in env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"OPENCLAW_") {
                command.env_remove(name);
            }
        }
        command
    }
}

/// The first executable file of that name in an absolute directory of `path`.
pub(super) fn on_path(name: &str, path: &OsStr) -> Option<PathBuf> {
    env::split_paths(path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|file| file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_92_only_absolute_directories_count() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("ssh");
        std::fs::write(&file, "#!/bin/sh\n").expect("write");
        let path = format!(".::bin:{}", dir.path().display());
        assert_eq!(on_path("ssh", OsStr::new(&path)), None, "not executable");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("chmod");
        assert_eq!(on_path("ssh", OsStr::new(&path)), Some(file));
        assert_eq!(on_path("ssh", OsStr::new(".::bin")), None);
        assert_eq!(Program::at("ssh"), None);
    }
}
