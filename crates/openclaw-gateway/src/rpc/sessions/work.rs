//! Conversations at work: beginning one, sending to it, ending what runs, making room.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use openclaw_agent::provider::Thinking;
use openclaw_channels::message::Media;
use openclaw_protocol::{
    ErrorShape, Scope,
    method::sessions::{
        SessionAborted, SessionCompacted, SessionCreated, SessionPatch, SessionSent, SessionsAbortParams,
        SessionsCompactParams, SessionsCreateParams, SessionsSendParams,
    },
};
use serde_json::Value;

use super::{key, rows, too_large, unknown, unread, unsaved, write};
use crate::{
    clock::now_ms,
    hub::Connection,
    rpc::registry::Call,
    runs::{Authority, Input, Origin, RunId, RunRequest, Runs, SubmitStatus, WhenBusy},
    sessions::{
        SessionKey,
        events::{Changed, changed, messages},
        patch,
    },
};

/// Files of one message.
const MAX_ATTACHMENTS: usize = 20;

/// Who asks, as a run knows it.
fn authority(caller: &Connection) -> Authority {
    Authority { scopes: caller.scopes, owner: caller.scopes.grants(Scope::Admin) }
}

pub async fn create(call: Call, params: SessionsCreateParams) -> Result<SessionCreated, ErrorShape> {
    let gateway = &call.gateway;
    let privileged = params.incognito
        || params.exec_node.is_some()
        || params.tool_overrides.is_some()
        || params.permission_mode.as_deref() == Some("full");
    if privileged && !call.caller.scopes.grants(Scope::Admin) {
        return Err(ErrorShape::missing_scope(Scope::Admin));
    }
    for (name, given) in [
        ("incognito", params.incognito),
        ("fork", params.fork),
        ("worktree", params.worktree),
        ("execNode", params.exec_node.is_some()),
        ("cwd", params.cwd.is_some()),
        ("toolOverrides", params.tool_overrides.is_some()),
        ("permissionMode", params.permission_mode.is_some()),
    ] {
        if given {
            return Err(ErrorShape::invalid(format!("this gateway has no {name} of conversations; leave it out")));
        }
    }
    let agent = params.agent_id.as_deref();
    let key = match params.key.as_deref() {
        Some(written) => key(gateway, written, agent)?,
        None => key(gateway, &format!("dashboard:{}", uuid::Uuid::new_v4()), agent)?,
    };
    let parent = params.parent_session_key.as_deref().map(|parent| self::key(gateway, parent, None)).transpose()?;
    let wanted = SessionPatch {
        label: params.label.map(Some),
        display_name: params.display_name.map(Some),
        category: params.category.map(Some),
        model: params.model.map(Some),
        context_window: params.context_window.map(Some),
        thinking_level: params.thinking_level.map(Some),
        fast_mode: params.fast_mode.map(Some),
        ..SessionPatch::default()
    };
    let mut draft = gateway.sessions.draft(&key).await;
    let created = !draft.exists();
    let is_main = draft.record().is_main(&gateway.session_defaults.main_key);
    let all = gateway.sessions.all();
    let taken = |label: &str| all.iter().any(|it| it.key != key && it.settings.label.as_deref() == Some(label));
    patch::apply(draft.record_mut(), &wanted, is_main, taken, now_ms())?;
    if created {
        let settings = &mut draft.record_mut().settings;
        settings.created_via = Some("operator".into());
        settings.parent = parent;
    }
    let kept = draft.commit(Vec::new()).await.map_err(|error| unsaved(&error))?;
    changed(gateway, &key, Changed::Reason(if created { "create" } else { "patch" }));
    let record = kept.record.ok_or_else(|| unknown(&key))?;
    let first = params.message.or(params.task).filter(|text| !text.trim().is_empty());
    let media = media(params.attachments.unwrap_or_default())?;
    let sent = match first {
        None if media.is_empty() => None,
        text => {
            let id = params.idempotency_key.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
            let input = Input { text: text.unwrap_or_default(), media };
            Some(submit(&call, key.clone(), id, input, None, None).await)
        }
    };
    let (run_id, run_error) = match sent {
        None => (None, None),
        Some(Ok(sent)) => (Some(sent.run_id), None),
        Some(Err(error)) => (None, serde_json::to_value(error).ok()),
    };
    Ok(SessionCreated {
        ok: true,
        key: key.as_str().to_owned(),
        session_id: record.session_id.as_str().to_owned(),
        entry: write::entry(&call, &record),
        run_started: run_id.is_some(),
        run_id,
        run_error,
        resolved: rows(&call).resolved(&record),
    })
}

pub async fn send(call: Call, params: SessionsSendParams) -> Result<SessionSent, ErrorShape> {
    let key = key(&call.gateway, &params.key, params.agent_id.as_deref())?;
    // `chat.send` begins a conversation; this does not.
    call.gateway.sessions.get(&key).ok_or_else(|| unknown(&key))?;
    let input = Input { text: params.message, media: media(params.attachments.unwrap_or_default())? };
    if input.text.trim().is_empty() && input.media.is_empty() {
        return Err(ErrorShape::invalid("message or attachment required"));
    }
    let thinking = params.thinking.as_deref().map(thinking).transpose()?;
    let id = params.idempotency_key.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    submit(&call, key, id, input, thinking, params.timeout_ms).await
}

async fn submit(
    call: &Call,
    session: SessionKey,
    id: String,
    input: Input,
    thinking: Option<Thinking>,
    timeout_ms: Option<u64>,
) -> Result<SessionSent, ErrorShape> {
    let caller = &call.caller;
    let request = RunRequest {
        run_id: RunId(id),
        session,
        input,
        origin: Origin::Operator {
            connection: caller.number,
            device: caller.device.clone(),
            client: caller.params.client.id.to_string(),
        },
        authority: authority(caller),
        deliver: None,
        model: None,
        thinking,
        timeout: timeout_ms.filter(|ms| *ms > 0).map(std::time::Duration::from_millis),
        extra_system: None,
        when_busy: WhenBusy::default(),
    };
    let submitted = Runs::submit(&call.gateway, request).await?;
    let status = match submitted.status {
        SubmitStatus::Started => "started",
        SubmitStatus::Queued { .. } => "accepted",
        SubmitStatus::InFlight => "in_flight",
        SubmitStatus::Done => "ok",
    };
    Ok(SessionSent { run_id: submitted.run_id.0, status: status.to_owned(), message_seq: None })
}

fn thinking(text: &str) -> Result<Thinking, ErrorShape> {
    Ok(match text.trim().to_lowercase().as_str() {
        "off" => Thinking::Off,
        "minimal" => Thinking::Minimal,
        "low" => Thinking::Low,
        "medium" => Thinking::Medium,
        "high" => Thinking::High,
        _ => return Err(ErrorShape::invalid("thinking must be off, minimal, low, medium or high")),
    })
}

/// `[{mimeType, fileName, content: base64}]`
fn media(attachments: Vec<Value>) -> Result<Vec<Media>, ErrorShape> {
    if attachments.len() > MAX_ATTACHMENTS {
        return Err(ErrorShape::invalid(format!("at most {MAX_ATTACHMENTS} attachments go with a message")));
    }
    let read = attachments.iter().enumerate().map(|(n, attachment)| {
        let text = |key: &str| attachment.get(key).and_then(Value::as_str);
        let content = text("content").unwrap_or_default();
        // Browsers send data URLs.
        let (head, content) = match content.split_once(";base64,") {
            Some((head, data)) => (head.strip_prefix("data:"), data),
            None => (None, content),
        };
        let data = STANDARD.decode(content.trim()).ok().filter(|data| !data.is_empty());
        let data = data.ok_or_else(|| ErrorShape::invalid(format!("attachment {}: content must be base64", n + 1)))?;
        let mime = text("mimeType").or(head).unwrap_or("application/octet-stream").to_owned();
        Ok(Media { mime, file_name: text("fileName").map(str::to_owned), data: data.into() })
    });
    read.collect()
}

/// Ends one run, wherever it is, or what runs in a conversation.
pub async fn abort(call: Call, params: SessionsAbortParams) -> Result<SessionAborted, ErrorShape> {
    let gateway = &call.gateway;
    let run = params.run_id.map(RunId);
    let key = match (&params.key, &run) {
        (Some(written), _) => Some(key(gateway, written, params.agent_id.as_deref())?),
        (None, Some(run)) => gateway.sessions.with_run(&run.0),
        (None, None) => return Err(ErrorShape::invalid("sessions.abort needs key or runId")),
    };
    let nothing = SessionAborted { ok: true, status: "no-active-run", aborted_run_id: None };
    let Some(key) = key else { return Ok(nothing) };
    let activity = gateway.sessions.activity(&key);
    let ended = match (&run, params.clear_queued) {
        (Some(run), _) => Runs::abort(gateway, &key, Some(run)).await,
        (None, true) => Runs::abort(gateway, &key, None).await,
        // What waits stays, unless the caller wants it gone.
        (None, false) => {
            let mut ended = Vec::new();
            for id in &activity.running {
                ended.extend(Runs::abort(gateway, &key, Some(&RunId(id.clone()))).await);
            }
            ended
        }
    };
    Ok(match ended.into_iter().next() {
        Some(id) => SessionAborted { ok: true, status: "aborted", aborted_run_id: Some(id.0) },
        None => nothing,
    })
}

/// With `maxLines`: the model sees the last messages only. Without: a model sums up what came before.
pub async fn compact(call: Call, params: SessionsCompactParams) -> Result<SessionCompacted, ErrorShape> {
    let gateway = &call.gateway;
    let key = key(gateway, &params.key, params.agent_id.as_deref())?;
    let record = gateway.sessions.get(&key).ok_or_else(|| unknown(&key))?;
    let answer = |kept: Option<usize>, reason: Option<&str>| SessionCompacted {
        ok: true,
        key: key.as_str().to_owned(),
        compacted: reason.is_none(),
        kept,
        reason: reason.map(str::to_owned),
    };
    let Some(lines) = params.max_lines else {
        let compacted = crate::runs::compact(gateway, &key, None).await?;
        return Ok(answer(Some(compacted.kept), None));
    };
    let lines = usize::try_from(lines.max(1)).unwrap_or(usize::MAX);
    if !gateway.sessions.activity(&key).running.is_empty() {
        return Err(ErrorShape::retry_later(format!("a run of {key} is under way; wait for it or abort it"), 1_000));
    }
    let rows = gateway.sessions.context(&record).await.map_err(|error| unread(&error))?;
    // A tool's answer without its question would be refused by every model: begin at something a person said.
    let from = rows.len().saturating_sub(lines);
    let begin = rows.iter().skip(from).find(|row| row.message.role == openclaw_agent::message::Role::User);
    let Some(begin) = begin.filter(|_| from > 0) else {
        return Ok(answer(Some(rows.len()), Some("nothing to leave out")));
    };
    let kept = rows.iter().filter(|row| row.seq >= begin.seq).count();
    let mut draft = gateway.sessions.draft(&key).await;
    if draft.record().last_seq != record.last_seq || draft.record().session_id != record.session_id {
        return Err(patch::changed(key.as_str(), "compaction"));
    }
    let kept_from = begin.seq;
    let row = draft.compact(None, kept_from).map_err(|error| too_large(&error))?;
    draft.commit(Vec::new()).await.map_err(|error| unsaved(&error))?;
    messages(gateway, &key, &[row]);
    changed(gateway, &key, Changed::Reason("compact"));
    Ok(answer(Some(kept), None))
}
