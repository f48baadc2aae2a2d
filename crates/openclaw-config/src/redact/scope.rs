//! What is known of a place in the config while walking down to it.

use super::{
    MARKER, shape,
    words::{self, Sensitivity},
};
use crate::{
    path::ConfigPath,
    schema::{self, Found, Kind},
};

/// The node at the end of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NodeKind {
    Object,
    Array,
    Scalar,
}

/// A place: what is masked there, and how well the schema knows it.
#[derive(Clone, Copy)]
pub(super) struct Scope {
    mask: Sensitivity,
    /// The schema's type here; `None` below a loosely typed or unknown key.
    kind: Option<&'static Kind>,
    /// Guess at random-looking texts: only where the schema says nothing.
    loose: bool,
    /// Steps from the root, for the one rule that needs them.
    plugin_depth: u8,
}

impl Scope {
    pub(super) fn root() -> Self {
        let kind = match schema::find(&ConfigPath::ROOT) {
            Found::Known { kind, .. } => Some(kind),
            _ => None,
        };
        Self { mask: Sensitivity::None, kind, loose: false, plugin_depth: 0 }
    }

    /// The scope of an object's entry.
    pub(super) fn entry(self, key: &str, node: NodeKind) -> Self {
        let found = self.kind.map(|kind| schema::step(kind, key));
        let plugin_depth = match (self.plugin_depth, key) {
            (0, "plugins") if self.kind.is_some() => 1,
            (1, "entries") => 2,
            (2, _) => 3,
            (depth @ 3.., _) => depth,
            _ => 0,
        };
        let (kind, known, loose) = match found {
            Some(schema::Stepped::Known(kind)) => (Some(kind), !matches!(kind, Kind::Any), matches!(kind, Kind::Any)),
            Some(schema::Stepped::Unknown) => (None, false, false),
            Some(schema::Stepped::Loose) | None => (None, false, true),
        };
        let unknown = matches!(found, Some(schema::Stepped::Unknown));
        let own = match kind {
            Some(Kind::Secret) => Sensitivity::Scalars,
            // Containers and closed types of the schema are no secrets because of their names.
            Some(kind) if known && !matches!(kind, Kind::Text | Kind::OneOf(_)) => Sensitivity::None,
            _ => words::sensitivity(key),
        };
        let whole = unknown
            || plugin_depth == 3
            || (node != NodeKind::Scalar && words::is_header_map(key) && !matches!(kind, Some(Kind::List(_))))
            || (node == NodeKind::Object && words::is_env_map(key));
        let mut mask = strongest(self.mask, own);
        if whole {
            mask = strongest(mask, Sensitivity::Texts);
        }
        Self { mask, kind, loose: loose || (self.loose && !known), plugin_depth }
    }

    /// The scope of an array's item; `before` is the text before it.
    pub(super) fn item(self, index: &str, before: Option<&str>) -> Self {
        let kind = self.kind.and_then(|kind| match schema::step(kind, index) {
            schema::Stepped::Known(kind) => Some(kind),
            _ => None,
        });
        let option = before.and_then(|text| text.strip_prefix("--")).filter(|name| !name.contains('='));
        let by_option = option.map_or(Sensitivity::None, words::sensitivity);
        let own = if matches!(kind, Some(Kind::Secret)) { Sensitivity::Scalars } else { by_option };
        Self { mask: strongest(self.mask, own), kind, loose: self.loose || kind.is_none(), ..self }
    }

    /// The masked text; `None` if it may be shown as it is.
    pub(super) fn mask_text(self, text: &str) -> Option<String> {
        let trimmed = text.trim();
        if trimmed.is_empty() || text == MARKER || is_variable(trimmed) {
            return None;
        }
        if self.mask != Sensitivity::None {
            return Some(MARKER.to_owned());
        }
        match self.kind {
            Some(Kind::Enum(allowed)) if allowed.contains(&text) => None,
            Some(Kind::Checked(check) | Kind::Advised(check)) if check(text).is_none() && !text.contains("://") => None,
            _ => shape::mask(text, self.loose),
        }
    }

    pub(super) fn masks_numbers(self) -> bool {
        self.mask == Sensitivity::Scalars
    }
}

/// `${NAME}` and nothing else: a reference, not a secret.
fn is_variable(text: &str) -> bool {
    let name = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).unwrap_or_default();
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

fn strongest(a: Sensitivity, b: Sensitivity) -> Sensitivity {
    match (a, b) {
        (Sensitivity::Scalars, _) | (_, Sensitivity::Scalars) => Sensitivity::Scalars,
        (Sensitivity::Texts, _) | (_, Sensitivity::Texts) => Sensitivity::Texts,
        _ => Sensitivity::None,
    }
}
