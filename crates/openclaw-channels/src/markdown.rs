//! Markdown, as models write it, to text with styles. Everything that has no style of its own in a chat (headings, lists,
//! tables, rules) becomes text that looks like it. Nothing fails: what is no Markdown is text.

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use crate::{
    message::{Span, TextStyle},
    styled::{Styled, units},
};

/// Renders it.
pub fn render(markdown: &str) -> Styled {
    let mut out = Render::default();
    let options = Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TABLES | Options::ENABLE_TASKLISTS;
    for event in Parser::new_ext(markdown, options) {
        out.event(event);
    }
    out.finish()
}

#[derive(Default)]
struct Render {
    text: String,
    units: usize,
    /// Open styles and where they began.
    open: Vec<(TextStyle, usize)>,
    spans: Vec<Span>,
    /// Numbers of the lists that are open; `None` for bullets.
    lists: Vec<Option<u64>>,
    /// Lines feeds that are due before more text.
    gap: usize,
    table: Option<Table>,
    code: Option<String>,
    /// The text of a link begins here, in bytes.
    link: usize,
}

#[derive(Default)]
struct Table {
    rows: Vec<Vec<String>>,
    cell: String,
}

impl Render {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) => match (&mut self.table, &mut self.code) {
                (Some(table), _) => table.cell.push_str(&text),
                (None, Some(code)) => code.push_str(&text),
                (None, None) => self.push(&text),
            },
            Event::Code(text) => match &mut self.table {
                Some(table) => table.cell.push_str(&text),
                None => self.apart(TextStyle::Code, &text),
            },
            Event::Html(text) | Event::InlineHtml(text) => match text.trim() {
                "<br>" | "<br/>" | "<br />" => self.push("\n"),
                _ => self.push(&text),
            },
            Event::SoftBreak | Event::HardBreak => match &mut self.table {
                Some(table) => table.cell.push(' '),
                None => self.push("\n"),
            },
            Event::Rule => {
                self.block(2);
                self.push("⸻");
                self.block(2);
            }
            Event::TaskListMarker(done) => self.push(if done { "☑ " } else { "☐ " }),
            Event::InlineMath(text) | Event::DisplayMath(text) => self.push(&text),
            Event::FootnoteReference(text) => self.push(&format!("[{text}]")),
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Paragraph => {}
            Tag::Heading { .. } => {
                self.block(2);
                self.open(TextStyle::Bold);
            }
            Tag::BlockQuote(_) => {
                self.block(2);
                self.open(TextStyle::Quote);
            }
            Tag::CodeBlock(kind) => {
                self.block(2);
                self.code = Some(String::new());
                let language = match kind {
                    CodeBlockKind::Fenced(info) => info.split([' ', ',']).next().map(str::to_owned),
                    CodeBlockKind::Indented => None,
                };
                self.open(TextStyle::Pre { language: language.filter(|name| !name.is_empty()) });
            }
            Tag::List(first) => {
                self.block(if self.lists.is_empty() { 2 } else { 1 });
                self.lists.push(first);
            }
            Tag::Item => {
                self.block(1);
                let indent = "  ".repeat(self.lists.len().saturating_sub(1));
                let mark = match self.lists.last_mut() {
                    Some(Some(number)) => {
                        *number += 1;
                        format!("{}. ", *number - 1)
                    }
                    _ => "• ".to_owned(),
                };
                self.push(&format!("{indent}{mark}"));
            }
            Tag::Table(_) => {
                self.block(2);
                self.table = Some(Table::default());
            }
            Tag::TableHead | Tag::TableRow => {
                if let Some(table) = &mut self.table {
                    table.rows.push(Vec::new());
                }
            }
            // Cells are drawn as plain text.
            _ if self.table.is_some() => {}
            Tag::Emphasis => self.open(TextStyle::Italic),
            Tag::Strong => self.open(TextStyle::Bold),
            Tag::Strikethrough => self.open(TextStyle::Strike),
            Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. } => {
                self.flush_gap();
                self.link = self.text.len();
                self.open(TextStyle::Link { url: dest_url.into_string() });
            }
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Paragraph => self.block(if self.lists.is_empty() { 2 } else { 1 }),
            TagEnd::Heading(_) | TagEnd::BlockQuote(_) => {
                self.close();
                self.block(2);
            }
            TagEnd::CodeBlock => {
                let code = self.code.take().unwrap_or_default();
                let style = self.open.pop().map_or(TextStyle::Pre { language: None }, |(style, _)| style);
                self.apart(style, code.trim_end_matches('\n'));
                self.block(2);
            }
            TagEnd::List(_) => {
                self.lists.pop();
                self.block(if self.lists.is_empty() { 2 } else { 1 });
            }
            TagEnd::Item => self.block(1),
            TagEnd::TableCell => {
                if let Some(table) = &mut self.table {
                    let cell = std::mem::take(&mut table.cell);
                    if let Some(row) = table.rows.last_mut() {
                        row.push(cell.trim().to_owned());
                    }
                }
            }
            TagEnd::Table => {
                if let Some(table) = self.table.take() {
                    self.apart(TextStyle::Pre { language: None }, &draw(&table.rows));
                    self.block(2);
                }
            }
            TagEnd::Emphasis | TagEnd::Strong | TagEnd::Strikethrough if self.table.is_none() => self.close(),
            TagEnd::Link | TagEnd::Image if self.table.is_none() => self.close_link(),
            _ => {}
        }
    }

    /// A link whose address is no address of the web is told in words: a chat would refuse it, or hide where it leads.
    fn close_link(&mut self) {
        let Some((TextStyle::Link { url }, start)) = self.open.pop() else { return };
        let shown = self.text.get(self.link..).unwrap_or_default().to_owned();
        let web = ["http://", "https://", "tg://", "mailto:", "tel:"].iter().any(|scheme| url.starts_with(scheme));
        if shown.is_empty() {
            self.push(&url);
        } else if shown == url || url == format!("mailto:{shown}") {
            // Chats make a link of it by themselves.
        } else if web {
            self.span(TextStyle::Link { url }, start);
        } else if !url.is_empty() {
            self.push(&format!(" ({url})"));
        }
    }

    /// Something begins that stands on lines of its own.
    fn block(&mut self, feeds: usize) {
        if !self.text.is_empty() {
            self.gap = self.gap.max(feeds);
        }
    }

    fn flush_gap(&mut self) {
        let due = std::mem::take(&mut self.gap);
        let there = self.text.len() - self.text.trim_end_matches('\n').len();
        for _ in there..due {
            self.text.push('\n');
            self.units += 1;
        }
    }

    fn push(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        if self.gap > 0 {
            let before = self.units;
            self.flush_gap();
            // What began before the gap and has no text yet begins after it.
            let after = self.units;
            self.open.iter_mut().filter(|(_, start)| *start == before).for_each(|(_, start)| *start = after);
            if self.link == self.text.len() - (after - before) {
                self.link = self.text.len();
            }
        }
        self.text.push_str(text);
        self.units += units(text);
    }

    fn open(&mut self, style: TextStyle) {
        self.open.push((style, self.units));
    }

    fn close(&mut self) {
        if let Some((style, start)) = self.open.pop() {
            self.span(style, start);
        }
    }

    fn span(&mut self, style: TextStyle, start: usize) {
        if self.units > start {
            self.spans.push(Span { start, len: self.units - start, style });
        }
    }

    /// Text in a style that lies in no other: the open ones end before it and go on after it.
    fn apart(&mut self, style: TextStyle, text: &str) {
        if text.is_empty() {
            return;
        }
        self.push("\u{0}");
        self.text.pop();
        self.units -= 1;
        let start = self.units;
        for at in 0..self.open.len() {
            // A link may hold code, which then is a link only.
            let (style, begun) = self.open[at].clone();
            if !matches!(style, TextStyle::Link { .. }) {
                self.span(style, begun);
            }
        }
        let in_link = self.open.iter().any(|(style, _)| matches!(style, TextStyle::Link { .. }));
        self.push(text);
        if !in_link {
            self.span(style, start);
        }
        let end = self.units;
        let reopened = self.open.iter_mut().filter(|(style, _)| !matches!(style, TextStyle::Link { .. }));
        reopened.for_each(|(_, begun)| *begun = end);
    }

    fn finish(mut self) -> Styled {
        let text = self.text.trim_end();
        let end = units(text);
        let mut spans: Vec<Span> = std::mem::take(&mut self.spans);
        spans.retain_mut(|span| {
            span.len = span.len.min(end.saturating_sub(span.start));
            span.len > 0
        });
        spans.sort_by_key(|span| (span.start, usize::MAX - span.len));
        Styled { text: text.to_owned(), spans }
    }
}

/// A table in fixed width.
fn draw(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut out = String::new();
    for (number, row) in rows.iter().enumerate() {
        let cells: Vec<String> = widths
            .iter()
            .enumerate()
            .map(|(column, width)| format!("{:width$}", row.get(column).map_or("", String::as_str)))
            .collect();
        out.push_str(cells.join(" | ").trim_end());
        out.push('\n');
        if number == 0 {
            let rules: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
            out.push_str(&rules.join("-+-"));
            out.push('\n');
        }
    }
    out.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows styles as letters around the text: `b(…)`.
    fn show(markdown: &str) -> String {
        let styled = render(markdown);
        let wide: Vec<u16> = styled.text.encode_utf16().collect();
        let mut marks: Vec<(usize, bool, usize, String)> = Vec::new();
        for span in &styled.spans {
            let name = match &span.style {
                TextStyle::Bold => "b".to_owned(),
                TextStyle::Italic => "i".to_owned(),
                TextStyle::Strike => "s".to_owned(),
                TextStyle::Code => "c".to_owned(),
                TextStyle::Pre { language } => format!("pre:{}", language.as_deref().unwrap_or("")),
                TextStyle::Quote => "q".to_owned(),
                TextStyle::Link { url } => format!("a:{url}"),
                TextStyle::Underline | TextStyle::Spoiler => "?".to_owned(),
            };
            marks.push((span.start, true, usize::MAX - span.len, format!("{name}(")));
            marks.push((span.start + span.len, false, span.len, ")".to_owned()));
        }
        marks.sort();
        let mut out = String::new();
        let mut at = 0;
        for (position, _, _, mark) in marks {
            out.push_str(&String::from_utf16_lossy(&wide[at..position]));
            out.push_str(&mark);
            at = position;
        }
        out + &String::from_utf16_lossy(&wide[at..])
    }

    #[test]
    fn markdown_becomes_styles() {
        let check = |markdown: &str, expected: &str| assert_eq!(show(markdown), expected, "{markdown:?}");
        check("plain", "plain");
        check("**b** and *i* and ~~s~~", "b(b) and i(i) and s(s)");
        check("**bold *both* bold**", "b(bold i(both) bold)");
        check("`x < y & z`", "c(x < y & z)");
        // Code lies in no other style.
        check("**see `this` now**", "b(see )c(this)b( now)");
        check("# Title\n\ntext", "b(Title)\n\ntext");
        check("one\ntwo\n\nthree", "one\ntwo\n\nthree");
        check("- a\n- b\n  - c\n- d", "• a\n• b\n  • c\n• d");
        check("3. a\n4. b", "3. a\n4. b");
        check("- [x] done\n- [ ] open", "• ☑ done\n• ☐ open");
        check("> quoted\n> more\n\nafter", "q(quoted\nmore)\n\nafter");
        check("```rust\nfn main() {}\n```\nafter", "pre:rust(fn main() {})\n\nafter");
        check("```\n  a\n\n  b\n```", "pre:(  a\n\n  b)");
        check("[t](https://x.y)", "a:https://x.y(t)");
        check("<https://x.y>", "https://x.y");
        check("[run](javascript:alert(1))", "run (javascript:alert(1))");
        check("[local](./file.md)", "local (./file.md)");
        check("![alt](https://x.y/p.png)", "a:https://x.y/p.png(alt)");
        check("a < b && c > d", "a < b && c > d");
        check("<b>not html</b>", "<b>not html</b>");
        check("snake_case_name 2*3*4", "snake_case_name 2i(3)4");
        check("😀 **bold 😀**", "😀 b(bold 😀)");
        check("unclosed **bold", "unclosed **bold");
        check("| a | bb |\n|---|---|\n| ccc | d |", "pre:(a   | bb\n----+---\nccc | d)");
        check("a\n\n---\n\nb", "a\n\n⸻\n\nb");
        check("text\n\n**bold start**", "text\n\nb(bold start)");
        check("", "");
    }
}
