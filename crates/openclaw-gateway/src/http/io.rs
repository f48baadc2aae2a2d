//! The byte stream under HTTP and WebSocket, and what hyper is not told.
//!
//! Two things happen here. The answer `101 Switching Protocols` is held back, so that it leaves in one segment with the
//! first frame after it: behind `ssh -N` two small writes in a row cost 40 ms (performance notes, section 4). And request
//! heads are checked for bare line feeds, which httparse tolerates and proxies may not: a smuggling vector (P-65).

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::server::TlsStream;

/// An accepted connection.
#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// A stream as hyper sees it.
#[derive(Debug)]
pub struct HttpIo<S> {
    stream: S,
    head: HeadGuard,
    /// The switching answer, held back until the WebSocket driver takes over.
    held: Vec<u8>,
}

impl<S> HttpIo<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, head: HeadGuard::default(), held: Vec::new() }
    }

    /// The stream and the bytes of the switching answer that still have to be written.
    pub fn into_parts(self) -> (S, Vec<u8>) {
        (self.stream, self.held)
    }
}

impl<S: AsyncRead + Unpin> hyper::rt::Read for HttpIo<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let mut scratch = [0_u8; 4096];
        let wanted = cursor.remaining().min(scratch.len());
        let mut buf = ReadBuf::new(&mut scratch[..wanted]);
        match Pin::new(&mut this.stream).poll_read(cx, &mut buf) {
            Poll::Ready(Ok(())) => {
                let bytes = buf.filled_mut();
                this.head.spoil_ambiguity(bytes);
                cursor.put_slice(bytes);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncWrite + Unpin> hyper::rt::Write for HttpIo<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if !this.held.is_empty() || buf.starts_with(b"HTTP/1.1 101 ") {
            this.held.extend_from_slice(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut this.stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// Watches the head of each request. What two parsers could read differently is spoilt with a NUL, which hyper answers with
/// 400: a line feed without its carriage return, and a head that says twice where its body ends, by two lengths or by a
/// length and a coding (hyper would silently follow one of them). A request with a body ends the watch; the router closes
/// such connections after the answer.
#[derive(Debug, Default)]
struct HeadGuard {
    /// Bytes of the current line, lower-cased, as far as needed to recognise a body header.
    line: Vec<u8>,
    previous: u8,
    /// Lines that say where the body ends.
    body_lines: u32,
    opaque: bool,
}

impl HeadGuard {
    fn spoil_ambiguity(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            if self.opaque {
                return;
            }
            match *byte {
                b'\n' if self.previous == b'\r' => {
                    let blank = self.line.is_empty();
                    let ends_body = self.line.starts_with(b"content-length") || self.line.starts_with(b"transfer-enc");
                    self.body_lines += u32::from(ends_body);
                    self.line.clear();
                    if blank {
                        self.opaque = self.body_lines > 0;
                        if self.body_lines > 1 {
                            *byte = 0;
                        }
                    }
                }
                b'\n' => *byte = 0,
                b'\r' => {}
                other if self.line.len() < 16 => self.line.push(other.to_ascii_lowercase()),
                _ => {}
            }
            self.previous = *byte;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guarded(text: &str) -> String {
        let mut bytes = text.as_bytes().to_vec();
        let mut guard = HeadGuard::default();
        bytes.chunks_mut(7).for_each(|chunk| guard.spoil_ambiguity(chunk));
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[test]
    fn p_65_bare_line_feeds_are_spoiled_in_heads_only() {
        let good = "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /x HTTP/1.1\r\n\r\n";
        assert_eq!(guarded(good), good);
        assert_eq!(guarded("GET / HTTP/1.1\nHost: a\r\n\r\n"), "GET / HTTP/1.1\0Host: a\r\n\r\n");
        let body = "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\na\nb";
        assert_eq!(guarded(body), body);
        let both = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n";
        assert!(guarded(both).ends_with("\r\n\r\0"), "{:?}", guarded(both));
        let twice = "POST / HTTP/1.1\r\nContent-Length: 0\r\ncontent-length: 0\r\n\r\n";
        assert!(guarded(twice).ends_with("\r\n\r\0"), "{:?}", guarded(twice));
        assert!(guarded("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /y HTTP/1.1\nHost: b\r\n\r\n").contains('\0'));
    }
}
