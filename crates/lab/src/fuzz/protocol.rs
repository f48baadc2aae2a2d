//! What strangers send first: frames, connect parameters, device proofs; and what people paste: setup codes.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use openclaw_protocol::{
    DeviceKey, ErrorShape, Protocol, SetupCode,
    connect::ConnectParams,
    device::{ProofPayload, verify_proof},
    frame::{FrameError, MAX_NAME_BYTES, error_response, ok_response, parse_request},
    limits::SIGNATURE_SKEW_MS,
};
use serde_json::Value;

use super::input::Input;

/// A secret put where secrets go; it must come out nowhere.
const CANARY: &str = "canary-6f1d2c9b7a";

/// A text message as a request frame: what is read is what is there, it can be written and read again, and every answer
/// to it is a frame with its id.
pub fn frame(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let request = match parse_request(text) {
        Ok(request) => request,
        Err(FrameError::NotJson | FrameError::NotRequest { id: None, .. }) => return,
        Err(FrameError::NotRequest { id: Some(id), reason }) => {
            assert!((1..=MAX_NAME_BYTES).contains(&id.len()), "echoes an id of {} bytes", id.len());
            assert_answer(&error_response(&id, &ErrorShape::invalid(reason)), &id, false);
            return;
        }
    };
    for name in [&request.id, &request.method] {
        assert!((1..=MAX_NAME_BYTES).contains(&name.len()));
    }
    // A second reader sees the same. (It stops at 128 levels of nesting, where the first need not.)
    if let Ok(value) = serde_json::from_str::<Value>(text) {
        assert_eq!(value["type"], "req");
        assert_eq!(value["id"], *request.id);
        assert_eq!(value["method"], *request.method);
        let params = request.params.map(|raw| serde_json::from_str::<Value>(raw.get()).expect("part of valid JSON"));
        assert_eq!(value.get("params").filter(|params| !params.is_null()), params.as_ref());
    }
    let quoted = |text: &str| Value::from(text).to_string();
    let params = request.params.map_or_else(String::new, |raw| format!(",\"params\":{}", raw.get()));
    let again =
        format!("{{\"type\":\"req\",\"id\":{},\"method\":{}{params}}}", quoted(&request.id), quoted(&request.method));
    let again = parse_request(&again).expect("a request written anew is a request");
    assert_eq!((&again.id, &again.method), (&request.id, &request.method));
    assert_eq!(again.params.map(|raw| raw.get()), request.params.map(|raw| raw.get()));
    let _ = request.params::<Value>();
    assert_answer(&ok_response(&request.id, b"null"), &request.id, true);
    assert_answer(&error_response(&request.id, &ErrorShape::unknown_method(&request.method)), &request.id, false);
}

fn assert_answer(frame: &[u8], id: &str, ok: bool) {
    let value: Value = serde_json::from_slice(frame).expect("an answer is JSON");
    assert_eq!((&value["type"], &value["id"], &value["ok"]), (&"res".into(), &id.into(), &ok.into()));
}

/// `connect` parameters: writing what was read changes nothing, labels and lists are bounded, and no credential shows in
/// an error or in debug output.
pub fn connect(data: &[u8]) {
    let Ok(mut value) = serde_json::from_slice::<Value>(data) else { return };
    if value.to_string().contains(CANARY) {
        return;
    }
    if let Some(auth) = value.get_mut("auth").and_then(Value::as_object_mut) {
        for secret in auth.values_mut().filter(|value| value.as_str().is_some_and(|text| !text.is_empty())) {
            *secret = CANARY.into();
        }
    }
    let params = match ConnectParams::parse(&value) {
        Ok(params) => params,
        Err(error) => return assert!(!format!("{error:?}").contains(CANARY), "{error:?}"),
    };
    assert!(!format!("{params:?}").contains(CANARY), "{params:?}");
    assert!(params.client.version.chars().count() <= 200 && params.scopes.len() <= 512);
    assert!(params.min_protocol >= 1 && params.max_protocol >= 1);
    for protocol in [Protocol::V3, Protocol::V4] {
        let wire = params.to_wire(protocol);
        let again = ConnectParams::parse(&wire).unwrap_or_else(|error| panic!("{error:?} for our own {wire}"));
        assert_eq!(again.to_wire(protocol), wire);
        let signed = |params: &ConnectParams| params.proof_payload().map(|payload| (payload.v3(), payload.v2()));
        assert_eq!(signed(&again), signed(&params));
    }
}

/// A device block made from the input, honest or tampered with: accepted exactly when the signature is the key's own over
/// the very payload, for this nonce, in time.
pub fn device_proof(data: &[u8]) {
    let mut input = Input::new(data);
    let key = DeviceKey::from_seed(&[input.byte(); 32]);
    let scopes: Vec<String> = (0..input.below(4)).map(|_| input.text(20)).collect();
    let names: [String; 6] = std::array::from_fn(|_| input.text(20));
    let (signed_at_ms, nonce, own_id) = (input.i64(), input.text(40), key.id());
    let honest = ProofPayload {
        device_id: own_id.as_str(),
        client_id: &names[0],
        client_mode: &names[1],
        role: &names[2],
        scopes: &scopes,
        signed_at_ms,
        token: &names[3],
        nonce: &nonce,
        platform: &names[4],
        device_family: &names[5],
    };
    let signed = match input.below(4) {
        0 | 1 => honest.v3(),
        2 => honest.v2(),
        _ => input.text(80),
    };
    let signature = key.sign(&signed);

    // What is presented beside it, changed in at most one way.
    let (text, number) = (input.text(20), input.i64());
    let (mut presented, mut shown_key, mut shown_signature) = (honest, key.public().to_wire(), signature.clone());
    let (mut expected_nonce, mut now_ms) = (nonce.as_str(), signed_at_ms.saturating_add(i64::from(input.u16()) * 2));
    let other_id = DeviceKey::from_seed(&[input.byte(); 32]).id();
    match input.below(16) {
        0 => presented.client_id = &text,
        1 => presented.client_mode = &text,
        2 => presented.role = &text,
        3 => presented.scopes = &[],
        4 => presented.signed_at_ms = number,
        5 => presented.token = &text,
        6 => presented.nonce = &text,
        7 => presented.platform = &text,
        8 => presented.device_family = &text,
        9 => presented.device_id = other_id.as_str(),
        10 => expected_nonce = &text,
        11 => now_ms = number,
        12 => shown_signature = text.clone(),
        13 => {
            let at = usize::from(input.byte()) % shown_signature.len();
            let flipped = if shown_signature.as_bytes()[at] == b'A' { "B" } else { "A" };
            shown_signature.replace_range(at..=at, flipped);
        }
        14 => shown_key = text.clone(),
        _ => shown_key = STANDARD.encode(URL_SAFE_NO_PAD.decode(&shown_key).expect("own encoding")),
    }
    let same_key = openclaw_protocol::PublicKey::parse(&shown_key).is_some_and(|found| found == key.public());
    let in_time = (i128::from(now_ms) - i128::from(presented.signed_at_ms)).abs() <= i128::from(SIGNATURE_SKEW_MS);
    let right_nonce = presented.nonce == expected_nonce && !presented.nonce.trim().is_empty();
    let right_text = signed == presented.v3() || signed == presented.v2();
    let own = presented.device_id == own_id.as_str();
    let expected = same_key && own && in_time && right_nonce && right_text && shown_signature == signature;
    let verified = verify_proof(&shown_key, &shown_signature, &presented, expected_nonce, now_ms);
    assert_eq!(verified.is_ok(), expected, "{verified:?} for {presented:?} signed as {signed:?}");
    if let Ok((id, public)) = verified {
        assert_eq!((id, public), (own_id, key.public()));
    }
}

/// A setup code: whatever was pasted, what is read from it survives being written again, and is shown nowhere.
pub fn setup_code(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (bare, json) = (SetupCode::parse(text), URL_SAFE_NO_PAD.encode(text));
    // Mutations seldom hit base64url of JSON, so the bytes are also tried as the JSON inside.
    for code in [bare, SetupCode::parse(&json)] {
        match code {
            Ok(code) => {
                assert!(!code.urls.is_empty() && code.urls.iter().all(|url| url.starts_with("ws")), "{code:?}");
                assert!(!code.bootstrap_token.expose().trim().is_empty());
                assert_eq!(SetupCode::parse(code.encode().expose()).as_ref(), Ok(&code), "it changes when copied");
            }
            Err(error) => assert!(error.to_string().len() < 200),
        }
    }
}
