//! A provider behind one of the three APIs.

use std::{collections::BTreeMap, fmt, sync::Arc};

use futures_util::{future::BoxFuture, stream::BoxStream};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::{
    Delta, Provider, ProviderError, Request, completions,
    endpoint::Endpoint,
    http::{self, Http, Outgoing},
    listing, messages, responses,
    tuning::Tuning,
};

/// A wire format, in the words of `models.providers.<id>.api`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// `openai-completions`: OpenAI's chat completions, which nearly everybody speaks.
    Completions,
    /// `openai-responses`
    Responses,
    /// `anthropic-messages`
    Messages,
}

impl Api {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completions => "openai-completions",
            Self::Responses => "openai-responses",
            Self::Messages => "anthropic-messages",
        }
    }
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One provider of the config.
#[derive(Debug)]
pub(super) struct HttpProvider {
    pub api: Api,
    pub http: Http,
    pub endpoint: Arc<Endpoint>,
    /// By model id.
    pub tunings: BTreeMap<String, Tuning>,
    /// For models the config does not list.
    pub tuning: Tuning,
}

/// A request and what is known of where it goes, for the builders of bodies.
pub(super) struct Prepared<'a> {
    pub request: &'a Request,
    pub endpoint: &'a Endpoint,
    pub tuning: &'a Tuning,
}

impl Prepared<'_> {
    /// The inventor of the API himself, rather than somebody who imitates it.
    pub fn is_openai(&self) -> bool {
        self.endpoint.base.is_host("api.openai.com")
    }

    pub fn is_anthropic(&self) -> bool {
        self.endpoint.base.is_host("api.anthropic.com")
    }

    pub fn thinks(&self) -> bool {
        self.request.model.reasoning && self.request.thinking != super::Thinking::Off
    }

    /// Tokens of the answer, if the caller or the config says.
    pub fn max_tokens(&self) -> Option<u32> {
        let said = self.request.max_tokens.or(self.tuning.max_tokens)?;
        Some(said.min(self.request.model.max_tokens.unwrap_or(u32::MAX)))
    }

    pub fn temperature(&self) -> Option<f64> {
        self.tuning.temperature.filter(|_| self.tuning.compat.temperature != Some(false))
    }

    pub fn takes_tools(&self) -> bool {
        self.tuning.compat.tools != Some(false) && !self.request.tools.is_empty()
    }
}

impl Provider for HttpProvider {
    fn stream(&self, request: Request) -> BoxStream<'static, Result<Delta, ProviderError>> {
        let model = request.model.reference.clone();
        let tuning = self.tunings.get(&model.model).unwrap_or(&self.tuning);
        let prepared = Prepared { request: &request, endpoint: &self.endpoint, tuning };
        let outgoing = |path, headers, body| Outgoing {
            http: self.http.clone(),
            endpoint: Arc::clone(&self.endpoint),
            model: model.clone(),
            path,
            headers,
            body,
        };
        match self.api {
            Api::Completions => {
                let outgoing = outgoing("chat/completions", HeaderMap::new(), completions::body(&prepared));
                http::stream(outgoing, completions::Reader::new(model.clone()))
            }
            Api::Responses => {
                let outgoing = outgoing("responses", HeaderMap::new(), responses::body(&prepared));
                http::stream(outgoing, responses::Reader::new(model.clone()))
            }
            Api::Messages => {
                // Anthropic's base has no version in it; that of many who imitate it does.
                let path = if self.endpoint.base.ends_with("/v1") { "messages" } else { "v1/messages" };
                let outgoing = outgoing(path, anthropic_version(), messages::body(&prepared));
                http::stream(outgoing, messages::Reader::new(model.clone()))
            }
        }
    }

    fn listing(&self) -> BoxFuture<'static, Result<Vec<String>, ProviderError>> {
        let (path, headers) = match self.api {
            Api::Completions | Api::Responses => ("models", HeaderMap::new()),
            Api::Messages if self.endpoint.base.ends_with("/v1") => ("models", anthropic_version()),
            Api::Messages => ("v1/models", anthropic_version()),
        };
        Box::pin(listing::list(self.http.clone(), Arc::clone(&self.endpoint), path, headers))
    }
}

fn anthropic_version() -> HeaderMap {
    HeaderMap::from_iter([(HeaderName::from_static("anthropic-version"), HeaderValue::from_static("2023-06-01"))])
}
