use std::time::Duration;

use tokio::{
    io::{AsyncBufReadExt as _, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::*;
use crate::{deadline::Deadline, dial::dial_url, error::Stage, tls::Fingerprint};

fn proxies(vars: &[(&str, &str)]) -> Proxies {
    Proxies::read(|name| vars.iter().find(|(var, _)| *var == name).map(|(_, value)| (*value).to_owned()))
}

fn url(text: &str) -> GatewayUrl {
    GatewayUrl::parse(text).expect(text)
}

fn chosen(vars: &[(&str, &str)], to: &str) -> String {
    match proxies(vars).choose(&url(to)) {
        Ok(Choice::Through(proxy)) => proxy.to_string(),
        Ok(Choice::Direct(bypass)) => bypass.to_string(),
        Err(failure) => format!("error: {failure}"),
    }
}

#[test]
fn which_proxy() {
    let gateway = "wss://gw.example.com";
    let check =
        |vars: &[(&str, &str)], to: &str, expected: &str| assert_eq!(chosen(vars, to), expected, "{vars:?} {to}");
    check(&[], gateway, "direct: no proxy is set");
    check(&[("HTTPS_PROXY", "http://p:3128")], gateway, "http://p:3128");
    check(&[("https_proxy", "http://low:1"), ("HTTPS_PROXY", "http://up:2")], gateway, "http://low:1");
    check(&[("https_proxy", " "), ("HTTPS_PROXY", "http://up:2")], gateway, "http://up:2");
    check(&[("ALL_PROXY", "http://all:3"), ("HTTPS_PROXY", "http://up:2")], gateway, "http://up:2");
    check(&[("all_proxy", "https://all/")], gateway, "https://all:443");
    // Plain HTTP has a variable of its own, and plain ws:// never leaves the private network.
    check(&[("HTTP_PROXY", "http://p:1"), ("http_proxy", "http://p:1")], gateway, "direct: no proxy is set");
    let on = &[("HTTPS_PROXY", "http://p:3128")][..];
    check(on, "ws://192.168.1.5:18789", "direct: ws:// does not go through a proxy");
    for local in ["wss://127.0.0.1:18789", "wss://127.9.9.9", "wss://[::1]:1", "wss://localhost", "wss://a.localhost"] {
        check(on, local, "direct: a local address");
    }
    check(on, "wss://[fe80::1%25eth0]", "direct: a local address");
    check(on, "wss://192.168.1.5", "http://p:3128");
    for (text, expected) in [
        ("p", "http://p:80"),
        ("p:3128", "http://p:3128"),
        ("http://me:s3cret@p:3128/path", "http://p:3128"),
        ("http://me@p:3128", "http://p:3128"),
        ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
        ("socks5://p:1080", "error: HTTPS_PROXY names a socks5 proxy, and only http:// and https:// ones can be used"),
        ("http://", "error: HTTPS_PROXY does not hold a URL such as http://proxy.example:3128"),
        ("http://p:0", "error: HTTPS_PROXY does not hold a URL such as http://proxy.example:3128"),
        ("http://s3cret@/", "error: HTTPS_PROXY does not hold a URL such as http://proxy.example:3128"),
    ] {
        check(&[("HTTPS_PROXY", text)], gateway, expected);
        let shown = format!("{:?}", proxies(&[("HTTPS_PROXY", text)]).choose(&url(gateway)));
        assert!(!shown.contains("s3cret"), "{shown}");
    }
}

#[test]
fn exceptions() {
    let check = |list: &str, to: &str, excepted: bool| {
        for name in EXCEPTIONS {
            let shown = chosen(&[("HTTPS_PROXY", "http://p:1"), (name, list)], to);
            assert_eq!(shown.starts_with("direct: NO_PROXY"), excepted, "{list} {to}: {shown}");
        }
    };
    check("*", "wss://anything.example", true);
    check("example.com", "wss://example.com", true);
    check("example.com", "wss://gw.example.com", true);
    check("example.com", "wss://badexample.com", false);
    check(".example.com", "wss://gw.example.com", true);
    check(".example.com", "wss://example.com", true);
    check("*.example.com", "wss://gw.example.com", true);
    check("*.example.com", "wss://example.com", false);
    check("EXAMPLE.com.", "wss://Example.Com", true);
    check("gw.example.com:443", "wss://gw.example.com", true);
    check("gw.example.com:8443", "wss://gw.example.com", false);
    check("a,b , gw.example.com", "wss://gw.example.com", true);
    check("a b gw.example.com", "wss://gw.example.com", true);
    check("10.0.0.0/8", "wss://10.1.2.3", true);
    check("10.0.0.0/8", "wss://11.1.2.3", false);
    check("10.1.2.3", "wss://10.1.2.3:18789", true);
    check("10.1.2.3:18789", "wss://10.1.2.3:18789", true);
    check("10.1.2.3:1", "wss://10.1.2.3:18789", false);
    check("fd00::/8", "wss://[fd12::1]", true);
    check("[fd12::1]:443", "wss://[fd12::1]", true);
    check("fd12::1", "wss://[fd12::1]:18789", true);
    check("", "wss://gw.example.com", false);
    check(", ,", "wss://gw.example.com", false);
    check(".", "wss://gw.example.com", false);
    // A name is never looked up to find out whether its address is excepted.
    check("127.0.0.0/8", "wss://gw.example.com", false);
    // Both lists count.
    let both = [("HTTPS_PROXY", "http://p:1"), ("no_proxy", "a.example"), ("NO_PROXY", "b.example")];
    assert_eq!(chosen(&both, "wss://b.example"), "direct: NO_PROXY has b.example");
}

#[test]
fn logins_are_decoded() {
    for (login, expected) in
        [("me:pass", "me:pass"), ("me", "me:"), ("a%40b:p%3Aw%25", "a@b:p:w%"), ("%zz:%4", "%zz:%4")]
    {
        let vars = format!("http://{login}@p:1");
        let Ok(Choice::Through(proxy)) = proxies(&[("HTTPS_PROXY", &vars)]).choose(&url("wss://gw")) else {
            panic!("{login}");
        };
        let sent = proxy.authorization.expect("a login").expose().to_owned();
        assert_eq!(sent, format!("Basic {}", STANDARD.encode(expected)), "{login}");
    }
}

/// A proxy that answers each `CONNECT` with `answer`, and joins the client with `gateway` when that is a 200. Gives the
/// heads it was sent.
async fn proxy(answer: &'static str, gateway: Option<u16>) -> (u16, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let port = listener.local_addr().expect("address").port();
    let served = tokio::spawn(async move {
        let (client, _) = listener.accept().await.expect("accept");
        let mut client = BufReader::new(client);
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if client.read_line(&mut line).await.expect("read") == 0 || line == "\r\n" {
                break;
            }
            head.push(line.trim_end().to_owned());
        }
        client.get_mut().write_all(answer.as_bytes()).await.expect("answer");
        if let Some(gateway) = gateway {
            let mut gateway = TcpStream::connect(("127.0.0.1", gateway)).await.expect("gateway");
            let _ = copy_bidirectional(&mut client, &mut gateway).await;
        }
        head
    });
    (port, served)
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(10))
}

async fn through(
    port: u16,
    login: &str,
    to: &str,
    pin: Option<Fingerprint>,
    deadline: Deadline,
) -> Result<Stream, Error> {
    let proxies = proxies(&[("HTTPS_PROXY", &format!("http://{login}127.0.0.1:{port}"))]);
    dial_url(&url(to), pin, false, &proxies, deadline).await
}

/// A TLS server that says `hello`.
async fn tls_server() -> (u16, Fingerprint) {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
    let certificate = include_str!("../../tests/fixtures/gateway.pem");
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("certificate");
    let pin = Fingerprint::of(&certificate);
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("../../tests/fixtures/gateway.key")).expect("key");
    let config = rustls::ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("server");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let port = listener.local_addr().expect("address").port();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("accept");
        let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
        if let Ok(mut tls) = acceptor.accept(stream).await {
            let _ = tls.write_all(b"hello").await;
            let _ = tls.shutdown().await;
        }
    });
    (port, pin)
}

#[tokio::test]
async fn a_gateway_through_a_proxy_is_pinned_all_the_same() {
    for (answer, right) in [
        ("HTTP/1.1 200 Connection established\r\n\r\n", true),
        ("HTTP/1.0 200 OK\r\nX-Proxy: yes\r\nVia: 1.1 lab\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\n\r\n", false),
    ] {
        let (gateway, pin) = tls_server().await;
        let (port, served) = proxy(answer, Some(gateway)).await;
        // The name is the proxy's to resolve: it does not exist here.
        let pin = if right { pin } else { Fingerprint::of(b"another") };
        let stream = through(port, "me:s3cret@", "wss://gw.invalid:18789", Some(pin), soon()).await;
        if right {
            let mut text = String::new();
            stream.expect("through the proxy").read_to_string(&mut text).await.expect("reads");
            assert_eq!(text, "hello");
        } else {
            let error = stream.expect_err("another certificate");
            assert!(matches!(&error, Error::Tls { source: TlsFailure::Pin(_), .. }), "{error:?}");
        }
        let head = served.await.expect("proxy");
        assert_eq!(head[0], "CONNECT gw.invalid:18789 HTTP/1.1");
        assert_eq!(head[1], "Host: gw.invalid:18789");
        assert_eq!(head[2], format!("Proxy-Authorization: Basic {}", STANDARD.encode("me:s3cret")));
    }
}

#[tokio::test]
async fn refusals_of_a_proxy() {
    let no_proxy = "export NO_PROXY=\"${NO_PROXY:+$NO_PROXY,}gw.invalid\"";
    for (login, answer, expected, cure) in [
        (
            "",
            "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n",
            "it wants a user name and a password (HTTP 407)",
            "export https_proxy=http://<user>:<password>@127.0.0.1:",
        ),
        (
            "me:s3cret@",
            "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
            "it does not take the user name and password in HTTPS_PROXY (HTTP 407)",
            "export https_proxy=http://<user>:<password>@127.0.0.1:",
        ),
        ("", "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "it answered HTTP 403", no_proxy),
        ("", "HTTP/1.1 502 Bad Gateway\r\n\r\n", "it answered HTTP 502", no_proxy),
        ("", "SSH-2.0-OpenSSH_9.9\r\n", "what answered is no HTTP proxy", no_proxy),
        ("", "HTTP/1.1 hello\r\n\r\n", "what answered is no HTTP proxy", no_proxy),
        ("", "", "it hung up", no_proxy),
        ("", "HTTP/1.1 200 OK\r\n", "it hung up", no_proxy),
    ] {
        let (port, _served) = proxy(answer, None).await;
        let error = through(port, login, "wss://gw.invalid", None, soon()).await.expect_err(answer);
        assert_eq!((error.stage(), error.exit_code()), (Stage::Proxy, 20));
        let text = error.to_string();
        let who = format!("the proxy http://127.0.0.1:{port} does not let the connection to gw.invalid:443 through: ");
        assert!(text.starts_with(&who) && text.contains(expected) && !text.contains("s3cret"), "{text}");
        let remedy = error.remedy(&crate::Place::default()).expect("remedy").command;
        assert!(remedy.starts_with(cure), "{remedy}");
    }
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("bind").local_addr().expect("address").port();
    let error = through(closed, "", "wss://gw.invalid", None, soon()).await.expect_err("nobody there");
    assert!(error.to_string().contains("it cannot be reached (Connection refused"), "{error}");
    // One that never ends its answer is cut off.
    let endless: &'static str =
        Box::leak(format!("HTTP/1.1 200 OK\r\nX: {}", "a".repeat(MAX_HEAD_BYTES)).into_boxed_str());
    let (port, _served) = proxy(endless, None).await;
    let error = through(port, "", "wss://gw.invalid", None, soon()).await.expect_err("endless");
    assert!(error.to_string().contains("no HTTP proxy"), "{error}");
}

#[tokio::test]
async fn a_proxy_that_says_nothing_is_named_in_the_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let port = listener.local_addr().expect("address").port();
    let error = through(port, "", "wss://gw.invalid", None, Deadline::after(Duration::from_millis(50))).await;
    let error = error.expect_err("silence");
    assert!(matches!(error, Error::Timeout { stage: Stage::Proxy, .. }), "{error:?}");
    assert_eq!(error.remedy(&crate::Place::default()).expect("remedy").command, "env | grep -i _proxy");
}

#[tokio::test]
async fn loopback_and_exceptions_go_around_the_proxy() {
    let (gateway, pin) = tls_server().await;
    let nowhere = proxies(&[("HTTPS_PROXY", "http://127.0.0.1:9")]);
    let stream = dial_url(&url(&format!("wss://127.0.0.1:{gateway}")), Some(pin), false, &nowhere, soon()).await;
    stream.expect("loopback is never proxied");
    let broken = proxies(&[("HTTPS_PROXY", "socks5://127.0.0.1:9")]);
    let error =
        dial_url(&url("wss://192.0.2.1"), None, false, &broken, soon()).await.expect_err("not silently around it");
    assert_eq!((error.stage(), error.kind()), (Stage::Proxy, "proxy"));
}
