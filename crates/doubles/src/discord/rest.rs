//! The REST API, the file host, and the way into the gateway.

use std::{io, sync::Arc, time::Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};
use tokio_util::sync::CancellationToken;

use super::{APPLICATION, BOT, Call, Fault, Inner, PROMPT, State, bot_object, gateway, message_object, text};

type Answer = (StatusCode, Value);

/// "Create Message": content of at most 2,000 characters.
const MAX_CONTENT: usize = 2_000;

pub async fn serve(state: Arc<State>, listener: TcpListener, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        if let Ok((stream, _)) = accepted {
            let (state, stop) = (Arc::clone(&state), stop.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = connection(state, stream, stop.clone()) => {}
                }
            });
        }
    }
}

async fn connection(state: Arc<State>, stream: TcpStream, stop: CancellationToken) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let (state, stop) = (Arc::clone(&state), stop.clone());
        async move { handle(state, request, stop).await }
    });
    // An error of the service cuts the connection.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
}

async fn handle(
    state: Arc<State>,
    request: Request<Incoming>,
    stop: CancellationToken,
) -> Result<Response<Full<Bytes>>, io::Error> {
    let path = request.uri().path().to_owned();
    if matches!(path.as_str(), "/gateway" | "/resume") {
        return Ok(upgrade(state, request, stop));
    }
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let cut = || io::Error::new(io::ErrorKind::ConnectionReset, "cut");
    let path = path.strip_prefix("/api/v10").unwrap_or(&path).to_owned();
    let (json, files) = content(&head.headers, &body);
    let authorization =
        head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let call =
        Call { method: head.method.to_string(), path, body: json, files, authorization, status: 0, at: Instant::now() };
    let fault = {
        let mut inner = state.lock();
        let fits =
            |(method, end, _): &(String, String, Fault)| *method == call.method && call.path.ends_with(end.as_str());
        let at = inner.faults.iter().position(fits);
        at.map(|at| inner.faults.remove(at).2)
    };
    let record = |status: u16| {
        state.lock().calls.push(Call { status, ..call.clone() });
        state.touch();
    };
    let work = || {
        let mut inner = state.lock();
        match inner.files.get(&call.path) {
            Some(file) => Err(file.clone()),
            None => Ok(answer(&mut inner, &state, &head.method, &call)),
        }
    };
    match fault {
        Some(Fault::RateLimit { seconds, global }) => {
            record(429);
            let body = json!({"message": "You are being rate limited.", "retry_after": seconds, "global": global});
            let mut response = response((StatusCode::TOO_MANY_REQUESTS, body));
            let headers = response.headers_mut();
            headers.insert("retry-after", whole(seconds));
            headers
                .insert("x-ratelimit-scope", header::HeaderValue::from_static(if global { "global" } else { "user" }));
            if global {
                headers.insert("x-ratelimit-global", header::HeaderValue::from_static("true"));
            }
            Ok(response)
        }
        Some(Fault::Status(status, body)) => {
            record(status);
            Ok(response((StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY), body)))
        }
        Some(Fault::CutBefore) => {
            record(0);
            Err(cut())
        }
        Some(Fault::CutAfter) => {
            let _ = work();
            record(0);
            Err(cut())
        }
        late => {
            let done = work();
            if let Some(Fault::Late(after)) = late {
                tokio::time::sleep(after).await;
            }
            match done {
                Err(file) => {
                    record(200);
                    Ok(Response::new(Full::new(file)))
                }
                Ok(answer) => {
                    record(answer.0.as_u16());
                    Ok(response(answer))
                }
            }
        }
    }
}

fn whole(seconds: f64) -> header::HeaderValue {
    header::HeaderValue::from(seconds.ceil() as u64)
}

fn upgrade(state: Arc<State>, mut request: Request<Incoming>, stop: CancellationToken) -> Response<Full<Bytes>> {
    let query = request.uri().query().unwrap_or_default();
    let right = query.contains("v=10") && query.contains("encoding=json");
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let (Some(key), true) = (key, right) else {
        return response((StatusCode::BAD_REQUEST, json!({"message": "no WebSocket of version 10"})));
    };
    tokio::spawn(async move {
        if let Ok(upgraded) = hyper::upgrade::on(&mut request).await {
            let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
            tokio::select! {
                () = stop.cancelled() => {}
                () = gateway::run(state, socket) => {}
            }
        }
    });
    let switching = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, key)
        .body(Full::default());
    switching.unwrap_or_default()
}

fn response((status, body): Answer) -> Response<Full<Bytes>> {
    let bytes = if status == StatusCode::NO_CONTENT { Bytes::new() } else { body.to_string().into() };
    let built = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/json")
        .header("x-ratelimit-bucket", "double")
        .header("x-ratelimit-limit", "100")
        .header("x-ratelimit-remaining", "99")
        .header("x-ratelimit-reset-after", "1.000")
        .body(Full::new(bytes));
    built.unwrap_or_default()
}

fn error(status: StatusCode, code: u64, message: &str) -> Answer {
    (status, json!({"message": message, "code": code}))
}

fn answer(inner: &mut Inner, state: &State, method: &Method, call: &Call) -> Answer {
    let parts: Vec<&str> = call.path.split('/').skip(1).collect();
    let own_authority = matches!(parts.first(), Some(&("interactions" | "webhooks")));
    if !own_authority && call.authorization.as_deref() != Some(&format!("Bot {}", inner.token)) {
        return error(StatusCode::UNAUTHORIZED, 0, "401: Unauthorized");
    }
    match (method.as_str(), parts.as_slice()) {
        ("GET", ["gateway", "bot"]) => {
            let (remaining, reset_after) = inner.starts;
            let limit =
                json!({"total": 1000, "remaining": remaining, "reset_after": reset_after, "max_concurrency": 1});
            let url = format!("ws://{}/gateway", state.address);
            (StatusCode::OK, json!({"url": url, "shards": 1, "session_start_limit": limit}))
        }
        ("GET", ["users", "@me"]) => (StatusCode::OK, bot_object()),
        ("POST", ["users", "@me", "channels"]) => {
            let id = inner.dm_channel(&text(&call.body["recipient_id"]));
            (StatusCode::OK, inner.channels.get(&id).cloned().unwrap_or_default())
        }
        ("GET", ["channels", id]) => match inner.channels.get(*id) {
            Some(channel) => (StatusCode::OK, channel.clone()),
            None => error(StatusCode::NOT_FOUND, 10_003, "Unknown Channel"),
        },
        ("POST", ["channels", channel, "messages"]) => create(inner, channel, call),
        ("PATCH", ["channels", _, "messages", id]) => edit(inner, id, &call.body),
        ("DELETE", ["channels", _, "messages", id]) => match inner.messages.remove(*id) {
            Some(_) => (StatusCode::NO_CONTENT, Value::Null),
            None => error(StatusCode::NOT_FOUND, 10_008, "Unknown Message"),
        },
        ("PUT" | "DELETE", ["channels", _, "messages", _, "reactions", _, "@me"])
        | ("POST", ["channels", _, "typing"]) => (StatusCode::NO_CONTENT, Value::Null),
        ("POST", ["interactions", id, token, "callback"]) => callback(inner, id, token, &call.body),
        ("PATCH", ["webhooks", APPLICATION, token, "messages", "@original"]) => match inner.interactions.get(*token) {
            Some(interaction) if interaction.answered => {
                let message = interaction.message.clone();
                edit(inner, &message, &call.body)
            }
            _ => error(StatusCode::NOT_FOUND, 10_015, "Unknown Webhook"),
        },
        ("POST", ["webhooks", APPLICATION, token]) => match inner.interactions.get(*token) {
            Some(interaction) if interaction.answered => {
                let id = inner.snowflake();
                let mut message = message_object(&id, "0");
                message["content"] = call.body["content"].clone();
                (StatusCode::OK, message)
            }
            _ => error(StatusCode::NOT_FOUND, 10_015, "Unknown Webhook"),
        },
        _ => error(StatusCode::NOT_FOUND, 0, "404: Not Found"),
    }
}

fn create(inner: &mut Inner, channel: &str, call: &Call) -> Answer {
    if !inner.channels.contains_key(channel) {
        return error(StatusCode::NOT_FOUND, 10_003, "Unknown Channel");
    }
    if let Some(refused) = invalid(&call.body) {
        return refused;
    }
    let content = text(&call.body["content"]);
    if content.trim().is_empty() && call.files.is_empty() && call.body["poll"].is_null() {
        return error(StatusCode::BAD_REQUEST, 50_006, "Cannot send an empty message");
    }
    let nonce = call.body["nonce"].as_str().map(str::to_owned);
    if nonce.as_ref().is_some_and(|nonce| nonce.len() > 25) {
        return error(StatusCode::BAD_REQUEST, 50_035, "Invalid Form Body");
    }
    if call.body["enforce_nonce"] == true
        && let Some(known) = nonce.as_ref().and_then(|nonce| inner.nonces.get(nonce)).cloned()
    {
        return (StatusCode::OK, inner.messages.get(&known).cloned().unwrap_or_default());
    }
    let id = inner.snowflake();
    let mut message = message_object(&id, channel);
    message["author"] = bot_object();
    for key in ["content", "components", "flags", "message_reference", "nonce"] {
        if let Some(value) = call.body.get(key) {
            message[key] = value.clone();
        }
    }
    let files: Vec<Value> = call
        .files
        .iter()
        .enumerate()
        .map(|(number, (name, data))| json!({"id": number.to_string(), "filename": name, "size": data.len()}))
        .collect();
    message["attachments"] = files.into();
    if let Some(nonce) = nonce {
        inner.nonces.insert(nonce, id.clone());
    }
    inner.messages.insert(id.clone(), message.clone());
    inner.order.push(id);
    (StatusCode::OK, message)
}

fn edit(inner: &mut Inner, id: &str, body: &Value) -> Answer {
    if let Some(refused) = invalid(body) {
        return refused;
    }
    let Some(message) = inner.messages.get_mut(id) else {
        return error(StatusCode::NOT_FOUND, 10_008, "Unknown Message");
    };
    if message["author"]["id"] != BOT {
        return error(StatusCode::FORBIDDEN, 50_005, "Cannot edit a message authored by another user");
    }
    for key in ["content", "components"] {
        if let Some(value) = body.get(key) {
            message[key] = value.clone();
        }
    }
    (StatusCode::OK, message.clone())
}

fn invalid(body: &Value) -> Option<Answer> {
    let form = |message: &str| Some(error(StatusCode::BAD_REQUEST, 50_035, message));
    if body["content"].as_str().is_some_and(|content| content.chars().count() > MAX_CONTENT) {
        return form("Invalid Form Body: content: Must be 2000 or fewer in length.");
    }
    let rows = body["components"].as_array().map(Vec::as_slice).unwrap_or_default();
    for row in rows {
        let buttons = row["components"].as_array().map(Vec::as_slice).unwrap_or_default();
        let fits = |button: &Value| {
            let length = |key: &str| button[key].as_str().map_or(0, |text| text.chars().count());
            (1..=100).contains(&length("custom_id")) && (1..=80).contains(&length("label"))
        };
        if row["type"] != 1 || buttons.is_empty() || buttons.len() > 5 || !buttons.iter().all(fits) {
            return form("Invalid Form Body: components");
        }
    }
    (rows.len() > 5).then(|| error(StatusCode::BAD_REQUEST, 50_035, "Invalid Form Body: components"))
}

fn callback(inner: &mut Inner, id: &str, token: &str, body: &Value) -> Answer {
    let Some(interaction) = inner.interactions.get_mut(token).filter(|known| known.id == id) else {
        return error(StatusCode::NOT_FOUND, 10_062, "Unknown interaction");
    };
    if interaction.answered {
        return error(StatusCode::BAD_REQUEST, 40_060, "Interaction has already been acknowledged.");
    }
    if interaction.since.elapsed() > PROMPT {
        return error(StatusCode::NOT_FOUND, 10_062, "Unknown interaction");
    }
    interaction.answered = true;
    let message = interaction.message.clone();
    match body["type"].as_u64() {
        Some(7) => {
            let (status, answer) = edit(inner, &message, &body["data"]);
            if status.is_success() { (StatusCode::NO_CONTENT, Value::Null) } else { (status, answer) }
        }
        Some(4..=6) => (StatusCode::NO_CONTENT, Value::Null),
        _ => error(StatusCode::BAD_REQUEST, 50_035, "Invalid Form Body: type"),
    }
}

/// JSON, or the parts of a form.
fn content(headers: &HeaderMap, body: &Bytes) -> (Value, Vec<(String, Bytes)>) {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let Some((_, boundary)) = kind.split_once("boundary=") else {
        return (serde_json::from_slice(body).unwrap_or_default(), Vec::new());
    };
    let boundary = format!("--{}", boundary.trim_matches('"'));
    let (mut json, mut files) = (Value::Null, Vec::new());
    for part in split(body, boundary.as_bytes()) {
        let Some(end) = find(part, b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(part.get(..end).unwrap_or_default()).into_owned();
        let data = part.get(end + 4..part.len().saturating_sub(2)).unwrap_or_default();
        if head.contains("name=\"payload_json\"") {
            json = serde_json::from_slice(data).unwrap_or_default();
        } else if let Some((_, rest)) = head.split_once("filename=\"") {
            let name = rest.split('"').next().unwrap_or_default().to_owned();
            files.push((name, Bytes::copy_from_slice(data)));
        }
    }
    (json, files)
}

fn split<'a>(body: &'a [u8], boundary: &[u8]) -> Vec<&'a [u8]> {
    let (mut parts, mut rest) = (Vec::new(), body);
    while let Some(at) = find(rest, boundary) {
        let (before, after) = rest.split_at(at);
        parts.push(before);
        rest = after.get(boundary.len()..).unwrap_or_default();
    }
    parts
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}
