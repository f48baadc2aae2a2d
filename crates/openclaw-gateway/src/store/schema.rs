//! Opening the database file and bringing its schema up to date.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use openclaw_config::files;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::{StoreError, bootstrap, channels, devices, nodes, prompts, runs, sessions};

/// "OCgw" in the file header, so that `file(1)` and we can tell this database from any other.
const APPLICATION_ID: i32 = 0x4f43_6777;
/// 1 MiB of page cache; everything hot lives in memory anyway.
const CACHE_KIB: i64 = 1024;
/// The write-ahead log is folded back after 256 pages, 1 MiB.
const CHECKPOINT_PAGES: i64 = 256;
/// Files up to this size are checked whole at start: 8 MiB takes a few milliseconds.
const QUICK_CHECK_BYTES: u64 = 8 << 20;
/// Another process may hold the file for a moment (a backup, `sqlite3`).
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// One step of the schema.
pub(super) struct Migration {
    /// The room whose tables it touches, for the log.
    pub room: &'static str,
    pub sql: &'static str,
}

/// All steps in the order they came to be. `PRAGMA user_version` is the number of steps applied, so steps are only ever
/// appended; each room keeps its SQL in its own file.
const MIGRATIONS: &[Migration] = &[
    Migration { room: "devices", sql: devices::SCHEMA_1 },
    Migration { room: "nodes", sql: nodes::SCHEMA_1 },
    Migration { room: "devices", sql: bootstrap::SCHEMA_1 },
    Migration { room: "devices", sql: bootstrap::SCHEMA_2 },
    Migration { room: "sessions", sql: sessions::SCHEMA_1 },
    Migration { room: "runs", sql: runs::SCHEMA_1 },
    Migration { room: "channels", sql: channels::SCHEMA_1 },
    Migration { room: "channels", sql: prompts::SCHEMA_1 },
    Migration { room: "devices", sql: devices::SCHEMA_2 },
];

/// Opens or creates the database: 0600 in a 0700 directory, WAL, schema current.
pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    if let Some(parent) = path.parent() {
        files::create_private_dir(parent)?;
    }
    prepare_file(path)?;
    let size = fs::metadata(path).map(|meta| meta.len()).unwrap_or_default();
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let told = |error| explain(path, error);
    let mut connection = Connection::open_with_flags(path, flags).map_err(told)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(told)?;
    check_identity(&connection, path)?;
    configure(&connection).map_err(told)?;
    if size <= QUICK_CHECK_BYTES {
        let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(told)?;
        if verdict != "ok" {
            return Err(StoreError::Damaged { path: path.to_owned(), detail: verdict });
        }
    }
    migrate(&mut connection, path)?;
    Ok(connection)
}

/// Makes sure the file and its companions are regular, ours and 0600 before SQLite sees them. SQLite gives `-wal` and
/// `-shm` the mode of the database.
fn prepare_file(path: &Path) -> Result<(), StoreError> {
    let io = |source| StoreError::Io { path: path.to_owned(), source: Arc::new(source) };
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => return file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(io),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(io(error)),
    }
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        let file = PathBuf::from(name);
        match fs::symlink_metadata(&file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(source) => return Err(StoreError::Io { path: file, source: Arc::new(source) }),
            Ok(meta) if meta.is_symlink() => return Err(files::FileError::Symlink { path: file }.into()),
            Ok(meta) if !meta.is_file() => {
                return Err(files::FileError::WrongKind { path: file, expected: "file" }.into());
            }
            Ok(_) => {}
        }
        files::check_ownership(&file)?;
        files::tighten(&file)?;
    }
    Ok(())
}

/// Refuses databases that are not ours or from a later version, before anything is written to them.
fn check_identity(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let told = |error| explain(path, error);
    let id: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(told)?;
    let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(told)?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(told)?;
    let fresh = id == 0 && version == 0 && tables == 0;
    if id != APPLICATION_ID && !fresh {
        return Err(StoreError::NotOurs { path: path.to_owned() });
    }
    let known = MIGRATIONS.len() as u32;
    if version > known {
        return Err(StoreError::Newer { path: path.to_owned(), found: version, known });
    }
    Ok(())
}

/// The tables, in an empty database.
#[cfg(test)]
pub(super) fn create(connection: &Connection) {
    connection.pragma_update(None, "foreign_keys", true).expect("takes it");
    MIGRATIONS.iter().for_each(|step| connection.execute_batch(step.sql).expect("good SQL"));
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // FULL: the log is flushed at every commit, so what was acknowledged survives a power cut.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // Replaced and revoked tokens are overwritten, not just unlinked.
    connection.pragma_update(None, "secure_delete", true)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let told = |error| explain(path, error);
    let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(told)?;
    if version as usize >= MIGRATIONS.len() {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(told)?;
    for (number, step) in MIGRATIONS.iter().enumerate().skip(version as usize) {
        tracing::debug!(step = number + 1, room = step.room, "updating the state database");
        transaction.execute_batch(step.sql).map_err(told)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(told)?;
    transaction.pragma_update(None, "user_version", MIGRATIONS.len() as u32).map_err(told)?;
    transaction.commit().map_err(told)
}

/// SQLite's error in terms of what the owner can do.
pub(super) fn explain(path: &Path, error: rusqlite::Error) -> StoreError {
    use rusqlite::ErrorCode;
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            StoreError::Damaged { path: path.to_owned(), detail: error.to_string() }
        }
        _ => StoreError::Sqlite { path: path.to_owned(), source: Arc::new(error) },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("exists").mode() & 0o777
    }

    #[test]
    fn a_fresh_database_is_private_and_current() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("state").join("db.sqlite");
        let connection = open(&path).expect("opens");
        connection.execute("DELETE FROM devices", []).expect("has the tables");
        assert_eq!((mode(&path), mode(path.parent().expect("parent"))), (0o600, 0o700));
        let pragma = |name: &str| -> String {
            connection.pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0)).map_or_else(
                |e| e.to_string(),
                |value| match value {
                    rusqlite::types::Value::Integer(number) => number.to_string(),
                    rusqlite::types::Value::Text(text) => text,
                    other => format!("{other:?}"),
                },
            )
        };
        assert_eq!(pragma("journal_mode"), "wal");
        assert_eq!(pragma("synchronous"), "2");
        assert_eq!(pragma("cache_size"), "-1024");
        assert_eq!(pragma("user_version"), MIGRATIONS.len().to_string());
    }

    #[test]
    fn p_76_a_loose_database_is_tightened_with_its_companions() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("db.sqlite");
        let first = open(&path).expect("opens");
        first.execute("CREATE TABLE t (x)", []).expect("writes");
        let companions = ["", "-wal", "-shm"].map(|suffix| dir.path().join(format!("db.sqlite{suffix}")));
        for file in &companions {
            assert_eq!(mode(file), 0o600, "{}", file.display());
            fs::set_permissions(file, fs::Permissions::from_mode(0o644)).expect("loosens");
        }
        let _second = open(&path).expect("opens again");
        for file in &companions {
            assert_eq!(mode(file), 0o600, "{}", file.display());
        }
    }

    #[test]
    fn p_77_a_linked_database_is_refused() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (real, link) = (dir.path().join("real.sqlite"), dir.path().join("link.sqlite"));
        drop(open(&real).expect("opens"));
        std::os::unix::fs::symlink(&real, &link).expect("links");
        let error = open(&link).expect_err("refused");
        assert!(error.to_string().contains("symbolic link"), "{error}");
    }

    #[test]
    fn a_later_schema_is_refused_untouched() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("db.sqlite");
        let connection = open(&path).expect("opens");
        connection.pragma_update(None, "user_version", 99).expect("sets");
        drop(connection);
        let before = fs::read(&path).expect("reads");
        let error = open(&path).expect_err("refused");
        assert!(matches!(error, StoreError::Newer { found: 99, .. }), "{error}");
        assert!(error.to_string().contains("newer openclaw"), "{error}");
        assert_eq!(fs::read(&path).expect("reads"), before);
    }

    #[test]
    fn damage_is_told_and_nothing_is_deleted() {
        let dir = tempfile::tempdir().expect("temp dir");
        type Damage = fn(&Path);
        let cases: [(&str, Damage); 3] = [
            ("garbage", |path| fs::write(path, b"this is not a database at all, however long it may be").expect("w")),
            ("cut", |path| {
                drop(open(path).expect("opens"));
                let length = fs::metadata(path).expect("exists").len();
                OpenOptions::new().write(true).open(path).expect("opens").set_len(length - 4096).expect("cuts");
            }),
            ("scrambled", |path| {
                drop(open(path).expect("opens"));
                let mut bytes = fs::read(path).expect("reads");
                let end = bytes.len();
                bytes[4096..end].fill(0xa5);
                fs::write(path, bytes).expect("writes");
            }),
        ];
        for (name, damage) in cases {
            let path = dir.path().join(format!("{name}.sqlite"));
            damage(&path);
            let before = fs::read(&path).expect("reads");
            let error = open(&path).expect_err(name);
            assert!(matches!(error, StoreError::Damaged { .. }), "{name}: {error}");
            assert!(error.to_string().contains("mv "), "{name}: {error}");
            assert_eq!(fs::read(&path).expect("still there"), before, "{name}");
        }
    }

    #[test]
    fn somebody_elses_database_is_refused() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("other.sqlite");
        Connection::open(&path).expect("opens").execute_batch("CREATE TABLE notes (text)").expect("writes");
        assert!(matches!(open(&path), Err(StoreError::NotOurs { .. })));
    }
}
