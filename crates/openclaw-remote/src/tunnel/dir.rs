//! A tunnel's name and its files.

use std::{
    env, fmt,
    path::{Path, PathBuf},
};

use openclaw_protocol::secret::hex;
use sha2::{Digest as _, Sha256};

use crate::ssh::SshSpec;

/// Longest name, in bytes.
const MAX_NAME_BYTES: usize = 63;

/// A tunnel's name: a lower-case letter or digit, then up to 62 of those, `-`, `_` and `.`; the same as a saved connection's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TunnelName(String);

impl TunnelName {
    /// `None` for anything that is not a name.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let first = text.bytes().next()?;
        let rest = text.bytes().all(|b| plain(b) || b"-_.".contains(&b));
        (plain(first) && rest && text.len() <= MAX_NAME_BYTES).then(|| Self(text.to_owned()))
    }

    /// The name of a tunnel nobody named: the host and eight digits of everything that decides the connection.
    pub fn of(spec: &SshSpec) -> Self {
        let all = format!("{}\n{:?}\n{:?}", spec.origin(), spec.identity, spec.host_keys);
        let digits = hex(&Sha256::digest(all.as_bytes())[..4]);
        let host = spec.target.host().to_ascii_lowercase().replace(':', "-");
        let host: String = host.trim_start_matches(['-', '.', '_']).chars().take(MAX_NAME_BYTES - 13).collect();
        Self(format!("ssh-{host}-{digits}"))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TunnelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `<STATE_DIR>/tunnels/<name>`: what a supervisor keeps there. Its sockets move to a short place when their path would
/// not fit into a socket address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelDir {
    name: TunnelName,
    dir: PathBuf,
    sockets: PathBuf,
}

impl TunnelDir {
    /// Touches no file.
    pub fn new(state_dir: &Path, name: &TunnelName) -> Self {
        let dir = state_dir.join("tunnels").join(name.as_str());
        let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let sockets = crate::ssh::place(&dir, runtime.as_deref());
        Self { name: name.clone(), dir, sockets }
    }

    /// Every tunnel that has, or had, a supervisor here, by name.
    pub fn all(state_dir: &Path) -> Vec<Self> {
        let Ok(entries) = std::fs::read_dir(state_dir.join("tunnels")) else { return Vec::new() };
        let names = entries.flatten().filter_map(|entry| TunnelName::parse(entry.file_name().to_str()?));
        let mut names: Vec<_> = names.collect();
        names.sort();
        names.iter().map(|name| Self::new(state_dir, name)).collect()
    }

    pub const fn name(&self) -> &TunnelName {
        &self.name
    }

    /// The directory, 0700.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// The near end: connect here and you speak to the gateway.
    pub fn socket(&self) -> PathBuf {
        self.sockets.join("sock")
    }

    /// The control socket (see [`super::control`]).
    pub fn control(&self) -> PathBuf {
        self.sockets.join("ctl")
    }

    /// Held by the one supervisor of this tunnel.
    pub fn lock_file(&self) -> PathBuf {
        self.dir.join("lock")
    }

    /// JSON lines, the older half in `log.1`.
    pub fn log_file(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Where the sockets are, ssh's own included.
    pub fn sockets(&self) -> &Path {
        &self.sockets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let long = "a".repeat(63);
        for name in ["home", "0", "a-b_c.d", long.as_str()] {
            assert_eq!(TunnelName::parse(name).expect(name).as_str(), name);
        }
        for name in ["", "-a", ".a", "..", "A", "a/b", "a b", "é", &"a".repeat(64)] {
            assert_eq!(TunnelName::parse(name), None, "{name}");
        }
    }

    #[test]
    fn unnamed_tunnels_differ_by_what_decides_them() {
        let spec = SshSpec::new("me@Box.example.com:2222".parse().expect("target"));
        let name = TunnelName::of(&spec);
        assert!(name.as_str().starts_with("ssh-box.example.com-"), "{name}");
        assert_eq!(TunnelName::parse(name.as_str()), Some(name.clone()));
        assert_ne!(name, TunnelName::of(&SshSpec { gateway_port: 1, ..spec.clone() }));
        assert_ne!(name, TunnelName::of(&SshSpec { identity: Some("k".into()), ..spec }));
        for odd in ["::1", "_x", &"h".repeat(200)] {
            let name = TunnelName::of(&SshSpec::new(odd.parse().expect("target")));
            assert_eq!(TunnelName::parse(name.as_str()), Some(name.clone()), "{odd}");
        }
    }

    #[test]
    fn long_state_directories_get_short_sockets() {
        let state = PathBuf::from(format!("/home/{}", "x".repeat(100)));
        let dir = TunnelDir::new(&state, &TunnelName::parse("home").expect("name"));
        assert!(dir.lock_file().starts_with(&state) && !dir.socket().starts_with(&state));
        assert!(dir.socket().as_os_str().len() <= 100);
    }
}
