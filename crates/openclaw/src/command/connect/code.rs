//! What `connect` is pointed at: a machine to log in to, a setup code, or a join URL.
//!
//! Setup codes are what `openclaw devices invite` and the official release's `openclaw qr` give to a person to carry over
//! (handshake notes, section 11). A code is a one-time secret: no error repeats it.

use std::{fmt, path::Path};

use openclaw_protocol::{
    SetupCode,
    setup_code::{SCHEME, SetupCodeError},
};
use openclaw_remote::{
    GatewayUrl,
    ssh::{SshTarget, SshTargetError},
};

/// Largest file with a goal in it: the reference's bound for `--target-file`.
const MAX_BYTES: u64 = 64 * 1024;
/// The code in a join URL: 128 bits as base64url (release 2026.9.6).
const SHORT_CODE_CHARS: usize = 22;

/// What `connect` was pointed at.
#[derive(Clone, Debug)]
pub enum Goal {
    /// A machine to log in to.
    Ssh(SshTarget),
    Code(SetupCode),
    /// An address that gives out a code once. Codes of this kind are for nodes only.
    JoinUrl(GatewayUrl),
}

/// Why a text is no goal. The text itself is not repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadGoal {
    Ssh(SshTargetError),
    Code(SetupCodeError),
    JoinUrl,
    /// A gateway's own address: there is no way to log in to it.
    GatewayUrl,
}

impl fmt::Display for BadGoal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ssh(error) => error.fmt(f),
            Self::Code(error) => error.fmt(f),
            Self::JoinUrl => {
                f.write_str("a join URL is https://<gateway>/j/<code>; plain http is for this machine only")
            }
            Self::GatewayUrl => {
                f.write_str("a gateway URL is no machine to log in to; give user@host, or set gateway.remote.url to it")
            }
        }
    }
}

impl Goal {
    /// Reads what stands on the command line.
    ///
    /// # Errors
    /// [`BadGoal`], without the text itself.
    pub fn parse(text: &str) -> Result<Self, BadGoal> {
        let text = text.trim();
        let lower = text.get(..SCHEME.len()).unwrap_or(text).to_ascii_lowercase();
        // Every bare code is the base64 of a JSON object, which no host name of that length begins like.
        let bare = text.starts_with("ey") && text.len() > 40 && !text.contains(['@', '.', ':']);
        if lower == SCHEME || bare {
            return SetupCode::parse(text).map(Self::Code).map_err(BadGoal::Code);
        }
        if lower.starts_with("http://") || lower.starts_with("https://") {
            return join_url(text).map(Self::JoinUrl).ok_or(BadGoal::JoinUrl);
        }
        if lower.starts_with("ws://") || lower.starts_with("wss://") {
            return Err(BadGoal::GatewayUrl);
        }
        text.parse().map(Self::Ssh).map_err(BadGoal::Ssh)
    }

    /// Reads a goal from a file and takes the file away, as the reference does, so that the code is in no argument list.
    ///
    /// # Errors
    /// Why, for a person; the file then stays.
    pub fn take_file(path: &Path) -> Result<Self, String> {
        use std::io::Read as _;
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        let file = std::fs::File::open(path).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(format!("{} is not a regular file", path.display()));
        }
        let mut text = String::new();
        file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
        if text.trim().is_empty() || text.len() as u64 > MAX_BYTES {
            return Err(format!("{} is empty or larger than 64 KiB", path.display()));
        }
        let goal = Self::parse(&text).map_err(|error| error.to_string())?;
        std::fs::remove_file(path).map_err(failed)?;
        Ok(goal)
    }
}

/// `https://<gateway>[/base]/j/<22 characters>`; plain http only on this machine.
fn join_url(text: &str) -> Option<GatewayUrl> {
    let url = GatewayUrl::parse(text).ok()?;
    let mut parts = url.path().rsplit('/');
    let (code, j) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let is_code =
        code.len() == SHORT_CODE_CHARS && code.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    ((url.is_secure() || url.is_loopback()) && j == "j" && is_code).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The code that release 2026.9.6 printed for a gateway on loopback; used up long ago.
    const CODE: &str = "eyJ1cmwiOiJ3czovLzEyNy4wLjAuMToyODc4OSIsImJvb3RzdHJhcFRva2VuIjoiY0d0eUNsMURoZjdjSmR4WE1VSTdXZ\
        01EMlZHcjdXel9DM29VVG9yZFRObyIsImV4cGlyZXNBdE1zIjoxNzk1MjUwMjM3NzI5fQ";

    #[test]
    fn a_code_of_the_official_release() {
        for text in
            [CODE.to_owned(), format!("oc-pair://{CODE}"), format!(" OC-PAIR://{CODE}\n"), format!("oc-pair://{CODE}/")]
        {
            let Goal::Code(code) = Goal::parse(&text).expect("goal") else { panic!("{text}") };
            assert_eq!(code.urls, ["ws://127.0.0.1:28789"]);
            assert_eq!(code.bootstrap_token.expose(), "cGtyCl1Dhf7cJdxXMUI7WgMD2VGr7Wz_C3oUTordTNo");
        }
    }

    #[test]
    fn goals() {
        let ssh = |text: &str| matches!(Goal::parse(text), Ok(Goal::Ssh(_)));
        for text in ["me@box", "box", "ssh://me@box:22", "eye", "eyJ@box", "me@[::1]:22"] {
            assert!(ssh(text), "{text}");
        }
        let code = "0123456789abcdefghij-_";
        for base in ["https://gw.example", "https://gw.example/base", "http://127.0.0.1:18789"] {
            let Ok(Goal::JoinUrl(url)) = Goal::parse(&format!("{base}/j/{code}")) else { panic!("{base}") };
            assert!(url.path().ends_with(code), "{base}");
        }
        assert_eq!(Goal::parse(&format!("http://gw.example/j/{code}")).expect_err("plain"), BadGoal::JoinUrl);
        assert_eq!(Goal::parse(&format!("https://gw.example/j/{code}?x=1")).expect_err("query"), BadGoal::JoinUrl);
        for (text, expected) in [
            ("https://gw.example/j/tooshort", BadGoal::JoinUrl),
            ("https://gw.example/", BadGoal::JoinUrl),
            ("https://gw.example/j/", BadGoal::JoinUrl),
            ("https://me@gw.example/j/abc", BadGoal::JoinUrl),
            ("wss://gw.example", BadGoal::GatewayUrl),
            ("oc-pair://xx!", BadGoal::Code(SetupCodeError::Unreadable)),
            ("oc-pair://e30", BadGoal::Code(SetupCodeError::NoUrl)),
        ] {
            assert_eq!(Goal::parse(text).expect_err(text), expected, "{text}");
        }
        assert!(matches!(Goal::parse("-oProxyCommand=x"), Err(BadGoal::Ssh(_))));
    }

    #[test]
    fn a_cut_code_is_refused_without_showing_it() {
        let cut = &CODE[..CODE.len() - 9];
        let error = Goal::parse(cut).expect_err("cut").to_string();
        assert!(!error.contains(&CODE[50..60]), "{error}");
    }

    #[test]
    fn a_file_is_taken_only_when_it_was_read() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("target");
        for (text, taken) in [(CODE, true), ("", false), ("  \n", false), ("oc-pair://!", false)] {
            std::fs::write(&file, text).expect("writes");
            assert_eq!((Goal::take_file(&file).is_ok(), !file.exists()), (taken, taken), "{text:?}");
        }
        assert!(Goal::take_file(dir.path()).expect_err("a folder").contains("not a regular file"));
    }
}
