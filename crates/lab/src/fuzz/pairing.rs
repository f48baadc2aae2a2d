//! Sequences of pairing operations.
//!
//! The gateway's own tests explore every short sequence against a ledger. Here sequences are long and random, and two other
//! promises are checked: what was handed to the store is the whole state, so nothing acknowledged is lost by a restart; and
//! of all tokens ever seen, only the last one issued to a device in a role opens anything.

use std::collections::{BTreeMap, HashMap};

use openclaw_gateway::{
    auth::decide::PairReason,
    pairing::{
        ApprovedVia, Approver, Bootstrap, ClientMeta, DeviceChange, DevicePairing, Effects, Invitation, IssueRequest,
        Moment, PairedDevice, PairingRequest, PendingDevice, RequestId, Rights, Sponsor, TokenCaller, TokenCheck,
        TokenDigest,
    },
};
use openclaw_protocol::{DeviceId, DeviceKey, Protocol, Role, Scope, ScopeSet, Secret};

use super::input::Input;

const DEVICES: u8 = 3;

/// What the store has been told.
#[derive(Default)]
struct Rows {
    devices: HashMap<DeviceId, PairedDevice>,
    requests: BTreeMap<RequestId, PendingDevice>,
    bootstraps: BTreeMap<TokenDigest, Bootstrap>,
}

impl Rows {
    fn commit(&mut self, effects: Effects) {
        for change in effects.changes {
            match change {
                DeviceChange::PutDevice(device) => drop(self.devices.insert(device.id.clone(), *device)),
                DeviceChange::DeleteDevice(id) => drop(self.devices.remove(&id)),
                DeviceChange::PutRequest(pending) => drop(self.requests.insert(pending.id.clone(), *pending)),
                DeviceChange::DeleteRequest(id) => drop(self.requests.remove(&id)),
                DeviceChange::PutBootstrap(put) => drop(self.bootstraps.insert(put.digest.clone(), *put)),
                DeviceChange::DeleteBootstrap(digest) => drop(self.bootstraps.remove(&digest)),
            }
        }
    }
}

/// See the module documentation.
pub fn pairing(data: &[u8]) {
    let mut input = Input::new(data);
    let keys: Vec<DeviceKey> = (1..=DEVICES).map(|seed| DeviceKey::from_seed(&[seed; 32])).collect();
    let ids: Vec<DeviceId> = keys.iter().map(DeviceKey::id).collect();
    let (mut state, mut rows, mut now_ms, mut made) = (DevicePairing::default(), Rows::default(), 1_000_000_i64, 0_u32);
    // The text in force by device and role, by what operations returned; and every text there ever was.
    let mut current: BTreeMap<(usize, Role), String> = BTreeMap::new();
    let mut texts: Vec<String> = Vec::new();
    // One-time tokens that nobody has redeemed, what each grants, and the uptime at which it ends.
    let (mut open, mut uptime_ms): (Vec<(String, Rights, u64)>, u64) = (Vec::new(), 0);
    while !input.is_empty() && made < 200 {
        made += 1;
        let (operation, device) = (input.below(12), input.below(usize::from(DEVICES)));
        let role = if input.flag() { Role::Node } else { Role::Operator };
        let scopes = ScopeSet::from_iter(scope_choice(input.byte()));
        let (id, fresh) = (&ids[device], Secret::new(format!("token-{made}")));
        let effects = match operation {
            0 => {
                let asked = request(&keys[device], role, scopes, &mut input, state.get(id));
                state.request(now_ms, RequestId::new(format!("r{made}")), asked).ok().map(|(_, effects)| effects)
            }
            1 => {
                let pending = state.pending_of(now_ms, id, role).map(|pending| pending.id.clone());
                let approver = Approver { scopes: scope_choice(input.byte()).collect(), owner: input.flag() };
                pending.and_then(|request| state.approve(now_ms, &request, &approver, fresh).ok()).map(|(_, e)| e)
            }
            2 => {
                let asked = request(&keys[device], role, scopes, &mut input, state.get(id));
                let via = if input.flag() { ApprovedVia::Silent } else { ApprovedVia::TrustedCidr };
                let connected = input.flag();
                state.approve_silent(now_ms, asked, via, fresh, |_| connected).ok().map(|(_, effects)| effects)
            }
            3 => {
                let pending = state.pending_of(now_ms, id, role).map(|pending| pending.id.clone());
                pending.and_then(|request| state.reject(now_ms, &request).ok()).map(|(_, effects)| effects)
            }
            4 => state.remove(now_ms, id).ok(),
            5 => state.rename(now_ms, id, &input.text(8)).ok().map(|(_, effects)| effects),
            6 => {
                let asked = IssueRequest { device_id: id, role, scopes, generation: None, bind: false };
                state.issue(now_ms, &asked, fresh).ok().map(|(_, effects)| effects)
            }
            7 => {
                let caller = TokenCaller {
                    scopes: scope_choice(input.byte()).collect(),
                    device_id: Some(ids[input.below(usize::from(DEVICES))].clone()),
                    own_token: input.flag(),
                    owner: input.flag(),
                    protocol: Protocol::V4,
                };
                let wish = input.flag().then_some(scopes);
                state.rotate(now_ms, &caller, id, role, wish, fresh).ok().map(|(rotated, effects)| {
                    let own = caller.device_id.as_ref() == Some(id);
                    assert!(rotated.token.is_none() || own, "a token was given to a stranger");
                    effects
                })
            }
            8 => state.revoke(now_ms, id, role).ok().map(|(_, effects)| effects),
            9 => {
                let rights = Rights { node: input.flag(), operator: input.flag().then_some(scopes) };
                let (setup_id, ttl_ms) = (format!("s{made}"), i64::from(input.u16()) * 20);
                let asked = Invitation { setup_id, rights, label: None, sponsor: Sponsor::Owner, ttl_ms, join: None };
                let invited = state.invite(Moment { wall_ms: now_ms, uptime_ms }, asked, &fresh);
                let effects = invited.ok().map(|(_, effects)| effects);
                open.extend(effects.is_some().then(|| (fresh.expose().to_owned(), rights, uptime_ms + ttl_ms as u64)));
                effects
            }
            10 => {
                let asked = request(&keys[device], role, scopes, &mut input, state.get(id));
                let presented = input.below(open.len() + 1);
                let text = open.get(presented).map_or("no such", |(text, ..)| text.as_str()).to_owned();
                let now = Moment { wall_ms: now_ms, uptime_ms };
                let fresh = [fresh, Secret::new(format!("token-{made}b"))];
                state.redeem(now, &text, &asked, None, fresh).ok().map(|(redeemed, effects)| {
                    let (_, rights, until) = open.remove(presented);
                    assert!(uptime_ms < until, "redeemed after its time");
                    let scopes = if role == Role::Node { ScopeSet::EMPTY } else { scopes };
                    assert!(
                        rights.of(role).is_some_and(|granted| granted.covers(scopes)),
                        "redeemed beyond its rights"
                    );
                    assert_eq!(redeemed.others.len() + 1, rights.roles().count());
                    effects
                })
            }
            _ => {
                // Time passes, and sometimes steps back.
                let step = i64::from(input.u16() as i16) * 40;
                now_ms = now_ms.saturating_add(step);
                uptime_ms += step.unsigned_abs();
                Some(state.expire(now_ms))
            }
        };
        if let Some(effects) = effects {
            rows.commit(effects);
        }
        note_tokens(&state, &ids, &mut current, &mut texts);
        check(&state, &ids, &current, &texts);
    }
    let restarted = DevicePairing::from_rows(rows.devices.into_values(), rows.requests.into_values());
    let restarted = restarted.with_bootstraps(rows.bootstraps.into_values());
    assert_eq!(restarted.list(now_ms), state.list(now_ms), "a restart changes the state");
    assert!(restarted.bootstraps().eq(state.bootstraps()), "a restart changes the one-time tokens");
}

fn scope_choice(byte: u8) -> impl Iterator<Item = Scope> {
    Scope::ALL.into_iter().enumerate().filter(move |(at, _)| byte & (1 << at) != 0).map(|(_, scope)| scope)
}

fn request(
    key: &DeviceKey,
    role: Role,
    scopes: ScopeSet,
    input: &mut Input<'_>,
    known: Option<&PairedDevice>,
) -> PairingRequest {
    let reason = match known {
        None => PairReason::NotPaired,
        Some(known) if !known.roles.contains(&role) => PairReason::RoleUpgrade,
        Some(_) if input.flag() => PairReason::MetadataUpgrade,
        Some(_) => PairReason::ScopeUpgrade,
    };
    let platform = Some(if input.flag() { "linux" } else { "macos" }.to_owned());
    let display_name = input.flag().then(|| "box".to_owned());
    PairingRequest {
        device_id: key.id(),
        public_key: key.public(),
        role,
        scopes,
        client: ClientMeta { display_name, platform, ..ClientMeta::default() },
        remote_ip: None,
        reason,
        silent: false,
    }
}

fn note_tokens(
    state: &DevicePairing,
    ids: &[DeviceId],
    current: &mut BTreeMap<(usize, Role), String>,
    texts: &mut Vec<String>,
) {
    for (device, id) in ids.iter().enumerate() {
        for role in Role::ALL {
            let live = state.get(id).and_then(|known| known.tokens.get(&role)).filter(|token| token.live());
            match live.map(|token| token.secret.expose().to_owned()) {
                Some(text) => {
                    let before = current.insert((device, role), text.clone());
                    if before.as_ref() != Some(&text) {
                        assert!(!texts.contains(&text), "a token that was replaced came back");
                        texts.push(text);
                    }
                }
                None => drop(current.remove(&(device, role))),
            }
        }
    }
}

fn check(state: &DevicePairing, ids: &[DeviceId], current: &BTreeMap<(usize, Role), String>, texts: &[String]) {
    for (device, id) in ids.iter().enumerate() {
        for role in Role::ALL {
            let baseline = state.get(id).and_then(|known| known.baseline(role));
            for presented in texts.iter().map(String::as_str).chain(["", "token-"]) {
                let check = TokenCheck { device_id: id, role, presented, requested: ScopeSet::EMPTY, generation: None };
                let opens = state.verify(&check).is_ok();
                let last = current.get(&(device, role)).is_some_and(|text| text == presented);
                assert_eq!(opens, last && baseline.is_some(), "{role} of device {device} with {presented:?}");
            }
            let everything = TokenCheck {
                device_id: id,
                role: Role::Operator,
                presented: current.get(&(device, Role::Operator)).map_or("", String::as_str),
                requested: ScopeSet::all(),
                generation: None,
            };
            let approved = state.get(id).and_then(|known| known.baseline(Role::Operator)).unwrap_or_default();
            assert!(state.verify(&everything).is_err() || approved.covers(ScopeSet::all()), "scopes out of nowhere");
        }
    }
}
