//! A command taken apart: which programs it runs, as far as that is certain.

use std::path::Path;

use openclaw_protocol::method::exec::AllowlistEntry;

use super::{
    allowlist::{self, Candidate},
    document::NewRule,
    shell,
};
use crate::exec::{
    argv::{CommandLine, base_name, is_shell},
    programs::{self, Program},
};

/// Programs whose whole point is to run another one.
const CARRIERS: &[&str] = &[
    "env",
    "nice",
    "nohup",
    "ionice",
    "taskset",
    "chrt",
    "timeout",
    "stdbuf",
    "setsid",
    "xargs",
    "parallel",
    "find",
    "fd",
    "sudo",
    "doas",
    "su",
    "runuser",
    "pkexec",
    "busybox",
    "toybox",
    "watch",
    "strace",
    "ltrace",
    "gdb",
    "ssh",
    "chroot",
    "unshare",
    "nsenter",
    "flock",
    "time",
    "script",
    "expect",
    "systemd-run",
    "at",
    "batch",
    "screen",
    "tmux",
    "ld.so",
];
/// Shells whose plain words mean what [`shell::split`] says, and that read no file before a command of `-c`.
const PLAIN_SHELLS: &[&str] = &["sh", "bash", "dash", "ash"];
/// Where the system's own shells are. A file that is merely called `sh` is not looked through.
const SYSTEM_DIRS: &[&str] = &["/bin", "/usr/bin"];

/// One program of a command, with its words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub argv: Vec<String>,
    /// `None` when there is no such program.
    pub program: Option<Program>,
    /// What it runs is not told by its name.
    pub opaque: bool,
}

/// A command's programs. Empty when it was not understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Analysis {
    pub parts: Vec<Part>,
    /// A shell's line, rather than one program.
    pub shell: bool,
    /// False for a shell's line that was not understood: the only part is the shell itself.
    pub understood: bool,
}

/// What the allow-list says of a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// Every part is on it.
    pub listed: bool,
    /// Every part, by earlier decisions of a person for exactly these words.
    pub always: bool,
}

/// Takes a command apart.
pub fn analyse(line: &CommandLine, cwd: &Path, search_path: &str) -> Analysis {
    let part = |argv: Vec<String>| {
        let program = argv.first().and_then(|word| programs::resolve(word, cwd, search_path));
        let names = argv.first().map(String::as_str).into_iter().map(base_name);
        let real = program.as_ref().and_then(|p| p.real.file_name()).map(|name| name.to_string_lossy().into_owned());
        let opaque = is_shell(&argv) || names.chain(real.as_deref()).any(|name| CARRIERS.contains(&name));
        Part { argv, program, opaque }
    };
    if line.shell.is_none() {
        return Analysis { parts: vec![part(line.argv.clone())], shell: false, understood: true };
    }
    let lines = match line.argv.as_slice() {
        [program, flag, text] if flag == "-c" && is_system_shell(program, cwd, search_path) => shell::split(text),
        _ => None,
    };
    match lines {
        Some(lines) => Analysis { parts: lines.into_iter().map(part).collect(), shell: true, understood: true },
        None => {
            let whole = Part { opaque: true, ..part(line.argv.clone()) };
            Analysis { parts: vec![whole], shell: true, understood: false }
        }
    }
}

fn is_system_shell(word: &str, cwd: &Path, search_path: &str) -> bool {
    programs::resolve(word, cwd, search_path).is_some_and(|program| {
        let dir = program.path.parent().and_then(Path::to_str);
        PLAIN_SHELLS.contains(&base_name(word)) && dir.is_some_and(|dir| SYSTEM_DIRS.contains(&dir))
    })
}

impl Analysis {
    /// Compares every part with the allow-list.
    pub fn compare(&self, rules: &[AllowlistEntry], cwd: &Path, home: Option<&Path>) -> Match {
        let found: Vec<_> = self
            .parts
            .iter()
            .map(|part| {
                let program = part.program.as_ref()?;
                allowlist::find(rules, Candidate { program, argv: &part.argv, cwd, opaque: part.opaque }, home)
            })
            .collect();
        let each =
            |test: fn(&AllowlistEntry) -> bool| !found.is_empty() && found.iter().all(|rule| rule.is_some_and(test));
        Match { listed: each(|_| true), always: each(|rule| rule.source.as_deref() == Some("allow-always")) }
    }

    /// The entries that "always" would write: one for each part, for exactly its words in this directory. `None` when a
    /// part has no program, or it was not understood, so that it can be allowed once and not for always.
    pub fn always(&self, cwd: &Path) -> Option<Vec<NewRule>> {
        if !self.understood {
            return None;
        }
        let rule = |part: &Part| {
            let program = part.program.as_ref()?;
            // The reference names the program as the search path finds it and compares with the file behind it; both
            // are the same unless there is a link.
            let pattern = program.real.to_string_lossy().into_owned();
            Some(NewRule { pattern, arg_pattern: Some(allowlist::hashed(&part.argv, cwd)) })
        };
        let mut rules = self.parts.iter().map(rule).collect::<Option<Vec<_>>>()?;
        rules.sort();
        rules.dedup();
        (!rules.is_empty()).then_some(rules)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::exec::argv;

    const PATH: &str = "/usr/bin:/bin";

    fn analysed(words: &[&str]) -> Analysis {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        analyse(&argv::resolve(&words, None).unwrap(), Path::new("/"), PATH)
    }

    fn rules(patterns: &[&str]) -> Vec<AllowlistEntry> {
        patterns.iter().map(|pattern| serde_json::from_value(json!(pattern)).unwrap()).collect()
    }

    #[test]
    fn what_the_allow_list_covers() {
        let check = |words: &[&str], patterns: &[&str], expected: bool| {
            let matched = analysed(words).compare(&rules(patterns), Path::new("/"), None);
            assert_eq!(matched.listed, expected, "{words:?} by {patterns:?}");
        };
        check(&["ls", "-l"], &["ls"], true);
        check(&["ls", "-l"], &["cat"], false);
        check(&["/bin/sh", "-c", "ls && cat x"], &["ls", "cat"], true);
        check(&["/bin/sh", "-c", "ls && cat x"], &["ls"], false);
        check(&["sh", "-c", "ls | cat"], &["ls", "cat"], true);
        check(&["/bin/sh", "-c", "ls $(cat x)"], &["ls", "cat", "*"], false);
        check(&["/bin/sh", "-c", "ls; no-such-program"], &["*"], false);
        check(&["bash", "-lc", "ls"], &["ls", "bash"], false);
        check(&["env", "ls"], &["env", "ls", "*"], false);
        check(&["find", "/", "-exec", "rm", "{}", ";"], &["find", "/usr/bin/find"], false);
        check(&["/bin/sh", "-c", "xargs rm"], &["*"], false);
        check(&["no-such-program"], &["*"], false);
        check(&["sh", "script"], &["sh", "*"], false);
    }

    #[test]
    fn a_file_called_sh_is_no_shell() {
        let dir = tempfile::tempdir().unwrap();
        let fake = dir.path().join("sh");
        std::fs::copy("/bin/true", &fake).unwrap();
        let fake = fake.to_str().unwrap();
        let matched = analysed(&[fake, "-c", "ls"]).compare(&rules(&["ls"]), Path::new("/"), None);
        assert!(!matched.listed);
    }

    #[test]
    fn always_is_for_these_words_here() {
        let line = analysed(&["/bin/sh", "-c", "ls -l && cat x"]);
        let written: Vec<AllowlistEntry> = line
            .always(Path::new("/"))
            .unwrap()
            .into_iter()
            .map(|rule| AllowlistEntry {
                pattern: rule.pattern,
                arg_pattern: rule.arg_pattern,
                source: Some("allow-always".into()),
                ..AllowlistEntry::default()
            })
            .collect();
        assert_eq!(line.compare(&written, Path::new("/"), None), Match { listed: true, always: true });
        let elsewhere = line.compare(&written, Path::new("/tmp"), None);
        let other = analysed(&["/bin/sh", "-c", "ls -l && cat y"]).compare(&written, Path::new("/"), None);
        assert_eq!((elsewhere, other), (Match::default(), Match::default()));
        // What was not understood is allowed once at a time.
        assert_eq!(analysed(&["/bin/sh", "-c", "ls $HOME"]).always(Path::new("/")), None);
        assert_eq!(analysed(&["no-such-program"]).always(Path::new("/")), None);
    }
}
