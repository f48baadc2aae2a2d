//! Updates in: what they say in words every channel shares. Pure; downloads and storage are the callers'.

use super::{
    media::{self, Remote},
    types::{CallbackQuery, Chat, Entity, Message, Update, User},
};
use crate::{
    channel::Press,
    message::{Address, ChatKind, Inbound, Quoted, Sender},
};

/// What an update is to us.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Received {
    Message {
        inbound: Box<Inbound>,
        files: Vec<Remote>,
        /// Other messages with the same belong to it.
        album: Option<String>,
    },
    Press {
        query: String,
        press: Press,
    },
    /// A group got another id.
    Migrated {
        from: i64,
        to: i64,
    },
    /// Nothing to do: a service message, our own, one for another bot.
    Nothing,
}

/// Who reads.
pub(super) struct Reader<'a> {
    pub account: &'a str,
    pub me: &'a User,
}

impl Reader<'_> {
    pub fn read(&self, update: &Update) -> Received {
        if let Some(query) = &update.callback_query {
            return self.press(query);
        }
        let (message, edited) = match update {
            Update { message: Some(message), .. } | Update { channel_post: Some(message), .. } => (message, false),
            Update { edited_message: Some(message), .. } | Update { edited_channel_post: Some(message), .. } => {
                (message, true)
            }
            _ => return Received::Nothing,
        };
        if let Some(to) = message.migrate_to_chat_id {
            return Received::Migrated { from: message.chat.id, to };
        }
        self.message(update.update_id, message, edited)
    }

    fn message(&self, update_id: i64, message: &Message, edited: bool) -> Received {
        let mine = |user: &Option<User>| user.as_ref().is_some_and(|user| user.id == self.me.id);
        if mine(&message.from) || message.is_automatic_forward {
            return Received::Nothing;
        }
        let Some(sender) = sender(message) else { return Received::Nothing };
        let mut files = media::of(message);
        let said = words(message);
        if said.is_empty() && files.is_empty() {
            return Received::Nothing;
        }
        // "What is this?" below somebody's picture is about the picture.
        if let Some(reply) = message.reply_to_message.as_deref().filter(|reply| files.is_empty() && !mine(&reply.from))
        {
            files = media::of(reply);
        }
        let (said, for_me) = match self.command(&said) {
            Command::Mine(text) => (text, true),
            // `/start@another_bot`
            Command::Others => return Received::Nothing,
            Command::No => (said, false),
        };
        let mut text = said;
        if let Some(from) = forwarded_from(message) {
            text = format!("[Forwarded from {from}]\n{text}");
        }
        let reply_to = self.quoted(message);
        let answers_me = reply_to.as_ref().is_some_and(|quoted| quoted.mine);
        let entities = if message.text.is_some() { &message.entities } else { &message.caption_entities };
        let raw = message.text.as_deref().or(message.caption.as_deref()).unwrap_or_default();
        let inbound = Inbound {
            from: self.address(message),
            kind: kind(&message.chat),
            chat_title: message.chat.title.clone(),
            sender,
            message_id: message.message_id.to_string(),
            arrival: format!("{}:{update_id}", self.me.id),
            sent_at_ms: message.edit_date.unwrap_or(message.date).saturating_mul(1000),
            text,
            media: Vec::new(),
            reply_to,
            mentions_me: for_me || answers_me || self.named(raw, entities),
            space: None,
            roles: Vec::new(),
            needs_mention: false,
            edited,
        };
        let album = message.media_group_id.as_ref().map(|group| format!("{}:{group}", message.chat.id));
        Received::Message { inbound: Box::new(inbound), files, album }
    }

    fn address(&self, message: &Message) -> Address {
        // In a forum every message has a topic, the first one without saying so. In a private chat topics count only when
        // the bot has them; a thread of a group without topics is just a reply.
        let thread = match (message.message_thread_id, message.chat.kind.as_str()) {
            (Some(topic), "private") if self.me.has_topics_enabled => Some(topic),
            (_, "private") => None,
            (Some(topic), _) if message.is_topic_message => Some(topic),
            (_, _) if message.chat.is_forum => Some(1),
            _ => None,
        };
        Address {
            channel: super::ID.to_owned(),
            account: self.account.to_owned(),
            chat: message.chat.id.to_string(),
            thread: thread.map(|topic| topic.to_string()),
        }
    }

    fn press(&self, query: &CallbackQuery) -> Received {
        let (Some(message), Some(data)) = (&query.message, &query.data) else { return Received::Nothing };
        let press = Press {
            from: self.address(message),
            kind: kind(&message.chat),
            sender: person(&query.from),
            refused: false,
            message_id: message.message_id.to_string(),
            data: data.clone(),
        };
        Received::Press { query: query.id.clone(), press }
    }

    /// Takes the bot's name out of a command.
    fn command(&self, text: &str) -> Command {
        let Some(rest) = text.strip_prefix('/') else { return Command::No };
        let (word, tail) = rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len()));
        let Some((command, name)) = word.split_once('@') else { return Command::No };
        if self.is_my_name(name) { Command::Mine(format!("/{command}{tail}")) } else { Command::Others }
    }

    fn is_my_name(&self, name: &str) -> bool {
        self.me.username.as_deref().is_some_and(|mine| mine.eq_ignore_ascii_case(name))
    }

    fn named(&self, text: &str, entities: &[Entity]) -> bool {
        let wide: Vec<u16> = text.encode_utf16().collect();
        entities.iter().any(|entity| match entity.kind.as_str() {
            "mention" => {
                let end = entity.offset.saturating_add(entity.length).min(wide.len());
                let part = wide.get(entity.offset..end).map(String::from_utf16_lossy).unwrap_or_default();
                part.strip_prefix('@').is_some_and(|name| self.is_my_name(name))
            }
            "text_mention" => entity.user.as_ref().is_some_and(|user| user.id == self.me.id),
            _ => false,
        })
    }

    fn quoted(&self, message: &Message) -> Option<Quoted> {
        let reply = message.reply_to_message.as_deref()?;
        // The first message of a topic is "answered" by all others.
        if message.is_topic_message && message.message_thread_id == Some(reply.message_id) {
            return None;
        }
        let said = || match (words(reply), media::of(reply).first()) {
            (words, Some(file)) if words.is_empty() => format!("[{}]", file.what),
            (words, _) => words,
        };
        let text = message.quote.as_ref().map(|quote| quote.text.clone()).unwrap_or_else(said);
        Some(Quoted {
            message_id: reply.message_id.to_string(),
            text,
            author: sender(reply).map(|sender| sender.name).unwrap_or_default(),
            mine: reply.from.as_ref().is_some_and(|user| user.id == self.me.id),
        })
    }
}

enum Command {
    Mine(String),
    Others,
    No,
}

fn kind(chat: &Chat) -> ChatKind {
    match chat.kind.as_str() {
        "private" => ChatKind::Direct,
        "channel" => ChatKind::Channel,
        _ => ChatKind::Group,
    }
}

fn person(user: &User) -> Sender {
    Sender { id: user.id.to_string(), username: user.username.clone(), name: user.name(), is_bot: user.is_bot }
}

/// Who wrote; a chat when somebody writes in its name (channel posts, anonymous admins).
fn sender(message: &Message) -> Option<Sender> {
    if let Some(chat) = &message.sender_chat {
        let name = chat.title.clone().or_else(|| chat.first_name.clone()).unwrap_or_default();
        return Some(Sender { id: chat.id.to_string(), username: chat.username.clone(), name, is_bot: false });
    }
    match &message.from {
        Some(user) => Some(person(user)),
        None if message.chat.kind == "channel" => {
            let name = message.chat.title.clone().unwrap_or_default();
            Some(Sender {
                id: message.chat.id.to_string(),
                username: message.chat.username.clone(),
                name,
                is_bot: false,
            })
        }
        None => None,
    }
}

fn forwarded_from(message: &Message) -> Option<String> {
    let origin = message.forward_origin.as_ref()?;
    let chat = origin.sender_chat.as_ref().or(origin.chat.as_ref()).and_then(|chat| chat.title.clone());
    let user = origin.sender_user.as_ref().map(User::name);
    user.or_else(|| origin.sender_user_name.clone()).or(chat).or_else(|| Some("somebody".to_owned()))
}

/// The text of a message; what has none is told in words.
fn words(message: &Message) -> String {
    if let Some(text) = message.text.as_ref().or(message.caption.as_ref()) {
        return text.clone();
    }
    if let Some(venue) = &message.venue {
        let at = &venue.location;
        return format!("[venue: {}, {} ({}, {})]", venue.title, venue.address, at.latitude, at.longitude);
    }
    if let Some(at) = &message.location {
        let what = if at.live_period.is_some() { "live location" } else { "location" };
        return format!("[{what}: {}, {}]", at.latitude, at.longitude);
    }
    if let Some(contact) = &message.contact {
        let name = [contact.first_name.as_str(), contact.last_name.as_deref().unwrap_or_default()].join(" ");
        return format!("[contact: {}, {}]", name.trim(), contact.phone_number);
    }
    if let Some(poll) = &message.poll {
        let options: Vec<&str> = poll.options.iter().map(|option| option.text.as_str()).collect();
        return format!("[poll: {} – {}]", poll.question, options.join(" / "));
    }
    if let Some(dice) = &message.dice {
        return format!("[{} {}]", dice.emoji, dice.value);
    }
    if let Some(sticker) = &message.sticker {
        return sticker.emoji.clone().unwrap_or_else(|| "[sticker]".to_owned());
    }
    String::new()
}
