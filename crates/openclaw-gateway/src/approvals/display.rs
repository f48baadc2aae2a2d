//! Text of commands, made fit to be shown: what cannot be seen is written out, and nothing is left away.

/// Longest text that is shown, in UTF-16 code units (release 2026.9.6).
const MAX_UNITS: usize = 16_384;

/// The text is too long to be read before deciding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// Control, formatting, line-breaking and blank characters as `\u{…}`.
///
/// # Errors
/// [`TooLong`]: a command nobody can read whole is not put to anybody.
pub fn shown(text: &str) -> Result<String, TooLong> {
    let mut out = String::with_capacity(text.len());
    text.chars().for_each(|c| push(&mut out, c));
    fits(out)
}

/// As [`shown`] for prose: line breaks stay.
///
/// # Errors
/// [`TooLong`]
pub fn shown_lines(text: &str) -> Result<String, TooLong> {
    let mut out = String::with_capacity(text.len());
    for c in text.replace("\r\n", "\n").chars() {
        match c {
            '\n' | '\r' | '\u{2028}' | '\u{2029}' => out.push('\n'),
            c => push(&mut out, c),
        }
    }
    fits(out)
}

fn fits(text: String) -> Result<String, TooLong> {
    if text.encode_utf16().count() > MAX_UNITS { Err(TooLong) } else { Ok(text) }
}

fn push(out: &mut String, c: char) {
    if is_unseen(c) {
        out.push_str(&format!("\\u{{{:X}}}", u32::from(c)));
    } else {
        out.push(c);
    }
}

/// Unicode's Cc, Cf, Zl and Zp, and the blanks that are no plain space: the reference's list.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{a0}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}'
            | '\u{8e2}' | '\u{115f}'..='\u{1160}' | '\u{1680}' | '\u{180e}' | '\u{2000}'..='\u{200f}'
            | '\u{2028}'..='\u{202f}' | '\u{205f}'..='\u{206f}' | '\u{3000}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff9}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0001}' | '\u{e0020}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_58_what_cannot_be_seen_is_written_out() {
        let check = |text: &str, expected: &str| assert_eq!(shown(text).as_deref(), Ok(expected));
        check("ls -la 'é' \\n", "ls -la 'é' \\n");
        check("a\nb\tc\0", "a\\u{A}b\\u{9}c\\u{0}");
        check("\u{1b}[2Jrm", "\\u{1B}[2Jrm");
        check("txt.\u{202e}exe", "txt.\\u{202E}exe");
        check("x\u{200b}y\u{a0}z\u{3000}", "x\\u{200B}y\\u{A0}z\\u{3000}");
        check("\u{e0041}", "\\u{E0041}");
        assert_eq!(shown_lines("a\r\nb\u{2028}c\u{1b}").as_deref(), Ok("a\nb\nc\\u{1B}"));
    }

    #[test]
    fn what_cannot_be_read_whole_is_not_shown() {
        assert!(shown(&"x".repeat(16_384)).is_ok());
        assert_eq!(shown(&"x".repeat(16_385)), Err(TooLong));
        // Escapes count as they are shown.
        assert_eq!(shown(&"\u{1b}".repeat(4_000)), Err(TooLong));
    }
}
