//! The client's half of the handshake as pure functions: what a frame means, what to send next. No sockets, no clock.

use openclaw_protocol::{
    ErrorShape, GatewayId, Protocol, event::CONNECT_CHALLENGE, frame::StateVersion, gateway_proof::GatewayProof,
    hello::HelloReceived,
};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use crate::error::{Error, Stage};

/// `connect.challenge`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    pub nonce: String,
    /// The gateway's clock, ms since the epoch; device signatures carry it so that skewed clocks do not matter.
    pub ts: Option<i64>,
    /// Which gateway it says it is, for those that asked.
    pub proof: Option<GatewayProof>,
}

impl Challenge {
    /// Who answered: the identity proved over `nonce`, which this client sent with its upgrade. A gateway that knows no
    /// proof, and a proof that does not hold, are nobody.
    ///
    /// # Errors
    /// [`Error::WrongGateway`] when it has to be `expected` and is not. Nothing may be sent then.
    pub fn identity(&self, nonce: Option<&str>, expected: Option<&GatewayId>) -> Result<Option<GatewayId>, Error> {
        let shown = nonce.zip(self.proof.as_ref()).and_then(|(nonce, proof)| proof.verify(nonce, &self.nonce));
        match expected {
            Some(expected) if shown.as_ref() != Some(expected) => {
                Err(Error::WrongGateway { expected: expected.clone(), shown })
            }
            _ => Ok(shown),
        }
    }
}

/// An event as received.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub name: String,
    pub payload: Value,
    pub seq: Option<u64>,
    pub state_version: Option<StateVersion>,
}

/// A frame from the gateway.
#[derive(Clone, Debug)]
pub enum Incoming {
    Event(Event),
    Response {
        id: String,
        outcome: Result<Value, ErrorShape>,
    },
    /// A request, or a kind of frame that newer gateways may add.
    Other,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw<'a> {
    #[serde(rename = "type")]
    kind: String,
    id: Option<String>,
    ok: Option<bool>,
    event: Option<String>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    error: Option<ErrorShape>,
    seq: Option<u64>,
    state_version: Option<StateVersion>,
}

/// Reads one text frame.
///
/// # Errors
/// What is wrong with it, for a message.
pub fn parse(text: &str) -> Result<Incoming, String> {
    let raw: Raw<'_> = serde_json::from_str(text).map_err(|error| format!("not a gateway frame ({error})"))?;
    let payload = || match raw.payload {
        None => Ok(Value::Null),
        Some(payload) => serde_json::from_str(payload.get()).map_err(|error| format!("unreadable payload ({error})")),
    };
    match (raw.kind.as_str(), raw.id, raw.event) {
        ("res", Some(id), _) => {
            let outcome = if raw.ok == Some(true) {
                Ok(payload()?)
            } else {
                Err(raw.error.unwrap_or_else(|| ErrorShape::invalid("the gateway gave no reason")))
            };
            Ok(Incoming::Response { id, outcome })
        }
        ("event", _, Some(name)) => {
            Ok(Incoming::Event(Event { payload: payload()?, name, seq: raw.seq, state_version: raw.state_version }))
        }
        _ => Ok(Incoming::Other),
    }
}

/// Reads the first frame of a connection.
///
/// # Errors
/// [`Error::NotAGateway`] for anything but a challenge with a nonce.
pub fn challenge(text: &str) -> Result<Challenge, Error> {
    let not_a_gateway = |reason: &str| Error::NotAGateway { reason: reason.to_owned() };
    match parse(text) {
        Ok(Incoming::Event(event)) if event.name == CONNECT_CHALLENGE => {
            let nonce = event.payload.get("nonce").and_then(Value::as_str).map(str::trim).unwrap_or_default();
            if nonce.is_empty() || nonce.len() > 256 {
                return Err(not_a_gateway("the gateway sent a challenge without a nonce"));
            }
            let proof = event.payload.get("gateway").and_then(|proof| GatewayProof::deserialize(proof).ok());
            Ok(Challenge { nonce: nonce.to_owned(), ts: event.payload.get("ts").and_then(Value::as_i64), proof })
        }
        _ => Err(not_a_gateway("a WebSocket answered, but it is not an OpenClaw gateway")),
    }
}

/// Reads the answer to `connect`.
///
/// # Errors
/// The refusal, sorted by stage.
pub fn hello(outcome: Result<Value, ErrorShape>) -> Result<(HelloReceived, Protocol), Error> {
    let payload = outcome.map_err(Error::of_connect)?;
    if payload.get("type").and_then(Value::as_str) != Some("hello-ok") {
        return Err(Error::NotAGateway { reason: "the answer to connect is not a hello".to_owned() });
    }
    let hello: HelloReceived = serde_json::from_value(payload)
        .map_err(|error| Error::NotAGateway { reason: format!("the gateway's hello is unreadable ({error})") })?;
    // Gateways answer with their own number, whatever was asked; shapes above ours are read as ours.
    let protocol = if hello.protocol >= Protocol::MAX.number() { Protocol::V4 } else { Protocol::V3 };
    Ok((hello, protocol))
}

/// A request frame.
pub fn request(id: &str, method: &str, params: Option<&Value>) -> String {
    let mut frame = json!({"type": "req", "id": id, "method": method});
    if let Some(params) = params {
        frame["params"] = params.clone();
    }
    frame.to_string()
}

/// A close frame that came instead of an answer.
pub fn closed_early(stage: Stage, code: Option<u16>, reason: &str) -> Error {
    match code {
        Some(1013) => Error::Unavailable(Box::new(ErrorShape::retry_later(reason, 500))),
        Some(1002) if reason.contains("protocol mismatch") => {
            Error::Protocol { message: reason.to_owned(), expected: None }
        }
        _ => Error::Closed { stage, code, reason: reason.to_owned() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_of_both_versions() {
        // captures/cli-health, captures/v3-cli-on-v3-gateway
        let v4 = r#"{"type":"event","event":"connect.challenge","payload":{"nonce":"0ba0a5a0-a6b5-4a65-8ed4-e19f3798f77b","ts":1795229493111,"capabilities":["model-catalog-snapshot"]}}"#;
        let v3 = r#"{"type":"event","event":"connect.challenge","payload":{"nonce":"0c9297b8-e00a-46b7-9bac-2f5b5ce64bb0","ts":1795230601252}}"#;
        assert_eq!(
            challenge(v4).expect("challenge"),
            Challenge {
                nonce: "0ba0a5a0-a6b5-4a65-8ed4-e19f3798f77b".into(),
                ts: Some(1_795_229_493_111),
                proof: None
            }
        );
        assert_eq!(challenge(v3).expect("challenge").ts, Some(1_795_230_601_252));
    }

    #[test]
    fn who_answered() {
        use openclaw_protocol::{DeviceKey, gateway_proof};
        let (ours, theirs) = (DeviceKey::from_seed(&[1; 32]), DeviceKey::from_seed(&[2; 32]));
        let (nonce, earlier) = (gateway_proof::nonce(&[3; 32]), gateway_proof::nonce(&[4; 32]));
        let id = |key: &DeviceKey| GatewayId::of(key.id());
        let signed = |key: &DeviceKey, nonce: &str| GatewayProof::sign(key, nonce, "n").expect("a nonce");
        let (good, other) = (signed(&ours, &nonce), signed(&theirs, &nonce));
        // The proof that came, what it shows, and whether it will do for a client that expects `ours`.
        let rows = [
            (Some(json!(good)), Some(id(&ours)), true),
            (Some(json!(other)), Some(id(&theirs)), false),
            (Some(json!(signed(&ours, &earlier))), None, false),
            (Some(json!({"publicKey": ours.public().to_wire(), "signature": other.signature})), None, false),
            (Some(json!({"publicKey": ours.public().to_wire()})), None, false),
            (Some(json!("yes")), None, false),
            (None, None, false),
        ];
        for (proof, shown, will_do) in rows {
            let mut payload = json!({"nonce": "n", "ts": 1});
            if let Some(proof) = proof {
                payload["gateway"] = proof;
            }
            let frame = json!({"type": "event", "event": "connect.challenge", "payload": payload}).to_string();
            let challenge = challenge(&frame).expect("a challenge");
            assert_eq!(challenge.identity(Some(&nonce), None).expect("anybody"), shown, "{frame}");
            let checked = challenge.identity(Some(&nonce), Some(&id(&ours)));
            match checked {
                Ok(identity) => assert!(will_do && identity == Some(id(&ours)), "{frame}"),
                Err(Error::WrongGateway { expected, shown: instead }) => {
                    assert!(!will_do && expected == id(&ours) && instead == shown, "{frame}");
                }
                Err(error) => panic!("{error}"),
            }
            assert!(challenge.identity(None, Some(&id(&ours))).is_err(), "nothing was asked, so nothing is proved");
        }
    }

    #[test]
    fn not_a_challenge() {
        for text in [
            "",
            "hello",
            "{}",
            "[]",
            r#"{"type":"event","event":"tick","payload":{}}"#,
            r#"{"type":"event","event":"connect.challenge","payload":{"nonce":"  "}}"#,
            r#"{"type":"event","event":"connect.challenge","payload":{"ts":1}}"#,
            r#"{"type":"event","event":"connect.challenge"}"#,
            r#"{"type":"res","id":"1","ok":true,"payload":{"type":"hello-ok"}}"#,
        ] {
            assert!(matches!(challenge(text), Err(Error::NotAGateway { .. })), "{text}");
        }
    }

    #[test]
    fn requests_look_like_the_references() {
        assert_eq!(request("2:x", "health", None), r#"{"type":"req","id":"2:x","method":"health"}"#);
        assert_eq!(
            request("2:x", "device.pair.list", Some(&json!({}))),
            r#"{"type":"req","id":"2:x","method":"device.pair.list","params":{}}"#
        );
    }

    #[test]
    fn unknown_frames_are_no_error() {
        assert!(matches!(parse(r#"{"type":"novel","x":1}"#), Ok(Incoming::Other)));
        assert!(matches!(parse(r#"{"type":"req","id":"1","method":"m"}"#), Ok(Incoming::Other)));
        assert!(parse("null").is_err());
        let Ok(Incoming::Response { outcome, .. }) = parse(r#"{"type":"res","id":"1","ok":false}"#) else {
            panic!("a response");
        };
        assert!(outcome.is_err());
    }
}
