//! `user@host:port` and `ssh://user@host:port`, checked before ssh sees them (P-81, P-82).
//!
//! Only what a login name, a host name, an address or an ssh-config alias may hold gets through: nothing that starts with a
//! dash, nothing a shell or ssh's own token expansion (`%h`) would read. The words are then passed as separate arguments.

use std::{fmt, net::Ipv6Addr, str::FromStr};

/// Longest target accepted, in bytes.
const MAX_BYTES: usize = 512;

/// Why a text is not an ssh target. The text itself is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SshTargetError {
    #[error("an ssh target is user@host, user@host:port, an alias of ~/.ssh/config, or ssh://user@host:port")]
    Shape,
    #[error("no part of an ssh target may start with a dash: ssh would read it as an option")]
    Dash,
    #[error("the ssh target holds a character that no user or host name has")]
    Characters,
    #[error("the ssh target holds a password; ssh asks for it, or use a key")]
    Password,
    #[error("the ssh port is not a number from 1 to 65535")]
    Port,
    #[error("an ssh:// URL ends after the host and port")]
    Path,
}

/// Where ssh goes: checked, and in the spelling the person gave.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SshTarget {
    user: Option<String>,
    host: String,
    port: Option<u16>,
}

impl SshTarget {
    /// True for a text that is meant as an `ssh://` URL.
    pub fn is_url(text: &str) -> bool {
        text.trim().get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("ssh://"))
    }

    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Host name, alias or address; IPv6 without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The ssh port, when one was given.
    pub const fn port(&self) -> Option<u16> {
        self.port
    }

    /// `user@host` as ssh takes it; the port goes to `-p`.
    pub fn destination(&self) -> String {
        match &self.user {
            Some(user) => format!("{user}@{}", self.host),
            None => self.host.clone(),
        }
    }

    /// The same as an `ssh://` URL.
    pub fn url(&self) -> String {
        format!("ssh://{self}")
    }
}

impl FromStr for SshTarget {
    type Err = SshTargetError;

    /// Reads `[user@]host[:port]` or an `ssh://` URL.
    fn from_str(text: &str) -> Result<Self, SshTargetError> {
        let text = text.trim();
        let text = if Self::is_url(text) {
            let rest = &text[6..];
            match rest.split_once(['/', '?', '#']) {
                Some((authority, "")) if rest.ends_with('/') => authority,
                Some(_) => return Err(SshTargetError::Path),
                None => rest,
            }
        } else {
            text
        };
        if text.is_empty() || text.len() > MAX_BYTES || text.matches('@').count() > 1 {
            return Err(SshTargetError::Shape);
        }
        let (user, place) = match text.split_once('@') {
            Some((user, _)) if user.contains(':') => return Err(SshTargetError::Password),
            Some((user, place)) => (Some(word(user)?), place),
            None => (None, text),
        };
        let (host, port) = host_and_port(place)?;
        Ok(Self { user, host, port })
    }
}

impl fmt::Display for SshTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        if self.host.contains(':') { write!(f, "[{}]", self.host) } else { f.write_str(&self.host) }?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// A user name or host: letters, digits, dot, dash, underscore; no dash in front.
fn word(text: &str) -> Result<String, SshTargetError> {
    if text.is_empty() {
        return Err(SshTargetError::Shape);
    }
    if text.starts_with('-') {
        return Err(SshTargetError::Dash);
    }
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)) {
        return Err(SshTargetError::Characters);
    }
    Ok(text.to_owned())
}

fn host_and_port(text: &str) -> Result<(String, Option<u16>), SshTargetError> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, tail) = rest.split_once(']').ok_or(SshTargetError::Shape)?;
            let address: Ipv6Addr = address.parse().map_err(|_| SshTargetError::Characters)?;
            match tail.strip_prefix(':') {
                Some(port) => (address.to_string(), Some(port)),
                None if tail.is_empty() => (address.to_string(), None),
                None => return Err(SshTargetError::Shape),
            }
        }
        None if text.matches(':').count() > 1 => {
            let address: Ipv6Addr = text.parse().map_err(|_| SshTargetError::Characters)?;
            (address.to_string(), None)
        }
        None => match text.split_once(':') {
            Some((host, port)) => (word(host)?, Some(port)),
            None => (word(text)?, None),
        },
    };
    let port = match port {
        None => None,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse().ok().filter(|port| *port != 0).ok_or(SshTargetError::Port)?)
        }
        Some(_) => return Err(SshTargetError::Port),
    };
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_and_urls() {
        for (text, user, host, port) in [
            ("me@box", Some("me"), "box", None),
            ("box", None, "box", None),
            ("me@box.example.com:2222", Some("me"), "box.example.com", Some(2222)),
            ("ssh://me@box:22", Some("me"), "box", Some(22)),
            ("SSH://box/", None, "box", None),
            ("me@[fe80::1]:22", Some("me"), "fe80::1", Some(22)),
            ("::1", None, "::1", None),
        ] {
            let target: SshTarget = text.parse().expect(text);
            assert_eq!((target.user(), target.host(), target.port()), (user, host, port), "{text}");
            assert_eq!(target.to_string().parse(), Ok(target.clone()));
            assert_eq!(target.url().parse(), Ok(target));
        }
    }

    #[test]
    fn p_81_and_p_82_nothing_for_a_shell_or_an_option() {
        for text in [
            "",
            " ",
            "-oProxyCommand=x",
            "me@-box",
            "-me@box",
            "ssh://-oProxyCommand=x",
            "a b",
            "me@box;id",
            "me@$(id)",
            "me@`id`",
            "me@box|id",
            "me@box\nid",
            "me@box\0",
            "me@%h",
            "me@b'x",
            "me@b\"x",
            "a@b@c",
            "me:pw@box",
            "me@box:0",
            "me@box:99999",
            "me@box:22x",
            "me@box:-1",
            "ssh://box/path",
            "ssh://box?x=1",
            "ssh://",
            "[::1",
            "[::1]x",
            "box:",
        ] {
            assert!(text.parse::<SshTarget>().is_err(), "{text:?}");
        }
    }
}
