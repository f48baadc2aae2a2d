//! One task per WebSocket.
//!
//! ```text
//! challenge ─► connect ─► handshake ─► hello-ok ─► requests, events ─► close
//!      └── 64 KiB, 15 s from accept ──┘     └── 25 MiB, ping every 25 s ──┘
//! ```
//!
//! The task owns the socket. It gathers what is ready (replies, events, pongs) and writes it in one go; it reads into a
//! thread's scratch buffer, so an idle connection holds almost nothing. Quick requests are answered in the connection's own
//! turn and in order; slow ones become tasks of the gateway, so they outlive the socket and never block it.

pub mod handshake;
pub mod outbound;
pub mod requests;
pub mod ws;

use std::{cell::RefCell, future::poll_fn, io, pin::Pin, sync::Arc, task::Poll};

use bytes::Bytes;
use openclaw_protocol::{CloseReason, limits};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, sleep_until},
};

use self::ws::{Incoming, Ws};
use crate::{
    admission::Slot, auth::Evidence, clock::now_ms, gateway::Gateway, http::io::Stream, hub::Connection, setup::Handed,
};

/// Bytes read at once: 64 KiB, shared by all connections of a thread.
const SCRATCH_BYTES: usize = 64 * 1024;
/// Requests answered before what they produced is written and other connections get a turn.
const TURN: usize = 64;
/// Above this many unsent bytes a connection's requests wait: it reads its answers first. 1 MiB.
const READ_PAUSE_BYTES: usize = 1024 * 1024;
/// A write buffer above this size is returned once it is empty.
const KEEP_WRITE_BUFFER_BYTES: usize = 2 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice());
}

/// A socket, its parser and its two buffers.
pub(crate) struct Link<S = Stream> {
    stream: S,
    ws: Ws,
    out: Vec<u8>,
    written: usize,
    /// TLS took bytes it may not have sent yet.
    unflushed: bool,
    inbox: Vec<Incoming>,
    /// The peer began or answered a close.
    parted: bool,
}

enum Step {
    /// Something arrived; the inbox has it.
    Read,
    Wrote,
    /// The peer is gone without a close frame.
    Lost,
    /// The peer broke a rule.
    Broken(CloseReason),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Link<S> {
    fn new(stream: S, unsent: Vec<u8>) -> Self {
        Self { stream, ws: Ws::default(), out: unsent, written: 0, unflushed: false, inbox: Vec::new(), parted: false }
    }

    fn owes(&self) -> bool {
        self.written < self.out.len()
    }

    /// Bytes hyper had read beyond the upgrade request.
    fn feed(&mut self, early: &[u8]) -> Result<(), CloseReason> {
        if early.is_empty() {
            return Ok(());
        }
        let fed = self.ws.feed(early, now_ms(), &mut self.out, &mut self.inbox);
        self.parted |= self.inbox.contains(&Incoming::Closed);
        fed
    }

    /// Writes what is owed and reads what has come, whichever is possible first. Cancel safe.
    async fn step(&mut self, reading: bool) -> Step {
        poll_fn(|cx| {
            if self.owes() {
                match Pin::new(&mut self.stream).poll_write(cx, &self.out[self.written..]) {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Step::Lost),
                    Poll::Ready(Ok(n)) => {
                        self.written += n;
                        self.unflushed = true;
                        if !self.owes() {
                            self.written = 0;
                            self.out.clear();
                            if self.out.capacity() > KEEP_WRITE_BUFFER_BYTES {
                                self.out = Vec::new();
                            }
                        }
                        return Poll::Ready(Step::Wrote);
                    }
                    Poll::Pending => {}
                }
            }
            if self.unflushed {
                match Pin::new(&mut self.stream).poll_flush(cx) {
                    Poll::Ready(Ok(())) => self.unflushed = false,
                    Poll::Ready(Err(_)) => return Poll::Ready(Step::Lost),
                    Poll::Pending => {}
                }
            }
            if !reading {
                return Poll::Pending;
            }
            SCRATCH.with_borrow_mut(|scratch| {
                let mut buf = ReadBuf::new(scratch);
                match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(Err(_)) => Poll::Ready(Step::Lost),
                    Poll::Ready(Ok(())) if buf.filled().is_empty() => Poll::Ready(Step::Lost),
                    Poll::Ready(Ok(())) => {
                        let fed = self.ws.feed(buf.filled(), now_ms(), &mut self.out, &mut self.inbox);
                        self.parted |= self.inbox.contains(&Incoming::Closed);
                        Poll::Ready(fed.map_or_else(Step::Broken, |()| Step::Read))
                    }
                }
            })
        })
        .await
    }

    /// Ends the connection. A peer that said goodbye has its answer from the parser already and waits for the socket to
    /// end; any other is told why and gets a second to answer. Nothing follows a close frame.
    async fn close(mut self, reason: &CloseReason) {
        if !self.parted {
            ws::push_close(&mut self.out, reason);
        }
        let farewell = async {
            let mut last = self.out.len();
            while self.owes() || !self.parted {
                match self.step(!self.parted).await {
                    Step::Lost | Step::Broken(_) => break,
                    Step::Wrote => last = last.min(self.out.len()),
                    Step::Read => {
                        self.inbox.clear();
                        self.out.truncate(last);
                    }
                }
            }
        };
        let _ = tokio::time::timeout(limits::CLOSE_GRACE, farewell).await;
        // TLS says goodbye too, and a peer that does not read must not keep us.
        let shutdown = poll_fn(|cx| Pin::new(&mut self.stream).poll_shutdown(cx));
        let _: Result<io::Result<()>, _> = tokio::time::timeout(limits::CLOSE_GRACE, shutdown).await;
    }
}

/// Drives one upgraded socket until it ends. `unsent` is the switching answer, `early` what the client sent right after its
/// request.
pub async fn run(
    gateway: Arc<Gateway>,
    stream: Stream,
    unsent: Vec<u8>,
    early: Bytes,
    evidence: Evidence,
    slot: Slot,
    deadline: Instant,
) {
    let mut link = Link::new(stream, unsent);
    let challenge = handshake::Challenge::new(now_ms());
    ws::push_text(&mut link.out, &[&challenge.frame(&gateway.identity, evidence.proof_nonce.as_deref())]);
    if let Err(reason) = link.feed(&early) {
        return link.close(&reason).await;
    }
    let evicted = slot.evicted.clone();
    let admitted = tokio::select! {
        biased;
        () = evicted.cancelled() => Err(CloseReason::NORMAL),
        () = sleep_until(deadline) => Err(CloseReason::NORMAL),
        () = gateway.cancel.cancelled() => Err(CloseReason::SERVICE_RESTART),
        outcome = handshake::perform(&gateway, &mut link, &evidence, &challenge) => outcome,
    };
    match admitted {
        Err(reason) => link.close(&reason).await,
        Ok((connection, handed)) => {
            slot.proven();
            link.ws.authenticated();
            // A task of its own again: the state of the handshake is much larger than that of a connection at rest.
            let tracker = gateway.tracker.clone();
            tracker.spawn(serve(Served { gateway, connection }, link, handed));
        }
    }
}

/// A connection that is in the hub; leaves it whichever way its task ends, a panic in a handler included.
struct Served {
    gateway: Arc<Gateway>,
    connection: Arc<Connection>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.gateway.disconnected(&self.connection);
    }
}

/// Requests and events until the connection ends.
async fn serve(served: Served, mut link: Link, mut handed: Handed) {
    let connection = &served.connection;
    let mut requests = requests::Requests::new(Arc::clone(&served.gateway), Arc::clone(connection));
    let mut ping = PingClock::new();
    let mut timer = std::pin::pin!(sleep_until(ping.next));
    let reason = loop {
        if let Some(reason) = connection.outbound.aborted() {
            break reason;
        }
        let handled = requests.take_turn(&mut link.inbox, TURN);
        if !link.owes()
            && !link.parted
            && let Some(reason) = connection.outbound.drain(&mut link.out)
        {
            break reason;
        }
        if let Some(reason) = handled {
            break reason;
        }
        let waiting = !link.inbox.is_empty() && requests.has_room();
        let reading = link.inbox.is_empty() && connection.outbound.pending_bytes() < READ_PAUSE_BYTES;
        tokio::select! {
            biased;
            step = link.step(reading) => match step {
                Step::Read => ping.alive(),
                Step::Wrote if !link.owes() => handed.delivered(),
                Step::Wrote => {}
                Step::Lost => return,
                Step::Broken(reason) => break reason,
            },
            () = connection.outbound.ready() => {}
            () = tokio::task::yield_now(), if waiting => {}
            () = &mut timer => {
                match ping.due() {
                    Due::Ping => ws::push_ping(&mut link.out),
                    Due::Later => {}
                    Due::Gone => return,
                }
                timer.as_mut().reset(ping.next);
            }
        }
    };
    connection.outbound.close(reason.clone());
    link.close(&reason).await;
}

/// When to ping, and when silence means the peer is gone. Any inbound bytes count as life.
struct PingClock {
    next: Instant,
    heard: bool,
    awaiting: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Due {
    Ping,
    /// The peer spoke since the timer was set; nothing to ask.
    Later,
    /// The last ping went unanswered for a whole interval.
    Gone,
}

impl PingClock {
    fn new() -> Self {
        Self { next: Instant::now() + limits::PING_INTERVAL, heard: false, awaiting: false }
    }

    /// The timer is not moved: that would cost more per message than it tells.
    fn alive(&mut self) {
        self.heard = true;
        self.awaiting = false;
    }

    fn due(&mut self) -> Due {
        self.next = Instant::now() + limits::PING_INTERVAL;
        if std::mem::take(&mut self.heard) {
            return Due::Later;
        }
        if self.awaiting {
            return Due::Gone;
        }
        self.awaiting = true;
        Due::Ping
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    fn pair() -> (Link<DuplexStream>, DuplexStream) {
        let (near, far) = duplex(64 * 1024);
        (Link::new(near, Vec::new()), far)
    }

    /// A link over TLS and a pipe that holds 1 KiB, and its client.
    async fn tls_pair(unsent: Vec<u8>) -> (Link<impl AsyncRead + AsyncWrite>, impl AsyncRead) {
        use rustls::{
            ClientConfig, RootCertStore,
            pki_types::{CertificateDer, ServerName, pem::PemObject as _},
        };
        let dir = tempfile::tempdir().expect("dir");
        let path = |name: &str| dir.path().join(name);
        let files = openclaw_config::TlsFiles { certificate: path("c.pem"), key: path("k.pem"), ca: None };
        let tls = crate::tls::Tls::open(files.clone(), true, &["localhost".to_owned()]).expect("a pair");
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&files.certificate).expect("certificate")).expect("root");
        let client = ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (near, far) = duplex(1024);
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        let (server, client) = tokio::join!(
            tokio_rustls::TlsAcceptor::from(tls.config()).accept(near),
            connector.connect(ServerName::try_from("localhost").expect("name"), far)
        );
        (Link::new(server.expect("server"), unsent), client.expect("client"))
    }

    #[tokio::test]
    async fn what_tls_took_leaves_when_the_peer_reads_again() {
        const BYTES: usize = 20_000;
        let (mut link, mut client) = tls_pair(vec![7; BYTES]).await;
        // TLS takes it all at once, although the pipe holds a twentieth.
        while link.owes() {
            assert!(matches!(link.step(true).await, Step::Wrote));
        }
        // The link owes nothing and waits for something to read, as an idle connection does.
        let mut received = vec![0; BYTES];
        tokio::select! {
            read = tokio::time::timeout(Duration::from_secs(10), client.read_exact(&mut received)) => {
                read.expect("the rest is held back").expect("reads");
            }
            _ = link.step(true) => panic!("the client said nothing"),
        }
        assert_eq!(received, vec![7; BYTES]);
    }

    const MASKED_CLOSE: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8];

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_closes_is_answered_once_and_let_go_at_once() {
        let (mut link, mut far) = pair();
        far.write_all(&MASKED_CLOSE).await.expect("room");
        assert!(matches!(link.step(true).await, Step::Read));
        let start = Instant::now();
        link.close(&CloseReason::NORMAL).await;
        assert_eq!(start.elapsed(), Duration::ZERO, "the peer waits for the socket to end");
        let mut sent = Vec::new();
        far.read_to_end(&mut sent).await.expect("the end");
        assert_eq!(sent, [0x88, 2, 0x03, 0xe8]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_is_closed_has_a_second_to_answer() {
        for answers in [true, false] {
            let (link, mut far) = pair();
            let start = Instant::now();
            let reason = CloseReason::SERVICE_RESTART;
            let closing = link.close(&reason);
            let peer = async {
                let mut frame = vec![0; 4 + CloseReason::SERVICE_RESTART.reason.len()];
                far.read_exact(&mut frame).await.expect("the close frame");
                if answers {
                    far.write_all(&MASKED_CLOSE).await.expect("room");
                }
                let mut rest = Vec::new();
                far.read_to_end(&mut rest).await.expect("the end");
                (frame[0], rest)
            };
            let ((), (first, rest)) = tokio::join!(closing, peer);
            assert_eq!((first, rest), (0x88, Vec::new()), "one close frame and nothing after it");
            let waited = if answers { Duration::ZERO } else { limits::CLOSE_GRACE };
            assert_eq!(start.elapsed(), waited);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ping_clock() {
        let mut clock = PingClock::new();
        let mut expect = async |heard: bool, expected: Due| {
            if heard {
                clock.alive();
            }
            sleep_until(clock.next).await;
            assert_eq!(clock.due(), expected);
        };
        expect(false, Due::Ping).await;
        expect(true, Due::Later).await;
        expect(false, Due::Ping).await;
        expect(false, Due::Gone).await;
    }
}
