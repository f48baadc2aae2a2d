//! `openclaw completion`: reads no config and connects to nothing.
//!
//! clap writes the scripts from the command line's definition. What it cannot know are the names of the saved connections;
//! here the scripts learn to ask for them, with `openclaw connections ls --names`, when a name is wanted.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::{
    args::{self, Cli},
    failure::{Failure, Outcome},
    output,
};

/// Prints the names, one a line.
const NAMES: &str = "openclaw connections ls --names 2>/dev/null";
/// Commands that take the name of a connection as a word, beside `--on`.
const TAKE_NAMES: &[(&str, &[&str])] =
    &[("connections", &["show", "use", "rename", "rm"]), ("tunnel", &["up", "down", "logs"])];

pub fn run(args: &args::Completion) -> Outcome {
    let shell = match args.shell.or_else(Shell::from_env) {
        Some(shell @ (Shell::Bash | Shell::Zsh | Shell::Fish | Shell::PowerShell)) => shell,
        _ => return Err(Failure::new("--shell must be one of: bash, zsh, fish, powershell")),
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "openclaw", &mut script);
    output::print(&with_names(shell, &String::from_utf8_lossy(&script)));
    Ok(0)
}

fn with_names(shell: Shell, script: &str) -> String {
    match shell {
        Shell::Bash => bash(script),
        Shell::Zsh => zsh(script),
        Shell::Fish => fish(script),
        _ => powershell(script),
    }
}

fn bash(script: &str) -> String {
    let files = "                --on)\n                    COMPREPLY=($(compgen -f \"${cur}\"))";
    let names =
        format!("                --on)\n                    COMPREPLY=($(compgen -W \"$({NAMES})\" -- \"${{cur}}\"))");
    let mut script = script.replace(files, &names);
    for (command, subcommands) in TAKE_NAMES {
        for subcommand in *subcommands {
            let before = format!("        openclaw__subcmd__{command}__subcmd__{subcommand})\n            opts=\"");
            script = script.replace(&before, &format!("{before}$({NAMES}) "));
        }
    }
    script
}

fn zsh(script: &str) -> String {
    let mut out = String::with_capacity(script.len());
    for line in script.split_inclusive('\n') {
        let name = line.starts_with("'--on=[")
            || [":name -- Name of the connection", "::name -- Name of the connection", ":name -- Present name"]
                .iter()
                .any(|start| line.strip_prefix('\'').is_some_and(|line| line.starts_with(start)));
        out.push_str(&if name { line.replace(":_default'", ":_openclaw_names'") } else { line.to_owned() });
    }
    let ask = format!(
        "(( $+functions[_openclaw_names] )) ||\n_openclaw_names() {{\n    local -a names\n    \
         names=(${{(f)\"$({NAMES})\"}})\n    compadd -a names\n}}\n\n"
    );
    // The last lines call or register what is defined before them.
    let end = out.rfind("if [ \"$funcstack[1]\"").unwrap_or(out.len());
    out.insert_str(end, &ask);
    out
}

fn fish(script: &str) -> String {
    let mut out = String::with_capacity(script.len());
    for line in script.lines() {
        out.push_str(line);
        if line.contains(" -l on ") {
            out.push_str(&format!(" -f -a \"({NAMES})\""));
        }
        out.push('\n');
    }
    for (command, subcommands) in TAKE_NAMES {
        let words = subcommands.join(" ");
        out.push_str(&format!(
            "complete -c openclaw -n \"__fish_openclaw_using_subcommand {command}; and __fish_seen_subcommand_from \
             {words}\" -f -a \"({NAMES})\"\n"
        ));
    }
    out
}

fn powershell(script: &str) -> String {
    const BEFORE: &str = "    $completions = @(switch ($command) {";
    const ASK: &str = "    # A name is wanted right after --on.
    $words = @($commandElements | ForEach-Object { $_.ToString() })
    $last = if ($wordToComplete) { $words.Count - 2 } else { $words.Count - 1 }
    if ($last -ge 1 -and $words[$last] -eq '--on') {
        return openclaw connections ls --names | Where-Object { $_ -like \"$wordToComplete*\" } |
            ForEach-Object { [CompletionResult]::new($_, $_, [CompletionResultType]::ParameterValue, $_) }
    }

";
    script.replacen(BEFORE, &format!("{ASK}{BEFORE}"), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is looked for in clap's scripts is there: a new version of clap that writes them differently is noticed here.
    #[test]
    fn every_shell_asks_for_names() {
        for (shell, at_least) in [(Shell::Bash, 20), (Shell::Zsh, 1), (Shell::Fish, 20), (Shell::PowerShell, 1)] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "openclaw", &mut script);
            let script = with_names(shell, &String::from_utf8(script).expect("text"));
            let asked = script.matches("openclaw connections ls --names").count();
            assert!(asked >= at_least, "{shell}: {asked}");
        }
        let mut script = Vec::new();
        clap_complete::generate(Shell::Zsh, &mut Cli::command(), "openclaw", &mut script);
        let script = zsh(&String::from_utf8(script).expect("text"));
        assert!(script.matches(":_openclaw_names'").count() > 20);
        assert!(!script.contains("connections ls), or \"local\" for the one on this machine]:NAME:_default"));
    }
}
