//! Source `file`: a JSON document read by pointer, or a file that is one value.

use std::{fs::File, os::unix::fs::MetadataExt as _, path::Path};

use openclaw_protocol::Secret;

use super::limit;
use crate::{document::Node, files, paths::Paths};

/// Largest secret file unless `maxBytes` says otherwise: 1 MiB.
const MAX_BYTES: u64 = 1 << 20;

pub(super) fn read(id: &str, provider: &Node, paths: &Paths) -> Result<Secret, String> {
    let text = provider.entry("path").and_then(Node::as_str).ok_or("its provider has no path")?;
    let path = paths.expand(text);
    if !path.is_absolute() {
        return Err("the path of its provider is not absolute".to_owned());
    }
    let single = provider.entry("mode").and_then(Node::as_str) == Some("singleValue");
    let content = content(&path, limit(provider, "maxBytes", MAX_BYTES))?;
    match (single, id) {
        (true, "value") => Ok(Secret::new(content)),
        (true, _) => Err("a singleValue provider has the one id \"value\"".to_owned()),
        (false, pointer) => {
            let document: serde_json::Value = serde_json::from_str(&content)
                .map_err(|e| format!("{} is not JSON (line {})", path.display(), e.line()))?;
            let found =
                document.pointer(pointer).ok_or_else(|| format!("{} has nothing at {pointer}", path.display()))?;
            found.as_str().map(Secret::new).ok_or_else(|| format!("{} has no text at {pointer}", path.display()))
        }
    }
}

/// A regular file of ours or root's that nobody else may write. Reading rights are the owner's choice, since container
/// secrets are mounted 0444.
fn content(path: &Path, max: u64) -> Result<String, String> {
    let file = File::open(path).map_err(|e| format!("cannot open {}: {e}", path.display()))?;
    let meta = file.metadata().map_err(|e| format!("cannot look at {}: {e}", path.display()))?;
    if !meta.is_file() {
        return Err(format!("{} is not a regular file", path.display()));
    }
    if meta.uid() != files::our_uid() && meta.uid() != 0 {
        return Err(format!("{} belongs to another user", path.display()));
    }
    if meta.mode() & 0o022 != 0 {
        return Err(format!("{} can be written by others; run `chmod go-w` on it", path.display()));
    }
    let bytes = files::read_limited(file, path, max).map_err(|e| e.to_string())?;
    String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8 text", path.display()))
}
