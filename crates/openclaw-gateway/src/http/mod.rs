//! HTTP and WebSocket upgrades on one port. Every route states its authorisation class; a request that no route owns is
//! 404 whoever asks.

#![allow(clippy::result_large_err)] // here an error is an answer: it goes out once and is not passed around

pub mod api;
pub mod body;
pub mod hooks;
pub mod io;
pub mod join;
pub mod page;
pub mod reply;

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, Method, Request, StatusCode, Version, header};
use hyper::{body::Incoming as Body, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioTimer;
use openclaw_protocol::{Scope, limits, method::invite::ArrivalStage};
use serde_json::json;
use tokio::{io::AsyncWriteExt as _, time::Instant};
use tokio_util::sync::CancellationToken;

use self::{
    io::{HttpIo, Stream},
    reply::{Response, api_error, json_reply, plain},
};
use crate::{
    admission::Slot,
    auth::{Evidence, Peer, decide::Mode, rate_limit::CredentialClass},
    clock::now_ms,
    connection,
    gateway::Gateway,
    runtime::Runtime,
    tls,
};

/// How long a request head may take, and how long a kept-alive connection may idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest request head: 32 KiB. Above: 431.
const HEAD_BYTES: usize = 32 * 1024;
/// Header lines per request. Above: 431.
const MAX_HEADERS: usize = 100;
/// A connection that never upgrades ends after this long.
const HTTP_LIFETIME: Duration = Duration::from_secs(120);

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteAuth {
    /// Anybody, also strangers with odd `Host` headers: tells nothing but that the gateway lives.
    Probe,
    /// Anybody who addresses this gateway by one of its names: static pages without data.
    Public,
    /// Whoever knows the one-time code in the path.
    OneTimeCode,
    /// Whoever proves the shared secret, with what that is worth from where it comes; see [`api::authenticate`].
    Operator(Scope),
    /// Whoever knows `hooks.token`, which is worth nothing elsewhere.
    HookToken,
}

/// One route.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    pub path: &'static str,
    pub auth: RouteAuth,
    serve: Serve,
}

#[derive(Clone, Copy, Debug)]
enum Serve {
    Live,
    Started,
    Ready,
    Page,
    Join,
    Api(api::Endpoint),
    Hook,
}

/// All routes. What the API and the hooks do not own is GET and HEAD only; anything else on it is 405.
pub const ROUTES: &[Route] = &[
    Route { path: "/health", auth: RouteAuth::Probe, serve: Serve::Live },
    Route { path: "/healthz", auth: RouteAuth::Probe, serve: Serve::Live },
    Route { path: "/startup", auth: RouteAuth::Probe, serve: Serve::Started },
    Route { path: "/startupz", auth: RouteAuth::Probe, serve: Serve::Started },
    Route { path: "/ready", auth: RouteAuth::Probe, serve: Serve::Ready },
    Route { path: "/readyz", auth: RouteAuth::Probe, serve: Serve::Ready },
    Route { path: "/", auth: RouteAuth::Public, serve: Serve::Page },
    api::route("/v1/models", Scope::Read, api::Endpoint::Models),
    api::route("/v1/chat/completions", Scope::Write, api::Endpoint::ChatCompletions),
    api::route("/v1/responses", Scope::Write, api::Endpoint::Responses),
    api::route("/v1/messages", Scope::Write, api::Endpoint::Messages),
    api::route("/tools/invoke", Scope::Write, api::Endpoint::ToolsInvoke),
    MODEL,
    JOIN,
    HOOK,
];

/// Stands for every path below `/v1/models/`.
const MODEL: Route = api::route("/v1/models/{id}", Scope::Read, api::Endpoint::Models);
/// Stands for every path below `hooks.path`.
const HOOK: Route = Route { path: "/hooks", auth: RouteAuth::HookToken, serve: Serve::Hook };

/// Stands for every path that ends in `/j/<code>`.
const JOIN: Route = Route { path: "/j", auth: RouteAuth::OneTimeCode, serve: Serve::Join };

/// Which route owns a path. What is not switched on owns nothing.
fn find(runtime: &Runtime, path: &str) -> Option<&'static Route> {
    if hooks::subpath(runtime, path).is_some() {
        return Some(&HOOK);
    }
    let fixed = ROUTES.iter().find(|route| route.path == path && !matches!(route.serve, Serve::Hook));
    let model = || path.strip_prefix("/v1/models/").map(|_| &MODEL);
    let found = fixed.or_else(model).or_else(|| join::code_in(path).map(|_| &JOIN))?;
    let off = matches!(found.serve, Serve::Api(endpoint) if !endpoint.is_on(runtime));
    (!off).then_some(found)
}

/// What is known of one accepted socket while it speaks HTTP.
struct Talk {
    /// Set by the request that becomes a WebSocket.
    upgrade: Mutex<Option<Evidence>>,
    /// The socket's place among those that have not proven themselves; gone once it has.
    slot: Mutex<Option<Slot>>,
    proven: CancellationToken,
}

impl Talk {
    /// A request on this socket proved a secret: it no longer waits among strangers, and may take its time.
    fn proven(&self) {
        if let Some(slot) = self.slot.lock().ok().and_then(|mut slot| slot.take()) {
            slot.proven();
        }
        self.proven.cancel();
    }
}

/// Serves one accepted socket until it ends or becomes a WebSocket.
pub async fn serve(gateway: Arc<Gateway>, stream: Stream, peer: Peer, slot: Slot) {
    let deadline = Instant::now() + gateway.handshake_timeout;
    gateway.arrivals.note(now_ms(), peer.address(), ArrivalStage::Reached);
    let Some(stream) = secured(&gateway, stream, peer, &slot).await else { return };
    let evicted = slot.evicted.clone();
    let talk =
        Arc::new(Talk { upgrade: Mutex::default(), slot: Mutex::new(Some(slot)), proven: CancellationToken::new() });
    let service = {
        let (gateway, talk) = (Arc::clone(&gateway), Arc::clone(&talk));
        service_fn(move |request: Request<Body>| {
            let (gateway, talk) = (Arc::clone(&gateway), Arc::clone(&talk));
            async move { Ok::<_, Infallible>(answer(&gateway, peer, request, &talk).await) }
        })
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .serve_connection(HttpIo::new(stream), service)
        .without_shutdown();
    let lifetime = async {
        if tokio::time::timeout(HTTP_LIFETIME, talk.proven.cancelled()).await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    let served = tokio::select! {
        biased;
        () = evicted.cancelled() => return,
        () = gateway.cancel.cancelled() => return,
        () = lifetime => return,
        served = connection => served,
    };
    let Ok(parts) = served else { return };
    let evidence = talk.upgrade.lock().ok().and_then(|mut taken| taken.take());
    let slot = talk.slot.lock().ok().and_then(|mut slot| slot.take());
    let (mut stream, unsent) = parts.io.into_parts();
    match (evidence, &mut stream) {
        (Some(evidence), _) => {
            // A socket that proved a secret by HTTP before starts here as a stranger again.
            let again = || gateway.admission.enter(now_ms(), evidence.client_key());
            let Some(slot) = slot.or_else(again) else { return };
            // A task of its own: the state of the HTTP connection is dropped with this one.
            let tracker = gateway.tracker.clone();
            tracker.spawn(connection::run(gateway, stream, unsent, parts.read_buf, evidence, slot, deadline));
        }
        // Without it the last answer could have been cut short by somebody on the way.
        (None, Stream::Tls(tls)) => {
            let _ = tokio::time::timeout(limits::CLOSE_GRACE, tls.shutdown()).await;
        }
        (None, _) => {}
    }
}

/// Puts TLS under a TCP connection where the gateway speaks it. The head's time covers its handshake.
async fn secured(gateway: &Gateway, stream: Stream, peer: Peer, slot: &Slot) -> Option<Stream> {
    let (tls, tcp) = match (&gateway.tls, stream) {
        (Some(tls), Stream::Tcp(tcp)) => (tls, tcp),
        (_, other) => return Some(other),
    };
    let secured = tokio::select! {
        biased;
        () = slot.evicted.cancelled() => return None,
        () = gateway.cancel.cancelled() => return None,
        secured = tokio::time::timeout(HEAD_TIMEOUT, tls::accept(tls, tcp)) => secured,
    };
    match secured {
        Ok(Ok(stream)) => {
            gateway.arrivals.note(now_ms(), peer.address(), ArrivalStage::Secured);
            Some(Stream::Tls(Box::new(stream)))
        }
        Ok(Err(refused)) => {
            gateway.arrivals.note(now_ms(), peer.address(), ArrivalStage::TlsRefused);
            tracing::debug!("a connection without TLS: {refused}");
            None
        }
        Err(_) => None,
    }
}

async fn answer(gateway: &Arc<Gateway>, peer: Peer, request: Request<Body>, talk: &Talk) -> Response {
    let (head, body) = request.into_parts();
    let has_body = has_body(&head.headers);
    let (is_head, request) = (head.method == Method::HEAD, Request::from_parts(head, ()));
    let mut unread = Some(body);
    let mut response = match route(gateway, peer, &request, &mut unread, talk).await {
        Ok(response) | Err(response) => response,
    };
    // What follows a body we did not read is not a request; such a connection ends with its answer.
    if (has_body && (unread.is_some() || !response.status().is_success()))
        || response.status() == StatusCode::BAD_REQUEST
    {
        response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    }
    if is_head {
        response = response.map(|_| reply::empty());
    }
    if let Some(hsts) = &gateway.runtime.load().hsts {
        response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
    }
    response
}

async fn route(
    gateway: &Arc<Gateway>,
    peer: Peer,
    request: &Request<()>,
    body: &mut Option<Body>,
    talk: &Talk,
) -> Result<Response, Response> {
    check_framing(request)?;
    let runtime = gateway.runtime.load_full();
    let evidence = Evidence::gather(peer, request.headers(), |address| runtime.is_trusted_proxy(address));
    let path = request.uri().path();
    let found = find(&runtime, path);
    let wants_upgrade = request.headers().contains_key(header::UPGRADE);
    if let (Some(Route { auth: RouteAuth::Probe, serve, .. }), false) = (found, wants_upgrade) {
        only_get(request.method())?;
        return Ok(match serve {
            Serve::Ready => ready(gateway, &evidence, request.headers()).await,
            // Nothing listens before everything has started.
            Serve::Started => json_reply(StatusCode::OK, &json!({"ok": true, "status": "started"})),
            _ => json_reply(StatusCode::OK, &json!({"ok": true, "status": "live"})),
        });
    }
    if evidence.unattributable {
        return Err(api_error(
            StatusCode::FORBIDDEN,
            "proxy_attribution_required",
            "this request carries forwarding headers, but the peer is not in gateway.trustedProxies. On the gateway host: \
             openclaw config set gateway.trustedProxies '[\"<proxy address>\"]'",
        ));
    }
    if peer != Peer::Owner && !runtime.policy.names.accepts_host(evidence.host.as_deref()) {
        return Err(api_error(
            StatusCode::MISDIRECTED_REQUEST,
            "host_not_allowed",
            "the Host header is not a name of this gateway. Use its address, or set gateway.publicOrigin on the gateway host",
        ));
    }
    if wants_upgrade {
        let accept = websocket_accept(gateway, request)?;
        gateway.arrivals.note(now_ms(), evidence.address, ArrivalStage::Greeted);
        if let Ok(mut slot) = talk.upgrade.lock() {
            *slot = Some(evidence);
        }
        return Ok(reply::switching(&accept));
    }
    match found {
        Some(Route { serve: Serve::Page, .. }) => {
            only_get(request.method())?;
            Ok(page::index())
        }
        Some(Route { serve: Serve::Join, .. }) => {
            join::answer(gateway, &evidence, request, join::code_in(path).unwrap_or_default()).await
        }
        Some(Route { serve: Serve::Api(endpoint), auth: RouteAuth::Operator(scope), .. }) => {
            let asked = api::Asked { gateway, evidence: &evidence, request, scope: *scope };
            api::answer(*endpoint, asked, body, || talk.proven()).await
        }
        Some(Route { serve: Serve::Hook, .. }) => {
            hooks::answer(gateway, &evidence, request, body, || talk.proven()).await
        }
        _ if request.method() == Method::OPTIONS => Err(reply::method_not_allowed("POST")),
        _ => Err(plain(StatusCode::NOT_FOUND, "Not Found")),
    }
}

/// Refuses requests two parsers could read differently.
fn check_framing<B>(request: &Request<B>) -> Result<(), Response> {
    let headers = request.headers();
    let count = |name: &header::HeaderName| headers.get_all(name).iter().count();
    let lengths = count(&header::CONTENT_LENGTH);
    let both = lengths > 0 && headers.contains_key(header::TRANSFER_ENCODING);
    let hosts = count(&header::HOST);
    let missing_host = hosts == 0 && request.version() == Version::HTTP_11;
    if lengths > 1 || both || hosts > 1 || missing_host || count(&header::TRANSFER_ENCODING) > 1 {
        return Err(plain(StatusCode::BAD_REQUEST, "Bad Request"));
    }
    Ok(())
}

fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get(header::CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0")
}

fn only_get(method: &Method) -> Result<(), Response> {
    if matches!(*method, Method::GET | Method::HEAD) { Ok(()) } else { Err(reply::method_not_allowed("GET, HEAD")) }
}

/// Checks the upgrade request of RFC 6455 section 4.2.1 and computes the answer's key.
fn websocket_accept<B>(gateway: &Gateway, request: &Request<B>) -> Result<String, Response> {
    let headers = request.headers();
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let bad = || plain(StatusCode::BAD_REQUEST, "Bad Request");
    if request.method() != Method::GET || request.version() != Version::HTTP_11 {
        return Err(bad());
    }
    let asks_switch = text(header::CONNECTION).split(',').any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    if !text(header::UPGRADE).eq_ignore_ascii_case("websocket") || !asks_switch {
        return Err(bad());
    }
    if text(header::SEC_WEBSOCKET_VERSION) != "13" {
        return Err(reply::upgrade_required());
    }
    if !gateway.runtime.load().is_websocket_path(request.uri().path()) {
        return Err(plain(StatusCode::NOT_FOUND, "Not Found"));
    }
    let key = text(header::SEC_WEBSOCKET_KEY);
    if headers.get_all(header::SEC_WEBSOCKET_KEY).iter().count() != 1
        || STANDARD.decode(key).map_or(0, |bytes| bytes.len()) != 16
    {
        return Err(bad());
    }
    Ok(tungstenite::handshake::derive_accept_key(key.as_bytes()))
}

/// Readiness: the bare fact for strangers, the reasons for local or authenticated callers.
async fn ready(gateway: &Gateway, evidence: &Evidence, headers: &HeaderMap) -> Response {
    let failing = gateway.failing();
    let ready = failing.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let trusted = evidence.direct_local()
        || match bearer(headers) {
            Some(token) => match authenticate(gateway, evidence, token).await {
                Ok(right) => right,
                Err(response) => return response,
            },
            None => false,
        };
    if !trusted {
        return json_reply(status, &json!({"ready": ready}));
    }
    json_reply(status, &json!({"ready": ready, "failing": failing, "uptimeMs": gateway.uptime_ms()}))
}

pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ").map(str::trim).filter(|t| !t.is_empty())
}

/// Checks a bearer secret against the same budget as WebSocket handshakes.
///
/// # Errors
/// 429 with `Retry-After` while the client is limited.
pub async fn authenticate(gateway: &Gateway, evidence: &Evidence, token: &str) -> Result<bool, Response> {
    let runtime = gateway.runtime.load_full();
    let expected = match &runtime.policy.mode {
        Mode::None => return Ok(evidence.direct_local()),
        Mode::Token(secret) | Mode::Password(secret) => secret,
    };
    let (key, class) = (evidence.client_key(), CredentialClass::SharedSecret);
    if let Err(limited) = gateway.limiter(|limiter| limiter.begin(now_ms(), runtime.limits, class, &key)) {
        return Err(reply::rate_limited(limited.retry_after_ms));
    }
    if expected.matches(token) {
        gateway.limiter(|limiter| limiter.succeed(class, &key));
        return Ok(true);
    }
    let wait = gateway.limiter(|limiter| limiter.fail(now_ms(), runtime.limits, class, &key));
    if wait > 0 {
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }
    gateway.limiter(|limiter| limiter.finish(class, &key));
    Ok(false)
}

/// The answer to a socket for which there is no room, written without reading anything.
pub const NO_ROOM: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n";
