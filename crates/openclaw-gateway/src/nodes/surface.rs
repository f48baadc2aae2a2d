//! Consent to capabilities: what each node may do, and what it asks for beyond that. A pure state machine: time and ids
//! go in, effects come out; [`super::registry`] keeps it in step with the store.
//!
//! Pairing a device lets it connect; here the owner approves what it offers. What is approved is a ceiling: declaring
//! less needs nobody, declaring more is a request, and until it is approved only the old part works. Requests do not
//! expire.

use std::collections::{BTreeMap, BTreeSet};

use openclaw_protocol::{DeviceId, ErrorShape, Scope, connect::ConnectParams, method::node::NodeDecision};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

use super::{
    legacy::{LegacyNode, LegacyRequest},
    policy::scopes_to_approve,
};
use crate::pairing::{Approver, RequestId};

/// Longest name of a command, capability or permission, in characters. Longer ones are not declared at all.
const MAX_NAME_CHARS: usize = 128;
/// Permissions a node may declare.
const MAX_PERMISSIONS: usize = 64;
/// Longest name an owner may give a node, in characters; as for devices.
pub const MAX_DISPLAY_NAME_CHARS: usize = 64;

/// Capabilities, commands and permissions: declared by a node, or approved by the owner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Surface {
    pub caps: Vec<String>,
    pub commands: Vec<String>,
    /// As the operating system of the node grants them.
    pub permissions: BTreeMap<String, bool>,
}

impl Surface {
    /// What a node declared in its connect request, in its order, without repetitions and nonsense.
    pub fn declared(params: &ConnectParams) -> Self {
        Self {
            caps: names(&params.caps),
            commands: names(&params.commands),
            permissions: permissions(&params.permissions),
        }
    }

    pub fn has_command(&self, command: &str) -> bool {
        self.commands.iter().any(|name| name == command)
    }

    /// True when approving `self` also approves `other`.
    pub fn covers(&self, other: &Self) -> bool {
        let within = |mine: &[String], theirs: &[String]| {
            let mine: BTreeSet<&String> = mine.iter().collect();
            theirs.iter().all(|name| mine.contains(name))
        };
        let granted = |(name, on): (&String, &bool)| !*on || self.permissions.get(name) == Some(&true);
        within(&self.caps, &other.caps)
            && within(&self.commands, &other.commands)
            && other.permissions.iter().all(granted)
    }

    fn same_as(&self, other: &Self) -> bool {
        self.covers(other) && other.covers(self)
    }
}

/// Names of commands and capabilities, and of nodes in protocol 3 requests.
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().count() <= MAX_NAME_CHARS && text.chars().all(|c| c.is_ascii_graphic())
}

fn names(list: &[String]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    list.iter().filter(|name| is_name(name) && seen.insert(name.as_str())).cloned().collect()
}

fn permissions(map: &Map<String, Value>) -> BTreeMap<String, bool> {
    let named = map.iter().filter(|(name, _)| is_name(name));
    named.filter_map(|(name, value)| Some((name.clone(), value.as_bool()?))).take(MAX_PERMISSIONS).collect()
}

/// How a node describes itself. Shown, never trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Details {
    pub client_id: Option<String>,
    pub client_mode: Option<String>,
    pub display_name: Option<String>,
    pub platform: Option<String>,
    pub version: Option<String>,
    pub device_family: Option<String>,
}

impl Details {
    pub fn of(params: &ConnectParams) -> Self {
        let client = params.client.clone();
        Self {
            client_id: Some(client.id),
            client_mode: Some(client.mode),
            display_name: client.display_name,
            platform: Some(client.platform),
            version: Some(client.version),
            device_family: client.device_family,
        }
    }
}

/// What the owner approved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approved {
    pub surface: Surface,
    pub details: Details,
    /// Of the first approval.
    pub created_at_ms: i64,
    /// Of the last one.
    pub approved_at_ms: i64,
}

/// What waits for the owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    pub id: RequestId,
    pub surface: Surface,
    pub details: Details,
    /// The device itself was paired without asking.
    pub silent: bool,
    pub requested_at_ms: i64,
}

/// Everything remembered of one node. It exists from the node's first connect, so a refused node stays known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub node_id: DeviceId,
    /// The owner's name for it.
    pub display_name: Option<String>,
    pub approved: Option<Approved>,
    pub pending: Option<Pending>,
}

/// Whether a node's first declaration needs the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    Ask {
        silent: bool,
    },
    /// Given together with the device's pairing: it proved its machine over ssh, came with a node setup code, or speaks
    /// protocol 3, where pairing the device was the only question. Counts for a node that was never heard of.
    Given,
}

/// What a decision entails: commit `changes`, then tell `events` in this order.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use = "unless the changes are committed the decision is lost at the next start"]
pub struct Effects {
    pub changes: Vec<NodeChange>,
    pub events: Vec<NodeEvent>,
}

/// One change of the stored state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeChange {
    Put(Box<Record>),
    Delete(DeviceId),
    PutLegacy(Box<LegacyNode>),
    DeleteLegacy(String),
    SetTriggers(Vec<String>),
}

/// Something operators with the pairing scope (and, for resolutions, the node) are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeEvent {
    Requested(DeviceId, Box<Pending>),
    LegacyRequested(Box<LegacyRequest>),
    /// `node_id` is a device id, or what a protocol 3 request called itself.
    Resolved {
        request_id: Option<RequestId>,
        node_id: String,
        decision: NodeDecision,
        at_ms: i64,
    },
}

/// Why a decision about a node was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SurfaceError {
    #[error("unknown requestId")]
    UnknownRequest,
    #[error("unknown nodeId")]
    UnknownNode,
    #[error("missing scope: {0}")]
    MissingScope(Scope),
    #[error("displayName must be 1 to {MAX_DISPLAY_NAME_CHARS} characters without control characters")]
    InvalidName,
}

impl From<SurfaceError> for ErrorShape {
    fn from(error: SurfaceError) -> Self {
        match error {
            SurfaceError::MissingScope(scope) => Self::missing_scope(scope),
            other => Self::invalid(other.to_string()),
        }
    }
}

/// All nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surfaces {
    nodes: BTreeMap<DeviceId, Record>,
}

impl Surfaces {
    /// Rebuilds the state from storage.
    pub fn from_rows(rows: impl IntoIterator<Item = Record>) -> Self {
        Self { nodes: rows.into_iter().map(|record| (record.node_id.clone(), record)).collect() }
    }

    pub fn get(&self, node: &DeviceId) -> Option<&Record> {
        self.nodes.get(node)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Record> {
        self.nodes.values()
    }

    /// What the owner approved for a node, if anything.
    pub fn approved(&self, node: &DeviceId) -> Option<&Surface> {
        Some(&self.nodes.get(node)?.approved.as_ref()?.surface)
    }

    /// A node connected and declared `declared` (already without what policy withholds).
    pub fn reconcile(
        &mut self,
        now_ms: i64,
        fresh_id: RequestId,
        node: &DeviceId,
        declared: Surface,
        details: Details,
        consent: Consent,
    ) -> Effects {
        let known = self.nodes.contains_key(node);
        let record = self.nodes.entry(node.clone()).or_insert_with(|| Record::new(node.clone()));
        if !known && consent == Consent::Given {
            record.approved =
                Some(Approved { surface: declared, details, created_at_ms: now_ms, approved_at_ms: now_ms });
            return Effects::put(record);
        }
        if let Some(approved) = record.approved.as_mut().filter(|approved| approved.surface.covers(&declared)) {
            let renewed = approved.details != details;
            approved.details = details;
            let mut effects = Effects::default();
            if let Some(stale) = record.pending.take() {
                effects.events.push(resolved(now_ms, Some(stale.id), node, NodeDecision::Rejected));
            }
            if renewed || !effects.events.is_empty() {
                effects.changes.push(NodeChange::Put(Box::new(record.clone())));
            }
            return effects;
        }
        let silent = consent == Consent::Ask { silent: true };
        let mut effects = Effects::default();
        match &mut record.pending {
            Some(pending) if pending.surface.same_as(&declared) => {
                // The same wish keeps its id; a new time alone is not worth a write.
                let renewed = pending.details != details;
                pending.details = details;
                pending.requested_at_ms = now_ms;
                if renewed {
                    effects.changes.push(NodeChange::Put(Box::new(record.clone())));
                }
            }
            slot => {
                let pending = Pending { id: fresh_id, surface: declared, details, silent, requested_at_ms: now_ms };
                if let Some(old) = slot.replace(pending.clone()) {
                    effects.events.push(resolved(now_ms, Some(old.id), node, NodeDecision::Rejected));
                }
                effects.events.push(NodeEvent::Requested(node.clone(), Box::new(pending)));
                effects.changes.push(NodeChange::Put(Box::new(record.clone())));
            }
        }
        effects
    }

    /// Approves exactly the stored request: from now on it is the ceiling, instead of what was approved before.
    ///
    /// # Errors
    /// [`SurfaceError::UnknownRequest`] when the id was resolved or replaced; [`SurfaceError::MissingScope`] when the
    /// approver lacks a scope that the requested commands ask for. The request stays.
    pub fn approve(
        &mut self,
        now_ms: i64,
        id: &RequestId,
        approver: &Approver,
    ) -> Result<(Record, Effects), SurfaceError> {
        let record = self.record_of(id)?;
        if let Some(pending) = &record.pending {
            check_approver(&pending.surface, approver)?;
        }
        let Some(Pending { surface, details, .. }) = record.pending.take() else {
            return Err(SurfaceError::UnknownRequest);
        };
        let created_at_ms = record.approved.as_ref().map_or(now_ms, |before| before.created_at_ms);
        record.approved = Some(Approved { surface, details, created_at_ms, approved_at_ms: now_ms });
        let (record, node) = (record.clone(), record.node_id.clone());
        let effects = Effects::put(&record).event(resolved(now_ms, Some(id.clone()), &node, NodeDecision::Approved));
        Ok((record, effects))
    }

    /// Refuses a request. What was approved before stays; the node asks again when it next connects.
    ///
    /// # Errors
    /// [`SurfaceError::UnknownRequest`]
    pub fn reject(&mut self, now_ms: i64, id: &RequestId) -> Result<(DeviceId, Effects), SurfaceError> {
        let record = self.record_of(id)?;
        record.pending = None;
        let node = record.node_id.clone();
        let effects = Effects::put(record).event(resolved(now_ms, Some(id.clone()), &node, NodeDecision::Rejected));
        Ok((node, effects))
    }

    /// Gives a node the owner's own name for it; surrounding blanks are dropped.
    ///
    /// # Errors
    /// [`SurfaceError::UnknownNode`] for one that never connected, [`SurfaceError::InvalidName`].
    pub fn rename(&mut self, node: &DeviceId, name: &str) -> Result<(String, Effects), SurfaceError> {
        let name = name.trim();
        if !(1..=MAX_DISPLAY_NAME_CHARS).contains(&name.chars().count()) || name.chars().any(char::is_control) {
            return Err(SurfaceError::InvalidName);
        }
        let record = self.nodes.get_mut(node).ok_or(SurfaceError::UnknownNode)?;
        record.display_name = Some(name.to_owned());
        Ok((name.to_owned(), Effects::put(record)))
    }

    /// Forgets a node. Nothing happens for one that was never heard of.
    pub fn forget(&mut self, now_ms: i64, node: &DeviceId) -> Effects {
        let Some(record) = self.nodes.remove(node) else { return Effects::default() };
        let mut effects = Effects { changes: vec![NodeChange::Delete(node.clone())], ..Effects::default() };
        if let Some(pending) = record.pending {
            effects.events.push(resolved(now_ms, Some(pending.id), node, NodeDecision::Rejected));
        }
        effects.event(resolved(now_ms, None, node, NodeDecision::Removed))
    }

    fn record_of(&mut self, id: &RequestId) -> Result<&mut Record, SurfaceError> {
        let asked = |record: &&mut Record| record.pending.as_ref().is_some_and(|pending| pending.id == *id);
        self.nodes.values_mut().find(asked).ok_or(SurfaceError::UnknownRequest)
    }
}

/// Nobody approves commands that ask for more than he may do himself.
pub(super) fn check_approver(asked: &Surface, approver: &Approver) -> Result<(), SurfaceError> {
    match scopes_to_approve(asked).into_iter().find(|scope| !approver.scopes.grants(*scope)) {
        Some(scope) if !approver.owner => Err(SurfaceError::MissingScope(scope)),
        _ => Ok(()),
    }
}

impl Record {
    fn new(node_id: DeviceId) -> Self {
        Self { node_id, display_name: None, approved: None, pending: None }
    }
}

impl Effects {
    fn put(record: &Record) -> Self {
        Self { changes: vec![NodeChange::Put(Box::new(record.clone()))], ..Self::default() }
    }

    fn event(mut self, event: NodeEvent) -> Self {
        self.events.push(event);
        self
    }
}

fn resolved(at_ms: i64, request_id: Option<RequestId>, node_id: &DeviceId, decision: NodeDecision) -> NodeEvent {
    NodeEvent::Resolved { request_id, node_id: node_id.to_string(), decision, at_ms }
}
