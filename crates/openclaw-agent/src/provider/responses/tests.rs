use proptest::prelude::*;
use serde_json::json;

use super::{Reader, body};
use crate::{
    message::Message,
    provider::{
        Thinking,
        explain::ApiError,
        http::Fault,
        seal::Seal,
        testing::{self, check, conversation, endpoint, model, read, reference, request, shown, tool},
        tuning::{Compat, Tuning},
    },
};

fn reader() -> Reader {
    Reader::new(reference("openai/gpt"))
}

/// A reasoning item, a text and a call (API reference, "Streaming events").
const STREAM: &str = r#"event: response.created
data: {"type":"response.created","sequence_number":0,"response":{"id":"resp_67c9","object":"response","created_at":1741294021,"status":"in_progress","error":null,"incomplete_details":null,"model":"gpt-5.4-2026-03-01","output":[],"usage":null}}

event: response.in_progress
data: {"type":"response.in_progress","sequence_number":1,"response":{"id":"resp_67c9","status":"in_progress","model":"gpt-5.4-2026-03-01"}}

event: response.output_item.added
data: {"type":"response.output_item.added","sequence_number":2,"output_index":0,"item":{"id":"rs_1","type":"reasoning","summary":[],"encrypted_content":"gAAA"}}

event: response.reasoning_summary_part.added
data: {"type":"response.reasoning_summary_part.added","sequence_number":3,"item_id":"rs_1","output_index":0,"summary_index":0,"part":{"type":"summary_text","text":""}}

event: response.reasoning_summary_text.delta
data: {"type":"response.reasoning_summary_text.delta","sequence_number":4,"item_id":"rs_1","output_index":0,"summary_index":0,"delta":"**Looking","obfuscation":"a1"}

event: response.reasoning_summary_text.delta
data: {"type":"response.reasoning_summary_text.delta","sequence_number":5,"item_id":"rs_1","output_index":0,"summary_index":0,"delta":" up**"}

event: response.reasoning_summary_text.done
data: {"type":"response.reasoning_summary_text.done","sequence_number":6,"item_id":"rs_1","output_index":0,"summary_index":0,"text":"**Looking up**"}

event: response.reasoning_summary_part.added
data: {"type":"response.reasoning_summary_part.added","sequence_number":7,"item_id":"rs_1","output_index":0,"summary_index":1,"part":{"type":"summary_text","text":""}}

event: response.reasoning_summary_text.delta
data: {"type":"response.reasoning_summary_text.delta","sequence_number":8,"item_id":"rs_1","output_index":0,"summary_index":1,"delta":"**Then**"}

event: response.output_item.done
data: {"type":"response.output_item.done","sequence_number":9,"output_index":0,"item":{"id":"rs_1","type":"reasoning","summary":[{"type":"summary_text","text":"**Looking up**"}],"encrypted_content":"gAAAAABo","status":"completed"}}

event: response.output_item.added
data: {"type":"response.output_item.added","sequence_number":10,"output_index":1,"item":{"id":"msg_1","type":"message","status":"in_progress","role":"assistant","content":[]}}

event: response.content_part.added
data: {"type":"response.content_part.added","sequence_number":11,"item_id":"msg_1","output_index":1,"content_index":0,"part":{"type":"output_text","text":"","annotations":[]}}

event: response.output_text.delta
data: {"type":"response.output_text.delta","sequence_number":12,"item_id":"msg_1","output_index":1,"content_index":0,"delta":"In a","logprobs":[]}

event: response.output_text.delta
data: {"type":"response.output_text.delta","sequence_number":13,"item_id":"msg_1","output_index":1,"content_index":0,"delta":" moment","logprobs":[]}

event: response.output_text.done
data: {"type":"response.output_text.done","sequence_number":14,"item_id":"msg_1","output_index":1,"content_index":0,"text":"In a moment","logprobs":[]}

event: response.output_item.done
data: {"type":"response.output_item.done","sequence_number":15,"output_index":1,"item":{"id":"msg_1","type":"message","status":"completed","role":"assistant","content":[{"type":"output_text","text":"In a moment","annotations":[]}]}}

event: response.output_item.added
data: {"type":"response.output_item.added","sequence_number":16,"output_index":2,"item":{"type":"function_call","id":"fc_1","call_id":"call_1","name":"get_weather","arguments":"","status":"in_progress"}}

event: response.function_call_arguments.delta
data: {"type":"response.function_call_arguments.delta","sequence_number":17,"item_id":"fc_1","output_index":2,"delta":"{\"location\":"}

event: response.function_call_arguments.delta
data: {"type":"response.function_call_arguments.delta","sequence_number":18,"item_id":"fc_1","output_index":2,"delta":"\"Paris\"}"}

event: response.function_call_arguments.done
data: {"type":"response.function_call_arguments.done","sequence_number":19,"item_id":"fc_1","output_index":2,"arguments":"{\"location\":\"Paris\"}"}

event: response.output_item.done
data: {"type":"response.output_item.done","sequence_number":20,"output_index":2,"item":{"type":"function_call","id":"fc_1","call_id":"call_1","name":"get_weather","arguments":"{\"location\":\"Paris\"}","status":"completed"}}

event: response.completed
data: {"type":"response.completed","sequence_number":21,"response":{"id":"resp_67c9","status":"completed","error":null,"incomplete_details":null,"model":"gpt-5.4-2026-03-01","output":[],"usage":{"input_tokens":1300,"input_tokens_details":{"cached_tokens":1024},"output_tokens":278,"output_tokens_details":{"reasoning_tokens":128},"total_tokens":1578}}}

"#;

fn seal() -> String {
    Seal::Item(json!({
        "type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "**Looking up**"}],
        "encrypted_content": "gAAAAABo",
    }))
    .close(&reference("openai/gpt"))
}

#[test]
fn streams() {
    check(
        reader,
        STREAM,
        &[
            "started gpt-5.4-2026-03-01 resp_67c9",
            "think **Looking up**\n\n**Then**",
            &format!("seal {}", seal()),
            "text In a moment",
            "call 2 call_1 get_weather",
            r#"args 2 {"location":"Paris"}"#,
            "usage 276/278/1024/0",
            "stop ToolUse",
        ],
    );
    // Servers that show a call only when it is done, plain reasoning, and no encrypted content.
    check(
        reader,
        r#"data: {"type":"response.created","response":{"id":"r","model":"local"}}

data: {"type":"response.reasoning_text.delta","item_id":"rs","output_index":0,"content_index":0,"delta":"Hm"}

data: {"type":"response.output_item.done","output_index":0,"item":{"id":"rs","type":"reasoning","summary":[]}}

data: {"type":"response.output_item.done","output_index":1,"item":{"type":"function_call","id":"fc","call_id":"c9","name":"look","arguments":"{\"at\":1}"}}

data: {"type":"response.completed","response":{"id":"r","status":"completed","usage":{"input_tokens":1,"output_tokens":2,"total_tokens":3}}}

data: [DONE]

"#,
        &["started local r", "think Hm", "call 1 c9 look", r#"args 1 {"at":1}"#, "usage 1/2/0/0", "stop ToolUse"],
    );
    let end = |kind: &str, more: &str| {
        format!(
            "data: {{\"type\":\"response.output_text.delta\",\"delta\":\"a\"}}\n\ndata: {{\"type\":\"{kind}\",\"response\":{{{more}}}}}\n\n"
        )
    };
    let length = end("response.incomplete", r#""incomplete_details":{"reason":"max_output_tokens"}"#);
    check(reader, &length, &["text a", "stop Length"]);
    let filter = end("response.incomplete", r#""incomplete_details":{"reason":"content_filter"}"#);
    check(reader, &filter, &["text a", "stop Refusal"]);
    check(
        reader,
        "data: {\"type\":\"response.refusal.delta\",\"delta\":\"I can't\"}\n\ndata: {\"type\":\"response.some_new_thing\",\"x\":[1]}\n\ndata: {\"type\":\"response.completed\",\"response\":{}}\n\n",
        &["text I can't", "stop Refusal"],
    );
}

#[test]
fn faults_in_the_middle() {
    let check = |stream: &str, expected: Fault| {
        let (deltas, result) = read(reader(), [stream.as_bytes()]);
        assert_eq!(result, Err(expected), "{:?}", shown(&deltas));
    };
    let api = |codes: &[&str], message: &str| {
        Fault::Api(ApiError { codes: codes.iter().map(|c| (*c).to_owned()).collect(), message: message.to_owned() })
    };
    check(
        r#"data: {"type":"response.failed","sequence_number":1,"response":{"id":"r","status":"failed","error":{"code":"server_error","message":"The model failed to generate a response."}}}

"#,
        api(&["server_error"], "The model failed to generate a response."),
    );
    check(
        r#"data: {"type":"error","code":"rate_limit_exceeded","message":"Slow down","param":null,"sequence_number":1}

"#,
        api(&["rate_limit_exceeded"], "Slow down"),
    );
    check(
        r#"data: {"type":"error","error":{"type":"invalid_request_error","code":"context_length_exceeded","message":"Your input exceeds the context window of this model."}}

"#,
        api(
            &["invalid_request_error", "context_length_exceeded"],
            "Your input exceeds the context window of this model.",
        ),
    );
    check("data: {\"error\":{\"message\":\"boom\",\"code\":500}}\n\n", api(&["500"], "boom"));
    check("data: {\"type\":\n\n", Fault::Garbage("an event that is not one (column 8)".to_owned()));
    check(
        "data: {\"type\":\"response.function_call_arguments.delta\",\"output_index\":4,\"delta\":\"{\"}\n\n",
        Fault::Garbage("arguments of a call that has not begun".to_owned()),
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

#[test]
fn a_conversation_as_a_body() {
    let mut thinker = model("openai/gpt");
    thinker.reasoning = true;
    let mut asked = request(thinker, conversation(Some(seal())));
    asked.system = "Be kind.".to_owned();
    asked.tools = vec![tool()].into();
    asked.thinking = Thinking::High;
    asked.max_tokens = Some(500);
    let built = testing::body(body, &asked, &endpoint("openai", "https://api.openai.com/v1"), &Tuning::default());
    assert_eq!(
        built,
        json!({
            "model": "gpt", "instructions": "Be kind.", "stream": true, "store": false,
            "include": ["reasoning.encrypted_content"], "reasoning": {"effort": "high", "summary": "auto"},
            "max_output_tokens": 500,
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "what is it?"}]},
                {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "**Looking up**"}],
                    "encrypted_content": "gAAAAABo"},
                {"role": "assistant", "content": "let me look"},
                {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": "{\"at\":\"it\"}"},
                {"type": "function_call_output", "call_id": "call_1", "output": "a picture"},
                {"role": "user", "content": [{"type": "input_text", "text": "[Images that the tools gave back]"},
                    {"type": "input_image", "image_url": "data:image/png;base64,cG5n", "detail": "auto"}]},
            ],
            "tools": [{"type": "function", "name": "look", "description": "Looks.", "strict": false, "parameters":
                {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]}}],
        })
    );
    // Another model's reasoning stays away.
    let foreign = request(model("openai/other"), conversation(Some(seal())));
    let built = testing::body(body, &foreign, &endpoint("openai", "https://api.openai.com/v1"), &Tuning::default());
    assert!(!built.to_string().contains("gAAAAABo"));
}

#[test]
fn imitators_get_less() {
    let mut asked = request(model("local/m"), vec![Message::user("a")]);
    asked.system = "Be kind.".to_owned();
    let local = endpoint("local", "http://127.0.0.1:1/v1");
    let built = testing::body(body, &asked, &local, &Tuning::default());
    assert_eq!(
        built,
        json!({"model": "m", "stream": true, "input": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
        ]})
    );
    let compat = Compat { instructions: Some(true), ..Compat::default() };
    let built = testing::body(body, &asked, &local, &Tuning { compat, ..Tuning::default() });
    assert_eq!(built["instructions"], "Be kind.");
}
