//! `agents.defaults.model` and its kin: which model is asked first and which ones after it.

use openclaw_config::Node;

/// A configured choice, in the words of the config: references, aliases or bare ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    pub primary: Option<String>,
    /// `None` when the config does not say, which is not the same as an empty list.
    pub fallbacks: Option<Vec<String>>,
}

impl Selection {
    /// A text, or `{primary, fallbacks}`. `None` for a node that is neither or is blank.
    pub(super) fn read(node: &Node) -> Option<Self> {
        let filled = |node: &Node| node.as_str().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
        if node.as_str().is_some() {
            return Some(Self { primary: Some(filled(node)?), fallbacks: None });
        }
        node.as_object()?;
        let fallbacks = node.entry("fallbacks").and_then(Node::as_array);
        let this = Self {
            primary: node.entry("primary").and_then(filled),
            fallbacks: fallbacks.map(|items| items.iter().filter_map(filled).collect()),
        };
        (this != Self::default()).then_some(this)
    }
}
