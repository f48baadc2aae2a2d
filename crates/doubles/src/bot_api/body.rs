//! Parameters of a request: JSON, a form, or a multipart form with files.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::Upload;

/// Reads what a client sent.
pub(super) fn parse(content_type: &str, query: &str, body: &Bytes) -> (Value, Vec<Upload>) {
    let mut params = urlencoded(query);
    let mut files = Vec::new();
    if content_type.starts_with("application/json") {
        if let Ok(Value::Object(given)) = serde_json::from_slice(body) {
            params.extend(given);
        }
    } else if content_type.starts_with("application/x-www-form-urlencoded") {
        params.extend(urlencoded(&String::from_utf8_lossy(body)));
    } else if let Some((_, boundary)) = content_type.split_once("boundary=") {
        multipart(body, boundary.trim_matches('"'), &mut params, &mut files);
    }
    (Value::Object(params), files)
}

fn urlencoded(text: &str) -> Map<String, Value> {
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (decode(key), typed(decode(value)))).collect()
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next().unwrap_or(b'0'), rest.next().unwrap_or(b'0')];
                let digits = String::from_utf8_lossy(&digits).into_owned();
                u8::from_str_radix(&digits, 16).unwrap_or(b'?')
            }
            byte => byte,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Objects and lists come as JSON text in forms; everything else stays text.
fn typed(text: String) -> Value {
    if text.starts_with(['{', '[']) {
        serde_json::from_str(&text).unwrap_or(Value::String(text))
    } else {
        Value::String(text)
    }
}

fn multipart(body: &Bytes, boundary: &str, params: &mut Map<String, Value>, files: &mut Vec<Upload>) {
    let mark = format!("--{boundary}");
    let mut rest = body.clone();
    while let Some(start) = find(&rest, mark.as_bytes()) {
        rest = rest.slice(start + mark.len()..);
        let Some(head_end) = find(&rest, b"\r\n\r\n") else { return };
        let head = String::from_utf8_lossy(&rest[..head_end]).into_owned();
        let content = rest.slice(head_end + 4..);
        let end = find(&content, format!("\r\n{mark}").as_bytes()).unwrap_or(content.len());
        let data = content.slice(..end);
        let name = attribute(&head, "name=").unwrap_or_default();
        match attribute(&head, "filename=") {
            None => drop(params.insert(name, typed(String::from_utf8_lossy(&data).into_owned()))),
            Some(file_name) => {
                let of = |line: &str| line.to_ascii_lowercase().starts_with("content-type:");
                let content_type = head.lines().find(|line| of(line)).and_then(|line| line.split_once(':'));
                let content_type = content_type.map(|(_, value)| value.trim().to_owned()).unwrap_or_default();
                files.push(Upload { field: name, file_name, content_type, data });
            }
        }
        rest = content.slice(end..);
    }
}

fn attribute(head: &str, key: &str) -> Option<String> {
    let at = head.match_indices(key).find(|(at, _)| !head[..*at].ends_with("file"))?.0;
    let rest = head[at + key.len()..].trim_start_matches('"');
    Some(rest.split(['"', ';', '\r']).next().unwrap_or_default().to_owned())
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
