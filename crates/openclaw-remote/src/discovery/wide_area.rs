//! Gateways of a domain, asked by unicast DNS (DNS-SD): PTR for the instances, SRV and TXT for each, then the addresses.
//!
//! The servers are those of the system's resolver and, on a machine of a tailnet, Tailscale's. An answer counts only when it
//! comes from the server that was asked, with the number and the question it was asked; that keeps out who guesses blindly,
//! and no more: what DNS says stays hearsay.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE, rdata::RData};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    time::{Instant, timeout, timeout_at},
};

use super::{MAX_PER_SOURCE, beacon, beacon::Beacon};

const SERVICE: &str = "_openclaw-gw._tcp";
/// Tailscale's resolver, on every machine of a tailnet.
const TAILSCALE: IpAddr = IpAddr::V4(Ipv4Addr::new(100, 100, 100, 100));
const DNS_PORT: u16 = 53;
/// Servers asked at most, as the system's resolver does.
const MAX_SERVERS: usize = 4;
/// How long one server may take before the next is asked.
const PATIENCE: Duration = Duration::from_millis(700);
const MAX_ANSWER_BYTES: usize = 4096;

/// The beacons of a domain.
///
/// # Errors
/// Why there is no answer, for a person.
pub async fn browse(domain: &str, time: Duration) -> Result<Vec<Beacon>, String> {
    browse_at(&servers(), domain, time).await
}

async fn browse_at(servers: &[SocketAddr], domain: &str, time: Duration) -> Result<Vec<Beacon>, String> {
    let domain = domain.trim().trim_end_matches('.');
    let end = Instant::now() + time;
    if servers.is_empty() {
        return Err("no DNS server is known (/etc/resolv.conf)".into());
    }
    let service = format!("{SERVICE}.{domain}");
    let instances = ask(servers, &service, TYPE::PTR, end).await?.into_iter().filter_map(|data| match data {
        Found::Ptr(name) => Some(name),
        _ => None,
    });
    let mut beacons = Vec::new();
    for instance in instances.take(MAX_PER_SOURCE) {
        // Somebody else's name would make this machine ask for anything anywhere.
        let Some(label) = instance
            .to_ascii_lowercase()
            .strip_suffix(&format!(".{}", service.to_ascii_lowercase()))
            .map(|label| instance[..label.len()].to_owned())
        else {
            continue;
        };
        let (srv, txt) = tokio::join!(ask(servers, &instance, TYPE::SRV, end), ask(servers, &instance, TYPE::TXT, end));
        let place = srv?.into_iter().find_map(|data| match data {
            Found::Srv(host, port) => Some((host, port)),
            _ => None,
        });
        let Some((host, port)) = place else { continue };
        let claims = txt.unwrap_or_default().into_iter().find_map(|data| match data {
            Found::Txt(claims) => Some(claims),
            _ => None,
        });
        let (v4, v6) = tokio::join!(ask(servers, &host, TYPE::A, end), ask(servers, &host, TYPE::AAAA, end));
        let addresses =
            v4.unwrap_or_default().into_iter().chain(v6.unwrap_or_default()).filter_map(|data| match data {
                Found::Address(address) => Some(address),
                _ => None,
            });
        let dotted = format!("{domain}.");
        beacons.extend(beacon::new(&dotted, &label, &host, port, addresses.collect(), claims.unwrap_or_default()));
    }
    Ok(beacons)
}

/// The servers of the system's resolver; on a tailnet Tailscale's as well.
fn servers() -> Vec<SocketAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let mut servers = nameservers(&text);
    let on_tailnet = || {
        let ours =
            |address: IpAddr| matches!(address, IpAddr::V4(v4) if v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64);
        if_addrs::get_if_addrs().is_ok_and(|list| list.iter().any(|interface| ours(interface.ip())))
    };
    if !servers.contains(&TAILSCALE) && on_tailnet() {
        servers.push(TAILSCALE);
    }
    servers.into_iter().take(MAX_SERVERS).map(|address| SocketAddr::new(address, DNS_PORT)).collect()
}

fn nameservers(text: &str) -> Vec<IpAddr> {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    lines.filter_map(|rest| rest.split_whitespace().next()?.parse().ok()).take(3).collect()
}

/// A record of the kind that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    Ptr(String),
    Srv(String, u16),
    Txt(Vec<(String, String)>),
    Address(IpAddr),
}

/// Asks one server after the other until one answers. A name that does not exist is an answer.
async fn ask(servers: &[SocketAddr], name: &str, kind: TYPE, end: Instant) -> Result<Vec<Found>, String> {
    let mut last = "no DNS server answered in time".to_owned();
    for server in servers {
        let patience = (Instant::now() + PATIENCE).min(end);
        match timeout_at(patience, exchange(*server, name, kind)).await {
            Ok(Ok(Answer::Records(found))) => return Ok(found),
            Ok(Ok(Answer::Failed(code))) => last = format!("the DNS server {server} says {code:?}"),
            Ok(Err(error)) => last = format!("the DNS server {server} cannot be asked: {error}"),
            Err(_) => last = format!("the DNS server {server} did not answer in time"),
        }
        if Instant::now() >= end {
            break;
        }
    }
    Err(last)
}

enum Answer {
    Records(Vec<Found>),
    Failed(RCODE),
}

async fn exchange(server: SocketAddr, name: &str, kind: TYPE) -> io::Result<Answer> {
    let id = u16::from_be_bytes([uuid::Uuid::new_v4().as_bytes()[0], uuid::Uuid::new_v4().as_bytes()[1]]);
    let query = query(id, name, kind).ok_or_else(|| io::Error::other("not a DNS name"))?;
    let here = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(here).await?;
    // From then on only this server's packets are received.
    socket.connect(server).await?;
    socket.send(&query).await?;
    let mut buffer = vec![0; MAX_ANSWER_BYTES];
    loop {
        let length = socket.recv(&mut buffer).await?;
        match read(&buffer[..length], id, name, kind) {
            Some(Read::Answer(answer)) => return Ok(answer),
            Some(Read::Truncated) => break,
            None => {}
        }
    }
    let mut stream = timeout(PATIENCE, TcpStream::connect(server)).await??;
    let length = u16::try_from(query.len()).unwrap_or(u16::MAX);
    stream.write_all(&[&length.to_be_bytes()[..], &query].concat()).await?;
    let length = usize::from(stream.read_u16().await?);
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    match read(&bytes, id, name, kind) {
        Some(Read::Answer(answer)) => Ok(answer),
        _ => Err(io::Error::other("it answered something else")),
    }
}

fn query(id: u16, name: &str, kind: TYPE) -> Option<Vec<u8>> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name).ok()?;
    packet.questions.push(Question::new(name, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false));
    packet.build_bytes_vec().ok()
}

enum Read {
    Answer(Answer),
    Truncated,
}

/// `None` for what is no answer to this question.
fn read(bytes: &[u8], id: u16, name: &str, kind: TYPE) -> Option<Read> {
    let packet = Packet::parse(bytes).ok()?;
    let [question] = packet.questions.as_slice() else { return None };
    let same = question.qname.to_string().eq_ignore_ascii_case(name) && question.qtype == QTYPE::TYPE(kind);
    if packet.id() != id || !packet.has_flags(PacketFlag::RESPONSE) || !same {
        return None;
    }
    if packet.has_flags(PacketFlag::TRUNCATION) {
        return Some(Read::Truncated);
    }
    match packet.rcode() {
        RCODE::NoError | RCODE::NameError => {}
        code => return Some(Read::Answer(Answer::Failed(code))),
    }
    let found = packet.answers.iter().filter_map(|record| match &record.rdata {
        RData::PTR(ptr) => Some(Found::Ptr(ptr.0.to_string())),
        RData::SRV(srv) => Some(Found::Srv(srv.target.to_string(), srv.port)),
        RData::A(a) => Some(Found::Address(IpAddr::V4(Ipv4Addr::from(a.address)))),
        RData::AAAA(aaaa) => Some(Found::Address(IpAddr::V6(aaaa.address.into()))),
        RData::TXT(txt) => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let pairs = txt.iter_raw().map(|(key, value)| (text(key), value.map(text).unwrap_or_default()));
            Some(Found::Txt(pairs.collect()))
        }
        _ => None,
    });
    Some(Read::Answer(Answer::Records(found.collect())))
}

#[cfg(test)]
mod tests {
    use simple_dns::{
        ResourceRecord,
        rdata::{A, PTR, SRV, TXT},
    };

    use super::*;

    #[test]
    fn resolver_files() {
        let text = "# x\nsearch a\nnameserver 1.1.1.1\n nameserver  fd00::1 # y\nnameserver bad\noptions x\n";
        assert_eq!(nameservers(text), ["1.1.1.1".parse::<IpAddr>().expect("v4"), "fd00::1".parse().expect("v6")]);
    }

    /// A server that answers from this table, and lies first: wrong number, wrong question.
    async fn server(records: Vec<(&'static str, RData<'static>)>) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("loopback");
        let address = socket.local_addr().expect("address");
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let packet = Packet::parse(&buffer[..length]).expect("a query");
                let question = packet.questions[0].clone();
                let build = |id: u16, name: Name<'static>| {
                    let mut reply = Packet::new_reply(id);
                    reply.questions.push(Question::new(name, question.qtype, question.qclass, false));
                    for (name, data) in &records {
                        let record = ResourceRecord::new(Name::new_unchecked(name), CLASS::IN, 60, data.clone());
                        if record.name == question.qname && record.match_qtype(question.qtype) {
                            reply.answers.push(record);
                        }
                    }
                    reply.build_bytes_vec().expect("builds")
                };
                let name = question.qname.clone().into_owned();
                let lies =
                    [build(packet.id().wrapping_add(1), name.clone()), build(packet.id(), Name::new_unchecked("x.y"))];
                for bytes in lies.iter().chain([&build(packet.id(), name)]) {
                    let _ = socket.send_to(bytes, from).await;
                }
            }
        });
        address
    }

    #[tokio::test]
    async fn a_zone_is_browsed() {
        let ptr = |name: &'static str| RData::PTR(PTR(Name::new_unchecked(name)));
        let srv = |host: &'static str| {
            RData::SRV(SRV { priority: 0, weight: 0, port: 18789, target: Name::new_unchecked(host) })
        };
        let txt = TXT::new().with_string("role=gateway").and_then(|txt| txt.with_string("sshPort=22")).expect("txt");
        let service = "_openclaw-gw._tcp.z.internal";
        let one = "box-gateway._openclaw-gw._tcp.z.internal";
        let address = server(vec![
            (service, ptr(one)),
            // Not of this zone: not followed.
            (service, ptr("elsewhere.example.com")),
            (one, srv("box.z.internal")),
            (one, RData::TXT(txt)),
            ("box.z.internal", RData::A(A::from(Ipv4Addr::new(100, 64, 0, 10)))),
            ("elsewhere.example.com", srv("evil.example.com")),
        ])
        .await;
        let found = browse_at(&[address], "z.internal.", Duration::from_secs(5)).await.expect("answered");
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].instance.as_str(), found[0].domain.as_str()), ("box-gateway", "z.internal."));
        assert_eq!((found[0].host.as_str(), found[0].port), ("box.z.internal", 18789));
        assert_eq!(found[0].addresses, ["100.64.0.10".parse::<IpAddr>().expect("address")]);
        assert_eq!(found[0].claim("sshPort"), Some("22"));
    }

    #[tokio::test]
    async fn silence_is_said() {
        let deaf = UdpSocket::bind("127.0.0.1:0").await.expect("loopback");
        let address = deaf.local_addr().expect("address");
        let error = browse_at(&[address], "z.internal", Duration::from_millis(50)).await.expect_err("nobody answers");
        assert!(error.contains("did not answer in time"), "{error}");
        assert!(browse_at(&[], "z.internal", Duration::from_millis(50)).await.is_err());
    }
}
