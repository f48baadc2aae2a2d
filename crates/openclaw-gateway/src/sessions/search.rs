//! Full-text search over what people and models said.

use openclaw_protocol::method::sessions::{SearchHit, SessionsFound};
use rusqlite::params;

use super::{
    SessionKey, Sessions,
    draft::object,
    text::{self, line},
};
use crate::store::StoreError;

/// Hits unless told otherwise, and at most.
pub const DEFAULT_HITS: usize = 10;
pub const MAX_HITS: usize = 25;
/// Longest query.
pub const MAX_QUERY_CHARS: usize = 4096;
/// Conversations one search can be limited to.
pub const MAX_KEYS: usize = 200;
/// Characters of an excerpt.
const SNIPPET_CHARS: usize = 300;

/// Where to look.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    pub keys: Option<Vec<SessionKey>>,
    pub agent: Option<String>,
}

impl Sessions {
    /// The best matches, best first. Text that holds nothing to look for finds nothing.
    ///
    /// # Errors
    /// When the database cannot be read, or the search took longer than 20 s.
    pub async fn search(&self, typed: &str, scope: Scope, limit: usize) -> Result<SessionsFound, StoreError> {
        let Some(query) = text::query(typed) else { return Ok(SessionsFound { results: vec![], truncated: None }) };
        let typed = typed.to_owned();
        let keys = scope.keys.map(|keys| {
            let keys: Vec<_> = keys.iter().map(SessionKey::as_str).collect();
            serde_json::to_string(&keys).unwrap_or_default()
        });
        let prefix = scope.agent.map(|agent| format!("agent:{agent}:"));
        self.shared
            .reader
            .read(move |db| {
                // Ranked by the index alone; only what is shown is read, however much matches.
                let mut ranked = db.prepare_cached(
                    "SELECT rowid, bm25(message_words) AS score FROM message_words WHERE message_words MATCH ?1
                     ORDER BY score, rowid DESC",
                )?;
                let mut wanted = db.prepare_cached(
                    "SELECT m.session_key, m.session_id, m.message_id, m.role, m.at_ms, m.body FROM message m
                     WHERE m.id = ?1
                       AND EXISTS (SELECT 1 FROM session s WHERE s.key = m.session_key)
                       AND (?2 IS NULL OR m.session_key IN (SELECT value FROM json_each(?2)))
                       AND (?3 IS NULL OR substr(m.session_key, 1, length(?3)) = ?3)",
                )?;
                let mut hits = ranked.query([query])?;
                let mut results = Vec::new();
                while results.len() <= limit
                    && let Some(hit) = hits.next()?
                {
                    let (id, score): (i64, f64) = (hit.get(0)?, hit.get(1)?);
                    let mut rows = wanted.query(params![id, keys, prefix])?;
                    let Some(row) = rows.next()? else { continue };
                    let body = object(row.get_ref(5)?.as_str()?).unwrap_or_default();
                    results.push(SearchHit {
                        session_key: row.get(0)?,
                        session_id: row.get(1)?,
                        message_id: row.get(2)?,
                        role: row.get(3)?,
                        timestamp: row.get(4)?,
                        snippet: text::snippet(&text::plain(&body), &line(&typed, MAX_QUERY_CHARS), SNIPPET_CHARS),
                        score: -score,
                    });
                }
                let more = results.len() > limit;
                results.truncate(limit);
                Ok(SessionsFound { results, truncated: more.then_some(true) })
            })
            .await
    }
}
