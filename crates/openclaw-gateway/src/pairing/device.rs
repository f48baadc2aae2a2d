//! The device pairing state machine. Pure: time, ids and random tokens are arguments, and what has to be saved, told or
//! closed comes back as [`Effects`].
//!
//! ```text
//!            request                    approve
//! (unknown) ─────────► pending ────────────────────────► paired ── remove ──► (unknown)
//!                      │ │ ▲ │ same again: same id        │ ▲
//!                      │ │ └─┘                            │ │ approve
//!   reject, expire ◄───┘ └──── other wish: old id is      │ │
//!   (back to before)           rejected, a new one made   ▼ │
//!                                        upgrade or changed device: pending beside paired
//! ```
//!
//! Rules that are easy to miss:
//! - An approval grants what the stored request says and nothing else. A request is never edited, so an id stands for its
//!   content: whoever swaps the wish loses the id.
//! - Approved scopes grow by union only while the device stays the same. When the role was not approved before (new,
//!   removed, revoked) or the device's details changed, they *become* what was asked.
//! - Revocation takes the approved scopes with it; only a new approval brings any back.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use openclaw_protocol::{
    DeviceId, ErrorShape, Protocol, Role, Scope, ScopeSet, Secret,
    method::device::{Decision, MAX_LABEL_CHARS},
};
use thiserror::Error;

use super::{
    bootstrap::Bootstraps,
    effects::{DeviceChange, Disconnect, DisconnectCause, Effects, PairingEvent},
    record::{ApprovedVia, DeviceToken, PairedDevice, PairingRequest, PendingDevice, RequestId, source_of},
};
use crate::auth::decide::PairReason;

/// Pending requests of unpaired devices from one source address (P-46).
pub const MAX_PENDING_PER_SOURCE: usize = 16;
/// Pending requests of unpaired devices altogether (P-46). Paired devices asking for more do not count: each can have
/// only one per role, and their number is the owner's own doing.
pub const MAX_PENDING: usize = 256;

/// Paired devices and pending requests.
#[derive(Clone, Debug, Default)]
pub struct DevicePairing {
    pub(super) devices: HashMap<DeviceId, PairedDevice>,
    /// One live request per device and role: the command line and the node host of one machine share a key, and neither may
    /// push the other's request out.
    pending: BTreeMap<(DeviceId, Role), PendingDevice>,
    /// One-time tokens that wait.
    pub(super) bootstraps: Bootstraps,
}

/// Outcome of [`DevicePairing::request`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requested {
    pub request_id: RequestId,
    /// False when the same wish was pending already.
    pub created: bool,
    /// The request this one replaced.
    pub superseded: Option<RequestId>,
}

/// No room for another pending request. Requests made before stay as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Full {
    #[error("too many pairing requests from one address are waiting")]
    Source,
    #[error("too many pairing requests are waiting")]
    Global,
}

/// Nobody but the owner can consent to this; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("only the owner can approve this")]
pub struct OwnerNeeded;

/// Who approves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Approver {
    pub scopes: ScopeSet,
    /// Proven by the owner's socket: may approve anything.
    pub owner: bool,
}

/// Outcome of an approval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    pub request_id: RequestId,
    pub device: PairedDevice,
}

/// A refused pairing operation; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PairingError {
    #[error("unknown requestId")]
    UnknownRequest,
    #[error("unknown deviceId")]
    UnknownDevice,
    /// The caller lacks a scope that he would hand out.
    #[error("missing scope: {0}")]
    MissingScope(Scope),
    #[error("label required")]
    LabelRequired,
    #[error(
        "invalid device.pair.rename params: at /label: must NOT have more than {MAX_LABEL_CHARS} characters, nor control \
         characters"
    )]
    InvalidLabel,
    /// One answer for every reason, so that it tells nothing about devices of others.
    #[error("device token rotation denied")]
    RotationDenied,
    #[error("device token revocation denied")]
    RevocationDenied,
}

impl PairingError {
    /// The answer in the words of the version spoken on the caller's socket.
    pub fn shape(self, protocol: Protocol) -> ErrorShape {
        match (self, protocol) {
            (Self::MissingScope(scope), _) => ErrorShape::missing_scope(scope).for_protocol(protocol),
            (Self::RotationDenied | Self::RevocationDenied, Protocol::V3) => {
                ErrorShape::invalid("unknown deviceId/role")
            }
            (other, _) => ErrorShape::invalid(other.to_string()),
        }
    }
}

impl From<PairingError> for ErrorShape {
    /// The words of protocol 4.
    fn from(error: PairingError) -> Self {
        error.shape(Protocol::V4)
    }
}

impl DevicePairing {
    /// Rebuilds the state from storage.
    pub fn from_rows(
        devices: impl IntoIterator<Item = PairedDevice>,
        pending: impl IntoIterator<Item = PendingDevice>,
    ) -> Self {
        Self {
            devices: devices.into_iter().map(|device| (device.id.clone(), device)).collect(),
            pending: pending.into_iter().map(|p| ((p.request.device_id.clone(), p.request.role), p)).collect(),
            bootstraps: Bootstraps::default(),
        }
    }

    pub fn get(&self, id: &DeviceId) -> Option<&PairedDevice> {
        self.devices.get(id)
    }

    /// The live request of a device for a role.
    pub fn pending_of(&self, now_ms: i64, id: &DeviceId, role: Role) -> Option<&PendingDevice> {
        self.pending.get(&(id.clone(), role)).filter(|pending| !pending.expired(now_ms))
    }

    /// The live request with this id.
    pub fn pending(&self, now_ms: i64, id: &RequestId) -> Option<&PendingDevice> {
        self.pending.values().find(|pending| pending.id == *id && !pending.expired(now_ms))
    }

    /// Live requests and paired devices, newest first.
    pub fn list(&self, now_ms: i64) -> (Vec<&PendingDevice>, Vec<&PairedDevice>) {
        let mut pending: Vec<_> = self.pending.values().filter(|pending| !pending.expired(now_ms)).collect();
        pending.sort_by(|a, b| b.requested_at_ms.cmp(&a.requested_at_ms).then_with(|| a.id.cmp(&b.id)));
        let mut paired: Vec<_> = self.devices.values().collect();
        paired.sort_by(|a, b| b.approved_at_ms.cmp(&a.approved_at_ms).then_with(|| a.id.cmp(&b.id)));
        (pending, paired)
    }

    /// A device asks. The same wish finds the request it made before, with its time unchanged; another wish for
    /// the same role replaces it.
    ///
    /// # Errors
    /// [`Full`] when an unpaired device finds no room; nothing that waits is evicted for it.
    pub fn request(
        &mut self,
        now_ms: i64,
        fresh_id: RequestId,
        asked: PairingRequest,
    ) -> Result<(Requested, Effects), Full> {
        let asked = normalised(asked);
        let existing = self.pending_of(now_ms, &asked.device_id, asked.role);
        if let Some(same) = existing.filter(|existing| existing.request.same_as(&asked)) {
            let request_id = same.id.clone();
            return Ok((Requested { request_id, created: false, superseded: None }, Effects::none()));
        }
        let superseded = existing.map(|existing| existing.id.clone());
        if superseded.is_none() && !self.devices.contains_key(&asked.device_id) {
            self.room_for(now_ms, asked.remote_ip)?;
        }
        let mut effects = self.expire(now_ms);
        if let Some(old) = &superseded {
            effects = effects.and(self.drop_pending(now_ms, old.clone(), &asked.device_id, Decision::Rejected));
        }
        let pending = PendingDevice { id: fresh_id.clone(), request: asked, requested_at_ms: now_ms };
        effects.changes.push(DeviceChange::PutRequest(Box::new(pending.clone())));
        effects.events.push(PairingEvent::Requested(Box::new(pending.clone())));
        self.pending.insert((pending.request.device_id.clone(), pending.request.role), pending);
        Ok((Requested { request_id: fresh_id, created: true, superseded }, effects))
    }

    /// Approves exactly the stored request.
    ///
    /// # Errors
    /// [`PairingError::UnknownRequest`] when the id was resolved, replaced or has expired;
    /// [`PairingError::MissingScope`] when the approver would hand out what he does not hold. The request stays.
    pub fn approve(
        &mut self,
        now_ms: i64,
        id: &RequestId,
        approver: &Approver,
        fresh_token: Secret,
    ) -> Result<(Approval, Effects), PairingError> {
        let pending = self.pending(now_ms, id).ok_or(PairingError::UnknownRequest)?.clone();
        self.check_ceiling(approver, &pending.request)?;
        let resolved = self.drop_pending(now_ms, id.clone(), &pending.request.device_id, Decision::Approved);
        let (device, granted) = self.grant(now_ms, pending.request, ApprovedVia::Owner, fresh_token);
        Ok((Approval { request_id: id.clone(), device }, granted.and(resolved)))
    }

    /// Approves without the owner, for callers that [`crate::auth::decide`] trusts to consent for him. Details pinned by
    /// an earlier approval stay pinned. Older silent records of a client with the same name that are not connected now
    /// are forgotten: they are what a wiped client left behind.
    ///
    /// # Errors
    /// [`OwnerNeeded`] when the owner took this role away, or the device's details changed: make it a pending request.
    pub fn approve_silent(
        &mut self,
        now_ms: i64,
        asked: PairingRequest,
        via: ApprovedVia,
        fresh_token: Secret,
        connected: impl Fn(&DeviceId) -> bool,
    ) -> Result<(PairedDevice, Effects), OwnerNeeded> {
        let asked = normalised(asked);
        let known = self.devices.get(&asked.device_id);
        let revoked = known.is_some_and(|device| device.revoked(asked.role));
        if revoked || (known.is_some() && asked.reason == PairReason::MetadataUpgrade) {
            return Err(OwnerNeeded);
        }
        let known = known.is_some();
        let waiting = self.pending.get(&(asked.device_id.clone(), asked.role));
        let waiting = waiting.filter(|waiting| waiting.request.same_as(&asked)).map(|waiting| waiting.id.clone());
        let resolved = waiting
            .map_or_else(Effects::none, |id| self.drop_pending(now_ms, id, &asked.device_id, Decision::Approved));
        let (device, granted) = self.grant(now_ms, asked, via, fresh_token);
        let pruned = if known || via != ApprovedVia::Silent {
            Effects::none()
        } else {
            self.prune_leftovers(now_ms, &device, connected)
        };
        Ok((device, granted.and(resolved).and(pruned)))
    }

    /// Refuses a request. The device may ask again.
    ///
    /// # Errors
    /// [`PairingError::UnknownRequest`]
    pub fn reject(&mut self, now_ms: i64, id: &RequestId) -> Result<(DeviceId, Effects), PairingError> {
        let pending = self.pending(now_ms, id).ok_or(PairingError::UnknownRequest)?;
        let device_id = pending.request.device_id.clone();
        let effects = self.drop_pending(now_ms, id.clone(), &device_id, Decision::Rejected);
        Ok((device_id, effects))
    }

    /// Forgets a device: its roles, scopes, tokens and pending requests.
    ///
    /// # Errors
    /// [`PairingError::UnknownDevice`]
    pub fn remove(&mut self, now_ms: i64, id: &DeviceId) -> Result<Effects, PairingError> {
        self.devices.remove(id).ok_or(PairingError::UnknownDevice)?;
        let waiting: Vec<RequestId> = self.requests_of(id).map(|pending| pending.id.clone()).collect();
        let dropped = waiting.into_iter().map(|request| self.drop_pending(now_ms, request, id, Decision::Rejected));
        let mut effects = dropped.fold(Effects::none(), Effects::and);
        effects.changes.push(DeviceChange::DeleteDevice(id.clone()));
        effects.disconnect.push(Disconnect { device_id: id.clone(), role: None, cause: DisconnectCause::Removed });
        Ok(effects.event(PairingEvent::Changed { device_id: id.clone(), at_ms: now_ms }))
    }

    /// Gives a device the owner's own name for it; surrounding blanks are dropped. Returns the label in force.
    ///
    /// # Errors
    /// [`PairingError::UnknownDevice`], [`PairingError::LabelRequired`], [`PairingError::InvalidLabel`]
    pub fn rename(&mut self, now_ms: i64, id: &DeviceId, label: &str) -> Result<(String, Effects), PairingError> {
        let label = label.trim();
        let device = self.devices.get_mut(id).ok_or(PairingError::UnknownDevice)?;
        if label.is_empty() {
            return Err(PairingError::LabelRequired);
        }
        if label.chars().count() > MAX_LABEL_CHARS || label.chars().any(char::is_control) {
            return Err(PairingError::InvalidLabel);
        }
        device.label = Some(label.to_owned());
        let changed = PairingEvent::Changed { device_id: id.clone(), at_ms: now_ms };
        Ok((label.to_owned(), Effects::none().put(device).event(changed)))
    }

    /// Drops requests whose time is over. Nobody is told: the device asks again at its next connect.
    pub fn expire(&mut self, now_ms: i64) -> Effects {
        let mut effects = Effects::none();
        self.pending.retain(|_, pending| {
            let expired = pending.expired(now_ms);
            if expired {
                effects.changes.push(DeviceChange::DeleteRequest(pending.id.clone()));
            }
            !expired
        });
        effects
    }

    /// P-39: nobody approves what he could not do himself, and a device that is known already becomes a node only by an
    /// administrator's word.
    fn check_ceiling(&self, approver: &Approver, request: &PairingRequest) -> Result<(), PairingError> {
        if approver.owner {
            return Ok(());
        }
        let upgrade = self.devices.get(&request.device_id).is_some_and(|device| !device.roles.contains(&request.role));
        let mut needed = request.scopes;
        needed.insert(Scope::Pairing);
        if request.role == Role::Node && upgrade {
            needed.insert(Scope::Admin);
        }
        match needed.iter().find(|scope| !approver.scopes.grants(*scope)) {
            Some(scope) => Err(PairingError::MissingScope(scope)),
            None => Ok(()),
        }
    }

    /// The latest time that any record tells of.
    pub(super) fn newest_record_ms(&self) -> Option<i64> {
        let devices = self.devices.values().flat_map(|device| [Some(device.approved_at_ms), device.last_seen_at_ms]);
        devices.flatten().chain(self.pending.values().map(|pending| pending.requested_at_ms)).max()
    }

    fn requests_of(&self, id: &DeviceId) -> impl Iterator<Item = &PendingDevice> {
        Role::ALL.into_iter().filter_map(|role| self.pending.get(&(id.clone(), role)))
    }

    /// Resolves the waiting requests of a device that holds by now what they ask for.
    pub(super) fn answer_pending(&mut self, now_ms: i64, id: &DeviceId) -> Effects {
        let held = |role| self.devices.get(id).and_then(|device| device.baseline(role));
        let answered = |pending: &&PendingDevice| {
            !pending.expired(now_ms)
                && held(pending.request.role).is_some_and(|scopes| scopes.covers(pending.request.scopes))
        };
        let answered: Vec<RequestId> =
            self.requests_of(id).filter(answered).map(|pending| pending.id.clone()).collect();
        let dropped = answered.into_iter().map(|request| self.drop_pending(now_ms, request, id, Decision::Approved));
        dropped.fold(Effects::none(), Effects::and)
    }

    /// Writes a granted request into the device's record.
    pub(super) fn grant(
        &mut self,
        now_ms: i64,
        granted: PairingRequest,
        via: ApprovedVia,
        fresh_token: Secret,
    ) -> (PairedDevice, Effects) {
        let by_owner = via != ApprovedVia::Silent;
        let known = self.devices.contains_key(&granted.device_id);
        let PairingRequest { device_id, public_key, role, scopes, client, reason, .. } = granted;
        let device = self.devices.entry(device_id.clone()).or_insert_with(|| PairedDevice {
            id: device_id.clone(),
            public_key,
            client: client.clone(),
            label: None,
            role,
            roles: BTreeSet::new(),
            approved_scopes: ScopeSet::EMPTY,
            approved_via: Some(via),
            tokens: BTreeMap::new(),
            created_at_ms: now_ms,
            approved_at_ms: now_ms,
            last_seen_at_ms: None,
            last_seen_reason: None,
        });
        // P-47, P-48: consent to another device, or to a role that was taken away, starts from nothing.
        let afresh = !device.roles.contains(&role) || (by_owner && reason == PairReason::MetadataUpgrade);
        let before = device.baseline(role).unwrap_or_default();
        if role == Role::Operator {
            device.approved_scopes = if afresh { scopes } else { before.union(scopes) };
        }
        device.role = role;
        device.roles.insert(role);
        device.approved_at_ms = now_ms;
        if by_owner {
            device.approved_via = Some(via);
            device.client = client;
        }
        let baseline = device.baseline(role).unwrap_or_default();
        let old = device.tokens.get(&role).filter(|token| token.live() && !afresh);
        if !old.is_some_and(|token| token.scopes.covers(scopes)) {
            let kept = old.map_or(ScopeSet::EMPTY, |token| token.scopes.limited_to(baseline));
            let token = DeviceToken {
                secret: fresh_token,
                scopes: scopes.union(kept),
                created_at_ms: old.map_or(now_ms, |token| token.created_at_ms),
                rotated_at_ms: old.map(|_| now_ms),
                revoked_at_ms: None,
                last_used_at_ms: old.and_then(|token| token.last_used_at_ms),
                issuer: old.and_then(|token| token.issuer.clone()),
            };
            device.tokens.insert(role, token);
        }
        let mut effects = Effects::none().put(device);
        if known && !baseline.covers(before) {
            let cause = DisconnectCause::RightsReduced;
            effects.disconnect.push(Disconnect { device_id, role: Some(role), cause });
        }
        (device.clone(), effects)
    }

    fn prune_leftovers(&mut self, now_ms: i64, kept: &PairedDevice, connected: impl Fn(&DeviceId) -> bool) -> Effects {
        let same_client = |device: &PairedDevice| {
            let (a, b) = (&device.client, &kept.client);
            a.display_name.is_some()
                && (&a.display_name, &a.client_id, &a.client_mode, &a.platform)
                    == (&b.display_name, &b.client_id, &b.client_mode, &b.platform)
        };
        let leftovers: Vec<DeviceId> = self
            .devices
            .values()
            .filter(|device| device.id != kept.id && device.approved_via == Some(ApprovedVia::Silent))
            .filter(|device| device.label.is_none() && same_client(device) && !connected(&device.id))
            .map(|device| device.id.clone())
            .collect();
        leftovers.iter().filter_map(|id| self.remove(now_ms, id).ok()).fold(Effects::none(), Effects::and)
    }

    fn drop_pending(&mut self, now_ms: i64, id: RequestId, device: &DeviceId, decision: Decision) -> Effects {
        self.pending.retain(|_, pending| pending.id != id);
        let resolved =
            PairingEvent::Resolved { request_id: id.clone(), device_id: device.clone(), decision, at_ms: now_ms };
        Effects { changes: vec![DeviceChange::DeleteRequest(id)], ..Effects::none() }.event(resolved)
    }

    fn room_for(&self, now_ms: i64, remote_ip: Option<IpAddr>) -> Result<(), Full> {
        let source = remote_ip.map(source_of);
        let (mut all, mut same) = (0, 0);
        for pending in self.pending.values().filter(|pending| !pending.expired(now_ms)) {
            if self.devices.contains_key(&pending.request.device_id) {
                continue;
            }
            all += 1;
            same += usize::from(pending.request.remote_ip.map(source_of) == source);
        }
        if same >= MAX_PENDING_PER_SOURCE {
            return Err(Full::Source);
        }
        if all >= MAX_PENDING { Err(Full::Global) } else { Ok(()) }
    }
}

/// Nodes have no operator scopes, whatever they ask for.
fn normalised(mut asked: PairingRequest) -> PairingRequest {
    if asked.role == Role::Node {
        asked.scopes = ScopeSet::EMPTY;
    }
    asked
}
