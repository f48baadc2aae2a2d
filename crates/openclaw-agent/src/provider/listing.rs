//! Which models a service says it has. Needed only where somebody adds one or wonders why it does not answer; the catalog
//! never waits for it.

use std::{sync::Arc, time::Duration};

use reqwest::header::{ACCEPT, HeaderMap, HeaderValue, LOCATION};
use serde::Deserialize;
use tokio::time::timeout;

use super::{ErrorKind, ModelRef, ProviderError, endpoint::Endpoint, explain::Call, http::Http};

/// For the whole answer: a list is short.
const PATIENCE: Duration = Duration::from_secs(15);
/// Of an answer: 8 MiB. OpenRouter's list, the longest known, has less than one.
const MAX_BYTES: usize = 8 << 20;

/// What all three APIs answer, as far as it matters.
#[derive(Deserialize)]
struct Listing {
    data: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    id: String,
}

/// Ids in the order of the service.
pub(super) async fn list(
    http: Http,
    endpoint: Arc<Endpoint>,
    path: &'static str,
    own: HeaderMap,
) -> Result<Vec<String>, ProviderError> {
    let nothing = ModelRef { provider: endpoint.provider.clone(), model: "any model".to_owned() };
    let call = Call { endpoint: &endpoint, model: &nothing };
    match timeout(PATIENCE, ask(&http, &call, path, own)).await {
        Ok(answer) => answer,
        Err(_) => Err(call.silence(PATIENCE)),
    }
}

async fn ask(
    http: &Http,
    call: &Call<'_>,
    path: &'static str,
    mut headers: HeaderMap,
) -> Result<Vec<String>, ProviderError> {
    let endpoint = call.endpoint;
    let failed = |message: String| ProviderError { kind: ErrorKind::Invalid, message, retry_after: None };
    let client = http.client(&endpoint.base).map_err(|reason| failed(format!("No HTTPS: {reason}")))?;
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    endpoint.auth.apply(&mut headers).map_err(|_| call.bad_key())?;
    for (name, value) in &endpoint.headers {
        headers.insert(name.clone(), value.clone());
    }
    let mut response =
        client.get(endpoint.base.join(path)).headers(headers).send().await.map_err(|error| call.network(&error))?;
    let status = response.status();
    if status.is_redirection() {
        return Err(call.redirect(response.headers().get(LOCATION).and_then(|value| value.to_str().ok())));
    }
    let given = response.headers().clone();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| call.network(&error))? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_BYTES {
            return Err(call.garbage("a list of models of more than 8 MiB"));
        }
    }
    if matches!(status.as_u16(), 404 | 405) {
        return Err(failed(format!(
            "{} does not list its models (HTTP {}). Either baseUrl is not the API's (many end in /v1), or it has no list.",
            call.place(),
            status.as_u16()
        )));
    }
    if !status.is_success() {
        return Err(call.status(status, &given, &String::from_utf8_lossy(&body)));
    }
    match serde_json::from_slice::<Listing>(&body) {
        Ok(listing) => Ok(listing.data.into_iter().map(|entry| entry.id).filter(|id| !id.is_empty()).collect()),
        Err(_) => Err(call.garbage("something else than a list of models")),
    }
}
