//! Words as the files of service managers take them.

/// A word of a systemd unit's command line: quoted where systemd would split it, its own expansions switched off.
pub fn unit_word(word: &str) -> String {
    let escaped = word.replace('%', "%%").replace('$', "$$");
    let plain = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./-_$[]".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return escaped;
    }
    let mut quoted = String::from("\"");
    for c in escaped.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

/// The content of an element of a launchd agent.
pub fn xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_program_as_they_are() {
        let check = |word: &str, expected: &str| assert_eq!(unit_word(word), expected);
        check("/usr/bin/ssh", "/usr/bin/ssh");
        check("", "\"\"");
        check("two words", "\"two words\"");
        check("50%$HOME", "50%%$$HOME");
        check("a\"b\\c\nd", "\"a\\\"b\\\\c\\nd\"");
        assert_eq!(xml("<a & b>"), "&lt;a &amp; b&gt;");
    }
}
