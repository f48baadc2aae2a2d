//! `{{messages[0].subject}}` and the like in the texts of mappings.

use http::HeaderMap;
use serde_json::Value;

/// Longest text a template may give: 256 KiB, what a body may have.
const MAX_BYTES: usize = 256 * 1024;

/// What fields are looked up in.
pub struct Context<'a> {
    pub payload: &'a Value,
    pub headers: &'a HeaderMap,
    pub query: &'a str,
    pub path: &'a str,
}

/// True when a text has fields.
pub fn has_fields(text: &str) -> bool {
    text.split_once("{{").is_some_and(|(_, rest)| rest.contains("}}"))
}

/// Replaces fields by what they name; nothing where there is nothing, objects as JSON.
pub fn fill(text: &str, context: &Context<'_>) -> String {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, (field, after))) = rest.split_once("{{").and_then(|(b, r)| Some((b, r.split_once("}}")?))) {
        filled.push_str(before);
        filled.push_str(&context.value(field.trim()));
        rest = after;
        if filled.len() > MAX_BYTES {
            break;
        }
    }
    filled.push_str(rest);
    let mut end = filled.len().min(MAX_BYTES);
    while !filled.is_char_boundary(end) {
        end -= 1;
    }
    filled.truncate(end);
    filled
}

impl Context<'_> {
    fn value(&self, field: &str) -> String {
        if field == "path" {
            return self.path.to_owned();
        }
        if field == "now" {
            return jiff::Timestamp::now().to_string();
        }
        if let Some(name) = field.strip_prefix("headers.") {
            return self.header(name);
        }
        if let Some(name) = field.strip_prefix("query.") {
            return query(self.query)
                .into_iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value)
                .unwrap_or_default();
        }
        match lookup(self.payload, field.strip_prefix("payload.").unwrap_or(field)) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        }
    }

    /// Secrets of the request never become text.
    fn header(&self, name: &str) -> String {
        let secret = ["authorization", "cookie", "proxy-authorization", "x-openclaw-token"];
        let name = name.to_ascii_lowercase();
        let value = self.headers.get(&name).filter(|_| !secret.contains(&name.as_str()));
        value.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    }
}

/// `a.b[0].c`
fn lookup<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    let mut here = value;
    for step in path.split('.') {
        let (name, indices) = step.split_once('[').map_or((step, ""), |(name, rest)| (name, rest));
        if !name.is_empty() {
            here = here.get(name)?;
        }
        for index in indices.split('[').filter(|index| !index.is_empty()) {
            here = here.get(index.strip_suffix(']')?.parse::<usize>().ok()?)?;
        }
    }
    Some(here)
}

/// The pairs of a query string, decoded.
pub fn query(text: &str) -> Vec<(String, String)> {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), decode(value))
    };
    text.split('&').filter(|pair| !pair.is_empty()).map(pair).collect()
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|pair| std::str::from_utf8(pair).ok());
        match (bytes[at], hex.and_then(|pair| u8::from_str_radix(pair, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_looked_up() {
        let payload = json!({"messages": [{"subject": "Hi", "n": 3, "to": ["a"]}], "note": "{{path}}", "none": null});
        let mut headers = HeaderMap::new();
        headers.insert("x-event-type", "push".parse().expect("a value"));
        headers.insert("authorization", "Bearer secret".parse().expect("a value"));
        let context = Context { payload: &payload, headers: &headers, query: "kind=a%20b&x", path: "gmail" };
        let check = |text: &str, expected: &str| assert_eq!(fill(text, &context), expected, "{text}");
        check("{{messages[0].subject}} {{payload.messages[0].n}}", "Hi 3");
        check("{{messages[0].to}}", "[\"a\"]");
        check("{{messages[1].subject}}{{none}}{{nowhere.at.all}}{{messages[x]}}", "");
        check("{{headers.X-Event-Type}} {{query.kind}} {{ path }}", "push a b gmail");
        // What came from outside is not read as a template again, and credentials do not become text.
        check("{{note}}", "{{path}}");
        check("{{headers.authorization}}", "");
        check("open {{ brace", "open {{ brace");
    }

    #[test]
    fn a_hostile_payload_cannot_blow_up() {
        let payload = json!({"a": "x".repeat(100_000)});
        let headers = HeaderMap::new();
        let context = Context { payload: &payload, headers: &headers, query: "", path: "p" };
        assert!(fill(&"{{a}}".repeat(1_000), &context).len() <= MAX_BYTES);
    }
}
