//! Slash commands: text that the gateway answers itself, with or without a model.
//!
//! A command stands for a method and needs the same scope: over chat nobody can do what he could not do by calling the
//! method (P-56). Text of somebody who may not command is answered with a refusal and never reaches the model as an order.

mod answer;

pub use answer::answer;

use openclaw_protocol::Scope;

use super::{Authority, Origin, RunRequest};

/// A command and what follows its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    pub spec: &'static Spec,
    pub args: String,
}

/// What is known of a command.
#[derive(Debug, PartialEq, Eq)]
pub struct Spec {
    pub name: &'static str,
    pub aliases: &'static [&'static str],
    pub description: &'static str,
    /// `session`, `options`, `status`, `management`, `tools`.
    pub category: &'static str,
    pub needs: Need,
    /// Does something that must not be done twice.
    pub effects: bool,
    pub args: &'static [Arg],
}

/// Who may use a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Whoever may chat: it tells only what that chat knows already.
    Nothing,
    /// The scope of the method it stands for.
    Scope(Scope),
}

/// An argument, for `commands.list`.
#[derive(Debug, PartialEq, Eq)]
pub struct Arg {
    pub name: &'static str,
    pub description: &'static str,
    pub required: bool,
    pub choices: &'static [&'static str],
}

const fn arg(name: &'static str, description: &'static str, required: bool) -> Arg {
    Arg { name, description, required, choices: &[] }
}

const fn spec(name: &'static str, category: &'static str, needs: Need, description: &'static str) -> Spec {
    Spec { name, aliases: &[], description, category, needs, effects: false, args: &[] }
}

/// All of them, in the order `/help` lists them.
pub const COMMANDS: &[Spec] = &[
    Spec { aliases: &["commands"], ..spec("help", "status", Need::Nothing, "Show available commands.") },
    // status
    spec("status", "status", Need::Scope(Scope::Read), "Show the gateway, the model and this conversation."),
    spec("whoami", "status", Need::Nothing, "Show who you are to the gateway, and what you may do."),
    Spec {
        args: &[Arg { choices: &[], ..arg("name", "Node to describe", false) }],
        // node.list, node.describe
        ..spec("nodes", "status", Need::Scope(Scope::Read), "List paired nodes and what they offer.")
    },
    Spec {
        args: &[
            arg("node", "Node id or name", true),
            arg("command", "Command, such as system.notify", true),
            arg("params", "JSON object", false),
        ],
        effects: true,
        // node.invoke
        ..spec("invoke", "tools", Need::Scope(Scope::Write), "Run a command of a node.")
    },
    Spec {
        effects: true,
        // sessions.reset
        ..spec("new", "session", Need::Scope(Scope::Admin), "Start a new conversation.")
    },
    Spec {
        effects: true,
        // sessions.reset
        ..spec("reset", "session", Need::Scope(Scope::Admin), "Forget this conversation and start anew.")
    },
    // chat.abort
    Spec { effects: true, ..spec("stop", "session", Need::Scope(Scope::Write), "Stop the current run.") },
    Spec {
        args: &[arg("instructions", "What to keep above all", false)],
        effects: true,
        // sessions.compact
        ..spec("compact", "session", Need::Scope(Scope::Admin), "Summarize the conversation so far to make room.")
    },
    Spec {
        args: &[arg("model", "provider/model, an alias, or default", false)],
        effects: true,
        // sessions.patch; without an argument models.list
        ..spec("model", "options", Need::Scope(Scope::Write), "Show or choose the model of this conversation.")
    },
    // models.list
    spec("models", "status", Need::Scope(Scope::Read), "List models."),
    Spec {
        aliases: &["thinking", "t"],
        args: &[Arg {
            choices: &["off", "minimal", "low", "medium", "high", "xhigh", "max", "default"],
            ..arg("level", "How hard the model thinks", false)
        }],
        effects: true,
        // sessions.patch
        ..spec("think", "options", Need::Scope(Scope::Write), "Show or set how hard the model thinks.")
    },
    Spec {
        args: &[
            arg("id", "Approval id, or its beginning", true),
            Arg { choices: &["allow-once", "allow-always", "deny"], ..arg("decision", "Decision", true) },
        ],
        effects: true,
        // exec.approval.resolve
        ..spec("approve", "management", Need::Scope(Scope::Approvals), "Decide about a command that waits for leave.")
    },
    // chat.history of this chat only: what was said here before.
    spec("last", "status", Need::Nothing, "Show the last reply again."),
];

impl Spec {
    /// True when this is a name of it.
    fn is_called(&self, word: &str) -> bool {
        self.name.eq_ignore_ascii_case(word) || self.aliases.iter().any(|alias| alias.eq_ignore_ascii_case(word))
    }

    /// Whether somebody may use it.
    pub fn is_allowed(&self, authority: &Authority) -> bool {
        match self.needs {
            Need::Nothing => true,
            Need::Scope(scope) => authority.grants(scope),
        }
    }
}

/// The command of a request, if its text is one. What programs send is text.
pub fn of(request: &RunRequest) -> Option<Command> {
    match request.origin {
        Origin::Operator { .. } | Origin::Channel(_) | Origin::Node(_) => parse(&request.input.text),
        Origin::Http | Origin::Hook { .. } | Origin::Internal(_) => None,
    }
}

/// Reads `/name args`, `/name: args` and, as group chats write it, `/name@bot args`. A `/` that begins no known name is text.
pub fn parse(text: &str) -> Option<Command> {
    let rest = text.trim().strip_prefix('/')?;
    let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
    let (word, args) = rest.split_at(end);
    let word = word.split_once('@').map_or(word, |(name, _)| name).trim_end_matches(':');
    let spec = COMMANDS.iter().find(|spec| spec.is_called(word))?;
    Some(Command { spec, args: args.trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_command() {
        let check = |text: &str, expected: Option<(&str, &str)>| {
            let found = parse(text);
            assert_eq!(found.as_ref().map(|c| (c.spec.name, c.args.as_str())), expected, "{text:?}");
        };
        check("/status", Some(("status", "")));
        check("  /STATUS  ", Some(("status", "")));
        check("/status@my_bot", Some(("status", "")));
        check("/model: anthropic/claude", Some(("model", "anthropic/claude")));
        check("/invoke kitchen system.notify {\"a\": 1}", Some(("invoke", "kitchen system.notify {\"a\": 1}")));
        check("/t high", Some(("think", "high")));
        check("/commands", Some(("help", "")));
        // Not one of ours, or no command at all: text for the model.
        check("/etc/passwd is a file", None);
        check("/restart", None);
        check("status", None);
        check("see /status", None);
        check("/", None);
        check("", None);
    }

    #[test]
    fn names_are_unique() {
        for (at, spec) in COMMANDS.iter().enumerate() {
            for name in std::iter::once(spec.name).chain(spec.aliases.iter().copied()) {
                assert_eq!(COMMANDS.iter().position(|other| other.is_called(name)), Some(at), "{name}");
            }
        }
    }
}
