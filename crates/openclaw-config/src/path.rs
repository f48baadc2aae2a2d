//! Config paths: `gateway.auth.token`, `agents.list[0].name`, `plugins.entries["my.plugin"].enabled`.

use std::{fmt, str::FromStr};

/// A parsed path. Every step is text; on an array a step of digits is an index, on an object it is a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConfigPath(Vec<String>);

/// Why a text is no path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("the config path is empty")]
    Empty,
    #[error("config path {path:?}: {reason} at character {at}")]
    Syntax { path: String, reason: &'static str, at: usize },
    #[error("config path {path:?}: the key {key:?} is reserved")]
    Reserved { path: String, key: String },
}

/// Longest accepted path text: 1024 bytes, as `config.schema.lookup` has it.
const PATH_BYTES: usize = 1024;

/// Keys that mean something to JavaScript readers of the same file, so they are never written.
pub(crate) fn is_reserved_key(key: &str) -> bool {
    matches!(key, "__proto__" | "constructor" | "prototype")
}

impl ConfigPath {
    /// The whole document.
    pub const ROOT: Self = Self(Vec::new());

    pub fn steps(&self) -> &[String] {
        &self.0
    }

    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    pub fn child(&self, step: impl Into<String>) -> Self {
        let mut steps = self.0.clone();
        steps.push(step.into());
        Self(steps)
    }

    pub fn parent(&self) -> Option<Self> {
        Some(Self(self.0.split_last()?.1.to_vec()))
    }

    pub fn starts_with(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }

    pub(crate) fn push(&mut self, step: &str) {
        self.0.push(step.to_owned());
    }

    pub(crate) fn pop(&mut self) {
        self.0.pop();
    }
}

impl FromIterator<String> for ConfigPath {
    fn from_iter<I: IntoIterator<Item = String>>(steps: I) -> Self {
        Self(steps.into_iter().collect())
    }
}

impl FromStr for ConfigPath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(PathError::Empty);
        }
        let shown = || text.chars().take(80).collect::<String>();
        let syntax = |at: usize, reason| PathError::Syntax { path: shown(), reason, at: at + 1 };
        if text.len() > PATH_BYTES {
            return Err(syntax(PATH_BYTES, "longer than 1024 bytes"));
        }
        let mut steps = Vec::new();
        let mut at = 0;
        while at < text.len() {
            let rest = &text[at..];
            if let Some(inner) = rest.strip_prefix('[') {
                let (step, used) = bracket(inner).map_err(|(offset, reason)| syntax(at + 1 + offset, reason))?;
                steps.push(step);
                at += 1 + used;
            } else {
                let rest = if steps.is_empty() {
                    rest
                } else {
                    at += 1;
                    rest.strip_prefix('.').ok_or_else(|| syntax(at - 1, "expected '.' or '['"))?
                };
                let end = rest.find(['.', '[']).unwrap_or(rest.len());
                if end == 0 {
                    return Err(syntax(at, "empty key"));
                }
                steps.push(rest[..end].to_owned());
                at += end;
            }
        }
        match steps.iter().find(|step| is_reserved_key(step)) {
            Some(key) => Err(PathError::Reserved { path: shown(), key: key.clone() }),
            None => Ok(Self(steps)),
        }
    }
}

/// Reads what follows `[`: an index or a quoted key, and the closing `]`. Gives the step and the bytes used.
fn bracket(inner: &str) -> Result<(String, usize), (usize, &'static str)> {
    let quote = inner.chars().next().filter(|c| matches!(c, '"' | '\''));
    let Some(quote) = quote else {
        let end = inner.find(']').ok_or((inner.len(), "missing ']'"))?;
        let digits = &inner[..end];
        let valid = !digits.is_empty() && digits.len() <= 9 && digits.bytes().all(|b| b.is_ascii_digit());
        return if valid { Ok((digits.to_owned(), end + 1)) } else { Err((0, "expected a number or a quoted key")) };
    };
    let mut step = String::new();
    let mut chars = inner.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some((_, escaped)) => step.push(escaped),
                None => break,
            },
            c if c == quote => {
                return match inner[at + 1..].strip_prefix(']') {
                    Some(_) if step.is_empty() => Err((at, "empty key")),
                    Some(_) => Ok((step, at + 2)),
                    None => Err((at + 1, "missing ']'")),
                };
            }
            c => step.push(c),
        }
    }
    Err((inner.len(), "missing closing quote"))
}

impl fmt::Display for ConfigPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("<root>");
        }
        for (i, step) in self.0.iter().enumerate() {
            let plain =
                step.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '$' | '/' | '@' | ':' | '*'));
            match (plain && !step.is_empty(), i) {
                (true, 0) => f.write_str(step)?,
                (true, _) => write!(f, ".{step}")?,
                (false, _) => write!(f, "[\"{}\"]", step.replace('\\', "\\\\").replace('"', "\\\""))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammar() {
        let check = |text: &str, expected: Option<&[&str]>| {
            let steps = text.parse::<ConfigPath>().ok().map(|path| path.0);
            assert_eq!(steps, expected.map(|e| e.iter().map(|&s| s.to_owned()).collect::<Vec<_>>()), "{text:?}");
        };
        check("gateway.port", Some(&["gateway", "port"]));
        check(" gateway ", Some(&["gateway"]));
        check("a.list[0].b", Some(&["a", "list", "0", "b"]));
        check("a.0.b", Some(&["a", "0", "b"]));
        check(r#"plugins.entries["my.plugin"].x"#, Some(&["plugins", "entries", "my.plugin", "x"]));
        check("a['b c']", Some(&["a", "b c"]));
        check(r#"["a\"b"]"#, Some(&["a\"b"]));
        check("models.providers.x/y", Some(&["models", "providers", "x/y"]));
        for bad in ["", ".", "a.", ".a", "a..b", "a[", "a[x]", "a[-1]", "a[]", "a['b'", "a['b'x]", "a[0]b", "a['']"] {
            check(bad, None);
        }
        for reserved in ["__proto__.x", "a.constructor", "a[\"prototype\"]"] {
            check(reserved, None);
        }
        check(&"x".repeat(1025), None);
    }

    #[test]
    fn shown_paths_parse_back() {
        for text in ["a.b.0", r#"a["b.c"].d"#, r#"a["x\"y"]"#, "a.x-y_z"] {
            let path: ConfigPath = text.parse().unwrap();
            assert_eq!(path.to_string(), text);
        }
        let odd: ConfigPath = ["a\\b".to_owned(), String::from("c d")].into_iter().collect();
        assert_eq!(odd.to_string().parse(), Ok(odd));
    }
}
