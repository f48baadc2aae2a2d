//! Hosts named in the person's ssh config, as candidates for `connect`.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Largest config file read.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// How deep `Include` goes: ssh's own limit.
const MAX_DEPTH: usize = 16;
/// Most hosts offered.
const MAX_HOSTS: usize = 1000;

/// Every alias of a `Host` line in `<home>/.ssh/config` and what it includes, in their order and without repeats.
/// Patterns, negations and whatever is not a plain target are left out. No file, or an unreadable one, gives none.
pub fn config_hosts(home: &Path) -> Vec<String> {
    let mut hosts = Vec::new();
    let dir = home.join(".ssh");
    read(&dir.join("config"), &dir, home, 0, &mut hosts);
    hosts
}

fn read(file: &Path, dir: &Path, home: &Path, depth: usize, hosts: &mut Vec<String>) {
    let readable = fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.len() <= MAX_FILE_BYTES);
    if depth > MAX_DEPTH || !readable {
        return;
    }
    let Ok(bytes) = fs::read(file) else { return };
    for line in String::from_utf8_lossy(&bytes).lines() {
        let mut words = words(line).into_iter();
        let Some(keyword) = words.next() else { continue };
        if keyword.eq_ignore_ascii_case("host") {
            for alias in words {
                let plain = alias.parse::<super::SshTarget>().is_ok_and(|target| target.host() == alias);
                if plain && hosts.len() < MAX_HOSTS && !hosts.contains(&alias) {
                    hosts.push(alias);
                }
            }
        } else if keyword.eq_ignore_ascii_case("include") {
            for pattern in words {
                for file in included(&pattern, dir, home) {
                    read(&file, dir, home, depth + 1, hosts);
                }
            }
        }
    }
}

/// The settings of the person's config that apply to `host`, in their order (the first value of a keyword counts):
/// lower-case keyword and value. A `Match` line applies, whatever it says: who reads it has to decide.
#[cfg(feature = "builtin-ssh")]
pub(super) fn lines_for(host: &str, home: &Path) -> Vec<(String, String)> {
    fn read(file: &Path, dir: &Path, home: &Path, host: &str, depth: usize, found: &mut Vec<(String, String)>) {
        let readable = fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.len() <= MAX_FILE_BYTES);
        if depth > MAX_DEPTH || !readable {
            return;
        }
        let Ok(bytes) = fs::read(file) else { return };
        let mut applies = true;
        for line in String::from_utf8_lossy(&bytes).lines() {
            let words = words(line);
            let Some((keyword, values)) = words.split_first() else { continue };
            let keyword = keyword.to_ascii_lowercase();
            match keyword.as_str() {
                "host" => {
                    let hit = |pattern: &String| matches(pattern, host);
                    let not = values.iter().filter_map(|value| value.strip_prefix('!')).any(|p| matches(p, host));
                    applies = values.iter().any(hit) && !not;
                }
                "include" if applies => {
                    for file in values.iter().flat_map(|pattern| included(pattern, dir, home)) {
                        read(&file, dir, home, host, depth + 1, found);
                    }
                }
                "match" => found.push((keyword, values.join(" "))),
                _ if applies => found.push((keyword, values.join(" "))),
                _ => {}
            }
        }
    }
    let mut found = Vec::new();
    let dir = home.join(".ssh");
    read(&dir.join("config"), &dir, home, host, 0, &mut found);
    found
}

/// Words of a config line: the keyword may be followed by `=`, words may be quoted, a `#` begins a comment.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() && !rest.starts_with('#') {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => {
                let end =
                    rest.find(|c: char| c.is_whitespace() || (words.is_empty() && c == '=')).unwrap_or(rest.len());
                rest.split_at(end)
            }
        };
        words.push(word.to_owned());
        rest = after.trim_start();
        if words.len() == 1 {
            rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
        }
    }
    words
}

/// Files an `Include` names: relative to `~/.ssh`, with `~` and shell patterns in the last part.
fn included(pattern: &str, dir: &Path, home: &Path) -> Vec<PathBuf> {
    let path = match pattern.strip_prefix("~/") {
        Some(rest) => home.join(rest),
        None => dir.join(pattern),
    };
    let mut found = vec![PathBuf::new()];
    for part in path.components() {
        let part = part.as_os_str();
        let Some(wild) = part.to_str().filter(|text| text.contains(['*', '?'])) else {
            found.iter_mut().for_each(|path| path.push(part));
            continue;
        };
        let mut next = Vec::new();
        for parent in &found {
            let Ok(entries) = fs::read_dir(parent) else { continue };
            let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
            next.extend(names.filter(|name| matches(wild, name)).map(|name| parent.join(name)));
        }
        next.sort();
        found = next;
    }
    found
}

/// `*` and `?` as in a shell; a leading dot has to be written out.
fn matches(pattern: &str, name: &str) -> bool {
    fn rest(pattern: &[char], name: &[char]) -> bool {
        match (pattern.first(), name.first()) {
            (None, None) => true,
            (Some('*'), _) => rest(&pattern[1..], name) || (!name.is_empty() && rest(pattern, &name[1..])),
            (Some('?'), Some(_)) => rest(&pattern[1..], &name[1..]),
            (Some(wanted), Some(found)) => wanted == found && rest(&pattern[1..], &name[1..]),
            _ => false,
        }
    }
    let hidden = name.starts_with('.') && !pattern.starts_with('.');
    let short = pattern.len() <= 64 && name.len() <= 255;
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    !hidden && short && rest(&pattern, &name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_and_what_is_included() {
        let home = tempfile::tempdir().expect("home");
        let ssh = home.path().join(".ssh");
        fs::create_dir_all(ssh.join("conf.d")).expect("dir");
        let write = |name: &str, text: &str| fs::write(ssh.join(name), text).expect("write");
        write(
            "config",
            "# Host commented\nInclude conf.d/*.conf\nInclude ~/.ssh/more config\nHost box  gate*  !no \"work laptop\" -x\n\
             \tHostName box.example.com\nhost = nas\nHOST\trouter # not-me\nHost *\n  User me\nMatch host foo\nHost box last\n",
        );
        write("conf.d/b.conf", "Host second\n");
        write("conf.d/a.conf", "Host \"first\"\n");
        write("conf.d/.hidden.conf", "Host hidden\n");
        write("conf.d/a.txt", "Host text\n");
        write("more", "Host more a@b box2 $(id)\n");
        assert_eq!(config_hosts(home.path()), ["first", "second", "more", "box2", "box", "nas", "router", "last"]);
    }

    #[test]
    fn no_config_gives_no_hosts() {
        let home = tempfile::tempdir().expect("home");
        assert!(config_hosts(home.path()).is_empty());
    }
}
