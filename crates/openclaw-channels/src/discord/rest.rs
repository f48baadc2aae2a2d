//! Requests to the API: patience with rate limits, and certainty about what became of a send.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use openclaw_protocol::Secret;
use reqwest::{Method, StatusCode, header::HeaderMap, multipart};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::{
    api::{self, ErrorBody, GatewayBot, MessageBody, User},
    config::Settings,
    limits::{self, Limits, Route, Told},
    net::{self, Base},
};
use crate::{channel::SendError, message::Media};

/// For one request, uploads included.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest total wait for rate limits before the sender is told.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// Attempts of a request that may be repeated.
const ATTEMPTS: u32 = 4;
/// Largest answer that is read, except files: 8 MiB.
const MAX_ANSWER_BYTES: usize = 8 << 20;

/// See the module documentation.
pub struct Rest {
    /// The error says why there is no client: then nothing can be sent.
    client: Result<reqwest::Client, String>,
    base: Base,
    token: Secret,
    limits: Mutex<Limits>,
    /// Discord does not take the token. It bans who goes on asking, so nothing is asked any more.
    refused: AtomicBool,
}

/// How a request counts and whether it may be repeated when nobody knows what became of it.
struct Ask<'a> {
    method: Method,
    path: String,
    route: Route,
    body: Body<'a>,
    /// A second time does no more than the first.
    repeatable: bool,
    /// With the bot's token.
    as_bot: bool,
}

enum Body<'a> {
    None,
    Json(Vec<u8>),
    /// The JSON part and the files.
    Form(Vec<u8>, &'a [Media]),
}

/// What became of one attempt.
enum Attempt {
    Answered(Bytes),
    /// Wait, then again; nothing happened.
    Wait(Duration),
    /// Nothing happened, but it may be different next time.
    Failed(String),
    /// It left, and no answer came.
    Unknown(String),
    Refused(SendError),
}

impl Rest {
    pub fn new(settings: &Settings) -> Self {
        Self {
            client: net::client(&settings.base, settings.proxy.as_ref()),
            base: settings.base.clone(),
            token: settings.token.clone(),
            limits: Mutex::default(),
            refused: AtomicBool::new(false),
        }
    }

    /// True once Discord has said that it does not take the token.
    pub fn token_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// Discord has said so on the gateway.
    pub fn refuse_token(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    /// Where the gateway is, and how many sessions may still be started.
    pub async fn gateway_bot(&self) -> Result<GatewayBot, SendError> {
        self.get("/gateway/bot".to_owned(), route("gateway", "")).await
    }

    /// Who the token belongs to.
    pub async fn me(&self) -> Result<User, SendError> {
        self.get("/users/@me".to_owned(), route("me", "")).await
    }

    pub async fn channel(&self, id: &str) -> Result<api::Channel, SendError> {
        self.get(format!("/channels/{}", snowflake(id)?), route("channel", id)).await
    }

    /// The direct chat with a user.
    pub async fn open_dm(&self, user: &str) -> Result<api::Channel, SendError> {
        let body = serde_json::json!({"recipient_id": snowflake(user)?});
        let ask = Ask {
            repeatable: true,
            ..Ask::new(Method::POST, "/users/@me/channels".to_owned(), route("dm", "")).json(&body)?
        };
        parsed(&self.ask(ask).await?)
    }

    /// Sends a message; returns its id. The nonce makes Discord answer a repetition with the first message ("Create Message",
    /// `enforce_nonce`), so a send whose answer was lost is repeated until it is known.
    pub async fn create(&self, channel: &str, body: &MessageBody, files: &[Media]) -> Result<String, SendError> {
        let path = format!("/channels/{}/messages", snowflake(channel)?);
        let ask = Ask::new(Method::POST, path, route("create message", channel)).message(body, files)?;
        let answer = self.ask(Ask { repeatable: body.enforce_nonce, ..ask }).await?;
        let id = serde_json::from_slice::<api::Id>(&answer);
        id.map(|id| id.id).map_err(|_| SendError::Unknown {
            why: "Discord took the message and did not name it; it may have been sent".to_owned(),
        })
    }

    pub async fn edit(&self, channel: &str, id: &str, body: &MessageBody) -> Result<(), SendError> {
        let path = format!("/channels/{}/messages/{}", snowflake(channel)?, snowflake(id)?);
        let ask = Ask::new(Method::PATCH, path, route("edit message", channel)).message(body, &[])?;
        self.ask(Ask { repeatable: true, ..ask }).await.map(drop)
    }

    pub async fn delete(&self, channel: &str, id: &str) -> Result<(), SendError> {
        let path = format!("/channels/{}/messages/{}", snowflake(channel)?, snowflake(id)?);
        let ask = Ask::new(Method::DELETE, path, route("delete message", channel));
        self.ask(Ask { repeatable: true, ..ask }).await.map(drop)
    }

    /// Puts a reaction of ours on a message or takes it away.
    pub async fn react(&self, channel: &str, id: &str, emoji: &str, on: bool) -> Result<(), SendError> {
        // `<:name:id>` is how it stands in texts; the path wants `name:id`.
        let emoji = emoji.trim_matches(['<', '>']).trim_start_matches("a:").trim_start_matches(':');
        let emoji: String = url::form_urlencoded::byte_serialize(emoji.as_bytes()).collect();
        let path = format!("/channels/{}/messages/{}/reactions/{emoji}/@me", snowflake(channel)?, snowflake(id)?);
        let method = if on { Method::PUT } else { Method::DELETE };
        let ask = Ask::new(method, path, route("reaction", channel));
        self.ask(Ask { repeatable: true, ..ask }).await.map(drop)
    }

    /// One attempt, whatever comes of it.
    pub async fn typing(&self, channel: &str) {
        let Ok(id) = snowflake(channel) else { return };
        let ask = Ask::new(Method::POST, format!("/channels/{id}/typing"), route("typing", channel));
        let place = self.lock().take(Instant::now(), &ask.route);
        if place.is_ok() {
            let _ = self.attempt(&ask).await;
        }
    }

    /// Answers an interaction, for the first time. `kind` as in "Interaction Callback Type".
    pub async fn answer(&self, id: &str, token: &str, kind: u8, data: Option<&MessageBody>) -> Result<(), SendError> {
        let body = serde_json::json!({"type": kind, "data": data});
        let path = format!("/interactions/{}/{}/callback", snowflake(id)?, word(token)?);
        let ask = Ask::new(Method::POST, path, route("interaction", id)).json(&body)?;
        // A second answer would be refused, so repeating does no harm. It carries its own authority.
        self.ask(Ask { repeatable: true, as_bot: false, ..ask }).await.map(drop)
    }

    /// Changes the message of an answered interaction.
    pub async fn edit_answered(&self, app: &str, token: &str, body: &MessageBody) -> Result<(), SendError> {
        let path = format!("/webhooks/{}/{}/messages/@original", snowflake(app)?, word(token)?);
        let ask = Ask::new(Method::PATCH, path, route("interaction message", token)).json(body)?;
        self.ask(Ask { repeatable: true, as_bot: false, ..ask }).await.map(drop)
    }

    /// Says something more to an answered interaction.
    pub async fn follow_up(&self, app: &str, token: &str, body: &MessageBody) -> Result<(), SendError> {
        let path = format!("/webhooks/{}/{}", snowflake(app)?, word(token)?);
        let ask = Ask::new(Method::POST, path, route("interaction follow-up", token)).json(body)?;
        self.ask(Ask { as_bot: false, ..ask }).await.map(drop)
    }

    /// A file of a message, at most `limit` bytes, without the token.
    ///
    /// # Errors
    /// Why it was not taken, for whoever reads the message.
    pub async fn file(&self, url: &str, limit: u64) -> Result<Bytes, String> {
        if !self.base.has_files_at(url) {
            return Err("it is not at Discord".to_owned());
        }
        let client = self.client.as_ref().map_err(Clone::clone)?;
        let failed = |error: reqwest::Error| format!("it could not be fetched ({})", error.without_url());
        let mut response = client.get(url).timeout(PATIENCE).send().await.map_err(failed)?;
        if !response.status().is_success() {
            return Err(format!("Discord answered HTTP {}", response.status().as_u16()));
        }
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut data = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(failed)? {
            if data.len() + piece.len() > limit {
                return Err(format!("it is larger than {} MB", limit >> 20));
            }
            data.extend_from_slice(&piece);
        }
        Ok(data.into())
    }

    async fn get<T: DeserializeOwned>(&self, path: String, route: Route) -> Result<T, SendError> {
        let ask = Ask { repeatable: true, ..Ask::new(Method::GET, path, route) };
        parsed(&self.ask(ask).await?)
    }

    /// Asks until there is an answer, nothing helps, or too much time has gone.
    async fn ask(&self, ask: Ask<'_>) -> Result<Bytes, SendError> {
        let mut waited = Duration::ZERO;
        let mut tries = 0;
        // Set when an attempt may have done its work: then "not sent" can no longer be said.
        let mut doubt: Option<String> = None;
        loop {
            let place = self.lock().take(Instant::now(), &ask.route);
            let outcome = match place {
                Err(wait) => Attempt::Wait(wait),
                Ok(()) => {
                    tries += 1;
                    self.attempt(&ask).await
                }
            };
            let backoff = Duration::from_millis(250) * 2_u32.saturating_pow(tries.min(6));
            let (wait, why) = match outcome {
                Attempt::Answered(body) => return Ok(body),
                Attempt::Refused(error) => return Err(error),
                Attempt::Wait(wait) => (wait, None),
                Attempt::Failed(why) if tries < ATTEMPTS => (backoff, Some(why)),
                Attempt::Unknown(why) if tries < ATTEMPTS && ask.repeatable => {
                    doubt = Some(why.clone());
                    (backoff, Some(why))
                }
                Attempt::Unknown(why) => return Err(SendError::Unknown { why }),
                Attempt::Failed(why) => {
                    return Err(match doubt {
                        Some(doubt) => SendError::Unknown { why: doubt },
                        None => SendError::NotSent { why, retry_after: None },
                    });
                }
            };
            waited += wait;
            if waited > MAX_WAIT {
                return Err(match doubt {
                    Some(why) => SendError::Unknown { why },
                    None => SendError::NotSent {
                        why: why.unwrap_or_else(|| "Discord's rate limit is used up".to_owned()),
                        retry_after: Some(wait),
                    },
                });
            }
            tokio::time::sleep(wait).await;
        }
    }

    async fn attempt(&self, ask: &Ask<'_>) -> Attempt {
        let client = match &self.client {
            Ok(client) => client,
            Err(why) => return Attempt::Refused(SendError::NotSent { why: why.clone(), retry_after: None }),
        };
        let mut request = client.request(ask.method.clone(), self.base.url(&ask.path)).timeout(PATIENCE);
        if ask.as_bot {
            if self.token_refused() {
                let why = refusal(StatusCode::UNAUTHORIZED, &ErrorBody::default());
                return Attempt::Refused(SendError::NotSent { why, retry_after: None });
            }
            request = request.header("Authorization", format!("Bot {}", self.token.expose()));
        }
        request = match &ask.body {
            Body::None if ask.method == Method::GET => request,
            Body::None => request.header("Content-Length", "0"),
            Body::Json(json) => request.header("Content-Type", "application/json").body(json.clone()),
            Body::Form(json, files) => match form(json, files) {
                Ok(form) => request.multipart(form),
                Err(why) => return Attempt::Refused(SendError::NotSent { why, retry_after: None }),
            },
        };
        let mut response = match request.send().await {
            Ok(response) => response,
            // The paths may hold an interaction's token.
            Err(error) => {
                let (early, error) = (error.is_connect() || error.is_builder(), error.without_url());
                let why = format!("Discord cannot be reached ({})", root(&error));
                return if early { Attempt::Failed(why) } else { Attempt::Unknown(why) };
            }
        };
        let (status, now) = (response.status(), Instant::now());
        self.lock().told(now, &ask.route, &told(response.headers()));
        let retry_after = header(response.headers(), "retry-after").and_then(|text| text.parse().ok());
        let global = response.headers().contains_key("x-ratelimit-global");
        let body = match read(&mut response).await {
            Ok(body) => body,
            Err(why) if status.is_success() => return Attempt::Unknown(why),
            Err(_) => Bytes::new(),
        };
        if status.is_success() {
            return Attempt::Answered(body);
        }
        let error: ErrorBody = serde_json::from_slice(&body).unwrap_or_default();
        match status {
            StatusCode::TOO_MANY_REQUESTS => {
                let after = error.retry_after.or(retry_after).and_then(limits::seconds);
                let after = after.unwrap_or(Duration::from_secs(5));
                tracing::debug!(route = ask.route.name, ?after, "Discord asks for patience");
                self.lock().refused(now, &ask.route, after, global || error.global);
                Attempt::Wait(after)
            }
            // A proxy in front says that nobody took it; anything else may have happened half way.
            StatusCode::SERVICE_UNAVAILABLE => Attempt::Failed(server_trouble(status)),
            status if status.is_server_error() => Attempt::Unknown(server_trouble(status)),
            StatusCode::UNAUTHORIZED if ask.as_bot => {
                self.refuse_token();
                Attempt::Refused(SendError::NotSent { why: refusal(status, &error), retry_after: None })
            }
            status => Attempt::Refused(SendError::NotSent { why: refusal(status, &error), retry_after: None }),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Limits> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> Ask<'a> {
    fn new(method: Method, path: String, route: Route) -> Self {
        Self { method, path, route, body: Body::None, repeatable: false, as_bot: true }
    }

    fn json(mut self, body: &impl serde::Serialize) -> Result<Self, SendError> {
        self.body = Body::Json(to_vec(body)?);
        Ok(self)
    }

    fn message(mut self, body: &MessageBody, files: &'a [Media]) -> Result<Self, SendError> {
        let json = to_vec(body)?;
        self.body = if files.is_empty() { Body::Json(json) } else { Body::Form(json, files) };
        Ok(self)
    }
}

fn to_vec(body: &impl serde::Serialize) -> Result<Vec<u8>, SendError> {
    serde_json::to_vec(body).map_err(|error| SendError::NotSent { why: error.to_string(), retry_after: None })
}

fn route(name: &'static str, major: &str) -> Route {
    Route { name, major: major.to_owned() }
}

fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, SendError> {
    serde_json::from_slice(body).map_err(|error| SendError::NotSent {
        why: format!("Discord's answer cannot be read ({error})"),
        retry_after: None,
    })
}

/// An id that may stand in a path.
fn snowflake(text: &str) -> Result<&str, SendError> {
    api::is_snowflake(text).then_some(text).ok_or_else(|| SendError::NotSent {
        why: "that is no Discord id; ids are numbers such as 123456789012345678 (Developer Mode → Copy ID)".to_owned(),
        retry_after: None,
    })
}

/// An interaction's token, as it may stand in a path.
fn word(token: &str) -> Result<&str, SendError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.=".contains(&byte);
    (!token.is_empty() && token.bytes().all(fits) && token != "." && token != "..")
        .then_some(token)
        .ok_or_else(|| SendError::NotSent { why: "the interaction has no usable token".to_owned(), retry_after: None })
}

fn form(json: &[u8], files: &[Media]) -> Result<multipart::Form, String> {
    let broken = |_| "the file has a type that is none".to_owned();
    let part = multipart::Part::bytes(json.to_vec()).mime_str("application/json").map_err(broken)?;
    let mut form = multipart::Form::new().part("payload_json", part);
    for (number, file) in files.iter().enumerate() {
        let part = multipart::Part::stream_with_length(file.data.clone(), file.data.len() as u64);
        let part = part.file_name(super::send::file_name(file, number));
        let part = part.mime_str(&file.mime).or_else(|_| {
            multipart::Part::stream_with_length(file.data.clone(), file.data.len() as u64)
                .file_name(super::send::file_name(file, number))
                .mime_str("application/octet-stream")
        });
        form = form.part(format!("files[{number}]"), part.map_err(broken)?);
    }
    Ok(form)
}

async fn read(response: &mut reqwest::Response) -> Result<Bytes, String> {
    let mut data = Vec::new();
    loop {
        match response.chunk().await {
            Ok(None) => return Ok(data.into()),
            Ok(Some(piece)) if data.len() + piece.len() <= MAX_ANSWER_BYTES => data.extend_from_slice(&piece),
            Ok(Some(_)) => return Err("Discord's answer is too large".to_owned()),
            Err(error) => return Err(format!("Discord's answer was cut ({})", root(&error.without_url()))),
        }
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn told(headers: &HeaderMap) -> Told {
    Told {
        bucket: header(headers, "x-ratelimit-bucket").map(str::to_owned),
        remaining: header(headers, "x-ratelimit-remaining").and_then(|text| text.parse().ok()),
        reset_after: header(headers, "x-ratelimit-reset-after").and_then(|text| text.parse().ok()),
    }
}

/// The innermost cause, which says most.
fn root(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

fn server_trouble(status: StatusCode) -> String {
    format!("Discord has trouble (HTTP {})", status.as_u16())
}

/// Why Discord refused, and what helps.
fn refusal(status: StatusCode, error: &ErrorBody) -> String {
    let help = match (status, error.code) {
        (StatusCode::UNAUTHORIZED, _) => {
            "the bot token is not accepted. Take a new one in the Developer Portal (Bot, Reset Token), then: openclaw \
             channels add discord"
        }
        (_, 50_001) => "the bot cannot see that channel; let its role view it",
        (_, 50_007) => {
            "that user takes no direct messages from the bot; he has to share a server with it and allow them"
        }
        (_, 50_013) => "the bot lacks a permission there (Send Messages, Attach Files, Embed Links, Add Reactions)",
        (_, 10_003) => "there is no such channel",
        (_, 10_008) => "there is no such message",
        (_, 10_062) => "the interaction is over: it was not answered in time",
        (_, 40_005) | (StatusCode::PAYLOAD_TOO_LARGE, _) => "the file is too large for Discord",
        _ => "",
    };
    let said: String = error.message.chars().filter(|c| !c.is_control()).take(200).collect();
    let status = status.as_u16();
    match (help, said.as_str()) {
        ("", "") => format!("Discord refused it (HTTP {status})"),
        ("", said) => format!("Discord refused it: {said} (HTTP {status}, code {})", error.code),
        (help, _) => format!("{help} (HTTP {status}, code {})", error.code),
    }
}
