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
        testing::{check, conversation, endpoint, model, read, reference, request, shown, tool},
        tuning::{Compat, Tuning},
    },
};

fn reader() -> Reader {
    Reader::new(reference("p/m"))
}

/// OpenAI: two calls in parallel, usage in a chunk of its own (API reference, "Streaming").
const OPENAI: &str = r#"data: {"id":"chatcmpl-123","object":"chat.completion.chunk","created":1694268190,"model":"gpt-5.4-2026-03-01","service_tier":"default","system_fingerprint":"fp_44709d6fcb","choices":[{"index":0,"delta":{"role":"assistant","content":null,"refusal":null},"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"xYz"}

data: {"id":"chatcmpl-123","object":"chat.completion.chunk","created":1694268190,"model":"gpt-5.4-2026-03-01","choices":[{"index":0,"delta":{"content":"Looking"},"logprobs":null,"finish_reason":null}],"usage":null}

data: {"id":"chatcmpl-123","object":"chat.completion.chunk","created":1694268190,"model":"gpt-5.4-2026-03-01","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_DdmO9pD3xa9XTPNJ32zg2hcA","type":"function","function":{"name":"get_weather","arguments":""}}]},"logprobs":null,"finish_reason":null}],"usage":null}

data: {"id":"chatcmpl-123","object":"chat.completion.chunk","created":1694268190,"model":"gpt-5.4-2026-03-01","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"loc"}}]},"logprobs":null,"finish_reason":null}],"usage":null}

data: {"id":"chatcmpl-123","object":"chat.completion.chunk","created":1694268190,"model":"gpt-5.4-2026-03-01","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"ation\":\"Zürich\"}"}}]},"logprobs":null,"finish_reason":null}],"usage":null}

data: {"id":"chatcmpl-123","object":"chat.completion.chunk","created":1694268190,"model":"gpt-5.4-2026-03-01","choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"call_2","type":"function","function":{"name":"get_time","arguments":"{}"}}]},"logprobs":null,"finish_reason":null}],"usage":null}

data: {"id":"chatcmpl-123","object":"chat.completion.chunk","created":1694268190,"model":"gpt-5.4-2026-03-01","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"tool_calls"}],"usage":null}

data: {"id":"chatcmpl-123","object":"chat.completion.chunk","created":1694268190,"model":"gpt-5.4-2026-03-01","choices":[],"usage":{"prompt_tokens":1117,"completion_tokens":46,"total_tokens":1163,"prompt_tokens_details":{"cached_tokens":1024,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}

data: [DONE]

"#;

#[test]
fn streams_of_many_servers() {
    check(
        reader,
        OPENAI,
        &[
            "started gpt-5.4-2026-03-01 chatcmpl-123",
            "text Looking",
            "call 0 call_DdmO9pD3xa9XTPNJ32zg2hcA get_weather",
            r#"args 0 {"location":"Zürich"}"#,
            "call 1 call_2 get_time",
            "args 1 {}",
            "usage 93/46/1024/0",
            "stop ToolUse",
        ],
    );
    // DeepSeek: thoughts first, its own count of cached tokens, usage beside the last choice.
    check(
        reader,
        r#"data: {"id":"ds","model":"deepseek-reasoner","choices":[{"index":0,"delta":{"role":"assistant","content":null,"reasoning_content":""},"finish_reason":null}]}

data: {"id":"ds","model":"deepseek-reasoner","choices":[{"index":0,"delta":{"content":null,"reasoning_content":"Hm, "},"finish_reason":null}]}

data: {"id":"ds","model":"deepseek-reasoner","choices":[{"index":0,"delta":{"content":null,"reasoning_content":"9.8"},"finish_reason":null}]}

data: {"id":"ds","model":"deepseek-reasoner","choices":[{"index":0,"delta":{"content":"9.8","reasoning_content":null},"finish_reason":null}]}

data: {"id":"ds","model":"deepseek-reasoner","choices":[{"index":0,"delta":{"content":"","reasoning_content":null},"finish_reason":"stop"}],"usage":{"prompt_tokens":20,"completion_tokens":7,"total_tokens":27,"prompt_tokens_details":null,"prompt_cache_hit_tokens":16,"prompt_cache_miss_tokens":4}}

data: [DONE]

"#,
        &["started deepseek-reasoner ds", "think Hm, 9.8", "text 9.8", "usage 4/7/16/0", "stop End"],
    );
    // OpenRouter: comments, both names of a thought, details to give back.
    let details =
        r#"[{"type":"reasoning.text","text":"Hm, so","format":"anthropic-claude-v1","index":0,"signature":"Sig"}]"#;
    let seal = Seal::Details(serde_json::from_str(details).unwrap()).close(&reference("p/m"));
    check(
        reader,
        r#": OPENROUTER PROCESSING

data: {"id":"gen-1","provider":"Anthropic","model":"anthropic/claude-sonnet-5","object":"chat.completion.chunk","created":1,"choices":[{"index":0,"delta":{"role":"assistant","content":"","reasoning":"Hm, ","reasoning_details":[{"type":"reasoning.text","text":"Hm, ","format":"anthropic-claude-v1","index":0}]},"finish_reason":null,"native_finish_reason":null,"logprobs":null}]}

: OPENROUTER PROCESSING

data: {"id":"gen-1","provider":"Anthropic","model":"anthropic/claude-sonnet-5","choices":[{"index":0,"delta":{"role":"assistant","content":"","reasoning":"so","reasoning_details":[{"type":"reasoning.text","text":"so","index":0}]},"finish_reason":null}]}

data: {"id":"gen-1","provider":"Anthropic","model":"anthropic/claude-sonnet-5","choices":[{"index":0,"delta":{"role":"assistant","content":"","reasoning_details":[{"type":"reasoning.text","signature":"Sig","index":0}]},"finish_reason":null}]}

data: {"id":"gen-1","provider":"Anthropic","model":"anthropic/claude-sonnet-5","choices":[{"index":0,"delta":{"role":"assistant","content":"Yes"},"finish_reason":"stop","native_finish_reason":"end_turn"}]}

data: {"id":"gen-1","provider":"Anthropic","model":"anthropic/claude-sonnet-5","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11,"cost":0.0001,"is_byok":false,"prompt_tokens_details":{"cached_tokens":0}}}

data: [DONE]
"#,
        &[
            "started anthropic/claude-sonnet-5 gen-1",
            "think Hm, so",
            "text Yes",
            "usage 9/2/0/0",
            &format!("seal {seal}"),
            "stop End",
        ],
    );
    // Ollama: whole calls, all numbered 0, told apart by their ids; `finish_reason` says stop.
    check(
        reader,
        r#"data: {"id":"chatcmpl-9","object":"chat.completion.chunk","created":1,"model":"qwen3","system_fingerprint":"fp_ollama","choices":[{"index":0,"delta":{"role":"assistant","content":"","tool_calls":[{"index":0,"id":"call_a","type":"function","function":{"name":"look","arguments":"{\"at\":1}"}}]},"finish_reason":null}]}

data: {"id":"chatcmpl-9","object":"chat.completion.chunk","created":1,"model":"qwen3","choices":[{"index":0,"delta":{"role":"assistant","content":"","tool_calls":[{"index":0,"id":"call_b","type":"function","function":{"name":"look","arguments":"{\"at\":2}"}}]},"finish_reason":null}]}

data: {"id":"chatcmpl-9","object":"chat.completion.chunk","created":1,"model":"qwen3","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":"stop"}]}

data: [DONE]

"#,
        &[
            "started qwen3 chatcmpl-9",
            "call 0 call_a look",
            r#"args 0 {"at":1}"#,
            "call 1 call_b look",
            r#"args 1 {"at":2}"#,
            "stop ToolUse",
        ],
    );
    // Gemini's imitation: no index at all, arguments as an object; no [DONE].
    check(
        reader,
        r#"data: {"id":"g","model":"gemini-3","choices":[{"index":0,"delta":{"role":"assistant","tool_calls":[{"id":"x1","type":"function","function":{"name":"look","arguments":{"at":1}}},{"id":"x2","type":"function","function":{"name":"look","arguments":"{}"}}]}}]}

data: {"id":"g","model":"gemini-3","choices":[{"index":0,"delta":{"role":"assistant"},"finish_reason":"tool_calls"}]}

"#,
        &["started gemini-3 g", "call 0 x1 look", r#"args 0 {"at":1}"#, "call 1 x2 look", "args 1 {}", "stop ToolUse"],
    );
    // Mistral: thinking and text as parts.
    check(
        reader,
        r#"data: {"id":"mi","model":"magistral","choices":[{"index":0,"delta":{"role":"assistant","content":[{"type":"thinking","thinking":[{"type":"text","text":"Hm"}]}]},"finish_reason":null}]}

data: {"id":"mi","model":"magistral","choices":[{"index":0,"delta":{"content":[{"type":"text","text":"Yes"}]},"finish_reason":"length"}],"usage":{"prompt_tokens":1,"total_tokens":3,"completion_tokens":2}}

data: [DONE]

"#,
        &["started magistral mi", "think Hm", "text Yes", "usage 1/2/0/0", "stop Length"],
    );
    // A refusal, and a filter.
    check(
        reader,
        r#"data: {"id":"r","model":"m","choices":[{"index":0,"delta":{"refusal":"I can't"},"finish_reason":null}]}

data: {"id":"r","model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}

data: [DONE]

"#,
        &["started m r", "text I can't", "stop Refusal"],
    );
    check(
        reader,
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"finish_reason\":\"content_filter\"}]}\n\ndata: [DONE]\n\n",
        &["started - -", "text a", "stop Refusal"],
    );
    // Azure's first chunk has no choice; a second choice is nobody's.
    check(
        reader,
        "data: {\"choices\":[],\"prompt_filter_results\":[]}\n\ndata: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"no\"}},{\"delta\":{\"content\":\"a\"}}]}\n\ndata: [DONE]\n\n",
        &["started - -", "text a", "stop End"],
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
    // OpenRouter, vLLM, llama.cpp.
    check(
        r#"data: {"id":"g","object":"chat.completion.chunk","error":{"code":429,"message":"Rate limit exceeded"},"choices":[{"index":0,"delta":{"content":""},"finish_reason":"error"}]}

"#,
        api(&["429"], "Rate limit exceeded"),
    );
    check(
        "data: {\"error\": {\"object\": \"error\", \"message\": \"boom\", \"type\": \"BadRequestError\", \"code\": 400}}\n\n",
        api(&["BadRequestError", "400"], "boom"),
    );
    check(
        "data: {\"error\":\"model runner has unexpectedly stopped\"}\n\n",
        api(&[], "model runner has unexpectedly stopped"),
    );
    check("data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"error\"}]}\n\n", api(&["server_error"], ""));
    check("data: {\"choices\":[{\n\n", Fault::Garbage("a chunk that is not one (column 13)".to_owned()));
    check("data: <html>\n\n", Fault::Garbage("a chunk that is not one (column 1)".to_owned()));
    check(
        "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{}\"}}]}}]}\n\n",
        Fault::Garbage("a piece of a tool call that has no name".to_owned()),
    );
}

proptest! {
    /// However the network cuts it, the answer is the same.
    #[test]
    fn any_cut_gives_the_same_answer(mut cuts in prop::collection::vec(0..OPENAI.len(), 0..12)) {
        cuts.extend([0, OPENAI.len()]);
        cuts.sort_unstable();
        let bytes = OPENAI.as_bytes();
        let pieces = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]);
        let (deltas, result) = read(reader(), pieces);
        prop_assert_eq!(result, Ok(()));
        prop_assert_eq!(deltas, read(reader(), [bytes]).0);
    }
}

#[test]
fn a_conversation_as_a_body() {
    let mut request = request(model("p/m"), conversation(None));
    request.system = "Be kind.".to_owned();
    request.tools = vec![tool()].into();
    let endpoint = endpoint("p", "http://127.0.0.1:1/v1");
    let built = crate::provider::testing::body(body, &request, &endpoint, &Tuning::default());
    assert_eq!(
        built,
        json!({
            "model": "m", "stream": true, "stream_options": {"include_usage": true},
            "messages": [
                {"role": "system", "content": "Be kind."},
                {"role": "user", "content": "what is it?"},
                {"role": "assistant", "content": "let me look", "tool_calls": [
                    {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{\"at\":\"it\"}"}}]},
                {"role": "tool", "tool_call_id": "call_1", "content": "a picture"},
                {"role": "user", "content": [
                    {"type": "text", "text": "[Images that the tools gave back]"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,cG5n"}}]},
            ],
            "tools": [{"type": "function", "function": {"name": "look", "description": "Looks.", "parameters":
                {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]}}}],
        })
    );
}

#[test]
fn dialects() {
    let check = |base: &str, compat: Compat, thinking: Thinking, expected: serde_json::Value| {
        let mut thinker = model("p/m");
        thinker.reasoning = true;
        let mut request = request(thinker, vec![Message::user("a")]);
        request.thinking = thinking;
        let tuning = Tuning { max_tokens: Some(100), compat, ..Tuning::default() };
        let mut built = crate::provider::testing::body(body, &request, &endpoint("p", base), &tuning);
        let object = built.as_object_mut().unwrap();
        ["model", "stream", "stream_options", "messages"].iter().for_each(|key| drop(object.remove(*key)));
        assert_eq!(built, expected, "{base} {thinking}");
    };
    use Thinking::{High, Max, Off};
    let format = |format: &str| Compat { thinking_format: Some(format.to_owned()), ..Compat::default() };
    let (openai, other) = ("https://api.openai.com/v1", "https://a.test/v1");
    check(openai, Compat::default(), Max, json!({"max_completion_tokens": 100, "reasoning_effort": "max"}));
    check(other, Compat::default(), Max, json!({"max_tokens": 100, "reasoning_effort": "high"}));
    check(other, Compat::default(), Off, json!({"max_tokens": 100}));
    check(
        "https://openrouter.ai/api/v1",
        Compat::default(),
        High,
        json!({"max_tokens": 100, "reasoning": {"effort": "high"}}),
    );
    check(other, format("qwen"), Off, json!({"max_tokens": 100, "enable_thinking": false}));
    check(
        other,
        format("qwen-chat-template"),
        High,
        json!({"max_tokens": 100, "chat_template_kwargs": {"enable_thinking": true}}),
    );
    check(other, format("deepseek"), High, json!({"max_tokens": 100, "thinking": {"type": "enabled"}}));
    check(other, format("together"), Off, json!({"max_tokens": 100, "reasoning": {"enabled": false}}));
    let none =
        Compat { reasoning_effort: Some(false), max_tokens_field: Some("max_new".to_owned()), ..Compat::default() };
    check(other, none, High, json!({"max_new": 100}));
}

#[test]
fn what_servers_without_manners_need() {
    let endpoint = endpoint("p", "http://127.0.0.1:1/v1");
    let build = |compat: Compat| {
        let mut asked = request(model("p/m"), conversation(None));
        asked.tools = vec![tool()].into();
        let tuning = Tuning {
            compat,
            extra_body: json!({"top_k": 3, "stream": true}).as_object().unwrap().clone(),
            ..Tuning::default()
        };
        crate::provider::testing::body(body, &asked, &endpoint, &tuning)
    };
    let plain = build(Compat {
        string_content: true,
        usage_in_streaming: Some(false),
        tools: Some(false),
        tool_result_name: true,
        ..Compat::default()
    });
    assert_eq!(plain["messages"][3], serde_json::Value::Null, "no list of parts: {plain}");
    assert_eq!(plain["messages"][2]["name"], "look");
    assert!(plain.get("tools").is_none() && plain.get("stream_options").is_none());
    assert_eq!(plain["top_k"], 3);
    // Thoughts of the turn under way go back to those who want them.
    let thoughtful = build(Compat { reasoning_content: true, ..Compat::default() });
    assert_eq!(thoughtful["messages"][1]["reasoning_content"], "hm");
}

#[test]
fn details_go_back_to_their_model_only() {
    let seal = Seal::Details(vec![json!({"type": "reasoning.encrypted", "data": "x"})]);
    let endpoint = endpoint("openrouter", "https://openrouter.ai/api/v1");
    for (by, expected) in [("p/m", json!([{"type": "reasoning.encrypted", "data": "x"}])), ("p/other", json!(null))] {
        let asked = request(model("p/m"), conversation(Some(seal.clone().close(&reference(by)))));
        let built = crate::provider::testing::body(body, &asked, &endpoint, &Tuning::default());
        assert_eq!(built["messages"][1]["reasoning_details"], expected, "{by}");
    }
}
