//! Voice wake words: one list for all nodes and apps.

use openclaw_protocol::method::node::{VoicewakeRoutes, VoicewakeRouting};
use serde_json::json;

/// In force until the owner sets others (release 2026.9.6, and again whenever the list is emptied).
const DEFAULTS: [&str; 3] = ["openclaw", "claude", "computer"];
const MAX_TRIGGERS: usize = 32;
/// UTF-16 code units per trigger.
const MAX_UNITS: usize = 64;

/// The list in force, given what is remembered.
pub fn in_force(remembered: &[String]) -> Vec<String> {
    if remembered.is_empty() { DEFAULTS.map(str::to_owned).to_vec() } else { remembered.to_vec() }
}

/// What is kept of a list an operator sent: trimmed, without blanks, cut in length and number. Nothing left means the
/// defaults.
pub fn normalised(triggers: &[String]) -> Vec<String> {
    let kept = triggers.iter().map(|text| cut(text.trim())).filter(|text| !text.is_empty());
    kept.take(MAX_TRIGGERS).collect()
}

fn cut(text: &str) -> String {
    let mut units = 0;
    let fits = |c: &char| {
        units += c.len_utf16();
        units <= MAX_UNITS
    };
    text.chars().take_while(fits).collect::<String>().trim_end().to_owned()
}

/// Where wake words lead: always to the current session, until routes can be set.
pub fn routing() -> VoicewakeRouting {
    let config = VoicewakeRoutes {
        version: 1,
        default_target: json!({"mode": "current"}),
        routes: Vec::new(),
        updated_at_ms: 0,
    };
    VoicewakeRouting { config }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(items: &[&str]) -> Vec<String> {
        items.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn lists_are_normalised() {
        let check = |given: &[&str], expected: &[&str]| assert_eq!(normalised(&list(given)), list(expected));
        check(&[" alpha ", "", "beta", "  "], &["alpha", "beta"]);
        check(&[], &[]);
        check(&[&"x".repeat(80)], &[&"x".repeat(64)]);
        // A character of two code units is not split.
        check(&[&format!("{}🦞", "x".repeat(63))], &[&"x".repeat(63)]);
        check(&[&format!("{}🦞", "x".repeat(62))], &[&format!("{}🦞", "x".repeat(62))]);
        assert_eq!(normalised(&vec!["x".to_owned(); 40]).len(), 32);
    }

    #[test]
    fn an_empty_list_means_the_defaults() {
        assert_eq!(in_force(&[]), DEFAULTS);
        assert_eq!(in_force(&list(&["hey claw"])), ["hey claw"]);
    }

    /// As captured (`node-run-pair-invoke`).
    #[test]
    fn routing_has_the_captured_shape() {
        let expected =
            json!({"config": {"version": 1, "defaultTarget": {"mode": "current"}, "routes": [], "updatedAtMs": 0}});
        assert_eq!(serde_json::to_value(routing()).expect("serialises"), expected);
    }
}
