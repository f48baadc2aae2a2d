//! Messages out.

use serde_json::{Map, Value, json};

use super::{
    api::{Api, ApiError},
    config::Config,
    media,
    types::{EntityOut, SentMessage},
};
use crate::{
    channel::SendError,
    markdown,
    message::{Address, ButtonStyle, Media, Outbound, Poll, Span, TextStyle},
    styled::Styled,
};

/// Longest caption, in UTF-16 code units (Bot API).
const MAX_CAPTION: usize = 1024;
/// Pictures in one album (Bot API, sendMediaGroup).
const MAX_ALBUM: usize = 10;
/// Topic 1 of a forum is "General": it is named by leaving it out, except for "typing".
const GENERAL: &str = "1";

/// Cuts a message into what one call sends: albums of pictures, files one by one, texts. The text is the caption of the
/// first file when it fits and has no buttons, and follows the files otherwise.
pub(super) fn pieces(message: &Outbound, limit: usize) -> Vec<Outbound> {
    let styled = match &message.styles {
        Some(spans) => Styled { text: message.text.clone(), spans: spans.clone() },
        None => markdown::render(&message.text),
    };
    let bare = |text: Styled| Outbound {
        text: text.text,
        styles: Some(text.spans),
        silent: message.silent,
        hints: message.hints,
        ..Outbound::default()
    };
    let caption = !message.media.is_empty() && message.buttons.is_empty() && styled.len() <= MAX_CAPTION;
    let mut pieces: Vec<Outbound> = Vec::new();
    for media in &message.media {
        let photo = media::method(media, message.hints).0 == "sendPhoto";
        let room = pieces.last_mut().filter(|last| {
            photo && last.media.len() < MAX_ALBUM && media::method(&last.media[0], message.hints).0 == "sendPhoto"
        });
        match room {
            Some(album) => album.media.push(media.clone()),
            None => {
                let text = if caption && pieces.is_empty() { styled.clone() } else { Styled::default() };
                pieces.push(Outbound { media: vec![media.clone()], ..bare(text) });
            }
        }
    }
    if !caption {
        pieces.extend(styled.split(limit).into_iter().map(bare));
    }
    if let Some(first) = pieces.first_mut() {
        first.reply_to.clone_from(&message.reply_to);
    }
    if let Some(last) = pieces.last_mut() {
        last.buttons.clone_from(&message.buttons);
    }
    pieces
}

/// Sends one piece. Returns the ids of its messages.
///
/// # Errors
/// Whether it is certain that nothing was sent.
pub(super) async fn piece(
    api: &Api,
    config: &Config,
    to: &Address,
    piece: &Outbound,
) -> Result<Vec<String>, SendError> {
    if let Some(media) = piece.media.iter().find(|media| media.data.len() as u64 > config.media_bytes) {
        let why = format!("{} is larger than channels.telegram.mediaMaxMb", media::file_name(media));
        return Err(SendError::NotSent { why, retry_after: None });
    }
    if piece.text.trim().is_empty() && piece.media.is_empty() {
        return Err(SendError::NotSent { why: "there is nothing to send".to_owned(), retry_after: None });
    }
    let outcome = attempt(api, config, to, piece, true).await;
    let outcome = match outcome {
        // It takes the text without its styles rather than not at all.
        Err(error) if styles_refused(&error) => {
            tracing::warn!("telegram refused the styles of a message; it is sent plain: {error}");
            attempt(api, config, to, piece, false).await
        }
        // The topic was deleted: the group is still there.
        Err(error) if error.says(&["message thread not found"]) && to.thread.is_some() => {
            let group = Address { thread: None, ..to.clone() };
            attempt(api, config, &group, piece, true).await
        }
        outcome => outcome,
    };
    outcome.map_err(|error| match &error {
        ApiError::Refused { migrated_to: Some(id), .. } => {
            let why = format!("the group has become a supergroup; its id is now {id} (channels.telegram.groups)");
            SendError::NotSent { why, retry_after: None }
        }
        _ => error.outcome(),
    })
}

fn styles_refused(error: &ApiError) -> bool {
    error.code() == Some(400) && error.says(&["can't parse entities", "entity", "entities"])
}

async fn attempt(
    api: &Api,
    config: &Config,
    to: &Address,
    piece: &Outbound,
    styles: bool,
) -> Result<Vec<String>, ApiError> {
    let spans = if styles { piece.styles.as_deref().unwrap_or_default() } else { &[] };
    let mut params = destination(to);
    if piece.silent {
        params.insert("disable_notification".into(), json!(true));
    }
    if let Some(id) = piece.reply_to.as_deref().and_then(|id| id.parse::<i64>().ok()) {
        params.insert("reply_parameters".into(), json!({"message_id": id, "allow_sending_without_reply": true}));
    }
    if !piece.buttons.is_empty() {
        params.insert("reply_markup".into(), keyboard(piece));
    }
    match piece.media.as_slice() {
        [] => {
            params.insert("text".into(), json!(piece.text));
            if !spans.is_empty() {
                params.insert("entities".into(), json!(entities(spans)));
            }
            if !config.link_preview {
                params.insert("link_preview_options".into(), json!({"is_disabled": true}));
            }
            let sent: SentMessage = api.call("sendMessage", &Value::Object(params)).await?;
            Ok(vec![sent.message_id.to_string()])
        }
        [media] => {
            let (method, field) = media::method(media, piece.hints);
            caption(&mut params, &piece.text, spans);
            let sent: SentMessage = api.upload(method, || form(&params).part(field, media::part(media))).await?;
            Ok(vec![sent.message_id.to_string()])
        }
        album => {
            let mut items: Vec<Value> =
                (0..album.len()).map(|n| json!({"type": "photo", "media": format!("attach://photo{n}")})).collect();
            if let Some(Value::Object(first)) = items.first_mut() {
                caption(first, &piece.text, spans);
            }
            params.remove("reply_markup");
            params.insert("media".into(), Value::Array(items));
            let with_files = || {
                let files = album.iter().enumerate();
                files.fold(form(&params), |form, (n, media): (usize, &Media)| {
                    form.part(format!("photo{n}"), media::part(media))
                })
            };
            let sent: Vec<SentMessage> = api.upload("sendMediaGroup", with_files).await?;
            Ok(sent.iter().map(|message| message.message_id.to_string()).collect())
        }
    }
}

fn caption(params: &mut Map<String, Value>, text: &str, spans: &[Span]) {
    if text.is_empty() {
        return;
    }
    params.insert("caption".into(), json!(text));
    if !spans.is_empty() {
        params.insert("caption_entities".into(), json!(entities(spans)));
    }
}

/// Parameters as fields of a form.
fn form(params: &Map<String, Value>) -> reqwest::multipart::Form {
    params.iter().fold(reqwest::multipart::Form::new(), |form, (key, value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        form.text(key.clone(), text)
    })
}

fn chat(to: &Address) -> Value {
    to.chat.parse::<i64>().map_or_else(|_| json!(to.chat), |id| json!(id))
}

fn destination(to: &Address) -> Map<String, Value> {
    let mut params = Map::new();
    params.insert("chat_id".into(), chat(to));
    if let Some(thread) = to.thread.as_deref().filter(|thread| *thread != GENERAL)
        && let Ok(thread) = thread.parse::<i64>()
    {
        params.insert("message_thread_id".into(), json!(thread));
    }
    params
}

fn keyboard(piece: &Outbound) -> Value {
    let mark = |style| match style {
        ButtonStyle::Plain => "",
        ButtonStyle::Good => "✅ ",
        ButtonStyle::Danger => "⛔ ",
    };
    let button = |button: &crate::message::Button| json!({"text": format!("{}{}", mark(button.style), button.label), "callback_data": button.data});
    let rows: Vec<Vec<Value>> = piece.buttons.iter().map(|row| row.iter().map(button).collect()).collect();
    json!({"inline_keyboard": rows})
}

pub(super) fn entities(spans: &[Span]) -> Vec<EntityOut> {
    let entity = |span: &Span| {
        let (kind, url, language) = match &span.style {
            TextStyle::Bold => ("bold", None, None),
            TextStyle::Italic => ("italic", None, None),
            TextStyle::Strike => ("strikethrough", None, None),
            TextStyle::Underline => ("underline", None, None),
            TextStyle::Spoiler => ("spoiler", None, None),
            TextStyle::Code => ("code", None, None),
            TextStyle::Pre { language } => ("pre", None, language.clone()),
            TextStyle::Quote => ("blockquote", None, None),
            TextStyle::Link { url } => ("text_link", Some(url.clone()), None),
        };
        EntityOut { kind, offset: span.start, length: span.len, url, language }
    };
    // Quotes do not lie inside each other.
    let mut quoted = 0;
    let outer = spans.iter().filter(|span| {
        if span.style != TextStyle::Quote {
            return true;
        }
        let apart = span.start >= quoted;
        quoted = quoted.max(span.start + span.len);
        apart
    });
    outer.map(entity).collect()
}

/// Replaces text and buttons of a message. An edit is the same however often it is made, so nothing is unknown.
pub(super) async fn edit(
    api: &Api,
    config: &Config,
    to: &Address,
    id: &str,
    message: &Outbound,
) -> Result<(), SendError> {
    let text = Outbound { media: Vec::new(), ..message.clone() };
    let mut first = pieces(&text, config.chunk_units).into_iter().next().unwrap_or_default();
    first.buttons.clone_from(&message.buttons);
    let mut params = Map::new();
    params.insert("chat_id".into(), chat(to));
    params.insert("message_id".into(), json!(number(id)?));
    params.insert("text".into(), json!(first.text));
    params.insert("entities".into(), json!(entities(first.styles.as_deref().unwrap_or_default())));
    if !first.buttons.is_empty() {
        params.insert("reply_markup".into(), keyboard(&first));
    }
    if !config.link_preview {
        params.insert("link_preview_options".into(), json!({"is_disabled": true}));
    }
    let mut outcome: Result<Value, _> = api.call("editMessageText", &Value::Object(params.clone())).await;
    if let Err(error) = &outcome
        && styles_refused(error)
    {
        params.remove("entities");
        outcome = api.call("editMessageText", &Value::Object(params.clone())).await;
    }
    if let Err(error) = &outcome
        && error.says(&["there is no text in the message"])
    {
        // A file with a caption.
        let (text, entities) = (params.remove("text"), params.remove("entities"));
        params.remove("link_preview_options");
        params.insert("caption".into(), text.unwrap_or_default());
        params.insert("caption_entities".into(), entities.unwrap_or_default());
        outcome = api.call("editMessageCaption", &Value::Object(params)).await;
    }
    match outcome {
        Ok(_) => Ok(()),
        Err(error) if error.says(&["message is not modified"]) => Ok(()),
        Err(error) => Err(error.not_sent()),
    }
}

pub(super) async fn delete(api: &Api, to: &Address, id: &str) -> Result<(), SendError> {
    let params = json!({"chat_id": chat(to), "message_id": number(id)?});
    match api.call::<Value>("deleteMessage", &params).await {
        Ok(_) => Ok(()),
        Err(error) if error.says(&["message to delete not found"]) => Ok(()),
        Err(error) => Err(error.not_sent()),
    }
}

pub(super) async fn react(api: &Api, to: &Address, id: &str, emoji: Option<&str>) -> Result<(), SendError> {
    let reaction = match emoji {
        None => json!([]),
        Some(id) if id.len() > 8 && id.bytes().all(|b| b.is_ascii_digit()) => {
            json!([{"type": "custom_emoji", "custom_emoji_id": id}])
        }
        Some(emoji) => json!([{"type": "emoji", "emoji": emoji}]),
    };
    let params = json!({"chat_id": chat(to), "message_id": number(id)?, "reaction": reaction});
    api.call::<Value>("setMessageReaction", &params).await.map(drop).map_err(|error| error.not_sent())
}

pub(super) async fn poll(api: &Api, to: &Address, poll: &Poll) -> Result<String, SendError> {
    let mut params = destination(to);
    let options: Vec<Value> = poll.options.iter().map(|text| json!({"text": text})).collect();
    params.insert("question".into(), json!(poll.question));
    params.insert("options".into(), Value::Array(options));
    params.insert("is_anonymous".into(), json!(poll.anonymous));
    params.insert("allows_multiple_answers".into(), json!(poll.max_selections.is_some_and(|most| most > 1)));
    if let Some(time) = poll.open_for {
        params.insert("open_period".into(), json!(time.as_secs()));
    }
    if poll.silent {
        params.insert("disable_notification".into(), json!(true));
    }
    let sent = api.call::<SentMessage>("sendPoll", &Value::Object(params)).await;
    sent.map(|message| message.message_id.to_string()).map_err(|error| error.outcome())
}

pub(super) async fn typing(api: &Api, to: &Address) {
    let mut params = destination(to);
    if to.thread.as_deref() == Some(GENERAL) {
        params.insert("message_thread_id".into(), json!(1));
    }
    params.insert("action".into(), json!("typing"));
    let timeout = std::time::Duration::from_secs(10);
    if let Err(error) = api.once::<Value>("sendChatAction", &Value::Object(params), timeout).await {
        tracing::debug!("typing: {error}");
    }
}

fn number(id: &str) -> Result<i64, SendError> {
    let why = || format!("\"{}\" is no message id of Telegram", id.escape_debug());
    id.parse().map_err(|_| SendError::NotSent { why: why(), retry_after: None })
}
