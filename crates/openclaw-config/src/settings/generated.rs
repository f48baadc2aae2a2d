//! The token a gateway makes for itself when nothing is configured, and the password file flag.

use std::{fs, io, path::Path};

use openclaw_protocol::{Secret, secret::hex};

use super::SettingsError;
use crate::{
    files::{self, FileError},
    paths::Paths,
};

/// Random bytes of a token; 48 hex digits, as the release's onboarding writes.
const TOKEN_BYTES: usize = 24;
/// A shorter text in the token file is no token of ours.
const SHORTEST_TOKEN: usize = 16;
const MAX_FILE_BYTES: u64 = 4096;

/// The token in `<STATE_DIR>/gateway.token`, made on first use with mode 0600. Two gateways that start at the same
/// instant get the same token.
pub fn generated_token(paths: &Paths) -> Result<Secret, FileError> {
    if let Some(token) = read_generated_token(paths)? {
        return Ok(token);
    }
    files::create_private_dir(&paths.state_dir)?;
    let path = paths.token_file();
    let token = Secret::new(hex(&files::random::<TOKEN_BYTES>()?));
    let temporary = path.with_file_name(format!(".gateway.token.{}.tmp", &token.fingerprint()));
    files::write_new_private(&temporary, format!("{}\n", token.expose()).as_bytes())?;
    // A link appears whole or not at all, and never replaces another's token.
    let linked = fs::hard_link(&temporary, &path);
    let _ = fs::remove_file(&temporary);
    match linked {
        Ok(()) => Ok(token),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match read_generated_token(paths)? {
            Some(theirs) => Ok(theirs),
            // The file is there but holds no token: replace it.
            None => files::write_private_atomic(&path, format!("{}\n", token.expose()).as_bytes()).map(|()| token),
        },
        // File systems without links.
        Err(_) => files::write_private_atomic(&path, format!("{}\n", token.expose()).as_bytes()).map(|()| token),
    }
}

/// The generated token, if there is one: the last source of clients in local mode.
pub fn read_generated_token(paths: &Paths) -> Result<Option<Secret>, FileError> {
    let Some(bytes) = files::read_private(&paths.token_file(), MAX_FILE_BYTES)? else { return Ok(None) };
    let token = Secret::from_input(&String::from_utf8_lossy(&bytes));
    Ok(token.filter(|token| token.len() >= SHORTEST_TOKEN))
}

/// Reads `--password-file`: the whole file without surrounding white space.
pub(super) fn password_file(path: &Path) -> Result<Secret, SettingsError> {
    let failed = |reason: String| SettingsError::PasswordFile { path: path.to_owned(), reason };
    let file = fs::File::open(path).map_err(|e| failed(e.to_string()))?;
    let bytes = files::read_limited(file, path, MAX_FILE_BYTES).map_err(|e| failed(e.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| failed("it is not UTF-8 text".to_owned()))?;
    Secret::from_input(&text).ok_or_else(|| failed("it is empty".to_owned()))
}
