//! What a provider wants back with what its model thought. Other models must not get it: they refuse it or mistake it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ModelRef;

/// The contents of a [`Delta::Signature`](super::Delta::Signature).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Seal {
    /// Anthropic: of a thinking block.
    Signature(String),
    /// Anthropic: thinking that only the model can read.
    Redacted(String),
    /// OpenAI Responses: a whole reasoning item, encrypted content included.
    Item(Value),
    /// OpenRouter: `reasoning_details`.
    Details(Vec<Value>),
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    by: String,
    #[serde(flatten)]
    seal: Seal,
}

impl Seal {
    /// As text that names the model.
    pub fn close(self, model: &ModelRef) -> String {
        // Only texts and values already parsed: this cannot fail.
        serde_json::to_string(&Sealed { by: model.to_string(), seal: self }).unwrap_or_default()
    }

    /// The seal, if it is this model's.
    pub fn open(text: &str, model: &ModelRef) -> Option<Self> {
        let sealed: Sealed = serde_json::from_str(text).ok()?;
        (sealed.by == model.to_string()).then_some(sealed.seal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_model_gets_a_seal_back() {
        let claude = ModelRef::parse("anthropic/claude-opus-5").unwrap();
        let other = ModelRef::parse("proxy/claude-opus-5").unwrap();
        for seal in [
            Seal::Signature("EqQBCgIYAhIM".to_owned()),
            Seal::Redacted("EmwKAhgB".to_owned()),
            Seal::Item(serde_json::json!({"id": "rs_1", "encrypted_content": "gAAA"})),
            Seal::Details(vec![serde_json::json!({"type": "reasoning.encrypted", "data": "x"})]),
        ] {
            let text = seal.clone().close(&claude);
            assert_eq!(Seal::open(&text, &claude), Some(seal));
            assert_eq!(Seal::open(&text, &other), None);
        }
        // What other programs kept in transcripts.
        assert_eq!(Seal::open("EqQBCgIYAhIM", &claude), None);
        assert_eq!(Seal::open("reasoning_content", &claude), None);
    }
}
