//! Which ssh program runs, and with what environment.

use std::{
    env,
    ffi::OsStr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use super::{SshFailure, SshFailureKind};

/// The ssh that is used: a program, or (feature `builtin-ssh`) the client inside this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program(pub(super) Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An absolute path.
    File(PathBuf),
    /// Reads `.ssh` in this home.
    #[cfg(feature = "builtin-ssh")]
    Builtin(PathBuf),
}

/// Which ssh to use, where a person said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Implementation {
    /// The `ssh` on `PATH`, and no other.
    System,
    /// The client inside this program.
    Builtin,
}

/// What [`Program::choose`] was told.
static CHOSEN: OnceLock<Implementation> = OnceLock::new();

impl Program {
    /// Settles which ssh [`Program::find`] gives from now on. The first call counts.
    pub fn choose(implementation: Implementation) {
        let _ = CHOSEN.set(implementation);
    }

    /// What was chosen.
    pub fn chosen() -> Option<Implementation> {
        CHOSEN.get().copied()
    }

    /// The first `ssh` on `PATH`. Relative entries are passed over: a file in the working directory is never run. Without
    /// one, the builtin client where it was compiled in.
    ///
    /// # Errors
    /// [`SshFailureKind::NoClient`].
    pub fn find() -> Result<Self, SshFailure> {
        let none = |why: &str| SshFailure::new(SshFailureKind::NoClient, why);
        #[cfg(feature = "builtin-ssh")]
        let builtin = || env::home_dir().map(Self::builtin);
        #[cfg(not(feature = "builtin-ssh"))]
        let builtin = || None;
        let system = || {
            let path = env::var_os("PATH").unwrap_or_default();
            on_path("ssh", &path).map(|file| Self(Kind::File(file)))
        };
        match Self::chosen() {
            Some(Implementation::Builtin) => {
                builtin().ok_or_else(|| none("this build has no built-in ssh client; it is the feature builtin-ssh"))
            }
            Some(Implementation::System) => system().ok_or_else(|| none("")),
            None => system().or_else(builtin).ok_or_else(|| none("")),
        }
    }

    /// A program known by its absolute path; `None` when the path is relative.
    pub fn at(path: impl Into<PathBuf>) -> Option<Self> {
        Some(path.into()).filter(|path| path.is_absolute()).map(Kind::File).map(Self)
    }

    /// The client inside this program, with the files in `home/.ssh`.
    #[cfg(feature = "builtin-ssh")]
    pub const fn builtin(home: PathBuf) -> Self {
        Self(Kind::Builtin(home))
    }

    /// Where it is; `builtin` for the client inside this program.
    pub fn path(&self) -> &Path {
        match &self.0 {
            Kind::File(path) => path,
            #[cfg(feature = "builtin-ssh")]
            Kind::Builtin(_) => Path::new("builtin"),
        }
    }

    /// The command with its environment: messages in English, and nothing of ours that a `SendEnv` could carry off.
    pub(super) fn command(&self, before: &[&OsStr]) -> std::process::Command {
        // The builtin client starts no command.
        let ssh = self.path();
        let mut command = match before.split_first() {
            None => std::process::Command::new(ssh),
            Some((program, args)) => {
                let mut command = std::process::Command::new(program);
                command.args(args).arg(ssh);
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
