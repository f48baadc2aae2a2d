//! Answers, each with the security headers.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::body::ReplyBody;

pub type Response = http::Response<ReplyBody>;

/// An empty body.
pub fn empty() -> ReplyBody {
    ReplyBody::whole(Bytes::new())
}

/// An answer with the headers every answer carries.
pub fn with_body(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(ReplyBody::whole(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
    set(header::CONTENT_TYPE, content_type);
    set(header::CACHE_CONTROL, "no-store");
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::X_FRAME_OPTIONS, "DENY");
    set(header::REFERRER_POLICY, "no-referrer");
    set(
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    );
    headers.insert("permissions-policy", HeaderValue::from_static("camera=(), microphone=(self), geolocation=()"));
    response
}

/// A JSON answer.
pub fn json_reply(status: StatusCode, value: &Value) -> Response {
    with_body(status, "application/json; charset=utf-8", value.to_string())
}

/// A plain text answer.
pub fn plain(status: StatusCode, text: &'static str) -> Response {
    with_body(status, "text/plain; charset=utf-8", text)
}

/// Why a request was refused, kept beside the answer for those who tell it in another envelope.
#[derive(Clone, Debug)]
pub struct Reason(pub String);

/// The error envelope of the HTTP API.
pub fn api_error(status: StatusCode, kind: &str, message: &str) -> Response {
    let mut response = json_reply(status, &json!({"error": {"message": message, "type": kind}}));
    response.extensions_mut().insert(Reason(message.to_owned()));
    response
}

/// 401.
pub fn unauthorized() -> Response {
    api_error(StatusCode::UNAUTHORIZED, "unauthorized", "Unauthorized")
}

/// 429 with `Retry-After` in whole seconds.
pub fn rate_limited(retry_after_ms: u64) -> Response {
    let mut response = api_error(
        StatusCode::TOO_MANY_REQUESTS,
        "rate_limited",
        "Too many failed authentication attempts. Try again later.",
    );
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after_ms.div_ceil(1000)));
    response
}

/// 405 with `Allow`.
pub fn method_not_allowed(allow: &'static str) -> Response {
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    response
}

/// 426 naming the one WebSocket version there is.
pub fn upgrade_required() -> Response {
    let mut response = plain(StatusCode::UPGRADE_REQUIRED, "Upgrade Required");
    response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    response
}

/// 101. No extension and no subprotocol is ever accepted.
pub fn switching(accept: &str) -> Response {
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(accept) = HeaderValue::from_str(accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}
