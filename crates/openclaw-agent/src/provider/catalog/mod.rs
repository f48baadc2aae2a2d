//! Which models there are, whom to ask for them, and why not.
//!
//! Read from `models`, `agents` and the environment at start and after every change of the config. A provider that cannot be
//! used (its key does not resolve, its URL is not allowed) is kept with the reason and is never asked without its key.

mod choose;
mod known;
mod no_model;
mod read;
mod selection;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use openclaw_config::{Document, Env, Node, Paths};
use serde_json::{Map, Value};

pub use super::{client::Api, endpoint::KeySource, http::Http};
pub use no_model::{NoModel, NotAllowed};
pub use read::Problem;
pub use selection::Selection;

use super::{Model, ModelRef, Provider, Thinking};

/// All providers and models of one config. Cheap to share in an `Arc`; nothing in it changes.
#[derive(Debug, Default)]
pub struct Catalog {
    services: BTreeMap<String, Service>,
    /// Ids of the configured providers as the file has them, which is the order models are listed in.
    configured: Vec<String>,
    /// `agents.defaults.models`: alias, model.
    aliases: Vec<(String, ModelRef)>,
    defaults: AgentChoice,
    /// By agent id; what an agent does not say is the defaults'.
    agents: BTreeMap<String, AgentChoice>,
    /// `params.thinking` of `agents.defaults.models`.
    thinking: BTreeMap<ModelRef, Thinking>,
    /// `models.mode: "replace"`: only configured models are listed.
    replace: bool,
    http: Http,
}

/// What the defaults or one agent say about models.
#[derive(Clone, Debug, Default)]
struct AgentChoice {
    selection: Option<Selection>,
    thinking: Option<Thinking>,
    /// `modelPolicy.allow`; empty allows all.
    allow: Option<Vec<String>>,
}

/// One provider.
#[derive(Debug)]
struct Service {
    id: String,
    api: Option<Api>,
    base_url: String,
    key_source: KeySource,
    local: bool,
    configured: bool,
    /// The known provider at its known address.
    trusted: bool,
    models: Vec<Arc<Model>>,
    /// Or why it cannot be used.
    provider: Result<Arc<dyn Provider>, String>,
}

/// A provider as `models status` and the UI show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderInfo {
    pub id: String,
    /// `None` when the config names one that is not spoken here.
    pub api: Option<Api>,
    /// Without its query.
    pub base_url: String,
    /// On this machine or in a private network.
    pub local: bool,
    /// In `models.providers`, rather than only known.
    pub configured: bool,
    pub key_source: KeySource,
    /// Or the reason why it cannot be used, with what to do.
    pub available: Result<(), String>,
    /// Models it lists.
    pub models: usize,
}

/// A model as lists show it.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    pub model: Arc<Model>,
    pub alias: Option<String>,
    /// It is asked when nobody chooses.
    pub is_default: bool,
    /// It is one of the default's fallbacks.
    pub is_fallback: bool,
    /// The provider is on this machine or in a private network.
    pub local: bool,
    /// Or the reason why it cannot be used, with what to do.
    pub available: Result<(), String>,
}

impl Catalog {
    /// Reads everything. Blocks: SecretRefs may read files and run programs. The problems are for status and the log; what they
    /// are about is left out or unavailable, everything else works.
    pub fn read(doc: &Document, env: &Env, paths: &Paths) -> (Self, Vec<Problem>) {
        Self::read_with(Http::default(), doc, env, paths)
    }

    /// Reads a changed config and keeps the connections.
    pub fn reread(&self, doc: &Document, env: &Env, paths: &Paths) -> (Self, Vec<Problem>) {
        Self::read_with(self.http.clone(), doc, env, paths)
    }

    fn read_with(http: Http, doc: &Document, env: &Env, paths: &Paths) -> (Self, Vec<Problem>) {
        let mut reader = read::Reader { doc, env, paths, http: &http, problems: Vec::new() };
        let configured = doc.get("models.providers").and_then(Node::as_object).unwrap_or_default();
        let known = known::PROVIDERS.iter().map(|known| known.id);
        let ids: BTreeSet<&str> = configured.iter().map(|(id, _)| id.as_str()).chain(known).collect();
        let node_of = |id: &str| configured.iter().find(|(have, _)| have == id).map(|(_, node)| node);

        let mut catalog = Self { http: http.clone(), ..Self::default() };
        catalog.configured = configured.iter().map(|(id, _)| id.clone()).collect();
        catalog.replace = doc.get("models.mode").and_then(Node::as_str) == Some("replace");
        let params = catalog.model_settings(doc, &mut reader);
        for id in ids {
            let service = reader.service(id, node_of(id), &params);
            catalog.services.insert(id.to_owned(), service);
        }
        catalog.defaults = doc.get("agents.defaults").map(AgentChoice::read).unwrap_or_default();
        for (id, node) in agents(doc) {
            catalog.agents.insert(id, AgentChoice::read(node));
        }
        catalog.check_choices(&mut reader);
        let problems = reader.problems;
        (catalog, problems)
    }

    /// `agents.defaults.models`: aliases, thinking and request parameters by model.
    fn model_settings(&mut self, doc: &Document, reader: &mut read::Reader<'_>) -> read::Params {
        let object = |node: Option<&Node>| match node.map(Node::to_value) {
            Some(Value::Object(object)) => object,
            _ => Map::new(),
        };
        let mut params = read::Params { all: object(doc.get("agents.defaults.params")), by_model: BTreeMap::new() };
        for (key, node) in doc.get("agents.defaults.models").and_then(Node::as_object).unwrap_or_default() {
            // `provider/*` says how to list, not how to ask.
            let Some(reference) = ModelRef::parse(key) else {
                let message = "write it as provider/model; this entry is left out";
                reader.problem(format!("agents.defaults.models[{key:?}]"), message);
                continue;
            };
            if reference.model.ends_with('*') {
                continue;
            }
            let alias = node.entry("alias").and_then(Node::as_str).map(str::trim).filter(|alias| !alias.is_empty());
            self.aliases.extend(alias.map(|alias| (alias.to_owned(), reference.clone())));
            let own = object(node.entry("params"));
            let thinking =
                own.get("thinking").map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
            if let Some(level) = thinking.and_then(|text| Thinking::parse(&text)) {
                self.thinking.insert(reference.clone(), level);
            }
            params.by_model.insert(reference, own);
        }
        params
    }

    /// Says early what would otherwise only show when somebody asks.
    fn check_choices(&self, reader: &mut read::Reader<'_>) {
        let named = |path: String, choice: &AgentChoice| {
            let selection = choice.selection.clone().unwrap_or_default();
            let primary = selection.primary.map(|text| (format!("{path}.model.primary"), text));
            let fallbacks = selection.fallbacks.unwrap_or_default().into_iter().enumerate();
            let fallbacks = fallbacks.map(|(at, text)| (format!("{path}.model.fallbacks[{at}]"), text));
            primary.into_iter().chain(fallbacks.collect::<Vec<_>>()).collect::<Vec<_>>()
        };
        let mut all = named("agents.defaults".to_owned(), &self.defaults);
        self.agents.iter().for_each(|(id, choice)| all.extend(named(format!("agents.entries.{id}"), choice)));
        for (path, text) in all {
            let reason = match self.resolve(&text) {
                None => Some(NoModel::Unknown(text).to_string()),
                Some(model) => {
                    self.availability(&model).err().map(|reason| format!("{model} cannot be used: {reason}"))
                }
            };
            if let Some(reason) = reason {
                reader.problem(path, reason);
            }
        }
    }

    /// Every provider that is configured or could be used, by id.
    pub fn providers(&self) -> Vec<ProviderInfo> {
        let shown = self.services.values().filter(|service| service.configured || service.is_usable_unasked());
        shown.map(|service| service.info(self.models_of(service).len())).collect()
    }

    /// One provider, also one that is only known.
    pub fn provider(&self, id: &str) -> Option<ProviderInfo> {
        self.services.get(id).map(|service| service.info(self.models_of(service).len()))
    }

    /// The models worth showing: the default and its fallbacks, what the config lists, and (unless `models.mode` is `replace`)
    /// the known models of providers that have a key. Others can be asked for by name all the same.
    pub fn models(&self) -> Vec<Listed> {
        let chosen = self.chosen();
        let configured = self.configured.iter().filter_map(|id| self.services.get(id));
        let known = self.services.values().filter(|service| !service.configured && service.is_usable_unasked());
        let of_services = configured.chain(known).flat_map(|service| self.models_of(service));
        let named = chosen.iter().map(|reference| self.model(reference));
        let aliased = self.aliases.iter().map(|(_, reference)| self.model(reference));
        let mut seen = BTreeSet::new();
        let all = named.chain(of_services).chain(aliased).filter(|model| seen.insert(model.reference.clone()));
        all.map(|model| self.listed(model, &chosen)).collect()
    }

    fn listed(&self, model: Arc<Model>, chosen: &[ModelRef]) -> Listed {
        let reference = &model.reference;
        Listed {
            alias: self.aliases.iter().find(|(_, have)| have == reference).map(|(alias, _)| alias.clone()),
            is_default: chosen.first() == Some(reference),
            is_fallback: chosen.iter().skip(1).any(|have| have == reference),
            local: self.services.get(&reference.provider).is_some_and(|service| service.local),
            available: self.availability(reference),
            model,
        }
    }

    /// The default and its fallbacks.
    fn chosen(&self) -> Vec<ModelRef> {
        let selection = self.defaults.selection.clone().unwrap_or_default();
        let texts = selection.primary.into_iter().chain(selection.fallbacks.unwrap_or_default());
        texts.filter_map(|text| self.resolve(&text)).collect()
    }

    fn models_of(&self, service: &Service) -> Vec<Arc<Model>> {
        let mut models = service.models.clone();
        if !self.replace && service.trusted && service.models.is_empty() {
            models.extend(known::models_of(&service.id).map(Arc::new));
        }
        models
    }

    /// What is known of a model, by config or else by its name.
    pub fn model(&self, reference: &ModelRef) -> Arc<Model> {
        let service = self.services.get(&reference.provider);
        let listed = service.and_then(|service| service.models.iter().find(|model| model.reference == *reference));
        let trusted = service.is_some_and(|service| service.trusted);
        listed.cloned().unwrap_or_else(|| Arc::new(known::describe(reference, trusted)))
    }

    /// Whether a model can be asked, as far as the config tells; or why not, with what to do.
    pub fn availability(&self, reference: &ModelRef) -> Result<(), String> {
        match self.services.get(&reference.provider) {
            Some(service) => service.provider.as_ref().map(|_| ()).map_err(Clone::clone),
            None => Err(format!(
                "no provider {0:?} is configured or known; set models.providers.{0}.baseUrl, or correct the name",
                reference.provider
            )),
        }
    }
}

impl Service {
    /// A known provider whose key is in the environment. A local server that may not even run is not shown unasked.
    fn is_usable_unasked(&self) -> bool {
        self.provider.is_ok() && !self.local
    }

    fn info(&self, models: usize) -> ProviderInfo {
        ProviderInfo {
            id: self.id.clone(),
            api: self.api,
            base_url: self.base_url.clone(),
            local: self.local,
            configured: self.configured,
            key_source: self.key_source.clone(),
            available: self.provider.as_ref().map(|_| ()).map_err(Clone::clone),
            models,
        }
    }
}

impl AgentChoice {
    fn read(node: &Node) -> Self {
        let allow = node.entry("modelPolicy").and_then(|node| node.entry("allow")).and_then(Node::as_array);
        Self {
            selection: node.entry("model").and_then(Selection::read),
            thinking: node.entry("thinkingDefault").and_then(Node::as_str).and_then(Thinking::parse),
            allow: allow.map(|items| items.iter().filter_map(Node::as_str).map(str::to_owned).collect()),
        }
    }
}

/// `agents.entries`, and the older `agents.list`.
fn agents(doc: &Document) -> Vec<(String, &Node)> {
    let entries = doc.get("agents.entries").and_then(Node::as_object).unwrap_or_default();
    let list = doc.get("agents.list").and_then(Node::as_array).unwrap_or_default();
    let listed = list.iter().filter_map(|node| Some((node.entry("id")?.as_str()?.to_owned(), node)));
    listed.chain(entries.iter().map(|(id, node)| (id.clone(), node))).collect()
}

#[cfg(test)]
mod tests;
