//! The state machine of approvals, as tables.

use openclaw_protocol::{Scope, ScopeSet, method::node::NodeDecision};

use super::*;
use crate::{
    nodes::surface::{Effects, NodeChange, NodeEvent, SurfaceError, Surfaces},
    pairing::Approver,
};

const ASK: Consent = Consent::Ask { silent: false };

fn admin() -> Approver {
    Approver { scopes: ScopeSet::all(), owner: false }
}

fn request(id: &str) -> RequestId {
    RequestId::new(id)
}

/// Event names with request ids, short enough for a table.
fn told(effects: &Effects) -> Vec<String> {
    let text = |event: &NodeEvent| match event {
        NodeEvent::Requested(_, pending) => format!("requested {}", pending.id),
        NodeEvent::LegacyRequested(request) => format!("requested {}", request.id),
        NodeEvent::Resolved { request_id, decision, .. } => {
            let id = request_id.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
            format!("{decision:?} {id}").to_lowercase()
        }
    };
    effects.events.iter().map(text).collect()
}

struct Table {
    surfaces: Surfaces,
    connects: u32,
}

impl Table {
    fn new() -> Self {
        Self { surfaces: Surfaces::default(), connects: 0 }
    }

    /// The node connects and declares; the fresh request id is the number of the connect. Returns the events and
    /// whether something was saved.
    fn connect(&mut self, declared: Surface, consent: Consent) -> (Vec<String>, bool) {
        self.connects += 1;
        let fresh = request(&format!("r{}", self.connects));
        let details = Details { version: Some("1".into()), ..Details::default() };
        let effects = self.surfaces.reconcile(self.connects.into(), fresh, &id(1), declared, details, consent);
        (told(&effects), !effects.changes.is_empty())
    }

    fn approve(&mut self, id: &str) -> Result<Vec<String>, SurfaceError> {
        self.surfaces.approve(50, &request(id), &admin()).map(|(_, effects)| told(&effects))
    }

    fn approved(&self) -> Vec<String> {
        self.surfaces.approved(&id(1)).map(|surface| surface.commands.clone()).unwrap_or_default()
    }

    fn pending(&self) -> Option<String> {
        self.surfaces.get(&id(1)).and_then(|record| Some(record.pending.as_ref()?.id.to_string()))
    }
}

#[test]
fn p_60_widening_needs_the_owner() {
    let mut table = Table::new();
    assert_eq!(table.connect(commands(&["a"]), ASK), (vec!["requested r1".into()], true));
    assert!(table.approved().is_empty(), "nothing runs before approval");
    // The same surface finds its request again, in whatever order, and costs no write.
    assert_eq!(table.connect(commands(&["a"]), ASK), (vec![], false));
    assert_eq!(table.pending().as_deref(), Some("r1"));
    // Another surface supersedes.
    assert_eq!(table.connect(commands(&["a", "b"]), ASK), (vec!["rejected r1".into(), "requested r3".into()], true));
    assert_eq!(table.approve("r1"), Err(SurfaceError::UnknownRequest));
    assert_eq!(table.connect(commands(&["b", "a"]), ASK), (vec![], false));
    assert_eq!(table.approve("r3"), Ok(vec!["approved r3".into()]));
    assert_eq!(table.approved(), ["a", "b"]);
    assert_eq!(table.approve("r3"), Err(SurfaceError::UnknownRequest), "only once");
    // Less needs nobody and keeps the ceiling.
    assert_eq!(table.connect(commands(&["a"]), ASK), (vec![], false));
    assert_eq!(table.approved(), ["a", "b"]);
    // More is a request; what was approved stays until then.
    assert_eq!(table.connect(commands(&["a", "c"]), ASK), (vec!["requested r6".into()], true));
    assert_eq!(table.approved(), ["a", "b"]);
    // Back to less: the wider wish is gone.
    assert_eq!(table.connect(commands(&["a"]), ASK), (vec!["rejected r6".into()], true));
    assert_eq!(table.pending(), None);
    // Approving replaces the ceiling: what is no longer declared is no longer approved.
    assert_eq!(table.connect(commands(&["a", "c"]), ASK).0, ["requested r8"]);
    assert_eq!(table.approve("r8"), Ok(vec!["approved r8".into()]));
    assert_eq!(table.approved(), ["a", "c"]);
    // A rejected wish is asked again at the next connect, under a new id.
    assert_eq!(table.connect(commands(&["a", "d"]), ASK).0, ["requested r9"]);
    let (node, effects) = table.surfaces.reject(60, &request("r9")).expect("rejects");
    assert_eq!((node, told(&effects)), (id(1), vec!["rejected r9".to_owned()]));
    assert_eq!(table.approved(), ["a", "c"]);
    assert_eq!(table.connect(commands(&["a", "d"]), ASK).0, ["requested r10"]);
}

#[test]
fn p_60_caps_and_permissions_widen_too() {
    let surface = |caps: &[&str], permissions: &[(&str, bool)]| Surface {
        caps: names(caps),
        commands: names(&["a"]),
        permissions: permissions.iter().map(|(name, on)| ((*name).to_owned(), *on)).collect(),
    };
    let rows: &[(Surface, bool)] = &[
        (surface(&["system"], &[("accessibility", false)]), false),
        (surface(&[], &[]), false),
        (surface(&["system"], &[("camera", false)]), false),
        (surface(&["system", "browser"], &[]), true),
        (surface(&["system"], &[("accessibility", true)]), true),
        (surface(&["system"], &[("camera", true)]), true),
    ];
    for (declared, asks) in rows {
        let mut table = Table::new();
        table.connect(surface(&["system"], &[("accessibility", false)]), ASK);
        table.approve("r1").expect("approves");
        table.connect(declared.clone(), ASK);
        assert_eq!(table.pending().is_some(), *asks, "{declared:?}");
    }
}

/// A node that was asked about once is never again taken at its word, whatever version it speaks.
#[test]
fn p_60_consent_with_pairing_counts_once() {
    let mut table = Table::new();
    assert_eq!(table.connect(commands(&["a"]), Consent::Given), (vec![], true));
    assert_eq!(table.approved(), ["a"]);
    assert_eq!(table.connect(commands(&["a", "b"]), Consent::Given).0, ["requested r2"]);
    assert_eq!(table.approved(), ["a"]);

    let mut table = Table::new();
    table.connect(commands(&["a"]), ASK);
    assert_eq!(table.connect(commands(&["a"]), Consent::Given), (vec![], false), "still waits");
    let _ = table.surfaces.reject(5, &request("r1")).expect("rejects");
    assert_eq!(table.connect(commands(&["a"]), Consent::Given).0, ["requested r3"]);
    assert!(table.approved().is_empty());
}

#[test]
fn p_39_nobody_approves_more_than_he_may() {
    let check = |asked: &[&str], scopes: &[Scope], expected: Option<Scope>| {
        let mut table = Table::new();
        table.connect(commands(asked), ASK);
        let before = table.surfaces.clone();
        let approver = Approver { scopes: scopes.iter().copied().collect(), owner: false };
        let outcome = table.surfaces.approve(9, &request("r1"), &approver);
        assert_eq!(outcome.as_ref().err().copied(), expected.map(SurfaceError::MissingScope), "{asked:?} {scopes:?}");
        if outcome.is_err() {
            assert_eq!(table.surfaces, before, "a refused approval changes nothing");
        }
    };
    check(&[], &[Scope::Pairing], None);
    check(&["device.info"], &[Scope::Pairing], Some(Scope::Write));
    check(&["device.info"], &[Scope::Pairing, Scope::Write], None);
    check(&["system.run"], &[Scope::Pairing, Scope::Write], Some(Scope::Admin));
    check(&["device.info", "fs.listDir"], &[Scope::Pairing, Scope::Write], Some(Scope::Admin));
    check(&["system.run"], &[Scope::Admin], None);
    check(&["device.info"], &[Scope::Write], Some(Scope::Pairing));
    let mut table = Table::new();
    table.connect(commands(&["system.run"]), ASK);
    let owner = Approver { scopes: ScopeSet::EMPTY, owner: true };
    assert!(table.surfaces.approve(9, &request("r1"), &owner).is_ok());
}

#[test]
fn removal_resolves_what_waits_and_forgets_the_rest() {
    let mut table = Table::new();
    table.connect(commands(&["a"]), ASK);
    table.approve("r1").expect("approves");
    table.connect(commands(&["a", "b"]), ASK);
    let effects = table.surfaces.forget(9, &id(1));
    assert_eq!(told(&effects), ["rejected r2", "removed -"]);
    assert_eq!(effects.changes, [NodeChange::Delete(id(1))]);
    assert!(matches!(&effects.events[1], NodeEvent::Resolved { decision: NodeDecision::Removed, .. }));
    assert_eq!(table.surfaces, Surfaces::default());
    assert_eq!(table.surfaces.forget(9, &id(1)), Effects::default());
    // Paired again, it starts from nothing.
    assert_eq!(table.connect(commands(&["a"]), ASK).0, ["requested r3"]);
}

#[test]
fn names_by_the_owner() {
    let mut table = Table::new();
    assert_eq!(table.surfaces.rename(&id(1), "x").err(), Some(SurfaceError::UnknownNode));
    table.connect(commands(&["a"]), ASK);
    for bad in ["", "   ", "a\nb", &"x".repeat(65)] {
        assert_eq!(table.surfaces.rename(&id(1), bad).err(), Some(SurfaceError::InvalidName), "{bad:?}");
    }
    let (name, effects) = table.surfaces.rename(&id(1), "  Renamed ").expect("renames");
    assert_eq!((name.as_str(), effects.changes.len()), ("Renamed", 1));
    table.connect(commands(&["a"]), ASK);
    assert_eq!(table.surfaces.get(&id(1)).and_then(|record| record.display_name.as_deref()), Some("Renamed"));
}

#[test]
fn a_new_version_of_the_node_is_remembered() {
    let mut table = Table::new();
    let newer = |table: &mut Table, version: &str| {
        let details = Details { version: Some(version.into()), ..Details::default() };
        !table.surfaces.reconcile(1, request("x"), &id(1), commands(&["a"]), details, ASK).changes.is_empty()
    };
    table.connect(commands(&["a"]), ASK);
    assert!(newer(&mut table, "2") && !newer(&mut table, "2"));
    assert_eq!(table.pending().as_deref(), Some("r1"));
    table.approve("r1").expect("approves");
    assert!(newer(&mut table, "3") && !newer(&mut table, "3"));
}

#[test]
fn declarations_are_cleaned() {
    let long = "x".repeat(129);
    let mut params = params(Role::Node, &["a", "b", "a", "", "with space", "new\nline", &long, "c"]);
    params.caps = names(&["system", "system", "\u{202e}evil"]);
    params.permissions =
        serde_json::from_value(json!({"camera": true, "odd": "yes", "n": 1, "a b": true})).expect("a map");
    let declared = Surface::declared(&params);
    assert_eq!(declared.commands, ["a", "b", "c"]);
    assert_eq!(declared.caps, ["system"]);
    assert_eq!(declared.permissions.into_iter().collect::<Vec<_>>(), [("camera".to_owned(), true)]);
}
