//! What went wrong at a provider, in words a person can act upon, and in kinds a program can.

use std::time::Duration;

use reqwest::{StatusCode, header::HeaderMap};
use serde_json::Value;

use super::{
    ErrorKind, ModelRef, ProviderError,
    endpoint::{Endpoint, KeySource},
};

/// Bytes of a provider's own words that are passed on.
const WORDS_BYTES: usize = 400;

/// An error in a provider's own words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ApiError {
    /// `error.type`, `error.code`: all it says to programs.
    pub codes: Vec<String>,
    pub message: String,
}

impl ApiError {
    /// From any of the shapes in use: `{error: {message, type, code}}`, `{error: "…"}`, `{message, code}`, `{detail}`, or
    /// one of these in an array.
    pub fn parse(body: &Value) -> Option<Self> {
        let body = body.as_array().and_then(|items| items.first()).unwrap_or(body);
        let inner = body.get("error").filter(|inner| !inner.is_null()).unwrap_or(body);
        if let Some(message) = inner.as_str() {
            return Some(Self { codes: Vec::new(), message: message.to_owned() });
        }
        let word = |value: &Value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let codes = ["type", "code", "status"].iter().filter_map(|key| inner.get(*key).and_then(word)).collect();
        let message = ["message", "detail", "msg"].iter().find_map(|key| inner.get(*key)).map(|value| {
            let raw = inner.pointer("/metadata/raw").and_then(Value::as_str).unwrap_or_default();
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            // OpenRouter: "Provider returned error", with what the provider said beside it.
            if raw.is_empty() { text } else { format!("{text}: {raw}") }
        });
        message.map(|message| Self { codes, message })
    }

    fn has(&self, code: &str) -> bool {
        self.codes.iter().any(|have| have == code)
    }

    /// By what it says, when no HTTP status says it: errors in the middle of a stream.
    fn kind(&self) -> Option<ErrorKind> {
        let by_code = self.codes.iter().find_map(|code| {
            Some(match code.as_str() {
                "context_length_exceeded" | "exceed_context_size_error" | "string_above_max_length" => {
                    ErrorKind::ContextLength
                }
                "insufficient_quota"
                | "billing_error"
                | "billing_hard_limit_reached"
                | "authentication_error"
                | "invalid_api_key"
                | "permission_error"
                | "401"
                | "402"
                | "403" => ErrorKind::Auth,
                "rate_limit_error" | "rate_limit_exceeded" | "429" | "RESOURCE_EXHAUSTED" => ErrorKind::RateLimit,
                "overloaded_error" | "api_error" | "timeout_error" | "server_error" | "internal_error" | "500"
                | "502" | "503" | "504" | "529" => ErrorKind::Unavailable,
                "invalid_request_error" | "not_found_error" | "model_not_found" | "invalid_prompt" | "400" | "404" => {
                    ErrorKind::Invalid
                }
                _ => return None,
            })
        });
        if self.is_too_long() { Some(ErrorKind::ContextLength) } else { by_code }
    }

    fn is_too_long(&self) -> bool {
        const WORDS: &[&str] = &[
            "maximum context length",
            "context length exceeded",
            "prompt is too long",
            "input is too long",
            "input too long",
            "exceeds the context",
            "exceed context",
            "exceeds the available context",
            "exceeds the model's context",
            "context window",
            "maximum number of input tokens",
            "maximum number of tokens",
        ];
        let message = self.message.to_ascii_lowercase();
        self.has("context_length_exceeded")
            || self.has("exceed_context_size_error")
            || WORDS.iter().any(|word| message.contains(word))
    }
}

/// One call, for texts about it.
pub(super) struct Call<'a> {
    pub endpoint: &'a Endpoint,
    pub model: &'a ModelRef,
}

impl Call<'_> {
    /// An answer that is no 2xx.
    pub fn status(&self, status: StatusCode, headers: &HeaderMap, body: &str) -> ProviderError {
        let parsed = serde_json::from_str(body).ok().and_then(|body: Value| ApiError::parse(&body));
        let api = parsed.unwrap_or_else(|| ApiError { codes: Vec::new(), message: plain(body) });
        let kind = kind_of(status, &api);
        let error = self.api(kind, &api, Some(status));
        ProviderError { retry_after: retry_after(headers).or(error.retry_after), ..error }
    }

    /// An error that came inside a stream that had begun well.
    pub fn event(&self, api: &ApiError) -> ProviderError {
        self.api(api.kind().unwrap_or(ErrorKind::Unavailable), api, None)
    }

    /// A redirect: never followed, since the key would go along (P-90).
    pub fn redirect(&self, location: Option<&str>) -> ProviderError {
        let to = location.and_then(|text| self.endpoint.base.join("").join(text).ok());
        let to = to.map_or_else(String::new, |url| format!(" to {}", url.origin().ascii_serialization()));
        let message = format!(
            "{} answers with a redirect{to}. It was not followed, because the key would have gone along. If that is where the \
             API is, set models.providers.{}.baseUrl to it.",
            self.place(),
            self.endpoint.provider
        );
        ProviderError { kind: ErrorKind::Invalid, message, retry_after: None }
    }

    /// No answer at all, or not until its end.
    pub fn network(&self, error: &reqwest::Error) -> ProviderError {
        let reason = root_cause(error);
        let hint = if self.endpoint.base.local {
            format!("Is the model server running? `curl {}/models` shows it.", self.endpoint.base)
        } else {
            "Check this machine's connection, DNS and proxy.".to_owned()
        };
        let what = if error.is_connect() { "cannot be reached" } else { "broke the connection" };
        self.error(ErrorKind::Network, format!("{} {what}: {reason}. {hint}", self.place()))
    }

    pub fn silence(&self, waited: Duration) -> ProviderError {
        let message = format!(
            "{} has sent nothing for {} s. If it is only slow, `openclaw config set models.providers.{}.timeoutSeconds {}` gives \
             it longer.",
            self.place(),
            waited.as_secs(),
            self.endpoint.provider,
            waited.as_secs().saturating_mul(2).max(300)
        );
        self.error(ErrorKind::Network, message)
    }

    pub fn too_slow(&self, total: Duration) -> ProviderError {
        let message = format!(
            "{} was not done after {} s, which is models.providers.{}.timeoutSeconds.",
            self.place(),
            total.as_secs(),
            self.endpoint.provider
        );
        self.error(ErrorKind::Network, message)
    }

    /// The stream ended before its end.
    pub fn cut(&self) -> ProviderError {
        self.error(ErrorKind::Unavailable, format!("{} ended the answer before its end.", self.place()))
    }

    pub fn garbage(&self, what: &str) -> ProviderError {
        let message = format!("{} sent what its API does not promise: {what}.", self.place());
        self.error(ErrorKind::Garbage, message)
    }

    /// A 2xx that is no event stream.
    pub fn no_stream(&self, kind: &str, body: &str) -> ProviderError {
        if let Some(api) = serde_json::from_str(body).ok().and_then(|body: Value| ApiError::parse(&body)) {
            return self.event(&api);
        }
        let message = format!(
            "{} answered with {} where an event stream was due. Is models.providers.{}.baseUrl the one of the API (many end \
             in /v1)?",
            self.place(),
            if kind.is_empty() { "something" } else { kind },
            self.endpoint.provider
        );
        self.error(ErrorKind::Invalid, message)
    }

    pub fn bad_key(&self) -> ProviderError {
        let message = format!(
            "The key for {} from {} has characters no HTTP header can carry, a line break perhaps. {}",
            self.endpoint.provider,
            self.endpoint.key_source,
            self.new_key()
        );
        self.error(ErrorKind::Auth, message)
    }

    fn api(&self, kind: ErrorKind, api: &ApiError, status: Option<StatusCode>) -> ProviderError {
        let words = self.words(&api.message);
        let status = status.map_or_else(String::new, |status| format!(" (HTTP {})", status.as_u16()));
        let place = self.place();
        let message = match kind {
            ErrorKind::Auth if is_billing(api) || status.contains("402") => {
                format!(
                    "{place} wants to be paid first{status}{words} Top up the account of the key from {}.",
                    self.source()
                )
            }
            ErrorKind::Auth if status.contains("403") => {
                format!(
                    "{place} does not let this key use {}{status}{words} The key comes from {}.",
                    self.model,
                    self.source()
                )
            }
            ErrorKind::Auth if self.endpoint.key_source == KeySource::None => {
                format!("{place} wants a key{status}{words} {}", self.new_key())
            }
            ErrorKind::Auth => {
                format!("{place} does not accept the key from {}{status}{words} {}", self.source(), self.new_key())
            }
            ErrorKind::RateLimit => format!("{place} says to slow down{status}{words}"),
            ErrorKind::Unavailable | ErrorKind::Network => format!("{place} is in trouble{status}{words}"),
            ErrorKind::ContextLength => format!("The conversation is too long for {}{status}{words}", self.model),
            ErrorKind::Invalid if status.contains("404") => format!(
                "{place} does not know the model {:?}, or nothing is at this address{status}{words} `openclaw models list` \
                 shows the configured ones; models.providers.{}.baseUrl is the address.",
                self.model.model, self.endpoint.provider
            ),
            _ => format!("{place} does not understand the request for {}{status}{words}", self.model),
        };
        let error = self.error(kind, message);
        ProviderError { retry_after: asked_pause(&api.message).filter(|_| kind.is_transient()), ..error }
    }

    fn error(&self, kind: ErrorKind, message: String) -> ProviderError {
        ProviderError { kind, message: self.without_key(message), retry_after: None }
    }

    /// `openai (https://api.openai.com/v1)`
    pub fn place(&self) -> String {
        format!("{} ({})", self.endpoint.provider, self.endpoint.base)
    }

    fn source(&self) -> &KeySource {
        &self.endpoint.key_source
    }

    fn new_key(&self) -> String {
        let provider = &self.endpoint.provider;
        format!(
            "Set a key: `openclaw secrets store set {provider}-key`, then `openclaw config set models.providers.{provider}.apiKey \
             '{{\"source\":\"store\",\"id\":\"{provider}-key\"}}' --strict-json`."
        )
    }

    /// `: "what it said".`, or a full stop.
    fn words(&self, message: &str) -> String {
        let text = plain(message);
        if text.is_empty() { ".".to_owned() } else { format!(": “{text}”.") }
    }

    /// Some providers repeat the key that was wrong.
    fn without_key(&self, text: String) -> String {
        let secrets = self.endpoint.auth.secret().map(|key| key.expose().to_owned()).into_iter();
        let headers = self.endpoint.headers.values().filter_map(|value| value.to_str().ok().map(str::to_owned));
        secrets
            .chain(headers)
            .filter(|secret| secret.len() >= 6)
            .fold(text, |text, secret| text.replace(&secret, "[key]"))
    }
}

fn kind_of(status: StatusCode, api: &ApiError) -> ErrorKind {
    if api.is_too_long() && status != StatusCode::TOO_MANY_REQUESTS {
        return ErrorKind::ContextLength;
    }
    match status.as_u16() {
        401..=403 => ErrorKind::Auth,
        429 if is_billing(api) => ErrorKind::Auth,
        429 => ErrorKind::RateLimit,
        // Groq: more tokens a minute than the account has. Nothing about the model's context.
        413 if api.message.contains("per minute") => ErrorKind::RateLimit,
        413 => ErrorKind::ContextLength,
        408 | 409 | 425 | 500.. => ErrorKind::Unavailable,
        _ if is_billing(api) => ErrorKind::Auth,
        _ => ErrorKind::Invalid,
    }
}

fn is_billing(api: &ApiError) -> bool {
    let message = api.message.to_ascii_lowercase();
    ["insufficient_quota", "billing_error", "billing_hard_limit_reached", "402"].iter().any(|code| api.has(code))
        || message.contains("credit balance is too low")
        || message.contains("insufficient credits")
}

/// `retry-after-ms`, else `retry-after` in seconds or as a date (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let number = |text: &str| text.parse::<f64>().ok();
    let duration = |seconds: f64| Duration::try_from_secs_f64(seconds).ok();
    if let Some(pause) = text("retry-after-ms").and_then(number).and_then(|ms| duration(ms / 1e3)) {
        return Some(pause);
    }
    let text = text("retry-after")?;
    number(text).and_then(duration).or_else(|| {
        let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
        duration(at.duration_since(jiff::Timestamp::now()).as_secs_f64().max(0.0))
    })
}

/// "Please try again in 1.5s", "in 320ms", "in 1m30s".
fn asked_pause(message: &str) -> Option<Duration> {
    let (_, rest) = message.split_once("try again in ")?;
    let (mut seconds, mut number) = (0.0, String::new());
    let mut chars = rest.chars().peekable();
    let mut found = false;
    while let Some(c) = chars.next() {
        match c {
            '0'..='9' => number.push(c),
            '.' if chars.peek().is_some_and(char::is_ascii_digit) => number.push(c),
            ' ' if !number.is_empty() => {}
            'h' | 'm' | 's' => {
                let value: f64 = std::mem::take(&mut number).parse().ok()?;
                let millis = c == 'm' && chars.next_if_eq(&'s').is_some();
                seconds += value
                    * if millis {
                        1e-3
                    } else {
                        [("h", 3600.0), ("m", 60.0)]
                            .iter()
                            .find(|(unit, _)| unit.starts_with(c))
                            .map_or(1.0, |(_, factor)| *factor)
                    };
                found = true;
                if !chars.peek().is_some_and(char::is_ascii_digit) {
                    break;
                }
            }
            _ => break,
        }
    }
    found.then(|| Duration::try_from_secs_f64(seconds).ok()).flatten()
}

/// One line of readable text, cut to [`WORDS_BYTES`].
fn plain(text: &str) -> String {
    let line: Vec<&str> = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty()).collect();
    let line = line.join(" ");
    let line = line.trim_end_matches('.');
    if line.len() <= WORDS_BYTES {
        return line.to_owned();
    }
    let end = (0..=WORDS_BYTES).rev().find(|at| line.is_char_boundary(*at)).unwrap_or_default();
    format!("{}…", &line[..end])
}

/// The innermost reason of an error, without the URL that reqwest puts into its own text.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    let own = std::ptr::addr_eq(cause, std::ptr::from_ref::<dyn std::error::Error>(error));
    if own { "the connection failed".to_owned() } else { cause.to_string() }
}

#[cfg(test)]
mod tests;
