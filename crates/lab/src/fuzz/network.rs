//! Addresses and headers: gateway URLs as a client reads them, and the evidence a request brings.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};
use openclaw_gateway::auth::{
    Evidence, Peer,
    evidence::{ClientKey, Origin, normal_origin, split_authority},
    hosts::Names,
};
use openclaw_remote::{
    address::AddressClass,
    url::{GatewayUrl, Host, Plaintext},
};
use url::Url;

use super::input::Input;

/// A gateway URL: its normal form is stable, another URL parser dials the same place, and plaintext never goes to a public
/// address.
pub fn gateway_url(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(url) = GatewayUrl::parse(text) else { return };
    let shown = url.to_string();
    assert_eq!(GatewayUrl::parse(&shown).as_ref(), Ok(&url), "{shown}");
    assert_eq!(GatewayUrl::parse(&url.origin()).map(|again| again.origin()), Ok(url.origin()));
    assert!(!shown.contains(['?', '#', '\\', ' ']) && !url.origin().contains('@'), "{shown}");
    if let Ok(other) = Url::parse(text.trim()) {
        let host = match other.host() {
            Some(url::Host::Ipv6(address)) => IpAddr::V6(address).to_canonical().to_string(),
            Some(host) => host.to_string().trim_end_matches('.').to_owned(),
            None => String::new(),
        };
        assert_eq!(host, url.host().to_string().trim_matches(['[', ']']), "two readers of {text:?}");
        assert_eq!(other.port_or_known_default(), Some(url.port()), "two readers of {text:?}");
        assert_eq!(matches!(other.scheme(), "wss" | "https"), url.is_secure());
        assert_eq!((other.username(), other.password(), other.query(), other.fragment()), ("", None, None, None));
    }
    let class = match url.host() {
        Host::Ip(address) => Some(AddressClass::of(*address)),
        Host::Scoped(address, _) => Some(AddressClass::of(IpAddr::V6(*address))),
        Host::Name(_) => None,
    };
    for allow_private_names in [false, true] {
        match (url.is_secure(), class, url.plaintext(allow_private_names)) {
            (true, _, rule) => assert_eq!(rule, Plaintext::Allowed),
            (false, Some(AddressClass::Public), rule) => assert_eq!(rule, Plaintext::Refused, "{shown}"),
            (false, None, rule) => assert!(url.is_loopback() || rule != Plaintext::Allowed, "{shown}"),
            (false, Some(_), _) => {}
        }
    }
}

/// Headers only a proxy adds. Written down once more here: the list in the gateway must not shrink unnoticed.
const FORWARDING: &[&str] =
    &["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "cf-connecting-ip", "via"];

/// A peer and header lines: nobody is local who is not, origins and hosts are in normal form, and a browser's origin is
/// accepted only when it is declared or the gateway's own.
pub fn evidence(data: &[u8]) {
    let mut input = Input::new(data);
    let peers = ["127.0.0.1:9", "[::1]:9", "[::ffff:127.0.0.1]:9", "10.0.0.9:9", "203.0.113.7:9", "[fe80::1]:9"];
    let peer = match input.below(peers.len() + 1) {
        at if at < peers.len() => Peer::Tcp(peers[at].parse().expect("socket address")),
        _ => Peer::Owner,
    };
    let trusts_loopback = input.flag();
    let trusted =
        |address: IpAddr| address == IpAddr::from([10, 0, 0, 9]) || (trusts_loopback && address.is_loopback());
    let mut headers = HeaderMap::new();
    for line in input.rest().split(|byte| *byte == b'\n').take(64) {
        let mut halves = line.splitn(2, |byte| *byte == b':');
        let (Some(name), Some(value)) = (halves.next(), halves.next()) else { continue };
        let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value.trim_ascii())) else {
            continue;
        };
        headers.append(name, value);
    }
    let found = Evidence::gather(peer, &headers, trusted);

    let near = match peer {
        Peer::Owner => true,
        Peer::Tcp(socket) => socket.ip().to_canonical().is_loopback() && !trusted(socket.ip().to_canonical()),
    };
    let plain = FORWARDING.iter().all(|name| !headers.contains_key(*name)) && !headers.contains_key("origin");
    if found.direct_local() {
        assert!(near && plain, "{peer:?} counts as local with {headers:?}");
    }
    match &found.origin {
        Origin::Absent => assert!(!headers.contains_key("origin")),
        Origin::Malformed => assert!(headers.contains_key("origin")),
        Origin::Given(origin) => {
            assert_eq!(normal_origin(origin).as_ref(), Some(origin), "an origin in normal form stays as it is");
            if let Ok(other) = Url::parse(origin) {
                let serialised = other.origin().ascii_serialization();
                // Addresses have many spellings; ours keeps the one that was sent, so it may match less, never more.
                if split_authority(origin.split_once("://").expect("has a scheme").1)
                    .is_some_and(|(h, _)| !is_address(h))
                {
                    assert_eq!(serialised, *origin, "two readers of an origin");
                }
            }
        }
    }
    if let Some(host) = &found.host {
        let (name, _) = split_authority(host).expect("a host in evidence is well formed");
        assert!(!name.contains(['/', '@', '\\', ' ']) && *name == name.to_ascii_lowercase(), "{name:?}");
    }
    if let (Peer::Tcp(socket), false) = (peer, found.forwarded) {
        assert_eq!(found.address, Some(socket.ip().to_canonical()), "only a declared proxy changes an address");
    }
    assert!(!found.forwarded || matches!(peer, Peer::Tcp(_)), "the owner's socket has no proxy");
    assert_eq!(found.client_key() == ClientKey::Owner, peer == Peer::Owner);

    let names = Names::new(&["https://ui.example.com".into()], None, false, false);
    if names.check_origin(&found).is_ok() {
        let Origin::Given(origin) = &found.origin else { panic!("accepted {:?}", found.origin) };
        let own = found.host.as_ref().and_then(|host| normal_origin(&format!("http://{host}")));
        assert!(origin == "https://ui.example.com" || own.as_ref() == Some(origin), "accepted {origin}");
    }
    if names.accepts_host(found.host.as_deref()) {
        let (name, _) = split_authority(found.host.as_deref().unwrap_or_default()).expect("checked");
        let public = name.ends_with(".com") || name.ends_with(".test") || name.ends_with(".org");
        assert!(!public || name == "ui.example.com", "serves {name}");
    }
}

/// Also the short and the hexadecimal spellings of IPv4 that browsers rewrite.
fn is_address(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    host.starts_with('[') || last.starts_with("0x") || last.bytes().all(|byte| byte.is_ascii_digit())
}
