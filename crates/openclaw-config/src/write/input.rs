//! Values and patches as people and peers give them.

use serde_json::Value;

use crate::{
    document::{parse, strip_bom},
    path::{ConfigPath, is_reserved_key},
    schema::{self, Found},
};

/// Why a given text is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    #[error(
        "expected JSON, found a fault at line {line}, column {column}: {reason}. Quote texts as '\"text\"', or leave --strict-json out to have the value taken as text"
    )]
    StrictJson { line: u32, column: u32, reason: String },
    #[error("JSON5 parse failed at line {line}, column {column}: {reason}")]
    Syntax { line: u32, column: u32, reason: String },
    #[error("a config patch is an object")]
    NotAnObject,
    #[error("the key {key:?} is written twice in one object (line {line})")]
    Duplicate { key: String, line: u32 },
    #[error("the key {key:?} at {path} is reserved")]
    Reserved { key: String, path: String },
    #[error("{key:?} is a path and not a key; nest the objects instead")]
    DottedKey { key: String },
    #[error("the text is larger than {limit} bytes")]
    TooLarge { limit: usize },
}

/// Largest patch or replacement text: 8 MiB (config.md section 2).
const MAX_BYTES: usize = 8 << 20;

/// The value of `config set`: JSON5, else the text itself; with `strict`, JSON or an error.
pub fn parse_set_value(text: &str, strict: bool) -> Result<Value, InputError> {
    let options = if strict { parse::strict_options() } else { parse::options() };
    match parse::parse(text, &Default::default(), &options) {
        Ok(parsed) => match (parsed.root, parsed.duplicates.into_iter().next()) {
            (_, Some(duplicate)) => Err(InputError::Duplicate { key: duplicate.key, line: duplicate.line }),
            (Some(root), None) => {
                let value = root.to_value();
                refuse_reserved(&value, &mut ConfigPath::default()).map(|()| value)
            }
            (None, None) if strict => {
                Err(InputError::StrictJson { line: 1, column: 1, reason: "there is no value".to_owned() })
            }
            // Blank, or something that reads as a comment, such as `//host/share`.
            (None, None) => Ok(Value::String(text.to_owned())),
        },
        Err(s) if strict => Err(InputError::StrictJson { line: s.line, column: s.column, reason: s.reason }),
        Err(_) => Ok(Value::String(text.to_owned())),
    }
}

/// A merge patch (RFC 7396) as JSON5 text. Refused: anything but an object, keys written twice, reserved keys, and
/// dotted keys that would look like a setting and change nothing.
pub fn parse_patch(text: &str) -> Result<Value, InputError> {
    let value = checked(text)?;
    let Some(entries) = value.as_object() else { return Err(InputError::NotAnObject) };
    let dotted = |key: &&String| {
        key.contains('.')
            && key.parse::<ConfigPath>().is_ok_and(|path| matches!(schema::find(&path), Found::Known { .. }))
    };
    match entries.keys().find(dotted) {
        Some(key) => Err(InputError::DottedKey { key: key.clone() }),
        None => Ok(value),
    }
}

/// Checks a whole config text as [`parse_patch`] checks a patch.
pub(super) fn check_text(text: &str) -> Result<(), InputError> {
    checked(text).map(|_| ())
}

fn checked(text: &str) -> Result<Value, InputError> {
    if text.len() > MAX_BYTES {
        return Err(InputError::TooLarge { limit: MAX_BYTES });
    }
    let parsed = parse::parse(strip_bom(text), &Default::default(), &parse::options())
        .map_err(|s| InputError::Syntax { line: s.line, column: s.column, reason: s.reason })?;
    if let Some(duplicate) = parsed.duplicates.into_iter().next() {
        return Err(InputError::Duplicate { key: duplicate.key, line: duplicate.line });
    }
    let value = parsed.root.ok_or(InputError::NotAnObject)?.to_value();
    refuse_reserved(&value, &mut ConfigPath::default())?;
    Ok(value)
}

fn refuse_reserved(value: &Value, path: &mut ConfigPath) -> Result<(), InputError> {
    match value {
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                path.push(&i.to_string());
                refuse_reserved(item, path)?;
                path.pop();
            }
        }
        Value::Object(entries) => {
            for (key, entry) in entries {
                if is_reserved_key(key) {
                    return Err(InputError::Reserved { key: key.clone(), path: path.to_string() });
                }
                path.push(key);
                refuse_reserved(entry, path)?;
                path.pop();
            }
        }
        _ => {}
    }
    Ok(())
}
