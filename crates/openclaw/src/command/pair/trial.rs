//! Trying the addresses of a code from here, before somebody walks off with it.

use std::time::Duration;

use openclaw_config::env;
use openclaw_protocol::SetupCode;
use openclaw_remote::{Client, Deadline, Endpoint, Fingerprint, GatewayUrl};
use tokio::task::JoinSet;

use crate::{context::Context, failure};

/// For all addresses together; they are tried at once.
const PATIENCE: Duration = Duration::from_secs(3);

/// One address, and why it does not lead to this gateway, if it does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    pub url: String,
    pub problem: Option<String>,
}

/// Asks every address who it is, as the code's bearer will: with its pin, and for the identity it names. The code itself is
/// shown to nobody.
pub async fn addresses(context: &Context, code: &SetupCode) -> Vec<Tried> {
    let allow_private_names = context.env.process_flag(env::OPENCLAW_ALLOW_INSECURE_PRIVATE_WS);
    let pin = code.tls_fingerprint.as_deref().and_then(|text| text.parse::<Fingerprint>().ok());
    let deadline = Deadline::after(PATIENCE);
    let mut trials = JoinSet::new();
    for (index, text) in code.urls.iter().cloned().enumerate() {
        let gateway = code.gateway_id.clone();
        trials.spawn(async move {
            let problem = match GatewayUrl::parse(&text) {
                Err(error) => Some(error.to_string()),
                Ok(url) => {
                    let pin = pin.filter(|_| url.is_secure());
                    let endpoint = Endpoint::Url { url, pin, allow_private_names, edge: Vec::new() };
                    let asked = Client::identify(&endpoint, deadline, gateway.as_ref()).await;
                    asked.err().map(|error| failure::reason(&error))
                }
            };
            (index, Tried { url: text, problem })
        });
    }
    let mut tried: Vec<(usize, Tried)> = Vec::new();
    while let Some(done) = trials.join_next().await {
        tried.extend(done.ok());
    }
    tried.sort_by_key(|(index, _)| *index);
    tried.into_iter().map(|(_, tried)| tried).collect()
}
