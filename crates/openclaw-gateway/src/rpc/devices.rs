//! Device pairing and device tokens. Rules live in [`crate::pairing`]; here they meet the caller.

use openclaw_protocol::{
    DeviceId, ErrorShape, Role, ScopeSet,
    hello::AuthMethod,
    method::device::{
        DeviceApproved, DevicePairApprove, DevicePairList, DevicePairReject, DevicePairRemove, DevicePairRename,
        DeviceRejected, DeviceRemoved, DeviceRenamed, DeviceTokenRevoke, DeviceTokenRotate, RotateParams, TokenRevoked,
        TokenRotated,
    },
};

use super::registry::{Call, Registry};
use crate::{
    clock::now_ms,
    gateway::fresh_token,
    pairing::{Approver, PairingError, RequestId, TokenCaller, view},
};

pub fn register(registry: &mut Registry) {
    registry
        .on::<DevicePairList>(|call, _| {
            let (hub, nodes) = (&call.gateway.hub, &call.gateway.nodes);
            let mut list = call.gateway.pairing.read(|state| view::list(state, now_ms(), |id| hub.is_connected(id)));
            for device in &mut list.paired {
                let id = DeviceId::parse(&device.device_id);
                device.pending_node_surface = id.and_then(|id| nodes.pending_surface(&id));
            }
            Ok(list)
        })
        .on_async::<DevicePairApprove, _>(|call, params| async move {
            let (id, approver, token) = (RequestId::new(params.request_id), approver(&call), fresh_token()?);
            let changed = call.gateway.pairing.change(|state| state.approve(now_ms(), &id, &approver, token)).await;
            let approval = call.gateway.settle(changed, |error| error.shape(call.caller.protocol))?;
            tracing::info!(device = approval.device.id.short(), by = %call.caller.address, "device approved");
            Ok(DeviceApproved { request_id: approval.request_id.to_string(), device: view::paired(&approval.device) })
        })
        .on_async::<DevicePairReject, _>(|call, params| async move {
            let id = RequestId::new(params.request_id);
            let changed = call.gateway.pairing.change(|state| state.reject(now_ms(), &id)).await;
            let device_id = call.gateway.settle(changed, |error| error.shape(call.caller.protocol))?;
            Ok(DeviceRejected { request_id: id.to_string(), device_id: device_id.to_string() })
        })
        .on_async::<DevicePairRemove, _>(|call, params| async move {
            let id = device_id(&params.device_id, PairingError::UnknownDevice)?;
            let changed = call.gateway.pairing.change(|state| Ok(((), state.remove(now_ms(), &id)?))).await;
            call.gateway.settle(changed, |error: PairingError| error.shape(call.caller.protocol))?;
            crate::nodes::device_removed(&call.gateway, &id).await?;
            tracing::info!(device = id.short(), by = %call.caller.address, "device removed");
            Ok(DeviceRemoved { device_id: id.to_string() })
        })
        .on_async::<DevicePairRename, _>(|call, params| async move {
            let id = device_id(&params.device_id, PairingError::UnknownDevice)?;
            let changed = call.gateway.pairing.change(|state| state.rename(now_ms(), &id, &params.label)).await;
            let label = call.gateway.settle(changed, |error| error.shape(call.caller.protocol))?;
            Ok(DeviceRenamed { device_id: id.to_string(), label })
        })
        .on_async::<DeviceTokenRotate, _>(|call, params| async move { rotate(&call, params).await })
        .on_async::<DeviceTokenRevoke, _>(|call, params| async move {
            let denied = PairingError::RevocationDenied;
            let (id, role) = (device_id(&params.device_id, denied)?, role(&params.role, denied)?);
            let changed = call.gateway.pairing.change(|state| state.revoke(now_ms(), &id, role)).await;
            let revoked_at_ms = call.gateway.settle(changed, |error| error.shape(call.caller.protocol))?;
            if role == Role::Node {
                crate::nodes::device_removed(&call.gateway, &id).await?;
            }
            tracing::info!(device = id.short(), %role, by = %call.caller.address, "device token revoked");
            Ok(TokenRevoked { device_id: id.to_string(), role: role.to_string(), revoked_at_ms })
        });
}

async fn rotate(call: &Call, params: RotateParams) -> Result<TokenRotated, ErrorShape> {
    let denied = PairingError::RotationDenied;
    let (id, role) = (device_id(&params.device_id, denied)?, role(&params.role, denied)?);
    let caller = TokenCaller {
        scopes: call.caller.scopes,
        device_id: call.caller.device.clone(),
        own_token: call.caller.method == AuthMethod::DeviceToken,
        owner: call.caller.owner,
        protocol: call.caller.protocol,
    };
    let scopes = params.scopes.map(|list| ScopeSet::parse(&list));
    let token = fresh_token()?;
    let changed = call.gateway.pairing.change(|state| state.rotate(now_ms(), &caller, &id, role, scopes, token)).await;
    // The device that rotates its own token hears of the new one on the socket the old one opened.
    let own = (call.caller.device.as_ref() == Some(&id)).then_some(call.caller.number);
    let rotated = call.gateway.settle_sparing(own, changed, |error| error.shape(call.caller.protocol))?;
    tracing::info!(device = id.short(), %role, by = %call.caller.address, "device token rotated");
    Ok(view::rotated(&id, role, &rotated))
}

fn approver(call: &Call) -> Approver {
    Approver { scopes: call.caller.scopes, owner: call.caller.owner }
}

fn device_id(text: &str, error: PairingError) -> Result<DeviceId, ErrorShape> {
    DeviceId::parse(text).ok_or_else(|| error.into())
}

fn role(text: &str, error: PairingError) -> Result<Role, ErrorShape> {
    Role::parse(text).ok_or_else(|| error.into())
}
