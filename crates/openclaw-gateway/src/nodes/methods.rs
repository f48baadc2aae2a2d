//! The RPC methods of nodes, for operators and for nodes themselves.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::PoisonError,
};

use openclaw_protocol::{
    DeviceId, ErrorShape, Role, Scope,
    event::{NODE_HOST_STATS, NODE_PRESENCE, VOICEWAKE_CHANGED},
    hello::AuthMethod,
    method::node::{
        Node, NodeApproved, NodeDescribe, NodeDescription, NodeEvent, NodeEventParams, NodeEventResult, NodeHostStats,
        NodeInvoke, NodeInvokeProgress, NodeInvokeResult, NodeList, NodePairApprove, NodePairList, NodePairReject,
        NodePairRemove, NodePairRequest, NodePairRequested, NodePairVerified, NodePairVerify, NodeParams,
        NodePendingAck, NodePendingDrain, NodePendingEnqueue, NodePendingPull, NodePluginToolsAccepted,
        NodePluginToolsUpdate, NodeRejected, NodeRename, NodeRenamed, NodeRunnerInventoryUpdate, NodeSkillsAccepted,
        NodeSkillsUpdate, Nodes, PendingAcked, PendingActions, PendingEnqueueParams, PendingEnqueued, SkillBins,
        SkillsBins, VoicewakeGet, VoicewakeRoutingGet, VoicewakeSet, VoicewakeTriggers,
    },
};

use super::{
    device_removed,
    invoke::pairing_changed,
    live::{LiveNode, event_frame},
    policy::{Lists, effective},
    progress,
    reports::{self, Heard},
    settle,
    surface::{Effects, NodeChange, SurfaceError},
    talk::{self, Wish},
    view::{self, DeviceFacts},
    voicewake,
    work::WorkError,
};
use crate::{
    clock::now_ms,
    gateway::{Gateway, fresh_token},
    pairing::{Approver, RequestId, Seen},
    rpc::{Registry, registry::Call},
};

/// One piece of progress (release 2026.9.6).
const MAX_CHUNK_BYTES: usize = 16_384;
/// Ids in one `node.pending.ack`.
const MAX_ACKS: usize = 256;

pub fn register(registry: &mut Registry) {
    operators(registry);
    nodes(registry);
    registry
        .on::<VoicewakeGet>(|call, _| Ok(VoicewakeTriggers { triggers: triggers(&call.gateway) }))
        .on::<VoicewakeRoutingGet>(|_, _| Ok(voicewake::routing()))
        .on_async::<VoicewakeSet, _>(|call, params| async move { set_triggers(&call.gateway, params).await });
}

fn operators(registry: &mut Registry) {
    registry
        .on::<NodePairList>(|call, _| {
            let gateway = &call.gateway;
            let devices = |state: &_| gateway.nodes.read(|remembered| view::pairings(remembered, state, now_ms()));
            Ok(gateway.pairing.read(devices))
        })
        .on_async::<NodePairApprove, _>(|call, params| async move {
            approve(&call, RequestId::new(params.request_id)).await
        })
        .on_async::<NodePairReject, _>(|call, params| async move {
            let id = RequestId::new(params.request_id);
            let changed = call.gateway.nodes.change(|remembered| match remembered.surfaces.reject(now_ms(), &id) {
                Ok((node, effects)) => Ok((node.to_string(), effects)),
                Err(_) => remembered.legacy.reject(now_ms(), &id),
            });
            let node_id = settle(&call.gateway, changed.await, ErrorShape::from)?;
            Ok(NodeRejected { request_id: id.to_string(), node_id })
        })
        .on_async::<NodePairRemove, _>(|call, params| async move { remove(&call, params.node_id).await })
        .on_async::<NodePairRequest, _>(|call, params| async move {
            let asked = |remembered: &mut super::registry::Remembered| {
                remembered.legacy.request(now_ms(), RequestId::random(), params)
            };
            let changed = call.gateway.nodes.change(asked).await;
            let (request, created) = settle(&call.gateway, changed, |error| ErrorShape::invalid(error.to_string()))?;
            Ok(NodePairRequested { status: "pending".into(), request: view::legacy_request(&request), created })
        })
        .on::<NodePairVerify>(|call, params| {
            Ok(call.gateway.nodes.read(|remembered| {
                let node = remembered.legacy.verify(&params.node_id, &params.token).map(view::legacy_node);
                NodePairVerified { ok: node.is_some(), node }
            }))
        })
        .on_async::<NodeRename, _>(|call, params| async move {
            let node = DeviceId::parse(&params.node_id).ok_or(SurfaceError::UnknownNode)?;
            let renamed =
                |remembered: &mut super::registry::Remembered| remembered.surfaces.rename(&node, &params.display_name);
            let changed = call.gateway.nodes.change(renamed).await;
            let display_name = settle(&call.gateway, changed, ErrorShape::from)?;
            Ok(NodeRenamed { node_id: params.node_id, display_name })
        })
        .on::<NodeList>(|call, _| {
            Ok(Nodes { ts: now_ms(), nodes: list(&call.gateway, call.caller.scopes.grants(Scope::Pairing)) })
        })
        .on::<NodeDescribe>(|call, params| {
            let mut nodes = list(&call.gateway, call.caller.scopes.grants(Scope::Pairing)).into_iter();
            let node = nodes.find(|node| node.node_id == params.node_id).ok_or(SurfaceError::UnknownNode)?;
            Ok(NodeDescription { ts: now_ms(), node })
        })
        .on_async_shared::<NodeInvoke, _>(|call, params| async move {
            let runtime = call.gateway.runtime.load_full();
            let lists = Lists { allow: &runtime.node_allow, deny: &runtime.node_deny };
            let (gateway, caller) = (&call.gateway, &call.caller);
            if params.progress == Some(true) {
                return progress::invoke(gateway, caller, lists, params).await;
            }
            gateway.nodes.invoke(caller, lists, &gateway.approvals, params).await
        })
        .on::<NodePendingEnqueue>(|call, params| enqueue(call, &params));
}

fn nodes(registry: &mut Registry) {
    registry
        .on::<NodeInvokeResult>(|call, params| Ok(call.gateway.nodes.answered(&call.caller, params)))
        .on::<NodeInvokeProgress>(|call, params| {
            if params.chunk.len() > MAX_CHUNK_BYTES {
                return Err(ErrorShape::invalid("progress chunk too large"));
            }
            Ok(call.gateway.nodes.progressed(&call.caller, params))
        })
        .on_async::<NodeEvent, _>(|call, params| {
            // What can be done at once is done in the connection's own turn: events count in their order.
            let done = event(&call, &params);
            async move {
                match done? {
                    Told::Done(result) => Ok(result),
                    Told::Wish(node, wish) => talk::ask(&call.gateway, node, &params.event, wish).await,
                }
            }
        })
        .on::<NodeRunnerInventoryUpdate>(|call, _| {
            let node = this_node(call)?;
            approval_of(&call.gateway, &node)?;
            Ok(NodeParams { node_id: node.id.to_string() })
        })
        .on::<NodeSkillsUpdate>(|call, params| {
            let node = this_node(call)?;
            let skills = reports::replace_skills(&node, params)?;
            Ok(NodeSkillsAccepted { node_id: node.id.to_string(), skills })
        })
        .on::<NodePluginToolsUpdate>(|call, params| {
            let node = this_node(call)?;
            let tools = reports::replace_tools(&node, params)?;
            Ok(NodePluginToolsAccepted { node_id: node.id.to_string(), tools })
        })
        // The gateway has no skills of its own yet that could want a program.
        .on::<SkillsBins>(|_, _| Ok(SkillBins::default()))
        // Commands are never kept for later: they go to a connected node or fail. So nothing is ever pulled.
        .on::<NodePendingPull>(|call, _| {
            Ok(PendingActions { node_id: this_node(call)?.id.to_string(), actions: Vec::new() })
        })
        .on::<NodePendingAck>(|call, params| {
            if !(1..=MAX_ACKS).contains(&params.ids.len()) {
                return Err(ErrorShape::invalid("invalid node.pending.ack params: at /ids: must have 1 to 256 items"));
            }
            let node_id = this_node(call)?.id.to_string();
            Ok(PendingAcked { node_id, acked_ids: Vec::new(), remaining_count: 0 })
        })
        .on::<NodePendingDrain>(|call, params| {
            let node = this_node(call)?;
            let mut work = call.gateway.nodes.work.lock().unwrap_or_else(PoisonError::into_inner);
            let drained = work.drain(now_ms(), &node.id, params.max_items);
            drained.map_err(|error| ErrorShape::invalid(format!("invalid node.pending.drain params: {error}")))
        });
}

async fn approve(call: &Call, id: RequestId) -> Result<NodeApproved, ErrorShape> {
    enum Approved {
        Node(Box<super::surface::Record>),
        Legacy(Box<super::legacy::LegacyNode>),
    }
    let approver = Approver { scopes: call.caller.scopes, owner: call.caller.owner };
    let (token, request_id) = (fresh_token()?, id.to_string());
    let changed = call.gateway.nodes.change(|remembered| match remembered.surfaces.approve(now_ms(), &id, &approver) {
        Ok((record, effects)) => Ok((Approved::Node(Box::new(record)), effects)),
        Err(SurfaceError::UnknownRequest) => remembered
            .legacy
            .approve(now_ms(), &id, &approver, &token)
            .map(|(node, effects)| (Approved::Legacy(Box::new(node)), effects)),
        Err(error) => Err(error),
    });
    let approved = settle(&call.gateway, changed.await, ErrorShape::from)?;
    let by = &call.caller.address;
    let node = match approved {
        Approved::Node(record) => {
            tracing::info!(node = record.node_id.short(), %by, "node commands approved");
            let device = facts(&call.gateway, &record.node_id);
            view::paired(&record, device.as_ref()).ok_or(SurfaceError::UnknownRequest)?
        }
        Approved::Legacy(node) => {
            tracing::info!(node = node.node_id, %by, "node approved");
            let mut node = view::legacy_node(&node);
            node.token = Some(token);
            node
        }
    };
    Ok(NodeApproved { request_id, node })
}

/// Takes the node role from a device; a device without another role is forgotten.
async fn remove(call: &Call, node_id: String) -> Result<NodeParams, ErrorShape> {
    let gateway = &call.gateway;
    let Some(id) = DeviceId::parse(&node_id) else {
        let changed = gateway.nodes.change(|r| Ok(((), r.legacy.remove(now_ms(), &node_id)?))).await;
        settle(gateway, changed, |error: SurfaceError| error.into())?;
        return Ok(NodeParams { node_id });
    };
    let roles = gateway.pairing.read(|state| state.get(&id).map(|device| device.roles.clone())).unwrap_or_default();
    if !roles.contains(&Role::Node) {
        return Err(SurfaceError::UnknownNode.into());
    }
    let mixed = roles.contains(&Role::Operator);
    let own = call.caller.device.as_ref() == Some(&id) && call.caller.method == AuthMethod::DeviceToken;
    if mixed && own && !call.caller.scopes.grants(Scope::Admin) {
        return Err(ErrorShape::missing_scope(Scope::Admin));
    }
    let changed = gateway.pairing.change(|state| match mixed {
        true => state.revoke(now_ms(), &id, Role::Node).map(|(_, effects)| ((), effects)),
        false => state.remove(now_ms(), &id).map(|effects| ((), effects)),
    });
    gateway.settle(changed.await, |error: crate::pairing::PairingError| error.into())?;
    device_removed(gateway, &id).await?;
    tracing::info!(node = id.short(), by = %call.caller.address, "node removed");
    Ok(NodeParams { node_id })
}

/// Every node that is paired or here, by name.
pub(super) fn list(gateway: &Gateway, sees_pending: bool) -> Vec<Node> {
    let runtime = gateway.runtime.load_full();
    let lists = Lists { allow: &runtime.node_allow, deny: &runtime.node_deny };
    let devices: BTreeMap<DeviceId, DeviceFacts> = gateway.pairing.read(|state| {
        let (_, paired) = state.list(now_ms());
        paired.into_iter().filter_map(|device| Some((device.id.clone(), DeviceFacts::of(device)?))).collect()
    });
    let live: BTreeMap<DeviceId, _> =
        gateway.nodes.all_live().into_iter().map(|node| (node.id.clone(), node)).collect();
    let ids: BTreeSet<&DeviceId> = devices.keys().chain(live.keys()).collect();
    let mut nodes: Vec<Node> = gateway.nodes.read(|remembered| {
        let node = |id: &DeviceId| {
            let (device, record) = (devices.get(id), remembered.surfaces.get(id));
            view::node(id.to_string(), device, record, live.get(id).map(AsRef::as_ref), lists, sees_pending)
        };
        ids.into_iter().map(node).collect()
    });
    view::mark_active(&mut nodes);
    nodes.sort_by(|a, b| (&a.display_name, &a.node_id).cmp(&(&b.display_name, &b.node_id)));
    nodes
}

fn facts(gateway: &Gateway, node: &DeviceId) -> Option<DeviceFacts> {
    gateway.pairing.read(|state| state.get(node).and_then(DeviceFacts::of))
}

fn enqueue(call: &Call, params: &PendingEnqueueParams) -> Result<PendingEnqueued, ErrorShape> {
    let gateway = &call.gateway;
    let known = DeviceId::parse(&params.node_id).filter(|id| facts(gateway, id).is_some());
    let id = known.ok_or_else(|| pairing_changed("pending work"))?;
    let mut work = gateway.nodes.work.lock().unwrap_or_else(PoisonError::into_inner);
    let fresh = uuid::Uuid::new_v4().to_string();
    work.enqueue(now_ms(), fresh, &id, params.kind, params.priority, params.expires_in_ms).map_err(
        |error| match error {
            WorkError::Full => ErrorShape::retry_later(format!("node work not queued: {error}"), 60_000),
            other => ErrorShape::invalid(format!("invalid node.pending.enqueue params: {other}")),
        },
    )
}

/// The node that calls. Connections that were replaced have no say any more.
fn this_node(call: &Call) -> Result<std::sync::Arc<LiveNode>, ErrorShape> {
    call.gateway.nodes.live_of(&call.caller).ok_or_else(|| pairing_changed("invocation"))
}

/// Passes once the owner approved something of this node.
fn approval_of(gateway: &Gateway, node: &LiveNode) -> Result<super::surface::Surface, ErrorShape> {
    gateway.nodes.approved(&node.id).ok_or_else(|| {
        let request = gateway.nodes.read(|r| Some(r.surfaces.get(&node.id)?.pending.as_ref()?.id.clone()));
        ErrorShape::unavailable(match request {
            Some(id) => format!(
                "node capability surface is awaiting operator approval; run `openclaw nodes approve {id}` (see \
                 `openclaw nodes pending`), then this node retries automatically"
            ),
            None => "node capability surface was not approved; reconnect this node to ask again".to_owned(),
        })
    })
}

/// What became of an event in its own turn.
enum Told {
    Done(NodeEventResult),
    /// The agent is to hear it.
    Wish(DeviceId, Wish),
}

fn event(call: &Call, params: &NodeEventParams) -> Result<Told, ErrorShape> {
    let node = this_node(call)?;
    let (gateway, now) = (&call.gateway, now_ms());
    let approved = || gateway.nodes.approved(&node.id).ok_or_else(|| pairing_changed("invocation"));
    let handled = match reports::hear(params)? {
        Heard::Unhandled(reason) => Err(reason),
        Heard::HostStats(mut stats) => {
            approved()?;
            stats.updated_at_ms = now;
            node.reports(|reports| reports.host_stats = Some(stats.clone()));
            let payload = NodeHostStats { node_id: node.id.to_string(), host_stats: stats };
            gateway.hub.broadcast(NODE_HOST_STATS, &payload);
            Ok(None)
        }
        Heard::Alive(trigger) => {
            gateway.pairing.touch(now, &node.id, Role::Node, Seen::Beacon(trigger));
            Ok(Some("persisted"))
        }
        Heard::Active { idle_seconds } => note_activity(gateway, &node, now, Some(idle_seconds), &approved()?),
        Heard::ActivityCleared => note_activity(gateway, &node, now, None, &approved()?),
        Heard::Wish(wish) => {
            approved()?;
            return Ok(Told::Wish(node.id.clone(), wish));
        }
        Heard::Follow(asked) => {
            approved()?;
            match talk::follow(gateway, call.caller.number, params, &asked)? {
                true => Ok(None),
                false => Err("invalid_payload"),
            }
        }
    };
    Ok(Told::Done(match handled {
        Ok(reason) => reports::event_result(&params.event, true, reason),
        Err(reason) => reports::event_result(&params.event, false, Some(reason)),
    }))
}

fn note_activity(
    gateway: &Gateway,
    node: &LiveNode,
    now_ms: i64,
    idle_seconds: Option<i64>,
    approved: &super::surface::Surface,
) -> Result<Option<&'static str>, &'static str> {
    let accessible =
        effective(node.platform, &node.declared, approved, Lists::default()).permissions.get("accessibility")
            == Some(&true);
    let presence =
        reports::note_activity(node, accessible, now_ms, idle_seconds).ok_or("accessibility_permission_required")?;
    gateway.hub.broadcast(NODE_PRESENCE, &presence);
    Ok(None)
}

fn triggers(gateway: &Gateway) -> Vec<String> {
    gateway.nodes.read(|remembered| voicewake::in_force(&remembered.triggers))
}

async fn set_triggers(gateway: &Gateway, params: VoicewakeTriggers) -> Result<VoicewakeTriggers, ErrorShape> {
    let kept = voicewake::normalised(&params.triggers);
    let changed = gateway.nodes.change(|remembered| {
        remembered.triggers.clone_from(&kept);
        let changes = vec![NodeChange::SetTriggers(kept)];
        Ok(((), Effects { changes, ..Effects::default() }))
    });
    settle(gateway, changed.await, |never: std::convert::Infallible| match never {})?;
    let in_force = VoicewakeTriggers { triggers: triggers(gateway) };
    gateway.hub.broadcast(VOICEWAKE_CHANGED, &in_force);
    let frame = bytes::Bytes::from(event_frame(VOICEWAKE_CHANGED.name, &in_force));
    for node in gateway.nodes.all_live() {
        node.connection.outbound.push(frame.clone());
    }
    Ok(in_force)
}
