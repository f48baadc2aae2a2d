//! `web_fetch`: one page of the web, as text (P-91).
//!
//! The model chooses the URL, so the URL is not trusted: only http and https, no credentials, no proxy, nothing of ours is
//! attached. A name is resolved once, all its addresses are judged, and those are what is dialled; so it is at every redirect.

mod address;
mod gate;
mod html;
mod settings;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, future::BoxFuture};
use reqwest::{
    Client, Method, Response, Url,
    header::{ACCEPT, ACCEPT_LANGUAGE, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION},
    redirect,
};
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

pub use address::Policy;
use gate::Gate;
use html::Style;
pub use settings::Settings;

use crate::{
    message::Part,
    tls,
    tool::{Answer, Call, Effects, Tool, ToolSpec},
    untrusted,
};

/// What frames say its answers are from; clients know this name.
const SOURCE: &str = "Web Fetch";
/// To a TCP and TLS connection.
const CONNECT: Duration = Duration::from_secs(10);
/// Pages kept for a while.
const CACHED: usize = 64;
const URL_BYTES: usize = 8 << 10;

/// The tool, or nothing where it is switched off.
pub fn tool(settings: Settings) -> Option<Arc<dyn Tool>> {
    settings.enabled.then(|| Arc::new(Fetch::new(settings, gate::system())) as Arc<dyn Tool>)
}

struct Fetch {
    spec: ToolSpec,
    settings: Settings,
    lookup: gate::Lookup,
    /// Made at first use: reading the system's certificates takes a while. One for http, which needs none.
    clients: [OnceLock<Result<Client, String>>; 2],
    cache: Mutex<HashMap<String, (Instant, Page)>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Arguments {
    url: String,
    extract_mode: Option<String>,
    max_chars: Option<usize>,
}

/// What came back, in words.
#[derive(Clone)]
struct Page {
    url: Url,
    status: u16,
    content_type: String,
    title: Option<String>,
    body: Body,
    /// True when the body goes on.
    cut: bool,
}

#[derive(Clone)]
enum Body {
    Text(String),
    Image { mime: String, data: Bytes },
}

impl Fetch {
    fn new(settings: Settings, lookup: gate::Lookup) -> Self {
        let parameters = json!({
            "type": "object",
            "properties": {
                "url": {"type": "string", "description": "http or https."},
                "extractMode": {"type": "string", "enum": ["markdown", "text"], "description": "markdown if left out."},
                "maxChars": {"type": "integer", "description": format!("Characters of the result, at most {}.", settings.max_chars_cap)},
            },
            "required": ["url"],
        });
        let description =
            "Gets one page of the web as text. Scripts do not run. Addresses of private networks are refused.";
        let spec = ToolSpec { name: "web_fetch".to_owned(), description: description.to_owned(), parameters };
        Self { spec, settings, lookup, clients: Default::default(), cache: Mutex::default() }
    }

    async fn run(&self, call: Call) -> Answer {
        let given: Arguments = match serde_json::from_value(call.arguments) {
            Ok(given) => given,
            Err(error) => return Answer::error(format!("The arguments do not fit: {error}")),
        };
        let started = Instant::now();
        let style = if given.extract_mode.as_deref() == Some("text") { Style::Text } else { Style::Markdown };
        let work = tokio::time::timeout(self.settings.timeout, self.page(&given.url, style));
        let page = tokio::select! {
            biased;
            () = call.cancel.cancelled() => return Answer::error("The fetch was cancelled."),
            page = work => page,
        };
        match page {
            Err(_) => {
                Answer::error(format!("{} did not answer within {} s.", given.url, self.settings.timeout.as_secs()))
            }
            Ok(Err(reason)) => Answer::error(reason),
            Ok(Ok((page, cached))) => {
                let most = given.max_chars.unwrap_or(self.settings.max_chars).clamp(100, self.settings.max_chars_cap);
                answer(&given.url, page, style, most, cached, started.elapsed())
            }
        }
    }

    async fn page(&self, url: &str, style: Style) -> Result<(Page, bool), String> {
        let url = check_url(url)?;
        let key = format!("{style:?} {url}");
        let fresh = |kept: &Instant| kept.elapsed() < self.settings.cache;
        {
            let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            cache.retain(|_, (kept, _)| fresh(kept));
            if let Some((_, page)) = cache.get(&key) {
                return Ok((page.clone(), true));
            }
        }
        let page = self.get(url, style).await?;
        if page.status == 200 && !self.settings.cache.is_zero() {
            let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            if cache.len() >= CACHED
                && let Some(oldest) = cache.iter().min_by_key(|(_, (kept, _))| *kept).map(|(key, _)| key.clone())
            {
                cache.remove(&oldest);
            }
            cache.insert(key, (Instant::now(), page.clone()));
        }
        Ok((page, false))
    }

    async fn get(&self, first: Url, style: Style) -> Result<Page, String> {
        let mut url = first.clone();
        for hop in 0..=self.settings.max_redirects {
            let response = self.send(&url, first.origin() == url.origin()).await?;
            if !response.status().is_redirection() {
                return self.read(response, url, style).await;
            }
            let Some(location) = response.headers().get(LOCATION) else {
                return self.read(response, url, style).await;
            };
            let next = location.to_str().ok().and_then(|text| url.join(text).ok());
            let next = next.ok_or_else(|| format!("{url} leads to something that is no URL."))?;
            url = check_url(next.as_str()).map_err(|reason| format!("{url} leads elsewhere: {reason}"))?;
            tracing::debug!(hop, host = url.host_str(), "a page leads elsewhere");
        }
        Err(format!("{first} leads on and on; {} redirects are followed.", self.settings.max_redirects))
    }

    /// One request. Nothing but what is written here is sent: no cookies, no credentials, no referrer.
    async fn send(&self, url: &Url, own_host: bool) -> Result<Response, String> {
        let gate = Gate { policy: &self.settings.policy };
        gate.url(url)?;
        let mut headers = if own_host { self.settings.headers.clone() } else { HeaderMap::new() };
        headers.insert(ACCEPT, HeaderValue::from_static("text/markdown, text/html;q=0.9, */*;q=0.5"));
        headers.insert(ACCEPT_LANGUAGE, HeaderValue::from_static("en-US,en;q=0.9"));
        let request = self.client(url.scheme() == "https")?.request(Method::GET, url.clone()).headers(headers);
        request.send().await.map_err(|error| explain(url, &error))
    }

    fn client(&self, https: bool) -> Result<&Client, String> {
        let make = || {
            Client::builder()
                .tls_backend_preconfigured(tls::config(https)?)
                .dns_resolver(Arc::new(gate::Resolver::new(self.settings.policy.clone(), Arc::clone(&self.lookup))))
                .no_proxy()
                .redirect(redirect::Policy::none())
                .referer(false)
                .connect_timeout(CONNECT)
                .pool_max_idle_per_host(0)
                .user_agent(&self.settings.user_agent)
                .build()
                .map_err(|error| error.to_string())
        };
        self.clients[usize::from(https)].get_or_init(make).as_ref().map_err(Clone::clone)
    }

    async fn read(&self, response: Response, url: Url, style: Style) -> Result<Page, String> {
        let status = response.status().as_u16();
        let header = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let content_type: String = header.chars().take(256).collect();
        let mut body = BytesMut::new();
        let mut cut = false;
        let mut stream = response.bytes_stream();
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(|error| explain(&url, &error))?;
            let room = self.settings.max_response_bytes - body.len();
            body.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.len() > room {
                cut = true;
                break;
            }
        }
        drop(stream);
        let kind = kind(&content_type, &body);
        let mime = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let (title, body) = match kind {
            Kind::Html => {
                let text = charset(&content_type, &body);
                let page = html::read(&text, style, self.settings.readability);
                (page.title, Body::Text(page.text))
            }
            Kind::Text => (None, Body::Text(charset(&content_type, &body))),
            Kind::Image if !cut => (None, Body::Image { mime, data: body.freeze() }),
            Kind::Image | Kind::Other => {
                let size = if cut { "more than " } else { "" };
                return Err(format!(
                    "{url} is {content_type:?} ({size}{} bytes), which cannot be read as text.",
                    body.len()
                ));
            }
        };
        Ok(Page { url, status, content_type, title, body, cut })
    }
}

impl Tool for Fetch {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn effects(&self) -> Effects {
        Effects::None
    }

    fn source(&self) -> String {
        SOURCE.to_owned()
    }

    fn timeout(&self) -> Duration {
        self.settings.timeout + Duration::from_secs(5)
    }

    fn call(self: Arc<Self>, call: Call) -> BoxFuture<'static, Answer> {
        Box::pin(async move { self.run(call).await })
    }
}

/// A URL that may be asked for, without its fragment.
fn check_url(text: &str) -> Result<Url, String> {
    if text.len() > URL_BYTES {
        return Err("The URL is longer than 8 KiB.".to_owned());
    }
    let mut url =
        Url::parse(text.trim()).map_err(|error| format!("{text:?} is no URL ({error}); it begins with https://"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("{}: only http and https are fetched.", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("The URL holds credentials; they are not sent. Use it without them.".to_owned());
    }
    url.set_fragment(None);
    Ok(url)
}

fn explain(url: &Url, error: &reqwest::Error) -> String {
    let mut reason = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        reason = cause.to_string();
        source = cause.source();
    }
    let host = url.host_str().unwrap_or_default();
    format!("{url} was not fetched: {}", if error.is_timeout() { format!("{host} is silent") } else { reason })
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Html,
    Text,
    Image,
    Other,
}

/// By what it is said to be; by its look when nothing is said.
fn kind(content_type: &str, body: &[u8]) -> Kind {
    let mime = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match mime.as_str() {
        "text/html" | "application/xhtml+xml" => Kind::Html,
        "image/png" | "image/jpeg" | "image/gif" | "image/webp" => Kind::Image,
        "application/json"
        | "application/xml"
        | "application/javascript"
        | "application/ecmascript"
        | "application/x-ndjson"
        | "application/jsonl"
        | "application/yaml"
        | "application/x-yaml"
        | "application/toml"
        | "application/sql"
        | "application/graphql"
        | "application/x-sh"
        | "application/rtf"
        | "image/svg+xml" => Kind::Text,
        mime if mime.starts_with("text/") || mime.ends_with("+json") || mime.ends_with("+xml") => Kind::Text,
        "" | "application/octet-stream" | "binary/octet-stream" => {
            let start = &body[..body.len().min(1024)];
            if start.contains(&0) || std::str::from_utf8(start).is_err_and(|error| error.error_len().is_some()) {
                Kind::Other
            } else if String::from_utf8_lossy(start).to_ascii_lowercase().contains("<html") {
                Kind::Html
            } else {
                Kind::Text
            }
        }
        _ => Kind::Other,
    }
}

/// UTF-8, or Windows-1252 where the page says Latin 1: the two that are left in the wild.
fn charset(content_type: &str, body: &[u8]) -> String {
    let declared = |text: &str| {
        let at = text.to_ascii_lowercase().find("charset=")? + 8;
        let name = text[at..].trim_start_matches(['"', '\'']);
        let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_').unwrap_or(name.len());
        Some(name[..end].to_ascii_lowercase())
    };
    let start = String::from_utf8_lossy(&body[..body.len().min(1024)]);
    let charset = declared(content_type).or_else(|| declared(&start));
    match charset.as_deref() {
        Some("iso-8859-1" | "latin1" | "windows-1252" | "us-ascii") if std::str::from_utf8(body).is_err() => {
            body.iter().map(|byte| windows_1252(*byte)).collect()
        }
        _ => String::from_utf8_lossy(body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)).into_owned(),
    }
}

fn windows_1252(byte: u8) -> char {
    const UPPER: [char; 32] = [
        '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}', '‘',
        '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
    ];
    match byte {
        0x80..=0x9f => UPPER[usize::from(byte - 0x80)],
        byte => byte.into(),
    }
}

fn answer(asked: &str, page: Page, style: Style, most: usize, cached: bool, took: Duration) -> Answer {
    let Page { url, status, content_type, title, body, cut } = page;
    let mut head = format!("{url} ({status}, {content_type})");
    if let Some(title) = &title {
        head.push_str(&format!("\nTitle: {}", title.chars().take(256).collect::<String>()));
    }
    let (content, length, truncated) = match body {
        Body::Text(text) => {
            let length = text.chars().count();
            // The bound is in characters; this many bytes hold about as many.
            let shown = if length > most { untrusted::cut(&text, text.len() * most / length) } else { text };
            let empty = if shown.is_empty() { "(no text; the page may draw itself with scripts)" } else { "" };
            let more = if cut { "\n[The page goes on; it was cut at the size that is fetched.]" } else { "" };
            (vec![Part::Text(format!("{head}\n\n{shown}{empty}{more}"))], length, cut || length > most)
        }
        Body::Image { mime, data } => {
            let length = data.len();
            (vec![Part::Text(head), Part::Image { mime, data }], length, false)
        }
    };
    let details = json!({
        "url": asked, "finalUrl": url.as_str(), "status": status, "contentType": content_type, "title": title,
        "extractMode": if style == Style::Text { "text" } else { "markdown" },
        "length": length, "truncated": truncated, "cached": cached, "tookMs": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    });
    Answer { content, is_error: status >= 400, details: Some(details) }
}
