//! Frames: one JSON object per WebSocket text message.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::ErrorShape;

/// Request ids and method names are echoed and logged, so they are bounded: 256 bytes. Real clients send at most 60.
pub const MAX_NAME_BYTES: usize = 256;

/// A request as it came in. `params` stays unparsed until the method is known.
#[derive(Debug)]
pub struct Request<'a> {
    pub id: Cow<'a, str>,
    pub method: Cow<'a, str>,
    pub params: Option<&'a RawValue>,
}

/// Why a text message is not a request.
#[derive(Debug, PartialEq, Eq)]
pub enum FrameError {
    /// Not JSON at all, nested too deeply, or a number out of range: ignored after authentication, fatal before.
    NotJson,
    /// JSON, but not a request. `id` is the frame's own id if it has a usable one.
    NotRequest { id: Option<String>, reason: String },
}

#[derive(Deserialize)]
struct RawFrame<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

/// Reads one request frame. Unknown top-level keys are ignored: newer clients add them.
///
/// # Errors
/// See [`FrameError`]. Nothing in `text` can make this panic or recurse deeply (serde_json stops at 128 levels;
/// `params` is skipped over without recursion by the scanner that delimits it).
pub fn parse_request(text: &str) -> Result<Request<'_>, FrameError> {
    // serde would also read a struct from an array, by position; a frame is an object.
    if !text.trim_start().starts_with('{') {
        return Err(match serde_json::from_str::<serde::de::IgnoredAny>(text) {
            Ok(_) => FrameError::NotRequest { id: None, reason: "must be object".into() },
            Err(_) => FrameError::NotJson,
        });
    }
    let raw: RawFrame<'_> = match serde_json::from_str(text) {
        Ok(raw) => raw,
        Err(error) if error.is_data() => {
            let reason = "type, id and method must be strings".into();
            return Err(FrameError::NotRequest { id: None, reason });
        }
        Err(_) => return Err(FrameError::NotJson),
    };
    let id = raw.id.filter(|id| !id.is_empty() && id.len() <= MAX_NAME_BYTES);
    let problem =
        |reason: &str| FrameError::NotRequest { id: id.as_deref().map(str::to_owned), reason: reason.to_owned() };
    if raw.kind.as_deref() != Some("req") {
        return Err(problem("at /type: must be equal to constant 'req'"));
    }
    let method = match raw.method {
        Some(method) if !method.is_empty() && method.len() <= MAX_NAME_BYTES => method,
        Some(_) => return Err(problem("at /method: must have 1 to 256 characters")),
        None => return Err(problem("must have required property 'method'")),
    };
    match id {
        Some(id) => Ok(Request { id, method, params: raw.params }),
        None => Err(problem("must have required property 'id'")),
    }
}

impl Request<'_> {
    /// Parses the params; absent params read as `{}`.
    ///
    /// # Errors
    /// `INVALID_REQUEST` with the validator words peers expect.
    pub fn params<T: serde::de::DeserializeOwned>(&self) -> Result<T, ErrorShape> {
        parse_params(&self.method, self.params)
    }
}

/// See [`Request::params`].
///
/// # Errors
/// `INVALID_REQUEST`, `invalid <method> params: …`.
pub fn parse_params<T: serde::de::DeserializeOwned>(method: &str, params: Option<&RawValue>) -> Result<T, ErrorShape> {
    let text = params.map_or("{}", RawValue::get);
    let text = if text == "null" { "{}" } else { text };
    serde_json::from_str(text).map_err(|error| ErrorShape::invalid_params(method, &error))
}

/// `{"type":"res","id":…,"ok":true,"payload":…}` around an already serialised payload.
pub fn ok_response(id: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + id.len() + 48);
    out.extend_from_slice(b"{\"type\":\"res\",\"id\":");
    push_json_string(&mut out, id);
    out.extend_from_slice(b",\"ok\":true,\"payload\":");
    out.extend_from_slice(payload);
    out.push(b'}');
    out
}

/// `{"type":"res","id":…,"ok":false,"error":{…}}`.
pub fn error_response(id: &str, error: &ErrorShape) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"{\"type\":\"res\",\"id\":");
    push_json_string(&mut out, id);
    out.extend_from_slice(b",\"ok\":false,\"error\":");
    // Serialising a struct of strings and numbers into memory has no failure of its own.
    let _ = serde_json::to_writer(&mut out, error);
    out.push(b'}');
    out
}

fn push_json_string(out: &mut Vec<u8>, text: &str) {
    let _ = serde_json::to_writer(&mut *out, text);
}

/// A broadcast event serialised once. Each receiver gets the shared head and its own tail (`seq`, `stateVersion`).
#[derive(Clone, Debug)]
pub struct EventHead(Bytes);

impl EventHead {
    /// `{"type":"event","event":"<name>","payload":<payload>` without the closing brace.
    pub fn new(name: &str, payload: &[u8]) -> Self {
        let mut out = Vec::with_capacity(payload.len() + name.len() + 40);
        out.extend_from_slice(b"{\"type\":\"event\",\"event\":");
        push_json_string(&mut out, name);
        out.extend_from_slice(b",\"payload\":");
        out.extend_from_slice(payload);
        Self(Bytes::from(out))
    }

    pub fn bytes(&self) -> &Bytes {
        &self.0
    }
}

/// Counters that grow with each presence or health change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, Deserialize)]
pub struct StateVersion {
    pub presence: u64,
    pub health: u64,
}

/// The tail of an event frame: `,"seq":n,"stateVersion":{…}}`. Point-to-point events have neither.
pub fn event_tail(seq: Option<u64>, version: Option<StateVersion>) -> String {
    use std::fmt::Write as _;
    let mut tail = String::with_capacity(64);
    if let Some(seq) = seq {
        let _ = write!(tail, ",\"seq\":{seq}");
    }
    if let Some(StateVersion { presence, health }) = version {
        let _ = write!(tail, ",\"stateVersion\":{{\"presence\":{presence},\"health\":{health}}}");
    }
    tail.push('}');
    tail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        let r = parse_request(r#"{"type":"req","id":"1:x","method":"health"}"#).expect("parses");
        assert_eq!((r.id.as_ref(), r.method.as_ref(), r.params.is_none()), ("1:x", "health", true));
        let r = parse_request(r#"{"type":"req","id":"\u0041","method":"m","params":{"a":[1,2]},"future":1}"#)
            .expect("parses");
        assert_eq!((r.id.as_ref(), r.params.map(RawValue::get)), ("A", Some(r#"{"a":[1,2]}"#)));
    }

    #[test]
    fn rejects() {
        let not_json = |text: &str| assert_eq!(parse_request(text).expect_err(text), FrameError::NotJson, "{text}");
        for text in ["", "x", "{", "{\"type\":\"req\",}", "\u{0}", "[1", "{\"type\":\"req\",\"id\":\"1\"} x"] {
            not_json(text);
        }
        for (text, id) in [
            ("[]", None),
            (r#"["req","1","health"]"#, None),
            ("1", None),
            ("null", None),
            (r#"{"type":"res","id":"7","ok":true}"#, Some("7")),
            (r#"{"type":"event","event":"x"}"#, None),
            (r#"{"type":"req","id":"","method":"m"}"#, None),
            (r#"{"type":"req","id":5,"method":"m"}"#, None),
            (r#"{"type":"req","id":"9"}"#, Some("9")),
        ] {
            match parse_request(text).expect_err(text) {
                FrameError::NotRequest { id: found, .. } => assert_eq!(found.as_deref(), id, "{text}"),
                FrameError::NotJson => panic!("{text} is JSON"),
            }
        }
    }

    #[test]
    fn deep_nesting_is_an_error_and_no_overflow() {
        let deep = format!(
            r#"{{"type":"req","id":"1","method":"m","params":{}1{}}}"#,
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        if let Ok(request) = parse_request(&deep) {
            assert!(request.params::<serde_json::Value>().is_err());
        }
    }

    #[test]
    fn frames_match_the_wire() {
        assert_eq!(ok_response("a\"b", b"null"), br#"{"type":"res","id":"a\"b","ok":true,"payload":null}"#);
        assert_eq!(
            error_response("1", &ErrorShape::unknown_method("nope")),
            br#"{"type":"res","id":"1","ok":false,"error":{"code":"INVALID_REQUEST","message":"unknown method: nope"}}"#
        );
        let head = EventHead::new("tick", br#"{"ts":1}"#);
        let tail = event_tail(Some(3), Some(StateVersion { presence: 1, health: 8 }));
        assert_eq!(
            format!("{}{tail}", String::from_utf8_lossy(head.bytes())),
            r#"{"type":"event","event":"tick","payload":{"ts":1},"seq":3,"stateVersion":{"presence":1,"health":8}}"#
        );
        assert_eq!(event_tail(None, None), "}");
    }
}
