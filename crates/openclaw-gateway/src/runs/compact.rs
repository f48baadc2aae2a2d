//! Makes room in a long conversation: a summary stands for what came first.

use std::sync::Arc;

use openclaw_agent::{
    message::Message,
    prompt::{self, Compaction},
    provider::ErrorKind,
    turn::Candidate,
};
use openclaw_protocol::ErrorShape;
use tokio_util::sync::CancellationToken;

use super::execute::visible;
use crate::{
    gateway::Gateway,
    sessions::{self, Record, SessionKey, events::Changed, read::ContextRow},
    store::StoreError,
};

/// Fewer messages than this are never compacted by themselves.
const LEAST: usize = 4;

/// What became of a conversation.
#[derive(Clone, Debug)]
pub struct Compacted {
    pub summary: String,
    /// Messages the summary stands for, and those that stay.
    pub summarized: usize,
    pub kept: usize,
    /// Roughly.
    pub tokens_before: u64,
    pub tokens_after: u64,
}

/// True when the conversation nearly fills the model's context.
pub fn is_due(gateway: &Gateway, record: &Record, rows: &[ContextRow], candidates: &[Candidate], system: &str) -> bool {
    let settings = gateway.runs.settings(gateway);
    let Some(window) = candidates.first().map(|candidate| u64::from(candidate.model.context_window)) else {
        return false;
    };
    if !settings.auto_compact || rows.len() < LEAST || window == 0 {
        return false;
    }
    let Some(model) = candidates.first().map(|candidate| &candidate.model) else { return false };
    // What the provider counted last time is better than an estimate; a small context keeps a quarter free.
    let reserve = settings.compaction_reserve.min(window / 4);
    let counted = record.totals.context.is_some_and(|context| context > window - reserve);
    counted || prompt::wants_compaction(system, &messages(rows), model)
}

fn messages(rows: &[ContextRow]) -> Vec<Message> {
    rows.iter().map(|row| row.message.clone()).collect()
}

/// Compacts a conversation, for somebody who asks for it.
///
/// # Errors
/// `INVALID_REQUEST` when there is nothing to compact, `UNAVAILABLE` while a run is under way, without a model, or when the
/// model failed; the conversation is as it was.
pub async fn compact(
    gateway: &Arc<Gateway>,
    key: &SessionKey,
    instructions: Option<&str>,
) -> Result<Compacted, ErrorShape> {
    if gateway.runs.is_running(key) {
        return Err(ErrorShape::retry_later("a run of this conversation is under way; wait for it, or /stop", 5_000));
    }
    let settings = gateway.runs.settings(gateway);
    let agent = settings.agent(key.agent()).ok_or_else(|| super::unknown_agent(key.agent()))?;
    let wanted = gateway.sessions.get(key).and_then(|record| record.settings.model.clone());
    let chosen = gateway.runs.models.choose(&agent.id, wanted.as_deref()).await.map_err(ErrorShape::unavailable)?;
    summarize(gateway, key, &chosen.candidates, instructions, None, &CancellationToken::new()).await
}

/// The same with the models of a run; what belongs to `run` stays as it is.
pub async fn summarize(
    gateway: &Arc<Gateway>,
    key: &SessionKey,
    candidates: &[Candidate],
    instructions: Option<&str>,
    run: Option<&str>,
    cancel: &CancellationToken,
) -> Result<Compacted, ErrorShape> {
    let nothing = || ErrorShape::invalid("there is nothing to compact in this conversation yet");
    let record = gateway.sessions.get(key).ok_or_else(nothing)?;
    let unreadable = |error: StoreError| ErrorShape::unavailable(format!("the conversation cannot be read: {error}"));
    let rows = visible(gateway.sessions.context(&record).await.map_err(unreadable)?);
    let model = candidates.first().ok_or_else(|| ErrorShape::unavailable("there is no model to write a summary"))?;
    // What the run under way has said and heard is still needed word for word.
    let of_run = rows.iter().position(|row| run.is_some() && row.run_id.as_deref() == run).unwrap_or(rows.len());
    let old = rows.get(..of_run).unwrap_or_default();
    let messages = messages(old);
    let window = u64::from(model.model.context_window);
    let compaction = Compaction {
        models: candidates.to_vec(),
        history: &messages,
        // A small context keeps less.
        keep_tokens: (window < 100_000).then_some(window / 5),
        instructions: instructions.map(str::trim).filter(|text| !text.is_empty()),
        cancel: cancel.child_token(),
    };
    let done = prompt::compact(compaction).await.map_err(|error| match error.kind {
        ErrorKind::Invalid if messages.len() < LEAST => nothing(),
        _ => ErrorShape::unavailable(format!("no summary was made: {}", error.message)),
    })?;
    let kept_from = rows.get(done.kept_from).map_or(record.last_seq + 1, |row| row.seq);
    let mut draft = gateway.sessions.draft(key).await;
    if !draft.exists() || draft.record().session_id != record.session_id {
        return Err(ErrorShape::invalid("the conversation was begun anew meanwhile"));
    }
    draft.compact(Some(&done.summary), kept_from).map_err(|error| ErrorShape::unavailable(error.to_string()))?;
    let price = candidates.first().and_then(|candidate| candidate.model.price);
    draft.record_mut().totals.cost += price.map_or(0.0, |price| price.cost(done.usage));
    let not_saved = |error: StoreError| ErrorShape::unavailable(format!("the summary could not be saved: {error}"));
    let committed = draft.commit(Vec::new()).await.map_err(not_saved)?;
    sessions::events::messages(gateway, key, &committed.appended);
    sessions::events::changed(gateway, key, Changed::Reason("compact"));
    Ok(Compacted {
        summary: done.summary,
        summarized: done.kept_from,
        kept: rows.len() - done.kept_from,
        tokens_before: done.tokens_before,
        tokens_after: done.tokens_after,
    })
}
