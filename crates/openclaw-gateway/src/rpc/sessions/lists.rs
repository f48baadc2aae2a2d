//! What is known of conversations: lists, rows, names.

use std::{collections::BTreeSet, sync::Arc};

use openclaw_protocol::{
    ErrorShape, Scope,
    method::sessions::{
        SessionCandidate, SessionDescribed, SessionGroup, SessionGroups, SessionKeyParams, SessionResolved,
        SessionsDescribeParams, SessionsListParams, SessionsListing, SessionsResolveParams,
    },
};

use super::{key, rows};
use crate::{
    clock::now_ms,
    gateway::Gateway,
    rpc::registry::Call,
    sessions::{Record, list},
};

/// Candidates of an ambiguous name.
const MAX_CANDIDATES: usize = 10;

pub fn list(call: &Call, params: SessionsListParams) -> Result<SessionsListing, ErrorShape> {
    let gateway = &call.gateway;
    let now = now_ms();
    let listed = list::list(gateway.sessions.all(), &params, now)?;
    let mut rows = rows(call);
    rows.titles = params.include_derived_titles;
    rows.last_message = params.include_last_message;
    let next = listed.offset + listed.records.len();
    let has_more = next < listed.total;
    let agent = params.agent_id.as_deref().unwrap_or(&gateway.session_defaults.default_agent_id);
    Ok(SessionsListing {
        ts: now,
        path: path(call),
        count: listed.records.len(),
        total_count: listed.total,
        limit_applied: listed.limit,
        next_offset: has_more.then_some(next),
        has_more,
        owners: Vec::new(),
        defaults: rows.models.defaults(agent),
        sessions: listed.records.iter().map(|record| rows.row(record)).collect(),
    })
}

/// Where conversations are stored, for those who may know.
pub(super) fn path(call: &Call) -> String {
    if call.caller.scopes.grants(Scope::Admin) { call.gateway.sessions_path() } else { "[redacted]".into() }
}

pub fn describe(call: &Call, params: SessionsDescribeParams) -> Result<SessionDescribed, ErrorShape> {
    let key = key(&call.gateway, &params.key, params.agent_id.as_deref())?;
    let mut rows = rows(call);
    rows.titles = params.include_derived_titles;
    rows.last_message = params.include_last_message;
    Ok(SessionDescribed { session: call.gateway.sessions.get(&key).map(|record| Box::new(rows.row(&record))) })
}

pub fn get(call: &Call, params: SessionKeyParams) -> Result<SessionDescribed, ErrorShape> {
    let SessionKeyParams { key, agent_id } = params;
    let (include_derived_titles, include_last_message) = (true, true);
    describe(call, SessionsDescribeParams { key, agent_id, include_derived_titles, include_last_message })
}

/// `sessions.resolve`: exactly one of key, id, label, or the beginning of an id.
pub fn resolve(call: &Call, params: SessionsResolveParams) -> Result<SessionResolved, ErrorShape> {
    let gateway = &call.gateway;
    let SessionsResolveParams { key: by_key, session_id, label, short_id, agent_id, allow_missing } = params;
    let given = [&by_key, &session_id, &label, &short_id].into_iter().flatten().count();
    if given != 1 {
        return Err(ErrorShape::invalid("give exactly one of key, sessionId, label and shortId"));
    }
    let mut found: Vec<Arc<Record>> = match (&by_key, &session_id, &label, &short_id) {
        (Some(written), ..) => gateway.sessions.get(&key(gateway, written, agent_id.as_deref())?).into_iter().collect(),
        (_, Some(id), ..) => gateway.sessions.by_id(id.trim()).into_iter().collect(),
        (_, _, Some(label), _) => {
            let all = gateway.sessions.all().into_iter();
            all.filter(|record| record.settings.label.as_deref() == Some(label.trim())).collect()
        }
        (.., Some(short)) => {
            let short = short.trim().to_lowercase();
            let all = gateway.sessions.all().into_iter();
            all.filter(|record| !short.is_empty() && names(record, &short)).collect()
        }
        _ => Vec::new(),
    };
    found.retain(|record| agent_id.as_deref().is_none_or(|agent| record.key.agent().eq_ignore_ascii_case(agent)));
    found.sort_unstable_by(|a, b| b.updated_ms.cmp(&a.updated_ms).then_with(|| a.key.cmp(&b.key)));
    let candidate = |record: &Arc<Record>| SessionCandidate {
        key: record.key.as_str().to_owned(),
        agent_id: record.key.agent().to_owned(),
        display_name: shown_name(record),
    };
    match found.as_slice() {
        [one] => Ok(SessionResolved {
            ok: true,
            key: Some(one.key.as_str().to_owned()),
            agent_id: Some(one.key.agent().to_owned()),
            display_name: shown_name(one),
            candidates: None,
        }),
        [] if !allow_missing => Err(ErrorShape::invalid("No session found; openclaw sessions lists what there is")),
        many => Ok(SessionResolved {
            ok: false,
            key: None,
            agent_id: None,
            display_name: None,
            candidates: (!many.is_empty()).then(|| many.iter().take(MAX_CANDIDATES).map(candidate).collect()),
        }),
    }
}

/// True when the id of the conversation, or the last part of its key, begins so.
fn names(record: &Record, short: &str) -> bool {
    let last = record.key.rest().rsplit(':').next().unwrap_or_default();
    record.session_id.as_str().starts_with(short) || last.starts_with(short)
}

fn shown_name(record: &Record) -> Option<String> {
    let settings = &record.settings;
    settings
        .label
        .clone()
        .or_else(|| settings.display_name.clone())
        .or_else(|| record.title.as_deref().map(str::to_owned))
}

/// The groups people put conversations in: there are those that are in use.
pub fn groups(gateway: &Gateway) -> SessionGroups {
    let all = gateway.sessions.all();
    let names: BTreeSet<_> = all.iter().filter_map(|record| record.settings.category.as_deref()).collect();
    let groups = names.into_iter().enumerate();
    let groups = groups.map(|(position, name)| SessionGroup { name: name.to_owned(), position }).collect();
    SessionGroups { groups, section_order: Vec::new() }
}
