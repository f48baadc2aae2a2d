//! What is to be advertised, from settings, environment and machine. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use openclaw_config::gateway::DiscoveryConfig;

use super::zone::Domain;
use crate::bind::is_tailnet;

/// Longest DNS label, bytes.
const MAX_LABEL_BYTES: usize = 63;
/// Longest string in a TXT record, bytes.
const MAX_TXT_BYTES: usize = 255;
const SSH_PORT: u16 = 22;

/// How much is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    Off,
    /// Who and where.
    #[default]
    Minimal,
    /// Also how to log in by ssh, and the name on the tailnet.
    Full,
}

impl Mode {
    fn parse(text: Option<&str>) -> Self {
        match text {
            Some("off") => Self::Off,
            Some("full") => Self::Full,
            _ => Self::Minimal,
        }
    }
}

/// The environment switches of the reference.
#[derive(Clone, Debug, Default)]
pub struct Switches {
    /// `OPENCLAW_DISABLE_BONJOUR`
    pub disable_bonjour: Option<String>,
    /// `OPENCLAW_MDNS_HOSTNAME`
    pub hostname: Option<String>,
    /// `OPENCLAW_SSH_PORT`
    pub ssh_port: Option<String>,
    /// `OPENCLAW_TAILNET_DNS`
    pub tailnet_dns: Option<String>,
    /// `OPENCLAW_CLI_PATH`
    pub cli_path: Option<String>,
}

impl Switches {
    pub fn read(env: &openclaw_config::env::Env) -> Self {
        let text = |name: &str| env.get(name).map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
        Self {
            disable_bonjour: text("OPENCLAW_DISABLE_BONJOUR"),
            hostname: text("OPENCLAW_MDNS_HOSTNAME"),
            ssh_port: text("OPENCLAW_SSH_PORT"),
            tailnet_dns: text("OPENCLAW_TAILNET_DNS"),
            cli_path: text("OPENCLAW_CLI_PATH"),
        }
    }

    /// True when it says so, false when it says the opposite, nothing when it says neither.
    fn disabled(&self) -> Option<bool> {
        match self.disable_bonjour.as_deref()?.to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => Some(true),
            "0" | "false" | "no" | "off" => Some(false),
            _ => None,
        }
    }
}

/// The machine as far as it matters here.
#[derive(Clone, Debug)]
pub struct Machine {
    pub hostname: String,
    pub addresses: Vec<IpAddr>,
    /// Within a container, where multicast leads nowhere.
    pub container: bool,
    pub macos: bool,
    /// The program, for `cliPath`.
    pub program: Option<String>,
}

/// The listeners.
#[derive(Clone, Debug)]
pub struct Listening {
    pub port: u16,
    pub addresses: Vec<IpAddr>,
    /// Lower-case SHA-256 of the certificate, with TLS.
    pub tls_sha256: Option<String>,
}

/// What goes out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub lan: Option<Advert>,
    pub wide_area: Option<WideArea>,
    /// Why there is less than was asked for.
    pub notes: Vec<String>,
}

/// A service on the local network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advert {
    /// The first label of `<host>.local`.
    pub host: String,
    pub instance: String,
    pub port: u16,
    pub txt: Vec<(&'static str, String)>,
}

/// A zone for unicast DNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WideArea {
    pub domain: Domain,
    pub host: String,
    pub instance: String,
    pub port: u16,
    pub v4: Ipv4Addr,
    pub v6: Option<Ipv6Addr>,
    pub txt: Vec<(&'static str, String)>,
    /// Port of the built-in answerer, when it is wanted.
    pub serve: Option<u16>,
}

/// Decides.
pub fn plan(config: &DiscoveryConfig, switches: &Switches, machine: &Machine, listening: &Listening) -> Plan {
    let mode = Mode::parse(config.mdns_mode.as_deref());
    let mut notes = Vec::new();
    let name = switches.hostname.as_deref().unwrap_or(&machine.hostname);
    let host = host_label(name).unwrap_or_else(|| "openclaw".to_owned());
    let instance = instance_name(&machine.hostname);
    let lan = lan_wanted(config, switches, machine, mode, &mut notes).then(|| {
        let mut txt = common(&instance, listening, is_reachable_on_lan(&listening.addresses));
        txt.push(("lanHost", format!("{host}.local")));
        if mode == Mode::Full {
            txt.push(("sshPort", ssh_port(switches).unwrap_or(SSH_PORT).to_string()));
            txt.extend(hints(switches, machine));
        }
        Advert { host: host.clone(), instance: cut(&instance), port: listening.port, txt: fitting(txt) }
    });
    let wide_area = wide_area(config, switches, machine, listening, mode, &mut notes);
    Plan { lan, wide_area, notes }
}

/// Advertising is asked for (`discovery.enabled`), or usual on this system (macOS, as in the reference); the environment
/// and the mode `off` have the last word.
fn lan_wanted(
    config: &DiscoveryConfig,
    switches: &Switches,
    machine: &Machine,
    mode: Mode,
    notes: &mut Vec<String>,
) -> bool {
    let asked = config.enabled.unwrap_or(machine.macos || switches.disabled() == Some(false));
    if !asked || mode == Mode::Off || switches.disabled() == Some(true) {
        return false;
    }
    if machine.container && switches.disabled() != Some(false) {
        notes.push(
            "not advertised on the local network: this is a container, and multicast rarely leaves one; if it does here, \
             set OPENCLAW_DISABLE_BONJOUR=0"
                .to_owned(),
        );
        return false;
    }
    true
}

fn wide_area(
    config: &DiscoveryConfig,
    switches: &Switches,
    machine: &Machine,
    listening: &Listening,
    mode: Mode,
    notes: &mut Vec<String>,
) -> Option<WideArea> {
    let text = config.wide_area_domain.as_deref().map(str::trim).filter(|text| !text.is_empty())?;
    let Some(domain) = Domain::parse(text) else {
        notes.push("discovery.wideArea.domain is not a domain name; no zone is published".to_owned());
        return None;
    };
    let v4 = machine.addresses.iter().find_map(|address| match address {
        IpAddr::V4(v4) if is_tailnet(*address) => Some(*v4),
        _ => None,
    });
    let Some(v4) = v4 else {
        notes.push(format!("no zone is published for {domain}: this machine has no tailnet address (tailscale up)"));
        return None;
    };
    let v6 = machine.addresses.iter().find_map(|address| match address {
        IpAddr::V6(v6) if is_tailnet_v6(v6) => Some(*v6),
        _ => None,
    });
    let reachable = listening.addresses.iter().any(|address| address.is_unspecified() || *address == IpAddr::V4(v4));
    let first = machine.hostname.split('.').next().unwrap_or_default();
    let instance = instance_name(&machine.hostname);
    let mut txt = common(&instance, listening, reachable);
    if mode == Mode::Full {
        txt.extend(ssh_port(switches).map(|port| ("sshPort", port.to_string())));
        txt.extend(hints(switches, machine));
    } else {
        // A zone is asked for by name: the name on the tailnet tells nobody anything new.
        txt.extend(hints(switches, machine).filter(|(key, _)| *key == "tailnetDns"));
    }
    Some(WideArea {
        domain,
        host: zone_label(first, "openclaw"),
        instance: zone_label(&format!("{first}-gateway"), "openclaw-gw"),
        port: listening.port,
        v4,
        v6,
        txt: fitting(txt),
        serve: config.wide_area_serve.then_some(config.wide_area_port),
    })
}

/// The keys of every advertisement (remote notes, section 4).
fn common(instance: &str, listening: &Listening, reachable: bool) -> Vec<(&'static str, String)> {
    let mut txt = vec![
        ("role", "gateway".to_owned()),
        ("transport", "gateway".to_owned()),
        ("displayName", display_name(instance)),
        ("gatewayPort", listening.port.to_string()),
    ];
    if let Some(digest) = &listening.tls_sha256 {
        txt.push(("gatewayTls", "1".to_owned()));
        txt.push(("gatewayTlsSha256", digest.clone()));
    }
    if reachable {
        txt.push(("gatewayDirectReachable", "1".to_owned()));
    }
    txt
}

fn ssh_port(switches: &Switches) -> Option<u16> {
    switches.ssh_port.as_deref()?.parse().ok().filter(|port| *port != 0)
}

fn hints(switches: &Switches, machine: &Machine) -> impl Iterator<Item = (&'static str, String)> {
    let dns = switches.tailnet_dns.as_deref().map(|name| name.trim_end_matches('.').to_owned());
    let cli = switches.cli_path.clone().or_else(|| machine.program.clone());
    [("tailnetDns", dns), ("cliPath", cli)].into_iter().filter_map(|(key, value)| Some((key, value?)))
}

/// What is longer than a TXT string may be is left out rather than cut into something else.
fn fitting(txt: Vec<(&'static str, String)>) -> Vec<(&'static str, String)> {
    txt.into_iter().filter(|(key, value)| key.len() + 1 + value.len() <= MAX_TXT_BYTES).collect()
}

/// An address of the local network that other machines can connect to.
fn is_reachable_on_lan(addresses: &[IpAddr]) -> bool {
    let others = |address: &IpAddr| !address.is_loopback() && !is_tailnet(*address);
    addresses.iter().any(others)
}

/// Tailscale's IPv6 range, fd7a:115c:a1e0::/48.
pub fn is_tailnet_v6(address: &Ipv6Addr) -> bool {
    address.segments()[..3] == [0xfd7a, 0x115c, 0xa1e0]
}

/// `box (OpenClaw)`; a name that says OpenClaw already stays.
fn instance_name(hostname: &str) -> String {
    let name = hostname.trim();
    match name {
        "" => "OpenClaw".to_owned(),
        name if name.to_ascii_lowercase().contains("openclaw") => name.to_owned(),
        name => format!("{name} (OpenClaw)"),
    }
}

fn display_name(instance: &str) -> String {
    let name = instance.trim().strip_suffix("(OpenClaw)").map_or(instance, str::trim);
    if name.is_empty() { instance.to_owned() } else { name.to_owned() }
}

fn cut(name: &str) -> String {
    name[..name.floor_char_boundary(MAX_LABEL_BYTES)].trim_end().to_owned()
}

/// The first label of a host name, when it is one.
fn host_label(name: &str) -> Option<String> {
    let name = name.trim();
    let without =
        name.len().checked_sub(6).filter(|at| name.is_char_boundary(*at) && name[*at..].eq_ignore_ascii_case(".local"));
    let label = without.map_or(name, |at| &name[..at]).split('.').next().unwrap_or_default();
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inner = label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    let fits = inner && label.len() <= MAX_LABEL_BYTES && edge(label.chars().next()) && edge(label.chars().last());
    fits.then(|| label.to_owned())
}

/// A label for the zone: lower case, letters, digits and dashes.
fn zone_label(text: &str, otherwise: &str) -> String {
    let mut label = String::new();
    for c in text.to_lowercase().chars() {
        match c {
            'a'..='z' | '0'..='9' | '-' => label.push(c),
            _ if label.ends_with('-') => {}
            _ => label.push('-'),
        }
    }
    let label = label.trim_matches('-');
    let label = label[..label.floor_char_boundary(MAX_LABEL_BYTES)].to_owned();
    if label.is_empty() { otherwise.to_owned() } else { label }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(enabled: Option<bool>, mode: Option<&str>, domain: Option<&str>) -> DiscoveryConfig {
        DiscoveryConfig {
            enabled,
            mdns_mode: mode.map(str::to_owned),
            wide_area_domain: domain.map(str::to_owned),
            wide_area_serve: false,
            wide_area_port: 53,
        }
    }

    fn machine() -> Machine {
        Machine {
            hostname: "box.example".into(),
            addresses: ["127.0.0.1", "192.168.1.5", "100.64.0.10", "fd7a:115c:a1e0::5"]
                .map(|a| a.parse().unwrap())
                .into(),
            container: false,
            macos: false,
            program: Some("/usr/bin/openclaw".into()),
        }
    }

    fn listening(addresses: &[&str], tls: bool) -> Listening {
        Listening {
            port: 18789,
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            tls_sha256: tls.then(|| "ab".repeat(32)),
        }
    }

    fn keys(txt: &[(&'static str, String)]) -> Vec<&'static str> {
        txt.iter().map(|(key, _)| *key).collect()
    }

    #[test]
    fn when_it_is_advertised() {
        let check = |enabled, mode, disable: Option<&str>, (container, macos), expected: bool| {
            let switches = Switches { disable_bonjour: disable.map(str::to_owned), ..Switches::default() };
            let machine = Machine { container, macos, ..machine() };
            let found = plan(&config(enabled, mode, None), &switches, &machine, &listening(&["0.0.0.0"], false));
            assert_eq!(found.lan.is_some(), expected, "{enabled:?} {mode:?} {disable:?} {container} {macos}");
        };
        let (linux, mac, container) = ((false, false), (false, true), (true, false));
        check(None, None, None, linux, false);
        check(None, None, None, mac, true);
        check(Some(true), None, None, linux, true);
        check(Some(false), None, None, mac, false);
        check(Some(true), Some("off"), None, linux, false);
        check(Some(true), Some("full"), None, linux, true);
        // The mode alone enables nothing.
        check(None, Some("full"), None, linux, false);
        check(Some(true), None, Some("1"), linux, false);
        check(Some(true), None, Some("YES"), linux, false);
        check(None, None, Some("0"), linux, true);
        check(Some(false), None, Some("0"), linux, false);
        check(Some(true), Some("off"), Some("0"), linux, false);
        check(Some(true), None, Some("maybe"), linux, true);
        check(Some(true), None, None, container, false);
        check(Some(true), None, Some("off"), container, true);
    }

    /// The table of the remote notes, section 4.
    #[test]
    fn what_is_told_in_which_mode() {
        let switches = Switches {
            ssh_port: Some("2222".into()),
            tailnet_dns: Some("box.tail.ts.net.".into()),
            ..Switches::default()
        };
        let told = |mode, listening: &Listening| {
            let config = config(Some(true), Some(mode), Some("openclaw.internal"));
            plan(&config, &switches, &machine(), listening)
        };
        let everywhere = listening(&["0.0.0.0"], true);
        let minimal = told("minimal", &everywhere).lan.unwrap();
        let core = [
            "role",
            "transport",
            "displayName",
            "gatewayPort",
            "gatewayTls",
            "gatewayTlsSha256",
            "gatewayDirectReachable",
        ];
        assert_eq!(keys(&minimal.txt), [&core[..], &["lanHost"]].concat());
        assert_eq!((minimal.host.as_str(), minimal.instance.as_str()), ("box", "box.example (OpenClaw)"));
        let value = |txt: &[(&'static str, String)], key: &str| {
            txt.iter().find(|(found, _)| *found == key).map(|(_, value)| value.clone())
        };
        assert_eq!(value(&minimal.txt, "displayName").as_deref(), Some("box.example"));
        assert_eq!(value(&minimal.txt, "lanHost").as_deref(), Some("box.local"));
        let full = told("full", &everywhere);
        let lan = full.lan.unwrap();
        assert_eq!(keys(&lan.txt), [&core[..], &["lanHost", "sshPort", "tailnetDns", "cliPath"]].concat());
        assert_eq!(value(&lan.txt, "tailnetDns").as_deref(), Some("box.tail.ts.net"));
        let zone = full.wide_area.unwrap();
        assert_eq!(keys(&zone.txt), [&core[..], &["sshPort", "tailnetDns", "cliPath"]].concat());
        assert_eq!((zone.v4.to_string(), zone.v6.is_some()), ("100.64.0.10".to_owned(), true));
        assert_eq!((zone.host.as_str(), zone.instance.as_str()), ("box", "box-gateway"));
        // A zone goes on although multicast is off.
        let off = told("off", &everywhere);
        assert!(off.lan.is_none() && off.wide_area.is_some());
        // Reachable means: by other machines, over this very network.
        let reachable = |addresses: &[&str]| {
            let plan = told("minimal", &listening(addresses, false));
            let has = |txt: &[(&'static str, String)]| keys(txt).contains(&"gatewayDirectReachable");
            (has(&plan.lan.unwrap().txt), has(&plan.wide_area.unwrap().txt))
        };
        assert_eq!(reachable(&["127.0.0.1"]), (false, false));
        assert_eq!(reachable(&["127.0.0.1", "192.168.1.5"]), (true, false));
        assert_eq!(reachable(&["127.0.0.1", "100.64.0.10"]), (false, true));
        assert_eq!(reachable(&["0.0.0.0"]), (true, true));
    }

    #[test]
    fn no_zone_without_a_domain_or_a_tailnet() {
        let none = Machine { addresses: vec!["192.168.1.5".parse().unwrap()], ..machine() };
        let at = listening(&["0.0.0.0"], false);
        for (domain, machine) in [("openclaw.internal", none), ("no domain", machine()), ("a..b", machine())] {
            let found = plan(&config(None, None, Some(domain)), &Switches::default(), &machine, &at);
            assert_eq!((found.wide_area, found.notes.len()), (None, 1), "{domain}");
        }
    }

    #[test]
    fn names() {
        for (name, expected) in [
            ("box", Some("box")),
            ("Box.LOCAL", Some("Box")),
            ("box.example.net", Some("box")),
            ("my box", None),
            ("-x", None),
            ("é", None),
            ("", None),
        ] {
            assert_eq!(host_label(name).as_deref(), expected, "{name}");
        }
        assert_eq!(zone_label("My Böx_1!", "x"), "my-b-x-1");
        assert_eq!(zone_label("---", "x"), "x");
        assert_eq!(cut(&"é".repeat(40)).len(), 62);
        assert_eq!(display_name("OpenClaw"), "OpenClaw");
    }
}
