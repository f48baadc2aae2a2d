//! Environment variables: every name this program reads, and where each value came from.
//!
//! Order, never overriding: the process environment, then `<STATE_DIR>/.env`. A `.env` in the working directory is
//! never read (security case P-92), and `CLAWDBOT_*` names of the older product are never read.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    files::{self, FileError},
    paths::Paths,
};

/// Replaces the home directory for the defaults of all paths.
pub const OPENCLAW_HOME: &str = "OPENCLAW_HOME";
/// Moves the state directory, and with it the config file.
pub const OPENCLAW_STATE_DIR: &str = "OPENCLAW_STATE_DIR";
/// Names the config file itself.
pub const OPENCLAW_CONFIG_PATH: &str = "OPENCLAW_CONFIG_PATH";
/// Set for child processes and service units by `--profile`. By itself it moves nothing, as in release 2026.9.6.
pub const OPENCLAW_PROFILE: &str = "OPENCLAW_PROFILE";
/// Agent workspace directory.
pub const OPENCLAW_WORKSPACE_DIR: &str = "OPENCLAW_WORKSPACE_DIR";
/// Gateway URL for clients. Only the two credentials below may be sent to it.
pub const OPENCLAW_GATEWAY_URL: &str = "OPENCLAW_GATEWAY_URL";
/// Gateway port, for the server and for local clients.
pub const OPENCLAW_GATEWAY_PORT: &str = "OPENCLAW_GATEWAY_PORT";
/// Bind mode of the server: loopback, lan, tailnet, custom or auto.
pub const OPENCLAW_GATEWAY_BIND: &str = "OPENCLAW_GATEWAY_BIND";
/// Shared token, for the server and for clients.
pub const OPENCLAW_GATEWAY_TOKEN: &str = "OPENCLAW_GATEWAY_TOKEN";
/// Shared password, for the server and for clients.
pub const OPENCLAW_GATEWAY_PASSWORD: &str = "OPENCLAW_GATEWAY_PASSWORD";
/// `1` lets a client dial plain `ws://` to private host names. Read from the client's process environment only.
pub const OPENCLAW_ALLOW_INSECURE_PRIVATE_WS: &str = "OPENCLAW_ALLOW_INSECURE_PRIVATE_WS";
/// Milliseconds from accept to an authenticated connection.
pub const OPENCLAW_HANDSHAKE_TIMEOUT_MS: &str = "OPENCLAW_HANDSHAKE_TIMEOUT_MS";
/// Unauthenticated sockets allowed per client address.
pub const OPENCLAW_MAX_PREAUTH_CONNECTIONS_PER_IP: &str = "OPENCLAW_MAX_PREAUTH_CONNECTIONS_PER_IP";
/// `1` refuses every write to the config file.
pub const OPENCLAW_CONFIG_READONLY: &str = "OPENCLAW_CONFIG_READONLY";
/// Extra directories that `$include` may read from, separated by `:`.
pub const OPENCLAW_INCLUDE_ROOTS: &str = "OPENCLAW_INCLUDE_ROOTS";
/// `1` shows the causes of an error in full.
pub const OPENCLAW_DEBUG: &str = "OPENCLAW_DEBUG";
/// Log level: silent, fatal, error, warn, info, debug or trace.
pub const OPENCLAW_LOG_LEVEL: &str = "OPENCLAW_LOG_LEVEL";
/// `1` turns mDNS advertising off.
pub const OPENCLAW_DISABLE_BONJOUR: &str = "OPENCLAW_DISABLE_BONJOUR";
/// SSH port to advertise.
pub const OPENCLAW_SSH_PORT: &str = "OPENCLAW_SSH_PORT";
/// Tailnet name to advertise.
pub const OPENCLAW_TAILNET_DNS: &str = "OPENCLAW_TAILNET_DNS";
/// Path of the CLI to advertise.
pub const OPENCLAW_CLI_PATH: &str = "OPENCLAW_CLI_PATH";
/// Accepted for compatibility: several gateways on one host need only their own state directory and port.
pub const OPENCLAW_ALLOW_MULTI_GATEWAY: &str = "OPENCLAW_ALLOW_MULTI_GATEWAY";
/// Bot token of the default Discord account.
pub const DISCORD_BOT_TOKEN: &str = "DISCORD_BOT_TOKEN";
/// Base URL of the Discord API, version included; the gateway and files are expected at the same host.
pub const DISCORD_API_URL: &str = "DISCORD_API_URL";
/// Container to run a command in.
pub const OPENCLAW_CONTAINER: &str = "OPENCLAW_CONTAINER";
/// Any value turns colours off (no-color.org).
pub const NO_COLOR: &str = "NO_COLOR";

/// Every variable with its meaning in one line, for `--help` and the documentation.
pub const ALL: &[(&str, &str)] = &[
    (OPENCLAW_HOME, "home directory used for the default paths"),
    (OPENCLAW_STATE_DIR, "state directory; the config file follows it"),
    (OPENCLAW_CONFIG_PATH, "config file"),
    (OPENCLAW_PROFILE, "profile name, set for children by --profile"),
    (OPENCLAW_WORKSPACE_DIR, "agent workspace directory"),
    (OPENCLAW_GATEWAY_URL, "gateway URL for clients; only the env token or password goes there"),
    (OPENCLAW_GATEWAY_PORT, "gateway port"),
    (OPENCLAW_GATEWAY_BIND, "gateway bind mode"),
    (OPENCLAW_GATEWAY_TOKEN, "shared token"),
    (OPENCLAW_GATEWAY_PASSWORD, "shared password"),
    (OPENCLAW_ALLOW_INSECURE_PRIVATE_WS, "1 allows plain ws:// to private host names"),
    (OPENCLAW_HANDSHAKE_TIMEOUT_MS, "handshake budget in milliseconds"),
    (OPENCLAW_MAX_PREAUTH_CONNECTIONS_PER_IP, "unauthenticated sockets per address"),
    (OPENCLAW_CONFIG_READONLY, "1 refuses config writes"),
    (OPENCLAW_INCLUDE_ROOTS, "more directories for $include, separated by ':'"),
    (OPENCLAW_DEBUG, "1 shows full error causes"),
    (OPENCLAW_LOG_LEVEL, "log level"),
    (OPENCLAW_DISABLE_BONJOUR, "1 turns mDNS advertising off"),
    (OPENCLAW_SSH_PORT, "SSH port to advertise"),
    (OPENCLAW_TAILNET_DNS, "tailnet name to advertise"),
    (OPENCLAW_CLI_PATH, "CLI path to advertise"),
    (OPENCLAW_ALLOW_MULTI_GATEWAY, "accepted, not needed"),
    (DISCORD_BOT_TOKEN, "bot token of the default Discord account"),
    (DISCORD_API_URL, "Discord API elsewhere, such as https://discord.example.com/api/v10"),
    (OPENCLAW_CONTAINER, "container to run in"),
    (NO_COLOR, "any value turns colours off"),
];

/// Variables that decide where `.env` lies, or that belong to the process alone (S-149), so that file cannot set them.
const NOT_FROM_DOTENV: &[&str] =
    &[OPENCLAW_HOME, OPENCLAW_STATE_DIR, OPENCLAW_CONFIG_PATH, OPENCLAW_PROFILE, OPENCLAW_ALLOW_INSECURE_PRIVATE_WS];

/// Largest `.env` file that is read: 1 MiB.
const DOTENV_BYTES: u64 = 1 << 20;

/// Where a variable's value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnvSource {
    /// The environment this process was started with.
    Process,
    /// `<STATE_DIR>/.env`.
    StateDotEnv,
}

/// An owned snapshot of the environment.
#[derive(Clone, Default)]
pub struct Env {
    vars: BTreeMap<String, (String, EnvSource)>,
}

impl Env {
    /// The environment of this process. Names and values that are not UTF-8 are left out.
    pub fn from_process() -> Self {
        Self::collect(std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))))
    }

    /// A made-up environment, for tests and for callers that already have one.
    pub fn from_pairs<K: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        Self::collect(pairs.into_iter().map(|(k, v)| (k.into(), v.into())))
    }

    fn collect(pairs: impl Iterator<Item = (String, String)>) -> Self {
        Self { vars: pairs.map(|(k, v)| (k, (v, EnvSource::Process))).collect() }
    }

    /// Adds `<STATE_DIR>/.env` below what is already there. The file is tightened to 0600; one that belongs to
    /// somebody else is refused. A missing file is fine.
    pub fn load_state_dotenv(&mut self, paths: &Paths) -> Result<(), FileError> {
        let Some(bytes) = files::read_private(&paths.dotenv(), DOTENV_BYTES)? else { return Ok(()) };
        for (name, value) in parse_dotenv(&String::from_utf8_lossy(&bytes)) {
            if !NOT_FROM_DOTENV.contains(&name.as_str()) && self.get(&name).is_none() {
                self.vars.insert(name, (value, EnvSource::StateDotEnv));
            }
        }
        Ok(())
    }

    /// The trimmed value; empty or blank means unset.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.vars.get(name).map(|(value, _)| value.trim()).filter(|value| !value.is_empty())
    }

    /// Where the value that [`Env::get`] gives came from.
    pub fn source(&self, name: &str) -> Option<EnvSource> {
        self.get(name)?;
        self.vars.get(name).map(|(_, source)| *source)
    }

    /// True for `1`, `true`, `yes` and `on`.
    pub fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|v| ["1", "true", "yes", "on"].iter().any(|yes| v.eq_ignore_ascii_case(yes)))
    }

    /// A flag that only the process environment may set.
    pub fn process_flag(&self, name: &str) -> bool {
        self.source(name) == Some(EnvSource::Process) && self.flag(name)
    }
}

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Values may be secrets.
        f.debug_set().entries(self.vars.keys()).finish()
    }
}

/// Names in `<cwd>/.env` that would have changed this program had it read that file, for a warning (P-92). Empty when
/// the working directory is the state directory, whose `.env` counts.
pub fn ignored_cwd_dotenv(cwd: &Path, paths: &Paths) -> Vec<String> {
    let file: PathBuf = cwd.join(".env");
    if file == paths.dotenv() || fs::canonicalize(cwd).ok() == fs::canonicalize(&paths.state_dir).ok() {
        return Vec::new();
    }
    let readable = fs::metadata(&file).is_ok_and(|meta| meta.is_file() && meta.len() <= DOTENV_BYTES);
    let Some(bytes) = readable.then(|| fs::read(&file).ok()).flatten() else { return Vec::new() };
    let names = parse_dotenv(&String::from_utf8_lossy(&bytes)).into_iter().map(|(name, _)| name);
    names.filter(|name| name.starts_with("OPENCLAW_")).collect()
}

/// `KEY=value` lines: `#` comments, optional `export`, single quotes literal, double quotes with `\n \r \t \" \\`.
/// A line that is none of these is skipped.
fn parse_dotenv(text: &str) -> Vec<(String, String)> {
    text.trim_start_matches('\u{feff}').lines().filter_map(parse_dotenv_line).collect()
}

fn parse_dotenv_line(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    let line = line.strip_prefix("export ").map_or(line, str::trim_start);
    let (name, value) = line.split_once('=')?;
    let name = name.trim_end();
    let first_ok = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !first_ok || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return None;
    }
    let value = value.trim();
    let value = if let Some(rest) = value.strip_prefix('\'') {
        rest.split('\'').next().unwrap_or_default().to_owned()
    } else if let Some(rest) = value.strip_prefix('"') {
        unquote(rest)
    } else {
        // A comment after an unquoted value needs a blank before it: `a#b` is a value.
        value.split_once(" #").map_or(value, |(value, _)| value).trim_end().to_owned()
    };
    Some((name.to_owned(), value))
}

fn unquote(rest: &str) -> String {
    let mut out = String::new();
    let mut chars = rest.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some('r') => out.push('\r'),
                Some('t') => out.push('\t'),
                Some(other) => out.push(other),
                None => break,
            },
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths::Profile;

    #[test]
    fn blank_is_unset() {
        let env = Env::from_pairs([("A", " x \n"), ("B", ""), ("C", " \t")]);
        assert_eq!(env.get("A"), Some("x"));
        for unset in ["B", "C", "D"] {
            assert_eq!((env.get(unset), env.source(unset)), (None, None), "{unset}");
        }
    }

    #[test]
    fn dotenv_lines() {
        let check = |line: &str, expected: Option<(&str, &str)>| {
            let expected = expected.map(|(k, v)| (k.to_owned(), v.to_owned()));
            assert_eq!(parse_dotenv(line).into_iter().next(), expected, "{line}");
        };
        check("A=1", Some(("A", "1")));
        check("export A = 1 # note", Some(("A", "1")));
        check("A=a#b", Some(("A", "a#b")));
        check("A='x # $y' # note", Some(("A", "x # $y")));
        check(r#"A="x\n\"y\"" # note"#, Some(("A", "x\n\"y\"")));
        check("# A=1", None);
        check("1A=1", None);
        check("A-B=1", None);
        check("no equals", None);
        check("\u{feff}A=1", Some(("A", "1")));
    }

    fn machine() -> (tempfile::TempDir, Env, Paths) {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::from_pairs([(OPENCLAW_STATE_DIR, dir.path().to_str().unwrap()), ("KEPT", "process")]);
        let paths = Paths::resolve(&env, Profile::Default).unwrap();
        (dir, env, paths)
    }

    #[test]
    fn state_dotenv_fills_gaps_only() {
        let (_dir, mut env, paths) = machine();
        let before = paths.state_dir.clone();
        fs::write(
            paths.dotenv(),
            "KEPT=file\nOPENCLAW_GATEWAY_TOKEN=abc\nOPENCLAW_STATE_DIR=/elsewhere\nOPENCLAW_CONFIG_PATH=/x\nOPENCLAW_HOME=/y\nOPENCLAW_ALLOW_INSECURE_PRIVATE_WS=1\n",
        )
        .unwrap();
        env.load_state_dotenv(&paths).unwrap();
        assert_eq!(env.get("KEPT"), Some("process"));
        assert_eq!(env.get(OPENCLAW_GATEWAY_TOKEN), Some("abc"));
        assert_eq!(env.source(OPENCLAW_GATEWAY_TOKEN), Some(EnvSource::StateDotEnv));
        assert_eq!(env.get(OPENCLAW_STATE_DIR), before.to_str());
        assert_eq!(env.get(OPENCLAW_CONFIG_PATH), None);
        assert_eq!(env.get(OPENCLAW_HOME), None);
        assert!(!env.process_flag(OPENCLAW_ALLOW_INSECURE_PRIVATE_WS));
    }

    #[test]
    fn p_92_cwd_dotenv_is_ignored_and_named() {
        let (_dir, mut env, paths) = machine();
        let cwd = tempfile::tempdir().unwrap();
        fs::write(cwd.path().join(".env"), "OPENCLAW_GATEWAY_URL=ws://evil\nOPENCLAW_GATEWAY_TOKEN=x\nFOO=1\n")
            .unwrap();
        env.load_state_dotenv(&paths).unwrap();
        assert_eq!(env.get(OPENCLAW_GATEWAY_URL), None);
        assert_eq!(env.get(OPENCLAW_GATEWAY_TOKEN), None);
        assert_eq!(ignored_cwd_dotenv(cwd.path(), &paths), [OPENCLAW_GATEWAY_URL, OPENCLAW_GATEWAY_TOKEN]);
        fs::write(paths.dotenv(), "OPENCLAW_GATEWAY_TOKEN=x\n").unwrap();
        assert!(ignored_cwd_dotenv(&paths.state_dir, &paths).is_empty());
    }

    #[test]
    fn debug_shows_no_value() {
        assert!(!format!("{:?}", Env::from_pairs([("A", "sesame")])).contains("sesame"));
    }
}
