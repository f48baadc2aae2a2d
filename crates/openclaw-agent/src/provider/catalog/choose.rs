//! From what a person or the config names to the models that are asked.

use std::sync::Arc;

use futures_util::stream::{self, BoxStream, StreamExt as _};

use super::{AgentChoice, Catalog, NoModel, NotAllowed, Selection};
use crate::{
    provider::{Delta, ErrorKind, Model, ModelRef, Provider, ProviderError, Request, Thinking},
    turn::Candidate,
};

impl Catalog {
    /// The model a text means: an alias, `provider/model`, or a bare id that only one provider lists. `None` when nobody has it.
    /// That a model is found says nothing about its key: see [`Catalog::availability`].
    pub fn resolve(&self, text: &str) -> Option<ModelRef> {
        let text = text.trim();
        if let Some((_, reference)) = self.aliases.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(text)) {
            return Some(reference.clone());
        }
        if let Some(reference) = ModelRef::parse(text).filter(|r| self.services.contains_key(&r.provider)) {
            return Some(reference);
        }
        // Ids may have slashes of their own: `mlx-community/Qwen3-30B`.
        let services = || self.services.values();
        let lists = |model: &&Arc<Model>| model.reference.model == text;
        let listed: Vec<&Arc<Model>> = services().flat_map(|service| service.models.iter().filter(lists)).collect();
        if let [only] = listed[..] {
            return Some(only.reference.clone());
        }
        if text.is_empty() || text.contains('/') || !listed.is_empty() {
            return None;
        }
        let known = services().filter(|service| service.provider.is_ok()).find_map(|service| {
            super::known::models_of(&service.id).map(|model| model.reference).find(|reference| reference.model == text)
        });
        known.or_else(|| {
            // As the reference: last, the provider of the default is meant.
            let primary = self.defaults.selection.as_ref()?.primary.as_deref()?;
            let provider = ModelRef::parse(primary).filter(|_| primary != text)?.provider;
            self.services.contains_key(&provider).then(|| ModelRef { provider, model: text.to_owned() })
        })
    }

    /// The model that is asked when nobody chooses: `agents.defaults.model`.
    pub fn default_model(&self) -> Option<ModelRef> {
        self.resolve(self.defaults.selection.as_ref()?.primary.as_deref()?)
    }

    /// The model an agent asks when nobody chooses: its own, else the default.
    pub fn agent_model(&self, agent: &str) -> Option<ModelRef> {
        let own =
            self.agents.get(agent).and_then(|choice| choice.selection.as_ref()).and_then(|s| s.primary.as_deref());
        own.map_or_else(|| self.default_model(), |text| self.resolve(text))
    }

    /// Whom an agent asks, in order: its own model with its own fallbacks, else the default with the default's. An agent's own
    /// model without fallbacks has none (as the reference).
    ///
    /// # Errors
    /// Nothing is configured, or nothing of it can be used.
    pub fn for_agent(&self, agent: &str) -> Result<Vec<Candidate>, NoModel> {
        let own = self.agents.get(agent).and_then(|choice| choice.selection.as_ref());
        let default = self.defaults.selection.clone().unwrap_or_default();
        let selection = match own {
            Some(own) if own.primary.is_some() => {
                Selection { primary: own.primary.clone(), fallbacks: Some(own.fallbacks.clone().unwrap_or_default()) }
            }
            // Fallbacks alone go with the default model.
            Some(own) => Selection { primary: default.primary, fallbacks: own.fallbacks.clone().or(default.fallbacks) },
            None => default,
        };
        let primary = selection.primary.ok_or(NoModel::Unset)?;
        let fallbacks = selection.fallbacks.unwrap_or_default();
        let mut references = vec![self.resolve(&primary).ok_or(NoModel::Unknown(primary))?];
        references.extend(fallbacks.iter().filter_map(|text| self.resolve(text)));
        self.candidates_of(references)
    }

    /// This model, then the configured fallbacks of the defaults. For a model that was not chosen by a person; see
    /// [`Catalog::exactly`] for one that was.
    ///
    /// # Errors
    /// None of them can be used.
    pub fn candidates(&self, model: &ModelRef) -> Result<Vec<Candidate>, NoModel> {
        let fallbacks = self.defaults.selection.as_ref().and_then(|selection| selection.fallbacks.clone());
        let fallbacks = fallbacks.unwrap_or_default();
        let fallbacks = fallbacks.iter().filter_map(|text| self.resolve(text));
        self.candidates_of([model.clone()].into_iter().chain(fallbacks).collect())
    }

    /// This model and no other: what `/model`, `sessions.patch` and command lines choose (as the reference).
    ///
    /// # Errors
    /// It cannot be used.
    pub fn exactly(&self, model: &ModelRef) -> Result<Vec<Candidate>, NoModel> {
        self.candidates_of(vec![model.clone()])
    }

    /// One that cannot be used stays in front of one that can, and says why when it is asked: a fallback that answers instead is
    /// seen to be one.
    fn candidates_of(&self, mut references: Vec<ModelRef>) -> Result<Vec<Candidate>, NoModel> {
        let mut seen = std::collections::HashSet::new();
        references.retain(|reference| seen.insert(reference.clone()));
        let mut reasons = Vec::new();
        let candidates: Vec<Candidate> = references
            .into_iter()
            .map(|reference| {
                let model = self.model(&reference);
                let provider: Arc<dyn Provider> = match self.services.get(&reference.provider).map(|s| &s.provider) {
                    Some(Ok(provider)) => Arc::clone(provider),
                    _ => {
                        let reason = self.availability(&reference).err().unwrap_or_default();
                        let message = format!("{reference} cannot be used: {reason}");
                        reasons.push((reference, reason));
                        Arc::new(Unavailable { message })
                    }
                };
                Candidate { model, provider }
            })
            .collect();
        if reasons.len() == candidates.len() { Err(NoModel::Unavailable(reasons)) } else { Ok(candidates) }
    }

    /// Whether a person may choose this model for this agent.
    ///
    /// # Errors
    /// `modelPolicy.allow` of the agent, else of the defaults, is not empty and does not have it.
    pub fn allowed(&self, agent: &str, model: &ModelRef) -> Result<(), NotAllowed> {
        let own = self.agents.get(agent).and_then(|choice| choice.allow.as_ref());
        let (list, key) = match own {
            Some(list) => (Some(list), format!("agents.entries.{agent}.modelPolicy.allow")),
            None => (self.defaults.allow.as_ref(), "agents.defaults.modelPolicy.allow".to_owned()),
        };
        let name = model.to_string();
        let allows = |entry: &String| match entry.trim().strip_suffix('*') {
            Some(prefix) => prefix.ends_with('/') && name.starts_with(prefix),
            None => self.resolve(entry).as_ref() == Some(model),
        };
        let allowed = list.is_none_or(|list| list.is_empty() || list.iter().any(allows));
        if allowed { Ok(()) } else { Err(NotAllowed { model: model.clone(), key }) }
    }

    /// How hard a model thinks when nobody says: the agent's `thinkingDefault`, the model's `params.thinking`, the defaults'
    /// `thinkingDefault`, else medium for models that reason.
    pub fn thinking(&self, agent: &str, model: &ModelRef) -> Thinking {
        let of = |choice: Option<&AgentChoice>| choice.and_then(|choice| choice.thinking);
        let said = of(self.agents.get(agent))
            .or_else(|| self.thinking.get(model).copied())
            .or_else(|| of(Some(&self.defaults)));
        said.unwrap_or(if self.model(model).reasoning { Thinking::Medium } else { Thinking::Off })
    }

    /// The levels that make sense for a model, off first.
    pub fn thinking_levels(&self, model: &ModelRef) -> &'static [Thinking] {
        match (self.model(model).reasoning, model.provider.as_str()) {
            (false, _) => &[Thinking::Off],
            (true, "anthropic" | "openai") => &Thinking::ALL,
            (true, _) => &[Thinking::Off, Thinking::Minimal, Thinking::Low, Thinking::Medium, Thinking::High],
        }
    }
}

/// In the place of a provider that cannot be used.
#[derive(Debug)]
struct Unavailable {
    message: String,
}

impl Provider for Unavailable {
    fn stream(&self, _: Request) -> BoxStream<'static, Result<Delta, ProviderError>> {
        let error = ProviderError { kind: ErrorKind::Auth, message: self.message.clone(), retry_after: None };
        stream::iter([Err(error)]).boxed()
    }
}
