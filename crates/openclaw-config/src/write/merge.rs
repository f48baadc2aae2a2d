//! Edits on the JSON value of the main file.

use serde_json::{Map, Value};

use crate::{
    document::{Document, Node},
    path::ConfigPath,
    schema::{self, Found, Kind},
};

/// One edit.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    Set {
        path: ConfigPath,
        value: Value,
        mode: SetMode,
    },
    Unset {
        path: ConfigPath,
    },
    /// RFC 7396: objects merge, other values replace, null deletes. At `replace` paths objects replace too.
    Patch {
        value: Value,
        replace: Vec<ConfigPath>,
    },
}

/// What `set` does with an object where there is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SetMode {
    /// Replaces, but does not drop entries of maps that hold a person's work.
    #[default]
    Set,
    /// Merges objects.
    Merge,
    /// Replaces whatever is there.
    Replace,
}

/// Why an edit cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    #[error("Config path not found: {path}. Nothing was changed. Run openclaw config get <parent> to see the keys.")]
    NotFound { path: ConfigPath },
    #[error("{path} comes from the included file {file}; edit it there. Nothing was changed.")]
    Included { path: ConfigPath, file: String },
    #[error("{path} is {found}, so nothing can be set below it")]
    NotAContainer { path: ConfigPath, found: &'static str },
    #[error("{path}: the list has {len} items; the next index is {len}")]
    IndexTooHigh { path: ConfigPath, len: usize },
    #[error("replacing {path} would drop {}; use --merge to keep them, or --replace to drop them", dropped.join(", "))]
    Lossy { path: ConfigPath, dropped: Vec<String> },
    #[error("the whole config is replaced with `config apply` or `config patch`, not with set or unset")]
    Root,
}

/// Maps whose entries are a person's work (config.md section 2).
const PROTECTED: &[&[&str]] = &[
    &["agents", "entries"],
    &["agents", "defaults", "models"],
    &["models", "providers"],
    &["plugins", "entries"],
    &["auth", "profiles"],
];

/// Makes one edit in `source`, the main file's value; `before` is the whole config, to explain what is not in it.
pub(super) fn apply(source: &mut Value, edit: &Edit, before: &Document) -> Result<(), EditError> {
    match edit {
        Edit::Set { path, value, mode } => set(source, path, value, *mode, before),
        Edit::Unset { path } => unset(source, path, before),
        Edit::Patch { value, replace } => {
            patch(source, value, &mut ConfigPath::default(), replace);
            Ok(())
        }
    }
}

fn set(
    source: &mut Value,
    path: &ConfigPath,
    value: &Value,
    mode: SetMode,
    before: &Document,
) -> Result<(), EditError> {
    let (last, parents) = path.steps().split_last().ok_or(EditError::Root)?;
    let mut at = ConfigPath::default();
    let mut here = source;
    for step in parents {
        here = enter(here, step, &at, before)?;
        at.push(step);
    }
    let slot = enter(here, last, &at, before)?;
    if mode == SetMode::Merge && value.is_object() {
        // Also where nothing was: a null in the new object deletes, it is never stored.
        patch(slot, value, &mut path.clone(), &[]);
        return Ok(());
    }
    if let (SetMode::Set, Value::Object(old), Value::Object(new)) = (mode, &*slot, value)
        && PROTECTED.iter().any(|protected| path.steps() == *protected)
    {
        let dropped: Vec<_> = old.keys().filter(|key| !new.contains_key(*key)).cloned().collect();
        if !dropped.is_empty() {
            return Err(EditError::Lossy { path: path.clone(), dropped });
        }
    }
    *slot = value.clone();
    Ok(())
}

/// The entry `step` of `here`, made if it is missing. A missing value on the way becomes an object or a list as the
/// schema has it.
fn enter<'a>(here: &'a mut Value, step: &str, at: &ConfigPath, before: &Document) -> Result<&'a mut Value, EditError> {
    if here.is_null() {
        if let Some(node) = before.at(at).filter(|node| node.as_array().is_some()) {
            return Err(included(at, node));
        }
        let list = match schema::find(at) {
            Found::Known { kind, .. } => is_list(kind),
            _ => false,
        };
        *here = if list { Value::Array(Vec::new()) } else { Value::Object(Map::new()) };
    }
    match here {
        Value::Object(entries) => Ok(entries.entry(step.to_owned()).or_insert(Value::Null)),
        Value::Array(items) => {
            let len = items.len();
            let index = step.parse::<usize>().ok().filter(|index| *index <= len);
            let index = index.ok_or_else(|| EditError::IndexTooHigh { path: at.child(step), len })?;
            if index == len {
                items.push(Value::Null);
            }
            Ok(&mut items[index])
        }
        other => Err(EditError::NotAContainer { path: at.clone(), found: type_name(other) }),
    }
}

fn is_list(kind: &Kind) -> bool {
    match kind {
        Kind::List(_) => true,
        Kind::OneOf(kinds) => kinds.iter().any(is_list),
        _ => false,
    }
}

fn unset(source: &mut Value, path: &ConfigPath, before: &Document) -> Result<(), EditError> {
    let (last, parents) = path.steps().split_last().ok_or(EditError::Root)?;
    let missing = || match before.at(path) {
        Some(node) => included(path, node),
        None => EditError::NotFound { path: path.clone() },
    };
    let mut here = source;
    for step in parents {
        here = match here {
            Value::Object(entries) => entries.get_mut(step),
            Value::Array(items) => step.parse::<usize>().ok().and_then(|index| items.get_mut(index)),
            _ => None,
        }
        .ok_or_else(missing)?;
    }
    match here {
        Value::Object(entries) => entries.shift_remove(last).map(|_| ()),
        Value::Array(items) => {
            let index = last.parse::<usize>().ok().filter(|index| *index < items.len());
            index.map(|index| drop(items.remove(index)))
        }
        _ => None,
    }
    .ok_or_else(missing)
}

fn included(path: &ConfigPath, node: &Node) -> EditError {
    EditError::Included { path: path.clone(), file: node.provenance.file.display().to_string() }
}

fn patch(target: &mut Value, change: &Value, path: &mut ConfigPath, replace: &[ConfigPath]) {
    let Value::Object(changes) = change else {
        *target = change.clone();
        return;
    };
    if replace.contains(path) || !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(entries) = target else { return };
    for (key, change) in changes {
        if change.is_null() {
            entries.shift_remove(key);
            continue;
        }
        path.push(key);
        patch(entries.entry(key.clone()).or_insert(Value::Null), change, path, replace);
        path.pop();
    }
}

/// Paths of the leaves that differ; a list is one leaf.
pub(super) fn changed_paths(before: &Value, after: &Value) -> Vec<ConfigPath> {
    fn walk(before: Option<&Value>, after: Option<&Value>, path: &mut ConfigPath, out: &mut Vec<ConfigPath>) {
        if before == after {
            return;
        }
        let objects = (before.and_then(Value::as_object), after.and_then(Value::as_object));
        let missing_or_object = |value: Option<&Value>| value.is_none_or(Value::is_object);
        let is_leaf = objects == (None, None) || !(missing_or_object(before) && missing_or_object(after));
        let empty = objects.0.is_none_or(Map::is_empty) && objects.1.is_none_or(Map::is_empty);
        if is_leaf || empty {
            out.push(path.clone());
            return;
        }
        let keys = objects.0.into_iter().flat_map(Map::keys);
        let added = objects.1.into_iter().flat_map(Map::keys);
        let added = added.filter(|key| objects.0.is_none_or(|before| !before.contains_key(*key)));
        for key in keys.chain(added) {
            path.push(key);
            walk(objects.0.and_then(|o| o.get(key)), objects.1.and_then(|o| o.get(key)), path, out);
            path.pop();
        }
    }
    let mut out = Vec::new();
    walk(Some(before), Some(after), &mut ConfigPath::default(), &mut out);
    out
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
