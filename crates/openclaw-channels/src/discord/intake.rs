//! Events from the gateway: names and presences are noted at once, pressed buttons answered in their own tasks, and
//! messages go to a few lanes that keep the order of each chat.
//!
//! A message counts as handled when the inbox has kept it. What is not handled is what Discord is asked for again when the
//! connection is resumed.

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::{
    sync::{Notify, Semaphore, mpsc},
    time::Instant,
};

use super::{
    Me, Shared,
    api::{Attachment, Channel, Guild, Interaction, Message, PresenceUpdate, time_of},
    interaction,
    places::Place,
    policy::{Facts, LoopGuard, Taken},
};
use crate::message::{ChatKind, Inbound, Media, Quoted, Sender};

/// Chats share these; one that fetches a large file holds up few others.
const LANES: usize = 8;
/// Messages that wait in a lane. When it is full the connection is given up and resumed later.
const LANE: usize = 64;
/// Buttons pressed at the same time.
const PRESSES: usize = 64;
/// Files of one message, and what is taken of them, however large `mediaMaxMb` is: 20 MiB each, 32 MiB together.
const MAX_FILES: usize = 10;
const MAX_FILE_BYTES: u64 = 20 << 20;
const MAX_BYTES: u64 = 32 << 20;
/// Longest wait between two tries to keep a message.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// See the module documentation.
pub struct Intake {
    shared: Arc<Shared>,
    lanes: Vec<mpsc::Sender<Job>>,
    handled: Arc<Handled>,
    presses: Arc<Semaphore>,
}

struct Job {
    seq: u64,
    message: Box<Message>,
}

/// The inbox cannot keep up.
#[derive(Debug)]
pub struct Overloaded;

impl Intake {
    /// Starts the lanes.
    pub fn start(shared: &Arc<Shared>) -> Self {
        let handled = Arc::new(Handled::default());
        let guard = Arc::new(Mutex::new(LoopGuard::default()));
        let lane = |_| {
            let (sender, jobs) = mpsc::channel(LANE);
            let (shared, handled, guard) = (Arc::clone(shared), Arc::clone(&handled), Arc::clone(&guard));
            let tracker = shared.tracker.clone();
            tracker.spawn(async move {
                let stop = shared.stop.clone();
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    () = work(&shared, &handled, &guard, jobs) => {}
                }
            });
            sender
        };
        let lanes = (0..LANES).map(lane).collect();
        Self { shared: Arc::clone(shared), lanes, handled, presses: Arc::new(Semaphore::new(PRESSES)) }
    }

    /// The number to resume from: everything up to it is handled.
    pub fn resume_from(&self) -> u64 {
        self.handled.lock().resume_from()
    }

    /// Waits until nothing is left to do.
    pub async fn drained(&self) {
        loop {
            let changed = self.handled.changed.notified();
            if self.handled.lock().outstanding.is_empty() {
                return;
            }
            changed.await;
        }
    }

    /// A new session begins: its numbers start anew. Call it when [`Intake::drained`].
    pub fn restart(&self) {
        self.handled.lock().last = 0;
    }

    /// Takes an event.
    ///
    /// # Errors
    /// [`Overloaded`]: it was not taken, and counts as not handled.
    pub fn dispatch(&self, seq: u64, name: &str, data: &RawValue) -> Result<(), Overloaded> {
        let shared = &self.shared;
        self.handled.begin(seq);
        match name {
            "MESSAGE_CREATE" => {
                if let Some(message) = parsed::<Message>(name, data) {
                    return self.queue(Job { seq, message: Box::new(message) });
                }
            }
            "INTERACTION_CREATE" => {
                if let Some(interaction) = parsed::<Interaction>(name, data) {
                    self.press(interaction);
                }
            }
            "PRESENCE_UPDATE" => {
                if let Some(update) = parsed::<PresenceUpdate>(name, data) {
                    shared.presence().update(None, &update);
                }
            }
            "GUILD_CREATE" => {
                if let Some(guild) = parsed::<Guild>(name, data) {
                    let me = shared.me();
                    shared.places().guild(&guild, me.as_ref().map(|me| me.id.as_str()));
                    let mut presence = shared.presence();
                    guild.presences.iter().for_each(|update| presence.update(Some(&guild.id), update));
                }
            }
            "GUILD_DELETE" => {
                if let Some(guild) = parsed::<Guild>(name, data).filter(|guild| !guild.unavailable) {
                    shared.places().forget_guild(&guild.id);
                }
            }
            "CHANNEL_CREATE" | "CHANNEL_UPDATE" | "THREAD_CREATE" | "THREAD_UPDATE" => {
                if let Some(channel) = parsed::<Channel>(name, data) {
                    shared.places().channel(&channel, None);
                }
            }
            "CHANNEL_DELETE" | "THREAD_DELETE" => {
                if let Some(channel) = parsed::<super::api::Id>(name, data) {
                    shared.places().forget_channel(&channel.id);
                }
            }
            _ => {}
        }
        self.handled.done(seq);
        Ok(())
    }

    fn queue(&self, job: Job) -> Result<(), Overloaded> {
        let mut hasher = DefaultHasher::new();
        job.message.channel_id.hash(&mut hasher);
        let lane = usize::try_from(hasher.finish() % LANES as u64).unwrap_or(0);
        match self.lanes.get(lane).map(|lane| lane.try_send(job)) {
            Some(Ok(())) => Ok(()),
            Some(Err(mpsc::error::TrySendError::Full(job) | mpsc::error::TrySendError::Closed(job))) => {
                self.handled.forget(job.seq);
                Err(Overloaded)
            }
            None => Err(Overloaded),
        }
    }

    fn press(&self, interaction: Interaction) {
        // With so many under way the rest is left to Discord, which tells whoever pressed that it failed.
        let Ok(permit) = Arc::clone(&self.presses).try_acquire_owned() else {
            tracing::warn!("too many buttons are pressed at once; one was not answered");
            return;
        };
        let shared = Arc::clone(&self.shared);
        let tracker = shared.tracker.clone();
        tracker.spawn(async move {
            let stop = shared.stop.clone();
            tokio::select! {
                () = interaction::handle(shared, interaction) => {}
                () = stop.cancelled() => {}
            }
            drop(permit);
        });
    }
}

fn parsed<T: DeserializeOwned>(name: &str, data: &RawValue) -> Option<T> {
    match serde_json::from_str(data.get()) {
        Ok(value) => Some(value),
        Err(error) => {
            // The text of the error names a field and a place, nothing of the content.
            tracing::debug!(event = name, line = error.line(), column = error.column(), "an event cannot be read");
            None
        }
    }
}

/// Which events are handled.
#[derive(Default)]
struct Handled {
    state: Mutex<HandledState>,
    changed: Notify,
}

#[derive(Default)]
struct HandledState {
    outstanding: BTreeSet<u64>,
    last: u64,
}

impl HandledState {
    fn resume_from(&self) -> u64 {
        self.outstanding.first().map_or(self.last, |first| first.saturating_sub(1))
    }
}

impl Handled {
    fn lock(&self) -> MutexGuard<'_, HandledState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, seq: u64) {
        let mut state = self.lock();
        state.outstanding.insert(seq);
        state.last = state.last.max(seq);
    }

    fn done(&self, seq: u64) {
        self.lock().outstanding.remove(&seq);
        self.changed.notify_waiters();
    }

    /// It never came.
    fn forget(&self, seq: u64) {
        let mut state = self.lock();
        state.outstanding.remove(&seq);
        state.last = state.last.min(seq.saturating_sub(1));
        drop(state);
        self.changed.notify_waiters();
    }
}

async fn work(shared: &Shared, handled: &Handled, guard: &Mutex<LoopGuard>, mut jobs: mpsc::Receiver<Job>) {
    while let Some(Job { seq, message }) = jobs.recv().await {
        if let Some(inbound) = inbound(shared, guard, *message).await {
            keep(shared, inbound).await;
        }
        handled.done(seq);
    }
}

/// Until the inbox has it: Discord will not be asked for it again otherwise.
async fn keep(shared: &Shared, message: Inbound) {
    let mut wait = Duration::from_secs(1);
    while let Err(error) = shared.inbox.message(message.clone()).await {
        tracing::warn!(%error, "a Discord message was not kept; trying again");
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(MAX_BACKOFF);
    }
}

/// The message, if it is for us.
async fn inbound(shared: &Shared, guard: &Mutex<LoopGuard>, message: Message) -> Option<Inbound> {
    let me = shared.me()?;
    // 0 a message, 19 a reply, 20 and 23 commands.
    if message.author.id == me.id || !matches!(message.kind, 0 | 19 | 20 | 23) {
        return None;
    }
    let place = place(shared, &message).await;
    let seen = Seen::of(shared, &me, &message, place.as_ref());
    let taken = match seen.admit(shared, &message) {
        Ok(taken) => taken,
        Err(why) => {
            tracing::debug!(channel = message.channel_id, "a message was left alone: {why}");
            return None;
        }
    };
    let is_bot = message.author.bot || message.webhook_id.is_some();
    if is_bot {
        let mut guard = guard.lock().unwrap_or_else(PoisonError::into_inner);
        if !guard.admit(Instant::now(), &shared.settings.rules, &message.channel_id, &message.author.id) {
            tracing::info!(channel = message.channel_id, "a bot says too much there; it is not heard for a while");
            return None;
        }
    }
    let mut text = without_leading_mention(&message.content, &seen.my_mentions);
    let snapshots = message.message_snapshots.iter().map(|snapshot| snapshot.message.content.trim());
    snapshots
        .filter(|text| !text.is_empty())
        .for_each(|forwarded| add_line(&mut text, &format!("[forwarded]\n{forwarded}")));
    let forwarded = message.message_snapshots.iter().flat_map(|snapshot| &snapshot.message.attachments);
    let files: Vec<Attachment> = message.attachments.iter().chain(forwarded).cloned().collect();
    let nick = message.member.as_ref().and_then(|member| member.nick.clone());
    let mut inbound = Inbound {
        from: interaction::address(&shared.settings.account, &message.channel_id, place.as_ref()),
        kind: seen.kind,
        chat_title: seen.title,
        sender: Sender {
            id: message.author.id.clone(),
            username: Some(message.author.username.clone()).filter(|name| !name.is_empty()),
            name: nick.unwrap_or_else(|| message.author.name().to_owned()),
            is_bot,
        },
        arrival: message.id.clone(),
        sent_at_ms: time_of(&message.id).unwrap_or_default(),
        reply_to: message.referenced_message.as_ref().map(|quoted| Quoted {
            message_id: quoted.id.clone(),
            text: quoted.content.clone(),
            author: quoted.author.name().to_owned(),
            mine: quoted.author.id == me.id,
        }),
        message_id: message.id,
        text,
        media: Vec::new(),
        mentions_me: seen.mentions_me,
        space: message.guild_id,
        roles: message.member.map(|member| member.roles).unwrap_or_default(),
        needs_mention: taken == Taken::IfNamed,
        edited: false,
    };
    if !files.is_empty() {
        let notes = if shared.inbox.wants_media(&inbound) {
            let (media, notes) = fetch(shared, &files).await;
            inbound.media = media;
            notes
        } else {
            files.iter().map(|file| format!("[file {}]", clean(&file.filename))).collect()
        };
        notes.iter().for_each(|note| add_line(&mut inbound.text, note));
    }
    (!inbound.text.is_empty() || !inbound.media.is_empty()).then_some(inbound)
}

fn add_line(text: &mut String, line: &str) {
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(line);
}

/// What is known of the channel. In guilds it is asked for when it is not known: rules may name the parent of a thread.
async fn place(shared: &Shared, message: &Message) -> Option<Place> {
    let known = shared.places().get(&message.channel_id).cloned();
    if known.is_some() || message.guild_id.is_none() {
        return known;
    }
    match shared.rest.channel(&message.channel_id).await {
        Ok(channel) => {
            let mut places = shared.places();
            places.channel(&channel, message.guild_id.as_deref());
            places.get(&message.channel_id).cloned()
        }
        Err(error) => {
            tracing::debug!(%error, channel = message.channel_id, "a channel could not be looked up");
            None
        }
    }
}

/// What a message is about.
struct Seen {
    kind: ChatKind,
    title: Option<String>,
    place: Option<Place>,
    parent_name: Option<String>,
    guild_name: Option<String>,
    names_me: bool,
    mentions_me: bool,
    mentions_others: bool,
    /// How the bot is named at the beginning of a text.
    my_mentions: Vec<String>,
}

impl Seen {
    fn of(shared: &Shared, me: &Me, message: &Message, place: Option<&Place>) -> Self {
        let places = shared.places();
        let guild = message.guild_id.as_deref();
        let is_mine = |role: &String| guild.is_some_and(|guild| places.names_me(guild, std::slice::from_ref(role)));
        let (mine, other_roles): (Vec<&String>, Vec<&String>) = message.mention_roles.iter().partition(|r| is_mine(r));
        let mut my_mentions = vec![format!("<@{}>", me.id), format!("<@!{}>", me.id)];
        my_mentions.extend(mine.iter().map(|role| format!("<@&{role}>")));
        let content = &message.content;
        let names = |id: &str| content.contains(&format!("<@{id}>")) || content.contains(&format!("<@!{id}>"));
        let names_me = my_mentions.iter().any(|mention| content.contains(mention.as_str()));
        let quoted = message.referenced_message.as_ref();
        let answers_me = quoted.is_some_and(|quoted| quoted.author.id == me.id);
        let answers_bot = quoted.is_some_and(|q| q.author.bot && q.webhook_id.is_none() && q.author.id != me.id);
        let names_others = message.mentions.iter().any(|user| user.id != me.id && names(&user.id));
        let group_dm = message.channel_type == Some(3) || place.is_some_and(Place::is_group_dm);
        let parent_name = place
            .filter(|place| place.is_thread())
            .and_then(|place| places.get(place.parent_id.as_deref()?)?.name.clone());
        let guild_name = guild.and_then(|guild| places.guild_name(guild)).map(str::to_owned);
        let name = place.and_then(|place| place.name.clone());
        let title = match (guild, &parent_name, name) {
            (Some(_), Some(parent), Some(name)) => Some(format!("#{parent} › {name}")),
            (Some(_), None, Some(name)) => Some(format!("#{name}")),
            (_, _, name) => name,
        };
        let title = match (title, &guild_name) {
            (Some(title), Some(guild)) => Some(format!("{title} ({guild})")),
            (title, guild) => title.or_else(|| guild.clone()),
        };
        Self {
            kind: match (guild, group_dm) {
                (Some(_), _) => ChatKind::Channel,
                (None, true) => ChatKind::Group,
                (None, false) => ChatKind::Direct,
            },
            title,
            place: place.cloned(),
            parent_name,
            guild_name,
            names_me,
            mentions_me: names_me || answers_me || message.mentions.iter().any(|user| user.id == me.id),
            mentions_others: names_others || !other_roles.is_empty() || answers_bot,
            my_mentions,
        }
    }

    fn admit(&self, shared: &Shared, message: &Message) -> Result<Taken, &'static str> {
        let settings = &shared.settings;
        let is_bot = message.author.bot || message.webhook_id.is_some();
        let Some(guild) = message.guild_id.as_deref() else {
            let listed = |list: &Vec<String>| {
                let name = self.place.as_ref().and_then(|place| place.name.as_deref()).map(super::policy::slug);
                list.is_empty()
                    || list.iter().any(|entry| *entry == message.channel_id || Some(super::policy::slug(entry)) == name)
            };
            return match self.kind {
                _ if !settings.dm_enabled => Err("direct messages are off (channels.discord.dm.enabled)"),
                ChatKind::Group if !settings.group_dms.as_ref().is_some_and(listed) => {
                    Err("group DMs are off (channels.discord.dm.groupEnabled)")
                }
                _ if is_bot && settings.rules.allow_bots == super::policy::AllowBots::None => {
                    Err("written by a bot (channels.discord.allowBots)")
                }
                _ => Ok(Taken::Whole),
            };
        };
        let thread = self.place.as_ref().filter(|place| place.is_thread());
        let mut names = vec![message.author.username.as_str(), message.author.name()];
        names.extend(message.member.as_ref().and_then(|member| member.nick.as_deref()));
        names.retain(|name| !name.is_empty());
        settings.rules.admit(&Facts {
            guild,
            guild_name: self.guild_name.as_deref(),
            channel: &message.channel_id,
            channel_name: self.place.as_ref().and_then(|place| place.name.as_deref()),
            parent: thread.and_then(|place| place.parent_id.as_deref()),
            parent_name: self.parent_name.as_deref(),
            sender: &message.author.id,
            sender_names: names,
            roles: message.member.as_ref().map_or(&[], |member| &member.roles),
            is_bot,
            names_me: self.names_me,
            mentions_me: self.mentions_me,
            mentions_others: self.mentions_others,
        })
    }
}

/// `@bot /status` is the command `/status`.
fn without_leading_mention(content: &str, mentions: &[String]) -> String {
    let mut text = content.trim();
    while let Some(rest) = mentions.iter().find_map(|mention| text.strip_prefix(mention.as_str())) {
        text = rest.trim_start();
    }
    text.to_owned()
}

/// The files that are taken, and a line for each that is not.
async fn fetch(shared: &Shared, files: &[Attachment]) -> (Vec<Media>, Vec<String>) {
    let limit = shared.settings.media_max_bytes.min(MAX_FILE_BYTES);
    let (mut media, mut notes, mut total) = (Vec::new(), Vec::new(), 0);
    for (number, file) in files.iter().enumerate() {
        let name = clean(&file.filename);
        let outcome = if number >= MAX_FILES {
            Err(format!("more than {MAX_FILES} files"))
        } else if file.size > limit || total + file.size > MAX_BYTES {
            Err("it is too large".to_owned())
        } else {
            shared.rest.file(&file.url, limit).await
        };
        match outcome {
            Ok(data) => {
                total += data.len() as u64;
                let mime = file.content_type.clone().unwrap_or_else(|| "application/octet-stream".to_owned());
                media.push(Media { mime, file_name: Some(name), data });
            }
            Err(why) => notes.push(format!("[file {name} ({} KB) was not taken: {why}]", file.size.div_ceil(1024))),
        }
    }
    (media, notes)
}

fn clean(name: &str) -> String {
    name.chars().filter(|c| !c.is_control() && !matches!(c, '/' | '\\' | '[' | ']')).take(120).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_handled_is_asked_for_again() {
        let handled = Handled::default();
        for seq in 1..=5 {
            handled.begin(seq);
        }
        assert_eq!(handled.lock().resume_from(), 0);
        for (seq, expected) in [(1, 1), (3, 1), (2, 3), (5, 3), (4, 5)] {
            handled.done(seq);
            assert_eq!(handled.lock().resume_from(), expected, "after {seq}");
        }
        handled.begin(6);
        handled.begin(7);
        handled.done(6);
        handled.forget(7);
        assert_eq!(handled.lock().resume_from(), 6, "the event that found no room comes again");
    }

    #[test]
    fn a_mention_in_front_is_no_part_of_the_text() {
        let mentions = ["<@9>".to_owned(), "<@!9>".to_owned()];
        for (text, expected) in [
            ("<@9> /status", "/status"),
            ("<@!9><@9>  hi <@9>", "hi <@9>"),
            ("<@8> hi", "<@8> hi"),
            ("  hi ", "hi"),
            ("<@9>", ""),
        ] {
            assert_eq!(without_leading_mention(text, &mentions), expected);
        }
    }
}
