//! Where other machines can reach this gateway: what goes into invitations and setup codes.
//!
//! An address is named only if the gateway listens on it. Whether a firewall stands before it, nobody here knows.

use std::net::{IpAddr, Ipv4Addr};

use openclaw_protocol::{
    method::invite::{AddressKind, GatewayAddress},
    setup_code::MAX_URLS,
};

use crate::bind::is_tailnet;

/// Prefixes of interfaces that lead to containers and virtual machines on this very host.
const INNER: &[&str] = &["docker", "br-", "veth", "virbr", "cni", "flannel", "podman", "lxc", "vmnet", "vboxnet"];

/// Facts that decide where a gateway can be reached.
#[derive(Clone, Copy, Debug)]
pub struct Listening<'a> {
    /// Addresses of the listeners.
    pub addresses: &'a [IpAddr],
    pub port: u16,
    /// Of the certificate, when the port speaks TLS.
    pub tls: Option<&'a str>,
    /// `gateway.publicOrigin`
    pub public_origin: Option<&'a str>,
}

/// Names and addresses of this machine's interfaces that are up.
pub fn interfaces() -> Vec<(String, IpAddr)> {
    let list = if_addrs::get_if_addrs().unwrap_or_default();
    list.into_iter().map(|interface| (interface.name.clone(), interface.ip())).collect()
}

/// The ways in, best first: the same network, the tailnet, everywhere. Empty when only this machine can reach it.
pub fn addresses(listening: Listening<'_>, interfaces: &[(String, IpAddr)]) -> Vec<GatewayAddress> {
    let anywhere = listening.addresses.iter().any(IpAddr::is_unspecified);
    let own = interfaces.iter().filter(|(name, _)| anywhere && !INNER.iter().any(|prefix| name.starts_with(prefix)));
    let fixed = listening.addresses.iter().filter(|address| !address.is_unspecified());
    let scheme = if listening.tls.is_some() { "wss" } else { "ws" };
    let mut found: Vec<GatewayAddress> = Vec::new();
    for address in fixed.copied().chain(own.map(|(_, address)| *address)) {
        // The listeners of `lan` are IPv4 only.
        let IpAddr::V4(v4) = address else { continue };
        // Clients send nothing in the clear to a public address.
        let Some(kind) = kind_of(v4).filter(|kind| *kind != AddressKind::Public || listening.tls.is_some()) else {
            continue;
        };
        let url = format!("{scheme}://{v4}:{}", listening.port);
        if !found.iter().any(|known| known.url == url) {
            found.push(GatewayAddress { kind, url, tls_fingerprint: listening.tls.map(str::to_owned) });
        }
    }
    if let Some(url) = listening.public_origin.and_then(socket_url) {
        found.push(GatewayAddress { kind: AddressKind::Public, url, tls_fingerprint: None });
    }
    found.sort_by_key(|address| address.kind);
    found.truncate(MAX_URLS);
    found
}

fn kind_of(address: Ipv4Addr) -> Option<AddressKind> {
    if address.is_loopback() || address.is_link_local() || address.is_unspecified() {
        return None;
    }
    Some(match address {
        v4 if is_tailnet(v4.into()) => AddressKind::Tailnet,
        v4 if v4.is_private() => AddressKind::Lan,
        _ => AddressKind::Public,
    })
}

/// `wss://…` of an `https://` or `wss://` address, `ws://…` of the others; `None` for what is no plain address: no user, no
/// query, nothing behind it.
pub fn socket_url(text: &str) -> Option<String> {
    let uri: http::Uri = text.trim().parse().ok()?;
    let scheme = match uri.scheme_str()? {
        "https" | "wss" => "wss",
        "http" | "ws" => "ws",
        _ => return None,
    };
    let authority = uri.authority()?;
    if authority.as_str().contains('@') || authority.host().is_empty() || uri.query().is_some() || text.contains('#') {
        return None;
    }
    Some(format!("{scheme}://{authority}{}", uri.path().trim_end_matches('/')))
}

/// True where a code may travel in the clear: to this machine, or within a private network.
pub fn may_be_plain(url: &str) -> bool {
    let Some(host) = url.parse::<http::Uri>().ok().and_then(|uri| uri.host().map(str::to_ascii_lowercase)) else {
        return false;
    };
    match host.parse::<Ipv4Addr>() {
        Ok(v4) => v4.is_loopback() || kind_of(v4) == Some(AddressKind::Lan),
        Err(_) => host == "localhost" || host == "[::1]" || host.ends_with(".local"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(listening: &[&str], tls: bool, origin: Option<&str>) -> Vec<String> {
        let parse = |text: &str| text.parse::<IpAddr>().expect("an address");
        let interfaces = [
            ("lo", "127.0.0.1"),
            ("tailscale0", "100.101.102.103"),
            ("eth0", "192.168.77.10"),
            ("eth0", "fe80::1"),
            ("eth0", "169.254.3.3"),
            ("docker0", "172.17.0.1"),
            ("br-0123", "172.18.0.1"),
            ("eth1", "203.0.113.9"),
        ];
        let interfaces: Vec<_> =
            interfaces.into_iter().map(|(name, address)| (name.to_owned(), parse(address))).collect();
        let addresses: Vec<IpAddr> = listening.iter().map(|text| parse(text)).collect();
        let facts = Listening { addresses: &addresses, port: 18789, tls: tls.then_some("ab"), public_origin: origin };
        let show = |address: GatewayAddress| {
            format!("{:?} {}{}", address.kind, address.url, address.tls_fingerprint.map_or("", |_| " pinned"))
        };
        super::addresses(facts, &interfaces).into_iter().map(show).collect()
    }

    #[test]
    fn only_where_it_listens() {
        assert_eq!(found(&["127.0.0.1"], false, None), [""; 0]);
        assert_eq!(
            found(&["0.0.0.0"], false, None),
            ["Lan ws://192.168.77.10:18789", "Tailnet ws://100.101.102.103:18789"],
            "nothing in the clear to everywhere"
        );
        assert_eq!(found(&["203.0.113.9"], true, None), ["Public wss://203.0.113.9:18789 pinned"]);
        assert_eq!(found(&["127.0.0.1", "100.101.102.103"], false, None), ["Tailnet ws://100.101.102.103:18789"]);
        assert_eq!(found(&["127.0.0.1", "192.168.77.10"], true, None), ["Lan wss://192.168.77.10:18789 pinned"]);
        assert_eq!(
            found(&["127.0.0.1"], true, Some("https://gw.example.com")),
            ["Public wss://gw.example.com"],
            "its certificate is the proxy's"
        );
    }

    #[test]
    fn addresses_as_people_write_them() {
        for (text, expected) in [
            ("https://gw.example.com/", Some("wss://gw.example.com")),
            ("https://gw.example.com:8443/oc/", Some("wss://gw.example.com:8443/oc")),
            ("ws://192.168.1.2:18789", Some("ws://192.168.1.2:18789")),
            ("gw.example.com", None),
            ("ftp://gw.example.com", None),
            ("https://me:secret@gw.example.com", None),
            ("https://gw.example.com/?token=x", None),
            ("https://gw.example.com/#token=x", None),
            ("", None),
        ] {
            assert_eq!(socket_url(text).as_deref(), expected, "{text}");
        }
        for (url, plain) in [
            ("ws://192.168.1.2:18789", true),
            ("ws://127.0.0.1:1", true),
            ("ws://box.local:1", true),
            ("ws://100.64.0.1:1", false),
            ("ws://203.0.113.9:1", false),
            ("ws://gw.example.com", false),
            ("ws://192.168.1.2.example.com", false),
        ] {
            assert_eq!(may_be_plain(url), plain, "{url}");
        }
    }
}
