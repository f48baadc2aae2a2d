//! Which addresses a model may reach (P-91). Addresses are judged, not names: whatever a name or a notation is, in the end an
//! address is dialled.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What `tools.web.fetch.ssrfPolicy` opens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// `dangerouslyAllowPrivateNetwork`: this machine and its networks, but not what hands out credentials.
    pub private: bool,
    /// `allowRfc2544BenchmarkRange`.
    pub benchmark: bool,
    /// `allowIpv6UniqueLocalRange`.
    pub unique_local: bool,
    /// `allowedHostnames`, in lower case without a dot at the end: these may be anywhere.
    pub allowed: Vec<String>,
    /// `blockedHostnames`, exact or `*.suffix`: these may be nowhere.
    pub blocked: Vec<String>,
}

/// Services of clouds that give credentials to whoever asks from inside: AWS and most others, AWS over IPv6, ECS tasks and
/// EKS pods, Alibaba, Azure's wire server, Oracle.
const METADATA_V4: [Ipv4Addr; 6] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(169, 254, 170, 23),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)];

impl Policy {
    /// Whether the host may be tried at all.
    ///
    /// # Errors
    /// The reason, for the model.
    pub fn name(&self, host: &str) -> Result<(), &'static str> {
        let host = normal(host);
        let blocks = |rule: &String| match rule.strip_prefix("*.") {
            Some(suffix) => host.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.') && rest.len() > 1),
            None => *rule == host,
        };
        if self.blocked.iter().any(blocks) { Err("the owner has blocked this host") } else { Ok(()) }
    }

    /// Whether the address may be dialled for this host.
    ///
    /// # Errors
    /// The reason, for the model.
    pub fn address(&self, host: &str, address: IpAddr) -> Result<(), &'static str> {
        let kind = classify(address);
        let named = self.allowed.contains(&normal(host));
        match kind {
            Class::Public => Ok(()),
            // Nothing answers there that anybody could mean.
            Class::Nowhere(reason) => Err(reason),
            _ if named => Ok(()),
            Class::Metadata => Err("it is a cloud's metadata service"),
            Class::Benchmark if self.benchmark => Ok(()),
            Class::UniqueLocal if self.unique_local => Ok(()),
            Class::Benchmark | Class::UniqueLocal | Class::Private(_) if self.private => Ok(()),
            Class::Benchmark => Err("it is in the benchmark range"),
            Class::UniqueLocal => Err("it is a unique local address"),
            Class::Private(reason) => Err(reason),
        }
    }
}

/// Lower case, without the dot of the root.
pub(super) fn normal(host: &str) -> String {
    let host = host.strip_suffix('.').unwrap_or(host);
    host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Public,
    Private(&'static str),
    Benchmark,
    UniqueLocal,
    Metadata,
    Nowhere(&'static str),
}

fn classify(address: IpAddr) -> Class {
    match address {
        IpAddr::V4(v4) => classify_v4(v4),
        IpAddr::V6(v6) => classify_v6(v6),
    }
}

/// By the IANA special-purpose registry.
fn classify_v4(address: Ipv4Addr) -> Class {
    if METADATA_V4.contains(&address) {
        return Class::Metadata;
    }
    let [a, b, c, _] = address.octets();
    match (a, b, c) {
        (0, ..) => Class::Nowhere("it is no address of a host"),
        (127, ..) => Class::Private("it is this machine"),
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => Class::Private("it is in a private network"),
        (100, 64..=127, _) => Class::Private("it is in a carrier's or a tailnet's network"),
        (169, 254, _) => Class::Private("it is a link-local address"),
        (192, 0, 0) => Class::Private("it is set aside for protocols"),
        (192, 0, 2) | (198, 51, 100) | (203, 0, 113) => Class::Private("it is set aside for documentation"),
        (192, 88, 99) => Class::Private("it is a relay to other networks"),
        (198, 18..=19, _) => Class::Benchmark,
        (224..=239, ..) => Class::Nowhere("it is a multicast address"),
        (240.., ..) => Class::Nowhere("it is a reserved address"),
        _ => Class::Public,
    }
}

fn classify_v6(address: Ipv6Addr) -> Class {
    if METADATA_V6.contains(&address) {
        return Class::Metadata;
    }
    let [a, b, c, .., h7, h8] = address.segments();
    let last_v4 = || {
        let [x, y] = h7.to_be_bytes();
        let [z, w] = h8.to_be_bytes();
        Ipv4Addr::new(x, y, z, w)
    };
    match (a, b) {
        _ if address.is_unspecified() => Class::Nowhere("it is no address of a host"),
        _ if address.is_loopback() => Class::Private("it is this machine"),
        _ if address.to_ipv4_mapped().is_some() => inner(last_v4(), "it is an IPv4 address in disguise"),
        // ::a.b.c.d, long given up.
        _ if address.segments()[..6] == [0; 6] => inner(last_v4(), "it is an IPv4 address in disguise"),
        // Where there is no IPv4, names of IPv4 hosts resolve to these: as good as what is inside.
        (0x64, 0xff9b) if c == 0 && address.segments()[2..6] == [0; 4] => classify_v4(last_v4()),
        (0x64, 0xff9b) => inner(last_v4(), "it is translated to a network of its own"),
        (0x2002, _) => inner(Ipv4Addr::from((u32::from(b) << 16) | u32::from(c)), "it is a relay to an IPv4 address"),
        // Teredo keeps the client's address inverted at the end.
        (0x2001, 0) => inner(Ipv4Addr::from(!u32::from(last_v4())), "it is a tunnel to an IPv4 address"),
        (0x2001, 0x1..=0x1ff) => Class::Private("it is set aside for protocols"),
        (0x2001, 0xdb8) | (0x3fff, 0..=0xfff) => Class::Private("it is set aside for documentation"),
        (0xfc00..=0xfdff, _) => Class::UniqueLocal,
        (0xfe80..=0xfebf, _) => Class::Private("it is a link-local address"),
        (0xfec0..=0xfeff, _) => Class::Private("it is a site-local address"),
        (0xff00.., _) => Class::Nowhere("it is a multicast address"),
        (0x2000..=0x3fff, _) => Class::Public,
        _ => Class::Nowhere("it is a reserved address"),
    }
}

/// Ways to write an IPv4 address in an IPv6 one. There is no honest reason to use them, so they are never better than
/// private, and as bad as what they hide.
fn inner(hidden: Ipv4Addr, reason: &'static str) -> Class {
    match classify_v4(hidden) {
        Class::Metadata => Class::Metadata,
        nowhere @ Class::Nowhere(_) => nowhere,
        _ => Class::Private(reason),
    }
}

#[cfg(test)]
mod tests {
    use url::{Host, Url};

    use super::*;

    /// The address a URL's host is when it is one, as the client reads it.
    fn literal(url: &str) -> Option<IpAddr> {
        match Url::parse(url).ok()?.host()? {
            Host::Ipv4(v4) => Some(v4.into()),
            Host::Ipv6(v6) => Some(v6.into()),
            Host::Domain(_) => None,
        }
    }

    #[test]
    fn p_91_every_notation_of_an_address_is_that_address() {
        let check = |host: &str, expected: &str| {
            let address = literal(&format!("http://{host}/")).unwrap_or_else(|| panic!("{host} is no address"));
            assert_eq!(address, expected.parse::<IpAddr>().unwrap(), "{host}");
        };
        for host in [
            "127.0.0.1",
            "127.1",
            "127.0.1",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "0177.0.0.1",
            "017700000001",
            "0x7f.0x0.0x0.0x1",
            "127.0.0.1.",
            "127.1.",
            "0x7F.0.1",
            "1２7.0.0.1",
            "①27.0.0.1",
            "127。0。0。1",
            "%31%32%37.0.0.1",
        ] {
            check(host, "127.0.0.1");
        }
        for host in [
            "169.254.169.254",
            "2852039166",
            "0xa9fea9fe",
            "0251.0376.0251.0376",
            "169.254.43518",
            "0xA9.0xFE.0xA9.0xFE",
        ] {
            check(host, "169.254.169.254");
        }
        check("0", "0.0.0.0");
        check("[::ffff:7f00:1]", "::ffff:127.0.0.1");
        check("[::ffff:127.0.0.1]", "::ffff:127.0.0.1");
        check("[0:0:0:0:0:ffff:7f00:0001]", "::ffff:127.0.0.1");
        check("[::127.0.0.1]", "::7f00:1");
        check("[0000:0000:0000:0000:0000:0000:0000:0001]", "::1");
        // No URLs at all.
        for host in
            ["127.0.0.256", "0x7f.0.0.0.1", "[::1%25lo]", "[fe80::1%25eth0]", "256.1", "1.2.3.4.5", "09.0.0.1", "[::1"]
        {
            assert!(Url::parse(&format!("http://{host}/")).is_err(), "{host}");
        }
    }

    #[test]
    fn p_91_what_is_not_public_is_refused() {
        let closed = Policy::default();
        let check = |address: &str, word: &str| {
            let refused = closed.address("example.com", address.parse().unwrap()).expect_err(address);
            assert!(refused.contains(word), "{address}: {refused}");
        };
        check("0.0.0.0", "no address");
        check("0.1.2.3", "no address");
        check("127.0.0.1", "this machine");
        check("127.255.255.254", "this machine");
        check("10.0.0.1", "private network");
        check("172.16.0.1", "private network");
        check("172.31.255.255", "private network");
        check("192.168.1.1", "private network");
        check("100.64.0.1", "tailnet");
        check("100.127.255.255", "tailnet");
        check("169.254.0.1", "link-local");
        check("192.0.0.1", "protocols");
        check("192.0.2.1", "documentation");
        check("198.51.100.1", "documentation");
        check("203.0.113.1", "documentation");
        check("192.88.99.1", "relay");
        check("198.18.0.1", "benchmark");
        check("198.19.255.255", "benchmark");
        check("224.0.0.1", "multicast");
        check("239.255.255.250", "multicast");
        check("240.0.0.1", "reserved");
        check("255.255.255.255", "reserved");
        for metadata in [
            "169.254.169.254",
            "169.254.170.2",
            "169.254.170.23",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "fd00:ec2::254",
            "fd00:ec2::23",
        ] {
            check(metadata, "metadata");
        }
        check("::", "no address");
        check("::1", "this machine");
        check("::ffff:127.0.0.1", "disguise");
        check("::ffff:8.8.8.8", "disguise");
        check("::ffff:169.254.169.254", "metadata");
        check("::7f00:1", "disguise");
        check("::8.8.8.8", "disguise");
        check("64:ff9b::127.0.0.1", "this machine");
        check("64:ff9b::10.0.0.1", "private network");
        check("64:ff9b::169.254.169.254", "metadata");
        check("64:ff9b:1::8.8.8.8", "translated");
        check("64:ff9b:1::169.254.169.254", "metadata");
        check("2002:7f00:1::", "relay");
        check("2002:808:808::1", "relay");
        check("2002:a9fe:a9fe::1", "metadata");
        // Teredo for 8.8.8.8.
        check("2001::f7f7:f7f7", "tunnel");
        // Teredo for 169.254.169.254.
        check("2001:0:4136:e378:8000:63bf:5601:5601", "metadata");
        check("2001:2::1", "protocols");
        check("2001:10::1", "protocols");
        check("2001:db8::1", "documentation");
        check("3fff::1", "documentation");
        check("fc00::1", "unique local");
        check("fdff::1", "unique local");
        check("fe80::1", "link-local");
        check("febf::1", "link-local");
        check("fec0::1", "site-local");
        check("ff02::1", "multicast");
        check("100::1", "reserved");
        check("4000::1", "reserved");
        check("5f00::1", "reserved");
    }

    #[test]
    fn what_is_public_is_reached() {
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.1",
            "100.63.255.255",
            "100.128.0.1",
            "126.255.255.255",
            "128.0.0.1",
            "169.253.1.1",
            "172.15.255.255",
            "172.32.0.1",
            "192.0.1.1",
            "192.167.1.1",
            "192.169.0.1",
            "198.17.1.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2a00:1450:4001::1",
            "2001:4860:4860::8888",
            "2003::1",
            "64:ff9b::8.8.8.8",
        ] {
            assert_eq!(Policy::default().address("example.com", address.parse().unwrap()), Ok(()), "{address}");
        }
    }

    #[test]
    fn the_owner_opens_what_is_named_and_no_more() {
        let ask = |policy: &Policy, host: &str, address: &str| policy.address(host, address.parse().unwrap()).is_ok();
        let private = Policy { private: true, ..Policy::default() };
        for address in ["127.0.0.1", "10.0.0.1", "::1", "fd12::1", "198.18.0.1", "::ffff:10.0.0.1", "100.64.1.1"] {
            assert!(ask(&private, "any", address), "{address}");
        }
        for address in ["169.254.169.254", "fd00:ec2::254", "::ffff:169.254.169.254", "0.0.0.0", "224.0.0.1", "::"] {
            assert!(!ask(&private, "any", address), "{address}");
        }
        let benchmark = Policy { benchmark: true, ..Policy::default() };
        assert!(ask(&benchmark, "any", "198.18.0.1") && !ask(&benchmark, "any", "10.0.0.1"));
        let local = Policy { unique_local: true, ..Policy::default() };
        assert!(
            ask(&local, "any", "fd12::1") && !ask(&local, "any", "fe80::1") && !ask(&local, "any", "fd00:ec2::254")
        );
        let named =
            Policy { allowed: vec!["wiki.internal".to_owned(), "169.254.169.254".to_owned()], ..Policy::default() };
        assert!(ask(&named, "wiki.internal", "10.0.0.1") && ask(&named, "WIKI.internal.", "10.0.0.1"));
        assert!(!ask(&named, "x.wiki.internal", "10.0.0.1") && !ask(&named, "10.0.0.1", "10.0.0.1"));
        assert!(ask(&named, "169.254.169.254", "169.254.169.254"));
        assert!(!ask(&named, "wiki.internal", "0.0.0.0"));

        let blocked =
            Policy { blocked: vec!["bad.com".to_owned(), "*.ads.com".to_owned()], private: true, ..Policy::default() };
        for (host, open) in [
            ("bad.com", false),
            ("BAD.com.", false),
            ("x.bad.com", true),
            ("ads.com", true),
            ("a.ads.com", false),
            ("a.b.ads.com", false),
            ("xads.com", true),
            (".ads.com", true),
        ] {
            assert_eq!(blocked.name(host).is_ok(), open, "{host}");
        }
    }
}
