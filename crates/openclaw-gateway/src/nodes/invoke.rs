//! `node.invoke`: who may ask, what is asked, and what the answers mean. Nothing on this path touches the disk, and
//! JSON is passed through as text.

use std::time::Duration;

use bytes::Bytes;
use openclaw_protocol::{
    DeviceId, ErrorShape, Scope, ScopeSet,
    error::{Machine, Remediation},
    limits::MAX_BUFFERED_BYTES,
    method::node::{InvokeProgressParams, InvokeResultParams, NodeError, NodeInvokeParams, Receipt},
};
use serde::Serialize;
use serde_json::{
    Map, Value, json,
    value::{RawValue, to_raw_value},
};
use tokio::{sync::mpsc, time::Instant};

use super::{
    answers::{Begin, MAX_KEY_BYTES, Owner},
    live::{NoAnswer, Piece, Question},
    policy::{self, Lists, scope_to_invoke},
    registry::Nodes,
    sent::{Sent, params_to_send, redeem},
};
use crate::{
    approvals::{self, Approvals, ledger::Viewer},
    hub::Connection,
    rpc::registry::Answer,
};

/// Deadline when the caller names none (pairing and node notes, section 6).
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest deadline; a longer wish is cut to it.
const MAX_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// Above this size `payloadJSON` is left out of the answer: it says the same as `payload`. 1 MiB.
const REPEAT_PAYLOAD_BYTES: usize = 1 << 20;
/// What a caller's queue can take besides the answer.
const ANSWER_RESERVE_BYTES: usize = 64 * 1024;
/// A node that is not ready yet is asked this often again, within the deadline.
const NOT_READY_RETRIES: u32 = 4;
const NOT_READY_PAUSE: Duration = Duration::from_millis(100);

/// `node.invoke` in a form that holds the answer as text.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Invoked<'a> {
    ok: bool,
    node_id: &'a str,
    command: &'a str,
    payload: Option<&'a RawValue>,
    #[serde(rename = "payloadJSON")]
    payload_json: Option<&'a str>,
}

/// On whose behalf a node is asked, and what he may.
#[derive(Clone, Debug)]
pub(super) struct By<'a> {
    pub scopes: ScopeSet,
    /// Whose idempotency keys.
    pub owner: Owner,
    pub viewer: Viewer<'a>,
}

impl<'a> By<'a> {
    pub fn connection(caller: &'a Connection) -> Self {
        Self { scopes: caller.scopes, owner: Owner::of(caller), viewer: approvals::viewer(caller) }
    }
}

/// An error, and whether the node had been asked by then.
struct Failed {
    error: ErrorShape,
    dispatched: bool,
}

impl Failed {
    fn before(error: ErrorShape) -> Self {
        Self { error, dispatched: false }
    }
}

impl Nodes {
    /// Runs a command on a node. Authority is checked for every call: a change of approval or configuration counts from
    /// the next one on.
    pub async fn invoke(
        &self,
        caller: &Connection,
        lists: Lists<'_>,
        approvals: &Approvals,
        params: NodeInvokeParams,
    ) -> Answer {
        self.invoke_by(&By::connection(caller), lists, approvals, params, None).await
    }

    /// As [`Nodes::invoke`], for anybody. `progress` gets the output of commands that stream.
    pub(super) async fn invoke_by(
        &self,
        by: &By<'_>,
        lists: Lists<'_>,
        approvals: &Approvals,
        params: NodeInvokeParams,
        progress: Option<&mpsc::Sender<Piece>>,
    ) -> Answer {
        let started = Instant::now();
        let (node_id, command) = (params.node_id.trim(), params.command.trim());
        if node_id.is_empty() || command.is_empty() {
            return Err(ErrorShape::invalid("nodeId and command required"));
        }
        let key = params.idempotency_key.as_str();
        if key.is_empty() || key.len() > MAX_KEY_BYTES {
            let problem = format!("at /idempotencyKey: must have 1 to {MAX_KEY_BYTES} bytes");
            return Err(ErrorShape::invalid(format!("invalid node.invoke params: {problem}")));
        }
        let scope = scope_to_invoke(command);
        if !by.scopes.grants(scope) {
            return Err(ErrorShape::missing_scope(scope));
        }
        if command.starts_with("system.execApprovals.") {
            let words = "node.invoke does not allow system.execApprovals.*; use exec.approvals.node.*";
            return Err(ErrorShape::invalid(words).with_details(json!({"command": command})));
        }
        // A run asks through the gateway itself, which may.
        let may_approve = by.viewer.run.is_some() || by.scopes.grants(Scope::Approvals);
        let sent = params_to_send(node_id, command, params.params.as_deref(), may_approve, progress.is_some())?;
        let ticket = match self.answers.begin(by.owner.clone(), key, node_id, command)? {
            Begin::First(ticket) => ticket,
            Begin::Done(answer) => return answer,
            Begin::Wait(answer) => {
                let cancelled = || ErrorShape::unavailable("the first request with this idempotencyKey was cancelled");
                return answer.await.unwrap_or_else(|_| Err(cancelled()));
            }
        };
        let timeout = match params.timeout_ms {
            None | Some(0) => DEFAULT_TIMEOUT,
            Some(ms) => Duration::from_millis(ms).min(MAX_TIMEOUT),
        };
        let question = Question {
            command,
            params: None,
            idempotency_key: key,
            session_key: params.session_key.as_deref(),
            deadline: started + timeout,
            progress,
        };
        match self.dispatch(by, lists, approvals, node_id, question, &sent).await {
            Ok(answer) => ticket.finish(Ok(answer), true),
            Err(Failed { error, dispatched }) => ticket.finish(Err(error), dispatched),
        }
    }

    async fn dispatch(
        &self,
        by: &By<'_>,
        lists: Lists<'_>,
        approvals: &Approvals,
        node_id: &str,
        question: Question<'_>,
        sent: &Sent<'_>,
    ) -> Result<Bytes, Failed> {
        let mut retries = 0;
        let mut redeemed: Option<String> = None;
        loop {
            let offline = || Failed::before(no_answer(NoAnswer::NotConnected, question.command));
            let id = DeviceId::parse(node_id).ok_or_else(offline)?;
            let live = self.live(&id).ok_or_else(offline)?;
            let verdict = self.read(|remembered| {
                let approved = remembered.surfaces.approved(&id)?;
                Some(policy::check(live.platform, &live.declared, approved, lists, question.command))
            });
            match verdict {
                Some(Ok(())) => {}
                Some(Err(denial)) => return Err(Failed::before(denial.into_error(question.command))),
                None => return Err(Failed::before(self.not_approved(by.scopes, &id))),
            }
            // Leave for one run is used up only now, when nothing but the node itself can still refuse; and once, however
            // often the node has to be asked.
            let params = match sent {
                Sent::Nothing => None,
                Sent::Untouched(raw) => Some(raw.get()),
                Sent::Rebuilt(text) => Some(text.as_str()),
                Sent::Claimed(kept, claimed) if redeemed.is_none() => Some(
                    redeemed.insert(redeem(approvals, &by.viewer, kept, claimed).map_err(Failed::before)?).as_str(),
                ),
                Sent::Claimed(..) => redeemed.as_deref(),
            };
            let question = Question { params, ..question };
            let answered = live.ask(question).await.map_err(|why| Failed {
                error: no_answer(why, question.command),
                dispatched: matches!(why, NoAnswer::TimedOut | NoAnswer::Disconnected),
            })?;
            let not_ready = !answered.result.ok
                && !answered.progressed
                && answered.result.error.as_ref().is_some_and(|e| e.code.as_deref() == Some("NODE_NOT_READY"));
            let time_left = question.deadline.saturating_duration_since(Instant::now()) > NOT_READY_PAUSE;
            if not_ready && time_left && retries < NOT_READY_RETRIES {
                retries += 1;
                tokio::time::sleep(NOT_READY_PAUSE).await;
                continue;
            }
            return to_answer(node_id, question.command, answered.result)
                .map_err(|error| Failed { error, dispatched: true });
        }
    }

    /// Passes the host policy of a node on, in either direction: `exec.approvals.node.*`. Returns the node's own payload.
    ///
    /// # Errors
    /// As [`Self::invoke`], in the words the reference has for these methods.
    pub async fn relay(
        &self,
        caller: &Connection,
        lists: Lists<'_>,
        node_id: &str,
        command: &str,
        params: &Value,
    ) -> Answer {
        let node_id = node_id.trim();
        if node_id.is_empty() {
            return Err(ErrorShape::invalid("nodeId required"));
        }
        let key = uuid::Uuid::new_v4().to_string();
        let sent = Sent::Rebuilt(params.to_string());
        let deadline = Instant::now() + DEFAULT_TIMEOUT;
        let question =
            Question { command, params: None, idempotency_key: &key, session_key: None, deadline, progress: None };
        let none = Approvals::default();
        let answer = self.dispatch(&By::connection(caller), lists, &none, node_id, question, &sent).await;
        let answer =
            answer.map_err(|Failed { error, .. }| match error.details.as_ref().and_then(|d| d.get("reason")) {
                Some(Value::String(reason)) => {
                    let details = json!({"command": command, "reason": reason});
                    ErrorShape::invalid(format!("node command not allowed: {command} ({reason})")).with_details(details)
                }
                _ => error,
            })?;
        #[derive(serde::Deserialize)]
        struct Relayed {
            payload: Map<String, Value>,
        }
        let invalid = |_| ErrorShape::invalid("node returned invalid exec approvals payload");
        let relayed: Relayed = serde_json::from_slice(&answer).map_err(invalid)?;
        crate::rpc::registry::to_bytes(&relayed.payload)
    }

    /// True for the companion app of macOS.
    pub fn is_mac_app(&self, node_id: &str) -> bool {
        let live = DeviceId::parse(node_id.trim()).and_then(|id| self.live(&id));
        live.is_some_and(|live| {
            let client = &live.connection.params.client;
            client.id == "openclaw-macos" && live.platform == policy::Platform::MacOs
        })
    }

    /// The reference's words; what to do about it goes to those who may do it.
    fn not_approved(&self, scopes: ScopeSet, node: &DeviceId) -> ErrorShape {
        let error = pairing_changed("invocation");
        if !scopes.grants(Scope::Pairing) {
            return error;
        }
        let request = self.read(|remembered| Some(remembered.surfaces.get(node)?.pending.as_ref()?.id.clone()));
        let command = match request {
            Some(id) => format!("openclaw nodes approve {id}"),
            None => "openclaw nodes pending".to_owned(),
        };
        error.detail("remediation", Remediation { command, run_on: Machine::GatewayHost })
    }

    /// `node.invoke.result`: counts only from the connection that was asked, and only once.
    pub fn answered(&self, caller: &Connection, result: InvokeResultParams) -> Receipt {
        let taken = self.live_of(caller).is_some_and(|live| live.answer(result));
        Receipt { ok: true, ignored: !taken }
    }

    /// `node.invoke.progress`: noted, so that the call is not repeated, and passed to whoever listens, in order.
    pub fn progressed(&self, caller: &Connection, progress: InvokeProgressParams) -> Receipt {
        let taken = self.live_of(caller).is_some_and(|live| live.progress(progress));
        Receipt { ok: true, ignored: !taken }
    }
}

/// `UNAVAILABLE`, `node pairing changed while … was active`: what the reference says while a surface is not approved.
pub(super) fn pairing_changed(what: &str) -> ErrorShape {
    let words = format!("node pairing changed while {what} was active");
    ErrorShape { retryable: Some(true), ..ErrorShape::unavailable(words) }.detail("code", "PAIRING_CHANGED")
}

fn no_answer(why: NoAnswer, command: &str) -> ErrorShape {
    let details = |code: &str, message: &str, dispatched: bool| {
        let node_error = NodeError { code: Some(code.to_owned()), message: Some(message.to_owned()) };
        json!({"nodeError": node_error, "nodeCommandDispatched": dispatched})
    };
    match why {
        NoAnswer::NotConnected => ErrorShape::unavailable("node not connected").with_details(json!({
            "code": "NOT_CONNECTED", "nodeError": {"code": "NOT_CONNECTED", "message": "node not connected"},
            "nodeCommandDispatched": false
        })),
        NoAnswer::Busy => ErrorShape::retry_later("node is busy: too much waits for it already", 1_000)
            .with_details(details("BUSY", "too much waits for it already", false)),
        NoAnswer::TooLarge => ErrorShape::invalid(format!(
            "invalid node.invoke params: at /params: larger than {} MiB",
            MAX_BUFFERED_BYTES >> 20
        )),
        NoAnswer::TimedOut => ErrorShape::unavailable("TIMEOUT: node invoke timed out").with_details(details(
            "TIMEOUT",
            "node invoke timed out",
            true,
        )),
        NoAnswer::Disconnected => {
            let message = format!("node disconnected ({command})");
            ErrorShape::unavailable(format!("DISCONNECTED: {message}")).with_details(details(
                "DISCONNECTED",
                &message,
                true,
            ))
        }
    }
}

fn to_answer(node_id: &str, command: &str, result: InvokeResultParams) -> Result<Bytes, ErrorShape> {
    if !result.ok {
        return Err(node_failed(result.error.unwrap_or_default()));
    }
    let text = result.payload_json;
    let payload = match &text {
        None => result.payload,
        Some(text) if text.trim().is_empty() => None,
        Some(text) => Some(raw_or_text(text)),
    };
    let size = payload.as_ref().map_or(0, |payload| payload.get().len());
    let repeated = text.as_deref().filter(|_| size <= REPEAT_PAYLOAD_BYTES);
    let answer = Invoked { ok: true, node_id, command, payload: payload.as_deref(), payload_json: repeated };
    let bytes = serde_json::to_vec(&answer)
        .map_err(|error| ErrorShape::unavailable(format!("the node's answer could not be passed on: {error}")))?;
    if bytes.len() + ANSWER_RESERVE_BYTES > MAX_BUFFERED_BYTES {
        let message = format!("the node's answer is larger than {} MiB", MAX_BUFFERED_BYTES >> 20);
        return Err(node_failed(NodeError { code: Some("RESULT_TOO_LARGE".into()), message: Some(message) }));
    }
    Ok(Bytes::from(bytes))
}

/// JSON as it is; other text as `{"payloadJSON": text}`, as the reference has it.
fn raw_or_text(text: &str) -> Box<RawValue> {
    let raw = RawValue::from_string(text.to_owned());
    raw.or_else(|_| to_raw_value(&json!({"payloadJSON": text}))).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

fn node_failed(error: NodeError) -> ErrorShape {
    let words = error.message.as_deref().unwrap_or("node invoke failed");
    let message = match &error.code {
        Some(code) => format!("{code}: {words}"),
        None => words.to_owned(),
    };
    ErrorShape::unavailable(message).with_details(json!({"nodeError": error, "nodeCommandDispatched": true}))
}
