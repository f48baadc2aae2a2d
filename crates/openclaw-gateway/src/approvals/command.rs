//! The text of a command, rebuilt from the words that would run. It is the reference's form, so that nodes accept it.

/// Shells whose `-c` text may stand for the whole command.
const SHELLS: [&str; 7] = ["sh", "bash", "zsh", "dash", "ash", "ksh", "fish"];
const POWERSHELLS: [&str; 2] = ["powershell", "pwsh"];

/// The words with the least quoting: a word with white space or `"` in double quotes, an empty one as `""`.
pub fn text(argv: &[String]) -> String {
    let word = |word: &String| match word.as_str() {
        "" => "\"\"".to_owned(),
        plain if !plain.contains(|c: char| c == '"' || is_white(c)) => plain.to_owned(),
        other => format!("\"{}\"", other.replace('"', "\\\"")),
    };
    argv.iter().map(word).collect::<Vec<_>>().join(" ")
}

/// White space as JavaScript has it.
fn is_white(c: char) -> bool {
    (c.is_whitespace() && c != '\u{85}') || c == '\u{feff}'
}

/// The script of a plain shell call (`sh -c <script>` and nothing after it), trimmed.
pub fn preview(argv: &[String]) -> Option<&str> {
    let (program, rest) = argv.split_first()?;
    let name = program.rsplit(['/', '\\']).next().unwrap_or(program).to_ascii_lowercase();
    let name = name.strip_suffix(".exe").unwrap_or(&name);
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    let script = match (name, rest.as_slice()) {
        (name, ["-c" | "-lc" | "-ic" | "-lic" | "-ilc", script]) if SHELLS.contains(&name) => script,
        (name, ["-l" | "--login", "-c", script]) if SHELLS.contains(&name) => script,
        ("cmd", ["/c" | "/C", script] | ["/d", "/s", "/c", script]) => script,
        (name, [.., "-Command" | "-command" | "-c", script]) if POWERSHELLS.contains(&name) => script,
        _ => return None,
    };
    Some(script.trim()).filter(|script| !script.is_empty())
}

/// Words of a caller for what `argv` runs do not match it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    pub raw: String,
    pub expected: String,
}

/// Checks a caller's own text of the command: it has to be the text rebuilt from `argv`, or the script of a plain shell
/// call. Surrounding white space does not count, and is not passed on.
///
/// # Errors
/// [`Mismatch`]
pub fn checked_raw<'a>(argv: &[String], raw: &'a str) -> Result<Option<&'a str>, Mismatch> {
    let raw = raw.trim();
    if raw.is_empty() {
        return Ok(None);
    }
    let expected = text(argv);
    if raw == expected || preview(argv) == Some(raw) {
        return Ok(Some(raw));
    }
    Err(Mismatch { raw: raw.to_owned(), expected })
}

/// Programs that run the text they are given.
const EVALUATORS: [(&str, &[&str]); 8] = [
    ("python", &["-c"]),
    ("python3", &["-c"]),
    ("node", &["-e", "--eval", "-p", "--print"]),
    ("perl", &["-e", "-E"]),
    ("ruby", &["-e"]),
    ("php", &["-r"]),
    ("lua", &["-e"]),
    ("deno", &["eval"]),
];
/// Programs that run another one.
const CARRIERS: [&str; 14] = [
    "sudo", "doas", "su", "env", "xargs", "nohup", "setsid", "timeout", "nice", "ssh", "docker", "podman", "chroot",
    "nsenter",
];

/// What a reviewer should notice: code within the arguments, programs that start others.
pub fn risks(argv: &[String]) -> Vec<(&'static str, String)> {
    let Some((program, rest)) = argv.split_first() else { return Vec::new() };
    let name = program.rsplit('/').next().unwrap_or(program);
    let mut found = Vec::new();
    if let Some((_, flags)) = EVALUATORS.iter().find(|(evaluator, _)| *evaluator == name)
        && let Some(flag) = rest.iter().find(|word| flags.contains(&word.as_str()))
    {
        found.push(("inline-eval", format!("Contains inline-eval: {name} {flag}")));
    }
    if CARRIERS.contains(&name) {
        found.push(("command-carrier", format!("Contains command-carrier: {name}")));
    }
    if name == "find"
        && let Some(flag) = rest.iter().find(|word| matches!(word.as_str(), "-exec" | "-execdir" | "-ok" | "-delete"))
    {
        found.push(("command-carrier", format!("Contains command-carrier: find {flag}")));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argv(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    /// The first row is captured (`exec-approvals-system-run`, q3); the others are what `formatExecCommand` of release
    /// 2026.9.6 gives.
    #[test]
    fn texts() {
        let check = |words: &[&str], expected: &str| assert_eq!(text(&argv(words)), expected);
        check(&["/bin/sh", "-c", "echo hi"], "/bin/sh -c \"echo hi\"");
        check(&["echo", ""], "echo \"\"");
        check(&["echo", "a\"b"], "echo \"a\\\"b\"");
        check(&["echo", "a\nb"], "echo \"a\nb\"");
        check(&["echo", "a\u{a0}b"], "echo \"a\u{a0}b\"");
        check(&["echo", "$HOME;ls", "'x'"], "echo $HOME;ls 'x'");
        check(&["echo", "a\\b"], "echo a\\b");
        check(&[], "");
    }

    #[test]
    fn p_58_a_text_that_is_not_the_command_is_refused() {
        let fits = |words: &[&str], raw: &str, expected: Option<&str>| {
            assert_eq!(checked_raw(&argv(words), raw), Ok(expected), "{words:?} {raw:?}");
        };
        let shell = ["/bin/sh", "-c", "echo hi"];
        fits(&shell, "/bin/sh -c \"echo hi\"", Some("/bin/sh -c \"echo hi\""));
        fits(&shell, "echo hi", Some("echo hi"));
        fits(&shell, " echo hi \n", Some("echo hi"));
        fits(&shell, "  ", None);
        fits(&["/bin/bash", "-lc", "ls"], "ls", Some("ls"));
        fits(&["cmd.exe", "/d", "/s", "/c", "dir"], "dir", Some("dir"));
        fits(&["ls"], "ls", Some("ls"));
        let refused = |words: &[&str], raw: &str| {
            assert!(checked_raw(&argv(words), raw).is_err(), "{words:?} {raw:?}");
        };
        refused(&["rm", "-rf", "/"], "ls");
        refused(&["rm", "-rf", "/"], "rm -rf");
        refused(&["rm", "-rf", "/ "], "rm -rf /");
        refused(&["ls\0", "x"], "ls x");
        refused(&["ls", "\nrm"], "ls");
        // Positional words after the script change what it does, and so do wrappers and other programs.
        refused(&["/bin/sh", "-c", "$0 $1", "rm", "x"], "$0 $1");
        refused(&["/bin/sh", "-c", "echo hi", ""], "echo hi");
        refused(&["env", "X=1", "sh", "-c", "echo hi"], "echo hi");
        refused(&["/tmp/evil", "-c", "echo hi"], "echo hi");
        refused(&["sh", "-x", "-c", "echo hi"], "echo hi");
    }

    #[test]
    fn what_stands_out() {
        let check = |words: &[&str], expected: &[&str]| {
            let kinds: Vec<_> = risks(&argv(words)).into_iter().map(|(kind, _)| kind).collect();
            assert_eq!(kinds, expected, "{words:?}");
        };
        check(&["/bin/sh", "-c", "echo hi"], &[]);
        check(&["ls"], &[]);
        check(&["/usr/bin/python3", "-c", "x"], &["inline-eval"]);
        check(&["sudo", "ls"], &["command-carrier"]);
        check(&["find", ".", "-exec", "rm", "{}", ";"], &["command-carrier"]);
        check(&[], &[]);
    }
}
