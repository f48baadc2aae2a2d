//! Updates that Telegram sends by itself. A listener of its own, to stand behind a reverse proxy. Who does not know the
//! secret is told nothing; an update is confirmed once it is on disk, and 503 makes Telegram send it again.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc, oneshot},
};

use super::{
    api::{Api, ApiError},
    config::Webhook,
    poll::{self, Runner, UPDATES},
    receive::{Reader, Received},
    types::User,
};

const SECRET_HEADER: &str = "x-telegram-bot-api-secret-token";
/// Said with a 200: the update is on disk. A proxy can tell it from any other 200 (as the reference).
const ACCEPTED_HEADER: &str = "x-openclaw-delivery-accepted";
/// Largest update; Telegram's are a few KiB.
const MAX_BODY: usize = 1 << 20;
/// Time for head and body.
const READ: Duration = Duration::from_secs(15);
/// Connections at a time; Telegram opens up to 40 (`max_connections`).
const CONNECTIONS: usize = 128;
/// Time for the rest of an album to come.
const ALBUM: Duration = Duration::from_millis(700);

/// Opens the listener.
pub(super) async fn listen(hook: &Webhook) -> Result<TcpListener, String> {
    let at = (hook.host.as_str(), hook.port);
    TcpListener::bind(at).await.map_err(|error| {
        format!("cannot listen on {}:{} ({error}); see channels.telegram.webhookHost and webhookPort", at.0, at.1)
    })
}

/// Tells Telegram where to send.
pub(super) async fn announce(api: &Api, hook: &Webhook) -> Result<(), ApiError> {
    let allowed = json!(UPDATES);
    let Some(file) = &hook.certificate else {
        let params = json!({"url": hook.url, "secret_token": hook.secret.expose(), "allowed_updates": allowed,
            "drop_pending_updates": false});
        return api.call::<Value>("setWebhook", &params).await.map(drop);
    };
    let unreadable = |error| ApiError::NotReached { why: format!("webhookCertPath {}: {error}", file.display()) };
    let certificate = tokio::fs::read(file).await.map_err(unreadable)?;
    let form = || {
        let part = reqwest::multipart::Part::bytes(certificate.clone()).file_name("certificate.pem");
        reqwest::multipart::Form::new()
            .text("url", hook.url.clone())
            .text("secret_token", hook.secret.expose().to_owned())
            .text("allowed_updates", allowed.to_string())
            .part("certificate", part)
    };
    api.upload::<Value>("setWebhook", form).await.map(drop)
}

/// An update that waits for its confirmation.
struct Delivered {
    body: Bytes,
    kept: oneshot::Sender<bool>,
}

/// Serves until the listener fails; gives the reason. Dropping the future ends it and all its connections.
pub(super) async fn serve(runner: &Runner<'_>, me: &User, hook: &Webhook, listener: TcpListener) -> String {
    let (sender, mut updates) = mpsc::channel::<Delivered>(CONNECTIONS);
    let hook = Arc::new(hook.clone());
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = tokio::task::JoinSet::new();
    let reader = Reader { account: runner.name(), me };
    // Parts of albums until they are complete.
    let albums: Mutex<HashMap<String, Vec<(Received, oneshot::Sender<bool>)>>> = Mutex::default();
    let (due, mut albums_due) = mpsc::unbounded_channel::<String>();
    let mut timers = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Err(error) => return format!("the webhook listener failed: {error}"),
                Ok((stream, _)) => {
                    let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else { continue };
                    let (sender, hook) = (sender.clone(), Arc::clone(&hook));
                    connections.spawn(async move {
                        connection(stream, sender, hook).await;
                        drop(slot);
                    });
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            Some(_) = timers.join_next(), if !timers.is_empty() => {}
            Some(Delivered { body, kept }) = updates.recv() => {
                match poll::read_one(&reader, &body) {
                    // Nobody but Telegram knows the secret; what cannot be read will not get better.
                    None => {
                        let _ = kept.send(true);
                    }
                    Some(Received::Message { inbound, files, album: Some(album) }) => {
                        let mut waiting = albums.lock().unwrap_or_else(PoisonError::into_inner);
                        let parts = waiting.entry(album.clone()).or_default();
                        let first = parts.is_empty();
                        parts.push((Received::Message { inbound, files, album: Some(album.clone()) }, kept));
                        if first {
                            let due = due.clone();
                            timers.spawn(async move {
                                tokio::time::sleep(ALBUM).await;
                                let _ = due.send(album);
                            });
                        }
                    }
                    Some(received) => {
                        let outcome = runner.handle(&received).await;
                        let _ = kept.send(told(runner, outcome));
                    }
                }
            }
            Some(album) = albums_due.recv() => {
                let parts = albums.lock().unwrap_or_else(PoisonError::into_inner).remove(&album).unwrap_or_default();
                let received: Vec<&Received> = parts.iter().map(|(received, _)| received).collect();
                let outcome = match poll::join(&received) {
                    Some((inbound, files)) => runner.keep(inbound, &files).await,
                    None => Ok(()),
                };
                let kept = told(runner, outcome);
                for (_, sender) in parts {
                    // Whoever sent it may be gone.
                    let _ = sender.send(kept);
                }
            }
        }
    }
}

fn told(runner: &Runner<'_>, outcome: Result<(), ApiError>) -> bool {
    if let Err(error) = &outcome {
        tracing::warn!(account = runner.name(), "telegram: {error}");
    }
    outcome.is_ok()
}

async fn connection(stream: TcpStream, updates: mpsc::Sender<Delivered>, hook: Arc<Webhook>) {
    let service = service_fn(|request| answer(request, updates.clone(), Arc::clone(&hook)));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(READ)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!("telegram webhook: {error}");
    }
}

type Reply = Response<Full<Bytes>>;

async fn answer(
    request: Request<Incoming>,
    updates: mpsc::Sender<Delivered>,
    hook: Arc<Webhook>,
) -> Result<Reply, Infallible> {
    let plain = |status: StatusCode| {
        let mut reply = Response::new(Full::default());
        *reply.status_mut() = status;
        Ok(reply)
    };
    let path = request.uri().path();
    if path == "/healthz" && request.method() == Method::GET {
        return plain(StatusCode::OK);
    }
    if path != hook.path {
        return plain(StatusCode::NOT_FOUND);
    }
    if request.method() != Method::POST {
        return plain(StatusCode::METHOD_NOT_ALLOWED);
    }
    // Before the body is read, and in time that tells nothing.
    let given = request.headers().get(SECRET_HEADER).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !hook.secret.matches(given) {
        return plain(StatusCode::UNAUTHORIZED);
    }
    let body = tokio::time::timeout(READ, Limited::new(request.into_body(), MAX_BODY).collect()).await;
    let body = match body {
        Err(_) => return plain(StatusCode::REQUEST_TIMEOUT),
        Ok(Err(_)) => return plain(StatusCode::PAYLOAD_TOO_LARGE),
        Ok(Ok(body)) => body.to_bytes(),
    };
    if serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_err() {
        return plain(StatusCode::BAD_REQUEST);
    }
    let (kept, answer) = oneshot::channel();
    if updates.send(Delivered { body, kept }).await.is_err() {
        return plain(StatusCode::SERVICE_UNAVAILABLE);
    }
    match answer.await {
        Ok(true) => {
            let mut reply = Response::new(Full::default());
            reply.headers_mut().insert(ACCEPTED_HEADER, http::HeaderValue::from_static("durable"));
            Ok(reply)
        }
        _ => plain(StatusCode::SERVICE_UNAVAILABLE),
    }
}
