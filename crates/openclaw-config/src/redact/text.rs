//! Redaction of the file's own text: literals by the same rules as values, comments by what stands in them.

use std::ops::Range;

use jsonc_parser::{
    CollectOptions, CommentCollectionStrategy,
    ast::{self, ObjectPropName},
    common::Ranged as _,
    tokens::Token,
};
use serde_json::Value;

use super::{
    MARKER, Secrets, kind, mask_string,
    scope::{NodeKind, Scope},
    shape, words,
};
use crate::document::{parse, strip_bom};

/// The text with its secrets masked; `None` if it does not parse, as then nobody can say what is secret in it.
pub fn raw(text: &str) -> Option<String> {
    let text = strip_bom(text);
    let parsed = parse_ranges(text)?;
    let mut secrets = Secrets::default();
    let mut edits = Vec::new();
    if let Some(root) = &parsed.value {
        walk(root, Scope::root(), &mut |literal, scope| match literal {
            Literal::Text(_, value) => secrets.add_from(value, scope),
            Literal::Number(_, number) if scope.masks_numbers() => secrets.add(number.to_owned()),
            Literal::Number(..) => {}
        });
        walk(root, Scope::root(), &mut |literal, scope| match literal {
            Literal::Text(range, value) => {
                if let Some(masked) = mask_string(value, scope, &secrets) {
                    edits.push((range.clone(), quote_like(&text[range], &masked)));
                }
            }
            Literal::Number(range, _) if scope.masks_numbers() => edits.push((range, format!("\"{MARKER}\""))),
            Literal::Number(..) => {}
        });
    }
    for range in parsed.comments {
        let comment = &text[range.clone()];
        let masked = mask_comment(comment, &secrets);
        if masked != comment {
            edits.push((range, masked));
        }
    }
    Some(splice(text, edits))
}

/// A string or number as written, with its place.
pub(super) enum Literal<'a> {
    Text(Range<usize>, &'a str),
    Number(Range<usize>, &'a str),
}

pub(super) struct Parsed<'a> {
    pub value: Option<ast::Value<'a>>,
    pub comments: Vec<Range<usize>>,
}

pub(super) fn parse_ranges(text: &str) -> Option<Parsed<'_>> {
    let collect = CollectOptions { comments: CommentCollectionStrategy::AsTokens, tokens: true };
    let parsed = jsonc_parser::parse_to_ast(text, &collect, &parse::options()).ok()?;
    let tokens = parsed.tokens.unwrap_or_default();
    let is_comment = |token: &Token<'_>| matches!(token, Token::CommentLine(_) | Token::CommentBlock(_));
    let comments = tokens.iter().filter(|t| is_comment(&t.token)).map(|t| t.range.start..t.range.end).collect();
    Some(Parsed { value: parsed.value, comments })
}

/// Calls `visit` for every literal with its scope. References are left out.
pub(super) fn walk<'a>(node: &'a ast::Value<'a>, scope: Scope, visit: &mut impl FnMut(Literal<'a>, Scope)) {
    match node {
        ast::Value::StringLit(lit) => visit(Literal::Text(lit.start()..lit.end(), &lit.value), scope),
        ast::Value::NumberLit(lit) => visit(Literal::Number(lit.start()..lit.end(), lit.value), scope),
        ast::Value::Array(array) => {
            let mut last = None;
            for (i, item) in array.elements.iter().enumerate() {
                walk(item, scope.item(&i.to_string(), last), visit);
                last = item.as_string_lit().map(|lit| lit.value.as_ref());
            }
        }
        ast::Value::Object(object) if !is_reference(object) => {
            for property in &object.properties {
                let kind = match property.value {
                    ast::Value::Object(_) => NodeKind::Object,
                    ast::Value::Array(_) => NodeKind::Array,
                    _ => NodeKind::Scalar,
                };
                walk(&property.value, scope.entry(name(&property.name), kind), visit);
            }
        }
        _ => {}
    }
}

pub(super) fn name<'a>(name: &'a ObjectPropName<'a>) -> &'a str {
    name.as_str()
}

fn is_reference(object: &ast::Object<'_>) -> bool {
    let mut value = serde_json::Map::new();
    for property in &object.properties {
        let text = property.value.as_string_lit().map_or(Value::Null, |lit| Value::String(lit.value.to_string()));
        if value.insert(name(&property.name).to_owned(), text).is_some() {
            return false;
        }
    }
    let value = Value::Object(value);
    kind(&value) == NodeKind::Object && super::is_reference(&value)
}

/// A literal for `value`, in single quotes where `written` has them and they need no escapes.
pub(super) fn quote_like(written: &str, value: &str) -> String {
    if written.starts_with('\'') && !value.contains(['\'', '\\']) && !value.contains(char::is_control) {
        return format!("'{value}'");
    }
    Value::String(value.to_owned()).to_string()
}

/// Puts replacements into the text.
pub(super) fn splice(text: &str, mut edits: Vec<(Range<usize>, String)>) -> String {
    edits.sort_by_key(|(range, _)| range.start);
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for (range, replacement) in edits {
        out.push_str(&text[at..range.start]);
        out.push_str(&replacement);
        at = range.end;
    }
    out.push_str(&text[at..]);
    out
}

/// Secrets in a comment: those known from the config, settings that were commented out, and texts that give
/// themselves away.
fn mask_comment(comment: &str, secrets: &Secrets) -> String {
    // The marks of the comment are not part of what it says: with the end of a block gone the rest would be comment.
    let marks =
        if comment.starts_with("/*") && comment.ends_with("*/") && comment.len() >= 4 { (2, 2) } else { (0, 0) };
    let said = &comment[marks.0..comment.len() - marks.1];
    let known = secrets.mask(said).unwrap_or_else(|| said.to_owned());
    let lines: Vec<_> = known.split('\n').map(mask_line).collect();
    format!("{}{}{}", &comment[..marks.0], lines.join("\n"), &comment[comment.len() - marks.1..])
}

fn mask_line(line: &str) -> String {
    let line = mask_settings(line);
    let mut out = String::with_capacity(line.len());
    for piece in line.split_inclusive(char::is_whitespace) {
        let word = piece.trim_end();
        let bare = word.trim_matches(|c: char| matches!(c, '"' | '\'' | ',' | ';' | '`' | '(' | ')'));
        match shape::mask(bare, true) {
            Some(masked) if !bare.is_empty() => {
                let start = word.find(bare).unwrap_or(0);
                out.push_str(&word[..start]);
                out.push_str(&masked);
                out.push_str(&word[start + bare.len()..]);
                out.push_str(&piece[word.len()..]);
            }
            _ => out.push_str(piece),
        }
    }
    out
}

/// `token: "…"` and `password = …` inside a comment.
fn mask_settings(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find([':', '=']) {
        let (head, tail) = rest.split_at(at + 1);
        out.push_str(head);
        rest = tail;
        let key = head[..at].trim_end().trim_end_matches(['"', '\'']);
        let start = key.rfind(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-'))).map_or(0, |i| i + 1);
        // The odd start of a multi-byte character is a boundary problem only for texts that are no keys.
        let key = key.get(start..).unwrap_or_default();
        if words::sensitivity(key) == words::Sensitivity::None {
            continue;
        }
        let blank = rest.len() - rest.trim_start().len();
        out.push_str(&rest[..blank]);
        rest = &rest[blank..];
        let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\'' | '`'));
        let (open, body) = quote.map_or(("", rest), |_| rest.split_at(1));
        let end = match quote {
            Some(quote) => body.find(quote).unwrap_or(body.len()),
            None => body.find(|c: char| c.is_whitespace() || matches!(c, ',' | ';' | '}' | ']')).unwrap_or(body.len()),
        };
        if end > 0 && !body.starts_with("*/") && !body.starts_with('{') && !body.starts_with("//") {
            out.push_str(open);
            out.push_str(MARKER);
            rest = &body[end..];
        }
    }
    out.push_str(rest);
    out
}
