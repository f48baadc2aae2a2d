//! What a text itself gives away, whatever its key: URLs with logins, keys of known make, command line options.

use super::words::Sensitivity;
use super::{MARKER, words};

/// Beginnings of keys issued by well-known services.
const PREFIXES: &[&str] = &[
    "sk-",
    "sk_live_",
    "sk_test_",
    "rk_live_",
    "pk_live_",
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "xoxp-",
    "xoxa-",
    "xoxr-",
    "xoxs-",
    "xapp-",
    "AKIA",
    "ASIA",
    "AIza",
    "ya29.",
    "hf_",
    "npm_",
    "pypi-",
    "dop_v1_",
    "SG.",
    "tskey-",
    "age-secret-key-",
    "AGE-SECRET-KEY-",
    "gsk_",
    "r8_",
    "whsec_",
    "shpat_",
    "eyJhbGci",
    "eyJ0eXAi",
];
/// Shortest text a prefix makes a key of.
const SHORTEST_KEY: usize = 16;

/// Masks what can be seen to be secret; `None` if nothing can. `loose` adds a guess at random-looking texts.
pub(super) fn mask(text: &str, loose: bool) -> Option<String> {
    if text.contains(MARKER) {
        return None;
    }
    if is_key(text) || (loose && looks_random(text)) {
        return Some(MARKER.to_owned());
    }
    if let Some(masked) = mask_urls(text) {
        return Some(masked);
    }
    mask_scheme(text).or_else(|| mask_assignment(text))
}

/// The texts that markers in `masked` stand for, given the whole `text`.
pub(super) fn hidden_parts<'a>(text: &'a str, masked: &str) -> Vec<&'a str> {
    let mut parts = Vec::new();
    let mut pieces = masked.split(MARKER);
    let Some(mut rest) = pieces.next().and_then(|head| text.strip_prefix(head)) else { return vec![text] };
    for piece in pieces {
        let end = if piece.is_empty() { Some(rest.len()) } else { rest.find(piece) };
        let Some(end) = end else { return vec![text] };
        parts.push(&rest[..end]);
        rest = &rest[(end + piece.len()).min(rest.len())..];
    }
    parts
}

/// A key by its make: a known prefix, a PEM private key, a Telegram bot token.
fn is_key(text: &str) -> bool {
    let text = text.trim();
    let one_word = !text.contains(char::is_whitespace);
    let prefixed = one_word && text.len() >= SHORTEST_KEY && PREFIXES.iter().any(|prefix| text.starts_with(prefix));
    prefixed || (text.contains("-----BEGIN") && text.contains("PRIVATE KEY")) || is_telegram_token(text)
}

fn is_telegram_token(text: &str) -> bool {
    text.split_once(':').is_some_and(|(bot, secret)| {
        (6..=12).contains(&bot.len())
            && bot.bytes().all(|b| b.is_ascii_digit())
            && secret.len() >= 30
            && secret.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    })
}

/// Long hex, or one long word of mixed letters and digits.
fn looks_random(text: &str) -> bool {
    let text = text.trim();
    let count = |test: fn(&u8) -> bool| text.bytes().filter(test).count();
    let (digits, upper, lower) =
        (count(u8::is_ascii_digit), count(u8::is_ascii_uppercase), count(u8::is_ascii_lowercase));
    let hex = text.len() >= 32 && text.bytes().all(|b| b.is_ascii_hexdigit()) && digits > 0;
    let word = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=' | b'_'));
    let mixed = text.len() >= 24 && word && !text.starts_with('/') && digits >= 3 && upper >= 3 && lower >= 3;
    hex || mixed
}

/// Logins, and secrets in query and fragment, of every URL in the text.
fn mask_urls(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = text;
    let mut changed = false;
    while let Some(at) = rest.find("://") {
        let (head, tail) = rest.split_at(at + 3);
        out.push_str(head);
        let scheme: String = head[..at].chars().rev().take_while(|c| c.is_ascii_alphanumeric()).collect();
        let is_ssh = scheme == "hss";
        let end = tail.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>')).unwrap_or(tail.len());
        let (url, after) = tail.split_at(end);
        let authority_end = url.find(['/', '?', '#']).unwrap_or(url.len());
        let (authority, path) = url.split_at(authority_end);
        match authority.rsplit_once('@') {
            // `ssh://user@host` names a user; every other login may be a secret.
            Some((login, host)) if !is_ssh || login.contains(':') => {
                out.push_str(MARKER);
                out.push('@');
                out.push_str(host);
                changed |= !login.is_empty();
            }
            _ => out.push_str(authority),
        }
        let masked = mask_query(path);
        changed |= masked != path;
        out.push_str(&masked);
        rest = after;
    }
    out.push_str(rest);
    changed.then_some(out)
}

/// `?token=…&sig=…#access_token=…`
fn mask_query(path: &str) -> String {
    let Some(start) = path.find(['?', '#']) else { return path.to_owned() };
    let mut out = path[..start].to_owned();
    let mut rest = &path[start..];
    while let Some(separator) = rest.chars().next() {
        out.push(separator);
        rest = &rest[separator.len_utf8()..];
        let end = rest.find(['&', '#', ';', '?']).unwrap_or(rest.len());
        match rest[..end].split_once('=') {
            Some((name, value)) if !value.is_empty() && is_secret_parameter(name) => {
                out.push_str(name);
                out.push('=');
                out.push_str(MARKER);
            }
            _ => out.push_str(&rest[..end]),
        }
        rest = &rest[end..];
    }
    out
}

fn is_secret_parameter(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let known = matches!(
        lower.as_str(),
        "auth" | "sig" | "code" | "key" | "pass" | "access" | "x-amz-credential" | "se" | "st"
    );
    known || words::sensitivity(name) != Sensitivity::None
}

/// `Bearer …`, `Basic …`.
fn mask_scheme(text: &str) -> Option<String> {
    let (scheme, rest) = text.trim_start().split_once(' ')?;
    let known = ["bearer", "basic", "token", "apikey"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    let rest = rest.trim();
    (known && rest.len() >= 6 && !rest.contains(' ')).then(|| format!("{scheme} {MARKER}"))
}

/// `--token=…`, `API_KEY=…`, `X-Api-Key: …`.
fn mask_assignment(text: &str) -> Option<String> {
    let at = text.find(['=', ':'])?;
    let (name, value) = (&text[..at], text[at + 1..].trim());
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if !plain || value.is_empty() || value.starts_with("//") || words::sensitivity(name) == Sensitivity::None {
        return None;
    }
    let blank = &text[at + 1..text.len() - text[at + 1..].trim_start().len()];
    Some(format!("{name}{}{blank}{MARKER}", &text[at..=at]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes() {
        let check = |text: &str, expected: Option<&str>| {
            let expected = expected.map(|e| e.replace("%M", MARKER));
            assert_eq!(mask(text, false), expected, "{text}");
        };
        check("https://user:sesame@host/x", Some("https://%M@host/x"));
        check("https://sesame@github.com/x", Some("https://%M@github.com/x"));
        check("ssh://me@host", None);
        check("ssh://me:sesame@host", Some("ssh://%M@host"));
        check("me@host", None);
        check("wss://gw/x?token=sesame&v=1#access_token=sesame", Some("wss://gw/x?token=%M&v=1#access_token=%M"));
        check("https://s3/x?X-Amz-Signature=abc&X-Amz-Date=1", Some("https://s3/x?X-Amz-Signature=%M&X-Amz-Date=1"));
        check("see https://a:b@h/ and https://c:d@i/", Some("see https://%M@h/ and https://%M@i/"));
        check("wss://gw.example.com:8443/path?x=1", None);
        check("sk-abcdefghijklmnop", Some("%M"));
        check("sk-short", None);
        check("123456789:AAabcdefghijklmnopqrstuvwxyz012345", Some("%M"));
        check("-----BEGIN OPENSSH PRIVATE KEY-----\nx", Some("%M"));
        check("Bearer sesame1", Some("Bearer %M"));
        check("--api-key=sesame", Some("--api-key=%M"));
        check("GATEWAY_TOKEN=sesame", Some("GATEWAY_TOKEN=%M"));
        check("X-Api-Key: sesame", Some("X-Api-Key: %M"));
        check("claude-sonnet-4-20250514", None);
        check("fake/fake-model", None);
        check("token", None);
    }

    #[test]
    fn random_looking_texts() {
        for random in ["0123456789abcdef0123456789abcdef", "aB3dE5fG7hI9jK1lM3nO5pQ7"] {
            assert!(looks_random(random), "{random}");
        }
        for plain in ["claude-sonnet-4-20250514", "/home/User1/Dir2/File3xxxxxxx", "a sentence with Words 123", "main"]
        {
            assert!(!looks_random(plain), "{plain}");
        }
    }

    #[test]
    fn parts() {
        let check = |text: &str, parts: &[&str]| {
            assert_eq!(hidden_parts(text, &mask(text, false).unwrap()), parts, "{text}");
        };
        check("https://u:p@h/x?token=abc", &["u:p", "abc"]);
        check("Bearer sesame1", &["sesame1"]);
        check("sk-abcdefghijklmnop", &["sk-abcdefghijklmnop"]);
    }
}
