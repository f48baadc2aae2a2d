//! What the transport tells about a caller, gathered once per connection and never looked at again by handlers.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::{HeaderMap, header};
use openclaw_protocol::gateway_proof;

/// The other end of an accepted socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The owner's unix socket, peer uid already checked against ours.
    Owner,
    Tcp(SocketAddr),
}

impl Peer {
    /// The socket's address; `None` for the owner's.
    pub fn address(self) -> Option<IpAddr> {
        match self {
            Self::Owner => None,
            Self::Tcp(socket) => Some(canonical(socket.ip())),
        }
    }
}

/// Whose budget a caller uses: IPv4-mapped IPv6 addresses collapse, IPv6 counts by /64, browsers on loopback by
/// their origin.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClientKey {
    Owner,
    V4([u8; 4]),
    V6([u8; 8]),
    Origin(String),
}

impl ClientKey {
    pub fn of(address: IpAddr) -> Self {
        match canonical(address) {
            IpAddr::V4(v4) => Self::V4(v4.octets()),
            IpAddr::V6(v6) if v6 == Ipv6Addr::LOCALHOST => Self::V4([127, 0, 0, 1]),
            IpAddr::V6(v6) => {
                let mut net = [0; 8];
                net.copy_from_slice(&v6.octets()[..8]);
                Self::V6(net)
            }
        }
    }
}

/// Collapses an IPv4-mapped IPv6 address.
pub fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Headers only a forwarding party adds. Any of them on a peer that is not a declared proxy fails the request.
const FORWARDING: &[&str] = &[
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-forwarded-server",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "fly-client-ip",
    "via",
];

/// The `Origin` header of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// No header: not a browser.
    Absent,
    /// One well-formed `scheme://host[:port]`, lower-cased, default port left out.
    Given(String),
    /// Present but `null`, empty, repeated or malformed.
    Malformed,
}

impl Origin {
    pub fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(header::ORIGIN).iter();
        let (Some(first), None) = (values.next(), values.next()) else {
            return if headers.contains_key(header::ORIGIN) { Self::Malformed } else { Self::Absent };
        };
        first.to_str().ok().and_then(normal_origin).map_or(Self::Malformed, Self::Given)
    }
}

/// `scheme://host[:port]` in lower case without a default port, or `None` for anything else (path, user info, trailing
/// dot, `null`, other schemes).
pub fn normal_origin(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    let (scheme, authority) = text.split_once("://")?;
    let default_port = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let (host, port) = split_authority(authority)?;
    match port {
        Some(port) if port != default_port => Some(format!("{scheme}://{host}:{port}")),
        _ => Some(format!("{scheme}://{host}")),
    }
}

/// Splits `host[:port]`; the host keeps its brackets. Only characters a host name or address may have are accepted.
pub fn split_authority(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let end = rest.find(']')? + 2;
        let inner = &authority[1..end - 1];
        inner.parse::<Ipv6Addr>().ok()?;
        (
            &authority[..end],
            authority[end..].strip_prefix(':').or(if authority.len() == end { None } else { Some("!") }),
        )
    } else {
        match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let well_formed = host.starts_with('[') || (!host.is_empty() && host.chars().all(plain) && !host.ends_with('.'));
    let port = match port {
        None => None,
        Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => Some(digits.parse().ok()?),
        Some(_) => return None,
    };
    well_formed.then_some((host, port))
}

/// Everything the transport tells about one HTTP request or WebSocket upgrade.
#[derive(Clone, Debug)]
pub struct Evidence {
    pub peer: Peer,
    /// The client's address: the socket's, or what a declared proxy says.
    pub address: Option<IpAddr>,
    pub origin: Origin,
    /// The `Host` header, lower-cased; `None` when absent, repeated or malformed.
    pub host: Option<String>,
    /// A declared proxy forwarded this request.
    pub forwarded: bool,
    /// Forwarding headers came from a peer that is not a declared proxy, or could not be read.
    pub unattributable: bool,
    /// What this gateway is asked to sign, to show which one it is. No evidence of who the caller is.
    pub proof_nonce: Option<String>,
}

impl Evidence {
    /// Reads the evidence. `is_trusted_proxy` answers for a socket or hop address.
    pub fn gather(peer: Peer, headers: &HeaderMap, is_trusted_proxy: impl Fn(IpAddr) -> bool) -> Self {
        let forwarding = FORWARDING.iter().any(|name| headers.contains_key(*name));
        let host = single(headers, header::HOST.as_str()).map(str::to_ascii_lowercase);
        let host = host.filter(|host| split_authority(host).is_some());
        let origin = Origin::of(headers);
        let proof_nonce = single(headers, gateway_proof::HEADER).filter(|nonce| gateway_proof::is_nonce(nonce));
        let mut evidence = Self {
            peer,
            address: None,
            origin,
            host,
            forwarded: false,
            unattributable: false,
            proof_nonce: proof_nonce.map(str::to_owned),
        };
        match peer {
            Peer::Owner => evidence.unattributable = forwarding,
            Peer::Tcp(socket) => {
                let socket = canonical(socket.ip());
                evidence.address = Some(socket);
                if is_trusted_proxy(socket) {
                    evidence.forwarded = true;
                    match forwarded_client(headers, &is_trusted_proxy) {
                        Ok(client) => evidence.address = client.or(Some(socket)),
                        Err(Unreadable) => evidence.unattributable = true,
                    }
                } else {
                    evidence.unattributable = forwarding;
                }
            }
        }
        evidence
    }

    /// True only for a direct caller on this machine: loopback socket or owner socket, no browser, no proxy. Tailnet and
    /// LAN are never local. Being local grants nothing by itself.
    pub fn direct_local(&self) -> bool {
        let near = match self.peer {
            Peer::Owner => true,
            Peer::Tcp(socket) => canonical(socket.ip()).is_loopback(),
        };
        near && !self.forwarded && !self.unattributable && self.origin == Origin::Absent
    }

    /// True when the socket itself ends on this machine, whoever speaks through it.
    pub fn on_loopback(&self) -> bool {
        !self.forwarded && self.address.is_none_or(|address| address.is_loopback())
    }

    /// Whose budget of guesses and sockets this is.
    pub fn client_key(&self) -> ClientKey {
        match (&self.origin, self.address) {
            (_, None) => ClientKey::Owner,
            (Origin::Given(origin), Some(address)) if address.is_loopback() => ClientKey::Origin(origin.clone()),
            (Origin::Malformed, Some(address)) if address.is_loopback() => ClientKey::Origin("malformed".into()),
            (_, Some(address)) => ClientKey::of(address),
        }
    }

    /// For logs and tables: the address, or `unix` for the owner's socket.
    pub fn address_text(&self) -> String {
        self.address.map_or_else(|| "unix".to_owned(), |address| address.to_string())
    }
}

fn single<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

struct Unreadable;

/// Right to left through `X-Forwarded-For`: the first hop that is not a declared proxy is the client. A hop that is not an
/// address makes the whole chain unreadable.
fn forwarded_client(headers: &HeaderMap, trusted: &impl Fn(IpAddr) -> bool) -> Result<Option<IpAddr>, Unreadable> {
    let mut hops = Vec::new();
    for value in headers.get_all("x-forwarded-for") {
        hops.extend(value.to_str().map_err(|_| Unreadable)?.split(',').map(str::trim));
    }
    if hops.len() > 32 {
        return Err(Unreadable);
    }
    for hop in hops.iter().rev() {
        let address = canonical(hop.parse().map_err(|_| Unreadable)?);
        if !trusted(address) {
            return Ok(Some(address));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in list {
            map.append(*name, value.parse().expect("header value"));
        }
        map
    }

    fn gather(socket: &str, list: &[(&'static str, &str)], proxies: &[&str]) -> Evidence {
        let proxies: Vec<IpAddr> = proxies.iter().map(|p| p.parse().expect("proxy")).collect();
        Evidence::gather(Peer::Tcp(socket.parse().expect("socket")), &headers(list), |ip| proxies.contains(&ip))
    }

    #[test]
    fn p_12_address_spellings_share_one_key() {
        let key = |text: &str| ClientKey::of(text.parse().expect("address"));
        assert_eq!(key("10.0.0.1"), key("::ffff:10.0.0.1"));
        assert_eq!(key("2001:db8::1"), key("2001:db8:0:0:ffff::2"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_eq!(key("127.0.0.1"), key("::1"));
    }

    #[test]
    fn p_02_origins_that_are_none() {
        for bad in [
            "null",
            "file://",
            "",
            "http://",
            "https://a/b",
            "https://a.",
            "https://u@a",
            "ftp://a",
            "https://a\\b",
            "https://a:0x1",
            "https://[::1",
        ] {
            assert_eq!(Origin::of(&headers(&[("origin", bad)])), Origin::Malformed, "{bad}");
        }
        assert_eq!(Origin::of(&headers(&[("origin", "https://a"), ("origin", "https://a")])), Origin::Malformed);
        assert_eq!(Origin::of(&headers(&[])), Origin::Absent);
        assert_eq!(
            Origin::of(&headers(&[("origin", "HTTPS://A.Example:443")])),
            Origin::Given("https://a.example".into())
        );
        assert_eq!(Origin::of(&headers(&[("origin", "http://[::1]:8080")])), Origin::Given("http://[::1]:8080".into()));
    }

    #[test]
    fn p_32_p_33_forwarding_headers_from_strangers_are_never_local() {
        for name in FORWARDING {
            let evidence = gather("127.0.0.1:1", &[(name, "127.0.0.1")], &[]);
            assert!(evidence.unattributable && !evidence.direct_local(), "{name}");
        }
        assert!(gather("127.0.0.1:1", &[], &[]).direct_local());
        assert!(gather("[::ffff:127.0.0.1]:1", &[], &[]).direct_local());
        assert!(!gather("192.168.1.2:1", &[], &[]).direct_local());
        assert!(!gather("127.0.0.1:1", &[("origin", "http://localhost")], &[]).direct_local());
    }

    #[test]
    fn p_34_chain_through_declared_proxies() {
        let client = |chain: &str| {
            let evidence = gather("10.0.0.9:1", &[("x-forwarded-for", chain)], &["10.0.0.9", "10.0.0.8"]);
            assert!(!evidence.direct_local());
            if evidence.unattributable { None } else { evidence.address.map(|a| a.to_string()) }
        };
        assert_eq!(client("127.0.0.1, 203.0.113.7, 10.0.0.8").as_deref(), Some("203.0.113.7"));
        assert_eq!(client("203.0.113.7").as_deref(), Some("203.0.113.7"));
        for garbage in ["203.0.113.7, evil", "fe80::1%eth0", "203.0.113.7:80", "203.0.113.7,,10.0.0.8", ""] {
            assert_eq!(client(garbage), None, "{garbage}");
        }
    }
}
