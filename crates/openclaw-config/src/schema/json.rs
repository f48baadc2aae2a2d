//! The tree as JSON Schema, whole and by path.

use serde_json::{Map, Value, json};

use super::{Found, Key, Kind, Reload, find, root};
use crate::path::ConfigPath;

/// JSON Schema (draft-07) of everything we know. Other keys are allowed, since they are warnings and not errors.
pub fn json_schema() -> Value {
    let mut schema = object(root());
    schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    schema["title"] = json!("OpenClaw config");
    schema
}

/// One path of the schema.
#[derive(Clone, Debug, PartialEq)]
pub struct Lookup {
    pub path: String,
    /// The value's JSON Schema, one level deep.
    pub schema: Value,
    pub reload: Reload,
    pub help: String,
    /// Names of the keys below.
    pub children: Vec<String>,
}

/// What is known of a path; `None` for an unknown one.
pub fn lookup(path: &ConfigPath) -> Option<Lookup> {
    let (schema, reload, help, children) = match find(path) {
        Found::Unknown { .. } => return None,
        Found::Loose { reload } => (json!({}), reload, "", Vec::new()),
        Found::Known { kind, key, reload } => {
            let children = match kind {
                Kind::Object(keys) | Kind::Open(keys) => keys.iter().map(|key| key.name.to_owned()).collect(),
                _ => Vec::new(),
            };
            (of_kind(kind), reload, key.map_or("", |key| key.help), children)
        }
    };
    Some(Lookup { path: path.to_string(), schema, reload, help: help.to_owned(), children })
}

fn of_kind(kind: &Kind) -> Value {
    match kind {
        Kind::Bool => json!({"type": "boolean"}),
        Kind::Int { min, max } => {
            let mut schema = json!({"type": "integer", "minimum": min});
            if *max != i64::MAX {
                schema["maximum"] = json!(max);
            }
            schema
        }
        Kind::Number { min } if *min > f64::MIN => json!({"type": "number", "minimum": min}),
        Kind::Number { .. } => json!({"type": "number"}),
        Kind::Text | Kind::Checked(_) | Kind::Advised(_) => json!({"type": "string"}),
        Kind::Enum(allowed) => json!({"type": "string", "enum": allowed}),
        Kind::Secret => json!({"anyOf": [{"type": "string"}, {
            "type": "object",
            "properties": {
                "source": {"type": "string", "enum": ["env", "file", "exec", "store"]},
                "provider": {"type": "string", "pattern": "^[a-z][a-z0-9_-]{0,63}$"},
                "id": {"type": "string"},
            },
            "required": ["source", "id"],
        }]}),
        Kind::List(item) => json!({"type": "array", "items": of_kind(item)}),
        Kind::Map(item) => json!({"type": "object", "additionalProperties": of_kind(item)}),
        Kind::Object(keys) | Kind::Open(keys) => object(keys),
        Kind::OneOf(kinds) => json!({"anyOf": kinds.iter().map(of_kind).collect::<Vec<_>>()}),
        Kind::Any => json!({}),
    }
}

fn object(keys: &[Key]) -> Value {
    let mut properties = Map::new();
    for key in keys {
        let mut schema = of_kind(&key.kind);
        if !key.help.is_empty() {
            schema["description"] = json!(key.help);
        }
        properties.insert(key.name.to_owned(), schema);
    }
    let mut schema = json!({"type": "object", "properties": properties, "additionalProperties": true});
    let required: Vec<_> = keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}
