//! The node host: one connection in the node role, kept for ever.
//!
//! ```text
//!        ┌──────────────── lost, unavailable: wait (1 s … 30 s) ───────────────┐
//!        v                                                                     │
//!   login ── hello ──> serve: requests in, results out, stats every minute ────┘
//!        │  pairing required: tell what to approve, ask again every 5 s
//!        └─ wrong secret, revoked, another gateway, no common protocol ──> stop, and say what to do
//! ```
//!
//! Tasks: one per request under way, and one for what is published after hello. All of them end with the connection,
//! since nobody would hear their results; the programs they run end with them.

mod backoff;
mod invocation;
mod login;
mod publish;
mod serve;
mod verdict;

use std::{sync::Arc, time::Duration};

use openclaw_protocol::GatewayId;
use openclaw_remote::{Deadline, Error, connect::DeviceStore};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

pub use login::{Home, Identity, Link};
pub use verdict::advice;

use crate::command::Toolbox;
use backoff::Backoff;
use login::Era;
use verdict::Next;

/// Time for one attempt over one path.
const PATIENCE: Duration = Duration::from_secs(20);

/// A node host.
pub struct Host {
    pub home: Home,
    pub identity: Identity,
    pub toolbox: Arc<Toolbox>,
    pub store: Arc<dyn DeviceStore + Send + Sync>,
}

/// What happens to a node, for the person or the log it runs for.
#[derive(Debug)]
pub enum Told<'a> {
    Connected {
        link: &'a Link,
        gateway: Option<&'a GatewayId>,
    },
    /// The connection ended.
    Lost {
        why: String,
    },
    /// An attempt failed; the next one comes in `again`.
    Failed {
        error: &'a Error,
        again: Duration,
    },
    /// The owner has to approve this device. Told once for each request.
    ApproveDevice {
        error: &'a Error,
    },
    /// The owner has to approve what this node offers. Told once for each request; the id where the gateway names it.
    ApproveCommands {
        request: Option<String>,
    },
    /// The owner decided about what this node offers.
    CommandsDecided {
        approved: bool,
    },
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Hears of it. Called from the host's own task; it must not block for long.
pub type Tell<'a> = &'a (dyn Fn(Told<'_>) + Sync);

impl Host {
    /// Runs until `stop`, or until trying again would change nothing.
    ///
    /// # Errors
    /// Why it stopped; [`advice`] knows what to do about it.
    pub async fn run(&self, stop: &CancellationToken, tell: Tell<'_>) -> Result<(), Error> {
        let (era, mut backoff) = (Era::default(), Backoff::default());
        let mut told_request: Option<String> = None;
        loop {
            let outcome = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                outcome = self.connect(&era) => outcome,
            };
            let wait = match outcome {
                Ok((link, events)) => {
                    told_request = None;
                    tell(Told::Connected { gateway: link.client.gateway_id(), link: &link });
                    let since = Instant::now();
                    let why = serve::serve(self, link, events, stop, tell).await;
                    if stop.is_cancelled() {
                        return Ok(());
                    }
                    tell(Told::Lost { why });
                    if since.elapsed() >= backoff::STABLE {
                        backoff.reset();
                    }
                    backoff.next(backoff::random())
                }
                Err(error) => match verdict::of(&error) {
                    Next::Stop => return Err(error),
                    Next::AwaitApproval => {
                        let request = request_of(&error);
                        if told_request != request {
                            told_request = request;
                            tell(Told::ApproveDevice { error: &error });
                        }
                        verdict::PAIRING_POLL
                    }
                    next => {
                        let again = backoff.next(backoff::random());
                        let again = if let Next::RetryAfter(at_least) = next { again.max(at_least) } else { again };
                        tell(Told::Failed { error: &error, again });
                        again
                    }
                },
            };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = wait_awake(wait) => {}
            }
        }
    }

    /// The id by which the gateway knows this node: that of its key.
    fn node_id(&self) -> String {
        self.store.key(false).ok().flatten().map(|key| key.id().to_string()).unwrap_or_default()
    }

    /// Tries every path once. What the gateway itself says ends it, since every path leads to the same one.
    async fn connect(&self, era: &Era) -> Result<(Link, openclaw_remote::Events), Error> {
        let mut first = None;
        for path in &self.home.route.paths {
            let deadline = Deadline::after(PATIENCE);
            match login::open(&self.home, path, &self.identity, &*self.store, era, deadline).await {
                Ok(connected) => return Ok(connected),
                Err(error) if error.reached_gateway() => return Err(error),
                Err(error) => {
                    tracing::debug!(path = path.label(), %error, "no way there");
                    first.get_or_insert(error);
                }
            }
        }
        Err(first.unwrap_or_else(|| Error::Identity("the gateway has no address".to_owned())))
    }
}

/// The id of the request that waits; an empty one stands for a gateway that keeps it to itself.
fn request_of(error: &Error) -> Option<String> {
    match error {
        Error::Pairing(pairing) => Some(pairing.request_id.clone().unwrap_or_default()),
        _ => None,
    }
}

/// Waits, but not through a sleep of the machine: whoever wakes up tries at once.
async fn wait_awake(wait: Duration) {
    let mut clock = serve::WakeWatch::new();
    tokio::select! {
        () = sleep(wait) => {}
        () = clock.woke() => {}
    }
}
