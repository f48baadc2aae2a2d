//! Device tokens: what pairing yields, one per device and role.
//!
//! A token is a bearer for at most the scopes it carries, and those count only while the device's approval still covers
//! them. There is one live text per device and role; replacing it stops the old one at once.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use openclaw_protocol::{DeviceId, Protocol, Role, Scope, ScopeSet, Secret, method::device::TokenDelivery};
use thiserror::Error;

use super::{
    device::{DevicePairing, PairingError},
    effects::{Disconnect, DisconnectCause, Effects, PairingEvent},
    record::{DeviceToken, IssuerGeneration},
};

/// Turns 32 random bytes into the text of a token: 43 characters of base64url.
pub fn token_from_bytes(bytes: &[u8; 32]) -> Secret {
    Secret::new(URL_SAFE_NO_PAD.encode(bytes))
}

/// What is asked of a presented token.
#[derive(Clone, Copy, Debug)]
pub struct TokenCheck<'a> {
    /// The device that proved its key on this socket, not the one the token claims to be for.
    pub device_id: &'a DeviceId,
    pub role: Role,
    pub presented: &'a str,
    pub requested: ScopeSet,
    /// Of the shared secret in force; `None` when the gateway has none.
    pub generation: Option<&'a IssuerGeneration>,
}

/// A token that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The requested scopes, all of them.
    pub scopes: ScopeSet,
}

/// Why a token does not hold. For our log; a peer learns of scope mismatch and "mismatch" only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    #[error("device is not paired")]
    NotPaired,
    #[error("role is not approved for the device")]
    RoleMissing,
    #[error("device has no token for the role")]
    Missing,
    #[error("token was revoked")]
    Revoked,
    #[error("token does not match")]
    Mismatch,
    #[error("token was issued for an earlier shared secret")]
    Stale,
    #[error("requested scopes are beyond the token")]
    ScopeMismatch,
}

/// What a successful connect asks for.
#[derive(Clone, Copy, Debug)]
pub struct IssueRequest<'a> {
    pub device_id: &'a DeviceId,
    pub role: Role,
    /// The scopes of this connection.
    pub scopes: ScopeSet,
    /// Of the shared secret in force; `None` when the gateway has none.
    pub generation: Option<&'a IssuerGeneration>,
    /// A browser proved the shared secret on this socket: its token dies with that secret.
    pub bind: bool,
}

/// A token for `hello-ok.auth`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    pub token: Secret,
    pub scopes: ScopeSet,
    pub issued_at_ms: i64,
    /// False when an older text was replaced or none existed.
    pub reused: bool,
}

/// Who rotates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenCaller {
    pub scopes: ScopeSet,
    /// The proven device of the caller's socket.
    pub device_id: Option<DeviceId>,
    /// The socket was authenticated by that device's own token.
    pub own_token: bool,
    /// Proven by the owner's socket.
    pub owner: bool,
    pub protocol: Protocol,
}

/// Outcome of a rotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotated {
    /// Present only when `delivery` is in-band.
    pub token: Option<Secret>,
    pub scopes: ScopeSet,
    pub rotated_at_ms: i64,
    pub delivery: TokenDelivery,
}

impl DevicePairing {
    /// Checks a presented token. The comparison takes the same time wherever the texts differ, and nothing about the
    /// text is normalised before it.
    ///
    /// # Errors
    /// The first reason of [`TokenError`] that applies.
    pub fn verify(&self, check: &TokenCheck<'_>) -> Result<Granted, TokenError> {
        let device = self.get(check.device_id).ok_or(TokenError::NotPaired)?;
        let token = device.tokens.get(&check.role);
        if token.is_some_and(|token| !token.live()) {
            return Err(TokenError::Revoked);
        }
        let baseline = device.baseline(check.role).ok_or(TokenError::RoleMissing)?;
        let token = token.ok_or(TokenError::Missing)?;
        if check.presented.is_empty() || !token.secret.matches(check.presented) {
            return Err(TokenError::Mismatch);
        }
        if token.issuer.is_some() && token.issuer.as_ref() != check.generation {
            return Err(TokenError::Stale);
        }
        let scopes = scopes_in(check.role, check.requested);
        if !token.scopes.covers(scopes) || !baseline.covers(scopes) {
            return Err(TokenError::ScopeMismatch);
        }
        Ok(Granted { scopes })
    }

    /// Gives a connecting device its token: the present one while it is valid and covers the request, else a new one
    /// that carries the request and what the old one still rightly carried.
    ///
    /// # Errors
    /// [`TokenError::NotPaired`], [`TokenError::RoleMissing`], [`TokenError::ScopeMismatch`] when the approval does not
    /// cover the request (any more): pairing comes first.
    pub fn issue(
        &mut self,
        now_ms: i64,
        asked: &IssueRequest<'_>,
        fresh_token: Secret,
    ) -> Result<(Issued, Effects), TokenError> {
        let device = self.devices.get_mut(asked.device_id).ok_or(TokenError::NotPaired)?;
        let baseline = device.baseline(asked.role).ok_or(TokenError::RoleMissing)?;
        let scopes = scopes_in(asked.role, asked.scopes);
        if !baseline.covers(scopes) {
            return Err(TokenError::ScopeMismatch);
        }
        let binding = asked.generation.filter(|_| asked.bind).cloned();
        let old = device.tokens.remove(&asked.role).filter(DeviceToken::live);
        let current = |token: &DeviceToken| token.issuer.is_none() || token.issuer.as_ref() == asked.generation;
        let (token, reused, changed) = match old {
            Some(mut token) if current(&token) && token.scopes.covers(scopes) && baseline.covers(token.scopes) => {
                let bound = binding.is_some() && token.issuer != binding;
                if bound {
                    token.issuer = binding;
                }
                (token, true, bound)
            }
            old => {
                let kept = old.as_ref().filter(|token| current(token));
                let kept = kept.map_or(ScopeSet::EMPTY, |token| token.scopes.limited_to(baseline));
                let token = DeviceToken {
                    secret: fresh_token,
                    scopes: scopes.union(kept),
                    created_at_ms: old.as_ref().map_or(now_ms, |token| token.created_at_ms),
                    rotated_at_ms: old.as_ref().map(|_| now_ms),
                    revoked_at_ms: None,
                    last_used_at_ms: old.as_ref().and_then(|token| token.last_used_at_ms),
                    issuer: binding.or_else(|| old.filter(current).and_then(|token| token.issuer)),
                };
                (token, false, true)
            }
        };
        let issued =
            Issued { token: token.secret.clone(), scopes: token.scopes, issued_at_ms: token.issued_at_ms(), reused };
        device.tokens.insert(asked.role, token);
        Ok((issued, if changed { Effects::none().put(device) } else { Effects::none() }))
    }

    /// Replaces a token by hand. `scopes` absent means those of the present token; an empty set means none.
    ///
    /// # Errors
    /// [`PairingError::RotationDenied`], whatever the reason: unknown device, role not approved or revoked, scopes
    /// beyond the approval or beyond the caller's own, or another device than the caller's without being an administrator.
    pub fn rotate(
        &mut self,
        now_ms: i64,
        caller: &TokenCaller,
        device_id: &DeviceId,
        role: Role,
        scopes: Option<ScopeSet>,
        fresh_token: Secret,
    ) -> Result<(Rotated, Effects), PairingError> {
        let denied = PairingError::RotationDenied;
        let device = self.devices.get_mut(device_id).ok_or(denied)?;
        let baseline = device.baseline(role).ok_or(denied)?;
        let token = device.tokens.get_mut(&role).filter(|token| token.live()).ok_or(denied)?;
        let scopes = scopes_in(role, scopes.unwrap_or(token.scopes));
        let own = caller.device_id.as_ref() == Some(device_id);
        // Without a device a caller has proved the shared secret on a direct local connection: the CLI of the owner,
        // which asks for no more than the token holds.
        let manages_others = caller.owner || caller.scopes.grants(Scope::Admin) || caller.device_id.is_none();
        let within_caller = caller.owner || caller.scopes.covers(scopes);
        if !baseline.covers(scopes) || !within_caller || !(own || manages_others) {
            return Err(denied);
        }
        token.secret = fresh_token;
        token.scopes = scopes;
        token.rotated_at_ms = Some(now_ms);
        // Protocol 3 always answered with the token; a stranger to the device still does not get it.
        let in_band = own && (caller.own_token || caller.protocol == Protocol::V3);
        let rotated = Rotated {
            token: in_band.then(|| token.secret.clone()),
            scopes,
            rotated_at_ms: now_ms,
            delivery: if in_band { TokenDelivery::InBand } else { TokenDelivery::WithheldCrossDevice },
        };
        let mut effects = Effects::none().put(device);
        let cause = DisconnectCause::TokenRotated;
        effects.disconnect.push(Disconnect { device_id: device_id.clone(), role: Some(role), cause });
        Ok((rotated, effects))
    }

    /// Takes a role away: its token stops, its approval and (for operators) the approved scopes are gone, and the next
    /// connect in that role has to be approved again. Returns when it was revoked; revoking twice keeps the first time.
    /// All sockets of the device close; in a role that is still approved it simply comes back.
    ///
    /// # Errors
    /// [`PairingError::RevocationDenied`] when the device never had that role.
    pub fn revoke(&mut self, now_ms: i64, device_id: &DeviceId, role: Role) -> Result<(i64, Effects), PairingError> {
        let device = self.devices.get_mut(device_id).ok_or(PairingError::RevocationDenied)?;
        let approved = device.roles.remove(&role);
        let known = device.tokens.get(&role);
        if let (false, Some(at_ms)) = (approved, known.and_then(|token| token.revoked_at_ms)) {
            return Ok((at_ms, Effects::none()));
        }
        if !approved && known.is_none() {
            return Err(PairingError::RevocationDenied);
        }
        if role == Role::Operator {
            device.approved_scopes = ScopeSet::EMPTY;
        }
        let token = device.tokens.entry(role).or_insert_with(|| DeviceToken {
            secret: Secret::new(""),
            scopes: ScopeSet::EMPTY,
            created_at_ms: now_ms,
            rotated_at_ms: None,
            revoked_at_ms: None,
            last_used_at_ms: None,
            issuer: None,
        });
        token.secret = Secret::new("");
        token.revoked_at_ms = Some(now_ms);
        let mut effects =
            Effects::none().put(device).event(PairingEvent::Changed { device_id: device_id.clone(), at_ms: now_ms });
        let cause = DisconnectCause::TokenRevoked;
        effects.disconnect.push(Disconnect { device_id: device_id.clone(), role: None, cause });
        Ok((now_ms, effects))
    }

    /// Notes that a device was here. Memory only; the store writes it when it writes anyway.
    pub fn touch(&mut self, now_ms: i64, device_id: &DeviceId, role: Role, seen: Seen) {
        let Some(device) = self.devices.get_mut(device_id) else { return };
        device.last_seen_at_ms = Some(now_ms);
        device.last_seen_reason = Some(seen.as_str().to_owned());
        if let (Seen::DeviceToken, Some(token)) = (seen, device.tokens.get_mut(&role)) {
            token.last_used_at_ms = Some(now_ms);
        }
    }
}

/// How a device showed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// With the shared secret.
    Connect,
    /// With its own token.
    DeviceToken,
    /// It left.
    Disconnect,
    /// It said that it is awake, and why.
    Beacon(&'static str),
}

impl Seen {
    /// `lastSeenReason` on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::DeviceToken => "device-token-auth",
            Self::Disconnect => "disconnect",
            Self::Beacon(trigger) => trigger,
        }
    }
}

fn scopes_in(role: Role, scopes: ScopeSet) -> ScopeSet {
    match role {
        Role::Operator => scopes,
        Role::Node => ScopeSet::EMPTY,
    }
}
