//! Methods and their handlers. A handler can only be registered for a [`Method`] type, so it always has a name, an
//! authorisation class, parameters and a result.

use std::{collections::HashMap, future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;
use openclaw_protocol::{
    ErrorShape, Protocol, Role,
    frame::{error_response, ok_response, parse_params},
    method::{Access, Method},
};
use serde_json::value::RawValue;

use crate::{gateway::Gateway, hub::Connection};

/// What a handler knows of its surroundings: the gateway and the caller, never headers or addresses.
#[derive(Clone)]
pub struct Call {
    pub gateway: Arc<Gateway>,
    pub caller: Arc<Connection>,
}

/// A serialised payload or an error.
pub type Answer = Result<Bytes, ErrorShape>;

/// How a request is answered.
pub enum Outcome {
    /// At once, in the connection's own turn.
    Now(Answer),
    /// Later; the work belongs to the gateway and outlives the socket.
    Later(Pin<Box<dyn Future<Output = Answer> + Send>>),
    /// Now, and once more later.
    Twice(Bytes, Pin<Box<dyn Future<Output = Answer> + Send>>),
    /// Later, as often as the work sees fit.
    Replies(Box<dyn FnOnce(Replies) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>),
}

/// Answers one request, more than once if its method is such. What is sent after an answer is heard after it.
#[derive(Clone)]
pub struct Replies {
    caller: Arc<Connection>,
    id: Arc<str>,
}

impl Replies {
    pub fn new(caller: Arc<Connection>, id: &str) -> Self {
        Self { caller, id: id.into() }
    }

    pub fn send(&self, answer: Answer) {
        match answer {
            Ok(payload) => self.caller.outbound.push(ok_response(&self.id, &payload)),
            Err(error) => {
                self.caller.outbound.push(error_response(&self.id, &error.for_protocol(self.caller.protocol)))
            }
        }
    }
}

/// What a handler gives that may answer twice: "accepted" at once, and the result when there is one.
pub struct TwoAnswers<F> {
    pub first: Option<Bytes>,
    pub then: F,
}

type Handler = Box<dyn Fn(Call, Option<&RawValue>) -> Outcome + Send + Sync>;

struct Entry {
    access: Access,
    /// The last protocol version that has the method.
    last: Protocol,
    advertised: bool,
    handler: Handler,
}

/// The table of methods.
#[derive(Default)]
pub struct Registry {
    entries: HashMap<&'static str, Entry>,
}

impl Registry {
    /// Registers a handler that answers at once and neither blocks nor waits.
    pub fn on<M: Method>(
        &mut self,
        handler: impl Fn(&Call, M::Params) -> Result<M::Result, ErrorShape> + Send + Sync + 'static,
    ) -> &mut Self {
        self.insert::<M>(Box::new(move |call, params| {
            let answer = parse_params(M::NAME, params).and_then(|params| handler(&call, params));
            Outcome::Now(answer.and_then(|result| to_bytes(&result)))
        }))
    }

    /// Registers a handler whose payload is already serialised (a shared snapshot).
    pub fn on_shared<M: Method>(
        &mut self,
        handler: impl Fn(&Call, M::Params) -> Answer + Send + Sync + 'static,
    ) -> &mut Self {
        self.insert::<M>(Box::new(move |call, params| {
            Outcome::Now(parse_params(M::NAME, params).and_then(|params| handler(&call, params)))
        }))
    }

    /// Registers a handler that waits for a disk, a process or a peer.
    pub fn on_async<M, F>(&mut self, handler: impl Fn(Call, M::Params) -> F + Send + Sync + 'static) -> &mut Self
    where
        M: Method,
        F: Future<Output = Result<M::Result, ErrorShape>> + Send + 'static,
    {
        self.insert::<M>(Box::new(move |call, params| match parse_params::<M::Params>(M::NAME, params) {
            Err(error) => Outcome::Now(Err(error)),
            Ok(params) => {
                let work = handler(call, params);
                Outcome::Later(Box::pin(async move { work.await.and_then(|result| to_bytes(&result)) }))
            }
        }))
    }

    /// Registers a handler that waits and may answer twice. What it does before it waits happens in the connection's own
    /// turn.
    pub fn on_twice<M, F>(
        &mut self,
        handler: impl Fn(Call, M::Params) -> Result<TwoAnswers<F>, ErrorShape> + Send + Sync + 'static,
    ) -> &mut Self
    where
        M: Method,
        F: Future<Output = Result<M::Result, ErrorShape>> + Send + 'static,
    {
        self.insert::<M>(Box::new(move |call, params| {
            let started = parse_params::<M::Params>(M::NAME, params).and_then(|params| handler(call, params));
            match started {
                Err(error) => Outcome::Now(Err(error)),
                Ok(TwoAnswers { first, then }) => {
                    let then = Box::pin(async move { then.await.and_then(|result| to_bytes(&result)) });
                    match first {
                        Some(first) => Outcome::Twice(first, then),
                        None => Outcome::Later(then),
                    }
                }
            }
        }))
    }

    /// Registers a handler that waits, answers when it likes, and goes on then: so that what it starts is heard after the
    /// answer.
    pub fn on_replies<M, F>(
        &mut self,
        handler: impl Fn(Call, M::Params, Replies) -> F + Clone + Send + Sync + 'static,
    ) -> &mut Self
    where
        M: Method,
        F: Future<Output = ()> + Send + 'static,
    {
        self.insert::<M>(Box::new(move |call, params| match parse_params::<M::Params>(M::NAME, params) {
            Err(error) => Outcome::Now(Err(error)),
            Ok(params) => {
                let handler = handler.clone();
                Outcome::Replies(Box::new(move |replies| Box::pin(handler(call, params, replies))))
            }
        }))
    }

    /// Registers a handler that waits and whose payload is already serialised (passed through from a peer).
    pub fn on_async_shared<M, F>(&mut self, handler: impl Fn(Call, M::Params) -> F + Send + Sync + 'static) -> &mut Self
    where
        M: Method,
        F: Future<Output = Answer> + Send + 'static,
    {
        self.insert::<M>(Box::new(move |call, params| match parse_params::<M::Params>(M::NAME, params) {
            Err(error) => Outcome::Now(Err(error)),
            Ok(params) => Outcome::Later(Box::pin(handler(call, params))),
        }))
    }

    fn insert<M: Method>(&mut self, handler: Handler) -> &mut Self {
        let entry = Entry { access: M::ACCESS, last: M::LAST, advertised: M::ADVERTISED, handler };
        let replaced = self.entries.insert(M::NAME, entry);
        debug_assert!(replaced.is_none(), "{} is registered twice", M::NAME);
        self
    }

    /// The names for `features.methods`, sorted: what works in the newest protocol version, but for the few that the
    /// reference answers and does not name. What only an older version has is answered there, and not advertised.
    pub fn names(&self) -> Vec<&'static str> {
        let current = self.entries.iter().filter(|(_, entry)| entry.last == Protocol::MAX && entry.advertised);
        let mut names: Vec<_> = current.map(|(name, _)| *name).collect();
        names.sort_unstable();
        names
    }

    /// Name and authorisation class of every method, for the scope matrix test.
    pub fn table(&self) -> Vec<(&'static str, Access)> {
        let mut table: Vec<_> = self.entries.iter().map(|(name, entry)| (*name, entry.access)).collect();
        table.sort_unstable_by_key(|(name, _)| *name);
        table
    }

    /// Runs a request: role, then scope, then parameters, then the handler.
    pub fn call(&self, call: Call, method: &str, params: Option<&RawValue>) -> Dispatched {
        let caller = &call.caller;
        let Some(entry) = self.entries.get(method).filter(|entry| caller.protocol <= entry.last) else {
            return Dispatched::Unknown;
        };
        match (entry.access, caller.role) {
            (Access::Any, _) | (Access::Node, Role::Node) => {}
            (Access::Node, Role::Operator) | (Access::Operator(_), Role::Node) => return Dispatched::WrongRole,
            (Access::Operator(scope), Role::Operator) if !caller.scopes.grants(scope) => {
                let error = ErrorShape::missing_scope(scope);
                return Dispatched::Answered(Outcome::Now(Err(error.for_protocol(caller.protocol))));
            }
            (Access::Operator(_), Role::Operator) => {}
        }
        Dispatched::Answered((entry.handler)(call, params))
    }
}

/// What became of a request.
pub enum Dispatched {
    Answered(Outcome),
    Unknown,
    WrongRole,
}

/// The texts for the two ways a call misses.
pub fn wrong_role(role: Role, protocol: Protocol) -> ErrorShape {
    ErrorShape::invalid(format!("unauthorized role: {role}")).for_protocol(protocol)
}

/// A payload as it goes out.
///
/// # Errors
/// `UNAVAILABLE` when it does not serialise.
pub fn to_bytes(value: &impl serde::Serialize) -> Answer {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .map_err(|error| ErrorShape::unavailable(format!("the answer could not be serialised: {error}")))
}
