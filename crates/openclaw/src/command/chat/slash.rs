//! Commands that begin with a slash: a few are this program's, the others go to the gateway as messages.

use serde_json::Value;

use super::wire::text;

/// What this program does itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Local {
    Quit,
    Keys,
    Sessions,
    Switch(String),
    New,
    Rename(String),
    Search(String),
    Models,
    Model(String),
    Agents,
    Agent(String),
    Attach(String),
    Detach,
    Abort,
    Thinking,
}

/// Names of ours, with what they do.
const LOCAL: &[(&str, &str, bool)] = &[
    ("/attach", "Send a file with the next message", true),
    ("/detach", "Send no file", false),
    ("/sessions", "Choose another conversation", false),
    ("/session", "Go to a conversation by its key", true),
    ("/new", "Begin a new conversation; the present one stays", false),
    ("/rename", "Give the conversation a title", true),
    ("/search", "Find words in all conversations", true),
    ("/models", "Choose a model for this conversation", false),
    ("/model", "Use this model here; \"default\" for the agent's own", true),
    ("/agents", "Talk to another agent", false),
    ("/agent", "Talk to this agent", true),
    ("/abort", "Stop the run", false),
    ("/keys", "What the keys do", false),
    ("/quit", "Leave", false),
    ("/exit", "Leave", false),
];

/// A command that may be completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    pub name: String,
    pub about: String,
    pub takes_args: bool,
    /// Words that may follow.
    pub choices: Vec<String>,
}

/// Ours alone, until the gateway has said what it knows.
pub fn ours() -> Vec<Known> {
    let known = |(name, about, takes_args): &(&str, &str, bool)| Known {
        name: (*name).to_owned(),
        about: (*about).to_owned(),
        takes_args: *takes_args,
        choices: Vec::new(),
    };
    LOCAL.iter().map(known).collect()
}

/// Ours and those of `commands.list`. Where both have a name, ours is meant.
pub fn all(list: &Value) -> Vec<Known> {
    let mut known = ours();
    for command in list["commands"].as_array().into_iter().flatten() {
        let aliases = command["textAliases"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let about = text(command, "description").unwrap_or_default();
        let choices = command["args"][0]["choices"].as_array().into_iter().flatten();
        let choices: Vec<String> =
            choices.filter_map(|choice| choice["value"].as_str().or(choice.as_str())).map(str::to_owned).collect();
        for alias in aliases.filter(|alias| alias.starts_with('/')) {
            if !known.iter().any(|known| known.name == alias) {
                let takes_args = command["acceptsArgs"].as_bool().unwrap_or(false);
                let (name, about, choices) = (alias.to_owned(), about.clone(), choices.clone());
                known.push(Known { name, about, takes_args, choices });
            }
        }
    }
    known.sort_by(|one, other| one.name.cmp(&other.name));
    known
}

/// What could stand where the cursor is: names, or words that may follow a name. Empty when nothing is being completed.
pub fn complete(typed: &str, known: &[Known]) -> Vec<Known> {
    if !typed.starts_with('/') || typed.contains('\n') {
        return Vec::new();
    }
    let Some((name, word)) = typed.split_once(' ') else {
        let lower = typed.to_lowercase();
        return known.iter().filter(|known| known.name.starts_with(&lower)).cloned().collect();
    };
    let Some(command) = known.iter().find(|known| known.name == name) else { return Vec::new() };
    let fits = command.choices.iter().filter(|choice| choice.starts_with(word) && *choice != word);
    let choice = |choice: &String| Known {
        name: format!("{name} {choice}"),
        about: String::new(),
        takes_args: false,
        choices: Vec::new(),
    };
    fits.map(choice).collect()
}

/// What a line means here; `None` when the gateway gets it. Several lines are never a command.
pub fn local(line: &str) -> Option<Local> {
    let line = line.trim();
    if line.contains('\n') {
        return None;
    }
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    let argument = (!rest.is_empty()).then(|| rest.to_owned());
    Some(match (name, argument) {
        ("/quit" | "/exit", None) => Local::Quit,
        ("/keys", None) => Local::Keys,
        ("/sessions" | "/session", None) => Local::Sessions,
        ("/session" | "/sessions", Some(key)) => Local::Switch(key),
        ("/new", None) => Local::New,
        ("/rename", Some(title)) => Local::Rename(title),
        ("/search", Some(words)) => Local::Search(words),
        ("/models" | "/model", None) => Local::Models,
        ("/model", Some(model)) => Local::Model(model),
        ("/agents" | "/agent", None) => Local::Agents,
        ("/agent", Some(agent)) => Local::Agent(agent),
        ("/attach", Some(path)) => Local::Attach(path),
        ("/detach", None) => Local::Detach,
        ("/abort", None) => Local::Abort,
        ("/thinking", None) => Local::Thinking,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ours_and_theirs() {
        for (line, expected) in [
            ("/quit", Some(Local::Quit)),
            (" /session agent:main:x ", Some(Local::Switch("agent:main:x".into()))),
            ("/model", Some(Local::Models)),
            ("/model fake/other", Some(Local::Model("fake/other".into()))),
            ("/attach  a b.png", Some(Local::Attach("a b.png".into()))),
            ("/reset", None),
            ("/help", None),
            ("/rename", None),
            ("/exit\n", Some(Local::Quit)),
            ("/exit\nnow", None),
            ("hello", None),
        ] {
            assert_eq!(local(line), expected, "{line:?}");
        }
    }

    /// Rows of `commands.list` of 2026.9.6.
    #[test]
    fn completion() {
        let known = all(&json!({"commands": [
            {"name": "help", "textAliases": ["/help"], "description": "Show available commands.", "acceptsArgs": false},
            {"name": "tools", "textAliases": ["/tools"], "description": "List available runtime tools.", "acceptsArgs": true,
             "args": [{"name": "mode", "choices": [{"value": "compact", "label": "compact"}, {"value": "verbose"}]}]},
            {"name": "new", "textAliases": ["/new"], "description": "theirs", "acceptsArgs": true}]}));
        let check = |typed: &str, expected: &[&str]| {
            let found: Vec<String> = complete(typed, &known).into_iter().map(|known| known.name).collect();
            assert_eq!(found, expected, "{typed:?}");
        };
        check("/he", &["/help"]);
        check("/HE", &["/help"]);
        check("/mod", &["/model", "/models"]);
        check("/tools ", &["/tools compact", "/tools verbose"]);
        check("/tools v", &["/tools verbose"]);
        check("/tools verbose", &[]);
        check("/zzz", &[]);
        check("hello /he", &[]);
        check("/he\n", &[]);
        let new = known.iter().find(|known| known.name == "/new").expect("known");
        assert_ne!(new.about, "theirs");
    }
}
