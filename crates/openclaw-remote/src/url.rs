//! Gateway URLs: a strict subset of URL syntax, parsed here so that what is checked is what is dialled.
//!
//! `ws://host:port/path` and `wss://…`; `http` and `https` are read as `ws` and `wss`. No user info, query or
//! fragment: a credential in a URL ends up in logs and process lists. No spellings of an address other than the usual one, so
//! that a reader and this parser see the same host (P-87).

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6},
};

use crate::address::AddressClass;

/// Longest URL accepted, in bytes.
const MAX_URL_BYTES: usize = 2048;

/// Why a text is not a usable gateway URL. `Display` says what is wrong; the URL itself is not repeated, since it may
/// hold a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("a gateway URL starts with ws:// or wss://")]
    Scheme,
    #[error("the gateway URL holds a user name or password; pass credentials with --token or --password instead")]
    UserInfo,
    #[error("the gateway URL holds a query or fragment; pass the token with --token instead")]
    Query,
    #[error("the gateway URL has no host")]
    NoHost,
    #[error("the gateway URL names an address in an unusual spelling; write four decimal numbers, as in 127.0.0.1")]
    Spelling,
    #[error("the host of the gateway URL is not a valid name or address")]
    Host,
    #[error("{0} is an address to listen on, not one to connect to; use 127.0.0.1")]
    Unspecified(IpAddr),
    #[error("the port of the gateway URL is not a number from 1 to 65535")]
    Port,
    #[error("the gateway URL holds a space, control character, backslash or non-ASCII character")]
    Characters,
    #[error("the gateway URL is longer than {MAX_URL_BYTES} bytes")]
    TooLong,
}

/// The host of a gateway URL.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// Lower-case, without a trailing dot.
    Name(String),
    Ip(IpAddr),
    /// A link-local IPv6 address with the interface it belongs to.
    Scoped(Ipv6Addr, String),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(IpAddr::V4(address)) => address.fmt(f),
            Self::Ip(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Scoped(address, zone) => write!(f, "[{address}%25{zone}]"),
        }
    }
}

/// What the plaintext rule says about a URL before any name is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plaintext {
    /// TLS, or a literal address where plaintext may go.
    Allowed,
    /// A name that may be dialled if, and only where, it resolves to an address where plaintext may go.
    IfPrivate,
    /// Refused before any packet, the name look-up included.
    Refused,
}

/// A checked gateway URL.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GatewayUrl {
    secure: bool,
    host: Host,
    port: u16,
    path: String,
}

impl GatewayUrl {
    /// Parses and normalises a URL.
    ///
    /// # Errors
    /// See [`UrlError`].
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let text = text.trim();
        if text.len() > MAX_URL_BYTES {
            return Err(UrlError::TooLong);
        }
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::Scheme)?;
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "ws" | "http" => false,
            "wss" | "https" => true,
            _ => return Err(UrlError::Scheme),
        };
        if !rest.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') {
            return Err(UrlError::Characters);
        }
        let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(authority_end);
        if authority.contains('@') {
            return Err(UrlError::UserInfo);
        }
        if tail.contains(['?', '#']) {
            return Err(UrlError::Query);
        }
        let (host, port) = split_authority(authority)?;
        let host = parse_host(host)?;
        let port = match port {
            None if secure => 443,
            None => 80,
            Some(digits) => digits.parse().ok().filter(|port| *port != 0).ok_or(UrlError::Port)?,
        };
        let path = if tail.is_empty() { "/" } else { tail };
        Ok(Self { secure, host, port, path: path.to_owned() })
    }

    /// The gateway of this machine: `ws://127.0.0.1:<port>`.
    pub fn loopback(port: u16) -> Self {
        Self { secure: false, host: Host::Ip(Ipv4Addr::LOCALHOST.into()), port, path: "/".to_owned() }
    }

    /// The same place under `wss://` or `ws://`, at this port.
    pub fn with_security(&self, secure: bool, port: u16) -> Self {
        Self { secure, port, ..self.clone() }
    }

    pub const fn is_secure(&self) -> bool {
        self.secure
    }

    pub const fn host(&self) -> &Host {
        &self.host
    }

    pub const fn port(&self) -> u16 {
        self.port
    }

    /// `/` or what followed the port.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Scheme, host and port: what a stored device token belongs to.
    pub fn origin(&self) -> String {
        format!("{}://{}:{}", self.scheme(), self.host, self.port)
    }

    /// True for a literal loopback address and for `localhost`, which is never looked up.
    pub fn is_loopback(&self) -> bool {
        match &self.host {
            Host::Name(name) => name == "localhost",
            Host::Ip(address) => AddressClass::of(*address) == AddressClass::Loopback,
            Host::Scoped(..) => false,
        }
    }

    /// The plaintext rule. `allow_private_names` is `OPENCLAW_ALLOW_INSECURE_PRIVATE_WS=1`: it admits other names,
    /// never a public address.
    pub fn plaintext(&self, allow_private_names: bool) -> Plaintext {
        if self.secure || self.is_loopback() {
            return Plaintext::Allowed;
        }
        match &self.host {
            Host::Scoped(..) => Plaintext::Allowed,
            Host::Ip(address) if AddressClass::of(*address).allows_plaintext() => Plaintext::Allowed,
            Host::Ip(_) => Plaintext::Refused,
            Host::Name(name) if allow_private_names || name.ends_with(".local") || name.ends_with(".ts.net") => {
                Plaintext::IfPrivate
            }
            Host::Name(_) => Plaintext::Refused,
        }
    }

    /// The same place as a browser address: `http://host:port/path`.
    pub fn to_http(&self) -> String {
        format!("{}{}", if self.secure { "https" } else { "http" }, self.tail("/"))
    }

    fn scheme(&self) -> &'static str {
        if self.secure { "wss" } else { "ws" }
    }

    /// `://host[:port]` and the path, `root` standing for an empty one.
    fn tail(&self, root: &str) -> String {
        let path = if self.path == "/" { root } else { &self.path };
        match (self.secure, self.port) {
            (true, 443) | (false, 80) => format!("://{}{path}", self.host),
            _ => format!("://{}:{}{path}", self.host, self.port),
        }
    }
}

impl fmt::Display for GatewayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.scheme(), self.tail(""))
    }
}

/// Splits `host:port`, minding the brackets of IPv6.
fn split_authority(authority: &str) -> Result<(&str, Option<&str>), UrlError> {
    if authority.is_empty() {
        return Err(UrlError::NoHost);
    }
    let (host, port) = if authority.starts_with('[') {
        let end = authority.find(']').ok_or(UrlError::Host)?;
        let (host, rest) = authority.split_at(end + 1);
        match rest.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if rest.is_empty() => (host, None),
            None => return Err(UrlError::Host),
        }
    } else {
        match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    if host.is_empty() {
        return Err(UrlError::NoHost);
    }
    match port {
        // "+80" parses as a number and is not a port.
        Some(digits) if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) => Err(UrlError::Port),
        port => Ok((host, port)),
    }
}

fn parse_host(text: &str) -> Result<Host, UrlError> {
    let ip = |address: IpAddr| match address.to_canonical() {
        address if address.is_unspecified() => Err(UrlError::Unspecified(address)),
        address => Ok(Host::Ip(address)),
    };
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        // RFC 6874 writes the zone after %25; a bare % is what people paste.
        if let Some((address, zone)) = inner.split_once('%') {
            let zone = zone.strip_prefix("25").unwrap_or(zone);
            let address: Ipv6Addr = address.parse().map_err(|_| UrlError::Host)?;
            let zone_ok = !zone.is_empty()
                && zone.len() <= 32
                && zone.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
            if !address.is_unicast_link_local() || !zone_ok {
                return Err(UrlError::Host);
            }
            return Ok(Host::Scoped(address, zone.to_owned()));
        }
        return ip(inner.parse::<Ipv6Addr>().map_err(|_| UrlError::Host)?.into());
    }
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return ip(address.into());
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let label_ok = |label: &str| {
        let bytes = label.as_bytes();
        !bytes.is_empty()
            && bytes.len() <= 63
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && bytes[0] != b'-'
            && bytes[bytes.len() - 1] != b'-'
    };
    if name.len() > 253 || !name.split('.').all(label_ok) {
        return Err(UrlError::Host);
    }
    // A last label that is a number is an IPv4 address in one of the forms inet_aton reads: 127.1, 2130706433, 0x7f.1.
    let last = name.rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    if hex || last.bytes().all(|b| b.is_ascii_digit()) {
        return Err(UrlError::Spelling);
    }
    Ok(Host::Name(name))
}

impl GatewayUrl {
    /// The socket address of a host that needs no look-up.
    pub(crate) fn literal_address(&self) -> Option<std::net::SocketAddr> {
        match &self.host {
            Host::Ip(address) => Some((*address, self.port).into()),
            Host::Scoped(address, zone) => {
                let scope = zone.parse().ok().or_else(|| interface_index(zone))?;
                Some(SocketAddrV6::new(*address, self.port, 0, scope).into())
            }
            Host::Name(_) => None,
        }
    }
}

/// Index of a network interface by name.
#[cfg(target_os = "linux")]
fn interface_index(name: &str) -> Option<u32> {
    std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).ok()?.trim().parse().ok()
}

#[cfg(not(target_os = "linux"))]
fn interface_index(_name: &str) -> Option<u32> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        GatewayUrl::parse(text).map_or_else(|error| format!("{error:?}"), |url| url.to_string())
    }

    #[test]
    fn normalisation() {
        for (text, expected) in [
            ("ws://127.0.0.1:18789", "ws://127.0.0.1:18789"),
            ("ws://127.0.0.1:18789/", "ws://127.0.0.1:18789"),
            (" WS://Host.TS.net:18789/base \n", "ws://host.ts.net:18789/base"),
            ("http://192.168.0.202:18789", "ws://192.168.0.202:18789"),
            ("https://gw.tail.ts.net", "wss://gw.tail.ts.net"),
            ("https://gw.tail.ts.net:443/", "wss://gw.tail.ts.net"),
            ("ws://[::1]:18789", "ws://[::1]:18789"),
            ("ws://[0:0:0:0:0:0:0:1]:1", "ws://[::1]:1"),
            ("ws://[fe80::1%25eth0]:1", "ws://[fe80::1%25eth0]:1"),
            ("ws://localhost.:9", "ws://localhost:9"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
        assert_eq!(GatewayUrl::parse("https://h/ui").expect("url").to_http(), "https://h/ui");
        assert_eq!(GatewayUrl::loopback(18789).to_http(), "http://127.0.0.1:18789/");
        assert_eq!(GatewayUrl::parse("wss://h").expect("url").origin(), "wss://h:443");
    }

    #[test]
    fn p_87_refused_spellings() {
        for (text, expected) in [
            ("127.0.0.1:18789", UrlError::Scheme),
            ("ftp://h", UrlError::Scheme),
            ("ssh://user@host", UrlError::Scheme),
            ("ws://user@127.0.0.1:1", UrlError::UserInfo),
            ("ws://127.0.0.1:1@evil.test", UrlError::UserInfo),
            ("ws://127.0.0.1\\@evil.test", UrlError::Characters),
            ("ws://127.0.0.1:1/?token=x", UrlError::Query),
            ("ws://127.0.0.1:1#token=x", UrlError::Query),
            ("ws://evil.test#@127.0.0.1", UrlError::Query),
            ("ws://", UrlError::NoHost),
            ("ws://:18789", UrlError::NoHost),
            ("ws:///path", UrlError::NoHost),
            ("ws://2130706433", UrlError::Spelling),
            ("ws://0x7f.1", UrlError::Spelling),
            ("ws://127.1", UrlError::Spelling),
            ("ws://0177.0.0.1", UrlError::Spelling),
            ("ws://127.0.0.1.:80", UrlError::Spelling),
            ("ws://0.0.0.0:1", UrlError::Unspecified(IpAddr::from([0, 0, 0, 0]))),
            ("ws://[::]:1", UrlError::Unspecified(IpAddr::from([0u16; 8]))),
            ("ws://[::ffff:0.0.0.0]:1", UrlError::Unspecified(IpAddr::from([0, 0, 0, 0]))),
            ("ws://h:0", UrlError::Port),
            ("ws://h:65536", UrlError::Port),
            ("ws://h:+80", UrlError::Port),
            ("ws://h:", UrlError::Port),
            ("ws://h:1:2", UrlError::Port),
            ("ws://ho st", UrlError::Characters),
            ("ws://h\u{430}st", UrlError::Characters),
            ("ws://a..b", UrlError::Host),
            ("ws://-a", UrlError::Host),
            ("ws://[::1", UrlError::Host),
            ("ws://[::1]x", UrlError::Host),
            ("ws://[2001:db8::1%25eth0]", UrlError::Host),
            ("ws://[fe80::1%25../x]", UrlError::Host),
            ("ws://a%2eb", UrlError::Host),
        ] {
            assert_eq!(GatewayUrl::parse(text), Err(expected), "{text}");
        }
        assert_eq!(GatewayUrl::parse(&format!("ws://{}", "a".repeat(3000))), Err(UrlError::TooLong));
    }

    #[test]
    fn s_141_to_s_148_the_plaintext_rule() {
        // With P-87: (url, without the switch, with it)
        for (text, plain, with_switch) in [
            ("ws://127.0.0.1:18789", Plaintext::Allowed, Plaintext::Allowed),
            ("ws://localhost:18789", Plaintext::Allowed, Plaintext::Allowed),
            ("ws://[::1]:18789", Plaintext::Allowed, Plaintext::Allowed),
            ("ws://[::ffff:127.0.0.1]:18789", Plaintext::Allowed, Plaintext::Allowed),
            ("ws://10.1.2.3:18789", Plaintext::Allowed, Plaintext::Allowed),
            ("ws://172.16.0.1:18789", Plaintext::Allowed, Plaintext::Allowed),
            ("ws://192.168.0.202:18789", Plaintext::Allowed, Plaintext::Allowed),
            ("ws://169.254.1.1:18789", Plaintext::Allowed, Plaintext::Allowed),
            ("ws://[fe80::1]:18789", Plaintext::Allowed, Plaintext::Allowed),
            ("ws://100.64.0.1:18789", Plaintext::Allowed, Plaintext::Allowed),
            ("ws://100.128.0.1:18789", Plaintext::Refused, Plaintext::Refused),
            ("ws://8.8.8.8:18789", Plaintext::Refused, Plaintext::Refused),
            ("ws://[2001:db8::1]:18789", Plaintext::Refused, Plaintext::Refused),
            ("ws://mac.local:18789", Plaintext::IfPrivate, Plaintext::IfPrivate),
            ("ws://a.b.ts.net:18789", Plaintext::IfPrivate, Plaintext::IfPrivate),
            ("ws://gw.example.com:18789", Plaintext::Refused, Plaintext::IfPrivate),
            ("ws://nas:18789", Plaintext::Refused, Plaintext::IfPrivate),
            ("ws://127.evil.test:18789", Plaintext::Refused, Plaintext::IfPrivate),
            ("ws://localhost.evil.test:18789", Plaintext::Refused, Plaintext::IfPrivate),
            ("ws://evil-ts.net:18789", Plaintext::Refused, Plaintext::IfPrivate),
            ("ws://evillocal:18789", Plaintext::Refused, Plaintext::IfPrivate),
            ("wss://gw.example.com", Plaintext::Allowed, Plaintext::Allowed),
            ("wss://8.8.8.8", Plaintext::Allowed, Plaintext::Allowed),
        ] {
            let url = GatewayUrl::parse(text).expect(text);
            assert_eq!((url.plaintext(false), url.plaintext(true)), (plain, with_switch), "{text}");
        }
    }
}
