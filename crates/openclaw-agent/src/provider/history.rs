//! A conversation as any provider takes it: turns that alternate, every tool call answered once right after it, no images for
//! those who cannot see.
//!
//! Transcripts are kept by others and may have been cut, imported or left off in the middle of a call; a provider answers 400 to
//! each of these.

use std::{
    borrow::Cow,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use bytes::Bytes;

use crate::message::{Message, Part, Role, ToolCall, ToolResult};

/// One side's turn.
#[derive(Debug, PartialEq)]
pub(super) enum Turn<'a> {
    User(Vec<Content<'a>>),
    Assistant(Vec<Said<'a>>),
    /// In the order of the calls in the assistant's turn before it.
    Results(Vec<Reply<'a>>),
}

#[derive(Debug, PartialEq)]
pub(super) enum Content<'a> {
    Text(Cow<'a, str>),
    Image { mime: &'a str, data: &'a Bytes },
}

#[derive(Debug, PartialEq)]
pub(super) enum Said<'a> {
    Text(&'a str),
    Thinking { text: &'a str, signature: Option<&'a str> },
    Call(&'a ToolCall),
}

/// A tool's answer.
#[derive(Debug, PartialEq)]
pub(super) struct Reply<'a> {
    pub call_id: &'a str,
    pub name: &'a str,
    pub content: Vec<Content<'a>>,
    pub is_error: bool,
}

impl Reply<'_> {
    /// The text alone. Never empty: some providers refuse that.
    pub fn text(&self) -> String {
        let texts: Vec<&str> = self
            .content
            .iter()
            .filter_map(|content| match content {
                Content::Text(text) => Some(text.as_ref()),
                Content::Image { .. } => None,
            })
            .collect();
        let text = texts.join("\n");
        match (text.is_empty(), self.has_images()) {
            (false, _) => text,
            (true, true) => "(see the image)".to_owned(),
            (true, false) => "(no output)".to_owned(),
        }
    }

    pub fn has_images(&self) -> bool {
        self.content.iter().any(|content| matches!(content, Content::Image { .. }))
    }
}

/// Puts a conversation in order.
pub(super) fn turns(messages: &[Message], images: bool) -> Vec<Turn<'_>> {
    let mut turns = Vec::new();
    for message in messages {
        match message.role {
            Role::User => add_user(&mut turns, contents(&message.parts, images)),
            Role::Assistant => add_assistant(&mut turns, &message.parts),
            Role::Tool => {
                for part in &message.parts {
                    if let Part::ToolResult(result) = part {
                        add_result(&mut turns, result, images);
                    }
                }
            }
        }
    }
    close(&mut turns);
    turns
}

fn contents(parts: &[Part], images: bool) -> Vec<Content<'_>> {
    let content = |part| match part {
        &Part::Text(ref text) if !text.trim().is_empty() => Some(Content::Text(Cow::Borrowed(text.as_str()))),
        Part::Image { mime, data } if images => Some(Content::Image { mime, data }),
        Part::Image { .. } => {
            Some(Content::Text(Cow::Borrowed("[There was an image here. This model does not take images.]")))
        }
        _ => None,
    };
    parts.iter().filter_map(content).collect()
}

fn add_user<'a>(turns: &mut Vec<Turn<'a>>, contents: Vec<Content<'a>>) {
    if contents.is_empty() {
        return;
    }
    close(turns);
    match turns.last_mut() {
        Some(Turn::User(before)) => before.extend(contents),
        _ => turns.push(Turn::User(contents)),
    }
}

fn add_assistant<'a>(turns: &mut Vec<Turn<'a>>, parts: &'a [Part]) {
    let said: Vec<Said<'_>> = parts
        .iter()
        .filter_map(|part| match part {
            Part::Text(text) if !text.trim().is_empty() => Some(Said::Text(text)),
            Part::Thinking { text, signature } => Some(Said::Thinking { text, signature: signature.as_deref() }),
            Part::ToolCall(call) => Some(Said::Call(call)),
            _ => None,
        })
        .collect();
    // Thoughts that led to nothing are of no use to anybody, and refused by those who signed them.
    if said.iter().all(|said| matches!(said, Said::Thinking { .. })) {
        return;
    }
    close(turns);
    match turns.last_mut() {
        Some(Turn::Assistant(before)) => before.extend(said),
        _ => turns.push(Turn::Assistant(said)),
    }
}

fn add_result<'a>(turns: &mut Vec<Turn<'a>>, result: &'a ToolResult, images: bool) {
    let content = contents(&result.content, images);
    let wanted = match turns.last() {
        Some(Turn::Assistant(_)) => open_calls(turns),
        Some(Turn::Results(_)) => open_calls(turns),
        _ => Vec::new(),
    };
    if !wanted.iter().any(|call| call.id == result.call_id) {
        // Its call was cut off, or it was answered already.
        let texts = content.into_iter().filter_map(|content| match content {
            Content::Text(text) => Some(text),
            Content::Image { .. } => None,
        });
        let text = texts.collect::<Vec<_>>().join("\n");
        if !text.is_empty() && wanted.is_empty() {
            add_user(
                turns,
                vec![Content::Text(Cow::Owned(format!("[Earlier result of the tool {}]\n{text}", result.name)))],
            );
        }
        return;
    }
    let reply = Reply { call_id: &result.call_id, name: &result.name, content, is_error: result.is_error };
    match turns.last_mut() {
        Some(Turn::Results(replies)) => replies.push(reply),
        _ => turns.push(Turn::Results(vec![reply])),
    }
}

/// Calls of the last assistant's turn that have no result yet.
fn open_calls<'a>(turns: &[Turn<'a>]) -> Vec<&'a ToolCall> {
    let (said, replies): (&[Said<'a>], &[Reply<'a>]) = match turns {
        [.., Turn::Assistant(said), Turn::Results(replies)] => (said, replies),
        [.., Turn::Assistant(said)] => (said, &[]),
        _ => return Vec::new(),
    };
    let calls = said.iter().filter_map(|said| match said {
        Said::Call(call) => Some(*call),
        _ => None,
    });
    calls.filter(|call| !replies.iter().any(|reply| reply.call_id == call.id)).collect()
}

/// Answers what is left open, and puts the results in the order of the calls.
fn close(turns: &mut Vec<Turn<'_>>) {
    let open = open_calls(turns);
    if !open.is_empty() {
        let missing = open.into_iter().map(|call| Reply {
            call_id: &call.id,
            name: &call.name,
            content: vec![Content::Text(Cow::Borrowed("No result was recorded; whether the tool ran is not known."))],
            is_error: true,
        });
        match turns.last_mut() {
            Some(Turn::Results(replies)) => replies.extend(missing),
            _ => turns.push(Turn::Results(missing.collect())),
        }
    }
    if let [.., Turn::Assistant(said), Turn::Results(replies)] = turns.as_mut_slice() {
        let place = |reply: &Reply<'_>| {
            said.iter().position(|said| matches!(said, Said::Call(call) if call.id == reply.call_id))
        };
        replies.sort_by_key(place);
    }
}

/// A call's id as a provider takes it: letters, digits, `-` and `_`, at most `longest` bytes. Ids made by another provider may be
/// anything; equal ids stay equal.
pub(super) fn call_id(id: &str, longest: usize) -> Cow<'_, str> {
    let fine = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    if fine && !id.is_empty() && id.len() <= longest {
        return Cow::Borrowed(id);
    }
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    Cow::Owned(format!("call_{:016x}", hasher.finish()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn call(id: &str) -> Part {
        Part::ToolCall(ToolCall { id: id.to_owned(), name: "look".to_owned(), arguments: json!({}) })
    }

    fn result(id: &str, text: &str) -> Message {
        Message {
            role: Role::Tool,
            parts: vec![Part::ToolResult(ToolResult {
                call_id: id.to_owned(),
                name: "look".to_owned(),
                content: vec![Part::Text(text.to_owned())],
                is_error: false,
            })],
        }
    }

    fn assistant(parts: Vec<Part>) -> Message {
        Message { role: Role::Assistant, parts }
    }

    /// `u` user, `a` assistant, `r` result, `!` an error; contents in brackets.
    fn show(messages: &[Message], images: bool) -> String {
        let content = |content: &Content<'_>| match content {
            Content::Text(text) => text.to_string(),
            Content::Image { mime, .. } => format!("<{mime}>"),
        };
        let join = |texts: Vec<String>| texts.join("|");
        let turn = |turn: &Turn<'_>| match turn {
            Turn::User(contents) => format!("u[{}]", join(contents.iter().map(content).collect())),
            Turn::Assistant(said) => {
                let said = said.iter().map(|said| match said {
                    Said::Text(text) => (*text).to_owned(),
                    Said::Thinking { text, .. } => format!("~{text}"),
                    Said::Call(call) => format!("@{}", call.id),
                });
                format!("a[{}]", join(said.collect()))
            }
            Turn::Results(replies) => {
                let reply = |r: &Reply<'_>| format!("{}{}={}", if r.is_error { "!" } else { "" }, r.call_id, r.text());
                format!("r[{}]", join(replies.iter().map(reply).collect()))
            }
        };
        turns(messages, images).iter().map(turn).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn conversations_are_put_in_order() {
        let check = |messages: &[Message], expected: &str| assert_eq!(show(messages, true), expected);
        let user = Message::user;
        check(&[user("a"), user("b"), Message::assistant("c")], "u[a|b] a[c]");
        check(&[user("a"), Message::assistant(""), user(" "), user("b")], "u[a|b]");
        check(
            &[user("a"), assistant(vec![call("1"), call("2")]), result("2", "two"), result("1", "one")],
            "u[a] a[@1|@2] r[1=one|2=two]",
        );
        // A call nobody answered, at the end and in the middle.
        let lost = "No result was recorded; whether the tool ran is not known.";
        check(&[user("a"), assistant(vec![call("1")])], &format!("u[a] a[@1] r[!1={lost}]"));
        check(
            &[user("a"), assistant(vec![call("1"), call("2")]), result("1", "one"), user("b")],
            &format!("u[a] a[@1|@2] r[1=one|!2={lost}] u[b]"),
        );
        // A result whose call was cut off, and one that came twice.
        check(&[result("9", "old"), user("a")], "u[[Earlier result of the tool look]\nold|a]");
        check(
            &[user("a"), assistant(vec![call("1")]), result("1", "one"), result("1", "again"), user("b")],
            "u[a] a[@1] r[1=one] u[[Earlier result of the tool look]\nagain|b]",
        );
        check(&[user("a"), assistant(vec![call("1")]), result("1", "")], "u[a] a[@1] r[1=(no output)]");
        // Only thoughts.
        let thought = Part::Thinking { text: "hm".to_owned(), signature: None };
        check(&[user("a"), assistant(vec![thought.clone()]), user("b")], "u[a|b]");
        check(&[user("a"), assistant(vec![thought, Part::Text("c".to_owned())])], "u[a] a[~hm|c]");
    }

    #[test]
    fn images_go_to_those_who_see() {
        let image = Part::Image { mime: "image/png".to_owned(), data: Bytes::from_static(b"png") };
        let message = Message { role: Role::User, parts: vec![Part::Text("look".to_owned()), image] };
        assert_eq!(show(std::slice::from_ref(&message), true), "u[look|<image/png>]");
        let blind = "u[look|[There was an image here. This model does not take images.]]";
        assert_eq!(show(&[message], false), blind);
    }

    #[test]
    fn call_ids_fit() {
        assert_eq!(call_id("toolu_01A-b", 64), "toolu_01A-b");
        let odd = call_id("functions.exec:0", 64);
        assert!(odd.starts_with("call_") && odd.len() <= 40, "{odd}");
        assert_eq!(odd, call_id("functions.exec:0", 40));
        assert_ne!(call_id(&"x".repeat(80), 40), call_id(&"x".repeat(81), 40));
        assert_ne!(call_id("", 40), "");
    }
}
