//! JSON5 text to nodes.

use std::{path::PathBuf, sync::Arc};

use jsonc_parser::{ParseOptions, ast, common::Ranged as _};
use serde_json::Number;

use super::node::{Kind, Node, Provenance, Text};

/// Where and why a text does not parse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Syntax {
    pub line: u32,
    pub column: u32,
    pub reason: String,
}

/// A key written twice in one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Duplicate {
    pub key: String,
    pub line: u32,
}

pub(crate) struct Parsed {
    /// `None` for a text without any value.
    pub root: Option<Node>,
    pub duplicates: Vec<Duplicate>,
}

/// What counts as JSON5 for config files and for values given on the command line.
pub(crate) fn options() -> ParseOptions {
    ParseOptions { allow_missing_commas: false, ..ParseOptions::default() }
}

/// Plain JSON only, for `--strict-json`.
pub(crate) fn strict_options() -> ParseOptions {
    ParseOptions {
        allow_comments: false,
        allow_loose_object_property_names: false,
        allow_trailing_commas: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    }
}

pub(crate) fn parse(text: &str, file: &Arc<PathBuf>, options: &ParseOptions) -> Result<Parsed, Syntax> {
    let ast = jsonc_parser::parse_to_ast(text, &Default::default(), options).map_err(|error| Syntax {
        line: u32::try_from(error.line_display()).unwrap_or(u32::MAX),
        column: u32::try_from(error.column_display()).unwrap_or(u32::MAX),
        reason: error.kind().to_string(),
    })?;
    let mut builder = Builder { lines: Lines::new(text), file, duplicates: Vec::new() };
    let root = ast.value.map(|value| builder.node(value)).transpose()?;
    Ok(Parsed { root, duplicates: builder.duplicates })
}

struct Builder<'a> {
    lines: Lines<'a>,
    file: &'a Arc<PathBuf>,
    duplicates: Vec<Duplicate>,
}

impl Builder<'_> {
    fn node(&mut self, value: ast::Value<'_>) -> Result<Node, Syntax> {
        let (line, column) = self.lines.locate(value.start());
        let provenance = Provenance { file: Arc::clone(self.file), line, column };
        let kind = match value {
            ast::Value::NullKeyword(_) => Kind::Null,
            ast::Value::BooleanLit(lit) => Kind::Bool(lit.value),
            ast::Value::StringLit(lit) => Kind::Text(Text::plain(lit.value.into_owned())),
            ast::Value::NumberLit(lit) => Kind::Number(number(lit.value).ok_or_else(|| Syntax {
                line,
                column,
                reason: "Number out of range".to_owned(),
            })?),
            ast::Value::Array(array) => {
                Kind::Array(array.elements.into_iter().map(|item| self.node(item)).collect::<Result<_, _>>()?)
            }
            ast::Value::Object(object) => Kind::Object(self.entries(object)?),
        };
        Ok(Node { kind, provenance })
    }

    fn entries(&mut self, object: ast::Object<'_>) -> Result<Vec<(String, Node)>, Syntax> {
        let mut entries: Vec<(String, Node)> = Vec::with_capacity(object.properties.len());
        // Repeats are rare and objects small, but a hostile file must not cost a square of its size.
        let mut positions = std::collections::HashMap::with_capacity(object.properties.len());
        for property in object.properties {
            let (line, _) = self.lines.locate(property.start());
            let key = property.name.into_string();
            let node = self.node(property.value)?;
            match positions.get(&key) {
                Some(&at) => {
                    let slot: &mut (String, Node) = &mut entries[at];
                    slot.1 = node;
                    self.duplicates.push(Duplicate { key, line });
                }
                None => {
                    positions.insert(key.clone(), entries.len());
                    entries.push((key, node));
                }
            }
        }
        Ok(entries)
    }
}

/// JSON5 number text to a finite number, integers exactly.
pub(crate) fn number(text: &str) -> Option<Number> {
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        let value = u64::from_str_radix(hex, 16).ok()?;
        return if negative { i64::try_from(value).ok().map(|v| Number::from(-v)) } else { Some(Number::from(value)) };
    }
    let signed = if negative { format!("-{digits}") } else { digits.to_owned() };
    if let Ok(value) = signed.parse::<i64>() {
        // `-0` is a float in JSON; keep it one.
        return if value == 0 && negative { Number::from_f64(-0.0) } else { Some(Number::from(value)) };
    }
    if let Ok(value) = signed.parse::<u64>() {
        return Some(Number::from(value));
    }
    // `Infinity` and `NaN` parse here and are refused by `from_f64`; so is 1e400.
    signed.parse::<f64>().ok().and_then(Number::from_f64)
}

/// Byte offsets to lines and columns.
pub(crate) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    pub(crate) fn locate(&self, offset: usize) -> (u32, u32) {
        let line = self.starts.partition_point(|&start| start <= offset).max(1);
        let start = self.starts[line - 1];
        // One very long line must not make every lookup walk it: past 4 KiB columns are counted in bytes.
        let column = if offset - start > 4096 {
            offset - start
        } else {
            self.text.get(start..offset).map_or(offset - start, |before| before.chars().count())
        };
        (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column + 1).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn value(text: &str) -> Result<Value, String> {
        let file = Arc::new(PathBuf::from("x"));
        match parse(text, &file, &options()) {
            Ok(parsed) => Ok(parsed.root.map_or(Value::Null, |node| node.to_value())),
            Err(e) => Err(format!("{}:{} {}", e.line, e.column, e.reason)),
        }
    }

    #[test]
    fn s_063_json5() {
        let text = "// c\n{ /* c */ unquoted: 'single', trailing: [1, 2,], hex: 0x10, plus: +1, half: .5, \"esc\\x41\": 'a\\\nb', }\n";
        let expected =
            json!({"unquoted": "single", "trailing": [1, 2], "hex": 16, "plus": 1, "half": 0.5, "escA": "ab"});
        assert_eq!(value(text), Ok(expected));
    }

    #[test]
    fn refusals_carry_a_place() {
        assert_eq!(value("{\n  a: 1\n  b: 2 }").unwrap_err(), "2:7 Expected comma");
        for bad in ["{", "{a:}", "{a:1}}", "[1,,2]", "{a: NaN}", "{a: 1e400}", "{a: Infinity}", "nope"] {
            assert!(value(bad).is_err(), "{bad}");
        }
        // P-73: depth is refused, not overflowed.
        assert!(value(&"[".repeat(100_000)).is_err());
    }

    #[test]
    fn last_duplicate_wins_and_is_noted() {
        let parsed = parse("{a: 1,\n a: 2}", &Arc::default(), &options()).unwrap();
        assert_eq!(parsed.root.unwrap().to_value(), json!({"a": 2}));
        assert_eq!(parsed.duplicates, [Duplicate { key: "a".to_owned(), line: 2 }]);
    }

    #[test]
    fn places() {
        let parsed = parse("{\n  é: {b: 7} }", &Arc::default(), &options()).unwrap().root.unwrap();
        let at = &parsed.at(&"é.b".parse().unwrap()).unwrap().provenance;
        assert_eq!((at.line, at.column), (2, 10));
    }
}
