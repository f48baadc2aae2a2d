//! The approvals there are, and every change they can go through. Pure: time and ids come in as arguments.

use std::collections::HashMap;

use openclaw_protocol::{
    DeviceId, ErrorShape,
    method::exec::{ApprovalRequest, ApprovalResolver, Decision},
};
use serde_json::json;

/// How long after the decision, or after it was handed to whoever waited for it, it can be redeemed, ms (release
/// 2026.9.6).
pub const REDEEM_MS: i64 = 15_000;
/// How long an ended approval is remembered, so that a second answer hears what the first one was, and lists of what was
/// decided lately have it, ms: a day.
const REMEMBER_MS: i64 = 24 * 60 * 60 * 1000;
/// Approvals that may wait at once, in all and for one asker.
const MAX_PENDING: usize = 256;
const MAX_PENDING_PER_ASKER: usize = 64;
/// Ended approvals remembered at most.
const MAX_ENDED: usize = 512;
const MAX_ID_BYTES: usize = 128;

/// Who asks, decides or looks.
#[derive(Clone, Copy, Debug)]
pub struct Viewer<'a> {
    /// Sees and decides everything.
    pub admin: bool,
    pub device: Option<&'a DeviceId>,
    pub connection: u64,
    /// A run of the agent that comes back to what it asked.
    pub run: Option<&'a str>,
}

impl Viewer<'static> {
    /// Somebody who may answer everything, and is no connection: an approver in a chat, named by the owner's config.
    pub const APPROVER: Self = Self { admin: true, device: None, connection: 0, run: None };
}

/// Whoever asked; only he may redeem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asker {
    Client {
        device: Option<DeviceId>,
        connection: u64,
    },
    /// A run of the agent. Who started it may see and answer its questions, too.
    Run {
        id: String,
        reviewer: Option<DeviceId>,
    },
}

/// How an approval ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    Decided {
        decision: Decision,
        by: Option<String>,
        resolver: ApprovalResolver,
    },
    /// Nobody answered in time.
    TimedOut,
    /// Nobody was there who could have answered.
    NoRoute,
    /// The run that asked was ended.
    Aborted,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub how: How,
    pub at_ms: i64,
}

impl Ended {
    pub fn decision(&self) -> Option<Decision> {
        match &self.how {
            How::Decided { decision, .. } => Some(*decision),
            How::TimedOut | How::NoRoute | How::Aborted => None,
        }
    }

    /// The word on the wire.
    pub fn reason(&self) -> &'static str {
        match self.how {
            How::Decided { .. } => "user",
            How::TimedOut => "timeout",
            How::NoRoute => "no-route",
            How::Aborted => "run-aborted",
        }
    }
}

/// One approval.
#[derive(Clone, Debug)]
pub struct Record {
    pub id: String,
    pub request: ApprovalRequest,
    pub asker: Asker,
    pub created_at_ms: i64,
    pub expires_at_ms: i64,
    ended: Option<Ended>,
    redeem_until_ms: i64,
    /// Leave for one run was used.
    used: bool,
}

impl Record {
    pub fn ended(&self) -> Option<&Ended> {
        self.ended.as_ref()
    }

    /// Admins see everything; others what their own device asked, or their own connection when it has no device, and what
    /// the agent asks for them.
    pub fn is_visible_to(&self, viewer: &Viewer<'_>) -> bool {
        let reviews = |reviewer: &DeviceId| viewer.device == Some(reviewer);
        let asked_for = matches!(&self.asker, Asker::Run { reviewer: Some(reviewer), .. } if reviews(reviewer));
        viewer.admin || asked_for || self.belongs_to(viewer)
    }

    fn belongs_to(&self, viewer: &Viewer<'_>) -> bool {
        match &self.asker {
            Asker::Client { device: Some(device), .. } => viewer.device == Some(device),
            Asker::Client { device: None, connection } => viewer.run.is_none() && viewer.connection == *connection,
            Asker::Run { id, .. } => viewer.run == Some(id),
        }
    }
}

/// What a caller of `node.invoke` says it was allowed.
#[derive(Clone, Debug, Default)]
pub struct Claim {
    pub node_id: String,
    /// Nobody answered, and the node's own policy for that case is to be asked.
    pub fallback: bool,
    /// `None`: not given.
    pub argv: Option<Vec<String>>,
    pub cwd: Option<String>,
    pub agent_id: Option<String>,
    pub session_key: Option<String>,
    pub env_hash: Option<String>,
    /// Holds `operator.approvals`.
    pub may_approve: bool,
}

/// Leave to run what the record says.
#[derive(Clone, Debug)]
pub struct Grant {
    pub request: ApprovalRequest,
    /// `None` for the fallback of the node.
    pub decision: Option<Decision>,
}

/// Why an approval was not made, decided or redeemed. The texts and codes are the reference's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error(
        "approval id must be 1-128 characters using only letters, numbers, '.', '_', ':', or '-', and cannot be '.' or '..'"
    )]
    InvalidId,
    #[error("approval ids starting with plugin: are reserved")]
    ReservedId,
    #[error("approval id already pending")]
    TakenId,
    #[error("too many approvals wait for an answer already")]
    Full,
    #[error("unknown or expired approval id")]
    Unknown,
    #[error("ambiguous approval id prefix; use the full id")]
    Ambiguous,
    #[error("approval already resolved")]
    AlreadyResolved,
    #[error("allow-always is unavailable for this command")]
    NotOffered,
    #[error("approval expired")]
    Expired,
    #[error("approval required")]
    Required,
    #[error("approval id missing node binding")]
    NoNode,
    #[error("approval id not valid for this node")]
    OtherNode,
    #[error("approval id not valid for this device")]
    OtherDevice,
    #[error("approval id not valid for this client")]
    OtherClient,
    #[error("approval id does not match request")]
    OtherCommand,
    #[error("approval id missing env binding for requested env overrides")]
    EnvNotBound,
    #[error("approval id env binding mismatch")]
    OtherEnv,
    #[error("approval source does not match approval record")]
    OtherSource,
}

impl Refused {
    /// The error for who asked, decided or looked.
    pub fn into_error(self) -> ErrorShape {
        let error = ErrorShape::invalid(self.to_string());
        match self {
            Self::InvalidId => {
                error.with_details(json!({"code": "EXEC_APPROVAL_ID_INVALID", "reason": "INVALID_APPROVAL_ID"}))
            }
            Self::Full => ErrorShape::retry_later(self.to_string(), 5_000),
            Self::Unknown => error.with_details(json!({"reason": "APPROVAL_NOT_FOUND",
                "remediation": "Re-request the action; pending approvals are cleared after expiry or restart."})),
            Self::AlreadyResolved => error.with_details(json!({"reason": "APPROVAL_ALREADY_RESOLVED"})),
            Self::NotOffered => error.with_details(json!({"reason": "APPROVAL_ALLOW_ALWAYS_UNAVAILABLE"})),
            _ => error,
        }
    }

    /// The error for `node.invoke`.
    pub fn into_guard_error(self, run_id: &str) -> ErrorShape {
        let code = match self {
            Self::Unknown => "UNKNOWN_APPROVAL_ID",
            Self::Expired => "APPROVAL_EXPIRED",
            Self::NoNode => "APPROVAL_NODE_BINDING_MISSING",
            Self::OtherNode => "APPROVAL_NODE_MISMATCH",
            Self::OtherDevice => "APPROVAL_DEVICE_MISMATCH",
            Self::OtherClient => "APPROVAL_CLIENT_MISMATCH",
            Self::OtherCommand => "APPROVAL_REQUEST_MISMATCH",
            Self::EnvNotBound => "APPROVAL_ENV_BINDING_MISSING",
            Self::OtherEnv => "APPROVAL_ENV_MISMATCH",
            Self::OtherSource => "APPROVAL_SOURCE_MISMATCH",
            _ => "APPROVAL_REQUIRED",
        };
        ErrorShape::invalid(self.to_string()).with_details(json!({"code": code, "runId": run_id}))
    }
}

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Ledger {
    records: HashMap<String, Record>,
    endings: u64,
}

impl Ledger {
    /// How many approvals have ended; grows.
    pub fn endings(&self) -> u64 {
        self.endings
    }

    pub fn get(&self, id: &str) -> Option<&Record> {
        self.records.get(id)
    }

    /// Puts a request before people. `id` is the asker's wish, else `fresh`.
    ///
    /// # Errors
    /// When the id cannot be had or too many wait.
    pub fn open(
        &mut self,
        now: i64,
        id: Option<String>,
        fresh: impl FnOnce() -> String,
        request: ApprovalRequest,
        asker: Asker,
        timeout_ms: i64,
    ) -> Result<Record, Refused> {
        self.sweep(now);
        let id = match id.filter(|id| !id.is_empty()) {
            Some(id) => checked_id(id)?,
            None => fresh(),
        };
        if self.records.contains_key(&id) {
            return Err(Refused::TakenId);
        }
        let pending = || self.records.values().filter(|record| record.ended.is_none());
        let same = |record: &&Record| match (&asker, &record.asker) {
            (Asker::Client { device: Some(device), .. }, Asker::Client { device: other, .. }) => {
                other.as_ref() == Some(device)
            }
            (asker, other) => other == asker,
        };
        if pending().count() >= MAX_PENDING || pending().filter(same).count() >= MAX_PENDING_PER_ASKER {
            return Err(Refused::Full);
        }
        let record = Record {
            id: id.clone(),
            request,
            asker,
            created_at_ms: now,
            expires_at_ms: now.saturating_add(timeout_ms.max(1)),
            ended: None,
            redeem_until_ms: 0,
            used: false,
        };
        self.records.insert(id, record.clone());
        Ok(record)
    }

    /// Those that wait, oldest first, as far as `viewer` sees them.
    pub fn pending(&mut self, now: i64, viewer: &Viewer<'_>) -> Vec<Record> {
        self.sweep(now);
        let waiting = self.records.values().filter(|r| r.ended.is_none() && r.is_visible_to(viewer));
        let mut list: Vec<Record> = waiting.cloned().collect();
        list.sort_by(|a, b| (a.created_at_ms, &a.id).cmp(&(b.created_at_ms, &b.id)));
        list
    }

    /// Those that ended, newest first, as far as `viewer` sees them; from the one after `after` on, a time and an id.
    pub fn ended(&mut self, now: i64, viewer: &Viewer<'_>, after: Option<(i64, &str)>) -> Vec<Record> {
        self.sweep(now);
        let at = |record: &Record| record.ended.as_ref().map(|ended| (ended.at_ms, record.id.clone()));
        let earlier = |record: &Record| match (at(record), after) {
            (Some((at_ms, id)), Some((after_ms, after_id))) => (at_ms, id.as_str()) < (after_ms, after_id),
            (at, None) => at.is_some(),
            (None, Some(_)) => false,
        };
        let ended = self.records.values().filter(|record| earlier(record) && record.is_visible_to(viewer));
        let mut list: Vec<Record> = ended.cloned().collect();
        list.sort_by_key(|record| std::cmp::Reverse(at(record)));
        list
    }

    /// The approval of that id, or the one whose id starts like that. What a viewer does not see does not exist.
    ///
    /// # Errors
    /// [`Refused::Unknown`], [`Refused::Ambiguous`]
    pub fn find(&mut self, now: i64, input: &str, viewer: &Viewer<'_>, ended: bool) -> Result<&Record, Refused> {
        self.sweep(now);
        let input = input.trim();
        let fits = |record: &Record| record.ended.is_some() == ended && record.is_visible_to(viewer);
        if let Some(exact) = self.records.get(input) {
            return Some(exact).filter(|record| fits(record)).ok_or(Refused::Unknown);
        }
        let prefix = input.to_lowercase();
        if prefix.is_empty() {
            return Err(Refused::Unknown);
        }
        let mut found = self.records.values().filter(|r| fits(r) && r.id.to_lowercase().starts_with(&prefix));
        match (found.next(), found.next()) {
            (Some(only), None) => Ok(only),
            (Some(_), Some(_)) => Err(Refused::Ambiguous),
            (None, _) => Err(Refused::Unknown),
        }
    }

    /// Decides exactly one pending approval. `Ok(None)`: it had been decided so before.
    ///
    /// # Errors
    /// [`Refused`]; nothing was decided.
    pub fn decide(
        &mut self,
        now: i64,
        input: &str,
        viewer: &Viewer<'_>,
        decision: Decision,
        by: Option<String>,
        resolver: ApprovalResolver,
    ) -> Result<Option<Record>, Refused> {
        let id = match self.find(now, input, viewer, false) {
            Ok(record) => record.id.clone(),
            Err(Refused::Unknown) => {
                let earlier = self.find(now, input, viewer, true).ok().and_then(|record| record.ended.as_ref());
                return match earlier.map(|ended| ended.decision()) {
                    Some(Some(earlier)) if earlier == decision => Ok(None),
                    Some(Some(_)) => Err(Refused::AlreadyResolved),
                    Some(None) | None => Err(Refused::Unknown),
                };
            }
            Err(error) => return Err(error),
        };
        let record = self.records.get_mut(&id).ok_or(Refused::Unknown)?;
        if !record.request.allowed_decisions.contains(&decision) {
            return Err(Refused::NotOffered);
        }
        record.ended = Some(Ended { how: How::Decided { decision, by, resolver }, at_ms: now });
        record.redeem_until_ms = now.saturating_add(REDEEM_MS);
        self.endings += 1;
        Ok(Some(record.clone()))
    }

    /// Ends a pending approval because nobody is there to decide it. False when it is not pending any more.
    pub fn give_up(&mut self, now: i64, id: &str) -> bool {
        self.end(now, id, How::NoRoute)
    }

    /// Ends a pending approval because the run that asked is over. False when it is not pending any more.
    pub fn abort(&mut self, now: i64, id: &str) -> bool {
        self.end(now, id, How::Aborted)
    }

    fn end(&mut self, now: i64, id: &str, how: How) -> bool {
        let Some(record) = self.records.get_mut(id).filter(|record| record.ended.is_none()) else { return false };
        record.ended = Some(Ended { how, at_ms: now });
        record.redeem_until_ms = now.saturating_add(REDEEM_MS);
        self.endings += 1;
        true
    }

    /// Gives an ended approval to somebody who waited for it. Who hears late still has time to redeem it, but not for
    /// ever: no later than twice the usual time after the end.
    pub fn hand_over(&mut self, now: i64, id: &str) -> Option<(Record, Ended)> {
        let record = self.records.get_mut(id)?;
        let ended = record.ended.clone()?;
        if now <= record.redeem_until_ms {
            let last = ended.at_ms.saturating_add(2 * REDEEM_MS);
            record.redeem_until_ms = record.redeem_until_ms.max(now.saturating_add(REDEEM_MS)).min(last);
        }
        Some((record.clone(), ended))
    }

    /// Turns a decision into leave to run, once. Whatever the claim says besides the id has to match what was approved.
    ///
    /// # Errors
    /// [`Refused`]; nothing was used up.
    pub fn redeem(&mut self, now: i64, id: &str, viewer: &Viewer<'_>, claim: &Claim) -> Result<Grant, Refused> {
        self.sweep(now);
        let record = self.records.get_mut(id).ok_or(Refused::Unknown)?;
        let node = record.request.node_id.as_deref().ok_or(Refused::NoNode)?;
        if node != claim.node_id {
            return Err(Refused::OtherNode);
        }
        if !record.belongs_to(viewer) {
            let device = matches!(record.asker, Asker::Client { device: Some(_), .. });
            return Err(if device { Refused::OtherDevice } else { Refused::OtherClient });
        }
        matches_binding(&record.request, claim)?;
        let ended = record.ended.as_ref().ok_or(Refused::Required)?;
        if now > record.redeem_until_ms {
            return Err(Refused::Expired);
        }
        let decision = match (&ended.how, claim.fallback) {
            (How::Decided { decision, .. }, false) if decision.allows() => Some(*decision),
            (How::Decided { decision, .. }, true) if decision.allows() => return Err(Refused::OtherSource),
            (How::TimedOut | How::NoRoute, true) if claim.may_approve => None,
            _ => return Err(Refused::Required),
        };
        let once = decision != Some(Decision::AllowAlways);
        if once && record.used {
            return Err(Refused::Required);
        }
        record.used |= once;
        Ok(Grant { request: record.request.clone(), decision })
    }

    /// Ends what nobody answered in time and forgets what ended long ago.
    pub fn sweep(&mut self, now: i64) {
        for record in self.records.values_mut().filter(|r| r.ended.is_none() && r.expires_at_ms <= now) {
            record.ended = Some(Ended { how: How::TimedOut, at_ms: record.expires_at_ms });
            record.redeem_until_ms = record.expires_at_ms.saturating_add(REDEEM_MS);
            self.endings += 1;
        }
        let ended_at = |record: &Record| record.ended.as_ref().map(|ended| ended.at_ms);
        self.records.retain(|_, record| ended_at(record).is_none_or(|at| now.saturating_sub(at) < REMEMBER_MS));
        let mut ended: Vec<(i64, String)> =
            self.records.values().filter_map(|record| Some((ended_at(record)?, record.id.clone()))).collect();
        if ended.len() > MAX_ENDED {
            ended.sort();
            for (_, id) in ended.drain(..ended.len() - MAX_ENDED) {
                self.records.remove(&id);
            }
        }
    }
}

fn checked_id(id: String) -> Result<String, Refused> {
    if id.starts_with("plugin:") {
        return Err(Refused::ReservedId);
    }
    let plain = id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b));
    if !plain || id.len() > MAX_ID_BYTES || id == "." || id == ".." { Err(Refused::InvalidId) } else { Ok(id) }
}

/// What the claim says has to be what was approved. What it leaves out comes from the approval.
fn matches_binding(request: &ApprovalRequest, claim: &Claim) -> Result<(), Refused> {
    let bound = request.system_run_binding.as_ref().ok_or(Refused::OtherCommand)?;
    let same = |claimed: &Option<String>, bound: &Option<String>| claimed.is_none() || claimed == bound;
    let argv = claim.argv.as_ref().is_none_or(|argv| *argv == bound.argv);
    if !argv
        || !same(&claim.cwd, &bound.cwd)
        || !same(&claim.agent_id, &bound.agent_id)
        || !same(&claim.session_key, &bound.session_key)
    {
        return Err(Refused::OtherCommand);
    }
    match (&bound.env_hash, &claim.env_hash) {
        (None, Some(_)) => Err(Refused::EnvNotBound),
        (bound, claimed) if bound != claimed => Err(Refused::OtherEnv),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use openclaw_protocol::{DeviceKey, Protocol};
    use serde_json::Value;

    use super::*;
    use crate::approvals::prepare::prepare;

    const ADMIN: Viewer<'_> = Viewer { admin: true, device: None, connection: 99, run: None };

    fn request(change: impl FnOnce(&mut Value)) -> ApprovalRequest {
        let mut params = json!({"host": "node", "nodeId": "n1", "systemRunPlan": {"argv": ["rm", "x"], "cwd": "/w",
                                "commandText": "rm x", "agentId": "main", "sessionKey": "s"}});
        change(&mut params);
        prepare(serde_json::from_value(params).expect("params"), Protocol::V4).expect("fine").request
    }

    fn device(seed: u8) -> DeviceId {
        DeviceKey::from_seed(&[seed; 32]).id()
    }

    fn asker(device: Option<DeviceId>) -> Asker {
        Asker::Client { device, connection: 1 }
    }

    fn resolver() -> ApprovalResolver {
        ApprovalResolver { kind: "runtime".into(), id: Some("cli".into()) }
    }

    /// A ledger with one approval `a`, asked by connection 1 for 60 s at time 0.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        open(&mut ledger, 0, "a", None).expect("opened");
        ledger
    }

    fn open(ledger: &mut Ledger, now: i64, id: &str, of: Option<DeviceId>) -> Result<Record, Refused> {
        ledger.open(now, Some(id.into()), || unreachable!(), request(|_| ()), asker(of), 60_000)
    }

    fn decide(ledger: &mut Ledger, now: i64, id: &str, decision: Decision) -> Result<Option<Record>, Refused> {
        ledger.decide(now, id, &ADMIN, decision, Some("cli".into()), resolver())
    }

    fn claim() -> Claim {
        let argv = Some(vec!["rm".into(), "x".into()]);
        Claim { node_id: "n1".into(), argv, cwd: Some("/w".into()), may_approve: true, ..Claim::default() }
    }

    const ASKER: Viewer<'_> = Viewer { admin: false, device: None, connection: 1, run: None };

    #[test]
    fn leave_for_one_run_is_used_once() {
        let mut ledger = ledger();
        assert_eq!(ledger.redeem(1, "a", &ASKER, &claim()).expect_err("too early"), Refused::Required);
        assert!(decide(&mut ledger, 10, "a", Decision::AllowOnce).expect("decided").is_some());
        let grant = ledger.redeem(20, "a", &ASKER, &claim()).expect("granted");
        assert_eq!(grant.decision, Some(Decision::AllowOnce));
        assert_eq!(ledger.redeem(21, "a", &ASKER, &claim()).expect_err("used"), Refused::Required);
    }

    #[test]
    fn an_answer_is_final() {
        let mut ledger = ledger();
        assert!(decide(&mut ledger, 10, "a", Decision::Deny).expect("decided").is_some());
        assert!(decide(&mut ledger, 11, "a", Decision::Deny).expect("repeated").is_none());
        for other in [Decision::AllowOnce, Decision::AllowAlways] {
            assert_eq!(decide(&mut ledger, 12, "a", other).expect_err("late"), Refused::AlreadyResolved);
        }
        assert_eq!(ledger.redeem(13, "a", &ASKER, &claim()).expect_err("denied"), Refused::Required);
        let fallback = Claim { fallback: true, ..claim() };
        assert_eq!(ledger.redeem(13, "a", &ASKER, &fallback).expect_err("denied"), Refused::Required);
        assert_eq!(open(&mut ledger, 14, "a", None).expect_err("taken"), Refused::TakenId);
    }

    #[test]
    fn time_ends_it_for_both_sides() {
        let mut ledger = ledger();
        assert_eq!(decide(&mut ledger, 60_000, "a", Decision::AllowOnce).expect_err("late"), Refused::Unknown);
        assert_eq!(ledger.get("a").and_then(Record::ended).map(Ended::reason), Some("timeout"));
        assert_eq!(ledger.redeem(60_001, "a", &ASKER, &claim()).expect_err("none"), Refused::Required);
        let fallback = Claim { fallback: true, ..claim() };
        let weak = Claim { may_approve: false, ..fallback.clone() };
        assert_eq!(ledger.redeem(60_001, "a", &ASKER, &weak).expect_err("no right"), Refused::Required);
        assert_eq!(ledger.redeem(60_001, "a", &ASKER, &fallback).expect("the node decides").decision, None);
        assert_eq!(ledger.redeem(60_002, "a", &ASKER, &fallback).expect_err("used"), Refused::Required);

        let mut ledger = self::ledger();
        decide(&mut ledger, 10, "a", Decision::AllowOnce).expect("decided");
        assert_eq!(ledger.redeem(15_011, "a", &ASKER, &claim()).expect_err("stale"), Refused::Expired);
        // Hearing late moves the end once, and no further.
        let mut ledger = self::ledger();
        decide(&mut ledger, 0, "a", Decision::AllowOnce).expect("decided");
        for now in [10_000, 20_000, 29_000] {
            assert!(ledger.hand_over(now, "a").is_some());
        }
        assert_eq!(ledger.redeem(30_001, "a", &ASKER, &claim()).expect_err("stale"), Refused::Expired);
        assert!(ledger.redeem(30_000, "a", &ASKER, &claim()).is_ok());
        // Remembered for a day.
        ledger.sweep(24 * 3_600_000 - 1);
        assert!(ledger.get("a").is_some());
        ledger.sweep(24 * 3_600_000);
        assert!(ledger.get("a").is_none());
        assert_eq!(ledger.redeem(24 * 3_600_000 + 1, "a", &ASKER, &claim()).expect_err("forgotten"), Refused::Unknown);
    }

    #[test]
    fn always_may_run_again_within_its_time() {
        let mut ledger = ledger();
        decide(&mut ledger, 0, "a", Decision::AllowAlways).expect("decided");
        for now in [1, 2] {
            assert_eq!(ledger.redeem(now, "a", &ASKER, &claim()).expect("fine").decision, Some(Decision::AllowAlways));
        }
        let fallback = Claim { fallback: true, ..claim() };
        assert_eq!(ledger.redeem(3, "a", &ASKER, &fallback).expect_err("no fallback"), Refused::OtherSource);
        let mut ledger = Ledger::default();
        let ask = request(|params| params["ask"] = json!("always"));
        ledger.open(0, Some("b".into()), || unreachable!(), ask, asker(None), 1_000).expect("opened");
        assert_eq!(decide(&mut ledger, 1, "b", Decision::AllowAlways).expect_err("once only"), Refused::NotOffered);
        assert!(decide(&mut ledger, 1, "b", Decision::AllowOnce).is_ok());
    }

    /// The binding: argv, directory, agent, session, environment, node and asker; script contents travel in the plan.
    #[test]
    fn p_57_an_approval_holds_for_what_was_approved_only() {
        let check = |expected: Result<(), Refused>, viewer: &Viewer<'_>, change: &dyn Fn(&mut Claim)| {
            let mut ledger = ledger();
            decide(&mut ledger, 1, "a", Decision::AllowOnce).expect("decided");
            let mut claim = claim();
            change(&mut claim);
            assert_eq!(ledger.redeem(2, "a", viewer, &claim).map(|_| ()), expected, "{claim:?}");
            // A refused claim uses nothing up.
            assert_eq!(ledger.redeem(3, "a", &ASKER, &self::claim()).is_ok(), expected.is_err());
        };
        check(Ok(()), &ASKER, &|_| ());
        check(Ok(()), &ASKER, &|c| (c.argv, c.cwd) = (None, None));
        check(Err(Refused::OtherCommand), &ASKER, &|c| c.argv = Some(vec!["rm".into(), "y".into()]));
        check(Err(Refused::OtherCommand), &ASKER, &|c| c.argv = Some(vec!["rm".into()]));
        check(Err(Refused::OtherCommand), &ASKER, &|c| c.argv = Some(vec!["rm x".into()]));
        check(Err(Refused::OtherCommand), &ASKER, &|c| c.cwd = Some("/".into()));
        check(Err(Refused::OtherCommand), &ASKER, &|c| c.agent_id = Some("other".into()));
        check(Err(Refused::OtherCommand), &ASKER, &|c| c.session_key = Some("other".into()));
        check(Err(Refused::EnvNotBound), &ASKER, &|c| c.env_hash = Some("aa".into()));
        check(Err(Refused::OtherNode), &ASKER, &|c| c.node_id = "n2".into());
        let other = Viewer { admin: false, device: None, connection: 2, run: None };
        check(Err(Refused::OtherClient), &other, &|_| ());
        check(Err(Refused::OtherClient), &ADMIN, &|_| ());
        let mut ledger = Ledger::default();
        let env = request(|params| params["env"] = json!({"A": "1"}));
        ledger.open(0, Some("e".into()), || unreachable!(), env, asker(None), 1_000).expect("opened");
        decide(&mut ledger, 1, "e", Decision::AllowOnce).expect("decided");
        assert_eq!(ledger.redeem(2, "e", &ASKER, &claim()).expect_err("other"), Refused::OtherEnv);
        let mut ledger = Ledger::default();
        let text = prepare(serde_json::from_value(json!({"command": "rm x"})).expect("p"), Protocol::V4).expect("fine");
        ledger.open(0, Some("g".into()), || unreachable!(), text.request, asker(None), 1_000).expect("opened");
        decide(&mut ledger, 1, "g", Decision::AllowOnce).expect("decided");
        assert_eq!(ledger.redeem(2, "g", &ASKER, &claim()).expect_err("not for nodes"), Refused::NoNode);
    }

    #[test]
    fn who_sees_what() {
        let mut ledger = Ledger::default();
        let (mine, others) = (device(1), device(2));
        open(&mut ledger, 0, "mine", Some(mine.clone())).expect("opened");
        open(&mut ledger, 1, "others", Some(others.clone())).expect("opened");
        open(&mut ledger, 2, "loose", None).expect("opened");
        let ids = |ledger: &mut Ledger, viewer: &Viewer<'_>| -> Vec<String> {
            ledger.pending(5, viewer).into_iter().map(|record| record.id).collect()
        };
        assert_eq!(ids(&mut ledger, &ADMIN), ["mine", "others", "loose"]);
        let me = Viewer { admin: false, device: Some(&mine), connection: 7, run: None };
        assert_eq!(ids(&mut ledger, &me), ["mine"]);
        assert_eq!(ids(&mut ledger, &ASKER), ["loose"]);
        let decided = ledger.decide(6, "others", &me, Decision::AllowOnce, None, resolver());
        assert_eq!(decided.expect_err("not seen"), Refused::Unknown);
        assert!(ledger.decide(6, "mine", &me, Decision::AllowOnce, None, resolver()).is_ok());
        // The device may redeem on another connection, an admin may not.
        assert!(matches!(ledger.redeem(7, "mine", &ADMIN, &claim()), Err(Refused::OtherDevice)));
        assert!(ledger.redeem(7, "mine", &me, &claim()).is_ok());
    }

    #[test]
    fn one_id_one_approval() {
        let mut ledger = Ledger::default();
        open(&mut ledger, 0, "abc-1", None).expect("opened");
        open(&mut ledger, 0, "abc-2", None).expect("opened");
        assert_eq!(decide(&mut ledger, 1, "ab", Decision::AllowOnce).expect_err("two"), Refused::Ambiguous);
        assert_eq!(decide(&mut ledger, 1, " ", Decision::AllowOnce).expect_err("none"), Refused::Unknown);
        let decided = decide(&mut ledger, 1, "ABC-2", Decision::AllowOnce).expect("decided").expect("first");
        assert_eq!(decided.id, "abc-2");
        assert!(ledger.get("abc-1").is_some_and(|record| record.ended().is_none()));
        // The other is now the only one that starts so.
        assert_eq!(decide(&mut ledger, 2, "abc", Decision::Deny).expect("decided").expect("first").id, "abc-1");
        for (id, expected) in [
            ("a b", Refused::InvalidId),
            ("..", Refused::InvalidId),
            ("é", Refused::InvalidId),
            ("plugin:x", Refused::ReservedId),
            (&"x".repeat(129) as &str, Refused::InvalidId),
        ] {
            assert_eq!(open(&mut ledger, 3, id, None).expect_err("refused"), expected, "{id}");
        }
    }

    #[test]
    fn there_is_room_for_so_many() {
        let mut ledger = Ledger::default();
        for n in 0..MAX_PENDING_PER_ASKER {
            open(&mut ledger, 0, &format!("a{n}"), Some(device(1))).expect("opened");
        }
        assert_eq!(open(&mut ledger, 0, "more", Some(device(1))).expect_err("full"), Refused::Full);
        assert!(open(&mut ledger, 0, "other", Some(device(2))).is_ok());
        for n in 0..600 {
            let id = format!("b{n}");
            open(&mut ledger, 1, &id, Some(device(3))).expect("opened");
            decide(&mut ledger, 1, &id, Decision::Deny).expect("decided");
        }
        ledger.sweep(2);
        assert_eq!(ledger.records.values().filter(|record| record.ended.is_some()).count(), MAX_ENDED);
    }

    #[test]
    fn nobody_there_ends_it_at_once() {
        let mut ledger = ledger();
        assert!(ledger.give_up(1, "a") && !ledger.give_up(2, "a"));
        let (_, ended) = ledger.hand_over(2, "a").expect("ended");
        assert_eq!((ended.decision(), ended.reason()), (None, "no-route"));
        assert_eq!(decide(&mut ledger, 3, "a", Decision::AllowOnce).expect_err("over"), Refused::Unknown);
    }
}
