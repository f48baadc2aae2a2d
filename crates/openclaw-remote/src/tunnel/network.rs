//! When to look again at once: the network changed, or the machine woke up.

use std::{
    collections::HashMap,
    io,
    time::{Duration, SystemTime},
};

use tokio::{
    net::UnixDatagram,
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

/// How often the two clocks are compared, and addresses where the system does not tell of changes.
const LOOK: Duration = Duration::from_secs(1);
/// The wall clock ran this much further than the one that stops in sleep: the machine slept.
const SLEPT: Duration = Duration::from_secs(3);
/// Changes come in bursts; one report per burst, the first at once.
const BURST: Duration = Duration::from_millis(250);

/// Reports changes until it is dropped.
#[derive(Debug)]
pub(crate) struct Moves {
    changes: mpsc::Receiver<&'static str>,
    task: JoinHandle<()>,
}

impl Drop for Moves {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Moves {
    /// Begins to watch.
    pub fn watch() -> Self {
        // One waiting report stands for all that came since.
        let (report, changes) = mpsc::channel(1);
        let task = tokio::spawn(async move {
            tokio::join!(watch_network(&report), watch_sleep(&report));
        });
        Self { changes, task }
    }

    /// What changed, in a word. Cancel safe.
    pub async fn next(&mut self) -> &'static str {
        match self.changes.recv().await {
            Some(change) => change,
            None => std::future::pending().await,
        }
    }
}

async fn watch_sleep(report: &mpsc::Sender<&'static str>) {
    let mut clock = interval(LOOK);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let (wall, steady) = (SystemTime::now(), Instant::now());
        clock.tick().await;
        if wall.elapsed().unwrap_or_default() > steady.elapsed() + SLEPT {
            let _ = report.try_send("wake");
        }
    }
}

async fn watch_network(report: &mpsc::Sender<&'static str>) {
    let mut source = Source::open();
    while source.changed().await {
        let _ = report.try_send("network");
        // The rest of the burst is one more report, at its end.
        let mut more = false;
        let quiet = sleep(BURST);
        tokio::pin!(quiet);
        loop {
            tokio::select! {
                () = &mut quiet => break,
                alive = source.changed() => {
                    more = true;
                    if !alive {
                        return;
                    }
                }
            }
        }
        if more {
            let _ = report.try_send("network");
        }
    }
}

/// Where changes are learnt from.
enum Source {
    Told(Netlink),
    Looked(Vec<if_addrs::Interface>),
}

impl Source {
    fn open() -> Self {
        match Netlink::open() {
            Ok(netlink) => Self::Told(netlink),
            Err(error) => {
                tracing::debug!(%error, "no network events; addresses are compared instead");
                Self::Looked(addresses())
            }
        }
    }

    /// Waits for a change. False when there will be no more.
    async fn changed(&mut self) -> bool {
        match self {
            Self::Told(netlink) => match netlink.changed().await {
                Ok(()) => true,
                Err(error) => {
                    tracing::debug!(%error, "network events ended; addresses are compared instead");
                    *self = Self::Looked(addresses());
                    true
                }
            },
            Self::Looked(known) => loop {
                sleep(LOOK).await;
                let found = addresses();
                if found != *known {
                    *known = found;
                    return true;
                }
            },
        }
    }
}

fn addresses() -> Vec<if_addrs::Interface> {
    if_addrs::get_if_addrs().unwrap_or_default()
}

/// The kernel's own report of links, addresses and routes.
struct Netlink {
    /// A netlink socket; reading datagrams is all that is done with it.
    socket: UnixDatagram,
    /// Flags of each link: a link is reported for many reasons, of which only these matter.
    links: HashMap<i32, u32>,
}

/// Reads are at most this long; a report is some hundred bytes.
const REPORT_BYTES: usize = 16 * 1024;

impl Netlink {
    #[cfg(target_os = "linux")]
    fn open() -> io::Result<Self> {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, netlink};
        // RTMGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE of linux/rtnetlink.h.
        const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        // Protocol 0 is NETLINK_ROUTE.
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        rustix::net::bind(&socket, &netlink::SocketAddrNetlink::new(0, GROUPS))?;
        let socket = UnixDatagram::from_std(socket.into())?;
        Ok(Self { socket, links: HashMap::new() })
    }

    #[cfg(not(target_os = "linux"))]
    fn open() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn changed(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; REPORT_BYTES];
        loop {
            match self.socket.recv(&mut buffer).await {
                Ok(length) => {
                    if is_change(buffer.get(..length).unwrap_or_default(), &mut self.links) {
                        return Ok(());
                    }
                }
                // Reports were lost, so something changed.
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Does a netlink datagram tell of a change that can matter to a connection?
fn is_change(mut datagram: &[u8], links: &mut HashMap<i32, u32>) -> bool {
    // linux/netlink.h: nlmsghdr is 16 bytes; linux/rtnetlink.h: RTM_NEWLINK is 16,
    // DELLINK 17, addresses 20 and 21, routes 24 and 25; ifinfomsg has the index at 4 and the flags at 8.
    const HEADER_BYTES: usize = 16;
    let mut changed = false;
    while datagram.len() >= HEADER_BYTES {
        let (Some(length), Some(kind)) = (number(datagram, 0), half(datagram, 4)) else { break };
        let length = usize::try_from(length).unwrap_or(usize::MAX).clamp(HEADER_BYTES, datagram.len());
        let body = &datagram[HEADER_BYTES..length];
        changed |= match (kind, number(body, 4), number(body, 8)) {
            (16, Some(index), Some(flags)) => links.insert(index.cast_signed(), flags) != Some(flags),
            (17, Some(index), _) => links.remove(&index.cast_signed()).is_some(),
            (20 | 21 | 24 | 25, _, _) => true,
            _ => false,
        };
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    changed
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A netlink message: header, then for links the `ifinfomsg`.
    fn message(kind: u16, index: i32, flags: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(32_u32.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend([0, 0, 1, 0]);
        bytes.extend(index.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes
    }

    #[test]
    fn only_changes_count() {
        let mut links = HashMap::new();
        for (kind, index, flags, expected) in [
            (16, 2, 0x1_1043, true),
            (16, 2, 0x1_1043, false),
            (16, 2, 0x1003, true),
            (16, 3, 0x1003, true),
            (17, 2, 0, true),
            (17, 2, 0, false),
            (20, 1, 0, true),
            (21, 1, 0, true),
            (24, 1, 0, true),
            (25, 1, 0, true),
            (28, 1, 0, false),
        ] {
            assert_eq!(is_change(&message(kind, index, flags), &mut links), expected, "{kind} {index} {flags}");
        }
        let two = [message(28, 1, 0), message(20, 1, 0)].concat();
        assert!(is_change(&two, &mut links));
    }

    #[test]
    fn cut_and_odd_datagrams() {
        let mut links = HashMap::new();
        let whole = message(16, 2, 1);
        for length in 0..20 {
            assert!(!is_change(&whole[..length], &mut links), "{length}");
        }
        let mut endless = message(28, 1, 0);
        endless[..4].copy_from_slice(&0_u32.to_ne_bytes());
        assert!(!is_change(&endless, &mut links));
        endless[..4].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert!(!is_change(&endless, &mut links));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_kernel_lets_us_listen() {
        assert!(Netlink::open().is_ok());
    }
}
