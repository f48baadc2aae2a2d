//! The workspace's own files that every prompt holds: who the agent is, whom it works for, how it is to work.

use std::{io::Read as _, path::Path};

use crate::{untrusted, workspace::Root};

/// Characters of them (`agents.defaults.bootstrapMaxChars`, `bootstrapTotalMaxChars`; `USER.md` has its own bound).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileLimits {
    pub each: usize,
    pub total: usize,
}

impl Default for FileLimits {
    /// The reference's (concepts/system-prompt).
    fn default() -> Self {
        Self { each: 20_000, total: 60_000 }
    }
}

/// Characters of `USER.md` (concepts/agent-workspace of the reference).
const USER_CHARS: usize = 4_000;
/// Bytes read of a file; what lies beyond is cut anyway.
const READ_BYTES: u64 = 2 << 20;

/// In the order of the prompt; the flag says whether absence is worth a word.
const FILES: [(&str, bool); 7] = [
    ("AGENTS.md", true),
    ("SOUL.md", true),
    ("TOOLS.md", false),
    ("IDENTITY.md", true),
    ("USER.md", false),
    ("BOOTSTRAP.md", false),
    ("MEMORY.md", false),
];

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkspaceFile {
    pub name: &'static str,
    /// `None`: expected and not there.
    pub text: Option<String>,
    pub truncated: bool,
}

/// Reads them. `private` is whether the conversation is the owner's own: only there is `MEMORY.md` given. Blocks on the disk.
pub fn workspace_files(workspace: &Path, private: bool, limits: FileLimits) -> Vec<WorkspaceFile> {
    let root = Root::new(workspace);
    let mut left = limits.total;
    let mut files = Vec::new();
    for (name, expected) in FILES {
        if name == "MEMORY.md" && !private {
            continue;
        }
        let Some(text) = read(&root, name) else {
            if expected {
                files.push(WorkspaceFile { name, text: None, truncated: false });
            }
            continue;
        };
        let most = if name == "USER.md" { limits.each.min(USER_CHARS) } else { limits.each }.min(left);
        let chars = text.chars().count();
        let truncated = chars > most;
        // The bound in bytes that keeps about `most` characters of this text.
        let text = if truncated { untrusted::cut(&text, text.len() * most / chars) } else { text };
        left = left.saturating_sub(chars.min(most));
        files.push(WorkspaceFile { name, text: Some(text), truncated });
    }
    files
}

/// A file that cannot be read is as one that is not there; the log says why.
fn read(root: &Root, name: &str) -> Option<String> {
    let opened = root.inside(name).and_then(|inside| root.open_file(&inside));
    let file = match opened {
        Ok((file, _)) => file,
        Err(crate::workspace::PathError::Missing(_)) => return None,
        Err(error) => {
            tracing::warn!(%error, "a workspace file cannot be read");
            return None;
        }
    };
    let mut bytes = Vec::new();
    file.take(READ_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn they_are_read_in_order_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("AGENTS.md", &"a".repeat(50));
        write("USER.md", &"u".repeat(5_000));
        write("MEMORY.md", "secret plans");
        write("TOOLS.md", "  \n");
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("IDENTITY.md")).unwrap();
        let files = workspace_files(dir.path(), true, FileLimits::default());
        let told: Vec<(&str, Option<usize>, bool)> =
            files.iter().map(|f| (f.name, f.text.as_ref().map(String::len), f.truncated)).collect();
        assert_eq!(
            told,
            [
                ("AGENTS.md", Some(50), false),
                ("SOUL.md", None, false),
                ("IDENTITY.md", None, false),
                ("USER.md", Some(4_000), true),
                ("MEMORY.md", Some(12), false)
            ]
        );
        let shared = workspace_files(dir.path(), false, FileLimits::default());
        assert!(shared.iter().all(|file| file.name != "MEMORY.md"));
        let tight = workspace_files(dir.path(), true, FileLimits { each: 40, total: 45 });
        assert!(tight.iter().filter_map(|f| f.text.as_ref()).map(String::len).sum::<usize>() <= 40 + 2 * 40);
        assert!(tight[0].truncated);
        let none = workspace_files(&dir.path().join("none"), true, FileLimits::default());
        assert!(none.iter().all(|file| file.text.is_none()));
    }
}
