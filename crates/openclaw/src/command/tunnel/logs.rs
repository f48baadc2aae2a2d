//! `openclaw tunnel logs`.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Seek as _, SeekFrom},
    os::unix::fs::MetadataExt as _,
    path::Path,
    thread,
    time::Duration,
};

use serde_json::Value;

use super::{args::LogsArgs, place};
use crate::{
    context::Context,
    failure::{Failure, Outcome},
    output::{self, Style, Tone, inert},
};

/// How often a followed log is looked at.
const POLL: Duration = Duration::from_millis(250);

/// Shows the end of a tunnel's log, and with `--follow` what comes after.
pub fn logs(context: &Context, args: &LogsArgs) -> Outcome {
    let dir = place::existing(context, args.name.as_deref())?;
    let file = dir.log_file();
    let before = file.with_extension("1");
    let mut lines = Vec::new();
    for file in [&before, &file] {
        match read_from(file, 0) {
            Ok((more, _)) => lines.extend(more),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(context, file, &error)),
        }
    }
    if lines.is_empty() && !args.follow {
        output::note("The log is empty.");
        return Ok(0);
    }
    let skip = lines.len().saturating_sub(args.tail);
    lines[skip..].iter().for_each(|line| show(context.output.out, args.json, line));
    if !args.follow {
        return Ok(0);
    }
    let place = |file: &Path| std::fs::metadata(file).map(|meta| (meta.ino(), meta.len())).ok();
    let (mut inode, mut at) = place(&file).unwrap_or_default();
    loop {
        thread::sleep(POLL);
        let Some((now, length)) = place(&file) else { continue };
        if now != inode || length < at {
            (inode, at) = (now, 0);
        }
        if length > at {
            let (more, end) = read_from(&file, at).map_err(|error| unreadable(context, &file, &error))?;
            at = end;
            more.iter().for_each(|line| show(context.output.out, args.json, line));
        }
    }
}

/// Whole lines from `start` on, and where the next one begins.
fn read_from(file: &Path, start: u64) -> io::Result<(Vec<String>, u64)> {
    let mut file = File::open(file)?;
    file.seek(SeekFrom::Start(start))?;
    let (mut reader, mut lines, mut at) = (BufReader::new(file), Vec::new(), start);
    loop {
        let mut line = Vec::new();
        let read = reader.read_until(b'\n', &mut line)?;
        if read == 0 || line.last() != Some(&b'\n') {
            return Ok((lines, at));
        }
        at += read as u64;
        lines.push(String::from_utf8_lossy(&line).trim_end().to_owned());
    }
}

fn show(style: Style, json: bool, line: &str) {
    if json {
        return output::line(line);
    }
    let Ok(Value::Object(entry)) = serde_json::from_str::<Value>(line) else {
        return output::line(inert(line));
    };
    let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
    let tone = match text("event") {
        "up" => Tone::Good,
        "failed" => Tone::Bad,
        "ended" | "waiting" => Tone::Warn,
        _ => Tone::Plain,
    };
    let rest: Vec<String> = entry
        .iter()
        .filter(|(key, value)| !["timeMs", "event", "message"].contains(&key.as_str()) && !value.is_null())
        .map(|(key, value)| format!("{key}={}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
        .collect();
    let time = entry.get("timeMs").and_then(Value::as_i64).and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let time = time.map(|at| at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string());
    let said = match text("message") {
        "" => text("event").to_owned(),
        message => format!("{}: {message}", text("event")),
    };
    output::line(format!(
        "{} {} {}",
        style.paint(Tone::Dim, &time.unwrap_or_default()),
        style.paint(tone, &inert(&said)),
        style.paint(Tone::Dim, &inert(&rest.join(" ")))
    ));
}

fn unreadable(context: &Context, file: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("{} cannot be read: {error}.", inert(&context.paths.display(file))))
}
