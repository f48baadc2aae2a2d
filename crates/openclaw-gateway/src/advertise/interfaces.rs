//! Which network interfaces multicast goes to: those by which a machine is in a room with others.
//!
//! By name, since nothing portable says more: not loopback, tunnels and the tailnet, not the bridges and cables of
//! containers and virtual machines. And by address: an interface that holds a tailnet address is the tailnet's, whatever
//! it is called. Within a container the one cable it has is usually called `eth0` and counts.

use std::net::IpAddr;

use if_addrs::{IfAddr, Interface};

use super::plan::is_tailnet_v6;
use crate::bind::is_tailnet;

/// Beginnings of the names of interfaces that lead to no room.
const OTHERS: [&str; 24] = [
    "lo",
    "tailscale",
    "ts",
    "utun",
    "tun",
    "tap",
    "wg",
    "zt",
    "nebula",
    "ppp",
    "ipsec",
    "docker",
    "br-",
    "veth",
    "virbr",
    "vnet",
    "vmnet",
    "vboxnet",
    "lxc",
    "lxdbr",
    "podman",
    "cni",
    "flannel",
    "cali",
];

/// True for an interface that is advertised on.
pub fn is_real(interface: &Interface) -> bool {
    let address = match &interface.addr {
        IfAddr::V4(v4) => IpAddr::V4(v4.ip),
        IfAddr::V6(v6) => IpAddr::V6(v6.ip),
    };
    !interface.is_loopback() && is_real_name(&interface.name) && !belongs_to_tailnet(address)
}

fn is_real_name(name: &str) -> bool {
    !OTHERS.iter().any(|other| name.starts_with(other))
}

fn belongs_to_tailnet(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V6(v6) => is_tailnet_v6(&v6),
        v4 => is_tailnet(v4),
    }
}

/// True within a container, as far as one can tell (the reference's signs).
pub fn in_container() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if set("FLY_MACHINE_ID") && set("FLY_APP_NAME") {
        return true;
    }
    if ["/.dockerenv", "/run/.containerenv", "/var/run/.containerenv"]
        .iter()
        .any(|path| std::path::Path::new(path).exists())
    {
        return true;
    }
    let groups = std::fs::read_to_string("/proc/1/cgroup").unwrap_or_default();
    ["/docker/", "cri-containerd-", "/kubepods", "containerd/", "/lxc/"].iter().any(|sign| groups.contains(sign))
}

#[cfg(test)]
mod tests {
    use if_addrs::Ifv4Addr;

    use super::*;

    #[test]
    fn only_where_others_are_in_the_room() {
        let check = |name: &str, address: &str, expected: bool| {
            let ip = address.parse().unwrap();
            let addr = IfAddr::V4(Ifv4Addr { ip, netmask: [255, 255, 255, 0].into(), prefixlen: 24, broadcast: None });
            let interface = Interface {
                name: name.to_owned(),
                addr,
                index: Some(1),
                oper_status: if_addrs::IfOperStatus::Up,
                is_p2p: false,
            };
            assert_eq!(is_real(&interface), expected, "{name} {address}");
        };
        for name in ["eth0", "enp3s0", "wlan0", "en0", "lan0", "br0", "bond0", "cafe0"] {
            check(name, "192.168.1.5", true);
        }
        for name in ["lo", "tailscale0", "docker0", "br-1a2b", "veth12", "virbr0", "utun3", "wg0", "tun0", "lxdbr0"] {
            check(name, "192.168.1.5", false);
        }
        check("eth0", "127.0.0.2", false);
        // A tailnet under another name.
        check("mynet0", "100.100.1.2", false);
    }
}
