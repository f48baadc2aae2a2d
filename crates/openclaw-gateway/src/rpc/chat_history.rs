//! `chat.history` and what else a chat page reads.

use openclaw_protocol::{
    ErrorShape, Protocol,
    method::chat::{
        ChatHistory, ChatHistoryAnswer, ChatHistoryDelta, ChatHistoryPage, ChatHistoryParams, ChatHistoryReset,
        ChatMessageFound, ChatMessageGet, ChatMessageGetParams, ChatMetadata, ChatMetadataReport, ChatStartup,
        InputConsumption, InputReceipt, PendingInput, PendingInputs,
    },
};
use serde_json::{Value, json};

use super::{
    agents,
    registry::{Call, Registry},
    sessions::{key, rows, unread},
};
use crate::sessions::{
    Record, SessionId, SessionKey,
    events::message_payload,
    history::{
        Cursor, DEFAULT_CHARS, DEFAULT_MESSAGES, MAX_BEHIND, MAX_BEHIND_BYTES, MAX_BYTES, MAX_CHARS, MAX_MESSAGES, fit,
        shown,
    },
    read::{Page, Window},
};

/// Pending inputs of one answer.
const MAX_PENDING: usize = 20;
/// Runs of one `inputRunIds`.
const MAX_INPUT_RUNS: usize = 50;

pub fn register(registry: &mut Registry) {
    registry
        .on_async::<ChatHistory, _>(|call, params| async move { history("chat.history", &call, params).await })
        .on_async::<ChatStartup, _>(|call, params| async move { history("chat.startup", &call, params).await })
        .on_async::<ChatMetadata, _>(|call, _| async move { metadata(&call).await })
        .on_async::<ChatMessageGet, _>(|call, params| async move { message(&call, params).await });
}

/// What a chat page offers: models and commands.
async fn metadata(call: &Call) -> Result<ChatMetadataReport, ErrorShape> {
    call.gateway.runs.models().ready().await;
    Ok(ChatMetadataReport {
        models: json!(agents::models(&call.gateway, call.caller.protocol, false)),
        commands: json!(agents::commands(true)),
        swarm_enabled: false,
    })
}

/// What a caller may ask for, checked.
struct Limits {
    messages: usize,
    offset: usize,
    chars: usize,
    bytes: usize,
}

fn limits(method: &str, params: &ChatHistoryParams) -> Result<Limits, ErrorShape> {
    let invalid = |text: String| ErrorShape::invalid(format!("invalid {method} params: {text}"));
    let within = |name: &str, given: Option<u64>, most: usize, default: usize| match given {
        None => Ok(default),
        Some(0) => Err(invalid(format!("at /{name}: must be >= 1"))),
        Some(n) if n > most as u64 => Err(invalid(format!("at /{name}: must be <= {most}"))),
        Some(n) => Ok(usize::try_from(n).unwrap_or(most)),
    };
    if params.offset.is_some() && params.message_id.is_some() {
        return Err(ErrorShape::invalid("offset and messageId cannot be used together"));
    }
    if params.cursor.is_some() && (params.offset.is_some() || params.message_id.is_some()) {
        return Err(ErrorShape::invalid("cursor cannot be used with offset or messageId"));
    }
    if params.session_id.is_some() && params.message_id.is_none() {
        return Err(ErrorShape::invalid("sessionId requires messageId"));
    }
    if params.input_run_ids.as_ref().is_some_and(|ids| ids.len() > MAX_INPUT_RUNS) {
        return Err(invalid(format!("at /inputRunIds: must NOT have more than {MAX_INPUT_RUNS} items")));
    }
    Ok(Limits {
        messages: within("limit", params.limit, MAX_MESSAGES, DEFAULT_MESSAGES)?,
        offset: params.offset.and_then(|offset| usize::try_from(offset).ok()).unwrap_or_default(),
        chars: within("maxChars", params.max_chars, MAX_CHARS, DEFAULT_CHARS)?,
        bytes: params
            .max_bytes
            .and_then(|bytes| usize::try_from(bytes).ok())
            .map_or(MAX_BYTES, |b| b.clamp(1024, MAX_BYTES)),
    })
}

async fn history(method: &str, call: &Call, params: ChatHistoryParams) -> Result<ChatHistoryAnswer, ErrorShape> {
    let limits = limits(method, &params)?;
    let gateway = &call.gateway;
    let key = key(gateway, &params.session_key, params.agent_id.as_deref())?;
    let record = gateway.sessions.get(&key);
    if let Some(cursor) = params.cursor.as_deref() {
        return since(call, &key, record.as_deref(), cursor, &limits, params.input_run_ids.as_deref()).await;
    }
    let stretch = match (&params.session_id, &record) {
        (Some(id), _) => {
            let id = SessionId::new(id);
            if !gateway.sessions.owns(&key, &id).await.map_err(|error| unread(&error))? {
                return Err(ErrorShape::invalid("sessionId does not belong to sessionKey"));
            }
            Some(id)
        }
        (None, record) => record.as_ref().map(|record| record.session_id.clone()),
    };
    let window = match &params.message_id {
        Some(id) => Window::Around { message_id: id.clone(), limit: limits.messages },
        None => Window::Newest { limit: limits.messages, offset: limits.offset },
    };
    let page = match &stretch {
        // As stored it may be larger than as shown.
        Some(id) => gateway.sessions.page(id, window, 4 * MAX_BYTES).await.map_err(|error| unread(&error))?,
        None => Page::default(),
    };
    let parts = call.caller.protocol == Protocol::V3;
    let read = page.messages.len();
    let mut messages: Vec<Value> = page.messages.iter().filter_map(|m| shown(m, limits.chars, parts)).collect();
    let silent = read - messages.len();
    let left_out = fit(&mut messages, limits.bytes);
    let more = page.earlier + left_out > 0 && params.message_id.is_none();
    let mut rows = rows(call);
    let settings = record.as_ref().map(|record| record.settings.clone());
    // Only whoever has seen the newest may go on from there.
    let newest = limits.offset == 0 && params.message_id.is_none();
    let cursor = record.as_ref().filter(|_| newest).map(|record| {
        let last = page.messages.last().map_or(record.last_seq, |last| last.seq);
        Cursor::of(record, last).to_wire()
    });
    let receipts = receipts(call, &key, params.input_run_ids.as_deref()).await?;
    let defaults = rows.models.defaults(key.agent());
    // Protocol 3 always says it, and has no other place for the default.
    let usual = (call.caller.protocol == Protocol::V3).then(|| defaults.thinking_default.clone());
    Ok(ChatHistoryAnswer::Page(Box::new(ChatHistoryPage {
        session_key: params.session_key,
        session_id: stretch.map(|id| id.as_str().to_owned()),
        pending_inputs: pending(call, &key),
        input_receipts: receipts.map(|(receipts, _)| receipts),
        delta_cursor: cursor,
        offset: params.offset.map(|_| limits.offset),
        next_offset: more.then(|| limits.offset + messages.len() + silent),
        has_more: more,
        total_messages: page.total,
        defaults,
        session_info: record.as_ref().map(|record| Box::new(rows.row(record))),
        thinking_level: settings.as_ref().and_then(|settings| settings.thinking_level.clone()).or(usual),
        fast_mode: settings.as_ref().and_then(|settings| settings.fast_mode.clone()),
        verbose_level: settings.as_ref().and_then(|settings| settings.verbose_level.clone()),
        messages,
    })))
}

/// What came since a cursor: all of it, or the word to begin anew.
async fn since(
    call: &Call,
    key: &SessionKey,
    record: Option<&Record>,
    cursor: &str,
    limits: &Limits,
    input_runs: Option<&[String]>,
) -> Result<ChatHistoryAnswer, ErrorShape> {
    const RESET: ChatHistoryAnswer = ChatHistoryAnswer::Reset(ChatHistoryReset { kind: "reset" });
    let (Some(record), Some(cursor)) = (record, Cursor::parse(cursor)) else { return Ok(RESET) };
    if cursor.session_id != record.session_id.as_str() || cursor.compactions != record.compactions {
        return Ok(RESET);
    }
    let window = Window::After { seq: cursor.seq, limit: MAX_BEHIND };
    let page = call.gateway.sessions.page(&record.session_id, window, MAX_BEHIND_BYTES).await;
    let page = page.map_err(|error| unread(&error))?;
    let bytes: usize = page.messages.iter().map(|m| serde_json::to_vec(&m.body).map_or(0, |json| json.len())).sum();
    if page.later > 0 || bytes > MAX_BEHIND_BYTES.min(limits.bytes) {
        return Ok(RESET);
    }
    let parts = call.caller.protocol == Protocol::V3;
    let seen = page.messages.last().map_or(cursor.seq, |last| last.seq);
    let messages = page.messages.iter().filter_map(|stored| {
        let message = shown(stored, limits.chars, parts)?;
        Some(message_payload(key, &stored.message_id, stored.seq, message))
    });
    let messages = messages.collect();
    let receipts = receipts(call, key, input_runs).await?;
    let (input_receipts, input_consumptions) = receipts.unzip();
    Ok(ChatHistoryAnswer::Delta(Box::new(ChatHistoryDelta {
        kind: "delta",
        messages,
        delta_cursor: Cursor::of(record, seen).to_wire(),
        pending_inputs: pending(call, key),
        input_receipts,
        input_consumptions,
        session_info: Some(Box::new(rows(call).row(record))),
    })))
}

fn pending(call: &Call, key: &SessionKey) -> PendingInputs {
    let activity = call.gateway.sessions.activity(key);
    let items = activity.waiting.iter().take(MAX_PENDING).map(|waiting| {
        let message = waiting
            .message
            .clone()
            .unwrap_or_else(|| json!({"role": "user", "content": waiting.text, "timestamp": waiting.accepted_ms}));
        PendingInput {
            id: waiting.run_id.clone(),
            run_id: waiting.run_id.clone(),
            message,
            accepted_at: waiting.accepted_ms,
            state: "queued",
        }
    });
    PendingInputs { items: items.collect(), total: activity.waiting.len() }
}

/// What became of inputs a client sent: still waiting, or part of the conversation.
async fn receipts(
    call: &Call,
    key: &SessionKey,
    runs: Option<&[String]>,
) -> Result<Option<(Vec<InputReceipt>, Vec<InputConsumption>)>, ErrorShape> {
    let Some(runs) = runs else { return Ok(None) };
    let consumed = call.gateway.sessions.inputs_of(key, runs.to_vec()).await.map_err(|error| unread(&error))?;
    let activity = call.gateway.sessions.activity(key);
    let (mut receipts, mut consumptions) = (Vec::new(), Vec::new());
    for run in runs {
        if let Some((_, message)) = consumed.iter().find(|(id, _)| id == run) {
            let consumed_by_event_id = Some(message.clone());
            receipts.push(InputReceipt { run_id: run.clone(), state: "consumed", consumed_by_event_id });
            consumptions.push(InputConsumption { run_id: run.clone(), consumed_by_event_id: message.clone() });
        } else if activity.waiting.iter().any(|waiting| waiting.run_id == *run) {
            receipts.push(InputReceipt { run_id: run.clone(), state: "pending", consumed_by_event_id: None });
        }
    }
    Ok(Some((receipts, consumptions)))
}

async fn message(call: &Call, params: ChatMessageGetParams) -> Result<ChatMessageFound, ErrorShape> {
    const MOST: u64 = 2_000_000;
    let key = key(&call.gateway, &params.session_key, params.agent_id.as_deref())?;
    let chars = match params.max_chars {
        Some(0) => return Err(ErrorShape::invalid("invalid chat.message.get params: at /maxChars: must be >= 1")),
        Some(n) if n > MOST => {
            return Err(ErrorShape::invalid("invalid chat.message.get params: at /maxChars: must be <= 2000000"));
        }
        given => usize::try_from(given.unwrap_or(MAX_CHARS as u64)).unwrap_or(MAX_CHARS),
    };
    let found = call.gateway.sessions.message(&key, &params.message_id).await.map_err(|error| unread(&error))?;
    let parts = call.caller.protocol == Protocol::V3;
    Ok(match found {
        None => ChatMessageFound { ok: false, message: None, unavailable_reason: Some("not_found") },
        Some(stored) => match shown(&stored, chars, parts) {
            Some(message) => ChatMessageFound { ok: true, message: Some(message), unavailable_reason: None },
            None => ChatMessageFound { ok: false, message: None, unavailable_reason: Some("not_visible") },
        },
    })
}
