//! Source `store`: our own file of secrets, `<STATE_DIR>/secrets/store.json`, 0600.
//!
//! `{"version":1,"secrets":{"<id>":"<text>"}}`. Writers hold a lock, so two of them lose nothing.

use std::{collections::BTreeMap, time::Duration};

use openclaw_protocol::Secret;
use serde::{Deserialize, Serialize};

use crate::{
    files::{self, FileError, FileLock},
    paths::{Paths, with_suffix},
};

/// Largest store file: 4 MiB.
const MAX_BYTES: u64 = 4 << 20;
/// How long a writer waits for another.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("the secret store {0} is damaged; restore it from a backup or move it away")]
    Damaged(String),
    #[error("a secret id must match [A-Za-z0-9][A-Za-z0-9._:/#-]{{0,255}} without dot segments")]
    BadId,
}

#[derive(Serialize, Deserialize)]
struct Content {
    version: u32,
    secrets: BTreeMap<String, String>,
}

/// The secret store of a state directory.
pub struct SecretStore<'a> {
    paths: &'a Paths,
}

impl<'a> SecretStore<'a> {
    pub fn new(paths: &'a Paths) -> Self {
        Self { paths }
    }

    pub fn get(&self, id: &str) -> Result<Option<Secret>, StoreError> {
        Ok(self.load()?.secrets.remove(id).map(Secret::new))
    }

    /// The ids, sorted.
    pub fn list(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.load()?.secrets.into_keys().collect())
    }

    pub fn set(&self, id: &str, secret: &Secret) -> Result<(), StoreError> {
        if !super::is_name(id) {
            return Err(StoreError::BadId);
        }
        self.change(|secrets| {
            secrets.insert(id.to_owned(), secret.expose().to_owned());
            true
        })
        .map(|_| ())
    }

    /// True if there was such a secret.
    pub fn delete(&self, id: &str) -> Result<bool, StoreError> {
        self.change(|secrets| secrets.remove(id).is_some())
    }

    fn change(&self, edit: impl FnOnce(&mut BTreeMap<String, String>) -> bool) -> Result<bool, StoreError> {
        let path = self.paths.secret_store();
        files::create_private_dir(&self.paths.state_dir)?;
        if let Some(dir) = path.parent() {
            files::create_private_dir(dir)?;
        }
        let _lock = FileLock::acquire(&with_suffix(&path, ".lock"), PATIENCE)?;
        let mut content = self.load()?;
        let changed = edit(&mut content.secrets);
        if changed {
            files::remove_stale_temporaries(&path);
            let text = serde_json::to_vec_pretty(&content).map_err(|_| self.damaged())?;
            files::write_private_atomic(&path, &text)?;
        }
        Ok(changed)
    }

    fn load(&self) -> Result<Content, StoreError> {
        match files::read_private(&self.paths.secret_store(), MAX_BYTES)? {
            None => Ok(Content { version: 1, secrets: BTreeMap::new() }),
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|_| self.damaged()),
        }
    }

    fn damaged(&self) -> StoreError {
        StoreError::Damaged(self.paths.secret_store().display().to_string())
    }
}
