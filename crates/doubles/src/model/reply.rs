//! What the model says, and how it goes wrong.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::Value;

use super::Ask;

/// Decides what is said to whom.
#[derive(Clone)]
pub struct Script(Arc<Choose>);

type Choose = dyn Fn(&Ask) -> Reply + Send + Sync;

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Script")
    }
}

impl Script {
    /// The same to everybody.
    pub fn always(reply: Reply) -> Self {
        Self::choose(move |_| reply.clone())
    }

    /// By what is asked.
    pub fn choose(choose: impl Fn(&Ask) -> Reply + Send + Sync + 'static) -> Self {
        Self(Arc::new(choose))
    }

    /// One after the other; the last one for ever. Requests that come at the same time take them in the order they arrive.
    ///
    /// # Panics
    /// When there is none.
    pub fn rounds(replies: impl IntoIterator<Item = Reply>) -> Self {
        let mut replies: Vec<Reply> = replies.into_iter().collect();
        assert!(!replies.is_empty(), "a script needs a reply");
        replies.reverse();
        let replies = Mutex::new(replies);
        Self::choose(move |_| {
            let mut replies = replies.lock().unwrap_or_else(PoisonError::into_inner);
            let last = replies.len() == 1;
            let next = if last { replies.last().cloned() } else { replies.pop() };
            next.unwrap_or_default()
        })
    }

    /// Says back what the user said last.
    pub fn echo() -> Self {
        Self::choose(|ask| Reply::say(&ask.last_user))
    }

    /// By the last thing the user said: the first row whose words are in it, else `otherwise`. Per user text it goes through
    /// the row's replies in order, so that `[call, say]` uses a tool and then answers.
    pub fn by_text<const N: usize>(rows: [(&str, Vec<Reply>); N], otherwise: Reply) -> Self {
        let rows = rows.map(|(words, replies)| (words.to_owned(), replies));
        let told: Mutex<BTreeMap<String, usize>> = Mutex::default();
        Self::choose(move |ask| {
            let Some((_, replies)) = rows.iter().find(|(words, _)| ask.last_user.contains(words.as_str())) else {
                return otherwise.clone();
            };
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            let count = told.entry(ask.last_user.clone()).or_default();
            let reply = replies.get(*count).or(replies.last()).cloned();
            *count += 1;
            reply.unwrap_or_default()
        })
    }

    pub(super) fn reply(&self, ask: &Ask) -> Reply {
        (self.0)(ask)
    }
}

/// One piece of an answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Part {
    Text(String),
    Thinking(String),
    /// Id, name, arguments as JSON text (which may be broken on purpose).
    Call(Option<String>, String, String),
    Refusal(String),
}

/// Why the model stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    End,
    ToolUse,
    Length,
    Refusal,
}

/// How bytes look on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wire {
    /// One HTTP chunk per event, lines end with LF.
    #[default]
    Plain,
    /// Lines end with CR LF.
    Crlf,
    /// Lines end with CR alone.
    Cr,
    /// Comment lines, `id:`, `retry:` and unknown fields between events, as proxies and OpenRouter send them.
    Chatty,
    /// HTTP chunks of so many bytes, wherever that cuts.
    Chunks(usize),
    /// All in one HTTP chunk.
    Whole,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// This status and body instead of an answer, with extra headers.
    Status { code: u16, headers: Vec<(String, String)>, body: String },
    /// The connection is closed after so many bytes of the body, without the end of HTTP's chunks.
    CutAfter(usize),
    /// The connection is closed before any answer.
    CutBefore,
    /// Nothing comes any more after so many events; the connection stays.
    SilentAfter(usize),
    /// No answer at all; the connection stays.
    Hang,
    /// Bytes that are no JSON, as an event after so many good ones.
    GarbageAfter(usize),
    /// The API's own error event after so many good ones: type or code, text.
    ErrorAfter(usize, String, String),
    /// One line of so many bytes.
    HugeLine(usize),
    /// The last event (`[DONE]`, `message_stop`, `response.completed`) does not come; the body ends well.
    NoEnd,
    /// As [`Fault::NoEnd`], and the reason to stop is missing too.
    NoStop,
    /// The last event does not come, and the connection stays.
    LingerAfterEnd,
    /// A web page with status 200.
    Html,
    /// A redirect to this URL.
    Redirect(String),
}

/// One answer. Built by saying what is in it, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reply {
    pub(super) parts: Vec<Part>,
    pub(super) pieces: usize,
    pub(super) pace: Duration,
    pub(super) delay: Duration,
    pub(super) usage: Option<(u64, u64)>,
    pub(super) cached: u64,
    pub(super) stop: Option<Stop>,
    pub(super) wire: Wire,
    pub(super) fault: Option<Fault>,
}

impl Reply {
    pub fn say(text: impl Into<String>) -> Self {
        Self::default().then_say(text)
    }

    /// Wants a tool; the id is made up.
    pub fn call(name: &str, arguments: Value) -> Self {
        Self::default().then_call(name, arguments)
    }

    pub fn think(text: impl Into<String>) -> Self {
        Self::default().then_think(text)
    }

    /// Refuses, in the way of the API.
    pub fn refuse(text: impl Into<String>) -> Self {
        let parts = vec![Part::Refusal(text.into())];
        Self { parts, stop: Some(Stop::Refusal), ..Self::default() }
    }

    #[must_use]
    pub fn then_say(mut self, text: impl Into<String>) -> Self {
        self.parts.push(Part::Text(text.into()));
        self
    }

    #[must_use]
    pub fn then_call(mut self, name: &str, arguments: Value) -> Self {
        self.parts.push(Part::Call(None, name.to_owned(), arguments.to_string()));
        self
    }

    /// A call whose arguments are this text, JSON or not.
    #[must_use]
    pub fn then_call_raw(mut self, id: &str, name: &str, arguments: &str) -> Self {
        self.parts.push(Part::Call(Some(id.to_owned()), name.to_owned(), arguments.to_owned()));
        self
    }

    #[must_use]
    pub fn then_think(mut self, text: impl Into<String>) -> Self {
        self.parts.push(Part::Thinking(text.into()));
        self
    }

    /// Every text, thought and call's arguments come in so many deltas (fewer when there are fewer characters); 1 unless said.
    #[must_use]
    pub fn pieces(mut self, pieces: usize) -> Self {
        self.pieces = pieces;
        self
    }

    /// Every character is a delta.
    #[must_use]
    pub fn by_character(self) -> Self {
        self.pieces(usize::MAX)
    }

    /// Waits so long before every event.
    #[must_use]
    pub fn pace(mut self, pace: Duration) -> Self {
        self.pace = pace;
        self
    }

    /// Waits so long before the answer begins.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Tokens of prompt and answer; else made from the lengths of both.
    #[must_use]
    pub fn usage(mut self, prompt: u64, answer: u64) -> Self {
        self.usage = Some((prompt, answer));
        self
    }

    /// So many of the prompt's tokens came from a cache.
    #[must_use]
    pub fn cached(mut self, tokens: u64) -> Self {
        self.cached = tokens;
        self
    }

    /// Why it stops; else by whether there are calls.
    #[must_use]
    pub fn stops(mut self, stop: Stop) -> Self {
        self.stop = Some(stop);
        self
    }

    #[must_use]
    pub fn wire(mut self, wire: Wire) -> Self {
        self.wire = wire;
        self
    }

    #[must_use]
    pub fn fails(mut self, fault: Fault) -> Self {
        self.fault = Some(fault);
        self
    }

    /// An error in the API's own shape.
    pub fn error(code: u16, kind: &str, message: &str) -> Self {
        let error = serde_json::json!({"message": message, "type": kind, "code": kind, "param": null});
        let body = serde_json::json!({"type": "error", "error": error}).to_string();
        Self::default().fails(Fault::Status { code, headers: Vec::new(), body })
    }

    /// 429 with `retry-after` in seconds.
    pub fn rate_limited(retry_after: u64) -> Self {
        let body = serde_json::json!({"type": "error", "error": {
            "message": "Rate limit reached", "type": "rate_limit_error", "code": "rate_limit_exceeded"
        }});
        let headers = vec![("retry-after".to_owned(), retry_after.to_string())];
        Self::default().fails(Fault::Status { code: 429, headers, body: body.to_string() })
    }

    /// Anthropic's 529.
    pub fn overloaded() -> Self {
        Self::error(529, "overloaded_error", "Overloaded")
    }

    pub fn server_error() -> Self {
        Self::error(500, "server_error", "The server had an error while processing your request")
    }

    pub fn too_long() -> Self {
        let message = "This model's maximum context length is 8192 tokens. Please reduce the length of the messages.";
        Self::error(400, "context_length_exceeded", message)
    }

    pub(super) fn stop_reason(&self) -> Stop {
        let calls = self.parts.iter().any(|part| matches!(part, Part::Call(..)));
        self.stop.unwrap_or(if calls { Stop::ToolUse } else { Stop::End })
    }

    /// Cuts a text into the deltas it is sent in. At least one.
    pub(super) fn cut<'a>(&self, text: &'a str) -> Vec<&'a str> {
        let characters = text.chars().count();
        let pieces = self.pieces.clamp(1, characters.max(1));
        let mut cuts: Vec<&str> = Vec::with_capacity(pieces);
        let (mut rest, mut left) = (text, characters);
        for at in 0..pieces {
            let take = left.div_ceil(pieces - at);
            let end = rest.char_indices().nth(take).map_or(rest.len(), |(index, _)| index);
            cuts.push(&rest[..end]);
            rest = &rest[end..];
            left -= take;
        }
        cuts
    }
}
