//! Pressed buttons. Discord wants an answer within three seconds, whatever the answer takes.

use std::{sync::Arc, time::Duration};

use super::{
    ID, Shared,
    api::{AllowedMentions, EPHEMERAL, Interaction, MessageBody},
    places::Place,
    policy::Facts,
    send,
};
use crate::{
    channel::{NotKept, Press, PressAnswer},
    message::{Address, ChatKind, Sender},
};

/// After this the answer is put off; half of the three seconds is left for the way ("Responding to an Interaction").
const PROMPT: Duration = Duration::from_millis(1_500);
/// A token is good for 15 minutes.
const PATIENCE: Duration = Duration::from_secs(14 * 60);

/// "Interaction Callback Type".
const NEW_MESSAGE: u8 = 4;
const LATER: u8 = 6;
const CHANGE_MESSAGE: u8 = 7;
/// "Interaction Type".
const COMPONENT: u8 = 3;

/// Answers an interaction.
pub async fn handle(shared: Arc<Shared>, interaction: Interaction) {
    let (id, token, app) = (&interaction.id, &interaction.token, &interaction.application_id);
    let rest = &shared.rest;
    let Some(press) = press(&shared, &interaction) else {
        let _ = rest.answer(id, token, NEW_MESSAGE, Some(&note("This cannot be used here."))).await;
        return;
    };
    let work = shared.inbox.press(press);
    tokio::pin!(work);
    let (answer, in_time) = tokio::select! {
        answer = &mut work => (answer, true),
        () = tokio::time::sleep(PROMPT) => {
            if let Err(error) = rest.answer(id, token, LATER, None).await {
                tracing::warn!(%error, "a pressed button could not be acknowledged");
            }
            match tokio::time::timeout(PATIENCE, work).await {
                Ok(answer) => (answer, false),
                Err(_) => return,
            }
        }
    };
    let answer = answer.unwrap_or_else(|NotKept(why)| {
        tracing::warn!("a pressed button was not taken: {why}");
        let toast = "That could not be kept just now. Press it again in a moment.".to_owned();
        PressAnswer { toast: Some(toast), replace: None }
    });
    let (toast, replace) = (answer.toast.as_deref().map(note), answer.replace);
    let replace = replace.map(|message| send::edited(&shared.settings, &message));
    let outcome = match (in_time, &replace, &toast) {
        (true, Some(message), _) => rest.answer(id, token, CHANGE_MESSAGE, Some(message)).await,
        (true, None, Some(toast)) => rest.answer(id, token, NEW_MESSAGE, Some(toast)).await,
        (true, None, None) => rest.answer(id, token, LATER, None).await,
        (false, Some(message), _) => rest.edit_answered(app, token, message).await,
        (false, None, _) => Ok(()),
    };
    let said = in_time && replace.is_none();
    let outcome = match (outcome, toast.filter(|_| !said)) {
        (Ok(()), Some(toast)) => rest.follow_up(app, token, &toast).await,
        (outcome, _) => outcome,
    };
    if let Err(error) = outcome {
        tracing::warn!(%error, "a pressed button was not answered");
    }
}

/// Something only who pressed it sees.
fn note(text: &str) -> MessageBody {
    MessageBody {
        content: text.chars().take(1_900).collect(),
        flags: EPHEMERAL,
        allowed_mentions: AllowedMentions::default(),
        ..MessageBody::default()
    }
}

fn press(shared: &Shared, interaction: &Interaction) -> Option<Press> {
    let data = interaction.data.as_ref().filter(|data| interaction.kind == COMPONENT && !data.custom_id.is_empty())?;
    let member = interaction.member.as_ref();
    let user = member.and_then(|member| member.user.as_ref()).or(interaction.user.as_ref())?;
    let channel = interaction.channel_id.clone().or_else(|| interaction.channel.as_ref().map(|c| c.id.clone()))?;
    let place = interaction.channel.as_ref().map(|channel| Place {
        guild_id: channel.guild_id.clone(),
        name: channel.name.clone(),
        parent_id: channel.parent_id.clone(),
        kind: channel.kind,
    });
    let place = place.or_else(|| shared.places().get(&channel).cloned());
    let nick = member.and_then(|member| member.nick.clone());
    let guild = interaction.guild_id.clone().or_else(|| place.as_ref().and_then(|place| place.guild_id.clone()));
    let group = place.as_ref().is_some_and(Place::is_group_dm);
    let refused = guild.as_deref().is_some_and(|guild| {
        let places = shared.places();
        let parent = place.as_ref().filter(|place| place.is_thread()).and_then(|place| place.parent_id.as_deref());
        let mut names = vec![user.username.as_str(), user.name()];
        names.extend(member.and_then(|member| member.nick.as_deref()));
        let facts = Facts {
            guild,
            guild_name: places.guild_name(guild),
            channel: &channel,
            channel_name: place.as_ref().and_then(|place| place.name.as_deref()),
            parent,
            parent_name: parent.and_then(|parent| places.get(parent)?.name.as_deref()),
            sender: &user.id,
            sender_names: names,
            roles: member.map_or(&[], |member| &member.roles),
            is_bot: user.bot,
            // Our own button was pressed.
            names_me: true,
            mentions_me: true,
            mentions_others: false,
        };
        shared.settings.rules.admit(&facts).is_err()
    });
    Some(Press {
        from: address(&shared.settings.account, &channel, place.as_ref()),
        kind: match (&guild, group) {
            (Some(_), _) => ChatKind::Channel,
            (None, true) => ChatKind::Group,
            (None, false) => ChatKind::Direct,
        },
        refused,
        sender: Sender {
            id: user.id.clone(),
            username: Some(user.username.clone()).filter(|name| !name.is_empty()),
            name: nick.unwrap_or_else(|| user.name().to_owned()),
            is_bot: user.bot,
        },
        message_id: interaction.message.as_ref()?.id.clone(),
        data: data.custom_id.clone(),
    })
}

/// A thread is a part of its channel.
pub fn address(account: &str, channel: &str, place: Option<&Place>) -> Address {
    let parent = place.filter(|place| place.is_thread()).and_then(|place| place.parent_id.clone());
    let (chat, thread) = match parent {
        Some(parent) => (parent, Some(channel.to_owned())),
        None => (channel.to_owned(), None),
    };
    Address { channel: ID.to_owned(), account: account.to_owned(), chat, thread }
}
