//! `/hooks/*`: other programs wake the agent or give it something to do. They have a token of their own, which opens nothing
//! else, as the gateway's secret opens nothing here (P-20). What they send is data from outside and is marked as such.

mod config;
mod template;

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use hyper::body::Incoming;
use openclaw_agent::{
    provider::{ModelRef, Thinking},
    untrusted,
};
use openclaw_channels::message::Address;
use openclaw_protocol::{ErrorCode, ErrorShape};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub use config::{Hooks, HooksError};

use self::config::{Action, Mapping};
use super::{
    bearer, body,
    reply::{self, Response, api_error, json_reply, plain},
};
use crate::{
    auth::{
        Evidence,
        rate_limit::{CredentialClass, Limits},
    },
    clock::now_ms,
    gateway::Gateway,
    runs::{Authority, Input, Origin, RunId, RunRequest, RunStatus, Runs, WhenBusy, heartbeat},
    runtime::Runtime,
    sessions::SessionKey,
};

/// Longest body (config-hooks: 256 KiB).
const BODY_BYTES: usize = 256 * 1024;
/// 20 failures a minute (config-hooks); a client on this machine is no exception.
const LIMITS: Limits = Limits { max_attempts: 20, window_ms: 60_000, lockout_ms: 60_000, exempt_loopback: false };
/// Characters of a wake's text that are kept: it is a notice, and waits in memory.
const MAX_WAKE_CHARS: usize = 8_000;
/// Actions of one request (config-hooks).
const MAX_ACTIONS: usize = 200;
/// Characters of an idempotency key (config-hooks).
const MAX_KEY_CHARS: usize = 256;

/// What the ids of runs begin with.
const RUN_PREFIX: &str = "hook-";

/// What follows `hooks.path`; `None` when the path is none of ours, or hooks are off.
pub fn subpath<'a>(runtime: &Runtime, path: &'a str) -> Option<&'a str> {
    let rest = path.strip_prefix(runtime.hooks.as_ref()?.path.as_str())?;
    (rest.is_empty() || rest.starts_with('/')).then(|| rest.trim_matches('/'))
}

/// Answers a hook.
///
/// # Errors
/// Refusals, as answers.
pub async fn answer(
    gateway: &Arc<Gateway>,
    evidence: &Evidence,
    request: &Request<()>,
    body: &mut Option<Incoming>,
    proven: impl FnOnce(),
) -> Result<Response, Response> {
    let runtime = gateway.runtime.load_full();
    let hooks = runtime.hooks.clone().ok_or_else(|| plain(StatusCode::NOT_FOUND, "Not Found"))?;
    let path = subpath(&runtime, request.uri().path()).unwrap_or_default().to_owned();
    if *request.method() != Method::POST {
        return Err(reply::method_not_allowed("POST"));
    }
    let query = request.uri().query().unwrap_or_default();
    if template::query(query).iter().any(|(name, _)| name == "token") {
        let words = "the token belongs into the header Authorization: Bearer or x-openclaw-token, never into the URL";
        return Err(error(StatusCode::BAD_REQUEST, words));
    }
    authenticate(gateway, evidence, request.headers(), &hooks).await?;
    proven();
    if path.is_empty() {
        return Err(plain(StatusCode::NOT_FOUND, "Not Found"));
    }
    let incoming = body.take().ok_or_else(|| error(StatusCode::BAD_REQUEST, "the request has no body"))?;
    let bytes = body::read(request.headers(), incoming, BODY_BYTES).await?;
    let broken = |why: serde_json::Error| error(StatusCode::BAD_REQUEST, &format!("the body is not JSON: {why}"));
    let payload: Value = serde_json::from_slice(&bytes).map_err(broken)?;
    if !payload.is_object() {
        return Err(error(StatusCode::BAD_REQUEST, "the body must be a JSON object"));
    }
    let asked = Asked { gateway, hooks: &hooks, headers: request.headers(), path: &path };
    match path.as_str() {
        "wake" => asked.wake(read(payload)?).await,
        "agent" => asked.agent(read(payload)?).await,
        _ => asked.mapped(&payload, query).await,
    }
}

async fn authenticate(
    gateway: &Gateway,
    evidence: &Evidence,
    headers: &HeaderMap,
    hooks: &Hooks,
) -> Result<(), Response> {
    let own = || headers.get("x-openclaw-token").and_then(|token| token.to_str().ok()).map(str::trim);
    let unauthorized = || error(StatusCode::UNAUTHORIZED, "Unauthorized");
    let Some(token) = bearer(headers).or_else(own).filter(|token| !token.is_empty()) else {
        return Err(unauthorized());
    };
    let (key, class) = (evidence.client_key(), CredentialClass::HookToken);
    if let Err(limited) = gateway.limiter(|limiter| limiter.begin(now_ms(), LIMITS, class, &key)) {
        let mut response = error(StatusCode::TOO_MANY_REQUESTS, "too many wrong hook tokens; try again later");
        let seconds = HeaderValue::from(limited.retry_after_ms.div_ceil(1000));
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
        return Err(response);
    }
    if hooks.token.matches(token) {
        gateway.limiter(|limiter| limiter.succeed(class, &key));
        return Ok(());
    }
    gateway.limiter(|limiter| {
        limiter.fail(now_ms(), LIMITS, class, &key);
        limiter.finish(class, &key);
    });
    Err(unauthorized())
}

fn error(status: StatusCode, message: &str) -> Response {
    match status {
        StatusCode::UNAUTHORIZED => api_error(status, "unauthorized", message),
        _ => {
            let mut response = json_reply(status, &json!({"ok": false, "error": message}));
            response.extensions_mut().insert(reply::Reason(message.to_owned()));
            response
        }
    }
}

fn read<T: serde::de::DeserializeOwned>(payload: Value) -> Result<T, Response> {
    serde_json::from_value(payload).map_err(|why| error(StatusCode::BAD_REQUEST, &why.to_string()))
}

/// `POST /hooks/wake`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wake {
    #[serde(default)]
    text: String,
    mode: Option<WakeMode>,
    agent_id: Option<String>,
    session_key: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum WakeMode {
    #[default]
    Now,
    NextHeartbeat,
}

/// `POST /hooks/agent`, and what a mapping makes of other hooks.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Job {
    #[serde(default)]
    message: String,
    name: Option<String>,
    agent_id: Option<String>,
    session_key: Option<String>,
    #[serde(default)]
    session_mode: SessionMode,
    idempotency_key: Option<String>,
    #[serde(default)]
    wait_for_completion: bool,
    deliver: Option<bool>,
    channel: Option<String>,
    to: Option<String>,
    account_id: Option<String>,
    model: Option<String>,
    thinking: Option<String>,
    timeout_seconds: Option<f64>,
    /// The key was written by the owner and not by the caller.
    #[serde(skip)]
    own_key: bool,
    /// The text was written by the owner and not by the caller.
    #[serde(skip)]
    trusted: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SessionMode {
    /// A conversation of its own for every run.
    #[default]
    Isolated,
    Persistent,
}

struct Asked<'a> {
    gateway: &'a Arc<Gateway>,
    hooks: &'a Hooks,
    headers: &'a HeaderMap,
    path: &'a str,
}

impl Asked<'_> {
    async fn wake(&self, wake: Wake) -> Result<Response, Response> {
        let text = wake.text.trim();
        if text.is_empty() {
            return Err(error(StatusCode::BAD_REQUEST, "text is required"));
        }
        let mode = wake.mode.unwrap_or_default();
        let agent = self.agent_for(wake.agent_id.as_deref())?;
        let session = match wake.session_key.as_deref() {
            None => self.main_session(&agent)?,
            Some(_) if mode != WakeMode::Now => {
                return Err(error(StatusCode::BAD_REQUEST, "sessionKey goes with mode \"now\" only"));
            }
            Some(key) => self.session(&agent, key, false)?,
        };
        let outcome = self.do_wake(session, text, mode).await;
        Ok(json_reply(StatusCode::OK, &json!({"ok": true, "mode": mode.as_str(), "eventOutcome": outcome})))
    }

    /// The text comes from outside whoever wrote it, and the agent is told so.
    async fn do_wake(&self, session: SessionKey, text: &str, mode: WakeMode) -> &'static str {
        let outsider = Some(format!("webhook {}", self.path));
        let text = text.chars().take(MAX_WAKE_CHARS).collect();
        heartbeat::notice(self.gateway, session, outsider, text, mode == WakeMode::Now).await
    }

    async fn agent(&self, job: Job) -> Result<Response, Response> {
        let wait = job.wait_for_completion;
        let (run, watch) = self.start(job).await?;
        if !wait {
            return Ok(json_reply(StatusCode::OK, &json!({"ok": true, "runId": run.0})));
        }
        let stopping =
            || error(StatusCode::SERVICE_UNAVAILABLE, "the gateway is stopping; the run goes on after its start");
        let outcome = watch.outcome().await.ok_or_else(stopping)?;
        let status = if outcome.status == RunStatus::Ok { "ok" } else { "error" };
        let reply = if outcome.text.trim().is_empty() { "empty" } else { "visible" };
        let completion = json!({"status": status, "replyDisposition": reply});
        Ok(json_reply(StatusCode::OK, &json!({"ok": true, "runId": run.0, "completion": completion})))
    }

    /// Everything else: the first mapping that matches.
    async fn mapped(&self, payload: &Value, query: &str) -> Result<Response, Response> {
        let source = payload.get("source").and_then(Value::as_str);
        let Some(mapping) = self.hooks.mappings.iter().find(|mapping| mapping.matches(self.path, source)) else {
            return Err(plain(StatusCode::NOT_FOUND, "Not Found"));
        };
        let mut items = vec![payload.clone()];
        if let Some(key) = &mapping.for_each {
            let list = payload.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
            if list.len() > MAX_ACTIONS {
                tracing::warn!("hook {}: {} of {} items are left out", self.path, list.len() - MAX_ACTIONS, list.len());
            }
            items = list
                .into_iter()
                .take(MAX_ACTIONS)
                .map(|item| {
                    let mut one = payload.clone();
                    one[key] = json!([item]);
                    one
                })
                .collect();
        }
        let (mut runs, mut errors, mut woken) = (Vec::new(), Vec::new(), None);
        for item in &items {
            let context = template::Context { payload: item, headers: self.headers, query, path: self.path };
            match self.act(mapping, &context).await {
                Ok(Done::Run(id)) => runs.push(id.0),
                Ok(Done::Woken(outcome)) => woken = Some(outcome),
                Err(refused) => errors.push(refused),
            }
        }
        match (runs.is_empty(), woken, errors.is_empty()) {
            (true, None, true) => Ok(plain(StatusCode::NO_CONTENT, "")),
            (_, _, false) if items.len() == 1 => Err(errors.remove(0)),
            (_, _, false) => {
                let reason =
                    errors[0].extensions().get::<reply::Reason>().map_or("see the log", |reason| reason.0.as_str());
                let words = format!("{} of {} actions were not taken; the first: {reason}", errors.len(), items.len());
                let value = json!({"ok": false, "error": words, "runIds": runs, "dispatched": runs.len()});
                Err(json_reply(errors[0].status(), &value))
            }
            (true, Some(outcome), true) => {
                let mode = mapping.wake_mode.as_str();
                Ok(json_reply(StatusCode::OK, &json!({"ok": true, "mode": mode, "eventOutcome": outcome})))
            }
            (false, _, true) if runs.len() == 1 => {
                Ok(json_reply(StatusCode::OK, &json!({"ok": true, "runId": runs[0]})))
            }
            (false, _, true) => {
                let value = json!({"ok": true, "runId": runs[0], "runIds": runs, "dispatched": runs.len()});
                Ok(json_reply(StatusCode::OK, &value))
            }
        }
    }

    async fn act(&self, mapping: &Mapping, context: &template::Context<'_>) -> Result<Done, Response> {
        let filled = |text: &Option<String>| text.as_ref().map(|text| template::fill(text, context));
        let agent = self.agent_for(mapping.agent_id.as_deref())?;
        if mapping.action == Action::Wake {
            let text = filled(&mapping.text_template).unwrap_or_default();
            if text.trim().is_empty() {
                return Err(error(StatusCode::BAD_REQUEST, "the mapping's textTemplate gave no text"));
            }
            let session = self.main_session(&agent)?;
            return Ok(Done::Woken(self.do_wake(session, &text, mapping.wake_mode).await));
        }
        let templated = mapping.session_key.as_deref().is_some_and(template::has_fields);
        let key = filled(&mapping.session_key);
        if key.as_deref().is_some_and(|key| key.trim().is_empty()) {
            return Err(error(StatusCode::BAD_REQUEST, "the mapping's sessionKey gave nothing"));
        }
        let job = Job {
            message: filled(&mapping.message_template).unwrap_or_default(),
            name: filled(&mapping.name),
            agent_id: Some(agent),
            session_key: key,
            session_mode: mapping.session_mode,
            deliver: mapping.deliver,
            channel: mapping.channel.clone().filter(|channel| channel != "last"),
            to: filled(&mapping.to),
            model: filled(&mapping.model),
            thinking: filled(&mapping.thinking),
            timeout_seconds: mapping.timeout_seconds,
            own_key: !templated,
            trusted: mapping.allow_unsafe_external_content,
            ..Job::default()
        };
        self.start(job).await.map(|(run, _)| Done::Run(run))
    }

    async fn start(&self, job: Job) -> Result<(RunId, crate::runs::RunWatch), Response> {
        let message = job.message.trim();
        if message.is_empty() {
            return Err(error(StatusCode::BAD_REQUEST, "message is required"));
        }
        let name = job.name.clone().filter(|name| !name.trim().is_empty()).unwrap_or_else(|| "Hook".to_owned());
        let agent = self.agent_for(job.agent_id.as_deref())?;
        let run_id = self.run_id(&job, message);
        let session = self.session_for(&agent, &job, &run_id)?;
        let deliver = destination(&job)?;
        let model = match job.model.as_deref().map(str::trim).filter(|model| !model.is_empty()) {
            None => None,
            Some(text) => Some(
                ModelRef::parse(text)
                    .ok_or_else(|| error(StatusCode::BAD_REQUEST, &format!("model {text:?} is not provider/model")))?,
            ),
        };
        let text = if job.trusted {
            message.to_owned()
        } else {
            // Repeated, it has to be the same text, or it would be another run.
            untrusted::wrap_as(&self.seal(&run_id), &format!("webhook {name}"), message)
        };
        let timeout = job.timeout_seconds.filter(|seconds| *seconds >= 1.0 && seconds.is_finite());
        let request = RunRequest {
            run_id: run_id.clone(),
            session,
            input: Input { text, media: Vec::new() },
            origin: Origin::Hook { name },
            authority: Authority::CHAT,
            deliver,
            model,
            thinking: job.thinking.as_deref().and_then(thinking),
            timeout: timeout.map(|seconds| Duration::from_secs_f64(seconds.min(86_400.0).floor())),
            extra_system: None,
            when_busy: WhenBusy::Followup,
        };
        let submitted = Runs::submit(self.gateway, request).await.map_err(|why| not_taken(&why))?;
        Ok((run_id, submitted.watch))
    }

    /// An id for the frame around a run's text, which nobody knows who does not know the token; whoever knows it and sends the
    /// text of others cannot be helped by a frame either.
    fn seal(&self, run: &RunId) -> String {
        let mut hash = Sha256::new();
        for field in [self.hooks.token.expose(), "seal", &run.0] {
            hash.update(field);
            hash.update([0]);
        }
        hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The same key gives the same run, when it comes with the same token, path and content.
    fn run_id(&self, job: &Job, message: &str) -> RunId {
        let given = |name: &str| self.headers.get(name)?.to_str().ok().map(str::to_owned);
        let key = given("idempotency-key").or_else(|| given("x-openclaw-idempotency-key"));
        let key = key.or_else(|| job.idempotency_key.clone()).map(|key| key.trim().to_owned());
        let Some(key) = key.filter(|key| !key.is_empty() && key.chars().count() <= MAX_KEY_CHARS) else {
            return RunId(format!("{RUN_PREFIX}{}", uuid::Uuid::new_v4()));
        };
        let persistent = job.session_key.as_deref().filter(|_| job.session_mode == SessionMode::Persistent);
        let fields = [
            self.path,
            &key,
            message,
            persistent.unwrap_or_default(),
            job.name.as_deref().unwrap_or_default(),
            job.channel.as_deref().unwrap_or_default(),
            job.to.as_deref().unwrap_or_default(),
            job.model.as_deref().unwrap_or_default(),
        ];
        let mut hash = Sha256::new();
        hash.update(self.hooks.token.expose());
        for field in fields {
            hash.update([0]);
            hash.update(field);
        }
        let digits: String = hash.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        RunId(format!("{RUN_PREFIX}{digits}"))
    }

    fn agent_for(&self, id: Option<&str>) -> Result<String, Response> {
        let id = id.map(str::trim).filter(|id| !id.is_empty());
        let default = &self.gateway.session_defaults.default_agent_id;
        let id = id.unwrap_or(default).to_owned();
        if !super::api::agents(self.gateway).contains(&id) {
            return Err(error(StatusCode::BAD_REQUEST, &format!("there is no agent {id:?}")));
        }
        if self.hooks.allowed_agents.as_ref().is_some_and(|allowed| !allowed.iter().any(|one| *one == id || one == "*"))
        {
            return Err(error(
                StatusCode::BAD_REQUEST,
                &format!("hooks.allowedAgentIds does not allow the agent {id:?}"),
            ));
        }
        Ok(id)
    }

    fn main_session(&self, agent: &str) -> Result<SessionKey, Response> {
        let main = &self.gateway.session_defaults.main_key;
        SessionKey::resolve("main", agent, main).map_err(|why| error(StatusCode::BAD_REQUEST, &why.to_string()))
    }

    /// A key a caller or a mapping gave.
    fn session(&self, agent: &str, key: &str, own: bool) -> Result<SessionKey, Response> {
        if !own && !self.hooks.allow_request_session_key {
            let words = "sessionKey is not taken from requests; hooks.allowRequestSessionKey allows it";
            return Err(error(StatusCode::BAD_REQUEST, words));
        }
        let main = &self.gateway.session_defaults.main_key;
        let bad = |why: crate::sessions::key::KeyError| error(StatusCode::BAD_REQUEST, &format!("sessionKey: {why}"));
        let resolved = SessionKey::resolve(key, agent, main).map_err(bad)?;
        // A key of another agent means the same place under this one.
        let resolved = SessionKey::resolve(&format!("agent:{agent}:{}", resolved.rest()), agent, main).map_err(bad)?;
        if !self.hooks.admits(resolved.rest()) {
            let words = "sessionKey does not begin with one of hooks.allowedSessionKeyPrefixes";
            return Err(error(StatusCode::BAD_REQUEST, words));
        }
        Ok(resolved)
    }

    /// Where a run belongs; one of its own has the run's name, so that a repeated request means the same one.
    fn session_for(&self, agent: &str, job: &Job, run: &RunId) -> Result<SessionKey, Response> {
        let own = run.0.strip_prefix(RUN_PREFIX).unwrap_or(&run.0);
        let given = job.session_key.as_deref().map(str::trim).filter(|key| !key.is_empty());
        let key = match (given, &self.hooks.default_session_key) {
            (Some(key), _) => self.session(agent, key, job.own_key)?,
            (None, Some(key)) => self.session(agent, key, true)?,
            (None, None) if job.session_mode == SessionMode::Persistent => {
                return Err(error(StatusCode::BAD_REQUEST, "sessionMode \"persistent\" needs a sessionKey"));
            }
            (None, None) => self.session(agent, &format!("hook:{own}"), true)?,
        };
        if job.session_mode == SessionMode::Persistent || given.is_none() && self.hooks.default_session_key.is_none() {
            return Ok(key);
        }
        self.session(agent, &format!("{}:run:{own}", key.rest()), true)
    }
}

enum Done {
    Run(RunId),
    Woken(&'static str),
}

impl WakeMode {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Now => "now",
            Self::NextHeartbeat => "next-heartbeat",
        }
    }
}

fn thinking(text: &str) -> Option<Thinking> {
    match text.trim() {
        "off" => Some(Thinking::Off),
        "minimal" => Some(Thinking::Minimal),
        "low" => Some(Thinking::Low),
        "medium" => Some(Thinking::Medium),
        "high" => Some(Thinking::High),
        _ => None,
    }
}

/// Where the reply goes: nowhere, or to a channel and a recipient named together.
fn destination(job: &Job) -> Result<Option<Address>, Response> {
    if job.deliver == Some(false) {
        return Ok(None);
    }
    let filled =
        |text: &Option<String>| text.clone().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    match (filled(&job.channel), filled(&job.to)) {
        (None, None) if job.account_id.is_none() => Ok(None),
        (Some(channel), Some(chat)) if channel != "last" => Ok(Some(Address {
            channel,
            account: filled(&job.account_id).unwrap_or_else(|| "default".to_owned()),
            chat,
            thread: None,
        })),
        _ => Err(error(StatusCode::BAD_REQUEST, "a reply is delivered when channel and to are given together")),
    }
}

fn not_taken(why: &ErrorShape) -> Response {
    let conflict = why.details.as_ref().and_then(|details| details.get("reason")).is_some();
    let status = match why.code {
        ErrorCode::InvalidRequest if conflict => StatusCode::CONFLICT,
        ErrorCode::InvalidRequest => StatusCode::BAD_REQUEST,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    error(status, &why.message)
}
