//! `GET /v1/models`: the agents of this gateway, as models.

use http::StatusCode;
use serde_json::{Value, json};

use super::{Asked, Response};
use crate::http::reply::{api_error, json_reply};

/// The default agent's names.
const DEFAULTS: [&str; 2] = ["openclaw", "openclaw/default"];

fn card(id: &str) -> Value {
    json!({"id": id, "object": "model", "created": 0, "owned_by": "openclaw", "permission": []})
}

/// Lists them, or shows one.
///
/// # Errors
/// 404 for one that is not there.
pub fn answer(asked: &Asked<'_>) -> Result<Response, Response> {
    let agents = super::run::agents(asked.gateway);
    let ids = DEFAULTS.into_iter().map(str::to_owned).chain(agents.iter().map(|id| format!("openclaw/{id}")));
    let path = asked.request.uri().path();
    let Some(one) = path.strip_prefix("/v1/models/") else {
        let list: Vec<Value> = ids.map(|id| card(&id)).collect();
        return Ok(json_reply(StatusCode::OK, &json!({"object": "list", "data": list})));
    };
    let one = one.replace("%2F", "/").replace("%2f", "/");
    match ids.into_iter().find(|id| *id == one) {
        Some(id) => Ok(json_reply(StatusCode::OK, &card(&id))),
        None => {
            let words = format!("The model {one:?} does not exist here; GET /v1/models lists those that do");
            Err(api_error(StatusCode::NOT_FOUND, "invalid_request_error", &words))
        }
    }
}
