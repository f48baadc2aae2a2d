//! Which `Host` and `Origin` values belong to this gateway. Together they stop DNS rebinding and cross-site WebSockets.

use std::net::IpAddr;

use super::evidence::{Evidence, Origin, normal_origin, split_authority};

/// Suffixes nobody can register in public DNS, or that only a tailnet resolves.
const PRIVATE_SUFFIXES: &[&str] =
    &[".local", ".lan", ".home", ".internal", ".localdomain", ".home.arpa", ".ts.net", ".localhost"];

/// The names and origins the owner declared.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// `gateway.controlUi.allowedOrigins`, normalised.
    pub allowed_origins: Vec<String>,
    /// `*` was in the list.
    pub any_origin: bool,
    /// `gateway.controlUi.dangerouslyAllowHostHeaderOriginFallback`.
    pub host_header_fallback: bool,
    /// The listener speaks TLS, so its own origin is `https`.
    pub tls: bool,
}

impl Names {
    /// Builds the set from config. Entries that are no origin are left out: they can match nothing.
    pub fn new(allowed: &[String], public_origin: Option<&str>, host_header_fallback: bool, tls: bool) -> Self {
        let listed = allowed.iter().map(String::as_str).chain(public_origin);
        Self {
            allowed_origins: listed.filter_map(normal_origin).collect(),
            any_origin: allowed.iter().any(|entry| entry.trim() == "*"),
            host_header_fallback,
            tls,
        }
    }

    /// True when a request for this `Host` may be served: an address, a name only this machine or its private network
    /// can mean, or the host of a declared origin.
    pub fn accepts_host(&self, host: Option<&str>) -> bool {
        let Some((name, _)) = host.and_then(split_authority) else { return false };
        if is_private_name(name) || bare_ip(name).is_some() {
            return true;
        }
        let declared =
            |origin: &String| origin.split_once("://").and_then(|(_, a)| split_authority(a)).map(|(h, _)| h == name);
        self.host_header_fallback || self.allowed_origins.iter().any(|origin| declared(origin) == Some(true))
    }

    /// Checks a browser's origin; the caller has made sure there should be one.
    ///
    /// # Errors
    /// The `details.reason` of the refusal.
    pub fn check_origin(&self, evidence: &Evidence) -> Result<(), &'static str> {
        let Origin::Given(origin) = &evidence.origin else { return Err("origin missing or invalid") };
        if self.any_origin || self.allowed_origins.contains(origin) {
            return Ok(());
        }
        let own = evidence.host.as_deref().and_then(|host| {
            let (name, _) = split_authority(host)?;
            let trusted =
                self.host_header_fallback || is_private_name(name) || bare_ip(name).is_some_and(is_private_ip);
            trusted.then(|| normal_origin(&format!("{}://{host}", if self.tls { "https" } else { "http" })))?
        });
        if own.as_ref() == Some(origin) { Ok(()) } else { Err("origin not allowed") }
    }
}

fn is_private_name(name: &str) -> bool {
    // A single label cannot be a public name; a resolver only finds it in the machine's own search domain.
    let single_label =
        !name.contains('.') && !name.starts_with('[') && name.parse::<u64>().is_err() && !name.starts_with("0x");
    single_label || PRIVATE_SUFFIXES.iter().any(|suffix| name.ends_with(suffix) && name.len() > suffix.len())
}

fn bare_ip(name: &str) -> Option<IpAddr> {
    name.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Loopback, RFC 1918, link-local, unique local and carrier-grade NAT (Tailscale) addresses.
pub fn is_private_ip(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_loopback() || v4.is_private() || v4.is_link_local() || (a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Peer;

    fn check(names: &Names, host: &str, origin: &str) -> bool {
        let mut headers = http::HeaderMap::new();
        headers.insert("host", host.parse().expect("host"));
        headers.insert("origin", origin.parse().expect("origin"));
        let peer = Peer::Tcp("127.0.0.1:9".parse().expect("peer"));
        names.check_origin(&Evidence::gather(peer, &headers, |_| false)).is_ok()
    }

    #[test]
    fn p_03_look_alike_origins() {
        let names = Names::new(&["https://ui.example.com".into()], None, false, false);
        assert!(check(&names, "127.0.0.1:18789", "https://ui.example.com"));
        assert!(check(&names, "127.0.0.1:18789", "HTTPS://UI.example.com:443"));
        assert!(check(&names, "127.0.0.1:18789", "http://127.0.0.1:18789"));
        for evil in [
            "https://ui.example.com.evil.test",
            "https://evil.test/ui.example.com",
            "https://ui.example.com@evil.test",
            "https://ui.example.com.",
            "https://ui.example.com:444",
            "http://ui.example.com",
            "https://xui.example.com",
            "https://ui.example.com\\@evil.test",
            "https://xn--ui-example.com",
            "http://127.0.0.1:18790",
            "https://127.0.0.1:18789",
            "http://localhost:18789",
            "null",
        ] {
            assert!(!check(&names, "127.0.0.1:18789", evil), "{evil}");
        }
    }

    #[test]
    fn p_04_rebinding_hosts() {
        let names = Names::new(&["https://ui.example.com".into()], None, false, false);
        for good in [
            "127.0.0.1:1",
            "localhost",
            "localhost:18789",
            "[::1]:18789",
            "192.168.1.5",
            "8.8.8.8",
            "mac.local:18789",
            "a.b.ts.net",
            "pi:18789",
            "ui.example.com",
        ] {
            assert!(names.accepts_host(Some(good)), "{good}");
        }
        for bad in [
            "evil.test",
            "evil.test:18789",
            "127.0.0.1.evil.test",
            "localhost.evil.test",
            "evil.test.",
            "",
            "a b",
            "2130706433",
            "0x7f000001",
            ".local",
        ] {
            assert!(!names.accepts_host(Some(bad)), "{bad}");
        }
        assert!(!names.accepts_host(None));
        assert!(!check(&names, "evil.test", "http://evil.test"));
    }
}
