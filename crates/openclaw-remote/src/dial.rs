//! Opening a byte stream to a gateway: TCP with a happy race of addresses or through an HTTP proxy, TLS on top, or a unix
//! socket.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use openclaw_protocol::Secret;
use rustls::pki_types::{IpAddr as TlsIp, ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    task::JoinSet,
};
use tokio_rustls::client::TlsStream;

use crate::{
    address::AddressClass,
    deadline::Deadline,
    edge,
    error::{Error, Insecure, Stage},
    proxy::{Choice, Proxies},
    tls::{self, Fingerprint},
    url::{GatewayUrl, Host, Plaintext},
};

/// Where to dial.
#[derive(Clone, Debug)]
pub enum Endpoint {
    /// A gateway URL, with the certificate pin that belongs to it.
    Url {
        url: GatewayUrl,
        pin: Option<Fingerprint>,
        /// `OPENCLAW_ALLOW_INSECURE_PRIVATE_WS=1` in this process.
        allow_private_names: bool,
        /// `gateway.remote.edgeAuth`: headers for an authenticating edge. Sent over TLS only.
        edge: Vec<(String, Secret)>,
    },
    /// The owner's unix socket in the state directory.
    OwnerSocket(PathBuf),
    /// The near end of a tunnel: a private unix socket of this user.
    Tunnel {
        socket: PathBuf,
        /// The certificate the gateway has to show inside the tunnel. Without one TLS is spoken there only when the gateway
        /// wants it, whatever certificate it has: ssh has proven the host.
        pin: Option<Fingerprint>,
        /// Where the tunnel leads (`ssh://user@host:22/18789`): what a stored device token belongs to.
        origin: String,
    },
}

/// A connected byte stream.
#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    /// Over TCP, or over TLS to a proxy.
    Tls(Box<TlsStream<Stream>>),
    Unix(UnixStream),
}

/// Head start of each address over the next one (RFC 8305 recommends 250 ms).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 16;

impl Endpoint {
    /// Dials.
    ///
    /// # Errors
    /// [`Error::Insecure`] before any packet; then name, connect and TLS errors.
    pub async fn dial(&self, deadline: Deadline) -> Result<Stream, Error> {
        match self {
            Self::OwnerSocket(path) | Self::Tunnel { socket: path, pin: None, .. } => {
                deadline.run(Stage::Connect, dial_owner(path)).await.map(Stream::Unix)
            }
            Self::Tunnel { socket, pin, origin } => dial_behind(socket, origin, *pin, deadline).await,
            Self::Url { url, pin, allow_private_names, edge } => {
                check_edge(url, edge)?;
                dial_url(url, *pin, *allow_private_names, &Proxies::of_process(), deadline).await
            }
        }
    }

    /// What to call this place in messages.
    pub fn describe(&self) -> String {
        match self {
            Self::Url { url, .. } => url.to_string(),
            Self::OwnerSocket(path) => format!("unix:{}", path.display()),
            Self::Tunnel { origin, .. } => origin.clone(),
        }
    }
}

/// Into a tunnel, with TLS inside it.
pub(crate) async fn dial_behind(
    socket: &Path,
    origin: &str,
    pin: Option<Fingerprint>,
    deadline: Deadline,
) -> Result<Stream, Error> {
    let stream = deadline.run(Stage::Connect, dial_owner(socket)).await.map(Stream::Unix)?;
    let secure = async {
        let tls = tls::connect_behind_ssh(stream, pin).await;
        tls.map_err(|source| Error::Tls { url: origin.to_owned(), source })
    };
    deadline.run(Stage::Tls, secure).await.map(|tls| Stream::Tls(Box::new(tls)))
}

/// Headers for an edge are credentials: they go over TLS or not at all.
fn check_edge(url: &GatewayUrl, edge: &[(String, Secret)]) -> Result<(), Error> {
    if !edge.is_empty() && !url.is_secure() {
        return Err(Error::EdgeAuth { reason: format!("these headers are sent over wss:// only, and {url} is not") });
    }
    edge::headers(edge).map(|_| ())
}

pub(crate) async fn dial_url(
    url: &GatewayUrl,
    pin: Option<Fingerprint>,
    allow_private_names: bool,
    proxies: &Proxies,
    deadline: Deadline,
) -> Result<Stream, Error> {
    let plaintext = url.plaintext(allow_private_names);
    if plaintext == Plaintext::Refused {
        return Err(Error::Insecure(Insecure { url: url.to_string(), resolved: None }));
    }
    if pin.is_some() && !url.is_secure() {
        return Err(Error::PinWithoutTls { url: url.to_string() });
    }
    let target = || format!("{}:{}", url.host(), url.port());
    let stream = match proxies.choose(url) {
        Ok(Choice::Direct(_)) => direct(url, plaintext, deadline).await?,
        Ok(Choice::Through(proxy)) => {
            let failed =
                |failure| Error::Proxy { proxy: proxy.to_string(), target: target(), failure: Box::new(failure) };
            let opened = async { proxy.open(url).await.map_err(failed) };
            deadline.run(Stage::Proxy, opened).await?
        }
        Err(failure) => {
            let (proxy, failure) = ("in the environment".to_owned(), Box::new(failure));
            return Err(Error::Proxy { proxy, target: target(), failure });
        }
    };
    if !url.is_secure() {
        return Ok(stream);
    }
    let server = server_name(url)?;
    let secure = async {
        let tls = tls::connect(stream, server, pin).await;
        tls.map_err(|source| Error::Tls { url: url.to_string(), source })
    };
    deadline.run(Stage::Tls, secure).await.map(|tls| Stream::Tls(Box::new(tls)))
}

/// TCP to the gateway itself.
async fn direct(url: &GatewayUrl, plaintext: Plaintext, deadline: Deadline) -> Result<Stream, Error> {
    let mut addresses = deadline.run(Stage::Name, resolve(url)).await?;
    if plaintext == Plaintext::IfPrivate {
        let first = addresses.first().map(SocketAddr::ip);
        addresses.retain(|address| AddressClass::of(address.ip()).allows_plaintext());
        if addresses.is_empty() {
            return Err(Error::Insecure(Insecure { url: url.to_string(), resolved: first }));
        }
    }
    let unreachable = |source: io::Error| Error::connect(url.to_string(), source);
    let connect = async { race(addresses).await.map_err(unreachable) };
    let stream = deadline.run(Stage::Connect, connect).await?;
    // Frames are small and each waits for an answer; Nagle would hold them back.
    stream.set_nodelay(true).map_err(unreachable)?;
    Ok(Stream::Tcp(stream))
}

/// Whose certificate is expected at a URL.
pub(crate) fn server_name(url: &GatewayUrl) -> Result<ServerName<'static>, Error> {
    Ok(match url.host() {
        Host::Name(name) => ServerName::try_from(name.clone()).map_err(|_| Error::name(name, invalid_name()))?,
        Host::Ip(address) => ServerName::IpAddress(TlsIp::from(*address)),
        Host::Scoped(address, _) => ServerName::IpAddress(TlsIp::from(std::net::IpAddr::V6(*address))),
    })
}

fn invalid_name() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a DNS name")
}

/// The addresses of a URL's host. `localhost` is never looked up: both loopback addresses are tried.
pub(crate) async fn resolve(url: &GatewayUrl) -> Result<Vec<SocketAddr>, Error> {
    match url.host() {
        Host::Name(name) if name == "localhost" => {
            Ok(vec![(Ipv4Addr::LOCALHOST, url.port()).into(), (Ipv6Addr::LOCALHOST, url.port()).into()])
        }
        Host::Name(name) => {
            let found = tokio::net::lookup_host((name.as_str(), url.port())).await;
            let found: Vec<SocketAddr> = found.map_err(|source| Error::name(name, source))?.collect();
            if found.is_empty() {
                let source = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
                return Err(Error::name(name, source));
            }
            Ok(interleave(found))
        }
        host => match url.literal_address() {
            Some(address) => Ok(vec![address]),
            None => Err(Error::name(&host.to_string(), io::Error::other("no network interface of that name"))),
        },
    }
}

/// Alternates the address families, keeping the resolver's order within each (RFC 8305 section 4).
fn interleave(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (same, other): (Vec<_>, Vec<_>) = found.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let (mut same, mut other) = (same.into_iter(), other.into_iter());
    let mut mixed = Vec::new();
    loop {
        let pair = [same.next(), other.next()];
        if pair.iter().all(Option::is_none) || mixed.len() >= MAX_ADDRESSES {
            return mixed;
        }
        mixed.extend(pair.into_iter().flatten());
    }
}

/// Connects to the first address that answers. The next one starts when the one before failed or after a head start.
/// Dropping the future aborts every attempt.
pub(crate) async fn race(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut waiting = addresses.into_iter();
    let mut attempts = JoinSet::new();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no address to connect to");
    loop {
        if let Some(address) = waiting.next() {
            attempts.spawn(TcpStream::connect(address));
        } else if attempts.is_empty() {
            return Err(last);
        }
        let more = waiting.len() > 0;
        tokio::select! {
            Some(done) = attempts.join_next() => match done {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error,
                Err(error) => last = io::Error::other(error),
            },
            () = tokio::time::sleep(ATTEMPT_DELAY), if more => {}
        }
    }
}

/// Connects to the owner's socket after making sure that it belongs to this user, and that this user is at the other
/// end: no credential travels over it, but what is asked and answered is the owner's alone.
async fn dial_owner(path: &Path) -> Result<UnixStream, Error> {
    let failed = |source: io::Error| Error::connect(format!("unix:{}", path.display()), source);
    let me = rustix::process::geteuid().as_raw();
    let stranger = || failed(io::Error::new(io::ErrorKind::PermissionDenied, "the socket belongs to another user"));
    let metadata = std::fs::symlink_metadata(path).map_err(failed)?;
    if !metadata.file_type().is_socket() || metadata.uid() != me {
        return Err(stranger());
    }
    let stream = UnixStream::connect(path).await.map_err(failed)?;
    if stream.peer_cred().map_err(failed)?.uid() != me {
        return Err(stranger());
    }
    Ok(stream)
}

/// True when `path` is a socket of this user. Says nothing about whether a gateway listens on it.
pub fn is_owner_socket(path: &Path) -> bool {
    let me = rustix::process::geteuid().as_raw();
    std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket() && found.uid() == me)
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_alternate() {
        let parse = |list: &[&str]| list.iter().map(|a| a.parse().expect("address")).collect::<Vec<SocketAddr>>();
        let found = parse(&["[::1]:1", "[::2]:1", "[::3]:1", "10.0.0.1:1"]);
        assert_eq!(interleave(found), parse(&["[::1]:1", "10.0.0.1:1", "[::2]:1", "[::3]:1"]));
    }

    #[tokio::test]
    async fn the_race_ends_at_the_first_answer() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let open = listener.local_addr().expect("address");
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind").local_addr().expect("address");
        let stream = race(vec![closed, open]).await.expect("connects to the second");
        assert_eq!(stream.peer_addr().expect("peer"), open);
        let refused = race(vec![closed]).await.expect_err("nobody listens");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn s_147_public_plaintext_is_refused_before_any_packet() {
        for text in ["ws://8.8.8.8:18789", "ws://gw.example.com:18789"] {
            let url = GatewayUrl::parse(text).expect("url");
            let endpoint = Endpoint::Url { url, pin: None, allow_private_names: false, edge: Vec::new() };
            assert!(
                matches!(endpoint.dial(Deadline::after(Duration::from_secs(5))).await, Err(Error::Insecure(_))),
                "{text}"
            );
        }
    }

    #[tokio::test]
    async fn a_pin_wants_tls() {
        let endpoint = Endpoint::Url {
            url: GatewayUrl::loopback(1),
            pin: Some(Fingerprint::of(b"")),
            allow_private_names: false,
            edge: Vec::new(),
        };
        assert!(matches!(
            endpoint.dial(Deadline::after(Duration::from_secs(5))).await,
            Err(Error::PinWithoutTls { .. })
        ));
    }
}
