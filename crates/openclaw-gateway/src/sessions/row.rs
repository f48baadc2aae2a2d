//! A conversation as lists, events and answers show it.

use openclaw_agent::provider::ModelRef;
use openclaw_channels::message::ChatKind;
use openclaw_protocol::{
    Scope, ScopeSet,
    method::sessions::{ResolvedModel, SessionModelDefaults, SessionRow},
};
use serde_json::{Value, json};

use super::{
    Activity, Record, RunStatus, Sessions,
    models::{Models, shown},
};
use crate::{clock::now_ms, gateway::Gateway};

/// What all rows of one answer have in common.
pub struct Rows<'a> {
    pub sessions: &'a Sessions,
    pub models: Models,
    pub main_key: &'a str,
    pub scopes: ScopeSet,
    pub titles: bool,
    pub last_message: bool,
    /// Of the agents met so far.
    defaults: Vec<(String, SessionModelDefaults)>,
    now_ms: i64,
}

impl<'a> Rows<'a> {
    pub fn new(gateway: &'a Gateway, scopes: ScopeSet) -> Self {
        Self {
            sessions: &gateway.sessions,
            models: Models(gateway.runs.models().catalog()),
            main_key: &gateway.session_defaults.main_key,
            scopes,
            titles: false,
            last_message: false,
            defaults: Vec::new(),
            now_ms: now_ms(),
        }
    }

    fn defaults(&mut self, agent: &str) -> &SessionModelDefaults {
        let at = self.defaults.iter().position(|(known, _)| known == agent).unwrap_or_else(|| {
            self.defaults.push((agent.to_owned(), self.models.defaults(agent)));
            self.defaults.len() - 1
        });
        &self.defaults[at].1
    }

    pub fn row(&mut self, record: &Record) -> SessionRow {
        let activity = self.sessions.activity(&record.key);
        let settings = &record.settings;
        let own = settings.model.as_deref().and_then(ModelRef::parse);
        let defaults = self.defaults(record.key.agent()).clone();
        let (model, context, levels) = match &own {
            None => {
                let model = defaults.model_provider.zip(defaults.model);
                (model, defaults.context_tokens, (defaults.thinking_levels, defaults.thinking_options))
            }
            Some(own) => {
                let levels = self.models.thinking(Some(own));
                let options = levels.iter().map(|level| level.as_str().to_owned()).collect();
                let model = Some((own.provider.clone(), own.model.clone()));
                (model, Some(self.models.context_tokens(own)), (shown(levels), options))
            }
        };
        let (model_provider, model) = model.unzip();
        let run = record.last_run.as_ref();
        let place = record.place.as_deref();
        let is_main = record.is_main(self.main_key);
        let ran = run.is_some();
        SessionRow {
            key: record.key.as_str().to_owned(),
            session_id: record.session_id.as_str().to_owned(),
            kind: if place.is_some_and(|place| place.kind != ChatKind::Direct) { "group" } else { "direct" },
            classification: classification(record, is_main),
            agent_id: record.key.agent().to_owned(),
            is_main,
            is_background: settings.spawned_by.is_some(),
            chat_type: Some(match place.map(|place| place.kind) {
                None | Some(ChatKind::Direct) => "direct",
                Some(ChatKind::Group) => "group",
                Some(ChatKind::Channel) => "channel",
            }),
            channel: place.map(|place| place.address.channel.clone()),
            account_id: place.map(|place| place.address.account.clone()),
            delivery_context: place.map(|place| delivery(place)),
            last_channel: place.map(|place| place.address.channel.clone()),
            last_to: place.map(|place| place.address.chat.clone()),
            label: settings.label.clone(),
            display_name: settings.display_name.clone().or_else(|| place?.title.clone()),
            icon: settings.icon.clone(),
            color: settings.color.clone(),
            category: settings.category.clone(),
            board_face: settings.board_face.clone(),
            agent_status: settings.status.as_ref().filter(|status| status.expires_ms > self.now_ms).map(|status| {
                json!({"note": status.note, "attention": status.attention, "setAt": status.set_ms,
                    "expiresAt": status.expires_ms})
            }),
            derived_title: if self.titles { record.title.as_deref().map(str::to_owned) } else { None },
            last_message_preview: if self.last_message {
                record.last_message.as_deref().map(str::to_owned)
            } else {
                None
            },
            created_at: record.created_ms,
            updated_at: record.updated_ms,
            archived: settings.archived_ms.is_some(),
            archived_at: settings.archived_ms,
            pinned: settings.pinned_ms.is_some(),
            pinned_at: settings.pinned_ms,
            unread: record.unread(),
            last_read_at: record.read_ms,
            marked_unread_at: settings.marked_unread_ms,
            last_interaction_at: record.interacted_ms,
            last_activity_at: record.active_ms(),
            created_via: settings.created_via.clone(),
            visibility: "shared",
            sharing_role: if self.scopes.grants(Scope::Admin) { "admin" } else { "viewer" },
            system_sent: record.last_seq > 0,
            aborted_last_run: run.is_some_and(|run| run.status == RunStatus::Killed),
            thinking_level: settings.thinking_level.clone(),
            fast_mode: settings.fast_mode.clone(),
            verbose_level: settings.verbose_level.clone(),
            trace_level: settings.trace_level.clone(),
            reasoning_level: settings.reasoning_level.clone(),
            response_usage: settings.response_usage.clone(),
            send_policy: settings.send_policy.clone(),
            group_activation: settings.group_activation.clone(),
            thinking_default: settings.thinking_level.clone().unwrap_or(defaults.thinking_default),
            thinking_levels: levels.0,
            thinking_options: levels.1,
            input_tokens: ran.then_some(record.totals.input),
            output_tokens: ran.then_some(record.totals.output),
            total_tokens: record.totals.context,
            total_tokens_fresh: record.totals.context.is_some(),
            context_tokens: context,
            estimated_cost_usd: ran.then_some(record.totals.cost),
            compaction_count: record.compactions,
            model_provider,
            model,
            model_override_source: own.map(|_| "user"),
            status: status(record, &activity),
            started_at: run.and_then(|run| run.started_ms),
            ended_at: run.and_then(|run| run.ended_ms),
            runtime_ms: run.and_then(|run| Some(run.ended_ms?.saturating_sub(run.started_ms?).max(0))),
            last_run_id: run.map(|run| run.run_id.to_string()),
            has_active_run: !activity.running.is_empty(),
            active_run_ids: activity.running.clone(),
            queued_runs: activity.waiting.len(),
            parent_session_key: settings.parent.as_ref().map(|key| key.as_str().to_owned()),
            spawned_by: settings.spawned_by.as_ref().map(|key| key.as_str().to_owned()),
            lifecycle_revision: record.revision.to_string(),
            snapshot_at: self.now_ms,
        }
    }

    /// The entry of `sessions.patch` and its kin: what is stored.
    pub fn entry(&self, record: &Record) -> Value {
        let mut entry = serde_json::to_value(&record.settings).unwrap_or_default();
        for (from, to) in [
            ("pinnedMs", "pinnedAt"),
            ("archivedMs", "archivedAt"),
            ("markedUnreadMs", "markedUnreadAt"),
            ("parent", "parentSessionKey"),
            ("status", "agentStatus"),
        ] {
            if let Some(value) = entry.as_object_mut().and_then(|entry| entry.shift_remove(from)) {
                entry[to] = value;
            }
        }
        if let Some(model) = record.settings.model.as_deref().and_then(ModelRef::parse) {
            entry["providerOverride"] = model.provider.into();
            entry["modelOverride"] = model.model.into();
        }
        entry["modelOverrideSource"] = if record.settings.model.is_some() { "user" } else { "default" }.into();
        entry["sessionId"] = record.session_id.as_str().into();
        entry["lifecycleRevision"] = record.revision.as_ref().into();
        entry["createdAt"] = record.created_ms.into();
        entry["sessionStartedAt"] = record.started_ms.into();
        entry["updatedAt"] = record.updated_ms.into();
        entry["compactionCount"] = record.compactions.into();
        let delivery = record.place.as_deref().map_or_else(|| json!({"kind": "none"}), delivery);
        entry["delivery"] = delivery;
        for (key, value) in [
            ("lastInteractionAt", record.interacted_ms),
            ("lastActivityAt", record.active_ms()),
            ("lastReadAt", record.read_ms),
        ] {
            if let Some(value) = value {
                entry[key] = value.into();
            }
        }
        entry
    }

    pub fn resolved(&self, record: &Record) -> ResolvedModel {
        let model = self.models.selected(record);
        let (model_provider, model) = model.map(|model| (model.provider, model.model)).unzip();
        ResolvedModel { model_provider, model }
    }
}

fn delivery(place: &super::Place) -> Value {
    let address = &place.address;
    let mut shown = json!({"channel": address.channel, "to": address.chat, "accountId": address.account});
    if let Some(thread) = &address.thread {
        shown["threadId"] = thread.as_str().into();
    }
    shown
}

fn classification(record: &Record, is_main: bool) -> &'static str {
    if is_main {
        "main"
    } else if record.settings.spawned_by.is_some() {
        "subagent"
    } else if record.place.is_some() {
        "channel"
    } else {
        "custom"
    }
}

fn status(record: &Record, activity: &Activity) -> Option<&'static str> {
    if !activity.running.is_empty() {
        return Some("running");
    }
    if !activity.waiting.is_empty() {
        return Some("queued");
    }
    Some(match record.last_run.as_ref()?.status {
        RunStatus::Running => "running",
        RunStatus::Done => "done",
        RunStatus::Failed => "failed",
        RunStatus::Killed => "killed",
        RunStatus::Timeout => "timeout",
    })
}
