//! Files: which ones a message has, and as what one is sent.

use bytes::Bytes;

use super::{api::Api, types::Message};
use crate::message::{Hints, Media};

/// A file of a message that can be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remote {
    pub file_id: String,
    pub mime: String,
    pub file_name: Option<String>,
    pub size: Option<u64>,
    /// `photo`, `voice`, …
    pub what: &'static str,
}

/// Largest photo that goes as a photo (Bot API, sendPhoto).
const MAX_PHOTO: usize = 10 << 20;

/// The files of a message.
pub(super) fn of(message: &Message) -> Vec<Remote> {
    let mut found = Vec::new();
    // Sizes of one picture, the largest last.
    if let Some(photo) = message.photo.last() {
        let size = photo.file_size;
        found.push(Remote {
            file_id: photo.file_id.clone(),
            mime: "image/jpeg".into(),
            file_name: None,
            size,
            what: "photo",
        });
    }
    let others = [
        (&message.animation, "video/mp4", "animation"),
        // An animation comes as a document, too.
        (if message.animation.is_some() { &None } else { &message.document }, "application/octet-stream", "document"),
        (&message.audio, "audio/mpeg", "audio"),
        (&message.voice, "audio/ogg", "voice note"),
        (&message.video, "video/mp4", "video"),
        (&message.video_note, "video/mp4", "video note"),
    ];
    for (file, mime, what) in others {
        if let Some(file) = file {
            found.push(Remote {
                file_id: file.file_id.clone(),
                mime: file.mime_type.clone().unwrap_or_else(|| mime.to_owned()),
                file_name: file.file_name.clone(),
                size: file.file_size,
                what,
            });
        }
    }
    if let Some(sticker) = message.sticker.as_ref().filter(|sticker| !sticker.is_animated && !sticker.is_video) {
        found.push(Remote {
            file_id: sticker.file_id.clone(),
            mime: "image/webp".into(),
            file_name: None,
            size: sticker.file_size,
            what: "sticker",
        });
    }
    found
}

/// Fetches files. What cannot be had is told in a line for the conversation.
pub(super) async fn fetch(api: &Api, files: &[Remote], limit: u64) -> (Vec<Media>, Vec<String>) {
    let (mut media, mut missing) = (Vec::new(), Vec::new());
    for file in files {
        let too_large = file.size.is_some_and(|size| size > limit);
        let fetched = if too_large {
            Err(format!("larger than {} MB", limit >> 20))
        } else {
            api.download(&file.file_id, limit).await
        };
        match fetched {
            Ok(data) => media.push(Media { mime: file.mime.clone(), file_name: file.file_name.clone(), data }),
            Err(why) => missing.push(format!("[media unavailable: {}: {why}]", file.what)),
        }
    }
    (media, missing)
}

/// The method that sends a file, and the name of its field.
pub(super) fn method(media: &Media, hints: Hints) -> (&'static str, &'static str) {
    let mime = media.mime.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match mime.as_str() {
        _ if hints.as_document => ("sendDocument", "document"),
        "image/jpeg" | "image/png" | "image/webp" if media.data.len() <= MAX_PHOTO => ("sendPhoto", "photo"),
        "image/gif" => ("sendAnimation", "animation"),
        "video/mp4" => ("sendVideo", "video"),
        "audio/ogg" | "audio/mpeg" | "audio/mp4" | "audio/x-m4a" if hints.as_voice => ("sendVoice", "voice"),
        "audio/mpeg" | "audio/mp4" | "audio/x-m4a" | "audio/aac" | "audio/ogg" => ("sendAudio", "audio"),
        _ => ("sendDocument", "document"),
    }
}

/// A name for a file that has none.
pub(super) fn file_name(media: &Media) -> String {
    if let Some(name) = media.file_name.as_deref().map(safe).filter(|name| !name.is_empty()) {
        return name;
    }
    let extension = match media.mime.split(';').next().unwrap_or_default().trim() {
        "image/jpeg" => "jpg",
        "image/png" => "png",
        "image/webp" => "webp",
        "image/gif" => "gif",
        "video/mp4" => "mp4",
        "audio/ogg" => "ogg",
        "audio/mpeg" => "mp3",
        "audio/mp4" | "audio/x-m4a" => "m4a",
        "application/pdf" => "pdf",
        "text/plain" => "txt",
        _ => "bin",
    };
    format!("file.{extension}")
}

/// The last part of a name, without what could confuse a header.
fn safe(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    last.chars().filter(|c| !c.is_control() && *c != '"').take(120).collect()
}

/// The bytes as a part of a form.
pub(super) fn part(media: &Media) -> reqwest::multipart::Part {
    let data: Bytes = media.data.clone();
    let length = data.len() as u64;
    let part = reqwest::multipart::Part::stream_with_length(reqwest::Body::from(data), length);
    let part = part.file_name(file_name(media));
    match part.mime_str(&media.mime) {
        Ok(part) => part,
        Err(_) => {
            let data: Bytes = media.data.clone();
            reqwest::multipart::Part::stream_with_length(reqwest::Body::from(data), length).file_name(file_name(media))
        }
    }
}
