//! `POST /tools/invoke`: one tool, without a model.

use http::StatusCode;
use serde_json::{Value, json};

use super::{Asked, Response};
use crate::{http::reply::json_reply, runs::Authority};

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
    let _ = (asked, authority);
    Err(error(StatusCode::NOT_FOUND, "not_found", &format!("Tool not available: {name}")))
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
