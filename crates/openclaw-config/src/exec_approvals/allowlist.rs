//! Allow-lists: which entry lets a command through. Pure: the caller looks the program up.

use openclaw_protocol::{
    method::exec::{AllowlistEntry, ApprovalsFile},
    secret::hex,
};
use sha2::{Digest as _, Sha256};

const BOUND: &str = "sha256:cwd-argv:v1:";
const BOUND_WITHOUT_CWD: &str = "sha256:argv:";
const ALWAYS: &str = "allow-always";

/// The program a command would start.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// The first word as it was written.
    pub word: &'a str,
    /// Where it was found, links followed.
    pub path: &'a str,
    /// The home directory, for patterns with `~`.
    pub home: Option<&'a str>,
}

/// The entry that lets `argv` run in `cwd`, if one does. An entry that a decision wrote holds for exactly one argument
/// list in one directory; one that a person wrote may name a path or a bare name, and may restrict the arguments.
pub fn find<'a>(
    entries: &'a [AllowlistEntry],
    program: Program<'_>,
    argv: &[String],
    cwd: Option<&str>,
) -> Option<&'a AllowlistEntry> {
    let mut by_path = None;
    for entry in entries {
        let pattern = entry.pattern.trim();
        let always = entry.source.as_deref() == Some(ALWAYS);
        let is_path = pattern.contains(['/', '\\', '~']);
        let hit = match pattern {
            "*" => !always && entry.arg_pattern.is_none(),
            _ if is_path => glob_matches(&expanded(pattern, program.home), program.path),
            // A bare name stands for what PATH gave, never for a path somebody wrote out.
            _ => !program.word.contains(['/', '\\', '~']) && names(program).any(|name| glob_matches(pattern, name)),
        };
        if !hit {
            continue;
        }
        match entry.arg_pattern.as_deref() {
            None if always => {}
            None if pattern == "*" => return Some(entry),
            None => by_path = by_path.or(Some(entry)),
            Some(bound) if bound.starts_with(BOUND) => {
                if cwd.is_some_and(|cwd| arg_digest(argv, cwd) == bound) {
                    return Some(entry);
                }
            }
            // Of an older release: it did not say where, so it holds nowhere.
            Some(bound) if bound.starts_with(BOUND_WITHOUT_CWD) => {}
            Some(expression) if !always => {
                if expression_matches(expression, argv) {
                    return Some(entry);
                }
            }
            Some(_) => {}
        }
    }
    by_path
}

fn names<'a>(program: Program<'a>) -> impl Iterator<Item = &'a str> {
    let base = |path: &'a str| path.rsplit('/').next().unwrap_or(path);
    [program.word, base(program.path)].into_iter()
}

fn expanded(pattern: &str, home: Option<&str>) -> String {
    match (pattern.strip_prefix('~'), home) {
        (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => format!("{home}{rest}"),
        _ => pattern.to_owned(),
    }
}

/// `*` within a part of a path, `**` across parts, `?` for one character; everything else for itself.
pub fn glob_matches(pattern: &str, target: &str) -> bool {
    let (pattern, target): (Vec<char>, Vec<char>) = (pattern.chars().collect(), target.chars().collect());
    // reachable[i]: the pattern so far can have matched the first i characters. One pass, no backtracking.
    let mut reachable = vec![false; target.len() + 1];
    reachable[0] = true;
    let mut at = 0;
    while at < pattern.len() {
        let mut next = vec![false; target.len() + 1];
        let step = match pattern[at] {
            '*' => {
                let across = pattern.get(at + 1) == Some(&'*');
                let mut on = false;
                for i in 0..=target.len() {
                    on = reachable[i] || (on && (across || target[i - 1] != '/'));
                    next[i] = on;
                }
                if across { 2 } else { 1 }
            }
            wanted => {
                for i in 1..=target.len() {
                    let fits = if wanted == '?' { target[i - 1] != '/' } else { target[i - 1] == wanted };
                    next[i] = reachable[i - 1] && fits;
                }
                1
            }
        };
        at += step;
        reachable = next;
    }
    reachable[target.len()]
}

/// The arguments after the program, joined as the reference joins them, against a person's regular expression.
fn expression_matches(expression: &str, argv: &[String]) -> bool {
    let arguments = argv.get(1..).unwrap_or_default();
    let subject = match (expression.contains('\0'), arguments) {
        (false, _) => arguments.join(" "),
        (true, []) => "\0\0".to_owned(),
        (true, _) => arguments.join("\0") + "\0",
    };
    regex_lite::Regex::new(expression).is_ok_and(|expression| expression.is_match(&subject))
}

/// What an entry written by a decision is bound to: the working directory and the exact arguments.
pub fn arg_digest(argv: &[String], cwd: &str) -> String {
    let cwd = normal_path(cwd);
    let arguments = argv.get(1..).unwrap_or_default();
    let mut subject = format!("{}\0{cwd}\0{}\0", cwd.len(), arguments.len());
    for argument in arguments {
        subject.push_str(&format!("{}\0{argument}\0", argument.len()));
    }
    format!("{BOUND}{}", hex(&Sha256::digest(subject.as_bytes())))
}

/// `.` and `..` and doubled slashes taken out, without looking at the disk. A trailing slash stays, as in the reference.
fn normal_path(path: &str) -> String {
    let absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if absolute => {}
            part => parts.push(part),
        }
    }
    let mut normal = format!("{}{}", if absolute { "/" } else { "" }, parts.join("/"));
    if path.ends_with('/') && !parts.is_empty() {
        normal.push('/');
    }
    if normal.is_empty() { ".".into() } else { normal }
}

/// Writes down that a person allowed this command always: for this agent, these arguments and this directory only.
pub fn remember_always(file: &mut ApprovalsFile, agent: &str, path: &str, argv: &[String], cwd: &str, now_ms: i64) {
    let bound = arg_digest(argv, cwd);
    let list = file.agents.get_or_insert_default().entry(agent.to_owned()).or_default();
    let list = list.allowlist.get_or_insert_default();
    let same = |entry: &AllowlistEntry| entry.pattern == path && entry.arg_pattern.as_deref() == Some(bound.as_str());
    if list.iter().any(same) {
        return;
    }
    list.push(AllowlistEntry {
        pattern: path.to_owned(),
        source: Some(ALWAYS.into()),
        arg_pattern: Some(bound),
        last_used_at: Some(now_ms.into()),
        ..AllowlistEntry::default()
    });
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn argv(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn globs() {
        let check = |pattern: &str, target: &str, expected: bool| {
            assert_eq!(glob_matches(pattern, target), expected, "{pattern} {target}");
        };
        check("/usr/bin/rg", "/usr/bin/rg", true);
        check("/usr/bin/rg", "/usr/bin/rgx", false);
        check("/usr/*/rg", "/usr/bin/rg", true);
        check("/usr/*/rg", "/usr/local/bin/rg", false);
        check("/usr/**/rg", "/usr/local/bin/rg", true);
        check("/usr/**", "/usr/", true);
        check("r?", "rg", true);
        check("r?", "r/", false);
        check("", "x", false);
        check("*", "", true);
        check("a.c", "abc", false);
        check("/bin/**", "/usr/bin/x", false);
        check(&"*".repeat(40), &"a".repeat(4000), true);
        check(&format!("{}b", "a*".repeat(40)), &"a".repeat(4000), false);
    }

    /// Made by `buildCwdBoundHashedArgPattern` of release 2026.9.6.
    #[test]
    fn digests_are_the_references() {
        let check = |words: &[&str], cwd: &str, expected: &str| {
            assert_eq!(arg_digest(&argv(words), cwd), format!("sha256:cwd-argv:v1:{expected}"), "{words:?} {cwd}");
        };
        check(&["echo", "hi"], "/srv/work", "539dc5907a6f39cd6ee79ed835f7289ed391c5df82a3c946d30d2b59fd95dc1b");
        check(&["/bin/ls"], "/", "d535b61d5d7bbd09d8a1a6161e987ad1bce0688b581a7e78a36069482408baf4");
        let odd = ["rg", "-n", "a b", "é", ""];
        check(&odd, "/home/me/./x/../y", "7fd38665f9c17f438b335c23f010c6f0b2e53d34dcaf08ef18d431c43328baf8");
        check(&["x"], "/a//b/", "17015f3c80afd15e34959c51847ec9573065094294753a91b0cee18eaa60a0ff");
    }

    #[test]
    fn entries() {
        let check = |entry: Value, word: &str, path: &str, words: &[&str], cwd: Option<&str>, expected: bool| {
            let entries: Vec<AllowlistEntry> = serde_json::from_value(json!([entry])).unwrap();
            let program = Program { word, path, home: Some("/home/me") };
            let found = find(&entries, program, &argv(words), cwd).is_some();
            assert_eq!(found, expected, "{entry} {word} {words:?}");
        };
        let rg = "/usr/bin/rg";
        check(json!("/usr/bin/*"), "rg", rg, &["rg", "x"], None, true);
        check(json!("rg"), "rg", rg, &["rg"], None, true);
        check(json!("rg"), "/usr/bin/rg", rg, &["/usr/bin/rg"], None, false);
        check(json!("rg"), "./rg", "/tmp/rg", &["./rg"], None, false);
        check(json!("*"), "rg", rg, &["rg"], None, true);
        check(json!("~/bin/*"), "x", "/home/me/bin/x", &["x"], None, true);
        check(json!("~x/bin/*"), "x", "/home/mex/bin/x", &["x"], None, false);
        // Bare patterns never come from a decision.
        check(json!({"pattern": "*", "source": "allow-always"}), "rg", rg, &["rg"], None, false);
        check(json!({"pattern": rg, "source": "allow-always"}), "rg", rg, &["rg"], None, false);
        let bound = arg_digest(&argv(&["rg", "needle"]), "/srv/work");
        let always = json!({"pattern": rg, "source": "allow-always", "argPattern": bound});
        check(always.clone(), "rg", rg, &["rg", "needle"], Some("/srv/work"), true);
        check(always.clone(), "rg", rg, &["rg", "needle"], Some("/srv/work/."), true);
        check(always.clone(), "rg", rg, &["rg", "needle"], Some("/other"), false);
        check(always.clone(), "rg", rg, &["rg", "needle", ""], Some("/srv/work"), false);
        check(always.clone(), "rg", rg, &["rg", "need", "le"], Some("/srv/work"), false);
        check(always, "rg", rg, &["rg", "needle"], None, false);
        check(json!({"pattern": rg, "argPattern": "^-n \\w+$"}), "rg", rg, &["rg", "-n", "abc"], None, true);
        check(json!({"pattern": rg, "argPattern": "^-n \\w+$"}), "rg", rg, &["rg", "-n", "a", "b"], None, false);
        check(json!({"pattern": rg, "argPattern": "^-n\0x\0$"}), "rg", rg, &["rg", "-n", "x"], None, true);
        check(json!({"pattern": rg, "argPattern": "("}), "rg", rg, &["rg", "("], None, false);
        check(json!({"pattern": rg, "argPattern": "sha256:argv:00"}), "rg", rg, &["rg"], Some("/"), false);
        check(json!({"pattern": rg, "argPattern": ".*", "source": "allow-always"}), "rg", rg, &["rg"], None, false);
    }

    #[test]
    fn always_is_for_one_command_in_one_place() {
        let mut file = ApprovalsFile::empty();
        for _ in 0..2 {
            remember_always(&mut file, "main", "/usr/bin/rg", &argv(&["rg", "x"]), "/srv/work", 7);
        }
        remember_always(&mut file, "main", "/usr/bin/rg", &argv(&["rg", "x"]), "/tmp", 7);
        let agents = file.agents.unwrap();
        let list = agents["main"].allowlist.as_ref().unwrap();
        assert_eq!(list.len(), 2);
        let program = Program { word: "rg", path: "/usr/bin/rg", home: None };
        assert!(find(list, program, &argv(&["rg", "x"]), Some("/srv/work")).is_some());
        assert!(find(list, program, &argv(&["rg", "y"]), Some("/srv/work")).is_none());
    }
}
