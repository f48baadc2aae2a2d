//! What the name of a key says about its value.

/// What is masked under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sensitivity {
    None,
    /// Texts, but not numbers: `maxTokens: 4096` is no secret.
    Texts,
    /// Texts and numbers.
    Scalars,
}

const SECRET_WORDS: &[&str] = &[
    "token",
    "tokens",
    "password",
    "passwords",
    "passwd",
    "pwd",
    "passphrase",
    "passcode",
    "secret",
    "secrets",
    "credential",
    "credentials",
    "apikey",
    "apikeys",
    "authorization",
    "cookie",
    "cookies",
    "bearer",
    "signature",
    "jwt",
    "otp",
    "mnemonic",
    "psk",
    "sid",
];
/// A run-together word ends with one of these: `accesstoken`, `clientsecret`.
const SECRET_ENDINGS: &[&str] = &["token", "password", "passwd", "secret", "apikey", "passphrase", "privatekey"];
/// A last word that makes the whole name about something else: `tokenFile`, `passwordPolicy`, `secretProvider`.
const NEUTRAL_LAST: &[&str] = &[
    "file",
    "path",
    "paths",
    "dir",
    "env",
    "id",
    "ids",
    "name",
    "names",
    "mode",
    "source",
    "provider",
    "providers",
    "enabled",
    "disabled",
    "url",
    "uri",
    "endpoint",
    "ttl",
    "ms",
    "seconds",
    "minutes",
    "hours",
    "days",
    "length",
    "limit",
    "limits",
    "count",
    "budget",
    "policy",
    "type",
    "kind",
    "ref",
    "header",
    "field",
    "param",
    "prefix",
    "format",
    "usage",
    "window",
    "max",
    "min",
    "rotation",
    "strategy",
    "scope",
    "scopes",
    "threshold",
    "estimate",
    "ratio",
    "required",
    "bytes",
    "chars",
    "version",
    "status",
];
/// `sessionKey` and the like are names and not keys to anything.
const PLAIN_KEYS: &[&str] = &[
    "public",
    "session",
    "main",
    "primary",
    "foreign",
    "sort",
    "cache",
    "group",
    "partition",
    "routing",
    "peer",
    "dedupe",
    "idempotency",
    "default",
    "map",
    "object",
    "lookup",
    "config",
    "registry",
    "host",
    "label",
    "translation",
    "hot",
    "short",
    "sub",
    "parent",
    "child",
    "unique",
    "lane",
    "identity",
];

/// Judges a key by its words.
pub(super) fn sensitivity(key: &str) -> Sensitivity {
    let words = split(key);
    let Some(last) = words.last().map(String::as_str) else { return Sensitivity::None };
    let has = |word: &str| words.iter().any(|w| w == word);
    if has("webhook") && matches!(last, "url" | "uri" | "webhook") {
        // Webhook addresses of chat services carry their secret in the path.
        return Sensitivity::Texts;
    }
    if NEUTRAL_LAST.contains(&last) {
        return Sensitivity::None;
    }
    if has("private") && (has("key") || has("keys")) {
        return Sensitivity::Texts;
    }
    if matches!(last, "key" | "keys") {
        let before = words.len().checked_sub(2).map(|i| words[i].as_str());
        return if before.is_some_and(|word| PLAIN_KEYS.contains(&word)) {
            Sensitivity::None
        } else {
            Sensitivity::Texts
        };
    }
    let secret = |word: &&String| {
        SECRET_WORDS.contains(&word.as_str()) || SECRET_ENDINGS.iter().any(|ending| word.ends_with(ending))
    };
    match words.iter().rfind(secret) {
        None => Sensitivity::None,
        Some(word) if word == "tokens" || word != last => Sensitivity::Texts,
        Some(_) => Sensitivity::Scalars,
    }
}

/// Maps whose every text is masked: request headers and cookies.
pub(super) fn is_header_map(key: &str) -> bool {
    split(key).last().is_some_and(|last| matches!(last.as_str(), "headers" | "cookies"))
}

/// Maps of environment variables.
pub(super) fn is_env_map(key: &str) -> bool {
    matches!(key, "env" | "vars" | "environment" | "envVars" | "variables")
}

/// `botTokenV2` → bot, token, v2; `API_KEY` → api, key; `APIKey` → api, key.
pub(super) fn split(key: &str) -> Vec<String> {
    let chars: Vec<char> = key.chars().collect();
    let mut words = Vec::new();
    let mut word = String::new();
    for (i, &c) in chars.iter().enumerate() {
        let after_lower = i > 0 && (chars[i - 1].is_lowercase() || chars[i - 1].is_ascii_digit());
        let ends_acronym = i > 0 && chars[i - 1].is_uppercase() && chars.get(i + 1).is_some_and(|n| n.is_lowercase());
        if !c.is_alphanumeric() || (c.is_uppercase() && (after_lower || ends_acronym)) {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            if !c.is_alphanumeric() {
                continue;
            }
        }
        word.extend(c.to_lowercase());
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitting() {
        for (key, words) in [
            ("botTokenV2", "bot token v2"),
            ("API_KEY", "api key"),
            ("APIKey", "api key"),
            ("x-api-key", "x api key"),
            ("apikey", "apikey"),
            ("", ""),
        ] {
            assert_eq!(split(key).join(" "), words, "{key}");
        }
    }

    #[test]
    fn judgement() {
        let all = |expected: Sensitivity, keys: &[&str]| {
            keys.iter().for_each(|key| assert_eq!(sensitivity(key), expected, "{key}"));
        };
        all(
            Sensitivity::Scalars,
            &["token", "botToken", "BOT_TOKEN", "password", "client_secret", "accesstoken", "x-auth-token"],
        );
        all(
            Sensitivity::Texts,
            &[
                "apiKey",
                "api_key",
                "API_KEY",
                "key",
                "maxTokens",
                "tokens",
                "privateKeyPem",
                "tokenValue",
                "webhookUrl",
                "secretHex",
            ],
        );
        all(
            Sensitivity::None,
            &[
                "tokenFile",
                "publicKey",
                "sessionKey",
                "mainKey",
                "passwordPolicy",
                "url",
                "name",
                "tokenizer",
                "keyboard",
                "tokenLimit",
            ],
        );
    }
}
