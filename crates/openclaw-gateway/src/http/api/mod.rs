//! The HTTP API: OpenAI's chat completions and responses over this gateway's agents, and single tool calls.
//!
//! The credential is the shared secret as a bearer token, against the same budget of guesses as WebSocket handshakes. What it
//! is worth depends on where the request comes from, as over WebSocket: see [`authenticate`]. Nothing here reads a scope from
//! the request.

mod chat;
mod input;
mod messages;
mod models;
mod responses;
mod run;
mod sse;
mod tools;

pub use run::{State, agents};

use std::sync::Arc;

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use openclaw_protocol::{Scope, ScopeSet};
use serde_json::Value;

use super::{
    Route, RouteAuth, Serve, bearer, body,
    reply::{self, Response, api_error},
};
use crate::{
    auth::{Evidence, decide::Mode},
    gateway::Gateway,
    runs::Authority,
    runtime::Runtime,
};

/// Longest body of `/v1/*` (openai-http-api: 20 MB).
const BODY_BYTES: usize = 20_000_000;
/// Longest body of `/tools/invoke` (tools-invoke-http-api: 2 MB).
const TOOL_BODY_BYTES: usize = 2_000_000;

/// What is served here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Models,
    ChatCompletions,
    Responses,
    Messages,
    ToolsInvoke,
}

impl Endpoint {
    /// Switched on in the configuration.
    pub fn is_on(self, runtime: &Runtime) -> bool {
        match self {
            Self::Models => runtime.chat_completions || runtime.responses,
            Self::ChatCompletions | Self::Messages => runtime.chat_completions,
            Self::Responses => runtime.responses,
            Self::ToolsInvoke => true,
        }
    }

    const fn method(self) -> (Method, &'static str) {
        match self {
            Self::Models => (Method::GET, "GET, HEAD"),
            Self::ChatCompletions | Self::Responses | Self::Messages | Self::ToolsInvoke => (Method::POST, "POST"),
        }
    }
}

/// A route of this API.
pub(super) const fn route(path: &'static str, scope: Scope, endpoint: Endpoint) -> Route {
    Route { path, auth: RouteAuth::Operator(scope), serve: Serve::Api(endpoint) }
}

/// A request, and what is known of it before its body is read.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    pub gateway: &'a Arc<Gateway>,
    pub evidence: &'a Evidence,
    pub request: &'a Request<()>,
    /// What the route takes.
    pub scope: Scope,
}

impl Asked<'_> {
    /// A header's text, without blanks around it; `None` when there is nothing in it.
    fn header(&self, name: &str) -> Option<&str> {
        let text = self.request.headers().get(name)?.to_str().ok()?.trim();
        (!text.is_empty()).then_some(text)
    }
}

/// Answers a request of the API, in the envelope its clients read. As [`answer_plainly`].
///
/// # Errors
/// Refusals, as answers.
pub async fn answer(
    endpoint: Endpoint,
    asked: Asked<'_>,
    body: &mut Option<Incoming>,
    proven: impl FnOnce(),
) -> Result<Response, Response> {
    let answered = answer_plainly(endpoint, asked, body, proven).await;
    if endpoint != Endpoint::Messages {
        return answered;
    }
    let refused = match answered {
        Ok(response) => return Ok(response),
        Err(refused) => refused,
    };
    let status = refused.status();
    let message = refused.extensions().get::<reply::Reason>().map(|reason| reason.0.clone());
    let mut response = messages::error(status, message.as_deref().or(status.canonical_reason()).unwrap_or("failed"));
    for name in [http::header::RETRY_AFTER, http::header::ALLOW] {
        if let Some(value) = refused.headers().get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    Err(response)
}

/// Answers a request of the API. The body is taken out of `body` when it is read; `proven` is called once the secret was.
///
/// # Errors
/// Refusals, as answers.
async fn answer_plainly(
    endpoint: Endpoint,
    asked: Asked<'_>,
    body: &mut Option<Incoming>,
    proven: impl FnOnce(),
) -> Result<Response, Response> {
    let (method, allow) = endpoint.method();
    let is_head = method == Method::GET && asked.request.method() == Method::HEAD;
    if *asked.request.method() != method && !is_head {
        return Err(reply::method_not_allowed(allow));
    }
    let authority = authenticate(&asked, endpoint).await?;
    proven();
    if endpoint == Endpoint::Models {
        return models::answer(&asked);
    }
    let limit = if endpoint == Endpoint::ToolsInvoke { TOOL_BODY_BYTES } else { BODY_BYTES };
    let incoming = body.take().ok_or_else(|| invalid("the request has no body"))?;
    let bytes = body::read(asked.request.headers(), incoming, limit).await?;
    let json = |error: serde_json::Error| invalid(&format!("the request body is not the JSON this takes: {error}"));
    match endpoint {
        Endpoint::Models => models::answer(&asked),
        Endpoint::ChatCompletions => {
            chat::answer(&asked, authority, serde_json::from_slice(&bytes).map_err(json)?).await
        }
        Endpoint::Responses => {
            responses::answer(&asked, authority, serde_json::from_slice(&bytes).map_err(json)?).await
        }
        Endpoint::Messages => messages::answer(&asked, authority, serde_json::from_slice(&bytes).map_err(json)?).await,
        Endpoint::ToolsInvoke => {
            let body: Value = serde_json::from_slice(&bytes).map_err(json)?;
            tools::answer(&asked, authority, &body).await
        }
    }
}

/// Who asks, and what they may do.
///
/// From this machine the shared secret is worth what it is worth over WebSocket: everything. From elsewhere it is worth
/// nothing over WebSocket without a paired device; here it is worth read and write, and only once the owner has switched on an
/// endpoint of this API, which says that programs elsewhere may use the agent with the secret alone. Never more (P-49).
///
/// # Errors
/// 401, 403, 429.
async fn authenticate(asked: &Asked<'_>, endpoint: Endpoint) -> Result<Authority, Response> {
    let Asked { gateway, evidence, request, scope } = asked;
    let runtime = gateway.runtime.load_full();
    let here = evidence.direct_local();
    // Programs that speak Anthropic's API have the secret in a header of their own.
    let own = || asked.header("x-api-key").filter(|_| endpoint == Endpoint::Messages);
    let right = match (&runtime.policy.mode, bearer(request.headers()).or_else(own)) {
        (Mode::None, _) => here,
        (_, Some(token)) => super::authenticate(gateway, evidence, token).await?,
        (_, None) => false,
    };
    if !right {
        return Err(reply::unauthorized());
    }
    let scopes = if here { ScopeSet::all() } else { [Scope::Read, Scope::Write].into_iter().collect() };
    let authority = Authority { scopes, owner: here };
    if !here && !runtime.chat_completions && !runtime.responses {
        return Err(api_error(
            StatusCode::FORBIDDEN,
            "forbidden",
            "the HTTP API takes the shared secret from this machine only. To open it to others, on the gateway host: \
             openclaw config set gateway.http.endpoints.chatCompletions.enabled true",
        ));
    }
    if authority.grants(*scope) {
        Ok(authority)
    } else {
        Err(api_error(StatusCode::FORBIDDEN, "forbidden", &format!("missing scope: {scope}")))
    }
}

/// 400 with the API's envelope.
fn invalid(message: &str) -> Response {
    api_error(StatusCode::BAD_REQUEST, "invalid_request_error", message)
}

/// 502, 503 … with the API's envelope.
fn failed(status: StatusCode, message: &str) -> Response {
    api_error(status, "api_error", message)
}
