//! HTTP and WebSocket by hand: a test decides about every byte it sends and sees every byte that comes back.
//!
//! Blocking sockets, one per [`Conn`]. Waiting is for a state (an answer, a frame, the end of the stream) and ends in a
//! panic after [`PATIENCE`]; nothing here sleeps. Whatever is received is searched for the secrets registered with
//! [`never_receive`].

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    sync::Mutex,
    time::{Duration, Instant},
};

use rustix::net::{AddressFamily, SocketType};
use serde_json::Value;

/// Longest wait for anything. A wait that takes this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(40);
const CHUNK_BYTES: usize = 64 * 1024;

static SECRETS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// From now on, receiving this text on any connection of this process is a panic.
pub fn never_receive(secret: &str) {
    let mut secrets = SECRETS.lock().expect("no test panics while it holds this");
    if !secrets.iter().any(|known| known == secret) {
        secrets.push(secret.to_owned());
    }
}

/// Where a gateway can be reached.
#[derive(Clone, Debug)]
pub enum Address {
    /// A port on 127.0.0.1.
    Port(u16),
    /// From a chosen address of 127.0.0.0/8 to a port on 127.0.0.1: another client, as far as a gateway can see.
    PortFrom(Ipv4Addr, u16),
    /// The owner's socket.
    Unix(std::path::PathBuf),
}

impl Address {
    /// What a client would put into `Host`.
    pub fn host(&self) -> String {
        match self {
            Self::Port(port) | Self::PortFrom(_, port) => format!("127.0.0.1:{port}"),
            Self::Unix(_) => "localhost".into(),
        }
    }
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// One connection.
#[derive(Debug)]
pub struct Conn {
    stream: Stream,
    host: String,
    buffer: Vec<u8>,
    /// Bytes at the start of `buffer` that have been handed out.
    taken: usize,
    /// Last bytes received, so that a secret cut in two is still seen.
    tail: String,
    ended: bool,
}

/// What the server sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Text(String),
    Binary(Vec<u8>),
    Ping,
    Pong(Vec<u8>),
    /// Code (1005 when there was none) and reason.
    Close(u16, String),
    /// The stream ended.
    Lost,
}

/// A whole HTTP answer.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

impl Conn {
    pub fn open(address: &Address) -> Self {
        Self::try_open(address).unwrap_or_else(|error| panic!("cannot connect to {address:?}: {error}"))
    }

    /// # Errors
    /// As the system reports it.
    pub fn try_open(address: &Address) -> io::Result<Self> {
        let stream = match address {
            Address::Port(port) => Stream::Tcp(TcpStream::connect((Ipv4Addr::LOCALHOST, *port))?),
            Address::PortFrom(source, port) => Stream::Tcp(connect_from(*source, *port)?),
            Address::Unix(path) => Stream::Unix(UnixStream::connect(path)?),
        };
        if let Stream::Tcp(stream) = &stream {
            stream.set_nodelay(true)?;
        }
        let conn =
            Self { stream, host: address.host(), buffer: Vec::new(), taken: 0, tail: String::new(), ended: false };
        conn.set_patience(PATIENCE);
        Ok(conn)
    }

    /// How long each read or write may take.
    pub fn set_patience(&self, patience: Duration) {
        let patience = Some(patience);
        let set = match &self.stream {
            Stream::Tcp(s) => s.set_read_timeout(patience).and_then(|()| s.set_write_timeout(patience)),
            Stream::Unix(s) => s.set_read_timeout(patience).and_then(|()| s.set_write_timeout(patience)),
        };
        set.expect("a live socket takes a timeout");
    }

    /// # Errors
    /// As the system reports it; the peer may have hung up.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).expect("the peer takes what is sent");
    }

    /// Sends a GET of `path` with these headers besides `Host`; a `Host` among them replaces the usual one.
    pub fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Reply {
        self.ask("GET", path, headers, b"")
    }

    /// Sends a request and reads the answer.
    pub fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let request = request(method, path, &self.host, headers, body);
        self.send(&request);
        self.reply(method == "HEAD").expect("an answer")
    }

    /// Reads one HTTP answer; `None` when the stream ends before it is whole.
    pub fn reply(&mut self, bodiless: bool) -> Option<Reply> {
        let head_end = loop {
            if let Some(at) = find(self.rest(), b"\r\n\r\n") {
                break at + 4;
            }
            if self.fill() == 0 {
                return None;
            }
        };
        let head = String::from_utf8_lossy(&self.rest()[..head_end]).into_owned();
        self.take(head_end);
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status line: {head}"));
        let header = |line: &str| line.split_once(':').map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned()));
        let mut reply = Reply { status, headers: lines.filter_map(header).collect(), body: Vec::new() };
        let length = reply.header("content-length").map(|text| text.parse::<usize>().expect("a length"));
        let length = if bodiless || status == 101 || status == 304 { Some(0) } else { length };
        while length.is_none_or(|length| self.rest().len() < length) && self.fill() > 0 {}
        let length = length.unwrap_or(self.rest().len());
        if self.rest().len() < length {
            return None;
        }
        reply.body = self.rest()[..length].to_vec();
        self.take(length);
        Some(reply)
    }

    /// Asks for a WebSocket on `/`. The headers come on top of the usual ones; one that is among the usual ones
    /// replaces it.
    ///
    /// # Errors
    /// The answer, when it is not 101.
    pub fn upgrade(&mut self, headers: &[(&str, &str)]) -> Result<Reply, Reply> {
        let reply = self.get("/", &upgrading(headers));
        if reply.status == 101 { Ok(reply) } else { Err(reply) }
    }

    /// As [`Conn::upgrade`], for a gateway that may hang up: true when it switched.
    ///
    /// # Errors
    /// When the request could not be sent.
    pub fn try_upgrade(&mut self, headers: &[(&str, &str)]) -> io::Result<bool> {
        let request = request("GET", "/", &self.host, &upgrading(headers), b"");
        self.try_send(&request)?;
        Ok(self.reply(false).is_some_and(|reply| reply.status == 101))
    }

    /// Sends a masked text frame.
    pub fn send_text(&mut self, text: &str) {
        self.send(&frame(0x81, text.as_bytes()));
    }

    /// Sends a close frame.
    pub fn send_close(&mut self, code: u16) {
        // The peer may have closed first.
        let _ = self.try_send(&frame(0x88, &code.to_be_bytes()));
    }

    /// The next frame.
    pub fn frame(&mut self) -> Frame {
        loop {
            if let Some(frame) = self.buffered_frame() {
                return frame;
            }
            if self.fill() == 0 {
                return Frame::Lost;
            }
        }
    }

    /// The next frame that carries something: pings are passed over.
    pub fn message(&mut self) -> Frame {
        loop {
            match self.frame() {
                Frame::Ping | Frame::Pong(_) => {}
                frame => return frame,
            }
        }
    }

    /// The next frame that is not a text message: events may come at any time.
    pub fn frame_but_events(&mut self) -> Frame {
        loop {
            match self.frame() {
                Frame::Text(_) => {}
                frame => return frame,
            }
        }
    }

    /// Reads until the close frame or the end of the stream. Returns the close frame's code and reason.
    pub fn closing(&mut self) -> Option<(u16, String)> {
        loop {
            match self.frame() {
                Frame::Close(code, reason) => {
                    self.send_close(code);
                    return Some((code, reason));
                }
                Frame::Lost => return None,
                _ => {}
            }
        }
    }

    /// Reads whatever comes until the stream ends; returns it.
    pub fn drain(&mut self) -> Vec<u8> {
        while self.fill() > 0 {}
        let rest = self.rest().to_vec();
        self.take(rest.len());
        rest
    }

    /// Reads once, for as long as the patience allows. `None` when nothing came in that time, 0 at the end of the stream.
    pub fn read_available(&mut self, sink: &mut Vec<u8>) -> Option<usize> {
        let mut chunk = [0; 4096];
        match self.read_some(&mut chunk) {
            Ok(count) => {
                sink.extend_from_slice(&chunk[..count]);
                Some(count)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
            Err(_) => Some(0),
        }
    }

    /// True when the peer has hung up already (what it said before does not count). Does not wait.
    pub fn is_over(&self) -> bool {
        use rustix::net::RecvFlags;
        let mut chunk = [0; 4096];
        let Stream::Tcp(stream) = &self.stream else { return self.ended };
        loop {
            match rustix::net::recv(stream, &mut chunk, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return true,
                Ok(_) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return false,
                Err(_) => return true,
            }
        }
    }

    fn buffered_frame(&mut self) -> Option<Frame> {
        let rest = self.rest();
        let (first, second) = (*rest.first()?, *rest.get(1)?);
        assert_eq!(first & 0x70, 0, "the server set reserved bits");
        assert_eq!(first & 0x80, 0x80, "the server fragmented a message");
        assert_eq!(second & 0x80, 0, "the server masked a frame");
        let (header, length) = match second {
            126 => (4, u64::from(u16::from_be_bytes(rest.get(2..4)?.try_into().expect("two bytes")))),
            127 => (10, u64::from_be_bytes(rest.get(2..10)?.try_into().expect("eight bytes"))),
            short => (2, u64::from(short)),
        };
        let end = header + usize::try_from(length).expect("fits memory");
        let payload = rest.get(header..end)?.to_vec();
        self.take(end);
        Some(match first & 0x0f {
            1 => Frame::Text(String::from_utf8(payload).expect("the server sends UTF-8")),
            2 => Frame::Binary(payload),
            8 if payload.len() < 2 => Frame::Close(1005, String::new()),
            8 => {
                let code = u16::from_be_bytes([payload[0], payload[1]]);
                Frame::Close(code, String::from_utf8(payload[2..].to_vec()).expect("a reason is UTF-8"))
            }
            9 => {
                let _ = self.try_send(&frame(0x8a, &payload));
                Frame::Ping
            }
            10 => Frame::Pong(payload),
            other => panic!("the server sent opcode {other}"),
        })
    }

    fn rest(&self) -> &[u8] {
        &self.buffer[self.taken..]
    }

    fn take(&mut self, count: usize) {
        self.taken += count;
        if self.taken == self.buffer.len() {
            self.buffer.clear();
            self.taken = 0;
        }
    }

    /// Waits for more bytes; 0 when the stream has ended.
    fn fill(&mut self) -> usize {
        if self.ended {
            return 0;
        }
        if self.taken > CHUNK_BYTES {
            self.buffer.drain(..self.taken);
            self.taken = 0;
        }
        let mut chunk = vec![0; CHUNK_BYTES];
        let count = match self.read_some(&mut chunk) {
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => 0,
            Err(error) => panic!("nothing came: {error}"),
        };
        self.ended = count == 0;
        self.look_for_secrets(&chunk[..count]);
        self.buffer.extend_from_slice(&chunk[..count]);
        count
    }

    fn read_some(&mut self, chunk: &mut [u8]) -> io::Result<usize> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.read(chunk),
            Stream::Unix(stream) => stream.read(chunk),
        }
    }

    fn look_for_secrets(&mut self, bytes: &[u8]) {
        let secrets = SECRETS.lock().expect("no test panics while it holds this").clone();
        let text = format!("{}{}", self.tail, String::from_utf8_lossy(bytes));
        for secret in &secrets {
            assert!(!text.contains(secret.as_str()), "a secret came over the wire: {text}");
        }
        let keep = secrets.iter().map(String::len).max().unwrap_or(0);
        self.tail = text[text.floor_char_boundary(text.len().saturating_sub(keep))..].to_owned();
    }
}

/// The text of a request; a `Host` among the headers replaces the usual one.
fn request(method: &str, path: &str, host: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        text.push_str(&format!("Host: {host}\r\n"));
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    [text.as_bytes(), body].concat()
}

/// The headers of an upgrade with `headers` among them.
fn upgrading<'a>(headers: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let given = |name: &str| headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
    let usual = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "13eee9DHMIOHW+3mhsLdoQ=="),
    ];
    let usual = usual.into_iter().filter(|(name, _)| !given(name));
    usual.chain(headers.iter().copied()).filter(|(_, value)| *value != OMIT).collect()
}

/// As a header's value in [`Conn::upgrade`]: the header is left out altogether.
pub const OMIT: &str = "\u{0}omit";

/// A client frame, masked with zeros: masking is about proxies, and zeros leave the payload readable.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 14);
    out.push(first);
    match payload.len() {
        0..=125 => out.push(0x80 | payload.len() as u8),
        126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(payload.len() as u16).to_be_bytes());
        }
        _ => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
    out
}

/// One request on a connection of its own.
pub fn get(address: &Address, path: &str, headers: &[(&str, &str)]) -> Reply {
    Conn::open(address).get(path, headers)
}

/// Polls until `ready` gives something; for states that are not announced on a socket.
pub fn wait_for<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = ready() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn connect_from(source: Ipv4Addr, port: u16) -> io::Result<TcpStream> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    rustix::net::bind(&socket, &SocketAddr::new(IpAddr::V4(source), 0))?;
    rustix::net::connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
    Ok(TcpStream::from(socket))
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// Reads a file that may not exist (yet) as text.
pub fn read_lossy(path: &Path) -> String {
    std::fs::read(path).map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
}
