//! The rules of pairing as tables, by security case where there is one.

use openclaw_protocol::{
    DeviceId, DeviceKey, Protocol, Role, Scope, ScopeSet, Secret,
    method::device::{Decision, TokenDelivery},
};

use super::{
    device::{MAX_PENDING, MAX_PENDING_PER_SOURCE},
    token::token_from_bytes,
    *,
};
use crate::auth::decide::PairReason;

type Outcome<T> = Result<T, PairingError>;
type Differ = fn(&mut PairingRequest);

const OWNER: Approver = Approver { scopes: ScopeSet::EMPTY, owner: true };
const MINUTE: i64 = 60_000;

fn scopes(names: &str) -> ScopeSet {
    ScopeSet::parse(&names.split_whitespace().map(|name| format!("operator.{name}")).collect::<Vec<_>>())
}

fn approver(names: &str) -> Approver {
    Approver { scopes: scopes(names), owner: false }
}

fn id(device: u32) -> DeviceId {
    key(device).id()
}

fn key(device: u32) -> DeviceKey {
    let mut seed = [7; 32];
    seed[..4].copy_from_slice(&device.to_be_bytes());
    DeviceKey::from_seed(&seed)
}

/// A state machine with its clock and its supply of ids and tokens.
#[derive(Default)]
struct World {
    pairing: DevicePairing,
    now: i64,
    made: u32,
}

impl World {
    fn fresh(&mut self) -> Secret {
        self.made += 1;
        Secret::new(format!("token-{}", self.made))
    }

    fn wish(&self, device: u32, role: Role, names: &str) -> PairingRequest {
        let known = self.pairing.get(&id(device));
        let reason = match known {
            None => PairReason::NotPaired,
            Some(known) if !known.roles.contains(&role) => PairReason::RoleUpgrade,
            Some(_) => PairReason::ScopeUpgrade,
        };
        PairingRequest {
            device_id: id(device),
            public_key: key(device).public(),
            role,
            scopes: scopes(names),
            client: ClientMeta {
                platform: Some("linux".into()),
                client_id: Some("cli".into()),
                ..ClientMeta::default()
            },
            remote_ip: Some([192, 168, 1, 9].into()),
            reason,
            silent: false,
        }
    }

    fn ask_as(&mut self, wish: PairingRequest) -> Result<(Requested, Effects), Full> {
        self.made += 1;
        let fresh = RequestId::new(format!("request-{}", self.made));
        self.pairing.request(self.now, fresh, wish)
    }

    fn ask(&mut self, device: u32, role: Role, names: &str) -> RequestId {
        let wish = self.wish(device, role, names);
        self.ask_as(wish).expect("room").0.request_id
    }

    fn approve(&mut self, id: &RequestId, by: Approver) -> Result<PairedDevice, PairingError> {
        let token = self.fresh();
        self.pairing.approve(self.now, id, &by, token).map(|(approval, _)| approval.device)
    }

    /// Pairs a device and gives its token.
    fn pair(&mut self, device: u32, role: Role, names: &str) -> Secret {
        let request = self.ask(device, role, names);
        self.approve(&request, OWNER).expect("approves").tokens[&role].secret.clone()
    }

    fn verify(&self, device: u32, role: Role, token: &str, names: &str) -> Result<ScopeSet, TokenError> {
        let check =
            TokenCheck { device_id: &id(device), role, presented: token, requested: scopes(names), generation: None };
        self.pairing.verify(&check).map(|granted| granted.scopes)
    }

    fn issue(&mut self, device: u32, role: Role, names: &str) -> Result<Issued, TokenError> {
        let token = self.fresh();
        let device_id = id(device);
        let asked = IssueRequest { device_id: &device_id, role, scopes: scopes(names), generation: None, bind: false };
        self.pairing.issue(self.now, &asked, token).map(|(issued, _)| issued)
    }

    fn rotate(
        &mut self,
        caller: &TokenCaller,
        device: u32,
        role: Role,
        names: Option<&str>,
    ) -> Result<Rotated, PairingError> {
        let token = self.fresh();
        let names = names.map(scopes);
        self.pairing.rotate(self.now, caller, &id(device), role, names, token).map(|(rotated, _)| rotated)
    }
}

fn caller(names: &str, device: Option<u32>, own_token: bool) -> TokenCaller {
    TokenCaller { scopes: scopes(names), device_id: device.map(id), own_token, owner: false, protocol: Protocol::V4 }
}

#[test]
fn the_same_wish_keeps_its_id_and_its_time() {
    let mut world = World::default();
    let first = world.ask(1, Role::Operator, "read");
    world.now = 4 * MINUTE;
    let mut again = world.wish(1, Role::Operator, "read");
    again.client.client_mode = Some("probe".into());
    again.remote_ip = Some([10, 0, 0, 1].into());
    let (requested, effects) = world.ask_as(again).expect("room");
    assert_eq!(requested, Requested { request_id: first.clone(), created: false, superseded: None });
    assert!(effects.is_none());
    world.now = 5 * MINUTE;
    assert!(world.pairing.pending(world.now, &first).is_none(), "retries extend nothing");
    assert_ne!(world.ask(1, Role::Operator, "read"), first);
}

#[test]
fn another_wish_replaces_the_request_and_its_id() {
    let differences: [(&str, Differ); 4] = [
        ("scopes", |wish| wish.scopes = scopes("read admin")),
        ("platform", |wish| wish.client.platform = Some("windows".into())),
        ("name", |wish| wish.client.display_name = Some("other".into())),
        ("origin", |wish| wish.client.browser_origin = Some("https://other.example".into())),
    ];
    for (what, differ) in differences {
        let mut world = World::default();
        let first = world.ask(1, Role::Operator, "read");
        let mut wish = world.wish(1, Role::Operator, "read");
        differ(&mut wish);
        let (requested, effects) = world.ask_as(wish).expect("room");
        assert_eq!(requested.superseded, Some(first.clone()), "{what}");
        let PairingEvent::Resolved { request_id, decision, .. } = &effects.events[0] else { panic!("{what}") };
        assert_eq!((request_id, *decision), (&first, Decision::Rejected), "{what}");
        assert!(matches!(&effects.events[1], PairingEvent::Requested(_)), "{what}");
        assert_eq!(world.approve(&first, OWNER), Err(PairingError::UnknownRequest), "{what}: approve while swapped");
        assert_eq!(world.pairing.list(0).0.len(), 1, "{what}: one request per device");
    }
}

/// The command line and the node host of one machine have one key.
#[test]
fn requests_of_one_device_for_different_roles_stand_side_by_side() {
    let mut world = World::default();
    let operator = world.ask(1, Role::Operator, "read");
    let node = world.ask(1, Role::Node, "");
    assert_eq!(world.ask(1, Role::Operator, "read"), operator);
    assert_eq!(world.ask(1, Role::Node, ""), node);
    assert_eq!(world.pairing.list(0).0.len(), 2);
    // Another wish for one role leaves the other alone.
    let wider = world.ask(1, Role::Operator, "read write");
    assert_eq!(world.approve(&operator, OWNER), Err(PairingError::UnknownRequest));
    // Each grants its own role only.
    world.approve(&node, OWNER).expect("approved");
    assert_eq!(world.pairing.get(&id(1)).map(|device| device.roles.len()), Some(1));
    assert!(world.pairing.pending(0, &wider).is_some());
    let (_, effects) = world.pairing.reject(0, &wider).expect("rejected");
    assert_eq!(effects.events.len(), 1);
    // The removed device loses both.
    let again = [world.ask(1, Role::Operator, "read"), world.ask(1, Role::Node, "")];
    let effects = world.pairing.remove(0, &id(1)).expect("removed");
    let told = effects.events.iter().filter(|event| matches!(event, PairingEvent::Resolved { .. })).count();
    assert_eq!((told, world.pairing.list(0).0.len()), (2, 0));
    for request in again {
        assert_eq!(world.approve(&request, OWNER), Err(PairingError::UnknownRequest));
    }
    // Nor does the flood's limit forget one of them.
    world.ask(1, Role::Operator, "read");
    assert_eq!(world.pairing.list(0).0.len(), 1);
}

#[test]
fn requests_die_after_five_minutes_and_when_the_clock_steps_back() {
    for (age, alive) in [(0, true), (5 * MINUTE - 1, true), (5 * MINUTE, false), (-20_000, true), (-MINUTE, false)] {
        let mut world = World { now: 100 * MINUTE, ..World::default() };
        let request = world.ask(1, Role::Operator, "read");
        world.now += age;
        assert_eq!(world.pairing.pending(world.now, &request).is_some(), alive, "{age}");
        assert_eq!(world.pairing.list(world.now).0.len(), usize::from(alive), "{age}");
        let expired = world.pairing.expire(world.now);
        assert_eq!(expired.changes.len(), usize::from(!alive), "{age}");
        assert_eq!(world.approve(&request, OWNER).is_ok(), alive, "{age}");
    }
}

#[test]
fn p_39_nobody_approves_beyond_his_own_rights() {
    let refused = |scope| Err(PairingError::MissingScope(scope));
    let table: [(&str, Role, &str, bool, Outcome<()>); 10] = [
        ("pairing", Role::Operator, "admin", false, refused(Scope::Admin)),
        ("pairing", Role::Operator, "read", false, refused(Scope::Read)),
        ("pairing write", Role::Operator, "read write", false, Ok(())),
        ("pairing write", Role::Operator, "approvals", false, refused(Scope::Approvals)),
        ("pairing", Role::Operator, "", false, Ok(())),
        ("write", Role::Operator, "", false, refused(Scope::Pairing)),
        ("admin", Role::Operator, "admin talk.secrets", false, Ok(())),
        ("pairing", Role::Node, "", false, Ok(())),
        ("pairing write", Role::Node, "", true, refused(Scope::Admin)),
        ("admin", Role::Node, "", true, Ok(())),
    ];
    for (by, role, asked, known, expected) in table {
        let mut world = World::default();
        if known {
            world.pair(1, Role::Operator, "read");
        }
        let request = world.ask(1, role, asked);
        let before = world.pairing.pending(0, &request).cloned();
        let result = world.approve(&request, approver(by)).map(drop);
        assert_eq!(result, expected, "{by} approves {role} {asked}");
        if expected.is_err() {
            assert_eq!(world.pairing.pending(0, &request).cloned(), before, "stays pending, unchanged");
            assert!(world.approve(&request, OWNER).is_ok(), "the owner can");
        }
    }
}

#[test]
fn p_39_a_node_request_carries_no_operator_scopes() {
    let mut world = World::default();
    let request = world.ask(1, Role::Node, "admin");
    let device = world.approve(&request, approver("pairing")).expect("a fresh node");
    assert_eq!(device.approved_scopes, ScopeSet::EMPTY);
    let token = device.tokens[&Role::Node].secret.clone();
    assert_eq!(world.verify(1, Role::Node, token.expose(), "admin"), Ok(ScopeSet::EMPTY));
    assert_eq!(world.verify(1, Role::Operator, token.expose(), "admin"), Err(TokenError::RoleMissing));
}

#[test]
fn approval_grants_what_was_asked_and_issues_the_token() {
    let mut world = World { now: 77, ..World::default() };
    let request = world.ask(1, Role::Operator, "read");
    let token = world.fresh();
    let (approval, effects) = world.pairing.approve(78, &request, &OWNER, token.clone()).expect("approves");
    let device = &approval.device;
    assert_eq!((device.approved_scopes, device.approved_via), (scopes("read"), Some(ApprovedVia::Owner)));
    assert_eq!((device.created_at_ms, device.approved_at_ms), (78, 78));
    assert_eq!(device.tokens[&Role::Operator].secret, token);
    assert_eq!(
        effects.changes,
        [DeviceChange::PutDevice(Box::new(device.clone())), DeviceChange::DeleteRequest(request.clone())]
    );
    let resolved =
        PairingEvent::Resolved { request_id: request, device_id: id(1), decision: Decision::Approved, at_ms: 78 };
    assert_eq!(effects.events, [resolved]);
    assert!(effects.disconnect.is_empty());
}

#[test]
fn approved_scopes_grow_by_what_was_asked_and_nothing_else() {
    let mut world = World::default();
    let old = world.pair(1, Role::Operator, "read");
    let request = world.ask(1, Role::Operator, "pairing");
    let device = world.approve(&request, OWNER).expect("approves");
    assert_eq!(device.approved_scopes, scopes("read pairing"));
    let token = &device.tokens[&Role::Operator];
    assert_eq!(token.scopes, scopes("read pairing"), "what it rightly carried before, and the new");
    assert_eq!(world.verify(1, Role::Operator, old.expose(), "read"), Err(TokenError::Mismatch), "old text stops");
}

#[test]
fn p_40_rotation_ceiling() {
    let denied = Err(PairingError::RotationDenied);
    let given = |names: &str| Ok(scopes(names));
    // (caller's scopes, caller's device, target device, scopes asked, outcome)
    type Row = (&'static str, Option<u32>, u32, Option<&'static str>, Outcome<ScopeSet>);
    let table: [Row; 14] = [
        ("pairing", Some(2), 2, Some("admin"), denied),
        ("pairing", Some(2), 1, Some("admin"), denied),
        ("write", Some(3), 3, Some("admin"), denied),
        ("write", Some(3), 1, None, denied),
        ("pairing", Some(2), 3, Some(""), denied),
        ("pairing", None, 2, None, given("pairing")),
        ("pairing", None, 3, None, denied),
        ("pairing", Some(2), 2, None, given("pairing")),
        ("pairing", Some(2), 2, Some(""), given("")),
        ("admin", Some(1), 2, None, given("pairing")),
        ("admin", Some(1), 2, Some("read"), denied),
        ("admin", None, 3, Some("read"), given("read")),
        ("admin", None, 9, None, denied),
        ("pairing", Some(3), 3, None, denied),
    ];
    for (names, device, target, asked, expected) in table {
        let mut world = World::default();
        world.pair(1, Role::Operator, "admin");
        world.pair(2, Role::Operator, "pairing");
        world.pair(3, Role::Operator, "write");
        let before = world.pairing.get(&id(target)).cloned();
        let result = world.rotate(&caller(names, device, true), target, Role::Operator, asked);
        assert_eq!(
            result.as_ref().map(|r| r.scopes).map_err(|e| *e),
            expected,
            "{names} {device:?} {target} {asked:?}"
        );
        if expected.is_err() {
            assert_eq!(world.pairing.get(&id(target)).cloned(), before, "nothing changed");
        }
    }
}

#[test]
fn p_40_the_token_goes_to_its_owner_only() {
    let admin = |device, own_token| caller("admin", device, own_token);
    let table = [
        (admin(Some(1), true), true),
        (admin(Some(1), false), false),
        (admin(Some(2), true), false),
        (admin(None, false), false),
        (TokenCaller { protocol: Protocol::V3, ..admin(Some(1), false) }, true),
        (TokenCaller { protocol: Protocol::V3, ..admin(Some(2), true) }, false),
        (TokenCaller { owner: true, ..admin(None, false) }, false),
    ];
    for (by, in_band) in table {
        let mut world = World::default();
        let old = world.pair(1, Role::Operator, "admin");
        let rotated = world.rotate(&by, 1, Role::Operator, None).expect("rotates");
        assert_eq!(rotated.token.is_some(), in_band, "{by:?}");
        assert_eq!(rotated.delivery == TokenDelivery::InBand, in_band, "{by:?}");
        assert_eq!(world.verify(1, Role::Operator, old.expose(), ""), Err(TokenError::Mismatch));
        if let Some(token) = rotated.token {
            assert_eq!(world.verify(1, Role::Operator, token.expose(), "admin"), Ok(scopes("admin")));
        }
    }
}

#[test]
fn p_41_a_role_that_is_not_approved_cannot_be_rotated_into() {
    let mut world = World::default();
    world.pair(1, Role::Operator, "admin");
    world.pair(2, Role::Node, "");
    let owner = TokenCaller { owner: true, ..caller("admin", Some(1), true) };
    for (device, role) in [(1, Role::Node), (2, Role::Operator)] {
        assert_eq!(world.rotate(&owner, device, role, None), Err(PairingError::RotationDenied));
        assert_eq!(world.rotate(&owner, device, role, Some("")), Err(PairingError::RotationDenied));
    }
    let _ = world.pairing.revoke(1, &id(1), Role::Operator).expect("revokes");
    assert_eq!(world.rotate(&owner, 1, Role::Operator, None), Err(PairingError::RotationDenied), "nor a revoked one");
}

#[test]
fn p_42_revocation_is_immediate_and_takes_the_approval_along() {
    let mut world = World::default();
    let operator = world.pair(1, Role::Operator, "admin");
    let node = world.pair(1, Role::Node, "");
    world.now = 9;
    let (at, effects) = world.pairing.revoke(9, &id(1), Role::Operator).expect("revokes");
    assert_eq!(at, 9);
    let closed = Disconnect { device_id: id(1), role: None, cause: DisconnectCause::TokenRevoked };
    assert_eq!(effects.disconnect, [closed]);
    assert_eq!(world.verify(1, Role::Operator, operator.expose(), ""), Err(TokenError::Revoked));
    assert_eq!(world.issue(1, Role::Operator, ""), Err(TokenError::RoleMissing), "next connect: role-upgrade pairing");
    let device = world.pairing.get(&id(1)).expect("still there");
    assert_eq!((device.approved_scopes, device.revoked(Role::Operator)), (ScopeSet::EMPTY, true));
    assert!(world.verify(1, Role::Node, node.expose(), "").is_ok(), "the node role was not revoked");
    assert_eq!(world.pairing.revoke(20, &id(1), Role::Operator).expect("again").0, 9, "the first time stays");
    assert_eq!(world.pairing.revoke(20, &id(2), Role::Node).err(), Some(PairingError::RevocationDenied));
    // What the owner took away does not come back without him.
    let wish = world.wish(1, Role::Operator, "read");
    let token = world.fresh();
    let silent = world.pairing.approve_silent(20, wish, ApprovedVia::Silent, token, |_| false);
    assert_eq!(silent.err(), Some(OwnerNeeded));
    let request = world.ask(1, Role::Operator, "read");
    let device = world.approve(&request, OWNER).expect("approves");
    assert_eq!(device.approved_scopes, scopes("read"), "the old admin right is not resurrected");
    assert_eq!(world.verify(1, Role::Operator, operator.expose(), ""), Err(TokenError::Mismatch));
}

#[test]
fn p_42_removal_forgets_every_role_and_the_pending_wish() {
    let mut world = World::default();
    let tokens = [world.pair(1, Role::Operator, "read"), world.pair(1, Role::Node, "")];
    let wish = world.ask(1, Role::Operator, "admin");
    let effects = world.pairing.remove(5, &id(1)).expect("removes");
    let closed = Disconnect { device_id: id(1), role: None, cause: DisconnectCause::Removed };
    assert_eq!(effects.disconnect, [closed]);
    assert_eq!(effects.changes, [DeviceChange::DeleteRequest(wish.clone()), DeviceChange::DeleteDevice(id(1))]);
    for (role, token) in Role::ALL.into_iter().zip(&tokens) {
        assert_eq!(world.verify(1, role, token.expose(), ""), Err(TokenError::NotPaired));
        assert_eq!(world.issue(1, role, ""), Err(TokenError::NotPaired));
    }
    assert_eq!(world.approve(&wish, OWNER), Err(PairingError::UnknownRequest));
    assert_eq!(world.pairing.remove(5, &id(1)).err(), Some(PairingError::UnknownDevice));
    let request = world.ask(1, Role::Operator, "");
    let device = world.approve(&request, OWNER).expect("approves");
    assert_eq!((device.approved_scopes, device.roles.len()), (ScopeSet::EMPTY, 1));
}

#[test]
fn p_46_a_flood_is_capped_and_evicts_nobody() {
    let mut world = World::default();
    let genuine = world.ask(1_000_000, Role::Operator, "read");
    let mut full = 0;
    for stranger in 0..1_000 {
        let mut wish = world.wish(stranger, Role::Operator, "admin");
        wish.remote_ip = Some([10, 0, 0, 1].into());
        full += usize::from(world.ask_as(wish).is_err());
    }
    assert_eq!(full, 1_000 - MAX_PENDING_PER_SOURCE);
    assert!(world.pairing.pending(0, &genuine).is_some());
    for (ip, expected) in [("::ffff:10.0.0.1", false), ("10.0.0.2", true)] {
        let mut wish = world.wish(5_000, Role::Operator, "admin");
        wish.remote_ip = Some(ip.parse().expect("address"));
        assert_eq!(world.ask_as(wish).is_ok(), expected, "{ip}");
    }
    for stranger in 10_000..11_000_u32 {
        let [_, _, high, low] = stranger.to_be_bytes();
        let mut wish = world.wish(stranger, Role::Operator, "admin");
        wish.remote_ip = Some([10, 1, high, low].into());
        let _ = world.ask_as(wish);
    }
    assert_eq!(world.pairing.list(0).0.len(), MAX_PENDING);
    assert!(world.pairing.pending(0, &genuine).is_some());
    assert_eq!(world.ask(1_000_000, Role::Operator, "read"), genuine, "a retry finds its request in the crowd");
    world.approve(&genuine, OWNER).expect("approves");
    // Known devices have room of their own.
    let upgrade = world.ask(1_000_000, Role::Operator, "admin");
    assert!(world.pairing.pending(0, &upgrade).is_some());
    world.now = 6 * MINUTE;
    let wish = world.wish(20_000, Role::Operator, "read");
    assert!(world.ask_as(wish).is_ok(), "the crowd expires");
    assert_eq!(world.pairing.list(world.now).0.len(), 1);
}

#[test]
fn p_47_empty_scopes_mean_none() {
    for take_away in ["remove", "revoke", "metadata"] {
        let mut world = World::default();
        let old = world.pair(1, Role::Operator, "admin read");
        let mut wish = world.wish(1, Role::Operator, "");
        match take_away {
            "remove" => drop(world.pairing.remove(1, &id(1)).expect("removes")),
            "revoke" => drop(world.pairing.revoke(1, &id(1), Role::Operator).expect("revokes")),
            _ => {
                wish.reason = PairReason::MetadataUpgrade;
                wish.client.platform = Some("windows".into());
            }
        }
        let request = world.ask_as(wish).expect("room").0.request_id;
        let device = world.approve(&request, approver("pairing")).expect("approves nothing much");
        assert_eq!(device.approved_scopes, ScopeSet::EMPTY, "{take_away}");
        let token = device.tokens[&Role::Operator].secret.clone();
        assert_eq!(
            world.verify(1, Role::Operator, token.expose(), "read"),
            Err(TokenError::ScopeMismatch),
            "{take_away}"
        );
        assert!(world.verify(1, Role::Operator, old.expose(), "").is_err(), "{take_away}");
        assert_eq!(world.issue(1, Role::Operator, "read"), Err(TokenError::ScopeMismatch), "{take_away}");
        assert_eq!(world.issue(1, Role::Operator, "").expect("issues").scopes, ScopeSet::EMPTY, "{take_away}");
    }
}

#[test]
fn p_48_a_changed_device_starts_from_what_is_approved_now() {
    let mut world = World::default();
    world.pair(1, Role::Operator, "admin");
    let node = world.pair(1, Role::Node, "");
    let mut wish = world.wish(1, Role::Operator, "read");
    wish.reason = PairReason::MetadataUpgrade;
    wish.client.platform = Some("windows".into());
    let token = world.fresh();
    let silent = world.pairing.approve_silent(0, wish.clone(), ApprovedVia::Silent, token, |_| false);
    assert_eq!(silent.err(), Some(OwnerNeeded), "never silently");
    let (requested, effects) = world.ask_as(wish).expect("room");
    let PairingEvent::Requested(pending) = &effects.events[0] else { panic!("requested") };
    assert!(view::pending(pending).is_repair);
    let token = world.fresh();
    let (approval, effects) = world.pairing.approve(1, &requested.request_id, &OWNER, token).expect("approves");
    assert_eq!(approval.device.approved_scopes, scopes("read"));
    assert_eq!(approval.device.client.platform.as_deref(), Some("windows"));
    let closed = Disconnect { device_id: id(1), role: Some(Role::Operator), cause: DisconnectCause::RightsReduced };
    assert_eq!(effects.disconnect, [closed]);
    assert!(world.verify(1, Role::Node, node.expose(), "").is_ok());
}

#[test]
fn p_48_a_silent_upgrade_keeps_the_pinned_details() {
    let mut world = World::default();
    world.pair(1, Role::Operator, "read");
    let mut wish = world.wish(1, Role::Operator, "write");
    wish.client.platform = Some("ios 18".into());
    let token = world.fresh();
    let (device, _) =
        world.pairing.approve_silent(1, wish, ApprovedVia::Silent, token, |_| false).expect("a scope upgrade");
    assert_eq!(device.approved_scopes, scopes("read write"));
    assert_eq!(device.client.platform.as_deref(), Some("linux"));
    assert_eq!(device.approved_via, Some(ApprovedVia::Owner), "the owner's word is not replaced by silence");
}

#[test]
fn p_48_a_token_is_good_for_its_own_device_only() {
    let mut world = World::default();
    let (one, two) = (world.pair(1, Role::Operator, "read"), world.pair(2, Role::Operator, "read"));
    assert!(world.verify(1, Role::Operator, one.expose(), "read").is_ok());
    assert_eq!(world.verify(1, Role::Operator, two.expose(), "read"), Err(TokenError::Mismatch));
    assert_eq!(world.verify(3, Role::Operator, one.expose(), "read"), Err(TokenError::NotPaired));
}

#[test]
fn p_52_nothing_is_normalised_before_comparing() {
    // 0xfb.. encodes to text with both letters that base64 and base64url spell differently.
    let token = token_from_bytes(&[0xfb; 32]);
    assert_eq!(token.len(), 43);
    let mut world = World::default();
    let request = world.ask(1, Role::Operator, "read");
    let _ = world.pairing.approve(0, &request, &OWNER, token.clone()).expect("approves");
    let text = token.expose();
    assert!(world.verify(1, Role::Operator, text, "read").is_ok());
    assert!(text.contains('-') || text.contains('_'), "{text}");
    for wrong in [
        format!("{text}\n"),
        format!("{text}\0"),
        format!(" {text}"),
        format!("{text}="),
        text.replace('-', "+").replace('_', "/"),
        text.replacen(|c: char| c.is_ascii_lowercase(), "\u{430}", 1),
        text.to_ascii_uppercase(),
        text[..42].to_owned(),
        String::new(),
    ] {
        assert_eq!(world.verify(1, Role::Operator, &wrong, "read"), Err(TokenError::Mismatch), "{wrong:?}");
    }
}

#[test]
fn tokens_are_reused_while_they_cover_the_request() {
    let mut world = World::default();
    let approved = world.pair(1, Role::Operator, "read write");
    let first = world.issue(1, Role::Operator, "read").expect("issues");
    assert!(first.reused && first.token == approved);
    let request = world.ask(1, Role::Operator, "admin");
    world.approve(&request, OWNER).expect("approves");
    // An approval in another way than through a request for all of it: the token lags behind the baseline.
    let narrowed = world.rotate(&caller("admin", None, false), 1, Role::Operator, Some("read")).expect("rotates");
    assert_eq!(narrowed.scopes, scopes("read"));
    let wider = world.issue(1, Role::Operator, "admin").expect("issues");
    assert!(!wider.reused);
    assert_eq!(wider.scopes, scopes("read admin"));
    assert_eq!(world.verify(1, Role::Operator, approved.expose(), "read"), Err(TokenError::Mismatch), "stops at once");
    assert_eq!(world.issue(1, Role::Operator, "talk.secrets").expect("admin implies it").token, wider.token);
}

#[test]
fn verification_names_the_first_reason() {
    let mut world = World::default();
    let token = world.pair(1, Role::Operator, "read");
    let check = |world: &World, device, role, text: &str, names| world.verify(device, role, text, names);
    assert_eq!(check(&world, 2, Role::Operator, token.expose(), "admin"), Err(TokenError::NotPaired));
    assert_eq!(check(&world, 1, Role::Node, token.expose(), ""), Err(TokenError::RoleMissing));
    assert_eq!(check(&world, 1, Role::Operator, "wrong", "admin"), Err(TokenError::Mismatch));
    assert_eq!(check(&world, 1, Role::Operator, token.expose(), "admin"), Err(TokenError::ScopeMismatch));
    assert_eq!(check(&world, 1, Role::Operator, token.expose(), "read"), Ok(scopes("read")));
    let mut device = world.pairing.get(&id(1)).expect("paired").clone();
    device.tokens.clear();
    let world = World { pairing: DevicePairing::from_rows([device], []), ..World::default() };
    assert_eq!(check(&world, 1, Role::Operator, token.expose(), "read"), Err(TokenError::Missing));
}

#[test]
fn a_browser_token_dies_with_the_shared_secret_that_earned_it() {
    let mut world = World::default();
    world.pair(1, Role::Operator, "read");
    let device_id = id(1);
    let (old, new) = (IssuerGeneration::of(&Secret::new("old")), IssuerGeneration::of(&Secret::new("new")));
    let issue = |world: &mut World, generation: &IssuerGeneration, bind| {
        let token = world.fresh();
        let asked = IssueRequest {
            device_id: &device_id,
            role: Role::Operator,
            scopes: scopes("read"),
            generation: Some(generation),
            bind,
        };
        world.pairing.issue(0, &asked, token).expect("issues")
    };
    let verify = |world: &World, token: &Secret, generation: Option<&IssuerGeneration>| {
        let check = TokenCheck {
            device_id: &device_id,
            role: Role::Operator,
            presented: token.expose(),
            requested: scopes("read"),
            generation,
        };
        world.pairing.verify(&check).map(drop)
    };
    let (bound, effects) = issue(&mut world, &old, true);
    assert!(bound.reused && !effects.changes.is_empty(), "the binding is saved");
    let (same, effects) = issue(&mut world, &old, false);
    assert!(same.reused && effects.is_none(), "a reconnect by device token changes nothing");
    assert_eq!(verify(&world, &bound.token, Some(&old)), Ok(()));
    assert_eq!(verify(&world, &bound.token, Some(&new)), Err(TokenError::Stale));
    assert_eq!(verify(&world, &bound.token, None), Err(TokenError::Stale));
    let (fresh, _) = issue(&mut world, &new, true);
    assert!(!fresh.reused);
    assert_eq!(verify(&world, &fresh.token, Some(&new)), Ok(()));
    assert_eq!(verify(&world, &bound.token, Some(&old)), Err(TokenError::Mismatch));
}

#[test]
fn silent_approval_resolves_the_waiting_request_and_prunes_leftovers() {
    let mut world = World::default();
    let named = |world: &World, device, name: Option<&str>| {
        let mut wish = world.wish(device, Role::Operator, "read");
        wish.client.display_name = name.map(str::to_owned);
        wish
    };
    let silently = |world: &mut World, wish: PairingRequest, connected: &[u32]| {
        let token = world.fresh();
        let connected: Vec<DeviceId> = connected.iter().map(|device| id(*device)).collect();
        world
            .pairing
            .approve_silent(0, wish, ApprovedVia::Silent, token, |id| connected.contains(id))
            .expect("approves")
            .1
    };
    for (device, name) in [(1, Some("laptop")), (2, Some("laptop")), (3, Some("desk")), (4, None)] {
        let wish = named(&world, device, name);
        let waiting = world.ask_as(wish.clone()).expect("room").0.request_id;
        let effects = silently(&mut world, wish, &[1]);
        let PairingEvent::Resolved { request_id, decision, .. } = &effects.events[0] else { panic!("resolved") };
        assert_eq!((request_id, *decision), (&waiting, Decision::Approved));
    }
    let by_owner = named(&world, 5, Some("laptop"));
    let request = world.ask_as(by_owner).expect("room").0.request_id;
    world.approve(&request, OWNER).expect("approves");
    let wish = named(&world, 6, Some("laptop"));
    let effects = silently(&mut world, wish, &[1]);
    assert!(effects.changes.contains(&DeviceChange::DeleteDevice(id(2))), "not connected, silent, same name");
    let left: Vec<bool> = (1..=6).map(|device| world.pairing.get(&id(device)).is_some()).collect();
    assert_eq!(left, [true, false, true, true, true, true]);
    let wish = named(&world, 7, None);
    let _ = silently(&mut world, wish, &[]);
    assert!(world.pairing.get(&id(4)).is_some(), "no name says nothing about being the same client");
}

#[test]
fn labels_are_checked() {
    let mut world = World::default();
    world.pair(1, Role::Operator, "read");
    let long = "ü".repeat(64);
    for (label, expected) in [
        ("Anna's laptop", Ok("Anna's laptop")),
        ("  padded ", Ok("padded")),
        (long.as_str(), Ok(long.as_str())),
        ("", Err(PairingError::LabelRequired)),
        ("   ", Err(PairingError::LabelRequired)),
        ("two\nlines", Err(PairingError::InvalidLabel)),
        ("\u{1b}[31mred", Err(PairingError::InvalidLabel)),
    ] {
        let result = world.pairing.rename(0, &id(1), label).map(|(label, _)| label);
        assert_eq!(result, expected.map(str::to_owned), "{label:?}");
    }
    assert_eq!(world.pairing.rename(0, &id(1), &"x".repeat(65)).err(), Some(PairingError::InvalidLabel));
    assert_eq!(world.pairing.rename(0, &id(9), "x").err(), Some(PairingError::UnknownDevice));
    assert_eq!(world.pairing.get(&id(1)).and_then(PairedDevice::shown_name), Some(long.as_str()));
}

/// Texts of releases 2026.9.6 and 2026.2.26 (`rpc-sweep`, `v3-rpc-sweep`, `password-and-pairing`, and observed).
#[test]
fn refusals_use_the_words_of_the_version() {
    for (error, v4, v3) in [
        (PairingError::UnknownRequest, "unknown requestId", "unknown requestId"),
        (PairingError::UnknownDevice, "unknown deviceId", "unknown deviceId"),
        (PairingError::LabelRequired, "label required", "label required"),
        (PairingError::RotationDenied, "device token rotation denied", "unknown deviceId/role"),
        (PairingError::RevocationDenied, "device token revocation denied", "unknown deviceId/role"),
        (PairingError::MissingScope(Scope::Admin), "missing scope: operator.admin", "missing scope: operator.admin"),
    ] {
        assert_eq!(error.shape(Protocol::V4).message, v4);
        assert_eq!(error.shape(Protocol::V3).message, v3);
    }
}

#[test]
fn p_50_lists_are_newest_first_and_show_no_token() {
    let mut world = World::default();
    let mut tokens = Vec::new();
    for device in 1..=3 {
        world.now = i64::from(device);
        tokens.push(world.pair(device, Role::Operator, "read"));
        world.ask(device + 10, Role::Node, "");
    }
    let listed = view::list(&world.pairing, world.now, |device| *device == id(2));
    let text = serde_json::to_string(&listed).expect("serialises");
    assert!(tokens.iter().all(|token| !text.contains(token.expose())));
    let paired: Vec<_> = listed.paired.iter().map(|d| (d.device_id.clone(), d.connected)).collect();
    let expected = [(3, false), (2, true), (1, false)].map(|(n, connected)| (id(n).to_string(), Some(connected)));
    assert_eq!(paired, expected);
    let pending: Vec<_> = listed.pending.iter().map(|p| p.device_id.clone()).collect();
    assert_eq!(pending, [13, 12, 11].map(|n| id(n).to_string()));
}

#[test]
fn touching_notes_use_by_token_only() {
    let mut world = World::default();
    world.pair(1, Role::Operator, "read");
    for (now, seen, reason, used) in
        [(5, Seen::Connect, "connect", None), (6, Seen::DeviceToken, "device-token-auth", Some(6))]
    {
        world.pairing.touch(now, &id(1), Role::Operator, seen);
        let device = world.pairing.get(&id(1)).expect("paired");
        assert_eq!((device.last_seen_at_ms, device.last_seen_reason.as_deref()), (Some(now), Some(reason)));
        assert_eq!(device.tokens[&Role::Operator].last_used_at_ms, used);
    }
}
