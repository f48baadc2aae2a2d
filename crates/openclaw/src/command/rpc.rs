//! A call to the gateway for commands that ask a few things and end.

use std::time::Duration;

use openclaw_remote::{
    Error as RemoteError, Link,
    connect::{DeviceUse, Persona},
};
use serde_json::Value;

use crate::{failure::Failure, output::inert, reach::Reach};

pub const READ: &str = "operator.read";
pub const WRITE: &str = "operator.write";
pub const ADMIN: &str = "operator.admin";
pub const APPROVALS: &str = "operator.approvals";

/// An open connection with the least scopes that were needed so far.
pub struct Rpc<'a> {
    pub reach: Reach<'a>,
    link: Link,
    scopes: Vec<String>,
}

impl<'a> Rpc<'a> {
    pub async fn open(reach: Reach<'a>, scopes: &[&str]) -> Result<Self, Failure> {
        match reach.open(Persona::Cli, scopes, DeviceUse::WhenNeeded).await {
            Ok(link) => {
                let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
                Ok(Self { reach, link, scopes })
            }
            Err(error) => Err(reach.failure(&error)),
        }
    }

    /// Whether the gateway says that it has a method. One that says nothing is asked.
    pub fn has(&self, method: &str) -> bool {
        let methods = &self.link.hello().features.methods;
        methods.is_empty() || methods.iter().any(|known| known == method)
    }

    /// # Errors
    /// A clear word when the gateway has no such method; `what` says what it would have done.
    pub fn need(&self, method: &str, what: &str) -> Result<(), Failure> {
        if self.has(method) {
            return Ok(());
        }
        Err(lacking(method, what, &self.link.hello().server.version))
    }

    pub async fn call(&mut self, method: &str, params: Value) -> Result<Value, Failure> {
        let limit = self.reach.timeout();
        self.call_within(method, params, limit).await
    }

    pub async fn call_within(&mut self, method: &str, params: Value, limit: Duration) -> Result<Value, Failure> {
        let answer = self.ask(method, params, limit).await;
        answer.map_err(|error| self.reach.failure(&error))
    }

    /// The same with the error itself. A call that was refused for a scope did nothing, so it is made once more with that
    /// scope.
    pub async fn ask(&mut self, method: &str, params: Value, limit: Duration) -> Result<Value, RemoteError> {
        let answer = self.link.call(method, Some(params.clone()), limit).await;
        let Err(RemoteError::Scope { missing, .. }) = &answer else { return answer };
        if !missing.starts_with("operator.") || self.scopes.contains(missing) {
            return answer;
        }
        let mut scopes = self.scopes.clone();
        scopes.push(missing.clone());
        let wanted: Vec<&str> = scopes.iter().map(String::as_str).collect();
        self.link = self.reach.open(Persona::Cli, &wanted, DeviceUse::WhenNeeded).await?;
        self.scopes = scopes;
        self.link.call(method, Some(params), limit).await
    }

    pub async fn close(self) {
        self.link.close().await;
    }
}

/// A gateway that lacks a method, in words.
pub fn lacking(method: &str, what: &str, version: &str) -> Failure {
    Failure::new(format!("This gateway cannot {what}: it has no method {method}."))
        .detail(format!("It calls itself {}; nothing was changed.", inert(version)))
        .error_code("method-not-supported")
}

/// A key nobody used before: by it the gateway knows a call again.
pub fn fresh_key() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::new(format!("The system gives no random numbers: {error}.")))?;
    Ok(openclaw_protocol::secret::hex(&bytes))
}
