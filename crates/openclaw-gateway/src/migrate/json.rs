//! The JSON files of 2026.2: `identity/device.json`, `identity/device-auth.json`, `devices/paired.json`.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use openclaw_protocol::{DeviceKey, ScopeSet, Secret};
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    MigrateError,
    records::{StoredClientToken, StoredDevice},
};

/// Larger files are not ours to read: 64 MiB holds more devices than anybody has.
const MAX_BYTES: u64 = 64 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    device_id: String,
    private_key_pem: String,
    #[serde(default)]
    created_at_ms: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeviceAuth {
    device_id: String,
    #[serde(default)]
    tokens: BTreeMap<String, ClientTokens>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ClientTokens {
    /// By role, as 2026.2 writes it.
    OfRole(ClientToken),
    /// By gateway and role, as we write it.
    OfGateway(BTreeMap<String, ClientToken>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClientToken {
    token: String,
    #[serde(default)]
    scopes: Vec<String>,
    #[serde(default)]
    updated_at_ms: i64,
}

/// `identity/device.json`: the key and when it was made.
pub(super) fn identity(path: &Path) -> Result<Option<(DeviceKey, i64)>, MigrateError> {
    let Some(stored) = read_json::<Identity>(path)? else { return Ok(None) };
    let key = key_from_pem(path, &stored.device_id, Secret::new(stored.private_key_pem))?;
    Ok(Some((key, stored.created_at_ms)))
}

/// Reads a private key and holds it against the id it is stored under.
pub(super) fn key_from_pem(path: &Path, device_id: &str, pem: Secret) -> Result<DeviceKey, MigrateError> {
    let unreadable = |reason: &str| MigrateError::Unreadable { path: path.to_owned(), reason: reason.to_owned() };
    let key = DeviceKey::from_pkcs8_pem(pem.expose()).ok_or_else(|| unreadable("the private key cannot be read"))?;
    if key.id().as_str() != device_id {
        return Err(unreadable("the device id is not that of the key"));
    }
    Ok(key)
}

/// `identity/device-auth.json`. What 2026.2 wrote does not say which gateway its tokens are for; what we wrote does.
pub(super) fn client_tokens(path: &Path) -> Result<Vec<StoredClientToken>, MigrateError> {
    let Some(stored) = read_json::<DeviceAuth>(path)? else { return Ok(Vec::new()) };
    let device_id = stored.device_id;
    let one = |origin: Option<String>, role: String, token: ClientToken| StoredClientToken {
        origin,
        device_id: device_id.clone(),
        role,
        token: Secret::new(token.token),
        scopes: ScopeSet::parse(&token.scopes),
        updated_at_ms: token.updated_at_ms,
    };
    let mut tokens = Vec::new();
    for (key, entry) in stored.tokens {
        match entry {
            ClientTokens::OfRole(token) => tokens.push(one(None, key, token)),
            ClientTokens::OfGateway(roles) => {
                tokens.extend(roles.into_iter().map(|(role, token)| one(Some(key.clone()), role, token)));
            }
        }
    }
    Ok(tokens)
}

/// `devices/paired.json`, an object by device id.
pub(super) fn paired(path: &Path) -> Result<Vec<StoredDevice>, MigrateError> {
    Ok(read_json::<BTreeMap<String, StoredDevice>>(path)?.unwrap_or_default().into_values().collect())
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, MigrateError> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| MigrateError::Unreadable {
        path: path.to_owned(),
        // Its text would quote the file, which holds keys.
        reason: format!("line {}, column {} is not the expected JSON", error.line(), error.column()),
    })
}

/// The bytes of a file of the source, without changing anything about it; `None` if there is none.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, MigrateError> {
    let told = |source| MigrateError::Read { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(told(error)),
    };
    if !file.metadata().map_err(told)?.is_file() {
        return Err(MigrateError::Unreadable { path: path.to_owned(), reason: "it is not a file".into() });
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(told)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(MigrateError::Unreadable { path: path.to_owned(), reason: "it is larger than 64 MiB".into() });
    }
    Ok(Some(bytes))
}

/// True when both paths lead to the same place.
pub(super) fn same_place(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| -> Option<PathBuf> { fs::canonicalize(path).ok() };
    real(a).is_some_and(|a| Some(a) == real(b))
}

/// Copies a file of the source into a new private one, without taking its mode along.
pub(super) fn read_to_file(from: &Path, to: &Path) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut reader = File::open(from)?;
    let mut options = fs::OpenOptions::new();
    let mut writer = options.write(true).create(true).truncate(true).mode(0o600).open(to)?;
    io::copy(&mut reader, &mut writer).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_tokens_of_both_writers() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("device-auth.json");
        let read = |tokens: &str| {
            fs::write(&path, format!(r#"{{"version":1,"deviceId":"d","tokens":{tokens}}}"#)).expect("written");
            let tokens = client_tokens(&path).expect("read");
            tokens.into_iter().map(|t| (t.origin, t.role, t.token.expose().to_owned())).collect::<Vec<_>>()
        };
        let token = r#"{"token":"t","role":"node","scopes":[],"updatedAtMs":1}"#;
        let found = |origin: Option<&str>| vec![(origin.map(str::to_owned), "node".to_owned(), "t".to_owned())];
        assert_eq!(read(&format!(r#"{{"node":{token}}}"#)), found(None));
        assert_eq!(read(&format!(r#"{{"ws://a:1":{{"node":{token}}}}}"#)), found(Some("ws://a:1")));
    }
}
