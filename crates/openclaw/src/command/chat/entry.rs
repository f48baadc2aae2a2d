//! One entry of the conversation as lines.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};

use ratatui::{
    style::{Modifier, Style},
    text::{Line, Span},
};
use serde_json::Value;

use super::{
    markdown,
    theme::Theme,
    transcript::{Entry, Sent, Tone, Tool, ToolState},
    wrap::{self, clean, cut, width},
};
use crate::output::time;

/// Lines of a tool's output that an opened tool shows.
const OUTPUT_LINES: usize = 30;
/// Arguments that say best what a tool does, most telling first.
const TELLING: &[&str] = &["command", "cmd", "path", "file_path", "url", "query", "action", "message", "text"];

/// How entries are drawn.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    pub columns: usize,
    pub theme: Theme,
    /// Thoughts are shown.
    pub thinking: bool,
    /// Tools are opened.
    pub tools: bool,
}

impl Look {
    /// Equal for equal looks.
    pub fn number(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.columns, self.thinking, self.tools, self.theme.unicode(), format!("{:?}", self.theme)).hash(&mut hasher);
        hasher.finish()
    }
}

pub fn tone(tone: Tone, theme: Theme) -> Style {
    match tone {
        Tone::Info => theme.dim(),
        Tone::Good => theme.good(),
        Tone::Warn => theme.warn(),
        Tone::Bad => theme.bad(),
    }
}

pub fn lines(entry: &Entry, look: Look) -> Vec<Line<'static>> {
    let theme = look.theme;
    // A free column at the right keeps terminals from wrapping by themselves.
    let columns = look.columns.saturating_sub(1).max(10);
    let indent = [Span::raw("  ")];
    match entry {
        Entry::User { text, media, sent, .. } => {
            let first = [Span::styled(theme.sign("› ", "> "), theme.person())];
            let style = if *sent == Sent::Sending { theme.dim() } else { theme.bold() };
            let mut lines = wrap::prose(text.trim_end(), columns, style, &first, &indent);
            if !media.is_empty() {
                let names = media.iter().map(|name| format!("[{name}]")).collect::<Vec<_>>().join(" ");
                lines.extend(wrap::prose(&names, columns, theme.accent(), &indent, &indent));
            }
            if *sent == Sent::Waits {
                lines.extend(wrap::prose("waits for its turn", columns, theme.dim(), &indent, &indent));
            }
            if let Sent::No(why) = sent {
                let why = format!("not sent: {why} (Up brings it back)");
                lines.extend(wrap::prose(&why, columns, theme.bad(), &indent, &indent));
            }
            lines
        }
        Entry::Assistant { text, live, .. } => {
            let mut lines: Vec<Line<'static>> = Vec::new();
            for line in markdown::render(text, columns.saturating_sub(2), theme) {
                let mut spans = indent.to_vec();
                spans.extend(line.spans);
                lines.push(Line::from(spans));
            }
            if *live {
                let cursor = Span::styled(theme.sign("▍", "_"), theme.accent());
                match lines.last_mut() {
                    Some(last) => last.spans.push(cursor),
                    None => lines.push(Line::from(vec![indent[0].clone(), cursor])),
                }
            }
            lines
        }
        Entry::Thinking { text, .. } => {
            let sign = theme.sign("  ⋯ ", "  . ");
            if !look.thinking {
                let words = text.split_whitespace().count();
                return vec![Line::styled(format!("{sign}thought for {words} words (Ctrl-T shows)"), theme.dim())];
            }
            let style = theme.dim().add_modifier(Modifier::ITALIC);
            let rest = [Span::raw("    ")];
            wrap::prose(text.trim(), columns, style, &[Span::styled(sign, theme.dim())], &rest)
        }
        Entry::Tool(tool) => tool_lines(tool, look, columns),
        Entry::Note { tone: kind, text } => {
            let style = tone(*kind, theme);
            let sign = match kind {
                Tone::Bad => theme.sign("✗ ", "x "),
                Tone::Warn => "! ",
                Tone::Good => theme.sign("✓ ", "+ "),
                Tone::Info => theme.sign("· ", "- "),
            };
            wrap::prose(text, columns, style, &[Span::styled(format!("  {sign}"), style)], &[Span::raw("    ")])
        }
    }
}

fn tool_lines(tool: &Tool, look: Look, columns: usize) -> Vec<Line<'static>> {
    let theme = look.theme;
    let (sign, style) = match tool.state {
        ToolState::Running => (theme.sign("…", "..."), theme.warn()),
        ToolState::Done => (theme.sign("✓", "ok"), theme.good()),
        ToolState::Failed => (theme.sign("✗", "failed"), theme.bad()),
    };
    let fold = match look.tools {
        true => theme.sign("▾ ", "- "),
        false => theme.sign("▸ ", "+ "),
    };
    let took = tool.took_ms.and_then(|ms| u64::try_from(ms).ok()).filter(|ms| *ms > 0);
    let took = took.map(|ms| format!(" {}", time::span(Duration::from_millis(ms)))).unwrap_or_default();
    let name = clean(&tool.name);
    let tail = width(sign) + width(&took) + 1;
    let room = columns.saturating_sub(4 + width(&name) + 1 + tail);
    let about = cut(&summary(&tool.args), room, theme.sign("…", "~"));
    let mut lines = vec![Line::from(vec![
        Span::styled(format!("  {fold}"), theme.dim()),
        Span::styled(name, theme.accent()),
        Span::raw(format!(" {about} ")),
        Span::styled(sign, style),
        Span::styled(took, theme.dim()),
    ])];
    if !look.tools {
        return lines;
    }
    let bar = [Span::styled(theme.sign("    │ ", "    | "), theme.dim())];
    if let Value::Object(args) = &tool.args {
        for (key, value) in args {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            lines.extend(wrap::verbatim(&format!("{key}: {text}"), columns, Style::new(), &bar, &bar));
        }
    }
    if !tool.output.trim().is_empty() {
        let output = wrap::verbatim(tool.output.trim_end(), columns, theme.dim(), &bar, &bar);
        let left_out = output.len().saturating_sub(OUTPUT_LINES);
        lines.extend(output.into_iter().take(OUTPUT_LINES));
        if left_out > 0 {
            lines.push(Line::styled(format!("    {} {left_out} more lines", theme.sign("⋮", ":")), theme.dim()));
        }
    }
    lines
}

/// What a tool was asked to do, on one line.
pub fn summary(args: &Value) -> String {
    let telling = TELLING.iter().find_map(|key| args[*key].as_str().filter(|text| !text.is_empty()));
    let text = match (telling, args) {
        (Some(text), _) => text.to_owned(),
        (None, Value::Null) => String::new(),
        (None, Value::Object(map)) if map.is_empty() => String::new(),
        (None, Value::String(text)) => text.clone(),
        (None, other) => other.to_string(),
    };
    clean(&text.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(entry: Entry, tools: bool, expected: &[&str]) {
        let look = Look { columns: 41, theme: Theme::new(false, true), thinking: false, tools };
        let shown: Vec<String> =
            lines(&entry, look).iter().map(|line| line.to_string().trim_end().to_owned()).collect();
        assert_eq!(shown, expected, "{entry:?}");
    }

    #[test]
    fn entries() {
        let user = |text: &str, sent| Entry::User { text: text.into(), media: vec!["a.png".into()], sent, key: None };
        check(user("hello", Sent::Yes), false, &["› hello", "  [a.png]"]);
        check(
            user("x", Sent::No("no scope".into())),
            false,
            &["› x", "  [a.png]", "  not sent: no scope (Up brings it back)"],
        );
        check(user("y", Sent::Waits), false, &["› y", "  [a.png]", "  waits for its turn"]);
        let answer = |text: &str, live| Entry::Assistant { text: text.into(), run: None, live };
        check(answer("**hi**\n\n- a", false), false, &["  hi", "", "  • a"]);
        check(answer("hi", true), false, &["  hi▍"]);
        check(answer("", true), false, &["  ▍"]);
        let thoughts = Entry::Thinking { text: "one two".into(), run: None };
        check(thoughts, false, &["  ⋯ thought for 2 words (Ctrl-T shows)"]);
        check(Entry::Note { tone: Tone::Bad, text: "no".into() }, false, &["  ✗ no"]);
    }

    #[test]
    fn tools_fold() {
        let tool = Tool {
            call: "c".into(),
            name: "exec".into(),
            args: json!({"command": "echo  hello\nworld and more words than fit"}),
            output: "hello\u{1b}[1m\n".into(),
            state: ToolState::Done,
            run: None,
            started_ms: Some(0),
            took_ms: Some(1250),
        };
        check(Entry::Tool(tool.clone()), false, &["  ▸ exec echo hello world and mo… ✓ 1.2s"]);
        check(
            Entry::Tool(tool),
            true,
            &[
                "  ▾ exec echo hello world and mo… ✓ 1.2s",
                "    │ command: echo  hello",
                "    │ world and more words than fit",
                "    │ hello\\u{1b}[1m",
            ],
        );
        assert_eq!(summary(&json!({"depth": 2})), "{\"depth\":2}");
    }
}
