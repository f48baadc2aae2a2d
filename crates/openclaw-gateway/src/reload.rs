//! Config changes on disk, put in force without a restart: read, validate whole, swap. What does not validate changes
//! nothing and is said once.

use std::{path::PathBuf, sync::Arc, time::Duration};

use notify::{RecursiveMode, Watcher as _};
use openclaw_config::document::Document;
use openclaw_protocol::{CloseReason, event};
use serde_json::json;
use tokio::sync::mpsc;

use crate::{clock::now_ms, gateway::Gateway, health, run, runtime::Runtime};

/// Editors write a file in several steps; changes within this time are one change.
const SETTLE: Duration = Duration::from_millis(150);

/// Watches the config file until the gateway ends.
pub async fn watch(gateway: Arc<Gateway>) {
    let (changed, mut changes) = mpsc::channel(1);
    let config = gateway.paths.config_file.clone();
    // The directory is watched, not the file: an atomic write replaces the file.
    let directory = config.parent().map_or_else(|| PathBuf::from("."), PathBuf::from);
    let relevant = [config.clone(), gateway.paths.dotenv()];
    let watcher = notify::recommended_watcher(move |happened: notify::Result<notify::Event>| {
        let ours = happened.is_ok_and(|event| {
            !event.kind.is_access() && event.paths.iter().any(|path| relevant.contains(path) || is_include(path))
        });
        if ours {
            // Full means a reload is already due.
            let _ = changed.try_send(());
        }
    });
    let mut watcher = match watcher {
        Ok(watcher) => watcher,
        Err(error) => return tracing::warn!("config changes will need a restart: no file watching here ({error})"),
    };
    if let Err(error) = watcher.watch(&directory, RecursiveMode::NonRecursive) {
        return tracing::warn!("config changes will need a restart: cannot watch {} ({error})", directory.display());
    }
    let mut rejected = None;
    loop {
        tokio::select! {
            () = gateway.cancel.cancelled() => return,
            heard = changes.recv() => if heard.is_none() { return },
        }
        tokio::time::sleep(SETTLE).await;
        while changes.try_recv().is_ok() {}
        let found = Document::load(&gateway.paths, &gateway.env).map(|document| document.revision().to_owned()).ok();
        // Already in force (a write over RPC reloads by itself), or already refused.
        if found.is_some() && (found.as_ref() == Some(&gateway.runtime.load().revision) || found == rejected) {
            continue;
        }
        // What failed has been said; the settings in force stay.
        rejected = reload(&gateway).await.err().and(found);
    }
}

fn is_include(path: &std::path::Path) -> bool {
    path.extension().is_some_and(|extension| matches!(extension.to_str(), Some("json" | "json5")))
}

/// Reads the config again and puts what can change at run time in force.
///
/// # Errors
/// Why the config on disk was not taken; the settings in force are unchanged.
pub async fn reload(gateway: &Arc<Gateway>) -> Result<(), String> {
    let worker = Arc::clone(gateway);
    // Secret references may run programs; that must not hold up connections.
    let built = tokio::task::spawn_blocking(move || build(&worker)).await;
    let outcome = built.map_err(|error| error.to_string()).and_then(|built| built);
    match outcome {
        Ok((runtime, hash)) => {
            swap(gateway, runtime);
            gateway.set_reload_rejected(false);
            tracing::info!("config reloaded");
            let path = gateway.paths.config_file.display().to_string();
            gateway.hub.broadcast(event::CONFIG_CHANGED, &json!({"path": path, "hash": hash, "ts": now_ms()}));
            health::refresh(gateway);
            Ok(())
        }
        Err(reason) => {
            gateway.set_reload_rejected(true);
            tracing::error!("the config on disk was not taken; the settings in force stay: {reason}");
            health::refresh(gateway);
            Err(reason)
        }
    }
}

fn build(gateway: &Gateway) -> Result<(Runtime, String), String> {
    let mut loaded =
        run::load_settings(&gateway.paths, &gateway.env, &gateway.flags).map_err(|error| error.to_string())?;
    // Listeners are settled at start; what they speak does not follow the file before a restart.
    loaded.runtime.policy.names.tls = gateway.tls.is_some();
    openclaw_config::write::remember_good(&gateway.paths, &loaded.document);
    Ok((loaded.runtime, loaded.document.hash()))
}

/// Puts settings in force and ends connections that rest on a secret that is no longer the one.
fn swap(gateway: &Gateway, runtime: Runtime) {
    let generation = runtime.generation.clone();
    gateway.runtime.store(Arc::new(runtime));
    gateway.reloads.send_modify(|count| *count += 1);
    let closed = gateway.hub.abort_where(&CloseReason::AUTH_CHANGED, |connection| {
        connection.secret_generation.is_some() && connection.secret_generation != generation
    });
    if closed > 0 {
        tracing::info!("the shared secret changed: {closed} connections closed");
    }
}

/// Resolves secret references again (`secrets.reload`). Returns the number of warnings.
///
/// # Errors
/// The reason, when a required secret does not resolve; the secrets in force stay.
pub async fn reload_secrets(gateway: &Arc<Gateway>) -> Result<usize, String> {
    reload(gateway).await.map(|()| 0)
}
