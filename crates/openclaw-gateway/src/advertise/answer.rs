//! The built-in answerer: one zone, asked by machines of the tailnet only. Pure but for the two servers at the end.
//!
//! It knows nothing but its zone and asks nobody else, so it cannot be used to reach further or to amplify.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use simple_dns::{
    CLASS, Name, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE,
    rdata::{A, AAAA, NS, OPT, PTR, RData, SOA, SRV, TXT},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    time::timeout,
};

use super::zone::{self, Data, TTL, Zone};

/// Largest UDP answer without EDNS (RFC 1035), and largest with it.
const UDP_BYTES: usize = 512;
const EDNS_BYTES: u16 = 1232;
/// TCP connections at once, and how long each may take.
const MAX_TCP: usize = 16;
const TCP_TIME: Duration = Duration::from_secs(5);
/// Largest query; ours are far smaller.
const MAX_QUERY_BYTES: usize = 1024;

/// The answer to a query; `None` when it deserves none.
pub fn answer(zone: &Zone, query: &[u8], over_udp: bool) -> Option<Vec<u8>> {
    // Answers to answers would let two servers talk for ever.
    if query.len() < 12 || query[2] & 0x80 != 0 {
        return None;
    }
    let id = u16::from_be_bytes([query[0], query[1]]);
    let mut reply = Packet::new_reply(id);
    let Ok(packet) = Packet::parse(query) else {
        *reply.rcode_mut() = RCODE::FormatError;
        return reply.build_bytes_vec().ok();
    };
    let edns = packet.opt().map(|opt| opt.udp_packet_size);
    if packet.has_flags(PacketFlag::RECURSION_DESIRED) {
        reply.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    if edns.is_some() {
        *reply.opt_mut() = Some(OPT { opt_codes: Vec::new(), udp_packet_size: EDNS_BYTES, version: 0 });
    }
    let question = match (packet.opcode(), packet.questions.as_slice()) {
        (OPCODE::StandardQuery, [question]) => question,
        (OPCODE::StandardQuery, _) => return refuse(reply, RCODE::FormatError),
        _ => return refuse(reply, RCODE::NotImplemented),
    };
    reply.questions.push(question.clone());
    let name = question.qname.to_string();
    let inside = name.eq_ignore_ascii_case(zone.domain.as_str())
        || name.to_ascii_lowercase().ends_with(&format!(".{}", zone.domain.as_str().to_ascii_lowercase()));
    let internet = matches!(question.qclass, QCLASS::CLASS(CLASS::IN) | QCLASS::ANY);
    if !inside || !internet || !matches!(question.qtype, QTYPE::TYPE(_) | QTYPE::ANY) {
        return refuse(reply, RCODE::Refused);
    }
    reply.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
    fill(&mut reply, zone, question, &name);
    let bytes = reply.build_bytes_vec_compressed().ok()?;
    let room = match edns {
        _ if !over_udp => usize::from(u16::MAX),
        None => UDP_BYTES,
        Some(size) => usize::from(size.clamp(512, EDNS_BYTES)),
    };
    if bytes.len() <= room {
        return Some(bytes);
    }
    reply.answers.clear();
    reply.name_servers.clear();
    reply.additional_records.clear();
    reply.set_flags(PacketFlag::TRUNCATION);
    reply.build_bytes_vec_compressed().ok()
}

fn refuse(mut reply: Packet<'_>, code: RCODE) -> Option<Vec<u8>> {
    *reply.rcode_mut() = code;
    reply.build_bytes_vec().ok()
}

fn fill<'a>(reply: &mut Packet<'a>, zone: &'a Zone, question: &Question<'_>, name: &str) {
    let (found, exists) = zone::find(zone, name);
    let wanted = |record: &ResourceRecord<'_>| record.match_qtype(question.qtype);
    let owner = question.qname.clone().into_owned();
    let records = found.into_iter().filter_map(|data| record(zone, owner.clone(), data)).filter(wanted);
    reply.answers.extend(records);
    if reply.answers.is_empty() {
        if !exists {
            *reply.rcode_mut() = RCODE::NameError;
        }
        let soa = zone.records.iter().find(|(_, data)| matches!(data, Data::Soa { .. }));
        reply.name_servers.extend(soa.and_then(|(name, data)| record(zone, owned(name)?, data)));
        return;
    }
    // What whoever browses asks next: the instance, its host, the host's addresses.
    let mut next: Vec<&str> = Vec::new();
    for (_, data) in zone.records.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name)) {
        match data {
            Data::Ptr(instance) if matches!(question.qtype, QTYPE::TYPE(TYPE::PTR) | QTYPE::ANY) => next.push(instance),
            Data::Srv { target, .. } if matches!(question.qtype, QTYPE::TYPE(TYPE::SRV) | QTYPE::ANY) => {
                next.push(target)
            }
            _ => {}
        }
    }
    let mut at = 0;
    while let Some(name) = next.get(at).copied() {
        at += 1;
        for (known, data) in zone.records.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name)) {
            reply.additional_records.extend(owned(known).and_then(|owner| record(zone, owner, data)));
            if let Data::Srv { target, .. } = data
                && !next.contains(&target.as_str())
            {
                next.push(target);
            }
        }
    }
}

fn owned(name: &str) -> Option<Name<'_>> {
    Name::new(name).ok()
}

fn record<'a>(zone: &'a Zone, owner: Name<'a>, data: &'a Data) -> Option<ResourceRecord<'a>> {
    let [refresh, retry, expire, minimum] = zone::SOA;
    let rdata = match data {
        Data::A(v4) => RData::A(A::from(*v4)),
        Data::Aaaa(v6) => RData::AAAA(AAAA::from(*v6)),
        Data::Ns(name) => RData::NS(NS(owned(name)?)),
        Data::Ptr(name) => RData::PTR(PTR(owned(name)?)),
        Data::Srv { port, target } => RData::SRV(SRV { priority: 0, weight: 0, port: *port, target: owned(target)? }),
        Data::Txt(strings) => {
            let txt = strings.iter().try_fold(TXT::new(), |txt, text| txt.with_string(text));
            RData::TXT(txt.ok()?)
        }
        Data::Soa { serial } => {
            let at = |label: &str| Name::new(&format!("{label}.{}", zone.domain)).ok().map(Name::into_owned);
            RData::SOA(SOA {
                mname: at("ns1")?,
                rname: at("hostmaster")?,
                serial: *serial,
                refresh: i32::try_from(refresh).ok()?,
                retry: i32::try_from(retry).ok()?,
                expire: i32::try_from(expire).ok()?,
                minimum,
            })
        }
    };
    Some(ResourceRecord::new(owner, CLASS::IN, TTL, rdata))
}

/// The two sockets of the answerer.
#[derive(Debug)]
pub struct Sockets {
    udp: UdpSocket,
    tcp: TcpListener,
}

/// Opens both on one address.
///
/// # Errors
/// As the system reports it; port 53 needs rights.
pub async fn open(address: SocketAddr) -> io::Result<Sockets> {
    Ok(Sockets { udp: UdpSocket::bind(address).await?, tcp: TcpListener::bind(address).await? })
}

/// Answers until it is dropped.
pub async fn serve(sockets: Sockets, zone: Zone) {
    let zone = Arc::new(zone);
    let room = Arc::new(Semaphore::new(MAX_TCP));
    let mut buffer = [0; MAX_QUERY_BYTES];
    // The connections end with this task.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        tokio::select! {
            received = sockets.udp.recv_from(&mut buffer) => match received {
                Ok((length, from)) if zone::may_ask(from.ip()) => {
                    if let Some(reply) = answer(&zone, &buffer[..length], true) {
                        let _ = sockets.udp.send_to(&reply, from).await;
                    }
                }
                Ok(_) => {}
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            accepted = sockets.tcp.accept() => match accepted {
                Ok((stream, from)) if zone::may_ask(from.ip()) => {
                    if let Ok(place) = Arc::clone(&room).try_acquire_owned() {
                        let zone = Arc::clone(&zone);
                        connections.spawn(async move {
                            let _ = timeout(TCP_TIME, answer_tcp(stream, &zone)).await;
                            drop(place);
                        });
                    }
                }
                Ok(_) => {}
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
        }
    }
}

async fn answer_tcp(mut stream: TcpStream, zone: &Zone) -> io::Result<()> {
    loop {
        let length = usize::from(stream.read_u16().await?);
        if length > MAX_QUERY_BYTES {
            return Ok(());
        }
        let mut query = vec![0; length];
        stream.read_exact(&mut query).await?;
        let Some(reply) = answer(zone, &query, false) else { return Ok(()) };
        let Ok(length) = u16::try_from(reply.len()) else { return Ok(()) };
        stream.write_all(&[&length.to_be_bytes()[..], &reply].concat()).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::{super::zone::tests::wide, *};

    fn zone() -> Zone {
        Zone::of(&wide(), 7)
    }

    fn query(name: &str, kind: TYPE) -> Vec<u8> {
        let mut packet = Packet::new_query(0x1234);
        let name = Name::new(name).unwrap();
        packet.questions.push(Question::new(name, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false));
        packet.build_bytes_vec().unwrap()
    }

    /// Code, number of answers and of additional records.
    fn asked(name: &str, kind: TYPE) -> (RCODE, usize, usize) {
        let reply = answer(&zone(), &query(name, kind), true).expect("an answer");
        let packet = Packet::parse(&reply).unwrap();
        assert_eq!(packet.id(), 0x1234);
        assert!(packet.has_flags(PacketFlag::RESPONSE) && !packet.has_flags(PacketFlag::RECURSION_AVAILABLE));
        (packet.rcode(), packet.answers.len(), packet.additional_records.len())
    }

    #[test]
    fn browsing_finds_everything_in_one_answer() {
        use RCODE::{NameError, NoError, Refused};
        let service = "_openclaw-gw._tcp.openclaw.internal";
        let instance = "box-gateway._openclaw-gw._tcp.openclaw.internal";
        // SRV and TXT of the instance, A of the host.
        assert_eq!(asked(service, TYPE::PTR), (NoError, 1, 3));
        assert_eq!(asked(instance, TYPE::SRV), (NoError, 1, 1));
        assert_eq!(asked(instance, TYPE::TXT), (NoError, 1, 0));
        assert_eq!(asked("BOX.openclaw.INTERNAL", TYPE::A), (NoError, 1, 0));
        assert_eq!(asked("box.openclaw.internal", TYPE::AAAA), (NoError, 0, 0));
        assert_eq!(asked("openclaw.internal", TYPE::SOA), (NoError, 1, 0));
        assert_eq!(asked("openclaw.internal", TYPE::NS), (NoError, 1, 0));
        // It exists, because something below it does.
        assert_eq!(asked("_tcp.openclaw.internal", TYPE::PTR), (NoError, 0, 0));
        assert_eq!(asked("nope.openclaw.internal", TYPE::A), (NameError, 0, 0));
        // Nothing beyond the zone, not even where it ends alike.
        for name in ["example.com", "notopenclaw.internal", "internal", "version.bind"] {
            assert_eq!(asked(name, TYPE::A), (Refused, 0, 0), "{name}");
        }
    }

    #[test]
    fn what_is_no_query_gets_no_more_than_a_refusal() {
        let zone = zone();
        let mut reply = query("openclaw.internal", TYPE::SOA);
        reply[2] |= 0x80;
        assert_eq!(answer(&zone, &reply, true), None, "an answer is not answered");
        assert_eq!(answer(&zone, b"short", true), None);
        let code = |bytes: &[u8]| answer(&zone, bytes, true).map(|reply| reply[3] & 0x0f);
        assert_eq!(code(&[0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 63]), Some(1));
        assert_eq!(code(&[0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Some(1));
        let mut update = query("openclaw.internal", TYPE::SOA);
        update[2] |= 5 << 3;
        assert_eq!(code(&update), Some(4));
        for end in 12..query("openclaw.internal", TYPE::SOA).len() {
            let _ = answer(&zone, &query("openclaw.internal", TYPE::SOA)[..end], true);
        }
        let transfer = {
            let mut packet = Packet::new_query(1);
            let name = Name::new("openclaw.internal").unwrap();
            packet.questions.push(Question::new(name, QTYPE::AXFR, QCLASS::CLASS(CLASS::IN), false));
            packet.build_bytes_vec().unwrap()
        };
        assert_eq!(code(&transfer), Some(5));
    }

    #[test]
    fn long_answers_go_over_tcp() {
        let mut wide = wide();
        wide.txt = (0..5).map(|_| ("cliPath", "x".repeat(200))).collect();
        let zone = Zone::of(&wide, 1);
        let asked = query("box-gateway._openclaw-gw._tcp.openclaw.internal", TYPE::TXT);
        let udp = answer(&zone, &asked, true).unwrap();
        let packet = Packet::parse(&udp).unwrap();
        assert!(packet.has_flags(PacketFlag::TRUNCATION) && packet.answers.is_empty() && udp.len() <= UDP_BYTES);
        let tcp = answer(&zone, &asked, false).unwrap();
        assert_eq!(Packet::parse(&tcp).unwrap().answers.len(), 1);
        // With EDNS it fits.
        let mut packet = Packet::parse(&asked).unwrap();
        *packet.opt_mut() = Some(OPT { opt_codes: Vec::new(), udp_packet_size: 4096, version: 0 });
        let udp = answer(&zone, &packet.build_bytes_vec().unwrap(), true).unwrap();
        assert!(udp.len() > UDP_BYTES && udp.len() <= usize::from(EDNS_BYTES));
    }
}
