//! Makes a conversation fit a model's context: pairs are made whole, old tool results shrink, old exchanges go.

use crate::{
    message::{Message, Part, Role, ToolResult},
    provider::Model,
    tool::ToolSpec,
    untrusted,
};

/// Tokens of one image, at the size most providers scale to.
const IMAGE_TOKENS: u64 = 1_600;
/// Tokens a message costs beside its text.
const MESSAGE_TOKENS: u64 = 6;
/// Answers of the assistant whose tool results stay whole (session pruning of the reference).
const FRESH_ANSWERS: usize = 3;
/// Characters of an old tool result before it is trimmed, and what is kept at each end (the same source).
const LONG_RESULT: usize = 4_000;
const KEPT_RESULT: usize = 3_000;
/// Exchanges whose images stay (legacy image cleanup of the reference).
const FRESH_IMAGES: usize = 3;

const CLEARED: &str = "[Old tool result content cleared]";
const NO_IMAGE: &str = "[image data removed - already processed by model]";
const LEFT_OUT: &str = "[The beginning of this conversation is left out here because it is too long.]";
const NO_RESULT: &str =
    "There is no result: the turn ended before this call was answered. Whether it ran is not known.";

/// Tokens of prompt a model has room for, when its answer and the error of the estimate are taken off.
pub fn room(model: &Model, max_tokens: Option<u32>) -> u64 {
    let window = u64::from(model.context_window);
    let answer = max_tokens.or(model.max_tokens).map_or(window / 8, u64::from).min(window / 4);
    (window - answer) * 9 / 10
}

/// Roughly the tokens of a prompt: four ASCII characters each, one for any other character. Real tokenizers differ by about a
/// third either way; [`room`] and asking again with less make up for it.
pub fn estimate(system: &str, history: &[Message], tools: &[ToolSpec]) -> u64 {
    let tools: u64 =
        tools.iter().map(|tool| text(&tool.name) + text(&tool.description) + text(&tool.parameters.to_string())).sum();
    text(system) + tools + history.iter().map(message).sum::<u64>()
}

fn text(text: &str) -> u64 {
    let ascii = text.bytes().filter(u8::is_ascii).count();
    // Bytes that are no ASCII and no continuation begin a character each.
    let others = text.bytes().filter(|byte| *byte >= 0xc0).count();
    ascii.div_ceil(4) as u64 + others as u64
}

pub(super) fn message(message: &Message) -> u64 {
    MESSAGE_TOKENS + parts(&message.parts)
}

fn parts(parts: &[Part]) -> u64 {
    let each = parts.iter().map(|part| match part {
        Part::Text(said) => text(said),
        // Thoughts of earlier rounds go back only to who signed them.
        Part::Thinking { text: thought, signature } => text(thought) + signature.as_deref().map_or(0, text),
        Part::Image { .. } => IMAGE_TOKENS,
        Part::ToolCall(call) => text(&call.name) + text(&call.arguments.to_string()) + MESSAGE_TOKENS,
        Part::ToolResult(result) => MESSAGE_TOKENS + self::parts(&result.content),
    });
    each.sum()
}

/// The history as it can be sent within `tokens`; `None` when it can be sent as it is.
///
/// When something has to go, more goes than has to: the next rounds then send the same beginning, which providers keep in a
/// cache. The last message of a person is never left out.
pub fn fit(system: &str, history: &[Message], tools: &[ToolSpec], tokens: u64) -> Option<Vec<Message>> {
    let repaired = repair(history);
    let whole = repaired.as_deref().unwrap_or(history);
    let fixed = estimate(system, &[], tools);
    let size = |history: &[Message]| fixed + history.iter().map(message).sum::<u64>();
    if size(whole) <= tokens {
        return repaired;
    }
    let target = tokens * 3 / 4;
    let mut history = whole.to_vec();
    for shrink in [drop_old_images, trim_old_results, clear_old_results] {
        shrink(&mut history);
        if size(&history) <= target {
            return Some(history);
        }
    }
    drop_exchanges(&mut history, target.saturating_sub(fixed));
    if size(&history) > tokens {
        squeeze(&mut history, tokens.saturating_sub(fixed));
    }
    Some(history)
}

/// Makes pairs whole: every call is followed by its result, every result follows its call. Also joins neighbours of one role
/// among tool results, and drops messages without parts. `None` if nothing is to be done.
fn repair(history: &[Message]) -> Option<Vec<Message>> {
    let mut out: Vec<Message> = Vec::with_capacity(history.len());
    let mut open: Vec<ToolResult> = Vec::new();
    let mut changed = false;
    for message in history {
        if message.role == Role::Tool {
            let mut results = Vec::new();
            for part in &message.parts {
                let Part::ToolResult(result) = part else { continue };
                match open.iter().position(|call| call.call_id == result.call_id) {
                    Some(at) => {
                        open.remove(at);
                        results.push(part.clone());
                    }
                    None => changed = true,
                }
            }
            match out.last_mut().filter(|last| last.role == Role::Tool) {
                Some(last) => {
                    changed = true;
                    last.parts.extend(results);
                }
                None if results.is_empty() => changed = true,
                None => out.push(Message { role: Role::Tool, parts: results }),
            }
            continue;
        }
        changed |= close(&mut out, &mut open);
        if message.parts.is_empty() {
            changed = true;
            continue;
        }
        if message.role == Role::Assistant {
            open.extend(message.tool_calls().map(|call| ToolResult::error(call, NO_RESULT)));
        }
        out.push(message.clone());
    }
    changed |= close(&mut out, &mut open);
    changed.then_some(out)
}

/// Gives calls without a result one that says so.
fn close(out: &mut Vec<Message>, open: &mut Vec<ToolResult>) -> bool {
    if open.is_empty() {
        return false;
    }
    let missing = open.drain(..).map(Part::ToolResult);
    match out.last_mut().filter(|last| last.role == Role::Tool) {
        Some(last) => last.parts.extend(missing),
        None => out.push(Message { role: Role::Tool, parts: missing.collect() }),
    }
    true
}

/// The index before which lie all but the last `count` messages of a role.
fn before_last(history: &[Message], role: Role, count: usize) -> usize {
    let places = history.iter().enumerate().rev().filter(|(_, message)| message.role == role);
    places.map(|(index, _)| index).nth(count.saturating_sub(1)).unwrap_or(0)
}

fn drop_old_images(history: &mut [Message]) {
    let fresh = before_last(history, Role::User, FRESH_IMAGES);
    let drop = |part: &mut Part| {
        if matches!(part, Part::Image { .. }) {
            *part = Part::Text(NO_IMAGE.to_owned());
        }
    };
    for part in history[..fresh].iter_mut().flat_map(|message| &mut message.parts) {
        if let Part::ToolResult(result) = part {
            result.content.iter_mut().for_each(drop);
        }
        drop(part);
    }
}

fn old_results(history: &mut [Message]) -> impl Iterator<Item = &mut ToolResult> {
    let fresh = before_last(history, Role::Assistant, FRESH_ANSWERS);
    history[..fresh].iter_mut().flat_map(|message| &mut message.parts).filter_map(|part| match part {
        Part::ToolResult(result) => Some(result),
        _ => None,
    })
}

fn trim_old_results(history: &mut [Message]) {
    for part in old_results(history).flat_map(|result| &mut result.content) {
        if let Part::Text(text) = part
            && text.len() > LONG_RESULT
        {
            *text = untrusted::cut_framed(text, KEPT_RESULT);
        }
    }
}

fn clear_old_results(history: &mut [Message]) {
    for result in old_results(history) {
        result.content = vec![Part::Text(CLEARED.to_owned())];
    }
}

/// Leaves out exchanges (from one message of a person to the next) from the beginning, until the rest has `tokens`.
fn drop_exchanges(history: &mut Vec<Message>, tokens: u64) {
    let starts: Vec<usize> =
        history.iter().enumerate().filter(|(_, message)| message.role == Role::User).map(|(index, _)| index).collect();
    let mut size: u64 = history.iter().map(message).sum();
    let mut from = 0;
    for start in starts {
        if size <= tokens {
            break;
        }
        size -= history[from..start].iter().map(message).sum::<u64>();
        from = start;
    }
    if from > 0 {
        history.drain(..from);
        if let Some(first) = history.first_mut() {
            first.parts.insert(0, Part::Text(format!("{LEFT_OUT}\n\n")));
        }
    }
}

/// The last resort, within one exchange: rounds of tools go from its beginning, then every long text is cut alike.
fn squeeze(history: &mut Vec<Message>, tokens: u64) {
    let size = |history: &[Message]| history.iter().map(message).sum::<u64>();
    for part in history.iter_mut().flat_map(|message| &mut message.parts) {
        if let Part::ToolResult(result) = part {
            for part in &mut result.content {
                if let Part::Text(text) = part
                    && text.len() > LONG_RESULT
                {
                    *text = untrusted::cut_framed(text, KEPT_RESULT);
                }
            }
        }
    }
    // A round is an assistant's calls with their results. The last one is what the model is about to read.
    let rounds: Vec<usize> =
        history.iter().enumerate().filter(|(_, m)| m.role == Role::Assistant).map(|(index, _)| index).collect();
    if let Some(&first) = rounds.first() {
        let (mut left, mut until) = (size(history), first);
        for &next in &rounds[1..] {
            if left <= tokens {
                break;
            }
            left -= size(&history[until..next]);
            until = next;
        }
        history.drain(first..until);
    }
    let mut longest = 64 << 10;
    while size(history) > tokens && longest >= 256 {
        for part in history.iter_mut().flat_map(|message| &mut message.parts) {
            match part {
                Part::Text(text) => *text = untrusted::cut(text, longest),
                Part::ToolResult(result) => {
                    for part in &mut result.content {
                        if let Part::Text(text) = part {
                            *text = untrusted::cut_framed(text, longest);
                        }
                    }
                }
                _ => {}
            }
        }
        longest /= 2;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;
    use crate::message::ToolCall;

    fn call(id: &str) -> Message {
        let call = ToolCall { id: id.to_owned(), name: "read".to_owned(), arguments: json!({"path": id}) };
        Message { role: Role::Assistant, parts: vec![Part::ToolCall(call)] }
    }

    fn result(id: &str, text: &str) -> Message {
        let content = vec![Part::Text(text.to_owned())];
        Message::tool(ToolResult { call_id: id.to_owned(), name: "read".to_owned(), content, is_error: false })
    }

    /// Every call has its result right after it and the other way round.
    fn assert_paired(history: &[Message]) {
        assert_eq!(repair(history), None, "{history:#?}");
        assert!(history.first().is_none_or(|message| message.role == Role::User), "{history:#?}");
    }

    #[test]
    fn what_fits_is_left_alone() {
        let history = [Message::user("hi"), call("a"), result("a", "x"), Message::assistant("yes")];
        assert_eq!(fit("system", &history, &[], 10_000), None);
        assert_eq!(fit("", &[], &[], 0), None);
    }

    #[test]
    fn pairs_are_made_whole() {
        let check = |history: &[Message], expected: &[Message]| {
            assert_eq!(repair(history).as_deref().unwrap_or(history), expected);
        };
        let missing = |id: &str| {
            let call = ToolCall { id: id.to_owned(), name: "read".to_owned(), arguments: json!({}) };
            Part::ToolResult(ToolResult::error(&call, NO_RESULT))
        };
        let user = || Message::user("u");
        // A turn that was cut short.
        let closed = Message { role: Role::Tool, parts: vec![missing("a")] };
        check(&[user(), call("a"), user()], &[user(), call("a"), closed.clone(), user()]);
        check(&[user(), call("a")], &[user(), call("a"), closed]);
        // A result nobody asked for, and one that came twice.
        check(&[user(), result("x", "1"), user()], &[user(), user()]);
        check(&[user(), call("a"), result("a", "1"), result("a", "2")], &[user(), call("a"), result("a", "1")]);
        // One message per result, as a store keeps them, becomes one message.
        let both = Message { role: Role::Assistant, parts: [call("a").parts, call("b").parts].concat() };
        let joined = Message { role: Role::Tool, parts: [result("b", "2").parts, result("a", "1").parts].concat() };
        check(&[user(), both.clone(), result("b", "2"), result("a", "1")], &[user(), both.clone(), joined]);
        let half = Message { role: Role::Tool, parts: vec![result("a", "1").parts.remove(0), missing("b")] };
        check(&[user(), both.clone(), result("a", "1"), user()], &[user(), both, half, user()]);
        let empty = Message { role: Role::Assistant, parts: Vec::new() };
        check(&[user(), empty], &[user()]);
    }

    #[test]
    fn old_results_go_before_old_words() {
        let long = "x".repeat(40_000);
        let mut history = vec![Message::user("first")];
        for id in ["a", "b", "c", "d", "e"] {
            history.extend([call(id), result(id, &long)]);
        }
        history.push(Message::user("last"));
        // 5 × 10,000 tokens; two results are old.
        let fitted = fit("", &history, &[], 48_000).unwrap();
        assert_paired(&fitted);
        let texts: Vec<usize> = fitted
            .iter()
            .filter(|message| message.role == Role::Tool)
            .map(|message| match &message.parts[0] {
                Part::ToolResult(result) => match &result.content[0] {
                    Part::Text(text) => text.len(),
                    _ => 0,
                },
                _ => 0,
            })
            .collect();
        assert!(texts[0] <= KEPT_RESULT && texts[1] <= KEPT_RESULT, "{texts:?}");
        assert_eq!(&texts[2..], [40_000; 3]);
        assert_eq!(fitted.first(), history.first());
    }

    #[test]
    fn whatever_comes_the_last_question_stays_and_it_fits() {
        let long = "x".repeat(50_000);
        let image = Message {
            role: Role::User,
            parts: vec![
                Part::Text("look".to_owned()),
                Part::Image { mime: "image/png".to_owned(), data: Bytes::from_static(b"i") },
            ],
        };
        let mut history = Vec::new();
        for n in 0..20 {
            history.extend([
                image.clone(),
                call(&format!("c{n}")),
                result(&format!("c{n}"), &long),
                Message::assistant(long.clone()),
            ]);
        }
        history.push(Message::user("the question"));
        for tokens in [100_000, 20_000, 5_000, 1_000] {
            let fitted = fit("be good", &history, &[], tokens).unwrap();
            assert_paired(&fitted);
            assert!(estimate("be good", &fitted, &[]) <= tokens, "{tokens}");
            assert!(fitted.iter().any(|message| message.text().ends_with("the question")), "{tokens}");
            // Settled: what was fitted fits.
            assert_eq!(fit("be good", &fitted, &[], tokens), None, "{tokens}");
        }
        // One question and a long way of tools.
        let mut history = vec![Message::user("the question")];
        for n in 0..12 {
            history.extend([call(&format!("c{n}")), result(&format!("c{n}"), &long)]);
        }
        for tokens in [100_000, 20_000, 5_000] {
            let fitted = fit("", &history, &[], tokens).unwrap();
            assert_paired(&fitted);
            assert!(estimate("", &fitted, &[]) <= tokens, "{tokens}");
            assert_eq!(fitted[0].text(), "the question");
            assert!(matches!(fitted.last(), Some(message) if message.role == Role::Tool));
        }
    }

    #[test]
    fn other_scripts_cost_more() {
        assert_eq!(text("abcd"), 1);
        assert_eq!(text("你好"), 2);
        assert_eq!(text("äb"), 2);
    }
}
