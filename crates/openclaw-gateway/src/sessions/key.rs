//! Names of conversations.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// Longest key, as `chat.send` takes it.
pub const MAX_KEY_CHARS: usize = 512;

/// The canonical name of a conversation: `agent:<agent>:<rest>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SessionKey(Arc<str>);

impl From<SessionKey> for String {
    fn from(key: SessionKey) -> Self {
        key.as_str().to_owned()
    }
}

impl TryFrom<String> for SessionKey {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::stored(text.clone()).ok_or_else(|| format!("{text:?} is not a session key"))
    }
}

/// Why a text is no session key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("must NOT have fewer than 1 characters")]
    Empty,
    #[error("must NOT have more than 512 characters")]
    Long,
    #[error("must not hold control characters")]
    Control,
}

impl SessionKey {
    /// Reads what a caller wrote: canonical already, or short for a conversation of `agent` (`main` is that agent's main one).
    ///
    /// # Errors
    /// [`KeyError`]
    pub fn resolve(written: &str, agent: &str, main_key: &str) -> Result<Self, KeyError> {
        let written = written.trim();
        let rest = match written {
            "" => return Err(KeyError::Empty),
            _ if written.chars().count() > MAX_KEY_CHARS => return Err(KeyError::Long),
            _ if written.chars().any(char::is_control) => return Err(KeyError::Control),
            _ if Self::parts(written).is_some() => return Ok(Self(written.to_lowercase().into())),
            "main" => main_key,
            _ => written,
        };
        Ok(Self(format!("agent:{agent}:{rest}").to_lowercase().into()))
    }

    /// A stored key, canonical by construction.
    pub(crate) fn stored(text: String) -> Option<Self> {
        Self::parts(&text)?;
        Some(Self(text.into()))
    }

    fn parts(text: &str) -> Option<(&str, &str)> {
        let (agent, rest) = text.strip_prefix("agent:")?.split_once(':')?;
        (!agent.is_empty() && !rest.is_empty()).then_some((agent, rest))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Which agent answers.
    pub fn agent(&self) -> &str {
        Self::parts(&self.0).map_or("main", |(agent, _)| agent)
    }

    /// What follows the agent.
    pub fn rest(&self) -> &str {
        Self::parts(&self.0).map_or("main", |(_, rest)| rest)
    }
}

impl fmt::Display for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_one_canonical_form() {
        let check = |written: &str, expected: Result<&str, KeyError>| {
            let key = SessionKey::resolve(written, "main", "main");
            assert_eq!(key.as_ref().map(SessionKey::as_str).map_err(|error| *error), expected, "{written:?}");
        };
        // methods.md: `main` is an alias of `agent:<defaultId>:main`.
        check("main", Ok("agent:main:main"));
        check(" main ", Ok("agent:main:main"));
        check("agent:main:main", Ok("agent:main:main"));
        check("agent:work:main", Ok("agent:work:main"));
        check("telegram:direct:5", Ok("agent:main:telegram:direct:5"));
        check("agent:", Ok("agent:main:agent:"));
        check("", Err(KeyError::Empty));
        check("a\u{1b}[31m", Err(KeyError::Control));
        check(&"x".repeat(513), Err(KeyError::Long));
    }
}
