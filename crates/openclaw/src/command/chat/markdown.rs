//! Markdown as lines of a terminal: headings, lists, quotes, code, tables, links, emphasis. Half-written Markdown, as it
//! streams in, is shown as far as it is understood.

use pulldown_cmark::{Alignment, CodeBlockKind, Event, Options, Parser, Tag, TagEnd};
use ratatui::{
    style::{Modifier, Style},
    text::{Line, Span},
};

use super::{
    theme::Theme,
    wrap::{self, Paragraph, clean, width},
};

/// Narrowest column of a table before its cells are listed instead.
const NARROWEST: usize = 6;

pub fn render(text: &str, columns: usize, theme: Theme) -> Vec<Line<'static>> {
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    let mut writer = Writer::new(columns, theme);
    for event in Parser::new_ext(text, options) {
        writer.event(event);
    }
    writer.flush();
    while writer.lines.last().is_some_and(|line| line.width() == 0) {
        writer.lines.pop();
    }
    writer.lines
}

struct Writer {
    columns: usize,
    theme: Theme,
    lines: Vec<Line<'static>>,
    paragraph: Paragraph,
    styles: Vec<Style>,
    /// What stands before each line: quotes, list indents.
    indents: Vec<Indent>,
    /// Next number of each open list; `None` for bullets.
    lists: Vec<Option<u64>>,
    /// Where an open link leads, and the words so far.
    link: Option<(String, String)>,
    code: Option<String>,
    table: Option<Table>,
    /// A blank line is due before the next block.
    gap: bool,
}

struct Indent {
    /// Before the first line only; taken when written.
    first: Option<Span<'static>>,
    rest: Span<'static>,
}

#[derive(Default)]
struct Table {
    alignments: Vec<Alignment>,
    rows: Vec<Vec<String>>,
    cell: String,
}

impl Writer {
    fn new(columns: usize, theme: Theme) -> Self {
        Self {
            columns,
            theme,
            lines: Vec::new(),
            paragraph: Paragraph::default(),
            styles: Vec::new(),
            indents: Vec::new(),
            lists: Vec::new(),
            link: None,
            code: None,
            table: None,
            gap: false,
        }
    }

    fn style(&self) -> Style {
        self.styles.iter().fold(Style::new(), |all, style| all.patch(*style))
    }

    /// The prefixes of the next line and of those after it.
    fn prefixes(&mut self) -> (Vec<Span<'static>>, Vec<Span<'static>>) {
        let rest: Vec<_> = self.indents.iter().map(|indent| indent.rest.clone()).collect();
        let first = self.indents.iter_mut().map(|indent| indent.first.take().unwrap_or_else(|| indent.rest.clone()));
        (first.collect(), rest)
    }

    fn flush(&mut self) {
        if self.paragraph.is_empty() {
            return;
        }
        let paragraph = std::mem::take(&mut self.paragraph);
        let (first, rest) = self.prefixes();
        self.lines.extend(paragraph.lines(self.columns, &first, &rest));
    }

    /// Room before a block.
    fn open_block(&mut self) {
        self.flush();
        if std::mem::take(&mut self.gap) && !self.lines.is_empty() {
            let quotes: Vec<_> = self.indents.iter().map(|indent| indent.rest.clone()).collect();
            let quoted = quotes.iter().any(|span| !span.content.trim().is_empty());
            self.lines.push(if quoted { Line::from(quotes) } else { Line::default() });
        }
    }

    fn text(&mut self, text: &str) {
        if let Some(code) = &mut self.code {
            return code.push_str(text);
        }
        if let Some(table) = &mut self.table {
            return table.cell.push_str(text);
        }
        if let Some((_, words)) = &mut self.link {
            words.push_str(text);
        }
        let style = self.style();
        self.paragraph.push(text, style);
    }

    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) | Event::Html(text) | Event::InlineHtml(text) => self.text(&text),
            Event::Code(code) => {
                self.styles.push(self.theme.code());
                self.text(&code);
                self.styles.pop();
            }
            Event::SoftBreak => self.text(" "),
            Event::HardBreak => {
                if self.table.is_some() {
                    self.text(" ");
                } else {
                    self.flush();
                }
            }
            Event::Rule => {
                self.open_block();
                let sign = self.theme.sign("─", "-");
                let (first, _) = self.prefixes();
                let used: usize = first.iter().map(|span| width(&span.content)).sum();
                let mut line = first;
                line.push(Span::styled(sign.repeat(self.columns.saturating_sub(used).min(40)), self.theme.dim()));
                self.lines.push(Line::from(line));
                self.gap = true;
            }
            Event::TaskListMarker(done) => {
                let (sign, style) = match done {
                    true => (self.theme.sign("☑ ", "[x] "), self.theme.good()),
                    false => (self.theme.sign("☐ ", "[ ] "), self.theme.dim()),
                };
                self.paragraph.push(sign, style);
            }
            Event::InlineMath(text) | Event::DisplayMath(text) | Event::FootnoteReference(text) => self.text(&text),
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Paragraph => self.open_block(),
            Tag::Heading { level, .. } => {
                self.open_block();
                self.styles.push(self.theme.heading());
                if !self.theme.unicode() || level as usize > 2 {
                    let style = self.theme.dim();
                    self.paragraph.push(&format!("{} ", "#".repeat(level as usize)), style);
                }
                if level as usize == 1 {
                    self.styles.push(Style::new().add_modifier(Modifier::UNDERLINED));
                } else {
                    self.styles.push(Style::new());
                }
            }
            Tag::BlockQuote(_) => {
                self.open_block();
                let bar = Span::styled(self.theme.sign("▌ ", "> "), self.theme.dim());
                self.indents.push(Indent { first: None, rest: bar });
                self.styles.push(Style::new().add_modifier(Modifier::ITALIC));
            }
            Tag::CodeBlock(kind) => {
                self.open_block();
                self.code = Some(String::new());
                if let CodeBlockKind::Fenced(language) = kind
                    && let Some(language) = language.split_whitespace().next()
                {
                    let (mut line, _) = self.prefixes();
                    line.push(Span::styled(format!("  {}", clean(language)), self.theme.dim()));
                    self.lines.push(Line::from(line));
                }
            }
            Tag::List(start) => {
                if self.lists.is_empty() {
                    self.open_block();
                } else {
                    self.flush();
                }
                self.lists.push(start);
            }
            Tag::Item => {
                self.flush();
                let depth = self.lists.len();
                let marker = match self.lists.last_mut() {
                    Some(Some(number)) => {
                        *number += 1;
                        format!("{}. ", *number - 1)
                    }
                    _ => {
                        let bullets = [("• ", "* "), ("◦ ", "- "), ("▪ ", "+ ")];
                        let (unicode, ascii) = bullets[(depth.max(1) - 1).min(2)];
                        self.theme.sign(unicode, ascii).to_owned()
                    }
                };
                let rest = Span::raw(" ".repeat(width(&marker)));
                let first = Some(Span::styled(marker, self.theme.accent()));
                self.indents.push(Indent { first, rest });
                self.gap = false;
            }
            Tag::Emphasis => self.styles.push(Style::new().add_modifier(Modifier::ITALIC)),
            Tag::Strong => self.styles.push(self.theme.bold()),
            Tag::Strikethrough => self.styles.push(Style::new().add_modifier(Modifier::CROSSED_OUT)),
            Tag::Link { dest_url, .. } => {
                self.link = Some((dest_url.to_string(), String::new()));
                self.styles.push(self.theme.link());
            }
            Tag::Image { dest_url, .. } => {
                self.text("[image: ");
                self.link = Some((dest_url.to_string(), String::new()));
                self.styles.push(self.theme.link());
            }
            Tag::Table(alignments) => {
                self.open_block();
                self.table = Some(Table { alignments, ..Table::default() });
            }
            Tag::TableHead | Tag::TableRow => {
                if let Some(table) = &mut self.table {
                    table.rows.push(Vec::new());
                }
            }
            Tag::HtmlBlock => self.open_block(),
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Paragraph | TagEnd::HtmlBlock => {
                self.flush();
                self.gap = true;
            }
            TagEnd::Heading(_) => {
                self.styles.pop();
                self.styles.pop();
                self.flush();
                self.gap = true;
            }
            TagEnd::BlockQuote(_) => {
                self.flush();
                self.indents.pop();
                self.styles.pop();
                self.gap = true;
            }
            TagEnd::CodeBlock => {
                let code = self.code.take().unwrap_or_default();
                let bar = Span::styled(self.theme.sign("│ ", "| "), self.theme.dim());
                let (mut first, mut rest) = self.prefixes();
                first.push(bar.clone());
                rest.push(bar);
                let code = code.strip_suffix('\n').unwrap_or(&code);
                self.lines.extend(wrap::verbatim(code, self.columns, self.theme.code(), &first, &rest));
                self.gap = true;
            }
            TagEnd::List(_) => {
                self.flush();
                self.lists.pop();
                self.gap = self.lists.is_empty();
            }
            TagEnd::Item => {
                self.flush();
                // An item without words still has its marker.
                if self.indents.last().is_some_and(|indent| indent.first.is_some()) {
                    let (first, _) = self.prefixes();
                    self.lines.push(Line::from(first));
                }
                self.indents.pop();
                self.gap = false;
            }
            TagEnd::Emphasis | TagEnd::Strong | TagEnd::Strikethrough => {
                self.styles.pop();
            }
            TagEnd::Link => self.end_link(""),
            TagEnd::Image => self.end_link("]"),
            TagEnd::TableCell => {
                if let Some(table) = &mut self.table {
                    let cell = clean(std::mem::take(&mut table.cell).trim());
                    if let Some(row) = table.rows.last_mut() {
                        row.push(cell);
                    }
                }
            }
            TagEnd::Table => {
                if let Some(table) = self.table.take() {
                    self.table(&table);
                }
                self.gap = true;
            }
            _ => {}
        }
    }

    /// The address is always to be seen: words may say anything.
    fn end_link(&mut self, close: &str) {
        self.styles.pop();
        let Some((address, words)) = self.link.take() else { return };
        let bare = address.strip_prefix("mailto:").unwrap_or(&address);
        if words != address && words != bare {
            let style = self.theme.dim();
            if let Some(table) = &mut self.table {
                table.cell.push_str(&format!(" ({address})"));
            } else {
                self.paragraph.push(&format!(" ({address})"), style);
            }
        }
        self.text(close);
    }

    fn table(&mut self, table: &Table) {
        let count = table.rows.iter().map(Vec::len).max().unwrap_or(0);
        let (first, _) = self.prefixes();
        let indent: usize = first.iter().map(|span| width(&span.content)).sum();
        let columns = self.columns.saturating_sub(indent);
        let widest = |index: usize| table.rows.iter().filter_map(|row| row.get(index)).map(|cell| width(cell)).max();
        let mut widths: Vec<usize> = (0..count).map(|index| widest(index).unwrap_or(0).max(1)).collect();
        let gaps = 3 * count.saturating_sub(1);
        while widths.iter().sum::<usize>() + gaps > columns {
            let Some(index) = (0..count).max_by_key(|index| widths[*index]).filter(|i| widths[*i] > NARROWEST) else {
                return self.listed(table, &first);
            };
            widths[index] -= 1;
        }
        let bar = Span::styled(self.theme.sign(" │ ", " | "), self.theme.dim());
        for (number, row) in table.rows.iter().enumerate() {
            let style = if number == 0 { self.theme.bold() } else { Style::new() };
            let cells: Vec<Vec<Line<'static>>> = (0..count)
                .map(|index| {
                    let text = row.get(index).map_or("", String::as_str);
                    wrap::prose(text, widths[index], style, &[], &[])
                })
                .collect();
            for line in 0..cells.iter().map(Vec::len).max().unwrap_or(0) {
                let mut spans = first.clone();
                for (index, cell) in cells.iter().enumerate() {
                    let text = cell.get(line).map(ToString::to_string).unwrap_or_default();
                    let free = widths[index].saturating_sub(width(&text));
                    let before = match table.alignments.get(index) {
                        Some(Alignment::Right) => free,
                        Some(Alignment::Center) => free / 2,
                        _ => 0,
                    };
                    let last = index + 1 == count;
                    spans.push(Span::raw(" ".repeat(before)));
                    spans.push(Span::styled(text, style));
                    spans.push(Span::raw(if last { String::new() } else { " ".repeat(free - before) }));
                    if !last {
                        spans.push(bar.clone());
                    }
                }
                self.lines.push(Line::from(spans));
            }
            if number == 0 {
                let (dash, cross) = (self.theme.sign("─", "-"), self.theme.sign("─┼─", "-+-"));
                let rule: Vec<String> = widths.iter().map(|width| dash.repeat(*width)).collect();
                let mut spans = first.clone();
                spans.push(Span::styled(rule.join(cross), self.theme.dim()));
                self.lines.push(Line::from(spans));
            }
        }
    }

    /// A table that does not fit: each row as `name: cell` lines.
    fn listed(&mut self, table: &Table, first: &[Span<'static>]) {
        let Some((head, rows)) = table.rows.split_first() else { return };
        for (number, row) in rows.iter().enumerate() {
            if number > 0 {
                self.lines.push(Line::default());
            }
            for (index, cell) in row.iter().enumerate() {
                let mut paragraph = Paragraph::default();
                if let Some(name) = head.get(index).filter(|name| !name.is_empty()) {
                    paragraph.push(&format!("{name}: "), self.theme.bold());
                }
                paragraph.push(cell, Style::new());
                self.lines.extend(paragraph.lines(self.columns, first, first));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(markdown: &str, columns: usize, expected: &[&str]) {
        let lines: Vec<String> =
            render(markdown, columns, Theme::new(false, true)).iter().map(ToString::to_string).collect();
        assert_eq!(lines, expected, "{markdown}");
    }

    #[test]
    fn blocks() {
        check("one\ntwo\n\nthree", 20, &["one two", "", "three"]);
        check("# Head\ntext", 20, &["Head", "", "text"]);
        check("### Deep", 20, &["### Deep"]);
        check("- a\n- b\n  1. c\n  2. d\n\nend", 20, &["• a", "• b", "  1. c", "  2. d", "", "end"]);
        check("3. x\n4. y", 20, &["3. x", "4. y"]);
        check("- a long item that wraps", 12, &["• a long", "  item that", "  wraps"]);
        check("> quoted words\n> more", 12, &["▌ quoted", "▌ words more"]);
        check("```rust\nfn x() {}\n\n  y\n```\nafter", 20, &["  rust", "│ fn x() {}", "│ ", "│   y", "", "after"]);
        check("- [x] done\n- [ ] open", 20, &["• ☑ done", "• ☐ open"]);
        check("a\n\n---\n\nb", 5, &["a", "", "─────", "", "b"]);
        check("", 20, &[]);
    }

    #[test]
    fn inline() {
        check("a **b** *c* `d` ~~e~~", 40, &["a b c d e"]);
        check("[words](https://e.org/a)", 40, &["words (https://e.org/a)"]);
        check("<https://e.org/a>", 40, &["https://e.org/a"]);
        check("![cat](x.png)", 40, &["[image: cat (x.png)]"]);
        check("line  \nbreak", 40, &["line", "break"]);
        let lines = render("**b** and `c`", 40, Theme::new(true, true));
        let bold = |line: &Line<'static>, at: usize| line.spans[at].style.add_modifier.contains(Modifier::BOLD);
        assert!(bold(&lines[0], 0) && !bold(&lines[0], 2), "{lines:?}");
    }

    #[test]
    fn tables() {
        check("| a | bb |\n|---|---:|\n| 1 | 2 |", 40, &["a │ bb", "──┼───", "1 │  2"]);
        check(
            "| name | what it is |\n|---|---|\n| one | a long description of it |",
            20,
            &["name │ what it is", "─────┼──────────────", "one  │ a long", "     │ description", "     │ of it"],
        );
        check("| name | what |\n|---|---|\n| one | two |", 9, &["name: one", "what: two"]);
        check("| name | what |\n|---|---|\n| one | two |", 8, &["name:", "one", "what:", "two"]);
    }

    /// As it streams in.
    #[test]
    fn half_written() {
        check("```sh\nls -l", 20, &["  sh", "│ ls -l"]);
        check("a **b", 20, &["a **b"]);
        check("- ", 20, &["• "]);
        check("[words](https://e", 40, &["[words](https://e"]);
    }
}
