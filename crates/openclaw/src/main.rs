//! `openclaw`: the gateway, and the command line to run and reach it.
//!
//! ```text
//! usage ─> args ─> command/* ─> reach ─> openclaw-remote
//!                     └─> output (stdout: data, stderr: talk), or a Failure with its exit code
//! ```

mod args;
mod command;
mod context;
mod failure;
mod output;
mod reach;
mod service;
mod usage;
mod version;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match usage::parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let as_json = cli.command.wants_json();
    let style = output::Output::detect(cli.root.no_color).err;
    match command::run(cli) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            failure.report(style, as_json);
            ExitCode::from(failure.exit_code())
        }
    }
}
