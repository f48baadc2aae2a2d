mod find;
mod keep;
mod lists;
mod spent;
mod travel;

use openclaw_agent::{message::Part, provider::ModelRef, usage::Usage};

use super::*;
use crate::store::Store;

/// A state database of its own.
pub(super) struct Place {
    dir: tempfile::TempDir,
    pub store: Store,
    pub sessions: Sessions,
}

impl Place {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        let store = Store::open(&dir.path().join("db.sqlite")).expect("opens");
        let sessions = Sessions::load(&store).expect("loads");
        Self { dir, store, sessions }
    }

    /// As after a restart of the process.
    pub fn again(self) -> Self {
        self.store.close();
        let store = Store::open(&self.dir.path().join("db.sqlite")).expect("opens again");
        let sessions = Sessions::load(&store).expect("loads again");
        Self { dir: self.dir, store, sessions }
    }

    pub fn file(&self) -> std::path::PathBuf {
        self.dir.path().join("db.sqlite")
    }

    pub async fn say(&self, key: &SessionKey, messages: impl IntoIterator<Item = NewMessage>) -> Committed {
        let mut draft = self.sessions.draft(key).await;
        for message in messages {
            draft.append(message).expect("fits");
        }
        draft.commit(Vec::new()).await.expect("saves")
    }
}

pub(super) fn key(text: &str) -> SessionKey {
    SessionKey::resolve(text, "main", "main").expect("a key")
}

pub(super) fn user(text: &str) -> NewMessage {
    NewMessage::user(&[Part::Text(text.into())])
}

pub(super) fn answered() -> Answered {
    Answered {
        model: ModelRef { provider: "fake".into(), model: "fake-model".into() },
        api: Some("openai-completions".into()),
        response_model: None,
        response_id: None,
        usage: Usage { input: 10, output: 5, ..Usage::default() },
        price: None,
        stop: StopReason::Stop,
        error: None,
    }
}

pub(super) fn assistant(text: &str) -> NewMessage {
    NewMessage::assistant(&[Part::Text(text.into())], &answered())
}
