//! A byte stream that knows when it last brought something: while a large message trickles in, no whole frame is seen and
//! the link is alive all the same.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

/// When the last byte came.
#[derive(Clone, Debug)]
pub(crate) struct LastHeard {
    base: Instant,
    /// Nanoseconds after `base`: an echo on loopback takes less than a millisecond.
    at_ns: Arc<AtomicU64>,
}

impl LastHeard {
    pub fn now() -> Self {
        Self { base: Instant::now(), at_ns: Arc::default() }
    }

    pub fn at(&self) -> Instant {
        self.base + Duration::from_nanos(self.at_ns.load(Ordering::Relaxed))
    }

    fn note(&self) {
        let elapsed = u64::try_from(self.base.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.at_ns.store(elapsed, Ordering::Relaxed);
    }
}

/// A stream that notes each read.
#[derive(Debug)]
pub(crate) struct Heard<S> {
    stream: S,
    last: LastHeard,
}

impl<S> Heard<S> {
    pub const fn new(stream: S, last: LastHeard) -> Self {
        Self { stream, last }
    }

    pub const fn last(&self) -> &LastHeard {
        &self.last
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.last.note();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
