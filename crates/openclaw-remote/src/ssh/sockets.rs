//! Where the near end of a tunnel may be: a private directory whose path fits into a socket address and into ssh's `-L`.

use std::{
    env,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
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
}
