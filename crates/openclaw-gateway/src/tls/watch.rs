//! Takes a renewed certificate without a restart.
//!
//! The files are looked at once a second rather than watched: renewal programs replace links and directories of links,
//! sometimes on network file systems, and a look follows them all.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path, sync::Arc, time::Duration};

use openclaw_config::TlsFiles;

use crate::{clock::now_ms, gateway::Gateway};

use super::{Tls, TlsError};

/// Time between two looks, as OpenClaw.
const LOOK: Duration = Duration::from_secs(1);

/// What tells one content of a file from another without reading it; `None` for a file that is not there.
type Stamp = Option<(u64, u64, u64, i64, i64, i64)>;

fn stamp(path: &Path) -> Stamp {
    let meta = fs::metadata(path).ok()?;
    Some((meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec(), meta.ctime()))
}

fn stamps(files: &TlsFiles) -> Vec<Stamp> {
    [&files.certificate, &files.key].into_iter().chain(&files.ca).map(|path| stamp(path)).collect()
}

/// Decides when a change is complete: when two looks in a row see the same files, and these have not been tried yet.
#[derive(Debug, PartialEq, Eq)]
struct Watcher<T> {
    tried: T,
    last: T,
}

impl<T: PartialEq + Clone> Watcher<T> {
    fn new(seen: T) -> Self {
        Self { tried: seen.clone(), last: seen }
    }

    /// True when what is seen now should be loaded.
    fn look(&mut self, seen: T) -> bool {
        let settled = seen == self.last;
        self.last = seen;
        if settled && self.last != self.tried {
            self.tried = self.last.clone();
            return true;
        }
        false
    }
}

/// Watches the files until the gateway ends. `gateway.reload.mode: "off"` pauses it; what changed meanwhile is taken when
/// that ends.
pub async fn watch(gateway: Arc<Gateway>) {
    let Some(tls) = gateway.tls.clone() else { return };
    let mut watcher = Watcher::new(stamps(&tls.files));
    loop {
        tokio::select! {
            biased;
            () = gateway.cancel.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        if gateway.runtime.load().reload_off {
            continue;
        }
        let worker = Arc::clone(&tls);
        // A network file system may be slow to answer.
        let Ok(seen) = tokio::task::spawn_blocking(move || stamps(&worker.files)).await else { continue };
        if watcher.look(seen) {
            let worker = Arc::clone(&tls);
            let before = tls.certificate();
            match tokio::task::spawn_blocking(move || worker.renew()).await {
                Ok(outcome) => report(&tls, &before, outcome),
                Err(error) => tracing::error!("the certificate could not be looked at: {error}"),
            }
        }
    }
}

fn report(tls: &Tls, before: &openclaw_config::Certificate, outcome: Result<bool, TlsError>) {
    match outcome {
        Ok(false) => {}
        Ok(true) => {
            let now = tls.certificate();
            let pins = if now.key_fingerprint == before.key_fingerprint {
                "the key is the same, so pins of it hold"
            } else {
                "the key is new: every client that pins it has to be told"
            };
            tracing::info!("tls: renewed without a restart; certificate {} ({pins})", now.fingerprint);
            tls.warnings(now_ms() / 1000).iter().for_each(|warning| tracing::warn!("tls: {warning}"));
        }
        Err(error) => {
            tracing::warn!("tls: the files changed and cannot be used; the certificate in use stays: {error}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_taken_once_and_when_it_has_settled() {
        let mut watcher = Watcher::new("old");
        let mut check = |seen: &'static str, expected: bool| assert_eq!(watcher.look(seen), expected, "{seen}");
        check("old", false);
        check("half", false);
        check("new", false);
        check("new", true);
        check("new", false);
        check("old", false);
        check("old", true);
    }

    #[test]
    fn a_stamp_follows_links() {
        let dir = tempfile::tempdir().expect("dir");
        let path = |name: &str| dir.path().join(name);
        fs::write(path("a"), "one").expect("file");
        fs::write(path("b"), "two").expect("file");
        std::os::unix::fs::symlink(path("a"), path("live")).expect("link");
        assert_eq!(stamp(&path("live")), stamp(&path("a")));
        fs::remove_file(path("live")).expect("remove");
        std::os::unix::fs::symlink(path("b"), path("live")).expect("link");
        assert_eq!(stamp(&path("live")), stamp(&path("b")));
        assert_ne!(stamp(&path("a")), stamp(&path("b")));
        assert_eq!(stamp(&path("none")), None);
    }
}
