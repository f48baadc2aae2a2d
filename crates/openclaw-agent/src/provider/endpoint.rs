//! Where a provider is reached and with which credentials.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use openclaw_protocol::Secret;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use url::{Host, Url};

/// Longest silence of a provider before its answer counts as lost: 120 s, the reference's idle watchdog.
/// `models.providers.<id>.timeoutSeconds` replaces it.
pub const DEFAULT_SILENCE: Duration = Duration::from_secs(120);

/// One provider's address, key and limits.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// `models.providers.<id>`.
    pub provider: String,
    pub base: BaseUrl,
    pub auth: Auth,
    pub key_source: KeySource,
    /// Of the config; values may be secrets and are marked so.
    pub headers: HeaderMap,
    pub silence: Duration,
    /// Of one whole call.
    pub total: Option<Duration>,
}

/// How the key is shown to the provider.
#[derive(Clone, Debug)]
pub(crate) enum Auth {
    /// Only for servers of one's own network.
    None,
    Bearer(Secret),
    Header(HeaderName, Secret),
}

impl Auth {
    pub fn apply(&self, headers: &mut HeaderMap) -> Result<(), BadKey> {
        let (name, text) = match self {
            Self::None => return Ok(()),
            Self::Bearer(key) => (reqwest::header::AUTHORIZATION, format!("Bearer {}", key.expose())),
            Self::Header(name, key) => (name.clone(), key.expose().to_owned()),
        };
        let mut value = HeaderValue::try_from(text).map_err(|_| BadKey)?;
        value.set_sensitive(true);
        headers.insert(name, value);
        Ok(())
    }

    /// The key, to keep it out of texts.
    pub fn secret(&self) -> Option<&Secret> {
        match self {
            Self::None => None,
            Self::Bearer(key) | Self::Header(_, key) => Some(key),
        }
    }
}

/// The key has characters no header can carry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BadKey;

/// Where a key came from, for people. Never the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// None is needed there.
    None,
    /// An environment variable.
    Env(String),
    /// A key of the config.
    Config(String),
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("no key"),
            Self::Env(name) => write!(f, "the variable {name}"),
            Self::Config(path) => f.write_str(path),
        }
    }
}

/// A checked base URL: http or https, no user in it, not an address no model can be at.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct BaseUrl {
    url: Url,
    /// On this machine or in one's own network.
    pub local: bool,
}

impl BaseUrl {
    /// Checks the text of `baseUrl`. The configured origin is trusted as it stands, private networks included, but
    /// - cloud metadata and link-local addresses need `request.allowPrivateNetwork: true` ([`Trust::Declared`]);
    /// - plain http goes to addresses of this machine and of private networks and to names that can only be local (no dot,
    ///   `.local`, `.internal`, `.lan`, `.home.arpa`, `.ts.net`); any other name needs the same declaration, a public address
    ///   never gets it: key and conversation would be readable on the way.
    ///
    /// The error is a reason for people, without the URL's query.
    pub fn parse(text: &str, trust: Trust) -> Result<Self, String> {
        let url = Url::parse(text.trim()).map_err(|error| format!("its baseUrl is no URL ({error})"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("its baseUrl has to begin with https:// or http://, not {}://", url.scheme()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("its baseUrl has a user or password in it; keys belong into apiKey or headers".to_owned());
        }
        let place = Place::of(url.host().ok_or("its baseUrl has no host")?);
        let shown = shown(&url);
        let local = match (place, trust) {
            (Place::Private | Place::LocalName, Trust::Denied) => {
                return Err(format!("{shown} is in a private network, and request.allowPrivateNetwork is false"));
            }
            (Place::Private | Place::LocalName, _) => true,
            (Place::Forbidden, Trust::Declared) => true,
            (Place::Forbidden, _) => {
                return Err(format!(
                    "{shown} is a link-local or metadata address; if a model is there indeed, set \
                     request.allowPrivateNetwork to true for this provider"
                ));
            }
            (Place::Name, Trust::Declared) if url.scheme() == "http" => true,
            (Place::Name | Place::Public, _) if url.scheme() == "http" => {
                return Err(format!(
                    "{shown} is plain http outside of private networks, where key and conversation could be read on the way; \
                     use https (for a name of your own network: request.allowPrivateNetwork true)"
                ));
            }
            (Place::Name | Place::Public, _) => false,
        };
        Ok(Self { url, local })
    }

    /// The URL of one method. `path` has no slash in front. A query of the base stays.
    pub fn join(&self, path: &str) -> Url {
        let mut url = self.url.clone();
        let joined = format!("{}/{path}", url.path().trim_end_matches('/'));
        url.set_path(&joined);
        url.set_fragment(None);
        url
    }

    /// True if the path ends so.
    pub fn ends_with(&self, segment: &str) -> bool {
        self.url.path().trim_end_matches('/').ends_with(segment)
    }

    pub fn is_https(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// Whether it is the host of that name over TLS.
    pub fn is_host(&self, host: &str) -> bool {
        self.is_https() && self.url.host_str() == Some(host)
    }
}

/// For people: without the query, which may hold keys.
impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.url))
    }
}

impl fmt::Debug for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// `request.allowPrivateNetwork` of a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Not said: the configured origin itself is trusted.
    Origin,
    /// `true`
    Declared,
    /// `false`
    Denied,
}

fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // Cannot fail for http URLs, and an URL with a user is refused anyway.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.as_str().trim_end_matches('/').to_owned()
}

/// What kind of place a host is, as far as its text tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Loopback, RFC 1918, RFC 6598, RFC 4193.
    Private,
    /// A name that public DNS does not have.
    LocalName,
    Name,
    Public,
    Forbidden,
}

impl Place {
    fn of(host: Host<&str>) -> Self {
        match host {
            Host::Ipv4(address) => Self::of_v4(address),
            Host::Ipv6(address) => Self::of_v6(address),
            Host::Domain(name) => {
                let name = name.to_ascii_lowercase();
                const LOCAL: &[&str] = &[".local", ".internal", ".lan", ".home.arpa", ".ts.net", ".localhost"];
                if name == "metadata.google.internal" || name == "metadata" {
                    Self::Forbidden
                } else if !name.contains('.') || LOCAL.iter().any(|suffix| name.ends_with(suffix)) {
                    Self::LocalName
                } else {
                    Self::Name
                }
            }
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        let [a, b, ..] = address.octets();
        let metadata = address == Ipv4Addr::new(100, 100, 100, 200) || address == Ipv4Addr::new(192, 0, 0, 192);
        if address.is_link_local() || address.is_unspecified() || address.is_multicast() || a == 255 || metadata {
            Self::Forbidden
        } else if address.is_loopback() || address.is_private() || (a == 100 && (64..128).contains(&b)) {
            Self::Private
        } else {
            Self::Public
        }
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        if let Some(v4) = address.to_ipv4_mapped() {
            return Self::of_v4(v4);
        }
        let [a, b, c, ..] = address.segments();
        let nat64_local = (a, b, c) == (0x64, 0xff9b, 1);
        let metadata = address == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
        if address.is_unspecified() || address.is_multicast() || a & 0xffc0 == 0xfe80 || nat64_local || metadata {
            Self::Forbidden
        } else if address.is_loopback() || a & 0xfe00 == 0xfc00 {
            Self::Private
        } else {
            Self::Public
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls() {
        let check = |text: &str, trust: Trust, expected: Result<bool, &str>| {
            let parsed = BaseUrl::parse(text, trust);
            match (&parsed, expected) {
                (Ok(base), Ok(local)) => assert_eq!(base.local, local, "{text}"),
                (Err(reason), Err(word)) => assert!(reason.contains(word), "{text}: {reason}"),
                _ => panic!("{text} {trust:?}: {parsed:?}, expected {expected:?}"),
            }
        };
        use Trust::{Declared, Denied, Origin};
        check("https://api.openai.com/v1", Origin, Ok(false));
        check("https://api.openai.com/v1", Denied, Ok(false));
        for local in
            ["127.0.0.1:11434", "localhost:1234", "192.168.1.50:8000", "100.100.1.2", "[::1]:8000", "[fd12::1]"]
        {
            check(&format!("http://{local}/v1"), Origin, Ok(true));
            check(&format!("https://{local}/v1"), Origin, Ok(true));
            check(&format!("http://{local}/v1"), Denied, Err("private network"));
        }
        for local in ["gpu-box", "gpu-box.local", "box.tail1234.ts.net", "box.lan"] {
            check(&format!("http://{local}:8000/v1"), Origin, Ok(true));
        }
        check("http://llm.example.com/v1", Origin, Err("plain http"));
        check("http://llm.example.com/v1", Declared, Ok(true));
        check("http://93.184.216.34/v1", Declared, Err("plain http"));
        check("http://api.openai.com/v1", Origin, Err("plain http"));
        for forbidden in ["169.254.169.254", "[fe80::1]", "0.0.0.0:8000", "metadata.google.internal", "[fd00:ec2::254]"]
        {
            check(&format!("http://{forbidden}/v1"), Origin, Err("link-local or metadata"));
            check(&format!("https://{forbidden}/v1"), Origin, Err("link-local or metadata"));
        }
        check("http://169.254.10.1:8000/v1", Declared, Ok(true));
        check("ftp://a/v1", Origin, Err("https://"));
        check("api.openai.com/v1", Origin, Err("no URL"));
        check("https://user:key@api.openai.com/v1", Origin, Err("apiKey"));
    }

    /// P-87: what looks like this machine and is not, gets no plain http; what is it in disguise, does.
    #[test]
    fn p_87_loopback_look_alikes_get_no_plain_http() {
        for (text, local) in [
            ("http://127.evil.test/v1", false),
            ("http://localhost.evil.test/v1", false),
            ("http://localhost./v1", false),
            ("http://0x7f.1/v1", true),
            ("http://2130706433/v1", true),
            ("http://[::ffff:127.0.0.1]/v1", true),
            ("http://[::ffff:8.8.8.8]/v1", false),
        ] {
            let parsed = BaseUrl::parse(text, Trust::Origin);
            assert_eq!(parsed.is_ok_and(|base| base.local), local, "{text}");
        }
        assert!(BaseUrl::parse("http://127.0.0.1@evil.test/v1", Trust::Origin).is_err());
        assert!(BaseUrl::parse("http://0.0.0.0/v1", Trust::Origin).is_err());
    }

    #[test]
    fn joined_and_shown() {
        let check = |base: &str, path: &str, joined: &str, shown: &str| {
            let base = BaseUrl::parse(base, Trust::Origin).unwrap();
            assert_eq!(base.join(path).as_str(), joined);
            assert_eq!(base.to_string(), shown);
        };
        check("https://a.test/v1", "responses", "https://a.test/v1/responses", "https://a.test/v1");
        check("https://a.test/v1/", "responses", "https://a.test/v1/responses", "https://a.test/v1");
        check("https://a.test", "v1/messages", "https://a.test/v1/messages", "https://a.test");
        check(
            "https://a.test/openai?api-version=1&key=k",
            "chat/completions",
            "https://a.test/openai/chat/completions?api-version=1&key=k",
            "https://a.test/openai",
        );
    }

    #[test]
    fn keys_stay_out_of_debug() {
        let mut headers = HeaderMap::new();
        Auth::Bearer(Secret::new("sk-very-secret")).apply(&mut headers).unwrap();
        assert!(!format!("{headers:?}").contains("very-secret"));
        assert!(Auth::Bearer(Secret::new("a\nb")).apply(&mut headers).is_err());
    }
}
