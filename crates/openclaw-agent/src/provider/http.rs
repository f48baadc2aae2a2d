//! Requests to providers and the streams that answer them: one core for all APIs.

use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use reqwest::{
    Client, Response,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue},
    redirect,
};
use serde::Serialize;
use tokio::time::{Instant, timeout};

use super::{
    Delta, ErrorKind, ModelRef, ProviderError,
    endpoint::{BaseUrl, Endpoint},
    explain::{ApiError, Call},
    sse::{Event, Parser},
};

/// To a TCP and TLS connection.
const CONNECT: Duration = Duration::from_secs(15);
/// Of an answer that is an error: 64 KiB.
const ERROR_BODY_BYTES: usize = 64 << 10;
/// Of one whole answer: 64 MiB, far more than any model says.
const ANSWER_BYTES: usize = 64 << 20;
/// For what may follow the last word of an answer (usage, `[DONE]`).
const TRAILER: Duration = Duration::from_secs(3);

/// The connections to all providers. Cheap to clone; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Http(Arc<Clients>);

/// Made when first needed: reading the system's certificates takes a while, and a machine with local models only may have none.
#[derive(Debug, Default)]
struct Clients {
    /// Straight to servers of one's own network, without any proxy of the environment.
    local: OnceLock<Result<Client, String>>,
    local_tls: OnceLock<Result<Client, String>>,
    outside: OnceLock<Result<Client, String>>,
}

impl Http {
    pub(super) fn client(&self, base: &BaseUrl) -> Result<&Client, String> {
        let clients = &*self.0;
        let (cell, local, tls) = match (base.local, base.is_https()) {
            (true, false) => (&clients.local, true, false),
            (true, true) => (&clients.local_tls, true, true),
            (false, _) => (&clients.outside, false, true),
        };
        cell.get_or_init(|| build(local, tls)).as_ref().map_err(Clone::clone)
    }
}

fn build(local: bool, tls: bool) -> Result<Client, String> {
    use rustls_platform_verifier::BuilderVerifierExt as _;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let config = if tls {
        let verified = config.with_platform_verifier();
        verified.map_err(|error| format!("the system's certificates cannot be used ({error})"))?
    } else {
        config.with_root_certificates(rustls::RootCertStore::empty())
    };
    let builder = Client::builder()
        .tls_backend_preconfigured(config.with_no_client_auth())
        .connect_timeout(CONNECT)
        .redirect(redirect::Policy::none())
        .referer(false)
        .tcp_nodelay(true)
        .user_agent(concat!("openclaw/", env!("CARGO_PKG_VERSION")));
    let builder = if local { builder.no_proxy() } else { builder };
    builder.build().map_err(|error| error.to_string())
}

/// Reads one API's events.
pub(super) trait Decode: Send + Sync + 'static {
    /// Takes one event; what it means goes to `out`.
    fn event(&mut self, event: &Event, out: &mut VecDeque<Delta>) -> Result<(), Fault>;

    /// True when the answer is complete but for what may be missing (`[DONE]`, usage).
    fn is_complete(&self) -> bool;

    /// The last word, [`Delta::Stopped`], once the stream has ended or everything has come.
    fn stopped(&mut self, out: &mut VecDeque<Delta>);

    /// True when nothing more has to be waited for.
    fn is_over(&self) -> bool;
}

/// Why an event is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The provider says so.
    Api(ApiError),
    /// What came makes no sense; a reason without contents.
    Garbage(String),
}

/// A request that is about to be sent.
pub(super) struct Outgoing {
    pub http: Http,
    pub endpoint: Arc<Endpoint>,
    pub model: ModelRef,
    /// Below the base URL, without a slash in front.
    pub path: &'static str,
    /// Of the API itself.
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Outgoing {
    /// The JSON of `body`.
    pub fn json(body: &impl Serialize) -> Bytes {
        // Wire structs have string keys only, so that this cannot fail.
        serde_json::to_vec(body).unwrap_or_default().into()
    }
}

/// Sends and reads until the answer is over. Dropping the stream closes the connection.
pub(super) fn stream(outgoing: Outgoing, decode: impl Decode) -> BoxStream<'static, Result<Delta, ProviderError>> {
    let deadline = outgoing.endpoint.total.map(|total| Instant::now() + total);
    let exchange = Exchange {
        outgoing,
        decode,
        deadline,
        phase: Phase::Send,
        parser: Parser::default(),
        events: VecDeque::new(),
        deltas: VecDeque::new(),
        received: 0,
    };
    stream::unfold(exchange, |mut exchange| async move { exchange.next().await.map(|item| (item, exchange)) }).boxed()
}

struct Exchange<D> {
    outgoing: Outgoing,
    decode: D,
    deadline: Option<Instant>,
    phase: Phase,
    parser: Parser,
    events: VecDeque<Event>,
    deltas: VecDeque<Delta>,
    received: usize,
}

enum Phase {
    Send,
    Read(Response),
    /// Only what is queued is left.
    Drain,
    /// This is left once what came before it has been told.
    Fail(ProviderError),
    Done,
}

impl<D: Decode> Exchange<D> {
    async fn next(&mut self) -> Option<Result<Delta, ProviderError>> {
        loop {
            if let Some(delta) = self.deltas.pop_front() {
                return Some(Ok(delta));
            }
            let step = match std::mem::replace(&mut self.phase, Phase::Done) {
                Phase::Done => return None,
                Phase::Drain => continue,
                Phase::Fail(error) => return Some(Err(error)),
                Phase::Send => self.send().await,
                Phase::Read(response) => self.read(response).await,
            };
            self.phase = step.unwrap_or_else(Phase::Fail);
        }
    }

    async fn send(&mut self) -> Result<Phase, ProviderError> {
        let Outgoing { http, endpoint, path, headers, body, .. } = &self.outgoing;
        let call = self.call();
        let failed = |message: String| ProviderError { kind: ErrorKind::Invalid, message, retry_after: None };
        let client = http.client(&endpoint.base).map_err(|reason| failed(format!("No HTTPS: {reason}")))?;
        let mut all = headers.clone();
        all.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        all.insert(reqwest::header::ACCEPT, HeaderValue::from_static("text/event-stream"));
        endpoint.auth.apply(&mut all).map_err(|_| call.bad_key())?;
        endpoint.headers.iter().for_each(|(name, value)| {
            all.insert(name.clone(), value.clone());
        });
        let request = client.post(endpoint.base.join(path)).headers(all).body(body.clone());
        let response = self.in_time(request.send()).await?.map_err(|error| call.network(&error))?;
        let status = response.status();
        if status.is_redirection() {
            let location = response.headers().get(reqwest::header::LOCATION).and_then(|value| value.to_str().ok());
            return Err(call.redirect(location));
        }
        if !status.is_success() {
            let headers = response.headers().clone();
            let body = self.short_body(response).await;
            return Err(call.status(status, &headers, &body));
        }
        let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        // Some local servers forget the header; what is named as something else is something else.
        if !kind.is_empty() && kind != "text/event-stream" && kind != "text/plain" && kind != "application/octet-stream"
        {
            let body = self.short_body(response).await;
            return Err(call.no_stream(&kind, &body));
        }
        Ok(Phase::Read(response))
    }

    async fn read(&mut self, mut response: Response) -> Result<Phase, ProviderError> {
        let chunk = if self.decode.is_complete() {
            // All is said. A connection that lingers or breaks now does no harm.
            timeout(TRAILER, response.chunk()).await.unwrap_or(Ok(None)).unwrap_or(None)
        } else {
            self.in_time(response.chunk()).await?.map_err(|error| self.broken(&error))?
        };
        let Some(chunk) = chunk else { return self.ended() };
        self.received += chunk.len();
        if self.received > ANSWER_BYTES {
            return Err(self.call().garbage(&format!("more than {} MiB", ANSWER_BYTES >> 20)));
        }
        let pushed = self.parser.push(&chunk, &mut self.events);
        while let Some(event) = self.events.pop_front() {
            self.take(&event)?;
            if self.decode.is_over() {
                self.decode.stopped(&mut self.deltas);
                self.leave(response);
                return Ok(Phase::Drain);
            }
        }
        pushed.map_err(|_| self.call().garbage("an event of more than 8 MiB"))?;
        Ok(Phase::Read(response))
    }

    /// The provider closed the stream.
    fn ended(&mut self) -> Result<Phase, ProviderError> {
        self.parser.finish(&mut self.events);
        while let Some(event) = self.events.pop_front() {
            // Half an event is what a cut leaves, not garbage.
            if matches!(self.decode.event(&event, &mut self.deltas), Err(Fault::Garbage(_))) {
                return Err(self.call().cut());
            }
        }
        if !self.decode.is_complete() && !self.decode.is_over() {
            return Err(self.call().cut());
        }
        self.decode.stopped(&mut self.deltas);
        Ok(Phase::Drain)
    }

    fn take(&mut self, event: &Event) -> Result<(), ProviderError> {
        self.decode.event(event, &mut self.deltas).map_err(|fault| match fault {
            Fault::Api(api) => self.call().event(&api),
            Fault::Garbage(what) => self.call().garbage(&what),
        })
    }

    /// Reads what little is left after the last event, so that the connection can be used again. Its own task, since nobody
    /// asks a stream for more after the last word; it ends by itself.
    fn leave(&self, mut response: Response) {
        tokio::spawn(timeout(
            Duration::from_millis(500),
            async move { while let Ok(Some(_)) = response.chunk().await {} },
        ));
    }

    /// A connection that broke in the middle: an answer cut short when it had begun, a network fault before.
    fn broken(&self, error: &reqwest::Error) -> ProviderError {
        if self.received > 0 { self.call().cut() } else { self.call().network(error) }
    }

    /// Waits no longer than the provider may be silent, and than the whole call may take.
    async fn in_time<T>(&self, future: impl Future<Output = T>) -> Result<T, ProviderError> {
        let silence = self.outgoing.endpoint.silence;
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let limit = left.map_or(silence, |left| left.min(silence));
        timeout(limit, future).await.map_err(|_| match self.outgoing.endpoint.total {
            Some(total) if limit < silence => self.call().too_slow(total),
            _ => self.call().silence(silence),
        })
    }

    /// The body of an error, as far as it matters.
    async fn short_body(&self, mut response: Response) -> String {
        let mut body = Vec::new();
        while let Ok(Ok(Some(chunk))) = self.in_time(response.chunk()).await {
            body.extend_from_slice(&chunk[..chunk.len().min(ERROR_BODY_BYTES - body.len())]);
            if body.len() == ERROR_BODY_BYTES {
                break;
            }
        }
        String::from_utf8_lossy(&body).into_owned()
    }

    fn call(&self) -> Call<'_> {
        Call { endpoint: &self.outgoing.endpoint, model: &self.outgoing.model }
    }
}
