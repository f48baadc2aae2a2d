//! Requests of one authenticated connection: parse, budget, dispatch, answer.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use openclaw_protocol::{
    CloseReason, ErrorShape,
    frame::{FrameError, error_response, ok_response, parse_request},
};

use super::ws::Incoming;
use crate::{
    gateway::Gateway,
    hub::Connection,
    rpc::registry::{Answer, Call, Dispatched, Outcome, Replies, wrong_role},
};

/// Slow requests one connection may have under way; more wait unread, so one client cannot crowd out the others.
const MAX_IN_FLIGHT: usize = 64;
/// Calls in the wrong role in a row before the connection is closed (handshake notes, section 2).
const MAX_WRONG_ROLE: u32 = 10;
/// Calls to unknown methods a connection may make per second on average, and at once.
const MISS_RATE_PER_S: f64 = 20.0;
const MISS_BURST: f64 = 100.0;

/// The request side of a connection.
pub struct Requests {
    gateway: Arc<Gateway>,
    caller: Arc<Connection>,
    in_flight: Arc<AtomicUsize>,
    wrong_role: u32,
    misses: f64,
    misses_at: std::time::Instant,
}

impl Requests {
    pub fn new(gateway: Arc<Gateway>, caller: Arc<Connection>) -> Self {
        Self {
            gateway,
            caller,
            in_flight: Arc::default(),
            wrong_role: 0,
            misses: MISS_BURST,
            misses_at: std::time::Instant::now(),
        }
    }

    /// True while another slow request may start.
    pub fn has_room(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) < MAX_IN_FLIGHT
    }

    /// Handles up to `turn` messages. Returns how to close, if the peer ended it or must be ended.
    pub fn take_turn(&mut self, inbox: &mut Vec<Incoming>, turn: usize) -> Option<CloseReason> {
        if inbox.is_empty() {
            return None;
        }
        let mut handled = 0;
        let mut end = None;
        for message in inbox.iter() {
            if handled == turn || !self.has_room() || self.caller.outbound.is_closing() {
                break;
            }
            handled += 1;
            end = match message {
                Incoming::Text(text) => self.request(text),
                Incoming::Binary => Some(CloseReason::UNSUPPORTED_DATA),
                Incoming::Alive => None,
                Incoming::Closed => Some(CloseReason::NORMAL),
            };
            if end.is_some() {
                break;
            }
        }
        inbox.drain(..handled);
        if inbox.is_empty() && inbox.capacity() > 16 {
            *inbox = Vec::new();
        }
        end
    }

    fn request(&mut self, text: &str) -> Option<CloseReason> {
        let request = match parse_request(text) {
            Ok(request) => request,
            Err(FrameError::NotJson) => {
                tracing::debug!(conn = %self.caller.id, bytes = text.len(), "ignored a frame that is not JSON");
                return None;
            }
            Err(FrameError::NotRequest { id, reason }) => {
                let error = ErrorShape::invalid(format!("invalid request frame: {reason}"));
                self.caller.outbound.push(error_response(id.as_deref().unwrap_or("invalid"), &error));
                return None;
            }
        };
        if request.method == "connect" {
            let error = ErrorShape::invalid(
                "connect is only valid as the first request; open a new connection to change rights",
            );
            self.caller.outbound.push(error_response(&request.id, &error));
            return None;
        }
        let call = Call { gateway: Arc::clone(&self.gateway), caller: Arc::clone(&self.caller) };
        match self.gateway.registry.call(call, &request.method, request.params) {
            Dispatched::Answered(Outcome::Now(answer)) => {
                self.wrong_role = 0;
                reply(&self.caller, &request.id, answer);
            }
            Dispatched::Answered(Outcome::Later(work)) => {
                self.wrong_role = 0;
                self.spawn(request.id.into_owned(), work);
            }
            Dispatched::Answered(Outcome::Twice(first, work)) => {
                self.wrong_role = 0;
                reply(&self.caller, &request.id, Ok(first));
                self.spawn(request.id.into_owned(), work);
            }
            Dispatched::Answered(Outcome::Replies(work)) => {
                self.wrong_role = 0;
                let work = work(Replies::new(Arc::clone(&self.caller), &request.id));
                let (caller, in_flight) = (Arc::clone(&self.caller), Arc::clone(&self.in_flight));
                in_flight.fetch_add(1, Ordering::Relaxed);
                self.gateway.tracker.spawn(async move {
                    let place = InFlight(in_flight);
                    work.await;
                    drop(place);
                    caller.outbound.nudge();
                });
            }
            Dispatched::Unknown => {
                let error = if self.charge_miss() {
                    ErrorShape::unknown_method(&request.method)
                } else {
                    ErrorShape::retry_later("too many unknown methods; retry later", 1_000)
                };
                self.caller.outbound.push(error_response(&request.id, &error));
            }
            Dispatched::WrongRole => {
                self.wrong_role += 1;
                let error = wrong_role(self.caller.role, self.caller.protocol);
                self.caller.outbound.push(error_response(&request.id, &error));
                if self.wrong_role > MAX_WRONG_ROLE {
                    return Some(CloseReason::REPEATED_UNAUTHORIZED);
                }
            }
        }
        None
    }

    fn spawn(&self, id: String, work: std::pin::Pin<Box<dyn Future<Output = Answer> + Send>>) {
        let (caller, in_flight) = (Arc::clone(&self.caller), Arc::clone(&self.in_flight));
        in_flight.fetch_add(1, Ordering::Relaxed);
        self.gateway.tracker.spawn(async move {
            let place = InFlight(in_flight);
            let answer = work.await;
            // The place is free before the reply wakes the connection, which then looks for room.
            drop(place);
            reply(&caller, &id, answer);
        });
    }

    fn charge_miss(&mut self) -> bool {
        let now = std::time::Instant::now();
        let refill = now.duration_since(self.misses_at).as_secs_f64() * MISS_RATE_PER_S;
        self.misses_at = now;
        self.misses = (self.misses + refill).min(MISS_BURST);
        if self.misses < 1.0 {
            return false;
        }
        self.misses -= 1.0;
        true
    }
}

/// Gives the place back even when the work panics.
struct InFlight(Arc<AtomicUsize>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn reply(caller: &Connection, id: &str, answer: Answer) {
    match answer {
        Ok(payload) => caller.outbound.push(ok_response(id, &payload)),
        Err(error) => caller.outbound.push(error_response(id, &error.for_protocol(caller.protocol))),
    }
}
