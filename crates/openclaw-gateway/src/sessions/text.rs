//! The plain text of messages: for titles, previews and searching.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// Longest title made from a first message.
pub const TITLE_CHARS: usize = 60;
/// Longest beginning of a message kept for lists.
pub const PREVIEW_CHARS: usize = 160;

/// All the plain text of a message in wire form, in order; no thoughts, no tool calls.
pub fn plain(body: &Map<String, Value>) -> String {
    match body.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            let texts = parts.iter().filter(|part| part.get("type").is_some_and(|kind| kind == "text"));
            texts.filter_map(|part| part.get("text")?.as_str()).collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    }
}

/// One line of at most `max` characters, without control characters; an ellipsis stands for what was cut.
pub fn line(text: &str, max: usize) -> String {
    let mut out = String::new();
    let (mut count, mut gap) = (0, false);
    for c in text.chars() {
        if c.is_whitespace() || c.is_control() {
            gap = count > 0;
            continue;
        }
        if count + usize::from(gap) >= max {
            out.push('…');
            break;
        }
        if std::mem::take(&mut gap) {
            out.push(' ');
            count += 1;
        }
        out.push(c);
        count += 1;
    }
    out
}

/// At most `max` characters; an ellipsis stands for what was cut.
pub fn clip(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// Scripts that put no space between words: each character is a word of its own.
fn stands_alone(c: char) -> bool {
    matches!(c,
        '\u{0e00}'..='\u{0eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' // Thai, Lao, Burmese, Khmer
        | '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}'
        | '\u{ff66}'..='\u{ff9d}')
}

/// Pictures, and characters younger than the tables of the index (Unicode 6.1): they get a word made of their number.
fn is_picture(c: char) -> bool {
    matches!(c, '\u{2190}'..='\u{2bff}' | '\u{10000}'..)
}

/// The text as the index takes it: characters that are words of their own stand apart.
pub fn words(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    for c in text.chars() {
        if stands_alone(c) {
            out.extend([' ', c, ' ']);
        } else if is_picture(c) {
            let _ = write!(out, " u{:x} ", u32::from(c));
        } else {
            out.push(if c == '\0' { ' ' } else { c });
        }
    }
    out
}

/// A query of the index for what a person typed: every word must occur, the last may be a beginning, and text in double
/// quotes occurs as it stands. Whatever else the index understands as an operator is just a word here. `None` when
/// nothing in it can be looked for.
pub fn query(typed: &str) -> Option<String> {
    let mut terms = Vec::new();
    for (n, piece) in typed.split('"').enumerate() {
        if n % 2 == 1 {
            terms.extend(phrase(piece));
        } else {
            terms.extend(piece.split_whitespace().filter_map(phrase));
        }
    }
    terms.truncate(MAX_TERMS);
    let ends_open = typed.chars().last().is_some_and(|c| c.is_alphanumeric() && !stands_alone(c) && !is_picture(c));
    if ends_open && let Some(last) = terms.last_mut() {
        last.push('*');
    }
    (!terms.is_empty()).then(|| terms.join(" AND "))
}

/// A string of the query language. `None` when the index would find no word in it.
fn phrase(text: &str) -> Option<String> {
    let spaced = words(text);
    let spaced: Vec<_> = spaced.split_whitespace().collect();
    let has_word = spaced.iter().any(|word| word.chars().any(char::is_alphanumeric));
    has_word.then(|| format!("\"{}\"", spaced.join(" ").replace('"', " ")))
}

/// Words of one query; more are left out.
const MAX_TERMS: usize = 32;

/// About `max` characters of a text around the first of the words somebody looked for.
pub fn snippet(text: &str, typed: &str, max: usize) -> String {
    let shown = line(text, usize::MAX);
    if shown.chars().count() <= max {
        return shown;
    }
    // By characters, not bytes: lower case may be longer.
    let lower: Vec<char> = shown.chars().map(|c| c.to_lowercase().next().unwrap_or(c)).collect();
    let sought = typed.split(|c: char| c.is_whitespace() || c == '"').filter(|word| !word.is_empty());
    let found = sought.filter_map(|word| {
        let word: Vec<char> = word.chars().map(|c| c.to_lowercase().next().unwrap_or(c)).collect();
        lower.windows(word.len()).position(|window| window == word)
    });
    let from = found.min().unwrap_or_default().saturating_sub(max / 4);
    let inner: String = shown.chars().skip(from).take(max.saturating_sub(2)).collect();
    let more = from + inner.chars().count() < lower.len();
    format!("{}{}{}", if from > 0 { "…" } else { "" }, inner.trim(), if more { "…" } else { "" })
}
