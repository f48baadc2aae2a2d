//! Files that go with a message.

use std::path::{Path, PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::model::Attachment;

/// Largest file: encoded it has to fit into a frame of 25 MiB (handshake notes, `policy.maxPayload`) with room for others.
const MAX_BYTES: u64 = 10 << 20;

/// A path as it was typed or dropped onto the terminal: perhaps quoted, perhaps with backslashes, perhaps from home.
pub fn path(typed: &str, home: Option<&str>) -> PathBuf {
    let typed = typed.trim();
    let quoted = |mark: char| typed.len() > 1 && typed.starts_with(mark) && typed.ends_with(mark);
    let plain = if quoted('\'') || quoted('"') {
        typed[1..typed.len() - 1].to_owned()
    } else if Path::new(typed).exists() {
        typed.to_owned()
    } else {
        typed.replace("\\ ", " ")
    };
    let plain = plain.strip_prefix("file://").unwrap_or(&plain).to_owned();
    match (plain.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => Path::new(home).join(rest),
        _ => PathBuf::from(plain),
    }
}

/// Reads a file for a message.
///
/// # Errors
/// Why it cannot be sent, for a person.
pub fn read(path: &Path) -> Result<Attachment, String> {
    let found = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !found.is_file() {
        return Err("it is no file".to_owned());
    }
    if found.len() > MAX_BYTES {
        return Err(format!("it has {} MiB; at most {} go with a message", found.len() >> 20, MAX_BYTES >> 20));
    }
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let name = path.file_name().map_or_else(|| "file".to_owned(), |name| name.to_string_lossy().into_owned());
    Ok(Attachment { mime: mime(path, &bytes).to_owned(), name, base64: STANDARD.encode(&bytes), bytes: bytes.len() })
}

/// By what the file begins with, then by its name.
pub fn mime(path: &Path, bytes: &[u8]) -> &'static str {
    const MAGIC: &[(&[u8], &str)] = &[
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"GIF8", "image/gif"),
        (b"%PDF-", "application/pdf"),
        (b"PK\x03\x04", "application/zip"),
        (b"OggS", "audio/ogg"),
        (b"ID3", "audio/mpeg"),
    ];
    if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        return "image/webp";
    }
    if let Some((_, mime)) = MAGIC.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return mime;
    }
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase()).unwrap_or_default();
    match extension.as_str() {
        "md" | "markdown" => "text/markdown",
        "json" => "application/json",
        "csv" => "text/csv",
        "html" | "htm" => "text/html",
        "svg" => "image/svg+xml",
        "mp3" => "audio/mpeg",
        "m4a" => "audio/mp4",
        "wav" => "audio/wav",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        _ if std::str::from_utf8(bytes).is_ok() => "text/plain",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_as_typed_and_dropped() {
        for (typed, expected) in [
            (" notes.txt ", "notes.txt"),
            ("'/tmp/a b.png'", "/tmp/a b.png"),
            ("\"x\"", "x"),
            ("/tmp/a\\ b.png", "/tmp/a b.png"),
            ("~/x.md", "/home/me/x.md"),
            ("file:///tmp/x", "/tmp/x"),
        ] {
            assert_eq!(path(typed, Some("/home/me")), PathBuf::from(expected), "{typed}");
        }
    }

    #[test]
    fn kinds() {
        for (name, bytes, expected) in [
            ("x.txt", &b"\x89PNG\r\n\x1a\n..."[..], "image/png"),
            ("x", b"RIFF0000WEBPVP8 ", "image/webp"),
            ("notes.md", b"# x", "text/markdown"),
            ("x.unknown", b"words", "text/plain"),
            ("x.bin", b"\xff\x00", "application/octet-stream"),
        ] {
            assert_eq!(mime(Path::new(name), bytes), expected, "{name}");
        }
    }

    #[test]
    fn what_cannot_be_sent_says_why() {
        assert_eq!(read(Path::new("/")).unwrap_err(), "it is no file");
        assert!(read(Path::new("/no/such/file")).is_err());
    }
}
