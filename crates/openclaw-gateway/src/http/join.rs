//! `GET /j/<code>`: a setup code for a node, given out once to whoever knows the code (pairing notes; release 2026.9.6,
//! `devices join-code`). The code is the credential: it has 128 bits, guesses are limited like guesses at any secret, and
//! used, unknown and expired codes get one and the same answer.
//!
//! Nothing that is stored leads to the token: it is the hash of the code under a label of its own, and the gateway keeps only
//! the hash of the token.

use std::{net::IpAddr, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderValue, Method, Request, StatusCode, header};
use openclaw_protocol::Secret;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::reply::{Response, json_reply};
use crate::{
    auth::{Evidence, rate_limit::CredentialClass},
    clock::now_ms,
    gateway::Gateway,
};

/// Characters of a code: 16 bytes in base64url.
const CODE_CHARS: usize = 22;

/// The code in a request path, also behind the path of a proxy: `/j/<code>`, `/base/j/<code>`. `Some("")` for a bare `/j`.
pub fn code_in(path: &str) -> Option<&str> {
    if path.ends_with("/j") {
        return Some("");
    }
    path.rfind("/j/").and_then(|at| path.get(at + 3..))
}

/// The one-time token that follows from a join code.
pub fn token_of(code: &str) -> Secret {
    let mut hash = Sha256::new();
    hash.update(b"openclaw join code 1\0");
    hash.update(code.as_bytes());
    Secret::new(URL_SAFE_NO_PAD.encode(hash.finalize()))
}

fn is_code(text: &str) -> bool {
    text.len() == CODE_CHARS && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Answers it.
///
/// # Errors
/// Refusals, as answers: 404, 429, 503.
pub async fn answer<B>(
    gateway: &Arc<Gateway>,
    evidence: &Evidence,
    request: &Request<B>,
    code: &str,
) -> Result<Response, Response> {
    let (limits, key, class) = (gateway.runtime.load().limits, evidence.client_key(), CredentialClass::JoinCode);
    if let Err(limited) = gateway.limiter(|limiter| limiter.begin(now_ms(), limits, class, &key)) {
        let mut response = json_reply(StatusCode::TOO_MANY_REQUESTS, &json!({"error": "rate_limited"}));
        let seconds = HeaderValue::from(limited.retry_after_ms.div_ceil(1000));
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
        return Err(response);
    }
    // Link previews ask with HEAD, and a code in the clear on a network is a code for everybody there.
    let proper = request.method() == Method::GET && request.uri().query().is_none() && is_code(code);
    let found = match proper && (gateway.tls.is_some() || evidence.forwarded || evidence.on_loopback()) {
        true => gateway.join(token_of(code)).await,
        false => Ok(None),
    };
    match found {
        Ok(Some((kept, expires_at_ms))) => {
            gateway.limiter(|limiter| limiter.succeed(class, &key));
            tracing::info!(address = %evidence.address_text(), "join code fetched");
            Ok(json_reply(StatusCode::OK, &payload(&kept, code, expires_at_ms)))
        }
        Ok(None) => {
            let wait = gateway.limiter(|limiter| limiter.fail(now_ms(), limits, class, &key));
            if wait > 0 {
                tokio::time::sleep(std::time::Duration::from_millis(wait)).await;
            }
            gateway.limiter(|limiter| limiter.finish(class, &key));
            Err(json_reply(StatusCode::NOT_FOUND, &json!({"error": "not_found"})))
        }
        Err(_) => {
            gateway.limiter(|limiter| limiter.finish(class, &key));
            Err(json_reply(StatusCode::SERVICE_UNAVAILABLE, &json!({"error": "unavailable"})))
        }
    }
}

/// The setup code's own fields, in the reference's order.
fn payload(kept: &str, code: &str, expires_at_ms: i64) -> Value {
    let kept: Map<String, Value> = serde_json::from_str(kept).unwrap_or_default();
    let token = [
        ("bootstrapToken".to_owned(), json!(token_of(code).expose())),
        ("expiresAtMs".to_owned(), json!(expires_at_ms)),
    ];
    let (addresses, rest): (Vec<_>, Vec<_>) = kept.into_iter().partition(|(key, _)| key == "url" || key == "urls");
    Value::Object(addresses.into_iter().chain(token).chain(rest).collect())
}

/// The join URL of a code at the first address that is fit for one: `https://`, or `http://` on this machine.
pub fn url<'a>(socket_urls: impl IntoIterator<Item = &'a String>, code: &Secret) -> Option<Secret> {
    socket_urls.into_iter().find_map(|url| {
        let base = match url.split_once("://")? {
            ("wss", rest) => format!("https://{rest}"),
            ("ws", rest) if is_loopback(url) => format!("http://{rest}"),
            _ => return None,
        };
        Some(Secret::new(format!("{}/j/{}", base.trim_end_matches('/'), code.expose())))
    })
}

/// Whether a URL leads to the machine it is used on.
pub fn is_loopback(url: &str) -> bool {
    let host = url.parse::<http::Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        for (path, expected) in [
            ("/j/abc", Some("abc")),
            ("/base/j/abc", Some("abc")),
            ("/j", Some("")),
            ("/j/", Some("")),
            ("/j/a/j/b", Some("b")),
            ("/", None),
            ("/jx/abc", None),
        ] {
            assert_eq!(code_in(path), expected, "{path}");
        }
        assert!(
            is_code("AAAAAAAAAAAAAAAAAAAA-_")
                && !is_code("AAAAAAAAAAAAAAAAAAAA-")
                && !is_code("AAAAAAAAAAAAAAAAAAAA/_")
        );
    }

    #[test]
    fn urls_for_a_join() {
        let at = |urls: &[&str]| {
            let urls: Vec<String> = urls.iter().map(|url| (*url).to_owned()).collect();
            url(&urls, &Secret::new("c")).map(|url| url.expose().to_owned())
        };
        assert_eq!(at(&["ws://192.168.1.2:1", "wss://gw.example/oc/"]).as_deref(), Some("https://gw.example/oc/j/c"));
        assert_eq!(at(&["ws://127.0.0.1:18789"]).as_deref(), Some("http://127.0.0.1:18789/j/c"));
        assert_eq!(at(&["ws://[::1]:7"]).as_deref(), Some("http://[::1]:7/j/c"));
        assert_eq!(at(&["ws://192.168.1.2:1"]), None);
    }

    #[test]
    fn p_45_the_answer_is_a_setup_code() {
        use openclaw_protocol::SetupCode;
        let kept = json!({"url": "wss://a", "urls": ["wss://a", "wss://b"], "tlsFingerprint": "ab", "role": "node"});
        let answer = payload(&kept.to_string(), "AAAAAAAAAAAAAAAAAAAAAA", 7);
        let keys: Vec<&String> = answer.as_object().expect("object").keys().collect();
        assert_eq!(keys, ["url", "urls", "bootstrapToken", "expiresAtMs", "tlsFingerprint", "role"]);
        let code = SetupCode::parse(&URL_SAFE_NO_PAD.encode(answer.to_string())).expect("a setup code");
        assert_eq!(code.bootstrap_token, token_of("AAAAAAAAAAAAAAAAAAAAAA"));
        assert_ne!(code.bootstrap_token.expose(), "AAAAAAAAAAAAAAAAAAAAAA");
    }
}
