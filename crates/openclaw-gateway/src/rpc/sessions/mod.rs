//! Conversations over RPC. The rules are in [`crate::sessions`]; here they meet the caller.

mod lists;
mod texts;
mod work;
mod write;

use openclaw_protocol::{
    ErrorShape,
    method::{
        Done,
        sessions::{
            ApprovalReplay, CompactionList, CompanionState, DiscussionInfo, MessagesSubscribed, SessionCatalogs,
            SessionDiscussionInfo, SessionGroupsDefaults, SessionsAbort, SessionsBranchesList, SessionsCatalogList,
            SessionsCompact, SessionsCompactionList, SessionsCompanionState, SessionsCreate, SessionsDelete,
            SessionsDescribe, SessionsExport, SessionsGet, SessionsGroupsDefaults, SessionsGroupsList, SessionsImport,
            SessionsList, SessionsMessagesSubscribe, SessionsMessagesUnsubscribe, SessionsObserverVisibility,
            SessionsPatch, SessionsPatchMany, SessionsPreview, SessionsReset, SessionsResolve, SessionsSearch,
            SessionsSend, SessionsSubscribe, SessionsSubscribed, SessionsUnsubscribe, SessionsUsage,
            SessionsViewersParams, SessionsViewersSet, UsageCost, UsageStatus, UsageStatusReport,
        },
    },
};

use super::registry::{Call, Registry};
use crate::{
    clock::now_ms,
    gateway::Gateway,
    sessions::{DraftError, SessionKey, row::Rows},
    store::StoreError,
};

/// Keys of one `sessions.viewers.set`.
const MAX_VIEWED: usize = 32;

pub fn register(registry: &mut Registry) {
    registry
        .on::<SessionsList>(lists::list)
        .on::<SessionsDescribe>(lists::describe)
        .on::<SessionsGet>(lists::get)
        .on::<SessionsResolve>(lists::resolve)
        .on::<SessionsGroupsList>(|call, _| Ok(lists::groups(&call.gateway)))
        .on_async::<SessionsPreview, _>(|call, params| async move { texts::preview(&call, params).await })
        .on_async::<SessionsSearch, _>(|call, params| async move { texts::search(&call, params).await })
        .on_async::<SessionsUsage, _>(|call, params| async move { texts::usage(&call, params).await })
        .on_async::<UsageCost, _>(|call, params| async move { texts::cost(&call, params).await })
        .on::<UsageStatus>(|_, _| Ok(UsageStatusReport { updated_at: now_ms(), providers: Vec::new() }))
        .on_async::<SessionsBranchesList, _>(|call, params| async move { texts::branches(&call, params).await })
        .on_async::<SessionsExport, _>(|call, params| async move { texts::export(&call, params).await })
        .on_async::<SessionsImport, _>(|call, params| async move { write::import(call, params).await })
        .on_async::<SessionsCreate, _>(|call, params| async move { work::create(call, params).await })
        .on_async::<SessionsSend, _>(|call, params| async move { work::send(call, params).await })
        .on_async::<SessionsAbort, _>(|call, params| async move { work::abort(call, params).await })
        .on_async::<SessionsCompact, _>(|call, params| async move { work::compact(call, params).await })
        .on_async::<SessionsPatch, _>(|call, params| async move { write::patch(call, params).await })
        .on_async::<SessionsPatchMany, _>(|call, params| async move { write::patch_many(call, params).await })
        .on_async::<SessionsReset, _>(|call, params| async move { write::reset(call, params).await })
        .on_async::<SessionsDelete, _>(|call, params| async move { write::delete(call, params).await });
    subscriptions(registry);
    without_content(registry);
}

fn subscriptions(registry: &mut Registry) {
    registry
        .on::<SessionsSubscribe>(|call, params| {
            call.gateway.sessions.subscriptions().subscribe(call.caller.number);
            let list = match params.is_empty() {
                true => None,
                false => Some(Box::new(lists::list(call, params)?)),
            };
            Ok(SessionsSubscribed { subscribed: true, list })
        })
        .on::<SessionsUnsubscribe>(|call, _| {
            call.gateway.sessions.subscriptions().unsubscribe(call.caller.number);
            Ok(SessionsSubscribed { subscribed: false, list: None })
        })
        .on::<SessionsMessagesSubscribe>(|call, params| {
            let key = key(&call.gateway, &params.key, params.agent_id.as_deref())?;
            if !call.gateway.sessions.subscriptions().follow(call.caller.number, &key) {
                return Err(ErrorShape::unavailable(
                    "this connection follows 1000 sessions already; unsubscribe from some",
                ));
            }
            let approval_replay = params.include_approvals.then(|| ApprovalReplay {
                session_key: key.as_str().to_owned(),
                updated_at_ms: now_ms(),
                approvals: Vec::new(),
                truncated: false,
            });
            Ok(MessagesSubscribed { subscribed: true, key: key.as_str().to_owned(), approval_replay })
        })
        .on::<SessionsMessagesUnsubscribe>(|call, params| {
            let key = key(&call.gateway, &params.key, params.agent_id.as_deref())?;
            call.gateway.sessions.subscriptions().unfollow(call.caller.number, &key);
            Ok(MessagesSubscribed { subscribed: false, key: key.as_str().to_owned(), approval_replay: None })
        });
}

/// What the Control UI asks for and this gateway has nothing of: the answers say so.
fn without_content(registry: &mut Registry) {
    registry
        .on::<SessionsGroupsDefaults>(|_, _| Ok(SessionGroupsDefaults { defaults: Vec::new() }))
        .on::<SessionsCatalogList>(|_, _| Ok(SessionCatalogs { catalogs: Vec::new() }))
        .on::<SessionsCompanionState>(|_, _| Ok(CompanionState { exchanges: Vec::new() }))
        .on::<SessionsViewersSet>(|_, params| {
            if params.session_keys.len() > MAX_VIEWED {
                let text = "invalid sessions.viewers.set params: at /sessionKeys: must NOT have more than 32 items";
                return Err(ErrorShape::invalid(text));
            }
            Ok(SessionsViewersParams { session_keys: params.session_keys })
        })
        .on::<SessionsObserverVisibility>(|_, _| Ok(Done::OK))
        .on::<SessionDiscussionInfo>(|_, _| Ok(DiscussionInfo { state: "none" }))
        .on::<SessionsCompactionList>(|call, params| {
            let key = key(&call.gateway, &params.key, params.agent_id.as_deref())?;
            Ok(CompactionList { ok: true, key: key.as_str().to_owned(), checkpoints: Vec::new() })
        });
}

/// The conversation a caller names. A key that names its agent itself must not name another one than `agent`.
///
/// # Errors
/// `INVALID_REQUEST`
pub(super) fn key(gateway: &Gateway, written: &str, agent: Option<&str>) -> Result<SessionKey, ErrorShape> {
    let key = gateway.runs.key(gateway, written, agent)?;
    let agent = agent.map(str::trim).filter(|agent| !agent.is_empty());
    match agent {
        Some(agent) if !key.agent().eq_ignore_ascii_case(agent) => {
            Err(ErrorShape::invalid(format!("session key {key} belongs to agent {}, not to {agent:?}", key.agent())))
        }
        _ => Ok(key),
    }
}

/// The error for a conversation that is not there.
pub(super) fn unknown(key: &SessionKey) -> ErrorShape {
    ErrorShape::invalid(format!("unknown session: {key}; openclaw sessions lists what there is"))
}

/// The error for something that was not kept.
pub(super) fn unsaved(error: &StoreError) -> ErrorShape {
    tracing::error!(%error, "a conversation could not be saved");
    ErrorShape::retry_later("the gateway could not save this; nothing was changed", 1_000)
}

/// The error for something that could not be read.
pub(super) fn unread(error: &StoreError) -> ErrorShape {
    tracing::error!(%error, "a conversation could not be read");
    ErrorShape::retry_later("the gateway could not read its state database; see its log", 1_000)
}

pub(super) fn too_large(error: &DraftError) -> ErrorShape {
    ErrorShape::invalid(error.to_string())
}

/// Rows for a caller.
pub(super) fn rows(call: &Call) -> Rows<'_> {
    Rows::new(&call.gateway, call.caller.scopes)
}
