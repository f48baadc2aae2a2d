//! `edit`: one text of a file for another.

use std::io::Read as _;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Kind, PathError, Root, arguments, object, write::FILE_BYTES};
use crate::tool::{Answer, Effects};

pub(super) const TOOL: Kind = Kind {
    name: "edit",
    description: "Replaces a text in a file of the workspace. oldText must be there exactly as given, blanks and line breaks \
                  included, and only once (or give replaceAll).",
    parameters: || {
        object(
            json!({
                "path": {"type": "string", "description": "Relative to the workspace."},
                "oldText": {"type": "string", "description": "What is there now."},
                "newText": {"type": "string", "description": "What is to be there instead."},
                "replaceAll": {"type": "boolean", "description": "Replace it wherever it is."},
            }),
            &["path", "oldText", "newText"],
        )
    },
    effects: Effects::Some,
    untrusted: false,
    run,
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Arguments {
    path: String,
    old_text: String,
    new_text: String,
    #[serde(default)]
    replace_all: bool,
}

fn run(root: &Root, given: Value) -> Answer {
    let given: Arguments = match arguments(given) {
        Ok(given) => given,
        Err(answer) => return answer,
    };
    match edit(root, &given) {
        Ok(answer) => answer,
        Err(error) => Answer::error(format!("Nothing was changed: {error}.")),
    }
}

fn edit(root: &Root, given: &Arguments) -> Result<Answer, PathError> {
    let refused = |why: String| Ok(Answer::error(format!("Nothing was changed in {:?}: {why}", given.path)));
    if given.old_text.is_empty() {
        return refused("oldText is empty; use write to make a file.".to_owned());
    }
    let inside = root.inside(&given.path)?;
    let (file, stat) = root.open_file(&inside)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| PathError::Io { path: given.path.clone(), source })?;
    if bytes.len() > FILE_BYTES {
        return refused("it is larger than 8 MiB.".to_owned());
    }
    let Ok(text) = String::from_utf8(bytes) else { return refused("it is not UTF-8 text.".to_owned()) };
    // A file with CR LF is edited by a model that writes LF.
    let crlf = |text: &str| text.replace("\r\n", "\n").replace('\n', "\r\n");
    let (old, new) = if !text.contains(&given.old_text) && text.contains("\r\n") {
        (crlf(&given.old_text), crlf(&given.new_text))
    } else {
        (given.old_text.clone(), given.new_text.clone())
    };
    let found = text.matches(&old).count();
    let changed = match found {
        0 => {
            return refused("oldText is not there exactly like that; read the file again and copy from it.".to_owned());
        }
        1 => text.replacen(&old, &new, 1),
        _ if given.replace_all => text.replace(&old, &new),
        n => return refused(format!("oldText is there {n} times; give more of what is around it, or replaceAll.")),
    };
    if changed == text {
        return refused("newText is the same as oldText.".to_owned());
    }
    if changed.len() > FILE_BYTES {
        return refused("it would be larger than 8 MiB.".to_owned());
    }
    root.replace(&inside, changed.as_bytes(), Some(&stat))?;
    let line = text.find(&old).map_or(1, |at| text[..at].matches('\n').count() + 1);
    let times = if found == 1 { String::new() } else { format!(" and {} more places", found - 1) };
    Ok(Answer::text(format!("Changed {:?} at line {line}{times}.", given.path)))
}
