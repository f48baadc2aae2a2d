//! Fetching a join URL: one request, the answer is a setup code's content, and the gateway answers it once.
//!
//! As the release does: no redirect is followed, since the URL is the secret; at most 24 KiB are read.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use openclaw_protocol::SetupCode;
use openclaw_remote::{Deadline, Endpoint, Error as RemoteError, GatewayUrl, Place};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use crate::failure::Failure;

/// The release's limits: 15 s, 24 KiB (`openclaw connect`, 2026.9.6).
const PATIENCE: Duration = Duration::from_secs(15);
const MAX_BYTES: u64 = 24 * 1024;

/// Fetches the code behind a join URL. The code is used up by that.
///
/// # Errors
/// Why there is none. Neither the URL nor the code is repeated.
pub async fn fetch(url: &GatewayUrl) -> Result<SetupCode, Failure> {
    let answer = match timeout(PATIENCE, ask(url)).await {
        Ok(answer) => answer.map_err(|error| unreached(&error, url))?,
        Err(_) => {
            return Err(
                Failure::new("The join URL gave no answer in time.").exit(openclaw_remote::error::TIMEOUT_EXIT_CODE)
            );
        }
    };
    read(&answer).map_err(|reason| {
        Failure::new(format!("The join URL gave no code: {reason}."))
            .error_code("join_url")
            .there("a code is given out once; make a new one", "openclaw devices join-code")
    })
}

/// The way failed. Nobody fetched the code yet, so the URL is as good as it: only the host is named.
fn unreached(error: &RemoteError, url: &GatewayUrl) -> Failure {
    let failure = Failure::remote(error, &Place::default());
    let message = failure.message().replace(url.path(), "/j/…");
    let failure = failure.with_message(message);
    match error {
        RemoteError::Tls { .. } => failure.there(
            "a URL cannot vouch for a gateway's own certificate; make a code, which does",
            "openclaw devices invite --role node",
        ),
        _ => failure,
    }
}

/// HTTP/1.0, so that the answer ends with the connection.
async fn ask(url: &GatewayUrl) -> Result<Vec<u8>, RemoteError> {
    let endpoint = Endpoint::Url { url: url.clone(), pin: None, allow_private_names: false, edge: Vec::new() };
    let mut stream = endpoint.dial(Deadline::after(PATIENCE)).await?;
    let broken = |error: std::io::Error| RemoteError::Upgrade { reason: error.to_string() };
    let request = format!(
        "GET {} HTTP/1.0\r\nHost: {}:{}\r\nAccept: application/json\r\n\r\n",
        url.path(),
        url.host(),
        url.port()
    );
    stream.write_all(request.as_bytes()).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    let mut answer = Vec::new();
    // A peer that hangs up without TLS's own goodbye has said everything all the same.
    let ended = stream.take(MAX_BYTES + 1).read_to_end(&mut answer).await;
    match ended {
        Err(error) if answer.is_empty() => Err(broken(error)),
        _ => Ok(answer),
    }
}

fn read(answer: &[u8]) -> Result<SetupCode, &'static str> {
    if answer.len() as u64 > MAX_BYTES {
        return Err("it is larger than any gateway makes them");
    }
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or("this is no HTTP")?;
    let (head, body) = (String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase(), &answer[end + 4..]);
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
    match status {
        "200" => {}
        "301" | "302" | "303" | "307" | "308" => return Err("it leads elsewhere, and the code is not carried there"),
        _ => return Err("it is unknown, used up or expired"),
    }
    if !lines.any(|line| line.replace(' ', "").starts_with("content-type:application/json")) {
        return Err("it is unknown, used up or expired");
    }
    SetupCode::parse(&URL_SAFE_NO_PAD.encode(body)).map_err(|_| "its content is no setup code")
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const PATH: &str = "/j/0123456789abcdefghij-_";

    /// Answers one request and gives it back with what was made of the answer.
    async fn served(answer: String) -> (String, Result<SetupCode, Failure>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let port = listener.local_addr().expect("address").port();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.expect("a request"));
            }
            let _ = stream.write_all(answer.as_bytes()).await;
            String::from_utf8(request).expect("text")
        });
        let url = GatewayUrl::parse(&format!("http://127.0.0.1:{port}{PATH}")).expect("url");
        let fetched = fetch(&url).await;
        (server.await.expect("served"), fetched)
    }

    fn response(status: &str, kind: &str, body: &str) -> String {
        format!("HTTP/1.0 {status}\r\nContent-Type: {kind}\r\nLocation: http://127.0.0.1:9/\r\n\r\n{body}")
    }

    #[tokio::test]
    async fn a_code_is_fetched_once_and_from_nowhere_else() {
        let body = r#"{"url":"wss://gw.example","bootstrapToken":"B","expiresAtMs":7}"#;
        let (request, code) = served(response("200 OK", "application/json; charset=utf-8", body)).await;
        assert!(request.starts_with(&format!("GET {PATH} HTTP/1.0\r\nHost: 127.0.0.1:")), "{request}");
        let code = code.expect("a code");
        assert_eq!(
            (code.urls.as_slice(), code.bootstrap_token.expose()),
            (&["wss://gw.example".to_owned()] as &[_], "B")
        );

        let large = "x".repeat(30_000);
        for (answer, expected) in [
            (response("404 Not Found", "application/json", "{}"), "used up or expired"),
            (response("200 OK", "text/html", body), "used up or expired"),
            (response("302 Found", "application/json", body), "leads elsewhere"),
            (response("200 OK", "application/json", "{}"), "no setup code"),
            (response("200 OK", "application/json", &large), "larger than any"),
            ("SSH-2.0-x\r\n".to_owned(), "no HTTP"),
        ] {
            let (_, refused) = served(answer).await;
            let message = refused.expect_err(expected).message().to_owned();
            assert!(message.contains(expected) && !message.contains("abcdefghij"), "{message}");
        }

        // Nobody took it: it is still good, and not shown to whoever reads the terminal later.
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let port = listener.local_addr().expect("address").port();
        let server = tokio::spawn(async move { drop(listener.accept().await) });
        let url = GatewayUrl::parse(&format!("https://127.0.0.1:{port}{PATH}")).expect("url");
        let refused = fetch(&url).await.expect_err("no TLS there");
        server.await.expect("served");
        let all = format!("{} {}", refused.lines(crate::output::Style::plain()).join(" "), refused.envelope());
        assert!(all.contains("127.0.0.1") && !all.contains("abcdefghij"), "{all}");
    }
}
