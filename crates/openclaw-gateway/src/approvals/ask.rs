//! Questions of the agent's runs: put before people, waited for, and taken back when the run ends.

use std::time::Duration;

use openclaw_channels::message::Address;
use openclaw_protocol::{
    ErrorShape, Protocol,
    method::exec::{ApprovalRequestParams, Decision},
};
use tokio_util::sync::CancellationToken;

use super::{
    ledger::{Asker, How, Refused, Viewer},
    node_of,
    prepare::prepare,
    put_to_people,
};
use crate::{
    clock::now_ms,
    gateway::Gateway,
    runs::{Origin, RunContext},
};

/// How long a run waits for a person: as long as a question stands that a client asks (release 2026.9.6).
pub const RUN_ASKS_FOR: Duration = Duration::from_secs(30 * 60);

/// What people said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Of the approval; what is redeemed with it is bound to this run.
    pub id: String,
    /// `None`: there was none, see `why`.
    pub decision: Option<Decision>,
    pub why: Why,
}

/// How a question ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    Person,
    TimedOut,
    /// No client shows approvals, and no channel has approvers.
    NobodyThere,
    /// The run was aborted, or the gateway stops.
    Aborted,
}

impl Why {
    /// For the model and the person behind it: what happened, and what to do.
    pub fn denial(self) -> &'static str {
        match self {
            Self::Person => "A person looked at the command and denied it. Do not try it again in other words.",
            Self::TimedOut => "Nobody answered in time, so it did not run. Ask again when somebody is there.",
            Self::NobodyThere => {
                "The command needs a person's leave, and nobody is there who could give it. Open the app or the \
                 browser UI, or run `openclaw approvals watch`, and ask again."
            }
            Self::Aborted => "The run was ended before anybody answered.",
        }
    }
}

/// The chat a run answers to, in the words of an approval (`turnSource…`).
pub(crate) fn turn_source(context: &RunContext) -> Option<&Address> {
    match &context.origin {
        Origin::Channel(message) => Some(&message.from),
        _ => context.deliver.as_ref(),
    }
}

/// The device of whoever started the run; it may answer what the run asks, besides administrators.
pub(crate) fn reviewer(context: &RunContext) -> Option<openclaw_protocol::DeviceId> {
    match &context.origin {
        Origin::Operator { device, .. } => device.clone(),
        _ => None,
    }
}

/// Asks people for leave on behalf of a run and waits for the answer, for `RUN_ASKS_FOR` unless `wish.timeout_ms` is set.
/// Session, agent, run and turn source are those of the run, whatever `wish` says. Cancelling or dropping it takes the
/// question back.
///
/// For `host=node` the leave is then redeemed by [`crate::nodes::for_run`]; for the gateway's own host an `Ok` with a
/// decision that [allows](Decision::allows) is the leave itself, for exactly `wish.command_argv`, `cwd` and `env`, once, or
/// (`allow-always`) for as long as the caller remembers it in the document of this host.
///
/// # Errors
/// `INVALID_REQUEST` when the question cannot be put (too long to be shown, no command), `UNAVAILABLE` when too many wait.
pub async fn ask_for_run(
    gateway: &Gateway,
    context: &RunContext,
    tool_call: &str,
    wish: ApprovalRequestParams,
    cancel: &CancellationToken,
) -> Result<Answered, ErrorShape> {
    let source = turn_source(context);
    let run_id = context.run_id.0.clone();
    let default_ms = u64::try_from(RUN_ASKS_FOR.as_millis()).unwrap_or(u64::MAX);
    let wish = ApprovalRequestParams {
        id: None,
        agent_id: Some(context.agent.clone()),
        session_key: Some(context.session.to_string()),
        session_id: Some(context.session_id.clone()),
        run_id: Some(run_id.clone()),
        tool_call_id: Some(tool_call.to_owned()),
        turn_source_channel: source.map(|address| address.channel.clone()),
        turn_source_to: source.map(|address| address.chat.clone()),
        turn_source_account_id: source.map(|address| address.account.clone()),
        turn_source_thread_id: source.and_then(|address| address.thread.clone()).map(Into::into),
        timeout_ms: Some(wish.timeout_ms.unwrap_or(default_ms)),
        ..wish
    };
    let prepared = prepare(wish, Protocol::V4)?;
    let asker = Asker::Run { id: run_id, reviewer: reviewer(context) };
    let fresh = || uuid::Uuid::new_v4().to_string();
    let opened = gateway
        .approvals
        .with(|ledger| ledger.open(now_ms(), None, fresh, prepared.request, asker, prepared.timeout_ms));
    let record = opened.map_err(Refused::into_error)?;
    let reached = put_to_people(gateway, None, &record);
    tracing::info!(
        id = record.id, node = node_of(&record), run = context.run_id.0, session = %context.session,
        reviewers = reached, "the agent asked for leave to run a command"
    );
    let _asked = Asked { gateway, id: &record.id };
    if reached == 0 {
        gateway.approvals.with(|ledger| ledger.give_up(now_ms(), &record.id));
    }
    let ended = tokio::select! {
        biased;
        () = cancel.cancelled() => None,
        ended = gateway.approvals.wait(&record.id, &gateway.cancel) => ended,
    };
    let (decision, why) = match ended.as_ref().map(|(_, ended)| &ended.how) {
        Some(How::Decided { decision, .. }) => (Some(*decision), Why::Person),
        Some(How::TimedOut) => (None, Why::TimedOut),
        Some(How::NoRoute) => (None, Why::NobodyThere),
        Some(How::Aborted) | None => (None, Why::Aborted),
    };
    Ok(Answered { id: record.id.clone(), decision, why })
}

/// A question under way; nobody is left with one that means nothing any more.
struct Asked<'a> {
    gateway: &'a Gateway,
    id: &'a str,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.gateway.approvals.with(|ledger| ledger.abort(now_ms(), self.id));
    }
}

/// The run as the ledger knows it when it comes back with what it was allowed.
pub(crate) fn viewer_of_run(context: &RunContext) -> Viewer<'_> {
    Viewer { admin: false, device: None, connection: 0, run: Some(&context.run_id.0) }
}
