//! What was said, and what it cost: previews, search, figures, export.

use jiff::Timestamp;
use openclaw_protocol::{
    ErrorShape,
    method::sessions::{
        CostSummary, PreviewItem, SessionBranch, SessionBranches, SessionBranchesParams, SessionPreview,
        SessionPreviews, SessionsExportParams, SessionsExported, SessionsFound, SessionsPreviewParams,
        SessionsSearchParams, SessionsUsageParams, UsageCostParams,
    },
};
use serde_json::Value;

use super::{key, unknown, unread};
use crate::{
    clock::now_ms,
    rpc::registry::Call,
    sessions::{
        history::Cursor,
        read::Window,
        search::{DEFAULT_HITS, MAX_HITS, MAX_KEYS, MAX_QUERY_CHARS, Scope},
        text,
        transfer::{DEFAULT_PAGE_BYTES, MAX_PAGE_BYTES},
        usage::{Asked, Period},
    },
};

/// Conversations of one `sessions.preview`.
const MAX_PREVIEWS: usize = 64;
const PREVIEW_ITEMS: usize = 12;
const PREVIEW_CHARS: usize = 240;
/// Messages looked at for a preview: tools' answers are passed over.
const PREVIEW_SCAN: usize = 60;
const PREVIEW_BYTES: usize = 2 << 20;

pub async fn preview(call: &Call, params: SessionsPreviewParams) -> Result<SessionPreviews, ErrorShape> {
    let size = |given: Option<u64>| given.and_then(|given| usize::try_from(given).ok());
    let limit = size(params.limit).unwrap_or(PREVIEW_ITEMS).clamp(1, PREVIEW_SCAN);
    let chars = size(params.max_chars).unwrap_or(PREVIEW_CHARS).clamp(20, 2_000);
    let mut previews = Vec::new();
    for written in params.keys.iter().take(MAX_PREVIEWS) {
        let record = key(&call.gateway, written, None).ok().and_then(|key| call.gateway.sessions.get(&key));
        let Some(record) = record else {
            previews.push(SessionPreview { key: written.clone(), status: "missing", items: Vec::new() });
            continue;
        };
        let window = Window::Newest { limit: PREVIEW_SCAN, offset: 0 };
        let page = call.gateway.sessions.page(&record.session_id, window, PREVIEW_BYTES).await;
        let page = page.map_err(|error| unread(&error))?;
        let items = page.messages.iter().filter(|message| matches!(message.role.as_str(), "user" | "assistant"));
        let items = items.filter_map(|message| {
            let text = text::line(&text::plain(&message.body), chars);
            (!text.is_empty()).then(|| PreviewItem { role: message.role.clone(), text })
        });
        let mut items: Vec<_> = items.collect();
        items.drain(..items.len().saturating_sub(limit));
        let status = if items.is_empty() { "empty" } else { "ok" };
        previews.push(SessionPreview { key: written.clone(), status, items });
    }
    Ok(SessionPreviews { ts: now_ms(), previews })
}

pub async fn search(call: &Call, params: SessionsSearchParams) -> Result<SessionsFound, ErrorShape> {
    let invalid = |text: &str| Err(ErrorShape::invalid(format!("invalid sessions.search params: {text}")));
    match params.query.chars().count() {
        0 => return invalid("at /query: must NOT have fewer than 1 characters"),
        n if n > MAX_QUERY_CHARS => return invalid("at /query: must NOT have more than 4096 characters"),
        _ => {}
    }
    let limit = match params.limit {
        None => DEFAULT_HITS,
        Some(0) => return invalid("at /limit: must be >= 1"),
        Some(limit) if limit > MAX_HITS as u64 => return invalid("at /limit: must be <= 25"),
        Some(limit) => usize::try_from(limit).unwrap_or(MAX_HITS),
    };
    let keys = match params.session_keys {
        None => None,
        Some(keys) if keys.len() > MAX_KEYS => return invalid("at /sessionKeys: must NOT have more than 200 items"),
        Some(keys) => Some(keys.iter().map(|written| key(&call.gateway, written, None)).collect::<Result<_, _>>()?),
    };
    let agent = params.agent_id.map(|agent| agent.trim().to_lowercase());
    let found = call.gateway.sessions.search(&params.query, Scope { keys, agent }, limit).await;
    found.map_err(|error| unread(&error))
}

pub async fn usage(call: &Call, params: SessionsUsageParams) -> Result<Value, ErrorShape> {
    let period = Period::of(Asked::from(&params), Timestamp::now())?;
    let of =
        params.key.as_deref().map(|written| key(&call.gateway, written, params.agent_id.as_deref())).transpose()?;
    let agent = params.agent_id.as_deref().map(str::to_lowercase);
    let report = call.gateway.sessions.usage(&period, of, agent.as_deref(), params.limit, now_ms()).await;
    report.map_err(|error| unread(&error))
}

pub async fn cost(call: &Call, params: UsageCostParams) -> Result<CostSummary, ErrorShape> {
    let asked = Asked {
        start: params.start_date.as_deref(),
        end: params.end_date.as_deref(),
        range: params.range.as_deref(),
        days: params.days,
        mode: params.mode.as_deref(),
        offset: params.utc_offset.as_deref(),
        zone: params.time_zone.as_deref(),
    };
    let period = Period::of(asked, Timestamp::now())?;
    let agent = params.agent_id.as_deref().map(str::to_lowercase);
    let report = call.gateway.sessions.cost(&period, agent.as_deref(), now_ms()).await;
    report.map_err(|error| unread(&error))
}

/// The one branch there is, or none before the first message.
pub async fn branches(call: &Call, params: SessionBranchesParams) -> Result<SessionBranches, ErrorShape> {
    let key = key(&call.gateway, &params.session_key, params.agent_id.as_deref())?;
    let Some(record) = call.gateway.sessions.get(&key) else { return Ok(SessionBranches { branches: Vec::new() }) };
    let window = Window::Newest { limit: 1, offset: 0 };
    let page =
        call.gateway.sessions.page(&record.session_id, window, usize::MAX).await.map_err(|error| unread(&error))?;
    let branches = page.messages.last().map(|last| SessionBranch {
        leaf_entry_id: last.message_id.clone(),
        headline: record.last_message.as_deref().unwrap_or_default().to_owned(),
        message_count: page.total,
        updated_at: Timestamp::from_millisecond(record.updated_ms).unwrap_or_default().to_string(),
        active: true,
    });
    Ok(SessionBranches { branches: branches.into_iter().collect() })
}

pub async fn export(call: &Call, params: SessionsExportParams) -> Result<SessionsExported, ErrorShape> {
    let key = key(&call.gateway, &params.key, params.agent_id.as_deref())?;
    let record = call.gateway.sessions.get(&key).ok_or_else(|| unknown(&key))?;
    let after = match params.cursor.as_deref() {
        None => 0,
        Some(cursor) => {
            let cursor = Cursor::parse(cursor).filter(|cursor| cursor.session_id == record.session_id.as_str());
            let gone =
                || ErrorShape::invalid(format!("the session {key} began anew since the export began; start over"));
            cursor.ok_or_else(gone)?.seq
        }
    };
    let max = params.max_bytes.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(DEFAULT_PAGE_BYTES);
    let page = call.gateway.sessions.export(&record, after, max.clamp(1024, MAX_PAGE_BYTES)).await;
    let page = page.map_err(|error| unread(&error))?;
    Ok(SessionsExported {
        key: key.as_str().to_owned(),
        jsonl: page.jsonl,
        lines: page.lines,
        cursor: page.after.map(|seq| Cursor::of(&record, seq).to_wire()),
    })
}
