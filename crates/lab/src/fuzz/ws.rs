//! WebSocket bytes.

use openclaw_gateway::connection::ws::{Incoming, Ws, push_text};
use openclaw_protocol::{CloseReason, limits};
use tungstenite::{
    Message,
    protocol::{Role, WebSocket, WebSocketConfig},
};

use super::input::Input;

/// A byte stream, cut anywhere: the cuts change neither the messages nor how it ends, no message is above the limit, and
/// what is received can be sent and received again.
pub fn websocket(data: &[u8]) {
    let mut input = Input::new(data);
    let (raw, authenticated, mut cut) = (input.flag(), input.flag(), u64::from(input.u16()) | 1);
    let stream = if raw { input.rest().to_vec() } else { frames(input) };
    let (whole, whole_end) = run(authenticated, std::iter::once(stream.as_slice()));
    let (pieces, pieces_end) = run(authenticated, pieces(&stream, &mut cut));
    // Floods are counted as bytes come in, so cutting a flood moves the point where it is noticed.
    let flooded = |end: &Option<CloseReason>| end.as_ref() == Some(&CloseReason::FLOOD);
    if !flooded(&whole_end) && !flooded(&pieces_end) {
        assert_eq!(pieces, whole);
        assert_eq!(pieces_end, whole_end);
    }
    let most = if authenticated { limits::MAX_PAYLOAD_BYTES } else { limits::PREAUTH_FRAME_BYTES };
    for message in whole {
        let Incoming::Text(text) = message else { continue };
        assert!(text.len() <= most, "{} bytes", text.len());
        let mut frame = Vec::new();
        let (head, tail) = text.as_bytes().split_at(text.len() / 3);
        push_text(&mut frame, &[head, tail]);
        assert_eq!(received(&frame), Message::Text(text));
    }
}

/// Feeds the pieces until the end; what comes after a close is not looked at.
fn run<'a>(authenticated: bool, pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Incoming>, Option<CloseReason>) {
    let mut ws = Ws::default();
    if authenticated {
        ws.authenticated();
    }
    let (mut messages, mut fed) = (Vec::new(), 0);
    let mut out = Vec::new();
    for piece in pieces {
        fed += piece.len();
        let ended = ws.feed(piece, 0, &mut out, &mut messages);
        assert!(out.len() <= fed + 256, "{} bytes answered to {fed}", out.len());
        if let Some(at) = messages.iter().position(|message| *message == Incoming::Closed) {
            messages.truncate(at + 1);
            return (messages, None);
        }
        if let Err(reason) = ended {
            return (messages, Some(reason));
        }
    }
    (messages, None)
}

/// Cuts `stream` into pieces of 0 to 63 bytes.
fn pieces<'a>(stream: &'a [u8], state: &mut u64) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = stream;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (piece, later) = rest.split_at(((*state >> 58) as usize).min(rest.len()));
        rest = later;
        Some(piece)
    })
}

/// Masked frames with any opcode and honest or dishonest lengths.
fn frames(mut input: Input<'_>) -> Vec<u8> {
    let mut stream = Vec::new();
    while !input.is_empty() && stream.len() < 200_000 {
        let first = input.byte();
        let repeat = if input.below(8) == 0 { usize::from(input.u16()) } else { 1 };
        let payload = input.bytes(200).repeat(repeat.clamp(1, 600));
        let mask = if input.below(8) == 0 { [0; 4] } else { std::array::from_fn(|_| input.byte()) };
        stream.push(first);
        match payload.len() {
            length @ 0..=125 => stream.push(0x80 | length as u8),
            length @ 126..=0xffff => {
                stream.push(0xfe);
                stream.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                stream.push(0xff);
                stream.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        stream.extend_from_slice(&mask);
        stream.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    }
    stream
}

/// What an ordinary client reads from `frame`.
fn received(frame: &[u8]) -> Message {
    let config = WebSocketConfig::default().max_frame_size(None).max_message_size(None);
    let stream = std::io::Cursor::new(frame.to_vec());
    let mut client = WebSocket::from_raw_socket(stream, Role::Client, Some(config));
    client.read().expect("our own frame")
}
