//! A client of streamed HTTP answers that notes when each event came; no more than that.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::client::Target;

/// Posts JSON and reads the data of each event until `[DONE]`.
pub async fn post(target: &Target, path: &str, body: &Value) -> Result<Vec<(Instant, String)>> {
    let mut tcp = TcpStream::connect(target.address).await?;
    tcp.set_nodelay(true)?;
    let body = body.to_string();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        target.address,
        target.token,
        body.len()
    );
    tcp.write_all((head + &body).as_bytes()).await?;
    let (mut bytes, mut events) = (Vec::new(), Vec::new());
    let mut body = None;
    loop {
        ensure!(tcp.read_buf(&mut bytes).await? > 0, "the answer ended early");
        let now = Instant::now();
        if body.is_none()
            && let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n")
        {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
            let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
            bytes.drain(..end + 4);
            body = Some(Body { chunked, text: Vec::new() });
        }
        let Some(body) = &mut body else { continue };
        body.take(&mut bytes)?;
        while let Some(data) = body.event() {
            if data == "[DONE]" {
                return Ok(events);
            }
            events.push((now, data));
        }
    }
}

struct Body {
    chunked: bool,
    /// What was not yet given out.
    text: Vec<u8>,
}

impl Body {
    /// Takes what is complete.
    fn take(&mut self, bytes: &mut Vec<u8>) -> Result<()> {
        if !self.chunked {
            self.text.append(bytes);
            return Ok(());
        }
        while let Some(line) = bytes.windows(2).position(|two| two == b"\r\n") {
            let size = std::str::from_utf8(&bytes[..line])?.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).with_context(|| format!("{size:?} is no chunk size"))?;
            let Some(chunk) = bytes.get(line + 2..line + 2 + size) else { break };
            if bytes.len() < line + size + 4 {
                break;
            }
            self.text.extend_from_slice(chunk);
            bytes.drain(..line + size + 4);
        }
        Ok(())
    }

    /// The data of the next event; comments and names are passed over.
    fn event(&mut self) -> Option<String> {
        loop {
            let end = self.text.windows(2).position(|two| two == b"\n\n")?;
            let event = String::from_utf8_lossy(&self.text[..end]).into_owned();
            self.text.drain(..end + 2);
            if let Some(data) = event.lines().find_map(|line| line.strip_prefix("data:")) {
                return Some(data.trim().to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_joined_wherever_they_are_cut() {
        let whole = b"9\r\ndata: {\"a\r\nc\r\n\":1}\n\ndata: \r\n3\r\n2\n\n\r\n";
        for cut in 0..whole.len() {
            let mut body = Body { chunked: true, text: Vec::new() };
            let (mut bytes, mut found) = (whole[..cut].to_vec(), Vec::new());
            body.take(&mut bytes).expect("chunks");
            found.extend(std::iter::from_fn(|| body.event()));
            bytes.extend_from_slice(&whole[cut..]);
            body.take(&mut bytes).expect("chunks");
            found.extend(std::iter::from_fn(|| body.event()));
            assert_eq!(found, ["{\"a\":1}", "2"], "cut at {cut}");
        }
    }
}
