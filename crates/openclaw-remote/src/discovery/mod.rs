//! Where a gateway may be: hosts of the person's ssh config, gateways that announce themselves on the local network,
//! machines of the tailnet.
//!
//! All of it is hearsay. A candidate is a suggestion to a person; nothing found here is a credential, a pin or a right, and
//! whatever it says of itself is checked again by whoever connects (security case P-89). Looking sends the three questions
//! (a multicast query, one request to this machine's own tailscaled, none for the ssh config), and [`greet`] then opens a
//! TCP connection to each candidate's ssh port and reads the line every ssh server begins with. Nothing is said to it.

mod beacon;
mod greeting;
mod mdns;
mod tailnet;
mod wide_area;

use std::{collections::HashMap, net::IpAddr, path::PathBuf, time::Duration};

use tokio::time::timeout;

use crate::ssh::SshTarget;

pub use beacon::{Beacon, Beacons, beacons};
pub use greeting::{Greeting, greet};
pub use mdns::{Announcement, Interfaces, SERVICE};
pub use tailnet::{Peer, TailnetError};

/// Most candidates of one source. A hostile network can announce any number.
const MAX_PER_SOURCE: usize = 64;
/// Longest name kept, in characters. DNS labels have at most 63 bytes.
const MAX_NAME_CHARS: usize = 64;
/// How long announcements are collected: announcing and resolving take about 0.8 s each way (measured against avahi 0.8).
pub const BROWSE_TIME: Duration = Duration::from_millis(1200);

/// Who told us about a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// A `Host` of the ssh config.
    SshConfig,
    /// An announcement of a gateway on the local network.
    Lan,
    /// A machine of the tailnet.
    Tailnet,
}

impl Source {
    pub const ALL: [Self; 3] = [Self::SshConfig, Self::Lan, Self::Tailnet];

    /// The word in JSON output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SshConfig => "ssh-config",
            Self::Lan => "lan",
            Self::Tailnet => "tailnet",
        }
    }
}

/// A machine that may hold a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What to show; printable, bounded, and anything at all otherwise.
    pub name: String,
    /// What ssh would be asked for.
    pub target: SshTarget,
    pub sources: Vec<Source>,
    /// Where it said that it is. Empty for ssh hosts: only ssh knows.
    pub addresses: Vec<IpAddr>,
    /// Port of the gateway, where it announced one.
    pub gateway_port: Option<u16>,
    /// Operating system, where the tailnet knows it.
    pub os: Option<String>,
}

/// Why a source gave nothing although it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    pub source: Source,
    pub reason: String,
}

/// What was found, best known first: ssh hosts, then announced gateways, then the tailnet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub candidates: Vec<Candidate>,
    pub silent: Vec<Silence>,
}

/// Where to look.
#[derive(Clone, Debug)]
pub struct Places {
    /// Aliases of the ssh config, already read.
    pub ssh_hosts: Vec<String>,
    /// Where to listen for announcements; `None` does not.
    pub lan: Option<Interfaces>,
    /// The socket of this machine's tailscaled; the `tailscale` program is asked when it is not there. `None` asks nobody.
    pub tailscaled: Option<PathBuf>,
}

impl Places {
    /// All of this machine, with these ssh hosts.
    pub fn of_this_machine(ssh_hosts: Vec<String>) -> Self {
        Self { ssh_hosts, lan: Some(Interfaces::Real), tailscaled: Some(tailnet::default_socket()) }
    }
}

/// Looks everywhere at once.
pub async fn browse(places: Places) -> Found {
    let lan = async {
        match places.lan {
            Some(interfaces) => mdns::browse(interfaces, BROWSE_TIME).await,
            None => Ok(Vec::new()),
        }
    };
    let tailnet = async {
        match &places.tailscaled {
            Some(socket) => match timeout(BROWSE_TIME, tailnet::peers(socket)).await {
                Ok(found) => found,
                Err(_) => Err(TailnetError::Slow),
            },
            None => Ok(Vec::new()),
        }
    };
    let (lan, tailnet) = tokio::join!(lan, tailnet);
    let mut found = Found::default();
    let hosts = places.ssh_hosts.iter().filter_map(|alias| of_ssh_host(alias));
    let mut all: Vec<Candidate> = hosts.take(MAX_PER_SOURCE).collect();
    match lan {
        Ok(announced) => all.extend(announced.iter().filter_map(of_announcement).take(MAX_PER_SOURCE)),
        Err(reason) => found.silent.push(Silence { source: Source::Lan, reason }),
    }
    match tailnet {
        Ok(peers) => all.extend(peers.iter().filter_map(of_peer).take(MAX_PER_SOURCE)),
        // A machine without Tailscale is nothing to talk about.
        Err(TailnetError::Absent) => {}
        Err(error) => found.silent.push(Silence { source: Source::Tailnet, reason: error.to_string() }),
    }
    found.candidates = merge(all);
    found
}

fn of_ssh_host(alias: &str) -> Option<Candidate> {
    let target: SshTarget = alias.parse().ok()?;
    Some(Candidate {
        name: printable(alias),
        target,
        sources: vec![Source::SshConfig],
        addresses: Vec::new(),
        gateway_port: None,
        os: None,
    })
}

/// The host of the SRV record and its addresses count; what the TXT record says is a label at most.
fn of_announcement(announced: &Announcement) -> Option<Candidate> {
    let host = announced.host.trim_end_matches('.');
    let address = announced.addresses.iter().find(|address| is_reachable(**address));
    // A `.local` name needs a resolver that knows multicast DNS, and many machines have none; the address needs nothing.
    let place = address.map_or_else(|| host.to_owned(), |address| bracketed(*address));
    let target = match announced.ssh_port {
        Some(port) if port != 22 => format!("{place}:{port}").parse().ok()?,
        _ => place.parse().ok()?,
    };
    Some(Candidate {
        name: printable(announced.display_name.as_deref().unwrap_or(host)),
        target,
        sources: vec![Source::Lan],
        addresses: announced.addresses.clone(),
        gateway_port: Some(announced.port),
        os: None,
    })
}

fn of_peer(peer: &Peer) -> Option<Candidate> {
    let target = match (&peer.dns_name, peer.addresses.first()) {
        (Some(name), _) => name.parse().ok(),
        (None, Some(address)) => bracketed(*address).parse().ok(),
        (None, None) => None,
    }?;
    Some(Candidate {
        name: printable(&peer.name),
        target,
        sources: vec![Source::Tailnet],
        addresses: peer.addresses.clone(),
        gateway_port: None,
        os: peer.os.as_deref().map(printable),
    })
}

/// Link-local IPv6 addresses mean nothing without an interface, which an ssh target cannot carry.
fn is_reachable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => true,
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    }
}

fn bracketed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// One entry per ssh target, in the order in which each was first named.
fn merge(all: Vec<Candidate>) -> Vec<Candidate> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut merged: Vec<Candidate> = Vec::new();
    for candidate in all {
        let key = candidate.target.to_string().to_ascii_lowercase();
        let Some(known) = seen.get(&key).and_then(|index| merged.get_mut(*index)) else {
            seen.insert(key, merged.len());
            merged.push(candidate);
            continue;
        };
        for source in candidate.sources {
            if !known.sources.contains(&source) {
                known.sources.push(source);
            }
        }
        for address in candidate.addresses {
            if !known.addresses.contains(&address) {
                known.addresses.push(address);
            }
        }
        known.gateway_port = known.gateway_port.or(candidate.gateway_port);
        known.os = known.os.take().or(candidate.os);
    }
    merged
}

/// Without control characters and direction marks, and no longer than a label may be. Who prints it escapes it again.
fn printable(text: &str) -> String {
    let safe = |c: &char| {
        !c.is_control() && !matches!(u32::from(*c), 0x200b..=0x200f | 0x202a..=0x202e | 0x2060..=0x206f | 0xfeff)
    };
    text.chars().filter(safe).take(MAX_NAME_CHARS).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announcement(host: &str, addresses: &[&str]) -> Announcement {
        Announcement {
            display_name: None,
            host: host.to_owned(),
            addresses: addresses.iter().map(|text| text.parse().expect("address")).collect(),
            port: 18789,
            ssh_port: None,
        }
    }

    fn target(candidate: Option<Candidate>) -> Option<String> {
        candidate.map(|candidate| candidate.target.to_string())
    }

    #[test]
    fn p_89_an_announcement_is_where_its_srv_record_leads() {
        let check = |announced: &Announcement, expected: Option<&str>| {
            assert_eq!(target(of_announcement(announced)).as_deref(), expected, "{announced:?}");
        };
        check(&announcement("box.local.", &["192.168.1.5"]), Some("192.168.1.5"));
        check(&announcement("box.local.", &[]), Some("box.local"));
        check(&announcement("box.local.", &["fe80::1", "fd00::5"]), Some("[fd00::5]"));
        check(&announcement("box.local.", &["fe80::1"]), Some("box.local"));
        let ssh = |port| Announcement { ssh_port: Some(port), ..announcement("box.local.", &["192.168.1.5"]) };
        check(&ssh(22), Some("192.168.1.5"));
        check(&ssh(2222), Some("192.168.1.5:2222"));
        // What ssh would read as an option, or a shell as a command, is no candidate.
        for host in ["-oProxyCommand=id", "$(id).local.", "a b.local.", "x;id", ""] {
            check(&announcement(host, &[]), None);
        }
    }

    #[test]
    fn p_89_names_are_labels_and_nothing_more() {
        let claimed = "\u{1b}[2J\u{202e}yours\u{7}\u{200b}".to_owned() + &"x".repeat(500);
        let announced = Announcement { display_name: Some(claimed), ..announcement("box.local.", &["192.168.1.5"]) };
        let name = of_announcement(&announced).expect("candidate").name;
        assert!(name.starts_with("[2Jyoursxx") && name.chars().count() <= MAX_NAME_CHARS, "{name:?}");
        assert!(!name.chars().any(|c| c.is_control() || c == '\u{202e}'), "{name:?}");
    }

    #[test]
    fn the_same_machine_is_listed_once() {
        let peer = Peer {
            name: "box".to_owned(),
            dns_name: Some("box.tail.ts.net".to_owned()),
            addresses: vec!["100.64.0.2".parse().expect("address")],
            os: Some("linux".to_owned()),
        };
        let all = [of_ssh_host("home"), of_ssh_host("Box.tail.ts.net"), of_peer(&peer)];
        let merged = merge(all.into_iter().flatten().collect());
        assert_eq!(merged.len(), 2);
        assert_eq!(merged[1].sources, [Source::SshConfig, Source::Tailnet]);
        assert_eq!((merged[1].os.as_deref(), merged[1].addresses.len()), (Some("linux"), 1));
    }

    #[tokio::test]
    async fn a_bare_machine_has_no_candidates_and_nothing_to_say() {
        let places = Places { ssh_hosts: vec!["-bad".to_owned()], lan: None, tailscaled: None };
        assert_eq!(browse(places).await, Found::default());
    }
}
