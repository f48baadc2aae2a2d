//! What may run on this host: `<STATE_DIR>/exec-approvals.json`, the reference's file in the reference's format.
//!
//! The gateway, the node host and the command line share it, so every change is made under a lock, from the text the
//! change was meant for (its hash), and written whole. A file that does not read denies everything: falling back to the
//! defaults would turn a typing mistake into leave to run anything.

mod allowlist;
mod policy;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use openclaw_protocol::{
    method::exec::{AgentApprovals, AllowlistEntry, ApprovalsFile, ApprovalsSnapshot},
    secret::hex,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    files::{self, FileError, FileLock},
    paths::{Paths, with_suffix},
};

pub use allowlist::{Program, arg_digest, find as find_allowed, glob_matches, remember_always};
pub use policy::{Held, resolve};

/// Far more than any allow-list takes.
const MAX_BYTES: u64 = 4 << 20;
const PATIENCE: Duration = Duration::from_secs(10);
/// Most entries of one allow-list.
pub const MAX_RULES: usize = 2000;
const FILE: &str = "exec-approvals.json";

/// Why the document cannot be had or changed.
#[derive(Debug, thiserror::Error)]
pub enum ApprovalsError {
    #[error(transparent)]
    File(#[from] FileError),
    /// The reference's words.
    #[error("exec approvals base hash required; re-run exec.approvals.get and retry")]
    HashRequired,
    /// Somebody else wrote meanwhile. The reference's words.
    #[error("exec approvals changed since last load; re-run exec.approvals.get and retry")]
    Changed,
    #[error("the approvals document is not usable: {0}")]
    Invalid(String),
}

/// The document as it was found.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub path: PathBuf,
    pub exists: bool,
    /// Changes with every change of the text.
    pub hash: String,
    /// What counts: what the file says, or a refusal of everything when it cannot be read.
    pub file: ApprovalsFile,
    /// Why the file is not understood.
    pub damaged: Option<String>,
}

impl Loaded {
    /// As `exec.approvals.get` answers.
    pub fn snapshot(&self) -> ApprovalsSnapshot {
        ApprovalsSnapshot {
            path: self.path.display().to_string(),
            exists: self.exists,
            hash: self.hash.clone(),
            file: self.file.clone(),
            resolved_defaults: Some(resolve(&self.file, None).policy),
        }
    }
}

/// The document of one profile.
#[derive(Clone, Debug)]
pub struct ExecApprovals {
    file: PathBuf,
    state_dir: PathBuf,
}

impl ExecApprovals {
    pub fn new(paths: &Paths) -> Self {
        Self { file: paths.state_dir.join(FILE), state_dir: paths.state_dir.clone() }
    }

    /// Where the document is.
    pub fn path(&self) -> &Path {
        &self.file
    }

    /// Reads the document. A damaged one is no error: it is told, and denies everything.
    ///
    /// # Errors
    /// When the file is there and cannot be opened.
    pub fn load(&self) -> Result<Loaded, ApprovalsError> {
        let path = self.file.clone();
        let Some(bytes) = files::read_private(&self.file, MAX_BYTES)? else {
            let hash = format!("missing:{}", digest(b""));
            return Ok(Loaded { path, exists: false, hash, file: ApprovalsFile::empty(), damaged: None });
        };
        let (file, damaged) = match read(&bytes) {
            Ok(file) => (file, None),
            Err(reason) => (ApprovalsFile::deny_all(), Some(reason)),
        };
        Ok(Loaded { path, exists: true, hash: digest(&bytes), file, damaged })
    }

    /// As [`ExecApprovals::load`], for those who have to decide now: a file that cannot be opened denies everything, too.
    pub fn read(&self) -> Loaded {
        self.load().unwrap_or_else(|error| Loaded {
            path: self.file.clone(),
            exists: true,
            hash: "unreadable".to_owned(),
            file: ApprovalsFile::deny_all(),
            damaged: Some(error.to_string()),
        })
    }

    /// Replaces the document. `base_hash` is the hash of the text the change was made from.
    ///
    /// # Errors
    /// [`ApprovalsError::Changed`] when that is no longer what is there; the file stays as it is.
    pub fn replace(&self, file: ApprovalsFile, base_hash: Option<&str>) -> Result<Loaded, ApprovalsError> {
        let file = normalised(file)?;
        self.change(|found| {
            match base_hash {
                None if found.exists => return Err(ApprovalsError::HashRequired),
                Some(hash) if hash != found.hash => return Err(ApprovalsError::Changed),
                _ => {}
            }
            let mut file = file;
            // A caller never saw the socket's token, so it cannot have meant to take it away.
            file.socket = match (file.socket, found.file.socket) {
                (None, kept) => kept,
                (Some(mut given), kept) => {
                    if let Some(kept) = kept {
                        given.path = given.path.or(kept.path);
                        given.token = given.token.or(kept.token);
                    }
                    Some(given)
                }
            };
            Ok(file)
        })
    }

    /// Edits the document in place, for changes that hold whatever else is in it.
    ///
    /// # Errors
    /// [`ApprovalsError::Invalid`] when the present file is damaged: it is not written over.
    pub fn edit(&self, edit: impl FnOnce(&mut ApprovalsFile)) -> Result<Loaded, ApprovalsError> {
        self.change(|found| {
            if let Some(reason) = found.damaged {
                return Err(ApprovalsError::Invalid(reason));
            }
            let mut file = found.file;
            edit(&mut file);
            normalised(file)
        })
    }

    fn change(
        &self,
        decide: impl FnOnce(Loaded) -> Result<ApprovalsFile, ApprovalsError>,
    ) -> Result<Loaded, ApprovalsError> {
        files::create_private_dir(&self.state_dir)?;
        let _lock = FileLock::acquire(&with_suffix(&self.file, ".lock"), PATIENCE)?;
        let found = self.load()?;
        let (exists, hash, damaged) = (found.exists, found.hash.clone(), found.damaged.is_some());
        let file = decide(found)?;
        let text = written(&file)?;
        if !exists || damaged || digest(text.as_bytes()) != hash {
            files::remove_stale_temporaries(&self.file);
            if damaged {
                // What did not read may still be worth something to its owner.
                let kept = files::read_private(&self.file, MAX_BYTES)?.unwrap_or_default();
                files::write_private_atomic(&with_suffix(&self.file, ".damaged"), &kept)?;
            }
            files::write_private_atomic(&self.file, text.as_bytes())?;
        }
        Ok(Loaded { path: self.file.clone(), exists: true, hash: digest(text.as_bytes()), file, damaged: None })
    }
}

fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// A document in the form files have it.
///
/// # Errors
/// Why it is none, for people.
pub fn read(bytes: &[u8]) -> Result<ApprovalsFile, String> {
    let file: ApprovalsFile = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    normalised(file).map_err(|error| error.to_string())
}

fn written(file: &ApprovalsFile) -> Result<String, ApprovalsError> {
    let unusable = |error: serde_json::Error| ApprovalsError::Invalid(error.to_string());
    let mut value = serde_json::to_value(file).map_err(unusable)?;
    if let Some(token) = file.socket.as_ref().and_then(|socket| socket.token.as_ref()) {
        value["socket"]["token"] = json!(token.expose());
    }
    Ok(serde_json::to_string_pretty(&value).map_err(unusable)? + "\n")
}

/// The document in its usual form: entries have ids, blank ones are gone, the agent once called `default` is `main`.
fn normalised(mut file: ApprovalsFile) -> Result<ApprovalsFile, ApprovalsError> {
    if file.version != ApprovalsFile::VERSION {
        return Err(ApprovalsError::Invalid(format!("version is {}, and this program knows version 1", file.version)));
    }
    if let Some(agents) = &mut file.agents {
        if let Some(old) = agents.remove("default") {
            let merged = match agents.remove("main") {
                Some(main) => merged(main, old),
                None => old,
            };
            agents.insert("main".into(), merged);
        }
        for agent in agents.values_mut() {
            if let Some(list) = &mut agent.allowlist {
                list.retain(|entry| !entry.pattern.trim().is_empty());
                if list.len() > MAX_RULES {
                    return Err(ApprovalsError::Invalid(format!("an allow-list has more than {MAX_RULES} entries")));
                }
                for entry in list {
                    // It repeats in plain text what the pattern says; the reference drops it as well.
                    entry.more.remove("commandText");
                    if entry.id.as_deref().is_none_or(str::is_empty) {
                        entry.id = Some(uuid::Uuid::new_v4().to_string());
                    }
                }
            }
        }
    }
    Ok(file)
}

fn merged(main: AgentApprovals, old: AgentApprovals) -> AgentApprovals {
    let key = |entry: &AllowlistEntry| {
        (entry.pattern.trim().to_lowercase(), entry.arg_pattern.as_deref().unwrap_or_default().trim().to_owned())
    };
    let mut list: Vec<AllowlistEntry> = main.allowlist.unwrap_or_default();
    for entry in old.allowlist.unwrap_or_default() {
        if !list.iter().any(|known| key(known) == key(&entry)) {
            list.push(entry);
        }
    }
    let (newer, older) = (main.policy, old.policy);
    let mut more = old.more;
    more.extend(main.more);
    AgentApprovals {
        policy: openclaw_protocol::method::exec::ExecPolicy {
            security: newer.security.or(older.security),
            ask: newer.ask.or(older.ask),
            ask_fallback: newer.ask_fallback.or(older.ask_fallback),
            auto_allow_skills: newer.auto_allow_skills.or(older.auto_allow_skills),
        },
        allowlist: (!list.is_empty()).then_some(list),
        more,
    }
}

/// What a person typed, as a document: JSON5, an object.
///
/// # Errors
/// [`ApprovalsError::Invalid`], saying where.
pub fn parse(text: &str) -> Result<ApprovalsFile, ApprovalsError> {
    let invalid = |reason: String| ApprovalsError::Invalid(reason);
    let mut value: Value = crate::write::parse_patch(text).map_err(|error| invalid(error.to_string()))?;
    let Some(object) = value.as_object_mut() else { return Err(invalid("it must be an object".into())) };
    object.entry("version").or_insert(json!(ApprovalsFile::VERSION));
    serde_json::from_value(value).map_err(|error| invalid(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use openclaw_protocol::method::exec::{ExecAsk, ExecSecurity};

    use super::*;
    use crate::{Env, Profile};

    fn store() -> (tempfile::TempDir, ExecApprovals) {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::from_pairs([("OPENCLAW_STATE_DIR", dir.path().to_str().unwrap())]);
        let store = ExecApprovals::new(&Paths::resolve(&env, Profile::Default).unwrap());
        (dir, store)
    }

    fn document(value: Value) -> ApprovalsFile {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn nothing_there_means_what_is_listed_and_asking() {
        let (_dir, store) = store();
        let loaded = store.load().unwrap();
        let snapshot = loaded.snapshot();
        // SHA-256 of nothing, as release 2026.9.6 marks an absent document.
        assert_eq!(snapshot.hash, "missing:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!((snapshot.exists, snapshot.file), (false, ApprovalsFile::empty()));
        let policy = snapshot.resolved_defaults.unwrap();
        assert_eq!((policy.security, policy.ask), (ExecSecurity::Allowlist, ExecAsk::OnMiss));
        assert_eq!((policy.ask_fallback, policy.auto_allow_skills), (ExecSecurity::Deny, false));
    }

    #[test]
    fn writes_are_private_and_need_the_text_they_were_made_from() {
        let (dir, store) = store();
        let file = document(json!({"version": 1, "defaults": {"security": "deny"},
            "agents": {"default": {"allowlist": ["/bin/ls", "  "]}, "main": {"ask": "always"}}}));
        assert!(matches!(store.replace(file.clone(), Some("other")), Err(ApprovalsError::Changed)));
        let first = store.replace(file.clone(), None).unwrap();
        assert_eq!(first.hash, store.load().unwrap().hash);
        let agents = first.file.agents.as_ref().unwrap();
        assert_eq!(agents.len(), 1);
        let main = &agents["main"];
        assert_eq!((main.policy.ask, main.allowlist.as_ref().unwrap().len()), (Some(ExecAsk::Always), 1));
        assert!(main.allowlist.as_ref().unwrap()[0].id.as_ref().is_some_and(|id| id.len() == 36));
        let path = dir.path().join("exec-approvals.json");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        assert!(matches!(store.replace(file.clone(), None), Err(ApprovalsError::HashRequired)));
        assert!(matches!(store.replace(file.clone(), Some("stale")), Err(ApprovalsError::Changed)));
        assert_eq!(store.load().unwrap().hash, first.hash);
        let second = store.replace(ApprovalsFile::empty(), Some(&first.hash)).unwrap();
        assert_ne!(second.hash, first.hash);
        assert!(matches!(store.replace(file, Some(&first.hash)), Err(ApprovalsError::Changed)));
        assert!(store.replace(document(json!({"version": 2})), Some(&second.hash)).is_err());
    }

    #[test]
    fn a_damaged_document_denies_everything_and_is_kept() {
        let (dir, store) = store();
        let path = dir.path().join("exec-approvals.json");
        for text in ["{", "[]", "{\"version\":2}", "{\"version\":1,\"defaults\":{\"security\":\"alowlist\"}}", ""] {
            fs::write(&path, text).unwrap();
            let loaded = store.load().unwrap();
            assert!(loaded.exists && loaded.damaged.is_some(), "{text}");
            assert_eq!(loaded.snapshot().resolved_defaults.unwrap().security, ExecSecurity::Deny, "{text}");
            assert!(matches!(store.edit(|_| ()), Err(ApprovalsError::Invalid(_))), "{text}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            store.replace(ApprovalsFile::empty(), Some(&loaded.hash)).unwrap();
            assert_eq!(fs::read_to_string(dir.path().join("exec-approvals.json.damaged")).unwrap(), text);
            assert_eq!(store.load().unwrap().damaged, None);
        }
    }

    #[test]
    fn the_sockets_token_survives_a_write_that_does_not_know_it() {
        let (dir, store) = store();
        let path = dir.path().join("exec-approvals.json");
        fs::write(&path, "{\"version\":1,\"socket\":{\"path\":\"/run/a\",\"token\":\"hush\"}}").unwrap();
        let loaded = store.load().unwrap();
        assert!(!serde_json::to_string(&loaded.snapshot()).unwrap().contains("hush"));
        let set = document(json!({"version": 1, "defaults": {"ask": "always"}, "socket": {"path": "/run/b"}}));
        store.replace(set, Some(&loaded.hash)).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("hush") && text.contains("/run/b"), "{text}");
    }

    /// Keys this program does not know belong to newer releases, wherever they are.
    #[test]
    fn what_is_not_known_is_kept() {
        let (dir, store) = store();
        let path = dir.path().join("exec-approvals.json");
        let text = json!({
            "version": 1, "later": {"a": 1}, "defaults": {"ask": "always", "review": "auto"},
            "socket": {"path": "/run/a", "group": 7},
            "agents": {"main": {"security": "full", "pace": 2,
                                "allowlist": [{"id": "x", "pattern": "/bin/ls", "lastUsedAt": 7, "why": "mine"}]}}
        });
        fs::write(&path, text.to_string()).unwrap();
        let loaded = store.load().unwrap();
        store.replace(loaded.file, Some(&loaded.hash)).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&fs::read(&path).unwrap()).unwrap(), text);
    }

    #[test]
    fn lists_have_an_end() {
        let (_dir, store) = store();
        let list =
            |count: usize| document(json!({"version": 1, "agents": {"a": {"allowlist": vec!["/bin/ls"; count]}}}));
        assert!(matches!(store.replace(list(MAX_RULES + 1), None), Err(ApprovalsError::Invalid(_))));
        assert!(store.replace(list(MAX_RULES), None).is_ok());
    }

    #[test]
    fn people_may_type_json5() {
        let file = parse("{ defaults: { security: 'full', ask: 'off', }, }").unwrap();
        assert_eq!(file.defaults.unwrap().policy.security, Some(ExecSecurity::Full));
        for wrong in ["[]", "{ version: 1", "{ defaults: { ask: 'maybe' } }", ""] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
