//! `read`: a file's text, by lines, or an image.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read as _, Seek as _},
};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Kind, Root, arguments, object, root::PathError};
use crate::{
    message::Part,
    tool::{Answer, Effects},
};

/// Lines given at once, and bytes (the reference's limits).
const LINES: u64 = 2_000;
const BYTES: usize = 50 << 10;
/// How far into a file is looked for the first line: 256 MiB.
const SCAN_BYTES: u64 = 256 << 20;
/// Bytes looked at to tell text from other things.
const SNIFF: usize = 8 << 10;
const IMAGE_BYTES: u64 = 5 << 20;

pub(super) const TOOL: Kind = Kind {
    name: "read",
    description: "Reads a text file or an image of the workspace. Long files come in pieces: at most 2000 lines or 50 KiB at \
                  once; give offset (and limit) to go on.",
    parameters: || {
        object(
            json!({
                "path": {"type": "string", "description": "Relative to the workspace."},
                "offset": {"type": "integer", "description": "First line, counted from 1."},
                "limit": {"type": "integer", "description": "Number of lines."},
            }),
            &["path"],
        )
    },
    effects: Effects::None,
    untrusted: true,
    run,
};

#[derive(Deserialize)]
struct Arguments {
    path: String,
    offset: Option<u64>,
    limit: Option<u64>,
}

fn run(root: &Root, given: Value) -> Answer {
    let given: Arguments = match arguments(given) {
        Ok(given) => given,
        Err(answer) => return answer,
    };
    read(root, &given).unwrap_or_else(|error| Answer::error(error.to_string()))
}

fn read(root: &Root, given: &Arguments) -> Result<Answer, PathError> {
    let inside = root.inside(&given.path)?;
    let (mut file, stat) = root.open_file(&inside)?;
    let failed = |source| PathError::Io { path: given.path.clone(), source };
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let mut start = Vec::with_capacity(SNIFF);
    (&mut file).take(SNIFF as u64).read_to_end(&mut start).map_err(failed)?;
    if let Some(mime) = image(&start) {
        if size > IMAGE_BYTES {
            return Ok(Answer::error(format!(
                "{:?} is an image of {size} bytes; up to 5 MiB can be shown",
                given.path
            )));
        }
        file.take(IMAGE_BYTES).read_to_end(&mut start).map_err(failed)?;
        let about = format!("{:?} is an image ({mime}, {} bytes):", given.path, start.len());
        let image = Part::Image { mime: mime.to_owned(), data: Bytes::from(start) };
        return Ok(Answer { content: vec![Part::Text(about), image], is_error: false, details: None });
    }
    if start.contains(&0) {
        return Ok(Answer::error(format!("{:?} is not text ({size} bytes)", given.path)));
    }
    file.rewind().map_err(failed)?;
    lines(file, given).map_err(failed)
}

/// The media type of what providers take as images.
fn image(start: &[u8]) -> Option<&'static str> {
    match start {
        [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => None,
    }
}

fn lines(file: File, given: &Arguments) -> io::Result<Answer> {
    let first = given.offset.unwrap_or(1).max(1);
    let wanted = given.limit.unwrap_or(LINES).clamp(1, LINES);
    let mut reader = BufReader::with_capacity(64 << 10, file.take(SCAN_BYTES));
    let mut number = 1;
    while number < first {
        if skip_line(&mut reader)? == 0 {
            let text = if reader.get_ref().limit() == 0 {
                format!("Line {first} lies more than 256 MiB into {:?}; that far is not looked.", given.path)
            } else {
                format!("{:?} has {} lines; there is no line {first}.", given.path, number - 1)
            };
            return Ok(Answer::error(text));
        }
        number += 1;
    }
    let mut text = Vec::new();
    let mut note = None;
    while number < first + wanted {
        let room = BYTES - text.len();
        let length = (&mut reader).take(room as u64).read_until(b'\n', &mut text)?;
        if length == 0 {
            break;
        }
        if length == room && text.last() != Some(&b'\n') {
            // The line goes on, or the file ends exactly here.
            if skip_line(&mut reader)? > 0 {
                note = Some(format!("[line {number} is cut here: 50 KiB are given at once]"));
                number += 1;
            }
            break;
        }
        number += 1;
        if text.len() >= BYTES {
            break;
        }
    }
    if text.is_empty() {
        return Ok(match first {
            1 => Answer::text("(the file is empty)"),
            _ => Answer::error(format!("{:?} has {} lines; there is no line {first}.", given.path, first - 1)),
        });
    }
    let mut text = String::from_utf8_lossy(&text).into_owned();
    if let Some(note) = note {
        text.push_str(&format!("\n{note}"));
    }
    if !reader.fill_buf()?.is_empty() {
        text.push_str(&format!("\n[lines {first} to {} were given; go on with offset {number}]", number - 1));
    }
    Ok(Answer::text(text))
}

/// Bytes skipped; memory does not grow with the line.
fn skip_line(reader: &mut impl BufRead) -> io::Result<usize> {
    reader.skip_until(b'\n')
}
