//! Questions on the terminal, for commands that need a word more. Nobody is asked where nobody can answer.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};

use openclaw_protocol::Secret;

use crate::{
    failure::Failure,
    output::{self, inert},
};

/// A key is one line; the longest known (signed tokens) have a few KiB.
const MAX_LINE: u64 = 64 << 10;

/// Whether somebody sits there.
pub fn is_possible() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// One line of stdin.
fn line() -> Result<String, Failure> {
    let mut line = String::new();
    let read = io::stdin().lock().take(MAX_LINE).read_line(&mut line);
    read.map_err(|error| Failure::new(format!("stdin cannot be read: {error}.")))?;
    Ok(line.trim().to_owned())
}

/// A secret from stdin, as `--key -` has it: arguments would be seen by others.
pub fn secret_from_stdin(what: &str) -> Result<Secret, Failure> {
    let text = line()?;
    Secret::from_input(&text).ok_or_else(|| Failure::new(format!("No {what} came on stdin; nothing was changed.")))
}

/// Asks without showing what is typed.
pub fn hidden(question: &str, what: &str) -> Result<Secret, Failure> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    eprint!("{question}");
    let stdin = io::stdin();
    let before = tcgetattr(&stdin).ok();
    if let Some(before) = &before {
        let mut hidden = before.clone();
        hidden.local_modes -= LocalModes::ECHO;
        let _ = tcsetattr(&stdin, OptionalActions::Now, &hidden);
    }
    let text = line();
    if let Some(before) = &before {
        let _ = tcsetattr(&stdin, OptionalActions::Now, before);
    }
    eprintln!();
    Secret::from_input(&text?).ok_or_else(|| Failure::new(format!("No {what} was typed; nothing was changed.")))
}

/// Lets one of several be chosen, by number or by name.
pub fn choose(question: &str, choices: &[String]) -> Result<String, Failure> {
    for (number, choice) in choices.iter().enumerate() {
        output::note(format!("  {:>3}  {}", number + 1, inert(choice)));
    }
    eprint!("{question} ");
    let typed = line()?;
    let by_number = typed.parse::<usize>().ok().and_then(|number| choices.get(number.checked_sub(1)?));
    match by_number.or_else(|| choices.iter().find(|choice| **choice == typed)) {
        Some(choice) => Ok(choice.clone()),
        None => Err(Failure::new(format!("\"{}\" is none of them; nothing was changed.", inert(&typed)))),
    }
}
