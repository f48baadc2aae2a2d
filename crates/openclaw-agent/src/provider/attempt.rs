//! Asking until somebody has answered: the same model again after a pause while its trouble looks temporary, then the next.
//!
//! ```text
//!          ┌──────────── pause, same model ◄── transient, budget left ──┐
//!          ▼                                                            │
//!   ask ─► deltas ─► Stopped (done)                      error ─────────┤
//!          ▲                                                            │
//!          └──────────── next model ◄── any other, one left ────────────┤
//!                                                                       ▼
//!                       prompt too long, cancelled, nobody left ─► the error
//! ```
//!
//! A turn makes one [`Attempts`] and asks it once a round. What a round learns stays: after a fallback the next round begins
//! with the model that answered, and the retries are counted over all rounds (concepts/retry of the reference).

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream::BoxStream};
use tokio::time::Instant;

use crate::{
    message::Message,
    provider::{Delta, ErrorKind, ModelRef, ProviderError, Request, Thinking},
    tool::ToolSpec,
    turn::Candidate,
};

/// How often and how long a model is asked again. Defaults are the reference's: pauses from 1 s, doubled up to 30 s; 9 retries
/// after rate limits, 8 after other trouble, the latter within 90 s of the first failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Retries after anything transient but a rate limit.
    pub retries: u32,
    /// Retries after rate limits.
    pub rate_limit_retries: u32,
    /// Retries of a model while another one is left to ask: somebody waits for the answer.
    pub retries_before_fallback: u32,
    /// After the first failure since the last complete answer; not for rate limits.
    pub window: Duration,
    pub first_pause: Duration,
    pub longest_pause: Duration,
    /// A longer pause asked for by a provider goes to the next model, if there is one.
    pub longest_wish_before_fallback: Duration,
    /// A longer one is a failure even without another model.
    pub longest_wish: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            retries: 8,
            rate_limit_retries: 9,
            retries_before_fallback: 2,
            window: Duration::from_secs(90),
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(30),
            longest_wish_before_fallback: Duration::from_secs(60),
            longest_wish: Duration::from_secs(600),
        }
    }
}

impl Patience {
    /// Every model is asked once.
    pub fn none() -> Self {
        Self { retries: 0, rate_limit_retries: 0, retries_before_fallback: 0, ..Self::default() }
    }
}

/// A [`Request`] that does not say yet which model is asked.
#[derive(Clone, Debug)]
pub struct Ask {
    pub system: String,
    pub messages: Arc<Vec<Message>>,
    pub tools: Arc<Vec<ToolSpec>>,
    pub thinking: Thinking,
    /// Tokens of the answer; the model's own limit when `None`.
    pub max_tokens: Option<u32>,
}

/// What happens while asking, in order.
#[derive(Clone, Debug)]
pub enum Step {
    /// A model is being asked. `attempt` counts from 1 within one ask.
    Asking {
        model: ModelRef,
        attempt: u32,
    },
    Delta(Delta),
    /// All deltas since the last [`Step::Asking`] are void. Another one follows, after the pause.
    Discarded {
        error: ProviderError,
        next: Next,
    },
}

/// What is tried after a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// The same model after this long.
    Retry { after: Duration },
    /// Another model at once.
    Fallback(ModelRef),
}

/// The candidates of one turn and the patience that is left.
pub struct Attempts {
    candidates: Vec<Candidate>,
    /// Whom the next ask begins with. Candidates before it have failed in this turn.
    at: usize,
    patience: Patience,
    /// Retries so far of the candidate at `at`.
    retries: u32,
    rate_limit_retries: u32,
    /// First failure since the last complete answer.
    failing_since: Option<Instant>,
    failures: Vec<(ModelRef, ProviderError)>,
}

impl Attempts {
    /// `candidates` in the order they are tried.
    pub fn new(candidates: Vec<Candidate>, patience: Patience) -> Self {
        Self {
            candidates,
            at: 0,
            patience,
            retries: 0,
            rate_limit_retries: 0,
            failing_since: None,
            failures: Vec::new(),
        }
    }

    /// Who is asked next, or has answered last.
    pub fn current(&self) -> Option<&Candidate> {
        self.candidates.get(self.at)
    }

    /// Asks once, with retries and fallbacks. Dropping the result hangs up.
    pub fn ask(&mut self, ask: Ask) -> Asking<'_> {
        Asking { attempts: self, ask, attempt: 0, state: State::Begin { at: Instant::now() } }
    }

    /// What to do about a failure of the current candidate; moves on to the next one if that is it, and `None` is to give up.
    /// For callers that drive the streams themselves, to cut the history per model say; [`Attempts::ask`] does all of it.
    pub fn after(&mut self, error: &ProviderError, now: Instant) -> Option<Next> {
        let model = self.current()?.model.reference.clone();
        let next = self.candidates.get(self.at + 1).map(|candidate| candidate.model.reference.clone());
        if let Some(after) = self.pause(error, next.is_some(), now) {
            return Some(Next::Retry { after });
        }
        self.failures.push((model, error.clone()));
        if matches!(error.kind, ErrorKind::ContextLength | ErrorKind::Cancelled) {
            return None;
        }
        self.at = if next.is_some() { self.at + 1 } else { self.at };
        (self.retries, self.rate_limit_retries, self.failing_since) = (0, 0, None);
        next.map(Next::Fallback)
    }

    /// The current candidate has answered completely.
    pub fn answered(&mut self) {
        self.failing_since = None;
        self.failures.clear();
    }

    /// How long to wait before the same candidate is asked again; `None` if it is not.
    fn pause(&mut self, error: &ProviderError, others: bool, now: Instant) -> Option<Duration> {
        if !error.kind.is_transient() {
            return None;
        }
        let patience = self.patience;
        let wish = error.retry_after.unwrap_or_default();
        if wish > if others { patience.longest_wish_before_fallback } else { patience.longest_wish } {
            return None;
        }
        let limited = error.kind == ErrorKind::RateLimit;
        let (spent, allowed) = if limited {
            (&mut self.rate_limit_retries, patience.rate_limit_retries)
        } else {
            (&mut self.retries, patience.retries)
        };
        let allowed = if others { allowed.min(patience.retries_before_fallback) } else { allowed };
        if *spent >= allowed {
            return None;
        }
        let pause = backoff(patience, *spent, random()).max(wish);
        *spent += 1;
        let since = *self.failing_since.get_or_insert(now);
        let in_time = limited || now.duration_since(since) + pause <= patience.window;
        in_time.then_some(pause)
    }

    /// What to say when nobody is left: the last error, and those of the others when several were asked.
    pub fn give_up(&mut self, error: ProviderError) -> ProviderError {
        let failures = std::mem::take(&mut self.failures);
        if failures.len() < 2 || matches!(error.kind, ErrorKind::ContextLength | ErrorKind::Cancelled) {
            return error;
        }
        let each: Vec<String> = failures.iter().map(|(model, error)| format!("{model}: {}", error.message)).collect();
        let message = format!("None of {} models has answered. {}", each.len(), each.join(" | "));
        ProviderError { message, ..error }
    }
}

/// One ask under way. [`Asking::next`] is cancel safe.
pub struct Asking<'a> {
    attempts: &'a mut Attempts,
    ask: Ask,
    attempt: u32,
    state: State,
}

enum State {
    Begin { at: Instant },
    Streaming(BoxStream<'static, Result<Delta, ProviderError>>),
    Done,
}

impl Asking<'_> {
    /// The next step. `None` after [`Delta::Stopped`] or an error, which is the last word on all candidates.
    pub async fn next(&mut self) -> Option<Result<Step, ProviderError>> {
        let error = match &mut self.state {
            State::Done => return None,
            State::Begin { at } => {
                tokio::time::sleep_until(*at).await;
                return Some(self.begin());
            }
            State::Streaming(stream) => match stream.next().await {
                Some(Ok(delta)) => {
                    if matches!(delta, Delta::Stopped(_)) {
                        self.state = State::Done;
                        self.attempts.answered();
                    }
                    return Some(Ok(Step::Delta(delta)));
                }
                Some(Err(error)) => error,
                None => ProviderError {
                    kind: ErrorKind::Unavailable,
                    message: "the answer ended before its end".to_owned(),
                    retry_after: None,
                },
            },
        };
        let now = Instant::now();
        let Some(next) = self.attempts.after(&error, now) else {
            self.state = State::Done;
            return Some(Err(self.attempts.give_up(error)));
        };
        let pause = if let Next::Retry { after } = next { after } else { Duration::ZERO };
        self.state = State::Begin { at: now + pause };
        Some(Ok(Step::Discarded { error, next }))
    }

    fn begin(&mut self) -> Result<Step, ProviderError> {
        let Some(candidate) = self.attempts.current() else {
            self.state = State::Done;
            let message = "there is no model to ask; `openclaw models list` shows those there are".to_owned();
            return Err(ProviderError { kind: ErrorKind::Invalid, message, retry_after: None });
        };
        self.attempt += 1;
        let model = candidate.model.reference.clone();
        let stream = candidate.provider.stream(Request {
            model: Arc::clone(&candidate.model),
            system: self.ask.system.clone(),
            messages: Arc::clone(&self.ask.messages),
            tools: Arc::clone(&self.ask.tools),
            thinking: self.ask.thinking,
            max_tokens: self.ask.max_tokens,
        });
        self.state = State::Streaming(stream);
        Ok(Step::Asking { model, attempt: self.attempt })
    }
}

/// The pause after `retries` retries: doubled each time, spread over ±25 % so that many who failed together do not come back
/// together. `random` is in 0..1.
fn backoff(patience: Patience, retries: u32, random: f64) -> Duration {
    let full = patience.first_pause.saturating_mul(2_u32.saturating_pow(retries)).min(patience.longest_pause);
    full.mul_f64(0.75 + random / 2.0)
}

/// In 0..1. Without randomness from the system everybody waits the middle.
fn random() -> f64 {
    getrandom::u32().map_or(0.5, |n| f64::from(n) / (f64::from(u32::MAX) + 1.0))
}

#[cfg(test)]
mod tests;
