//! `logs.tail`: the daily file, by byte offset.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::Path,
};

use openclaw_protocol::{
    ErrorShape,
    method::system::{LogsTail, LogsTailParams, LogsTailResult},
};
use tokio::sync::Semaphore;

use super::registry::Registry;

const DEFAULT_LIMIT: usize = 500;
const MAX_LIMIT: usize = 5_000;
const DEFAULT_BYTES: usize = 250_000;
const MAX_BYTES: usize = 1_000_000;

/// Reads under way at once, over all clients. Each holds up to a megabyte and takes a while to turn into JSON; more would
/// let one client that asks for many crowd out the others.
static READS: Semaphore = Semaphore::const_new(2);

pub fn register(registry: &mut Registry) {
    registry.on_async::<LogsTail, _>(|call, params| async move {
        let _turn = READS.acquire().await;
        let file = call.gateway.log_file();
        let read = tokio::task::spawn_blocking(move || tail(&file, params)).await;
        read.map_err(|error| ErrorShape::unavailable(format!("the log could not be read: {error}")))?
    });
}

/// Reads the lines after the cursor, or the last ones without a cursor. Only whole lines are returned, so a line being
/// written is read by the next call.
///
/// # Errors
/// `UNAVAILABLE` naming the file when it cannot be read. A file that does not exist yet is an empty log.
pub fn tail(path: &Path, params: LogsTailParams) -> Result<LogsTailResult, ErrorShape> {
    let limit = params.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT);
    let max_bytes = params.max_bytes.unwrap_or(DEFAULT_BYTES).clamp(1, MAX_BYTES) as u64;
    let shown = path.display().to_string();
    let failed = |error: std::io::Error| ErrorShape::unavailable(format!("cannot read the log file {shown}: {error}"));
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(LogsTailResult {
                file: shown,
                cursor: 0,
                size: 0,
                lines: Vec::new(),
                truncated: false,
                reset: false,
            });
        }
        Err(error) => return Err(failed(error)),
    };
    let size = file.metadata().map_err(failed)?.len();
    let reset = params.cursor.is_some_and(|cursor| cursor > size);
    let cursor = params.cursor.filter(|_| !reset);
    let from = cursor.unwrap_or_else(|| size.saturating_sub(max_bytes)).max(size.saturating_sub(max_bytes));
    let skipped = cursor.map_or(from > 0, |cursor| from > cursor);
    // One byte more tells whether `from` is the start of a line.
    let start = from.saturating_sub(1);
    file.seek(SeekFrom::Start(start)).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(size - start).read_to_end(&mut bytes).map_err(failed)?;
    let begin = if from == 0 {
        0
    } else {
        bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |newline| newline + 1)
    };
    let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(begin, |newline| newline + 1).max(begin);
    let text = String::from_utf8_lossy(&bytes[begin..end]);
    let mut lines: Vec<String> = text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
    let surplus = lines.len().saturating_sub(limit);
    lines.drain(..surplus);
    Ok(LogsTailResult {
        file: shown,
        cursor: start + end as u64,
        size,
        lines,
        truncated: skipped || surplus > 0,
        reset,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn read(path: &Path, cursor: Option<u64>, limit: usize) -> LogsTailResult {
        tail(path, LogsTailParams { cursor, limit: Some(limit), max_bytes: None }).expect("readable")
    }

    #[test]
    fn follows_by_cursor_and_notices_rotation() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("log");
        assert_eq!(read(&path, None, 10).lines, Vec::<String>::new());
        std::fs::write(&path, "one\ntwo\nthr").expect("write");
        let first = read(&path, None, 10);
        assert_eq!(
            (first.lines.as_slice(), first.cursor, first.truncated),
            (["one".to_owned(), "two".into()].as_slice(), 8, false)
        );
        let mut file = File::options().append(true).open(&path).expect("open");
        file.write_all(b"ee\nfour\n").expect("append");
        assert_eq!(read(&path, Some(8), 10).lines, ["three", "four"]);
        let last = read(&path, None, 1);
        assert_eq!((last.lines.as_slice(), last.truncated), (["four".to_owned()].as_slice(), true));
        std::fs::write(&path, "new\n").expect("rotate");
        let after = read(&path, Some(19), 10);
        assert_eq!((after.lines.as_slice(), after.reset), (["new".to_owned()].as_slice(), true));
    }

    #[test]
    fn starts_at_a_whole_line() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("log");
        std::fs::write(&path, "aaaa\nbbbb\ncccc\n").expect("write");
        let got = tail(&path, LogsTailParams { cursor: None, limit: None, max_bytes: Some(7) }).expect("readable");
        assert_eq!((got.lines, got.truncated), (vec!["cccc".to_owned()], true));
        let got = tail(&path, LogsTailParams { cursor: None, limit: None, max_bytes: Some(10) }).expect("readable");
        assert_eq!(got.lines, ["bbbb", "cccc"]);
    }
}
