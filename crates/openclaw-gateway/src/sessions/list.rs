//! `sessions.list`: filters, order, pages. Everything it needs is in memory.

use std::sync::Arc;

use openclaw_protocol::{ErrorShape, method::sessions::SessionsListParams};
use serde_json::Value;

use super::Record;

/// Rows of an answer that names no limit.
pub const DEFAULT_LIMIT: usize = 100;
/// Rows of one answer at most.
pub const MAX_LIMIT: usize = 10_000;

/// A page of the list.
pub struct Listed {
    pub records: Vec<Arc<Record>>,
    pub total: usize,
    pub limit: usize,
    pub offset: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Pinned first, then the last changed.
    Updated,
    Interacted,
    Activity,
}

/// # Errors
/// `INVALID_REQUEST` for an order that is not known, or a zero where one is the least.
pub fn list(mut records: Vec<Arc<Record>>, params: &SessionsListParams, now_ms: i64) -> Result<Listed, ErrorShape> {
    let invalid = |text: &str| ErrorShape::invalid(format!("invalid sessions.list params: {text}"));
    let order = match params.sort_by.as_deref() {
        None | Some("updatedAt") => Order::Updated,
        Some("lastInteractionAt") => Order::Interacted,
        Some("activity") => Order::Activity,
        Some(_) => return Err(invalid("at /sortBy: must be updatedAt, lastInteractionAt or activity")),
    };
    if params.limit == Some(0) {
        return Err(invalid("at /limit: must be >= 1"));
    }
    if params.active_minutes == Some(0) {
        return Err(invalid("at /activeMinutes: must be >= 1"));
    }
    let archived = match &params.archived {
        None => Some(false),
        Some(Value::Bool(archived)) => Some(*archived),
        Some(Value::String(all)) if all == "all" => None,
        Some(_) => return Err(invalid("at /archived: must be a boolean or \"all\"")),
    };
    let text =
        |text: &Option<String>| text.as_deref().map(str::trim).filter(|text| !text.is_empty()).map(str::to_lowercase);
    let (search, agent, spawned_by) = (text(&params.search), text(&params.agent_id), text(&params.spawned_by));
    let minutes =
        params.active_minutes.map(|minutes| i64::try_from(minutes).unwrap_or(i64::MAX).saturating_mul(60_000));
    let since = minutes.map(|span| now_ms.saturating_sub(span));
    let time = |record: &Record| match order {
        Order::Updated => record.updated_ms,
        Order::Interacted => record.interacted_ms.unwrap_or_default(),
        Order::Activity => record.active_ms().unwrap_or(record.updated_ms),
    };
    records.retain(|record| {
        let settings = &record.settings;
        archived.is_none_or(|archived| archived == settings.archived_ms.is_some())
            && agent.as_deref().is_none_or(|agent| record.key.agent() == agent)
            && params.label.as_ref().is_none_or(|label| settings.label.as_ref() == Some(label))
            && params.board_face.as_deref().is_none_or(|face| settings.board_face.as_deref().unwrap_or("chat") == face)
            && spawned_by.as_deref().is_none_or(|by| settings.spawned_by.as_ref().is_some_and(|key| key.as_str() == by))
            && since.is_none_or(|since| time(record) >= since)
            && (!params.require_last_interaction || record.interacted_ms.is_some())
            && search.as_deref().is_none_or(|search| mentions(record, search))
    });
    // Owners and people: everything here belongs to the one owner of the gateway.
    if params.creator_id.is_some() || params.owner_id.is_some() || params.involving_profile_id.is_some() {
        records.clear();
    }
    records.sort_unstable_by(|a, b| {
        let pinned = |record: &Record| order == Order::Updated && record.settings.pinned_ms.is_some();
        pinned(b).cmp(&pinned(a)).then_with(|| time(b).cmp(&time(a))).then_with(|| a.key.cmp(&b.key))
    });
    let total = records.len();
    let size = |given: Option<u64>| given.map(|given| usize::try_from(given).unwrap_or(usize::MAX));
    let limit = size(params.limit).unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT);
    let offset = size(params.offset).unwrap_or_default().min(total);
    records.drain(..offset);
    records.truncate(limit);
    Ok(Listed { records, total, limit, offset })
}

fn mentions(record: &Record, search: &str) -> bool {
    let settings = &record.settings;
    let place = record.place.as_deref();
    let texts = [
        Some(record.key.as_str()),
        Some(record.session_id.as_str()),
        settings.label.as_deref(),
        settings.display_name.as_deref(),
        settings.category.as_deref(),
        record.title.as_deref(),
        place.and_then(|place| place.title.as_deref()),
    ];
    texts.into_iter().flatten().any(|text| text.to_lowercase().contains(search))
}
