//! A request, read from whichever API it came by.

use serde_json::Value;

/// Which API was spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    Completions,
    Responses,
    Messages,
}

/// What a tool answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolResult {
    pub call_id: String,
    pub text: String,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Ask {
    pub api: Api,
    pub model: String,
    /// The bearer token or `x-api-key`.
    pub key: Option<String>,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// System and developer messages, or instructions.
    pub system: String,
    /// Text of the last user message; empty without one.
    pub last_user: String,
    /// Role and text of every message, in order; tools' results have the role `tool`.
    pub messages: Vec<(String, String)>,
    /// Results since the last user message, in order.
    pub tool_results: Vec<ToolResult>,
    /// Names of the tools it may use.
    pub tools: Vec<String>,
    /// Images in all messages.
    pub images: usize,
    pub stream: bool,
    /// As it came.
    pub body: Value,
}

impl Ask {
    pub(super) fn read(api: Api, headers: Vec<(String, String)>, body: Value) -> Self {
        let header = |name: &str| headers.iter().find(|(have, _)| have == name).map(|(_, value)| value.clone());
        let bearer = header("authorization").and_then(|text| text.strip_prefix("Bearer ").map(str::to_owned));
        let mut ask = Self {
            api,
            model: body["model"].as_str().unwrap_or_default().to_owned(),
            key: bearer.or(header("x-api-key")),
            headers,
            system: String::new(),
            last_user: String::new(),
            messages: Vec::new(),
            tool_results: Vec::new(),
            tools: names(&body["tools"]),
            images: 0,
            stream: body["stream"] == true,
            body,
        };
        let body = ask.body.clone();
        match api {
            Api::Completions => list(&body["messages"]).iter().for_each(|message| ask.completions(message)),
            Api::Responses => {
                ask.system = body["instructions"].as_str().unwrap_or_default().to_owned();
                match &body["input"] {
                    Value::String(text) => ask.user(text.clone()),
                    items => list(items).iter().for_each(|item| ask.responses(item)),
                }
            }
            Api::Messages => {
                ask.system = text(&body["system"]);
                list(&body["messages"]).iter().for_each(|message| ask.anthropic(message));
            }
        }
        ask
    }

    /// Why the real API would refuse it.
    pub(super) fn fault(&self) -> Option<String> {
        if self.model.is_empty() {
            return Some("you must provide a model parameter".to_owned());
        }
        if self.messages.is_empty() {
            return Some("messages: at least one message is required".to_owned());
        }
        match self.api {
            Api::Completions => self.unanswered_calls(),
            Api::Responses => self.unanswered_items(),
            Api::Messages => self.anthropic_fault(),
        }
    }

    fn unanswered_calls(&self) -> Option<String> {
        let mut open: Vec<String> = Vec::new();
        for message in list(&self.body["messages"]) {
            let id = message["tool_call_id"].as_str().unwrap_or_default();
            if message["role"] == "tool" {
                let Some(at) = open.iter().position(|have| have == id) else {
                    return Some(
                        "messages with role 'tool' must be a response to a preceeding message with 'tool_calls'"
                            .to_owned(),
                    );
                };
                open.remove(at);
                continue;
            }
            if !open.is_empty() {
                break;
            }
            let calls = list(&message["tool_calls"]).iter().filter_map(|call| call["id"].as_str());
            open.extend(calls.map(str::to_owned));
        }
        let all = open.join(", ");
        (!open.is_empty()).then(|| {
            format!("An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. The following tool_call_ids did not have response messages: {all}")
        })
    }

    fn unanswered_items(&self) -> Option<String> {
        let items = list(&self.body["input"]);
        let ids = |kind: &str| -> Vec<&str> {
            items.iter().filter(|item| item["type"] == kind).filter_map(|item| item["call_id"].as_str()).collect()
        };
        let (calls, outputs) = (ids("function_call"), ids("function_call_output"));
        let no_output = calls
            .iter()
            .find(|id| !outputs.contains(id))
            .map(|id| format!("No tool output found for function call {id}."));
        no_output.or_else(|| {
            outputs
                .iter()
                .find(|id| !calls.contains(id))
                .map(|id| format!("No tool call found for function call output with call_id {id}."))
        })
    }

    fn anthropic_fault(&self) -> Option<String> {
        if self.body["max_tokens"].as_u64().unwrap_or_default() == 0 {
            return Some("max_tokens: Field required".to_owned());
        }
        if !self.headers.iter().any(|(name, _)| name == "anthropic-version") {
            return Some("anthropic-version: header is required".to_owned());
        }
        let budget = self.body["thinking"]["budget_tokens"].as_u64();
        if budget.is_some_and(|budget| budget < 1024 || budget >= self.body["max_tokens"].as_u64().unwrap_or_default())
        {
            return Some(
                "`max_tokens` must be greater than `thinking.budget_tokens`, which is at least 1024".to_owned(),
            );
        }
        let mut open: Vec<String> = Vec::new();
        let mut role = String::new();
        for (at, message) in list(&self.body["messages"]).iter().enumerate() {
            let blocks = list(&message["content"]);
            if message["role"] == role.as_str() {
                return Some("messages: roles must alternate between \"user\" and \"assistant\"".to_owned());
            }
            role = message["role"].as_str().unwrap_or_default().to_owned();
            if message["content"].as_array().is_some_and(Vec::is_empty) || message["content"] == "" {
                return Some(format!("messages.{at}: all messages must have non-empty content"));
            }
            if blocks.iter().any(|block| block["type"] == "text" && block["text"] == "") {
                return Some("messages: text content blocks must be non-empty".to_owned());
            }
            let of = |kind: &str, key: &str| -> Vec<String> {
                let these = blocks.iter().filter(|block| block["type"] == kind).filter_map(|block| block[key].as_str());
                these.map(str::to_owned).collect()
            };
            let results = of("tool_result", "tool_use_id");
            if let Some(id) = open.iter().find(|id| !results.contains(id)) {
                return Some(format!(
                    "messages.{}: `tool_use` ids were found without `tool_result` blocks immediately after: {id}",
                    at - 1
                ));
            }
            if let Some(id) = results.iter().find(|id| !open.contains(id)) {
                return Some(format!("messages.{at}: unexpected `tool_use_id` found in `tool_result` blocks: {id}"));
            }
            open = of("tool_use", "id");
        }
        (!open.is_empty())
            .then(|| "messages: `tool_use` ids were found without `tool_result` blocks immediately after".to_owned())
    }

    fn user(&mut self, text: String) {
        self.last_user.clone_from(&text);
        self.tool_results.clear();
        self.messages.push(("user".to_owned(), text));
    }

    fn result(&mut self, call_id: &Value, text: String) {
        let call_id = call_id.as_str().unwrap_or_default().to_owned();
        self.tool_results.push(ToolResult { call_id, text: text.clone() });
        self.messages.push(("tool".to_owned(), text));
    }

    fn said(&mut self, role: &str, content: &Value) {
        match role {
            "system" | "developer" => self.system.push_str(&text(content)),
            "user" => {
                self.images += images(content);
                let text = text(content);
                // Images that follow tools' results are no new question.
                if self.tool_results.is_empty() || images(content) == 0 {
                    self.user(text)
                } else {
                    self.messages.push((role.to_owned(), text))
                }
            }
            _ => self.messages.push((role.to_owned(), text(content))),
        }
    }

    fn completions(&mut self, message: &Value) {
        match message["role"].as_str().unwrap_or_default() {
            "tool" => self.result(&message["tool_call_id"], text(&message["content"])),
            role => self.said(role, &message["content"]),
        }
    }

    fn responses(&mut self, item: &Value) {
        match item["type"].as_str().unwrap_or("message") {
            "message" => self.said(item["role"].as_str().unwrap_or_default(), &item["content"]),
            "function_call_output" => self.result(&item["call_id"], text(&item["output"])),
            "function_call" => self.messages.push(("assistant".to_owned(), String::new())),
            _ => {}
        }
    }

    fn anthropic(&mut self, message: &Value) {
        let blocks = list(&message["content"]);
        for block in blocks.iter().filter(|block| block["type"] == "tool_result") {
            self.images += images(&block["content"]);
            self.result(&block["tool_use_id"], text(&block["content"]));
        }
        let rest: Vec<Value> = blocks.iter().filter(|block| block["type"] != "tool_result").cloned().collect();
        let only_results = rest.is_empty() && !blocks.is_empty();
        if !only_results {
            let content = if blocks.is_empty() { message["content"].clone() } else { Value::Array(rest) };
            self.images += if message["role"] == "user" { 0 } else { images(&content) };
            self.said(message["role"].as_str().unwrap_or_default(), &content);
        }
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A text, or the texts of parts.
fn text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n"),
        _ => String::new(),
    }
}

fn images(content: &Value) -> usize {
    let is_image = |part: &&Value| matches!(part["type"].as_str(), Some("image" | "image_url" | "input_image"));
    list(content).iter().filter(is_image).count()
}

fn names(tools: &Value) -> Vec<String> {
    let name = |tool: &Value| tool["name"].as_str().or(tool["function"]["name"].as_str()).map(str::to_owned);
    list(tools).iter().filter_map(name).collect()
}
