//! A conversation as models see it, apart from any provider's wire format.

use bytes::Bytes;
use serde_json::Value;

/// Who said it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    User,
    Assistant,
    /// What tools answered; holds [`Part::ToolResult`] only.
    Tool,
}

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub role: Role,
    pub parts: Vec<Part>,
}

/// A piece of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    Text(String),
    /// What a model thought; given back to the provider that signed it, and to no other.
    Thinking {
        text: String,
        signature: Option<String>,
    },
    Image {
        mime: String,
        data: Bytes,
    },
    ToolCall(ToolCall),
    ToolResult(ToolResult),
}

/// A model wants a tool run.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolCall {
    /// The provider's id, unique within the conversation.
    pub id: String,
    pub name: String,
    /// An object. A model that wrote something else gets an error as the tool's answer; text that is no JSON at all is here
    /// as a string, as it came.
    pub arguments: Value,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolResult {
    pub call_id: String,
    pub name: String,
    /// [`Part::Text`] and [`Part::Image`] only.
    pub content: Vec<Part>,
    pub is_error: bool,
}

impl ToolResult {
    /// What failed, why, what to do next.
    pub fn error(call: &ToolCall, text: impl Into<String>) -> Self {
        Self {
            call_id: call.id.clone(),
            name: call.name.clone(),
            content: vec![Part::Text(text.into())],
            is_error: true,
        }
    }

    /// For a call with effects that had begun when the program stopped.
    pub fn interrupted(call: &ToolCall) -> Self {
        Self::error(
            call,
            "The gateway stopped while this ran; whether it took effect is not known; it was not repeated. Find out before \
             doing it again, and tell the person.",
        )
    }
}

impl Message {
    /// What a tool answered.
    pub fn tool(result: ToolResult) -> Self {
        Self { role: Role::Tool, parts: vec![Part::ToolResult(result)] }
    }

    pub fn user(text: impl Into<String>) -> Self {
        Self { role: Role::User, parts: vec![Part::Text(text.into())] }
    }

    pub fn assistant(text: impl Into<String>) -> Self {
        Self { role: Role::Assistant, parts: vec![Part::Text(text.into())] }
    }

    /// All its plain text, in order.
    pub fn text(&self) -> String {
        let texts = self.parts.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }

    pub fn tool_calls(&self) -> impl Iterator<Item = &ToolCall> {
        self.parts.iter().filter_map(|part| match part {
            Part::ToolCall(call) => Some(call),
            _ => None,
        })
    }
}
