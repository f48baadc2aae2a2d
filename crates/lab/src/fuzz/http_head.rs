//! Raw HTTP heads, through the gateway's stream guard and hyper.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use http::{HeaderMap, Request, Response, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use openclaw_gateway::http::io::HttpIo;
use tokio::io::AsyncWriteExt as _;

/// What a request said: method, target, header lines.
type Seen = (String, String, Vec<(String, Vec<u8>)>);

/// Bytes of a connection, cut anywhere: the same requests are seen, and none whose head has a bare line feed.
pub fn http_head(data: &[u8]) {
    let Some((cut, bytes)) = data.split_first() else { return };
    let whole = requests(bytes, bytes.len().max(1));
    let pieces = requests(bytes, usize::from(*cut % 61) + 1);
    assert_eq!(whole, pieces, "cuts of {} bytes change what is read", cut % 61 + 1);
    if whole.is_empty() {
        return;
    }
    // The first head ends at the first empty line; hyper also takes line feeds alone, the guard must not let them pass.
    let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(0);
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(bytes.len());
    let head = &bytes[..end.max(start)];
    let bare = head.iter().enumerate().any(|(at, byte)| *byte == b'\n' && (at == 0 || head[at - 1] != b'\r'));
    assert!(!bare, "a head with a bare line feed became {:?}", whole[0]);
}

/// The requests hyper hands over when `bytes` come in pieces of `size`.
fn requests(bytes: &[u8], size: usize) -> Vec<Seen> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without I/O");
    runtime.block_on(async {
        let (mut near, far) = tokio::io::duplex(256 * 1024);
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let service = {
            let seen = Arc::clone(&seen);
            service_fn(move |request: Request<Incoming>| {
                note(&seen, &request);
                let mut response = Response::new(String::new());
                // As the gateway's router does: what follows a body nobody read is not a request.
                if has_body(request.headers()) {
                    response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
                }
                async { Ok::<_, Infallible>(response) }
            })
        };
        let connection = http1::Builder::new().max_buf_size(32 * 1024).serve_connection(HttpIo::new(far), service);
        let client = async {
            for piece in bytes.chunks(size) {
                if near.write_all(piece).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            let _ = near.shutdown().await;
            // Answers are read only so that the connection can end.
            let _ = tokio::io::copy(&mut near, &mut tokio::io::sink()).await;
        };
        let _ = tokio::join!(connection, client);
        let seen = seen.lock().expect("not poisoned").clone();
        seen
    })
}

fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING) || headers.contains_key(header::CONTENT_LENGTH)
}

fn note(seen: &Mutex<Vec<Seen>>, request: &Request<Incoming>) {
    let headers = request.headers().iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
    let line = (request.method().to_string(), request.uri().to_string(), headers.collect());
    seen.lock().expect("not poisoned").push(line);
}
