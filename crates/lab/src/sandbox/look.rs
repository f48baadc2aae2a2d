//! What can be seen of a process and its files from outside.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::wire;

/// Every file below a directory, links not followed.
pub fn walk(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(walk(&path)),
            Ok(_) => found.push(path),
            Err(_) => {}
        }
    }
    found
}

/// Asserts that no command line on this machine, and no environment of this user's gateways and their children, shows
/// `secret`.
#[track_caller]
pub fn assert_no_process_shows(secret: &str) {
    let ours = std::process::id().to_string();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = process.file_name().to_string_lossy().into_owned();
        if !name.bytes().all(|byte| byte.is_ascii_digit()) || name == ours {
            continue;
        }
        for file in ["cmdline", "environ"] {
            let text = wire::read_lossy(&process.path().join(file));
            assert!(!text.contains(secret), "process {name} shows the secret in its {file}");
        }
    }
}

/// One figure of `/proc/<pid>/status`, in KiB.
pub(super) fn status_kib(pid: u32, field: &str) -> u64 {
    let text = wire::read_lossy(Path::new(&format!("/proc/{pid}/status")));
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_else(|| panic!("no {field} of {pid}"))
}

/// Allows this process more open sockets than the usual 1024.
pub fn raise_file_limit(wanted: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        let current = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
        setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum: limit.maximum }).expect("may be raised");
    }
}
