//! Where the near end of a tunnel may be: a private directory whose path fits into a socket address and into ssh's `-L`.

use std::{
    env,
    os::unix::{ffi::OsStrExt as _, net::UnixStream},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use openclaw_config::files::{FileError, create_private_dir};
use openclaw_protocol::secret::hex;
use sha2::{Digest as _, Sha256};

/// Longest socket path used. Linux takes 107 bytes, macOS 103.
const SOCKET_PATH_BYTES: usize = 100;
/// Room for a name below the directory: `/s4294967295-99999`.
const NAME_BYTES: usize = 18;

/// Makes the private directory that sockets for `wanted` go to: `wanted` itself, or, when its path is too long for a socket
/// address or holds a character that ssh would read, `$XDG_RUNTIME_DIR/openclaw-<hash>` or
/// `/tmp/openclaw-<uid>/<hash>`. The same `wanted` gives the same answer.
///
/// # Errors
/// When the directory cannot be made, or is somebody else's.
pub fn socket_dir(wanted: &Path) -> Result<PathBuf, FileError> {
    let place = place(wanted, env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).as_deref());
    create_private_dir(&place)?;
    Ok(place)
}

/// [`socket_dir`] without touching the disk.
pub(crate) fn place(wanted: &Path, runtime: Option<&Path>) -> PathBuf {
    if fits(wanted) {
        return wanted.to_owned();
    }
    let hash = hex(&Sha256::digest(wanted.as_os_str().as_bytes())[..8]);
    let uid = rustix::process::geteuid().as_raw();
    runtime
        .map(|runtime| runtime.join(format!("openclaw-{hash}")))
        .filter(|dir| fits(dir))
        .unwrap_or_else(|| PathBuf::from(format!("/tmp/openclaw-{uid}/{hash}")))
}

fn fits(dir: &Path) -> bool {
    let bytes = dir.as_os_str().as_bytes();
    dir.is_absolute() && bytes.len() + NAME_BYTES <= SOCKET_PATH_BYTES && is_plain(bytes)
}

/// No separator, token or quote of ssh's `-L` (`:`, `%`, `$`, `\`, `[`), and no blank.
pub(super) fn is_plain(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+,@=".contains(byte))
}

/// A name for the next socket: `s<process>-<count>`.
pub(super) fn fresh_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("s{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed) % 100_000)
}

/// Removes sockets whose process was killed together with its ssh. A process that lives, or one behind which somebody
/// still answers (in another container, say), keeps its own.
pub(super) fn sweep(dir: &Path) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix('s')?.split_once('-'));
        let Some(pid) = owner.and_then(|(pid, count)| count.parse::<u32>().ok().and(pid.parse().ok())) else {
            continue;
        };
        let alive = rustix::process::Pid::from_raw(pid)
            .is_none_or(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH));
        let refused =
            || UnixStream::connect(entry.path()).is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused);
        if !alive && refused() {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_odd_paths_move_to_a_short_place() {
        let runtime = Path::new("/run/user/1000");
        for wanted in ["/home/me/.openclaw/tunnels/home", "/s"] {
            assert_eq!(place(Path::new(wanted), Some(runtime)), Path::new(wanted));
        }
        let long = format!("/home/{}", "x".repeat(90));
        for wanted in [long.as_str(), "/home/a b", "/home/a:b", "/home/%h", "/home/${HOME}", "/home/é", "tunnels"] {
            let found = place(Path::new(wanted), Some(runtime));
            assert!(found.starts_with(runtime) && fits(&found), "{wanted}: {found:?}");
            assert_eq!(found, place(Path::new(wanted), Some(runtime)), "stable");
            assert!(place(Path::new(wanted), None).starts_with("/tmp"), "{wanted}");
        }
        assert_ne!(place(Path::new("/a b"), None), place(Path::new("/a c"), None));
        assert!(place(Path::new("/a b"), Some(Path::new(&long))).starts_with("/tmp"));
    }

    #[test]
    fn only_sockets_of_the_dead_are_swept() {
        let dir = tempfile::tempdir().expect("dir");
        let mut child = std::process::Command::new("true").spawn().expect("true");
        let dead = child.id();
        child.wait().expect("ends");
        let bind = |name: String| std::os::unix::net::UnixListener::bind(dir.path().join(name)).expect("bind");
        drop(bind(format!("s{dead}-0")));
        drop(bind(format!("s{}-0", std::process::id())));
        let _answers = bind(format!("s{dead}-1"));
        drop(bind("sock".to_owned()));
        drop(bind(format!("s{dead}-x")));
        sweep(dir.path());
        let entries = std::fs::read_dir(dir.path()).expect("dir").flatten();
        let mut left: Vec<_> = entries.map(|entry| entry.file_name().into_string().expect("text")).collect();
        left.sort();
        let mut expected =
            [format!("s{}-0", std::process::id()), format!("s{dead}-1"), format!("s{dead}-x"), "sock".to_owned()];
        expected.sort();
        assert_eq!(left, expected);
    }
}
