//! Bytes to Discord and back: TLS, the HTTP client, WebSockets, and proxies for both.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use openclaw_protocol::Secret;
use rustls::{ClientConfig, crypto::ring, pki_types::ServerName};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{client::IntoClientRequest as _, protocol::WebSocketConfig},
};
use url::{Host, Url};

/// What the API asks clients to call themselves ("User Agent" in the API reference).
pub const USER_AGENT: &str = concat!("DiscordBot (https://openclaw.ai, ", env!("CARGO_PKG_VERSION"), ")");
/// From the first packet to an open WebSocket.
const DIAL: Duration = Duration::from_secs(20);
/// Largest answer of a proxy to `CONNECT`: 16 KiB.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Largest message of the gateway: a large guild comes whole.
const MAX_FRAME_BYTES: usize = 32 << 20;

/// Where the API is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// Without a slash at the end.
    url: String,
    /// Set for another place than Discord itself: the gateway and files must then be there too.
    host: Option<String>,
}

/// Why a base URL is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BaseError {
    #[error("it is not a URL such as https://discord.example.com/api/v10")]
    NoUrl,
    #[error("it must be https://, except on this machine: the bot token goes there")]
    Plain,
}

impl Base {
    /// Discord itself.
    pub fn discord() -> Self {
        Self { url: "https://discord.com/api/v10".to_owned(), host: None }
    }

    /// Another place that speaks the same (`DISCORD_API_URL`).
    ///
    /// # Errors
    /// [`BaseError`]
    pub fn parse(text: &str) -> Result<Self, BaseError> {
        let url = Url::parse(text.trim()).map_err(|_| BaseError::NoUrl)?;
        let host = url.host_str().ok_or(BaseError::NoUrl)?.to_owned();
        let bare = url.username().is_empty() && url.password().is_none() && url.query().is_none();
        match url.scheme() {
            "https" | "http" if !bare => Err(BaseError::NoUrl),
            "https" => Ok(()),
            "http" if is_loopback(&url) => Ok(()),
            "http" => Err(BaseError::Plain),
            _ => Err(BaseError::NoUrl),
        }?;
        Ok(Self { url: url.as_str().trim_end_matches('/').to_owned(), host: Some(host) })
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    pub fn is_local(&self) -> bool {
        Url::parse(&self.url).is_ok_and(|url| is_loopback(&url))
    }

    /// A WebSocket address that Discord named: TLS, and a host of Discord's, or that of [`Base::parse`].
    pub fn gateway_url(&self, text: &str) -> Option<Url> {
        let mut url = Url::parse(text).ok()?;
        let host = url.host_str()?.to_owned();
        let known = match &self.host {
            Some(own) => *own == host,
            None => host == "discord.gg" || host.ends_with(".discord.gg"),
        };
        let safe = url.scheme() == "wss" || (url.scheme() == "ws" && self.host.is_some() && is_loopback(&url));
        if !known || !safe {
            return None;
        }
        url.set_query(Some("v=10&encoding=json"));
        Some(url)
    }

    /// True for a place where Discord keeps attachments.
    pub fn has_files_at(&self, text: &str) -> bool {
        let Ok(url) = Url::parse(text) else { return false };
        let host = url.host_str().unwrap_or_default();
        match &self.host {
            Some(own) => own == host && (url.scheme() == "https" || is_loopback(&url)),
            None => {
                let known = ["discordapp.com", "discordapp.net", "discord.com"];
                let below =
                    |name: &&str| host.strip_suffix(*name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
                url.scheme() == "https" && known.iter().any(below)
            }
        }
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// `channels.discord.proxy`. It may hold a password.
#[derive(Clone)]
pub struct Proxy {
    url: Secret,
    secure: bool,
    host: String,
    port: u16,
    authorization: Option<Secret>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Proxy({}:{})", self.host, self.port)
    }
}

impl Proxy {
    pub fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
        let login = (!url.username().is_empty()).then(|| {
            let decoded = |text: &str| {
                url::form_urlencoded::parse(format!("x={}", text.replace('+', "%2B")).as_bytes())
                    .next()
                    .map(|(_, value)| value.into_owned())
                    .unwrap_or_default()
            };
            let pair = format!("{}:{}", decoded(url.username()), decoded(url.password().unwrap_or_default()));
            Secret::new(format!("Basic {}", STANDARD.encode(pair)))
        });
        Some(Self {
            secure: url.scheme() == "https",
            host: url.host_str()?.trim_matches(['[', ']']).to_owned(),
            port: url.port_or_known_default()?,
            authorization: login,
            url: Secret::new(text),
        })
    }

    /// True when both are the same, or absent.
    pub fn same(one: Option<&Self>, other: Option<&Self>) -> bool {
        match (one, other) {
            (Some(one), Some(other)) => one.url.matches(other.url.expose()),
            (one, other) => one.is_none() && other.is_none(),
        }
    }
}

/// TLS with the system's trust.
///
/// # Errors
/// The system's store of certificates cannot be read.
fn tls() -> Result<ClientConfig, String> {
    let broken = |error: rustls::Error| format!("the system's certificate store cannot be used ({error})");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(broken)?
        .with_platform_verifier()
        .map_err(broken)?;
    Ok(config.with_no_client_auth())
}

/// The HTTP client: no redirects, which could carry the token elsewhere.
///
/// # Errors
/// No TLS, or no proxy, for a person.
pub fn client(base: &Base, proxy: Option<&Proxy>) -> Result<reqwest::Client, String> {
    let mut builder = reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(10))
        .pool_idle_timeout(Duration::from_secs(60))
        .tls_backend_preconfigured(tls()?);
    if let Some(proxy) = proxy {
        let through = reqwest::Proxy::all(proxy.url.expose());
        builder = builder.proxy(through.map_err(|_| "channels.discord.proxy cannot be used".to_owned())?);
    } else if base.is_local() {
        builder = builder.no_proxy();
    }
    builder.build().map_err(|error| format!("no HTTP client: {}", error.without_url()))
}

/// Bytes in both directions.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

pub struct Bytes(Box<dyn Wire>);

impl AsyncRead for Bytes {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Bytes {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

pub type Socket = WebSocketStream<Bytes>;

/// Opens a WebSocket.
///
/// # Errors
/// What failed, for a person; no URL in it.
pub async fn dial(url: &Url, proxy: Option<&Proxy>) -> Result<Socket, String> {
    tokio::time::timeout(DIAL, open(url, proxy))
        .await
        .unwrap_or_else(|_| Err(format!("no connection to Discord's gateway within {} s", DIAL.as_secs())))
}

async fn open(url: &Url, proxy: Option<&Proxy>) -> Result<Socket, String> {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = url.port_or_known_default().unwrap_or(443);
    let stream = match proxy {
        Some(proxy) => through(proxy, &host, port).await?,
        None => tcp(&host, port).await?,
    };
    let stream = if url.scheme() == "wss" { secure(stream, &host).await? } else { stream };
    let mut request = url.as_str().into_client_request().map_err(|_| "unusable gateway address".to_owned())?;
    request.headers_mut().insert("User-Agent", USER_AGENT.parse().map_err(|_| "no user agent".to_owned())?);
    let config =
        WebSocketConfig::default().max_message_size(Some(MAX_FRAME_BYTES)).max_frame_size(Some(MAX_FRAME_BYTES));
    let opened = client_async_with_config(request, stream, Some(config)).await;
    opened.map(|(socket, _)| socket).map_err(|error| format!("Discord's gateway did not open a WebSocket ({error})"))
}

async fn tcp(host: &str, port: u16) -> Result<Bytes, String> {
    let stream = TcpStream::connect((host, port)).await;
    let stream = stream.map_err(|error| format!("cannot reach {host}:{port} ({error})"))?;
    let _ = stream.set_nodelay(true);
    Ok(Bytes(Box::new(stream)))
}

async fn secure(stream: Bytes, host: &str) -> Result<Bytes, String> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| format!("{host} is no name for TLS"))?;
    let connected = TlsConnector::from(Arc::new(tls()?)).connect(name, stream).await;
    connected.map(|tls| Bytes(Box::new(tls))).map_err(|error| format!("no secure connection to {host} ({error})"))
}

/// `CONNECT` through an HTTP proxy.
async fn through(proxy: &Proxy, host: &str, port: u16) -> Result<Bytes, String> {
    let stream = tcp(&proxy.host, proxy.port).await.map_err(|error| format!("the proxy: {error}"))?;
    let mut stream = if proxy.secure { secure(stream, &proxy.host).await? } else { stream };
    let place = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let login = proxy.authorization.as_ref();
    let login = login.map_or(String::new(), |value| format!("Proxy-Authorization: {}\r\n", value.expose()));
    let request = format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n{login}\r\n");
    let hung_up = |error: std::io::Error| format!("the proxy hung up ({error})");
    stream.write_all(request.as_bytes()).await.map_err(hung_up)?;
    let mut head = Vec::new();
    // One byte at a time: what follows the head belongs to the tunnel.
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MAX_HEAD_BYTES {
            return Err("what answers at channels.discord.proxy is no HTTP proxy".to_owned());
        }
        head.push(stream.read_u8().await.map_err(hung_up)?);
    }
    let text = String::from_utf8_lossy(&head);
    match text.split_whitespace().nth(1) {
        Some(status) if status.starts_with('2') => Ok(stream),
        Some("407") => Err("the proxy wants another user name and password (HTTP 407)".to_owned()),
        Some(status) if text.starts_with("HTTP/") => Err(format!("the proxy answered HTTP {status}")),
        _ => Err("what answers at channels.discord.proxy is no HTTP proxy".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_goes_to_discord_only() {
        let (discord, own) = (Base::discord(), Base::parse("http://127.0.0.1:7/api/v10/").expect("base"));
        let check =
            |base: &Base, url: &str, expected: bool| assert_eq!(base.gateway_url(url).is_some(), expected, "{url}");
        check(&discord, "wss://gateway.discord.gg", true);
        check(&discord, "wss://gateway-us-east1-b.discord.gg/", true);
        check(&discord, "ws://gateway.discord.gg", false);
        check(&discord, "wss://gateway.discord.gg.example", false);
        check(&discord, "wss://notdiscord.gg", false);
        check(&own, "ws://127.0.0.1:9/gateway", true);
        check(&own, "wss://gateway.discord.gg", false);
        assert_eq!(own.url("/gateway/bot"), "http://127.0.0.1:7/api/v10/gateway/bot");
        let url = discord.gateway_url("wss://gateway.discord.gg").expect("fits");
        assert_eq!(url.as_str(), "wss://gateway.discord.gg/?v=10&encoding=json");
    }

    #[test]
    fn p_91_files_come_from_discord_only() {
        let base = Base::discord();
        for (url, expected) in [
            ("https://cdn.discordapp.com/attachments/1/2/a.png?ex=1", true),
            ("https://media.discordapp.net/attachments/1/2/a.png", true),
            ("http://cdn.discordapp.com/a", false),
            ("https://cdn.discordapp.com.evil.example/a", false),
            ("https://evildiscordapp.com/a", false),
            ("https://127.0.0.1/a", false),
            ("file:///etc/passwd", false),
        ] {
            assert_eq!(base.has_files_at(url), expected, "{url}");
        }
    }

    #[test]
    fn proxies() {
        let proxy = Proxy::parse("http://me:p%40ss@proxy.example:8080").expect("proxy");
        assert_eq!((proxy.host.as_str(), proxy.port, proxy.secure), ("proxy.example", 8080, false));
        assert_eq!(proxy.authorization.expect("login").expose(), format!("Basic {}", STANDARD.encode("me:p@ss")));
        assert!(Proxy::parse("socks5://p:1").is_none() && Proxy::parse("p:8080").is_none());
    }
}
