//! The HTTP side.

use std::{
    convert::Infallible,
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{Fault, Shared, body, methods};

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

type Reply = Response<Full<Bytes>>;

async fn answer(shared: Arc<Shared>, request: Request<Incoming>, cut: CancellationToken) -> Result<Reply, Infallible> {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content_type = content_type.unwrap_or_default().to_owned();
    let Ok(bytes) = request.into_body().collect().await.map(http_body_util::Collected::to_bytes) else {
        return Ok(refusal(400, "Bad Request", None));
    };
    if let Some(rest) = path.strip_prefix("/file/bot") {
        return Ok(file(&shared, rest));
    }
    let Some((token, method)) = path.strip_prefix("/bot").and_then(|rest| rest.split_once('/')) else {
        return Ok(refusal(404, "Not Found", None));
    };
    let (params, files) = body::parse(&content_type, &query, &bytes);
    let fault = {
        let mut state = shared.lock();
        let Some(bot) = state.bots.get_mut(token) else { return Ok(refusal(401, "Unauthorized", None)) };
        let queued = bot.faults.get_mut(method).and_then(std::collections::VecDeque::pop_front);
        queued.or_else(|| bot.broken.get(method).cloned())
    };
    match &fault {
        Some(Fault::Refuse { code, description, retry_after }) => return Ok(refusal(*code, description, *retry_after)),
        Some(Fault::Garbage) => return Ok(Response::new(Full::from("<html>bad gateway</html>"))),
        Some(Fault::CutBefore) => {
            cut.cancel();
            std::future::pending::<()>().await;
        }
        Some(Fault::Slow(time)) => tokio::time::sleep(*time).await,
        Some(Fault::CutAfter) | None => {}
    }
    let cut_after = matches!(fault, Some(Fault::CutAfter));
    let result = match method {
        "getUpdates" => poll(&shared, token, &params).await,
        _ => methods::call(&shared, token, method, params, files, cut_after),
    };
    if cut_after {
        cut.cancel();
        std::future::pending::<()>().await;
    }
    Ok(match result {
        Ok(result) => reply(200, &json!({"ok": true, "result": result})),
        Err((code, description)) => refusal(code, &description, None),
    })
}

/// `getUpdates`: confirms what lies before the offset, and waits for more.
async fn poll(shared: &Shared, token: &str, params: &Value) -> methods::Answer {
    let number = |key: &str| params.get(key).and_then(Value::as_i64);
    let wait = Duration::from_secs(u64::try_from(number("timeout").unwrap_or(0)).unwrap_or(0));
    let limit = usize::try_from(number("limit").unwrap_or(100)).unwrap_or(100);
    let deadline = tokio::time::Instant::now() + wait;
    let mut version = shared.version.subscribe();
    let me = {
        let mut state = shared.lock();
        let Some(bot) = state.bots.get_mut(token) else { return Err((401, "Unauthorized".to_owned())) };
        if bot.webhook.is_some() {
            let why = "Conflict: can't use getUpdates method while webhook is active; use deleteWebhook to delete the \
                       webhook first";
            return Err((409, why.to_owned()));
        }
        if let Some(offset) = number("offset").filter(|offset| *offset > 0) {
            bot.offset = bot.offset.max(offset);
            bot.updates = bot.updates.split_off(&offset);
        }
        bot.poller += 1;
        bot.poller
    };
    shared.tell();
    loop {
        version.mark_unchanged();
        {
            let state = shared.lock();
            let Some(bot) = state.bots.get(token) else { return Err((401, "Unauthorized".to_owned())) };
            if bot.poller != me {
                let why = "Conflict: terminated by other getUpdates request; make sure that only one bot instance is \
                           running";
                return Err((409, why.to_owned()));
            }
            let waiting: Vec<Value> = bot.updates.values().take(limit.clamp(1, 100)).cloned().collect();
            if !waiting.is_empty() || tokio::time::Instant::now() >= deadline {
                return Ok(Value::Array(waiting));
            }
        }
        tokio::select! {
            _ = version.changed() => {}
            () = tokio::time::sleep_until(deadline) => {}
        }
    }
}

fn file(shared: &Shared, rest: &str) -> Reply {
    let state = shared.lock();
    let found = rest.split_once('/').and_then(|(token, path)| {
        state.bots.get(token)?.files.values().find(|(at, _)| at == path).map(|(_, data)| data.clone())
    });
    match found {
        Some(data) => Response::new(Full::new(data)),
        None => refusal(404, "Not Found", None),
    }
}

fn refusal(code: u16, description: &str, retry_after: Option<u64>) -> Reply {
    let mut answer = json!({"ok": false, "error_code": code, "description": description});
    if let Some(seconds) = retry_after {
        answer["parameters"] = json!({"retry_after": seconds});
    }
    reply(code, &answer)
}

fn reply(code: u16, value: &Value) -> Reply {
    let mut response = Response::new(Full::from(value.to_string()));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

/// A webhook delivery over plain HTTP. Gives status and head.
///
/// # Panics
/// When nobody listens.
pub(super) fn post(url: &str, secret: Option<&str>, body: &str) -> (u16, String) {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = std::net::TcpStream::connect(host).expect("the webhook listens");
    let secret = secret.map(|secret| format!("X-Telegram-Bot-Api-Secret-Token: {secret}\r\n")).unwrap_or_default();
    let request = format!(
        "POST /{path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n{secret}Content-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).expect("the webhook reads");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    (status, answer)
}
