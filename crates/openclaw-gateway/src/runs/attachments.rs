//! Files people send along. Pictures go to the model; other files go to the agent's workspace, where its tools can read them.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use openclaw_channels::message::Media;

use super::{Input, RunId};

/// Directory in the workspace.
const DIRECTORY: &str = "inbound";

/// Where a file lies in the workspace.
pub fn path(run: &RunId, number: usize, media: &Media) -> String {
    let plain = |text: &str, most: usize| -> String {
        let kept = text.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        kept.take(most).collect::<String>().trim_start_matches('.').to_owned()
    };
    let name = plain(media.file_name.as_deref().unwrap_or_default(), 80);
    let name = if name.is_empty() { "file".to_owned() } else { name };
    format!("{DIRECTORY}/{}-{number}-{name}", plain(&run.0, 40))
}

/// Writes the files that models cannot be shown. What is there already stays: a run that is begun again writes nothing new.
///
/// # Errors
/// When a file cannot be written, or the directory is a link to somewhere else.
pub fn save(workspace: &Path, run: &RunId, input: &Input) -> io::Result<()> {
    let directory = workspace.join(DIRECTORY);
    fs::create_dir_all(&directory)?;
    if fs::symlink_metadata(&directory)?.is_symlink() {
        return Err(io::Error::other(format!("{} is a symbolic link; nothing is written there", directory.display())));
    }
    let files = input.media.iter().enumerate().filter(|(_, media)| !media.mime.starts_with("image/"));
    for (number, media) in files {
        let opened =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(workspace.join(path(run, number, media)));
        match opened {
            Ok(mut file) => file.write_all(&media.data)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn media(name: Option<&str>) -> Media {
        Media { mime: "text/plain".into(), file_name: name.map(str::to_owned), data: Bytes::from_static(b"words") }
    }

    #[test]
    fn names_of_strangers_stay_in_the_directory() {
        let check = |run: &str, name: Option<&str>, expected: &str| {
            assert_eq!(path(&RunId(run.into()), 0, &media(name)), expected);
        };
        check("r1", Some("notes.txt"), "inbound/r1-0-notes.txt");
        check("r1", Some("../../etc/passwd"), "inbound/r1-0-etcpasswd");
        check("../..", Some("/abs"), "inbound/-0-abs");
        check("r1", None, "inbound/r1-0-file");
        check("r1", Some("\u{202e}\n"), "inbound/r1-0-file");
    }

    #[test]
    fn files_are_written_once_and_not_through_links() {
        let dir = tempfile::tempdir().expect("temp dir");
        let input = Input { text: String::new(), media: vec![media(Some("a.txt"))] };
        let run = RunId("r".into());
        save(dir.path(), &run, &input).expect("writes");
        let file = dir.path().join("inbound/r-0-a.txt");
        fs::write(&file, "changed by the agent").expect("writes");
        save(dir.path(), &run, &input).expect("leaves it");
        assert_eq!(fs::read_to_string(&file).expect("reads"), "changed by the agent");
        let other = tempfile::tempdir().expect("temp dir");
        std::os::unix::fs::symlink(dir.path(), other.path().join("inbound")).expect("links");
        assert!(save(other.path(), &run, &input).is_err());
    }
}
