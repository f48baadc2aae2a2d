//! The database of 2026.9, `state/openclaw.sqlite`.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use openclaw_config::files;
use openclaw_protocol::{DeviceKey, ScopeSet, Secret, secret::hex};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row};

use super::{
    MigrateError, json,
    records::{StoredClientToken, StoredDevice},
};

/// The schema of release 2026.9.6; later ones are read as far as their columns still have these names.
const KNOWN_SCHEMA: i64 = 18;
/// Tries to copy a database that is being written.
const ATTEMPTS: usize = 3;

/// What the database holds of interest.
#[derive(Debug, Default)]
pub(super) struct Database {
    pub schema: i64,
    pub app_version: Option<String>,
    pub identity: Option<(DeviceKey, i64)>,
    pub client_tokens: Vec<StoredClientToken>,
    /// `None` when there is no such table.
    pub devices: Option<Vec<StoredDevice>>,
    /// The document of what may run, as JSON.
    pub approvals: Option<String>,
    pub warnings: Vec<String>,
}

/// Reads the database through a private copy below `scratch`, which is gone again when this returns.
pub(super) fn read(path: &Path, scratch: &Path) -> Result<Option<Database>, MigrateError> {
    if !path.exists() {
        return Ok(None);
    }
    let copy = PrivateCopy::make(path, scratch)?;
    let unreadable =
        |error: rusqlite::Error| MigrateError::Unreadable { path: path.to_owned(), reason: error.to_string() };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&copy.file, flags).map_err(unreadable)?;
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(unreadable)?;
    if verdict != "ok" {
        return Err(MigrateError::Unreadable { path: path.to_owned(), reason: format!("it is damaged ({verdict})") });
    }
    extract(&connection, path).map(Some)
}

fn extract(connection: &Connection, path: &Path) -> Result<Database, MigrateError> {
    let unreadable =
        |error: rusqlite::Error| MigrateError::Unreadable { path: path.to_owned(), reason: error.to_string() };
    let mut found = Database {
        schema: connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(unreadable)?,
        ..Database::default()
    };
    if found.schema > KNOWN_SCHEMA {
        found.warnings.push(format!(
            "the database has schema {}, later than {KNOWN_SCHEMA} of release 2026.9.6; what has kept its name is read",
            found.schema
        ));
    }
    if has_table(connection, "schema_meta").map_err(unreadable)? {
        let version = "SELECT app_version FROM schema_meta WHERE meta_key = 'primary'";
        found.app_version = connection
            .query_row(version, [], |row| row.get::<_, Option<String>>(0))
            .optional()
            .map_err(unreadable)?
            .flatten();
    }
    if has_table(connection, "device_identities").map_err(unreadable)? {
        let query = "SELECT device_id, private_key_pem, created_at_ms FROM device_identities \
                     WHERE identity_key = 'primary'";
        let row = connection
            .query_row(query, [], |row| {
                Ok((row.get::<_, String>(0)?, Secret::new(row.get::<_, String>(1)?), row.get::<_, i64>(2)?))
            })
            .optional()
            .map_err(unreadable)?;
        if let Some((device_id, pem, created_at_ms)) = row {
            found.identity = Some((json::key_from_pem(path, &device_id, pem)?, created_at_ms));
        }
    }
    for (table, scope) in [("device_auth_tokens", "NULL"), ("gateway_origin_device_tokens", "gateway_scope")] {
        if has_table(connection, table).map_err(unreadable)? {
            let query = format!("SELECT {scope}, device_id, role, token, scopes_json, updated_at_ms FROM {table}");
            let mut statement = connection.prepare(&query).map_err(unreadable)?;
            let rows = statement.query_map([], client_token).map_err(unreadable)?;
            found.client_tokens.extend(rows.collect::<rusqlite::Result<Vec<_>>>().map_err(unreadable)?);
        }
    }
    if has_table(connection, "device_pairing_paired").map_err(unreadable)? {
        let mut statement = connection.prepare("SELECT * FROM device_pairing_paired").map_err(unreadable)?;
        let rows = statement.query_map([], |row| device(row, &mut found.warnings)).map_err(unreadable)?;
        found.devices = Some(rows.collect::<rusqlite::Result<Vec<_>>>().map_err(unreadable)?);
    }
    if has_table(connection, "exec_approvals_config").map_err(unreadable)? {
        let query = "SELECT raw_json FROM exec_approvals_config ORDER BY updated_at_ms DESC LIMIT 1";
        found.approvals = connection.query_row(query, [], |row| row.get(0)).optional().map_err(unreadable)?;
    }
    if has_table(connection, "secret_store_entries").map_err(unreadable)? {
        let query = "SELECT count(*) FROM secret_store_entries WHERE deleted_at_ms IS NULL";
        let count: i64 = connection.query_row(query, [], |row| row.get(0)).map_err(unreadable)?;
        if count > 0 {
            found.warnings.push(format!(
                "{count} entries of the secret store are not imported; set them again where the config refers to them"
            ));
        }
    }
    Ok(found)
}

fn client_token(row: &Row<'_>) -> rusqlite::Result<StoredClientToken> {
    Ok(StoredClientToken {
        origin: row.get(0)?,
        device_id: row.get(1)?,
        role: row.get(2)?,
        token: Secret::new(row.get::<_, String>(3)?),
        scopes: ScopeSet::parse(&list(&row.get::<_, String>(4)?).unwrap_or_default()),
        updated_at_ms: row.get(5)?,
    })
}

fn device(row: &Row<'_>, warnings: &mut Vec<String>) -> rusqlite::Result<StoredDevice> {
    // Columns that earlier schemas lack count as empty.
    let text = |column: &str| row.get::<_, Option<String>>(column).ok().flatten();
    let time = |column: &str| row.get::<_, Option<i64>>(column).ok().flatten();
    let device_id: String = row.get("device_id")?;
    let tokens = match text("tokens_json").map(|json| serde_json::from_str(&json)) {
        None => Default::default(),
        Some(Ok(tokens)) => tokens,
        Some(Err(_)) => {
            let short: String = device_id.chars().take(8).collect();
            warnings.push(format!("device {short}: its tokens cannot be read; it gets new ones when it connects"));
            Default::default()
        }
    };
    Ok(StoredDevice {
        public_key: row.get("public_key")?,
        display_name: text("display_name"),
        operator_label: text("operator_label"),
        platform: text("platform"),
        device_family: text("device_family"),
        client_id: text("client_id"),
        client_mode: text("client_mode"),
        browser_origin: text("browser_origin"),
        role: text("role"),
        roles: text("roles_json").as_deref().and_then(list),
        scopes: text("scopes_json").as_deref().and_then(list),
        approved_scopes: text("approved_scopes_json").as_deref().and_then(list),
        approved_via: text("approved_via"),
        tokens,
        created_at_ms: row.get("created_at_ms")?,
        approved_at_ms: row.get("approved_at_ms")?,
        last_seen_at_ms: time("last_seen_at_ms"),
        last_seen_reason: text("last_seen_reason"),
        device_id,
    })
}

fn list(json: &str) -> Option<Vec<String>> {
    serde_json::from_str(json).ok()
}

fn has_table(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    let query = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1";
    connection.query_row(query, [name], |row| row.get::<_, i64>(0)).map(|count| count > 0)
}

/// The database and its log in a 0700 directory of their own, removed on drop: the copy holds keys.
struct PrivateCopy {
    dir: PathBuf,
    file: PathBuf,
}

impl PrivateCopy {
    fn make(path: &Path, scratch: &Path) -> Result<Self, MigrateError> {
        let mut tag = [0; 8];
        let no_random = |error| MigrateError::Read { path: path.to_owned(), source: std::io::Error::other(error) };
        getrandom::fill(&mut tag).map_err(no_random)?;
        let dir = scratch.join(format!("openclaw-migrate-{}", hex(&tag)));
        let copy = Self { file: dir.join("copy.sqlite"), dir };
        files::create_private_dir(&copy.dir)?;
        for _ in 0..ATTEMPTS {
            if copy.take(path)? {
                return Ok(copy);
            }
        }
        Err(MigrateError::InUse(path.to_owned()))
    }

    /// Copies the database and its log; false when either changed meanwhile.
    fn take(&self, path: &Path) -> Result<bool, MigrateError> {
        let log = with_suffix(path, "-wal");
        let before = (stamp(path), stamp(&log));
        for (from, to) in [(path, self.file.clone()), (log.as_path(), with_suffix(&self.file, "-wal"))] {
            match json::read_to_file(from, &to) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && from != path => {
                    // No log: an earlier attempt may have left one.
                    let _ = fs::remove_file(&to);
                }
                Err(source) => return Err(MigrateError::Read { path: from.to_owned(), source }),
            }
        }
        let _ = fs::remove_file(with_suffix(&self.file, "-shm"));
        Ok(before == (stamp(path), stamp(&log)))
    }
}

impl Drop for PrivateCopy {
    fn drop(&mut self) {
        // Nothing better can be done about a failure here than what the system does with its temporary directory.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn stamp(path: &Path) -> Option<(u64, SystemTime)> {
    let meta = fs::metadata(path).ok()?;
    Some((meta.len(), meta.modified().ok()?))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
