//! `list`: what is in a directory.

use rustix::fs::{AtFlags, Dir, FileType};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Kind, PathError, Root, arguments, object,
    root::{Inside, name},
};
use crate::tool::{Answer, Effects};

/// Entries given at once.
const ENTRIES: usize = 500;
/// Entries looked at in one directory; a larger one is not sorted out.
const LOOKED_AT: usize = 10_000;
const DEPTH: u32 = 8;

pub(super) const TOOL: Kind = Kind {
    name: "list",
    description: "Lists a directory of the workspace: names, sizes in bytes, directories with a slash at the end.",
    parameters: || {
        object(
            json!({
                "path": {"type": "string", "description": "Relative to the workspace; the workspace itself if left out."},
                "depth": {"type": "integer", "description": "Levels of directories, 1 to 8; 1 if left out."},
            }),
            &[],
        )
    },
    effects: Effects::None,
    untrusted: true,
    run,
};

#[derive(Deserialize)]
struct Arguments {
    path: Option<String>,
    depth: Option<u32>,
}

fn run(root: &Root, given: Value) -> Answer {
    let given: Arguments = match arguments(given) {
        Ok(given) => given,
        Err(answer) => return answer,
    };
    let path = given.path.as_deref().unwrap_or(".");
    let path = if path.is_empty() { "." } else { path };
    let mut lines = Vec::new();
    let listed = root.inside(path).and_then(|inside| {
        let depth = given.depth.unwrap_or(1).clamp(1, DEPTH);
        list(root, &inside, "", depth, &mut lines)
    });
    match listed {
        // The workspace itself is made when something is put into it.
        Err(PathError::Missing(_)) if path == "." => Answer::text("(the directory is empty)"),
        Err(error) => Answer::error(error.to_string()),
        Ok(()) if lines.is_empty() => Answer::text("(the directory is empty)"),
        Ok(()) => Answer::text(lines.join("\n")),
    }
}

fn list(root: &Root, inside: &Inside, prefix: &str, depth: u32, lines: &mut Vec<String>) -> Result<(), PathError> {
    let fd = root.open_dir(inside)?;
    let failed = |errno: rustix::io::Errno| PathError::Io { path: inside.shown().to_owned(), source: errno.into() };
    let mut entries = Vec::new();
    for entry in Dir::read_from(&fd).map_err(failed)?.take(LOOKED_AT) {
        let entry = entry.map_err(failed)?;
        let file = entry.file_name().to_string_lossy().into_owned();
        if file == "." || file == ".." {
            continue;
        }
        // One that is gone meanwhile is not listed.
        let Ok(stat) = rustix::fs::statat(&fd, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) else { continue };
        entries.push((file, FileType::from_raw_mode(stat.st_mode), stat.st_size));
    }
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    for (file, kind, size) in entries {
        if lines.len() >= ENTRIES {
            if lines.len() == ENTRIES {
                lines.push(format!("[more than {ENTRIES} entries; list a directory below]"));
            }
            return Ok(());
        }
        // A name with a line break in it must not look like two.
        let shown = file.replace(|c: char| c.is_control(), "?");
        match kind {
            FileType::Directory => {
                lines.push(format!("{prefix}{shown}/"));
                if depth > 1 {
                    // What cannot be looked into is named and that is all.
                    let _ = list(root, &inside.join(&file), &format!("{prefix}{shown}/"), depth - 1, lines);
                }
            }
            FileType::RegularFile => lines.push(format!("{prefix}{shown} ({size})")),
            other => lines.push(format!("{prefix}{shown} ({})", name(other))),
        }
    }
    Ok(())
}
