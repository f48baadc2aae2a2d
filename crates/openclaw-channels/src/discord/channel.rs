//! Sending: [`Channel`] over the REST API.

use std::sync::PoisonError;

use futures_util::future::BoxFuture;

use super::{Discord, ID, Shared, api, policy::bare_id, send};
use crate::{
    channel::{Channel, Partly, SendError},
    message::{Address, Outbound, Poll},
};

/// Direct chats and reactions remembered.
const MAX_DMS: usize = 1_024;
const MAX_REACTIONS: usize = 256;

impl Channel for Discord {
    fn id(&self) -> &'static str {
        ID
    }

    fn account(&self) -> &str {
        &self.shared.settings.account
    }

    fn pieces(&self, message: &Outbound) -> Vec<Outbound> {
        send::pieces(&self.shared.settings, message)
    }

    fn send<'a>(&'a self, to: &'a Address, message: &'a Outbound) -> BoxFuture<'a, Result<Vec<String>, Partly>> {
        Box::pin(async move {
            let mut sent = Vec::new();
            let channel = match self.shared.channel_of(to).await {
                Ok(channel) => channel,
                Err(error) => return Err(Partly { sent, error }),
            };
            for piece in self.pieces(message) {
                match self.shared.create(&channel, &piece).await {
                    Ok(id) => sent.push(id),
                    Err(error) => return Err(Partly { sent, error }),
                }
            }
            Ok(sent)
        })
    }

    fn edit<'a>(&'a self, to: &'a Address, id: &'a str, message: &'a Outbound) -> BoxFuture<'a, Result<(), SendError>> {
        Box::pin(async move {
            let channel = self.shared.channel_of(to).await?;
            self.shared.rest.edit(&channel, id, &send::edited(&self.shared.settings, message)).await
        })
    }

    fn delete<'a>(&'a self, to: &'a Address, id: &'a str) -> BoxFuture<'a, Result<(), SendError>> {
        Box::pin(async move { self.shared.rest.delete(&self.shared.channel_of(to).await?, id).await })
    }

    fn react<'a>(
        &'a self,
        to: &'a Address,
        id: &'a str,
        emoji: Option<&'a str>,
    ) -> BoxFuture<'a, Result<(), SendError>> {
        Box::pin(async move {
            let channel = self.shared.channel_of(to).await?;
            let rest = &self.shared.rest;
            match emoji {
                Some(emoji) => {
                    rest.react(&channel, id, emoji, true).await?;
                    self.shared.note_reaction(id, emoji);
                    Ok(())
                }
                None => match self.shared.take_reaction(id) {
                    Some(emoji) => rest.react(&channel, id, &emoji, false).await,
                    None => Ok(()),
                },
            }
        })
    }

    fn poll<'a>(&'a self, to: &'a Address, poll: &'a Poll) -> BoxFuture<'a, Result<String, SendError>> {
        Box::pin(async move {
            let body = send::poll(poll, send::nonce())?;
            self.shared.rest.create(&self.shared.channel_of(to).await?, &body, &[]).await
        })
    }

    fn typing<'a>(&'a self, to: &'a Address) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if let Ok(channel) = self.shared.channel_of(to).await {
                self.shared.rest.typing(&channel).await;
            }
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<String, SendError>> {
        Box::pin(async move { self.shared.rest.me().await.map(|user| user.username) })
    }
}

impl Shared {
    async fn create(&self, channel: &str, piece: &Outbound) -> Result<String, SendError> {
        let body = send::body(&self.settings, piece, send::nonce())?;
        self.rest.create(channel, &body, &piece.media).await
    }

    /// The channel that an address means: a thread, `channel:<id>` or `<id>`; for `user:<id>` and `<@id>` the direct chat.
    async fn channel_of(&self, to: &Address) -> Result<String, SendError> {
        if let Some(thread) = &to.thread {
            return Ok(thread.clone());
        }
        let Some(user) = user_of(&to.chat) else {
            let chat = to.chat.strip_prefix("discord:").unwrap_or(&to.chat);
            return Ok(chat.strip_prefix("channel:").unwrap_or(chat).to_owned());
        };
        let known = self.dms.lock().unwrap_or_else(PoisonError::into_inner).get(user).cloned();
        if let Some(channel) = known {
            return Ok(channel);
        }
        let channel = self.rest.open_dm(user).await?.id;
        let mut dms = self.dms.lock().unwrap_or_else(PoisonError::into_inner);
        if dms.len() >= MAX_DMS {
            dms.clear();
        }
        dms.insert(user.to_owned(), channel.clone());
        Ok(channel)
    }

    fn note_reaction(&self, id: &str, emoji: &str) {
        let mut reactions = self.reactions.lock().unwrap_or_else(PoisonError::into_inner);
        if reactions.len() >= MAX_REACTIONS {
            reactions.pop_front();
        }
        reactions.push_back((id.to_owned(), emoji.to_owned()));
    }

    fn take_reaction(&self, id: &str) -> Option<String> {
        let mut reactions = self.reactions.lock().unwrap_or_else(PoisonError::into_inner);
        let at = reactions.iter().rposition(|(message, _)| message == id)?;
        reactions.remove(at).map(|(_, emoji)| emoji)
    }
}

fn user_of(chat: &str) -> Option<&str> {
    let chat = chat.strip_prefix("discord:").unwrap_or(chat);
    let user = chat.starts_with("user:") || chat.starts_with("<@");
    user.then(|| bare_id(chat).trim_start_matches('!')).filter(|id| api::is_snowflake(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_channels() {
        for (chat, expected) in [
            ("user:123", Some("123")),
            ("discord:user:123", Some("123")),
            ("<@123>", Some("123")),
            ("<@!123>", Some("123")),
            ("123", None),
            ("channel:123", None),
            ("user:../1", None),
        ] {
            assert_eq!(user_of(chat), expected, "{chat}");
        }
    }
}
