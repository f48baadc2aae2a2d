//! Groups that get another id, as Telegram's do when they become supergroups: their entry in the config moves along, or they
//! would fall silent.

use std::sync::Arc;

use openclaw_channels::section::{Section, normal};
use openclaw_config::{
    ConfigPath, Document,
    document::Node,
    write::{Edit, Editor, Options, SetMode},
};

use crate::{gateway::Gateway, reload};

/// Moves the entries. What cannot be written is told in the log; the message is done with either way.
pub async fn moved(gateway: &Arc<Gateway>, channel: &str, account: &str, from: &str, to: &str) {
    let (worker, channel, account) = (Arc::clone(gateway), channel.to_owned(), account.to_owned());
    let (old, new, id) = (from.to_owned(), to.to_owned(), channel.clone());
    let written = tokio::task::spawn_blocking(move || {
        let on_disk = Document::load(&worker.paths, &worker.env).map_err(|error| error.to_string())?;
        let edits = edits(&on_disk, &channel, &account, &old, &new)?;
        if edits.is_empty() {
            return Ok(false);
        }
        let options = Options { base_hash: Some(on_disk.hash()), ..Options::default() };
        let written = Editor::new(&worker.paths, &worker.env).apply(&edits, &options);
        written.map(|_| true).map_err(|error| error.to_string())
    });
    let outcome = match written.await {
        Ok(Ok(true)) => reload::reload(gateway).await,
        Ok(Ok(false)) => Ok(()),
        Ok(Err(why)) => Err(why),
        Err(_) => Err("internal error".to_owned()),
    };
    match outcome {
        Ok(()) => tracing::info!(channel = id, "the group {from} is now {to}"),
        Err(why) => tracing::warn!(
            channel = id,
            "the group {from} is now {to}; rename its entry in channels.{id}.groups by hand: {why}"
        ),
    }
}

/// The changes, for the channel's own list and the account's.
///
/// # Errors
/// The config says that it is not to be written from chats.
fn edits(document: &Document, channel: &str, account: &str, from: &str, to: &str) -> Result<Vec<Edit>, String> {
    let section = Section::new(document, channel, account);
    let root = document.get("channels").and_then(|channels| channels.entry(channel));
    let accounts = root.and_then(|root| root.entry("accounts")).and_then(Node::as_object).unwrap_or_default();
    let own = accounts.iter().find(|(name, _)| normal(name) == account);
    let base: ConfigPath = ["channels", channel].into_iter().map(str::to_owned).collect();
    let lists = [
        (section.root("groups"), base.child("groups")),
        (
            section.own("groups"),
            base.child("accounts").child(own.map_or(account, |(name, _)| name.as_str())).child("groups"),
        ),
    ];
    let mut edits = Vec::new();
    for (groups, path) in lists {
        let Some(entry) = groups.and_then(|groups| groups.entry(from)) else { continue };
        if groups.and_then(|groups| groups.entry(to)).is_none() {
            edits.push(Edit::Set { path: path.child(to), value: entry.to_value(), mode: SetMode::Set });
        }
        edits.push(Edit::Unset { path: path.child(from) });
    }
    if !edits.is_empty() && section.flag("configWrites") == Some(false) {
        return Err(format!("channels.{channel}.configWrites is false"));
    }
    Ok(edits)
}
