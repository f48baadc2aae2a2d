//! Names of guilds, channels and threads, as Discord tells them. Bounded; what was forgotten is asked for when it matters.

use std::collections::{BTreeSet, HashMap, VecDeque};

use super::api::{Channel, Guild};

/// Guilds and channels remembered. A bot beyond 2,500 guilds would need sharding.
const MAX_GUILDS: usize = 2_500;
const MAX_CHANNELS: usize = 20_000;

/// A channel or thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub guild_id: Option<String>,
    pub name: Option<String>,
    pub parent_id: Option<String>,
    pub kind: u8,
}

impl Place {
    /// Announcement, public and private threads.
    pub const fn is_thread(&self) -> bool {
        matches!(self.kind, 10..=12)
    }

    /// A group of several people outside of guilds.
    pub const fn is_group_dm(&self) -> bool {
        self.kind == 3
    }
}

#[derive(Debug, Default)]
struct Known {
    name: String,
    /// Roles of the bot there; naming one of them names the bot.
    my_roles: BTreeSet<String>,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Places {
    guilds: HashMap<String, Known>,
    channels: HashMap<String, Place>,
    /// Channels in the order they were learned.
    order: VecDeque<String>,
}

impl Places {
    /// Takes a whole guild.
    pub fn guild(&mut self, guild: &Guild, me: Option<&str>) {
        if guild.unavailable || (self.guilds.len() >= MAX_GUILDS && !self.guilds.contains_key(&guild.id)) {
            return;
        }
        let mine =
            guild.members.iter().find(|member| member.user.as_ref().map(|user| user.id.as_str()) == me && me.is_some());
        let my_roles = mine.map(|member| member.roles.iter().cloned().collect()).unwrap_or_default();
        self.guilds.insert(guild.id.clone(), Known { name: guild.name.clone(), my_roles });
        for channel in guild.channels.iter().chain(&guild.threads) {
            self.channel(channel, Some(&guild.id));
        }
    }

    /// Takes a new or changed channel or thread.
    pub fn channel(&mut self, channel: &Channel, guild: Option<&str>) {
        let place = Place {
            guild_id: channel.guild_id.clone().or_else(|| guild.map(str::to_owned)),
            name: channel.name.clone(),
            parent_id: channel.parent_id.clone(),
            kind: channel.kind,
        };
        if self.channels.insert(channel.id.clone(), place).is_none() {
            self.order.push_back(channel.id.clone());
        }
        while self.channels.len() > MAX_CHANNELS {
            let Some(oldest) = self.order.pop_front() else { return };
            self.channels.remove(&oldest);
        }
    }

    pub fn forget_channel(&mut self, id: &str) {
        if self.channels.remove(id).is_some() {
            self.order.retain(|known| known != id);
        }
    }

    pub fn forget_guild(&mut self, id: &str) {
        self.guilds.remove(id);
        self.channels.retain(|_, place| place.guild_id.as_deref() != Some(id));
        self.order.retain(|known| self.channels.contains_key(known));
    }

    pub fn get(&self, channel: &str) -> Option<&Place> {
        self.channels.get(channel)
    }

    pub fn guild_name(&self, guild: &str) -> Option<&str> {
        self.guilds.get(guild).map(|known| known.name.as_str()).filter(|name| !name.is_empty())
    }

    /// True when one of the roles is the bot's.
    pub fn names_me(&self, guild: &str, roles: &[String]) -> bool {
        self.guilds.get(guild).is_some_and(|known| roles.iter().any(|role| known.my_roles.contains(role)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_guild_and_what_changes_in_it() {
        let guild: Guild = serde_json::from_value(json!({"id": "1", "name": "Friends",
            "channels": [{"id": "10", "type": 0, "name": "general"}],
            "threads": [{"id": "11", "type": 11, "name": "plans", "parent_id": "10", "guild_id": "1"}],
            "members": [{"user": {"id": "9"}, "roles": ["77"]}, {"user": {"id": "5"}, "roles": ["78"]}]}))
        .expect("reads");
        let mut places = Places::default();
        places.guild(&guild, Some("9"));
        assert_eq!(places.guild_name("1"), Some("Friends"));
        assert!(places.get("11").is_some_and(|place| place.is_thread() && place.parent_id.as_deref() == Some("10")));
        assert_eq!(places.get("10").and_then(|place| place.guild_id.as_deref()), Some("1"));
        assert!(places.names_me("1", &["77".into()]) && !places.names_me("1", &["78".into()]));
        places.forget_channel("11");
        assert!(places.get("11").is_none());
        places.forget_guild("1");
        assert!(places.get("10").is_none() && places.guild_name("1").is_none());
    }

    #[test]
    fn the_oldest_channels_give_way() {
        let mut places = Places::default();
        for id in 0..(MAX_CHANNELS + 5) {
            let channel = Channel { id: id.to_string(), kind: 0, guild_id: None, name: None, parent_id: None };
            places.channel(&channel, Some("1"));
        }
        assert_eq!(places.channels.len(), MAX_CHANNELS);
        assert!(places.get("4").is_none() && places.get("5").is_some());
    }
}
