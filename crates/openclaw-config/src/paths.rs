//! Where this profile's files are on this machine.

use std::{
    fmt,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use openclaw_protocol::secret::hex;
use sha2::{Digest as _, Sha256};

use crate::env::{self, Env};

/// Gateway port of every profile but dev (checklist S-007).
pub const DEFAULT_PORT: u16 = 18_789;
/// Gateway port of the dev profile (checklist S-222).
pub const DEV_PORT: u16 = 19_001;
/// Longest socket path used as it is. Linux takes 107 bytes, macOS 103.
const SOCKET_PATH_BYTES: usize = 100;
/// Longest accepted profile name.
const PROFILE_BYTES: usize = 64;

/// A checked profile name: 1 to 64 letters, digits, `_` and `-`, not starting with `-`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProfileName(String);

impl ProfileName {
    /// Checks the charset of config.md section 1.
    pub fn parse(text: &str) -> Result<Self, PathsError> {
        let chars_ok = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if text.is_empty() || text.len() > PROFILE_BYTES || text.starts_with('-') || !chars_ok {
            return Err(PathsError::Profile);
        }
        Ok(Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One isolated set of config and state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Profile {
    #[default]
    Default,
    /// `--dev`, also `--profile dev`.
    Dev,
    Named(ProfileName),
}

impl Profile {
    /// From the two root flags; a name wins over `--dev`.
    pub fn choose(dev: bool, name: Option<&str>) -> Result<Self, PathsError> {
        match name {
            Some(name) => Ok(match ProfileName::parse(name)? {
                name if name.as_str().eq_ignore_ascii_case("default") => Self::Default,
                name if name.as_str() == "dev" => Self::Dev,
                name => Self::Named(name),
            }),
            None if dev => Ok(Self::Dev),
            None => Ok(Self::Default),
        }
    }

    /// The name, or `None` for the default profile.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Default => None,
            Self::Dev => Some("dev"),
            Self::Named(name) => Some(name.as_str()),
        }
    }
}

/// Why no paths can be given.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathsError {
    /// Exit code 2.
    #[error("Invalid --profile (use letters, numbers, \"_\", \"-\" only)")]
    Profile,
    #[error("the home directory is unknown: set HOME, or OPENCLAW_STATE_DIR to an absolute path")]
    NoHome,
    #[error("the working directory is unknown, so the relative path in {variable} cannot be resolved: {reason}")]
    NoWorkingDirectory { variable: &'static str, reason: String },
}

impl PathsError {
    /// 2 for a bad profile name (cli.md section 1), else 1.
    pub fn exit_code(&self) -> u8 {
        if *self == Self::Profile { 2 } else { 1 }
    }
}

/// The files of one profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// Absolute.
    pub state_dir: PathBuf,
    /// Absolute.
    pub config_file: PathBuf,
    pub profile: Profile,
    /// For `~` in paths that config names.
    pub home: Option<PathBuf>,
}

impl Paths {
    /// `OPENCLAW_CONFIG_PATH`, else `<STATE_DIR>/openclaw.json`; `<STATE_DIR>` is `OPENCLAW_STATE_DIR`, else
    /// `~/.openclaw` or `~/.openclaw-<profile>`, with `OPENCLAW_HOME` in the place of `~` if set. Touches no file.
    pub fn resolve(env: &Env, profile: Profile) -> Result<Self, PathsError> {
        let home = env.get(env::OPENCLAW_HOME).or_else(|| env.get("HOME")).map(PathBuf::from);
        let from_env = |variable: &'static str| -> Result<Option<PathBuf>, PathsError> {
            let Some(text) = env.get(variable) else { return Ok(None) };
            let path = expand_home(text, home.as_deref());
            let absolute = std::path::absolute(path);
            absolute.map(Some).map_err(|e| PathsError::NoWorkingDirectory { variable, reason: e.to_string() })
        };
        let state_dir = match from_env(env::OPENCLAW_STATE_DIR)? {
            Some(dir) => dir,
            None => {
                let home = home.as_deref().ok_or(PathsError::NoHome)?;
                let name = profile.name().map_or(".openclaw".to_owned(), |name| format!(".openclaw-{name}"));
                let absolute = std::path::absolute(home.join(name));
                absolute.map_err(|e| PathsError::NoWorkingDirectory {
                    variable: env::OPENCLAW_HOME,
                    reason: e.to_string(),
                })?
            }
        };
        let config_file = from_env(env::OPENCLAW_CONFIG_PATH)?.unwrap_or_else(|| state_dir.join("openclaw.json"));
        Ok(Self { state_dir, config_file, profile, home })
    }

    /// Our own SQLite file, beside the release's `state/openclaw.sqlite` and never the same.
    pub fn state_db(&self) -> PathBuf {
        self.state_dir.join("state").join("openclaw-rs.sqlite")
    }

    /// Held by the one gateway that owns this state directory.
    pub fn lock_file(&self) -> PathBuf {
        self.state_dir.join("gateway.lock")
    }

    /// The owner's unix socket: `<STATE_DIR>/gateway.sock`. A longer path than a socket address holds (100 bytes)
    /// becomes `/tmp/openclaw-<uid>/<16 hex digits of the state directory's hash>.sock`; its directory is private.
    pub fn owner_socket(&self) -> PathBuf {
        let socket = self.state_dir.join("gateway.sock");
        if socket.as_os_str().len() <= SOCKET_PATH_BYTES {
            return socket;
        }
        let digest = hex(&Sha256::digest(self.state_dir.as_os_str().as_bytes())[..8]);
        PathBuf::from(format!("/tmp/openclaw-{}/{digest}.sock", rustix::process::geteuid().as_raw()))
    }

    /// The token the gateway generates when nothing is configured.
    pub fn token_file(&self) -> PathBuf {
        self.state_dir.join("gateway.token")
    }

    /// This machine's device key.
    pub fn identity_file(&self) -> PathBuf {
        self.state_dir.join("identity").join("device.json")
    }

    /// Device tokens this machine holds as a client.
    pub fn device_auth_file(&self) -> PathBuf {
        self.state_dir.join("identity").join("device-auth.json")
    }

    /// Gateways this machine knows by name.
    pub fn connections_file(&self) -> PathBuf {
        self.state_dir.join("connections.json")
    }

    /// One directory per tunnel, named as its connection: its sockets, lock and log.
    pub fn tunnels_dir(&self) -> PathBuf {
        self.state_dir.join("tunnels")
    }

    /// The only `.env` that is read.
    pub fn dotenv(&self) -> PathBuf {
        self.state_dir.join(".env")
    }

    /// Secrets of source `store`.
    pub fn secret_store(&self) -> PathBuf {
        self.state_dir.join("secrets").join("store.json")
    }

    /// The config text that last validated, kept beside the config file.
    pub fn last_known_good(&self) -> PathBuf {
        with_suffix(&self.config_file, ".last-good")
    }

    /// Keys and certificates of the TLS listener.
    pub fn tls_dir(&self) -> PathBuf {
        self.state_dir.join("gateway").join("tls")
    }

    pub fn default_port(&self) -> u16 {
        if self.profile == Profile::Dev { DEV_PORT } else { DEFAULT_PORT }
    }

    /// `openclaw`, or `openclaw-<profile>`.
    pub fn log_file_stem(&self) -> String {
        self.profile.name().map_or("openclaw".to_owned(), |name| format!("openclaw-{name}"))
    }

    /// Expands a leading `~/` with this profile's home.
    pub fn expand(&self, text: &str) -> PathBuf {
        expand_home(text, self.home.as_deref())
    }

    /// The path for people: `~/…` when it lies under the home directory.
    pub fn display(&self, path: &Path) -> String {
        match self.home.as_deref().and_then(|home| path.strip_prefix(home).ok()) {
            Some(rest) => format!("~/{}", rest.display()),
            None => path.display().to_string(),
        }
    }
}

/// `path` with `suffix` after its whole file name.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn expand_home(text: &str, home: Option<&Path>) -> PathBuf {
    match (text, home) {
        ("~", Some(home)) => home.to_owned(),
        (text, Some(home)) if text.starts_with("~/") => home.join(&text[2..]),
        _ => PathBuf::from(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(vars: &[(&str, &str)], profile: Profile) -> (String, String) {
        let paths = Paths::resolve(&Env::from_pairs(vars.iter().copied()), profile).unwrap();
        (paths.state_dir.display().to_string(), paths.config_file.display().to_string())
    }

    #[test]
    fn s_118_to_s_120_and_profiles() {
        let check = |vars: &[(&str, &str)], profile: Profile, state: &str, config: &str| {
            assert_eq!(resolve(vars, profile), (state.to_owned(), config.to_owned()), "{vars:?}");
        };
        let home = ("HOME", "/home/u");
        let named = || Profile::choose(false, Some("x")).unwrap();
        check(&[home], Profile::Default, "/home/u/.openclaw", "/home/u/.openclaw/openclaw.json");
        check(&[home], Profile::Dev, "/home/u/.openclaw-dev", "/home/u/.openclaw-dev/openclaw.json");
        check(&[home], named(), "/home/u/.openclaw-x", "/home/u/.openclaw-x/openclaw.json");
        check(&[home, ("OPENCLAW_HOME", "/srv")], Profile::Default, "/srv/.openclaw", "/srv/.openclaw/openclaw.json");
        check(&[home, ("OPENCLAW_STATE_DIR", "/s")], named(), "/s", "/s/openclaw.json");
        check(&[("OPENCLAW_STATE_DIR", "/s")], Profile::Default, "/s", "/s/openclaw.json");
        check(&[home, ("OPENCLAW_STATE_DIR", "~/s")], Profile::Default, "/home/u/s", "/home/u/s/openclaw.json");
        check(&[home, ("OPENCLAW_CONFIG_PATH", "/c.json")], Profile::Default, "/home/u/.openclaw", "/c.json");
        check(
            &[home, ("OPENCLAW_PROFILE", "x")],
            Profile::Default,
            "/home/u/.openclaw",
            "/home/u/.openclaw/openclaw.json",
        );
        check(
            &[home, ("CLAWDBOT_STATE_DIR", "/old")],
            Profile::Default,
            "/home/u/.openclaw",
            "/home/u/.openclaw/openclaw.json",
        );
        assert_eq!(Paths::resolve(&Env::default(), Profile::Default), Err(PathsError::NoHome));
    }

    #[test]
    fn profile_names() {
        let check = |name: &str, expected: Option<&str>| {
            let profile = Profile::choose(false, Some(name));
            assert_eq!(profile.as_ref().ok().map(Profile::name), expected.map(Some), "{name:?}");
        };
        check("x", Some("x"));
        check("dev", Some("dev"));
        check("Work_2-b", Some("Work_2-b"));
        for bad in ["", "a b", "a/b", "..", "é", "a.b", "-x", &"x".repeat(65)] {
            check(bad, None);
        }
        assert_eq!(Profile::choose(true, Some("default")), Ok(Profile::Default));
        assert_eq!(Profile::choose(true, None), Ok(Profile::Dev));
        assert_eq!(Profile::choose(false, Some("a b")).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn ports_and_logs_by_profile() {
        let env = Env::from_pairs([("HOME", "/home/u")]);
        let of = |profile| Paths::resolve(&env, profile).unwrap();
        let dev = of(Profile::Dev);
        assert_eq!((dev.default_port(), dev.log_file_stem().as_str()), (19_001, "openclaw-dev"));
        let main = of(Profile::Default);
        assert_eq!((main.default_port(), main.log_file_stem().as_str()), (18_789, "openclaw"));
        assert_eq!(main.display(&main.config_file), "~/.openclaw/openclaw.json");
    }

    #[test]
    fn long_socket_paths_move_to_tmp() {
        let of = |dir: &str| {
            let env = Env::from_pairs([("OPENCLAW_STATE_DIR", dir)]);
            Paths::resolve(&env, Profile::Default).unwrap().owner_socket()
        };
        assert_eq!(of("/s"), Path::new("/s/gateway.sock"));
        let long = format!("/{}", "d".repeat(120));
        let socket = of(&long);
        assert!(socket.starts_with("/tmp") && socket.as_os_str().len() <= SOCKET_PATH_BYTES, "{socket:?}");
        assert_ne!(socket, of(&format!("{long}e")));
    }
}
