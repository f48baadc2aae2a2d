//! Full-text search over what people and models said.

use openclaw_protocol::method::sessions::{SearchHit, SessionsFound};
use rusqlite::params;

use super::{
    SessionKey, Sessions,
    draft::object,
    text::{self, line},
};
use crate::store::{StoreError, int};

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
                let mut statement = db.prepare_cached(
                    "SELECT m.session_key, m.session_id, m.message_id, m.role, m.at_ms, m.body, bm25(message_words)
                     FROM message_words JOIN message m ON m.id = message_words.rowid
                     WHERE message_words MATCH ?1
                       AND EXISTS (SELECT 1 FROM session s WHERE s.key = m.session_key)
                       AND (?2 IS NULL OR m.session_key IN (SELECT value FROM json_each(?2)))
                       AND (?3 IS NULL OR substr(m.session_key, 1, length(?3)) = ?3)
                     ORDER BY bm25(message_words), m.id DESC LIMIT ?4",
                )?;
                let mut rows = statement.query(params![query, keys, prefix, int(limit + 1)])?;
                let mut results = Vec::new();
                while let Some(row) = rows.next()? {
                    let body = object(row.get_ref(5)?.as_str()?).unwrap_or_default();
                    results.push(SearchHit {
                        session_key: row.get(0)?,
                        session_id: row.get(1)?,
                        message_id: row.get(2)?,
                        role: row.get(3)?,
                        timestamp: row.get(4)?,
                        snippet: text::snippet(&text::plain(&body), &line(&typed, MAX_QUERY_CHARS), SNIPPET_CHARS),
                        score: -row.get::<_, f64>(6)?,
                    });
                }
                let more = results.len() > limit;
                results.truncate(limit);
                Ok(SessionsFound { results, truncated: more.then_some(true) })
            })
            .await
    }
}
