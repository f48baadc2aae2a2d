//! The model as a screen. From top to bottom: where one is, the conversation, what waits for leave, what goes on, the field.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Position, Rect},
    style::Style,
    symbols::border,
    text::{Line, Span},
    widgets::{Block, Clear, Paragraph},
};

use super::{
    approval, entry,
    keys::HELP,
    model::{Connection, Kind, Model, Overlay},
    picker::{Picker, State},
    theme::Theme,
    transcript::{Entry, Item, Tone},
    wrap::{self, clean, cut, width},
};
use crate::output::time;

/// Rows of the field, and of offered completions.
const FIELD_ROWS: usize = 8;
const OFFERED_ROWS: usize = 8;

/// Draws all, and notes in the model how much of the conversation fits.
pub fn draw(frame: &mut Frame<'_>, model: &mut Model, theme: Theme) {
    let area = frame.area();
    if area.width < 20 || area.height < 6 {
        frame.render_widget(Paragraph::new("openclaw: the terminal is too small"), area);
        return;
    }
    let columns = usize::from(area.width);
    let field = model.editor.layout(columns.saturating_sub(4));
    let field_rows = field.rows.len().min(FIELD_ROWS.min(usize::from(area.height) / 3).max(1));
    let chips = u16::from(!model.attachments.is_empty());
    let request = request_lines(model, theme, columns.saturating_sub(4));
    let room = usize::from(area.height).saturating_sub(6 + field_rows);
    let pane = if request.is_empty() { 0 } else { (request.len() + 3).min((room * 2 / 3).max(5)) };
    let rows = Layout::vertical([
        Constraint::Length(2),
        Constraint::Min(1),
        Constraint::Length(small(pane)),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(chips),
        Constraint::Length(small(field_rows)),
    ])
    .split(area);
    let [head, talk, ask, rule, status, files, write] = rows[..] else { return };

    header(frame, head, model, theme);
    conversation(frame, talk, model, theme);
    if pane > 0 {
        pane_of(frame, ask, model, theme, request);
    }
    frame.render_widget(Line::styled(theme.sign("─", "-").repeat(columns), theme.dim()), rule);
    frame.render_widget(status_line(model, theme, columns), status);
    if chips > 0 {
        let names: Vec<String> = model.attachments.iter().map(|file| format!("[{}]", clean(&file.name))).collect();
        let text = cut(&format!("  {}", names.join(" ")), columns, theme.sign("…", "~"));
        frame.render_widget(Line::styled(text, theme.accent()), files);
    }
    let first = (field.cursor.0 + 1).saturating_sub(field_rows);
    let prompt_style = if model.overlay.is_none() && !model.approvals.focused { theme.person() } else { theme.dim() };
    let lines: Vec<Line<'_>> = field
        .rows
        .iter()
        .enumerate()
        .skip(first)
        .take(field_rows)
        .map(|(index, row)| {
            let sign = if index == 0 { theme.sign(" › ", " > ") } else { "   " };
            if model.editor.is_empty() {
                let text = match &model.connection {
                    Connection::Connecting => "connecting; you may write already",
                    _ => "message, or / for commands",
                };
                return Line::from(vec![Span::styled(sign, prompt_style), Span::styled(text, theme.dim())]);
            }
            Line::from(vec![Span::styled(sign, prompt_style), Span::raw(row.clone())])
        })
        .collect();
    frame.render_widget(Paragraph::new(lines), write);
    if model.overlay.is_none() {
        offered(frame, model, theme, Rect { height: rule.y.saturating_sub(talk.y), ..talk });
        if !model.approvals.focused {
            let (row, column) = (small(field.cursor.0 - first), small(field.cursor.1 + 3));
            frame.set_cursor_position(Position::new(write.x + column.min(area.width - 1), write.y + row));
        }
    }
    overlay(frame, area, model, theme);
}

fn small(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

/// Left and right on one line; the left one is cut first.
fn sides(left: Vec<Span<'static>>, right: Vec<Span<'static>>, columns: usize, theme: Theme) -> Line<'static> {
    let wide = |spans: &[Span<'static>]| spans.iter().map(|span| width(&span.content)).sum::<usize>();
    let ellipsis = theme.sign("…", "~");
    let room = columns.saturating_sub(wide(&right) + 1);
    let mut line: Vec<Span<'static>> = Vec::new();
    let mut used = 0;
    for span in left {
        let text = cut(&span.content, room.saturating_sub(used), ellipsis);
        used += width(&text);
        line.push(Span::styled(text, span.style));
    }
    line.push(Span::raw(" ".repeat(columns.saturating_sub(used + wide(&right)))));
    line.extend(right);
    Line::from(line)
}

fn header(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: Theme) {
    let columns = usize::from(area.width);
    let session = &model.session;
    let key = session.key.strip_prefix("agent:main:").unwrap_or(&session.key);
    let name = session.title.as_deref().unwrap_or(key);
    let mut left = vec![Span::styled(format!(" {}", clean(name)), theme.bold())];
    if let Some(model) = &session.model {
        left.push(Span::styled(format!("{}{}", theme.sign(" · ", ", "), clean(model)), theme.dim()));
    }
    if let Some(thinking) = session.thinking.as_deref().filter(|level| !matches!(*level, "off" | "default")) {
        left.push(Span::styled(format!("{}think {}", theme.sign(" · ", ", "), clean(thinking)), theme.dim()));
    }
    let (style, sign, text) = match &model.connection {
        Connection::Connecting => (theme.warn(), theme.sign("○", "o"), "connecting".to_owned()),
        Connection::Up(path) => (theme.good(), theme.sign("●", "*"), clean(path)),
        Connection::Away(_) => (theme.bad(), theme.sign("○", "!"), "no connection".to_owned()),
    };
    let text = cut(&text, columns / 2, theme.sign("…", "~"));
    let right = vec![Span::styled(format!("{sign} "), style), Span::styled(format!("{text} "), theme.dim())];
    let lines =
        vec![sides(left, right, columns, theme), Line::styled(theme.sign("─", "-").repeat(columns), theme.dim())];
    frame.render_widget(Paragraph::new(lines), area);
}

fn conversation(frame: &mut Frame<'_>, area: Rect, model: &mut Model, theme: Theme) {
    let (columns, fit) = (usize::from(area.width), usize::from(area.height));
    let look = entry::Look { columns, theme, thinking: model.show_thinking, tools: model.open_tools };
    let circumstances = look.number();
    let items = model.transcript.items();
    let count = |item: &Item| item.lines(circumstances, |entry| entry::lines(entry, look), <[_]>::len);
    let gap = |index: usize| usize::from(index > 0 && parted(&items[index - 1].entry, &items[index].entry));
    let counts: Vec<usize> = items.iter().enumerate().map(|(index, item)| gap(index) + count(item)).collect();
    let all: usize = counts.iter().sum();

    // Who reads further up keeps the place while more is written below.
    if model.scroll > 0 && model.drawn.0 > 0 {
        model.scroll = (model.scroll + all).saturating_sub(model.drawn.0);
    }
    model.scroll = model.scroll.min(all.saturating_sub(fit));
    model.drawn = (all, fit);
    let last = all - model.scroll;
    let first = last.saturating_sub(fit);

    let mut lines: Vec<Line<'static>> = Vec::with_capacity(fit);
    let mut at = 0;
    for (index, item) in items.iter().enumerate() {
        let (start, end) = (at, at + counts[index]);
        at = end;
        if end <= first || start >= last {
            continue;
        }
        let gap = gap(index);
        item.lines(
            circumstances,
            |entry| entry::lines(entry, look),
            |drawn| {
                for line in start.max(first)..end.min(last) {
                    lines.push(match (line - start).checked_sub(gap) {
                        None => Line::default(),
                        Some(line) => drawn[line].clone(),
                    });
                }
            },
        );
    }
    if all == 0 {
        lines = empty(model, theme, columns);
    }
    frame.render_widget(Paragraph::new(lines), area);
    if model.scroll > 0 {
        let text = format!(" {} {} more {} End ", theme.sign("↓", "v"), model.scroll, theme.sign("·", "-"));
        let wide = small(width(&text)).min(area.width);
        let at = Rect { x: area.right() - wide, y: area.bottom() - 1, width: wide, height: 1 };
        frame.render_widget(Line::styled(text, theme.chosen()), at);
    }
}

/// What is said before anything was.
fn empty(model: &Model, theme: Theme, columns: usize) -> Vec<Line<'static>> {
    if model.connection == Connection::Connecting || model.loading {
        return Vec::new();
    }
    let text = "Nothing was said here yet. Write below; Ctrl-P shows other conversations, /keys the keys.";
    wrap::prose(text, columns.saturating_sub(2), theme.dim(), &[Span::raw("  ")], &[Span::raw("  ")])
}

/// Tools in a row stand together.
fn parted(before: &Entry, after: &Entry) -> bool {
    !matches!((before, after), (Entry::Tool(_), Entry::Tool(_)) | (Entry::Note { .. }, Entry::Note { .. }))
}

fn status_line(model: &Model, theme: Theme, columns: usize) -> Line<'static> {
    let dot = theme.sign(" · ", ", ");
    let mut right = String::new();
    let session = &model.session;
    if let Some(tokens) = session.tokens {
        right.push_str(&thousands(tokens));
        if let Some(context) = session.context.filter(|context| *context > 0) {
            let percent = tokens.saturating_mul(100) / context;
            right.push_str(&format!("/{} ({percent}%)", thousands(context)));
        }
        right.push_str(" tokens");
    }
    if let Some(cost) = session.cost.filter(|cost| *cost > 0.0) {
        let digits = if cost < 0.1 { 4 } else { 2 };
        right.push_str(&format!("{}${cost:.digits$}", if right.is_empty() { "" } else { dot }));
    }
    if columns < 70 {
        right = right.replace(" tokens", "");
    }
    let spin = theme.spinner(usize::try_from(model.now_ms / 100).unwrap_or(0));
    let tone = |tone: Tone| entry::tone(tone, theme);
    let left = if let Connection::Away(why) = &model.connection {
        vec![Span::styled(format!(" {spin} no connection, trying again: {}", clean(why)), theme.bad())]
    } else if let Some((kind, hint, _)) = &model.hint {
        vec![Span::styled(format!(" {}", clean(hint)), tone(*kind))]
    } else if let Some(run) = &model.run {
        let elapsed = std::time::Duration::from_millis(u64::try_from(model.now_ms - run.started_ms).unwrap_or(0));
        let stop = if run.stopping { "" } else { "Esc stops" };
        let elapsed = format!(
            "{dot}{}",
            time::span(std::time::Duration::from_secs(elapsed.as_secs())).replace("0ms", "0s").replace(".0s", "s")
        );
        vec![
            Span::styled(format!(" {spin} "), theme.accent()),
            Span::raw(clean(&run.phase)),
            Span::styled(format!("{elapsed}{}{stop}", if stop.is_empty() { "" } else { dot }), theme.dim()),
        ]
    } else if model.approvals.len() > 0 && !model.approvals.focused {
        vec![Span::styled(" something waits for leave: Tab", theme.warn())]
    } else if model.transcript.is_sending() || model.loading || model.connection == Connection::Connecting {
        let what = if model.transcript.is_sending() { "sending" } else { "reading" };
        vec![Span::styled(format!(" {spin} {what}"), theme.dim())]
    } else {
        let help = ["/keys", "Ctrl-P conversations", "Ctrl-L models"];
        let help = if columns < 70 { &help[..2] } else { &help[..] };
        vec![Span::styled(format!(" {}", help.join(dot)), theme.dim())]
    };
    // Why there is no connection needs the room.
    let away = matches!(model.connection, Connection::Away(_));
    let right =
        if right.is_empty() || away { Vec::new() } else { vec![Span::styled(format!("{right} "), theme.dim())] };
    sides(left, right, columns, theme)
}

/// `950`, `1.2k`, `128k`.
fn thousands(count: u64) -> String {
    match count {
        0..1000 => count.to_string(),
        1000..10_000 => format!("{}.{}k", count / 1000, count % 1000 / 100),
        _ => format!("{}k", count / 1000),
    }
}

/// The current request whole, line by line.
fn request_lines(model: &Model, theme: Theme, columns: usize) -> Vec<Line<'static>> {
    let Some(approval) = model.approvals.current() else { return Vec::new() };
    let mut lines = Vec::new();
    for (name, value) in approval::facts(approval, model.now_ms) {
        let style = match name {
            "runs" => theme.code().add_modifier(ratatui::style::Modifier::BOLD),
            "warning" | "note" => theme.warn(),
            _ => Style::new(),
        };
        let first = [Span::styled(format!("{name:<8}"), theme.dim())];
        let rest = [Span::raw(" ".repeat(8))];
        lines.extend(wrap::verbatim(&value, columns, style, &first, &rest));
    }
    lines
}

fn pane_of(frame: &mut Frame<'_>, area: Rect, model: &mut Model, theme: Theme, lines: Vec<Line<'static>>) {
    let (all, fit) = (lines.len(), usize::from(area.height).saturating_sub(3));
    let approvals = &mut model.approvals;
    approvals.scroll = approvals.scroll.min(all.saturating_sub(fit));
    let from = approvals.scroll;
    if from + fit >= all {
        approvals.saw_end();
    }
    let number = match approvals.len() {
        1 => String::new(),
        many => format!(" {} of {many}", approvals.position()),
    };
    let title = format!(" Leave to run?{number} ");
    let mut keys: Vec<Span<'static>> = Vec::new();
    if approvals.focused {
        let dot = theme.sign(" · ", ", ");
        let mut words = vec!["y once"];
        if approvals.offers_always() {
            words.push("a always");
        }
        words.push("n deny");
        if !approvals.is_seen() {
            words.insert(0, "Down reads on");
        }
        if approvals.len() > 1 {
            words.push("Tab next");
        }
        words.push("Esc later");
        keys.push(Span::styled(words.join(dot), theme.bold()));
    } else {
        keys.push(Span::styled("Tab answers it", theme.bold()));
    }
    let mut shown: Vec<Line<'static>> = lines.into_iter().skip(from).take(fit).collect();
    if from + fit < all {
        keys.push(Span::styled(format!("  {} {} more lines", theme.sign("↓", "v"), all - from - fit), theme.warn()));
    }
    shown.push(Line::from(keys));
    let style = if approvals.focused { theme.warn() } else { theme.dim() };
    let block =
        Block::bordered().border_set(borders(theme)).border_style(style).title(Span::styled(title, theme.warn()));
    frame.render_widget(Paragraph::new(shown).block(block), area);
}

fn borders(theme: Theme) -> border::Set<'static> {
    if theme.unicode() {
        return border::ROUNDED;
    }
    border::Set {
        top_left: "+",
        top_right: "+",
        bottom_left: "+",
        bottom_right: "+",
        vertical_left: "|",
        vertical_right: "|",
        horizontal_top: "-",
        horizontal_bottom: "-",
    }
}

fn offered(frame: &mut Frame<'_>, model: &Model, theme: Theme, above: Rect) {
    let offered = model.completions();
    if offered.is_empty() {
        return;
    }
    let rows = offered.len().min(OFFERED_ROWS).min(usize::from(above.height));
    let chosen = model.completion.min(offered.len() - 1);
    let first = (chosen + 1).saturating_sub(rows);
    let names = offered.iter().map(|known| width(&known.name)).max().unwrap_or(0).min(28);
    let columns = usize::from(above.width);
    let area = Rect { y: above.bottom() - small(rows), height: small(rows), ..above };
    let lines: Vec<Line<'static>> = offered
        .iter()
        .enumerate()
        .skip(first)
        .take(rows)
        .map(|(index, known)| {
            let name = cut(&clean(&known.name), names, theme.sign("…", "~"));
            let pad = " ".repeat(names - width(&name));
            let about = cut(&clean(&known.about), columns.saturating_sub(names + 5), theme.sign("…", "~"));
            let (name_style, about_style) =
                if index == chosen { (theme.chosen(), theme.chosen()) } else { (theme.accent(), theme.dim()) };
            let about = format!("{about:<width$}", width = columns.saturating_sub(names + 5));
            Line::from(vec![
                Span::raw(" "),
                Span::styled(format!(" {name}{pad}  "), name_style),
                Span::styled(about, about_style),
            ])
        })
        .collect();
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines), area);
}

fn overlay(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: Theme) {
    match &model.overlay {
        None => {}
        Some(Overlay::Keys) => {
            let names = HELP.iter().map(|(name, _)| width(name)).max().unwrap_or(0);
            let lines: Vec<Line<'static>> = HELP
                .iter()
                .map(|(name, what)| {
                    Line::from(vec![
                        Span::styled(format!(" {name:<names$}  "), theme.accent()),
                        Span::raw((*what).to_owned()),
                    ])
                })
                .collect();
            let inner = boxed(frame, area, theme, " Keys ", "any key closes", lines.len());
            frame.render_widget(Paragraph::new(lines), inner);
        }
        Some(Overlay::Rename { session, text }) => {
            let inner = boxed(frame, area, theme, " New title ", "Enter keeps it · Esc", 2);
            let layout = text.layout(usize::from(inner.width).saturating_sub(4));
            let row = layout.rows.get(layout.cursor.0).cloned().unwrap_or_default();
            let lines = vec![
                Line::styled(format!(" {}", clean(session)), theme.dim()),
                Line::from(vec![Span::styled(theme.sign(" › ", " > "), theme.person()), Span::raw(row)]),
            ];
            frame.render_widget(Paragraph::new(lines), inner);
            frame.set_cursor_position(Position::new(inner.x + 3 + small(layout.cursor.1), inner.y + 1));
        }
        Some(Overlay::Pick(kind, picker)) => pick(frame, area, *kind, picker, theme),
    }
}

/// A frame in the middle with room for `rows`; gives the room inside.
fn boxed(frame: &mut Frame<'_>, area: Rect, theme: Theme, title: &str, keys: &str, rows: usize) -> Rect {
    let wide = area.width.saturating_sub(4).min(96);
    let high = small(rows + 2).min(area.height.saturating_sub(2));
    let place =
        Rect { x: area.x + (area.width - wide) / 2, y: area.y + (area.height - high) / 2, width: wide, height: high };
    let keys = if theme.unicode() { keys.to_owned() } else { keys.replace(" · ", ", ") };
    let block = Block::bordered()
        .border_set(borders(theme))
        .border_style(theme.accent())
        .title(Span::styled(title.to_owned(), theme.bold()))
        .title_bottom(Line::styled(format!(" {keys} "), theme.dim()).right_aligned());
    let inner = block.inner(place);
    frame.render_widget(Clear, place);
    frame.render_widget(block, place);
    inner
}

fn pick(frame: &mut Frame<'_>, area: Rect, kind: Kind, picker: &Picker, theme: Theme) {
    let (title, keys) = match kind {
        Kind::Sessions => (" Conversations ", "Enter opens · ^N new · ^R rename · ^F search texts · Esc"),
        Kind::Models => (" Model for this conversation ", "Enter chooses · Esc"),
        Kind::Agents => (" Agents ", "Enter chooses · Esc"),
        Kind::Search => (" Found ", "Enter opens · Esc"),
    };
    let matching: Vec<_> = picker.matching().collect();
    let rows = matching.len().clamp(3, usize::from(area.height).saturating_sub(8).max(3));
    let inner = boxed(frame, area, theme, title, keys, rows + 1);
    let columns = usize::from(inner.width);
    let sign = theme.sign(" › ", " > ");
    let filter = if picker.filter.is_empty() {
        Span::styled("type to narrow", theme.dim())
    } else {
        Span::raw(clean(&picker.filter))
    };
    let mut lines = vec![Line::from(vec![Span::styled(sign, theme.person()), filter])];
    frame.set_cursor_position(Position::new(
        (inner.x + 3 + small(width(&picker.filter))).min(inner.right().saturating_sub(1)),
        inner.y,
    ));
    let message = match &picker.state {
        State::Loading => Some("asking the gateway".to_owned()),
        State::Failed(why) => Some(why.clone()),
        State::Ready if matching.is_empty() => Some("nothing like that".to_owned()),
        State::Ready => None,
    };
    if let Some(message) = message {
        lines.extend(wrap::prose(&message, columns, theme.dim(), &[Span::raw("   ")], &[Span::raw("   ")]));
    }
    let fit = usize::from(inner.height).saturating_sub(1);
    let first = (picker.at() + 1).saturating_sub(fit);
    let ellipsis = theme.sign("…", "~");
    for (index, choice) in matching.iter().enumerate().skip(first).take(fit) {
        let mark = if choice.current { theme.sign(" ● ", " * ") } else { "   " };
        let label = cut(&clean(&choice.label), columns.saturating_sub(4).min(columns * 3 / 5), ellipsis);
        let room = columns.saturating_sub(width(&label) + 6);
        let detail = cut(&clean(&choice.detail), room, ellipsis);
        let pad = " ".repeat(columns.saturating_sub(3 + width(&label) + 2 + width(&detail)));
        let (label_style, detail_style) =
            if index == picker.at() { (theme.chosen(), theme.chosen()) } else { (Style::new(), theme.dim()) };
        lines.push(Line::from(vec![
            Span::styled(mark, theme.good()),
            Span::styled(label, label_style),
            Span::styled(format!("  {detail}{pad}"), detail_style),
        ]));
    }
    frame.render_widget(Paragraph::new(lines), inner);
}
