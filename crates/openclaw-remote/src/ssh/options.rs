//! How ssh is called: an array of words, never a shell's line, and nothing in it that a target could turn into an option
//! (P-81, P-82).

use std::{ffi::OsString, os::unix::ffi::OsStrExt as _, path::Path};

use openclaw_config::gateway::HostKeyPolicy;

use super::{Interaction, SshFailure, SshFailureKind, SshSpec, once::RemoteCommand};

/// Seconds for the TCP connection and ssh's greeting, when nobody is asked anything.
const CONNECT_TIMEOUT_S: u32 = 5;
/// The same when ssh may ask: a security key may want to be touched.
const ASKING_CONNECT_TIMEOUT_S: u32 = 15;

/// What a host or its ssh taught us about how ssh has to be called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Learned {
    /// The far account allows no session of ours (nologin, a forced command): `-N`, and ssh's own keepalive instead of
    /// our heartbeat.
    pub no_session: bool,
    /// ssh is older than 8.7 and does not know the options of that release.
    pub old_client: bool,
    /// The person's ssh config has forwardings of its own that cannot all be had, so their failure must not end ssh.
    pub other_forwards: bool,
}

/// Words after `ssh` for a tunnel whose near end is `socket`.
///
/// Not `-N`: a session channel with the fixed command `cat` makes the far sshd switch Nagle's algorithm off (40 ms on every
/// second small write otherwise), its echo is a heartbeat with the round-trip time, and because it ends with our end of
/// the pipe, ssh ends with us even after `kill -9`.
///
/// # Errors
/// [`SshFailureKind::Identity`] for an identity path that ssh would misread.
pub fn tunnel(
    spec: &SshSpec,
    socket: &Path,
    interaction: Interaction,
    learned: Learned,
) -> Result<Vec<OsString>, SshFailure> {
    let mut words = Words::common(spec, interaction, learned)?;
    words.option(if learned.other_forwards { "ExitOnForwardFailure=no" } else { "ExitOnForwardFailure=yes" });
    words.option("StreamLocalBindMask=0177");
    words.option("StreamLocalBindUnlink=yes");
    if learned.no_session {
        // Nothing else would notice a dead link here: 3 s, three times.
        words.option("ServerAliveInterval=3");
        words.word("-N");
    } else {
        // Never fires while the heartbeat is echoed; ends ssh when we were killed and the link is dead as well.
        words.option("ServerAliveInterval=60");
    }
    words.option("ServerAliveCountMax=3");
    let mut local = socket.as_os_str().to_owned();
    local.push(format!(":127.0.0.1:{}", spec.gateway_port));
    words.word("-L").word(local);
    words.destination(spec);
    if !learned.no_session {
        words.word("cat");
    }
    Ok(words.0)
}

/// Words after `ssh` for running one command.
///
/// # Errors
/// As [`tunnel`].
pub fn command(
    spec: &SshSpec,
    remote: &RemoteCommand,
    interaction: Interaction,
    old_client: bool,
) -> Result<Vec<OsString>, SshFailure> {
    let mut words = Words::common(spec, interaction, Learned { old_client, ..Learned::default() })?;
    // Forwardings of the person's config are for their own logins.
    words.option("ClearAllForwardings=yes");
    words.option("ServerAliveInterval=5");
    words.option("ServerAliveCountMax=3");
    words.destination(spec);
    words.word(remote.line());
    Ok(words.0)
}

struct Words(Vec<OsString>);

impl Words {
    fn word(&mut self, word: impl Into<OsString>) -> &mut Self {
        self.0.push(word.into());
        self
    }

    fn option(&mut self, option: impl Into<OsString>) {
        self.word("-o").word(option);
    }

    /// What both forms share. ssh takes the first value it sees, so these win over the person's config.
    fn common(spec: &SshSpec, interaction: Interaction, learned: Learned) -> Result<Self, SshFailure> {
        let mut words = Self(Vec::with_capacity(64));
        words.word("-T");
        let (batch, timeout) = match interaction {
            Interaction::Batch => ("BatchMode=yes", CONNECT_TIMEOUT_S),
            Interaction::Ask => ("BatchMode=no", ASKING_CONNECT_TIMEOUT_S),
        };
        words.option(batch);
        match (spec.host_keys, interaction) {
            (HostKeyPolicy::Openssh, _) => {}
            (HostKeyPolicy::Strict, Interaction::Batch) => words.option("StrictHostKeyChecking=yes"),
            (HostKeyPolicy::Strict, Interaction::Ask) => words.option("StrictHostKeyChecking=ask"),
        }
        words.option(format!("ConnectTimeout={timeout}"));
        for fixed in [
            // The phrases that tell one failure from another are said at this level.
            "LogLevel=INFO",
            "ControlMaster=no",
            "ControlPath=none",
            "PermitLocalCommand=no",
            "RemoteCommand=none",
            "ForwardAgent=no",
            "ForwardX11=no",
            "Tunnel=no",
            "EscapeChar=none",
            "VisualHostKey=no",
        ] {
            words.option(fixed);
        }
        if !learned.old_client {
            words.option("ForkAfterAuthentication=no");
            words.option("StdinNull=no");
            if !learned.no_session {
                words.option("SessionType=default");
            }
        }
        if let Some(port) = spec.target.port() {
            words.word("-p").word(port.to_string());
        }
        if let Some(identity) = &spec.identity {
            words.word("-i").word(identity_word(identity, spec)?);
            words.option("IdentitiesOnly=yes");
        }
        Ok(words)
    }

    fn destination(&mut self, spec: &SshSpec) {
        self.word("--").word(spec.target.destination());
    }
}

/// The path as `-i` takes it: a literal percent sign doubled, nothing that ssh would expand or read as an option.
fn identity_word(identity: &Path, spec: &SshSpec) -> Result<OsString, SshFailure> {
    let refused = |why: &str| Err(SshFailure::new(SshFailureKind::Identity, why).about(spec));
    let Some(text) = identity.to_str() else { return refused("the identity file's name is not UTF-8") };
    if text.is_empty() || text.starts_with('-') {
        return refused("an identity file's name may not start with a dash");
    }
    if text.contains("${") || identity.as_os_str().as_bytes().iter().any(u8::is_ascii_control) {
        return refused("the identity file's name holds a character that ssh would read");
    }
    Ok(text.replace('%', "%%").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(target: &str) -> SshSpec {
        SshSpec::new(target.parse().expect("target"))
    }

    fn line(words: Vec<OsString>) -> String {
        words.iter().map(|word| word.to_str().expect("text")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_tunnels_words() {
        let mut spec = spec("me@box:2222");
        spec.identity = Some("~/.ssh/100% mine".into());
        let words = tunnel(&spec, Path::new("/d/s1-1"), Interaction::Batch, Learned::default()).expect("words");
        assert_eq!(
            line(words),
            "-T -o BatchMode=yes -o StrictHostKeyChecking=yes -o ConnectTimeout=5 -o LogLevel=INFO -o ControlMaster=no \
             -o ControlPath=none -o PermitLocalCommand=no -o RemoteCommand=none -o ForwardAgent=no -o ForwardX11=no \
             -o Tunnel=no -o EscapeChar=none -o VisualHostKey=no -o ForkAfterAuthentication=no -o StdinNull=no \
             -o SessionType=default -p 2222 -i ~/.ssh/100%% mine -o IdentitiesOnly=yes -o ExitOnForwardFailure=yes \
             -o StreamLocalBindMask=0177 -o StreamLocalBindUnlink=yes -o ServerAliveInterval=60 \
             -o ServerAliveCountMax=3 -L /d/s1-1:127.0.0.1:18789 -- me@box cat"
        );
    }

    #[test]
    fn what_was_learned_changes_the_words() {
        let spec = spec("box");
        let words = |learned| line(tunnel(&spec, Path::new("/d/s"), Interaction::Batch, learned).expect("words"));
        let no_session = words(Learned { no_session: true, ..Learned::default() });
        assert!(no_session.contains(" -N ") && no_session.ends_with(" -- box"), "{no_session}");
        assert!(!no_session.contains("SessionType"), "{no_session}");
        assert!(no_session.contains("ServerAliveInterval=3"), "{no_session}");
        let old = words(Learned { old_client: true, ..Learned::default() });
        for newer in ["ForkAfterAuthentication", "StdinNull", "SessionType"] {
            assert!(!old.contains(newer), "{old}");
        }
        assert!(words(Learned { other_forwards: true, ..Learned::default() }).contains("ExitOnForwardFailure=no"));
    }

    #[test]
    fn p_83_the_host_key_policy_is_never_no() {
        for (policy, interaction, expected) in [
            (HostKeyPolicy::Strict, Interaction::Batch, Some("StrictHostKeyChecking=yes")),
            (HostKeyPolicy::Strict, Interaction::Ask, Some("StrictHostKeyChecking=ask")),
            (HostKeyPolicy::Openssh, Interaction::Batch, None),
            (HostKeyPolicy::Openssh, Interaction::Ask, None),
        ] {
            let spec = SshSpec { host_keys: policy, ..spec("box") };
            let remote = RemoteCommand::new(["true"]);
            for words in [
                tunnel(&spec, Path::new("/d/s"), interaction, Learned::default()).expect("words"),
                command(&spec, &remote, interaction, false).expect("words"),
            ] {
                let found: Vec<_> =
                    words.iter().filter_map(|w| w.to_str()).filter(|w| w.starts_with("StrictHostKey")).collect();
                assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn p_81_an_identity_is_no_option() {
        for identity in ["-oProxyCommand=x", "", "-", "a\nb", "${HOME}/x", "a\0b"] {
            let spec = SshSpec { identity: Some(identity.into()), ..spec("box") };
            let refused = tunnel(&spec, Path::new("/d/s"), Interaction::Batch, Learned::default());
            assert_eq!(refused.expect_err(identity).kind, SshFailureKind::Identity);
        }
    }

    #[test]
    fn the_destination_stands_after_the_dashes() {
        let words = command(&spec("me@box"), &RemoteCommand::new(["sh", "-c", "a b"]), Interaction::Batch, false);
        let words = words.expect("words");
        assert_eq!(words[words.len() - 3..], ["--", "me@box", "sh -c 'a b'"]);
        assert!(!line(words).contains("-L"));
    }
}
