//! The HTTP side.

use std::{
    convert::Infallible,
    net::TcpListener,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{Stream, stream};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    ask::{Api, Ask},
    render,
    reply::{Fault, Reply, Wire},
};

/// Serves until `stopped` is dropped.
pub(super) fn run(listener: TcpListener, shared: Arc<Shared>, stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    listener.set_nonblocking(true).expect("a listener that does not block");
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
        tokio::select! {
            _ = stopped => {}
            () = serve(listener, shared) => {}
        }
    });
}

async fn serve(listener: tokio::net::TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let cut = CancellationToken::new();
            let service = service_fn(|request| answer(Arc::clone(&shared), request, cut.clone()));
            tokio::select! {
                // Dropping the connection is the cut.
                () = cut.cancelled() => {}
                _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service) => {}
            }
        });
    }
}

/// A body that can break.
type Body = BoxBody<Bytes, Cut>;

#[derive(Debug)]
struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cut on purpose")
    }
}

impl std::error::Error for Cut {}

fn full(code: u16, kind: &str, body: String) -> Response<Body> {
    let body = Full::new(Bytes::from(body)).map_err(|never: Infallible| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Ok(kind) = kind.parse() {
        response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    }
    response
}

fn refusal(code: u16, kind: &str, message: &str) -> Response<Body> {
    let error = json!({"message": message, "type": kind, "param": null, "code": kind});
    full(code, "application/json", json!({"type": "error", "error": error}).to_string())
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
    cut: CancellationToken,
) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().trim_end_matches('/').to_owned();
    let headers = plain_headers(request.headers());
    let Ok(bytes) = request.into_body().collect().await.map(http_body_util::Collected::to_bytes) else {
        return Ok(refusal(400, "invalid_request_error", "the body was cut"));
    };
    let api = match path.rsplit_once("/v1/").map(|(_, method)| method) {
        Some("chat/completions") => Api::Completions,
        Some("responses") => Api::Responses,
        Some("messages") => Api::Messages,
        Some("models") => {
            let given = Ask::read(Api::Completions, headers, Value::Null).key;
            let refused = shared.lock().key.as_ref().is_some_and(|key| given.as_ref() != Some(key));
            if refused {
                let shown = given.as_deref().unwrap_or_default();
                return Ok(refusal(401, "invalid_api_key", &format!("Incorrect API key provided: {shown}.")));
            }
            let models =
                json!([{"id": "double", "object": "model", "created": 1_790_000_000_u64, "owned_by": "doubles"}]);
            return Ok(full(200, "application/json", json!({"object": "list", "data": models}).to_string()));
        }
        _ => return Ok(refusal(404, "not_found_error", &format!("Unknown request URL: {path}"))),
    };
    let Ok(body) = serde_json::from_slice::<Value>(&bytes) else {
        return Ok(refusal(400, "invalid_request_error", "We could not parse the JSON body of your request."));
    };
    let ask = Ask::read(api, headers, body);
    let (script, key, ids) = {
        let mut state = shared.lock();
        state.asks.push(ask.clone());
        state.sent.push(vec![Instant::now()]);
        (state.script.clone(), state.key.clone(), render::Ids { ask: state.asks.len() })
    };
    shared.changed.notify_all();
    if key.is_some() && ask.key != key {
        let shown = ask.key.as_deref().unwrap_or_default();
        return Ok(refusal(401, "invalid_api_key", &format!("Incorrect API key provided: {shown}.")));
    }
    if let Some(fault) = ask.fault() {
        return Ok(refusal(400, "invalid_request_error", &fault));
    }
    let reply = script.reply(&ask);
    tokio::time::sleep(reply.delay).await;
    match &reply.fault {
        Some(Fault::Status { code, headers, body }) => {
            let mut response = full(*code, "application/json", body.clone());
            for (name, value) in headers {
                if let (Ok(name), Ok(value)) = (http::HeaderName::try_from(name), value.parse()) {
                    response.headers_mut().insert(name, value);
                }
            }
            return Ok(response);
        }
        Some(Fault::CutBefore) => {
            cut.cancel();
            std::future::pending::<()>().await;
        }
        Some(Fault::Hang) => std::future::pending::<()>().await,
        Some(Fault::Html) => return Ok(full(200, "text/html", "<html><title>Sign in</title></html>".to_owned())),
        Some(Fault::Redirect(to)) => {
            let mut response = full(307, "text/plain", String::new());
            response.headers_mut().insert(http::header::LOCATION, to.parse().expect("a URL"));
            return Ok(response);
        }
        _ => {}
    }
    if !ask.stream {
        return Ok(full(200, "application/json", render::whole(&ask, &reply, &ids).to_string()));
    }
    let body = StreamBody::new(chunks(shared, &ask, &reply, &ids)).boxed();
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(http::header::CACHE_CONTROL, http::HeaderValue::from_static("no-cache"));
    Ok(response)
}

fn plain_headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    headers.iter().map(text).collect()
}

/// Counts a stream as open while it lives; one that was dropped before its end was abandoned by the client.
struct Open {
    shared: Arc<Shared>,
    /// Of its ask, from 1.
    number: usize,
    ended: bool,
}

impl Open {
    fn sent(&self) {
        let mut state = self.shared.lock();
        if let Some(sent) = state.sent.get_mut(self.number - 1) {
            sent.push(Instant::now());
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let ended = self.ended;
        self.shared.change(|state| {
            state.open -= 1;
            state.abandoned += usize::from(!ended);
        });
    }
}

type Chunks = Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Cut>> + Send + Sync>>;

/// The HTTP chunks of a streamed answer, with the waits between them.
fn chunks(shared: Arc<Shared>, ask: &Ask, reply: &Reply, ids: &render::Ids) -> Chunks {
    let frames = render::frames(ask, reply, ids);
    let mut pieces: Vec<Bytes> = frames.iter().map(|frame| event(frame, reply.wire)).collect();
    match reply.wire {
        Wire::Chunks(bytes) => {
            let all = pieces.concat();
            pieces = all.chunks(bytes.max(1)).map(Bytes::copy_from_slice).collect();
        }
        Wire::Whole => pieces = vec![pieces.concat().into()],
        Wire::Plain | Wire::Crlf | Wire::Cr | Wire::Chatty => {}
    }
    let mut end = End::Well;
    match reply.fault {
        Some(Fault::CutAfter(bytes)) => {
            let mut all = pieces.concat();
            all.truncate(bytes);
            pieces = vec![all.into()];
            end = End::Cut;
        }
        Some(Fault::SilentAfter(events)) => {
            pieces.truncate(events);
            end = End::Never;
        }
        Some(Fault::LingerAfterEnd) => end = End::Never,
        _ => {}
    }
    shared.change(|state| state.open += 1);
    let state = (pieces.into_iter(), Open { shared, number: ids.ask, ended: false }, end, reply.pace);
    Box::pin(stream::unfold(state, |(mut pieces, mut open, end, pace)| async move {
        if let Some(piece) = pieces.next() {
            if pace > Duration::ZERO {
                tokio::time::sleep(pace).await;
            }
            open.sent();
            return Some((Ok(Frame::data(piece)), (pieces, open, end, pace)));
        }
        match end {
            End::Well => {
                open.ended = true;
                drop(open);
                None
            }
            End::Cut => {
                open.ended = true;
                // What was written has to leave before the connection is closed.
                tokio::time::sleep(Duration::from_millis(20)).await;
                Some((Err(Cut), (pieces, open, End::Well, pace)))
            }
            End::Never => std::future::pending().await,
        }
    }))
}

enum End {
    Well,
    Cut,
    Never,
}

/// An event as bytes.
fn event(frame: &render::Frame, wire: Wire) -> Bytes {
    let line = match wire {
        Wire::Crlf => "\r\n",
        Wire::Cr => "\r",
        _ => "\n",
    };
    let mut text = String::new();
    if wire == Wire::Chatty {
        text.push_str(": OPENROUTER PROCESSING\n\nid: 7\nretry: 3000\nx-unknown: y\n");
    }
    if let Some(name) = frame.name {
        text.extend(["event: ", name, line]);
    }
    text.extend(["data: ", &frame.data, line, line]);
    text.into()
}
