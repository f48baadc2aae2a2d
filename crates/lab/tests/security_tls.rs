//! TLS, seen by the program as its users run it: P-88 (pins and trust), P-90 (redirects), and proxies on the way.

use std::{fs, net::TcpStream, path::Path, sync::Arc, time::Duration};

use lab::{
    process::{Finished, Launch, wait_until},
    sandbox::{Sandbox, Setup, binary},
    tls::{Authority, ConnectProxy, Identity, Server},
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tungstenite::{Message, WebSocket, client::IntoClientRequest as _};

const TOKEN: &str = "a-token-that-must-not-travel-far";

/// A machine that is a client of a gateway elsewhere.
struct Laptop {
    home: TempDir,
}

impl Laptop {
    fn new(remote: Value) -> Self {
        let home = TempDir::with_prefix("openclaw-laptop-").expect("a temporary directory");
        fs::create_dir(home.path().join("state")).expect("creates");
        let laptop = Self { home };
        laptop.configure(remote);
        laptop
    }

    fn configure(&self, remote: Value) {
        let config = json!({"gateway": {"mode": "remote", "remote": remote}});
        fs::write(self.home.path().join("state/openclaw.json"), config.to_string()).expect("writes");
    }

    fn cli(&self, args: &[&str]) -> Launch {
        let home = self.home.path();
        Launch::new(binary(), home)
            .env("HOME", home)
            .env("OPENCLAW_STATE_DIR", home.join("state"))
            .args(args.iter().copied())
    }

    fn health(&self) -> Finished {
        self.cli(&["gateway", "health", "--json"]).run()
    }

    /// Types a command as it was printed, without the program's name.
    #[track_caller]
    fn types(&self, command: &str) {
        let words: Vec<&str> = command.strip_prefix("openclaw ").expect("one of ours").split(' ').collect();
        let done = self.cli(&words).run();
        assert!(done.status.success(), "{command}: {done:#?}");
    }
}

#[track_caller]
fn works(finished: &Finished) {
    assert!(finished.status.success() && finished.json()["ok"] == true, "{finished:#?}");
}

/// Checks exit code and words of a refusal, and gives the command it advises for this machine, if there is one.
#[track_caller]
fn refused(finished: &Finished, exit: i32, words: &[&str]) -> Option<String> {
    assert_eq!(finished.status.code(), Some(exit), "{finished:#?}");
    words.iter().for_each(|word| assert!(finished.stderr.contains(word), "{word:?} is not in {finished:#?}"));
    assert!(!finished.stderr.contains(TOKEN) && !finished.stdout.contains(TOKEN), "{finished:#?}");
    let remedy = &finished.json()["error"]["remedy"];
    remedy["command"].as_str().map(str::to_owned)
}

fn tls_gateway() -> Sandbox {
    Setup::new().config(json!({"gateway": {"tls": {"enabled": true}}})).start()
}

fn cert(gateway: &Sandbox, args: &[&str]) -> Value {
    let args = [&["gateway", "cert"], args, &["--json"]].concat();
    let done = gateway.setup.run(&args);
    assert!(done.status.success(), "{done:#?}");
    done.json()
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_else(|| panic!("{key} of {value}")).to_owned()
}

#[test]
fn p_88_a_pin_is_of_the_certificate_or_of_its_key() {
    let gateway = tls_gateway();
    let shown = cert(&gateway, &["show"]);
    let (pin, key_pin) = (text(&shown, "fingerprintSha256"), text(&shown, "keyFingerprint"));
    let colons: Vec<String> = pin.as_bytes().chunks(2).map(|p| String::from_utf8_lossy(p).to_uppercase()).collect();
    let url = format!("wss://127.0.0.1:{}", gateway.port);
    let remote = |pin: &str| json!({"url": url, "token": gateway.token(), "tlsFingerprint": pin});
    let laptop = Laptop::new(remote(&pin));
    for form in [&pin, &pin.to_uppercase(), &colons.join(":"), &format!("SHA256:{}", colons.join(":")), &key_pin] {
        laptop.configure(remote(form));
        works(&laptop.health());
    }

    // Wrong leaf, wrong key: both fingerprints, of the same kind, and nothing asked of the gateway.
    let stranger = Identity::of_itself("127.0.0.1");
    for (wrong, right) in [(stranger.pin(), &pin), (stranger.key_pin(), &key_pin)] {
        laptop.configure(remote(&wrong));
        let advice = refused(&laptop.health(), 12, &["fingerprint", &wrong, right]).expect("a remedy");
        assert_eq!(advice, format!("openclaw config set gateway.remote.tlsFingerprint {right}"));
        laptop.types(&advice);
        works(&laptop.health());
    }

    // No pin: nobody has issued it.
    laptop.configure(json!({"url": url, "token": gateway.token()}));
    let advice = refused(&laptop.health(), 12, &["not trusted", "no authority", &pin]);
    assert_eq!(advice.as_deref(), Some("openclaw gateway cert show"));
    // A pin for a URL without TLS is a mistake, said before any packet.
    laptop.configure(json!({"url": url.replace("wss", "ws"), "token": gateway.token(), "tlsFingerprint": pin}));
    let advice = refused(&laptop.health(), 1, &["is not a wss:// URL"]).expect("a remedy");
    laptop.types(&advice);
    works(&laptop.health());
}

#[test]
fn p_88_a_renewal_keeps_pins_of_the_key_and_open_connections() {
    let gateway = tls_gateway();
    let before = cert(&gateway, &["show"]);
    let url = format!("wss://127.0.0.1:{}", gateway.port);
    let remote = |pin: &str| json!({"url": url, "token": gateway.token(), "tlsFingerprint": pin});
    let (by_certificate, by_key) = (
        Laptop::new(remote(&text(&before, "fingerprintSha256"))),
        Laptop::new(remote(&text(&before, "keyFingerprint"))),
    );
    works(&by_certificate.health());
    // A connection that is there before the renewal.
    let mut follower = by_key.cli(&["logs", "--follow", "--json", "--interval", "100"]).start("follower");
    wait_until("a line of the log", || (follower.stdout().lines().count() > 1).then_some(()));

    let renewed = cert(&gateway, &["renew"]);
    assert_eq!(renewed["keptKey"], true);
    let new_pin = text(&renewed, "fingerprintSha256");
    wait_until("the gateway to take it", || gateway.console().contains(&new_pin).then_some(()));
    works(&by_key.health());
    let advice = refused(&by_certificate.health(), 12, &[&text(&before, "fingerprintSha256"), &new_pin]);
    by_certificate.types(&advice.expect("a remedy"));
    works(&by_certificate.health());

    let renewed = cert(&gateway, &["renew", "--new-key"]);
    assert_eq!(renewed["keptKey"], false);
    let (new_pin, new_key) = (text(&renewed, "fingerprintSha256"), text(&renewed, "keyFingerprint"));
    wait_until("the gateway to take it", || gateway.console().contains(&new_pin).then_some(()));
    for (laptop, shown) in [(&by_certificate, &new_pin), (&by_key, &new_key)] {
        let advice = refused(&laptop.health(), 12, &[shown]).expect("a remedy");
        laptop.types(&advice);
        works(&laptop.health());
    }
    // The first connection has lived through both.
    let lines = follower.stdout().lines().count();
    works(&by_key.health());
    wait_until("more of the log on the old connection", || {
        assert!(follower.ended().is_none(), "{}", follower.said());
        (follower.stdout().lines().count() > lines || follower.stdout().contains("renewed without a restart"))
            .then_some(())
    });
}

#[test]
fn p_88_trust_without_a_pin_is_the_systems_and_a_pin_needs_none() {
    let (authority, impostor) = (Authority::named("lab authority"), Authority::named("lab authority"));
    let trusted = TempDir::with_prefix("openclaw-trust-").expect("a temporary directory");
    let bundle = trusted.path().join("authorities.pem");
    fs::write(&bundle, &authority.certificate).expect("writes");
    let answer = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    for (what, identity, refusal) in [
        ("right name", authority.issue("127.0.0.1", (2020, 2090)), None),
        (
            "right authority, other name",
            authority.issue("gw.example.com", (2020, 2090)),
            Some("it is for another name"),
        ),
        ("expired", authority.issue("127.0.0.1", (2001, 2002)), Some("it has expired")),
        ("not valid yet", authority.issue("127.0.0.1", (2080, 2090)), Some("it is not valid yet")),
        ("another authority", Authority::named("other").issue("127.0.0.1", (2020, 2090)), Some("no authority known")),
        ("the name of the authority", impostor.issue("127.0.0.1", (2020, 2090)), Some("not signed by whom it names")),
        ("nobody's", Identity::of_itself("127.0.0.1"), Some("no authority known")),
    ] {
        let server = Server::tls(&identity, answer);
        let url = format!("wss://127.0.0.1:{}", server.port);
        let asks = |remote: Value| {
            let laptop = Laptop::new(remote);
            let finished = laptop.cli(&["gateway", "health", "--json"]).env("SSL_CERT_FILE", &bundle).run();
            let heads = wait_until("the end of the connection", || {
                let heads = server.heads();
                (heads.len() == server.connections()).then_some(heads)
            });
            (finished, heads.last().cloned().unwrap_or_default())
        };
        let (finished, came) = asks(json!({"url": url, "token": TOKEN}));
        match refusal {
            None => assert!(came.starts_with("GET / HTTP/1.1\r\n"), "{what}: {came:?} {finished:#?}"),
            Some(words) => {
                assert_eq!(came, "", "{what}: an application byte went to a stranger");
                refused(&finished, 12, &[words, &identity.pin()]);
            }
        }
        // The right pin, and the wrong one.
        for pin in [identity.pin(), identity.key_pin()] {
            let (finished, came) = asks(json!({"url": url, "token": TOKEN, "tlsFingerprint": pin}));
            assert!(came.starts_with("GET / HTTP/1.1\r\n"), "{what}: {came:?} {finished:#?}");
            refused(&finished, 13, &["HTTP 503"]);
        }
        let other = Identity::of_itself("127.0.0.1");
        for pin in [other.pin(), other.key_pin()] {
            let (finished, came) = asks(json!({"url": url, "token": TOKEN, "tlsFingerprint": pin}));
            assert_eq!(came, "", "{what}: an application byte went to a stranger");
            refused(&finished, 12, &[&pin]);
        }
        // Another certificate for the same key: only the pin of the key knows it.
        let renewed = identity.renewed("127.0.0.1");
        let server = Server::tls(&renewed, answer);
        let url = format!("wss://127.0.0.1:{}", server.port);
        for (pin, exit) in [(identity.key_pin(), 13), (identity.pin(), 12)] {
            let laptop = Laptop::new(json!({"url": url, "token": TOKEN, "tlsFingerprint": pin}));
            refused(&laptop.health(), exit, &[]);
        }
    }
}

#[test]
fn p_90_redirects_are_not_followed() {
    let identity = Identity::of_itself("127.0.0.1");
    let elsewhere = Server::plain("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let other = elsewhere.port;
    for status in
        ["301 Moved Permanently", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"]
    {
        for location in [
            format!("https://127.0.0.2:{other}/"),
            format!("wss://127.0.0.1:{other}/"),
            format!("ws://127.0.0.1:{other}/?token=carried"),
            format!("http://127.0.0.1:{other}/login#fragment"),
            "/elsewhere".to_owned(),
        ] {
            let answer =
                format!("HTTP/1.1 {status}\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            let server = Server::tls(&identity, &answer);
            let url = format!("wss://127.0.0.1:{}", server.port);
            let laptop = Laptop::new(json!({
                "url": url, "token": TOKEN, "tlsFingerprint": identity.pin(),
                "edgeAuth": {"CF-Access-Client-Secret": "the-edges-own-secret"},
            }));
            let finished = laptop.health();
            let shown = location.split(['?', '#']).next().expect("a location");
            refused(&finished, 13, &[&status[..3], shown, "redirects are not followed"]);
            assert!(!finished.stderr.contains("carried") && !finished.stderr.contains("the-edges-own-secret"));
            // The edge's header went to the configured URL, once, and nowhere else.
            let heads = server.heads();
            assert_eq!(heads.len(), 1, "{heads:?}");
            assert!(heads[0].to_lowercase().contains("cf-access-client-secret: the-edges-own-secret\r\n"), "{heads:?}");
            assert!(!heads[0].contains(TOKEN));
        }
    }
    assert_eq!(elsewhere.connections(), 0, "somebody followed");
}

#[test]
fn p_90_an_edge_is_authenticated_over_tls_only() {
    let server = Server::plain("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    let url = format!("ws://127.0.0.1:{}", server.port);
    let laptop = Laptop::new(json!({"url": url, "token": TOKEN, "edgeAuth": {"X-Edge": "the-edges-own-secret"}}));
    let finished = laptop.health();
    assert!(!finished.status.success(), "{finished:#?}");
    let heads = server.heads().join("");
    assert!(!heads.contains("the-edges-own-secret") && !heads.contains(TOKEN), "{heads}");
}

#[test]
fn a_url_that_lacks_an_s_is_told_so() {
    let gateway = tls_gateway();
    let pin = text(&cert(&gateway, &["show"]), "fingerprintSha256");
    let url = format!("ws://127.0.0.1:{}", gateway.port);
    let laptop = Laptop::new(json!({"url": url, "token": gateway.token()}));
    let advice = refused(&laptop.health(), 12, &["TLS is wanted there"]).expect("a remedy");
    assert_eq!(advice, format!("openclaw config set gateway.remote.url wss://127.0.0.1:{}", gateway.port));
    laptop.types(&advice);
    laptop.types(&format!("openclaw config set gateway.remote.tlsFingerprint {pin}"));
    works(&laptop.health());
    // And the other way round: a gateway without TLS on a private network.
    let plain = Setup::new().start();
    laptop.configure(json!({"url": format!("wss://127.0.0.1:{}", plain.port), "token": plain.token()}));
    let advice = refused(&laptop.health(), 12, &["does not speak TLS"]).expect("a remedy");
    laptop.types(&advice);
    works(&laptop.health());
    // A web server that sends plain requests to its HTTPS side.
    let front = Server::plain("HTTP/1.1 301 Moved\r\nLocation: https://127.0.0.1/\r\nContent-Length: 0\r\n\r\n");
    laptop.configure(json!({"url": format!("ws://127.0.0.1:{}", front.port), "token": TOKEN}));
    let advice = refused(&laptop.health(), 12, &["TLS is wanted there"]);
    assert_eq!(advice.as_deref(), Some("openclaw config set gateway.remote.url wss://127.0.0.1"));
}

#[test]
fn the_gateway_of_this_machine_is_known_by_its_file() {
    let gateway = tls_gateway();
    let port = gateway.port.to_string();
    // The token makes it go by TCP rather than over the owner's socket.
    let health =
        |port: &str| gateway.setup.run(&["gateway", "health", "--json", "--port", port, "--token", gateway.token()]);
    works(&health(&port));
    let status = gateway.setup.run(&["gateway", "status", "--json", "--port", &port]);
    assert_eq!(status.json()["rpc"]["ok"], true, "{status:#?}");
    assert!(status.stdout.contains(&format!("wss://127.0.0.1:{port}")), "{status:#?}");
    let dashboard = gateway.setup.run(&["dashboard", "--no-open", "--json"]);
    assert!(text(&dashboard.json(), "httpUrl").starts_with("https://127.0.0.1:"), "{dashboard:#?}");
    // Somebody else on the port is not taken for it.
    let stranger = Server::tls(&Identity::of_itself("127.0.0.1"), "");
    let finished = health(&stranger.port.to_string());
    let advice = refused(&finished, 12, &["key-sha256:"]);
    assert_eq!(advice.as_deref(), Some("openclaw gateway status"));
    assert!(stranger.heads().iter().all(String::is_empty), "{:?}", stranger.heads());
}

#[test]
fn proxies_of_the_environment() {
    let gateway = tls_gateway();
    let pin = text(&cert(&gateway, &["show"]), "fingerprintSha256");
    // A name only the proxy can resolve, and one a gateway answers to.
    let url = format!("wss://gw.internal:{}", gateway.port);
    let laptop = Laptop::new(json!({"url": url, "token": gateway.token(), "tlsFingerprint": pin}));
    // "proxy-secret" in base64, as `printf 'me:proxy-secret' | base64` prints it.
    let proxy = ConnectProxy::to(gateway.port, Some("Basic bWU6cHJveHktc2VjcmV0"));
    let address = format!("http://me:proxy-secret@127.0.0.1:{}", proxy.port);
    let with = |variables: &[(&str, &str)]| {
        let launch = laptop.cli(&["gateway", "health", "--json"]);
        variables.iter().fold(launch, |launch, (name, value)| launch.env(name, *value)).run()
    };
    for name in ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        works(&with(&[(name, &address)]));
    }
    let heads = proxy.heads();
    assert_eq!(heads.len(), 4, "{heads:?}");
    assert!(heads.iter().all(|head| head.starts_with(&format!("CONNECT gw.internal:{} HTTP/1.1\r\n", gateway.port))));
    assert!(heads.iter().all(|head| !head.contains(gateway.token())));

    // Around it: no such name here.
    for variables in [
        &[("HTTP_PROXY", address.as_str())][..],
        &[("HTTPS_PROXY", &address), ("NO_PROXY", "gw.internal")],
        &[("HTTPS_PROXY", &address), ("no_proxy", "*")],
        &[],
    ] {
        refused(&with(variables), 10, &["gw.internal could not be resolved"]);
    }
    // P-92: files name no proxy.
    for file in [laptop.home.path().join(".env"), laptop.home.path().join("state/.env")] {
        fs::write(&file, format!("HTTPS_PROXY={address}\nhttps_proxy={address}\nALL_PROXY={address}\n"))
            .expect("writes");
        refused(&with(&[]), 10, &["gw.internal could not be resolved"]);
        fs::remove_file(&file).expect("removes");
    }
    assert_eq!(proxy.heads().len(), 4);

    // Refused logins; the password is in no message.
    let bare = format!("http://127.0.0.1:{}", proxy.port);
    let wrong = format!("http://me:wrong-secret@127.0.0.1:{}", proxy.port);
    for (address, words) in [(&bare, "it wants a user name and a password"), (&wrong, "it does not take the user name")]
    {
        let finished = with(&[("HTTPS_PROXY", address)]);
        let advice = refused(&finished, 20, &[&bare, "gw.internal", words]).expect("a remedy");
        assert!(advice.starts_with("export https_proxy=http://<user>:<password>@127.0.0.1:"), "{advice}");
        assert!(!format!("{finished:?}").contains("wrong-secret"), "{finished:#?}");
    }
    let nobody = with(&[("HTTPS_PROXY", "http://127.0.0.1:9")]);
    let advice = refused(&nobody, 20, &["http://127.0.0.1:9", "it cannot be reached"]);
    assert_eq!(advice.as_deref(), Some("export NO_PROXY=\"${NO_PROXY:+$NO_PROXY,}gw.internal\""));
    refused(&with(&[("ALL_PROXY", "socks5://127.0.0.1:9")]), 20, &["socks5", "only http:// and https://"]);

    // Loopback is never proxied, whatever is set.
    laptop.configure(json!({
        "url": format!("wss://127.0.0.1:{}", gateway.port), "token": gateway.token(), "tlsFingerprint": pin,
    }));
    works(&with(&[("HTTPS_PROXY", "http://127.0.0.1:9"), ("ALL_PROXY", "http://127.0.0.1:9")]));
    assert_eq!(proxy.heads().len(), 6);
}

#[test]
fn files_that_cannot_be_served_stop_the_start() {
    let enabled = |more: Value| {
        let mut tls = json!({"enabled": true});
        tls.as_object_mut().expect("object").extend(more.as_object().expect("object").clone());
        Setup::new().config(json!({"gateway": {"tls": tls}}))
    };
    let refusal = |setup: Setup, words: &[&str]| {
        let failure = setup.refused();
        assert_eq!(failure.status.code(), Some(78), "{}", failure.console);
        words.iter().for_each(|word| assert!(failure.console.contains(word), "{word:?}: {}", failure.console));
    };
    refusal(enabled(json!({"autoGenerate": false})), &["gateway.tls.autoGenerate is false", "openclaw config set"]);
    let dir = TempDir::with_prefix("openclaw-pair-").expect("a temporary directory");
    let (one, two) = (Identity::of_itself("localhost"), Identity::of_itself("localhost"));
    let path = |name: &str| dir.path().join(name).display().to_string();
    fs::write(path("one.pem"), &one.certificate).expect("writes");
    fs::write(path("two.key"), &two.key).expect("writes");
    fs::write(path("one.key"), &one.key).expect("writes");
    let pair = |key: &str| enabled(json!({"certPath": path("one.pem"), "keyPath": path(key)}));
    refusal(pair("none.key"), &["none.key", "is missing although", "mv '"]);
    refusal(pair("two.key"), &["does not belong to the certificate"]);
    refusal(pair("one.pem"), &["holds no private key"]);
    assert!(!Path::new(&path("none.key")).exists());
    // A pair somebody brought is shown as it is, and is not the gateway's to renew.
    let gateway = pair("one.key").start();
    assert_eq!(text(&cert(&gateway, &["show"]), "fingerprintSha256"), one.pin());
    let done = gateway.setup.run(&["gateway", "cert", "renew"]);
    assert!(!done.status.success() && done.stderr.contains("issued by somebody else"), "{done:#?}");
}

type Socket = WebSocket<StreamOwned<ClientConnection, TcpStream>>;

/// What a page of this origin is told when it connects.
fn answer_to_a_page(gateway: &Sandbox, origin: &str) -> Value {
    let certificate = gateway.state_dir().join("gateway/tls/gateway-cert.pem");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).expect("its certificate")).expect("a root");
    let config = ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(("127.0.0.1", gateway.port)).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let session = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").expect("a name"));
    let stream = StreamOwned::new(session.expect("a session"), stream);
    let mut request = format!("wss://localhost:{}/", gateway.port).into_client_request().expect("a request");
    request.headers_mut().insert("origin", origin.parse().expect("a header"));
    let (mut socket, _): (Socket, _) = tungstenite::client(request, stream).expect("upgrades");
    let connect = json!({"type": "req", "id": "connect", "method": "connect", "params": {
        "minProtocol": 4, "maxProtocol": 4, "role": "operator", "scopes": ["operator.admin"], "caps": [],
        "client": {"id": "openclaw-control-ui", "mode": "webchat", "version": "lab", "platform": "web"},
        "auth": {"token": gateway.token()},
    }});
    socket.send(Message::text(connect.to_string())).expect("sends");
    loop {
        if let Message::Text(text) = socket.read().expect("a frame") {
            let frame: Value = serde_json::from_str(&text).expect("JSON");
            if frame["id"] == "connect" {
                return frame;
            }
        }
    }
}

#[test]
fn the_origin_of_a_tls_gateway_is_https() {
    let gateway = tls_gateway();
    let word = |origin: &str| {
        let answer = answer_to_a_page(&gateway, origin);
        answer["error"]["details"]["code"].as_str().unwrap_or("none").to_owned()
    };
    let own = format!("localhost:{}", gateway.port);
    assert_eq!(word(&format!("http://{own}")), "CONTROL_UI_ORIGIN_NOT_ALLOWED");
    // Its own page gets past that, and is asked for a device.
    assert_ne!(word(&format!("https://{own}")), "CONTROL_UI_ORIGIN_NOT_ALLOWED");
}
