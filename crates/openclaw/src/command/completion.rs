//! `openclaw completion`: reads no config and connects to nothing.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::{
    args::{self, Cli},
    failure::{Failure, Outcome},
    output,
};

pub fn run(args: &args::Completion) -> Outcome {
    let shell = match args.shell.or_else(Shell::from_env) {
        Some(shell @ (Shell::Bash | Shell::Zsh | Shell::Fish | Shell::PowerShell)) => shell,
        _ => return Err(Failure::new("--shell must be one of: bash, zsh, fish, powershell")),
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "openclaw", &mut script);
    output::print(&String::from_utf8_lossy(&script));
    Ok(0)
}
