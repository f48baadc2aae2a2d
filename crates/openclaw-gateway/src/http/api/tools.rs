//! `POST /tools/invoke`: one tool, without a model.

use http::StatusCode;
use serde_json::{Value, json};

use super::{Asked, Response};
use crate::{
    http::reply::json_reply,
    runs::{Authority, Origin},
    tools::invoke::{self, Wanted},
};

/// Never over HTTP unless `gateway.tools.allow` says so (tools-invoke-http-api).
pub const DENIED: [&str; 12] = [
    "exec",
    "spawn",
    "shell",
    "fs_write",
    "fs_delete",
    "fs_move",
    "apply_patch",
    "sessions_spawn",
    "sessions_send",
    "cron",
    "gateway",
    "nodes",
];

fn error(status: StatusCode, kind: &str, message: &str) -> Response {
    json_reply(status, &json!({"ok": false, "error": {"type": kind, "message": message}}))
}

/// Whether a tool may be asked for over HTTP at all.
pub fn is_reachable(tool: &str, allow: &[String], deny: &[String]) -> bool {
    let named = |list: &[String]| list.iter().any(|name| name == tool);
    // Writing under its own name is what `fs_write` means here.
    let denied = DENIED.contains(&tool) || matches!(tool, "write" | "edit");
    !named(deny) && (!denied || named(allow))
}

/// Runs it.
///
/// # Errors
/// Refusals, as answers.
pub async fn answer(asked: &Asked<'_>, authority: Authority, body: &Value) -> Result<Response, Response> {
    let name = body.get("name").or_else(|| body.get("tool")).and_then(Value::as_str).map(str::trim);
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return Err(error(StatusCode::BAD_REQUEST, "invalid_request", "tools.invoke requires name"));
    };
    let runtime = asked.gateway.runtime.load_full();
    let list = |key: &str| -> Vec<String> {
        let names = runtime.config.get(key).and_then(|node| node.as_array()).unwrap_or_default();
        names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect()
    };
    let missing = || error(StatusCode::NOT_FOUND, "not_found", &format!("Tool not available: {name}"));
    if !is_reachable(name, &list("gateway.tools.allow"), &list("gateway.tools.deny")) {
        return Err(missing());
    }
    let refused = |why: openclaw_protocol::ErrorShape| error(StatusCode::BAD_REQUEST, "invalid_request", &why.message);
    let field = |name: &str| body.get(name).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty());
    let mut arguments = match body.get("args") {
        None | Some(Value::Null) => json!({}),
        Some(arguments @ Value::Object(_)) => arguments.clone(),
        Some(_) => return Err(error(StatusCode::BAD_REQUEST, "invalid_request", "args must be an object")),
    };
    if let (Some(action), None) = (field("action"), arguments.get("action")) {
        arguments["action"] = json!(action);
    }
    let written = field("sessionKey").unwrap_or("main");
    let session = asked.gateway.runs.key(asked.gateway, written, field("agentId")).map_err(refused)?;
    let wanted = Wanted { session, authority, origin: Origin::Http, key: field("idempotencyKey").map(str::to_owned) };
    let (context, model) = invoke::context(asked.gateway, wanted).map_err(refused)?;
    // Dropped with the request when its client hangs up.
    let cancel = asked.gateway.cancel.child_token();
    let _hangup = cancel.clone().drop_guard();
    match invoke::run(asked.gateway, &context, &model, name, arguments, cancel).await {
        None => Err(missing()),
        Some(answer) if answer.is_error => Err(error(StatusCode::BAD_REQUEST, "tool_error", &invoke::text(&answer))),
        Some(answer) => Ok(json_reply(StatusCode::OK, &json!({"ok": true, "result": invoke::output(&answer)}))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reaches_beyond_the_agent_is_not_for_http() {
        let (none, owned) = (Vec::new(), |name: &str| vec![name.to_owned()]);
        for name in DENIED.into_iter().chain(["write", "edit"]) {
            assert!(!is_reachable(name, &none, &none), "{name}");
        }
        assert!(is_reachable("read", &none, &none));
        assert!(is_reachable("gateway", &owned("gateway"), &none));
        assert!(!is_reachable("gateway", &owned("gateway"), &owned("gateway")));
        assert!(!is_reachable("browser", &none, &owned("browser")));
    }
}
