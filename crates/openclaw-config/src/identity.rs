//! This machine's device key: `<STATE_DIR>/identity/device.json`, in the form protocol-3 releases wrote.

use std::{
    fs, io,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use openclaw_protocol::{DeviceId, DeviceKey, Secret};
use serde::{Deserialize, Serialize};

use crate::{
    files::{self, FileError, FileLock},
    paths::{Paths, with_suffix},
};

const MAX_BYTES: u64 = 64 * 1024;
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no device key.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(
        "the device identity {file} is damaged: {reason}; restore it from a backup, or move it away to get a new \
         identity, which has to be paired again"
    )]
    Damaged { file: String, reason: &'static str },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    version: u32,
    device_id: String,
    public_key_pem: String,
    private_key_pem: String,
    created_at_ms: i64,
}

/// The key, if there is one. A damaged file is an error and is left as it is, since paired gateways know its key.
pub fn load(paths: &Paths) -> Result<Option<DeviceKey>, IdentityError> {
    let Some(bytes) = files::read_private(&paths.identity_file(), MAX_BYTES)? else { return Ok(None) };
    let damaged = |reason| IdentityError::Damaged { file: paths.identity_file().display().to_string(), reason };
    let stored: Stored = serde_json::from_slice(&bytes).map_err(|_| damaged("it is not the expected JSON"))?;
    let pem = Secret::new(stored.private_key_pem);
    let key = DeviceKey::from_pkcs8_pem(pem.expose()).ok_or_else(|| damaged("its private key cannot be read"))?;
    if key.id().as_str() != stored.device_id {
        return Err(damaged("its device id is not that of its key"));
    }
    Ok(Some(key))
}

/// The key, made on first use. Two processes that start together get the same one.
pub fn load_or_create(paths: &Paths) -> Result<DeviceKey, IdentityError> {
    if let Some(key) = load(paths)? {
        return Ok(key);
    }
    let file = paths.identity_file();
    files::create_private_dir(&paths.state_dir)?;
    if let Some(dir) = file.parent() {
        files::create_private_dir(dir)?;
    }
    let _lock = FileLock::acquire(&with_suffix(&file, ".lock"), PATIENCE)?;
    if let Some(key) = load(paths)? {
        return Ok(key);
    }
    let key = DeviceKey::from_seed(&files::random::<32>()?);
    store(paths, &key, now_ms())?;
    Ok(key)
}

/// Writes a key that was made in memory, unless there is one already. True when it was written.
pub fn keep(paths: &Paths, key: &DeviceKey) -> Result<bool, IdentityError> {
    let file = paths.identity_file();
    files::create_private_dir(&paths.state_dir)?;
    if let Some(dir) = file.parent() {
        files::create_private_dir(dir)?;
    }
    let _lock = FileLock::acquire(&with_suffix(&file, ".lock"), PATIENCE)?;
    if exists(paths) {
        return Ok(false);
    }
    store(paths, key, now_ms())?;
    Ok(true)
}

/// Removes this machine's key, if it is this one. Gateways that know it have to be paired with anew.
pub fn discard(paths: &Paths, device: &DeviceId) -> Result<(), IdentityError> {
    let file = paths.identity_file();
    if !exists(paths) {
        return Ok(());
    }
    let _lock = FileLock::acquire(&with_suffix(&file, ".lock"), PATIENCE)?;
    if load(paths)?.is_some_and(|key| key.id() == *device) {
        fs::remove_file(&file).map_err(|source| FileError::Io { action: "remove", path: file.clone(), source })?;
    }
    Ok(())
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_millis());
    i64::try_from(since).unwrap_or(i64::MAX)
}

/// Writes a key, as for an identity brought over from another state directory. Replaces an existing one.
pub fn store(paths: &Paths, key: &DeviceKey, created_at_ms: i64) -> Result<DeviceId, IdentityError> {
    let file = paths.identity_file();
    if let Some(dir) = file.parent() {
        files::create_private_dir(dir)?;
    }
    let stored = Stored {
        version: 1,
        device_id: key.id().as_str().to_owned(),
        public_key_pem: key.public().to_spki_pem(),
        private_key_pem: key.to_pkcs8_pem().expose().to_owned(),
        created_at_ms,
    };
    let text = serde_json::to_vec_pretty(&stored).map_err(|e| FileError::Io {
        action: "write",
        path: file.clone(),
        source: io::Error::other(e),
    })?;
    files::write_private_atomic(&file, &text)?;
    Ok(key.id())
}

/// Whether an identity exists, without reading it.
pub fn exists(paths: &Paths) -> bool {
    fs::symlink_metadata(paths.identity_file()).is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::{Env, Profile};

    fn machine() -> (tempfile::TempDir, Paths) {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::from_pairs([("OPENCLAW_STATE_DIR", dir.path().join("s").to_str().unwrap())]);
        let paths = Paths::resolve(&env, Profile::Default).unwrap();
        (dir, paths)
    }

    #[test]
    fn made_once_and_private() {
        let (_dir, paths) = machine();
        assert!(load(&paths).unwrap().is_none() && !exists(&paths));
        let ids: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| load_or_create(&paths).unwrap().id())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]));
        let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let file = paths.identity_file();
        assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
        let json: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert_eq!(json["version"], 1);
        assert_eq!(json["deviceId"], ids[0].as_str());
        let public = openclaw_protocol::PublicKey::parse(json["publicKeyPem"].as_str().unwrap()).unwrap();
        assert_eq!(public.device_id(), ids[0]);
        assert!(json["privateKeyPem"].as_str().unwrap().starts_with("-----BEGIN PRIVATE KEY-----\n"));
    }

    #[test]
    fn a_key_made_in_memory_is_kept_once_and_discarded_by_name() {
        let (_dir, paths) = machine();
        let (first, second) = (DeviceKey::from_seed(&[1; 32]), DeviceKey::from_seed(&[2; 32]));
        assert!(keep(&paths, &first).unwrap());
        assert!(!keep(&paths, &second).unwrap());
        discard(&paths, &second.id()).unwrap();
        assert_eq!(load(&paths).unwrap().map(|key| key.id()), Some(first.id()));
        discard(&paths, &first.id()).unwrap();
        assert!(!exists(&paths));
        discard(&paths, &first.id()).unwrap();
    }

    /// A file made with Node's crypto, as release 2026.2.26 has it.
    #[test]
    fn reads_a_release_file() {
        let (_dir, paths) = machine();
        let key = DeviceKey::from_seed(&[
            0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4, 0x44, 0x49,
            0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
        ]);
        // RFC 8032 test 1: the public key of this seed.
        let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";
        assert_eq!(key.public().to_spki_pem(), pem);
        let private = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";
        assert_eq!(key.to_pkcs8_pem().expose(), private);
        files::create_private_dir(paths.identity_file().parent().unwrap()).unwrap();
        let text = serde_json::json!({"version": 1, "deviceId": key.id(), "publicKeyPem": pem, "privateKeyPem": private,
            "createdAtMs": 1_700_000_000_000_i64});
        fs::write(paths.identity_file(), text.to_string()).unwrap();
        assert_eq!(load_or_create(&paths).unwrap().id(), key.id());
    }

    #[test]
    fn damage_is_an_error_and_nothing_is_overwritten() {
        let (_dir, paths) = machine();
        load_or_create(&paths).unwrap();
        let good = fs::read_to_string(paths.identity_file()).unwrap();
        for bad in ["{", "{}", &good.replace("\"deviceId\": \"", "\"deviceId\": \"0"), &good.replace("MC4C", "XXXX")] {
            fs::write(paths.identity_file(), bad).unwrap();
            let error = load_or_create(&paths).unwrap_err().to_string();
            assert!(error.contains("is damaged") && !error.contains("MC4C"), "{error}");
            assert_eq!(fs::read_to_string(paths.identity_file()).unwrap(), *bad);
        }
    }
}
