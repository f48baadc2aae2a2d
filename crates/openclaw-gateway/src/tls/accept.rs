//! From an accepted TCP connection to a TLS stream, or to a short answer for whoever speaks plain HTTP.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::Tls;

/// First byte of every TLS connection: the content type of a handshake record (RFC 8446 section 5.1).
const HANDSHAKE_RECORD: u8 = 0x16;
/// Most of a plain request that is read before it is answered.
const MAX_PLAIN_BYTES: usize = 8 * 1024;
/// Time for a plain request to arrive, and for its sender to read the answer.
const PLAIN_TIME: Duration = Duration::from_secs(2);

/// Why a connection became no TLS stream.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It spoke something else, and was told.
    #[error("it does not speak TLS")]
    Plain,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Performs the TLS handshake. The caller bounds its time.
///
/// # Errors
/// See [`Refused`].
pub async fn accept(tls: &Tls, mut stream: TcpStream) -> Result<TlsStream<TcpStream>, Refused> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    if first[0] != HANDSHAKE_RECORD {
        let _ = timeout(PLAIN_TIME, tell(&mut stream)).await;
        return Err(Refused::Plain);
    }
    Ok(TlsAcceptor::from(tls.config()).accept(stream).await?)
}

/// Tells a plain client what it should have asked for. Its request is read first and the connection is closed in order:
/// a socket closed with unread bytes is reset, and the answer might never be seen.
async fn tell(stream: &mut TcpStream) -> io::Result<()> {
    let mut head = Vec::new();
    let mut chunk = [0; 1024];
    while head.len() < MAX_PLAIN_BYTES && !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut chunk).await? {
            0 => break,
            n => head.extend_from_slice(&chunk[..n]),
        }
    }
    stream.write_all(answer().as_bytes()).await?;
    stream.shutdown().await?;
    while stream.read(&mut chunk).await? > 0 {}
    Ok(())
}

fn answer() -> String {
    let body = concat!(
        r#"{"error":{"message":"this port speaks TLS; use https:// or wss:// with this address","#,
        r#""type":"tls_required"}}"#
    );
    format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n\
         Cache-Control: no-store\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}
