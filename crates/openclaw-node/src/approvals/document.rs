//! The owner's file: `<STATE_DIR>/exec-approvals.json`, in the form every release of the reference reads or imports.
//!
//! A file that cannot be read denies everything and is never overwritten; a missing one says nothing. Writers name the
//! hash of what they read, so that nobody overwrites what somebody else just changed.

use std::{path::PathBuf, time::Duration};

use openclaw_config::{
    Paths,
    files::{self, FileError, FileLock},
};
use openclaw_protocol::method::exec::ApprovalsFile;
use serde_json::{Map, Value, json};

use crate::sha256_hex;

const MAX_BYTES: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(10);
/// Most entries of one allow-list.
const MAX_RULES: usize = 2000;

/// Where the file is.
#[derive(Clone, Debug)]
pub struct Store {
    path: PathBuf,
    shown: String,
}

/// The file at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub exists: bool,
    /// SHA-256 of the bytes, or `missing:` and that of nothing, as the reference has it.
    pub hash: String,
    pub file: ApprovalsFile,
    /// Why everything is denied, if the file could not be read.
    pub problem: Option<String>,
    value: Value,
}

/// Why the file was not changed.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    #[error("INVALID_REQUEST: exec approvals base hash required; reload and retry")]
    HashRequired,
    #[error("INVALID_REQUEST: exec approvals changed; reload and retry")]
    Changed,
    #[error("INVALID_REQUEST: exec approvals file: {0}")]
    Invalid(String),
    #[error("the approvals file on the node is unreadable and was left as it is: {0}")]
    Unreadable(String),
    #[error(transparent)]
    File(#[from] FileError),
}

/// A rule that a decision adds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NewRule {
    pub pattern: String,
    pub arg_pattern: Option<String>,
}

impl Store {
    pub fn new(paths: &Paths) -> Self {
        let path = paths.state_dir.join("exec-approvals.json");
        Self { shown: paths.display(&path), path }
    }

    /// The path for people.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// What the file says now.
    pub fn read(&self) -> Snapshot {
        let unreadable = |hash: String, problem: String| Snapshot {
            exists: true,
            hash,
            file: ApprovalsFile::deny_all(),
            problem: Some(problem),
            value: json!({}),
        };
        let bytes = match files::read_private(&self.path, MAX_BYTES) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => {
                return Snapshot {
                    exists: false,
                    hash: format!("missing:{}", sha256_hex(b"")),
                    file: ApprovalsFile::empty(),
                    problem: None,
                    value: json!({"version": 1}),
                };
            }
            Err(error) => return unreadable("unreadable".to_owned(), error.to_string()),
        };
        let hash = sha256_hex(&bytes);
        let parsed = serde_json::from_slice::<Value>(&bytes).map_err(|error| error.to_string());
        match parsed.and_then(|value| Ok((checked(&value)?, value))) {
            Ok((file, value)) => Snapshot { exists: true, hash, file, problem: None, value },
            Err(problem) => unreadable(hash, problem),
        }
    }

    /// Replaces the document with a whole new one.
    ///
    /// # Errors
    /// [`SetError`]; nothing was written then.
    pub fn replace(&self, file: &Value, base_hash: Option<&str>) -> Result<Snapshot, SetError> {
        checked(file).map_err(SetError::Invalid)?;
        self.change(|current| {
            let base = base_hash.map(str::trim).filter(|hash| !hash.is_empty());
            match base {
                None if current.exists => return Err(SetError::HashRequired),
                Some(base) if base != current.hash => return Err(SetError::Changed),
                _ => {}
            }
            let mut next = file.clone();
            give_ids(&mut next);
            keep_socket(&mut next, &current.value);
            Ok(Some(next))
        })
    }

    /// Adds what a person allowed for always. Entries that are there already stay as they are.
    ///
    /// # Errors
    /// [`SetError`].
    pub fn allow_always(&self, agent: &str, rules: &[NewRule], now_ms: i64) -> Result<Snapshot, SetError> {
        self.change(|current| {
            if let Some(problem) = &current.problem {
                return Err(SetError::Unreadable(problem.clone()));
            }
            let mut next = current.value.clone();
            let list = allowlist_of(&mut next, agent);
            let mut changed = false;
            for rule in rules {
                let known = list.iter().any(|entry| {
                    entry["pattern"] == json!(rule.pattern)
                        && entry.get("argPattern").and_then(Value::as_str) == rule.arg_pattern.as_deref()
                        && entry["source"] == "allow-always"
                });
                if known || list.len() >= MAX_RULES {
                    continue;
                }
                let mut entry = json!({"id": uuid::Uuid::new_v4().to_string(), "pattern": rule.pattern});
                if let Some(arguments) = &rule.arg_pattern {
                    entry["argPattern"] = json!(arguments);
                }
                entry["source"] = json!("allow-always");
                entry["lastUsedAt"] = json!(now_ms);
                list.push(entry);
                changed = true;
            }
            Ok(changed.then_some(next))
        })
    }

    fn change(&self, edit: impl FnOnce(&Snapshot) -> Result<Option<Value>, SetError>) -> Result<Snapshot, SetError> {
        if let Some(dir) = self.path.parent() {
            files::create_private_dir(dir)?;
        }
        let lock = self.path.with_extension("json.lock");
        let _lock = FileLock::acquire(&lock, PATIENCE)?;
        let current = self.read();
        if let Some(next) = edit(&current)? {
            let mut text = serde_json::to_string_pretty(&next).map_err(|error| SetError::Invalid(error.to_string()))?;
            text.push('\n');
            files::write_private_atomic(&self.path, text.as_bytes())?;
        }
        Ok(self.read())
    }
}

impl Snapshot {
    /// The answer to `system.execApprovals.get` and `.set`: never the socket's token.
    pub fn to_wire(&self, store: &Store) -> Value {
        let mut file = match &self.problem {
            None => self.value.clone(),
            Some(_) => serde_json::to_value(&self.file).unwrap_or_default(),
        };
        if let Some(socket) = file.get_mut("socket").and_then(Value::as_object_mut) {
            socket.remove("token");
        }
        for section in ["defaults", "agents"] {
            if file.get(section).is_none() {
                file[section] = json!({});
            }
        }
        json!({"path": store.shown(), "exists": self.exists, "hash": self.hash, "file": file})
    }
}

fn checked(value: &Value) -> Result<ApprovalsFile, String> {
    let file: ApprovalsFile = serde_json::from_value(value.clone()).map_err(|error| error.to_string())?;
    if file.version != ApprovalsFile::VERSION {
        return Err(format!("version {} is not known here", file.version));
    }
    let agents = file.agents.iter().flatten();
    if agents.into_iter().any(|(_, agent)| agent.allowlist.as_ref().is_some_and(|list| list.len() > MAX_RULES)) {
        return Err(format!("an allow-list has more than {MAX_RULES} entries"));
    }
    Ok(file)
}

/// Every entry gets an id; bare patterns become entries, blank ones go.
fn give_ids(file: &mut Value) {
    let agents = file.get_mut("agents").and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut);
    for list in agents.filter_map(|agent| agent.get_mut("allowlist")?.as_array_mut()) {
        for entry in list.iter_mut() {
            if let Some(pattern) = entry.as_str() {
                *entry = json!({"pattern": pattern.trim()});
            }
            if entry.get("id").and_then(Value::as_str).is_none_or(str::is_empty) {
                entry["id"] = json!(uuid::Uuid::new_v4().to_string());
            }
        }
        list.retain(|entry| entry["pattern"].as_str().is_some_and(|pattern| !pattern.trim().is_empty()));
    }
}

/// A document that was read without its socket's token does not lose it when it comes back.
fn keep_socket(next: &mut Value, current: &Value) {
    let Some(known) = current.get("socket").filter(|socket| socket.is_object()) else { return };
    match next.get_mut("socket").filter(|socket| socket.is_object()) {
        None => next["socket"] = known.clone(),
        Some(socket) => {
            for key in ["path", "token"] {
                if socket.get(key).is_none_or(Value::is_null)
                    && let Some(value) = known.get(key)
                {
                    socket[key] = value.clone();
                }
            }
        }
    }
}

fn allowlist_of<'a>(file: &'a mut Value, agent: &str) -> &'a mut Vec<Value> {
    fn object<'a>(parent: &'a mut Value, key: &str) -> &'a mut Value {
        if !parent.get(key).is_some_and(Value::is_object) {
            parent[key] = json!({});
        }
        &mut parent[key]
    }
    let agent = object(object(file, "agents"), agent);
    if !agent.get("allowlist").is_some_and(Value::is_array) {
        agent["allowlist"] = json!([]);
    }
    match &mut agent["allowlist"] {
        Value::Array(list) => list,
        _ => unreachable!("it was just made an array"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openclaw_config::{Env, Profile};
    use openclaw_protocol::method::exec::ExecSecurity;

    fn store() -> (tempfile::TempDir, Store, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::from_pairs([("OPENCLAW_STATE_DIR", dir.path().to_str().unwrap())]);
        let store = Store::new(&Paths::resolve(&env, Profile::Default).unwrap());
        let path = dir.path().join("exec-approvals.json");
        (dir, store, path)
    }

    /// The empty answer of release 2026.9.6 (`exec-approvals-system-run`, q5), less the socket this program has not got.
    #[test]
    fn a_missing_file_says_nothing() {
        let (_dir, store, path) = store();
        let shown = store.read().to_wire(&store);
        assert_eq!(shown["file"], json!({"version": 1, "defaults": {}, "agents": {}}));
        assert_eq!(
            (shown["exists"].clone(), shown["hash"].clone()),
            (json!(false), json!("missing:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"))
        );
        assert!(!path.exists(), "reading writes nothing");
    }

    #[test]
    fn writers_name_what_they_read() {
        let (_dir, store, path) = store();
        let file = json!({"version": 1, "defaults": {"security": "full"}, "later": {"kept": true}});
        assert!(matches!(store.replace(&file, Some("0")), Err(SetError::Changed)));
        let first = store.replace(&file, None).unwrap();
        assert_eq!((first.exists, first.hash), (true, sha256_hex(&std::fs::read(&path).unwrap())));
        assert_eq!(first.file.defaults.unwrap().security, Some(ExecSecurity::Full));
        assert!(matches!(store.replace(&file, None), Err(SetError::HashRequired)));
        assert!(matches!(store.replace(&file, Some("0")), Err(SetError::Changed)));
        let hash = store.read().hash;
        let next =
            json!({"version": 1, "agents": {"main": {"allowlist": ["/bin/ls", {"pattern": "/bin/cat", "x": 1}]}}});
        let second = store.replace(&next, Some(&hash)).unwrap();
        let list = second.value["agents"]["main"]["allowlist"].as_array().unwrap();
        assert_eq!((&list[0]["pattern"], &list[1]["x"]), (&json!("/bin/ls"), &json!(1)));
        assert!(list.iter().all(|entry| entry["id"].as_str().is_some_and(|id| id.len() == 36)));
    }

    #[test]
    fn what_is_no_document_is_refused_and_changes_nothing() {
        let (_dir, store, path) = store();
        for wrong in [
            json!({}),
            json!([]),
            json!({"version": 2}),
            json!({"version": 1, "defaults": {"security": "ful"}}),
            json!({"version": 1, "agents": {"main": {"allowlist": [{"id": "x"}]}}}),
        ] {
            assert!(matches!(store.replace(&wrong, None), Err(SetError::Invalid(_))), "{wrong}");
        }
        assert!(!path.exists());
    }

    #[test]
    fn a_damaged_file_denies_everything_and_stays() {
        let (_dir, store, path) = store();
        std::fs::write(&path, "{broken").unwrap();
        let read = store.read();
        assert_eq!(read.file, ApprovalsFile::deny_all());
        assert!(read.problem.is_some());
        let rule = NewRule { pattern: "/bin/ls".into(), arg_pattern: None };
        assert!(matches!(store.allow_always("main", &[rule], 0), Err(SetError::Unreadable(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{broken");
        // The owner may replace it, knowing what is there.
        assert!(store.replace(&json!({"version": 1}), Some(&read.hash)).is_ok());
    }

    #[test]
    fn the_sockets_token_is_kept_and_never_shown() {
        let (_dir, store, path) = store();
        std::fs::write(&path, r#"{"version":1,"socket":{"path":"/s","token":"hush"}}"#).unwrap();
        let shown = store.read().to_wire(&store);
        assert_eq!(shown["file"]["socket"], json!({"path": "/s"}));
        store.replace(&shown["file"], shown["hash"].as_str()).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().contains("hush"));
    }

    #[test]
    fn always_is_written_once() {
        let (_dir, store, _path) = store();
        let rules = [NewRule { pattern: "/bin/ls".into(), arg_pattern: Some("sha256:cwd-argv:v1:00".into()) }];
        let first = store.allow_always("main", &rules, 7).unwrap();
        let again = store.allow_always("main", &rules, 8).unwrap();
        assert_eq!(first.hash, again.hash);
        let entry = &again.value["agents"]["main"]["allowlist"][0];
        assert_eq!((&entry["source"], &entry["lastUsedAt"]), (&json!("allow-always"), &json!(7)));
    }
}
