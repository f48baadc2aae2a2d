//! The capture `password-and-pairing`, and the remedy every refusal names.

use lab::{
    client::{Login, new_device},
    sandbox::Setup,
};
use serde_json::{Value, json};

#[test]
fn replays_password_mode_and_pairing() {
    let password = "test-password-xyz";
    let g = Setup::new().no_silent_pairing();
    let g = g.config(json!({"gateway": {"auth": {"mode": "password", "token": null, "password": password}}})).start();
    let login = || g.login().password(password);
    assert_eq!(g.login().word(), "DEVICE_IDENTITY_REQUIRED");
    assert_eq!(
        g.login().password("nope").refused().error,
        json!({
            "code": "INVALID_REQUEST",
            "message": "unauthorized: gateway password mismatch (use this gateway's gateway.auth.password; invalid password)",
            "details": {
                "code": "AUTH_PASSWORD_MISMATCH", "authReason": "password_mismatch", "canRetryWithDeviceToken": false,
                "recommendedNextStep": "update_auth_credentials",
                "remediation": {"command": "openclaw doctor --why", "runOn": "this-client"},
            },
        })
    );
    assert_eq!(g.login().token(password).word(), "hello [operator.read]", "either field may carry it");
    let device = new_device();
    let asked = |login: Login| {
        let refused = login.device(&device).refused();
        let close = refused.close.clone().expect("a close frame");
        assert_eq!(close.0, 1008);
        assert!(close.1.len() <= 120);
        refused.error
    };
    let request = |error: &Value| error["details"]["requestId"].as_str().expect("a request id").to_owned();
    let first = asked(login());
    let expected = json!({
        "code": "PAIRING_REQUIRED", "reason": "not-paired", "requestId": request(&first), "deviceId": device.id().to_string(),
        "requestedRole": "operator", "requestedScopes": ["operator.read"],
    });
    assert_eq!(first["message"], "pairing required: device is not approved yet");
    assert_eq!(known_details(&first), expected);
    assert_eq!(request(&asked(login())), request(&first), "the same wish keeps its id");
    let node = new_device();
    let node_asked = login().node().set("/caps", json!(["system"])).device(&node).refused().error;
    assert_eq!(node_asked["details"].get("requestedScopes"), None, "omitted when empty");
    let mut admin = login().scopes(&["operator.pairing", "operator.admin"]).hello();
    let listed = admin.ok("device.pair.list", json!({}));
    assert_eq!(listed["pending"].as_array().map(Vec::len), Some(2));
    assert_eq!(listed["pending"][0]["deviceId"], node.id().to_string(), "newest first");
    for key in [
        "requestId",
        "deviceId",
        "publicKey",
        "platform",
        "clientId",
        "clientMode",
        "role",
        "roles",
        "scopes",
        "silent",
        "isRepair",
        "ts",
    ] {
        assert!(listed["pending"][0].get(key).is_some(), "{key}: {listed}");
    }
    let approved = admin.ok("device.pair.approve", json!({"requestId": request(&first)}));
    assert_eq!(approved["device"]["approvedVia"], "owner");
    assert_eq!(approved["device"]["tokens"][0]["scopes"], json!(["operator.read"]));
    let resolved = admin.event("device.pair.resolved");
    assert_eq!(resolved["payload"]["decision"], "approved");
    assert_eq!(admin.err("device.pair.approve", json!({"requestId": request(&first)}))["message"], "unknown requestId");
    let old_token = login().device(&device).hello().device_token();
    for (login, reason, words) in [
        (
            login().scopes(&["operator.read", "operator.admin"]),
            "scope-upgrade",
            "device is asking for more scopes than currently approved",
        ),
        (login().node(), "role-upgrade", "device is asking for a higher role than currently approved"),
        (
            login().set("/client/platform", "windows"),
            "metadata-upgrade",
            "device identity changed and must be re-approved",
        ),
    ] {
        let error = asked(login);
        assert_eq!(error["message"], format!("pairing required: {words}"));
        assert_eq!(error["details"]["reason"], reason);
        assert_eq!(error["details"]["approvedRoles"], json!(["operator"]), "{reason}");
        assert_eq!(error["details"]["approvedScopes"], json!(["operator.read"]), "{reason}");
    }
    let rotate = json!({"deviceId": device.id().to_string(), "role": "operator"});
    let rotated = admin.ok("device.token.rotate", rotate.clone());
    assert_eq!(rotated["tokenDelivery"], "withheld-cross-device");
    let by_token = |token: &str| g.login().device_token(token).device(&device);
    assert_eq!(by_token(&old_token).word(), "AUTH_DEVICE_TOKEN_MISMATCH");
    let revoked = admin.ok("device.token.revoke", rotate);
    assert!(revoked["revokedAtMs"].is_i64(), "{revoked}");
    assert_eq!(asked(login())["details"]["reason"], "role-upgrade", "after a revocation, as captured");
    for method in ["device.pair.reject", "device.pair.approve"] {
        assert_eq!(
            admin.err(method, json!({"requestId": "nope"})),
            json!({"code": "INVALID_REQUEST", "message": "unknown requestId"})
        );
    }
    let remove = json!({"deviceId": device.id().to_string()});
    assert_eq!(admin.ok("device.pair.remove", remove.clone()), remove);
    assert_eq!(
        admin.err("device.pair.remove", remove),
        json!({"code": "INVALID_REQUEST", "message": "unknown deviceId"})
    );
}

/// The details a reference client reads, without the texts for people.
fn known_details(error: &Value) -> Value {
    let mut details = error["details"].clone();
    let object = details.as_object_mut().expect("details");
    object.remove("remediation");
    object.remove("remediationHint");
    details
}

#[test]
fn refusals_name_one_remedy() {
    let g = Setup::new().no_silent_pairing().start();
    for (login, command, machine) in [
        (g.login(), "openclaw doctor --why", "this-client"),
        (g.login().token("wrong"), "openclaw doctor --why", "this-client"),
        (g.with_token().device(&new_device()), "openclaw devices approve ", "gateway-host"),
        (
            g.with_token().origin("https://a.example"),
            "openclaw config set gateway.controlUi.allowedOrigins ",
            "gateway-host",
        ),
        (g.with_token().protocol(9, 9), "openclaw --version", "this-client"),
    ] {
        let refused = login.refused();
        let remediation = &refused.error["details"]["remediation"];
        assert!(remediation["command"].as_str().is_some_and(|text| text.starts_with(command)), "{}", refused.error);
        assert_eq!(remediation["runOn"], machine, "{}", refused.error);
    }
}
