//! What the HTTP API, the hooks and the agent behind them give away: P-07, P-08, P-20, P-36 to P-38, P-49, P-56, P-91.

use std::net::TcpListener;

use doubles::model::{Model, Reply, Script};
use lab::{
    client::Client,
    peers::model_sections,
    sandbox::{Sandbox, Setup},
    wire::{Address, Conn, Frame, Reply as Answer},
};
use serde_json::{Value, json};

const HOOK: &str = "a-hook-token-of-its-own-4711";

/// A gateway with an agent whose model this is, and everything HTTP switched on.
fn with_agent(model: &Model) -> Setup {
    let mut config = model_sections(&model.url());
    config["gateway"] =
        json!({"http": {"endpoints": {"chatCompletions": {"enabled": true}, "responses": {"enabled": true}}}});
    config["hooks"] = json!({"enabled": true, "token": HOOK});
    Setup::new().config(config)
}

fn post(address: &Address, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
    let headers = [&[("Content-Type", "application/json")][..], headers].concat();
    Conn::open(address).ask("POST", path, &headers, body.to_string().as_bytes())
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn chat(text: &str) -> Value {
    json!({"model": "openclaw", "messages": [{"role": "user", "content": text}]})
}

/// Every route that does something or tells something, with a body it would take.
fn routes() -> Vec<(&'static str, &'static str, Value)> {
    vec![
        ("GET", "/v1/models", Value::Null),
        ("GET", "/v1/models/openclaw", Value::Null),
        ("POST", "/v1/chat/completions", chat("hi")),
        ("POST", "/v1/responses", json!({"model": "openclaw", "input": "hi"})),
        (
            "POST",
            "/v1/messages",
            json!({"model": "openclaw", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}),
        ),
        ("POST", "/tools/invoke", json!({"name": "list", "args": {"path": "."}})),
        ("POST", "/hooks/wake", json!({"text": "hi"})),
        ("POST", "/hooks/agent", json!({"message": "hi"})),
    ]
}

fn ask(address: &Address, (method, path, body): &(&str, &str, Value), headers: &[(&str, &str)]) -> Answer {
    match *method {
        "GET" => Conn::open(address).get(path, headers),
        _ => post(address, path, headers, body),
    }
}

#[test]
fn p_07_a_gateway_in_the_url_is_not_dialled() {
    let g = Setup::new().start();
    let page = |path: &str| Conn::open(&g.address()).get(path, &[]);
    let plain = page("/");
    // Nothing on the page can read its address, so nothing in the address can lead anywhere.
    assert!(!plain.text().contains("<script") && !plain.text().contains("javascript:"), "{}", plain.text());
    let handlers = ["onclick", "onload", "onerror", "<iframe", "<form", "<link", "http-equiv"];
    assert!(handlers.iter().all(|word| !plain.text().contains(word)), "{}", plain.text());
    let policy = plain.header("content-security-policy").expect("a policy");
    assert!(policy.contains("default-src 'none'"), "{policy}");
    assert!(!policy.contains("script-src") && !policy.contains("connect-src"), "{policy}");
    for path in ["/?gatewayUrl=ws://evil.example:1&token=x", "/?url=wss://evil.example"] {
        assert_eq!((page(path).status, page(path).text()), (200, plain.text()), "{path}");
    }
}

#[test]
fn p_08_a_token_in_the_url_is_no_credential() {
    let model = Model::echo();
    let g = with_agent(&model).behind_proxy().start();
    let query = format!("?token={0}&access_token={0}&key={0}&auth={0}", g.token());
    for (method, path, body) in routes() {
        let path = format!("{path}{query}");
        let status = ask(&g.address(), &(method, &path, body), &[]).status;
        // Hooks say so outright.
        let expected = if path.starts_with("/hooks") { 400 } else { 401 };
        assert_eq!(status, expected, "{path}");
    }
    let hook = format!("/hooks/wake?token={HOOK}");
    assert_eq!(post(&g.address(), &hook, &[], &json!({"text": "x"})).status, 400);
    let ready = Conn::open(&g.proxy()).get(&format!("/readyz{query}"), &[("X-Forwarded-For", "203.0.113.8")]);
    assert_eq!(ready.json(), json!({"ready": true}), "a stranger's answer");
    let mut conn = Conn::open(&g.address());
    let headers = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "13eee9DHMIOHW+3mhsLdoQ=="),
    ];
    // A WebSocket with it in the URL is one without it.
    assert_eq!(conn.get(&format!("/{query}"), &headers).status, 101);
    let params = json!({"minProtocol": 4, "maxProtocol": 4, "role": "operator", "scopes": ["operator.read"],
        "client": {"id": "gateway-client", "mode": "backend", "version": "1", "platform": "linux"}, "auth": {}});
    conn.send_text(&json!({"type": "req", "id": "1", "method": "connect", "params": params}).to_string());
    let answer = loop {
        match conn.message() {
            Frame::Text(text) if text.contains("connect.challenge") => {}
            Frame::Text(text) => break serde_json::from_str::<Value>(&text).expect("JSON"),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((&answer["ok"], &answer["payload"]), (&json!(false), &Value::Null), "{answer}");
    assert_eq!(model.asks().len(), 0);
    // That nothing of it is in the log or on the console is looked at when the sandbox ends.
}

#[test]
fn p_20_hook_guesses_are_limited_also_on_loopback() {
    let model = Model::echo();
    let g = with_agent(&model).start();
    let wake =
        |token: &str| post(&g.address(), "/hooks/wake", &[("Authorization", &bearer(token))], &json!({"text": "x"}));
    assert_eq!(wake(HOOK).status, 200);
    let own = post(
        &g.address(),
        "/hooks/wake",
        &[("x-openclaw-token", HOOK)],
        &json!({"text": "x", "mode": "next-heartbeat"}),
    );
    assert_eq!(own.status, 200);
    // Each secret opens its own door only.
    assert_eq!(wake(g.token()).status, 401);
    for path in ["/v1/chat/completions", "/v1/responses", "/tools/invoke"] {
        assert_eq!(post(&g.address(), path, &[("Authorization", &bearer(HOOK))], &chat("hi")).status, 401, "{path}");
    }
    assert_eq!(g.login().token(HOOK).word(), "AUTH_TOKEN_MISMATCH");
    // 20 wrong ones in a minute (the gateway's own token above was the first since the last right one).
    let statuses: Vec<u16> = (0..24).map(|n| wake(&format!("wrong-{n}")).status).collect();
    assert!(statuses[..19].iter().all(|status| *status == 401), "{statuses:?}");
    assert!(statuses[20..].iter().all(|status| *status == 429), "{statuses:?}");
    let locked = wake(HOOK);
    assert_eq!(locked.status, 429, "the right one gets the same answer");
    let seconds: u64 = locked.header("retry-after").and_then(|text| text.parse().ok()).expect("when to come back");
    assert!((1..=60).contains(&seconds), "{seconds}");
    // The gateway's own door has its own budget.
    assert_eq!(post(&g.address(), "/tools/invoke", &[("Authorization", &bearer(g.token()))], &json!({})).status, 400);
}

#[test]
fn p_36_tailscale_headers_are_no_credential() {
    let model = Model::echo();
    let g = with_agent(&model).config(json!({"gateway": {"auth": {"allowTailscale": true}}})).start();
    let headers = [
        ("Tailscale-User-Login", "owner@example.com"),
        ("Tailscale-User-Name", "The Owner"),
        ("Tailscale-User-Profile-Pic", "https://example.com/x.png"),
        ("X-Forwarded-User", "owner@example.com"),
        ("Remote-User", "owner"),
    ];
    for route in routes() {
        let status = ask(&g.address(), &route, &headers).status;
        assert!(matches!(status, 401 | 403), "{}: {status}", route.1);
    }
    assert_eq!(model.asks().len(), 0);
}

/// The mode that trusts a proxy's word for who asks is not there; what asks for it is not started open instead.
#[track_caller]
fn check_trusted_proxy_refused(proxies: Value) {
    let failure = Setup::new()
        .config(json!({"gateway": {"trustedProxies": proxies, "auth": {"mode": "trusted-proxy",
            "trustedProxy": {"userHeader": "x-forwarded-user", "allowUsers": ["owner@example.com"]}}}}))
        .refused();
    assert_eq!(failure.status.code(), Some(78), "{}", failure.console);
    assert!(failure.console.contains("gateway.auth.mode"), "{}", failure.console);
}

#[test]
fn p_37_trusted_proxy_from_the_same_host() {
    check_trusted_proxy_refused(json!(["127.0.0.1", "192.0.2.1"]));
    // And its header is nothing in the modes there are.
    let g = Setup::new().start();
    let word = g.login().header("x-forwarded-user", "owner@example.com").word();
    assert_ne!(word, "hello [operator.admin]");
    assert!(!word.starts_with("hello"), "{word}");
}

#[test]
fn p_38_trusted_proxy_before_pairing() {
    check_trusted_proxy_refused(json!(["192.0.2.1"]));
    let g = Setup::new().behind_proxy().start();
    let device = lab::client::new_device();
    let login = g.through_proxy("203.0.113.7").header("x-forwarded-user", "owner@example.com").token(g.token());
    assert_eq!(login.device(&device).scopes(&["operator.admin"]).word(), "PAIRING_REQUIRED");
}

/// From this machine the shared secret is the owner; from elsewhere it is read and write, as the switched-on endpoint says,
/// and never admin, whatever the request claims.
#[test]
fn p_49_http_scopes_by_where_it_comes_from() {
    let model = Model::echo();
    let g = with_agent(&model).behind_proxy().start();
    let authorization = bearer(g.token());
    let claim = ("x-openclaw-scopes", "operator.admin,operator.read,operator.write");
    let here = [("Authorization", authorization.as_str())];
    let there = [("Authorization", authorization.as_str()), ("X-Forwarded-For", "203.0.113.8"), claim];
    for route in routes().into_iter().filter(|route| !route.1.starts_with("/hooks")) {
        assert_eq!(ask(&g.address(), &route, &here).status, 200, "{} here", route.1);
        assert_eq!(ask(&g.proxy(), &route, &there).status, 200, "{} there", route.1);
        assert_eq!(ask(&g.proxy(), &route, &there[1..]).status, 401, "{} without the secret", route.1);
    }
    // Without a switched-on endpoint the secret opens nothing from elsewhere.
    let bare = Setup::new().behind_proxy().start();
    let authorization = bearer(bare.token());
    let invoke = |address: &Address, more: &[(&str, &str)]| {
        let headers = [&[("Authorization", authorization.as_str())][..], more].concat();
        post(address, "/tools/invoke", &headers, &json!({"name": "list"})).status
    };
    assert_eq!(invoke(&bare.proxy(), &[("X-Forwarded-For", "203.0.113.8"), claim]), 403);
    assert_eq!(invoke(&bare.address(), &[]), 200);
}

/// Sends a chat message and returns what the conversation ends with.
fn say(client: &mut Client, key: &str, text: &str) -> String {
    let id = uuid::Uuid::new_v4().to_string();
    client.ok("chat.send", json!({"sessionKey": key, "message": text, "idempotencyKey": id}));
    client.ok("agent.wait", json!({"runId": id, "timeoutMs": 20_000}));
    let history = client.ok("chat.history", json!({"sessionKey": key, "limit": 50}));
    history["messages"].as_array().and_then(|messages| messages.last()).expect("an answer").to_string()
}

fn device(g: &Sandbox, scopes: &[&str]) -> Client {
    g.paired(scopes).login().scopes(scopes).hello()
}

#[test]
fn p_56_a_command_in_a_chat_needs_what_its_method_needs() {
    let model = Model::echo();
    let g = with_agent(&model).start();
    let mut writer = device(&g, &["operator.read", "operator.write"]);
    say(&mut writer, "work", "hello");
    let session = |client: &mut Client| {
        client.ok("sessions.describe", json!({"key": "agent:main:work"}))["session"]["sessionId"].clone()
    };
    let before = session(&mut writer);
    let everything = ["operator.admin", "operator.read", "operator.write", "operator.approvals"];
    let reviewer = g.paired(&everything).login().set("/caps", json!(["exec-approvals"]));
    let mut owner = reviewer.scopes(&everything).hello();
    let mut asker = g.admin();
    let asked = asker.ok(
        "exec.approval.request",
        json!({"command": "rm -rf /", "host": "gateway", "cwd": "/",
        "agentId": "main", "sessionKey": "agent:main:work", "timeoutMs": 60_000, "twoPhase": true}),
    );
    let approval = asked["id"].as_str().expect("an id").to_owned();
    for (command, scope) in [
        ("/new", "operator.admin"),
        ("/new and go on", "operator.admin"),
        ("/reset", "operator.admin"),
        ("/RESET", "operator.admin"),
        ("/compact", "operator.admin"),
        (&format!("/approve {approval} allow-always"), "operator.approvals"),
        (&format!("/approve {approval} allow-once"), "operator.approvals"),
    ] {
        let answer = say(&mut writer, "work", command);
        assert!(answer.contains(scope) && answer.contains("does not have it"), "{command}: {answer}");
    }
    assert_eq!(session(&mut writer), before, "the conversation is the same");
    let pending = owner.ok("exec.approval.list", json!({}));
    assert_eq!(pending[0]["id"], approval.as_str(), "it still waits: {pending}");
    // What is no command here is text for the model and does nothing by itself.
    let config = g.admin().ok("config.get", json!({}))["hash"].clone();
    for text in ["/config set gateway.auth.mode none", "/restart", "/verbose on", "/elevated full", "/debug set x y"] {
        say(&mut writer, "work", text);
    }
    assert_eq!(g.admin().ok("config.get", json!({}))["hash"], config);
    // Neither does a program over HTTP or a hook get commands: it is all text.
    let asks = model.asks().len();
    let body = chat("/reset");
    let headers = [("Authorization", bearer(g.token())), ("x-openclaw-session-key", "work".to_owned())];
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(post(&g.address(), "/v1/chat/completions", &headers, &body).status, 200);
    let hook = json!({"message": "/approve x allow-once", "waitForCompletion": true});
    assert_eq!(post(&g.address(), "/hooks/agent", &[("Authorization", &bearer(HOOK))], &hook).status, 200);
    assert_eq!(model.asks().len(), asks + 2, "the model was asked both times");
    assert_eq!(session(&mut writer), before);
    // Whoever has the right uses it.
    let mut admin = device(&g, &["operator.admin", "operator.read", "operator.write"]);
    say(&mut admin, "work", "/reset");
    assert_ne!(session(&mut admin), before);
}

/// What a model asks to be fetched: nothing of this machine, its network, or its cloud's metadata, however it is written.
#[test]
fn p_91_the_model_cannot_reach_this_machine_through_the_agent() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a live socket");
    let port = listener.local_addr().expect("bound").port();
    let model = Model::start(Script::choose(|ask| match ask.tool_results.last() {
        Some(result) => Reply::say(format!("It said: {}", result.text)),
        None => Reply::call("web_fetch", json!({"url": ask.last_user.trim()})),
    }));
    let g = with_agent(&model).start();
    let authorization = bearer(g.token());
    let Address::Port(own) = g.address() else { panic!("a port") };
    let urls = [
        format!("http://127.0.0.1:{own}/tools/invoke"),
        format!("http://127.0.0.1:{port}/"),
        format!("http://localhost:{port}/"),
        format!("http://[::1]:{port}/"),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
        format!("http://[::ffff:7f00:1]:{port}/"),
        format!("http://2130706433:{port}/"),
        format!("http://0x7f.1:{port}/"),
        format!("http://0177.0.0.1:{port}/"),
        format!("http://0.0.0.0:{port}/"),
        format!("http://127.1:{port}/"),
        format!("http://user:secret@127.0.0.1:{port}/"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "http://[fd00:ec2::254]/latest/meta-data/".to_owned(),
        "http://100.100.100.200/".to_owned(),
        "http://metadata.google.internal/computeMetadata/v1/".to_owned(),
        "http://10.0.0.1/".to_owned(),
        "http://192.168.1.1/".to_owned(),
        "file:///etc/passwd".to_owned(),
        "gopher://127.0.0.1:70/".to_owned(),
    ];
    for url in urls {
        let answer =
            post(&g.address(), "/v1/chat/completions", &[("Authorization", &authorization)], &chat(&url)).json();
        let said = answer["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned();
        assert!(said.contains("It said:"), "{url}: {answer}");
        let asks = model.asks();
        let result = asks.last().and_then(|ask| ask.tool_results.last()).expect("a result");
        assert!(!result.text.contains("root:") && !result.text.contains("invalid_request"), "{url}: {}", result.text);
        assert!(!result.text.contains(g.token()), "{url}");
    }
    assert!(listener.accept().is_err(), "somebody came");
    // Pictures by URL are not fetched either, whoever asks.
    for url in [format!("http://127.0.0.1:{port}/x.png"), "http://169.254.169.254/x.png".to_owned()] {
        let image = json!([{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": url}}]);
        let body = json!({"model": "openclaw", "messages": [{"role": "user", "content": image}]});
        let answer = post(&g.address(), "/v1/chat/completions", &[("Authorization", &authorization)], &body);
        assert_eq!(answer.status, 400, "{}", answer.text());
    }
    assert!(listener.accept().is_err(), "somebody came");
}

/// Who may use the hooks has no more rights than a stranger in a chat.
#[test]
fn p_56_a_hook_gets_no_tools_of_the_owner() {
    let model = Model::echo();
    let g = with_agent(&model).start();
    let hook = json!({"message": "run something", "waitForCompletion": true});
    let answer = post(&g.address(), "/hooks/agent", &[("Authorization", &bearer(HOOK))], &hook);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let ask = model.last();
    for tool in ["exec", "gateway", "nodes"] {
        assert!(!ask.tools.iter().any(|offered| offered == tool), "{tool} was offered: {:?}", ask.tools);
    }
    assert!(ask.last_user.contains("EXTERNAL_UNTRUSTED_CONTENT"), "what it says is marked: {}", ask.last_user);
}
