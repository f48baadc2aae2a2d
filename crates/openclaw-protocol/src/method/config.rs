//! Reading and changing the gateway's configuration.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Access, NoParams};
use crate::{Scope, method};

method!(ConfigGet, "config.get", Access::Operator(Scope::Read), NoParams => ConfigSnapshot);
method!(ConfigSet, "config.set", Access::Operator(Scope::Admin), ConfigWriteParams => ConfigWritten);
method!(ConfigPatch, "config.patch", Access::Operator(Scope::Admin), ConfigWriteParams => ConfigWritten);
method!(ConfigApply, "config.apply", Access::Operator(Scope::Admin), ConfigWriteParams => ConfigWritten);
method!(ConfigSchema, "config.schema", Access::Operator(Scope::Read), NoParams => ConfigSchemaResult);
method!(
    ConfigSchemaLookup, "config.schema.lookup", Access::Operator(Scope::Read), SchemaLookupParams => SchemaLookupResult
);

/// Result of `config.get`. Every secret in it reads `__OPENCLAW_REDACTED__`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigSnapshot {
    pub path: String,
    pub included_paths: Vec<String>,
    pub include_provenance: Vec<Value>,
    pub exists: bool,
    /// The file's text; `null` when there is no file.
    pub raw: Option<String>,
    pub parsed: Value,
    pub source_config: Value,
    pub resolved: Value,
    pub runtime_config: Value,
    pub config: Value,
    pub valid: bool,
    /// Base hash for writes: SHA-256 of the file's bytes.
    pub hash: String,
    pub issues: Vec<ConfigIssue>,
    pub warnings: Vec<ConfigIssue>,
    pub legacy_issues: Vec<ConfigIssue>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigIssue {
    pub path: String,
    pub message: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigWriteParams {
    /// JSON5 text; for `config.patch` a merge patch.
    pub raw: String,
    #[serde(default)]
    pub base_hash: Option<String>,
    /// Human note kept in the log.
    #[serde(default)]
    pub note: Option<String>,
    #[serde(default)]
    pub replace_paths: Vec<String>,
    /// Ours: names each guarded path the caller means to weaken (auth off, wider bind, any origin…).
    #[serde(default)]
    pub confirm: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigWritten {
    pub ok: bool,
    pub noop: bool,
    pub changed_paths: Vec<String>,
    pub path: String,
    pub config: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// Paths whose change needs a restart to take effect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restart_required: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigSchemaResult {
    pub schema: Value,
    pub ui_hints: Value,
    pub version: String,
    pub generated_at: String,
}

#[derive(Clone, Debug, Deserialize)]
pub struct SchemaLookupParams {
    pub path: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SchemaLookupResult {
    pub path: String,
    pub schema: Value,
    pub reload_kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint_path: Option<String>,
    pub children: Vec<Value>,
}
