//! `write`: a whole file, in place at once.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Kind, Root, arguments, object};
use crate::tool::{Answer, Effects};

/// Of one file: 8 MiB.
pub(super) const FILE_BYTES: usize = 8 << 20;

pub(super) const TOOL: Kind = Kind {
    name: "write",
    description: "Writes a file of the workspace, replacing one that is there and making directories above it. To change a \
                  part of a file use edit.",
    parameters: || {
        object(
            json!({
                "path": {"type": "string", "description": "Relative to the workspace."},
                "content": {"type": "string", "description": "All of the file."},
            }),
            &["path", "content"],
        )
    },
    effects: Effects::Some,
    untrusted: false,
    run,
};

#[derive(Deserialize)]
struct Arguments {
    path: String,
    content: String,
}

fn run(root: &Root, given: Value) -> Answer {
    let Arguments { path, content } = match arguments(given) {
        Ok(given) => given,
        Err(answer) => return answer,
    };
    if content.len() > FILE_BYTES {
        return Answer::error(format!("{path:?} was not written: {} bytes are more than 8 MiB", content.len()));
    }
    match root.inside(&path).and_then(|inside| root.replace(&inside, content.as_bytes(), None)) {
        Ok(false) => Answer::text(format!("Wrote {path:?} ({} bytes, new).", content.len())),
        Ok(true) => Answer::text(format!("Wrote {path:?} ({} bytes, replacing what was there).", content.len())),
        Err(error) => Answer::error(format!("Nothing was written: {error}.")),
    }
}
