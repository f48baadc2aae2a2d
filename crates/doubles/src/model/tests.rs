use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use serde_json::{Value, json};

use super::*;

/// The raw bytes of an answer, to the end of the connection.
fn post(model: &Model, path: &str, body: &Value) -> String {
    let mut stream = TcpStream::connect(model.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let body = body.to_string();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\nanthropic-version: 2023-06-01\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

fn asks(text: &str, stream: bool) -> Value {
    json!({"model": "m", "max_tokens": 9, "stream": stream, "messages": [{"role": "user", "content": text}]})
}

#[test]
fn texts_are_cut_evenly() {
    let check = |text: &str, pieces: usize, expected: &[&str]| {
        assert_eq!(Reply::say(text).pieces(pieces).cut(text), expected, "{text:?} in {pieces}");
    };
    check("abcdef", 1, &["abcdef"]);
    check("abcdef", 4, &["ab", "cd", "e", "f"]);
    check("aé\u{1f99e}", usize::MAX, &["a", "é", "\u{1f99e}"]);
    check("", 5, &[""]);
}

#[test]
fn scripts_choose() {
    let model = Model::start(Script::rounds([Reply::say("one"), Reply::say("two")]));
    for expected in ["one", "two", "two"] {
        assert!(post(&model, "/v1/chat/completions", &asks("x", false)).contains(expected), "{expected}");
    }
    model.play(Script::by_text(
        [("weather", vec![Reply::call("look", json!({})), Reply::say("sunny")])],
        Reply::say("what?"),
    ));
    let answers = ["weather in Rome", "weather in Rome", "else"]
        .map(|text| post(&model, "/v1/chat/completions", &asks(text, false)));
    assert!(
        answers[0].contains("tool_calls") && answers[1].contains("sunny") && answers[2].contains("what?"),
        "{answers:?}"
    );
    assert_eq!(model.asks().len(), 6);
    assert_eq!(model.last().last_user, "else");
}

#[test]
fn what_the_real_ones_refuse_is_refused() {
    let model = Model::echo();
    let call = json!({"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let open = json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": null, "tool_calls": [call]}]);
    let answer = post(&model, "/v1/chat/completions", &json!({"model": "m", "messages": open}));
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("c1"), "{answer}");
    let tool_use = json!([{"role": "user", "content": "a"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": {}}]}]);
    let answer = post(&model, "/v1/messages", &json!({"model": "m", "max_tokens": 9, "messages": tool_use}));
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("tool_use"), "{answer}");
    let lost =
        json!([{"type": "function_call_output", "call_id": "x", "output": "y"}, {"role": "user", "content": "a"}]);
    let answer = post(&model, "/v1/responses", &json!({"model": "m", "input": lost}));
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("No tool call found"), "{answer}");
    model.demand_key("k");
    assert!(post(&model, "/v1/messages", &asks("a", true)).starts_with("HTTP/1.1 401"));
}

#[test]
fn a_cut_leaves_no_end() {
    let model = Model::start(Script::always(Reply::say("Hello Ada").fails(Fault::CutAfter(300))));
    let answer = post(&model, "/v1/chat/completions", &asks("x", true));
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(body.starts_with("12C\r\ndata: {") && !body.contains("[DONE]") && !body.ends_with("0\r\n\r\n"), "{body}");
    model.wait_idle();
}
