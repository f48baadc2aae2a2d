//! The device store of this machine: the identity and the token cache in the state directory.

use std::{
    sync::OnceLock,
    time::{SystemTime, UNIX_EPOCH},
};

use openclaw_config::{
    Paths,
    device_tokens::{DeviceToken, DeviceTokens},
    identity,
};
use openclaw_protocol::{DeviceKey, Role, ScopeSet, Secret};

use crate::connect::{DeviceStore, StoredToken};

/// Reads the key once; tokens are read each time, since another process may have renewed them.
#[derive(Debug)]
pub struct IdentityStore {
    paths: Paths,
    key: OnceLock<DeviceKey>,
}

impl IdentityStore {
    pub const fn new(paths: Paths) -> Self {
        Self { paths, key: OnceLock::new() }
    }

    fn tokens(&self) -> Option<DeviceTokens> {
        let key = self.key(false).ok()??;
        Some(DeviceTokens::new(&self.paths, key.id()))
    }
}

impl DeviceStore for IdentityStore {
    fn key(&self, create: bool) -> Result<Option<DeviceKey>, String> {
        if let Some(key) = self.key.get() {
            return Ok(Some(key.clone()));
        }
        let read = if create { identity::load_or_create(&self.paths).map(Some) } else { identity::load(&self.paths) };
        let key = read.map_err(|error| error.to_string())?;
        Ok(key.map(|key| self.key.get_or_init(|| key).clone()))
    }

    fn token(&self, origin: &str, role: &str) -> Option<StoredToken> {
        let held = self.tokens()?.get(origin, Role::parse(role)?);
        let held = held.inspect_err(|error| tracing::warn!(%error, "cached device tokens cannot be read")).ok()??;
        Some(StoredToken { token: held.token, scopes: held.scopes.names().into_iter().map(str::to_owned).collect() })
    }

    fn remember(&self, origin: &str, role: &str, token: &Secret, scopes: &[String]) {
        let (Some(tokens), Some(role)) = (self.tokens(), Role::parse(role)) else { return };
        let known = tokens.get(origin, role).ok().flatten();
        // A connection is told what it asked for, not all that its token is good for.
        let same = known.filter(|known| known.token == *token);
        let before = same.map(|known| known.scopes);
        let scopes = ScopeSet::parse(scopes).union(before.unwrap_or_default());
        if before == Some(scopes) {
            return;
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let updated_at_ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        let entry = DeviceToken { token: token.clone(), role, scopes, updated_at_ms };
        // The connection stands either way; without the cache the next one proves the shared secret again.
        if let Err(error) = tokens.put(origin, &entry) {
            tracing::warn!(%error, "the device token could not be kept");
        }
    }

    fn forget(&self, origin: &str, role: &str) {
        let (Some(tokens), Some(role)) = (self.tokens(), Role::parse(role)) else { return };
        if let Err(error) = tokens.remove(origin, role) {
            tracing::warn!(%error, "a stale device token could not be dropped");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openclaw_config::{Env, Profile};

    #[test]
    fn tokens_belong_to_one_origin() {
        let dir = tempfile::tempdir().expect("dir");
        let env = Env::from_pairs([("OPENCLAW_STATE_DIR", dir.path().to_str().expect("path"))]);
        let paths = Paths::resolve(&env, Profile::Default).expect("paths");
        let store = IdentityStore::new(paths.clone());
        let (here, there) = ("ws://127.0.0.1:18789", "wss://gw.example.com:443");
        assert!(store.key(false).expect("readable").is_none(), "a probe makes no identity");
        store.remember(here, "operator", &Secret::new("lost"), &[]);
        assert!(store.token(here, "operator").is_none());

        let key = store.key(true).expect("made").expect("key");
        store.remember(here, "operator", &Secret::new("D"), &["operator.read".to_owned()]);
        let held = store.token(here, "operator").expect("kept");
        assert_eq!((held.token.expose(), held.scopes), ("D", vec!["operator.read".to_owned()]));
        assert!(store.token(there, "operator").is_none() && store.token(here, "node").is_none());

        store.remember(here, "operator", &Secret::new("D"), &["operator.write".to_owned()]);
        let held = store.token(here, "operator").expect("kept");
        assert_eq!(held.scopes, vec!["operator.read".to_owned(), "operator.write".to_owned()], "the same token");
        store.remember(here, "operator", &Secret::new("E"), &["operator.read".to_owned()]);
        assert_eq!(store.token(here, "operator").expect("kept").scopes, vec!["operator.read".to_owned()], "another");

        let again = IdentityStore::new(paths);
        assert_eq!(again.key(false).expect("readable").map(|key| key.id()), Some(key.id()));
        again.forget(here, "operator");
        assert!(store.token(here, "operator").is_none());
    }
}
