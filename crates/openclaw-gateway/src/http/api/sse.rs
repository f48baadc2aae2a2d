//! Server-sent events.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde_json::Value;

use super::Response;
use crate::http::{
    body::{ReplyBody, Writer},
    reply::with_body,
};

/// The last line of every stream of the OpenAI family.
const DONE: &[u8] = b"data: [DONE]\n\n";

/// An answer of events, and where they are written.
pub fn stream() -> (Response, Stream) {
    let (body, writer) = ReplyBody::growing();
    let mut response = with_body(StatusCode::OK, "text/event-stream; charset=utf-8", Bytes::new());
    *response.body_mut() = body;
    // A proxy that gathers the answer before it passes it on makes a stream useless.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store"));
    (response, Stream { writer })
}

/// The writing end.
#[derive(Clone, Debug)]
pub struct Stream {
    pub writer: Writer,
}

impl Stream {
    /// `data: …`. False when nobody reads any more.
    pub async fn data(&self, value: &Value) -> bool {
        self.writer.write(format!("data: {value}\n\n")).await
    }

    /// `event: …` and `data: …`.
    pub async fn event(&self, name: &str, value: &Value) -> bool {
        self.writer.write(format!("event: {name}\ndata: {value}\n\n")).await
    }

    /// `data: [DONE]`.
    pub async fn done(&self) -> bool {
        self.writer.write(Bytes::from_static(DONE)).await
    }

    /// A comment that keeps connections open while nothing is said.
    pub async fn alive(&self) -> bool {
        self.writer.write(Bytes::from_static(b": alive\n\n")).await
    }
}
