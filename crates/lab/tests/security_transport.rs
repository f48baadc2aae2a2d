//! HTTP, files, transport: P-62 to P-75.

use std::time::{Duration, Instant};

use lab::{
    client::{Client, new_device},
    sandbox::{Bystander, Sandbox, Setup, walk},
    wire::{Address, Conn, Frame, OMIT, PATIENCE, Reply, frame},
};
use openclaw_protocol::limits;
use serde_json::{Value, json};

/// Sends bytes and reads the answer, if there is one.
fn raw(address: &Address, bytes: &[u8]) -> Option<Reply> {
    let mut conn = Conn::open(address);
    // The answer may come before everything was sent.
    let _ = conn.try_send(bytes);
    conn.reply(false)
}

#[test]
fn p_62_unknown_upgrades() {
    let g = Setup::new().start();
    let status = |headers: &[(&str, &str)]| match Conn::open(&g.address()).upgrade(headers) {
        Ok(_) => 101,
        Err(reply) => reply.status,
    };
    for (headers, expected) in [
        (&[("Upgrade", "h2c")][..], &[400, 426][..]),
        (&[("Upgrade", "websocket, h2c")], &[400, 426]),
        (&[("Upgrade", "tcp")], &[400, 426]),
        (&[("Upgrade", "")], &[400, 426]),
        (&[("Connection", "keep-alive")], &[400, 426]),
        (&[("Connection", OMIT)], &[400, 426]),
        (&[("Sec-WebSocket-Version", "12")], &[400, 426]),
        (&[("Sec-WebSocket-Version", "14")], &[400, 426]),
        (&[("Sec-WebSocket-Version", OMIT)], &[400, 426]),
        (&[("Sec-WebSocket-Key", OMIT)], &[400]),
        (&[("Sec-WebSocket-Key", "")], &[400]),
        (&[("Sec-WebSocket-Key", "short")], &[400]),
        (&[("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")], &[400]),
        (&[("Sec-WebSocket-Key", "????????????????????????")], &[400]),
        (
            &[("Sec-WebSocket-Key", "13eee9DHMIOHW+3mhsLdoQ=="), ("Sec-WebSocket-Key", "13eee9DHMIOHW+3mhsLdoQ==")],
            &[400],
        ),
    ] {
        let got = status(headers);
        assert!(expected.contains(&got), "{headers:?}: {got}");
    }
    let unsupported = Conn::open(&g.address()).upgrade(&[("Sec-WebSocket-Version", "12")]).expect_err("refused");
    assert_eq!(unsupported.header("sec-websocket-version"), Some("13"), "says what it speaks");
    for path in ["/nope", "/__openclaw__/worker", "/health", "//", "/?token=x"] {
        let headers = [
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "13eee9DHMIOHW+3mhsLdoQ=="),
        ];
        let got = Conn::open(&g.address()).get(path, &headers).status;
        // A query changes nothing about the path, and no credential is read from it.
        assert_eq!(got, if path.starts_with("/?") { 101 } else { 404 }, "{path}");
    }
    // What is offered beside is neither refused nor accepted.
    let offers = [
        ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits, x-unknown"),
        ("Sec-WebSocket-Protocol", "openclaw, graphql-ws"),
    ];
    let mut conn = Conn::open(&g.address());
    let reply = conn.upgrade(&offers).expect("101");
    assert_eq!(reply.header("sec-websocket-accept"), Some("J6/KZx49DmP+K8yWKwDCudncXKE="), "captured from 2026.9.6");
    assert_eq!((reply.header("sec-websocket-extensions"), reply.header("sec-websocket-protocol")), (None, None));
    assert!(matches!(conn.message(), Frame::Text(text) if text.contains("connect.challenge")));
    conn.send(&frame(0xc1, b"x"));
    assert_eq!(conn.closing().map(|(code, _)| code), Some(1002), "no compression was negotiated");
}

#[test]
fn p_63_traversal() {
    let g = Setup::new().start();
    let canary = "lab-canary-outside-the-root";
    std::fs::write(g.dir().join("outside.txt"), canary).expect("writes");
    std::fs::write(g.state_dir().join("inside.txt"), canary).expect("writes");
    let state = g.state_dir().display().to_string();
    let absolute = format!("{}/outside.txt", g.dir().display());
    let targets = ["openclaw.json", "gateway.lock", "inside.txt", "../outside.txt", "state/openclaw-rs.sqlite"];
    let mut paths: Vec<String> = vec![
        state.clone(),
        absolute.clone(),
        format!("/{absolute}"),
        format!("/assets/{absolute}"),
        "/..".into(),
        "/../..".into(),
        "/CON".into(),
        "/aux.txt".into(),
        "/NUL".into(),
        "/C:/windows/win.ini".into(),
        "/\\\\host\\share".into(),
        "/assets/%00".into(),
        "/%00".into(),
        "/.%00./".into(),
        "/assets/..;/openclaw.json".into(),
        "http://127.0.0.1/openclaw.json".into(),
        "*".into(),
    ];
    for prefix in ["/", "/assets/", "/avatar/", "/api/", "/__openclaw__/canvas/"] {
        for dots in
            ["..", "%2e%2e", "%252e%252e", "..%2f", "..%5c", "..\\", "%c0%ae%c0%ae", "%e0%80%ae", "....//", ".;"]
        {
            for target in targets {
                paths.push(format!("{prefix}{dots}/{target}"));
                paths.push(format!("{prefix}{dots}/{dots}/{dots}/{target}"));
            }
        }
    }
    for path in &paths {
        let bytes = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\r\n", g.port);
        let Some(reply) = raw(&g.address(), bytes.as_bytes()) else { continue };
        assert!([400, 404, 421].contains(&reply.status), "{path}: {}", reply.status);
        let body = reply.text();
        assert!(!body.contains(canary) && !body.contains("\"auth\"") && !body.contains("SQLite"), "{path}: {body}");
        // Nor is the path itself given back for a browser to run.
        assert!(body.len() < 200, "{path}: {body}");
    }
}

#[test]
fn p_64_identifier_as_path() {
    let g = Setup::new().start();
    let files = |g: &Sandbox| {
        let mut list: Vec<_> = walk(g.dir()).into_iter().map(|path| path.display().to_string()).collect();
        list.retain(|path| !path.ends_with("-wal") && !path.ends_with("-shm") && !path.ends_with(".log"));
        list.sort();
        list
    };
    let before = files(&g);
    let mut admin = g.admin();
    let ids = [
        "../../evil",
        "/etc/passwd",
        "..",
        ".",
        "a/b",
        "a\\b",
        "a\u{0}b",
        "\u{0}",
        "%2e%2e%2f",
        "CON",
        "nul.txt",
        "~",
        "~root",
        "$(touch evil)",
        "`touch evil`",
        "a;b",
        "e\u{301}",
        "\u{e9}",
        "\u{202e}evil",
        &"x".repeat(4_096),
        "",
    ];
    for id in ids {
        for (method, field) in [
            ("device.pair.approve", "requestId"),
            ("device.pair.reject", "requestId"),
            ("device.pair.remove", "deviceId"),
            ("device.pair.rename", "deviceId"),
            ("device.token.rotate", "deviceId"),
            ("device.token.revoke", "deviceId"),
            ("node.describe", "nodeId"),
            ("node.pair.approve", "requestId"),
            ("node.pair.remove", "nodeId"),
            ("node.rename", "nodeId"),
            ("node.invoke", "nodeId"),
            ("config.schema.lookup", "path"),
        ] {
            let mut params =
                json!({"role": "operator", "label": "x", "displayName": "x", "command": "x", "idempotencyKey": "k"});
            params[field] = json!(id);
            if method == "config.schema.lookup" {
                // A path into the schema, not into a file system; what it does not know it refuses.
                assert!(admin.call(method, params).is_err() || id.is_empty() || id == ".", "{method} {id:?}");
                continue;
            }
            admin.err(method, params);
        }
        // As the name of a device, it is only a name.
        let named = g.with_token().set("/client/displayName", id).set("/client/instanceId", id).device(&new_device());
        assert_eq!(named.word(), "hello [operator.read]");
    }
    assert_eq!(files(&g), before, "an identifier became a file");
}

#[test]
fn p_65_smuggling() {
    let g = Setup::new().start();
    let host = format!("Host: 127.0.0.1:{}\r\n", g.port);
    let hidden = "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
    let cases: Vec<(&str, String)> = vec![
        (
            "length and chunks",
            format!(
                "POST / HTTP/1.1\r\n{host}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
            ),
        ),
        (
            "chunks and length",
            format!(
                "POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n{hidden}"
            ),
        ),
        ("two lengths", format!("POST / HTTP/1.1\r\n{host}Content-Length: 0\r\nContent-Length: 5\r\n\r\n{hidden}")),
        (
            "two equal lengths",
            format!("POST / HTTP/1.1\r\n{host}Content-Length: 0\r\nContent-Length: 0\r\n\r\n{hidden}"),
        ),
        ("a list of lengths", format!("POST / HTTP/1.1\r\n{host}Content-Length: 0, 5\r\n\r\n{hidden}")),
        ("a length with a plus", format!("POST / HTTP/1.1\r\n{host}Content-Length: +0\r\n\r\n{hidden}")),
        ("a length with a blank", format!("POST / HTTP/1.1\r\n{host}Content-Length: 0 0\r\n\r\n{hidden}")),
        ("a negative length", format!("POST / HTTP/1.1\r\n{host}Content-Length: -1\r\n\r\n{hidden}")),
        ("a hexadecimal length", format!("POST / HTTP/1.1\r\n{host}Content-Length: 0x0\r\n\r\n{hidden}")),
        ("folded coding", format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n{hidden}")),
        ("unknown coding", format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{hidden}")),
        (
            "coding twice",
            format!(
                "POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n{hidden}"
            ),
        ),
        (
            "chunked in HTTP/1.0",
            format!("POST / HTTP/1.0\r\n{host}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        ("bare line feeds", format!("GET / HTTP/1.1\n{}\n{hidden}", host.replace('\r', ""))),
        ("one bare line feed", format!("GET / HTTP/1.1\r\n{host}X: a\nY: b\r\n\r\n{hidden}")),
        ("a bare carriage return", format!("GET / HTTP/1.1\r\n{host}X: a\rY: b\r\n\r\n{hidden}")),
        ("two hosts", format!("GET / HTTP/1.1\r\n{host}Host: evil.example\r\n\r\n{hidden}")),
        ("no host", format!("GET / HTTP/1.1\r\nX: y\r\n\r\n{hidden}")),
        ("a blank before the colon", format!("GET / HTTP/1.1\r\n{host}Content-Length : 5\r\n\r\n{hidden}")),
        ("a blank before the name", format!("GET / HTTP/1.1\r\n{host} Content-Length: 5\r\n\r\n{hidden}")),
        ("a NUL in a header", format!("GET / HTTP/1.1\r\n{host}X: a\0b\r\n\r\n{hidden}")),
        ("an odd version", format!("GET / HTTP/3.7\r\n{host}\r\n{hidden}")),
        ("no version", format!("GET /\r\n{host}\r\n{hidden}")),
        ("a blank in the target", format!("GET / evil HTTP/1.1\r\n{host}\r\n{hidden}")),
    ];
    for (name, bytes) in cases {
        let mut conn = Conn::open(&g.address());
        let _ = conn.try_send(bytes.as_bytes());
        if let Some(reply) = conn.reply(false) {
            assert!([400, 411, 421, 505].contains(&reply.status), "{name}: {}", reply.status);
        }
        let rest = String::from_utf8_lossy(&conn.drain()).into_owned();
        assert!(rest.is_empty(), "{name}: the connection went on: {rest}");
    }
    // What is allowed goes on.
    let mut conn = Conn::open(&g.address());
    assert_eq!((conn.get("/healthz", &[]).status, conn.get("/healthz", &[]).status), (200, 200));
}

#[test]
fn p_66_slow_headers_and_slow_body() {
    let g = Setup::new().start();
    let bystander = Bystander::start(&g);
    let began = Instant::now();
    let feed = |start: String, every: Duration| {
        let mut conn = Conn::open(&g.address());
        conn.send(start.as_bytes());
        conn.set_patience(every);
        std::thread::spawn(move || {
            let mut sink = Vec::new();
            while began.elapsed() < Duration::from_secs(20) {
                if conn.try_send(b"a").is_err() || conn.read_available(&mut sink) == Some(0) {
                    return began.elapsed();
                }
            }
            panic!("still open after {:?}", began.elapsed());
        })
    };
    let head = format!("Host: 127.0.0.1:{}\r\n", g.port);
    let slow = [
        ("request line", feed("GE".into(), Duration::from_secs(1))),
        ("headers", feed(format!("GET / HTTP/1.1\r\n{head}X: "), Duration::from_secs(1))),
        ("body", feed(format!("POST / HTTP/1.1\r\n{head}Content-Length: 100\r\n\r\n"), Duration::from_secs(5))),
        (
            "chunks",
            feed(format!("POST / HTTP/1.1\r\n{head}Transfer-Encoding: chunked\r\n\r\n1\r\n"), Duration::from_secs(5)),
        ),
    ];
    for (name, thread) in slow {
        let lasted = thread.join().expect("fed");
        assert!(lasted <= Duration::from_millis(15_500), "{name}: {lasted:?}");
    }
    bystander.finish();
}

#[test]
fn p_67_header_bombs() {
    let g = Setup::new().start();
    let host = format!("Host: 127.0.0.1:{}\r\n", g.port);
    let many: String = (0..1_000).map(|n| format!("X-{n}: y\r\n")).collect();
    let long = "x".repeat(40 * 1024);
    let path = "y".repeat(64 * 1024);
    let used = g.cpu_seconds();
    for (name, bytes) in [
        ("a long header", format!("GET / HTTP/1.1\r\n{host}X: {long}\r\n\r\n")),
        ("a long header name", format!("GET / HTTP/1.1\r\n{host}{long}: x\r\n\r\n")),
        ("a thousand headers", format!("GET / HTTP/1.1\r\n{host}{many}\r\n")),
        ("a long path", format!("GET /{path} HTTP/1.1\r\n{host}\r\n")),
        ("a long query", format!("GET /?{path} HTTP/1.1\r\n{host}\r\n")),
        ("a long method", format!("{long} / HTTP/1.1\r\n{host}\r\n")),
    ] {
        let mut conn = Conn::open(&g.address());
        let _ = conn.try_send(bytes.as_bytes());
        if let Some(reply) = conn.reply(false) {
            assert!([400, 414, 431].contains(&reply.status), "{name}: {}", reply.status);
        }
        assert_eq!(conn.drain(), b"", "{name}: the connection went on");
    }
    for _ in 0..50 {
        let _ = raw(&g.address(), format!("GET / HTTP/1.1\r\n{host}{many}\r\n").as_bytes());
    }
    let used = g.cpu_seconds() - used;
    assert!(used < 2.0, "{used} s of CPU time");
    assert_eq!(Conn::open(&g.address()).get("/healthz", &[]).status, 200);
}

#[test]
fn p_68_body_limits() {
    let g = Setup::new().start();
    let host = format!("Host: 127.0.0.1:{}\r\n", g.port);
    let bomb = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xed, 0xc1, 1, 1, 0, 0];
    for path in ["/", "/tools/invoke", "/v1/chat/completions", "/hooks/wake", "/healthz"] {
        let began = Instant::now();
        for head in [
            "Content-Length: 10737418240\r\n".to_owned(),
            "Content-Length: 18446744073709551615\r\n".to_owned(),
            "Content-Length: 10737418240\r\nExpect: 100-continue\r\n".to_owned(),
            format!("Content-Length: {}\r\nContent-Encoding: gzip\r\n", bomb.len()),
        ] {
            let mut conn = Conn::open(&g.address());
            let _ = conn.try_send(format!("POST {path} HTTP/1.1\r\n{host}{head}\r\n").as_bytes());
            let _ = conn.try_send(&bomb);
            let reply = conn.reply(false).expect("an answer before the body");
            assert!((400..500).contains(&reply.status), "{path} {head}: {}", reply.status);
            assert_eq!(conn.drain(), b"", "{path}: a body is not waited for");
        }
        // Chunks without end: the gateway stops listening, whatever keeps coming.
        let mut conn = Conn::open(&g.address());
        let _ = conn.try_send(format!("POST {path} HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n").as_bytes());
        let chunk = [b"10000\r\n".as_slice(), &[b'x'; 65_536], b"\r\n"].concat();
        let endless = (0..4_096).take_while(|_| conn.try_send(&chunk).is_ok()).count();
        assert!(endless < 4_096, "{path}: took {endless} chunks");
        assert!(began.elapsed() < Duration::from_secs(10), "{path}: {:?}", began.elapsed());
    }
    assert!(g.peak_growth_kib() < 16 * 1024, "{} KiB", g.peak_growth_kib());
}

#[test]
fn p_69_authenticated_size() {
    let g = Setup::new().start();
    let limit = limits::MAX_PAYLOAD_BYTES;
    let sized = |size: usize| {
        let request = |fill: usize| {
            format!(r#"{{"type":"req","id":"big","method":"health","params":{{"filler":"{}"}}}}"#, "x".repeat(fill))
        };
        request(size - request(0).len())
    };
    let mut client = g.operator(&["operator.read"]);
    assert_eq!(client.hello["policy"]["maxPayload"], limit);
    client.conn.send_text(&sized(limit));
    client.answer("big").expect("an answer").expect("exactly 25 MiB is fine");
    for size in [limit + 1, 27 * 1024 * 1024] {
        let mut client = g.operator(&["operator.read"]);
        let _ = client.conn.try_send(&frame(0x81, sized(size).as_bytes()));
        assert_eq!(client.closing().map(|(code, _)| code), Some(1009), "{size} bytes");
    }
    let mut fragments = g.operator(&["operator.read"]);
    let part = vec![b' '; 9 * 1024 * 1024];
    let _ = fragments.conn.try_send(&[frame(0x01, &part), frame(0x00, &part), frame(0x80, &part)].concat());
    assert_eq!(fragments.closing().map(|(code, _)| code), Some(1009));
    // Some connections later the memory is back (the sandbox asserts it, too).
    for _ in 0..3 {
        let mut client = g.operator(&["operator.read"]);
        client.conn.send_text(&sized(limit));
        client.answer("big").expect("an answer").expect("fine");
    }
    client.ok("health", json!({}));
    assert!(g.growth_kib() < 64 * 1024, "{} KiB", g.growth_kib());
}

#[test]
fn p_70_floods_of_nothing() {
    let g = Setup::new().start();
    let bystander = Bystander::start(&g);
    let used = g.cpu_seconds();
    let empty_message = [frame(0x01, b""), frame(0x80, b"")].concat();
    for (name, flood) in [
        ("pings", frame(0x89, b"").repeat(20_000)),
        ("pongs", frame(0x8a, b"x").repeat(20_000)),
        ("empty continuations", [frame(0x01, b"["), frame(0x00, b"").repeat(100_000)].concat()),
        ("empty messages", empty_message.repeat(50_000)),
    ] {
        let mut client = g.operator(&["operator.read"]);
        for part in flood.chunks(64 * 1024) {
            if client.conn.try_send(part).is_err() {
                break;
            }
        }
        let ended = client.closing();
        assert!(ended.is_none() || ended.as_ref().is_some_and(|(code, _)| *code == 1008), "{name}: {ended:?}");
    }
    let used = g.cpu_seconds() - used;
    assert!(used < 5.0, "{used} s of CPU time");
    bystander.finish();
    // A client that pings like a real one is not a flood.
    let mut client = g.operator(&["operator.read"]);
    for _ in 0..50 {
        client.conn.send(&frame(0x89, b"hi"));
        assert_eq!(client.conn.frame_but_events(), Frame::Pong(b"hi".to_vec()));
    }
    client.ok("health", json!({}));
}

#[test]
fn p_71_rfc_6455_violations() {
    let g = Setup::new().start();
    let unmasked = [0x81, 2, b'{', b'}'];
    let long = frame(0x89, &[b'x'; 126]);
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("unmasked", unmasked.to_vec(), 1002),
        ("reserved bit 1", frame(0xc1, b"{}"), 1002),
        ("reserved bit 2", frame(0xa1, b"{}"), 1002),
        ("reserved bit 3", frame(0x91, b"{}"), 1002),
        ("reserved data opcode", frame(0x83, b"{}"), 1002),
        ("reserved control opcode", frame(0x8b, b""), 1002),
        ("fragmented ping", frame(0x09, b"x"), 1002),
        ("fragmented close", frame(0x08, b""), 1002),
        ("long ping", long, 1002),
        ("continuation first", frame(0x80, b"{}"), 1002),
        ("a message within a message", [frame(0x01, b"{"), frame(0x81, b"}")].concat(), 1002),
        ("invalid UTF-8", frame(0x81, b"\xff\xfe"), 1007),
        ("UTF-8 cut in two and spoilt", [frame(0x01, b"\xc3"), frame(0x80, b"\x28")].concat(), 1007),
        ("a surrogate", frame(0x81, b"\xed\xa0\x80"), 1007),
        ("an overlong slash", frame(0x81, b"\xc0\xaf"), 1007),
        ("close with one byte", frame(0x88, b"x"), 1002),
        ("close code 0", frame(0x88, &0_u16.to_be_bytes()), 1002),
        ("close code 999", frame(0x88, &999_u16.to_be_bytes()), 1002),
        ("close code 1005", frame(0x88, &1005_u16.to_be_bytes()), 1002),
        ("close code 1006", frame(0x88, &1006_u16.to_be_bytes()), 1002),
        ("close code 65535", frame(0x88, &65_535_u16.to_be_bytes()), 1002),
        ("close with a spoilt reason", frame(0x88, b"\x03\xe8\xff\xfe"), 1007),
    ];
    for authenticated in [false, true] {
        for (name, bytes, code) in &cases {
            let mut conn =
                if authenticated { g.operator(&["operator.read"]).conn } else { g.login().open().expect("101").conn };
            conn.send(bytes);
            let ended = conn.closing();
            let spoilt_close = bytes[0] == 0x88 && ended.is_none();
            assert!(spoilt_close || ended.as_ref().is_some_and(|(got, _)| got == code), "{name}: {ended:?}");
        }
    }
    // A proper close is answered in kind.
    let mut client = g.operator(&["operator.read"]);
    client.conn.send_close(1001);
    assert!(client.closing().is_some_and(|(code, _)| [1000, 1001].contains(&code)));
    // And a run of random bytes ends nothing but its own connection.
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..200 {
        let mut conn = g.login().open().expect("101").conn;
        let noise: Vec<u8> = (0..400)
            .map(|_| {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                seed as u8
            })
            .collect();
        let _ = conn.try_send(&noise);
    }
    client = g.operator(&["operator.read"]);
    client.ok("health", json!({}));
}

/// A log of five megabytes, which makes `logs.tail` a slow call with an answer of one.
fn with_long_log() -> Setup {
    let setup = Setup::new();
    let logs = setup.state_dir().with_file_name("logs");
    std::fs::create_dir_all(&logs).expect("creates");
    let line = format!("{}\n", json!({"message": "y".repeat(400)}));
    std::fs::write(logs.join("gateway.log"), line.repeat(12_000)).expect("writes");
    setup
}

const WHOLE_LOG: &str = r#"{"limit":5000,"maxBytes":1000000}"#;

#[test]
fn p_72_slow_consumer() {
    let g = with_long_log().start();
    // One does not read its events, the other orders far more than anybody may be owed and reads nothing of it.
    let mut deaf = g.operator(&["operator.read"]);
    let mut greedy = g.operator(&["operator.read"]);
    let bystander = Bystander::start(&g);
    let order = format!(r#"{{"type":"req","id":"x","method":"logs.tail","params":{WHOLE_LOG}}}"#);
    greedy.conn.set_patience(Duration::from_millis(500));
    for _ in 0..60 {
        if greedy.conn.try_send(&frame(0x81, order.as_bytes())).is_err() {
            break;
        }
    }
    let mut admin = g.admin();
    for n in 0..500 {
        admin.ok("set-heartbeats", json!({"enabled": n % 2 == 0}));
        admin.events.clear();
    }
    bystander.finish();
    // When they listen again, the one learns why it was dropped, and the other has lost nothing.
    greedy.conn.set_patience(PATIENCE);
    let ended = greedy.closing();
    assert!(ended.is_none() || ended == Some((1008, "slow consumer".into())), "{ended:?}");
    deaf.ok("health", json!({}));
    assert!(deaf.events.iter().filter(|event| event["event"] == "health").count() >= 500);
}

#[test]
fn p_73_json_depth_and_numbers() {
    let g = Setup::new().start();
    let depth = 100_000;
    let nested = |open: &str, close: &str| format!("{}{}", open.repeat(depth), close.repeat(depth));
    let frames: Vec<(&str, String)> = vec![
        ("arrays", nested("[", "]")),
        ("open arrays", "[".repeat(depth)),
        ("objects", format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth))),
        ("arrays in params", format!(r#"{{"type":"req","id":"d","method":"health","params":{}}}"#, nested("[", "]"))),
        (
            "objects in params",
            format!(r#"{{"type":"req","id":"d","method":"health","params":{{"a":{}}}}}"#, nested("[", "]")),
        ),
        (
            "arrays in config",
            format!(r#"{{"type":"req","id":"d","method":"config.patch","params":{{"raw":"{}"}}}}"#, nested("[", "]")),
        ),
        ("a huge number", r#"{"type":"req","id":"d","method":"logs.tail","params":{"limit":1e400}}"#.into()),
        ("a tiny number", r#"{"type":"req","id":"d","method":"logs.tail","params":{"limit":1e-400}}"#.into()),
        ("minus nothing", r#"{"type":"req","id":"d","method":"logs.tail","params":{"limit":-0,"cursor":-0.0}}"#.into()),
        (
            "a long exponent",
            format!(r#"{{"type":"req","id":"d","method":"logs.tail","params":{{"limit":1e{}}}}}"#, "9".repeat(10_000)),
        ),
        (
            "many digits",
            format!(r#"{{"type":"req","id":"d","method":"logs.tail","params":{{"limit":{}}}}}"#, "9".repeat(100_000)),
        ),
        (
            "a long string",
            format!(r#"{{"type":"req","id":"d","method":"health","params":{{"a":"{}"}}}}"#, "x".repeat(10_000_000)),
        ),
        (
            "a long key",
            format!(r#"{{"type":"req","id":"d","method":"health","params":{{"{}":1}}}}"#, "k".repeat(1_000_000)),
        ),
        (
            "many keys",
            format!(
                r#"{{"type":"req","id":"d","method":"health","params":{{{}"z":1}}}}"#,
                (0..50_000).map(|n| format!(r#""{n}":1,"#)).collect::<String>()
            ),
        ),
        ("a lone surrogate", r#"{"type":"req","id":"\ud800","method":"health"}"#.into()),
        ("a long id", format!(r#"{{"type":"req","id":"{}","method":"health"}}"#, "i".repeat(100_000))),
        ("a long method", format!(r#"{{"type":"req","id":"d","method":"{}"}}"#, "m".repeat(100_000))),
    ];
    for (name, text) in &frames {
        let mut client = g.admin();
        let asked = Instant::now();
        client.conn.send_text(text);
        // Whatever became of it, the next request is answered at once and the answer is no novel.
        client.ok("health", json!({}));
        let took = asked.elapsed();
        let bound = if text.len() > 1_000_000 { 1_000 } else { 100 };
        assert!(took < Duration::from_millis(bound) * slack(), "{name}: {took:?}");
        while let Some(answer) = client.take_stray_answer() {
            assert!(answer.to_string().len() < 4_096, "{name}: a long answer");
        }
    }
    // The same before authentication, as far as it fits.
    for (_, text) in frames.iter().filter(|(_, text)| text.len() < limits::PREAUTH_FRAME_BYTES) {
        let mut conn = g.login().open().expect("101").conn;
        conn.send_text(text);
        assert!(conn.closing().is_some());
    }
    let deep = "[".repeat(60_000);
    let mut conn = g.login().open().expect("101").conn;
    conn.send_text(&format!(r#"{{"type":"req","id":"d","method":"connect","params":{deep}"#));
    assert!(conn.closing().is_some());
}

/// The bounds are those of an optimised build; tests usually run another.
fn slack() -> u32 {
    if cfg!(debug_assertions) { 5 } else { 1 }
}

#[test]
fn p_74_method_flood() {
    let g = Setup::new().start();
    let mut client = g.operator(&["operator.read"]);
    let ids: Vec<String> = (0..1_000).map(|n| client.send(&format!("no.such.method.{n}"), json!({}))).collect();
    let mut limited = 0;
    for id in ids {
        let error = client.answer(&id).expect("open").expect_err("unknown");
        match error["code"].as_str() {
            Some("UNAVAILABLE") => {
                assert_eq!(error["retryable"], true, "{error}");
                assert!(error["retryAfterMs"].as_u64().is_some_and(|ms| ms > 0), "{error}");
                limited += 1;
            }
            _ => assert!(error["message"].as_str().is_some_and(|m| m.starts_with("unknown method")), "{error}"),
        }
    }
    assert!(limited > 500, "{limited} of 1,000 were limited");
    client.ok("health", json!({}));
    let mut admin = g.admin();
    let mut outcomes = Vec::new();
    for n in 0..40 {
        let hash = admin.ok("config.get", json!({}))["hash"].clone();
        let raw = format!("{{gateway: {{port: {}}}}}", 20_000 + n);
        outcomes.push(admin.call("config.patch", json!({"raw": raw, "baseHash": hash})));
    }
    let written = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(written, 30);
    for refused in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        assert_eq!(refused["code"], "UNAVAILABLE", "{refused}");
        assert!(
            refused["message"]
                .as_str()
                .is_some_and(|m| m.starts_with("rate limit exceeded for config.patch; retry after "))
        );
        assert_eq!(refused["details"], json!({"method": "config.patch", "limit": "30 per 60s"}));
        assert!(refused["retryAfterMs"].as_u64().is_some_and(|ms| (1..=60_000).contains(&ms)), "{refused}");
    }
    let lines = g.log().lines().count();
    assert!(lines < 400, "{lines} log lines");
}

#[test]
fn p_75_noisy_neighbour() {
    let g = with_long_log().start();
    let bystander = Bystander::start(&g);
    let pipeline = |mut client: Client, method: &'static str, params: Value, count: usize| {
        std::thread::spawn(move || {
            let ids: Vec<String> = (0..count).map(|_| client.send(method, params.clone())).collect();
            for id in ids {
                client.answer(&id).expect("open").unwrap_or_else(|error| panic!("{method}: {error}"));
                client.events.clear();
            }
        })
    };
    let cheap = pipeline(g.operator(&["operator.read"]), "health", json!({}), 5_000);
    let mut client = g.operator(&["operator.read"]);
    let slow = std::thread::spawn(move || {
        for _ in 0..20 {
            client.ok("logs.tail", serde_json::from_str(WHOLE_LOG).expect("JSON"));
        }
    });
    cheap.join().expect("served");
    slow.join().expect("served");
    let waits = bystander.finish();
    let p99 = waits[waits.len() * 99 / 100];
    assert!(p99 < Duration::from_millis(250), "p99 of {} calls: {p99:?}", waits.len());
}
