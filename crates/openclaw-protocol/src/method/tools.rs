//! The agent's tools: which there are, which a conversation has, and running one without a model.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Access;
use crate::{Scope, method};

method!(ToolsCatalog, "tools.catalog", Access::Operator(Scope::Read), ToolsCatalogParams => ToolsCatalogReport);
method!(ToolsEffective, "tools.effective", Access::Operator(Scope::Read), ToolsEffectiveParams => ToolsEffectiveReport);
method!(ToolsInvoke, "tools.invoke", Access::Operator(Scope::Write), ToolsInvokeParams => ToolsInvoked);

/// Parameters of `tools.catalog`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ToolsCatalogParams {
    pub agent_id: Option<String>,
    pub include_plugins: Option<bool>,
}

/// Every tool of an agent, by group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolsCatalogReport {
    pub agent_id: String,
    pub profiles: Vec<ToolProfile>,
    pub groups: Vec<ToolGroup>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolProfile {
    /// `minimal`, `coding`, `messaging`, `full`.
    pub id: String,
    pub label: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolGroup {
    pub id: String,
    pub label: String,
    /// `core`, `plugin`.
    pub source: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin_id: Option<String>,
    pub tools: Vec<CatalogTool>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CatalogTool {
    pub id: String,
    pub label: String,
    pub description: String,
    pub source: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin_id: Option<String>,
    pub default_profiles: Vec<String>,
}

/// Parameters of `tools.effective`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolsEffectiveParams {
    #[serde(default)]
    pub agent_id: Option<String>,
    pub session_key: String,
}

/// The tools that a run of this caller in this conversation would have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolsEffectiveReport {
    pub agent_id: String,
    pub profile: String,
    pub groups: Vec<EffectiveGroup>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EffectiveGroup {
    /// `core`, `mcp`.
    pub id: String,
    pub label: String,
    pub source: String,
    pub tools: Vec<EffectiveTool>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EffectiveTool {
    pub id: String,
    pub label: String,
    pub description: String,
    pub raw_description: String,
    pub source: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcp_server: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcp_tool_name: Option<String>,
}

/// Parameters of `tools.invoke`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolsInvokeParams {
    pub name: String,
    #[serde(default)]
    pub args: BTreeMap<String, Value>,
    #[serde(default)]
    pub session_key: Option<String>,
    #[serde(default)]
    pub agent_id: Option<String>,
    #[serde(default)]
    pub idempotency_key: Option<String>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolsInvoked {
    pub ok: bool,
    pub tool_name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ToolFailure>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolFailure {
    /// `not_found`, `forbidden`, `tool_error`.
    pub code: String,
    pub message: String,
}
