//! Text with styles, and how a long one is cut.

use crate::message::{Span, TextStyle};

/// Plain text and what looks different in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Styled {
    pub text: String,
    /// By start; those that start together, the longer first.
    pub spans: Vec<Span>,
}

impl Styled {
    pub fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), spans: Vec::new() }
    }

    /// Length in UTF-16 code units.
    pub fn len(&self) -> usize {
        units(&self.text)
    }

    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Cuts it into parts of at most `limit` UTF-16 code units: between paragraphs if that wastes no more than half a part,
    /// else between lines, sentences, words, characters. A style that goes over a cut goes on in the next part; a block of
    /// code stays one in both, a link is not cut unless it alone is too long.
    pub fn split(&self, limit: usize) -> Vec<Self> {
        let limit = limit.max(16);
        let mut parts = Vec::new();
        // Byte and unit position of what has not been taken.
        let (mut byte, mut unit) = (0, 0);
        while byte < self.text.len() {
            let rest = &self.text[byte..];
            if units(rest) <= limit {
                self.push(&mut parts, byte, self.text.len(), unit);
                break;
            }
            let (cut, skip) = self.cut(rest, unit, limit);
            self.push(&mut parts, byte, byte + cut, unit);
            unit += units(&rest[..cut + skip]);
            byte += cut + skip;
        }
        parts
    }

    /// Adds the part between two byte positions, without blank ends. `unit` is the position of `from` in units.
    fn push(&self, parts: &mut Vec<Self>, from: usize, to: usize, unit: usize) {
        let text = self.text[from..to].trim_end();
        if text.trim().is_empty() {
            return;
        }
        let end = unit + units(text);
        let spans = self.spans.iter().filter_map(|span| {
            let (start, stop) = (span.start.max(unit), (span.start + span.len).min(end));
            (start < stop).then(|| Span { start: start - unit, len: stop - start, style: span.style.clone() })
        });
        parts.push(Self { text: text.to_owned(), spans: spans.collect() });
    }

    /// Where to end a part of `rest` (bytes), and how many bytes of blank to leave out after it.
    fn cut(&self, rest: &str, unit: usize, limit: usize) -> (usize, usize) {
        let mut window = 0;
        let mut count = 0;
        for c in rest.chars() {
            count += c.len_utf16();
            if count > limit {
                break;
            }
            window += c.len_utf8();
        }
        let full = &rest[..window];
        let inside = |at: usize, whole: fn(&TextStyle) -> bool| {
            let here = unit + units(&rest[..at]);
            self.spans.iter().find(|span| whole(&span.style) && span.start < here && here < span.start + span.len)
        };
        let pre = |style: &TextStyle| matches!(style, TextStyle::Pre { .. });
        // A block of code that begins late in the part goes to the next one whole.
        if let Some(block) = inside(window, pre)
            && block.start > unit + limit / 2
        {
            let before = bytes_of(rest, block.start - unit);
            return (before, 0);
        }
        let good = |at: usize| {
            at > 0 && inside(at, |style| matches!(style, TextStyle::Link { .. } | TextStyle::Code)).is_none()
        };
        let last = |mark: &str, keep: usize, from: usize| {
            let found = full.rmatch_indices(mark).map(|(at, _)| at);
            found.take_while(|at| *at >= from).find(|at| good(at + keep)).map(|at| (at + keep, mark.len() - keep))
        };
        let half = window / 2;
        let in_code = inside(window, pre).is_some();
        let found = if in_code {
            last("\n", 0, half)
        } else {
            last("\n\n", 0, half)
                .or_else(|| last("\n", 0, half))
                .or_else(|| ["。", "！", "？"].iter().find_map(|mark| last(mark, mark.len(), half)))
                .or_else(|| [". ", "! ", "? "].iter().find_map(|mark| last(mark, 1, half)))
        };
        found.or_else(|| last("\n", 0, 1)).or_else(|| last(" ", 0, 1)).unwrap_or((window.max(first_len(rest)), 0))
    }
}

fn first_len(text: &str) -> usize {
    text.chars().next().map_or(1, char::len_utf8)
}

/// UTF-16 code units.
pub fn units(text: &str) -> usize {
    text.chars().map(char::len_utf16).sum()
}

/// The byte position of a unit position; the next character's when it lies inside one.
fn bytes_of(text: &str, units: usize) -> usize {
    let mut count = 0;
    for (at, c) in text.char_indices() {
        if count >= units {
            return at;
        }
        count += c.len_utf16();
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::markdown;

    fn parts(markdown: &str, limit: usize) -> Vec<String> {
        markdown::render(markdown).split(limit).into_iter().map(|part| part.text).collect()
    }

    #[test]
    fn text_is_cut_where_a_reader_would() {
        let check = |text: &str, limit: usize, expected: &[&str]| assert_eq!(parts(text, limit), expected, "{text:?}");
        check("short", 20, &["short"]);
        check("first paragraph\n\nsecond one", 20, &["first paragraph", "second one"]);
        check("one line here\nanother line here", 20, &["one line here", "another line here"]);
        check("A sentence. And more words", 20, &["A sentence.", "And more words"]);
        check("just words without an end", 16, &["just words", "without an end"]);
        check("x".repeat(40).as_str(), 16, &["xxxxxxxxxxxxxxxx", "xxxxxxxxxxxxxxxx", "xxxxxxxx"]);
        // A character outside the BMP has two units and is never halved.
        check("😀".repeat(20).as_str(), 17, &[&"😀".repeat(8), &"😀".repeat(8), &"😀".repeat(4)]);
        check("", 16, &[]);
    }

    #[test]
    fn styles_go_on_after_a_cut() {
        let text = render("**aaaa bbbb cccc dddd eeee**");
        let parts = text.split(16);
        assert_eq!(parts.len(), 2);
        for part in &parts {
            assert_eq!(part.spans, [Span { start: 0, len: part.len(), style: TextStyle::Bold }], "{part:?}");
        }
    }

    #[test]
    fn code_stays_code() {
        let code: String = (0..30).map(|n| format!("    line {n}\n")).collect();
        let parts = render(&format!("Look:\n\n```rust\n{code}```\nThat was it.")).split(100);
        assert!(parts.len() > 3);
        let mut lines = Vec::new();
        for part in &parts {
            assert!(part.len() <= 100);
            for span in &part.spans {
                assert_eq!(span.style, TextStyle::Pre { language: Some("rust".into()) });
                assert!(span.start + span.len <= part.len());
            }
            lines.extend(part.text.lines().filter(|line| line.contains("line")).map(str::to_owned));
        }
        // Nothing is lost, and the indentation neither.
        assert_eq!(lines, code.lines().collect::<Vec<_>>());
    }

    #[test]
    fn a_link_is_not_cut() {
        let parts = render("some words before [the link text](https://example.org) and after").split(30);
        let whole = |part: &Styled| part.spans.iter().all(|span| span.len == "the link text".len());
        assert!(parts.iter().all(whole), "{parts:?}");
        assert_eq!(parts.iter().map(|part| part.spans.len()).sum::<usize>(), 1);
    }

    #[test]
    fn every_part_keeps_its_limit_and_its_styles_inside() {
        let text = "Ünï **bold _both_** `code 😀` [link](https://x.y/z) > no\n\n- item **one**\n- item two\n\n> quote\n\n```\nfn main() {}\n```\n"
            .repeat(40);
        for limit in [16, 33, 100, 1024, 4096] {
            for part in render(&text).split(limit) {
                assert!(part.len() <= limit, "{} > {limit}", part.len());
                assert!(part.spans.iter().all(|span| span.len > 0 && span.start + span.len <= part.len()), "{part:?}");
            }
        }
    }

    fn render(text: &str) -> Styled {
        markdown::render(text)
    }
}
