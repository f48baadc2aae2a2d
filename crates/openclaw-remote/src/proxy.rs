//! HTTP proxies between here and a gateway: which one the environment names, and `CONNECT` through it.
//!
//! Only `wss://` goes through a proxy, so that it sees nothing but the name of the host; `ws://` is for private networks
//! and stays there. Loopback is never proxied. Only the environment of this process counts, no file.

use std::{fmt, io};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use openclaw_config::gateway::Network;
use openclaw_protocol::Secret;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    dial::{Stream, race, resolve, server_name},
    error::Error,
    tls::{self, TlsFailure},
    url::{GatewayUrl, Host},
};

/// Where a proxy may be named, the first one set winning. Lower case goes first, as in curl and OpenClaw.
pub const VARIABLES: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
/// Where hosts are excepted; both count.
pub const EXCEPTIONS: [&str; 2] = ["no_proxy", "NO_PROXY"];
/// Largest answer to `CONNECT`: 16 KiB.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Why a proxy did not let a connection through.
#[derive(Debug, thiserror::Error)]
pub enum ProxyFailure {
    #[error("{variable} does not hold a URL such as http://proxy.example:3128")]
    Address { variable: &'static str },
    #[error("{variable} names a {scheme} proxy, and only http:// and https:// ones can be used")]
    Scheme { variable: &'static str, scheme: String },
    #[error("its name could not be resolved ({0})")]
    Name(String),
    #[error("it cannot be reached ({0})")]
    Connect(io::Error),
    #[error("no secure connection to it ({0})")]
    Tls(TlsFailure),
    #[error("it wants a user name and a password (HTTP 407)")]
    LoginMissing,
    #[error("it does not take the user name and password in {variable} (HTTP 407)")]
    LoginRefused { variable: &'static str },
    #[error("it answered HTTP {0}")]
    Status(u16),
    #[error("what answered is no HTTP proxy")]
    NotAProxy,
    #[error("it hung up ({0})")]
    HungUp(io::Error),
}

/// How a gateway is reached.
#[derive(Debug)]
pub enum Choice {
    Direct(Bypass),
    Through(Proxy),
}

/// Why no proxy is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bypass {
    /// `ws://` goes to private networks only.
    Plaintext,
    /// Loopback, or an address of the local link.
    ThisMachine,
    /// An entry of `NO_PROXY`.
    Excepted(String),
    /// No variable names a proxy.
    NotSet,
}

impl fmt::Display for Bypass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plaintext => f.write_str("direct: ws:// does not go through a proxy"),
            Self::ThisMachine => f.write_str("direct: a local address"),
            Self::Excepted(entry) => write!(f, "direct: NO_PROXY has {entry}"),
            Self::NotSet => f.write_str("direct: no proxy is set"),
        }
    }
}

/// A proxy. Its user name and password are a secret and appear in no text.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// The variable that names it.
    pub variable: &'static str,
    /// Scheme, host and port; `ws` and `wss` stand for `http` and `https`.
    url: GatewayUrl,
    authorization: Option<Secret>,
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.url.is_secure() { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", self.url.host(), self.url.port())
    }
}

/// What the environment says about proxies.
#[derive(Debug)]
pub struct Proxies {
    named: Option<(&'static str, Secret)>,
    exceptions: Vec<Exception>,
}

impl Proxies {
    /// Reads the environment of this process.
    pub fn of_process() -> Self {
        Self::read(|name| std::env::var(name).ok())
    }

    /// Reads variables.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        let named = VARIABLES.iter().find_map(|name| Some((*name, Secret::from_input(&variable(name)?)?)));
        let lists: Vec<String> = EXCEPTIONS.iter().filter_map(|name| variable(name)).collect();
        let entries = lists.iter().flat_map(|list| list.split([',', ' ', '\t', '\n'])).map(str::trim);
        Self { named, exceptions: entries.filter(|entry| !entry.is_empty()).map(Exception::parse).collect() }
    }

    /// How to reach `url`.
    ///
    /// # Errors
    /// [`ProxyFailure::Address`] and [`ProxyFailure::Scheme`]: going around a proxy that was meant is not ours to decide.
    pub fn choose(&self, url: &GatewayUrl) -> Result<Choice, ProxyFailure> {
        if !url.is_secure() {
            return Ok(Choice::Direct(Bypass::Plaintext));
        }
        let local = match url.host() {
            Host::Name(name) => name.ends_with(".localhost"),
            Host::Scoped(..) => true,
            Host::Ip(_) => false,
        };
        if local || url.is_loopback() {
            return Ok(Choice::Direct(Bypass::ThisMachine));
        }
        let Some((variable, text)) = &self.named else { return Ok(Choice::Direct(Bypass::NotSet)) };
        match self.exceptions.iter().find(|exception| exception.covers(url)) {
            Some(exception) => Ok(Choice::Direct(Bypass::Excepted(exception.text.clone()))),
            None => Proxy::parse(variable, text.expose()).map(Choice::Through),
        }
    }
}

impl Proxy {
    /// `[scheme://][user[:password]@]host[:port][/]`; no scheme means http.
    fn parse(variable: &'static str, text: &str) -> Result<Self, ProxyFailure> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let scheme = scheme.to_ascii_lowercase();
        if !["http", "https"].contains(&scheme.as_str()) {
            let plain = scheme.len() <= 16 && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+');
            let scheme = if plain { scheme } else { "strange".to_owned() };
            return Err(ProxyFailure::Scheme { variable, scheme });
        }
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (login, host) = match authority.rsplit_once('@') {
            Some((login, host)) => (Some(login), host),
            None => (None, authority),
        };
        let url = GatewayUrl::parse(&format!("{scheme}://{host}")).map_err(|_| ProxyFailure::Address { variable })?;
        let authorization = login.filter(|login| !login.is_empty()).map(|login| {
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            let login = [percent_decoded(user), b":".to_vec(), percent_decoded(password)].concat();
            Secret::new(format!("Basic {}", STANDARD.encode(login)))
        });
        Ok(Self { variable, url, authorization })
    }

    /// Opens a byte stream to `target` through the proxy.
    ///
    /// # Errors
    /// See [`ProxyFailure`].
    pub(crate) async fn open(&self, target: &GatewayUrl) -> Result<Stream, ProxyFailure> {
        let addresses = resolve(&self.url).await.map_err(|error| ProxyFailure::Name(deepest(&error)))?;
        let tcp = race(addresses).await.map_err(ProxyFailure::Connect)?;
        tcp.set_nodelay(true).map_err(ProxyFailure::Connect)?;
        let mut stream = Stream::Tcp(tcp);
        if self.url.is_secure() {
            let server = server_name(&self.url).map_err(|error| ProxyFailure::Name(deepest(&error)))?;
            let tls = tls::connect(stream, server, None).await.map_err(ProxyFailure::Tls)?;
            stream = Stream::Tls(Box::new(tls));
        }
        let authority = format!("{}:{}", target.host(), target.port());
        let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n");
        if let Some(authorization) = &self.authorization {
            request.push_str(&format!("Proxy-Authorization: {}\r\n", authorization.expose()));
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await.map_err(ProxyFailure::HungUp)?;
        stream.flush().await.map_err(ProxyFailure::HungUp)?;
        match answer(&mut stream).await? {
            200..=299 => Ok(stream),
            407 if self.authorization.is_some() => Err(ProxyFailure::LoginRefused { variable: self.variable }),
            407 => Err(ProxyFailure::LoginMissing),
            status => Err(ProxyFailure::Status(status)),
        }
    }
}

/// Reads the head of the answer, and not one byte more: what follows belongs to the gateway.
async fn answer(stream: &mut Stream) -> Result<u16, ProxyFailure> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MAX_HEAD_BYTES || head.first().is_some_and(|byte| *byte != b'H') {
            return Err(ProxyFailure::NotAProxy);
        }
        head.push(stream.read_u8().await.map_err(ProxyFailure::HungUp)?);
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| ProxyFailure::NotAProxy)?;
    let mut words = line.split(' ');
    let version = words.next().is_some_and(|version| version.starts_with("HTTP/1."));
    let status = words.next().filter(|text| text.len() == 3).and_then(|text| text.parse().ok());
    status.filter(|_| version).ok_or(ProxyFailure::NotAProxy)
}

fn deepest(error: &Error) -> String {
    use std::error::Error as _;
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    while let Some((&first, rest)) = bytes.split_first() {
        let digit = |at: usize| rest.get(at).and_then(|b| (*b as char).to_digit(16)).and_then(|d| u8::try_from(d).ok());
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(high << 4 | low);
                bytes = &rest[2..];
            }
            _ => {
                decoded.push(first);
                bytes = rest;
            }
        }
    }
    decoded
}

/// An entry of `NO_PROXY`.
#[derive(Debug)]
struct Exception {
    text: String,
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Debug)]
enum Hosts {
    All,
    /// The name and everything below it; only what is below for `*.name`.
    Name {
        name: String,
        itself: bool,
    },
    Addresses(Network),
}

impl Exception {
    /// `*`, `name`, `.name`, `*.name`, an address or a network, each but the first and the last with an optional `:port`.
    fn parse(text: &str) -> Self {
        let network = |text: &str| text.parse::<Network>().ok();
        let number = |text: &str| text.parse::<u16>().ok();
        let (host, port) = match (text.strip_prefix('[').and_then(|rest| rest.split_once(']')), network(text)) {
            (Some((address, port)), _) => (address, port.strip_prefix(':').and_then(number)),
            (None, Some(_)) => (text, None),
            (None, None) => match text.rsplit_once(':') {
                Some((host, port)) if number(port).is_some() => (host, number(port)),
                _ => (text, None),
            },
        };
        let lower = host.to_ascii_lowercase();
        let name = lower.trim_end_matches('.');
        let hosts = match (name, network(name)) {
            ("*", _) => Hosts::All,
            (_, Some(network)) => Hosts::Addresses(network),
            (name, None) => match name.strip_prefix("*.") {
                Some(below) => Hosts::Name { name: below.to_owned(), itself: false },
                None => Hosts::Name { name: name.trim_start_matches('.').to_owned(), itself: true },
            },
        };
        Self { text: text.to_owned(), hosts, port }
    }

    fn covers(&self, url: &GatewayUrl) -> bool {
        if self.port.is_some_and(|port| port != url.port()) {
            return false;
        }
        match (&self.hosts, url.host()) {
            (Hosts::All, _) => true,
            (Hosts::Name { name, itself }, Host::Name(host)) if !name.is_empty() => {
                let below = host.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'));
                below || (*itself && host == name)
            }
            (Hosts::Addresses(network), Host::Ip(address)) => network.contains(*address),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
