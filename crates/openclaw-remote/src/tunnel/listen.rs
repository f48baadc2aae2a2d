//! The near ends of a tunnel and the bytes between them and the current ssh.
//!
//! A connection is given to the ssh that is current when it comes. While there is none it waits a little: the client's
//! own deadline decides, and a tunnel that comes back within it was never down for this client.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use openclaw_protocol::GatewayId;
use tokio::{
    net::{TcpListener, UnixListener, UnixStream},
    sync::{Mutex, mpsc, watch},
    time::{Instant, timeout},
};

use super::{
    PortRefused,
    carry::{Socket, carry},
    control::is_ours,
    links::{Message, trouble},
    machine::{Input, LinkId},
};
use crate::{client::Client, deadline::Deadline, ssh::Forward};

/// How long a connection waits for an ssh to be current.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest request that is kept until it is answered, in case its ssh dies.
const HEAD_BYTES: usize = 8 * 1024;
/// How long after a connection its ssh may be seen to end.
const LAST_BREATH: Duration = Duration::from_millis(250);
/// Connections carried at the same time; more are hung up on.
const MAX_CONNECTIONS: u32 = 1024;
/// Programs on the TCP port cannot ask the gateway who it is, so we do, at most this often.
const PROOF_LASTS: Duration = Duration::from_secs(10);
/// How long the gateway may take to prove itself.
pub(super) const PROOF_PATIENCE: Duration = Duration::from_secs(10);
/// Attempts to find a port that is free on both loopback addresses.
const PORT_ATTEMPTS: u32 = 16;

/// Where new connections go.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub id: LinkId,
    pub forward: Arc<Forward>,
    /// When the gateway last proved itself through this ssh.
    pub proved: Arc<Mutex<Instant>>,
}

/// What every connection needs to know.
#[derive(Clone, Debug)]
pub(super) struct Carrier {
    pub target: watch::Receiver<Option<Target>>,
    pub messages: mpsc::Sender<Message>,
    pub gateway: watch::Receiver<Option<GatewayId>>,
    pub count: Arc<AtomicU32>,
}

/// Counts a connection for as long as it lives.
struct Counted(Arc<AtomicU32>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Carrier {
    /// A slot for one more connection.
    fn counted(&self) -> Option<Counted> {
        if self.count.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Counted(Arc::clone(&self.count)))
    }

    /// Takes connections of the private socket. They are our own clients, which ask the gateway for its proof themselves.
    pub async fn serve_socket(self, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((near, _)) => {
                    let (carrier, counted) = (self.clone(), self.counted());
                    if let (Some(counted), Ok(true)) = (counted, is_ours(&near)) {
                        tokio::spawn(async move { carrier.carry(Socket::Unix(near), false, counted).await });
                    }
                }
                Err(error) => pause(&error).await,
            }
        }
    }

    /// Takes connections of the loopback port.
    pub async fn serve_port(self, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((near, _)) => {
                    let (carrier, counted) = (self.clone(), self.counted());
                    // Nagle here would undo what the session channel cures at the far end.
                    if let (Some(counted), Ok(())) = (counted, near.set_nodelay(true)) {
                        tokio::spawn(async move { carrier.carry(Socket::Tcp(near), true, counted).await });
                    }
                }
                Err(error) => pause(&error).await,
            }
        }
    }

    async fn carry(mut self, near: Socket, ask: bool, _counted: Counted) {
        let mut said = Vec::new();
        loop {
            let reach = timeout(PATIENCE, self.reach(ask)).await;
            let Ok(Some((target, far))) = reach else { return };
            match begin(&near, &far, &mut said).await {
                Ok(true) => {
                    // Either side may hang up at any time: that is how connections end.
                    let _ = carry(&near, &far).await;
                    return;
                }
                // It came while its ssh was dying: the next one takes it from the beginning.
                Ok(false) if is_safe_to_repeat(&said) && has_ended(&target.forward).await => {}
                _ => return,
            }
        }
    }

    /// A connection through the current ssh, or through the next one.
    async fn reach(&mut self, ask: bool) -> Option<(Target, Socket)> {
        loop {
            let target = self.target.wait_for(Option::is_some).await.ok()?.clone()?;
            if ask && !self.still_proved(&target).await {
                return None;
            }
            match UnixStream::connect(target.forward.socket()).await {
                Ok(far) => return Some((target, Socket::Unix(far))),
                // It has just ended; the supervisor knows in a moment.
                Err(_) => self.target.changed().await.ok()?,
            }
        }
    }

    /// Before bytes of a program that cannot tell gateways apart go out: is it still the same gateway?
    async fn still_proved(&self, target: &Target) -> bool {
        let expected = self.gateway.borrow().clone();
        let Some(expected) = expected else { return true };
        let mut proved = target.proved.lock().await;
        if proved.elapsed() <= PROOF_LASTS {
            return true;
        }
        let endpoint = target.forward.endpoint();
        match Client::identify(&endpoint, Deadline::after(PROOF_PATIENCE), Some(&expected)).await {
            Ok(_) => {
                *proved = Instant::now();
                true
            }
            Err(error) => {
                let error = target.forward.explain(error).await;
                let input = Input::Answered { id: target.id, answer: Err(trouble(&error)) };
                let _ = self.messages.send(Message::Input(input)).await;
                false
            }
        }
    }
}

/// Says again what the client said so far, then passes bytes on until the far end says something. False when it hung up
/// before that; `said` then holds all the client said.
async fn begin(near: &Socket, far: &Socket, said: &mut Vec<u8>) -> io::Result<bool> {
    if far.write_all(said).await.is_err() {
        return Ok(false);
    }
    let (mut asked, mut answered) = (vec![0; HEAD_BYTES], vec![0; HEAD_BYTES]);
    loop {
        tokio::select! {
            read = near.read(&mut asked) => {
                let bytes = &asked[..read?];
                said.extend_from_slice(bytes);
                if far.write_all(bytes).await.is_err() {
                    return Ok(false);
                }
                // The end of its words comes again when it is read again; long ones are not kept.
                if bytes.is_empty() || said.len() > HEAD_BYTES {
                    return Ok(true);
                }
            }
            read = far.read(&mut answered) => match read {
                Ok(count) if count > 0 => {
                    near.write_all(&answered[..count]).await?;
                    return Ok(true);
                }
                _ => return Ok(false),
            }
        }
    }
}

/// Nothing yet, or the beginning of a request that changes nothing, as every WebSocket's: the far end may have seen it.
fn is_safe_to_repeat(said: &[u8]) -> bool {
    said.is_empty() || said.starts_with(b"GET ")
}

/// Did the ssh end, and not only this connection?
async fn has_ended(forward: &Forward) -> bool {
    timeout(LAST_BREATH, forward.ended()).await.is_ok()
}

/// Running out of descriptors must not become a busy loop.
async fn pause(error: &io::Error) {
    tracing::debug!(%error, "accept");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// A listening socket only this user can open. What is in its place is a leftover: the caller holds the tunnel's lock.
pub(crate) fn bind_socket(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // The directory is private already, so nobody comes between these two.
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// The wished port on both loopback addresses, or another one that the system gives, and why it is not the wished one.
/// Taken on one of the two is taken: programs that say `localhost` may come out at either.
pub(super) async fn bind_port(wished: u16) -> io::Result<(Vec<TcpListener>, u16, Option<PortRefused>)> {
    let refused = match bind_both(wished).await {
        Ok((listeners, port)) => return Ok((listeners, port, None)),
        Err(error) => PortRefused { port: wished, reason: error.to_string() },
    };
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..PORT_ATTEMPTS {
        match bind_both(0).await {
            Ok((listeners, port)) => return Ok((listeners, port, Some(refused))),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn bind_both(port: u16) -> io::Result<(Vec<TcpListener>, u16)> {
    let first = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
    let port = first.local_addr()?.port();
    match TcpListener::bind(SocketAddr::from((Ipv6Addr::LOCALHOST, port))).await {
        Ok(second) => Ok((vec![first, second], port)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
        // No IPv6 on this machine.
        Err(_) => Ok((vec![first], port)),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_told_and_replaced() {
        for address in [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), SocketAddr::from((Ipv6Addr::LOCALHOST, 0))] {
            let Ok(squatter) = TcpListener::bind(address).await else {
                eprintln!("SKIPPED {address}: not on this machine");
                continue;
            };
            let wished = squatter.local_addr().expect("address").port();
            let (listeners, port, refused) = bind_port(wished).await.expect("another port");
            assert_ne!(port, wished);
            let refused = refused.expect("refused");
            assert_eq!(refused.port, wished);
            assert!(refused.reason.contains("in use"), "{}", refused.reason);
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("connects");
            drop(squatter);
            drop(listeners);
            let (_, port, refused) = bind_port(wished).await.expect("the wished port");
            assert_eq!((port, refused), (wished, None));
        }
    }
}
