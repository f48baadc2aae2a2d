//! Who listens on a port of this machine: for "address in use" messages, `--force` and `doctor`.

use std::{fs, net::IpAddr, time::Duration};

/// A process that listens.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Listener {
    pub address: String,
    /// `None` when it belongs to another user, whose processes are not ours to look into.
    pub pid: Option<u32>,
    pub uid: u32,
    pub command: Option<String>,
}

/// Listeners on a TCP port, as far as the system shows them (Linux: `/proc`).
pub fn listeners(port: u16) -> Vec<Listener> {
    let mut found = Vec::new();
    for (file, v6) in [("/proc/net/tcp", false), ("/proc/net/tcp6", true)] {
        for line in fs::read_to_string(file).unwrap_or_default().lines().skip(1) {
            if let Some(socket) = parse_line(line, v6).filter(|socket| socket.port == port) {
                found.push(socket);
            }
        }
    }
    if found.is_empty() {
        return Vec::new();
    }
    let owners = socket_owners();
    found
        .into_iter()
        .map(|socket| {
            let pid = owners.iter().find(|(inode, _)| *inode == socket.inode).map(|(_, pid)| *pid);
            Listener { address: socket.address.to_string(), pid, uid: socket.uid, command: pid.and_then(command) }
        })
        .collect()
}

struct Socket {
    address: IpAddr,
    port: u16,
    uid: u32,
    inode: u64,
}

/// One line of `/proc/net/tcp{,6}`; `None` unless it is in the LISTEN state.
fn parse_line(line: &str, v6: bool) -> Option<Socket> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (local, state) = (fields.get(1)?, fields.get(3)?);
    if *state != "0A" {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    let word = |at: usize| u32::from_str_radix(address.get(at..at + 8)?, 16).ok().map(u32::to_le_bytes);
    let address = if v6 {
        let mut octets = [0; 16];
        for n in 0..4 {
            octets[n * 4..n * 4 + 4].copy_from_slice(&word(n * 8)?);
        }
        IpAddr::from(octets)
    } else {
        IpAddr::from(word(0)?)
    };
    Some(Socket {
        address,
        port: u16::from_str_radix(port, 16).ok()?,
        uid: fields.get(7)?.parse().ok()?,
        inode: fields.get(9)?.parse().ok()?,
    })
}

/// Socket inode to pid, for every process we may look into.
fn socket_owners() -> Vec<(u64, u32)> {
    let mut owners = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        for entry in fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
            let link = fs::read_link(entry.path()).unwrap_or_default();
            let inode = link.to_str().and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            owners.extend(inode.map(|inode| (inode, pid)));
        }
    }
    owners
}

/// The command line, arguments joined. Arguments that follow a word like `--token` are left out: they are not ours to show.
fn command(pid: u32) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut words = Vec::new();
    let mut hide = false;
    for word in bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty()) {
        let word = String::from_utf8_lossy(word);
        let lower = word.to_ascii_lowercase();
        let secret = ["token", "password", "secret"].iter().any(|name| lower.starts_with('-') && lower.contains(name));
        match (hide, secret.then(|| word.split_once('=')).flatten()) {
            (true, _) => words.push("…".to_owned()),
            (false, Some((name, _))) => words.push(format!("{name}=…")),
            (false, None) => words.push(word.clone().into_owned()),
        }
        hide = secret && !word.contains('=');
    }
    (!words.is_empty()).then(|| words.join(" "))
}

/// Why a port was not freed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForceError {
    #[error("port {port} is held by a process of another user (uid {uid}); stop it there, or use --port <other>")]
    Foreign { port: u16, uid: u32 },
    #[error("process {pid} still holds port {port} after being asked and told to stop; use --port <other>")]
    Stubborn { port: u16, pid: u32 },
}

/// Stops the processes of this user that listen on a port (`--force`): asks with SIGTERM, insists after five seconds.
///
/// # Errors
/// [`ForceError`]; processes of other users are never touched.
pub async fn free(port: u16) -> Result<Vec<Listener>, ForceError> {
    use rustix::process::{Pid, Signal, kill_process};
    let holders = listeners(port);
    let uid = rustix::process::geteuid().as_raw();
    if let Some(foreign) = holders.iter().find(|holder| holder.uid != uid || holder.pid.is_none()) {
        return Err(ForceError::Foreign { port, uid: foreign.uid });
    }
    let pids: Vec<u32> = holders.iter().filter_map(|holder| holder.pid).collect();
    for (signal, patience) in [(Signal::TERM, Duration::from_secs(5)), (Signal::KILL, Duration::from_secs(2))] {
        for pid in pids.iter().filter_map(|pid| Pid::from_raw(i32::try_from(*pid).ok()?)) {
            // It may have ended by itself meanwhile.
            let _ = kill_process(pid, signal);
        }
        let deadline = tokio::time::Instant::now() + patience;
        while tokio::time::Instant::now() < deadline {
            if listeners(port).is_empty() {
                return Ok(holders);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    match pids.first() {
        Some(pid) => Err(ForceError::Stubborn { port, pid: *pid }),
        None => Ok(holders),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_its_own_listener() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        let found = listeners(port);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].address.as_str(), found[0].pid), ("127.0.0.1", Some(std::process::id())));
        drop(listener);
        assert_eq!(listeners(port), []);
    }

    #[test]
    fn reads_both_families() {
        let v6 = "   1: 00000000000000000000000001000000:4965 00000000000000000000000000000000:0000 0A 0:0 0:0 0 1000 0 77 1";
        let socket = parse_line(v6, true).expect("listening");
        assert_eq!(
            (socket.address.to_string(), socket.port, socket.uid, socket.inode),
            ("::1".into(), 18789, 1000, 77)
        );
    }
}
