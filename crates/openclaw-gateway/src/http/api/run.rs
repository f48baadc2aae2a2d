//! From a request of the API to a run, and from its end to an answer.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use http::StatusCode;
use openclaw_agent::{
    provider::{ModelRef, Thinking},
    usage::Usage,
};
use openclaw_config::Document;
use openclaw_protocol::{ErrorCode, ErrorShape};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{
    Asked, Response, failed,
    input::{Conversation, Speaker},
    invalid,
};
use crate::{
    gateway::Gateway,
    http::reply::api_error,
    runs::{Authority, Input, Origin, RunEvent, RunId, RunOutcome, RunRequest, RunStatus, RunWatch, Runs, WhenBusy},
    sessions::SessionKey,
};

/// Prefixes of session keys that belong to the gateway.
const RESERVED: [&str; 3] = ["subagent:", "cron:", "acp:"];
/// Answers that can be continued by their id.
const MAX_RESPONSES: usize = 1_000;
/// Characters of earlier messages that go with a request which has no session of its own.
const EARLIER_CHARS: usize = 200_000;

/// What the API remembers between requests.
#[derive(Debug, Default)]
pub struct State {
    /// Which session an answer of `/v1/responses` belongs to.
    responses: Mutex<VecDeque<(String, SessionKey)>>,
}

impl State {
    /// An answer can be continued from here on; the oldest gives way.
    pub fn remember(&self, response_id: &str, session: SessionKey) {
        let mut responses = self.responses.lock().unwrap_or_else(PoisonError::into_inner);
        if responses.len() == MAX_RESPONSES {
            responses.pop_front();
        }
        responses.push_back((response_id.to_owned(), session));
    }

    fn session_of(&self, response_id: &str) -> Option<SessionKey> {
        let responses = self.responses.lock().unwrap_or_else(PoisonError::into_inner);
        responses.iter().rev().find(|(id, _)| id == response_id).map(|(_, session)| session.clone())
    }
}

/// What a request wants besides its text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// `model`: which agent.
    pub model: Option<&'a str>,
    /// `user`: requests with the same one share a conversation.
    pub user: Option<&'a str>,
    pub previous_response: Option<&'a str>,
    pub thinking: Option<Thinking>,
}

/// A run that ends when nobody is left to hear of it.
#[derive(Debug)]
pub struct Started {
    pub session: SessionKey,
    pub watch: RunWatch,
    guard: Guard,
}

#[derive(Debug)]
struct Guard {
    gateway: std::sync::Weak<Gateway>,
    run: Option<(SessionKey, RunId)>,
}

impl Started {
    /// Waits until it has ended well.
    ///
    /// # Errors
    /// Why it did not, or 503 when the gateway stops before.
    pub async fn ended(mut self) -> Result<Arc<RunOutcome>, Response> {
        loop {
            match self.watch.next().await {
                Some(RunEvent::Ended(outcome)) => {
                    self.over();
                    return match failure(&outcome) {
                        Some((status, message)) => Err(api_error(status, "api_error", &message)),
                        None => Ok(outcome),
                    };
                }
                Some(_) => {}
                None => return Err(failed(StatusCode::SERVICE_UNAVAILABLE, "the gateway is stopping")),
            }
        }
    }

    /// The run ended by itself.
    pub fn over(&mut self) {
        self.guard.run = None;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let (Some((session, run)), Some(gateway)) = (self.run.take(), self.gateway.upgrade()) else { return };
        let tracker = gateway.tracker.clone();
        tracker.spawn(async move { Runs::abort(&gateway, &session, Some(&run)).await });
    }
}

/// Ids of the agents, the default one first.
pub fn agents(gateway: &Gateway) -> Vec<String> {
    agents_in(&gateway.runtime.load().config, &gateway.session_defaults.default_agent_id)
}

fn agents_in(config: &Document, default: &str) -> Vec<String> {
    let mut ids = vec![default.to_owned()];
    let entries = config.get("agents.entries").and_then(|node| node.as_object()).unwrap_or_default();
    let listed = config.get("agents.list").and_then(|node| node.as_array()).unwrap_or_default();
    let listed = listed.iter().filter_map(|agent| agent.entry("id")?.as_str());
    for id in entries.iter().map(|(id, _)| id.as_str()).chain(listed) {
        if !ids.iter().any(|known| known == id) {
            ids.push(id.to_owned());
        }
    }
    ids
}

/// Which agent the `model` or the header names.
fn agent(asked: &Asked<'_>, model: Option<&str>) -> Result<String, Response> {
    let default = asked.gateway.session_defaults.default_agent_id.clone();
    let model = model.map(str::trim).filter(|model| !model.is_empty());
    let named = match (asked.header("x-openclaw-agent-id"), model) {
        (Some(id), _) => id,
        (None, None | Some("openclaw" | "openclaw/default" | "openclaw:default")) => return Ok(default),
        (None, Some(model)) => {
            let id = ["openclaw/", "openclaw:", "agent:"].iter().find_map(|prefix| model.strip_prefix(prefix));
            id.ok_or_else(|| {
                invalid(&format!(
                    "model {model:?} names no agent: use \"openclaw\" or \"openclaw/<agentId>\" (GET /v1/models lists them); \
                     the header x-openclaw-model chooses the model behind the agent"
                ))
            })?
        }
    };
    match agents(asked.gateway).into_iter().find(|id| id == named) {
        Some(id) => Ok(id),
        None => Err(invalid(&format!("there is no agent {named:?}; GET /v1/models lists those there are"))),
    }
}

/// Which conversation, and whether it goes on after this request.
fn session(asked: &Asked<'_>, agent: &str, wanted: Wanted<'_>) -> Result<(SessionKey, bool), Response> {
    let main = &asked.gateway.session_defaults.main_key;
    let key = |written: &str| {
        SessionKey::resolve(written, agent, main).map_err(|error| invalid(&format!("x-openclaw-session-key: {error}")))
    };
    if let Some(written) = asked.header("x-openclaw-session-key") {
        let key = key(written)?;
        if RESERVED.iter().any(|prefix| key.rest().starts_with(prefix)) {
            return Err(invalid("x-openclaw-session-key: subagent:, cron: and acp: belong to the gateway"));
        }
        if key.agent() != agent {
            return Err(invalid("x-openclaw-session-key: it belongs to another agent than the one asked"));
        }
        return Ok((key, true));
    }
    if let Some(id) = wanted.previous_response {
        let known = asked.gateway.http.session_of(id).filter(|key| key.agent() == agent);
        return known.map(|key| (key, true)).ok_or_else(|| {
            invalid(&format!("previous_response_id {id:?} is not known here (any more); send the conversation instead"))
        });
    }
    if let Some(user) = wanted.user.map(str::trim).filter(|user| !user.is_empty()) {
        let digest = Sha256::digest(user.as_bytes());
        let digits: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        return Ok((key(&format!("openai-user:{digits}"))?, true));
    }
    Ok((key(&format!("openai:{}", uuid::Uuid::new_v4()))?, false))
}

/// Starts the run.
///
/// # Errors
/// 400 for what the request names wrongly, 409 and 503 when it was not taken.
pub async fn start(
    asked: &Asked<'_>,
    authority: Authority,
    conversation: Conversation,
    wanted: Wanted<'_>,
) -> Result<Started, Response> {
    let agent = agent(asked, wanted.model)?;
    let (session, goes_on) = session(asked, &agent, wanted)?;
    let model = match asked.header("x-openclaw-model") {
        None => None,
        Some(text) => Some(ModelRef::parse(text).ok_or_else(|| {
            invalid(&format!("x-openclaw-model: {text:?} is not provider/model; openclaw models list shows them"))
        })?),
    };
    let run_id = RunId(uuid::Uuid::new_v4().to_string());
    let request = RunRequest {
        run_id: run_id.clone(),
        session: session.clone(),
        input: Input { text: conversation.text, media: conversation.media },
        origin: Origin::Http,
        authority,
        deliver: None,
        model,
        thinking: wanted.thinking,
        timeout: None,
        extra_system: extra_system(conversation.system, conversation.earlier, goes_on),
        when_busy: WhenBusy::Followup,
    };
    let submitted = Runs::submit(asked.gateway, request).await.map_err(|error| refused(&error))?;
    let guard = Guard { gateway: Arc::downgrade(asked.gateway), run: Some((session.clone(), run_id)) };
    Ok(Started { session, watch: submitted.watch, guard })
}

/// The client's own instructions, and what was said before where the gateway has not heard it itself.
fn extra_system(system: Vec<String>, earlier: Vec<(Speaker, String)>, heard: bool) -> Option<String> {
    let mut text = system.into_iter().filter(|text| !text.trim().is_empty()).collect::<Vec<_>>().join("\n\n");
    if !heard && !earlier.is_empty() {
        let mut kept = Vec::new();
        let mut room = EARLIER_CHARS;
        for (speaker, said) in earlier.iter().rev() {
            let chars = said.chars().count();
            if chars > room {
                break;
            }
            room -= chars;
            let role = if *speaker == Speaker::User { "user" } else { "assistant" };
            kept.push(json!({"role": role, "content": said}).to_string());
        }
        kept.reverse();
        if !text.is_empty() {
            text.push_str("\n\n");
        }
        text.push_str("What was said in this conversation before, oldest first, one JSON object a line:\n");
        text.push_str(&kept.join("\n"));
    }
    (!text.is_empty()).then_some(text)
}

/// An error of the gateway as an answer of the API.
pub fn refused(error: &ErrorShape) -> Response {
    match error.code {
        ErrorCode::InvalidRequest => invalid(&error.message),
        ErrorCode::Forbidden => api_error(StatusCode::FORBIDDEN, "forbidden", &error.message),
        _ => failed(StatusCode::SERVICE_UNAVAILABLE, &error.message),
    }
}

/// What is wrong with an outcome; `None` when it is an answer.
pub fn failure(outcome: &RunOutcome) -> Option<(StatusCode, String)> {
    let said = |default: &str| outcome.error.clone().unwrap_or_else(|| default.to_owned());
    match outcome.status {
        RunStatus::Ok => None,
        RunStatus::Timeout => Some((StatusCode::GATEWAY_TIMEOUT, said("the agent took too long"))),
        RunStatus::Aborted => Some((StatusCode::CONFLICT, said("the run was aborted"))),
        RunStatus::Error => {
            let status = match outcome.error_kind.as_deref() {
                Some("rate_limit") => StatusCode::TOO_MANY_REQUESTS,
                Some("context_length") => StatusCode::BAD_REQUEST,
                _ => StatusCode::BAD_GATEWAY,
            };
            Some((status, said("the agent failed; see the gateway log")))
        }
    }
}

/// `usage` of a chat completion.
pub fn chat_usage(usage: Usage) -> Value {
    let prompt = usage.input + usage.cache_read + usage.cache_write;
    json!({
        "prompt_tokens": prompt, "completion_tokens": usage.output, "total_tokens": prompt + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_past_is_told_once() {
        let earlier = || vec![(Speaker::User, "a \"b\"".to_owned()), (Speaker::Assistant, "c".to_owned())];
        let told = extra_system(vec!["Be brief.".into(), " ".into()], earlier(), false).expect("a text");
        assert!(told.starts_with("Be brief.\n\nWhat was said"));
        assert!(
            told.ends_with(
                "{\"role\":\"user\",\"content\":\"a \\\"b\\\"\"}\n{\"role\":\"assistant\",\"content\":\"c\"}"
            )
        );
        assert_eq!(extra_system(vec!["Be brief.".into()], earlier(), true).as_deref(), Some("Be brief."));
        assert_eq!(extra_system(Vec::new(), Vec::new(), false), None);
    }

    #[test]
    fn answers_are_remembered_up_to_a_bound() {
        let state = State::default();
        let key = SessionKey::resolve("x", "main", "main").expect("a key");
        (0..=MAX_RESPONSES).for_each(|n| state.remember(&format!("resp_{n}"), key.clone()));
        assert_eq!(state.session_of("resp_0"), None);
        assert_eq!(state.session_of("resp_1"), Some(key));
    }
}
