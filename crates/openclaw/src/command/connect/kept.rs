//! What connecting leaves on this machine: the device key, the device token, the saved connection. Until everything has
//! worked, all of it is in memory only.

use std::sync::{Mutex, OnceLock, PoisonError};

use openclaw_config::{
    Connections, Paths,
    connections::{Connection, ConnectionName},
    device_tokens::{DeviceToken, DeviceTokens},
    identity,
};
use openclaw_protocol::{DeviceId, DeviceKey, Role, ScopeSet, Secret};
use openclaw_remote::{
    connect::{DeviceStore, StoredToken},
    store::IdentityStore,
};

use super::{step::Trace, steps::Journal};
use crate::output::time::now_ms;

/// A token the gateway issued, and where it may be sent.
struct Issued {
    origin: String,
    token: DeviceToken,
}

/// The device store of a connection that may come to nothing: this machine's key if it has one, else a key in memory.
pub struct Keeping {
    paths: Paths,
    disk: IdentityStore,
    fresh: OnceLock<DeviceKey>,
    issued: Mutex<Vec<Issued>>,
}

impl Keeping {
    pub fn new(paths: &Paths) -> Self {
        let disk = IdentityStore::new(paths.clone());
        Self { paths: paths.clone(), disk, fresh: OnceLock::new(), issued: Mutex::new(Vec::new()) }
    }

    /// The key this machine had before, if any.
    pub fn known(&self) -> Result<Option<DeviceKey>, String> {
        self.disk.key(false)
    }

    /// The key in use.
    pub fn device(&self) -> Result<DeviceKey, String> {
        self.key(true)?.ok_or_else(|| "there is no device key".to_owned())
    }

    /// True when the gateway issued a token of this role.
    pub fn has_token(&self) -> bool {
        !self.lock().is_empty()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Issued>> {
        self.issued.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the key, if it is new, and the tokens.
    ///
    /// # Errors
    /// Why, for a person.
    pub fn save(&self, journal: &mut Journal<Trace>) -> Result<DeviceId, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let device = match self.fresh.get() {
            Some(key) => {
                journal.about_to(Trace::Identity(key.id()));
                if !identity::keep(&self.paths, key).map_err(|error| text(&error))? {
                    return Err(
                        "another openclaw gave this machine a device key at the same moment; run it again".into()
                    );
                }
                key.id()
            }
            None => self.device()?.id(),
        };
        let tokens = DeviceTokens::new(&self.paths, device.clone());
        for issued in self.lock().iter() {
            journal.about_to(Trace::Token { device: device.clone(), origin: issued.origin.clone() });
            tokens.put(&issued.origin, &issued.token).map_err(|error| text(&error))?;
        }
        Ok(device)
    }
}

impl DeviceStore for Keeping {
    fn key(&self, create: bool) -> Result<Option<DeviceKey>, String> {
        if let Some(key) = self.fresh.get() {
            return Ok(Some(key.clone()));
        }
        if let Some(key) = self.disk.key(false)? {
            return Ok(Some(key));
        }
        if !create {
            return Ok(None);
        }
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| format!("the system gives no randomness: {error}"))?;
        Ok(Some(self.fresh.get_or_init(|| DeviceKey::from_seed(&seed)).clone()))
    }

    /// None: a one-time code goes alone.
    fn token(&self, _: &str, _: &str) -> Option<StoredToken> {
        None
    }

    fn remember(&self, origin: &str, role: &str, token: &Secret, scopes: &[String]) {
        let Some(role) = Role::parse(role) else { return };
        let token =
            DeviceToken { token: token.clone(), role, scopes: ScopeSet::parse(scopes), updated_at_ms: now_ms() };
        let mut issued = self.lock();
        issued.retain(|known| known.origin != origin);
        issued.push(Issued { origin: origin.to_owned(), token });
    }

    fn forget(&self, _: &str, _: &str) {}
}

/// Saves the connection, and makes it the current one when nothing else is meant so far.
///
/// # Errors
/// Why, for a person.
pub fn save_connection(
    paths: &Paths,
    name: &ConnectionName,
    connection: Connection,
    make_current: bool,
    journal: &mut Journal<Trace>,
) -> Result<(), String> {
    let store = Connections::new(paths);
    let text = |error: openclaw_config::connections::ConnectionsError| error.to_string();
    let book = store.load().map_err(text)?;
    let before = book.connections.get(name).cloned().map(Box::new);
    journal.about_to(Trace::Connection { name: name.clone(), before });
    store.put(name, connection).map_err(text)?;
    if make_current {
        journal.about_to(Trace::Current { before: book.current });
        store.set_current(Some(name)).map_err(text)?;
    }
    Ok(())
}

/// Takes back a trace on this machine. Traces elsewhere are not for here.
///
/// # Errors
/// Why it is still there.
pub fn take_back(paths: &Paths, trace: &Trace) -> Result<(), String> {
    let store = Connections::new(paths);
    match trace {
        Trace::Identity(device) => identity::discard(paths, device).map_err(|error| error.to_string()),
        Trace::Token { device, origin } => {
            let removed = DeviceTokens::new(paths, device.clone()).remove(origin, Role::Operator);
            removed.map(|_| ()).map_err(|error| error.to_string())
        }
        Trace::Connection { name, before } => {
            let restored = match before {
                Some(before) => store.put(name, before.as_ref().clone()),
                None => match store.remove(name) {
                    Err(openclaw_config::connections::ConnectionsError::Unknown { .. }) => Ok(()),
                    other => other.map(|_| ()),
                },
            };
            restored.map_err(|error| error.to_string())
        }
        Trace::Current { before } => store.set_current(before.as_ref()).map_err(|error| error.to_string()),
        Trace::Pairing(_) | Trace::Tunnel(_) => Err("it is not on this machine's disk".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use openclaw_config::{Env, Profile};

    use super::*;

    fn home() -> (tempfile::TempDir, Paths) {
        let dir = tempfile::tempdir().expect("dir");
        let env = Env::from_pairs([("OPENCLAW_STATE_DIR", dir.path().join("state").to_str().expect("path"))]);
        let paths = Paths::resolve(&env, Profile::Default).expect("paths");
        (dir, paths)
    }

    /// Files that say something; locks say nothing.
    fn files_below(dir: &Path) -> Vec<String> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                found.extend(files_below(&path));
            } else if path.extension().is_none_or(|end| end != "lock") {
                found.push(path.file_name().expect("name").to_string_lossy().into_owned());
            }
        }
        found.sort();
        found
    }

    fn issued(store: &Keeping) {
        assert!(store.key(true).expect("made").is_some());
        store.remember("gateway:x", "operator", &Secret::new("D"), &["operator.read".to_owned()]);
    }

    fn undo_all(paths: &Paths, journal: Journal<Trace>) {
        for trace in journal.into_traces().iter().rev() {
            take_back(paths, trace).expect("taken back");
        }
    }

    #[test]
    fn nothing_is_on_disk_before_saving_or_after_taking_back() {
        let (dir, paths) = home();
        let store = Keeping::new(&paths);
        issued(&store);
        assert!(store.has_token() && !dir.path().join("state").exists());

        let mut journal = Journal::default();
        let device = store.save(&mut journal).expect("saved");
        let name: ConnectionName = "box".parse().expect("name");
        save_connection(&paths, &name, Connection::default(), true, &mut journal).expect("saved");
        assert_eq!(files_below(dir.path()), ["connections.json", "device-auth.json", "device.json"]);
        assert_eq!(identity::load(&paths).expect("readable").map(|key| key.id()), Some(device.clone()));
        let token = DeviceTokens::new(&paths, device).get("gateway:x", Role::Operator).expect("readable");
        assert_eq!(token.expect("kept").token.expose(), "D");
        assert_eq!(Connections::new(&paths).load().expect("book").current, Some(name));

        undo_all(&paths, journal);
        assert!(!files_below(dir.path()).contains(&"device.json".to_owned()));
        let book = Connections::new(&paths).load().expect("book");
        assert!(book.connections.is_empty() && book.current.is_none());
        let left = std::fs::read_to_string(paths.device_auth_file()).unwrap_or_default();
        assert!(!left.contains("gateway:x"), "{left}");
    }

    #[test]
    fn what_was_there_before_stays_and_comes_back() {
        let (_dir, paths) = home();
        let mine = identity::load_or_create(&paths).expect("key");
        let store = Keeping::new(&paths);
        assert_eq!(store.device().expect("key").id(), mine.id());
        issued(&store);
        let connections = Connections::new(&paths);
        let name: ConnectionName = "box".parse().expect("name");
        let old = Connection { created_at_ms: 7, ..Connection::default() };
        connections.put(&name, old.clone()).expect("saved");

        let mut journal = Journal::default();
        store.save(&mut journal).expect("saved");
        save_connection(&paths, &name, Connection::default(), false, &mut journal).expect("saved");
        undo_all(&paths, journal);
        assert_eq!(identity::load(&paths).expect("readable").map(|key| key.id()), Some(mine.id()));
        assert_eq!(connections.get(&name).expect("there"), old);
    }

    #[test]
    fn a_trace_that_was_not_made_is_taken_back_all_the_same() {
        let (_dir, paths) = home();
        let key = DeviceKey::from_seed(&[1; 32]);
        let name: ConnectionName = "box".parse().expect("name");
        for trace in [
            Trace::Identity(key.id()),
            Trace::Token { device: key.id(), origin: "gateway:x".to_owned() },
            Trace::Connection { name, before: None },
            Trace::Current { before: None },
        ] {
            take_back(&paths, &trace).unwrap_or_else(|error| panic!("{trace:?}: {error}"));
        }
        // Another's key is never thrown away.
        let other = identity::load_or_create(&paths).expect("key");
        take_back(&paths, &Trace::Identity(key.id())).expect("nothing to do");
        assert_eq!(identity::load(&paths).expect("readable").map(|key| key.id()), Some(other.id()));
    }
}
