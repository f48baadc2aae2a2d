//! The words of a request, and the text people are shown for them. The text is always made from the words, so that what
//! is approved is what runs (P-58).

/// Shells that take a command as text.
const SHELLS: &[&str] = &["sh", "bash", "dash", "zsh", "ksh", "ash", "fish"];
/// Their applets in one binary.
const MULTIPLEXERS: &[&str] = &["busybox", "toybox"];
/// Wrappers looked through, nested at most so deep.
const MAX_WRAPPERS: usize = 4;
/// Longest command line: the kernel's limit on Linux for one string is 128 KiB.
const MAX_ARGV_BYTES: usize = 128 * 1024;
const MAX_WORDS: usize = 4096;

/// A command as it would run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    pub argv: Vec<String>,
    /// The words with the least quoting that shows them: what people approve.
    pub text: String,
    /// What a shell in it would interpret.
    pub shell: Option<String>,
    /// The shell's text where nothing around it changes what it means; shown below `text`.
    pub preview: Option<String>,
}

/// Why a request's words are refused. The texts are the reference's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCommand {
    #[error("command required")]
    Empty,
    #[error("rawCommand requires params.command")]
    RawOnly,
    #[error("INVALID_REQUEST: rawCommand does not match command")]
    RawMismatch,
    #[error("INVALID_REQUEST: command must not contain NUL")]
    Nul,
    #[error("INVALID_REQUEST: command is longer than {MAX_ARGV_BYTES} bytes or {MAX_WORDS} words")]
    TooLong,
}

/// The words with the least quoting that shows them, as the reference formats them.
pub fn format_command(argv: &[String]) -> String {
    let word = |word: &String| {
        if word.is_empty() {
            "\"\"".to_owned()
        } else if word.contains(|c: char| c.is_whitespace() || c == '"') {
            format!("\"{}\"", word.replace('"', "\\\""))
        } else {
            word.clone()
        }
    };
    argv.iter().map(word).collect::<Vec<_>>().join(" ")
}

/// Settles what `command` means. `raw` is what the caller would show; it has to be either text this function makes.
///
/// # Errors
/// [`BadCommand`].
pub fn resolve(command: &[String], raw: Option<&str>) -> Result<CommandLine, BadCommand> {
    let raw = raw.map(str::trim).filter(|raw| !raw.is_empty());
    if command.is_empty() || command[0].trim().is_empty() {
        return Err(if raw.is_some() && command.is_empty() { BadCommand::RawOnly } else { BadCommand::Empty });
    }
    if command.iter().any(|word| word.contains('\0')) {
        return Err(BadCommand::Nul);
    }
    if command.len() > MAX_WORDS || command.iter().map(String::len).sum::<usize>() > MAX_ARGV_BYTES {
        return Err(BadCommand::TooLong);
    }
    let text = format_command(command);
    let shell = shell_of(command);
    let preview = shell.as_ref().filter(|shell| !shell.assigns).map(|shell| shell.text.trim().to_owned());
    if raw.is_some_and(|raw| raw != text.trim() && Some(raw) != preview.as_deref()) {
        return Err(BadCommand::RawMismatch);
    }
    Ok(CommandLine { argv: command.to_vec(), text, shell: shell.map(|shell| shell.text), preview })
}

struct Shell {
    text: String,
    /// Variables are set on the way to it.
    assigns: bool,
}

/// The name of a program by its path.
pub fn base_name(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

/// True when the program itself interprets text: a shell, by whatever path and behind whatever wrapper.
pub fn is_shell(argv: &[String]) -> bool {
    argv.iter().take(MAX_WRAPPERS * 3).any(|word| SHELLS.contains(&base_name(word)))
        && unwrapped(argv).is_some_and(|(rest, _)| rest.first().is_some_and(|word| SHELLS.contains(&base_name(word))))
}

fn shell_of(argv: &[String]) -> Option<Shell> {
    let (rest, assigns) = unwrapped(argv)?;
    let (program, args) = rest.split_first()?;
    if !SHELLS.contains(&base_name(program)) {
        return None;
    }
    let at = args.iter().position(|arg| arg == "--" || !arg.starts_with('-') || takes_text(arg))?;
    if !takes_text(&args[at]) {
        return None;
    }
    // With words after the text, the text is not all there is to see.
    match &args[at + 1..] {
        [text] if !text.trim().is_empty() => Some(Shell { text: text.clone(), assigns }),
        [text, rest @ ..] if !text.trim().is_empty() && rest.iter().all(|word| word.trim().is_empty()) => {
            Some(Shell { text: text.clone(), assigns })
        }
        _ => None,
    }
}

/// `-c`, `--command`, and bundles that end in `c`.
fn takes_text(arg: &str) -> bool {
    arg == "--command"
        || arg.strip_prefix('-').is_some_and(|flags| {
            !flags.starts_with('-') && flags.ends_with('c') && flags.bytes().all(|b| b.is_ascii_alphabetic())
        })
}

/// Looks through wrappers that change nothing about the program but its priority, variables or hangup.
fn unwrapped(argv: &[String]) -> Option<(&[String], bool)> {
    let (mut rest, mut assigns) = (argv, false);
    for _ in 0..=MAX_WRAPPERS {
        let (program, args) = rest.split_first()?;
        rest = match base_name(program) {
            "env" => {
                let set = args.iter().take_while(|arg| is_assignment(arg)).count();
                assigns |= set > 0;
                if args.get(set).is_some_and(|arg| arg.starts_with('-')) {
                    return None;
                }
                &args[set..]
            }
            "nice" => match args {
                [flag, _, rest @ ..] if flag == "-n" || flag == "--adjustment" => rest,
                [flag, rest @ ..] if flag.starts_with("-n") || flag.starts_with("--adjustment=") => rest,
                [flag, ..] if flag.starts_with('-') => return None,
                rest => rest,
            },
            "nohup" => args,
            name if MULTIPLEXERS.contains(&name) => args,
            _ => return Some((rest, assigns)),
        };
    }
    None
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    /// Answers of release 2026.9.6 to the same questions.
    #[test]
    fn texts_are_the_references() {
        for (argv, text) in [
            (&["echo", "hi"][..], "echo hi"),
            (&["/bin/sh", "-c", "echo hi"], "/bin/sh -c \"echo hi\""),
            (&["a", ""], "a \"\""),
            (&["a", "b \"c\""], "a \"b \\\"c\\\"\""),
            (&["a", "tab\t"], "a \"tab\t\""),
            (&["a", "n\nl"], "a \"n\nl\""),
            (&["a", "'q'"], "a 'q'"),
        ] {
            assert_eq!(format_command(&words(argv)), text);
        }
    }

    /// Answers of release 2026.9.6 to the same questions.
    #[test]
    fn shells_are_recognised_as_the_reference_does() {
        let check = |argv: &[&str], shell: Option<&str>, preview: Option<&str>| {
            let line = resolve(&words(argv), None).expect("a command");
            assert_eq!((line.shell.as_deref(), line.preview.as_deref()), (shell, preview), "{argv:?}");
        };
        let ls = Some("ls");
        check(&["/bin/sh", "-c", "echo hi"], Some("echo hi"), Some("echo hi"));
        check(&["bash", "-lc", "ls -l", "x"], None, None);
        check(&["env", "A=1", "sh", "-c", "ls"], ls, None);
        check(&["env", "sh", "-c", "ls"], ls, ls);
        check(&["sh", "-cls"], None, None);
        check(&["sh", "-ec", "ls"], ls, ls);
        check(&["sh", "x.sh"], None, None);
        check(&["busybox", "sh", "-c", "ls"], ls, ls);
        check(&["nice", "-n", "5", "sh", "-c", "ls"], ls, ls);
        check(&["sh", "-x", "-c", "ls"], ls, ls);
        check(&["sh", "--", "-c", "ls"], None, None);
        check(&["sh", "-c"], None, None);
        check(&["fish", "-c", "ls"], ls, ls);
        check(&["zsh", "--command", "ls"], ls, ls);
        check(&["echo", "sh", "-c", "ls"], None, None);
    }

    #[test]
    fn p_58_shown_and_run_are_the_same() {
        let check = |argv: &[&str], raw: Option<&str>, expected: Result<&str, BadCommand>| {
            assert_eq!(
                resolve(&words(argv), raw).map(|line| line.text),
                expected.map(str::to_owned),
                "{argv:?} {raw:?}"
            );
        };
        let shell = "/bin/sh -c \"echo hi\"";
        check(&["/bin/sh", "-c", "echo hi"], Some("echo hi"), Ok(shell));
        check(&["/bin/sh", "-c", "echo hi"], Some(shell), Ok(shell));
        check(&["/bin/sh", "-c", "echo hi"], Some("echo ho"), Err(BadCommand::RawMismatch));
        check(&["/bin/sh", "-c", "echo hi\nrm x"], Some("echo hi"), Err(BadCommand::RawMismatch));
        check(&["env", "A=1", "sh", "-c", "ls"], Some("ls"), Err(BadCommand::RawMismatch));
        check(&["bash", "-c", "ls", "x"], Some("ls"), Err(BadCommand::RawMismatch));
        check(&["echo", "hi"], Some(" echo hi "), Ok("echo hi"));
        check(&["echo", "a\0b"], None, Err(BadCommand::Nul));
        check(&["/bin/ls\0"], None, Err(BadCommand::Nul));
        check(&[], Some("ls"), Err(BadCommand::RawOnly));
        check(&[], None, Err(BadCommand::Empty));
        check(&[" "], None, Err(BadCommand::Empty));
        check(&["x", &"y".repeat(MAX_ARGV_BYTES)], None, Err(BadCommand::TooLong));
    }

    #[test]
    fn shells_hide_behind_paths_and_wrappers() {
        for argv in [&["/bin/bash", "x"][..], &["env", "A=1", "zsh"], &["nohup", "nice", "sh"], &["busybox", "ash"]] {
            assert!(is_shell(&words(argv)), "{argv:?}");
        }
        for argv in [&["echo", "sh"][..], &["git", "-c", "x"], &["/opt/bashful"]] {
            assert!(!is_shell(&words(argv)), "{argv:?}");
        }
    }
}
