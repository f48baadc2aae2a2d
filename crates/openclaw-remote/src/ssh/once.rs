//! One command on the far host.

use std::{
    fmt::Write as _,
    io,
    process::{ExitStatus, Stdio},
};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    Interaction, Program, SshFailure, SshFailureKind, SshSpec, options,
    said::{Transcript, classify},
};
use crate::deadline::Deadline;

/// Most that is kept of either output stream.
const MAX_OUTPUT_BYTES: u64 = 1024 * 1024;
/// What ssh itself exits with; a remote command may, too.
pub(super) const SSH_FAILED: i32 = 255;

/// A command for the far host's shell: words, quoted by us so that a POSIX shell gives them back as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteCommand(String);

impl RemoteCommand {
    /// From words. They are our own text; nothing untrusted belongs in them.
    pub fn new<W: AsRef<str>>(words: impl IntoIterator<Item = W>) -> Self {
        let mut line = String::new();
        for word in words {
            if !line.is_empty() {
                line.push(' ');
            }
            let _ = write!(line, "{}", quoted(word.as_ref()));
        }
        Self(line)
    }

    /// As the far shell reads it.
    pub fn line(&self) -> &str {
        &self.0
    }
}

/// `word` for a POSIX shell.
pub(crate) fn quoted(word: &str) -> String {
    if !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-+,@=:".contains(&b)) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// How a remote command ended, and what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The remote command's exit code.
    pub code: i32,
    pub stdout: Vec<u8>,
    /// ssh's messages and the command's.
    pub stderr: String,
}

impl Output {
    pub const fn success(&self) -> bool {
        self.code == 0
    }
}

/// Runs `remote` on the host of `spec` and gives it `stdin`. Dropping the future ends ssh.
///
/// # Errors
/// Every way in which ssh fails; a command that ran and failed is an [`Output`] with its exit code.
pub async fn run_once(
    spec: &SshSpec,
    remote: &RemoteCommand,
    stdin: &[u8],
    interaction: Interaction,
    deadline: Deadline,
) -> Result<Output, SshFailure> {
    Program::find()?.run_once(spec, remote, stdin, interaction, deadline).await
}

impl Program {
    /// [`run_once`] with this program.
    ///
    /// # Errors
    /// As [`run_once`].
    pub async fn run_once(
        &self,
        spec: &SshSpec,
        remote: &RemoteCommand,
        stdin: &[u8],
        interaction: Interaction,
        deadline: Deadline,
    ) -> Result<Output, SshFailure> {
        #[cfg(feature = "builtin-ssh")]
        if let super::program::Kind::Builtin(home) = &self.0 {
            let run = super::builtin::run_once(spec, home, remote, stdin);
            let late = |_| Err(SshFailure::timed_out(deadline.budget()).about(spec));
            return tokio::time::timeout(deadline.left(), run).await.unwrap_or_else(late);
        }
        let mut old_client = false;
        loop {
            let words = options::command(spec, remote, interaction, old_client)?;
            let attempt = self.attempt(spec, words, stdin, interaction);
            let attempt = match tokio::time::timeout(deadline.left(), attempt).await {
                Ok(attempt) => attempt,
                Err(_) => Err(SshFailure::timed_out(deadline.budget()).about(spec)),
            };
            match attempt {
                Err(failure) if failure.is_unknown_option() && !old_client => old_client = true,
                done => return done,
            }
        }
    }

    async fn attempt(
        &self,
        spec: &SshSpec,
        words: Vec<std::ffi::OsString>,
        stdin: &[u8],
        interaction: Interaction,
    ) -> Result<Output, SshFailure> {
        let failed = |error: io::Error| SshFailure::new(SshFailureKind::Other, error.to_string()).about(spec);
        let mut child = super::process::spawn(self, words, interaction, Stdio::piped()).map_err(failed)?;
        let (mut input, out, err) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let feed = async {
            if let Some(mut input) = input.take() {
                // A command that does not read its input is no failure.
                let _ = input.write_all(stdin).await;
            }
        };
        let ((), out, err, status) = tokio::join!(feed, limited(out), limited(err), child.wait());
        let (stdout, stderr) = (out.map_err(failed)?, String::from_utf8_lossy(&err.map_err(failed)?).into_owned());
        let status: ExitStatus = status.map_err(failed)?;
        match status.code() {
            Some(code) if code != SSH_FAILED => Ok(Output { code, stdout, stderr }),
            code => {
                let mut transcript = Transcript::default();
                stderr.lines().for_each(|line| transcript.push(line));
                Err(classify(&transcript, code, false).about(spec))
            }
        }
    }
}

async fn limited(stream: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let Some(mut stream) = stream else { return Ok(bytes) };
    (&mut stream).take(MAX_OUTPUT_BYTES).read_to_end(&mut bytes).await?;
    // The rest is read and dropped, so that the command can end.
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_82_words_come_through_a_shell_as_they_are() {
        for words in [
            vec!["printf", "%s\\n", "plain"],
            vec!["printf", "%s\\n", "a b", "", "it's", "$(id)", "`id`", "a\"b", "a;b|c&d", "*", "~", "%h", "a\nb", "é"],
        ] {
            let line = RemoteCommand::new(&words);
            let output = std::process::Command::new("/bin/sh").args(["-c", line.line()]).output().expect("sh");
            let expected: String = words[2..].iter().map(|word| format!("{word}\n")).collect();
            assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{}", line.line());
        }
    }
}
