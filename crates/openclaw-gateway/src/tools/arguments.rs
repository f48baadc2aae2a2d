//! Reading what a model wrote.

use openclaw_agent::tool::Answer;
use serde_json::Value;

/// The arguments of a call.
pub struct Arguments<'a>(pub &'a Value);

impl<'a> Arguments<'a> {
    /// A text, without blanks around it; `None` when there is nothing in it.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.0.get(name)?.as_str().map(str::trim).filter(|text| !text.is_empty())
    }

    /// A text that has to be there.
    ///
    /// # Errors
    /// What is missing, for the model.
    pub fn needed(&self, name: &str) -> Result<&'a str, Answer> {
        self.text(name).ok_or_else(|| Answer::error(format!("`{name}` is missing.")))
    }

    /// A text as it is, blanks included.
    pub fn verbatim(&self, name: &str) -> Option<&'a str> {
        self.0.get(name)?.as_str().filter(|text| !text.is_empty())
    }

    pub fn flag(&self, name: &str) -> bool {
        self.0.get(name).and_then(Value::as_bool) == Some(true)
    }

    /// A whole number within bounds; one outside is taken as the bound.
    pub fn number(&self, name: &str, low: u64, high: u64) -> Option<u64> {
        let value = self.0.get(name)?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped, and models write 5.0
        let whole = value.as_u64().or_else(|| value.as_f64().filter(|n| *n >= 0.0).map(|n| n as u64))?;
        Some(whole.clamp(low, high))
    }
}
