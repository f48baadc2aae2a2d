//! Fixtures in the very form the releases wrote (2026.2.26 and 2026.9.6, observed), keys and tokens made up.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use openclaw_config::{Env, Paths, Profile, device_tokens::DeviceTokens, identity};
use openclaw_protocol::{DeviceId, DeviceKey, Role, ScopeSet};
use rusqlite::{Connection, params};
use serde_json::{Value, json};

use super::*;
use crate::{
    lock::{Owner, StateLock},
    pairing::{DevicePairing, TokenCheck, TokenError},
    store::Store,
};

const OPERATOR_TOKEN: &str = "M-DFaQWGuQMRWK3NX879Godq15vgyG98r83REvq48ZA";
const NODE_TOKEN: &str = "6BokD-oYKggLsIIFvDtU-lQqnPtJCet-K3BNoPsbMTU";
const OWN_TOKEN: &str = "atawuGlhNtAnkyYhrrsXKIvTFX_abIMrE6aP2eDuq74";
const CONFIG: &str =
    "// mine\n{ gateway: { mode: \"local\", port: 19500 }, agents: { $include: \"parts/agents.json5\" } }\n";

fn key(seed: u8) -> DeviceKey {
    DeviceKey::from_seed(&[seed; 32])
}

fn id(seed: u8) -> DeviceId {
    key(seed).id()
}

fn target(dir: &Path) -> Paths {
    let env = Env::from_pairs([("OPENCLAW_STATE_DIR", dir.to_str().expect("utf-8"))]);
    Paths::resolve(&env, Profile::Default).expect("paths")
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("parent")).expect("makes the directory");
    fs::write(path, text).expect("writes");
}

fn paired(seed: u8, name: &str, role: &str, scopes: &[&str], token: Value) -> Value {
    json!({
        "deviceId": id(seed), "publicKey": key(seed).public().to_wire(), "displayName": name, "platform": "linux",
        "clientId": "cli", "clientMode": "cli", "role": role, "roles": [role], "scopes": scopes,
        "approvedScopes": scopes, "tokens": token,
        "createdAtMs": 1795241713296_i64, "approvedAtMs": 1795241713296_i64 + i64::from(seed),
    })
}

fn token(role: &str, text: &str, scopes: &[&str]) -> Value {
    json!({"token": text, "role": role, "scopes": scopes, "createdAtMs": 1795241713296_i64})
}

/// A state directory as 2026.2.26 leaves it after a few operations, one of them the rotation for a role that nobody
/// approved, which that release performs.
fn old_state(dir: &Path) {
    let all = ["operator.admin", "operator.read", "operator.write", "operator.approvals", "operator.pairing"];
    write(&dir.join("openclaw.json"), CONFIG);
    write(&dir.join("parts").join("agents.json5"), "{ defaults: { workspace: '~/w' } }");
    write(&dir.join(".env"), "OPENAI_API_KEY=sk-test\n");
    write(&dir.join("cron").join("jobs.json"), "{}");
    let own = key(0x55);
    let identity = json!({
        "version": 1, "deviceId": own.id(), "publicKeyPem": own.public().to_spki_pem(),
        "privateKeyPem": own.to_pkcs8_pem().expose(), "createdAtMs": 1795241839394_i64
    });
    write(&dir.join("identity").join("device.json"), &identity.to_string());
    let auth = json!({"version": 1, "deviceId": own.id(), "tokens": {
        "operator": {"token": OWN_TOKEN, "role": "operator", "scopes": all, "updatedAtMs": 1795241839422_i64},
        "node": {"token": "from-another-gateway-0123456789", "role": "node", "scopes": [], "updatedAtMs": 1},
    }});
    write(&dir.join("identity").join("device-auth.json"), &auth.to_string());
    let mut revoked = token("operator", "H0dkaD9iENaRt06R6ecJw9GwHIiqH9wMw1M9np1K9do", &["operator.read"]);
    revoked["revokedAtMs"] = json!(1795241713412_i64);
    let records = [
        paired(
            0x11,
            "Admin box",
            "operator",
            &all,
            json!({
                "operator": token("operator", OPERATOR_TOKEN, &all),
                "node": token("node", "oaH55eN2KXv8CaJGe0KMN-xLEKBPdVGHY9QD7bHQPCo", &all),
            }),
        ),
        paired(0x22, "Node N", "node", &[], json!({"node": token("node", NODE_TOKEN, &[])})),
        paired(
            0x33,
            "Reader",
            "operator",
            &["operator.read", "operator.time-travel"],
            json!({"operator": token("operator", "bKRMtUqg4f_YjE7_OaMlAnbOpLH0xBmiOv_Rc5jfSec", &all)}),
        ),
        paired(0x44, "Revoked", "operator", &["operator.read"], json!({"operator": revoked})),
        paired(0x55, "This machine", "operator", &all, json!({"operator": token("operator", OWN_TOKEN, &all)})),
    ];
    let by_id: BTreeMap<String, Value> =
        records.into_iter().map(|r| (r["deviceId"].as_str().expect("id").to_owned(), r)).collect();
    write(&dir.join("devices").join("paired.json"), &json!(by_id).to_string());
    write(&dir.join("devices").join("pending.json"), "{}");
}

/// The tables of 2026.9.6 that matter, with its own statements (schema 18).
const SCHEMA: &str = "
CREATE TABLE schema_meta (
  meta_key TEXT NOT NULL PRIMARY KEY,
  role TEXT NOT NULL,
  schema_version INTEGER NOT NULL,
  agent_id TEXT,
  app_version TEXT,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
) STRICT;
CREATE TABLE device_pairing_paired (
  device_id TEXT NOT NULL PRIMARY KEY,
  public_key TEXT NOT NULL,
  display_name TEXT,
  operator_label TEXT,
  platform TEXT,
  device_family TEXT,
  client_id TEXT,
  client_mode TEXT,
  browser_origin TEXT,
  role TEXT,
  roles_json TEXT,
  scopes_json TEXT,
  approved_scopes_json TEXT,
  remote_ip TEXT,
  tokens_json TEXT,
  approved_via TEXT,
  node_surface_json TEXT,
  pending_node_surface_json TEXT,
  created_at_ms INTEGER NOT NULL,
  approved_at_ms INTEGER NOT NULL,
  last_seen_at_ms INTEGER,
  last_seen_reason TEXT
) STRICT;
CREATE TABLE device_identities (
  identity_key TEXT NOT NULL PRIMARY KEY,
  device_id TEXT NOT NULL,
  public_key_pem TEXT NOT NULL,
  private_key_pem TEXT NOT NULL,
  created_at_ms INTEGER NOT NULL,
  updated_at_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE device_auth_tokens (
  device_id TEXT NOT NULL,
  role TEXT NOT NULL,
  token TEXT NOT NULL,
  scopes_json TEXT NOT NULL,
  updated_at_ms INTEGER NOT NULL,
  PRIMARY KEY (device_id, role)
) STRICT;
CREATE TABLE gateway_origin_device_tokens (
  gateway_scope TEXT NOT NULL,
  device_id TEXT NOT NULL,
  role TEXT NOT NULL,
  token TEXT NOT NULL,
  scopes_json TEXT NOT NULL,
  updated_at_ms INTEGER NOT NULL,
  PRIMARY KEY (gateway_scope, device_id, role)
) STRICT;
PRAGMA user_version = 18;
INSERT INTO schema_meta VALUES ('primary', 'global', 18, NULL, '2026.9.6', 1795241288890, 1795241846448);
";

/// A database as 2026.9.6 leaves it, still open: its rows are in the log and not in the file.
fn new_state(dir: &Path) -> Connection {
    write(&dir.join("openclaw.json"), "{ gateway: { mode: 'local' } }");
    fs::create_dir_all(dir.join("state")).expect("makes the directory");
    let connection = Connection::open(dir.join("state").join("openclaw.sqlite")).expect("opens");
    connection.pragma_update(None, "journal_mode", "WAL").expect("wal");
    connection.pragma_update(None, "wal_autocheckpoint", 0).expect("keeps the log");
    connection.execute_batch(SCHEMA).expect("tables");
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("folds the schema in");
    let own = key(0x66);
    connection
        .execute(
            "INSERT INTO device_identities VALUES ('primary', ?1, ?2, ?3, 1795241295842, 1795241295842)",
            params![own.id().as_str(), own.public().to_spki_pem(), own.to_pkcs8_pem().expose()],
        )
        .expect("identity");
    connection
        .execute(
            "INSERT INTO gateway_origin_device_tokens VALUES ('wss://gw.example.ts.net/', ?1, 'node', ?2, '[]', 7)",
            params![own.id().as_str(), NODE_TOKEN],
        )
        .expect("client token");
    let row = "INSERT INTO device_pairing_paired VALUES (?1, ?2, ?3, ?4, 'linux', 'Linux', 'cli', 'cli', NULL,
        'operator', '[\"operator\"]', ?5, ?5, NULL, ?6, 'owner', NULL, NULL, 1795241341376, 1795241341376,
        1795241772035, 'connect')";
    let scopes = r#"["operator.read"]"#;
    let tokens = |text: &str, extra: &str| {
        format!(
            r#"{{"operator":{{"token":"{text}","role":"operator","scopes":["operator.read"],"createdAtMs":1795241341376,
            "rotatedAtMs":1795241772072{extra}}}}}"#
        )
    };
    for (seed, name, label, extra) in
        [(0x33, "Reader", Some("My reader"), ""), (0x77, "Browser", None, r#","boundTo":"something new""#)]
    {
        connection
            .execute(
                row,
                params![
                    id(seed).as_str(),
                    key(seed).public().to_wire(),
                    name,
                    label,
                    scopes,
                    tokens("_IPQck77lRQMYC5R2hFNN0JwCZfPDXLCjWGXPfRMV9s", extra)
                ],
            )
            .expect("device");
    }
    connection
}

/// Everything about a tree that "untouched" means: names, bytes, modes, owners, modification times.
fn snapshot(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, u32, SystemTime)> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(path) = waiting.pop() {
        let meta = fs::symlink_metadata(&path).expect("meta");
        let bytes = if meta.is_file() { fs::read(&path).expect("reads") } else { Vec::new() };
        found.insert(path.clone(), (bytes, meta.mode(), meta.modified().expect("mtime")));
        if meta.is_dir() {
            waiting.extend(fs::read_dir(&path).expect("lists").map(|entry| entry.expect("entry").path()));
        }
    }
    found
}

/// Sets every time in a tree to yesterday, so that any change shows.
fn age(dir: &Path) {
    let yesterday = SystemTime::now() - Duration::from_secs(86_400);
    for path in snapshot(dir).keys() {
        fs::File::open(path).and_then(|file| file.set_modified(yesterday)).expect("ages");
        if path.is_file() {
            fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("loosens");
        }
    }
}

fn states(plan: &MigrationPlan) -> Vec<(ItemKind, ItemState)> {
    plan.items.iter().map(|item| (item.kind, item.state)).collect()
}

fn devices(target: &Paths) -> DevicePairing {
    let store = Store::open(&target.state_db()).expect("opens");
    let pairing = store.load_devices().expect("loads");
    store.close();
    pairing
}

fn verify(pairing: &DevicePairing, seed: u8, role: Role, token: &str, scopes: &[&str]) -> Result<(), TokenError> {
    let device_id = id(seed);
    let requested = ScopeSet::parse(scopes);
    let check = TokenCheck { device_id: &device_id, role, presented: token, requested, generation: None };
    pairing.verify(&check).map(drop)
}

#[test]
fn files_of_2026_2_are_imported_and_left_untouched() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (source, here) = (dir.path().join("old"), target(&dir.path().join("new")));
    old_state(&source);
    age(&source);
    let before = snapshot(&source);
    let plan = plan(&source, &here).expect("plans");
    assert!(!here.state_dir.exists(), "planning writes nothing");
    assert_eq!(plan.found, ["2026.2 files"]);
    assert_eq!(plan.left_alone, ["cron"]);
    assert!(plan.items.iter().all(|item| item.state == ItemState::New), "{:?}", plan.items);
    let report = apply(&plan, &here, false, 1).expect("applies");
    assert_eq!(snapshot(&source), before, "not a byte, mode or time of the source changed");
    assert!(report.done.iter().all(|done| done.outcome == Outcome::Imported), "{:?}", report.done);

    assert_eq!(fs::read_to_string(&here.config_file).expect("config"), CONFIG, "comments and all");
    let include = here.state_dir.join("parts").join("agents.json5");
    for private in [&here.config_file, &here.dotenv(), &here.identity_file(), &here.state_db(), &include] {
        let mode = fs::metadata(private).expect("exists").mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", private.display());
    }
    assert_eq!(identity::load(&here).expect("loads").map(|key| key.id()), Some(id(0x55)));

    let pairing = devices(&here);
    assert_eq!(pairing.list(0).1.len(), 5);
    assert_eq!(verify(&pairing, 0x11, Role::Operator, OPERATOR_TOKEN, &["operator.admin"]), Ok(()));
    assert_eq!(verify(&pairing, 0x22, Role::Node, NODE_TOKEN, &[]), Ok(()));
    let device = pairing.get(&id(0x33)).expect("reader");
    assert_eq!(device.approved_scopes, ScopeSet::parse(&["operator.read"]));
    assert_eq!(device.tokens[&Role::Operator].scopes, ScopeSet::parse(&["operator.read"]), "never beyond the approval");
    assert_eq!((device.created_at_ms, device.approved_via), (1795241713296, None));

    let stray = "oaH55eN2KXv8CaJGe0KMN-xLEKBPdVGHY9QD7bHQPCo";
    assert_eq!(verify(&pairing, 0x11, Role::Node, stray, &[]), Err(TokenError::RoleMissing));
    assert!(plan.warnings.iter().any(|w| w.contains("never approved")), "{:?}", plan.warnings);
    let revoked = pairing.get(&id(0x44)).expect("revoked");
    assert!(revoked.revoked(Role::Operator) && revoked.approved_scopes.is_empty());

    let own = DeviceTokens::new(&here, id(0x55));
    let cached =
        own.get("ws://127.0.0.1:19500", Role::Operator).expect("reads").expect("it is that gateway's own token");
    assert_eq!(cached.token.expose(), OWN_TOKEN);
    assert_eq!(own.list().expect("lists").len(), 1, "the other token could be for any gateway");
    assert!(plan.warnings.iter().any(|w| w.contains("does not say which gateway")), "{:?}", plan.warnings);
}

#[test]
fn a_live_2026_9_database_is_imported_and_left_untouched() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (source, here) = (dir.path().join("old"), target(&dir.path().join("new")));
    let live = new_state(&source);
    let before = snapshot(&source);
    assert!(source.join("state").join("openclaw.sqlite-wal").exists());
    let plan = plan(&source, &here).expect("plans");
    assert_eq!(plan.found, ["2026.9 database (schema 18, 2026.9.6)"]);
    let report = apply(&plan, &here, false, 1).expect("applies");
    assert_eq!(snapshot(&source), before, "not a byte, mode or time of the source changed");
    assert_eq!(report.backups, Vec::<PathBuf>::new());
    let pairing = devices(&here);
    let reader = pairing.get(&id(0x33)).expect("from the log");
    assert_eq!(reader.label.as_deref(), Some("My reader"));
    assert_eq!((reader.last_seen_at_ms, reader.client.device_family.as_deref()), (Some(1795241772035), Some("Linux")));
    let text = "_IPQck77lRQMYC5R2hFNN0JwCZfPDXLCjWGXPfRMV9s";
    assert_eq!(verify(&pairing, 0x33, Role::Operator, text, &["operator.read"]), Ok(()));
    assert_eq!(
        verify(&pairing, 0x77, Role::Operator, text, &[]),
        Err(TokenError::Missing),
        "bound in a way unknown here"
    );
    assert_eq!(identity::load(&here).expect("loads").map(|key| key.id()), Some(id(0x66)));
    let cached = DeviceTokens::new(&here, id(0x66)).get("wss://gw.example.ts.net:443", Role::Node).expect("reads");
    assert_eq!(cached.map(|token| token.token.expose().to_owned()).as_deref(), Some(NODE_TOKEN));
    drop(live);
}

#[test]
fn the_private_copy_is_gone_afterwards() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (source, scratch) = (dir.path().join("old"), dir.path().join("scratch"));
    fs::create_dir(&scratch).expect("makes");
    let _live = new_state(&source);
    let database = source.join("state").join("openclaw.sqlite");
    assert!(sqlite::read(&database, &scratch).expect("reads").is_some());
    write(&database, &"not a database, but long enough to be looked at as one".repeat(9));
    assert!(sqlite::read(&database, &scratch).is_err());
    assert_eq!(fs::read_dir(&scratch).expect("lists").count(), 0);
}

#[test]
fn nothing_here_is_replaced_without_being_told_to() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (source, here) = (dir.path().join("old"), target(&dir.path().join("new")));
    old_state(&source);
    apply(&plan(&source, &here).expect("plans"), &here, false, 1).expect("applies");
    let again = plan(&source, &here).expect("plans");
    assert!(again.items.iter().all(|item| item.state == ItemState::Same), "{:?}", again.items);
    let calm = snapshot(&here.config_file);
    let report = apply(&again, &here, true, 2).expect("applies");
    assert!(report.done.iter().all(|done| done.outcome == Outcome::Unchanged), "{:?}", report.done);
    assert_eq!(snapshot(&here.config_file), calm);

    write(&here.config_file, "{ gateway: { port: 1 } }");
    identity::store(&here, &key(0x01), 1).expect("another identity");
    let store = Store::open(&here.state_db()).expect("opens");
    let mut pairing = store.load_devices().expect("loads");
    let (_, effects) = pairing.rename(2, &id(0x11), "renamed here").expect("renames");
    store.commit_blocking(effects.changes).expect("saves");
    store.close();
    let third = plan(&source, &here).expect("plans");
    let conflicts: Vec<ItemKind> =
        third.items.iter().filter(|item| item.state == ItemState::Conflict).map(|item| item.kind).collect();
    assert_eq!(conflicts, [ItemKind::Config, ItemKind::Identity, ItemKind::Device]);
    let report = apply(&third, &here, false, 3).expect("applies");
    assert!(report.backups.is_empty());
    assert_eq!(fs::read_to_string(&here.config_file).expect("reads"), "{ gateway: { port: 1 } }");
    assert_eq!(identity::load(&here).expect("loads").map(|key| key.id()), Some(id(0x01)));
    assert_eq!(devices(&here).get(&id(0x11)).and_then(|d| d.label.clone()).as_deref(), Some("renamed here"));

    let report = apply(&third, &here, true, 4).expect("applies");
    let replaced = report.done.iter().filter(|done| done.outcome == Outcome::Replaced).count();
    assert_eq!((replaced, report.backups.len()), (3, 2), "{report:?}");
    let kept = fs::read_to_string(here.state_dir.join("openclaw.json.before-migrate")).expect("the old one is kept");
    assert_eq!(kept, "{ gateway: { port: 1 } }");
    assert_eq!(fs::read_to_string(&here.config_file).expect("reads"), CONFIG);
    assert_eq!(identity::load(&here).expect("loads").map(|key| key.id()), Some(id(0x55)));
    assert_eq!(devices(&here).get(&id(0x11)).and_then(|d| d.label.clone()), None);
}

#[test]
fn a_running_gateway_is_not_written_under() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (source, here) = (dir.path().join("old"), target(&dir.path().join("new")));
    old_state(&source);
    let owner = Owner { pid: 1, started_at_ms: 1, version: "x".into(), url: None };
    let _lock = StateLock::acquire(&here.lock_file(), owner).expect("free");
    let plan = plan(&source, &here).expect("planning needs no lock");
    assert!(matches!(apply(&plan, &here, true, 1), Err(MigrateError::Lock(_))));
    assert!(!here.config_file.exists() && !here.state_db().exists());
}

#[test]
fn in_place_takes_the_devices_and_leaves_the_files() {
    let dir = tempfile::tempdir().expect("temp dir");
    old_state(dir.path());
    let here = target(dir.path());
    let plan = plan(dir.path(), &here).expect("plans");
    let config = (ItemKind::Config, ItemState::InPlace);
    assert!(states(&plan).contains(&config) && states(&plan).contains(&(ItemKind::Identity, ItemState::Same)));
    let before = fs::read(&here.config_file).expect("reads");
    let report = apply(&plan, &here, true, 1).expect("applies");
    assert_eq!(fs::read(&here.config_file).expect("reads"), before);
    assert!(report.backups.is_empty(), "{:?}", report.backups);
    assert_eq!(devices(&here).list(0).1.len(), 5);
}

/// The document of 2026.2 is a file, that of 2026.9 a row (its own statement); a damaged one is told and left.
#[test]
fn what_may_run_comes_along() {
    const TABLE: &str =
        "CREATE TABLE exec_approvals_config (config_key TEXT NOT NULL PRIMARY KEY, raw_json TEXT NOT NULL,
        socket_path TEXT, has_socket_token INTEGER NOT NULL, default_security TEXT, default_ask TEXT,
        default_ask_fallback TEXT, auto_allow_skills INTEGER, agent_count INTEGER NOT NULL,
        allowlist_count INTEGER NOT NULL, updated_at_ms INTEGER NOT NULL) STRICT";
    let listed =
        r#"{"version":1,"defaults":{"security":"allowlist","review":"x"},"agents":{"main":{"allowlist":["/bin/ls"]}}}"#;
    let open = r#"{"version":1,"defaults":{},"agents":{}}"#;
    let check = |in_file: Option<&str>, in_row: Option<&str>, expected: Option<&str>, told: &str| {
        let dir = tempfile::tempdir().expect("temp dir");
        let (source, here) = (dir.path().join("old"), target(&dir.path().join("new")));
        old_state(&source);
        if let Some(text) = in_file {
            write(&source.join("exec-approvals.json"), text);
        }
        if let Some(text) = in_row {
            let connection = new_state(&source);
            connection.execute_batch(TABLE).expect("table");
            let row =
                "INSERT INTO exec_approvals_config VALUES ('current', ?1, NULL, 0, NULL, NULL, NULL, NULL, 1, 1, 7)";
            connection.execute(row, params![text]).expect("row");
        }
        let plan = plan(&source, &here).expect("plans");
        let warned = plan.warnings.iter().any(|warning| warning.contains("exec approvals"));
        assert_eq!(warned, !told.is_empty(), "{:?}", plan.warnings);
        assert!(told.is_empty() || plan.warnings.iter().any(|warning| warning.contains(told)), "{:?}", plan.warnings);
        apply(&plan, &here, false, 1).expect("applies");
        let written = here.state_dir.join("exec-approvals.json");
        assert_eq!(fs::read_to_string(&written).ok().as_deref(), expected);
        if expected.is_some() {
            assert_eq!(fs::metadata(&written).expect("exists").mode() & 0o777, 0o600);
            let again = super::plan(&source, &here).expect("plans again");
            assert!(states(&again).contains(&(ItemKind::ExecApprovals, ItemState::Same)));
        }
    };
    check(None, None, None, "");
    check(Some(listed), None, Some(listed), "");
    check(Some(open), Some(listed), Some(listed), "");
    check(None, Some(open), Some(open), "here what is listed runs");
    check(Some("{broken"), None, None, "exec approvals are not imported");
    check(Some(r#"{"version":2}"#), None, None, "exec approvals are not imported");
}

#[test]
fn an_upgraded_directory_does_not_bring_removed_devices_back() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (source, here) = (dir.path().join("old"), target(&dir.path().join("new")));
    old_state(&source);
    drop(new_state(&source));
    let plan = plan(&source, &here).expect("plans");
    assert_eq!(plan.found.len(), 2);
    let names: Vec<&str> = plan.items.iter().filter(|i| i.kind == ItemKind::Device).map(|i| i.name.as_str()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(plan.warnings.iter().any(|w| w.contains("left over")), "{:?}", plan.warnings);
    let identity = plan.items.iter().find(|item| item.kind == ItemKind::Identity).expect("identity");
    assert_eq!(identity.name, format!("device {}", id(0x66).short()), "the database's");
}

#[test]
fn what_cannot_be_read_is_told_without_showing_it() {
    let dir = tempfile::tempdir().expect("temp dir");
    let here = target(&dir.path().join("new"));
    assert!(matches!(plan(&dir.path().join("none"), &here), Err(MigrateError::NotADirectory(_))));
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).expect("makes");
    assert!(matches!(plan(&empty, &here), Err(MigrateError::NothingFound(_))));
    let private = key(9).to_pkcs8_pem().expose().to_owned();
    let other = json!({"version": 1, "deviceId": id(8), "privateKeyPem": private, "createdAtMs": 1}).to_string();
    for (name, path, content) in [
        ("broken", "identity/device.json", format!("{{\"privateKeyPem\": \"{private}\", oops")),
        ("foreign", "identity/device.json", other),
        ("list", "devices/paired.json", "[1]".to_owned()),
        ("garbage", "state/openclaw.sqlite", "not a database, but long enough to be looked at as one".repeat(9)),
    ] {
        let source = dir.path().join(name);
        write(&source.join(path), &content);
        let error = plan(&source, &here).expect_err(name).to_string();
        assert!(error.contains(path.rsplit('/').next().expect("name")), "{name}: {error}");
        assert!(!error.contains(&private[30..60]), "{name}: {error}");
    }
    assert!(!here.state_dir.exists());
}

#[test]
fn odd_records_are_left_out_by_name() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (source, here) = (dir.path().join("old"), target(&dir.path().join("new")));
    let mut swapped = paired(0x11, "Swapped", "operator", &["operator.admin"], json!({}));
    swapped["publicKey"] = json!(key(0x12).public().to_wire());
    let short = paired(0x13, "Short", "operator", &[], json!({"operator": token("operator", "guess", &[])}));
    let role = paired(0x14, "Worker", "worker", &[], json!({}));
    write(&source.join("devices").join("paired.json"), &json!({"a": swapped, "b": short, "c": role}).to_string());
    let plan = plan(&source, &here).expect("plans");
    assert_eq!(states(&plan), [(ItemKind::Device, ItemState::New)]);
    for part in ["not that of its key", "too short", "no role known"] {
        assert!(plan.warnings.iter().any(|w| w.contains(part)), "{part}: {:?}", plan.warnings);
    }
    apply(&plan, &here, false, 1).expect("applies");
    assert_eq!(verify(&devices(&here), 0x13, Role::Operator, "guess", &[]), Err(TokenError::Missing));
}

#[test]
fn includes_outside_the_directory_stay_outside() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (source, here) = (dir.path().join("old"), target(&dir.path().join("new")));
    write(&dir.path().join("secret.json5"), "{}");
    write(
        &source.join("openclaw.json"),
        "{ a: { $include: ['../secret.json5', '/etc/passwd', './in/one.json5', 'gone.json5'] } }",
    );
    write(&source.join("in").join("one.json5"), "{ $include: '../two.json5' }");
    write(&source.join("two.json5"), "{ $include: 'in/one.json5' }");
    let plan = plan(&source, &here).expect("plans");
    let names: Vec<&str> = plan.items.iter().filter(|i| i.kind == ItemKind::Include).map(|i| &*i.name).collect();
    assert_eq!(names, ["in/one.json5", "two.json5"]);
    assert_eq!(plan.warnings.len(), 3, "{:?}", plan.warnings);
}
