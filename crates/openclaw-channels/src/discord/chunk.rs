//! Cutting text into messages: Discord takes 2,000 characters, and a block of code that is cut has to end and begin again.

/// Largest text of a message. Discord counts characters; counting UTF-16 code units is never less.
pub const MAX_UNITS: usize = 2_000;
/// Smallest `textChunkLimit` that is honoured: a fence and a few words must fit.
pub const MIN_UNITS: usize = 100;
const FENCE: &str = "```";
/// A line break and a fence.
const CLOSING: usize = 4;

/// Length as Discord's own clients count.
pub fn units(text: &str) -> usize {
    text.encode_utf16().count()
}

/// Cuts between lines where possible, else between words. Nothing but blanks at the cuts is left away.
pub fn cut(text: &str, limit: usize, max_lines: usize) -> Vec<String> {
    let mut cutter = Cutter {
        limit: limit.max(MIN_UNITS),
        max_lines: max_lines.max(3),
        done: Vec::new(),
        text: String::new(),
        fence: None,
        reopened: false,
    };
    for line in text.replace("\r\n", "\n").split('\n') {
        cutter.line(line);
    }
    cutter.flush();
    cutter.done
}

/// The beginning of a text that fits, for edits. A block of code that is open there is closed.
pub fn head(text: &str, limit: usize) -> String {
    // The first piece holds no more than this, so the rest need not be looked at.
    let enough = text.trim_start_matches('\n').char_indices().nth(limit.max(MIN_UNITS) * 2).map(|(at, _)| at);
    let text = text.trim_start_matches('\n');
    cut(&text[..enough.unwrap_or(text.len())], limit, usize::MAX).into_iter().next().unwrap_or_default()
}

struct Cutter {
    limit: usize,
    max_lines: usize,
    done: Vec<String>,
    text: String,
    /// The line that opened the block of code we are in.
    fence: Option<String>,
    /// The text is nothing but that line, written again.
    reopened: bool,
}

impl Cutter {
    fn line(&mut self, line: &str) {
        let opens = self.fence.is_none() && opens_block(line);
        let closes = self.fence.is_some() && line.trim().starts_with(FENCE) && line.trim().trim_matches('`').is_empty();
        if closes && self.reopened {
            // Nothing follows: the block ended with the message before.
            (self.text, self.fence, self.reopened) = (String::new(), None, false);
            return;
        }
        let stays_open = opens || (self.fence.is_some() && !closes);
        let reserve = if stays_open { CLOSING } else { 0 };
        if !self.fits(line, reserve) && !self.text.is_empty() && !self.reopened {
            self.flush();
        }
        let mut rest = line;
        while !self.fits(rest, reserve) {
            let room = self.room(reserve);
            let at = cut_point(rest, room.max(1));
            self.push(&rest[..at]);
            self.flush();
            rest = if self.fence.is_some() { &rest[at..] } else { rest[at..].trim_start() };
            if rest.is_empty() {
                return;
            }
        }
        if opens {
            // A very long line after the fence is no language.
            self.fence = Some(line.trim_end().chars().take(40).collect());
        } else if closes {
            self.fence = None;
        }
        self.push(rest);
    }

    fn push(&mut self, line: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(line);
        self.reopened = false;
    }

    /// Units left for a line.
    fn room(&self, reserve: usize) -> usize {
        let used = if self.text.is_empty() { 0 } else { units(&self.text) + 1 };
        self.limit.saturating_sub(used + reserve)
    }

    fn fits(&self, line: &str, reserve: usize) -> bool {
        let lines = if self.text.is_empty() { 0 } else { self.text.matches('\n').count() + 1 };
        let tall = lines > 1 && lines + 1 > self.max_lines;
        !tall && units(line) <= self.room(reserve)
    }

    fn flush(&mut self) {
        let mut text = std::mem::take(&mut self.text);
        let only_fence = std::mem::take(&mut self.reopened);
        if let Some(fence) = &self.fence {
            text.push_str("\n```");
            self.text.clone_from(fence);
            self.reopened = true;
        }
        let trimmed = text.trim_end().trim_start_matches('\n');
        if !trimmed.trim().is_empty() && !only_fence {
            self.done.push(trimmed.to_owned());
        }
    }
}

fn opens_block(line: &str) -> bool {
    line.trim_start().strip_prefix(FENCE).is_some_and(|rest| !rest.contains('`'))
}

/// Bytes of the longest beginning of `text` that has at most `room` units, ending before a blank if one is in its second
/// half.
fn cut_point(text: &str, room: usize) -> usize {
    let (mut used, mut end, mut blank) = (0, text.len(), None);
    for (at, c) in text.char_indices() {
        if used + c.len_utf16() > room {
            end = at;
            break;
        }
        used += c.len_utf16();
        if c.is_whitespace() {
            blank = Some(at);
        }
    }
    if end == 0 {
        // One character always goes, so that this ends.
        return text.chars().next().map_or(0, char::len_utf8);
    }
    match blank {
        Some(at) if end < text.len() && at * 2 > end => at,
        _ => end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, limit: usize, expected: &[&str]) {
        assert_eq!(cut(text, limit, 1_000), expected);
    }

    #[test]
    fn short_texts_stay_whole() {
        check("hello", 2_000, &["hello"]);
        check("", 2_000, &[]);
        check(" \n \n", 2_000, &[]);
        check("```rust\nfn a() {}\n```", 2_000, &["```rust\nfn a() {}\n```"]);
        check("a ``` b", 2_000, &["a ``` b"]);
    }

    #[test]
    fn cuts_between_lines_then_words_then_letters() {
        let (one, two) = ("a".repeat(60), "b".repeat(60));
        check(&format!("{one}\n{two}"), 100, &[&one, &two]);
        let words = "word ".repeat(30);
        let pieces = cut(&words, 100, 1_000);
        assert_eq!(pieces.join(" "), words.trim_end());
        assert!(pieces.iter().all(|piece| units(piece) <= 100 && !piece.starts_with(' ')));
        let letters = "x".repeat(250);
        assert_eq!(cut(&letters, 100, 1_000).concat(), letters);
        // A pair of surrogates is never torn.
        let emoji = "🦀".repeat(120);
        let pieces = cut(&emoji, 101, 1_000);
        assert_eq!(pieces.concat(), emoji);
        assert!(pieces.iter().all(|piece| units(piece) <= 101));
    }

    #[test]
    fn blocks_of_code_end_and_begin_again() {
        let lines: Vec<String> = (0..20).map(|n| format!("line number {n:02}")).collect();
        let text = format!("before\n```rust\n{}\n```\nafter", lines.join("\n"));
        let pieces = cut(&text, 120, 1_000);
        assert!(pieces.len() > 2);
        for piece in &pieces {
            assert!(units(piece) <= 120, "{piece}");
            assert_eq!(piece.matches("```").count() % 2, 0, "{piece}");
        }
        let code: Vec<&str> = pieces.iter().flat_map(|p| p.lines()).filter(|line| line.starts_with("line")).collect();
        assert_eq!(code, lines);
        assert!(pieces[1].starts_with("```rust\n") && pieces[0].ends_with("\n```"));
        assert!(pieces.last().is_some_and(|last| last.ends_with("after")));
    }

    #[test]
    fn a_block_that_ends_at_a_cut_leaves_no_empty_one() {
        let filler = "y".repeat(88);
        let pieces = cut(&format!("```\n{filler}\n```\nrest"), 100, 1_000);
        assert_eq!(pieces.last().map(String::as_str), Some("rest"));
        assert!(pieces.iter().all(|piece| piece != "```\n```"), "{pieces:?}");
    }

    #[test]
    fn long_lines_of_code() {
        let text = format!("```\n{}\n```", "z".repeat(500));
        let pieces = cut(&text, 100, 1_000);
        assert!(
            pieces.iter().all(|piece| units(piece) <= 100 && piece.starts_with("```\n") && piece.ends_with("\n```"))
        );
        assert_eq!(pieces.iter().map(|piece| piece.matches('z').count()).sum::<usize>(), 500);
    }

    #[test]
    fn tall_messages_are_cut() {
        let text = (0..40).map(|n| n.to_string()).collect::<Vec<_>>().join("\n");
        let pieces = cut(&text, 2_000, 17);
        assert_eq!(pieces.iter().map(|piece| piece.lines().count()).collect::<Vec<_>>(), [17, 17, 6]);
        assert_eq!(pieces.join("\n"), text);
    }

    #[test]
    fn what_an_edit_shows() {
        assert_eq!(head("short", 2_000), "short");
        let code = head(&format!("```\n{}", "z\n".repeat(1_500)), 2_000);
        assert!(units(&code) <= 2_000 && code.ends_with("\n```"), "{code}");
    }
}
