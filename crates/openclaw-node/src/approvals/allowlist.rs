//! Entries of the allow-list, and whether a program with its arguments is one of them.
//!
//! A pattern with a slash is a glob over the program's real path (`*` within a directory, `**` across, `~` the home
//! directory); one without names programs found on the search path. `argPattern` narrows an entry to arguments: a hash
//! over words and directory as written by a decision. Other forms of it (regular expressions) are not evaluated here
//! and match nothing, since what the owner meant to narrow must not get wider.

use std::path::Path;

use openclaw_protocol::method::exec::AllowlistEntry;

use crate::{exec::programs::Program, sha256_hex};

/// A hash over the directory and all words but the first.
const HASHED: &str = "sha256:cwd-argv:v1:";

/// A part of a command to be compared.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    pub program: &'a Program,
    pub argv: &'a [String],
    pub cwd: &'a Path,
    /// The program runs another one that its name does not tell: only an entry for these very words will do.
    pub opaque: bool,
}

/// The entry that allows it, if there is one.
pub fn find<'a>(
    rules: &'a [AllowlistEntry],
    candidate: Candidate<'_>,
    home: Option<&Path>,
) -> Option<&'a AllowlistEntry> {
    rules.iter().find(|rule| allows(rule, candidate, home))
}

fn allows(rule: &AllowlistEntry, candidate: Candidate<'_>, home: Option<&Path>) -> bool {
    let pattern = rule.pattern.trim();
    let always = rule.source.as_deref() == Some("allow-always");
    let word = candidate.argv.first().map_or("", String::as_str);
    let program = if pattern == "*" {
        !always && rule.arg_pattern.is_none() && !candidate.opaque
    } else if pattern.contains(['/', '~']) {
        expanded(pattern, home).is_some_and(|pattern| glob(&pattern, &candidate.program.real.to_string_lossy()))
    } else {
        // A name means what the search path finds, not any file that is called so.
        !word.contains('/')
            && (glob(pattern, word)
                || candidate.program.path.file_name().is_some_and(|name| glob(pattern, &name.to_string_lossy())))
    };
    program
        && match &rule.arg_pattern {
            Some(arguments) if arguments.starts_with(HASHED) => *arguments == hashed(candidate.argv, candidate.cwd),
            Some(_) => false,
            // A decision is always for certain arguments; without them the entry is damaged.
            None => !always && !candidate.opaque,
        }
}

fn expanded(pattern: &str, home: Option<&Path>) -> Option<String> {
    match pattern.strip_prefix('~') {
        None => Some(pattern.to_owned()),
        Some(rest) if rest.is_empty() || rest.starts_with('/') => Some(format!("{}{rest}", home?.display())),
        Some(_) => None,
    }
}

/// The `argPattern` of a decision: a hash over the directory and the words behind the first, as the reference makes it.
pub fn hashed(argv: &[String], cwd: &Path) -> String {
    let cwd = normalised(&cwd.to_string_lossy());
    let mut subject = format!("{}\0{cwd}\0{}\0", cwd.len(), argv.len().saturating_sub(1));
    for word in argv.iter().skip(1) {
        subject.push_str(&format!("{}\0{word}\0", word.len()));
    }
    format!("{HASHED}{}", sha256_hex(subject.as_bytes()))
}

/// Dots and doubled slashes resolved by the letter, a slash at the end kept.
fn normalised(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let end = if path.ends_with('/') && !parts.is_empty() { "/" } else { "" };
    format!("/{}{end}", parts.join("/"))
}

/// `*` within a directory, `**` across directories, `?` one character; everything else itself.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    // `reached[i]`: the pattern so far matches the first `i` characters.
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    let mut at = 0;
    while at < pattern.len() {
        let wide = pattern[at] == '*' && pattern.get(at + 1) == Some(&'*');
        let mut next = vec![false; text.len() + 1];
        match pattern[at] {
            '*' => {
                for i in 0..=text.len() {
                    next[i] = reached[i] || (i > 0 && next[i - 1] && (wide || text[i - 1] != '/'));
                }
            }
            wanted => {
                for i in 0..text.len() {
                    next[i + 1] = reached[i] && if wanted == '?' { text[i] != '/' } else { text[i] == wanted };
                }
            }
        }
        reached = next;
        at += if wide { 2 } else { 1 };
    }
    reached[text.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    /// Answers of release 2026.9.6 to the same questions.
    #[test]
    fn hashes_are_the_references() {
        let check = |argv: &[&str], cwd: &str, digest: &str| {
            assert_eq!(hashed(&words(argv), Path::new(cwd)), format!("{HASHED}{digest}"), "{argv:?} in {cwd}");
        };
        check(&["echo", "hi"], "/srv/app", "42b2a90cfd4db931920a0c4e4060a8afcdc6f5fc1bf27d32d89451eab3ab502e");
        check(&["echo"], "/", "d535b61d5d7bbd09d8a1a6161e987ad1bce0688b581a7e78a36069482408baf4");
        check(
            &["git", "commit", "-m", "a b\nc"],
            "/home/u/ä",
            "96ec00c27cece23b9a32a4786f680c65d95eba6583fabb2a1e8615f856c2e015",
        );
        check(&["x", "", "y"], "/a/../b//c/", "928cdf620fce3a5d525ac73a4881d9d79079704743ec9b0c6d2f0a9ff71b79d4");
    }

    #[test]
    fn globs() {
        for (pattern, text, expected) in [
            ("/usr/bin/ls", "/usr/bin/ls", true),
            ("/usr/bin/ls", "/usr/bin/lsblk", false),
            ("/usr/bin/*", "/usr/bin/ls", true),
            ("/usr/*", "/usr/bin/ls", false),
            ("/usr/**", "/usr/bin/ls", true),
            ("/home/**/bin/rg", "/home/u/x/bin/rg", true),
            ("/usr/bin/l?", "/usr/bin/ls", true),
            ("/usr/bin?ls", "/usr/bin/ls", false),
            ("python*", "python3.12", true),
            ("", "", true),
            ("a", "", false),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn entries() {
        let program = Program { path: "/usr/bin/git".into(), real: "/usr/lib/git-core/git".into() };
        let (home, cwd) = (Path::new("/home/u"), Path::new("/w"));
        let check = |rule: AllowlistEntry, argv: &[&str], opaque: bool, expected: bool| {
            let argv = words(argv);
            let candidate = Candidate { program: &program, argv: &argv, cwd, opaque };
            assert_eq!(
                find(std::slice::from_ref(&rule), candidate, Some(home)).is_some(),
                expected,
                "{rule:?} {argv:?}"
            );
        };
        let rule = |pattern: &str| AllowlistEntry { pattern: pattern.to_owned(), ..AllowlistEntry::default() };
        let with = |pattern: &str, arguments: &str| AllowlistEntry {
            arg_pattern: Some(arguments.to_owned()),
            ..rule(pattern)
        };
        let always = |entry: AllowlistEntry| AllowlistEntry { source: Some("allow-always".into()), ..entry };
        let git = &["git", "status"];
        check(rule("git"), git, false, true);
        check(rule("git"), &["/tmp/git", "status"], false, false);
        check(rule("/usr/lib/git-core/git"), git, false, true);
        check(rule("/usr/bin/git"), git, false, false);
        check(rule("~/bin/*"), git, false, false);
        check(rule("*"), git, false, true);
        check(rule("*"), git, true, false);
        check(rule("git"), git, true, false);
        check(with("git", "^status$"), git, false, false);
        let exact = hashed(&words(git), cwd);
        check(always(with("git", &exact)), git, true, true);
        check(always(with("git", &exact)), &["git", "push"], false, false);
        check(always(rule("git")), git, false, false);
    }
}
