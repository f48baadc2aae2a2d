//! Who is online, as far as Discord has told: a bounded cache per account.

use std::collections::{BTreeMap, HashMap};

use super::api::PresenceUpdate;

/// Users remembered per account; the one not heard of for longest gives way (the reference keeps as many).
pub const MAX_USERS: usize = 5_000;

/// What Discord said last about a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    /// `online`, `idle`, `dnd` or `offline`.
    pub status: String,
    /// The guild it was heard in.
    pub guild_id: Option<String>,
    /// Names of activities, the custom status with its text.
    pub activities: Vec<String>,
}

/// See the module documentation.
#[derive(Debug)]
pub struct PresenceCache {
    room: usize,
    users: HashMap<String, (u64, Presence)>,
    /// Age of each entry: the smallest key is the oldest.
    ages: BTreeMap<u64, String>,
    clock: u64,
}

impl Default for PresenceCache {
    fn default() -> Self {
        Self::with_room(MAX_USERS)
    }
}

impl PresenceCache {
    /// A cache for `room` users, at least one.
    pub fn with_room(room: usize) -> Self {
        Self { room: room.max(1), users: HashMap::new(), ages: BTreeMap::new(), clock: 0 }
    }

    /// Takes what Discord says of a user, in `PRESENCE_UPDATE` or in the list of `GUILD_CREATE`.
    pub(super) fn update(&mut self, guild: Option<&str>, update: &PresenceUpdate) {
        let activities = update.activities.iter().map(|activity| match &activity.state {
            Some(state) if activity.kind == 4 => state.clone(),
            _ => activity.name.clone(),
        });
        let presence = Presence {
            status: update.status.clone(),
            guild_id: update.guild_id.clone().or_else(|| guild.map(str::to_owned)),
            activities: activities.collect(),
        };
        self.set(&update.user.id, presence);
    }

    /// Sets a user's presence; it is the youngest entry then.
    pub fn set(&mut self, user: &str, presence: Presence) {
        self.clock += 1;
        if let Some((age, _)) = self.users.insert(user.to_owned(), (self.clock, presence)) {
            self.ages.remove(&age);
        }
        self.ages.insert(self.clock, user.to_owned());
        while self.users.len() > self.room {
            let Some((_, oldest)) = self.ages.pop_first() else { return };
            self.users.remove(&oldest);
        }
    }

    pub fn get(&self, user: &str) -> Option<&Presence> {
        self.users.get(user).map(|(_, presence)| presence)
    }

    pub fn len(&self) -> usize {
        self.users.len()
    }

    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Forgets everybody: a new session starts without what the old one knew.
    pub fn clear(&mut self) {
        self.users.clear();
        self.ages.clear();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn presence(status: &str) -> Presence {
        Presence { status: status.into(), guild_id: None, activities: Vec::new() }
    }

    #[test]
    fn s_254_the_oldest_gives_way_and_word_of_a_user_makes_him_young() {
        let mut cache = PresenceCache::with_room(3);
        for user in ["a", "b", "c"] {
            cache.set(user, presence("online"));
        }
        cache.set("a", presence("idle"));
        cache.set("d", presence("online"));
        assert_eq!(cache.len(), 3);
        assert_eq!(cache.get("b"), None, "the oldest");
        assert_eq!(cache.get("a"), Some(&presence("idle")));
        cache.set("e", presence("dnd"));
        assert!(cache.get("c").is_none() && cache.get("a").is_some() && cache.get("d").is_some());
        cache.clear();
        assert!(cache.is_empty() && cache.get("a").is_none());
        cache.set("z", presence("online"));
        assert_eq!(cache.len(), 1);
    }

    #[test]
    fn s_254_the_bound_is_the_references() {
        let mut cache = PresenceCache::default();
        for user in 0..6_000 {
            cache.set(&user.to_string(), presence("online"));
        }
        assert_eq!((cache.len(), MAX_USERS), (5_000, 5_000));
        assert!(cache.get("999").is_none() && cache.get("1000").is_some());
        assert_eq!(cache.ages.len(), cache.users.len());
    }

    /// The shapes of the API reference, "Presence Update" and "Activity Object".
    #[test]
    fn s_254_what_discord_says() {
        let mut cache = PresenceCache::default();
        let update = |value| serde_json::from_value::<PresenceUpdate>(value).expect("reads");
        let with_guild = update(json!({"user": {"id": "80351110224678912"}, "guild_id": "197038439483310086",
            "status": "dnd", "activities": [{"name": "Rocket League", "type": 0, "created_at": 1},
            {"name": "Custom Status", "type": 4, "state": "at lunch"}], "client_status": {"desktop": "dnd"}}));
        cache.update(None, &with_guild);
        let seen = cache.get("80351110224678912").expect("known");
        assert_eq!((seen.status.as_str(), seen.guild_id.as_deref()), ("dnd", Some("197038439483310086")));
        assert_eq!(seen.activities, ["Rocket League", "at lunch"]);
        // Those of GUILD_CREATE do not name the guild.
        cache.update(Some("1"), &update(json!({"user": {"id": "7"}, "status": "online", "activities": []})));
        assert_eq!(cache.get("7").expect("known").guild_id.as_deref(), Some("1"));
    }
}
