//! Bytes from one socket to another, both ways at once.
//!
//! Small pieces are read and written. A direction that fills its buffer is a bulky one: on Linux its bytes then go through
//! a pipe inside the kernel (`splice`), which takes a third of the processor time and leaves the rest to ssh. An idle
//! connection holds two small buffers and no pipe.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use tokio::{
    io::Interest,
    net::{TcpStream, UnixStream},
};

/// Per direction of a connection. ssh writes up to 32 KiB at a time: a full buffer means more than a message.
const BUFFER_BYTES: usize = 16 * 1024;

/// Either kind of stream socket.
#[derive(Debug)]
pub(super) enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
        }
    }
}

impl Socket {
    async fn ready(&self, interest: Interest) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.ready(interest).await,
            Self::Tcp(stream) => stream.ready(interest).await,
        }
        .map(drop)
    }

    /// Runs `work` on the socket, which has to say `WouldBlock` when it would.
    fn try_io<T>(&self, interest: Interest, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self {
            Self::Unix(stream) => stream.try_io(interest, work),
            Self::Tcp(stream) => stream.try_io(interest, work),
        }
    }

    async fn when<T>(&self, interest: Interest, mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            self.ready(interest).await?;
            match self.try_io(interest, &mut work) {
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                done => return done,
            }
        }
    }

    /// Reads some bytes; 0 at the end. Cancel safe.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = || Ok(rustix::io::read(self, &mut *buffer)?);
        self.when(Interest::READABLE, read).await
    }

    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let write = || Ok(rustix::io::write(self, bytes)?);
            let written = self.when(Interest::WRITABLE, write).await?;
            bytes = bytes.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    /// No more bytes will follow.
    fn finish(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(self, rustix::net::Shutdown::Write)?)
    }
}

/// Carries bytes both ways until both sides have ended or one is broken.
pub(super) async fn carry(near: &Socket, far: &Socket) -> io::Result<()> {
    tokio::try_join!(one_way(near, far), one_way(far, near)).map(drop)
}

async fn one_way(from: &Socket, to: &Socket) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.finish();
        }
        to.write_all(&buffer[..read]).await?;
        #[cfg(target_os = "linux")]
        if read == BUFFER_BYTES
            && let Some(pipe) = splice::Pipe::new()
        {
            drop(buffer);
            return pipe.one_way(from, to).await;
        }
    }
}

#[cfg(target_os = "linux")]
mod splice {
    use std::{
        io::{self, Read as _, Write as _},
        os::{fd::OwnedFd, unix::net::UnixStream},
        sync::OnceLock,
    };

    use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
    use tokio::io::Interest;

    use super::Socket;

    /// What a pipe is asked to hold; the system's own 64 KiB do as well.
    const PIPE_BYTES: usize = 256 * 1024;

    /// A pipe between two sockets.
    pub(super) struct Pipe {
        reader: OwnedFd,
        writer: OwnedFd,
    }

    impl Pipe {
        /// `None` when there are no descriptors left, or the kernel cannot do it with sockets.
        pub fn new() -> Option<Self> {
            static WORKS: OnceLock<bool> = OnceLock::new();
            let pipe = Self::open().ok()?;
            WORKS.get_or_init(|| pipe.works().unwrap_or(false)).then_some(pipe)
        }

        fn open() -> io::Result<Self> {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
            // Refused when this user has many large pipes already.
            let _ = fcntl_setpipe_size(&writer, PIPE_BYTES);
            Ok(Self { reader, writer })
        }

        fn works(&self) -> io::Result<bool> {
            let (mut a, b) = UnixStream::pair()?;
            let (c, mut d) = UnixStream::pair()?;
            a.write_all(b"x")?;
            let mut byte = [0];
            Ok(splice(&b, None, &self.writer, None, 1, SpliceFlags::NONBLOCK)? == 1
                && splice(&self.reader, None, &c, None, 1, SpliceFlags::NONBLOCK)? == 1
                && d.read(&mut byte)? == 1
                && byte == *b"x")
        }

        pub async fn one_way(self, from: &Socket, to: &Socket) -> io::Result<()> {
            let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
            loop {
                // The pipe is empty here, so only the socket can make this wait.
                let fill = || Ok(splice(from, None, &self.writer, None, PIPE_BYTES, flags)?);
                let mut held = from.when(Interest::READABLE, fill).await?;
                if held == 0 {
                    return to.finish();
                }
                while held > 0 {
                    let drain = || Ok(splice(&self.reader, None, to, None, held, flags)?);
                    held -= to.when(Interest::WRITABLE, drain).await?.min(held);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn this_kernel_moves_bytes_by_itself() {
        assert!(splice::Pipe::new().is_some());
    }

    /// Bytes that repeat nowhere within a buffer.
    fn pattern(count: usize) -> Vec<u8> {
        (0..count).map(|index| (index.wrapping_mul(2_654_435_761) >> 7) as u8).collect()
    }

    async fn tcp_pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("address");
        let (here, there) = tokio::join!(TcpStream::connect(address), listener.accept());
        (here.expect("connects"), there.expect("accepts").0)
    }

    /// A client on TCP, an echo behind a unix socket, and the carrier between.
    #[tokio::test]
    async fn bytes_arrive_as_they_were_both_ways() {
        for count in [0, 1, 100, BUFFER_BYTES - 1, BUFFER_BYTES, BUFFER_BYTES + 1, 3_000_000] {
            let (client, near) = tcp_pair().await;
            let (far, mut gateway) = UnixStream::pair().expect("a pair");
            let (near, far) = (Socket::Tcp(near), Socket::Unix(far));
            let echo = async move {
                let (mut reader, mut writer) = gateway.split();
                tokio::io::copy(&mut reader, &mut writer).await.expect("echoes");
                writer.shutdown().await.expect("ends");
            };
            let sent = pattern(count);
            let exchange = async {
                let (mut reader, mut writer) = client.into_split();
                let write = async {
                    writer.write_all(&sent).await.expect("writes");
                    writer.shutdown().await.expect("ends");
                };
                let mut received = Vec::new();
                let (_, read) = tokio::join!(write, reader.read_to_end(&mut received));
                read.expect("reads");
                received
            };
            let (carried, (), received) = tokio::join!(carry(&near, &far), echo, exchange);
            carried.expect("carries");
            assert!(received == sent, "{count}");
        }
    }

    #[tokio::test]
    async fn a_broken_side_ends_both() {
        let (client, near) = tcp_pair().await;
        let (far, mut gateway) = UnixStream::pair().expect("a pair");
        let task = tokio::spawn(async move { carry(&Socket::Tcp(near), &Socket::Unix(far)).await });
        gateway.write_all(b"hello").await.expect("writes");
        drop(client);
        // The client is gone: soon nothing can be written any more, and the far end is told.
        while gateway.write_all(&[0; 1024]).await.is_ok() {
            tokio::task::yield_now().await;
        }
        assert!(task.await.expect("no panic").is_err());
    }
}
