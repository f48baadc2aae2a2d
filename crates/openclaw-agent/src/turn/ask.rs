//! One round: ask a model, gather what it says; ask again or elsewhere when that fails.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use serde_json::Value;
use tokio::time::Instant;

use super::{Candidate, Event, How, Sink, State};
use crate::{
    message::{Message, Part, Role, ToolCall},
    prompt,
    provider::{Delta, ErrorKind, ModelRef, ProviderError, Request, Stop, attempt::Next},
    usage::Usage,
};

/// How often a history that is too long after all is cut further.
const SQUEEZES: u32 = 3;
/// Calls of one answer; more are an answer gone wild.
const MAX_CALLS: usize = 64;
/// Bytes of one answer, arguments included: 8 MiB, far above any model's output.
const MAX_BYTES: usize = 8 << 20;

/// A complete answer.
pub(super) struct Reply {
    pub message: Message,
    model: ModelRef,
    response_model: Option<String>,
    response_id: Option<String>,
    usage: Usage,
    pub stop: Stop,
}

impl Reply {
    pub(super) fn into_event(self) -> Event {
        let Self { message, model, response_model, response_id, usage, stop } = self;
        Event::Assistant { message, model, response_model, response_id, usage, stop }
    }
}

impl State {
    /// Asks until somebody answers. On an error [`State::last`] holds what the last attempt said.
    pub(super) async fn ask(&mut self, sink: &mut dyn Sink) -> Result<Reply, How> {
        let (mut attempt, mut squeezes) = (0, 0);
        loop {
            let Some(Candidate { model, provider }) = self.attempts.current().cloned() else {
                return Err(How::Failed(ProviderError {
                    kind: ErrorKind::Invalid,
                    message: "there is no model to ask; `openclaw models list` shows those there are".to_owned(),
                    retry_after: None,
                }));
            };
            // A history that did not fit after all is cut to 7/10, and to 7/10 of that.
            let room = (0..squeezes).fold(prompt::room(&model, self.max_tokens), |room, _| room * 7 / 10);
            self.fit(room);
            attempt += 1;
            self.model = Some(model.reference.clone());
            self.last.clear();
            sink.event(Event::Asking { model: model.reference.clone(), attempt }).await?;
            let request = Request {
                model: Arc::clone(&model),
                system: self.system.clone(),
                messages: Arc::clone(&self.history),
                tools: Arc::clone(&self.specs),
                thinking: self.thinking,
                max_tokens: self.max_tokens,
            };
            let mut answer = Answer::default();
            let outcome = self.gather(provider.stream(request), &mut answer, sink).await;
            self.usage += answer.usage;
            let error = match outcome {
                Ok(stop) => {
                    self.attempts.answered();
                    return Ok(answer.finish(model.reference.clone(), stop));
                }
                Err(Failure::Ended(how)) => {
                    self.last = answer.parts();
                    return Err(how);
                }
                Err(Failure::Provider(error)) => error,
            };
            let next = if error.kind == ErrorKind::ContextLength && squeezes < SQUEEZES {
                squeezes += 1;
                Some(Next::Retry { after: Duration::ZERO })
            } else {
                self.attempts.after(&error, Instant::now())
            };
            tracing::info!(model = %model.reference, kind = ?error.kind, %error, ?next, "a model failed");
            let Some(next) = next else {
                self.last = answer.parts();
                return Err(How::Failed(self.attempts.give_up(error)));
            };
            let wait = if let Next::Retry { after } = next { after } else { Duration::ZERO };
            sink.event(Event::Discarded { error, next }).await?;
            self.pause(wait).await?;
        }
    }

    async fn pause(&self, wait: Duration) -> Result<(), How> {
        tokio::select! {
            biased;
            how = Self::cut_short(self.cancel.clone(), self.deadline) => Err(how),
            () = tokio::time::sleep(wait) => Ok(()),
        }
    }

    async fn gather(
        &self,
        mut stream: futures_util::stream::BoxStream<'static, Result<Delta, ProviderError>>,
        answer: &mut Answer,
        sink: &mut dyn Sink,
    ) -> Result<Stop, Failure> {
        let cut = Self::cut_short(self.cancel.clone(), self.deadline);
        tokio::pin!(cut);
        loop {
            let delta = tokio::select! {
                biased;
                how = &mut cut => return Err(Failure::Ended(how)),
                delta = stream.next() => delta,
            };
            let delta = match delta {
                Some(Ok(delta)) => delta,
                Some(Err(error)) => return Err(Failure::Provider(error)),
                None => return Err(garbage(ErrorKind::Unavailable, "the model's answer ended before its end")),
            };
            if let Delta::Stopped(stop) = delta {
                return Ok(stop);
            }
            if let Some(event) = answer.take(delta)? {
                sink.event(event).await?;
            }
        }
    }
}

enum Failure {
    Provider(ProviderError),
    Ended(How),
}

impl From<super::SinkFailed> for Failure {
    fn from(failed: super::SinkFailed) -> Self {
        Self::Ended(How::Sink(failed))
    }
}

fn garbage(kind: ErrorKind, message: &str) -> Failure {
    Failure::Provider(ProviderError { kind, message: message.to_owned(), retry_after: None })
}

/// An answer while it comes in.
#[derive(Default)]
struct Answer {
    pieces: Vec<Piece>,
    bytes: usize,
    usage: Usage,
    response_model: Option<String>,
    response_id: Option<String>,
}

enum Piece {
    Text(String),
    Thinking { text: String, signature: Option<String> },
    Call { index: u32, id: String, name: String, json: String },
}

impl Answer {
    fn take(&mut self, delta: Delta) -> Result<Option<Event>, Failure> {
        self.bytes += match &delta {
            Delta::Text(text)
            | Delta::Thinking(text)
            | Delta::Signature(text)
            | Delta::Arguments { json: text, .. } => text.len(),
            Delta::ToolCall { id, name, .. } => id.len() + name.len(),
            _ => 0,
        };
        if self.bytes > MAX_BYTES {
            return Err(garbage(ErrorKind::Garbage, "the model's answer is longer than 8 MiB"));
        }
        Ok(match delta {
            Delta::Started { model, response_id } => {
                self.response_model = model;
                self.response_id = response_id;
                None
            }
            Delta::Text(delta) => {
                match self.pieces.last_mut() {
                    Some(Piece::Text(text)) => text.push_str(&delta),
                    _ => self.pieces.push(Piece::Text(delta.clone())),
                }
                Some(Event::Text { delta })
            }
            Delta::Thinking(delta) => {
                match self.pieces.last_mut() {
                    Some(Piece::Thinking { text, signature: None }) => text.push_str(&delta),
                    _ => self.pieces.push(Piece::Thinking { text: delta.clone(), signature: None }),
                }
                Some(Event::Thinking { delta })
            }
            Delta::Signature(seal) => {
                match self.pieces.last_mut() {
                    Some(Piece::Thinking { signature, .. }) => {
                        signature.get_or_insert_default().push_str(&seal);
                    }
                    // A seal over thoughts that are kept from us.
                    _ => self.pieces.push(Piece::Thinking { text: String::new(), signature: Some(seal) }),
                }
                None
            }
            Delta::ToolCall { index, id, name } => {
                if self.pieces.iter().filter(|piece| matches!(piece, Piece::Call { .. })).count() >= MAX_CALLS {
                    return Err(garbage(ErrorKind::Garbage, "the model made more than 64 tool calls at once"));
                }
                self.pieces.push(Piece::Call { index, id, name, json: String::new() });
                None
            }
            Delta::Arguments { index: of, json: more } => {
                let call = self.pieces.iter_mut().rev().find_map(|piece| match piece {
                    Piece::Call { index, json, .. } if *index == of => Some(json),
                    _ => None,
                });
                let json =
                    call.ok_or_else(|| garbage(ErrorKind::Garbage, "arguments came for a call that was not begun"))?;
                json.push_str(&more);
                None
            }
            Delta::Usage(round) => {
                self.usage = round;
                Some(Event::Usage { round })
            }
            Delta::Stopped(_) => None,
        })
    }

    /// What was said so far, without calls that are not complete.
    fn parts(self) -> Vec<Part> {
        let said = self.pieces.into_iter().filter_map(|piece| match piece {
            Piece::Text(text) => Some(Part::Text(text)),
            Piece::Thinking { text, signature } => Some(Part::Thinking { text, signature }),
            Piece::Call { .. } => None,
        });
        said.collect()
    }

    fn finish(self, model: ModelRef, stop: Stop) -> Reply {
        let mut ids = std::collections::HashSet::new();
        let parts = self.pieces.into_iter().enumerate().map(|(at, piece)| match piece {
            Piece::Text(text) => Part::Text(text),
            Piece::Thinking { text, signature } => Part::Thinking { text, signature },
            Piece::Call { mut id, name, json, .. } => {
                // Some services give no ids, or one id to all.
                if id.is_empty() || !ids.insert(id.clone()) {
                    id = format!("call_{}_{at}", uuid::Uuid::new_v4().simple());
                }
                Part::ToolCall(ToolCall { id, name, arguments: parse_arguments(json) })
            }
        });
        let message = Message { role: Role::Assistant, parts: parts.collect() };
        Reply {
            message,
            model,
            response_model: self.response_model,
            response_id: self.response_id,
            usage: self.usage,
            stop,
        }
    }
}

/// No text at all is a call without arguments.
fn parse_arguments(json: String) -> Value {
    if json.trim().is_empty() {
        return Value::Object(serde_json::Map::new());
    }
    serde_json::from_str(&json).unwrap_or(Value::String(json))
}
