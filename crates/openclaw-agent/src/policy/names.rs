//! Names in policies: tools, `group:*`, globs, and what older configs call things (gateway/config-tools/tool-policy of the
//! reference).

use super::Candidate;

/// Groups and their tools. `list` is ours and stands with the file tools.
const GROUPS: [(&str, &[&str]); 11] = [
    ("group:runtime", &["exec", "process", "code_execution"]),
    ("group:fs", &["read", "write", "edit", "apply_patch", "list"]),
    (
        "group:sessions",
        &[
            "sessions",
            "sessions_list",
            "sessions_history",
            "sessions_search",
            "conversations_list",
            "conversations_send",
            "conversations_turn",
            "sessions_send",
            "sessions_spawn",
            "sessions_yield",
            "subagents",
            "session_status",
            "suggest_task",
            "dismiss_task",
        ],
    ),
    ("group:memory", &["memory_search", "memory_get"]),
    ("group:web", &["web_search", "x_search", "web_fetch"]),
    ("group:ui", &["browser", "screen", "theme", "dashboard", "terminal", "portal", "canvas", "show_widget"]),
    ("group:automation", &["heartbeat_respond", "automations", "gateway", "plugins", "openclaw"]),
    ("group:messaging", &["message"]),
    ("group:nodes", &["nodes", "computer"]),
    (
        "group:agents",
        &["agents_list", "get_goal", "create_goal", "update_goal", "progress_card", "ask_user", "skill_workshop"],
    ),
    ("group:media", &["view_image", "image_generate", "music_generate", "video_generate", "tts", "pdf"]),
];

/// In no `group:openclaw`, though built in.
const PRIMITIVES: [&str; 8] = ["read", "write", "edit", "apply_patch", "list", "exec", "process", "canvas"];

const CODING: &[&str] = &[
    "group:fs",
    "group:runtime",
    "group:web",
    "group:sessions",
    "group:memory",
    "automations",
    "get_goal",
    "create_goal",
    "update_goal",
    "progress_card",
    "ask_user",
    "skill_workshop",
    "view_image",
    "image_generate",
    "music_generate",
    "video_generate",
    "theme",
    "bundle-mcp",
];
const MESSAGING: &[&str] = &[
    "group:messaging",
    "sessions",
    "sessions_list",
    "sessions_history",
    "sessions_search",
    "conversations_list",
    "conversations_send",
    "conversations_turn",
    "sessions_send",
    "sessions_spawn",
    "sessions_yield",
    "subagents",
    "session_status",
    "ask_user",
    "theme",
    "bundle-mcp",
];

/// What a profile lets through; `None` for everything.
///
/// The reference's limited profiles hold `gateway` for updates only. Ours has no such action, so they do not.
pub(super) fn profile(name: &str) -> Option<&'static [&'static str]> {
    match name.trim().to_ascii_lowercase().as_str() {
        "full" => None,
        "coding" => Some(CODING),
        "messaging" => Some(MESSAGING),
        // A profile nobody knows is a mistake, and a mistake opens nothing.
        _ => Some(&["session_status"]),
    }
}

/// What a name is called today.
fn current(name: &str) -> &str {
    match name {
        "bash" => "exec",
        "fetch" => "web_fetch",
        "cron" => "automations",
        "image" => "view_image",
        "update_plan" => "progress_card",
        name => name,
    }
}

/// Whether an entry of a list means a tool.
pub(super) fn matches(entry: &str, tool: &Candidate<'_>) -> bool {
    let entry = entry.trim().to_ascii_lowercase();
    let name = tool.name.to_ascii_lowercase();
    match entry.as_str() {
        "group:plugins" | "bundle-mcp" => tool.plugin,
        "group:openclaw" => !tool.plugin && !PRIMITIVES.contains(&name.as_str()),
        group if group.starts_with("group:") => {
            // A plugin's tool does not become one of ours by taking its name.
            !tool.plugin && GROUPS.iter().any(|(of, tools)| *of == group && tools.contains(&current(&name)))
        }
        entry => glob(current(entry), current(&name)),
    }
}

/// `allow: ["write"]` also means `apply_patch`; a denial does not.
pub(super) fn allows(entry: &str, tool: &Candidate<'_>) -> bool {
    matches(entry, tool) || (tool.name == "apply_patch" && entry.trim().eq_ignore_ascii_case("write"))
}

/// `*` is any text, also none.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = pieces.next_back() else { return rest.is_empty() };
    for piece in pieces {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (pattern, text, expected) in [
            ("read", "read", true),
            ("read", "reader", false),
            ("*", "", true),
            ("*", "x", true),
            ("docs__*", "docs__read", true),
            ("docs__*", "docs_read", false),
            ("out*graph*", "outlook-graph__x", true),
            ("out*graph*", "outlook", false),
            ("*_a", "b_a", true),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("**", "x", true),
            ("", "", true),
            ("", "x", false),
            ("a*b*c", "abbbc", true),
            ("a*b*c", "acb", false),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }
}
