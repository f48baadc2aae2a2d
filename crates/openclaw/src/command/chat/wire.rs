//! What a gateway says of conversations, as both generations say it. Fields that are missing or of another kind are left out:
//! a conversation with an odd row is still a conversation.

use serde_json::Value;

/// Who wrote a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    User,
    Assistant,
    /// What a tool gave back.
    Tool,
    System,
}

/// A piece of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    Text(String),
    Thinking(String),
    Call {
        id: String,
        name: String,
        args: Value,
    },
    Result {
        id: String,
        name: String,
        text: String,
        failed: bool,
    },
    /// An attachment, by its kind or file name.
    Media(String),
}

/// A row of `chat.history`, or the message of a `chat` event.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub author: Author,
    pub parts: Vec<Part>,
    /// The gateway's id of the row.
    pub id: Option<String>,
    /// The key it was sent with, without the `:user` the gateway adds.
    pub key: Option<String>,
    /// The run that wrote it.
    pub run: Option<String>,
    pub at_ms: Option<i64>,
    pub usage: Option<Usage>,
    /// `stop`, `toolUse`, `error`, `aborted` …
    pub stop: Option<String>,
    pub error: Option<String>,
}

/// Tokens of one answer of a model, and what it cost in US dollars where the gateway knows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    pub input: u64,
    pub output: u64,
    pub cost: Option<f64>,
}

/// An owned string at a key.
pub fn text(value: &Value, key: &str) -> Option<String> {
    value[key].as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// A count at a key, also where it was written as a float.
pub fn count(value: &Value, key: &str) -> Option<u64> {
    value[key].as_u64().or_else(|| value[key].as_f64().filter(|n| *n >= 0.0).map(|n| n as u64))
}

impl Usage {
    fn of(value: &Value) -> Option<Self> {
        value.as_object()?;
        let cost = value["cost"]["total"].as_f64().or(value["cost"].as_f64());
        Some(Self {
            input: count(value, "input").or(count(value, "inputTokens")).unwrap_or(0),
            output: count(value, "output").or(count(value, "outputTokens")).unwrap_or(0),
            cost,
        })
    }
}

impl Message {
    pub fn of(value: &Value) -> Option<Self> {
        let author = match value["role"].as_str()? {
            "user" => Author::User,
            "assistant" => Author::Assistant,
            "toolResult" | "tool" => Author::Tool,
            _ => Author::System,
        };
        let note = &value["__openclaw"];
        let key = text(value, "idempotencyKey").or_else(|| text(note, "idempotencyKey"));
        Some(Self {
            author,
            parts: parts(value, author),
            id: text(note, "id").or_else(|| text(value, "id")),
            key: key.map(|key| key.strip_suffix(":user").unwrap_or(&key).to_owned()),
            run: text(note, "runId").or_else(|| text(value, "runId")),
            at_ms: value["timestamp"].as_i64().or_else(|| value["timestamp"].as_f64().map(|ms| ms as i64)),
            usage: Usage::of(&value["usage"]),
            stop: text(value, "stopReason"),
            error: text(value, "errorMessage"),
        })
    }

    /// Its words, without thoughts and tools.
    pub fn words(&self) -> String {
        let mut words = String::new();
        for part in &self.parts {
            if let Part::Text(text) = part {
                if !words.is_empty() && !words.ends_with('\n') {
                    words.push('\n');
                }
                words.push_str(text);
            }
        }
        words
    }
}

fn parts(value: &Value, author: Author) -> Vec<Part> {
    if author == Author::Tool {
        let id = text(value, "toolCallId").or_else(|| text(value, "tool_call_id")).unwrap_or_default();
        let name = text(value, "toolName").or_else(|| text(value, "name")).unwrap_or_default();
        return vec![Part::Result {
            id,
            name,
            text: plain(&value["content"]),
            failed: value["isError"].as_bool().unwrap_or(false),
        }];
    }
    match &value["content"] {
        Value::String(words) => vec![Part::Text(words.clone())],
        Value::Array(parts) => parts.iter().filter_map(part).collect(),
        _ => text(value, "text").map(Part::Text).into_iter().collect(),
    }
}

fn part(value: &Value) -> Option<Part> {
    Some(match value["type"].as_str()? {
        "text" | "input_text" | "output_text" => Part::Text(value["text"].as_str()?.to_owned()),
        "thinking" | "reasoning" => Part::Thinking(text(value, "thinking").or_else(|| text(value, "text"))?),
        "toolCall" | "tool_use" | "toolUse" => Part::Call {
            id: text(value, "id").unwrap_or_default(),
            name: text(value, "name")?,
            args: match (&value["arguments"], &value["input"]) {
                (Value::Null, input) => input.clone(),
                (args, _) => args.clone(),
            },
        },
        "toolResult" | "tool_result" => Part::Result {
            id: text(value, "toolCallId").or_else(|| text(value, "tool_use_id")).unwrap_or_default(),
            name: text(value, "name").unwrap_or_default(),
            text: plain(&value["content"]),
            failed: value["isError"].as_bool().unwrap_or(false),
        },
        kind => {
            Part::Media(text(value, "fileName").or_else(|| text(value, "mimeType")).unwrap_or_else(|| kind.to_owned()))
        }
    })
}

/// The words in a tool's result, whatever shape it has.
pub fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let words = parts.iter().map(|part| part["text"].as_str().map_or_else(|| plain(part), str::to_owned));
            words.filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n")
        }
        Value::Object(map) => match (map.get("content"), map.get("text")) {
            (Some(content), _) => plain(content),
            (None, Some(Value::String(text))) => text.clone(),
            _ => value.to_string(),
        },
        other => other.to_string(),
    }
}

/// A `chat` event.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatEvent {
    pub run: String,
    pub session: String,
    pub state: ChatState,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ChatState {
    /// Before the model speaks: what is being prepared.
    Status(String),
    /// The present piece of the answer, as far as it is written.
    Delta(String),
    Final {
        words: Option<String>,
        usage: Option<Usage>,
    },
    Aborted {
        words: Option<String>,
    },
    Error {
        message: String,
        kind: Option<String>,
    },
}

impl ChatEvent {
    pub fn of(payload: &Value) -> Option<Self> {
        let words = || Message::of(&payload["message"]).map(|message| message.words());
        let state = match payload["state"].as_str()? {
            "status" => ChatState::Status(text(payload, "phase")?),
            "delta" => ChatState::Delta(words().or_else(|| text(payload, "deltaText"))?),
            "final" => ChatState::Final {
                words: words(),
                usage: Usage::of(&payload["usage"]).or_else(|| Usage::of(&payload["message"]["usage"])),
            },
            "aborted" => ChatState::Aborted { words: words().filter(|words| !words.is_empty()) },
            "error" => ChatState::Error {
                message: text(payload, "errorMessage").unwrap_or_else(|| "the run failed".to_owned()),
                kind: text(payload, "errorKind"),
            },
            _ => return None,
        };
        Some(Self { run: text(payload, "runId")?, session: text(payload, "sessionKey").unwrap_or_default(), state })
    }
}

/// An `agent` event, as far as it is more than a `chat` event of the same run.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentEvent {
    pub run: String,
    /// Some events of protocol 3 do not say.
    pub session: Option<String>,
    pub step: Step,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Started,
    /// `provider/model`.
    Model(String),
    Tool(ToolStep),
    /// Thoughts so far.
    Thinking(String),
    Compaction {
        done: bool,
    },
    Ended,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ToolStep {
    pub call: String,
    pub name: String,
    pub phase: ToolPhase,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ToolPhase {
    Start(Value),
    Update(String),
    Done { text: String, failed: bool },
}

impl AgentEvent {
    pub fn of(payload: &Value) -> Option<Self> {
        let data = &payload["data"];
        let phase = data["phase"].as_str().unwrap_or_default();
        let step = match (payload["stream"].as_str()?, phase) {
            ("lifecycle", "start") => Step::Started,
            ("lifecycle", "model") => {
                Step::Model(format!("{}/{}", data["provider"].as_str()?, data["model"].as_str()?))
            }
            ("lifecycle", "end" | "error") => Step::Ended,
            ("compaction", phase) => Step::Compaction { done: phase == "end" },
            ("thinking" | "reasoning", _) => Step::Thinking(text(data, "text").or_else(|| text(data, "delta"))?),
            ("tool", phase) => Step::Tool(ToolStep {
                call: text(data, "toolCallId").unwrap_or_default(),
                name: text(data, "name").unwrap_or_else(|| "tool".to_owned()),
                phase: match phase {
                    "start" => ToolPhase::Start(data["args"].clone()),
                    "update" => ToolPhase::Update(plain(&data["partialResult"])),
                    "result" | "end" => ToolPhase::Done {
                        text: plain(&data["result"]),
                        failed: data["isError"].as_bool().unwrap_or(false),
                    },
                    _ => return None,
                },
            }),
            _ => return None,
        };
        Some(Self { run: text(payload, "runId")?, session: text(payload, "sessionKey"), step })
    }
}

/// A row of `sessions.list`, or `sessionInfo` of a history.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    pub key: String,
    pub title: Option<String>,
    pub preview: Option<String>,
    pub agent: Option<String>,
    pub updated_ms: Option<i64>,
    /// `provider/model`.
    pub model: Option<String>,
    pub thinking: Option<String>,
    /// Tokens of the context in use, and how many fit.
    pub tokens: Option<u64>,
    pub context: Option<u64>,
    pub cost: Option<f64>,
    pub running: bool,
    pub unread: bool,
}

impl Row {
    pub fn of(value: &Value) -> Option<Self> {
        let titles = ["label", "displayName", "derivedTitle", "subject"];
        let model = text(value, "model").map(|model| match text(value, "modelProvider") {
            Some(provider) if !model.starts_with(&format!("{provider}/")) => format!("{provider}/{model}"),
            _ => model,
        });
        Some(Self {
            key: text(value, "key")?,
            title: titles.iter().find_map(|key| text(value, key)),
            preview: text(value, "lastMessagePreview"),
            agent: text(value, "agentId"),
            updated_ms: value["updatedAt"].as_i64(),
            model,
            thinking: text(value, "thinkingLevel"),
            tokens: count(value, "totalTokens"),
            context: count(value, "contextTokens"),
            cost: value["estimatedCostUsd"].as_f64(),
            running: value["hasActiveRun"].as_bool().unwrap_or(false),
            unread: value["unread"].as_bool().unwrap_or(false),
        })
    }

    /// The agent, also where only the key says it.
    pub fn agent(&self) -> &str {
        self.agent.as_deref().unwrap_or_else(|| agent_of(&self.key))
    }
}

/// `main` of `agent:main:work`.
pub fn agent_of(key: &str) -> &str {
    let mut pieces = key.split(':');
    match (pieces.next(), pieces.next()) {
        (Some("agent"), Some(agent)) if !agent.is_empty() => agent,
        _ => "main",
    }
}

/// True when both keys mean the same session: `main` is short for the main session of the default agent.
pub fn same_session(one: &str, other: &str) -> bool {
    let tail = |key: &str| match key.split_once(':') {
        Some(("agent", rest)) => rest.split_once(':').map(|(_, tail)| tail.to_owned()),
        _ => Some(key.to_owned()),
    };
    one.eq_ignore_ascii_case(other)
        || (one.starts_with("agent:") != other.starts_with("agent:")
            && tail(one).zip(tail(other)).is_some_and(|(one, other)| one.eq_ignore_ascii_case(&other)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Rows of the real gateways, 2026.9.6 and 2026.2.26.
    #[test]
    fn rows_of_both_generations() {
        let v4 = json!({"role": "user", "content": "Say hello please", "timestamp": 1795229970171i64,
            "idempotencyKey": "idem-1:user", "__openclaw": {"id": "9b98", "idempotencyKey": "idem-1:user", "seq": 1}});
        let message = Message::of(&v4).expect("a row");
        assert_eq!((message.author, message.words().as_str()), (Author::User, "Say hello please"));
        assert_eq!((message.key.as_deref(), message.id.as_deref()), (Some("idem-1"), Some("9b98")));

        let v3 = json!({"role": "assistant", "content": [{"type": "text", "text": "I will look. "},
            {"type": "toolCall", "id": "call_1", "name": "exec", "arguments": {"command": "echo hello-tool"}}],
            "provider": "fake", "model": "fake-model", "stopReason": "toolUse", "timestamp": 1});
        let message = Message::of(&v3).expect("a row");
        let args = json!({"command": "echo hello-tool"});
        let call = Part::Call { id: "call_1".into(), name: "exec".into(), args };
        assert_eq!(message.parts, [Part::Text("I will look. ".into()), call]);

        let result = json!({"role": "toolResult", "toolCallId": "call_1", "toolName": "exec",
            "content": [{"type": "text", "text": "hello-tool"}], "isError": false});
        let message = Message::of(&result).expect("a row");
        let expected =
            Part::Result { id: "call_1".into(), name: "exec".into(), text: "hello-tool".into(), failed: false };
        assert_eq!((message.author, message.parts), (Author::Tool, vec![expected]));
        assert_eq!(Message::of(&json!({"content": "x"})), None);
    }

    #[test]
    fn events_of_both_generations() {
        let v4 = json!({"runId": "idem-1", "sessionKey": "agent:main:main", "agentId": "main", "seq": 7, "state": "delta",
            "deltaText": " from", "message": {"role": "assistant", "content": [{"type": "text", "text": "Hello from"}]}});
        let event = ChatEvent::of(&v4).expect("an event");
        assert_eq!((event.run.as_str(), &event.state), ("idem-1", &ChatState::Delta("Hello from".into())));
        for (state, expected) in [
            (json!({"state": "status", "phase": "starting_model"}), ChatState::Status("starting_model".into())),
            (
                json!({"state": "error", "errorMessage": "no", "errorKind": "timeout"}),
                ChatState::Error { message: "no".into(), kind: Some("timeout".into()) },
            ),
            (json!({"state": "final"}), ChatState::Final { words: None, usage: None }),
            (json!({"state": "aborted", "stopReason": "rpc"}), ChatState::Aborted { words: None }),
        ] {
            let mut payload = json!({"runId": "r", "sessionKey": "main"});
            payload.as_object_mut().expect("object").extend(state.as_object().expect("object").clone());
            assert_eq!(ChatEvent::of(&payload).map(|event| event.state), Some(expected));
        }
        assert_eq!(ChatEvent::of(&json!({"runId": "r", "state": "new"})), None);

        let tool = |data: Value| AgentEvent::of(&json!({"runId": "r", "stream": "tool", "data": data})).map(|e| e.step);
        let step = |phase| Some(Step::Tool(ToolStep { call: "c".into(), name: "exec".into(), phase }));
        assert_eq!(
            tool(json!({"phase": "start", "name": "exec", "toolCallId": "c", "args": {"command": "ls"}})),
            step(ToolPhase::Start(json!({"command": "ls"})))
        );
        assert_eq!(
            tool(json!({"phase": "result", "name": "exec", "toolCallId": "c", "isError": true,
                "result": {"content": [{"type": "text", "text": "no such file"}]}})),
            step(ToolPhase::Done { text: "no such file".into(), failed: true })
        );
        let model =
            json!({"runId": "r", "stream": "lifecycle", "data": {"phase": "model", "provider": null, "model": null}});
        assert_eq!(AgentEvent::of(&model), None, "the model was let go");
    }

    #[test]
    fn names_of_sessions() {
        for (one, other, expected) in [
            ("main", "agent:main:main", true),
            ("agent:main:main", "agent:main:main", true),
            ("agent:ops:main", "agent:main:main", false),
            ("work", "agent:main:main", false),
            ("agent:main:telegram:group:-1", "telegram:group:-1", true),
        ] {
            assert_eq!(same_session(one, other), expected, "{one} {other}");
        }
        assert_eq!((agent_of("agent:ops:x"), agent_of("main"), agent_of("agent::x")), ("ops", "main", "main"));
    }
}
