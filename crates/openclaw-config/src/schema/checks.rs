//! Checks of single strings.

use std::net::{IpAddr, Ipv4Addr};

use crate::secret_ref;

pub(super) fn ipv4(text: &str) -> Option<&'static str> {
    text.trim().parse::<Ipv4Addr>().is_err().then_some("expected an IPv4 address such as 192.168.1.10")
}

pub(super) fn address_or_network(text: &str) -> Option<&'static str> {
    let (address, prefix) = text.trim().split_once('/').map_or((text.trim(), None), |(a, p)| (a, Some(p)));
    let valid = address.parse::<IpAddr>().is_ok_and(|ip| {
        let bits = if ip.is_ipv4() { 32 } else { 128 };
        prefix.is_none_or(|prefix| prefix.parse::<u8>().is_ok_and(|prefix| prefix <= bits))
    });
    (!valid).then_some("expected an IP address or a network such as 10.0.0.0/8; this entry is ignored")
}

/// An origin: scheme, host and port, nothing after. Plain http only for this machine.
pub(super) fn public_origin(text: &str) -> Option<&'static str> {
    const WRONG: Option<&str> = Some("expected an https origin without a path, such as https://gw.example.com");
    let text = text.trim().trim_end_matches('/');
    let (plain, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => (false, rest),
        (_, Some(rest)) => (true, rest),
        _ => return WRONG,
    };
    if rest.is_empty() || rest.contains(['/', '?', '#', '@', '\\']) || rest.contains(char::is_whitespace) {
        return WRONG;
    }
    let host = rest
        .strip_prefix('[')
        .and_then(|r| r.split_once(']'))
        .map_or_else(|| rest.split(':').next().unwrap_or_default(), |(host, _)| host);
    let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if plain && !loopback { WRONG } else { None }
}

/// A pin of a certificate or of its key.
pub(super) fn sha256_fingerprint(text: &str) -> Option<&'static str> {
    // A `${VAR}` that is not set yet is the resolver's matter.
    let valid = text.parse::<openclaw_protocol::Fingerprint>().is_ok() || text.contains("${");
    (!valid)
        .then_some("expected a SHA-256 fingerprint: 64 hex digits, colons allowed; `key-sha256:` before that of a key")
}

pub(super) fn base_path(text: &str) -> Option<&'static str> {
    let odd = text.contains(['?', '#', '\\']) || text.contains("..") || text.contains(char::is_whitespace);
    odd.then_some("expected a URL path such as /openclaw")
}

pub(super) fn provider_alias(text: &str) -> Option<&'static str> {
    (!secret_ref::is_provider_alias(text)).then_some("expected a provider name of the form [a-z][a-z0-9_-]{0,63}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks() {
        let check = |f: fn(&str) -> Option<&'static str>, good: &[&str], bad: &[&str]| {
            good.iter().for_each(|text| assert_eq!(f(text), None, "{text}"));
            bad.iter().for_each(|text| assert!(f(text).is_some(), "{text}"));
        };
        check(ipv4, &["0.0.0.0", "10.1.2.3"], &["", "host", "::1", "1.2.3", "1.2.3.4/8", "256.1.1.1"]);
        check(
            address_or_network,
            &["10.0.0.0/8", "::1", "fd00::/8", "127.0.0.1", "0.0.0.0/0"],
            &["", "host", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1"],
        );
        check(
            public_origin,
            &["https://gw.example.com", "https://gw:8443/", "http://127.0.0.1:1", "http://localhost", "http://[::1]:2"],
            &["", "gw.example.com", "http://gw.example.com", "https://a/b", "https://u@h", "https://", "ws://a"],
        );
        let hex = "ab".repeat(32);
        let (certificate, key) = (format!("sha256:{hex}"), format!("key-sha256:{hex}"));
        check(sha256_fingerprint, &[&hex, &certificate, &key, "${PIN}"], &["", "ab", &"zz".repeat(32), "sha1:00"]);
        check(base_path, &["/ui", "", "ui"], &["/a?b", "/../x", "/a b"]);
    }
}
