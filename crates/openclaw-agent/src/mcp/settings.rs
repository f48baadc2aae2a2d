//! `mcp.servers.<name>` (the reference's gateway/config-extensions and cli/mcp/transports).

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use openclaw_config::{
    document::{Kind, Node},
    secret_ref::{self, SecretContext, SecretInput},
};
use openclaw_protocol::Secret;
use reqwest::header::{HeaderName, HeaderValue};
use url::Url;

use crate::policy::glob;

/// To an answer to `initialize`, tools listed.
const CONNECTION: Duration = Duration::from_secs(30);
/// To an answer to one call.
const REQUEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(3600);

/// One server. Comparable, so that a reload can tell what changed.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerSettings {
    pub name: String,
    pub enabled: bool,
    /// Or why it cannot be used.
    pub transport: Result<Transport, String>,
    pub connection_timeout: Duration,
    pub request_timeout: Duration,
    pub filter: Filter,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Transport {
    Stdio(StdioServer),
    Http(HttpServer),
}

/// A program that speaks on its standard input and output.
#[derive(Clone, Debug)]
pub struct StdioServer {
    pub command: String,
    pub args: Vec<Secret>,
    pub env: BTreeMap<String, Secret>,
    pub cwd: Option<PathBuf>,
}

impl PartialEq for StdioServer {
    fn eq(&self, other: &Self) -> bool {
        let plain = |secrets: &[Secret]| secrets.iter().map(|secret| secret.expose().to_owned()).collect::<Vec<_>>();
        (&self.command, &self.cwd, plain(&self.args)) == (&other.command, &other.cwd, plain(&other.args))
            && same(&self.env, &other.env)
    }
}

/// A server at a URL.
#[derive(Clone, Debug)]
pub struct HttpServer {
    pub url: Url,
    pub headers: BTreeMap<String, Secret>,
}

impl PartialEq for HttpServer {
    fn eq(&self, other: &Self) -> bool {
        self.url == other.url && same(&self.headers, &other.headers)
    }
}

fn same(a: &BTreeMap<String, Secret>, b: &BTreeMap<String, Secret>) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|((k, v), (l, w))| k == l && v.expose() == w.expose())
}

/// `toolFilter`: names as the server gives them, or globs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub include: Option<Vec<String>>,
    pub exclude: Vec<String>,
}

impl Filter {
    pub fn lets(&self, tool: &str) -> bool {
        let any = |globs: &[String]| globs.iter().any(|pattern| glob(pattern, tool));
        self.include.as_deref().is_none_or(any) && !any(&self.exclude)
    }
}

/// Reads all servers. What cannot be used of one is its own error. Blocks: secrets may be in files or come from programs.
pub fn read(context: &SecretContext<'_>) -> Vec<ServerSettings> {
    let servers = context.doc.get("mcp.servers").and_then(Node::as_object).unwrap_or_default();
    let named = servers.iter().filter(|(name, _)| name != "__proto__");
    named.map(|(name, node)| server(name, node, context)).collect()
}

fn server(name: &str, node: &Node, context: &SecretContext<'_>) -> ServerSettings {
    let millis = |key: &str, default: Duration| {
        let given = node.entry(key).and_then(Node::as_i64).and_then(|ms| u64::try_from(ms).ok()).filter(|ms| *ms > 0);
        given.map_or(default, |ms| Duration::from_millis(ms).min(LONGEST))
    };
    let enabled = node.entry("enabled").and_then(Node::as_bool).unwrap_or(true);
    let filter = node.entry("toolFilter");
    let globs = |key: &str| {
        let items = filter?.entry(key)?.as_array()?;
        Some(items.iter().filter_map(Node::as_str).map(|glob| glob.trim().to_owned()).collect::<Vec<_>>())
    };
    ServerSettings {
        name: name.to_owned(),
        enabled,
        // A server that is off may name secrets that are not there.
        transport: if enabled { transport(name, node, context) } else { Err("it is disabled".to_owned()) },
        connection_timeout: millis("connectionTimeoutMs", CONNECTION),
        request_timeout: millis("requestTimeoutMs", REQUEST),
        filter: Filter { include: globs("include"), exclude: globs("exclude").unwrap_or_default() },
    }
}

fn transport(name: &str, node: &Node, context: &SecretContext<'_>) -> Result<Transport, String> {
    let text = |key: &str| node.entry(key).and_then(Node::as_str).map(str::trim).filter(|text| !text.is_empty());
    let kind = text("transport").or_else(|| text("type"));
    match (text("command"), text("url"), kind) {
        (_, Some(url), None | Some("streamable-http" | "http")) => http(name, url, node, context).map(Transport::Http),
        (Some(command), _, None | Some("stdio")) => stdio(name, command, node, context).map(Transport::Stdio),
        (_, _, Some("sse")) => {
            Err("the old sse transport is not supported; set transport to \"streamable-http\"".to_owned())
        }
        (_, _, Some(other @ ("stdio" | "streamable-http" | "http"))) => {
            let key = if other == "stdio" { "command" } else { "url" };
            Err(format!("transport {other:?} needs mcp.servers.{name}.{key}"))
        }
        (_, _, Some(other)) => Err(format!("transport {other:?} is not known; it is \"stdio\" or \"streamable-http\"")),
        (None, None, None) => Err(format!("set mcp.servers.{name}.command or mcp.servers.{name}.url")),
    }
}

fn stdio(name: &str, command: &str, node: &Node, context: &SecretContext<'_>) -> Result<StdioServer, String> {
    let args = node.entry("args").and_then(Node::as_array).unwrap_or_default().iter().enumerate();
    let args = args.map(|(index, arg)| value(&format!("mcp.servers.{name}.args.{index}"), arg, context));
    let mut env = values(&format!("mcp.servers.{name}.env"), node.entry("env"), context)?;
    env.retain(|key, _| {
        let safe = !is_dangerous(key);
        if !safe {
            tracing::warn!(
                server = name,
                variable = key,
                "a variable of an MCP server is left out: it changes what programs run"
            );
        }
        safe
    });
    let cwd = ["cwd", "workingDirectory"].iter().find_map(|key| node.entry(key)?.as_str());
    let cwd = cwd.map(|cwd| match (cwd.strip_prefix("~/"), context.env.get("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => PathBuf::from(cwd),
    });
    Ok(StdioServer { command: command.to_owned(), args: args.collect::<Result<_, _>>()?, env, cwd })
}

fn http(name: &str, url: &str, node: &Node, context: &SecretContext<'_>) -> Result<HttpServer, String> {
    let path = format!("mcp.servers.{name}");
    let url = Url::parse(url).map_err(|error| format!("{path}.url is no URL ({error})"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(format!("{path}.url must begin with http:// or https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("{path}.url holds credentials; put them into {path}.headers"));
    }
    if node.entry("auth").and_then(Node::as_str) == Some("oauth") {
        return Err(format!("{path}.auth \"oauth\" is not supported; give a token in {path}.headers.Authorization"));
    }
    if node.entry("sslVerify").and_then(Node::as_bool) == Some(false) || node.entry("clientCert").is_some() {
        return Err(format!("{path}: sslVerify false and client certificates are not supported"));
    }
    let headers = values(&format!("{path}.headers"), node.entry("headers"), context)?;
    for (header, value) in &headers {
        HeaderName::try_from(header.as_str()).map_err(|_| format!("{path}.headers.{header} is no name of a header"))?;
        HeaderValue::try_from(value.expose()).map_err(|_| format!("{path}.headers.{header} cannot be sent"))?;
        if matches!(
            header.to_ascii_lowercase().as_str(),
            "accept" | "mcp-session-id" | "last-event-id" | "host" | "content-length"
        ) {
            return Err(format!("{path}.headers.{header} belongs to the protocol"));
        }
    }
    Ok(HttpServer { url, headers })
}

fn values(path: &str, node: Option<&Node>, context: &SecretContext<'_>) -> Result<BTreeMap<String, Secret>, String> {
    let entries = node.and_then(Node::as_object).unwrap_or_default().iter();
    entries.map(|(key, node)| Ok((key.clone(), value(&format!("{path}.{key}"), node, context)?))).collect()
}

/// Text, a number, a flag, or a reference to a secret.
fn value(path: &str, node: &Node, context: &SecretContext<'_>) -> Result<Secret, String> {
    match &node.kind {
        Kind::Number(number) => Ok(Secret::new(number.to_string())),
        Kind::Bool(flag) => Ok(Secret::new(flag.to_string())),
        Kind::Text(text) if text.unresolved.is_empty() => Ok(Secret::new(text.value.clone())),
        _ => {
            let input = SecretInput::from_node(path, node).ok_or_else(|| format!("{path} is null"))?;
            let secret = secret_ref::resolve(&input, context).map_err(|error| error.to_string())?;
            Ok(secret.unwrap_or_else(|| Secret::new(String::new())))
        }
    }
}

/// Variables that make interpreters, loaders and shells run something else; a config's `env` does not set them.
fn is_dangerous(name: &str) -> bool {
    const STARTS: [&str; 6] = ["LD_", "DYLD_", "BASH_FUNC_", "GCONV_", "_JAVA", "PYTHONINSPECT"];
    const NAMES: [&str; 24] = [
        "NODE_OPTIONS",
        "NODE_PATH",
        "PYTHONSTARTUP",
        "PYTHONPATH",
        "PYTHONHOME",
        "PYTHONBREAKPOINT",
        "PERL5OPT",
        "PERL5LIB",
        "PERL5DB",
        "RUBYOPT",
        "RUBYLIB",
        "BASH_ENV",
        "BASHOPTS",
        "SHELLOPTS",
        "ENV",
        "KSH_ENV",
        "ZDOTDIR",
        "PS4",
        "PROMPT_COMMAND",
        "JAVA_TOOL_OPTIONS",
        "JDK_JAVA_OPTIONS",
        "GIT_SSH_COMMAND",
        "GIT_EXTERNAL_DIFF",
        "IFS",
    ];
    let name = name.to_ascii_uppercase();
    name.is_empty()
        || name.contains(['=', '\0'])
        || STARTS.iter().any(|start| name.starts_with(start))
        || NAMES.contains(&name.as_str())
}

#[cfg(test)]
mod tests {
    use openclaw_config::{
        document::Document,
        env::Env,
        paths::{Paths, Profile},
    };

    use super::*;

    fn servers(text: &str) -> Vec<ServerSettings> {
        let env = Env::from_pairs([("HOME", "/home/me"), ("TOKEN", "s3cret")]);
        let paths = Paths::resolve(&env, Profile::Default).unwrap();
        let doc = Document::from_text(&format!("{{mcp:{{servers:{text}}}}}"), &paths, &env).unwrap();
        read(&SecretContext { env: &env, doc: &doc, paths: &paths })
    }

    #[test]
    fn a_program() {
        let all = servers(
            "{docs:{command:'uvx',args:['mcp-server-fetch',7],env:{API_KEY:{source:'env',id:'TOKEN'},PORT:80,LD_PRELOAD:'x.so',\
             NODE_OPTIONS:'-r x'},cwd:'~/tools',requestTimeoutMs:5000,toolFilter:{include:['read_*'],exclude:['read_mail']}}}",
        );
        let [server] = all.as_slice() else { panic!() };
        let Ok(Transport::Stdio(stdio)) = &server.transport else { panic!("{server:?}") };
        assert_eq!(stdio.command, "uvx");
        assert_eq!(stdio.args.iter().map(Secret::expose).collect::<Vec<_>>(), ["mcp-server-fetch", "7"]);
        let env: Vec<_> = stdio.env.iter().map(|(key, value)| (key.as_str(), value.expose())).collect();
        assert_eq!(env, [("API_KEY", "s3cret"), ("PORT", "80")]);
        assert_eq!(stdio.cwd, Some("/home/me/tools".into()));
        assert_eq!((server.request_timeout, server.connection_timeout), (Duration::from_secs(5), CONNECTION));
        for (tool, lets) in [("read_file", true), ("read_mail", false), ("write", false)] {
            assert_eq!(server.filter.lets(tool), lets, "{tool}");
        }
        assert!(Filter::default().lets("anything"));
        assert!(!format!("{server:?}").contains("s3cret"));
    }

    #[test]
    fn a_url() {
        let all = servers(
            "{remote:{url:'https://mcp.example.com/mcp',type:'http',headers:{Authorization:'Bearer ${TOKEN}'}}}",
        );
        let Ok(Transport::Http(http)) = &all[0].transport else { panic!("{all:?}") };
        assert_eq!(
            (http.url.as_str(), http.headers["Authorization"].expose()),
            ("https://mcp.example.com/mcp", "Bearer s3cret")
        );
    }

    #[test]
    fn what_cannot_be_used_says_why_and_harms_nobody_else() {
        let check = |text: &str, word: &str| {
            let all = servers(&format!("{{bad:{text},good:{{command:'x'}}}}"));
            let error = all[0].transport.as_ref().unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
            assert!(!error.contains("s3cret"));
            assert!(all[1].transport.is_ok());
        };
        check("{}", "set mcp.servers.bad.command or mcp.servers.bad.url");
        check("7", "set mcp.servers.bad.command");
        check("{command:'x',transport:'sse'}", "not supported");
        check("{url:'https://x',transport:'sse'}", "streamable-http");
        check("{url:'https://x',transport:'stdio'}", "needs mcp.servers.bad.command");
        check("{command:'x',transport:'http'}", "needs mcp.servers.bad.url");
        check("{command:'x',transport:'pigeon'}", "is not known");
        check("{url:'ftp://x'}", "http:// or https://");
        check("{url:'nonsense'}", "is no URL");
        check("{url:'https://u:p@x'}", "holds credentials");
        check("{url:'https://x',auth:'oauth'}", "oauth");
        check("{url:'https://x',sslVerify:false}", "sslVerify");
        check("{url:'https://x',headers:{'a b':'c'}}", "no name of a header");
        check("{url:'https://x',headers:{a:'b\\nc'}}", "cannot be sent");
        check("{url:'https://x',headers:{'Mcp-Session-Id':'c'}}", "belongs to the protocol");
        check("{url:'https://x',headers:{a:'${UNSET_ONE}'}}", "UNSET_ONE");
        check("{command:'x',env:{A:{source:'env',id:'NOT_THERE'}}}", "mcp.servers.bad.env.A");
        check("{command:'x',enabled:false}", "disabled");
    }

    #[test]
    fn a_reload_can_tell_what_changed() {
        let one = |text: &str| servers(text).remove(0);
        assert_eq!(one("{a:{command:'x',env:{K:'1'}}}"), one("{a:{command:'x',env:{K:'1'}}}"));
        assert_ne!(one("{a:{command:'x',env:{K:'1'}}}"), one("{a:{command:'x',env:{K:'2'}}}"));
        assert_ne!(one("{a:{url:'https://x',headers:{K:'1'}}}"), one("{a:{url:'https://x',headers:{K:'2'}}}"));
    }
}
