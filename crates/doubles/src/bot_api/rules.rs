//! What the real API refuses, with its words.

use serde_json::Value;

/// Checks a request that makes or changes a message.
///
/// # Errors
/// Code and description of the refusal.
pub(super) fn check(method: &str, params: &Value) -> Result<(), (u16, String)> {
    let refuse = |text: &str| Err((400, format!("Bad Request: {text}")));
    let text = |key: &str| params.get(key).and_then(Value::as_str);
    let int = |key: &str| {
        params.get(key).and_then(|value| value.as_i64().or_else(|| value.as_str().and_then(|text| text.parse().ok())))
    };
    let makes = method.starts_with("send") || method.starts_with("edit");
    if makes && params.get("chat_id").is_none() {
        return refuse("chat_id is empty");
    }
    if matches!(method, "sendMessage" | "editMessageText") {
        let given = text("text").unwrap_or_default();
        if given.trim().is_empty() {
            return refuse("message text is empty");
        }
        // Counted after parsing, in UTF-16 code units.
        if text("parse_mode").is_none() && given.encode_utf16().count() > 4096 {
            return refuse("message is too long");
        }
        styles(given, params.get("entities"), text("parse_mode"))?;
    }
    if let Some(caption) = text("caption") {
        if caption.encode_utf16().count() > 1024 {
            return refuse("message caption is too long");
        }
        styles(caption, params.get("caption_entities"), text("parse_mode"))?;
    }
    // General is told by leaving the topic out; "typing" wants it named.
    if makes && method != "sendChatAction" && int("message_thread_id") == Some(1) {
        return refuse("message thread not found");
    }
    let rows = params.pointer("/reply_markup/inline_keyboard").and_then(Value::as_array);
    for button in rows.into_iter().flatten().filter_map(Value::as_array).flatten() {
        if button.get("callback_data").and_then(Value::as_str).is_some_and(|data| data.len() > 64 || data.is_empty()) {
            return refuse("BUTTON_DATA_INVALID");
        }
    }
    if method == "sendPoll" {
        let options = params.get("options").and_then(Value::as_array).map_or(0, Vec::len);
        if !(2..=12).contains(&options) {
            return refuse("poll must have at least 2 option");
        }
    }
    Ok(())
}

/// The real API drops a style that lies outside the text; here it is an error, so that tests notice.
fn styles(text: &str, entities: Option<&Value>, parse_mode: Option<&str>) -> Result<(), (u16, String)> {
    let refuse = |why: String| Err((400, format!("Bad Request: can't parse entities: {why}")));
    let units: Vec<u16> = text.encode_utf16().collect();
    let mut open: Vec<(usize, usize)> = Vec::new();
    for entity in entities.and_then(Value::as_array).into_iter().flatten() {
        let at = |key: &str| entity[key].as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
        let (start, len) = (at("offset"), at("length"));
        let end = start.saturating_add(len);
        if len == 0 || end > units.len() {
            return refuse(format!("an entity from {start} to {end} lies outside the text"));
        }
        let low = |at: usize| units.get(at).is_some_and(|unit| (0xDC00..0xE000).contains(unit));
        if low(start) || low(end) {
            return refuse("an entity cuts a character in two".to_owned());
        }
        if open.iter().any(|(from, to)| start < *to && end > *to && start > *from) {
            return refuse("entities overlap".to_owned());
        }
        open.push((start, end));
    }
    if parse_mode == Some("HTML") {
        let mut stack = Vec::new();
        for tag in text.split('<').skip(1) {
            let Some((tag, _)) = tag.split_once('>') else { return refuse("unclosed start tag".to_owned()) };
            match tag.strip_prefix('/') {
                None => stack.push(tag.split(' ').next().unwrap_or_default().to_owned()),
                Some(name) if stack.pop().as_deref() == Some(name) => {}
                Some(name) => return refuse(format!("unmatched end tag \"{name}\"")),
            }
        }
        if let Some(name) = stack.pop() {
            return refuse(format!("can't find end tag corresponding to start tag \"{name}\""));
        }
    }
    Ok(())
}
