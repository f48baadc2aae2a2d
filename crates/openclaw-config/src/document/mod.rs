//! `openclaw.json`: JSON5 with includes and substitutions, each value with the place it was written.

mod include;
mod node;
pub(crate) mod parse;
mod substitute;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use openclaw_protocol::secret::hex;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

pub use node::{Kind, Node, Provenance, Text};

use crate::{
    env::{self, Env},
    files::{self, FileError},
    path::ConfigPath,
    paths::Paths,
};

/// Why a config cannot be used. The text names file, line and column.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("{0}")]
    File(#[from] FileError),
    #[error("{}: the file is not UTF-8 text", file.display())]
    NotText { file: PathBuf },
    #[error("{}:{line}:{column}: <root>: JSON5 parse failed: {reason}", file.display())]
    Syntax { file: PathBuf, line: u32, column: u32, reason: String },
    #[error("{}:1:1: <root>: JSON5 parse failed: the file is empty; write {{}} for a config without settings, or `openclaw config undo` for the last one", file.display())]
    Empty { file: PathBuf },
    #[error("{at}: <root>: Invalid input: expected object, received {found}")]
    NotObject { at: Provenance, found: &'static str },
    #[error("{at}: $include {target:?}: {reason}")]
    Include { at: Provenance, target: String, reason: String },
}

/// A parsed config. Without a file it is empty, which is a valid config.
#[derive(Clone)]
pub struct Document {
    file: Arc<PathBuf>,
    exists: bool,
    raw: String,
    root: Node,
    source: Value,
    includes: Vec<PathBuf>,
    revision: String,
    duplicates: Vec<(PathBuf, u32, String)>,
}

/// Names the config; what it holds may be secret.
impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document").field("file", &self.file).field("revision", &self.revision).finish_non_exhaustive()
    }
}

impl Document {
    /// Reads the config file with its includes and substitutes variables. A missing file gives an empty document; one
    /// that belongs to somebody else, is not text or does not parse gives an error and never an empty document.
    /// Changes nothing on disk, except that a file of ours open to others is made 0600.
    pub fn load(paths: &Paths, env: &Env) -> Result<Self, LoadError> {
        let raw = read_config(&paths.config_file)?;
        Self::build(&paths.config_file, raw, env)
    }

    /// The document that `text` would be at the place of the config file, for checks before a write.
    pub fn from_text(text: &str, paths: &Paths, env: &Env) -> Result<Self, LoadError> {
        Self::build(&paths.config_file, Some(text.to_owned()), env)
    }

    /// The text that last validated, if one was kept.
    pub fn load_last_good(paths: &Paths, env: &Env) -> Result<Option<Self>, LoadError> {
        let Some(raw) = read_config(&paths.last_known_good())? else { return Ok(None) };
        Self::build(&paths.config_file, Some(raw), env).map(Some)
    }

    /// A document without settings.
    pub fn empty(paths: &Paths) -> Self {
        Self::absent(Arc::new(paths.config_file.clone()))
    }

    fn absent(file: Arc<PathBuf>) -> Self {
        let provenance = Provenance { file: Arc::clone(&file), line: 1, column: 1 };
        Self {
            file,
            exists: false,
            raw: String::new(),
            root: Node { kind: Kind::Object(Vec::new()), provenance },
            source: Value::Object(serde_json::Map::new()),
            includes: Vec::new(),
            revision: sha256_hex(b""),
            duplicates: Vec::new(),
        }
    }

    fn build(file: &Path, raw: Option<String>, env: &Env) -> Result<Self, LoadError> {
        let shared = Arc::new(file.to_owned());
        let Some(raw) = raw else { return Ok(Self::absent(shared)) };
        let parsed = parse::parse(strip_bom(&raw), &shared, &parse::options()).map_err(|s| LoadError::Syntax {
            file: file.to_owned(),
            line: s.line,
            column: s.column,
            reason: s.reason,
        })?;
        let root = parsed.root.ok_or_else(|| LoadError::Empty { file: file.to_owned() })?;
        if root.as_object().is_none() {
            return Err(LoadError::NotObject { at: root.provenance.clone(), found: root.type_name() });
        }
        let source = root.to_value();
        let mut duplicates: Vec<_> = parsed.duplicates.into_iter().map(|d| (file.to_owned(), d.line, d.key)).collect();

        let mut includer = include::Includer::new(file, &include_roots(env));
        let mut root = includer.resolve(root, file)?;
        if root.as_object().is_none() {
            return Err(LoadError::NotObject { at: root.provenance.clone(), found: root.type_name() });
        }
        duplicates.extend(includer.duplicates.into_iter().map(|(file, d)| (file, d.line, d.key)));

        let from_config = config_variables(&root);
        let lookup = |name: &str| {
            env.get(name).map(str::to_owned).or_else(|| {
                // The config's own env block is the last source, and never one for this program's own variables.
                let own = from_config.iter().find(|(key, _)| key == name && !key.starts_with("OPENCLAW_"));
                own.map(|(_, value)| value.trim().to_owned()).filter(|value| !value.is_empty())
            })
        };
        substitute::substitute(&mut root, &lookup);

        let mut hasher = Sha256::new_with_prefix(raw.as_bytes());
        for (_, bytes) in &includer.files {
            hasher.update([0]);
            hasher.update(bytes);
        }
        Ok(Self {
            file: shared,
            exists: true,
            raw,
            root,
            source,
            includes: includer.files.into_iter().map(|(path, _)| path).collect(),
            revision: hex(&hasher.finalize()),
            duplicates,
        })
    }

    /// The main file, whether it exists or not.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Whether there is a config file at all.
    pub fn exists(&self) -> bool {
        self.exists
    }

    /// Included files, in the order they were read. A reload watches these too.
    pub fn includes(&self) -> &[PathBuf] {
        &self.includes
    }

    /// The main file's text, empty without one.
    pub fn raw(&self) -> &str {
        &self.raw
    }

    /// SHA-256 of the main file's bytes in lower-case hex: the `baseHash` of edits.
    pub fn hash(&self) -> String {
        sha256_hex(self.raw.as_bytes())
    }

    /// SHA-256 over the main file and every included one, to notice any change.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// Everything, includes and substitutions made.
    pub fn root(&self) -> &Node {
        &self.root
    }

    /// The value at a dotted path. A path that does not parse is at no value.
    pub fn get(&self, path: &str) -> Option<&Node> {
        self.root.at(&path.parse().ok()?)
    }

    pub fn at(&self, path: &ConfigPath) -> Option<&Node> {
        self.root.at(path)
    }

    /// The effective config as JSON, substituted values included: it may hold secrets, so it is not for showing.
    pub fn resolved(&self) -> Value {
        self.root.to_value()
    }

    /// The effective config with `${VAR}` as written, for showing after redaction.
    pub fn written(&self) -> Value {
        self.root.to_written_value()
    }

    /// The main file alone, `$include` and `${VAR}` as written: what edits work on.
    pub fn source_value(&self) -> &Value {
        &self.source
    }

    /// Keys written twice in one object: file, line, key. The last one counts.
    pub fn duplicate_keys(&self) -> &[(PathBuf, u32, String)] {
        &self.duplicates
    }

    /// A variable of the config's own `env` block, which SecretRefs and `${VAR}` see after the environment.
    pub(crate) fn env_block(&self, name: &str) -> Option<String> {
        let found = config_variables(&self.root).into_iter().find(|(key, _)| key == name)?;
        Some(found.1.trim().to_owned()).filter(|value| !value.is_empty())
    }
}

impl Node {
    /// The JSON type, in the words of the release's messages.
    pub fn type_name(&self) -> &'static str {
        match self.kind {
            Kind::Null => "null",
            Kind::Bool(_) => "boolean",
            Kind::Number(_) => "number",
            Kind::Text(_) => "string",
            Kind::Array(_) => "array",
            Kind::Object(_) => "object",
        }
    }
}

/// Reads a config file: ours or root's, a regular file or a link to one, at most 2 MB of UTF-8.
pub(crate) fn read_config(path: &Path) -> Result<Option<String>, LoadError> {
    files::check_ownership(path)?;
    let failed = |source| FileError::Io { action: "open", path: path.to_owned(), source };
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound && !path.is_symlink() => return Ok(None),
        Err(e) => return Err(failed(e).into()),
    };
    if !meta.is_file() {
        return Err(FileError::WrongKind { path: path.to_owned(), expected: "file" }.into());
    }
    // A loose config of ours is tightened. Where that cannot be done (a read-only mount) reading is still right.
    let _ = files::tighten(path);
    let file = std::fs::File::open(path).map_err(failed)?;
    let bytes = files::read_limited(file, path, include::MAX_FILE_BYTES)?;
    String::from_utf8(bytes).map(Some).map_err(|_| LoadError::NotText { file: path.to_owned() })
}

pub(crate) fn strip_bom(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn include_roots(env: &Env) -> Vec<PathBuf> {
    let text = env.get(env::OPENCLAW_INCLUDE_ROOTS).unwrap_or_default();
    text.split(':').map(str::trim).filter(|root| root.starts_with('/')).map(PathBuf::from).collect()
}

/// String entries of `env.vars`, and of `env` itself as older configs have them.
fn config_variables(root: &Node) -> Vec<(String, String)> {
    let Some(block) = root.entry("env") else { return Vec::new() };
    let vars = block.entry("vars").and_then(Node::as_object).unwrap_or_default();
    let direct = block.as_object().unwrap_or_default();
    vars.iter().chain(direct).filter_map(|(key, node)| Some((key.clone(), node.as_str()?.to_owned()))).collect()
}

#[cfg(test)]
mod tests;
