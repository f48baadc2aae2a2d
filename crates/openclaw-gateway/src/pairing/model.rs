//! Every interleaving of pairing operations on a small world, checked against a ledger of what was really approved.
//!
//! The ledger is kept by other rules than the state machine's: it only adds rights when somebody entitled says yes, and
//! drops them when somebody takes them away. In every reachable state, whatever any device can do with any token it
//! ever saw, or with none, or over a connection that was admitted before, has to be in the ledger. Every state is also read
//! back from the real tables, as a restart would find it. States that differ only in the names of tokens and ids are one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    hash::{Hash, Hasher},
    sync::{Arc, Mutex, PoisonError},
};

use openclaw_protocol::{DeviceId, DeviceKey, Protocol, Role, Scope, ScopeSet, Secret};
use rusqlite::Connection;
use stateright::{Checker as _, Model, Property};

use super::*;
use crate::{
    auth::decide::PairReason,
    store::{found_at_start, tables},
};

/// Longest sequences of operations explored: from nothing, from the prepared start, and from there with connections told
/// apart. Six, four and three hold as well; they take minutes.
const DEPTHS: [usize; 3] = [4, 3, 2];
const NOW: i64 = 1_000_000;

/// What may be asked for: scopes are two, one of which implies the other.
const WISHES: [(Role, &[Scope]); 4] =
    [(Role::Operator, &[]), (Role::Operator, &[Scope::Read]), (Role::Operator, &[Scope::Admin]), (Role::Node, &[])];
const DEVICES: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Request {
        device: usize,
        wish: usize,
        changed: bool,
    },
    /// Of the device's live request for this role.
    Approve {
        device: usize,
        role: Role,
        by: usize,
    },
    /// Of a request that was live once.
    ApproveStale {
        by: usize,
    },
    ApproveSilently {
        device: usize,
        wish: usize,
    },
    /// Brings a one-time token made for this wish.
    Redeem {
        device: usize,
        made_for: usize,
        wish: usize,
        changed: bool,
    },
    Reject {
        device: usize,
        role: Role,
    },
    Remove {
        device: usize,
    },
    Revoke {
        device: usize,
        role: Role,
    },
    Rotate {
        device: usize,
        role: Role,
        wish: usize,
        by_device: Option<usize>,
    },
    /// Connects and gets a token.
    Connect {
        device: usize,
        wish: usize,
    },
    Expire,
    /// The gateway ends and starts again: what was saved is what there is, and nobody is connected.
    Restart,
}

/// Approver 0 is the owner, 1 holds pairing only, 2 holds pairing and read.
fn approver(by: usize) -> Approver {
    let scopes = [&[][..], &[Scope::Pairing], &[Scope::Pairing, Scope::Read]][by].iter().copied().collect();
    Approver { scopes, owner: by == 0 }
}

#[derive(Clone)]
struct World {
    pairing: DevicePairing,
    now: i64,
    /// Rights somebody entitled said yes to and nobody took away since.
    ledger: BTreeMap<(usize, Role), ScopeSet>,
    /// Every token text that was ever the one in force, by device and role, and whether it was replaced or taken away.
    tokens: BTreeMap<String, (usize, Role)>,
    dead: BTreeSet<String>,
    stale_requests: BTreeSet<RequestId>,
    /// Roles somebody revoked and nobody approved since.
    withdrawn: BTreeSet<(usize, Role)>,
    /// Connections that were admitted and not closed since, with their scopes.
    connected: BTreeSet<(usize, Role, Vec<&'static str>)>,
    disk: Disk,
    made: u32,
}

/// What was saved.
#[derive(Clone, Default)]
struct Disk {
    devices: BTreeMap<DeviceId, PairedDevice>,
    requests: BTreeMap<RequestId, PendingDevice>,
}

impl Disk {
    fn save(&mut self, changes: &[DeviceChange]) {
        for change in changes {
            match change {
                DeviceChange::PutDevice(device) => drop(self.devices.insert(device.id.clone(), (**device).clone())),
                DeviceChange::DeleteDevice(id) => drop(self.devices.remove(id)),
                DeviceChange::PutRequest(request) => {
                    drop(self.requests.insert(request.id.clone(), (**request).clone()))
                }
                DeviceChange::DeleteRequest(id) => drop(self.requests.remove(id)),
                // Made and redeemed within one step.
                DeviceChange::PutBootstrap(_) | DeviceChange::DeleteBootstrap(_) => {}
            }
        }
    }

    fn rows(&self) -> Vec<DeviceChange> {
        let devices = self.devices.values().map(|device| DeviceChange::PutDevice(Box::new(device.clone())));
        let requests = self.requests.values().map(|request| DeviceChange::PutRequest(Box::new(request.clone())));
        devices.chain(requests).collect()
    }
}

fn scopes(wish: usize) -> ScopeSet {
    WISHES[wish].1.iter().copied().collect()
}

struct Keys(Vec<(DeviceId, DeviceKey)>);

impl Keys {
    fn id(&self, device: usize) -> &DeviceId {
        &self.0[device].0
    }
}

impl World {
    fn request(&self, keys: &Keys, device: usize, wish: usize, changed: bool) -> PairingRequest {
        let (role, known) = (WISHES[wish].0, self.pairing.get(keys.id(device)));
        let reason = match known {
            None => PairReason::NotPaired,
            Some(known) if !known.roles.contains(&role) => PairReason::RoleUpgrade,
            Some(_) if changed => PairReason::MetadataUpgrade,
            Some(_) => PairReason::ScopeUpgrade,
        };
        let platform = if changed { "windows" } else { "linux" };
        PairingRequest {
            device_id: keys.id(device).clone(),
            public_key: keys.0[device].1.public(),
            role,
            scopes: scopes(wish),
            client: ClientMeta { platform: Some(platform.into()), ..ClientMeta::default() },
            remote_ip: None,
            reason,
            silent: false,
        }
    }

    /// Performs a step on both the state machine and the ledger; `None` when it was refused.
    fn step(&self, keys: &Keys, step: Step) -> Option<Self> {
        let mut next = self.clone();
        next.made += 1;
        let token = Secret::new(format!("t{}", next.made));
        let mut effects = Effects::none();
        match step {
            Step::Request { device, wish, changed } => {
                let asked = next.request(keys, device, wish, changed);
                let fresh = RequestId::new(format!("r{}", next.made));
                let others = |world: &Self| world.other_requests(keys, device, asked.role);
                let before = others(self);
                let (requested, made) = next.pairing.request(next.now, fresh, asked.clone()).ok()?;
                effects = made;
                assert_eq!(others(&next), before, "a request pushed out another one");
                next.stale_requests.extend(requested.superseded);
            }
            Step::Approve { device, role, by } => {
                let pending = next.pairing.pending_of(next.now, keys.id(device), role)?.clone();
                assert_eq!(pending.request.role, role);
                let before = self.other_requests(keys, device, role);
                effects = next.pairing.approve(next.now, &pending.id, &approver(by), token).ok()?.1;
                assert!(entitled(by, &pending.request, self, device), "{by} approved {:?}", pending.request);
                next.withdrawn.remove(&(device, pending.request.role));
                next.consent(device, &pending.request, true);
                next.stale_requests.insert(pending.id);
                assert_eq!(next.other_requests(keys, device, role), before, "one approval answered another request");
            }
            Step::ApproveStale { by } => {
                let stale = next.stale_requests.first()?.clone();
                let outcome = next.pairing.approve(next.now, &stale, &approver(by), token);
                assert_eq!(outcome.err(), Some(PairingError::UnknownRequest), "a resolved request came back");
                return None;
            }
            Step::ApproveSilently { device, wish } => {
                let asked = next.request(keys, device, wish, false);
                let waiting = next.pairing.pending_of(next.now, keys.id(device), asked.role).cloned();
                let asking = asked.clone();
                effects = next.pairing.approve_silent(next.now, asking, ApprovedVia::Silent, token, |_| true).ok()?.1;
                assert!(!self.withdrawn.contains(&(device, asked.role)), "withdrawn consent came back silently");
                next.consent(device, &asked, false);
                next.stale_requests.extend(waiting.filter(|w| w.request.same_as(&asked)).map(|w| w.id));
            }
            Step::Redeem { device, made_for, wish, changed } => {
                let (role, granted) = (WISHES[made_for].0, scopes(made_for));
                let operator = (role == Role::Operator).then_some(granted);
                let rights = Rights { node: role == Role::Node, operator };
                let now = Moment { wall_ms: next.now, uptime_ms: next.now.unsigned_abs() };
                let setup_id = format!("s{}", next.made);
                let asked =
                    Invitation { setup_id, rights, label: None, sponsor: Sponsor::Owner, ttl_ms: 60_000, join: None };
                let _ = next.pairing.invite(now, asked, &Secret::new("once")).ok()?;
                let asked = next.request(keys, device, wish, changed);
                let waiting = next.requests(keys, device);
                let fresh = [token, Secret::new(format!("t{}b", next.made))];
                effects = next.pairing.redeem(now, "once", &asked, None, fresh).ok()?.1;
                assert!(role == WISHES[wish].0 && granted.covers(scopes(wish)), "redeemed beyond the token");
                let again = next.pairing.check_bootstrap(now, "once", role, ScopeSet::EMPTY, None);
                assert_eq!(again, Err(BootstrapError::Unknown), "redeemed and still there");
                next.withdrawn.remove(&(device, role));
                next.consent(device, &PairingRequest { scopes: granted, ..asked }, true);
                let still = next.requests(keys, device);
                next.stale_requests.extend(waiting.into_iter().filter(|id| !still.contains(id)));
            }
            Step::Reject { device, role } => {
                let pending = next.pairing.pending_of(next.now, keys.id(device), role)?.id.clone();
                effects = next.pairing.reject(next.now, &pending).ok()?.1;
                next.stale_requests.insert(pending);
            }
            Step::Remove { device } => {
                let waiting = next.requests(keys, device);
                effects = next.pairing.remove(next.now, keys.id(device)).ok()?;
                assert_eq!(next.requests(keys, device), []);
                next.stale_requests.extend(waiting);
                for role in Role::ALL {
                    next.take_away(device, role);
                    next.withdrawn.remove(&(device, role));
                }
            }
            Step::Revoke { device, role } => {
                effects = next.pairing.revoke(next.now, keys.id(device), role).ok()?.1;
                next.withdrawn.insert((device, role));
                next.take_away(device, role);
            }
            Step::Rotate { device, role, wish, by_device } => {
                let caller = TokenCaller {
                    scopes: match by_device {
                        Some(by) => *next.ledger.get(&(by, Role::Operator))?,
                        None => ScopeSet::all(),
                    },
                    device_id: by_device.map(|by| keys.id(by).clone()),
                    own_token: by_device.is_some(),
                    owner: false,
                    protocol: Protocol::V4,
                };
                let asked = Some(scopes(wish));
                let (rotated, made) =
                    next.pairing.rotate(next.now, &caller, keys.id(device), role, asked, token).ok()?;
                effects = made;
                assert!(caller.scopes.covers(rotated.scopes), "rotated beyond the caller");
                assert!(rotated.token.is_none() || by_device == Some(device), "delivered to a stranger");
                let stranger = by_device.is_some_and(|by| by != device);
                assert!(!stranger || caller.scopes.grants(Scope::Admin), "rotated somebody else's token");
            }
            Step::Connect { device, wish } => {
                let asked = IssueRequest {
                    device_id: keys.id(device),
                    role: WISHES[wish].0,
                    scopes: scopes(wish),
                    generation: None,
                    bind: false,
                };
                effects = next.pairing.issue(next.now, &asked, token).ok()?.1;
                next.connected.insert((device, WISHES[wish].0, scopes(wish).names()));
            }
            Step::Expire => {
                next.now += 6 * 60_000;
                let live: Vec<RequestId> = self.pairing.list(self.now).0.iter().map(|p| p.id.clone()).collect();
                effects = next.pairing.expire(next.now);
                next.stale_requests.extend(live);
            }
            Step::Restart => {
                let saved = &next.disk;
                next.pairing =
                    DevicePairing::from_rows(saved.devices.values().cloned(), saved.requests.values().cloned());
                next.connected.clear();
            }
        }
        next.disk.save(&effects.changes);
        for gone in &effects.disconnect {
            let meant =
                |device: usize, role: Role| *keys.id(device) == gone.device_id && gone.role.is_none_or(|r| r == role);
            next.connected.retain(|(device, role, _)| !meant(*device, *role));
        }
        next.note_tokens(keys);
        Some(next)
    }

    /// What was saved is what is in force, and the tables give back what they were given.
    fn is_on_disk(&self, tables: &mut Connection) -> bool {
        found_at_start(tables, self.disk.rows()).list(self.now) == self.pairing.list(self.now)
    }

    /// Ids of the device's live requests.
    fn requests(&self, keys: &Keys, device: usize) -> Vec<RequestId> {
        let live = |role| self.pairing.pending_of(self.now, keys.id(device), role);
        Role::ALL.into_iter().filter_map(live).map(|pending| pending.id.clone()).collect()
    }

    /// The device's live requests apart from that for `role`, whole.
    fn other_requests(&self, keys: &Keys, device: usize, role: Role) -> Vec<PendingDevice> {
        let others = Role::ALL.into_iter().filter(|other| *other != role);
        others.filter_map(|other| self.pairing.pending_of(self.now, keys.id(device), other)).cloned().collect()
    }

    /// Consent to a request: to exactly its scopes when the role was not held or the owner looked at a changed device,
    /// else on top of what is held.
    fn consent(&mut self, device: usize, granted: &PairingRequest, by_owner: bool) {
        let entry = self.ledger.entry((device, granted.role));
        let changed = by_owner && granted.reason == PairReason::MetadataUpgrade;
        let held = if changed { ScopeSet::EMPTY } else { *entry.or_default() };
        self.ledger.insert((device, granted.role), held.union(granted.scopes));
    }

    fn take_away(&mut self, device: usize, role: Role) {
        self.ledger.remove(&(device, role));
        let gone = self.tokens.iter().filter(|(_, of)| **of == (device, role)).map(|(text, _)| text.clone());
        self.dead.extend(gone);
    }

    /// Learns the tokens in force; one that is not in force any more is dead for good.
    fn note_tokens(&mut self, keys: &Keys) {
        for device in 0..keys.0.len() {
            for role in Role::ALL {
                let record = self.pairing.get(keys.id(device)).and_then(|d| d.tokens.get(&role));
                let current = record.filter(|t| t.live()).map(|t| t.secret.expose().to_owned());
                let others =
                    self.tokens.iter().filter(|(text, of)| **of == (device, role) && Some(*text) != current.as_ref());
                self.dead.extend(others.map(|(text, _)| text.clone()));
                if let Some(current) = current {
                    assert!(!self.dead.contains(&current), "a dead token is in force again");
                    self.tokens.insert(current, (device, role));
                }
            }
        }
    }

    /// The promise: nothing beyond the ledger, by any token or by none.
    fn keeps_to_the_ledger(&self, keys: &Keys) -> bool {
        (0..keys.0.len()).all(|device| {
            WISHES.iter().enumerate().all(|(wish, (role, _))| self.gives_only_what_is_due(keys, device, wish, *role))
                && self.connections_of(device).all(|(role, held)| self.allows(device, role, ScopeSet::parse(held)))
                && self.pairing.get(keys.id(device)).is_none_or(|record| {
                    let within = |role| record.baseline(role).is_none_or(|scopes| self.allows(device, role, scopes));
                    Role::ALL.into_iter().all(within)
                })
        })
    }

    fn allows(&self, device: usize, role: Role, scopes: ScopeSet) -> bool {
        self.ledger.get(&(device, role)).is_some_and(|allowed| allowed.covers(scopes))
    }

    fn connections_of(&self, device: usize) -> impl Iterator<Item = (Role, &Vec<&'static str>)> {
        self.connected.iter().filter(move |(of, ..)| *of == device).map(|(_, role, held)| (*role, held))
    }

    /// By any token that ever was, and by having one issued.
    fn gives_only_what_is_due(&self, keys: &Keys, device: usize, wish: usize, role: Role) -> bool {
        let by_token = self.tokens.iter().all(|(text, of)| {
            let check = TokenCheck {
                device_id: keys.id(device),
                role,
                presented: text,
                requested: scopes(wish),
                generation: None,
            };
            self.pairing.verify(&check).map_or(true, |granted| {
                self.allows(device, role, granted.scopes) && *of == (device, role) && !self.dead.contains(text)
            })
        });
        let asked =
            IssueRequest { device_id: keys.id(device), role, scopes: scopes(wish), generation: None, bind: false };
        let issued = self.pairing.clone().issue(self.now, &asked, Secret::new("probe"));
        by_token && issued.map_or(true, |(issued, _)| self.allows(device, role, issued.scopes))
    }

    /// The state up to the names of tokens, requests and devices. Dead tokens are left out: [`World::note_tokens`] sees
    /// that none of them is ever in force again.
    ///
    /// With `connections`, who is connected makes a state of its own; without, it is the first way there that counts.
    fn shape(&self, keys: &Keys, connections: bool) -> String {
        let shape_of = |device: usize| {
            let record = self.pairing.get(keys.id(device)).map(|d| {
                let tokens: Vec<_> = d.tokens.iter().map(|(r, t)| (*r, t.live(), t.scopes)).collect();
                (d.roles.clone(), d.approved_scopes, d.client.platform.clone(), d.approved_via, tokens)
            });
            let pending = Role::ALL.map(|role| {
                let pending = self.pairing.pending_of(self.now, keys.id(device), role);
                pending.map(|p| (p.request.role, p.request.scopes, p.request.reason, p.request.client.platform.clone()))
            });
            let held: Vec<_> = Role::ALL.iter().map(|role| self.ledger.get(&(device, *role))).collect();
            let connected = self.connected.iter().filter(|(of, ..)| connections && *of == device);
            let connected: Vec<_> = connected.map(|(_, role, scopes)| (role, scopes)).collect();
            format!("{record:?}{pending:?}{held:?}{connected:?}")
        };
        let mut shapes: Vec<String> = (0..keys.0.len()).map(shape_of).collect();
        shapes.sort();
        format!("{shapes:?}{}", self.stale_requests.is_empty())
    }
}

/// Who may say yes, said in other words than the state machine does.
fn entitled(by: usize, request: &PairingRequest, before: &World, device: usize) -> bool {
    let owner = by == 0;
    let known = before.ledger.keys().any(|(of, _)| *of == device) || before.pairing.get(&request.device_id).is_some();
    let node_upgrade = request.role == Role::Node && known && !before.ledger.contains_key(&(device, Role::Node));
    let asks = |scope| request.scopes.has(scope);
    owner || (!asks(Scope::Admin) && !node_upgrade && (!asks(Scope::Read) || by == 2))
}

fn steps() -> Vec<Step> {
    let mut steps = vec![Step::Expire, Step::Restart, Step::ApproveStale { by: 0 }];
    for device in 0..DEVICES {
        for wish in 0..WISHES.len() {
            steps.push(Step::Request { device, wish, changed: false });
            steps.push(Step::ApproveSilently { device, wish });
            steps.push(Step::Connect { device, wish });
            steps.push(Step::Redeem { device, made_for: wish, wish, changed: false });
        }
        steps.push(Step::Redeem { device, made_for: 2, wish: 1, changed: false });
        steps.push(Step::Redeem { device, made_for: 1, wish: 2, changed: false });
        steps.push(Step::Redeem { device, made_for: 1, wish: 1, changed: true });
        steps.push(Step::Request { device, wish: 0, changed: true });
        steps.push(Step::Request { device, wish: 1, changed: true });
        steps.push(Step::Request { device, wish: 3, changed: true });
        steps.push(Step::Remove { device });
        for role in Role::ALL {
            steps.extend((0..3).map(|by| Step::Approve { device, role, by }));
            steps.push(Step::Reject { device, role });
            steps.push(Step::Revoke { device, role });
            for wish in 0..3 {
                for by_device in [None, Some(0), Some(1)] {
                    steps.push(Step::Rotate { device, role, wish, by_device });
                }
            }
        }
    }
    steps
}

/// F6, P-39…P-42, P-47, P-48: no order of operations yields a right that nobody approved, or keeps one after removal or
/// revocation, over a connection or across a restart.
#[test]
fn no_interleaving_yields_an_unapproved_right() {
    let keys = Keys((1..=DEVICES as u8).map(|n| DeviceKey::from_seed(&[n; 32])).map(|key| (key.id(), key)).collect());
    let start = World {
        pairing: DevicePairing::default(),
        now: NOW,
        ledger: BTreeMap::new(),
        tokens: BTreeMap::new(),
        dead: BTreeSet::new(),
        stale_requests: BTreeSet::new(),
        withdrawn: BTreeSet::new(),
        connected: BTreeSet::new(),
        disk: Disk::default(),
        made: 0,
    };
    // The second start is far from the first: an administrator that is a node too, and a reader who asks for more, all of
    // them connected.
    let prepared = [
        Step::ApproveSilently { device: 0, wish: 2 },
        Step::Request { device: 0, wish: 3, changed: false },
        Step::Approve { device: 0, role: Role::Node, by: 0 },
        Step::Request { device: 1, wish: 1, changed: false },
        Step::Approve { device: 1, role: Role::Operator, by: 2 },
        Step::Connect { device: 0, wish: 2 },
        Step::Connect { device: 0, wish: 3 },
        Step::Connect { device: 1, wish: 1 },
        Step::Request { device: 1, wish: 2, changed: false },
    ];
    let prepared = prepared.into_iter().fold(start.clone(), |world, step| world.step(&keys, step).expect("goes"));
    let keys = Arc::new(keys);
    let reached = explore(&keys, start, DEPTHS[0], false)
        + explore(&keys, prepared.clone(), DEPTHS[1], false)
        + explore(&keys, prepared, DEPTHS[2], true);
    assert!(reached > 7_000, "the exploration reached only {reached} states");
}

/// A world as the checker knows it: two of the same shape are one.
#[derive(Clone)]
struct Seen {
    world: Arc<World>,
    shape: String,
    /// Steps from the start: the fewest, since the search is breadth first.
    steps: usize,
}

impl PartialEq for Seen {
    fn eq(&self, other: &Self) -> bool {
        self.shape == other.shape
    }
}

impl Hash for Seen {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.shape.hash(state);
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shape)
    }
}

struct Explored {
    keys: Arc<Keys>,
    start: World,
    steps: Vec<Step>,
    depth: usize,
    connections: bool,
    tables: Mutex<Connection>,
}

impl Explored {
    fn seen(&self, world: World, steps: usize) -> Seen {
        Seen { shape: world.shape(&self.keys, self.connections), world: Arc::new(world), steps }
    }
}

impl Model for Explored {
    type State = Seen;
    type Action = Step;

    fn init_states(&self) -> Vec<Seen> {
        vec![self.seen(self.start.clone(), 0)]
    }

    fn actions(&self, seen: &Seen, actions: &mut Vec<Step>) {
        if seen.steps < self.depth {
            actions.extend(&self.steps);
        }
    }

    fn next_state(&self, last: &Seen, step: Step) -> Option<Seen> {
        last.world.step(&self.keys, step).map(|world| self.seen(world, last.steps + 1))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "no right that nobody approved, and none that was taken away",
                |model: &Self, state: &Seen| state.world.keeps_to_the_ledger(&model.keys),
            ),
            Property::always("a restart finds what is in force", |model: &Self, state: &Seen| {
                state.world.is_on_disk(&mut model.tables.lock().unwrap_or_else(PoisonError::into_inner))
            }),
        ]
    }
}

/// Breadth first, so that the path told by a failure is a shortest one.
fn explore(keys: &Arc<Keys>, start: World, depth: usize, connections: bool) -> usize {
    let (keys, tables) = (Arc::clone(keys), Mutex::new(tables()));
    let model = Explored { keys, start, steps: steps(), depth, connections, tables };
    let checker = model.checker().spawn_bfs().join();
    checker.assert_properties();
    checker.unique_state_count()
}
