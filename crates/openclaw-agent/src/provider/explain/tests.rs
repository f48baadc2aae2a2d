use openclaw_protocol::Secret;
use reqwest::header::HeaderValue;
use serde_json::json;

use super::*;
use crate::provider::{
    endpoint::Auth,
    testing::{endpoint, reference},
};

fn with_key() -> Endpoint {
    let mut endpoint = endpoint("openai", "https://api.openai.com/v1?secret=query");
    endpoint.auth = Auth::Bearer(Secret::new("sk-proj-abcdef"));
    endpoint.key_source = KeySource::Env("OPENAI_API_KEY".to_owned());
    endpoint
}

fn status(code: u16, body: &str) -> ProviderError {
    let (endpoint, model) = (with_key(), reference("openai/gpt-5.4"));
    let call = Call { endpoint: &endpoint, model: &model };
    call.status(StatusCode::from_u16(code).unwrap(), &HeaderMap::new(), body)
}

/// Bodies as the providers' documentation and servers have them.
#[test]
fn what_providers_say_and_what_is_made_of_it() {
    use ErrorKind::{Auth, ContextLength, Invalid, RateLimit, Unavailable};
    let check = |code: u16, body: &str, kind: ErrorKind, words: &[&str]| {
        let error = status(code, body);
        assert_eq!(error.kind, kind, "{code} {body}: {error}");
        words.iter().for_each(|word| assert!(error.message.contains(word), "{word:?} is missing in: {error}"));
        assert!(!error.message.contains("abcdef") && !error.message.contains("query"), "{error}");
    };
    let openai = |kind: &str, code: &str, message: &str| {
        json!({"error": {"message": message, "type": kind, "param": null, "code": code}}).to_string()
    };
    let anthropic = |kind: &str, message: &str| {
        json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_011"}).to_string()
    };
    check(
        401,
        &openai(
            "invalid_request_error",
            "invalid_api_key",
            "Incorrect API key provided: sk-proj-abcdef. You can find your API key at https://platform.openai.com/account/api-keys.",
        ),
        Auth,
        &[
            "openai (https://api.openai.com/v1)",
            "does not accept the key",
            "OPENAI_API_KEY",
            "HTTP 401",
            "[key]",
            "openclaw config set models.providers.openai.apiKey '{\"source\":\"store\",\"id\":\"openai-key\"}' --strict-json",
        ],
    );
    check(401, &anthropic("authentication_error", "invalid x-api-key"), Auth, &["invalid x-api-key"]);
    check(
        403,
        &anthropic("permission_error", "Your API key does not have permission"),
        Auth,
        &["openai/gpt-5.4", "HTTP 403"],
    );
    check(402, r#"{"error":{"message":"Insufficient credits","code":402}}"#, Auth, &["wants to be paid", "Top up"]);
    check(
        400,
        &anthropic("invalid_request_error", "Your credit balance is too low to access the Anthropic API."),
        Auth,
        &["wants to be paid"],
    );
    check(
        429,
        &openai("insufficient_quota", "insufficient_quota", "You exceeded your current quota"),
        Auth,
        &["wants to be paid"],
    );
    check(
        429,
        &openai("requests", "rate_limit_exceeded", "Rate limit reached for gpt-5.4. Please try again in 1.5s."),
        RateLimit,
        &["slow down"],
    );
    check(429, &anthropic("rate_limit_error", "This request would exceed your rate limit"), RateLimit, &["slow down"]);
    check(
        413,
        r#"{"error":{"message":"Request too large for model on tokens per minute (TPM): Limit 8000, Requested 8098","type":"tokens","code":"rate_limit_exceeded"}}"#,
        RateLimit,
        &[],
    );
    check(
        413,
        &anthropic("request_too_large", "Request exceeds the maximum size"),
        ContextLength,
        &["too long for openai/gpt-5.4"],
    );
    check(
        400,
        &openai(
            "invalid_request_error",
            "context_length_exceeded",
            "This model's maximum context length is 8192 tokens.",
        ),
        ContextLength,
        &[],
    );
    check(
        400,
        &anthropic("invalid_request_error", "prompt is too long: 208310 tokens > 200000 maximum"),
        ContextLength,
        &[],
    );
    check(
        400,
        r#"{"error":{"code":400,"message":"the request exceeds the available context size, try increasing it","type":"exceed_context_size_error","n_prompt_tokens":9000,"n_ctx":4096}}"#,
        ContextLength,
        &[],
    );
    check(
        404,
        &openai("invalid_request_error", "model_not_found", "The model `gpt-9` does not exist"),
        Invalid,
        &["does not know the model \"gpt-5.4\"", "openclaw models list"],
    );
    check(404, r#"{"error":"model \"qwen\" not found, try pulling it first"}"#, Invalid, &["try pulling it first"]);
    check(
        400,
        r#"{"object":"error","message":"[{'loc': ('body',)}]","type":"BadRequestError","param":null,"code":400}"#,
        Invalid,
        &["does not understand"],
    );
    check(422, r#"{"detail":[{"loc":["body","messages"],"msg":"field required"}]}"#, Invalid, &["field required"]);
    check(
        400,
        r#"[{"error":{"code":400,"message":"Invalid JSON payload received.","status":"INVALID_ARGUMENT"}}]"#,
        Invalid,
        &["Invalid JSON payload"],
    );
    check(500, &openai("server_error", "server_error", "The server had an error"), Unavailable, &["in trouble"]);
    check(529, &anthropic("overloaded_error", "Overloaded"), Unavailable, &["Overloaded", "HTTP 529"]);
    check(502, "<html><h1>Bad gateway</h1></html>", Unavailable, &["HTTP 502", "Bad gateway"]);
    check(503, "", Unavailable, &["HTTP 503"]);
    check(
        502,
        r#"{"error":{"message":"Provider returned error","code":502,"metadata":{"raw":"upstream exploded","provider_name":"X"}}}"#,
        Unavailable,
        &["upstream exploded"],
    );
    check(418, &"x".repeat(5_000), Invalid, &["…"]);
}

#[test]
fn errors_inside_streams() {
    use ErrorKind::{Auth, ContextLength, Invalid, RateLimit, Unavailable};
    let (endpoint, model) = (with_key(), reference("openai/gpt-5.4"));
    let call = Call { endpoint: &endpoint, model: &model };
    let check = |codes: &[&str], message: &str, kind: ErrorKind| {
        let api = ApiError { codes: codes.iter().map(|c| (*c).to_owned()).collect(), message: message.to_owned() };
        assert_eq!(call.event(&api).kind, kind, "{codes:?} {message}");
    };
    check(&["overloaded_error"], "Overloaded", Unavailable);
    check(&["error", "rate_limit_exceeded"], "", RateLimit);
    check(&["429"], "", RateLimit);
    check(&["server_error"], "", Unavailable);
    check(&[], "model runner has unexpectedly stopped", Unavailable);
    check(&["authentication_error"], "", Auth);
    check(&["invalid_request_error"], "", Invalid);
    check(&["invalid_request_error", "context_length_exceeded"], "", ContextLength);
    check(&["invalid_request_error"], "Your input exceeds the context window of this model.", ContextLength);
}

#[test]
fn pauses_are_read_from_headers_and_words() {
    let check = |headers: &[(&'static str, &str)], expected: Option<u128>| {
        let headers = headers.iter().map(|(name, value)| {
            (reqwest::header::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        });
        assert_eq!(retry_after(&HeaderMap::from_iter(headers)).map(|pause| pause.as_millis()), expected);
    };
    check(&[("retry-after", "20")], Some(20_000));
    check(&[("retry-after", "1.5")], Some(1_500));
    check(&[("retry-after-ms", "320"), ("retry-after", "1")], Some(320));
    check(&[("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")], Some(0));
    check(&[("retry-after", "soon")], None);
    check(&[("retry-after", "-5")], None);
    check(&[], None);
    let later = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(100);
    let text = later.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let headers = HeaderMap::from_iter([(reqwest::header::RETRY_AFTER, HeaderValue::from_str(&text).unwrap())]);
    let pause = retry_after(&headers).unwrap().as_secs();
    assert!((90..=100).contains(&pause), "{pause}");

    let words = |text: &str, expected: Option<u128>| {
        assert_eq!(asked_pause(text).map(|pause| pause.as_millis()), expected, "{text}");
    };
    words("Limit 30000, Used 29000. Please try again in 1.5s. Visit", Some(1_500));
    words("Please try again in 320ms.", Some(320));
    words("try again in 1m30s", Some(90_000));
    words("Please try again in 6m0s. Need more tokens?", Some(360_000));
    words("try again in 2h1m", Some(7_260_000));
    words("please try again in 20 seconds", Some(20_000));
    words("try again in a while", None);
    words("try again later", None);
    assert_eq!(
        status(429, r#"{"error":{"message":"try again in 2s","code":"rate_limit_exceeded"}}"#).retry_after,
        Some(Duration::from_secs(2))
    );
}

#[test]
fn a_key_in_a_header_of_the_config_stays_out_too() {
    let mut endpoint = endpoint("p", "https://a.test/v1");
    endpoint.headers.insert("x-tenant-key", HeaderValue::from_static("tenant-secret"));
    let model = reference("p/m");
    let call = Call { endpoint: &endpoint, model: &model };
    let error = call.status(StatusCode::BAD_REQUEST, &HeaderMap::new(), r#"{"error":"bad header tenant-secret"}"#);
    assert!(!error.message.contains("tenant-secret") && error.message.contains("[key]"), "{error}");
}
