//! Secrets that config names instead of holding: `{source, provider, id}` (config.md section 5).
//!
//! A reference that cannot be read is an error that names the config path. It is never read as "no secret".

mod exec;
mod file;
pub mod store;

use openclaw_protocol::Secret;

use crate::{
    document::{Document, Kind, Node, Provenance},
    env::Env,
    path::ConfigPath,
    paths::Paths,
};

/// Where a reference points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Env,
    File,
    Exec,
    Store,
}

impl Source {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Env => "env",
            Self::File => "file",
            Self::Exec => "exec",
            Self::Store => "store",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Env, Self::File, Self::Exec, Self::Store].into_iter().find(|source| source.as_str() == text)
    }
}

/// A checked reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretRef {
    pub source: Source,
    /// `None` means `secrets.defaults.<source>`, else `default`.
    pub provider: Option<String>,
    pub id: String,
}

impl SecretRef {
    /// Reads `{source, provider?, id}`; the error is a reason without values.
    pub fn parse(node: &Node) -> Result<Self, &'static str> {
        let entries = node.as_object().ok_or("expected a SecretRef object")?;
        if entries.iter().any(|(key, _)| !matches!(key.as_str(), "source" | "provider" | "id")) {
            return Err("a SecretRef has the keys source, provider and id only");
        }
        let text = |key: &str| node.entry(key).map(|entry| entry.as_str().unwrap_or_default());
        Self::check(text("source"), text("provider"), text("id"))
    }

    fn check(source: Option<&str>, provider: Option<&str>, id: Option<&str>) -> Result<Self, &'static str> {
        let source = source.and_then(Source::parse).ok_or("the source of a SecretRef is env, file, exec or store")?;
        let provider = provider.map(str::to_owned);
        if provider.as_deref().is_some_and(|alias| !is_provider_alias(alias)) {
            return Err("the provider of a SecretRef has the form [a-z][a-z0-9_-]{0,63}");
        }
        let id = id.unwrap_or_default().to_owned();
        let (valid, reason) = match source {
            Source::Env => (is_env_id(&id), "the id of an env SecretRef must be a variable name such as GATEWAY_TOKEN"),
            Source::File => (
                id == "value" || id.starts_with('/'),
                "the id of a file SecretRef must be a JSON pointer such as /gateway/token, or \"value\"",
            ),
            Source::Exec | Source::Store => (
                is_name(&id),
                "the id of an exec or store SecretRef must match [A-Za-z0-9][A-Za-z0-9._:/#-]{0,255} without dot segments",
            ),
        };
        if valid { Ok(Self { source, provider, id }) } else { Err(reason) }
    }
}

/// Whether three texts make a reference, so that redaction may show it.
pub(crate) fn is_reference(source: Option<&str>, provider: Option<&str>, id: Option<&str>) -> bool {
    SecretRef::check(source, provider, id).is_ok()
}

/// `[a-z][a-z0-9_-]{0,63}`
pub(crate) fn is_provider_alias(text: &str) -> bool {
    let rest_ok = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
    text.starts_with(|c: char| c.is_ascii_lowercase()) && rest_ok && text.len() <= 64
}

/// `[A-Z][A-Z0-9_]{0,127}`
fn is_env_id(text: &str) -> bool {
    let rest_ok = text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    text.starts_with(|c: char| c.is_ascii_uppercase()) && rest_ok && text.len() <= 128
}

/// `[A-Za-z0-9][A-Za-z0-9._:/#-]{0,255}` without dot segments.
pub(crate) fn is_name(text: &str) -> bool {
    let rest_ok = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:/#-".contains(&b));
    let segments_ok = text.split('/').all(|segment| segment != "." && segment != "..");
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && rest_ok && segments_ok && text.len() <= 256
}

/// A secret as config gives it.
#[derive(Clone, Debug)]
pub struct SecretInput {
    /// `gateway.auth.token`.
    pub path: String,
    pub kind: SecretKind,
    pub provenance: Provenance,
}

#[derive(Clone, Debug)]
pub enum SecretKind {
    /// The key is there and its text is empty or blank: unset for a client, a fault for a server.
    Blank,
    Plain(Secret),
    /// The text holds `${VAR}` of variables that are unset.
    Unsubstituted(Vec<String>),
    Ref(SecretRef),
    /// Neither text nor a reference; validation says so too.
    Malformed,
}

impl SecretInput {
    /// The secret at a path; `None` if the key is absent or null.
    pub fn read(doc: &Document, path: &str) -> Option<Self> {
        Self::from_node(path, doc.at(&path.parse::<ConfigPath>().ok()?)?)
    }

    /// The secret in a node that lies at `path`.
    pub fn from_node(path: &str, node: &Node) -> Option<Self> {
        let kind = match &node.kind {
            Kind::Null => return None,
            Kind::Text(text) if !text.unresolved.is_empty() => SecretKind::Unsubstituted(text.unresolved.clone()),
            Kind::Text(text) => Secret::from_input(&text.value).map_or(SecretKind::Blank, SecretKind::Plain),
            Kind::Object(_) => SecretRef::parse(node).map_or(SecretKind::Malformed, SecretKind::Ref),
            Kind::Bool(_) | Kind::Number(_) | Kind::Array(_) => SecretKind::Malformed,
        };
        Some(Self { path: path.to_owned(), kind, provenance: node.provenance.clone() })
    }

    pub fn is_blank(&self) -> bool {
        matches!(self.kind, SecretKind::Blank)
    }
}

/// What resolving needs to know.
#[derive(Clone, Copy)]
pub struct SecretContext<'a> {
    pub env: &'a Env,
    pub doc: &'a Document,
    pub paths: &'a Paths,
}

/// A configured secret that cannot be had. Names the config path and never a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path} is configured as a secret reference but is unavailable: {reason}")]
pub struct SecretError {
    pub path: String,
    pub reason: String,
}

/// Reads the secret. `Ok(None)` only for a blank text.
pub fn resolve(input: &SecretInput, context: &SecretContext<'_>) -> Result<Option<Secret>, SecretError> {
    let fault = |reason: String| SecretError { path: input.path.clone(), reason };
    match &input.kind {
        SecretKind::Blank => Ok(None),
        SecretKind::Plain(secret) => Ok(Some(secret.clone())),
        SecretKind::Unsubstituted(names) => Err(fault(format!("the variable {} is unset", names.join(", ")))),
        SecretKind::Malformed => Err(fault("it is neither text nor a SecretRef".to_owned())),
        SecretKind::Ref(reference) => {
            let secret = read(reference, context).map_err(fault)?;
            Secret::from_input(secret.expose())
                .map(Some)
                .ok_or_else(|| fault("its source gives an empty text".to_owned()))
        }
    }
}

fn read(reference: &SecretRef, context: &SecretContext<'_>) -> Result<Secret, String> {
    let SecretRef { source, provider, id } = reference;
    let configured = || {
        let path: ConfigPath = ["secrets", "defaults", source.as_str()].into_iter().map(str::to_owned).collect();
        context.doc.at(&path).and_then(Node::as_str).map(str::to_owned)
    };
    let alias = provider.clone().or_else(configured).unwrap_or_else(|| "default".to_owned());
    let path: ConfigPath = ["secrets", "providers", &alias].into_iter().map(str::to_owned).collect();
    let provider = context.doc.at(&path);
    if let Some(kind) = provider.and_then(|p| p.entry("source")).and_then(Node::as_str)
        && kind != source.as_str()
    {
        return Err(format!(
            "secrets.providers.{alias} is of source {kind}, the reference of source {}",
            source.as_str()
        ));
    }
    let required = || provider.ok_or_else(|| format!("secrets.providers.{alias} is not configured"));
    match source {
        Source::Env => read_env(id, provider, &alias, context),
        Source::Store => store::SecretStore::new(context.paths)
            .get(id)
            .map_err(|e| e.to_string())?
            .ok_or_else(|| format!("the secret store has no {id:?}; add it with `openclaw secrets store set {id}`")),
        Source::File => file::read(id, required()?, context.paths),
        Source::Exec => exec::read(id, &alias, required()?, context),
    }
}

fn read_env(id: &str, provider: Option<&Node>, alias: &str, context: &SecretContext<'_>) -> Result<Secret, String> {
    if let Some(allowed) = provider.and_then(|p| p.entry("allowlist")).and_then(Node::as_array)
        && !allowed.iter().any(|name| name.as_str() == Some(id))
    {
        return Err(format!("secrets.providers.{alias}.allowlist does not have {id}"));
    }
    let found = context.env.get(id).map(str::to_owned).or_else(|| context.doc.env_block(id));
    found.map(Secret::new).ok_or_else(|| format!("the variable {id} is unset"))
}

/// A positive number of a provider.
fn limit(provider: &Node, key: &str, default: u64) -> u64 {
    provider.entry(key).and_then(Node::as_i64).and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0).unwrap_or(default)
}

/// A list of texts of a provider.
fn texts<'a>(provider: &'a Node, key: &str) -> Vec<&'a str> {
    let items = provider.entry(key).and_then(Node::as_array).unwrap_or_default();
    items.iter().filter_map(Node::as_str).collect()
}

#[cfg(test)]
mod tests;
