//! `fs.listDir {path?}`: the directories in a directory, for choosing one. Files are not listed.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Call, Failure, Toolbox};

/// Most entries of an answer.
const MAX_ENTRIES: usize = 10_000;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Params {
    path: Option<String>,
}

pub fn run(toolbox: &Toolbox, call: &Call) -> Result<Value, Failure> {
    let params: Params = call.optional_params()?;
    let home = toolbox.home.clone().unwrap_or_else(|| PathBuf::from("/"));
    let asked = params.path.filter(|path| !path.is_empty()).map_or_else(|| home.clone(), PathBuf::from);
    if !asked.is_absolute() {
        return Err(Failure::invalid("fs.listDir path must be absolute"));
    }
    let listed = list(&resolved(&asked), &home);
    listed.map_err(|error| Failure::invalid(format!("{}: {error}", asked.display())))
}

fn list(dir: &Path, home: &Path) -> std::io::Result<Value> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        // Follows links: one to a directory can be chosen like the directory.
        if std::fs::metadata(entry.path()).is_ok_and(|meta| meta.is_dir()) {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        if names.len() >= MAX_ENTRIES {
            break;
        }
    }
    names.sort_by(|a, b| (a.starts_with('.'), a).cmp(&(b.starts_with('.'), b)));
    let entry = |name: &String| {
        let mut entry = json!({"name": name, "path": dir.join(name).to_string_lossy()});
        if name.starts_with('.') {
            entry["hidden"] = json!(true);
        }
        entry
    };
    let entries: Vec<Value> = names.iter().map(entry).collect();
    let mut answer = json!({"path": dir.to_string_lossy()});
    if let Some(parent) = dir.parent() {
        answer["parent"] = json!(parent.to_string_lossy());
    }
    answer["home"] = json!(home.to_string_lossy());
    answer["entries"] = json!(entries);
    Ok(answer)
}

/// Dots and doubled slashes resolved by the letter, as `path.resolve` does.
fn resolved(path: &Path) -> PathBuf {
    let mut resolved = PathBuf::from("/");
    for part in path.components() {
        match part {
            std::path::Component::Normal(part) => resolved.push(part),
            std::path::Component::ParentDir => drop(resolved.pop()),
            _ => {}
        }
    }
    resolved
}

#[cfg(test)]
mod tests {
    use super::super::bench::Bench;
    use super::*;

    /// The layout of release 2026.9.6: directories only, hidden ones last.
    #[tokio::test]
    async fn directories_of_a_directory() {
        let bench = Bench::new("{}");
        let root = bench.dir.path().join("tree");
        for name in ["b", "a", ".h"] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        std::fs::write(root.join("file"), "").unwrap();
        std::os::unix::fs::symlink(root.join("a"), root.join("link")).unwrap();
        let path = |name: &str| json!(root.join(name).to_str());
        let asked = format!("{}/a/../", root.display());
        assert_eq!(
            bench.ask("fs.listDir", json!({"path": asked})).await.unwrap(),
            json!({
                "path": root.to_str(), "parent": bench.dir.path().to_str(), "home": "/home/u",
                "entries": [
                    {"name": "a", "path": path("a")}, {"name": "b", "path": path("b")},
                    {"name": "link", "path": path("link")}, {"name": ".h", "path": path(".h"), "hidden": true},
                ],
            })
        );
        let top = bench.ask("fs.listDir", json!({"path": "/"})).await.unwrap();
        assert_eq!((&top["path"], top.get("parent")), (&json!("/"), None));
        for wrong in [json!({"path": "relative"}), json!({"path": "/no/such/place"}), json!({"path": 1})] {
            assert_eq!(bench.ask("fs.listDir", wrong).await.unwrap_err().code, "INVALID_REQUEST");
        }
    }
}
