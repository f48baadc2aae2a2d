//! Checks a call's arguments against the tool's schema, in words that let a model correct itself.
//!
//! Knows the keywords tools use: `type`, `enum`, `const`, `required`, `properties`, `items`, `additionalProperties: false`.
//! What it does not know it lets pass; the tool has the last word.

use serde_json::{Map, Value};

/// Levels of a schema that are looked at.
const DEPTH: usize = 16;
/// Complaints given at once.
const COMPLAINTS: usize = 8;

/// # Errors
/// What does not fit, one line for each fault.
pub(super) fn check(arguments: &Value, schema: &Value) -> Result<(), String> {
    let mut faults = Vec::new();
    walk(arguments, schema, "", DEPTH, &mut faults);
    if faults.is_empty() {
        return Ok(());
    }
    faults.truncate(COMPLAINTS);
    Err(faults.join("\n"))
}

fn walk(value: &Value, schema: &Value, at: &str, depth: usize, faults: &mut Vec<String>) {
    let Some(schema) = schema.as_object() else { return };
    let name = || if at.is_empty() { "the arguments".to_owned() } else { format!("`{at}`") };
    if depth == 0 || faults.len() >= COMPLAINTS {
        return;
    }
    if let Some(expected) = types(schema)
        && !expected.iter().any(|kind| is(value, kind))
    {
        faults.push(format!("{} must be {}, not {}", name(), expected.join(" or "), kind_of(value)));
        return;
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        let allowed: Vec<String> = allowed.iter().map(Value::to_string).collect();
        faults.push(format!("{} must be one of {}", name(), allowed.join(", ")));
    }
    if let Some(only) = schema.get("const")
        && only != value
    {
        faults.push(format!("{} must be {only}", name()));
    }
    let below = |key: &str| if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") };
    match value {
        Value::Object(entries) => {
            let properties = schema.get("properties").and_then(Value::as_object);
            for key in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
            {
                if !entries.contains_key(key) {
                    faults.push(format!("`{}` is missing", below(key)));
                }
            }
            for (key, value) in entries {
                match properties.and_then(|properties| properties.get(key)) {
                    Some(schema) => walk(value, schema, &below(key), depth - 1, faults),
                    None if schema.get("additionalProperties") == Some(&Value::Bool(false)) => {
                        faults.push(format!("`{}` is not an argument of this tool", below(key)));
                    }
                    None => {}
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = schema.get("items") {
                for (index, item) in items.iter().enumerate() {
                    walk(item, schema, &format!("{at}[{index}]"), depth - 1, faults);
                }
            }
        }
        _ => {}
    }
}

fn types(schema: &Map<String, Value>) -> Option<Vec<&str>> {
    match schema.get("type")? {
        Value::String(kind) => Some(vec![kind]),
        Value::Array(kinds) => Some(kinds.iter().filter_map(Value::as_str).collect()),
        _ => None,
    }
}

fn is(value: &Value, kind: &str) -> bool {
    match kind {
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        // A type this list does not know.
        _ => true,
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn faults_are_told_in_words() {
        let schema = json!({
            "type": "object", "required": ["path"], "additionalProperties": false,
            "properties": {
                "path": {"type": "string"}, "limit": {"type": "integer"}, "mode": {"enum": ["text", "markdown"]},
                "edits": {"type": "array", "items": {"type": "object", "required": ["old"], "properties": {"old": {"type": "string"}}}},
                "maybe": {"type": ["string", "null"]},
            },
        });
        let check = |arguments: Value, expected: &str| {
            let found = check(&arguments, &schema).err().unwrap_or_default();
            assert_eq!(found, expected, "{arguments}");
        };
        check(json!({"path": "a"}), "");
        check(json!({"path": "a", "limit": 3, "mode": "text", "maybe": null}), "");
        check(json!({"path": "a", "limit": 3.0}), "");
        check(json!({}), "`path` is missing");
        check(json!([]), "the arguments must be object, not an array");
        check(json!("{\"path\""), "the arguments must be object, not a string");
        check(json!({"path": 3}), "`path` must be string, not a number");
        check(json!({"path": "a", "limit": "3"}), "`limit` must be integer, not a string");
        check(json!({"path": "a", "limit": 3.5}), "`limit` must be integer, not a number");
        check(json!({"path": "a", "mode": "html"}), "`mode` must be one of \"text\", \"markdown\"");
        check(json!({"path": "a", "file": 1}), "`file` is not an argument of this tool");
        check(json!({"path": "a", "edits": [{"old": "x"}, {}]}), "`edits[1].old` is missing");
        check(json!({"path": "a", "maybe": 1}), "`maybe` must be string or null, not a number");
    }

    #[test]
    fn no_schema_is_too_strange() {
        for schema in [json!(true), json!({}), json!({"type": 3}), json!({"type": "object", "properties": []})] {
            assert_eq!(check(&json!({"a": 1}), &schema), Ok(()), "{schema}");
        }
        let mut deep = json!({"type": "object"});
        let mut value = json!({});
        for _ in 0..100 {
            deep = json!({"type": "object", "properties": {"a": deep}});
            value = json!({"a": value});
        }
        assert_eq!(check(&value, &deep), Ok(()));
    }
}
