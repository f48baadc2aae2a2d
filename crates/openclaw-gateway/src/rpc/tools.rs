//! `tools.*`.

use std::sync::Arc;

use openclaw_agent::tool::Tool;
use openclaw_protocol::{
    ErrorShape, Scope,
    method::tools::{
        CatalogTool, EffectiveGroup, EffectiveTool, ToolFailure, ToolGroup, ToolProfile, ToolsCatalog,
        ToolsCatalogParams, ToolsCatalogReport, ToolsEffective, ToolsEffectiveParams, ToolsEffectiveReport,
        ToolsInvoke, ToolsInvokeParams, ToolsInvoked,
    },
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::registry::{Call, Registry};
use crate::{
    runs::{Authority, Origin},
    sessions::SessionKey,
    tools::invoke::{self, Wanted},
};

/// Groups of the catalogue, and which tools are in which; others are in the last.
const GROUPS: [(&str, &str, &[&str]); 6] = [
    ("fs", "Files", &["read", "write", "edit", "list", "ls"]),
    ("runtime", "Runtime", &["exec"]),
    ("web", "Web", &["web_fetch", "fetch"]),
    ("sessions", "Sessions", &["sessions"]),
    ("messaging", "Messaging", &["message"]),
    ("nodes", "Nodes", &["nodes"]),
];

pub fn register(registry: &mut Registry) {
    registry
        .on_async::<ToolsCatalog, _>(catalog)
        .on_async::<ToolsEffective, _>(effective)
        .on_async::<ToolsInvoke, _>(invoke_one);
}

/// What a connection may have done for it.
fn authority(call: &Call) -> Authority {
    Authority { scopes: call.caller.scopes, owner: call.caller.scopes.grants(Scope::Admin) }
}

fn wanted(call: &Call, session: SessionKey, key: Option<String>) -> Wanted {
    let caller = &call.caller;
    let origin = Origin::Operator {
        connection: caller.number,
        device: caller.device.clone(),
        client: caller.params.client.id.clone(),
    };
    Wanted { session, authority: authority(call), origin, key }
}

async fn catalog(call: Call, params: ToolsCatalogParams) -> Result<ToolsCatalogReport, ErrorShape> {
    let session = call.gateway.runs.key(&call.gateway, "main", params.agent_id.as_deref())?;
    // The catalogue shows what there is, whoever looks.
    let mut asked = wanted(&call, session, None);
    asked.authority = Authority { scopes: openclaw_protocol::ScopeSet::all(), owner: true };
    let (context, model) = invoke::context(&call.gateway, asked)?;
    let tools = invoke::available(&call.gateway, &context, &model).await;
    let profile = |id: &str, label: &str| ToolProfile { id: id.into(), label: label.into() };
    let (plugins, core): (Vec<_>, Vec<_>) = tools.iter().partition(|tool| invoke::is_plugin(&tool.spec().name));
    let in_group = |tool: &Arc<dyn Tool>, names: &[&str]| names.contains(&tool.spec().name.as_str());
    let mut groups: Vec<ToolGroup> = GROUPS
        .iter()
        .map(|(id, label, names)| {
            let tools =
                core.iter().filter(|tool| in_group(tool, names)).map(|tool| listed(tool, "core", None)).collect();
            ToolGroup { id: (*id).into(), label: (*label).into(), source: "core".into(), plugin_id: None, tools }
        })
        .collect();
    let others = core.iter().filter(|tool| !GROUPS.iter().any(|(_, _, names)| in_group(tool, names)));
    let others: Vec<CatalogTool> = others.map(|tool| listed(tool, "core", None)).collect();
    groups.push(ToolGroup {
        id: "automation".into(),
        label: "Automation".into(),
        source: "core".into(),
        plugin_id: None,
        tools: others,
    });
    if params.include_plugins != Some(false) && !plugins.is_empty() {
        let tools = plugins.iter().map(|tool| listed(tool, "plugin", Some("mcp"))).collect();
        groups.push(ToolGroup {
            id: "mcp".into(),
            label: "MCP servers".into(),
            source: "plugin".into(),
            plugin_id: Some("mcp".into()),
            tools,
        });
    }
    groups.retain(|group| !group.tools.is_empty());
    Ok(ToolsCatalogReport {
        agent_id: context.agent.clone(),
        profiles: vec![
            profile("minimal", "Minimal"),
            profile("coding", "Coding"),
            profile("messaging", "Messaging"),
            profile("full", "Full"),
        ],
        groups,
    })
}

fn listed(tool: &Arc<dyn Tool>, source: &str, plugin: Option<&str>) -> CatalogTool {
    let spec = tool.spec();
    let profiles: &[&str] = match spec.name.as_str() {
        "message" | "sessions" => &["coding", "messaging"],
        "gateway" | "nodes" => &[],
        _ if plugin.is_some() => &[],
        _ => &["coding"],
    };
    CatalogTool {
        id: spec.name.clone(),
        label: spec.name.clone(),
        description: summary(&spec.description),
        source: source.to_owned(),
        plugin_id: plugin.map(str::to_owned),
        default_profiles: profiles.iter().map(|profile| (*profile).to_owned()).collect(),
    }
}

/// The first sentence.
fn summary(description: &str) -> String {
    description.split_once(". ").map_or(description, |(first, _)| first).trim_end_matches('.').to_owned()
}

async fn effective(call: Call, params: ToolsEffectiveParams) -> Result<ToolsEffectiveReport, ErrorShape> {
    let session = call.gateway.runs.key(&call.gateway, &params.session_key, params.agent_id.as_deref())?;
    let (context, model) = invoke::context(&call.gateway, wanted(&call, session, None))?;
    let tools = invoke::available(&call.gateway, &context, &model).await;
    let (plugins, core): (Vec<_>, Vec<_>) = tools.iter().partition(|tool| invoke::is_plugin(&tool.spec().name));
    let group = |id: &str, label: &str, tools: Vec<&Arc<dyn Tool>>| EffectiveGroup {
        id: id.into(),
        label: label.into(),
        source: id.into(),
        tools: tools.into_iter().map(|tool| in_force(tool, id)).collect(),
    };
    let mut groups = vec![group("core", "Built in", core), group("mcp", "MCP servers", plugins)];
    groups.retain(|group| !group.tools.is_empty());
    let config = call.gateway.runtime.load_full();
    let profile = config.config.get("tools.profile").and_then(|node| node.as_str()).unwrap_or("full").to_owned();
    Ok(ToolsEffectiveReport { agent_id: context.agent.clone(), profile, groups })
}

fn in_force(tool: &Arc<dyn Tool>, source: &str) -> EffectiveTool {
    let spec = tool.spec();
    let mcp = spec.name.split_once("__").filter(|_| source == "mcp");
    EffectiveTool {
        id: spec.name.clone(),
        label: spec.name.clone(),
        description: summary(&spec.description),
        raw_description: spec.description.clone(),
        source: source.to_owned(),
        mcp_server: mcp.map(|(server, _)| server.to_owned()),
        mcp_tool_name: mcp.map(|(_, tool)| tool.to_owned()),
    }
}

async fn invoke_one(call: Call, params: ToolsInvokeParams) -> Result<ToolsInvoked, ErrorShape> {
    let name = params.name.trim().to_owned();
    if name.is_empty() {
        return Err(ErrorShape::invalid(
            "invalid tools.invoke params: at /name: must NOT have fewer than 1 characters",
        ));
    }
    let written = params.session_key.as_deref().unwrap_or("main");
    let session = call.gateway.runs.key(&call.gateway, written, params.agent_id.as_deref())?;
    let (context, model) = invoke::context(&call.gateway, wanted(&call, session, params.idempotency_key))?;
    let arguments = Value::Object(params.args.into_iter().collect());
    // The call belongs to the gateway and ends with it; a caller who hangs up has still asked for it.
    let cancel: CancellationToken = call.gateway.cancel.child_token();
    let source = if invoke::is_plugin(&name) { "mcp" } else { "core" };
    let failed = |code: &str, message: String| ToolsInvoked {
        ok: false,
        tool_name: name.clone(),
        output: None,
        source: None,
        error: Some(ToolFailure { code: code.into(), message }),
    };
    Ok(match invoke::run(&call.gateway, &context, &model, &name, arguments, cancel).await {
        None => failed("not_found", format!("Tool not available: {name}")),
        Some(answer) if answer.is_error => failed("tool_error", invoke::text(&answer)),
        Some(answer) => ToolsInvoked {
            ok: true,
            tool_name: name.clone(),
            output: Some(invoke::output(&answer)),
            source: Some(source.into()),
            error: None,
        },
    })
}
