//! Beacons: everything that announces itself as a gateway, by multicast on the local network and in a domain of unicast
//! DNS. For looking at; nothing connects to a beacon by itself.
//!
//! The place is what SRV and address records say. Whatever the TXT record says is shown as what it is, a claim.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use super::{Interfaces, MAX_PER_SOURCE, is_reachable, mdns, printable, wide_area};

/// Longest value kept of a TXT record, in characters.
const MAX_VALUE_CHARS: usize = 255;
/// Keys kept of a TXT record.
const MAX_KEYS: usize = 32;

/// One announcement of a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beacon {
    /// `local.`, or the domain it was found in, with the final dot.
    pub domain: String,
    pub instance: String,
    /// Host of the SRV record, without the final dot.
    pub host: String,
    pub port: u16,
    pub addresses: Vec<IpAddr>,
    /// Claims, by key.
    pub txt: BTreeMap<String, String>,
}

impl Beacon {
    /// A claim; empty ones are none.
    pub fn claim(&self, key: &str) -> Option<&str> {
        self.txt.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub fn claims_tls(&self) -> bool {
        self.claim("gatewayTls") == Some("1")
    }

    /// Where a person may connect to: scheme by what is claimed, place by SRV.
    pub fn url(&self) -> String {
        let scheme = if self.claims_tls() { "wss" } else { "ws" };
        format!("{scheme}://{}:{}", self.host, self.port)
    }
}

/// What was found, and why a domain gave nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beacons {
    pub found: Vec<Beacon>,
    /// Domain and reason.
    pub silent: Vec<(String, String)>,
}

/// Looks on the local network and, where one is given, in a domain, for `time` at most. Each beacon is listed once.
pub async fn beacons(domain: Option<&str>, time: Duration) -> Beacons {
    let lan = async {
        let asked = tokio::task::spawn_blocking(move || mdns::services(Interfaces::Real, time)).await;
        asked.map_err(|error| error.to_string()).and_then(|asked| asked)
    };
    let wide = async {
        match domain {
            Some(domain) => Some((domain, wide_area::browse(domain, time).await)),
            None => None,
        }
    };
    let (lan, wide) = tokio::join!(lan, wide);
    let mut all = Beacons::default();
    match lan {
        Ok(services) => all.found.extend(services.iter().filter_map(of_service)),
        Err(reason) => all.silent.push(("local.".into(), reason)),
    }
    match wide {
        None => {}
        Some((_, Ok(found))) => all.found.extend(found),
        Some((domain, Err(reason))) => all.silent.push((format!("{}.", domain.trim_end_matches('.')), reason)),
    }
    all.found = once(all.found);
    all
}

fn of_service(service: &mdns_sd::ResolvedService) -> Option<Beacon> {
    let instance = service.fullname.strip_suffix(mdns::SERVICE).unwrap_or(&service.fullname);
    let txt = service.txt_properties.iter().map(|property| (property.key().to_owned(), property.val_str().to_owned()));
    let addresses = service.addresses.iter().map(mdns_sd::ScopedIp::to_ip_addr);
    new("local.", instance.trim_end_matches('.'), &service.host, service.port, addresses.collect(), txt.collect())
}

/// Puts a beacon together from what strangers sent; `None` when it is no gateway's.
pub(super) fn new(
    domain: &str,
    instance: &str,
    host: &str,
    port: u16,
    mut addresses: Vec<IpAddr>,
    txt: Vec<(String, String)>,
) -> Option<Beacon> {
    let host = host.trim_end_matches('.');
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if port == 0 || host.is_empty() || host.len() > 253 || !host.chars().all(plain) || host.starts_with('-') {
        return None;
    }
    let mut kept = BTreeMap::new();
    for (key, value) in txt.into_iter().take(MAX_KEYS) {
        let safe: String = value.chars().filter(|c| !c.is_control()).take(MAX_VALUE_CHARS).collect();
        // The first of equal keys counts (RFC 6763, section 6.4).
        kept.entry(printable(&key)).or_insert(safe);
    }
    if kept.get("role").is_some_and(|role| role != "gateway") {
        return None;
    }
    // Link-local addresses mean nothing without their interface; the host's name resolves where they work.
    addresses.retain(|address| is_reachable(*address));
    addresses.sort();
    addresses.dedup();
    addresses.truncate(8);
    let instance = printable(&unescaped(instance));
    Some(Beacon { domain: domain.to_owned(), instance, host: host.to_owned(), port, addresses, txt: kept })
}

/// DNS-SD names as people wrote them: `\032` for a space, `\.` for a dot.
fn unescaped(name: &str) -> String {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let digits = rest.get(..3).filter(|digits| digits.iter().all(u8::is_ascii_digit));
        let code = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u8>().ok());
        match (code, rest.split_first()) {
            (Some(code), _) => {
                bytes.push(code);
                rest = &rest[3..];
            }
            (None, Some((&escaped, after))) => {
                bytes.push(escaped);
                rest = after;
            }
            (None, None) => {}
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn once(all: Vec<Beacon>) -> Vec<Beacon> {
    let mut kept: Vec<Beacon> = Vec::new();
    for beacon in all {
        let same = |known: &Beacon| {
            known.domain == beacon.domain
                && known.instance == beacon.instance
                && known.host.eq_ignore_ascii_case(&beacon.host)
                && known.port == beacon.port
        };
        if !kept.iter().any(same) && kept.len() < 2 * MAX_PER_SOURCE {
            kept.push(beacon);
        }
    }
    kept.sort_by(|a, b| (&a.instance, &a.domain, &a.host).cmp(&(&b.instance, &b.domain, &b.host)));
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn txt(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn p_89_the_place_is_what_srv_says_and_the_rest_are_claims() {
        let claims = [
            ("role", "gateway"),
            ("gatewayPort", "1"),
            ("lanHost", "evil.example"),
            ("gatewayTls", "1"),
            ("gatewayTlsSha256", "ff"),
            ("displayName", "\u{1b}[2Jyours"),
        ];
        let beacon = new("local.", "My\\032Box\\.x", "box.local.", 18789, Vec::new(), txt(&claims)).expect("a beacon");
        assert_eq!((beacon.url().as_str(), beacon.instance.as_str()), ("wss://box.local:18789", "My Box.x"));
        assert_eq!(beacon.claim("displayName"), Some("[2Jyours"));
        for host in ["", ".", "-x", "a b", "$(id)", "a;b", "user@host", "a/b", &"x".repeat(300)] {
            assert_eq!(new("local.", "x", host, 1, Vec::new(), Vec::new()), None, "{host}");
        }
        assert_eq!(new("local.", "x", "box", 0, Vec::new(), Vec::new()), None);
        assert_eq!(new("local.", "x", "box", 1, Vec::new(), txt(&[("role", "node")])), None);
    }

    #[test]
    fn each_is_listed_once() {
        let beacon = |domain: &str, instance: &str, host: &str| new(domain, instance, host, 1, Vec::new(), Vec::new());
        let all = [
            beacon("local.", "b", "b.local."),
            beacon("local.", "b", "B.local"),
            beacon("local.", "a", "a.local"),
            beacon("x.internal.", "a", "a.x.internal"),
        ];
        let kept = once(all.into_iter().flatten().collect());
        let names: Vec<&str> = kept.iter().map(|beacon| beacon.host.as_str()).collect();
        assert_eq!(names, ["a.local", "a.x.internal", "b.local"]);
    }

    #[test]
    fn escapes() {
        for (name, expected) in [
            ("plain", "plain"),
            ("a\\032b", "a b"),
            ("\\195\\169", "é"),
            ("a\\.b\\\\", "a.b\\"),
            ("x\\", "x"),
            ("\\999", "999"),
        ] {
            assert_eq!(unescaped(name), expected, "{name}");
        }
    }
}
