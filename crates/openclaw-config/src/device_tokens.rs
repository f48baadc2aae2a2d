//! Device tokens this machine holds as a client, by gateway: `<STATE_DIR>/identity/device-auth.json`.
//!
//! `{"version":1,"deviceId":…,"tokens":{"<origin>":{"<role>":{"token","role","scopes","updatedAtMs"}}}}`. A token is
//! only ever given for the origin it was issued at (security case P-48), and belongs to one device key: another
//! identity's tokens are not read.

use std::time::Duration;

use openclaw_protocol::{DeviceId, Role, ScopeSet, Secret};
use serde_json::{Map, Value, json};

use crate::{
    files::{self, FileError, FileLock},
    paths::{Paths, with_suffix},
};

const MAX_BYTES: u64 = 4 << 20;
const PATIENCE: Duration = Duration::from_secs(10);

/// One cached token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceToken {
    pub token: Secret,
    pub role: Role,
    pub scopes: ScopeSet,
    pub updated_at_ms: i64,
}

/// The cache of one identity.
#[derive(Clone, Debug)]
pub struct DeviceTokens {
    paths: Paths,
    device: DeviceId,
}

impl DeviceTokens {
    pub fn new(paths: &Paths, device: DeviceId) -> Self {
        Self { paths: paths.clone(), device }
    }

    /// The token for a gateway and role. `origin` is the gateway's `scheme://host:port`. A damaged file holds none.
    pub fn get(&self, origin: &str, role: Role) -> Result<Option<DeviceToken>, FileError> {
        let tokens = self.load()?;
        Ok(tokens.get(origin).and_then(|roles| roles.get(role.as_str())).and_then(|entry| read(entry, role)))
    }

    /// Every cached token, for `doctor`.
    pub fn list(&self) -> Result<Vec<(String, DeviceToken)>, FileError> {
        let tokens = self.load()?;
        let each = |(origin, roles): (&String, &Value)| {
            let found = Role::ALL.into_iter().filter_map(|role| read(roles.get(role.as_str())?, role));
            found.map(|token| (origin.clone(), token)).collect::<Vec<_>>()
        };
        Ok(tokens.iter().flat_map(each).collect())
    }

    /// Keeps a token, replacing an earlier one of the same gateway and role.
    pub fn put(&self, origin: &str, token: &DeviceToken) -> Result<(), FileError> {
        self.change(|tokens| {
            let entry = json!({
                "token": token.token.expose(),
                "role": token.role,
                "scopes": token.scopes,
                "updatedAtMs": token.updated_at_ms,
            });
            let roles = tokens.entry(origin.to_owned()).or_insert_with(|| json!({}));
            if !roles.is_object() {
                *roles = json!({});
            }
            roles[token.role.as_str()] = entry;
            true
        })
        .map(|_| ())
    }

    /// Forgets the token of a gateway and role; true if there was one.
    pub fn remove(&self, origin: &str, role: Role) -> Result<bool, FileError> {
        self.change(|tokens| {
            let Some(roles) = tokens.get_mut(origin).and_then(Value::as_object_mut) else { return false };
            let removed = roles.remove(role.as_str()).is_some();
            if roles.is_empty() {
                tokens.remove(origin);
            }
            removed
        })
    }

    fn change(&self, edit: impl FnOnce(&mut Map<String, Value>) -> bool) -> Result<bool, FileError> {
        let file = self.paths.device_auth_file();
        files::create_private_dir(&self.paths.state_dir)?;
        if let Some(dir) = file.parent() {
            files::create_private_dir(dir)?;
        }
        let _lock = FileLock::acquire(&with_suffix(&file, ".lock"), PATIENCE)?;
        let mut tokens = self.load()?;
        let changed = edit(&mut tokens);
        if changed {
            files::remove_stale_temporaries(&file);
            let text = json!({"version": 1, "deviceId": self.device.as_str(), "tokens": tokens});
            files::write_private_atomic(&file, format!("{text:#}\n").as_bytes())?;
        }
        Ok(changed)
    }

    /// The `tokens` object. A cache can be had again by pairing, so a damaged one counts as empty.
    fn load(&self) -> Result<Map<String, Value>, FileError> {
        let Some(bytes) = files::read_private(&self.paths.device_auth_file(), MAX_BYTES)? else {
            return Ok(Map::new());
        };
        let Ok(Value::Object(mut stored)) = serde_json::from_slice(&bytes) else { return Ok(Map::new()) };
        if stored.get("deviceId").and_then(Value::as_str) != Some(self.device.as_str()) {
            return Ok(Map::new());
        }
        match stored.remove("tokens") {
            Some(Value::Object(tokens)) => Ok(tokens),
            _ => Ok(Map::new()),
        }
    }
}

fn read(entry: &Value, role: Role) -> Option<DeviceToken> {
    let scopes: Vec<_> = entry.get("scopes")?.as_array()?.iter().filter_map(Value::as_str).collect();
    Some(DeviceToken {
        token: Secret::from_input(entry.get("token")?.as_str()?)?,
        role,
        scopes: ScopeSet::parse(&scopes),
        updated_at_ms: entry.get("updatedAtMs").and_then(Value::as_i64).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use openclaw_protocol::DeviceKey;

    use super::*;
    use crate::{Env, Profile};

    fn token(text: &str, role: Role) -> DeviceToken {
        let scopes = ScopeSet::parse(&["operator.read"]);
        DeviceToken { token: Secret::new(text), role, scopes, updated_at_ms: 5 }
    }

    fn cache(dir: &tempfile::TempDir, seed: u8) -> DeviceTokens {
        let env = Env::from_pairs([("OPENCLAW_STATE_DIR", dir.path().to_str().unwrap())]);
        let paths = Paths::resolve(&env, Profile::Default).unwrap();
        DeviceTokens::new(&paths, DeviceKey::from_seed(&[seed; 32]).id())
    }

    #[test]
    fn p_48_a_token_is_for_its_origin_role_and_identity() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = cache(&dir, 1);
        assert_eq!(tokens.get("ws://a:1", Role::Operator).unwrap(), None);
        tokens.put("ws://a:1", &token("one", Role::Operator)).unwrap();
        tokens.put("ws://a:1", &token("node", Role::Node)).unwrap();
        tokens.put("ws://b:1", &token("two", Role::Operator)).unwrap();
        tokens.put("ws://a:1", &token("newer", Role::Operator)).unwrap();
        let got = |tokens: &DeviceTokens, origin: &str, role| tokens.get(origin, role).unwrap();
        assert_eq!(got(&tokens, "ws://a:1", Role::Operator), Some(token("newer", Role::Operator)));
        assert_eq!(got(&tokens, "ws://a:1", Role::Node), Some(token("node", Role::Node)));
        assert_eq!(got(&tokens, "ws://a:2", Role::Operator), None);
        assert_eq!(got(&tokens, "ws://b:1", Role::Node), None);
        assert_eq!(tokens.list().unwrap().len(), 3);
        assert_eq!(got(&cache(&dir, 2), "ws://a:1", Role::Operator), None);
        assert!(tokens.remove("ws://a:1", Role::Operator).unwrap());
        assert!(!tokens.remove("ws://a:1", Role::Operator).unwrap());
        assert_eq!(got(&tokens, "ws://a:1", Role::Node), Some(token("node", Role::Node)));
        let mode = fs::metadata(tokens.paths.device_auth_file()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn concurrent_writers_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = cache(&dir, 1);
        std::thread::scope(|scope| {
            for i in 0..8 {
                let tokens = &tokens;
                scope.spawn(move || tokens.put(&format!("ws://h:{i}"), &token("x", Role::Operator)).unwrap());
            }
        });
        assert_eq!(tokens.list().unwrap().len(), 8);
    }

    #[test]
    fn a_damaged_or_older_cache_counts_as_empty() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = cache(&dir, 1);
        tokens.put("ws://a:1", &token("one", Role::Operator)).unwrap();
        let device = tokens.device.clone();
        let older = json!({"version": 1, "deviceId": device, "tokens": {"operator": {"token": "t", "role": "operator",
            "scopes": ["operator.admin"], "updatedAtMs": 1}}});
        for text in ["", "{", "[]", &older.to_string()] {
            fs::write(tokens.paths.device_auth_file(), text).unwrap();
            assert_eq!(tokens.get("ws://a:1", Role::Operator).unwrap(), None, "{text}");
            assert_eq!(tokens.get("operator", Role::Operator).unwrap(), None, "{text}");
        }
        tokens.put("ws://a:1", &token("two", Role::Operator)).unwrap();
        assert_eq!(tokens.get("ws://a:1", Role::Operator).unwrap(), Some(token("two", Role::Operator)));
    }
}
