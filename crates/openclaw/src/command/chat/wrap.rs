//! Styled text broken into lines of a width. Everything that came from elsewhere goes through here, and comes out without a
//! character that could move the cursor or hide others (P-09).

use ratatui::{
    style::Style,
    text::{Line, Span},
};
use unicode_width::UnicodeWidthChar as _;

use crate::output::escape::inert_line;

/// Columns of a tab.
const TAB: &str = "    ";

/// Text fit for one line of a terminal: control characters are visible escapes, tabs are spaces.
pub fn clean(text: &str) -> String {
    inert_line(text).replace('\t', TAB)
}

/// Without the invisible joiners of emoji and letters. Terminals disagree about what they make of them, and as escapes they
/// would tear families apart.
fn unjoined(text: &str) -> std::borrow::Cow<'_, str> {
    const JOINERS: [char; 2] = ['\u{200c}', '\u{200d}'];
    match text.contains(JOINERS) {
        true => text.replace(JOINERS, "").into(),
        false => text.into(),
    }
}

pub fn width(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// The beginning of a text that fits into `max` columns, with an ellipsis where something was left out.
pub fn cut(text: &str, max: usize, ellipsis: &str) -> String {
    if width(text) <= max {
        return text.to_owned();
    }
    let room = max.saturating_sub(width(ellipsis));
    let mut kept = String::new();
    let mut used = 0;
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > room {
            break;
        }
        kept.push(c);
    }
    kept + if max >= width(ellipsis) { ellipsis } else { "" }
}

/// A paragraph under construction: styled pieces that are broken at spaces.
#[derive(Debug, Default)]
pub struct Paragraph {
    pieces: Vec<(String, Style)>,
}

impl Paragraph {
    pub fn push(&mut self, text: &str, style: Style) {
        if !text.is_empty() {
            self.pieces.push((clean(&unjoined(text)), style));
        }
    }

    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Lines of at most `columns`, the first after `first`, the others after `rest`. A word longer than a line is broken.
    pub fn lines(&self, columns: usize, first: &[Span<'static>], rest: &[Span<'static>]) -> Vec<Line<'static>> {
        let room = |prefix: &[Span<'static>]| {
            columns.saturating_sub(prefix.iter().map(|span| width(&span.content)).sum::<usize>()).max(1)
        };
        let (mut lines, mut line, mut used) = (Vec::new(), first.to_vec(), 0);
        let mut left = room(first);
        for word in self.words() {
            let long = word.iter().map(|(text, _)| width(text)).sum::<usize>();
            let space = word.len() == 1 && word[0].0 == " ";
            if space && used == 0 && !lines.is_empty() {
                continue;
            }
            if used + long > left && used > 0 {
                if space {
                    continue;
                }
                lines.push(Line::from(trimmed(std::mem::replace(&mut line, rest.to_vec()))));
                (used, left) = (0, room(rest));
            }
            for (text, style) in word {
                let mut piece = String::new();
                for c in text.chars() {
                    let wide = c.width().unwrap_or(0);
                    if used + wide > left && used > 0 {
                        line.push(Span::styled(std::mem::take(&mut piece), style));
                        lines.push(Line::from(std::mem::replace(&mut line, rest.to_vec())));
                        (used, left) = (0, room(rest));
                    }
                    piece.push(c);
                    used += wide;
                }
                if !piece.is_empty() {
                    line.push(Span::styled(piece, style));
                }
            }
        }
        lines.push(Line::from(trimmed(line)));
        lines
    }

    /// Words and the single spaces between them; a word may consist of pieces of several styles.
    fn words(&self) -> Vec<Vec<(String, Style)>> {
        let mut words: Vec<Vec<(String, Style)>> = Vec::new();
        let mut open = false;
        for (text, style) in &self.pieces {
            for piece in text.split_inclusive(' ') {
                let (word, space) = piece.strip_suffix(' ').map_or((piece, false), |word| (word, true));
                if !word.is_empty() {
                    match words.last_mut() {
                        Some(last) if open => last.push((word.to_owned(), *style)),
                        _ => words.push(vec![(word.to_owned(), *style)]),
                    }
                    open = true;
                }
                if space {
                    words.push(vec![(" ".to_owned(), *style)]);
                    open = false;
                }
            }
        }
        words
    }
}

fn trimmed(mut line: Vec<Span<'static>>) -> Vec<Span<'static>> {
    while line.last().is_some_and(|span| span.content == " ") {
        line.pop();
    }
    line
}

/// Text as it was written, line by line; lines that are too long are broken anywhere.
pub fn verbatim(
    text: &str,
    columns: usize,
    style: Style,
    first: &[Span<'static>],
    rest: &[Span<'static>],
) -> Vec<Line<'static>> {
    let mut lines: Vec<Line<'static>> = Vec::new();
    for written in text.split('\n') {
        let prefix = if lines.is_empty() { first } else { rest };
        let written = clean(written.strip_suffix('\r').unwrap_or(written));
        let room = columns.saturating_sub(prefix.iter().map(|span| width(&span.content)).sum::<usize>()).max(1);
        let (mut piece, mut used, mut open) = (String::new(), 0, true);
        let mut flush = |piece: &mut String| {
            let prefix = if lines.is_empty() { first } else { rest };
            let mut line = prefix.to_vec();
            line.push(Span::styled(std::mem::take(piece), style));
            lines.push(Line::from(line));
        };
        for c in written.chars() {
            let wide = c.width().unwrap_or(0);
            if used + wide > room {
                flush(&mut piece);
                used = 0;
            }
            piece.push(c);
            used += wide;
            open = true;
        }
        if open || !piece.is_empty() {
            flush(&mut piece);
        }
    }
    lines
}

/// Text of a person: its own lines, each broken at spaces.
pub fn prose(
    text: &str,
    columns: usize,
    style: Style,
    first: &[Span<'static>],
    rest: &[Span<'static>],
) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for written in text.split('\n') {
        let mut paragraph = Paragraph::default();
        paragraph.push(written.strip_suffix('\r').unwrap_or(written), style);
        lines.extend(paragraph.lines(columns, if lines.is_empty() { first } else { rest }, rest));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(lines: &[Line<'static>]) -> Vec<String> {
        lines.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn lines_are_broken_at_spaces() {
        let check = |words: &str, columns: usize, expected: &[&str]| {
            let prefix = [Span::raw("> ")];
            assert_eq!(text(&prose(words, columns, Style::new(), &prefix, &[Span::raw("  ")])), expected, "{words}");
        };
        check("one two three", 9, &["> one two", "  three"]);
        check("one two three", 80, &["> one two three"]);
        check("abcdefghij", 6, &["> abcd", "  efgh", "  ij"]);
        check("a\nb", 10, &["> a", "  b"]);
        check("", 10, &["> "]);
        check("日本語日本語", 6, &["> 日本", "  語日", "  本語"]);
        check("  indented", 20, &[">   indented"]);
    }

    #[test]
    fn p_09_no_text_moves_the_cursor() {
        let evil = "a\u{1b}[2J\u{1b}]0;x\u{7}b\u{202e}c\rd\u{9b}1m";
        for lines in [
            prose(evil, 40, Style::new(), &[], &[]),
            verbatim(evil, 40, Style::new(), &[], &[]),
            crate::command::chat::markdown::render(evil, 40, crate::command::chat::theme::Theme::new(true, true)),
            crate::command::chat::markdown::render(
                &format!(
                    "# {evil}\n\n`{evil}` [{evil}](http://x/{evil})\n\n```{evil}\n{evil}\n```\n\n| {evil} |\n|---|\n| {evil} |\n\n<b>{evil}</b>"
                ),
                40,
                crate::command::chat::theme::Theme::new(true, true),
            ),
        ] {
            let shown = text(&lines).join("\n");
            assert!(shown.chars().all(|c| c == '\n' || !c.is_control()), "{shown:?}");
            assert!(!shown.contains('\u{202e}') && shown.contains("\\u{1b}"), "{shown:?}");
        }
    }

    #[test]
    fn what_is_cut_says_so() {
        assert_eq!((cut("abcdef", 4, "…").as_str(), cut("abcd", 4, "…").as_str()), ("abc…", "abcd"));
        assert_eq!(cut("日本語", 4, "…"), "日…");
    }
}
