//! Which models the config in force has: read at start and after every reload, away from the runtime's threads, because
//! reading keys may run programs.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use arc_swap::ArcSwap;
use openclaw_agent::{
    provider::{
        ModelRef, Thinking,
        catalog::{Catalog, NoModel},
    },
    turn::Candidate,
};
use tokio::sync::Notify;

use crate::gateway::Gateway;

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Models {
    catalog: ArcSwap<Catalog>,
    problems: ArcSwap<Vec<String>>,
    read: AtomicBool,
    first: Notify,
}

/// Whom a run asks.
#[derive(Clone)]
pub struct Chosen {
    /// In the order they are tried; at least one.
    pub candidates: Vec<Candidate>,
    pub requested: ModelRef,
    /// When nobody says how hard it thinks.
    pub thinking: Thinking,
}

impl Models {
    /// What there is. Empty until it was read for the first time.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalog.load_full()
    }

    /// What in the config keeps models from being used, for `status`.
    pub fn problems(&self) -> Arc<Vec<String>> {
        self.problems.load_full()
    }

    /// Which API a model is spoken to in, as `models.providers.<id>.api` names it.
    pub fn api_of(&self, model: &ModelRef) -> Option<String> {
        self.catalog().provider(&model.provider)?.api.map(|api| api.as_str().to_owned())
    }

    /// Waits until the config was read once.
    pub async fn ready(&self) {
        loop {
            let read = self.first.notified();
            if self.read.load(Ordering::Acquire) {
                return;
            }
            read.await;
        }
    }

    /// Whom `agent` asks; `wanted` is what a person chose (an alias, `provider/model`, or a bare id).
    ///
    /// # Errors
    /// Why there is nobody to ask, and what to type.
    pub async fn choose(&self, agent: &str, wanted: Option<&str>) -> Result<Chosen, String> {
        self.ready().await;
        let catalog = self.catalog();
        let text = |error: NoModel| error.to_string();
        let candidates = match wanted {
            None => catalog.for_agent(agent).map_err(text)?,
            Some(wanted) => {
                let model = catalog.resolve(wanted).ok_or_else(|| NoModel::Unknown(wanted.to_owned()).to_string())?;
                catalog.allowed(agent, &model).map_err(|error| error.to_string())?;
                catalog.exactly(&model).map_err(text)?
            }
        };
        let first = candidates.first().ok_or_else(|| NoModel::Unset.to_string())?;
        let requested = first.model.reference.clone();
        let thinking = catalog.thinking(agent, &requested);
        Ok(Chosen { candidates, requested, thinking })
    }
}

/// Reads the config in force.
pub async fn refresh(gateway: &Arc<Gateway>) {
    let worker = Arc::clone(gateway);
    let read = tokio::task::spawn_blocking(move || {
        let config = Arc::clone(&worker.runtime.load().config);
        worker.runs.models.catalog.load().reread(&config, &worker.env, &worker.paths)
    });
    let models = &gateway.runs.models;
    match read.await {
        Ok((catalog, problems)) => {
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            if problems != **models.problems.load() {
                problems.iter().for_each(|problem| tracing::warn!("models: {problem}"));
            }
            models.catalog.store(Arc::new(catalog));
            models.problems.store(Arc::new(problems));
        }
        Err(error) => tracing::error!(%error, "the models of the config were not read; those before stay"),
    }
    models.read.store(true, Ordering::Release);
    models.first.notify_waiters();
}

/// Reads it at start and after every reload, until the gateway stops.
pub async fn watch(gateway: Arc<Gateway>) {
    let mut reloads = gateway.reloads.subscribe();
    loop {
        reloads.mark_unchanged();
        refresh(&gateway).await;
        gateway.hub.broadcast(openclaw_protocol::event::CHAT_METADATA_CHANGED, &serde_json::json!({}));
        tokio::select! {
            () = gateway.cancel.cancelled() => return,
            changed = reloads.changed() => if changed.is_err() { return },
        }
    }
}
