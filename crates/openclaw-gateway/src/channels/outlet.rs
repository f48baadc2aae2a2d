//! The way out: replies of runs, by the account they came in.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::future::BoxFuture;
use openclaw_channels::{
    channel::{Handle, Partly, SendError},
    message::{Address, Outbound},
    section::Section,
};
use openclaw_config::document::Node;

use crate::{clock::now_ms, gateway::Gateway, runs::Deliver};

/// An account that is not there may come back with the next reload.
const ABSENT: Duration = Duration::from_secs(30);

/// See the module documentation.
pub struct Outlet {
    /// The gateway owns its way out, and not the other way round.
    gateway: Weak<Gateway>,
}

impl Outlet {
    pub fn new(gateway: &Arc<Gateway>) -> Self {
        Self { gateway: Arc::downgrade(gateway) }
    }

    fn channel(&self, to: &Address) -> Result<(Arc<Gateway>, Handle), SendError> {
        let gone = |why: String| SendError::NotSent { why, retry_after: Some(ABSENT) };
        let gateway = self.gateway.upgrade().ok_or_else(|| gone("the gateway is stopping".to_owned()))?;
        let handle = gateway
            .channels
            .handle(&to.channel, &to.account)
            .ok_or_else(|| gone(format!("the account {} of {} is not running", to.account, to.channel)))?;
        Ok((gateway, handle))
    }
}

impl Deliver for Outlet {
    fn present<'a>(&'a self, to: &'a Address) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let Some(gateway) = self.gateway.upgrade() else { return };
            gateway.channels.present(&to.channel, &to.account).await;
        })
    }

    fn pieces(&self, to: &Address, message: &Outbound) -> Vec<Outbound> {
        let Ok((gateway, channel)) = self.channel(to) else { return vec![message.clone()] };
        let (message, tagged) = untag(message);
        let mode = reply_mode(&gateway, to);
        let mut pieces = channel.pieces(&message);
        for (number, piece) in pieces.iter_mut().enumerate() {
            let quotes = match mode {
                // What the reply itself asked for is done in any mode.
                _ if tagged => number == 0,
                ReplyMode::Off => false,
                ReplyMode::First => number == 0,
                ReplyMode::All => true,
            };
            piece.reply_to = message.reply_to.clone().filter(|_| quotes);
        }
        pieces
    }

    fn send<'a>(&'a self, to: &'a Address, piece: &'a Outbound) -> BoxFuture<'a, Result<Vec<String>, Partly>> {
        Box::pin(async move {
            let (gateway, channel) = self.channel(to).map_err(|error| Partly { sent: Vec::new(), error })?;
            let ids = channel.send(to, piece).await?;
            gateway.channels.note(&to.channel, &to.account, |view| view.outbound_ms = Some(now_ms()));
            Ok(ids)
        })
    }

    fn typing<'a>(&'a self, to: &'a Address) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if let Ok((_, channel)) = self.channel(to) {
                channel.typing(to).await;
            }
        })
    }

    fn previews(&self, to: &Address) -> bool {
        let Some(gateway) = self.gateway.upgrade() else { return false };
        let runtime = gateway.runtime.load();
        let streaming = Section::new(&runtime.config, &to.channel, &to.account).get("streaming");
        let mode = streaming.and_then(|node| node.entry("mode").and_then(Node::as_str).or_else(|| node.as_str()));
        // The older form of `partial`.
        let flag = streaming.and_then(Node::as_bool) == Some(true);
        // `progress`, the default, shows that something is written, and the answer when it is whole.
        flag || matches!(mode, Some("partial" | "block"))
    }

    fn edit<'a>(
        &'a self,
        to: &'a Address,
        message_id: &'a str,
        piece: &'a Outbound,
    ) -> BoxFuture<'a, Result<(), SendError>> {
        Box::pin(async move {
            let (_, channel) = self.channel(to)?;
            channel.edit(to, message_id, piece).await
        })
    }
}

/// `replyToMode`
enum ReplyMode {
    Off,
    First,
    All,
}

fn reply_mode(gateway: &Gateway, to: &Address) -> ReplyMode {
    let runtime = gateway.runtime.load();
    match Section::new(&runtime.config, &to.channel, &to.account).text("replyToMode") {
        Some("first" | "batched") => ReplyMode::First,
        Some("all") => ReplyMode::All,
        _ => ReplyMode::Off,
    }
}

/// Takes `[[reply_to_current]]`, `[[reply_to:<id>]]` and `[[audio_as_voice]]` out of a reply. True when it names what it
/// answers.
fn untag(message: &Outbound) -> (Outbound, bool) {
    let mut message = message.clone();
    if message.styles.is_some() {
        return (message, false);
    }
    let mut tagged = false;
    const VOICE: &str = "[[audio_as_voice]]";
    if message.text.contains(VOICE) {
        message.text = message.text.replace(VOICE, "");
        message.hints.as_voice = true;
    }
    while let Some(start) = message.text.find("[[reply_to") {
        let Some(end) = message.text[start..].find("]]").map(|end| start + end) else { break };
        let tag = message.text[start + 2..end].to_owned();
        match tag.strip_prefix("reply_to") {
            Some("_current") => tagged = message.reply_to.is_some(),
            Some(rest) if rest.starts_with(':') => {
                message.reply_to = Some(rest[1..].trim().to_owned());
                tagged = true;
            }
            _ => break,
        }
        message.text.replace_range(start..end + 2, "");
    }
    message.text = message.text.trim().to_owned();
    (message, tagged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reply_tags_are_no_text() {
        let check = |text: &str, expected: &str, reply: Option<&str>, tagged: bool| {
            let message = Outbound { text: text.into(), reply_to: Some("5".into()), ..Outbound::default() };
            let (clean, found) = untag(&message);
            assert_eq!((clean.text.as_str(), clean.reply_to.as_deref(), found), (expected, reply, tagged), "{text}");
        };
        check("hello", "hello", Some("5"), false);
        check("[[reply_to_current]] hello", "hello", Some("5"), true);
        check("[[reply_to:77]]hello", "hello", Some("77"), true);
        check("see [[reply_tomorrow]]", "see [[reply_tomorrow]]", Some("5"), false);
        check("open [[reply_to", "open [[reply_to", Some("5"), false);
        check("[[audio_as_voice]] listen", "listen", Some("5"), false);
    }
}
