//! Changing, restarting, deleting and importing conversations.

use openclaw_protocol::{
    ErrorShape, Scope,
    method::sessions::{
        SessionDeleted, SessionPatch, SessionPatched, SessionReset, SessionsDeleteParams, SessionsImportParams,
        SessionsImported, SessionsPatchManyParams, SessionsPatchOutcomes, SessionsPatchParams, SessionsResetParams,
    },
};
use serde_json::{Value, json};

use super::{key, lists, rows, unknown, unread, unsaved};
use crate::{
    clock::now_ms,
    rpc::registry::Call,
    runs::Runs,
    sessions::{
        Committed, Draft, Record, SessionKey,
        events::{Changed, changed},
        patch,
        transfer::Import,
    },
};

/// Conversations of one `sessions.patchMany`.
const MAX_TARGETS: usize = 100;

/// What the caller believed when it asked.
#[derive(Clone, Copy, Debug, Default)]
struct Expected<'a> {
    session_id: Option<&'a str>,
    revision: Option<&'a str>,
}

impl Expected<'_> {
    fn check(self, draft: &Draft, before: &str) -> Result<(), ErrorShape> {
        let record = draft.exists().then(|| draft.record());
        let holds = |expected: Option<&str>, of: fn(&Record) -> &str| {
            expected.is_none_or(|expected| record.is_some_and(|record| of(record) == expected))
        };
        if holds(self.session_id, |record| record.session_id.as_str())
            && holds(self.revision, |record| &record.revision)
        {
            return Ok(());
        }
        Err(patch::changed(draft.record().key.as_str(), before))
    }
}

pub async fn patch(call: Call, params: SessionsPatchParams) -> Result<SessionPatched, ErrorShape> {
    patch::authorize(&params.patch, call.caller.scopes)?;
    let key = key(&call.gateway, &params.key, params.agent_id.as_deref())?;
    let expected = Expected {
        session_id: params.expected_session_id.as_deref(),
        revision: params.expected_lifecycle_revision.as_deref(),
    };
    let record = change(&call, &key, &params.patch, expected, params.expected_marked_unread_at).await?;
    let rows = rows(&call);
    Ok(SessionPatched {
        ok: true,
        path: lists::path(&call),
        key: key.as_str().to_owned(),
        entry: rows.entry(&record),
        resolved: rows.resolved(&record),
    })
}

async fn change(
    call: &Call,
    key: &SessionKey,
    wanted: &SessionPatch,
    expected: Expected<'_>,
    marked_unread: Option<Option<i64>>,
) -> Result<std::sync::Arc<Record>, ErrorShape> {
    let gateway = &call.gateway;
    let mut draft = gateway.sessions.draft(key).await;
    expected.check(&draft, "patch")?;
    // This gateway has no such settings: whoever expects one looks at something else.
    let others = ["expectedPermissionMode", "expectedToolOverrides"];
    if others.iter().any(|other| wanted.others.get(*other).is_some_and(|value| !value.is_null())) {
        return Err(patch::changed(key.as_str(), "patch"));
    }
    let mut wanted = wanted.clone();
    if let (Some(expected), Some(false)) = (marked_unread, wanted.unread)
        && draft.record().settings.marked_unread_ms != expected
    {
        // Somebody marked it meanwhile: reading what was there before does not take that back.
        wanted.unread = None;
    }
    let is_main = draft.record().is_main(&gateway.session_defaults.main_key);
    let taken = |label: &str| {
        let all = gateway.sessions.all();
        all.iter().any(|other| other.key != *key && other.settings.label.as_deref() == Some(label))
    };
    patch::apply(draft.record_mut(), &wanted, is_main, taken, now_ms())?;
    if !draft.exists() {
        draft.record_mut().settings.created_via = Some("operator".into());
    }
    let kept = draft.commit(Vec::new()).await.map_err(|error| unsaved(&error))?;
    changed(gateway, key, Changed::Reason("patch"));
    kept.record.ok_or_else(|| unknown(key))
}

pub async fn patch_many(call: Call, params: SessionsPatchManyParams) -> Result<SessionsPatchOutcomes, ErrorShape> {
    if params.targets.len() > MAX_TARGETS {
        let text = "invalid sessions.patchMany params: at /targets: must NOT have more than 100 items";
        return Err(ErrorShape::invalid(text));
    }
    patch::authorize(&params.patch, call.caller.scopes)?;
    let mut outcomes = Vec::new();
    for target in &params.targets {
        let expected = Expected {
            session_id: target.expected_session_id.as_deref(),
            revision: target.expected_lifecycle_revision.as_deref(),
        };
        let done = match key(&call.gateway, &target.key, target.agent_id.as_deref()) {
            Ok(key) => change(&call, &key, &params.patch, expected, None).await.map(|_| key),
            Err(error) => Err(error),
        };
        outcomes.push(match done {
            Ok(key) => json!({"ok": true, "key": key.as_str(), "agentId": key.agent()}),
            Err(error) => json!({"ok": false, "key": target.key, "error": error}),
        });
    }
    Ok(SessionsPatchOutcomes { outcomes })
}

/// Ends what runs, then begins a new stretch. What was said stays on disk and can be searched.
pub async fn reset(call: Call, params: SessionsResetParams) -> Result<SessionReset, ErrorShape> {
    let gateway = &call.gateway;
    let key = key(gateway, &params.key, params.agent_id.as_deref())?;
    let reason = match params.reason.as_deref() {
        None | Some("reset") => "reset",
        Some("new") => "new",
        Some(_) => return Err(ErrorShape::invalid("invalid sessions.reset params: at /reason: must be new or reset")),
    };
    let expected = Expected { session_id: params.expected_session_id.as_deref(), revision: None };
    // Looked at twice: a run is not ended for a reset that will not happen.
    expected.check(&gateway.sessions.draft(&key).await, "reset")?;
    Runs::abort(gateway, &key, None).await;
    let mut draft = gateway.sessions.draft(&key).await;
    expected.check(&draft, "reset")?;
    if draft.exists() {
        draft.restart();
    } else {
        draft.record_mut().settings.created_via = Some("operator".into());
    }
    let kept = draft.commit(Vec::new()).await.map_err(|error| unsaved(&error))?;
    changed(gateway, &key, Changed::Reason(reason));
    let record = kept.record.ok_or_else(|| unknown(&key))?;
    let rows = rows(&call);
    Ok(SessionReset {
        ok: true,
        key: key.as_str().to_owned(),
        entry: rows.entry(&record),
        resolved: rows.resolved(&record),
    })
}

pub async fn delete(call: Call, params: SessionsDeleteParams) -> Result<SessionDeleted, ErrorShape> {
    let gateway = &call.gateway;
    // Without admin: archived ones only, and without the guards that are for maintenance.
    let plain = params.archived_only
        && params.expected_lifecycle_revision.is_none()
        && params.expected_session_updated_at.is_none()
        && params.emit_lifecycle_hooks.is_none();
    if !plain && !call.caller.scopes.grants(Scope::Admin) {
        return Err(ErrorShape::missing_scope(Scope::Admin));
    }
    let key = key(gateway, &params.key, params.agent_id.as_deref())?;
    if key.rest() == gateway.session_defaults.main_key {
        return Err(ErrorShape::invalid(format!("Cannot delete the main session ({key}).")));
    }
    let check = |draft: &Draft| -> Result<(), ErrorShape> {
        let expected = Expected {
            session_id: params.expected_session_id.as_deref(),
            revision: params.expected_lifecycle_revision.as_deref(),
        };
        expected.check(draft, "delete")?;
        let record = draft.record();
        #[allow(clippy::cast_precision_loss)] // milliseconds stay below 2^53 for 280,000 years
        if params.expected_session_updated_at.is_some_and(|at| draft.exists() && at != record.updated_ms as f64) {
            return Err(patch::changed(key.as_str(), "delete"));
        }
        if params.archived_only && draft.exists() && record.settings.archived_ms.is_none() {
            return Err(ErrorShape::invalid(format!("Session {key} is not archived.")));
        }
        Ok(())
    };
    check(&gateway.sessions.draft(&key).await)?;
    Runs::abort(gateway, &key, None).await;
    let mut draft = gateway.sessions.draft(&key).await;
    let deleted = draft.exists();
    // What the run said on its way out has changed the time, and that is no reason to keep it.
    if deleted {
        let expected = Expected { session_id: params.expected_session_id.as_deref(), revision: None };
        expected.check(&draft, "delete")?;
        draft.delete(params.delete_transcript != Some(false));
        draft.commit(Vec::new()).await.map_err(|error| unsaved(&error))?;
        changed(gateway, &key, Changed::Reason("delete"));
        tracing::info!(session = %key, by = %call.caller.address, "session deleted");
    }
    Ok(SessionDeleted { ok: true, key: key.as_str().to_owned(), deleted, archived: Vec::new() })
}

/// Reads every line before it keeps anything, and keeps all or nothing.
pub async fn import(call: Call, params: SessionsImportParams) -> Result<SessionsImported, ErrorShape> {
    let gateway = &call.gateway;
    let read = tokio::task::spawn_blocking(move || (Import::parse(&params.jsonl), params)).await;
    let (import, params) = read.map_err(|_| ErrorShape::unavailable("internal error; see the gateway log"))?;
    let import = import?;
    let key = key(gateway, params.key.as_deref().unwrap_or(&import.key), params.agent_id.as_deref())?;
    let free = match &import.session_id {
        Some(id) => gateway.sessions.is_free(id).await.map_err(|error| unread(&error))?,
        None => false,
    };
    let mut draft = gateway.sessions.draft(&key).await;
    let used = gateway.sessions.has_transcript(&key).await.map_err(|error| unread(&error))?;
    if draft.exists() || used {
        return Err(ErrorShape::invalid(format!(
            "nothing was imported: there is a session {key} already, and an import never overwrites; give another key"
        )));
    }
    let taken = gateway.sessions.all();
    let messages = import
        .fill(&mut draft, free, |label| taken.iter().any(|other| other.settings.label.as_deref() == Some(label)))?;
    let session_id = draft.record().session_id.as_str().to_owned();
    if !params.dry_run {
        let Committed { .. } = draft.commit(Vec::new()).await.map_err(|error| unsaved(&error))?;
        changed(gateway, &key, Changed::Reason("create"));
        tracing::info!(session = %key, messages, by = %call.caller.address, "session imported");
    }
    let key = key.as_str().to_owned();
    Ok(SessionsImported { ok: true, key, session_id, messages, dry_run: params.dry_run })
}

/// The entry of a record, for other answers.
pub(super) fn entry(call: &Call, record: &Record) -> Value {
    rows(call).entry(record)
}
