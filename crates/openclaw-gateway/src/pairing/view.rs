//! Records in the words of the protocol. The only token that passes here is a rotated one on its way to its owner.

use openclaw_protocol::{
    DeviceId, ErrorShape, Role,
    event::{self, Event},
    method::device::{self as wire, PairChanged, PairResolved, TokenSummary},
};
use serde_json::Value;

use super::{
    device::DevicePairing,
    effects::PairingEvent,
    record::{PairedDevice, PendingDevice},
    token::Rotated,
};
use crate::auth::decide::{PairReason, Record};

/// The result of `device.pair.list`.
pub fn list(pairing: &DevicePairing, now_ms: i64, connected: impl Fn(&DeviceId) -> bool) -> wire::DevicePairings {
    let (waiting, paired) = pairing.list(now_ms);
    wire::DevicePairings {
        pending: waiting.into_iter().map(pending).collect(),
        paired: paired
            .into_iter()
            .map(|device| wire::PairedDevice { connected: Some(connected(&device.id)), ..self::paired(device) })
            .collect(),
    }
}

/// A waiting device, as in lists and in `device.pair.requested`.
pub fn pending(pending: &PendingDevice) -> wire::PendingDevice {
    let request = &pending.request;
    let client = request.client.clone();
    wire::PendingDevice {
        request_id: pending.id.to_string(),
        device_id: request.device_id.to_string(),
        public_key: request.public_key.to_wire(),
        display_name: filled(client.display_name),
        platform: filled(client.platform),
        device_family: filled(client.device_family),
        client_id: filled(client.client_id),
        client_mode: filled(client.client_mode),
        browser_origin: filled(client.browser_origin),
        role: Some(request.role.to_string()),
        roles: vec![request.role.to_string()],
        scopes: names(request.scopes),
        remote_ip: request.remote_ip.map(|ip| ip.to_string()),
        silent: request.silent,
        is_repair: request.reason != PairReason::NotPaired,
        ts: pending.requested_at_ms,
    }
}

/// A paired device, as in approvals; lists add `connected`.
pub fn paired(device: &PairedDevice) -> wire::PairedDevice {
    let client = device.client.clone();
    wire::PairedDevice {
        device_id: device.id.to_string(),
        public_key: device.public_key.to_wire(),
        display_name: filled(client.display_name),
        operator_label: device.label.clone(),
        platform: filled(client.platform),
        device_family: filled(client.device_family),
        client_id: filled(client.client_id),
        client_mode: filled(client.client_mode),
        role: Some(device.role.to_string()),
        roles: device.roles.iter().map(Role::to_string).collect(),
        scopes: names(device.approved_scopes),
        approved_via: device.approved_via.map(|via| via.as_str().to_owned()),
        pending_node_surface: None,
        created_at_ms: device.created_at_ms,
        approved_at_ms: device.approved_at_ms,
        last_seen_at_ms: device.last_seen_at_ms,
        last_seen_reason: device.last_seen_reason.clone(),
        connected: None,
        tokens: device
            .tokens
            .iter()
            .map(|(role, token)| TokenSummary {
                role: role.to_string(),
                scopes: names(token.scopes),
                created_at_ms: token.created_at_ms,
                rotated_at_ms: token.rotated_at_ms,
                revoked_at_ms: token.revoked_at_ms,
                last_used_at_ms: token.last_used_at_ms,
            })
            .collect(),
    }
}

/// The result of `device.token.rotate`.
pub fn rotated(device_id: &DeviceId, role: Role, rotated: &Rotated) -> wire::TokenRotated {
    wire::TokenRotated {
        device_id: device_id.to_string(),
        role: role.to_string(),
        token: rotated.token.clone(),
        scopes: names(rotated.scopes),
        rotated_at_ms: rotated.rotated_at_ms,
        token_delivery: Some(rotated.delivery),
    }
}

/// The event to broadcast and its payload.
///
/// # Errors
/// Never in practice: the payloads are plain structs.
pub fn event(happened: &PairingEvent) -> Result<(Event, Value), ErrorShape> {
    let (event, payload) = match happened {
        PairingEvent::Requested(waiting) => (event::DEVICE_PAIR_REQUESTED, serde_json::to_value(pending(waiting))),
        PairingEvent::Resolved { request_id, device_id, decision, at_ms } => {
            let (request_id, device_id) = (request_id.to_string(), device_id.to_string());
            let payload = PairResolved { request_id, device_id, decision: *decision, ts: *at_ms };
            (event::DEVICE_PAIR_RESOLVED, serde_json::to_value(payload))
        }
        PairingEvent::Changed { device_id, at_ms } => {
            let payload = PairChanged { device_id: device_id.to_string(), ts: *at_ms };
            (event::DEVICE_PAIR_CHANGED, serde_json::to_value(payload))
        }
    };
    payload.map(|payload| (event, payload)).map_err(|error| ErrorShape::unavailable(error.to_string()))
}

impl From<&PairedDevice> for Record {
    fn from(device: &PairedDevice) -> Self {
        Self {
            roles: device.roles.iter().copied().collect(),
            approved_scopes: device.approved_scopes,
            platform: device.client.platform.clone(),
            device_family: device.client.device_family.clone(),
        }
    }
}

fn names(scopes: openclaw_protocol::ScopeSet) -> Vec<String> {
    scopes.names().into_iter().map(str::to_owned).collect()
}

/// The published schema asks for at least one character where a text is given at all.
fn filled(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}
