//! Where the gateway listens. Never wider than loopback unless asked; loopback always stays open for the local CLI.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use openclaw_config::gateway::BindMode;

/// The addresses to listen on, all on one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindPlan {
    pub addresses: Vec<IpAddr>,
    /// Somebody other than this machine can reach it.
    pub beyond_loopback: bool,
}

/// Why a bind mode cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    #[error(
        "gateway.bind is \"tailnet\", but this machine has no Tailscale address (100.64.0.0/10). Bring the tailnet up (tailscale up; tailscale ip -4), or use gateway.bind \"loopback\""
    )]
    NoTailnet,
    #[error(
        "gateway.bind is \"custom\", but gateway.customBindHost is not set. Set it to an address of this machine: openclaw config set gateway.customBindHost <address>"
    )]
    NoCustomHost,
}

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Resolves a bind mode (S-099…S-103). `local` are the addresses of this machine's interfaces.
///
/// # Errors
/// [`BindError`], always naming the key to change.
pub fn plan(mode: BindMode, custom_host: Option<Ipv4Addr>, local: &[IpAddr]) -> Result<BindPlan, BindError> {
    let tailnet = || local.iter().copied().find(|address| is_tailnet(*address));
    let with_loopback = |address: IpAddr| BindPlan {
        addresses: if address == LOOPBACK { vec![LOOPBACK] } else { vec![LOOPBACK, address] },
        beyond_loopback: !address.is_loopback(),
    };
    match mode {
        BindMode::Loopback => Ok(with_loopback(LOOPBACK)),
        BindMode::Lan => Ok(BindPlan { addresses: vec![Ipv4Addr::UNSPECIFIED.into()], beyond_loopback: true }),
        BindMode::Tailnet => tailnet().map(with_loopback).ok_or(BindError::NoTailnet),
        BindMode::Custom => {
            let address = IpAddr::V4(custom_host.ok_or(BindError::NoCustomHost)?);
            if address.is_unspecified() {
                return Ok(BindPlan { addresses: vec![address], beyond_loopback: true });
            }
            Ok(with_loopback(address))
        }
        // Loopback, else tailnet, else lan (C-11): only a machine without a loopback interface goes further.
        BindMode::Auto if local.iter().any(IpAddr::is_loopback) => Ok(with_loopback(LOOPBACK)),
        BindMode::Auto => Ok(match tailnet() {
            Some(address) => BindPlan { addresses: vec![address], beyond_loopback: true },
            None => BindPlan { addresses: vec![Ipv4Addr::UNSPECIFIED.into()], beyond_loopback: true },
        }),
    }
}

/// 100.64.0.0/10, the range Tailscale hands out.
pub fn is_tailnet(address: IpAddr) -> bool {
    matches!(address.to_canonical(), IpAddr::V4(v4) if v4.octets()[0] == 100 && (64..128).contains(&v4.octets()[1]))
}

/// Addresses of this machine's interfaces that are up.
pub fn local_addresses() -> Vec<IpAddr> {
    if_addrs::get_if_addrs().map_or_else(|_| vec![LOOPBACK], |list| list.into_iter().map(|i| i.ip()).collect())
}

/// Opens one listener.
///
/// # Errors
/// As the system reports it; `AddrInUse` when somebody else has the port.
pub fn listen(address: SocketAddr) -> io::Result<tokio::net::TcpListener> {
    let socket = if address.is_ipv4() { tokio::net::TcpSocket::new_v4()? } else { tokio::net::TcpSocket::new_v6()? };
    // A restarted gateway takes its port back although old connections linger in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(mode: BindMode, host: Option<&str>, local: &[&str]) -> Result<Vec<String>, BindError> {
        let local: Vec<IpAddr> = local.iter().map(|text| text.parse().expect("address")).collect();
        plan(mode, host.map(|text| text.parse().expect("address")), &local)
            .map(|plan| plan.addresses.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn s_099_to_s_103() {
        let usual = ["127.0.0.1", "192.168.1.5", "100.101.102.103"];
        let ok = |list: &[&str]| Ok(list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        assert_eq!(addresses(BindMode::Loopback, None, &usual), ok(&["127.0.0.1"]));
        assert_eq!(addresses(BindMode::Lan, None, &usual), ok(&["0.0.0.0"]));
        assert_eq!(addresses(BindMode::Tailnet, None, &usual), ok(&["127.0.0.1", "100.101.102.103"]));
        assert_eq!(addresses(BindMode::Tailnet, None, &usual[..2]), Err(BindError::NoTailnet));
        assert_eq!(addresses(BindMode::Tailnet, None, &["127.0.0.1", "100.128.0.1"]), Err(BindError::NoTailnet));
        assert_eq!(addresses(BindMode::Custom, Some("192.168.1.5"), &usual), ok(&["127.0.0.1", "192.168.1.5"]));
        assert_eq!(addresses(BindMode::Custom, None, &usual), Err(BindError::NoCustomHost));
        assert_eq!(addresses(BindMode::Auto, None, &usual), ok(&["127.0.0.1"]));
        assert_eq!(addresses(BindMode::Auto, None, &usual[1..]), ok(&["100.101.102.103"]));
        assert_eq!(addresses(BindMode::Auto, None, &usual[1..2]), ok(&["0.0.0.0"]));
    }
}
