//! Taking a line of shell apart, as far as that is certain: plain words, quotes without expansion, and the operators
//! between commands. Anything else means "not understood", and then a person has to look at it.

/// Words a shell acts upon itself, rather than running a program of that name. Those that do the same as the program
/// of their name (`echo`, `test`, `pwd`, …) are not listed.
const NOT_PROGRAMS: &[&str] = &[
    ".",
    ":",
    "!",
    "[[",
    "]]",
    "{",
    "}",
    "alias",
    "bg",
    "bind",
    "break",
    "builtin",
    "caller",
    "case",
    "cd",
    "command",
    "compgen",
    "complete",
    "continue",
    "coproc",
    "declare",
    "dirs",
    "disown",
    "do",
    "done",
    "elif",
    "else",
    "enable",
    "esac",
    "eval",
    "exec",
    "exit",
    "export",
    "fc",
    "fg",
    "fi",
    "for",
    "function",
    "getopts",
    "hash",
    "help",
    "history",
    "if",
    "in",
    "jobs",
    "let",
    "local",
    "logout",
    "mapfile",
    "popd",
    "pushd",
    "read",
    "readarray",
    "readonly",
    "return",
    "select",
    "set",
    "shift",
    "shopt",
    "source",
    "suspend",
    "then",
    "time",
    "times",
    "trap",
    "type",
    "typeset",
    "ulimit",
    "umask",
    "unalias",
    "unset",
    "until",
    "wait",
    "while",
];

/// The commands of a line, each as its words; `None` if any of it is not understood.
pub fn split(text: &str) -> Option<Vec<Vec<String>>> {
    let mut commands: Vec<Vec<String>> = vec![Vec::new()];
    let mut word: Option<String> = None;
    // Quoting makes a word out of nothing, and keeps a keyword from being one.
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' => end_word(&mut commands, &mut word)?,
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '"' => break,
                        '$' | '`' | '\\' | '!' => return None,
                        c => word.push(c),
                    }
                }
            }
            ';' => next_command(&mut commands, &mut word)?,
            '|' | '&' => {
                let doubled = chars.next_if_eq(&c).is_some();
                // A single `&` runs something in the background; `|&` is bash's own.
                if (c == '&' && !doubled) || (c == '|' && !doubled && chars.peek() == Some(&'&')) {
                    return None;
                }
                next_command(&mut commands, &mut word)?;
            }
            // Expansion, redirection, grouping, comments, patterns, history, escapes, more lines.
            '$' | '`' | '\\' | '<' | '>' | '(' | ')' | '{' | '}' | '[' | ']' | '*' | '?' | '#' | '!' | '~' | '\n'
            | '\r' | '^' | '%' => return None,
            c if c.is_control() || (c.is_whitespace() && c != ' ') => return None,
            c => word.get_or_insert_default().push(c),
        }
    }
    end_word(&mut commands, &mut word)?;
    // A trailing semicolon is fine, a trailing operator is not worth telling apart.
    if commands.last().is_some_and(Vec::is_empty) && text.trim_end().ends_with(';') {
        commands.pop();
    }
    let understood = !commands.is_empty()
        && commands.iter().all(|words| {
            words.first().is_some_and(|first| {
                !first.is_empty() && !first.contains('=') && !NOT_PROGRAMS.contains(&first.as_str())
            })
        });
    understood.then_some(commands)
}

fn end_word(commands: &mut [Vec<String>], word: &mut Option<String>) -> Option<()> {
    if let Some(word) = word.take() {
        commands.last_mut()?.push(word);
    }
    Some(())
}

fn next_command(commands: &mut Vec<Vec<String>>, word: &mut Option<String>) -> Option<()> {
    end_word(commands, word)?;
    if commands.last()?.is_empty() {
        return None;
    }
    commands.push(Vec::new());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn understood() {
        let check = |text: &str, expected: &[&[&str]]| {
            let expected: Vec<Vec<String>> =
                expected.iter().map(|words| words.iter().map(|w| (*w).to_owned()).collect()).collect();
            assert_eq!(split(text), Some(expected), "{text}");
        };
        check("echo hi", &[&["echo", "hi"]]);
        check("  git   status ;", &[&["git", "status"]]);
        check(
            "make && ./run 'a b' || echo \"no luck\"; ls -l",
            &[&["make"], &["./run", "a b"], &["echo", "no luck"], &["ls", "-l"]],
        );
        check("cat x | grep ''", &[&["cat", "x"], &["grep", ""]]);
        check("e'ch'o '$HOME' '`id`'", &[&["echo", "$HOME", "`id`"]]);
    }

    #[test]
    fn not_understood() {
        for text in [
            "",
            "  ",
            ";",
            "echo $HOME",
            "echo \"$HOME\"",
            "echo `id`",
            "echo $(id)",
            "echo a > b",
            "cat < x",
            "a & b",
            "a &",
            "a |& b",
            "(ls)",
            "{ ls; }",
            "A=1 ls",
            "eval ls",
            ". ./x",
            "source x",
            "cd /tmp",
            "exec ls",
            "ls *",
            "ls ?",
            "ls [a]",
            "~/x",
            "ls ~",
            "ls # x",
            "ls \\\n-l",
            "ls\nrm x",
            "ls\rrm x",
            "echo 'open",
            "echo \"open",
            "ls;;ls",
            "ls && && ls",
            "&& ls",
            "if true; then ls; fi",
            "! ls",
            "time ls",
            "command ls",
            "echo \"a!b\"",
            "echo {a,b}",
            "'' x",
            "echo a\u{a0}b",
            "\u{1}ls",
            "echo ok | ",
            "ls &&",
        ] {
            assert_eq!(split(text), None, "{text:?}");
        }
    }

    proptest::proptest! {
        /// Whatever is understood means the same to a real shell: printed word by word by `printf` it is the same.
        #[test]
        fn a_shell_agrees(text in "[a-z '\";|&$`\\\\<>()#*~!=-]{0,24}") {
            let Some(commands) = split(&format!("printf '%s\\n' {text}")) else { return Ok(()) };
            if commands.len() != 1 {
                return Ok(());
            }
            let output = std::process::Command::new("/bin/sh").args(["-c", &format!("printf '%s\\n' {text}")]).output().unwrap();
            let expected: String = if commands[0].len() == 2 { "\n".into() } else {
                commands[0][2..].iter().map(|word| format!("{word}\n")).collect()
            };
            proptest::prop_assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
        }
    }
}
