//! `node.pair.request` and `node.pair.verify` of protocol 3: a node is announced by an operator and, once approved,
//! known by a token. The token opens nothing here: connecting has always been a matter of device pairing. Clients of
//! that time ask for it all the same.

use std::collections::BTreeMap;

use openclaw_protocol::{
    Secret,
    limits::PAIRING_TTL,
    method::node::{NodeDecision, NodePairRequestParams},
    secret::hex,
};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::surface::{Details, Effects, NodeChange, NodeEvent, Surface, SurfaceError, check_approver, is_name};
use crate::pairing::{Approver, RequestId};

/// Requests that may wait at once.
const MAX_PENDING: usize = 50;

/// An announced node that waits. Kept in memory only, for five minutes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegacyRequest {
    pub id: RequestId,
    pub node_id: String,
    pub details: Details,
    pub surface: Surface,
    pub is_repair: bool,
    pub silent: Option<bool>,
    pub requested_at_ms: i64,
}

/// An approved one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegacyNode {
    pub node_id: String,
    pub details: Details,
    pub surface: Surface,
    /// SHA-256 of its token, in hex.
    pub token_hash: String,
    pub created_at_ms: i64,
    pub approved_at_ms: i64,
}

/// Why a node cannot be announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AnnounceError {
    #[error("nodeId must be 1 to 128 printable ASCII characters without spaces")]
    InvalidId,
    #[error("too many node pairing requests are waiting; approve or reject some")]
    Full,
}

/// See the module documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LegacyPairing {
    pending: BTreeMap<String, LegacyRequest>,
    nodes: BTreeMap<String, LegacyNode>,
}

impl LegacyPairing {
    /// Rebuilds the state from storage.
    pub fn from_rows(rows: impl IntoIterator<Item = LegacyNode>) -> Self {
        Self { pending: BTreeMap::new(), nodes: rows.into_iter().map(|node| (node.node_id.clone(), node)).collect() }
    }

    pub fn pending(&self, now_ms: i64) -> impl Iterator<Item = &LegacyRequest> {
        self.pending.values().filter(move |request| request.lives(now_ms))
    }

    pub fn nodes(&self) -> impl Iterator<Item = &LegacyNode> {
        self.nodes.values()
    }

    /// Announces a node. One that waits already keeps its request; the answer says whether a new one was made.
    ///
    /// # Errors
    /// [`AnnounceError`]
    pub fn request(
        &mut self,
        now_ms: i64,
        fresh_id: RequestId,
        asked: NodePairRequestParams,
    ) -> Result<((LegacyRequest, bool), Effects), AnnounceError> {
        self.pending.retain(|_, request| request.lives(now_ms));
        if let Some(waiting) = self.pending.get(&asked.node_id) {
            return Ok(((waiting.clone(), false), Effects::default()));
        }
        if !is_name(&asked.node_id) {
            return Err(AnnounceError::InvalidId);
        }
        if self.pending.len() == MAX_PENDING {
            return Err(AnnounceError::Full);
        }
        let request = LegacyRequest {
            id: fresh_id,
            is_repair: self.nodes.contains_key(&asked.node_id),
            node_id: asked.node_id,
            details: Details {
                display_name: asked.display_name,
                platform: asked.platform,
                version: asked.version,
                device_family: asked.device_family,
                ..Details::default()
            },
            surface: Surface {
                caps: asked.caps.unwrap_or_default(),
                commands: asked.commands.unwrap_or_default(),
                ..Surface::default()
            },
            silent: asked.silent,
            requested_at_ms: now_ms,
        };
        self.pending.insert(request.node_id.clone(), request.clone());
        let told = NodeEvent::LegacyRequested(Box::new(request.clone()));
        Ok(((request, true), Effects { events: vec![told], ..Effects::default() }))
    }

    /// Approves a request; the node is known by `token` from now on.
    ///
    /// # Errors
    /// As [`super::surface::Surfaces::approve`].
    pub fn approve(
        &mut self,
        now_ms: i64,
        id: &RequestId,
        approver: &Approver,
        token: &Secret,
    ) -> Result<(LegacyNode, Effects), SurfaceError> {
        let request = self.find(now_ms, id)?.clone();
        check_approver(&request.surface, approver)?;
        self.pending.remove(&request.node_id);
        let node = LegacyNode {
            token_hash: hash(token.expose()),
            created_at_ms: self.nodes.get(&request.node_id).map_or(now_ms, |before| before.created_at_ms),
            approved_at_ms: now_ms,
            node_id: request.node_id,
            details: request.details,
            surface: request.surface,
        };
        self.nodes.insert(node.node_id.clone(), node.clone());
        let effects = Effects {
            changes: vec![NodeChange::PutLegacy(Box::new(node.clone()))],
            events: vec![resolved(now_ms, Some(id.clone()), &node.node_id, NodeDecision::Approved)],
        };
        Ok((node, effects))
    }

    /// Refuses a request. Returns whose it was.
    ///
    /// # Errors
    /// [`SurfaceError::UnknownRequest`]
    pub fn reject(&mut self, now_ms: i64, id: &RequestId) -> Result<(String, Effects), SurfaceError> {
        let node = self.find(now_ms, id)?.node_id.clone();
        self.pending.remove(&node);
        let told = resolved(now_ms, Some(id.clone()), &node, NodeDecision::Rejected);
        Ok((node, Effects { events: vec![told], ..Effects::default() }))
    }

    /// Forgets a node.
    ///
    /// # Errors
    /// [`SurfaceError::UnknownNode`]
    pub fn remove(&mut self, now_ms: i64, node: &str) -> Result<Effects, SurfaceError> {
        self.nodes.remove(node).ok_or(SurfaceError::UnknownNode)?;
        Ok(Effects {
            changes: vec![NodeChange::DeleteLegacy(node.to_owned())],
            events: vec![resolved(now_ms, None, node, NodeDecision::Removed)],
        })
    }

    /// The node this token belongs to.
    pub fn verify(&self, node: &str, token: &Secret) -> Option<&LegacyNode> {
        let hashed = Secret::new(hash(token.expose()));
        self.nodes.get(node).filter(|known| hashed.matches(&known.token_hash))
    }

    fn find(&self, now_ms: i64, id: &RequestId) -> Result<&LegacyRequest, SurfaceError> {
        self.pending(now_ms).find(|request| request.id == *id).ok_or(SurfaceError::UnknownRequest)
    }
}

impl LegacyRequest {
    fn lives(&self, now_ms: i64) -> bool {
        now_ms.saturating_sub(self.requested_at_ms) < PAIRING_TTL.as_millis() as i64
    }
}

fn hash(token: &str) -> String {
    hex(&Sha256::digest(token.as_bytes()))
}

fn resolved(at_ms: i64, request_id: Option<RequestId>, node_id: &str, decision: NodeDecision) -> NodeEvent {
    NodeEvent::Resolved { request_id, node_id: node_id.to_owned(), decision, at_ms }
}

#[cfg(test)]
mod tests {
    use openclaw_protocol::ScopeSet;

    use super::*;

    #[test]
    fn announced_approved_and_verified() {
        let mut pairing = LegacyPairing::default();
        let asked = |node: &str| NodePairRequestParams {
            node_id: node.into(),
            commands: Some(vec!["camera.list".into()]),
            ..NodePairRequestParams::default()
        };
        let ((request, created), effects) = pairing.request(0, RequestId::new("r1"), asked("n1")).expect("asks");
        assert!(created && !request.is_repair && effects.changes.is_empty());
        let ((again, created), effects) = pairing.request(1, RequestId::new("r2"), asked("n1")).expect("asks");
        assert!(!created && again == request && effects.events.is_empty());

        let token = Secret::new("t0k");
        let weak = Approver { scopes: [openclaw_protocol::Scope::Pairing].into_iter().collect(), owner: false };
        let refused = pairing.approve(2, &request.id, &weak, &token);
        assert_eq!(refused, Err(SurfaceError::MissingScope(openclaw_protocol::Scope::Write)));
        let admin = Approver { scopes: ScopeSet::all(), owner: false };
        let (node, _) = pairing.approve(2, &request.id, &admin, &token).expect("approves");
        assert!(!format!("{node:?}").contains("t0k"));
        assert!(pairing.verify("n1", &token).is_some());
        assert!(pairing.verify("n1", &Secret::new("other")).is_none());
        assert!(pairing.verify("n2", &token).is_none());
        assert!(pairing.remove(3, "n1").is_ok() && pairing.verify("n1", &token).is_none());
    }

    #[test]
    fn requests_are_bounded_and_expire() {
        let mut pairing = LegacyPairing::default();
        let ask = |pairing: &mut LegacyPairing, now, node: &str| {
            let asked = NodePairRequestParams { node_id: node.into(), ..NodePairRequestParams::default() };
            pairing.request(now, RequestId::new(node), asked).map(|((request, _), _)| request.id)
        };
        for bad in ["", "a b", "é", "x\n", &"x".repeat(129)] {
            assert_eq!(ask(&mut pairing, 0, bad), Err(AnnounceError::InvalidId), "{bad:?}");
        }
        for n in 0..MAX_PENDING {
            ask(&mut pairing, 0, &format!("n{n}")).expect("room");
        }
        assert_eq!(ask(&mut pairing, 0, "one-more"), Err(AnnounceError::Full));
        let later = PAIRING_TTL.as_millis() as i64;
        assert!(pairing.reject(later, &RequestId::new("n0")).is_err());
        ask(&mut pairing, later, "one-more").expect("the old ones are gone");
        assert_eq!(pairing.pending(later).count(), 1);
    }
}
