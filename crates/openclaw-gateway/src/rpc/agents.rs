//! What there is to talk with: agents, models, commands; and how busy the gateway is.

use openclaw_agent::provider::{
    ModelRef, Thinking,
    catalog::{Catalog, KeySource, Listed},
};
use openclaw_protocol::{
    ErrorShape, Protocol, Scope,
    method::agent::{
        AgentIdentity, AgentIdentityGet, AgentModel, AgentSummary, AgentSummaryIdentity, AgentsList, AgentsListing,
        CommandArg, CommandChoice, CommandEntry, CommandsList, CommandsListing, DiagnosticsLanes, KeyOrigin, LaneEntry,
        LanesReport, LevelEntry, ModelChoice, ModelsAuth, ModelsAuthStatus, ModelsList, ModelsListing, ProviderAuth,
        ProviderCapability, RestartCounts, RestartPreflight, RestartReport,
    },
};
use serde_json::json;

use super::registry::{Call, Registry};
use crate::{
    clock::now_ms,
    gateway::Gateway,
    runs::{
        command::COMMANDS,
        settings::{Agent, MAIN_KEY},
        unknown_agent,
    },
};

pub fn register(registry: &mut Registry) {
    registry
        .on::<AgentsList>(|call, _| Ok(agents(call)))
        .on::<AgentIdentityGet>(|call, params| {
            let agent = match (params.agent_id, params.session_key) {
                (Some(agent), _) => Some(agent),
                (None, Some(key)) => Some(call.gateway.runs.key(&call.gateway, &key, None)?.agent().to_owned()),
                (None, None) => None,
            };
            identity(&call.gateway, agent.as_deref())
        })
        .on_async::<ModelsList, _>(|call, params| async move {
            call.gateway.runs.models().ready().await;
            let details = params.include_details == Some(true);
            Ok(ModelsListing { models: models(&call.gateway, call.caller.protocol, details) })
        })
        .on_async::<ModelsAuthStatus, _>(|call, _| async move {
            call.gateway.runs.models().ready().await;
            Ok(auth(&call.gateway))
        })
        .on::<CommandsList>(|_, params| Ok(CommandsListing { commands: commands(params.include_args != Some(false)) }))
        .on::<RestartPreflight>(|call, _| Ok(preflight(&call.gateway)))
        .on::<DiagnosticsLanes>(|call, _| Ok(lanes(&call.gateway)));
}

fn agents(call: &Call) -> AgentsListing {
    let gateway = &call.gateway;
    let settings = gateway.runs.settings(gateway);
    let catalog = gateway.runs.models().catalog();
    let v3 = call.caller.protocol == Protocol::V3;
    let admin = call.caller.scopes.grants(Scope::Admin);
    AgentsListing {
        default_id: settings.default_id.clone(),
        ownership: (!v3).then(|| if settings.agents.len() > 1 { "explicit".into() } else { "sole".into() }),
        selection_required: (!v3).then_some(false),
        main_key: MAIN_KEY.into(),
        scope: "per-sender".into(),
        agents: settings.agents.iter().map(|agent| summary(gateway, &catalog, agent, v3, admin)).collect(),
    }
}

fn summary(gateway: &Gateway, catalog: &Catalog, agent: &Agent, v3: bool, admin: bool) -> AgentSummary {
    let identity = &agent.identity;
    let shown = AgentSummaryIdentity {
        name: identity.name.clone(),
        theme: identity.theme.clone(),
        emoji: identity.emoji.clone(),
        avatar: identity.avatar.clone(),
    };
    let brief = AgentSummary {
        id: agent.id.clone(),
        name: agent.name.clone(),
        identity: (shown != AgentSummaryIdentity::default()).then_some(shown),
        ..AgentSummary::default()
    };
    if v3 {
        return brief;
    }
    let model = catalog.agent_model(&agent.id);
    let levels = model.as_ref().map_or(&[Thinking::Off][..], |model| catalog.thinking_levels(model));
    let thinking = model.as_ref().map_or(Thinking::Off, |model| catalog.thinking(&agent.id, model));
    let fallbacks = catalog.for_agent(&agent.id).unwrap_or_default();
    let fallbacks = fallbacks.iter().skip(1).map(|candidate| candidate.model.reference.to_string()).collect();
    let _ = gateway;
    AgentSummary {
        kind: Some("agent".into()),
        workspace: admin.then(|| agent.workspace.display().to_string()),
        workspace_git: Some(agent.workspace.join(".git").exists()),
        model: model.map(|model| AgentModel { primary: Some(model.to_string()), fallbacks }),
        agent_runtime: Some(json!({
            "id": "auto", "cloudPlacementSupported": false, "devicePlacementSupported": false, "source": "implicit",
        })),
        thinking_levels: Some(levels.iter().map(|level| entry(*level)).collect()),
        thinking_options: Some(levels.iter().map(|level| level.as_str().to_owned()).collect()),
        thinking_default: Some(thinking.as_str().into()),
        default_permission_mode: Some("full".into()),
        ..brief
    }
}

fn entry(level: Thinking) -> LevelEntry {
    LevelEntry { id: level.as_str().into(), label: level.as_str().into() }
}

fn identity(gateway: &Gateway, agent: Option<&str>) -> Result<AgentIdentity, ErrorShape> {
    let settings = gateway.runs.settings(gateway);
    let id = agent.map(str::trim).filter(|id| !id.is_empty()).unwrap_or(&settings.default_id);
    let agent = settings.agent(id).ok_or_else(|| unknown_agent(id))?;
    let (name, source) = match (&agent.identity.name, &agent.name) {
        (Some(name), _) => (name.clone(), "config"),
        (None, Some(name)) => (name.clone(), "agent"),
        // The reference's words when nobody gave a name.
        (None, None) => ("Assistant".to_owned(), "default"),
    };
    let first = name.chars().next().map(|c| c.to_uppercase().to_string());
    let avatar = agent.identity.avatar.clone().or_else(|| agent.identity.emoji.clone()).or(first);
    Ok(AgentIdentity {
        agent_id: agent.id.clone(),
        name,
        name_source: source.into(),
        avatar: avatar.unwrap_or_else(|| "A".into()),
        emoji: agent.identity.emoji.clone(),
    })
}

/// Models as clients list them.
pub fn models(gateway: &Gateway, protocol: Protocol, details: bool) -> Vec<ModelChoice> {
    let catalog = gateway.runs.models().catalog();
    let settings = gateway.runs.settings(gateway);
    let listed = catalog.models();
    listed.iter().map(|listed| choice(&catalog, &settings.default_id, listed, protocol, details)).collect()
}

fn choice(catalog: &Catalog, agent: &str, listed: &Listed, protocol: Protocol, details: bool) -> ModelChoice {
    let model = &listed.model;
    let ModelRef { provider, model: id } = &model.reference;
    let input = || {
        let kinds = [Some("text"), model.images.then_some("image")];
        kinds.into_iter().flatten().map(str::to_owned).collect::<Vec<_>>()
    };
    let brief = ModelChoice {
        id: id.clone(),
        name: model.name.clone(),
        provider: provider.clone(),
        context_window: Some(model.context_window),
        reasoning: model.reasoning,
        ..ModelChoice::default()
    };
    if protocol == Protocol::V3 {
        return ModelChoice { input: Some(input()), ..brief };
    }
    let tags: Vec<String> = [(listed.is_default, "default"), (listed.is_fallback, "fallback")]
        .into_iter()
        .filter_map(|(is, tag)| is.then(|| tag.to_owned()))
        .collect();
    ModelChoice {
        alias: listed.alias.clone(),
        local: details.then_some(listed.local),
        input: (details || model.images).then(input),
        tags: (!tags.is_empty()).then_some(tags),
        thinking_levels: Some(catalog.thinking_levels(&model.reference).iter().map(|level| entry(*level)).collect()),
        thinking_default: Some(catalog.thinking(agent, &model.reference).as_str().into()),
        available: Some(listed.available.is_ok()),
        unavailable_reason: listed.available.is_err().then(|| "missing-auth".into()),
        ..brief
    }
}

fn auth(gateway: &Gateway) -> ModelsAuth {
    let providers = gateway.runs.models().catalog().providers();
    let capability = |provider: &String| ProviderCapability {
        provider: provider.clone(),
        api_key_supported: true,
        quick_api_key_setup: false,
    };
    ModelsAuth {
        ts: now_ms(),
        provider_capabilities: providers.iter().map(|provider| capability(&provider.id)).collect(),
        providers: providers
            .into_iter()
            .map(|provider| ProviderAuth {
                auth_provider: provider.id.clone(),
                display_name: provider.id.clone(),
                status: if provider.available.is_ok() { "static".into() } else { "missing".into() },
                profiles: Vec::new(),
                api_key: key_origin(&provider.key_source),
                provider: provider.id,
            })
            .collect(),
    }
}

fn key_origin(source: &KeySource) -> Option<KeyOrigin> {
    let source = match source {
        KeySource::None => return None,
        source => source.to_string(),
    };
    Some(KeyOrigin { source })
}

/// Slash commands as clients list them.
pub fn commands(args: bool) -> Vec<CommandEntry> {
    let entry = |spec: &crate::runs::command::Spec| {
        let arg = |arg: &crate::runs::command::Arg| CommandArg {
            name: arg.name.into(),
            description: arg.description.into(),
            kind: "string".into(),
            required: arg.required.then_some(true),
            choices: (!arg.choices.is_empty()).then(|| {
                arg.choices.iter().map(|c| CommandChoice { value: (*c).into(), label: (*c).into() }).collect()
            }),
        };
        let names = std::iter::once(spec.name).chain(spec.aliases.iter().copied());
        CommandEntry {
            name: spec.name.into(),
            native_name: spec.name.into(),
            text_aliases: names.map(|name| format!("/{name}")).collect(),
            description: spec.description.into(),
            category: spec.category.into(),
            source: "native".into(),
            scope: "both".into(),
            accepts_args: !spec.args.is_empty(),
            args: (args && !spec.args.is_empty()).then(|| spec.args.iter().map(arg).collect()),
        }
    };
    COMMANDS.iter().map(entry).collect()
}

fn preflight(gateway: &Gateway) -> RestartReport {
    let figures = gateway.runs.figures(gateway);
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let counts = RestartCounts {
        queue_size: count(figures.waiting),
        pending_replies: count(figures.deliveries),
        embedded_runs: count(figures.running),
        total_active: count(figures.running + figures.waiting + figures.deliveries),
        ..RestartCounts::default()
    };
    let mut blockers = Vec::new();
    for (kind, count, what) in [
        ("embedded-run", counts.embedded_runs, "under way"),
        ("queue", counts.queue_size, "waiting"),
        ("pending-reply", counts.pending_replies, "being sent"),
    ] {
        if count > 0 {
            blockers.push(json!({"kind": kind, "count": count, "message": format!("{count} {what}")}));
        }
    }
    let safe = counts.total_active == 0;
    let summary = if safe {
        "safe to restart now".to_owned()
    } else {
        format!(
            "{} runs under way, {} waiting, {} replies being sent; they go on after a restart",
            counts.embedded_runs, counts.queue_size, counts.pending_replies
        )
    };
    RestartReport { safe, counts, blockers, summary }
}

fn lanes(gateway: &Gateway) -> LanesReport {
    let figures = gateway.runs.figures(gateway);
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let main = LaneEntry {
        lane: "main".into(),
        queued_count: count(figures.waiting),
        active_count: count(figures.running),
        max_concurrent: count(figures.max_concurrent),
        draining: gateway.draining.is_cancelled(),
        generation: 0,
        blocked_by: None,
    };
    LanesReport { ts: now_ms(), lanes: vec![main], dynamic: None }
}
