//! `$include`: other files as parts of this one (config.md section 6).
//!
//! A string puts the file in the place of the object, an array merges several files in order, and the other keys of
//! the object override. Merging follows the release: objects merge, arrays join, other values replace.

use std::{
    collections::HashMap,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    LoadError,
    node::{Kind, Node, Provenance},
    parse::{self, Duplicate},
};
use crate::files;

/// Deepest chain of includes.
const MAX_DEPTH: usize = 10;
/// Most files one config may load.
const MAX_FILES: usize = 256;
/// Largest config or included file: 2 MB.
pub(crate) const MAX_FILE_BYTES: u64 = 2_000_000;

pub(crate) struct Includer {
    /// Canonical directories that files may lie in.
    roots: Vec<PathBuf>,
    /// Canonical paths of the files being read, outermost first.
    stack: Vec<PathBuf>,
    /// Every file read, the main one first.
    pub files: Vec<(PathBuf, Vec<u8>)>,
    pub duplicates: Vec<(PathBuf, Duplicate)>,
}

impl Includer {
    pub(crate) fn new(config_file: &Path, extra_roots: &[PathBuf]) -> Self {
        let dir = config_file.parent().unwrap_or(Path::new("/"));
        let roots = std::iter::once(dir).chain(extra_roots.iter().map(PathBuf::as_path));
        Self {
            roots: roots.filter_map(|root| fs::canonicalize(root).ok()).collect(),
            stack: vec![fs::canonicalize(config_file).unwrap_or_else(|_| config_file.to_owned())],
            files: Vec::new(),
            duplicates: Vec::new(),
        }
    }

    /// Replaces every `$include` below `node`, which was read from `base`.
    pub(crate) fn resolve(&mut self, node: Node, base: &Path) -> Result<Node, LoadError> {
        let Node { kind, provenance } = node;
        match kind {
            Kind::Array(items) => {
                let items = items.into_iter().map(|item| self.resolve(item, base)).collect::<Result<_, _>>()?;
                Ok(Node { kind: Kind::Array(items), provenance })
            }
            Kind::Object(mut entries) => {
                let include = entries.iter().position(|(key, _)| key == "$include").map(|at| entries.remove(at).1);
                let mut own = Vec::with_capacity(entries.len());
                for (key, entry) in entries {
                    own.push((key, self.resolve(entry, base)?));
                }
                match include {
                    None => Ok(Node { kind: Kind::Object(own), provenance }),
                    Some(include) => self.include(include, own, provenance, base),
                }
            }
            kind => Ok(Node { kind, provenance }),
        }
    }

    fn include(
        &mut self,
        include: Node,
        own: Vec<(String, Node)>,
        place: Provenance,
        base: &Path,
    ) -> Result<Node, LoadError> {
        let at = include.provenance.clone();
        let fault =
            |reason: &str| LoadError::Include { at: at.clone(), target: String::new(), reason: reason.to_owned() };
        let targets: Vec<&Node> = match &include.kind {
            Kind::Text(_) => vec![&include],
            Kind::Array(items) => items.iter().collect(),
            _ => return Err(fault("$include takes a file name or a list of file names")),
        };
        let mut merged: Option<Node> = None;
        for target in targets {
            let name = target.as_str().ok_or_else(|| fault("$include takes a file name or a list of file names"))?;
            let loaded = self.load(name, &target.provenance, base)?;
            merged = Some(match merged {
                None => loaded,
                Some(earlier) => merge(earlier, loaded),
            });
        }
        let merged = merged.unwrap_or(Node { kind: Kind::Object(Vec::new()), provenance: place.clone() });
        if own.is_empty() {
            return Ok(merged);
        }
        if merged.as_object().is_none() {
            return Err(fault("keys beside $include need the included file to be an object"));
        }
        Ok(merge(merged, Node { kind: Kind::Object(own), provenance: place }))
    }

    fn load(&mut self, name: &str, at: &Provenance, base: &Path) -> Result<Node, LoadError> {
        let fault = |reason: String| LoadError::Include { at: at.clone(), target: name.to_owned(), reason };
        if name.contains('\0') || name.trim().is_empty() {
            return Err(fault("not a file name".to_owned()));
        }
        if self.stack.len() > MAX_DEPTH {
            return Err(fault(format!("more than {MAX_DEPTH} levels of $include")));
        }
        if self.files.len() > MAX_FILES {
            return Err(fault(format!("more than {MAX_FILES} included files")));
        }
        let path = base.parent().unwrap_or(Path::new("/")).join(name);
        let real = fs::canonicalize(&path).map_err(|e| fault(format!("cannot open it: {e}")))?;
        if !self.roots.iter().any(|root| real.starts_with(root)) {
            return Err(fault(
                "it lies outside the config directory; add its directory to OPENCLAW_INCLUDE_ROOTS to allow it"
                    .to_owned(),
            ));
        }
        if let Some(start) = self.stack.iter().position(|open| *open == real) {
            let chain: Vec<_> = self.stack[start..].iter().chain([&real]).map(|p| p.display().to_string()).collect();
            return Err(fault(format!("circular include: {}", chain.join(" -> "))));
        }
        files::check_ownership(&real).map_err(|e| fault(e.to_string()))?;
        let file = File::open(&real).map_err(|e| fault(format!("cannot open it: {e}")))?;
        if !file.metadata().is_ok_and(|meta| meta.is_file()) {
            return Err(fault("it is not a regular file".to_owned()));
        }
        let bytes = files::read_limited(file, &real, MAX_FILE_BYTES).map_err(|e| fault(e.to_string()))?;
        let text = std::str::from_utf8(&bytes).map_err(|_| fault("it is not UTF-8 text".to_owned()))?;
        let shared = Arc::new(real.clone());
        let parsed = parse::parse(text, &shared, &parse::options()).map_err(|s| LoadError::Syntax {
            file: real.clone(),
            line: s.line,
            column: s.column,
            reason: s.reason,
        })?;
        self.duplicates.extend(parsed.duplicates.into_iter().map(|d| (real.clone(), d)));
        let root = parsed.root.ok_or_else(|| fault("it is empty".to_owned()))?;
        self.files.push((real.clone(), bytes));
        self.stack.push(real.clone());
        let resolved = self.resolve(root, &real);
        self.stack.pop();
        resolved
    }
}

/// `over` on top of `under`.
fn merge(under: Node, over: Node) -> Node {
    let kind = match (under.kind, over.kind) {
        (Kind::Object(mut entries), Kind::Object(overriding)) => {
            let places: HashMap<String, usize> =
                entries.iter().enumerate().map(|(at, (key, _))| (key.clone(), at)).collect();
            for (key, node) in overriding {
                match places.get(&key) {
                    Some(&at) => {
                        let empty = Node { kind: Kind::Null, provenance: node.provenance.clone() };
                        let earlier = std::mem::replace(&mut entries[at].1, empty);
                        entries[at].1 = merge(earlier, node);
                    }
                    None => entries.push((key, node)),
                }
            }
            Kind::Object(entries)
        }
        (Kind::Array(mut items), Kind::Array(more)) => {
            items.extend(more);
            Kind::Array(items)
        }
        (_, kind) => kind,
    };
    Node { kind, provenance: over.provenance }
}
