//! The page at `/` until the Control UI is served from here: what this is, and nothing about it that a stranger could use.

use http::{HeaderValue, StatusCode, header};

use super::reply::{Response, with_body};

const INDEX: &str = include_str!("index.html");

/// The page. Its style is inline, its scripts are none.
pub fn index() -> Response {
    let mut response = with_body(StatusCode::OK, "text/html; charset=utf-8", INDEX);
    response.headers_mut().insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    );
    response
}
