//! A tunnel's log: JSON lines in a private file of bounded size.
//!
//! `{"timeMs":…,"event":"up",…}`. Nothing secret comes near it: ssh's words are cleaned, and no credential passes through
//! a supervisor.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Map, Value};

/// The file is moved to `log.1` when it is this large; together they hold at most twice as much.
const MAX_BYTES: u64 = 512 * 1024;

/// The log file, open for appending.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Log {
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600);
        let file = options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed()).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, bytes })
    }

    /// Writes one line. A full disk must not end a tunnel, so a failure is told to the tracing log alone.
    pub fn write(&mut self, event: &str, fields: impl IntoIterator<Item = (&'static str, Value)>) {
        let mut line = Map::new();
        line.insert("timeMs".into(), now_ms().into());
        line.insert("event".into(), event.into());
        line.extend(fields.into_iter().map(|(name, value)| (name.to_owned(), value)));
        let text = format!("{}\n", Value::Object(line));
        tracing::debug!(line = text.trim_end(), "tunnel");
        if let Err(error) = self.append(text.as_bytes()) {
            tracing::warn!(%error, path = %self.path.display(), "the tunnel's log cannot be written");
        }
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if self.bytes + line.len() as u64 > MAX_BYTES {
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            fs::rename(&self.path, old)?;
            *self = Self::open(&self.path)?;
        }
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }
}

/// Milliseconds since the epoch.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_log_is_private_and_bounded() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("log");
        let mut log = Log::open(&path).expect("open");
        let long = "x".repeat(10_000);
        for count in 0..200 {
            log.write("test", [("count", count.into()), ("text", long.clone().into())]);
        }
        let old = dir.path().join("log.1");
        for file in [&path, &old] {
            let meta = fs::metadata(file).expect("file");
            assert!(meta.len() <= MAX_BYTES && meta.permissions().mode() & 0o777 == 0o600, "{meta:?}");
        }
        let text = fs::read_to_string(&path).expect("text");
        let last: Value = serde_json::from_str(text.lines().last().expect("line")).expect("JSON");
        assert_eq!((&last["event"], &last["count"]), (&"test".into(), &199.into()));
        assert_eq!(fs::read_dir(dir.path()).expect("dir").count(), 2);
    }
}
