//! The tool against servers on loopback, with names that lead where the test says.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::message::{Message, Role};

/// A server that answers every request with one text, and keeps what was asked.
struct Server {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn new(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (kept, answer) = (Arc::clone(&requests), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let mut byte = [0];
                        if socket.read_exact(&mut byte).await.is_err() {
                            return;
                        }
                        head.push(byte[0]);
                    }
                    let head = String::from_utf8(head).unwrap();
                    let bytes = answer(&head);
                    kept.lock().unwrap().push(head);
                    let _ = socket.write_all(&bytes).await;
                });
            }
        });
        Self { port, requests }
    }

    async fn page(content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self::new(move |_| response("200 OK", &format!("Content-Type: {content_type}\r\n"), &body)).await
    }

    async fn redirect(to: String) -> Self {
        Self::new(move |_| response("302 Found", &format!("Location: {to}\r\n"), b"")).await
    }

    fn url(&self, host: &str) -> String {
        format!("http://{host}:{}/", self.port)
    }

    fn asked(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

fn response(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len())
        .into_bytes();
    out.extend_from_slice(body);
    out
}

/// Every name is on this machine.
fn here() -> gate::Lookup {
    Arc::new(|_| Box::pin(async { Ok(vec!["127.0.0.1".parse().unwrap()]) }))
}

fn allowing(hosts: &[&str]) -> Settings {
    let allowed = hosts.iter().map(|host| (*host).to_owned()).collect();
    Settings { policy: Policy { allowed, ..Policy::default() }, ..Settings::default() }
}

async fn fetch(settings: Settings, arguments: serde_json::Value) -> (bool, String) {
    let answer = call(&Arc::new(Fetch::new(settings, here())), arguments).await;
    (!answer.is_error, Message { role: Role::Tool, parts: answer.content }.text())
}

async fn call(fetch: &Arc<Fetch>, arguments: serde_json::Value) -> Answer {
    let (progress, _) = mpsc::channel(1);
    let call = Call { id: "1".to_owned(), arguments, cancel: CancellationToken::new(), progress };
    Arc::clone(fetch).call(call).await
}

async fn get(settings: Settings, url: &str) -> (bool, String) {
    fetch(settings, json!({"url": url})).await
}

#[tokio::test]
async fn a_page_comes_as_text() {
    let html = "<html><head><title>Hi</title></head><body><h1>A</h1><p>b <a href='/c'>c</a></p><script>x</script></body></html>";
    let server = Server::page("text/html; charset=utf-8", html).await;
    let fetch = Arc::new(Fetch::new(allowing(&["site.test"]), here()));
    let url = server.url("site.test");
    let answer = call(&fetch, json!({"url": format!("{url}#part")})).await;
    let Part::Text(text) = &answer.content[0] else { panic!() };
    assert_eq!(*text, format!("{url} (200, text/html; charset=utf-8)\nTitle: Hi\n\n# A\n\nb [c](/c)"));
    let details = answer.details.unwrap();
    assert_eq!((&details["status"], &details["title"], &details["cached"]), (&json!(200), &json!("Hi"), &json!(false)));
    let request = server.requests.lock().unwrap()[0].to_lowercase();
    assert!(request.starts_with("get / http/1.1\r\n") && request.contains("user-agent: mozilla/5.0"), "{request}");
    for absent in ["cookie", "authorization", "referer", "accept-encoding", "origin"] {
        assert!(!request.contains(absent), "{request}");
    }
    // A second time from memory, unless it is written differently.
    assert_eq!(call(&fetch, json!({"url": url})).await.details.unwrap()["cached"], true);
    assert_eq!(call(&fetch, json!({"url": url, "extractMode": "text"})).await.details.unwrap()["cached"], false);
    assert_eq!(server.asked(), 2);
}

#[tokio::test]
async fn p_91_this_machine_is_not_reached_by_any_name() {
    let server = Server::page("text/plain", "secret").await;
    for host in [
        "127.0.0.1",
        "localhost",
        "127.1",
        "2130706433",
        "0x7f000001",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "evil.test",
        "localhost.",
        "0",
        "0.0.0.0",
    ] {
        let (done, text) = get(Settings::default(), &server.url(host)).await;
        assert!(
            !done && (text.contains("this machine") || text.contains("disguise") || text.contains("no address")),
            "{host}: {text}"
        );
    }
    assert_eq!(server.asked(), 0);
}

#[tokio::test]
async fn p_91_redirects_are_judged_like_the_first_url() {
    let inside = Server::page("text/plain", "secret").await;
    for target in [
        inside.url("127.0.0.1"),
        inside.url("localhost"),
        inside.url("other.test"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "//127.0.0.1/".to_owned(),
        "file:///etc/passwd".to_owned(),
        "http://user:pass@site.test/".to_owned(),
        "http://[::1".to_owned(),
    ] {
        let outside = Server::redirect(target.clone()).await;
        let (done, text) = get(allowing(&["site.test"]), &outside.url("site.test")).await;
        assert!(!done && !text.contains("secret"), "{target}: {text}");
        assert_eq!(outside.asked(), 1);
    }
    assert_eq!(inside.asked(), 0);
    // Where both are allowed it is followed, and the owner's header stays with the first.
    let outside = Server::redirect(inside.url("other.test")).await;
    let mut settings = allowing(&["site.test", "other.test"]);
    settings.headers.insert("x-target", HeaderValue::from_static("blue"));
    let (done, text) = get(settings, &outside.url("site.test")).await;
    assert!(done && text.ends_with("secret"), "{text}");
    assert!(outside.requests.lock().unwrap()[0].contains("x-target: blue"));
    assert!(!inside.requests.lock().unwrap()[0].contains("x-target"));
}

#[tokio::test]
async fn redirects_end_somewhere() {
    let server = Server::redirect("/again".to_owned()).await;
    let (done, text) = get(allowing(&["site.test"]), &server.url("site.test")).await;
    assert!(!done && text.contains("on and on; 3 redirects"), "{text}");
    assert_eq!(server.asked(), 4);
}

#[tokio::test]
async fn p_91_a_name_that_changes_its_mind_gains_nothing() {
    let server = Server::page("text/plain", "secret").await;
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    // Public when it is looked up first, this machine the second time.
    let lookup: gate::Lookup = Arc::new(move |_| {
        let first = count.fetch_add(1, Ordering::SeqCst) == 0;
        Box::pin(async move { Ok(vec![if first { "203.0.112.1" } else { "127.0.0.1" }.parse().unwrap()]) })
    });
    let settings = Settings { timeout: Duration::from_millis(300), ..Settings::default() };
    let fetch = Arc::new(Fetch::new(settings, lookup));
    let answer = call(&fetch, json!({"url": server.url("rebind.test")})).await;
    assert!(answer.is_error);
    // One lookup per connection: what was judged is what was dialled.
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    let again = call(&fetch, json!({"url": server.url("rebind.test")})).await;
    assert!(format!("{again:?}").contains("this machine"), "{again:?}");
    assert_eq!(server.asked(), 0);
    // One address inside spoils all.
    let both: gate::Lookup =
        Arc::new(|_| Box::pin(async { Ok(vec!["1.1.1.1".parse().unwrap(), "127.0.0.1".parse().unwrap()]) }));
    let answer = call(&Arc::new(Fetch::new(Settings::default(), both)), json!({"url": server.url("both.test")})).await;
    assert!(format!("{answer:?}").contains("this machine"), "{answer:?}");
}

#[tokio::test]
async fn urls_that_are_none_of_our_business() {
    for (url, word) in [
        ("file:///etc/passwd", "only http and https"),
        ("ftp://example.com/", "only http and https"),
        ("data:text/html,hi", "only http and https"),
        ("gopher://127.0.0.1:6379/_FLUSHALL", "only http and https"),
        ("example.com", "is no URL"),
        ("", "is no URL"),
        ("http://", "is no URL"),
        ("http://user@example.com/", "holds credentials"),
        ("http://:pass@example.com/", "holds credentials"),
        ("http://169.254.169.254/latest/meta-data/", "metadata"),
        ("http://10.0.0.1\r\nHost: x/", "is no URL"),
        (&format!("http://example.com/{}", "x".repeat(9_000)), "longer than"),
    ] {
        let (done, text) = get(Settings::default(), url).await;
        assert!(!done && text.contains(word), "{url}: {text}");
    }
    let blocked = Settings {
        policy: Policy { private: true, blocked: vec!["*.test".to_owned()], ..Policy::default() },
        ..Settings::default()
    };
    let (_, text) = get(blocked, "http://site.test/").await;
    assert!(text.contains("the owner has blocked"), "{text}");
}

#[tokio::test]
async fn size_and_time_are_bounded() {
    let server = Server::page("text/plain", "x".repeat(2_000_000)).await;
    let settings = Settings { max_response_bytes: 32_000, ..allowing(&["site.test"]) };
    let fetch = Arc::new(Fetch::new(settings, here()));
    let url = server.url("site.test");
    let answer = call(&fetch, json!({"url": url, "maxChars": 500})).await;
    let Part::Text(text) = &answer.content[0] else { panic!() };
    assert!(text.len() < 800 && text.contains("left out") && text.contains("goes on"), "{text}");
    let details = answer.details.unwrap();
    assert_eq!((&details["truncated"], &details["length"]), (&json!(true), &json!(32_000)));
    // More than the cap cannot be asked for.
    let answer = call(&fetch, json!({"url": url, "maxChars": 9_000_000})).await;
    let Part::Text(text) = &answer.content[0] else { panic!() };
    assert!(text.len() < 20_300, "{}", text.len());

    // A server that says nothing, and one that never ends.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let settings = Settings { timeout: Duration::from_millis(200), ..allowing(&["site.test"]) };
    let (done, text) = get(settings, &format!("http://site.test:{port}/")).await;
    assert!(!done && text.contains("did not answer within"), "{text}");
}

#[tokio::test]
async fn kinds_of_content() {
    let check = async |content_type: &'static str, body: &[u8], expected: Result<&str, &str>| {
        let server = Server::page(content_type, body).await;
        let (done, text) = get(allowing(&["site.test"]), &server.url("site.test")).await;
        match expected {
            Ok(end) => assert!(done && text.ends_with(end), "{content_type}: {text}"),
            Err(word) => assert!(!done && text.contains(word), "{content_type}: {text}"),
        }
    };
    check("application/json", b"{\"a\":1}", Ok("{\"a\":1}")).await;
    check("application/feed+json", b"{}", Ok("{}")).await;
    check("text/markdown", b"# A", Ok("# A")).await;
    check("", b"plain", Ok("plain")).await;
    check("", b"<!DOCTYPE html><HTML><p>x", Ok("\n\nx")).await;
    check("text/html; charset=iso-8859-1", b"<p>caf\xe9 \x80", Ok("café €")).await;
    check("text/html", b"<meta charset=\"windows-1252\"><p>caf\xe9", Ok("café")).await;
    check("text/html", "\u{feff}<p>ü".as_bytes(), Ok("ü")).await;
    check("text/html", b"<p>\xff\xfe broken", Ok("broken")).await;
    check("text/html", b"<script>draw()</script>", Ok("with scripts)")).await;
    check("application/pdf", b"%PDF-1.7", Err("cannot be read as text")).await;
    check("application/octet-stream", b"MZ\0\0", Err("cannot be read as text")).await;

    let server = Server::page("image/png", vec![0x89, b'P']).await;
    let answer =
        call(&Arc::new(Fetch::new(allowing(&["site.test"]), here())), json!({"url": server.url("site.test")})).await;
    assert!(matches!(&answer.content[1], Part::Image { mime, data } if mime == "image/png" && data.len() == 2));

    let server = Server::new(|_| response("404 Not Found", "Content-Type: text/html\r\n", b"<p>nothing here")).await;
    let (done, text) = get(allowing(&["site.test"]), &server.url("site.test")).await;
    assert!(!done && text.contains("(404,") && text.ends_with("nothing here"), "{text}");
}

#[tokio::test]
async fn it_stops_when_told_and_can_be_switched_off() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://site.test:{}/", silent.local_addr().unwrap().port());
    let cancel = CancellationToken::new();
    let (progress, _) = mpsc::channel(1);
    let call = Call { id: "1".to_owned(), arguments: json!({"url": url}), cancel: cancel.clone(), progress };
    let running = tokio::spawn(Arc::new(Fetch::new(allowing(&["site.test"]), here())).call(call));
    let (_socket, _) = silent.accept().await.unwrap();
    cancel.cancel();
    assert!(running.await.unwrap().is_error);
    assert!(tool(Settings { enabled: false, ..Settings::default() }).is_none());
    assert_eq!(tool(Settings::default()).unwrap().spec().name, "web_fetch");
}
