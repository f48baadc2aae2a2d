//! What keys a config may have: one static tree for validation, suggestions, JSON Schema and reload kinds.
//!
//! The `gateway` section is typed throughout; of the other sections the names are known and the types loose, since
//! the rooms that read them check them. A key outside the tree is a warning with a suggestion and nothing else.

mod checks;
mod gateway;
mod json;
mod sections;
mod validate;

pub use json::{Lookup, json_schema, lookup};
pub use validate::{Issue, Validation, validate};

use crate::path::ConfigPath;

/// What a running gateway does when a key changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reload {
    /// Nothing reads it in the gateway, or it is read at each use.
    None,
    /// Applied to the running gateway.
    Hot,
    /// Takes effect at the next start.
    Restart,
}

impl Reload {
    /// The wire word of `config.schema.lookup`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Hot => "hot",
            Self::Restart => "restart",
        }
    }
}

/// The type of a value.
pub(crate) enum Kind {
    Bool,
    Int {
        min: i64,
        max: i64,
    },
    Number {
        min: f64,
    },
    Text,
    /// Text with a check; the function gives what is wrong. A failed check is an error.
    Checked(fn(&str) -> Option<&'static str>),
    /// Text with a check whose failure is a warning, because the reader ignores such an entry.
    Advised(fn(&str) -> Option<&'static str>),
    Enum(&'static [&'static str]),
    /// A string or a SecretRef.
    Secret,
    List(&'static Kind),
    Map(&'static Kind),
    /// All keys are known.
    Object(&'static [Key]),
    /// These keys are known and there are others.
    Open(&'static [Key]),
    OneOf(&'static [Kind]),
    Any,
}

/// One key of an object.
pub(crate) struct Key {
    pub name: &'static str,
    pub kind: Kind,
    pub help: &'static str,
    pub required: bool,
    /// `None` means as the parent.
    pub reload: Option<Reload>,
}

const fn key(name: &'static str, kind: Kind, help: &'static str) -> Key {
    Key { name, kind, help, required: false, reload: None }
}

/// A known key of no particular type.
const fn any(name: &'static str) -> Key {
    key(name, Kind::Any, "")
}

impl Key {
    const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    const fn hot(self) -> Self {
        Self { reload: Some(Reload::Hot), ..self }
    }

    const fn restart(self) -> Self {
        Self { reload: Some(Reload::Restart), ..self }
    }

    const fn unread(self) -> Self {
        Self { reload: Some(Reload::None), ..self }
    }
}

/// The tree.
pub(crate) const fn root() -> &'static [Key] {
    sections::ROOT
}

/// What the tree says about a path.
pub(crate) enum Found {
    Known {
        kind: &'static Kind,
        key: Option<&'static Key>,
        reload: Reload,
    },
    /// Below a loosely typed key, or in a map: allowed, type unknown.
    Loose {
        reload: Reload,
    },
    Unknown {
        reload: Reload,
    },
}

/// Follows a path through the tree.
pub(crate) fn find(path: &ConfigPath) -> Found {
    static ROOT: Kind = Kind::Object(sections::ROOT);
    let (mut kind, mut last, mut reload) = (&ROOT, None, Reload::None);
    for step in path.steps() {
        match step_into(kind, step) {
            Step::Key(key) => {
                reload = key.reload.unwrap_or(reload);
                (kind, last) = (&key.kind, Some(key));
            }
            Step::Item(item) => (kind, last) = (item, None),
            Step::Loose => return Found::Loose { reload },
            Step::Unknown => return Found::Unknown { reload },
        }
    }
    Found::Known { kind, key: last, reload }
}

/// One step down, for walkers that go along.
pub(crate) enum Stepped {
    Known(&'static Kind),
    Loose,
    Unknown,
}

/// Follows one step.
pub(crate) fn step(kind: &'static Kind, step: &str) -> Stepped {
    match step_into(kind, step) {
        Step::Key(key) => Stepped::Known(&key.kind),
        Step::Item(kind) => Stepped::Known(kind),
        Step::Loose => Stepped::Loose,
        Step::Unknown => Stepped::Unknown,
    }
}

enum Step {
    Key(&'static Key),
    Item(&'static Kind),
    Loose,
    Unknown,
}

fn step_into(kind: &'static Kind, step: &str) -> Step {
    match kind {
        Kind::Object(keys) | Kind::Open(keys) => match keys.iter().find(|key| key.name == step) {
            Some(key) => Step::Key(key),
            None if matches!(kind, Kind::Open(_)) => Step::Loose,
            None => Step::Unknown,
        },
        Kind::Map(item) => Step::Item(item),
        Kind::List(item) if step.bytes().all(|b| b.is_ascii_digit()) => Step::Item(item),
        Kind::OneOf(kinds) => {
            let mut steps = kinds.iter().map(|kind| step_into(kind, step));
            steps.find(|found| !matches!(found, Step::Unknown)).unwrap_or(Step::Unknown)
        }
        Kind::Any => Step::Loose,
        Kind::Secret if matches!(step, "source" | "provider" | "id") => Step::Loose,
        _ => Step::Unknown,
    }
}

/// What changing a path asks of a running gateway. A path above several kinds gives the strongest of them.
pub fn reload_kind(path: &ConfigPath) -> Reload {
    match find(path) {
        Found::Known { kind, reload, .. } => strongest(kind, reload),
        Found::Loose { reload } | Found::Unknown { reload } => reload,
    }
}

fn strongest(kind: &Kind, inherited: Reload) -> Reload {
    match kind {
        Kind::Object(keys) | Kind::Open(keys) => {
            let below = keys.iter().map(|key| strongest(&key.kind, key.reload.unwrap_or(inherited)));
            below.max().unwrap_or(inherited)
        }
        Kind::List(item) | Kind::Map(item) => strongest(item, inherited),
        _ => inherited,
    }
}

#[cfg(test)]
mod tests;
