//! A slow, moody piece of wire: a TCP relay that adds time, falls silent, or breaks.
//!
//! The kernels this runs on cannot delay packets (no netem), so bytes are held back here instead. Started inside
//! [`crate::netlab::Host::enter`] a relay belongs to that host, with all its threads.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, mpsc},
    thread,
    time::{Duration, Instant},
};

/// Pieces under way in one direction before the sender has to wait.
const QUEUE: usize = 256;
/// Largest piece.
const PIECE_BYTES: usize = 64 * 1024;

/// A listener that passes everything on to one place.
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    mood: Mutex<Mood>,
    changed: Condvar,
}

#[derive(Default)]
struct Mood {
    /// Added to each direction.
    delay: Duration,
    /// Nothing moves, nobody is told.
    silent: bool,
    /// New connections are dropped at once.
    refuses: bool,
    over: bool,
    /// Both sockets of every connection ever made; shutting a closed one down does nothing.
    sockets: Vec<TcpStream>,
    accepted: usize,
}

impl Relay {
    /// Listens at `at` and passes on to `to`, adding `one_way` in each direction.
    ///
    /// # Errors
    /// If `at` cannot be listened at.
    pub fn start(at: &str, to: SocketAddr, one_way: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind(at)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        shared.mood().delay = one_way;
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                if accepting.mood().over {
                    return;
                }
                accepting.wait_while_silent();
                if !accepting.mood().refuses {
                    accepting.connect(near, to);
                }
            }
        });
        Ok(Self { address, shared })
    }

    /// On 127.0.0.1, any free port.
    ///
    /// # Panics
    /// If there is none.
    pub fn to(to: SocketAddr, one_way: Duration) -> Self {
        Self::start("127.0.0.1:0", to, one_way).expect("loopback has free ports")
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Connections taken so far.
    pub fn accepted(&self) -> usize {
        self.shared.mood().accepted
    }

    /// Nothing moves any more, in either direction, and nobody is told.
    pub fn fall_silent(&self) {
        self.set(|mood| mood.silent = true);
    }

    /// Everything moves again; what was held back comes late.
    pub fn speak(&self) {
        self.set(|mood| mood.silent = false);
    }

    /// Every connection ends now.
    pub fn break_all(&self) {
        for socket in self.shared.mood().sockets.drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// New connections end at once, or are served again.
    pub fn refuse(&self, refuses: bool) {
        self.set(|mood| mood.refuses = refuses);
    }

    fn set(&self, change: impl FnOnce(&mut Mood)) {
        change(&mut self.shared.mood());
        self.shared.changed.notify_all();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.set(|mood| {
            mood.over = true;
            mood.silent = false;
        });
        self.break_all();
        // Wakes the listener, which then sees that it is over. From another namespace it stays until the process ends.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_millis(200));
    }
}

impl Shared {
    fn mood(&self) -> MutexGuard<'_, Mood> {
        self.mood.lock().expect("nobody panics with it")
    }

    fn wait_while_silent(&self) -> Duration {
        let mood = self.mood();
        self.changed.wait_while(mood, |mood| mood.silent).expect("nobody panics with it").delay
    }

    fn connect(self: &Arc<Self>, near: TcpStream, to: SocketAddr) {
        let Ok(far) = TcpStream::connect(to) else { return };
        let both = [&near, &far].map(TcpStream::try_clone);
        let [Ok(near_too), Ok(far_too)] = both else { return };
        for socket in [&near, &far] {
            let _ = socket.set_nodelay(true);
        }
        let mut mood = self.mood();
        mood.accepted += 1;
        mood.sockets.extend([&near, &far].into_iter().filter_map(|socket| socket.try_clone().ok()));
        drop(mood);
        self.pass(near, far);
        self.pass(far_too, near_too);
    }

    /// Moves bytes one way: one thread reads and stamps, one waits until they are due and writes.
    fn pass(self: &Arc<Self>, mut from: TcpStream, mut to: TcpStream) {
        let (pieces, due) = mpsc::sync_channel::<(Instant, Vec<u8>)>(QUEUE);
        let reading = Arc::clone(self);
        thread::spawn(move || {
            let mut buffer = vec![0; PIECE_BYTES];
            // The end of the stream travels as an empty piece.
            while let Ok(length) = from.read(&mut buffer) {
                let at = Instant::now() + reading.mood().delay;
                if pieces.send((at, buffer[..length].to_vec())).is_err() || length == 0 {
                    return;
                }
            }
        });
        let writing = Arc::clone(self);
        thread::spawn(move || {
            for (at, piece) in due {
                thread::sleep(at.saturating_duration_since(Instant::now()));
                writing.wait_while_silent();
                if piece.is_empty() || to.write_all(&piece).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Write);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("bound");
        thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || io::copy(&mut &socket, &mut &socket));
            }
        });
        address
    }

    fn ask(socket: &mut TcpStream) -> io::Result<()> {
        socket.write_all(b"ping")?;
        socket.read_exact(&mut [0; 4])
    }

    #[test]
    fn bytes_come_back_after_both_delays_and_wait_out_a_silence() {
        let delay = Duration::from_millis(30);
        let relay = Relay::to(echo(), delay);
        let mut socket = TcpStream::connect(relay.address()).expect("connects");
        let asked = Instant::now();
        ask(&mut socket).expect("echoes");
        assert!(asked.elapsed() >= 2 * delay);

        relay.fall_silent();
        socket.set_read_timeout(Some(Duration::from_millis(300))).expect("sets");
        assert!(ask(&mut socket).is_err(), "silence");
        relay.speak();
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("sets");
        socket.read_exact(&mut [0; 4]).expect("late, not lost");

        relay.break_all();
        assert_eq!(socket.read(&mut [0; 4]).unwrap_or_default(), 0, "the end");
        relay.refuse(true);
        let mut refused = TcpStream::connect(relay.address()).expect("accepted, then dropped");
        assert_eq!(refused.read(&mut [0; 4]).unwrap_or_default(), 0);
    }
}
