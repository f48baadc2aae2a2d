//! Machines of the tailnet, as this machine's own tailscaled tells them: its LocalAPI socket, or the `tailscale`
//! program where the socket is elsewhere.

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Stdio,
};

use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

use super::MAX_PER_SOURCE;

/// Largest status read; a tailnet of a thousand machines takes about 1 MiB.
const MAX_STATUS_BYTES: u64 = 16 << 20;

/// A machine of the tailnet that is on line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub name: String,
    /// Full name without the final dot, where the tailnet has names.
    pub dns_name: Option<String>,
    /// IPv4 first.
    pub addresses: Vec<IpAddr>,
    pub os: Option<String>,
}

/// Why the tailnet told nothing.
#[derive(Debug, thiserror::Error)]
pub enum TailnetError {
    /// There is neither a socket nor a program.
    #[error("Tailscale is not here")]
    Absent,
    #[error("Tailscale is {0}; `tailscale up` brings it up")]
    Down(String),
    #[error("Tailscale gave no answer in time")]
    Slow,
    #[error("Tailscale cannot be asked: {0}")]
    Unusable(String),
}

/// Where tailscaled listens for its own machine.
pub(super) fn default_socket() -> PathBuf {
    let path =
        if cfg!(target_os = "macos") { "/var/run/tailscaled.socket" } else { "/var/run/tailscale/tailscaled.sock" };
    path.into()
}

/// The machines on line, this one left out.
///
/// # Errors
/// See [`TailnetError`].
pub(super) async fn peers(socket: &Path) -> Result<Vec<Peer>, TailnetError> {
    let status = match local_api(socket).await {
        Ok(status) => status,
        // The macOS app, a socket elsewhere, or no right to read it: the program knows its ways.
        Err(reason) => match program().await {
            Err(TailnetError::Absent) if reason.kind() != io::ErrorKind::NotFound => {
                return Err(TailnetError::Unusable(reason.to_string()));
            }
            other => other?,
        },
    };
    read(&status)
}

/// `GET /localapi/v0/status`. HTTP/1.0, so that the answer ends with the connection.
async fn local_api(socket: &Path) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket).await?;
    let request = "GET /localapi/v0/status HTTP/1.0\r\nHost: local-tailscaled.sock\r\nTailscale-Cap: 1\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_STATUS_BYTES).read_to_end(&mut answer).await?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let (head, body) = end.map(|end| answer.split_at(end + 4)).unwrap_or((&answer, &[]));
    let status = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    if status == b"200" {
        return Ok(body.to_vec());
    }
    Err(io::Error::other(format!("tailscaled answered {}", String::from_utf8_lossy(status.get(..3).unwrap_or(status)))))
}

/// `tailscale status --json`. Searched on PATH and where the macOS app keeps it; never in the working directory.
async fn program() -> Result<Vec<u8>, TailnetError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join("tailscale"))
        .chain(["/Applications/Tailscale.app/Contents/MacOS/Tailscale".into()])
        .find(|program| program.is_file());
    let Some(program) = found else { return Err(TailnetError::Absent) };
    let mut command = tokio::process::Command::new(program);
    command.args(["status", "--json"]).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.map_err(|error| TailnetError::Unusable(error.to_string()))?;
    Ok(output.stdout)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct Status {
    backend_state: String,
    current_tailnet: Option<Tailnet>,
    peer: Option<std::collections::BTreeMap<String, Machine>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Tailnet {
    #[serde(rename = "MagicDNSEnabled")]
    has_names: bool,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Machine {
    host_name: String,
    #[serde(rename = "DNSName")]
    dns_name: String,
    #[serde(rename = "OS")]
    os: String,
    #[serde(rename = "TailscaleIPs")]
    addresses: Option<Vec<String>>,
    online: bool,
    /// Another tailnet's machine that was shared with a person here, seen from the wrong side: it cannot be reached.
    sharee_node: bool,
    /// Offered as an exit by a provider; it takes no connections itself.
    exit_node_option: bool,
    tags: Option<Vec<String>>,
}

/// Reads the status object; what stands around it is passed over, since the program sometimes prints warnings.
fn read(text: &[u8]) -> Result<Vec<Peer>, TailnetError> {
    let unusable = |reason: &str| TailnetError::Unusable(reason.to_owned());
    let start = text.iter().position(|byte| *byte == b'{').ok_or_else(|| unusable("it gave no status"))?;
    let status = serde_json::Deserializer::from_slice(&text[start..]).into_iter::<Status>().next();
    let status = status.and_then(Result::ok).ok_or_else(|| unusable("its status cannot be read"))?;
    match status.backend_state.as_str() {
        "Running" => {}
        "NeedsLogin" => return Err(TailnetError::Down("not logged in".to_owned())),
        "Stopped" | "NoState" => return Err(TailnetError::Down("stopped".to_owned())),
        "NeedsMachineAuth" => return Err(TailnetError::Down("waiting for the tailnet's approval".to_owned())),
        "Starting" => return Err(TailnetError::Down("starting".to_owned())),
        _ => return Err(unusable("it is in a state this program does not know")),
    }
    let has_names = status.current_tailnet.is_some_and(|tailnet| tailnet.has_names);
    let mut peers: Vec<Peer> = status
        .peer
        .unwrap_or_default()
        .into_values()
        .filter(|machine| {
            machine.online && !machine.sharee_node && !is_provider_exit(machine) && may_serve(&machine.os)
        })
        .map(|machine| {
            let full = machine.dns_name.trim_end_matches('.').to_owned();
            let short = full.split('.').next().unwrap_or_default();
            let mut addresses: Vec<IpAddr> =
                machine.addresses.unwrap_or_default().iter().filter_map(|text| text.parse().ok()).collect();
            addresses.sort();
            Peer {
                name: if short.is_empty() { machine.host_name } else { short.to_owned() },
                dns_name: Some(full).filter(|full| has_names && !full.is_empty()),
                addresses,
                os: Some(machine.os).filter(|os| !os.is_empty()),
            }
        })
        .collect();
    peers.sort_by(|a, b| a.name.cmp(&b.name));
    peers.truncate(MAX_PER_SOURCE);
    Ok(peers)
}

fn is_provider_exit(machine: &Machine) -> bool {
    machine.exit_node_option && machine.tags.as_ref().is_some_and(|tags| tags.iter().any(|tag| tag.contains("mullvad")))
}

/// Telephones and television sets run no ssh server.
fn may_serve(os: &str) -> bool {
    !["ios", "android", "tvos"].iter().any(|other| os.eq_ignore_ascii_case(other))
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    /// The shape of Tailscale 1.103's status object (remote notes, section 1), shortened.
    const STATUS: &str = r#"{"Version":"1.103.0","TUN":true,"BackendState":"Running","TailscaleIPs":["100.64.0.1"],
      "Self":{"HostName":"laptop","DNSName":"laptop.tail-lab.ts.net.","Online":true},
      "MagicDNSSuffix":"tail-lab.ts.net",
      "CurrentTailnet":{"Name":"lab","MagicDNSSuffix":"tail-lab.ts.net","MagicDNSEnabled":true},
      "Peer":{
        "nodekey:1":{"HostName":"Box","DNSName":"box.tail-lab.ts.net.","OS":"linux","Online":true,
          "TailscaleIPs":["fd7a:115c:a1e0::2","100.64.0.2"],"Tags":null},
        "nodekey:2":{"HostName":"phone","DNSName":"phone.tail-lab.ts.net.","OS":"iOS","Online":true,
          "TailscaleIPs":["100.64.0.3"]},
        "nodekey:3":{"HostName":"old","DNSName":"old.tail-lab.ts.net.","OS":"linux","Online":false,
          "TailscaleIPs":["100.64.0.4"]},
        "nodekey:4":{"HostName":"exit","DNSName":"se-got-1.mullvad.ts.net.","OS":"linux","Online":true,
          "TailscaleIPs":["100.64.0.5"],"ExitNodeOption":true,"Tags":["tag:mullvad-exit-node"]}},
      "User":{}}"#;

    #[test]
    fn machines_on_line_that_may_serve() {
        let peers = read(format!("# a warning\n{STATUS}\nand a word").as_bytes()).expect("peers");
        assert_eq!(peers.len(), 1, "{peers:?}");
        assert_eq!((peers[0].name.as_str(), peers[0].dns_name.as_deref()), ("box", Some("box.tail-lab.ts.net")));
        assert_eq!(peers[0].addresses[0].to_string(), "100.64.0.2", "IPv4 first");
        let nameless = read(STATUS.replace("\"MagicDNSEnabled\":true", "\"MagicDNSEnabled\":false").as_bytes());
        assert_eq!(nameless.expect("peers")[0].dns_name, None);
    }

    #[test]
    fn states_are_told_apart() {
        for (text, expected) in [
            (r#"{"BackendState":"NeedsLogin"}"#, "not logged in"),
            (r#"{"BackendState":"Stopped"}"#, "stopped"),
            (r#"{"BackendState":"Starting"}"#, "starting"),
            (r#"{"BackendState":"Odd"}"#, "does not know"),
            ("[]", "no status"),
            ("{", "cannot be read"),
            ("", "no status"),
        ] {
            let error = read(text.as_bytes()).expect_err(text);
            assert!(error.to_string().contains(expected), "{text}: {error}");
        }
        assert!(read(br#"{"BackendState":"Running","Peer":null}"#).expect("alone").is_empty());
    }

    /// Answers one request as tailscaled does and hands the request back.
    async fn tailscaled(listener: UnixListener, answer: String) -> String {
        let (mut stream, _) = listener.accept().await.expect("a client");
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.expect("a request"));
        }
        stream.write_all(answer.as_bytes()).await.expect("answers");
        String::from_utf8(request).expect("text")
    }

    #[tokio::test]
    async fn the_local_api_is_asked_as_it_wants() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("tailscaled.sock");
        let serve = |answer: String| {
            let _ = std::fs::remove_file(&path);
            tokio::spawn(tailscaled(UnixListener::bind(&path).expect("socket"), answer))
        };
        let served = serve(format!("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{STATUS}"));
        assert_eq!(peers(&path).await.expect("peers").len(), 1);
        let request = served.await.expect("served");
        assert!(request.starts_with("GET /localapi/v0/status ") && request.contains("Host: local-tailscaled.sock\r\n"));

        let served = serve("HTTP/1.0 403 Forbidden\r\n\r\nno".to_owned());
        let error = local_api(&path).await.expect_err("refused");
        assert_eq!(error.to_string(), "tailscaled answered 403");
        served.await.expect("served");
        assert_eq!(local_api(&dir.path().join("none")).await.expect_err("absent").kind(), io::ErrorKind::NotFound);
    }
}
