//! Where programs are.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// Search path when the environment has none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program as it was written and as it is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Where the search path, or the word itself, leads.
    pub path: PathBuf,
    /// The file behind every link.
    pub real: PathBuf,
}

/// The first executable file of that name on a search path. Names with a slash are never searched for. Relative entries
/// of the path count for nothing: they would follow the working directory.
pub fn find(name: &str, search_path: &str) -> Option<PathBuf> {
    if name.is_empty() || name.contains('/') || name.contains('\0') {
        return None;
    }
    let dirs = search_path.split(':').filter(|dir| dir.starts_with('/'));
    dirs.map(|dir| Path::new(dir).join(name)).find(|file| is_executable(file))
}

/// The program a first word means in a directory.
pub fn resolve(word: &str, cwd: &Path, search_path: &str) -> Option<Program> {
    let path = if word.contains('/') { cwd.join(word) } else { find(word, search_path)? };
    if !is_executable(&path) {
        return None;
    }
    let real = std::fs::canonicalize(&path).ok()?;
    Some(Program { path, real })
}

fn is_executable(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_executable_files_on_absolute_paths() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, mode: u32| {
            let path = dir.path().join(name);
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let (tool, _note) = (file("tool", 0o755), file("note", 0o644));
        std::os::unix::fs::symlink(&tool, dir.path().join("alias")).unwrap();
        std::fs::create_dir(dir.path().join("folder")).unwrap();
        let path = format!("relative::{}", dir.path().display());
        assert_eq!(find("tool", &path), Some(tool.clone()));
        for absent in ["note", "folder", "missing", "", "a/b", "../tool"] {
            assert_eq!(find(absent, &path), None, "{absent}");
        }
        let alias = resolve("alias", Path::new("/"), &path).unwrap();
        assert_eq!((alias.path, alias.real), (dir.path().join("alias"), std::fs::canonicalize(&tool).unwrap()));
        assert_eq!(resolve("./tool", dir.path(), "").unwrap().path, dir.path().join("./tool"));
        assert_eq!(resolve("tool", dir.path(), ""), None);
    }
}
