//! Usage errors in the reference's words (exit code 1), help and version.

use std::process::ExitCode;

use clap::{
    CommandFactory as _, Parser as _,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::{
    args::{Cli, Command},
    output::{self, inert},
};

/// Parses the command line, or prints what is to be printed and gives the exit code.
pub fn parse() -> Result<Cli, ExitCode> {
    let words: Vec<std::ffi::OsString> = std::env::args_os().collect();
    // Asked for by scripts and prompts all the time; it needs none of the rest.
    if let [_, only] = words.as_slice()
        && (only == "--version" || only == "-V")
    {
        output::line(crate::version::LONG);
        return Err(ExitCode::SUCCESS);
    }
    read(&words).map_err(|error| {
        let json = words.iter().skip(1).any(|word| word == "--json");
        report(&error, &words, json)
    })
}

fn read(words: &[std::ffi::OsString]) -> Result<Cli, clap::Error> {
    let cli = Cli::try_parse_from(words)?;
    match &cli.command {
        Command::Gateway(gateway) if gateway.mixes() => {
            let text = "options of the gateway itself stand after it, as in: openclaw gateway run --port 18789";
            Err(Cli::command().error(ErrorKind::ArgumentConflict, text))
        }
        _ => Ok(cli),
    }
}

fn report(error: &clap::Error, words: &[std::ffi::OsString], json: bool) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayVersion => {
            output::line(crate::version::LONG);
            return ExitCode::SUCCESS;
        }
        ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let style = output::Output::detect(words.iter().any(|word| word == "--no-color"));
            let text = error.render();
            let help = error.kind() == ErrorKind::DisplayHelp;
            let colored = if help { style.out } else { style.err }.colored();
            let text = if colored { text.ansi().to_string() } else { text.to_string() };
            if help {
                output::print(&text);
                return ExitCode::SUCCESS;
            }
            output::note(text.trim_end());
            return ExitCode::from(1);
        }
        _ => {}
    }
    let path = command_path(words);
    let lines = explain(error, &path);
    if json {
        let envelope = serde_json::json!({"ok": false, "error": {"type": "cli_error", "message": lines[0]}});
        output::json(&envelope);
    }
    lines.iter().for_each(output::note);
    ExitCode::from(1)
}

/// The command that was meant, for "Try: openclaw <command> --help".
fn command_path(words: &[std::ffi::OsString]) -> String {
    let mut path = vec!["openclaw".to_owned()];
    let mut command = Cli::command();
    for word in words.iter().skip(1).filter_map(|word| word.to_str()) {
        let Some(found) = command.find_subcommand(word).cloned() else { continue };
        path.push(found.get_name().to_owned());
        command = found;
    }
    path.join(" ")
}

fn explain(error: &clap::Error, path: &str) -> Vec<String> {
    let context = |kind: ContextKind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(inert(text).into_owned()),
        // Of several suggestions the last is the nearest.
        Some(ContextValue::Strings(texts)) => texts.last().map(|text| inert(text).into_owned()),
        _ => None,
    };
    let mut lines = Vec::new();
    match error.kind() {
        ErrorKind::UnknownArgument => {
            let argument = context(ContextKind::InvalidArg).unwrap_or_default();
            let option = argument.split('=').next().unwrap_or_default().to_owned();
            if option.starts_with('-') {
                lines.push(format!("OpenClaw does not recognize option \"{option}\"."));
            } else if path == "openclaw" {
                lines.push(format!("OpenClaw does not know the command \"{option}\"."));
            } else {
                lines.push(format!("OpenClaw {} has no command \"{option}\".", &path["openclaw ".len()..]));
            }
            lines.extend(context(ContextKind::SuggestedArg).map(|arg| format!("Did you mean \"{arg}\"?")));
        }
        ErrorKind::InvalidSubcommand => {
            let word = context(ContextKind::InvalidSubcommand).unwrap_or_default();
            lines.push(match path.strip_prefix("openclaw ") {
                Some(parent) => format!("OpenClaw {parent} has no command \"{word}\"."),
                None => format!("OpenClaw does not know the command \"{word}\"."),
            });
            lines.extend(context(ContextKind::SuggestedSubcommand).map(|word| format!("Did you mean \"{word}\"?")));
        }
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            let argument = context(ContextKind::InvalidArg).unwrap_or_default();
            let argument = argument.split(' ').next().unwrap_or_default().to_owned();
            let value = context(ContextKind::InvalidValue).unwrap_or_default();
            let reason = std::error::Error::source(error).map(ToString::to_string);
            let allowed = match error.get(ContextKind::ValidValue) {
                Some(ContextValue::Strings(values)) if !values.is_empty() => {
                    Some(format!("must be one of: {}", values.join(", ")))
                }
                _ => None,
            };
            // The value is not repeated: it may be a secret that landed in the wrong place.
            lines.push(match allowed.or(reason) {
                Some(reason) if !value.is_empty() => format!("{argument} {reason}."),
                _ => format!("{argument} needs a value."),
            });
        }
        _ => {
            // "error: …" and a usage block; the first paragraph says it.
            let text = error.render().to_string();
            let first: Vec<&str> =
                text.trim_start_matches("error: ").lines().take_while(|line| !line.trim().is_empty()).collect();
            lines.push(first.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" "));
        }
    }
    lines.push(format!("Try: {path} --help"));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(line: &str) -> Vec<String> {
        let words: Vec<std::ffi::OsString> = line.split(' ').map(Into::into).collect();
        let error = read(&words).expect_err(line);
        explain(&error, &command_path(&words))
    }

    /// The texts of release 2026.9.6.
    #[test]
    fn unknown_words() {
        for (line, first, last) in [
            ("openclaw foo", "OpenClaw does not know the command \"foo\".", "Try: openclaw --help"),
            (
                "openclaw gateway --bogus",
                "OpenClaw does not recognize option \"--bogus\".",
                "Try: openclaw gateway --help",
            ),
            ("openclaw gateway fly", "OpenClaw gateway has no command \"fly\".", "Try: openclaw gateway --help"),
            ("openclaw devices foo", "OpenClaw devices has no command \"foo\".", "Try: openclaw devices --help"),
            (
                "openclaw health --url ws://h",
                "OpenClaw does not recognize option \"--url\".",
                "Try: openclaw health --help",
            ),
            (
                "openclaw health --timeout abc",
                "--timeout must be a positive integer (milliseconds).",
                "Try: openclaw health --help",
            ),
            ("openclaw health --timeout", "--timeout needs a value.", "Try: openclaw health --help"),
            (
                "openclaw gateway --port 1 status",
                "options of the gateway itself stand after it, as in: openclaw gateway run --port 18789",
                "Try: openclaw gateway status --help",
            ),
        ] {
            let lines = explained(line);
            assert_eq!((lines[0].as_str(), lines[lines.len() - 1].as_str()), (first, last), "{line}");
        }
    }

    #[test]
    fn near_misses_are_named() {
        assert_eq!(explained("openclaw helth")[1], "Did you mean \"health\"?");
        assert_eq!(explained("openclaw gateway --prot 1")[1], "Did you mean \"--port\"?");
    }

    #[test]
    fn a_wrong_value_is_not_repeated() {
        assert!(!explained("openclaw health --timeout s3cret").join(" ").contains("s3cret"));
    }
}
