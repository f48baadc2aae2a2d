//! Calls of the Bot API. The only place that sees the token.

use std::{fmt, time::Duration};

use bytes::{Bytes, BytesMut};
use openclaw_protocol::Secret;
use reqwest::{Client, RequestBuilder, multipart::Form, redirect::Policy};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    config::Config,
    types::{Answer, File, User},
};
use crate::channel::SendError;

/// For an answer to an ordinary call; uploads get more.
const CALL: Duration = Duration::from_secs(30);
const UPLOAD: Duration = Duration::from_secs(300);
const CONNECT: Duration = Duration::from_secs(10);
/// Telegram closes idle connections; one that is found closed makes a call whose fate is unknown, so they are left early.
const IDLE: Duration = Duration::from_secs(15);
/// "Too many requests" is waited out in place up to this long in all; longer ones are the caller's.
const PATIENCE: Duration = Duration::from_secs(90);
/// Largest answer to a call.
const MAX_ANSWER: usize = 16 << 20;

/// Between the tries of a download.
const DOWNLOAD_PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];

/// Whether the same may work a little later.
enum Again {
    Yes,
    No,
}

pub(super) struct Api {
    client: Client,
    root: String,
    token: Secret,
}

/// Why a call gave nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ApiError {
    /// Telegram answered no: nothing happened.
    Refused { code: u16, description: String, retry_after: Option<Duration>, migrated_to: Option<i64> },
    /// The request never left.
    NotReached { why: String },
    /// It left, and there is no answer that says what became of it.
    Unknown { why: String },
}

impl ApiError {
    /// As the outcome of a call that nobody sees: it can be repeated.
    pub fn not_sent(&self) -> SendError {
        let retry_after = match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        };
        SendError::NotSent { why: self.to_string(), retry_after }
    }

    /// As the outcome of a call that somebody may have seen.
    pub fn outcome(&self) -> SendError {
        match self {
            Self::Unknown { .. } => SendError::Unknown { why: self.to_string() },
            _ => self.not_sent(),
        }
    }

    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// The description of a refusal holds one of these, in lower case.
    pub fn says(&self, words: &[&str]) -> bool {
        match self {
            Self::Refused { description, .. } => {
                let description = description.to_lowercase();
                words.iter().any(|word| description.contains(word))
            }
            _ => false,
        }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { code: 401, .. } => f.write_str(
                "Telegram does not know this bot token (401). Take the current one from @BotFather, then: openclaw \
                 channels add telegram",
            ),
            Self::Refused { code: 409, description, .. } if description.contains("webhook") => f.write_str(
                "a webhook is set for this bot, so it cannot be polled (409); set channels.telegram.webhookUrl to use it, \
                 or restart the channel to remove it",
            ),
            Self::Refused { code: 409, .. } => f.write_str(
                "another program polls this bot with the same token (409 Conflict). Stop the other gateway or script, or \
                 give this one a bot of its own",
            ),
            Self::Refused { code: 404, .. } => f.write_str(
                "the Bot API server does not know this method (404); is channels.telegram.apiRoot the root of the server, \
                 and the token complete?",
            ),
            Self::Refused { code: 403, description, .. } => {
                write!(f, "Telegram refused it: {description} (the person has to write to the bot, or add it, first)")
            }
            Self::Refused { code, description, .. } => write!(f, "Telegram refused it: {description} ({code})"),
            Self::NotReached { why } => write!(f, "Telegram cannot be reached: {why}"),
            Self::Unknown { why } => write!(f, "no answer from Telegram: {why}"),
        }
    }
}

impl Api {
    pub fn new(config: &Config) -> Result<Self, String> {
        // reqwest is built without a provider of its own; whoever comes first installs it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            .connect_timeout(CONNECT)
            .pool_idle_timeout(IDLE)
            // A redirect would carry the token elsewhere (P-90).
            .redirect(Policy::none())
            .user_agent(concat!("openclaw/", env!("CARGO_PKG_VERSION")));
        let near = ["://127.", "://localhost", "://[::1]"].iter().any(|host| config.api_root.contains(host));
        if let Some(proxy) = &config.proxy {
            let proxy = reqwest::Proxy::all(proxy.expose());
            // The text of the error would hold the address, and with it a password.
            let proxy = proxy.map_err(|_| "channels.telegram.proxy is no proxy URL (http://host:port)".to_owned())?;
            builder = builder.proxy(proxy);
        } else if near {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|error| format!("no HTTP client: {}", chain(&error.without_url())))?;
        Ok(Self { client, root: config.api_root.clone(), token: config.token.clone() })
    }

    pub async fn me(&self) -> Result<User, ApiError> {
        self.call("getMe", &json!({})).await
    }

    /// A call with patience: while Telegram asks to wait, it is waited and repeated, since nothing happened.
    pub async fn call<T: DeserializeOwned>(&self, method: &str, params: &Value) -> Result<T, ApiError> {
        self.patiently(|| self.once(method, params, CALL)).await
    }

    /// As [`Api::call`], with files. The form is made anew for each try.
    pub async fn upload<T: DeserializeOwned>(&self, method: &str, form: impl Fn() -> Form) -> Result<T, ApiError> {
        self.patiently(|| async {
            let request = self.client.post(self.url(method)).multipart(form());
            self.send(request, UPLOAD).await
        })
        .await
    }

    async fn patiently<T, F: Future<Output = Result<T, ApiError>>>(&self, call: impl Fn() -> F) -> Result<T, ApiError> {
        let mut left = PATIENCE;
        loop {
            let outcome = call().await;
            let Err(ApiError::Refused { code: 429, retry_after: Some(pause), .. }) = &outcome else { return outcome };
            // The clock of the other side is not ours: half a second more.
            let pause = *pause + Duration::from_millis(500);
            if pause > left {
                return outcome;
            }
            left -= pause;
            tracing::debug!(seconds = pause.as_secs(), "telegram asks to wait");
            tokio::time::sleep(pause).await;
        }
    }

    /// One try.
    pub async fn once<T: DeserializeOwned>(
        &self,
        method: &str,
        params: &Value,
        timeout: Duration,
    ) -> Result<T, ApiError> {
        self.send(self.client.post(self.url(method)).json(params), timeout).await
    }

    fn url(&self, method: &str) -> String {
        format!("{}/bot{}/{method}", self.root, self.token.expose())
    }

    async fn send<T: DeserializeOwned>(&self, request: RequestBuilder, timeout: Duration) -> Result<T, ApiError> {
        let response = request.timeout(timeout).send().await.map_err(|error| self.failed(error))?;
        let status = response.status();
        let unknown = |why: String| ApiError::Unknown { why };
        let body = self.body(response, MAX_ANSWER).await.map_err(unknown)?;
        let Ok(answer) = serde_json::from_slice::<Answer>(&body) else {
            let why = format!("HTTP {status} without a Bot API answer");
            // What a proxy refuses has not reached Telegram; what breaks inside may have.
            return Err(if status.is_client_error() || status.is_redirection() {
                ApiError::Refused { code: status.as_u16(), description: why, retry_after: None, migrated_to: None }
            } else {
                ApiError::Unknown { why }
            });
        };
        if !answer.ok {
            let description = self.scrub(answer.description);
            if answer.error_code >= 500 || answer.error_code == 0 {
                return Err(ApiError::Unknown { why: format!("{description} ({})", answer.error_code) });
            }
            return Err(ApiError::Refused {
                code: answer.error_code,
                description,
                retry_after: answer.parameters.retry_after.map(Duration::from_secs),
                migrated_to: answer.parameters.migrate_to_chat_id,
            });
        }
        serde_json::from_value(answer.result.unwrap_or_default())
            .map_err(|error| unknown(format!("the answer has another form ({error})")))
    }

    /// Downloads what `getFile` found, at most `limit` bytes.
    ///
    /// # Errors
    /// Why it cannot be had, in words for the conversation.
    pub async fn download(&self, file_id: &str, limit: u64) -> Result<Bytes, String> {
        let mut pauses = DOWNLOAD_PAUSES.iter();
        loop {
            match (self.download_once(file_id, limit).await, pauses.next()) {
                (Err((_, Again::Yes)), Some(pause)) => tokio::time::sleep(*pause).await,
                (outcome, _) => return outcome.map_err(|(why, _)| why),
            }
        }
    }

    async fn download_once(&self, file_id: &str, limit: u64) -> Result<Bytes, (String, Again)> {
        let no = |why: String| (why, Again::No);
        let file: File = self.call("getFile", &json!({"file_id": file_id})).await.map_err(|error| match error {
            ApiError::Refused { .. } if error.says(&["too big"]) => {
                no("the file is larger than bots may download (20 MB)".to_owned())
            }
            ApiError::Refused { .. } => no(error.to_string()),
            _ => (error.to_string(), Again::Yes),
        })?;
        if file.file_size.is_some_and(|size| size > limit) {
            return Err(no(too_large(limit)));
        }
        let path = file.file_path.unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '-' | '.');
        if path.is_empty() || path.starts_with('/') || path.contains("..") || !path.chars().all(plain) {
            return Err(no("the Bot API server gives no path to download it from".to_owned()));
        }
        let url = format!("{}/file/bot{}/{path}", self.root, self.token.expose());
        let response = self.client.get(url).timeout(UPLOAD).send().await;
        let response = response.map_err(|error| (self.failed(error).to_string(), Again::Yes))?;
        let status = response.status();
        if !status.is_success() {
            let again = if status.is_server_error() { Again::Yes } else { Again::No };
            return Err((format!("the download was answered {status}"), again));
        }
        if response.content_length().is_some_and(|length| length > limit) {
            return Err(no(too_large(limit)));
        }
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        self.body(response, limit).await.map_err(|why| (why, Again::Yes))
    }

    async fn body(&self, mut response: reqwest::Response, limit: usize) -> Result<Bytes, String> {
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.scrub(chain(&error.without_url())))? {
            if body.len() + chunk.len() > limit {
                return Err(too_large(limit as u64));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    fn failed(&self, error: reqwest::Error) -> ApiError {
        let never_left = error.is_connect() || error.is_builder();
        let timeout = error.is_timeout();
        let why = self.scrub(chain(&error.without_url()));
        match (never_left, timeout) {
            (true, _) => ApiError::NotReached { why },
            (false, true) => ApiError::Unknown { why: "it took too long".to_owned() },
            (false, false) => ApiError::Unknown { why },
        }
    }

    /// A text from elsewhere, without the token.
    fn scrub(&self, text: String) -> String {
        if text.contains(self.token.expose()) { text.replace(self.token.expose(), "<token>") } else { text }
    }
}

fn too_large(limit: u64) -> String {
    format!("larger than {:.1} MB (channels.telegram.mediaMaxMb)", limit as f64 / 1024.0 / 1024.0)
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = cause.source();
    }
    text
}
