//! Does somebody answer? A TCP connection to the ssh port, one line read, nothing said.

use std::{io, net::IpAddr, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    net::TcpStream,
    time::timeout,
};

/// Longest first line of an ssh server: 255 bytes (RFC 4253 section 4.2), after lines of anything else.
const MAX_GREETING_BYTES: u64 = 4096;
/// What a machine may take: more than a round trip to the other side of the earth.
const PATIENCE: Duration = Duration::from_millis(800);

/// What was heard on the ssh port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// An ssh server.
    Ssh,
    /// Something listens that is no ssh server.
    Other,
    /// The machine is there and takes no connections on that port.
    Refused,
    /// Nobody answered in time, or there is no way.
    Silent,
}

/// Listens for the greeting of the ssh server at the first address that answers.
pub async fn greet(host: &str, addresses: &[IpAddr], port: u16) -> Greeting {
    let listen = async {
        let stream = match addresses {
            [] => TcpStream::connect((host, port)).await,
            known => {
                let places: Vec<_> = known.iter().map(|address| (*address, port).into()).collect();
                TcpStream::connect(places.as_slice() as &[std::net::SocketAddr]).await
            }
        };
        match stream {
            Ok(stream) => first_line(stream).await,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Greeting::Refused,
            Err(_) => Greeting::Silent,
        }
    };
    timeout(PATIENCE, listen).await.unwrap_or(Greeting::Silent)
}

async fn first_line(stream: TcpStream) -> Greeting {
    let mut lines = BufReader::new(stream.take(MAX_GREETING_BYTES)).split(b'\n');
    // A server may say other things first; the line that counts begins with `SSH-`.
    while let Ok(Some(line)) = lines.next_segment().await {
        if line.starts_with(b"SSH-2.0-") || line.starts_with(b"SSH-1.99-") {
            return Greeting::Ssh;
        }
    }
    Greeting::Other
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt as _, net::TcpListener};

    use super::*;

    async fn heard(said: &'static [u8]) -> Greeting {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let port = listener.local_addr().expect("address").port();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a client");
            stream.write_all(said).await.expect("says");
            stream.shutdown().await.expect("ends");
            let mut sent = Vec::new();
            let _ = stream.read_to_end(&mut sent).await;
            sent
        });
        let greeting = greet("localhost", &["127.0.0.1".parse().expect("address")], port).await;
        assert!(server.await.expect("server").is_empty(), "nothing is sent to it");
        greeting
    }

    #[tokio::test]
    async fn greetings() {
        assert_eq!(heard(b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n").await, Greeting::Ssh);
        assert_eq!(heard(b"Welcome\r\nSSH-2.0-x\r\n").await, Greeting::Ssh);
        assert_eq!(heard(b"220 mail\r\n").await, Greeting::Other);
        assert_eq!(heard(b"").await, Greeting::Other);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let port = listener.local_addr().expect("address").port();
        drop(listener);
        assert_eq!(greet("127.0.0.1", &[], port).await, Greeting::Refused);
    }
}
