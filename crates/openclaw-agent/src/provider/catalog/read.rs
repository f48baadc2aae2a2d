//! From the config's words to providers.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use openclaw_config::{
    Document, Env, Node, Paths,
    secret_ref::{self, SecretContext, SecretInput, SecretKind},
};
use openclaw_protocol::Secret;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};

use super::{Api, Service, known};
use crate::{
    provider::{
        Model, ModelRef,
        client::HttpProvider,
        endpoint::{Auth, BaseUrl, DEFAULT_SILENCE, Endpoint, KeySource, Trust},
        http::Http,
        tuning::{Compat, Tuning},
    },
    usage::Price,
};

/// Something in the config that keeps a provider or model from being used as written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct Problem {
    /// Of the config.
    pub path: String,
    /// Why, and what to do. Never a value that may be secret.
    pub message: String,
}

/// Reads all of `models` and what else decides about providers.
pub(super) struct Reader<'a> {
    pub doc: &'a Document,
    pub env: &'a Env,
    pub paths: &'a Paths,
    pub http: &'a Http,
    pub problems: Vec<Problem>,
}

/// What `agents.defaults.models` and `agents.defaults.params` add to models, by reference.
pub(super) struct Params {
    pub all: Map<String, Value>,
    pub by_model: BTreeMap<ModelRef, Map<String, Value>>,
}

impl Reader<'_> {
    pub fn problem(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem { path: path.into(), message: message.into() });
    }

    /// One provider: known, configured or both. The reason why not stays with it.
    pub fn service(&mut self, id: &str, node: Option<&Node>, params: &Params) -> Service {
        let known = known::known_provider(id);
        let path = format!("models.providers.{id}");
        let models = self.models(id, &path, node, known.is_some() && node.is_none_or(|n| n.entry("baseUrl").is_none()));
        let api = self.api(node, known);
        let base = self.base_url(node, known, api.as_ref().ok().copied());
        let mut service = Service {
            id: id.to_owned(),
            api: api.as_ref().ok().copied(),
            base_url: base.as_ref().map(ToString::to_string).unwrap_or_default(),
            key_source: KeySource::None,
            local: base.as_ref().is_ok_and(|base| base.local),
            configured: node.is_some(),
            trusted: known.is_some_and(|known| {
                base.as_ref().is_ok_and(|base| base.to_string() == known.base_url.trim_end_matches('/'))
            }),
            models: models.iter().map(|(model, _)| Arc::clone(model)).collect(),
            provider: Err(String::new()),
        };
        let endpoint = match (api, base) {
            (Ok(api), Ok(base)) => self.endpoint(id, &path, node, known, api, base).map(|endpoint| (api, endpoint)),
            (Err(reason), _) | (_, Err(reason)) => Err(reason),
        };
        service.provider = match endpoint {
            Ok((api, endpoint)) => {
                service.key_source = endpoint.key_source.clone();
                let tuning = |model: &str, mut tuning: Tuning| {
                    let reference = ModelRef { provider: id.to_owned(), model: model.to_owned() };
                    apply(&mut tuning, &params.all);
                    if let Some(own) = params.by_model.get(&reference) {
                        apply(&mut tuning, own);
                    }
                    tuning
                };
                let base = Tuning { compat: habits(id), ..Tuning::default() };
                let listed = models.into_iter().map(|(model, own)| (model.reference.model.clone(), own));
                let unlisted = params.by_model.keys().filter(|reference| reference.provider == id);
                let mut tunings: BTreeMap<String, Tuning> =
                    unlisted.map(|reference| (reference.model.clone(), base.clone())).collect();
                tunings.extend(listed);
                let tunings = tunings.into_iter().map(|(model, own)| (model.clone(), tuning(&model, own))).collect();
                let provider = HttpProvider {
                    api,
                    http: self.http.clone(),
                    endpoint: Arc::new(endpoint),
                    tunings,
                    tuning: tuning("", base),
                };
                Ok(Arc::new(provider) as Arc<dyn crate::provider::Provider>)
            }
            Err(reason) => {
                // A provider nobody configured is simply not there.
                if node.is_some() {
                    self.problem(&path, reason.clone());
                }
                Err(reason)
            }
        };
        service
    }

    fn api(&mut self, node: Option<&Node>, known: Option<&known::KnownProvider>) -> Result<Api, String> {
        let Some(text) = node.and_then(|node| node.entry("api")).and_then(Node::as_str) else {
            // A custom address speaks what everybody speaks, unless the known provider has a dialect of its own.
            return Ok(known.map_or(Api::Completions, |known| known.api));
        };
        match text {
            "openai-completions" | "ollama" => Ok(Api::Completions),
            "openai-responses" => Ok(Api::Responses),
            "anthropic-messages" => Ok(Api::Messages),
            "google-generative-ai" => {
                Err("the API google-generative-ai is not spoken here; Google's models answer with api \
                openai-completions and baseUrl https://generativelanguage.googleapis.com/v1beta/openai too"
                    .to_owned())
            }
            other => Err(format!(
                "the API {other:?} is not spoken here; use openai-completions, openai-responses or anthropic-messages"
            )),
        }
    }

    fn base_url(
        &self,
        node: Option<&Node>,
        known: Option<&known::KnownProvider>,
        api: Option<Api>,
    ) -> Result<BaseUrl, String> {
        let written = node.and_then(|node| node.entry("baseUrl")).and_then(Node::as_text);
        if let Some(text) = written.filter(|text| !text.unresolved.is_empty()) {
            return Err(format!("the variable {} in its baseUrl is unset", text.unresolved.join(", ")));
        }
        let text = written.map(|text| text.value.trim()).filter(|text| !text.is_empty());
        let text = text.or(known.map(|known| known.base_url)).ok_or(
            "it has no baseUrl, and no provider of this name is known; set its baseUrl, such as https://llm.example.com/v1",
        )?;
        let request = node.and_then(|node| node.entry("request"));
        let trust = match request.and_then(|request| request.entry("allowPrivateNetwork")).and_then(Node::as_bool) {
            Some(true) => Trust::Declared,
            Some(false) => Trust::Denied,
            None => Trust::Origin,
        };
        // Ollama's own API is at the root; the one spoken here is below /v1.
        let ollama = node.and_then(|node| node.entry("api")).and_then(Node::as_str) == Some("ollama")
            || (known.is_some_and(|known| known.id == "ollama") && api == Some(Api::Completions));
        let bare = text.trim_end_matches('/');
        if ollama && !bare.ends_with("/v1") && !bare.contains('?') {
            return BaseUrl::parse(&format!("{bare}/v1"), trust);
        }
        BaseUrl::parse(text, trust)
    }

    fn endpoint(
        &mut self,
        id: &str,
        path: &str,
        node: Option<&Node>,
        known: Option<&known::KnownProvider>,
        api: Api,
        base: BaseUrl,
    ) -> Result<Endpoint, String> {
        let headers = self.headers(path, node)?;
        let (auth, key_source) = match self.key(id, path, node, known)? {
            Some((key, source)) => (self.auth(node, api, key), source),
            None if headers_log_in(&headers) => (Auth::None, KeySource::Config(format!("{path}.headers"))),
            None if base.local => (Auth::None, KeySource::None),
            None => return Err(no_key(id, known, self.paths)),
        };
        let seconds = node.and_then(|node| node.entry("timeoutSeconds")).and_then(Node::as_i64);
        let total = seconds.and_then(|seconds| u64::try_from(seconds).ok()).filter(|s| *s > 0).map(Duration::from_secs);
        Ok(Endpoint {
            provider: id.to_owned(),
            base,
            auth,
            key_source,
            headers,
            silence: total.unwrap_or(DEFAULT_SILENCE),
            total,
        })
    }

    /// The key: of the config, else of the environment. An error is a reason why it cannot be had, which is not the same as
    /// having none.
    fn key(
        &self,
        id: &str,
        path: &str,
        node: Option<&Node>,
        known: Option<&known::KnownProvider>,
    ) -> Result<Option<(Secret, KeySource)>, String> {
        let auth = node.and_then(|node| node.entry("auth")).and_then(Node::as_str).unwrap_or("api-key");
        if auth == "aws-sdk" {
            return Err("auth aws-sdk is not spoken here; use a provider with an API key".to_owned());
        }
        let at = format!("{path}.apiKey");
        let input = node.and_then(|node| node.entry("apiKey")).and_then(|node| SecretInput::from_node(&at, node));
        if let Some(input) = input.filter(|input| !input.is_blank()) {
            // The reference takes the bare name of a variable for its value.
            if let SecretKind::Plain(text) = &input.kind
                && is_variable(text.expose())
            {
                let name = text.expose();
                return match self.env.get(name) {
                    Some(value) => Ok(Some((Secret::new(value), KeySource::Env(name.to_owned())))),
                    None => Err(format!("{at} names the variable {name}, which is unset")),
                };
            }
            let context = SecretContext { env: self.env, doc: self.doc, paths: self.paths };
            let key = secret_ref::resolve(&input, &context).map_err(|error| error.to_string())?;
            return Ok(key.map(|key| (key, KeySource::Config(at))));
        }
        if auth == "oauth" {
            return Err(format!("auth oauth is not spoken here; set {at} to an API key"));
        }
        let own = format!("{}_API_KEY", id.to_ascii_uppercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_"));
        let names: Vec<&str> = match known {
            Some(known) => known.env.to_vec(),
            None => vec![&own],
        };
        let found = names
            .into_iter()
            .find_map(|name| Some((Secret::new(self.env.get(name)?), KeySource::Env(name.to_owned()))));
        Ok(found)
    }

    /// Anthropic's key has a header of its own; tokens and all others are bearers.
    fn auth(&self, node: Option<&Node>, api: Api, key: Secret) -> Auth {
        let flag = |key: &str| node.and_then(|node| node.entry(key));
        let bearer = flag("authHeader").and_then(Node::as_bool).unwrap_or_default()
            || matches!(flag("auth").and_then(Node::as_str), Some("token" | "oauth"));
        if api == Api::Messages && !bearer {
            Auth::Header(HeaderName::from_static("x-api-key"), key)
        } else {
            Auth::Bearer(key)
        }
    }

    /// `headers` and `request.headers`. One that cannot be had makes the provider unavailable: it may be what logs in.
    fn headers(&self, path: &str, node: Option<&Node>) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        let own = node.and_then(|node| node.entry("headers")).map(|node| (format!("{path}.headers"), node));
        let request = node.and_then(|node| node.entry("request")).and_then(|node| node.entry("headers"));
        let request = request.map(|node| (format!("{path}.request.headers"), node));
        for (path, node) in own.into_iter().chain(request) {
            for (name, value) in node.as_object().unwrap_or_default() {
                let at = format!("{path}.{name}");
                let Some(input) = SecretInput::from_node(&at, value) else { continue };
                let context = SecretContext { env: self.env, doc: self.doc, paths: self.paths };
                let Some(text) = secret_ref::resolve(&input, &context).map_err(|e| e.to_string())? else { continue };
                let header = HeaderName::try_from(name.as_str()).map_err(|_| format!("{at} is not a header name"))?;
                let mut value = HeaderValue::try_from(text.expose())
                    .map_err(|_| format!("{at} has characters no header can carry"))?;
                value.set_sensitive(true);
                headers.insert(header, value);
            }
        }
        Ok(headers)
    }

    /// `models.providers.<id>.models`, each with what it says beyond the model itself.
    fn models(&mut self, id: &str, path: &str, node: Option<&Node>, trusted: bool) -> Vec<(Arc<Model>, Tuning)> {
        let provider_max = node.and_then(|node| number(node, "maxTokens"));
        let items = node.and_then(|node| node.entry("models")).and_then(Node::as_array).unwrap_or_default();
        let mut models: Vec<(Arc<Model>, Tuning)> = Vec::new();
        for (at, item) in items.iter().enumerate() {
            // A bare text is an id.
            let text = item.as_str().or_else(|| item.entry("id")?.as_str());
            let Some(model) = text.map(str::trim).filter(|text| !text.is_empty()) else {
                self.problem(format!("{path}.models[{at}]"), "a model needs an id; this entry is left out");
                continue;
            };
            let model = model.strip_prefix(&format!("{id}/")).unwrap_or(model);
            let reference = ModelRef { provider: id.to_owned(), model: model.to_owned() };
            let known = known::describe(&reference, trusted);
            let said_max = number(item, "maxTokens").or(provider_max);
            let context_window = number(item, "contextTokens").or_else(|| number(item, "contextWindow"));
            let context_window = context_window.unwrap_or(known.context_window);
            let described = Model {
                name: item.entry("name").and_then(Node::as_str).map_or(known.name, str::to_owned),
                context_window,
                max_tokens: said_max.or(known.max_tokens).map(|max| max.min(context_window)),
                reasoning: item.entry("reasoning").and_then(Node::as_bool).unwrap_or(known.reasoning),
                images: item
                    .entry("input")
                    .and_then(Node::as_array)
                    .map_or(known.images, |inputs| inputs.iter().any(|input| input.as_str() == Some("image"))),
                price: item.entry("cost").and_then(price).or(known.price),
                reference,
            };
            let compat = item.entry("compat").map_or_else(|| habits(id), |node| read_compat(node, habits(id)));
            models.push((Arc::new(described), Tuning { max_tokens: said_max, compat, ..Tuning::default() }));
        }
        models
    }
}

fn no_key(id: &str, known: Option<&known::KnownProvider>, paths: &Paths) -> String {
    let file = paths.state_dir.join(Path::new(".env"));
    let variable = known.and_then(|known| known.env.first()).map_or_else(String::new, |name| {
        format!(" Or put {name}=… into {} or the environment of the gateway.", file.display())
    });
    format!(
        "it has no key. Set one: `openclaw secrets store set {id}-key`, then `openclaw config set models.providers.{id}.apiKey \
         '{{\"source\":\"store\",\"id\":\"{id}-key\"}}' --strict-json`.{variable}"
    )
}

fn headers_log_in(headers: &HeaderMap) -> bool {
    ["authorization", "x-api-key", "api-key", "x-goog-api-key"].iter().any(|name| headers.contains_key(*name))
}

/// `OPENAI_API_KEY`: what a key never looks like.
fn is_variable(text: &str) -> bool {
    let rest = text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
    rest && text.starts_with(|c: char| c.is_ascii_uppercase()) && text.contains('_') && text.len() <= 128
}

/// A positive number of tokens.
fn number(node: &Node, key: &str) -> Option<u32> {
    node.entry(key).and_then(Node::as_i64).and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0)
}

fn price(node: &Node) -> Option<Price> {
    let value = node.to_value();
    let of = |key: &str| value.get(key).and_then(Value::as_f64).filter(|price| price.is_finite() && *price >= 0.0);
    let any = value.as_object().is_some_and(|object| !object.is_empty());
    any.then(|| Price {
        input: of("input").unwrap_or_default(),
        output: of("output").unwrap_or_default(),
        cache_read: of("cacheRead").unwrap_or_default(),
        cache_write: of("cacheWrite").unwrap_or_default(),
    })
}

/// What known providers need without being told.
fn habits(id: &str) -> Compat {
    match id {
        "deepseek" => {
            Compat { reasoning_content: true, thinking_format: Some("deepseek".to_owned()), ..Compat::default() }
        }
        "moonshot" => Compat { reasoning_content: true, ..Compat::default() },
        "zai" => Compat { thinking_format: Some("zai".to_owned()), ..Compat::default() },
        "together" => Compat { thinking_format: Some("together".to_owned()), ..Compat::default() },
        "llama-cpp" | "ollama" | "lmstudio" => Compat { llamacpp_schemas: true, ..Compat::default() },
        _ => Compat::default(),
    }
}

fn read_compat(node: &Node, habits: Compat) -> Compat {
    let flag = |key: &str| node.entry(key).and_then(Node::as_bool);
    let text = |key: &str| node.entry(key).and_then(Node::as_str).map(str::to_owned);
    let texts = |key: &str| {
        let items = node.entry(key).and_then(Node::as_array)?;
        Some(items.iter().filter_map(Node::as_str).map(str::to_owned).collect::<Vec<_>>())
    };
    let map = node.entry("reasoningEffortMap").and_then(Node::as_object).unwrap_or_default();
    Compat {
        tools: flag("supportsTools").or(habits.tools),
        reasoning_effort: flag("supportsReasoningEffort").or(habits.reasoning_effort),
        usage_in_streaming: flag("supportsUsageInStreaming").or(habits.usage_in_streaming),
        instructions: flag("supportsInstructions").or(habits.instructions),
        store: flag("supportsStore").or(habits.store),
        temperature: flag("supportsTemperature").or(habits.temperature),
        string_content: flag("requiresStringContent").unwrap_or(habits.string_content),
        tool_result_name: flag("requiresToolResultName").unwrap_or(habits.tool_result_name),
        reasoning_content: flag("requiresReasoningContentOnAssistantMessages").unwrap_or(habits.reasoning_content),
        max_tokens_field: text("maxTokensField").or(habits.max_tokens_field),
        thinking_format: text("thinkingFormat").or(habits.thinking_format),
        efforts: texts("supportedReasoningEfforts").or(habits.efforts),
        effort_map: map.iter().filter_map(|(level, word)| Some((level.clone(), word.as_str()?.to_owned()))).collect(),
        drop_keywords: texts("unsupportedToolSchemaKeywords").unwrap_or(habits.drop_keywords),
        llamacpp_schemas: text("toolSchemaProfile").map_or(habits.llamacpp_schemas, |profile| profile == "llamacpp"),
    }
}

/// `params` of the config over what is there.
fn apply(tuning: &mut Tuning, params: &Map<String, Value>) {
    let object = |key: &str| params.get(key).and_then(Value::as_object).cloned().unwrap_or_default();
    if let Some(temperature) = params.get("temperature").and_then(Value::as_f64) {
        tuning.temperature = Some(temperature);
    }
    if let Some(max) = params.get("maxTokens").and_then(Value::as_u64).and_then(|max| u32::try_from(max).ok()) {
        tuning.max_tokens = Some(max).filter(|max| *max > 0);
    }
    tuning.chat_template_kwargs.extend(object("chat_template_kwargs"));
    tuning.extra_body.extend(object("extraBody"));
    tuning.extra_body.extend(object("extra_body"));
}
