//! Aligned columns and two-column fact lists.

use super::{Style, Tone};

/// A cell: its text and its tone. Text from elsewhere has to go through `inert` first.
#[derive(Clone, Debug)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub fn toned(tone: Tone, text: impl Into<String>) -> Self {
        Self { text: text.into(), tone }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), tone: Tone::Plain }
    }
}

/// Columns as wide as their widest cell, two spaces apart, under a dim heading.
pub fn columns(style: Style, heading: &[&str], rows: &[Vec<Cell>]) -> String {
    let mut widths: Vec<usize> = heading.iter().map(|text| width(text)).collect();
    for row in rows {
        for (index, cell) in row.iter().enumerate() {
            if index >= widths.len() {
                widths.push(0);
            }
            widths[index] = widths[index].max(width(&cell.text));
        }
    }
    let mut text = String::new();
    let heading: Vec<Cell> = heading.iter().map(|name| Cell::toned(Tone::Dim, *name)).collect();
    for row in std::iter::once(&heading).chain(rows) {
        let mut line = String::from(" ");
        for (index, cell) in row.iter().enumerate() {
            let last = index + 1 == row.len();
            let padding = if last { 0 } else { widths[index] - width(&cell.text) };
            line.push(' ');
            line.push_str(&style.paint(cell.tone, &cell.text));
            line.push_str(&" ".repeat(padding + usize::from(!last)));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A title and `name  value` lines.
#[derive(Debug)]
pub struct Facts {
    rows: Vec<(String, Cell)>,
}

impl Facts {
    pub const fn new() -> Self {
        Self { rows: Vec::new() }
    }

    pub fn row(&mut self, name: impl Into<String>, value: impl Into<Cell>) -> &mut Self {
        self.rows.push((name.into(), value.into()));
        self
    }

    /// Adds the row only when there is a value.
    pub fn maybe(&mut self, name: &str, value: Option<impl Into<Cell>>) -> &mut Self {
        if let Some(value) = value {
            self.row(name, value);
        }
        self
    }

    /// Lines of `  name  value`; a value of several lines keeps its column.
    pub fn render(&self, style: Style) -> String {
        let widest = self.rows.iter().map(|(name, _)| width(name)).max().unwrap_or(0);
        let mut text = String::new();
        for (name, cell) in &self.rows {
            let mut name = format!("{name}{}", " ".repeat(widest - width(name)));
            for line in cell.text.lines() {
                let shown = format!("  {}  {}", style.paint(Tone::Dim, &name), style.paint(cell.tone, line));
                text.push_str(shown.trim_end());
                text.push('\n');
                name = " ".repeat(widest);
            }
        }
        text
    }

    /// The same in a box, for the overview of `status`.
    pub fn boxed(&self, style: Style, title: &str) -> String {
        let (bar, dash, corners) = if style.unicode() {
            ("│", "─", ["┌", "┐", "└", "┘", "┬", "┴"])
        } else {
            ("|", "-", ["+"; 6])
        };
        let left = self.rows.iter().map(|(name, _)| width(name)).max().unwrap_or(0);
        let right = self.rows.iter().flat_map(|(_, cell)| cell.text.lines()).map(width).max().unwrap_or(0);
        let rule = |a: &str, middle: &str, b: &str| {
            style.paint(Tone::Dim, &format!("{a}{}{middle}{}{b}", dash.repeat(left + 2), dash.repeat(right + 2)))
        };
        let bar = style.paint(Tone::Dim, bar);
        let mut text = format!("{}\n{}\n", style.paint(Tone::Title, title), rule(corners[0], corners[4], corners[1]));
        for (name, cell) in &self.rows {
            let mut name = format!("{name}{}", " ".repeat(left - width(name)));
            for line in cell.text.lines() {
                let padding = " ".repeat(right - width(line));
                text.push_str(&format!("{bar} {name} {bar} {}{padding} {bar}\n", style.paint(cell.tone, line)));
                name = " ".repeat(left);
            }
        }
        text.push_str(&rule(corners[2], corners[5], corners[3]));
        text.push('\n');
        text
    }
}

/// Columns a text takes on a terminal: East Asian wide characters and emoji take two, combining marks none.
fn width(text: &str) -> usize {
    text.chars()
        .map(|c| match u32::from(c) {
            0x300..=0x36f | 0xfe00..=0xfe0f => 0,
            0x1100..=0x115f
            | 0x2e80..=0xa4cf
            | 0xac00..=0xd7a3
            | 0xf900..=0xfaff
            | 0xfe30..=0xfe6f
            | 0xff00..=0xff60
            | 0xffe0..=0xffe6
            | 0x1f300..=0x1faff
            | 0x20000..=0x3fffd => 2,
            _ => 1,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Style = Style { color: false, unicode: false };
    const FANCY: Style = Style { color: true, unicode: true };

    #[test]
    fn columns_align_whatever_the_colour() {
        let rows = [
            vec![Cell::from("a"), Cell::toned(Tone::Good, "yes"), Cell::from("end")],
            vec![Cell::from("長い"), Cell::from("n"), Cell::from("")],
        ];
        let plain = columns(PLAIN, &["name", "ok", "last"], &rows);
        assert_eq!(plain, "  name  ok   last\n  a     yes  end\n  長い  n\n");
        let fancy = columns(FANCY, &["name", "ok", "last"], &rows);
        assert!(fancy.contains("\x1b[32myes\x1b[0m"));
    }

    #[test]
    fn boxes_close() {
        let mut facts = Facts::new();
        facts.row("OS", "linux").row("Gateway", "local\nsecond line");
        let text = facts.boxed(PLAIN, "Overview");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "Overview");
        assert!(lines[1..].iter().all(|line| width(line) == width(lines[1])), "{text}");
        assert_eq!(lines[4], "|         | second line |");
    }
}
