//! The entry in `~/.ssh/config` that the macOS agent connects through (S-173), added and removed as one marked block.

use std::path::Path;

use super::tunnel::ALIAS;

const BEGIN: &str = "# openclaw tunnel: written by `openclaw tunnel install`, removed by `openclaw tunnel uninstall`";
const END: &str = "# openclaw tunnel: end";

/// What the entry says.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    pub host: &'a str,
    pub user: &'a str,
    /// ssh port, when it is not 22.
    pub ssh_port: Option<u16>,
    pub port: u16,
    pub gateway_port: u16,
    pub identity: &'a Path,
}

impl Entry<'_> {
    /// The block, markers included.
    pub fn text(&self) -> String {
        let port =
            self.ssh_port.filter(|port| *port != 22).map(|port| format!("    Port {port}\n")).unwrap_or_default();
        format!(
            "{BEGIN}\nHost {ALIAS}\n    HostName {}\n    User {}\n{port}    LocalForward {} 127.0.0.1:{}\n    \
             IdentityFile {}\n    ServerAliveInterval 60\n    ServerAliveCountMax 3\n    ExitOnForwardFailure yes\n{END}\n",
            self.host,
            self.user,
            self.port,
            self.gateway_port,
            quoted(&self.identity.display().to_string()),
        )
    }
}

fn quoted(path: &str) -> String {
    if path.contains(char::is_whitespace) { format!("\"{path}\"") } else { path.to_owned() }
}

/// True when the person has an entry of that name, written by hand.
pub fn has_own_entry(config: &str) -> bool {
    without_block(config).lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next().is_some_and(|word| word.eq_ignore_ascii_case("host")) && words.any(|word| word == ALIAS)
    })
}

/// The config with our block replaced by `entry`, or added at its end.
pub fn with_block(config: &str, entry: &Entry<'_>) -> String {
    let mut rest = without_block(config);
    if !rest.is_empty() && !rest.ends_with('\n') {
        rest.push('\n');
    }
    if !rest.is_empty() && !rest.ends_with("\n\n") {
        rest.push('\n');
    }
    rest + &entry.text()
}

/// The config without our block; everything else byte for byte. A block without its end is left alone.
pub fn without_block(config: &str) -> String {
    let Some(start) = config.find(BEGIN) else { return config.to_owned() };
    let Some(length) = config[start..].find(END) else { return config.to_owned() };
    let after = &config[start + length + END.len()..];
    let after = after.strip_prefix('\n').unwrap_or(after);
    // The blank line that was put before the block goes with it.
    let before = &config[..start];
    let before = before.strip_suffix("\n\n").map(|_| &before[..before.len() - 1]).unwrap_or(before);
    format!("{before}{after}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry<'static> {
        Entry {
            host: "192.0.2.7",
            user: "me",
            ssh_port: Some(22),
            port: 18789,
            gateway_port: 18789,
            identity: Path::new("~/.ssh/id_rsa"),
        }
    }

    #[test]
    fn s_173_the_entry() {
        let text = entry().text();
        for line in [
            "Host remote-gateway",
            "HostName 192.0.2.7",
            "User me",
            "LocalForward 18789 127.0.0.1:18789",
            "IdentityFile ~/.ssh/id_rsa",
        ] {
            assert!(text.lines().any(|found| found.trim() == line), "{line} in {text}");
        }
    }

    #[test]
    fn it_comes_and_goes_without_a_trace() {
        for config in ["", "Host a\n  User b\n", "Host a\n  User b", "Host *\n\n"] {
            let with = with_block(config, &entry());
            assert!(with.contains("Host remote-gateway") && with.starts_with(config), "{config:?}");
            assert_eq!(with_block(&with, &entry()), with, "twice is once");
            assert_eq!(without_block(&with).trim_end(), config.trim_end(), "{config:?}");
        }
        let damaged = format!("{BEGIN}\nHost x\n");
        assert_eq!(without_block(&damaged), damaged);
    }

    #[test]
    fn an_entry_written_by_hand_is_noticed() {
        assert!(has_own_entry("host  other remote-gateway\n"));
        assert!(!has_own_entry(&with_block("Host a\n", &entry())));
        assert!(!has_own_entry("# Host remote-gateway\nHost remote-gateway-2\n"));
    }
}
