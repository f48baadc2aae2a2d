//! Which model a conversation uses that has chosen none, for lists.

use std::sync::Arc;

use openclaw_agent::provider::{ModelRef, Thinking, catalog::Catalog};
use openclaw_protocol::method::sessions::{SessionModelDefaults, ThinkingLevel};

use super::Record;

/// The models of the config in force, as conversations see them.
#[derive(Clone, Debug)]
pub struct Models(pub Arc<Catalog>);

impl Models {
    /// Tokens of prompt and answer together.
    pub fn context_tokens(&self, model: &ModelRef) -> u64 {
        self.0.model(model).context_window.into()
    }

    /// What the model can be asked for; `off` alone when it does not think.
    pub fn thinking(&self, model: Option<&ModelRef>) -> &'static [Thinking] {
        model.map_or(&[Thinking::Off], |model| self.0.thinking_levels(model))
    }

    /// What a conversation of `agent` uses that has chosen nothing.
    pub fn defaults(&self, agent: &str) -> SessionModelDefaults {
        let model = self.0.agent_model(agent);
        let levels = self.thinking(model.as_ref());
        let thinking = model.as_ref().map_or(Thinking::Off, |model| self.0.thinking(agent, model));
        SessionModelDefaults {
            context_tokens: model.as_ref().map(|model| self.context_tokens(model)),
            thinking_levels: shown(levels),
            thinking_options: levels.iter().map(|level| level.as_str().to_owned()).collect(),
            thinking_default: thinking.as_str().to_owned(),
            model_selection_target: "session".into(),
            model_provider: model.as_ref().map(|model| model.provider.clone()),
            model: model.map(|model| model.model),
        }
    }

    /// The model a conversation will use: its own choice, or the agent's.
    pub fn selected(&self, record: &Record) -> Option<ModelRef> {
        let own = record.settings.model.as_deref().and_then(ModelRef::parse);
        own.or_else(|| self.0.agent_model(record.key.agent()))
    }
}

pub fn shown(levels: &[Thinking]) -> Vec<ThinkingLevel> {
    levels.iter().map(|level| ThinkingLevel { id: level.as_str().into(), label: level.as_str().into() }).collect()
}
