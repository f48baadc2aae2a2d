//! Pairing, tokens, scopes: P-39 to P-52.

use std::time::{Duration, Instant};

use lab::{
    client::{Client, Login, new_device},
    sandbox::{Sandbox, Setup, walk},
    wire::{Conn, get, read_lossy, wait_for},
};
use openclaw_protocol::DeviceKey;
use serde_json::{Value, json};

const ADMIN: &[&str] = &["operator.admin"];
const READ: &[&str] = &["operator.read"];
const WRITE: &[&str] = &["operator.write"];
const PAIRING: &[&str] = &["operator.pairing"];

/// Asks for consent and returns the id of the pending request.
#[track_caller]
fn pending(login: Login) -> String {
    let refused = login.refused();
    assert_eq!(refused.code(), "PAIRING_REQUIRED", "{}", refused.error);
    refused.error["details"]["requestId"].as_str().expect("a request id").to_owned()
}

fn list(g: &Sandbox) -> Value {
    g.operator(PAIRING).ok("device.pair.list", json!({}))
}

#[track_caller]
fn assert_missing_scope(error: &Value, scope: &str) {
    assert_eq!(error["details"]["code"], "MISSING_SCOPE", "{error}");
    assert_eq!(error["details"]["missingScope"], scope, "{error}");
}

#[test]
fn p_39_approval_ceiling() {
    let g = Setup::new().start();
    let pairing_only = g.paired(PAIRING);
    let (write, read) = (g.paired(WRITE), g.paired(READ));
    // A page asks for admin: that needs consent, and not just anybody's.
    let own = format!("http://127.0.0.1:{}", g.port);
    let key = new_device();
    let page = || g.with_token().client("openclaw-control-ui", "webchat").origin(&own).scopes(ADMIN).device(&key);
    let request = json!({"requestId": pending(page())});
    let before = list(&g)["pending"].clone();
    assert_missing_scope(&pairing_only.hello().err("device.pair.approve", request.clone()), "operator.admin");
    for other in [&write, &read] {
        let error = other.hello().err("device.pair.approve", request.clone());
        assert_missing_scope(&error, "operator.pairing");
        assert_missing_scope(&other.hello().err("device.pair.reject", request.clone()), "operator.pairing");
        assert_missing_scope(&other.hello().err("device.pair.list", json!({})), "operator.pairing");
        let codes = other.hello().err("device.pair.setupCode", json!({}));
        assert!(codes["message"] == "unknown method: device.pair.setupCode" || codes["code"] == "FORBIDDEN", "{codes}");
        for secrets in ["secrets.reload", "secrets.store.list", "secrets.resolve"] {
            let error = other.hello().err(secrets, json!({}));
            let message = error["message"].as_str().expect("a message");
            assert!(message.starts_with("unknown method") || message == "missing scope: operator.admin", "{message}");
        }
    }
    assert_eq!(list(&g)["pending"], before, "the request stays, unchanged");
    assert_eq!(page().word(), "PAIRING_REQUIRED");
    // Pairing and read together may approve what asks for read, and nothing wider.
    let both = g.paired(&["operator.pairing", "operator.read"]);
    let reader = new_device();
    let asks_read = || g.with_token().client("openclaw-control-ui", "webchat").origin(&own).device(&reader);
    let request = json!({"requestId": pending(asks_read())});
    both.hello().ok("device.pair.approve", request);
    assert_eq!(asks_read().word(), "hello [operator.read]");
    // A known operator becomes a node by an administrator's word only.
    let request = json!({"requestId": pending(g.with_token().node().device(&read.key))});
    assert_missing_scope(&both.hello().err("device.pair.approve", request.clone()), "operator.admin");
    g.admin().ok("device.pair.approve", request);
}

#[test]
fn p_40_rotation_ceiling() {
    let g = Setup::new().start();
    let stranger = g.paired(ADMIN);
    let victims_token_works = || assert_eq!(stranger.login().word(), "hello [operator.admin]");
    for scopes in [PAIRING, WRITE, &["operator.pairing", "operator.write"]] {
        let device = g.paired(scopes);
        let own = |scopes: &[&str]| json!({"deviceId": device.id(), "role": "operator", "scopes": scopes});
        let theirs = |scopes: &[&str]| json!({"deviceId": stranger.id(), "role": "operator", "scopes": scopes});
        for params in [own(ADMIN), own(&["operator.approvals"]), theirs(ADMIN), theirs(&[]), theirs(PAIRING)] {
            let error = device.hello().err("device.token.rotate", params);
            let denied = error["message"] == "device token rotation denied";
            assert!(denied || error["details"]["code"] == "MISSING_SCOPE", "{error}");
        }
        assert_eq!(device.login().scopes(ADMIN).word(), "AUTH_SCOPE_MISMATCH");
        victims_token_works();
    }
    // One's own token, within one's own scopes: the new text comes to its owner, the old one stops.
    let device = g.paired(PAIRING);
    let rotated = device.hello().ok("device.token.rotate", json!({"deviceId": device.id(), "role": "operator"}));
    assert_eq!(rotated["tokenDelivery"], "in-band");
    let fresh = rotated["token"].as_str().expect("a token").to_owned();
    assert_eq!(device.login().word(), "AUTH_DEVICE_TOKEN_MISMATCH");
    assert_eq!(device.login().device_token(&fresh).word(), "hello [operator.pairing]");
    // An administrator rotates for others without seeing the token.
    let params = json!({"deviceId": device.id(), "role": "operator"});
    let rotated = g.admin().ok("device.token.rotate", params.clone());
    assert_eq!(rotated["tokenDelivery"], "withheld-cross-device");
    assert!(rotated.get("token").is_none(), "{rotated}");
    assert_eq!(device.login().device_token(&fresh).word(), "AUTH_DEVICE_TOKEN_MISMATCH");
    let v3_admin = g.with_token().scopes(ADMIN).protocol(3, 3).hello().ok("device.token.rotate", params);
    assert!(v3_admin.get("token").is_none(), "nor on protocol 3: {v3_admin}");
}

#[test]
fn p_41_role_not_approved() {
    let g = Setup::new().start();
    let operator = g.paired(ADMIN);
    let (node_key, node) = g.node(&[]);
    let rotate = |role: &str, id: String| g.admin().err("device.token.rotate", json!({"deviceId": id, "role": role}));
    assert_eq!(rotate("node", operator.id())["message"], "device token rotation denied");
    assert_eq!(rotate("operator", node_key.id().to_string())["message"], "device token rotation denied");
    for role in ["gateway", "", "NODE", "operator\u{0}"] {
        assert_eq!(rotate(role, operator.id())["message"], "device token rotation denied", "{role:?}");
    }
    let mine = operator.hello().err("device.token.rotate", json!({"deviceId": operator.id(), "role": "node"}));
    assert_eq!(mine["message"], "device token rotation denied");
    // And a token of one role opens nothing in the other.
    let as_node = Login::at(&g.address()).node().device_token(&operator.token).device(&operator.key);
    assert_eq!(as_node.word(), "AUTH_DEVICE_TOKEN_MISMATCH");
    let node_token = node.device_token();
    let as_operator = Login::at(&g.address()).scopes(&[]).device_token(&node_token).device(&node_key);
    assert_eq!(as_operator.word(), "AUTH_DEVICE_TOKEN_MISMATCH");
}

#[test]
fn p_42_revoke_is_immediate() {
    for (method, both_roles) in
        [("device.token.revoke", false), ("device.pair.remove", false), ("device.pair.remove", true)]
    {
        let g = Setup::new().start();
        let device = g.paired(&["operator.read", "operator.pairing"]);
        let mut sockets: Vec<Client> = (0..3).map(|_| device.hello()).collect();
        if both_roles {
            let request = pending(g.with_token().node().device(&device.key));
            g.admin().ok("device.pair.approve", json!({"requestId": request}));
            sockets.push(g.with_token().node().device(&device.key).hello());
        }
        // Calls are under way on every operator's socket when it happens.
        for socket in sockets.iter_mut().take(3) {
            for _ in 0..20 {
                socket.send("logs.tail", json!({"limit": 5000, "maxBytes": 1_000_000}));
            }
        }
        let mut admin = g.admin();
        let began = Instant::now();
        admin.ok(method, json!({"deviceId": device.id(), "role": "operator"}));
        let told = Instant::now();
        for socket in &mut sockets {
            let (code, reason) = socket.closing().expect("a close frame");
            assert_eq!(code, 1008, "{method}: {reason}");
            assert!(["device removed", "device token revoked"].contains(&reason.as_str()), "{reason}");
        }
        assert!(told.elapsed() < Duration::from_secs(1), "{method}: {:?} after the answer", told.elapsed());
        assert!(began.elapsed() < Duration::from_secs(5));
        assert_eq!(device.login().word(), "AUTH_DEVICE_TOKEN_MISMATCH", "{method}");
        let as_node = Login::at(&g.address()).node().device_token(&device.token).device(&device.key);
        assert_eq!(as_node.word(), "AUTH_DEVICE_TOKEN_MISMATCH", "{method}");
        if method == "device.token.revoke" {
            // The owner's revocation is not undone silently by the shared token.
            assert_eq!(g.with_token().device(&device.key).word(), "PAIRING_REQUIRED");
        }
        if both_roles {
            assert_eq!(list(&g)["paired"], json!([]), "no role is left");
        }
    }
}

#[test]
fn p_43_shared_token_rotation() {
    let mut g = Setup::new().start();
    let device = g.paired(READ);
    let mut by_device = device.hello();
    let mut by_token = g.operator(READ);
    let mut by_token_and_device = g.with_token().device(&device.key).hello();
    let old = g.token().to_owned();
    let new = "a-new-shared-token-0123456789";
    let text = read_lossy(&g.config_file()).replace(&old, new);
    let changed = Instant::now();
    std::fs::write(g.config_file(), text).expect("writes");
    for client in [&mut by_token, &mut by_token_and_device] {
        assert_eq!(client.closing(), Some((4001, "gateway auth changed".into())));
    }
    assert!(changed.elapsed() < Duration::from_secs(2), "{:?}", changed.elapsed());
    assert_eq!(g.login().token(&old).word(), "AUTH_TOKEN_MISMATCH");
    let bearer = format!("Bearer {old}");
    let strangers = get(&g.address(), "/readyz", &[("Authorization", &bearer), ("Origin", "http://localhost")]);
    assert_eq!(strangers.json(), json!({"ready": true}), "the old bearer is a stranger");
    // Paired devices go on: pairing was the consent.
    by_device.ok("health", json!({}));
    assert_eq!(device.login().word(), "hello [operator.read]");
    assert_eq!(g.login().token(new).word(), "hello [operator.read]");
    assert!(g.is_alive());
}

/// Makes a one-time token as an administrator; the answer of `device.pair.invite`.
fn invite(g: &Sandbox, params: Value) -> Value {
    g.admin().ok("device.pair.invite", params)
}

fn token_of(invited: &Value) -> String {
    invited["token"].as_str().expect("a token").to_owned()
}

/// A device that brings a one-time token and nothing else.
fn bringing(g: &Sandbox, token: &str, key: &DeviceKey) -> Login {
    g.login().set("/auth/bootstrapToken", token).device(key)
}

const USED: &str = "AUTH_BOOTSTRAP_TOKEN_INVALID";

#[test]
fn p_44_setup_code() {
    let mut g = Setup::new().no_silent_pairing().start();
    let mut watcher = g.operator(PAIRING);
    let invited = invite(&g, json!({"scopes": ["operator.read", "operator.write"], "label": "laptop"}));
    let token = token_of(&invited);
    let (first, second) = (new_device(), new_device());
    // It grants what it was made for and nothing beyond, and looking is not using.
    assert_eq!(bringing(&g, &token, &first).scopes(ADMIN).word(), "AUTH_SCOPE_MISMATCH");
    assert_eq!(bringing(&g, &token, &first).node().word(), "AUTH_SCOPE_MISMATCH");
    assert_eq!(g.login().set("/auth/bootstrapToken", token.as_str()).word(), "DEVICE_IDENTITY_REQUIRED");
    let stolen_signature =
        bringing(&g, &token, &first).after_signing(|params| params["auth"]["bootstrapToken"] = json!("x"));
    assert_eq!(stolen_signature.word(), "DEVICE_AUTH_SIGNATURE_INVALID", "the device signs what it brings");

    let hello = bringing(&g, &token, &first).hello();
    assert_eq!(hello.hello["auth"]["method"], "bootstrap-token");
    assert_eq!(hello.scopes(), READ);
    let own = hello.device_token();
    let done = watcher.event("device.pair.setup.completed")["payload"].clone();
    assert_eq!(done["setupId"], invited["setupId"]);
    assert_eq!((&done["deviceId"], &done["deviceName"]), (&json!(first.id().as_str()), &json!("laptop")));
    let status = g.admin().ok("device.pair.setupStatus", json!({"setupId": invited["setupId"]}));
    assert_eq!(status, json!({ "completion": done }));
    let listed = list(&g)["paired"][0].clone();
    assert_eq!((&listed["approvedVia"], &listed["operatorLabel"]), (&json!("bootstrap"), &json!("laptop")));
    assert_eq!(listed["scopes"], json!(["operator.read", "operator.write"]));

    // Twice, and from another device.
    for key in [&first, &second] {
        let refused = bringing(&g, &token, key).refused();
        assert_eq!(refused.code(), USED);
        // captures/handshake-errors, case bad-bootstrap
        let words = "unauthorized: setup code invalid, expired, revoked, or already used (create a new code; review \
                     `openclaw devices list`)";
        assert_eq!(refused.message(), words);
    }
    let by_own_token = || g.login().device_token(&own).device(&first);
    assert_eq!(by_own_token().scopes(WRITE).word(), "hello [operator.write]", "all that was granted");

    // Its time: one that is over stays over, one that waits survives a crash, a used one stays used.
    let short = token_of(&invite(&g, json!({"ttlMs": 1000, "scopes": READ})));
    let waiting = invite(&g, json!({"scopes": READ}));
    let (ends, waiting) = (lab::client::now_ms() + 1000, token_of(&waiting));
    wait_for("the code to end", || (lab::client::now_ms() > ends).then_some(()));
    assert_eq!(bringing(&g, &short, &second).word(), USED);
    g.kill();
    g.start();
    for over in [&token, &short] {
        assert_eq!(bringing(&g, over, &second).word(), USED);
    }
    assert_eq!(bringing(&g, &waiting, &second).word(), "hello [operator.read]");
    g.kill();
    g.start();
    assert_eq!(bringing(&g, &waiting, &second).word(), USED, "used up, also by a gateway that was killed");

    // Nothing that is kept or logged shows one.
    for token in [&token, &short, &waiting] {
        for file in walk(g.dir()) {
            assert!(!read_lossy(&file).contains(token.as_str()), "{}", file.display());
        }
    }
    for bad in
        [json!({"ttlMs": 0}), json!({"ttlMs": 90_000_000}), json!({"role": "owner"}), json!({"scopes": ["root"]})]
    {
        assert_eq!(g.admin().err("device.pair.invite", bad.clone())["code"], "INVALID_REQUEST", "{bad}");
    }
    for scopes in [READ, WRITE, PAIRING] {
        assert_missing_scope(&g.operator(scopes).err("device.pair.invite", json!({})), "operator.admin");
        assert_missing_scope(&g.operator(scopes).err("device.pair.setupCode", json!({})), "operator.admin");
    }
}

#[test]
fn p_44_of_many_devices_that_race_one_is_paired() {
    let g = Setup::new().no_silent_pairing().start();
    for role in ["operator", "node"] {
        let token = token_of(&invite(&g, json!({"role": role})));
        let before = list(&g)["paired"].as_array().expect("a list").len();
        let mut racers: Vec<_> = (0..6)
            .map(|_| {
                let login = bringing(&g, &token, &new_device());
                let login = if role == "node" { login.node() } else { login.scopes(&[]) };
                login.open().expect("101")
            })
            .collect();
        for racer in &mut racers {
            let request = racer.request();
            racer.conn.send_text(&request);
        }
        let words: Vec<String> = racers
            .into_iter()
            .map(|racer| match racer.outcome() {
                lab::client::Outcome::Hello(_) => "hello".to_owned(),
                lab::client::Outcome::Refused(refused) => refused.code().to_owned(),
                lab::client::Outcome::Http(reply) => reply.status.to_string(),
            })
            .collect();
        assert_eq!(words.iter().filter(|word| *word == "hello").count(), 1, "{words:?}");
        assert!(words.iter().all(|word| word == "hello" || word == USED || word == "AUTH_RATE_LIMITED"), "{words:?}");
        assert_eq!(list(&g)["paired"].as_array().expect("a list").len(), before + 1);
    }
}

#[test]
fn p_44_a_code_ends_with_the_rights_of_its_maker() {
    let g = Setup::new().start();
    let maker = g.paired(ADMIN);
    let token = token_of(&maker.hello().ok("device.pair.invite", json!({})));
    g.admin().ok("device.pair.remove", json!({"deviceId": maker.id()}));
    assert_eq!(bringing(&g, &token, &new_device()).word(), USED);
}

/// What a setup code says, decoded by hand.
fn decoded(code: &str) -> Value {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(code).expect("base64url");
    serde_json::from_slice(&bytes).expect("JSON")
}

#[test]
fn p_45_setup_payload() {
    // Loopback only: no code would lead anywhere.
    let g = Setup::new().start();
    let refused = g.admin().err("device.pair.setupCode", json!({}));
    // captures/rpc-sweep, device.pair.setupCode
    let words = "Gateway is only bound to loopback. Set gateway.bind=lan, enable tailscale serve, or configure \
                 plugins.entries.device-pair.config.publicUrl.";
    assert_eq!((&refused["code"], &refused["message"]), (&json!("INVALID_REQUEST"), &json!(words)));
    let cli = g.setup.run(&["devices", "invite"]);
    assert!(!cli.status.success() && cli.stderr.contains("openclaw connect user@host"), "{cli:#?}");
    let plain = g.admin().ok("device.pair.setupCode", json!({"publicUrl": "ws://192.168.77.10:18789"}));
    assert_eq!(
        (&plain["access"], &plain["accessDowngraded"]),
        (&json!("limited"), &json!(true)),
        "readable on the way"
    );
    assert_eq!(
        g.admin().err("device.pair.setupCode", json!({"publicUrl": "ws://203.0.113.9:1"}))["code"],
        "INVALID_REQUEST"
    );

    let g = Setup::new().config(json!({"gateway": {"publicOrigin": "https://gw.example.com"}})).start();
    let identity = g.admin().ok("gateway.identity.get", json!({}))["deviceId"].clone();
    let device = g.paired(ADMIN);
    for (profile, access, roles) in [(None, "full", 2), (Some("limited"), "limited", 2), (Some("node"), "node", 1)] {
        let mut params = json!({});
        if let Some(profile) = profile {
            params["bootstrapProfile"] = json!(profile);
        }
        let made = g.admin().ok("device.pair.setupCode", params);
        assert_eq!((&made["access"], &made["gatewayUrl"]), (&json!(access), &json!("wss://gw.example.com")));
        assert_eq!((&made["auth"], &made["urlSource"]), (&json!("token"), &json!("gateway.publicOrigin")));
        let text = made["setupCode"].as_str().expect("a code");
        let payload = decoded(text);
        let keys: Vec<&String> = payload.as_object().expect("an object").keys().collect();
        assert_eq!(keys, ["url", "bootstrapToken", "expiresAtMs", "gatewayId"], "{payload}");
        assert_eq!(payload["gatewayId"], identity);
        assert_eq!(payload["expiresAtMs"], made["expiresAtMs"]);
        let everything = format!("{made} {payload}");
        assert!(!everything.contains(g.token()) && !everything.contains(&device.token), "{everything}");

        // A phone: it connects as a node and gets the tokens of both roles.
        let phone = new_device();
        let token = payload["bootstrapToken"].as_str().expect("a token");
        let hello = bringing(&g, token, &phone).node().hello();
        let handed = hello.hello["auth"]["deviceTokens"].as_array().cloned().unwrap_or_default();
        assert_eq!(handed.len() + 1, roles, "{access}");
        for entry in &handed {
            assert_eq!(entry["role"], "operator");
            let scopes: Vec<&str> =
                entry["scopes"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
            assert!(!scopes.contains(&"operator.pairing") && scopes.contains(&"operator.admin") == (access == "full"));
            let token = entry["deviceToken"].as_str().expect("a token");
            assert_eq!(g.login().scopes(READ).device_token(token).device(&phone).word(), "hello [operator.read]");
        }
        assert_eq!(bringing(&g, token, &phone).node().word(), USED);
    }

    // The invitation that people paste.
    let cli = g.setup.run(&["devices", "invite", "--json"]);
    assert!(cli.status.success(), "{cli:#?}");
    let invited = cli.json();
    assert_eq!(invited["gateway"]["addresses"], json!([{"kind": "public", "url": "wss://gw.example.com"}]));
    let payload = decoded(invited["setupCode"].as_str().expect("a code"));
    let keys: Vec<&String> = payload.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["url", "bootstrapToken", "expiresAtMs", "gatewayId", "role"], "{payload}");
    assert_eq!((&payload["bootstrapToken"], &payload["gatewayId"]), (&invited["token"], &identity));
    let text = g.setup.run(&["devices", "invite", "--admin", "--ttl", "90s"]);
    assert!(text.stdout.contains("oc-pair://") && text.stdout.contains("within 90 seconds"), "{text:#?}");
    assert!(!text.stdout.contains(g.token()) && !cli.stdout.contains(g.token()));
    // Join URLs are for nodes, and hold nothing but the right to ask once.
    let phone = g.admin().err("device.pair.setupCode", json!({"joinUrl": true, "bootstrapProfile": "limited"}));
    assert_eq!(phone["message"], "Join URLs require bootstrapProfile=node.");
    let plain = json!({"joinUrl": true, "publicUrl": "ws://192.168.77.10:18789"});
    let plain = g.admin().err("device.pair.setupCode", plain);
    assert!(
        plain["message"].as_str().is_some_and(|text| text.starts_with("Join URLs require a TLS gateway")),
        "{plain}"
    );
    let join = g.admin().ok("device.pair.setupCode", json!({"joinUrl": true}));
    let url = join["joinUrl"].as_str().expect("a URL");
    assert!(url.starts_with("https://gw.example.com/j/") && join["access"] == "node", "{join}");
    let payload = decoded(join["setupCode"].as_str().expect("a code"));
    assert!(!url.contains(payload["bootstrapToken"].as_str().expect("a token")), "{join}");
}

#[test]
fn p_46_pending_flood() {
    let g = Setup::new().behind_proxy().start();
    let from = |client: &str| g.through_proxy(client).token(g.token());
    let genuine = new_device();
    let request = pending(from("203.0.113.77").device(&genuine));
    // A thousand keys from one address, and more from many.
    let mut waiting = 0;
    for _ in 0..600 {
        waiting += usize::from(from("198.51.100.1").device(&new_device()).word() == "PAIRING_REQUIRED");
    }
    assert!((1..=32).contains(&waiting), "{waiting} requests of one source wait");
    for n in 0..600_usize {
        let client = format!("100.{}.{}.1", 64 + n / 250, n % 250);
        waiting += usize::from(from(&client).device(&new_device()).word() == "PAIRING_REQUIRED");
    }
    assert!(waiting <= 300, "{waiting} requests wait");
    let pending_now = list(&g)["pending"].as_array().expect("a list").len();
    assert_eq!(pending_now, waiting + 1);
    // The one that came first is not evicted, keeps its id, and can be approved.
    assert_eq!(pending(from("203.0.113.77").device(&genuine)), request);
    g.admin().ok("device.pair.approve", json!({"requestId": request}));
    assert_eq!(from("203.0.113.77").device(&genuine).word(), "hello [operator.read]");
    let lines = g.log().lines().count();
    assert!(lines < 500, "{lines} log lines");
}

#[test]
fn p_47_empty_or_missing_scopes_on_repair() {
    for absent in [json!([]), Value::Null, json!("absent")] {
        let g = Setup::new().start();
        let device = g.paired(ADMIN);
        let asking = |platform: &str| {
            let mut login = g.with_token().device(&device.key).set("/client/platform", platform);
            match absent.as_str() {
                Some(_) => drop(login.params.as_object_mut().expect("an object").remove("scopes")),
                None => login = login.set("/scopes", absent.clone()),
            }
            login
        };
        // Nothing asked for is nothing granted, whatever the device may have.
        assert_eq!(asking("linux").word(), "hello []", "{absent}");
        // Approved anew as another machine and asking for nothing, it has nothing.
        let request = pending(asking("windows"));
        g.admin().ok("device.pair.approve", json!({"requestId": request}));
        let paired = list(&g)["paired"][0].clone();
        assert_eq!(paired["scopes"], json!([]), "{absent}: {paired}");
        assert_ne!(device.login().set("/client/platform", "windows").word(), "hello [operator.admin]", "{absent}");
        assert_eq!(asking("windows").word(), "hello []");
    }
    // The same scope many times is one scope.
    let g = Setup::new().start();
    let key = new_device();
    let twice = g.with_token().scopes(&["operator.read", "operator.read", "operator.read"]).device(&key).hello();
    assert_eq!(twice.scopes(), READ);
    for nonsense in [json!(["operator.root", "admin", "*", "operator.*", "operator.admin "]), json!(["", "\u{0}"])] {
        assert_eq!(g.with_token().set("/scopes", nonsense).device(&new_device()).word(), "hello []");
    }
    for wrong in [json!("operator.admin"), json!({"0": "operator.admin"}), json!([["operator.admin"]]), json!([1])] {
        assert_eq!(g.with_token().set("/scopes", wrong.clone()).word(), "INVALID_REQUEST", "{wrong}");
    }
}

#[test]
fn p_48_metadata_pin_and_token_binding() {
    let g = Setup::new().start();
    let key = new_device();
    let login = || {
        let login = g.with_token().device(&key);
        login.set("/client/deviceFamily", "Linux").set("/client/displayName", "box").scopes(ADMIN)
    };
    let token = login().hello().device_token();
    let by_token = || {
        let login = g.login().device_token(&token).device(&key);
        login.set("/client/deviceFamily", "Linux").set("/client/displayName", "box").scopes(ADMIN)
    };
    assert_eq!(by_token().word(), "hello [operator.admin]");
    for (field, value) in [("platform", "windows"), ("platform", "ios 18.4"), ("deviceFamily", "iPhone")] {
        for changed in [login(), by_token()] {
            let refused = changed.set(&format!("/client/{field}"), value).refused();
            assert_eq!(refused.error["details"]["reason"], "metadata-upgrade", "{field} {value}: {}", refused.error);
        }
    }
    // Another name is only a name: never wider, and what the owner approved stays on the screen.
    assert_eq!(by_token().set("/client/displayName", "another").word(), "hello [operator.admin]");
    assert_eq!(list(&g)["paired"][0]["displayName"], "box");
    // The token of one device with the key of another.
    let other = new_device();
    assert_eq!(g.login().scopes(ADMIN).device_token(&token).device(&other).word(), "AUTH_DEVICE_TOKEN_MISMATCH");
    let second = g.paired(READ);
    assert_eq!(g.login().device_token(&token).device(&second.key).word(), "AUTH_DEVICE_TOKEN_MISMATCH");
    // A token for one gateway at another.
    let elsewhere = Setup::new().start();
    let carried = || Login::at(&elsewhere.address()).device_token(&token).device(&key);
    assert_eq!(carried().word(), "AUTH_DEVICE_TOKEN_MISMATCH");
    elsewhere.with_token().device(&key).hello();
    assert_eq!(carried().word(), "AUTH_DEVICE_TOKEN_MISMATCH", "also where the key itself is known");
}

#[test]
fn p_49_http_is_never_wider_than_websocket() {
    // The methods themselves are in `handshake.rs`; here is what a bearer opens: nothing that a stranger has not.
    let g = Setup::new().behind_proxy().start();
    let device = g.paired(ADMIN);
    let shared = format!("Bearer {}", g.token());
    let token = format!("Bearer {}", device.token);
    let paths = [
        "/",
        "/health",
        "/healthz",
        "/ready",
        "/readyz",
        "/v1/models",
        "/v1/models/openclaw",
        "/control-ui-config.json",
        "/__openclaw/control-ui-config.json",
        "/api/artifacts/download/x",
        "/avatar/main",
        "/nope",
    ];
    for path in paths {
        let ask = |extra: &[(&str, &str)]| {
            let headers = [&[("X-Forwarded-For", "203.0.113.8")][..], extra].concat();
            let reply = Conn::open(&g.proxy()).get(path, &headers);
            (reply.status, reply.text())
        };
        let stranger = ask(&[]);
        assert_eq!(ask(&[("Authorization", &token)]), stranger, "{path}: a device token is no HTTP credential");
        let scoped = ask(&[("Authorization", &shared), ("x-openclaw-scopes", "operator.admin")]);
        match path {
            "/ready" | "/readyz" => {
                let answer: Value = serde_json::from_str(&scoped.1).expect("JSON");
                assert_eq!(answer["failing"], json!([]), "the owner sees what fails");
            }
            _ => assert_eq!(scoped, stranger, "{path}"),
        }
    }
    // Off unless the config switches them on, whoever asks.
    for path in ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/hooks/wake"] {
        let headers = [("Authorization", shared.as_str())];
        let status = Conn::open(&g.address()).ask("POST", path, &headers, b"{}").status;
        assert_eq!(status, 404, "{path} is off");
    }
    // Always there, for whoever has the shared secret and nobody else.
    let invoke = |authorization: Option<&str>| {
        let headers: Vec<_> = authorization.map(|value| ("Authorization", value)).into_iter().collect();
        Conn::open(&g.address()).ask("POST", "/tools/invoke", &headers, b"{}").status
    };
    assert_eq!((invoke(None), invoke(Some(&token)), invoke(Some(&shared))), (401, 401, 400));
}

#[test]
fn p_50_read_only_sees_no_secrets() {
    let mut setup = Setup::new();
    let secrets = [
        "sk-lab-provider-key-1234567890",
        "lab-cookie-value-abcdef",
        "lab-signature-123",
        "lab-userinfo-password",
        "lab-bot-token-987654",
        "lab-remote-token-555",
    ];
    setup = setup.config(json!({
        "gateway": {"remote": {"url": format!("wss://user:{}@gw.example/?sig={}", secrets[3], secrets[2]), "token": secrets[5]}},
        "models": {"providers": {"openai": {"apiKey": secrets[0], "headers": {"Cookie": secrets[1]}}}},
        "channels": {"telegram": {"botToken": secrets[4]}},
    }));
    let home = setup.state_dir().parent().expect("a parent").display().to_string();
    let g = setup.start();
    let device = g.paired(READ);
    let mut reader = device.hello();
    let hello = reader.hello.to_string();
    let mut seen = vec![("hello".to_owned(), hello)];
    for method in reader.methods() {
        let params = match method.as_str() {
            "logs.tail" => json!({"limit": 5000, "maxBytes": 1_000_000}),
            "config.schema.lookup" => json!({"path": "gateway.auth.token"}),
            "node.describe" => json!({"nodeId": device.id()}),
            _ => json!({}),
        };
        if let Ok(payload) = reader.call(&method, params) {
            seen.push((method, payload.to_string()));
        }
    }
    for event in &reader.events {
        seen.push((format!("event {}", event["event"]), event.to_string()));
    }
    assert!(seen.len() > 10, "a reader sees something: {}", seen.len());
    for (what, text) in &seen {
        for secret in secrets {
            assert!(!text.contains(secret), "{what} shows {secret}: {text}");
        }
        assert!(!text.contains(&device.token) || what == "hello", "{what} shows a device token");
        // Where the owner keeps things is the administrator's business; a log file's own name is what `logs` is about,
        // and the config snapshot names its file as the reference does.
        if !["logs.tail", "config.get"].contains(&what.as_str()) {
            assert!(!text.contains(&home), "{what} shows a private path: {text}");
        }
    }
}

#[test]
fn p_51_anonymous_surface() {
    let g = Setup::new().behind_proxy().start();
    let version = g.admin().hello["server"]["version"].as_str().expect("a version").to_owned();
    let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let paths = [
        "/",
        "/health",
        "/healthz",
        "/ready",
        "/readyz",
        "/startup",
        "/version",
        "/metrics",
        "/status",
        "/info",
        "/api",
        "/control-ui-config.json",
        "/__openclaw/control-ui-config.json",
        "/v1/models",
        "/favicon.ico",
        "/robots.txt",
        "/openclaw.json",
        "/.env",
        "/gateway.token",
        "/gateway.sock",
        "/state/openclaw-rs.sqlite",
        "/logs",
        "/debug",
        "/.git/config",
        "/health/x",
        "/readyz/verbose",
        "/package.json",
    ];
    for path in paths {
        for method in ["GET", "HEAD", "POST", "OPTIONS", "TRACE", "DELETE"] {
            let headers = [("X-Forwarded-For", "203.0.113.8")];
            let reply = Conn::open(&g.proxy()).ask(method, path, &headers, b"");
            let all = format!("{:?} {}", reply.headers, reply.text());
            let body = reply.text();
            for word in ["uptime", "eventLoop", "cpu", "plugin", "failing", "pid", "/root", "/home", "/tmp", "rust"] {
                assert!(!body.contains(word), "{method} {path} tells of {word}: {body}");
            }
            for fact in [version.as_str(), hostname.as_str(), "hyper", "tokio"] {
                assert!(!all.contains(fact), "{method} {path} tells {fact}: {all}");
            }
            assert!(reply.header("server").is_none(), "{path}");
            if path.starts_with("/ready") && reply.status == 200 && method == "GET" {
                assert_eq!(reply.json(), json!({"ready": true}), "{path}");
            }
        }
    }
    // Nor does a WebSocket: challenge, and a refusal without facts.
    let mut opened = g.through_proxy("203.0.113.8").open().expect("101");
    let request = opened.request();
    opened.conn.send_text(&request);
    let lab::client::Outcome::Refused(refused) = opened.outcome() else { panic!("no refusal") };
    let text = refused.error.to_string();
    for fact in [version.as_str(), hostname.as_str(), "/tmp", "uptime"] {
        assert!(!text.contains(fact), "{text}");
    }
}

#[test]
fn p_52_confusable_tokens() {
    let unlimited =
        json!({"gateway": {"auth": {"rateLimit": {"maxAttempts": 1000, "windowMs": 1, "exemptLoopback": false}}}});
    let g = Setup::new().config(unlimited).start();
    let device = g.paired(READ);
    let good = device.token.clone();
    let swapped: String = good
        .chars()
        .map(|c| match c {
            '-' => '+',
            '_' => '/',
            c => c,
        })
        .collect();
    let wide: String =
        good.chars().map(|c| char::from_u32(u32::from(c) - 0x21 + 0xff01).expect("a wide form")).collect();
    let variants = [
        format!("{good}\n"),
        format!("{good}\r\n"),
        format!(" {good}"),
        format!("{good} "),
        format!("{good}\u{0}"),
        format!("{good}\u{0}x"),
        format!("\u{feff}{good}"),
        format!("{good}\u{200b}"),
        format!("{good}="),
        format!("{good}=="),
        good.to_uppercase(),
        good.to_lowercase(),
        good[..good.len() - 1].to_owned(),
        format!("{good}A"),
        good.repeat(2),
        wide,
        good.chars().rev().collect(),
        format!("Bearer {good}"),
        format!("{}é", &good[..good.len() - 1]),
    ];
    for variant in variants.iter().chain((swapped != good).then_some(&swapped)) {
        assert_eq!(device.login().device_token(variant).word(), "AUTH_DEVICE_TOKEN_MISMATCH", "{variant:?}");
        // In the older place, too.
        let older = Login::at(&g.address()).token(variant).device(&device.key).word();
        assert_eq!(older, "AUTH_TOKEN_MISMATCH", "{variant:?}");
    }
    let token = g.token();
    for variant in [
        format!("{token}\n"),
        format!(" {token}"),
        token.to_uppercase(),
        format!("{token}\u{0}"),
        token[1..].to_owned(),
    ] {
        assert_eq!(g.login().token(&variant).word(), "AUTH_TOKEN_MISMATCH", "{variant:?}");
    }
    assert_eq!(device.login().word(), "hello [operator.read]");
}
