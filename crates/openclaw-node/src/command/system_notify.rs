//! `system.notify {title?, body?, sound?, priority?}`: a notification on this machine's desktop.

use std::{path::PathBuf, time::Duration};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Call, Failure, Toolbox, tool_ended};

const LIMIT: Duration = Duration::from_secs(10);
/// Longest text of a notification that is passed on.
const MAX_CHARS: usize = 4000;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Params {
    title: Option<String>,
    body: Option<String>,
    priority: Option<String>,
}

/// The program that shows notifications here.
pub fn tool(toolbox: &Toolbox) -> Option<PathBuf> {
    toolbox.find(if cfg!(target_os = "macos") { "osascript" } else { "notify-send" })
}

pub async fn run(toolbox: &Toolbox, call: &Call) -> Result<Value, Failure> {
    let code = "NOTIFICATIONS_UNAVAILABLE";
    let program = tool(toolbox).ok_or_else(|| Failure::new(code, format!("{code}: notify-send not found")))?;
    let params: Params = call.optional_params()?;
    let text = |text: Option<String>| -> String { text.unwrap_or_default().trim().chars().take(MAX_CHARS).collect() };
    let (title, body) = (text(params.title), text(params.body));
    if title.is_empty() && body.is_empty() {
        return Err(Failure::invalid("INVALID_REQUEST: empty notification"));
    }
    let argv = words(&program.to_string_lossy(), &title, &body, params.priority.as_deref());
    tool_ended(&toolbox.tool(argv, LIMIT, call).await?, code)?;
    Ok(json!({"ok": true}))
}

fn words(program: &str, title: &str, body: &str, priority: Option<&str>) -> Vec<String> {
    let words: Vec<&str> = if program.ends_with("osascript") {
        // Texts are arguments of the script, never part of it.
        let script = "on run argv\ndisplay notification (item 2 of argv) with title (item 1 of argv)\nend run";
        vec![program, "-e", script, "--", title, body]
    } else {
        let urgency = match priority {
            Some("passive") => "low",
            Some("timeSensitive") => "critical",
            _ => "normal",
        };
        vec![program, "--urgency", urgency, "--", title, body]
    };
    words.into_iter().map(|word| word.replace('\0', "")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_arguments_and_never_options() {
        assert_eq!(
            words("/usr/bin/notify-send", "--help", "-x", Some("timeSensitive")),
            ["/usr/bin/notify-send", "--urgency", "critical", "--", "--help", "-x"]
        );
        let mac = words("/usr/bin/osascript", "a\" & b", "c", None);
        assert_eq!(&mac[3..], ["--", "a\" & b", "c"]);
    }
}
