//! The captures `handshake-errors` and `v3-handshake-errors`, case by case and in their order.

use std::collections::{BTreeMap, HashMap};

use lab::{
    client::{Login, Outcome, Proof, new_device, now_ms},
    sandbox::{Sandbox, Setup},
    wire::Frame,
};
use openclaw_protocol::DeviceKey;
use serde_json::{Map, Value, json};

use crate::differences::{Difference, V3_DIFFERENCES, V4_DIFFERENCES};

/// The shared token of the captures.
const TOKEN: &str = "test-token-0123456789abcdef";

/// One captured handshake: what was sent, and the error, hello, close frame or HTTP status that came back.
#[derive(Clone, Debug, serde::Deserialize)]
struct Captured {
    case: String,
    #[serde(default)]
    headers: Map<String, Value>,
    send: Option<Value>,
    send_text: Option<String>,
    error: Option<Value>,
    hello: Option<Value>,
    close: Option<(u16, String)>,
    http: Option<u16>,
}

fn captured(text: &str) -> Vec<Captured> {
    text.lines().map(|line| serde_json::from_str(line).expect("a captured case")).collect()
}

/// Replays the cases in their order: later ones rest on what earlier ones left behind.
struct Replay {
    gateway: Sandbox,
    /// The port of the gateway in the capture.
    port: &'static str,
    devices: HashMap<String, DeviceKey>,
    /// Captured device tokens and the ones we got in their place.
    tokens: HashMap<String, String>,
}

impl Replay {
    fn new(port: &'static str) -> Self {
        let auth = json!({"gateway": {"auth": {"token": TOKEN}}});
        Self { gateway: Setup::new().config(auth).start(), port, devices: HashMap::new(), tokens: HashMap::new() }
    }

    fn run(&mut self, case: &Captured) -> Value {
        if let Some(text) = case.send_text.clone() {
            return self.raw(&text);
        }
        let Some(frame) = case.send.clone() else {
            return if case.http.is_some() { self.connect(case, &default_connect()) } else { self.silence() };
        };
        if frame["method"] != "connect" {
            return self.raw(&frame.to_string());
        }
        self.connect(case, &frame["params"])
    }

    fn raw(&self, text: &str) -> Value {
        let mut conn = self.gateway.login().open().expect("101").conn;
        conn.send_text(text);
        let mut answer = Value::Null;
        loop {
            match conn.message() {
                Frame::Text(text) => answer = serde_json::from_str::<Value>(&text).expect("JSON")["error"].clone(),
                Frame::Close(code, reason) => return shape(&answer, Some((code, reason))),
                other => panic!("{other:?}"),
            }
        }
    }

    fn silence(&self) -> Value {
        let mut conn = self.gateway.login().open().expect("101").conn;
        let began = now_ms();
        let close = conn.closing();
        let waited = now_ms() - began;
        assert!((13_000..=16_000).contains(&waited), "15 s, observed 15,016 ms; here {waited}");
        shape(&Value::Null, close)
    }

    fn connect(&mut self, case: &Captured, params: &Value) -> Value {
        let mut login = Login::at(&self.gateway.address());
        for (name, value) in &case.headers {
            let value = value.as_str().expect("a header").replace(self.port, &self.gateway.port.to_string());
            login = login.header(name, &value);
        }
        login.params = params.clone();
        let device = login.params.as_object_mut().expect("an object").remove("device");
        for field in ["token", "deviceToken"] {
            let given = login.params["auth"][field].as_str().unwrap_or("").to_owned();
            if given == "<70000 x>" {
                login = login.token(&"x".repeat(70_000));
            } else if let Some(ours) = self.tokens.get(&given) {
                login = login.set(&format!("/auth/{field}"), ours.clone());
            }
        }
        if login.params["auth"].is_null() {
            login.params.as_object_mut().expect("an object").remove("auth");
        }
        if let Some(device) = device {
            let captured_id = device["id"].as_str().expect("an id").to_owned();
            let key = self.devices.entry(captured_id).or_insert_with(new_device).clone();
            login = login.device(&key);
            let taken = |field: &str| device[field].clone();
            login = match case.case.as_str() {
                "sig-v2" => login.proof(Proof::V2),
                "sig-v1" => login.proof(Proof::V1),
                "sig-bad" => login.after_signing(|params| {
                    let signature = params["device"]["signature"].as_str().expect("a text").to_owned();
                    let first = if signature.starts_with('A') { 'B' } else { 'A' };
                    params["device"]["signature"] = json!(format!("{first}{}", &signature[1..]));
                }),
                "sig-expired" => login.signed_at(now_ms() - 121_000),
                "sig-119s" => login.signed_at(now_ms() - 115_000),
                "nonce-mismatch" | "nonce-blank" => login.nonce(taken("nonce").as_str().expect("a nonce")),
                "id-mismatch" => {
                    let id = taken("id");
                    login.after_signing(move |params| params["device"]["id"] = id)
                }
                "pubkey-invalid" => {
                    let key = taken("publicKey");
                    login.after_signing(move |params| params["device"]["publicKey"] = key)
                }
                _ => login,
            };
        }
        match login.attempt() {
            Outcome::Http(reply) => json!({"http": reply.status}),
            Outcome::Refused(refused) => shape(&refused.error, refused.close),
            Outcome::Hello(client) => {
                let theirs = case.hello.as_ref().and_then(|hello| hello["auth"]["deviceToken"].as_str());
                if let (Some(theirs), Some(ours)) = (theirs, client.hello["auth"]["deviceToken"].as_str())
                    && let Some(before) = self.tokens.insert(theirs.to_owned(), ours.to_owned())
                {
                    assert_eq!(before, ours, "{}: the same token is issued again", case.case);
                }
                hello_shape(client.hello["protocol"].clone(), &client.hello["auth"])
            }
        }
    }
}

fn default_connect() -> Value {
    json!({
        "minProtocol": 4, "maxProtocol": 4, "role": "operator", "scopes": ["operator.read"], "auth": {"token": TOKEN},
        "client": {"id": "cli", "version": "0.0.1", "platform": "linux", "mode": "cli"},
    })
}

/// An outcome with everything that changes from run to run replaced.
fn shape(error: &Value, close: Option<(u16, String)>) -> Value {
    let mut out = json!({});
    let mut error = error.clone();
    let id = error["details"]["requestId"].as_str().unwrap_or("\u{0}").to_owned();
    if let Some(details) = error.get_mut("details").and_then(Value::as_object_mut) {
        for (key, mask) in [("requestId", "<id>"), ("deviceId", "<device>"), ("remediationHint", "<text>")] {
            if let Some(value) = details.get_mut(key) {
                *value = json!(mask);
            }
        }
    }
    if !error.is_null() {
        out["error"] = error;
    }
    if let Some((code, reason)) = close {
        // The reference cuts the reason at 120 bytes, through the id if need be.
        let reason = reason.replace(&id, "<id>");
        let reason = match reason.find("(requestId: ") {
            Some(at) => format!("{}(requestId: <id>)", &reason[..at]),
            None => reason,
        };
        out["close"] = json!([code, reason]);
    }
    out
}

fn hello_shape(protocol: Value, auth: &Value) -> Value {
    let mut auth = auth.clone();
    if let Some(auth) = auth.as_object_mut() {
        auth.retain(|key, _| ["method", "role", "scopes", "deviceToken"].contains(&key.as_str()));
        if let Some(token) = auth.get_mut("deviceToken") {
            *token = json!(true);
        }
    }
    json!({"hello": {"protocol": protocol, "auth": auth}})
}

fn theirs(case: &Captured) -> Value {
    match (&case.hello, case.http) {
        (Some(hello), _) => hello_shape(hello["protocol"].clone(), &hello["auth"]),
        (None, Some(status)) => json!({"http": status}),
        (None, None) => shape(case.error.as_ref().unwrap_or(&Value::Null), case.close.clone()),
    }
}

/// Takes off what we add everywhere: `details.remediation` (one command and the machine to run it on), and the words
/// `; invalid token` and `; invalid password` of the seeds (C-20).
fn without_additions(mut ours: Value) -> Value {
    if let Some(error) = ours.get_mut("error").and_then(Value::as_object_mut) {
        let emptied = match error.get_mut("details").and_then(Value::as_object_mut) {
            Some(details) => {
                details.remove("remediation");
                details.is_empty()
            }
            None => false,
        };
        if emptied {
            error.remove("details");
        }
    }
    let text = ours.to_string().replace("; invalid token", "").replace("; invalid password", "");
    serde_json::from_str(&text).expect("still JSON")
}

fn check(replay: &mut Replay, cases: &[Captured], differences: &[Difference]) {
    let mut table: BTreeMap<&str, &Difference> = differences.iter().map(|row| (row.case, row)).collect();
    let mut problems = Vec::new();
    for case in cases {
        let (expected, got) = (theirs(case), without_additions(replay.run(case)));
        match table.remove(case.case.as_str()) {
            None if got == expected => {}
            None => problems.push(format!("{}\n  theirs {expected}\n  ours   {got}", case.case)),
            Some(row) => {
                let declared: Value = serde_json::from_str(row.ours).expect("JSON");
                if got != declared {
                    problems.push(format!("{} ({})\n  declared {declared}\n  ours     {got}", case.case, row.why));
                }
                assert_ne!(declared, expected, "{} is no difference", case.case);
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(table.is_empty(), "differences of cases that do not exist: {:?}", table.keys());
}

#[test]
fn replays_the_handshakes_captured_from_2026_9_6() {
    let cases = captured(include_str!("../../fixtures/handshake-v4.jsonl"));
    check(&mut Replay::new("28700"), &cases, V4_DIFFERENCES);
}

#[test]
fn replays_the_handshakes_captured_from_2026_2_26() {
    let mut cases = captured(include_str!("../../fixtures/handshake-v3.jsonl"));
    for case in &mut cases {
        // Without a device the hello of 2026.2.26 has no `auth`; ours always says what was granted.
        if let Some(hello) = case.hello.as_mut().filter(|hello| hello["auth"].is_null()) {
            let asked = &case.send.as_ref().expect("a request")["params"];
            hello["auth"] = json!({"role": asked["role"], "scopes": asked["scopes"]});
        }
        // Its deadline was 10 s and its capture has nothing to compare but the close frame.
    }
    check(&mut Replay::new("28705"), &cases, V3_DIFFERENCES);
}
