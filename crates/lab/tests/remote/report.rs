//! How long things took, for people: nothing is judged by it. One line each in `target/tmp/remote-times.txt` (or where
//! `OPENCLAW_TEST_TIMES` says), and on stderr.

use std::{fs::OpenOptions, io::Write as _, path::Path, time::Duration};

/// Notes how long `what` took.
pub fn note(what: &str, took: Duration) {
    let line = format!("{:>9.1} ms  {what}\n", took.as_secs_f64() * 1e3);
    eprint!("{line}");
    let file = std::env::var_os("OPENCLAW_TEST_TIMES")
        .map_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("remote-times.txt"), Into::into);
    let written =
        OpenOptions::new().create(true).append(true).open(&file).and_then(|mut f| f.write_all(line.as_bytes()));
    written.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
}
