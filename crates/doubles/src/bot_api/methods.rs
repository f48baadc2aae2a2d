//! What the methods do.

use std::time::Instant;

use serde_json::{Value, json};

use super::{Sent, Shared, State, Upload, Webhook, rules, updates};

/// A result, or code and description.
pub(super) type Answer = Result<Value, (u16, String)>;

/// Carries out a request of a known bot. `getUpdates` is not among them.
pub(super) fn call(
    shared: &Shared,
    token: &str,
    method: &str,
    params: Value,
    files: Vec<Upload>,
    unanswered: bool,
) -> Answer {
    let mut state = shared.lock();
    let answer = carry_out(&mut state, token, method, &params, &files);
    let message_id = answer.as_ref().ok().and_then(|result| result["message_id"].as_i64());
    if answer.is_ok()
        && let Some(bot) = state.bots.get_mut(token)
    {
        let method = method.to_owned();
        bot.calls.push(Sent { method, params, files, message_id, at: Instant::now(), unanswered });
    }
    drop(state);
    shared.tell();
    answer
}

fn carry_out(state: &mut State, token: &str, method: &str, params: &Value, files: &[Upload]) -> Answer {
    rules::check(method, params)?;
    let next = state.next_message + 1;
    let Some(bot) = state.bots.get_mut(token) else { return Err((401, "Unauthorized".to_owned())) };
    let int = |key: &str| {
        params.get(key).and_then(|value| value.as_i64().or_else(|| value.as_str().and_then(|text| text.parse().ok())))
    };
    let me = json!({"id": bot.id, "is_bot": true, "first_name": bot.username, "username": bot.username,
        "can_join_groups": true, "can_read_all_group_messages": false, "supports_inline_queries": false,
        "has_topics_enabled": bot.topics});
    match method {
        "getMe" => Ok(me),
        "setWebhook" => {
            let url = params["url"].as_str().unwrap_or_default().to_owned();
            let secret = params["secret_token"].as_str().map(str::to_owned);
            let allowed = params["allowed_updates"].as_array().into_iter().flatten();
            let allowed_updates = allowed.filter_map(Value::as_str).map(str::to_owned).collect();
            bot.webhook = (!url.is_empty()).then_some(Webhook { url, secret, allowed_updates });
            Ok(json!(true))
        }
        "deleteWebhook" => {
            bot.webhook = None;
            if params["drop_pending_updates"].as_bool() == Some(true) {
                bot.updates.clear();
            }
            Ok(json!(true))
        }
        "getWebhookInfo" => {
            let url = bot.webhook.as_ref().map(|hook| hook.url.clone()).unwrap_or_default();
            Ok(json!({"url": url, "has_custom_certificate": false, "pending_update_count": bot.updates.len()}))
        }
        "getFile" => {
            let id = params["file_id"].as_str().unwrap_or_default();
            let Some((path, data)) = bot.files.get(id) else {
                return Err((400, "Bad Request: invalid file_id".to_owned()));
            };
            // The limit of the public server.
            if data.len() > 20 << 20 {
                return Err((400, "Bad Request: file is too big".to_owned()));
            }
            Ok(json!({"file_id": id, "file_unique_id": id, "file_size": data.len(), "file_path": path}))
        }
        "sendChatAction" | "answerCallbackQuery" | "setMyCommands" | "deleteMyCommands" | "setMessageReaction" => {
            Ok(json!(true))
        }
        "deleteMessage" => {
            let key = (int("chat_id").unwrap_or_default(), int("message_id").unwrap_or_default());
            match bot.messages.remove(&key) {
                Some(_) => Ok(json!(true)),
                None => Err((400, "Bad Request: message to delete not found".to_owned())),
            }
        }
        "editMessageText" | "editMessageCaption" | "editMessageReplyMarkup" => {
            let key = (int("chat_id").unwrap_or_default(), int("message_id").unwrap_or_default());
            let Some(message) = bot.messages.get_mut(&key) else {
                return Err((400, "Bad Request: message to edit not found".to_owned()));
            };
            let mut edited = message.clone();
            for field in ["text", "caption", "reply_markup", "entities", "caption_entities"] {
                match params.get(field) {
                    Some(value) => edited[field] = value.clone(),
                    // A new text without markup or styles has none.
                    None if field != "text" && field != "caption" => {
                        drop(edited.as_object_mut().map(|map| map.remove(field)))
                    }
                    None => {}
                }
            }
            if edited == *message {
                let why = "message is not modified: specified new message content and reply markup are exactly the same \
                           as a current content and reply markup of the message";
                return Err((400, format!("Bad Request: {why}")));
            }
            *message = edited.clone();
            Ok(edited)
        }
        "sendMediaGroup" => {
            let count = params["media"].as_array().map_or(0, Vec::len);
            if !(2..=10).contains(&count) {
                return Err((400, "Bad Request: group must have 2 to 10 items".to_owned()));
            }
            state.next_message += i64::try_from(count).unwrap_or(1);
            let ids =
                (0..i64::try_from(count).unwrap_or(1)).map(|n| json!({"message_id": next + n, "date": updates::now()}));
            Ok(ids.collect())
        }
        _ if method.starts_with("send") => {
            state.next_message = next;
            let chat = int("chat_id").unwrap_or_default();
            let mut message = json!({"message_id": next, "date": updates::now(), "from": me, "chat": {"id": chat}});
            for field in
                ["text", "caption", "entities", "caption_entities", "reply_markup", "message_thread_id", "question"]
            {
                if let Some(value) = params.get(field) {
                    message[field] = value.clone();
                }
            }
            if let Some(file) = files.first() {
                message["document"] = json!({"file_id": format!("sent{next}"), "file_name": file.file_name});
            }
            bot.messages.insert((chat, next), message.clone());
            Ok(message)
        }
        _ => Err((404, "Not Found".to_owned())),
    }
}
