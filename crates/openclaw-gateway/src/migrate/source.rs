//! What a source directory holds, from either generation or both.

use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
};

use openclaw_config::{Paths, exec_approvals, write};
use openclaw_protocol::{DeviceKey, Role, ScopeSet, Secret, secret::hex};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{
    MigrateError, json,
    records::{StoredClientToken, StoredDevice},
    sqlite,
};
use crate::pairing::PairedDevice;

/// Port of a gateway whose config names none.
const DEFAULT_PORT: u64 = 18_789;
/// Files that are consumed, or that say nothing to anybody.
const KNOWN_ENTRIES: &[&str] =
    &["openclaw.json", ".env", "exec-approvals.json", "identity", "devices", "state", "cache", "tmp", "logs"];

/// Everything worth importing.
#[derive(Debug, Default)]
pub(super) struct SourceState {
    pub found: Vec<String>,
    /// The source is the target's own state directory.
    pub in_place: bool,
    /// Text of `openclaw.json`.
    pub config: Option<Vec<u8>>,
    /// Included files inside the source directory: path relative to it, and content.
    pub includes: Vec<(PathBuf, Vec<u8>)>,
    pub dotenv: Option<Vec<u8>>,
    pub approvals: Option<Approvals>,
    pub identity: Option<Identity>,
    pub client_tokens: Vec<ClientToken>,
    pub devices: Vec<PairedDevice>,
    pub warnings: Vec<String>,
    pub left_alone: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Identity {
    pub key: DeviceKey,
    pub created_at_ms: i64,
    /// It is in the very file we would write.
    pub in_file: bool,
}

/// What may run on the source's host.
#[derive(Debug)]
pub(super) struct Approvals {
    pub text: Vec<u8>,
    /// It is in the very file we would write.
    pub in_file: bool,
}

/// A client token whose gateway is known.
#[derive(Debug)]
pub(super) struct ClientToken {
    pub origin: String,
    pub role: Role,
    pub token: Secret,
    pub scopes: ScopeSet,
    pub updated_at_ms: i64,
}

pub(super) fn read(dir: &Path, target: &Paths) -> Result<SourceState, MigrateError> {
    if !fs::metadata(dir).is_ok_and(|meta| meta.is_dir()) {
        return Err(MigrateError::NotADirectory(dir.to_owned()));
    }
    let mut state = SourceState { in_place: json::same_place(dir, &target.state_dir), ..SourceState::default() };
    let config = read_config(dir, &mut state)?;
    state.dotenv = json::read(&dir.join(".env"))?;

    let identity_file = dir.join("identity").join("device.json");
    let from_file = json::identity(&identity_file)?;
    let mut client_tokens = json::client_tokens(&dir.join("identity").join("device-auth.json"))?;
    let paired_file = dir.join("devices").join("paired.json");
    let paired = json::paired(&paired_file)?;
    if from_file.is_some() || paired_file.exists() {
        state.found.push("2026.2 files".into());
    }
    let database = sqlite::read(&dir.join("state").join("openclaw.sqlite"), &std::env::temp_dir())?;
    let mut from_database = None;
    let approvals_file = dir.join("exec-approvals.json");
    let mut approvals = json::read(&approvals_file)?.map(|text| Approvals { text, in_file: true });
    let mut stored: Vec<StoredDevice> = paired;
    if let Some(mut database) = database {
        let version = database.app_version.as_deref().unwrap_or("version unknown");
        state.found.push(format!("2026.9 database (schema {}, {version})", database.schema));
        state.warnings.append(&mut database.warnings);
        from_database = database.identity;
        client_tokens.append(&mut database.client_tokens);
        if let Some(text) = database.approvals {
            let same = approvals.is_some_and(|file| file.text == text.as_bytes());
            approvals = Some(Approvals { text: text.into_bytes(), in_file: same });
        }
        if let Some(devices) = database.devices.filter(|devices| !devices.is_empty()) {
            if !stored.is_empty() {
                state.warnings.push(
                    "devices/paired.json is left over from before the database and was ignored: devices removed since \
                     must not come back"
                        .into(),
                );
            }
            stored = devices;
        }
    }
    state.identity = match (from_database, from_file) {
        (Some((key, created_at_ms)), other) => {
            let same = other.is_some_and(|(other, _)| other.id() == key.id());
            Some(Identity { key, created_at_ms, in_file: same })
        }
        (None, Some((key, created_at_ms))) => Some(Identity { key, created_at_ms, in_file: true }),
        (None, None) => None,
    };
    state.approvals = approvals.filter(|approvals| usable(&approvals.text, &mut state.warnings));
    for device in stored {
        state.devices.extend(device.convert(&mut state.warnings));
    }
    state.devices.sort_by(|a, b| (a.approved_at_ms, &a.id).cmp(&(b.approved_at_ms, &b.id)));
    let port = config.as_ref().and_then(|config| config.pointer("/gateway/port")?.as_u64()).unwrap_or(DEFAULT_PORT);
    place_client_tokens(&mut state, client_tokens, port);

    if state.config.is_none() && state.found.is_empty() {
        return Err(MigrateError::NothingFound(dir.to_owned()));
    }
    if state.in_place && state.identity.as_ref().is_some_and(|identity| !identity.in_file) {
        state.warnings.push(
            "this is the state directory of a 2026.9 release: once identity/device.json is written here, that release \
             asks for `openclaw doctor --fix` before it starts again"
                .into(),
        );
    }
    note_the_rest(dir, &mut state)?;
    Ok(state)
}

/// Whether a document of approvals can be used here, and what its owner should know of it.
fn usable(text: &[u8], warnings: &mut Vec<String>) -> bool {
    let file = match exec_approvals::read(text) {
        Ok(file) => file,
        Err(reason) => {
            warnings.push(format!("its exec approvals are not imported: {reason}"));
            return false;
        }
    };
    if file.defaults.as_ref().and_then(|defaults| defaults.policy.security).is_none() {
        warnings.push(
            "its exec approvals name no default security: 2026.9 then ran everything unasked; here what is listed runs, and \
             the rest asks"
                .into(),
        );
    }
    true
}

/// Reads the config and the files it includes; gives its content for what else depends on it.
fn read_config(dir: &Path, state: &mut SourceState) -> Result<Option<Value>, MigrateError> {
    let file = dir.join("openclaw.json");
    let Some(bytes) = json::read(&file)? else { return Ok(None) };
    let parsed = parse(&bytes);
    if parsed.is_none() {
        state.warnings.push("openclaw.json does not parse as JSON5; it is copied as it is".into());
    }
    if let Some(config) = &parsed {
        let mut seen = BTreeSet::new();
        collect_includes(dir, Path::new(""), config, state, &mut seen)?;
    }
    state.config = Some(bytes);
    Ok(parsed)
}

fn parse(bytes: &[u8]) -> Option<Value> {
    let value = write::parse_set_value(std::str::from_utf8(bytes).ok()?, false).ok()?;
    value.is_object().then_some(value)
}

/// Takes along included files that lie inside the source directory, as deep as they include each other. `base` is the
/// including file's directory relative to `dir`.
fn collect_includes(
    dir: &Path,
    base: &Path,
    value: &Value,
    state: &mut SourceState,
    seen: &mut BTreeSet<PathBuf>,
) -> Result<(), MigrateError> {
    match value {
        Value::Array(list) => list.iter().try_for_each(|value| collect_includes(dir, base, value, state, seen)),
        Value::Object(map) => {
            for (key, value) in map {
                if key != "$include" {
                    collect_includes(dir, base, value, state, seen)?;
                    continue;
                }
                let names = match value {
                    Value::String(name) => vec![name.as_str()],
                    Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
                    _ => Vec::new(),
                };
                for name in names {
                    include(dir, base, name, state, seen)?;
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn include(
    dir: &Path,
    base: &Path,
    name: &str,
    state: &mut SourceState,
    seen: &mut BTreeSet<PathBuf>,
) -> Result<(), MigrateError> {
    let Some(relative) = inside(&base.join(name)) else {
        let warning = format!("the config includes {name:?}, which lies outside its directory; it is not copied");
        state.warnings.push(warning);
        return Ok(());
    };
    if !seen.insert(relative.clone()) {
        return Ok(());
    }
    let Some(bytes) = json::read(&dir.join(&relative))? else {
        state.warnings.push(format!("the config includes {name:?}, which does not exist"));
        return Ok(());
    };
    let parsed = parse(&bytes);
    state.includes.push((relative.clone(), bytes));
    let base = relative.parent().unwrap_or(Path::new("")).to_owned();
    parsed.map_or(Ok(()), |value| collect_includes(dir, &base, &value, state, seen))
}

/// A relative path without `..` that climbs out; `None` otherwise.
fn inside(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            Component::ParentDir => {
                if !clean.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(clean)
}

/// A token is imported only for the gateway it was issued by. A source that does not say which that was still proves it
/// when the token is one of its own gateway's.
fn place_client_tokens(state: &mut SourceState, stored: Vec<StoredClientToken>, port: u64) {
    let Some(identity) = &state.identity else { return };
    let id = identity.key.id();
    let own = state.devices.iter().find(|device| device.id == id).cloned();
    for token in stored {
        let Some(role) = Role::parse(&token.role) else { continue };
        if token.device_id != id.as_str() || token.token.is_empty() {
            continue;
        }
        let issued_here =
            own.as_ref().and_then(|own| own.tokens.get(&role)).is_some_and(|own| own.secret == token.token);
        let origin = match &token.origin {
            Some(origin) => origin_of(origin),
            None if issued_here => Some(format!("ws://127.0.0.1:{port}")),
            None => None,
        };
        match origin {
            Some(origin) => state.client_tokens.push(ClientToken {
                origin,
                role,
                token: token.token,
                scopes: token.scopes,
                updated_at_ms: token.updated_at_ms,
            }),
            None => state.warnings.push(format!(
                "a {role} token of this machine does not say which gateway it is for and was left out; the gateway gives \
                 a new one at the next connect"
            )),
        }
    }
}

/// `scheme://host:port` of a gateway URL; nothing else is an origin.
fn origin_of(text: &str) -> Option<String> {
    let (scheme, rest) = text.trim().split_once("://")?;
    let default = match scheme {
        "ws" => 80,
        "wss" => 443,
        _ => return None,
    };
    let host = rest.split(['/', '?', '#']).next().filter(|host| !host.is_empty() && !host.contains('@'))?;
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let host = host.to_ascii_lowercase();
    Some(if has_port { format!("{scheme}://{host}") } else { format!("{scheme}://{host}:{default}") })
}

fn note_the_rest(dir: &Path, state: &mut SourceState) -> Result<(), MigrateError> {
    let told = |source| MigrateError::Read { path: dir.to_owned(), source };
    for entry in fs::read_dir(dir).map_err(told)? {
        let name = entry.map_err(told)?.file_name().to_string_lossy().into_owned();
        let taken = KNOWN_ENTRIES.contains(&name.as_str())
            || name.contains(".bak")
            || state.includes.iter().any(|(path, _)| path.starts_with(&name));
        if !taken && !state.in_place {
            state.left_alone.push(name);
        }
    }
    state.left_alone.sort();
    Ok(())
}

/// For comparing without holding: SHA-256 in hex.
pub(super) fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}
