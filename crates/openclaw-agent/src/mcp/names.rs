//! Names that every model provider takes: `[A-Za-z0-9_-]{1,64}`.

use std::collections::HashSet;

/// Bytes of a server's part.
const PREFIX_BYTES: usize = 30;
const NAME_BYTES: usize = 64;

/// What a server's tools begin with (the reference's tool policy: other characters become `-`, `mcp-` goes before a name that
/// does not begin with a letter, long ones are cut).
pub fn prefix(server: &str) -> String {
    let name = clean(server.trim()).to_ascii_lowercase();
    // "__" ends the prefix.
    let name = name.split('_').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("_");
    let mut name = if name.starts_with(|c: char| c.is_ascii_alphabetic()) { name } else { format!("mcp-{name}") };
    name.truncate(PREFIX_BYTES);
    name.trim_end_matches(['-', '_']).to_owned()
}

/// The name of a tool as models call it.
pub(super) fn tool(prefix: &str, tool: &str, taken: &mut HashSet<String>) -> String {
    let cleaned = clean(tool);
    let mut name = format!("{prefix}__{}", if cleaned.is_empty() { "tool" } else { &cleaned });
    name.truncate(NAME_BYTES);
    unique(name, taken)
}

/// The name, or with a number behind it if it is taken.
pub(super) fn unique(name: String, taken: &mut HashSet<String>) -> String {
    let mut candidate = name.clone();
    let mut number = 2;
    while !taken.insert(candidate.clone()) {
        let suffix = format!("-{number}");
        candidate.clone_from(&name);
        candidate.truncate(NAME_BYTES - suffix.len());
        candidate.push_str(&suffix);
        number += 1;
    }
    candidate
}

fn clean(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '-' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_providers_take() {
        for (server, expected) in [
            ("docs", "docs"),
            ("Outlook Graph", "outlook-graph"),
            ("my_server", "my_server"),
            ("a__b", "a_b"),
            ("7zip", "mcp-7zip"),
            ("日本", "mcp"),
            ("", "mcp"),
            (&"long".repeat(20), "longlonglonglonglonglonglonglo"),
        ] {
            assert_eq!(prefix(server), expected, "{server}");
        }
        let mut taken = HashSet::new();
        for (name, expected) in [
            ("search", "docs__search"),
            ("search", "docs__search-2"),
            ("read file", "docs__read-file"),
            ("a.b/c", "docs__a-b-c"),
            ("", "docs__tool"),
        ] {
            assert_eq!(tool("docs", name, &mut taken), expected, "{name}");
        }
        for _ in 0..3 {
            let name = tool("docs", &"x".repeat(100), &mut taken);
            assert!(
                name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'),
                "{name}"
            );
        }
        let mut taken = HashSet::new();
        assert_eq!([unique(prefix("A B"), &mut taken), unique(prefix("a-b"), &mut taken)], ["a-b", "a-b-2"]);
    }
}
