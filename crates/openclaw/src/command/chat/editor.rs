//! The field a message is written in: several lines, a history, the usual keys of a shell.

use unicode_width::UnicodeWidthChar as _;

/// Messages remembered for the Up key.
const HISTORY: usize = 200;

#[derive(Debug, Default)]
pub struct Editor {
    text: String,
    /// Byte offset, always between characters.
    at: usize,
    history: Vec<String>,
    /// Which entry of the history is shown, and what was being written before.
    recalled: Option<(usize, String)>,
    killed: String,
}

/// The text as it lies on the screen.
#[derive(Debug, PartialEq, Eq)]
pub struct Layout {
    pub rows: Vec<String>,
    /// Row and column of the cursor.
    pub cursor: (usize, usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    Left,
    Right,
    WordLeft,
    WordRight,
    LineStart,
    LineEnd,
}

impl Editor {
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    pub fn before_cursor(&self) -> &str {
        &self.text[..self.at]
    }

    pub fn set(&mut self, text: impl Into<String>) {
        self.text = text.into();
        self.at = self.text.len();
    }

    pub fn insert(&mut self, c: char) {
        self.text.insert(self.at, c);
        self.at += c.len_utf8();
        self.recalled = None;
    }

    /// Pasted text: line ends of every kind become one.
    pub fn paste(&mut self, text: &str) {
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        self.text.insert_str(self.at, &text);
        self.at += text.len();
        self.recalled = None;
    }

    /// Empties it; the text goes into the history.
    pub fn take(&mut self) -> String {
        let text = std::mem::take(&mut self.text);
        self.at = 0;
        self.recalled = None;
        self.remember(&text);
        text
    }

    pub fn remember(&mut self, text: &str) {
        if !text.trim().is_empty() && self.history.last().map(String::as_str) != Some(text) {
            self.history.push(text.to_owned());
            if self.history.len() > HISTORY {
                self.history.remove(0);
            }
        }
    }

    fn target(&self, to: Move) -> usize {
        let (before, after) = self.text.split_at(self.at);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line_end = after.find('\n').map_or(self.text.len(), |at| self.at + at);
        match to {
            Move::Left => before.char_indices().next_back().map_or(0, |(at, _)| at),
            Move::Right => after.chars().next().map_or(self.at, |c| self.at + c.len_utf8()),
            Move::WordLeft => {
                let trimmed = before.trim_end_matches(|c: char| !c.is_alphanumeric());
                trimmed.char_indices().rev().find(|(_, c)| !c.is_alphanumeric()).map_or(0, |(at, c)| at + c.len_utf8())
            }
            Move::WordRight => {
                let word = after.find(char::is_alphanumeric).unwrap_or(after.len());
                let end = after[word..].find(|c: char| !c.is_alphanumeric()).unwrap_or(after.len() - word);
                self.at + word + end
            }
            Move::LineStart => line_start,
            Move::LineEnd => line_end,
        }
    }

    pub fn go(&mut self, to: Move) {
        self.at = self.target(to);
    }

    /// Removes up to there.
    pub fn remove(&mut self, to: Move) {
        let target = self.target(to);
        let (from, to) = (target.min(self.at), target.max(self.at));
        self.text.replace_range(from..to, "");
        self.at = from;
        self.recalled = None;
    }

    /// Removes up to there and keeps it for [`Self::yank`].
    pub fn kill(&mut self, to: Move) {
        let target = self.target(to);
        let (from, until) = (target.min(self.at), target.max(self.at));
        if from < until {
            self.killed = self.text[from..until].to_owned();
        }
        self.remove(to);
    }

    pub fn yank(&mut self) {
        let killed = self.killed.clone();
        self.paste(&killed);
    }

    fn column(&self) -> usize {
        let start = self.target(Move::LineStart);
        self.text[start..self.at].chars().count()
    }

    fn at_column(&mut self, start: usize, column: usize) {
        let line = self.text[start..].split('\n').next().unwrap_or_default();
        let offset = line.char_indices().nth(column).map_or(line.len(), |(at, _)| at);
        self.at = start + offset;
    }

    /// A line up, or the message before in the history. False when there is neither.
    pub fn up(&mut self) -> bool {
        let start = self.target(Move::LineStart);
        if start > 0 {
            let column = self.column();
            let before = self.text[..start - 1].rfind('\n').map_or(0, |at| at + 1);
            self.at_column(before, column);
            return true;
        }
        let index = match &self.recalled {
            Some((0, _)) => return false,
            Some((index, _)) => index - 1,
            None if self.history.is_empty() => return false,
            None => self.history.len() - 1,
        };
        let draft = self.recalled.take().map_or_else(|| self.text.clone(), |(_, draft)| draft);
        self.set(self.history[index].clone());
        self.recalled = Some((index, draft));
        true
    }

    /// A line down, or the message after in the history, and at last what was being written.
    pub fn down(&mut self) -> bool {
        let end = self.target(Move::LineEnd);
        if end < self.text.len() {
            let column = self.column();
            self.at_column(end + 1, column);
            return true;
        }
        let Some((index, draft)) = self.recalled.take() else { return false };
        match self.history.get(index + 1) {
            Some(next) => {
                self.set(next.clone());
                self.recalled = Some((index + 1, draft));
            }
            None => self.set(draft),
        }
        true
    }

    /// Rows of at most `columns`. The cursor may stand one column behind the text, so a full row is followed by another.
    pub fn layout(&self, columns: usize) -> Layout {
        let columns = columns.max(2);
        let (mut rows, mut row, mut used, mut cursor) = (Vec::new(), String::new(), 0, None);
        for (at, c) in self.text.char_indices().chain(std::iter::once((self.text.len(), '\n'))) {
            let shown = shown(c);
            let wide = shown.iter().map(|c| c.width().unwrap_or(0)).sum::<usize>();
            let last = at == self.text.len();
            if (c != '\n' && used + wide > columns) || (c == '\n' && used >= columns && at == self.at) {
                rows.push(std::mem::take(&mut row));
                used = 0;
            }
            if at == self.at {
                cursor = Some((rows.len(), used));
            }
            if c == '\n' {
                if !last {
                    rows.push(std::mem::take(&mut row));
                    used = 0;
                }
            } else {
                row.extend(shown);
                used += wide;
            }
        }
        rows.push(row);
        Layout { cursor: cursor.unwrap_or((rows.len() - 1, 0)), rows }
    }
}

/// How a character looks in the field: control characters, which a paste may bring, as a sign.
fn shown(c: char) -> Vec<char> {
    match c {
        '\t' => vec![' '; 4],
        '\n' => Vec::new(),
        c if c.is_control() || c.width() == Some(0) => vec!['\u{fffd}'],
        c => vec![c],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str) -> Editor {
        let mut editor = Editor::default();
        editor.set(text);
        editor
    }

    #[test]
    fn moves() {
        let check = |text: &str, moves: &[Move], expected: &str| {
            let mut editor = with(text);
            moves.iter().for_each(|to| editor.go(*to));
            assert_eq!(editor.before_cursor(), expected, "{text:?} {moves:?}");
        };
        use Move as M;
        check("héllo", &[M::Left, M::Left], "hél");
        check("one two-three", &[M::WordLeft], "one two-");
        check("one two-three", &[M::WordLeft, M::WordLeft], "one ");
        check("one two", &[M::LineStart, M::WordRight], "one");
        check("one\ntwo", &[M::LineStart], "one\n");
        check("one\ntwo", &[M::LineStart, M::Left, M::LineStart], "");
        check("", &[M::Left, M::Right, M::WordLeft, M::WordRight, M::LineEnd], "");
        check("one\ntwo", &[M::LineStart, M::Left, M::LineStart, M::LineEnd], "one");
    }

    #[test]
    fn kills_and_yanks() {
        let mut editor = with("one two");
        editor.kill(Move::WordLeft);
        assert_eq!(editor.text(), "one ");
        editor.go(Move::LineStart);
        editor.yank();
        assert_eq!((editor.text(), editor.before_cursor()), ("twoone ", "two"));
        editor.remove(Move::Right);
        assert_eq!(editor.text(), "twone ");
        editor.kill(Move::LineEnd);
        assert_eq!(editor.text(), "two");
    }

    #[test]
    fn the_history_keeps_the_draft() {
        let mut editor = Editor::default();
        for text in ["first", "second", "second", " "] {
            editor.set(text);
            editor.take();
        }
        editor.set("draft");
        let mut seen = Vec::new();
        while editor.up() {
            seen.push(editor.text().to_owned());
        }
        assert_eq!(seen, ["second", "first"]);
        assert!(editor.down() && editor.down());
        assert_eq!(editor.text(), "draft");
        assert!(!editor.down());
    }

    #[test]
    fn up_and_down_go_through_lines_first() {
        let mut editor = with("long line\nx\nanother");
        assert!(editor.up());
        assert_eq!(editor.before_cursor(), "long line\nx");
        assert!(editor.up() && !editor.up());
        assert_eq!(editor.before_cursor(), "l");
        assert!(editor.down() && editor.down() && !editor.down());
        assert_eq!(editor.before_cursor(), "long line\nx\na");
    }

    #[test]
    fn rows_on_the_screen() {
        let check = |text: &str, columns: usize, rows: &[&str], cursor: (usize, usize)| {
            let layout = with(text).layout(columns);
            assert_eq!(
                (layout.rows.iter().map(String::as_str).collect::<Vec<_>>(), layout.cursor),
                (rows.to_vec(), cursor)
            );
        };
        check("", 10, &[""], (0, 0));
        check("abc", 10, &["abc"], (0, 3));
        check("abcdef", 4, &["abcd", "ef"], (1, 2));
        check("abcd", 4, &["abcd", ""], (1, 0));
        check("a\nb", 4, &["a", "b"], (1, 1));
        check("日本語", 4, &["日本", "語"], (1, 2));
        check("a\u{1b}b\t", 10, &["a\u{fffd}b    "], (0, 7));
    }

    #[test]
    fn pasted_line_ends_are_one_kind() {
        let mut editor = Editor::default();
        editor.paste("a\r\nb\rc");
        assert_eq!(editor.text(), "a\nb\nc");
    }
}
