//! What kind of place an address is, decided from the literal address and never from a name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Class of an IP address, for the plaintext rule and for hints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressClass {
    /// 127.0.0.0/8, `::1`.
    Loopback,
    /// RFC 1918 and IPv6 unique local (fc00::/7, which holds Tailscale's IPv6 range).
    Private,
    /// 169.254.0.0/16, fe80::/10.
    LinkLocal,
    /// 100.64.0.0/10: carrier-grade NAT, used by Tailscale.
    SharedNat,
    /// 0.0.0.0, `::`: a bind address, never a destination.
    Unspecified,
    /// Everything else.
    Public,
}

impl AddressClass {
    /// IPv4-mapped IPv6 addresses count as the IPv4 address they hold, because that is where the packets go.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::of_v4(v4),
            IpAddr::V6(v6) => Self::of_v6(v6),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        let [a, b, ..] = address.octets();
        match address {
            _ if address.is_loopback() => Self::Loopback,
            _ if address.is_unspecified() => Self::Unspecified,
            _ if address.is_private() => Self::Private,
            _ if address.is_link_local() => Self::LinkLocal,
            _ if a == 100 && b & 0xc0 == 64 => Self::SharedNat,
            _ => Self::Public,
        }
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        match address {
            _ if address.is_loopback() => Self::Loopback,
            _ if address.is_unspecified() => Self::Unspecified,
            _ if address.is_unique_local() => Self::Private,
            _ if address.is_unicast_link_local() => Self::LinkLocal,
            _ => Self::Public,
        }
    }

    /// True where plaintext `ws://` may go (S-141…S-146).
    pub const fn allows_plaintext(self) -> bool {
        matches!(self, Self::Loopback | Self::Private | Self::LinkLocal | Self::SharedNat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes() {
        let check = |text: &str, expected: AddressClass| {
            let address: IpAddr = text.parse().expect(text);
            assert_eq!(AddressClass::of(address), expected, "{text}");
        };
        for (text, expected) in [
            ("127.0.0.1", AddressClass::Loopback),
            ("127.255.0.9", AddressClass::Loopback),
            ("::1", AddressClass::Loopback),
            ("::ffff:127.0.0.1", AddressClass::Loopback),
            ("10.0.0.1", AddressClass::Private),
            ("172.16.0.1", AddressClass::Private),
            ("172.31.255.255", AddressClass::Private),
            ("172.32.0.1", AddressClass::Public),
            ("192.168.0.202", AddressClass::Private),
            ("192.169.0.1", AddressClass::Public),
            ("fd7a:115c:a1e0::1", AddressClass::Private),
            ("169.254.3.4", AddressClass::LinkLocal),
            ("fe80::1", AddressClass::LinkLocal),
            ("febf::1", AddressClass::LinkLocal),
            ("fec0::1", AddressClass::Public),
            ("100.64.0.1", AddressClass::SharedNat),
            ("100.127.255.255", AddressClass::SharedNat),
            ("100.128.0.1", AddressClass::Public),
            ("100.63.255.255", AddressClass::Public),
            ("0.0.0.0", AddressClass::Unspecified),
            ("::", AddressClass::Unspecified),
            ("8.8.8.8", AddressClass::Public),
            ("::ffff:8.8.8.8", AddressClass::Public),
            ("2001:db8::1", AddressClass::Public),
            ("255.255.255.255", AddressClass::Public),
            ("224.0.0.1", AddressClass::Public),
        ] {
            check(text, expected);
        }
    }
}
