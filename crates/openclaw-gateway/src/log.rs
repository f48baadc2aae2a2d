//! The daily log file: JSON lines, 0600, one file per instance and day, the same content `logs.tail` serves.
//!
//! The shape of a line is what the reference's log readers expect (`_meta`, `time`, `message`). Texts that come from peers
//! are cut and escaped here, in one place, so that no log call has to remember it.

use std::{
    fmt::{self, Write as _},
    fs::{self, File, OpenOptions},
    io::{self, IsTerminal as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Mutex,
};

use jiff::{Timestamp, Zoned};
use openclaw_config::paths::Paths;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// Longest message, fields included: 4 KiB.
const MAX_MESSAGE_CHARS: usize = 4096;
/// Longest single field: 300 characters. A peer chose many of them.
const MAX_FIELD_CHARS: usize = 300;
/// A file above this size is set aside as `<name>.1`: 64 MiB.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// The log file of a given day: `logging.file` if set, else `/tmp/openclaw/openclaw-YYYY-MM-DD.log`, with the profile's name
/// or, for a state directory of its own, eight digits of its hash: two instances never share a file.
pub fn file_for(paths: &Paths, configured: Option<&str>, now: &Zoned) -> PathBuf {
    if let Some(file) = configured {
        return paths.expand(file);
    }
    let usual = paths.profile.name().map_or(".openclaw".to_owned(), |name| format!(".openclaw-{name}"));
    let is_usual = paths.home.as_deref().is_some_and(|home| home.join(usual) == paths.state_dir);
    let stem = if is_usual {
        paths.log_file_stem()
    } else {
        let digest = Sha256::digest(paths.state_dir.as_os_str().as_encoded_bytes());
        format!("{}-{}", paths.log_file_stem(), openclaw_protocol::secret::hex(&digest[..4]))
    };
    directory().join(format!("{stem}-{}.log", now.strftime("%Y-%m-%d")))
}

/// `/tmp/openclaw`, or `/tmp/openclaw-<uid>` when somebody else owns that.
fn directory() -> PathBuf {
    let shared = PathBuf::from("/tmp/openclaw");
    let uid = rustix::process::geteuid().as_raw();
    match fs::symlink_metadata(&shared) {
        Ok(meta) if meta.uid() != uid || !meta.is_dir() => PathBuf::from(format!("/tmp/openclaw-{uid}")),
        _ => shared,
    }
}

/// Where a line goes.
#[derive(Debug)]
struct Sink {
    paths: Paths,
    configured: Option<String>,
    open: Option<(PathBuf, File)>,
}

impl Sink {
    fn write(&mut self, line: &str) -> io::Result<()> {
        let wanted = file_for(&self.paths, self.configured.as_deref(), &Zoned::now());
        let full = self.open.as_ref().is_some_and(|(_, file)| file.metadata().is_ok_and(|m| m.len() > MAX_FILE_BYTES));
        if full && let Some((path, _)) = self.open.take() {
            fs::rename(&path, path.with_extension("log.1"))?;
        }
        if self.open.as_ref().is_none_or(|(path, _)| *path != wanted) {
            self.open = Some((wanted.clone(), open(&wanted)?));
        }
        match &mut self.open {
            Some((_, file)) => file.write_all(line.as_bytes()),
            None => Ok(()),
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(dir) = path.parent().filter(|dir| !dir.exists()) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    }
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
        .open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

/// How the gateway logs.
#[derive(Clone, Debug)]
pub struct LogOptions {
    pub paths: Paths,
    /// `logging.file`
    pub file: Option<String>,
    /// Level of the file.
    pub level: Level,
    /// Level on stderr; `None` for silence.
    pub console: Option<Level>,
}

/// Installs the log for the whole process. Only the gateway does this; other commands print what they have to say.
pub fn install(options: LogOptions) {
    let verbosest = options.console.map_or(options.level, |console| console.max(options.level));
    let layer = LogLayer {
        level: options.level,
        console: options.console,
        verbosest,
        colour: io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        hostname: crate::host::facts().hostname,
        sink: Mutex::new(Sink { paths: options.paths, configured: options.file, open: None }),
    };
    // A second installation can only happen in tests; the first one stays.
    let _ = tracing_subscriber::registry().with(layer).try_init();
}

struct LogLayer {
    level: Level,
    console: Option<Level>,
    verbosest: Level,
    colour: bool,
    hostname: String,
    sink: Mutex<Sink>,
}

impl<S: Subscriber> Layer<S> for LogLayer {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        // Libraries speak only when something is wrong.
        let ours = metadata.target().starts_with("openclaw");
        *metadata.level() <= if ours { self.verbosest } else { Level::WARN }
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(self.verbosest.into())
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        let message = text.finish();
        let (level, subsystem, now) =
            (*event.metadata().level(), subsystem(event.metadata().target()), Timestamp::now());
        if level <= self.level
            && let Ok(mut sink) = self.sink.lock()
        {
            // A full disk must not stop the gateway; stderr below still tells.
            let _ = sink.write(&json_line(now, level, &subsystem, &message, &self.hostname));
        }
        if self.console.is_some_and(|console| level <= console) {
            let _ = writeln!(io::stderr().lock(), "{}", console_line(now, level, &subsystem, &message, self.colour));
        }
    }
}

fn json_line(now: Timestamp, level: Level, subsystem: &str, message: &str, hostname: &str) -> String {
    let name = json!({"subsystem": subsystem}).to_string();
    let (id, word) = match level {
        Level::ERROR => (5, "ERROR"),
        Level::WARN => (4, "WARN"),
        Level::INFO => (3, "INFO"),
        Level::DEBUG => (2, "DEBUG"),
        Level::TRACE => (1, "TRACE"),
    };
    let time = format!("{now:.3}");
    let mut line = json!({
        "0": name, "1": message,
        "_meta": {"runtime": "rust", "hostname": hostname, "date": time, "logLevelId": id, "logLevelName": word,
                  "name": name, "parentNames": ["openclaw"]},
        "time": time, "hostname": hostname, "message": message,
    })
    .to_string();
    line.push('\n');
    line
}

fn console_line(now: Timestamp, level: Level, subsystem: &str, message: &str, colour: bool) -> String {
    let mark = match (level, colour) {
        (Level::ERROR, true) => "\x1b[31merror\x1b[0m ",
        (Level::WARN, true) => "\x1b[33mwarning\x1b[0m ",
        (Level::ERROR, false) => "error ",
        (Level::WARN, false) => "warning ",
        _ => "",
    };
    format!("{now:.3} [{subsystem}] {mark}{message}")
}

/// `openclaw_gateway::connection::requests` is `gateway/connection`.
fn subsystem(target: &str) -> String {
    let mut parts = target.split("::");
    let room = parts.next().unwrap_or(target);
    let room = room.strip_prefix("openclaw_").unwrap_or(room);
    parts.next().map_or_else(|| room.to_owned(), |part| format!("{room}/{part}"))
}

/// Collects message and fields as one escaped line.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn finish(mut self) -> String {
        self.message.push_str(&self.fields);
        if self.message.chars().nth(MAX_MESSAGE_CHARS).is_some() {
            self.message = self.message.chars().take(MAX_MESSAGE_CHARS).chain("…".chars()).collect();
        }
        self.message
    }
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message = escaped(value, MAX_MESSAGE_CHARS);
        } else {
            let _ = write!(self.fields, " {}={}", field.name(), escaped(value, MAX_FIELD_CHARS));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

/// Cuts a text and makes control, formatting and direction-changing characters visible.
pub fn escaped(text: &str, max_chars: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max_chars));
    for (count, c) in text.chars().enumerate() {
        if count == max_chars {
            out.push('…');
            break;
        }
        let invisible = c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
        if invisible {
            let _ = write!(out, "{}", c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_78_one_escaped_truncated_line() {
        let evil = format!("a\r\nb\x1b[31m\u{202e}{}", "x".repeat(70_000));
        let line = json_line(Timestamp::UNIX_EPOCH, Level::INFO, "gateway", &escaped(&evil, 300), "host");
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.len() < 2_000);
        let parsed: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        let message = parsed["message"].as_str().expect("text");
        assert!(message.starts_with("a\\u{d}\\u{a}b\\u{1b}[31m\\u{202e}x"), "{message}");
        assert_eq!(parsed["_meta"]["logLevelName"], "INFO");
        assert_eq!(parsed["time"], "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn subsystems() {
        assert_eq!(subsystem("openclaw_gateway::connection::requests"), "gateway/connection");
        assert_eq!(subsystem("hyper"), "hyper");
    }

    #[test]
    fn p_76_log_files_are_private() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("deep").join("a.log");
        open(&path).expect("opens");
        let mode = |path: &Path| fs::metadata(path).expect("metadata").permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().expect("parent"))), (0o600, 0o700));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("loosen");
        open(&path).expect("opens");
        assert_eq!(mode(&path), 0o600);
        std::os::unix::fs::symlink(&path, dir.path().join("link.log")).expect("link");
        assert!(open(&dir.path().join("link.log")).is_err(), "links are not followed");
    }
}
