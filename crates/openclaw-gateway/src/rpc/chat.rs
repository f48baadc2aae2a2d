//! `chat.send`, `chat.abort`, `chat.inject`, `agent`, `agent.wait`, `wake`.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use openclaw_agent::provider::{ModelRef, Thinking};
use openclaw_channels::message::{Address, Media};
use openclaw_protocol::{
    ErrorShape, Protocol, Scope,
    method::{
        Done,
        agent::{
            Agent, AgentParams, AgentWait, AgentWaitParams, Attachment, ChatAbort, ChatAborted, ChatInject,
            ChatInjectParams, ChatInjected, ChatSend, ChatSendParams, ChatSent, Wake, WakeParams,
        },
    },
};
use serde_json::{Value, json};

use super::registry::{Call, Registry, Replies, to_bytes};
use crate::{
    clock::now_ms,
    gateway::Gateway,
    runs::{
        Authority, Input, Origin, RunId, RunOutcome, RunRequest, RunStatus, Runs, SubmitStatus, Taking,
        settings::{MAIN_KEY, mode_from},
        stream::{Stream, terminal_receipt, terminal_reply},
    },
    sessions::{self, NewMessage, SessionKey, events::Changed},
};

/// `agent.wait` without `timeoutMs` (the reference).
const WAIT: Duration = Duration::from_secs(30);
/// Longest text of a line for the next turn.
const MAX_WAKE_CHARS: usize = 2_000;
/// Bytes of all attachments, and of one picture (`policy.attachments` of the reference's hello).
const MAX_ATTACHMENTS_BYTES: usize = 19_464_192;
const MAX_IMAGE_BYTES: usize = 6_291_456;
/// Characters of a run's id.
const MAX_ID_CHARS: usize = 256;

pub fn register(registry: &mut Registry) {
    registry
        .on_replies::<ChatSend, _>(send)
        .on_async::<ChatAbort, _>(|call, params| async move {
            let gateway = &call.gateway;
            let key = gateway.runs.key(gateway, &params.session_key, params.agent_id.as_deref())?;
            let run = params.run_id.map(RunId);
            if let Some(run) = &run
                && gateway.runs.session_of(run).is_some_and(|session| session != key)
            {
                return Err(ErrorShape::invalid("runId does not match sessionKey"));
            }
            let ended = Runs::abort(gateway, &key, run.as_ref()).await;
            let run_ids: Vec<String> = ended.into_iter().map(|run| run.0).collect();
            Ok(ChatAborted { ok: true, aborted: !run_ids.is_empty(), run_ids })
        })
        .on_async::<ChatInject, _>(inject)
        .on_replies::<Agent, _>(agent)
        .on_async::<AgentWait, _>(wait)
        .on_async::<Wake, _>(wake);
}

/// Who asks over a connection, and what he may do.
fn asker(call: &Call) -> (Origin, Authority) {
    let caller = &call.caller;
    let origin = Origin::Operator {
        connection: caller.number,
        device: caller.device.clone(),
        client: caller.params.client.id.clone(),
    };
    (origin, Authority { scopes: caller.scopes, owner: caller.scopes.grants(Scope::Admin) })
}

async fn send(call: Call, params: ChatSendParams, replies: Replies) {
    let protocol = call.caller.protocol;
    let request = match send_request(&call, params) {
        Ok(request) => request,
        Err(error) => return replies.send(Err(error)),
    };
    let (request, taking) = request;
    let run_id = request.run_id.0.clone();
    let held = match Runs::submit_held(&call.gateway, request, Vec::new(), taking).await {
        Ok((submitted, held)) => {
            let status = match submitted.status {
                SubmitStatus::Started => "started",
                SubmitStatus::Queued { .. } => "accepted",
                SubmitStatus::InFlight => "in_flight",
                SubmitStatus::Done => "ok",
            };
            replies.send(to_bytes(&ChatSent { run_id, status: status.into() }));
            held
        }
        // Protocol 3 remembers the answer by the id alone.
        Err(error) if protocol == Protocol::V3 && is_conflict(&error) => {
            let ended = Runs::wait(&call.gateway, &RunId(run_id.clone()), Some(Duration::ZERO)).await.is_some();
            let status = if ended { "ok" } else { "in_flight" };
            return replies.send(to_bytes(&ChatSent { run_id, status: status.into() }));
        }
        Err(error) => return replies.send(Err(error)),
    };
    // The answer is queued; now it may begin.
    drop(held);
}

fn is_conflict(error: &ErrorShape) -> bool {
    error.details.as_ref().and_then(|details| details.get("reason")).is_some_and(|r| r == "chat-request-conflict")
}

fn send_request(call: &Call, params: ChatSendParams) -> Result<(RunRequest, Taking), ErrorShape> {
    let gateway = &call.gateway;
    let missing = |names: &[&str]| {
        let words: Vec<_> = names.iter().map(|name| format!("must have required property '{name}'")).collect();
        ErrorShape::invalid(format!("invalid chat.send params: {}", words.join("; ")))
    };
    let written = params.session_key.as_deref().map(str::trim).filter(|key| !key.is_empty());
    let given = [
        ("sessionKey", written.is_some()),
        ("message", params.message.is_some()),
        ("idempotencyKey", params.idempotency_key.as_deref().is_some_and(|key| !key.is_empty())),
    ];
    let absent: Vec<&str> = given.iter().filter(|(_, given)| !given).map(|(name, _)| *name).collect();
    let (Some(written), Some(message), Some(id)) = (written, &params.message, &params.idempotency_key) else {
        if params.session_key.is_none() && call.caller.protocol != Protocol::V3 {
            return Err(ErrorShape::invalid("session mutation target is unavailable")
                .detail("code", "SESSION_MUTATION_TARGET_REQUIRED")
                .detail("method", "chat.send"));
        }
        return Err(missing(&absent));
    };
    if !absent.is_empty() {
        return Err(missing(&absent));
    }
    let session = gateway.runs.key(gateway, written, params.agent_id.as_deref())?;
    let media = attachments(&params.attachments)?;
    let text = clean(message);
    if text.trim().is_empty() && media.is_empty() {
        return Err(ErrorShape::invalid("message or attachment required"));
    }
    let deliver = match (params.originating_channel.as_deref(), params.originating_to.as_deref()) {
        _ if params.deliver != Some(true) => None,
        (Some(channel), Some(to)) => Some(Address {
            channel: channel.to_owned(),
            account: params.originating_account_id.clone().unwrap_or_else(|| "default".into()),
            chat: to.to_owned(),
            thread: params.originating_thread_id.clone(),
        }),
        // Where the conversation takes place, if it is one of a channel; nowhere else to deliver to is no error here.
        _ => place(gateway, &session),
    };
    let settings = gateway.runs.settings(gateway);
    let when_busy = match params.queue_mode.as_deref() {
        None => settings.queue,
        Some(mode) => mode_from(mode).ok_or_else(|| {
            ErrorShape::invalid(
                "invalid chat.send params: at /queueMode: must be steer, followup, collect or interrupt",
            )
        })?,
    };
    let (origin, authority) = asker(call);
    let request = RunRequest {
        run_id: run_id(id)?,
        session,
        input: Input { text, media },
        origin,
        authority,
        deliver,
        model: None,
        thinking: thinking(params.thinking.as_deref())?,
        timeout: params.timeout_ms.filter(|ms| *ms > 0).map(Duration::from_millis),
        extra_system: None,
        when_busy,
    };
    Ok((request, Taking { plain: params.suppress_command_interpretation == Some(true) }))
}

fn run_id(id: &str) -> Result<RunId, ErrorShape> {
    let fine = id.chars().count() <= MAX_ID_CHARS && !id.chars().any(char::is_control);
    if fine {
        return Ok(RunId(id.to_owned()));
    }
    Err(ErrorShape::invalid(format!(
        "idempotencyKey must have at most {MAX_ID_CHARS} characters, and no control characters"
    )))
}

/// Text without what no person types and terminals obey.
pub(crate) fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}

pub(crate) fn thinking(word: Option<&str>) -> Result<Option<Thinking>, ErrorShape> {
    let Some(word) = word.map(str::trim).filter(|word| !word.is_empty()) else { return Ok(None) };
    let levels = Thinking::ALL.map(Thinking::as_str).join(", ");
    let level = Thinking::parse(word);
    level.map(Some).ok_or_else(|| ErrorShape::invalid(format!("invalid thinking level; use one of {levels}")))
}

/// Where a conversation takes place.
pub(crate) fn place(gateway: &Gateway, session: &SessionKey) -> Option<Address> {
    gateway.sessions.get(session)?.place.as_ref().map(|place| place.address.clone())
}

/// Files of a request.
///
/// # Errors
/// What is wrong with which.
pub fn attachments(given: &[Attachment]) -> Result<Vec<Media>, ErrorShape> {
    let mut total = 0;
    let mut media = Vec::new();
    for (number, attachment) in given.iter().enumerate() {
        let name = attachment.file_name.clone().unwrap_or_else(|| format!("attachment {}", number + 1));
        let wrong = |why: &str| ErrorShape::invalid(format!("attachment {name}: {why}"));
        let Some(Value::String(content)) = &attachment.content else {
            return Err(wrong("content must be base64 text"));
        };
        let (url_mime, base64) = match content.strip_prefix("data:").and_then(|rest| rest.split_once(',')) {
            Some((head, data)) => (head.split(';').next().filter(|mime| !mime.is_empty()), data),
            None => (None, content.as_str()),
        };
        if base64.len() / 4 * 3 > MAX_ATTACHMENTS_BYTES {
            return Err(wrong(&format!("is larger than {MAX_ATTACHMENTS_BYTES} bytes")));
        }
        let data = STANDARD.decode(base64.trim()).map_err(|_| wrong("invalid base64 content"))?;
        total += data.len();
        if total > MAX_ATTACHMENTS_BYTES {
            return Err(ErrorShape::invalid(format!(
                "attachments are larger than {MAX_ATTACHMENTS_BYTES} bytes together"
            )));
        }
        // What the bytes are counts more than what they are said to be: models refuse mislabelled pictures.
        let said = attachment.mime_type.as_deref().or(url_mime).map(|mime| mime.trim().to_lowercase());
        let mime = sniffed(&data).map(str::to_owned).or(said).unwrap_or_else(|| "application/octet-stream".into());
        if mime.starts_with("image/") && data.len() > MAX_IMAGE_BYTES {
            return Err(wrong(&format!("the picture is larger than {MAX_IMAGE_BYTES} bytes; scale it down")));
        }
        media.push(Media { mime, file_name: attachment.file_name.clone(), data: data.into() });
    }
    Ok(media)
}

/// The kinds of pictures models take.
fn sniffed(data: &[u8]) -> Option<&'static str> {
    match data {
        [0x89, b'P', b'N', b'G', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => None,
    }
}

async fn inject(call: Call, params: ChatInjectParams) -> Result<ChatInjected, ErrorShape> {
    let gateway = &call.gateway;
    let key = gateway.runs.key(gateway, &params.session_key, params.agent_id.as_deref())?;
    let text = clean(&params.message);
    if text.trim().is_empty() {
        return Err(ErrorShape::invalid(
            "invalid chat.inject params: at /message: must NOT have fewer than 1 characters",
        ));
    }
    if params.label.as_ref().is_some_and(|label| label.chars().count() > 100) {
        return Err(ErrorShape::invalid(
            "invalid chat.inject params: at /label: must NOT have more than 100 characters",
        ));
    }
    let text = match params.label.as_deref().map(str::trim).filter(|label| !label.is_empty()) {
        Some(label) => format!("[{label}]\n\n{text}"),
        None => text,
    };
    let mut draft = gateway.sessions.draft(&key).await;
    if !draft.exists() {
        return Err(ErrorShape::invalid("session not found"));
    }
    let too_large = |error: sessions::DraftError| ErrorShape::invalid(error.to_string());
    let appended = draft.append(NewMessage::gateway_reply(&text)).map_err(too_large)?;
    let committed = draft.commit(Vec::new()).await.map_err(|error| {
        tracing::error!(%error, "an injected message was not saved");
        ErrorShape::retry_later("the gateway could not save the message; nothing was kept", 1_000)
    })?;
    let message_id = appended.message_id;
    sessions::events::messages(gateway, &key, &committed.appended);
    sessions::events::changed(gateway, &key, Changed::Reason("send"));
    Stream::new(RunId(format!("inject-{message_id}")), key, false).injected(gateway, &text);
    Ok(ChatInjected { ok: true, message_id })
}

async fn agent(call: Call, params: AgentParams, replies: Replies) {
    match agent_run(&call, params, &replies).await {
        Ok(Some(answer)) => replies.send(to_bytes(&answer)),
        // The gateway stops; the connection ends.
        Ok(None) => {}
        Err(error) => replies.send(Err(error)),
    }
}

async fn agent_run(call: &Call, params: AgentParams, replies: &Replies) -> Result<Option<Value>, ErrorShape> {
    let request = agent_request(call, &params)?;
    let (key, run_id) = (request.session.clone(), request.run_id.clone());
    let (submitted, held) = Runs::submit_held(&call.gateway, request, Vec::new(), Taking::default()).await?;
    let mut first = json!({"runId": run_id.0});
    if call.caller.protocol != Protocol::V3 {
        first["sessionKey"] = json!(key.as_str());
        first["agentId"] = json!(key.agent());
    }
    first["status"] = json!("accepted");
    first["acceptedAt"] = json!(now_ms());
    replies.send(to_bytes(&first));
    drop(held);
    let Some(outcome) = submitted.watch.outcome().await else { return Ok(None) };
    if matches!(outcome.status, RunStatus::Error | RunStatus::Timeout) {
        let message = outcome.error.clone().unwrap_or_else(|| "the run failed".into());
        return Err(ErrorShape::unavailable(message)
            .detail("runId", run_id.0)
            .detail("status", outcome.status.as_str()));
    }
    let aborted = outcome.status == RunStatus::Aborted;
    Ok(Some(json!({
        "runId": run_id.0,
        "status": "ok",
        "summary": if aborted { "aborted" } else { "completed" },
        "result": result(&outcome),
    })))
}

/// `{payloads, meta}` as programs that drive the agent read it.
fn result(outcome: &RunOutcome) -> Value {
    let text = (!outcome.text.is_empty()).then(|| json!({"text": outcome.text, "mediaUrl": null}));
    let usage = outcome.usage;
    let mut usage_json = json!({
        "input": usage.input, "output": usage.output, "cacheRead": usage.cache_read, "cacheWrite": usage.cache_write,
        "total": usage.total(),
    });
    if let Some(cost) = outcome.cost {
        usage_json["cost"] = json!({"total": cost});
    }
    let mut agent = json!({"sessionId": outcome.session_id, "usage": usage_json});
    if let Some(model) = &outcome.model {
        agent["provider"] = json!(model.provider);
        agent["model"] = json!(model.model);
    }
    json!({
        "payloads": text.into_iter().collect::<Vec<_>>(),
        "meta": {
            "durationMs": outcome.started_ms.map_or(0, |started| outcome.ended_ms - started),
            "agentMeta": agent,
            "aborted": outcome.status == RunStatus::Aborted,
            "stopReason": outcome.stop,
        },
    })
}

fn agent_request(call: &Call, params: &AgentParams) -> Result<RunRequest, ErrorShape> {
    let gateway = &call.gateway;
    let text = clean(&params.message);
    let media = attachments(&params.attachments)?;
    if text.trim().is_empty() && media.is_empty() {
        return Err(ErrorShape::invalid("invalid agent params: at /message: must NOT have fewer than 1 characters"));
    }
    let session = match (&params.session_key, &params.session_id) {
        (Some(key), _) => gateway.runs.key(gateway, key, params.agent_id.as_deref())?,
        (None, Some(id)) => match gateway.sessions.by_id(id) {
            Some(record) => record.key.clone(),
            None => return Err(ErrorShape::invalid(format!("No session found: {}", crate::log::escaped(id, 64)))),
        },
        (None, None) => gateway.runs.key(gateway, MAIN_KEY, params.agent_id.as_deref())?,
    };
    if let Some(agent) = params.agent_id.as_deref().map(str::trim).filter(|agent| !agent.is_empty())
        && !session.agent().eq_ignore_ascii_case(agent)
    {
        return Err(ErrorShape::invalid("agentId does not match the agent of sessionKey"));
    }
    if let Some(expected) = &params.expected_existing_session_id {
        let found = gateway.sessions.get(&session).map(|record| record.session_id.to_string());
        if found.as_deref() != Some(expected.as_str()) {
            return Err(ErrorShape::invalid("the session is not the expected one; it was begun anew meanwhile"));
        }
    }
    let model = match (&params.provider, &params.model) {
        (None, None) => None,
        (provider, model) => Some(model_override(call, &session, provider.as_deref(), model.as_deref())?),
    };
    let (origin, authority) = asker(call);
    Ok(RunRequest {
        run_id: run_id(&params.idempotency_key)?,
        deliver: agent_delivery(gateway, &session, params)?,
        session,
        input: Input { text, media },
        origin,
        authority,
        model,
        thinking: thinking(params.thinking.as_deref())?,
        timeout: params.timeout.filter(|seconds| *seconds > 0).map(Duration::from_secs),
        extra_system: params.extra_system_prompt.clone().filter(|text| !text.trim().is_empty()),
        when_busy: crate::runs::WhenBusy::Followup,
    })
}

fn model_override(
    call: &Call,
    session: &SessionKey,
    provider: Option<&str>,
    model: Option<&str>,
) -> Result<ModelRef, ErrorShape> {
    if !call.caller.scopes.grants(Scope::Admin) {
        return Err(ErrorShape::invalid("provider/model overrides are not authorized for this caller."));
    }
    let catalog = call.gateway.runs.models().catalog();
    let found = match (provider, model) {
        (Some(provider), Some(model)) => Some(ModelRef { provider: provider.to_owned(), model: model.to_owned() }),
        (None, Some(model)) => catalog.resolve(model),
        (Some(_), None) | (None, None) => None,
    };
    let found = found.ok_or_else(|| ErrorShape::invalid("no provider has this model; see models.list"))?;
    catalog.allowed(session.agent(), &found).map_err(|error| ErrorShape::invalid(error.to_string()))?;
    Ok(found)
}

/// Where the reply of an `agent` call goes besides the answer.
fn agent_delivery(
    gateway: &Gateway,
    session: &SessionKey,
    params: &AgentParams,
) -> Result<Option<Address>, ErrorShape> {
    if params.deliver != Some(true) {
        return Ok(None);
    }
    let channel = params.reply_channel.as_deref().or(params.channel.as_deref());
    let to = params.reply_to.as_deref().or(params.to.as_deref());
    let address = match (channel.filter(|channel| *channel != "last"), to) {
        (Some(channel), Some(to)) => Some(Address {
            channel: channel.to_lowercase(),
            account: params
                .reply_account_id
                .clone()
                .or_else(|| params.account_id.clone())
                .unwrap_or_else(|| "default".into()),
            chat: to.to_owned(),
            thread: params.thread_id.clone(),
        }),
        _ => place(gateway, session),
    };
    match address {
        Some(address) => Ok(Some(address)),
        None if params.best_effort_deliver == Some(true) => Ok(None),
        None => Err(ErrorShape::invalid(
            "deliver: this conversation has no chat to deliver to; give channel and to, or leave deliver out",
        )),
    }
}

async fn wait(call: Call, params: AgentWaitParams) -> Result<Value, ErrorShape> {
    let run = RunId(params.run_id);
    let timeout = params.timeout_ms.map_or(WAIT, Duration::from_millis);
    let Some(outcome) = Runs::wait(&call.gateway, &run, Some(timeout)).await else {
        return Ok(json!({"runId": run.0, "status": "timeout"}));
    };
    // A run that was ended by somebody counts as one that did not get to its end, as in the reference.
    let status = match outcome.status {
        RunStatus::Ok => "ok",
        RunStatus::Error => "error",
        RunStatus::Aborted | RunStatus::Timeout => "timeout",
    };
    let mut answer = json!({"runId": run.0, "status": status});
    if let Some(started) = outcome.started_ms {
        answer["startedAt"] = json!(started);
    }
    answer["endedAt"] = json!(outcome.ended_ms);
    if let Some(error) = &outcome.error {
        answer["error"] = json!(error);
    }
    if call.caller.protocol != Protocol::V3 {
        answer["stopReason"] = json!(outcome.stop);
        answer["livenessState"] = json!("working");
        answer["terminalReceipt"] = terminal_receipt(&run, &outcome, None);
        answer["terminalReply"] = terminal_reply(&outcome);
    }
    Ok(answer)
}

async fn wake(call: Call, params: WakeParams) -> Result<Done, ErrorShape> {
    let now = match params.mode.as_str() {
        "now" => true,
        "next-heartbeat" => false,
        _ => return Err(ErrorShape::invalid("invalid wake params: at /mode: must be now or next-heartbeat")),
    };
    let text: String = clean(&params.text).trim().chars().take(MAX_WAKE_CHARS).collect();
    if text.is_empty() {
        return Err(ErrorShape::invalid("invalid wake params: at /text: must NOT have fewer than 1 characters"));
    }
    let gateway = Arc::clone(&call.gateway);
    let written = params.session_key.as_deref().unwrap_or(MAIN_KEY);
    let key = gateway.runs.key(&gateway, written, params.agent_id.as_deref())?;
    crate::runs::heartbeat::notice(&gateway, key, None, text, now).await;
    Ok(Done::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_checked_and_named_by_what_they_are() {
        let file = |mime: Option<&str>, content: Value| Attachment {
            mime_type: mime.map(str::to_owned),
            file_name: Some("a".into()),
            content: Some(content),
            ..Attachment::default()
        };
        let check = |given: Attachment, expected: Result<&str, &str>| {
            let read = attachments(&[given]).map(|media| media[0].mime.clone()).map_err(|error| error.message);
            assert_eq!(read.as_deref().map_err(String::as_str), expected);
        };
        let png = STANDARD.encode([0x89, b'P', b'N', b'G', 13, 10]);
        check(file(Some("image/jpeg"), json!(png)), Ok("image/png"));
        check(file(None, json!(format!("data:image/png;base64,{png}"))), Ok("image/png"));
        check(file(None, json!("data:text/plain;base64,aGk=")), Ok("text/plain"));
        check(file(Some("Text/Plain"), json!("aGk=")), Ok("text/plain"));
        check(file(None, json!("aGk=")), Ok("application/octet-stream"));
        check(file(None, json!("not base64!")), Err("attachment a: invalid base64 content"));
        check(file(None, json!({"x": 1})), Err("attachment a: content must be base64 text"));
        let big = STANDARD.encode(vec![0xff; MAX_ATTACHMENTS_BYTES + 3]);
        check(file(None, json!(big)), Err("attachment a: is larger than 19464192 bytes"));
    }

    #[test]
    fn control_characters_do_not_get_in() {
        assert_eq!(clean("a\u{1b}[31mb\r\n\tc\0"), "a[31mb\n\tc");
    }
}
