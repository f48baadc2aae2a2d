//! The owner's file for this node: [`ExecApprovals`], in the words that nodes have for it on the wire.

use openclaw_config::{
    Paths,
    exec_approvals::{ApprovalsError, ExecApprovals, Loaded, MAX_RULES},
    files::FileError,
};
use openclaw_protocol::method::exec::{AllowlistEntry, ApprovalsFile};
use serde_json::{Value, json};

const ALWAYS: &str = "allow-always";

/// Where the file is.
#[derive(Clone, Debug)]
pub struct Store {
    document: ExecApprovals,
    shown: String,
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

impl From<ApprovalsError> for SetError {
    fn from(error: ApprovalsError) -> Self {
        match error {
            ApprovalsError::File(error) => Self::File(error),
            ApprovalsError::HashRequired => Self::HashRequired,
            ApprovalsError::Changed => Self::Changed,
            ApprovalsError::Invalid(why) => Self::Invalid(why),
        }
    }
}

/// A rule that a decision adds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NewRule {
    pub pattern: String,
    pub arg_pattern: Option<String>,
}

impl Store {
    pub fn new(paths: &Paths) -> Self {
        let document = ExecApprovals::new(paths);
        Self { shown: paths.display(document.path()), document }
    }

    /// What the file says now.
    pub fn read(&self) -> Loaded {
        self.document.read()
    }

    /// Replaces the document with a whole new one.
    ///
    /// # Errors
    /// [`SetError`]; nothing was written then.
    pub fn replace(&self, file: &Value, base_hash: Option<&str>) -> Result<Loaded, SetError> {
        let file: ApprovalsFile =
            serde_json::from_value(file.clone()).map_err(|error| SetError::Invalid(error.to_string()))?;
        let base = base_hash.map(str::trim).filter(|hash| !hash.is_empty());
        Ok(self.document.replace(file, base)?)
    }

    /// Adds what a person allowed for always. Entries that are there already stay as they are.
    ///
    /// # Errors
    /// [`SetError`].
    pub fn allow_always(&self, agent: &str, rules: &[NewRule], now_ms: i64) -> Result<Loaded, SetError> {
        let edited = self.document.edit(|file| {
            let agents = file.agents.get_or_insert_default();
            let list = agents.entry(agent.to_owned()).or_default().allowlist.get_or_insert_default();
            for rule in rules {
                let known = list.iter().any(|entry| {
                    entry.pattern == rule.pattern
                        && entry.arg_pattern == rule.arg_pattern
                        && entry.source.as_deref() == Some(ALWAYS)
                });
                if !known && list.len() < MAX_RULES {
                    list.push(AllowlistEntry {
                        pattern: rule.pattern.clone(),
                        arg_pattern: rule.arg_pattern.clone(),
                        source: Some(ALWAYS.to_owned()),
                        last_used_at: Some(now_ms.into()),
                        ..AllowlistEntry::default()
                    });
                }
            }
        });
        edited.map_err(|error| match error {
            ApprovalsError::Invalid(why) => SetError::Unreadable(why),
            other => other.into(),
        })
    }

    /// The answer to `system.execApprovals.get` and `.set`: never the socket's token.
    pub fn to_wire(&self, loaded: &Loaded) -> Value {
        let mut file = serde_json::to_value(&loaded.file).unwrap_or_default();
        for section in ["defaults", "agents"] {
            if file.get(section).is_none() {
                file[section] = json!({});
            }
        }
        json!({"path": self.shown, "exists": loaded.exists, "hash": loaded.hash, "file": file})
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use openclaw_config::{Env, Profile};
    use openclaw_protocol::method::exec::ExecSecurity;

    use super::*;
    use crate::sha256_hex;

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
        let shown = store.to_wire(&store.read());
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
        assert_eq!(first.file.defaults.unwrap().policy.security, Some(ExecSecurity::Full));
        assert!(matches!(store.replace(&file, None), Err(SetError::HashRequired)));
        assert!(matches!(store.replace(&file, Some("0")), Err(SetError::Changed)));
        let hash = store.read().hash;
        let next =
            json!({"version": 1, "agents": {"main": {"allowlist": ["/bin/ls", {"pattern": "/bin/cat", "x": 1}]}}});
        let second = store.replace(&next, Some(&hash)).unwrap();
        let second = store.to_wire(&second);
        let list = second["file"]["agents"]["main"]["allowlist"].as_array().unwrap();
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
        assert!(read.damaged.is_some());
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
        let shown = store.to_wire(&store.read());
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
        let shown = store.to_wire(&again);
        let entry = &shown["file"]["agents"]["main"]["allowlist"][0];
        assert_eq!((&entry["source"], &entry["lastUsedAt"]), (&json!("allow-always"), &json!(7)));
    }
}
