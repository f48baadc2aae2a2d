//! What a server's tool answers, as the agent's tools answer.

use base64::Engine as _;
use rmcp::model::{CallToolResult, ContentBlock, ResourceContents};

use crate::{message::Part, tool::Answer};

/// Pieces of one answer; more are counted only.
const PIECES: usize = 200;

pub(super) fn answer(result: CallToolResult) -> Answer {
    let CallToolResult { content, structured_content, is_error, .. } = result;
    let count = content.len();
    let mut parts: Vec<Part> = content.into_iter().take(PIECES).map(part).collect();
    if count > PIECES {
        parts.push(Part::Text(format!("[{} more pieces were left out]", count - PIECES)));
    }
    if parts.is_empty()
        && let Some(structured) = structured_content
    {
        parts.push(Part::Text(structured.to_string()));
    }
    Answer { content: parts, is_error: is_error.unwrap_or(false), details: None }
}

fn part(block: ContentBlock) -> Part {
    match block {
        ContentBlock::Text(text) => Part::Text(text.text),
        ContentBlock::Image(image) => self::image(&image.mime_type, &image.data),
        ContentBlock::Audio(audio) => {
            Part::Text(format!("[audio, {}, {} bytes in base64]", audio.mime_type, audio.data.len()))
        }
        ContentBlock::Resource(embedded) => match embedded.resource {
            ResourceContents::TextResourceContents { uri, text, .. } => Part::Text(format!("{uri}:\n{text}")),
            ResourceContents::BlobResourceContents { uri, mime_type, blob, .. } => {
                let mime = mime_type.unwrap_or_default();
                if mime.starts_with("image/") {
                    self::image(&mime, &blob)
                } else {
                    Part::Text(format!("[{uri}: {mime}, {} bytes in base64]", blob.len()))
                }
            }
            _ => Part::Text("[a resource of an unknown kind]".to_owned()),
        },
        ContentBlock::ResourceLink(link) => Part::Text(format!("[resource {}: {}]", link.name, link.uri)),
        _ => Part::Text("[content of an unknown kind]".to_owned()),
    }
}

/// Only what providers take.
fn image(mime: &str, base64: &str) -> Part {
    let known = matches!(mime, "image/png" | "image/jpeg" | "image/gif" | "image/webp");
    match base64::engine::general_purpose::STANDARD.decode(base64) {
        Ok(data) if known => Part::Image { mime: mime.to_owned(), data: data.into() },
        Ok(data) => Part::Text(format!("[an image, {mime}, {} bytes]", data.len())),
        Err(_) => Part::Text(format!("[an image, {mime}, that cannot be decoded]")),
    }
}
