//! Config for eyes other than the owner's: secrets become a marker, and come back when the edited text is saved.
//!
//! A text is masked for what its key means (by the schema, by the words in its name), for the map it lies in
//! (headers, environments, plugin settings, keys we do not know) and for its own shape (logins and secrets in URLs,
//! keys with known prefixes, command line options). A secret found in one place is masked wherever else it stands.
//! References stay: a SecretRef and a `${VAR}` are not secrets.

mod restore;
mod scope;
mod shape;
mod text;
mod words;

use std::collections::HashSet;

use serde_json::Value;

pub use restore::{RestoreError, restore, restore_patch, restore_raw};
pub use text::raw;

use crate::document::Document;
use scope::Scope;

/// Stands for a secret.
pub const MARKER: &str = "__OPENCLAW_REDACTED__";

/// A secret shorter than this is masked in its own place only, since elsewhere it may be an ordinary word.
const SHORTEST_ALIAS: usize = 6;

/// The effective config, `${VAR}` as written, secrets masked.
pub fn document(doc: &Document) -> Value {
    value(&doc.written())
}

/// A whole config value with its secrets masked.
pub fn value(config: &Value) -> Value {
    let mut secrets = Secrets::default();
    secrets.collect(config, Scope::root());
    mask(config, Scope::root(), &secrets)
}

/// Whether the value at a dotted path would be masked as a whole, for `config get` of one leaf.
pub fn is_secret(config: &Value, path: &crate::ConfigPath) -> bool {
    let mut scope = Scope::root();
    let mut here = config;
    for step in path.steps() {
        let child = match here {
            Value::Array(items) => step.parse::<usize>().ok().and_then(|i| items.get(i)),
            other => other.get(step),
        };
        let Some(child) = child else { return false };
        scope = match here {
            Value::Array(_) => scope.item(step, None),
            _ => scope.entry(step, kind(child)),
        };
        here = child;
    }
    match here {
        Value::String(text) => scope.mask_text(text).is_some(),
        Value::Number(_) => scope.masks_numbers(),
        _ => false,
    }
}

/// Secrets that are looked for inside other texts. More than these are only found where a whole text is one, so that
/// a config made of thousands of them costs no square of its size.
const SOUGHT_INSIDE: usize = 512;

/// Secrets that were found, to find them again.
#[derive(Default)]
struct Secrets {
    all: HashSet<String>,
    /// Longest first, so that a secret inside another does not spoil it.
    inside: Vec<String>,
}

impl Secrets {
    fn collect(&mut self, node: &Value, scope: Scope) {
        match node {
            Value::String(text) => self.add_from(text, scope),
            Value::Number(number) if scope.masks_numbers() => self.add(number.to_string()),
            Value::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    self.collect(item, scope.item(&i.to_string(), before(items, i)));
                }
            }
            Value::Object(entries) if !is_reference(node) => {
                for (key, entry) in entries {
                    self.collect(entry, scope.entry(key, kind(entry)));
                }
            }
            _ => {}
        }
    }

    fn add_from(&mut self, text: &str, scope: Scope) {
        if let Some(masked) = scope.mask_text(text) {
            // What the marker stands for: everything, or the middle of a text that was masked in part.
            shape::hidden_parts(text, &masked).into_iter().for_each(|part| self.add(part.to_owned()));
        }
    }

    fn add(&mut self, secret: String) {
        let trimmed = secret.trim();
        let is_alias = trimmed.len() >= SHORTEST_ALIAS && !MARKER.contains(trimmed);
        if is_alias && self.all.insert(trimmed.to_owned()) && self.inside.len() < SOUGHT_INSIDE {
            let at = self.inside.partition_point(|known| known.len() >= trimmed.len());
            self.inside.insert(at, trimmed.to_owned());
        }
    }

    /// `text` with every known secret in it replaced; `None` if there is none.
    fn mask(&self, text: &str) -> Option<String> {
        if self.all.contains(text.trim()) {
            return Some(MARKER.to_owned());
        }
        let mut masked = None::<String>;
        for secret in &self.inside {
            if masked.as_deref().unwrap_or(text).contains(secret.as_str()) {
                masked = Some(masked.as_deref().unwrap_or(text).replace(secret.as_str(), MARKER));
            }
        }
        masked
    }
}

fn mask(node: &Value, scope: Scope, secrets: &Secrets) -> Value {
    match node {
        Value::String(text) => Value::String(mask_string(text, scope, secrets).unwrap_or_else(|| text.clone())),
        Value::Number(_) if scope.masks_numbers() => Value::String(MARKER.to_owned()),
        Value::Array(items) => {
            let masked = |(i, item): (usize, &Value)| mask(item, scope.item(&i.to_string(), before(items, i)), secrets);
            items.iter().enumerate().map(masked).collect()
        }
        Value::Object(entries) if !is_reference(node) => entries
            .iter()
            .map(|(key, entry)| (key.clone(), mask(entry, scope.entry(key, kind(entry)), secrets)))
            .collect(),
        other => other.clone(),
    }
}

/// One text by its scope and by the secrets known from elsewhere.
fn mask_string(text: &str, scope: Scope, secrets: &Secrets) -> Option<String> {
    let by_scope = scope.mask_text(text);
    if by_scope.as_deref() == Some(MARKER) {
        return by_scope;
    }
    let shown = by_scope.as_deref().unwrap_or(text);
    secrets.mask(shown).or(by_scope)
}

/// The text before an item of an array: `--token` makes the next item a secret.
fn before(items: &[Value], i: usize) -> Option<&str> {
    items.get(i.checked_sub(1)?)?.as_str()
}

fn is_reference(node: &Value) -> bool {
    let Some(object) = node.as_object() else { return false };
    let only_known = object.keys().all(|key| matches!(key.as_str(), "source" | "provider" | "id"));
    let text = |key: &str| object.get(key).map(|entry| entry.as_str().unwrap_or_default());
    only_known && crate::secret_ref::is_reference(text("source"), text("provider"), text("id"))
}

fn kind(node: &Value) -> scope::NodeKind {
    match node {
        Value::Object(_) => scope::NodeKind::Object,
        Value::Array(_) => scope::NodeKind::Array,
        _ => scope::NodeKind::Scalar,
    }
}

#[cfg(test)]
mod tests;
