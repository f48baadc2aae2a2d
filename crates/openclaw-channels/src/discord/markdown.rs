//! Rendered text back into Discord's Markdown, with everything in it that is not meant as markup made inert.

use crate::message::{Span, TextStyle};

/// Breaks up runs of backticks inside of code; it is not seen.
const ZERO_WIDTH_SPACE: char = '\u{200b}';

/// Plain text and its styles as Discord's Markdown.
pub fn render(text: &str, spans: &[Span]) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut open: Vec<&Span> = Vec::new();
    let mut at = 0;
    let mut waiting: Vec<&Span> = spans.iter().filter(|span| span.len > 0).collect();
    waiting.sort_by_key(|span| (span.start, std::cmp::Reverse(span.len)));
    let mut waiting = waiting.into_iter().peekable();
    let mut backticks = 0;
    for c in text.chars() {
        while open.last().is_some_and(|span| span.start + span.len <= at) {
            if let Some(span) = open.pop() {
                close(&mut out, span);
                backticks = 0;
            }
        }
        while let Some(span) = waiting.next_if(|span| span.start <= at) {
            // Nothing is styled inside of code; what is over was cut away.
            let in_code = open.iter().any(|span| is_code(span));
            if span.start + span.len > at && !in_code {
                begin(&mut out, span);
                open.push(span);
            }
        }
        at += c.len_utf16();
        if open.last().is_some_and(|span| is_code(span)) {
            backticks = if c == '`' { backticks + 1 } else { 0 };
            if c == '`' && (backticks > 1 || matches!(open.last().map(|span| &span.style), Some(TextStyle::Code))) {
                out.push(ZERO_WIDTH_SPACE);
            }
            out.push(c);
            continue;
        }
        let line_start = out.is_empty() || out.ends_with('\n');
        if needs_escape(c, line_start) {
            out.push('\\');
        }
        out.push(c);
        if c == '\n' && open.iter().any(|span| span.style == TextStyle::Quote) {
            out.push_str("> ");
        }
    }
    while let Some(span) = open.pop() {
        close(&mut out, span);
    }
    out
}

/// Text without any markup.
pub fn escape(text: &str) -> String {
    render(text, &[])
}

fn is_code(span: &Span) -> bool {
    matches!(span.style, TextStyle::Code | TextStyle::Pre { .. })
}

fn needs_escape(c: char, line_start: bool) -> bool {
    matches!(c, '\\' | '*' | '_' | '~' | '|' | '`' | '<' | '>' | '[' | ']' | '@' | '#')
        || (line_start && matches!(c, '-' | '+'))
}

fn begin(out: &mut String, span: &Span) {
    match &span.style {
        TextStyle::Pre { language } => {
            if !out.is_empty() && !out.ends_with('\n') {
                out.push('\n');
            }
            out.push_str("```");
            let word = |text: &&String| text.chars().all(|c| c.is_ascii_alphanumeric() || "+-#_".contains(c));
            out.push_str(language.as_ref().filter(word).map_or("", String::as_str));
            out.push('\n');
        }
        // Two, so that a broken-up run inside cannot end it.
        TextStyle::Code => out.push_str("``"),
        TextStyle::Quote => out.push_str("> "),
        TextStyle::Link { .. } => out.push('['),
        other => out.push_str(marker(other)),
    }
}

fn close(out: &mut String, span: &Span) {
    match &span.style {
        TextStyle::Pre { .. } => {
            if !out.ends_with('\n') {
                out.push('\n');
            }
            out.push_str("```");
        }
        TextStyle::Code => {
            if out.ends_with('`') {
                out.push(ZERO_WIDTH_SPACE);
            }
            out.push_str("``");
        }
        TextStyle::Quote => {}
        TextStyle::Link { url } => {
            let safe = url.starts_with("https://") || url.starts_with("http://");
            let plain = !url.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '<' | '>' | '(' | ')'));
            match safe && plain {
                true => out.push_str(&format!("](<{url}>)")),
                false => out.push_str(&format!("] ({})", escape(url))),
            }
        }
        other => out.push_str(marker(other)),
    }
}

const fn marker(style: &TextStyle) -> &'static str {
    match style {
        TextStyle::Bold => "**",
        TextStyle::Italic => "*",
        TextStyle::Strike => "~~",
        TextStyle::Underline => "__",
        TextStyle::Spoiler => "||",
        TextStyle::Code | TextStyle::Pre { .. } | TextStyle::Quote | TextStyle::Link { .. } => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: usize, len: usize, style: TextStyle) -> Span {
        Span { start, len, style }
    }

    #[test]
    fn text_is_inert() {
        let check = |text: &str, expected: &str| assert_eq!(escape(text), expected);
        check("plain text, 1 + 1 = 2.", "plain text, 1 + 1 = 2.");
        check("**bold** <@1> @everyone `x`", "\\*\\*bold\\*\\* \\<\\@1\\> \\@everyone \\`x\\`");
        check("# head\n- item\n> quote", "\\# head\n\\- item\n\\> quote");
        check("[click](https://evil.example)", "\\[click\\](https://evil.example)");
        check("\\*", "\\\\\\*");
    }

    #[test]
    fn styles() {
        let check = |text: &str, spans: &[Span], expected: &str| assert_eq!(render(text, spans), expected);
        check("a bold b", &[span(2, 4, TextStyle::Bold)], "a **bold** b");
        check("🦀 x", &[span(3, 1, TextStyle::Code)], "🦀 ``x``");
        let nested = [span(0, 5, TextStyle::Bold), span(2, 3, TextStyle::Italic)];
        check("a b c", &nested, "**a *b c***");
        check("say\nls -la", &[span(4, 6, TextStyle::Pre { language: Some("sh".into()) })], "say\n```sh\nls -la\n```");
        check("here", &[span(0, 4, TextStyle::Link { url: "https://a.b/c".into() })], "[here](<https://a.b/c>)");
        check("here", &[span(0, 4, TextStyle::Link { url: "javascript:x".into() })], "[here] (javascript:x)");
    }

    /// Nothing inside of a block of code ends it.
    #[test]
    fn p_58_code_has_no_way_out() {
        for text in ["a ``` @everyone", "`````", "x`", "``", "```\n# hi <@1>\n```"] {
            let len = text.encode_utf16().count();
            let block = render(text, &[span(0, len, TextStyle::Pre { language: None })]);
            let inside = block.strip_prefix("```\n").and_then(|rest| rest.strip_suffix("```")).expect("a block");
            assert!(!inside.contains("```") && !inside.ends_with('`'), "{block:?}");
            assert_eq!(inside.replace(ZERO_WIDTH_SPACE, "").trim_end_matches('\n'), text);
            let code = render(text, &[span(0, len, TextStyle::Code)]);
            let inside = code.strip_prefix("``").and_then(|rest| rest.strip_suffix("``")).expect("code");
            assert!(!inside.contains("``") && !inside.ends_with('`') && !inside.starts_with('`'), "{code:?}");
        }
    }
}
