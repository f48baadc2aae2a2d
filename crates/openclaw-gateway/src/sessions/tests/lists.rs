use std::sync::Arc;

use openclaw_channels::message::{Address, ChatKind};
use openclaw_protocol::{
    Scope, ScopeSet,
    method::sessions::{SessionPatch, SessionsListParams, SessionsPatchParams},
};
use serde_json::{Value, json};

use super::{super::*, key};

fn record(name: &str, updated: i64, set: impl FnOnce(&mut Record)) -> Arc<Record> {
    let mut record = Record::begin(key(name), 1);
    record.updated_ms = updated;
    set(&mut record);
    Arc::new(record)
}

fn records() -> Vec<Arc<Record>> {
    vec![
        record("main", 500, |_| {}),
        record("old", 100, |record| record.settings.label = Some("Zoo".into())),
        record("pinned", 50, |record| record.settings.pinned_ms = Some(1)),
        record("gone", 900, |record| record.settings.archived_ms = Some(1)),
        record("agent:work:main", 400, |record| record.interacted_ms = Some(1000)),
        record("telegram:group:5", 300, |record| {
            record.answered_ms = Some(2000);
            record.place = Some(Box::new(Place {
                address: Address {
                    channel: "telegram".into(),
                    account: "default".into(),
                    chat: "5".into(),
                    thread: None,
                },
                kind: ChatKind::Group,
                title: Some("Friends".into()),
            }));
        }),
        record("child", 200, |record| record.settings.spawned_by = Some(key("main"))),
    ]
}

fn listed(params: Value) -> Vec<String> {
    let params: SessionsListParams = serde_json::from_value(params).expect("params");
    let listed = list::list(records(), &params, 60_000 + 250).expect("lists");
    listed.records.iter().map(|record| record.key.rest().to_owned()).collect()
}

#[test]
fn lists_are_filtered_ordered_and_cut() {
    let check = |params: Value, expected: &[&str]| assert_eq!(listed(params.clone()), expected, "{params}");
    check(json!({}), &["pinned", "main", "main", "telegram:group:5", "child", "old"]);
    check(json!({"limit": 2}), &["pinned", "main"]);
    check(json!({"limit": 2, "offset": 4}), &["child", "old"]);
    check(json!({"offset": 99}), &[]);
    check(json!({"agentId": "work"}), &["main"]);
    check(json!({"archived": true}), &["gone"]);
    check(json!({"archived": "all", "limit": 2}), &["pinned", "gone"]);
    check(json!({"label": "Zoo"}), &["old"]);
    check(json!({"label": "zoo"}), &[]);
    check(json!({"search": "zOO"}), &["old"]);
    check(json!({"search": "friends"}), &["telegram:group:5"]);
    check(json!({"spawnedBy": "agent:main:main"}), &["child"]);
    check(json!({"sortBy": "lastInteractionAt", "limit": 1}), &["main"]);
    check(json!({"sortBy": "activity", "limit": 2}), &["telegram:group:5", "main"]);
    check(json!({"requireLastInteraction": true}), &["main"]);
    check(json!({"activeMinutes": 1}), &["main", "main", "telegram:group:5"]);
    check(json!({"ownerId": "somebody"}), &[]);
    let wrong = |params: Value| {
        let params: SessionsListParams = serde_json::from_value(params).expect("params");
        list::list(records(), &params, 0).err().expect("refused").message
    };
    assert!(wrong(json!({"limit": 0})).contains("/limit"));
    assert!(wrong(json!({"sortBy": "mood"})).contains("/sortBy"));
    assert!(wrong(json!({"archived": 3})).contains("/archived"));
}

fn patched(patch: Value) -> Result<Record, String> {
    let params = json!({"key": "x"});
    let mut whole = params.as_object().expect("object").clone();
    whole.extend(patch.as_object().expect("object").clone());
    let params: SessionsPatchParams =
        serde_json::from_value(Value::Object(whole)).map_err(|error| error.to_string())?;
    let mut record = Record::begin(key("x"), 1);
    record.settings.label = Some("before".into());
    record.settings.model = Some("a/b".into());
    record.settings.pinned_ms = Some(7);
    record.answered_ms = Some(40);
    let taken = |label: &str| label == "taken";
    patch::apply(&mut record, &params.patch, false, taken, 50).map_err(|error| error.message).map(|()| record)
}

#[test]
fn a_patch_sets_clears_and_leaves_alone() {
    let check = |patch: Value, look: fn(&Record) -> Value, expected: Value| {
        let record = patched(patch.clone()).unwrap_or_else(|error| panic!("{patch}: {error}"));
        assert_eq!(look(&record), expected, "{patch}");
    };
    let label: fn(&Record) -> Value = |record| json!(record.settings.label);
    check(json!({}), label, json!("before"));
    check(json!({"label": "after"}), label, json!("after"));
    check(json!({"label": null}), label, Value::Null);
    // P-09: shown in terminals.
    check(json!({"label": " a\u{1b}[2J\nb "}), label, json!("a [2J b"));
    check(json!({"model": "openai/gpt-5"}), |record| json!(record.settings.model), json!("openai/gpt-5"));
    check(json!({"model": null}), |record| json!(record.settings.model), Value::Null);
    check(json!({"thinkingLevel": "high"}), |record| json!(record.settings.thinking_level), json!("high"));
    check(json!({"fastMode": "auto"}), |record| json!(record.settings.fast_mode), json!("auto"));
    check(json!({"fastMode": null}), |record| json!(record.settings.fast_mode), Value::Null);
    check(json!({"pinned": true}), |record| json!(record.settings.pinned_ms), json!(7));
    check(json!({"pinned": false}), |record| json!(record.settings.pinned_ms), Value::Null);
    check(
        json!({"archived": true}),
        |record| json!([record.settings.archived_ms, record.settings.pinned_ms]),
        json!([50, null]),
    );
    check(json!({"unread": true}), |record| json!(record.unread()), json!(true));
    check(json!({"unread": false}), |record| json!([record.unread(), record.read_ms]), json!([false, 50]));
    check(
        json!({"statusNote": "on it", "attention": "hand"}),
        |record| json!(record.settings.status.clone().map(|s| s.expires_ms)),
        json!(1_800_050),
    );
    check(json!({"sendPolicy": "deny"}), |record| json!(record.settings.send_policy), json!("deny"));
    check(json!({"permissionMode": null, "execHost": null}), label, json!("before"));
    let refused = |patch: Value, expected: &str| {
        let error = patched(patch.clone()).expect_err("refused");
        assert!(error.contains(expected), "{patch}: {error}");
    };
    refused(json!({"label": "taken"}), "label already in use: taken");
    refused(json!({"label": "x".repeat(513)}), "512");
    refused(json!({"label": "\u{7}"}), "fewer than 1");
    refused(json!({"model": "gpt"}), "provider/model");
    refused(json!({"thinkingLevel": "deep"}), "thinkingLevel must be one of");
    refused(json!({"fastMode": 3}), "fastMode");
    refused(json!({"permissionMode": "read-only"}), "no permissionMode");
    refused(json!({"execSecurity": "full"}), "no execSecurity");
    refused(json!({"toolOverrides": {"webSearch": false}}), "no toolOverrides");
    refused(json!({"ttlMinutes": 500, "statusNote": "x"}), "ttlMinutes");
}

#[test]
fn organising_needs_write_and_the_rest_needs_admin() {
    let check = |patch: Value, write: bool| {
        let patch: SessionPatch = serde_json::from_value(patch).expect("a patch");
        let scopes = ScopeSet::from_iter([Scope::Read, Scope::Write]);
        assert_eq!(patch::authorize(&patch, scopes).is_ok(), write, "{patch:?}");
        assert!(patch::authorize(&patch, ScopeSet::from_iter([Scope::Admin])).is_ok());
    };
    for field in ["label", "icon", "color", "category", "model", "thinkingLevel", "fastMode"] {
        check(json!({ field: "x" }), true);
        check(json!({ field: null }), true);
    }
    check(json!({"pinned": true, "archived": true, "unread": false, "boardFace": "chat"}), true);
    for field in ["verboseLevel", "traceLevel", "reasoningLevel", "responseUsage", "sendPolicy", "groupActivation"] {
        check(json!({ field: null }), false);
        check(json!({"label": "x", field: "on"}), false);
    }
    for field in ["execSecurity", "permissionMode", "toolOverrides", "contextWindow", "somethingNew"] {
        check(json!({ field: null }), false);
    }
    check(json!({"label": "x", "expectedPermissionMode": null}), true);
}

#[test]
fn ten_thousand_are_listed_from_memory() {
    let all: Vec<_> = (0..10_000).map(|n| record(&format!("s{n}"), n, |_| {})).collect();
    let params = SessionsListParams { limit: Some(50), search: Some("S99".into()), ..Default::default() };
    let listed = list::list(all, &params, 0).expect("lists");
    assert_eq!((listed.total, listed.records.len()), (111, 50));
    assert_eq!(listed.records[0].key.rest(), "s9999");
}
