//! `message`: says something in a chat.

use std::{path::Path, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use openclaw_agent::tool::{Answer, Call, Effects, Tool, ToolSpec};
use openclaw_channels::{
    channel::SendError,
    message::{Address, Media, Outbound},
};
use serde_json::json;

use super::arguments::Arguments;
use crate::{approvals::ask::turn_source, gateway::Gateway, runs::RunContext};

/// Largest file that is sent: 50 MB, what Telegram takes of a bot.
const FILE_BYTES: u64 = 50_000_000;
/// Sending in pieces to a service that asks for patience takes its time.
const PATIENCE: Duration = Duration::from_secs(5 * 60);

pub struct MessageTool {
    gateway: Arc<Gateway>,
    context: Arc<RunContext>,
    spec: ToolSpec,
}

impl MessageTool {
    pub fn new((gateway, context): (Arc<Gateway>, Arc<RunContext>)) -> Self {
        let spec = ToolSpec {
            name: "message".into(),
            description: "Sends a message to a chat: the one this conversation takes place in, or another one. Your reply \
                          is delivered without this; use it for other chats, for files, or to say something before you are \
                          done."
                .into(),
            parameters: json!({
                "type": "object",
                "properties": {
                    "action": {"type": "string", "enum": ["send"]},
                    "message": {"type": "string", "description": "Markdown"},
                    "channel": {"type": "string", "description": "telegram, discord; this chat's by default"},
                    "target": {"type": "string", "description": "Id of the chat; this one by default"},
                    "threadId": {"type": "string"},
                    "accountId": {"type": "string"},
                    "replyTo": {"type": "string", "description": "Id of the message to answer"},
                    "file": {"type": "string", "description": "A file of the workspace to send along"},
                    "silent": {"type": "boolean"},
                },
            }),
        };
        Self { gateway, context, spec }
    }

    fn address(&self, arguments: &Arguments<'_>) -> Result<Address, Answer> {
        let here = turn_source(&self.context);
        let given = |name: &str| arguments.text(name).map(str::to_owned);
        let channel = given("channel").or_else(|| here.map(|address| address.channel.clone()));
        let target = given("target").or_else(|| given("to"));
        match (channel, target, here) {
            (Some(channel), Some(chat), _) => Ok(Address {
                account: given("accountId")
                    .or_else(|| here.filter(|here| here.channel == channel).map(|here| here.account.clone()))
                    .unwrap_or_else(|| "default".to_owned()),
                channel,
                chat,
                thread: given("threadId"),
            }),
            (Some(channel), None, Some(here)) if channel == here.channel => Ok(here.clone()),
            (_, None, Some(_)) => Err(Answer::error("`target` is missing: the chat in that channel.")),
            _ => Err(Answer::error("This conversation takes place in no chat; say `channel` and `target`.")),
        }
    }

    async fn send(&self, call: &Call) -> Result<Answer, Answer> {
        let arguments = Arguments(&call.arguments);
        if let Some(other) = arguments.text("action").filter(|action| *action != "send") {
            return Err(Answer::error(format!("There is no action {other:?}, only send.")));
        }
        let to = self.address(&arguments)?;
        let mut media = Vec::new();
        if let Some(file) = arguments.text("file") {
            media.push(read_file(&self.context.workspace, file).await?);
        }
        let text = arguments.verbatim("message").unwrap_or_default().to_owned();
        if text.trim().is_empty() && media.is_empty() {
            return Err(Answer::error("`message` is missing."));
        }
        let message = Outbound {
            text,
            media,
            reply_to: arguments.text("replyTo").map(str::to_owned),
            silent: arguments.flag("silent"),
            ..Outbound::default()
        };
        let outlet = self.gateway.runs.outlet();
        let outlet = outlet.ok_or_else(|| Answer::error("No channel is set up; `openclaw channels add` does that."))?;
        let mut sent = Vec::new();
        for piece in outlet.pieces(&to, &message) {
            match outlet.send(&to, &piece).await {
                Ok(ids) => sent.extend(ids),
                Err(partly) => {
                    sent.extend(partly.sent);
                    return Err(Answer::error(match partly.error {
                        SendError::NotSent { why, .. } if sent.is_empty() => format!("It was not sent: {why}"),
                        SendError::NotSent { why, .. } => format!("Only the beginning was sent: {why}"),
                        SendError::Unknown { why } => {
                            format!("Whether it arrived is not known ({why}). Do not send it again; tell the owner.")
                        }
                    }));
                }
            }
        }
        Ok(Answer {
            details: Some(json!({"channel": to.channel, "chat": to.chat, "messageIds": sent})),
            ..Answer::text(format!("Sent to {} {}.", to.channel, to.chat))
        })
    }
}

/// A file of the workspace, wherever links in it lead.
async fn read_file(workspace: &Path, name: &str) -> Result<Media, Answer> {
    let (workspace, wanted, shown) = (workspace.to_owned(), workspace.join(name), name.to_owned());
    let read = move || {
        let refused = |why: String| Answer::error(format!("{shown}: {why}"));
        let root = workspace.canonicalize().map_err(|error| refused(error.to_string()))?;
        let path = wanted.canonicalize().map_err(|error| refused(error.to_string()))?;
        if !path.starts_with(&root) {
            return Err(refused("it is not in the workspace".to_owned()));
        }
        let size = std::fs::metadata(&path).map_err(|error| refused(error.to_string()))?;
        if !size.is_file() || size.len() > FILE_BYTES {
            return Err(refused(format!("it is no file of at most {FILE_BYTES} bytes")));
        }
        let data = std::fs::read(&path).map_err(|error| refused(error.to_string()))?;
        let file_name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        Ok(Media { mime: mime_of(&path).to_owned(), file_name, data: data.into() })
    };
    let done = tokio::task::spawn_blocking(read).await;
    done.unwrap_or_else(|_| Err(Answer::error("the file could not be read")))
}

/// By the name, as services sort files anyway.
fn mime_of(path: &Path) -> &'static str {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default().to_ascii_lowercase();
    match extension.as_str() {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "mp4" => "video/mp4",
        "ogg" | "oga" | "opus" => "audio/ogg",
        "mp3" => "audio/mpeg",
        "pdf" => "application/pdf",
        "txt" | "log" => "text/plain",
        "md" => "text/markdown",
        "json" => "application/json",
        _ => "application/octet-stream",
    }
}

impl Tool for MessageTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn effects(&self) -> Effects {
        Effects::Some
    }

    fn untrusted(&self) -> bool {
        false
    }

    fn timeout(&self) -> Duration {
        PATIENCE
    }

    fn call(self: Arc<Self>, call: Call) -> BoxFuture<'static, Answer> {
        Box::pin(async move { self.send(&call).await.unwrap_or_else(|error| error) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_outside_the_workspace_stay_there() {
        let dir = tempfile::tempdir().expect("a directory");
        let workspace = dir.path().join("workspace");
        std::fs::create_dir(&workspace).expect("a workspace");
        std::fs::write(workspace.join("a.png"), "x").expect("a file");
        std::fs::write(dir.path().join("secret"), "x").expect("a file");
        std::os::unix::fs::symlink("../secret", workspace.join("link")).expect("a link");
        let read = read_file(&workspace, "a.png").await.expect("the file");
        assert_eq!((read.mime.as_str(), read.file_name.as_deref()), ("image/png", Some("a.png")));
        for outside in ["../secret", "link", "/etc/hostname", "."] {
            assert!(read_file(&workspace, outside).await.is_err(), "{outside}");
        }
    }
}
