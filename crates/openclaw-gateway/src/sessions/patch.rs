//! `sessions.patch`: what may be set, by whom, and to what.

use openclaw_agent::provider::ModelRef;
use openclaw_protocol::{ErrorShape, Scope, ScopeSet, method::sessions::SessionPatch};
use serde_json::{Value, json};

use super::{Record, record::StatusNote, text};

/// Longest label, category and name.
pub const MAX_LABEL_CHARS: usize = 512;
/// A status note lives this long unless told otherwise.
const STATUS_MINUTES: u64 = 30;

/// Fields of the reference that would change what tools may do. This gateway does not act upon them, so it does not take
/// them: somebody would believe it did.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("permissionMode", "set tools.profile, tools.allow and tools.deny in the config"),
    ("toolOverrides", "set tools.allow and tools.deny in the config"),
    ("elevatedLevel", "commands run behind approvals; see openclaw approvals"),
    ("execHost", "commands run behind approvals; see openclaw approvals"),
    ("execNode", "name the node in the tool call"),
    ("execSecurity", "it was retired; see openclaw approvals"),
    ("execAsk", "it was retired; see openclaw approvals"),
    ("sandboxMode", "there is no sandbox"),
    ("inheritedToolPolicyVersion", "set tools.allow and tools.deny in the config"),
    ("inheritedToolAllow", "set tools.allow in the config"),
    ("inheritedToolDeny", "set tools.deny in the config"),
    ("completionOwnerSessionKey", "conversations have one owner"),
];

/// `sessions.patch` needs write for organisation, model, thinking and speed, and admin for everything else.
///
/// # Errors
/// `FORBIDDEN` with the missing scope.
pub fn authorize(patch: &SessionPatch, scopes: ScopeSet) -> Result<(), ErrorShape> {
    let privileged = patch.context_window.is_some()
        || patch.verbose_level.is_some()
        || patch.trace_level.is_some()
        || patch.reasoning_level.is_some()
        || patch.response_usage.is_some()
        || patch.send_policy.is_some()
        || patch.group_activation.is_some()
        || patch.display_name.is_some()
        || patch.others.keys().any(|key| !is_envelope(key));
    if privileged && !scopes.grants(Scope::Admin) {
        return Err(ErrorShape::missing_scope(Scope::Admin));
    }
    Ok(())
}

/// Fields beside the patch itself that some clients send along.
fn is_envelope(key: &str) -> bool {
    key.starts_with("expected")
}

/// Applies a patch to a record; `taken` says whether another conversation has a label.
///
/// # Errors
/// `INVALID_REQUEST` naming the field; the record may be changed in part and is to be thrown away.
pub fn apply(
    record: &mut Record,
    patch: &SessionPatch,
    is_main: bool,
    taken: impl Fn(&str) -> bool,
    now_ms: i64,
) -> Result<(), ErrorShape> {
    for (key, value) in &patch.others {
        if let Some((_, instead)) = UNSUPPORTED.iter().find(|(field, _)| field == key)
            && !value.is_null()
        {
            return Err(ErrorShape::invalid(format!("this gateway has no {key} of conversations; {instead}")));
        }
    }
    let settings = &mut record.settings;
    let named = |field: &str, patch: &Option<Option<String>>, max: usize| match patch {
        None => Ok(None),
        Some(None) => Ok(Some(None)),
        Some(Some(given)) => name(field, given, max).map(|name| Some(Some(name))),
    };
    if let Some(label) = named("label", &patch.label, MAX_LABEL_CHARS)? {
        if let Some(label) = &label
            && settings.label.as_ref() != Some(label)
            && taken(label)
        {
            return Err(ErrorShape::invalid(format!("label already in use: {label}")));
        }
        settings.label = label;
    }
    if let Some(name) = named("displayName", &patch.display_name, 500)? {
        settings.display_name = name;
    }
    if let Some(icon) = named("icon", &patch.icon, 64)? {
        settings.icon = icon;
    }
    if let Some(color) = named("color", &patch.color, 64)? {
        settings.color = color;
    }
    if let Some(category) = named("category", &patch.category, MAX_LABEL_CHARS)? {
        settings.category = category;
    }
    if let Some(face) = &patch.board_face {
        settings.board_face = Some(one_of("boardFace", face, &["chat", "dashboard"])?);
    }
    if let Some(model) = &patch.model {
        settings.model = match model {
            None => None,
            Some(text) => {
                let model = ModelRef::parse(text).filter(|_| !text.chars().any(char::is_control));
                let model = model.ok_or_else(|| {
                    ErrorShape::invalid(format!(
                        "model must be provider/model, such as openai/gpt-5 (openclaw models list names them); got {:?}",
                        text::clip(text, 100)
                    ))
                })?;
                Some(model.to_string())
            }
        };
    }
    if let Some(fast) = &patch.fast_mode {
        settings.fast_mode = match fast {
            None => None,
            Some(Value::Bool(_)) => fast.clone(),
            Some(Value::String(auto)) if auto == "auto" => fast.clone(),
            Some(_) => return Err(ErrorShape::invalid("fastMode must be true, false or \"auto\"")),
        };
    }
    let level = |field: &str, patch: &Option<Option<String>>, known: &[&str]| match patch {
        None => Ok(None),
        Some(None) => Ok(Some(None)),
        Some(Some(given)) => one_of(field, given.trim(), known).map(|level| Some(Some(level))),
    };
    if let Some(level) = level(
        "thinkingLevel",
        &patch.thinking_level,
        &["off", "minimal", "low", "medium", "high", "xhigh", "max", "adaptive"],
    )? {
        settings.thinking_level = level;
    }
    if let Some(level) = level("verboseLevel", &patch.verbose_level, &["off", "on", "full"])? {
        settings.verbose_level = level;
    }
    if let Some(level) = level("traceLevel", &patch.trace_level, &["off", "on", "raw"])? {
        settings.trace_level = level;
    }
    if let Some(level) = level("reasoningLevel", &patch.reasoning_level, &["off", "on", "stream"])? {
        settings.reasoning_level = level;
    }
    if let Some(level) = level("responseUsage", &patch.response_usage, &["off", "tokens", "full", "on"])? {
        settings.response_usage = level;
    }
    if let Some(policy) = level("sendPolicy", &patch.send_policy, &["allow", "deny"])? {
        settings.send_policy = policy;
    }
    if let Some(activation) = level("groupActivation", &patch.group_activation, &["mention", "always"])? {
        settings.group_activation = activation;
    }
    if let Some(window) = named("contextWindow", &patch.context_window, 64)? {
        settings.context_window = window;
    }
    if patch.status_note.is_some() || patch.attention.is_some() {
        set_status(settings, patch, now_ms)?;
    }
    if let Some(pinned) = patch.pinned {
        settings.pinned_ms = pinned.then(|| settings.pinned_ms.unwrap_or(now_ms));
    }
    if let Some(archived) = patch.archived {
        if archived && is_main {
            return Err(ErrorShape::invalid("Cannot archive an agent's main session."));
        }
        settings.archived_ms = archived.then(|| settings.archived_ms.unwrap_or(now_ms));
        if archived {
            settings.pinned_ms = None;
        }
    }
    match patch.unread {
        None => {}
        Some(true) => settings.marked_unread_ms = Some(now_ms),
        Some(false) => {
            settings.marked_unread_ms = None;
            record.read_ms = Some(now_ms.max(record.answered_ms.unwrap_or_default()));
        }
    }
    Ok(())
}

fn set_status(settings: &mut super::Settings, patch: &SessionPatch, now_ms: i64) -> Result<(), ErrorShape> {
    let minutes = patch.ttl_minutes.unwrap_or(STATUS_MINUTES);
    if !(1..=120).contains(&minutes) {
        return Err(ErrorShape::invalid("ttlMinutes must be 1 to 120"));
    }
    let old = settings.status.take();
    let note = match &patch.status_note {
        None => old.as_ref().and_then(|old| old.note.clone()),
        Some(note) => note.as_ref().map(|note| name("statusNote", note, 120)).transpose()?,
    };
    let attention = match &patch.attention {
        None => old.and_then(|old| old.attention),
        Some(None) => None,
        Some(Some(sign)) => Some(one_of("attention", sign, &["hand", "key", "alert", "flag", "lock", "hourglass"])?),
    };
    let expires_ms = now_ms.saturating_add(i64::try_from(minutes).unwrap_or_default() * 60_000);
    let kept = note.is_some() || attention.is_some();
    settings.status = kept.then_some(StatusNote { note, attention, set_ms: now_ms, expires_ms });
    Ok(())
}

/// One line without control characters: names are shown in terminals (P-09).
///
/// # Errors
/// When nothing is left, or it is too long.
pub fn name(field: &str, given: &str, max: usize) -> Result<String, ErrorShape> {
    if given.chars().count() > max {
        return Err(ErrorShape::invalid(format!("{field} must NOT have more than {max} characters")));
    }
    let name = text::line(given, max);
    if name.is_empty() {
        return Err(ErrorShape::invalid(format!("{field} must NOT have fewer than 1 characters; null clears it")));
    }
    Ok(name)
}

fn one_of(field: &str, given: &str, known: &[&str]) -> Result<String, ErrorShape> {
    if known.contains(&given) {
        return Ok(given.to_owned());
    }
    Err(ErrorShape::invalid(format!(
        "{field} must be one of {}, or null for the default; got {:?}",
        known.join(", "),
        text::clip(given, 40)
    )))
}

/// The error of an `expected…` that does not hold any more.
pub fn changed(key: &str, before: &str) -> ErrorShape {
    ErrorShape::invalid(format!("Session {key} changed before {before}. Retry."))
        .with_details(json!({"reason": "session-changed"}))
}
