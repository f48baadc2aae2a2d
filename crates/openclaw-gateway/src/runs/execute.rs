//! A run that a model answers.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use openclaw_agent::{
    message::{Message, Part, Role, ToolResult},
    provider::{ErrorKind, ModelRef, ProviderError, Stop, Thinking, attempt::Patience},
    tool::Tool,
    turn::{self, Candidate, How, Limits, Turn, unanswered},
    usage::Usage,
};

use super::{
    Origin, RunContext, RunOutcome, RunStatus, WhenBusy, attachments, compact,
    hooks::Deliver,
    live::Live,
    models::Chosen,
    preview::Preview,
    prompting,
    record::{Delivery, RunChange},
    sink::{GAP, Keeper, merged},
    take_joining,
};
use crate::{
    clock::now_ms,
    gateway::Gateway,
    sessions::{
        self, Answered, LastRun, NewMessage, Record, SessionId, StopReason,
        events::Changed,
        read::{ContextRow, history},
        record::{Place, RunStatus as SessionStatus},
    },
    store::{Change, StoreError},
};

/// How often a chat is shown that an answer is being written; Telegram shows it for five seconds.
const TYPING: Duration = Duration::from_secs(4);
/// Messages with this id's beginning are of commands; models do not see them.
pub const COMMAND_ID: &str = "cmd-";
/// What a model says when it has nothing to say, as the reference's prompts have it.
const SILENT: [&str; 2] = ["NO_REPLY", "HEARTBEAT_OK"];

/// A run whose message is in the transcript.
pub struct Begun {
    pub session_id: SessionId,
    pub started_ms: i64,
    /// What it said before a restart.
    pub said: String,
}

/// Why a run cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Stuck {
    /// Everything goes on after the next start.
    #[error("the gateway stops")]
    Stopping,
    #[error("{0}")]
    Failed(String),
}

impl From<StoreError> for Stuck {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Closed => Self::Stopping,
            error => Self::Failed(format!("the gateway could not save this: {error}")),
        }
    }
}

/// How a run ends.
struct Ending {
    status: RunStatus,
    stop: String,
    error: Option<(String, &'static str)>,
    /// The last message, or a note in its place.
    last: Option<NewMessage>,
}

impl RunOutcome {
    pub(super) fn empty(now: i64) -> Self {
        Self {
            status: RunStatus::Ok,
            text: String::new(),
            media: Vec::new(),
            usage: Usage::default(),
            cost: None,
            model: None,
            response_model: None,
            stop: "stop".into(),
            error: None,
            error_kind: None,
            started_ms: None,
            ended_ms: now,
            tools: Vec::new(),
            tool_calls: 0,
            session_id: String::new(),
        }
    }

    /// What a person who did not watch is told; `None` for nothing.
    pub fn reply(&self) -> Option<String> {
        match (self.status, &self.error) {
            (RunStatus::Aborted, _) => None,
            (RunStatus::Ok, _) => (!self.text.is_empty()).then(|| self.text.clone()),
            (RunStatus::Error | RunStatus::Timeout, error) => {
                let error = error.as_deref().unwrap_or("The run failed.");
                Some(joined(&self.text, error))
            }
        }
    }
}

/// Texts of one reply, one after the other.
pub fn joined(one: &str, two: &str) -> String {
    match (one.trim().is_empty(), two.trim().is_empty()) {
        (_, true) => one.to_owned(),
        (true, false) => two.to_owned(),
        (false, false) => format!("{one}{GAP}{two}"),
    }
}

/// The end of a run that was ended before it began.
pub fn never_ran(live: &Live, why: &str) -> RunOutcome {
    let session_id = String::new();
    let _ = live;
    RunOutcome { status: RunStatus::Aborted, stop: why.to_owned(), session_id, ..RunOutcome::empty(now_ms()) }
}

/// Answers. `None` when the gateway stops first; then the run goes on after the next start.
pub async fn run(gateway: &Arc<Gateway>, live: &Arc<Live>) -> Option<Arc<RunOutcome>> {
    let begun = match begin(gateway, live).await {
        Ok(begun) => begun,
        Err(Stuck::Stopping) => return None,
        Err(Stuck::Failed(why)) => return Some(failed(gateway, live, &why).await),
    };
    live.stream.resume(&begun.said);
    let telling = tokio::spawn({
        let (gateway, live) = (Arc::clone(gateway), Arc::clone(live));
        async move { live.stream.keep_telling(gateway).await }
    });
    let _telling = AbortOnDrop(telling);
    let typing = typing(gateway, live).map(AbortOnDrop);
    let preview = Preview::start(gateway, live);
    let answered = answer(gateway, live, &begun, preview).await;
    drop(typing);
    match answered {
        Ok(outcome) => Some(outcome),
        Err(Stuck::Stopping) => None,
        Err(Stuck::Failed(why)) => {
            let ending = Ending {
                status: RunStatus::Error,
                stop: "error".into(),
                last: Some(NewMessage::gateway_reply(&why)),
                error: Some((why, "unknown")),
            };
            end(gateway, live, Some(&begun), RunOutcome::empty(now_ms()), ending, None, None).await
        }
    }
}

/// Ends a run that could not be answered.
pub async fn failed(gateway: &Arc<Gateway>, live: &Arc<Live>, why: &str) -> Arc<RunOutcome> {
    let ending = Ending {
        status: RunStatus::Error,
        stop: "error".into(),
        last: Some(NewMessage::gateway_reply(why)),
        error: Some((why.to_owned(), "unknown")),
    };
    let outcome = end(gateway, live, None, RunOutcome::empty(now_ms()), ending, None, None).await;
    outcome.unwrap_or_else(|| Arc::new(never_ran(live, "stopping")))
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn typing(gateway: &Arc<Gateway>, live: &Arc<Live>) -> Option<tokio::task::JoinHandle<()>> {
    let (deliver, to) = (Arc::clone(gateway.runs.deliver()?), live.request.deliver.clone()?);
    Some(tokio::spawn(async move {
        loop {
            Deliver::typing(&*deliver, &to).await;
            tokio::time::sleep(TYPING).await;
        }
    }))
}

/// The parts of what a person said.
fn parts(live: &Live) -> Vec<Part> {
    let input = &live.request.input;
    // Who said it in a group, and what it answers, is in the text of a message from a channel.
    let mut text = input.text.clone();
    let files = input.media.iter().enumerate().filter(|(_, media)| !media.mime.starts_with("image/"));
    for (number, media) in files {
        let name = media.file_name.as_deref().unwrap_or("a file");
        text.push_str(&format!("\n[Attached: {name}, {}, {} bytes", media.mime, media.data.len()));
        text.push_str(&format!("; in the workspace as {}]", attachments::path(live.id(), number, media)));
    }
    let images = input.media.iter().filter(|media| media.mime.starts_with("image/"));
    let images = images.map(|media| Part::Image { mime: media.mime.clone(), data: media.data.clone() });
    let text = (!text.trim().is_empty()).then_some(Part::Text(text));
    text.into_iter().chain(images).collect()
}

/// What a person said, for the transcript.
pub fn user_row(live: &Live) -> NewMessage {
    let id = &live.id().0;
    NewMessage::user(&parts(live))
        .at(live.submitted_ms)
        .run(id)
        .idempotency(&format!("{id}:user"))
        .mark("senderIsOwner", live.request.authority.owner)
}

/// What a person said, for a model.
pub fn user_message(live: &Live) -> Message {
    Message { role: Role::User, parts: parts(live) }
}

/// Appends to the transcript the run began in, together with changes of runs. When the conversation was begun anew
/// meanwhile, only the changes are kept.
pub async fn append(
    gateway: &Arc<Gateway>,
    live: &Live,
    session_id: &SessionId,
    rows: Vec<NewMessage>,
    changes: Vec<RunChange>,
    edit: impl FnOnce(&mut Record),
) -> Result<(), Stuck> {
    let key = &live.request.session;
    let mut draft = gateway.sessions.draft(key).await;
    let changes: Vec<Change> = changes.into_iter().map(Change::from).collect();
    if !draft.exists() || draft.record().session_id != *session_id {
        drop(draft);
        gateway.store.commit(changes).await?;
        return Ok(());
    }
    for row in rows {
        draft.append(row).map_err(|error| Stuck::Failed(error.to_string()))?;
    }
    edit(draft.record_mut());
    let committed = draft.commit(changes).await?;
    sessions::events::messages(gateway, key, &committed.appended);
    Ok(())
}

/// Puts the message into the transcript, or finds it there after a restart.
async fn begin(gateway: &Arc<Gateway>, live: &Arc<Live>) -> Result<Begun, Stuck> {
    let key = &live.request.session;
    let started_ms = now_ms();
    if live.resumed.is_some()
        && let Some(begun) = resume(gateway, live, started_ms).await?
    {
        return Ok(begun);
    }
    save_attachments(gateway, live).await;
    // Those who wait for the same are answered together.
    let joining = match live.request.when_busy {
        WhenBusy::Collect => take_joining(gateway, live, WhenBusy::Collect),
        _ => Vec::new(),
    };
    let mut draft = gateway.sessions.draft(key).await;
    let fresh = !draft.exists();
    for row in std::iter::once(user_row(live)).chain(joining.iter().map(|other| user_row(other))) {
        draft.append(row).map_err(|error| Stuck::Failed(error.to_string()))?;
    }
    let run_id = live.id().0.as_str();
    let record = draft.record_mut();
    if fresh {
        record.settings.created_via = Some(created_via(&live.request.origin).to_owned());
    }
    if let Origin::Channel(inbound) = &live.request.origin {
        let title = inbound.chat_title.clone().or_else(|| Some(inbound.sender.name.clone()));
        record.place = Some(Box::new(Place { address: inbound.from.clone(), kind: inbound.kind, title }));
    }
    record.last_run = Some(LastRun {
        run_id: run_id.into(),
        status: SessionStatus::Running,
        started_ms: Some(started_ms),
        ended_ms: None,
        provider: None,
        model: None,
    });
    let session_id = record.session_id.clone();
    let started =
        RunChange::Started { run_id: live.id().clone(), session_id: session_id.as_str().to_owned(), at_ms: started_ms };
    let mut changes = vec![Change::from(started)];
    let ends: Vec<_> = joining.iter().map(|other| Arc::new(merged(other, live, session_id.as_str()))).collect();
    for (other, outcome) in joining.iter().zip(&ends) {
        let outcome = Box::new((**outcome).clone());
        changes.push(RunChange::Ended { run_id: other.id().clone(), outcome, delivery: Delivery::None }.into());
    }
    let committed = draft.commit(changes).await?;
    for (other, outcome) in joining.iter().zip(&ends) {
        {
            let mut state = gateway.runs.lock();
            state.live.remove(other.id());
            state.remember(other, outcome);
        }
        other.stream.ended(gateway, outcome, None);
        other.tell_end(outcome);
    }
    super::show(gateway, key);
    if fresh {
        sessions::events::changed(gateway, key, Changed::Reason("create"));
    }
    sessions::events::changed(gateway, key, Changed::Reason("send"));
    sessions::events::messages(gateway, key, &committed.appended);
    Ok(Begun { session_id, started_ms, said: String::new() })
}

fn created_via(origin: &Origin) -> &'static str {
    match origin {
        Origin::Operator { .. } => "operator",
        Origin::Channel(_) => "channel",
        Origin::Http | Origin::Hook { .. } => "http",
        Origin::Node(_) => "node",
        Origin::Internal(_) => "agent",
    }
}

/// Takes up what a restart interrupted: tools that had begun get an answer that says what is known of them.
async fn resume(gateway: &Arc<Gateway>, live: &Arc<Live>, now: i64) -> Result<Option<Begun>, Stuck> {
    let Some(record) = gateway.sessions.get(&live.request.session) else { return Ok(None) };
    let rows = gateway.sessions.messages_of_run(&live.id().0).await?;
    let Some(first) = rows.first() else { return Ok(None) };
    let session_id = first.session_id.clone();
    let begun = live.request.session.as_str();
    tracing::info!(run = live.id().0, session = begun, "a run goes on after the restart");
    let messages: Vec<Message> = rows.iter().filter_map(|row| sessions::message::to_agent(&row.body)).collect();
    let texts = messages.iter().filter(|message| message.role == Role::Assistant).map(Message::text);
    let said = texts.fold(String::new(), |said, text| joined(&said, &text));
    let markers = live.resumed.as_deref().unwrap_or_default();
    let open = unanswered(&messages);
    let interrupted = open.iter().filter(|call| markers.iter().any(|marker| marker.call_id == call.id));
    for call in interrupted {
        let row = NewMessage::tool_result(&ToolResult::interrupted(call), None).run(&live.id().0);
        let ended = RunChange::ToolEnded { run_id: live.id().clone(), call_id: call.id.clone() };
        append(gateway, live, &session_id, vec![row], vec![ended], |_| {}).await?;
    }
    let _ = record;
    Ok(Some(Begun { session_id, started_ms: now, said }))
}

/// Files other than pictures go to the workspace, where the agent can read them.
async fn save_attachments(gateway: &Arc<Gateway>, live: &Arc<Live>) {
    if live.request.input.media.iter().all(|media| media.mime.starts_with("image/")) {
        return;
    }
    let settings = gateway.runs.settings(gateway);
    let Some(agent) = settings.agent(live.request.session.agent()).cloned() else { return };
    let live = Arc::clone(live);
    let saved =
        tokio::task::spawn_blocking(move || attachments::save(&agent.workspace, live.id(), &live.request.input)).await;
    if let Ok(Err(error)) = saved {
        tracing::warn!(%error, "an attached file could not be put into the workspace");
    }
}

/// Everything a turn needs.
struct Prepared {
    candidates: Vec<Candidate>,
    requested: ModelRef,
    thinking: Thinking,
    system: String,
    tools: Vec<Arc<dyn Tool>>,
    limits: Limits,
}

async fn answer(
    gateway: &Arc<Gateway>,
    live: &Arc<Live>,
    begun: &Begun,
    preview: Option<Preview>,
) -> Result<Arc<RunOutcome>, Stuck> {
    let (key, run_id) = (&live.request.session, live.id().0.as_str());
    live.stream.status(gateway, "preparing_workspace");
    live.stream.status(gateway, "preparing_context");
    let prepared = prepare(gateway, live, begun).await;
    live.stream.started(gateway, begun.session_id.as_str(), begun.started_ms);
    sessions::events::changed(gateway, key, Changed::Reason("agent.run.started"));
    sessions::events::changed(gateway, key, Changed::Phase { phase: "start", run_id });
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(Stuck::Stopping) => return Err(Stuck::Stopping),
        Err(Stuck::Failed(why)) => {
            let ending = Ending {
                status: RunStatus::Error,
                stop: "error".into(),
                last: Some(NewMessage::gateway_reply(&why)),
                error: Some((why, "unknown")),
            };
            if let Some(preview) = preview {
                preview.end().await;
            }
            let ended = end(gateway, live, Some(begun), RunOutcome::empty(now_ms()), ending, None, None).await;
            return ended.ok_or(Stuck::Stopping);
        }
    };
    live.stream.status(gateway, "starting_model");
    let mut compacted = false;
    loop {
        let mut keeper = Keeper::new(gateway, live, begun, &prepared.candidates);
        let record = gateway.sessions.get(key).filter(|record| record.session_id == begun.session_id);
        let Some(record) = record else {
            return Err(Stuck::Failed("the conversation was begun anew or deleted meanwhile".into()));
        };
        let rows = visible(gateway.sessions.context(&record).await?);
        if !compacted && compact::is_due(gateway, &record, &rows, &prepared.candidates, &prepared.system) {
            compacted = true;
            live.stream.compaction(gateway, "start");
            let done = compact::summarize(gateway, key, &prepared.candidates, None, Some(run_id), &live.cancel).await;
            live.stream.compaction(gateway, "end");
            match done {
                Ok(_) => continue,
                // The turn cuts what does not fit.
                Err(error) => tracing::warn!(run = run_id, "the conversation was not compacted: {}", error.message),
            }
        }
        let turn = Turn {
            history: history(rows, &prepared.requested),
            models: prepared.candidates.clone(),
            system: prepared.system.clone(),
            tools: prepared.tools.clone(),
            thinking: prepared.thinking,
            max_tokens: None,
            limits: prepared.limits,
            patience: Patience::default(),
            cancel: live.cancel.child_token(),
        };
        let Some(ended) = drive(gateway, turn, &mut keeper).await else { return Err(Stuck::Stopping) };
        if let How::Sink(failed) = &ended.how {
            if gateway.cancel.is_cancelled() {
                return Err(Stuck::Stopping);
            }
            return Err(Stuck::Failed(failed.0.clone()));
        }
        if let How::Failed(ProviderError { kind: ErrorKind::ContextLength, .. }) = &ended.how
            && !compacted
        {
            compacted = true;
            let done = compact::summarize(gateway, key, &prepared.candidates, None, Some(run_id), &live.cancel).await;
            if done.is_ok() {
                live.stream.discarded(gateway);
                continue;
            }
        }
        if let Some(preview) = preview {
            preview.end().await;
        }
        return settle(gateway, live, begun, &prepared, keeper, ended).await.ok_or(Stuck::Stopping);
    }
}

/// Runs the turn. `None` when the gateway stops and nothing is lost by leaving it.
async fn drive(gateway: &Arc<Gateway>, turn: Turn, keeper: &mut Keeper<'_>) -> Option<turn::Ended> {
    let running = Arc::clone(&keeper.running);
    let mut turn = std::pin::pin!(turn::run(turn, keeper));
    tokio::select! {
        ended = &mut turn => return Some(ended),
        () = gateway.cancel.cancelled() => {}
    }
    if running.load(Ordering::SeqCst) == 0 {
        return None;
    }
    // Tools that run are given the time there is; what they answer is kept.
    Some(turn.await)
}

/// What models are given: all but commands and their answers.
pub(super) fn visible(rows: Vec<ContextRow>) -> Vec<ContextRow> {
    rows.into_iter().filter(|row| !row.message_id.starts_with(COMMAND_ID)).collect()
}

async fn prepare(gateway: &Arc<Gateway>, live: &Arc<Live>, begun: &Begun) -> Result<Prepared, Stuck> {
    let settings = gateway.runs.settings(gateway);
    let request = &live.request;
    let id = request.session.agent();
    let agent = settings.agent(id).ok_or_else(|| {
        let known: Vec<_> = settings.agents.iter().map(|agent| agent.id.as_str()).collect();
        Stuck::Failed(format!(
            "There is no agent {id:?} in the config (agents.entries). There are: {}",
            known.join(", ")
        ))
    })?;
    let record = gateway.sessions.get(&request.session);
    let own = record.as_ref().map(|record| &record.settings);
    let wanted = request.model.as_ref().map(ToString::to_string).or_else(|| own.and_then(|own| own.model.clone()));
    let Chosen { candidates, requested, thinking } =
        gateway.runs.models.choose(&agent.id, wanted.as_deref()).await.map_err(Stuck::Failed)?;
    let thinking = request
        .thinking
        .or_else(|| own.and_then(|own| own.thinking_level.as_deref()).and_then(Thinking::parse))
        .unwrap_or(thinking);
    let context = Arc::new(RunContext {
        run_id: live.id().clone(),
        session: request.session.clone(),
        session_id: begun.session_id.as_str().to_owned(),
        agent: agent.id.clone(),
        authority: request.authority,
        origin: request.origin.clone(),
        deliver: request.deliver.clone(),
        workspace: agent.workspace.clone(),
    });
    let mut offered = Vec::new();
    for source in gateway.runs.sources() {
        offered.extend(source.tools(gateway, &context).await);
    }
    let tools = prompting::permitted(gateway, &context, &requested, offered);
    let tools = tools.map_err(|starved| Stuck::Failed(starved.to_string()))?;
    let system = prompting::system(gateway, agent, &context, live, &tools, &requested).await;
    let window = candidates.first().map_or(0, |candidate| candidate.model.context_window);
    let limits = Limits {
        timeout: request.timeout.unwrap_or(agent.timeout),
        tool_result_bytes: Limits::tool_result_bytes_for(window),
        ..Limits::default()
    };
    Ok(Prepared { candidates, requested, thinking, system, tools, limits })
}

/// Keeps the end of a turn and tells it.
async fn settle(
    gateway: &Arc<Gateway>,
    live: &Arc<Live>,
    begun: &Begun,
    prepared: &Prepared,
    keeper: Keeper<'_>,
    ended: turn::Ended,
) -> Option<Arc<RunOutcome>> {
    let text = keeper.whole_text();
    let silent = SILENT.contains(&text.trim());
    let partial = keeper.partial.clone();
    let mut outcome = RunOutcome {
        text: if silent { String::new() } else { text },
        usage: ended.usage,
        cost: keeper.cost,
        model: ended.model.clone(),
        response_model: keeper.response_model.clone(),
        tools: keeper.tools.clone(),
        tool_calls: ended.tool_calls,
        ..RunOutcome::empty(now_ms())
    };
    let run_id = &live.id().0;
    let row = |message: &Message, answered: &Answered| NewMessage::assistant(&message.parts, answered).run(run_id);
    let cut = |stop: StopReason, error: Option<&str>| {
        let model = ended.model.clone().unwrap_or_else(|| prepared.requested.clone());
        let parts: Vec<Part> = (!partial.trim().is_empty()).then(|| Part::Text(partial.clone())).into_iter().collect();
        let api = gateway.runs.models().api_of(&model);
        let answered = Answered {
            model,
            api,
            response_model: None,
            response_id: None,
            usage: Usage::default(),
            price: None,
            stop,
            error: error.map(str::to_owned),
        };
        NewMessage::assistant(&parts, &answered).run(run_id)
    };
    let ending = match &ended.how {
        How::Finished(stop) => Ending {
            status: RunStatus::Ok,
            stop: StopReason::from(*stop).as_str().to_owned(),
            error: None,
            last: keeper.last.as_ref().map(|(message, answered)| row(message, answered)),
        },
        How::Cancelled => Ending {
            status: RunStatus::Aborted,
            stop: live.ending().unwrap_or("aborted").to_owned(),
            error: None,
            last: (!partial.trim().is_empty()).then(|| cut(StopReason::Aborted, None)),
        },
        How::TimedOut => {
            let limit = prepared.limits.timeout.as_secs();
            let why = format!("The answer took longer than {limit} s (agents.defaults.timeoutSeconds) and was ended.");
            outcome.stop = "timeout".into();
            Ending {
                status: RunStatus::Timeout,
                stop: "timeout".into(),
                last: Some(cut(StopReason::Error, Some(&why))),
                error: Some((why, "timeout")),
            }
        }
        How::TooManyRounds => {
            let why = format!(
                "Ended after {} rounds of tools without an answer. Say what to do next.",
                prepared.limits.rounds
            );
            Ending {
                status: RunStatus::Error,
                stop: "error".into(),
                last: Some(cut(StopReason::Error, Some(&why))),
                error: Some((why, "unknown")),
            }
        }
        How::Looping { tool } => {
            let why = format!("Ended: the model kept calling {tool} in the same way and got the same answer.");
            Ending {
                status: RunStatus::Error,
                stop: "error".into(),
                last: Some(cut(StopReason::Error, Some(&why))),
                error: Some((why, "unknown")),
            }
        }
        How::Failed(error) => Ending {
            status: RunStatus::Error,
            stop: "error".into(),
            last: Some(cut(StopReason::Error, Some(&error.message))),
            error: Some((error.message.clone(), kind_of(error.kind))),
        },
        How::Sink(failed) => Ending {
            status: RunStatus::Error,
            stop: "error".into(),
            last: None,
            error: Some((failed.0.clone(), "unknown")),
        },
    };
    if matches!(ended.how, How::Finished(Stop::Refusal)) {
        outcome.error_kind = Some("refusal".into());
    }
    let context = (keeper.context > 0).then_some(keeper.context);
    end(gateway, live, Some(begun), outcome, ending, Some(&prepared.requested), context).await
}

/// `errorKind` of a `chat` error.
const fn kind_of(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::RateLimit => "rate_limit",
        ErrorKind::ContextLength => "context_length",
        ErrorKind::Network => "timeout",
        _ => "unknown",
    }
}

/// Keeps the end: last message, outcome and pending delivery are one transaction. Then tells it.
async fn end(
    gateway: &Arc<Gateway>,
    live: &Arc<Live>,
    begun: Option<&Begun>,
    outcome: RunOutcome,
    ending: Ending,
    requested: Option<&ModelRef>,
    context: Option<u64>,
) -> Option<Arc<RunOutcome>> {
    let key = &live.request.session;
    let now = now_ms();
    let (error, error_kind) = ending.error.map_or((None, None), |(error, kind)| (Some(error), Some(kind.to_owned())));
    let session_id = begun.map(|begun| begun.session_id.clone());
    let outcome = RunOutcome {
        status: ending.status,
        stop: ending.stop,
        error_kind: error_kind.or(outcome.error_kind),
        error,
        started_ms: begun.map(|begun| begun.started_ms),
        ended_ms: now,
        session_id: session_id.as_ref().map_or_else(String::new, |id| id.as_str().to_owned()),
        ..outcome
    };
    let delivery = match (&live.request.deliver, outcome.reply()) {
        (Some(_), Some(_)) => live.delivery().map_or_else(Delivery::pending, Delivery::after_preview),
        _ => Delivery::None,
    };
    let ended =
        RunChange::Ended { run_id: live.id().clone(), outcome: Box::new(outcome.clone()), delivery: delivery.clone() };
    let rows: Vec<NewMessage> = ending.last.into_iter().map(|row| row.run(&live.id().0)).collect();
    let saved = match session_id.or_else(|| gateway.sessions.get(key).map(|record| record.session_id.clone())) {
        Some(id) => append(gateway, live, &id, rows, vec![ended], |record| note(record, live, &outcome, context)).await,
        None => gateway.store.commit([ended]).await.map_err(Stuck::from),
    };
    let outcome = match saved {
        Ok(()) => outcome,
        Err(Stuck::Stopping) => return None,
        Err(Stuck::Failed(why)) => {
            // It is still under way as far as the disk knows, and is answered after the next start.
            tracing::error!(run = live.id().0, "the end of a run was not saved: {why}");
            let error = Some(format!("The answer could not be saved: {why}"));
            RunOutcome { status: RunStatus::Error, error, error_kind: Some("unknown".into()), ..outcome }
        }
    };
    live.set_delivery(delivery);
    live.stream.finishing(gateway, &outcome.stop, outcome.status == RunStatus::Aborted);
    let phase = match outcome.status {
        RunStatus::Ok | RunStatus::Aborted => "end",
        RunStatus::Error | RunStatus::Timeout => "error",
    };
    match outcome.status {
        RunStatus::Aborted => {
            live.stream.aborted(gateway, &outcome.stop);
        }
        _ => live.stream.ended(gateway, &outcome, requested),
    }
    sessions::events::changed(gateway, key, Changed::Phase { phase, run_id: &live.id().0 });
    Some(Arc::new(outcome))
}

/// What lists show of the run.
fn note(record: &mut Record, live: &Live, outcome: &RunOutcome, context: Option<u64>) {
    record.last_run = Some(LastRun {
        run_id: live.id().0.as_str().into(),
        status: match outcome.status {
            RunStatus::Ok => SessionStatus::Done,
            RunStatus::Error => SessionStatus::Failed,
            RunStatus::Aborted => SessionStatus::Killed,
            RunStatus::Timeout => SessionStatus::Timeout,
        },
        started_ms: outcome.started_ms,
        ended_ms: Some(outcome.ended_ms),
        provider: outcome.model.as_ref().map(|model| model.provider.as_str().into()),
        model: outcome.model.as_ref().map(|model| model.model.as_str().into()),
    });
    let totals = &mut record.totals;
    if outcome.usage != Usage::default() {
        totals.input = outcome.usage.input;
        totals.output = outcome.usage.output;
        totals.cache_read = outcome.usage.cache_read;
        totals.cache_write = outcome.usage.cache_write;
    }
    totals.context = context.or(totals.context);
    totals.cost += outcome.cost.unwrap_or_default();
}
