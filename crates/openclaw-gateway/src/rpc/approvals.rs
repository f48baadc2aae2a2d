//! Approvals and the policy document over RPC. The rules are in [`crate::approvals`]; here they meet the caller.

use std::sync::Arc;

use openclaw_config::exec_approvals::{ApprovalsError, ExecApprovals, Loaded};
use openclaw_protocol::{
    ErrorShape, Protocol, Scope,
    method::{
        Done, Method,
        exec::{
            ApprovalAccepted, ApprovalDetails, ApprovalFound, ApprovalGet, ApprovalHistory, ApprovalHistoryPage,
            ApprovalHistoryParams, ApprovalOutcome, ApprovalPresentation, ApprovalRecord, ApprovalRequestParams,
            ApprovalResolve, ApprovalResolved, ApprovalResolver, ApprovalReviewer, ApprovalSource, ApprovalsSetParams,
            ApprovalsSnapshot, Decision, ExecApprovalGet, ExecApprovalGrantsList, ExecApprovalGrantsRevoke,
            ExecApprovalList, ExecApprovalRequest, ExecApprovalResolve, ExecApprovalWaitDecision, ExecApprovalsGet,
            ExecApprovalsNodeGet, ExecApprovalsNodeSet, ExecApprovalsSet, GrantRevoked, NodeApprovalsSetParams,
            PluginApprovalList, StandingGrants, SystemAgentApprovalList, UnifiedResolveParams,
        },
    },
};
use serde_json::{Value, json};

use super::registry::{Call, Registry, TwoAnswers};
use crate::{
    approvals::{
        self,
        ledger::{Asker, How, Record, Refused},
        node_of, pending,
        prepare::prepare,
        put_to_people, viewer,
    },
    clock::now_ms,
    gateway::Gateway,
    nodes::policy::Lists,
};

/// Entries of `approval.history` when the caller does not say.
const DEFAULT_PAGE: usize = 50;

pub fn register(registry: &mut Registry) {
    registry
        .on_async::<ExecApprovalsGet, _>(|call, _| async move { document(&call, |store| store.load()).await })
        .on_async::<ExecApprovalsSet, _>(|call, params| async move { set(call, params).await })
        .on_async_shared::<ExecApprovalsNodeGet, _>(|call, params| async move {
            // Only the companion app for macOS is asked for more; others might refuse what they do not know.
            let wants_defaults = call.gateway.nodes.is_mac_app(&params.node_id);
            let wanted = if wants_defaults { json!({"includeResolvedDefaults": true}) } else { json!({}) };
            relay(&call, &params.node_id, "system.execApprovals.get", &wanted).await
        })
        .on_async_shared::<ExecApprovalsNodeSet, _>(|call, params| async move {
            let wanted = node_document(&params)?;
            call.gateway.write_limit.charge::<ExecApprovalsNodeSet>(&call)?;
            relay(&call, &params.node_id, "system.execApprovals.set", &wanted).await
        })
        .on_twice::<ExecApprovalRequest, _>(request)
        .on_async::<ExecApprovalWaitDecision, _>(|call, params| async move {
            let gone = || ErrorShape::invalid("approval expired or not found");
            let id = params.id.trim().to_owned();
            if id.is_empty() {
                return Err(ErrorShape::invalid("id is required"));
            }
            let seen = call.gateway.approvals.with(|ledger| {
                ledger.sweep(now_ms());
                ledger.get(&id).is_some_and(|record| record.is_visible_to(&viewer(&call.caller)))
            });
            if !seen {
                return Err(gone());
            }
            outcome(&call.gateway, &id, true)
                .await
                .map_err(|error| if error.retryable.is_some() { error } else { gone() })
        })
        .on::<ExecApprovalList>(|call, _| {
            let list = call.gateway.approvals.with(|ledger| ledger.pending(now_ms(), &viewer(&call.caller)));
            Ok(list.iter().map(pending).collect())
        })
        .on::<ExecApprovalGet>(|call, params| {
            let record = find(call, &params.id)?;
            let shown = presentation(&record);
            Ok(ApprovalDetails {
                id: record.id,
                command_text: shown.command_text,
                command_preview: shown.command_preview,
                allowed_decisions: shown.allowed_decisions,
                host: shown.host,
                node_id: shown.node_id,
                agent_id: shown.agent_id,
                expires_at_ms: record.expires_at_ms,
            })
        })
        .on::<ExecApprovalResolve>(|call, params| {
            let decision = Decision::parse(&params.decision).ok_or_else(|| ErrorShape::invalid("invalid decision"))?;
            decide(call, &params.id, decision, params.reviewer.as_ref()).map_err(Refused::into_error)?;
            Ok(Done::OK)
        })
        .on::<ApprovalGet>(|call, params| {
            let record = find_any(call, &params.id)?;
            Ok(ApprovalFound { approval: unified(&call.gateway, &record) })
        })
        .on::<ApprovalResolve>(resolve_any)
        .on::<ApprovalHistory>(history)
        .on::<ExecApprovalGrantsList>(|_, params| {
            bounded::<ExecApprovalGrantsList>(params.limit, 500)?;
            Ok(StandingGrants::default())
        })
        .on::<ExecApprovalGrantsRevoke>(|_, params| match params.grant_id.as_str() {
            "" => Err(ErrorShape::invalid(format!(
                "invalid {} params: at /grantId: must NOT have fewer than 1 characters",
                ExecApprovalGrantsRevoke::NAME
            ))),
            _ => Ok(GrantRevoked { outcome: "not-found".into() }),
        })
        .on::<PluginApprovalList>(|_, _| Ok(Vec::new()))
        .on::<SystemAgentApprovalList>(|_, _| Ok(Vec::new()));
}

/// Files are read and written: never in a connection's own turn.
async fn document(
    call: &Call,
    work: impl FnOnce(&ExecApprovals) -> Result<Loaded, ApprovalsError> + Send + 'static,
) -> Result<ApprovalsSnapshot, ErrorShape> {
    let gateway = Arc::clone(&call.gateway);
    let done = tokio::task::spawn_blocking(move || work(&ExecApprovals::new(&gateway.paths))).await;
    let done = done.map_err(|_| ErrorShape::unavailable("internal error; see the gateway log"))?;
    let loaded = done.map_err(|error| match error {
        ApprovalsError::File(_) => ErrorShape::unavailable(error.to_string()),
        other => ErrorShape::invalid(other.to_string()),
    })?;
    if let Some(reason) = &loaded.damaged {
        let path = loaded.path.display();
        tracing::warn!("{path} is damaged ({reason}); until it is repaired or replaced, no command is allowed to run");
    }
    Ok(loaded.snapshot())
}

async fn set(call: Call, params: ApprovalsSetParams) -> Result<ApprovalsSnapshot, ErrorShape> {
    call.gateway.write_limit.charge::<ExecApprovalsSet>(&call)?;
    let snapshot = document(&call, move |store| store.replace(params.file, params.base_hash.as_deref())).await?;
    tracing::info!(by = %call.caller.address, hash = snapshot.hash, "exec approvals document replaced");
    Ok(snapshot)
}

fn node_document(params: &NodeApprovalsSetParams) -> Result<Value, ErrorShape> {
    let invalid = |text: &str| ErrorShape::invalid(format!("invalid exec.approvals.node.set params: {text}"));
    let mut wanted = match (&params.file, &params.native, &params.base_hash) {
        (Some(file), None, _) => json!({ "file": file }),
        (None, Some(native), Some(_)) => Value::Object(native.clone()),
        (None, Some(_), None) => return Err(invalid("must have required property 'baseHash'")),
        _ => return Err(invalid("must match exactly one schema in oneOf: file or native")),
    };
    if let Some(hash) = &params.base_hash {
        wanted["baseHash"] = json!(hash);
    }
    Ok(wanted)
}

async fn relay(call: &Call, node_id: &str, command: &str, params: &Value) -> super::registry::Answer {
    let runtime = call.gateway.runtime.load_full();
    let lists = Lists { allow: &runtime.node_allow, deny: &runtime.node_deny };
    call.gateway.nodes.relay(&call.caller, lists, node_id, command, params).await
}

/// `exec.approval.request`.
fn request(
    call: Call,
    params: ApprovalRequestParams,
) -> Result<TwoAnswers<impl Future<Output = Result<ApprovalOutcome, ErrorShape>> + Send + 'static>, ErrorShape> {
    let (gateway, caller) = (call.gateway, call.caller);
    let twice = params.two_phase == Some(true);
    let needs_route = params.require_delivery_route != Some(false) && caller.protocol == Protocol::V4;
    let silent = params.suppress_delivery == Some(true);
    let wish = params.id.clone();
    let prepared = prepare(params, caller.protocol)?;
    let asker = Asker::Client { device: caller.device.clone(), connection: caller.number };
    let fresh = || uuid::Uuid::new_v4().to_string();
    let opened = gateway
        .approvals
        .with(|ledger| ledger.open(now_ms(), wish, fresh, prepared.request, asker, prepared.timeout_ms));
    let record = opened.map_err(Refused::into_error)?;
    let reached = if silent { 0 } else { put_to_people(&gateway, Some(caller.number), &record) };
    tracing::info!(
        id = record.id, node = node_of(&record), by = %caller.address, reviewers = reached,
        "asked for leave to run a command"
    );
    let abandoned = reached == 0 && needs_route;
    if abandoned {
        gateway.approvals.with(|ledger| ledger.give_up(now_ms(), &record.id));
    }
    let accepted = (twice && !abandoned).then(|| ApprovalAccepted {
        status: "accepted".into(),
        id: record.id.clone(),
        delivery_route: (caller.protocol == Protocol::V4)
            .then(|| if reached > 0 { "approval-client" } else { "none" }.to_owned()),
        created_at_ms: record.created_at_ms,
        expires_at_ms: record.expires_at_ms,
    });
    let first = accepted.map(|accepted| super::registry::to_bytes(&accepted)).transpose()?;
    Ok(TwoAnswers { first, then: async move { outcome(&gateway, &record.id, false).await } })
}

/// The end of an approval, as soon as there is one.
async fn outcome(gateway: &Gateway, id: &str, with_reason: bool) -> Result<ApprovalOutcome, ErrorShape> {
    let ended = gateway.approvals.wait(id, &gateway.cancel).await;
    let stopped = || match gateway.cancel.is_cancelled() {
        true => ErrorShape::retry_later("the gateway restarts; ask again then", 1_000),
        false => ErrorShape::invalid("approval expired or not found"),
    };
    let (record, ended) = ended.ok_or_else(stopped)?;
    Ok(ApprovalOutcome {
        id: record.id,
        decision: ended.decision(),
        created_at_ms: record.created_at_ms,
        expires_at_ms: record.expires_at_ms,
        terminal_reason: with_reason.then(|| ended.reason().to_owned()),
    })
}

fn find(call: &Call, id: &str) -> Result<Record, ErrorShape> {
    let seen = viewer(&call.caller);
    let found = call.gateway.approvals.with(|ledger| ledger.find(now_ms(), id, &seen, false).cloned());
    found.map_err(Refused::into_error)
}

/// Any approval by its whole id, ended ones included.
fn find_any(call: &Call, id: &str) -> Result<Record, ErrorShape> {
    let seen = viewer(&call.caller);
    let found = call.gateway.approvals.with(|ledger| {
        ledger.sweep(now_ms());
        ledger.get(id).filter(|record| record.is_visible_to(&seen)).cloned()
    });
    let missing = || ErrorShape::invalid("approval not found").with_details(json!({"reason": "APPROVAL_NOT_FOUND"}));
    found.ok_or_else(missing)
}

/// Decides, and tells everybody who could see it, in that order. False when it had been decided so before. A reviewer is
/// named by callers that pass on what somebody pressed in a chat; only administrators are believed.
fn decide(call: &Call, id: &str, decision: Decision, reviewer: Option<&ApprovalReviewer>) -> Result<bool, Refused> {
    let (gateway, caller) = (&call.gateway, &call.caller);
    let client = &caller.params.client;
    let reviewer = reviewer.filter(|_| caller.scopes.grants(Scope::Admin));
    let by = match reviewer {
        Some(reviewer) => format!("{}:{}", reviewer.channel, reviewer.sender_id),
        None => client.display_name.clone().unwrap_or_else(|| client.id.clone()),
    };
    let resolver = match &caller.device {
        Some(device) => ApprovalResolver { kind: "device".into(), id: Some(device.to_string()) },
        None => ApprovalResolver { kind: "runtime".into(), id: Some(client.id.clone()) },
    };
    approvals::decide(gateway, &viewer(caller), id, decision, &by, resolver)
}

/// `approval.resolve`: the whole id, whatever kind it is of.
fn resolve_any(call: &Call, params: UnifiedResolveParams) -> Result<ApprovalResolved, ErrorShape> {
    let record = find_any(call, &params.id)?;
    let mut applied = false;
    if record.ended().is_none() {
        if params.kind != "exec" {
            return Err(ErrorShape::invalid("this approval is of the kind \"exec\""));
        }
        let decision = Decision::parse(&params.decision).ok_or_else(|| ErrorShape::invalid("invalid decision"))?;
        match decide(call, &record.id, decision, None) {
            Ok(first) => applied = first,
            // Somebody else was faster: the answer says what was decided.
            Err(Refused::AlreadyResolved) => {}
            Err(error) => return Err(error.into_error()),
        }
    }
    let record = find_any(call, &params.id)?;
    Ok(ApprovalResolved { applied, approval: unified(&call.gateway, &record) })
}

/// `approval.history`: a page of what ended, from memory.
fn history(call: &Call, params: ApprovalHistoryParams) -> Result<ApprovalHistoryPage, ErrorShape> {
    let limit = bounded::<ApprovalHistory>(params.limit, 100)?.unwrap_or(DEFAULT_PAGE);
    let after = params.cursor.as_deref().map(|cursor| {
        let (at_ms, id) = cursor.split_once(':')?;
        Some((at_ms.parse().ok()?, id))
    });
    let invalid = || ErrorShape::invalid("invalid approval.history cursor");
    let after = after.map(|cursor| cursor.ok_or_else(invalid)).transpose()?;
    match params.kind.as_deref() {
        None | Some("exec") => {}
        Some("plugin" | "system-agent") => return Ok(ApprovalHistoryPage { items: Vec::new(), next_cursor: None }),
        Some(_) => return Err(ErrorShape::invalid("invalid approval.history params")),
    }
    let seen = viewer(&call.caller);
    let mut found = call.gateway.approvals.with(|ledger| ledger.ended(now_ms(), &seen, after));
    let more = found.len() > limit;
    found.truncate(limit);
    let last = found.last().filter(|_| more);
    let next_cursor = last.and_then(|record| Some(format!("{}:{}", record.ended()?.at_ms, record.id)));
    let items = found.iter().map(|record| unified(&call.gateway, record)).collect();
    Ok(ApprovalHistoryPage { items, next_cursor })
}

/// A limit between 1 and `most`.
fn bounded<M: Method>(limit: Option<u64>, most: usize) -> Result<Option<usize>, ErrorShape> {
    let limit = limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let problem = match limit {
        Some(0) => "must be >= 1".to_owned(),
        Some(limit) if limit > most => format!("must be <= {most}"),
        _ => return Ok(limit),
    };
    Err(ErrorShape::invalid(format!("invalid {} params: at /limit: {problem}", M::NAME)))
}

fn presentation(record: &Record) -> ApprovalPresentation {
    let request = &record.request;
    let preview = request.system_run_plan.as_ref().and_then(|plan| plan.command_preview.as_deref());
    let preview = preview.and_then(|text| crate::approvals::display::shown(text).ok());
    ApprovalPresentation {
        kind: "exec".into(),
        command_text: request.command.clone(),
        command_preview: preview.filter(|text| *text != request.command),
        warning_text: request.warning_text.clone(),
        host: request.host.clone(),
        node_id: request.node_id.clone(),
        agent_id: request.agent_id.clone(),
        allowed_decisions: request.allowed_decisions.clone(),
    }
}

fn unified(gateway: &Gateway, record: &Record) -> ApprovalRecord {
    let base = gateway.runtime.load().base_path().to_owned();
    let mut shown = ApprovalRecord {
        id: record.id.clone(),
        url_path: format!("{base}/approve/{}", record.id),
        created_at_ms: record.created_at_ms,
        expires_at_ms: record.expires_at_ms,
        presentation: presentation(record),
        status: "pending".into(),
        decision: None,
        reason: None,
        resolved_at_ms: None,
        source: None,
        resolver: None,
    };
    let Some(ended) = record.ended() else { return shown };
    let (status, decision, resolver) = match &ended.how {
        How::Decided { decision, resolver, .. } => {
            (if decision.allows() { "allowed" } else { "denied" }, Some(*decision), Some(resolver.clone()))
        }
        How::NoRoute => ("denied", Some(Decision::Deny), None),
        How::Aborted => ("cancelled", None, None),
        How::TimedOut => ("expired", None, None),
    };
    let (agent_id, session_key) = (record.request.agent_id.clone(), record.request.session_key.clone());
    shown.status = status.into();
    shown.decision = decision;
    shown.reason = Some(ended.reason().into());
    shown.resolved_at_ms = Some(ended.at_ms);
    shown.source = Some(ApprovalSource { agent_id, session_key });
    shown.resolver = resolver;
    shown
}
