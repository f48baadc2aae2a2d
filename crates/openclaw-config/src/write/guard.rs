//! Changes that weaken the gateway (security case P-55). Compared on the effective config, so it does not matter by
//! which edit they come: a merge with null, a replaced list, an include.

use std::fmt;

use serde_json::Value;

use crate::gateway::Network;

/// One weakening change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guarded {
    /// `gateway.auth.mode`.
    pub path: String,
    /// What it would mean, without values that could be secret.
    pub meaning: &'static str,
}

impl fmt::Display for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.meaning)
    }
}

/// Switches that weaken when they become true.
const SWITCHES: &[(&str, &str)] = &[
    ("gateway.controlUi.allowInsecureAuth", "token logins without a device over plain http"),
    ("gateway.controlUi.dangerouslyAllowHostHeaderOriginFallback", "any site could pose as an allowed origin"),
    ("gateway.controlUi.dangerouslyDisableDeviceAuth", "browsers need no device identity"),
    ("gateway.allowRealIpFallback", "clients could choose the address they are seen with"),
    ("gateway.auth.allowTailscale", "Tailscale identity headers replace the secret"),
    ("gateway.auth.trustedProxy.allowLoopback", "any process on this machine could pose as the proxy"),
    ("gateway.auth.trustedProxy.deviceAutoApprove.enabled", "devices pair without anybody's consent"),
];

/// Compares two effective configs.
pub fn guarded_changes(before: &Value, after: &Value) -> Vec<Guarded> {
    let mut found = Vec::new();
    let mut add = |path: &str, meaning| found.push(Guarded { path: path.to_owned(), meaning });

    let mode = |config: &Value| text(config, "gateway.auth.mode");
    if mode(before) != mode(after) {
        match mode(after).as_deref() {
            Some("none") => add("gateway.auth.mode", "anyone who reaches the gateway could command it"),
            Some("trusted-proxy") => add("gateway.auth.mode", "whoever the proxy names is let in without a secret"),
            _ => {}
        }
    }
    for path in ["gateway.auth.token", "gateway.auth.password"] {
        if is_set(before, path) && !is_set(after, path) {
            add(path, "the secret that protects the gateway is removed");
        }
    }
    if reach(after) > reach(before) {
        add("gateway.bind", "the gateway listens to more of the network");
    }
    if is_wide_host(after) && !is_wide_host(before) {
        add("gateway.customBindHost", "the gateway listens to more of the network");
    }
    if exposure(after) > exposure(before) {
        add("gateway.tailscale.mode", "the gateway is exposed through Tailscale");
    }
    for (path, meaning) in SWITCHES {
        if flag(after, path) == Some(true) && flag(before, path) != Some(true) {
            add(path, meaning);
        }
    }
    if has_item(after, "gateway.controlUi.allowedOrigins", is_any_origin)
        && !has_item(before, "gateway.controlUi.allowedOrigins", is_any_origin)
    {
        add("gateway.controlUi.allowedOrigins", "every web site may connect");
    }
    for path in ["gateway.trustedProxies", "gateway.nodes.pairing.autoApproveCidrs"] {
        if has_item(after, path, is_everybody) && !has_item(before, path, is_everybody) {
            add(path, "a network that holds strangers is trusted");
        }
    }
    if adds_items(before, after, "gateway.nodes.pairing.autoApproveCidrs") {
        add("gateway.nodes.pairing.autoApproveCidrs", "nodes of more networks pair without consent");
    }
    if is_limit_lifted(before, after) {
        add("gateway.auth.rateLimit", "guessing the secret is hardly limited");
    }
    if flag(before, "gateway.tls.enabled") == Some(true) && flag(after, "gateway.tls.enabled") != Some(true) {
        add("gateway.tls.enabled", "connections are no longer encrypted");
    }
    if is_set(before, "gateway.remote.tlsFingerprint")
        && text(before, "gateway.remote.tlsFingerprint") != text(after, "gateway.remote.tlsFingerprint")
    {
        add("gateway.remote.tlsFingerprint", "another server could pose as the remote gateway");
    }
    dangerous_switches(before, after, &mut String::new(), &mut found);
    found.dedup();
    found
}

/// Any other switch that calls itself dangerous, wherever it is.
fn dangerous_switches(before: &Value, after: &Value, path: &mut String, found: &mut Vec<Guarded>) {
    let Value::Object(entries) = after else { return };
    for (key, value) in entries {
        let len = path.len();
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(key);
        let old = before.get(key).unwrap_or(&Value::Null);
        let known = SWITCHES.iter().any(|(known, _)| *known == path.as_str());
        if key.starts_with("dangerously") && !known && *value == Value::Bool(true) && *old != Value::Bool(true) {
            found.push(Guarded { path: path.clone(), meaning: "a setting that calls itself dangerous is turned on" });
        }
        dangerous_switches(old, value, path, found);
        path.truncate(len);
    }
}

fn at<'a>(config: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(config, |node, key| node.get(key)).filter(|node| !node.is_null())
}

fn text(config: &Value, path: &str) -> Option<String> {
    at(config, path).and_then(Value::as_str).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn flag(config: &Value, path: &str) -> Option<bool> {
    at(config, path).and_then(Value::as_bool)
}

/// A secret is set by a text or by a reference.
fn is_set(config: &Value, path: &str) -> bool {
    text(config, path).is_some() || at(config, path).is_some_and(Value::is_object)
}

/// How much of the network a bind mode reaches.
fn reach(config: &Value) -> u8 {
    match text(config, "gateway.bind").as_deref() {
        None | Some("loopback") => 0,
        // Loopback as long as there is one.
        Some("auto") => 1,
        Some("tailnet") => 2,
        Some("custom") => 3,
        Some(_) => 4,
    }
}

fn is_wide_host(config: &Value) -> bool {
    let host = text(config, "gateway.customBindHost").and_then(|host| host.parse::<std::net::IpAddr>().ok());
    reach(config) == 3 && host.is_some_and(|host| host.is_unspecified())
}

fn exposure(config: &Value) -> u8 {
    match text(config, "gateway.tailscale.mode").as_deref() {
        Some("serve") => 1,
        Some("funnel") => 2,
        _ => 0,
    }
}

fn items<'a>(config: &'a Value, path: &str) -> &'a [Value] {
    at(config, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn has_item(config: &Value, path: &str, test: fn(&str) -> bool) -> bool {
    items(config, path).iter().filter_map(Value::as_str).any(test)
}

fn adds_items(before: &Value, after: &Value, path: &str) -> bool {
    items(after, path).iter().any(|item| !items(before, path).contains(item))
}

fn is_any_origin(origin: &str) -> bool {
    origin.contains('*')
}

fn is_everybody(network: &str) -> bool {
    network.parse::<Network>().is_ok_and(|network| network.is_everybody())
}

/// More than 100 guesses a minute where there were fewer.
fn is_limit_lifted(before: &Value, after: &Value) -> bool {
    let per_minute = |config: &Value| {
        let number = |key: &str, default: f64| {
            at(config, &format!("gateway.auth.rateLimit.{key}")).and_then(Value::as_f64).unwrap_or(default)
        };
        number("maxAttempts", 10.0) * 60_000.0 / number("windowMs", 60_000.0).max(1.0)
    };
    per_minute(after) > 100.0 && per_minute(before) <= 100.0
}
