//! Bodies: reading a bounded one, and writing one that grows.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::reply::{Response, api_error};

/// A body has to be here within this time (config-hooks: 30 s).
const PATIENCE: Duration = Duration::from_secs(30);
/// Pieces of a growing answer that may wait for a slow reader; then whoever writes them waits.
const PIECES: usize = 64;

/// What is sent back.
#[derive(Debug)]
pub enum ReplyBody {
    Whole(Full<Bytes>),
    Growing(Growing),
}

/// An answer that grows while it is read.
#[derive(Debug)]
pub struct Growing {
    pieces: mpsc::Receiver<Bytes>,
    /// Cancels the work behind it when the reader hangs up.
    _reader: DropGuard,
}

/// The writing end of [`Growing`].
#[derive(Clone, Debug)]
pub struct Writer {
    pieces: mpsc::Sender<Bytes>,
    /// Cancelled when nobody reads any more.
    pub gone: CancellationToken,
}

impl ReplyBody {
    pub fn whole(bytes: Bytes) -> Self {
        Self::Whole(Full::new(bytes))
    }

    /// A body that ends when the last writer is dropped.
    pub fn growing() -> (Self, Writer) {
        let (sender, pieces) = mpsc::channel(PIECES);
        let gone = CancellationToken::new();
        let body = Self::Growing(Growing { pieces, _reader: gone.clone().drop_guard() });
        (body, Writer { pieces: sender, gone })
    }
}

impl Writer {
    /// Resolves when a piece would be taken at once, or nobody reads any more.
    pub async fn room(&self) {
        let _ = self.pieces.reserve().await;
    }

    /// Waits for room. False when nobody reads any more.
    pub async fn write(&self, piece: impl Into<Bytes>) -> bool {
        self.pieces.send(piece.into()).await.is_ok()
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(full) => Pin::new(full).poll_frame(cx),
            Self::Growing(growing) => {
                growing.pieces.poll_recv(cx).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(full) if full.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(full) => full.size_hint(),
            Self::Growing(_) => SizeHint::default(),
        }
    }
}

/// Reads a body of at most `limit` bytes.
///
/// # Errors
/// 413 above the limit, at once where `Content-Length` says so; 408 when it is not here in time; 400 when it breaks off.
pub async fn read(headers: &HeaderMap, mut body: Incoming, limit: usize) -> Result<Bytes, Response> {
    let too_large = || {
        let words = format!("the request body is larger than {limit} bytes");
        api_error(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", &words)
    };
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let reading = async {
        let mut read = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let broken = |_| api_error(StatusCode::BAD_REQUEST, "invalid_request_error", "the request body broke off");
            let Ok(piece) = frame.map_err(broken)?.into_data() else { continue };
            if read.len() + piece.len() > limit {
                return Err(too_large());
            }
            read.extend_from_slice(&piece);
        }
        Ok(read.freeze())
    };
    let slow = |_| api_error(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", "the request body took too long");
    timeout(PATIENCE, reading).await.map_err(slow)?
}
