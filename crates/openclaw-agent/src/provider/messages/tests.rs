use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Reader, body, is_adaptive};
use crate::{
    message::Message,
    provider::{
        Thinking,
        explain::ApiError,
        http::Fault,
        seal::Seal,
        testing::{self, check, conversation, endpoint, model, read, reference, request, shown, tool},
        tuning::Tuning,
    },
};

fn reader() -> Reader {
    Reader::new(reference("anthropic/claude"))
}

/// Thinking with its signature, text, two calls, a ping (documentation, "Streaming messages").
const STREAM: &str = r#"event: message_start
data: {"type":"message_start","message":{"id":"msg_014p7gG3wDgGV9EUtLvnow3U","type":"message","role":"assistant","model":"claude-sonnet-5","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":472,"cache_creation_input_tokens":100,"cache_read_input_tokens":2000,"output_tokens":2,"service_tier":"standard"}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}

event: ping
data: {"type": "ping"}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"Let me"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":" see"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"EqQBCgIYAhIM1gbcDa9GJwZA2b3h"}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: content_block_start
data: {"type":"content_block_start","index":1,"content_block":{"type":"redacted_thinking","data":"EmwKAhgB"}}

event: content_block_stop
data: {"type":"content_block_stop","index":1}

event: content_block_start
data: {"type":"content_block_start","index":2,"content_block":{"type":"text","text":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":2,"delta":{"type":"text_delta","text":"Okay"}}

event: content_block_delta
data: {"type":"content_block_delta","index":2,"delta":{"type":"text_delta","text":", é!"}}

event: content_block_stop
data: {"type":"content_block_stop","index":2}

event: content_block_start
data: {"type":"content_block_start","index":3,"content_block":{"type":"tool_use","id":"toolu_01T1x1fJ34qAmk2tNTrN7Up6","name":"get_weather","input":{}}}

event: content_block_delta
data: {"type":"content_block_delta","index":3,"delta":{"type":"input_json_delta","partial_json":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":3,"delta":{"type":"input_json_delta","partial_json":"{\"location\": \"San"}}

event: content_block_delta
data: {"type":"content_block_delta","index":3,"delta":{"type":"input_json_delta","partial_json":" Francisco\"}"}}

event: content_block_stop
data: {"type":"content_block_stop","index":3}

event: content_block_start
data: {"type":"content_block_start","index":4,"content_block":{"type":"tool_use","id":"toolu_2","name":"get_time","input":{}}}

event: content_block_stop
data: {"type":"content_block_stop","index":4}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"output_tokens":89}}

event: message_stop
data: {"type":"message_stop"}

"#;

fn sealed(seal: Seal) -> String {
    seal.close(&reference("anthropic/claude"))
}

#[test]
fn streams() {
    check(
        reader,
        STREAM,
        &[
            "started claude-sonnet-5 msg_014p7gG3wDgGV9EUtLvnow3U",
            "usage 472/2/2000/100",
            "think Let me see",
            &format!("seal {}", sealed(Seal::Signature("EqQBCgIYAhIM1gbcDa9GJwZA2b3h".to_owned()))),
            &format!("seal {}", sealed(Seal::Redacted("EmwKAhgB".to_owned()))),
            "text Okay, é!",
            "call 3 toolu_01T1x1fJ34qAmk2tNTrN7Up6 get_weather",
            r#"args 3 {"location": "San Francisco"}"#,
            "call 4 toolu_2 get_time",
            "usage 472/89/2000/100",
            "stop ToolUse",
        ],
    );
    let ends = |reason: &str, stop: &str| {
        let stream = format!(
            "event: message_delta\ndata: {{\"type\":\"message_delta\",\"delta\":{{\"stop_reason\":\"{reason}\"}},\"usage\":{{\"output_tokens\":1}}}}\n\nevent: message_stop\ndata: {{\"type\":\"message_stop\"}}\n\n"
        );
        check(reader, &stream, &["usage 0/1/0/0", &format!("stop {stop}")]);
    };
    ends("end_turn", "End");
    ends("stop_sequence", "End");
    ends("max_tokens", "Length");
    ends("model_context_window_exceeded", "Length");
    ends("refusal", "Refusal");
    ends("something_new", "End");
    // An imitator that gives a call's input at once, and blocks nobody knows.
    check(
        reader,
        r#"data: {"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"t","name":"look","input":{"at":1}}}

data: {"type":"content_block_stop","index":0}

data: {"type":"content_block_start","index":1,"content_block":{"type":"server_tool_use","id":"s","name":"web_search","input":{}}}

data: {"type":"content_block_delta","index":1,"delta":{"type":"citations_delta","citation":{}}}

data: {"type":"message_delta","delta":{"stop_reason":"tool_use"}}

data: {"type":"message_stop"}

"#,
        &["call 0 t look", r#"args 0 {"at":1}"#, "stop ToolUse"],
    );
}

#[test]
fn faults_in_the_middle() {
    let check = |stream: &str, expected: Fault| {
        let (deltas, result) = read(reader(), [stream.as_bytes()]);
        assert_eq!(result, Err(expected), "{:?}", shown(&deltas));
    };
    let overloaded = ApiError { codes: vec!["overloaded_error".to_owned()], message: "Overloaded".to_owned() };
    check(
        "event: error\ndata: {\"type\": \"error\", \"error\": {\"type\": \"overloaded_error\", \"message\": \"Overloaded\"}}\n\n",
        Fault::Api(overloaded),
    );
    check("data: not json\n\n", Fault::Garbage("an event that is not one (column 2)".to_owned()));
    check(
        "data: {\"type\":\"content_block_delta\",\"index\":7,\"delta\":{\"type\":\"text_delta\",\"text\":\"a\"}}\n\n",
        Fault::Garbage("a piece of a block that has not begun".to_owned()),
    );
}

proptest! {
    #[test]
    fn any_cut_gives_the_same_answer(mut cuts in prop::collection::vec(0..STREAM.len(), 0..12)) {
        cuts.extend([0, STREAM.len()]);
        cuts.sort_unstable();
        let bytes = STREAM.as_bytes();
        let (deltas, result) = read(reader(), cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]));
        prop_assert_eq!(result, Ok(()));
        prop_assert_eq!(deltas, read(reader(), [bytes]).0);
    }
}

fn build(name: &str, thinking: Thinking, messages: Vec<Message>, base: &str) -> Value {
    let mut thinker = model(name);
    thinker.reasoning = true;
    thinker.max_tokens = Some(64_000);
    let mut asked = request(thinker, messages);
    asked.thinking = thinking;
    asked.system = "Be kind.".to_owned();
    asked.tools = vec![tool()].into();
    testing::body(body, &asked, &endpoint("anthropic", base), &Tuning::default())
}

const ANTHROPIC: &str = "https://api.anthropic.com";
const OTHER: &str = "https://a.test/anthropic";

#[test]
fn a_conversation_as_a_body() {
    let seal = Seal::Signature("Sig".to_owned()).close(&reference("anthropic/claude-sonnet-5"));
    let built = build("anthropic/claude-sonnet-5", Thinking::XHigh, conversation(Some(seal)), ANTHROPIC);
    let cache = json!({"type": "ephemeral"});
    assert_eq!(
        built,
        json!({
            "model": "claude-sonnet-5", "max_tokens": 64_000, "stream": true,
            "system": [{"type": "text", "text": "Be kind.", "cache_control": cache}],
            "thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "xhigh"},
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "what is it?"}]},
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "Sig"},
                    {"type": "text", "text": "let me look"},
                    {"type": "tool_use", "id": "call_1", "name": "look", "input": {"at": "it"}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_1", "is_error": false, "content": [
                    {"type": "text", "text": "a picture"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "cG5n"}}],
                    "cache_control": cache}]},
            ],
            "tools": [{"name": "look", "description": "Looks.", "input_schema":
                {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]}}],
        })
    );
    // Results and what the person said meanwhile are one turn.
    let mut messages = conversation(None);
    messages.push(Message::user("hurry"));
    let built = build("anthropic/claude-sonnet-5", Thinking::Off, messages, OTHER);
    assert_eq!(built["messages"].as_array().unwrap().len(), 3);
    assert_eq!(built["messages"][2]["content"][1], json!({"type": "text", "text": "hurry"}));
    assert!(!built.to_string().contains("cache_control") && built.get("thinking").is_none(), "{built}");
}

#[test]
fn thinking_in_both_ways() {
    let ask = || vec![Message::user("a")];
    let check = |name: &str, level: Thinking, messages: Vec<Message>, thinking: Value, max: u64| {
        let built = build(name, level, messages, ANTHROPIC);
        assert_eq!(built.get("thinking").cloned().unwrap_or_default(), thinking, "{name} {level}");
        assert_eq!(built["max_tokens"], max);
    };
    let budget = |tokens: u64| json!({"type": "enabled", "budget_tokens": tokens});
    check("anthropic/claude-sonnet-4-5", Thinking::High, ask(), budget(16_384), 64_000);
    check("anthropic/claude-sonnet-4-5", Thinking::Minimal, ask(), budget(1_024), 64_000);
    check("anthropic/claude-sonnet-4-5", Thinking::Off, ask(), Value::Null, 64_000);
    check("kimi/k3", Thinking::Low, ask(), budget(2_048), 64_000);
    let adaptive = json!({"type": "adaptive", "display": "summarized"});
    check("anthropic/claude-opus-5", Thinking::Low, ask(), adaptive, 64_000);
    // In the middle of calls another model has made, none can be shown to have been thought about.
    check("anthropic/claude-sonnet-4-5", Thinking::High, conversation(None), Value::Null, 64_000);
    let foreign = Seal::Signature("S".to_owned()).close(&reference("anthropic/claude-opus-4-1"));
    check("anthropic/claude-sonnet-4-5", Thinking::High, conversation(Some(foreign)), Value::Null, 64_000);
    let own = Seal::Signature("S".to_owned()).close(&reference("anthropic/claude-sonnet-4-5"));
    check("anthropic/claude-sonnet-4-5", Thinking::High, conversation(Some(own)), budget(16_384), 64_000);
    // A small limit makes room for thinking, up to what the model can.
    let mut small = model("anthropic/claude-sonnet-4-5");
    (small.reasoning, small.max_tokens) = (true, Some(10_000));
    let mut asked = request(small, ask());
    (asked.thinking, asked.max_tokens) = (Thinking::High, Some(500));
    let built = testing::body(body, &asked, &endpoint("anthropic", ANTHROPIC), &Tuning::default());
    assert_eq!((&built["max_tokens"], &built["thinking"]), (&json!(10_000), &budget(8_976)));
}

#[test]
fn which_claude_takes_an_effort() {
    for adaptive in [
        "claude-opus-4-6",
        "claude-sonnet-4-6",
        "claude-opus-4-7",
        "claude-opus-5",
        "claude-sonnet-5",
        "claude-opus-5-5",
        "claude-fable-5-1",
        "claude-opus-5-20261001",
    ] {
        assert!(is_adaptive(adaptive), "{adaptive}");
    }
    for older in [
        "claude-3-5-sonnet-20241022",
        "claude-3-7-sonnet-latest",
        "claude-opus-4-20250514",
        "claude-sonnet-4-0",
        "claude-opus-4-1",
        "claude-haiku-4-5",
        "claude-sonnet-4-5-20250929",
        "claude-2.1",
        "claude-instant-1.2",
        "k3",
        "MiniMax-M3",
    ] {
        assert!(!is_adaptive(older), "{older}");
    }
}
