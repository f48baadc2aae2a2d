//! HTML to what one would read aloud: a forgiving scanner, no tree. Whatever the input, the output is bounded by it and the
//! work by its length.

/// A page in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    pub title: Option<String>,
    pub text: String,
}

/// How it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Markdown,
    Text,
}

/// Elements whose content nobody reads.
const HIDDEN: [&str; 11] =
    ["script", "style", "noscript", "template", "svg", "iframe", "object", "canvas", "select", "textarea", "math"];
/// Elements around a page's matter; left out when the matter is looked for.
const AROUND: [&str; 5] = ["nav", "aside", "footer", "form", "dialog"];
/// Elements that begin a paragraph.
const BLOCKS: [&str; 25] = [
    "address",
    "article",
    "blockquote",
    "body",
    "caption",
    "dd",
    "details",
    "div",
    "dl",
    "dt",
    "fieldset",
    "figcaption",
    "figure",
    "footer",
    "form",
    "header",
    "hr",
    "main",
    "nav",
    "p",
    "section",
    "summary",
    "table",
    "tbody",
    "title",
];
/// Bytes of a link's address that are worth showing.
const LINK_BYTES: usize = 500;

/// Reads a page. With `matter`, what is around `<main>` or `<article>` is left out if there is enough inside.
pub(super) fn read(html: &str, style: Style, matter: bool) -> Page {
    let title =
        element(html, "title").map(|inner| collapse(&decode(&strip_tags(inner)))).filter(|title| !title.is_empty());
    if matter {
        for tag in ["main", "article"] {
            if let Some(inner) = element(html, tag) {
                let text = write(inner, style, true);
                // Less is a teaser, or a page that draws itself later.
                if text.len() >= 200 {
                    return Page { title, text };
                }
            }
        }
    }
    let body = element(html, "body").unwrap_or(html);
    Page { title, text: write(body, style, matter) }
}

/// What stands between the first `<tag …>` and the last `</tag>`, or the end.
fn element<'a>(html: &'a str, tag: &str) -> Option<&'a str> {
    let mut scan = Scanner { html, at: 0 };
    loop {
        match scan.next()? {
            Token::Open { name, .. } if name.eq_ignore_ascii_case(tag) => break,
            Token::Open { name, .. } if is(name, &["script", "style"]) => scan.skip_raw(name),
            _ => {}
        }
    }
    let rest = &html[scan.at..];
    let closing = format!("</{tag}");
    // A page has one main part; of titles the first counts.
    let end = if tag == "title" { find_ci(rest, &closing) } else { rfind_ci(rest, &closing) };
    Some(&rest[..end.unwrap_or(rest.len())])
}

enum Token<'a> {
    Text(&'a str),
    Open { name: &'a str, attributes: &'a str },
    Close { name: &'a str },
}

struct Scanner<'a> {
    html: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            let rest = &self.html[self.at..];
            if rest.is_empty() {
                return None;
            }
            let Some(open) = rest.find('<') else {
                self.at = self.html.len();
                return Some(Token::Text(rest));
            };
            if open > 0 {
                self.at += open;
                return Some(Token::Text(&rest[..open]));
            }
            if let Some(comment) = rest.strip_prefix("<!--") {
                self.at += 4 + comment.find("-->").map_or(comment.len(), |end| end + 3);
                continue;
            }
            let next = rest.as_bytes().get(1).copied().unwrap_or(b' ');
            if next == b'!' || next == b'?' {
                self.at += rest.find('>').map_or(rest.len(), |end| end + 1);
                continue;
            }
            if !next.is_ascii_alphabetic() && next != b'/' {
                // A lone "<" is text.
                self.at += 1;
                return Some(Token::Text("<"));
            }
            let end = tag_end(rest);
            let inner = rest[1..end].trim_end_matches('>').trim_end_matches('/');
            self.at += end;
            let (inner, closing) = inner.strip_prefix('/').map_or((inner, false), |inner| (inner, true));
            let name_end = inner.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(inner.len());
            let (name, attributes) = inner.split_at(name_end);
            return Some(if closing { Token::Close { name } } else { Token::Open { name, attributes } });
        }
    }

    /// Behind the end of an element whose content is no HTML.
    fn skip_raw(&mut self, name: &str) {
        let rest = &self.html[self.at..];
        let end = find_ci(rest, &format!("</{name}"));
        self.at += end.unwrap_or(rest.len());
    }
}

/// The byte behind a tag's ">", quotes respected.
fn tag_end(rest: &str) -> usize {
    let mut quote = None;
    for (index, byte) in rest.bytes().enumerate() {
        match (quote, byte) {
            (None, b'>') => return index + 1,
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(open), _) if open == byte => quote = None,
            _ => {}
        }
    }
    // A quote that never ends: the first ">" has to do.
    rest.find('>').map_or(rest.len(), |end| end + 1)
}

fn attribute<'a>(attributes: &'a str, wanted: &str) -> Option<&'a str> {
    let mut rest = attributes;
    while let Some(at) = find_ci(rest, wanted) {
        let before = rest[..at].bytes().next_back().unwrap_or(b' ');
        let behind = rest[at + wanted.len()..].trim_start();
        if (before.is_ascii_whitespace() || before == b'"' || before == b'\'')
            && let Some(value) = behind.strip_prefix('=')
        {
            let value = value.trim_start();
            return Some(match value.as_bytes().first() {
                Some(&quote @ (b'"' | b'\'')) => value[1..].split(quote as char).next().unwrap_or_default(),
                _ => value.split_ascii_whitespace().next().unwrap_or_default(),
            });
        }
        rest = &rest[at + wanted.len()..];
    }
    None
}

/// The words of a piece of HTML.
fn write(html: &str, style: Style, matter: bool) -> String {
    let mut out = Writer { text: String::with_capacity(html.len() / 4), style, pre: 0, lists: Vec::new(), link: None };
    let mut scan = Scanner { html, at: 0 };
    let mut around = 0_u32;
    while let Some(token) = scan.next() {
        match token {
            Token::Open { name, attributes } => {
                if is(name, &HIDDEN) {
                    scan.skip_raw(name);
                } else if matter && is(name, &AROUND) {
                    around += 1;
                } else if around == 0 {
                    out.open(name, attributes);
                }
            }
            Token::Close { name } => {
                if matter && is(name, &AROUND) {
                    around = around.saturating_sub(1);
                } else if around == 0 {
                    out.close(name);
                }
            }
            Token::Text(text) if around == 0 => out.text(text),
            Token::Text(_) => {}
        }
    }
    out.end_link();
    tidy(&out.text)
}

struct Writer {
    text: String,
    style: Style,
    pre: u32,
    /// Numbers of the lists we are in; `None` for those without.
    lists: Vec<Option<u32>>,
    /// A link's address, and where its words begin.
    link: Option<(String, usize)>,
}

impl Writer {
    fn open(&mut self, name: &str, attributes: &str) {
        let markdown = self.style == Style::Markdown;
        match name.to_ascii_lowercase().as_str() {
            "br" => self.text.push('\n'),
            "hr" if markdown => self.text.push_str("\n\n---\n\n"),
            level @ ("h1" | "h2" | "h3" | "h4" | "h5" | "h6") => {
                self.text.push_str("\n\n");
                if markdown {
                    let count = level.as_bytes()[1] - b'0';
                    self.text.extend(std::iter::repeat_n('#', count.into()));
                    self.text.push(' ');
                }
            }
            "ul" | "menu" => {
                self.lists.push(None);
                self.text.push('\n');
            }
            "ol" => {
                self.lists.push(Some(0));
                self.text.push('\n');
            }
            "li" => {
                let depth = self.lists.len().saturating_sub(1).min(8);
                self.text.push('\n');
                self.text.extend(std::iter::repeat_n("  ", depth));
                match self.lists.last_mut() {
                    Some(Some(number)) => {
                        *number += 1;
                        self.text.push_str(&format!("{number}. "));
                    }
                    _ => self.text.push_str("- "),
                }
            }
            "pre" => {
                self.pre += 1;
                self.text.push_str(if markdown { "\n\n```\n" } else { "\n\n" });
            }
            "code" | "kbd" | "samp" if markdown && self.pre == 0 => self.text.push('`'),
            "strong" | "b" if markdown => self.text.push_str("**"),
            "tr" => self.text.push('\n'),
            "td" | "th" => {
                if !self.text.ends_with('\n') {
                    self.text.push_str(" | ");
                }
            }
            "img" => {
                if let Some(alt) =
                    attribute(attributes, "alt").map(|alt| collapse(&decode(alt))).filter(|alt| !alt.is_empty())
                {
                    self.text.push_str(&format!("[image: {alt}]"));
                }
            }
            "a" if markdown => {
                self.end_link();
                let address = attribute(attributes, "href").map(decode).unwrap_or_default();
                let worth = !address.is_empty()
                    && !address.starts_with('#')
                    && !address.to_ascii_lowercase().starts_with("javascript:")
                    && !address.to_ascii_lowercase().starts_with("data:")
                    && address.len() <= LINK_BYTES;
                if worth {
                    self.link = Some((address.replace(char::is_whitespace, ""), self.text.len()));
                }
            }
            block if is(block, &BLOCKS) => self.text.push_str("\n\n"),
            _ => {}
        }
    }

    fn close(&mut self, name: &str) {
        let markdown = self.style == Style::Markdown;
        match name.to_ascii_lowercase().as_str() {
            "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => self.text.push_str("\n\n"),
            "ul" | "ol" | "menu" => {
                self.lists.pop();
                self.text.push('\n');
            }
            "pre" if self.pre > 0 => {
                self.pre -= 1;
                self.text.push_str(if markdown { "\n```\n\n" } else { "\n\n" });
            }
            "code" | "kbd" | "samp" if markdown && self.pre == 0 => self.text.push('`'),
            "strong" | "b" if markdown => self.text.push_str("**"),
            "a" => self.end_link(),
            block if is(block, &BLOCKS) => self.text.push_str("\n\n"),
            _ => {}
        }
    }

    fn end_link(&mut self) {
        let Some((address, start)) = self.link.take() else { return };
        let words = collapse(self.text.get(start..).unwrap_or_default());
        if !words.is_empty() && words != address {
            let broken = self.text[start..].starts_with(char::is_whitespace);
            self.text.truncate(start);
            self.text.push_str(&format!("{}[{words}]({address})", if broken { " " } else { "" }));
        }
    }

    fn text(&mut self, raw: &str) {
        let text = decode(raw);
        if self.pre > 0 {
            self.text.push_str(&text);
            return;
        }
        for c in text.chars() {
            if !c.is_whitespace() {
                self.text.push(c);
            } else if !self.text.ends_with([' ', '\n']) {
                self.text.push(' ');
            }
        }
    }
}

/// At most one empty line, no blanks at the ends of lines, nothing invisible.
fn tidy(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut empty = 0;
    for line in text.lines() {
        let line: String = line.trim_end().chars().filter(|c| !invisible(*c)).collect();
        if line.trim().is_empty() {
            empty += 1;
            continue;
        }
        if !out.is_empty() {
            out.push_str(if empty > 0 { "\n\n" } else { "\n" });
        }
        empty = 0;
        out.push_str(&line);
    }
    out
}

/// Characters that people do not see and models read: zero width, direction marks, tags.
fn invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
        || (c.is_control() && c != '\t')
}

fn strip_tags(html: &str) -> String {
    let mut scan = Scanner { html, at: 0 };
    let mut out = String::new();
    while let Some(token) = scan.next() {
        if let Token::Text(text) = token {
            out.push_str(text);
        }
    }
    out
}

fn collapse(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().filter(|c| !invisible(*c)).collect()
}

/// Character references: numeric ones, and the names that pages use.
fn decode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = rest.bytes().take(12).position(|byte| byte == b';');
        match end.and_then(|end| Some((reference(&rest[1..end])?, end))) {
            Some((c, end)) => {
                out.push(c);
                rest = &rest[end + 1..];
            }
            None => {
                out.push('&');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

fn reference(name: &str) -> Option<char> {
    if let Some(number) = name.strip_prefix('#') {
        let code = match number.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16).ok()?,
            None => number.parse().ok()?,
        };
        return char::from_u32(code).filter(|c| !c.is_control() || c.is_whitespace());
    }
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "nbsp" => ' ',
        "ndash" => '–',
        "mdash" => '—',
        "hellip" => '…',
        "lsquo" => '‘',
        "rsquo" => '’',
        "ldquo" => '“',
        "rdquo" => '”',
        "laquo" => '«',
        "raquo" => '»',
        "bull" => '•',
        "middot" => '·',
        "copy" => '©',
        "reg" => '®',
        "trade" => '™',
        "euro" => '€',
        "pound" => '£',
        "deg" => '°',
        "times" => '×',
        "rarr" => '→',
        "larr" => '←',
        "auml" => 'ä',
        "ouml" => 'ö',
        "uuml" => 'ü',
        "Auml" => 'Ä',
        "Ouml" => 'Ö',
        "Uuml" => 'Ü',
        "szlig" => 'ß',
        "eacute" => 'é',
        "egrave" => 'è',
        "agrave" => 'à',
        "ccedil" => 'ç',
        "ntilde" => 'ñ',
        _ => return None,
    })
}

fn is(name: &str, names: &[&str]) -> bool {
    names.iter().any(|other| name.eq_ignore_ascii_case(other))
}

fn find_ci(text: &str, needle: &str) -> Option<usize> {
    text.as_bytes().windows(needle.len()).position(|window| window.eq_ignore_ascii_case(needle.as_bytes()))
}

fn rfind_ci(text: &str, needle: &str) -> Option<usize> {
    text.as_bytes().windows(needle.len()).rposition(|window| window.eq_ignore_ascii_case(needle.as_bytes()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(html: &str, markdown: &str) {
        assert_eq!(read(html, Style::Markdown, true).text, markdown, "{html}");
    }

    #[test]
    fn pages_become_words() {
        check("<h1>A &amp; B</h1><p>one<br>two</p><p>three", "# A & B\n\none\ntwo\n\nthree");
        check("<ul><li>a<li>b<ul><li>c</ul></ul><ol><li>x</li><li>y</li></ol>", "- a\n- b\n\n  - c\n\n1. x\n2. y");
        check("go <a href='/x?a=1&amp;b=2'>there\n now</a>!", "go [there now](/x?a=1&b=2)!");
        check("<a href=\"javascript:alert(1)\">no</a> <a href=#top>top</a> <a>plain</a>", "no top plain");
        check("<pre>  a\n   <b>b</b> &lt;c&gt;\n</pre>x", "```\n  a\n   **b** <c>\n\n```\n\nx");
        check("<table><tr><th>k<th>v<tr><td>1<td>2</table>", "k | v\n1 | 2");
        check("<p>use <code>x &lt; y</code> <b>now</b></p>", "use `x < y` **now**");
        check("<img src=x alt='a cat'> <img src=y>", "[image: a cat]");
        check("a < b && c > d &unknown; &#x41;&#66;&#0;&#xD800;", "a < b && c > d &unknown; AB&#0;&#xD800;");
        let text = read("<h1>A</h1><p>go <a href=x>there</a>", Style::Text, true).text;
        assert_eq!(text, "A\n\ngo there");
    }

    #[test]
    fn what_nobody_reads_is_left_out() {
        check(
            "<script>if (a < b) '<p>x</p>'</script>y<style>p>a{}</style><!-- <p>z</p> --><svg><text>q</text></svg>",
            "y",
        );
        check("<script>never ends <p>x</p>", "");
        check("<nav><a href=/>Home</a></nav><p>text</p><footer>imprint</footer>", "text");
        // Hidden from people, meant for models.
        check("a\u{200b}b\u{e0041}\u{202e}c", "abc");
        check("<!doctype html><?xml?><html><body class='a>b'>x", "x");
    }

    #[test]
    fn the_matter_of_a_page_is_found() {
        let words = "word ".repeat(60);
        let html = format!("<title> A\n Page </title><div>menu</div><main><p>{words}</p></main><div>ads</div>");
        let page = read(&html, Style::Markdown, true);
        assert_eq!((page.title.as_deref(), page.text.as_str()), (Some("A Page"), words.trim()));
        assert!(read(&html, Style::Markdown, false).text.contains("menu"));
        // Too little to be it.
        let page = read("<main>loading</main><p>but here is something</p>", Style::Markdown, true);
        assert_eq!(page.text, "loading\n\nbut here is something");
        assert_eq!(
            read("<script>'<title>no</title>'</script><title>yes</title>", Style::Text, true).title.as_deref(),
            Some("yes")
        );
    }

    proptest! {
        #[test]
        fn nothing_breaks_it(html in "(<[a-z/!-]{0,8}( [a-z]+=['\"]?[^>]{0,6})?>?|&[#a-z0-9;]{0,8}|[ -~äあ\u{200b}]{0,12}){0,40}") {
            for style in [Style::Markdown, Style::Text] {
                let page = read(&html, style, true);
                prop_assert!(page.text.len() <= html.len() * 8 + 64);
            }
        }
    }

    #[test]
    fn the_work_grows_with_the_page_only() {
        for piece in ["<a href=x>", "<", "<!--", "<p", "&", "<script>", "<main>", "\"'", "<li>", "<ol>"] {
            let html = piece.repeat(200_000);
            // Done at all: anything quadratic would not be.
            let _ = read(&html, Style::Markdown, true);
        }
    }
}
