//! Which model a conversation uses that has chosen none, for lists.

use openclaw_agent::provider::ModelRef;
use openclaw_config::document::{Document, Node};
use openclaw_protocol::method::sessions::{SessionModelDefaults, ThinkingLevel};

use super::Record;

/// Levels a model that thinks can be asked for.
const LEVELS: [&str; 5] = ["off", "minimal", "low", "medium", "high"];

/// What the config says of an agent's models.
#[derive(Clone, Copy, Debug, Default)]
pub struct Models<'a> {
    config: Option<&'a Document>,
}

impl<'a> Models<'a> {
    pub fn of(config: &'a Document) -> Self {
        Self { config: Some(config) }
    }

    /// The agent's own choice, or that of all agents.
    pub fn primary(&self, agent: &str) -> Option<ModelRef> {
        let config = self.config?;
        let entries = config.get("agents.entries").and_then(|node| node.entry(agent));
        let list = config.get("agents.list").and_then(Node::as_array).unwrap_or_default();
        let listed = list.iter().find(|node| node.entry("id").and_then(Node::as_str) == Some(agent));
        let own = entries.or(listed).and_then(|node| node.entry("model")).and_then(reference);
        own.or_else(|| config.get("agents.defaults.model").and_then(reference))
    }

    fn entry(&self, model: &ModelRef) -> Option<&'a Node> {
        let provider = self.config?.get("models.providers")?.entry(&model.provider)?;
        let models = provider.entry("models")?.as_array()?;
        models.iter().find(|entry| entry.entry("id").and_then(Node::as_str) == Some(&model.model))
    }

    /// Tokens of prompt and answer together, where the config says it.
    pub fn context_tokens(&self, model: &ModelRef) -> Option<u64> {
        let tokens = self.entry(model)?.entry("contextWindow").and_then(Node::as_i64)?;
        u64::try_from(tokens).ok().filter(|tokens| *tokens > 0)
    }

    /// What the model can be asked for; `off` alone when it does not think.
    pub fn thinking(&self, model: Option<&ModelRef>) -> Vec<&'static str> {
        let entry = model.and_then(|model| self.entry(model));
        let thinks =
            entry.and_then(|entry| entry.entry("reasoning")).and_then(Node::as_bool).unwrap_or(entry.is_none());
        if thinks && model.is_some() { LEVELS.to_vec() } else { LEVELS[..1].to_vec() }
    }

    fn thinking_default(&self, levels: &[&'static str]) -> String {
        let default = self.config.and_then(|config| config.get("agents.defaults.thinkingDefault")?.as_str());
        default.filter(|level| levels.contains(level)).unwrap_or("off").to_owned()
    }

    /// What a conversation of `agent` uses that has chosen nothing.
    pub fn defaults(&self, agent: &str) -> SessionModelDefaults {
        let model = self.primary(agent);
        let levels = self.thinking(model.as_ref());
        SessionModelDefaults {
            context_tokens: model.as_ref().and_then(|model| self.context_tokens(model)),
            thinking_levels: shown(&levels),
            thinking_options: levels.iter().map(|level| (*level).to_owned()).collect(),
            thinking_default: self.thinking_default(&levels),
            model_selection_target: "session".into(),
            model_provider: model.as_ref().map(|model| model.provider.clone()),
            model: model.map(|model| model.model),
        }
    }

    /// The model a conversation will use: its own choice, or the agent's.
    pub fn selected(&self, record: &Record) -> Option<ModelRef> {
        let own = record.settings.model.as_deref().and_then(ModelRef::parse);
        own.or_else(|| self.primary(record.key.agent()))
    }
}

pub fn shown(levels: &[&str]) -> Vec<ThinkingLevel> {
    levels.iter().map(|level| ThinkingLevel { id: (*level).to_owned(), label: (*level).to_owned() }).collect()
}

/// `"provider/model"` or `{primary: "provider/model"}`.
fn reference(node: &Node) -> Option<ModelRef> {
    let text = node.as_str().or_else(|| node.entry("primary")?.as_str())?;
    ModelRef::parse(text)
}
