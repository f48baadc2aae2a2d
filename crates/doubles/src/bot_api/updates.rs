//! What arrives at a bot.

use serde_json::{Map, Value, json};

use super::{Bot, server};

/// Somebody who writes.
#[derive(Clone, Debug)]
pub struct Person {
    pub id: i64,
    pub first_name: String,
    pub username: Option<String>,
    pub is_bot: bool,
}

impl Person {
    pub fn new(id: i64, first_name: &str) -> Self {
        Self { id, first_name: first_name.to_owned(), username: None, is_bot: false }
    }

    pub fn username(self, username: &str) -> Self {
        Self { username: Some(username.to_owned()), ..self }
    }

    pub fn bot(self) -> Self {
        Self { is_bot: true, ..self }
    }

    /// The `User` object.
    pub fn json(&self) -> Value {
        let mut user =
            json!({"id": self.id, "is_bot": self.is_bot, "first_name": self.first_name, "language_code": "en"});
        if let Some(username) = &self.username {
            user["username"] = json!(username);
        }
        user
    }
}

/// Where it is written.
#[derive(Clone, Debug)]
pub enum Chat {
    Private(Person),
    Group {
        id: i64,
        title: String,
    },
    /// A supergroup; `topic` is the thread of the message.
    Supergroup {
        id: i64,
        title: String,
        topic: Option<i64>,
    },
    Channel {
        id: i64,
        title: String,
    },
}

impl Chat {
    pub fn group(id: i64, title: &str) -> Self {
        Self::Supergroup { id, title: title.to_owned(), topic: None }
    }

    pub fn topic(id: i64, title: &str, topic: i64) -> Self {
        Self::Supergroup { id, title: title.to_owned(), topic: Some(topic) }
    }

    pub fn id(&self) -> i64 {
        match self {
            Self::Private(person) => person.id,
            Self::Group { id, .. } | Self::Supergroup { id, .. } | Self::Channel { id, .. } => *id,
        }
    }

    /// The `Chat` object.
    pub fn json(&self) -> Value {
        match self {
            Self::Private(person) => {
                let mut chat = json!({"id": person.id, "type": "private", "first_name": person.first_name});
                if let Some(username) = &person.username {
                    chat["username"] = json!(username);
                }
                chat
            }
            Self::Group { id, title } => json!({"id": id, "type": "group", "title": title}),
            Self::Supergroup { id, title, topic } => {
                let mut chat = json!({"id": id, "type": "supergroup", "title": title});
                if topic.is_some() {
                    chat["is_forum"] = json!(true);
                }
                chat
            }
            Self::Channel { id, title } => json!({"id": id, "type": "channel", "title": title}),
        }
    }
}

impl Bot {
    /// A private message. Returns the id of the update.
    pub fn says(&self, person: &Person, text: &str) -> i64 {
        self.writes(person, &Chat::Private(person.clone()), text, json!({}))
    }

    /// A message in a chat, with more fields of the `Message` object (`entities` are made for commands and @names if none
    /// are given). Returns the id of the update.
    pub fn writes(&self, person: &Person, chat: &Chat, text: &str, more: Value) -> i64 {
        let mut message = self.message(person, chat);
        message.insert("text".into(), json!(text));
        let entities = entities(text);
        if !entities.is_empty() {
            message.insert("entities".into(), json!(entities));
        }
        merge(&mut message, more);
        self.push(json!({"message": message}))
    }

    /// A message without a text; `more` says what it is (`photo`, `caption`, …).
    pub fn sends(&self, person: &Person, chat: &Chat, more: Value) -> i64 {
        let mut message = self.message(person, chat);
        merge(&mut message, more);
        self.push(json!({"message": message}))
    }

    /// A button was pressed. `message_id` is that of a message the bot sent.
    pub fn presses(&self, person: &Person, chat: &Chat, message_id: i64, data: &str) -> i64 {
        let message = json!({"message_id": message_id, "date": now(), "chat": chat.json(), "from": self.me()});
        let mut query = json!({"id": format!("q{message_id}"), "from": person.json(), "message": message,
            "chat_instance": "1", "data": data});
        if let Chat::Supergroup { topic: Some(topic), .. } = chat {
            query["message"]["message_thread_id"] = json!(topic);
        }
        self.push(json!({"callback_query": query}))
    }

    /// Any update, without its id. Returns the id it got.
    pub fn push(&self, update: Value) -> i64 {
        let id = {
            let mut state = self.shared.lock();
            state.next_update += 1;
            let id = state.next_update;
            let mut update = update;
            update["update_id"] = json!(id);
            state.bots.get_mut(&self.token).expect("the bot is registered").updates.insert(id, update);
            id
        };
        self.shared.tell();
        id
    }

    /// Sends the oldest update that waits to the webhook, as Telegram would. Returns the HTTP status and the headers;
    /// with a 2xx the update is confirmed. `secret` replaces the token that was set.
    ///
    /// # Panics
    /// When there is no webhook, no update, or nobody listens.
    pub fn deliver(&self, to: Option<&str>, secret: Option<&str>) -> (u16, String) {
        let hook = self.webhook().expect("a webhook is set");
        let (id, update) = self
            .with(|bot| bot.updates.first_key_value().map(|(id, update)| (*id, update.clone())))
            .expect("an update");
        let secret = secret.map(str::to_owned).or(hook.secret);
        let answer = server::post(to.unwrap_or(&hook.url), secret.as_deref(), &update.to_string());
        if (200..300).contains(&answer.0) {
            self.with(|bot| drop(bot.updates.remove(&id)));
        }
        answer
    }

    /// The bot as a `User` object.
    pub fn me(&self) -> Value {
        self.with(|bot| json!({"id": bot.id, "is_bot": true, "first_name": bot.username, "username": bot.username}))
    }

    fn message(&self, person: &Person, chat: &Chat) -> Map<String, Value> {
        let id = {
            let mut state = self.shared.lock();
            state.next_message += 1;
            state.next_message
        };
        let mut message = json!({"message_id": id, "date": now(), "chat": chat.json(), "from": person.json()});
        if let Chat::Supergroup { topic: Some(topic), .. } = chat {
            message["message_thread_id"] = json!(topic);
            message["is_topic_message"] = json!(true);
        }
        match message {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }
}

fn merge(message: &mut Map<String, Value>, more: Value) {
    if let Value::Object(more) = more {
        message.extend(more);
    }
}

/// Entities as Telegram makes them, for commands and @names.
fn entities(text: &str) -> Vec<Value> {
    let mut found = Vec::new();
    let mut offset = 0;
    for word in text.split_inclusive(char::is_whitespace) {
        let trimmed = word.trim_end();
        let len = trimmed.encode_utf16().count();
        if len > 1 && trimmed.starts_with('/') {
            found.push(json!({"type": "bot_command", "offset": offset, "length": len}));
        } else if len > 1 && trimmed.starts_with('@') {
            found.push(json!({"type": "mention", "offset": offset, "length": len}));
        }
        offset += word.encode_utf16().count();
    }
    found
}

pub(super) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map(|since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX)).unwrap_or_default()
}
