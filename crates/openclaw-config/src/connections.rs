//! Saved connections: gateways this machine knows by name, `<STATE_DIR>/connections.json`.
//!
//! ```json
//! {"version":1,"current":"home","connections":{"home":{"gatewayId":"<64 hex>","deviceId":"<64 hex>","paths":[
//!    {"kind":"lan","url":"ws://192.168.77.10:18789","tlsFingerprint":null},
//!    {"kind":"ssh","target":"me@box:22","identity":null,"hostKeyPolicy":"strict","gatewayPort":18789}],
//!   "createdAtMs":1,"lastUsedAtMs":2,"lastPath":"ssh"}}}
//! ```
//!
//! The file is 0600, written whole under a lock, and holds no secret: device tokens are kept apart
//! ([`crate::device_tokens`]) under `gateway:<gatewayId>`, one for all paths of a gateway that proved its identity. Keys that
//! this version does not know are kept as they are. Unlike a cache, a file that cannot be read is an error and is never
//! replaced: what it held cannot be had again by asking.

use std::{collections::BTreeMap, fmt, path::PathBuf, str::FromStr, time::Duration};

use openclaw_protocol::{DeviceId, GatewayId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    files::{self, FileError, FileLock},
    gateway::HostKeyPolicy,
    paths::{Paths, with_suffix},
};

/// Far more than anybody's gateways take.
const MAX_BYTES: u64 = 4 << 20;
const PATIENCE: Duration = Duration::from_secs(10);
const VERSION: u64 = 1;
/// Longest name, in bytes.
const NAME_BYTES: usize = 63;

/// The name that always means the gateway of this machine; no connection can be called so.
pub const LOCAL: &str = "local";

/// Name of a saved connection: `[a-z0-9][a-z0-9-_.]{0,62}`. Safe as a file name and in a command line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ConnectionName(String);

/// Why a text is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    #[error(
        "the name of a connection is 1 to 63 lower-case letters, digits, \"-\", \"_\" and \".\", and starts with a letter \
         or digit"
    )]
    Shape,
    #[error("\"local\" always means the gateway of this machine; take another name")]
    Reserved,
}

impl ConnectionName {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The nearest usable name for a host or label, for a connection nobody named.
    pub fn suggest(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        let kept: String = lower.chars().map(|c| if is_name_char(c) { c } else { '-' }).take(NAME_BYTES).collect();
        let name = kept.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        name.parse().ok()
    }
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c)
}

impl FromStr for ConnectionName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !first || text.len() > NAME_BYTES || !text.chars().all(is_name_char) {
            return Err(BadName::Shape);
        }
        if text == LOCAL { Err(BadName::Reserved) } else { Ok(Self(text.to_owned())) }
    }
}

impl TryFrom<String> for ConnectionName {
    type Error = BadName;

    fn try_from(text: String) -> Result<Self, BadName> {
        text.parse()
    }
}

impl From<ConnectionName> for String {
    fn from(name: ConnectionName) -> Self {
        name.0
    }
}

impl fmt::Display for ConnectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What kind of way a path is. The order is the order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathKind {
    Loopback,
    Lan,
    Tailnet,
    Public,
    Ssh,
}

impl PathKind {
    /// The word in the file and in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Lan => "lan",
            Self::Tailnet => "tailnet",
            Self::Public => "public",
            Self::Ssh => "ssh",
        }
    }
}

impl fmt::Display for PathKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A path by URL, as it was saved. `openclaw_remote::path` checks it before it is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SavedUrl {
    pub url: String,
    /// Pin of the certificate or of its key, in the forms `gateway.remote.tlsFingerprint` takes.
    #[serde(default)]
    pub tls_fingerprint: Option<String>,
}

/// A path by ssh, as it was saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SavedSsh {
    /// `[user@]host[:port]`.
    pub target: String,
    /// `-i`; ssh's own choice when absent.
    #[serde(default)]
    pub identity: Option<PathBuf>,
    #[serde(default, with = "policy")]
    pub host_key_policy: HostKeyPolicy,
    /// Port of the gateway on the far host's loopback.
    pub gateway_port: u16,
}

/// One way to a saved gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum SavedPath {
    Loopback(SavedUrl),
    Lan(SavedUrl),
    Tailnet(SavedUrl),
    Public(SavedUrl),
    Ssh(SavedSsh),
}

impl SavedPath {
    pub const fn kind(&self) -> PathKind {
        match self {
            Self::Loopback(_) => PathKind::Loopback,
            Self::Lan(_) => PathKind::Lan,
            Self::Tailnet(_) => PathKind::Tailnet,
            Self::Public(_) => PathKind::Public,
            Self::Ssh(_) => PathKind::Ssh,
        }
    }

    /// The address for people: the URL, or the ssh target.
    pub fn address(&self) -> &str {
        match self {
            Self::Loopback(path) | Self::Lan(path) | Self::Tailnet(path) | Self::Public(path) => &path.url,
            Self::Ssh(path) => &path.target,
        }
    }
}

/// A gateway known by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Connection {
    /// The identity the gateway proved when it was saved; whoever does not prove it is refused.
    pub gateway_id: Option<GatewayId>,
    /// Our own device id there, to name it when it is to be removed at the gateway.
    pub device_id: Option<DeviceId>,
    pub paths: Vec<SavedPath>,
    pub created_at_ms: i64,
    pub last_used_at_ms: Option<i64>,
    /// The kind of the path that answered last.
    pub last_path: Option<PathKind>,
    /// Keys of a later version.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// All saved connections.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Book {
    version: u64,
    /// The one that is meant when no command says otherwise (`openclaw connections use`).
    #[serde(default)]
    pub current: Option<ConnectionName>,
    #[serde(default)]
    pub connections: BTreeMap<ConnectionName, Connection>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

impl Book {
    /// The connection of that name.
    ///
    /// # Errors
    /// [`ConnectionsError::Unknown`] with the nearest name there is.
    pub fn find(&self, name: &ConnectionName) -> Result<&Connection, ConnectionsError> {
        self.connections.get(name).ok_or_else(|| self.unknown_name(name))
    }

    fn unknown_name(&self, name: &ConnectionName) -> ConnectionsError {
        let score = |known: &ConnectionName| strsim::jaro_winkler(known.as_str(), name.as_str());
        let nearest = self.connections.keys().map(|known| (score(known), known));
        let nearest = nearest.filter(|(score, _)| *score > 0.7).max_by(|(a, _), (b, _)| a.total_cmp(b));
        ConnectionsError::Unknown { name: name.clone(), nearest: nearest.map(|(_, known)| known.clone()) }
    }
}

/// Why a connection cannot be had or changed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionsError {
    #[error(transparent)]
    File(#[from] FileError),
    /// Not replaced: somebody may still repair it.
    #[error("the saved connections cannot be read: {reason} ({})", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("no connection is called \"{name}\"{}", nearest.as_ref().map(|near| format!("; did you mean \"{near}\"?")).unwrap_or_default())]
    Unknown { name: ConnectionName, nearest: Option<ConnectionName> },
    #[error("a connection called \"{0}\" exists already")]
    Taken(ConnectionName),
}

/// The file of one profile.
#[derive(Clone, Debug)]
pub struct Connections {
    file: PathBuf,
    state_dir: PathBuf,
}

impl Connections {
    pub fn new(paths: &Paths) -> Self {
        Self { file: paths.connections_file(), state_dir: paths.state_dir.clone() }
    }

    /// Everything saved; an absent file holds nothing.
    ///
    /// # Errors
    /// When the file is there and cannot be understood.
    pub fn load(&self) -> Result<Book, ConnectionsError> {
        let Some(bytes) = files::read_private(&self.file, MAX_BYTES)? else {
            return Ok(Book { version: VERSION, ..Book::default() });
        };
        let damaged = |reason: String| ConnectionsError::Damaged { path: self.file.clone(), reason };
        let book: Book = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        match book.version {
            VERSION => Ok(book),
            newer => Err(damaged(format!("it is of version {newer}, and this program knows version {VERSION}"))),
        }
    }

    /// The connection of that name.
    ///
    /// # Errors
    /// [`ConnectionsError::Unknown`], or as [`Self::load`].
    pub fn get(&self, name: &ConnectionName) -> Result<Connection, ConnectionsError> {
        self.load()?.find(name).cloned()
    }

    /// Saves a connection under its name, replacing an earlier one.
    ///
    /// # Errors
    /// As [`Self::load`], and when the file cannot be written.
    pub fn put(&self, name: &ConnectionName, connection: Connection) -> Result<(), ConnectionsError> {
        self.change(|book| Ok(book.connections.insert(name.clone(), connection))).map(|_| ())
    }

    /// Takes a connection away and gives what it was. It is no longer the current one.
    ///
    /// # Errors
    /// [`ConnectionsError::Unknown`], or as [`Self::put`].
    pub fn remove(&self, name: &ConnectionName) -> Result<Connection, ConnectionsError> {
        self.change(|book| {
            let removed = book.connections.remove(name).ok_or_else(|| book.unknown_name(name))?;
            if book.current.as_ref() == Some(name) {
                book.current = None;
            }
            Ok(removed)
        })
    }

    /// Gives a connection another name.
    ///
    /// # Errors
    /// [`ConnectionsError::Unknown`], [`ConnectionsError::Taken`], or as [`Self::put`].
    pub fn rename(&self, from: &ConnectionName, to: &ConnectionName) -> Result<(), ConnectionsError> {
        self.change(|book| {
            book.find(from)?;
            if from != to && book.connections.contains_key(to) {
                return Err(ConnectionsError::Taken(to.clone()));
            }
            if let Some(connection) = book.connections.remove(from) {
                book.connections.insert(to.clone(), connection);
            }
            if book.current.as_ref() == Some(from) {
                book.current = Some(to.clone());
            }
            Ok(())
        })
    }

    /// Makes a connection the one that is meant when no command says otherwise; `None` goes back to the config.
    ///
    /// # Errors
    /// [`ConnectionsError::Unknown`], or as [`Self::put`].
    pub fn set_current(&self, name: Option<&ConnectionName>) -> Result<(), ConnectionsError> {
        self.change(|book| {
            if let Some(name) = name {
                book.find(name)?;
            }
            book.current = name.cloned();
            Ok(())
        })
    }

    /// Notes that a connection was used and by which kind of path. A name that is gone meanwhile is no error.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub fn note_use(&self, name: &ConnectionName, path: PathKind, now_ms: i64) -> Result<(), ConnectionsError> {
        self.change(|book| {
            if let Some(connection) = book.connections.get_mut(name) {
                (connection.last_used_at_ms, connection.last_path) = (Some(now_ms), Some(path));
            }
            Ok(())
        })
    }

    /// Reads, edits and writes under the lock. An edit that fails or changes nothing writes nothing.
    fn change<T>(&self, edit: impl FnOnce(&mut Book) -> Result<T, ConnectionsError>) -> Result<T, ConnectionsError> {
        files::create_private_dir(&self.state_dir)?;
        let _lock = FileLock::acquire(&with_suffix(&self.file, ".lock"), PATIENCE)?;
        let before = self.load()?;
        let mut book = before.clone();
        let value = edit(&mut book)?;
        if book != before {
            files::remove_stale_temporaries(&self.file);
            let damaged = |reason: String| ConnectionsError::Damaged { path: self.file.clone(), reason };
            let mut text = serde_json::to_vec_pretty(&book).map_err(|error| damaged(error.to_string()))?;
            text.push(b'\n');
            files::write_private_atomic(&self.file, &text)?;
        }
        Ok(value)
    }
}

/// The host key policy as its config word.
mod policy {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use super::HostKeyPolicy;

    #[allow(clippy::trivially_copy_pass_by_ref)] // The signature serde asks for.
    pub(super) fn serialize<S: Serializer>(policy: &HostKeyPolicy, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(policy.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<HostKeyPolicy, D::Error> {
        let word = String::deserialize(deserializer)?;
        HostKeyPolicy::parse(&word).ok_or_else(|| D::Error::custom("hostKeyPolicy is \"strict\" or \"openssh\""))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use serde_json::json;

    use super::*;
    use crate::{Env, Profile};

    struct Home {
        dir: tempfile::TempDir,
        store: Connections,
    }

    fn home() -> Home {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::from_pairs([("OPENCLAW_STATE_DIR", dir.path().to_str().unwrap())]);
        let paths = Paths::resolve(&env, Profile::Default).unwrap();
        Home { dir, store: Connections::new(&paths) }
    }

    fn name(text: &str) -> ConnectionName {
        text.parse().unwrap()
    }

    fn lan(url: &str) -> Connection {
        let path = SavedPath::Lan(SavedUrl { url: url.to_owned(), tls_fingerprint: None });
        Connection { paths: vec![path], created_at_ms: 1, ..Connection::default() }
    }

    #[test]
    fn names() {
        for good in ["home", "a", "0", "box.example.com", "a_b-c", &"a".repeat(63)] {
            assert_eq!(good.parse::<ConnectionName>().map(String::from).as_deref(), Ok(good));
        }
        for bad in ["", "-x", ".", "..", "_x", "Home", "a b", "a/b", "a\n", "é", "a\0", &"a".repeat(64)] {
            assert_eq!(bad.parse::<ConnectionName>(), Err(BadName::Shape), "{bad:?}");
        }
        assert_eq!("local".parse::<ConnectionName>(), Err(BadName::Reserved));
        for (text, expected) in [
            ("Me's MacBook", Some("me-s-macbook")),
            ("box.example.com", Some("box.example.com")),
            ("..", None),
            ("local", None),
            ("192.168.1.5", Some("192.168.1.5")),
        ] {
            assert_eq!(ConnectionName::suggest(text).as_ref().map(ConnectionName::as_str), expected, "{text}");
        }
    }

    /// The file as the design gives it.
    #[test]
    fn the_file_in_its_documented_form() {
        let home = home();
        let (gateway, device) = ("a".repeat(64), "b".repeat(64));
        let text = json!({"version": 1, "current": "home", "connections": {"home": {"gatewayId": gateway, "deviceId": device,
            "paths": [
                {"kind": "lan", "url": "ws://192.168.77.10:18789", "tlsFingerprint": null},
                {"kind": "ssh", "target": "me@box:22", "identity": null, "hostKeyPolicy": "strict", "gatewayPort": 18789}],
            "createdAtMs": 1, "lastUsedAtMs": 2, "lastPath": "ssh"}}});
        fs::write(home.dir.path().join("connections.json"), text.to_string()).unwrap();
        let book = home.store.load().unwrap();
        assert_eq!(book.current, Some(name("home")));
        let saved = book.find(&name("home")).unwrap();
        assert_eq!(saved.gateway_id.as_ref().map(GatewayId::as_str), Some(gateway.as_str()));
        assert_eq!(saved.paths.iter().map(SavedPath::kind).collect::<Vec<_>>(), [PathKind::Lan, PathKind::Ssh]);
        assert_eq!(saved.paths[1].address(), "me@box:22");
        assert_eq!((saved.last_used_at_ms, saved.last_path), (Some(2), Some(PathKind::Ssh)));
        // Written back, it is the same.
        home.store.put(&name("other"), lan("ws://10.0.0.1:1")).unwrap();
        home.store.remove(&name("other")).unwrap();
        let back: Value = serde_json::from_slice(&fs::read(home.dir.path().join("connections.json")).unwrap()).unwrap();
        assert_eq!(back, text);
    }

    #[test]
    fn names_move_and_the_current_one_follows() {
        let home = home();
        let (store, home_name, work) = (&home.store, name("home"), name("work"));
        store.put(&home_name, lan("ws://10.0.0.1:1")).unwrap();
        store.put(&work, lan("ws://10.0.0.2:1")).unwrap();
        store.set_current(Some(&home_name)).unwrap();
        assert!(matches!(store.rename(&home_name, &work), Err(ConnectionsError::Taken(_))));
        store.rename(&home_name, &name("flat")).unwrap();
        assert_eq!(store.load().unwrap().current, Some(name("flat")));
        store.note_use(&name("flat"), PathKind::Lan, 9).unwrap();
        store.note_use(&home_name, PathKind::Lan, 9).unwrap();
        assert_eq!(store.get(&name("flat")).unwrap().last_used_at_ms, Some(9));
        assert_eq!(store.remove(&name("flat")).unwrap().paths.len(), 1);
        let book = store.load().unwrap();
        assert_eq!((book.current.clone(), book.connections.len()), (None, 1));
        let unknown = book.find(&name("wrok")).unwrap_err().to_string();
        assert_eq!(unknown, "no connection is called \"wrok\"; did you mean \"work\"?");
        assert!(matches!(store.set_current(Some(&home_name)), Err(ConnectionsError::Unknown { .. })));
        let mode = fs::metadata(home.dir.path().join("connections.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_cannot_be_read_is_never_replaced() {
        let home = home();
        let file = home.dir.path().join("connections.json");
        for text in [
            "",
            "{",
            "[]",
            r#"{"version":2,"connections":{}}"#,
            r#"{"version":1,"connections":{"../x":{}}}"#,
            r#"{"version":1,"connections":{"a":{"gatewayId":"short"}}}"#,
            r#"{"version":1,"connections":{"a":{"paths":[{"kind":"pigeon"}]}}}"#,
        ] {
            fs::write(&file, text).unwrap();
            assert!(matches!(home.store.load(), Err(ConnectionsError::Damaged { .. })), "{text}");
            assert!(home.store.put(&name("a"), lan("ws://10.0.0.1:1")).is_err(), "{text}");
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
        }
    }

    #[test]
    fn keys_of_a_later_version_stay() {
        let home = home();
        let file = home.dir.path().join("connections.json");
        let text = r#"{"version":1,"hue":3,"connections":{"a":{"paths":[],"createdAtMs":1,"badge":"x"}}}"#;
        fs::write(&file, text).unwrap();
        home.store.set_current(Some(&name("a"))).unwrap();
        let back: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert_eq!((&back["hue"], &back["connections"]["a"]["badge"]), (&json!(3), &json!("x")));
    }

    #[test]
    fn concurrent_writers_lose_nothing() {
        let home = home();
        std::thread::scope(|scope| {
            for i in 0..8 {
                let store = &home.store;
                scope.spawn(move || store.put(&name(&format!("n{i}")), lan("ws://10.0.0.1:1")).unwrap());
            }
        });
        assert_eq!(home.store.load().unwrap().connections.len(), 8);
    }
}
