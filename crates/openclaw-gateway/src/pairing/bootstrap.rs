//! One-time pairing tokens: the owner's consent given ahead, to whoever presents the token first.
//!
//! ```text
//! invite ──► open ── redeem, by the first device that comes ──► gone; that device is paired
//!              ├──── its time is over, the clock was set back, or who made it lost his rights ──► gone
//!              └──── taken back by its maker ──► gone
//! ```
//!
//! Only the token's SHA-256 is kept. Redeeming and pairing are one decision and one transaction, so of any number of
//! devices that race, one is paired; the rest learn what they would learn about a token that never was.
//!
//! A token must not live longer because somebody set the clock back. While the gateway runs, its age is also
//! taken from a clock that cannot be set; across a restart, a wall clock that shows less than the stored records are old
//! ends every token.

use std::collections::BTreeMap;

use openclaw_protocol::{DeviceId, Role, Scope, ScopeSet, Secret, method::invite::SetupAccess, secret::hex};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::{
    device::DevicePairing,
    effects::{DeviceChange, Effects, PairingEvent},
    record::{ApprovedVia, BACKWARD_STEP_MS, IssuerGeneration, PairedDevice, PairingRequest},
    token::Issued,
};
use crate::auth::decide::PairReason;

/// Tokens that may wait at once.
pub const MAX_BOOTSTRAPS: usize = 64;

/// Both clocks of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Since the epoch.
    pub wall_ms: i64,
    /// Since the start of the process; never goes back.
    pub uptime_ms: u64,
}

/// SHA-256 of a token's text, in hex.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenDigest(String);

impl TokenDigest {
    pub fn of(token: &str) -> Self {
        Self(hex(&Sha256::digest(token.as_bytes())))
    }

    /// As stored.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a token grants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    pub node: bool,
    /// Scopes as an operator; `None` is no operator at all.
    pub operator: Option<ScopeSet>,
}

impl Rights {
    /// The scopes in a role, if the token has it.
    pub fn of(self, role: Role) -> Option<ScopeSet> {
        match role {
            Role::Node => self.node.then_some(ScopeSet::EMPTY),
            Role::Operator => self.operator,
        }
    }

    pub fn roles(self) -> impl Iterator<Item = (Role, ScopeSet)> {
        Role::ALL.into_iter().filter_map(move |role| Some((role, self.of(role)?)))
    }

    /// The rights in the reference's three words.
    pub fn access(self) -> SetupAccess {
        match self.operator {
            None => SetupAccess::Node,
            Some(scopes) if scopes.grants(Scope::Admin) => SetupAccess::Full,
            Some(_) => SetupAccess::Limited,
        }
    }
}

/// Whose word a token rests on: it ends when theirs does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sponsor {
    Owner,
    /// Somebody who proved the shared secret of this generation; `None` where the gateway has none.
    Secret(Option<IssuerGeneration>),
    /// An administrator's device.
    Device(DeviceId),
}

impl Sponsor {
    /// As stored.
    pub fn to_text(&self) -> String {
        match self {
            Self::Owner => "owner".to_owned(),
            Self::Secret(generation) => {
                format!("secret:{}", generation.as_ref().map_or("", IssuerGeneration::as_str))
            }
            Self::Device(id) => format!("device:{id}"),
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(':') {
            None if text == "owner" => Some(Self::Owner),
            Some(("secret", "")) => Some(Self::Secret(None)),
            Some(("secret", generation)) => Some(Self::Secret(Some(IssuerGeneration::new(generation)))),
            Some(("device", id)) => DeviceId::parse(id).map(Self::Device),
            _ => None,
        }
    }
}

/// A token that waits, without its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bootstrap {
    pub digest: TokenDigest,
    /// Names it to the owner; of no use to redeem it.
    pub setup_id: String,
    pub rights: Rights,
    /// The owner's name for the device that will come.
    pub label: Option<String>,
    pub sponsor: Sponsor,
    pub created_at_ms: i64,
    pub expires_at_ms: i64,
    /// What its join URL still answers to the first who asks, the token itself left out: that follows from the URL.
    pub join: Option<String>,
}

/// What is asked for when a token is made.
#[derive(Clone, Debug)]
pub struct Invitation {
    pub setup_id: String,
    pub rights: Rights,
    pub label: Option<String>,
    pub sponsor: Sponsor,
    pub ttl_ms: i64,
    /// As [`Bootstrap::join`].
    pub join: Option<String>,
}

/// Too many tokens wait unused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("too many one-time codes wait unused; they end by themselves")]
pub struct TooManyBootstraps;

/// Why a token does not pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BootstrapError {
    /// Never made, used, over, or its maker lost his rights: one answer for all.
    #[error("unknown one-time token")]
    Unknown,
    /// It holds, and grants less than is asked for. It is not used up.
    #[error("the one-time token was made for another role or for fewer scopes")]
    Beyond,
}

/// What a redeemed token led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redeemed {
    pub setup_id: String,
    pub access: SetupAccess,
    pub device: PairedDevice,
    /// Tokens of the granted roles besides the one that was connected in.
    pub others: Vec<(Role, Issued)>,
}

/// The tokens that wait.
#[derive(Clone, Debug, Default)]
pub(super) struct Bootstraps {
    open: BTreeMap<TokenDigest, Held>,
    /// The wall clock was at least here once.
    floor_ms: i64,
}

#[derive(Clone, Debug)]
struct Held {
    bootstrap: Bootstrap,
    /// Uptime at which it ends; unknown until it is looked at for the first time after a start.
    until_uptime_ms: Option<u64>,
}

impl Held {
    fn alive(&self, now: Moment) -> bool {
        let age = now.wall_ms.saturating_sub(self.bootstrap.created_at_ms);
        age >= -BACKWARD_STEP_MS
            && now.wall_ms < self.bootstrap.expires_at_ms
            && self.until_uptime_ms.is_none_or(|until| now.uptime_ms < until)
    }
}

impl Bootstraps {
    /// Notes the time, so that no token gets younger.
    fn observe(&mut self, now: Moment) {
        self.floor_ms = self.floor_ms.max(now.wall_ms);
        for held in self.open.values_mut() {
            let left = held.bootstrap.expires_at_ms.saturating_sub(now.wall_ms);
            let until = now.uptime_ms.saturating_add(u64::try_from(left).unwrap_or(0));
            held.until_uptime_ms.get_or_insert(until);
        }
    }

    /// The wall clock shows a time that is over.
    fn set_back(&self, now: Moment) -> bool {
        now.wall_ms < self.floor_ms - BACKWARD_STEP_MS
    }
}

impl DevicePairing {
    /// Adds the tokens that waited when the gateway stopped.
    #[must_use]
    pub fn with_bootstraps(mut self, rows: impl IntoIterator<Item = Bootstrap>) -> Self {
        let held = |bootstrap: Bootstrap| (bootstrap.digest.clone(), Held { bootstrap, until_uptime_ms: None });
        let open: BTreeMap<_, _> = rows.into_iter().map(held).collect();
        let made = open.values().map(|held| held.bootstrap.created_at_ms);
        let floor_ms = made.chain(self.newest_record_ms()).max().unwrap_or_default();
        self.bootstraps = Bootstraps { open, floor_ms };
        self
    }

    /// Notes the time. To be called once after a start, before anything is presented.
    pub fn observe(&mut self, now: Moment) {
        self.bootstraps.observe(now);
    }

    /// Tokens that wait, in no order.
    pub fn bootstraps(&self) -> impl Iterator<Item = &Bootstrap> {
        self.bootstraps.open.values().map(|held| &held.bootstrap)
    }

    /// Makes a token known. What is over is swept on the way. Returns when it ends.
    ///
    /// # Errors
    /// [`TooManyBootstraps`]
    pub fn invite(
        &mut self,
        now: Moment,
        asked: Invitation,
        fresh_token: &Secret,
    ) -> Result<(i64, Effects), TooManyBootstraps> {
        let before: Vec<TokenDigest> = self.bootstraps.open.keys().cloned().collect();
        if self.bootstraps.set_back(now) {
            // Older tokens are over; new ones are made by the clock as it is, which may have been wrong before.
            self.bootstraps = Bootstraps::default();
        }
        self.bootstraps.observe(now);
        self.bootstraps.open.retain(|_, held| held.alive(now));
        if self.bootstraps.open.len() >= MAX_BOOTSTRAPS {
            return Err(TooManyBootstraps);
        }
        let over = before.into_iter().filter(|digest| !self.bootstraps.open.contains_key(digest));
        let mut changes: Vec<DeviceChange> = over.map(DeviceChange::DeleteBootstrap).collect();
        let bootstrap = Bootstrap {
            digest: TokenDigest::of(fresh_token.expose()),
            setup_id: asked.setup_id,
            rights: asked.rights,
            label: asked.label,
            sponsor: asked.sponsor,
            created_at_ms: now.wall_ms,
            expires_at_ms: now.wall_ms.saturating_add(asked.ttl_ms),
            join: asked.join,
        };
        let until = now.uptime_ms.saturating_add(u64::try_from(asked.ttl_ms).unwrap_or(0));
        changes.push(DeviceChange::PutBootstrap(Box::new(bootstrap.clone())));
        let (digest, expires_at_ms) = (bootstrap.digest.clone(), bootstrap.expires_at_ms);
        self.bootstraps.open.insert(digest, Held { bootstrap, until_uptime_ms: Some(until) });
        Ok((expires_at_ms, Effects { changes, ..Effects::none() }))
    }

    /// Whether a token would pair a device in this role with these scopes. Decides nothing: another device may be faster.
    ///
    /// # Errors
    /// [`BootstrapError`]
    pub fn check_bootstrap(
        &self,
        now: Moment,
        presented: &str,
        role: Role,
        scopes: ScopeSet,
        generation: Option<&IssuerGeneration>,
    ) -> Result<(), BootstrapError> {
        self.open_bootstrap(now, presented, role, scopes, generation).map(|_| ())
    }

    /// Redeems a token: it is gone, and the device that `asked` is paired with exactly what it grants, besides what that
    /// device was approved for before. `fresh_tokens` are used for roles that have no token yet.
    ///
    /// # Errors
    /// [`BootstrapError`]; nothing changed.
    pub fn redeem(
        &mut self,
        now: Moment,
        presented: &str,
        asked: &PairingRequest,
        generation: Option<&IssuerGeneration>,
        fresh_tokens: [Secret; 2],
    ) -> Result<(Redeemed, Effects), BootstrapError> {
        self.bootstraps.observe(now);
        let bootstrap = self.open_bootstrap(now, presented, asked.role, asked.scopes, generation)?.clone();
        self.bootstraps.open.remove(&bootstrap.digest);
        let mut effects =
            Effects { changes: vec![DeviceChange::DeleteBootstrap(bootstrap.digest.clone())], ..Effects::none() };
        // The role that is connected in comes last, so that it is the one the record shows.
        let mut roles: Vec<(Role, ScopeSet)> = bootstrap.rights.roles().collect();
        roles.sort_by_key(|(role, _)| *role == asked.role);
        for ((role, scopes), fresh_token) in roles.iter().copied().zip(fresh_tokens) {
            let reason = match self.get(&asked.device_id) {
                _ if asked.reason == PairReason::MetadataUpgrade => PairReason::MetadataUpgrade,
                None => PairReason::NotPaired,
                Some(known) if !known.roles.contains(&role) => PairReason::RoleUpgrade,
                Some(_) => PairReason::ScopeUpgrade,
            };
            let granted = PairingRequest { role, scopes, reason, ..asked.clone() };
            let (_, granted) = self.grant(now.wall_ms, granted, ApprovedVia::Bootstrap, fresh_token);
            effects = effects.and(granted);
        }
        effects = effects.and(self.answer_pending(now.wall_ms, &asked.device_id));
        let Some(device) = self.devices.get_mut(&asked.device_id) else { return Err(BootstrapError::Unknown) };
        if let (None, Some(label)) = (&device.label, bootstrap.label) {
            device.label = Some(label);
        }
        let others = roles.iter().filter(|(role, _)| *role != asked.role);
        let others = others.filter_map(|(role, _)| {
            let token = device.tokens.get(role)?;
            let issued = Issued {
                token: token.secret.clone(),
                scopes: token.scopes,
                issued_at_ms: token.issued_at_ms(),
                reused: false,
            };
            Some((*role, issued))
        });
        let redeemed = Redeemed {
            setup_id: bootstrap.setup_id,
            access: bootstrap.rights.access(),
            others: others.collect(),
            device: device.clone(),
        };
        let changed = PairingEvent::Changed { device_id: asked.device_id.clone(), at_ms: now.wall_ms };
        Ok((redeemed, effects.put(device).event(changed)))
    }

    /// Answers a join URL, once: the token stays open, its URL does not. Returns what was kept for it, and its end.
    ///
    /// # Errors
    /// [`BootstrapError::Unknown`]; nothing changed.
    pub fn join(
        &mut self,
        now: Moment,
        token: &Secret,
        generation: Option<&IssuerGeneration>,
    ) -> Result<((String, i64), Effects), BootstrapError> {
        self.bootstraps.observe(now);
        self.live_bootstrap(now, token.expose(), generation)?;
        let held = self.bootstraps.open.get_mut(&TokenDigest::of(token.expose())).ok_or(BootstrapError::Unknown)?;
        let kept = held.bootstrap.join.take().ok_or(BootstrapError::Unknown)?;
        let changes = vec![DeviceChange::PutBootstrap(Box::new(held.bootstrap.clone()))];
        Ok(((kept, held.bootstrap.expires_at_ms), Effects { changes, ..Effects::none() }))
    }

    /// Takes tokens back by the id their owner knows. False when there is none (any more).
    pub fn take_back(&mut self, setup_id: &str) -> (bool, Effects) {
        let named = self.bootstraps.open.values().filter(|held| held.bootstrap.setup_id == setup_id);
        let named: Vec<TokenDigest> = named.map(|held| held.bootstrap.digest.clone()).collect();
        for digest in &named {
            self.bootstraps.open.remove(digest);
        }
        let found = !named.is_empty();
        let changes = named.into_iter().map(DeviceChange::DeleteBootstrap).collect();
        (found, Effects { changes, ..Effects::none() })
    }

    /// When a token ends that still waits, by the id its owner knows.
    pub fn waits_until(&self, now: Moment, setup_id: &str, generation: Option<&IssuerGeneration>) -> Option<i64> {
        let held = self.bootstraps.open.values().find(|held| held.bootstrap.setup_id == setup_id)?;
        let waits = !self.bootstraps.set_back(now) && held.alive(now);
        (waits && self.stands(&held.bootstrap.sponsor, generation)).then_some(held.bootstrap.expires_at_ms)
    }

    fn open_bootstrap(
        &self,
        now: Moment,
        presented: &str,
        role: Role,
        scopes: ScopeSet,
        generation: Option<&IssuerGeneration>,
    ) -> Result<&Bootstrap, BootstrapError> {
        let bootstrap = self.live_bootstrap(now, presented, generation)?;
        let granted = bootstrap.rights.of(role).ok_or(BootstrapError::Beyond)?;
        let asked = if role == Role::Node { ScopeSet::EMPTY } else { scopes };
        if granted.covers(asked) { Ok(bootstrap) } else { Err(BootstrapError::Beyond) }
    }

    fn live_bootstrap(
        &self,
        now: Moment,
        presented: &str,
        generation: Option<&IssuerGeneration>,
    ) -> Result<&Bootstrap, BootstrapError> {
        let held = self.bootstraps.open.get(&TokenDigest::of(presented)).ok_or(BootstrapError::Unknown)?;
        if self.bootstraps.set_back(now) || !held.alive(now) || !self.stands(&held.bootstrap.sponsor, generation) {
            return Err(BootstrapError::Unknown);
        }
        Ok(&held.bootstrap)
    }

    /// Whether who made a token could still make it.
    fn stands(&self, sponsor: &Sponsor, generation: Option<&IssuerGeneration>) -> bool {
        match sponsor {
            Sponsor::Owner => true,
            Sponsor::Secret(then) => then.as_ref() == generation,
            Sponsor::Device(id) => {
                let rights = self.get(id).and_then(|device| device.baseline(Role::Operator));
                rights.is_some_and(|scopes| scopes.grants(Scope::Admin))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use openclaw_protocol::{DeviceKey, method::device::Decision};

    use super::*;
    use crate::pairing::{
        ClientMeta, RequestId, TokenCheck,
        effects::{Disconnect, DisconnectCause},
    };

    const MINUTE: u64 = 60_000;
    const START: i64 = 1_800_000_000_000;

    fn key(seed: u8) -> DeviceKey {
        DeviceKey::from_seed(&[seed; 32])
    }

    fn scopes(names: &str) -> ScopeSet {
        ScopeSet::parse(&names.split_whitespace().map(|name| format!("operator.{name}")).collect::<Vec<_>>())
    }

    /// The state machine with both clocks, which a test moves apart.
    struct World {
        pairing: DevicePairing,
        now: Moment,
        made: u32,
        saved: BTreeMap<TokenDigest, Bootstrap>,
    }

    impl World {
        fn new() -> Self {
            let now = Moment { wall_ms: START, uptime_ms: 5_000 };
            Self { pairing: DevicePairing::default(), now, made: 0, saved: BTreeMap::new() }
        }

        fn pass(&mut self, ms: u64) {
            self.now.wall_ms += ms as i64;
            self.now.uptime_ms += ms;
        }

        fn save(&mut self, effects: &Effects) {
            for change in &effects.changes {
                match change {
                    DeviceChange::PutBootstrap(put) => drop(self.saved.insert(put.digest.clone(), (**put).clone())),
                    DeviceChange::DeleteBootstrap(digest) => drop(self.saved.remove(digest)),
                    _ => {}
                }
            }
        }

        /// A restart: what is saved is what is known.
        fn restart(&mut self) {
            let devices: Vec<_> = self.pairing.list(START).1.into_iter().cloned().collect();
            self.pairing = DevicePairing::from_rows(devices, []).with_bootstraps(self.saved.values().cloned());
            self.now.uptime_ms = 10;
            self.pairing.observe(self.now);
        }

        fn fresh(&mut self) -> Secret {
            self.made += 1;
            Secret::new(format!("token-{}", self.made))
        }

        fn invite_by(&mut self, rights: Rights, sponsor: Sponsor) -> Secret {
            let token = self.fresh();
            let setup_id = format!("setup-{}", self.made);
            let ttl_ms = 10 * MINUTE as i64;
            let asked = Invitation { setup_id, rights, label: Some("new".into()), sponsor, ttl_ms, join: None };
            let (ends, effects) = self.pairing.invite(self.now, asked, &token).expect("room");
            assert_eq!(ends, self.now.wall_ms + ttl_ms);
            self.save(&effects);
            token
        }

        fn invite(&mut self, operator: &str) -> Secret {
            self.invite_by(Rights { node: false, operator: Some(scopes(operator)) }, Sponsor::Owner)
        }

        fn asked(&self, device: u8, role: Role, names: &str) -> PairingRequest {
            PairingRequest {
                device_id: key(device).id(),
                public_key: key(device).public(),
                role,
                scopes: scopes(names),
                client: ClientMeta { platform: Some("linux".into()), ..ClientMeta::default() },
                remote_ip: None,
                reason: PairReason::NotPaired,
                silent: false,
            }
        }

        fn redeem(&mut self, token: &str, device: u8, role: Role, names: &str) -> Result<Redeemed, BootstrapError> {
            let asked = self.asked(device, role, names);
            let fresh = [self.fresh(), self.fresh()];
            let check = self.pairing.check_bootstrap(self.now, token, role, asked.scopes, None);
            let outcome = self.pairing.redeem(self.now, token, &asked, None, fresh);
            assert_eq!(check.err(), outcome.as_ref().err().copied(), "looking and redeeming agree");
            outcome.map(|(redeemed, effects)| {
                self.save(&effects);
                redeemed
            })
        }

        fn approved(&self, device: u8) -> Option<ScopeSet> {
            self.pairing.get(&key(device).id())?.baseline(Role::Operator)
        }
    }

    const UNKNOWN: Option<BootstrapError> = Some(BootstrapError::Unknown);
    const BEYOND: Option<BootstrapError> = Some(BootstrapError::Beyond);

    #[test]
    fn p_44_a_token_pairs_once_and_exactly() {
        let mut world = World::new();
        let token = world.invite("read write");
        let redeemed = world.redeem(token.expose(), 1, Role::Operator, "read").expect("paired");
        assert_eq!((redeemed.setup_id.as_str(), redeemed.access), ("setup-1", SetupAccess::Limited));
        assert_eq!(redeemed.device.approved_via, Some(ApprovedVia::Bootstrap));
        assert_eq!(redeemed.device.label.as_deref(), Some("new"));
        assert_eq!(world.approved(1), Some(scopes("read write")), "what was granted, not only what was asked first");
        // The device's own token carries all of it.
        let secret = redeemed.device.tokens[&Role::Operator].secret.clone();
        let id = key(1).id();
        let check = TokenCheck {
            device_id: &id,
            role: Role::Operator,
            presented: secret.expose(),
            requested: scopes("write"),
            generation: None,
        };
        assert!(world.pairing.verify(&check).is_ok());
        // Again, from the same device, from another, and after a restart: it never was.
        assert_eq!(world.redeem(token.expose(), 1, Role::Operator, "read").err(), UNKNOWN);
        assert_eq!(world.redeem(token.expose(), 2, Role::Operator, "read").err(), UNKNOWN);
        world.restart();
        assert_eq!(world.redeem(token.expose(), 2, Role::Operator, "").err(), UNKNOWN);
        assert_eq!(world.approved(2), None);
    }

    #[test]
    fn p_44_nothing_beyond_the_token() {
        let mut world = World::new();
        let token = world.invite("read");
        for (role, names) in [(Role::Node, ""), (Role::Operator, "admin"), (Role::Operator, "read pairing")] {
            assert_eq!(world.redeem(token.expose(), 1, role, names).err(), BEYOND, "{role} {names}");
        }
        for wrong in ["", "token-2", "TOKEN-1", "token-1 ", TokenDigest::of("token-1").as_str()] {
            assert_eq!(world.redeem(wrong, 1, Role::Operator, "").err(), UNKNOWN, "{wrong:?}");
        }
        assert!(world.redeem(token.expose(), 1, Role::Operator, "read").is_ok(), "it is not used up by that");
        let none = world.invite("");
        assert_eq!(world.redeem(none.expose(), 3, Role::Operator, "read").err(), BEYOND);
        world.redeem(none.expose(), 3, Role::Operator, "").expect("no scopes are fine");
        assert_eq!(world.approved(3), Some(ScopeSet::EMPTY));
    }

    #[test]
    fn p_44_time_ends_it_whatever_the_clock_says() {
        // How long after the start the token is presented, after what happened, and whether it still pairs.
        type Happens = fn(&mut World);
        let rows: [(&str, Happens, bool); 9] = [
            ("just before", |w| w.pass(10 * MINUTE - 1), true),
            ("on time", |w| w.pass(10 * MINUTE), false),
            (
                "a restart between",
                |w| {
                    w.pass(9 * MINUTE);
                    w.restart();
                },
                true,
            ),
            (
                "over after a restart",
                |w| {
                    w.pass(9 * MINUTE);
                    w.restart();
                    w.pass(MINUTE);
                },
                false,
            ),
            ("a small step back", |w| w.now.wall_ms -= 20_000, true),
            ("the clock set back far", |w| w.now.wall_ms -= 40_000, false),
            (
                "set back again and again",
                |w| {
                    w.pass(9 * MINUTE);
                    w.now.wall_ms -= 9 * MINUTE as i64;
                    w.pass(MINUTE);
                },
                false,
            ),
            (
                "set back, seen at once",
                |w| {
                    w.pass(9 * MINUTE);
                    let _ = w.invite("");
                    w.now.wall_ms -= 9 * MINUTE as i64;
                },
                false,
            ),
            (
                "set back over a restart, and a device remembers later times",
                |w| {
                    w.pass(9 * MINUTE);
                    let other = w.invite("read");
                    w.redeem(other.expose(), 9, Role::Operator, "read").expect("paired");
                    w.now.wall_ms -= 9 * MINUTE as i64;
                    w.restart();
                },
                false,
            ),
        ];
        for (name, happens, pairs) in rows {
            let mut world = World::new();
            let token = world.invite("read");
            happens(&mut world);
            assert_eq!(world.redeem(token.expose(), 1, Role::Operator, "read").is_ok(), pairs, "{name}");
        }
    }

    #[test]
    fn a_clock_that_was_ahead_for_a_while_does_not_end_inviting() {
        let mut world = World::new();
        let year = 365 * 24 * 60 * MINUTE as i64;
        world.now.wall_ms += year;
        let ahead = world.invite("read");
        world.now.wall_ms -= year;
        let token = world.invite("read");
        assert_eq!(world.redeem(ahead.expose(), 1, Role::Operator, "read").err(), UNKNOWN);
        assert!(world.redeem(token.expose(), 1, Role::Operator, "read").is_ok());
        assert!(world.saved.is_empty(), "both are gone from the database too");
    }

    #[test]
    fn a_token_ends_with_the_rights_of_its_maker() {
        let mut world = World::new();
        let admin = world.invite("admin");
        world.redeem(admin.expose(), 1, Role::Operator, "admin").expect("an administrator");
        let rights = Rights { node: false, operator: Some(scopes("read")) };
        let by_device = |world: &mut World| world.invite_by(rights, Sponsor::Device(key(1).id()));
        let good = by_device(&mut world);
        assert!(world.redeem(good.expose(), 2, Role::Operator, "read").is_ok());
        let late = by_device(&mut world);
        let _ = world.pairing.remove(START, &key(1).id()).expect("removed");
        assert_eq!(world.redeem(late.expose(), 3, Role::Operator, "read").err(), UNKNOWN);
        // Made by proof of a shared secret that is not in force any more.
        let rotated = Sponsor::Secret(Some(IssuerGeneration::new("old")));
        let rotated = world.invite_by(rights, rotated);
        assert_eq!(world.redeem(rotated.expose(), 3, Role::Operator, "read").err(), UNKNOWN);
        let open = world.invite_by(rights, Sponsor::Secret(None));
        assert!(world.redeem(open.expose(), 3, Role::Operator, "read").is_ok());
        for sponsor in [Sponsor::Owner, Sponsor::Secret(None), Sponsor::Device(key(1).id())] {
            assert_eq!(Sponsor::parse(&sponsor.to_text()), Some(sponsor));
        }
    }

    #[test]
    fn both_roles_at_once_for_a_phone() {
        let mut world = World::new();
        let rights = Rights { node: true, operator: Some(scopes("read write")) };
        let token = world.invite_by(rights, Sponsor::Owner);
        let redeemed = world.redeem(token.expose(), 1, Role::Node, "").expect("paired");
        assert_eq!(redeemed.device.role, Role::Node);
        assert_eq!(redeemed.device.roles.len(), 2);
        let [(role, issued)] = redeemed.others.as_slice() else { panic!("{:?}", redeemed.others) };
        assert_eq!((*role, issued.scopes), (Role::Operator, scopes("read write")));
        assert_ne!(redeemed.device.tokens[&Role::Node].secret, issued.token);
    }

    #[test]
    fn a_paired_device_keeps_what_it_had_unless_it_changed() {
        for (changed, expected) in [(false, "admin read"), (true, "read")] {
            let mut world = World::new();
            let admin = world.invite("admin");
            world.redeem(admin.expose(), 1, Role::Operator, "admin").expect("paired");
            let read = world.invite("read");
            let mut asked = world.asked(1, Role::Operator, "read");
            asked.reason = if changed { PairReason::MetadataUpgrade } else { PairReason::ScopeUpgrade };
            let fresh = [world.fresh(), world.fresh()];
            let (_, effects) = world.pairing.redeem(world.now, read.expose(), &asked, None, fresh).expect("redeemed");
            assert_eq!(world.approved(1), Some(scopes(expected)));
            let cut = Disconnect {
                device_id: key(1).id(),
                role: Some(Role::Operator),
                cause: DisconnectCause::RightsReduced,
            };
            assert_eq!(effects.disconnect.contains(&cut), changed);
        }
    }

    #[test]
    fn a_waiting_request_is_answered_if_the_token_covers_it() {
        for (wish, answered) in [("read", true), ("admin", false)] {
            let mut world = World::new();
            let asked = world.asked(1, Role::Operator, wish);
            let _ = world.pairing.request(world.now.wall_ms, RequestId::new("r"), asked).expect("room");
            let token = world.invite("read");
            let asked = world.asked(1, Role::Operator, "read");
            let fresh = [world.fresh(), world.fresh()];
            let (_, effects) = world.pairing.redeem(world.now, token.expose(), &asked, None, fresh).expect("redeemed");
            let resolved =
                |event: &PairingEvent| matches!(event, PairingEvent::Resolved { decision: Decision::Approved, .. });
            assert_eq!(effects.events.iter().any(resolved), answered);
            assert_eq!(world.pairing.pending(world.now.wall_ms, &RequestId::new("r")).is_none(), answered);
        }
    }

    #[test]
    fn a_revoked_role_comes_back_by_a_new_token_with_its_scopes_only() {
        let mut world = World::new();
        let admin = world.invite("admin");
        world.redeem(admin.expose(), 1, Role::Operator, "admin").expect("paired");
        let _ = world.pairing.revoke(world.now.wall_ms, &key(1).id(), Role::Operator).expect("revoked");
        let read = world.invite("read");
        world.redeem(read.expose(), 1, Role::Operator, "read").expect("paired");
        assert_eq!(world.approved(1), Some(scopes("read")));
    }

    #[test]
    fn tokens_are_bounded_and_swept() {
        let mut world = World::new();
        for _ in 0..MAX_BOOTSTRAPS {
            let _ = world.invite("read");
        }
        let again = |world: &mut World| {
            let asked = Invitation {
                setup_id: "s".into(),
                rights: Rights::default(),
                label: None,
                sponsor: Sponsor::Owner,
                ttl_ms: 1,
                join: None,
            };
            let token = world.fresh();
            world.pairing.invite(world.now, asked, &token)
        };
        assert_eq!(again(&mut world).err(), Some(TooManyBootstraps));
        world.pass(10 * MINUTE);
        let (_, effects) = again(&mut world).expect("room again");
        assert_eq!(effects.changes.len(), MAX_BOOTSTRAPS + 1, "the old ones are deleted");
        assert_eq!(world.pairing.bootstraps().count(), 1);
    }

    #[test]
    fn a_join_url_answers_once_and_the_token_stays() {
        let mut world = World::new();
        let token = world.fresh();
        let asked = Invitation {
            setup_id: "join".into(),
            rights: Rights { node: true, operator: None },
            label: None,
            sponsor: Sponsor::Owner,
            ttl_ms: MINUTE as i64,
            join: Some("{}".into()),
        };
        let (ends, effects) = world.pairing.invite(world.now, asked, &token).expect("made");
        world.save(&effects);
        let guess = Secret::new("guess");
        assert_eq!(world.pairing.join(world.now, &guess, None).err(), Some(BootstrapError::Unknown));
        let (answer, effects) = world.pairing.join(world.now, &token, None).expect("once");
        assert_eq!((answer, effects.changes.len()), (("{}".to_owned(), ends), 1));
        assert_eq!(world.pairing.join(world.now, &token, None).err(), Some(BootstrapError::Unknown), "and not again");
        let check =
            |world: &World, role| world.pairing.check_bootstrap(world.now, token.expose(), role, ScopeSet::EMPTY, None);
        assert_eq!(check(&world, Role::Node), Ok(()));
        assert_eq!(check(&world, Role::Operator), Err(BootstrapError::Beyond));
        world.pass(2 * MINUTE);
        assert_eq!(check(&world, Role::Node), Err(BootstrapError::Unknown));
    }

    #[test]
    fn what_is_taken_back_is_gone() {
        let mut world = World::new();
        let (kept, gone) = (world.invite("read"), world.invite("read"));
        let name = |world: &World, token: &Secret| {
            let digest = TokenDigest::of(token.expose());
            world.pairing.bootstraps().find(|held| held.digest == digest).map(|held| held.setup_id.clone())
        };
        let id = name(&world, &gone).expect("waits");
        assert!(world.pairing.waits_until(world.now, &id, None).is_some());
        let (found, effects) = world.pairing.take_back(&id);
        assert!(found && effects.changes == [DeviceChange::DeleteBootstrap(TokenDigest::of(gone.expose()))]);
        assert_eq!((name(&world, &gone), world.pairing.waits_until(world.now, &id, None)), (None, None));
        assert!(name(&world, &kept).is_some());
        assert_eq!(world.pairing.take_back(&id), (false, Effects::none()));
    }

    #[test]
    fn nothing_kept_holds_the_text() {
        let mut world = World::new();
        let token = world.invite("read");
        assert!(!format!("{:?}", world.pairing).contains(token.expose()));
        assert_eq!(TokenDigest::of("abc").as_str(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
