//! Help for the tests of providers.

use std::{collections::VecDeque, sync::Arc};

use serde_json::Value;

use super::{
    Delta, Model, ModelRef, Request, Thinking,
    client::Prepared,
    endpoint::{Auth, BaseUrl, DEFAULT_SILENCE, Endpoint, KeySource, Trust},
    http::{Decode, Fault},
    sse::Parser,
    tuning::Tuning,
};
use crate::{
    message::{Message, Part, Role, ToolCall, ToolResult},
    tool::ToolSpec,
};

/// Feeds the text of a whole stream in pieces. Stops at the first fault, as the real thing does.
pub(super) fn read<'a>(
    mut decode: impl Decode,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Delta>, Result<(), Fault>) {
    let (mut parser, mut events, mut out) = (Parser::default(), VecDeque::new(), VecDeque::new());
    let mut result = Ok(());
    let mut pieces = pieces.into_iter();
    while result.is_ok() && !decode.is_over() {
        let piece = pieces.next();
        match piece {
            Some(piece) => assert_eq!(parser.push(piece, &mut events), Ok(())),
            None => parser.finish(&mut events),
        }
        while let Some(event) = events.pop_front().filter(|_| result.is_ok() && !decode.is_over()) {
            result = decode.event(&event, &mut out);
        }
        if piece.is_none() {
            break;
        }
    }
    if result.is_ok() {
        assert!(decode.is_complete(), "the stream has no end");
        decode.stopped(&mut out);
    }
    (out.into(), result)
}

/// Deltas with adjoining pieces of one kind put together: what is said, whatever the pieces.
pub(super) fn joined(deltas: &[Delta]) -> Vec<Delta> {
    let mut joined: Vec<Delta> = Vec::new();
    for delta in deltas {
        match (joined.last_mut(), delta) {
            (Some(Delta::Text(have)), Delta::Text(more)) | (Some(Delta::Thinking(have)), Delta::Thinking(more)) => {
                have.push_str(more);
            }
            (Some(Delta::Arguments { index, json }), Delta::Arguments { index: same, json: more }) if index == same => {
                json.push_str(more);
            }
            _ => joined.push(delta.clone()),
        }
    }
    joined
}

/// One line a piece: `started m id`, `text …`, `think …`, `call 0 id name`, `args 0 …`, `seal …`, `usage in/out/read/write`,
/// `stop …`.
pub(super) fn shown(deltas: &[Delta]) -> Vec<String> {
    let line = |delta: &Delta| match delta {
        Delta::Started { model, response_id } => {
            format!("started {} {}", model.as_deref().unwrap_or("-"), response_id.as_deref().unwrap_or("-"))
        }
        Delta::Text(text) => format!("text {text}"),
        Delta::Thinking(text) => format!("think {text}"),
        Delta::Signature(seal) => format!("seal {seal}"),
        Delta::ToolCall { index, id, name } => format!("call {index} {id} {name}"),
        Delta::Arguments { index, json } => format!("args {index} {json}"),
        Delta::Usage(usage) => {
            format!("usage {}/{}/{}/{}", usage.input, usage.output, usage.cache_read, usage.cache_write)
        }
        Delta::Stopped(stop) => format!("stop {stop:?}"),
    };
    joined(deltas).iter().map(line).collect()
}

/// Checks a recorded stream at once, byte by byte, and with CR LF.
#[track_caller]
pub(super) fn check<D: Decode>(reader: impl Fn() -> D, stream: &str, expected: &[&str]) {
    let (deltas, result) = read(reader(), [stream.as_bytes()]);
    assert_eq!(result, Ok(()), "{:#?}", shown(&deltas));
    assert_eq!(shown(&deltas), expected);
    let (by_byte, _) = read(reader(), stream.as_bytes().chunks(1));
    assert_eq!(by_byte, deltas, "byte by byte");
    let crlf = stream.replace('\n', "\r\n");
    assert_eq!(read(reader(), [crlf.as_bytes()]).0, deltas, "with CR LF");
}

pub(super) fn reference(text: &str) -> ModelRef {
    ModelRef::parse(text).unwrap()
}

pub(super) fn model(text: &str) -> Model {
    Model {
        reference: reference(text),
        name: text.to_owned(),
        context_window: 200_000,
        max_tokens: None,
        reasoning: false,
        images: true,
        price: None,
    }
}

pub(super) fn endpoint(provider: &str, base: &str) -> Endpoint {
    Endpoint {
        provider: provider.to_owned(),
        base: BaseUrl::parse(base, Trust::Origin).unwrap(),
        auth: Auth::None,
        key_source: KeySource::None,
        headers: reqwest::header::HeaderMap::new(),
        silence: DEFAULT_SILENCE,
        total: None,
    }
}

pub(super) fn request(model: Model, messages: Vec<Message>) -> Request {
    Request {
        model: Arc::new(model),
        system: String::new(),
        messages: Arc::new(messages),
        tools: Arc::default(),
        thinking: Thinking::Off,
        max_tokens: None,
    }
}

pub(super) fn tool() -> ToolSpec {
    ToolSpec {
        name: "look".to_owned(),
        description: "Looks.".to_owned(),
        parameters: serde_json::json!({"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]}),
    }
}

/// A body as JSON.
pub(super) fn body(
    build: fn(&Prepared<'_>) -> bytes::Bytes,
    request: &Request,
    endpoint: &Endpoint,
    tuning: &Tuning,
) -> Value {
    serde_json::from_slice(&build(&Prepared { request, endpoint, tuning })).unwrap()
}

/// A user's question, a signed thought with a call, its result with an image, and a word in between.
pub(super) fn conversation(signature: Option<String>) -> Vec<Message> {
    let call =
        ToolCall { id: "call_1".to_owned(), name: "look".to_owned(), arguments: serde_json::json!({"at": "it"}) };
    let image = Part::Image { mime: "image/png".to_owned(), data: bytes::Bytes::from_static(b"png") };
    vec![
        Message::user("what is it?"),
        Message {
            role: Role::Assistant,
            parts: vec![
                Part::Thinking { text: "hm".to_owned(), signature },
                Part::Text("let me look".to_owned()),
                Part::ToolCall(call.clone()),
            ],
        },
        Message {
            role: Role::Tool,
            parts: vec![Part::ToolResult(ToolResult {
                call_id: call.id,
                name: call.name,
                content: vec![Part::Text("a picture".to_owned()), image],
                is_error: false,
            })],
        },
    ]
}
