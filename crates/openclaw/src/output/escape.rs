//! Text that came from elsewhere, made safe for a terminal (security case P-09).

use std::borrow::Cow;

/// Longest untrusted text shown in a table cell or sentence, in characters.
const MAX_SHOWN_CHARS: usize = 200;

/// Makes device names, close reasons and other untrusted text inert: control characters (so ANSI sequences too),
/// line separators, bidirectional overrides and invisible characters become visible escapes; long text is cut.
pub fn inert(text: &str) -> Cow<'_, str> {
    let clean = text.chars().all(|c| !is_dangerous(c)) && text.len() <= MAX_SHOWN_CHARS;
    if clean {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len().min(4 * MAX_SHOWN_CHARS));
    for (index, c) in text.chars().enumerate() {
        if index == MAX_SHOWN_CHARS {
            shown.push('…');
            break;
        }
        push(&mut shown, c);
    }
    Cow::Owned(shown)
}

/// Like [`inert`], for whole log lines: tabs stay, nothing is cut.
pub fn inert_line(text: &str) -> Cow<'_, str> {
    if text.chars().all(|c| c == '\t' || !is_dangerous(c)) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '\t' { shown.push(c) } else { push(&mut shown, c) }
    }
    Cow::Owned(shown)
}

fn push(shown: &mut String, c: char) {
    match c {
        '\n' => shown.push_str("\\n"),
        '\r' => shown.push_str("\\r"),
        '\t' => shown.push_str("\\t"),
        c if is_dangerous(c) => shown.extend(c.escape_unicode()),
        c => shown.push(c),
    }
}

/// Characters that move the cursor, reorder the line, or cannot be seen.
fn is_dangerous(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_09_nothing_reaches_the_terminal_raw() {
        let check = |text: &str, expected: &str| assert_eq!(inert(text), expected);
        check("Kitchen iPad – 2", "Kitchen iPad – 2");
        check("\u{1b}[2J\u{1b}]0;owned\u{7}", "\\u{1b}[2J\\u{1b}]0;owned\\u{7}");
        check("a\r\nb\tc", "a\\r\\nb\\tc");
        check("\u{9b}31m", "\\u{9b}31m");
        check("abc\u{202e}txt.exe", "abc\\u{202e}txt.exe");
        check("x\u{200b}y\u{2066}z", "x\\u{200b}y\\u{2066}z");
        check("<img onerror=alert(1)>", "<img onerror=alert(1)>");
        assert_eq!(inert(&"é".repeat(300)).chars().count(), MAX_SHOWN_CHARS + 1);
        assert_eq!(inert_line("a\tb\u{1b}[1m"), "a\tb\\u{1b}[1m");
    }
}
