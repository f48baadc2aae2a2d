//! `tools.web.fetch` (the reference's tools/web-fetch).

use std::time::Duration;

use openclaw_config::document::{Document, Node};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::address::{Policy, normal};

/// What the fetch tool may do.
#[derive(Clone, Debug)]
pub struct Settings {
    pub enabled: bool,
    /// Characters of a result: the usual number and the most a call may ask for.
    pub max_chars: usize,
    pub max_chars_cap: usize,
    pub max_response_bytes: usize,
    /// From the first byte to the last, redirects included.
    pub timeout: Duration,
    pub cache: Duration,
    pub max_redirects: u32,
    /// Whether the main part of a page is looked for.
    pub readability: bool,
    pub user_agent: String,
    /// Sent to the host that was asked for, not to those it leads to.
    pub headers: HeaderMap,
    pub policy: Policy,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            max_chars: 20_000,
            max_chars_cap: 20_000,
            max_response_bytes: 750_000,
            timeout: Duration::from_secs(30),
            cache: Duration::from_mins(15),
            max_redirects: 3,
            readability: true,
            user_agent: concat!("Mozilla/5.0 (compatible; openclaw/", env!("CARGO_PKG_VERSION"), ")").to_owned(),
            headers: HeaderMap::new(),
            policy: Policy::default(),
        }
    }
}

/// Names that belong to the request itself, or to one hop of it.
const OWN_HEADERS: [&str; 16] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

impl Settings {
    /// Reads the section. What cannot be used is as if it were not there, and the log names it.
    pub fn read(config: &Document) -> Self {
        let mut settings = Self::default();
        let Some(section) = config.get("tools.web.fetch") else { return settings };
        let bool_at =
            |node: &Node, key: &str, default: bool| node.entry(key).and_then(Node::as_bool).unwrap_or(default);
        let number = |key: &str, default: usize, least: usize, most: usize| {
            let given = section.entry(key).and_then(Node::as_i64).and_then(|n| usize::try_from(n).ok());
            given.map_or(default, |n| n.clamp(least, most))
        };
        settings.enabled = bool_at(section, "enabled", true);
        settings.max_chars_cap = number("maxCharsCap", 20_000, 100, 10_000_000);
        settings.max_chars = number("maxChars", 20_000, 100, settings.max_chars_cap).min(settings.max_chars_cap);
        settings.max_response_bytes = number("maxResponseBytes", 750_000, 32_000, 10_000_000);
        settings.timeout = Duration::from_secs(number("timeoutSeconds", 30, 1, 300) as u64);
        settings.cache = Duration::from_mins(number("cacheTtlMinutes", 15, 0, 24 * 60) as u64);
        settings.max_redirects = u32::try_from(number("maxRedirects", 3, 0, 20)).unwrap_or(3);
        settings.readability = bool_at(section, "readability", true);
        if let Some(agent) =
            section.entry("userAgent").and_then(Node::as_str).filter(|text| HeaderValue::from_str(text).is_ok())
        {
            agent.clone_into(&mut settings.user_agent);
        }
        if bool_at(section, "useTrustedEnvProxy", false) {
            tracing::warn!("tools.web.fetch.useTrustedEnvProxy is not supported; pages are fetched without a proxy");
        }
        settings.headers = headers(section.entry("headers"));
        if let Some(policy) = section.entry("ssrfPolicy") {
            settings.policy = Policy {
                private: bool_at(policy, "dangerouslyAllowPrivateNetwork", false),
                benchmark: bool_at(policy, "allowRfc2544BenchmarkRange", false),
                unique_local: bool_at(policy, "allowIpv6UniqueLocalRange", false),
                allowed: hosts(policy.entry("allowedHostnames")),
                blocked: hosts(policy.entry("blockedHostnames")),
            };
        }
        settings
    }
}

fn hosts(node: Option<&Node>) -> Vec<String> {
    let items = node.and_then(Node::as_array).unwrap_or_default();
    items.iter().filter_map(Node::as_str).map(str::trim).filter(|host| !host.is_empty()).map(normal).collect()
}

/// Headers of the config; the log names those that are left out, never their values.
fn headers(node: Option<&Node>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in node.and_then(Node::as_object).unwrap_or_default() {
        let parsed = HeaderName::try_from(name.as_str()).ok().filter(|name| !OWN_HEADERS.contains(&name.as_str()));
        let Some(parsed) = parsed else {
            tracing::warn!(name, "a header of tools.web.fetch.headers is left out: its name cannot be used");
            continue;
        };
        // The later of two names counts, or none if it cannot be sent.
        headers.remove(&parsed);
        let value = value.as_text().filter(|text| text.unresolved.is_empty());
        let Some(mut value) = value.and_then(|text| HeaderValue::from_str(&text.value).ok()) else {
            tracing::warn!(name, "a header of tools.web.fetch.headers is left out: its value cannot be sent");
            continue;
        };
        value.set_sensitive(true);
        headers.insert(parsed, value);
    }
    headers
}

#[cfg(test)]
mod tests {
    use openclaw_config::{
        env::Env,
        paths::{Paths, Profile},
    };

    use super::*;

    fn read(text: &str) -> Settings {
        let env = Env::from_pairs([("HOME", "/home/me"), ("TARGET", "blue")]);
        let paths = Paths::resolve(&env, Profile::default()).unwrap();
        Settings::read(&Document::from_text(text, &paths, &env).unwrap())
    }

    #[test]
    fn defaults_and_bounds_are_the_manuals() {
        let none = read("{}");
        assert_eq!((none.max_chars, none.max_response_bytes, none.max_redirects), (20_000, 750_000, 3));
        assert_eq!((none.timeout, none.cache, none.enabled), (Duration::from_secs(30), Duration::from_mins(15), true));
        assert_eq!(none.policy, Policy::default());
        let odd = read(
            "{tools:{web:{fetch:{maxChars:900000,maxResponseBytes:1,timeoutSeconds:0,maxRedirects:-1,enabled:false}}}}",
        );
        assert_eq!((odd.max_chars, odd.max_response_bytes, odd.max_redirects), (20_000, 32_000, 3));
        assert_eq!((odd.timeout, odd.enabled), (Duration::from_secs(1), false));
        assert_eq!(read("{tools:{web:{fetch:{maxResponseBytes:99999999}}}}").max_response_bytes, 10_000_000);
        let policy = read("{tools:{web:{fetch:{ssrfPolicy:{allowedHostnames:['Wiki.Internal.',' '],blockedHostnames:['*.Ads.com']}}}}}").policy;
        assert_eq!(
            (policy.allowed, policy.blocked, policy.private),
            (vec!["wiki.internal".to_owned()], vec!["*.ads.com".to_owned()], false)
        );
    }

    #[test]
    fn headers_that_cannot_be_sent_are_left_out() {
        let settings = read(
            "{tools:{web:{fetch:{headers:{'X-Target':'${TARGET}',Host:'evil','X Bad':'1','X-Break':'a\\r\\nb',\
             'X-Unset':'${NOT_SET}',Authorization:'Bearer x','x-target':'green','User-Agent':'y'}}}}}",
        );
        let mut names: Vec<&str> = settings.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["authorization", "x-target"]);
        assert_eq!(settings.headers["x-target"], "green");
        assert!(settings.headers["x-target"].is_sensitive());
        assert!(!format!("{settings:?}").contains("Bearer"));
    }
}
