//! Checks a document against the tree: type faults are errors, unknown keys are warnings.

use serde_json::json;

use super::{Key, Kind, sections};
use crate::{
    document::{Document, Kind as Value, Node},
    path::ConfigPath,
    secret_ref,
};

/// One fault or doubt. The message never holds a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// `gateway.port`.
    pub path: String,
    pub message: String,
    /// File name and line from 1; `None` when the key is missing altogether.
    pub place: Option<(String, u32)>,
    /// The key that was probably meant.
    pub suggestion: Option<String>,
}

impl Issue {
    /// Line in its file, from 1.
    pub fn line(&self) -> Option<u32> {
        self.place.as_ref().map(|(_, line)| *line)
    }

    /// `openclaw.json:4 — gateway.port: Invalid input: …`, the line of `config validate`.
    pub fn with_place(&self) -> String {
        let Self { path, message, place, .. } = self;
        match place {
            Some((file, line)) => format!("{file}:{line} — {path}: {message}{}", self.hint()),
            None => format!("{path}: {message}{}", self.hint()),
        }
    }

    /// For `--json` and the RPC.
    pub fn to_json(&self) -> serde_json::Value {
        let mut object = json!({"path": self.path, "message": self.message});
        if let Some((file, line)) = &self.place {
            object["file"] = json!(file);
            object["line"] = json!(line);
        }
        if let Some(suggestion) = &self.suggestion {
            object["suggestion"] = json!(suggestion);
        }
        object
    }

    fn hint(&self) -> String {
        self.suggestion.as_ref().map_or(String::new(), |s| format!(" (did you mean {s}?)"))
    }
}

impl std::fmt::Display for Issue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}{}", self.path, self.message, self.hint())
    }
}

/// What is wrong with a document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validation {
    /// The config is not used.
    pub errors: Vec<Issue>,
    /// The config is used and these parts of it are not.
    pub warnings: Vec<Issue>,
}

impl Validation {
    pub fn is_valid(&self) -> bool {
        self.errors.is_empty()
    }
}

/// Checks the effective config.
pub fn validate(doc: &Document) -> Validation {
    let mut walk = Walk { path: ConfigPath::ROOT, found: Validation::default() };
    walk.object(doc.root(), sections::ROOT, true);
    for (file, line, key) in doc.duplicate_keys() {
        walk.found.warnings.push(Issue {
            path: key.clone(),
            message: "the key is written twice in one object; the last one counts".to_owned(),
            place: Some((file_name(file), *line)),
            suggestion: None,
        });
    }
    cross_checks(doc, &mut walk.found);
    unset_variables(doc, &mut walk.found);
    walk.found
}

/// `${NAME}` of variables that are unset stays in the text, which whoever reads it treats as unset.
fn unset_variables(doc: &Document, found: &mut Validation) {
    doc.root().walk(&mut ConfigPath::default(), &mut |path, node| {
        for name in node.as_text().map(|text| text.unresolved.as_slice()).unwrap_or_default() {
            let message = format!("the environment variable {name} is unset, so this value counts as unset");
            found.warnings.push(issue(&path.to_string(), &message, Some(node)));
        }
    });
}

/// Faults that involve two keys.
fn cross_checks(doc: &Document, found: &mut Validation) {
    let set = |path: &str| doc.get(path).filter(|node| node.as_str().is_some_and(|text| !text.trim().is_empty()));
    if let (Some(tls), true) =
        (doc.get("gateway.tls"), set("gateway.tls.certPath").is_some() != set("gateway.tls.keyPath").is_some())
    {
        found.errors.push(issue("gateway.tls", "certPath and keyPath must be set together", Some(tls)));
    }
    edge_headers(doc, found);
}

/// Header names are keys of a map, so the schema does not see them.
fn edge_headers(doc: &Document, found: &mut Validation) {
    const PATH: &str = "gateway.remote.edgeAuth";
    let headers = doc.get(PATH).and_then(Node::as_object).unwrap_or_default();
    for (index, (name, node)) in headers.iter().enumerate() {
        let twice = headers.iter().take(index).any(|(earlier, _)| earlier.eq_ignore_ascii_case(name));
        let twice = twice.then_some("the same header is there twice, in different case");
        if let Some(problem) = crate::gateway::edge_header_problem(name).or(twice) {
            let path = ConfigPath::default().child("gateway").child("remote").child("edgeAuth").child(name);
            found.errors.push(issue(&path.to_string(), problem, Some(node)));
        }
    }
}

/// Unknown keys that get a suggestion.
const MOST_SUGGESTIONS: usize = 100;

struct Walk {
    path: ConfigPath,
    found: Validation,
}

impl Walk {
    fn value(&mut self, node: &Node, kind: &'static Kind) {
        match (kind, &node.kind) {
            (Kind::Any, _) => {}
            (Kind::Bool, Value::Bool(_)) => {}
            (Kind::Text | Kind::Secret, Value::Text(_)) => {}
            (Kind::Int { min, max }, Value::Number(_)) => match node.as_i64() {
                None => self.error(node, "Invalid input: expected int, received number".to_owned()),
                Some(n) if n > *max => {
                    self.error(node, format!("Too big: expected number to be <={max} (maximum: {max})"));
                }
                Some(n) if n < *min => {
                    self.error(node, format!("Too small: expected number to be >={min} (minimum: {min})"));
                }
                Some(_) => {}
            },
            (Kind::Number { min }, Value::Number(n)) => {
                if n.as_f64().is_some_and(|n| n < *min) {
                    self.error(node, format!("Too small: expected number to be >={min} (minimum: {min})"));
                }
            }
            (Kind::Checked(check), Value::Text(text)) => {
                if let Some(wrong) = check(&text.value) {
                    self.error(node, format!("Invalid input: {wrong}"));
                }
            }
            (Kind::Advised(check), Value::Text(text)) => {
                if let Some(wrong) = check(&text.value) {
                    let issue = issue(&self.path.to_string(), wrong, Some(node));
                    self.found.warnings.push(issue);
                }
            }
            (Kind::Enum(allowed), Value::Text(text)) if allowed.contains(&text.value.as_str()) => {}
            (Kind::Enum(allowed), _) => {
                let allowed: Vec<_> = allowed.iter().map(|word| format!("{word:?}")).collect();
                self.error(node, format!("Invalid input (allowed: {})", allowed.join(", ")));
            }
            (Kind::Secret, Value::Object(_)) => {
                if let Err(reason) = secret_ref::SecretRef::parse(node) {
                    self.error(node, format!("Invalid input: {reason}"));
                }
            }
            (Kind::List(item), Value::Array(items)) => {
                for (i, entry) in items.iter().enumerate() {
                    self.below(&i.to_string(), |walk| walk.value(entry, item));
                }
            }
            (Kind::Map(item), Value::Object(entries)) => {
                for (name, entry) in entries {
                    self.below(name, |walk| walk.value(entry, item));
                }
            }
            (Kind::Object(keys), Value::Object(_)) => self.object(node, keys, true),
            (Kind::Open(keys), Value::Object(_)) => self.object(node, keys, false),
            (Kind::OneOf(kinds), _) => self.one_of(node, kinds),
            _ => {
                let (expected, received) = (expected(kind), node.type_name());
                self.error(node, format!("Invalid input: expected {expected}, received {received}"));
            }
        }
    }

    fn one_of(&mut self, node: &Node, kinds: &'static [Kind]) {
        let mut first = None;
        for kind in kinds {
            let mut attempt = Walk { path: self.path.clone(), found: Validation::default() };
            attempt.value(node, kind);
            if attempt.found.is_valid() {
                self.found.warnings.append(&mut attempt.found.warnings);
                return;
            }
            // An object that is nearly right explains more than "expected boolean".
            if first.is_none() || matches!((kind, &node.kind), (Kind::Object(_) | Kind::Open(_), Value::Object(_))) {
                first = Some(attempt.found);
            }
        }
        if let Some(mut attempt) = first {
            self.found.errors.append(&mut attempt.errors);
            self.found.warnings.append(&mut attempt.warnings);
        }
    }

    fn object(&mut self, node: &Node, keys: &'static [Key], closed: bool) {
        let Some(entries) = node.as_object() else {
            let received = node.type_name();
            return self.error(node, format!("Invalid input: expected object, received {received}"));
        };
        for (name, entry) in entries {
            match keys.iter().find(|key| key.name == name) {
                Some(key) => self.below(name, |walk| walk.value(entry, &key.kind)),
                None => self.unknown(name, entry, keys, closed),
            }
        }
        for key in keys.iter().filter(|key| key.required && node.entry(key.name).is_none()) {
            let path = self.path.child(key.name).to_string();
            let message = format!("Invalid input: expected {}, received undefined", expected(&key.kind));
            self.found.errors.push(issue(&path, &message, Some(node)));
        }
    }

    fn unknown(&mut self, name: &str, entry: &Node, keys: &'static [Key], closed: bool) {
        // Past so many, nobody reads suggestions and a hostile file should not cost time.
        let helpful = self.found.warnings.len() < MOST_SUGGESTIONS;
        let near = if helpful { closest(name, keys, if closed { 3 } else { 6 }) } else { None };
        // Of a loosely known section we cannot say that a key is wrong, only that it looks like a slip.
        if !closed && near.is_none() {
            return;
        }
        let suggestion = near.map(|key| self.path.child(key).to_string()).or_else(|| {
            let (top, _) = self.path.steps().split_first()?;
            elsewhere(name, top, &self.path.child(name))
        });
        let path = self.path.child(name).to_string();
        let mut issue = issue(&path, &format!("Unrecognized key: {name:?}; it is ignored"), Some(entry));
        issue.suggestion = suggestion;
        self.found.warnings.push(issue);
    }

    fn below(&mut self, step: &str, visit: impl FnOnce(&mut Self)) {
        self.path.push(step);
        visit(self);
        self.path.pop();
    }

    fn error(&mut self, node: &Node, message: String) {
        let issue = issue(&self.path.to_string(), &message, Some(node));
        self.found.errors.push(issue);
    }
}

fn issue(path: &str, message: &str, node: Option<&Node>) -> Issue {
    let place = node.map(|node| (file_name(&node.provenance.file), node.provenance.line));
    Issue { path: path.to_owned(), message: message.to_owned(), place, suggestion: None }
}

fn file_name(path: &std::path::Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn expected(kind: &Kind) -> &'static str {
    match kind {
        Kind::Bool => "boolean",
        Kind::Int { .. } | Kind::Number { .. } => "number",
        Kind::Text | Kind::Checked(_) | Kind::Advised(_) | Kind::Enum(_) => "string",
        Kind::Secret => "string or SecretRef",
        Kind::List(_) => "array",
        Kind::Map(_) | Kind::Object(_) | Kind::Open(_) => "object",
        Kind::OneOf(kinds) => kinds.first().map_or("value", expected),
        Kind::Any => "value",
    }
}

/// The known key that `name` was probably meant to be: at most one slip per `letters_per_slip` letters.
fn closest(name: &str, keys: &'static [Key], letters_per_slip: usize) -> Option<&'static str> {
    if name.len() > 64 {
        return None;
    }
    let distance = |key: &Key| strsim::damerau_levenshtein(&name.to_lowercase(), &key.name.to_lowercase());
    let best = keys.iter().filter(|key| !key.name.starts_with('$')).min_by_key(|key| distance(key))?;
    let allowed = (name.chars().count().max(best.name.len()) / letters_per_slip).max(usize::from(letters_per_slip < 4));
    (distance(best) <= allowed).then_some(best.name)
}

/// A known key of the same name in the same section, as when `gateway.token` is meant to be `gateway.auth.token`.
fn elsewhere(name: &str, top: &str, not: &ConfigPath) -> Option<String> {
    fn search(keys: &'static [Key], name: &str, path: &ConfigPath, not: &ConfigPath) -> Option<ConfigPath> {
        let here = keys.iter().find(|key| key.name == name).map(|key| path.child(key.name));
        if let Some(found) = here.filter(|found| found != not) {
            return Some(found);
        }
        keys.iter().find_map(|key| match &key.kind {
            Kind::Object(below) => search(below, name, &path.child(key.name), not),
            _ => None,
        })
    }
    let section = sections::ROOT.iter().find(|key| key.name == top)?;
    let Kind::Object(keys) = &section.kind else { return None };
    search(keys, name, &ConfigPath::ROOT.child(top), not).map(|path| path.to_string())
}
