//! WebSocket framing without a socket: bytes in, messages out, replies into a buffer.
//!
//! Parsing is tungstenite's, driven through its context API. Outgoing text frames are written here: a server frame is a
//! header of at most ten bytes and the payload, and writing it directly lets one shared payload serve many receivers
//! and one write carry many frames.

use std::io::{self, Read, Write};

use openclaw_protocol::{CloseReason, limits};
use tungstenite::{
    Message, Utf8Bytes,
    error::{CapacityError, Error},
    protocol::{Role, WebSocketConfig, WebSocketContext},
};

/// Idle connections keep this much read buffer: 1 KiB. Larger frames grow it for as long as they last.
const READ_BUFFER_BYTES: usize = 1024;
/// After a message above this size the parser is replaced, so that its grown buffer is returned: 32 KiB.
const SHRINK_ABOVE_BYTES: usize = 32 * 1024;
/// Control frames and empty fragments a peer may send per window; more is a flood.
const MAX_IDLE_FRAMES_PER_WINDOW: u32 = 400;
/// The flood window, ms.
const FLOOD_WINDOW_MS: i64 = 10_000;

/// What a peer sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    Text(Utf8Bytes),
    Binary,
    /// Any sign of life that carries no message (ping, pong).
    Alive,
    /// The peer began or answered a close.
    Closed,
}

/// The parser and its limits.
pub struct Ws {
    context: WebSocketContext,
    meter: FrameMeter,
    grown: bool,
    max_bytes: usize,
    idle_frames: u32,
    window_start_ms: i64,
    /// The peer broke a rule: what comes after that is not looked at.
    broken: bool,
}

impl Default for Ws {
    /// Starts with the limit for unauthenticated peers.
    fn default() -> Self {
        let max_bytes = limits::PREAUTH_FRAME_BYTES;
        Self {
            context: context(max_bytes),
            meter: FrameMeter::default(),
            grown: false,
            max_bytes,
            idle_frames: 0,
            window_start_ms: 0,
            broken: false,
        }
    }
}

impl Ws {
    /// Widens the limit once the peer is authenticated.
    pub fn authenticated(&mut self) {
        self.max_bytes = limits::MAX_PAYLOAD_BYTES;
        let max = self.max_bytes;
        self.context.set_config(|config| {
            config.max_message_size = Some(max);
            config.max_frame_size = Some(max);
        });
    }

    /// Feeds bytes and collects what they complete. Automatic replies (pong, close echo) go to `out`.
    ///
    /// # Errors
    /// How to close: 1002 for a protocol violation, 1007 for bad UTF-8, 1009 for too much, 1008 for a flood. Bytes fed
    /// after an error are dropped.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        now_ms: i64,
        out: &mut Vec<u8>,
        messages: &mut Vec<Incoming>,
    ) -> Result<(), CloseReason> {
        if self.broken {
            return Ok(());
        }
        let fed = self.parse(bytes, now_ms, out, messages);
        if fed.is_err() {
            self.broken = true;
            // Up to 25 MiB of a message nobody will see need not outlast the farewell.
            self.context = context(self.max_bytes);
        }
        fed
    }

    fn parse(
        &mut self,
        bytes: &[u8],
        now_ms: i64,
        out: &mut Vec<u8>,
        messages: &mut Vec<Incoming>,
    ) -> Result<(), CloseReason> {
        self.meter.advance(bytes);
        self.charge_idle_frames(now_ms)?;
        let mut stream = Feed { input: bytes, output: out };
        loop {
            match self.context.read(&mut stream) {
                Ok(Message::Text(text)) => {
                    self.grown |= text.len() > SHRINK_ABOVE_BYTES;
                    messages.push(Incoming::Text(text));
                }
                Ok(Message::Binary(_)) => messages.push(Incoming::Binary),
                Ok(Message::Close(_)) => messages.push(Incoming::Closed),
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => messages.push(Incoming::Alive),
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(Error::ConnectionClosed | Error::AlreadyClosed) => {
                    messages.push(Incoming::Closed);
                    break;
                }
                Err(Error::Capacity(CapacityError::MessageTooLong { .. })) => return Err(CloseReason::TOO_BIG),
                Err(Error::Utf8(_)) => return Err(CloseReason::INVALID_UTF8),
                Err(_) => return Err(CloseReason::PROTOCOL_ERROR),
            }
        }
        if self.grown && self.meter.at_boundary() {
            self.context = context(self.max_bytes);
            self.grown = false;
        }
        Ok(())
    }

    fn charge_idle_frames(&mut self, now_ms: i64) -> Result<(), CloseReason> {
        if now_ms - self.window_start_ms >= FLOOD_WINDOW_MS {
            self.window_start_ms = now_ms;
            self.idle_frames = 0;
        }
        self.idle_frames = self.idle_frames.saturating_add(self.meter.take_idle_frames());
        if self.idle_frames > MAX_IDLE_FRAMES_PER_WINDOW { Err(CloseReason::FLOOD) } else { Ok(()) }
    }
}

fn context(max_bytes: usize) -> WebSocketContext {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(max_bytes))
        .max_frame_size(Some(max_bytes));
    WebSocketContext::new(Role::Server, Some(config))
}

/// A byte slice to read and a buffer to write, in the shape tungstenite wants.
struct Feed<'a> {
    input: &'a [u8],
    output: &'a mut Vec<u8>,
}

impl Read for Feed<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.input.read(buf)
    }
}

impl Write for Feed<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Follows frame boundaries in the byte stream without copying payloads: it counts frames that carry nothing, and knows
/// when no message is half received.
#[derive(Debug, Default)]
struct FrameMeter {
    header: [u8; 10],
    header_len: usize,
    payload_left: u64,
    in_message: bool,
    idle_frames: u32,
}

impl FrameMeter {
    fn advance(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.payload_left > 0 {
                let skipped = usize::try_from(self.payload_left).unwrap_or(usize::MAX).min(bytes.len());
                self.payload_left -= skipped as u64;
                bytes = &bytes[skipped..];
                continue;
            }
            self.header[self.header_len] = bytes[0];
            self.header_len += 1;
            bytes = &bytes[1..];
            if let Some(payload) = self.complete_header() {
                self.header_len = 0;
                self.payload_left = payload;
            }
        }
    }

    /// The bytes to skip after the fixed header (mask and payload), once it is whole.
    fn complete_header(&mut self) -> Option<u64> {
        let [first, second, ..] = self.header;
        if self.header_len < 2 {
            return None;
        }
        let extended = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if self.header_len < 2 + extended {
            return None;
        }
        let length = self.header[2..2 + extended].iter().fold(0_u64, |n, byte| (n << 8) | u64::from(*byte));
        let length = if extended == 0 { u64::from(second & 0x7f) } else { length };
        let mask = if second & 0x80 != 0 { 4 } else { 0 };
        let (finished, opcode) = (first & 0x80 != 0, first & 0x0f);
        if opcode >= 8 || (length == 0 && !finished) || (opcode == 0 && length == 0) {
            self.idle_frames = self.idle_frames.saturating_add(1);
        }
        if opcode < 8 {
            self.in_message = !finished;
        }
        Some(length.saturating_add(mask))
    }

    fn at_boundary(&self) -> bool {
        self.header_len == 0 && self.payload_left == 0 && !self.in_message
    }

    fn take_idle_frames(&mut self) -> u32 {
        std::mem::take(&mut self.idle_frames)
    }
}

/// Appends one unmasked text frame made of `parts`.
pub fn push_text(out: &mut Vec<u8>, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    push_header(out, 0x81, length);
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// Appends an empty ping.
pub fn push_ping(out: &mut Vec<u8>) {
    push_header(out, 0x89, 0);
}

/// Appends a close frame.
pub fn push_close(out: &mut Vec<u8>, close: &CloseReason) {
    push_header(out, 0x88, close.reason.len() + 2);
    out.extend_from_slice(&close.code.to_be_bytes());
    out.extend_from_slice(close.reason.as_bytes());
}

fn push_header(out: &mut Vec<u8>, first: u8, length: usize) {
    out.push(first);
    match length {
        0..=125 => out.push(length as u8),
        126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            0..=125 => frame.push(0x80 | payload.len() as u8),
            126..=0xffff => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&(payload.len() as u16).to_be_bytes());
            }
            _ => {
                frame.push(0x80 | 127);
                frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(&[1, 2, 3, 4]);
        frame.extend(payload.iter().enumerate().map(|(i, b)| b ^ [1, 2, 3, 4][i & 3]));
        frame
    }

    fn feed(ws: &mut Ws, bytes: &[u8]) -> Result<Vec<Incoming>, CloseReason> {
        let (mut out, mut messages) = (Vec::new(), Vec::new());
        ws.feed(bytes, 0, &mut out, &mut messages).map(|()| messages)
    }

    #[test]
    fn byte_by_byte_and_all_at_once() {
        let bytes =
            [masked(0x81, b"one"), masked(0x01, b"tw"), masked(0x80, b"o"), masked(0x81, &[b'x'; 300])].concat();
        let expected =
            vec![Incoming::Text("one".into()), Incoming::Text("two".into()), Incoming::Text("x".repeat(300).into())];
        assert_eq!(feed(&mut Ws::default(), &bytes), Ok(expected));
        let mut ws = Ws::default();
        let single: Vec<_> = bytes.chunks(1).flat_map(|b| feed(&mut ws, b).expect("valid")).collect();
        assert_eq!(single.len(), 3);
        assert!(ws.meter.at_boundary());
    }

    #[test]
    fn p_22_sizes_before_authentication() {
        let ok = "x".repeat(limits::PREAUTH_FRAME_BYTES);
        assert_eq!(feed(&mut Ws::default(), &masked(0x81, ok.as_bytes())).expect("fits").len(), 1);
        let big = masked(0x81, format!("{ok}x").as_bytes());
        assert_eq!(feed(&mut Ws::default(), &big[..14]), Err(CloseReason::TOO_BIG));
        let mut declared = vec![0x81, 0xff];
        declared.extend_from_slice(&(u64::MAX >> 1).to_be_bytes());
        declared.extend_from_slice(&[0; 4]);
        assert_eq!(feed(&mut Ws::default(), &declared), Err(CloseReason::TOO_BIG));
        let mut ws = Ws::default();
        let fragments = [masked(0x01, &[b'x'; 40_000]), masked(0x80, &[b'x'; 40_000])].concat();
        assert_eq!(feed(&mut ws, &fragments), Err(CloseReason::TOO_BIG));
        let mut ws = Ws::default();
        ws.authenticated();
        assert_eq!(feed(&mut ws, &big).expect("fits").len(), 1);
        assert!(!ws.grown, "the grown buffer was returned");
    }

    #[test]
    fn p_71_violations_have_codes() {
        let code = |bytes: &[u8]| feed(&mut Ws::default(), bytes).expect_err("violation").code;
        assert_eq!(code(&[0x81, 0x01, b'x']), 1002, "unmasked");
        assert_eq!(code(&masked(0xc1, b"x")), 1002, "reserved bit");
        assert_eq!(code(&masked(0x83, b"x")), 1002, "reserved opcode");
        assert_eq!(code(&masked(0x09, b"x")), 1002, "fragmented control");
        assert_eq!(code(&masked(0x89, &[0; 126])), 1002, "long control");
        assert_eq!(code(&masked(0x80, b"x")), 1002, "continuation first");
        assert_eq!(code(&masked(0x81, &[0xff, 0xfe])), 1007, "UTF-8");
    }

    #[test]
    fn p_70_floods_of_nothing() {
        let pings = masked(0x89, b"").repeat(1_000);
        assert_eq!(feed(&mut Ws::default(), &pings), Err(CloseReason::FLOOD));
        let empties = [masked(0x01, b"x"), masked(0x00, b"").repeat(1_000)].concat();
        assert_eq!(feed(&mut Ws::default(), &empties), Err(CloseReason::FLOOD));
        assert!(feed(&mut Ws::default(), &masked(0x89, b"").repeat(100)).is_ok());
    }

    #[test]
    fn ping_is_answered_into_the_buffer() {
        let (mut out, mut messages) = (Vec::new(), Vec::new());
        Ws::default().feed(&masked(0x89, b"hi"), 0, &mut out, &mut messages).expect("valid");
        assert_eq!((out.as_slice(), messages), ([0x8a, 2, b'h', b'i'].as_slice(), vec![Incoming::Alive]));
    }
}
