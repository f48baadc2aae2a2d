//! The guard as a program of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    let command: Vec<_> = std::env::args_os().skip(1).collect();
    ExitCode::from(openclaw_node::exec::guard::run(&command))
}
