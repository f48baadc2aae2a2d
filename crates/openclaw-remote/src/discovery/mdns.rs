//! Gateways that announce themselves by multicast DNS on the local network (`_openclaw-gw._tcp`).
//!
//! Only ethernet and wireless interfaces are asked. Tunnels, the tailnet and container bridges have no gateways that
//! are not known otherwise, and a query there only tells who is looking.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use mdns_sd::{IfKind, IfPredicate, MDNS_PORT, ResolvedService, ServiceDaemon, ServiceEvent};

use super::MAX_PER_SOURCE;

/// The service of the reference (remote notes, section 4).
pub const SERVICE: &str = "_openclaw-gw._tcp.local.";
/// Addresses kept of one announcement.
const MAX_ADDRESSES: usize = 8;

/// Where to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interfaces {
    /// Ethernet and wireless.
    Real,
    /// Loopback on this port: for a test beside a system's own responder.
    Loopback { port: u16 },
}

/// One gateway, as it announced itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// `displayName` of the TXT record: a label.
    pub display_name: Option<String>,
    /// Host of the SRV record, with its final dot.
    pub host: String,
    /// A and AAAA records of that host, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// Port of the SRV record.
    pub port: u16,
    /// `sshPort` of the TXT record.
    pub ssh_port: Option<u16>,
}

/// Collects announcements for `time`.
///
/// # Errors
/// Why the network could not be asked, for a person.
pub async fn browse(interfaces: Interfaces, time: Duration) -> Result<Vec<Announcement>, String> {
    // The library has a thread of its own and a blocking receiver; both end with the daemon.
    let asked = tokio::task::spawn_blocking(move || collect(interfaces, time)).await;
    asked.map_err(|error| error.to_string())?
}

fn collect(interfaces: Interfaces, time: Duration) -> Result<Vec<Announcement>, String> {
    let mut found: Vec<Announcement> = services(interfaces, time)?.iter().filter_map(read).collect();
    found.sort_by(|a, b| (&a.host, a.port).cmp(&(&b.host, b.port)));
    Ok(found)
}

/// The services that were announced and resolved within `time`, at most [`MAX_PER_SOURCE`].
pub(super) fn services(interfaces: Interfaces, time: Duration) -> Result<Vec<ResolvedService>, String> {
    let end = Instant::now() + time;
    let failed = |error: mdns_sd::Error| format!("multicast DNS: {error}");
    let port = match interfaces {
        Interfaces::Real => MDNS_PORT,
        Interfaces::Loopback { port } => port,
    };
    let daemon = ServiceDaemon::new_with_port(port).map_err(failed)?;
    let found = (|| {
        daemon.disable_interface(IfKind::All)?;
        daemon.enable_interface(match interfaces {
            Interfaces::Real => {
                IfKind::Predicate(IfPredicate::new(|found| !found.is_loopback() && is_real(&found.name)))
            }
            Interfaces::Loopback { .. } => IfKind::LoopbackV4,
        })?;
        let events = daemon.browse(SERVICE)?;
        // By full name: an announcement may be resolved again with more addresses, or withdrawn.
        let mut found: HashMap<String, ResolvedService> = HashMap::new();
        while let Ok(event) = events.recv_deadline(end) {
            match event {
                ServiceEvent::ServiceResolved(service) => {
                    let room = found.len() < MAX_PER_SOURCE || found.contains_key(&service.fullname);
                    if room && read(&service).is_some() {
                        found.insert(service.fullname.clone(), *service);
                    }
                }
                ServiceEvent::ServiceRemoved(_, name) => drop(found.remove(&name)),
                _ => {}
            }
        }
        Ok(found)
    })();
    // Its thread ends by itself afterwards.
    let _ = daemon.shutdown();
    Ok(found.map_err(failed)?.into_values().collect())
}

fn read(service: &ResolvedService) -> Option<Announcement> {
    // Anything may announce under this name; a gateway says that it is one.
    if service.get_property_val_str("role").is_some_and(|role| role != "gateway") || service.port == 0 {
        return None;
    }
    let text = |key: &str| service.get_property_val_str(key).map(str::trim).filter(|text| !text.is_empty());
    let mut addresses: Vec<IpAddr> = service.addresses.iter().map(mdns_sd::ScopedIp::to_ip_addr).collect();
    addresses.sort();
    addresses.truncate(MAX_ADDRESSES);
    Some(Announcement {
        display_name: text("displayName").map(str::to_owned),
        host: service.host.clone(),
        addresses,
        port: service.port,
        ssh_port: text("sshPort").and_then(|port| port.parse().ok()).filter(|port| *port != 0),
    })
}

/// By name, since nothing portable says more: not a tunnel, not a bridge of containers or virtual machines.
fn is_real(name: &str) -> bool {
    const OTHERS: [&str; 13] =
        ["lo", "tailscale", "ts", "tun", "tap", "utun", "wg", "docker", "br-", "veth", "virbr", "cni", "zt"];
    !OTHERS.iter().any(|other| name.starts_with(other))
}

#[cfg(test)]
mod tests {
    use mdns_sd::ServiceInfo;

    use super::*;

    #[test]
    fn tunnels_and_bridges_are_not_asked() {
        for (name, expected) in [
            ("eth0", true),
            ("enp3s0", true),
            ("wlan0", true),
            ("en0", true),
            ("lan0", true),
            ("tailscale0", false),
            ("docker0", false),
            ("br-1a2b", false),
            ("veth12", false),
            ("utun3", false),
            ("wg0", false),
            ("lo", false),
        ] {
            assert_eq!(is_real(name), expected, "{name}");
        }
    }

    fn resolved(host: &str, port: u16, txt: &[(&str, &str)]) -> ResolvedService {
        ServiceInfo::new(SERVICE, "one", host, "192.168.1.5", port, txt).expect("service").as_resolved_service()
    }

    #[test]
    fn txt_records_are_labels() {
        let announced = read(&resolved(
            "box.local.",
            18789,
            &[
                ("role", "gateway"),
                ("displayName", "Kitchen"),
                ("lanHost", "evil.example"),
                ("gatewayPort", "1"),
                ("sshPort", "2222"),
            ],
        ))
        .expect("an announcement");
        assert_eq!((announced.host.as_str(), announced.port), ("box.local.", 18789), "the SRV record counts");
        assert_eq!((announced.display_name.as_deref(), announced.ssh_port), (Some("Kitchen"), Some(2222)));
        assert_eq!(read(&resolved("box.local.", 18789, &[("role", "node")])), None);
        assert_eq!(read(&resolved("box.local.", 0, &[])), None);
        assert_eq!(read(&resolved("box.local.", 1, &[("sshPort", "99999")])).expect("kept").ssh_port, None);
    }

    /// A free port instead of 5353, so that neither a system's responder nor another test is heard.
    fn free_port() -> u16 {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("loopback");
        socket.local_addr().expect("address").port()
    }

    /// A responder that announces these services on loopback until it is dropped.
    struct Responder(ServiceDaemon);

    impl Responder {
        fn start(port: u16, names: impl Iterator<Item = String>) -> Self {
            let daemon = ServiceDaemon::new_with_port(port).expect("daemon");
            daemon.disable_interface(IfKind::All).expect("command");
            daemon.enable_interface(IfKind::LoopbackV4).expect("command");
            for name in names {
                let txt: &[(&str, &str)] = &[("role", "gateway"), ("displayName", &name)];
                let mut service = ServiceInfo::new(SERVICE, &name, &format!("{name}.local."), "127.0.0.1", 18789, txt)
                    .expect("service");
                service.set_requires_probe(false);
                // The command queue is bounded: the daemon takes them as fast as it can.
                while let Err(error) = daemon.register(service.clone()) {
                    assert!(matches!(error, mdns_sd::Error::Again), "{error}");
                    std::thread::yield_now();
                }
            }
            Self(daemon)
        }
    }

    impl Drop for Responder {
        fn drop(&mut self) {
            let _ = self.0.shutdown();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_announced_gateway_is_found() {
        let port = free_port();
        let _responder = Responder::start(port, ["kitchen".to_owned()].into_iter());
        let found = browse(Interfaces::Loopback { port }, Duration::from_secs(3)).await.expect("asked");
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].host.as_str(), found[0].display_name.as_deref()), ("kitchen.local.", Some("kitchen")));
        assert_eq!(found[0].addresses, ["127.0.0.1".parse::<IpAddr>().expect("address")]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn p_89_a_flood_of_announcements_is_cut() {
        let port = free_port();
        let _responder = Responder::start(port, (0..1000).map(|number| format!("gw{number}")));
        let found = browse(Interfaces::Loopback { port }, Duration::from_secs(3)).await.expect("asked");
        assert!(!found.is_empty() && found.len() <= MAX_PER_SOURCE, "{}", found.len());
    }
}
