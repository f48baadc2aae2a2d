//! Nodes in the words of the protocol.

use openclaw_protocol::{
    ErrorShape, Role, Scope,
    event::{self, Event},
    method::node as wire,
};
use serde_json::Value;

use super::{
    legacy::{LegacyNode, LegacyRequest},
    live::{Activity, LiveNode, Reports},
    policy::{self, Lists, scopes_to_approve},
    registry::Remembered,
    reports::command_of,
    surface::{Details, NodeEvent, Pending, Record, Surface},
};
use crate::pairing::{DevicePairing, PairedDevice};

/// What the pairing room knows of a node.
#[derive(Clone, Debug, Default)]
pub struct DeviceFacts {
    pub name: Option<String>,
    pub details: Details,
    pub approved_at_ms: i64,
    pub last_seen_at_ms: Option<i64>,
    pub last_seen_reason: Option<String>,
}

impl DeviceFacts {
    /// Facts of a device that is paired as a node.
    pub fn of(device: &PairedDevice) -> Option<Self> {
        device.roles.contains(&Role::Node).then(|| {
            let client = device.client.clone();
            Self {
                name: device.label.clone(),
                details: Details {
                    client_id: client.client_id,
                    client_mode: client.client_mode,
                    display_name: client.display_name,
                    platform: client.platform,
                    version: None,
                    device_family: client.device_family,
                },
                approved_at_ms: device.approved_at_ms,
                last_seen_at_ms: device.last_seen_at_ms,
                last_seen_reason: device.last_seen_reason.clone(),
            }
        })
    }
}

/// One node, for a list or a description.
pub fn node(
    node_id: String,
    device: Option<&DeviceFacts>,
    record: Option<&Record>,
    live: Option<&LiveNode>,
    lists: Lists<'_>,
    sees_pending: bool,
) -> wire::Node {
    let approved = record.and_then(|record| record.approved.as_ref());
    let pending = record.and_then(|record| record.pending.as_ref());
    let surface = match (live, approved) {
        (Some(live), Some(approved)) => policy::effective(live.platform, &live.declared, &approved.surface, lists),
        (None, Some(approved)) => approved.surface.clone(),
        (_, None) => Surface::default(),
    };
    let details = [
        live.map(|live| Details::of(&live.connection.params)),
        approved.map(|approved| approved.details.clone()),
        pending.map(|pending| pending.details.clone()),
        device.map(|device| device.details.clone()),
    ];
    let details = details.into_iter().flatten().reduce(filled_from).unwrap_or_default();
    let owners_name = record.and_then(|record| record.display_name.clone()).or(device.and_then(|d| d.name.clone()));
    let reports = live.map(|live| live.reports(|reports| reports.clone())).unwrap_or_default();
    let Reports { host_stats, plugin_tools, activity, .. } = reports;
    let connection = live.map(|live| &live.connection);
    let connected_at_ms = connection.map(|connection| connection.connected_at_ms);
    let shown = pending.filter(|_| sees_pending);
    wire::Node {
        node_id,
        display_name: owners_name.or(details.display_name),
        platform: details.platform,
        version: details.version,
        client_id: details.client_id,
        client_mode: details.client_mode,
        device_family: details.device_family,
        model_identifier: connection.and_then(|connection| connection.params.client.model_identifier.clone()),
        remote_ip: connection.filter(|c| !c.direct_local).map(|connection| connection.address.clone()),
        node_plugin_tools: live.map(|_| {
            let offered = |tool: &&wire::NodePluginTool| command_of(tool).is_some_and(|name| surface.has_command(name));
            plugin_tools.iter().filter(offered).filter_map(|tool| serde_json::to_value(tool).ok()).collect()
        }),
        caps: surface.caps,
        commands: surface.commands,
        session_host: false,
        host_stats,
        path_env: connection.and_then(|connection| connection.params.path_env.clone()),
        permissions: (!surface.permissions.is_empty()).then_some(surface.permissions),
        approval_state: match (approved, pending) {
            (Some(_), None) => "approved",
            (Some(_), Some(_)) => "pending-reapproval",
            (None, Some(_)) => "pending-approval",
            (None, None) => "unapproved",
        }
        .to_owned(),
        pending_request_id: shown.map(|pending| pending.id.to_string()),
        pending_declared_caps: shown.map(|pending| pending.surface.caps.clone()),
        pending_declared_commands: shown.map(|pending| pending.surface.commands.clone()),
        active: None,
        last_active_at_ms: activity.map(|activity: Activity| activity.last_active_at_ms),
        presence_updated_at_ms: activity.map(|activity| activity.updated_at_ms),
        connected_at_ms,
        last_connected_at_ms: connected_at_ms,
        last_seen_at_ms: device.and_then(|device| device.last_seen_at_ms).max(connected_at_ms),
        last_seen_reason: device.and_then(|device| device.last_seen_reason.clone()),
        approved_at_ms: approved.map(|a| a.approved_at_ms).or(device.map(|device| device.approved_at_ms)),
        paired: device.is_some(),
        connected: live.is_some(),
    }
}

/// Marks the node that was used last.
pub fn mark_active(nodes: &mut [wire::Node]) {
    let last = nodes.iter_mut().filter(|node| node.last_active_at_ms.is_some());
    if let Some(node) = last.max_by_key(|node| (node.last_active_at_ms, node.presence_updated_at_ms)) {
        node.active = Some(true);
    }
}

fn filled_from(first: Details, second: Details) -> Details {
    Details {
        client_id: first.client_id.or(second.client_id),
        client_mode: first.client_mode.or(second.client_mode),
        display_name: first.display_name.or(second.display_name),
        platform: first.platform.or(second.platform),
        version: first.version.or(second.version),
        device_family: first.device_family.or(second.device_family),
    }
}

/// The result of `node.pair.list`.
pub fn pairings(remembered: &Remembered, devices: &DevicePairing, now_ms: i64) -> wire::NodePairings {
    let records = || remembered.surfaces.iter();
    let mut waiting: Vec<_> =
        records().filter_map(|r| Some(pending(r.node_id.as_str(), r.pending.as_ref()?))).collect();
    waiting.extend(remembered.legacy.pending(now_ms).map(legacy_request));
    waiting.sort_by_key(|pending| std::cmp::Reverse(pending.ts));
    let device = |record: &Record| devices.get(&record.node_id).and_then(DeviceFacts::of);
    let mut paired: Vec<_> = records().filter_map(|record| paired(record, device(record).as_ref())).collect();
    paired.extend(remembered.legacy.nodes().map(legacy_node));
    paired.sort_by_key(|node| std::cmp::Reverse(node.approved_at_ms));
    wire::NodePairings { pending: waiting, paired }
}

/// A waiting request, as in lists and in `node.pair.requested`.
pub fn pending(node_id: &str, pending: &Pending) -> wire::PendingNode {
    let (details, surface) = (pending.details.clone(), &pending.surface);
    wire::PendingNode {
        request_id: pending.id.to_string(),
        node_id: node_id.to_owned(),
        client_id: details.client_id,
        client_mode: details.client_mode,
        display_name: details.display_name,
        platform: details.platform,
        version: details.version,
        device_family: details.device_family,
        caps: surface.caps.clone(),
        commands: surface.commands.clone(),
        required_approve_scopes: scope_names(surface),
        permissions: (!surface.permissions.is_empty()).then(|| surface.permissions.clone()),
        silent: pending.silent.then_some(true),
        is_repair: None,
        ts: pending.requested_at_ms,
    }
}

/// A waiting request inside the record of its device, which says the rest.
pub fn pending_surface(waiting: &Pending) -> Option<Value> {
    let mut surface = serde_json::to_value(pending("", waiting)).ok()?;
    let fields = surface.as_object_mut()?;
    for said in ["nodeId", "clientId", "clientMode", "requiredApproveScopes"] {
        fields.remove(said);
    }
    Some(surface)
}

/// An approved node. `None` while nothing is approved.
pub fn paired(record: &Record, device: Option<&DeviceFacts>) -> Option<wire::PairedNode> {
    let approved = record.approved.as_ref()?;
    let (details, surface) = (approved.details.clone(), &approved.surface);
    let owners_name = record.display_name.clone().or(device.and_then(|device| device.name.clone()));
    Some(wire::PairedNode {
        node_id: record.node_id.to_string(),
        client_id: details.client_id,
        client_mode: details.client_mode,
        display_name: owners_name.or(details.display_name),
        platform: details.platform,
        version: details.version,
        device_family: details.device_family,
        caps: surface.caps.clone(),
        commands: surface.commands.clone(),
        permissions: (!surface.permissions.is_empty()).then(|| surface.permissions.clone()),
        created_at_ms: approved.created_at_ms,
        approved_at_ms: approved.approved_at_ms,
        last_connected_at_ms: None,
        last_seen_at_ms: device.and_then(|device| device.last_seen_at_ms),
        last_seen_reason: device.and_then(|device| device.last_seen_reason.clone()),
        token: None,
    })
}

/// A node announced by `node.pair.request`.
pub fn legacy_request(request: &LegacyRequest) -> wire::PendingNode {
    let (details, surface) = (request.details.clone(), &request.surface);
    wire::PendingNode {
        request_id: request.id.to_string(),
        node_id: request.node_id.clone(),
        client_id: None,
        client_mode: None,
        display_name: details.display_name,
        platform: details.platform,
        version: details.version,
        device_family: details.device_family,
        caps: surface.caps.clone(),
        commands: surface.commands.clone(),
        required_approve_scopes: scope_names(surface),
        permissions: None,
        silent: request.silent,
        is_repair: Some(request.is_repair),
        ts: request.requested_at_ms,
    }
}

/// The same once approved; its token is not part of it.
pub fn legacy_node(node: &LegacyNode) -> wire::PairedNode {
    let (details, surface) = (node.details.clone(), &node.surface);
    wire::PairedNode {
        node_id: node.node_id.clone(),
        client_id: None,
        client_mode: None,
        display_name: details.display_name,
        platform: details.platform,
        version: details.version,
        device_family: details.device_family,
        caps: surface.caps.clone(),
        commands: surface.commands.clone(),
        permissions: None,
        created_at_ms: node.created_at_ms,
        approved_at_ms: node.approved_at_ms,
        last_connected_at_ms: None,
        last_seen_at_ms: None,
        last_seen_reason: None,
        token: None,
    }
}

/// The event to broadcast and its payload.
///
/// # Errors
/// Never in practice: the payloads are plain structs.
pub fn event(happened: &NodeEvent) -> Result<(Event, Value), ErrorShape> {
    let (event, payload) = match happened {
        NodeEvent::Requested(node, waiting) => {
            (event::NODE_PAIR_REQUESTED, serde_json::to_value(pending(node.as_str(), waiting)))
        }
        NodeEvent::LegacyRequested(request) => {
            (event::NODE_PAIR_REQUESTED, serde_json::to_value(legacy_request(request)))
        }
        NodeEvent::Resolved { request_id, node_id, decision, at_ms } => {
            let request_id = request_id.as_ref().map_or_else(String::new, ToString::to_string);
            let payload =
                wire::NodePairResolved { request_id, node_id: node_id.clone(), decision: *decision, ts: *at_ms };
            (event::NODE_PAIR_RESOLVED, serde_json::to_value(payload))
        }
    };
    payload.map(|payload| (event, payload)).map_err(|error| ErrorShape::unavailable(error.to_string()))
}

fn scope_names(surface: &Surface) -> Vec<String> {
    scopes_to_approve(surface).into_iter().map(|scope: Scope| scope.as_str().to_owned()).collect()
}
