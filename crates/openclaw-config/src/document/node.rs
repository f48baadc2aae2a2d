//! A config value that knows where it was written.

use std::{fmt, path::PathBuf, sync::Arc};

use serde_json::Value;

use crate::path::ConfigPath;

/// The place of a value: file, and line and column from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provenance {
    pub file: Arc<PathBuf>,
    pub line: u32,
    pub column: u32,
}

impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// A string value, after `${VAR}` substitution.
#[derive(Clone, PartialEq, Eq)]
pub struct Text {
    pub value: String,
    /// The text as written, if a substitution or a `$${` escape changed it.
    pub written: Option<String>,
    /// Variables whose value is now part of the text.
    pub substituted: Vec<String>,
    /// Variables that are unset or empty; their `${VAR}` is still in the text.
    pub unresolved: Vec<String>,
}

/// Any text of a config may be a secret.
impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Text").field("bytes", &self.value.len()).finish_non_exhaustive()
    }
}

impl Text {
    pub(crate) fn plain(value: String) -> Self {
        Self { value, written: None, substituted: Vec::new(), unresolved: Vec::new() }
    }

    /// The text as it stands in the file.
    pub fn as_written(&self) -> &str {
        self.written.as_deref().unwrap_or(&self.value)
    }
}

/// What a node holds. Objects keep the order of the file; a repeated key keeps its last value, as in JavaScript.
#[derive(Clone, Debug)]
pub enum Kind {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(Text),
    Array(Vec<Node>),
    Object(Vec<(String, Node)>),
}

/// A value and its place.
#[derive(Clone, Debug)]
pub struct Node {
    pub kind: Kind,
    pub provenance: Provenance,
}

impl Node {
    pub fn as_str(&self) -> Option<&str> {
        self.as_text().map(|text| text.value.as_str())
    }

    pub fn as_text(&self) -> Option<&Text> {
        match &self.kind {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self.kind {
            Kind::Bool(value) => Some(value),
            _ => None,
        }
    }

    pub fn as_i64(&self) -> Option<i64> {
        match &self.kind {
            // JSON5 has one number type: `18789.0` is the integer.
            Kind::Number(n) => {
                n.as_i64().or_else(|| n.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 9e15).map(|f| f as i64))
            }
            _ => None,
        }
    }

    pub fn as_array(&self) -> Option<&[Node]> {
        match &self.kind {
            Kind::Array(items) => Some(items),
            _ => None,
        }
    }

    pub fn as_object(&self) -> Option<&[(String, Node)]> {
        match &self.kind {
            Kind::Object(entries) => Some(entries),
            _ => None,
        }
    }

    /// The entry of an object.
    pub fn entry(&self, key: &str) -> Option<&Node> {
        self.as_object()?.iter().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    /// Follows a path downwards.
    pub fn at(&self, path: &ConfigPath) -> Option<&Node> {
        path.steps().iter().try_fold(self, |node, step| match &node.kind {
            Kind::Array(items) => items.get(step.parse::<usize>().ok()?),
            _ => node.entry(step),
        })
    }

    /// The JSON value with substitutions made.
    pub fn to_value(&self) -> Value {
        self.convert(&|text| text.value.clone())
    }

    /// The JSON value with every `${VAR}` as written, for showing and for editing.
    pub fn to_written_value(&self) -> Value {
        self.convert(&|text| text.as_written().to_owned())
    }

    fn convert(&self, text: &impl Fn(&Text) -> String) -> Value {
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Bool(value) => Value::Bool(*value),
            Kind::Number(number) => Value::Number(number.clone()),
            Kind::Text(t) => Value::String(text(t)),
            Kind::Array(items) => items.iter().map(|item| item.convert(text)).collect(),
            Kind::Object(entries) => entries.iter().map(|(k, v)| (k.clone(), v.convert(text))).collect(),
        }
    }

    /// Calls `visit` for this node and everything below it.
    pub(crate) fn walk<'a>(&'a self, path: &mut ConfigPath, visit: &mut impl FnMut(&ConfigPath, &'a Node)) {
        visit(path, self);
        let mut below = |step: &str, node: &'a Node| {
            path.push(step);
            node.walk(path, visit);
            path.pop();
        };
        match &self.kind {
            Kind::Array(items) => items.iter().enumerate().for_each(|(i, item)| below(&i.to_string(), item)),
            Kind::Object(entries) => entries.iter().for_each(|(key, node)| below(key, node)),
            _ => {}
        }
    }
}
