//! The way back: markers in an edited config become the secrets they stood for.
//!
//! A marker is only replaced by the secret of its own place. A marker anywhere else is an error, since guessing would
//! put one secret where another belongs.

use serde_json::{Map, Value};

use super::{MARKER, text};
use crate::{
    document::{parse, strip_bom},
    path::ConfigPath,
};

/// A marker that stands for nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    #[error("{path}: {MARKER} does not stand for a secret at this place; write the value itself")]
    NoOriginal { path: String },
    #[error("the edited config does not parse: line {line}: {reason}")]
    Syntax { line: u32, reason: String },
}

/// `edited` with the secrets of `original` in the places of their markers.
pub fn restore(edited: &Value, original: &Value) -> Result<Value, RestoreError> {
    let redacted = super::value(original);
    place(edited, Some((original, &redacted)), &mut ConfigPath::default())
}

/// A merge patch made from a redacted config: an entry that is still its marker is taken out, since it asks for no
/// change, and so no secret is copied from an included file. Lists replace as a whole and get their secrets back. Not
/// for paths that are replaced instead of merged; there use [`restore`].
pub fn restore_patch(patch: &Value, original: &Value) -> Result<Value, RestoreError> {
    let redacted = super::value(original);
    unmark(patch, Some((original, &redacted)), &mut ConfigPath::default())
}

fn unmark(patch: &Value, original: Option<(&Value, &Value)>, path: &mut ConfigPath) -> Result<Value, RestoreError> {
    let Value::Object(entries) = patch else { return place(patch, original, path) };
    let mut out = Map::new();
    for (key, entry) in entries {
        let below = original.and_then(|(original, redacted)| Some((original.get(key)?, redacted.get(key)?)));
        let unchanged =
            entry.is_string() && holds_marker(entry) && below.is_some_and(|(_, redacted)| redacted == entry);
        if !unchanged {
            path.push(key);
            out.insert(key.clone(), unmark(entry, below, path)?);
            path.pop();
        }
    }
    Ok(Value::Object(out))
}

/// The same for the file's text: literals by their place, comments by the original comment with the same masked text.
pub fn restore_raw(edited: &str, original: &str) -> Result<String, RestoreError> {
    let edited = strip_bom(edited);
    if !edited.contains(MARKER) {
        return Ok(edited.to_owned());
    }
    let edited_value = value_of(edited)?;
    let original_text = strip_bom(original);
    let original_value = value_of(original_text).unwrap_or_else(|_| Value::Object(Map::new()));
    let restored = restore(&edited_value, &original_value)?;
    let parsed = text::parse_ranges(edited)
        .ok_or_else(|| RestoreError::Syntax { line: 1, reason: "it does not parse".to_owned() })?;
    let mut edits = Vec::new();
    if let Some(root) = &parsed.value {
        literals(edited, root, &restored, &mut edits);
    }
    let mut comments = comment_pairs(original_text);
    for range in parsed.comments.into_iter().filter(|range| edited[range.clone()].contains(MARKER)) {
        // A comment that was changed keeps its marker: it is only a comment.
        if let Some(at) = comments.iter().position(|(masked, _)| *masked == edited[range.clone()]) {
            edits.push((range, comments.remove(at).1));
        }
    }
    Ok(text::splice(edited, edits))
}

fn value_of(text: &str) -> Result<Value, RestoreError> {
    let parsed = parse::parse(text, &Default::default(), &parse::options())
        .map_err(|s| RestoreError::Syntax { line: s.line, reason: s.reason })?;
    Ok(parsed.root.map_or_else(|| Value::Object(Map::new()), |root| root.to_value()))
}

/// The original comments that hold secrets, masked and as they are.
fn comment_pairs(original: &str) -> Vec<(String, String)> {
    let (Some(masked), Some(parsed)) = (text::raw(original), text::parse_ranges(original)) else { return Vec::new() };
    let Some(masked_parsed) = text::parse_ranges(&masked) else { return Vec::new() };
    let masked_texts = masked_parsed.comments.iter().map(|range| masked[range.clone()].to_owned());
    let texts = parsed.comments.iter().map(|range| original[range.clone()].to_owned());
    masked_texts.zip(texts).filter(|(masked, text)| masked != text).collect()
}

/// Edits that put restored values into literals with markers.
fn literals(
    source: &str,
    node: &jsonc_parser::ast::Value<'_>,
    restored: &Value,
    edits: &mut Vec<(std::ops::Range<usize>, String)>,
) {
    use jsonc_parser::{ast::Value as Ast, common::Ranged as _};
    match node {
        Ast::StringLit(lit) if lit.value.contains(MARKER) => {
            let range = lit.start()..lit.end();
            let literal = match restored {
                Value::String(value) => text::quote_like(&source[range.clone()], value),
                other => other.to_string(),
            };
            edits.push((range, literal));
        }
        Ast::Array(array) => {
            for (item, restored) in array.elements.iter().zip(restored.as_array().into_iter().flatten()) {
                literals(source, item, restored, edits);
            }
        }
        Ast::Object(object) => {
            for property in &object.properties {
                if let Some(restored) = restored.get(text::name(&property.name)) {
                    literals(source, &property.value, restored, edits);
                }
            }
        }
        _ => {}
    }
}

fn place(edited: &Value, original: Option<(&Value, &Value)>, path: &mut ConfigPath) -> Result<Value, RestoreError> {
    match edited {
        Value::String(text) if text.contains(MARKER) => match original {
            Some((original, redacted)) if redacted == edited => Ok(original.clone()),
            _ => Err(RestoreError::NoOriginal { path: path.to_string() }),
        },
        Value::Object(entries) => {
            let mut out = Map::new();
            for (key, entry) in entries {
                let below = original.and_then(|(original, redacted)| Some((original.get(key)?, redacted.get(key)?)));
                path.push(key);
                out.insert(key.clone(), place(entry, below, path)?);
                path.pop();
            }
            Ok(Value::Object(out))
        }
        Value::Array(items) => {
            let (originals, redacted) = match original {
                Some((Value::Array(originals), Value::Array(redacted))) => (originals.as_slice(), redacted.as_slice()),
                _ => (&[][..], &[][..]),
            };
            let grew = items.len() >= redacted.len() && items.iter().zip(redacted).all(|(a, b)| a == b);
            let mut out = Vec::with_capacity(items.len());
            for (i, item) in items.iter().enumerate() {
                let partner = if grew || !holds_marker(item) { Some(i) } else { partner(i, items, redacted) };
                let below = partner.and_then(|at| Some((originals.get(at)?, redacted.get(at)?)));
                path.push(&i.to_string());
                out.push(place(item, below, path)?);
                path.pop();
            }
            Ok(Value::Array(out))
        }
        other => Ok(other.clone()),
    }
}

/// Longest list whose items are told apart by looking at all of them.
const LONGEST_COMPARED: usize = 1_000;

/// The original item that an edited one is, in a list that did more than grow at its end: the one of the same id, else
/// the only one that looks the same, else the one at its place in a list of the same length.
fn partner(i: usize, items: &[Value], redacted: &[Value]) -> Option<usize> {
    let item = &items[i];
    if items.len().max(redacted.len()) > LONGEST_COMPARED {
        return redacted.get(i).filter(|other| *other == item).map(|_| i);
    }
    if let Some(id) = identity(item) {
        let same = |list: &[Value]| list.iter().filter(|other| identity(other) == Some(id)).count();
        if same(items) == 1 && same(redacted) == 1 {
            return redacted.iter().position(|other| identity(other) == Some(id));
        }
    }
    let mut alike = redacted.iter().enumerate().filter(|(_, other)| *other == item);
    match (alike.next(), alike.next()) {
        (Some((at, _)), None) => Some(at),
        // An object of a list of the same length, changed in another key.
        (None, None) if items.len() == redacted.len() && item.is_object() && identity(item).is_none() => Some(i),
        _ => None,
    }
}

fn identity(item: &Value) -> Option<(&'static str, &str)> {
    ["id", "name", "key", "alias"]
        .into_iter()
        .find_map(|key| Some((key, item.get(key)?.as_str()?)))
        .filter(|(_, text)| !text.contains(MARKER))
}

fn holds_marker(node: &Value) -> bool {
    match node {
        Value::String(text) => text.contains(MARKER),
        Value::Array(items) => items.iter().any(holds_marker),
        Value::Object(entries) => entries.values().any(holds_marker),
        _ => false,
    }
}
