//! The section `hooks`.

use openclaw_config::document::{Document, Node};
use openclaw_protocol::Secret;

use super::{SessionMode, WakeMode};

/// See the module documentation. Only while `hooks.enabled` is true.
#[derive(Clone, Debug)]
pub struct Hooks {
    pub(super) token: Secret,
    /// With a slash before and none behind.
    pub(super) path: String,
    /// `None` allows all.
    pub(super) allowed_agents: Option<Vec<String>>,
    pub(super) default_session_key: Option<String>,
    pub(super) allow_request_session_key: bool,
    /// Lower-case; empty allows all.
    prefixes: Vec<String>,
    pub(super) mappings: Vec<Mapping>,
}

/// Why the section cannot be put in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HooksError {
    #[error(
        "hooks.enabled is true, but there is no hooks.token. Set one: openclaw config set hooks.token \"$(openssl rand -hex 32)\""
    )]
    NoToken,
    #[error(
        "hooks.token is the gateway's own secret. Whoever may call a hook would own the gateway; give hooks a token of their \
         own: openclaw config set hooks.token \"$(openssl rand -hex 32)\""
    )]
    SharedToken,
    #[error("hooks.path {0:?} cannot be used: it must be a path such as /hooks that nothing else owns")]
    Path(String),
    #[error("hooks.{0}")]
    Invalid(String),
}

/// What a hook's name means.
#[derive(Clone, Debug)]
pub struct Mapping {
    match_path: Option<String>,
    match_source: Option<String>,
    pub(super) action: Action,
    pub(super) wake_mode: WakeMode,
    pub(super) name: Option<String>,
    pub(super) agent_id: Option<String>,
    pub(super) session_key: Option<String>,
    pub(super) session_mode: SessionMode,
    pub(super) message_template: Option<String>,
    pub(super) text_template: Option<String>,
    pub(super) for_each: Option<String>,
    pub(super) deliver: Option<bool>,
    pub(super) channel: Option<String>,
    pub(super) to: Option<String>,
    pub(super) model: Option<String>,
    pub(super) thinking: Option<String>,
    pub(super) timeout_seconds: Option<f64>,
    pub(super) allow_unsafe_external_content: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Agent,
    Wake,
}

impl Mapping {
    pub(super) fn matches(&self, path: &str, source: Option<&str>) -> bool {
        let path_fits = self.match_path.as_deref().is_none_or(|wanted| wanted == path);
        path_fits && self.match_source.as_deref().is_none_or(|wanted| Some(wanted) == source)
    }

    fn read(node: &Node) -> Result<Self, String> {
        let text = |key: &str| node.entry(key).and_then(Node::as_str).map(str::to_owned);
        let matched = |key: &str| node.entry("match")?.entry(key)?.as_str().map(str::to_owned);
        let action = match text("action").as_deref() {
            None | Some("agent") => Action::Agent,
            Some("wake") => Action::Wake,
            Some(other) => return Err(format!("action {other:?} is neither \"agent\" nor \"wake\"")),
        };
        let for_each = text("forEach");
        if for_each.as_deref().is_some_and(|key| key.is_empty() || key.contains(['.', '[', ']'])) {
            return Err("forEach names one key of the payload".to_owned());
        }
        Ok(Self {
            match_path: matched("path").map(|path| path.trim_matches('/').to_owned()),
            match_source: matched("source"),
            action,
            wake_mode: match text("wakeMode").as_deref() {
                Some("next-heartbeat") => WakeMode::NextHeartbeat,
                _ => WakeMode::Now,
            },
            name: text("name"),
            agent_id: text("agentId"),
            session_key: text("sessionKey"),
            session_mode: match text("sessionMode").as_deref() {
                Some("persistent") => SessionMode::Persistent,
                _ => SessionMode::Isolated,
            },
            message_template: text("messageTemplate"),
            text_template: text("textTemplate"),
            for_each,
            deliver: node.entry("deliver").and_then(Node::as_bool),
            channel: text("channel"),
            to: text("to"),
            model: text("model"),
            thinking: text("thinking"),
            timeout_seconds: node.entry("timeoutSeconds").and_then(|node| node.to_value().as_f64()),
            allow_unsafe_external_content: node.entry("allowUnsafeExternalContent").and_then(Node::as_bool)
                == Some(true),
        })
    }

    /// `presets: ["gmail"]`: one run for each message.
    fn gmail() -> Self {
        Self {
            match_path: Some("gmail".into()),
            match_source: None,
            action: Action::Agent,
            wake_mode: WakeMode::Now,
            name: Some("Gmail".into()),
            agent_id: None,
            session_key: Some("hook:gmail:{{messages[0].id}}".into()),
            session_mode: SessionMode::Isolated,
            message_template: Some(
                "New mail from {{messages[0].from}}\nSubject: {{messages[0].subject}}\n{{messages[0].snippet}}\n\
                 {{messages[0].body}}"
                    .into(),
            ),
            text_template: None,
            for_each: Some("messages".into()),
            deliver: None,
            channel: None,
            to: None,
            model: None,
            thinking: None,
            timeout_seconds: None,
            allow_unsafe_external_content: false,
        }
    }
}

impl Hooks {
    /// Reads the section; `None` while hooks are off. `secrets` are the gateway's own.
    ///
    /// # Errors
    /// [`HooksError`]
    pub fn read(document: &Document, secrets: &[&Secret]) -> Result<Option<Self>, HooksError> {
        let Some(section) = document.get("hooks") else { return Ok(None) };
        if section.entry("enabled").and_then(Node::as_bool) != Some(true) {
            return Ok(None);
        }
        let text = |key: &str| section.entry(key).and_then(Node::as_text);
        // A variable that is not set leaves its `${NAME}` in the text, which everybody can read.
        let token = text("token").filter(|token| token.unresolved.is_empty()).map(|token| token.value.trim());
        let token = token.filter(|token| !token.is_empty()).ok_or(HooksError::NoToken)?;
        if secrets.iter().any(|secret| secret.matches(token)) {
            return Err(HooksError::SharedToken);
        }
        let written = text("path").map_or("/hooks", |path| path.value.trim());
        let path = format!("/{}", written.trim_matches('/'));
        let owned = super::super::ROUTES.iter().any(|route| route.path == path && route.path != "/hooks");
        if path == "/" || owned || path.starts_with("/v1") || path.contains(['?', '#', '{']) {
            return Err(HooksError::Path(written.to_owned()));
        }
        let list = |key: &str| -> Option<Vec<String>> {
            let nodes = section.entry(key)?.as_array()?;
            Some(nodes.iter().filter_map(Node::as_str).map(|text| text.trim().to_owned()).collect())
        };
        let prefixes: Vec<String> = list("allowedSessionKeyPrefixes").unwrap_or_default();
        let mut hooks = Self {
            token: Secret::new(token),
            path,
            allowed_agents: list("allowedAgentIds"),
            default_session_key: text("defaultSessionKey")
                .map(|key| key.value.trim().to_owned())
                .filter(|k| !k.is_empty()),
            allow_request_session_key: section.entry("allowRequestSessionKey").and_then(Node::as_bool) == Some(true),
            prefixes: prefixes.into_iter().filter(|p| !p.is_empty()).map(|p| p.to_lowercase()).collect(),
            mappings: Vec::new(),
        };
        for (at, node) in section.entry("mappings").and_then(Node::as_array).unwrap_or_default().iter().enumerate() {
            if node.entry("transform").is_some() {
                tracing::warn!("hooks.mappings[{at}] is left out: this gateway runs no JavaScript transforms");
                continue;
            }
            let invalid = |why: String| HooksError::Invalid(format!("mappings[{at}].{why}"));
            hooks.mappings.push(Mapping::read(node).map_err(invalid)?);
        }
        if list("presets").is_some_and(|presets| presets.iter().any(|preset| preset == "gmail")) {
            hooks.mappings.push(Mapping::gmail());
        }
        hooks.check_keys()?;
        Ok(Some(hooks))
    }

    /// Whether a key may be used, by its prefix.
    pub(super) fn admits(&self, key: &str) -> bool {
        let key = key.to_lowercase();
        self.prefixes.is_empty() || self.prefixes.iter().any(|prefix| key.starts_with(prefix.as_str()))
    }

    /// What callers could steer needs a fence.
    fn check_keys(&self) -> Result<(), HooksError> {
        let invalid = |why: &str| Err(HooksError::Invalid(why.to_owned()));
        match &self.default_session_key {
            Some(key) if !self.admits(key) => {
                invalid("defaultSessionKey does not begin with one of allowedSessionKeyPrefixes")
            }
            None if !self.admits("hook:") => {
                invalid("allowedSessionKeyPrefixes must admit \"hook:\", or give a defaultSessionKey")
            }
            _ if self.prefixes.is_empty()
                && self.mappings.iter().filter_map(|m| m.session_key.as_deref()).any(super::template::has_fields) =>
            {
                invalid("allowedSessionKeyPrefixes is needed while a mapping's sessionKey has {{fields}}")
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use openclaw_config::{
        env::Env,
        paths::{Paths, Profile},
    };

    use super::*;

    fn read(text: &str) -> Result<Option<Hooks>, HooksError> {
        let env = Env::from_pairs([("HOME", "/nowhere")]);
        let paths = Paths::resolve(&env, Profile::Default).expect("paths");
        let document = Document::from_text(text, &paths, &env).expect("a document");
        Hooks::read(&document, &[&Secret::new("gateway-secret")])
    }

    #[test]
    fn p_20_the_gateways_secret_is_no_hook_token() {
        assert_eq!(read(r#"{hooks: {enabled: true, token: " gateway-secret "}}"#).err(), Some(HooksError::SharedToken));
        assert_eq!(read("{hooks: {enabled: true}}").err(), Some(HooksError::NoToken));
        assert_eq!(read(r#"{hooks: {enabled: true, token: "${NOT_SET}"}}"#).err(), Some(HooksError::NoToken));
        assert!(read(r#"{hooks: {enabled: false, token: "gateway-secret"}}"#).expect("off").is_none());
        assert!(read("{}").expect("off").is_none());
    }

    #[test]
    fn paths_that_something_else_owns() {
        let check = |path: &str, good: bool| {
            let text = format!("{{hooks: {{enabled: true, token: \"t\", path: {path:?}}}}}");
            assert_eq!(read(&text).is_ok(), good, "{path}");
        };
        check("/hooks", true);
        check("in/coming/", true);
        check("/", false);
        check("", false);
        check("/health", false);
        check("/v1/hooks", false);
        check("/tools/invoke", false);
    }

    #[test]
    fn keys_need_a_fence() {
        let with = |rest: &str| read(&format!("{{hooks: {{enabled: true, token: \"t\", {rest}}}}}"));
        assert!(with(r#"mappings: [{match: {path: "x"}, sessionKey: "hook:{{id}}"}]"#).is_err());
        assert!(with(r#"allowedSessionKeyPrefixes: ["hook:"], mappings: [{sessionKey: "hook:{{id}}"}]"#).is_ok());
        assert!(with(r#"allowedSessionKeyPrefixes: ["app:"]"#).is_err());
        assert!(with(r#"allowedSessionKeyPrefixes: ["app:"], defaultSessionKey: "App:1""#).is_ok());
        assert!(with(r#"mappings: [{action: "shell"}]"#).is_err());
        let hooks = with(r#"mappings: [{match: {path: "/a/", source: "s"}}, {transform: {module: "x.js"}}]"#);
        let hooks = hooks.expect("hooks").expect("on");
        assert_eq!(hooks.mappings.len(), 1);
        assert!(hooks.mappings[0].matches("a", Some("s")) && !hooks.mappings[0].matches("a", None));
    }
}
